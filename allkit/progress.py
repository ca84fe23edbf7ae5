"""One line that says how far something has come, for whatever takes longer than a moment; gone when it is done."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from IPython import get_ipython
from IPython.display import display
from tqdm import tqdm

DELAY = 2
"""Seconds before the line appears."""


class _CellOutput(io.TextIOBase):
    """A file whose last line is one output of a notebook's cell."""

    def __init__(self) -> None:
        self.handle = None

    def write(self, text: str) -> int:
        """Show the text in place of what was shown before; nothing before the first text."""
        line = text.replace("\r", "").rstrip()
        shown = {"text/plain": line}
        if self.handle is not None:
            self.handle.update(shown, raw=True)
        elif line:
            self.handle = display(shown, raw=True, display_id=True)
        return len(text)


def track(items: Iterable | None = None, what: str = "", *, total: int | None = None, **options: Any) -> tqdm:
    """Return the items with a line that says how many of them are done, titled `what`; without items a line to update.

    In a notebook it is an output of the cell, elsewhere it goes to the terminal. `options` are those of tqdm.
    """
    in_notebook = hasattr(get_ipython(), "kernel")
    place = {"file": _CellOutput(), "ncols": 79, "ascii": " ▏▎▍▌▋▊▉█"} if in_notebook else {}
    return tqdm(items, desc=what, total=total, leave=False, delay=DELAY, **place | options)
