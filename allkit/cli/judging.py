"""Commands that judge what others report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allkit.cli.base import app, echo_json, echo_table, say

if TYPE_CHECKING:
    import pandas as pd


@app.command()
def paper() -> None:
    """Check the seed paper's claims, its text included, against its own tables and the data set's list of files.

    `allkit referee` asks of any paper what its numbers alone decide.
    """
    from allkit.lessons.paper import audit_paper

    _say_verdicts(audit_paper())


@app.command()
def referee(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE…]", help="YAML or CSV, or a name of the kit's papers.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="PAGE.html", help="Write the verdicts as a page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The verdicts as JSON.")] = False,
) -> None:
    """Say which of a paper's printed numbers are confirmed, contradicted or inconclusive, by arithmetic.

    Without a FILE: the papers that come with the kit. docs/referee.md says how to type one in.
    """
    from allkit.judging.papers import load_paper, shipped_papers
    from allkit.lessons.referee import referee_paper, referee_shipped

    papers = [load_paper(file) for file in files or map(str, shipped_papers())]
    if as_json:
        echo_json({one.label: referee_paper(one).to_dict("records") for one in papers})
    elif files:
        for one in papers:
            say(f"{one.title} ({one.label}; read: {one.read})")
            _say_verdicts(referee_paper(one))
    else:
        echo_table(referee_shipped().reset_index())
    if out:
        from allkit.course.verdicts import write_verdicts

        say(f"Page: {write_verdicts(papers, out)}", err=True)


def _say_verdicts(table: pd.DataFrame) -> None:
    import textwrap

    if table.empty:
        say("Its numbers allow no check; type in more of them.")
    for row in table.to_dict("records"):
        say(f"{row['verdict'].upper()}: {row['claim']}" + (f" ({row['where']})" if row["where"] else ""))
        for word in ("stated", "found"):
            say(textwrap.fill(row[word], 100, initial_indent=f"  {word:<7}", subsequent_indent=" " * 9))
