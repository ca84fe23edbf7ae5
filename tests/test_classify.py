"""One image in, an answer out: labels, rejections and their reasons, thresholds, the command line, Grad-CAM."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.transform import resize
from typer.testing import CliRunner

from allkit import AllkitError
from allkit.backend import keras, tf
from allkit.classify import (
    ABSTAIN_SHARE,
    MAX_BYTES,
    NEAR_BEST,
    Result,
    abstain_band,
    apply_threshold,
    build_limits,
    classify_bytes,
    classify_files,
    describe_model,
    evaluate_rejections,
    find_flags,
    load_photographs,
    measure_quality,
    threshold_of,
)
from allkit.cli import app as cli
from allkit.data import load_index
from allkit.explain import build_grad_cam, overlay
from allkit.images import ImageError, read_image, to_png
from allkit.models import TrainedModel, build_model, load_model, load_models, save_model
from allkit.splits import sample_weights
from allkit.synthetic import make_twin

METADATA = {
    "model": "mobilenet",
    "title": "MobileNet",
    "classes": ["ALL", "HEM"],
    "input": {"image_size": 32, "crop": 300},
    "data": {"source": "synthetic"},
}


def size_model() -> TrainedModel:
    """A network that says ALL where the cell is large: it reads the mean brightness of the image."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.GlobalAveragePooling2D(), layers.Dense(2, "softmax")])
    model.layers[-1].set_weights([np.array([[0.05, 0]] * 3), np.array([-6.0, 0.0])])
    return TrainedModel(model, METADATA)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Two hundred drawn cells: the first half to take limits from, the others to try them on."""
    index = load_index(make_twin(tmp_path_factory.mktemp("cells") / "twin", images=200, seed=3))
    return index[index["part"] == "train"].sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def trained(cells) -> TrainedModel:
    model, rows = size_model(), cells[:100]
    probabilities = np.array([list(r.probabilities.values()) for r in classify_files(rows["path"], model)])
    return dataclasses.replace(model, metadata={**METADATA, "limits": build_limits(model, rows, probabilities)})


@pytest.fixture(scope="module")
def images(cells) -> list[np.ndarray]:
    return [read_image(path) for path in cells["path"][100:140]]


def flags_of(image: np.ndarray, trained: TrainedModel) -> set[str]:
    return set(find_flags(measure_quality(image), trained.metadata["limits"]))


def test_the_threshold_is_near_the_best_one_on_the_validation_images_and_near_one_half(cells, trained):
    rows = cells[:100]
    p = np.array([r.probabilities["ALL"] for r in classify_files(rows["path"], trained)])
    truth, weight = (rows["label"] == "ALL").to_numpy(), sample_weights(rows)

    def balanced(cut):
        return np.average((p >= cut) == truth, weights=weight)  # subjects and classes count the same

    cuts = np.linspace(0.001, 0.999, 999)
    reached = np.array([balanced(cut) for cut in cuts])
    assert balanced(threshold_of(trained)) >= reached.max() - NEAR_BEST - 1e-9
    nearest = np.abs(cuts[reached >= reached.max() - NEAR_BEST] - 0.5).min()
    assert abs(threshold_of(trained) - 0.5) <= nearest + 0.002
    low, high = abstain_band(trained, threshold_of(trained))
    assert low < threshold_of(trained) < high
    assert np.average((p > low) & (p < high), weights=weight) <= ABSTAIN_SHARE + 0.03, (
        "one subject's cell may weigh so much"
    )
    on_the_limit = 1e-6  # the cell that sets the limit lies on it, up to rounding
    inside = (p >= low - on_the_limit) & (p <= high + on_the_limit)
    assert np.average(inside, weights=weight) >= ABSTAIN_SHARE - 0.001


def test_what_is_answered_is_compared_with_what_is_rejected(images, trained):
    said = dataclasses.replace(classify_bytes(to_png(images[0]), trained), probabilities={"ALL": 0.9, "HEM": 0.1})
    sure = dataclasses.replace(said, label="ALL")
    unsure = dataclasses.replace(said, label=None)
    found = evaluate_rejections([sure, sure, unsure], ["ALL", "HEM", "HEM"])
    assert found["images"].to_dict() == {"answered": 2, "rejected": 1}
    assert found["right"].to_dict() == {"answered": 0.5, "rejected": 0.0}
    assert np.isnan(evaluate_rejections([sure], ["ALL"]).loc["rejected", "right"])


def test_other_cells_of_the_same_kind_are_rarely_rejected(images, trained):
    rejected = [flags for image in images if (flags := flags_of(image, trained))]
    assert len(rejected) <= 0.2 * len(images), rejected


def test_what_is_not_one_sharp_cell_is_rejected_for_its_reason(images, trained):
    few = images[:12]

    def share(change, *codes):
        found = [flags_of(change(image), trained) for image in few]
        return np.mean([any(code in flags for code in codes) if codes else bool(flags) for flags in found])

    black = np.zeros((450, 450, 3), np.uint8)
    assert flags_of(black, trained) == {"empty"}
    assert share(lambda i: np.concatenate([i[:, 80:370]] * 2, axis=1), "several") > 0.8
    assert share(lambda i: ndimage.gaussian_filter(i, (8, 8, 0)), "focus", "unlike") > 0.8
    assert share(lambda i: np.clip(i * 2.0, 0, 255).astype(np.uint8), "exposure") > 0.8
    assert share(lambda i: np.asarray(Image.fromarray(i).resize((900, 900))), "scale") > 0.8
    assert share(lambda i: np.asarray(Image.fromarray(i[125:325, 125:325]).resize((450, 450))), "background") > 0.8
    assert share(lambda i: np.asarray(Image.fromarray(i).resize((150, 150)))) > 0.8, "a third of the scale"


def test_photographs_and_text_are_rejected(trained):
    pictures = load_photographs()
    assert len(pictures) >= 7
    assert all(flags_of(picture, trained) for picture in pictures)


def test_blood_smears_are_rejected_and_genuine_cells_by_their_own_limits_are_not(cnmc_folder, smears_folder):
    index = load_index(cnmc_folder)
    rows = index[index["fold"] == 1].sample(240, random_state=0)
    limits = build_limits(TrainedModel(None, METADATA), rows[:160], np.full((160, 2), 0.5))
    flagged = [bool(find_flags(measure_quality(read_image(path)), limits)) for path in rows["path"][160:]]
    assert np.mean(flagged) < 0.2
    smears = load_index(smears_folder).sample(20, random_state=0)
    assert all(find_flags(measure_quality(read_image(path)), limits) for path in smears["path"])


def test_an_answer_is_rejected_inside_the_band_and_follows_the_threshold(images, trained):
    result = classify_bytes(to_png(images[0]), trained, name="cell.png")
    p = result.probabilities["ALL"]
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-5)
    result = dataclasses.replace(result, flags={})
    assert apply_threshold(result, trained, p).reasons.keys() == {"unsure"}
    assert apply_threshold(result, trained, p).label is None
    assert apply_threshold(result, trained, p / 50).label == "ALL"
    assert apply_threshold(result, trained, 1 - (1 - p) / 50).label == "HEM"


def test_many_files_get_the_answers_that_each_gets_alone(cells, trained, tmp_path):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Sir or Madam")
    paths = [*cells["path"][:5], letter, tmp_path, tmp_path / "nothing.png", *cells["path"][5:40]]
    answers = list(classify_files(paths, trained))
    assert len(answers) == len(paths)
    for path, answer in zip(paths, answers, strict=True):
        if Path(path).suffix != ".png" or not Path(path).is_file():
            assert isinstance(answer, ImageError)
            continue
        alone = classify_bytes(Path(path).read_bytes(), trained, name=str(path))
        assert (answer.name, answer.label, answer.reasons.keys()) == (str(path), alone.label, alone.reasons.keys())
        assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-5)


def test_a_file_of_any_size_is_refused_before_it_is_decoded(trained):
    with pytest.raises(ImageError, match=r"big\.png has more than"):
        classify_bytes(b"\0" * (MAX_BYTES + 1), trained, name="big.png")


def test_a_model_without_limits_answers_at_one_half_and_never_rejects(images):
    result = classify_bytes(to_png(np.zeros((450, 450, 3), np.uint8)), size_model())
    assert isinstance(result, Result)
    assert result.threshold == 0.5
    assert not result.rejected


def test_limits_of_another_version_are_refused(trained, images):
    old = {**trained.metadata["limits"], "quality": {"area": [0, 1]}}
    with pytest.raises(AllkitError, match="train the model again"):
        classify_bytes(to_png(images[0]), dataclasses.replace(trained, metadata={**trained.metadata, "limits": old}))


def test_more_than_two_classes_have_no_threshold(cells):
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    plain = TrainedModel(model, {**METADATA, "classes": ["a", "b", "c"]})
    probabilities = np.array([[0.4, 0.3, 0.3], [0.9, 0.05, 0.05]] * 10)
    limits = build_limits(plain, cells[:20], probabilities)
    result = classify_bytes(to_png(read_image(cells["path"][0])), plain)
    assert result.threshold is None
    assert result.label == max(result.probabilities, key=result.probabilities.get)
    strict = dataclasses.replace(plain, metadata={**plain.metadata, "limits": {**limits, "abstain": 1.1}})
    assert "unsure" in classify_bytes(to_png(read_image(cells["path"][0])), strict).reasons


def test_the_card_with_its_limits_travels_with_the_model(trained, tmp_path, images):
    save_model(trained, tmp_path / "run" / "models" / "mobilenet.keras")
    (again,) = load_models(tmp_path / "run").values()
    assert again.metadata == trained.metadata
    data = to_png(images[0])
    assert classify_bytes(data, again).reasons == classify_bytes(data, trained).reasons
    with pytest.raises(AllkitError, match="notebook 04 or 05"):
        load_models(tmp_path)


def test_a_model_says_what_it_was_trained_on_and_how_it_did(trained):
    scores = {"images": 50, "auc": 0.8123, "balanced_accuracy": 0.7, "sensitivity": 0.9, "specificity": 0.5}
    metadata = {**trained.metadata, "split": {"images": {"train": 1200}, "shares_subjects": False}, "scores": scores}
    text = describe_model(dataclasses.replace(trained, metadata=metadata))
    assert "1,200 synthetic images" in text
    assert "50 images of subjects it had not seen: AUC 0.81" in text
    assert "specificity 0.50" in text


@pytest.fixture
def model_file(trained, tmp_path) -> str:
    save_model(trained, tmp_path / "model.keras")
    return str(tmp_path / "model.keras")


def test_command_line_has_a_line_per_file_whatever_the_file_is(model_file, cells, tmp_path):
    odd = tmp_path / "a\nb.png"
    odd.write_bytes(Path(cells["path"][0]).read_bytes())
    names = [cells["path"][0], str(odd), str(tmp_path), str(tmp_path / "absent.png"), model_file]
    done = CliRunner().invoke(cli, ["classify", *names, "--model", model_file])
    assert done.exit_code == 1, "files that could not be read"
    lines = done.stdout.splitlines()
    assert len(lines) == len(names)
    assert lines[0].startswith(f"{names[0]}: ")
    assert "a\\nb.png" in lines[1]
    assert all("no answer" in line for line in lines[2:])
    assert "not a diagnosis" in done.stderr


def test_command_line_as_json(model_file, cells):
    names = list(cells["path"][:3])
    done = CliRunner().invoke(cli, ["classify", *names, "--model", model_file, "--json", "--threshold", "0.000001"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert [row["file"] for row in rows] == names
    assert {row["threshold"] for row in rows} == {1e-6}
    assert all(row["rejected"] == (row["label"] is None) for row in rows)


def test_command_line_without_a_model_says_how_to_get_one(tmp_path):
    done = CliRunner().invoke(cli, ["classify", "a.png", "--model", str(tmp_path)])
    assert done.exit_code == 1
    assert "notebook 04 or 05" in str(done.exception)


@pytest.mark.parametrize("name", ["mobilenet", "efficientnetb3"])
def test_grad_cam_agrees_with_a_gradient_taken_through_the_whole_network(name, images):
    model = build_model(name, 64, alpha=0.25, pooling="avg", seed=2)
    trained = TrainedModel(model, {**METADATA, "input": {"image_size": 64, "crop": 300}})
    image = np.asarray(Image.fromarray(images[0]).resize((64, 64)))
    heat = build_grad_cam(trained, least=1)(image, "ALL")
    assert heat.shape == (64, 64)
    assert 0 <= heat.min() <= heat.max() <= 1
    last = model.get_layer("probabilities")
    both = keras.Model(model.input, [model.get_layer("head_pool").input, last.input])
    with tf.GradientTape() as tape:
        maps, before = both(image[None].astype(np.float32), training=False)
        score = (before @ last.kernel + last.bias)[0, 0]
    weights = tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2))
    expected = np.maximum(0, maps.numpy()[0] @ weights.numpy()[0])
    assert expected.max() > 0
    np.testing.assert_allclose(heat, resize(expected / expected.max(), (64, 64), order=1, mode="edge"), atol=1e-3)
    assert overlay(image, heat).shape == (64, 64, 3)
    with pytest.raises(AllkitError, match="no class 'ill'"):
        build_grad_cam(trained)(image, "ill")


def test_grad_cam_finds_the_place_that_decides():
    """A network whose last map is the image's own brightness: the bright corner must light up, for ALL only."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3), name="image")
    maps = layers.AveragePooling2D(4)(inputs)
    pooled = layers.GlobalAveragePooling2D(name="head_pool")(maps)
    outputs = layers.Dense(2, activation="softmax", name="probabilities")(pooled)
    model = keras.Model(inputs, outputs)
    model.get_layer("probabilities").set_weights([np.array([[1.0, -1.0]] * 3), np.zeros(2)])
    image = np.zeros((32, 32, 3), np.uint8)
    image[:8, 24:] = 200
    explain = build_grad_cam(TrainedModel(model, METADATA))
    heat = explain(image, "ALL")
    assert np.unravel_index(heat.argmax(), heat.shape)[0] < 8
    assert heat[:8, 24:].mean() > 0.8
    assert heat[16:, :16].max() < 0.05
    assert explain(image, "HEM").max() == 0


def test_grad_cam_needs_a_network_of_the_kit():
    with pytest.raises(AllkitError, match="build_model"):
        build_grad_cam(size_model())


def test_model_files_that_are_damaged_or_carry_code_are_refused(trained, tmp_path):
    path = tmp_path / "mobilenet.keras"
    save_model(trained, path)
    whole = path.read_bytes()
    for cut in (0, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:cut])
        with pytest.raises(AllkitError, match="cannot be loaded"):
            load_model(path)
    inputs = keras.Input((32, 32, 3))
    code = keras.layers.Lambda(lambda x: x + 1)(inputs)
    evil = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(code)))
    save_model(TrainedModel(evil, METADATA), path)
    with pytest.raises(AllkitError, match="carries code"):
        load_model(path)
    for metadata in ("", "[]", "{", json.dumps({**METADATA, "classes": ["a"]}), json.dumps({**METADATA, "input": {}})):
        save_model(trained, path)
        path.with_suffix(".json").write_text(metadata)
        with pytest.raises(AllkitError):
            load_model(path)


def test_uploaded_formats_give_the_same_answer(images, trained):
    answers = []
    for kind in ("PNG", "BMP", "TIFF", "WEBP"):
        out = io.BytesIO()
        Image.fromarray(images[3]).save(out, kind, lossless=True)
        answers.append(classify_bytes(out.getvalue(), trained))
    assert len({round(answer.probabilities["ALL"], 6) for answer in answers}) == 1
    assert len({tuple(answer.reasons) for answer in answers}) == 1
