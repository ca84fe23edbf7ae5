"""The exercises of notebook 06."""

from __future__ import annotations

import pandas as pd

from allkit.course.grading import Exercise
from allkit.course.questions.common import explain, share_of_largest
from allkit.evaluate import classes_of, evaluate_predictions, probabilities_of


def _called(predictions: dict[str, pd.DataFrame], threshold: float, positive: bool = True) -> float:
    """Return sensitivity, or else specificity, of the first network with this threshold."""
    table = next(iter(predictions.values()))
    first = table["label"] == classes_of(table)[0]
    called = probabilities_of(table)[:, 0] >= threshold
    return float(called[first].mean() if positive else (~called[~first]).mean())


def _count_called(predictions: dict[str, pd.DataFrame]) -> int:
    table = next(iter(predictions.values()))
    first = table["label"] == classes_of(table)[0]
    return int((probabilities_of(table)[:, 0] >= 0.9)[first].sum())


EXERCISES = (
    Exercise(
        id="06.1",
        level="look",
        kind="number",
        given=("difference",),
        truth=lambda difference: int((difference["verdict"] != "inconclusive").sum()),
        mistakes=(
            (lambda difference: int((difference["verdict"] == "inconclusive").sum()), "These are the others."),
            (lambda difference: len(difference), "These are all rows. Read the column `verdict`."),
            (
                lambda difference: int((difference["value"] != 0).sum()),
                "Some difference there nearly always is. Read the column `verdict`.",
            ),
        ),
        why="A difference counts only where its interval excludes zero.",
        hint="Which column says whether a difference is decided?",
        more="Count the rows of `difference` whose `verdict` names a network.",
    ),
    Exercise(
        id="06.2",
        level="compute",
        kind="share",
        given=("parts",),
        tolerance=0.006,
        truth=lambda parts: share_of_largest(parts.test),
        mistakes=(
            (lambda parts: 1 / parts.test["label"].nunique(), "That is the lazy answer's *balanced* accuracy."),
            (lambda parts: share_of_largest(parts.train), "That is the largest class's share of the training part."),
        ),
        why="An accuracy below this is worse than no network at all.",
        hint="What is the lazy answer on these images, and how often is it true?",
        more="Which share of the test part's labels is the most frequent one?",
        misconception="accuracy under imbalance",
    ),
    Exercise(
        id="06.3",
        level="change",
        kind="share",
        given=("predictions",),
        tolerance=0.006,
        truth=lambda predictions: _called(predictions, 0.9),
        mistakes=(
            (_count_called, "That is how many images. Give their share of all images of the first class."),
            (lambda predictions: _called(predictions, 0.5), "That is for the threshold 0.5."),
            (lambda predictions: _called(predictions, 0.9, positive=False), "That is specificity: the other class."),
            (
                lambda predictions: evaluate_predictions(next(iter(predictions.values())))["auc"],
                "That is the AUC. It tries all thresholds, so moving one does not change it.",
            ),
        ),
        why="Not one image is ranked differently, the AUC stays as it is, and yet the decisions are others.",
        hint="Sensitivity is about one of the classes only. Which rows count?",
        more="Of the test images whose label is the first class: which share has a probability of 0.9 or more?",
    ),
    explain(
        "06.4",
        "a",
        "Ranked well, cut in the wrong place. A threshold chosen on validation images mends it without training.",
        misconception="a high AUC with a bad threshold",
        b="An AUC needs no threshold, and is not wrong because a threshold is.",
        c="Balanced accuracy does not see imbalance: every class counts the same.",
        d="The same images give both numbers. Luck with the images would show in both.",
    ),
)
