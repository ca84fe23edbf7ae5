"""Worked solutions of notebook 02, and for each exercise two plausible wrong answers with words of the hint they get."""

import math

from allkit.splits import augment_then_split, count_leaked_copies


def exercise_02_1():
    # All pixels land on pixels where sine and cosine are both whole numbers.
    angles = [30, 45, 90, 135, 180, 270]
    parts = {
        a: [math.cos(math.radians(a)), math.sin(math.radians(a))]
        for a in angles
    }
    return [
        a
        for a, both in parts.items()
        if all(abs(part - round(part)) < 1e-9 for part in both)
    ]


def wrong_02_1():
    return [
        ([90, 270], "Half a turn"),
        ({45, 90, 135, 180, 270}, "At 45 degrees"),
    ]


def exercise_02_2():
    # cos 90° = 0 and sin 90° = 1: the equations shrink to i' = -(j - 2) + 2 and j' = (i - 2) + 2.
    return lambda i, j: (4 - j, i)


def wrong_02_2():
    return [
        (lambda i, j: (j, 4 - i), "clockwise"),
        (lambda i, j: [i, 4 - j], "a flip"),
    ]


def exercise_02_3(index, seed):
    # Another seed draws other copies and another split, and so another share.
    wrong = augment_then_split(index, seed=seed + 1)
    return count_leaked_copies(wrong).set_index("part").loc["test", "share"]


def wrong_02_3(index, seed):
    old, new = (
        count_leaked_copies(augment_then_split(index, seed=seed + k)).iloc[-1]
        for k in (0, 1)
    )
    return [(old["share"], "old seed"), (new["leaked"], "That is how many")]


def exercise_02_4():
    # Rotated or not, it is the same cell with the same label, and the network has learned it.
    return "d"


def wrong_02_4():
    return [("a", "see past a turn"), ("c", "steadier")]
