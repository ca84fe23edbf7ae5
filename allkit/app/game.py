"""A game that is a reader study: name the class of a cell, again and again, and learn at the end how well."""

from __future__ import annotations

import hashlib
import html
from pathlib import Path

import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import display

from allkit import AllkitError, runs_root
from allkit.app.pictures import picture_html, published_as
from allkit.data import class_order
from allkit.evaluate import predicted_labels, probabilities_of
from allkit.folders import read_json, save_json
from allkit.images import brighten, brightening, describe_brightening, prepare_image, read_image, to_png
from allkit.lessons.readers import LOOKS, look_order

FORMAT = 1
"""Version of the layout of reader-study.json."""


class RecognitionGame:
    """Shows cells one by one, with a button for each class: every cell, then every cell again, turned over.

    `cells` are rows of a predictions table (see `allkit.evaluate`), in the order of the game. Where they have the
    column `advice`, it is shown at the second look. Nothing says before the end what was right. The buttons take
    clicks, and the keys Tab and Space. `looks` holds what was answered so far, a table of `LOOKS`.
    """

    def __init__(self, cells: pd.DataFrame, *, crop: int | None = None, note: str = "", seed: int = 0):
        self._cells = cells.assign(
            cell=cells["path"].map(cell_id),
            network=predicted_labels(cells),
            share=probabilities_of(cells).max(axis=1),
        ).reset_index(drop=True)
        self._order, self.answers = look_order(len(cells), seed=seed), []
        images = [prepare_image(read_image(path), 220, crop) for path in cells["path"]]
        self._factor, self._turns = brightening(images), np.random.default_rng(seed).integers(4, size=len(cells))
        self._images = [brighten(image, self._factor) for image in images]
        self._note = html.escape(", ".join(filter(None, [note, describe_brightening(self._factor)])))
        self._view, self._word = w.HTML(), w.HTML()
        self.buttons = {label: w.Button(description=label, tooltip=f"This is {label}") for label in class_order(cells)}
        for label, button in self.buttons.items():
            button.on_click(lambda _, label=label: self.answer(label))
        self._keep, again = w.Button(description="Save for my class"), w.Button(description="Begin again")
        self._keep.on_click(lambda _: self._say(self.save()))
        again.on_click(lambda _: self.restart())
        rows = [w.HBox(list(self.buttons.values()), layout=_WRAP), w.HBox([again, self._keep], layout=_WRAP)]
        self._show()
        what = f"a game of {len(cells)} cells, each shown twice, with a button for each class"
        self.widget = published_as(w.VBox([self._view, *rows, self._word]), what, self._view.value)

    def _ipython_display_(self) -> None:
        display(self.widget)

    @property
    def looks(self) -> pd.DataFrame:
        """What was answered so far, one row per look."""
        rows = [
            (row.cell, look, row.label, row.network, self._advice(k, look), answer)
            for (k, look), answer in zip(self._order, self.answers, strict=False)
            for row in [self._cells.loc[k]]
        ]
        return pd.DataFrame(rows, columns=LOOKS, dtype=object)

    def answer(self, label: str) -> None:
        """Take an answer to the present cell; nothing once the game is over."""
        if len(self.answers) < len(self._order):
            self.answers.append(label)
            self._show()

    def restart(self) -> None:
        """Forget all answers."""
        self.answers.clear()
        self._show()

    def save(self) -> str:
        """Keep the answers in the file for the class, in place of earlier ones; return a sentence that says so."""
        kind = "advised" if "advice" in self._cells else "alone"
        try:
            path = save_looks(kind, self.looks)
        except (AllkitError, OSError) as error:
            return f"Nothing was saved: {error}"
        return (
            f"Saved in {path}: your {len(self.answers)} answers, with the classes of the cells and the answers of the "
            "network; no name. It stays on this machine until you hand it to somebody; delete the file to take it back."
        )

    def _advice(self, k: int, look: int) -> str | None:
        return self._cells.loc[k, "advice"] if look == 2 and "advice" in self._cells else None

    def _say(self, words: str) -> None:
        self._word.value = f"<p role='status' style='{_LINES}'>{html.escape(words)}</p>"

    def _show(self) -> None:
        number, all_of_them = len(self.answers), len(self._order)
        self._keep.disabled = not number
        for button in self.buttons.values():
            button.disabled = number == all_of_them
        if number == all_of_them:
            self._view.value = "<p><strong>All cells are named.</strong> Run the next cell of the notebook.</p>"
        else:
            self._view.value = self._picture(*self._order[number], f"Picture {number + 1} of {all_of_them}")
        told = "Which class is it?" if number < all_of_them else ""
        self._say(f"{told} {number} of {all_of_them} answered.".strip())

    def _picture(self, k: int, look: int, title: str) -> str:
        """Return the HTML of a cell; at the second look it is turned over, so that its outline is not remembered."""
        image = self._images[k] if look == 1 else np.rot90(self._images[k][:, ::-1], self._turns[k])
        png = to_png(np.ascontiguousarray(image), colours=128)
        picture = picture_html(png, f"{title}, a cell to be named", "width:220px;max-width:100%")
        advice = self._advice(k, look)
        says = f"The network says {html.escape(advice)}, {self._cells.loc[k, 'share']:.0%}." if advice else ""
        return (
            f"<p>{title}</p>{picture}<p><strong>{says}</strong></p><p style='{_LINES}'><small>{self._note}</small></p>"
        )


_LINES = "white-space:normal;line-height:1.4;overflow-wrap:anywhere"

_WRAP = w.Layout(flex_flow="row wrap")


def cell_id(path: str) -> str:
    """Return what a cell is called in a table of looks: the same on every machine, by its bytes, not by its class."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def study_path() -> Path:
    """Return where answers are kept that a student wants to hand in: reader-study.json beside the run folders."""
    return runs_root() / "reader-study.json"


def save_looks(kind: str, looks: pd.DataFrame) -> Path:
    """Keep the looks of a round, "alone" or "advised", in place of earlier ones of that round; return the file.

    Raises AllkitError where the file that is there is no reader study.
    """
    path, kept = study_path(), {}
    if path.exists():
        kept = read_json(path).get("looks")
        if not isinstance(kept, dict):
            raise AllkitError(f"{path} is no file of a reader study; move it away.")
    save_json(path, {"format": FORMAT, "looks": kept | {kind: looks.to_dict("records")}})
    return path
