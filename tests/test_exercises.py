"""The exercises: solutions pass, blanks are blanks, wrong answers get the hint that fits; progress is kept."""

import inspect
import json
import math
import re
import runpy
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from commands import run_command

from allkit import ROOT
from allkit.course import buttons, exercises
from allkit.course.exercises import answers_path, check, load_progress, progress_path, solution, summarise_progress
from allkit.course.grading import LEVELS, Between, Exercise, OneOf, judge
from allkit.course.questions import EXERCISES
from allkit.data import load_index
from allkit.lessons import paper, referee
from allkit.lessons.audit import audit_replays
from allkit.plots import PALETTE
from allkit.synthetic.hospital import hospital_of, key_of, planted_in

SOLUTIONS = {path.stem[:2]: path for path in sorted((ROOT / "notebooks" / "solutions").glob("[0-9][0-9]_*.py"))}
NOTEBOOKS = {path.stem[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}


@pytest.fixture(autouse=True)
def own_runs(monkeypatch, tmp_path):
    """Keep the progress of the tests out of the user's."""
    monkeypatch.setenv("ALLKIT_RUNS", str(tmp_path / "runs"))


def _predictions(seed, images=80, shift=1.0, classes=("ALL", "HEM")):
    rng = np.random.default_rng(seed)
    label = np.where(np.arange(images) < 0.7 * images, classes[0], classes[1])
    score = 1 / (1 + np.exp(-rng.normal(np.where(label == classes[0], 0.5 + shift, -shift), 1.5)))
    table = pd.DataFrame({"path": [f"{k}.png" for k in range(images)], "label": label, "subject": "1"})
    return table.assign(**{f"p_{classes[0]}": score, f"p_{classes[1]}": 1 - score})


def _measured():
    rng, first = np.random.default_rng(3), np.arange(60) < 30
    numbers = {
        "area": rng.normal(first * 1.0, 1),  # the larger, the more it is ALL
        "perimeter": rng.normal(first * 30.0, 100),  # means far apart, and yet poor
        "texture": rng.normal(first * -3.0, 1),  # the best, the other way round
    }
    return pd.DataFrame({"label": np.where(first, "ALL", "HEM"), **numbers})


def _stages(factor=1):
    rows = [("stem", 3, 900, 9000), ("block 1", 6, 2000, 70000), ("block 2", 7, 90000, 60000), ("head", 5, 8000, 900)]
    table = pd.DataFrame(rows, columns=["stage", "layers", "parameters", "multiply_adds"]).assign(output="")
    return table.assign(parameters=table["parameters"] * factor, multiply_adds=table["multiply_adds"] * 3 * factor)


def _found():
    kinds = {"augment, then split": (0.90, 0.86, 0.3), "by image": (0.75, 0.83, 0),
             "by subject, as named": (0.74, 0.82, 0), "by subject, duplicates merged": (0.65, 0.77, 0)}  # fmt: skip
    rows = []
    for kind, (remembers, weighs, file) in kinds.items():
        for seed in range(3):
            facts = {"split_kind": kind, "seed": seed, "file": file}
            for baseline, auc in (("nearest neighbours", remembers), ("logistic regression", weighs)):
                rows.append({**facts, "baseline": baseline, "auc": auc + 0.01 * seed})
    return pd.DataFrame(rows)


def _scores():
    values = {"MobileNet, Grad-CAM": (0.6, 0.4), "random map": (0.2, 0.3), "centre blob": (0.95, 0.7)}
    rows = [
        {"mask": mask, "method": method, "pointing": pointing * size, "overlap": overlap * size}
        for mask, size in (("cell", 1), ("nucleus", 0.8))
        for method, (pointing, overlap) in values.items()
    ]
    return pd.DataFrame(rows)


def _kept():
    rows = [("cells", "pre-trained", n, n // 5, 0.7 + n / 4000) for n in (48, 480, 960)]
    rows += [("subjects", "pre-trained", 240, n, 0.8 + n / 2000) for n in (4, 24, 240)]
    rows += [("subjects", "area alone", 240, n, 0.7 + n / 9000) for n in (4, 24, 240)]
    return pd.DataFrame(rows, columns=["curve", "technique", "cells", "subjects", "auc"])


def _strong():
    measured = {
        "nearest neighbours": (0.03, 0.06, 0.08, 0.09, 0.12),
        "logistic regression": (0.0, 0.02, 0.06, 0.01, 0.0),
    }
    rows = [(name, value, value + 0.01) for name, values in measured.items() for value in values]
    return pd.DataFrame(rows, columns=["baseline", "measured", "true"])


def _tiny():
    counts = (0, 608, 0, 1168, 0, 4640, 0, 66)
    layers = [SimpleNamespace(count_params=lambda count=count: count) for count in counts]
    return SimpleNamespace(layers=layers, count_params=lambda: sum(counts), get_weights=lambda: [0] * 8)


def _simulated():
    rows = [
        (5, "subjects", 0.85, 0.2),
        (5, "cells", 0.70, 0.4),
        (10, "subjects", 0.91, 0.23),
        (10, "cells", 0.72, 0.43),
    ]
    return pd.DataFrame(rows, columns=["subjects", "resampled", "covers", "sees"])


def _curves():
    ends = {0: (0.26, 0.0), 1: (0.28, 0.08), 2: (0.29, 0.2)}
    return {f"subject effect {effect}": pd.DataFrame({"cells": [1, 50], "error": e}) for effect, e in ends.items()}


def _people():
    return pd.DataFrame({"positive": [True] * 4 + [False] * 5, "share": [1, 0.6, 0.2, 0.0, 0, 0, 0, 0.3, 0.1]})


def _of_a_hospital():
    """What notebook 18 finds where a lens was out of focus: drawn by hand, for the first such name."""
    name = next(f"student {k}" for k in range(99) if planted_in(key_of(f"student {k}")) == "focus")
    kinds, seeds = ("by image", "by subject"), range(20)
    rows = [(kind, seed, 0.8 - 0.06 * k - 0.004 * seed * k) for seed in seeds for k, kind in enumerate(kinds)]
    moved = pd.DataFrame({"ALL": 0.4, "HEM": -0.1}, ["area", "bbox_side", "mean_r", "mean_g", "mean_b", "red / blue"])
    return {
        "found": pd.DataFrame(rows, columns=["split_kind", "seed", "auc"]),
        "predictions": _predictions(1),
        "hospital": hospital_of(key_of(name)),
        "means": {("first ward", label): np.zeros((450, 450, 3), np.uint8) for label in ("ALL", "HEM")},
        "moved": pd.concat([moved, pd.DataFrame({"ALL": [-2.0, 1.5], "HEM": 0.0}, ["texture", "corr_4"])]),
    }


def _of_subjects():
    subject = np.arange(80) // 5  # the first eleven have the one class, one of them both
    table = _predictions(3, shift=0.4).assign(subject=[f"S{k}" for k in subject])
    return table.assign(group=table["subject"])


def tossed(index):
    rows = index[(index["part"] == "train") & index["label"].notna()]
    return rows.assign(given=np.where(np.random.default_rng(0).random(len(rows)) < 0.5, "test", "train"))


def _hospitals():
    places = pd.MultiIndex.from_product(
        [["home", "focus", "prevalence", "stain"], ["log_loss", "predicted - observed"]], names=["hospital", "measure"]
    )
    return pd.DataFrame({"value": [0.3, 0.01, 0.8, -0.25, 0.5, 0.2, 0.9, 0.05]}, places)


def _rings(rings):
    places = pd.Index(["home", "light"], name="hospital")
    return pd.DataFrame({"rings": [rings, 200], "draws": 200, "value": [rings / 200, 1.0]}, places)


def _answers_everywhere():
    """Three turns of thirty people with five cells each, of whom some are hard alike."""
    tables = []
    for turn in range(3):
        table = _predictions(turn, images=300).sample(frac=1, random_state=turn, ignore_index=True)
        place = np.arange(300)
        table["group"] = table["subject"] = [
            f"{label}-{k // 10}" for label, k in zip(table["label"], place, strict=True)
        ]
        role = np.where(place < 150, "test", "calibration")
        tables.append(table.assign(turn=turn, hospital="home", role=role))
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def objects(twin):
    """What the notebooks hand to `check`, by notebook; small tables stand in for what takes training."""
    index = load_index(twin)
    both = {"MobileNet": _predictions(1), "EfficientNetB3": _predictions(2)}
    test, train = _predictions(1), _predictions(1, images=30).iloc[:25]
    matrix = paper.reconstruct_confusion(paper.load_report("mobilenet"))[0]
    told = pd.DataFrame({"value": [0.1, 0.0, -0.1, 0.2], "verdict": ["MobileNet", *["inconclusive"] * 3]})
    ways = pd.Index(["mark as in training", "no mark", "mark on the others"])
    reached = pd.DataFrame({"trained with the mark": [0.87, 0.53, 0.2], "trained without": [0.61, 0.6, 0.58]}, ways)
    effect = {"measured": [0.0, 0.012, 0.07], "error": [0.003, 0.004, 0.005], "true": [0.0, 0.008, 0.05]}
    rejected = pd.Series({"test images": 0.08, "out of focus": 0.6, "two cells": 1.0, "text": 1.0}, name="rejected")
    return {
        "00": {"index": index},
        "01": {"train": index[(index["part"] == "train") & index["label"].notna()], "measured": _measured()},
        "02": {"index": index, "seed": 1},
        "03": {"tiny": _tiny(), "labels": np.zeros(361)},
        "04": {"stages": _stages(), "predictions": test, "kept": _kept()},
        "05": {"stages": _stages(7).assign(multiply_adds=1000), "small": _stages()},
        "06": {"difference": told, "parts": SimpleNamespace(train=train, test=test), "predictions": both},
        "07": {"rejections": rejected.to_frame(), "predictions": test},
        "08": {"audit": paper.audit_paper(), "best": matrix},
        "09": {"found": _found(), "strong": _strong(),
               "gap": pd.DataFrame(effect, pd.Index([0.0, 1.0, 2.0], name="subject_effect"))},
        "10": {"simulated": _simulated(), "predictions": both,
               "validation": {title: _predictions(seed) for seed, title in enumerate(both, 5)}},
        "11": {"scores": _scores(), "reached": reached, "target": "HEM",
               "parts": SimpleNamespace(train=index[index["label"].notna()])},
        "12": {},
        "13": {"curves": _curves(), "people": _people()},
        "15": {"shipped": referee.referee_shipped()},
        "18": _of_a_hospital(),
        "17": {"studies": pd.DataFrame({"holds": [0.9, 0.6], "width": [0.25, 0.1]}, ["subjects", "images"]),
               "loaded": SimpleNamespace(rows=_of_subjects())},
        "16": {"replays": audit_replays(), "table": tossed(index)},
        "14": {"table": _hospitals(), "answers": _answers_everywhere(),
               "alarms": {"by subject": _rings(9), "by cell": _rings(150)}},
    }  # fmt: skip


def _solutions(number, what):
    """Return the function exercise_NN_M or wrong_NN_M of the notebook's file of solutions."""
    notebook, place = number.split(".")
    return runpy.run_path(str(SOLUTIONS[notebook]))[f"{what}_{notebook}_{place}"]


def _with(function, objects):
    return function(**{name: objects[name] for name in inspect.signature(function).parameters})


@pytest.mark.parametrize("number", EXERCISES)
def test_solution_is_right_and_blank_is_not_answered(number, objects):
    given = objects[EXERCISES[number].notebook]
    answer = _with(_solutions(number, "exercise"), given)
    verdict = judge(EXERCISES[number], answer, given)
    assert verdict.state == "right", verdict
    assert check(number, answer, **given) == verdict
    for blank in (..., None, ""):
        assert check(number, blank, **given).state == "blank"
    assert "Not answered yet" in str(check(number, **given))


@pytest.mark.parametrize("number", EXERCISES)
def test_plausible_mistakes_get_the_hint_that_fits(number, objects):
    exercise, given = EXERCISES[number], objects[EXERCISES[number].notebook]
    wrong = _with(_solutions(number, "wrong"), given)
    assert len(wrong) == 2
    for answer, words in wrong:
        verdict = judge(exercise, answer, given)
        assert (verdict.state, verdict.text.count(words)) == ("wrong", 1), verdict
        assert verdict.text.removeprefix("Not yet. ") in [hint for _, hint in exercise.mistakes]


@pytest.mark.parametrize("number", EXERCISES)
def test_any_other_wrong_answer_gets_the_general_hint_and_never_the_truth(number, objects):
    exercise, given = EXERCISES[number], objects[EXERCISES[number].notebook]
    other = {"choice": "z", "name": "nobody", "set": [7], "list": [-7, -8], "function": lambda *_: (-7.5, -8)}
    if exercise.kind == "function" and exercise.notebook != "02":
        other["function"] = lambda *_: -7.5
    verdict = judge(exercise, other.get(exercise.kind, -77.0), given)
    if exercise.names:
        assert verdict.state == "unread"
        assert "There is no such name here" in verdict.text
    else:
        assert (verdict.state, verdict.text) == ("wrong", f"Not yet. {exercise.hint}")
        again = judge(exercise, other.get(exercise.kind, -77.0), given, tries=1)
        assert again.text == f"Not yet. {exercise.more or exercise.hint}"


def test_the_second_hint_is_plainer_than_the_first():
    for exercise in EXERCISES.values():
        assert bool(exercise.more) == (exercise.kind != "choice")
        assert exercise.more != exercise.hint
        assert "`=" not in exercise.hint and "](" not in exercise.hint  # noqa: PT018
    assert len(EXERCISES) >= 55


def test_every_exercise_has_a_solution_and_no_solution_lacks_its_exercise():
    expected = {f"{what}_{number.replace('.', '_')}" for number in EXERCISES for what in ("exercise", "wrong")}
    found = {
        name
        for path in SOLUTIONS.values()
        for name in runpy.run_path(str(path))
        if re.fullmatch(r"(exercise|wrong)_\d\d_\d+", name)
    }
    assert found == expected


def test_each_notebook_has_three_to_five_from_looking_to_explaining_and_one_on_a_misconception():
    for notebook in SOLUTIONS:
        own = [exercise for exercise in EXERCISES.values() if exercise.notebook == notebook]
        assert 3 <= len(own) <= 5
        assert [exercise.id for exercise in own] == [f"{notebook}.{k + 1}" for k in range(len(own))]
        levels = [LEVELS.index(exercise.level) for exercise in own]
        assert levels == sorted(levels)
        assert (levels[0] <= 1, own[-1].level) == (True, "explain")
        assert any(exercise.misconception for exercise in own)
        assert all(len(exercise.mistakes) >= 2 for exercise in own)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebook_asks_its_exercises_and_leaves_them_blank(notebook):
    cells, asked = nbformat.read(NOTEBOOKS[notebook], as_version=4).cells, []
    for before, cell in pairwise(cells):
        found = re.search(r'check\("([\d.]+)", answer(.*)\)', cell.source) if cell.cell_type == "code" else None
        if not found:
            assert cell.cell_type != "code" or "check(" not in cell.source
            continue
        exercise, names = EXERCISES[found[1]], dict(re.findall(r"(\w+)=(\w+)", found[2]))
        asked.append(found[1])
        assert cell.source.startswith("answer = ...\n")
        assert "Not answered yet" in cell.outputs[0]["data"]["text/markdown"]
        assert names == {name: name for name in exercise.given}
        assert (before.cell_type, f"**{found[1]}" in before.source) == ("markdown", True)
        if exercise.kind == "choice":
            letters = re.findall(r"^- \*\*([a-z])\*\*", before.source, re.MULTILINE)
            assert letters == sorted([exercise.truth, *(wrong for wrong, _ in exercise.mistakes)])
    assert asked == [number for number in EXERCISES if number.startswith(notebook)]


def _ask(kind, truth, answer, **options):
    exercise = Exercise("99.1", "look", kind, truth, "Because.", "General hint.", **options)
    return judge(exercise, answer, {})


@pytest.mark.parametrize("answer", [
    0.83, "0.83", " .83 ", "83 %", "83%", "0,83", np.float32(0.83), np.float64(0.834), np.array(0.83), [0.83], (0.83,),
    np.array([[0.83]]), {0.83}, pd.Series([0.83]), pd.DataFrame([[0.83]]), Fraction(83, 100), Decimal("0.83"), ["0.83"],
])  # fmt: skip
def test_a_share_in_every_correct_form(answer):
    assert _ask("share", 0.83, answer, tolerance=0.006).state == "right"


@pytest.mark.parametrize("answer", [1234, 1234.0, "1234", "1,234", "1 234", np.int8(12) * 0 + np.int64(1234), "1_234"])
def test_a_count_in_every_correct_form(answer):
    assert _ask("number", 1234, answer).state == "right"


def test_tensors():
    tf = pytest.importorskip("tensorflow")
    assert _ask("share", 0.83, tf.constant(0.83), tolerance=0.006).state == "right"
    assert _ask("number", 5, tf.constant([5])).state == "right"
    assert _ask("list", (1, 2), tf.constant([1.0, 2.0])).state == "right"
    assert _ask("set", (90, 180), tf.Variable([180, 90])).state == "right"


def test_a_percentage_for_a_share_gets_a_hint_of_its_own():
    mistakes = ((0.5, "That is one half."),)
    assert "divide by 100" in _ask("share", 0.83, 83, tolerance=0.006).text
    assert "one half" in _ask("share", 0.83, 50, tolerance=0.006, mistakes=mistakes).text
    assert "divide by 100" in _ask("number", 0.83, 83, tolerance=0.006).text
    assert _ask("number", 8.3, 830, tolerance=0.006).text == "Not yet. General hint."
    counted = ((17, "That is how many."),)
    assert "how many" in _ask("share", 0.167, 17, tolerance=0.006, mistakes=counted).text


def test_a_mistake_beside_the_truth_is_told_from_it_by_its_digits():
    mistakes = ((0.70946, "That is plain accuracy."),)
    for answer, state in ((0.71081, "right"), (0.711, "right"), (0.714, "right"), (0.70946, "wrong"), (0.709, "wrong")):
        verdict = _ask("share", 0.71081, answer, tolerance=0.006, mistakes=mistakes)
        assert (verdict.state, "plain accuracy" in verdict.text) == (state, state == "wrong")
        assert ("give more digits" in verdict.text) == (state == "wrong")
    assert _ask("share", 0.5, 0.503, tolerance=0.006, mistakes=((0.5, "The same."),)).state == "right"


@pytest.mark.parametrize("answer", [
    [90, 180], (180.0, 90), {90, 180}, np.array([90, 180]), pd.Series([180, 90]), "90, 180", pd.Index([90, 180]),
    [180, 90, 90], range(90, 181, 90), {90: "a", 180: "b"}.keys(), np.array([[90], [180]], dtype=np.float32),
])  # fmt: skip
def test_a_set_in_every_correct_form(answer):
    assert _ask("set", (90, 180), answer).state == "right"


@pytest.mark.parametrize(("kind", "truth", "answer"), [
    ("share", 0.5, "1/2"), ("number", 1 / 255, "1/255"), ("number", 3.2, "3.2x"), ("number", 3.2, "3.2 ×"),
    ("number", 717, "717 images"), ("number", 1, "one"), ("number", 6, "Six"), ("number", 0, "none"),
    ("set", (90, 180), "90 and 180"), ("set", (90, 180), ["90°", "180 degrees"]),
    ("name", "augment, then split", "augment then split"),
    ("name", "block 13", "block13"), ("name", "block 13", "13"), ("name", "block 13", 13),
])  # fmt: skip
def test_what_a_person_would_write_is_right(kind, truth, answer):
    assert _ask(kind, truth, answer).state == "right"


@pytest.mark.parametrize(("answer", "words"), [
    (0.749, "A name is asked for, and this is a number"), ("aera", "There are area, edge"), ("edge", "General hint"),
])  # fmt: skip
def test_what_is_no_name_here_gets_a_sentence(answer, words):
    assert words in _ask("name", "area", answer, names=lambda: ("area", "edge")).text


def test_of_two_mistakes_the_nearer_one_gets_its_hint():
    mistakes = ((0.149, "The copies."), (0.148, "The other row."))
    for answer, hint in ((0.149, "The copies."), (0.148, "The other row.")):
        assert hint in _ask("number", 0.151, answer, tolerance=0.0016, mistakes=mistakes).text


def test_a_set_of_names_heeds_no_case_and_a_mask_is_no_set():
    assert _ask("set", ("H3", "H10"), ["h10", " H3"]).state == "right"
    assert _ask("set", (90, 180), pd.Series([True, False])).state == "unread"


@pytest.mark.parametrize("answer", [[4, 10], (4.0, 10.0), np.array([4, 10]), pd.Series([4, 10]), "4, 10", "[4, 10]"])
def test_a_list_in_every_correct_form(answer):
    assert _ask("list", (4, 10), answer).state == "right"


def test_a_list_has_an_order_and_a_length():
    assert _ask("list", (4, 10), [10, 4]).state == "wrong"
    assert "2 values are expected" in _ask("list", (4, 10), [4]).text
    assert "order matters" in _ask("list", (4, 10), {4, 10}).text


@pytest.mark.parametrize(
    "answer", ["b", "B", " b ", "b)", "(b)", "b.", ["b"], np.str_("b"), np.array("b"), pd.Series(["b"])]
)
def test_a_letter_in_every_correct_form(answer):
    assert _ask("choice", "b", answer).state == "right"


@pytest.mark.parametrize("answer", ["block 13", "Block  13", "'block 13'", ["block 13"], np.array(["block 13"])])
def test_a_name_in_every_correct_form(answer):
    assert _ask("name", "block 13", answer).state == "right"


@pytest.mark.parametrize("answer", [
    lambda i, j: (4 - j, i), lambda i, j: [4.0 - j, i], lambda i, j: np.array([4 - j, i]), lambda i, j: f"{4 - j}, {i}",
])  # fmt: skip
def test_a_function_that_returns_every_correct_form(answer):
    assert _ask("function", lambda i, j: (4 - j, i), answer, inputs=((0, 0), (1, 3))).state == "right"


@pytest.mark.parametrize(("answer", "words"), [
    (3, "A function is expected"), (lambda i: i, "TypeError"), (lambda i, j: None, "end the function with return"),
    (lambda i, j: 1 / 0, "ZeroDivisionError"), (lambda i, j: "left", "does not return numbers"),
])  # fmt: skip
def test_a_function_that_fails_gets_a_sentence(answer, words):
    verdict = _ask("function", lambda i, j: (4 - j, i), answer, inputs=((0, 0), (1, 3)))
    assert (verdict.state, words in verdict.text) == ("unread", True)


@pytest.mark.parametrize("kind", ["number", "share", "choice", "name", "list"])
@pytest.mark.parametrize(
    "answer", [len, {"a": 1}, object(), float("nan"), pd.NA, b"b", 1j, np.array([]), [[]], lambda: 1]
)
def test_another_kind_of_answer_gets_a_sentence(kind, answer):
    verdict = _ask(kind, {"choice": "b", "name": "b", "list": (4, 10)}.get(kind, 0.5), answer)
    assert verdict.state in ("unread", "wrong")
    assert verdict.text.endswith(("does not count.", "General hint."))


@pytest.mark.parametrize("number", EXERCISES)
def test_no_answer_ends_in_a_traceback(number, objects):
    class Hostile:
        def __array__(self, *_args, **_options):
            raise RuntimeError("no")

        def __iter__(self):
            raise RuntimeError("no")

    given = objects[EXERCISES[number].notebook]
    for answer in (
        Hostile(),
        object(),
        1j,
        np.nan,
        True,
        "",
        "b\n" * 999,
        {},
        [],
        print,
        np.zeros((2, 2)),
        type,
        -1,
        10**400,
    ):
        assert check(number, answer, **given).state in ("blank", "wrong", "unread", "not posed")


def test_numbers_between_and_one_of_several():
    assert _ask("number", Between(0.3, 0.4), 0.35).state == "right"
    assert _ask("number", Between(0.3, 0.4), 0.41).state == "wrong"
    assert _ask("name", OneOf(("area", "radius")), "Radius").state == "right"


def test_truth_follows_the_data(objects):
    """Three classes, other tables: nothing is right only on the synthetic twin."""
    three = pd.DataFrame({"label": ["a"] * 5 + ["b"] * 3 + ["c"] * 2, "subject": list("1122334455")})
    three["group"] = three["subject"]
    assert check("01.2", 1 / 3, train=three).state == "right"
    assert check("01.2", 0.5, train=three).state == "wrong"
    assert check("01.1", 1, train=three).state == "right"
    assert check("06.2", 0.5, parts=SimpleNamespace(train=three, test=three)).state == "right"
    bare = _measured().drop(columns="texture")
    assert check("01.3", "area", measured=bare).state == "right"


def test_what_cannot_be_asked_is_said_also_of_a_blank(objects):
    unknown = objects["01"]["train"].assign(subject=None)
    assert "unknown" in check("01.1", ..., train=unknown).text
    three = pd.DataFrame({"label": ["a", "b", "c"], "p_a": [0.5, 0, 0], "p_b": [0.5, 1, 0], "p_c": [0, 0, 1.0]})
    assert "two classes" in check("07.3", 1, predictions=three).text
    assert "not known" in check("11.1", 1, scores=pd.DataFrame({"mask": []})).text
    assert "do not allow" in check("09.2", 0.1, found=_found()[lambda t: t["split_kind"] == "by image"]).text
    assert not progress_path().exists()


def test_what_was_forgotten_or_broken_is_said(objects):
    assert 'check("01.1", answer, train=train)' in check("01.1", 3).text
    assert "Run the cells that make train again" in check("01.1", 3, train=5).text
    assert "notebook 01 has 01.1, 01.2" in check("01.9", 3).text
    assert check(" 1.4", "c").state == "right"
    assert check("nonsense").state == "not posed"


def test_verdict_is_markdown_in_a_notebook_and_plain_text_elsewhere():
    verdict = check("2.1", [90, 180])
    assert verdict._repr_markdown_().startswith("**02.1** <span")
    assert verdict._repr_markdown_().endswith(f"**✗**</span> {verdict.text}")
    assert PALETTE["red"] in verdict._repr_markdown_()
    right = check("2.1", [90, 180, 270])._repr_markdown_()
    assert "✓" in right
    assert PALETTE["green"] in right
    assert repr(verdict) == str(verdict) == f"02.1: {verdict.text}"


def test_after_two_tries_a_solution_is_shown_as_it_would_stand_in_the_cell():
    assert "Try it 2 times first" in solution("02.1").text
    check("02.1", [90])
    assert "solution" in check("02.1", [45]).text
    shown = solution("2.1")
    assert shown.id == "02.1"
    code = re.search(r"```python\n(.*?)```", shown.text, re.DOTALL)[1]
    space = {"math": math}
    exec(code, space)  # the kit's own file
    assert check("02.1", space["answer"]).state == "right"
    assert "There is no such exercise" in solution("02.9").text


@pytest.mark.parametrize("number", EXERCISES)
def test_every_solution_is_code_that_answers(number):
    progress_path().parent.mkdir(parents=True, exist_ok=True)
    entry = {"tries": 2, "first_try": False, "begun": "", "done": None}
    progress_path().write_text(json.dumps({"format": 1, "exercises": {number: entry}}), encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", solution(number).text, re.DOTALL)[1]
    assert "answer = " in code
    compile(code, number, "exec")


def test_a_right_answer_says_how_many_are_done():
    assert "1 of 4 done" in check("02.1", [90, 180, 270]).text
    assert "2 of 4 done" in check("02.4", "d").text
    assert "2 of 4 done" in check("02.4", "d").text


def test_progress_counts_tries_until_solved():
    check("02.1", [90])
    check("02.1", [90, 180, 270])
    check("02.1", [90])
    check("01.4", "c")
    check("03.3", "no number")  # another kind of answer is no try
    check("04.4", ...)
    table = load_progress()[0].set_index("exercise")
    assert table.loc["02.1", ["tries", "first_try", "done"]].tolist() == [2, False, True]
    assert table.loc["01.4", ["tries", "first_try", "done"]].tolist() == [1, True, True]
    assert table.loc["02.1", "begun"] <= table.loc["02.1", "solved"]
    assert table.drop(index=["02.1", "01.4"])["tries"].sum() == 0
    summary = summarise_progress(load_progress()[0])
    assert summary.loc["02"].to_dict() == {"exercises": 4, "tried": 1, "done": 1, "first_try": 0, "tries": 2}
    assert summary["exercises"].sum() == len(EXERCISES)


def test_progress_keeps_no_answers_and_blanks_leave_no_trace(objects):
    check("02.1", ...)
    assert not progress_path().parent.exists()
    check("01.3", "perimeter", measured=objects["01"]["measured"])
    kept = json.loads(progress_path().read_text())
    assert set(kept["exercises"]["01.3"]) == {"tries", "first_try", "begun", "done"}
    assert "perimeter" not in progress_path().read_text()
    assert [path.name for path in progress_path().parent.iterdir()] == ["progress.json"]


@pytest.mark.parametrize("content", ["{", "[1]", '{"format": 9}', '{"format": 1, "exercises": {"02.1": 3}}', "\x00"])
def test_unreadable_progress_is_moved_aside(content):
    progress_path().parent.mkdir()
    progress_path().write_text(content)
    verdict = check("02.1", [90, 180, 270])
    assert verdict.text.startswith("Right.")
    (aside,) = progress_path().parent.glob("progress-unreadable-*.json")
    assert aside.name in verdict.text
    assert aside.read_text() == content
    assert load_progress()[0].set_index("exercise").loc["02.1", "done"]


def test_a_disk_that_cannot_be_written_spoils_no_verdict(monkeypatch):
    def refuse(*_):
        raise exercises.AllkitError("the disk is full")

    monkeypatch.setattr(exercises, "save_json", refuse)
    assert check("02.1", [90, 180, 270]).text.endswith("(Progress was not noted: the disk is full)")


def test_command_sums_up_and_exports(monkeypatch, capsys, tmp_path):
    check("02.1", [90])
    check("01.4", "c")
    code, out, _ = run_command(monkeypatch, capsys, "progress")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert (code, lines["01"][:4]) == (0, ["01", "1", "of", "4"])
    assert "1 of" in out.splitlines()[-1]
    code, out, _ = run_command(monkeypatch, capsys, "progress", "--json")
    found = json.loads(out)
    assert {row["notebook"]: row["done"] for row in found["notebooks"]}["01"] == 1
    assert [row["tries"] for row in found["exercises"] if row["exercise"] == "02.1"] == [1]
    code, out, _ = run_command(monkeypatch, capsys, "progress", "--csv", str(tmp_path / "p.csv"))
    table = pd.read_csv(tmp_path / "p.csv", dtype=str)
    assert (code, len(table)) == (0, len(EXERCISES))
    assert table.set_index("exercise").loc["01.4", "done"] == "True"


def test_command_says_where_an_unreadable_file_went(monkeypatch, capsys):
    progress_path().parent.mkdir()
    progress_path().write_text("{")
    code, out, err = run_command(monkeypatch, capsys, "progress")
    assert (code, "progress-unreadable" in err) == (0, True)
    assert "Nothing was answered yet" in out


# ---- letters -------------------------------------------------------------------------------------------------


class _Shell:
    """What the handler of an error needs of IPython."""

    def __init__(self, source):
        self.user_ns, self.shown = {"In": ["", source]}, []

    def showtraceback(self, *_, **__):
        self.shown.append("traceback")


@pytest.mark.parametrize(
    ("source", "name", "sentence"),
    [("answer = c\ncheck('00.5', answer)", "c", True), ("answer = c + 1", "c", False), ("x = c", "c", False),
     ("answer = result", "result", False)],
)  # fmt: skip
def test_a_letter_without_quotation_marks_gets_a_sentence(monkeypatch, source, name, sentence):
    shell, said = _Shell(source), []
    monkeypatch.setattr(buttons, "display", said.append)
    buttons._explain_name(shell, NameError, NameError(f"name {name!r} is not defined", name=name), None)
    assert bool(said) == sentence
    assert bool(shell.shown) != sentence
    if sentence:
        assert 'answer = "c"' in said[0].data


def test_buttons_stand_for_the_letters_where_somebody_sits(monkeypatch):
    shown = []
    monkeypatch.setattr(exercises, "is_live", lambda: True)
    monkeypatch.setattr(exercises, "show_buttons", lambda letters, check: shown.append((letters, check)))
    assert check("00.5", ...).state == "blank"
    ((letters, press),) = shown
    assert letters == ["a", "b", "c"]
    assert press("b").state == "right"
    check("00.5", "c")
    check("00.1", ..., index=pd.DataFrame({"label": ["ALL"]}))
    assert len(shown) == 1, "for letters, and for blanks only"


def test_the_second_try_gets_the_plainer_hint():
    exercise = EXERCISES["03.2"]
    assert check("03.2", 7).text == f"Not yet. {exercise.hint}"
    assert check("03.2", 8).text.startswith(f"Not yet. {exercise.more}")


# ---- answers, where a student switched that on ---------------------------------------------------------------


def _kept_answers():
    return json.loads(answers_path().read_text(encoding="utf-8"))["answers"]


def test_answers_are_kept_only_after_the_switch_and_gone_with_it(monkeypatch, capsys):
    check("01.4", "a")
    assert not answers_path().exists()
    code, out, _ = run_command(monkeypatch, capsys, "progress", "--answers", "on")
    assert (code, str(answers_path()) in out, "stay on this machine" in out) == (0, True, True)
    for answer in ("B", "b)", "c", "d"):  # right at the third: what comes later is no try
        check("01.4", answer)
    check("00.3", "20 %")
    check("02.1", ...)
    check("03.3", "no number")
    assert _kept_answers() == {"00.3": ["0.2"], "01.4": ["b", "b"]}
    run_command(monkeypatch, capsys, "progress", "--answers", "on")  # once more: nothing is lost
    assert _kept_answers()["00.3"] == ["0.2"]
    assert str(answers_path()) in run_command(monkeypatch, capsys, "progress")[1]
    code, out, _ = run_command(monkeypatch, capsys, "progress", "--answers", "off")
    assert (code, "was deleted" in out) == (0, True)
    check("02.4", "a")
    assert not answers_path().exists()
    assert "a" not in json.loads(progress_path().read_text())["exercises"]["02.4"].values()


def test_a_kept_answer_is_short_and_so_is_their_list():
    exercises.keep_answers(True)
    check("02.1", [*range(3, 90)])
    assert len(_kept_answers()["02.1"][0]) == 80
    check("02.2", lambda i, j: (j, 4 - i))
    assert _kept_answers()["02.2"][0].startswith("0, 4, 4, 4")
    for number in range(50):
        check("12.2", number)
    assert _kept_answers()["12.2"] == [str(number) for number in range(exercises.MOST_ANSWERS)]


@pytest.mark.parametrize("content", ["{", "[1]", '{"answers": 3}', '{"answers": {"02.4": 3}}'])
def test_a_damaged_file_of_answers_spoils_no_verdict(content):
    answers_path().parent.mkdir()
    answers_path().write_text(content, encoding="utf-8")
    assert "was not kept" in check("02.4", "a").text
    assert answers_path().read_text(encoding="utf-8") == content
    assert load_progress()[0].set_index("exercise").loc["02.4", "tries"] == 1


def test_a_copy_without_solutions_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(exercises, "ROOT", tmp_path)
    check("02.4", "a")
    check("02.4", "b")
    assert "not in this copy" in solution("02.4").text
