"""Worked solutions of notebook 10, and for each exercise two plausible wrong answers with words of the hint they get."""

import pandas as pd


def exercise_10_1(scores):
    # The blob is the same for every cell; it scores because cells lie in the centre.
    return scores.query("mask == 'cell' and method == 'centre blob'")["overlap"].mean()


def wrong_10_1(scores):
    of_cell = scores[scores["mask"] == "cell"].groupby("method")[["pointing", "overlap"]].mean()
    return [
        (of_cell.loc["random map", "overlap"], "the random map"),
        (of_cell.loc["centre blob", "pointing"], "points inside"),
    ]


def exercise_10_2(reached):
    # Before minus after: the cells are the same, only the corner was changed.
    table = pd.DataFrame(reached)["trained with the mark"]
    return table["mark as in training"] - table["mark on the others"]


def wrong_10_2(reached):
    table = pd.DataFrame(reached)["trained with the mark"]
    return [
        (table["mark as in training"] - table["no mark"], "taken away"),
        (table["mark on the others"] - table["mark as in training"], "before minus after"),
    ]


def exercise_10_3():
    # A map shows where; only a changed image shows what the answer hangs on.
    return "d"


def wrong_10_3():
    return [("a", "blob in the centre"), ("c", "how alike the methods")]
