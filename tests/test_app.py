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
from allkit.app.upload import ClassifierApp, shorten, upload_value
from allkit.backend import keras
from allkit.classify import classify_bytes
from allkit.data import load_index
from allkit.images import read_image
from allkit.lessons import leakage
from allkit.models import TrainedModel, load_models, save_model

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
    assert f"▲ {result.label}</strong>" in shown
    assert "The probability of ALL, 73.1%, is at or above the threshold, 0.50." in shown
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
    assert "is below the threshold, 0.80" in text_of(app)
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
    assert "Working on image 1 of 1" in seen[0]
    assert "new.png" in text_of(app)
    assert "Working" not in text_of(app)


def test_several_files_and_a_bad_one_between_them(models, cell):
    app = ClassifierApp(models)
    bad = upload_value("<b>letter<i>.txt", b"no image")
    app.upload.value = upload_value("=one.png", cell) + bad + upload_value("two.png", cell)
    assert [result.name for _, result in app.results] == ["=one.png", "two.png"]
    shown = text_of(app)
    assert "◌ no answer" in shown
    assert "<b>letter" not in shown, "a file name is never markup"
    assert "&lt;b&gt;letter" in shown
    table = base64.b64decode(re.search("base64,([^']*)'>Save as CSV", app.table.value)[1]).decode()
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


def send(app: ClassifierApp, name: str, data: bytes | None, number: int, of: int, upload=1, **more) -> None:
    """What the script in the browser sends for one file of an upload; one that is too large is only named."""
    words = {"kind": "file", "upload": upload, "name": name, "number": number, "of": of, "left": 0, **more}
    app.zone._handle_custom_msg(words, [] if data is None else [memoryview(data)])


def test_dropped_files_come_one_by_one_are_shown_in_their_order_and_leave_no_trace(models, cell):
    app = ClassifierApp(models)
    send(app, "large.png", cell, 1, 2)
    assert app.results == [], "the upload is not complete"
    send(app, "small.png", cell, 0, 2)
    assert [result.name for _, result in app.results] == ["small.png", "large.png"]
    assert app.zone.count == 2
    assert cell not in repr(app.zone.get_state()).encode()
    assert b"small.png" not in repr(app.zone.get_state()).encode()


def test_an_upload_that_broke_off_does_not_mix_with_the_next(models, cell):
    app = ClassifierApp(models)
    send(app, "lost.png", cell, 1, 2, upload=1)
    send(app, "first.png", cell, 0, 2, upload=2)
    send(app, "second.png", cell, 1, 2, upload=2)
    assert [result.name for _, result in app.results] == ["first.png", "second.png"]


def test_what_is_too_large_or_too_many_is_named_and_left_out(models, cell, monkeypatch):
    app = ClassifierApp(models)
    send(app, "huge.png", None, 0, 3, left=7, size=2**26)
    send(app, "folder", None, 1, 3, left=7, size=4096)
    send(app, "cell.png", cell, 2, 3, left=7)
    assert [result.name for _, result in app.results] == ["cell.png"]
    shown = text_of(app)
    assert "huge.png has more than 32 MB" in shown
    assert "folder could not be read" in shown
    assert "7 more" in shown
    assert "100 images are taken at once" in shown
    monkeypatch.setattr("allkit.app.drop_zone.MAX_UPLOAD", len(cell))
    for number in range(2):
        send(app, f"{number}.png", cell, number, 2, upload=2)
    assert [result.name for _, result in app.results] == ["0.png"]
    assert "It was left out" in text_of(app)


@pytest.mark.parametrize(
    "message",
    [{}, {"kind": "file"}, {"kind": "file", "number": 0, "of": 10**9}, {"kind": "file", "number": -1, "of": 1},
     {"kind": "file", "number": "0", "of": 1}, {"kind": "file", "number": 1, "of": 1}, {"kind": "example"},
     {"kind": "example", "number": 99}, {"kind": "example", "number": 0.0},
     {"kind": "example", "number": [0]}, {"kind": "example", "number": -1}, {"kind": "code", "number": 0}],
)  # fmt: skip
def test_messages_of_another_form_are_ignored(models, cell, message):
    app = ClassifierApp(models)
    app.upload.value = upload_value("cell.png", cell)
    app.zone._handle_custom_msg(message, [memoryview(cell)])
    assert [result.name for _, result in app.results] == ["cell.png"]


def test_each_example_has_a_picture_and_is_one_click_away(models):
    app = ClassifierApp(models)
    assert [shown["name"] for shown in app.zone.examples] == [
        "synthetic ALL cell", "synthetic HEM cell", "two synthetic cells"
    ]  # fmt: skip
    assert all(shown["picture"].startswith("data:image/png;base64,") for shown in app.zone.examples)
    app.zone._handle_custom_msg({"kind": "example", "number": 1}, [])
    assert [result.name for _, result in app.results] == ["synthetic HEM cell.png"]


def test_the_plain_buttons_go_where_the_script_runs_and_stay_where_it_does_not(models):
    app = ClassifierApp(models)
    assert app.upload.layout.display is None
    app.zone.alive = True
    assert (app.upload.layout.display, app.examples.layout.display) == ("none", "none")


def app_with_limits(trained: TrainedModel, **limits) -> ClassifierApp:
    """An upload cell whose model has this threshold and band, and no limits for the image itself."""
    rest = {"quality": {}, "unlike": {"limit": np.inf}}
    app = ClassifierApp({"MobileNet": TrainedModel(trained.model, {**METADATA, "limits": limits | rest})})
    app._answers._classify = lambda data, title, name: classify_bytes(data, trained, name=name)
    return app


def test_a_declined_image_gets_one_reason_and_what_would_be_said_only_on_request(models, cell):
    app = app_with_limits(models["MobileNet 1"], abstain=2.0, threshold=0.5)
    app.upload.value = upload_value("cell.png", cell)
    card = BeautifulSoup(app.answer.children[0].children[0].value, "html.parser")
    assert card.select_one(".ak-word").text == "◌ no answer"
    assert "No answer, because the probability is too close to the threshold" in card.text
    folded = card.select_one("details.ak-anyway")
    assert folded.summary.text == "Show what it would say anyway"
    assert "It would say ALL" in folded.text
    assert not folded.has_attr("open")
    assert card.select(".ak-bars") == folded.select(".ak-bars"), "no bar stands outside"


def test_threshold_and_band_lie_mirrored_on_the_second_bar(models, cell):
    app = app_with_limits(models["MobileNet 1"], abstain=0.2, threshold=0.4)
    app.upload.value = upload_value("cell.png", cell)
    said = [bar["aria-label"] for bar in BeautifulSoup(text_of(app), "html.parser").select(".ak-track")]
    numbers = [[float(number) for number in re.findall(r"0\.\d\d", words)] for words in said]
    (threshold, low, high), mirrored = numbers
    assert (threshold, low < 0.4 < high) == (0.4, True)
    assert mirrored == pytest.approx([0.6, 1 - high, 1 - low], abs=0.011)
    assert ["73.1%" in said[0], "26.9%" in said[1]] == [True, True]


def test_the_caveat_stands_once_and_only_beside_maps(models, cell, monkeypatch):
    monkeypatch.setattr("allkit.app.upload.build_grad_cam", lambda trained: lambda image, label: np.zeros((32, 32)))
    app = ClassifierApp(models)
    app.upload.value = upload_value("one.png", cell) + upload_value("two.png", cell)
    assert "no proof" not in text_of(app)
    app.heat.value = True
    assert text_of(app).count("no proof") == 1
    assert text_of(app).count("Grad-CAM map of MobileNet 1") == 2


def test_the_table_is_aligned_and_says_no_answer(models, cell):
    app = ClassifierApp(models)
    app.upload.value = upload_value("one.png", cell) + upload_value("bad.png", b"no image")
    table = BeautifulSoup(app.table.value, "html.parser").table
    assert [cell.text for cell in table.select("th")][:3] == ["image", "model", "answer"]
    rows = [[cell.text for cell in row.select("td")] for row in table.select("tbody tr")]
    assert [row[2] for row in rows] == ["ALL", "no answer"]
    assert [row[4:] for row in rows] == [["73.1%", "26.9%"], ["–", "–"]]
    assert all("ak-number" in cell["class"] for row in table.select("tbody tr") for cell in row.select("td")[4:])


def test_published_pages_show_the_examples_and_never_an_upload(models, cell):
    app = ClassifierApp(models)
    app.show_examples()
    before = words_of(app.widget)
    assert before.count("<div class='ak-card'>") == 3
    assert "synthetic HEM cell" in before
    app.upload.value = upload_value("secret.png", cell)
    assert words_of(app.widget) == before


def test_a_network_is_loaded_when_it_is_asked_and_a_broken_one_is_a_sentence(cell, tmp_path):
    layers = [keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")]
    for name in ("mobilenet", "efficientnetb3"):
        metadata = {**METADATA, "model": name}
        save_model(TrainedModel(keras.Sequential(layers), metadata), tmp_path / "models" / f"{name}.keras")
    (tmp_path / "models" / "efficientnetb3.keras").write_bytes(b"cut off")
    app = ClassifierApp(load_models(tmp_path, lazily=True))
    app.upload.value = upload_value("cell.png", cell)
    assert [title for title, _ in app.results] == ["MobileNet"]
    app.choice.value = "EfficientNetB3"
    assert app.results == []
    assert "cannot be loaded" in text_of(app)
    assert "Traceback" not in text_of(app)


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


# ---- explorers of the course ---------------------------------------------------------------------------------


def words_of(widget) -> str:
    return widget._repr_mimebundle_()["text/html"]


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
