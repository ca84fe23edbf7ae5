"""A class: what was handed in becomes a table and a page; a quiz for other programs; notebooks without answers."""

import json
import os
import re
import sys
import zipfile
from xml.etree import ElementTree as ET

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from commands import run_command

from allkit import ROOT, AllkitError
from allkit.app.game import save_looks
from allkit.course import release
from allkit.course.classroom import (
    common_answers,
    describe_stop,
    load_classroom,
    summarise_exercises,
    tabulate_class,
    write_class,
)
from allkit.course.exercises import check, progress_path, worked
from allkit.course.offline import render_markdown
from allkit.course.questions import EXERCISES
from allkit.course.quiz import Choice, Question, describe_bank, load_bank, write_moodle, write_qti
from allkit.course.reader_study import describe_class, evaluate_class
from allkit.course.release import release_notebooks


@pytest.fixture(autouse=True)
def own_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("ALLKIT_RUNS", str(tmp_path / "runs"))


def _entry(tries=1, solved=True, minute=0):
    begun = f"2026-10-01T09:{minute:02d}:00+00:00"
    return {"tries": tries, "first_try": solved and tries == 1, "begun": begun, "done": begun if solved else None}


def _hand_in(path, entries, key="exercises"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": 1, key: entries}), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Six students: five fail at 03.3, and two of them gave their answers."""
    folder = tmp_path / "in"
    for k in range(5):
        _hand_in(folder / f"s{k}" / "progress.json", {"01.4": _entry(k + 1), "03.3": _entry(2, False, minute=5 + k)})
    _hand_in(folder / "Ada.json", {"01.4": _entry(), "03.3": _entry(3, True)})
    for k in range(3):
        _hand_in(folder / f"s{k}" / "answers.json", {"01.4": ["a", "a"] if k < 2 else ["b"]}, "answers")
    return folder


# ---- collecting ------------------------------------------------------------------------------------------------


def test_one_row_per_student_and_exercise_and_the_exercise_that_stops_the_class(folder):
    room = load_classroom(folder)
    table = tabulate_class(room)
    assert (len(table), room.notes) == (6 * len(EXERCISES), [])
    row = table.set_index(["student", "exercise"]).loc[("s1", "01.4")]
    assert row[["solved", "tries", "first_try", "wrong_answers"]].tolist() == [True, 2, False, "a | a"]
    found = summarise_exercises(table)
    assert found.loc["03.3", ["solved", "tried", "stuck", "first"]].tolist() == [1, 6, 5, 0]
    assert found.loc["03.3", "tries"] == pytest.approx(13 / 6)
    assert "Exercise 03.3 stops the class most: 5 of the 6" in describe_stop(found)


def test_what_few_tried_is_inconclusive_and_what_all_solved_stops_nobody(folder, tmp_path):
    few = tmp_path / "few"
    for k in range(4):
        _hand_in(few / f"{k}.json", {"01.4": _entry(k + 1, False)})
    assert "inconclusive" in describe_stop(summarise_exercises(tabulate_class(load_classroom(few))))
    for k in range(5):
        _hand_in(few / f"{k}.json", {"01.4": _entry(k + 1), "02.1": _entry(k + 1)})
    assert "No exercise stops" in describe_stop(summarise_exercises(tabulate_class(load_classroom(few))))
    for k in range(5):
        _hand_in(few / f"{k}.json", {"01.4": _entry(k + 1, False), "02.1": _entry(k + 1, False)})
    assert "Exercises 01.4, 02.1" in describe_stop(summarise_exercises(tabulate_class(load_classroom(few))))


def test_a_wrong_answer_is_common_if_two_students_gave_it_and_counts_students_not_tries(folder):
    (row,) = common_answers(load_classroom(folder)).to_dict("records")
    assert (row["exercise"], row["answer"], row["students"]) == ("01.4", "a", 2)
    assert row["meaning"].startswith("0.93, because more subjects")
    assert row["hint"] == dict(EXERCISES["01.4"].mistakes)["a"]


def test_all_forms_in_which_a_student_can_hand_in_say_the_same(monkeypatch, capsys, tmp_path):
    for answer in ("a", "c"):
        check("01.4", answer)
    check("00.3", 0.2)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "one.json").write_bytes(progress_path().read_bytes())
    run_command(monkeypatch, capsys, "progress", "--csv", folder / "two.csv")
    (folder / "three.json").write_text(run_command(monkeypatch, capsys, "progress", "--json")[1], encoding="utf-8")
    semicolons = pd.read_csv(folder / "two.csv", dtype=str)
    semicolons.to_csv(folder / "four.csv", index=False, sep=";", encoding="utf-8-sig")
    room = load_classroom(folder)
    assert list(room.progress) == ["four", "one", "three", "two"]
    assert all(entries == room.progress["one"] for entries in room.progress.values())
    assert room.progress["one"]["01.4"].tries == 2
    assert sum("hold the same progress" in note for note in room.notes) >= 3


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("x.json", b"{", "cannot be read"), ("x.json", b"[" * 100_000, "cannot be read"),
    ("x.json", b"[1]", "none of the files that students hand in"),
    ("x.json", b'{"format": 9, "exercises": {}}', "another version"), ("x.json", b"\xff\xfe\xd8", "cannot be read"),
    ("x.json", b'{"format": 1, "exercises": {"01.1": {"tries": -1}}}', "01.1 tries"),
    ("x.json", b'{"format": 1, "exercises": {"01.1": 3}}', "not as allkit writes"),
    ("x.json", b'{"exercises": [3]}', "no rows"), ("x.json", b" " * 1_000_001, "1,000,000 bytes"),
    ("x.json", b'{"format": 1, "answers": {"01.1": "abc"}}', "not as allkit writes"),
    ("x.json", json.dumps({"format": 1, "answers": {"01.1": ["a" * 81]}}).encode(), "not as allkit writes"),
    ("x.csv", b"a,b\n1,2\n", "allkit progress --csv"), ("x.csv", b"", "is empty"),
    ("x.docx", b"PK", "neither JSON nor CSV"),
])  # fmt: skip
def test_what_cannot_be_used_is_named_with_the_reason_and_nothing_else_is_lost(folder, name, content, reason):
    (folder / name).write_bytes(content)
    room = load_classroom(folder)
    assert len(room.progress) == 6
    (note,) = room.notes
    assert note.startswith(f"{name} was left out: ")
    assert reason in note


def test_links_are_not_followed(folder, tmp_path):
    _hand_in(tmp_path / "elsewhere" / "progress.json", {"01.4": _entry()})
    os.symlink(tmp_path / "elsewhere", folder / "folder")
    os.symlink(tmp_path / "elsewhere" / "progress.json", folder / "file.json")
    room = load_classroom(folder)
    assert len(room.progress) == 6
    assert [note.split()[0] for note in room.notes] == ["file.json", "folder"]


def test_two_files_of_one_student_are_said_and_the_fuller_one_counts(folder):
    _hand_in(folder / "ada" / "old.json", {"01.4": _entry(4)})
    _hand_in(folder / "ada" / "progress.json", {"01.4": _entry(4), "02.1": _entry(5)})
    room = load_classroom(folder)
    assert set(room.progress["ada"]) == {"01.4", "02.1"}
    assert [note for note in room.notes if "Two files" in note and "ada/progress.json counts" in note]
    _hand_in(folder / "ada" / "zz.json", {"01.4": _entry(4), "99.9": _entry()})
    room = load_classroom(folder)
    assert set(room.progress["ada"]) == {"01.4", "02.1"}
    assert any("does not have were left out: 99.9" in note for note in room.notes)


def test_names_are_those_that_the_instructor_chose(monkeypatch, capsys, folder, tmp_path):
    names = folder / "names.csv"
    names.write_text("file,name\ns0,Number 1\nAda.json,Number 2\ns1/progress.json,Number 3\nnobody,Number 4\n")
    out = tmp_path / "out"
    code, said, err = run_command(monkeypatch, capsys, "class", "collect", folder, "--names", names, "--out", out)
    assert (code, "Students: 6" in said, str(out / "class.csv") in said) == (0, True, True)
    assert "fit no usable file: nobody" in err
    table = pd.read_csv(out / "class.csv", dtype=str, keep_default_na=False)
    assert set(table["student"]) == {"Number 1", "Number 2", "Number 3", "s2", "s3", "s4"}
    assert set(table.loc[table["student"] == "Number 1", "wrong_answers"]) == {"", "a | a"}
    assert "Ada" not in (out / "class.html").read_text(encoding="utf-8")


def test_collecting_again_into_the_same_folder_does_not_read_its_own_table(monkeypatch, capsys, folder):
    for _ in range(2):
        code, _, err = run_command(monkeypatch, capsys, "class", "collect", folder, "--out", folder)
        assert (code, err) == (0, "")


def test_nothing_usable_ends_in_one_sentence(monkeypatch, capsys, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.json").write_text("{")
    code, _, err = run_command(monkeypatch, capsys, "class", "collect", tmp_path / "in", "--out", tmp_path)
    assert (code, err.count("\n"), "x.json was left out" in err) == (1, 1, True)
    assert not (tmp_path / "class.csv").exists()
    assert run_command(monkeypatch, capsys, "class", "collect", tmp_path / "nowhere")[0] == 1


def test_the_page_escapes_names_loads_nothing_and_shows_answers_only_if_handed_in(folder, tmp_path):
    hostile = ["<img src=x onerror=alert(1)>", "=1+1", "\u202etxt", "O'Neil & Søn", "a\nb", "x" * 200]
    for k, name in enumerate(hostile):
        _hand_in(folder / f"{name}.json", {"01.4": _entry(k + 1)})
    _hand_in(folder / "s0" / "answers.json", {"01.3": ["<script>x</script>"]}, "answers")
    _hand_in(folder / "s1" / "answers.json", {"01.3": ["<script>x</script>"]}, "answers")
    csv, page = write_class(load_classroom(folder), tmp_path)
    text = page.read_text(encoding="utf-8")
    soup = BeautifulSoup(text, "html.parser")
    assert not soup.select("script, img, link, iframe, [src], [href], [onerror]")
    assert "url(" not in text
    assert "\u202e" not in text + csv.read_text(encoding="utf-8")
    assert hostile[0] in soup.get_text()
    assert "<script>x</script>" in soup.get_text()
    assert "'=1+1" in set(pd.read_csv(csv, dtype=str)["student"])
    assert "Nothing leaves this machine" in soup.get_text()
    for path in folder.glob("*/answers.json"):
        path.unlink()
    text = write_class(load_classroom(folder), tmp_path)[1].read_text(encoding="utf-8")
    assert "nobody handed any in" in text
    assert "script" not in text


def test_the_page_says_who_is_where(folder, tmp_path):
    soup = BeautifulSoup(write_class(load_classroom(folder), tmp_path)[1].read_text(encoding="utf-8"), "html.parser")
    students, by_exercise, answers = soup.select("table")
    head = [cell.get_text() for cell in students.select("thead th")]
    rows = {tr.th.get_text(): [td.get_text() for td in tr.select("td")] for tr in students.select("tbody tr")}
    row = dict(zip(head[1:], rows["s4"], strict=True))
    assert (row["00"], row["01"], row["03"], row["All"], row["Last"]) == (
        "–",
        "1/4",
        "0/5",
        f"1/{len(EXERCISES)}",
        "03.3",
    )
    assert "2 of 3" in answers.get_text()
    assert len(by_exercise.select("tbody tr")) == len(EXERCISES)


# ---- a class as readers ----------------------------------------------------------------------------------------


def _look(cell, answer, *, look=1, truth="ALL", network="ALL", advice=None):
    return {"cell": f"{cell:012x}", "look": look, "truth": truth, "network": network, "advice": advice,
            "answer": answer}  # fmt: skip


def _other(label):
    return "HEM" if label == "ALL" else "ALL"


def _reader(right, *, misled=0, turn=0):
    """The two rounds of a student who names `right` of 20 cells right, and follows wrong advice `misled` times.

    `turn` moves the wrong answers on, so that not all students are wrong about the same cells.
    """
    truths = ["ALL", "HEM"] * 10
    wrong = {(turn + k) % 20 for k in range(20 - right)}
    alone = [
        _look(k, _other(truth) if k in wrong else truth, truth=truth, network=truth if k >= 4 else _other(truth))
        for k, truth in enumerate(truths)
    ]
    advised = [_look(100 + k, truth, truth=truth) for k, truth in enumerate(truths)]
    for k, truth in enumerate(truths):
        advice = _other(truth) if k < 6 else truth
        advised.append(_look(100 + k, advice if k < misled else truth, look=2, truth=truth, advice=advice))
    return {"alone": alone, "advised": advised}


def _hand_in_looks(path, rounds):
    _hand_in(path, rounds, "looks")


@pytest.fixture
def readers_in(tmp_path):
    """Forty students, half of them right about 12 of 20 cells and half about 16; each follows 2 or 4 of 6 errors."""
    folder = tmp_path / "in"
    for k in range(40):
        rounds = _reader(12 if k % 2 else 16, misled=2 if k < 20 else 4, turn=3 * k)
        _hand_in_looks(folder / f"r{k:02}" / "reader-study.json", rounds)
    return folder


def test_a_class_of_readers_is_scored_alone_together_and_with_advice(readers_in):
    study = evaluate_class(load_classroom(readers_in).readers)
    assert study.accuracy["same"].tolist() == [16] * 20 + [12] * 20
    assert study.together.loc["majority vote of the class", ["same", "cells"]].tolist() == [20, 20]
    assert study.together.loc["the network", ["same", "cells"]].tolist() == [16, 20]
    assert (study.only_vote, study.only_network) == (4, 0)
    assert study.agreement["value"] == pytest.approx(0.6)  # 16 of 20 alike, half by chance
    assert study.advice.loc[("wrong advice", "alone"), "value"] == 0
    assert study.advice.loc[("wrong advice", "with it"), "value"] == pytest.approx(0.5)
    assert study.advice.loc[("right advice", "with it"), "value"] == 0
    assert study.bias["value"] == pytest.approx(0.5)
    assert 0.4 < study.bias["low"] < 0.5 < study.bias["high"] < 0.6
    said = " ".join(describe_class(study))
    assert "majority vote named 20 of 20 right, the network 16" in said
    assert "inconclusive (sign test, p = 0.12)" in said
    assert "kappa with the network" in said
    assert "0.60 (from" in said
    assert "40 students" in said
    assert "Automation bias: +50 percentage points" in said


def test_nobody_is_misled_where_the_advice_changes_nothing(tmp_path):
    for k in range(6):
        _hand_in_looks(tmp_path / "in" / f"r{k}.json", _reader(14, misled=0, turn=k))
    text = " ".join(describe_class(evaluate_class(load_classroom(tmp_path / "in").readers)))
    assert "Whether there is automation bias is inconclusive" in text
    for k in range(6):
        rounds = _reader(14, misled=k % 2, turn=k)
        first = next(look for look in rounds["advised"] if look["look"] == 1)
        first["answer"] = "HEM" if k % 2 == 0 else "ALL"  # as many mend an error as make one
        _hand_in_looks(tmp_path / "in" / f"r{k}.json", rounds)
    text = " ".join(describe_class(evaluate_class(load_classroom(tmp_path / "in").readers)))
    assert "+0 percentage points" in text
    assert "so it is inconclusive" in text


def test_few_readers_and_rounds_that_were_left_early_are_inconclusive(tmp_path):
    _hand_in_looks(tmp_path / "in" / "the network.json", {"alone": _reader(14)["alone"][:3]})
    _hand_in_looks(tmp_path / "in" / "b.json", {"advised": _reader(14)["advised"][:20]})
    room = load_classroom(tmp_path / "in")
    assert set(room.progress) == {"the network", "b"}
    text = " ".join(describe_class(evaluate_class(room.readers)))
    assert "No cell has a majority" in text
    assert "Nobody handed in answers with the network's advice" in text
    write_class(room, tmp_path)
    for path in (tmp_path / "in").glob("*.json"):
        _hand_in_looks(path, {"alone": []})
    text = write_class(load_classroom(tmp_path / "in"), tmp_path)[1].read_text(encoding="utf-8")
    assert "<img" not in text


def test_the_page_shows_one_figure_of_the_readers_with_its_words(readers_in, tmp_path):
    _hand_in_looks(readers_in / "<img src=x>$x$ \u4f60\u597d.json", _reader(10))
    page = write_class(load_classroom(readers_in), tmp_path)[1]
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    (picture,) = soup.select("img")
    assert picture["src"].startswith("data:image/png;base64,")
    assert "r00 0.80" in picture["alt"]
    assert "majority vote of the class 1.00" in picture["alt"]
    assert "wrong advice, with it" in picture["alt"]
    assert "<img src=x>" in picture["alt"]
    assert "Automation bias: " in soup.get_text()
    assert len(page.read_bytes()) < 600_000


@pytest.mark.parametrize(("change", "reason"), [
    ({"cell": "../../x"}, "alone 0 cell"), ({"look": 3}, "alone 0 look"), ({"answer": "x" * 81}, "alone 0 answer"),
    ({"answer": 3}, "alone 0 answer"), ({"truth": None}, "alone 0 truth"),
])  # fmt: skip
def test_a_file_of_the_game_that_is_not_as_written_is_left_out(readers_in, change, reason):
    _hand_in_looks(readers_in / "x.json", {"alone": [_look(1, "ALL") | change]})
    room = load_classroom(readers_in)
    assert len(room.readers) == 40
    (note,) = room.notes
    assert note.startswith("x.json was left out: ")
    assert reason in note


def test_other_hostile_files_of_the_game_are_left_out_too(readers_in):
    _hand_in_looks(readers_in / "a.json", {"alone": [_look(k, "ALL") for k in range(401)]})
    _hand_in_looks(readers_in / "b.json", {"everything": []})
    (readers_in / "c.json").write_text(json.dumps({"format": 2, "looks": {}}), encoding="utf-8")
    _hand_in_looks(readers_in / "d.json", [_look(1, "ALL")])
    room = load_classroom(readers_in)
    assert len(room.readers) == 40
    assert [note.split()[0] for note in room.notes] == ["a.json", "b.json", "c.json", "d.json"]


def test_what_the_game_writes_can_be_collected(monkeypatch, capsys, tmp_path):
    looks = pd.DataFrame(_reader(14)["advised"]).astype(object)
    path = save_looks("advised", looks)
    (tmp_path / "in" / "ada").mkdir(parents=True)
    (tmp_path / "in" / "ada" / path.name).write_bytes(path.read_bytes())
    code, out, err = run_command(monkeypatch, capsys, "class", "collect", tmp_path / "in", "--out", tmp_path)
    assert (code, err, "with answers of the game: 1" in out) == (0, "", True)


# ---- a quiz ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bank():
    return load_bank()


def test_the_bank_holds_what_needs_no_kernel_and_says_what_is_left_out(bank):
    asked = {question.name.split()[0]: question for question in bank if question.kind != "essay"}
    expected = {
        n
        for n, e in EXERCISES.items()
        if not e.given and not callable(e.truth) and e.kind in ("choice", "number", "share")
    }
    assert set(asked) == expected
    for number, question in asked.items():
        exercise = EXERCISES[number]
        (right,) = [choice for choice in question.choices if choice.right]
        assert {c.feedback for c in question.choices if not c.right} == {hint for _, hint in exercise.mistakes}
        if question.kind == "choice":
            assert "abcd"[question.choices.index(right)] == exercise.truth
            assert not any("\n" in choice.value.strip() and "#" in choice.value for choice in question.choices)
        else:
            assert right.value == pytest.approx(exercise.truth)
        assert "What you have learned" not in str(question)
    exam = [question for question in bank if question.kind == "essay"]
    guide = (ROOT / "docs" / "instructor.md").read_text(encoding="utf-8")
    assert len(exam) == len(re.findall(r"<summary>Answer to question", guide))
    assert all(question.text and question.why and "{cite" not in question.why for question in exam)
    said = describe_bank(bank)
    assert f"{len(expected)} of {len(EXERCISES)} exercises" in said
    assert sum(map(int, re.findall(r"\b(\d+) whose", said))) == len(EXERCISES) - len(expected)


def _text(element, path):
    return " ".join(BeautifulSoup(element.findtext(path) or "", "html.parser").get_text().split())


def _plain(markdown):
    return " ".join(BeautifulSoup(render_markdown(markdown), "html.parser").get_text().split())


def test_moodle_reads_the_same_questions_answers_and_feedback_back(bank, tmp_path):
    root = ET.parse(write_moodle(bank, tmp_path / "q.xml")).getroot()
    questions = [element for element in root if element.get("type") != "category"]
    assert root.tag == "quiz"
    assert len(questions) == len(bank)
    for element, question in zip(questions, bank, strict=True):
        assert element.get("type") == {"choice": "multichoice", "number": "numerical", "essay": "essay"}[question.kind]
        assert _text(element, "name/text") == question.name
        assert _text(element, "questiontext/text") == _plain(question.text)
        told = "graderinfo/text" if question.kind == "essay" else "generalfeedback/text"
        assert _text(element, told) == _plain(question.why)
        answers = [(a.get("fraction"), _text(a, "text"), _text(a, "feedback/text")) for a in element.findall("answer")]
        assert answers == [
            (
                "100" if c.right else "0",
                _plain(c.value) if isinstance(c.value, str) else f"{c.value:.10g}",
                _plain(c.feedback),
            )
            for c in question.choices
        ]
        if question.kind == "choice":
            assert (element.findtext("single"), element.findtext("shuffleanswers")) == ("true", "false")
        if question.kind == "number":
            assert float(element.findtext("answer/tolerance")) == question.tolerance
    categories = [element.findtext("category/text") for element in root if element.get("type") == "category"]
    assert len(categories) == len(set(categories)) == len({question.category for question in bank})


def test_hostile_texts_stay_what_they_are_in_both_formats(tmp_path):
    pytest.importorskip("text2qti")
    text = "*a) ]]> 1. `x<y` & \\num{3} $5 \\times 5$ ... <!-- x\n\n```{.python .run}\nprint(1)\n```"
    nasty = [Question("N & <1>", "a/b", "choice", text, text, (Choice("1. x", True), Choice("+ $5", False, text)))]
    (question,) = ET.parse(write_moodle(nasty, tmp_path / "q.xml")).getroot().findall("question[@type='multichoice']")
    assert question.findtext("name/text") == "N & <1>"
    assert "<math" in question.findtext("questiontext/text")
    item = _items(write_qti(nasty, tmp_path / "q.zip"))[0]
    assert item.get("title") == "N & <1>"
    assert "equation_images" not in ET.tostring(item, encoding="unicode")


def _items(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = [n for n in archive.namelist() if re.fullmatch(r"(text2qti_assessment_\w+)/\1\.xml", n)]
        text = re.sub(r' xmlns="[^"]+"', "", archive.read(name).decode("utf-8"), count=1)
        assert {"imsmanifest.xml"} <= set(archive.namelist())
    return ET.fromstring(text).findall(".//item")


def test_qti_has_one_right_answer_and_a_word_on_every_wrong_one(bank, tmp_path):
    pytest.importorskip("text2qti")
    items = _items(write_qti(bank, tmp_path / "q.zip"))
    assert [item.get("title") for item in items] == [question.name for question in bank]
    for item, question in zip(items, bank, strict=True):
        assert _text(item, "presentation/material/mattext") == _plain(question.text)
        said = {f.get("ident"): _text(f, "flow_mat/material/mattext") for f in item.findall("itemfeedback")}
        assert said["general_fb"] == _plain(question.why)
        if question.kind != "choice":
            continue
        labels = {e.get("ident"): _text(e, "material/mattext") for e in item.iter("response_label")}
        assert list(labels.values()) == [_plain(choice.value) for choice in question.choices]  # in their order
        scored = [
            c.findtext("conditionvar/varequal") for c in item.iter("respcondition") if c.find("setvar") is not None
        ]
        (right,) = [choice for choice in question.choices if choice.right]
        assert [labels[ident] for ident in scored] == [_plain(right.value)]
        for ident, choice in zip(labels, question.choices, strict=True):
            assert said.get(f"{ident}_fb", "") == _plain(choice.feedback)
            assert bool(choice.feedback) != choice.right


def test_commands_write_a_bank_and_say_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run_command(monkeypatch, capsys, "class", "quiz", "--format", "moodle")
    assert (code, (tmp_path / "allkit-quiz.xml").is_file(), "Left out: " in out) == (0, True, True)
    monkeypatch.setitem(sys.modules, "text2qti", None)
    for name in ("config", "qti", "quiz"):
        monkeypatch.setitem(sys.modules, f"text2qti.{name}", None)
    code, _, err = run_command(monkeypatch, capsys, "class", "quiz", "--format", "qti")
    assert (code, "pip install text2qti" in err, list(tmp_path.glob("*.zip"))) == (1, True, [])
    assert run_command(monkeypatch, capsys, "class", "quiz")[0] == 2


# ---- notebooks to hand out -------------------------------------------------------------------------------------


def test_released_notebooks_are_blank_and_the_solutions_lie_apart(monkeypatch, capsys, tmp_path):
    code, out, _ = run_command(monkeypatch, capsys, "class", "release", tmp_path / "term")
    assert (code, "allkit/course/questions" in out) == (0, True)
    kit = {path.name for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    assert {path.name for path in (tmp_path / "term").iterdir()} == kit | {"README.md"}
    blank = 0
    for path in (tmp_path / "term").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and "check(" in cell.source:
                assert (cell.source.startswith("answer = ...\ncheck("), cell.outputs) == (True, [])
                blank += 1
    assert blank == len(EXERCISES)
    page = BeautifulSoup((tmp_path / "term-instructor" / "solutions.html").read_text(encoding="utf-8"), "html.parser")
    assert [h.get_text() for h in page.select("h3")] == list(EXERCISES)
    assert (tmp_path / "term-instructor" / "solutions" / "03_how_a_network_learns.py").is_file()
    assert 8 <= len((tmp_path / "term" / "README.md").read_text(encoding="utf-8").splitlines()) <= 12


def test_answers_in_an_instructors_own_copy_do_not_get_out(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    v4 = nbformat.v4
    shown = v4.new_output("stream", text="SECRET right")
    cells = [
        v4.new_markdown_cell("**02.2** (compute). Turn?"),
        v4.new_code_cell("def answer(i, j):\n    return SECRET\n\n\ncheck('02.2', answer)", outputs=[shown]),
        v4.new_code_cell('answer = SECRET\ncheck(\n    "77.1", answer,\n)', outputs=[shown]),
        v4.new_code_cell('from allkit.course import solution\nsolution("02.2")', outputs=[shown]),
        v4.new_code_cell("print('an example')", outputs=[v4.new_output("stream", text="an example")]),
    ]
    notebook = v4.new_notebook(cells=cells, metadata={"widgets": {"state": "SECRET"}})
    nbformat.write(notebook, mine / "02_mine.ipynb")
    students, instructor = release_notebooks(tmp_path / "out", mine)
    text = (students / "02_mine.ipynb").read_text(encoding="utf-8")
    assert "SECRET" not in text
    assert "an example" in text
    assert 'check(\\"02.2\\", answer)' in text
    assert "77.1" in text
    page = BeautifulSoup((instructor / "solutions.html").read_text(encoding="utf-8"), "html.parser")
    assert [h.get_text() for h in page.select("h3")] == ["02.2"]
    assert page.select_one("pre").get_text().strip() == worked("02.2").strip()


def test_nothing_is_overwritten_and_nothing_is_left_half_done(monkeypatch, tmp_path):
    (tmp_path / "full-instructor").mkdir()
    (tmp_path / "full-instructor" / "mine.txt").write_text("mine")
    with pytest.raises(AllkitError, match="not empty"):
        release_notebooks(tmp_path / "full")
    with pytest.raises(AllkitError, match="no notebooks"):
        release_notebooks(tmp_path / "new", tmp_path)
    monkeypatch.setattr(release, "_write_instructor", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(AllkitError, match="disk is full"):
        release_notebooks(tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} - {"runs"} == {"full-instructor"}
