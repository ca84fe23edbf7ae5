"""Notebook 06: two networks, older techniques, and which of them is better by what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from allkit.baselines import evaluate_baselines
from allkit.evaluate import (
    compare_predictions,
    compare_two,
    evaluate_each,
    evaluate_predictions,
    evaluate_with_intervals,
)
from allkit.models import TrainedModel, measure_inference
from allkit.splits import Split

MEASURES = ("accuracy", "balanced_accuracy", "weighted_f1", "sensitivity", "specificity", "auc")
"""The measures that are compared; sensitivity and specificity with two classes only."""


def evaluate_side_by_side(predictions: Mapping[str, pd.DataFrame], *, seed: int = 123) -> pd.DataFrame:
    """Notebook 06: return the measures of several models with intervals, one column group per title."""
    found = {title: evaluate_with_intervals(table, seed=seed) for title, table in predictions.items()}
    shown = [name for name in MEASURES if name in next(iter(found.values())).index]
    return pd.concat({title: table.loc[shown, ["value", "low", "high"]] for title, table in found.items()}, axis=1)


def describe_units(predictions: pd.DataFrame) -> str:
    """Notebook 06: return what was resampled for the intervals, and how many of it there are, in a sentence."""
    row = evaluate_with_intervals(predictions, resamples=2).iloc[0]
    return (
        f"`low` and `high` bound a 95 % interval from a bootstrap over **{row['resampled']}**, of which the smaller "
        f"class has {row['units']} in this test part. *Inconclusive* stands where there are too few."
    )


def measure_costs(trained: Mapping[str, TrainedModel]) -> pd.DataFrame:
    """Notebook 06: return what each network takes: parameters, time of training (s), time of one image (ms)."""
    rows = {}
    for title, one in trained.items():
        metadata, times = one.metadata, measure_inference(one)
        rows[title] = {
            "profile": metadata["profile"]["name"],
            "parameters": f"{metadata['parameters']:,}",
            "training (s)": round(metadata["training_seconds"], 1),
            "image side (px)": metadata["input"]["image_size"],
            "one image alone (ms)": round(times["single_ms"], 1),
            "in a batch, each (ms)": round(times["batch_ms"], 1),
        }
    return pd.DataFrame(rows).T


def evaluate_older(split: Split, trained: TrainedModel, *, seed: int = 123) -> dict[str, pd.DataFrame]:
    """Notebook 06: return the predictions of the existing techniques, with the layers of `trained`."""
    profile = trained.metadata["profile"]
    same = {key: profile[key] for key in ("image_size", "crop", "weights", "alpha")}
    return evaluate_baselines(split, **same, seed=seed)


def rank(predictions: Mapping[str, pd.DataFrame], *, seed: int = 123) -> pd.DataFrame:
    """Notebook 06: return the balanced accuracy of every technique with its interval, the highest first."""
    return evaluate_each(predictions, "balanced_accuracy", seed=seed).sort_values("value", ascending=False)


def compare_by_measure(predictions: Mapping[str, pd.DataFrame], *, seed: int = 123) -> pd.DataFrame:
    """Notebook 06: return the first model minus the second by measure, paired, with the better one's title."""
    table = compare_two(predictions, seed=seed)
    return table.loc[[name for name in MEASURES if name in table.index]]


def describe_winners(difference: pd.DataFrame) -> str:
    """Notebook 06: return which model is better by which measure, and where nothing can be said, as a list."""
    decided = difference["verdict"].loc[difference["verdict"] != "inconclusive"]
    lines = [f"- {measure}: **{winner}**" for measure, winner in decided.items()]
    rest = [measure for measure in difference.index if measure not in decided.index]
    fewest = int(difference["units"].min())
    many = f" (the smaller class has {fewest} {difference['resampled'].iloc[0]} in the test part)"
    lines += [f"- inconclusive: {', '.join(rest)}{many}"] if rest else []
    warn = (
        f"\n\n{len(difference)} measures were looked at: one of them may be decided by luck alone. Decide beforehand "
        "which one counts."
        if len(decided)
        else ""
    )
    return "Best by measure:\n\n" + "\n".join(lines) + warn


def compare_with_number(
    predictions: Mapping[str, pd.DataFrame], older: Mapping[str, pd.DataFrame], *, seed: int = 123
) -> pd.DataFrame:
    """Notebook 06: return the AUC of each network minus that of the single number, paired, with a verdict."""
    simple = list(older)[1]
    rows = {
        f"{title} against {simple}": compare_predictions(table, older[simple], seed=seed).loc["auc"]
        for title, table in predictions.items()
    }
    table = pd.DataFrame(rows).T.infer_objects()
    return table.assign(verdict=table["verdict"].replace({"first": "the network", "second": "the number"}))


def beside_the_paper(
    predictions: Mapping[str, pd.DataFrame], reported: Mapping[str, Mapping[str, float]]
) -> pd.DataFrame:
    """Notebook 06: return the main measures here beside those of the paper's test part (title -> measures)."""
    theirs = {f"{title}, paper": measures for title, measures in reported.items()}
    ours = {f"{title}, here": evaluate_predictions(table) for title, table in predictions.items()}
    return pd.DataFrame(theirs | ours).T[["accuracy", "balanced_accuracy", "weighted_f1", "auc"]]


def count_matrices(found: Mapping[str, Iterable]) -> pd.DataFrame:
    """Notebook 06: return how many confusion matrices fit each printed report, and the first of them."""
    rows = {title: {"matrices that fit": len(list(of)), "the first": of[0].tolist()} for title, of in found.items()}
    return pd.DataFrame(rows).T
