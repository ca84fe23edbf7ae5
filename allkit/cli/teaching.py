"""Commands for those who learn and teach, and for the kit itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from allkit import ROOT
from allkit.cli.base import app, class_app, echo_json, echo_table, one_line, say

if TYPE_CHECKING:
    import pandas as pd


@app.command()
def progress(
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one row per exercise.")] = None,
    answers: Annotated[
        Literal["on", "off"] | None,
        typer.Option(help="Keep your wrong answers from now on, or keep none and delete those kept. [off]"),
    ] = None,
) -> None:
    """Sum up, by notebook, which exercises were solved on this machine."""
    from allkit import saving
    from allkit.course.exercises import keep_answers, load_progress, progress_path, summarise_progress

    if answers:
        say(keep_answers(answers == "on"))
        return
    found, trouble = load_progress()
    by_notebook = summarise_progress(found)
    if trouble:
        say(trouble, err=True)
    if csv:
        with saving(csv) as temporary:
            found.to_csv(temporary, index=False)
        say(f"One row per exercise: {csv}", err=as_json)
    if as_json:
        echo_json({"notebooks": by_notebook.reset_index(), "exercises": found})
    elif not csv:
        _echo_progress(by_notebook, str(progress_path()))


def _echo_progress(by_notebook: pd.DataFrame, kept: str) -> None:
    from allkit.course.exercises import answers_path

    solved = [f"{row.done} of {row.exercises}" for row in by_notebook.itertuples()]
    shown = by_notebook[["first_try", "tries"]].rename(columns={"first_try": "at the first try"})
    shown.insert(0, "solved", solved)
    echo_table(shown.rename_axis("notebook").reset_index())
    total = by_notebook.sum()
    if total["tries"]:
        say(f"\n{total['done']} of {total['exercises']} solved, {total['tries']} tries; kept in {kept}.")
    else:
        say('\nNothing was answered yet: the notebooks end in exercises, answered with check("01.1", answer).')
    if answers_path().exists():
        say(f"Wrong answers are kept too, in {answers_path()}; `allkit progress --answers off` deletes them.")


@class_app.command()
def collect(
    folder: Annotated[Path, typer.Argument(help="Files of progress as students handed them in, in folders or not.")],
    names: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Columns file and name: what to call whom. [folder or file name]")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for class.csv and class.html.")] = Path(),
) -> None:
    """Put what a class hands in into one table and one page: progress, and, from who agreed, wrong answers and games.

    What was handed in from hospitals (hospital.json of notebook 18) is graded by computing it again, about half a
    minute each the first time. Nothing leaves this machine. Files that cannot be used are named, with the reason.
    """
    from allkit.course.classroom import load_classroom, write_class

    room = load_classroom(folder, names, ignore=[out / name for name in ("class.csv", "class.html", "hospitals.csv")])
    for note in room.notes:
        say(one_line(note), err=True)
    if room.hospitals:
        from allkit.course.hospitals import grade_all

        room.graded = grade_all(room.hospitals)
    csv, page = write_class(room, out)
    say(
        f"Students: {len(room.progress)}; with wrong answers: {len(room.answers)}; "
        f"with answers of the game: {len(room.readers)}; notes: {len(room.notes)}"
    )
    say(f"Table: {csv}\nPage: {page}")
    if room.graded is not None:
        say(f"Hospitals graded: {len(room.graded)}, in {out / 'hospitals.csv'}")


@class_app.command()
def quiz(
    format: Annotated[Literal["qti", "moodle"], typer.Option(help="QTI 1.2 for Canvas and others, or Moodle XML.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="[allkit-quiz.zip or allkit-quiz.xml]")] = None,
) -> None:
    """Write the exercises that need no kernel, and the exam questions, as a bank for a learning platform."""
    from allkit.course.quiz import describe_bank, load_bank, write_moodle, write_qti

    bank = load_bank()
    if format == "qti":
        path = write_qti(bank, out or Path("allkit-quiz.zip"))
        said = "the general feedback, which students may see after handing in"
    else:
        path, said = write_moodle(bank, out or Path("allkit-quiz.xml")), "information for graders"
    say(f"{describe_bank(bank)}\nThe model answers of the exam are {said}.\nBank: {path}")


@class_app.command()
def release(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder; the solutions go into OUT-instructor.")],
    notebooks: Annotated[Path, typer.Option(metavar="DIR", help="Notebooks of your own.")] = ROOT / "notebooks",
) -> None:
    """Copy the notebooks for students, without answers and solutions; the solutions go apart."""
    from allkit.course.release import HONEST, release_notebooks

    students, instructor = release_notebooks(out, notebooks)
    say(f"For students: {students}\nFor the instructor: {instructor / 'solutions.html'}\n{HONEST}")


@app.command(name="test")
def check_kit(
    only: Annotated[
        Literal["lint", "notebooks", "units"] | None,
        typer.Option(help="One step alone; the units use the models of the notebooks."),
    ] = None,
) -> None:
    """Check the kit: lint, then every notebook, then the unit tests, as `make test` does; ends at what fails first."""
    from allkit.course.tools import run_checks

    raise typer.Exit(run_checks(only or ""))


@app.command()
def book(
    run: Annotated[
        str, typer.Option(metavar="RUN", help="Show the notebooks of this run, not the committed ones.")
    ] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where index.html is written.")] = ROOT / "build" / "book",
) -> None:
    """Build the notebooks, a glossary and the guides as a book that needs no network."""
    from allkit.course.tools import run_script

    raise typer.Exit(run_script("book.py", str(out), *(["--run", run] if run else []), extra="book"))


@app.command()
def slides(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where the slides are written.")] = ROOT / "build/slides",
) -> None:
    """Make slides of notebooks 01, 03 and 09 that need no network."""
    from allkit.course.tools import run_script

    raise typer.Exit(run_script("slides.py", str(out)))
