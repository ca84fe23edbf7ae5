"""Notebook 00: the parts of a cell, and a game of recognising cells against a ruler and a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import ndimage

from allkit import plots
from allkit.baselines import evaluate_baseline, frozen_features, single_feature_baseline
from allkit.data import class_order
from allkit.evaluate import FEWEST_UNITS, predicted_labels, wilson_interval
from allkit.images import describe_brightening
from allkit.splits import Split, split_data

YOU = "you"

FIXED = "a fixed answer"
"""What stands in the table of scores for a game that nobody has played."""


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


def split_cells(index: pd.DataFrame, *, seed: int = 123) -> Split:
    """Notebook 00: split for the game: by subject, or by image where subjects are unknown, since nothing is claimed."""
    known = index.loc[index["label"].notna() & (index["part"] == "train"), "subject"].notna().all()
    return split_data(index, "subject" if known else "image", seed=seed)


def _middle_of_ring(ring: np.ndarray) -> tuple[int, int]:
    """Return the place of a ring that is farthest from both of its borders."""
    depth = ndimage.distance_transform_edt(ring)
    return np.unravel_index(depth.argmax(), depth.shape)


def choose_cells(rows: pd.DataFrame, cells: int = 20, *, seed: int = 0) -> pd.DataFrame:
    """Notebook 00: return cells of all classes alike, from as many subjects as possible, in random order."""
    order = rows.sample(frac=1, random_state=seed)
    turn = order.groupby(["label", order["subject"].fillna(order["path"])]).cumcount()
    order = order.loc[turn.sort_values(kind="stable").index]
    each = cells // order["label"].nunique()
    return order.groupby("label").head(each).sample(frac=1, random_state=seed).reset_index(drop=True)


def evaluate_players(
    cells: pd.DataFrame, answers: Sequence[str], split: Split, *, crop: int | None = None, seed: int = 123
) -> pd.DataFrame:
    """Notebook 00: return who recognised how many of the cells, one row per player.

    The players: you (`answers` to the first cells; none: a fixed answer to all of them), a threshold on one number,
    and a network that has not been trained on these cells, read by logistic regression. Both learn from the training
    part. Columns right, cells (counts), share, low, high (0–1; 95 % interval, Wilson's, cell by cell).
    """
    simple, by_number = single_feature_baseline(split)
    rows = pd.concat([split.train, cells]).drop_duplicates("path")
    numbers = frozen_features(rows, weights="drawn", alpha=1.0, crop=crop, seed=seed)
    by_network = evaluate_baseline(split.train, cells, numbers)
    of_ruler = pd.Series(predicted_labels(by_number), by_number["path"])
    fixed = f"{FIXED}: always {class_order(split.train)[0]}"
    players = {
        YOU if len(answers) else fixed: answers if len(answers) else [class_order(split.train)[0]] * len(cells),
        f"a ruler: {simple}": of_ruler.loc[cells["path"]],
        "a network": predicted_labels(by_network),
    }
    return pd.DataFrame({name: _score(given, cells["label"]) for name, given in players.items()}).T.astype(
        {"right": int, "cells": int}
    )


def _score(answers: Sequence[str], labels: pd.Series) -> dict[str, float]:
    given = np.asarray(answers, dtype=object)
    right = int((given == labels.to_numpy()[: len(given)]).sum())
    low, high = wilson_interval(right, len(given))
    return {"right": right, "cells": len(given), "share": right / len(given), "low": low, "high": high}


def describe_players(scores: pd.DataFrame) -> str:
    """Notebook 00: return in two sentences how the first player did, and how surely he differs from the last."""
    you, network = scores.iloc[0], scores.iloc[-1]
    who = "You have" if scores.index[0] == YOU else f"Nobody has played yet; {scores.index[0]} has"
    text = (
        f"{who} {you['right']:.0f} of {you['cells']:.0f} right, the network {network['right']:.0f} of "
        f"{network['cells']:.0f}."
    )
    if you["cells"] < FEWEST_UNITS:
        return f"{text} With so few cells no interval can be given: play on."
    span = (
        f"With {you['cells']:.0f} cells, {you['share']:.0%} may stand for anything from {you['low']:.0%} to "
        f"{you['high']:.0%}"
    )
    apart = you["high"] < network["low"] or you["low"] > network["high"]
    verdict = (
        "the network is ahead by more than luck"
        if apart and network["share"] > you["share"]
        else ("you are ahead by more than luck" if apart else "the intervals overlap: who is better is *inconclusive*")
    )
    return f"{text} {span}; {verdict}."
