"""One image file in, a label out, or the reasons why there is none (paper III.B.5).

`classify_bytes` is the one path for the notebook, the page, the command line and the tests. What is rejected is not
decided here: `build_limits` reads the limits off the validation images, and they travel in the model's metadata.
For teaching. Nothing here is a diagnosis.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import skimage.data
from PIL import Image
from scipy import ndimage
from scipy.special import expit, logit
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_curve

from allkit import AllkitError
from allkit.features import bounding_box, measure_cell, measure_files
from allkit.images import ImageError, in_threads, is_foreground, prepare_image, read_image, to_common_size
from allkit.models import TrainedModel, predict_images
from allkit.splits import sample_weights

MAX_BYTES = 32 * 1024 * 1024
"""Larger files are refused before they are decoded."""

ABSTAIN_SHARE = 0.03
"""The share of validation images, those nearest to the threshold, whose probabilities make the abstain band."""

NEAR_BEST = 0.02
"""The threshold is the one nearest to one half whose balanced accuracy on the validation images is so near the highest.

The very highest is luck where there are few subjects, and may lie at a probability of one hundredth.
"""

SLACK = 0.15
"""The limits of a measure lie this part of its range on the validation images beyond their smallest and largest."""

_TOLERANCE = {"second_share": 0.03, "border_share": 0.02, "clipped_share": 0.02}  # where validation is all zeros

_LARGEST_SIDE = 900  # px; larger images are measured smaller: it bounds the time, and areas are scaled back

_BATCH_SIZE = 32

_REASONS = (  # (measure, side, code, sentence), the plainest first
    ("border_share", "high", "background", "the image is not one cell cut out on black: it is filled to the edge"),
    ("border_share", "low", "background", "the cell is cut out on black, and the model knows whole images only"),
    ("second_share", "high", "several", "there is more than one object on it"),
    ("area", "low", "scale", "the cell is smaller than all that the model was checked on: wrong scale?"),
    ("area", "high", "scale", "the cell is larger than all that the model was checked on: wrong scale?"),
    ("clipped_share", "high", "exposure", "it is over-exposed"),
    ("mean_g", "high", "exposure", "it is too bright"),
    ("mean_g", "low", "exposure", "it is too dark"),
    ("sharpness", "low", "focus", "it is out of focus"),
    ("sharpness", "high", "focus", "it is sharper or noisier than all that the model was checked on"),
    ("solidity", "low", "shape", "the outline is not that of a single cell"),
)


@dataclass(frozen=True)
class Result:
    """The answer for one image. For teaching, not a diagnosis.

    `label` is None where the image is rejected; `reasons` (code -> sentence) says why. The `probabilities` (class ->
    0-1, sum 1) are what the network says even then. From the `threshold` on, the first class is the label; it is None
    with more than two classes. `flags` are the reasons that the image itself gives, whatever its probability. `image`
    is what the network saw, uint8 (s, s, 3); `seconds` the time of each part: decode, quality, model.
    """

    name: str
    label: str | None
    reasons: Mapping[str, str]
    probabilities: Mapping[str, float]
    threshold: float | None
    flags: Mapping[str, str] = field(repr=False)
    image: np.ndarray = field(repr=False)
    seconds: Mapping[str, float] = field(repr=False)

    @property
    def rejected(self) -> bool:
        """Whether there is no label."""
        return self.label is None


@dataclass(frozen=True)
class PreparedImage:
    """An image as the network will see it, and the reasons against it; see `Result`."""

    name: str
    image: np.ndarray
    flags: dict[str, str]
    seconds: dict[str, float]


def classify_bytes(data: bytes, trained: TrainedModel, *, name: str = "", threshold: float | None = None) -> Result:
    """Classify one image file given as bytes: BMP, PNG, JPEG, TIFF or WebP (the paper's GUI, III.B.5, Fig. 7).

    Without a `threshold` (of the first class, 0-1) that of the metadata counts, or 0.5. Without limits in the metadata
    nothing is rejected. Raises ImageError, which calls the file `name`, where the bytes are no readable image, or too
    many.
    """
    prepared = prepare_bytes(data, trained, name=name)
    start = time.perf_counter()
    row = predict_images(trained, prepared.image[None])[0]
    return _result(prepared, row, trained, threshold, time.perf_counter() - start)


def classify_files(
    paths: Iterable[str | Path], trained: TrainedModel, *, threshold: float | None = None
) -> Iterator[Result | ImageError]:
    """Yield the answer, or the error, for each file in order; files are decoded while the network computes."""

    def prepare(path: str | Path) -> PreparedImage | ImageError:
        try:
            return prepare_bytes(_read_file(Path(path)), trained, name=str(path))
        except ImageError as error:
            return error

    waiting: list[PreparedImage | ImageError] = []
    for prepared in in_threads(prepare, paths, what="classifying images"):
        waiting.append(prepared)
        if len(waiting) == _BATCH_SIZE:
            yield from _answer_all(waiting, trained, threshold)
            waiting = []
    yield from _answer_all(waiting, trained, threshold)


def prepare_bytes(data: bytes, trained: TrainedModel, *, name: str = "") -> PreparedImage:
    """Decode an image file, check it against the model's limits, and bring it to the size that the network takes."""
    if len(data) > MAX_BYTES:
        raise ImageError(
            f"{name or 'the image'} has more than {MAX_BYTES // 2**20} MB. Cut the cell out, or scale it down."
        )
    start = time.perf_counter()
    image = read_image(data, name=name)
    return _prepare(image, trained, name, start)


def apply_threshold(result: Result, trained: TrainedModel, threshold: float) -> Result:
    """Return the same answer at another threshold: label and abstain band move, nothing is computed anew."""
    limits = trained.metadata.get("limits", {})
    shown = threshold if len(trained.classes) == 2 else None
    reasons = {**result.flags, **_hesitation(result.probabilities, shown, limits)}
    if not np.isfinite(list(result.probabilities.values())).all():
        reasons["broken"] = "the network computes no number for it: its weights are damaged"
    label = None if reasons else label_of(result.probabilities, shown)
    return dataclasses.replace(result, label=label, reasons=reasons, threshold=shown)


def label_of(probabilities: Mapping[str, float], threshold: float | None) -> str:
    """Return the label that probabilities give: the first class from the threshold on, or the most probable."""
    if threshold is None:
        return max(probabilities, key=probabilities.get)
    first, other = probabilities
    return first if probabilities[first] >= threshold else other


def threshold_of(trained: TrainedModel) -> float:
    """Return the threshold that the metadata holds, 0.5 without one."""
    return float(trained.metadata.get("limits", {}).get("threshold", 0.5))


def abstain_band(trained: TrainedModel, threshold: float) -> tuple[float, float] | None:
    """Return the probabilities of the first class between which there is no label, or None without a band."""
    band = trained.metadata.get("limits", {}).get("abstain")
    if band is None or len(trained.classes) != 2:
        return None
    return float(expit(_logit(threshold) - band)), float(expit(_logit(threshold) + band))


def _read_file(path: Path) -> bytes:
    """Return a file's bytes, never more than are allowed, and never from a device or a pipe."""
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist" if not path.exists() else "is no plain file"
            raise ImageError(f"{path} {what}. Name an image file.")
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be opened ({getattr(error, 'strerror', None) or error}).") from error


def _prepare(whole: np.ndarray, trained: TrainedModel, name: str, start: float) -> PreparedImage:
    size, limits = trained.metadata["input"], trained.metadata.get("limits")
    image = prepare_image(whole, size["image_size"], size["crop"])
    decoded = time.perf_counter()
    try:
        flags = find_flags(measure_quality(whole), limits) if limits else {}
    except (KeyError, TypeError) as error:
        raise AllkitError(
            f"the limits in the metadata are not those of this version of allkit ({error}); train the model again."
        ) from error
    return PreparedImage(name, image, flags, {"decode": decoded - start, "quality": time.perf_counter() - decoded})


def _answer_all(
    waiting: Sequence[PreparedImage | ImageError], trained: TrainedModel, threshold: float | None
) -> Iterator[Result | ImageError]:
    prepared = [item for item in waiting if isinstance(item, PreparedImage)]
    start = time.perf_counter()
    rows = iter(predict_images(trained, np.stack([item.image for item in prepared])) if prepared else ())
    seconds = (time.perf_counter() - start) / max(1, len(prepared))
    for item in waiting:
        yield item if isinstance(item, ImageError) else _result(item, next(rows), trained, threshold, seconds)


def _result(
    prepared: PreparedImage, row: np.ndarray, trained: TrainedModel, threshold: float | None, seconds: float
) -> Result:
    result = Result(
        name=prepared.name,
        label=None,
        reasons={},
        probabilities={name: float(p) for name, p in zip(trained.classes, row, strict=True)},
        threshold=None,
        flags=prepared.flags,
        image=prepared.image,
        seconds={**prepared.seconds, "model": seconds},
    )
    return apply_threshold(result, trained, threshold_of(trained) if threshold is None else threshold)


def _hesitation(probabilities: Mapping[str, float], threshold: float | None, limits: Mapping) -> dict[str, str]:
    band = limits.get("abstain")
    if band is None:
        return {}
    if threshold is None:
        hesitates = max(probabilities.values()) < band
    else:
        first = next(iter(probabilities.values()))
        hesitates = abs(_logit(first) - _logit(threshold)) < band
    return {"unsure": "the probability is too close to the threshold to choose a side"} if hesitates else {}


def _logit(probability: float | np.ndarray) -> float | np.ndarray:
    return logit(np.clip(probability, 1e-6, 1 - 1e-6))


def measure_quality(image: np.ndarray) -> dict[str, float]:
    """Measure what distinguishes a usable image of one cell from anything else; all numbers are finite.

    `image` is uint8 RGB (height, width, 3) of any size. Besides the features of `allkit.features.measure_cell`:
    `second_share`, area of the second largest object over that of the largest; `border_share`, share of the outermost
    pixels that are not black; `clipped_share`, share of the object's pixels whose three channels are all 250 or more;
    `sharpness`, logarithm of the variance of the Laplacian of grey inside the object.
    """
    image = to_common_size(image)
    small, factor = _within(image, _LARGEST_SIDE)
    values = measure_cell(small)
    values["area"] *= factor**2
    values["bbox_side"] *= factor
    return values | _measure_picture(small)


def _within(image: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    height, width = image.shape[:2]
    factor = max(1.0, max(height, width) / side)
    if factor == 1:
        return image, factor
    size = max(1, round(width / factor)), max(1, round(height / factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)), factor


def _measure_picture(image: np.ndarray) -> dict[str, float]:
    inside = is_foreground(image)
    labels, count = ndimage.label(inside)
    sizes = np.sort(np.bincount(labels.ravel())[1:])
    edge = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    box = bounding_box(inside) if count else np.s_[:, :]
    pixels, inside = image[box], inside[box]
    # without its rim: the step to black would count as sharp
    core = ndimage.binary_erosion(inside, iterations=5) if count else inside
    laplacian = ndimage.laplace(pixels @ np.full(3, 1 / 3, np.float32))[core]
    return {
        "second_share": float(sizes[-2] / sizes[-1]) if count > 1 else 0.0,
        "border_share": float(edge.mean()),
        "clipped_share": float((pixels[inside] >= 250).all(axis=1).mean()) if count else 0.0,
        "sharpness": float(np.log(laplacian.var() + 1e-3)) if laplacian.size else 0.0,
    }


def find_flags(quality: Mapping[str, float], limits: Mapping) -> dict[str, str]:
    """Return what speaks against an image, code -> sentence, by the limits of a model's metadata."""
    if not quality["area"]:
        return {"empty": "there is nothing on it but black"}
    flags: dict[str, str] = {}
    for measure, side, code, sentence in _REASONS:
        low, high = limits["quality"][measure]
        if code not in flags and (quality[measure] < low if side == "low" else quality[measure] > high):
            flags[code] = sentence
    if not flags and _distance(quality, limits["unlike"]) > limits["unlike"]["limit"]:
        flags["unlike"] = "it is unlike the images that the model was checked on"
    return flags


def _distance(quality: Mapping[str, float], unlike: Mapping) -> float:
    """Mahalanobis distance of an image's measures from those of the validation images."""
    names = unlike["measures"]
    values = (np.array([quality[name] for name in names]) - unlike["mean"]) / unlike["scale"]
    return float(np.sqrt(max(0.0, values @ np.array(unlike["precision"]) @ values)))


def build_limits(trained: TrainedModel, validation: pd.DataFrame, probabilities: np.ndarray) -> dict:
    """Read threshold, abstain band and limits of the measures off the validation images, for the model's metadata.

    `probabilities` are the predictions of the rows of `validation`, (n, classes); the rows count as in the training
    (see `allkit.splits.sample_weights`). The result holds `images`, their
    number; `threshold`, with two classes, see `NEAR_BEST`; `abstain`, half the width of the band
    around it in logits (with more classes: the least probability); `quality`, measure -> [low, high]; `unlike`, centre,
    precision and largest Mahalanobis distance of the measures.
    """
    weights = sample_weights(validation, trained.metadata.get("profile", {}).get("weigh", "subject"))
    limits = {"images": len(validation)}
    limits |= _limits_of_probability(trained.classes, validation, probabilities, weights)
    quality = measure_files(_measure_file, validation["path"])
    low, high = quality.min(), quality.max()
    margin = np.maximum(SLACK * (high - low), [_TOLERANCE.get(name, 1e-6) for name in quality])
    limits["quality"] = {name: [float(low[name] - margin[name]), float(high[name] + margin[name])] for name in quality}
    limits["unlike"] = _limits_of_distance(quality)
    return limits


def _limits_of_probability(
    classes: tuple[str, ...], validation: pd.DataFrame, probabilities: np.ndarray, weights: np.ndarray
) -> dict:
    if len(classes) > 2:
        return {"abstain": _quantile(probabilities.max(axis=1), weights)}
    if validation["label"].nunique() < 2:
        return {"threshold": 0.5, "abstain": 0.0}
    first = probabilities[:, 0].astype(float)
    fall_out, recall, cuts = roc_curve(
        validation["label"] == classes[0], first, sample_weight=weights, drop_intermediate=False
    )
    balanced = (1 + recall - fall_out) / 2
    # half-way to the next lower probability, so that no validation image lies on the threshold
    places = (np.minimum(cuts, 1.0) + np.append(cuts[1:], 0.0)) / 2
    good = places[balanced >= balanced.max() - NEAR_BEST]
    threshold = round(float(good[np.abs(_logit(good)).argmin()]), 6)
    away = np.abs(_logit(first) - _logit(threshold))
    return {"threshold": threshold, "abstain": _quantile(away, weights)}


def _quantile(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the value below which `ABSTAIN_SHARE` of the images lie, each counted by its weight."""
    return float(np.quantile(values, ABSTAIN_SHARE, weights=weights, method="inverted_cdf"))


def _limits_of_distance(quality: pd.DataFrame) -> dict:
    quality = quality.loc[:, quality.std(ddof=0) > 1e-9]
    mean, scale = quality.mean(), quality.std(ddof=0)
    fitted = LedoitWolf(assume_centered=True).fit((quality - mean) / scale)
    unlike = {
        "measures": list(quality),
        "mean": mean.round(6).tolist(),
        "scale": scale.round(6).clip(lower=1e-6).tolist(),
        "precision": fitted.precision_.round(5).tolist(),
    }
    distances = [_distance(row, unlike) for row in quality.to_dict("records")]
    return {**unlike, "limit": (1 + SLACK) * max(distances)}


def _measure_file(path: str) -> dict[str, float]:
    return measure_quality(read_image(path))


def rejection_rates(kinds: Mapping[str, Sequence[np.ndarray]], trained: TrainedModel) -> pd.DataFrame:
    """Count how many images of each kind are rejected, and why, by the limits in the model's metadata.

    `kinds` names lists of images, uint8 (height, width, 3), any size. One row per kind: images, rejected (share, 0-1),
    and the most frequent reasons with their counts.
    """
    rows = []
    for kind, images in kinds.items():
        prepared = [_prepare(image, trained, kind, time.perf_counter()) for image in images]
        answers = list(_answer_all(prepared, trained, None))
        codes = Counter(code for answer in answers for code in answer.reasons)
        share = sum(answer.rejected for answer in answers) / max(1, len(answers))
        why = ", ".join(f"{code} {count}" for code, count in codes.most_common(3))
        rows.append({"kind": kind, "images": len(answers), "rejected": share, "reasons": why})
    return pd.DataFrame(rows).set_index("kind")


def evaluate_rejections(answers: Sequence[Result], labels: Sequence[str]) -> pd.DataFrame:
    """Compare what is answered with what is rejected: is it better to say nothing there?

    `labels` are the true ones. Rows "answered" and "rejected": images (their number), right (share of them whose most
    probable side of the threshold is the true label, 0-1; NaN without images).
    """
    right = [label_of(a.probabilities, a.threshold) == label for a, label in zip(answers, labels, strict=True)]
    table = pd.DataFrame({"right": right, "kind": ["rejected" if a.rejected else "answered" for a in answers]})
    found = table.groupby("kind")["right"].agg(images="size", right="mean")
    return found.reindex(["answered", "rejected"]).fillna({"images": 0}).astype({"images": int})


def corrupt_images(images: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Return images of cells as they should not be uploaded: blurred, over-exposed, at a wrong scale, two at once."""

    def scaled(image: np.ndarray, factor: float) -> np.ndarray:
        return np.round(ndimage.zoom(image.astype(float), (factor, factor, 1), order=1)).astype(np.uint8)

    side = images[0].shape[1]
    halves = np.s_[:, side // 6 : side - side // 6]
    return {
        "out of focus": [ndimage.gaussian_filter(image, (6, 6, 0)) for image in images],
        "over-exposed": [np.clip(image * 1.8, 0, 255).astype(np.uint8) for image in images],
        "half the scale": [scaled(image, 0.5) for image in images],
        "twice the scale": [scaled(image, 2) for image in images],
        "two cells": [np.hstack([a[halves], b[halves]]) for a, b in itertools.pairwise(images)],
    }


def load_photographs() -> list[np.ndarray]:
    """Return photographs, a page of text and other pictures that scikit-image carries, uint8 (h, w, 3)."""
    names = ("astronaut", "camera", "coffee", "chelsea", "page", "text", "coins", "moon", "brick", "clock", "rocket")
    here = Path(skimage.data.__file__).parent  # scikit-image would download those that are not here
    pictures = [getattr(skimage.data, name)() for name in names if (here / f"{name}.png").is_file()]
    return [picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2) for picture in pictures]


def describe_model(trained: TrainedModel) -> str:
    """Return, from the model's metadata, what it was trained on and how it did, in plain sentences."""
    metadata = trained.metadata
    split, scores = metadata.get("split", {}), metadata.get("scores")
    kind = "synthetic images (drawn by a program)" if metadata["data"]["source"] == "synthetic" else "genuine images"
    count = f"{split['images']['train']:,} " if "images" in split else ""
    text = f"Trained on {count}{kind}."
    if not scores:
        return f"{text} How it did on other images is not recorded."
    whose = "subjects it may know" if split.get("shares_subjects") else "subjects it had not seen"
    names = {
        "auc": "AUC",
        "balanced_accuracy": "balanced accuracy",
        "sensitivity": f"sensitivity for {trained.classes[0]}",
        "specificity": "specificity",
    }
    measures = ", ".join(f"{name} {scores[key]:.2f}" for key, name in names.items() if key in scores)
    return f"{text} On {scores['images']:,} images of {whose}: {measures}."
