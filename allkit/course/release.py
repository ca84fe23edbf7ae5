"""A copy of the notebooks for students, without answers; the solutions go into a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import nbformat
from markupsafe import Markup

from allkit import ROOT, AllkitError, disk_trouble
from allkit.course.exercises import call_of, worked
from allkit.course.offline import TEMPLATES, render_markdown, title_of
from allkit.course.questions import EXERCISES
from allkit.course.quiz import wording_of

HONEST = (
    "The kit itself holds the expected answers (allkit/course/questions) and the worked solutions "
    "(notebooks/solutions, the book): whoever looks there finds them. You may delete notebooks/solutions from the kit "
    "that you hand out; the expected answers are needed to check."
)


def release_notebooks(out: Path, source: Path = ROOT / "notebooks") -> tuple[Path, Path]:
    """Write OUT (notebooks with blank exercises, README.md) and OUT-instructor (solutions); return both folders.

    Raises AllkitError when one of the folders holds anything, or `source` holds no notebooks.
    """
    out = out.expanduser().resolve()
    apart = out.with_name(f"{out.name}-instructor")
    for folder in (out, apart):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise AllkitError(f"{folder} is not empty; name a new folder, nothing is overwritten.")
    paths = sorted(source.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise AllkitError(f"{source} holds no notebooks (NN_name.ipynb).")
    new = [folder.with_name(f".{folder.name}-{os.getpid()}") for folder in (out, apart)]
    try:
        _write_students(paths, new[0])
        _write_instructor(paths, new[1])
        for folder, path in zip(new, (out, apart), strict=True):
            if path.is_dir():
                path.rmdir()
            folder.rename(path)
    except OSError as error:
        raise disk_trouble(error, out) from error
    finally:
        for folder in new:
            shutil.rmtree(folder, ignore_errors=True)
    return out, apart


def _read(path: Path) -> nbformat.NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except ValueError as error:
        raise AllkitError(f"{path} is no complete notebook; save it once more in JupyterLab.") from error


def _write_students(paths: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in paths:
        nbformat.write(without_answers(_read(path)), folder / path.name)
    readme = TEMPLATES.get_template("students.md.j2").render(notebooks=len(paths), first=paths[0].name)
    (folder / "README.md").write_text(readme + "\n", encoding="utf-8")


def without_answers(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook whose exercises are blank; cells that show a solution, and what widgets remember, are gone."""
    notebook.metadata.pop("widgets", None)
    notebook.cells = [
        cell for cell in notebook.cells if cell.cell_type != "code" or not re.search(r"\bsolution\(", cell.source)
    ]
    for cell in notebook.cells:
        asked = re.search(r"""\bcheck\(\s*["'](\d+\.\d+)["']""", cell.source) if cell.cell_type == "code" else None
        if asked:
            known = call_of(asked[1]) if asked[1] in EXERCISES else cell.source[asked.start() :]
            cell.source, cell.outputs, cell.execution_count = f"answer = ...\n{known}", [], None
    return notebook


def _write_instructor(paths: list[Path], folder: Path) -> None:
    """Write every exercise with a solution as one page, and the files of solutions."""
    folder.mkdir(parents=True)
    text = "".join(map(_solutions_of, paths))
    body = Markup(render_markdown(f"# Solutions\n\n{text}", exclude_anchor_links=True))
    page = TEMPLATES.get_template("page.html.j2").render(title="Solutions, for the instructor", body=body)
    (folder / "solutions.html").write_text(page, encoding="utf-8")
    shutil.copytree(
        ROOT / "notebooks" / "solutions", folder / "solutions", ignore=shutil.ignore_patterns("__pycache__")
    )


def _solutions_of(path: Path) -> str:
    """Return the exercises of a notebook, with one way to solve each and why it is right, as Markdown."""
    notebook = _read(path)
    parts = [f"## {path.name[:2]} {title_of(notebook)}\n\n"]
    for number, text in wording_of(notebook).items():
        if number in EXERCISES:
            code = f"```python\n{worked(number)}\n```"
            parts.append(f"### {number}\n\n{text.strip()}\n\n{code}\n\n{EXERCISES[number].why}\n\n")
    return "".join(parts)
