"""The exercises of notebook 10."""

from __future__ import annotations

import numpy as np
import pandas as pd

from allkit.course.grading import Between, Exercise
from allkit.course.questions.common import explain
from allkit.evaluate import classes_of, probabilities_of


def _coverage(simulated: pd.DataFrame, unit: str, column: str = "covers") -> float:
    return simulated[(simulated["resampled"] == unit) & (simulated["subjects"] == 10)][column].iat[0]


def _threshold_at(predictions: dict[str, pd.DataFrame], wanted: float, of: str = "specificity") -> Between:
    """Return all thresholds that do the same as the lowest (highest) with so much specificity (sensitivity)."""
    table = next(iter(predictions.values()))
    first = (table["label"] == classes_of(table)[0]).to_numpy()
    scores = probabilities_of(table)[:, 0]
    cuts = np.append(np.unique(scores), np.nextafter(1, 2))
    right = [(scores[~first] < cut).mean() if of == "specificity" else (scores[first] >= cut).mean() for cut in cuts]
    good = np.flatnonzero(np.array(right) >= wanted - 1e-9)
    place = good.min() if of == "specificity" else good.max()
    below = cuts[place - 1] if place else 0.0
    return Between(float(np.nextafter(below, 1)), float(cuts[place]))


EXERCISES = (
    Exercise(
        id="10.1",
        level="look",
        kind="share",
        given=("simulated",),
        tolerance=0.006,
        truth=lambda simulated: _coverage(simulated, "cells"),
        mistakes=(
            (lambda simulated: _coverage(simulated, "subjects"), "These are the intervals over subjects."),
            (lambda simulated: _coverage(simulated, "cells", "sees"), "That is `sees`. Read the column `covers`."),
            (0.95, "That is what they promise. How often do they hold the truth in the simulation?"),
        ),
        why="They promise 95 %. Cells of one subject are no independent witnesses.",
        hint="Mind both the number of subjects and what was resampled.",
        more="In `simulated`: 10 subjects, resampled are the cells, column `covers`.",
        misconception="many cells are many witnesses",
    ),
    Exercise(
        id="10.2",
        level="compute",
        kind="share",
        tolerance=0.004,
        truth=0.009 / (0.009 + 0.099),
        mistakes=(
            (0.9, "That is the sensitivity: of the sick, how many are called positive. Turn the question round."),
            (0.009, "These are the true alarms among all people. Divide by all alarms."),
            (0.01, "That is the prevalence. Of those for whom it sounds an alarm, how many are sick?"),
            (0.5, "That would be so if half of the people were sick. Here it is one in a hundred."),
        ),
        why="Eleven of twelve alarms are false, although the test is right nine times out of ten.",
        hint="Imagine 1,000 people: how many are sick, and how many of the others get an alarm?",
        more="9 true alarms and 99 false ones.",
        misconception="accuracy under imbalance",
    ),
    Exercise(
        id="10.3",
        level="change",
        kind="number",
        given=("validation", "predictions"),
        truth=lambda validation, predictions: _threshold_at(validation, 0.8),
        mistakes=(
            (
                lambda validation, predictions: _threshold_at(predictions, 0.8),
                "That was found on the test images. Whoever chooses there has nothing left to judge the choice by.",
            ),
            (
                lambda validation, predictions: _threshold_at(validation, 0.8, of="sensitivity"),
                "With this one the *sensitivity* is 0.8. Specificity is about the other class.",
            ),
            (0.8, "0.8 is the specificity that is wanted. Which threshold brings it about?"),
        ),
        tolerance=1e-4,
        why="Chosen on validation images. What specificity comes out on the test part is another question.",
        hint="Which images may choose? And about which class does specificity speak?",
        more="In `curves[first]`, take the lowest `threshold` among the rows with a `specificity` of 0.8 or more.",
        misconception="the test set used for choosing",
    ),
    explain(
        "10.4",
        "c",
        "Absence of evidence. The interval says which differences are still possible.",
        misconception="no difference found means no difference",
        a="That is no evidence of equality: so few subjects may not show a difference that is there.",
        b="p is no probability that a network is better. It says how often chance alone would do as much.",
        d="Testing until p is small makes sure that it once is, by luck.",
    ),
)
