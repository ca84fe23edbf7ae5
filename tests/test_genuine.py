"""Small versions of the real thing: the series on genuine cells and smears, and the quick models on fresh cells."""

import json
import os
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from allkit import ROOT
from allkit.app.upload import example_files
from allkit.baselines import choose_single_feature
from allkit.classify import classify_bytes, classify_files
from allkit.course.check_data import check_data
from allkit.course.notebooks import run_notebooks
from allkit.course.report import publish_report
from allkit.data import load_index
from allkit.evaluate import evaluate_predictions
from allkit.features import measure_cells
from allkit.models import BACKBONES, load_model, predict_index
from allkit.runs import load_data, open_run
from allkit.splits import split_data
from allkit.synthetic import make_twin

EVERYTHING = os.environ.get("ALLKIT_VERIFY") == "1"

CLOSE = ["01", "04", "05", "07", "13", "14", "16"]
"""Notebooks that look closest at the cells; all of them run on genuine cells in `make verify`."""


@pytest.fixture(scope="module")
def cells(cnmc_folder, tmp_path_factory) -> Path:
    """Fifteen genuine cells of every subject of fold_1, in C-NMC's layout."""
    index = load_index(cnmc_folder).query("fold == 1")
    root = tmp_path_factory.mktemp("cells")
    for path in index.groupby("subject").head(15)["path"]:
        copy = root / Path(path).relative_to(cnmc_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return root


@pytest.fixture(scope="module")
def smears(smears_folder, tmp_path_factory) -> Path:
    """Forty genuine smears of each of four classes."""
    root = tmp_path_factory.mktemp("smears")
    for folder in sorted(smears_folder.iterdir()):
        (root / folder.name).mkdir()
        for path in sorted(folder.iterdir())[:40]:
            shutil.copy(path, root / folder.name)
    return root


def outputs_of(path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    return " ".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/markdown", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


def test_a_subset_of_the_genuine_cells_is_checked_as_such(cells):
    check = check_data(cells)
    assert check.ok, check.to_text()
    assert check.manifest["converted"] == len(check.images) == 14 * 15
    assert check.manifest["absent"] > 14_000
    assert check.subjects["subject"].nunique() == 14


def test_the_series_runs_on_genuine_cells(cells, weights_home, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(weights_home))
    parameters = {"epochs": "1", "image_size": "64", "04.weights": "imagenet", "04.alpha": "0.75"}
    parameters |= {"split": "image", "allow_leak": "True"}  # as the paper did
    where = {"data": str(cells), "parameters": parameters, "out": str(tmp_path / "run")}
    result = run_notebooks(profile="quick", only=None if EVERYTHING else CLOSE, **where)
    assert result.ok, [(n.name, n.cell, n.error) for n in result.notebooks]
    run = open_run(str(tmp_path / "run"), index=load_index(cells), profile="quick")
    assert not run.synthetic
    for name in BACKBONES:
        predictions = run.load_predictions(name)
        assert set(predictions["label"]) == {"ALL", "HEM"}
        assert predictions[["p_ALL", "p_HEM"]].sum(axis=1).between(0.999, 1.001).all()
    assert load_model(run.model_path("mobilenet")).metadata["profile"]["weights"] == "imagenet"
    answer = classify_bytes(Path(predictions["path"][0]).read_bytes(), load_model(run.model_path("mobilenet")))
    assert answer.label in ("ALL", "HEM")
    assert "genuine images" in outputs_of(tmp_path / "run" / "notebooks" / "07_classify_an_image.ipynb")


def test_four_classes_without_subjects_go_all_the_way(smears, tmp_path):
    result = run_notebooks(
        profile="quick", data=str(smears), only=["04", "06"], out=str(tmp_path / "run"),
        parameters={"epochs": "1", "image_size": "48"},
    )  # fmt: skip
    assert result.ok, [(n.name, n.cell, n.error) for n in result.notebooks]
    run = open_run(str(tmp_path / "run"), index=load_index(smears), profile="quick")
    assert load_model(run.model_path("mobilenet")).metadata["classes"] == ["Benign", "Early", "Pre", "Pro"]
    assert run.model_path("efficientnetb3").is_file(), "06 trains what is missing"
    assert "leakage cannot be excluded" in outputs_of(tmp_path / "run" / "notebooks" / "04_train_mobilenet.ipynb")
    assert "bootstrap over **images**" in outputs_of(tmp_path / "run" / "notebooks" / "06_compare_models.ipynb")


def test_a_healthy_subject_is_held_out(cells, weights_home, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(weights_home))
    result = run_notebooks(
        profile="honest", data=str(cells), only=["04"], out=str(tmp_path / "run"),
        parameters={"epochs": "1", "image_size": "64", "alpha": "0.75", "split": "hold-out", "hold_out": "H10"},
    )  # fmt: skip
    assert result.ok, [(n.name, n.cell, n.error) for n in result.notebooks]
    run = open_run(str(tmp_path / "run"), index=load_index(cells), profile="honest")
    tested = run.load_predictions("mobilenet")
    assert set(tested.loc[tested["label"] == "HEM", "subject"]) == {"H10"}
    assert load_model(run.model_path("mobilenet")).metadata["profile"]["depths"] == "several"


def test_the_twin_is_compared_with_genuine_cells(cells, weights_home, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(weights_home))
    page = ROOT / "notebooks" / "extra" / "twin_report.ipynb"
    result = run_notebooks(notebooks=page, data=str(cells), out=str(tmp_path / "run"), parameters={"images": "12"})
    assert result.ok, [(n.name, n.cell, n.error) for n in result.notebooks]
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(found["origin"]) == 3
    assert all(0.3 < row["value"] < 0.9 for row in found["origin"].values())
    assert 0.6 < found["transfer"]["area alone · synthetic → genuine"]["value"] < 1
    assert found["transfer"]["descriptors · genuine → genuine"]["low"] is None, "three healthy subjects: inconclusive"
    assert "inconclusive" in outputs_of(page_copy := tmp_path / "run" / "notebooks" / page.name)
    assert "Twin against reality" in publish_report(page_copy.parents[1]).read_text()


@pytest.fixture(scope="module")
def quick_run() -> Path:
    """The run folder of the series on synthetic data, profile quick."""
    folder = Path(os.environ.get("ALLKIT_TEST_RUN", ""))
    if not (folder / "models").is_dir():
        pytest.skip("set ALLKIT_TEST_RUN to a run folder of the quick series (make test does)")
    return folder


@pytest.mark.parametrize("name", BACKBONES)
def test_quick_models_have_learned_by_300_fresh_cells_of_other_subjects(quick_run, name, tmp_path, capsys):
    fresh = load_index(make_twin(tmp_path / "fresh", images=300, seed=20_000))
    rows = fresh[fresh["part"] == "train"].reset_index(drop=True)
    auc = evaluate_predictions(predict_index(load_model(quick_run / "models" / f"{name}.keras"), rows))["auc"]
    cells = measure_cells(rows)
    area = roc_auc_score(rows["label"] == "ALL", cells[choose_single_feature(cells)])
    with capsys.disabled():
        print(f"\n{name}: AUC {auc:.3f} on {len(rows)} fresh synthetic cells (aim 0.93); area alone {area:.3f}")
    assert auc > max(0.88, area + 0.04), "better than a ruler"


@pytest.mark.parametrize("name", BACKBONES)
def test_the_default_models_answer_cells_and_the_examples(quick_run, name):
    trained = load_model(quick_run / "models" / f"{name}.keras")
    named = [classify_bytes(data, trained, name=name) for name, data in example_files()]
    assert [answer.label for answer in named] == ["ALL", "HEM", None], "one clear cell of each class, one declined"
    index = load_data("synthetic")
    validation = split_data(index, "subject").validation
    rejected = [answer.rejected for answer in classify_files(validation["path"], trained)]
    assert np.mean(rejected) <= 0.05


@pytest.mark.parametrize("name", BACKBONES)
def test_most_genuine_cells_get_an_answer_from_the_default_models(quick_run, cnmc_folder, name):
    index = load_index(cnmc_folder)
    rows = index[(index["part"] == "train") & (index["fold"] == 1)].sample(60, random_state=0)
    trained = load_model(quick_run / "models" / f"{name}.keras")
    answers = list(classify_files(rows["path"], trained))
    assert np.mean([answer.rejected for answer in answers]) < 0.5
    assert np.mean(["focus" in answer.reasons for answer in answers]) < 0.1, "they are not too sharp"
