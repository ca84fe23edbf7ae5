"""What all commands share: the application, their options, and how they print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from allkit import __version__, printable

if TYPE_CHECKING:
    import pandas as pd


class Pairs(TyperCommand):
    """A command whose -p takes two words, NAME VALUE, which Typer's lists do not."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments in which each -p and its two words have become one."""
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
        say(f"allkit {__version__}")
        raise typer.Exit


@app.callback()
def _allkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Teach and analyse the classification of leukemia cell images. Not a diagnosis."""


def echo_table(table: pd.DataFrame) -> None:
    """Print a table in columns that are as wide as they need, left-aligned."""
    lines = [list(table), *([one_line(str(value)) for value in row] for row in table.itertuples(index=False))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(map(str.ljust, line, widths)).rstrip())


def echo_json(content: Any) -> None:
    """Print tables, arrays and mappings as JSON."""
    import json

    from allkit.folders import to_plain

    say(json.dumps(to_plain(content), indent=2))


def one_line(text: str) -> str:
    """Return a text on one line, with control characters written as escapes."""
    return printable(" ".join(text.split("\n")))


def say(text: str, *, err: bool = False) -> None:
    """Print a text, with what would steer the terminal escaped."""
    typer.echo(printable(text), err=err)


def read_pairs(parameters: list[str]) -> dict[str, str]:
    """Return the parameters that `-p NAME=VALUE` set."""
    pairs = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"-p {text} lacks a value; write -p NAME VALUE.")
        pairs[name] = value
    return pairs


def model_path(model: str) -> Path:
    """Return the path of a run, or of a .keras file."""
    from allkit.folders import run_path

    return Path(model) if model.endswith(".keras") else run_path(model)
