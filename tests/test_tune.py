"""Studies that several processes share, and what is read off them."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from allkit import AllkitError, cli
from allkit.backend import keras
from allkit.data import load_index
from allkit.lessons import tuning
from allkit.lessons.tuning import (
    FEWEST_TRIALS,
    SPACE,
    Range,
    build_head_score,
    build_score,
    count_trials,
    curves_table,
    describe_recipe,
    measure_importance,
    measure_optimism,
    name_search,
    open_search,
    paper_settings,
    run_trials,
    trials_table,
)
from allkit.models import TrainedModel
from allkit.splits import split_data
from allkit.train import build_from_profile, get_profile

RECIPE = {"seed": 7, "model": "none"}
N = 12

WORKER = """
import os, sys, time
from pathlib import Path
from allkit.lessons.tuning import open_search, run_trials
from allkit.lessons.tuning import SPACE, paper_settings

storage, folder, victim = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "victim"
killed, calls = folder / "killed", 0

def score(settings, report):
    global calls
    calls += 1
    if victim and calls == 2:
        (folder / "half-way").write_text("")
        time.sleep(60)
    while not victim and not killed.exists():
        time.sleep(0.05)
    time.sleep(0.05)
    return {"score": 0.5, "test": 0.5}

def notify(row):
    with open(folder / "finished", "a") as file:
        file.write(f"{row['trial']}\\n")

study = open_search("class", storage, {"seed": 7, "model": "none"}, SPACE, paper_settings())
run_trials(study, score, int(sys.argv[4]), notify=notify)
"""


def new_study(path, **recipe):
    return open_search("class", path, RECIPE | recipe, SPACE, paper_settings())


def same_score(settings, report):
    return {"score": 0.5, "test": 0.5}


def wait_for(path, seconds=60):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} did not come"
        time.sleep(0.02)


@pytest.mark.parametrize("storage", ["{}/study.journal", "sqlite:///{}/study.db"])
def test_three_processes_one_killed_no_trial_lost_or_counted_twice(tmp_path, storage):
    storage = storage.format(tmp_path)
    words = [sys.executable, "-c", WORKER, storage, str(tmp_path)]
    victim = subprocess.Popen([*words, "victim", str(N)])
    others = [subprocess.Popen([*words, "other", str(N)]) for _ in range(2)]
    try:
        wait_for(tmp_path / "half-way")
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        (tmp_path / "killed").write_text("")
        assert [process.wait(60) for process in others] == [0, 0]
    finally:
        for process in (victim, *others):
            process.kill()
            process.wait()
    study = new_study(storage)
    table = trials_table(study)
    done = table[table["state"] == "complete"]
    assert sorted(done["trial"]) == list(range(1, N + 1))
    assert sorted(map(int, (tmp_path / "finished").read_text().split())) == list(range(1, N + 1))
    assert count_trials(study, N) == {"finished": N, "running": 0, "open": 0}
    lost = table[table["state"] == "failed"]
    assert len(lost) == 1
    again = done.set_index("trial").loc[lost["trial"].iloc[0]]
    assert again[list(SPACE)].tolist() == lost[list(SPACE)].iloc[0].tolist()
    assert run_trials(study, same_score, N) == 0


def test_a_study_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    whole, halves = new_study(tmp_path / "whole"), new_study(tmp_path / "halves")
    assert run_trials(whole, same_score, 6) == 6
    assert run_trials(halves, same_score, 3) == 3
    assert run_trials(new_study(tmp_path / "halves"), same_score, 6) == 3
    columns = ["trial", "state", *SPACE, "score", "best", "test"]
    pd.testing.assert_frame_equal(trials_table(whole)[columns], trials_table(halves)[columns])
    assert trials_table(whole)[list(SPACE)].iloc[0].to_dict() == paper_settings()
    assert trials_table(whole)["learning_rate"].nunique() == 6
    other_seed = new_study(tmp_path / "other", seed=8)
    run_trials(other_seed, same_score, 2)
    assert trials_table(other_seed)["learning_rate"].iloc[1] != trials_table(whole)["learning_rate"].iloc[1]


def test_after_ctrl_c_the_same_settings_are_tried_but_not_for_ever(tmp_path):
    def stopped(settings, report):
        seen.append(settings)
        raise KeyboardInterrupt

    seen, study = [], new_study(tmp_path / "study")
    for _ in range(tuning.TRIES + 1):
        with pytest.raises(KeyboardInterrupt):
            run_trials(study, stopped, 1)
    assert seen[: tuning.TRIES] == [paper_settings()] * tuning.TRIES
    assert seen[-1] != paper_settings()
    assert run_trials(study, same_score, 1) == 1
    assert count_trials(study, 1)["finished"] == 1


def test_an_error_is_passed_on_and_its_settings_are_not_tried_again(tmp_path):
    def wrong(settings, report):
        raise AllkitError("no room for such batches")

    study = new_study(tmp_path / "study")
    with pytest.raises(AllkitError, match="no room"):
        run_trials(study, wrong, 2)
    assert run_trials(study, same_score, 2) == 2
    table = trials_table(study)
    assert table["state"].tolist() == ["failed", "complete", "complete"]
    assert table["trial"].tolist() == [1, 1, 2]
    assert table["learning_rate"].nunique() == 3


def test_who_comes_back_after_being_given_up_is_not_counted(tmp_path, monkeypatch):
    def slow(settings, report):
        if not finished:
            monkeypatch.setattr(tuning, "LOST_SECONDS", -1)  # another process has not heard of this one
            other = new_study(tmp_path / "study")
            monkeypatch.setattr(tuning, "_host", lambda: "elsewhere")
            run_trials(other, same_score, 2, notify=lambda row: finished.append(row["trial"]))
            monkeypatch.undo()
        return {"score": 1.0, "test": 1.0}

    finished, study = [], new_study(tmp_path / "study")
    assert run_trials(study, slow, 2) == 0
    assert finished == [1, 2]
    assert trials_table(study)["score"].dropna().tolist() == [0.5, 0.5]


def test_a_running_trial_says_that_it_lives(tmp_path, monkeypatch):
    def watched(settings, report):
        before = new_study(tmp_path / "study").trials[0].user_attrs["beat"]
        time.sleep(0.2)
        beats.append(new_study(tmp_path / "study").trials[0].user_attrs["beat"] - before)
        return {"score": 0.5}

    monkeypatch.setattr(tuning, "BEAT_SECONDS", 0.03)
    beats = []
    run_trials(new_study(tmp_path / "study"), watched, 1)
    assert beats[0] > 0.05


def test_what_another_machine_runs_is_left_alone_while_it_lives(tmp_path, monkeypatch):
    study = new_study(tmp_path / "study")
    tuning._mend(study, 2)
    monkeypatch.setattr(tuning, "_host", lambda: "elsewhere")
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # no such process here
    tuning._take(study)
    monkeypatch.undo()
    assert run_trials(study, same_score, 2) == 1
    assert count_trials(study, 2) == {"finished": 1, "running": 1, "open": 0}
    monkeypatch.setattr(tuning, "LOST_SECONDS", -1)
    assert run_trials(study, same_score, 2) == 1


def test_a_place_that_two_processes_queued_at_once_is_filled_once(tmp_path):
    study, ran = new_study(tmp_path / "study"), []
    for rate in (0.01, 0.02):
        asked = paper_settings() | {"learning_rate": rate}
        study.enqueue_trial(asked, user_attrs={"place": 0, "asked": asked, "tried": 0})
    assert run_trials(study, lambda settings, report: ran.append(settings) or {"score": 0.5}, 2) == 2
    assert [settings["learning_rate"] for settings in ran].count(0.01) == 1
    assert 0.02 not in [settings["learning_rate"] for settings in ran]
    assert trials_table(study)["trial"].tolist() == [1, 2]


def test_a_study_of_other_data_is_refused(tmp_path):
    new_study(tmp_path / "study")
    with pytest.raises(AllkitError, match="model there: none, here: mobilenet"):
        new_study(tmp_path / "study", model="mobilenet")
    with pytest.raises(AllkitError, match="epochs"):
        open_search("class", tmp_path / "study", RECIPE, SPACE | {"epochs": Range(1, 3)})
    assert new_study(tmp_path / "study").trials == []


@pytest.mark.parametrize("storage", ["{}/letter", "nosuch://here/study", "sqlite:///{}/no/folder/study.db"])
def test_a_storage_that_is_none_is_one_sentence(tmp_path, storage, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    (tmp_path / "letter").write_text("Dear students,\nthis is no journal.\n")
    with pytest.raises(AllkitError, match="cannot be used"):
        new_study(storage.format(tmp_path))


def test_a_hopeless_trial_is_pruned_and_a_good_one_is_not(tmp_path):
    def learn(settings, report):
        good = len(seen) != 5
        seen.append(0)
        for epoch in range(1, settings["epochs"] + 1):
            seen[-1] = epoch
            report(epoch, 0.8 + 0.001 * epoch if good else 0.5)
        return {"score": 0.8 if good else 0.5}

    seen = []
    study = open_search("class", tmp_path / "study", RECIPE, {"epochs": Range(6, 6)})
    run_trials(study, learn, 7)
    table = trials_table(study)
    assert table["state"].tolist() == ["complete"] * 5 + ["pruned", "complete"]
    assert seen == [6, 6, 6, 6, 6, 2, 6]
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
    found = measure_optimism(table.head(400), draws=500).set_index("trials")
    expected = noise * 1.5388  # mean of the largest of ten normal numbers
    assert found.loc[10, "growth"] == pytest.approx(expected, abs=0.006)
    assert found.loc[1, "growth"] == pytest.approx(0, abs=0.004)
    assert found.loc[1, "gap"] == pytest.approx(shift, abs=0.006)
    assert found.loc[10, "test"] == pytest.approx(0.8, abs=0.006)
    assert found.loc[10, "low"] < found.loc[10, "gap"] < found.loc[10, "high"]
    assert found.loc[300, ["low", "high"]].isna().all()
    # where validation and test agree, choosing costs nothing
    assert measure_optimism(table.assign(test=table["score"]).head(50), draws=50)["gap"].abs().max() == 0
    with pytest.raises(AllkitError, match="two"):
        measure_optimism(table.head(1))


def test_importance_has_to_beat_luck():
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"batch_size": rng.integers(8, 128, 30), "epochs": rng.integers(1, 10, 30),
                          "learning_rate": 10 ** rng.uniform(-4, -1, 30), "state": "complete"})  # fmt: skip
    table["score"] = 0.7 + 0.05 * np.log10(table["learning_rate"]) + 0.005 * rng.normal(size=30)
    found = measure_importance(table, resamples=20)
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
    profile = get_profile("quick", "mobilenet", index, image_size=32, alpha=0.25, split="image", allow_leak=True)
    return profile, split_data(index, "image")


def test_a_trial_trains_with_its_settings_and_reports_every_epoch(monkeypatch, tiny):
    def train_model(network, split, profile, *, seed, show, callbacks):
        trained.append(profile)
        for phase in (2, 1):  # Keras counts the epochs of each phase from 0
            for epoch in range(phase):
                callbacks[0].on_epoch_end(epoch, {"val_balanced_accuracy": 0.6 + 0.1 * epoch})
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
    head = get_profile("honest", augmented_copies=2, epochs=0, head_epochs=1)
    build_score(split, head, "mobilenet")(settings, lambda *words: None)
    assert (trained[1].head_epochs, trained[1].epochs) == (3, 0)


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
    assert name_search("a", recipe) == name_search("a", dict(reversed(recipe.items())))
    assert name_search("a", recipe) != name_search("a", recipe | {"image_size": 64})


def test_the_command_prints_a_line_per_trial_and_the_best(monkeypatch, capsys, tmp_path):
    def start_tuning(name, **options):
        asked.append((name, options["parameters"], options["storage"]))
        return new_study(tmp_path / "study"), score

    def score(settings, report):
        if len(asked) == 1 and settings != paper_settings():
            raise KeyboardInterrupt
        return {"score": 0.5 + settings["learning_rate"], "test": 0.5}

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["allkit", "tune", "--study", "ours", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        return ended.value.code or 0, out.out.splitlines(), out.err

    asked = []
    monkeypatch.setattr(tuning, "start_tuning", start_tuning)
    options = ["--trials", "3", "-p", "image_size", "32", "-p", "weights", "none", "--storage", "here"]
    code, lines, err = run(*options)
    assert asked == [("ours", {"image_size": 32, "weights": "none"}, "here")]
    assert code == 130
    assert lines[0].startswith("trial 1: 0.501 (batch_size 40, learning_rate 0.001, epochs 5;")
    assert "same command" in err
    code, lines, _ = run(*options)
    assert code == 0
    assert [line.split(":")[0] for line in lines[:2]] == ["trial 2", "trial 3"]
    assert "Best of 3 complete trials" in lines[2]


def test_nothing_left_to_search_is_one_sentence(twin, tmp_path):
    given = paper_settings() | {"split": "image", "allow_leak": True}
    with pytest.raises(AllkitError, match="nothing to search"):
        tuning.start_tuning("a", data=str(twin), parameters=given, out=str(tmp_path / "run"))
    with pytest.raises(AllkitError, match="cannot be called"):
        tuning.start_tuning(
            "../a", data=str(twin), parameters={"split": "image", "allow_leak": True}, out=str(tmp_path)
        )
