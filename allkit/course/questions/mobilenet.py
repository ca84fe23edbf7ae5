"""The exercises of notebook 04."""

from __future__ import annotations

import numpy as np
import pandas as pd

from allkit.course.grading import Exercise, OneOf
from allkit.course.questions.common import explain
from allkit.evaluate import classes_of, evaluate_predictions


def _stage(stages: pd.DataFrame, column: str) -> OneOf:
    return OneOf(tuple(stages.loc[stages[column] == stages[column].max(), "stage"]))


def _mean_precision(predictions: pd.DataFrame) -> float:
    measures = evaluate_predictions(predictions)
    return float(np.mean([measures[f"precision_{name}"] for name in classes_of(predictions)]))


def _worth_of_subjects(
    kept: pd.DataFrame, technique: str = "pre-trained", curve: str = "subjects", to: int = 1
) -> float:
    """Return the AUC with the second fewest subjects (cells, or those at place `to`) minus that with the fewest."""
    rows = kept[(kept["curve"] == curve) & (kept["technique"] == technique)].sort_values(curve)
    return float(rows["auc"].iloc[to] - rows["auc"].iloc[0])


EXERCISES = (
    Exercise(
        id="04.1",
        level="look",
        kind="name",
        given=("stages",),
        names=lambda stages: stages["stage"],
        truth=lambda stages: _stage(stages, "parameters"),
        mistakes=(
            (
                lambda stages: _stage(stages, "multiply_adds"),
                "That stage does the most work. Parameters are what is stored.",
            ),
            (lambda stages: stages["stage"].iloc[-1], "It is large, and not the largest: read the column of numbers."),
        ),
        why="Late stages have many channels, and a pointwise convolution stores channels times channels.",
        hint="Which column counts what is stored?",
        more="Find the largest number in the column `parameters` of `stages`, and give the name of its `stage`.",
    ),
    Exercise(
        id="04.2",
        level="compute",
        kind="share",
        given=("predictions",),
        tolerance=0.006,
        truth=lambda predictions: evaluate_predictions(predictions)["balanced_accuracy"],
        mistakes=(
            (
                lambda predictions: evaluate_predictions(predictions)["accuracy"],
                "That is the plain accuracy: the diagonal over all images, so the larger class counts for more.",
            ),
            (_mean_precision, "You divided by the columns: that is precision. Recall divides by the rows, the truth."),
        ),
        why="Every class counts the same, however many images it has.",
        hint="Begin with the rows of `counts`: what share of each lies on the diagonal?",
        more="Divide each number on the diagonal of `counts` by the sum of its row; then take the mean.",
        misconception="accuracy under imbalance",
    ),
    Exercise(
        id="04.3",
        level="compute",
        kind="number",
        given=("kept",),
        tolerance=0.002,
        truth=_worth_of_subjects,
        mistakes=(
            (
                lambda kept: round(_worth_of_subjects(kept), 2),
                "That is the difference of two rounded numbers. Compute it from `kept`, to three decimals.",
            ),
            (lambda kept: -_worth_of_subjects(kept), "The right size. More subjects minus fewer."),
            (
                lambda kept: _worth_of_subjects(kept, "area alone"),
                "That is the ruler. Take the technique `pre-trained`.",
            ),
            (
                lambda kept: _worth_of_subjects(kept, curve="cells"),
                "That is the other curve, over the number of cells.",
            ),
            (
                lambda kept: _worth_of_subjects(kept, to=-1),
                "That is from the fewest subjects to the most. Go one step only.",
            ),
        ),
        why="Not one cell more, only more people. That is the cheapest improvement there is, and the rarest.",
        hint="Four things choose a row of `kept`: curve, technique, cells, subjects. Which two rows are compared?",
        more="Choose the curve `subjects` and the technique `pre-trained`, then take the second `auc` minus the first.",
        misconception="many cells are many witnesses",
    ),
    Exercise(
        id="04.4",
        level="change",
        kind="number",
        tolerance=0.06,
        truth=25 * 512 / (25 + 512),
        mistakes=(
            (9 * 512 / (9 + 512), "That is for a window of 3 × 3. A window of 5 × 5 has 25 places."),
            (25.0, "The pointwise convolution is not free: add its M · N."),
            (512.0, "Mixing channels and filtering add up: 25 · M + M · N."),
            ((25 + 512) / (25 * 512), "Upside down: how many times as *much* work is the ordinary convolution?"),
            (24.0, "Right to the whole number. Give one decimal."),
        ),
        why="The larger the window, the more is saved. The limit is the number of its places.",
        hint="Write down both counts for one position, as in the cell above, with another window.",
        more="25 · M · N over 25 · M + M · N, with M = N = 512.",
    ),
    explain(
        "04.5",
        "c",
        "Choose on the validation part, open the test once. What was used to choose cannot judge the choice.",
        misconception="the test set used for choosing",
        a="The best of five is partly luck, and the luck lies in just these test images.",
        b="All five were tested on the same images; the mean is fair, but of networks that you would not use.",
        d="A tenth run, or a hundredth, makes the best of them look better still, without being better.",
    ),
)
