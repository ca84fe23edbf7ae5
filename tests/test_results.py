"""Results that are kept: which trainings there are, that none is done twice, and how the book shows them."""

import importlib.util
import sys

import numpy as np
import pandas as pd
import pytest

from allkit import ROOT
from allkit.data import load_index
from allkit.splits import assert_disjoint


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return load_script("make_results")


@pytest.fixture
def cells(twin):
    index = load_index(twin)
    return index[(index["part"] == "train") & index["subject"].notna()].reset_index(drop=True)


def test_cross_validation_tests_every_cell_once_and_keeps_subjects_apart(script, cells):
    splits = script.fold_by_subject(cells, seed=1)
    tested = pd.concat([split.test for split in splits])
    assert sorted(tested["path"]) == sorted(cells["path"])
    for split in splits:
        assert_disjoint(split)
        assert not set(split.train["group"]) & (set(split.test["group"]) | set(split.validation["group"]))


def test_what_is_done_is_not_done_again_and_the_folds_are_pooled_by_subject(script, twin, tmp_path, monkeypatch):
    done = []

    def train_once(task, folder):
        done.append(task)
        table = task.split.test[["path", "label", "subject", "group"]].reset_index(drop=True)
        says = np.where(table["label"] == "ALL", 0.9, 0.1)
        table.assign(p_ALL=says, p_HEM=1 - says).to_csv(
            folder / f"{script._short_hash(script.key_of(task))}.csv", index=False
        )
        return {**script.key_of(task), "images": len(table), "auc": 1.0, "balanced_accuracy": 1.0, "seconds": 1.0,
                "machine": "a laptop", "versions": "keras 3"}  # fmt: skip

    monkeypatch.setenv("ALLKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(script, "FILE", tmp_path / "runs.csv")
    monkeypatch.setattr(script, "train_once", train_once)
    monkeypatch.setattr(script, "SEEDS", (1,))
    script.main(twin)
    first = len(done)
    assert {task.recipe for task in done} == {"area alone", "honest recipe", "paper's recipe"}
    by_subject = [task for task in done if "subject" in task.task]
    assert all(task.recipe != "paper's recipe" for task in by_subject if "cross" in task.task), "that would take a day"
    pooled = pd.read_csv(tmp_path / "by_subject.csv")
    assert (pooled["auc_by_subject"] == 1).all()
    kept = pd.read_csv(tmp_path / "runs.csv")
    kept.iloc[:-1].to_csv(tmp_path / "runs.csv", index=False)
    script.main(twin)
    assert len(done) == first + 1, "only what was missing"


def test_the_page_shows_medians_ranges_and_intervals_of_what_is_kept(script, tmp_path):
    rows = [
        {"task": "cells, by image", "tested on": "", "recipe": recipe, "seed": seed, "auc": auc + seed / 100,
         "balanced_accuracy": 0.8, "seconds": 10.0, "machine": machine, "versions": versions}
        for recipe, auc, machine, versions in [
            ("honest recipe", 0.9, "a laptop", "keras 3"), ("area alone", 0.7, "", "")]
        for seed in (1, 2, 3)
    ]  # fmt: skip
    pooled = {"recipe": "honest recipe", "seed": 1, "images": 9, "subjects": 3, "auc_by_subject": 0.88, "low": 0.8,
              "high": 0.95, "auc_by_image": 0.85}  # fmt: skip
    script.write_page(pd.DataFrame(rows), pd.DataFrame([pooled]), tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| honest recipe | 1 | 9 | 3 | 0.880 | 0.800–0.950 | 0.850 |" in text
    assert "| cells, by image | honest recipe | 0.92 (0.91–0.93) | 0.8 | 10.0 | 3 |" in text
    assert "cells, by image, area alone: 0.72" in text, "the figure is described"
    assert (tmp_path / "page" / "auc.png").stat().st_size > 1000
    assert "a laptop" in text
    assert "keras 3" in text


def test_the_page_that_is_kept_is_made_of_the_rows_that_are_kept(script, tmp_path):
    rows = script.read_rows()
    pooled = pd.read_csv(script.FILE.with_name("by_subject.csv"))
    assert set(rows["recipe"]) == {"area alone", "honest recipe", "paper's recipe"}
    script.write_page(rows, pooled, tmp_path / "results.md")
    kept = (script.DOCS / "results.md").read_text(encoding="utf-8")
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == kept
