"""The exercises of notebook 03."""

from __future__ import annotations

import numpy as np

from allkit.course.grading import Exercise
from allkit.course.questions.common import explain


def _convolved() -> tuple[float, ...]:
    row = (10, 10, 40, 40)
    return tuple(float(right - left) for left, right in zip(row, row[2:], strict=False))


def _steps(images: int, batch_size: int = 50, epochs: int = 8) -> int:
    return -(-images // batch_size) * epochs


EXERCISES = (
    Exercise(
        id="03.1",
        level="look",
        kind="number",
        given=("tiny",),
        truth=lambda tiny: tiny.count_params(),
        mistakes=(
            (lambda tiny: len(tiny.layers), "These are its layers. Each holds many weights."),
            (lambda tiny: tiny.layers[-1].count_params(), "These are the weights of the last layer alone."),
            (lambda tiny: len(tiny.get_weights()), "These are its arrays of weights. How many numbers are in them?"),
        ),
        why="Training changes these numbers and nothing else. MobileNet has millions of them.",
        hint="The cell that makes the network prints it.",
        more="`tiny.count_params()`",
    ),
    Exercise(
        id="03.2",
        level="compute",
        kind="number",
        tolerance=0.006,
        truth=float(-np.log(0.25)),
        mistakes=(
            (0.75, "That is what was missing. The loss is minus the logarithm of the probability."),
            (float(np.log(0.25)), "The right size. A loss is *minus* the logarithm, and never below zero."),
            (float(-np.log10(0.25)), "That is the logarithm to base 10. The loss takes the natural one, `np.log`."),
            (2.0, "That is the logarithm to base 2. The loss takes the natural one, `np.log`."),
            (float(-np.log(0.75)), "That is the loss had the other class been true."),
        ),
        why="Twice as much as for one half: a loss counts how often the probability of the truth was halved.",
        hint="What does the loss of one image depend on, besides the probability of its true class? Nothing.",
        more="Minus the natural logarithm of 0.25.",
    ),
    Exercise(
        id="03.3",
        level="compute",
        kind="list",
        tolerance=0.01,
        truth=_convolved,
        mistakes=(
            ((-30, -30), "The signs are turned round: the weight of the right pixel is plus 1."),
            (
                (0, 30, 0),
                "These are differences of neighbours. The filter skips the pixel in the middle: its weight is 0.",
            ),
            ((20, 50), "Right minus left, not plus: the first weight is minus 1."),
            ((10, 30, 30, -40), "At the ends the window would stick out; `convolve` leaves these places away."),
        ),
        why="High where it gets lighter to the right: it finds the edge, and is as high on both sides of it.",
        hint="How many windows of three pixels fit into four?",
        more="Each result is the third pixel of the window minus the first.",
    ),
    Exercise(
        id="03.4",
        level="change",
        kind="number",
        given=("labels",),
        truth=lambda labels: _steps(len(labels)),
        mistakes=(
            (lambda labels: _steps(len(labels), epochs=1), "That is for one epoch."),
            (lambda labels: _steps(len(labels), batch_size=32), "That is with batches of 32. Here they hold 50."),
            (lambda labels: 8 * len(labels), "One step per *batch*, not per image."),
            (lambda labels: 8 * (len(labels) // 50), "The last batch is smaller, and is a step as well: round up."),
            (lambda labels: 8 * len(labels) / 50, "There is no part of a step: the last, smaller batch is one, too."),
            (8, "These are the epochs. How many batches are in each?"),
        ),
        why="Larger batches mean fewer steps per epoch, each in a direction that is less left to chance.",
        hint="How many batches of 50 does it take to go through all images once?",
        more="Divide the number of labels by 50, round up, and take it eight times.",
    ),
    explain(
        "03.5",
        "b",
        "Training and validation have parted: that is overfitting. New people, random changes and stopping early help.",
        misconception="training accuracy as the result",
        a="More of the same makes it worse: the network has nothing left to learn from images that it knows by heart.",
        c="On images that were learned from, memory counts as skill.",
        d="Choosing other images until the number pleases measures the choosing.",
    ),
)
