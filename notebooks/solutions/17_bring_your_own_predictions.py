"""Worked solutions of notebook 17, and for each exercise two plausible wrong answers with words of the hint they get."""

import math

from allkit.lessons import predictions


def exercise_17_1(by_unit):
    # The width of an interval is high minus low.
    rows = by_unit.loc["auc"]
    width = rows["high"] - rows["low"]
    return width["images resampled"] / width["subjects resampled"]


def wrong_17_1(by_unit):
    rows = by_unit.loc["auc"]
    width = rows["high"] - rows["low"]
    upside_down = width["subjects resampled"] / width["images resampled"]
    return [
        (upside_down, "Upside down"),
        (width["images resampled"], "the width over images"),
    ]


def exercise_17_2():
    # Softmax over both classes.
    return math.exp(2.0) / (math.exp(2.0) + math.exp(0.5))


def wrong_17_2():
    return [
        (2.0 / 2.5, "divided by the sum"),
        (1 / (1 + math.exp(-2.0)), "the sigmoid of 2.0 alone"),
    ]


def exercise_17_3(loaded):
    # Only the cost of a missed case is another one.
    found = predictions.evaluate_costs(
        loaded.rows, prevalence=0.05, cost_missed=20, cost_false_alarm=1
    )
    return found.loc[("on other subjects", "cost_per_1000"), "value"]


def wrong_17_3(loaded):
    costs = {"prevalence": 0.05, "cost_false_alarm": 1}
    dear = predictions.evaluate_costs(loaded.rows, cost_missed=20, **costs)
    cheap = predictions.evaluate_costs(loaded.rows, cost_missed=5, **costs)
    return [
        (
            dear.loc[("on the same images", "cost_per_1000"), "value"],
            "the images that judge it",
        ),
        (
            cheap.loc[("on other subjects", "cost_per_1000"), "value"],
            "Let it cost 20",
        ),
    ]


def exercise_17_4():
    # Cells of eight people are eight witnesses.
    return "b"


def wrong_17_4():
    return [("a", "About the ninth"), ("c", "the same eight")]
