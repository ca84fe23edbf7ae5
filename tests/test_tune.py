"""Searches that several processes share, and what is read off them."""

import multiprocessing
import signal
import sqlite3
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import IntDistribution
from PIL import Image

from allkit import AllkitError, cli
from allkit.backend import keras
from allkit.data import load_index
from allkit.lessons import tuning
from allkit.lessons.tuning import (
    FEWEST_TRIALS,
    SPACE,
    build_head_score,
    build_score,
    curves_table,
    describe_recipe,
    measure_importance,
    measure_optimism,
    open_head_search,
    open_search,
    paper_settings,
    run_trials,
    trials_table,
)
from allkit.models import TrainedModel
from allkit.splits import split_data
from allkit.train import build_from_profile, get_profile

RECIPE = {"seed": 7, "model": "none"}
N = 8


def new_search(path, **recipe):
    return open_search("class", path, RECIPE | recipe)


def same_score(settings, report):
    return {"score": 0.5, "test": 0.5}


def wait_for(path, seconds=240):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} did not come"
        time.sleep(0.02)


def work(folder, victim):
    """Work on the search in `folder`, in a process of its own; the victim never ends its first trial."""

    def score(settings, report):
        if victim:
            (folder / "half-way").write_text("")
            time.sleep(600)
        time.sleep(1)
        return {"score": 0.5, "test": 0.5}

    tuning.HEARTBEAT_SECONDS, tuning.GRACE_SECONDS = 1, 2
    run_trials(new_search(folder / "class.db"), score, N)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_three_processes_one_killed_and_its_trial_is_tried_again(tmp_path):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["allkit.lessons.tuning"])  # TensorFlow is imported once, not three times
    workers = [processes.Process(target=work, args=(tmp_path, victim)) for victim in (True, False, False)]
    try:
        workers[0].start()
        wait_for(tmp_path / "half-way")
        for other in workers[1:]:
            other.start()
        time.sleep(1)
        workers[0].kill()
        for worker in workers:
            worker.join(240)
        assert [worker.exitcode for worker in workers] == [-signal.SIGKILL, 0, 0]
    finally:
        for worker in workers:
            worker.kill()
    study = new_search(tmp_path / "class.db")
    table = trials_table(study)
    states = table["state"].value_counts()
    assert states["complete"] >= N
    assert states["fail"] == 1
    assert set(states.index) == {"complete", "fail"}  # none is left running or waiting
    lost = table[table["state"] == "fail"].iloc[0]
    assert lost[list(SPACE)].to_dict() == paper_settings()
    again = table["learning_rate"] == lost["learning_rate"]
    assert table.loc[again, "state"].value_counts()["complete"] >= 1
    assert table.loc[~again, "learning_rate"].is_unique  # no two processes draw alike
    run_trials(study, same_score, N)
    assert len(trials_table(study)) == len(table)


def test_a_search_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    whole, halves = new_search(tmp_path / "whole"), new_search(tmp_path / "halves")
    run_trials(whole, same_score, 10)
    run_trials(halves, same_score, 3)
    run_trials(new_search(tmp_path / "halves"), same_score, 10)
    columns = ["trial", "state", *SPACE, "score", "best", "test"]
    pd.testing.assert_frame_equal(trials_table(whole)[columns], trials_table(halves)[columns])
    assert trials_table(whole)[list(SPACE)].iloc[0].to_dict() == paper_settings()
    assert trials_table(whole)["learning_rate"].nunique() == 10
    other_seed = new_search(tmp_path / "other", seed=8)
    run_trials(other_seed, same_score, 2)
    assert trials_table(other_seed)["learning_rate"].iloc[1] != trials_table(whole)["learning_rate"].iloc[1]


def test_after_ctrl_c_the_same_settings_are_tried_again(tmp_path):
    def stopped(settings, report):
        raise KeyboardInterrupt

    study = new_search(tmp_path / "search")
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run_trials(study, stopped, 2)
    run_trials(new_search(tmp_path / "search"), same_score, 2)
    table = trials_table(study)
    assert table["state"].tolist() == ["fail"] * 4 + ["complete"] * 2
    assert (table[list(SPACE)].iloc[:5] == pd.Series(paper_settings())).all(axis=None)
    assert table["learning_rate"].iloc[5] != paper_settings()["learning_rate"]


@pytest.mark.parametrize("error", [AllkitError, ValueError])
def test_an_error_is_passed_on_and_its_settings_are_not_tried_again(tmp_path, error):
    def wrong(settings, report):
        raise error("too little memory for such batches")

    study = new_search(tmp_path / "search")
    with pytest.raises(error, match="too little memory"):
        run_trials(study, wrong, 2)
    run_trials(study, same_score, 2)
    table = trials_table(study)
    assert table["state"].tolist() == ["fail", "complete", "complete"]
    assert table["learning_rate"].nunique() == 3


def test_settings_that_end_their_process_are_not_tried_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(tuning, "GRACE_SECONDS", 1)
    study = new_search(tmp_path / "search")
    with sqlite3.connect(tmp_path / "search") as database:
        for _ in range(tuning.RETRIES + 1):
            optuna.storages.fail_stale_trials(study)
            trial = study.ask()
            assert trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True) == paper_settings()["learning_rate"]
            study._storage.record_heartbeat(trial._trial_id)
            database.execute("update trial_heartbeats set heartbeat = '2020-01-01 00:00:00'")
            database.commit()
    run_trials(study, same_score, 1)
    assert trials_table(study)["state"].tolist() == ["fail"] * (tuning.RETRIES + 1) + ["complete"]
    assert trials_table(study)["learning_rate"].iloc[-1] != paper_settings()["learning_rate"]


@pytest.mark.parametrize("reports", [True, False])
def test_a_trial_that_was_given_up_meanwhile_is_counted_once(tmp_path, monkeypatch, reports):
    def slow(settings, report):
        if not tried:
            tried.append(settings)
            time.sleep(2.5)  # its heartbeat does not come
            other = new_search(tmp_path / "search")
            run_trials(other, lambda settings, report: tried.append(settings) or {"score": 0.5}, 2)
            if reports:
                report(1, 1.0)
        return {"score": 1.0, "test": 1.0}

    tried = []
    monkeypatch.setattr(tuning, "HEARTBEAT_SECONDS", 60)
    monkeypatch.setattr(tuning, "GRACE_SECONDS", 1)
    study = new_search(tmp_path / "search")
    run_trials(study, slow, 2)
    assert tried[:2] == [paper_settings()] * 2
    assert trials_table(study)["state"].tolist() == ["fail", "complete", "complete"]
    assert trials_table(study)["score"].dropna().tolist() == [0.5, 0.5]


def test_a_search_of_other_data_is_refused(tmp_path):
    new_search(tmp_path / "search")
    with pytest.raises(AllkitError, match="model there: none, here: mobilenet"):
        new_search(tmp_path / "search", model="mobilenet")
    with pytest.raises(AllkitError, match="epochs"):
        open_search("class", tmp_path / "search", RECIPE, SPACE | {"epochs": IntDistribution(1, 3)})
    assert len(new_search(tmp_path / "search").trials) == 1  # the paper's settings, waiting


@pytest.mark.parametrize("storage", ["{}/letter", "nosuch://here/search", "sqlite:///{}/no/folder/search.db"])
def test_a_storage_that_is_none_is_one_sentence(tmp_path, storage, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    (tmp_path / "letter").write_text("Dear students,\nthis is no database.\n" * 100)
    with pytest.raises(AllkitError, match="cannot be used") as refused:
        new_search(storage.format(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_hopeless_trial_is_pruned_and_a_good_one_is_not(tmp_path):
    def learn(settings, report):
        good = len(seen) != 5
        seen.append(0)
        for epoch in range(1, settings["epochs"] + 1):
            seen[-1] = epoch
            report(epoch, 0.8 + 0.001 * epoch if good else 0.5)
        return {"score": 0.8 if good else 0.5}

    seen = []
    study = open_search("class", tmp_path / "search", RECIPE, {"epochs": IntDistribution(5, 5)})
    run_trials(study, learn, 7)
    table = trials_table(study)
    assert table["state"].tolist() == ["complete"] * 5 + ["pruned", "complete"]
    assert seen == [5, 5, 5, 5, 5, 2, 5]
    assert table["score"].iloc[5] == 0.5
    assert table["best"].tolist() == [0.8] * 7
    curves = curves_table(study)
    assert curves[curves["trial"] == 6].to_dict("list") == {
        "trial": [6, 6], "state": ["pruned"] * 2, "epoch": [1, 2], "score": [0.5, 0.5],
    }  # fmt: skip


def test_optimism_is_what_the_normal_distribution_says():
    rng = np.random.default_rng(0)
    noise, shift = 0.03, 0.02
    table = pd.DataFrame({"score": 0.8 + shift + noise * rng.normal(size=4000),
                          "test": 0.8 + noise * rng.normal(size=4000)})  # fmt: skip
    found = measure_optimism(table.head(400)).set_index("trials")
    expected = noise * 1.5388  # mean of the largest of ten normal numbers
    assert found.loc[10, "growth"] == pytest.approx(expected, abs=0.006)
    assert found.loc[1, "growth"] == pytest.approx(0, abs=0.004)
    assert found.loc[1, "gap"] == pytest.approx(shift, abs=0.006)
    assert found.loc[10, "test"] == pytest.approx(0.8, abs=0.006)
    assert found.loc[10, "low"] < found.loc[10, "gap"] < found.loc[10, "high"]
    assert found.loc[300, ["low", "high"]].isna().all()
    # where validation and test agree, choosing costs nothing
    assert measure_optimism(table.assign(test=table["score"]).head(50))["gap"].abs().max() == 0
    with pytest.raises(AllkitError, match="two"):
        measure_optimism(table.head(1))


def test_importance_has_to_beat_luck(monkeypatch):
    monkeypatch.setattr(tuning, "RESAMPLES", 20)
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"batch_size": rng.integers(8, 128, 30), "epochs": rng.integers(1, 10, 30),
                          "learning_rate": 10 ** rng.uniform(-4, -1, 30), "state": "complete"})  # fmt: skip
    table["score"] = 0.7 + 0.05 * np.log10(table["learning_rate"]) + 0.005 * rng.normal(size=30)
    found = measure_importance(table)
    assert found.index.tolist() == [*SPACE, "luck"]
    assert found.loc["learning_rate", "verdict"] == "matters"
    assert found.loc["learning_rate", "low"] > 0.7
    assert set(found["verdict"].drop("learning_rate")) == {"inconclusive"}
    few = measure_importance(table.head(FEWEST_TRIALS - 1))
    assert few["value"].isna().all()
    assert set(few["verdict"]) == {"inconclusive"}


@pytest.fixture(scope="module")
def tiny(twin):
    """A profile and a split of few small images."""
    index = load_index(twin)
    profile = get_profile(
        "quick", "mobilenet", index, weights="none", image_size=32, alpha=0.25, split="image", allow_leak=True
    )
    return profile, split_data(index, "image")


def test_a_trial_trains_with_its_settings_and_reports_every_epoch(monkeypatch, tiny):
    def train_model(network, split, profile, *, seed, show, callbacks):
        trained.append(profile)
        for epoch, value in enumerate((0.6, 0.7, 0.6)):
            callbacks[0].on_epoch_end(epoch, {"val_balanced_accuracy": value})
        history = pd.DataFrame({"val_balanced_accuracy": [0.6, 0.7, 0.6]})
        return type("Training", (), {"history": history, "trained": None})

    trained, reports = [], []
    monkeypatch.setattr(tuning, "build_from_profile", lambda *words, **options: None)
    monkeypatch.setattr(tuning, "train_model", train_model)
    monkeypatch.setattr(tuning, "predict_index", lambda trained, part: None)
    monkeypatch.setattr(tuning, "evaluate_predictions", lambda predictions: {"balanced_accuracy": 0.5})
    profile, split = tiny
    settings = {"batch_size": 9, "learning_rate": 0.5, "epochs": 3}
    found = build_score(split, profile, "mobilenet")(settings, lambda *words: reports.append(words))
    assert found == {"score": 0.7, "test": 0.5}
    assert reports == [(1, 0.6), (2, 0.7), (3, 0.6)]
    assert (trained[0].batch_size, trained[0].learning_rate, trained[0].epochs) == (9, 0.5, 3)


def test_a_head_starts_from_the_same_weights_in_every_trial(tiny):
    profile, split = tiny
    network = build_from_profile("mobilenet", profile, 2, seed=1)
    for layer in network.layers:  # random layers make next to nothing of an image; let something through
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(layer.gamma * 8)
    score = build_head_score(split, profile, TrainedModel(network, {"model": "mobilenet", "classes": ["ALL", "HEM"]}))
    first, second = ({"batch_size": 8, "learning_rate": rate, "epochs": 2} for rate in (0.001, 0.05))
    runs = []
    for settings in (first, second, first):
        values = []
        score(settings, lambda epoch, value, values=values: values.append((epoch, value)))
        runs.append(values)
    assert [epoch for epoch, _ in runs[0]] == [1, 2]
    assert runs[0] == runs[2]


def test_the_recipe_knows_the_images_and_what_is_not_searched(tiny):
    profile, split = tiny
    recipe = describe_recipe(split, profile, "mobilenet")
    assert not set(SPACE) & set(recipe)
    assert recipe["image_size"] == 32
    other = split_data(pd.concat(split.parts.values()), "image", seed=5)
    assert describe_recipe(other, profile, "mobilenet")["test images"] != recipe["test images"]
    fixed = {key: SPACE[key] for key in ("epochs", "batch_size")}
    assert describe_recipe(split, profile, "mobilenet", space=fixed)["learning_rate"] == profile.learning_rate


def test_new_weights_begin_a_new_search_of_the_head(tiny, tmp_path):
    profile, split = tiny
    run = SimpleNamespace(path=tmp_path)
    network = build_from_profile("mobilenet", profile, 2, seed=1)
    trained = TrainedModel(network, {"model": "mobilenet", "classes": ["ALL", "HEM"]})
    first = open_head_search(run, split, profile, trained).study_name
    assert open_head_search(run, split, profile, trained).study_name == first
    network.set_weights([values + 1 for values in network.get_weights()])
    assert open_head_search(run, split, profile, trained).study_name != first
    assert len(list((tmp_path / "tune").glob("heads-*.db"))) == 2


def test_the_command_prints_a_line_per_trial_and_the_best(monkeypatch, capsys, tmp_path):
    def start_tuning(name, **options):
        called.append((name, options["parameters"], options["storage"]))
        return new_search(tmp_path / "search"), score

    def score(settings, report):
        if len(called) == 1 and settings != paper_settings():
            raise KeyboardInterrupt
        return {"score": 0.5 + settings["learning_rate"], "test": 0.5}

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["allkit", "tune", "--name", "ours", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        return ended.value.code or 0, out.out.splitlines(), out.err

    called = []
    monkeypatch.setattr(tuning, "start_tuning", start_tuning)
    options = ["--trials", "3", "-p", "image_size", "32", "-p", "weights", "none", "--storage", "here"]
    code, lines, err = run(*options)
    assert called == [("ours", {"image_size": "32", "weights": "none"}, "here")]
    assert code == 130
    assert lines[0].startswith("trial 1: 0.501 (batch_size 40, learning_rate 0.001, epochs 5;")
    assert "same command" in err
    code, lines, _ = run(*options)
    assert code == 0
    assert [line.split(":")[0] for line in lines[:2]] == ["trial 3", "trial 4"]  # 2 was stopped
    assert "Best of 3 complete trials" in lines[2]


def test_nothing_left_to_search_is_one_sentence(twin, tmp_path):
    given = paper_settings() | {"split": "image", "allow_leak": True}
    with pytest.raises(AllkitError, match="nothing to search"):
        tuning.start_tuning("a", data=str(twin), parameters=given, out=str(tmp_path / "run"))
    with pytest.raises(AllkitError, match="cannot be called"):
        tuning.start_tuning(
            "../a", data=str(twin), parameters={"split": "image", "allow_leak": True}, out=str(tmp_path)
        )


def test_the_users_own_division_is_searched_on_too(tmp_path, monkeypatch):
    for number, (part, label) in enumerate((p, c) for p in ("train", "test") for c in ("blast", "normal")):
        for image in range(8):
            file = tmp_path / "cells" / part / label / f"{image}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng((number, image)).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
    searched = []
    monkeypatch.setattr(tuning, "build_score", lambda split, *_, **__: searched.append(split))
    options = {"data": str(tmp_path / "cells"), "out": str(tmp_path / "run")}
    tuning.start_tuning("a", parameters={"allow_leak": "yes"}, **options)
    assert {Path(path).parts[-3] for path in searched[0].test["path"]} == {"test"}
    assert {Path(path).parts[-3] for path in searched[0].train["path"]} == {"train"}
