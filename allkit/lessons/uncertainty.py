"""Notebook 09: is it better, and by how much."""

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
    _auc,
    _bootstrap,
    _check_costs,
    _check_same_images,
    _check_share,
    _decisions,
    _losses,
    _truth,
    _units,
    classes_of,
    evaluate_losses,
    probabilities_of,
)


def permutation_test(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 999, level: float = 0.95, seed: int = 123
) -> pd.DataFrame:
    """Test whether two models differ, by swapping their answers subject by subject (paired permutation test).

    If the models were equally good, it would not matter which of them gave which answers for a subject. So
    the names are swapped for a random half of the subjects, again and again; p is how often the difference
    is then at least as large as the one found, in either direction. Where subjects are unknown, images are
    swapped. For the AUC, probabilities are replaced by their ranks within each model before swapping, so
    that a model which is merely more certain is not taken for a different one.

    Returns:
        One row for `auc` and one for `balanced_accuracy`: difference (first minus second), p (0–1, two-sided;
        NaN with fewer than `FEWEST_UNITS` units of a class: the verdict is inconclusive), smallest_p (the least that
        this many swaps could give, 2/2ⁿ, but not below 2/(resamples + 1)), swapped ("subjects" or "images"),
        units (n, of all classes), verdict as in `compare_predictions`.

    Raises:
        AllkitError: the tables are not about the same images.
    """
    _check_same_images(first, second)
    truth, units = _truth(first), _units(first)
    answers = {"auc": [], "balanced_accuracy": []}
    for proba in map(probabilities_of, (first, second)):
        answers["auc"].append(stats.rankdata(proba, axis=0))
        answers["balanced_accuracy"].append(np.eye(proba.shape[1])[proba.argmax(axis=1)])
    rows = {}
    for measure, pair in answers.items():
        statistic = partial(_swapped_difference, pair=pair, truth=truth, units=units.of_image, measure=measure)
        names = np.zeros(units.count), np.ones(units.count)
        row = {"difference": statistic(*names), "p": float("nan")}
        if units.fewest >= FEWEST_UNITS:
            row["p"] = stats.permutation_test(
                names, statistic, permutation_type="samples", vectorized=False, n_resamples=resamples,
                rng=np.random.default_rng(seed),
            ).pvalue  # fmt: skip
        rows[measure] = row
    table = pd.DataFrame(rows).T.rename_axis("measure")
    table["smallest_p"] = max(2.0 ** (1 - units.count), 2 / (resamples + 1))
    table["swapped"], table["units"] = units.kind, units.count
    told = np.where(table["difference"] > 0, "first", "second")
    table["verdict"] = np.where(table["p"] <= 1 - level, told, "inconclusive")
    return table


def _swapped_difference(names, _others, *, pair, truth, units, measure) -> float:
    """Return first minus second, where `names` says for each unit which model stands first, (units,) of 0/1."""
    swap = names[units].astype(bool)[:, None]
    both = [np.where(swap, pair[1], pair[0]), np.where(swap, pair[0], pair[1])]
    if measure == "auc":
        found = [_auc(truth, answers, np.ones(len(truth))) for answers in both]
    else:
        right = [answers[np.arange(len(truth)), truth] for answers in both]
        found = [np.mean([hit[truth == k].mean() for k in np.unique(truth)]) for hit in right]
    return float(found[0] - found[1])


def fit_temperature(validation: pd.DataFrame) -> float:
    """Return the temperature that makes the probabilities of validation images fit best (least log loss).

    Above 1: the model is too sure of itself; below: too modest. NaN where the images do not settle it, for
    instance because the model is right about all of them: the verdict is inconclusive.
    """
    # CalibratedClassifierCV(method="temperature") wants a classifier that is fitted on features, and
    # scikit-learn 1.8; all that is kept of a network here are its probabilities

    truth, logs = _truth(validation), _logs(validation)
    ends = np.log([0.05, 20.0])

    def loss(log_temperature: float) -> float:
        return float(_losses(truth, softmax(logs / np.exp(log_temperature), axis=1)).mean())

    best = minimize_scalar(loss, bounds=ends, method="bounded").x
    return float(np.exp(best)) if np.abs(best - ends).min() > 0.01 else float("nan")


def scale_temperature(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """Return the predictions with all logits divided by `temperature` (above 0); the most probable class stays."""
    if not temperature > 0:
        raise AllkitError(f"temperature={temperature}: give a number above 0, from fit_temperature.")
    return _with_probabilities(predictions, softmax(_logs(predictions) / temperature, axis=1))


def _logs(predictions: pd.DataFrame) -> np.ndarray:
    """Return logarithms of the probabilities: logits up to a constant per row, which softmax takes out."""
    return np.log(np.clip(probabilities_of(predictions), np.finfo(float).tiny, 1))


def _with_probabilities(predictions: pd.DataFrame, proba: np.ndarray) -> pd.DataFrame:
    return predictions.assign(**{f"p_{name}": proba[:, k] for k, name in enumerate(classes_of(predictions))})


# ----------------------------------------------------------------------------------------- decisions


def shift_prevalence(predictions: pd.DataFrame, prevalence: float, assumed: float) -> pd.DataFrame:
    """Return the predictions as they would read where the positive class is more or less common (prior shift).

    The odds of the positive class are multiplied by those of `prevalence` and divided by those of `assumed`.

    Args:
        predictions: a predictions table; all classes but the first count as negative.
        prevalence: share of the positive class where the model is to be used, above 0 and below 1.
        assumed: the share that the probabilities are about: that of the training images, or with class
            weights one divided by the number of classes.
    """
    _check_share("prevalence", prevalence)
    _check_share("assumed", assumed)
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
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 123,
) -> pd.DataFrame:
    """Return what one threshold, chosen elsewhere, does: the columns of `evaluate_thresholds` with intervals.

    Returns:
        As `evaluate_with_intervals`: rows sensitivity, specificity, ppv, npv and cost_per_1000.

    Raises:
        AllkitError: `prevalence` is no share, or a cost is not above 0.
    """
    _check_costs(prevalence, cost_missed, cost_false_alarm)

    def measure(truth: np.ndarray, proba: np.ndarray, _classes: tuple, weight: np.ndarray) -> dict[str, float]:
        positive, called = truth == 0, proba[:, 0] >= threshold
        total = weight[positive].sum(), weight[~positive].sum()
        recall = weight[positive & called].sum() / total[0] if total[0] else np.nan
        rest = weight[~positive & ~called].sum() / total[1] if total[1] else np.nan
        return _decisions(recall, rest, prevalence, cost_missed, cost_false_alarm)

    return _bootstrap([predictions], measure, resamples, level, seed)


def evaluate_fixed_specificity(
    predictions: pd.DataFrame,
    specificities: Sequence[float] = (0.90, 0.95),
    *,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 123,
) -> pd.DataFrame:
    """Return the sensitivity on the ROC curve where specificity is at least so high, with intervals.

    A property of the ranking, like AUC: the threshold is found anew in every resample and is none to be used.
    All classes but the first count as negative.

    Returns:
        As `evaluate_with_intervals`, one row per specificity ("sensitivity at 0.90").
    """

    def measure(truth: np.ndarray, proba: np.ndarray, _classes: tuple, weight: np.ndarray) -> dict[str, float]:
        names = [f"sensitivity at {share:.2f}" for share in specificities]
        if len(np.unique(truth[weight > 0] == 0)) < 2:
            return dict.fromkeys(names, np.nan)
        fall_out, recall, _ = roc_curve(truth == 0, proba[:, 0], sample_weight=weight)
        best = [recall[fall_out <= 1 - share + 1e-9].max() for share in specificities]
        return dict(zip(names, best, strict=True))

    return _bootstrap([predictions], measure, resamples, level, seed)


def find_mistakes(predictions: pd.DataFrame, count: int = 8) -> pd.DataFrame:
    """Return the `count` wrong answers with the highest loss ("top losses"), worst first, as `evaluate_losses`."""
    table = evaluate_losses(predictions)
    return table[table["called"] != table["label"]].head(count).reset_index(drop=True)


# ----------------------------------------------------------------------------------------- simulation


def intraclass_correlation(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    """Return how alike the answers are for cells of one subject, and those of two models for one cell.

    Returns:
        `subject_share`: the share of the variance of logits within a class that lies between subjects
        (intraclass correlation by analysis of variance, mean of both models), 0–1. `shared`: correlation of
        both models' logits within a class, −1 to 1. Both NaN with fewer than `FEWEST_UNITS` known subjects
        of a class, and the first with one image each: the verdict is inconclusive.

    Raises:
        AllkitError: the tables are not about the same images.
    """
    _check_same_images(first, second)
    units = _units(first)
    if units.kind != "subjects" or units.fewest < FEWEST_UNITS:
        return {"subject_share": float("nan"), "shared": float("nan")}
    logits = [_logit(probabilities_of(table)[:, 0]) for table in (first, second)]
    label = first["label"].to_numpy()
    away = [_without_means(values, label) for values in logits]
    shares = [_between_share(values, label, units.of_image) for values in away]
    with np.errstate(invalid="ignore"):  # a model that always says the same has no correlation: NaN
        return {"subject_share": float(np.mean(shares)), "shared": float(np.corrcoef(away)[0, 1])}


def _logit(share: np.ndarray) -> np.ndarray:
    return logit(np.clip(share, 1e-6, 1 - 1e-6))


def _without_means(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    return values - pd.Series(values).groupby(by).transform("mean").to_numpy()


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
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 123,
) -> pd.DataFrame:
    """Return what test sets of few subjects tell about two models whose true AUCs are known (a simulation).

    Logits of two classes are drawn as class mean + subject effect + noise of the cell, all normal. For each
    test set, the difference of both AUCs gets a paired percentile bootstrap interval twice: over subjects, and
    over cells as if each came from a person of its own.

    Args:
        auc: true AUC of both models, for a new cell of a new subject, above 0 and below 1. If they are equal,
            `sees` and `wrong` add up to the false alarms.
        subject_share: share of the variance within a class that lies between subjects, 0–1.
        shared: correlation of both models, for subjects and for cells, 0–1.
        cells: of each subject.
        subjects: of each class; one size of test set each.
        sets: test sets drawn per size.
        resamples: per interval.
        level: of the interval.
        seed: of everything random.

    Returns:
        One row per size and unit: subjects, resampled ("subjects" or "cells"), width (mean, in AUC), covers
        (share of intervals that hold the true difference), sees (share that lie wholly on its side of zero),
        wrong (share that lie wholly on the other side).

    Raises:
        AllkitError: an AUC or a share is out of its range.
    """
    _check_share("auc", min(auc))
    _check_share("auc", max(auc))
    if not (0 <= subject_share <= 1 and 0 <= shared <= 1):
        raise AllkitError(f"subject_share={subject_share}, shared={shared}: give shares from 0 to 1.")
    rng = np.random.default_rng(seed)
    true, tail = auc[0] - auc[1], (1 - level) / 2
    rows = []
    for n in subjects:
        draws = {unit: [_multiplicities(rng, resamples, count) for _ in range(2)]
                 for unit, count in (("subjects", n), ("cells", n * cells))}  # fmt: skip
        owner = np.repeat(np.eye(n, dtype="f4"), cells, axis=1) / cells
        found: dict[str, list] = {unit: [] for unit in draws}
        for _ in range(sets):
            gain = _simulated_gain(rng, n, cells, auc, subject_share, shared)
            gains = {"cells": gain, "subjects": owner @ gain @ owner.T}
            for unit, (positive, negative) in draws.items():
                found[unit].append(np.einsum("ij,ij->i", positive @ gains[unit], negative))
        for unit, differences in found.items():
            low, high = np.quantile(differences, [tail, 1 - tail], axis=1)
            rows.append({"subjects": n, "resampled": unit, **_judge_intervals(low, high, true)})
    return pd.DataFrame(rows)


def _multiplicities(rng: np.random.Generator, resamples: int, count: int) -> np.ndarray:
    """Return how often each unit is in each resample, divided by the units: float32 (resamples, count)."""
    drawn = rng.integers(0, count, (resamples, count)) + count * np.arange(resamples)[:, None]
    return (np.bincount(drawn.ravel(), minlength=resamples * count) / count).reshape(resamples, count).astype("f4")


def _simulated_gain(rng, n, cells, auc, subject_share, shared) -> np.ndarray:
    """Return, for each positive and negative cell, by how much model 1 ranks them better: float32 (n·cells, n·cells).

    The mean of it is the difference of both AUCs, and with weights that of any resample.
    """

    def effects(per_subject: int) -> np.ndarray:
        common, own = rng.normal(size=(1, 2, n, per_subject)), rng.normal(size=(2, 2, n, per_subject))
        return np.sqrt(shared) * common + np.sqrt(1 - shared) * own  # (models, classes, subjects, cells)

    logits = np.sqrt(subject_share) * effects(1) + np.sqrt(1 - subject_share) * effects(cells)
    logits[:, 0] += np.sqrt(2) * ndtri(np.array(auc))[:, None, None]  # two normal classes this far apart have this AUC
    first, second = (model[0].reshape(-1, 1) > model[1].reshape(1, -1) for model in logits.astype("f4"))
    return np.subtract(first, second, dtype="f4")


def _judge_intervals(low: np.ndarray, high: np.ndarray, true: float) -> dict[str, float]:
    """Return mean width, and the shares that hold the true value, see its sign, and see the wrong one."""
    above, below = (low > 0).mean(), (high < 0).mean()
    sees, wrong = (above, below) if true > 0 else (below, above)
    covers = ((low <= true) & (true <= high)).mean()
    return {"width": (high - low).mean(), "covers": covers, "sees": sees, "wrong": wrong}
