"""The command line: `allkit run`, `publish`, `classify`, `app`, `paper`, `data check` and `data make`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from allkit import AllkitError, __version__

if TYPE_CHECKING:
    from allkit.classify import Result
    from allkit.series import NotebookResult


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


class ProfileName(StrEnum):
    """The profiles that `allkit run` offers."""

    quick = "quick"
    paper = "paper"
    honest = "honest"


class ImageFormat(StrEnum):
    """File formats of drawn cells."""

    png = "png"
    bmp = "bmp"


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
data_app = typer.Typer(no_args_is_help=True, help="Check a data set, or draw a synthetic one.")
app.add_typer(data_app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"allkit {__version__}")
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
    profile: Annotated[ProfileName, typer.Option(help="How the models are trained.")] = ProfileName.quick,
    data: Annotated[str, typer.Option(metavar="synthetic|PATH", help="Drawn cells, or a data set.")] = "synthetic",
    only: Annotated[str, typer.Option(metavar="01,03", help="Numbers of the notebooks to run.")] = "",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            metavar="NAME VALUE",
            help="Set a parameter of the notebooks; 04.NAME sets it in notebook 04 only. Repeatable.",
        ),
    ] = None,
    out: Annotated[str, typer.Option(metavar="DIR", help="Run folder: a name below runs/, or a path.")] = "latest",
    resume: Annotated[bool, typer.Option("--resume", help="Skip the notebooks that are done.")] = False,
    notebook: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One notebook outside the series, instead of it.")
    ] = None,
) -> None:
    """Execute the notebooks in order and publish the report of the run."""
    from allkit.series import publish_report, run_series

    result = run_series(
        profile=profile.value,
        data=data,
        only=only,
        parameters=_pairs(parameter or []),
        out=out,
        resume=resume,
        reporter=_report,
        progress=True,
        **({"notebooks": notebook} if notebook else {}),
    )
    if result.interrupted:
        command = f"allkit run --resume{'' if out == 'latest' else f' --out {out}'}"
        typer.echo(f"Stopped; what is done is kept. Go on with the same options and `{command}`.", err=True)
        raise typer.Exit(130)
    typer.echo(f"Report: {publish_report(result.path)}")
    if not result.ok:
        raise typer.Exit(1)


def _pairs(parameters: list[str]) -> dict[str, str]:
    pairs = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"-p {text} lacks a value; write -p NAME VALUE.")
        pairs[name] = value
    return pairs


def _report(result: NotebookResult) -> None:
    """Print how a notebook went, on one line; an error also names the cell and the executed copy."""
    typer.echo(f"{result.name:<28} {result.status:<12} {result.seconds:6.0f} s")
    if result.status == "failed":
        where = f"cell In [{result.cell}]" if result.cell else "the notebook"
        typer.echo(f"  {where}: {result.error}\n  executed copy: {result.copy}", err=True)


@app.command()
def publish(run_folder: Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a run.")]) -> None:
    """Publish a run folder again, as web pages that need no network."""
    from allkit.series import publish_report

    typer.echo(f"Report: {publish_report(run_folder)}")


@app.command()
def classify(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Image files.")],
    model: Annotated[str, typer.Option(metavar="RUN_OR_FILE", help="A run, or a .keras file.")] = "latest",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per file instead of a line.")] = False,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Instead of the model's own.")] = None,
) -> None:
    """Say ALL or HEM for each image file, or why not. For teaching, not a diagnosis.

    One line per file, in order: name, label (or "declined"), probability of the first class, reasons. Exit code 1
    when a file could not be read. Of a run with several models the first is asked.
    """
    from allkit.classify import classify_files
    from allkit.models import load_models

    title, trained = next(iter(load_models(_model_path(model)).items()))
    kind = "synthetic" if trained.card["data"]["source"] == "synthetic" else "genuine"
    typer.echo(f"{title}, trained on {kind} images. For teaching. This is not a diagnosis.", err=True)
    unread = 0
    for name, answer in zip(images, classify_files(images, trained, threshold=threshold), strict=True):
        unread += isinstance(answer, AllkitError)
        typer.echo(_as_json(name, answer) if as_json else _as_line(name, answer))
    if unread:
        raise typer.Exit(1)


def _model_path(model: str) -> Path:
    from allkit.runs import run_path

    return Path(model) if model.endswith(".keras") else run_path(model)


def _as_line(name: str, answer: Result | AllkitError) -> str:
    """One line whatever the name holds: control characters are written as escapes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in name)
    if isinstance(answer, AllkitError):
        return f"{shown}: no answer: {_one_line(str(answer))}"
    first, probability = next(iter(answer.probabilities.items()))
    words = f"{shown}: {answer.label or 'declined'} (probability of {first} {probability:.3f})"
    return f"{words}: {'; '.join(answer.reasons.values())}" if answer.declined else words


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _as_json(name: str, answer: Result | AllkitError) -> str:
    import json

    if isinstance(answer, AllkitError):
        return json.dumps({"file": name, "label": None, "declined": True, "error": str(answer)})
    row = {"file": name, "label": answer.label, "declined": answer.declined, "reasons": dict(answer.reasons)}
    probabilities = {key: round(p, 6) for key, p in answer.probabilities.items()}
    return json.dumps(row | {"probabilities": probabilities, "threshold": answer.threshold})


@app.command(name="app")
def serve(
    model: Annotated[str, typer.Option(metavar="RUN_OR_FILE", help="A run, or a .keras file.")] = "latest",
    port: Annotated[int, typer.Option(min=1, max=65535, help="On this machine only (127.0.0.1).")] = 8866,
    kernels: Annotated[int, typer.Option(min=2, help="Visitors at once, and one kept warm.")] = 4,
    idle: Annotated[int, typer.Option(min=10, help="Seconds after which an idle visitor's kernel ends.")] = 600,
) -> None:
    """Serve the upload cell as a page on this machine, until Ctrl-C. For teaching, not a diagnosis."""
    import subprocess
    import tempfile

    from allkit.models import find_models
    from allkit.page import build_page

    path = _model_path(model).resolve()
    find_models(path)  # says at once what is missing, rather than on the page
    with tempfile.TemporaryDirectory() as folder:
        typer.echo(f"Page: http://127.0.0.1:{port} (Ctrl-C ends it). For teaching. This is not a diagnosis.")
        command = build_page(str(path), Path(folder), kernels=kernels, idle=idle)
        code = subprocess.call([*command, f"--port={port}"], cwd=folder)
    raise typer.Exit(code)


@app.command()
def paper() -> None:
    """Check the paper against its own tables and the data set's list of files; print the verdicts."""
    import textwrap

    from allkit.paper import audit_paper

    for row in audit_paper().to_dict("records"):
        typer.echo(f"{row['verdict'].upper()}: {row['claim']} ({row['where']})")
        for word in ("stated", "found"):
            typer.echo(textwrap.fill(row[word], 100, initial_indent=f"  {word:<7}", subsequent_indent=" " * 9))


@data_app.command()
def check(path: Annotated[Path, typer.Argument(help="Folder of a data set, or a CSV of one.")]) -> None:
    """Say what a data set is, and what is wrong with it; exit code 1 only for what is wrong."""
    from allkit.check import check_data

    found = check_data(path, progress=True)
    typer.echo(found.to_text())
    if not found.ok:
        raise typer.Exit(1)


@data_app.command()
def make(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    images: Annotated[int, typer.Option(min=1, help="Number of labelled training images.")] = 600,
    seed: Annotated[int, typer.Option(help="Same seed, same images.")] = 0,
    format: Annotated[ImageFormat, typer.Option(help="File format.")] = ImageFormat.png,
    subject_effect: Annotated[float, typer.Option(min=0, help="How much subjects differ.")] = 1.0,
    difficulty: Annotated[float, typer.Option(min=0, help="How much the classes overlap.")] = 1.0,
) -> None:
    """Draw a synthetic twin of C-NMC 2019, in its layout."""
    from allkit.synthetic import make_twin

    made = make_twin(
        folder,
        images=images,
        seed=seed,
        format=format.value,
        subject_effect=subject_effect,
        difficulty=difficulty,
        progress=True,
    )
    typer.echo(f"Synthetic twin: {made}")


def main() -> None:
    """Run the command line; what the user can mend is one sentence on stderr, without a traceback."""
    try:
        app()
    except AllkitError as error:
        print(f"allkit: {error}", file=sys.stderr)
        sys.exit(1)
