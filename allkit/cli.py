"""The command line, `allkit` or `python -m allkit`; `allkit --help` lists its commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from allkit import ROOT, AllkitError, __version__, printable

if TYPE_CHECKING:
    import subprocess

    import pandas as pd

    from allkit.classify import Result
    from allkit.course.ledger import Comparison
    from allkit.course.notebooks import NotebookResult, NotebooksResult


class _Pairs(TyperCommand):
    """A command whose -p takes two words, NAME VALUE, which Typer's lists do not."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _join_pairs(args))


def _join_pairs(args: list[str]) -> list[str]:
    """Turn each `-p NAME VALUE` into `-p NAME=VALUE`."""
    joined, rest = [], list(args)
    while rest:
        joined.append(rest.pop(0))
        if joined[-1] in ("-p", "--parameter") and rest:
            name = rest.pop(0)
            joined.append(f"{name}={rest.pop(0)}" if "=" not in name and rest else name)
    return joined


Profile = Literal["quick", "paper", "honest"]
Network = Literal["mobilenet", "efficientnetb3"]
Data = Annotated[str, typer.Option(metavar="synthetic|PATH", help="Drawn cells, or a data set.")]
Model = Annotated[str, typer.Option(metavar="RUN_OR_FILE", help="A run, or a .keras file.")]
Layout = Annotated[
    str, typer.Option(metavar="LEVELS", help="What folders mean, from the top: part/class/subject, */class.")
]
Positive = Annotated[str, typer.Option(metavar="CLASS", help="The class that is to be found.")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a run.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
data_app = typer.Typer(no_args_is_help=True, help="Check a data set, or draw a synthetic one.")
app.add_typer(data_app, name="data")
class_app = typer.Typer(no_args_is_help=True, help="Teach a class: collect progress, make a quiz, release notebooks.")
app.add_typer(class_app, name="class")


def _print_version(wanted: bool) -> None:
    if wanted:
        _say(f"allkit {__version__}")
        raise typer.Exit


@app.callback()
def _allkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Teach and analyse the classification of leukemia cell images. Not a diagnosis."""


@app.command(cls=_Pairs)
def run(
    profile: Annotated[Profile, typer.Option(help="How the models are trained.")] = "quick",
    data: Data = "synthetic",
    only: Annotated[str, typer.Option(metavar="01,03", help="Numbers of the notebooks to run.")] = "",
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="Set a parameter; 04.NAME: in one notebook only."),
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Run folder: a name below runs/, or a path. [latest; of a sweep: sweep]")
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Skip what is done.")] = False,
    notebook: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One notebook from anywhere, in place of all.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=V1,V2", help="One run for each value; repeated: for each combination of values."),
    ] = None,
    layout: Layout = "",
    positive: Positive = "",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Sweep: runs at once on this machine. [as cores and memory allow]")
    ] = None,
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Sweep: a Dask cluster that sees the same files at the same paths.")
    ] = "",
) -> None:
    """Execute the notebooks in order and publish the report of the run; or make many runs at once (--sweep)."""
    options = {"profile": profile, "data": data, "only": only, "out": out or None, "resume": resume}
    options |= {"parameters": _pairs(parameter or [])} | ({"notebooks": notebook} if notebook else {})
    options |= {"layout": layout, "positive": positive}
    if sweep:
        if workers and scheduler:
            raise typer.BadParameter("--workers is for this machine, --scheduler for a cluster; choose one.")
        _run_sweep(_grid(sweep), options | {"workers": workers, "scheduler": scheduler or None})
    elif workers or scheduler:
        raise typer.BadParameter("--workers and --scheduler are for sweeps; add --sweep NAME=V1,V2.")
    else:
        _run_once(options)


def _run_once(options: dict[str, Any]) -> None:
    from allkit.course.notebooks import run_notebooks

    result = run_notebooks(**options, reporter=_report, announce=_say, progress=True)
    if result.status == "interrupted":
        _stop(options["out"])
    from allkit.course.report import publish_report  # waits for TensorFlow

    _say(f"Report: {publish_report(result.path)}")
    if not result.ok:
        raise typer.Exit(1)


def _report(result: NotebookResult) -> None:
    """Print how a notebook went, on one line; an error also names the cell and the executed copy."""
    _say(f"{result.name:<28} {result.status:<12} {result.seconds:6.0f} s")
    if result.status == "failed":
        where = f"cell In [{result.cell}]" if result.cell else "the notebook"
        _say(f"  {where}: {result.error}\n  executed copy: {result.copy}", err=True)


def _run_sweep(grid: dict[str, list[str]], options: dict[str, Any]) -> None:
    """Make a sweep; print a line for each run as it ends, and all of them as `allkit runs` does."""
    from math import prod

    from allkit.course.ledger import find_runs, list_runs
    from allkit.course.notebooks import run_sweep

    left = prod(map(len, grid.values()))
    _say(f"Runs, one for each combination of values: {left}")

    def report(run: NotebooksResult) -> None:
        nonlocal left
        left -= 1
        _say(f"{run.path.name:<40} {run.status:<8} {run.seconds:6.0f} s   {left} to go")
        if run.error:
            _say(f"  {run.error}\n  run folder: {run.path}", err=True)

    try:
        results = run_sweep(grid, **options, publish=_publish_apart, reporter=report)
    except KeyboardInterrupt:
        _stop(options["out"])
    folder = results[0].path.parent
    _say(f"\nSweep: {folder}\n")
    _echo_runs(list_runs(find_runs(folder)))
    if not all(run.ok for run in results):
        raise typer.Exit(1)


def _publish_apart(path: Path) -> None:
    """Publish a run in a process of its own, so that the workers of a sweep hold no TensorFlow."""
    import subprocess

    command = [sys.executable, "-m", "allkit", "publish", str(path)]
    # in a session of its own: Ctrl-C is for the sweep to answer
    done = subprocess.run(command, capture_output=True, encoding="utf-8", start_new_session=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise AllkitError(f"the report of {path} was not written: {said[-1]}")


def _stop(out: str | None) -> None:
    command = f"allkit run --resume{f' --out {out}' if out else ''}"
    _say(f"Stopped; what is done is kept. Go on with the same options and `{command}`.", err=True)
    raise typer.Exit(130)


def _grid(sweeps: list[str]) -> dict[str, list[str]]:
    grid = {}
    for text in sweeps:
        name, equals, values = text.partition("=")
        name, read = name.strip(), [value.strip() for value in values.split(",")]
        if not equals or not name or not all(read):
            raise typer.BadParameter(f"--sweep {text} lacks a value; write --sweep NAME=V1,V2.")
        if name in grid:
            raise typer.BadParameter(f"--sweep {name} is given twice; write all its values in one.")
        grid[name] = read
    return grid


def _pairs(parameters: list[str]) -> dict[str, str]:
    pairs = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"-p {text} lacks a value; write -p NAME VALUE.")
        pairs[name] = value
    return pairs


@app.command(cls=_Pairs)
def tune(
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the search.")] = "paper",
    trials: Annotated[int, typer.Option(min=1, help="Finished trials at least, over all processes.")] = 20,
    profile: Annotated[Profile, typer.Option(help="What is not searched comes from here.")] = "quick",
    model: Annotated[Network, typer.Option(help="The network.")] = "mobilenet",
    data: Data = "synthetic",
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="A setting to hold fixed. Repeatable."),
    ] = None,
    storage: Annotated[str, typer.Option(metavar="FILE|URL", help="SQLite file, or URL of a database.")] = "",
    out: Annotated[str, typer.Option(metavar="DIR", help="Run folder: a name below runs/, or a path.")] = "latest",
    jobs: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    helper: Annotated[bool, typer.Option("--helper", hidden=True)] = False,
) -> None:
    """Search batch size, learning rate and epochs, by the balanced accuracy on validation images.

    Start it with the same options in as many places as you like: all that see the storage work on one search. By
    default it is an SQLite file in the run folder. Ctrl-C loses nothing; the same command goes on.
    """
    from allkit.lessons.tuning import describe_best, describe_trial, run_trials, start_tuning

    helpers = []
    try:
        if jobs > 1:  # TensorFlow takes all cores otherwise; it reads this when it is imported
            os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        given = _pairs(parameter or [])
        search, score = start_tuning(
            name, data=data, profile=profile, model=model, parameters=given, storage=storage, out=out
        )
        helpers = [_start_again("--jobs", "1", "--helper") for _ in range(jobs - 1)]
        run_trials(search, score, trials, callbacks=[lambda _, trial: _say(describe_trial(trial))])
        failed = [process for process in helpers if process.wait()]
    except KeyboardInterrupt:
        for process in helpers:
            process.wait()
        if not helper:
            _say("Stopped; what is done is kept. Go on with the same command.", err=True)
        raise typer.Exit(130) from None
    if helper:
        return
    _say(describe_best(search))
    if failed:
        raise typer.Exit(1)


def _start_again(*options: str) -> subprocess.Popen:
    """Start this very command in another process, with further options."""
    import subprocess

    return subprocess.Popen([sys.executable, "-m", "allkit", *sys.argv[1:], *options])


@app.command()
def lab(
    folder: Annotated[Path, typer.Option(help="Where your copies lie.")] = ROOT / "my-notebooks",
    start: Annotated[bool, typer.Option("--start/--no-start", help="Open JupyterLab there.")] = True,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="-- OPTION", help="After two dashes: options of JupyterLab.")
    ] = None,
) -> None:
    """Copy the notebooks to a folder of your own, and open it in JupyterLab; what you edited there is kept."""
    import subprocess

    from allkit.course.my_notebooks import copy_notebooks

    for name, what in copy_notebooks(folder).items():
        _say(f"{name:<40} {what}")
    if start:
        command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", *(options or [])]
        raise typer.Exit(subprocess.run(command, check=False).returncode)


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


@app.command()
def publish(run_folder: RunFolder) -> None:
    """Publish a run folder again, as web pages that need no network."""
    from allkit.course.report import publish_report

    _say(f"Report: {publish_report(run_folder)}")


@app.command()
def runs(
    folders: Annotated[list[str] | None, typer.Argument(metavar="RUN", help="Names or paths.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
) -> None:
    """List all runs (without a name), or one (or those in a folder); with two names, compare these runs.

    A comparison shows the settings that differ, and compares the predictions of each model in pairs where both runs
    tested it on the same images.
    """
    from allkit.course.ledger import compare_runs, find_runs, find_sweeps, list_runs
    from allkit.folders import run_path

    paths = [run_path(folder) for folder in folders or []]
    if len(paths) > 2:
        raise typer.BadParameter("name two runs to compare them, one to see it, none to list all.")
    if len(paths) == 2:
        found = compare_runs(*paths)
        # as records, the tables would lose their index of measures
        measures = {title: table.to_dict("index") for title, table in found.measures.items()}
        content = {"settings": found.settings, "notes": found.notes, "measures": measures}
        _echo_json(content) if as_json else _echo_comparison(found)
        return
    listed = list_runs(find_runs(*paths))
    if as_json:
        _echo_json(listed)
        return
    _echo_runs(listed)
    for sweep in [] if paths else find_sweeps():
        _say(f"{sweep.name}: a sweep; `allkit runs {sweep.name}` lists its runs")


def _echo_runs(listed: pd.DataFrame) -> None:
    from allkit.course.ledger import runs_as_text
    from allkit.evaluate import FEWEST_UNITS

    good = listed[listed["trouble"] == ""]
    if len(good):
        _echo_table(runs_as_text(good))
        _say(
            "\nIn brackets: 95 % bootstrap intervals; the column `resampled` says over what, and how many the smaller "
            f"class has.\nInconclusive: fewer than {FEWEST_UNITS}. `data` and `split` end in the start of their hash."
        )
    for row in listed[listed["trouble"] != ""].to_dict("records"):
        _say(_one_line(f"{row['run']}: {row['trouble']}"))


def _echo_comparison(found: Comparison) -> None:
    from allkit.course.ledger import differences_as_text

    _say("Settings that differ:" if len(found.settings) else "No setting differs.")
    if len(found.settings):
        _echo_table(found.settings)
    for title, table in found.measures.items():
        _say(f"\n{title}, first minus second:")
        _echo_table(differences_as_text(table))
        _say(
            f"Interval: 95 % paired bootstrap over {table['resampled'].iat[0]} ({table['units'].iat[0]} in the smaller "
            "class), both runs resampled together."
        )
    for title, note in found.notes.items():
        _say(f"\n{title}: {_one_line(note)}")


def _echo_table(table: pd.DataFrame) -> None:
    """Print a table in columns that are as wide as they need, left-aligned."""
    lines = [list(table), *([_one_line(str(value)) for value in row] for row in table.itertuples(index=False))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        _say("  ".join(map(str.ljust, line, widths)).rstrip())


def _echo_json(content: Any) -> None:
    import json

    from allkit.folders import to_plain

    _say(json.dumps(to_plain(content), indent=2))


@app.command()
def card(
    run_folder: RunFolder,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for both files.")] = None,
) -> None:
    """Write the model card of a run, from its folder alone, as card.html and card.md."""
    from allkit.course.card import write_card

    for path in write_card(run_folder, out):
        _say(f"Card: {path}")


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
        _say(keep_answers(answers == "on"))
        return
    found, trouble = load_progress()
    by_notebook = summarise_progress(found)
    if trouble:
        _say(trouble, err=True)
    if csv:
        with saving(csv) as temporary:
            found.to_csv(temporary, index=False)
        _say(f"One row per exercise: {csv}", err=as_json)
    if as_json:
        _echo_json({"notebooks": by_notebook.reset_index(), "exercises": found})
    elif not csv:
        _echo_progress(by_notebook, str(progress_path()))


def _echo_progress(by_notebook: pd.DataFrame, kept: str) -> None:
    from allkit.course.exercises import answers_path

    solved = [f"{row.done} of {row.exercises}" for row in by_notebook.itertuples()]
    shown = by_notebook[["first_try", "tries"]].rename(columns={"first_try": "at the first try"})
    shown.insert(0, "solved", solved)
    _echo_table(shown.rename_axis("notebook").reset_index())
    total = by_notebook.sum()
    if total["tries"]:
        _say(f"\n{total['done']} of {total['exercises']} solved, {total['tries']} tries; kept in {kept}.")
    else:
        _say('\nNothing was answered yet: the notebooks end in exercises, answered with check("01.1", answer).')
    if answers_path().exists():
        _say(f"Wrong answers are kept too, in {answers_path()}; `allkit progress --answers off` deletes them.")


@app.command()
def classify(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Image files.")],
    model: Model = "latest",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per file instead of a line.")] = False,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Instead of the model's own.")] = None,
) -> None:
    """Say ALL or HEM for each image file, or why not. For teaching, not a diagnosis.

    One line per file, in order: name, label (or "rejected"), probability of the first class, reasons. Exit code 1
    when a file could not be read. Of a run with several models the first answers.
    """
    from allkit.classify import classify_files
    from allkit.models import load_models

    images = _expand(images)
    title, trained = next(iter(load_models(_model_path(model), lazily=True).items()))
    kind = "synthetic" if trained.metadata["data"]["source"] == "synthetic" else "genuine"
    _say(f"{title}, trained on {kind} images. For teaching. This is not a diagnosis.", err=True)
    unread = 0
    for name, answer in zip(images, classify_files(images, trained, threshold=threshold), strict=True):
        unread += isinstance(answer, AllkitError)
        _say(_as_json(name, answer) if as_json else _as_line(name, answer))
    if unread:
        raise typer.Exit(1)


def _expand(names: list[str]) -> list[str]:
    """Return names of files, those with * or ? replaced by what they match: cmd.exe leaves that to the program."""
    from glob import glob

    expanded = []
    for name in names:
        wild = ("*" in name or "?" in name) and not os.path.exists(name)
        # in brackets stands what belongs to a name, as for cmd.exe
        expanded += (sorted(glob(name.replace("[", "[[]"))) if wild else []) or [name]
    return expanded


def _model_path(model: str) -> Path:
    from allkit.folders import run_path

    return Path(model) if model.endswith(".keras") else run_path(model)


def _as_line(name: str, answer: Result | AllkitError) -> str:
    shown = printable(name).replace("\n", "\\n")
    if isinstance(answer, AllkitError):
        return f"{shown}: no answer: {_one_line(str(answer))}"
    first, probability = next(iter(answer.probabilities.items()))
    words = f"{shown}: {answer.label or 'rejected'} (probability of {first} {probability:.3f})"
    return f"{words}: {'; '.join(answer.reasons.values())}" if answer.rejected else words


def _one_line(text: str) -> str:
    """Return a text on one line, with control characters written as escapes."""
    return printable(" ".join(text.split("\n")))


def _as_json(name: str, answer: Result | AllkitError) -> str:
    import json

    from allkit.folders import to_plain

    if isinstance(answer, AllkitError):
        return json.dumps({"file": name, "label": None, "rejected": True, "error": str(answer)})
    row = {"file": name, "label": answer.label, "rejected": answer.rejected, "reasons": dict(answer.reasons)}
    probabilities = {key: round(p, 6) for key, p in answer.probabilities.items()}
    return json.dumps(to_plain(row | {"probabilities": probabilities, "threshold": answer.threshold}))


@app.command(name="app")
def serve(
    model: Model = "latest",
    port: Annotated[int, typer.Option(min=1, max=65535, help="On this machine only (127.0.0.1).")] = 8866,
    kernels: Annotated[int, typer.Option(min=2, help="Visitors at once, and one kept warm.")] = 4,
    idle: Annotated[int, typer.Option(min=10, help="Seconds after which an idle visitor's kernel ends.")] = 600,
    host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name that a proxy in front of it has. Repeatable.")
    ] = None,
    base_url: Annotated[str, typer.Option(metavar="PATH", help="Path under which a proxy shows it.")] = "/",
) -> None:
    """Serve the upload cell as a page on this machine, until Ctrl-C. For teaching, not a diagnosis."""
    from allkit.app.page import check_port, serve_page
    from allkit.folders import find_models

    check_port(port)
    path = _model_path(model).resolve()
    find_models(path)  # says at once what is missing, rather than on the page

    def announce(address: str) -> None:
        _say(f"Page: {address} (Ctrl-C ends it). For teaching. This is not a diagnosis.")

    serve_page(path, port, kernels=kernels, idle=idle, hosts=host or [], base_url=base_url, announce=announce)


@app.command()
def paper() -> None:
    """Check the paper against its own tables and the data set's list of files; print the verdicts."""
    import textwrap

    from allkit.lessons.paper import audit_paper

    for row in audit_paper().to_dict("records"):
        _say(f"{row['verdict'].upper()}: {row['claim']} ({row['where']})")
        for word in ("stated", "found"):
            _say(textwrap.fill(row[word], 100, initial_indent=f"  {word:<7}", subsequent_indent=" " * 9))


@data_app.command()
def check(
    path: Annotated[Path, typer.Argument(help="Folder of a data set, a CSV, or a TOML that describes one.")],
    layout: Layout = "",
    positive: Positive = "",
) -> None:
    """Say what a data set is, and what is wrong with it; exit code 1 only for what is wrong."""
    from allkit.course.check_data import check_data

    found = check_data(path, layout=layout, positive=positive)
    _say(found.to_text())
    if not found.ok:
        raise typer.Exit(1)


@data_app.command()
def make(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    images: Annotated[int, typer.Option(min=1, help="Number of labelled training images.")] = 600,
    seed: Annotated[int, typer.Option(help="Same seed, same images.")] = 0,
    format: Annotated[Literal["png", "bmp"], typer.Option(help="File format.")] = "png",
    subject_effect: Annotated[float, typer.Option(min=0, help="How much subjects differ.")] = 1.0,
    difficulty: Annotated[float, typer.Option(min=0, help="How much the classes overlap.")] = 1.0,
) -> None:
    """Draw a synthetic twin of C-NMC 2019, in its layout."""
    from allkit.synthetic import make_twin

    made = make_twin(
        folder,
        images=images,
        seed=seed,
        format=format,
        subject_effect=subject_effect,
        difficulty=difficulty,
        progress=True,
    )
    _say(f"Synthetic twin: {made}")


@class_app.command()
def collect(
    folder: Annotated[Path, typer.Argument(help="Files of progress as students handed them in, in folders or not.")],
    names: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Columns file and name: what to call whom. [folder or file name]")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for class.csv and class.html.")] = Path(),
) -> None:
    """Put the progress of a class, and the wrong answers that students agreed to hand in, into one table and one page.

    Nothing leaves this machine. Files that cannot be used are named, with the reason.
    """
    from allkit.course.classroom import load_classroom, write_class

    room = load_classroom(folder, names, ignore=[out / "class.csv", out / "class.html"])
    for note in room.notes:
        _say(_one_line(note), err=True)
    csv, page = write_class(room, out)
    _say(f"Students: {len(room.progress)}; with wrong answers: {len(room.answers)}; notes: {len(room.notes)}")
    _say(f"Table: {csv}\nPage: {page}")


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
    _say(f"{describe_bank(bank)}\nThe model answers of the exam are {said}.\nBank: {path}")


@class_app.command()
def release(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder; the solutions go into OUT-instructor.")],
    notebooks: Annotated[Path, typer.Option(metavar="DIR", help="Notebooks of your own.")] = ROOT / "notebooks",
) -> None:
    """Copy the notebooks for students, without answers and solutions; the solutions go apart."""
    from allkit.course.release import HONEST, release_notebooks

    students, instructor = release_notebooks(out, notebooks)
    _say(f"For students: {students}\nFor the instructor: {instructor / 'solutions.html'}\n{HONEST}")


def _say(text: str, *, err: bool = False) -> None:
    typer.echo(printable(text), err=err)


def main() -> None:
    """Run the command line; what the user can mend is one sentence on stderr, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is escaped
    try:
        app()
    except AllkitError as error:
        print(f"allkit: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
