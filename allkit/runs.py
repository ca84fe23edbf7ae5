"""Run folders: where the results of one pass through the series are saved and found again.

A notebook stepped through by hand and the command `allkit run` use the same folders.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allkit import ROOT, AllkitError, __version__, runs_root

if TYPE_CHECKING:
    import pandas as pd

    from allkit.models import TrainedModel
    from allkit.splits import Split
    from allkit.train import Profile, Training

FORMAT = 1
"""Version of the layout of run folders; another one is refused, never converted."""

SYNTHETIC = "synthetic"
"""The value of `data` that stands for the synthetic twin."""


# ---------------------------------------------------------------------------------------------- saving


@contextlib.contextmanager
def saving(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, it takes the place of `path`.

    Raises AllkitError when the disk is full or cannot be written; what was at `path` before is intact.
    """
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise disk_trouble(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def disk_trouble(error: OSError, path: Path) -> AllkitError:
    """Return the AllkitError that says what an OSError while writing `path` means for the user."""
    # h5py raises OSError without a number, so its text is looked at too
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1)) or "No space left" in str(error)
    reason = "the disk is full" if full else error.strerror or str(error)
    advice = "make room and run this step again" if full else "mend this and run this step again"
    return AllkitError(f"{path} was not saved: {reason}. What was there before is intact; {advice}.")


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON, atomically; arrays, tables and dataclasses become lists and objects."""
    with saving(path) as temporary:
        text = json.dumps(to_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; AllkitError when it cannot be read or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AllkitError(
            f"{path} cannot be read ({error}); choose another run_folder, or move this one away."
        ) from error
    if not isinstance(content, dict):
        raise AllkitError(f"{path} is not a run's file; choose another run_folder or move this one away.")
    return content


def to_plain(value: Any) -> Any:
    """Return `value` in types that JSON has; NaN and infinities, which JSON lacks, become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif hasattr(value, "to_dict"):  # DataFrame: one record per row; Series: by its index
        value = value.to_dict("records") if hasattr(value, "columns") else value.to_dict()
    elif hasattr(value, "tolist"):  # NumPy arrays and scalars
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [to_plain(item) for item in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None  # False for NaN too
    return value if value is None or isinstance(value, bool | int | str) else str(value)


# ----------------------------------------------------------------------------------------- run folders


def run_path(run_folder: str | Path) -> Path:
    """Return the absolute path of a run folder: a bare name lies in `runs_root()`, the rest is a path."""
    text = str(run_folder)
    if not text.strip():
        raise AllkitError("run_folder is empty; name one, for instance 'latest'.")
    is_path = text != os.path.basename(text) or text in (".", "..") or text.startswith("~")
    return (Path(text).expanduser() if is_path else runs_root() / text).resolve()


def data_path(data: str | Path) -> Path | None:
    """Return the absolute path that `data` means (tried from here, then from the clone); None: the twin."""
    if str(data) == SYNTHETIC:
        return None
    path = Path(data).expanduser()
    for candidate in (path, ROOT / path):
        if candidate.exists():
            return candidate.resolve()
    raise AllkitError(
        f"data={str(data)!r}: there is no such file or folder (looked in {Path.cwd()} and {ROOT}); "
        "give the path of a data set, or data='synthetic' for drawn cells."
    )


def load_data(data: str | Path) -> pd.DataFrame:
    """Return the index (see `allkit.data`) of a data set: "synthetic", or a path from here or the clone.

    The synthetic twin is made on first use. Raises AllkitError when there is nothing at the path.
    """
    from allkit.data import load_index

    path = data_path(data)
    if path is None:
        from allkit.synthetic import ensure_twin

        path = ensure_twin()
    return load_index(path)


@dataclass(frozen=True)
class Run:
    """An open run folder: where results are saved and found again. Made by `open_run`.

    Names (`name`) are those of models or figures: letters, digits, `.`, `_` and `-`.
    """

    path: Path
    synthetic: bool
    """True when the data are the synthetic twin; figures are then stamped "synthetic cells"."""
    profile: str
    data_hash: str
    images: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    """Where the images of the data lie here and now: the folder may have been made on another machine."""

    def save_history(self, name: str, table: pd.DataFrame) -> None:
        """Save the table of a training, one row per epoch, as history-<name>.csv."""
        self._save_table(f"history-{_checked(name)}.csv", table)

    def load_history(self, name: str) -> pd.DataFrame:
        """Return the training table of the model `name`; AllkitError when there is none."""
        return self._load_table(f"history-{_checked(name)}.csv")

    def save_predictions(self, name: str, frame: pd.DataFrame) -> None:
        """Save predictions (path, label, subject, probability in [0, 1] per class, one row per image)."""
        self._save_table(f"predictions-{_checked(name)}.csv", frame)

    def load_predictions(self, name: str) -> pd.DataFrame:
        """Return the predictions of the model `name`, about the images where they lie now; AllkitError if none."""
        table = self._load_table(f"predictions-{_checked(name)}.csv")
        return table.assign(path=_find_again(table["path"], self.images)) if self.images else table

    def predicted_models(self) -> list[str]:
        """Return the names of the models whose predictions are here, sorted."""
        return sorted(p.stem.removeprefix("predictions-") for p in self.path.glob("predictions-*.csv"))

    def save_metrics(self, section: str, values: Mapping[str, Any]) -> None:
        """Merge `values` into the part `section` of metrics.json; other parts and keys stay."""
        metrics = self.load_metrics()
        metrics[section] = {**metrics.get(section, {}), **to_plain(values)}
        save_json(self.path / "metrics.json", metrics)

    def load_metrics(self) -> dict[str, Any]:
        """Return what metrics.json holds, empty when nothing was saved yet."""
        path = self.path / "metrics.json"
        return read_json(path) if path.exists() else {}

    def model_path(self, name: str) -> Path:
        """Return where the model `name` is saved (models/<name>.keras); the folder exists."""
        folder = self.path / "models"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{_checked(name)}.keras"

    def load_card(self, name: str) -> dict[str, Any]:
        """Return the facts about the model `name`; AllkitError when there are none."""
        path = self.model_path(name).with_suffix(".json")
        if not path.exists():
            raise self._missing(f"models/{path.name}")
        return read_json(path)

    def checkpoint_folder(self, name: str) -> Path:
        """Return the folder for the checkpoints of the model `name`; it exists."""
        folder = self.path / "checkpoints" / _checked(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def show(self, figure: Any, name: str, alt: str, *, of_data: bool = True) -> None:
        """Save a figure as figures/<name>.png, show it in the notebook with `alt`, and close it.

        `figure` is a Figure, Axes, array of Axes or a seaborn grid. `alt` describes it for readers who
        cannot see it, and must not be empty. `of_data` is False for drawings and for other people's figures,
        which are not made from the run's cells and are never stamped.
        """
        import matplotlib.pyplot as plt

        if not alt.strip():
            raise AllkitError(f"figure {name!r} has no alternative text; describe it in `alt`.")
        figure = _figure_of(figure)
        if self.synthetic and of_data:
            figure.draw_without_rendering()  # the layout moves things; the stamp goes below all of them
            bottom = figure.get_tightbbox().y0 / figure.get_figheight() - 0.01
            figure.text(0.995, bottom, "synthetic cells", ha="right", va="top", fontsize=8, color="0.35")
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=100, bbox_inches="tight", metadata={"Description": alt})
        plt.close(figure)
        with saving(self.path / "figures" / f"{_checked(name)}.png") as temporary:
            temporary.write_bytes(png.getvalue())
        _display_png(png.getvalue(), alt)

    def _save_table(self, file: str, table: pd.DataFrame) -> None:
        with saving(self.path / file) as temporary:
            table.to_csv(temporary, index=False)

    def _load_table(self, file: str) -> pd.DataFrame:
        import pandas as pd

        if not (self.path / file).exists():
            raise self._missing(file)
        text = dict.fromkeys(("path", "label", "subject", "group", "part", "name", "predicted"), str)
        # a class may be called "NA" and a subject "007": only empty cells are missing, text stays text
        options = {"dtype": text, "keep_default_na": False, "na_values": [""], "float_precision": "round_trip"}
        try:
            return pd.read_csv(self.path / file, **options)
        except (OSError, ValueError) as error:
            raise AllkitError(f"{self.path / file} cannot be read ({error}); train the model again.") from error

    def _missing(self, file: str) -> AllkitError:
        there = ", ".join(self.predicted_models()) or "none"
        return AllkitError(
            f"{file} is not in the run folder {self.path} (models with results there: {there}); "
            "run the notebook that trains this model first, or choose another run_folder."
        )


def open_run(run_folder: str | Path, *, index: pd.DataFrame, profile: Any) -> Run:
    """Create a run folder, or open it again, for the data in `index` and a profile (or its name).

    Raises AllkitError when the folder holds something else, is of another version, or is of other data.
    Nothing is deleted in either case.
    """
    from allkit.data import index_hash

    path, data_hash = run_path(run_folder), index_hash(index)
    profile = str(getattr(profile, "name", profile))
    is_run_folder(path)
    old = read_params(path)
    if old and old["data"]["hash"] != data_hash:
        raise AllkitError(
            f"the run folder {path} belongs to other data ({old['data'].get('images')} images, source "
            f"{old['data'].get('source')}); choose another run_folder, or move it away."
        )
    source = str(index["source"].iat[0])
    new = {
        "format": FORMAT,
        "created": timestamp(),
        "versions": _versions(),
        "data": {"source": source, "images": len(index), "hash": data_hash},
        "profiles": [],
    }
    params = old or new
    if profile not in params["profiles"]:
        save_json(path / "params.json", params | {"profiles": [*params["profiles"], profile]})
    return Run(
        path=path, synthetic=source == SYNTHETIC, profile=profile, data_hash=data_hash, images=tuple(index["path"])
    )


def _find_again(paths: Iterable[str], images: Iterable[str]) -> list[str]:
    """Return for each path the one of `images` that ends in the same folders and name; without one, the path."""
    from allkit.data import relative_paths

    images = list(images)
    here = dict(zip(relative_paths(images), images, strict=True))

    def find(path: str) -> str:
        parts = path.replace("\\", "/").split("/")
        ends = ("/".join(parts[k:]) for k in range(len(parts)))
        return next((here[end] for end in ends if end in here), path)

    return [find(path) for path in paths]


def save_training(run: Run, training: Training, predictions: pd.DataFrame) -> None:
    """Save all that a training leaves: the model with its card, history, test predictions, metrics.

    Args:
        run: the run folder.
        training: from `allkit.train.train_model`.
        predictions: of the split's test part, from `allkit.models.predict_index`.

    In metrics.json the model's part holds every measure; `intervals`, measure -> value, low, high, resampled
    ("subjects" or "images"), units, level, with low and high null where they cannot be told; and how it was
    made: time of training in s, hashes of data and split, profile and what was changed in it.
    """
    from allkit.evaluate import evaluate_predictions, evaluate_with_intervals
    from allkit.models import save_model
    from allkit.train import changed_settings

    name, card = training.trained.card["model"], training.trained.card
    scores = evaluate_predictions(predictions)
    known = card | {"scores": {"images": len(predictions)} | scores}  # the upload cell says how the model did
    save_model(dataclasses.replace(training.trained, card=known), run.model_path(name))
    run.save_history(name, training.history)
    run.save_predictions(name, predictions)
    facts = {
        "training_seconds": training.seconds,
        "epochs": len(training.history),
        "trained": timestamp(),
        "data": card["data"]["source"],
        "data_hash": run.data_hash,
        "split": card["split"]["name"],
        "split_hash": card["split"]["hash"],
        "profile": card["profile"]["name"],
        "changed": changed_settings(card["profile"], name),
        "seed": card["seed"],
        "deterministic": card["deterministic"],
        "intervals": evaluate_with_intervals(predictions).assign(level=0.95).to_dict("index"),
    }
    run.save_metrics(name, scores | facts)
    params = read_params(run.path)
    models = params.get("models", {}) | {name: {key: card[key] for key in ("seed", "split", "profile")}}
    save_json(run.path / "params.json", params | {"models": models})


def load_or_train(
    run: Run, name: str, split: Split, profile: Profile, *, seed: int = 123
) -> tuple[TrainedModel, pd.DataFrame]:
    """Return the model `name` of a run folder and its test predictions; train it now if it is not there.

    A result that was made on another test part is of no use for a comparison, and is asked for anew.

    Raises:
        AllkitError: the folder holds a result on other test images.
    """
    from allkit.data import index_hash
    from allkit.models import load_model, predict_index
    from allkit.train import build_from_profile, train_model

    if not run.model_path(name).is_file():
        print(f"{name} is not in {run.path.name} yet: training it now with the profile {profile.name!r}.")
        model = build_from_profile(name, profile, split.train["label"].nunique(), seed=seed)
        training = train_model(model, split, profile, folder=run.checkpoint_folder(name), seed=seed)
        save_training(run, training, predict_index(training.trained, split.test))
    trained = load_model(run.model_path(name))
    if trained.card["split"]["hash"]["test"] != index_hash(split.test):
        raise AllkitError(
            f"{name} in {run.path} was tested on other images (split {trained.card['split']['name']!r}); give "
            "this notebook the same split, hold_out and seed, or choose another run_folder."
        )
    return trained, run.load_predictions(name)


def read_params(path: Path) -> dict[str, Any]:
    """Return params.json of the run folder `path`, empty when there is none.

    Raises AllkitError when it cannot be read or was written by another version of the layout.
    """
    file = path / "params.json"
    if not file.exists():
        return {}
    params = read_json(file)
    complete = isinstance(params.get("data"), dict) and "hash" in params["data"] and "profiles" in params
    if params.get("format") != FORMAT or not complete:
        raise AllkitError(
            f"the run folder {path} was made by another version of allkit (format {params.get('format')}, "
            f"this one writes {FORMAT}); choose another run_folder, or move it away."
        )
    return params


def is_run_folder(path: Path) -> bool:
    """Return whether `path` is a run folder (False: empty or absent); AllkitError for anything else."""
    if path.exists() and not path.is_dir():
        raise AllkitError(f"{path} is a file, not a run folder; choose another one.")
    if (path / "params.json").exists() or (path / "series.json").exists():
        return True
    if path.is_dir() and any(not p.name.startswith(".") for p in path.iterdir()):
        raise AllkitError(f"{path} holds files but is no run folder; choose an empty or a new folder.")
    return False


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
    files = ("params.json", "metrics.json", "series.json")
    return not path.name.startswith(".") and any(os.path.isfile(path / file) for file in files)


def list_runs(paths: Iterable[Path]) -> pd.DataFrame:
    """Return one row per model of each run folder, the newest first, from metrics.json (and params.json).

    A folder that cannot be read has one row, with the reason in `trouble`. None stands for what an older run
    did not record. Where `resampled` says what was resampled, and low and high are missing, the
    interval cannot be told: too few `units` (of the smaller class).

    Returns:
        run, path, model, time (UTC, ISO 8601), data, data_hash, split, split_hash, profile, changed (dict),
        seed, auc and balanced_accuracy (0–1) each with _low and _high, resampled, units, training_seconds,
        trouble (a sentence, or "").
    """
    import pandas as pd

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
    from allkit.train import changed_settings

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
    from allkit.models import TITLES

    row = {key: _text_at(facts, key) for key in ("data", "data_hash", "split", "profile")}
    row |= {"model": TITLES.get(name, name), "time": _text_at(facts, "trained"), "split_hash": split_hash(facts)}
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
    from allkit.models import TITLES

    for path in (first, second):
        if not _looks_like_run(path):
            raise AllkitError(f"{path} is no run folder; `allkit runs` lists those there are.")
    models = [_trained_models(path) for path in (first, second)]
    measures, notes = {}, {}
    for name in dict.fromkeys([*models[0], *models[1]]):
        title, facts = TITLES.get(name, name), [found.get(name) for found in models]
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
    from allkit.data import relative_paths
    from allkit.evaluate import compare_predictions, evaluate_predictions

    if relative_paths(first["path"]) == relative_paths(second["path"]):
        second = second.assign(path=first["path"])  # the same data, moved or on another machine
    table = compare_predictions(first, second).rename(columns={"value": "difference"})
    for position, (column, frame) in enumerate({"first": first, "second": second}.items()):
        table.insert(position, column, list(evaluate_predictions(frame).values()))
    return table


def _different_settings(first: Path, second: Path, models: list) -> pd.DataFrame:
    """Return the settings that are not the same in both runs, as text, "—" where one is not recorded."""
    import pandas as pd

    both = set(models[0]) & set(models[1])
    found = [_settings(path, {name: own[name] for name in own if name in both})
             for path, own in zip((first, second), models, strict=True)]  # fmt: skip
    keys = dict.fromkeys([*found[0], *found[1]])
    rows = [(*key, *(values.get(key, "—") for values in found)) for key in keys]
    table = pd.DataFrame(rows, columns=["model", "setting", "first", "second"])
    return table[table["first"] != table["second"]].reset_index(drop=True)


def _settings(path: Path, models: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return (model, setting) -> value of a run; ("whole run", setting) for what holds for all models."""
    from allkit.models import TITLES

    params = read_params(path)
    whole = {"data": value_at(params, "data"), "versions": value_at(params, "versions")}
    settings = {("whole run", key): value for key, value in _flat(whole).items()}
    for name, facts in models.items():
        shown = ("seed", "deterministic", "split", "split_hash")
        own = {key: facts.get(key) for key in shown} | {"profile": value_at(params, "models", name, "profile")}
        settings |= {(TITLES.get(name, name), key): value for key, value in _flat(own).items()}
    return settings


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    found = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        found |= _flat(value, f"{before}{key}.") if nested else {f"{before}{key}": "—" if value is None else str(value)}
    return found


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise AllkitError(f"{name!r} cannot be part of a file name; use letters, digits, '.', '_' and '-'.")
    return name


def _figure_of(drawn: Any) -> Any:
    """Return the Figure of a Figure, Axes, array of Axes or seaborn grid."""
    return drawn.flat[0].figure if hasattr(drawn, "flat") else drawn.figure


def _display_png(png: bytes, alt: str) -> None:
    """Put the image into the notebook's output; does nothing outside IPython."""
    from IPython import get_ipython
    from IPython.display import Image, display

    if get_ipython() is None:
        return
    bundle, metadata = Image(data=png, format="png", alt=alt)._repr_mimebundle_()
    # JupyterLab does not read the alternative text of an image; as the output's plain text it is at hand
    # for terminals, diffs and readers that do not draw images
    display({**bundle, "text/plain": alt}, raw=True, metadata=metadata)


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"allkit": __version__, "python": platform.python_version()}
    for package in ("keras", "tensorflow", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def timestamp() -> str:
    """Return the present time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
