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
from allkit.models import title_of
from allkit.runs import Run, read_params
from allkit.train import changed_settings

# ------------------------------------------------------------------------------- listing and comparing

SHOWN = ("auc", "balanced_accuracy")
"""The measures that `list_runs` gives."""


COLUMNS = ("run", "path", "model", "time", "data", "data_hash", "split", "split_hash", "profile", "changed", "seed",
           *(column for name in SHOWN for column in (name, f"{name}_low", f"{name}_high")),
           "resampled", "units", "training_seconds", "trouble")  # fmt: skip


def find_runs(folder: Path | None = None) -> list[Path]:
    """Return the run folders in `folder` (by default `runs_root()`), or `folder` itself where it is one.

    Raises AllkitError when it is neither.
    """
    folder = runs_root() if folder is None else folder
    found = [folder] if _looks_like_run(folder) else []
    with contextlib.suppress(OSError):
        found = found or [path for path in sorted(folder.iterdir()) if path.is_dir() and _looks_like_run(path)]
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
    files = ("params.json", "metrics.json", "notebooks.json")
    return not path.name.startswith(".") and any(os.path.isfile(path / file) for file in files)


def list_runs(paths: Iterable[Path]) -> pd.DataFrame:
    """Return one row per model of each run folder, the newest first, from metrics.json (and params.json).

    A folder that cannot be read has one row, with the reason in `trouble`. None stands for what an older run
    did not record. Where `resampled` says what was resampled, and low and high are missing, the
    interval inconclusive: too few `units` (of the smaller class).

    Returns:
        run, path, model, time (UTC, ISO 8601), data, data_hash, split, split_hash, profile, changed (dict),
        seed, auc and balanced_accuracy (0–1) each with _low and _high, resampled, units, training_seconds,
        trouble (a sentence, or "").
    """
    rows = [row for path in paths for row in _run_rows(path)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table = table.astype(object).where(table.notna(), None)
    return table.sort_values("time", ascending=False, kind="stable", na_position="last").reset_index(drop=True)


def _run_rows(path: Path) -> list[dict[str, Any]]:
    base = {"run": path.name, "path": str(path), "trouble": ""}
    try:
        models, params = _trained_models(path), read_params(path)
    except AllkitError as error:
        return [base | {"trouble": str(error)}]
    if not models:
        made = {"time": _text_at(params, "created"), "data": _text_at(params, "data", "source")}
        return [base | made | {"data_hash": _text_at(params, "data", "hash"), "trouble": "no model is trained yet"}]
    return [base | _model_row(name, facts) for name, facts in models.items()]


def _trained_models(path: Path) -> dict[str, dict[str, Any]]:
    """Return model -> its part of metrics.json; what older runs did not write there comes from params.json."""
    metrics = Run(path, False, "", "").load_metrics()
    params, found = read_params(path), {}
    for name, facts in metrics.items():
        if not isinstance(facts, dict) or "training_seconds" not in facts:
            continue
        profile = value_at(params, "models", name, "profile")
        older = {
            "trained": value_at(params, "created"),
            "data": value_at(params, "data", "source"),
            "data_hash": value_at(params, "data", "hash"),
            "split_hash": value_at(params, "models", name, "split", "hash"),
            "profile": value_at(profile, "name"),
            "changed": changed_settings(profile, name) if isinstance(profile, dict) else None,
            "seed": value_at(params, "models", name, "seed"),
        }
        found[name] = older | facts
    return found


def _model_row(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    row = {key: _text_at(facts, key) for key in ("data", "data_hash", "split", "profile")}
    row |= {"model": title_of(name), "time": _text_at(facts, "trained"), "split_hash": split_hash(facts)}
    row |= {"seed": facts.get("seed"), "changed": facts["changed"] if isinstance(facts["changed"], dict) else None}
    row |= {"training_seconds": _number_at(facts, "training_seconds")}
    for measure in SHOWN:
        row[measure] = _number_at(facts, measure)
        row |= {f"{measure}_{end}": _number_at(facts, "intervals", measure, end) for end in ("low", "high")}
    interval = value_at(facts, "intervals", SHOWN[0])
    return row | {"resampled": _text_at(interval, "resampled"), "units": _number_at(interval, "units")}


def split_hash(facts: Mapping[str, Any]) -> str | None:
    """Return 16 hexadecimal digits that stand for all parts of a split, or None where it is not recorded."""
    parts = value_at(facts, "split_hash")
    if not isinstance(parts, dict):
        return None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def value_at(value: Any, *keys: str) -> Any:
    """Return what lies at value[key][key]…, or None; files that were edited by hand may hold anything."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text_at(value: Any, *keys: str) -> str | None:
    found = value_at(value, *keys)
    return None if found is None else str(found)


def _number_at(value: Any, *keys: str) -> float | None:
    found = value_at(value, *keys)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found.

    Attributes:
        settings: what differs: model (or "whole run"), setting, first, second; one row each.
        measures: model -> table of `allkit.evaluate.compare_predictions`, with both values before it.
        notes: model -> a sentence in place of a table: why its results are not compared, or that they are the same.
    """

    settings: pd.DataFrame
    measures: dict[str, pd.DataFrame]
    notes: dict[str, str]


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compare two run folders: settings, and the predictions of the models that both have.

    Predictions are compared in pairs, and only where both were made on the same test images.

    Raises:
        AllkitError: one of them is no run folder, or cannot be read.
    """
    for path in (first, second):
        if not _looks_like_run(path):
            raise AllkitError(f"{path} is no run folder; `allkit runs` lists those there are.")
    models = [_trained_models(path) for path in (first, second)]
    measures, notes = {}, {}
    for name in dict.fromkeys([*models[0], *models[1]]):
        title, facts = title_of(name), [found.get(name) for found in models]
        note = _not_comparable(*facts)
        try:
            pair = [] if note else [Run(p, False, "", "").load_predictions(name) for p in (first, second)]
            if pair and pair[0].equals(pair[1]):
                note = "the predictions are the same in both runs, to the last digit."
            elif pair:
                measures[title] = _compare_predictions(*pair)
        except AllkitError as error:
            note = f"not compared: {error}"
        if note:
            notes[title] = note
    return Comparison(_different_settings(first, second, models), measures, notes)


def _not_comparable(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> str:
    """Return why two results cannot be compared, or nothing."""
    if first is None or second is None:
        return f"not compared: only the {'second' if first is None else 'first'} run has it."
    tests = [_text_at(facts, "split_hash", "test") for facts in (first, second)]
    if None in tests:
        return "not compared: a run does not record which images it was tested on; train it again."
    if tests[0] != tests[1]:
        return (
            f"not compared: tested on different images (splits {first.get('split')!r} and {second.get('split')!r}, "
            f"test parts {tests[0][:8]} and {tests[1][:8]}); train both with the same data, split and seed."
        )
    return ""


def _compare_predictions(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    if relative_paths(first["path"]) == relative_paths(second["path"]):
        second = second.assign(path=first["path"])  # the same data, moved or on another machine
    table = compare_predictions(first, second).rename(columns={"value": "difference"})
    for position, (column, frame) in enumerate({"first": first, "second": second}.items()):
        table.insert(position, column, list(evaluate_predictions(frame).values()))
    return table


def _different_settings(first: Path, second: Path, models: list) -> pd.DataFrame:
    """Return the settings that are not the same in both runs, as text, "—" where one is not recorded."""
    both = set(models[0]) & set(models[1])
    found = [_settings(path, {name: own[name] for name in own if name in both})
             for path, own in zip((first, second), models, strict=True)]  # fmt: skip
    keys = dict.fromkeys([*found[0], *found[1]])
    rows = [(*key, *(values.get(key, "—") for values in found)) for key in keys]
    table = pd.DataFrame(rows, columns=["model", "setting", "first", "second"])
    return table[table["first"] != table["second"]].reset_index(drop=True)


def _settings(path: Path, models: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return (model, setting) -> value of a run; ("whole run", setting) for what holds for all models."""
    params = read_params(path)
    whole = {"data": value_at(params, "data"), "versions": value_at(params, "versions")}
    settings = {("whole run", key): value for key, value in _flat(whole).items()}
    for name, facts in models.items():
        shown = ("seed", "deterministic", "split", "split_hash")
        own = {key: facts.get(key) for key in shown} | {"profile": value_at(params, "models", name, "profile")}
        settings |= {(title_of(name), key): value for key, value in _flat(own).items()}
    return settings


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    found = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        found |= _flat(value, f"{before}{key}.") if nested else {f"{before}{key}": "—" if value is None else str(value)}
    return found
