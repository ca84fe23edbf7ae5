"""The report of a run: a first page that says what came out, and a page for each notebook; all without a network."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from nbformat import NotebookNode
from PIL import Image

from allkit import ROOT, AllkitError, disk_trouble
from allkit.baselines import single_feature_baseline
from allkit.course.card import describe_measures, name_measures
from allkit.course.ledger import trained_models
from allkit.course.offline import (
    NO_DESCRIPTION,
    TEMPLATES,
    read_offline,
    render_page,
    shorten_notebook,
    shorten_paths,
    title_of,
)
from allkit.data import index_hash, relative_paths
from allkit.evaluate import (
    classes_of,
    compare_predictions,
    evaluate_with_intervals,
    predicted_labels,
    probabilities_of,
)
from allkit.folders import SYNTHETIC, is_run_folder, read_json, read_params, run_path
from allkit.images import prepare_image, read_image
from allkit.models import title_of as model_title
from allkit.plots import brighten, brightening, description_of, figure_png, plot_roc, use_style
from allkit.runs import Run, load_data
from allkit.splits import Split, split_data

BASELINE = "single_feature"
"""What the predictions of the single-feature baseline are called in a run folder."""

POLICY = "default-src 'none'; img-src data:; media-src data:; font-src data:; style-src 'unsafe-inline'"
"""What a page may load: nothing but what is in it; and no script. The browser sees to it."""

UNREADABLE = (AllkitError, AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading a run folder can raise that is not complete, or not what it seems."""

_CELLS, _CELL_SIDE, _THUMBNAIL = 6, 224, 320  # images, pixels, pixels


def publish_report(run: str | Path) -> Path:
    """Write report/index.html and a page for each executed notebook of a run folder; return the index.

    The pages load nothing from a network. An earlier report is replaced once the new one is complete. The predictions
    of the single-feature baseline are saved in the run folder, if they are not there yet and the images are.
    Raises AllkitError when the folder is no run folder or holds no executed notebook.
    """
    path = run_path(run)
    copies = sorted((path / "notebooks").glob("*.ipynb"))
    if not is_run_folder(path) or not copies:
        raise AllkitError(f"{path} holds no executed notebooks to publish; make some with `allkit run`.")
    record = read_json(path / "notebooks.json") if (path / "notebooks.json").exists() else {}
    new, report = path / f".report-{os.getpid()}", path / "report"
    try:
        new.mkdir()
        for name, page in _pages(path, record, {copy.stem: read_offline(copy) for copy in copies}):
            (new / f"{name}.html").write_text(page, encoding="utf-8")
        shutil.rmtree(report, ignore_errors=True)
        new.rename(report)
    except OSError as error:
        raise disk_trouble(error, report) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return report / "index.html"


def _pages(path: Path, record: Mapping[str, Any], notebooks: Mapping[str, NotebookNode]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of every page."""
    params, names = read_params(path), _short_names(path, record, notebooks.values())
    note, links, pictures = _safety_note(params), [], {}
    for name, notebook in notebooks.items():
        shorten_notebook(notebook, names)
        links.append({"page": f"{name}.html", "title": _numbered(name, title_of(notebook))})
    for name, notebook, before, link, after in zip(
        notebooks, notebooks.values(), [None, *links[:-1]], links, [*links[1:], None], strict=True
    ):
        page = BeautifulSoup(render_page(notebook, path / "notebooks" / f"{name}.ipynb"), "html.parser")
        pictures[name] = _thumbnail(page)
        yield (
            name,
            TEMPLATES.get_template("report_notebook.html.j2").render(
                policy=POLICY, title=link["title"], note=note, before=before, after=after, **_notebook_parts(page)
            ),
        )
    titles = {name: link["title"] for name, link in zip(notebooks, links, strict=True)}
    facts = [(key, shorten_paths(value, names)) for key, value in _facts(record, params) if value]
    rows = list(_notebook_rows(record.get("notebooks", {}), titles, pictures))
    for row in rows:
        row["error"] = shorten_paths(row["error"], names)
    results = _results(Run(path), record, params)
    yield "index", TEMPLATES.get_template("report_index.html.j2").render(
        policy=POLICY, title=f"Classifying leukemia cell images: the run “{path.name}”", note=note, notebooks=rows,
        seconds=sum(int(row["seconds"] or 0) for row in rows), facts=facts, **results,
        missing=[shorten_paths(sentence, names) for sentence in results.pop("notes")],
    )  # fmt: skip


def _safety_note(params: Mapping[str, Any]) -> str:
    start = "For teaching and research, not a diagnosis. "
    if not params:
        return f"{start}No notebook of this run has opened its data yet."
    if params["data"]["source"] == SYNTHETIC:
        return (
            f"{start}All cells in this run are synthetic: drawn by a program. The figures say nothing about real cells."
        )
    return f"{start}The cells in this run are real, from a data set that the user gave."


# ------------------------------------------------------------------------------------------ pages of notebooks


def _short_names(path: Path, record: Mapping[str, Any], notebooks: Iterator[NotebookNode]) -> dict[str, str]:
    """Return path -> short name for what is where on this machine, and on the one where the run was made."""
    run = f"runs/{path.name}"
    names = {sys.prefix: "…", str(ROOT): "…", str(Path.home()): "~", str(path): run}
    for notebook in notebooks:
        words = notebook.metadata.get("papermill", {})
        names[re.sub(r"([\\/][^\\/]+){2}$", "", str(words.get("input_path", "")))] = "…"  # the clone
        names[re.sub(r"([\\/][^\\/]+){2}$", "", str(words.get("output_path", "")))] = run
        given = words.get("parameters", {})
        names |= {str(given.get("run_folder", "")): run} | _name_data(given.get("data", ""))
    names |= _name_data(record.get("data", ""))
    return {place: name for place, name in names.items() if re.match(r"[A-Za-z]:|[\\/]", place)}


def _name_data(data: Any) -> dict[str, str]:
    return {str(data): f"…/{_last(data)}"}


def _last(path: Any) -> str:
    """Return the last part of a path of any system."""
    return re.split(r"[\\/]", str(path))[-1]


def _notebook_parts(page: BeautifulSoup) -> dict[str, Any]:
    """Return styles, cells and headings (level, anchor, text) of a page from `render_page`."""
    headings, seen = [], set()
    for heading in page.select(".jp-MarkdownCell h2, .jp-MarkdownCell h3"):
        for link in heading.select("a.anchor-link"):
            link.decompose()
        anchor = heading.get("id") or "section"
        while anchor in seen:
            anchor += "-again"
        heading["id"] = anchor
        seen.add(anchor)
        headings.append((int(heading.name[1]), anchor, heading.get_text(" ", strip=True)))
    # not the page's main element: what an output holds may have closed it too early
    cells = [cell for cell in page.select(".jp-Cell") if not cell.find_parent(class_="jp-Cell")]
    styles = "".join(map(str, page.head.find_all("style")))
    return {"styles": styles, "cells": "\n".join(map(str, cells)), "headings": headings}


def _thumbnail(page: BeautifulSoup) -> dict[str, Any] | None:
    """Return the first figure with a description among the outputs of a page, small; None without one."""
    figures = page.select('.jp-OutputArea-output img[src^="data:image/"]')
    for figure in sorted(figures, key=lambda figure: figure.get("alt", NO_DESCRIPTION) == NO_DESCRIPTION):
        try:
            image = read_image(base64.b64decode(figure["src"].partition(",")[2]))
        except (ValueError, AllkitError):
            continue
        return _embed(image, figure.get("alt") or NO_DESCRIPTION, most=_THUMBNAIL)
    return None


def _embed(image: np.ndarray, alt: str, *, most: int, kind: str = "PNG") -> dict[str, Any]:
    """Return what an <img> of an image needs: uint8 (h, w, 3), at most `most` pixels wide."""
    small, out = Image.fromarray(image), io.BytesIO()
    small.thumbnail((most, 2 * most))
    (small.quantize(64) if kind == "PNG" else small).save(out, kind, optimize=True, quality=85)
    source = f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
    return {"source": source, "alt": alt, "width": small.width, "height": small.height}


# ------------------------------------------------------------------------------------------ the first page


def _results(run: Run, record: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
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
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return {"source": source, "alt": description_of(axes), "width": width // 2, "height": height // 2}


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
        picture = _embed(brighten(image, factor), alt, most=_CELL_SIDE, kind="JPEG")
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
    bright = f", shown {factor:.1f} times as bright" if factor > 1.05 else ""
    return f"Cells of the test part ({kind}), chosen {chosen}{bright}. The number is the probability of the answer."


def _notebook_rows(
    entries: Mapping[str, Any], titles: Mapping[str, str], pictures: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for name in sorted({*entries, *titles}):
        entry = entries.get(name, {})
        yield {
            "title": titles.get(name, _numbered(name, "")),
            "page": f"{name}.html" if name in titles else "",
            "picture": pictures.get(name),
            "status": entry.get("status", "unknown"),
            "cell": entry.get("cell"),
            "error": str(entry.get("error", "")),
            "seconds": f"{entry['seconds']:.0f}" if "seconds" in entry else "",
        }


def _numbered(name: str, title: str) -> str:
    """Return the title of a notebook with its number, if it has one; without a title its name."""
    number = _number_of(name)
    return f"{number} {title or name.removeprefix(f'{number}_')}".strip()


def _number_of(name: str) -> str:
    """Return the number of a numbered notebook, nothing for any other."""
    return name[:2] if re.match(r"\d\d_", name) else ""


def _facts(record: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the run was made with: data, profile, split, injected parameters, versions."""
    yield "Started", str(record.get("created", params.get("created", "")))
    yield "Data", _last(record.get("data", ""))
    yield "Profile", str(record.get("profile", ", ".join(params.get("profiles", []))))
    for key, value in params.get("data", {}).items():
        yield f"Data: {key}", str(value)
    notes = [model["split"]["note"] for model in params.get("models", {}).values()]
    yield "Split", " ".join(dict.fromkeys(notes))
    for name, entry in sorted(record.get("notebooks", {}).items()):
        own = {k: v for k, v in entry.get("parameters", {}).items() if k not in ("data", "profile")}
        if own:
            yield f"Parameters of {_number_of(name) or name}", ", ".join(f"{k} = {v!r}" for k, v in own.items())
    yield "Versions", ", ".join(f"{k} {v}" for k, v in params.get("versions", {}).items())
