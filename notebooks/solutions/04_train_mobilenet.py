"""Worked solutions of notebook 04, and for each exercise two plausible wrong answers with words of the hint they get."""

from allkit.evaluate import confusion


def exercise_04_1(stages):
    # A pointwise convolution stores channels times channels, and the last blocks have most channels.
    return stages.set_index("stage")["parameters"].idxmax()


def wrong_04_1(stages):
    return [
        (stages.set_index("stage")["multiply_adds"].idxmax(), "most work"),
        ("head", "not the largest"),
    ]


def exercise_04_2(predictions):
    # Recall: the diagonal over the sums of the rows. Balanced accuracy: the mean of the recalls.
    counts = confusion(predictions).to_numpy()
    return (counts.diagonal() / counts.sum(axis=1)).mean()


def wrong_04_2(predictions):
    counts = confusion(predictions).to_numpy()
    precision = (counts.diagonal() / counts.sum(axis=0)).mean()
    return [
        (counts.trace() / counts.sum(), "plain accuracy"),
        (precision, "that is precision"),
    ]


def exercise_04_3(kept):
    # The same number of cells, from the fewest subjects and from the next.
    rows = kept[
        (kept["curve"] == "subjects") & (kept["technique"] == "pre-trained")
    ].sort_values("subjects")
    return rows["auc"].iloc[1] - rows["auc"].iloc[0]


def wrong_04_3(kept):
    ruler = kept[
        (kept["curve"] == "subjects") & (kept["technique"] == "area alone")
    ].sort_values("subjects")
    rows = kept[
        (kept["curve"] == "cells") & (kept["technique"] == "pre-trained")
    ].sort_values("cells")
    return [
        (ruler["auc"].iloc[1] - ruler["auc"].iloc[0], "the ruler"),
        (rows["auc"].iloc[1] - rows["auc"].iloc[0], "the other curve"),
    ]


def exercise_04_4():
    # A 5 × 5 window has 25 places: ordinary 25 · M · N, separable 25 · M + M · N.
    M = N = 512
    return 25 * M * N / (25 * M + M * N)


def wrong_04_4():
    return [(8.8, "3 × 3"), (25, "not free")]


def exercise_04_5():
    # The test part may judge a choice only if it had no part in it.
    return "c"


def wrong_04_5():
    return [("a", "partly luck"), ("b", "the mean is fair")]
