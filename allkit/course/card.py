"""The model card of a run, from its folder alone: Markdown with a YAML head, and the same as a page.

The words stand in templates/card.md.j2; what is computed here are the tables that it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from bs4 import BeautifulSoup
from markupsafe import Markup

from allkit import AllkitError, saving
from allkit.classify import abstain_band, threshold_of
from allkit.cnmc import official_fold
from allkit.course.ledger import trained_models
from allkit.course.offline import TEMPLATES, escape_markdown, render_markdown
from allkit.evaluate import (
    FEWEST_UNITS,
    classes_of,
    evaluate_calibration,
    evaluate_subjects,
    evaluate_with_intervals,
    wilson_interval,
)
from allkit.folders import SYNTHETIC, is_run_folder, read_json, read_params, run_path
from allkit.models import TrainedModel
from allkit.runs import Run

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

SOURCES = {
    SYNTHETIC: "the synthetic twin of C-NMC 2019: cells drawn by a program",
    "cnmc": "C-NMC 2019, genuine images",
}

QUALITY = {
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


def write_card(run: str | Path, out: Path | None = None) -> tuple[Path, Path]:
    """Write card.html and card.md of a run, into `out` or the run folder itself; return both paths.

    Raises AllkitError when there is no run folder or no model in it, or one of its files cannot be read.
    """
    path = run_path(run)
    if not is_run_folder(path):
        raise AllkitError(f"{path} is no run folder; `allkit runs` lists those there are.")
    title, folder = f"Model card of the run “{path.name}”", path if out is None else Path(out)
    try:
        text = TEMPLATES.get_template("card.md.j2").render(title=title, fewest=FEWEST_UNITS, **_facts(path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AllkitError(
            f"{path} is not complete, or not of this version of allkit ({error!r}); train again."
        ) from error
    body = Markup(_as_html(text.split("\n---\n", 1)[1]))
    pages = {"card.html": TEMPLATES.get_template("page.html.j2").render(title=title, body=body), "card.md": text}
    for name, content in pages.items():
        with saving(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return folder / "card.html", folder / "card.md"


def markdown_table(table: pd.DataFrame, caption: str) -> str:
    """Return a table of text as Markdown, its caption in bold before it."""
    lines = [table.columns, *table.itertuples(index=False)]
    rows = [f"| {' | '.join(map(escape_markdown, line))} |" for line in lines]
    return "\n".join([f"**{escape_markdown(caption)}**", "", rows[0], "|" + " --- |" * len(table.columns), *rows[1:]])


TEMPLATES.filters |= {"table": markdown_table, "markdown": escape_markdown}


def _as_html(markdown: str) -> str:
    """Return the card's Markdown as HTML whose tables say what is a caption and what is a heading."""
    page = BeautifulSoup(render_markdown(markdown, exclude_anchor_links=True), "html.parser")
    for table in page.find_all("table"):
        caption = table.find_previous_sibling("p")
        label = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": caption.text}
        table.wrap(page.new_tag("div", attrs=label))
        caption.name = "caption"
        table.insert(0, caption)
        for cell in table.thead.find_all("th"):
            cell["scope"] = "col"
        for row in table.tbody.find_all("tr"):
            row.td["scope"] = "row"
            row.td.name = "th"
    return str(page)


def _facts(path: Path) -> dict[str, Any]:
    """Return what the template shows of a run."""
    params, run = read_params(path), Run(path)
    models = [
        _model(read_json(path / "models" / f"{name}.json"), metrics, run.load_predictions(name))
        for name, metrics in trained_models(path).items()
    ]
    if not models:
        raise AllkitError(f"{path} holds no model; train one first (allkit run --only 03), or name another run.")
    source = params["data"]["source"]
    data = {
        "source": SOURCES.get(source, f"images given by the user ({source})"),
        "images in the data set": params["data"]["images"],
        "hash": params["data"]["hash"],
        "run folder made": f"{params['created'][:16].replace('T', ' ')} (UTC)",
    }
    synthetic = source == SYNTHETIC
    tags = ["leukemia", "not-a-diagnosis", *(["synthetic"] if synthetic else [])]
    return {"synthetic": synthetic, "data": _listed(data), "tags": tags, "datasets": [source], "models": models}


def _model(facts: Mapping[str, Any], metrics: Mapping[str, Any], predictions: pd.DataFrame) -> dict[str, Any]:
    """Return what the template shows of one model: sentences and tables of text."""
    found, split, limits = evaluate_with_intervals(predictions), facts["split"], facts["limits"]
    errors = {"brier": "Brier score", "calibration_error": "expected calibration error"}
    scores = {name: round(float(found.loc[name, "value"]), 4) for name in ("auc", "balanced_accuracy")}
    return {
        "head": {"name": facts["title"], "split": split["name"], "profile": metrics["profile"], "metrics": scores},
        "images": f"{len(predictions):,}",
        "resampled": found["resampled"].iat[0],
        "units": found["units"].iat[0],
        "split_note": split["note"],
        "shares_subjects": split["shares_subjects"],
        "split": _split(split, facts["classes"]),
        "metrics": describe_measures(found, name_measures(classes_of(predictions))),
        "by_class": _by_class(predictions, found),
        "by_subject": _by_subject(predictions) if predictions["subject"].notna().all() else None,
        "by_fold": _by_fold(predictions) if facts["data"]["source"] in SOURCES else None,
        "errors": describe_measures(found, errors),
        "calibration": _calibration(predictions),
        "rejects": _rejects(TrainedModel(None, dict(facts))),
        "quality": _quality(limits["quality"]),
        "quality_caption": "Images outside of these ranges are rejected; read off "
        f"{limits['images']} validation images, with a margin",
        "compute": _compute(facts, metrics),
    }


def _split(split: Mapping[str, Any], classes: Iterable[str]) -> pd.DataFrame:
    parts = ("train", "validation", "test")
    counts = {name: [split["classes"][part][name] for part in parts] for name in classes}
    images, subjects, hashes = ([split[key][part] for part in parts] for key in ("images", "subjects", "hash"))
    return pd.DataFrame({"part": parts, "images": images, **counts, "subjects": subjects, "hash": hashes})


def name_measures(classes: Sequence[str]) -> dict[str, str]:
    """Return the main measures and what they are called."""
    return {key: words.format(classes[0] if key == "sensitivity" else classes[-1]) for key, words in MEASURES.items()}


def describe_measures(found: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Return a table of text, measure and value with interval, from one of `evaluate_with_intervals`."""
    rows = [(words, with_interval(**found.loc[name])) for name, words in names.items() if name in found.index]
    return pd.DataFrame(rows, columns=["measure", "value"])


def _by_class(predictions: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for name in classes_of(predictions):
        images = int((predictions["label"] == name).sum())
        measures = [with_interval(**found.loc[f"{measure}_{name}"]) for measure in ("precision", "recall", "f1")]
        # without an image of the class, its recall would be zero by convention only
        rows.append([name, images, *(measures if images else [UNKNOWN] * 3)])
    return pd.DataFrame(rows, columns=["class", "images", "precision", "recall", "F1"])


def _by_subject(predictions: pd.DataFrame) -> pd.DataFrame:
    table = evaluate_subjects(predictions).reset_index()
    right = (table["right"] * table["images"]).round().astype(int)
    ends = [wilson_interval(k, n) for k, n in zip(right, table["images"], strict=True)]
    known = table["images"] >= FEWEST_UNITS
    shares = [with_interval(k, *e) if ok else UNKNOWN for k, e, ok in zip(table["right"], ends, known, strict=True)]
    columns = {"subject": table["subject"], "class": table["label"], "images": table["images"], "right": right}
    return pd.DataFrame({**columns, "share right": shares})


def _by_fold(predictions: pd.DataFrame) -> pd.DataFrame | None:
    """Return a table by official fold of C-NMC, or None where a path names none."""
    folds = pd.Series([official_fold(path) for path in predictions["path"]], predictions.index)
    if folds.isna().any():
        return None
    rows = []
    for fold, part in predictions.groupby(folds.astype(int)):
        found, whole = evaluate_with_intervals(part), set(part["label"]) == set(classes_of(predictions))
        measures = [with_interval(**found.loc[name]) for name in ("balanced_accuracy", "auc")]
        # mean recall of a single class is not balanced accuracy
        rows.append([f"fold {fold}", len(part), found["units"].iat[0], *(measures if whole else [UNKNOWN] * 2)])
    units = f"{found['resampled'].iat[0]} of the smaller class"
    return pd.DataFrame(rows, columns=["official fold", "images", units, "balanced accuracy", "AUC"])


def _calibration(predictions: pd.DataFrame) -> pd.DataFrame:
    classes, table = classes_of(predictions), evaluate_calibration(predictions)
    two = len(classes) == 2
    observed = table["observed"].map("{:.3f}".format).where(table["images"] >= FEWEST_UNITS, UNKNOWN)
    columns = {f"probability of {classes[0] if two else 'the most probable class'}": table.index}
    columns |= {"images": table["images"], "mean probability": table["predicted"].map("{:.3f}".format)}
    return pd.DataFrame({**columns, f"share that is {classes[0] if two else 'right'}": observed})


def _rejects(trained: TrainedModel) -> str:
    if len(trained.classes) != 2:
        least = trained.metadata["limits"]["abstain"]
        return f"When it classifies single images, it rejects those where no class has a probability of {least:.3f}."
    first, threshold = trained.classes[0], threshold_of(trained)
    band = abstain_band(trained, threshold)
    between = f"{band[0]:.3f} and {band[1]:.3f}" if band else "none"
    return (
        f"When it classifies single images, it answers {first} from a probability of {threshold:.3f} on. It rejects "
        f"those where the probability of {first} lies between {between}."
    )


def _quality(limits: Mapping[str, list[float]]) -> pd.DataFrame:
    rows = [(QUALITY.get(name, name), *(f"{end:,.2f}" for end in ends)) for name, ends in limits.items()]
    return pd.DataFrame(rows, columns=["measure", "from", "to"])


def _compute(facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> pd.DataFrame:
    profile, size, hardware = facts["profile"], facts["input"]["image_size"], facts["hardware"]
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    rows = {
        "parameters": f"{facts['parameters']:,}",
        "input": f"{size} × {size} px, {facts['input']['values']}",
        "profile": profile["name"],
        "changed in it": ", ".join(f"{key} = {value}" for key, value in metrics["changed"].items()) or "nothing",
        "initial weights": {None: "random", "drawn": "learned from drawn cells"}.get(
            profile["weights"], profile["weights"]
        ),
        "epochs": f"{metrics['epochs']}, the best is number {facts['best_epoch']}",
        "batch size, learning rate": f"{profile['batch_size']}, {profile['learning_rate']}",
        "time of training": f"{facts['training_seconds']:,.0f} s",
        "hardware": f"{hardware['processor']}, {hardware['cores']} cores, {gpus}, {hardware['system']}",
        "versions": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
        "seed": facts["seed"],
        "deterministic": "yes" if facts["deterministic"] else "no",
    }
    return _listed(rows)


def _listed(rows: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({"what": list(rows), "value": list(map(str, rows.values()))})


def with_interval(value: float, low: float, high: float, **_: Any) -> str:
    """Return "0.841 (0.702 to 0.932)", or say that value or interval is inconclusive (NaN)."""
    if value != value:
        return UNKNOWN
    ends = "interval inconclusive" if low != low else f"{low:.3f} to {high:.3f}"
    return f"{value:.3f} ({ends})"
