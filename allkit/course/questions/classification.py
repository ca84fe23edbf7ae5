"""The exercises of notebook 07."""

from __future__ import annotations

import numpy as np
import pandas as pd

from allkit.course.grading import Exercise, OneOf
from allkit.course.questions.common import explain
from allkit.evaluate import classes_of, evaluate_predictions, probabilities_of


def _sure(predictions: pd.DataFrame) -> np.ndarray:
    return probabilities_of(predictions).max(axis=1) >= 0.9


def _right_where_sure(predictions: pd.DataFrame) -> float:
    return evaluate_predictions(predictions[_sure(predictions)])["accuracy"]


def _moved(predictions: pd.DataFrame, low: float, high: float) -> int:
    first = probabilities_of(predictions)[:, 0]
    return int(((first >= low) & (first < high)).sum())


def _slips_through(rejections: pd.DataFrame, most: bool = False) -> OneOf:
    others = rejections["rejected"].iloc[1:]
    return OneOf(tuple(others.index[others == (others.max() if most else others.min())]))


EXERCISES = (
    Exercise(
        id="07.1",
        level="look",
        kind="name",
        given=("rejections",),
        names=lambda rejections: rejections.index,
        truth=_slips_through,
        mistakes=(
            (lambda rejections: rejections.index[0], "It should answer these images. Look at the rows below."),
            (lambda rejections: _slips_through(rejections, most=True), "Rejected most often. The least often counts."),
        ),
        why="These get an answer although none is deserved, and the answer looks like any other.",
        hint="The first row is what should be answered. Compare the others.",
        more="Below the first row, which name has the smallest number in the column `rejected`?",
    ),
    Exercise(
        id="07.2",
        level="compute",
        kind="share",
        given=("predictions",),
        tolerance=0.006,
        unless=lambda predictions: "" if _sure(predictions).any() else "the network is never that sure of itself.",
        truth=_right_where_sure,
        mistakes=(
            (lambda predictions: np.mean(_sure(predictions)), "That is how often it is so sure. How often right then?"),
            (
                lambda predictions: evaluate_predictions(predictions)["accuracy"],
                "That is its accuracy on all test images. Take those with a probability of 0.9 or more.",
            ),
            (
                lambda predictions: np.mean(probabilities_of(predictions)[_sure(predictions)].max(axis=1)),
                "That is how sure it says it is. Compare what it says with the truth.",
            ),
        ),
        why="If this is well below 0.9, the network claims more than it can. Notebook 10 mends that.",
        hint="First find the rows where it is so sure; then compare label and most probable class there.",
        more="Keep the rows whose largest probability is at least 0.9; in how many of them is that class the label?",
        misconception="a confident answer is a correct one",
    ),
    Exercise(
        id="07.3",
        level="change",
        kind="number",
        given=("predictions",),
        unless=lambda predictions: "" if len(classes_of(predictions)) == 2 else "thresholds belong to two classes.",
        truth=lambda predictions: _moved(predictions, 0.5, 0.9),
        mistakes=(
            (lambda predictions: _moved(predictions, 0.9, 1.1), "These keep their label. Which ones lose it?"),
            (
                lambda predictions: _moved(predictions, 0.0, 0.9),
                "Many of these were called negative with 0.5 as well. Only those in between change.",
            ),
        ),
        why="The network is the same. Moving a threshold trades one kind of mistake for the other.",
        hint="Which images lie between the old threshold and the new one?",
        more="Count the rows whose probability of the first class is at least 0.5 and below 0.9.",
    ),
    explain(
        "07.4",
        "c",
        "A plausible place is no sound reason. Notebook 11 tests maps against a known truth.",
        misconception="saliency as proof",
        a="The map says where features spoke, not whether they are features of leukemia.",
        b="A nucleus lies in the middle of nearly every picture here, and so does a map that knows nothing.",
        d="The map is computed from the network's own features, so it says something. It proves little.",
    ),
)
