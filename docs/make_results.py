"""Results on genuine images, kept: `python docs/make_results.py CNMC [SMEARS]` writes docs/results/runs.csv.

Every recipe is trained on the same images: cells split by image, as in the paper; one healthy subject held out at a
time; ten-fold cross-validation over subjects; smears split by image. Each training is one row, written when it is done,
so that an interrupted session goes on with the next one. The book's page of results reads the rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import typer
from sklearn.model_selection import StratifiedGroupKFold

from allkit import saving
from allkit.baselines import single_feature_baseline
from allkit.data import index_hash
from allkit.evaluate import (
    bootstrap_by_subject,
    evaluate_predictions,
    evaluate_with_intervals,
    label_indices,
    probabilities_of,
    roc_auc,
)
from allkit.models import predict_index
from allkit.runs import load_data
from allkit.splits import Split, sample_weights, split_data
from allkit.train import Profile, build_from_profile, get_profile, train_model

FILE = Path(__file__).parent / "results" / "runs.csv"

SEEDS = (123, 124, 125)

FOLDS = 10

FOLD = 1
"""The official fold on which cells are split by image and healthy subjects are held out, one at a time."""

RECIPES = {
    "paper's recipe": {"name": "paper", "alpha": 0.75, "allow_leak": True},
    "honest recipe": {"name": "honest", "alpha": 0.75, "allow_leak": True},
}
"""Recipe -> settings of `get_profile`, all with MobileNet of width 0.75."""

MEASURES = ("auc", "balanced_accuracy", "accuracy", "weighted_f1", "sensitivity", "specificity")


@dataclass(frozen=True)
class Task:
    """One training to do: its words in the table, the split, and the recipe ("area alone" needs no network)."""

    task: str
    tested_on: str
    recipe: str
    seed: int
    split: Split


def list_tasks(cells: pd.DataFrame, smears: pd.DataFrame | None) -> Iterator[Task]:
    """Yield everything that is to be trained, what takes minutes before what takes hours."""
    one_fold = cells[cells["fold"] == FOLD].reset_index(drop=True)
    by_image = [("cells, by image", "", {"how": "image"}, one_fold)]
    healthy = sorted(one_fold.loc[one_fold["label"] == "HEM", "subject"].unique())
    held_out = [
        ("cells, a healthy subject held out", name, {"how": "hold-out", "hold_out": name}, one_fold)
        for name in healthy
    ]  # fmt: skip
    of_smears = [] if smears is None else [("smears, by image", "", {"how": "image"}, smears)]
    for recipe in ("area alone", "honest recipe", "paper's recipe"):
        if recipe != "paper's recipe":
            for seed in SEEDS:
                for number, split in enumerate(fold_by_subject(cells, seed), 1):
                    yield Task("cells, cross-validation by subject", f"fold {number}", recipe, seed, split)
        for seed in SEEDS:
            for task, tested_on, how, index in [*by_image, *of_smears, *held_out]:
                yield Task(task, tested_on, recipe, seed, split_data(index, seed=seed, **how))


def fold_by_subject(cells: pd.DataFrame, seed: int) -> list[Split]:
    """Return ten splits that test every subject once; the next fold is the validation part."""
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    tests = [rows for _, rows in folds.split(cells, cells["label"], cells["group"])]
    splits = []
    for number, test in enumerate(tests):
        validation = tests[(number + 1) % FOLDS]
        train = np.setdiff1d(np.arange(len(cells)), np.concatenate([test, validation]))
        parts = (cells.iloc[rows].reset_index(drop=True) for rows in (train, validation, test))
        splits.append(Split(f"fold {number + 1} of {FOLDS}", *parts, shares_subjects=False, note=""))
    return splits


def train_once(task: Task, folder: Path) -> dict:
    """Do one training; return its measures with intervals, and keep its predictions in `folder`."""
    start = time.perf_counter()
    if task.recipe == "area alone":
        _, predictions = single_feature_baseline(task.split)
        facts = {"versions": "", "machine": ""}
    else:
        profile = profile_of(task)
        model = build_from_profile("mobilenet", profile, task.split.train["label"].nunique(), seed=task.seed)
        training = train_model(model, task.split, profile, seed=task.seed, show=False)
        predictions = predict_index(training.trained, task.split.test)
        metadata = training.trained.metadata
        facts = {
            "versions": " ".join(f"{name} {number}" for name, number in metadata["versions"].items()),
            "machine": f"{metadata['hardware']['processor']}, {metadata['hardware']['cores']} cores",
        }
    seconds = round(time.perf_counter() - start, 1)
    with saving(folder / f"{_short_hash(key_of(task))}.csv") as file:
        predictions.to_csv(file, index=False)
    measured = evaluate_predictions(predictions)
    found = {name: round(measured[name], 4) for name in MEASURES if name in measured}
    interval = evaluate_with_intervals(predictions).loc["auc"]
    found |= {"auc_low": round(interval["low"], 4), "auc_high": round(interval["high"], 4)}
    return {**key_of(task), "images": len(predictions), **found, "seconds": seconds, **facts}


def key_of(task: Task) -> dict:
    """Return what identifies a training in the table: other data, split or settings are another training."""
    data = pd.concat(task.split.parts.values())
    hashes = {"data": _short_hash(sorted(data["name"])), "split": index_hash(task.split.test)[:12]}
    hashes["settings"] = _short_hash(dataclasses.asdict(profile_of(task))) if task.recipe in RECIPES else ""
    return {"task": task.task, "tested on": task.tested_on, "recipe": task.recipe, "seed": task.seed} | hashes


def profile_of(task: Task) -> Profile:
    """Return the settings of a task's recipe for its images."""
    return get_profile(index=task.split.train, **RECIPES[task.recipe])


def _short_hash(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def pool_folds(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Return the AUC of each recipe and seed over all folds together, with its interval over subjects.

    `auc_by_subject`, with `low` and `high`: every subject counts alike within its class; `auc_by_image`: every image.
    """
    pooled = []
    of_folds = rows[rows["task"] == "cells, cross-validation by subject"]
    for (recipe, seed), group in of_folds.groupby(["recipe", "seed"], sort=False):
        files = [folder / f"{_short_hash(json.loads(key))}.csv" for key in group["key"]]
        if len(files) < FOLDS or not all(file.is_file() for file in files):
            continue
        table = pd.concat([pd.read_csv(file, dtype={"subject": str}) for file in files], ignore_index=True)
        truth, scores, alike = label_indices(table), probabilities_of(table), sample_weights(table)

        def areas(weight: np.ndarray, truth=truth, scores=scores, alike=alike) -> dict[str, float]:
            return {"subject": roc_auc(truth, scores, weight * alike), "image": roc_auc(truth, scores, weight)}

        auc = bootstrap_by_subject(table, areas).round(4)
        pooled.append({"recipe": recipe, "seed": seed, "images": len(table), "subjects": table["subject"].nunique(),
                       "auc_by_subject": auc.at["subject", "value"], "low": auc.at["subject", "low"],
                       "high": auc.at["subject", "high"], "auc_by_image": auc.at["image", "value"]})  # fmt: skip
    return pd.DataFrame(pooled)


def main(cells: Path, smears: Path | None = None, hours: float = 24.0) -> None:
    """Train what is missing in docs/results/runs.csv, for at most so many hours."""
    index = load_data(cells)
    index = index[(index["part"] == "train") & index["subject"].notna()].reset_index(drop=True)
    others = None if smears is None else load_data(smears)
    folder = Path(os.environ.get("ALLKIT_CACHE", "data/cache")) / "results"
    folder.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(FILE, keep_default_na=False) if FILE.is_file() else pd.DataFrame({"key": []})
    end = time.monotonic() + 3600 * hours
    for task in list_tasks(index, others):
        key = json.dumps(key_of(task), sort_keys=True)
        if key in set(rows["key"]) or time.monotonic() > end:
            continue
        row = train_once(task, folder) | {"key": key, "date": time.strftime("%Y-%m-%d")}
        print({name: row[name] for name in ("task", "tested on", "recipe", "seed", "auc", "seconds")}, flush=True)
        rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
        with saving(FILE) as file:
            rows.to_csv(file, index=False)
    pooled = pool_folds(rows, folder)
    if len(pooled):
        kept = FILE.with_name("by_subject.csv")
        earlier = [pd.read_csv(kept)] if kept.is_file() else []  # whose predictions lie on another machine
        pooled = pd.concat([*earlier, pooled]).drop_duplicates(["recipe", "seed"], keep="last")
        with saving(kept) as file:
            pooled.to_csv(file, index=False)
        print(pooled.to_string(index=False))


if __name__ == "__main__":
    typer.run(main)
