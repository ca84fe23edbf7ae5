"""What the first page of a run's report says: how well its networks do beside a single number, and on which cells."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from allkit import AllkitError
from allkit.baselines import single_feature_baseline
from allkit.course.ledger import trained_models
from allkit.data import index_hash, relative_paths
from allkit.evaluate import (
    classes_of,
    compare_predictions,
    evaluate_with_intervals,
    predicted_labels,
    probabilities_of,
)
from allkit.folders import SYNTHETIC
from allkit.images import brighten, brightening, describe_brightening, prepare_image, read_image, to_address
from allkit.models import title_of as model_title
from allkit.plots import description_of, figure_png, plot_roc, use_style
from allkit.runs import Run, load_data
from allkit.scores import describe_measures, name_measures
from allkit.splits import Split, split_data

BASELINE = "single_feature"
"""What the predictions of the single-feature baseline are called in a run folder."""

UNREADABLE = (AllkitError, AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading a run folder can raise that is not complete, or not what it seems."""

_CELLS, _CELL_SIDE = 6, 224  # images, pixels


def summarise_run(run: Run, record: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the first page says of the models; what the run lacks is left out, or said in `notes`."""
    tables, notes = {}, []
    try:
        names = list(trained_models(run.path))
    except UNREADABLE as error:
        return {"notes": [f"The results of this run cannot be read: {error}"]}
    if not names:
        return {"notes": ["No network is trained in this run yet."]}
    for name in names:
        try:
            table = run.load_predictions(name)
            evaluate_with_intervals(table, resamples=2)
            tables[model_title(name)] = table
        except UNREADABLE as error:
            notes.append(f"The results of {model_title(name)} are left out: {error}")
    if not tables:
        return {"notes": notes}
    found = {"verdict": "", "notes": notes}
    try:
        simple, table = _load_baseline(run, record, params, names[0])
        tables[simple] = table
        found["verdict"] = _verdict(tables, simple)
    except UNREADABLE as error:
        notes.append(f"No single number stands beside the networks here: {error}")
    return found | _numbers(tables) | {"roc": _roc(tables)} | _cells(tables, params, notes)


def _load_baseline(
    run: Run, record: Mapping[str, Any], params: Mapping[str, Any], model: str
) -> tuple[str, pd.DataFrame]:
    """Return the single-feature baseline of the split that `model` was trained with: its name, its test predictions.

    They are computed once, from the images, and then kept in the run folder.
    """
    trained, saved = params["models"][model], run.load_metrics().get(BASELINE, {})
    networks = run.load_predictions(model)
    if saved.get("split_hash") == trained["split"]["hash"]:
        name, table = saved["title"], run.load_predictions(BASELINE)
    else:
        if not Path(networks["path"].iat[0]).is_file():
            raise AllkitError("it was not saved with this run, and the images are not on this machine.")
        name, table = single_feature_baseline(_split_of(run, record, trained))
        run.save_predictions(BASELINE, table)
        run.save_metrics(BASELINE, {"title": name, "split_hash": trained["split"]["hash"]})
    if relative_paths(table["path"]) == relative_paths(networks["path"]):
        table = table.assign(path=networks["path"])  # the same images, elsewhere on this machine or on another one
    return str(name), table


def _split_of(run: Run, record: Mapping[str, Any], trained: Mapping[str, Any]) -> Split:
    """Return the split that a model was trained with; AllkitError where it cannot be made again."""
    described = run.path / "data.toml"
    index = load_data(described if described.exists() else record.get("data", SYNTHETIC))
    given = {k: v for entry in record.get("notebooks", {}).values() for k, v in entry.get("parameters", {}).items()}
    how = {"hold_out": str(given.get("hold_out") or ""), "fold": given.get("fold")}
    split = split_data(index, trained["profile"]["split"], seed=trained["seed"], **how)
    if {name: index_hash(part) for name, part in split.parts.items()} != trained["split"]["hash"]:
        raise AllkitError("the data or the split are not those of the training any more.")
    return split


def _verdict(tables: Mapping[str, pd.DataFrame], simple: str) -> str:
    """Return in a sentence whether each network beats a single number, by the paired difference of the AUC."""
    said = []
    for title, table in tables.items():
        if title != simple:
            row = compare_predictions(table, tables[simple]).loc["auc"]
            ends = (
                f"95 % interval {row['low']:+.3f} to {row['high']:+.3f}" if row["low"] == row["low"] else "no interval"
            )
            words = {"first": f"{title} beats the {simple}", "second": f"{title} loses to the {simple}"}
            whether = words.get(row["verdict"], f"whether {title} beats the {simple} is inconclusive")
            said.append(f"{whether} (difference of the AUC {row['value']:+.3f}, {ends})".replace("-0.", "−0."))
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}."


def _numbers(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return the AUC of each title with its interval, a sentence about them, and a table of all main measures."""
    found = {title: evaluate_with_intervals(table) for title, table in tables.items()}
    first = next(iter(tables.values()))
    columns = {
        title: describe_measures(table, name_measures(classes_of(tables[title]))).set_index("measure")["value"]
        for title, table in found.items()
    }
    measures = pd.concat(columns, axis=1).fillna("—")
    auc = {title: table.loc["auc"] for title, table in found.items()}
    kind, units = auc[next(iter(auc))][["resampled", "units"]]
    positive, *others = classes_of(first)
    what = f"{positive} against {others[0]}" if len(others) == 1 else "each class against the rest, on average"
    return {
        "numbers": [(title, _number(row["value"]), _interval(row)) for title, row in auc.items()],
        "about": f"Area under the ROC curve (AUC), {what}, on {len(first):,} test images: 0.5 is guessing, 1 "
        f" is perfect. Below it the 95 % interval of a bootstrap over {kind}, of which the smaller class has {units}.",
        "measures": list(measures.reset_index().itertuples(index=False, name=None)),
        "measured": ("Measure", *columns),
    }


def _number(value: float) -> str:
    return "inconclusive" if value != value else f"{value:.3f}"


def _interval(row: pd.Series) -> str:
    return "interval inconclusive" if row["low"] != row["low"] else f"{row['low']:.3f} to {row['high']:.3f}"


def _roc(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    """Return the ROC curves of the positive class as an image, or None where one class is missing."""
    positive = classes_of(next(iter(tables.values())))[0]
    known = {title: t for title, t in tables.items() if positive in classes_of(t) and t["label"].nunique() > 1}
    if not known:
        return None
    with plt.rc_context():
        use_style()
        axes = plot_roc(known, positive, ax=Figure(figsize=(4.8, 4.4)).subplots())
        png = figure_png(axes, dpi=180)
    width, height = Image.open(io.BytesIO(png)).size
    return {"source": to_address(png), "alt": description_of(axes), "width": width // 2, "height": height // 2}


def _cells(tables: Mapping[str, pd.DataFrame], params: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return six test images with their truth and the answers to them."""
    first = next(iter(tables.values()))
    same = {title: table for title, table in tables.items() if list(table["path"]) == list(first["path"])}
    answers = {title: predicted_labels(table) for title, table in same.items()}
    wrong = np.sum([answer != first["label"] for answer in answers.values()], axis=0)
    places = _choose_cells(first["label"], wrong)
    try:
        images = [read_image(path) for path in first["path"].iloc[places]]
        crop = next(iter(params["models"].values()))["profile"]["crop"]
        images = [prepare_image(image, _CELL_SIDE, crop) for image in images]
    except UNREADABLE as error:
        notes.append(f"Cells of the test part are not shown: {error}")
        return {}
    factor, kind = brightening(images), "synthetic" if params["data"]["source"] == SYNTHETIC else "genuine"
    cells = []
    for image, place in zip(images, places, strict=True):
        said = [_answer(title, table, answers[title], place) for title, table in same.items()]
        truth = first["label"].iat[place]
        alt = f"A {kind} cell of class {truth}; " + ", ".join(f"{title} answers {answer}" for title, answer, *_ in said)
        picture = embed(brighten(image, factor), alt, most=_CELL_SIDE, kind="JPEG")
        cells.append(picture | {"truth": truth, "answers": said})
    return {"cells": cells, "about_cells": _about_cells(kind, factor, bool(wrong[places].any()))}


def _choose_cells(labels: pd.Series, wrong: np.ndarray) -> list[int]:
    """Return the places of six images, as many of each class: the one with most wrong answers, then by chance."""
    chosen, classes = [], list(dict.fromkeys(sorted(labels)))
    order = np.random.default_rng(123).permutation(len(labels))
    for name in classes[:_CELLS]:
        own = order[(labels == name).to_numpy()[order]]
        worst = wrong[own].argmax()
        chosen += [own[worst], *np.delete(own, worst)][: max(1, _CELLS // len(classes))]
    return [int(place) for place in chosen]


def _answer(title: str, table: pd.DataFrame, answers: np.ndarray, place: int) -> tuple[str, str, str, bool]:
    probability = probabilities_of(table)[place].max()
    return title, str(answers[place]), f"{probability:.2f}", answers[place] == table["label"].iat[place]


def _about_cells(kind: str, factor: float, mistakes: bool) -> str:
    chosen = "of each class one with most wrong answers, the others by chance" if mistakes else "by chance"
    how = ", ".join(filter(None, [f"chosen {chosen}", describe_brightening(factor)]))
    return f"Cells of the test part ({kind}), {how}. The number is the probability of the answer."


def embed(image: np.ndarray, alt: str, *, most: int, kind: str = "PNG") -> dict[str, Any]:
    """Return what an <img> of an image needs: uint8 (h, w, 3), at most `most` pixels wide."""
    small, out = Image.fromarray(image), io.BytesIO()
    small.thumbnail((most, 2 * most))
    (small.quantize(64) if kind == "PNG" else small).save(out, kind, optimize=True, quality=85)
    source = to_address(out.getvalue(), kind.lower())
    return {"source": source, "alt": alt, "width": small.width, "height": small.height}
