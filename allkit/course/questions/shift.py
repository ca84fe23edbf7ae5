"""The exercises of notebook 14."""

from __future__ import annotations

import pandas as pd

from allkit.course.grading import Exercise
from allkit.course.questions.common import explain
from allkit.lessons import conformal


def _excess(table: pd.DataFrame) -> pd.Series:
    return table.xs("predicted - observed", level="measure")["value"]


def _both(level: float, way: str = "by person", column: str = "both classes"):
    def share(answers: pd.DataFrame) -> float:
        promises = conformal.tabulate_promises(conformal.cover_hospitals(answers, level=level), level)
        return float(promises.at[(answers["hospital"].iloc[0], way), column])

    return share


EXERCISES = (
    Exercise(
        id="14.1",
        level="look",
        kind="name",
        given=("table",),
        names=lambda table: _excess(table).index,
        truth=lambda table: _excess(table).idxmax(),
        mistakes=(
            (lambda table: _excess(table).idxmin(), "There it is expected too rarely. Look for the largest value."),
            (
                lambda table: table.xs("log_loss", level="measure")["value"].idxmax(),
                "There the log loss is highest, for whatever reason. Read the rows *predicted - observed*.",
            ),
        ),
        why="The threshold and the probabilities were right at home; nobody told them that they have moved.",
        hint="In the table of all hospitals, which rows tell what was predicted minus what was observed?",
        more="Compare the column `value` of the rows `predicted - observed`; take the largest.",
    ),
    Exercise(
        id="14.2",
        level="compute",
        kind="number",
        given=("alarms",),
        tolerance=0.11,
        truth=lambda alarms: alarms["by cell"]["value"].iloc[0] / 0.05,
        mistakes=(
            (lambda alarms: alarms["by cell"]["value"].iloc[0], "That is the share itself. How many times 0.05 is it?"),
            (lambda alarms: alarms["by subject"]["value"].iloc[0] / 0.05, "That is with subjects shuffled."),
            (
                lambda alarms: alarms["by cell"]["rings"].iloc[0],
                "That counts the rings. Take their share of the draws.",
            ),
        ),
        why="Cells of one person are not so many witnesses: the test believes that it has seen far more than it has.",
        hint="Which entry of `alarms` is about cells, and what does its column `value` hold?",
        more="Divide the `value` of `home` in `alarms['by cell']` by 0.05.",
    ),
    Exercise(
        id="14.3",
        level="change",
        kind="share",
        given=("answers",),
        tolerance=0.006,
        truth=_both(0.8),
        mistakes=(
            (_both(0.9), "That is for a promise of 90 %. Give both functions `level=0.8`."),
            (_both(0.8, "by cell"), "That is calibrated by cell. Take the row `by person`."),
            (_both(0.8, column="people kept"), "That is the share of people. Take the column `both classes`."),
        ),
        why="A smaller promise is cheaper: fewer answers say nothing.",
        hint="Make the sets and then the table, each with the new level, and look at home, by person.",
        more="In the table that `tabulate_promises` makes with level 0.8: row home, by person; column `both classes`.",
    ),
    explain(
        "14.4",
        "b",
        "Statistics without labels cannot tell a new lamp from new people. Find the cause, or label some cells.",
        misconception="a remedy that helped once always helps",
        a="The row `prevalence` in the table of remedies: no label was used, and the answers changed.",
        c="The AUC at home knows nothing of the clinic, nor of thresholds and probabilities.",
        d="They are part of what a frozen network computes: its features change, and so do the answers.",
    ),
)
