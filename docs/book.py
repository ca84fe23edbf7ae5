"""Builds the book: `python docs/book.py [FOLDER]` writes FOLDER/index.html, by default build/book/index.html.

The pages of this folder and the executed notebooks are collected in a folder beside it, together with what is
computed: the table of times and one page for each module of the library. Then Sphinx takes over.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import shutil
import sys
from pathlib import Path

import nbformat
from sphinx.cmd.build import build_main

import allkit
from allkit.course.exercises import worked
from allkit.course.offline import NO_DESCRIPTION, read_offline, title_of
from allkit.course.questions import EXERCISES

DOCS = Path(__file__).resolve().parent
NOTEBOOKS = allkit.ROOT / "notebooks"


def build_book(out: Path) -> int:
    """Collect the pages beside `out` and build the book there; warnings are errors. Return Sphinx's exit status."""
    source = out.with_name(f"{out.name}-source")
    collect_pages(source, run=allkit.runs_root() / "latest")
    shutil.rmtree(out, ignore_errors=True)
    quiet = ["--quiet", "--fail-on-warning", "--keep-going"]
    doctrees = out.with_name(f"{out.name}-doctrees")
    return build_main([*quiet, "-b", "html", "-E", "-c", str(DOCS), "-d", str(doctrees), str(source), str(out)])


def collect_pages(folder: Path, run: Path) -> None:
    """Write all pages of the book into an empty folder, with the times of a run folder."""
    shutil.rmtree(folder, ignore_errors=True)
    settings = ("conf.py", "book.py", "slides.py", "make_*.py", "*.csv", "static", "templates", "__pycache__")
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns(*settings))
    (folder / "notebooks").mkdir()
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        notebook = read_offline(path)
        if NO_DESCRIPTION in nbformat.writes(notebook):
            raise allkit.AllkitError(f"{path}: a figure has no alternative text; show it with run.show(…, alt=…).")
        _fold_in_solutions(notebook)
        nbformat.write(notebook, folder / "notebooks" / path.name)
    (folder / "generated").mkdir()
    (folder / "generated" / "times.md").write_text(times_table(NOTEBOOKS, run), encoding="utf-8")
    (folder / "generated" / "shows.md").write_text(what_is_shown(NOTEBOOKS), encoding="utf-8")
    _list_guides(folder)
    _write_api(folder)


def _fold_in_solutions(notebook: nbformat.NotebookNode) -> None:
    """Put one way to solve each exercise below it, folded."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if asked := re.search(r'check\("([\d.]+)", answer', cell.source if cell.cell_type == "code" else ""):
            text = f"<details><summary>One way to solve {asked[1]}</summary>\n\n```python\n{worked(asked[1])}\n```\n\n"
            cells.append(nbformat.v4.new_markdown_cell(f"{text}{EXERCISES[asked[1]].why}\n\n</details>"))
    notebook.cells = cells


def what_is_shown(notebooks: Path) -> str:
    """Return by notebook the sentences that its cells display, which the data decide: a definition list in Markdown."""
    lines = []
    for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        said = [output.get("data", {}).get("text/markdown", "").strip() for output in outputs]
        said = [" ".join(text.split()) for text in said if text and not re.match(r"\*\*\d\d\.\d", text)]
        lines += [f"{int(path.name[:2])} · {title_of(notebook)}", *(f": {text}\n" for text in said), ""]
    return "\n".join(lines)


def times_table(notebooks: Path, run: Path) -> str:
    """Return a Markdown table: what each notebook says about reading, and what the last run took."""
    seconds = machine_times(run)
    lines = ["| notebook | what it says of its time | last run |", "|---|---|---|"]
    for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb")):
        took = f"{seconds[path.stem] / 60:.1f} min" if path.stem in seconds else "–"
        lines.append(f"| [](/notebooks/{path.name}) | {reading_time(path)} | {took} |")
    if seconds:
        note = f"The last run took {sum(seconds.values()) / 60:.0f} minutes of machine time in all."
    else:
        note = "No run was found. `make run`, then `make book`, puts the times of your machine into the last column."
    return "\n".join([*lines, "", note, ""])


def reading_time(notebook: Path) -> str:
    """Return the sentences of a notebook's first cell that name minutes or hours."""
    text = nbformat.read(notebook, as_version=4).cells[0].source
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(text.split("\n\n")[-1].split()))
    return " ".join(s for s in sentences if re.search(r"\b(minutes?|hours?)\b", s)) or "not said"


def machine_times(run: Path) -> dict[str, float]:
    """Return the seconds that each notebook of a run took; empty where there is no complete record."""
    try:
        record = json.loads((run / "notebooks.json").read_text(encoding="utf-8"))
        return {name: float(e["seconds"]) for name, e in record["notebooks"].items() if e.get("status") == "done"}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}


def list_modules() -> dict[str, str]:
    """Return a line about each module: the core in its own order, then each package with its modules below it."""
    found = re.findall(r"^- `(\w+)`: (.+?)(?=\n- |\n\n)", allkit.__doc__ or "", re.MULTILINE | re.DOTALL)
    modules = {}
    for name, sentence in found:
        modules[name] = " ".join(sentence.split())
        package = importlib.import_module(f"allkit.{name}")
        for info in pkgutil.iter_modules(getattr(package, "__path__", [])):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            modules[f"{name}.{info.name}"] = (module.__doc__ or "").partition("\n")[0].rstrip(".")
    return modules


def _list_guides(folder: Path) -> None:
    """Put every page that has no place of its own into the list of guides, the instructor's first."""
    others = {"index", "glossary", "references", "api", "instructor"}
    guides = ["instructor", *sorted(path.stem for path in folder.glob("*.md") if path.stem not in others)]
    page = (folder / "index.md").read_text(encoding="utf-8")
    (folder / "index.md").write_text(page.replace("{{GUIDES}}", "\n".join(guides)), encoding="utf-8")


def _write_api(folder: Path) -> None:
    """Write one page for each module, and their list into the page of the library."""
    (folder / "api").mkdir()
    modules = list_modules()
    for name, sentence in modules.items():
        # commands explain themselves (--help), and what a package re-exports stands in its module
        bare = name == "cli" or hasattr(importlib.import_module(f"allkit.{name}"), "__path__")
        body = f"```{{eval-rst}}\n.. automodule:: allkit.{name}\n{'' if bare else '   :members:'}\n```\n"
        (folder / "api" / f"{name}.md").write_text(f"# {name}: {sentence}\n\n{body}", encoding="utf-8")
    listed = "\n".join(f"{'  ' * name.count('.')}- [](api/{name}.md)" for name in modules)
    entries = "\n".join(f"{name} <api/{name}>" for name in modules)  # short names for the side bar
    page = (folder / "api.md").read_text(encoding="utf-8")
    contents = f"{listed}\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```"
    (folder / "api.md").write_text(page.replace("{{MODULES}}", contents), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    target = Path(sys.argv[1] if len(sys.argv) > 1 else allkit.ROOT / "build" / "book").resolve()
    status = build_book(target)
    if status == 0:
        print(f"{target / 'index.html'}")
    raise SystemExit(status)
