"""Worked solutions of notebook 05, and for each exercise two plausible wrong answers with words of the hint they get."""

import numpy as np


def exercise_05_1(stages, small):
    # How many times as many numbers are stored.
    return round(stages["parameters"].sum() / small["parameters"].sum(), 1)


def wrong_05_1(stages, small):
    ratio = (
        stages.drop(columns=["stage", "output"]).sum()
        / small.drop(columns=["stage", "output"]).sum()
    )
    return [
        (ratio["multiply_adds"], "ratio of the work"),
        (1 / ratio["parameters"], "Upside down"),
    ]


def exercise_05_2():
    # Average: (0 + 2 + 4 + 10) / 4. Maximum: the one largest.
    feature_map = np.array([[0, 2], [4, 10]])
    return [feature_map.mean(), feature_map.max()]


def wrong_05_2():
    return [([10, 4], "other order"), ([16, 10], "the sum")]


def exercise_05_3():
    # All cells of a subject together weigh as much as those of the other.
    return 300 / 20


def wrong_05_3():
    return [(20 / 300, "Upside down"), (300 - 20, "how many cells more")]


def exercise_05_4():
    # Divided once by hand and once by the network's first layer.
    return 255 / 255 / 255


def wrong_05_4():
    return [(1.0, "once more"), (255, "divided twice")]


def exercise_05_5():
    # The loss is the answers' loss plus the penalty on the weights. Only the penalty has shrunk.
    return "b"


def wrong_05_5():
    return [("a", "surer of the same answers"), ("c", "by heart")]
