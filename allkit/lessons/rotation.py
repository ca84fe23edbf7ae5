"""Notebook 02: turning images, what else changes them, and what becomes of copies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import ndimage

from allkit import AllkitError, plots
from allkit.augment import AUGMENTATIONS, apply_augmentation
from allkit.baselines import is_on_black
from allkit.data import class_order
from allkit.features import measure_cell
from allkit.images import BACKGROUND_LEVEL, prepare_image, read_image
from allkit.splits import FRACTIONS, Split, count_leaked_copies

_ANGLE = 30


def choose_example(train: pd.DataFrame, *, seed: int = 123) -> np.ndarray:
    """Notebook 02: return an image of the first class on which a turn shows well, uint8 (224, 224, 3)."""
    rows = train[train["label"] == class_order(train)[0]].sample(frac=1, random_state=seed)
    cells = [prepare_image(read_image(path), 224) for path in rows["path"].head(8)]
    return max(cells, key=lambda image: np.abs(np.rot90(image) - image.astype(float)).mean())


def plot_points(before: np.ndarray, after: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Notebook 02: draw pixels (row, column) as circles, where they land as crosses, and arrows between."""
    ax = plots.new_axes(ax, 4.6, 4.8)
    for start, end in zip(before, after, strict=True):
        arrow = {"arrowstyle": "-|>", "color": "0.6", "shrinkA": 3, "shrinkB": 3}
        ax.annotate("", end[::-1], start[::-1], arrowprops=arrow)
    ax.plot(*before.T[::-1], "o", color=plots.BLUE, label="before: (i, j)")
    ax.plot(*after.T[::-1], "X", color=plots.ORANGE, label="after: (i', j')")
    ax.set(aspect="equal", xlabel="column j (pixels)", ylabel="row i (pixels)", xticks=range(5), yticks=range(5))
    ax.grid(color="0.9")
    ax.invert_yaxis()
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    whole = int(np.isclose(after, after.round()).all(axis=1).sum())
    words = (
        f"Pixels on a grid, and arrows to where they land; {whole} of {len(after)} land on a pixel, the others between."
    )
    return plots.describe(ax, words)


def find_holes(forward: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Notebook 02: return which pixels forward mapping left black inside the cell, bool (h, w)."""
    return (forward.max(axis=2) == 0) & (inverse.max(axis=2) > BACKGROUND_LEVEL)


def plot_closeups(image: np.ndarray, turned: Mapping[str, np.ndarray], *, side: int = 12) -> np.ndarray:
    """Notebook 02: show the same place at an edge of an image, before and after turns by 30 degrees, `side` pixels."""
    height, width = image.shape[:2]
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    edge = ndimage.gaussian_gradient_magnitude(next(iter(turned.values())).mean(axis=2), 2)
    rows, columns = np.mgrid[:height, :width]
    edge[np.hypot(rows - centre[0], columns - centre[1]) > 0.4 * min(height, width)] = 0  # not the corners
    place = np.array(np.unravel_index(edge.argmax(), edge.shape))
    angle = math.radians(_ANGLE)
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    source = np.rint(back @ (place - centre) + centre).astype(int)
    pieces = {"original": _cut(image, source, side)} | {name: _cut(one, place, side) for name, one in turned.items()}
    return plots.plot_images(
        list(pieces.values()),
        list(pieces),
        columns=3,
        size=1.9,
        factor=plots.brightening([image]),
        alt=f"The same {side} by {side} pixels at the rim of the cell: nearest is jagged, bilinear is soft.",
    )


def _cut(image: np.ndarray, place: np.ndarray, side: int) -> np.ndarray:
    low = np.clip(place - side // 2, 0, np.array(image.shape[:2]) - side)
    return image[low[0] : low[0] + side, low[1] : low[1] + side]


def apply_all(image: np.ndarray) -> dict[str, np.ndarray]:
    """Notebook 02: return the image as it is, and changed by each of the paper's augmentations."""
    return {"original": image} | {kind: change(image) for kind, change in AUGMENTATIONS.items()}


def measure_areas(changed: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Notebook 02: return the area of the cell in each changed image, pixels, and its share of the original's.

    Noise and edges leave no area to measure; of images that are not on black, none can be counted: an empty table.
    """
    if not is_on_black(changed["original"]):
        return pd.DataFrame(index=pd.Index([], name="no black background, so no area"))
    kept = {kind: int(measure_cell(image)["area"]) for kind, image in changed.items() if kind not in ("noise", "edges")}
    table = pd.DataFrame({"area (pixels)": kept})
    return table.assign(share=(table["area (pixels)"] / kept["original"]).map("{:.0%}".format))


def count_classes(stages: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Notebook 02: return the images of each class in each stage."""
    counts = {name: rows["label"].value_counts() for name, rows in stages.items()}
    return pd.DataFrame(counts).T[list(class_order(next(iter(stages.values()))))]


def plot_copies(rows: pd.DataFrame) -> np.ndarray:
    """Notebook 02: show the image with the most copies in a balanced part, and up to four of the copies."""
    copies = rows[rows["augmentation"] != ""]
    path = copies["path"].value_counts().index[0] if len(copies) else rows["path"].iloc[0]
    specs = ["", *copies.loc[copies["path"] == path, "augmentation"].head(4)]
    titles = [spec.replace("|", "\n") or "original" for spec in specs]
    alt = f"An image and its copies: {', '.join(specs[1:]) or 'none'}."
    return plots.plot_images(_changed(path, specs), titles, alt=alt)


def _changed(path: str, specs: Sequence[str]) -> list[np.ndarray]:
    original = prepare_image(read_image(path), 220)
    return [apply_augmentation(original, spec) for spec in specs]


def count_gain(stages: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Notebook 02: return images, originals and subjects of the smallest class in each stage."""
    smallest = next(iter(stages.values()))["label"].value_counts().idxmin()
    rows = {name: part[part["label"] == smallest] for name, part in stages.items()}
    table = {
        name: {
            "images": len(part),
            "different originals": part["path"].nunique(),
            "subjects": part["subject"].nunique() or "unknown",
        }
        for name, part in rows.items()
    }
    return pd.DataFrame(table).rename_axis(f"class {smallest}")


def count_leaks(orders: Mapping[str, Split]) -> pd.DataFrame:
    """Notebook 02: return for each order and part how many images have another copy in training, and their share."""
    return pd.concat({name: count_leaked_copies(order) for name, order in orders.items()}).droplevel(1)


def plot_leak(wrong: Split) -> np.ndarray:
    """Notebook 02: show a copy in the test part beside the same cell's copies in training."""
    test = wrong.test[wrong.test["path"].isin(wrong.train["path"]) & (wrong.test["augmentation"] != "")]
    if test.empty:
        raise AllkitError("no copy is on both sides of this split; try another seed.")
    row = test.iloc[0]
    twins = wrong.train[wrong.train["path"] == row["path"]].head(3)
    images = _changed(row["path"], [row["augmentation"], *twins["augmentation"]])
    titles = ["in the test", *["in training"] * len(twins)]
    alt = f"One cell in the test part, and {len(twins)} times in training, as it is or turned."
    return plots.plot_images(images, titles, columns=4, alt=alt)


def describe_leak(leaked: pd.DataFrame, wrong: Split) -> str:
    """Notebook 02: return how many test images have the same cell in training, in a sentence."""
    row = leaked.loc["augment, then split"].iloc[-1]
    smallest = wrong.train["label"].value_counts().idxmin()
    copied = wrong.test.loc[wrong.test["augmentation"] != "", "label"]
    smallest = copied.mode().iat[0] if len(copied) else smallest
    of_class = wrong.test[wrong.test["label"] == smallest]["path"].isin(wrong.train["path"]).mean()
    return (
        f"In the paper's order **{row['leaked']:,} of {row['images']:,} test images** have the same cell in training; "
        f"of the class {smallest}, {of_class:.0%}."
    )


def trained_on(pool: int) -> int:
    """Notebook 02: return the size of the training part of so many images, by the paper's recipe."""
    return pool - math.ceil(pool * (FRACTIONS[1] + FRACTIONS[2]))


def summarise(holes: np.ndarray, leaked: pd.DataFrame) -> str:
    """Notebook 02: return what was found, as a list."""
    share = leaked.loc["augment, then split"].iloc[-1]["share"]
    facts = [
        "Rotate by computing for every *new* pixel where it comes from; forward mapping left "
        f"{holes.sum():,} holes in our example.",
        "Right angles and flips are exact; everything else interpolates, so do it once.",
        "Fill with the background, and know which augmentations change what the label depends on.",
        f"Split first. In the wrong order {share:.0%} of the test images leaked here.",
    ]
    return "\n".join(f"- {fact}" for fact in facts)
