"""The exercises of notebook 12."""

from __future__ import annotations

import numpy as np

from allkit.course.grading import Exercise
from allkit.course.questions.common import explain


def _chosen_on_validation(validation: list[float], test: list[float]) -> float:
    return test[int(np.argmax(validation))]


EXERCISES = (
    Exercise(
        id="12.1",
        level="compute",
        kind="number",
        tolerance=0.006,
        truth=0.80 + 0.02 * 1.8675,  # expected largest of 20 standard normal numbers
        mistakes=(
            (0.80, "That is what each is worth. The *best* of twenty is expected to look better than it is."),
            (0.82, "One deviation above, as a single trial may easily be. The best of twenty is luckier."),
            (0.86, "Three standard deviations are rare even for the best of twenty: simulate it."),
        ),
        why="Nothing was gained by choosing, and the best looks much better. This is the optimism of the best of many.",
        hint="One trial shows 0.80 on average. What happens to the largest of twenty?",
        more="Draw 20 normal numbers (mean 0.80, deviation 0.02), note the largest; do so 10,000 times; take the mean.",
        misconception="the test set used for choosing",
    ),
    Exercise(
        id="12.2",
        level="compute",
        kind="number",
        tolerance=0.6,
        truth=1875.0,
        mistakes=(
            (18.75, "The deviation is the root of the variance: square the 0.01."),
            (7500.0, "That is 0.75 / 0.01². The variance is p (1 − p) / n."),
            (43.3, "That is the root of it. Solve p (1 − p) / n = 0.01² for n."),
        ),
        why="And cells of one subject are alike, so it takes more of them still.",
        hint="Set the root of the variance equal to 0.01, and solve for n.",
        more="0.75 · 0.25 / n = 0.0001",
    ),
    Exercise(
        id="12.3",
        level="change",
        kind="function",
        truth=_chosen_on_validation,
        inputs=(
            ([0.81, 0.90, 0.85], [0.80, 0.82, 0.86]),
            ([0.70, 0.60], [0.65, 0.75]),
            ([0.5, 0.7, 0.6], [0.9, 0.6, 0.8]),
        ),
        tolerance=1e-6,
        mistakes=(
            (lambda validation, test: max(test), "That is the best on the *test* part: the test has chosen."),
            (
                lambda validation, test: max(validation),
                "That is the validation score of the best, lifted by having been chosen. Report its test score.",
            ),
            (lambda validation, test: sum(test) / len(test), "That is the mean of all. Which one would you use?"),
        ),
        why="Validation chooses, the test judges the one that was chosen, once.",
        hint="Which list chooses, and which one is reported?",
        more="Find the place of the largest validation score, and return the test score at the same place.",
        misconception="the test set used for choosing",
    ),
    explain(
        "12.4",
        "b",
        "The best of many is good and lucky. On fresh images the luck is gone and what is good remains.",
        misconception="the test set used for choosing",
        a="Overfitting by training may add to it, but choosing alone makes such a gap, even without training.",
        c="Then the gap would go either way. The best of many is nearly always too high where it was chosen.",
        d="More trials make the best validation score higher still, and the gap wider.",
    ),
)
