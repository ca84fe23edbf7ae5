"""Pictures inside HTML, and what stands for a widget where no kernel runs."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable
from typing import Any

import ipywidgets as w


def picture_html(png: bytes, alt: str, style: str = "") -> str:
    """Return an HTML image that carries its bytes with it."""
    return f"<img src='{picture_address(png)}' alt='{html.escape(alt)}' style='{style}'>"


def picture_address(png: bytes) -> str:
    """Return an address that holds the picture itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


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
