"""Worked solutions of notebook 17, and for each exercise two plausible wrong answers with words of the hint they get."""

import math

from allkit.lessons import predictions


def exercise_17_1(studies):
    # One column, one row divided by the other.
    return studies.loc["images", "width"] / studies.loc["subjects", "width"]


def wrong_17_1(studies):
    width = studies["width"]
    return [
        (width["subjects"] / width["images"], "Upside down"),
        (width["images"], "That is a width"),
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
    return [("a", "About the ninth"), ("c", "narrower still")]
