"""Worked solutions of notebook 06, and for each exercise two plausible wrong answers with words of the hint they get."""

from allkit.evaluate import classes_of, evaluate_predictions


def exercise_06_1(difference):
    # A row names a network only where its interval excludes zero.
    return (difference["verdict"] != "inconclusive").sum()


def wrong_06_1(difference):
    return [
        ((difference["verdict"] == "inconclusive").sum(), "the others"),
        (len(difference), "all rows"),
    ]


def exercise_06_2(parts):
    # Right exactly where the label is the most frequent one.
    return parts.test["label"].value_counts(normalize=True).iloc[0]


def wrong_06_2(parts):
    train = parts.train["label"].value_counts(normalize=True).iloc[0]
    return [
        (1 / parts.test["label"].nunique(), "*balanced*"),
        (train, "training part"),
    ]


def exercise_06_3(predictions):
    # Sensitivity asks about the images of the first class only.
    table = predictions["MobileNet"]
    positive = classes_of(table)[0]
    return (
        table.loc[table["label"] == positive, f"p_{positive}"] >= 0.9
    ).mean()


def wrong_06_3(predictions):
    measures = evaluate_predictions(predictions["MobileNet"])
    return [
        (measures["sensitivity"], "threshold 0.5"),
        (measures["auc"], "tries all thresholds"),
    ]


def exercise_06_4():
    # The ranking is good and the cut is not: all images lie on one side of it.
    return "a"


def wrong_06_4():
    return [("b", "needs no threshold"), ("c", "does not see imbalance")]
