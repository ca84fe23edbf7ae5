"""The exercises of notebook 17."""

from __future__ import annotations

import pandas as pd

from allkit.course.grading import Exercise
from allkit.course.questions.common import explain
from allkit.judging.tables import Loaded
from allkit.lessons.predictions import evaluate_costs


def _ratio(studies: pd.DataFrame) -> float:
    return float(studies.loc["images", "width"] / studies.loc["subjects", "width"])


def _cost(loaded: Loaded, missed: float, chosen: str = "on other subjects") -> float:
    found = evaluate_costs(loaded.rows, prevalence=0.05, cost_missed=missed, cost_false_alarm=1)
    return float(found.loc[chosen].loc["cost_per_1000", "value"])


def _too_few(loaded: Loaded) -> str:
    return "" if _cost(loaded, 20) >= 0 else "a class has images of one subject only."


EXERCISES = (
    Exercise(
        id="17.1",
        level="look",
        kind="number",
        given=("studies",),
        tolerance=0.011,
        truth=_ratio,
        mistakes=(
            (lambda studies: 1 / _ratio(studies), "Upside down: images divided by subjects."),
            (lambda studies: studies.loc["images", "width"], "That is a width. Divide it by the other one."),
            (
                lambda studies: studies.loc["images", "holds"],
                "That is how many hold the truth. Read `width`.",
            ),
        ),
        why="The images are the same. Only the claim that each comes from another person makes the difference.",
        hint="Which column of `studies` is about it, and which row is divided by which?",
        more="In `studies`, divide the `width` of images by that of subjects.",
        misconception="many cells are many witnesses",
    ),
    Exercise(
        id="17.2",
        level="compute",
        kind="share",
        tolerance=0.004,
        truth=0.8176,
        mistakes=(
            (0.8, "That is 2.0 divided by the sum of both. Logits may be negative: take e to the power of each first."),
            (0.8808, "That is the sigmoid of 2.0 alone. The other class has a logit, too: take their difference."),
            (0.1824, "That is the probability of HEM."),
        ),
        why="Softmax: e² / (e² + e^0.5). Only the difference of both logits counts.",
        hint="Softmax makes positive numbers that add up to 1. How?",
        more="Divide exp(2.0) by exp(2.0) + exp(0.5).",
    ),
    Exercise(
        id="17.3",
        level="change",
        kind="number",
        given=("loaded",),
        unless=_too_few,
        tolerance=0.6,
        truth=lambda loaded: _cost(loaded, 20),
        mistakes=(
            (lambda loaded: _cost(loaded, 20, "on the same images"), "That was chosen on the images that judge it."),
            (lambda loaded: _cost(loaded, 5), "That is with a missed case at 5. Let it cost 20."),
        ),
        why="It was judged on subjects who had no part in choosing it.",
        hint="Which function above divides the subjects into folds, and which of its two answers is asked for?",
        more="Call `predictions.evaluate_costs` on `loaded.rows` with a missed case at 20; take the upper cost.",
        misconception="the test set used for choosing",
    ),
    explain(
        "17.4",
        "b",
        "Eight people are eight witnesses, whatever the number of cells.",
        misconception="many cells are many witnesses",
        a="All those cells are of eight people. About the ninth this interval says nothing.",
        c="More cells of the same eight make the interval narrower still, about the same eight.",
        d="By how much it is too narrow, nobody knows without the subjects. A factor of two is made up.",
    ),
)
