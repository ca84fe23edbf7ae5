"""Run folders: where the results of one pass through the notebooks are saved and found again.

Every notebook begins with `open_lesson`. A notebook stepped through by hand and the command `allkit run` use the same
folders.
"""

from __future__ import annotations

import dataclasses
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from IPython import get_ipython
from IPython.display import Image, Markdown, display

from allkit import AllkitError, saving
from allkit.classify import build_limits
from allkit.data import class_order, describe_reading, index_hash, load_index, relative_paths, require_positive
from allkit.duplicates import file_sum
from allkit.evaluate import LEVEL, evaluate_predictions, evaluate_with_intervals, probabilities_of
from allkit.folders import (
    FORMAT,
    SYNTHETIC,
    data_path,
    is_run_folder,
    locked,
    make_data,
    read_json,
    read_params,
    run_path,
    save_json,
    timestamp,
    to_plain,
)
from allkit.layout import scan_source
from allkit.lists import as_text_cells, without_apostrophes
from allkit.models import TrainedModel, load_model, predict_index, save_model, title_of
from allkit.parameters import as_kind
from allkit.plots import description_of, figure_of, figure_png
from allkit.splits import Split, fitting_split, split_data
from allkit.train import Profile, Training, build_from_profile, changed_settings, get_profile, train_model


def load_data(data: str | Path) -> pd.DataFrame:
    """Return the index (see `allkit.data`) of a data set: "synthetic", or a path from here or the clone.

    The synthetic cells are drawn on first use. Raises AllkitError when there is nothing at the path, or when nobody can
    know which of two classes is the positive one.
    """
    index = load_index(data_path(data) or make_data(str(data)))
    require_positive(index)
    return index


def describe_data(data: str | Path, index: pd.DataFrame) -> str:
    """Return in two lines how a data set was read, see `allkit.data.describe_reading`."""
    return describe_reading(scan_source(data_path(data) or make_data(str(data))), index)


LOCK_SECONDS = 60
"""How long to wait until another process has written to the same run folder."""


@dataclass(frozen=True)
class Run:
    """An open run folder: where results are saved and found again. Made by `open_run`.

    Names (`name`) are those of models or figures: letters, digits, `.`, `_` and `-`.
    """

    path: Path
    synthetic: bool = False
    """True when the data are the synthetic twin; figures are then stamped "synthetic cells"."""
    data_hash: str = ""
    images: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    """Where the images of the data lie here and now: the folder may have been made on another machine."""

    @property
    def kind(self) -> str:
        """What the images are, in words for a sentence."""
        return "**synthetic** cells, drawn by a program" if self.synthetic else "genuine images"

    @property
    def stamp(self) -> str:
        """What stands below pictures of the run's cells: "synthetic cells", or nothing."""
        return "synthetic cells" if self.synthetic else ""

    def describe(self, index: pd.DataFrame, parts: Split | None = None) -> Markdown:
        """Return what the images are, and how they are divided, as a sentence or two for the notebook."""
        classes = ", ".join(class_order(index))
        text = f"{len(index):,} {self.kind}; classes: {classes}. Results go to the run folder `{self.path.name}`."
        if parts is not None:
            sizes = ", ".join(f"{len(part):,} for {name}" for name, part in parts.parts.items())
            text += f"\n\nDivided **by {parts.name}**: {sizes}. {parts.note}"
        return Markdown(text)

    def save_history(self, name: str, table: pd.DataFrame) -> None:
        """Save the table of a training, one row per epoch, as history-<name>.csv."""
        self._save_table(f"history-{_checked(name)}.csv", table)

    def save_predictions(self, name: str, frame: pd.DataFrame) -> None:
        """Save predictions (path, label, subject, probability in [0, 1] per class, one row per image)."""
        self._save_table(f"predictions-{_checked(name)}.csv", frame)

    def load_predictions(self, name: str) -> pd.DataFrame:
        """Return the predictions of the model `name`, about the images where they lie now.

        Raises AllkitError where there are none, or they are of another training than the model beside them.
        """
        file = self.path / f"predictions-{_checked(name)}.csv"
        expected = self._metadata_of(name).get("predictions_sha256")
        if file.is_file() and expected and file_sum(file) != expected:
            raise AllkitError(
                f"{self.path}: the results of {name} were not saved to the end; run the notebook that trains it again."
            )
        table = self._load_table(file.name)
        return table.assign(path=_find_again(table["path"], self.images)) if self.images else table

    def save_metrics(self, section: str, values: Mapping[str, Any]) -> None:
        """Merge `values` into the part `section` of metrics.json; other parts and keys stay."""
        with locked(self.path / "metrics.json", wait=LOCK_SECONDS):  # two notebooks may be running
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

    def is_whole(self, name: str) -> bool:
        """Whether the model `name`, its metadata and its predictions are there, and of one training."""
        model, table = self.model_path(name), self.path / f"predictions-{name}.csv"
        known = self._metadata_of(name)
        return bool(known) and all(
            file.is_file() and known.get(key) in (None, file_sum(file))
            for key, file in {"model_sha256": model, "predictions_sha256": table}.items()
        )

    def _metadata_of(self, name: str) -> dict[str, Any]:
        file = self.path / "models" / f"{_checked(name)}.json"
        return read_json(file) if file.is_file() else {}

    def checkpoint_folder(self, name: str) -> Path:
        """Return the folder for the checkpoints of the model `name`; it exists."""
        folder = self.path / "checkpoints" / _checked(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def show(self, figure: Any, name: str, alt: str = "", *, of_data: bool = True) -> None:
        """Save a figure as figures/<name>.png, show it in the notebook with its description, and close it.

        `figure` is a Figure, Axes, array of Axes or a seaborn grid. `alt` describes it for readers who cannot see it,
        where the figure does not do that itself (`allkit.plots.describe`). `of_data` is False for drawings and for
        other people's figures, which are not made from the run's cells and are never stamped.
        """
        alt = alt.strip() or description_of(figure)
        if not alt:
            raise AllkitError(f"figure {name!r} has no alternative text; describe it in `alt`.")
        figure = figure_of(figure)
        if self.synthetic and of_data:
            figure.draw_without_rendering()  # the layout moves things; the stamp goes below all of them
            bottom = figure.get_tightbbox().y0 / figure.get_figheight() - 0.01
            figure.text(0.995, bottom, "synthetic cells", ha="right", va="top", fontsize=8, color="0.35")
        png = figure_png(figure, alt=alt)
        with saving(self.path / "figures" / f"{_checked(name)}.png") as temporary:
            temporary.write_bytes(png)
        _display_png(png, alt)

    def _save_table(self, file: str, table: pd.DataFrame) -> None:
        with saving(self.path / file) as temporary:
            as_text_cells(table).to_csv(temporary, index=False)

    def _load_table(self, file: str) -> pd.DataFrame:
        if not (self.path / file).exists():
            raise self._missing(file)
        text = dict.fromkeys(("path", "label", "subject", "group", "part", "name", "predicted"), str)
        # a class may be called "NA" and a subject "007": only empty cells are missing, text stays text
        options = {"dtype": text, "keep_default_na": False, "na_values": [""], "float_precision": "round_trip"}
        try:
            return without_apostrophes(pd.read_csv(self.path / file, **options))
        except (OSError, ValueError) as error:
            raise AllkitError(f"{self.path / file} cannot be read ({error}); train the model again.") from error

    def _missing(self, file: str) -> AllkitError:
        models = sorted(p.stem.removeprefix("predictions-") for p in self.path.glob("predictions-*.csv"))
        there = ", ".join(models) or "none"
        return AllkitError(
            f"{file} is not in the run folder {self.path} (models with results there: {there}); "
            "run the notebook that trains this model first, or choose another run_folder."
        )


def open_lesson(
    data: str | Path,
    profile: str,
    run_folder: str | Path,
    *,
    models: str | Sequence[str] = (),
    split: str | None = None,
    hold_out: str = "",
    fold: int | None = None,
    seed: int = 123,
    **changes: Any,
) -> tuple[Run, pd.DataFrame, Split | None, Profile | dict[str, Profile] | None]:
    """Begin a notebook: return the run folder, all images, their split, and the settings of its networks.

    The settings are a Profile for the name of one model, name -> Profile for several; without a model there are
    neither settings nor a split. `split` and `changes` are fields of a Profile, where None changes nothing; `alpha` is
    for MobileNet only. Data that come with a division of their own are divided so unless `split` says otherwise.
    """
    seed, fold, hold_out = (
        as_kind("seed", seed, int),
        as_kind("fold", fold, int | None),
        as_kind("hold_out", hold_out, str),
    )
    index = load_data(data)
    run = open_run(run_folder, index=index, profile=profile)
    if not models:
        return run, index, None, None
    settings = {}
    for name in [models] if isinstance(models, str) else models:
        its_own = {"alpha": changes.get("alpha") if name == "mobilenet" else None}
        settings[name] = get_profile(profile, name, index, split=split, **changes | its_own)
        its_split = fitting_split(split, settings[name].split, index)
        settings[name] = dataclasses.replace(settings[name], split=its_split)
    how = next(iter(settings.values())).split
    parts = split_data(index, how, seed=seed, hold_out=hold_out, fold=fold)
    return run, index, parts, settings[models] if isinstance(models, str) else settings


def open_run(run_folder: str | Path, *, index: pd.DataFrame, profile: str) -> Run:
    """Create a run folder, or open it again, for the data in `index` and the name of a profile.

    Raises AllkitError when the folder holds something else, is of another version, or is of other data.
    Nothing is deleted in either case.
    """
    path, data_hash = run_path(run_folder), index_hash(index)
    is_run_folder(path)
    with locked(path / "params.json", wait=LOCK_SECONDS):
        _note_profile(path, index, data_hash, profile)
    return Run(path, str(index["source"].iat[0]) == SYNTHETIC, data_hash, tuple(index["path"]))


def _note_profile(path: Path, index: pd.DataFrame, data_hash: str, profile: str) -> None:
    """Write data, versions and the name of the profile to params.json, unless they are there."""
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
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("allkit", "keras", "tensorflow", "numpy")},
        "data": {"source": source, "images": len(index), "hash": data_hash},
        "profiles": [],
    }
    params = old or new
    if profile not in params["profiles"]:
        save_json(path / "params.json", params | {"profiles": [*params["profiles"], profile]})


def _find_again(paths: Iterable[str], images: Iterable[str]) -> list[str]:
    """Return for each path the one of `images` that ends in the same folders and name; without one, the path."""
    images = list(images)
    here = dict(zip(relative_paths(images), images, strict=True))

    def find(path: str) -> str:
        parts = path.replace("\\", "/").split("/")
        ends = ("/".join(parts[k:]) for k in range(len(parts)))
        return next((here[end] for end in ends if end in here), path)

    return [find(path) for path in paths]


def save_training(run: Run, training: Training, predictions: pd.DataFrame, validation: pd.DataFrame) -> None:
    """Save all that a training leaves: the model with its metadata, history, test predictions, metrics.

    `predictions` are those of the split's test part; `validation` is its validation part, from which the limits of
    the upload cell are computed. In metrics.json the model's part holds every measure; `intervals`, measure -> value,
    low, high, resampled ("subjects" or "images"), units, level, with low and high null where they are inconclusive;
    and how it was made: time of training in s, hashes of data and split, profile and what was changed in it.
    """
    name, metadata = training.trained.metadata["model"], training.trained.metadata
    scores = evaluate_predictions(predictions)
    answers = probabilities_of(predict_index(training.trained, validation))
    limits = build_limits(training.trained, validation, answers)
    run.save_history(name, training.history)
    run.save_predictions(name, predictions)
    facts = {
        "training_seconds": training.seconds,
        "epochs": len(training.history),
        "trained": timestamp(),
        "data": metadata["data"]["source"],
        "data_hash": run.data_hash,
        "split": metadata["split"]["name"],
        "split_hash": metadata["split"]["hash"],
        "profile": metadata["profile"]["name"],
        "changed": changed_settings(metadata["profile"], name),
        "seed": metadata["seed"],
        "deterministic": metadata["deterministic"],
        "intervals": evaluate_with_intervals(predictions).assign(level=LEVEL).to_dict("index"),
    }
    run.save_metrics(name, scores | facts)
    with locked(run.path / "params.json", wait=LOCK_SECONDS):
        params = read_params(run.path)
        models = params.get("models", {}) | {name: {key: metadata[key] for key in ("seed", "split", "profile")}}
        save_json(run.path / "params.json", params | {"models": models})
    # the upload cell says how the model did, and when it says nothing. The model comes last: it says of which
    # predictions it is, so that what was interrupted is found out
    known = metadata | {"limits": limits, "scores": {"images": len(predictions)} | scores}
    known["predictions_sha256"] = file_sum(run.path / f"predictions-{name}.csv")
    save_model(dataclasses.replace(training.trained, metadata=known), run.model_path(name))


def load_or_train(
    run: Run, name: str, split: Split, profile: Profile, *, seed: int = 123
) -> tuple[TrainedModel, pd.DataFrame]:
    """Return the model `name` of a run folder and its test predictions; train it now if they are not there as a whole.

    Raises AllkitError when the folder holds a result on other test images: it is of no use for a comparison.
    """
    if not run.is_whole(name):
        there = "was not saved to the end in" if run.model_path(name).is_file() else "is not yet in"
        print(f"{name} {there} {run.path.name}: training it now with the profile {profile.name!r}.")
        model = build_from_profile(name, profile, split.train["label"].nunique(), seed=seed)
        training = train_model(model, split, profile, folder=run.checkpoint_folder(name), seed=seed)
        save_training(run, training, predict_index(training.trained, split.test), split.validation)
    trained = load_model(run.model_path(name))
    if trained.metadata["split"]["hash"]["test"] != index_hash(split.test):
        raise AllkitError(
            f"{name} in {run.path} was tested on other images (split {trained.metadata['split']['name']!r}); give "
            "this notebook the same split, hold_out and seed, or choose another run_folder."
        )
    return trained, run.load_predictions(name)


def load_or_train_models(
    run: Run, split: Split, profiles: Mapping[str, Profile], *, seed: int = 123
) -> tuple[dict[str, TrainedModel], dict[str, pd.DataFrame]]:
    """Return `load_or_train` of several models: title -> model, and title -> test predictions of the split's files."""
    trained, predictions = {}, {}
    for name, profile in profiles.items():
        found, table = load_or_train(run, name, split, profile, seed=seed)
        trained[title_of(name)] = found
        predictions[title_of(name)] = table.assign(path=split.test["path"].to_numpy())  # the data may have moved
    return trained, predictions


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise AllkitError(f"{name!r} cannot be part of a file name; use letters, digits, '.', '_' and '-'.")
    return name


def _display_png(png: bytes, alt: str) -> None:
    """Put the image into the notebook's output; does nothing outside IPython."""
    if get_ipython() is None:
        return
    width = int.from_bytes(png[16:20], "big") // 2  # twice as fine as it is shown
    bundle, metadata = Image(data=png, format="png", alt=alt, width=width)._repr_mimebundle_()
    # JupyterLab does not read the alternative text of an image; as the output's plain text it is at hand
    # for terminals, diffs and readers that do not draw images
    display({**bundle, "text/plain": alt}, raw=True, metadata=metadata)
