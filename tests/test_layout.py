"""How folders and lists are read: the right reading, or one sentence that says what does not fit."""

import io
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image, ImageChops
from scipy import ndimage

from allkit import AllkitError, data, duplicates, images, layout, source, splits
from allkit.course.check_data import check_data
from allkit.train import get_profile


def draw(file: Path, number: int, side: int = 24, kind: str | None = None) -> None:
    """Write a small image that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, format=kind)


def fill(root: Path, *files: str, side: int = 24) -> Path:
    for number, name in enumerate(files):
        draw(root / name, number, side)
    return root


def cells(folder: str, count: int, start: int = 0) -> list[str]:
    return [f"{folder}/{start + k}.png" for k in range(count)]


def uid(folder: str, label: str, subjects: str, each: int = 3, form: str = "UID_{}_{}_1_{}.png") -> list[str]:
    return [f"{folder}/{form.format(s, k + 1, label)}" for s in subjects.split() for k in range(each)]


def listed(root: Path, header: str, *rows: str, name: str = "list.csv", **how) -> Path:
    file = root / name
    file.write_text("\n".join([header, *rows]) + "\n", **({"encoding": "utf-8"} | how))
    return file


def counts(index: pd.DataFrame) -> dict[str, int]:
    return index["label"].value_counts().to_dict()


# folders


@pytest.mark.parametrize(
    ("tops", "part"),
    [
        (("Train", "Test", "Val"), True),
        (("train_set", "TestA"), True),
        (("training data", "Validation_Set", "testing-data"), True),
        (("fold_0", "fold_1", "fold_2"), False),
        (("Fold1", "Fold 2"), False),
        (("cv1", "cv2"), False),
    ],
)
def test_parts_and_folds_in_any_spelling_are_no_classes(tmp_path, tops, part):
    names = [f"{top}/{label}/{top}-{k}.png" for top in tops for label in ("all", "hem") for k in range(4)]
    index = data.load_index(fill(tmp_path, *names))
    assert counts(index) == {"ALL": 4 * len(tops), "HEM": 4 * len(tops)}
    assert index["given"].notna().all() == part
    assert index["fold"].notna().all() != part
    assert ("your own parts" in data.describe_reading(layout.scan_source(tmp_path), index)) == part


@pytest.mark.parametrize(
    ("tops", "message"),
    [
        (("Original", "Segmented"), "the same cells twice.*Point at one"),
        (("ALL_IDB1", "ALL_IDB2"), "the same cells twice.*Point at one"),
        (("2019-01", "2019-02"), r"which level is the class.*layout \*/class"),
        (("north", "south"), r"which level is the class.*layout \*/class"),
    ],
)
def test_the_same_classes_under_every_folder_are_refused(tmp_path, tops, message):
    fill(tmp_path, *[f"{top}/{label}/{top}{k}.png" for top in tops for label in ("blast", "normal") for k in range(3)])
    with pytest.raises(AllkitError, match=message):
        data.load_index(tmp_path)
    index = data.load_index(tmp_path, layout="*/class")
    assert counts(index) == {"blast": 6, "normal": 6}
    assert set(data.load_index(tmp_path, layout="class/*")["label"]) == set(tops)


def test_collections_without_classes_are_refused(tmp_path):
    fill(tmp_path, *cells("ALL_IDB1", 3), *cells("ALL_IDB2", 3, 9))
    with pytest.raises(AllkitError, match="look like collections"):
        data.load_index(tmp_path)


def test_folders_of_people_below_classes_are_subjects(tmp_path):
    fill(
        tmp_path,
        *[f"{label}/{who}{label[0]}/{k}.tif" for label in ("control", "PML_RARA") for who in "ABCDE" for k in "12"],
    )
    index = data.load_index(tmp_path)
    assert index["subject"].nunique() == 10
    assert data.class_order(index) == ("PML_RARA", "control"), "control is the class of the healthy"
    assert data.load_index(tmp_path, layout="class/*")["subject"].isna().all()


def test_folders_of_people_around_classes_are_subjects(tmp_path):
    names = [f"P{who:02}/{('blast', 'normal')[who % 2]}/{k}.png" for who in range(8) for k in range(3)]
    index = data.load_index(fill(tmp_path, *names))
    assert counts(index) == {"blast": 12, "normal": 12}
    assert index["subject"].nunique() == 8


def test_people_without_classes_are_refused(tmp_path):
    fill(tmp_path, *[f"{word}_{who}/{k}.png" for word in ("patient", "donor") for who in range(4) for k in range(2)])
    with pytest.raises(AllkitError, match=r"8 folders .* look like people.*what is the class"):
        data.load_index(tmp_path)


def test_masks_results_and_augmented_copies_are_left_out_with_a_word(tmp_path):
    fill(tmp_path, *cells("blast", 4), *cells("normal", 4, 9), *cells("blast/masks", 4, 20), *cells("results", 2, 30),
         *cells("augmented/blast", 4, 40))  # fmt: skip
    with pytest.warns(UserWarning, match=r"4 in folders called augmented .*; 4 in folders called masks .*results"):
        index = data.load_index(tmp_path)
    assert counts(index) == {"blast": 4, "normal": 4}
    text = check_data(tmp_path).to_text()
    assert "4 in folders called masks" in text
    assert "Read as: folders class below" in text


def test_what_systems_leave_is_no_image(tmp_path):
    fill(tmp_path, *cells("cells/blast", 3), *cells("cells/normal", 3, 9), "cells/blast/@eaDir/0.png/SYNOPHOTO.jpg",
         "__MACOSX/cells/blast/0.png", "cells/blast/._1.png", "cells/blast/.ipynb_checkpoints/0.png")  # fmt: skip
    with pytest.warns(UserWarning, match="made by the system"):
        assert len(data.load_index(tmp_path)) == 6


def test_images_under_other_endings_are_named(tmp_path):
    fill(tmp_path, *cells("blast", 3), *cells("normal", 3, 9))
    draw(tmp_path / "blast/a.jfif", 20, kind="JPEG")
    draw(tmp_path / "blast/b", 21, kind="PNG")
    draw(tmp_path / "blast/c.gif", 22)
    (tmp_path / "blast/notes.txt").write_text("no image")
    with pytest.warns(UserWarning, match="3 images of another kind"):
        assert len(data.load_index(tmp_path)) == 6
    left_out = check_data(tmp_path).left_out["images of another kind: save them as PNG"]
    assert {Path(file).name for file in left_out} == {"a.jfif", "b", "c.gif"}


@pytest.mark.skipif(os.name == "nt", reason="links and names of bytes")
def test_dangling_links_and_names_that_are_no_text_are_left_out_in_both_commands(tmp_path):
    fill(tmp_path, *cells("blast", 3), *cells("normal", 3, 9))
    (tmp_path / "blast/gone.png").symlink_to("/nowhere/gone.png")
    odd = os.fsencode(tmp_path / "blast") + b"/zelle\xe4\xff.png"
    shutil.copyfile(tmp_path / "blast/0.png", odd)
    with pytest.warns(UserWarning, match=r"links to files that are not there.*names that are no UTF-8|UTF-8.*links"):
        assert len(data.load_index(tmp_path)) == 6
    check = check_data(tmp_path)
    assert check.ok
    assert "1 links to files that are not there" in check.to_text()
    os.remove(odd)
    for label in ("blast", "normal"):
        for file in sorted((tmp_path / label).glob("*.png")):
            os.rename(file, os.fsencode(file.with_suffix("")) + b"\xff.png")
    with pytest.raises(AllkitError, match=r"No image found.*names that are no UTF-8: rename them"):
        data.load_index(tmp_path)


def test_copies_stay_with_their_source(tmp_path):
    fill(tmp_path, *cells("blast", 4), *cells("normal", 4, 9), "blast/0_aug1.png", "blast/1_rot90.png",
         "blast/2 (1).png", "normal/9 - Copy.png", "normal/10_flip_bright.png", "normal/12b.png")  # fmt: skip
    index = data.load_index(tmp_path)
    group = index.set_index(index["path"].map(lambda path: Path(path).name))["group"]
    for copy, original in {
        "0_aug1": "0",
        "1_rot90": "1",
        "2 (1)": "2",
        "9 - Copy": "9",
        "10_flip_bright": "10",
    }.items():
        assert group[f"{copy}.png"] == group[f"{original}.png"]
    assert group["12b.png"] != group["12.png"]


def photograph(number: int, side: int = 200) -> Image.Image:
    """Draw spots that no other number has, as smooth as a photograph."""
    noise = np.random.default_rng(number).normal(size=(side, side, 3))
    smooth = np.stack([ndimage.gaussian_filter(noise[..., k], side / 16) for k in range(3)], axis=2)
    return Image.fromarray((127 + 60 * smooth / np.abs(smooth).max()).astype(np.uint8))


def in_two_classes(root: Path, pictures: list[Image.Image]) -> None:
    for number, picture in enumerate(pictures):
        file = root / ("blast" if number < len(pictures) / 2 else "normal") / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        picture.save(file)


def test_near_duplicates_stay_together_whatever_they_are_called(tmp_path):
    in_two_classes(tmp_path, [photograph(number) for number in range(24)])
    changed = {
        "a.jpg": photograph(1),
        "b.png": photograph(2).resize((90, 90)),
        "c.png": photograph(3).transpose(Image.Transpose.ROTATE_90),
        "d.jpg": photograph(4).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "e.png": photograph(5).point(lambda value: min(255, value + 25)),
    }
    for name, image in changed.items():
        image.save(tmp_path / "blast" / name, quality=90)
    index = data.load_index(tmp_path)
    group = index.set_index("name")["group"]
    for number, name in enumerate(changed, 1):
        assert group[name] == group[f"{number}.png"], name
    assert index["group"].nunique() == 24
    groups = [set(part["group"]) for part in splits.split_by_subject(index).parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 24
    assert "5 pairs of images are near-duplicates" in check_data(tmp_path).to_text()


def test_images_that_are_all_alike_are_not_taken_for_one(tmp_path):
    alike = [np.array(photograph(0)) for _ in range(60)]
    for number, pixels in enumerate(alike):
        pixels[:3, :3] = number
    in_two_classes(tmp_path, list(map(Image.fromarray, alike)))
    with pytest.warns(UserWarning, match="too alike to tell"):
        assert data.load_index(tmp_path)["group"].nunique() == 60


def test_subjects_in_file_names_are_said_to_be_lost(tmp_path):
    names = [f"{('blast', 'normal')[k % 2]}/patient{k:02}_cell{n}.png" for k in range(8) for n in range(3)]
    fill(tmp_path / "people", *names)
    index = data.load_index(tmp_path / "people")
    said = data.describe_reading(layout.scan_source(tmp_path / "people"), index)
    assert "names such as patient00 … are not read" in said
    assert index["subject"].isna().all()
    fill(tmp_path / "others", *cells("blast", 9), *cells("normal", 9))
    assert "such as" not in check_data(tmp_path / "others").to_text()


def test_small_copies_and_wide_cells_are_said(tmp_path):
    for number, reach in enumerate((20, 25, 31)):
        for label in ("all", "hem"):
            image = np.zeros((64, 64, 3), np.uint8)
            image[32 - reach : 32 + reach, 20:40] = 100 + number
            file = tmp_path / f"UID_{'H' if label == 'hem' else ''}{number + 1}_1_{number + 1}_{label}.png"
            Image.fromarray(image).save(file)
    text = check_data(tmp_path).to_text()
    assert "a crop of 300 px becomes one of 43 px" in text
    assert "4 cells are wider than a crop of 43 px" in text


@pytest.mark.parametrize("words", ["class/person", "subject", "class/class", "x"])
def test_a_layout_of_other_words_is_refused(tmp_path, words):
    with pytest.raises(AllkitError, match="is not understood"):
        data.load_index(fill(tmp_path, *cells("a", 2)), layout=words)


# a division of one's own


def divided(tmp_path) -> pd.DataFrame:
    names = [f"{part}/{label}/{part}{label}{k}.png" for part, n in (("train", 8), ("val", 4), ("test", 5))
             for label in ("blast", "normal") for k in range(n)]  # fmt: skip
    return data.load_index(fill(tmp_path, *names))


def test_the_users_own_parts_are_the_split(tmp_path):
    index = divided(tmp_path)
    split = splits.split_data(index, "given")
    assert [len(part) for part in split.parts.values()] == [16, 8, 10]
    for name, part in split.parts.items():
        assert set(part["given"]) == {name}
    assert "SUBJECTS ARE UNKNOWN" in split.note
    with pytest.raises(AllkitError, match="no part test"):
        splits.split_data(index[index["given"] != "test"], "given")


def test_validation_is_taken_from_training_where_there_is_none(tmp_path):
    index = divided(tmp_path)
    split = splits.split_data(index[index["given"] != "validation"], "given")
    assert len(split.train) + len(split.validation) == 16
    assert len(split.test) == 10


def test_a_division_that_shares_people_is_a_leak(tmp_path):
    rows = [f"{k}.png,{'blast' if k % 2 else 'normal'},p{k % 6},{'test' if k > 17 else 'train'}" for k in range(24)]
    fill(tmp_path, *(f"{k}.png" for k in range(24)))
    split = splits.split_data(data.load_index(listed(tmp_path, "path,label,subject,part", *rows)), "given")
    assert split.shares_subjects
    assert "No test subject" not in split.note
    with pytest.raises(splits.LeakError):
        splits.assert_disjoint(split)


# C-NMC's names


def test_names_of_cnmc_are_read_with_something_around_them(tmp_path):
    people = uid("ALL", "all", "1 2 3", form="CNMC_fold_0_UID_{}_{}_1_{}.png")
    people += uid("Normal", "hem", "H1 H2 H7", form="UID_{}_{}_1_{}.bmp.png")
    index = data.load_index(fill(tmp_path, *people))
    assert counts(index) == {"ALL": 9, "HEM": 9}
    assert set(index["subject"]) == {"1", "2", "3", "H1", "H2", "H7"}
    copies = uid("ALL", "all", "1", form="UID_{}_{}_1_{}_aug.png")
    fill(tmp_path / "more", *people, *copies)
    scan = layout.scan_source(tmp_path / "more")
    assert "3 names have something added" in " ".join(scan.notes)
    assert (data.load_index(tmp_path / "more").query("subject == '1'")["group"] == "1").all()


def test_own_parts_of_cnmc_are_not_pooled(tmp_path):
    index = data.load_index(fill(tmp_path, *uid("train/all", "all", "11 14 18"), *uid("train/hem", "hem", "H3 H5"),
                                 *uid("test/all", "all", "31"), *uid("test/hem", "hem", "H17")))  # fmt: skip
    split = splits.split_data(index, "given")
    assert set(split.test["subject"]) == {"31", "H17"}
    assert "No test subject was seen" in split.note


def test_people_of_the_preliminary_part_are_known_by_their_names(tmp_path):
    manifest = data.load_manifest().query("part == 'prelim'")
    names = [f"all/{Path(name).stem}.png" for name in manifest.loc[manifest["label"] == "ALL", "original"].head(3)]
    index = data.load_index(fill(tmp_path, *names, *uid("all", "all", "11 14"), *uid("hem", "hem", "H5")))
    assert (index["part"] == "prelim").sum() == 3
    assert set(index.loc[index["part"] == "train", "subject"]) == {"11", "14", "H5"}
    assert check_data(tmp_path).ok


@pytest.mark.parametrize(("side", "crop"), [(450, 300), (64, 43), (225, 150)])
def test_the_crop_fits_a_cnmc_that_was_made_smaller(tmp_path, side, crop):
    index = data.load_index(fill(tmp_path, *uid("all", "all", "11 14"), *uid("hem", "hem", "H5"), side=side))
    assert get_profile("quick", index=index).crop == crop


# lists


@pytest.fixture
def pictures(tmp_path):
    return fill(tmp_path, *(f"images/{k}.png" for k in range(24)))


def two(k: int) -> str:
    return "blast" if k % 2 else "normal"


def test_spellings_of_labels_are_one_class_and_missing_ones_are_missing(pictures):
    forms = {"blast": ["Blast", "blast", "BLAST", " blast "], "normal": ["Normal", "normal ", "NORMAL", "normal"]}
    rows = [f"images/{k}.png,{forms[two(k)][k // 2 % 4]}" for k in range(24)]
    file = listed(pictures, "path,label", *rows)
    assert sorted(counts(data.load_index(file)).values()) == [12, 12]
    assert "are read as one" in check_data(file).to_text()
    with pytest.raises(AllkitError, match="2 images have no label"):
        data.load_index(listed(pictures, "path,label", *rows[:-2], "images/22.png,NaN", "images/23.png,?"))


def test_spellings_of_subjects_are_one_person_and_unknown_ones_nobody(pictures):
    forms = ["{}", "{:02}", "{}.0", " {} "]
    rows = [f"images/{k}.png,{two(k)},{forms[k // 6].format(k % 6 + 40)}" for k in range(24)]
    index = data.load_index(listed(pictures, "path,label,subject", *rows))
    assert set(index["subject"]) == {str(40 + k) for k in range(6)}
    words = ["nan", "NA", "none", "?", "unknown", ""]
    rows = [f"images/{k}.png,{two(k)},{words[k % 6] if k < 12 else f'P{k % 4}'}" for k in range(24)]
    index = data.load_index(listed(pictures, "path,label,subject", *rows))
    assert index["subject"].isna().sum() == 12
    assert "SUBJECTS ARE UNKNOWN" in splits.split_data(index, "subject").note


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (lambda k: f"cell-{k}", "every image has a subject of its own"),
        (lambda k: str(k // 2 % 6 + 1), "numbered anew in each class"),
    ],
)
def test_a_column_that_does_not_say_whose_image_it_is_is_refused(pictures, subject, message):
    file = listed(pictures, "path,label,subject", *(f"images/{k}.png,{two(k)},{subject(k)}" for k in range(24)))
    with pytest.raises(AllkitError, match=message):
        data.load_index(file)
    assert message in check_data(file).to_text()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,label,patient_id", "'patient_id' looks like 'subject': rename it"),
        ("path,label,Patient", "'Patient' looks like 'subject': rename it"),
        ("path,label,split", "'split' looks like 'part': rename it"),
        ("path,label,Label", "the columns 'label' and 'Label' would both be 'label'"),
        ("path,label", "row 2: 3 fields, but the header has 2"),
    ],
)
def test_columns_are_never_dropped_in_silence(pictures, header, message):
    with pytest.raises(AllkitError, match=message):
        data.load_index(listed(pictures, header, *(f"images/{k}.png,{two(k)},x{k % 5}" for k in range(24))))


def test_columns_that_are_not_used_are_named(pictures):
    file = listed(pictures, "path,label,magnification", *(f"images/{k}.png,{two(k)},100" for k in range(24)))
    assert "Columns that are not used: magnification" in check_data(file).to_text()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("images/{}", "0.png is there, so write the ending too"),
        ("{}.png", "images/0.png is there, so write the folder too"),
        ("/content/drive/cells/images/{}.png", "images/0.png is there, so write paths relative to the list"),
        ("C:\\cells\\images\\{}.png", "images/0.png is there, so write paths relative to the list"),
    ],
)
def test_paths_of_another_machine_are_explained_once(pictures, form, message):
    file = listed(pictures, "path,label", *(f"{form.format(k)},{two(k)}" for k in range(24)))
    with pytest.raises(AllkitError, match="24 of 24 files") as error:
        data.load_index(file)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("path,label\nimages\\0.png,blast\nimages\\1.png,normal\n", {}),
        ("sep=;\npath;label\nimages/0.png;blast\nimages/1.png;normal\n", {}),
        ("path,label\rimages/0.png,blast\rimages/1.png,normal\r", {}),
        ("path,label\nimages/0.png,blast\nimages/1.png,normal\n", {"encoding": "utf-16"}),
        ("path\tlabel\nimages/0.png\tblast\nimages/1.png\tnormal\n", {"encoding": "utf-8-sig"}),
    ],
    ids=["backslashes", "sep=", "old Mac", "UTF-16", "tabs"],
)
def test_lists_of_other_programs_are_read(pictures, text, how):
    file = pictures / "list.csv"
    file.write_bytes(text.encode(how.get("encoding", "utf-8")))
    assert counts(data.load_index(file)) == {"blast": 1, "normal": 1}


def test_numbers_are_no_labels_until_somebody_says_what_they_mean(pictures):
    file = listed(pictures, "path,label", *(f"images/{k}.png,{k % 2}" for k in range(24)))
    with pytest.raises(AllkitError, match=r"labels .* are numbers \(0, 1\)"):
        data.load_index(file)
    described = pictures / "cells.toml"
    described.write_text('path = "list.csv"\npositive = "HEM"\n[labels]\n0 = "HEM"\n1 = "ALL"\n', encoding="utf-8")
    assert data.class_order(data.load_index(described)) == ("HEM", "ALL")
    described.write_text('path = "list.csv"\n[labels]\n0 = "HEM"\n1 = "ALL"\n', encoding="utf-8")
    assert data.class_order(data.load_index(described)) == ("ALL", "HEM")


def test_a_label_against_the_name_is_refused(tmp_path):
    fill(tmp_path, *uid(".", "all", "1 2"), *uid(".", "hem", "H1 H2"))
    rows = [f"{file.name},{'HEM' if file.name == 'UID_1_1_1_all.png' else file.stem[-3:].upper()}"
            for file in sorted(tmp_path.glob("*.png"))]  # fmt: skip
    with pytest.raises(AllkitError, match="is listed as HEM and has the class all in its name"):
        data.load_index(listed(tmp_path, "path,label", *rows))
    index = data.load_index(
        listed(tmp_path, "path,label", *(row.replace("_all.png,HEM", "_all.png,ALL") for row in rows))
    )
    assert set(index["subject"]) == {"1", "2", "H1", "H2"}, "the names say whose cells they are"


def test_one_image_with_two_labels_is_refused_before_training_too(tmp_path):
    fill(tmp_path, *cells("blast", 4), *cells("normal", 4, 9))
    shutil.copy(tmp_path / "blast/1.png", tmp_path / "normal/77.png")
    with pytest.raises(AllkitError, match="identical images have the labels blast and normal"):
        data.load_index(tmp_path)
    assert not check_data(tmp_path).ok


# the positive class


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        (("benign", "malignant"), "malignant"),
        (("ALL", "HEM"), "ALL"),
        (("cancer", "non-cancer"), "cancer"),
        (("normal", "AML cells"), "AML cells"),
        (("healthy donor", "patient"), "patient"),
        (("a", "b"), ""),
        (("Benign", "Early", "Pre"), ""),
    ],
)
def test_the_positive_class_is_guessed_from_known_words_only(labels, positive):
    assert source.guess_positive(labels) == source.guess_positive(labels[::-1]) == positive


def test_an_unknown_positive_class_is_asked_for_and_may_be_said(tmp_path):
    fill(tmp_path, *cells("left", 4), *cells("right", 4, 9))
    with pytest.raises(AllkitError, match="Which of left and right is the class to be found"):
        data.require_positive(data.load_index(tmp_path))
    index = data.load_index(tmp_path, positive="right")
    data.require_positive(index)
    assert data.class_order(index) == ("right", "left")
    assert "positive class right" in data.describe_reading(layout.scan_source(tmp_path), index)
    with pytest.raises(AllkitError, match="is none of the labels"):
        data.load_index(tmp_path, positive="middle")
    assert "Which of left and right" in check_data(tmp_path).to_text()


# content


def test_images_changed_in_place_are_other_data(tmp_path):
    fill(tmp_path, *cells("blast", 3), *cells("normal", 3, 9))
    for file in tmp_path.rglob("*.png"):
        draw(file.with_suffix(".bmp"), int(file.stem))
        file.unlink()
    before = data.index_hash(data.load_index(tmp_path))
    assert data.index_hash(data.load_index(tmp_path)) == before
    file = tmp_path / "blast/0.bmp"
    size = file.stat().st_size
    draw(file, 99)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))  # as a change a second later
    assert file.stat().st_size == size
    assert data.index_hash(data.load_index(tmp_path)) != before


def test_twelve_bits_in_sixteen_are_not_black():
    values = np.random.default_rng(0).integers(0, 4096, (20, 20)).astype(np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values)
    assert abs(images.read_image(buffer.getvalue())[..., 0].astype(float) - values / 4095 * 255).max() <= 0.51


def test_twelve_bits_in_a_colour_png_are_refused_rather_than_black():
    def png(values: np.ndarray) -> bytes:
        header = struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )

    values = np.random.default_rng(0).integers(0, 4096, (20, 20, 3)).astype(np.uint16)
    with pytest.raises(images.ImageError, match="8 or 12 bits in 16"):
        images.read_image(png(values))
    assert images.read_image(png(values * 16)).max() > 250


@pytest.mark.parametrize(("half", "side"), [(100, 300), (150, 300), (180, 360)])
def test_a_large_cell_keeps_its_rim_and_others_their_scale(half, side):
    cell = np.zeros((450, 450, 3), np.uint8)
    cell[225 - half : 225 + half, 225 - 40 : 225 + 40] = 90
    seen = images.prepare_image(cell, 100, 300)
    assert np.array_equal(seen, images.prepare_image(images.centre_crop(cell, side), 100))
    assert (seen[..., 0] > 45).any(axis=1).sum() == pytest.approx(200 * half / side, abs=1)


def test_the_twin_is_read_without_a_word(twin):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = data.load_index(twin)
    assert set(index["positive"]) == {"ALL"}
    assert index["given"].isna().all()


@pytest.mark.parametrize(
    "word", ["x" * 5000, "\x1b[2Jblast", "b\u202elast", "<script>alert(1)</script>", "[a](http://b.example)", "$x^{"]
)
def test_words_that_nothing_can_show_are_refused(tmp_path, word):
    fill(tmp_path, *cells("images", 4))
    for label, subject in ((word, "1"), ("blast", word)):
        rows = [f'images/{k}.png,"{label if k else "normal"}","{subject}-{k % 2}"' for k in range(4)]
        with pytest.raises(AllkitError, match="cannot be shown as it is") as found:
            data.load_index(listed(tmp_path, "path,label,subject", *rows))
        assert len(str(found.value)) < 500
        assert str(found.value).isprintable()


def test_images_beside_masks_of_the_same_classes_are_read_by_their_classes(tmp_path):
    fill(tmp_path, *cells("images/blast", 4), *cells("images/normal", 4, 9), *cells("masks/blast", 4, 20),
         *cells("masks/normal", 4, 30))  # fmt: skip
    assert counts(data.load_index(tmp_path)) == {"blast": 4, "normal": 4}


def test_one_part_alone_is_no_division(tmp_path):
    fill(tmp_path, *cells("Train/ALL", 3), *cells("Train/HEM", 3, 9), *cells("train2/ALL", 3, 20),
         *cells("train2/HEM", 3, 30))  # fmt: skip
    index = data.load_index(tmp_path)
    assert counts(index) == {"ALL": 6, "HEM": 6}
    assert index["given"].isna().all()


def test_names_of_classes_as_people_give_them_are_taken(tmp_path):
    names = ["Benign", "[Malignant] Pre-B", "[Malignant] early Pre-B", "blasts <5 %", "a|b"]
    fill(tmp_path, *(file for k, name in enumerate(names) for file in cells(name, 3, 5 * k)))
    assert set(data.load_index(tmp_path)["label"]) == set(names)


def test_names_that_would_steer_a_terminal_are_escaped(tmp_path):
    fill(tmp_path, *cells("blast", 3), *cells("normal", 3, 9))
    (tmp_path / "blast" / "\x1b]0;title\x07.png").write_bytes(b"no image")
    command = [sys.executable, "-c", "from allkit.cli import main; main()", "data", "check", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout + done.stderr.split("\r")[-1]
    assert "\\x1b]0;title\\x07.png" in done.stdout


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (cells("train/ALL", 3) + cells("train/HEM", 3, 9) + cells("test/ALL", 3, 20) + cells("x", 2, 40), "look like"),
        (cells("blast", 3) + cells("normal", 3, 9) + cells("test", 3, 20), "some look like parts"),
        (
            [*cells("blast/train", 3), *cells("blast/test", 3, 9), *cells("normal/train", 3, 20), "normal/50.png"],
            "beside folders that look like parts",
        ),
        (
            uid("fold_0/all", "all", "1 2 3") + uid("fold_0/hem", "hem", "H1 H2 H3") + uid("test/all", "all", "7 8"),
            "images are in no part, and others in test",
        ),
    ],
)
def test_a_division_that_is_not_of_all_images_is_refused(tmp_path, files, words):
    with pytest.raises(AllkitError, match=words):
        data.load_index(fill(tmp_path, *files))


def test_parts_below_the_classes_are_the_split(tmp_path):
    both = [(label, part) for label in ("blast", "normal") for part in ("train", "test")]
    files = [file for k, (label, part) in enumerate(both) for file in cells(f"{label}/{part}", 3, 10 * k)]
    index = data.load_index(fill(tmp_path, *files))
    assert index["given"].value_counts().to_dict() == {"train": 6, "test": 6}


def test_a_list_in_which_some_images_are_in_no_part_is_refused(tmp_path):
    fill(tmp_path, *cells("images", 12))
    rows = [f"images/{k}.png,{('blast', 'normal')[k % 2]},{'test' if k < 4 else ''}" for k in range(12)]
    with pytest.raises(AllkitError, match="8 images are in no part, and others in test"):
        data.load_index(listed(tmp_path, "path,label,part", *rows))


def test_a_layout_whose_parts_are_none_is_refused(tmp_path):
    fill(tmp_path, *cells("A/blast", 3), *cells("A/normal", 3, 9), *cells("B/blast", 3, 20), *cells("B/normal", 3, 30))
    with pytest.raises(AllkitError, match="'A' is to be a part"):
        data.load_index(tmp_path, layout="part/class")
    with pytest.raises(AllkitError, match="'A' is to be a fold"):
        data.load_index(tmp_path, layout="fold/class")


def test_a_folder_called_none_is_a_class(tmp_path):
    fill(tmp_path, *cells("blast", 3), *cells("none", 3, 9))
    assert counts(data.load_index(tmp_path)) == {"blast": 3, "none": 3}


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def scandir(path, real=os.scandir):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    fill(tmp_path, *cells("blast", 3), *cells("normal", 3, 9), *cells("secret", 3, 20))
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.warns(UserWarning, match=r"1 folders that may not be read \(secret\)"):
        assert counts(data.load_index(tmp_path)) == {"blast": 3, "normal": 3}


@pytest.mark.parametrize("path", ["~nobodyx/a.png", "x" * 5000, "a\0b", ""])
def test_paths_that_are_none_end_in_a_sentence(tmp_path, path):
    fill(tmp_path, *cells("images", 4))
    rows = [f"images/{k}.png,{('blast', 'normal')[k % 2]}" for k in range(4)]
    if path:
        with pytest.raises(AllkitError, match="do not exist"):
            data.load_index(listed(tmp_path, "path,label", *rows, f"{path},blast"))
        with pytest.raises(AllkitError):
            data.load_index(path)
    else:  # lines of commas alone, as spreadsheets leave them
        assert len(data.load_index(listed(tmp_path, "path,label", *rows, ",", ""))) == 4


def test_many_copies_of_few_images_are_found(tmp_path):
    for number in range(8):
        for copy in range(25):
            file = tmp_path / ("blast" if number < 4 else "normal") / f"{number * 25 + copy}.png"
            file.parent.mkdir(exist_ok=True)
            photograph(number).resize((200 - copy, 200 - copy)).save(file)
    assert data.load_index(tmp_path)["group"].nunique() <= 12, "three of a hundred copies may be missed"


@pytest.mark.parametrize("kind", ["I;16", "I"])
def test_eight_bits_in_sixteen_are_refused_rather_than_black(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(256).reshape(16, 16).astype(np.uint16 if kind == "I;16" else np.int32)).save(
        buffer, "TIFF"
    )
    with pytest.raises(images.ImageError, match="makes it black"):
        images.read_image(buffer.getvalue())


def test_near_duplicates_of_genuine_cells_are_their_copies_and_no_others(cnmc_folder):
    """The measurement behind `duplicates.SAME_HASH`."""
    index = data.load_index(cnmc_folder)
    index = index[index["subject"].notna()].reset_index(drop=True)
    hashes = np.array(
        list(images.in_threads(lambda path: duplicates.hashes_of(images.read_image(path)), index["path"]))
    )
    near = duplicates.differing_bits(hashes, hashes[:, 0]) <= duplicates.SAME_HASH
    one, other = np.nonzero(np.triu(near, 1))
    assert len(one) > 50
    assert (index["group"].to_numpy()[one] == index["group"].to_numpy()[other]).all()
    chosen = np.random.default_rng(0).choice(len(index), 100, replace=False)
    changes = {
        "smaller": lambda image: image.resize((100, 100)),
        "brighter": lambda image: image.point(lambda value: min(255, round(1.2 * value))),
        "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
        "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "shifted": lambda image: ImageChops.offset(image, 12, -7),
    }
    for name, change in changes.items():
        copies = [change(Image.fromarray(images.read_image(index["path"][row]))) for row in chosen]
        found = np.array([duplicates.hashes_of(np.asarray(copy))[0] for copy in copies])
        bits = np.diagonal(duplicates.differing_bits(hashes[chosen], found))
        assert np.mean(bits <= duplicates.SAME_HASH) >= 0.95, name
