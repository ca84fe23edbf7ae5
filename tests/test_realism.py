"""How close the twin comes: nothing is found where nothing differs, and a change is found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import realism
from scipy.stats import ks_2samp

from allkit import AllkitError
from allkit.evaluate import evaluate_predictions, evaluate_with_intervals
from allkit.features import FEATURES
from allkit.images import read_image
from allkit.runs import SYNTHETIC
from allkit.synthetic import draw_cell


def _sample(origin: str, seed: int, subjects: int = 12, each: int = 20) -> pd.DataFrame:
    """Measured cells, half of the subjects of each class, who differ in all descriptors."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(subjects), each)
    values = rng.normal(0, 0.7, (subjects, len(FEATURES)))[owners] + rng.normal(0, 1, (len(owners), len(FEATURES)))
    table = pd.DataFrame(values, columns=list(FEATURES))
    labels = np.where(owners % 2, "HEM", "ALL")
    table["area"] += 1.5 * (labels == "ALL")
    names = owners.astype(str)
    paths = [f"{origin}-{k}.png" for k in range(len(owners))]
    return table.assign(origin=origin, label=labels, subject=names, group=names, path=paths)


def _both(shift: float = 0.0, **changes) -> pd.DataFrame:
    drawn = _sample(SYNTHETIC, 2, **changes)
    drawn["texture"] += shift
    return pd.concat([_sample("genuine", 1, **changes), drawn], ignore_index=True)


@pytest.mark.parametrize("learner", realism.LEARNERS)
def test_a_shifted_twin_is_distinguished_and_an_unshifted_one_is_not(learner):
    same, shifted = (evaluate_predictions(realism.predict_origin(_both(s), learner))["auc"] for s in (0, 3))
    assert 0.3 < same < 0.68
    assert shifted > 0.85


def test_a_shift_is_found_in_its_descriptor_and_in_no_other():
    table = realism.compare_descriptors(_both(3.0)).set_index(["label", "descriptor"])
    assert set(table.index.get_level_values("descriptor")) == set(realism.DESCRIPTORS)
    found = table.xs("texture", level="descriptor")
    assert (found["ks"] > 0.5).all()
    assert (found["auc"] > 0.8).all()
    assert (found["difference"] > 1).all()
    assert (found["p_subjects"] < 0.05).all()
    others = table.drop("texture", level="descriptor")
    assert others["difference"].abs().max() < 1.3
    assert (others["p_subjects"] < 0.05).mean() < 0.2


def test_cells_of_few_subjects_are_no_independent_cells():
    """Subjects differ, cells agree with their subject: counting cells finds differences everywhere, falsely."""
    table = realism.compare_descriptors(_both(each=60))
    assert (table["p_cells"] < 0.05).mean() > 0.3
    assert (table["p_subjects"] < 0.05).mean() < 0.2


def test_the_gap_is_that_of_scipy_also_with_equal_values():
    cells = _both(2.0)
    values, drawn = cells["texture"].round().to_numpy(), (cells["origin"] == SYNTHETIC).to_numpy()
    owners = (cells["origin"] + cells["subject"]).to_numpy(str)
    gaps = realism.permuted_gaps(values, drawn, owners, np.random.default_rng(0))
    assert len(gaps) == 1 + realism.PERMUTATIONS
    assert gaps[0] == pytest.approx(ks_2samp(values[drawn], values[~drawn]).statistic, abs=1e-5)
    assert gaps[1:].mean() < gaps[0]


def test_few_subjects_are_inconclusive():
    few = _both(subjects=6)  # three of each class
    assert realism.compare_descriptors(few)["p_subjects"].isna().all()
    with pytest.raises(AllkitError, match="too few"):
        realism.predict_origin(_both(subjects=4), realism.LEARNERS[0])


def test_what_is_learned_on_the_twin_is_tested_on_genuine_cells():
    cells = _both()
    found = realism.evaluate_transfer(cells, cells[["area"]].to_numpy())
    assert list(found) == ["synthetic → genuine", "genuine → genuine", "synthetic → synthetic"]
    assert set(found["synthetic → genuine"]["path"]) == set(cells.loc[cells["origin"] == "genuine", "path"])
    for table in found.values():
        assert 0.6 < evaluate_with_intervals(table, resamples=20).loc["auc", "value"] < 1
    reversed_twin = cells["area"].where(cells["origin"] == "genuine", -cells["area"])
    wrong = realism.evaluate_transfer(cells, reversed_twin.to_numpy()[:, None])
    assert evaluate_predictions(wrong["synthetic → genuine"])["auc"] < 0.4
    assert evaluate_predictions(wrong["genuine → genuine"])["auc"] > 0.6


def test_a_subject_with_few_cells_gets_no_figure_of_its_own():
    cells = _both().query("not (origin == 'genuine' and subject == '1')")
    cells = pd.concat([cells, _sample("genuine", 1).query("subject == '1'").head(4)], ignore_index=True)
    table = realism.evaluate_transfer(cells, cells[["area"]].to_numpy())["genuine → genuine"]
    by_subject = realism.auc_by_subject(table)
    assert by_subject.loc["1", "cells"] == 4
    assert np.isnan(by_subject.loc["1", "auc"])
    assert by_subject.drop(index="1")["auc"].between(0, 1).all()


def test_each_genuine_cell_gets_a_drawn_counterpart(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLKIT_CACHE", str(tmp_path))
    cells = pd.DataFrame({"path": ["a", "b", "c"], "label": ["ALL", "ALL", "HEM"], "subject": ["11", "11", "H3"]})
    cells = cells.assign(group=cells["subject"], source="cnmc")
    drawn = realism.draw_counterparts(cells)
    assert set(drawn["source"]) == {SYNTHETIC}
    before = [Path(path).stat().st_mtime_ns for path in drawn["path"]]
    again = realism.draw_counterparts(cells)
    assert [Path(path).stat().st_mtime_ns for path in again["path"]] == before
    assert np.array_equal(read_image(drawn["path"][1]), draw_cell("ALL", subject="11", number=1, seed=0).image)
    both = realism.measure_both(drawn.assign(source="cnmc"), drawn)
    assert both["origin"].tolist() == ["genuine"] * 3 + [SYNTHETIC] * 3
    assert both.loc[:2, list(FEATURES)].equals(both.loc[3:, list(FEATURES)].reset_index(drop=True))


def test_at_most_so_many_cells_of_each_subject():
    index = _sample("genuine", 0)
    drawn = realism.sample_cells(index, 5)
    assert (drawn["subject"].value_counts() == 5).all()
    assert drawn.equals(realism.sample_cells(index, 5))


@pytest.mark.parametrize("data", ["", "synthetic"])
def test_without_genuine_cells_it_is_said_what_to_give(data):
    with pytest.raises(AllkitError, match="give the folder of C-NMC"):
        realism.load_genuine(data)


def test_a_drawn_folder_is_not_taken_for_genuine(twin):
    with pytest.raises(AllkitError, match="genuine"):
        realism.load_genuine(twin)
