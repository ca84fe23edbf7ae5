"""Buttons for exercises whose answer is a letter, where somebody sits in front of the notebook."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as w
from IPython import get_ipython
from IPython.display import Markdown, display


def is_live() -> bool:
    """Return whether a kernel runs for a person: not on a command line, nor where whole notebooks are executed."""
    return hasattr(get_ipython(), "kernel") and not os.environ.get("ALLKIT_HEADLESS")


def show_buttons(letters: Sequence[str], check: Callable[[str], Any]) -> None:
    """Show one button for each letter; pressing one shows what `check` says of that letter below."""
    said = w.Output()

    def press(letter: str) -> None:
        said.clear_output(wait=True)
        with said:
            display(check(letter))

    buttons = []
    for letter in letters:
        button = w.Button(description=letter, tooltip=f"Answer {letter}", layout=w.Layout(width="4em"))
        button.on_click(lambda _, letter=letter: press(letter))
        buttons.append(button)
    display(w.VBox([w.HBox(buttons), said]))


def explain_bare_letters() -> None:
    """Say what is missing where somebody writes `answer = c`, without quotation marks, in this kernel."""
    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((NameError,), _explain_name)


def _explain_name(shell: Any, kind: type, error: NameError, trace: Any, tb_offset: int | None = None) -> None:
    name, source = str(error.name or ""), str(shell.user_ns.get("In", [""])[-1])
    if re.fullmatch("[a-zA-Z]", name) and re.search(rf"^\s*answer\s*=\s*{name}\s*$", source, re.MULTILINE):
        display(Markdown(f'A letter is a text and stands in quotation marks: `answer = "{name.lower()}"`.'))
    else:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
