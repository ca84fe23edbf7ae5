"""A place to drop images on: the upload cell's front, where the browser may run a few lines of script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from allkit.classify import MAX_BYTES

FORMATS = "BMP, PNG, JPEG, TIFF or WebP; several at once"

ACCEPT = "image/*,.bmp,.tif,.tiff,.webp"
"""What the file dialogue offers; on a phone that includes the camera."""

MAX_FILES = 100
"""Images in one upload."""

MAX_UPLOAD = 256 * 1024 * 1024
"""Bytes of all images of one upload."""

NamedFile = tuple[str, bytes | str]
"""Name of a file and its bytes, or a sentence (str) on why they are not here."""


class DropZone(anywidget.AnyWidget):
    """Calls `take` with the files of an upload, once they are all here, and `take_example` with the number of one.

    `examples` holds (name, address of the picture) of what is offered below. No trait ever holds a visitor's file.
    """

    _esm = Path(__file__).with_name("drop_zone.js")
    accept = traitlets.Unicode(ACCEPT).tag(sync=True)
    formats = traitlets.Unicode(FORMATS).tag(sync=True)
    max_bytes = traitlets.Int(MAX_BYTES).tag(sync=True)
    max_files = traitlets.Int(MAX_FILES).tag(sync=True)
    examples = traitlets.List().tag(sync=True)
    count = traitlets.Int(0).tag(sync=True)
    """Images that are shown."""
    alive = traitlets.Bool(False).tag(sync=True)
    """Whether the script runs in a browser."""

    def __init__(
        self,
        take: Callable[[list[NamedFile]], None],
        take_example: Callable[[int], None],
        examples: Sequence[tuple[str, str]],
    ) -> None:
        super().__init__(examples=[{"name": name, "picture": picture} for name, picture in examples])
        self._take, self._take_example = take, take_example
        self._upload, self._waiting = None, {}
        self.on_msg(self._receive)

    def _receive(self, _: Any, content: Any, buffers: Sequence[memoryview]) -> None:
        """Take one message of the browser; a visitor may send anything, and what is of another form is ignored."""
        kind, number, of = content.get("kind"), content.get("number"), content.get("of")
        if not isinstance(number, int):
            return
        if kind == "example" and number in range(len(self.examples)):
            self._take_example(number)
        elif kind == "file" and of in range(1, MAX_FILES + 1) and number in range(of):
            if content.get("upload") != self._upload:  # an earlier one that is incomplete will stay so
                self._upload, self._waiting = content.get("upload"), {}
            self._waiting[number] = self._read(str(content.get("name", "")), content.get("size"), buffers)
            if len(self._waiting) == of:
                self._finish(content.get("left"))

    def _read(self, name: str, size: Any, buffers: Sequence[memoryview]) -> NamedFile:
        here = sum(len(data) for _, data in self._waiting.values() if isinstance(data, bytes))
        if not buffers and isinstance(size, int) and size > MAX_BYTES:
            return name, f"{name} has more than {MAX_BYTES // 2**20} MB. Cut the cell out, or scale it down."
        if not buffers:
            return name, f"{name} could not be read. If it is a folder, choose the images in it."
        if here + buffers[0].nbytes > MAX_UPLOAD:
            return name, f"It was left out: images of {MAX_UPLOAD // 2**20} MB together are taken at once."
        return name, bytes(buffers[0])

    def _finish(self, left: Any) -> None:
        """Hand over what is here, in the order in which it was chosen: small files overtake large ones on their way."""
        files = [file for _, file in sorted(self._waiting.items())]
        if isinstance(left, int) and left > 0:
            files.append((f"{left:,} more", f"They were left out: {MAX_FILES} images are taken at once."))
        self._upload, self._waiting = None, {}
        self._take(files)
