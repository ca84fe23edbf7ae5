"""Classical classifiers on a table of numbers, whoever made them: measured, of a network, or from elsewhere.

They need no network, and importing them waits for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from allkit import AllkitError
from allkit.data import class_order
from allkit.splits import sample_weights


def row_keys(rows: pd.DataFrame) -> pd.Series:
    """Return what a row's numbers are found by: its path, and for the copies of a balanced part how it is changed."""
    return rows["path"] + "|" + rows["augmentation"] if "augmentation" in rows else rows["path"] + "|"


def build_baseline(name: str, *, C: float = 1.0, seed: int = 123) -> Any:
    """Build an untrained baseline: a scikit-learn pipeline that standardises first.

    "logistic regression" weighs numbers and cannot remember a cell; "nearest neighbours" does nothing but remember
    (5 neighbours, the closer the louder); then "SVM" and "decision tree". `C`, above 0, is for logistic regression: the
    smaller, the stronger it is regularised.
    """
    even = {"class_weight": "balanced", "random_state": seed}
    classifiers = {
        "logistic regression": LogisticRegression(C=C, max_iter=2000, **even),
        "nearest neighbours": KNeighborsClassifier(5, weights="distance"),
        "SVM": SVC(**even),
        "decision tree": DecisionTreeClassifier(max_depth=4, min_samples_leaf=5, **even),
    }
    if name not in classifiers:
        raise AllkitError(f"there is no baseline {name!r}; choose one of {', '.join(classifiers)}.")
    return make_pipeline(StandardScaler(), classifiers[name])


def evaluate_baseline(
    train: pd.DataFrame,
    test: pd.DataFrame,
    numbers: pd.DataFrame,
    baseline: str = "logistic regression",
    *,
    by_subject: bool = False,
    C: float | None = None,
    seed: int = 123,
) -> pd.DataFrame:
    """Train a baseline (see `build_baseline`) on some rows and return its predictions table of others.

    `numbers` holds what it sees of each cell, by `row_keys`. `by_subject` weights the images as `sample_weights` does,
    so that three subjects with many cells do not outvote the rest; for logistic regression only. `C` by default: 1, or
    0.001 where there are more than 100 numbers.
    """
    C = C or (0.001 if numbers.shape[1] > 100 else 1.0)
    classifier = build_baseline(baseline, C=C, seed=seed)
    weights = {"logisticregression__sample_weight": sample_weights(train)} if by_subject else {}
    learned, tested = (numbers.loc[row_keys(rows)].to_numpy() for rows in (train, test))
    classifier.fit(learned, train["label"], **weights)
    return predict_with(classifier, tested, test, class_order(train))


def predict_with(classifier: Any, features: np.ndarray, rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return the predictions table of some rows by a trained classifier, from what it sees of each."""
    table = rows[["path", "label", "subject", "group"]].reset_index(drop=True)
    probabilities = _probabilities(classifier, features)
    for name in classes:
        table[f"p_{name}"] = probabilities[:, list(classifier.classes_).index(name)]
    return table


def _probabilities(classifier: Any, features: np.ndarray) -> np.ndarray:
    """Return class scores, (n, classes), that sum to 1: probabilities, or squashed distances for an SVM."""
    if hasattr(classifier, "predict_proba"):
        return classifier.predict_proba(features)
    distance = classifier.decision_function(features)
    return softmax(np.column_stack([-distance, distance]) if distance.ndim == 1 else distance, axis=1)
