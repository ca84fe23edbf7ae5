"""The upload cell: what a person sees after an upload, a change of model, and a file that is no image."""

import base64
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from allkit import AllkitError
from allkit.app.explorers import (
    convolution_explorer,
    descent_explorer,
    image_browser,
    rotation_explorer,
    split_explorer,
    stage_explorer,
    threshold_explorer,
)
from allkit.app.game import RecognitionGame
from allkit.app.upload import ClassifierApp, shorten, upload_value
from allkit.backend import keras
from allkit.classify import classify_bytes
from allkit.data import load_index
from allkit.images import read_image
from allkit.lessons import leakage
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
    with pytest.raises(AllkitError, match="04 or 05"):
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
    assert "turned by 0 degrees" in view.value
    assert turned.partition("base64,")[2][:4000] != view.value.partition("base64,")[2][:4000], "another picture"
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


def test_image_browser_shows_the_worst_first_and_what_is_asked_for(predictions):
    explorer = image_browser(predictions)
    controls, view = controls_of(explorer), explorer.children[-1]
    losses = [float(text) for text in re.findall(r"<figcaption[^>]*>[^<]*loss ([\d.]+)", view.value)]
    assert len(losses) == 8
    assert losses == sorted(losses, reverse=True)
    controls["class"].value, controls["answer"].value = "HEM", "HEM"
    captions = re.findall("<figcaption[^>]*>([^<]*)", view.value)
    assert captions
    assert all(caption.startswith("HEM, called HEM") for caption in captions)
    controls["page"].value = controls["page"].max
    assert re.findall("<figcaption", view.value)
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


# ---- game and explorers of the course ------------------------------------------------------------------------


def words_of(widget) -> str:
    return widget._repr_mimebundle_()["text/html"]


def test_the_game_takes_answers_says_the_truth_and_ends(twin):
    rows = load_index(twin)
    rows = rows[rows["label"].notna()].groupby("label").head(2)
    game = RecognitionGame(rows, crop=300, note="synthetic cells")
    assert "Cell 1 of 4" in words_of(game.widget)
    assert "synthetic cells, shown" in words_of(game.widget)
    truth = rows["label"].iloc[0]
    wrong = next(label for label in game.buttons if label != truth)
    game.buttons[wrong].click()
    assert game.answers == [wrong]
    assert f"It was {truth}" in game._word.value
    for label in rows["label"].iloc[1:]:
        game.buttons[label].click()
    assert all(button.disabled for button in game.buttons.values())
    assert "3 of 4 right" in game._word.value
    game.answer(truth)
    assert len(game.answers) == 4, "over is over"
    game.restart()
    assert (game.answers, game.buttons[truth].disabled) == ([], False)


def test_a_convolution_and_splits_can_be_stepped_through_without_kernel_or_script(twin):
    rows = load_index(twin)
    splits = leakage.draw_splits(rows, seed=1)
    grey = np.random.default_rng(0).uniform(0, 255, (12, 12))
    for widget, count in ((convolution_explorer(grey), 8), (split_explorer(splits), len(splits))):
        page = BeautifulSoup(words_of(widget), "html.parser")
        buttons, steps = page.select("input[type=radio]"), page.select("div.step")
        assert (len(buttons), len(steps)) == (count, count)
        assert len({step.img["alt"] for step in steps}) == count
        assert [button["id"] for button in buttons] == [label["for"] for label in page.select("label")]
        assert not page.select("script")
        style = page.style.string
        assert all(f"#{button['id']}:checked ~ .step-{k}" in style for k, button in enumerate(buttons))


def test_the_convolution_slider_fills_the_map():
    widget = convolution_explorer(np.random.default_rng(0).uniform(0, 255, (12, 12)))
    place, view = widget.children[1], widget.children[-1]
    place.value = 100
    assert "100 of 100 places of the map are filled" in view.value
    widget.children[0].value = "blur"
    assert "The filter blur" in view.value


def test_the_walk_downhill_follows_the_sliders():
    x = np.linspace(-2, 2, 50)
    widget = descent_explorer(x, (x > 0.2).astype(float), 0.0)
    steps, view = widget.children[2], widget.children[-1]
    steps.value = 25
    assert "ends after 25 steps" in view.value


def test_turning_shows_the_numbers_in_the_equations():
    image = np.full((101, 101, 3), 50, np.uint8)
    widget = rotation_explorer(image)
    widget.children[0].value = 90
    # row 30, column 40 about (50, 50): (i - 50)·0 - (j - 50)·1 + 50 and (i - 50)·1 + (j - 50)·0 + 50
    assert "goes from row 30, column 40 to row 60.0, column 30.0" in widget.children[-1].value
    assert "= 60.0" in widget.children[-1].value


def test_the_threshold_opens_at_the_costs_given_and_other_numbers_of_classes_get_a_sentence():
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 200)
    table = pd.DataFrame({"label": np.where(rng.uniform(0, 1, 200) < p, "ALL", "HEM"), "p_ALL": p, "p_HEM": 1 - p})
    cheap = threshold_explorer(table, prevalence=0.5, cost_missed=20, cost_false_alarm=1)
    dear = threshold_explorer(table, prevalence=0.5, cost_missed=1, cost_false_alarm=20)
    assert cheap.children[0].value < 0.3 < 0.7 < dear.children[0].value
    assert (cheap.children[1].value, cheap.children[2].value) == (pytest.approx(0.5, rel=0.05), 20)
    three = table.assign(p_other=0.0)
    assert "between two classes" in threshold_explorer(three).value


def test_a_picture_of_the_browser_can_be_enlarged(twin):
    rows = load_index(twin).query("part == 'train'").head(3)
    table = rows[["path", "label", "subject", "group"]].assign(p_ALL=0.4, p_HEM=0.6)
    page = BeautifulSoup(words_of(image_browser(table, crop=300)), "html.parser")
    assert len(page.select("details.enlarge > summary > img")) == 3
    assert ".enlarge[open]" in page.style.string
    assert "times as bright" in page.text
