"""Metrics with intervals, and comparison of models."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from allkit import AllkitError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

FEWEST_UNITS = 5
"""With fewer subjects (or images) of a class than this, an interval says more than the data can."""


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
    """Return all measures of a predictions table (paper III.B.4), each 0–1.

    Per class c: `precision_c` = a/(a+b), `recall_c` = a/(a+c), `f1_c` = 2·Pr·Rc/(Pr+Rc), the paper's
    equations with a true positives, b false positives, c false negatives; then accuracy, balanced accuracy
    (mean recall), macro and weighted F1 (weighted: the official measure of the C-NMC challenge) and AUC. With
    two classes also sensitivity and specificity: recall of the positive and of the other class. With more,
    AUC is the mean of one class against the rest.
    """
    classes = classes_of(predictions)
    truth = predictions["label"].map({name: k for k, name in enumerate(classes)}).to_numpy()
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
    return {name: float(value) for name, value in found.items()}


def _auc(truth: np.ndarray, proba: np.ndarray, weight: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    used = weight > 0
    truth, proba, weight = truth[used], proba[used], weight[used]
    columns = [0] if proba.shape[1] == 2 else range(proba.shape[1])
    if len(np.unique(truth)) < (2 if proba.shape[1] == 2 else proba.shape[1]):
        return float("nan")  # one class only: no pair to rank
    return float(np.mean([roc_auc_score(truth == c, proba[:, c], sample_weight=weight) for c in columns]))


def confusion(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the confusion matrix in counts: rows true, columns predicted, positive class first."""
    import pandas as pd
    from sklearn.metrics import confusion_matrix

    classes = list(classes_of(predictions))
    counts = confusion_matrix(predictions["label"], predicted_labels(predictions), labels=classes)
    return pd.DataFrame(counts, pd.Index(classes, name="true"), pd.Index(classes, name="predicted"))


def classification_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return scikit-learn's classification report as a table, laid out as in Figs. 11 and 16."""
    import pandas as pd
    from sklearn.metrics import classification_report

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
        smaller class). With fewer than `FEWEST_UNITS` units of a class, low and high are NaN: it cannot be told.
    """
    return _bootstrap([predictions], lambda found: found[0], resamples, level, seed)


def evaluate_by_subject(predictions: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Return how many images of each subject were answered rightly, the worst subject first.

    Subjects that share an image count as one (column `group`). The interval is the Wilson score interval over
    that subject's images, as if they were drawn independently: nothing is resampled, and it says nothing about
    other people. With fewer than `FEWEST_UNITS` images low and high are NaN: it cannot be told.

    Returns:
        One row per subject, index `subject`: label (its class), images, right (counts), share, low, high (0–1).

    Raises:
        AllkitError: the subjects are unknown.
    """
    import pandas as pd
    from scipy.stats import binomtest

    if predictions["subject"].isna().any():
        raise AllkitError("the subjects of these images are unknown; give data with a column or names that tell them.")
    right = predictions["label"] == predicted_labels(predictions)
    rows = []
    for subject, part in predictions.groupby("group", sort=False):
        hits, images = int(right[part.index].sum()), len(part)
        found = binomtest(hits, images).proportion_ci(level, "wilson")
        low, high = found if images >= FEWEST_UNITS else (float("nan"),) * 2
        label = ", ".join(part["label"].unique())
        rows.append((subject, label, images, hits, hits / images, float(low), float(high)))
    columns = ["subject", "label", "images", "right", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values("share", kind="stable").set_index("subject")


def compare_predictions(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 500, level: float = 0.95, seed: int = 123
) -> pd.DataFrame:
    """Return first minus second for every measure, with a paired bootstrap interval and a verdict.

    Both are drawn together, subject by subject, so that easy and hard subjects count for both.

    Returns:
        As `evaluate_with_intervals`, and `verdict`: "first", "second" or "cannot be told" (the interval holds
        zero, or there are too few subjects).

    Raises:
        AllkitError: the tables are not about the same images.
    """
    if list(first["path"]) != list(second["path"]):
        raise AllkitError(
            "the two models were tested on different images, so they cannot be compared; train both with the "
            "same data, split and seed."
        )
    table = _bootstrap([first, second], lambda found: found[0] - found[1], resamples, level, seed)
    table["verdict"] = np.select([table["low"] > 0, table["high"] < 0], ["first", "second"], "cannot be told")
    return table


def as_text(table: pd.DataFrame, decimals: int = 3) -> pd.DataFrame:
    """Return a table for reading: numbers rounded, and "cannot be told" where there is no interval."""
    text = table.round(decimals).astype(object)
    return text.where(table.notna(), "cannot be told")


def _bootstrap(tables: list, combine: Callable, resamples: int, level: float, seed: int) -> pd.DataFrame:
    import pandas as pd
    from scipy.stats import bootstrap

    frame, classes = tables[0], classes_of(tables[0])
    truth = frame["label"].map({name: k for k, name in enumerate(classes)}).to_numpy()
    by_subject = bool(frame["subject"].notna().all())
    units, names = pd.factorize(frame["group"] if by_subject else frame["path"])
    proba = [probabilities_of(table) for table in tables]
    measures = list(_measures(truth, proba[0], classes, np.ones(len(truth))))

    def statistic(*drawn: np.ndarray) -> np.ndarray:
        weight = np.bincount(np.concatenate(drawn), minlength=len(names))[units].astype(float)
        return combine([np.array(list(_measures(truth, p, classes, weight).values())) for p in proba])

    of_class = np.stack([np.bincount(units[truth == k], minlength=len(names)) for k in range(len(classes))])
    main = of_class.argmax(axis=0)  # a unit with images of several classes is drawn with its main class
    strata = [np.flatnonzero(main == k) for k in np.unique(main)]
    fewest = int((of_class > 0).sum(axis=1).min()) if len(strata) == len(classes) else 0
    low = high = np.full(len(measures), np.nan)
    if fewest >= FEWEST_UNITS:
        interval = bootstrap(
            strata, statistic, vectorized=False, n_resamples=resamples, confidence_level=level,
            method="percentile", rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
        low, high = interval.low, interval.high
    return pd.DataFrame(
        {"measure": measures, "value": statistic(*strata), "low": low, "high": high,
         "resampled": "subjects" if by_subject else "images", "units": fewest}
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
    import pandas as pd

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
    return float(np.average((table["predicted"] - table["observed"]).abs(), weights=table["images"]))


def brier_score(predictions: pd.DataFrame) -> float:
    """Return the Brier score, the mean squared error of the probabilities: 0 (certain and right) to 1.

    With two classes, always answering 0.5 gives 0.25. With more, the squares are summed over the classes and
    halved, so that 1 remains the worst.
    """
    return _brier(_truth(predictions), probabilities_of(predictions), np.ones(len(predictions)))


def _truth(predictions: pd.DataFrame) -> np.ndarray:
    """Return the number of the true class of each row, int (n,)."""
    return predictions["label"].map({name: k for k, name in enumerate(classes_of(predictions))}).to_numpy()


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


def _brier(truth: np.ndarray, proba: np.ndarray, weight: np.ndarray) -> float:
    squares = (proba - np.eye(proba.shape[1])[truth]) ** 2
    return float(np.average(squares.sum(axis=1) / 2, weights=weight))
