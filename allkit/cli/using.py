"""Commands that use a trained model, and commands for data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from allkit import AllkitError, printable
from allkit.cli.base import Layout, Model, Positive, app, data_app, model_path, one_line, say

if TYPE_CHECKING:
    from allkit.classify import Result


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
    title, trained = next(iter(load_models(model_path(model), lazily=True).items()))
    kind = "synthetic" if trained.metadata["data"]["source"] == "synthetic" else "genuine"
    say(f"{title}, trained on {kind} images. For teaching. This is not a diagnosis.", err=True)
    unread = 0
    for name, answer in zip(images, classify_files(images, trained, threshold=threshold), strict=True):
        unread += isinstance(answer, AllkitError)
        say(_as_json(name, answer) if as_json else _as_line(name, answer))
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


def _as_line(name: str, answer: Result | AllkitError) -> str:
    shown = printable(name).replace("\n", "\\n")
    if isinstance(answer, AllkitError):
        return f"{shown}: no answer: {one_line(str(answer))}"
    first, probability = next(iter(answer.probabilities.items()))
    words = f"{shown}: {answer.label or 'rejected'} (probability of {first} {probability:.3f})"
    return f"{words}: {'; '.join(answer.reasons.values())}" if answer.rejected else words


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
    path = model_path(model).resolve()
    find_models(path)  # says at once what is missing, rather than on the page

    def announce(address: str) -> None:
        say(f"Page: {address} (Ctrl-C ends it). For teaching. This is not a diagnosis.")

    serve_page(path, port, kernels=kernels, idle=idle, hosts=host or [], base_url=base_url, announce=announce)


@data_app.command()
def check(
    path: Annotated[Path, typer.Argument(help="Folder of a data set, a CSV, or a TOML that describes one.")],
    layout: Layout = "",
    positive: Positive = "",
) -> None:
    """Say what a data set is, and what is wrong with it; exit code 1 only for what is wrong."""
    from allkit.course.check_data import check_data

    found = check_data(path, layout=layout, positive=positive)
    say(found.to_text())
    if not found.ok:
        raise typer.Exit(1)


@data_app.command()
def make(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A new folder; with --for, one in data/ unless given.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--for", metavar="NAME", help="The hospital of a name (notebook 18), not the twin.")
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Number of labelled training images. [600]")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same images. [0]")] = None,
    format: Annotated[Literal["png", "bmp"] | None, typer.Option(help="File format. [png]")] = None,
    subject_effect: Annotated[float | None, typer.Option(min=0, help="How much subjects differ. [1.0]")] = None,
    difficulty: Annotated[float | None, typer.Option(min=0, help="How much the classes overlap. [1.0]")] = None,
) -> None:
    """Draw a synthetic twin of C-NMC 2019, in its layout; or with --for a small hospital that depends on a name alone.

    The same name draws the same cells, everywhere. What they hide follows from the name; it is not written down, but
    the program is open. The point is that a neighbour's answers are wrong for you.
    """
    from allkit.synthetic import make_hospital, make_twin

    words = {"images": images, "seed": seed, "format": format, "subject_effect": subject_effect}
    given = {key: value for key, value in {**words, "difficulty": difficulty}.items() if value is not None}
    if name is None:
        if folder is None:
            raise typer.BadParameter("name a new folder; or a hospital of your own with --for NAME.")
        say(f"Synthetic twin: {make_twin(folder, **given, progress=True)}")
        return
    if given:
        raise typer.BadParameter(f"--for NAME decides everything; leave out {', '.join(sorted(given))}.")
    made = make_hospital(name, folder, progress=True)
    say(f'Synthetic hospital: {made}\nIn notebook 18, write the same name; elsewhere, data="{made}".')
