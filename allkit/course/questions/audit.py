"""The exercises of notebook 16."""

from __future__ import annotations

import functools

import pandas as pd

from allkit.course.grading import Exercise
from allkit.course.questions.common import explain
from allkit.judging.audits import audit_split
from allkit.judging.divisions import replay


def _linked(replays: pd.DataFrame) -> pd.DataFrame:
    return replays[(replays["subjects"] == 0) & (replays["linked subjects"] > 0)]


def _share(table: pd.DataFrame, column: str, *, of_subjects: bool = False) -> float:
    """Return which share of the test images, or of their subjects, is in training too."""
    train, test = (table.loc[table["given"] == part, column] for part in ("train", "test"))
    test = test.drop_duplicates() if of_subjects else test
    return float(test.isin(set(train)).mean())


def _unknown(table: pd.DataFrame) -> str:
    return "it is not known whose cells these are." if table["subject"].isna().any() else ""


@functools.cache
def _fold(fold: int, check: str) -> float:
    found = audit_split(replay(f"StratifiedGroupKFold(n_splits=5, random_state=42, fold={fold})"))
    return round(100 * float(found.of(check)["share"]), 2)


EXERCISES = (
    Exercise(
        id="16.1",
        level="look",
        kind="name",
        given=("replays",),
        names=lambda replays: replays.index,
        truth=lambda replays: str(_linked(replays)["linked subjects"].astype(float).idxmax()),
        mistakes=(
            ("train_test_split(seed=123)", "There the subjects themselves are on both sides. Look where none is."),
            ("split_by_subject(seed=123)", "That one merges the names that share images, so it does not leak."),
        ),
        why="No name is on both sides. That two names can be one person, no column of names says.",
        hint="First the rows in which no named subject is on both sides. Then another column decides.",
        more="Of the rows with 0 in the column `subjects`, the largest number in `linked subjects`.",
    ),
    Exercise(
        id="16.2",
        level="compute",
        kind="share",
        given=("table",),
        unless=_unknown,
        tolerance=0.004,
        truth=lambda table: 1 - _share(table, "subject"),
        mistakes=(
            (lambda table: _share(table, "subject"), "That is the share that would go. How much is left?"),
            (
                lambda table: 1 - _share(table, "subject", of_subjects=True),
                "That is a share of the subjects. The question is about images.",
            ),
        ),
        why="So little would be left to test on: a split by image cannot be mended by throwing away.",
        hint="Which test images are of a subject that training has too? The others stay.",
        more='One minus the mean of `test["subject"].isin(train["subject"])`.',
    ),
    Exercise(
        id="16.3",
        level="change",
        kind="number",
        given=(),
        tolerance=0.06,
        truth=lambda: _fold(1, "linked subjects"),
        mistakes=(
            (lambda: _fold(0, "linked subjects"), "That is fold 0, as in the table. Take fold 1."),
            (
                lambda: _fold(1, "bytes"),
                "Those are files with the same bytes. All cells of a linked subject count.",
            ),
        ),
        why="The same function with another number: whether names that are linked are torn apart is chance.",
        hint="The way is written with its parameters, and they can be changed.",
        more='Audit `replay("StratifiedGroupKFold(n_splits=5, random_state=42, fold=1)")`, and read the share.',
    ),
    explain(
        "16.4",
        "c",
        "What was not looked at is not known. The list of files cannot see a picture that was saved anew.",
        misconception="leakage",
        a="What is open was not checked at all. It says nothing, neither yes nor no.",
        b="The audit did not fail: it says what it could not see. With the images it can.",
        d="A split without leaks can still have too few subjects to say anything.",
    ),
)
