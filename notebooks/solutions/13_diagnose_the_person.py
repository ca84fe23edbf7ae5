"""Worked solutions of notebook 13, and for each exercise two plausible wrong answers with words of the hint they get."""


def exercise_13_1(curves):
    # The end of the line: what is left with the most cells of each person.
    return curves["subject effect 2"]["error"].iloc[-1]


def wrong_13_1(curves):
    return [
        (curves["subject effect 2"]["error"].iloc[0], "from one cell"),
        (curves["subject effect 1"]["error"].iloc[-1], "differ less"),
    ]


def exercise_13_2():
    # If the true specificity is 0.95, nobody is called positive with a chance of 0.95 to the power of n.
    people = 1
    while 0.95**people > 0.05:
        people += 1
    return people


def wrong_13_2():
    return [(299, "for 99 %"), (20, "more than a third")]


def exercise_13_3(people):
    # Called negative is only who has no cell at all that is called positive.
    negative = people[~people["positive"]]
    return (negative["share"] == 0).mean()


def wrong_13_3(people):
    negative = people[~people["positive"]]
    return [
        ((negative["share"] > 0).mean(), "false alarms"),
        (
            (people.loc[people["positive"], "share"] > 0).mean(),
            "the sensitivity",
        ),
    ]


def exercise_13_4():
    # The unit is the person: fifteen witnesses, however many cells each of them gave.
    return "c"


def wrong_13_4():
    return [("a", "of few people"), ("b", "as wide as it is")]
