"""The upload cell: what a person sees after an upload, a change of model, and a file that is no image."""

from pathlib import Path

import numpy as np
import pytest

from allkit import AllkitError
from allkit.data import load_index
from allkit.images import read_image
from allkit.models import TrainedModel, import_keras
from allkit.widgets import ClassifierApp, rotation_explorer, to_png, upload_value

CARD = {
    "model": "mobilenet",
    "classes": ["ALL", "HEM"],
    "input": {"image_size": 32, "crop": 300},
    "data": {"source": "synthetic"},
}


def toy_model(bias: float) -> TrainedModel:
    """A network of one layer that looks at nothing but its bias."""
    keras = import_keras()
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    kernel, _ = model.layers[-1].get_weights()
    model.layers[-1].set_weights([0 * kernel, np.array([bias, 0.0])])
    return TrainedModel(model, CARD)


@pytest.fixture(scope="module")
def models():
    return {"MobileNet 1": toy_model(1), "MobileNet 2": toy_model(-1)}


@pytest.fixture
def cell(twin) -> bytes:
    return Path(load_index(twin)["path"].iloc[-1]).read_bytes()


def text_of(app: ClassifierApp) -> str:
    def walk(widget):
        yield getattr(widget, "value", "") if isinstance(getattr(widget, "value", ""), str) else ""
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    return " ".join(walk(app.answer))


def test_upload_shows_label_probability_and_what_the_model_was_trained_on(models, cell):
    app = ClassifierApp(models)
    app.upload.value = upload_value("cell.png", cell)
    (result,) = app.results
    shown = text_of(app)
    assert f"<strong>{result.label}</strong>" in shown
    assert "%" in shown
    assert "synthetic cells" in shown
    assert "not a diagnosis" in str([child.value for child in app.widget.children if hasattr(child, "value")])


def test_changing_the_model_answers_again_and_removing_the_image_clears(models, cell):
    app = ClassifierApp(models)
    app.upload.value = upload_value("cell.png", cell)
    assert app.results[0].label == "ALL"
    app.choice.value = "MobileNet 2"
    assert app.results[0].label == "HEM"
    app.upload.value = ()
    assert app.results == []
    assert app.answer.children == ()


def test_several_files_and_a_bad_one_between_them(models, cell):
    app = ClassifierApp(models)
    bad = upload_value("<b>letter</b>.txt", b"no image")
    app.upload.value = upload_value("one.png", cell) + bad + upload_value("two.png", cell)
    assert [result.name for result in app.results] == ["one.png", "two.png"]
    assert "No answer." in text_of(app)
    assert "<b>letter" not in text_of(app), "a file name is never markup"


def test_no_model_is_said(models):
    with pytest.raises(AllkitError, match="03 or 04"):
        ClassifierApp({})


def test_slider_turns_the_cell(twin):
    image = read_image(load_index(twin)["path"].iloc[-1])
    explorer = rotation_explorer(image)
    angle, picture = explorer.children[0], explorer.children[-1]
    turned = picture.value
    angle.value = 0
    assert picture.value == to_png(image)
    assert turned != picture.value


def test_published_pages_get_a_sentence_instead_of_a_widget(twin):
    explorer = rotation_explorer(read_image(load_index(twin)["path"].iloc[-1]))
    bundle = explorer._repr_mimebundle_()
    assert "JupyterLab" in bundle["text/html"]
    assert "VBox" not in bundle["text/plain"]
