"""Commands that judge what others report."""

from __future__ import annotations

from allkit.cli.base import app, say


@app.command()
def paper() -> None:
    """Check the paper against its own tables and the data set's list of files; print the verdicts."""
    import textwrap

    from allkit.lessons.paper import audit_paper

    for row in audit_paper().to_dict("records"):
        say(f"{row['verdict'].upper()}: {row['claim']} ({row['where']})")
        for word in ("stated", "found"):
            say(textwrap.fill(row[word], 100, initial_indent=f"  {word:<7}", subsequent_indent=" " * 9))
