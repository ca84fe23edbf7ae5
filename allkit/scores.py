"""Measures of predictions as tables of text, for a terminal and for cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from allkit.evaluate import (
    FEWEST_UNITS,
    classes_of,
    evaluate_calibration,
    evaluate_subjects,
    wilson_interval,
)

UNKNOWN = "inconclusive"

MEASURES = {
    "accuracy": "accuracy, share right",
    "balanced_accuracy": "balanced accuracy, mean recall",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "auc": "AUC",
    "sensitivity": "sensitivity, recall of {}",
    "specificity": "specificity, recall of {}",
}


def describe_scores(predictions: pd.DataFrame, found: pd.DataFrame) -> dict[str, Any]:
    """Return what the templates show of predictions: sentences and tables of text; `found` are the measures."""
    errors = {"brier": "Brier score", "calibration_error": "expected calibration error"}
    return {
        "images": f"{len(predictions):,}",
        "resampled": found["resampled"].iat[0],
        "units": found["units"].iat[0],
        "metrics": describe_measures(found, name_measures(classes_of(predictions))),
        "by_class": by_class(predictions, found),
        "by_subject": by_subject(predictions) if predictions["subject"].notna().all() else None,
        "errors": describe_measures(found, errors),
        "calibration": calibration_table(predictions),
    }


def name_measures(classes: Sequence[str]) -> dict[str, str]:
    """Return the main measures and what they are called."""
    return {key: words.format(classes[0] if key == "sensitivity" else classes[-1]) for key, words in MEASURES.items()}


def describe_measures(found: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Return a table of text, measure and value with interval, from one of `evaluate_with_intervals`."""
    rows = [(words, with_interval(**found.loc[name])) for name, words in names.items() if name in found.index]
    return pd.DataFrame(rows, columns=["measure", "value"])


def by_class(predictions: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Return precision, recall and F1 of each class with intervals, as a table of text."""
    rows = []
    for name in classes_of(predictions):
        images = int((predictions["label"] == name).sum())
        measures = [with_interval(**found.loc[f"{measure}_{name}"]) for measure in ("precision", "recall", "f1")]
        # without an image of the class, its recall would be zero by convention only
        rows.append([name, images, *(measures if images else [UNKNOWN] * 3)])
    return pd.DataFrame(rows, columns=["class", "images", "precision", "recall", "F1"])


def by_subject(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the share of right answers of each subject as a table of text, the worst first."""
    table = evaluate_subjects(predictions).reset_index()
    right = (table["right"] * table["images"]).round().astype(int)
    ends = [wilson_interval(k, n) for k, n in zip(right, table["images"], strict=True)]
    known = table["images"] >= FEWEST_UNITS
    shares = [with_interval(k, *e) if ok else UNKNOWN for k, e, ok in zip(table["right"], ends, known, strict=True)]
    columns = {"subject": table["subject"], "class": table["label"], "images": table["images"], "right": right}
    return pd.DataFrame({**columns, "share right": shares})


def calibration_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return what was predicted and what was observed, in steps of the probability, as a table of text."""
    classes, table = classes_of(predictions), evaluate_calibration(predictions)
    two = len(classes) == 2
    observed = table["observed"].map("{:.3f}".format).where(table["images"] >= FEWEST_UNITS, UNKNOWN)
    columns = {f"probability of {classes[0] if two else 'the most probable class'}": table.index}
    columns |= {"images": table["images"], "mean probability": table["predicted"].map("{:.3f}".format)}
    return pd.DataFrame({**columns, f"share that is {classes[0] if two else 'right'}": observed})


def listed(rows: Mapping[str, Any]) -> pd.DataFrame:
    """Return names and values as a table of text of two columns."""
    return pd.DataFrame({"what": list(rows), "value": list(map(str, rows.values()))})


def with_interval(value: float, low: float, high: float, **_: Any) -> str:
    """Return "0.841 (0.702 to 0.932)", or say that value or interval is inconclusive (NaN)."""
    if value != value:
        return UNKNOWN
    ends = "interval inconclusive" if low != low else f"{low:.3f} to {high:.3f}"
    return f"{value:.3f} ({ends})"
