"""The exercises of notebook 18: three answers depend on whose hospital it is, see `allkit.course.hand_in`."""

from __future__ import annotations

import pandas as pd

from allkit.course.grading import Between, Exercise, OneOf
from allkit.course.questions.common import explain
from allkit.evaluate import evaluate_thresholds
from allkit.synthetic.hospital import SHORTCUTS, Hospital, planted_in


def _gap(found: pd.DataFrame, first: str = "by image", second: str = "by subject") -> float:
    means = found.groupby("split_kind")["auc"].mean()
    return means[first] - means[second]


def _no_subjects(found: pd.DataFrame) -> str:
    return "" if {"by image", "by subject"} <= set(found["split_kind"]) else "whose cells these are is unknown."


def _cheapest(predictions: pd.DataFrame, prevalence: float, cost_missed: float) -> Between | OneOf:
    """Return every threshold with the lowest expected cost."""
    table = evaluate_thresholds(predictions, prevalence=prevalence, cost_missed=cost_missed, cost_false_alarm=1)
    cost = table["cost_per_1000"]
    best = table.index[cost <= cost.min() * (1 + 1e-9)]
    if len(best) > 1:
        return OneOf(tuple(table.loc[best, "threshold"].clip(upper=1.0)))
    below = table["threshold"].get(best[0] + 1, 0.0)  # between two probabilities, every threshold does the same
    return Between(float(below), float(min(table.loc[best[0], "threshold"], 1.0)))


def _not_own(hospital: Hospital) -> str:
    return "" if hospital.own else "these cells are not a hospital's that was drawn, so nobody knows what was planted."


_LOOK_AGAIN = {
    "mark": "A mark would show in the corner of a mean image.",
    "brightness": "More light moves all three means, red, green and blue, by about as much.",
    "colour": "Another stain moves the ratio of red to blue, which light alone does not.",
    "focus": "A lens out of focus takes fine structure away: `texture` would fall, `corr_4` rise.",
    "size": "Another magnification moves `area` and `bbox_side` together.",
}

EXERCISES = (
    Exercise(
        id="18.1",
        level="look",
        kind="name",
        given=("hospital",),
        unless=_not_own,
        names=lambda hospital: SHORTCUTS,
        truth=lambda hospital: planted_in(hospital.key),
        mistakes=tuple(_LOOK_AGAIN.items()),
        why="In the second ward it is not there, and a model that leans on it would fail.",
        hint="Which rows of `moved` are far out in one class and not in the other?",
        more="Take the mean images first; then, in the class that moves, the row of `moved` farthest from zero.",
    ),
    Exercise(
        id="18.2",
        level="compute",
        kind="number",
        given=("found",),
        unless=_no_subjects,
        tolerance=0.003,
        truth=_gap,
        mistakes=(
            (lambda found: -_gap(found), "The right size with the wrong sign: by image minus by subject."),
            (lambda found: found.groupby("split_kind")["auc"].mean()["by image"], "One mean. Subtract the other one."),
            (lambda found: _gap(found[found["seed"] == 0]), "That is the first seed alone. Take the mean over all."),
        ),
        why="So much would your hospital's paper promise too much. In another hospital it is another number.",
        hint="Two means over the seeds, one minus the other.",
        more="Group `found` by `split_kind`, take the mean of `auc`, subtract *by subject* from *by image*.",
    ),
    Exercise(
        id="18.3",
        level="change",
        kind="number",
        given=("predictions", "hospital"),
        tolerance=0.005,
        truth=lambda predictions, hospital: _cheapest(predictions, hospital.prevalence, hospital.cost_missed),
        mistakes=(
            (
                lambda predictions, hospital: _cheapest(predictions, 0.5, hospital.cost_missed),
                "That is for a place where every second one is ill. Use your hospital's prevalence.",
            ),
            (
                lambda predictions, hospital: _cheapest(predictions, hospital.prevalence, 1),
                "That is for a miss that costs one false alarm. Use what a miss costs in your hospital.",
            ),
            (
                lambda predictions, hospital: _cheapest(predictions, 0.5, 1),
                "That is where every second one is ill and both mistakes cost the same.",
            ),
        ),
        why="Another prevalence or other costs, and the same model needs another threshold.",
        hint="What does each threshold cost with *your* prevalence and *your* costs? Where is that lowest?",
        more="Call `evaluate_thresholds` with `hospital.prevalence`, `hospital.cost_missed` and a false alarm of 1. In "
        "which row is `cost_per_1000` lowest?",
    ),
    explain(
        "18.4",
        "c",
        "How large a leak is hangs on the subjects. It can be measured in one place, and is not known for another.",
        misconception="leakage",
        a="Measured here, on these subjects. Theirs differ more, or less, and so does their leak.",
        b="More seeds split the same subjects again. They say nothing about other people.",
        d="The model is one and the same kind in all hospitals of the figure; their leaks differ all the same.",
    ),
)
