"""The command line, `allkit` or `python -m allkit`; `allkit --help` lists its commands."""

from __future__ import annotations

import sys

from allkit import AllkitError, printable

from allkit.cli import running, using, judging, auditing, evaluating, teaching  # isort: skip  # noqa: F401  in the order of the help
from allkit.cli.base import app


def main() -> None:
    """Run the command line; what the user can mend is one sentence on stderr, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is escaped
    try:
        app()
    except AllkitError as error:
        print(f"allkit: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
