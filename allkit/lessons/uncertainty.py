"""Notebook 09: is it better, and by how much; thresholds, temperature, and what few subjects can show."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import logit, ndtri, softmax
from sklearn.metrics import roc_curve

from allkit import AllkitError
from allkit.evaluate import (
    FEWEST_UNITS,
    LEVEL,
    bootstrap_by_subject,
    check_costs,
    check_same_images,
    check_share,
    classes_of,
    decision_measures,
    label_indices,
    log_losses,
    probabilities_of,
    roc_auc,
    sampling_units,
)

RESAMPLES = 200
"""For each interval of the simulation."""


def permutation_test(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 999, seed: int = 123
) -> pd.DataFrame:
    """Notebook 09: test whether two models differ, by swapping their answers by subject (paired permutation test).

    If the models were equally good, it would not matter which of them gave which answers for a subject. So
    the names are swapped for a random half of the subjects, again and again; p is how often the difference
    is then at least as large as the one found, in either direction. Where subjects are unknown, images are
    swapped. For the AUC, probabilities are replaced by their ranks within each model before swapping, so
    that a model which is merely more certain is not taken for a different one.

    One row for `auc` and one for `balanced_accuracy`: difference (first minus second), p (0–1, two-sided; NaN with
    fewer than `FEWEST_UNITS` units of a class: inconclusive), smallest_p (the least that this many swaps could give,
    2/2ⁿ, but not below 2/(resamples + 1)), swapped ("subjects" or "images"), units (n, of all classes), verdict as
    in `compare_predictions`.
    """
    check_same_images(first, second)
    truth, units = label_indices(first), sampling_units(first)
    probabilities = [probabilities_of(table) for table in (first, second)]
    answers = {
        "auc": [stats.rankdata(proba, axis=0) for proba in probabilities],
        "balanced_accuracy": [np.eye(proba.shape[1])[proba.argmax(axis=1)] for proba in probabilities],
    }
    rows = {}
    for measure, pair in answers.items():
        statistic = partial(_swapped_difference, pair=pair, truth=truth, units=units.of_image, measure=measure)
        names = np.zeros(units.count), np.ones(units.count)
        rows[measure] = {"difference": statistic(*names), "p": float("nan")}
        if units.fewest >= FEWEST_UNITS:
            rows[measure]["p"] = stats.permutation_test(
                names, statistic, permutation_type="samples", vectorized=False, n_resamples=resamples,
                rng=np.random.default_rng(seed),
            ).pvalue  # fmt: skip
    table = pd.DataFrame(rows).T.rename_axis("measure")
    table["smallest_p"] = max(2.0 ** (1 - units.count), 2 / (resamples + 1))
    table["swapped"], table["units"] = units.kind, units.count
    better = np.where(table["difference"] > 0, "first", "second")
    table["verdict"] = np.where(table["p"] <= 1 - LEVEL, better, "inconclusive")
    return table


def _swapped_difference(names, _others, *, pair, truth, units, measure) -> float:
    """Return first minus second, where `names` says for each unit which model stands first, (units,) of 0/1."""
    swap = names[units].astype(bool)[:, None]
    both = [np.where(swap, pair[1], pair[0]), np.where(swap, pair[0], pair[1])]
    if measure == "auc":
        found = [roc_auc(truth, answers, np.ones(len(truth))) for answers in both]
    else:
        right = [answers[np.arange(len(truth)), truth] for answers in both]
        found = [np.mean([hit[truth == k].mean() for k in np.unique(truth)]) for hit in right]
    return float(found[0] - found[1])


def fit_temperature(validation: pd.DataFrame) -> float:
    """Notebook 09: return the temperature that makes validation probabilities fit best (least log loss).

    Above 1: the model is too sure of itself; below: too modest. NaN where the images do not settle it, for
    instance because the model is right about all of them: inconclusive.
    """
    # CalibratedClassifierCV(method="temperature") wants a classifier that is fitted on features, and
    # scikit-learn 1.8; all that is kept of a network here are its probabilities
    truth, logs = label_indices(validation), _logs(validation)
    ends = np.log([0.05, 20.0])

    def loss(log_temperature: float) -> float:
        return float(log_losses(truth, softmax(logs / np.exp(log_temperature), axis=1)).mean())

    best = minimize_scalar(loss, bounds=ends, method="bounded").x
    return float(np.exp(best)) if np.abs(best - ends).min() > 0.01 else float("nan")


def scale_temperature(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """Notebook 09: return the predictions with all logits divided by `temperature`, a number above 0."""
    if not temperature > 0:
        raise AllkitError(f"temperature={temperature}: give a number above 0, from fit_temperature.")
    return _with_probabilities(predictions, softmax(_logs(predictions) / temperature, axis=1))


def _logs(predictions: pd.DataFrame) -> np.ndarray:
    """Return logarithms of the probabilities: logits up to a constant per row, which softmax takes out."""
    return np.log(np.clip(probabilities_of(predictions), np.finfo(float).tiny, 1))


def _with_probabilities(predictions: pd.DataFrame, proba: np.ndarray) -> pd.DataFrame:
    return predictions.assign(**{f"p_{name}": proba[:, k] for k, name in enumerate(classes_of(predictions))})


def shift_prevalence(predictions: pd.DataFrame, prevalence: float, assumed: float) -> pd.DataFrame:
    """Notebook 09: return the predictions as they would read where the positive class is more or less common.

    The odds of the positive class are multiplied by those of `prevalence`, its share where the model is to be used,
    and divided by those of `assumed`, the share that the probabilities are about: that of the training images, or
    with class weights one divided by the number of classes. Both above 0 and below 1 (*prior shift*).
    """
    check_share("prevalence", prevalence)
    check_share("assumed", assumed)
    factor = np.full(len(classes_of(predictions)), (1 - prevalence) / (1 - assumed))
    factor[0] = prevalence / assumed
    proba = probabilities_of(predictions) * factor
    return _with_probabilities(predictions, proba / proba.sum(axis=1, keepdims=True))


def evaluate_at_threshold(
    predictions: pd.DataFrame,
    threshold: float,
    *,
    prevalence: float,
    cost_missed: float,
    cost_false_alarm: float,
    seed: int = 123,
) -> pd.DataFrame:
    """Notebook 09: return what one threshold, chosen elsewhere, does: `decision_measures` with intervals.

    Rows sensitivity, specificity, ppv, npv and cost_per_1000, columns as `bootstrap_by_subject`.
    """
    check_costs(prevalence, cost_missed, cost_false_alarm)
    positive, called = label_indices(predictions) == 0, probabilities_of(predictions)[:, 0] >= threshold

    def measure(weight: np.ndarray) -> dict[str, float]:
        recall = _share(weight, called, of=positive)
        return decision_measures(
            recall, _share(weight, ~called, of=~positive), prevalence, cost_missed, cost_false_alarm
        )

    return bootstrap_by_subject(predictions, measure, seed=seed)


def _share(weight: np.ndarray, rows: np.ndarray, *, of: np.ndarray) -> float:
    return weight[of & rows].sum() / weight[of].sum() if weight[of].sum() else np.nan


def evaluate_fixed_specificity(
    predictions: pd.DataFrame, specificities: Sequence[float] = (0.90, 0.95), *, seed: int = 123
) -> pd.DataFrame:
    """Notebook 09: return the sensitivity on the ROC curve where specificity is at least so high, with intervals.

    A property of the ranking, like AUC: the threshold is found anew in every resample and is none to be used.
    All classes but the first count as negative. One row per specificity ("sensitivity at 0.90"), columns as
    `bootstrap_by_subject`.
    """
    positive, score = label_indices(predictions) == 0, probabilities_of(predictions)[:, 0]

    def measure(weight: np.ndarray) -> dict[str, float]:
        if len(np.unique(positive[weight > 0])) < 2:
            return {f"sensitivity at {share:.2f}": np.nan for share in specificities}
        fall_out, recall, _ = roc_curve(positive, score, sample_weight=weight)
        return {f"sensitivity at {share:.2f}": recall[fall_out <= 1 - share + 1e-9].max() for share in specificities}

    return bootstrap_by_subject(predictions, measure, seed=seed)


def intraclass_correlation(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    """Notebook 09: return how alike the answers are for cells of one subject, and those of two models for one cell.

    `subject_share`: the share of the variance of logits within a class that lies between subjects (intraclass
    correlation by analysis of variance, mean of both models), 0–1. `shared`: correlation of both models' logits
    within a class, −1 to 1. Both NaN with fewer than `FEWEST_UNITS` known subjects of a class, and the first with
    one image each: inconclusive.
    """
    check_same_images(first, second)
    units = sampling_units(first)
    if units.kind != "subjects" or units.fewest < FEWEST_UNITS:
        return {"subject_share": float("nan"), "shared": float("nan")}
    label = first["label"].to_numpy()
    logits = [logit(np.clip(probabilities_of(table)[:, 0], 1e-6, 1 - 1e-6)) for table in (first, second)]
    centred = [values - pd.Series(values).groupby(label).transform("mean").to_numpy() for values in logits]
    shares = [_between_share(values, label, units.of_image) for values in centred]
    with np.errstate(invalid="ignore"):  # a model that always answers the same has no correlation: NaN
        return {"subject_share": float(np.mean(shares)), "shared": float(np.corrcoef(centred)[0, 1])}


def _between_share(values: np.ndarray, label: np.ndarray, units: np.ndarray) -> float:
    """Return the intraclass correlation of values whose class means are zero (one-way analysis of variance)."""
    groups = pd.DataFrame({"value": values, "label": label}).groupby([label, units])["value"]
    sizes, means = groups.size(), groups.mean()
    if len(sizes) == len(values) or not values.any():
        return float("nan")
    free = len(sizes) - sizes.groupby(level=0).ngroups
    between = (sizes * means**2).sum() / free
    within = ((values - groups.transform("mean")) ** 2).sum() / (len(values) - len(sizes))
    typical = sizes.groupby(level=0).agg(lambda n: n.sum() - (n**2).sum() / n.sum()).sum() / free
    variance = max(0.0, (between - within) / typical)
    return float(variance / (variance + within))


def simulate_test_sets(
    *,
    auc: tuple[float, float] = (0.85, 0.80),
    subject_share: float = 0.3,
    shared: float = 0.5,
    cells: int = 10,
    subjects: Sequence[int] = (2, 3, 5, 10, 20, 40),
    sets: int = 200,
    seed: int = 123,
) -> pd.DataFrame:
    """Notebook 09: return what test sets of few subjects show about two models whose true AUCs are known.

    A simulation: for each test set (`simulate_logits`, whose parameters these are), the difference of both AUCs gets
    a paired percentile bootstrap interval twice: over subjects, and over cells as if each came from a subject of its
    own. `subjects` are the sizes of the test sets, `sets` is how many are simulated of each. If both AUCs are equal,
    `sees` and `wrong` add up to the false alarms.

    One row per size and unit: subjects, resampled ("subjects" or "cells"), width (mean, in AUC), covers (share of
    intervals that hold the true difference), sees (share that lie wholly on its side of zero), wrong (share that lie
    wholly on the other side).
    """
    check_share("auc", min(auc))
    check_share("auc", max(auc))
    if not (0 <= subject_share <= 1 and 0 <= shared <= 1):
        raise AllkitError(f"subject_share={subject_share}, shared={shared}: give shares from 0 to 1.")
    rng, rows = np.random.default_rng(seed), []
    for n in subjects:
        # one set of resamples for all test sets of this size, of the positive and of the negative class
        draws = {unit: [_resamples(rng, count) for _ in range(2)] for unit, count in
                 (("subjects", n), ("cells", n * cells))}  # fmt: skip
        found: dict[str, list] = {unit: [] for unit in draws}
        for _ in range(sets):
            gains = _gains(simulate_logits(rng, n, cells, auc, subject_share, shared))
            for unit, (positive, negative) in draws.items():
                found[unit].append(np.einsum("ij,ij->i", positive @ gains[unit], negative))
        for unit, differences in found.items():
            low, high = np.quantile(differences, [(1 - LEVEL) / 2, 1 - (1 - LEVEL) / 2], axis=1)
            rows.append({"subjects": n, "resampled": unit, **_judge_intervals(low, high, auc[0] - auc[1])})
    return pd.DataFrame(rows)


def _resamples(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return how often each unit is in each resample, divided by the units: float32 (RESAMPLES, count)."""
    drawn = rng.integers(0, count, (RESAMPLES, count)) + count * np.arange(RESAMPLES)[:, None]
    return (np.bincount(drawn.ravel(), minlength=RESAMPLES * count) / count).reshape(RESAMPLES, count).astype("f4")


def simulate_logits(
    rng: np.random.Generator, subjects: int, cells: int, auc: tuple[float, float], subject_share: float, shared: float
) -> np.ndarray:
    """Notebook 09: draw two models' logits for positive and negative cells: float (models, classes, subjects, cells).

    Class mean + effect of the subject + noise of the cell, all normal. `auc`: of both models, for a new cell of a new
    subject, above 0 and below 1; `subject_share`: share of the variance within a class that lies between subjects,
    0–1; `shared`: correlation of both models, for subjects and for cells, 0–1; `cells`: of each subject.
    """

    def effects(per_subject: int) -> np.ndarray:
        common, own = rng.normal(size=(1, 2, subjects, per_subject)), rng.normal(size=(2, 2, subjects, per_subject))
        return np.sqrt(shared) * common + np.sqrt(1 - shared) * own

    logits = np.sqrt(subject_share) * effects(1) + np.sqrt(1 - subject_share) * effects(cells)
    logits[:, 0] += np.sqrt(2) * ndtri(np.array(auc))[:, None, None]  # two normal classes this far apart have this AUC
    return logits


def _gains(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Return by how much model 1 ranks each pair of a positive and a negative better, float32 (positives, negatives).

    For pairs of cells and, on average over their cells, for pairs of subjects. The mean is the difference of both
    AUCs, and with weights that of any resample.
    """
    first, second = (model[0].reshape(-1, 1) > model[1].reshape(1, -1) for model in logits.astype("f4"))
    gain = np.subtract(first, second, dtype="f4")
    subjects, cells = logits.shape[2:]
    owner = np.repeat(np.eye(subjects, dtype="f4"), cells, axis=1) / cells
    return {"cells": gain, "subjects": owner @ gain @ owner.T}


def _judge_intervals(low: np.ndarray, high: np.ndarray, true: float) -> dict[str, float]:
    """Return mean width, and the shares that hold the true value, see its sign, and see the wrong one."""
    above, below = (low > 0).mean(), (high < 0).mean()
    sees, wrong = (above, below) if true > 0 else (below, above)
    covers = ((low <= true) & (true <= high)).mean()
    return {"width": (high - low).mean(), "covers": covers, "sees": sees, "wrong": wrong}
