"""Measures of predictions, intervals over subjects, comparisons, calibration, thresholds, results by subject.

A *predictions table* has one row per image: `path`, `label` (the true class), `subject`, `group` (subjects that share
an image are one group) and one column `p_<class>` per class, the positive class first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap
from sklearn.metrics import classification_report, confusion_matrix, roc_curve

from allkit import AllkitError
from allkit.progress import track

FEWEST_UNITS = 5
"""With fewer subjects (or images) of a class than this, an interval says more than the data can."""

LEVEL = 0.95
"""Confidence level of every interval."""

LOSSES = ("brier", "log_loss", "calibration_error")
"""The measures of which less is better."""

_MANY = 100_000  # images, from which on a bootstrap says how far it has come

BINS = 10
"""Steps of the probability in which calibration is checked."""


def classes_of(predictions: pd.DataFrame) -> tuple[str, ...]:
    """Return the classes of a predictions table, in the order of its `p_<class>` columns."""
    return tuple(name[2:] for name in predictions.columns if name.startswith("p_"))


def probabilities_of(predictions: pd.DataFrame) -> np.ndarray:
    """Return the probabilities of a predictions table, float (n, classes)."""
    return predictions[[f"p_{name}" for name in classes_of(predictions)]].to_numpy(float)


def label_indices(predictions: pd.DataFrame) -> np.ndarray:
    """Return the place of each row's true class among the classes, int (n,)."""
    return predictions["label"].map({name: k for k, name in enumerate(classes_of(predictions))}).to_numpy()


def predicted_labels(predictions: pd.DataFrame) -> np.ndarray:
    """Return the most probable class of each row, (n,) of str."""
    return np.array(classes_of(predictions))[probabilities_of(predictions).argmax(axis=1)]


def evaluate_predictions(predictions: pd.DataFrame) -> dict[str, float]:
    """Return all measures of a predictions table (paper III.B.4), each 0–1 except `log_loss`.

    Per class c: `precision_c` = a/(a+b), `recall_c` = a/(a+c), `f1_c` = 2·Pr·Rc/(Pr+Rc), the paper's
    equations with a true positives, b false positives, c false negatives; then accuracy, balanced accuracy
    (mean recall), macro and weighted F1 (weighted: the official measure of the C-NMC challenge) and AUC. With
    two classes also sensitivity and specificity: recall of the positive and of the other class. With more,
    AUC is the mean of one class against the rest.

    About the probabilities, the less the better: `brier` (mean squared error of the probabilities, summed over the
    classes and halved; always answering 0.5 of two classes gives 0.25), `log_loss` (mean of −ln of the probability
    of the true class, in nats, 0 and up) and `calibration_error` (expected calibration error: the mean gap of
    `evaluate_calibration`, each step weighted by its images).
    """
    return _measure(predictions)(np.ones(len(predictions)))


def _measure(predictions: pd.DataFrame) -> Callable[[np.ndarray], dict[str, float]]:
    """Return a function of the rows' weights, (n,), that computes every measure."""
    parts = label_indices(predictions), probabilities_of(predictions), classes_of(predictions)
    return partial(_weighted_measures, *parts)


def _weighted_measures(truth: np.ndarray, proba: np.ndarray, classes: tuple, weight: np.ndarray) -> dict[str, float]:
    """Compute every measure; a zero denominator gives 0, as in scikit-learn with zero_division=0."""
    # by hand: scikit-learn spends nearly all its time on checks, and the bootstrap asks hundreds of times
    k = len(classes)
    counts = np.bincount(truth * k + proba.argmax(axis=1), weight, k * k).reshape(k, k)
    hits, support, called = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    recall = np.divide(hits, support, out=np.zeros(k), where=support > 0)
    precision = np.divide(hits, called, out=np.zeros(k), where=called > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros(k), where=both > 0)
    found = {
        "accuracy": hits.sum() / support.sum(),
        "balanced_accuracy": recall[support > 0].mean(),
        "macro_f1": f1[support > 0].mean(),
        "weighted_f1": f1 @ support / support.sum(),
        "auc": roc_auc(truth, proba, weight),
    }
    if k == 2:
        found |= {"sensitivity": recall[0], "specificity": recall[1]}
    for name, p, r, f in zip(classes, precision, recall, f1, strict=True):
        found |= {f"precision_{name}": p, f"recall_{name}": r, f"f1_{name}": f}
    squares = ((proba - np.eye(k)[truth]) ** 2).sum(axis=1)
    images, predicted, observed = _binned(*_confidence(truth, proba), weight)
    found |= {
        "brier": np.average(squares / 2, weights=weight),
        "log_loss": np.average(log_losses(truth, proba), weights=weight),
        "calibration_error": np.nansum(images * np.abs(predicted - observed)) / np.sum(images),
    }
    return {name: float(value) for name, value in found.items()}


def roc_auc(truth: np.ndarray, scores: np.ndarray, weight: np.ndarray) -> float:
    """Return the area under the ROC curve of the first class; with more than two, the mean of one against the rest.

    Of int (n,), float (n, classes) and float (n,). NaN where a class is missing.
    """
    columns = [0] if scores.shape[1] == 2 else range(scores.shape[1])
    return float(np.mean([_area(truth == c, scores[:, c], weight) for c in columns]))


def _area(positive: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float:
    """Return the share of pairs that are ranked right, ties as half; NaN where there is no pair to rank."""
    _, place = np.unique(score, return_inverse=True)
    hits, rest = np.bincount(place, weight * positive), np.bincount(place, weight * ~positive)
    pairs = hits.sum() * rest.sum()
    return float(hits @ (np.cumsum(rest) - rest / 2) / pairs) if pairs else float("nan")


def log_losses(truth: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Return −ln of the probability of the true class, (n,) nats, at most 36: finite as in scikit-learn."""
    return -np.log(np.clip(proba[np.arange(len(truth)), truth], np.finfo(float).eps, 1))


def confusion(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the confusion matrix in counts: rows true, columns predicted, positive class first."""
    classes = list(classes_of(predictions))
    counts = confusion_matrix(predictions["label"], predicted_labels(predictions), labels=classes)
    return pd.DataFrame(counts, pd.Index(classes, name="true"), pd.Index(classes, name="predicted"))


def classification_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return scikit-learn's classification report as a table, laid out as in Figs. 11 and 16."""
    report = classification_report(
        predictions["label"], predicted_labels(predictions), labels=list(classes_of(predictions)),
        output_dict=True, zero_division=0,
    )  # fmt: skip
    if "accuracy" not in report:  # scikit-learn calls it micro avg where a class never occurs
        report["accuracy"] = report.pop("micro avg")["f1-score"]
    images = report["macro avg"]["support"]
    report["accuracy"] = {"precision": np.nan, "recall": np.nan, "f1-score": report["accuracy"], "support": images}
    rows = [*classes_of(predictions), "accuracy", "macro avg", "weighted avg"]
    return pd.DataFrame(report).T.loc[rows].astype({"support": int})


def evaluate_with_intervals(predictions: pd.DataFrame, *, resamples: int = 500, seed: int = 123) -> pd.DataFrame:
    """Return every measure with its bootstrap interval, as `bootstrap_by_subject`."""
    return bootstrap_by_subject(predictions, _measure(predictions), resamples=resamples, seed=seed)


def evaluate_each(
    predictions: Mapping[str, pd.DataFrame], measure: str = "auc", *, resamples: int = 500, seed: int = 123
) -> pd.DataFrame:
    """Return one measure of several predictions tables with its interval, one row each; see `bootstrap_by_subject`."""
    rows = {
        title: evaluate_with_intervals(table, resamples=resamples, seed=seed).loc[measure]
        for title, table in predictions.items()
    }
    return pd.DataFrame(rows).T.infer_objects()


def compare_predictions(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 500, seed: int = 123
) -> pd.DataFrame:
    """Return first minus second for every measure, with a paired bootstrap interval and a verdict.

    Both are drawn together, subject by subject, so that easy and hard subjects count for both. As
    `bootstrap_by_subject`, and `verdict`: which is better, "first", "second" or "inconclusive" (the interval holds
    zero, or there are too few subjects). Of `LOSSES` the smaller is better.
    """
    check_same_images(first, second)
    of_first, of_second = _measure(first), _measure(second)

    def difference(weight: np.ndarray) -> dict[str, float]:
        other = of_second(weight)
        return {name: value - other[name] for name, value in of_first(weight).items()}

    table = bootstrap_by_subject(first, difference, resamples=resamples, seed=seed)
    sign = np.where(table.index.isin(LOSSES), -1, 1)
    ends = np.sort(sign[:, None] * table[["low", "high"]].to_numpy(), axis=1)
    table["verdict"] = np.select([ends[:, 0] > 0, ends[:, 1] < 0], ["first", "second"], "inconclusive")
    return table


def compare_two(predictions: Mapping[str, pd.DataFrame], *, seed: int = 123) -> pd.DataFrame:
    """Return `compare_predictions` of the first two of title -> predictions, the better one's title as verdict."""
    (first, one), (second, other) = list(predictions.items())[:2]
    table = compare_predictions(one, other, seed=seed)
    return table.assign(verdict=table["verdict"].replace({"first": first, "second": second}))


def check_same_images(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Raise an AllkitError where two predictions tables are not about the same images in the same order."""
    if list(first["path"]) != list(second["path"]):
        raise AllkitError(
            "the two models were tested on different images, so they cannot be compared; train both with the "
            "same data, split and seed."
        )


@dataclass(frozen=True)
class SamplingUnits:
    """What is resampled: subjects where all are known, else images."""

    kind: str
    of_image: np.ndarray  # int (n,), number of the unit of each image
    count: int
    strata: list[np.ndarray]  # the units of each class
    fewest: int  # of any class; 0 where a class is missing


def sampling_units(table: pd.DataFrame) -> SamplingUnits:
    """Return what a bootstrap over these images must draw as a whole; cells of one subject resemble each other.

    Of any table with `path`, `subject` and `group`; one that holds no predictions has a single stratum.
    """
    kind = "subjects" if table["subject"].notna().all() else "images"
    units, names = pd.factorize(table["group" if kind == "subjects" else "path"])
    classes = len(classes_of(table))
    if not classes:
        return SamplingUnits(kind, units, len(names), [np.arange(len(names))], len(names))
    truth = label_indices(table)
    of_class = np.stack([np.bincount(units[truth == k], minlength=len(names)) for k in range(classes)])
    main = of_class.argmax(axis=0)  # a unit with images of several classes is drawn with its main class
    strata = [np.flatnonzero(main == k) for k in np.unique(main)]
    fewest = int((of_class > 0).sum(axis=1).min()) if len(strata) == classes else 0
    return SamplingUnits(kind, units, len(names), strata, fewest)


def bootstrap_by_subject(
    predictions: pd.DataFrame,
    measure: Callable[[np.ndarray], dict[str, float]],
    *,
    resamples: int = 500,
    seed: int = 123,
) -> pd.DataFrame:
    """Return what `measure` makes of these images, with percentile bootstrap intervals over subjects.

    Whole subjects are drawn with replacement, within each class, because cells of one subject resemble each other.
    Where subjects are unknown, images are drawn instead, and the table says so. `measure` gets how often each image
    was drawn, float (n,), and returns name -> value.

    One row per name: value, low, high, resampled ("subjects" or "images"), units (their number, the smaller class).
    With fewer than `FEWEST_UNITS` units of a class, low and high are NaN: inconclusive.
    """
    units = sampling_units(predictions)
    found = measure(np.ones(len(predictions)))
    line = track(what="resamples", total=resamples, disable=len(predictions) < _MANY)

    def of_drawn(*drawn: np.ndarray) -> np.ndarray:
        line.update()
        times = np.bincount(np.concatenate(drawn), minlength=units.count)
        return np.array(list(measure(times[units.of_image].astype(float)).values()))

    low = high = np.full(len(found), np.nan)
    if units.fewest >= FEWEST_UNITS:
        with line, warnings.catch_warnings():  # a measure that a resample does not have: its ends are NaN, inconclusive
            warnings.simplefilter("ignore", DegenerateDataWarning)
            low, high = bootstrap(
                units.strata, of_drawn, vectorized=False, n_resamples=resamples, confidence_level=LEVEL,
                method="percentile", rng=np.random.default_rng(seed),
            ).confidence_interval  # fmt: skip
    table = {"value": list(found.values()), "low": low, "high": high, "resampled": units.kind, "units": units.fewest}
    return pd.DataFrame(table, pd.Index(list(found), name="measure"))


def wilson_interval(right: int, images: int) -> tuple[float, float]:
    """Return the Wilson score interval of the share `right` / `images`, each 0–1, as if images were drawn singly.

    It suits the images of one subject, and then says nothing about other subjects. With fewer than `FEWEST_UNITS`
    images both ends are NaN: inconclusive.
    """
    if images < FEWEST_UNITS:
        return float("nan"), float("nan")
    low, high = binomtest(right, images).proportion_ci(LEVEL, "wilson")
    return float(low), float(high)


def as_text(table: pd.DataFrame, decimals: int = 3) -> pd.DataFrame:
    """Return a table for reading: numbers rounded, and "inconclusive" where there is no interval."""
    text = table.round(decimals).astype(object)
    return text.where(table.notna(), "inconclusive")


def evaluate_calibration(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return what was predicted and what was observed, for images in ten equal steps of the probability.

    With two classes the probability is that of the positive class, and what is observed is the share of images
    that belong to it. With more, it is the probability of the most probable class, and what is observed is the
    share of right answers (*top-label confidence*).

    One row per step that holds images, index `bin` ("0.0–0.1"): predicted (mean probability, 0–1), observed (share,
    0–1), images (count).
    """
    confidence, right = _confidence(label_indices(predictions), probabilities_of(predictions))
    images, predicted, observed = _binned(confidence, right, np.ones(len(confidence)))
    names = pd.Index([f"{k / BINS:.1f}–{(k + 1) / BINS:.1f}" for k in range(BINS)], name="bin")
    table = pd.DataFrame({"predicted": predicted, "observed": observed, "images": images.astype(int)}, names)
    return table[table["images"] > 0]


def _confidence(truth: np.ndarray, proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability that is checked, and whether what it is about came true, both (n,)."""
    if proba.shape[1] == 2:
        return proba[:, 0], truth == 0
    return proba.max(axis=1), proba.argmax(axis=1) == truth


def _binned(confidence: np.ndarray, right: np.ndarray, weight: np.ndarray) -> tuple:
    """Return images, mean confidence and share that came true, (BINS,) each; NaN where a bin is empty."""
    # calibration_curve of scikit-learn knows no weights, and the bootstrap needs them
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    images = np.bincount(place, weight, BINS)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(place, weight * confidence, BINS) / images
        return images, predicted, np.bincount(place, weight * right, BINS) / images


def evaluate_thresholds(
    predictions: pd.DataFrame, *, prevalence: float, cost_missed: float, cost_false_alarm: float
) -> pd.DataFrame:
    """Return what every possible threshold on the probability of the positive class would do.

    All classes but the first count as negative. Meant for validation images: a threshold is not chosen on
    test images.

    `prevalence` is the share of the positive class where the model is to be used, above 0 and below 1; the costs are
    those of one positive image called negative and one negative image called positive, in the same unit, above 0.

    One row per threshold, highest first, from "call none positive" to "call all": threshold (called positive from
    here on, 0–1) and the numbers of `decision_measures`.
    """
    check_costs(prevalence, cost_missed, cost_false_alarm)
    positive = label_indices(predictions) == 0
    if not 0 < positive.sum() < len(positive):
        raise AllkitError("all these images are of one side; a threshold needs positive and negative ones.")
    fall_out, recall, cuts = roc_curve(positive, probabilities_of(predictions)[:, 0], drop_intermediate=False)
    cuts[0] = np.nextafter(1, 2)  # scikit-learn's infinity: no probability reaches it
    measures = decision_measures(recall, 1 - fall_out, prevalence, cost_missed, cost_false_alarm)
    return pd.DataFrame({"threshold": cuts, **measures})


def check_share(name: str, value: float) -> None:
    """Raise an AllkitError where a share is not above 0 and below 1."""
    if not 0 < value < 1:
        raise AllkitError(f"{name}={value}: give a share above 0 and below 1.")


def check_costs(prevalence: float, *costs: float) -> None:
    """Raise an AllkitError where `prevalence` is no share or a cost is not above 0."""
    check_share("prevalence", prevalence)
    if min(costs) <= 0:
        raise AllkitError(f"costs {costs}: give numbers above 0; a mistake that costs nothing needs no threshold.")


def decision_measures(
    sensitivity: np.ndarray | float,
    specificity: np.ndarray | float,
    prevalence: float,
    cost_missed: float,
    cost_false_alarm: float,
) -> dict[str, np.ndarray | float]:
    """Return what a threshold does, from its sensitivity and specificity, numbers or arrays, 0–1.

    `ppv` and `npv`: predictive values at this prevalence, NaN where nothing is called so; `cost_per_1000`: expected
    cost of 1,000 images.
    """
    hits, missed = prevalence * sensitivity, prevalence * (1 - sensitivity)
    rest, alarms = (1 - prevalence) * specificity, (1 - prevalence) * (1 - specificity)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": np.divide(hits, hits + alarms),
            "npv": np.divide(rest, rest + missed),
            "cost_per_1000": 1000 * (cost_missed * missed + cost_false_alarm * alarms),
        }


def evaluate_at_threshold(
    predictions: pd.DataFrame,
    threshold: float | np.ndarray,
    *,
    prevalence: float,
    cost_missed: float,
    cost_false_alarm: float,
    seed: int = 123,
) -> pd.DataFrame:
    """Return what a threshold, chosen elsewhere, does: `decision_measures` with intervals.

    One for all images, or one for each, (n,). Rows sensitivity, specificity, ppv, npv and cost_per_1000, columns as
    `bootstrap_by_subject`.
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


def evaluate_subjects(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per subject and class, worst first; empty where all subjects are unknown.

    Index `subject`; label, images (count), right (share of right answers, 0–1), confidence (mean probability of the
    true class, 0–1).
    """
    truth, proba = label_indices(predictions), probabilities_of(predictions)
    facts = predictions[["subject", "label"]].assign(
        right=proba.argmax(axis=1) == truth, confidence=proba[np.arange(len(truth)), truth]
    )
    each = facts.groupby(["subject", "label"]).agg(
        images=("right", "size"), right=("right", "mean"), confidence=("confidence", "mean")
    )
    return each.reset_index("label").sort_values(["right", "confidence"])


def top_losses(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return every answer with its loss, highest first.

    Columns path, label (true), called (predicted), subject, probability (of the true class, 0–1), loss (see
    `log_losses`).
    """
    truth, proba = label_indices(predictions), probabilities_of(predictions)
    table = predictions[["path", "label", "subject"]].assign(
        called=predicted_labels(predictions),
        probability=proba[np.arange(len(truth)), truth],
        loss=log_losses(truth, proba),
    )
    return table.sort_values("loss", ascending=False, kind="stable").reset_index(drop=True)
