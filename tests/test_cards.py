"""Runs listed and compared, and the model card: computed from the folder, silent where there is no verdict."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from commands import run_command
from sklearn.metrics import brier_score_loss, roc_auc_score

from allkit.course.card import write_card
from allkit.course.ledger import compare_runs, find_runs, list_runs
from allkit.evaluate import compare_predictions, evaluate_with_intervals, wilson_interval
from allkit.models import TrainedModel
from allkit.runs import open_run, read_json, save_json, save_training
from allkit.train import Training, get_profile


def make_predictions(subjects: int = 12, cells: int = 6, seed: int = 0, skill: float = 1.0) -> pd.DataFrame:
    """Test images of as many subjects, half of each class, in folders like those of C-NMC."""
    rng, rows = np.random.default_rng(seed), []
    for person in range(subjects):
        label = ("ALL", "HEM")[person % 2]
        for cell in range(cells):
            logit = skill * (1 if label == "ALL" else -1) + rng.normal()
            p = 1 / (1 + np.exp(-logit))
            path = f"/data/fold_{person % 3}/{label}/UID_{person}_{cell}.png"
            rows.append((path, label, str(person), str(person), p, 1 - p))
    return pd.DataFrame(rows, columns=["path", "label", "subject", "group", "p_ALL", "p_HEM"])


def make_index(source: str) -> pd.DataFrame:
    row = {"path": __file__, "name": "x", "label": "ALL", "subject": "1", "group": "1", "part": "train", "fold": 0}
    return pd.DataFrame([row]).assign(source=source)


def make_run(path, predictions, *, source="synthetic", test="t1", shares=False, classes=("ALL", "HEM"), **profile):
    """Save a training that left these predictions, as a notebook does; there is no network behind it."""
    run = open_run(path, index=make_index(source), profile="quick")
    settings = get_profile("quick", "mobilenet", **profile)
    unlike = {"measures": ["area"], "mean": [1], "scale": [1], "precision": [[1]], "limit": 3}
    parts = ("train", "validation", "test")
    metadata = {
        "model": "mobilenet", "title": "MobileNet", "classes": list(classes),
        "input": {"image_size": 96, "crop": 300, "values": "RGB, 0-255"},
        "data": {"source": source, "images": 300},
        "split": {"name": "subject", "note": "Nobody twice.", "shares_subjects": shares,
                  "images": dict(zip(parts, (200, 28, 72), strict=True)), "subjects": dict.fromkeys(parts, 12),
                  "classes": {part: dict.fromkeys(classes, 50) for part in parts},
                  "hash": {"train": "a1", "validation": "b1", "test": test}},
        "profile": json.loads(json.dumps(settings.__dict__, default=vars)), "seed": 123, "deterministic": False,
        "parameters": 3_228_864, "versions": {"allkit": "0.1.0"}, "training_seconds": 61.2, "best_epoch": 2,
        "hardware": {"processor": "Abacus", "cores": 2, "gpus": [], "system": "Linux"},
        "limits": {"images": 28, "threshold": 0.4567, "abstain": 0.2, "quality": {"area": [1200.0, 9000.0]},
                   "unlike": unlike},
    }  # fmt: skip
    training = Training(TrainedModel(None, metadata), pd.DataFrame({"epoch": [1, 2]}), 61.2, 0, 2)
    save_training(run, training, predictions, validation=predictions)
    return run.path


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    """Save the facts about a model without the model; resample less often than in earnest, to be quick."""

    def save_facts(trained, path):
        save_json(path.with_suffix(".json"), trained.metadata)

    monkeypatch.setattr("allkit.runs.save_model", save_facts)
    monkeypatch.setattr("allkit.runs.predict_index", lambda trained, rows: rows)
    monkeypatch.setattr("allkit.runs.build_limits", lambda trained, rows, answers: trained.metadata["limits"])
    for function in (evaluate_with_intervals, compare_predictions):
        monkeypatch.setitem(function.__kwdefaults__, "resamples", 40)
    monkeypatch.setenv("ALLKIT_RUNS", str(tmp_path))


def test_list_holds_metrics_with_intervals_hashes_and_what_was_changed(tmp_path):
    predictions = make_predictions()
    row = list_runs([make_run("one", predictions, epochs=3)]).iloc[0]
    expected = evaluate_with_intervals(predictions).loc["auc"]
    assert row["auc"] == pytest.approx(roc_auc_score(predictions["label"] == "ALL", predictions["p_ALL"]))
    assert [row["auc_low"], row["auc_high"]] == pytest.approx([expected["low"], expected["high"]])
    assert (row["resampled"], row["units"]) == ("subjects", 6)
    assert row["changed"] == {"epochs": 3}
    assert (row["run"], row["model"], row["data"], row["profile"]) == ("one", "MobileNet", "synthetic", "quick")
    assert (len(row["data_hash"]), len(row["split_hash"]), row["training_seconds"]) == (16, 16, 61.2)
    other = list_runs([make_run("two", predictions, test="t2")]).iloc[0]
    assert (other["data_hash"], other["changed"]) == (row["data_hash"], {})
    assert other["split_hash"] != row["split_hash"]


def test_too_few_subjects_and_broken_runs_are_all_listed(tmp_path, monkeypatch, capsys):
    make_run("few", make_predictions(subjects=6))
    odd = {"mobilenet": {"training_seconds": "long", "auc": [], "changed": 3, "intervals": [], "trained": 5}}
    for name, text in {"half": "{half", "list": "[]", "odd": json.dumps(odd)}.items():
        run = open_run(name, index=make_index("cnmc"), profile="quick")
        (run.path / "metrics.json").write_text(text)
    open_run("empty", index=make_index("cnmc"), profile="quick")
    (tmp_path / "no run").mkdir()
    code, out, err = run_command(monkeypatch, capsys, "runs")
    lines = {line.split()[0].rstrip(":"): line for line in out.splitlines() if line.strip()}
    assert (code, err) == (0, "")
    assert "(inconclusive)" in lines["few"]
    assert "subjects (3)" in lines["few"]
    assert "cannot be read" in lines["half"]
    assert "not a run's file" in lines["list"]
    assert "train the models again" in lines["odd"]
    assert "no model is trained yet" in lines["empty"]
    assert "no run:" not in out
    assert "Traceback" not in out


def test_newest_run_comes_first(tmp_path):
    for name, year in {"first": 2024, "third": 2026, "second": 2025}.items():
        path = make_run(name, make_predictions())
        metrics = read_json(path / "metrics.json")
        metrics["mobilenet"]["trained"] = f"{year}-01-01T00:00:00+00:00"
        save_json(path / "metrics.json", metrics)
    assert list(list_runs(find_runs())["run"]) == ["third", "second", "first"]


def test_list_as_json_has_null_where_it_cannot_be_told(monkeypatch, capsys):
    make_run("few", make_predictions(subjects=6))
    _, out, _ = run_command(monkeypatch, capsys, "runs", "--json")
    (row,) = json.loads(out)
    assert row["auc"] > 0.5
    assert row["auc_low"] is None
    assert row["resampled"] == "subjects"


def test_a_folder_without_runs_is_one_sentence(tmp_path, monkeypatch, capsys):
    code, _, err = run_command(monkeypatch, capsys, "runs", str(tmp_path / "nothing"))
    assert code == 1
    assert err.startswith("allkit: ")
    assert "allkit run" in err
    assert run_command(monkeypatch, capsys, "runs", "a", "b", "c")[0] == 2


def test_runs_on_the_same_images_are_compared_in_pairs(monkeypatch, capsys):
    good, poor = make_predictions(skill=3), make_predictions(skill=0.1)
    # the second run found the same data elsewhere
    poor["path"] = poor["path"].str.replace("/data/", "/moved/")
    first, second = make_run("good", good, epochs=3), make_run("poor", poor)
    found = compare_runs(first, second)
    row = found.measures["MobileNet"].loc["auc"]
    assert row["first"] - row["second"] == pytest.approx(row["difference"])
    assert row["verdict"] == "first"
    assert row["resampled"] == "subjects"
    assert found.settings[["model", "setting", "first", "second"]].values.tolist() == [
        ["MobileNet", "profile.epochs", "3", "8"]
    ]
    assert not found.notes
    _, out, _ = run_command(monkeypatch, capsys, "runs", "good", "poor")
    assert "paired bootstrap over subjects (6 in the smaller class)" in out


def test_runs_on_other_images_are_not_compared_and_it_says_why(tmp_path, monkeypatch, capsys):
    first, second = make_run("one", make_predictions()), make_run("two", make_predictions(), test="t2")
    found = compare_runs(first, second)
    assert not found.measures
    assert "different images" in found.notes["MobileNet"]
    assert found.settings["setting"].tolist() == ["split_hash.test"]
    code, out, _ = run_command(monkeypatch, capsys, "runs", "one", "two")
    assert code == 0
    assert "not compared" in out
    assert "the same in both runs, to the last digit" in run_command(monkeypatch, capsys, "runs", "two", "two")[1]
    (second / "predictions-mobilenet.csv").unlink()
    assert "not compared" in run_command(monkeypatch, capsys, "runs", "two", "two")[1]
    code, _, err = run_command(monkeypatch, capsys, "runs", "one", "nowhere")
    assert (code, "no run folder" in err) == (1, True)


def test_interval_of_a_share_is_wilsons_or_cannot_be_told():
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 15 of 148
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert np.isnan(wilson_interval(4, 4)).all()


def test_card_holds_what_was_computed_from_the_folder(tmp_path, monkeypatch, capsys):
    predictions = make_predictions()
    path = make_run("one", predictions, epochs=3)
    code, out, _ = run_command(monkeypatch, capsys, "card", "one")
    assert code == 0
    assert all(str(path / file) in out for file in ("card.html", "card.md"))
    found = evaluate_with_intervals(predictions)
    page = BeautifulSoup((path / "card.html").read_bytes(), "html.parser")
    for text in ((path / "card.md").read_text("utf-8"), page.text):
        text = " ".join(text.split())
        for name in ("auc", "balanced_accuracy", "recall_HEM"):
            row = found.loc[name]
            assert f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})" in text
        assert f"{brier_score_loss(predictions['label'] == 'ALL', predictions['p_ALL']):.3f} (" in text
        assert "Resampled: subjects, within each class; the class with the fewest has 6" in text
        wanted = ("Not a diagnosis", "synthetic test images", "3,228,864", "Abacus", "0.457", "1,200", "epochs = 3",
                  "fold 2", "61 s", "seed", "Wilson")  # fmt: skip
        assert [words for words in wanted if words not in text] == []


def test_card_page_can_be_read_by_everyone_and_loads_nothing(tmp_path):
    path = make_run(tmp_path / "a <b> & |pipe|", make_predictions())
    html, markdown = write_card(path, tmp_path / "elsewhere")
    assert html.parent == markdown.parent == tmp_path / "elsewhere"
    assert not (path / "card.html").exists()
    page = BeautifulSoup(html.read_text("utf-8"), "html.parser")
    assert page.html["lang"] == "en"
    assert page.find("meta", attrs={"name": "viewport"})
    levels = [int(tag.name[1]) for tag in page.find_all(["h1", "h2", "h3", "h4"])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    tables = page.find_all("table")
    assert len(tables) >= 8
    for table in tables:
        assert table.caption.text
        assert {cell["scope"] for cell in table.thead.find_all("th")} == {"col"}
        assert all(row.find("th", scope="row") for row in table.tbody.find_all("tr"))
        assert len({len(row.find_all(["th", "td"])) for row in table.find_all("tr")}) == 1
    assert not page.find_all(["script", "img", "link"])
    assert page.h1.text == "Model card of the run “a <b> & |pipe|”"
    assert "\n# Model card of the run “a \\<b\\>" in markdown.read_text("utf-8")


def test_every_row_of_a_markdown_table_has_as_many_cells(tmp_path):
    predictions = make_predictions().replace({"subject": {"3": "a|b\nc"}, "group": {"3": "a|b\nc"}})
    _, markdown = write_card(make_run("one", predictions))
    lines = markdown.read_text("utf-8").splitlines()
    count = {k: line.replace("\\|", "").count("|") for k, line in enumerate(lines) if line.startswith("|")}
    assert sum(set(line) <= set("| -") for line in lines if line.startswith("|")) >= 8, "each table has its rule"
    assert all(count[k] == count[k - 1] for k in count if k - 1 in count)
    assert "a\\|b c" in markdown.read_text("utf-8")


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        (make_predictions(subjects=6), "(interval inconclusive)"),
        (make_predictions(cells=4), "With fewer than 5 images the share is inconclusive"),
        (
            make_predictions().assign(subject=None),
            "subjects of the test images are unknown, so the verdict is inconclusive",
        ),
        (make_predictions().query("label == 'ALL'"), "| AUC | inconclusive |"),
    ],
)
def test_card_says_what_cannot_be_told(predictions, words):
    _, markdown = write_card(make_run("few", predictions.reset_index(drop=True)))
    assert words in markdown.read_text("utf-8")


def test_card_of_a_split_that_shares_people_says_so():
    _, markdown = write_card(make_run("leak", make_predictions(), source="cnmc", shares=True))
    text = markdown.read_text("utf-8")
    assert "the scores are too good for others" in text
    assert "synthetic" not in text.split("## Compute")[0]


def test_card_of_more_than_two_classes_without_subjects():
    rng, classes = np.random.default_rng(0), ("Benign", "Early", "Pre")
    proba = rng.dirichlet([1, 1, 1], 60)
    table = pd.DataFrame({"path": [f"{k}.png" for k in range(60)], "label": np.repeat(classes, 20), "subject": None})
    table = table.assign(group=table["path"], **{f"p_{name}": proba[:, k] for k, name in enumerate(classes)})
    path = make_run("smears", table, source="folders", classes=classes)
    text = write_card(path)[1].read_text("utf-8")
    assert "the intervals are too narrow" in text
    assert "no class has a probability of 0.200" in text
    assert "most probable class" in text
    assert "sensitivity" not in text
    assert "By official fold" not in text
    assert list_runs([path])["resampled"].item() == "images"


def test_card_begins_with_a_head_that_programs_read(tmp_path):
    yaml = pytest.importorskip("yaml")
    text = write_card(make_run(tmp_path / "a <b>", make_predictions()))[1].read_text("utf-8")
    _, head, body = text.split("---\n", 2)
    found = yaml.safe_load(head)
    assert (found["library_name"], found["datasets"], "synthetic" in found["tags"]) == ("keras", ["synthetic"], True)
    (model,) = found["models"]
    assert (model["name"], model["split"], model["profile"]) == ("MobileNet", "subject", "quick")
    assert 0.5 < model["metrics"]["auc"] < 1
    assert body.lstrip().startswith("# Model card of the run")


def test_card_of_missing_or_damaged_files_is_one_sentence_and_leaves_the_old_one(monkeypatch, capsys):
    path = make_run("one", make_predictions())
    before = write_card(path)[1].read_text("utf-8")
    predictions, metadata = path / "predictions-mobilenet.csv", path / "models" / "mobilenet.json"
    no_numbers = "path,label,subject,group,p_ALL,p_HEM\nx,ALL,1,1,high,low\n"
    for file, contents in {
        predictions: ("", "path,label\nx,ALL\n", no_numbers),
        metadata: ("{half", '{"a": 3}'),
    }.items():
        whole = file.read_text("utf-8")
        for content in contents:
            file.write_text(content)
            code, _, err = run_command(monkeypatch, capsys, "card", "one")
            assert (code, err[:8], "Traceback" in err) == (1, "allkit: ", False)
            assert (path / "card.md").read_text("utf-8") == before
        file.write_text(whole, "utf-8")
    predictions.unlink()
    assert "is not in the run folder" in run_command(monkeypatch, capsys, "card", "one")[2]
    code, _, err = run_command(monkeypatch, capsys, "card", "nowhere")
    assert (code, "no run folder" in err) == (1, True)
