"""Notebook 10: maps against a known truth, a planted shortcut, cells of one size, scale bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from allkit import AllkitError
from allkit.augment import corner_box, transform_image
from allkit.data import class_order
from allkit.evaluate import bootstrap_by_subject, check_same_images, evaluate_predictions, probabilities_of
from allkit.explain import resize_map
from allkit.features import cell_mask
from allkit.images import centre_crop, in_threads, prepare_image, read_image, to_common_size
from allkit.splits import Split

CORNER = (0.125, 0.16)
"""Height and width of a corner that is covered or swapped, shares of the picture's."""


def plant_shortcut(part: pd.DataFrame, labels: Sequence[str], *, share: float = 0.9, seed: int = 0) -> pd.DataFrame:
    """Notebook 10: have this share of the images of some classes stamped top left when loaded (`stamp_mark`).

    Returns the rows, which must not be balanced, with the column `augmentation`, "mark:top left" or "".
    """
    if "augmentation" in part and (part["augmentation"] != "").any():
        raise AllkitError("These images are changed already (column 'augmentation'): mark the originals.")
    chosen = part["label"].isin(labels).to_numpy() & (np.random.default_rng(seed).random(len(part)) < share)
    return part.assign(augmentation=np.where(chosen, "mark:top left", ""))


def rescale_cell(image: np.ndarray, area: float) -> np.ndarray:
    """Notebook 10: enlarge or shrink a cell on black about its centre of mass until it covers `area` pixels.

    Bilinearly; uint8 (h, w, 3), black outside the cell. Shape, colour and the order of places stay; the size goes,
    and the grain of the texture grows or shrinks with it. What falls outside the frame is lost. A black image comes
    back as it is.
    """
    if not area > 0:
        raise AllkitError(f"The area is {area} pixels, but it must be above 0.")
    mask = cell_mask(image)
    if not mask.any():
        return image.copy()
    centre = [float(np.mean(places)) for places in np.nonzero(mask)]
    factor = float(np.sqrt(area / mask.sum()))
    return transform_image(image * mask[..., None], factor=factor, centre=centre)


def cover_corner(image: np.ndarray, corner: str) -> np.ndarray:
    """Notebook 10: return a copy whose corner (of `CORNERS`) is covered by the piece beside it, mirrored to fit."""
    rows, columns = corner_box(image, corner, *CORNER)
    start, stop, _ = columns.indices(image.shape[1])
    wide = stop - start
    beside = slice(stop, stop + wide) if start == 0 else slice(start - wide, start)
    covered = image.copy()
    covered[rows, columns] = image[rows, beside][:, ::-1]
    return covered


def swap_corner(image: np.ndarray, other: np.ndarray, corner: str) -> np.ndarray:
    """Notebook 10: return a copy with the same corner (of `CORNERS`) of another picture of the same size."""
    if image.shape != other.shape:
        raise AllkitError(f"Pictures of {image.shape} and {other.shape} pixels have no common corner.")
    box, swapped = corner_box(image, corner, *CORNER), image.copy()
    swapped[box] = other[box]
    return swapped


def average_scores(scores: pd.DataFrame, measure: str, *, against: str, seed: int = 123) -> pd.DataFrame:
    """Notebook 10: average a score over cells, method by method, with a percentile bootstrap interval over subjects.

    `scores` as from `score_maps`, for one mask; the column `measure` is averaged. The same subjects are resampled for
    every method, so that the methods are compared on the same cells.

    One row per method, columns as `bootstrap_by_subject`, which draws from all subjects alike where classes are not
    given; and verdict, "above" or "below" the method `against` where the interval of the difference excludes zero,
    else "inconclusive".
    """
    wide = scores.pivot(index="path", columns="method", values=measure)[list(dict.fromkeys(scores["method"]))]
    cells = scores.drop_duplicates("path").set_index("path").loc[wide.index, ["subject", "group"]].reset_index()
    values, rival = wide.to_numpy(float), wide.columns.get_loc(against)

    def averages(weight: np.ndarray) -> dict[str, float]:
        return dict(zip(wide.columns, np.average(values, axis=0, weights=weight), strict=True))

    def gains(weight: np.ndarray) -> dict[str, float]:
        means = np.average(values, axis=0, weights=weight)
        return dict(zip(wide.columns, means - means[rival], strict=True))

    table = bootstrap_by_subject(cells, averages, resamples=1000, seed=seed).rename_axis("method")
    gain = bootstrap_by_subject(cells, gains, resamples=1000, seed=seed)  # the same seed draws the same subjects
    table["verdict"] = np.select([gain["low"] > 0, gain["high"] < 0], ["above", "below"], "inconclusive")
    return table


def count_changes(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    """Notebook 10: return how far answers moved when the images were changed, each 0–1.

    `changed`: share of images with another predicted class; `moved`: mean absolute change of the probability of
    the class that was predicted before; `accuracy` and `balanced_accuracy` after the change.
    """
    check_same_images(before, after)
    first, second = probabilities_of(before), probabilities_of(after)
    rows, predicted = np.arange(len(before)), first.argmax(axis=1)
    scores = evaluate_predictions(after)
    return {
        "changed": float((predicted != second.argmax(axis=1)).mean()),
        "moved": float(np.abs(first[rows, predicted] - second[rows, predicted]).mean()),
        "accuracy": scores["accuracy"],
        "balanced_accuracy": scores["balanced_accuracy"],
    }


def random_map(size: int, places: int, seed: int) -> np.ndarray:
    """Notebook 10: return uniform random numbers on a grid, enlarged like Grad-CAM's map: float32 (size, size), 0–1."""
    heat = np.random.default_rng(seed).random((places, places))
    return resize_map(heat / heat.max(), size)


def centre_blob(size: int) -> np.ndarray:
    """Notebook 10: return a map that is the same for every image: float32 (size, size), 0–1.

    A Gaussian about the middle, with a standard deviation of a fifth of the side.
    """
    away = (np.arange(size) - (size - 1) / 2) / (0.2 * size)
    bell = np.exp(-0.5 * away**2)
    return (np.outer(bell, bell) / bell.max() ** 2).astype(np.float32)


def load_masks(path: str, load_truth: Callable[[str], Any]) -> dict[str, np.ndarray]:
    """Notebook 10: return where what is, bool (height, width) each, at the size of `allkit.images.to_common_size`.

    For a cell of the synthetic twin "cell" and "nucleus" as they were drawn; for any other cell on black "cell"
    only, taken from the image itself (`allkit.features.cell_mask`). `load_truth` is that of `allkit.synthetic`.
    """
    image = to_common_size(read_image(path))
    try:
        truth = load_truth(path)
    except AllkitError:  # no synthetic cell: nobody has drawn its nucleus
        return {"cell": cell_mask(image)}
    side = image.shape[0]
    return {"cell": centre_crop(truth.outline, side), "nucleus": centre_crop(truth.nucleus, side)}


def prepare_mask(mask: np.ndarray, image_size: int, crop: int | None = None) -> np.ndarray:
    """Notebook 10: crop and resize a mask as `prepare_image` does its image; bool (image_size, image_size)."""
    return prepare_image(np.repeat(mask[..., None], 3, axis=2) * np.uint8(255), image_size, crop)[..., 0] > 127


def pointing_game(heat: np.ndarray, mask: np.ndarray) -> float:
    """Notebook 10: return 1 if the map's maximum lies inside the mask, bool (s, s), else 0 (Zhang et al., 2018).

    Without their tolerance. Where several pixels share the maximum it is the share of them that lies inside; an
    empty map scores 0.
    """
    _check_pair(heat, mask)
    return float(mask[heat >= heat.max() * (1 - 1e-6)].mean()) if heat.max() > 0 else 0.0


def overlap(heat: np.ndarray, mask: np.ndarray) -> float:
    """Notebook 10: return the share of the map's sum inside the mask, bool (s, s), 0–1 (Wang et al., 2020).

    An empty map scores 0, a flat map the mask's share of the area, which is the value to beat. Unlike an overlap of
    two outlines it needs no threshold on the map.
    """
    _check_pair(heat, mask)
    return float(heat[mask].sum() / heat.sum()) if heat.sum() > 0 else 0.0


def _check_pair(heat: np.ndarray, mask: np.ndarray) -> None:
    if heat.shape != mask.shape or mask.dtype != bool:
        raise AllkitError(f"a map of shape {heat.shape} needs a bool mask of the same shape, not {mask.shape}.")


def score_maps(
    cells: pd.DataFrame, maps: Mapping[str, Sequence[np.ndarray]], masks: Sequence[Mapping[str, np.ndarray]]
) -> pd.DataFrame:
    """Notebook 10: score the maps of several methods, method -> one map per cell, on the same cells.

    `masks`: per cell, name -> bool (s, s), as from `load_masks` and `prepare_mask`. One row per method, cell and
    mask: method, mask, path, subject, group, pointing and overlap, 0–1.
    """
    rows = []
    for method, of_method in maps.items():
        for k, (heat, truth) in enumerate(zip(of_method, masks, strict=True)):
            who = cells.iloc[k][["path", "subject", "group"]].to_dict()
            for name, mask in truth.items():
                scores = {"pointing": pointing_game(heat, mask), "overlap": overlap(heat, mask)}
                rows.append({"method": method, "mask": name, **who, **scores})
    return pd.DataFrame(rows)


def compare_maps(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Notebook 10: return how alike two methods' maps are, float (n,): Spearman's correlation over their pixels.

    NaN where one of the two maps is flat. The maps of a pair must have the same shape.
    """
    pairs = [(one.ravel(), other.ravel()) for one, other in zip(first, second, strict=True)]
    return np.array([spearmanr(*pair)[0] if min(map(np.ptp, pair)) > 0 else np.nan for pair in pairs], dtype=float)


def choose_cells(part: pd.DataFrame, count: int, *, seed: int = 0) -> pd.DataFrame:
    """Notebook 10: return up to `count` rows from as many subjects as possible, chosen subject by subject."""
    order = part.sample(frac=1, random_state=seed)
    turn = order.groupby(order["subject"].fillna(order["path"])).cumcount()
    return order.loc[turn.sort_values(kind="stable").index[:count]].reset_index(drop=True)


def find_scale_bar(image: np.ndarray) -> str:
    """Notebook 10: return which scale bar is burnt into the bottom right corner of a picture of a smear.

    A rule made by looking at the pictures of one hospital, not a general detector, for pictures of at least 100
    pixels a side: "black, long", a line of half the corner's width; "black on a white box", letters; "red", letters
    and ticks; or "none".
    """
    height, width = image.shape[:2]
    corner = image[round(0.93 * height) :, round(0.85 * width) :].astype(int)
    box = image[round(0.94 * height) : round(0.985 * height), round(0.865 * width) : round(0.965 * width)]
    dark, unit = corner.max(axis=2) < 90, corner.shape[0] * corner.shape[1]
    white = (box.min(axis=2) > 235).mean() > 0.35
    run = round(0.065 * width)
    lines = np.lib.stride_tricks.sliding_window_view(dark, run, axis=1).all(axis=2)
    if white and lines.any():
        return "black, long"
    if white and dark.sum() > 0.015 * unit:
        return "black on a white box"
    red = corner[..., 0] - np.maximum(corner[..., 1], corner[..., 2]) > 30
    return "red" if red.sum() > 0.007 * unit else "none"


def find_scale_bars(paths: Iterable[str]) -> np.ndarray:
    """Notebook 10: return `find_scale_bar` of every file, (n,) of str."""
    return np.array(list(in_threads(lambda path: find_scale_bar(read_image(path)), paths)), dtype=str)


def evaluate_one_category(split: Split, train: np.ndarray, test: np.ndarray) -> pd.DataFrame:
    """Notebook 10: return test predictions that know nothing of an image but a category it falls into.

    `train`, `test`: the category of each image, (n,) of str, such as the kind of scale bar. The probabilities are
    the classes' shares in that category of the training part; in all of it where a category is new.
    """
    shares = pd.crosstab(train, split.train["label"].to_numpy(), normalize="index").reindex(test)
    overall = split.train["label"].value_counts(normalize=True)
    table = split.test[["path", "label", "subject", "group"]].reset_index(drop=True)
    for name in class_order(split.train):
        table[f"p_{name}"] = shares[name].fillna(overall[name]).to_numpy()
    return table
