"""Builds the book: `python docs/book.py [FOLDER]` writes FOLDER/index.html, by default build/book/index.html.

The pages of this folder and the executed notebooks (with `--run RUN`: those of a run) are collected in a folder beside
it, together with what is computed: the picture of the cover, the table of times and one page for each module of the
library. Then Sphinx takes over, and what its search shows of a page is written to a file beside the pages.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import nbformat
import typer
from bs4 import BeautifulSoup
from sphinx.cmd.build import build_main

import allkit
from allkit import plots
from allkit.course.exercises import worked
from allkit.course.offline import (
    NO_DESCRIPTION,
    escape_markdown,
    last_part,
    parameters_of,
    read_offline,
    render_markdown,
    short_names,
    shorten_notebook,
    stand_alone,
    title_of,
)
from allkit.course.questions import EXERCISES
from allkit.course.times import read_minutes, run_seconds
from allkit.folders import SYNTHETIC, is_run_folder, read_json, read_params, run_path
from allkit.synthetic import draw_cell

DOCS = Path(__file__).resolve().parent
NOTEBOOKS = allkit.ROOT / "notebooks"

_NOT_OURS = "myst.xref_missing,myst.header,misc.highlighting_failure,ref.python"
"""Warnings about the text of a run's notebooks, which may be of another version: no reason to have no book."""


def build_book(out: Path, run: Path | None = None) -> int:
    """Collect the pages beside `out` and build the book there; warnings are errors. Return Sphinx's exit status.

    With a run folder the book shows the notebooks as that run executed them.
    """
    source = out.with_name(f"{out.name}-source")
    collect_pages(source, run)
    shutil.rmtree(out, ignore_errors=True)
    quiet = ["--quiet", "--fail-on-warning", "--keep-going", *(["-D", f"suppress_warnings={_NOT_OURS}"] if run else [])]
    doctrees = out.with_name(f"{out.name}-doctrees")
    status = build_main([*quiet, "-b", "html", "-E", "-c", str(DOCS), "-d", str(doctrees), str(source), str(out)])
    if status == 0:
        _write_excerpts(out)
    return status


def collect_pages(folder: Path, run: Path | None = None) -> None:
    """Write all pages of the book into an empty folder, the notebooks from a run folder where it has them."""
    of_run = find_copies(run) if run else {}
    shutil.rmtree(folder, ignore_errors=True)
    settings = ("conf.py", "book.py", "slides.py", "make_*.py", "*.csv", "static", "templates", "__pycache__")
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns(*settings))
    (folder / "notebooks").mkdir()
    (folder / "generated").mkdir()
    committed = {path.stem: read_offline(path) for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    shown = committed | {name: read_copy(path, run) for name, path in of_run.items()}
    origins = {name: _describe_origin(shown[name], run if name in of_run else None) for name in shown}
    for name, notebook in shown.items():
        if NO_DESCRIPTION in nbformat.writes(notebook):
            _miss_description(name, ours=name not in of_run)
        _write_notebook(notebook, origins[name], folder / "notebooks" / f"{name}.ipynb")
    generated = {"times": times_table(run or allkit.runs_root() / "latest"), "shows": what_is_shown(shown)}
    generated["origin"] = _sum_up(origins)
    for name, text in generated.items():
        (folder / "generated" / f"{name}.md").write_text(text, encoding="utf-8")
    _draw_cover(folder / "generated" / "cover.png")
    _list_guides(folder)
    _write_api(folder)


def _miss_description(name: str, *, ours: bool) -> None:
    problem = f"{name}.ipynb: a figure has no alternative text"
    if ours:
        raise allkit.AllkitError(f"{problem}; show it with run.show(…, alt=…).")
    print(f"note: {problem}")


def _write_notebook(notebook: nbformat.NotebookNode, origin: str, path: Path) -> None:
    """Write a page: below its title where its outputs come from, code that folds, and solutions."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]  # conf.py shows it unfolded
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(f"*Shown {origin}.*"))
    _fold_in_solutions(notebook)
    nbformat.write(notebook, path)


def _draw_cover(path: Path) -> None:
    """Draw the picture of the cover: a strip of synthetic cells, ALL above HEM, light on black."""
    labels, columns = ("ALL", "HEM"), 5
    cells = [draw_cell(label, subject=f"{label} {k}", number=k) for label in labels for k in range(columns)]
    with plots.plt.rc_context():
        plots.use_style()
        axes = plots.plot_images([cell.image[75:375, 75:375] for cell in cells], rows=labels, columns=columns, size=1.2)
        figure = plots.figure_of(axes)
        figure.set_facecolor("black")
        for text in figure.findobj(plots.plt.Text):
            text.set_color("white")
        for ax in axes[:, 0]:
            ax.yaxis.label.set_fontsize(14)
        path.write_bytes(plots.figure_png(figure))


# ---- notebooks of a run --------------------------------------------------------------------------------------


def find_copies(run: Path) -> dict[str, Path]:
    """Return the executed copies in a run folder of the notebooks that the book has, by name."""
    names = sorted(path.name for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    found = {path.stem: path for path in (run / "notebooks" / name for name in names) if path.is_file()}
    if not is_run_folder(run) or not found:
        raise allkit.AllkitError(f"{run} holds no executed notebooks to show; make some with `allkit run`.")
    return found


def read_copy(path: Path, run: Path) -> nbformat.NotebookNode:
    """Return an executed copy as the book can show it: without paths of a machine, and harmless.

    A run folder may be somebody else's. The copy runs and includes nothing when the book is built, and runs nothing
    when it is read: no directives, roles, HTML and pictures in its text, no scripts in its outputs.
    """
    notebook = read_offline(path)
    shorten_notebook(notebook, short_names(run, _record(run), [notebook]))
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    notebook.metadata = nbformat.from_dict(python)
    wanted = [cell for cell in notebook.cells if cell.cell_type != "raw" and not _is_marker(cell)]
    for cell in wanted:
        cell.metadata = nbformat.from_dict({})
        cell.pop("attachments", None)
        if cell.cell_type == "markdown":
            cell.source = "\n" + plain_text(cell.source)  # front matter begins in the first line
        for output in cell.get("outputs", []):
            output.update({"metadata": {}, "data": _harmless(output.data)} if "data" in output else {})
    notebook.cells = wanted
    return notebook


def _is_marker(cell: nbformat.NotebookNode) -> bool:
    """Return whether papermill put a cell in to say which one failed."""
    return "papermill-error-cell-tag" in cell.metadata.get("tags", [])


def plain_text(text: str) -> str:
    """Return Markdown in which directives, roles, pictures and HTML have become text."""
    text = re.sub(r"([`~:]{3,})[^\S\n]*\{", r"\1", text)
    text = re.sub(r"(\{[\w.:+-]+\})`", r"\1 `", text)
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("![", "[")


def _harmless(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the best form of an output that runs nothing; Markdown as HTML, since it may hold some."""
    if "text/html" in data:
        return {"text/html": stand_alone(data["text/html"])}
    if "text/markdown" in data:
        text = data["text/markdown"]
        return {"text/html": stand_alone(render_markdown(text)), "text/markdown": text}
    return {"text/plain": data.get("text/plain", "")}


def _record(run: Path) -> dict[str, Any]:
    """Return what `allkit run` noted about a run; empty for one that was stepped through by hand."""
    return read_json(run / "notebooks.json") if (run / "notebooks.json").exists() else {}


def _describe_origin(notebook: nbformat.NotebookNode, run: Path | None) -> str:
    """Return in words where the outputs of a notebook come from, and of which images they are; Markdown."""
    if run is None:
        kind = "synthetic cells" if parameters_of(notebook).get("data") == SYNTHETIC else "genuine images"
        return f"as committed, executed on **{kind}**"
    record, params = _record(run), read_params(run)
    data = str(params["data"]["source"] if params else record.get("data", ""))
    profile = record.get("profile") or ", ".join(params.get("profiles", []))
    name = "**synthetic cells**" if data == SYNTHETIC else f"**genuine images** ({escape_markdown(last_part(data))})"
    day = _day(record.get("created") or params.get("created"))
    return f"as in the run “{escape_markdown(run.name)}”{day}, executed on {name}, profile {escape_markdown(profile)}"


def _day(when: Any) -> str:
    """Return " of 26 November 2026" for a time stamp, nothing where it is none."""
    try:
        day = datetime.fromisoformat(when)
        return f" of {day.day} {day:%B %Y}"
    except (TypeError, ValueError):
        return ""


def _sum_up(origins: Mapping[str, str]) -> str:
    """Return the sentence of the cover: which notebooks are shown as executed where."""
    groups: dict[str, list[str]] = {}
    for name, origin in origins.items():
        groups.setdefault(origin, []).append(name[:2])
    if len(groups) == 1:
        return f"This book shows the notebooks {next(iter(groups))}.\n"
    each = [f"notebooks {', '.join(numbers)} {origin}" for origin, numbers in sorted(groups.items(), reverse=True)]
    return f"This book shows {'; '.join(each)}.\n"


# ---- what is computed ----------------------------------------------------------------------------------------


def _fold_in_solutions(notebook: nbformat.NotebookNode) -> None:
    """Put one way to solve each exercise below it, folded."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if asked := re.search(r'check\("([\d.]+)", answer', cell.source if cell.cell_type == "code" else ""):
            text = f"<details><summary>One way to solve {asked[1]}</summary>\n\n```python\n{worked(asked[1])}\n```\n\n"
            cells.append(nbformat.v4.new_markdown_cell(f"{text}{EXERCISES[asked[1]].why}\n\n</details>"))
    notebook.cells = cells


def what_is_shown(notebooks: Mapping[str, nbformat.NotebookNode]) -> str:
    """Return by notebook the sentences that its cells display, which the data decide: a definition list in Markdown."""
    lines = []
    for name, notebook in notebooks.items():
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        said = [output.get("data", {}).get("text/markdown", "").strip() for output in outputs]
        said = [" ".join(text.split()) for text in said if text and not re.match(r"\*\*\d\d\.\d", text)]
        lines += [
            f"{int(name[:2])} · {plain_text(title_of(notebook))}",
            *(f": {plain_text(text)}\n" for text in said),
            "",
        ]
    return "\n".join(lines)


_EXERCISE_MINUTES = {"look": 3, "compute": 5, "change": 8, "explain": 4}
"""How long an exercise of each level takes in class; to explain means to talk."""


def times_table(run: Path) -> str:
    """Return a Markdown table: how long each notebook takes to read, as it says itself, and what the last run took."""
    seconds, minutes = run_seconds(run), read_minutes()
    lines = ["| notebook | minutes to read, about | last run |", "|---|---|---|"]
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        took = f"{seconds[path.stem] / 60:.1f} min" if path.stem in seconds else "–"
        lines.append(f"| [](/notebooks/{path.name}) | {minutes[path.name[:2]]} | {took} |")
    if seconds:
        note = f"The last run took {sum(seconds.values()) / 60:.0f} minutes of machine time in all."
    else:
        note = "No run was found. `allkit run`, then `allkit book`, puts the times of your machine in the last column."
    hours = sum(_EXERCISE_MINUTES[exercise.level] for exercise in EXERCISES.values()) / 60
    asked = ", ".join(f"{each} minutes where it says *{level}*" for level, each in _EXERCISE_MINUTES.items())
    done = f"An exercise takes about {asked}: {hours:.0f} hours for all {len(EXERCISES)}."
    return "\n".join([*lines, "", note, "", done, ""])


def list_modules() -> dict[str, str]:
    """Return a line about each module: the core in its own order, then each package with its modules below it."""
    found = re.findall(r"^- `(\w+)`: (.+?)(?=\n- |\n\n)", allkit.__doc__ or "", re.MULTILINE | re.DOTALL)
    modules = {}
    for name, sentence in found:
        modules[name] = " ".join(sentence.split())
        package = importlib.import_module(f"allkit.{name}")
        for info in pkgutil.walk_packages(getattr(package, "__path__", []), f"{package.__name__}."):
            module = importlib.import_module(info.name)
            modules[info.name.partition(".")[2]] = (module.__doc__ or "").partition("\n")[0].rstrip(".")
    return modules


def _list_guides(folder: Path) -> None:
    """Put every page that has no place of its own into the list of guides, the instructor's first."""
    others = {"index", "glossary", "references", "api", "instructor", "results"}
    guides = ["instructor", *sorted(path.stem for path in folder.glob("*.md") if path.stem not in others)]
    page = (folder / "index.md").read_text(encoding="utf-8")
    (folder / "index.md").write_text(page.replace("{{GUIDES}}", "\n".join(guides)), encoding="utf-8")


def _write_api(folder: Path) -> None:
    """Write one page for each module, and their list into the page of the library."""
    (folder / "api").mkdir()
    modules = list_modules()
    for name, sentence in modules.items():
        # commands explain themselves (--help), and what a package re-exports stands in its module
        bare = name.startswith("cli") or hasattr(importlib.import_module(f"allkit.{name}"), "__path__")
        body = f"```{{eval-rst}}\n.. automodule:: allkit.{name}\n{'' if bare else '   :members:'}\n```\n"
        (folder / "api" / f"{name}.md").write_text(f"# {name}: {sentence}\n\n{body}", encoding="utf-8")
    listed = "\n".join(f"{'  ' * name.count('.')}- [](api/{name}.md)" for name in modules)
    entries = "\n".join(f"{name} <api/{name}>" for name in modules)  # short names for the side bar
    page = (folder / "api.md").read_text(encoding="utf-8")
    contents = f"{listed}\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```"
    (folder / "api.md").write_text(page.replace("{{MODULES}}", contents), encoding="utf-8")


# ---- search --------------------------------------------------------------------------------------------------

_BLOCKS = {"p", "div", "section", "pre", "table", "tr", "td", "th", "li", "dt", "dd", "br", "h1", "h2", "h3", "h4"}


def _write_excerpts(out: Path) -> None:
    """Write the text of all pages into _static/excerpts.js, for excerpts of what was found in a search.

    Sphinx's search fetches the pages that it found, which a browser refuses where the book was opened as a file; a
    script it may load. Of the tags, those with an id stay: the search looks below the heading that it found.
    """
    texts = {str(path.relative_to(out).as_posix()): _text_of(path) for path in sorted(out.rglob("*.html"))}
    script = json.dumps({name: text for name, text in texts.items() if text}, ensure_ascii=False)
    (out / "_static" / "excerpts.js").write_text(f"const EXCERPTS = {script};\n", encoding="utf-8")


def _text_of(path: Path) -> str:
    without_pictures = re.sub(r'src="data:[^"]*"', "", path.read_text(encoding="utf-8"))
    page = BeautifulSoup(without_pictures, "html.parser")
    article = page.select_one("article.bd-article")
    if article is None:
        return ""
    for gone in article.select(".headerlink, script, style, img, summary"):
        gone.decompose()
    for term in article.select("dl.glossary dt[id]"):  # a word that was found says what it means
        term.append(f" {term.find_next_sibling('dd').get_text()}")
    for meaning in article.select("dl.glossary dd"):
        meaning.decompose()
    for tag in article.find_all(True):
        if tag.name in _BLOCKS:
            tag.insert_after(" ")
        if not tag.get("id"):
            tag.unwrap()
        else:
            tag.attrs = {"id": tag["id"]}
    return f'<div role="main">{" ".join(article.decode_contents().split())}</div>'


def main(
    folder: Annotated[Path, typer.Argument(help="Where the book is written.")] = allkit.ROOT / "build" / "book",
    run: Annotated[str, typer.Option(metavar="RUN", help="Show the notebooks of this run: a name, or a path.")] = "",
) -> None:
    """Build the book."""
    plots.plt.switch_backend("Agg")
    try:
        status = build_book(folder.resolve(), run_path(run) if run else None)
    except allkit.AllkitError as error:
        typer.echo(f"book: {allkit.printable(str(error))}", err=True)
        raise typer.Exit(1) from error
    if status == 0:
        typer.echo(folder.resolve() / "index.html")
    raise typer.Exit(status)


if __name__ == "__main__":
    typer.run(main)
