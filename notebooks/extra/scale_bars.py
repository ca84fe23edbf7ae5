"""Scale bars in pictures of whole blood smears: find, cover and swap them (scale_bars.ipynb)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from allkit import AllkitError
from allkit.augment import corner_box
from allkit.data import class_order
from allkit.evaluate import (
    check_same_images,
    evaluate_predictions,
    probabilities_of,
)
from allkit.images import in_threads, read_image
from allkit.models import TrainedModel, predict_index
from allkit.splits import Split

CORNER = (0.125, 0.16)
"""Height and width of a corner that is covered or swapped, shares of the picture's."""


def cover_corner(image: np.ndarray, corner: str) -> np.ndarray:
    """Return a copy whose corner (of `CORNERS`) is covered by the piece beside it, mirrored to fit."""
    rows, columns = corner_box(image, corner, *CORNER)
    start, stop, _ = columns.indices(image.shape[1])
    wide = stop - start
    beside = (
        slice(stop, stop + wide) if start == 0 else slice(start - wide, start)
    )
    covered = image.copy()
    covered[rows, columns] = image[rows, beside][:, ::-1]
    return covered


def swap_corner(
    image: np.ndarray, other: np.ndarray, corner: str
) -> np.ndarray:
    """Return a copy with the same corner (of `CORNERS`) of another picture of the same size."""
    if image.shape != other.shape:
        raise AllkitError(
            f"Pictures of {image.shape} and {other.shape} pixels have no common corner."
        )
    box, swapped = corner_box(image, corner, *CORNER), image.copy()
    swapped[box] = other[box]
    return swapped


def count_changes(
    before: pd.DataFrame, after: pd.DataFrame
) -> dict[str, float]:
    """Return how far answers moved when the images were changed, each 0–1.

    `changed`: share of images with another predicted class; `moved`: mean absolute change of the probability of
    the class that was predicted before; `accuracy` and `balanced_accuracy` after the change.
    """
    check_same_images(before, after)
    first, second = probabilities_of(before), probabilities_of(after)
    rows, predicted = np.arange(len(before)), first.argmax(axis=1)
    scores = evaluate_predictions(after)
    return {
        "changed": float((predicted != second.argmax(axis=1)).mean()),
        "moved": float(
            np.abs(first[rows, predicted] - second[rows, predicted]).mean()
        ),
        "accuracy": scores["accuracy"],
        "balanced_accuracy": scores["balanced_accuracy"],
    }


def find_scale_bar(image: np.ndarray) -> str:
    """Return which scale bar is burnt into the bottom right corner of a picture of a smear.

    A rule made by looking at the pictures of one hospital, not a general detector, for pictures of at least 100
    pixels a side: "black, long", a line of half the corner's width; "black on a white box", letters; "red", letters
    and ticks; or "none".
    """
    height, width = image.shape[:2]
    corner = image[round(0.93 * height) :, round(0.85 * width) :].astype(int)
    box = image[
        round(0.94 * height) : round(0.985 * height),
        round(0.865 * width) : round(0.965 * width),
    ]
    dark, unit = corner.max(axis=2) < 90, corner.shape[0] * corner.shape[1]
    white = (box.min(axis=2) > 235).mean() > 0.35
    run = round(0.065 * width)
    lines = np.lib.stride_tricks.sliding_window_view(dark, run, axis=1).all(
        axis=2
    )
    if white and lines.any():
        return "black, long"
    if white and dark.sum() > 0.015 * unit:
        return "black on a white box"
    red = corner[..., 0] - np.maximum(corner[..., 1], corner[..., 2]) > 30
    return "red" if red.sum() > 0.007 * unit else "none"


def find_scale_bars(paths: Iterable[str]) -> np.ndarray:
    """Return `find_scale_bar` of every file, (n,) of str."""
    return np.array(
        list(
            in_threads(
                lambda path: find_scale_bar(read_image(path)),
                paths,
                what="looking for scale bars",
            )
        ),
        dtype=str,
    )


def evaluate_one_category(
    split: Split, train: np.ndarray, test: np.ndarray
) -> pd.DataFrame:
    """Return test predictions that know nothing of an image but a category it falls into.

    `train`, `test`: the category of each image, (n,) of str, such as the kind of scale bar. The probabilities are
    the classes' shares in that category of the training part; in all of it where a category is new.
    """
    shares = pd.crosstab(
        train, split.train["label"].to_numpy(), normalize="index"
    ).reindex(test)
    overall = split.train["label"].value_counts(normalize=True)
    table = split.test[["path", "label", "subject", "group"]].reset_index(
        drop=True
    )
    for name in class_order(split.train):
        table[f"p_{name}"] = shares[name].fillna(overall[name]).to_numpy()
    return table


def evaluate_known(
    split: Split,
    trained: Mapping[str, TrainedModel],
    bars: Mapping[str, np.ndarray],
) -> dict[str, pd.DataFrame]:
    """Return the test predictions of one who sees the kind of scale bar alone, and of each network."""
    alone = evaluate_one_category(split, bars["train"], bars["test"])
    return {"scale bar alone": alone} | {
        title: predict_index(one, split.test) for title, one in trained.items()
    }


def change_corners(
    split: Split,
    trained: Mapping[str, TrainedModel],
    kinds: np.ndarray,
    known: Mapping[str, pd.DataFrame],
    *,
    seed: int = 123,
) -> pd.DataFrame:
    """Cover and swap the corner of the bar, and the one at the left, which has none; return how answers moved.

    One row per network, corner and way: the numbers of `count_changes`. A corner is swapped with that of a picture with
    another kind of bar.
    """
    rng, paths, rows = (
        np.random.default_rng(seed),
        split.test["path"].to_numpy(),
        [],
    )
    donor = {
        p: rng.choice(paths[kinds != k]) if (kinds != k).any() else p
        for p, k in zip(paths, kinds, strict=True)
    }
    for corner in ("bottom right", "bottom left"):
        ways = {
            "covered": lambda image, path, corner=corner: cover_corner(
                image, corner
            ),
            "swapped": lambda image, path, corner=corner: swap_corner(
                image, read_image(donor[path]), corner
            ),
        }
        for title, one in trained.items():
            for way, change in ways.items():
                counts = count_changes(
                    known[title], predict_index(one, split.test, change=change)
                )
                rows.append(
                    {"network": title, "corner": corner, "way": way, **counts}
                )
    return pd.DataFrame(rows)


def describe_changes(changes: pd.DataFrame) -> str:
    """Return how many answers change where the bar is swapped, and where the other corner is, as a list."""
    wide = changes[changes["way"] == "swapped"].set_index(
        ["network", "corner"]
    )["changed"]
    networks: Sequence[str] = list(dict.fromkeys(changes["network"]))
    return "\n".join(
        f"- {title}: swapping the bar changes {wide[title, 'bottom right']:.1%} of the answers, swapping the other corner "
        f"{wide[title, 'bottom left']:.1%}"
        for title in networks
    )
