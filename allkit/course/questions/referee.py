"""The exercises of notebook 15."""

from __future__ import annotations

import pandas as pd

from allkit.course.grading import Exercise
from allkit.course.questions.common import explain
from allkit.judging.printed import fitting_sizes, read_share


def _fits(text: str) -> int:
    return len(fitting_sizes([read_share(text)], range(50, 251)))


def _count(column: str, shipped: pd.DataFrame) -> int:
    return int((shipped[column] > 0).sum())


EXERCISES = (
    Exercise(
        id="15.1",
        level="look",
        kind="number",
        given=("shipped",),
        truth=lambda shipped: _count("contradicted", shipped),
        mistakes=(
            (lambda shipped: int(shipped["contradicted"].sum()), "That is how many claims. Of how many papers?"),
            (
                lambda shipped: len(shipped) - _count("contradicted", shipped),
                "These are the papers of which nothing is contradicted.",
            ),
            (lambda shipped: len(shipped), "These are all papers. Read the column `contradicted`."),
        ),
        why="And of most, only the abstract was read: whoever reads on may find the answer there.",
        hint="Each row is one paper. Which column is asked about?",
        more="Count the rows of `shipped` in which `contradicted` is above 0.",
    ),
    Exercise(
        id="15.2",
        level="compute",
        kind="share",
        tolerance=0.006,
        truth=0.7,
        mistakes=(
            (0.3, "That is the share of the negative class."),
            (0.85, "That is the balanced accuracy. Which share makes the mean of both come out as the accuracy?"),
            (0.87, "That is the accuracy. How much of it is sensitivity, and how much specificity?"),
        ),
        why="Three numbers give away a fourth. In C-NMC's training part it is 68 %.",
        hint="The accuracy is a mean of sensitivity and specificity. Which weights does it give them?",
        more="Call the share x: 90 x + 80 (1 − x) = 87. Solve it for x.",
    ),
    Exercise(
        id="15.3",
        level="change",
        kind="number",
        truth=lambda: _fits("87.2 %"),
        mistakes=(
            (lambda: _fits("87.22 %"), "That is with two decimals. Leave the last one out."),
            (lambda: _fits("87 %"), "That is without decimals. One is printed."),
            (201, "These are all sizes from 50 to 250. On how many of them is 87.2 % a whole number of images?"),
        ),
        why="One digit less, and several times as many sizes fit.",
        hint="A size fits if some whole number of right answers prints as 87.2 % of it.",
        more="The length of `printed.fitting_sizes([printed.read_share('87.2 %')], range(50, 251))`.",
    ),
    explain(
        "15.4",
        "c",
        "Whatever the images, accuracy lies between the two. A typing error, or the best values of different epochs.",
        misconception="measures are independent of each other",
        a="It is another measure, and yet not free: it is a mean of both, weighted by the classes' images.",
        b="Unequal classes pull it towards one of the two. They cannot pull it below both.",
        d="One decimal is printed, so no value is off by more than 0.05 percentage points.",
    ),
)
