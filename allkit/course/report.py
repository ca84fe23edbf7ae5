"""Publishing a run folder as web pages that need no network: images inside, equations as MathML."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader, pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from allkit import ROOT, AllkitError, disk_trouble
from allkit.folders import SYNTHETIC, is_run_folder, read_json, read_params, run_path

TEMPLATES = Path(__file__).parent / "templates"


WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


START_UP = "Start-up and imports"


OPENING = "Before the first heading"


CORE = ("01", "02", "03", "04", "05", "06")
"""Numbers of the notebooks that go from the data to the upload cell; the later ones ask further questions."""


SHORT_PART = 1.0  # s; shorter parts are summed up in the report


WIDGET_NOTE = "Interactive controls: open this notebook in JupyterLab to use them."


def publish_report(run: str | Path) -> Path:
    """Write report/index.html and a page for each executed notebook of a run folder; return the index.

    The pages load nothing from a network. An earlier report is replaced once the new one is complete.
    Raises AllkitError when the folder is no run folder or holds no executed notebook.
    """
    path = run_path(run)
    copies = sorted((path / "notebooks").glob("*.ipynb"))
    if not is_run_folder(path) or not copies:
        raise AllkitError(f"{path} holds no executed notebooks to publish; make some with `allkit run`.")
    new, report = path / f".report-{os.getpid()}", path / "report"
    try:
        new.mkdir()
        titles = {copy.stem: _publish_notebook(copy, new) for copy in copies}
        (new / "index.html").write_text(_index_page(path, titles), encoding="utf-8")
        shutil.rmtree(report, ignore_errors=True)
        new.rename(report)
    except OSError as error:
        raise disk_trouble(error, report) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return report / "index.html"


# ------------------------------------------------------------------------------------------ one notebook


def _publish_notebook(copy: Path, folder: Path) -> str:
    """Write the page of one executed notebook; return its title."""
    try:
        notebook = nbformat.read(copy, as_version=4)
    except ValueError as error:  # half-written: the run was killed
        raise AllkitError(f"{copy} is no complete notebook; run it again before publishing.") from error
    title = title_of(notebook) or _without_number(copy.stem)
    notebook.metadata["title"] = title
    replace_live_outputs(notebook)
    resources = {"metadata": {"name": copy.stem, "path": str(ROOT / "notebooks")}}
    html, _ = _exporter().from_notebook_node(notebook, resources)
    (folder / f"{copy.stem}.html").write_text(_stand_alone(html), encoding="utf-8")
    return title


def title_of(notebook: nbformat.NotebookNode) -> str:
    """Return the text of the first first-level heading."""
    for cell in notebook.cells:
        heading = re.search(r"^# (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading:
            return re.sub(r"[`*]|^\d+\W+", "", heading[1].strip())
    return ""


def _without_number(name: str) -> str:
    return re.sub(r"^\d\d_", "", name)


def replace_live_outputs(notebook: nbformat.NotebookNode) -> None:
    """Leave of widgets and scripts, which need a kernel or a network, their text; let equations render."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop("application/javascript", None)
            text = str(data.get("text/plain", ""))
            if data.pop(WIDGET_VIEW, None) and "text/html" not in data and re.match(r"\w*\(|$", text):
                data["text/plain"] = WIDGET_NOTE  # its text would be the widget's Python expression
            if "text/latex" in data and "text/html" not in data:
                data["text/markdown"] = data.pop("text/latex")
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("data", True)]


def _exporter() -> HTMLExporter:
    """Return nbconvert's exporter of JupyterLab pages, with this project's template and MathML equations."""

    class Renderer(IPythonRenderer):
        """Renders the equations that nbconvert's Markdown parser finds; code is not looked at."""

        def block_math(self, body: str) -> str:
            return to_mathml(body, "block")

        def inline_math(self, body: str) -> str:
            return to_mathml(body, "inline")

        def latex_environment(self, name: str, body: str) -> str:
            return to_mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

    @pass_context
    def markdown2html(context: Mapping[str, Any], source: str) -> str:
        path = context.get("resources", {}).get("metadata", {}).get("path", "")
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = Renderer(escape=False, attachments=attachments, embed_images=True, path=path)
        return MarkdownWithMath(renderer=renderer).render(source)

    exporter = HTMLExporter(template_name="lab")
    exporter.raw_template = (TEMPLATES / "report_notebook.html.j2").read_text(encoding="utf-8")
    exporter.register_filter("markdown2html", markdown2html)
    return exporter


def to_mathml(latex: str, display: str) -> str:
    """Return an equation as MathML ("inline" or "block"); what cannot be converted stays, as code."""
    # the converter knows align* but not the same thing inside an equation
    known = re.sub(r"\{(aligned|split|gathered)\}", "{align*}", latex)
    try:
        mathml = convert(known, display=display)
    except Exception:  # each mistake in an equation has an exception class of its own
        return f"<code>{escape(latex)}</code>"
    return re.sub(r"&(?![#\w]+;)", "&amp;", mathml)


def _stand_alone(html: str) -> str:
    """Remove what would load something from elsewhere; links stay, those to notebooks lead to their pages."""
    page = BeautifulSoup(html, "html.parser")
    for element in page.find_all(src=True) + page.find_all("link", href=True) + page.find_all("object"):
        address = element.get("src") or element.get("href") or element.get("data") or ""
        if not address.startswith(("data:", "#")):
            element.replace_with(element.get("alt") or "")
    for element in page.find_all(srcset=True):
        del element["srcset"]
    for link in page.find_all("a", href=re.compile(r"^(?!\w+:)[^#]*\.ipynb(#|$)")):
        link["href"] = link["href"].replace(".ipynb", ".html", 1)
    return str(page)


# ------------------------------------------------------------------------------------------- the index


def _index_page(path: Path, titles: Mapping[str, str]) -> str:
    series_file, metrics_file = path / "notebooks.json", path / "metrics.json"
    series = read_json(series_file) if series_file.exists() else {}
    metrics = read_json(metrics_file) if metrics_file.exists() else {}
    params = read_params(path)
    return render_page(
        "report_index.html.j2",
        name=path.name,
        synthetic=params["data"]["source"] == SYNTHETIC if params else None,
        notebooks=list(_notebook_rows(series.get("notebooks", {}), titles)),
        facts=[fact for fact in _facts(series, params) if fact[1]],
        metrics=[(section, list(_flat(values))) for section, values in metrics.items()],
        times=_times({name: time_by_part(path / "notebooks" / f"{name}.ipynb") for name in titles}, titles),
    )


def render_page(template: str, **values: Any) -> str:
    """Return one of allkit's templates filled in; in HTML every value is escaped."""
    loader = FileSystemLoader(TEMPLATES, encoding="utf-8")
    page = Environment(loader=loader, autoescape=template.endswith(".html.j2"), trim_blocks=True, lstrip_blocks=True)
    page.filters["markdown"] = escape_markdown
    return page.get_template(template).render(**values)


def escape_markdown(value: Any) -> str:
    """Return text as Markdown that shows it as it is, on one line, also inside a table."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)


def _notebook_rows(entries: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for name in sorted({*entries, *titles}):
        entry = entries.get(name, {})
        yield {
            "title": f"{_number_of(name)} {titles.get(name, _without_number(name))}".strip(),
            "page": f"{name}.html" if name in titles else "",
            "status": entry.get("status", "unknown"),
            "cell": entry.get("cell"),
            "error": entry.get("error", ""),
            "seconds": f"{entry['seconds']:.0f}" if "seconds" in entry else "",
        }


def _number_of(name: str) -> str:
    """Return the number of a notebook of the series, nothing for one outside it."""
    return name[:2] if re.match(r"\d\d_", name) else ""


def _facts(series: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the run was made with: data, profile, injected parameters, versions."""
    yield "Started", str(series.get("created", params.get("created", "")))
    yield "Data", Path(str(series.get("data", ""))).name
    yield "Profile", str(series.get("profile", ", ".join(params.get("profiles", []))))
    for key, value in params.get("data", {}).items():
        yield f"Data: {key}", str(value)
    for name, entry in sorted(series.get("notebooks", {}).items()):
        own = {k: v for k, v in entry.get("parameters", {}).items() if k not in ("data", "profile")}
        if own:
            yield f"Parameters of {_number_of(name) or name}", ", ".join(f"{k} = {v!r}" for k, v in own.items())
    yield "Versions", ", ".join(f"{k} {v}" for k, v in params.get("versions", {}).items())


def time_by_part(copy: Path) -> pd.DataFrame:
    """Return how long each part of an executed notebook took, in order: part, seconds (float64).

    The first row is the start of the kernel with all cells up to the one that imports. Every later row is a heading
    with the cells below it, their saving included; the title counts as no heading. The sum is the time from the start
    to the end of the last cell that ran. Empty when papermill did not execute the notebook.
    """
    notebook = nbformat.read(copy, as_version=4)
    last, heading, seconds = _time_of(notebook.metadata, "start_time"), OPENING, {}
    imports, title = _imports_cell(notebook.cells), title_of(notebook)
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            found = _last_heading(cell.source)
            heading = found if found and found != title else heading
        end = _time_of(cell.metadata, "end_time")
        if last is None or end is None:
            continue  # not reached, because a cell before it failed
        part = START_UP if position <= imports else heading
        seconds[part] = seconds.get(part, 0.0) + (end - last).total_seconds()
        last = end
    return pd.DataFrame({"part": list(seconds), "seconds": list(seconds.values())}).astype({"seconds": float})


def _time_of(metadata: Mapping[str, Any], name: str) -> datetime | None:
    text = metadata.get("papermill", {}).get(name)
    return datetime.fromisoformat(text) if text else None


def _imports_cell(cells: list[Any]) -> int:
    """Return the position of the first cell that imports; the first cell's where none does."""
    importing = (
        i for i, c in enumerate(cells) if c.cell_type == "code" and re.search(r"(?m)^(import|from) ", c.source)
    )
    return next(importing, 0)


def _last_heading(source: str) -> str:
    """Return the text of the last heading of a Markdown cell, or nothing."""
    found = re.findall(r"(?m)^#{1,6} (.+)$", re.sub(r"(?s)```.*?```", "", source))
    return re.sub(r"[`*]|^\d+\W+", "", found[-1].strip()) if found else ""


def _times(tables: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what the section on time shows: notebooks with their longer parts, and sums; None without times."""
    tables = {name: table for name, table in tables.items() if len(table)}
    if not tables:
        return None
    longest = max(table["seconds"].max() for table in tables.values())
    core = {name: table for name, table in tables.items() if _number_of(name) in CORE}
    named = f"{CORE[0]}–{CORE[-1]}" if len(core) == len(CORE) else ", ".join(map(_number_of, core))
    sums = {f"Core notebooks {named}": core} if core else {}
    if len(tables) > len(core):
        sums["All notebooks of this run"] = tables
    return {
        "notebooks": [
            (f"{_number_of(name)} {titles[name]}".strip(), f"{table['seconds'].sum():.1f}", _longer(table, longest))
            for name, table in tables.items()
        ],
        "sums": [(label, *_sums_of(chosen)) for label, chosen in sums.items()],
    }


def _longer(table: pd.DataFrame, longest: float) -> list[tuple[str, str, str]]:
    """Return (part, seconds, width of its bar in %) of the start and of the longer parts; the rest is one row."""
    shown = (table["part"] == START_UP) | (table["seconds"] >= SHORT_PART)
    rows = list(table[shown].itertuples(index=False, name=None))
    rest = table.loc[~shown, "seconds"]
    if len(rest):
        shorter = f"{len(rest)} {'part' if len(rest) == 1 else 'parts'} below {SHORT_PART:.0f} s each"
        rows.append((shorter.replace(" each", "") if len(rest) == 1 else shorter, rest.sum()))
    return [(part, f"{seconds:.1f}", f"{min(100, 100 * seconds / longest):.1f}") for part, seconds in rows]


def _sums_of(tables: Mapping[str, pd.DataFrame]) -> tuple[str, str]:
    """Return the seconds of all parts of some notebooks, and those of their starts."""
    total = sum(table["seconds"].sum() for table in tables.values())
    start = sum(table.loc[table["part"] == START_UP, "seconds"].sum() for table in tables.values())
    return f"{total:.1f}", f"{start:.1f}"


def _flat(values: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Yield (name, text) of nested metrics, names joined by dots; long lists are counted, not printed."""
    if isinstance(values, Mapping) and {"value", "low", "high"} <= set(values):
        known = values["low"] is not None and values["high"] is not None
        ends = f"{_number(values['low'])} to {_number(values['high'])}" if known else "interval inconclusive"
        verdict = f": {values['verdict']}" if "verdict" in values else ""
        yield before, f"{_number(values['value'])} ({ends}; {values.get('resampled')} resampled){verdict}"
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{before}.{key}" if before else str(key))
    elif isinstance(values, list) and any(isinstance(value, Mapping | list) for value in values):
        yield before, f"{len(values)} rows"
    elif isinstance(values, list):
        yield before, ", ".join(map(_number, values)) if len(values) <= 8 else f"{len(values)} values"
    else:
        yield before, _number(values)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.2e}"
    return "–" if value is None else str(value)
