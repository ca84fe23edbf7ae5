"""Turning a notebook into a page that needs no network and runs nothing: images inside, equations as MathML."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader, pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from allkit import ROOT, AllkitError
from allkit.parameters import read_parameters

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8"),
    autoescape=lambda name: name.endswith(".html.j2"),
    trim_blocks=True,
    lstrip_blocks=True,
)

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

WIDGET_NOTE = "Interactive controls: open this notebook in JupyterLab to use them."

_RUNS = ("script", "iframe", "object", "embed", "base", "form", "applet")

NO_DESCRIPTION = "No description of this image"

_STARTS = r"(?:(?<![\w./\\~+-])|(?<=file://)|(?<=[0-9]m))"  # of a path, also after a code that colours it

_LIBRARY = rf"{_STARTS}(?:[A-Za-z]:)?[\\/][^\s\"'<>:]{{0,200}}?(?=[\\/](?:site-packages|lib[\\/]python3|ipykernel_\d))"

_HOME = rf"{_STARTS}(?:/home/|/Users/|[A-Za-z]:(?:\\{{1,2}}|/)Users(?:\\{{1,2}}|/))[^\s/\\\"'<>:]+"


def render_page(notebook: nbformat.NotebookNode, path: Path) -> str:
    """Return a notebook from `read_offline` as one HTML page that loads and runs nothing."""
    resources = {"metadata": {"name": path.stem, "path": str(ROOT / "notebooks")}}
    html, _ = _exporter().from_notebook_node(notebook, resources)
    return stand_alone(html)


def title_of(notebook: nbformat.NotebookNode) -> str:
    """Return the text of the first first-level heading, without its number."""
    for cell in notebook.cells:
        heading = re.search(r"^# (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading:
            return re.sub(r"[`*]|^\d+\W+", "", heading[1].strip())
    return ""


def read_offline(path: Path) -> nbformat.NotebookNode:
    """Return a notebook as it can be shown without kernel and network; AllkitError when it is incomplete.

    Of widgets and scripts their text is left; figures become HTML that keeps their alternative text.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except ValueError as error:  # half-written: the run was killed
        raise AllkitError(f"{path} is no complete notebook; run it again before publishing.") from error
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            _replace_live(output.get("data", {}))
            _describe_figure(output)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if _says_something(output)]
    return notebook


def short_names(run: Path, record: Mapping[str, Any], notebooks: Iterable[nbformat.NotebookNode]) -> dict[str, str]:
    """Return path -> short name for what is where on this machine, and on the one where a run was made.

    `record` is what `allkit run` noted about it, `notebooks` are its executed copies.
    """
    here = f"runs/{run.name}"
    names = {sys.prefix: "…", str(ROOT): "…", str(Path.home()): "~", str(run): here}
    for notebook in notebooks:
        given = parameters_of(notebook)
        folder, data = str(given.get("run_folder", "")), str(given.get("data", ""))
        source = str(notebook.metadata.get("papermill", {}).get("input_path", ""))
        clones = (re.fullmatch(r"(.+)[\\/](?:runs|notebooks)[\\/][^\\/]+", path) for path in (folder, source))
        names |= {clone[1]: "…" for clone in clones if clone} | {folder: here, data: f"…/{last_part(data)}"}
    data = str(record.get("data", ""))
    names[data] = f"…/{last_part(data)}"
    return {path: name for path, name in names.items() if re.match(r"[A-Za-z]:|[\\/]", path)}


def parameters_of(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return the parameters that a notebook was executed with: what its code says down to the last cell with a tag."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    wanted = {"parameters", "injected-parameters"}
    last = max((k for k, cell in enumerate(code) if wanted & set(cell.metadata.get("tags", []))), default=-1)
    try:
        found = read_parameters("\n".join(cell.source for cell in code[: last + 1]))
    except SyntaxError:
        return {}
    return {name: value for name, (value, _) in found.items()}


def last_part(path: Any) -> str:
    """Return the name of a file or folder from a path of any system."""
    return re.split(r"[\\/]", str(path).rstrip("\\/"))[-1]


def shorten_paths(text: str, names: Mapping[str, str]) -> str:
    """Return a text with a short name (path -> name) in place of each path, and without homes and library folders."""
    # as Python prints it, a path of Windows has two backslashes for one
    known = {form: name for path, name in names.items() for form in (path, path.replace("\\", "\\\\")) if len(path) > 2}
    if known:
        paths = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
        text = re.sub(rf"{_STARTS}(?:{paths})(?![\w-])", lambda found: known[found[0]], text)
    return re.sub(_HOME, "~", re.sub(_LIBRARY, "…", text))


def shorten_notebook(notebook: nbformat.NotebookNode, names: Mapping[str, str]) -> None:
    """Shorten the paths in all that a notebook from `read_offline` shows, see `shorten_paths`."""
    for cell in notebook.cells:
        cell.source = shorten_paths(cell.source, names)
        for output in cell.get("outputs", []):
            for texts in (output, output.get("data", {})):
                for kind in set(_TEXTS) & set(texts):
                    texts[kind] = shorten_paths(str(texts[kind]), names)
            if "traceback" in output:
                output.traceback = [shorten_paths(line, names) for line in output.traceback]


_TEXTS = ("text", "evalue", "text/plain", "text/html", "text/markdown")
"""Parts of an output, after `read_offline`, that a reader sees as text."""


def _says_something(output: nbformat.NotebookNode) -> bool:
    """Return whether an output holds more than the place of a line of progress that is gone."""
    data = output.get("data", {"text/plain": "stream or error"})
    return any(str(value).strip() for value in data.values())


def _replace_live(data: dict[str, Any]) -> None:
    """Take scripts and widgets out of an output; equations become Markdown, which is converted."""
    data.pop("application/javascript", None)
    if "text/html" in data:  # what one output leaves open must not swallow the next
        data["text/html"] = str(BeautifulSoup(str(data["text/html"]), "html.parser"))
    text = str(data.get("text/plain", ""))
    if data.pop(WIDGET_VIEW, None) and "text/html" not in data and re.match(r"\w*\(|$", text):
        data["text/plain"] = WIDGET_NOTE  # its text would be the widget's Python expression
    if "text/latex" in data and "text/html" not in data:
        data["text/markdown"] = data.pop("text/latex")


def _describe_figure(output: nbformat.NotebookNode) -> None:
    """Turn a figure into an HTML image; nbconvert and MyST-NB both drop its alternative text otherwise."""
    for kind in ("image/png", "image/jpeg"):
        if picture := output.get("data", {}).get(kind):
            alt = output.get("metadata", {}).get(kind, {}).get("alt") or NO_DESCRIPTION
            source = f"data:{kind};base64,{''.join(picture.split())}"
            width = output.get("metadata", {}).get(kind, {}).get("width", 0)  # twice as fine as it is shown
            size = f' width="{int(width)}"' if width else ""
            output.data = nbformat.from_dict({"text/html": f'<img src="{source}" alt="{escape(alt)}"{size}>'})


class _Renderer(IPythonRenderer):
    """Renders the equations that nbconvert's Markdown parser finds; code is not looked at."""

    def block_math(self, body: str) -> str:
        return to_mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return to_mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return to_mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


def render_markdown(source: str, **options: Any) -> str:
    """Return Markdown as HTML, equations as MathML; `options` are those of nbconvert's renderer."""
    return MarkdownWithMath(renderer=_Renderer(escape=False, **options)).render(source)


@pass_context
def _render_cell(context: Mapping[str, Any], source: str) -> str:
    path = context.get("resources", {}).get("metadata", {}).get("path", "")
    attachments = context.get("cell", {}).get("attachments", {})
    return render_markdown(source, attachments=attachments, embed_images=True, path=path)


def escape_markdown(value: Any) -> str:
    """Return text as Markdown that shows it as it is, on one line, also inside a table."""
    escaped = re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", " ".join(str(value).split()))
    return escaped.replace("://", "\\://")  # else an address becomes a link


@cache
def _exporter() -> HTMLExporter:
    """Return nbconvert's exporter of JupyterLab pages, with this project's template and MathML equations."""
    exporter = HTMLExporter(template_name="lab")
    exporter.raw_template = TEMPLATES.loader.get_source(TEMPLATES, "offline.html.j2")[0]
    exporter.register_filter("markdown2html", _render_cell)
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


def stand_alone(html: str) -> str:
    """Remove what would run, or load something from elsewhere; links stay, those to notebooks lead to their pages.

    The page needs no script, and a run folder may be somebody else's.
    """
    page = BeautifulSoup(html, "html.parser")
    for element in page.find_all(_RUNS) + page.find_all("meta", attrs={"http-equiv": True}):
        element.decompose()
    for element in page.find_all(True):
        for name in [name for name in element.attrs if name.startswith("on") or name in ("formaction", "ping")]:
            del element[name]
        for name in ("href", "xlink:href"):
            if re.match(r"[\s\x00-\x1f]*(javascript|vbscript):", element.get(name) or "", re.IGNORECASE):
                del element[name]
    for element in page.find_all(src=True) + page.find_all("link", href=True):
        address = element.get("src") or element.get("href") or ""
        if not address.startswith(("data:", "#")):
            element.replace_with(element.get("alt") or "")
    for element in page.find_all(srcset=True):
        del element["srcset"]
    for link in page.find_all("a", href=re.compile(r"^(?!\w+:)[^#]*\.ipynb(#|$)")):
        link["href"] = link["href"].replace(".ipynb", ".html", 1)
    return str(page)
