"""The upload cell: choose a model, drop images of cells, read a label for each, or why there is none."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
from IPython.display import display

from allkit import AllkitError
from allkit.app.cards import Answer, answers_table, build_card, build_table
from allkit.app.drop_zone import ACCEPT, FORMATS, DropZone, NamedFile
from allkit.app.pictures import draw_examples, published_as
from allkit.classify import Result, apply_threshold, classify_bytes, describe_model, label_of, threshold_of
from allkit.explain import CAVEAT, build_grad_cam
from allkit.images import to_address, to_png
from allkit.models import TrainedModel

NOT_A_DIAGNOSIS = "For teaching. This is not a diagnosis."

NOTE = f"<p class='ak-note'>{NOT_A_DIAGNOSIS}</p>"

STYLE = f"<style>{Path(__file__).with_name('upload.css').read_text(encoding='utf-8')}</style>"

PATIENCE = 10
"""Seconds for which a first image has the processor to itself, before other networks are made ready."""

_WRAP = {"flex_flow": "row wrap", "align_items": "center"}


class Answers:
    """The images, and what each model answers for them, computed once.

    A sentence (str) stands for what could not be computed.
    """

    def __init__(self, models: Mapping[str, TrainedModel]):
        self._models, self._explainers = models, {}
        self._locks = {title: threading.Lock() for title in models}  # another thread may be warming a network up
        self.replace([])

    def replace(self, files: list[NamedFile]) -> None:
        """Forget all images and take these."""
        self.files = list(files)
        self.names = [shorten(name) for name, _ in files]
        self._results, self._maps = {}, {}

    def result(self, number: int, title: str, threshold: float) -> Result | str:
        """Return what a model answers for an image; at another threshold nothing is computed anew."""
        data, key = self.files[number][1], (number, title)
        if isinstance(data, str):
            return data
        if key not in self._results:
            self._results[key] = self._classify(data, title, self.names[number])
        result = self._results[key]
        return result if isinstance(result, str) else apply_threshold(result, self._models[title], threshold)

    def warm_up(self, title: str, data: bytes) -> None:
        """Load a network and let it answer once, which compiles it."""
        self._classify(data, title, "")

    def _classify(self, data: bytes, title: str, name: str) -> Result | str:
        with self._locks[title]:
            return _or_sentence(lambda: classify_bytes(data, self._models[title], name=name))

    def grad_cam(self, number: int, title: str, result: Result, label: str) -> np.ndarray | str:
        """Return the Grad-CAM map for a label, floats 0-1 of the image's size."""
        key = number, title, label
        if key not in self._maps:
            self._maps[key] = _or_sentence(lambda: self._explainer(title)(result.image, label))
        return self._maps[key]

    def _explainer(self, title: str) -> Callable:
        if title not in self._explainers:
            self._explainers[title] = build_grad_cam(self._models[title])
        return self._explainers[title]


def _or_sentence(work: Callable) -> Any:
    """Return what `work` returns, or a sentence on why it could not: never a traceback."""
    try:
        return work()
    except AllkitError as error:
        return str(error)
    except Exception as error:  # the app has to stay usable whatever a file does to a library
        return f"This image could not be processed ({type(error).__name__}). Save it as PNG and try again."


class ClassifierApp:
    """The paper's GUI (III.B.5, Fig. 7): drop images of cells, choose a model, read ALL or HEM, or why not.

    Uploads are kept in this process's memory only. They come from `zone`, or, where the browser runs no script of the
    kit, from the button `upload`, which is emptied as soon as it is read; setting `upload.value` has the effect of an
    upload. Each replaces the images that were there. `choice` is the menu of `models` (title -> model), whose last
    option, where there are two, is all of them; `sliders` (title -> widget) set the thresholds, with two classes;
    `heat` is the checkbox for Grad-CAM.
    """

    BOTH = "all models, side by side"

    def __init__(self, models: Mapping[str, TrainedModel]):
        if not models:
            raise AllkitError("there is no trained model to choose from; run notebook 04 or 05 first.")
        self.models, self._answers, self._published = models, Answers(models), ""
        self._answered = threading.Event()
        self._build_entrance()
        self._build_choices()
        self.about, self.status, self.table, self.caveat = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self.answer = w.Box([])
        self.answer.add_class("ak-cards")
        self._connect()
        self.widget = self._arrange()
        self._refresh()

    def _build_entrance(self) -> None:
        self._drawn = example_files()
        addresses = [(name.removesuffix(".png"), to_address(data)) for name, data in self._drawn]
        self.zone = DropZone(self.take, lambda number: self.take([self._drawn[number]]), addresses)
        self.upload = w.FileUpload(
            accept=ACCEPT,
            multiple=True,
            description="Choose images",
            tooltip=FORMATS,
            layout=w.Layout(width="max-content"),
        )
        self.examples = w.Button(description="Example images", tooltip="Synthetic cells, drawn by a program")
        self.clear = w.Button(description="Remove all", tooltip="Forget all images")

    def _build_choices(self) -> None:
        all_of_them = [self.BOTH] if len(self.models) > 1 else []
        self.choice = w.Dropdown(
            options=[*self.models, *all_of_them], description="Model", layout=w.Layout(max_width="100%")
        )
        self.heat = w.Checkbox(
            description="Show where the network looked (Grad-CAM)",
            indent=False,
            layout=w.Layout(width="max-content", max_width="100%", margin="0 0 0 1em"),
        )
        self.sliders = {title: _build_slider(title, trained) for title, trained in self.models.items()}

    def _connect(self) -> None:
        self.upload.observe(self._take_upload, names="value")
        self.zone.observe(lambda _: self._hide_plain_buttons(), names="alive")
        for control in (self.choice, self.heat, *self.sliders.values()):
            control.observe(lambda _: self._refresh(), names="value")
        self.examples.on_click(lambda _: self.show_examples())
        self.clear.on_click(lambda _: self.take([]))

    def _hide_plain_buttons(self) -> None:
        for button in (self.upload, self.examples):
            button.layout.display = "none" if self.zone.alive else None

    def _arrange(self) -> w.Widget:
        rows = [
            w.HTML(STYLE + NOTE),
            self.zone,
            w.Box([self.choice, self.heat, self.upload, self.examples, self.clear], layout=w.Layout(**_WRAP)),
            *self.sliders.values(),
            self.about,
            self.status,
            self.answer,
            self.caveat,
            self.table,
        ]
        what = "the upload cell: choose a model, drop an image, read the label"
        app = w.VBox(rows, layout=w.Layout(max_width="100%"))
        app.add_class("allkit")
        return published_as(app, what, lambda: self._published)

    def _ipython_display_(self) -> None:
        display(self.widget)

    @property
    def chosen(self) -> list[str]:
        """Titles of the models that answer."""
        return list(self.models) if self.choice.value == self.BOTH else [self.choice.value]

    @property
    def results(self) -> list[tuple[str, Result]]:
        """Title and answer for every image that could be read, in order, at the present thresholds."""
        answers = [answer for of_image in self._all_answers() for answer in of_image]
        return [(answer.title, answer.result) for answer in answers if isinstance(answer.result, Result)]

    def take(self, files: list[NamedFile]) -> None:
        """Replace the images by these (name, bytes), and answer."""
        self._answers.replace(files)
        self._refresh()

    def show_examples(self) -> None:
        """Take the examples, which are drawn by a program; published pages then show their cards."""
        self.take(self._drawn)
        cards = "".join(f"<div class='ak-frame'>{child.children[0].value}</div>" for child in self.answer.children)
        self._published = f"{STYLE}<div class='allkit'>{NOTE}<div class='ak-cards'>{cards}</div></div>"

    def warm_up(self) -> None:
        """Make every network ready in the background, the others once the first has answered or nobody has asked."""

        def warm() -> None:
            for number, title in enumerate(self.models):
                if number:
                    self._answered.wait(PATIENCE)
                self._answers.warm_up(title, self._drawn[0][1])

        threading.Thread(target=warm, daemon=True).start()

    def _take_upload(self, _change: object) -> None:
        if self.upload.value:
            files = [(str(file["name"]), bytes(file["content"])) for file in self.upload.value]
            self.upload.value = ()
            self.take(files)

    def _remove(self, number: int) -> None:
        self.take([file for k, file in enumerate(self._answers.files) if k != number])

    def _all_answers(self) -> list[list[Answer]]:
        return [self._answers_for(number) for number in range(len(self._answers.files))]

    def _answers_for(self, number: int) -> list[Answer]:
        return [self._answer(number, title) for title in self.chosen]

    def _answer(self, number: int, title: str) -> Answer:
        result, heat = self._answers.result(number, title, self.sliders[title].value), None
        if self.heat.value and isinstance(result, Result):
            heat = self._answers.grad_cam(number, title, result, label_of(result.probabilities, result.threshold))
        return Answer(title, self.models[title], result, heat)

    def _refresh(self) -> None:
        """Show everything anew: first that the old answers are gone, then one new one after the other."""
        for title, slider in self.sliders.items():
            shown = title in self.chosen and len(self.models[title].classes) == 2
            slider.layout.display = None if shown else "none"
        self.about.value = "".join(
            f"<p><strong>{html.escape(title)}.</strong> {html.escape(describe_model(self.models[title]))}</p>"
            for title in self.chosen
        )
        self.table.value, self.answer.children = "", []
        self.caveat.value = f"<p>{CAVEAT}</p>" if self.heat.value else ""
        self.zone.count = images = len(self._answers.files)
        for number in range(images):
            self.status.value = _working(number + 1, images)
            self.answer.children = [*self.answer.children, self._show_image(number)]
            self._answered.set()
        self.status.value = ""
        self.table.value = build_table(answers_table(self._answers.names, self._all_answers()))

    def _show_image(self, number: int) -> w.Widget:
        name = self._answers.names[number]
        card = w.HTML(build_card(name, self._answers_for(number)))
        remove = w.Button(description="Remove", tooltip=f"Remove {name}")
        remove.on_click(lambda _: self._remove(number))
        frame = w.VBox([card, remove])
        frame.add_class("ak-frame")
        return frame


def _build_slider(title: str, trained: TrainedModel) -> w.Widget:
    return w.FloatSlider(
        threshold_of(trained),
        min=0,
        max=1,
        step=0.01,
        readout_format=".2f",
        continuous_update=False,
        description=f"Threshold for {trained.classes[0]}, {title}",
        style={"description_width": "initial"},
        layout=w.Layout(width="min(100%, 36em)"),
    )


def _working(number: int, images: int) -> str:
    words = f"Working on image {number} of {images} …"
    return (
        f"<p role='status'>{words} <progress aria-label='working' max='{images}' value='{number - 1}'></progress></p>"
    )


def example_files() -> list[tuple[str, bytes]]:
    """Return three drawn images, (name, PNG): a clear cell of either class, and one that should be rejected."""
    cells = draw_examples()
    two = np.concatenate([image[:, 112:338] for image in cells.values()], axis=1)[:, :450]
    named = {f"synthetic {label} cell.png": image for label, image in cells.items()}
    return [(name, to_png(image)) for name, image in (named | {"two synthetic cells.png": two}).items()]


def shorten(name: str) -> str:
    """Return a file name that can be shown: without folders and control characters, at most 81 characters."""
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(c if c.isprintable() else "�" for c in name) or "unnamed"
    return name if len(name) <= 80 else f"{name[:40]}…{name[-40:]}"


def upload_value(name: str, data: bytes) -> tuple[dict]:
    """Return what a browser's upload of one file puts into `FileUpload.value` (ipywidgets 8)."""
    now = datetime.now(UTC)
    entry = {"name": name, "type": "", "size": len(data), "content": memoryview(data), "last_modified": now}
    return (entry,)
