"""The audit of any split: each leak is found where it was planted, and usual splits are done as their libraries do."""

import itertools
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from allkit import AllkitError
from allkit.baselines import estimate_inflation
from allkit.cli.base import app
from allkit.data import load_index
from allkit.judging.audits import CHECKS, audit_split, badge_text, draw_badge
from allkit.judging.divisions import USUAL, list_files, list_replays, read_division, replay
from allkit.lessons.audit import audit_replays, describe_replays, plant_copies
from allkit.splits import split_by_subject
from allkit.synthetic import draw_numbers_of

LEAKS = {"files", "bytes", "pixels", "near-duplicates", "subjects", "linked subjects", "groups", "source images"}


def leaks(audit):
    return set(audit.findings.loc[audit.findings["verdict"] == "leak", "check"])


def listed(folder, rows, header="path,part", **options):
    file = folder / "split.csv"
    file.write_text("\n".join([header, *rows]) + "\n", **{"encoding": "utf-8"} | options)
    return file


def with_company(rows):
    """The first training image whose subject has another one there."""
    train = rows[rows["given"] == "train"]
    return train.index[train["subject"].duplicated(keep=False)][0]


@pytest.fixture(scope="module")
def divided(twin):
    """The twin, divided by subject."""
    parts = split_by_subject(load_index(twin), seed=1).parts
    return pd.concat([part.assign(given=name) for name, part in parts.items()], ignore_index=True)


# What is shared


def test_a_split_by_subject_is_clean(divided):
    audit = audit_split(divided)
    assert (leaks(audit), audit.verdict) == (set(), "no leak")
    assert not (audit.findings["verdict"] == "unknown").any()
    assert audit.counts["images"].sum() == len(divided)


def test_every_leak_is_found_and_named(divided, tmp_path):
    test, train = (divided.index[divided["given"] == part] for part in ("test", "train"))
    moved = divided.copy()
    moved.loc[with_company(moved), "given"] = "test"  # a cell whose subject stays behind
    assert "subjects" in leaks(audit_split(moved))

    twice = pd.concat([divided, divided.loc[[train[0]]].assign(given="test")])
    assert "files" in leaks(audit_split(twice))

    copy = tmp_path / "same.bmp"
    Image.open(divided["path"][train[0]]).convert("RGB").save(copy)
    stranger = divided.loc[[test[0]]].assign(path=str(copy), name="same.bmp")
    audit = audit_split(pd.concat([divided, stranger]))
    assert leaks(audit) == {"pixels"}
    assert "same.bmp" in audit.of("pixels")["examples"]
    assert audit.of("pixels")["images"] == 1

    linked = divided.copy()
    linked.loc[[test[0], train[0]], "group"] = "one"
    assert leaks(audit_split(linked)) == {"linked subjects"}


def test_a_turned_copy_saved_anew_is_found_by_its_looks_alone(divided, tmp_path):
    planted = plant_copies(divided, tmp_path, copies=4, seed=2)
    audit = audit_split(planted)
    assert leaks(audit) == {"near-duplicates"}
    assert audit.of("near-duplicates")["images"] == 4


def test_what_cannot_be_seen_is_unknown_and_never_ok(divided):
    audit = audit_split(divided, look=False)
    verdicts = audit.findings.set_index("check")["verdict"]
    assert (verdicts["pixels"], verdicts["near-duplicates"]) == ("unknown", "unknown")
    assert "open" in badge_text(audit)
    nobody = audit_split(divided.assign(subject=None), look=False)
    assert (nobody.verdict, nobody.of("subjects")["verdict"]) == ("unknown", "unknown")
    assert "unknown" in badge_text(nobody)


def test_what_only_validation_shares_is_a_warning(divided):
    moved = divided.copy()
    moved.loc[with_company(moved), "given"] = "validation"
    audit = audit_split(moved, look=False)
    assert leaks(audit) == set()
    assert audit.of("subjects")["verdict"] == "warning"


def test_labels_that_contradict_each_other_and_classes_that_lack_are_warned_of(divided):
    wrong = divided.copy()
    place = wrong.index[wrong["given"] == "test"][0]
    wrong.loc[place, "label"] = "HEM" if wrong.loc[place, "label"] == "ALL" else "ALL"
    audit = audit_split(wrong, look=False)
    assert audit.of("label conflicts")["verdict"] == "warning"
    numbers = divided.assign(label=divided["label"].map({"ALL": "1", "HEM": "0"}))
    assert audit_split(numbers, look=False).of("label conflicts")["verdict"] == "ok"
    one = divided[(divided["given"] == "train") | (divided["label"] == "ALL")]
    assert audit_split(one, look=False).of("classes")["verdict"] == "warning"


def test_a_split_needs_two_parts(divided):
    with pytest.raises(AllkitError, match="needs training and test"):
        audit_split(divided.assign(given="train"))
    with pytest.raises(AllkitError, match="no check"):
        audit_split(divided, look=False, allow=["everything"])


# Lists


def names(part, label, count, skip=0):
    files = list_files()
    return list(files[(files["part"] == part) & (files["label"] == label)]["path"].iloc[skip : skip + count])


@pytest.mark.parametrize("form", ["plain", "bom", "semicolons", "windows", "other names", "utf-16"])
def test_a_list_of_c_nmc_needs_no_image_however_it_is_written(tmp_path, form):
    paths = [*names("train", "ALL", 40), *names("train", "HEM", 40)]
    rows = [f"{path},{('train', 'test')[k % 2]}" for k, path in enumerate(paths)]
    header, options = "path,part", {}
    if form == "bom":
        options = {"encoding": "utf-8-sig"}
    elif form == "utf-16":
        options = {"encoding": "utf-16"}
    elif form == "semicolons":
        header, rows = header.replace(",", ";"), [row.replace(",", ";") for row in rows]
    elif form == "windows":
        rows = ["D:\\data\\" + row.replace("/", "\\") for row in rows]
    elif form == "other names":
        header = "Filename,Split"
        rows = [row.replace("train\n", "TRAIN").replace(",test", ",Testing").replace(".bmp", ".png") for row in rows]
    index = read_division(listed(tmp_path, rows, header, **options))
    assert (index["source"] == "cnmc").all()
    assert index["subject"].notna().all() and index["content"].notna().all()  # noqa: PT018
    assert index["label"].value_counts().to_dict() == {"ALL": 40, "HEM": 40}
    assert {"subjects", "source images"} <= leaks(audit_split(index))


def test_names_with_something_added_keep_their_subject(tmp_path):
    path = names("train", "ALL", 1)[0]
    rows = [f"{path},train", f"{path.replace('.bmp', '_aug_1.bmp')},test", f"{names('train', 'HEM', 1)[0]},train"]
    index = read_division(listed(tmp_path, rows))
    assert {"files", "subjects"} <= leaks(audit_split(index))


def test_a_list_beside_its_images_and_one_that_needs_data(divided, twin, tmp_path):
    rows = [f"{path},{part}" for path, part in zip(divided["path"], divided["given"], strict=True)]
    audit = audit_split(read_division(listed(tmp_path, rows)))
    assert (audit.verdict, audit.of("pixels")["verdict"]) == ("no leak", "ok")
    short = [row.rpartition("/")[2] for row in rows if "phase" not in row]
    index = read_division(listed(tmp_path, short), twin)
    assert set(index["path"]) <= set(divided["path"])
    assert (index["source"] == "synthetic").all()  # no sum of the genuine file that has the same name
    with pytest.raises(AllkitError, match="None of the"):
        read_division(listed(tmp_path, ["a.png,train", "b.png,test"]), twin)


@pytest.mark.parametrize(("rows", "header", "words"), [
    ([], "path,part", "lists no image"),
    (["a.png,train"], "path,part", "every image is in the part"),
    (["a.png,train", "b.png,somewhere"], "path,part", "'somewhere' is not known"),
    (["a.png,train", "b.png,"], "path,part", "is not known"),
    (["a.png,train,x"], "path,part", "3 fields"),
    (["a.png,1"], "path,other", "no column part"),
    (["a.png,train"], "path,split,part", "fields"),
])  # fmt: skip
def test_lists_that_cannot_be_read_say_why(tmp_path, rows, header, words):
    with pytest.raises(AllkitError, match=words):
        read_division(listed(tmp_path, rows, header))


def test_hostile_paths_are_names_and_nothing_more(tmp_path):
    rows = ["../../../../etc/passwd,train", "~nobody/x.png,test", f"{'a' * 5000}.png,train", "a\0b.png,test"]
    audit = audit_split(read_division(listed(tmp_path, rows)))
    assert audit.of("subjects")["verdict"] == "unknown"
    assert audit.of("pixels")["verdict"] == "unknown"


# Usual ways


def test_all_usual_ways_can_be_replayed_and_their_verdicts_are_known():
    table = audit_replays()
    assert list(table.index) == list(USUAL)
    clean = set(table.index[table["verdict"] == "no leak"])
    assert clean == {"preliminary", "split_by_subject(seed=123)"}
    by_image = table.loc["train_test_split(seed=123)"]
    assert (by_image["images"], by_image["subjects"]) == (1600, 100)
    grouped = table.loc["StratifiedGroupKFold(n_splits=5, random_state=42)"]
    assert grouped["subjects"] == 0
    assert grouped["linked subjects"] > 10
    assert table.loc["folds(test=2)", "bytes"] > 2
    assert table.loc["augment_then_split(seed=123)", "files"] > 40
    assert "13 of 15" in describe_replays(table)


def test_replays_do_what_keras_does(tmp_path):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator
    from keras.utils import image_dataset_from_directory

    files = list_files()
    files = files[files["part"] == "train"]
    for label, name in zip(files["label"], files["name"], strict=True):
        path = tmp_path / label.lower() / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    options = {"validation_split": 0.2, "image_size": (8, 8), "batch_size": None}
    held = image_dataset_from_directory(tmp_path, subset="validation", seed=123, **options)
    ours = replay("image_dataset_from_directory(validation_split=0.2, seed=123)")
    assert {path.rpartition("/")[2] for path in held.file_paths} == set(ours.loc[ours["given"] == "test", "name"])
    generator = ImageDataGenerator(validation_split=0.2).flow_from_directory(str(tmp_path), subset="validation")
    ours = replay("ImageDataGenerator(validation_split=0.2)")
    theirs = {name.rpartition("/")[2] for name in generator.filenames}
    assert theirs == set(ours.loc[ours["given"] == "test", "name"])


def test_a_random_split_leaks_alike_whatever_its_seed():
    shares = [audit_split(replay(f"RandomSplitter(seed={seed})")).share for seed in range(3)]
    assert min(shares) > 0.99


@pytest.mark.parametrize("text", [
    "", "nonsense", "train_test_split(seed=", "train_test_split(1)", "train_test_split(size=3)", "KFold(fold=7)",
    "train_test_split(test_size=0)", "train_test_split(seed='x')", "KFold(n_splits=1)", "folds(test=9)",
    "__import__('os').system('id')", "train_test_split(seed=__import__('os'))", "(" * 300, "a" * 100_000,
    "train_test_split(**{'seed': 1})", "train_test_split(seed=-1)", "splitfolders.ratio(train=1.5)",
])  # fmt: skip
def test_other_names_and_parameters_are_refused(text):
    with pytest.raises(AllkitError):
        replay(text)


def test_the_list_of_ways_can_be_replayed_as_it_is_written():
    for text in list_replays()["replay"]:
        assert {"train", "test"} <= set(replay(text)["given"])


# What it promises too much


def test_inflation_is_found_where_subjects_differ_and_not_where_they_do_not():
    by_image, by_subject = replay("train_test_split(seed=123)"), replay("split_by_subject(seed=123)")
    few = by_image.groupby("subject").head(200)
    strong = estimate_inflation(few, draw_numbers_of(few, subject_effect=2.0), seeds=range(1))
    assert strong.loc["nearest neighbours", "value"] > 0.04
    none = estimate_inflation(few, draw_numbers_of(few, subject_effect=0.0), seeds=range(1))
    assert none["value"].abs().max() < 0.02
    fair = by_subject.groupby("subject").head(40)
    assert (estimate_inflation(fair, draw_numbers_of(fair), seeds=range(1))["verdict"] != "promises too much").all()
    with pytest.raises(AllkitError, match="Subjects are unknown"):
        estimate_inflation(few.assign(subject=None), draw_numbers_of(few))


# Command and badge


def run(*words):
    return CliRunner().invoke(app, ["audit", *map(str, words)])


def test_exit_codes(tmp_path):
    assert run("--replay", "preliminary").exit_code == 0
    assert run("--replay", "preliminary", "--strict").exit_code == 1
    leaky = run("--replay", "folds(test=2)", "--no-inflation")
    assert leaky.exit_code == 1
    assert "Verdict: leak" in leaky.output
    allowed = ["--allow", "bytes", "--allow", "linked subjects"]
    assert run("--replay", "folds(test=2)", "--no-inflation", *allowed).exit_code == 0
    assert run("--replay", "no such way").exit_code == 2
    assert run(tmp_path / "no-such.csv").exit_code == 2
    assert run("--replay", "preliminary", tmp_path).exit_code == 2
    assert "train_test_split" in run("--list").output


def test_json_and_badge(tmp_path):
    badge = tmp_path / "badges" / "audit.svg"
    said = run("--replay", "folds(test=2)", "--no-inflation", "--json", "--badge", badge)
    content = json.loads(said.stdout)
    assert content["verdict"] == "leak"
    assert {row["check"] for row in content["findings"]} >= LEAKS - {"groups"}
    picture = ET.fromstring(badge.read_text(encoding="utf-8"))
    assert picture.get("role") == "img"
    assert "leak" in picture.get("aria-label")
    assert not re.search(r"href|url\(|<script", badge.read_text(encoding="utf-8"))


def test_the_badge_says_each_verdict_in_words_and_colour(divided):
    clean = audit_split(divided, look=False)
    moved = divided.copy()
    moved.loc[with_company(moved), "given"] = "test"
    badges = [draw_badge(audit) for audit in (
        clean, audit_split(moved, look=False), audit_split(divided.assign(subject=None), look=False))]  # fmt: skip
    colours = [re.findall(r'fill="(#[0-9A-F]{6})"', badge) for badge in badges]
    assert all(one != other for one, other in itertools.combinations(map(tuple, colours), 2))
    assert [sign in badge for sign, badge in zip("✓✗?", badges, strict=True)] == [True] * 3


def test_each_check_is_explained():
    assert set(CHECKS) == LEAKS
    assert np.all([len(text) > 20 for text in CHECKS.values()])
