"""The upload cell: what a person sees after an upload, a change of model, and a file that is no image."""

import base64
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from allkit import AllkitError
from allkit.app.explorers import image_browser, rotation_explorer, stage_explorer, threshold_explorer
from allkit.app.upload import ClassifierApp, shorten, to_png, upload_value
from allkit.backend import keras
from allkit.classify import classify_bytes
from allkit.data import load_index
from allkit.images import read_image
from allkit.models import TrainedModel

METADATA = {
    "model": "mobilenet",
    "classes": ["ALL", "HEM"],
    "input": {"image_size": 32, "crop": 300},
    "data": {"source": "synthetic"},
}


def toy_model(bias: float) -> TrainedModel:
    """A network of one layer that looks at nothing but its bias."""
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    kernel, _ = model.layers[-1].get_weights()
    model.layers[-1].set_weights([0 * kernel, np.array([bias, 0.0])])
    return TrainedModel(model, METADATA)


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

    return " ".join(walk(app.widget))


def buttons(app: ClassifierApp, words: str) -> list:
    return [child for card in app.answer.children for child in card.children if child._view_name == "ButtonView"
            and child.description == words]  # fmt: skip


def test_upload_shows_label_probability_and_what_the_model_was_trained_on(models, cell):
    app = ClassifierApp(models)
    app.upload.value = upload_value("cell.png", cell)
    ((title, result),) = app.results
    shown = text_of(app)
    assert title == "MobileNet 1"
    assert f"<strong>{result.label}</strong>" in shown
    assert "probability of ALL 73.1%" in shown
    assert "synthetic images" in shown
    assert "not a diagnosis" in shown


def test_uploads_leave_no_trace_in_the_state_of_the_widgets(models, cell):
    app = ClassifierApp(models)
    app.upload.value = upload_value("cell.png", cell)
    assert app.results
    assert app.upload.value == ()
    assert cell not in repr(app.upload.get_state()).encode()


def test_changing_the_model_answers_again_and_removing_images_clears(models, cell):
    app = ClassifierApp(models)
    app.upload.value = upload_value("one.png", cell) + upload_value("two.png", cell)
    assert [r.label for _, r in app.results] == ["ALL", "ALL"]
    app.choice.value = "MobileNet 2"
    assert [r.label for _, r in app.results] == ["HEM", "HEM"]
    app.choice.value = app.BOTH
    assert [r.label for _, r in app.results] == ["ALL", "HEM", "ALL", "HEM"]
    buttons(app, "Remove")[0].click()
    assert [r.name for _, r in app.results] == ["two.png", "two.png"]
    app.clear.click()
    assert app.results == []
    assert app.answer.children == ()


def test_the_label_follows_the_threshold_without_asking_the_network_again(models, cell, monkeypatch):
    app = ClassifierApp(models)
    app.upload.value = upload_value("cell.png", cell)
    monkeypatch.setattr("allkit.app.upload.classify_bytes", None)
    app.sliders["MobileNet 1"].value = 0.8
    assert app.results[0][1].label == "HEM"
    assert "threshold 0.80" in text_of(app)
    app.sliders["MobileNet 1"].value = 0.7
    assert app.results[0][1].label == "ALL"


def test_the_old_answer_is_gone_while_the_next_is_computed(models, cell, monkeypatch):
    app = ClassifierApp(models)
    app.upload.value = upload_value("old.png", cell)
    seen = []

    def slow(*args, **kwargs):
        seen.append(text_of(app))
        return classify_bytes(*args, **kwargs)

    monkeypatch.setattr("allkit.app.upload.classify_bytes", slow)
    app.upload.value = upload_value("new.png", cell)
    assert "old.png" not in seen[0]
    assert "Working on 1 image" in seen[0]
    assert "new.png" in text_of(app)
    assert "Working" not in text_of(app)


def test_several_files_and_a_bad_one_between_them(models, cell):
    app = ClassifierApp(models)
    bad = upload_value("<b>letter<i>.txt", b"no image")
    app.upload.value = upload_value("=one.png", cell) + bad + upload_value("two.png", cell)
    assert [result.name for _, result in app.results] == ["=one.png", "two.png"]
    shown = text_of(app)
    assert "No answer." in shown
    assert "<b>letter" not in shown, "a file name is never markup"
    assert "&lt;b&gt;letter" in shown
    table = base64.b64decode(re.search("base64,([^']*)' *>Table", app.table.value)[1]).decode()
    assert table.splitlines()[0] == "image,model,label,reasons,p_ALL,p_HEM"
    assert table.splitlines()[1].startswith("'=one.png,"), "a spreadsheet must not run a file name"
    assert "letter" in table.splitlines()[2], "files without an answer are listed too"


def test_a_failure_nobody_thought_of_is_a_sentence(models, cell, monkeypatch):
    app = ClassifierApp(models)
    monkeypatch.setattr("allkit.app.upload.classify_bytes", lambda *a, **k: 1 / 0)
    app.upload.value = upload_value("cell.png", cell)
    assert "could not be processed (ZeroDivisionError)" in text_of(app)
    assert "Traceback" not in text_of(app)


def test_examples_are_one_click_away_and_called_synthetic(models):
    app = ClassifierApp(models)
    app.examples.click()
    assert len(app.results) == 3
    assert all("synthetic" in result.name for _, result in app.results)


def test_names_are_shown_without_folders_and_at_bounded_length():
    assert shorten("../../etc/passwd.png") == "passwd.png"
    assert shorten("C:\\cells\\a.png") == "a.png"
    assert "\n" not in shorten("a\nb.png")
    assert len(shorten("x" * 5000)) < 100


def test_no_model_is_said(models):
    with pytest.raises(AllkitError, match="03 or 04"):
        ClassifierApp({})


def controls_of(explorer) -> dict:
    return {control.description: control for control in explorer.children[:-1]}


@pytest.fixture(scope="module")
def predictions(twin):
    """Answers on the twin's cells: right with 0.8, and every fifth wrong."""
    rows = load_index(twin).query("part == 'train'").reset_index(drop=True)
    right = np.where(np.arange(len(rows)) % 5 == 0, 0.2, 0.8) - 0.001 * np.arange(len(rows))
    of_all = np.where(rows["label"] == "ALL", right, 1 - right)
    return rows[["path", "label", "subject", "group"]].assign(p_ALL=of_all, p_HEM=1 - of_all)


def test_slider_turns_the_cell(twin):
    image = read_image(load_index(twin)["path"].iloc[-1])
    explorer = rotation_explorer(image, note="synthetic cell")
    view = explorer.children[-1]
    turned = view.value
    controls_of(explorer)["angle (°)"].value = 0
    assert base64.b64encode(to_png(image)).decode() in view.value
    assert turned != view.value
    assert "synthetic cell" in view.value


def test_threshold_explorer_says_what_a_threshold_costs_where_the_disease_is_rare(predictions):
    explorer = threshold_explorer(predictions)
    controls, view = controls_of(explorer), explorer.children[-1]
    controls["threshold"].value = 0
    assert "sensitivity 100%, specificity 0%" in view.value
    controls["prevalence"].value = 0.001
    controls["cost of a missed case"].value = 1
    assert re.search(r"Where 0\.1% are ALL, 0% of those called ALL are, and 1,000 images cost 999", view.value)
    controls["threshold"].value = 1
    assert "sensitivity 0%, specificity 100%" in view.value
    assert "none of those called ALL" in view.value
    with pytest.raises(AllkitError, match="two classes"):
        threshold_explorer(predictions.assign(p_third=0.0))


def test_image_browser_shows_the_worst_first_and_what_is_asked_for(predictions):
    explorer = image_browser(predictions)
    controls, view = controls_of(explorer), explorer.children[-1]
    losses = [float(text) for text in re.findall(r"<figcaption>[^<]*loss ([\d.]+)", view.value)]
    assert len(losses) == 8
    assert losses == sorted(losses, reverse=True)
    controls["class"].value, controls["answer"].value = "HEM", "HEM"
    captions = re.findall("<figcaption>([^<]*)", view.value)
    assert captions
    assert all(caption.startswith("HEM, called HEM") for caption in captions)
    controls["page"].value = controls["page"].max
    assert re.findall("<figcaption>", view.value)
    subject = predictions["subject"].iloc[0]
    controls["class"].value = controls["answer"].value = "all"
    controls["subject"].value = subject
    assert view.value.count("</figure>") == min(8, (predictions["subject"] == subject).sum())


def test_stage_explorer_switches_between_parameters_and_work():
    table = pd.DataFrame({"stage": ["stem", "head"], "parameters": [1, 9], "multiply_adds": [80, 20]})
    explorer = stage_explorer({"A network": table})
    assert "most in head, 90% of parameters" in explorer.children[-1].value
    controls_of(explorer)["what"].value = "multiply-adds for one image"
    assert "most in stem, 80% of multiply-adds" in explorer.children[-1].value


def test_published_pages_get_a_picture_and_a_sentence_instead_of_a_widget(twin):
    explorer = rotation_explorer(read_image(load_index(twin)["path"].iloc[-1]))
    bundle = explorer._repr_mimebundle_()
    assert "JupyterLab" in bundle["text/html"]
    assert re.search("<img [^>]*alt='The cell turned by -90 degrees", bundle["text/html"])
    assert "VBox" not in bundle["text/plain"]
