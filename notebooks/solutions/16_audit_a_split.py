"""Worked solutions of notebook 16, and for each exercise two plausible wrong answers with words of the hint they get."""

from allkit.judging.audits import audit_split
from allkit.judging.divisions import replay


def exercise_16_1(replays):
    # No named subject on both sides, and yet the most cells of subjects who share images.
    linked = replays[replays["subjects"] == 0]["linked subjects"]
    return linked.astype(float).idxmax()


def wrong_16_1():
    return [
        ("train_test_split(seed=123)", "themselves"),
        ("split_by_subject(seed=123)", "merges the names"),
    ]


def exercise_16_2(table):
    # What is left of the test when all cells of known subjects go.
    train, test = (table[table["given"] == part] for part in ("train", "test"))
    return 1 - test["subject"].isin(train["subject"]).mean()


def wrong_16_2(table):
    train, test = (table[table["given"] == part] for part in ("train", "test"))
    known = test["subject"].isin(train["subject"])
    subjects = test.assign(known=known).groupby("subject")["known"].first()
    return [
        (known.mean(), "would go"),
        (1 - subjects.mean(), "share of the subjects"),
    ]


def exercise_16_3():
    # The same way to split with another fold as its test part.
    way = "StratifiedGroupKFold(n_splits=5, random_state=42, fold=1)"
    return 100 * audit_split(replay(way)).of("linked subjects")["share"]


def wrong_16_3():
    way = "StratifiedGroupKFold(n_splits=5, random_state=42, fold={})"
    first, second = (audit_split(replay(way.format(fold))) for fold in (0, 1))
    return [
        (100 * first.of("linked subjects")["share"], "fold 0"),
        (100 * second.of("bytes")["share"], "same bytes"),
    ]


def exercise_16_4():
    # What could not be looked at stays open.
    return "c"


def wrong_16_4():
    return [("a", "not checked at all"), ("d", "too few subjects")]
