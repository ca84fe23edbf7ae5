"""Results on genuine images, kept: `make results DATA=PATH [SMEARS=PATH]` writes docs/results/runs.csv.

Every recipe is trained on the same images: cells split by image, as in the paper; one healthy subject held out at a
time; five-fold cross-validation over subjects; smears split by image. Each training is one row, written when it is
done, so that an interrupted session goes on with the next one. The page docs/results.md is written from the rows.
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

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import typer
from sklearn.model_selection import StratifiedGroupKFold

from allkit import plots, saving
from allkit.baselines import single_feature_baseline
from allkit.data import index_hash
from allkit.evaluate import (
    LEVEL,
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

DOCS = Path(__file__).parent

FILE = DOCS / "results" / "runs.csv"

SEEDS = (123, 124, 125)

FOLDS = 5

FOLD = 1
"""The official fold on which cells are split by image and healthy subjects are held out, one at a time."""

RECIPES = {
    "paper's recipe": {"name": "paper", "alpha": 0.75, "allow_leak": True},
    "honest recipe": {"name": "honest", "alpha": 0.75, "allow_leak": True},
}
"""Recipe -> settings of `get_profile`, all with MobileNet."""

PAGE = """\
# Results on genuine cells

What the recipes reach on genuine cells and smears, trained and tested on one machine. The rows behind these tables are
`docs/results/runs.csv`, one for each training, with versions, hashes of data and split, machine and date;
`make results DATA=PATH SMEARS=PATH` makes what is missing and writes this page. Nothing here is a diagnosis.

- **paper's recipe**: recovered from the paper's own numbers; all layers, unscaled input, chosen and tested by image.
- **honest recipe**: a small head on features of several depths, every subject weighed alike.
- **area alone**: the ruler, a threshold on the area of the cell (on smears, on the mean of green).

Both recipes train MobileNet of width {widths} from ImageNet weights.

{results}

How to read it: *by image*, cells of one subject are in training and in test, and a network may recognise the subject.
That is the paper's way, and **it leaks**. *Cross-validation by subject* and *held out* ask about people whom the
network has never met; the difference between the two is what a split by image flatters. The healthy cells of the fold
come from {held_out} subjects: one subject held out says much about that subject and little about the next.
"""

CROSS_VALIDATION = "cells, cross-validation by subject"

HELD_OUT = "cells, a healthy subject held out"

NAMES = ["task", "tested on", "recipe", "seed"]

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
        (HELD_OUT, name, {"how": "hold-out", "hold_out": name}, one_fold)
        for name in healthy
    ]  # fmt: skip
    of_smears = [] if smears is None else [("smears, by image", "", {"how": "image"}, smears)]
    for recipe in ("area alone", "honest recipe", "paper's recipe"):
        if recipe != "paper's recipe":
            for seed in SEEDS:
                for number, split in enumerate(fold_by_subject(cells, seed), 1):
                    yield Task(CROSS_VALIDATION, f"fold {number}", recipe, seed, split)
        for seed in SEEDS:
            for task, tested_on, how, index in [*by_image, *of_smears, *held_out]:
                yield Task(task, tested_on, recipe, seed, split_data(index, seed=seed, **how))


def fold_by_subject(cells: pd.DataFrame, seed: int) -> list[Split]:
    """Return splits that together test every subject once.

    Validation gets the smallest group of each class alone: the honest recipe chooses nothing on it, and subjects that
    are not learned from are missed.
    """
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    splits = []
    for number, (rest, test) in enumerate(folds.split(cells, cells["label"], cells["group"]), 1):
        rest, test = (cells.iloc[rows].reset_index(drop=True) for rows in (rest, test))
        smallest = rest.groupby(["label", "group"]).size().groupby("label").idxmin()
        validation = rest["group"].isin([group for _, group in smallest])
        parts = (part.reset_index(drop=True) for part in (rest[~validation], rest[validation], test))
        splits.append(Split(f"fold {number} of {FOLDS}", *parts, shares_subjects=False, note=""))
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
    of_folds = rows[rows["task"] == CROSS_VALIDATION]
    for (recipe, seed), group in of_folds.groupby(["recipe", "seed"], sort=False):
        files = [folder / f"{_short_hash(json.loads(key))}.csv" for key in group["key"]]
        if len(files) < FOLDS or group["settings"].nunique() > 1 or not all(file.is_file() for file in files):
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


def write_page(rows: pd.DataFrame, pooled: pd.DataFrame, page: Path) -> None:
    """Write the page that shows these results, with its figure in the folder `results` beside it."""
    single, auc = summarise_tests(rows, pooled)
    draw_tests(auc, page.with_suffix("") / "auc.png")
    alt = "; ".join(f"{test}, {recipe}: {row.value:.2f}" for (test, recipe), row in auc.iterrows())
    network = rows[rows["machine"] != ""].iloc[-1]
    lines = [
        f"![AUC of each recipe in each test. {alt}](results/auc.png)", "",
        "## Each test by itself", "",
        "Medians over the seeds, and in brackets the smallest and the largest. Seconds are those of the fastest: "
        "the others may have shared the machine.", "",
        _as_markdown(single), "",
        "## Cross-validation by subject", "", "All folds together.", "", _as_markdown(_pooled_as_text(pooled)), "",
        f"Machines: {'; '.join(sorted(set(rows['machine']) - {''}))}. Versions: {network['versions']}.",
    ]  # fmt: skip
    widths = ", ".join(sorted({str(recipe["alpha"]) for recipe in RECIPES.values()}))
    held_out = rows.loc[rows["task"] == HELD_OUT, "tested on"].nunique()
    text = PAGE.format(results="\n".join(lines), widths=widths, held_out=held_out)
    with saving(page) as file:
        file.write_text(text, encoding="utf-8")


def summarise_tests(rows: pd.DataFrame, pooled: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table of each test by itself as text, and median and range of the AUC of all tests, (test, recipe)."""
    single = rows[rows["task"] != CROSS_VALIDATION]
    single = single.assign(test=(single["task"] + ": " + single["tested on"]).str.strip(": "))
    tests = list(single["test"].unique())  # all recipes of one test below each other
    single = single.sort_values("test", key=lambda names: names.map(tests.index), kind="stable")
    by = single.groupby(["test", "recipe"], sort=False)
    auc = by["auc"].agg(value="median", low="min", high="max")
    table = by[["balanced_accuracy"]].median().join([by["seconds"].min(), by.size().rename("trainings")])
    table.insert(0, "AUC", [f"{v:.2f} ({low:.2f}–{high:.2f})" for v, low, high in auc.to_numpy()])
    of_folds = pooled.groupby("recipe", sort=False)["auc_by_subject"].agg(value="median", low="min", high="max")
    auc = pd.concat([auc, pd.concat({f"{CROSS_VALIDATION}, all folds": of_folds}, names=["test", "recipe"])])
    return table.round({"balanced_accuracy": 3, "seconds": 0}).reset_index(), auc


def draw_tests(auc: pd.DataFrame, picture: Path) -> None:
    """Draw the AUC of all tests into a PNG file."""
    with plt.rc_context(), saving(picture) as file:
        plots.use_style()
        figure = plots.plot_intervals(auc, xlabel="AUC on test images: median, and range over the seeds").figure
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
        plt.close(figure)


def _pooled_as_text(pooled: pd.DataFrame) -> pd.DataFrame:
    words = {"auc_by_subject": "AUC, subjects weighed alike", "auc_by_image": "AUC, every image alike"}
    shown = pooled.rename(columns=words)
    shown[list(words.values())] = shown[list(words.values())].map("{:.3f}".format)
    interval = [f"{low:.3f}–{high:.3f}" for low, high in zip(shown.pop("low"), shown.pop("high"), strict=True)]
    shown.insert(5, f"{100 * LEVEL:.0f} % interval over subjects", interval)
    return shown


def _as_markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown; names of columns with blanks instead of underscores."""
    names = [str(name).replace("_", " ") for name in table]
    rows = [names, ["---"] * len(names), *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(cells: Path, smears: Path | None = None, hours: float = 24.0) -> None:
    """Train what is missing in docs/results/runs.csv, for at most so many hours."""
    index = load_data(cells)
    index = index[(index["part"] == "train") & index["subject"].notna()].reset_index(drop=True)
    others = None if smears is None else load_data(smears)
    folder = Path(os.environ.get("ALLKIT_CACHE", "data/cache")) / "results"
    folder.mkdir(parents=True, exist_ok=True)
    rows = read_rows() if FILE.is_file() else pd.DataFrame({"key": []})
    end = time.monotonic() + 3600 * hours
    try:
        for task in list_tasks(index, others):
            key = json.dumps(key_of(task), sort_keys=True)
            if key in set(rows["key"]) or time.monotonic() > end:
                continue
            row = train_once(task, folder) | {"key": key, "date": time.strftime("%Y-%m-%d")}
            print({name: row[name] for name in (*NAMES, "auc", "seconds")}, flush=True)
            rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
            rows = rows.drop_duplicates(NAMES, keep="last")  # in place of one with other data or settings
            with saving(FILE) as file:
                rows.to_csv(file, index=False)
    finally:  # stopped from the keyboard too
        if len(rows):
            publish(rows, folder)


def read_rows() -> pd.DataFrame:
    """Return what is kept, one row per training; numbers that cannot be given are NaN, words are never missing."""
    numbers = {name: [""] for name in (*MEASURES, "auc_low", "auc_high")}
    return pd.read_csv(FILE, keep_default_na=False, na_values=numbers).astype({"seed": int, "images": int})


def publish(rows: pd.DataFrame, folder: Path) -> None:
    """Pool the folds of which all predictions are there, and write the page."""
    kept = FILE.with_name("by_subject.csv")
    earlier = [pd.read_csv(kept)] if kept.is_file() else []  # whose predictions lie on another machine
    pooled = pd.concat([*earlier, pool_folds(rows, folder)])
    if len(pooled):
        pooled = pooled.drop_duplicates(["recipe", "seed"], keep="last")
        with saving(kept) as file:
            pooled.to_csv(file, index=False)
        write_page(rows, pooled, FILE.parent.with_suffix(".md"))


if __name__ == "__main__":
    typer.run(main)
