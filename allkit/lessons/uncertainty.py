"""Notebook 10: is it better, and by how much; thresholds, temperature, and what few subjects can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import logit, ndtri, softmax
from sklearn.metrics import roc_curve

from allkit import AllkitError, plots
from allkit.evaluate import (
    FEWEST_UNITS,
    LEVEL,
    bootstrap_by_subject,
    check_same_images,
    check_share,
    classes_of,
    compare_predictions,
    evaluate_at_threshold,
    evaluate_predictions,
    evaluate_with_intervals,
    label_indices,
    log_losses,
    probabilities_of,
    roc_auc,
    sampling_units,
    top_losses,
)
from allkit.images import prepare_image, read_image
from allkit.models import TrainedModel
from allkit.progress import track
from allkit.splits import Split

RESAMPLES = 200
"""For each interval of the simulation."""


def permutation_test(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 999, seed: int = 123
) -> pd.DataFrame:
    """Notebook 10: test whether two models differ, by swapping their answers by subject (paired permutation test).

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
    """Notebook 10: return the temperature that makes validation probabilities fit best (least log loss).

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
    """Notebook 10: return the predictions with all logits divided by `temperature`, a number above 0."""
    if not temperature > 0:
        raise AllkitError(f"temperature={temperature}: give a number above 0, from fit_temperature.")
    return _with_probabilities(predictions, softmax(_logs(predictions) / temperature, axis=1))


def _logs(predictions: pd.DataFrame) -> np.ndarray:
    """Return logarithms of the probabilities: logits up to a constant per row, which softmax takes out."""
    return np.log(np.clip(probabilities_of(predictions), np.finfo(float).tiny, 1))


def _with_probabilities(predictions: pd.DataFrame, proba: np.ndarray) -> pd.DataFrame:
    return predictions.assign(**{f"p_{name}": proba[:, k] for k, name in enumerate(classes_of(predictions))})


def evaluate_fixed_specificity(
    predictions: pd.DataFrame, specificities: Sequence[float] = (0.90, 0.95), *, seed: int = 123
) -> pd.DataFrame:
    """Notebook 10: return the sensitivity on the ROC curve where specificity is at least so high, with intervals.

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
    """Notebook 10: return how alike the answers are for cells of one subject, and those of two models for one cell.

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
    """Notebook 10: return what test sets of few subjects show about two models whose true AUCs are known.

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
    for n in track(list(subjects), "simulated test sets", unit="size"):
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
    """Notebook 10: draw two models' logits for positive and negative cells: float (models, classes, subjects, cells).

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


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Notebook 10: return the values and intervals of several models beside each other, by title."""
    return pd.concat({title: table[["value", "low", "high"]] for title, table in tables.items()}, axis=1)


def evaluate_all(predictions: Mapping[str, pd.DataFrame], *, seed: int = 123) -> dict[str, pd.DataFrame]:
    """Notebook 10: return every measure of every model with its interval, title -> table."""
    return {title: evaluate_with_intervals(table, seed=seed) for title, table in predictions.items()}


def describe_units(intervals: Mapping[str, pd.DataFrame]) -> str:
    """Notebook 10: return what was resampled, how many of it there are, and what follows, in sentences."""
    row = next(iter(intervals.values())).loc["auc"]
    text = f"The smaller class has **{row['units']} {row['resampled']}** in this test part. "
    if row["units"] < FEWEST_UNITS:
        return f"{text}With fewer than {FEWEST_UNITS} of a class the kit gives no interval: *inconclusive*."
    text += f"`low` and `high` bound 95 % intervals; the {row['resampled']} were resampled."
    if row["resampled"] == "images":
        text += " Whose images they are is unknown, so nobody can say how much too narrow these intervals are."
    return text


def plot_difference(difference: pd.DataFrame, names: Sequence[str]) -> Axes:
    """Notebook 10: draw the paired differences of the main measures with their intervals."""
    shown = difference.filter(regex="accuracy|auc|sens|spec|weighted|brier|error", axis=0)
    return plots.plot_intervals(shown, xlabel=f"{names[0]} minus {names[1]}", line=0)


def swap_names(predictions: Mapping[str, pd.DataFrame], *, seed: int = 123) -> pd.DataFrame:
    """Notebook 10: return `permutation_test` of the first two models, with the better one's title as verdict."""
    (first, one), (second, other) = list(predictions.items())[:2]
    table = permutation_test(one, other, seed=seed)
    return table.assign(verdict=table["verdict"].replace({"first": first, "second": second}))


def describe_swaps(swapped: pd.DataFrame) -> str:
    """Notebook 10: return what p can be and what it is for the AUC, in sentences."""
    row = swapped.loc["auc"]
    text = (
        f"{row['units']} {row['swapped']} can be swapped in 2^{row['units']} ways, of which at most 999 are tried, so "
        f"p cannot fall below {row['smallest_p']:.2g}. "
    )
    text += (
        f"For the AUC it is {row['p']:.3f}."
        if row["p"] >= 0
        else f"Whether the networks differ is **inconclusive** with fewer than {FEWEST_UNITS} of a class."
    )
    if row["swapped"] == "images":
        text += " Images of one subject are alike; swapped one by one, they make p too small."
    return text


def compare_spread(predictions: Mapping[str, pd.DataFrame], **simulated: float) -> pd.DataFrame:
    """Notebook 10: return how alike answers are on the test images, beside what the simulation assumes."""
    found = intraclass_correlation(*list(predictions.values())[:2])
    return pd.DataFrame({"test images": found, "simulation": simulated})


def plot_simulation(simulated: pd.DataFrame) -> np.ndarray:
    """Notebook 10: draw how many intervals hold the truth, and how many name the better model, over the subjects."""
    _, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
    named = simulated.assign(resampled=simulated["resampled"] + " resampled")
    shown = {"covers": "intervals that hold the truth", "sees": "test sets that name the better one"}
    for ax, (column, title) in zip(axes, shown.items(), strict=True):
        words = {"xlabel": "subjects of each class in the test set", "ylabel": title}
        plots.plot_lines(named, "subjects", column, by="resampled", percent=True, log=True, ax=ax, **words)
        ax.set_ylim(0, 1.03)
    axes[0].axhline(LEVEL, color="0.5", linewidth=1, linestyle=":")
    return axes


def describe_simulation(simulated: pd.DataFrame, gap: float, cells: int = 10) -> str:
    """Notebook 10: return how often intervals hold the truth, and how many subjects it takes to see the difference."""
    by_unit = {unit: rows.set_index("subjects") for unit, rows in simulated.groupby("resampled")}
    cells_hold, subjects_hold = (by_unit[unit]["covers"] for unit in ("cells", "subjects"))
    power = by_unit["subjects"]["sees"]
    enough = power.index[power >= 0.8]
    need = f"{enough[0]} subjects of each class" if len(enough) else f"more than {power.index[-1]} of each class"
    return (
        f"In this simulation ({cells} cells each), 95 % intervals over *cells* hold the truth only "
        f"{cells_hold.loc[10]:.0%} of the time with 10 subjects of each class, intervals over *subjects* "
        f"{subjects_hold.loc[10]:.0%}. With 2 of each class even those hold it {subjects_hold.loc[2]:.0%} of the "
        f"time; the kit gives none below {FEWEST_UNITS}. To see a true difference of {gap:.2f} in four of five test "
        f"sets takes **{need}**."
    )


def choose_thresholds(curves: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Notebook 10: return the cheapest threshold of each model, from tables of `evaluate_thresholds`."""
    return {title: table.loc[table["cost_per_1000"].idxmin(), "threshold"] for title, table in curves.items()}


def plot_costs(curves: Mapping[str, pd.DataFrame], chosen: Mapping[str, float], positive: str) -> Axes:
    """Notebook 10: draw the expected cost over the threshold, with a mark on the cheapest place of each model."""
    words = {
        "xlabel": f"threshold on the probability of {positive} (validation images)",
        "ylabel": "expected cost per 1,000 images",
    }
    ax = plots.plot_lines(curves, "threshold", "cost_per_1000", steps=True, marks=chosen, **words)
    ax.set_ylim(bottom=0)
    where = "; ".join(f"{title} {cut:.2f}" for title, cut in chosen.items())
    return plots.describe(ax, f"Expected cost over the threshold on validation images; cheapest at {where}.")


def evaluate_decisions(
    predictions: Mapping[str, pd.DataFrame], chosen: Mapping[str, float], costs: Mapping[str, float], *, seed: int = 123
) -> dict[str, pd.DataFrame]:
    """Notebook 10: return what each model's chosen threshold does on the test images, title -> table."""
    return {
        title: evaluate_at_threshold(table, chosen[title], **costs, seed=seed) for title, table in predictions.items()
    }


def describe_decisions(
    decisions: Mapping[str, pd.DataFrame],
    chosen: Mapping[str, float],
    costs: Mapping[str, float],
    classes: Sequence[str],
) -> str:
    """Notebook 10: return what the thresholds do and cost, beside what it costs without any network, as a list."""
    lines = []
    for title, table in decisions.items():
        row, ppv = table.loc["cost_per_1000"], table.loc["ppv", "value"]
        span = f"{row['low']:.0f} to {row['high']:.0f}, {row['resampled']} resampled"
        span = span if row["low"] == row["low"] else "interval: inconclusive"
        calls = f"of 100 positive calls {100 * ppv:.0f} are right" if ppv == ppv else "nobody is called positive"
        lines.append(f"- **{title}**, threshold {chosen[title]:.2f}: {calls}; cost {row['value']:.0f} ({span})")
    lazy = 1000 * min(costs["prevalence"] * costs["cost_missed"], (1 - costs["prevalence"]) * costs["cost_false_alarm"])
    rest = classes[1] if len(classes) == 2 else "every other class"
    lines.append(f"- without any network, the cheaper of *call all* and *call none*: {lazy:.0f}")
    return "\n".join([*lines, "", f"*Positive* means {classes[0]}; {rest} is negative."])


def share_assumed(trained: TrainedModel, train: pd.DataFrame) -> float:
    """Notebook 10: return the share of the positive class that a model's probabilities are about, 0–1.

    With class weights one divided by the number of classes, else that of the training images.
    """
    if trained.metadata["profile"]["class_weight"]:
        return 1 / len(trained.classes)
    return float((train["label"] == trained.classes[0]).mean())


def threshold_by_formula(prevalence: float, cost_missed: float, cost_false_alarm: float, assumed: float = 0.5) -> float:
    """Notebook 10: return the threshold on a model's own probabilities that costs and prevalence ask for.

    `assumed` is the share of the positive class that these probabilities are about.
    """
    odds = cost_false_alarm / cost_missed * assumed / (1 - assumed) * (1 - prevalence) / prevalence
    return odds / (1 + odds)


def compare_rules(
    predictions: Mapping[str, pd.DataFrame],
    chosen: Mapping[str, float],
    assumed: Mapping[str, float],
    costs: Mapping[str, float],
    *,
    seed: int = 123,
) -> pd.DataFrame:
    """Notebook 10: return the thresholds of three rules, and what they cost per 1,000 test images."""
    rows = {}
    for title, table in predictions.items():
        rules = {
            "counted on validation": chosen[title],
            "by the formula": threshold_by_formula(**costs, assumed=assumed[title]),
            "one half": 0.5,
        }
        for rule, cut in rules.items():
            row = evaluate_at_threshold(table, cut, **costs, seed=seed).loc["cost_per_1000"]
            rows[title, rule] = {"threshold": cut, **row[["value", "low", "high", "resampled"]]}
    return pd.DataFrame(rows).T.infer_objects()


def describe_rules(rules: pd.DataFrame) -> str:
    """Notebook 10: return which rule is cheapest for each model, and whether that is settled, as a list."""
    lines = []
    for title, rows in rules.groupby(level=0, sort=False):
        table = rows.droplevel(0)
        best, worst = table["value"].idxmin(), table["value"].idxmax()
        apart = table.loc[best, "high"] < table.loc[worst, "low"]
        verdict = "" if apart else "; the intervals overlap, so which is cheaper for other people is *inconclusive*"
        lines.append(
            f"- {title}: {best} costs least here ({table.loc[best, 'value']:.0f}), {worst} most "
            f"({table.loc[worst, 'value']:.0f}){verdict}"
        )
    return "\n".join(lines)


def evaluate_at_specificity(
    predictions: Mapping[str, pd.DataFrame],
    curves: Mapping[str, pd.DataFrame],
    costs: Mapping[str, float],
    *,
    wanted: float = 0.90,
    seed: int = 123,
) -> pd.DataFrame:
    """Notebook 10: return what a threshold does on the test images that has this specificity on validation images."""
    rows = {}
    for title, curve in curves.items():
        cut = curve.loc[curve["specificity"] >= wanted, "threshold"].min()
        found = evaluate_at_threshold(predictions[title], cut, **costs, seed=seed)
        rows |= {(title, measure): found.loc[measure] for measure in ("specificity", "sensitivity")}
    return pd.DataFrame(rows).T.infer_objects()


def calibrate(
    predictions: Mapping[str, pd.DataFrame], validation: Mapping[str, pd.DataFrame]
) -> tuple[dict[str, float], dict[str, pd.DataFrame]]:
    """Notebook 10: return each model's temperature, and its predictions scaled by it (as they are where it is NaN)."""
    temperatures = {title: fit_temperature(table) for title, table in validation.items()}
    scaled = {
        title: scale_temperature(table, temperatures[title]) if temperatures[title] > 0 else table
        for title, table in predictions.items()
    }
    return temperatures, scaled


def describe_temperatures(temperatures: Mapping[str, float], split: Split) -> str:
    """Notebook 10: return the temperatures, what they say about the models, and for whom they are made."""
    lines = []
    for title, value in temperatures.items():
        if not value > 0:
            lines.append(f"- {title}: *inconclusive*, left at 1")
        else:
            word = "too sure of itself" if value > 1.05 else "too modest" if value < 0.95 else "about right"
            lines.append(f"- {title}: {value:.2f}, so on validation images it was {word}")
    if split.validation_by_image or split.shares_subjects:
        lines += [
            "",
            "Subjects in the validation part may be in training too: all this is made for subjects whom the "
            "network knows.",
        ]
    return "\n".join(lines)


def plot_calibration(curves: Mapping[str, pd.DataFrame], classes: Sequence[str]) -> np.ndarray:
    """Notebook 10: draw reliability diagrams of one model, title -> table of `evaluate_calibration`."""
    two = len(classes) == 2
    words = {
        "xlabel": f"said: probability of {classes[0]}" if two else "said: probability of the answer",
        "ylabel": f"seen: share that is {classes[0]}" if two else "seen: share of right answers",
    }
    return plots.plot_calibration(curves, **words)


def compare_calibration(
    before: Mapping[str, pd.DataFrame], after: Mapping[str, pd.DataFrame], *, seed: int = 123
) -> pd.DataFrame:
    """Notebook 10: return calibration error, Brier score and log loss before and after scaling."""
    rows = {}
    for title, table in before.items():
        change = compare_predictions(after[title], table, seed=seed).loc[["calibration_error", "brier", "log_loss"]]
        first = evaluate_predictions(table)
        first = pd.Series({name: first[name] for name in change.index})
        rows[title] = change.assign(before=first, after=first + change["value"])
    table = pd.concat(rows)[["before", "after", "low", "high", "resampled", "verdict"]]
    return table.assign(verdict=table["verdict"].replace({"first": "scaled", "second": "as trained"}))


def describe_order(before: Mapping[str, pd.DataFrame], after: Mapping[str, pd.DataFrame]) -> str:
    """Notebook 10: return the AUC of each model before and after scaling, in a sentence."""
    parts = [
        f"{title} {evaluate_predictions(table)['auc']:.3f} before, "
        f"{evaluate_predictions(after[title])['auc']:.3f} after"
        for title, table in before.items()
    ]
    return f"AUC: {'; '.join(parts)}."


def plot_subjects(by_subject: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Notebook 10: draw the share of right answers of every subject, one panel per model."""
    if next(iter(by_subject.values())).empty:
        return np.array([plots.plot_flow(["subjects are\nunknown"])])
    _, axes = plt.subplots(1, len(by_subject), figsize=(4.0 * len(by_subject), 3.8), sharey=True)
    lowest = min(table["right"].min() for table in by_subject.values())
    for ax, (title, table) in zip(axes, by_subject.items(), strict=True):
        plots.plot_subject_shares(table, ax=ax).set_title(title)
        plots.describe(ax, f"{title}: {ax.get_label()}")
    axes[0].set_ylim(100 * lowest - 0.1 * (103 - 100 * lowest), 103)
    return axes


def describe_subjects(by_subject: Mapping[str, pd.DataFrame]) -> str:
    """Notebook 10: return the three subjects with the lowest share of right answers of each model, as a list."""
    if next(iter(by_subject.values())).empty:
        return "Whose images these are is unknown: results by subject are **inconclusive**."
    lines = [
        f"- {title}: {subject} ({row['label']}), {row['right']:.0%} of {row['images']} images right"
        for title, table in by_subject.items()
        for subject, row in table.head(3).iterrows()
    ]
    return "The subjects with the lowest share of right answers:\n\n" + "\n".join(lines)


def plot_worst(predictions: pd.DataFrame, trained: TrainedModel, *, most: int = 5) -> np.ndarray:
    """Notebook 10: show the mistakes that a model was most sure of, with truth, answer, subject and loss."""
    losses = top_losses(predictions)
    worst = losses[losses["called"] != losses["label"]].head(most)
    if worst.empty:
        return np.array([plots.plot_flow(["no mistake on\nthe test images"])])
    images = [prepare_image(read_image(path), 150, trained.metadata["input"]["crop"]) for path in worst["path"]]
    titles = [
        f"{row.label}, not {row.called}\n{row.subject if isinstance(row.subject, str) else 'unknown subject'}\n"
        f"p {row.probability:.1g}, loss {row.loss:.1f}"
        for row in worst.itertuples()
    ]
    alt = f"The {len(worst)} worst mistakes, losses {worst['loss'].iloc[-1]:.1f} to {worst['loss'].iloc[0]:.1f} nats."
    return plots.plot_images(images, titles, alt=alt)
