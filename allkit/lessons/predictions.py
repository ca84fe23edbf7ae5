"""Notebook 17: what others predicted, or the numbers that another network makes of each image, judged as our own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from allkit import AllkitError
from allkit.classical import evaluate_baseline, row_keys
from allkit.evaluate import (
    FEWEST_UNITS,
    compare_predictions,
    evaluate_at_threshold,
    evaluate_predictions,
    evaluate_thresholds,
    evaluate_with_intervals,
    label_indices,
    log_losses,
    probabilities_of,
)
from allkit.judging.tables import Loaded, load_file
from allkit.progress import track
from allkit.source import COLUMNS
from allkit.splits import fewest_groups, grouped_folds, sample_weights

STRENGTHS = (1e-4, 1e-3, 1e-2, 0.1)
"""The values of C that the linear head chooses from; the smaller, the stronger it is regularised."""

MEASURES = ("balanced_accuracy", "auc", "sensitivity", "specificity")


def load_predictions(path: str | Path, *, positive: str = "", allow_leak: bool = False, seed: int = 123) -> Loaded:
    """Notebook 17: return the predictions in a file, see `load_file`; of embeddings those of a linear head."""
    loaded = load_file(path, positive=positive, allow_leak=allow_leak)
    return loaded if loaded.numbers is None else predict_embeddings(loaded, seed=seed)


def describe_file(loaded: Loaded) -> str:
    """Notebook 17: return what is judged, and how the file was read, as a list of sentences."""
    rows = loaded.rows
    counts = ", ".join(f"{name} {n:,}" for name, n in rows["label"].value_counts().sort_index().items())
    known = rows["subject"].notna().all()
    groups = rows["group"].nunique() if known else 0
    whose = f"{rows['subject'].nunique()} subjects" if known else "subjects unknown"
    whose += (
        f", {groups} once those who share an image are merged" if known and groups < rows["subject"].nunique() else ""
    )
    positive = f"; positive class {loaded.positive}" if loaded.positive else ""
    what = f"{loaded.path.name}: {len(rows):,} images ({counts}), {whose}{positive}."
    return "\n".join([what, *(["", *(f"- {note}" for note in loaded.notes)] if loaded.notes else [])])


def explain_refusal(path: str | Path, **options: str) -> str:
    """Notebook 17: return why a file is not judged, as the command says it; or that it is, and how it was read."""
    try:
        return f"Not refused. {describe_file(load_file(path, **options))}"
    except AllkitError as error:
        return f"> {str(error).replace(str(path), Path(path).name)}"


def predict_embeddings(loaded: Loaded, *, seed: int = 123) -> Loaded:
    """Notebook 17: return the predictions of a linear head on embeddings, for images of subjects it did not learn from.

    Standardised logistic regression in which every subject of a class counts the same (`sample_weights`). Five folds of
    whole groups, or the training part where the file has one; C is chosen inside of each training part.
    """
    numbers = loaded.numbers.set_axis(row_keys(loaded.numbers.index.to_frame(name="path")))
    rows, train = (
        None if part is None else part.assign(positive=loaded.positive or None) for part in (loaded.rows, loaded.train)
    )
    pairs = grouped_folds(rows, 5, seed=seed) if train is None else [(train, rows)]
    tables, chosen = [], []
    for rest, held in track(pairs, "linear head", unit="fold"):
        chosen.append(choose_strength(rest, numbers, seed=seed))
        tables.append(evaluate_baseline(rest, held, numbers, by_subject=True, C=chosen[-1], seed=seed))
    found = pd.concat(tables).set_index("path").loc[rows["path"]].reset_index()
    where = "the file's training part" if train is not None else f"the other groups, in {len(pairs)} folds"
    whom = "subject" if rows["subject"].notna().all() else "image"
    note = (
        f"Predicted by a linear head on {numbers.shape[1]:,} numbers, trained on {where}; every {whom} of a class "
        f"counts the same; C {', '.join(f'{value:g}' for value in sorted(set(chosen)))}."
    )
    return dataclasses.replace(loaded, rows=found, numbers=None, notes=[*loaded.notes, note])


def choose_strength(rows: pd.DataFrame, numbers: pd.DataFrame, *, seed: int = 123) -> float:
    """Notebook 17: return the C of `STRENGTHS` with the least log loss on held-out groups, subjects weighted.

    Where a class has one group only, nothing can be held out, and it is 0.01.
    """
    if fewest_groups(rows) < 2:
        return 0.01
    pairs, losses = grouped_folds(rows, 3, seed=seed), {}
    for strength in STRENGTHS:
        tables = [evaluate_baseline(*pair, numbers, by_subject=True, C=strength, seed=seed) for pair in pairs]
        table = pd.concat(tables, ignore_index=True)
        each = log_losses(label_indices(table), probabilities_of(table))
        losses[strength] = np.average(each, weights=sample_weights(table))
    return min(losses, key=losses.get)


def compare_units(predictions: pd.DataFrame, *, seed: int = 123) -> pd.DataFrame:
    """Notebook 17: return the main measures with intervals by subject, and as if nobody knew the subjects."""
    ways = {"subjects resampled": predictions} if predictions["subject"].notna().all() else {}
    ways["images resampled"] = predictions.assign(subject=None)
    found = {way: evaluate_with_intervals(table, seed=seed) for way, table in ways.items()}
    rows = {(name, way): table.loc[name] for name in MEASURES for way, table in found.items() if name in table.index}
    return pd.DataFrame(rows).T.infer_objects()


def describe_units(by_unit: pd.DataFrame, measure: str = "auc") -> str:
    """Notebook 17: return how much narrower an interval is where the column subject is left out."""
    rows = by_unit.loc[measure]
    if "subjects resampled" not in rows.index:
        return "The subjects are unknown: how much too narrow these intervals are is **inconclusive**."
    people, images = (rows.loc[f"{unit} resampled"] for unit in ("subjects", "images"))
    if people["low"] != people["low"]:
        return f"An interval over subjects is **inconclusive**: a class has fewer than {FEWEST_UNITS}."
    wide, narrow = people["high"] - people["low"], images["high"] - images["low"]
    said = f"{narrow / wide:.2f} times as wide: {narrow:.3f} instead of {wide:.3f}" if wide else "as wide: both are 0"
    alike = (
        ""
        if wide and narrow < 0.9 * wide
        else " Here the answers for one subject are hardly alike, or too few show it."
    )
    return (
        f"Without the column subject the interval of {measure} is **{said}**. The images are the same; only the claim "
        f"that each comes from another person ({images['units']} images of the smaller class in place of "
        f"{people['units']} subjects) is new.{alike}"
    )


def simulate_studies(
    draw_numbers: Callable[..., pd.DataFrame],
    *,
    subject_effect: float = 1.0,
    subjects: int = 12,
    cells: int = 20,
    studies: int = 40,
    seed: int = 123,
) -> pd.DataFrame:
    """Notebook 17: judge one classifier in many simulated studies, and count the intervals that hold its true AUC.

    Each study has `cells` of so many `subjects` of each class, none of them in another study or in training. The truth
    comes from 1,000 further subjects of each. `draw_numbers`: see `allkit.synthetic`. One row per unit resampled:
    `holds` (share of the 95 % intervals that hold the truth), `width` (mean, in AUC), `truth` (AUC), `studies`.
    """
    draw = partial(draw_numbers, subject_effect=subject_effect, difficulty=2.0, seed=seed)
    train, many = draw(40, 8), draw(1000, 4, first_subject=1000)
    tests = [draw(subjects, cells, first_subject=10_000 + k * subjects) for k in range(studies)]
    everything = pd.concat([train, many, *tests])
    numbers = everything.drop(columns=list(COLUMNS)).set_axis(row_keys(everything))
    answers = evaluate_baseline(train, everything, numbers).set_index("path", drop=False)
    truth, rows = evaluate_predictions(answers.loc[many["path"]])["auc"], []
    for test in track(tests, "simulated studies", unit="study"):
        table = answers.loc[test["path"]].reset_index(drop=True)
        for unit, known in (("subjects", table), ("images", table.assign(subject=None))):
            row = evaluate_with_intervals(known, resamples=100, seed=seed).loc["auc"]
            rows.append(
                {"resampled": unit, "holds": row["low"] <= truth <= row["high"], "width": row["high"] - row["low"]}
            )
    table = pd.DataFrame(rows).groupby("resampled", sort=False).mean()
    return table.assign(truth=truth, studies=studies)


def describe_studies(studies: pd.DataFrame) -> str:
    """Notebook 17: return how often both kinds of interval hold the truth, in a sentence."""
    people, images = studies.loc["subjects"], studies.loc["images"]
    return (
        f"In {people['studies']:.0f} simulated studies of one classifier (true AUC {people['truth']:.3f}) the 95 % "
        f"interval over subjects holds the truth in **{people['holds']:.0%}**, the one over images in "
        f"**{images['holds']:.0%}**. It is {images['width'] / people['width']:.2f} times as wide."
    )


def choose_threshold(predictions: pd.DataFrame, costs: Mapping[str, float]) -> float:
    """Notebook 17: return the threshold on the positive class's probability that costs least on these images."""
    curve = evaluate_thresholds(predictions, **costs)
    return float(curve.loc[curve["cost_per_1000"].idxmin(), "threshold"])


def evaluate_costs(
    predictions: pd.DataFrame, *, prevalence: float, cost_missed: float, cost_false_alarm: float, seed: int = 123
) -> pd.DataFrame:
    """Notebook 17: return what a threshold by cost does, chosen on other subjects, and on the same images.

    On other subjects: the subjects are divided into ten folds, fewer where there are few, and the threshold for a fold
    is chosen on the others (*cross-fitting*); NaN where a class has one group only. Index (chosen, measure), columns as
    `evaluate_at_threshold` and `lowest`, `highest`: the thresholds used.
    """
    costs = {"prevalence": prevalence, "cost_missed": cost_missed, "cost_false_alarm": cost_false_alarm}
    predictions = predictions.reset_index(drop=True)
    cuts = np.full(len(predictions), np.nan)
    for rest, held in grouped_folds(predictions, 10, seed=seed) if fewest_groups(predictions) > 1 else []:
        cuts[held.index] = choose_threshold(rest, costs)
    ways = {"on other subjects": cuts, "on the same images": np.full(len(cuts), choose_threshold(predictions, costs))}
    found = {
        way: evaluate_at_threshold(predictions, cut, **costs, seed=seed).assign(lowest=cut.min(), highest=cut.max())
        for way, cut in ways.items()
    }
    if np.isnan(cuts).any():
        found["on other subjects"][["value", "low", "high"]] = np.nan
    return pd.concat(found, names=["chosen"])


def describe_costs(found: pd.DataFrame, *, prevalence: float, cost_missed: float, cost_false_alarm: float) -> str:
    """Notebook 17: return what a threshold costs, and how much choosing it on the same images flatters."""
    apart, same = (found.loc[way].loc["cost_per_1000"] for way in ("on other subjects", "on the same images"))
    if apart["value"] != apart["value"]:
        return "A class has images of one subject only: what a threshold chosen on others costs is **inconclusive**."
    ends = f"{apart['low']:.0f} to {apart['high']:.0f}" if apart["low"] == apart["low"] else "interval inconclusive"
    gap = apart["value"] - same["value"]
    flattered = (
        f"{gap:.0f} less, which is optimism" if gap > 0.5 else "no less here, by luck or because there is much data"
    )
    lazy = 1000 * min(prevalence * cost_missed, (1 - prevalence) * cost_false_alarm)
    units = "subjects" if apart["resampled"] == "subjects" else "images (subjects are unknown)"
    return (
        f"Chosen on other {units}, thresholds from {apart['lowest']:.3f} to {apart['highest']:.3f} cost "
        f"**{apart['value']:.0f}** per 1,000 images ({ends}). Chosen on the very images that judge it, "
        f"{same['lowest']:.3f} seems to cost {same['value']:.0f}: {flattered}. The cheaper of calling all and "
        f"calling none, without any model: {lazy:.0f}."
    )


@dataclass(frozen=True, eq=False)
class Judged:
    """Notebook 17: a file of predictions with its measures and, where costs were given, what a threshold does."""

    loaded: Loaded
    measures: pd.DataFrame
    costs: Mapping[str, float] | None = None
    decided: pd.DataFrame | None = None


def judge_file(loaded: Loaded, costs: Mapping[str, float] | None = None, *, seed: int = 123) -> Judged:
    """Notebook 17: return the measures of a file with intervals; with costs (see `evaluate_costs`) also a threshold."""
    if costs and not loaded.positive:
        raise AllkitError("a threshold needs a positive class, all others being negative: name it with --positive.")
    decided = evaluate_costs(loaded.rows, **costs, seed=seed) if costs else None
    return Judged(loaded, evaluate_with_intervals(loaded.rows, seed=seed), costs, decided)


def compare_files(first: pd.DataFrame, second: pd.DataFrame, *, seed: int = 123) -> pd.DataFrame:
    """Notebook 17: return first minus second for the main measures, paired, see `compare_predictions`."""
    table = compare_predictions(first, second, seed=seed)
    return table.loc[[name for name in (*MEASURES, "brier", "log_loss") if name in table.index]]


def describe_few(predictions: pd.DataFrame, found: pd.DataFrame) -> str:
    """Notebook 17: return who is behind the intervals, and whether they are enough, in a sentence."""
    units, kind = int(found["units"].iat[0]), found["resampled"].iat[0]
    kind = kind if units != 1 else kind.removesuffix("s")
    if units < FEWEST_UNITS:
        return (
            f"The smaller class has {units} {kind}: fewer than {FEWEST_UNITS}, so every interval is **inconclusive**."
        )
    return f"In brackets: 95 % bootstrap intervals over {kind}, of which the smaller class has {units}."
