"""The exercises of notebook 01."""

from __future__ import annotations

import pandas as pd
from sklearn.metrics import roc_auc_score

from allkit.course.grading import Exercise, OneOf
from allkit.course.questions.common import explain, share_of_largest
from allkit.data import class_order


def _subjects_of_smallest(train: pd.DataFrame) -> int:
    return _of_smallest(train)["subject"].nunique()


def _of_smallest(train: pd.DataFrame) -> pd.DataFrame:
    return train[train["label"] == train["label"].value_counts().idxmin()]


def _subjects_unknown(train: pd.DataFrame) -> str:
    if train["subject"].notna().any() and train["subject"].isna().any():
        return "some of these images have no subject. Hand over the training part: `train=train`."
    return "whose images these are is unknown." if train["subject"].isna().any() else ""


def _column_aucs(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the AUC of each measured number, one row per class; below 0.5, smaller numbers speak for the class."""
    classes = class_order(measured)
    classes = classes[:1] if len(classes) == 2 else classes
    numbers = measured.drop(columns="label").dropna(axis=1)
    return pd.DataFrame(
        {name: [roc_auc_score(measured["label"] == label, numbers[name]) for label in classes] for name in numbers}
    )


def _best_columns(measured: pd.DataFrame, either_way: bool = True) -> OneOf:
    aucs = _column_aucs(measured)
    reached = (aucs.where(aucs >= 0.5, 1 - aucs) if either_way else aucs).mean()
    return OneOf(tuple(reached.index[reached >= reached.max() - 0.005]))


def _largest_step(measured: pd.DataFrame) -> str:
    means = measured.groupby("label").mean(numeric_only=True)
    return (means.max() - means.min()).idxmax()


EXERCISES = (
    Exercise(
        id="01.1",
        level="look",
        kind="number",
        given=("train",),
        unless=_subjects_unknown,
        truth=_subjects_of_smallest,
        mistakes=(
            (lambda train: len(_of_smallest(train)), "These are its images. How many different names of `subject`?"),
            (lambda train: train["subject"].nunique(), "These are the subjects of all classes together."),
            (
                lambda train: _of_smallest(train)["group"].nunique(),
                "These are groups: names that share an image may be one person. Here the names are counted.",
            ),
        ),
        why="However many cells there are, what is known about this class is known from these few subjects.",
        hint="Which class has the fewest images, and how many different people gave them?",
        more="Take the rows of the class with the fewest images and count the different values of `subject`.",
    ),
    Exercise(
        id="01.2",
        level="compute",
        kind="share",
        given=("train",),
        tolerance=0.006,
        truth=lambda train: 1 / train["label"].nunique(),
        mistakes=(
            (share_of_largest, "That is the plain accuracy. Take the recall of each class first, then their mean."),
            (0, "One class is always right: its recall is 1. The other classes have 0. Now the mean of all."),
            (1, "Only the largest class is always right. What about the others?"),
        ),
        why="Recall 1 for one class and 0 for all others: the mean gives the lazy answer away, whatever the imbalance.",
        hint="What is the recall of the class that is always answered, and what is that of the others?",
        more="Balanced accuracy is the mean over the classes of the share of images that are recognised.",
        misconception="accuracy under imbalance",
    ),
    Exercise(
        id="01.3",
        level="change",
        kind="name",
        given=("measured",),
        names=lambda measured: measured.columns.drop("label"),
        truth=_best_columns,
        mistakes=(
            (
                lambda measured: _best_columns(measured, either_way=False),
                "The highest AUC, but 0.2 is farther from guessing than 0.7: smaller may be as good a rule as larger.",
            ),
            (
                _largest_step,
                "Its means lie farthest apart, but in units of its own. The AUC compares numbers of any unit.",
            ),
        ),
        why="Farthest from guessing, in either direction. Whether it is best on other images, nobody has tried yet.",
        hint="Go through all columns but `label`. Which AUC is farthest from one half, in either direction?",
        more="For every column compute `roc_auc_score`, turn values below 0.5 round (1 - AUC), and take the largest.",
    ),
    explain(
        "01.4",
        "c",
        "The next patient is not in the training part, so only the split by subject is about her.",
        misconception="leakage",
        a="More subjects in training would help on new subjects. But this test is about the same subjects.",
        b="Both are tested on as many images. What differs is whose they are.",
        d="The mean of the answers to two different questions answers neither.",
    ),
)
