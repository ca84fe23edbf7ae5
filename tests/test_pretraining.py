"""Weights learned from drawn cells: made, stored small, and read back."""

import json

import numpy as np
import pytest

from allkit import models
from allkit.models import FusedNetwork, build_model
from allkit.synthetic import pretraining
from allkit.synthetic.pretraining import Pretraining, build_source_model, pretrain, store_weights

SMALL = Pretraining(32, cells=40, epochs=1, batch_size=8)


@pytest.fixture(autouse=True)
def _few_checked(monkeypatch, tmp_path):
    monkeypatch.setenv("ALLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretraining, "CHECKED", 8)
    monkeypatch.setattr(models, "DRAWN_WEIGHTS", tmp_path)


def test_weights_are_made_with_a_card_and_a_second_call_goes_on_where_the_first_ended(tmp_path):
    file = pretrain("mobilenet", SMALL, tmp_path)
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["cells"] == 40
    assert set(card["explained"]) == set(pretraining.any_cell_traits(0))
    first = build_model("mobilenet", 32, weights="drawn", seed=1).get_layer("conv_pw_5").get_weights()[0]
    pretrain("mobilenet", SMALL, tmp_path)
    again = build_model("mobilenet", 32, weights="drawn", seed=2).get_layer("conv_pw_5").get_weights()[0]
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", ["mobilenet", "efficientnetb3"])
def test_stored_in_eight_bits_they_give_nearly_the_same_features(name, tmp_path):
    source = build_source_model(name, SMALL)
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.float32)
    store_weights(source, name, tmp_path, {})
    stored = FusedNetwork(build_model(name, 32, weights="drawn", depths="several")).features(images)
    pooled = [layer.output for layer in source.layers if layer.name.startswith("head_pool_")]
    exact = np.concatenate([np.asarray(part) for part in models.keras.Model(source.input, pooled)(images)], axis=1)
    assert np.abs(stored - exact).mean() < 0.1 * np.abs(exact).mean()
    floats = sum(weight.size * 4 for weight in source.get_weights())
    assert (tmp_path / f"{name}.npz").stat().st_size < 0.4 * floats
