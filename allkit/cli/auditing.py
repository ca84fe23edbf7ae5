"""The command that audits a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allkit import AllkitError
from allkit.cli.base import Layout, app, echo_json, echo_table, say

if TYPE_CHECKING:
    import pandas as pd

    from allkit.judging.audits import Audit


@app.command(no_args_is_help=True)
def audit(
    split: Annotated[
        str, typer.Argument(metavar="[SPLIT]", help="A CSV with path and part, or a folder with train and test.")
    ] = "",
    data: Annotated[str, typer.Option(metavar="PATH", help="Where the images of the list are.")] = "",
    layout: Layout = "",
    replay: Annotated[str, typer.Option(metavar="NAME", help="A usual way to split C-NMC, in place of SPLIT.")] = "",
    show: Annotated[bool, typer.Option("--list", help="List what --replay knows.")] = False,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="What may be shared all the same. Repeatable.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit code 1 also for what cannot be checked.")] = False,
    inflation: Annotated[bool, typer.Option(help="Estimate what a leak promises too much.")] = True,
    badge: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Write the verdict as a picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what training and test of any split share. Exit code 0: no leak found, 1: a leak, 2: it cannot be read.

    C-NMC needs no image: its list of files is in the kit.
    """
    from allkit import saving
    from allkit.judging import divisions
    from allkit.judging.audits import audit_split, draw_badge

    if show:
        echo_table(divisions.list_replays())
        return
    if bool(split) == bool(replay):
        raise typer.BadParameter("give a SPLIT or --replay NAME, one of the two; --list shows the names.")
    try:
        index = divisions.replay(replay) if replay else divisions.read_division(split, data, layout=layout)
        found = audit_split(index, allow=allow or ())
    except AllkitError as error:
        say(f"allkit: {error}", err=True)
        raise typer.Exit(2) from error
    promised = _estimate(index, found) if inflation else None
    if badge:
        with saving(badge) as file:
            file.write_text(draw_badge(found), encoding="utf-8")
    (_echo_audit_json if as_json else _echo_audit)(found, promised)
    open_checks = (found.findings["verdict"] == "unknown").any()
    if found.verdict == "leak" or (strict and open_checks):
        raise typer.Exit(1)


def _estimate(index: pd.DataFrame, found: Audit) -> tuple[pd.DataFrame, str] | None:
    """Return by how much a leak promises too much, and on which evidence; None without a leak, or evidence."""
    import os

    if found.verdict != "leak":
        return None
    from allkit.baselines import estimate_inflation, measure_numbers
    from allkit.synthetic import draw_numbers_of

    images = index["path"].map(os.path.isfile).all()
    if not images and not index["source"].eq("cnmc").all():
        say("What the leak promises too much is not estimated: add the images with --data.", err=True)
        return None
    evidence = "measured on these images" if images else "numbers drawn for C-NMC's subjects, who differ as measured"
    try:
        return estimate_inflation(index, measure_numbers(index) if images else draw_numbers_of(index)), evidence
    except AllkitError as error:
        say(f"What the leak promises too much is not estimated: {error}", err=True)
        return None


def _echo_audit_json(found: Audit, promised: tuple[pd.DataFrame, str] | None) -> None:
    content = {"verdict": found.verdict, "findings": found.findings, "counts": found.counts.reset_index()}
    echo_json(content | ({"inflation": promised[0].reset_index(), "evidence": promised[1]} if promised else {}))


def _echo_audit(found: Audit, promised: tuple[pd.DataFrame, str] | None) -> None:
    from allkit.judging.audits import badge_text
    from allkit.lessons.audit import describe_inflation

    echo_table(found.findings[["verdict", "check", "says"]])
    for row in found.findings[found.findings["examples"] != ""].to_dict("records"):
        say(f"\n{row['check']}: {row['examples']}")
    say("")
    echo_table(found.counts.reset_index())
    if promised:
        say(f"\n{describe_inflation(*promised)}")
    say(f"\nVerdict: {badge_text(found)}")
