"""The upload cell."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import ipywidgets
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
from allkit.models import TrainedModel
from allkit.synthetic import draw_cell

NOT_A_DIAGNOSIS = "For teaching. This is not a diagnosis."


# --------------------------------------------------------------------------------------- the upload cell


class ClassifierApp:
    """The paper's GUI (III.B.5, Fig. 7): upload images of cells, choose a model, read ALL or HEM, or why not.

    Uploads are kept in this process's memory only; the upload button is emptied as soon as they are read, so
    that no widget state that a notebook file might save holds them.

    Args:
        models: title -> `TrainedModel`; the first is chosen at the start.

    Attributes:
        upload: the FileUpload; setting its value has the effect of a person's upload, which replaces what was there.
        choice: the Dropdown of models; its last option, where there are two, asks all of them.
        sliders: title -> slider of the decision threshold; only for two classes.
        heat: the Checkbox for Grad-CAM.
        results: title and answer for every image that could be read, in order.
    """

    BOTH = "all models, side by side"

    def __init__(self, models: dict[str, TrainedModel]):
        if not models:
            raise AllkitError("there is no trained model to choose from; run notebook 03 or 04 first.")
        self.models, self._files = models, []
        self._answers, self._maps, self._explainers = {}, {}, {}  # what was computed, by image and model
        self.upload = w.FileUpload(
            accept="image/*,.bmp,.tif,.tiff,.webp", multiple=True, description="Choose images",
            tooltip="BMP, PNG, JPEG, TIFF or WebP; several at once", layout=w.Layout(width="max-content"),
        )  # fmt: skip
        several = [self.BOTH] if len(models) > 1 else []
        self.choice = w.Dropdown(options=[*models, *several], description="Model", layout=w.Layout(max_width="100%"))
        self.examples = w.Button(description="Example images", tooltip="Synthetic cells, drawn by a program")
        self.clear = w.Button(description="Remove all", tooltip="Forget all images")
        self.heat = w.Checkbox(
            description="Show where the network looked (Grad-CAM)", indent=False,
            layout=w.Layout(width="max-content", max_width="100%", margin="0 0 0 1em"),
        )  # fmt: skip
        self.sliders = {title: self._slider(title, trained) for title, trained in models.items()}
        self.about, self.table = w.HTML(), w.HTML()
        self.answer = w.Box([], layout=w.Layout(flex_flow="row wrap"))
        self._connect()
        rows = w.Layout(flex_flow="row wrap", align_items="center")
        inside = [
            w.HTML(f"<p>{NOT_A_DIAGNOSIS}</p>"), w.Box([self.upload, self.examples, self.clear], layout=rows),
            w.Box([self.choice, self.heat], layout=rows), *self.sliders.values(), self.about, self.answer, self.table,
        ]  # fmt: skip
        what = "the upload cell: choose a model, drop an image, read the label"
        self.widget = _published_as(w.VBox(inside, layout=w.Layout(max_width="100%")), what)
        self._refresh()

    def _slider(self, title: str, trained: TrainedModel) -> ipywidgets.Widget:
        return w.FloatSlider(
            threshold_of(trained), min=0, max=1, step=0.01, readout_format=".2f", continuous_update=False,
            description=f"Threshold for {trained.classes[0]}, {title}", style={"description_width": "initial"},
            layout=w.Layout(width="min(100%, 36em)"),
        )  # fmt: skip

    def _connect(self) -> None:
        self.upload.observe(self._take_upload, names="value")
        self.choice.observe(lambda _: self._refresh(), names="value")
        self.heat.observe(lambda _: self._refresh(), names="value")
        for slider in self.sliders.values():
            slider.observe(lambda _: self._refresh(), names="value")
        self.examples.on_click(lambda _: self.take(draw_examples()))
        self.clear.on_click(lambda _: self.take([]))

    def _ipython_display_(self) -> None:
        display(self.widget)

    @property
    def chosen(self) -> list[str]:
        """Titles of the models that are asked."""
        return list(self.models) if self.choice.value == self.BOTH else [self.choice.value]

    @property
    def results(self) -> list[tuple[str, Result]]:
        """Title and answer for every image that could be read, at the present thresholds."""
        return [(title, answer) for title, _, answer in self._all_answers() if isinstance(answer, Result)]

    def _all_answers(self) -> list[tuple[str, str, Result | str]]:
        names = [shorten(name) for name, _ in self._files]
        return [(t, name, self._answer(k, t)) for k, name in enumerate(names) for t in self.chosen]

    def take(self, files: list[tuple[str, bytes]]) -> None:
        """Replace the images by these (name, bytes), and answer."""
        self._files, self._answers, self._maps = list(files), {}, {}
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
        self.take([file for k, file in enumerate(self._files) if k != number])

    def _refresh(self) -> None:
        """Show everything anew: first that the old answer is gone, then the new one."""
        for title, slider in self.sliders.items():
            shown = title in self.chosen and len(self.models[title].classes) == 2
            slider.layout.display = None if shown else "none"
        self.about.value = "".join(
            f"<p><strong>{html.escape(t)}.</strong> {html.escape(describe_model(self.models[t]))}</p>"
            for t in self.chosen
        )
        self._show_busy()
        cards = [self._card(number) for number in range(len(self._files))]
        self.answer.children = cards
        self.table.value = self._table()

    def _show_busy(self) -> None:
        self.table.value = ""
        words = f"Working on {len(self._files)} image{'s' if len(self._files) > 1 else ''} …"
        busy = w.HTML(f"<p role='status'>{words} <progress aria-label='working'></progress></p>")
        self.answer.children = [busy] if self._files else []

    def _answer(self, number: int, title: str) -> Result | str:
        """Return the answer to one image, computed once, or a sentence on why there is none."""
        if (number, title) not in self._answers:
            name, data = self._files[number]
            self._answers[number, title] = _sentence_for(
                lambda: classify_bytes(data, self.models[title], name=shorten(name))
            )
        answer = self._answers[number, title]
        if isinstance(answer, str):
            return answer
        return apply_threshold(answer, self.models[title], self.sliders[title].value)

    def _card(self, number: int) -> ipywidgets.Widget:
        name = shorten(self._files[number][0])
        parts = [f"<p style='overflow-wrap:anywhere'><strong>{html.escape(name)}</strong></p>"]
        for title in self.chosen:
            answer = self._answer(number, title)
            if isinstance(answer, str):
                parts.append(f"<p><strong>No answer.</strong> {html.escape(answer)}</p>")
                break  # the file cannot be read, whichever model asks
            parts.append(self._answer_html(number, title, answer))
        remove = w.Button(description="Remove", tooltip=f"Remove {name}")
        remove.on_click(lambda _: self._remove(number))
        card = w.Layout(width="min(100%, 22em)", margin="0 1em 1em 0", padding="0.3em")
        return w.VBox([w.HTML("".join(parts)), remove], layout=card)

    def _answer_html(self, number: int, title: str, result: Result) -> str:
        trained, first = self.models[title], self.models[title].classes[0]
        words = "No answer" if result.rejected else result.label
        why = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in result.reasons.values())
        bars = "".join(_bar(name, p, result, trained) for name, p in result.probabilities.items() if name == first or
                       len(result.probabilities) > 2)  # fmt: skip
        total = 1000 * sum(result.seconds.values())
        picture = _img(result.image, f"what the network saw of {result.name}")
        return (
            f"<p>{html.escape(title)}</p><p style='font-size:1.6em;margin:0'><strong>{html.escape(words)}</strong></p>"
            f"{f'<p>Because</p><ul>{why}</ul>' if why else ''}{bars}{picture}{self._heat_html(number, title, result)}"
            f"<p><small>{total:.0f} ms</small></p>"
        )

    def _heat_html(self, number: int, title: str, result: Result) -> str:
        if not self.heat.value:
            return ""
        label = label_of(result.probabilities, result.threshold)
        if (number, title, label) not in self._maps:
            self._maps[number, title, label] = _sentence_for(lambda: self._explain(title)(result.image, label))
        heat = self._maps[number, title, label]
        if isinstance(heat, str):
            return f"<p>{html.escape(heat)}</p>"
        picture = _img(overlay(result.image, heat), f"Grad-CAM map for {label}: lighter spoke more for it")
        return f"{picture}<p><small>Lighter: spoke more for {html.escape(label)}. {CAVEAT}</small></p>"

    def _explain(self, title: str) -> Callable:
        if title not in self._explainers:
            self._explainers[title] = build_grad_cam(self.models[title])
        return self._explainers[title]

    def _table(self) -> str:
        rows = answers_table(self._all_answers())
        if len(rows) < 2:
            return ""
        link = base64.b64encode(rows.map(_harmless).to_csv(index=False).encode("utf-8", "replace")).decode()
        shown = rows.to_html(index=False, float_format="{:.3f}".format, na_rep="no answer", border=0)
        return (
            f"<div style='overflow-x:auto'>{shown}</div>"
            f"<p><a download='answers.csv' href='data:text/csv;base64,{link}'>Table as CSV</a></p>"
        )


def answers_table(answers: list[tuple[str, str, Result | str]]) -> pd.DataFrame:
    """Return answers as a table, one row each.

    Args:
        answers: title of the model, name of the image, and its answer or the sentence on why there is none.

    Returns:
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
    """Return three drawn images, (name, PNG): a cell of either class, and one that should be rejected."""
    cells = {label: draw_cell(label, subject=f"example {label}", number=1).image for label in ("ALL", "HEM")}
    two = np.concatenate([image[:, 112:338] for image in cells.values()], axis=1)[:, :450]
    named = {"synthetic ALL cell.png": cells["ALL"], "synthetic HEM cell.png": cells["HEM"],
             "two synthetic cells.png": two}  # fmt: skip
    return [(name, to_png(image)) for name, image in named.items()]


def shorten(name: str, most: int = 80) -> str:
    """Return a file name that can be shown: without folders and control characters, cut in the middle if long."""
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(c if c.isprintable() else "�" for c in name) or "unnamed"
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 :]}"


def _sentence_for(work: Callable) -> Any:
    """Return what `work` returns, or a sentence on why it could not: never a traceback."""
    try:
        return work()
    except AllkitError as error:
        return str(error)
    except Exception as error:  # the app has to stay usable whatever a file does to a library
        return f"This image could not be processed ({type(error).__name__}). Save it as PNG and try again."


def _harmless(value: Any) -> Any:
    """Keep spreadsheets from taking a file name for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _img(image: np.ndarray, alt: str) -> str:
    data = base64.b64encode(to_png(image)).decode()
    return f"<img src='data:image/png;base64,{data}' alt='{html.escape(alt)}' style='width:10em;margin:0 0.3em 0 0'>"


def _bar(name: str, probability: float, result: Result, trained: TrainedModel) -> str:
    """Draw one probability as a bar; with two classes also the threshold and the band of no answer."""
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


def upload_value(name: str, data: bytes) -> tuple[dict]:
    """Return what a browser's upload of one file puts into `FileUpload.value` (ipywidgets 8)."""
    now = datetime.now(UTC)
    entry = {"name": name, "type": "", "size": len(data), "content": memoryview(data), "last_modified": now}
    return (entry,)


def to_png(image: np.ndarray) -> bytes:
    """Return a uint8 (h, w, 3) image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _published_as(widget: ipywidgets.Widget, what: str, picture: str = "") -> ipywidgets.Widget:
    """Give a widget a sentence, and a picture, that stand for it where no kernel runs: on published pages."""
    plain = widget._repr_mimebundle_

    def mimebundle(**options: Any) -> Any:
        bundle = plain(**options)
        text = f"Interactive in JupyterLab: {what}."
        return bundle | {"text/plain": text, "text/html": f"{picture}<p><em>{text}</em></p>"}

    widget._repr_mimebundle_ = mimebundle
    return widget
