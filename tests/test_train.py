"""Profiles, the learning-rate rule against the paper's tables, resuming, and the guard against leaks."""

import dataclasses
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from allkit import AllkitError
from allkit.augment import Augmentation
from allkit.backend import keras
from allkit.data import load_index
from allkit.lessons.paper import load_table
from allkit.models import predict_images, predict_index
from allkit.splits import LeakError, balance_split, sample_weights, split_by_image, split_by_subject, split_data
from allkit.train import (
    GrowingCurve,
    MonitorSwitchLR,
    build_batches,
    build_from_profile,
    format_history,
    get_profile,
    train_model,
)

TINY = {"weights": "none", "image_size": 32, "alpha": 0.25, "epochs": 3, "batch_size": 16}


def feed(rule, losses: pd.DataFrame) -> None:
    """Give a callback these epochs as Keras would."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adamax(1e-3), "mse")
    rule.set_model(model)
    rule.on_train_begin()
    for number, row in enumerate(losses.to_dict("records")):
        rule.on_epoch_begin(number)
        rule.on_epoch_end(number, row)


@pytest.mark.parametrize("model", ["mobilenet", "efficientnetb3"])
def test_rule_reproduces_every_cell_of_tables_1_and_2_but_the_time(model):
    printed = load_table(model)
    fed = printed[["loss", "accuracy", "val_loss", "val_accuracy"]].copy()
    fed[["accuracy", "val_accuracy"]] /= 100
    rule = MonitorSwitchLR()
    feed(rule, fed)
    assert rule.table["epoch"].tolist() == printed["epoch"].tolist()
    assert rule.table["monitor"].tolist() == printed["monitor"].tolist()
    assert rule.table["improvement"].round(2).tolist() == printed["improvement"].tolist()
    assert rule.table["lr"].round(5).tolist() == printed["lr"].tolist()
    assert rule.table["next_lr"].round(5).tolist() == printed["next_lr"].tolist()
    assert format_history(rule.table)["Accuracy %"].tolist() == [f"{v:.3f}" for v in printed["accuracy"]]


def test_rule_gives_up_after_three_halvings_without_improvement():
    rule = MonitorSwitchLR()
    losses = pd.DataFrame({"loss": 1.0, "accuracy": [0.5, 0.4, 0.4, 0.4], "val_loss": 1.0, "val_accuracy": 0.5})
    feed(rule, losses)
    assert rule.model.stop_training
    assert rule.table["next_lr"].tolist() == pytest.approx([1e-3, 5e-4, 2.5e-4, 1.25e-4])
    assert rule.best_epoch == 1


def test_profiles_say_what_the_issue_with_a_name_is():
    with pytest.raises(AllkitError, match="quick"):
        get_profile("quik")
    with pytest.raises(AllkitError, match="did you mean epochs"):
        get_profile("quick", epoch=3)
    assert get_profile("quick", epochs=None) == get_profile("quick")
    assert get_profile("paper").allow_leak
    assert not get_profile("honest").allow_leak
    scratch = get_profile("honest", weights="none")
    assert (scratch.weights, scratch.frozen_copies, scratch.depths) == (None, 0, "last"), "nothing random is frozen"
    assert get_profile("quick", weights="none", epochs=3).epochs == 3


def test_the_papers_recipe_is_the_recovered_one():
    paper = get_profile("paper")
    assert (paper.split, paper.batch_size, paper.epochs, paper.image_size) == ("image", 40, 5, 224)
    assert (paper.learning_rate, paper.pooling, paper.momentum, paper.rescale) == (1e-3, "max", 0.99, False)
    assert paper.crop is None
    assert dataclasses.asdict(paper.augmentation) | {"fill": 0} == {
        "horizontal_flip": True, "vertical_flip": False, "right_angles": False,
        "rotation": 0.0, "shift": 0.0, "zoom": 0.0, "fill": 0,
    }  # fmt: skip


def test_crop_is_for_single_cells_only(twin):
    index = load_index(twin)
    assert get_profile("quick", index=index).crop == 300
    assert get_profile("quick", index=index.assign(source="folders")).crop is None


def test_batches_depend_on_seed_and_epoch_alone(twin):
    split = split_by_subject(load_index(twin))
    profile = get_profile("quick", **TINY)
    first = build_batches(split.train, ("ALL", "HEM"), profile, training=True, seed=1)
    again = build_batches(split.train, ("ALL", "HEM"), profile, training=True, seed=1)
    np.testing.assert_array_equal(first[0][0], again[0][0])
    again.epoch = 1
    assert not np.array_equal(first[0][1], again[0][1]) or not np.array_equal(first[0][0], again[0][0])
    still = build_batches(split.test, ("ALL", "HEM"), profile, training=False)
    assert np.concatenate([still[k][1] for k in range(len(still))]).argmax(1).tolist() == [
        ["ALL", "HEM"].index(label) for label in split.test["label"]
    ]


def test_every_subject_counts_the_same_within_its_class_and_both_classes_do():
    labels, subjects = [*"AAAAAHHH"], [*"xxxxyzzz"]
    rows = pd.DataFrame({"path": [*"abcdefgh"], "subject": subjects, "label": labels})
    weight = sample_weights(rows)
    assert weight.mean() == pytest.approx(1)
    assert weight[4] == pytest.approx(weight[:4].sum()), "one cell against four of one subject"
    assert weight[:5].sum() == pytest.approx(weight[5:].sum())
    by_image = sample_weights(rows, "image")
    assert by_image[:5] == pytest.approx(by_image[0])
    assert by_image[:5].sum() == pytest.approx(by_image[5:].sum())
    unknown = rows.assign(subject=[None, *rows["subject"][1:]])
    assert sample_weights(unknown) == pytest.approx(by_image), "without subjects images count"
    with pytest.raises(AllkitError, match="'subject'"):
        sample_weights(rows, "cell")


def test_training_and_choosing_weigh_as_the_profile_says(twin):
    split = split_by_subject(load_index(twin))
    weigh = {
        name: [build_batches(part, ("ALL", "HEM"), profile, training=training).sample_weights
               for part, training in ((split.train, True), (split.validation, False))]
        for name, profile in {
            "subject": get_profile("quick", **TINY), "image": get_profile("quick", **TINY, weigh="image"),
            "paper": get_profile("paper", weights="none"),
        }.items()
    }  # fmt: skip
    for name in ("subject", "image"):
        for found, part in zip(weigh[name], (split.train, split.validation), strict=True):
            np.testing.assert_allclose(found, sample_weights(part, name), rtol=1e-6)
    assert not np.allclose(weigh["subject"][0], weigh["image"][0])
    assert all((found == 1).all() for found in weigh["paper"])


def test_training_refuses_a_split_that_shares_subjects_without_the_word(twin):
    split = split_by_image(load_index(twin))
    profile = get_profile("quick", **TINY)
    model = build_from_profile("mobilenet", profile, 2)
    with pytest.raises(LeakError, match="allow_leak"):
        train_model(model, split, profile, show=False)


class Killed(Exception):
    """Stands for a power cut, or for a reader who stops the cell."""


def kill_after(monkeypatch, steps: int) -> None:
    """Have every training raise `Killed` after this many steps."""
    plain = keras.Model.make_train_function

    def make_train_function(model, *args, **kwargs):
        function = plain(model, *args, **kwargs)
        calls, step = iter(range(10_000)), model.train_function

        def counted(iterator):
            if next(calls) >= steps:
                raise Killed
            return step(iterator)

        model.train_function = counted
        return function

    monkeypatch.setattr(keras.Model, "make_train_function", make_train_function)


HISTORY = ["loss", "accuracy", "val_loss", "val_accuracy", "lr", "next_lr", "monitor"]


def test_a_killed_training_resumes_with_the_same_history(twin, tmp_path, monkeypatch):
    split = split_by_subject(load_index(twin))
    profile = get_profile("quick", **TINY)
    steps = int(np.ceil(len(split.train) / profile.batch_size))

    def train(folder):
        model = build_from_profile("mobilenet", profile, 2, seed=5)
        return train_model(model, split, profile, folder=folder, seed=5, deterministic=True, show=False)

    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patched:
        kill_after(patched, 2 * steps + 1)
        with pytest.raises(Killed):
            train(tmp_path / "cut")
    resumed = train(tmp_path / "cut")
    assert resumed.resumed == 2
    pd.testing.assert_frame_equal(resumed.history[HISTORY], whole.history[HISTORY])
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        predict_images(resumed.trained, images), predict_images(whole.trained, images), atol=1e-6
    )
    again = train(tmp_path / "cut")
    assert again.resumed == 3, "a finished training is read back, not repeated"
    np.testing.assert_allclose(predict_images(again.trained, images), predict_images(whole.trained, images), atol=1e-6)


@pytest.mark.parametrize("killed_in", [1, 2])
def test_running_an_interrupted_cell_again_gives_the_history_of_an_uninterrupted_one(
    twin, tmp_path, monkeypatch, killed_in
):
    split = split_by_subject(load_index(twin))
    profile = get_profile("quick", **(TINY | {"epochs": 2}))
    steps = int(np.ceil(len(split.train) / profile.batch_size))
    options = {"seed": 5, "deterministic": True, "show": False}
    # not the weights that the profile and the seed of the training would give
    whole, model = (build_from_profile("mobilenet", profile, 2, seed=8) for _ in range(2))
    whole = train_model(whole, split, profile, folder=tmp_path / "whole", **options)
    with monkeypatch.context() as patched:
        kill_after(patched, (killed_in - 1) * steps + 1)
        with pytest.raises(Killed):
            train_model(model, split, profile, folder=tmp_path / "cut", **options)
    resumed = train_model(model, split, profile, folder=tmp_path / "cut", **options)
    assert resumed.resumed == killed_in - 1
    pd.testing.assert_frame_equal(resumed.history[HISTORY], whole.history[HISTORY])


def test_a_trained_model_is_trained_further_from_the_weights_that_it_has(twin):
    split = split_by_subject(load_index(twin))
    profile = get_profile("quick", **(TINY | {"epochs": 1}))
    model, begun = build_from_profile("mobilenet", profile, 2, seed=5), []

    def note(logs):
        begun.append(model.get_weights())

    watch = keras.callbacks.LambdaCallback(on_train_begin=note)
    train_model(model, split, profile, seed=5, show=False, callbacks=[watch])
    after_the_first = model.get_weights()
    train_model(model, split, profile, seed=5, show=False, callbacks=[watch])
    for found, expected in zip(begun[1], after_the_first, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert any(not np.array_equal(a, b) for a, b in zip(*begun, strict=True))


def test_a_full_disk_stops_the_training_with_what_to_do(twin, tmp_path, monkeypatch):
    split = split_by_subject(load_index(twin))
    profile = get_profile("quick", **(TINY | {"epochs": 1}))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    model = build_from_profile("mobilenet", profile, 2, seed=5)
    with pytest.raises(AllkitError, match="disk is full"):
        train_model(model, split, profile, folder=tmp_path, show=False)


def test_a_notebook_shows_curves_that_grow_and_at_the_end_the_table_of_the_paper(monkeypatch):
    shown = []

    class Handle:
        def update(self, what, **kwargs):
            shown.append(what)

    monkeypatch.setattr("allkit.train.display", lambda *args, **kwargs: Handle())
    rule = MonitorSwitchLR()
    curve = GrowingCurve(rule, "head", epochs=2)
    curve.set_params({"steps": 12})
    curve.on_train_begin()
    curve.on_train_batch_end(4)
    assert shown == [{"text/plain": "head: 0 of 2 epochs batch 5 of 12"}]
    feed(rule, pd.DataFrame({"loss": [1.0], "accuracy": 0.5, "val_loss": 1.25, "val_accuracy": 0.5}))
    curve.shown = 0.0  # as if a second had passed
    curve.on_epoch_end(0)
    assert shown[-1]["text/plain"] == "head: 1 of 2 epochs"
    assert shown[-1]["image/png"].startswith(b"\x89PNG")
    curve.on_train_end()
    assert shown[-1].index.name == "head: 1 of 2 epochs"
    assert shown[-1].loc["1/2", "Val. loss"] == "1.25000"


REPEATED = """
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from allkit.data import load_index
from allkit.models import build_model, predict_index
from allkit.runs import Run
from allkit.splits import split_by_subject
from allkit.train import build_from_profile, get_profile, train_model

twin, folder, seed, busy = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "busy"
if busy:  # whatever the process did before must not matter
    np.random.default_rng().normal(size=3)
    build_model("mobilenet", 32, alpha=0.25, seed=9)
index = load_index(twin)
split = split_by_subject(index, seed=5)
profile = get_profile("quick", weights="none", image_size=32, alpha=0.25, epochs=1, batch_size=4)
model = build_from_profile("mobilenet", profile, 2, seed=seed)
training = train_model(model, split, profile, seed=seed, deterministic=True, show=False)
several_batches = pd.concat([index.dropna(subset="label")] * 2)
Run(folder).save_predictions("mobilenet", predict_index(training.trained, several_batches))
"""


def test_deterministic_training_gives_the_same_bytes_in_another_process(twin, tmp_path):
    plans = {"first": ("5", "idle"), "again": ("5", "busy"), "other seed": ("6", "idle")}
    # one worker thread each would hide sums that are split among threads
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "2", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", REPEATED, str(twin)]
    started = [
        subprocess.Popen([*command, str(tmp_path / name), *plan], env=environment) for name, plan in plans.items()
    ]
    assert [process.wait(timeout=600) for process in started] == [0, 0, 0]
    bytes_of = {name: (tmp_path / name / "predictions-mobilenet.csv").read_bytes() for name in plans}
    assert bytes_of["first"] == bytes_of["again"]
    assert bytes_of["first"] != bytes_of["other seed"]


def test_the_switch_is_on_and_does_not_take_up_epochs_trained_without_it(twin, tmp_path):
    split = split_by_subject(load_index(twin))
    profile = get_profile("quick", **(TINY | {"epochs": 1}))

    def train(deterministic):
        model = build_from_profile("mobilenet", profile, 2, seed=5)
        return train_model(model, split, profile, folder=tmp_path, seed=5, deterministic=deterministic, show=False)

    assert train(False).trained.metadata["deterministic"] is False
    switched = train(True)
    assert switched.trained.metadata["deterministic"] is True
    assert switched.resumed == 0
    from tensorflow.python.framework import config  # TensorFlow can only be asked here

    assert config.is_op_determinism_enabled()


def frozen_profile(**changes):
    """Return the honest recipe, small and on a backbone of random weights."""
    small = {"weights": None, "image_size": 32, "alpha": 0.25, "epochs": 3, "batch_size": 16}
    return dataclasses.replace(get_profile("honest"), **(small | changes))


def test_the_head_learns_from_a_frozen_backbone(twin, capsys):
    split = balance_split(split_by_subject(load_index(twin)), seed=0)
    profile = frozen_profile()
    model = build_from_profile("mobilenet", profile, 2, seed=3)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    training = train_model(model, split, profile)
    assert "head" in {line.partition(":")[0] for line in re.split(r"[\r\n]+", capsys.readouterr().err)}
    assert training.history["epoch"].tolist() == [1, 2, 3]
    changed = {name for name, weights in before.items() if weights and not np.array_equal(
        weights[0], model.get_layer(name).get_weights()[0])}  # fmt: skip
    assert changed == {"head_standardise", "head_dense", "probabilities"}
    metadata = training.trained.metadata
    assert metadata["classes"] == ["ALL", "HEM"]
    assert metadata["data"]["source"] == "synthetic"
    assert set(metadata["versions"]) >= {"allkit", "keras", "tensorflow"}
    assert metadata["split"]["classes"]["test"] == split.test["label"].value_counts().to_dict()
    assert metadata["split"]["subjects"]["test"] == split.test["subject"].nunique()
    assert metadata["hardware"]["cores"] >= 1
    assert "limits" not in metadata, "they are measured when a run is saved, not while a network is trained"


def test_a_network_learns_what_is_plain_to_see_in_three_classes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, colour in {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}.items():
        (tmp_path / name).mkdir()
        for k in range(30):
            noise = rng.normal(colour, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{k}.png")
    index = load_index(tmp_path)
    split = split_data(index, "subject")
    changes = {"image_size": 64, "epochs": 16, "learning_rate": 0.004, "momentum": 0.5}
    profile = get_profile("quick", index=index, **(TINY | changes))
    model = build_from_profile("mobilenet", profile, 3, seed=1)
    training = train_model(model, split, profile, show=False)
    assert "Subjects are unknown" in capsys.readouterr().out, "images count instead, and it is said"
    table = predict_index(training.trained, split.test)
    right = table[["p_blue", "p_green", "p_red"]].idxmax(axis=1).str[2:] == table["label"]
    assert right.mean() > 0.6


def test_training_on_features_of_copies_resumes_and_answers_the_same(twin, tmp_path):
    split = split_by_image(load_index(twin))
    turned = Augmentation(horizontal_flip=True, right_angles=True)
    profile = frozen_profile(frozen_copies=2, augmentation=turned, allow_leak=True)
    model = build_from_profile("mobilenet", profile, 2, seed=1)
    done = train_model(model, split, profile, folder=tmp_path, seed=1, show=False)
    again = build_from_profile("mobilenet", profile, 2, seed=1)
    resumed = train_model(again, split, profile, folder=tmp_path, seed=1, show=False)
    assert resumed.resumed == 3
    pd.testing.assert_frame_equal(
        predict_index(resumed.trained, split.test), predict_index(done.trained, split.test), atol=1e-6
    )


def test_a_whole_network_can_be_trained_under_a_head_on_several_depths(twin):
    split = split_by_image(load_index(twin))
    profile = frozen_profile(frozen_copies=0, epochs=1, allow_leak=True)
    model = build_from_profile("mobilenet", profile, 2, seed=1)
    before = model.get_layer("conv_pw_3").get_weights()[0]
    train_model(model, split, profile, show=False)
    assert not np.array_equal(model.get_layer("conv_pw_3").get_weights()[0], before)
    assert np.asarray(model.get_layer("head_standardise").moving_variance).std() > 0, "measured before the first step"
    with pytest.raises(AllkitError, match="one epoch"):
        get_profile("quick", epochs=0)
