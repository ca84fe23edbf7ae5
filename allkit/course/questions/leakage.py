"""The exercises of notebook 09."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from allkit.course.grading import Exercise, OneOf
from allkit.course.questions.common import explain


def _by_split_kind(found: pd.DataFrame, baseline: str = "nearest neighbours") -> pd.Series:
    return found[found["baseline"] == baseline].groupby("split_kind", sort=False)["auc"].mean()


_PAPER, _IMAGE, _SUBJECT = "augment, then split", "by image", "by subject, duplicates merged"


_NAMED = "by subject, as named"


def _step(first: str, second: str, baseline: str = "nearest neighbours") -> Callable[..., float]:
    return lambda found: _by_split_kind(found, baseline)[first] - _by_split_kind(found, baseline)[second]


def _leaks_seen(strong: pd.DataFrame, baseline: str = "nearest neighbours", column: str = "measured") -> float:
    """Return in how many of thirty runs the difference would be above 0.05, on average."""
    return float(30 * (strong.loc[strong["baseline"] == baseline, column] > 0.05).mean())


def _splits_missing(found: pd.DataFrame) -> str:
    possible = {_PAPER, _IMAGE, _SUBJECT} <= set(found["split_kind"])
    return "" if possible else "these data do not allow all the splits it needs."


def _shares_files(found: pd.DataFrame) -> OneOf:
    shared = found.groupby("split_kind", sort=False)["file"].mean()
    return OneOf(tuple(shared.index[shared == shared.max()]))


EXERCISES = (
    Exercise(
        id="09.1",
        level="look",
        kind="name",
        given=("found",),
        unless=_splits_missing,
        names=lambda found: found["split_kind"].unique(),
        truth=_shares_files,
        mistakes=(
            (_IMAGE, "That split shares subjects and microscope images. Read the column `file`."),
            (_NAMED, "That one shares bytes, because some names share images. Read the column `file`."),
        ),
        why="The very cells of the test were trained on, merely turned or mirrored.",
        hint="To share a subject is not to share a file. Which column is asked about?",
        more="In the table of what training and test share, find the largest number of the column `file`.",
    ),
    Exercise(
        id="09.2",
        level="compute",
        kind="number",
        given=("found",),
        unless=_splits_missing,
        tolerance=0.0016,
        truth=_step(_PAPER, _SUBJECT),
        mistakes=(
            (_step(_PAPER, _IMAGE), "That is what the copies add. Add what knowing the subjects adds."),
            (_step(_IMAGE, _SUBJECT), "That is what knowing the subjects adds. Add what the copies add."),
            (_step(_PAPER, _SUBJECT, "logistic regression"), "That is for logistic regression, which cannot remember."),
            (_step(_PAPER, _NAMED), "The other row of subjects: take the one in which duplicates are merged."),
            (_step(_SUBJECT, _PAPER), "The right size with the wrong sign: first minus second."),
        ),
        why="The classifier is the same. All of this comes from how the data were split.",
        hint="Both steps of the table of gaps, taken together.",
        more="In the table of the gaps, add both rows of the column `nearest neighbours`.",
    ),
    Exercise(
        id="09.3",
        level="compute",
        kind="number",
        given=("gap",),
        tolerance=0.06,
        truth=lambda gap: gap["measured"].loc[1.0] / gap["error"].loc[1.0],
        mistakes=(
            (lambda gap: gap["measured"].loc[1.0], "That is the difference itself. Divide it by its standard error."),
            (lambda gap: gap["error"].loc[1.0] / gap["measured"].loc[1.0], "Upside down: how many errors fit into it?"),
            (lambda gap: gap["true"].loc[1.0] / gap["error"].loc[1.0], "That is the true difference. Take `measured`."),
            (
                lambda gap: gap["measured"].loc[2.0] / gap["error"].loc[2.0],
                "That is the setting 2. Take the row of the setting 1.",
            ),
        ),
        why="Below about two, it is inconclusive, from so many runs, whether there is a difference.",
        hint="Which row, and which two columns, of `gap` does the question name?",
        more="Divide `measured` by `error` in the row 1.0 of `gap`.",
    ),
    Exercise(
        id="09.4",
        level="change",
        kind="number",
        given=("strong",),
        tolerance=0.6,
        truth=_leaks_seen,
        mistakes=(
            (lambda strong: _leaks_seen(strong) / 30, "That is their share. How many of thirty?"),
            (lambda strong: _leaks_seen(strong, baseline="logistic regression"), "That is logistic regression."),
            (
                lambda strong: _leaks_seen(strong, column="true"),
                "That counts the true differences. A class sees `measured`.",
            ),
            (30, "Not everybody: count the runs in which `measured` is above 0.05."),
        ),
        why="The same leak, and not everybody sees it. Whoever makes one split reports what luck shows.",
        hint="`strong` has one row for each run and baseline. In which share of the runs is the difference so large?",
        more="Of the rows of nearest neighbours, the share with `measured` above 0.05, times 30.",
    ),
    explain(
        "09.5",
        "d",
        "More cells of the same subjects show each one more thoroughly. New subjects are what is missing.",
        misconception="leakage",
        a="A leak does not thin out: every test cell still has cells of the same subject in training.",
        b="Seeds move the result up and down. A leak moves the middle of it up, and more seeds do not take that away.",
        c="The intervals would shrink, around a value that is still too high.",
    ),
)
