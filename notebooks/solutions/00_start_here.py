"""Worked solutions of notebook 00, and for each exercise two plausible wrong answers with words of the hint they get."""


def exercise_00_1(index):
    # One row of the table is one image, and len() counts rows.
    return len(index)


def wrong_00_1(index):
    return [
        (index["label"].count(), "with a label"),
        (len(index.columns), "number of columns"),
    ]


def exercise_00_2(index):
    # Different names in the column `subject`; images without a name do not count.
    return index["subject"].nunique()


def wrong_00_2(index):
    return [
        (index["subject"].count(), "not subjects"),
        (index["label"].nunique(), "number of classes"),
    ]


def exercise_00_3():
    # Four of twenty are wrong, so sixteen are right.
    return 16 / 20


def wrong_00_3():
    return [(4 / 20, "the share that is wrong"), (16, "how many are right")]


def exercise_00_4():
    # Chance gives 10 of 20. They agree on 6 of the 10 others.
    return (16 - 10) / (20 - 10)


def wrong_00_4():
    return [(16 / 20, "Take off what chance"), (6 / 20, "of all twenty")]


def exercise_00_5():
    # A probability of a network is about its own scores. Only a doctor with the whole patient can say more.
    return "b"


def wrong_00_5():
    return [("a", "its own scores"), ("C", "no finding either")]
