"""Worked solutions of notebook 01, and for each exercise two plausible wrong answers with words of the hint they get."""

import numpy as np
from sklearn.metrics import roc_auc_score

from allkit.data import class_order


def exercise_01_1(train):
    # Rows are images; subjects are different values of `subject`.
    subjects = train.groupby("label")["subject"].nunique()
    return subjects[train["label"].value_counts().idxmin()]


def wrong_01_1(train):
    return [
        (train["label"].value_counts().min(), "its images"),
        (train["subject"].nunique(), "all classes together"),
    ]


def exercise_01_2(train):
    # The largest class is always recognised (recall 1), every other never (recall 0).
    largest = train["label"].value_counts().idxmax()
    return np.mean(
        [float(label == largest) for label in train["label"].unique()]
    )


def wrong_01_2(train):
    return [
        (train["label"].value_counts(normalize=True).max(), "plain accuracy"),
        (0.0, "is always right"),
    ]


def exercise_01_3(measured):
    # Smaller may be as good a rule as larger, so an AUC below one half is turned round.
    aucs = {}
    for name in measured.columns.drop("label"):
        found = [
            roc_auc_score(measured["label"] == label, measured[name])
            for label in measured["label"].unique()
        ]
        aucs[name] = np.mean([max(auc, 1 - auc) for auc in found])
    return max(aucs, key=aucs.get)


def wrong_01_3(measured):
    numbers, first = (
        measured.drop(columns="label"),
        measured["label"] == class_order(measured)[0],
    )
    not_turned = {
        name: roc_auc_score(first, numbers[name]) for name in numbers
    }
    apart = (numbers[first].mean() - numbers[~first].mean()).abs()
    return [
        (max(not_turned, key=not_turned.get), "farther from guessing"),
        (apart.idxmax(), "units of its own"),
    ]


def exercise_01_4():
    # In the split by image the same subjects are on both sides, and the next patient is nobody of them.
    return "c"


def wrong_01_4():
    return [("a", "the same subjects"), ("b", "whose they are")]
