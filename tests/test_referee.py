"""The referee: what printed numbers can have been, files of papers, verdicts, page and command; mlscorecheck agrees."""

import json
import re

import numpy as np
import pytest
from commands import run_command
from mlscorecheck.check.binary import check_1_testset_no_kfold
from sklearn.metrics import cohen_kappa_score, f1_score, matthews_corrcoef, precision_score

from allkit import AllkitError
from allkit.baselines import DEPTHS, frozen_features, measure_numbers
from allkit.course.verdicts import write_verdicts
from allkit.data import load_index
from allkit.evaluate import predicted_labels
from allkit.judging.papers import load_paper, parse_paper, printed_measures, shipped_papers, supports_of
from allkit.judging.printed import (
    MEASURES,
    counts_of,
    fitting_matrices,
    fitting_sizes,
    implied_prevalence,
    implied_ranges,
    matrix_measures,
    percent,
    read_count,
    read_share,
    search_classes,
    subset_counts,
)
from allkit.judging.provenance import SUBJECT_SHARE, known_parts, possible_matrices, sets_of_subjects, subject_sizes
from allkit.lessons import referee
from allkit.lessons.person import predict_cells

KEPT = {"accuracy": "acc", "balanced_accuracy": "bacc", "sensitivity": "sens", "specificity": "spec",
        "precision": "ppv", "npv": "npv", "f1": "f1p", "kappa": "kappa", "mcc": "mcc"}  # fmt: skip
"""Names that the kept library has for our measures; it knows no weighted or macro averages of two classes."""


def _paper(**measures):
    lines = "\n".join(f"      {name}: {value}" for name, value in measures.items())
    head = "title: T\nsource: S\ndata: {name: invented}\nresults:\n  - name: net\n    support: {ALL: 120, HEM: 60}\n"
    return parse_paper(f"{head}    measures:\n{lines}")


# ---- numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "value", "unit"), [
    ("95.40 %", 0.954, 1e-4), ("95.4", 0.954, 1e-3), ("0.954", 0.954, 1e-3), ("95,40%", 0.954, 1e-4),
    ("1.00", 1, 1e-2), ("100 %", 1, 1e-2), ("0.5 %", 0.005, 1e-3), ("−0.12", -0.12, 1e-2),
])  # fmt: skip
def test_a_share_keeps_its_digits(text, value, unit):
    number = read_share(text)
    assert (number.value, number.unit) == (pytest.approx(value), pytest.approx(unit))


@pytest.mark.parametrize("text", ["", "abc", "95.4.1", "10 661", "nan", "inf", "120 %", "95 % of all"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(AllkitError):
        read_share(text)


def test_counts_as_people_write_them():
    assert [read_count(text) for text in ("10661", "10,661", "10 661", "1,234,567")] == [10661, 10661, 10661, 1234567]
    for text in ("10.661", "1,23", "-3", "ten", ""):
        with pytest.raises(AllkitError):
            read_count(text)


def test_counts_are_all_and_only_what_prints():
    for n in (7, 60, 1599):
        for decimals in (0, 1, 2, 3):
            for k in range(0, n + 1, max(1, n // 13)):
                found = counts_of(percent(100 * k / n, decimals), n).tolist()
                assert k in found
                assert all(
                    abs(100 * one / n - round(100 * k / n, decimals)) <= 0.5 * 10**-decimals + 1e-6 for one in found
                )
    assert counts_of(read_share("33.3 %"), 3).tolist() == [1]
    assert counts_of(read_share("12.3 %"), 3).tolist() == []
    assert counts_of(read_share("66.6 %"), 3).tolist() == []
    assert counts_of(read_share("66.6 %"), 3, cut=True).tolist() == [2]


def test_half_way_counts_as_both():
    """1,528 of 1,600 is 95.5 %: some software prints 95, other 96."""
    assert 1528 in counts_of(read_share("95 %"), 1600)
    assert 1528 in counts_of(read_share("96 %"), 1600)


def test_sizes_by_rounding_are_those_that_have_a_count():
    numbers = [read_share("92.0991 %"), read_share("80.13 %")]
    for number in numbers:
        for cut in (False, True):
            expected = [n for n in range(1, 700) if len(counts_of(number, n, cut=cut))]
            assert fitting_sizes([number], range(1, 700), cut=cut) == expected


def test_measures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(30):
        p, n = (int(one) for one in rng.integers(2, 60, 2))
        tp, tn = int(rng.integers(0, p + 1)), int(rng.integers(0, n + 1))
        truth = np.repeat([1, 0], [p, n])
        answer = np.repeat([1, 0, 1, 0], [tp, p - tp, n - tn, tn])
        found = matrix_measures(tp, tn, p, n)
        assert tuple(found) == MEASURES
        options = {"zero_division": 0}
        assert found["weighted_f1"] == pytest.approx(f1_score(truth, answer, average="weighted", **options))
        assert found["macro_f1"] == pytest.approx(f1_score(truth, answer, average="macro", **options))
        assert found["weighted_precision"] == pytest.approx(
            precision_score(truth, answer, average="weighted", **options)
        )
        assert found["npv"] == pytest.approx(precision_score(truth, answer, pos_label=0, **options))
        assert found["kappa"] == pytest.approx(cohen_kappa_score(truth, answer))
        assert found["mcc"] == pytest.approx(matthews_corrcoef(truth, answer))


# ---- against the kept library ------------------------------------------------------------------------------


def _compare(seed, names, trials=300):
    """Random matrices, rounded, every other one tampered with: what we and the kept library say of each.

    The library widens each number by `eps` to both sides, and by 1e-6 more: half of the last digit is what rounding
    allows.
    """
    rng = np.random.default_rng(seed)
    for trial in range(trials):
        p, n = (int(one) for one in rng.integers(20, 130, 2))
        tp, tn = int(rng.integers(p // 2, p + 1)), int(rng.integers(n // 2, n + 1))
        truth, decimals = matrix_measures(tp, tn, p, n), int(rng.integers(2, 5))
        chosen = rng.choice(names, size=int(rng.integers(2, 6)), replace=False).tolist()
        values = {name: round(float(truth[name]), decimals) for name in chosen}
        if trial % 2:
            changed = chosen[int(rng.integers(len(chosen)))]
            values[changed] = round(values[changed] - int(rng.integers(1, 30)) * 10**-decimals, decimals)
        printed = [(name, read_share(f"{value:.{decimals}f}")) for name, value in values.items()]
        scores = {KEPT[name]: value for name, value in values.items()}
        theirs = check_1_testset_no_kfold({"p": p, "n": n}, scores, eps=0.5 * 10**-decimals)
        yield trial % 2 == 1, len(fitting_matrices(printed, p, n)), theirs, printed, (p, n)


def test_agrees_with_the_kept_library_on_hundreds_of_matrices():
    names = [name for name in KEPT if name not in ("kappa", "mcc")]
    impossible = 0
    for tampered, ours, theirs, printed, _ in _compare(20, names):
        assert (ours == 0) == theirs["inconsistency"], printed
        assert tampered or ours > 0
        impossible += ours == 0
    assert 40 < impossible <= 150, "both verdicts must occur often"


def test_where_kappa_or_mcc_is_printed_the_kept_library_is_the_more_lenient():
    """It solves these two by intervals and may keep a matrix that does not print so; what we keep it keeps."""
    differ = 0
    for _, ours, theirs, printed, (p, n) in _compare(21, list(KEPT)):
        if theirs["inconsistency"]:
            assert ours == 0
        elif ours == 0:
            differ += 1
            shown = matrix_measures(theirs["evidence"]["tp"], theirs["evidence"]["tn"], p, n)
            off = [name for name, number in printed if abs(shown[name] - number.value) > number.unit / 2 + 1e-5]
            assert set(off) & {"kappa", "mcc"}, printed
    assert differ <= 9, "of 300"


def test_agrees_with_the_kept_library_on_the_shipped_papers():
    compared = 0
    for path in shipped_papers():
        paper = load_paper(path)
        for result in paper.results:
            found = [(name, number) for name, number in printed_measures(paper, result) if name in KEPT]
            matrices = possible_matrices(paper, result)
            pairs = supports_of(paper, result) or list(zip(matrices["p"], matrices["n"], strict=True))[:1]
            pairs = pairs or [(1600, 700)]  # whatever the images: these numbers contradict each other
            if len(found) < 2 or (not len(matrices) and result.name != "ALLNET"):
                continue
            p, n = map(int, pairs[0])
            scores = {KEPT[name]: number.value for name, number in found}
            eps = {KEPT[name]: number.unit / 2 for name, number in found}
            theirs = check_1_testset_no_kfold({"p": p, "n": n}, scores, eps=eps)
            assert theirs["inconsistency"] == (len(fitting_matrices(found, p, n)) == 0), path.stem
            compared += 1
    assert compared >= 6


# ---- what follows from printed numbers ---------------------------------------------------------------------


def test_digits_give_away_the_classes():
    """Invented: 900 of 1,000 and 401 of 487 right, printed with four decimals of a percent."""
    printed = [("accuracy", percent(100 * 1301 / 1487, 4)), ("sensitivity", percent(90, 4)),
               ("specificity", percent(100 * 401 / 487, 4))]  # fmt: skip
    assert search_classes(printed, 1487) == [(1000, 487, 900, 401)]
    assert search_classes([(name, percent(100 * number.value, 0)) for name, number in printed], 1487) == []


def test_what_the_others_imply():
    measures = {"accuracy": read_share("87 %"), "sensitivity": read_share("90 %"), "specificity": read_share("80 %")}
    low, high = implied_prevalence(measures)
    assert low < 0.7 < high
    assert implied_ranges(measures)["accuracy"] == pytest.approx((0.795, 0.905))
    alike = measures | {"specificity": read_share("90 %")}
    assert implied_prevalence(alike) is None
    assert implied_prevalence({"accuracy": measures["accuracy"]}) is None


def test_sets_of_subjects_are_counted():
    sizes = [3, 5, 8]
    ways = subset_counts(sizes)
    assert ways.tolist() == [1, 0, 0, 1, 0, 1, 0, 0, 2, 0, 0, 1, 0, 1, 0, 0, 1]
    assert subset_counts([]).tolist() == [1]
    groups = subject_sizes("training")
    assert {label: sum(sizes) for label, sizes in groups.items()} == known_parts().loc[
        "training", ["ALL", "HEM"]
    ].to_dict()
    assert len(groups["HEM"]) < 26, "subjects who share an image are one"
    assert sets_of_subjects({"ALL": 1, "HEM": 1}, "training") == {"ALL": 0, "HEM": 0}
    share = sets_of_subjects({"HEM": 509}, "training")["HEM"]
    assert 1e-4 < share < 0.1


# ---- verdicts ----------------------------------------------------------------------------------------------


def _verdicts(name):
    table = referee.referee_paper(load_paper(name))
    return dict(zip(table["claim"], table["verdict"], strict=True)), " | ".join(table["found"])


def test_a_true_paper_is_confirmed_and_one_wrong_digit_is_found():
    good = {"accuracy": "87.22 %", "sensitivity": "90.83 %", "specificity": "80.00 %", "precision": "90.08 %"}
    assert not (referee.referee_paper(_paper(**good))["verdict"] == "contradicted").any()
    for name, value in good.items():
        digits = value.replace(" %", "")
        for step in (-0.3, 0.3):
            wrong = good | {name: f"{float(digits) + step:.2f} %"}
            assert (referee.referee_paper(_paper(**wrong))["verdict"] == "contradicted").any(), wrong


def test_digits_that_were_cut_off_are_no_contradiction():
    table = referee.referee_paper(_paper(accuracy="87.22 %", sensitivity="90.83 %", precision="90.08 %"))
    cut = referee.referee_paper(_paper(accuracy="87.2 %", sensitivity="90.8 %", f1="90.4 %"))  # 90.456 … would be 90.5
    assert "contradicted" not in set(table["verdict"])
    (row,) = [row for row in cut.to_dict("records") if row["claim"].startswith("One confusion matrix")]
    assert row["verdict"] == "inconclusive"
    assert "cut off" in row["found"]


def test_the_seed_paper_as_one_file_among_others():
    found, text = _verdicts("oguluri")
    assert found["How many images the data have"] == "contradicted"
    assert found["Images were added before training"] == "contradicted"
    assert found["One confusion matrix stands behind all measures (MobileNet, test part)"] == "confirmed"
    assert "1,032 of 1,091 and 252 of 509" in text
    assert "7,462" in text
    assert "1,599" in text
    assert sum(claim.startswith("The accuracy is that of images not learned from") for claim in found) == 2


def test_other_papers():
    found, text = _verdicts("sampathila")
    assert [found[claim] for claim in found if "belongs to the other measures" in claim] == ["contradicted"] * 2
    found, text = _verdicts("mattapalli-athavale")
    assert "1,397 of 1,447 and 573 of 692" in text
    assert found["How many images the data have"] == "contradicted"
    found, text = _verdicts("abd-el-aziz")
    assert found["The sizes are the stated shares"] == "contradicted"
    found, text = _verdicts("albzour")
    assert set(found.values()) == {"confirmed"}
    found, text = _verdicts("braga-dantas")
    assert found["How many subjects the data have"] == "contradicted"
    assert found["How many images the data have"] == "confirmed"


def test_at_least_six_others_are_shipped_with_source_and_place():
    loaded = [load_paper(path) for path in shipped_papers()]
    assert len(loaded) >= 7
    for paper in loaded:
        assert re.search(r"DOI 10\.|arXiv \d{4}\.\d+|\w+\.\w+/|the paper that this kit", paper.source), paper.source
        assert all(result.where for result in paper.results)
        assert len(referee.referee_paper(paper))
    table = referee.referee_shipped()
    assert len(table) == len(loaded)
    assert (table[["confirmed", "contradicted", "inconclusive"]].sum() > 0).all()


def test_intervals_by_subject_are_the_wider_ones():
    table = referee.shipped_intervals()
    width = (table["high"] - table["low"]).unstack()
    assert len(width) >= 5
    assert (width["cells of a subject alike"] > 1.3 * width["cells independent"]).all()


def test_another_data_set_is_not_held_against_the_list():
    text = "title: T\nsource: S\ndata: {name: ALL-IDB, images: 260, subjects: 59}\nresults:\n"
    text += "  - measures: {accuracy: 96.15 %}\n"
    table = referee.referee_paper(parse_paper(text))
    assert not table["claim"].str.contains("How many").any()
    assert "contradicted" not in set(table["verdict"])


# ---- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "words"), [
    ("", "holds no keys"), ("- a\n- b", "holds no keys"), ("title: [", "no YAML"),
    ("title: T", "source is missing; add a line source"),
    ("title: T\nsource: S\nsplitt: {}", "did you mean split?"),
    ("title: T\nsource: S\ndata: {imagess: 3}", "did you mean images?"),
    ("title: T\nsource: S\ndata: {images: many}", "no count"),
    ("title: T\nsource: S\nresults: [{part: tests}]", "number 1 › part"),
    ("title: T\nsource: S\nresults: [{measures: {acuracy: 0.9}}]", "did you mean accuracy?"),
    ("title: T\nsource: S\nresults: [{measures: {accuracy: high}}]", "no share"),
    ("title: T\nsource: S\nresults: [{support: {sick: 3}}]", "there are ALL, HEM"),
    ("title: T\nsource: S\nresults: [{report: {ALL: 0.9 0.8}}]", "write precision, recall, f1"),
    ("title: T\nsource: S\nresults: [{matrix: {ALL: 3 4 5, HEM: 1 2}}]", "two rows of two counts"),
])  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(text, words):
    with pytest.raises(AllkitError, match=re.escape(words)):
        parse_paper(text, "mine.yaml")


def test_a_small_table_will_do(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("﻿Measure;Value;Model;Part\naccuracy;87.22 %;net;test\nsensitivity;90,83 %;net;test\n"
                    "support ALL;120;net;test\nsupport HEM;60;net;test\n", encoding="utf-8")  # fmt: skip
    table = referee.referee_paper(load_paper(path))
    assert "1 possible matrix" in " ".join(table["found"])
    path.write_text("measure,value\naccuracy,0.9\naccuracy,0.8\n", encoding="utf-8")
    with pytest.raises(AllkitError, match="stands there twice"):
        load_paper(path)
    with pytest.raises(AllkitError, match="is no file"):
        load_paper(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"title: caf\xe9\nsource: x")
    with pytest.raises(AllkitError, match="UTF-8"):
        load_paper(tmp_path / "latin.yaml")


def test_the_template_is_a_paper_once_it_is_filled_in():
    template = shipped_papers()[0].with_name("template.yml")
    assert template not in shipped_papers()
    with pytest.raises(AllkitError, match="as printed"):
        parse_paper(template.read_text(encoding="utf-8").replace("accuracy:", "accuracy: as printed"))
    assert len(referee.referee_paper(load_paper(template))) == 0


# ---- page and command --------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_escapes_everything(tmp_path):
    hostile = parse_paper(
        "title: <script>alert(1)</script>\nsource: '<img src=x>'\nresults:\n  - name: <b>net</b>\n"
        "    support: {ALL: 120, HEM: 60}\n    measures: {accuracy: 87.32 %}\n"
    )
    page = write_verdicts([hostile, load_paper("pan")], tmp_path / "v.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>net" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"<[^>]*(src|href)=", page)
    assert "✗ contradicted" in page
    assert "✓ confirmed" in page


def test_command(monkeypatch, capsys, tmp_path):
    code, out, _ = run_command(monkeypatch, capsys, "referee")
    assert code == 0
    assert len(out.splitlines()) == 1 + len(shipped_papers())
    code, out, err = run_command(monkeypatch, capsys, "referee", "kassani", "--out", str(tmp_path / "k.html"))
    assert (code, "INCONCLUSIVE" in out, "k.html" in err) == (0, True, True)
    assert (tmp_path / "k.html").is_file()
    code, out, _ = run_command(monkeypatch, capsys, "referee", "pan", "--json")
    (rows,) = json.loads(out).values()
    assert {row["verdict"] for row in rows} == {"confirmed"}
    code, _, err = run_command(monkeypatch, capsys, "referee", "nobody")
    assert code != 0
    assert "is no file" in err
    assert "Traceback" not in err


def test_cells_of_a_genuine_subject_are_about_as_alike_as_is_assumed(cnmc_folder, weights_home, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(weights_home))
    index = load_index(cnmc_folder)
    rows = index[index["label"].notna() & (index["part"] == "train")].groupby("subject").head(60)
    network = frozen_features(rows, weights="imagenet", alpha=0.75, crop=300, layers=DEPTHS)
    alike = {name: _intraclass(predict_cells(rows, numbers)) for name, numbers in
             {"network": network, "measured": measure_numbers(rows)}.items()}  # fmt: skip
    assert SUBJECT_SHARE / 2 < alike["network"] < 2 * SUBJECT_SHARE
    assert alike["measured"] > SUBJECT_SHARE


def _intraclass(cells):
    """Return the intraclass correlation of being right, by analysis of variance within classes."""
    right = (predicted_labels(cells) == cells["label"]).astype(float)
    right -= right.groupby(cells["label"]).transform("mean")
    of = right.groupby(cells["group"])
    sizes, means = of.size(), of.mean()
    subjects, images = len(sizes), sizes.sum()
    between = (sizes * means**2).sum() / (subjects - 2)
    within = ((right - of.transform("mean")) ** 2).sum() / (images - subjects)
    typical = (images - (sizes**2).sum() / images) / (subjects - 1)
    return (between - within) / (between + (typical - 1) * within)
