"""Worked solutions of notebook 15, and for each exercise two plausible wrong answers with words of the hint they get."""

from allkit.judging import printed


def exercise_15_1(shipped):
    # One row for each paper.
    return (shipped["contradicted"] > 0).sum()


def wrong_15_1(shipped):
    return [
        (shipped["contradicted"].sum(), "how many claims"),
        ((shipped["contradicted"] == 0).sum(), "nothing is contradicted"),
    ]


def exercise_15_2():
    # 0.9 x + 0.8 (1 - x) = 0.87
    return (0.87 - 0.8) / (0.9 - 0.8)


def wrong_15_2():
    return [(0.3, "negative class"), ((0.9 + 0.8) / 2, "balanced accuracy")]


def exercise_15_3():
    # The digits say how exact the number is.
    accuracy = printed.read_share("87.2 %")
    return len(printed.fitting_sizes([accuracy], range(50, 251)))


def wrong_15_3():
    two = printed.read_share("87.22 %")
    return [
        (len(printed.fitting_sizes([two], range(50, 251))), "two decimals"),
        (201, "all sizes"),
    ]


def exercise_15_4():
    # Accuracy is a weighted mean of both, so it lies between them.
    return "c"


def wrong_15_4():
    return [("a", "weighted by the classes"), ("b", "below both")]
