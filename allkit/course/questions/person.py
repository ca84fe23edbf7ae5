"""The exercises of notebook 13."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from allkit.course.grading import Between, Exercise
from allkit.course.questions.common import explain


def _error(curves: Mapping[str, pd.DataFrame], effect: int = 2, place: int = -1) -> float:
    return float(curves[f"subject effect {effect}"]["error"].iloc[place])


def _nobody(people: pd.DataFrame) -> str:
    return "" if len(people) else "the people of these data are unknown."


def _without_a_cell(people: pd.DataFrame, positive: bool = False) -> float:
    """Return the share of a class of whom no cell is called positive."""
    return float((people.loc[people["positive"] == positive, "share"] == 0).mean())


EXERCISES = (
    Exercise(
        id="13.1",
        level="look",
        kind="share",
        given=("curves",),
        tolerance=0.006,
        truth=_error,
        mistakes=(
            (lambda curves: _error(curves, place=0), "That is from one cell of each. Go to the end of the line."),
            (lambda curves: _error(curves, effect=1), "That is the crowd whose people differ less."),
            (lambda curves: _error(curves, effect=0), "That is the crowd whose people do not differ at all."),
        ),
        why="Hundreds of cells more would not change it: what is left is about people.",
        hint="Which line is it, and where does it end?",
        more='`curves["subject effect 2"]` is the table behind the line; take the last `error`.',
        misconception="more cells make up for people",
    ),
    Exercise(
        id="13.2",
        level="compute",
        kind="number",
        truth=float(np.ceil(np.log(0.05) / np.log(0.95))),
        mistakes=(
            (Between(298, 299), "That is how many it takes for 99 %. The question is about 95 %."),
            (20, "With 20 the chance of no false alarm is still more than a third. It must fall to 5 %."),
            (Between(57.5, 58.9), "Nearly. People come whole, and the bound must be reached."),
            (Between(72, 73), "That is the lower end of a two-sided interval. Here 5 % may be missed on one side."),
        ),
        why="Three divided by what may be missed: 3 / 0.05. This is the *rule of three*.",
        hint="How likely is it that nobody is called positive, if the true specificity is just 95 %?",
        more="The smallest whole n for which 0.95 to the power of n is 0.05 or less.",
    ),
    Exercise(
        id="13.3",
        level="change",
        kind="share",
        given=("people",),
        unless=_nobody,
        tolerance=0.006,
        truth=_without_a_cell,
        mistakes=(
            (lambda people: 1 - _without_a_cell(people), "That is the share of false alarms. Specificity is the rest."),
            (
                lambda people: 1 - _without_a_cell(people, positive=True),
                "That is the sensitivity of this rule. Specificity is about the other class.",
            ),
            (lambda people: float((people["share"] == 0).mean()), "That is over everybody. Ask one class only."),
        ),
        why="And the more cells of a healthy person are looked at, the surer the false alarm.",
        hint="Who is called negative by this rule? And about whom does specificity speak?",
        more="Among the people who are not `positive`, the share with a `share` of 0.",
    ),
    explain(
        "13.4",
        "c",
        "The interval over cells is about these people's cells. It says nothing about the next person.",
        misconception="many cells are many witnesses",
        a="They are so many cells, but of few people: nobody has counted that many witnesses.",
        b="More cells show these people better. The interval over people stays as wide as it is.",
        d="A leak would make it worse, but even without one the unit that was counted is wrong.",
    ),
)
