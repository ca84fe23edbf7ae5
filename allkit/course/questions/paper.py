"""The exercises of notebook 08."""

from __future__ import annotations

import numpy as np

from allkit.course.grading import Exercise
from allkit.course.questions.common import explain


def _ppv(best: np.ndarray, prevalence: float) -> float:
    sensitivity, specificity = best.diagonal() / best.sum(axis=1)
    hits, alarms = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    return hits / (hits + alarms)


EXERCISES = (
    Exercise(
        id="08.1",
        level="look",
        kind="number",
        given=("audit",),
        truth=lambda audit: int((audit["verdict"] == "contradicted").sum()),
        mistakes=(
            (lambda audit: int((audit["verdict"] == "confirmed").sum()), "These are the confirmed ones."),
            (
                lambda audit: int((audit["verdict"] != "confirmed").sum()),
                "What is inconclusive is not contradicted: the paper may well be right there.",
            ),
            (lambda audit: len(audit), "These are all claims. Read the column `verdict`."),
        ),
        why="Each of them by numbers that the authors, or the publishers of the data, printed themselves.",
        hint="The verdicts stand in one column of `audit`.",
        more="Count the rows of `audit` whose `verdict` is contradicted.",
    ),
    Exercise(
        id="08.2",
        level="compute",
        kind="set",
        truth=(3, 6, 9),
        mistakes=(
            ((3,), "Two of three, yes. Which larger numbers give the same fraction?"),
            ((3, 6), "One more: the fraction two thirds can be written with a larger denominator below ten."),
            ((2, 4, 6), "These are right answers. How many images is each out of?"),
            ((2, 3, 4, 6, 9), "Mind the first decimal: 66.7, not 50.0 or 75.0."),
        ),
        why="A printed percentage is a fraction in disguise. A few more of them would leave one size.",
        hint="Which fractions with a small denominator print as 66.7 %?",
        more="For each n from 1 to 9, look whether some whole k gives 100 · k / n that rounds to 66.7.",
    ),
    Exercise(
        id="08.3",
        level="compute",
        kind="share",
        tolerance=0.006,
        truth=0.99**45,
        mistakes=(
            (1 - 0.99**45, "That is how much has been replaced. How much is left?"),
            (0.55, "45 times one hundredth less, yes, but each time one hundredth of what is *left*: multiply."),
            (0.99, "That is after one step. There are 45."),
        ),
        why="More than half of the average that judges the validation images is still from before the training.",
        hint="What is left after two steps? 99 % of 99 %.",
        more="`0.99 ** 45`",
    ),
    Exercise(
        id="08.4",
        level="change",
        kind="share",
        given=("best",),
        tolerance=0.006,
        truth=lambda best: _ppv(best, 0.05),
        mistakes=(
            (
                lambda best: best[0, 0] / best[:, 0].sum(),
                "That is the precision among the paper's test images, two thirds of which are leukemic.",
            ),
            (
                lambda best: best[0, 0] / best[0].sum(),
                "That is the sensitivity: of the leukemic, how many are called so. Turn the question round.",
            ),
            (
                lambda best: 0.05 * best[0, 0] / best[0].sum(),
                "These are the true alarms among all people. Divide by all alarms, the false ones included.",
            ),
            (0.05, "That is how many of all people are ill. Of those for whom it sounds an alarm, how many are?"),
        ),
        why="Where the disease is rare, most alarms are false, although the printed precision looked good.",
        hint="Imagine 1,000 people instead of shares.",
        more="Out of 1,000 people 50 are ill. How many of the 50, and how many of the 950, are called ill?",
        misconception="accuracy under imbalance",
    ),
    explain(
        "08.5",
        "b",
        "On images that were learned from, memory counts as skill. The paper's own test figure is the lower one.",
        misconception="training accuracy as the result",
        a="Three decimals say how it was printed, not what it was measured on.",
        c="A split by image makes a *test* accuracy too good. This one is not from a test part at all.",
        d="Later epochs usually have a higher one. The trouble is with the images, not with the epoch.",
    ),
)
