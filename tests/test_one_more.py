"""The instructor's guide: one more network and one more class, by the very file that the guide prints."""

import importlib.util

import pytest

from allkit import ROOT, AllkitError, models

EXAMPLE = ROOT / "docs" / "examples" / "one_more.py"


@pytest.fixture
def example(monkeypatch):
    """The example as a module; what it registers is forgotten after the test."""
    monkeypatch.setattr(models, "BACKBONES", dict(models.BACKBONES))
    spec = importlib.util.spec_from_file_location("one_more", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_more_network_and_class_take_less_than_forty_lines(example, tmp_path):
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 40
    example.draw_classes(tmp_path, images=12)
    table = example.train_and_predict(tmp_path, image_size=32, alpha=0.35, epochs=1)
    assert {"p_ALL", "p_BURST", "p_HEM"} <= set(table.columns)
    assert set(table["label"]) == {"ALL", "BURST", "HEM"}
    assert table.filter(like="p_").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)


def test_a_registered_network_is_counted_found_and_named(example, tmp_path):
    models.register_backbone("mobilenetv2", example.MOBILENETV2)
    models.register_backbone("mobilenetv2", example.MOBILENETV2)  # as often as a notebook's cell is run
    model = models.build_model("mobilenetv2", 32, 3, alpha=0.35, seed=1)
    stages = models.count_by_stage(model)["stage"].tolist()
    assert stages == ["input", "stem", *(f"block {k}" for k in range(1, 17)), "top", "head"]
    metadata = {"model": "mobilenetv2", "classes": ["ALL", "A", "B"], "input": {"image_size": 32, "crop": None}}
    trained = models.TrainedModel(model, metadata | {"data": {"source": "folders"}})
    models.save_model(trained, tmp_path / "models" / "mobilenetv2.keras")
    assert list(models.load_models(tmp_path)) == ["MobileNetV2"]


def test_a_network_that_is_misspelt_or_takes_a_name_twice_is_refused(example):
    other = models.Backbone("Other", "ResNet50V2", "x", "x.h5")
    with pytest.raises(AllkitError, match="already"):
        models.register_backbone("mobilenet", other)
    with pytest.raises(AllkitError, match="MobilNet"):
        models.register_backbone("mine", models.Backbone("Mine", "MobilNet", "x", "x.h5"))


def test_weights_that_are_missing_are_named(example, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    models.register_backbone("mobilenetv2", example.MOBILENETV2)
    with pytest.raises(AllkitError, match=r"alpha 0\.35, 0\.5"):
        models.find_weights("mobilenetv2", 0.3, 96)
