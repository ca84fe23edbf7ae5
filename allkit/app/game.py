"""A game: name the class of a cell, again and again."""

from __future__ import annotations

import html

import ipywidgets as w
import pandas as pd
from IPython.display import display

from allkit.app.pictures import picture_html, published_as
from allkit.data import class_order
from allkit.images import brighten, brightening, describe_brightening, prepare_image, read_image, to_png


class RecognitionGame:
    """Shows cells one by one, with a button for each class; says after each answer what it was.

    `rows` are rows of an index, in the order of the game. The buttons take clicks, and the keys Tab and Space.
    `answers` holds what was answered so far.
    """

    def __init__(self, rows: pd.DataFrame, *, crop: int | None = None, note: str = ""):
        self.labels, self.answers, self._note = rows["label"].tolist(), [], note
        images = [prepare_image(read_image(path), 220, crop) for path in rows["path"]]
        self._factor = brightening(images)
        self._pictures = [to_png(brighten(image, self._factor), colours=128) for image in images]
        self._view, self._word = w.HTML(), w.HTML()
        self.buttons = {label: w.Button(description=label, tooltip=f"This is {label}") for label in class_order(rows)}
        for label, button in self.buttons.items():
            button.on_click(lambda _, label=label: self.answer(label))
        again = w.Button(description="Begin again")
        again.on_click(lambda _: self.restart())
        box = w.VBox([self._view, w.HBox([*self.buttons.values(), again]), self._word])
        self._show("Which class is it?")
        self.widget = published_as(box, "a game of twenty cells, with a button for each class", self._view.value)

    def _ipython_display_(self) -> None:
        display(self.widget)

    def answer(self, label: str) -> None:
        """Take an answer to the present cell; nothing once the game is over."""
        if len(self.answers) < len(self.labels):
            truth = self.labels[len(self.answers)]
            self.answers.append(label)
            word = f"✓ Right, {html.escape(truth)}." if label == truth else f"✗ It was {html.escape(truth)}."
            self._show(word)

    def restart(self) -> None:
        """Forget all answers."""
        self.answers.clear()
        self._show("Which class is it?")

    def _show(self, word: str) -> None:
        number = len(self.answers)
        right = sum(given == truth for given, truth in zip(self.answers, self.labels, strict=False))
        over = number == len(self.labels)
        for button in self.buttons.values():
            button.disabled = over
        if over:
            self._view.value = "<p><strong>All cells are named.</strong> Run the next cell of the notebook.</p>"
        else:
            style = "width:220px;max-width:100%"
            picture = picture_html(
                self._pictures[number], f"Cell {number + 1} of {len(self.labels)}, to be named", style
            )
            note = html.escape(", ".join(filter(None, [self._note, describe_brightening(self._factor)])))
            self._view.value = f"<p>Cell {number + 1} of {len(self.labels)}</p>{picture}<p><small>{note}</small></p>"
        self._word.value = f"<p role='status'>{word} {right} of {number} right.</p>"
