"""A hospital of one's own: drawn from a name, asked in notebook 18, handed in, and graded by computing it again."""

import filecmp
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from commands import run_command

from allkit import AllkitError
from allkit.course import hospitals
from allkit.course.classroom import load_classroom, write_class
from allkit.course.grading import judge
from allkit.course.hand_in import hand_in_path, write_hand_in
from allkit.course.hospitals import compute_again, grade_all
from allkit.course.questions import EXERCISES
from allkit.data import load_index
from allkit.features import measure_cell
from allkit.images import read_image
from allkit.lessons import own_hospital
from allkit.splits import split_as_given
from allkit.synthetic import draw_cell, draw_hospital_numbers, load_truth, make_hospital, make_twin, open_hospital
from allkit.synthetic import hospital as synthetic_hospital
from allkit.synthetic.hospital import draw_hospital, hospital_folder, hospital_of, key_of, planted_in
from allkit.synthetic.shortcuts import SHORTCUTS

ADA = "Ada  Lovelace"


@pytest.fixture(autouse=True)
def own_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("ALLKIT_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def ada(tmp_path_factory):
    return make_hospital(ADA, tmp_path_factory.mktemp("hospitals") / "ada")


# ---- the name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["ada lovelace", " ADA LOVELACE\t", "Ada\u00a0Lovelace", "ａｄａ lovelace"])
def test_one_name_in_several_spellings_is_one_hospital(other):
    assert key_of(other) == key_of(ADA)


def test_composed_and_decomposed_letters_are_the_same_and_other_names_are_others():
    assert key_of("Zoe\u0301") == key_of("zo\u00e9")
    assert len({key_of(f"student {k}") for k in range(500)}) == 500


@pytest.mark.parametrize("name", ["", "  ", "...", "\u200b", "a" * 201])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(AllkitError, match=r"letter or digit|characters"):
        key_of(name)


def test_every_shortcut_and_both_classes_occur_and_costs_differ():
    told = [hospital_of(key_of(f"student {k}")) for k in range(60)]
    assert {planted_in(each.key) for each in told} == set(SHORTCUTS)
    assert len({(each.one_in, each.cost_missed) for each in told}) >= 50
    assert all(0.2 < each.cost_missed * each.prevalence / (1 - each.prevalence) < 3.5 for each in told)


# ---- the cells --------------------------------------------------------------------------------------------------


def test_the_hospital_is_read_as_synthetic_cells_in_two_wards_that_share_no_subject(ada):
    index = load_index(ada)
    assert set(index["source"]) == {"synthetic"}
    parts = split_as_given(index)
    assert not set(parts.train["subject"]) & set(parts.test["subject"])
    first, second = own_hospital.choose_wards(index)
    counts = own_hospital.count_wards(first, second)
    assert counts["subjects"].min() >= 7
    assert 180 <= counts["cells"].sum() <= 260
    assert (first["group"] == first["subject"]).all()


def test_no_name_is_written_down_and_nothing_that_is_hidden(ada):
    record = (ada / "twin.json").read_text(encoding="utf-8")
    assert set(json.loads(record)) == {"kind", "version", "rules", "key"}
    assert "ada" not in record.lower().replace(key_of(ADA), "")
    assert "lovelace" not in hospital_folder(ADA).name
    assert not any(word in path.name for path in ada.rglob("*") for word in SHORTCUTS)


def test_the_same_key_draws_the_same_bytes_and_a_folder_is_drawn_once(small, tmp_path):
    one, two = (draw_hospital(key_of("Grace"), tmp_path / name) for name in ("one", "two"))
    names = sorted(path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file())
    assert len(names) == 2 * (2 * 2 + 4 * 3) + 1
    assert filecmp.cmpfiles(one, two, names, shallow=False)[0] == names
    before = (one / names[0]).stat().st_mtime_ns
    draw_hospital(key_of("Grace"), one)
    assert (one / names[0]).stat().st_mtime_ns == before
    with pytest.raises(AllkitError, match="not empty"):
        draw_hospital(key_of("Katherine"), one)


@pytest.fixture
def small(monkeypatch):
    """Hospitals of few subjects and cells, which are quick to draw."""
    whole = synthetic_hospital._secrets
    monkeypatch.setattr(synthetic_hospital, "_secrets", lambda key: replace(whole(key), subjects=(2, 4), cells=(2, 3)))


def test_truth_is_known_of_every_cell_also_where_a_shortcut_was_planted(ada):
    first, second = own_hospital.choose_wards(load_index(ada))
    for path in (*first["path"].iloc[::11], second["path"].iloc[0]):
        truth = load_truth(path)
        assert np.array_equal(truth.image, read_image(path))
        assert (read_image(path).max(axis=2) > 10)[truth.outline].mean() > 0.9


@pytest.mark.parametrize(("word", "number", "sign"), [
    ("brightness", "mean_g", 1), ("colour", "mean_r", -1), ("focus", "texture", -1), ("size", "area", -1),
])  # fmt: skip
def test_a_shortcut_moves_the_number_that_the_notebook_names(word, number, sign):
    cells = [draw_cell(label, subject="7", number=k) for k in range(4) for label in ("ALL", "HEM")]
    before, after = (
        pd.DataFrame([measure_cell(each.image) for each in some])[number]
        for some in (cells, [SHORTCUTS[word](cell) for cell in cells])
    )
    assert (sign * (after - before) > 0).all()
    assert abs((after.mean() - before.mean()) / before.mean()) > 0.1


def test_a_mark_is_in_the_corner_and_no_number_tells_it():
    cell = draw_cell("ALL", subject="7")
    marked = SHORTCUTS["mark"](cell)
    assert marked.image[0, 0].max() > 100
    assert measure_cell(marked.image) == measure_cell(cell.image)


# ---- the notebook -----------------------------------------------------------------------------------------------


def test_open_hospital_refuses_another_name_and_takes_other_cells_as_such(ada, twin):
    hospital, index = open_hospital("ada LOVELACE", ada)
    assert (hospital.own, len(index)) == (True, len(load_index(ada)))
    with pytest.raises(AllkitError, match="another name"):
        open_hospital("Grace", ada)
    other, index = open_hospital("Grace", twin)
    assert (other.own, len(index)) == (False, len(load_index(twin)))
    assert "not this hospital's" in own_hospital.describe_needs(other, index)
    assert judge(EXERCISES["18.1"], "size", {"hospital": other}).state == "not posed"
    assert "nothing to hand in" in write_hand_in(other, {"18.1": "size"})


def test_data_without_wards_and_without_subjects_get_sentences(twin):
    index = load_index(twin).assign(subject=None)
    first, second = own_hospital.choose_wards(index)
    assert first.empty
    assert len(own_hospital.count_wards(first, second)) == 2
    numbers = pd.DataFrame(
        np.random.default_rng(0).random((len(second), 3)), second["path"] + "|", ["mean_r", "mean_b", "x"]
    )
    moved = own_hospital.compare_wards(first, second, numbers)
    assert "nothing can be compared" in own_hospital.describe_moved(moved)
    assert own_hospital.average_images(first, second.iloc[:4]).keys() <= {
        ("second ward", "ALL"),
        ("second ward", "HEM"),
    }
    aucs = own_hospital.measure_elsewhere(first, second, numbers)
    assert "one ward only" in own_hospital.describe_elsewhere(aucs)
    found = own_hospital.compare_splits(second, numbers, range(2))
    assert set(found["split_kind"]) == {"by image"}
    assert "unknown" in own_hospital.describe_leak(found)
    assert judge(EXERCISES["18.2"], 0.1, {"found": found}).state == "not posed"


def test_a_leak_is_measured_where_subjects_differ_and_not_where_they_do_not():
    found = own_hospital.compare_hospitals(
        {name: draw_hospital_numbers(name) for name in ("Ada", "Srinivasa")}, range(4)
    )
    assert (found["low"] < found["value"]).all()
    assert found.loc["Srinivasa", "value"] > found.loc["Ada", "value"] + 0.05  # they are other people
    assert "Srinivasa" in own_hospital.describe_hospitals(found)


def test_every_threshold_between_two_probabilities_is_right_and_a_neighbours_is_not():
    p = np.array([0.9, 0.8, 0.7, 0.4, 0.3, 0.1])
    table = pd.DataFrame({"label": ["ALL", "ALL", "HEM", "ALL", "HEM", "HEM"], "p_ALL": p, "p_HEM": 1 - p})
    dear = SimpleNamespace(prevalence=0.5, cost_missed=10)
    cheap = SimpleNamespace(prevalence=0.5, cost_missed=0.1)
    for hospital, right, wrong in ((dear, (0.4, 0.35, 0.31), (0.8, 0.5, 0.2)), (cheap, (0.8, 0.75), (0.4, 0.9))):
        given = {"predictions": table, "hospital": hospital}
        assert {judge(EXERCISES["18.3"], answer, given).state for answer in right} == {"right"}
        assert {judge(EXERCISES["18.3"], answer, given).state for answer in wrong} == {"wrong"}


# ---- handing in and grading -------------------------------------------------------------------------------------


def test_what_is_handed_in_holds_answers_and_a_key_but_no_name(ada):
    hospital, _ = open_hospital(ADA, ada)
    assert "Nothing is answered" in write_hand_in(hospital, {"18.1": ...})
    assert not hand_in_path().exists()
    said = write_hand_in(hospital, {"18.1": "Colour", "18.2": 0.0512, "18.3": ...})
    assert "Not answered yet: 18.3" in said
    assert json.loads(hand_in_path().read_text(encoding="utf-8")) == {
        "format": 1, "hospital": key_of(ADA), "answers": {"18.1": "Colour", "18.2": "0.0512"},
    }  # fmt: skip
    assert "no file was written" in write_hand_in(hospital, {"18.1": "x" * 99})


@pytest.fixture
def truths(monkeypatch):
    """Three hospitals whose answers are known, in place of half a minute of drawing for each."""

    def known(key):
        k = ["Ada", "Grace", "Katherine"].index(next(n for n in ("Ada", "Grace", "Katherine") if key_of(n) == key))
        found = pd.DataFrame({"split_kind": ["by image", "by subject"], "seed": 0, "auc": [0.9, 0.85 - 0.05 * k]})
        p = np.linspace(0.95, 0.05, 10) - 0.02 * k
        predictions = pd.DataFrame({"label": ["ALL"] * 5 + ["HEM"] * 5, "p_ALL": p, "p_HEM": 1 - p})
        return {"found": found, "predictions": predictions, "hospital": hospital_of(key)}

    monkeypatch.setattr(hospitals, "compute_again", known)
    return known


def _answers(truth):
    found, p = truth["found"]["auc"], truth["predictions"]["p_ALL"]
    return {"18.1": planted_in(truth["hospital"].key), "18.2": f"{found[0] - found[1]:.3f}", "18.3": f"{p[4]:.3f}"}


def _hand_in(path, name, answers):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": 1, "hospital": key_of(name), "answers": answers}), encoding="utf-8")


def test_the_class_is_graded_by_computing_again_and_copies_are_told(tmp_path, truths, monkeypatch, capsys):
    folder = tmp_path / "in"
    own = {name: _answers(truths(key_of(name))) for name in ("Ada", "Grace", "Katherine")}
    _hand_in(folder / "ada" / "hospital.json", "Ada", own["Ada"])
    _hand_in(folder / "Grace" / "hospital.json", "Grace", own["Ada"])  # copied
    _hand_in(folder / "Katherine" / "hospital.json", "Katherine", {"18.2": own["Katherine"]["18.2"], "18.3": "0.001"})
    _hand_in(folder / "Mallory" / "hospital.json", "Ada", own["Ada"])  # the same file
    entry = {"tries": 1, "first_try": True, "begun": None, "done": "2026-10-01T09:00:00+00:00"}
    progress = json.dumps({"format": 1, "exercises": {"18.2": entry}})
    (folder / "ada" / "progress.json").write_text(progress, encoding="utf-8")
    code, out, _ = run_command(monkeypatch, capsys, "class", "collect", folder, "--out", tmp_path)
    assert (code, "Hospitals graded: 4" in out) == (0, True)
    table = pd.read_csv(tmp_path / "hospitals.csv").fillna("").set_index("student")
    assert table.loc["ada", ["18.1", "18.2", "18.3"]].tolist() == ["right"] * 3
    assert table.loc["Grace", ["18.2", "18.3"]].tolist() == ["wrong"] * 2
    assert "Both numbers are those of the hospital of Mallory, ada." in table.loc["Grace", "remark"]
    assert table.loc["Katherine", ["18.1", "18.2", "18.3"]].tolist() == ["no answer", "right", "wrong"]
    assert table.loc["Katherine", "remark"] == ""
    assert "The same hospital as ada" in table.loc["Mallory", "remark"]
    assert "another name" in table.loc["Mallory", "remark"]
    page = (tmp_path / "class.html").read_text(encoding="utf-8")
    assert "Hospitals of one" in page
    assert "The same hospital as Mallory" in page
    code, *_ = run_command(
        monkeypatch, capsys, "class", "collect", folder, "--out", tmp_path
    )  # its own files are no hand-ins
    assert code == 0


@pytest.mark.parametrize(("content", "reason"), [
    ({"format": 1, "hospital": "xyz", "answers": {}}, "not as allkit writes"),
    ({"format": 1, "hospital": "0" * 16, "answers": {"18.1": "a" * 81}}, "not as allkit writes"),
    ({"format": 1, "hospital": "0" * 16, "answers": [1]}, "not as allkit writes"),
    ({"format": 9, "hospital": "0" * 16, "answers": {}}, "another version"),
])  # fmt: skip
def test_a_damaged_hand_in_is_named_and_left_out(tmp_path, content, reason):
    entry = {"tries": 1, "first_try": True, "begun": None, "done": None}
    (tmp_path / "a.json").write_text(json.dumps({"format": 1, "exercises": {"01.1": entry}}), encoding="utf-8")
    (tmp_path / "b-hospital.json").write_text(json.dumps(content), encoding="utf-8")
    room = load_classroom(tmp_path)
    assert room.hospitals == {}
    assert reason in room.notes[0]


def test_answers_and_names_of_strangers_are_text_and_not_markup(tmp_path, truths):
    folder = tmp_path / "in"
    _hand_in(folder / "<b>x" / "hospital.json", "Ada", {"18.2": "=1+1", "18.1": "<script>", "18.9": "z"})
    entry = {"tries": 1, "first_try": True, "begun": None, "done": None}
    (folder / "a.json").write_text(json.dumps({"format": 1, "exercises": {"01.1": entry}}), encoding="utf-8")
    room = load_classroom(folder)
    room.graded = grade_all(room.hospitals)
    _, page = write_class(room, tmp_path)
    assert room.graded[["18.1", "18.2", "18.3"]].to_numpy().tolist() == [["wrong", "wrong", "no answer"]]
    assert "<b>x" not in page.read_text(encoding="utf-8")


def test_grading_computes_what_the_notebook_computes(small, monkeypatch, tmp_path):
    monkeypatch.setenv("ALLKIT_CACHE", str(tmp_path / "cache"))
    again = compute_again(key_of(ADA))
    second = own_hospital.choose_wards(load_index(make_hospital(ADA, tmp_path / "ada")))[1]
    numbers = pd.DataFrame([measure_cell(read_image(path)) for path in second["path"]], second["path"] + "|")
    pd.testing.assert_frame_equal(again["found"], own_hospital.compare_splits(second, numbers))
    predictions = own_hospital.predict_unseen(second, numbers)
    np.testing.assert_allclose(again["predictions"]["p_ALL"], predictions["p_ALL"])
    monkeypatch.setattr(hospitals, "_compute", None)  # the second time it is in the cache
    pd.testing.assert_frame_equal(compute_again(key_of(ADA))["found"], again["found"])


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_command_draws_a_hospital_and_refuses_what_the_name_decides(small, monkeypatch, capsys, tmp_path):
    code, out, _ = run_command(monkeypatch, capsys, "data", "make", tmp_path / "mine", "--for", "Grace")
    assert (code, "Synthetic hospital" in out) == (0, True)
    assert (tmp_path / "mine" / "twin.json").is_file()
    code, _, err = run_command(monkeypatch, capsys, "data", "make", tmp_path / "x", "--for", "Grace", "--seed", "3")
    assert (code, "leave out seed" in err) == (2, True)
    assert "letter or digit" in run_command(monkeypatch, capsys, "data", "make", tmp_path / "y", "--for", " ")[2]
    code, _, err = run_command(monkeypatch, capsys, "data", "make")
    assert (code, "--for NAME" in err) == (2, True)


def test_a_twin_is_no_hospital(tmp_path):
    made = make_twin(tmp_path / "twin", images=40)
    with pytest.raises(AllkitError, match="not empty"):
        make_hospital("Ada", made)
