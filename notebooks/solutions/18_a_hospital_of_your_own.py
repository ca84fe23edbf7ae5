"""Worked solutions of notebook 18, and for each exercise two plausible wrong answers with words of the hint they get.

No answer stands here: each hospital has its own. What stands here is how to find them.
"""

from allkit.evaluate import evaluate_thresholds


def exercise_18_1(means, moved):
    # How far apart do the classes move? A cause moves all of its rows, so the
    # least of them counts; a mark is seen in the corner of a mean image.
    apart = (moved.iloc[:, 0] - moved.iloc[:, 1]).abs()
    signs = {
        "mark": max(image[:40, :40].max() for image in means.values()) / 10,
        "brightness": apart[["mean_r", "mean_g", "mean_b"]].min(),
        "colour": apart["red / blue"],
        "focus": apart[["texture", "corr_4"]].min(),
        "size": apart[["area", "bbox_side"]].min(),
    }
    return max(signs, key=signs.get)


def wrong_18_1(means, moved):
    words = {
        "mark": "in the corner",
        "size": "`area` and",
        "focus": "fine structure",
    }
    found = exercise_18_1(means, moved)
    return [pair for pair in words.items() if pair[0] != found][:2]


def exercise_18_2(found):
    # Mean over the seeds for each way of splitting, one minus the other.
    auc = found.groupby("split_kind")["auc"].mean()
    return auc["by image"] - auc["by subject"]


def wrong_18_2(found):
    auc = found.groupby("split_kind")["auc"].mean()
    return [
        (auc["by subject"] - auc["by image"], "wrong sign"),
        (auc["by image"], "Subtract the other one"),
    ]


def exercise_18_3(predictions, hospital):
    # What each threshold costs here, and where that is lowest.
    table = evaluate_thresholds(
        predictions,
        prevalence=hospital.prevalence,
        cost_missed=hospital.cost_missed,
        cost_false_alarm=1,
    )
    return table.loc[table["cost_per_1000"].idxmin(), "threshold"]


def wrong_18_3(predictions, hospital):
    half = evaluate_thresholds(
        predictions,
        prevalence=0.5,
        cost_missed=hospital.cost_missed,
        cost_false_alarm=1,
    )
    alike = evaluate_thresholds(
        predictions,
        prevalence=hospital.prevalence,
        cost_missed=1,
        cost_false_alarm=1,
    )
    return [
        (
            half.loc[half["cost_per_1000"].idxmin(), "threshold"],
            "every second one is ill",
        ),
        (
            min(1.0, alike.loc[alike["cost_per_1000"].idxmin(), "threshold"]),
            "costs one false alarm",
        ),
    ]


def exercise_18_4():
    # The size of a leak hangs on how much the subjects differ, and theirs are others.
    return "c"


def wrong_18_4():
    return [("a", "on these subjects"), ("b", "same subjects again")]
