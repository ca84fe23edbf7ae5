"""Notebook 00: the parts of a cell, cells with their names, and the rivals in the game: a ruler and a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import ndimage

from allkit import plots
from allkit.baselines import frozen_features, single_feature_baseline, train_and_test
from allkit.classical import evaluate_baseline
from allkit.data import class_order
from allkit.images import describe_brightening, prepare_image, read_image
from allkit.splits import Split


def plot_cell_parts(cell: Any, *, ax: Axes | None = None) -> Axes:
    """Notebook 00: draw a synthetic cell, brightened, with its cytoplasm, nucleus and a nucleolus named.

    `cell` is an `allkit.synthetic.SyntheticCell`, whose masks say where they are.
    """
    ax = plots.new_axes(ax, 4.6, 3.9)
    rows, columns = np.nonzero(cell.outline)
    box = np.s_[rows.min() - 8 : rows.max() + 9, columns.min() - 8 : columns.max() + 9]
    factor = plots.brightening([cell.image])
    ax.imshow(plots.brighten(cell.image[box], factor))
    for mask, style in ((cell.outline, "-"), (cell.nucleus, "--")):
        ax.contour(mask[box], [0.5], colors="white", linestyles=style, linewidths=1)
    spots, _ = ndimage.label(cell.nucleoli)
    largest = spots == np.bincount(spots.ravel())[1:].argmax() + 1
    inside = ndimage.distance_transform_edt(cell.nucleus & ~cell.nucleoli)
    places = {
        "nucleus": np.unravel_index(inside[box].argmax(), inside[box].shape),
        "nucleolus": ndimage.center_of_mass(largest[box]),
        "cytoplasm": _middle_of_ring((cell.outline & ~cell.nucleus)[box]),
    }
    width = cell.image[box].shape[1]
    for k, (name, (y, x)) in enumerate(places.items()):
        arrow = {"arrowstyle": "-|>", "color": "white", "lw": 1.2}
        text = {
            "xytext": (1.06 * width, (0.15 + 0.3 * k) * len(cell.image[box])),
            "va": "center",
            "annotation_clip": False,
        }
        ax.annotate(name, (x, y), arrowprops=arrow | {"color": "0.45"}, **text)
    ax.set_axis_off()
    note = describe_brightening(factor)
    ax.set_title(note, fontsize=8, color="0.35", loc="left", y=-0.07)
    words = (
        f"A drawn cell with its {', '.join(places)} named; the nucleus fills {cell.cues['nucleus_share']:.0%} of it."
    )
    return plots.describe(ax, words)


def _middle_of_ring(ring: np.ndarray) -> tuple[int, int]:
    """Return the place of a ring that is farthest from both of its borders."""
    depth = ndimage.distance_transform_edt(ring)
    return np.unravel_index(depth.argmax(), depth.shape)


def plot_examples(rows: pd.DataFrame, each: int = 5, *, crop: int | None = None, seed: int = 0) -> np.ndarray:
    """Notebook 00: show some cells of each class with its name, a row per class, each of another subject."""
    rows = rows.assign(whose=rows["subject"].fillna(rows["path"])).sample(frac=1, random_state=seed)
    order, classes = rows.drop_duplicates(["label", "whose"]), class_order(rows)
    shown = pd.concat([order[order["label"] == label].head(each) for label in classes])
    images = [prepare_image(read_image(path), 200, crop) for path in shown["path"]]
    alt = f"Cells of the training part with their names, at most {each} of each class: {', '.join(classes)}."
    return plots.plot_images(images, list(shown["label"]), columns=each, size=1.2, alt=alt)


def evaluate_rivals(split: Split, *, crop: int | None = None, seed: int = 123) -> dict[str, pd.DataFrame]:
    """Notebook 00: return the predictions of the test part by your rivals in the game, the network last.

    A threshold on one number, and a network that has not been trained on these cells, read by logistic regression. Both
    learn from the training part.
    """
    simple, by_number = single_feature_baseline(split)
    numbers = frozen_features(train_and_test(split), weights="drawn", alpha=1.0, crop=crop, seed=seed)
    return {f"a ruler: {simple}": by_number, "a network": evaluate_baseline(split.train, split.test, numbers)}
