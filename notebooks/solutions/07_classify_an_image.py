"""Worked solutions of notebook 07, and for each exercise two plausible wrong answers with words of the hint they get."""

from allkit.evaluate import classes_of


def exercise_07_1(rejections):
    # The first row holds test images, which should be answered; the rest should not.
    return rejections["rejected"].iloc[1:].idxmin()


def wrong_07_1(rejections):
    return [
        ("test images", "should answer"),
        (rejections["rejected"].iloc[1:].idxmax(), "most often"),
    ]


def exercise_07_2(predictions):
    # Where the largest probability is at least 0.9: is that class the label?
    shares = predictions.filter(regex="^p_")
    said = shares.idxmax(axis=1).str.removeprefix("p_")
    return (said == predictions["label"])[shares.max(axis=1) >= 0.9].mean()


def wrong_07_2(predictions):
    sure = predictions.filter(regex="^p_").max(axis=1)
    return [
        ((sure >= 0.9).mean(), "how often it is so sure"),
        (sure[sure >= 0.9].mean(), "how sure it says it is"),
    ]


def exercise_07_3(predictions):
    # Positive with 0.5 and no longer with 0.9.
    first = predictions[f"p_{classes_of(predictions)[0]}"]
    return ((first >= 0.5) & (first < 0.9)).sum()


def wrong_07_3(predictions):
    first = predictions[f"p_{classes_of(predictions)[0]}"]
    return [
        ((first >= 0.9).sum(), "keep their label"),
        ((first < 0.9).sum(), "called negative with 0.5"),
    ]


def exercise_07_4():
    # A map of the network's features is about the network. It proves nothing about the cell.
    return "c"


def wrong_07_4():
    return [("a", "features of leukemia"), ("b", "in the middle")]
