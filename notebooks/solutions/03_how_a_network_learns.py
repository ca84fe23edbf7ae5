"""Worked solutions of notebook 03, and for each exercise two plausible wrong answers with words of the hint they get."""

import math


def exercise_03_1(tiny):
    # All numbers that training changes.
    return tiny.count_params()


def wrong_03_1(tiny):
    return [
        (len(tiny.layers), "its layers"),
        (tiny.layers[-1].count_params(), "the last layer alone"),
    ]


def exercise_03_2():
    # Minus the natural logarithm of the probability of the truth.
    return -math.log(0.25)


def wrong_03_2():
    return [
        (0.75, "what was missing"),
        (math.log(0.25), "*minus* the logarithm"),
    ]


def exercise_03_3():
    # Two windows of three pixels: 40 - 10 and 40 - 10.
    return [30, 30]


def wrong_03_3():
    return [
        ([-30, -30], "turned round"),
        ([0, 30, 0], "differences of neighbours"),
    ]


def exercise_03_4(labels):
    # Batches per epoch, the last one smaller, times the epochs.
    return math.ceil(len(labels) / 50) * 8


def wrong_03_4(labels):
    return [
        (math.ceil(len(labels) / 50), "for one epoch"),
        (math.ceil(len(labels) / 32) * 8, "batches of 32"),
    ]


def exercise_03_5():
    # Training and validation have parted: it knows these images by heart.
    return "b"


def wrong_03_5():
    return [("a", "makes it worse"), ("c", "memory counts as skill")]
