"""Splits: sizes, disjointness, and the guard."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allkit import AllkitError, data, splits
from allkit.source import COLUMNS

GENUINE_GROUPS = {"20": "20+21", "21": "20+21", "H3": "H3+H10", "H10": "H3+H10"}


def make_index(images: dict[tuple[str, str], int], fold: dict[str, int] | None = None) -> pd.DataFrame:
    """An index without files: number of images by (label, subject); subject "" means unknown."""
    rows = []
    for (label, subject), count in images.items():
        for number in range(count):
            path = f"/x/{label}/{subject}_{number:04}.png"
            group = GENUINE_GROUPS.get(subject, subject) or path
            rows.append(
                (path, label, subject or None, group, (fold or {}).get(subject), "train", None, "", "csv", None)
            )
    index = pd.DataFrame(rows, columns=list(COLUMNS))
    return index.astype({"subject": object, "fold": "Int64"})


@pytest.fixture(scope="module")
def cnmc() -> pd.DataFrame:
    """The index of all genuine C-NMC images, made from the carried list."""
    manifest = data.load_manifest()
    manifest = manifest[manifest["part"].isin(["train", "prelim"])].reset_index(drop=True)
    twice = manifest["sha256"].duplicated(keep=False)
    links = manifest[twice].groupby("sha256")["subject"].unique()
    group = {subject: subject for subject in manifest["subject"]}
    for linked in links:
        names = {group[subject] for subject in linked}
        joined = "+".join(sorted({part for name in names for part in name.split("+")}))
        group.update({subject: joined for subject in group if group[subject] in names})
    index = manifest.assign(group=manifest["subject"].map(group), name=manifest["original"], source="cnmc")
    return index.assign(given=None, positive="ALL")[list(COLUMNS)]


@pytest.fixture(scope="module")
def fold_1(cnmc) -> pd.DataFrame:
    return cnmc[cnmc["fold"] == 1]


def assert_complete(split: splits.Split, rows: pd.DataFrame) -> None:
    """Every part has every class, and together they hold each image once."""
    together = pd.concat(split.parts.values())
    assert sorted(together["path"]) == sorted(rows["path"])
    for part in split.parts.values():
        assert set(part["label"]) == set(rows["label"])


def test_by_image_gives_the_paper_s_sizes(cnmc):
    split = splits.split_by_image(cnmc)
    assert [len(part) for part in split.parts.values()] == [7462, 1599, 1600]
    assert split.counts().loc["test", ["ALL", "HEM"]].tolist() == [1091, 509]
    assert_complete(split, cnmc[cnmc["part"] == "train"])
    assert split.shares_subjects
    assert "not about new subjects" in split.note
    again = splits.split_by_image(cnmc)
    assert list(again.test["path"]) == list(split.test["path"])
    assert list(splits.split_by_image(cnmc, seed=1).test["path"]) != list(split.test["path"])


def test_by_subject_is_clean_and_close_to_the_fractions(cnmc):
    split = splits.split_by_subject(cnmc)
    splits.assert_disjoint(split)
    assert_complete(split, cnmc[cnmc["part"] == "train"])
    shares = split.counts()[["ALL", "HEM"]] / split.counts()[["ALL", "HEM"]].sum()
    wanted = np.array(splits.SUBJECT_FRACTIONS)[:, None]
    assert (abs(shares.to_numpy(float) - wanted) < 0.03).all()
    assert split.test.groupby("label")["subject"].nunique().min() >= 5, "enough subjects for an interval"
    assert not split.shares_subjects
    assert list(splits.split_by_subject(cnmc).test["path"]) == list(split.test["path"])
    assert set(splits.split_by_subject(cnmc, seed=1).test["group"]) != set(split.test["group"])


def test_by_subject_no_part_gets_next_to_nothing_of_a_class():
    healthy = {("HEM", f"H{number}"): 100 for number in range(3)} | {("HEM", f"H{number}"): 1 for number in range(3, 9)}
    index = make_index(healthy | {("ALL", str(number)): 40 for number in range(12)})
    for seed in range(10):
        counts = splits.split_by_subject(index, seed=seed).counts()
        assert counts["HEM"].min() >= 100
        assert counts["ALL"].min() >= 40


def test_by_subject_works_with_three_subjects_of_a_class(fold_1):
    assert fold_1.loc[fold_1["label"] == "HEM", "subject"].nunique() == 3
    for seed in range(3):
        split = splits.split_by_subject(fold_1, seed=seed)
        splits.assert_disjoint(split)
        assert_complete(split, fold_1)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(1, 40), min_size=3, max_size=6), min_size=2, max_size=4), st.integers(0, 99))
def test_by_subject_never_leaks(sizes, seed):
    images = {
        (f"class{label}", f"{label}s{number}"): count
        for label, counts in enumerate(sizes)
        for number, count in enumerate(counts)
    }
    index = make_index(images)
    split = splits.split_by_subject(index, seed=seed)
    splits.assert_disjoint(split)
    assert_complete(split, index)


def test_a_subject_with_both_classes_stays_whole():
    images = {(label, f"p{number}"): 10 for number in range(8) for label in ("ALL", "HEM") if number != 7}
    index = make_index({**images, ("HEM", "p7"): 4, ("HEM", "p8"): 4, ("HEM", "p9"): 4})
    split = splits.split_by_subject(index)
    splits.assert_disjoint(split)
    assert_complete(split, index)


def test_too_few_images_or_subjects_are_refused():
    with pytest.raises(AllkitError, match=r"Too few subjects.*HEM: 2.*split='image'"):
        splits.split_by_subject(
            make_index({("ALL", str(n)): 5 for n in range(5)} | {("HEM", "H1"): 5, ("HEM", "H2"): 5})
        )
    for few in (1, 2, 3):
        with pytest.raises(AllkitError, match=rf"Too few images.*HEM: {few}"):
            splits.split_by_image(make_index({("ALL", "1"): 50, ("HEM", "H1"): few}))
    with pytest.raises(AllkitError, match="needs two classes"):
        splits.split_by_subject(make_index({("ALL", "1"): 50}))
    with pytest.raises(AllkitError, match="add up to 1"):
        splits.split_by_image(make_index({("ALL", "1"): 50, ("HEM", "H1"): 50}), fractions=(0.7, 0.2, 0.2))


def test_unknown_subjects_are_named_in_the_note():
    index = make_index({("a", ""): 40, ("b", ""): 40, ("c", ""): 40})
    for split in (splits.split_by_image(index), splits.split_by_subject(index)):
        assert "SUBJECTS ARE UNKNOWN" in split.note
        assert split.shares_subjects
        assert split.counts()["subjects"].isna().all()
        assert_complete(split, index)
    with pytest.raises(AllkitError, match="Subjects are unknown"):
        splits.split_hold_out(index, ["1"])


def test_official_folds_leave_linked_subjects_out(cnmc):
    for fold in range(3):
        split = splits.split_by_fold(cnmc, fold)
        splits.assert_disjoint(split)
        assert len(split.test) == ((cnmc["fold"] == fold) & (cnmc["part"] == "train")).sum()
    kept = splits.split_by_fold(cnmc, 0, drop_linked=False)
    assert kept.shares_subjects
    assert len(kept.train) + len(kept.validation) + len(kept.test) == 10_661
    with pytest.raises(splits.LeakError, match="groups linked by identical images"):
        splits.assert_disjoint(kept)


def test_folds_need_two_of_them(cnmc, fold_1):
    with pytest.raises(AllkitError, match=r"hold the folds \[1\]"):
        splits.split_by_fold(fold_1, 1)
    with pytest.raises(AllkitError, match="Fold 5 cannot be tested"):
        splits.split_by_fold(cnmc, 5)


@pytest.mark.parametrize("subject", ["H10", "H14", "h22"])
def test_hold_out_one_of_three_healthy_subjects(fold_1, subject):
    split = splits.split_hold_out(fold_1, [subject], seed=3)
    splits.assert_disjoint(split)
    assert_complete(split, fold_1)
    held = split.test[split.test["label"] == "HEM"]
    assert set(held["subject"]) == {subject.upper()}
    ratio = (split.test["label"] == "ALL").sum() / len(held)
    whole = (fold_1["label"] == "ALL").sum() / (fold_1["label"] == "HEM").sum()
    assert whole / 1.7 < ratio < whole * 1.7
    assert split.validation_by_image  # two healthy subjects remain: both are needed for training
    assert "Validation is by image" in split.note
    assert set(split.train["subject"]) == set(split.validation["subject"])


def test_hold_out_takes_linked_subjects_along(cnmc):
    split = splits.split_hold_out(cnmc, ["20", "H3"])
    assert {"20", "21", "H3", "H10"} == set(split.test["subject"])  # both classes are named: none is drawn
    assert not split.validation_by_image
    splits.assert_disjoint(split)


def test_hold_out_draws_differ_by_seed(fold_1):
    drawn = {frozenset(splits.split_hold_out(fold_1, ["H10"], seed).test["subject"]) for seed in range(6)}
    assert len(drawn) > 1


def test_hold_out_of_an_unknown_subject_names_near_ones(fold_1):
    with pytest.raises(AllkitError, match=r"'H100' is not in the training data.*H10"):
        splits.split_hold_out(fold_1, ["H100"])
    with pytest.raises(AllkitError, match="No subject named"):
        splits.split_data(fold_1, "hold-out")


def test_guard_names_offenders_and_how_to_let_them_pass(fold_1):
    split = splits.split_by_image(fold_1)
    with pytest.raises(splits.LeakError, match=r"14 subjects.*and 4 more.*allow_leak=True"):
        splits.assert_disjoint(split)
    splits.assert_disjoint(split, allow_leak=True)
    twice = dataclasses.replace(split, test=pd.concat([split.test, split.train.iloc[:1]]))
    with pytest.raises(splits.LeakError, match=split.train["path"][0]):
        splits.assert_disjoint(twice, allow_leak=True)


def test_guard_sees_identical_images_without_subjects():
    index = make_index({("a", ""): 40, ("b", ""): 40})
    split = splits.split_by_subject(index)
    splits.assert_disjoint(split)
    test = split.test.copy()
    test.loc[0, "group"] = split.train["group"][0]
    with pytest.raises(splits.LeakError, match="groups linked by identical images"):
        splits.assert_disjoint(dataclasses.replace(split, test=test))


def test_image_split_without_subjects_is_refused_too():
    split = splits.split_by_image(make_index({("a", ""): 40, ("b", ""): 40}))
    with pytest.raises(splits.LeakError, match="allow_leak=True"):
        splits.assert_disjoint(split)
    splits.assert_disjoint(split, allow_leak=True)


def test_declared_validation_by_image_does_not_excuse_the_test_part(fold_1):
    split = splits.split_hold_out(fold_1, ["H14"])
    leaky = dataclasses.replace(split, test=split.validation, validation=split.test)
    with pytest.raises(splits.LeakError):
        splits.assert_disjoint(leaky)


def test_preliminary_part_is_never_split(cnmc):
    assert (cnmc["part"] == "prelim").sum() == 1867
    for how in splits.SPLITS[:3]:
        split = splits.split_data(cnmc, how)
        assert set(pd.concat(split.parts.values())["part"]) == {"train"}


def test_split_data_by_name(cnmc, fold_1):
    assert splits.split_data(cnmc, "image").name == "image"
    assert splits.split_data(cnmc, "folds", hold_out="2").name == "fold 2"
    assert splits.split_data(fold_1, "hold-out", hold_out="H10, H14").name == "hold-out H10,H14"
    with pytest.raises(AllkitError, match="Did you mean 'subject'"):
        splits.split_data(cnmc, "subjekt")
    with pytest.raises(AllkitError, match="number of one fold"):
        splits.split_data(cnmc, "folds", hold_out="H10")


def test_splits_of_the_twin(twin):
    index = data.load_index(twin)
    for how in ("subject", "folds"):
        split = splits.split_data(index, how)
        splits.assert_disjoint(split)
    with pytest.raises(splits.LeakError):
        splits.assert_disjoint(splits.split_data(index, "image"))


def test_unseen_subjects_are_those_of_the_preliminary_test(cnmc):
    split = splits.split_unseen(cnmc)
    assert set(split.test["part"]) == {"prelim"}
    splits.assert_disjoint(split)


def test_unseen_subjects_of_other_folds_are_not_linked_to_training(cnmc):
    first = cnmc[(cnmc["part"] == "train") & ((cnmc["fold"] == 1) | (cnmc.index % 20 == 0))]
    split = splits.split_unseen(first)
    splits.assert_disjoint(split)
    assert set(split.train["fold"]) == {1}
    assert 1 not in set(split.test["fold"])
    assert not {"75", "78", "H3"} & set(split.test["subject"])


def test_no_other_collection_to_test_on():
    index = make_index({("ALL", "1"): 9, ("HEM", "H1"): 9})
    with pytest.raises(AllkitError, match="second collection"):
        splits.split_unseen(index)
