"""The older techniques, and the lab that measures leaks."""

import numpy as np
import pandas as pd
import pytest

from allkit import AllkitError, baselines, classical
from allkit.augment import balance
from allkit.data import load_index
from allkit.evaluate import evaluate_predictions
from allkit.lessons import leakage
from allkit.source import COLUMNS
from allkit.splits import split_by_image, split_data
from allkit.synthetic import draw_numbers


def test_existing_techniques_answer_for_every_test_image(twin):
    split = split_data(load_index(twin), "subject")
    found = baselines.evaluate_baselines(split, image_size=32)
    assert len(found) == 5
    for table in found.values():
        assert table["path"].tolist() == split.test["path"].tolist()
        np.testing.assert_allclose(table[["p_ALL", "p_HEM"]].sum(axis=1), 1)
    assert evaluate_predictions(found["largest class"])["balanced_accuracy"] == 0.5


def auc_by(found: pd.DataFrame, name: str) -> pd.Series:
    return found[found["baseline"] == name].groupby("split_kind")["auc"].mean()


@pytest.fixture(scope="module")
def lab():
    """A world in which subjects differ much and classes little, with copies that are noisy doubles."""
    index = draw_numbers(24, 12, subject_effect=2, difficulty=3, seed=5)
    index["fold"] = pd.array(pd.factorize(index["subject"])[0] % 3, dtype="Int64")
    balanced = balance(index[(index["label"] == "ALL") | (index.index % 2 == 0)], seed=123)
    everything = pd.concat([balanced, index.assign(augmentation="")])
    numbers = everything.drop(columns=[*COLUMNS, "augmentation"]).set_axis(baselines.row_keys(everything))
    return index, balanced, numbers[~numbers.index.duplicated()]


@pytest.fixture
def no_files(monkeypatch):
    monkeypatch.setattr(leakage, "contents_of", list)


def test_the_lab_finds_the_leaks_where_they_are(lab, no_files):
    found, refused = leakage.evaluate_split_kinds(*lab, seeds=range(3))
    assert set(refused) == set()
    shared = found.groupby("split_kind")[["file", "subject"]].mean()
    assert shared.loc["augment, then split", "file"] > 0.2
    assert shared.loc["by image", "file"] == 0
    assert shared.loc["by image", "subject"] > 0.9
    assert (shared.loc[[kind for kind in leakage.SPLIT_KINDS if "subject" in kind], "subject"] == 0).all()
    remembers = auc_by(found, "nearest neighbours")
    assert remembers["by image"] > remembers["by subject, duplicates merged"] + 0.05
    assert remembers["augment, then split"] > remembers["by image"]


def test_unknown_subjects_leave_only_the_splits_that_ignore_them(lab, no_files):
    index, balanced, numbers = lab
    found, refused = leakage.evaluate_split_kinds(
        index.assign(subject=None), balanced.assign(subject=None), numbers, seeds=[0]
    )
    assert set(found["split_kind"]) == {"augment, then split", "by image"}
    assert set(refused) == set(leakage.SPLIT_KINDS) - set(found["split_kind"])
    assert found["subject"].isna().all()


def test_no_interval_where_one_draw_has_none():
    intervals = {"auc": [0.7, 0.8], "low": [0.6, np.nan], "high": [0.8, np.nan], "resampled": "subjects"}
    found = pd.DataFrame({"split_kind": "a", "baseline": "p", **intervals})
    row = leakage.summarise_split_kinds(found).loc[("a", "p")]
    assert row["value"] == pytest.approx(0.75)
    assert np.isnan(row["low"])


def test_the_lab_finds_no_leak_where_subjects_do_not_differ():
    gap = {
        effect: leakage.evaluate_subject_effect(effect, draw_numbers, subjects=20, seeds=range(4))
        .groupby("baseline")
        .mean()
        .loc["nearest neighbours"]
        for effect in (0.0, 3.0)
    }
    assert abs(gap[0.0]["true"]) < 0.02
    assert abs(gap[0.0]["measured"]) < 0.06
    assert gap[3.0]["true"] > 0.05
    assert gap[3.0]["measured"] == pytest.approx(gap[3.0]["true"], abs=0.08)


def test_a_copy_is_measured_as_the_changed_image(twin):
    index = load_index(twin)
    row = index[index["label"] == "ALL"].head(1)
    rows = pd.concat([row.assign(augmentation=spec) for spec in ("", "flip:horizontal", "rotate:30|zoom:0.9")])
    numbers = baselines.measure_numbers(rows)
    area, mirrored, smaller = numbers["area"]
    assert mirrored == area
    assert smaller == pytest.approx(0.81 * area, rel=0.03)


def test_holding_out_one_subject_at_a_time_and_choosing_on_the_others(lab):
    index, _, numbers = lab
    noise = pd.DataFrame(np.random.default_rng(0).random((len(numbers), 2)), index=numbers.index)
    inputs = {"noise": noise, "numbers": numbers, "numbers, subjects weighted": numbers}
    found = leakage.evaluate_hold_outs(index, inputs, ["HEM-0", "HEM-1"], draws=2)
    assert len(found) == 2 * 2 * 3
    by_input = found.groupby("input")["auc"].mean()
    assert by_input["numbers"] > by_input["noise"] + 0.1
    few = index[~index["subject"].isin([f"HEM-{k}" for k in (0, *range(5, 24))])]
    assert leakage.choose_input(few, inputs).startswith("numbers")


def test_an_unknown_baseline_or_split_kind_is_refused(lab):
    with pytest.raises(AllkitError, match="nearest neighbours"):
        classical.build_baseline("oracle")
    with pytest.raises(AllkitError, match="by image"):
        leakage.split_by_kind("by luck", lab[0], lab[1], seed=0)


def test_frozen_features_see_the_copy(twin):
    index = load_index(twin)
    row = index[index["label"] == "ALL"].head(1)
    rows = pd.concat([row.assign(augmentation=spec) for spec in ("", "flip:horizontal")])
    values = baselines.frozen_features(rows, image_size=32, alpha=0.25, layers=baselines.DEPTHS)
    assert len(values) == 2
    assert not np.allclose(*values.to_numpy())
    assert {name.rpartition("-")[0] for name in values} == set(baselines.DEPTHS)


def test_predictions_of_a_baseline_are_those_of_its_rows():
    index = draw_numbers(6, 10, seed=1)
    split = split_by_image(index, seed=0)
    numbers = index.drop(columns=list(COLUMNS)).set_axis(baselines.row_keys(index))
    table = baselines.evaluate_baseline(split.train, split.test, numbers)
    assert table["path"].tolist() == split.test["path"].tolist()
    assert evaluate_predictions(table)["auc"] > 0.8
