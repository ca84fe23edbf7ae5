"""What a printed number can have been: a share is a count in disguise, and four counts stand behind a report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from allkit import AllkitError

MEASURES = (
    "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "npv", "f1", "f1_negative",
    "macro_f1", "weighted_f1", "macro_precision", "weighted_precision", "kappa", "mcc",
)  # fmt: skip
"""What two classes' confusion matrix gives. Sensitivity, precision and F1 are those of the positive class."""

ANY_OF = {
    "f1_unspecified": ("f1", "f1_negative", "macro_f1", "weighted_f1"),
    "precision_unspecified": ("precision", "npv", "macro_precision", "weighted_precision"),
    "recall_unspecified": ("sensitivity", "specificity", "balanced_accuracy", "accuracy"),
}
"""Names for a number of which it is not said whether it is one class's or an average: any of these may be meant."""

REPORT = {
    (0, "precision"): "precision", (0, "recall"): "sensitivity", (0, "f1_score"): "f1",
    (1, "precision"): "npv", (1, "recall"): "specificity", (1, "f1_score"): "f1_negative",
    ("accuracy", "f1_score"): "accuracy",
    ("macro avg", "precision"): "macro_precision", ("macro avg", "recall"): "balanced_accuracy",
    ("macro avg", "f1_score"): "macro_f1",
    ("weighted avg", "precision"): "weighted_precision", ("weighted avg", "recall"): "accuracy",
    ("weighted avg", "f1_score"): "weighted_f1",
}  # fmt: skip
"""Which measure stands in which cell of scikit-learn's report: row (0: the positive class) and column."""

CONFIRMED, CONTRADICTED, OPEN = "confirmed", "contradicted", "inconclusive"
"""The verdicts on a claim."""


def verdict_row(claim: str, where: str, stated: str, found: str, verdict: str) -> dict[str, str]:
    """Return one row of a table of verdicts: a claim, where it stands, what is stated, what was found, the verdict."""
    return {"claim": claim, "where": where, "stated": stated, "found": found, "verdict": verdict}


_SLACK = 1e-9  # of computing, far below any printed digit


@dataclass(frozen=True)
class Number:
    """A share as printed: its `text`, its `value`, and the `unit` of its last digit, both 0–1."""

    text: str
    value: float
    unit: float

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value that prints so."""
        return self.value - self.unit / 2, self.value + self.unit / 2


def percent(value: float, decimals: int) -> Number:
    """Return a percentage as it prints with so many decimals."""
    return read_share(f"{value:.{decimals}f} %")


def read_share(text: str) -> Number:
    """Return what "95.40 %", "95.4", "0.954" or "0,954" prints; a number above 1 is in percent, and digits count.

    Raises AllkitError for what is no share.
    """
    found = re.fullmatch(r"\s*([-+−]?)(\d+)(?:[.,](\d+))?\s*(%?)\s*", str(text))
    if not found:
        raise AllkitError(f"{text!r} is no share; write it as printed, for instance 95.40 % or 0.954.")
    sign, whole, decimals, mark = found[1], found[2], found[3] or "", found[4]
    value = float(f"{whole}.{decimals or 0}") * (-1 if sign in ("-", "−") else 1)
    places = len(decimals) + (2 if mark or abs(value) > 1 else 0)
    value = value / 100 if mark or abs(value) > 1 else value
    if abs(value) > 1:
        raise AllkitError(f"{text!r} is more than 100 %; is it a count? Write the share as printed.")
    return Number(str(text).strip(), value, 10.0**-places)


def read_count(text: str) -> int:
    """Return the whole number that "10,661", "10 661" or "10661" stands for; AllkitError for anything else."""
    found = re.fullmatch(r"\d+|\d{1,3}(?:[,\s ' ]\d{3})+", str(text).strip())
    if not found:
        raise AllkitError(f"{text!r} is no count; write a whole number such as 10661 or 10,661.")
    return int(re.sub(r"\D", "", found[0]))


def agrees(value: np.ndarray | float, number: Number, *, cut: bool = False) -> np.ndarray:
    """Return whether a value prints as this number.

    A value halfway between two prints counts as both: how the authors' software rounds is not known. `cut`: digits were
    dropped, not rounded.
    """
    if cut:
        over = (np.abs(value) - abs(number.value)) if number.value else np.asarray(value)
        return (over >= -_SLACK) & (over < number.unit - _SLACK)
    return np.abs(value - number.value) <= number.unit / 2 + _SLACK


def counts_of(number: Number, n: int, *, cut: bool = False) -> np.ndarray:
    """Return every count among `n` whose share prints as this number; none: it was not measured on `n`."""
    low = max(0, int((number.value - number.unit) * n) - 1)
    k = np.arange(low, min(n, int((number.value + number.unit) * n) + 2) + 1)
    return k[agrees(k / n, number, cut=cut)] if n > 0 else k[:0]


def fitting_sizes(numbers: Sequence[Number], sizes: Iterable[int], *, cut: bool = False) -> list[int]:
    """Return the sizes on which every number is a whole count."""
    tried = np.array(list(sizes), dtype=int)
    fits = tried > 0
    for number in numbers:
        exact = number.value * tried
        nearest = np.ceil(exact - _SLACK) if cut else np.rint(exact)
        fits &= (nearest <= tried) & agrees(nearest / np.maximum(tried, 1), number, cut=cut)
    return tried[fits].tolist()


def matrix_measures(tp: np.ndarray, tn: np.ndarray, p: int, n: int) -> dict[str, np.ndarray]:
    """Return all MEASURES, where `tp` of `p` positives and `tn` of `n` negatives were recognised.

    What a constant answer leaves undefined is 0, as in scikit-learn.
    """
    fn, fp, total = p - tp, n - tn, p + n
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, npv = np.nan_to_num(tp / (tp + fp)), np.nan_to_num(tn / (tn + fn))
        f1, f1_negative = np.nan_to_num(2 * tp / (2 * tp + fn + fp)), np.nan_to_num(2 * tn / (2 * tn + fn + fp))
        accuracy, sensitivity, specificity = (tp + tn) / total, tp / p, tn / n
        chance = (p * (tp + fp) + n * (tn + fn)) / total**2
        kappa = (accuracy - chance) / (1 - chance)
        called = np.asarray(tp + fp, dtype=float) * (tn + fn) * p * n
        mcc = np.nan_to_num((tp * tn - fp * fn) / np.sqrt(called))
    values = (
        accuracy, (sensitivity + specificity) / 2, sensitivity, specificity, precision, npv, f1, f1_negative,
        (f1 + f1_negative) / 2, (p * f1 + n * f1_negative) / total,
        (precision + npv) / 2, (p * precision + n * npv) / total, kappa, mcc,
    )  # fmt: skip
    return dict(zip(MEASURES, values, strict=True))


def fitting_matrices(printed: Iterable[tuple[str, Number]], p: int, n: int, *, cut: bool = False) -> np.ndarray:
    """Return all (tp, tn), shape (k, 2), that print as these measures on `p` positives and `n` negatives.

    `printed` holds pairs of a name (of MEASURES or ANY_OF) and a Number; what is none of these is passed over.
    """
    known = [(name, number) for name, number in printed if name in MEASURES or name in ANY_OF]
    pairs = _candidates(known, p, n, cut)
    fits = np.ones(len(pairs), dtype=bool)
    if len(pairs):
        found = matrix_measures(pairs[:, 0], pairs[:, 1], p, n)
        for name, number in known:
            fits &= np.any([agrees(found[one], number, cut=cut) for one in ANY_OF.get(name, (name,))], axis=0)
    return pairs[fits]


def _candidates(printed: Sequence[tuple[str, Number]], p: int, n: int, cut: bool) -> np.ndarray:
    """Return the pairs (tp, tn) that sensitivity, specificity and accuracy leave; all are often millions."""

    def left(name: str, size: int) -> np.ndarray:
        kept = np.arange(size + 1)
        for number in (number for one, number in printed if one == name):
            kept = np.intersect1d(kept, counts_of(number, size, cut=cut))
        return kept

    tp, tn = left("sensitivity", p), left("specificity", n)
    if not len(tp) or not len(tn):
        return np.zeros((0, 2), dtype=int)
    right = left("accuracy", p + n)
    if len(right) < len(tn):
        tp, right = (grid.ravel() for grid in np.meshgrid(tp, right, indexing="ij"))
        pairs = np.column_stack([tp, right - tp])
        return pairs[np.isin(pairs[:, 1], tn)]
    return np.column_stack([grid.ravel() for grid in np.meshgrid(tp, tn, indexing="ij")])


def search_classes(printed: Sequence[tuple[str, Number]], total: int) -> list[tuple[int, int, int, int]]:
    """Return (p, n, tp, tn) for every way to divide `total` images into classes on which the measures are possible.

    Empty where the digits do not say anything: sensitivity, specificity and accuracy must be printed, so exactly that
    one count in a class is told from the next.
    """
    known = dict(printed)
    wanted = [known.get(name) for name in ("accuracy", "sensitivity", "specificity")]
    if any(number is None or number.unit * total > 1 for number in wanted):
        return []
    low, high = implied_prevalence(known) or (0.0, 1.0)
    found = []
    for p in range(max(1, math.floor(low * total)), min(total - 1, math.ceil(high * total)) + 1):
        if len(counts_of(wanted[1], p)) and len(counts_of(wanted[2], total - p)):
            found += [(p, total - p, tp, tn) for tp, tn in fitting_matrices(printed, p, total - p).tolist()]
    return found


def implied_ranges(measures: Mapping[str, Number]) -> dict[str, tuple[float, float]]:
    """Return what the others say a printed measure must lie between, whatever the sizes; of those that are printed.

    Accuracy is a mean of sensitivity and specificity, balanced accuracy their middle; F1 is the harmonic mean of
    precision and sensitivity.
    """
    found: dict[str, tuple[float, float]] = {}
    if {"sensitivity", "specificity"} <= set(measures):
        pairs = np.array([measures["sensitivity"].range, measures["specificity"].range])
        found["accuracy"] = (pairs[:, 0].min(), pairs[:, 1].max())
        found["balanced_accuracy"] = tuple(pairs.mean(axis=0))
    if {"precision", "sensitivity"} <= set(measures):
        pairs = np.maximum(np.array([measures["precision"].range, measures["sensitivity"].range]), _SLACK)
        found["f1"] = tuple(2 / (1 / pairs).sum(axis=0))
    return {name: (float(low), float(high)) for name, (low, high) in found.items() if name in measures}


def implied_prevalence(measures: Mapping[str, Number]) -> tuple[float, float] | None:
    """Return between which shares of positives accuracy, sensitivity and specificity leave the images, or None.

    None too where sensitivity and specificity print alike: then any share is possible.
    """
    if not {"accuracy", "sensitivity", "specificity"} <= set(measures):
        return None
    ranges = [measures[name].range for name in ("accuracy", "sensitivity", "specificity")]
    corners = np.array(np.meshgrid(*ranges)).reshape(3, -1)
    apart = corners[1] - corners[2]
    if apart.min() <= 0 <= apart.max():
        return None
    share = (corners[0] - corners[2]) / apart
    return float(share.min()), float(share.max())


def subset_counts(sizes: Iterable[int]) -> np.ndarray:
    """Return for each total, 0 to the sum of all sizes, how many sets of them add up to it; 0: none does."""
    sizes = list(sizes)
    ways = np.zeros(sum(sizes) + 1)
    ways[0] = 1
    for size in sizes:
        ways[size:] += ways[: len(ways) - size].copy()
    return ways


def remaining_matrices(printed: Sequence[tuple[str, Number]], p: int, n: int) -> list[int]:
    """Return how many confusion matrices are left before anything is read, and after each of the printed measures."""
    return [len(fitting_matrices(printed[:k], p, n)) for k in range(len(printed) + 1)]
