"""The report of a run: a first page that says what came out, and a page for each notebook; all without a network."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from nbformat import NotebookNode

from allkit import AllkitError, disk_trouble
from allkit.course.offline import (
    NO_DESCRIPTION,
    TEMPLATES,
    last_part,
    read_offline,
    render_page,
    short_names,
    shorten_notebook,
    shorten_paths,
    title_of,
)
from allkit.course.summary import embed, summarise_run
from allkit.folders import SYNTHETIC, is_run_folder, read_json, read_params, run_path
from allkit.images import read_image
from allkit.progress import track
from allkit.runs import Run

POLICY = "default-src 'none'; img-src data:; media-src data:; font-src data:; style-src 'unsafe-inline'"
"""What a page may load: nothing but what is in it; and no script. The browser sees to it."""

_THUMBNAIL = 320  # pixels


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
        pages = _pages(path, record, {copy.stem: read_offline(copy) for copy in copies})
        for name, page in track(pages, "writing the report", total=len(copies) + 1, unit="page"):
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
    params, names = read_params(path), short_names(path, record, notebooks.values())
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
    results = summarise_run(Run(path), record, params)
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
        return embed(image, figure.get("alt") or NO_DESCRIPTION, most=_THUMBNAIL)
    return None


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
    yield "Data", last_part(record.get("data", ""))
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
