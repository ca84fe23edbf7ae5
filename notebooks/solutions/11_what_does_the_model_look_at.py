"""Worked solutions of notebook 11, and for each exercise two plausible wrong answers with words of the hint they get."""

import pandas as pd

from allkit.lessons import saliency


def exercise_11_1(scores):
    # The blob is the same for every cell; it scores because cells lie in the centre.
    return scores.query("mask == 'cell' and method == 'centre blob'")[
        "overlap"
    ].mean()


def wrong_11_1(scores):
    of_cell = (
        scores[scores["mask"] == "cell"]
        .groupby("method")[["pointing", "overlap"]]
        .mean()
    )
    return [
        (of_cell.loc["random map", "overlap"], "the random map"),
        (of_cell.loc["centre blob", "pointing"], "points inside"),
    ]


def exercise_11_2(reached):
    # Before minus after: the cells are the same, only the corner was changed.
    table = pd.DataFrame(reached)["trained with the mark"]
    return table["mark as in training"] - table["mark on the others"]


def wrong_11_2(reached):
    table = pd.DataFrame(reached)["trained with the mark"]
    return [
        (table["mark as in training"] - table["no mark"], "taken away"),
        (
            table["mark on the others"] - table["mark as in training"],
            "before minus after",
        ),
    ]


def exercise_11_3(parts, target):
    # What is marked stands in the column `augmentation`.
    marked = saliency.plant_shortcut(parts.train, [target], share=0.5, seed=1)
    return (marked["augmentation"] != "").mean()


def wrong_11_3(parts, target):
    marked = saliency.plant_shortcut(parts.train, [target], share=0.9, seed=1)
    half = saliency.plant_shortcut(parts.train, [target], share=0.5, seed=1)
    of_class = half[half["label"] == target]
    return [
        ((marked["augmentation"] != "").mean(), "the share 0.9"),
        ((of_class["augmentation"] != "").mean(), "the share of the class"),
    ]


def exercise_11_4():
    # A map shows where; only a changed image shows what the answer hangs on.
    return "d"


def wrong_11_4():
    return [("a", "blob in the centre"), ("c", "how alike the methods")]
