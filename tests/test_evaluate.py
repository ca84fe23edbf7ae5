"""Metrics against scikit-learn and against the paper's own matrices; intervals that know their limits."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from allkit import AllkitError
from allkit.evaluate import (
    as_text,
    classification_table,
    compare_predictions,
    confusion,
    evaluate_predictions,
    evaluate_with_intervals,
    predicted_labels,
)


def make_predictions(labels, proba, subjects=None) -> pd.DataFrame:
    table = pd.DataFrame({"path": [f"{k}.png" for k in range(len(labels))], "label": labels})
    table["subject"] = subjects if subjects is not None else None
    table["group"] = table["subject"].fillna(table["path"])
    for k, name in enumerate(["ALL", "HEM", "OTHER"][: proba.shape[1]]):
        table[f"p_{name}"] = proba[:, k]
    return table


def from_matrix(matrix) -> pd.DataFrame:
    """Predictions with certainty that give this confusion matrix."""
    labels, proba = [], []
    for true, name in enumerate(["ALL", "HEM"]):
        for called in (0, 1):
            labels += [name] * matrix[true][called]
            proba += [np.eye(2)[called]] * matrix[true][called]
    return make_predictions(labels, np.array(proba))


def random_predictions(classes: int, subjects: int = 0, skill: float = 1.0, seed: int = 0, n: int = 300):
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, subjects, n) if subjects else np.arange(n)
    truth = owner % classes
    luck = rng.normal(size=(max(subjects, n), classes))[owner]
    score = skill * np.eye(classes)[truth] + 0.5 * luck + 0.5 * rng.normal(size=(n, classes))
    proba = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    labels = np.array(["ALL", "HEM", "OTHER"])[truth]
    return make_predictions(labels, proba, [f"S{k}" for k in owner] if subjects else None)


def test_the_papers_matrices_give_the_papers_figures():
    found = evaluate_predictions(from_matrix([[1032, 59], [257, 252]]))
    assert found["weighted_f1"] == pytest.approx(0.787, abs=0.0005)
    assert found["balanced_accuracy"] == pytest.approx(0.7205, abs=0.00005)
    assert found["accuracy"] == 1284 / 1600
    assert found["sensitivity"] == found["recall_ALL"] == 1032 / 1091
    assert found["specificity"] == 252 / 509


@pytest.mark.parametrize("classes", [2, 3])
def test_measures_agree_with_scikit_learn(classes):
    table = random_predictions(classes)
    found, called = evaluate_predictions(table), predicted_labels(table)
    proba = table.filter(like="p_").to_numpy()
    truth = table["label"]
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, called))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, called))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, called, average="macro"))
    assert found["weighted_f1"] == pytest.approx(metrics.f1_score(truth, called, average="weighted"))
    assert found["precision_HEM"] == pytest.approx(
        metrics.precision_score(truth, called, labels=["HEM"], average="macro")
    )
    auc = (
        metrics.roc_auc_score(truth == "ALL", proba[:, 0])
        if classes == 2
        else metrics.roc_auc_score(truth, proba, multi_class="ovr", labels=["ALL", "HEM", "OTHER"])
    )
    assert found["auc"] == pytest.approx(auc)
    assert ("sensitivity" in found) == (classes == 2)


def test_report_and_matrix_put_the_positive_class_first():
    table = from_matrix([[1032, 59], [257, 252]])
    assert confusion(table).to_numpy().tolist() == [[1032, 59], [257, 252]]
    report = classification_table(table).round(2)
    assert report.loc["ALL"].tolist() == [0.80, 0.95, 0.87, 1091]
    assert report.loc["HEM"].tolist() == [0.81, 0.50, 0.61, 509]
    assert report.loc["weighted avg", "f1-score"] == 0.79


def test_intervals_resample_subjects_and_are_wider_for_it():
    by_subject = random_predictions(2, subjects=20, n=400)
    by_image = by_subject.assign(subject=None, group=by_subject["path"])
    subjects, images = (evaluate_with_intervals(t, resamples=200).loc["auc"] for t in (by_subject, by_image))
    assert subjects["resampled"] == "subjects"
    assert images["resampled"] == "images"
    assert subjects["units"] == 10
    assert subjects["low"] < subjects["value"] < subjects["high"]
    assert subjects["high"] - subjects["low"] > 1.5 * (images["high"] - images["low"])


def test_too_few_subjects_cannot_be_told():
    few = random_predictions(2, subjects=6)
    table = evaluate_with_intervals(few, resamples=50)
    assert table["low"].isna().all()
    assert as_text(table).loc["auc", "low"] == "cannot be told"
    assert (compare_predictions(few, few, resamples=50)["verdict"] == "cannot be told").all()


def test_comparison_is_paired_and_names_the_better():
    good = random_predictions(2, subjects=20, skill=6, seed=1)
    bad = good.assign(p_ALL=0.5 + 0.01 * np.sin(np.arange(len(good))))
    bad["p_HEM"] = 1 - bad["p_ALL"]
    assert compare_predictions(good, bad, resamples=100).loc["auc", "verdict"] == "first"
    assert compare_predictions(bad, good, resamples=100).loc["auc", "verdict"] == "second"
    assert compare_predictions(good, good, resamples=100).loc["auc", "verdict"] == "cannot be told"
    with pytest.raises(AllkitError, match="different images"):
        compare_predictions(good, bad.assign(path="other.png"))


def test_one_class_only_has_no_auc():
    table = from_matrix([[5, 3], [0, 0]])
    assert np.isnan(evaluate_predictions(table)["auc"])


def test_auc_with_ties_and_weights_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    from allkit.evaluate import _share_ranked

    rng = np.random.default_rng(3)
    positive, score, weight = rng.random(200) < 0.4, rng.integers(0, 12, 200) / 12, rng.integers(1, 5, 200)
    expected = roc_auc_score(positive, score, sample_weight=weight)
    assert _share_ranked(positive, score, weight) == pytest.approx(expected)
