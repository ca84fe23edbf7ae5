"""The interactive cells: thin shells of ipywidgets around functions that work without them."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from allkit import AllkitError
from allkit.augment import rotate_by_equations
from allkit.models import Result, TrainedModel, classify_bytes

if TYPE_CHECKING:
    import ipywidgets

NOT_A_DIAGNOSIS = "For teaching. This is not a diagnosis."


def rotation_explorer(image: np.ndarray) -> ipywidgets.Widget:
    """Return a slider for the angle of the paper's rotation (III.B.1), with interpolation and fill.

    Args:
        image: uint8 (h, w, 3).
    """
    import ipywidgets as w

    angle = w.IntSlider(-90, min=-180, max=180, step=5, description="angle (°)", continuous_update=False)
    kind = w.Dropdown(options=["nearest", "bilinear"], description="interpolation")
    fill = w.IntSlider(0, min=0, max=255, description="fill (grey)", continuous_update=False)
    picture = w.Image(value=to_png(image), format="png", width=300)

    def turn(_change=None) -> None:
        turned = rotate_by_equations(image, angle.value, interpolation=kind.value, fill=fill.value)
        picture.value = to_png(turned)

    for control in (angle, kind, fill):
        control.observe(turn, names="value")
    turn()
    return _published_as(w.VBox([angle, kind, fill, picture]), "a slider that rotates the cell")


class ClassifierApp:
    """The paper's GUI (III.B.5, Fig. 7): upload the image of a cell, choose a model, read ALL or HEM.

    Args:
        models: title -> `TrainedModel`, the first is chosen at the start.

    Attributes:
        upload: the FileUpload; setting its value has the effect of a person's upload.
        choice: the Dropdown of models.
        results: answers to the images uploaded last, in order; images that could not be read are left out.
    """

    def __init__(self, models: dict[str, TrainedModel]):
        import ipywidgets as w

        if not models:
            raise AllkitError("there is no trained model to choose from; run notebook 03 or 04 first.")
        self.models, self.results = models, []
        self.upload = w.FileUpload(accept="image/*,.bmp,.tif,.tiff,.webp", multiple=True, description="Image")
        self.choice = w.Dropdown(options=list(models), description="Model")
        self.answer = w.VBox([])
        self.upload.observe(self._classify, names="value")
        self.choice.observe(self._classify, names="value")
        self.widget = _published_as(
            w.VBox([w.HBox([self.upload, self.choice]), self.answer, w.HTML(f"<em>{NOT_A_DIAGNOSIS}</em>")]),
            "the upload cell: choose a model, drop an image, read the label",
        )

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    def _classify(self, _change=None) -> None:
        import ipywidgets as w

        self.results = []
        files = list(self.upload.value)
        self.answer.children = [w.HTML("working …")] if files else []  # the old answer must not linger
        shown = [self._classify_one(file["name"], bytes(file["content"])) for file in files]
        self.answer.children = shown

    def _classify_one(self, name: str, data: bytes) -> ipywidgets.Widget:
        import ipywidgets as w

        try:
            result = classify_bytes(data, self.models[self.choice.value], name=name)
        except AllkitError as error:
            return w.HTML(f"<p><strong>No answer.</strong> {html.escape(str(error))}</p>")
        self.results.append(result)
        picture = w.Image(value=to_png(result.image), format="png", width=160)
        return w.HBox([picture, w.HTML(self._answer_html(result))])

    def _answer_html(self, result: Result) -> str:
        rows = "".join(
            f"<li>{html.escape(name)}: {share:.1%} <progress max='1' value='{share:.4f}'></progress></li>"
            for name, share in result.probabilities.items()
        )
        trained_on = self.models[self.choice.value].card["data"]["source"]
        trained_on = "synthetic cells" if trained_on == "synthetic" else "genuine images"
        return (
            f"<p>{html.escape(result.name)}</p><p style='font-size:1.6em'><strong>{html.escape(result.label)}"
            f"</strong></p><ul>{rows}</ul><p>{html.escape(self.choice.value)}, trained on {trained_on}, "
            f"{1000 * result.seconds:.0f} ms</p>"
        )


def upload_value(name: str, data: bytes) -> tuple[dict]:
    """Return what a browser's upload of one file puts into `FileUpload.value` (ipywidgets 8)."""
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    entry = {"name": name, "type": "", "size": len(data), "content": memoryview(data), "last_modified": now}
    return (entry,)


def to_png(image: np.ndarray) -> bytes:
    """Return a uint8 (h, w, 3) image as the bytes of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _published_as(widget: ipywidgets.Widget, what: str) -> ipywidgets.Widget:
    """Give a widget a sentence that stands for it where no kernel runs: on published pages."""
    plain = widget._repr_mimebundle_

    def mimebundle(**options: Any) -> Any:
        bundle = plain(**options)
        text = f"Interactive in JupyterLab: {what}."
        return bundle | {"text/plain": text, "text/html": f"<p><em>{text}</em></p>"}

    widget._repr_mimebundle_ = mimebundle
    return widget
