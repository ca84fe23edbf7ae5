"""All run folders in one list, and two of them compared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from allkit import AllkitError, runs_root
from allkit.data import relative_paths
from allkit.evaluate import compare_predictions, evaluate_predictions
from allkit.folders import read_params
from allkit.models import title_of
from allkit.runs import Run

MEASURES = ("auc", "balanced_accuracy")

COLUMNS = ("run", "path", "model", "time", "data", "data_hash", "split", "split_hash", "profile", "changed", "seed",
           *(column for name in MEASURES for column in (name, f"{name}_low", f"{name}_high")),
           "resampled", "units", "training_seconds", "trouble")  # fmt: skip


def find_runs(folder: Path | None = None) -> list[Path]:
    """Return the run folders in `folder` (by default `runs_root()`), or `folder` itself where it is one.

    Raises AllkitError when it is neither.
    """
    folder = runs_root() if folder is None else folder
    found = [folder] if _looks_like_run(folder) else []
    with contextlib.suppress(OSError):
        found = found or [path for path in sorted(folder.iterdir()) if _looks_like_run(path)]
    if not found:
        sweeps = ", ".join(path.name for path in find_sweeps(folder))
        advice = f"list those of a sweep: {sweeps}" if sweeps else "make one with `allkit run`"
        raise AllkitError(f"{folder} is no run folder and holds none; {advice}.")
    return found


def find_sweeps(folder: Path | None = None) -> list[Path]:
    """Return the sweeps in `folder` (by default `runs_root()`): folders of runs, which `find_runs` lists one by one."""
    folder = runs_root() if folder is None else folder
    return sorted(file.parent for file in folder.glob("*/sweep.json"))


def _looks_like_run(path: Path) -> bool:
    files = ("params.json", "notebooks.json")
    return not path.name.startswith(".") and any(os.path.isfile(path / file) for file in files)


def trained_models(path: Path) -> dict[str, dict[str, Any]]:
    """Return model -> its part of metrics.json, in the order of training."""
    metrics = Run(path).load_metrics()
    return {name: facts for name, facts in metrics.items() if isinstance(facts, dict) and "training_seconds" in facts}


def list_runs(paths: Iterable[Path]) -> pd.DataFrame:
    """Return one row per model of each run folder, the newest first, from metrics.json.

    auc and balanced_accuracy (0–1) have _low and _high beside them, None with too few `units` (of the smaller class).
    time is UTC, ISO 8601; changed a dict. A folder that cannot be read has one row, with the reason in `trouble`.
    """
    table = pd.DataFrame([row for path in paths for row in _rows(path)], columns=list(COLUMNS))
    table = table.astype(object).where(table.notna(), None)
    return table.sort_values("time", ascending=False, kind="stable", na_position="last").reset_index(drop=True)


def _rows(path: Path) -> list[dict[str, Any]]:
    base = {"run": path.name, "path": str(path), "trouble": ""}
    try:
        base["time"] = read_params(path).get("created")
        rows = [base | _row(name, facts) for name, facts in trained_models(path).items()]
    except AllkitError as error:
        return [base | {"trouble": str(error)}]
    except (KeyError, TypeError, AttributeError) as error:
        trouble = f"{path / 'metrics.json'} is not of this version of allkit ({error!r}); train the models again."
        return [base | {"trouble": trouble}]
    return rows or [base | {"trouble": "no model is trained yet"}]


def _row(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    parts = json.dumps(facts["split_hash"], sort_keys=True).encode()
    same = ("data", "data_hash", "split", "profile", "changed", "seed", "training_seconds")
    row = {key: facts[key] for key in same} | {"model": title_of(name), "time": facts["trained"]}
    row["split_hash"] = hashlib.sha256(parts).hexdigest()[:16]  # one for all parts of the split
    for measure in MEASURES:
        interval = facts["intervals"][measure]
        row |= {measure: interval["value"]} | {f"{measure}_{end}": interval[end] for end in ("low", "high")}
        row |= {key: interval[key] for key in ("resampled", "units")}
    return row


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found.

    - `settings`: what differs: model (or "whole run"), setting, first, second; one row each
    - `measures`: model -> table of `allkit.evaluate.compare_predictions`, with both values before it
    - `notes`: model -> a sentence in place of a table: why its results are not compared, or that they are the same
    """

    settings: pd.DataFrame
    measures: dict[str, pd.DataFrame]
    notes: dict[str, str]


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compare two run folders: settings, and the predictions of models that both tested on the same images.

    Raises AllkitError when one of them is no run folder, or cannot be read.
    """
    for path in (first, second):
        if not _looks_like_run(path):
            raise AllkitError(f"{path} is no run folder; `allkit runs` lists those there are.")
    models = [trained_models(path) for path in (first, second)]
    measures, notes = {}, {}
    for name in models[0] | models[1]:
        found = _compare_model(name, (first, second), models)
        (notes if isinstance(found, str) else measures)[title_of(name)] = found
    return Comparison(_different_settings((first, second), models), measures, notes)


def _compare_model(name: str, paths: tuple[Path, Path], models: list[dict]) -> pd.DataFrame | str:
    """Return both values of each measure and their difference, or a sentence in their place."""
    if not all(name in found for found in models):
        return f"not compared: only the {'first' if name in models[0] else 'second'} run has it."
    try:
        tests = [found[name]["split_hash"]["test"] for found in models]
        if tests[0] != tests[1]:
            return (
                f"not compared: tested on different images (test parts {tests[0][:8]} and {tests[1][:8]}); train both "
                "with the same data, split and seed."
            )
        first, second = (Run(path).load_predictions(name) for path in paths)
        return _compare_predictions(first, second)
    except AllkitError as error:
        return f"not compared: {error}"


def _compare_predictions(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame | str:
    if first.equals(second):
        return "the predictions are the same in both runs, to the last digit."
    if relative_paths(first["path"]) == relative_paths(second["path"]):
        second = second.assign(path=first["path"])  # the same data, moved or on another machine
    table = compare_predictions(first, second).rename(columns={"value": "difference"})
    for position, (column, frame) in enumerate({"first": first, "second": second}.items()):
        table.insert(position, column, list(evaluate_predictions(frame).values()))
    return table


def _different_settings(paths: tuple[Path, Path], models: list[dict]) -> pd.DataFrame:
    """Return the settings that are not the same in both runs, as text, "—" where one run lacks one."""
    both = [name for name in models[0] if name in models[1]]
    found = [_settings(path, {name: own[name] for name in both}) for path, own in zip(paths, models, strict=True)]
    keys = dict.fromkeys([*found[0], *found[1]])
    rows = [(*key, *(values.get(key, "—") for values in found)) for key in keys]
    table = pd.DataFrame(rows, columns=["model", "setting", "first", "second"])
    return table[table["first"] != table["second"]].reset_index(drop=True)


def _settings(path: Path, models: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return (model, setting) -> value of a run; ("whole run", setting) for what holds for all models."""
    params = read_params(path)
    groups = {"whole run": {key: params.get(key, {}) for key in ("data", "versions")}}
    for name, facts in models.items():
        own = {key: facts.get(key) for key in ("seed", "deterministic", "split", "split_hash")}
        groups[title_of(name)] = own | {"profile": params.get("models", {}).get(name, {}).get("profile", {})}
    flat = {group: pd.json_normalize(values, sep=".").to_dict("records")[0] for group, values in groups.items()}
    return {(group, key): str(value) for group, values in flat.items() for key, value in values.items()}


def runs_as_text(listed: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `list_runs` as text; for runs without `trouble`."""
    return pd.DataFrame([_run_as_text(row) for row in listed.to_dict("records")])


def _run_as_text(row: Mapping[str, Any]) -> dict[str, str]:
    changed = ", ".join(f"{name} {value}" for name, value in row["changed"].items())
    return {
        "run": row["run"],
        "model": row["model"],
        "data": f"{row['data']} {row['data_hash'][:6]}",
        "split": f"{row['split']} {row['split_hash'][:6]}",
        "profile": f"{row['profile']} ({changed})" if changed else row["profile"],
        "AUC": _with_interval(row, "auc"),
        "balanced accuracy": _with_interval(row, "balanced_accuracy"),
        "resampled": f"{row['resampled']} ({row['units']:.0f})",
        "training": f"{row['training_seconds']:,.0f} s",
        "date (UTC)": row["time"][:16].replace("T", " "),
    }


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    value, low, high = (row[name + end] for end in ("", "_low", "_high"))
    if value is None:
        return "inconclusive"
    return f"{value:.2f} (inconclusive)" if low is None or high is None else f"{value:.2f} ({low:.2f}–{high:.2f})"


def differences_as_text(measures: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `Comparison.measures` as text."""
    low, high = (measures[end].map("{:+.3f}".format) for end in ("low", "high"))
    text = {
        "measure": measures.index,
        "first": measures["first"].map("{:.3f}".format),
        "second": measures["second"].map("{:.3f}".format),
        "difference": measures["difference"].map("{:+.3f}".format),
        "interval": (low + " to " + high).where(measures["low"].notna(), "inconclusive"),
        "better": measures["verdict"],
    }
    return pd.DataFrame(text)
