"""Worked solutions of notebook 08, and for each exercise two plausible wrong answers with words of the hint they get."""


def exercise_08_1(audit):
    # The third verdict, "inconclusive", is not a contradiction.
    return audit["verdict"].value_counts()["contradicted"]


def wrong_08_1(audit):
    return [
        ((audit["verdict"] == "confirmed").sum(), "confirmed ones"),
        (len(audit), "all claims"),
    ]


def exercise_08_2():
    # Try every whole number of right answers for every size.
    return [
        n
        for n in range(1, 10)
        if any(round(100 * k / n, 1) == 66.7 for k in range(n + 1))
    ]


def wrong_08_2():
    return [([3], "same fraction"), ({2, 4, 6}, "out of")]


def exercise_08_3():
    # Each step keeps 99 % of what is left.
    return 0.99**45


def wrong_08_3():
    return [
        (1 - 0.99**45, "has been replaced"),
        (1 - 45 * 0.01, "of what is *left*"),
    ]


def exercise_08_4(best):
    # Of 1,000 people 50 are ill. All alarms: true ones among the 50, false ones among the 950.
    sensitivity, specificity = best.diagonal() / best.sum(axis=1)
    true_alarms, false_alarms = 50 * sensitivity, 950 * (1 - specificity)
    return true_alarms / (true_alarms + false_alarms)


def wrong_08_4(best):
    return [
        (best[0, 0] / best[:, 0].sum(), "precision among"),
        (best[0, 0] / best[0].sum(), "Turn the question round"),
    ]


def exercise_08_5():
    # It was measured on the very images that the network had learned from.
    return "b"


def wrong_08_5():
    return [("a", "how it was printed"), ("c", "not from a test part")]
