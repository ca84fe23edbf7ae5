"""The model card of a run, from its folder alone: Markdown with a YAML head, and the same as a page.

The words stand in templates/card.md.j2; what is computed here are the tables that it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from allkit import AllkitError
from allkit.classify import abstain_band, threshold_of
from allkit.cnmc import official_fold
from allkit.course.ledger import trained_models
from allkit.course.offline import TEMPLATES
from allkit.course.predictions_card import write_pages
from allkit.evaluate import (
    FEWEST_UNITS,
    classes_of,
    evaluate_with_intervals,
)
from allkit.folders import SYNTHETIC, is_run_folder, read_json, read_params, run_path
from allkit.models import TrainedModel
from allkit.runs import Run
from allkit.scores import UNKNOWN, describe_scores, listed, with_interval

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
    return write_pages(title, text, folder)


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
    return {"synthetic": synthetic, "data": listed(data), "tags": tags, "datasets": [source], "models": models}


def _model(facts: Mapping[str, Any], metrics: Mapping[str, Any], predictions: pd.DataFrame) -> dict[str, Any]:
    """Return what the template shows of one model: sentences and tables of text."""
    found, split, limits = evaluate_with_intervals(predictions), facts["split"], facts["limits"]
    scores = {name: round(float(found.loc[name, "value"]), 4) for name in ("auc", "balanced_accuracy")}
    return {
        **describe_scores(predictions, found),
        "head": {"name": facts["title"], "split": split["name"], "profile": metrics["profile"], "metrics": scores},
        "split_note": split["note"],
        "shares_subjects": split["shares_subjects"],
        "split": _split(split, facts["classes"]),
        "by_fold": _by_fold(predictions) if facts["data"]["source"] in SOURCES else None,
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
    return listed(rows)
