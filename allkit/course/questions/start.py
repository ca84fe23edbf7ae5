"""The exercises of notebook 00."""

from __future__ import annotations

from allkit.course.grading import Exercise
from allkit.course.questions.common import explain

EXERCISES = (
    Exercise(
        id="00.1",
        level="look",
        kind="number",
        given=("index",),
        truth=lambda index: len(index),
        mistakes=(
            (
                lambda index: int(index["label"].notna().sum()),
                "These are the images with a label. Some have none; `len(index)` counts all rows.",
            ),
            (lambda index: index.shape[1], "That is the number of columns. One row is one image: `len(index)`."),
        ),
        why="One row is one image. Any form of the number would have done: an integer, a float, a text, an array.",
        hint="One row of the table `index` is one image.",
        more="Let Python count: `answer = len(index)`.",
    ),
    Exercise(
        id="00.2",
        level="compute",
        kind="number",
        given=("index",),
        unless=lambda index: "" if index["subject"].notna().any() else "whose images these are is unknown.",
        truth=lambda index: index["subject"].nunique(),
        mistakes=(
            (lambda index: int(index["subject"].count()), "These are images whose subject is known, not subjects."),
            (lambda index: index["label"].nunique(), "That is the number of classes."),
            (
                lambda index: index["subject"].nunique(dropna=False),
                "One too many: *unknown* is listed among the different values, and is nobody.",
            ),
            (
                lambda index: index.loc[index["subject"].notna(), "group"].nunique(),
                "These are groups: names that share an image may be one person. Here the names are counted.",
            ),
        ),
        why="Images come in plenty, subjects are few. Keep this number in mind: most of the course is about it.",
        hint="The subjects are the different values of one column. What about rows that have none?",
        more='The subjects are the different values of one column: `index["subject"].nunique()`.',
    ),
    Exercise(
        id="00.3",
        level="compute",
        kind="share",
        tolerance=0.001,
        truth=0.8,
        mistakes=(
            (0.2, "That is the share that is wrong. How many are right?"),
            (16, "That is how many are right. Give their share of the twenty."),
            (4, "These are the wrong ones, as a number. Give the share of the right ones."),
        ),
        why="And with twenty cells that may stand for anything between about six and nine in ten.",
        hint="How many of the twenty are right?",
        more="Sixteen of twenty are right; divide.",
    ),
    Exercise(
        id="00.4",
        level="compute",
        kind="number",
        tolerance=0.001,
        truth=0.6,
        mistakes=(
            (0.8, "That is the share of all cells on which they agree. Take off what chance would give."),
            (0.3, "Six more than by chance, yes; but of the ten that chance leaves over, not of all twenty."),
            (6, "That is how many more they agree on than by chance. Of how many that were left over?"),
            (0.5, "That is the agreement of two who guess. How far beyond it do these two get?"),
        ),
        why="Kappa is (16 - 10) / (20 - 10). Agreement of 80 % sounds better than it is where chance alone gives 50 %.",
        hint="Beyond the ten of chance, on how many cells do they agree, and on how many could they?",
        more="They agree on six of the ten cells that chance leaves over; divide.",
        misconception="agreement in percent is agreement beyond chance",
    ),
    explain(
        "00.5",
        "b",
        "The kit teaches and compares methods. Nothing it prints is about a person's health.",
        misconception="a network's answer is a diagnosis",
        a="A network's probability is about its own scores, on images like those it learned from.",
        c="A rejected image is no finding either: the kit rejects blurred pictures and pictures of cats.",
    ),
)
