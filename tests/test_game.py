"""The reader study: a blinded game with two looks at every cell, and what its numbers are worth."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from allkit import AllkitError
from allkit.app.game import RecognitionGame, save_looks, study_path
from allkit.data import load_index
from allkit.images import fitting_crop
from allkit.lessons import readers, start
from allkit.lessons.readers import LOOKS


@pytest.fixture(autouse=True)
def own_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("ALLKIT_RUNS", str(tmp_path / "runs"))


def made_up(cells: int = 400, errors: float = 0.1, subjects: int = 40, seed: int = 0) -> pd.DataFrame:
    """A predictions table whose network errs about so many of its cells; there are no files behind the paths."""
    rng = np.random.default_rng(seed)
    label = np.where(np.arange(cells) % 2, "HEM", "ALL")
    wrong = rng.random(cells) < errors
    p = np.where((label == "ALL") != wrong, 0.8, 0.3)
    table = pd.DataFrame({"path": [f"{k}.png" for k in range(cells)], "label": label})
    table["subject"] = [f"{name}{k % subjects // 2}" for k, name in enumerate(label)]
    return table.assign(group=table["subject"], p_ALL=p, p_HEM=1 - p)


@pytest.fixture
def cells(twin) -> pd.DataFrame:
    """Six genuine files of drawn cells, the network wrong about the first."""
    rows = load_index(twin)
    rows = rows[rows["label"].notna()].groupby("label").head(3)[["path", "label", "subject", "group"]]
    p = np.where(rows["label"] == "ALL", 0.83, 0.17)
    p[0] = 1 - p[0]
    return rows.assign(p_ALL=p, p_HEM=1 - p).reset_index(drop=True)


def shown(game: RecognitionGame) -> str:
    return game._view.value + game._word.value


# ---- the game ----------------------------------------------------------------------------------------------


def test_every_cell_comes_twice_and_far_apart():
    for seed in range(20):
        order = readers.look_order(20, seed=seed)
        assert sorted(order) == sorted((k, look) for k in range(20) for look in (1, 2))
        place = {pair: number for number, pair in enumerate(order)}
        assert min(place[k, 2] - place[k, 1] for k in range(20)) >= 10
        assert [look for _, look in order] == [1] * 20 + [2] * 20
    assert [k for k, _ in readers.look_order(20, seed=1)][20:] != [k for k, _ in readers.look_order(20, seed=2)][20:]


def test_it_is_blinded_and_the_second_look_is_at_another_picture(cells):
    game = RecognitionGame(cells, crop=300, note="synthetic cells")
    assert "synthetic cells, shown" in shown(game)
    published = game.widget._repr_mimebundle_()["text/html"]
    assert "Picture 1 of 12, a cell to be named" in published
    assert "Interactive in JupyterLab: a game of 6 cells, each shown twice" in published
    pictures = []
    for number in range(12):
        words = re.sub(r"src='[^']+'", "", shown(game))
        assert f"Picture {number + 1} of 12" in words
        assert not re.search(r"ALL|HEM|✓|✗|was|\b[Rr]ight\.|\.png|\.bmp", words), words
        pictures.append(re.search(r"src='([^']+)'", game._view.value)[1])
        game.buttons["ALL"].click()
    assert len(set(pictures)) == 12
    assert all(game.buttons[name].disabled for name in game.buttons)
    game.answer("ALL")
    assert len(game.looks) == 12, "over is over"
    looks = game.looks
    assert list(looks) == LOOKS
    assert looks["cell"].nunique() == 6
    assert looks.groupby("cell")["truth"].nunique().eq(1).all()
    assert (looks["network"] != looks["truth"]).sum() == 2, "the network errs about one cell, seen twice"
    game.restart()
    assert (game.looks.empty, game.buttons["ALL"].disabled) == (True, False)


def test_advice_is_shown_at_the_second_look_and_only_there(cells):
    advised = cells.assign(advice=["HEM", "HEM", "ALL", "ALL", "HEM", "ALL"])
    game = RecognitionGame(advised, crop=300, seed=3)
    said = []
    for _ in range(12):
        said.append(re.search(r"The network says (\w+), 83%", game._view.value))
        game.buttons["HEM"].click()
    assert said[:6] == [None] * 6
    looks = game.looks
    assert [match[1] for match in said[6:]] == looks["advice"].tolist()[6:]
    assert looks["advice"].tolist()[:6] == [None] * 6


def test_answers_are_kept_only_when_asked_and_without_names(cells):
    game = RecognitionGame(cells, crop=300)
    assert game._keep.disabled
    for label in ("ALL", "HEM", "ALL"):
        game.buttons[label].click()
    assert not study_path().exists()
    game._keep.click()
    assert "Saved in" in game._word.value
    assert "no name" in game._word.value
    kept = json.loads(study_path().read_text(encoding="utf-8"))
    assert (kept["format"], list(kept["looks"])) == (1, ["alone"])
    assert [look["answer"] for look in kept["looks"]["alone"]] == ["ALL", "HEM", "ALL"]
    assert not re.search(r"subject|path|/|\.png", study_path().read_text(encoding="utf-8"))
    save_looks("advised", game.looks)
    assert set(json.loads(study_path().read_text(encoding="utf-8"))["looks"]) == {"alone", "advised"}
    study_path().write_text("{}", encoding="utf-8")
    with pytest.raises(AllkitError, match="move it away"):
        save_looks("alone", game.looks)
    game._keep.click()
    assert "Nothing was saved" in game._word.value
    assert study_path().read_text(encoding="utf-8") == "{}"


# ---- which cells -------------------------------------------------------------------------------------------


def test_cells_are_of_all_classes_alike_and_of_as_many_subjects_as_possible():
    chosen = readers.choose_cells(made_up(), 20, seed=1)
    assert chosen["label"].value_counts().to_dict() == {"ALL": 10, "HEM": 10}
    assert chosen["subject"].nunique() == 20
    assert chosen["path"].tolist() == readers.choose_cells(made_up(), 20, seed=1)["path"].tolist()
    unknown = readers.choose_cells(made_up().assign(subject=None), 20, seed=1)
    assert len(unknown) == 20
    few = readers.choose_cells(made_up().query("label == 'ALL' or path < '12'"), 20, seed=1)
    assert few["label"].value_counts().nunique() == 1, "where one class is rare, there are fewer of both"


@pytest.mark.parametrize(("errors", "own"), [(0.2, 6), (0.0, 0)])
def test_advice_is_wrong_as_often_as_it_was_ordered_and_by_the_networks_own_errors_first(errors, own):
    table = made_up(errors=errors)
    chosen = readers.choose_advised(table, 20, 6, seed=2)
    wrong = chosen["advice"] != chosen["label"]
    assert (len(chosen), wrong.sum(), (wrong & ~chosen["turned"]).sum()) == (20, 6, own)
    assert chosen.loc[wrong, "label"].value_counts().to_dict() == {"ALL": 3, "HEM": 3}
    assert chosen["label"].value_counts().to_dict() == {"ALL": 10, "HEM": 10}
    own_answer = np.where(chosen["p_ALL"] > 0.5, "ALL", "HEM")
    assert ((chosen["advice"] != own_answer) == chosen["turned"]).all()
    assert not set(chosen["path"]) & set(readers.choose_cells(table, 20, seed=2)["path"]), "notebook 00 shows others"


def test_few_cells_come_again_rather_than_not_at_all():
    chosen = readers.choose_advised(made_up(24, errors=0.0), 20, 6, seed=2)
    assert len(chosen) == 20
    assert (chosen["advice"] != chosen["label"]).sum() == 6


# ---- what the numbers are worth ----------------------------------------------------------------------------


def test_kappa_is_that_of_scikit_learn_and_cannot_be_given_where_both_say_one_thing():
    rng = np.random.default_rng(0)
    for _ in range(50):
        first, second = rng.choice(["ALL", "HEM", "x"], size=(2, 20))
        found = readers.evaluate_agreement(first, second)
        assert found["value"] == pytest.approx(cohen_kappa_score(first, second))
        assert -1 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert np.isnan(readers.evaluate_agreement(["ALL"] * 20, ["ALL"] * 20)["value"])
    assert np.isnan(readers.evaluate_agreement([], [])["value"])
    few = readers.evaluate_agreement(["ALL", "HEM", "ALL"], ["ALL", "HEM", "HEM"])
    assert np.isnan([few["low"], few["high"]]).all()
    same = readers.evaluate_agreement(["ALL", "HEM"] * 10, ["ALL", "HEM"] * 10)
    assert (same["value"], same["high"]) == (1, 1)
    assert same["low"] < 0.8, "twenty readings alike do not prove that all are"


@pytest.mark.parametrize(("accuracy", "steady"), [(0.8, 0.6), (0.65, 0.0)])
def test_intervals_of_simulated_readers_hold_what_is_true(accuracy, steady):
    cells = readers.choose_cells(made_up(), 20, seed=0)
    alike = steady + (1 - steady) * (accuracy**2 + (1 - accuracy) ** 2)
    truth = {"accuracy": accuracy, "kappa": 2 * alike - 1}  # half of the answers are ALL, so that chance is 1/2
    held = {name: [] for name in truth}
    for seed in range(150):
        looks = readers.simulate_reader(cells, accuracy, steady=steady, seed=seed)
        scores = readers.evaluate_reading(looks, cells, {"a network": cells})
        for name, row in (("accuracy", "you"), ("kappa", "you, twice")):
            held[name].append(scores.loc[row, "low"] <= truth[name] <= scores.loc[row, "high"])
    for name, hits in held.items():
        assert np.mean(hits) >= 0.88, name


def test_only_first_looks_count_for_the_accuracy_and_stopping_early_still_gives_numbers():
    cells = readers.choose_cells(made_up(errors=0.0), 20, seed=0)
    looks = readers.simulate_reader(cells, 0.8, steady=0.0, seed=5)
    right = (looks["answer"] == looks["truth"])[:20].sum()
    rivals = {"a ruler: area alone": cells, "a network": cells}
    whole = readers.evaluate_reading(looks, cells, rivals)
    assert whole.loc["you", ["same", "cells"]].tolist() == [right, 20]
    assert whole.loc["a network", "same"] == 20
    assert f"you named {whole.loc['you, twice', 'same']} alike" in readers.describe_reading(whole)
    twelve = readers.evaluate_reading(looks.head(12), cells, rivals)
    assert twelve.loc["you", "cells"] == 12
    assert "play on" in readers.describe_reading(twelve)
    assert twelve.loc["you", "low"] > 0
    assert twelve.loc["you, twice", "cells"] == 0
    three = readers.evaluate_reading(looks.head(3), cells, rivals)
    assert "With so few cells no interval can be given" in readers.describe_reading(three)


def test_a_game_that_nobody_played_shows_a_fixed_answer_and_no_kappa_of_it():
    cells = readers.choose_cells(made_up(), 20, seed=0)
    scores = readers.evaluate_reading(pd.DataFrame(columns=LOOKS), cells, {"a ruler": cells, "a network": cells})
    assert scores.index[0] == "a fixed answer: always ALL"
    assert scores["value"].iloc[0] == 0.5
    assert np.isnan(scores.loc["a fixed answer, twice", "value"])
    assert scores.loc["a fixed answer and a network", "value"] == pytest.approx(0)
    assert "Nobody has played yet" in readers.describe_reading(scores)


def test_a_score_is_ahead_only_where_the_intervals_are_apart():
    twenty = {"measure": "accuracy", "cells": 20}
    rows = {
        "you": twenty | {"same": 10, "value": 0.5, "low": 0.3, "high": 0.7},
        "a network": twenty | {"same": 20, "value": 1.0, "low": 0.84, "high": 1.0},
        "you, twice": twenty | {"same": 20, "value": 1.0, "low": 0.7, "high": 1.0},
        "you and a network": twenty | {"same": 10, "value": 0.0, "low": -0.4, "high": 0.4},
    }
    scores = pd.DataFrame(rows).T.infer_objects()
    assert "the network is ahead by more than luck" in readers.describe_reading(scores)
    scores.loc["a network", "low"] = 0.6
    assert "*inconclusive*" in readers.describe_reading(scores)


def test_a_reader_who_follows_is_told_from_one_who_does_not():
    cells = readers.choose_advised(made_up(errors=0.2), 20, 6, seed=0)
    sums = dict.fromkeys((0.0, 0.7), 0)
    for follows in sums:
        for seed in range(40):
            looks = readers.simulate_reader(cells, 0.8, follows=follows, seed=seed)
            effect = readers.evaluate_advice({"you": looks})
            bad = effect.loc[("you", "wrong")]
            assert effect["cells"].tolist() == [14, 6]
            assert bad["wrong_advised"] - bad["wrong_alone"] == bad["to_wrong"] - bad["to_right"]
            assert bad["followed"] == bad["wrong_advised"], "with two classes, to follow wrong advice is to be wrong"
            sums[follows] += (bad["wrong_advised"] - bad["wrong_alone"]) / bad["cells"] / 40
    assert abs(sums[0.0]) < 0.1
    assert sums[0.7] == pytest.approx(0.7 * 0.8, abs=0.12)  # of those who were right, 0.7 follow


def test_the_sentence_on_advice_says_how_it_was_made_wrong_but_only_to_who_has_played():
    cells = readers.choose_advised(made_up(errors=0.0), 20, 6, seed=0)
    led = readers.simulate_reader(cells, 1.0, steady=1.0, follows=1.0)
    empty = pd.DataFrame(columns=LOOKS)
    played = readers.describe_advice(readers.evaluate_advice({"you": led}), cells)
    assert "about 0 of 6 cells alone, and about 6 of them after wrong advice" in played
    assert "more than luck" in played
    assert "0 of these are the network's own errors, and 6 are answers of it that were turned round" in played
    nobody = readers.evaluate_advice({"you": empty, "simulated, never follows": readers.simulate_reader(cells, 0.8)})
    assert nobody.index.get_level_values("reader").unique().tolist() == ["simulated, never follows"]
    text = readers.describe_advice(nobody, cells)
    assert "Nobody has played yet" in text
    assert "turned round" not in text
    assert "*inconclusive*" in text
    ax = readers.plot_advice(readers.summarise_advice(nobody))
    assert "simulated, never follows, wrong advice, alone" in ax.get_label()


def test_an_image_that_is_there_twice_comes_once(twin, tmp_path):
    index = load_index(twin)
    index = index[index["label"].notna()]
    again = tmp_path / "again.bmp"
    again.write_bytes(Path(index["path"].iloc[0]).read_bytes())
    more = pd.concat([index, index.head(1).assign(path=str(again))], ignore_index=True)
    for rows in (more, more.iloc[::-1]):
        parts = readers.split_cells(rows, seed=1)
        paths = pd.concat([parts.train, parts.validation, parts.test])["path"]
        assert len(paths) > 30
        assert len({str(again), index["path"].iloc[0]} & set(paths)) == 1


def test_the_rivals_know_no_cell_of_the_game(twin):
    index = load_index(twin)
    parts, crop = readers.split_cells(index, seed=1), fitting_crop(300, index)
    rivals = start.evaluate_rivals(parts, crop=crop)
    assert list(rivals)[-1] == "a network"
    for predictions in rivals.values():
        assert set(predictions["path"]) == set(parts.test["path"])
    assert "names" in start.plot_examples(parts.train, 3, crop=crop).flat[0].get_label()
