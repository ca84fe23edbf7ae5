"""Pictures inside HTML, and what stands for a widget where no kernel runs."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as w
import numpy as np

from allkit.images import to_address
from allkit.synthetic import draw_cell


def picture_html(png: bytes, alt: str, style: str = "") -> str:
    """Return an HTML image that carries its bytes with it."""
    return f"<img src='{to_address(png)}' alt='{html.escape(alt)}' style='{style}'>"


def draw_examples() -> dict[str, np.ndarray]:
    """Return a clear drawn cell of either class, by its label, uint8 (450, 450, 3)."""
    return {
        label: draw_cell(label, subject=f"example {label}", number=5, difficulty=0.4).image for label in ("ALL", "HEM")
    }


def published_as(widget: w.Widget, what: str, picture: str | Callable[[], str] = "") -> w.Widget:
    """Give a widget a sentence, and a picture, that stand for it where no kernel runs: on published pages."""
    plain = widget._repr_mimebundle_

    def mimebundle(**options: Any) -> Any:
        bundle = plain(**options)
        shown = picture() if callable(picture) else picture
        text = f"Interactive in JupyterLab: {what}."
        return bundle | {"text/plain": text, "text/html": f"{shown}<p><em>{text}</em></p>"}

    widget._repr_mimebundle_ = mimebundle
    return widget
