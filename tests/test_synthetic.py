"""The synthetic twin: C-NMC's layout, calibrated cells, known truth."""

import csv
import filecmp
import hashlib
import json
import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from allkit import AllkitError
from allkit.data import load_index, load_manifest
from allkit.evaluate import evaluate_predictions
from allkit.features import FEATURES, measure_cell
from allkit.synthetic.cells import CUES, any_cell_traits, count_subjects, draw_any_cell, draw_cell, draw_numbers
from allkit.synthetic.dataset import TwinPlan, ensure_twin, ideal_observer, load_truth, make_twin, plan_twin

NAME = re.compile(r"UID_([Hh]?\d+)_(\d+)_(\d+)_(all|hem)\.(png|bmp)")
MEANS = {  # measured on genuine cells: ALL, HEM, and the wider of both spreads
    "area": (37_939, 30_910, 8_873),
    "bbox_side": (239, 217, 46),
    "eccentricity": (0.51, 0.52, 0.15),
    "solidity": (0.970, 0.966, 0.039),
    "centroid_distance": (2.7, 2.9, 3.1),
    "mean_r": (70.3, 70.2, 8.4),
    "mean_g": (30.5, 30.5, 5.2),
    "mean_b": (80.7, 79.8, 7.3),
    "std_r": (12.0, 11.9, 2.2),
    "std_g": (9.0, 9.0, 2.5),
    "std_b": (10.2, 11.0, 2.0),
    "texture": (3.0, 3.0, 0.65),
    "corr_4": (0.89, 0.88, 0.05),
    "corr_12": (0.59, 0.56, 0.13),
    "background_share": (0.81, 0.85, 0.04),
}


def _training(root: Path) -> list[Path]:
    return sorted(root.glob("training_data/fold_*/*/UID_*"))


def _subject(path: Path) -> str:
    return NAME.fullmatch(path.name)[1].upper()


@pytest.fixture(scope="module")
def plan() -> TwinPlan:
    return plan_twin(300, 0, "png")


@pytest.fixture(scope="module")
def training(plan) -> list[str]:
    return [path for path in plan.files if path.startswith("training")]


@pytest.fixture(scope="module")
def measured(plan, training) -> pd.DataFrame:
    """Numbers of half of the cells of that twin, none drawn twice."""

    def measure(file) -> dict:
        cell = draw_cell(file.label, subject=file.subject, number=file.number)
        return {**measure_cell(cell.image), "label": file.label}

    files = [plan.files[path] for path in training if path not in plan.copies]
    with ThreadPoolExecutor(2) as pool:
        return pd.DataFrame(pool.map(measure, [file for k, file in enumerate(files) if k % 2]))


def test_the_ideal_observer_is_a_ceiling_that_difficulty_lowers(tmp_path):
    auc = {}
    for difficulty in (1.0, 4.0):
        index = load_index(make_twin(tmp_path / f"{difficulty}", images=200, seed=5, difficulty=difficulty))
        table = ideal_observer(index[index["label"].notna()])
        assert np.allclose(table["p_ALL"] + table["p_HEM"], 1)
        auc[difficulty] = evaluate_predictions(table)["auc"]
    assert auc[1.0] > 0.95
    assert 0.7 < auc[4.0] < auc[1.0] - 0.02, "the area is left"


def test_cells_of_no_class_are_wider_than_the_twin_and_named_by_their_numbers():
    numbers = pd.DataFrame([any_cell_traits(k, seed=1) for k in range(400)])
    assert numbers.mean().abs().max() < 0.2
    assert numbers.std().between(0.85, 1.15).all()
    cells = [draw_any_cell(k, seed=1) for k in range(3)]
    assert not {cell.label for cell in cells} & {"ALL", "HEM"}
    areas = [cell.outline.sum() for cell in cells]
    assert np.argsort(areas).tolist() == np.argsort(numbers["size"][:3]).tolist()
    np.testing.assert_array_equal(draw_any_cell(1, seed=1).image, cells[1].image)


def test_every_subject_appears_in_its_own_fold_and_class(training):
    folds = defaultdict(set)
    for path in training:
        _, fold, label, name = path.split("/")
        subject = _subject(Path(name))
        assert subject.startswith("H") == (label == "hem")
        assert name.endswith(f"_{label}.png")
        folds[fold, label].add(subject)
    counts = {key: len(subjects) for key, subjects in folds.items()}
    assert counts == {
        ("fold_0", "all"): 19, ("fold_0", "hem"): 9, ("fold_1", "all"): 11,
        ("fold_1", "hem"): 3, ("fold_2", "all"): 17, ("fold_2", "hem"): 14,
    }  # fmt: skip
    assert len(set().union(*folds.values())) == 47 + 26
    assert sum(path.split("/")[2] == "all" for path in training) == pytest.approx(300 * 7272 / 10661, abs=2)


def test_what_is_counted_once_for_all_cannot_be_changed():
    for kept in (count_subjects(), *count_subjects().values(), plan_twin(60, 0, "png").files):
        with pytest.raises(TypeError):
            kept["one more"] = 1


def test_a_twin_of_full_size_has_the_subjects_and_the_duplicates_of_the_list_of_files():
    full, listed = plan_twin(10_661, 0, "png"), load_manifest().dropna(subset="subject")
    drawn = [file for path, file in full.files.items() if not path.startswith("testing")]
    assert Counter(file.subject for file in drawn) == Counter(listed["subject"])
    twice = listed[listed["part"] == "train"].groupby("sha256")["subject"].agg(set)
    copied = Counter(frozenset({full.files[a].subject, full.files[b].subject}) for a, b in full.copies.items())
    assert copied == Counter(frozenset(subjects) for subjects in twice if len(subjects) > 1)


def test_preliminary_subjects_are_others(plan, training):
    rows = list(csv.DictReader(plan.labels.splitlines()))
    assert list(rows[0]) == ["Patient_ID", "new_names", "labels"]
    subjects = {_subject(Path(row["Patient_ID"])) for row in rows}
    assert {s.startswith("H") for s in subjects} == {True, False}
    assert sum(s.startswith("H") for s in subjects) == 15
    assert len(subjects) == 13 + 15
    assert not subjects & {_subject(Path(path)) for path in training}
    assert len(rows) == pytest.approx(300 * 1867 / 10661, abs=1)
    for row in rows:
        assert row["labels"] == str(int("all" in row["Patient_ID"]))


def test_the_twin_on_disk_follows_the_grammar(twin):
    files = _training(twin)
    assert len(files) == 60
    for path in files:
        match = NAME.fullmatch(path.name)
        assert match, path.name
        assert match[4] == path.parent.name
        with Image.open(path) as image:
            assert image.size == (450, 450)
            assert image.mode == "RGB"
    assert {p.name[4:6] for p in files if _subject(p) == "H3"} == {"h3"}
    preliminary = list((twin / "validation_data/C-NMC_test_prelim_phase_data").iterdir())
    table = (twin / "validation_data/C-NMC_test_prelim_phase_data_labels.csv").read_text()
    assert {p.name for p in preliminary} == {row["new_names"] for row in csv.DictReader(table.splitlines())}
    final = list((twin / "testing_data/C-NMC_test_final_phase_data").iterdir())
    assert final
    assert all(Image.open(path).size == (600, 600) for path in final)
    assert json.loads((twin / "twin.json").read_text())["images"] == 60


def test_duplicates_link_subjects_and_folds_but_never_classes(twin):
    by_content = defaultdict(list)
    for path in _training(twin):
        by_content[hashlib.sha256(path.read_bytes()).hexdigest()].append(path)
    copies = [paths for paths in by_content.values() if len(paths) > 1]
    assert 2 <= len(copies) <= 10
    assert any(len({p.parent.parent.name for p in paths}) > 1 for paths in copies)
    linked = [{_subject(p) for p in paths} for paths in copies]
    assert {"20", "21"} in linked
    for paths in copies:
        assert len({p.parent.name for p in paths}) == 1
        assert len({_subject(p) for p in paths}) == len(paths)


def test_the_index_recognises_the_twin(twin):
    index = load_index(twin)
    assert set(index["source"]) == {"synthetic"}
    assert set(index["part"]) == {"train", "prelim", "final"}
    assert (index.loc[index["subject"] == "H3", "name"].str.startswith("UID_h3")).all()
    group = index.drop_duplicates("subject").set_index("subject")["group"]
    assert group["20"] == group["21"]
    assert group["51"] == group["75"] == group["78"]


def test_same_seed_same_files_other_seed_other_cells(twin, tmp_path):
    again = make_twin(tmp_path / "again", images=60, seed=0)
    names = sorted(p.relative_to(twin) for p in twin.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert filecmp.cmpfiles(twin, again, names, shallow=False)[0] == names
    one, other = (draw_cell("ALL", subject="11", seed=seed).image for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_bmp_holds_the_same_pixels(twin, tmp_path):
    other = make_twin(tmp_path / "bmp", images=60, format="bmp")
    name = _training(twin)[7].relative_to(twin)
    with Image.open(twin / name) as png, Image.open(other / name.with_suffix(".bmp")) as bmp:
        assert bmp.format == "BMP"
        assert np.array_equal(np.asarray(png), np.asarray(bmp))
    assert ".bmp" in (other / "validation_data/C-NMC_test_prelim_phase_data_labels.csv").read_text()


def test_a_twin_is_made_once_and_nothing_else_is_overwritten(tmp_path, twin):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep me")
    with pytest.raises(AllkitError, match="not empty"):
        make_twin(mine, images=60)
    assert (mine / "notes.txt").read_text() == "keep me"
    stamp = (twin / "twin.json").stat().st_mtime_ns
    assert make_twin(twin, images=60) == twin
    assert ensure_twin(twin) == twin
    assert (twin / "twin.json").stat().st_mtime_ns == stamp
    with pytest.raises(AllkitError, match="not empty"):
        make_twin(twin, images=61)


@pytest.fixture
def outdated(tmp_path, monkeypatch) -> Path:
    """An embedded twin that other rules have drawn, and notes that somebody keeps in its folder."""
    monkeypatch.setattr(make_twin, "__kwdefaults__", make_twin.__kwdefaults__ | {"images": 40})
    folder = ensure_twin(tmp_path / "embedded")
    record = json.loads((folder / "twin.json").read_text())
    (folder / "twin.json").write_text(json.dumps(record | {"version": 1}))
    (folder / "notes.txt").write_text("keep me")
    return folder


def test_an_outdated_embedded_twin_is_drawn_anew_and_nothing_is_deleted(outdated):
    with pytest.raises(AllkitError, match="version"):
        load_truth(_training(outdated)[0])
    before = sorted(path.name for path in outdated.rglob("*"))
    with pytest.warns(UserWarning, match="remove it if you do not need it"):
        ensure_twin(outdated)
    aside = outdated.with_name("embedded-version-1")
    assert sorted(path.name for path in aside.rglob("*")) == before
    assert (aside / "notes.txt").read_text() == "keep me"
    assert load_truth(_training(outdated)[0])
    assert not (outdated / "notes.txt").exists()


def test_a_second_outdated_twin_does_not_take_the_place_of_the_first(outdated):
    other = outdated.with_name("embedded-version-1")
    other.mkdir()
    with pytest.warns(UserWarning, match="embedded-version-1-2"):
        ensure_twin(outdated)
    assert not list(other.iterdir())
    assert (outdated.with_name("embedded-version-1-2") / "notes.txt").is_file()


def test_what_lies_beside_a_twin_is_left_alone(tmp_path):
    precious = tmp_path / ".config-backup" / "precious"
    precious.parent.mkdir()
    precious.write_text("mine")
    left = tmp_path / ".config.allkit-drawing-1"
    left.mkdir()
    make_twin(tmp_path / "config", images=40)
    assert precious.read_text() == "mine"
    assert not left.exists()


def test_an_interrupted_twin_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(AllkitError, match="the disk is full"):
        make_twin(tmp_path / "twin", images=60)
    assert [path.name for path in tmp_path.iterdir()] == [".twin.lock"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 5}, "at least"),
        ({"format": "jpg"}, "png, bmp"),
        ({"subject_effect": -1}, "subject_effect"),
        ({"difficulty": 0}, "difficulty"),
        ({"difficulty": float("nan")}, "difficulty"),
    ],
)
def test_parameters_out_of_range_are_refused(tmp_path, wrong, message):
    with pytest.raises(AllkitError, match=message):
        make_twin(tmp_path / "twin", **wrong)
    assert not (tmp_path / "twin").exists()


def test_an_unknown_class_is_refused():
    with pytest.raises(AllkitError, match="ALL or HEM"):
        draw_cell("AML")


def test_truth_of_a_file_is_the_cell_in_it(twin):
    for part in ("training_data/fold_2/hem", "validation_data", "testing_data"):
        path = next(p for p in sorted((twin / part).rglob("*.png")))
        cell, image = load_truth(path), np.asarray(Image.open(path))
        assert np.array_equal(cell.image, image)
        assert np.array_equal(cell.outline, image.max(axis=2) > 0)
        assert cell.nucleus.shape == cell.outline.shape == image.shape[:2]
        assert not (cell.nucleus & ~cell.outline).any()
        assert cell.cues["area"] == cell.outline.sum()
        assert cell.cues["nucleus_share"] == pytest.approx(cell.nucleus.sum() / cell.outline.sum())


def test_truth_of_a_duplicate_is_that_of_its_original(twin):
    copy, source = next(iter(plan_twin(60, 0, "png").copies.items()))
    assert np.array_equal(load_truth(twin / copy).image, np.asarray(Image.open(twin / copy)))
    assert load_truth(twin / copy).subject == load_truth(twin / source).subject


def test_truth_is_known_for_synthetic_cells_only(tmp_path, twin):
    stranger = tmp_path / "UID_11_1_1_all.png"
    Image.new("RGB", (450, 450)).save(stranger)
    with pytest.raises(AllkitError, match="synthetic"):
        load_truth(stranger)
    with pytest.raises(AllkitError, match="no image"):
        load_truth(twin / "training_data" / "fold_0" / "all" / "UID_11_99_9_all.png")


def test_every_cell_is_one_part_on_black_and_fits():
    for number in range(25):
        cell = draw_cell("ALL" if number % 2 else "HEM", subject="any", number=number)
        assert cell.image.shape == (450, 450, 3)
        assert cell.image.dtype == np.uint8
        assert ndimage.label(cell.outline)[1] == 1
        assert not cell.image[~cell.outline].any()
        rows, columns = np.nonzero(cell.outline)
        assert min(rows.min(), columns.min()) > 0
        assert max(rows.max(), columns.max()) < 449


@pytest.mark.parametrize("name", FEATURES)
def test_class_means_lie_within_the_spread_of_genuine_cells(measured, name):
    *expected, spread = MEANS[name]
    for label, value in zip(("ALL", "HEM"), expected, strict=True):
        mean = measured.loc[measured["label"] == label, name].mean()
        assert abs(mean - value) < 0.8 * spread, f"{label}: {mean:.4g}"


def test_size_separates_the_classes_as_in_genuine_cells_and_nothing_else_does(measured):
    positive = measured["label"] == "ALL"
    assert 0.68 < roc_auc_score(positive, measured["area"]) < 0.87
    for name in set(FEATURES) - {"area", "bbox_side", "background_share"}:
        auc = roc_auc_score(positive, measured[name])
        assert max(auc, 1 - auc) < 0.75, f"{name}: {auc:.2f}"


def test_one_brightness_moves_all_channels(measured):
    correlation = measured[["mean_r", "mean_g", "mean_b"]].corr().to_numpy()
    assert correlation.min() > 0.8


def test_cues_beyond_size_tell_the_classes_apart_less_so_the_harder():
    aucs = {}
    for difficulty in (0.5, 1.0, 4.0):
        table = draw_numbers(300, 1, difficulty=difficulty).sample(frac=1, random_state=0)
        values, positive = StandardScaler().fit_transform(table[list(CUES)]), table["label"] == "ALL"
        fitted = LogisticRegression().fit(values[:300], positive[:300])
        aucs[difficulty] = roc_auc_score(positive[300:], fitted.decision_function(values[300:]))
    assert aucs[0.5] > aucs[1.0] > aucs[4.0]
    assert 0.88 < aucs[1.0] < 0.99
    assert aucs[4.0] < 0.8


def test_a_cell_shows_the_cues_that_it_names():
    """A cell with more of a cue looks like it: here the nucleus, measured from its own mask."""
    few, many = (draw_cell("HEM" if k else "ALL", subject="any", number=k, difficulty=0.2) for k in (1, 0))
    assert many.cues["nucleus_share"] > few.cues["nucleus_share"] + 0.1
    assert few.cues["clumping"] > 0.9 > 0.1 > many.cues["clumping"]
    # the nucleus is darker than the cytoplasm around it
    for cell in (few, many):
        grey = cell.image.mean(axis=2)
        assert grey[cell.nucleus].mean() < grey[cell.outline & ~cell.nucleus].mean()


def _between_share(subject_effect: float, trait: str) -> float:
    """Share of a trait's variance that lies between 40 subjects with 30 cells each (0: chance alone)."""
    table = draw_numbers(40, 30, subject_effect=subject_effect)
    values = table[table["label"] == "ALL"].groupby("subject")[trait]
    within = values.var().mean()
    between = values.mean().var() - within / 30
    return between / (between + within)


@pytest.mark.parametrize("trait", ["brightness", "hue", "size", "grain"])
def test_subject_effect_goes_from_none_to_much(trait):
    none, genuine, strong = (_between_share(effect, trait) for effect in (0, 1, 3))
    assert abs(none) < 0.03
    assert none + 0.05 < genuine < strong


def test_without_subject_effect_a_subject_is_like_any_other():
    """Same cell, other subject: at 0 only chance differs."""

    def brightness(subject: str, effect: float) -> float:
        cells = [draw_cell("ALL", subject=subject, number=k, subject_effect=effect) for k in range(8)]
        return float(np.mean([cell.cues["brightness"] for cell in cells]))

    names = [f"S{k}" for k in range(8)]
    spread = {effect: np.std([brightness(name, effect) for name in names]) for effect in (0, 4)}
    assert spread[0] < 0.6 < spread[4]
