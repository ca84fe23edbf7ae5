"""Predictions and embeddings that were made elsewhere: how they are read, refused, judged and compared."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from commands import run_command
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from allkit import AllkitError, splits
from allkit.classical import evaluate_baseline, row_keys
from allkit.evaluate import compare_predictions, evaluate_calibration, evaluate_predictions, evaluate_with_intervals
from allkit.judging import tables
from allkit.judging.tables import load_file
from allkit.lessons import predictions
from allkit.lists import as_text_cells
from allkit.source import COLUMNS
from allkit.splits import LeakError
from allkit.synthetic import draw_numbers

COSTS = {"prevalence": 0.1, "cost_missed": 5, "cost_false_alarm": 1}


def make_table(subjects=12, cells=6, seed=0, skill=1.0):
    """Images of as many subjects, half of each class, whose subjects differ."""
    rng, rows = np.random.default_rng(seed), []
    for person in range(subjects):
        label, shift = ("ALL", "HEM")[person % 2], rng.normal()
        for cell in range(cells):
            p = 1 / (1 + np.exp(-(skill * (1 if label == "ALL" else -1) + shift + rng.normal())))
            rows.append((f"cells/s{person}c{cell}.png", label, f"P{person}", p, 1 - p))
    return pd.DataFrame(rows, columns=["path", "label", "subject", "p_ALL", "p_HEM"])


@pytest.fixture
def save(tmp_path):
    """Write a table (or text, or bytes) to a file, and return its path."""

    def write(content, name="predictions.csv", **options):
        path = tmp_path / name
        if isinstance(content, pd.DataFrame):
            content = content.to_csv(index=False, **options)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def run(monkeypatch, capsys, *words):
    """Return exit code, stdout and stderr of `allkit evaluate WORDS`."""
    return run_command(monkeypatch, capsys, "evaluate", *words)


# reading


def as_excel(table):
    return "﻿" + table.to_csv(index=False, sep=";", decimal=",")


FORMS = {
    "as it is": lambda table: table.to_csv(index=False),
    "semicolons, decimal commas, BOM": as_excel,
    "tabs": lambda table: table.to_csv(index=False, sep="\t"),
    "UTF-16": lambda table: table.to_csv(index=False).encode("utf-16"),
    "a note to spreadsheets, lines that are blank": lambda table: "sep=;\n" + as_excel(table)[1:] + ";;;;\n\n",
    "other words": lambda table: table.rename(
        columns={"path": "Image", "label": "class", "subject": "patient_id"}
    ).to_csv(),
    "classes' own names": lambda table: table.rename(columns={"p_ALL": "all", "p_HEM": "HEM"}).to_csv(index=False),
    "one column of two": lambda table: table.drop(columns="p_HEM").to_csv(index=False),
    "score": lambda table: table.rename(columns={"p_ALL": "score"}).drop(columns="p_HEM").to_csv(index=False),
    "columns turned round": lambda table: table[table.columns[::-1]].to_csv(index=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_table_in_every_form_is_read_alike(form, save):
    table = make_table()
    found = load_file(save(FORMS[form](table))).rows
    assert list(found) == ["path", "label", "subject", "group", "p_ALL", "p_HEM"]
    assert found[["path", "label"]].equals(table[["path", "label"]].astype(found["path"].dtype))
    assert found["subject"].tolist() == table["subject"].tolist()
    np.testing.assert_allclose(found[["p_ALL", "p_HEM"]], table[["p_ALL", "p_HEM"]], atol=1e-12)


def test_parquet_is_read_as_csv_is(tmp_path):
    table = make_table()
    table.to_parquet(tmp_path / "p.parquet")
    found = load_file(tmp_path / "p.parquet").rows
    np.testing.assert_allclose(found["p_ALL"], table["p_ALL"], atol=0)
    assert found["group"].tolist() == table["subject"].tolist()


def test_a_row_too_long_or_too_short_is_refused(save):
    text = make_table().to_csv(index=False)
    for broken in (text + "a,ALL,P1,0.5\n", text + "a,ALL,P1,0.5,0.5,0.5\n"):
        with pytest.raises(AllkitError, match=r"row 74: \d fields, but the header has 5"):
            load_file(save(broken))


def put(column, value, rows=3):
    return lambda table: table.assign(**{column: [value] * rows + table[column].tolist()[rows:]})


REFUSED = {
    "logits": (lambda t: t.assign(p_ALL=8 * t["p_ALL"] - 4, p_HEM=4 - 8 * t["p_ALL"]), "look like logits.*softmax"),
    "percentages": (lambda t: t.assign(p_ALL=100 * t["p_ALL"], p_HEM=100 * t["p_HEM"]), "percentages"),
    "sigmoids": (lambda t: t.assign(p_HEM=t["p_HEM"] ** 3), "add up to .* not to 1"),
    "missing number": (put("p_ALL", np.nan), r"p_ALL is missing, or no number, for 3 images \(cells/s0c0"),
    "word": (put("p_ALL", "high"), "p_ALL is missing, or no number"),
    "infinity": (put("p_ALL", np.inf), "p_ALL is missing, or no number"),
    "twice": (lambda t: pd.concat([t, t.head(2)]), "2 rows are there again"),
    "no path": (put("path", ""), "3 rows have no path"),
    "no label": (put("label", "?"), "3 images have no label"),
    "unknown label": (put("label", "AML"), "'AML' needs a column p_AML"),
    "one class": (lambda t: t[t["label"] == "HEM"], "all images are of one class"),
    "no row": (lambda t: t.head(0), "no row"),
    "no column label": (lambda t: t.drop(columns="label"), "no column label"),
    "no column path": (lambda t: t.drop(columns="path"), r"needs path \(or id\)"),
    "no probability": (lambda t: t[["path", "label", "subject"]], "needs a column p_ALL"),
    "two columns for one": (lambda t: t.drop(columns="subject").assign(patient=1, donor=2), "may both be subject"),
    "markup": (put("subject", "<b>"), "cannot be shown"),
    "unknown part": (lambda t: t.assign(part="mine"), "part 'mine' is not known"),
    "no test part": (lambda t: t.assign(split="train"), "no row of the part test"),
    "subjects numbered anew": (
        lambda t: t.assign(subject=t.groupby("label")["subject"].transform(lambda of: pd.factorize(of)[0])),
        "numbered anew",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_judged_is_refused_in_a_sentence(what, save):
    change, words = REFUSED[what]
    with pytest.raises(AllkitError, match=words):
        load_file(save(change(make_table())))


def test_other_files_are_refused_in_a_sentence(save, tmp_path):
    for content, name, words in [
        (b"", "empty.csv", "is empty"),
        (b"path,label\n\xff\xfe\xfa,ALL\n", "latin.csv", "cannot be read"),
        (b"no", "it.xlsx", "give a .csv"),
        (b"no", "it.parquet", "cannot be read"),
        (b"no", "it.npz", "cannot be read"),
    ]:
        with pytest.raises(AllkitError, match=words):
            load_file(save(content, name))
    with pytest.raises(AllkitError, match="does not exist"):
        load_file(tmp_path / "nowhere.csv")


def test_nobody_guesses_which_of_two_unknown_classes_is_to_be_found(save):
    path = save(make_table().replace({"ALL": "a", "HEM": "b"}).rename(columns={"p_ALL": "p_a", "p_HEM": "p_b"}))
    with pytest.raises(AllkitError, match="--positive"):
        load_file(path)
    assert list(load_file(path, positive="b").rows)[-2:] == ["p_b", "p_a"]
    with pytest.raises(AllkitError, match="none of a, b"):
        load_file(path, positive="c")


def test_unknown_subjects_are_said_aloud_and_a_few_are_as_bad_as_all(save):
    table = make_table()
    for known in (table.drop(columns="subject"), put("subject", "")(table)):
        loaded = load_file(save(known))
        assert any("UNKNOWN" in note and "too narrow" in note for note in loaded.notes)
        assert set(evaluate_with_intervals(loaded.rows, resamples=20)["resampled"]) == {"images"}


def test_spellings_of_a_subject_are_one_person_and_mixed_labels_are_named(save):
    table = make_table().replace({"subject": {"P0": "p0", "P1": "01", "P3": "1.0"}})
    loaded = load_file(save(pd.concat([table, table.head(1).assign(path="x.png", subject="P0", label="HEM")])))
    assert loaded.rows["subject"].nunique() == 11
    assert any("1 subjects have images of several classes (p0)" in note for note in loaded.notes)


def test_names_of_cnmc_give_subject_label_and_group(save):
    names = [f"fold_0/{label.lower()}/UID_{person}_{k}_1_{label.lower()}.bmp"
             for label, people in (("ALL", (20, 21, 11)), ("HEM", ("h3", "H10", "H14"))) for person in people
             for k in range(3)]  # fmt: skip
    table = pd.DataFrame({"id": names, "p_ALL": np.linspace(0.9, 0.1, len(names))})
    loaded = load_file(save(table))
    assert loaded.rows["label"].tolist() == ["ALL"] * 9 + ["HEM"] * 9
    assert loaded.rows["subject"].unique().tolist() == ["20", "21", "11", "H3", "H10", "H14"]
    assert loaded.rows["group"].nunique() == 4, "20 and 21 share images, H3 and H10 too"
    assert sum("C-NMC" in note for note in loaded.notes) == 2
    with pytest.raises(AllkitError, match="1 labels contradict the files' names"):
        load_file(save(table.assign(label=["HEM"] + ["ALL"] * 8 + ["HEM"] * 9)))


def test_test_rows_alone_are_judged_and_a_shared_subject_is_a_leak(save):
    table = make_table(16)
    parts = np.where(table["subject"].isin(["P0", "P1", "P2", "P3"]), "training", "Test")
    loaded = load_file(save(table.assign(split=parts)))
    assert (len(loaded.rows), len(loaded.train)) == (12 * 6, 4 * 6)
    parts[:3] = "test"
    path = save(table.assign(part=parts))
    with pytest.raises(LeakError, match="1 subjects are both in train and in test: P0"):
        load_file(path)
    assert load_file(path, allow_leak=True).leaks
    groups = table["subject"].replace("P5", "P0")
    with pytest.raises(LeakError, match="linked by identical images"):
        load_file(save(table.assign(part=np.where(table["subject"] == "P0", "train", "test"), group=groups)))


def test_a_saved_table_of_a_run_is_read_as_it_is(save, tmp_path):
    table = make_table().assign(group=lambda t: t["subject"].replace("P2", "P0"))
    table = table[["path", "label", "subject", "group", "p_ALL", "p_HEM"]].assign(path="=" + table["path"])
    found = load_file(save(as_text_cells(table))).rows
    assert found["path"].tolist() == table["path"].tolist()
    assert found["group"].nunique() == 11
    assert (found["p_ALL"] == table["p_ALL"]).all()


# measures


def test_measures_agree_with_scikit_learn_on_random_tables(save):
    for seed in range(5):
        table = make_table(seed=seed)
        found = evaluate_predictions(load_file(save(table)).rows)
        truth, score = table["label"] == "ALL", table["p_ALL"]
        called = np.where(score >= 0.5, "ALL", "HEM")
        expected = {
            "auc": roc_auc_score(truth, score),
            "balanced_accuracy": balanced_accuracy_score(table["label"], called),
            "weighted_f1": f1_score(table["label"], called, average="weighted"),
            "brier": brier_score_loss(truth, score),
            "log_loss": log_loss(truth, score),
        }
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-12), name


def test_leaving_the_subjects_out_makes_intervals_narrower_and_the_sentence_says_by_how_much():
    table = make_table(20, 30).assign(group=lambda t: t["subject"])
    by_unit = predictions.compare_units(table)
    wide, narrow = (by_unit.loc[("auc", f"{unit} resampled")] for unit in ("subjects", "images"))
    ratio = (narrow["high"] - narrow["low"]) / (wide["high"] - wide["low"])
    assert ratio < 0.7
    assert f"{ratio:.2f} times as wide" in predictions.describe_units(by_unit)
    assert "inconclusive" in predictions.describe_units(predictions.compare_units(table.assign(subject=None)))
    few = table[table["subject"].isin([f"P{k}" for k in range(6)])]
    assert "inconclusive" in predictions.describe_units(predictions.compare_units(few))


def test_intervals_by_subject_hold_the_truth_more_often_than_those_by_image():
    studies = predictions.simulate_studies(draw_numbers, subject_effect=2, studies=20)
    assert studies.loc["subjects", "holds"] >= 0.75
    assert studies.loc["images", "holds"] <= studies.loc["subjects", "holds"] - 0.2
    assert studies.loc["images", "width"] < 0.7 * studies.loc["subjects", "width"]
    assert f"over images in **{studies.loc['images', 'holds']:.0%}**" in predictions.describe_studies(studies)


def test_a_threshold_is_chosen_on_other_subjects(monkeypatch):
    table, seen = make_table(20, 6).assign(group=lambda t: t["subject"]), []
    choose = predictions.choose_threshold
    monkeypatch.setattr(predictions, "choose_threshold", lambda rows, costs: seen.append(rows) or choose(rows, costs))
    found = predictions.evaluate_costs(table, **COSTS)
    assert len(seen) == 11
    assert all(rows["group"].nunique() < 20 for rows in seen[:-1])
    apart, same = (found.loc[way].loc["cost_per_1000"] for way in ("on other subjects", "on the same images"))
    assert same["value"] <= apart["value"]
    text = predictions.describe_costs(found, **COSTS)
    assert f"**{apart['value']:.0f}** per 1,000" in text
    assert "without any model: 500" in text


def test_with_one_subject_of_a_class_a_threshold_chosen_on_others_is_inconclusive():
    table = make_table(20, 6).assign(group=lambda t: t["subject"]).query("label == 'ALL' or subject == 'P1'")
    found = predictions.evaluate_costs(table, **COSTS)
    assert found.loc["on other subjects", "value"].isna().all()
    assert found.loc["on the same images"].loc["cost_per_1000", "value"] >= 0
    assert "inconclusive" in predictions.describe_costs(found, **COSTS)


def test_choosing_on_the_same_images_flatters_on_average():
    gaps = []
    for seed in range(15):
        table = make_table(12, 6, seed=seed, skill=0.3).assign(group=lambda t: t["subject"])
        found = predictions.evaluate_costs(table, prevalence=0.5, cost_missed=1, cost_false_alarm=1)
        cost = [found.loc[way].loc["cost_per_1000", "value"] for way in ("on other subjects", "on the same images")]
        gaps.append(cost[0] - cost[1])
    assert np.mean(gaps) > 20


# two files


def load(table, save, name="a.csv"):
    return load_file(save(table, name)).rows


def test_order_and_folders_of_the_second_file_do_not_matter(save):
    one, other = make_table(seed=1), make_table(seed=2)
    first, second = load(one, save), load(other, save)
    shuffled = other.sample(frac=1, random_state=0).assign(path=lambda t: "/elsewhere/" + t["path"])
    found = tables.align(first, load(shuffled, save))
    assert "below the common folder" in found[2]
    expected = compare_predictions(first, second)
    pd.testing.assert_frame_equal(compare_predictions(*found[:2]), expected)


def test_images_of_one_file_only_are_named_and_left_out_only_if_asked(save):
    first, second = load(make_table(), save), load(make_table().iloc[3:], save)
    with pytest.raises(AllkitError, match=r"3 images are in one file only \(cells/s0c0.png.*69 others: --common"):
        tables.align(first, second)
    one, other, note = tables.align(first, second, common=True)
    assert one["path"].tolist() == other["path"].tolist() == second["path"].tolist()
    assert "left out" in note
    with pytest.raises(AllkitError, match="another label"):
        tables.align(first, load(put("label", "HEM")(make_table()), save))
    with pytest.raises(AllkitError, match="another subject"):
        tables.align(first, load(put("subject", "P9")(make_table()), save))
    with pytest.raises(AllkitError, match="different classes"):
        tables.align(first, first.rename(columns={"p_ALL": "p_AML"}))


def test_subjects_that_one_file_lacks_are_taken_from_the_other(save):
    first, second = load(make_table().drop(columns="subject"), save), load(make_table(), save)
    one, other, _ = tables.align(first, second)
    assert one["subject"].tolist() == other["subject"].tolist() == second["subject"].tolist()


# embeddings


@pytest.fixture(scope="module")
def vectors():
    """Numbers of drawn cells as if a network had made them: (rows, numbers)."""
    rows = draw_numbers(10, 8, subject_effect=1, difficulty=1.5, seed=3)
    numbers = rows.drop(columns=[name for name in rows if name in COLUMNS]).to_numpy(np.float32)
    return rows[["path", "label", "subject"]], numbers


def test_embeddings_in_each_form_get_the_same_head(vectors, tmp_path, monkeypatch):
    rows, numbers = vectors
    monkeypatch.setattr(predictions, "STRENGTHS", (0.01, 1.0))
    text = {name: rows[name].to_numpy(str) for name in rows}
    np.savez(tmp_path / "e.npz", x=numbers, **text)
    rows.assign(vector=list(numbers)).to_parquet(tmp_path / "lists.parquet")
    pd.concat([rows, pd.DataFrame(np.tile(numbers, 3)).add_prefix("f")], axis=1).to_parquet(tmp_path / "wide.parquet")
    first = predictions.load_predictions(tmp_path / "e.npz")
    assert first.rows["path"].tolist() == rows["path"].tolist()
    assert evaluate_predictions(first.rows)["auc"] > 0.7
    assert "linear head" in first.notes[-1]
    second = predictions.load_predictions(tmp_path / "lists.parquet")
    pd.testing.assert_frame_equal(first.rows, second.rows)
    assert predictions.load_predictions(tmp_path / "wide.parquet").rows["p_ALL"].between(0, 1).all()


def test_the_head_learns_from_other_groups_only_and_agrees_with_the_kits_baseline(vectors, tmp_path, monkeypatch):
    rows, numbers = vectors
    np.savez(tmp_path / "e.npz", x=numbers, **{name: rows[name].to_numpy(str) for name in rows})
    monkeypatch.setattr(predictions, "STRENGTHS", (0.01,))
    loaded = load_file(tmp_path / "e.npz")
    found = predictions.predict_embeddings(loaded).rows.set_index("path")
    for rest, held in splits.grouped_folds(loaded.rows, 5):
        assert not set(rest["group"]) & set(held["group"])
        table = pd.DataFrame(numbers, index=row_keys(rows))
        expected = evaluate_baseline(rest, held, table, by_subject=True, C=0.01)
        np.testing.assert_allclose(found.loc[held["path"], "p_ALL"], expected["p_ALL"], atol=1e-9)


def test_labels_that_mean_nothing_are_not_learned(vectors, tmp_path, monkeypatch):
    (rows, numbers), aucs = vectors, []
    monkeypatch.setattr(predictions, "STRENGTHS", (0.01, 1.0))
    for seed in range(4):
        people = rows["subject"].drop_duplicates()
        drawn = dict(zip(people, np.random.default_rng(seed).permutation(["ALL", "HEM"] * 10), strict=True))
        text = {"path": rows["path"], "label": rows["subject"].map(drawn), "subject": rows["subject"]}
        np.savez(tmp_path / "e.npz", x=numbers, **{name: of.to_numpy(str) for name, of in text.items()})
        aucs.append(evaluate_predictions(predictions.load_predictions(tmp_path / "e.npz").rows)["auc"])
    assert 0.3 < np.mean(aucs) < 0.65


def test_the_same_vector_under_two_subjects_makes_them_one_group(vectors, tmp_path):
    rows, numbers = vectors
    twice = np.vstack([numbers, numbers[:1]])
    more = pd.concat([rows, rows.iloc[[40]].assign(path="copy")])
    np.savez(tmp_path / "e.npz", x=twice, **{name: more[name].to_numpy(str) for name in rows})
    assert load_file(tmp_path / "e.npz").rows["group"].nunique() == 19


def test_a_training_part_of_embeddings_is_learned_from_and_the_test_part_judged(vectors, tmp_path, monkeypatch):
    rows, numbers = vectors
    monkeypatch.setattr(predictions, "STRENGTHS", (0.01, 1.0))
    part = np.where(rows["subject"].str.extract(r"(\d+)$")[0].astype(int) < 6, "train", "test")
    np.savez(tmp_path / "e.npz", x=numbers, part=part, **{name: rows[name].to_numpy(str) for name in rows})
    loaded = predictions.load_predictions(tmp_path / "e.npz")
    assert loaded.rows["path"].tolist() == rows["path"][part == "test"].tolist()
    assert "training part" in loaded.notes[-1]


def test_npz_that_runs_code_or_unpacks_to_too_much_is_refused(vectors, tmp_path, monkeypatch):
    rows, numbers = vectors
    text = {name: rows[name].to_numpy(str) for name in rows}
    np.savez(tmp_path / "e.npz", x=numbers, **(text | {"path": rows["path"].to_numpy(object)}))
    with pytest.raises(AllkitError, match="Object arrays cannot be loaded"):
        load_file(tmp_path / "e.npz")
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((len(rows), 20_000), np.float32), **text)
    monkeypatch.setattr(tables, "MOST_BYTES", 2**22)
    assert (tmp_path / "bomb.npz").stat().st_size < 2**20
    with pytest.raises(AllkitError, match="at most"):
        load_file(tmp_path / "bomb.npz")
    header = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**3)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(AllkitError, match="at most"):
        load_file(tmp_path / "lie.npz")
    rows.assign(x=[[0.0] * 9_000] * len(rows)).to_parquet(tmp_path / "bomb.parquet")
    with pytest.raises(AllkitError, match="at most"):
        load_file(tmp_path / "bomb.parquet")


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_embeddings_with_holes_are_refused(broken, vectors, tmp_path):
    rows, numbers = vectors
    numbers = numbers.copy()
    numbers[3, 1], numbers[5] = broken, 0
    np.savez(tmp_path / "e.npz", x=numbers, **{name: rows[name].to_numpy(str) for name in rows})
    with pytest.raises(AllkitError, match="2 embeddings hold NaN, infinity or one number only"):
        load_file(tmp_path / "e.npz")


# the command


def test_the_command_prints_measures_threshold_comparison_and_writes_card_and_table(
    save, monkeypatch, capsys, tmp_path
):
    first = save(make_table(seed=1).replace({"subject": {"P3": "Ann | <b"[:5]}}), "one.csv")
    second = save(
        make_table(seed=1, skill=3).replace({"subject": {"P3": "Ann |"}}).sample(frac=1, random_state=1), "two.csv"
    )
    words = [first, second, "--prevalence", "0.1", "--cost-missed", "5", "--card", tmp_path / "card"]
    code, out, err = run(monkeypatch, capsys, *words, "--out", tmp_path / "judged.csv")
    assert (code, err) == (0, "")
    found = evaluate_with_intervals(load_file(first).rows).loc["auc"]
    assert f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})" in out
    assert "over subjects, of which the smaller class has 6" in out
    assert "Chosen on other subjects" in out
    assert "**" not in out
    assert "second" in out.partition("First minus second")[2]
    pd.testing.assert_frame_equal(load_file(tmp_path / "judged.csv").rows, load_file(first).rows)
    page = BeautifulSoup((tmp_path / "card" / "card.html").read_text(encoding="utf-8"), "html.parser")
    assert f"{found['value']:.3f} ({found['low']:.3f}" in page.text
    assert "Not a diagnosis" in page.text
    assert not page.find_all(src=True)
    assert not page.find_all("link")
    assert all(table.caption for table in page.find_all("table"))


def test_the_command_speaks_json(save, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, save(make_table()), "--json", "--prevalence", "0.1")
    said = json.loads(out)
    assert code == 0
    assert said["files"][0]["measures"]["auc"]["resampled"] == "subjects"
    assert len(said["files"][0]["calibration"]) == len(evaluate_calibration(load_file(save(make_table())).rows))
    assert said["first minus second"] is None


def test_too_few_subjects_are_inconclusive(save, monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, save(make_table(6, 40)))
    assert "3 subjects: fewer than 5, so every interval is inconclusive" in out
    assert "interval inconclusive" in out


def test_the_command_refuses_in_one_sentence(save, monkeypatch, capsys):
    table = make_table()
    path = save(table.assign(p_ALL=8 * table["p_ALL"] - 4))
    code, out, err = run(monkeypatch, capsys, path)
    assert (code, out) == (1, "")
    assert "look like logits" in err
    assert len(err.splitlines()) == 1


def test_more_than_two_classes(save, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    labels = np.repeat(["ALL", "AML", "HEM"], 60)
    proba = rng.dirichlet([1, 1, 1], 180) + 2 * (labels[:, None] == ["ALL", "AML", "HEM"])
    table = pd.DataFrame(proba / proba.sum(axis=1, keepdims=True), columns=["p_ALL", "p_AML", "p_HEM"])
    table.insert(0, "id", np.arange(180))
    table.insert(1, "label", labels)
    table.insert(2, "patient", [f"Q{k // 10}" for k in range(180)])
    path = save(table)
    assert run(monkeypatch, capsys, path)[0] == 0
    assert load_file(path).rows["path"].tolist()[:2] == ["0", "1"]


def test_no_tensorflow_is_imported(save):
    path = save(make_table())
    code = (
        f"import sys; from allkit import cli; sys.argv = ['allkit', 'evaluate', {str(path)!r}, '--card', "
        f"{str(path.parent)!r}, '--prevalence', '0.1']\ntry: cli.main()\n"
        "finally: print(sorted(set(sys.modules) & {'tensorflow', 'keras', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done.stderr
    assert (path.parent / "card.html").is_file()
