"""Worked solutions of notebook 12, and for each exercise two plausible wrong answers with words of the hint they get."""

import numpy as np


def exercise_12_1():
    # Draw twenty luckless trials many times, and keep the best of each twenty.
    trials = np.random.default_rng(1).normal(0.80, 0.02, (10_000, 20))
    return trials.max(axis=1).mean()


def wrong_12_1():
    return [(0.80, "what each is worth"), (0.82, "One deviation")]


def exercise_12_2():
    # p (1 - p) / n = 0.01²
    return 0.75 * 0.25 / 0.01**2


def wrong_12_2():
    return [
        (0.75 * 0.25 / 0.01, "square the 0.01"),
        (0.75 / 0.01**2, "p (1 − p) / n"),
    ]


def exercise_12_3():
    # Validation chooses; the test judges the one that was chosen.
    return lambda validation, test: test[int(np.argmax(validation))]


def wrong_12_3():
    return [
        (lambda validation, test: max(test), "the test has chosen"),
        (lambda v, t: max(v), "lifted"),
    ]


def exercise_12_4():
    # The best of many is good and lucky, and the luck stays behind on the images where it was chosen.
    return "b"


def wrong_12_4():
    return [("a", "even without training"), ("d", "the gap wider")]
