"""Worked solutions of notebook 10, and for each exercise two plausible wrong answers with words of the hint they get."""

from allkit.evaluate import evaluate_thresholds


def exercise_10_1(simulated):
    # One row: ten subjects, every cell counted as a witness.
    row = simulated.query("subjects == 10 and resampled == 'cells'").iloc[0]
    return row["covers"]


def wrong_10_1(simulated):
    rows = simulated.query("subjects == 10").set_index("resampled")
    return [
        (rows.loc["subjects", "covers"], "over subjects"),
        (rows.loc["cells", "sees"], "`sees`"),
    ]


def exercise_10_2():
    # Of 1,000 people 10 are sick and 9 of them get an alarm; of the 990 others 99 get one, too.
    return 9 / (9 + 99)


def wrong_10_2():
    return [(0.9, "the sensitivity"), (0.009, "the true alarms")]


def exercise_10_3(validation, predictions):
    # On the validation images; the test images only say how it turns out.
    return _lowest(next(iter(validation.values())))


def wrong_10_3(validation, predictions):
    return [
        (_lowest(next(iter(predictions.values()))), "on the test images"),
        (0.8, "0.8 is the specificity"),
    ]


def _lowest(table):
    # Prevalence and costs do not matter here: they change neither thresholds nor specificity.
    curve = evaluate_thresholds(
        table, prevalence=0.5, cost_missed=1, cost_false_alarm=1
    )
    return curve.loc[curve["specificity"] >= 0.8, "threshold"].min()


def exercise_10_4():
    # So few subjects cannot show a small difference, whether or not there is one.
    return "c"


def wrong_10_4():
    return [
        ("a", "no evidence of equality"),
        ("b", "no probability that a network is better"),
    ]
