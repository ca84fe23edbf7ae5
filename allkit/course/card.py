"""The model card of a run: what its models are for, what they learned from, how they did, where they end.

Everything is read from the run folder; the images are not needed. Each section is made once, and rendered as
HTML and as Markdown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from allkit import AllkitError, saving
from allkit.classify import abstain_band, threshold_of
from allkit.course.ledger import value_at
from allkit.course.report import render_page
from allkit.data import official_fold
from allkit.evaluate import (
    FEWEST_UNITS,
    classes_of,
    evaluate_calibration,
    evaluate_subjects,
    evaluate_with_intervals,
    wilson_interval,
)
from allkit.models import BACKBONES, TrainedModel
from allkit.runs import SYNTHETIC, Run, is_run_folder, read_json, read_params, run_path
from allkit.train import changed_settings

UNKNOWN = "inconclusive"


NOT_RECORDED = "—"


_MEASURES = {
    "accuracy": "accuracy, share right",
    "balanced_accuracy": "balanced accuracy, mean recall",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "auc": "AUC",
    "sensitivity": "sensitivity, recall of {first}",
    "specificity": "specificity, recall of {last}",
}


_SOURCES = {
    SYNTHETIC: "the synthetic twin of C-NMC 2019: cells drawn by a program",
    "cnmc": "C-NMC 2019, genuine images",
}


_QUALITY = {
    "area": "area of the cell (px)",
    "bbox_side": "larger side of the cell (px)",
    "eccentricity": "eccentricity (0–1)",
    "solidity": "solidity (0–1)",
    "centroid_distance": "distance from the centre (px)",
    "mean_r": "mean of red (0–255)",
    "mean_g": "mean of green (0–255)",
    "mean_b": "mean of blue (0–255)",
    "std_r": "spread of red (grey levels)",
    "std_g": "spread of green (grey levels)",
    "std_b": "spread of blue (grey levels)",
    "texture": "texture (grey levels)",
    "corr_4": "correlation 4 px away",
    "corr_12": "correlation 12 px away",
    "background_share": "share of background",
    "second_share": "second object / largest",
    "border_share": "share of border not black",
    "clipped_share": "share over-exposed",
    "sharpness": "sharpness (log variance)",
}


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the rows."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Section:
    """A heading (level 2 or 3) and what is below it: paragraphs (str), lists (list of str), tables."""

    title: str
    level: int
    blocks: list[str | list[str] | Table]


@dataclass(frozen=True)
class _Model:
    """What a run folder holds about one model.

    `found` are the measures of its predictions, with intervals. Both are None, and `trouble` says why, where there
    are none.
    """

    facts: Mapping[str, Any]
    metrics: Mapping[str, Any]
    predictions: pd.DataFrame | None
    found: pd.DataFrame | None
    trouble: str

    @property
    def title(self) -> str:
        return str(self.facts.get("title", self.facts.get("model", "Model")))

    @property
    def synthetic(self) -> bool:
        return value_at(self.facts, "data", "source") == SYNTHETIC

    @property
    def has_subjects(self) -> bool:
        return self.predictions is not None and bool(self.predictions["subject"].notna().all())


def write_card(run: str | Path, out: Path | None = None) -> tuple[Path, Path]:
    """Write card.html and card.md of a run, into `out` or the run folder itself; return both paths.

    Raises:
        AllkitError: there is no run folder or no model in it, or one of its files cannot be read.
    """
    path = run_path(run)
    if not is_run_folder(path):
        raise AllkitError(f"{path} is no run folder; `allkit runs` lists those there are.")
    title, sections = f"Model card of the run “{path.name}”", build_card(path)
    folder = path if out is None else Path(out)
    for file in ("card.html", "card.md"):
        with saving(folder / file) as temporary:
            temporary.write_text(render_page(f"{file}.j2", title=title, sections=sections), encoding="utf-8")
    return folder / "card.html", folder / "card.md"


def build_card(path: Path) -> list[Section]:
    """Return the sections of a run's model card, in the order in which they are read; see `write_card`."""
    models = _read_models(path)
    sections = [_intended_use(models), _data(read_params(path), models)]
    for model in models:
        try:
            sections += _model_sections(model)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise AllkitError(
                f"the facts about {model.title} in {path / 'models'} are not those of this version of allkit "
                f"({error}); train the model again."
            ) from error
    return sections


def _model_sections(model: _Model) -> list[Section]:
    if model.predictions is None:
        parts, blocks = (_split, _limits, _compute), [f"No metrics: {model.trouble}"]
    else:
        parts, blocks = (_split, _metrics, _groups, _calibration, _limits, _compute), []
    return [Section(model.title, 2, blocks), *(part(model) for part in parts)]


# --------------------------------------------------------------------------------------------- reading


def _read_models(path: Path) -> list[_Model]:
    names = sorted(file.stem for file in (path / "models").glob("*.json") if not file.name.startswith("."))
    order = list(BACKBONES)  # the paper's
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    if not names:
        raise AllkitError(f"{path} holds no model; train one first (allkit run --only 03), or name another run.")
    run = Run(path, synthetic=False, profile="", data_hash="")
    metrics, models = run.load_metrics(), []
    for name in names:
        facts, own = read_json(path / "models" / f"{name}.json"), metrics.get(name)
        try:
            predictions = _checked_predictions(run, name)
            known = (predictions, evaluate_with_intervals(predictions), "")
        except AllkitError as error:
            known = (None, None, str(error))
        models.append(_Model(facts, own if isinstance(own, Mapping) else {}, *known))
    return models


def _checked_predictions(run: Run, name: str) -> pd.DataFrame:
    table = run.load_predictions(name)
    classes = classes_of(table)
    probabilities = [table[f"p_{name}"] for name in classes]
    numbers = all(column.dtype.kind in "fi" and column.notna().all() for column in probabilities)
    complete = {"path", "label", "subject", "group"} <= set(table) and len(table) and len(classes) > 1 and numbers
    if not complete or not table["label"].isin(classes).all():
        raise AllkitError(f"predictions-{name}.csv is not complete; train the model again.")
    return table


# ------------------------------------------------------------------------------------ the whole run


def _intended_use(models: list[_Model]) -> Section:
    use = [
        "For teaching, and for research on how such classifiers are trained, tested and misjudged.",
        "Not a diagnosis, and not a part of one. No decision about a person may rest on it.",
    ]
    if any(model.synthetic for model in models):
        use.append("All cells are synthetic: drawn by a program. The figures say nothing about real cells.")
    else:
        use.append("It learned from genuine images of the data set named below, and is not known to work on others.")
    return Section("Intended use", 2, [use])


def _data(params: Mapping[str, Any], models: list[_Model]) -> Section:
    source = value_at(params, "data", "source") or value_at(models[0].facts, "data", "source")
    rows = {
        "source": _SOURCES.get(source, f"images given by the user ({_text(source)})"),
        "images in the data set": _text(value_at(params, "data", "images")),
        "hash": _text(value_at(params, "data", "hash")),
        "run folder made": f"{_text(params.get('created'))[:16].replace('T', ' ')} (UTC)",
    }
    note = (
        "The hash stands for the names, classes, subjects, folds and file sizes of all images, those without a class "
        "too, wherever their folder lies."
    )
    return Section("Data", 2, [_facts("The data set", rows), note])


# -------------------------------------------------------------------------------------- one model each


def _split(model: _Model) -> Section:
    split = value_at(model.facts, "split")
    classes = [str(name) for name in model.facts.get("classes", [])]
    rows = []
    for part in ("train", "validation", "test"):
        counts = [value_at(split, "images", part), *(value_at(split, "classes", part, name) for name in classes)]
        counts.append(value_at(split, "subjects", part))
        if part == "test" and model.predictions is not None:
            counts = [len(model.predictions), *_per_class(model).values(), _count_subjects(model)]
        rows.append([part, *map(_text, counts), _text(value_at(split, "hash", part))])
    columns = ["part", "images", *classes, "subjects", "hash"]
    caption = f"Images and subjects in each part (split: {_text(value_at(split, 'name'))})"
    blocks = [_text(value_at(split, "note")), Table(caption, columns, rows)]
    if any(NOT_RECORDED in row for row in rows):
        blocks.append(f"{NOT_RECORDED} stands for what is unknown, or was not recorded when the model was trained.")
    return Section("Split", 3, blocks)


def _per_class(model: _Model) -> dict[str, int]:
    """Return class -> number of test images."""
    return {name: int((model.predictions["label"] == name).sum()) for name in classes_of(model.predictions)}


def _count_subjects(model: _Model) -> int | None:
    return int(model.predictions["subject"].nunique()) if model.has_subjects else None


def _metrics(model: _Model) -> Section:
    first, *_, last = _per_class(model)
    rows = [
        [words.format(first=first, last=last), _with_interval(model.found.loc[name])]
        for name, words in _MEASURES.items()
        if name in model.found.index
    ]
    kind = "synthetic test images" if model.synthetic else "test images"
    text = f"On {len(model.predictions):,} {kind}. The most probable class counts as the answer; none is declined."
    return Section(
        "Metrics", 3, [text, Table("Metrics of the test part", ["measure", "value"], rows), _over(model.found)]
    )


def _over(found: pd.DataFrame) -> str:
    """Return what was resampled, in a sentence."""
    row = found.iloc[0]
    text = (
        f"In brackets: 95 % percentile bootstrap interval. Resampled: {row['resampled']}, within each class; the "
        f"class with the fewest has {row['units']}."
    )
    if row["resampled"] == "images":
        text += " The subjects are unknown. Images of one person resemble each other, so the intervals are too narrow."
    return text


def _groups(model: _Model) -> Section:
    blocks: list = [_by_class(model)]
    if model.has_subjects:
        blocks += _by_subject(model)
    else:
        blocks.append("By subject: the subjects of the test images are unknown, so the verdict is inconclusive.")
    return Section("Metrics by group", 3, [*blocks, *_by_fold(model)])


def _by_class(model: _Model) -> Table:
    rows = []
    for name, images in _per_class(model).items():
        shown = [f"{measure}_{name}" for measure in ("precision", "recall", "f1")]
        # without an image of the class, its recall would be zero by convention only
        rows.append([name, str(images), *(_with_interval(model.found.loc[m]) if images else UNKNOWN for m in shown)])
    return Table("By class; intervals as above", ["class", "images", "precision", "recall", "F1"], rows)


def _by_subject(model: _Model) -> Iterator[str | Table]:
    rows = []
    for subject, row in evaluate_subjects(model.predictions).iterrows():
        right = round(row["right"] * row["images"])
        low, high = wilson_interval(right, int(row["images"]))
        share = _with_interval({"value": row["right"], "low": low, "high": high}) if low == low else UNKNOWN
        rows.append([str(subject), row["label"], str(row["images"]), str(right), share])
    yield Table("By subject, the worst first", ["subject", "class", "images", "right", "share right"], rows)
    yield (
        "In brackets: 95 % Wilson score interval over the images of that subject, as if they were drawn singly. "
        "Nothing is resampled, and it says nothing about other people. With fewer than "
        f"{FEWEST_UNITS} images the share is inconclusive."
    )


def _by_fold(model: _Model) -> Iterator[str | Table]:
    """Yield a table by official fold of C-NMC, where the paths name one for each image."""
    folds = pd.Series([official_fold(path) for path in model.predictions["path"]], model.predictions.index)
    if value_at(model.facts, "data", "source") not in _SOURCES or folds.isna().any():
        return
    rows = []
    for fold, part in model.predictions.groupby(folds.astype(int)):
        found = evaluate_with_intervals(part)
        shown = [_with_interval(found.loc[name]) for name in ("balanced_accuracy", "auc")]
        # mean recall of a single class is not balanced accuracy
        shown = shown if part["label"].nunique() == len(model.facts.get("classes", [])) else [UNKNOWN] * 2
        rows.append([f"fold {fold}", str(len(part)), str(found["units"].iat[0]), *shown])
    units = f"{found['resampled'].iat[0]} of the smaller class"
    columns = ["official fold", "images", units, "balanced accuracy", "AUC"]
    yield Table("By official fold of C-NMC; intervals resampled as above, within the fold", columns, rows)


def _calibration(model: _Model) -> Section:
    classes, rows = classes_of(model.predictions), []
    for name, row in evaluate_calibration(model.predictions).iterrows():
        seen = _number(row["observed"]) if row["images"] >= FEWEST_UNITS else UNKNOWN
        rows.append([str(name), str(int(row["images"])), _number(row["predicted"]), seen])
    two = len(classes) == 2
    what = f"the probability of {classes[0]}" if two else "the probability of the most probable class"
    seen = f"share that is {classes[0]}" if two else "share that is right"
    table = Table(f"Steps of {what}", ["step", "images", "mean probability", seen], rows)
    names = {"brier": "Brier score", "calibration_error": "expected calibration error"}
    scores = [[words, _with_interval(model.found.loc[name])] for name, words in names.items()]
    text = (
        "If the probabilities can be taken at their word, the last two columns agree. In steps with fewer than "
        f"{FEWEST_UNITS} images the share is inconclusive."
    )
    return Section(
        "Calibration", 3, [Table("Errors, 0 is best; intervals as above", ["measure", "value"], scores), text, table]
    )


def _limits(model: _Model) -> Section:
    limits = model.facts.get("limits")
    points = [_reach(model), *_declines(model)]
    if model.synthetic:
        points.insert(0, "Synthetic cells only: on real cells nothing is known.")
    blocks: list = [points]
    quality = value_at(limits, "quality")
    if isinstance(quality, Mapping):
        rows = [[_QUALITY.get(name, str(name)), *map(_short, ends)] for name, ends in quality.items()]
        caption = (
            f"Images outside of these ranges are declined; read off {_text(limits.get('images'))} validation images, "
            "with a margin"
        )
        blocks.append(Table(caption, ["measure", "from", "to"], rows))
    return Section("Limits", 3, blocks)


def _reach(model: _Model) -> str:
    """Return whom the scores are about."""
    shares = value_at(model.facts, "split", "shares_subjects")
    if shares is None:
        return "Whether the test part shares people with the training part is not recorded."
    if shares:
        return "The test part shares, or may share, people with the training part: the scores are too good for others."
    return (
        "The scores are about people of this data set that were not trained on. Other laboratories, stains, "
        "microscopes and cameras were not tested."
    )


def _declines(model: _Model) -> Iterator[str]:
    """Yield when the kit gives no answer, from the limits in the metadata."""
    trained = TrainedModel(None, dict(model.facts))
    if not isinstance(model.facts.get("limits"), Mapping):
        yield "The metadata holds no limits: whatever the image, the model answers."
        return
    if len(trained.classes) == 2:
        first, threshold = trained.classes[0], threshold_of(trained)
        yield f"When it classifies single images, it answers {first} from a probability of {threshold:.3f} on."
        if band := abstain_band(trained, threshold):
            yield f"It declines where the probability of {first} lies between {band[0]:.3f} and {band[1]:.3f}."
    elif (least := value_at(model.facts, "limits", "abstain")) is not None:
        yield f"When it classifies single images, it declines where no class has a probability of {least:.3f}."
    yield "It also declines images with nothing on them, and those unlike the validation images, as far as it can see."


def _compute(model: _Model) -> Section:
    facts, profile = model.facts, value_at(model.facts, "profile")
    profile = profile if isinstance(profile, Mapping) else {}
    changed = changed_settings(dict(profile), str(facts.get("model")))
    seconds, size = facts.get("training_seconds"), value_at(facts, "input", "image_size")
    count = facts.get("parameters")
    rows = {
        "parameters": f"{count:,}" if isinstance(count, int) else NOT_RECORDED,
        "input": f"{size} × {size} px, {_text(value_at(facts, 'input', 'values'))}",
        "profile": _text(profile.get("name")),
        "changed in it": ", ".join(f"{key} = {value}" for key, value in changed.items()) or "nothing",
        "initial weights": "random" if profile.get("weights", "") is None else _text(profile.get("weights")),
        "epochs": f"{_text(model.metrics.get('epochs'))}, the best is number {_text(facts.get('best_epoch'))}",
        "batch size, learning rate": f"{_text(profile.get('batch_size'))}, {_text(profile.get('learning_rate'))}",
        "time of training": f"{seconds:,.0f} s" if isinstance(seconds, int | float) else NOT_RECORDED,
        "hardware": _hardware(value_at(facts, "hardware")),
        "versions": ", ".join(f"{name} {number}" for name, number in (value_at(facts, "versions") or {}).items()),
        "seed": _text(facts.get("seed")),
        "deterministic=True": _text(facts.get("deterministic")),
    }
    return Section("Compute", 3, [_facts("How it was trained", rows)])


def _hardware(found: Mapping[str, Any] | None) -> str:
    if not isinstance(found, Mapping):
        return NOT_RECORDED
    gpus = ", ".join(map(str, found.get("gpus") or [])) or "no GPU"
    return f"{_text(found.get('processor'))}, {_text(found.get('cores'))} cores, {gpus}, {_text(found.get('system'))}"


# ------------------------------------------------------------------------------------------------ text


def _facts(caption: str, rows: Mapping[str, str]) -> Table:
    return Table(caption, ["what", "value"], [[key, value] for key, value in rows.items()])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NOT_RECORDED if value is None else str(value)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _number(value: float) -> str:
    return f"{value:.3f}" if value == value else UNKNOWN


def _with_interval(row: Mapping[str, Any], value: str = "value") -> str:
    """Return "0.841 (0.702 to 0.932)", and say so where value or interval inconclusive (NaN)."""
    if row[value] != row[value]:
        return UNKNOWN
    ends = "interval inconclusive" if row["low"] != row["low"] else f"{row['low']:.3f} to {row['high']:.3f}"
    return f"{row[value]:.3f} ({ends})"
