"""The upload cell: choose a model, drop images of cells, read a label for each, or why there is none."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import display
from PIL import Image

from allkit import AllkitError
from allkit.classify import (
    Result,
    abstain_band,
    apply_threshold,
    classify_bytes,
    describe_model,
    label_of,
    threshold_of,
)
from allkit.explain import CAVEAT, build_grad_cam, overlay
from allkit.lists import as_text_cells
from allkit.models import TrainedModel
from allkit.plots import brighten, brightening
from allkit.synthetic import draw_cell

NOT_A_DIAGNOSIS = "For teaching. This is not a diagnosis."

_WRAP = {"flex_flow": "row wrap", "align_items": "center"}


class Answers:
    """The images, and what each model answers for them, computed once.

    A sentence (str) stands for what could not be computed.
    """

    def __init__(self, models: dict[str, TrainedModel]):
        self._models, self._explainers = models, {}
        self.replace([])

    def replace(self, files: list[tuple[str, bytes]]) -> None:
        """Forget all images and take these, (name, bytes)."""
        self.files = list(files)
        self.names = [shorten(name) for name, _ in files]
        self._results, self._maps = {}, {}

    def result(self, number: int, title: str, threshold: float) -> Result | str:
        """Return what a model answers for an image; at another threshold nothing is computed anew."""
        trained, key = self._models[title], (number, title)
        if key not in self._results:
            _, data = self.files[number]
            self._results[key] = _or_sentence(lambda: classify_bytes(data, trained, name=self.names[number]))
        result = self._results[key]
        return result if isinstance(result, str) else apply_threshold(result, trained, threshold)

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
    """The paper's GUI (III.B.5, Fig. 7): upload images of cells, choose a model, read ALL or HEM, or why not.

    Uploads are kept in this process's memory only; the upload button is emptied as soon as they are read, so
    that no widget state that a notebook file might save holds them. Setting `upload.value` has the effect of an
    upload, which replaces the images that were there. `choice` is the menu of `models` (title -> model), whose last
    option, where there are two, is all of them; `sliders` (title -> widget) set the thresholds, with two classes;
    `heat` is the checkbox for Grad-CAM.
    """

    BOTH = "all models, side by side"

    def __init__(self, models: dict[str, TrainedModel]):
        if not models:
            raise AllkitError("there is no trained model to choose from; run notebook 04 or 05 first.")
        self.models, self._answers = models, Answers(models)
        self._build_buttons()
        self._build_choices()
        self.about, self.table = w.HTML(), w.HTML()
        self.answer = w.Box([], layout=w.Layout(flex_flow="row wrap"))
        self._connect()
        self.widget = self._arrange()
        self._refresh()

    def _build_buttons(self) -> None:
        self.upload = w.FileUpload(
            accept="image/*,.bmp,.tif,.tiff,.webp",
            multiple=True,
            description="Choose images",
            tooltip="BMP, PNG, JPEG, TIFF or WebP; several at once",
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
        for control in (self.choice, self.heat, *self.sliders.values()):
            control.observe(lambda _: self._refresh(), names="value")
        self.examples.on_click(lambda _: self.take(draw_examples()))
        self.clear.on_click(lambda _: self.take([]))

    def _arrange(self) -> w.Widget:
        rows = [
            w.HTML(f"<p>{NOT_A_DIAGNOSIS}</p>"),
            w.Box([self.upload, self.examples, self.clear], layout=w.Layout(**_WRAP)),
            w.Box([self.choice, self.heat], layout=w.Layout(**_WRAP)),
            *self.sliders.values(),
            self.about,
            self.answer,
            self.table,
        ]
        what = "the upload cell: choose a model, drop an image, read the label"
        return published_as(w.VBox(rows, layout=w.Layout(max_width="100%")), what)

    def _ipython_display_(self) -> None:
        display(self.widget)

    @property
    def chosen(self) -> list[str]:
        """Titles of the models that answer."""
        return list(self.models) if self.choice.value == self.BOTH else [self.choice.value]

    @property
    def results(self) -> list[tuple[str, Result]]:
        """Title and answer for every image that could be read, in order, at the present thresholds."""
        return [(title, answer) for title, _, answer in self._all_answers() if isinstance(answer, Result)]

    def take(self, files: list[tuple[str, bytes]]) -> None:
        """Replace the images by these (name, bytes), and answer."""
        self._answers.replace(files)
        self._refresh()

    def warm_up(self) -> None:
        """Let every network answer once, which compiles it."""
        name, data = draw_examples()[0]
        for trained in self.models.values():
            classify_bytes(data, trained, name=name)

    def _take_upload(self, _change: object) -> None:
        if self.upload.value:
            files = [(str(file["name"]), bytes(file["content"])) for file in self.upload.value]
            self.upload.value = ()
            self.take(files)

    def _remove(self, number: int) -> None:
        self.take([file for k, file in enumerate(self._answers.files) if k != number])

    def _answer(self, number: int, title: str) -> Result | str:
        return self._answers.result(number, title, self.sliders[title].value)

    def _all_answers(self) -> list[tuple[str, str, Result | str]]:
        names = enumerate(self._answers.names)
        return [(title, name, self._answer(number, title)) for number, name in names for title in self.chosen]

    def _refresh(self) -> None:
        """Show everything anew: first that the old answer is gone, then the new one."""
        for title, slider in self.sliders.items():
            shown = title in self.chosen and len(self.models[title].classes) == 2
            slider.layout.display = None if shown else "none"
        self.about.value = "".join(
            f"<p><strong>{html.escape(title)}.</strong> {html.escape(describe_model(self.models[title]))}</p>"
            for title in self.chosen
        )
        self.table.value = ""
        images = len(self._answers.files)
        self.answer.children = [_busy(images)] if images else []
        self.answer.children = [self._show_image(number) for number in range(images)]
        self.table.value = _table_html(answers_table(self._all_answers()))

    def _show_image(self, number: int) -> w.Widget:
        name = self._answers.names[number]
        parts = [f"<p style='overflow-wrap:anywhere'><strong>{html.escape(name)}</strong></p>"]
        for title in self.chosen:
            answer = self._answer(number, title)
            if isinstance(answer, str):
                parts.append(f"<p><strong>No answer.</strong> {html.escape(answer)}</p>")
                break  # the file cannot be read, whichever model looks at it
            heat = self._heat_html(number, title, answer) if self.heat.value else ""
            parts.append(_answer_html(title, answer, self.models[title], heat))
        remove = w.Button(description="Remove", tooltip=f"Remove {name}")
        remove.on_click(lambda _: self._remove(number))
        layout = w.Layout(width="min(100%, 22em)", margin="0 1em 1em 0", padding="0.3em")
        return w.VBox([w.HTML("".join(parts)), remove], layout=layout)

    def _heat_html(self, number: int, title: str, result: Result) -> str:
        label = label_of(result.probabilities, result.threshold)
        heat = self._answers.grad_cam(number, title, result, label)
        if isinstance(heat, str):
            return f"<p>{html.escape(heat)}</p>"
        picture = _img(overlay(result.image, heat), f"Grad-CAM map for {label}: lighter spoke more for it")
        return f"{picture}<p><small>Lighter: spoke more for {html.escape(label)}. {CAVEAT}</small></p>"


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


def _busy(images: int) -> w.Widget:
    words = f"Working on {images} image{'s' if images > 1 else ''} …"
    return w.HTML(f"<p role='status'>{words} <progress aria-label='working'></progress></p>")


def _answer_html(title: str, result: Result, trained: TrainedModel, heat: str) -> str:
    words = "No answer" if result.rejected else result.label
    why = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in result.reasons.values())
    # of two classes the first says it all
    shown = trained.classes[:1] if len(trained.classes) == 2 else trained.classes
    bars = "".join(_bar(name, result, trained) for name in shown)
    return (
        f"<p>{html.escape(title)}</p><p style='font-size:1.6em;margin:0'><strong>{html.escape(words)}</strong></p>"
        f"{f'<p>Because</p><ul>{why}</ul>' if why else ''}{bars}"
        f"{_img(brighten(result.image, brightening([result.image])), f'what the network saw of {result.name}')}{heat}"
        f"<p><small>{1000 * sum(result.seconds.values()):.0f} ms</small></p>"
    )


def _bar(name: str, result: Result, trained: TrainedModel) -> str:
    """Draw one probability as a bar; with two classes also the threshold and the band of no answer."""
    probability = result.probabilities[name]
    marks, words = "", f"probability of {name} {probability:.1%}"
    if result.threshold is not None:
        words += f", threshold {result.threshold:.2f}"
        low, high = abstain_band(trained, result.threshold) or (0, 0)
        if high - low > 0.005:
            words += f", no answer between {low:.2f} and {high:.2f}"
            marks += _mark(low, high - low, "repeating-linear-gradient(45deg, currentColor 0 1px, transparent 1px 4px)")
        marks += _mark(result.threshold, 0.008, "currentColor")
    fill = _mark(0, probability, "#0a4fa3")
    return (
        f"<div role='img' aria-label='{html.escape(words)}' style='position:relative;height:1.2em;"
        f"border:1px solid currentColor'>{fill}{marks}</div><p><small>{html.escape(words)}</small></p>"
    )


def _mark(left: float, width: float, colour: str) -> str:
    return f"<div style='position:absolute;top:0;bottom:0;left:{left:.2%};width:{width:.2%};background:{colour}'></div>"


def _img(image: np.ndarray, alt: str) -> str:
    return picture_html(to_png(image), alt, style="width:10em;margin:0 0.3em 0 0")


def _table_html(rows: pd.DataFrame) -> str:
    """Return the answers as a table with a link to its CSV, where there is more than one."""
    if len(rows) < 2:
        return ""
    link = base64.b64encode(as_text_cells(rows).to_csv(index=False).encode("utf-8", "replace")).decode()
    shown = rows.to_html(index=False, float_format="{:.3f}".format, na_rep="no answer", border=0)
    return (
        f"<div style='overflow-x:auto'>{shown}</div>"
        f"<p><a download='answers.csv' href='data:text/csv;base64,{link}'>Table as CSV</a></p>"
    )


def answers_table(answers: list[tuple[str, str, Result | str]]) -> pd.DataFrame:
    """Return answers (model, image, and the answer or why there is none) as a table, one row each.

    Columns image, model, label (None where there is none), reasons, and a probability per class.
    """
    rows = []
    for title, name, answer in answers:
        row = {"image": name, "model": title, "label": None, "reasons": answer}
        if isinstance(answer, Result):
            row |= {"label": answer.label, "reasons": "; ".join(answer.reasons.values())}
            row |= {f"p_{name}": p for name, p in answer.probabilities.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def draw_examples() -> list[tuple[str, bytes]]:
    """Return three drawn images, (name, PNG): a clear cell of either class, and one that should be rejected."""
    cells = {
        label: draw_cell(label, subject=f"example {label}", number=5, difficulty=0.4).image for label in ("ALL", "HEM")
    }
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


def to_png(image: np.ndarray, *, colours: int | None = None) -> bytes:
    """Return a uint8 (h, w, 3) image as the bytes of a PNG file, a smaller one with at most so many `colours`."""
    buffer, picture = io.BytesIO(), Image.fromarray(image)
    (picture.quantize(colours) if colours else picture).save(buffer, "PNG")
    return buffer.getvalue()


def picture_html(png: bytes, alt: str, style: str) -> str:
    """Return an HTML image that carries its bytes with it."""
    data = base64.b64encode(png).decode()
    return f"<img src='data:image/png;base64,{data}' alt='{html.escape(alt)}' style='{style}'>"


def published_as(widget: w.Widget, what: str, picture: str = "") -> w.Widget:
    """Give a widget a sentence, and a picture, that stand for it where no kernel runs: on published pages."""
    plain = widget._repr_mimebundle_

    def mimebundle(**options: Any) -> Any:
        bundle = plain(**options)
        text = f"Interactive in JupyterLab: {what}."
        return bundle | {"text/plain": text, "text/html": f"{picture}<p><em>{text}</em></p>"}

    widget._repr_mimebundle_ = mimebundle
    return widget
