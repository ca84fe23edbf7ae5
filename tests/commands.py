"""The command line as the tests call it."""

import sys

import pytest

from allkit import cli


def run_command(monkeypatch, capsys, *words) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of `allkit WORDS`."""
    monkeypatch.setattr(sys, "argv", ["allkit", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out = capsys.readouterr()
    return ended.value.code or 0, out.out, out.err
