"""Commands that run notebooks and look at runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allkit import ROOT, AllkitError
from allkit.cli.base import (
    Data,
    Layout,
    Network,
    Pairs,
    Positive,
    Profile,
    RunFolder,
    app,
    echo_json,
    echo_table,
    one_line,
    read_pairs,
    say,
)

if TYPE_CHECKING:
    import subprocess

    import pandas as pd

    from allkit.course.ledger import Comparison
    from allkit.course.notebooks import NotebookResult, NotebooksResult


@app.command(cls=Pairs)
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
    options |= {"parameters": read_pairs(parameter or [])} | ({"notebooks": notebook} if notebook else {})
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

    result = run_notebooks(**options, reporter=_report, announce=say, progress=True)
    if result.status == "interrupted":
        _stop(options["out"])
    from allkit.course.report import publish_report  # waits for TensorFlow

    say(f"Report: {publish_report(result.path)}")
    if not result.ok:
        raise typer.Exit(1)


def _report(result: NotebookResult) -> None:
    """Print how a notebook went, on one line; an error also names the cell and the executed copy."""
    say(f"{result.name:<28} {result.status:<12} {result.seconds:6.0f} s")
    if result.status == "failed":
        where = f"cell In [{result.cell}]" if result.cell else "the notebook"
        say(f"  {where}: {result.error}\n  executed copy: {result.copy}", err=True)


def _run_sweep(grid: dict[str, list[str]], options: dict[str, Any]) -> None:
    """Make a sweep; print a line for each run as it ends, and all of them as `allkit runs` does."""
    from math import prod

    from allkit.course.ledger import find_runs, list_runs
    from allkit.course.notebooks import run_sweep

    left = prod(map(len, grid.values()))
    say(f"Runs, one for each combination of values: {left}")

    def report(run: NotebooksResult) -> None:
        nonlocal left
        left -= 1
        say(f"{run.path.name:<40} {run.status:<8} {run.seconds:6.0f} s   {left} to go")
        if run.error:
            say(f"  {run.error}\n  run folder: {run.path}", err=True)

    try:
        results = run_sweep(grid, **options, publish=_publish_apart, reporter=report)
    except KeyboardInterrupt:
        _stop(options["out"])
    folder = results[0].path.parent
    say(f"\nSweep: {folder}\n")
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
    say(f"Stopped; what is done is kept. Go on with the same options and `{command}`.", err=True)
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


@app.command(cls=Pairs)
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
        given = read_pairs(parameter or [])
        search, score = start_tuning(
            name, data=data, profile=profile, model=model, parameters=given, storage=storage, out=out
        )
        helpers = [_start_again("--jobs", "1", "--helper") for _ in range(jobs - 1)]
        run_trials(search, score, trials, callbacks=[lambda _, trial: say(describe_trial(trial))])
        failed = [process for process in helpers if process.wait()]
    except KeyboardInterrupt:
        for process in helpers:
            process.wait()
        if not helper:
            say("Stopped; what is done is kept. Go on with the same command.", err=True)
        raise typer.Exit(130) from None
    if helper:
        return
    say(describe_best(search))
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
        say(f"{name:<40} {what}")
    if start:
        command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", *(options or [])]
        raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def publish(run_folder: RunFolder) -> None:
    """Publish a run folder again, as web pages that need no network."""
    from allkit.course.report import publish_report

    say(f"Report: {publish_report(run_folder)}")


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
        echo_json(content) if as_json else _echo_comparison(found)
        return
    listed = list_runs(find_runs(*paths))
    if as_json:
        echo_json(listed)
        return
    _echo_runs(listed)
    for sweep in [] if paths else find_sweeps():
        say(f"{sweep.name}: a sweep; `allkit runs {sweep.name}` lists its runs")


def _echo_runs(listed: pd.DataFrame) -> None:
    from allkit.course.ledger import runs_as_text
    from allkit.evaluate import FEWEST_UNITS

    good = listed[listed["trouble"] == ""]
    if len(good):
        echo_table(runs_as_text(good))
        say(
            "\nIn brackets: 95 % bootstrap intervals; the column `resampled` says over what, and how many the smaller "
            f"class has.\nInconclusive: fewer than {FEWEST_UNITS}. `data` and `split` end in the start of their hash."
        )
    for row in listed[listed["trouble"] != ""].to_dict("records"):
        say(one_line(f"{row['run']}: {row['trouble']}"))


def _echo_comparison(found: Comparison) -> None:
    from allkit.course.ledger import differences_as_text

    say("Settings that differ:" if len(found.settings) else "No setting differs.")
    if len(found.settings):
        echo_table(found.settings)
    for title, table in found.measures.items():
        say(f"\n{title}, first minus second:")
        echo_table(differences_as_text(table))
        say(
            f"Interval: 95 % paired bootstrap over {table['resampled'].iat[0]} ({table['units'].iat[0]} in the smaller "
            "class), both runs resampled together."
        )
    for title, note in found.notes.items():
        say(f"\n{title}: {one_line(note)}")


@app.command()
def card(
    run_folder: RunFolder,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for both files.")] = None,
) -> None:
    """Write the model card of a run, from its folder alone, as card.html and card.md."""
    from allkit.course.card import write_card

    for path in write_card(run_folder, out):
        say(f"Card: {path}")
