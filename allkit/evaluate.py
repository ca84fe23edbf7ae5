"""Metrics with intervals, comparison of models, calibration, thresholds, results by person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import classification_report, confusion_matrix, roc_curve

from allkit import AllkitError

FEWEST_UNITS = 5
"""With fewer subjects (or images) of a class than this, an interval says more than the data can."""


LOSSES = ("brier", "log_loss", "calibration_error")
"""The measures of which less is better."""


# -------------------------------------------------------------------------------------------- metrics


def classes_of(predictions: pd.DataFrame) -> tuple[str, ...]:
    """Return the classes of a predictions table, in the order of its `p_<class>` columns."""
    return tuple(name[2:] for name in predictions.columns if name.startswith("p_"))


def probabilities_of(predictions: pd.DataFrame) -> np.ndarray:
    """Return the probabilities of a predictions table, float (n, classes)."""
    return predictions[[f"p_{name}" for name in classes_of(predictions)]].to_numpy(float)


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

    About the probabilities, the less the better: `brier` (see `brier_score`), `log_loss` (mean of −ln of the
    probability of the true class, in nats, 0 and up) and `calibration_error` (see there).
    """
    classes, truth = classes_of(predictions), _truth(predictions)
    return _measures(truth, probabilities_of(predictions), classes, np.ones(len(truth)))


def _measures(truth: np.ndarray, proba: np.ndarray, classes: tuple, weight: np.ndarray) -> dict[str, float]:
    """Compute every measure; a zero denominator gives 0, as in scikit-learn with zero_division=0."""
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
        "auc": _auc(truth, proba, weight),
    }
    if k == 2:
        found |= {"sensitivity": recall[0], "specificity": recall[1]}
    for name, p, r, f in zip(classes, precision, recall, f1, strict=True):
        found |= {f"precision_{name}": p, f"recall_{name}": r, f"f1_{name}": f}
    found |= {
        "brier": _brier(truth, proba, weight),
        "log_loss": np.average(_losses(truth, proba), weights=weight),
        "calibration_error": _calibration_error(*_binned(*_claims(truth, proba), weight, 10)),
    }
    return {name: float(value) for name, value in found.items()}


def _auc(truth: np.ndarray, proba: np.ndarray, weight: np.ndarray) -> float:
    """Return the area under the ROC curve of the first class, or with more than two the mean over classes."""
    columns = [0] if proba.shape[1] == 2 else range(proba.shape[1])
    return float(np.mean([_area(truth == c, proba[:, c], weight) for c in columns]))


def _area(positive: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float:
    """Return the share of pairs that are ranked right, ties as half; NaN where there is no pair to rank."""
    # as roc_auc_score, which spends nearly all its time on checks: the bootstrap asks a thousand times
    _, place = np.unique(score, return_inverse=True)
    hits, rest = np.bincount(place, weight * positive), np.bincount(place, weight * ~positive)
    pairs = hits.sum() * rest.sum()
    return float(hits @ (np.cumsum(rest) - rest / 2) / pairs) if pairs else float("nan")


def _truth(predictions: pd.DataFrame) -> np.ndarray:
    """Return the number of the true class of each row, int (n,)."""
    return predictions["label"].map({name: k for k, name in enumerate(classes_of(predictions))}).to_numpy()


def _losses(truth: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Return −ln of the probability of the true class, (n,), finite as in scikit-learn."""
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
    total = report["macro avg"]["support"]
    nothing = float("nan")
    report["accuracy"] = {
        "precision": nothing,
        "recall": nothing,
        "f1-score": report["accuracy"],
        "support": total,
    }
    rows = [*classes_of(predictions), "accuracy", "macro avg", "weighted avg"]
    return pd.DataFrame(report).T.loc[rows].astype({"support": int})


# ------------------------------------------------------------------------------------------ intervals


def evaluate_with_intervals(
    predictions: pd.DataFrame, *, resamples: int = 500, level: float = 0.95, seed: int = 123
) -> pd.DataFrame:
    """Return every measure with a percentile bootstrap interval over subjects.

    Whole subjects are drawn with replacement, within each class, because cells of one subject resemble each
    other. Where subjects are unknown, images are drawn instead, and the table says so.

    Returns:
        One row per measure: value, low, high, resampled ("subjects" or "images"), units (their number, the
        smaller class). With fewer than `FEWEST_UNITS` units of a class, low and high are NaN: inconclusive.
    """
    return _bootstrap([predictions], _measures, resamples, level, seed)


def wilson_interval(right: int, images: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of the share `right` / `images`, each 0–1, as if images were drawn singly.

    Nothing is resampled. It suits the images of one person, and then says nothing about other people. With fewer
    than `FEWEST_UNITS` images both ends are NaN: the verdict is inconclusive.
    """
    if images < FEWEST_UNITS:
        return float("nan"), float("nan")
    low, high = binomtest(right, images).proportion_ci(level, "wilson")
    return float(low), float(high)


def compare_predictions(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 500, level: float = 0.95, seed: int = 123
) -> pd.DataFrame:
    """Return first minus second for every measure, with a paired bootstrap interval and a verdict.

    Both are drawn together, subject by subject, so that easy and hard subjects count for both.

    Returns:
        As `evaluate_with_intervals`, and `verdict`: which is better, "first", "second" or "inconclusive"
        (the interval holds zero, or there are too few subjects). Of `LOSSES` the smaller is better.

    Raises:
        AllkitError: the tables are not about the same images.
    """
    _check_same_images(first, second)
    table = _bootstrap([first, second], _measures, resamples, level, seed)
    sign = np.where(table.index.isin(LOSSES), -1, 1)
    ends = np.sort(sign[:, None] * table[["low", "high"]].to_numpy(), axis=1)
    better = [ends[:, 0] > 0, ends[:, 1] < 0]
    table["verdict"] = np.select(better, ["first", "second"], "inconclusive")
    return table


def _check_same_images(first: pd.DataFrame, second: pd.DataFrame) -> None:
    if list(first["path"]) != list(second["path"]):
        raise AllkitError(
            "the two models were tested on different images, so they cannot be compared; train both with the "
            "same data, split and seed."
        )


def as_text(table: pd.DataFrame, decimals: int = 3) -> pd.DataFrame:
    """Return a table for reading: numbers rounded, and "inconclusive" where there is no interval."""
    text = table.round(decimals).astype(object)
    return text.where(table.notna(), "inconclusive")


@dataclass(frozen=True)
class _Units:
    """What is resampled: subjects where all are known, else images."""

    kind: str
    of_image: np.ndarray  # int (n,), number of the unit of each image
    count: int
    strata: list[np.ndarray]  # the units of each class
    fewest: int  # of any class; 0 where a class is missing


def _units(predictions: pd.DataFrame) -> _Units:
    by_subject = bool(predictions["subject"].notna().all())
    truth, classes = _truth(predictions), len(classes_of(predictions))
    units, names = pd.factorize(predictions["group" if by_subject else "path"])
    of_class = np.stack([np.bincount(units[truth == k], minlength=len(names)) for k in range(classes)])
    main = of_class.argmax(axis=0)  # a unit with images of several classes is drawn with its main class
    strata = [np.flatnonzero(main == k) for k in np.unique(main)]
    fewest = int((of_class > 0).sum(axis=1).min()) if len(strata) == classes else 0
    return _Units("subjects" if by_subject else "images", units, len(names), strata, fewest)


def _bootstrap(tables: list, measure: Callable, resamples: int, level: float, seed: int) -> pd.DataFrame:
    """Return the measures of a table, or of the first minus the second, with intervals.

    `measure` takes truth (n,), probabilities (n, classes), the classes and weights (n,); returns name -> value.
    """
    truth, classes, units = _truth(tables[0]), classes_of(tables[0]), _units(tables[0])
    proba = [probabilities_of(table) for table in tables]
    names = list(measure(truth, proba[0], classes, np.ones(len(truth))))

    def statistic(*drawn: np.ndarray) -> np.ndarray:
        weight = np.bincount(np.concatenate(drawn), minlength=units.count)[units.of_image].astype(float)
        found = [np.array(list(measure(truth, p, classes, weight).values())) for p in proba]
        return found[0] if len(found) == 1 else found[0] - found[1]

    low = high = np.full(len(names), np.nan)
    if units.fewest >= FEWEST_UNITS:
        interval = bootstrap(
            units.strata, statistic, vectorized=False, n_resamples=resamples, confidence_level=level,
            method="percentile", rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
        low, high = interval.low, interval.high
    return pd.DataFrame(
        {"measure": names, "value": statistic(*units.strata), "low": low, "high": high,
         "resampled": units.kind, "units": units.fewest}
    ).set_index("measure")  # fmt: skip


# ---------------------------------------------------------------------------------------- calibration


def evaluate_calibration(predictions: pd.DataFrame, *, bins: int = 10) -> pd.DataFrame:
    """Return what was predicted and what was seen, for images in equal steps of the probability.

    With two classes the probability is that of the positive class, and what is seen is the share of images
    that belong to it. With more, it is the probability of the most probable class, and what is seen is the
    share of right answers (*top-label confidence*).

    Returns:
        One row per step of width 1/`bins` that holds images, index `bin` ("0.0–0.1"): predicted (mean
        probability, 0–1), observed (share, 0–1), images (count).

    Raises:
        AllkitError: `bins` is below 1.
    """
    if bins < 1:
        raise AllkitError(f"bins={bins}: give 1 or more.")
    claimed, happened = _claims(_truth(predictions), probabilities_of(predictions))
    images, predicted, observed = _binned(claimed, happened, np.ones(len(claimed)), bins)
    used = images > 0
    edges = np.linspace(0, 1, bins + 1)
    decimals = 1 if bins <= 10 and 10 % bins == 0 else 2
    names = [f"{low:.{decimals}f}–{high:.{decimals}f}" for low, high in pairwise(edges)]
    return pd.DataFrame(
        {"predicted": predicted[used], "observed": observed[used], "images": images[used].astype(int)},
        pd.Index(np.array(names)[used], name="bin"),
    )


def calibration_error(predictions: pd.DataFrame, *, bins: int = 10) -> float:
    """Return the expected calibration error, 0 (none) to 1: the mean gap of `evaluate_calibration`.

    The gap between predicted and observed share in each step, weighted by its images.
    """
    table = evaluate_calibration(predictions, bins=bins)
    return _calibration_error(table["images"], table["predicted"], table["observed"])


def brier_score(predictions: pd.DataFrame) -> float:
    """Return the Brier score, the mean squared error of the probabilities: 0 (certain and right) to 1.

    With two classes, always answering 0.5 gives 0.25. With more, the squares are summed over the classes and
    halved, so that 1 remains the worst.
    """
    return _brier(_truth(predictions), probabilities_of(predictions), np.ones(len(predictions)))


def _claims(truth: np.ndarray, proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability that is checked, and whether what it is about came true, both (n,)."""
    if proba.shape[1] == 2:
        return proba[:, 0], truth == 0
    return proba.max(axis=1), proba.argmax(axis=1) == truth


def _binned(claimed: np.ndarray, happened: np.ndarray, weight: np.ndarray, bins: int) -> tuple:
    """Return images, mean claim and share that came true, (bins,) each; NaN where a bin is empty."""
    # calibration_curve of scikit-learn knows no weights, and the bootstrap needs them
    place = np.minimum((claimed * bins).astype(int), bins - 1)
    images = np.bincount(place, weight, bins)
    with np.errstate(invalid="ignore"):
        claims = np.bincount(place, weight * claimed, bins) / images
        return images, claims, np.bincount(place, weight * happened, bins) / images


def _calibration_error(images: np.ndarray, claims: np.ndarray, shares: np.ndarray) -> float:
    return float(np.nansum(images * np.abs(claims - shares)) / np.sum(images))


def _brier(truth: np.ndarray, proba: np.ndarray, weight: np.ndarray) -> float:
    squares = (proba - np.eye(proba.shape[1])[truth]) ** 2
    return float(np.average(squares.sum(axis=1) / 2, weights=weight))


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise AllkitError(f"{name}={value}: give a share above 0 and below 1.")


def _check_costs(prevalence: float, *costs: float) -> None:
    _check_share("prevalence", prevalence)
    if min(costs) <= 0:
        raise AllkitError(f"costs {costs}: give numbers above 0; a mistake that costs nothing needs no threshold.")


def evaluate_thresholds(
    predictions: pd.DataFrame, *, prevalence: float, cost_missed: float, cost_false_alarm: float
) -> pd.DataFrame:
    """Return what every possible threshold on the probability of the positive class would do.

    All classes but the first count as negative. Meant for validation images: a threshold is not chosen on
    test images.

    Args:
        predictions: a predictions table with images of the first and of another class.
        prevalence: share of the positive class where the model is to be used, above 0 and below 1.
        cost_missed: of one positive image called negative, above 0.
        cost_false_alarm: of one negative image called positive, in the same unit, above 0.

    Returns:
        One row per threshold, highest first, from "call none positive" to "call all": threshold (called
        positive from here on, 0–1), sensitivity, specificity, ppv, npv (predictive values at `prevalence`;
        NaN where nothing is called so), cost_per_1000 (expected cost of 1,000 images at `prevalence`).

    Raises:
        AllkitError: a class is missing, `prevalence` is no share, or a cost is not above 0.
    """
    _check_costs(prevalence, cost_missed, cost_false_alarm)
    truth = _truth(predictions)
    if not 0 < (truth == 0).sum() < len(truth):
        raise AllkitError("all these images are of one side; a threshold needs positive and negative ones.")
    fall_out, recall, cuts = roc_curve(truth == 0, probabilities_of(predictions)[:, 0], drop_intermediate=False)
    cuts[0] = np.nextafter(1, 2)  # scikit-learn's infinity: no probability reaches it
    numbers = _decisions(recall, 1 - fall_out, prevalence, cost_missed, cost_false_alarm)
    return pd.DataFrame({"threshold": cuts, **numbers})


def _decisions(sensitivity, specificity, prevalence, cost_missed, cost_false_alarm) -> dict:
    """Return predictive values and expected cost; sensitivity and specificity are numbers or arrays."""
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


# ------------------------------------------------------------------------------- people and mistakes


def evaluate_subjects(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per subject and class, worst first; empty where all subjects are unknown.

    Returns:
        Index `subject`; label, images (count), right (share of right answers, 0–1), confidence (mean
        probability of the true class, 0–1).
    """
    truth, proba = _truth(predictions), probabilities_of(predictions)
    facts = predictions[["subject", "label"]].assign(
        right=proba.argmax(axis=1) == truth, confidence=proba[np.arange(len(truth)), truth]
    )
    each = facts.groupby(["subject", "label"]).agg(
        images=("right", "size"), right=("right", "mean"), confidence=("confidence", "mean")
    )
    return each.reset_index("label").sort_values(["right", "confidence"])


def evaluate_losses(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return every answer with its loss, highest first.

    Returns:
        path, label (true), called, subject, probability (of the true class, 0–1), loss (−ln of it in nats, at most 36).
    """
    truth, proba = _truth(predictions), probabilities_of(predictions)
    table = predictions[["path", "label", "subject"]].assign(
        called=predicted_labels(predictions),
        probability=proba[np.arange(len(truth)), truth],
        loss=_losses(truth, proba),
    )
    return table.sort_values("loss", ascending=False, kind="stable").reset_index(drop=True)
