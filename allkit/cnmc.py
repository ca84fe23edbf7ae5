"""C-NMC 2019 and its synthetic twin, recognised in any layout by the names of files."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from allkit import ROOT, AllkitError
from allkit.images import SUFFIXES
from allkit.lists import read_table
from allkit.source import FOLD, LABEL_OF, UID, Scan, frame_of, given_part, own_division, uid_of

_MANIFEST = ROOT / "data" / "cnmc-manifest.csv.xz"

_TEST_PART = re.compile(r"test_(prelim|final)_phase", re.IGNORECASE)


def load_manifest() -> pd.DataFrame:
    """Return the carried list of all files of C-NMC 2019, by `key` ("train/uid_11_10_1_all", "prelim/1").

    Columns path (in the public layout), bytes, sha256, part ("train", "prelim", "final", "labels"), label
    ("ALL", "HEM" or missing), fold (Int64), subject and original (file name with subject and class).
    """
    return _read_manifest().copy()  # so that a caller may change its own


@functools.cache
def _read_manifest() -> pd.DataFrame:
    manifest = pd.read_csv(_MANIFEST, dtype={"subject": str, "fold": "Int64"}, encoding="utf-8")
    stem = manifest["path"].str.extract(r"([^/]+)\.\w+$")[0].str.lower()
    manifest["label"] = manifest["label"].map(LABEL_OF)
    return manifest.set_index((manifest["part"] + "/" + stem).rename("key"))


@functools.cache
def _prelim_by_name() -> dict[str, str]:
    """Return the key of each image of the preliminary part by the name in its table of labels, in small letters."""
    prelim = _read_manifest().query("part == 'prelim'")["original"]
    return {Path(name).stem.lower(): key for key, name in prelim.items()}


def cnmc_place(image: Path) -> tuple[str, str | None] | None:
    """Return (part, key) of an image that follows C-NMC's names, else None.

    The key is the image's place in the manifest whatever its file type and the layout, "train/uid_h3_4_1_hem"; it is
    missing where something was added to the name, as to copies.
    """
    name = image.name.lower()
    while os.path.splitext(name)[1] in SUFFIXES:  # of "x.bmp.png" too
        name = os.path.splitext(name)[0]
    found = uid_of(name)
    if found:
        prelim = _prelim_by_name().get(found[0])
        key = prelim or f"train/{found[0]}"
        ends_there = found.end() == len(name)  # a word before the name is no other image, one behind it is
        return ("prelim" if prelim else "train"), key if ends_there else None
    for folder in image.parts[-2:-5:-1]:
        part = _TEST_PART.search(folder)
        if part and name.isdigit():
            return part[1].lower(), f"{part[1].lower()}/{name}"
    return None


def scan_cnmc(
    root: Path,
    images: Sequence[Path],
    places: Sequence[tuple[str, str | None] | None],
    tables: Sequence[Path],
    left_out: Mapping[str, list[Path]],
) -> Scan:
    """Scan images of which most have C-NMC's names, with the place of each (`cnmc_place`); others are left out."""
    found = [(image, *place) for image, place in zip(images, places, strict=True) if place]
    source = "synthetic" if _is_synthetic(root, [image for image, _, _ in found]) else "cnmc"
    problems, notes = _two_copies(found), []
    label_files = [table for table in tables if re.search("prelim.*label", table.name.lower())]
    if not label_files and any(part == "prelim" for _, part, _ in found):
        label_files = _label_files_above(root)
    originals = _prelim_originals(label_files, source, problems)
    given = _own_parts([image for image, part, _ in found if part == "train"], root)
    rows = [{**_cnmc_row(*place, originals, given), "source": source} for place in found]
    for row in rows:
        above = LABEL_OF.get(Path(row["path"]).parent.name.lower())
        if above and row["label"] and above != row["label"]:
            what = f"{row['path']} has the class {row['label']} in its name and lies under {above}"
            problems.append(("label", what))
    changed = [image for image, _, key in found if key is None]
    if changed:
        more = f"{len(changed)} names have something added ({changed[0].name} …)"
        notes.append(f"{more}: the subject is read from them all the same, so copies stay with their subject.")
    others = [image for image, place in zip(images, places, strict=True) if not place]
    left_out = {**left_out} | ({"names that are not C-NMC's": others} if others else {})
    reading = "C-NMC 2019's names (UID_<subject>_<image>_<cell>_<class>) say class and subject"
    reading += "; folders train, validation and test are your own division" if any(given.values()) else ""
    return Scan(root, source, frame_of(rows), reading, left_out, label_files, problems, notes)


def _own_parts(images: Sequence[Path], root: Path) -> dict[Path, str | None]:
    """Return into which part their user's folders put images with C-NMC's names; None where there is no division."""
    folders = [image.relative_to(root).parts[-2::-1] for image in images]  # from the image upwards
    parts = [next((part for name in names if (part := given_part(name))), None) for names in folders]
    return dict(zip(images, own_division(parts, root), strict=True))


def _is_synthetic(root: Path, images: list[Path]) -> bool:
    """Return whether the images belong to a synthetic data set: the folder that `twin.json` lies in holds them."""
    twins = [folder for folder in [root, *root.parents[:6]] if (folder / "twin.json").is_file()]
    if twins:
        return True
    homes = {folder for below in {image.parent for image in images} for folder in [below, *below.parents]}
    twins = [folder for folder in homes if root in folder.parents and (folder / "twin.json").is_file()]
    inside = [any(twin in image.parents for twin in twins) for image in images] if twins else []
    if any(inside) and not (all(inside) and len(twins) == 1):
        raise AllkitError(f"{root} holds a synthetic twin ({twins[0]}) and other images: point at one of the two.")
    return any(inside)


def _two_copies(found: list[tuple[Path, str, str | None]]) -> list[tuple[str, str]]:
    first: dict[str, Path] = {}
    problems = []
    for image, _, key in found:
        if key in first:
            problems.append(("two copies", f"{key} is there twice, as {first[key]} and {image}"))
        if key:
            first.setdefault(key, image)
    return problems


def _label_files_above(root: Path) -> list[Path]:
    for folder in [root.parent, *root.parent.parents[:1]]:
        tables = sorted(folder.glob("*prelim*label*.csv"))
        if tables:
            return tables
    return []


def _prelim_originals(tables: list[Path], source: str, problems: list[tuple[str, str]]) -> dict[str, str]:
    """Return the original file name of each preliminary image by its key; labels are in the names.

    Read from the published CSV (Patient_ID, new_names, labels: 1 = ALL, 0 = HEM); a genuine part without
    its CSV takes the names from the manifest.
    """
    if not tables:
        return load_manifest().query("part == 'prelim'")["original"].to_dict() if source == "cnmc" else {}
    table = read_table(tables[0], required=("Patient_ID", "new_names", "labels"))
    originals = {}
    for row in table.itertuples():
        key = f"prelim/{Path(row.new_names).stem}"
        originals[key] = row.Patient_ID
        parsed = UID.fullmatch(Path(row.Patient_ID).stem)
        if not parsed or {"1": "all", "0": "hem"}.get(row.labels) != parsed[4].lower():
            what = f"{tables[0].name} gives {row.new_names} the label {row.labels} and the name {row.Patient_ID}"
            problems.append(("label", what))
    return originals


def _cnmc_row(image: Path, part: str, key: str | None, originals: dict[str, str], given: Mapping) -> dict:
    name = originals.get(key, image.name) if part == "prelim" else image.name
    parsed = uid_of(name) if part != "final" else None
    return {
        "path": str(image),
        "label": LABEL_OF[parsed[4].lower()] if parsed else None,
        "subject": parsed[1].upper() if parsed else None,
        "fold": official_fold(image) if part == "train" else None,
        "part": part,
        "given": given.get(image),
        "name": name,
        "key": key,
    }


def official_fold(image: str | Path) -> int | None:
    """Return the fold of C-NMC that an image lies in, by its folders' names (`fold_0`), or None."""
    folds = [match for folder in Path(image).parts[:-1] if (match := FOLD.fullmatch(folder))]
    return int(folds[-1][1]) if folds else None
