"""Both networks: what they are built of, what they take, and how they are saved."""

import json
import zipfile

import numpy as np
import pytest

from allkit import AllkitError, models
from allkit.augment import Augmentation
from allkit.backend import keras
from allkit.classify import classify_bytes
from allkit.data import load_index
from allkit.images import load_images, prepare_image, read_image
from allkit.models import (
    BACKBONES,
    DRAWN_WEIGHTS,
    Backbone,
    FusedNetwork,
    TrainedModel,
    build_model,
    count_by_stage,
    fuse_batch_norm,
    head_of,
    load_features,
    load_model,
    predict_images,
    register_backbone,
    save_model,
    stage_of,
    standardise_head,
)

SMALL = {"image_size": 32, "seed": 1}


@pytest.fixture(scope="module")
def mobilenet():
    return build_model("mobilenet", alpha=0.25, **SMALL)


@pytest.fixture
def trained(mobilenet, request) -> TrainedModel:
    if getattr(request, "param", "last") == "several":
        mobilenet = build_model("mobilenet", alpha=0.25, depths="several", **SMALL)
        standardise_head(mobilenet, np.random.default_rng(0).normal(5, 2, (9, 448)), np.ones(9))
    metadata = {
        "model": "mobilenet",
        "classes": ["ALL", "HEM"],
        "input": {"image_size": 32, "crop": 300},
        "data": {"source": "synthetic"},
    }
    return TrainedModel(mobilenet, metadata)


def test_models_are_flat_and_start_from_plain_pixel_values(mobilenet):
    names = [layer.name for layer in mobilenet.layers]
    assert "conv_pw_13_relu" in names, "the backbone's layers are the model's own"
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    scaled = mobilenet.get_layer("rescale")(images)
    assert -1.01 < float(np.min(scaled)) < -0.9
    assert 0.9 < float(np.max(scaled)) < 1.01


def test_efficientnet_scales_itself_and_the_paper_fed_mobilenet_raw_values():
    efficient = build_model("efficientnetb3", **SMALL)
    assert [layer.name for layer in efficient.layers if "rescal" in layer.name], "its own rescaling is inside"
    raw = build_model("mobilenet", rescale=False, alpha=0.25, **SMALL)
    assert not [layer for layer in raw.layers if "rescal" in layer.name]


def test_head_is_the_recovered_one(mobilenet):
    dense = mobilenet.get_layer("head_dense")
    assert dense.units == 256
    assert float(dense.kernel_regularizer.l2) == pytest.approx(0.016)
    assert float(dense.activity_regularizer.l1) == pytest.approx(0.006)
    assert float(dense.bias_regularizer.l1) == pytest.approx(0.006)
    assert mobilenet.get_layer("head_dropout").rate == 0.45
    assert mobilenet.get_layer("head_norm").momentum == 0.99
    assert type(mobilenet.get_layer("head_pool")).__name__ == "GlobalMaxPooling2D"


@pytest.mark.parametrize(
    ("name", "image_size", "parameters", "multiply_adds"),
    [("mobilenet", 224, 3_228_864, 569e6), ("efficientnetb3", 300, 10_783_535, 1.8e9)],
)
def test_counts_of_the_backbones_agree_with_what_was_published(name, image_size, parameters, multiply_adds):
    # The papers of the architectures: 569 million and 1.8 billion, with a classifier of 1,000 classes.
    table = count_by_stage(build_model(name, image_size)).set_index("stage").drop("head")
    assert table["parameters"].sum() == parameters
    assert table["multiply_adds"].sum() == pytest.approx(multiply_adds, rel=0.04)


def test_impossible_models_are_refused_with_what_to_do():
    with pytest.raises(AllkitError, match="mobilenet, efficientnetb3"):
        build_model("resnet", 96)
    with pytest.raises(AllkitError, match="at least 32"):
        build_model("mobilenet", 16)
    with pytest.raises(AllkitError, match="two classes"):
        build_model("mobilenet", 32, 1)
    with pytest.raises(AllkitError, match="'imagenet'"):
        build_model("mobilenet", 32, weights="mobilenet.h5")


def test_missing_imagenet_weights_say_which_file_goes_where(tmp_path, monkeypatch):
    import keras

    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.applications, "EfficientNetB3", no_network)
    with pytest.raises(AllkitError, match=r"efficientnetb3_notop\.h5") as error:
        build_model("efficientnetb3", 64, weights="imagenet")
    assert str(tmp_path / "models") in str(error.value)


def test_imagenet_weights_load_at_any_size(weights_home, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(weights_home))
    first = build_model("mobilenet", 224, weights="imagenet", alpha=0.75).get_layer("conv1").get_weights()[0]
    other = build_model("mobilenet", 96, weights="imagenet", alpha=0.75).get_layer("conv1").get_weights()[0]
    np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("name", ["mobilenet", "efficientnetb3"])
def test_the_kit_carries_weights_learned_from_drawn_cells(name):
    drawn, random = (build_model(name, 64, weights=weights, seed=1) for weights in ("drawn", None))
    same = [
        layer.name
        for layer, other in zip(drawn.layers, random.layers, strict=True)
        if layer.weights and stage_of(layer.name) not in ("head", "input")
        and np.array_equal(layer.get_weights()[0], other.get_weights()[0])
    ]  # fmt: skip
    assert not same, "every layer of the backbone has got its weights"
    assert sum(file.stat().st_size for file in DRAWN_WEIGHTS.glob("*.npz")) <= 16e6
    card = json.loads((DRAWN_WEIGHTS / f"{name}.json").read_text())
    assert {"source task", "seed", "cells", "epochs", "command"} <= set(card)


def test_drawn_weights_of_another_width_are_refused_with_what_to_do():
    with pytest.raises(AllkitError, match=r"alpha 1, not 0\.25.*imagenet, or none"):
        build_model("mobilenet", 32, weights="drawn", alpha=0.25)


@pytest.mark.parametrize("trained", ["last", "several"], indirect=True)
def test_a_saved_model_answers_as_before(tmp_path, trained, twin):
    path = tmp_path / "models" / "mobilenet.keras"
    save_model(trained, path)
    again = load_model(path)
    assert again.metadata == trained.metadata
    image = prepare_image(read_image(load_index(twin)["path"].iloc[0]), 32, 300)
    np.testing.assert_allclose(predict_images(again, image[None]), predict_images(trained, image[None]), atol=1e-6)


def test_damaged_or_contradictory_models_are_refused(tmp_path, trained):
    path = tmp_path / "mobilenet.keras"
    with pytest.raises(AllkitError, match="train the model first"):
        load_model(path)
    save_model(trained, path)
    metadata = path.with_suffix(".json")
    metadata.write_text(json.dumps({**trained.metadata, "classes": ["a", "b", "c"]}))
    with pytest.raises(AllkitError, match="2 outputs"):
        load_model(path)
    save_model(trained, path)
    words = json.loads(path.with_suffix(".json").read_text())
    metadata.write_text(json.dumps({**words, "model_sha256": "of the one before"}))
    with pytest.raises(AllkitError, match=r"is of another \.keras file"):
        load_model(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AllkitError, match="damaged"):
        load_model(path)


def test_a_full_disk_leaves_the_earlier_model_alone(tmp_path, trained, monkeypatch):
    path = tmp_path / "mobilenet.keras"
    save_model(trained, path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(trained.model), "save", full)
    with pytest.raises(AllkitError, match="disk is full"):
        save_model(trained, path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mobilenet.json", "mobilenet.keras"]


def test_predictions_follow_the_weights_that_the_network_has_now(trained):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    network = keras.models.clone_model(trained.model)
    network.set_weights(trained.model.get_weights())
    model = TrainedModel(network, trained.metadata)
    before = predict_images(model, images)
    network.compile("sgd", "categorical_crossentropy")
    network.train_on_batch(images.astype(np.float32), np.eye(2)[[0, 1, 1]])
    after = predict_images(model, images)
    assert not np.allclose(after, before, atol=1e-4)
    np.testing.assert_array_equal(after, predict_images(TrainedModel(network, trained.metadata), images))
    network.set_weights(trained.model.get_weights())
    np.testing.assert_array_equal(predict_images(model, images), before)


def test_classify_bytes_gives_probabilities_and_names_bad_files(trained, twin):
    path = load_index(twin)["path"].iloc[-1]
    with open(path, "rb") as file:
        result = classify_bytes(file.read(), trained, name="cell.png")
    assert result.label in ("ALL", "HEM")
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert result.image.shape == (32, 32, 3)
    with pytest.raises(AllkitError, match=r"letter\.txt"):
        classify_bytes(b"Dear Sir or Madam", trained, name="letter.txt")


@pytest.mark.parametrize("name", ["mobilenet", "efficientnetb3"])
@pytest.mark.parametrize("depths", ["last", "several"])
def test_the_head_by_itself_makes_of_the_features_what_the_model_makes_of_the_images(name, depths):
    model = build_model(name, alpha=0.25, depths=depths, **SMALL)
    network = FusedNetwork(model)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    features = network.features(images)
    np.testing.assert_allclose(network.predict(images), model(images), atol=1e-5)
    np.testing.assert_allclose(head_of(model)(features), model(images), atol=1e-5)
    assert {stage_of(layer.name) for layer in head_of(model).layers if layer.weights} == {"head"}


def test_a_head_on_several_depths_sees_what_each_gives_and_standardises_it():
    model = build_model("mobilenet", alpha=0.25, depths="several", penalty=0.0, **SMALL)
    features = FusedNetwork(model).features(np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)))
    depths = [model.get_layer(name).output.shape[-1] for name in BACKBONES["mobilenet"].depths]
    assert features.shape == (40, sum(depths))
    weights = np.r_[np.full(20, 1.0), np.full(20, 3.0)]
    standardise_head(model, features, weights)
    seen = keras.Model(model.get_layer("head_pool").output, model.get_layer("head_dense").input)(features)
    spread = np.average(features, axis=0, weights=weights), features.std(axis=0)
    assert np.abs(np.average(seen, axis=0, weights=weights)).max() < 1e-3
    there = spread[1] > 0.05  # a channel that is always dark stays so
    assert np.average(np.square(seen), axis=0, weights=weights)[there] == pytest.approx(1, abs=0.01)
    assert BACKBONES["efficientnetb3"].depths
    assert build_model("efficientnetb3", depths="several", **SMALL)
    with pytest.raises(AllkitError, match="'several'"):
        build_model("mobilenet", depths="all", **SMALL)


def test_an_added_network_without_named_depths_is_judged_by_its_last_map():
    backbone = Backbone("B0", "EfficientNetB0", r"block(?P<block>\d+)", "none.h5", scaling=None)
    try:
        register_backbone("b0", backbone)
        model = build_model("b0", 32, depths="several")
        assert model.get_layer("head_pool").output.shape == (None, 1280)
    finally:
        BACKBONES.pop("b0", None)


@pytest.mark.parametrize("name", ["mobilenet", "efficientnetb3"])
def test_a_network_with_fused_normalisation_answers_the_same_without_any(name):
    model, rng = build_model(name, 64, alpha=0.25, stochastic_depth=False, seed=1), np.random.default_rng(0)
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    images = rng.integers(0, 256, (4, 64, 64, 3)).astype(np.float32)
    for norm in norms:
        gamma, beta, *moving = norm.get_weights()
        norm.set_weights([rng.uniform(0.5, 1.5, gamma.shape), rng.uniform(-0.5, 0.5, beta.shape), *moving])
        norm.momentum = 0
    model(images, training=True)  # every mean and variance is now that of these images
    before = model.get_weights()
    expected = np.asarray(model(images, training=False))
    assert np.ptp(expected[:, 0]) > 0.1  # not one answer to everything
    fused = fuse_batch_norm(model)
    np.testing.assert_allclose(fused(images, training=False), expected, atol=1e-3)
    left = [layer.name for layer in fused.layers if type(layer).__name__ == "BatchNormalization"]
    assert left == ["head_norm"]  # has no convolution before it
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_only_a_convolution_that_nothing_else_uses_takes_up_a_normalisation():
    rng = np.random.default_rng(0)
    layers = keras.layers
    start = layers.Input((8, 8, 3))
    kept = layers.Conv2D(4, 3, activation="relu", name="bent")(start)  # what it gives is bent before it is normalised
    kept = layers.BatchNormalization()(kept)
    shared = layers.Conv2D(4, 3, name="shared")(kept)
    kept = layers.Add()([shared, layers.BatchNormalization()(shared)])
    made = layers.DepthwiseConv2D(2, depth_multiplier=2, name="each channel twice")(kept)
    made = layers.BatchNormalization(scale=False)(made)
    made = layers.Conv2D(4, 1, groups=2, name="in groups")(made)
    model = keras.Model(start, layers.BatchNormalization(center=False)(made))
    model.set_weights([rng.uniform(0.5, 1.5, values.shape) for values in model.get_weights()])
    images = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    fused = fuse_batch_norm(model)
    np.testing.assert_allclose(fused(images), model(images, training=False), rtol=1e-4)
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in fused.layers) == 2
    assert {layer.name for layer in fused.layers if getattr(layer, "use_bias", False)} >= {
        "in groups",
        "each channel twice",
    }


def test_features_are_computed_once_for_the_same_weights_and_images(twin, tmp_path, monkeypatch):
    monkeypatch.setenv("ALLKIT_CACHE", str(tmp_path))
    rows = load_index(twin)[:10]
    model = build_model("mobilenet", alpha=0.25, **SMALL)
    network, frozen_backbone = FusedNetwork(model), keras.Model(model.input, model.get_layer("head_pool").output)
    turned = {"augmentation": Augmentation(horizontal_flip=True, right_angles=True), "copies": 3}
    first = load_features(network, rows, image_size=32, **turned)
    assert first.shape == (30, 256)
    assert not np.array_equal(first[:10], first[10:20])
    plain = load_features(network, rows, image_size=32)
    images = load_images(rows, image_size=32).astype(np.float32)
    np.testing.assert_allclose(plain, frozen_backbone(images), rtol=1e-3, atol=1e-3 * np.abs(plain).max())
    before = {file: file.stat().st_ino for file in tmp_path.glob("features-*")}
    load_features(network, rows, image_size=32)
    assert {file: file.stat().st_ino for file in tmp_path.glob("features-*")} == before
    other = FusedNetwork(build_model("mobilenet", 32, alpha=0.25, seed=2))
    assert not np.array_equal(load_features(other, rows, image_size=32), plain)


def rewritten(path, change) -> None:
    """Change the configuration inside a .keras file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config["config"]["layers"])
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def widen(layers) -> None:
    next(layer for layer in layers if layer["class_name"] == "Dense")["config"]["units"] = 500_000_000


def pad(layers) -> None:
    next(layer for layer in layers if layer["class_name"] == "ZeroPadding2D")["config"]["padding"] = [[0, 90_000]] * 2


def enlarge(layers) -> None:
    layers[3]["class_name"] = "UpSampling2D"


def swell(layers) -> None:
    layers[0]["config"]["note"] = "x" * 9_000_000


@pytest.mark.parametrize("change", [widen, pad, enlarge, swell])
def test_a_model_that_declares_too_much_is_refused_before_anything_is_built(tmp_path, trained, change, monkeypatch):
    save_model(trained, tmp_path / "m.keras")
    rewritten(tmp_path / "m.keras", change)
    monkeypatch.setattr(keras.models, "load_model", lambda *a, **k: pytest.fail("it was built"))
    with pytest.raises(AllkitError, match="cannot be loaded"):
        load_model(tmp_path / "m.keras")


def test_weights_that_swell_are_refused_unread(tmp_path, trained):
    save_model(trained, tmp_path / "m.keras")
    with (
        zipfile.ZipFile(tmp_path / "m.keras", "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("more.h5", "w", force_zip64=True) as member,
    ):
        for _ in range(20):
            member.write(bytes(1 << 20))
    with pytest.raises(AllkitError, match="cannot be loaded"):
        load_model(tmp_path / "m.keras")


@pytest.mark.parametrize("name", BACKBONES)
def test_every_network_of_the_kit_passes_as_one(tmp_path, name):
    path = tmp_path / "m.keras"
    build_model(name, depths="several", **SMALL).save(path)
    models._check_archive(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_no_answer(trained, twin, value):
    broken = keras.models.clone_model(trained.model)
    broken.set_weights([np.full_like(weights, value) for weights in trained.model.get_weights()])
    with open(load_index(twin)["path"][0], "rb") as file:
        answer = classify_bytes(file.read(), TrainedModel(broken, trained.metadata))
    assert answer.rejected
    assert "damaged" in " ".join(answer.reasons.values())


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\x89HDF\r\n\x1a\n" + bytes(99)])
def test_damaged_imagenet_weights_are_called_so(tmp_path, monkeypatch, content):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mobilenet_7_5_224_tf_no_top.h5").write_bytes(content)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(AllkitError, match=r"mobilenet_7_5_224_tf_no_top\.h5 is damaged.*copy or download it again"):
        build_model("mobilenet", weights="imagenet", alpha=0.75, **SMALL)
