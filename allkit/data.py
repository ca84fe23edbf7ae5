"""One index for every image source, and which subjects share images.

An *index* is a DataFrame with one row per image (see `load_index`). C-NMC 2019 in any of its public layouts, the
synthetic data set, a folder per class and a CSV all become the same index, so that no other module has to know where
an image came from.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from allkit import ROOT, AllkitError
from allkit.images import SUFFIXES, first_of, in_threads

COLUMNS = ("path", "label", "subject", "group", "fold", "part", "name", "source")

PARTS = ("train", "prelim", "final")

_MANIFEST = ROOT / "data" / "cnmc-manifest.csv.xz"

_LABEL_OF = {"all": "ALL", "hem": "HEM"}

_UID = re.compile(r"uid_(h?\d+)_(\d+)_(\d+)_(all|hem)", re.IGNORECASE)

_FOLD = re.compile(r"fold_?(\d+)", re.IGNORECASE)

_TEST_PART = re.compile(r"test_(prelim|final)_phase", re.IGNORECASE)


def class_order(labels: Iterable[object]) -> tuple[str, ...]:
    """Return the distinct labels: the positive class first, the others sorted, missing ones left out.

    Everything else takes the first of them for the positive class: "ALL" where it occurs, otherwise the first of the
    sorted names.
    """
    found = {label for label in labels if isinstance(label, str)}
    return tuple(sorted(found, key=lambda label: (label != "ALL", label)))


@dataclass(frozen=True)
class Scan:
    """What lies at a path, before anything is judged: rows without groups, and what did not fit."""

    root: Path
    source: str
    rows: pd.DataFrame  # COLUMNS without group, and key (name in the manifest, or None)
    extras: list[Path] = field(default_factory=list)
    label_files: list[Path] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)  # (kind, sentence)


def load_index(path: str | Path) -> pd.DataFrame:
    """Return the index of all images at `path`: one row per image, sorted by path.

    `path` is C-NMC 2019 (its root, the folder above or any folder below it), a synthetic data set, a folder that
    holds one folder per class, or a CSV with the columns path and label and optionally subject, part and fold
    (paths relative to the CSV). Columns of the result:

    - `path` absolute path; `name` original file name; `source` "cnmc", "synthetic", "folders" or "csv"
    - `label` "ALL"/"HEM", the folder's name, or None (the final test part of C-NMC was never labelled)
    - `subject` "11", "H3" or None where subjects are unknown
    - `group` never missing: subjects that share byte-identical images count as one ("H3+H10"). Where subjects
      are unknown, the relative path of the first image with the same bytes
    - `fold` official fold of C-NMC (Int64) or <NA>; `part` "train", "prelim" or "final"

    Raises `AllkitError` for a missing path, an empty folder, one class only, a CSV without its columns,
    labels that contradict each other and a subject in two parts.
    """
    scan = scan_source(path)
    if scan.problems:
        shown = first_of([sentence for _, sentence in scan.problems])
        raise AllkitError(f"{scan.root} contradicts itself: {shown}. `allkit data check` lists everything.")
    index = with_groups(scan)
    labels = class_order(index["label"])
    if len(labels) == 1:
        raise AllkitError(
            f"{scan.root} holds images of one class only ({labels[0]}): a classifier needs two. "
            "Point at the folder that holds all classes."
        )
    contradictions = subjects_in_two(index, "part")
    if contradictions:
        raise AllkitError(
            f"{first_of(contradictions)}. A subject belongs to one part: correct the CSV or move the files."
        )
    if scan.extras:
        warnings.warn(
            f"{len(scan.extras)} image files below {scan.root} do not fit its layout and were left out "
            f"(first: {scan.extras[0].name}); `allkit data check` lists them.",
            stacklevel=2,
        )
    return index


def scan_source(path: str | Path) -> Scan:
    """Return what lies at a path, of whatever kind; `AllkitError` where there is nothing to index."""
    root = Path(os.path.abspath(Path(path).expanduser()))
    if not root.exists():
        near = difflib.get_close_matches(root.name, _names_in(root.parent), n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "Check the spelling, or the folder you are in."
        raise AllkitError(f"{root} does not exist. {hint}")
    if root.is_file():
        if root.suffix.lower() != ".csv":
            raise AllkitError(f"{root} is a file: give a folder of images, or a CSV with path and label.")
        return _scan_csv(root)
    images, tables = _walk(root)
    if not images:
        kinds = ", ".join(sorted(suffix[1:].upper() for suffix in SUFFIXES))
        raise AllkitError(f"No image found below {root} ({kinds}). data/README.md shows the layouts.")
    if any(_cnmc_place(image) for image in images):
        return _scan_cnmc(root, images, tables)
    return _scan_folders(root, images)


def _names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _walk(root: Path) -> tuple[list[Path], list[Path]]:
    """Return image files and CSV files below `root`, sorted; hidden files and folders are passed over."""
    images, tables, seen = [], [], set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith((".", "__MACOSX")))
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if not name.startswith(".") and (suffix in SUFFIXES or suffix == ".csv"):
                (tables if suffix == ".csv" else images).append(Path(folder, name))
    return sorted(images, key=str), sorted(tables, key=str)


# C-NMC 2019 and its synthetic twin


def _cnmc_place(image: Path) -> tuple[str, str] | None:
    """Return (part, key) of an image that follows C-NMC's names, else None.

    The key is the image's place in the manifest whatever its file type and the layout:
    "train/uid_h3_4_1_hem".
    """
    if _UID.fullmatch(image.stem):
        return "train", f"train/{image.stem.lower()}"
    for folder in image.parts[-2:-5:-1]:
        part = _TEST_PART.search(folder)
        if part and image.stem.isdigit():
            return part[1].lower(), f"{part[1].lower()}/{image.stem}"
    return None


def load_manifest() -> pd.DataFrame:
    """Return the carried list of all files of C-NMC 2019, by `key` ("train/uid_11_10_1_all", "prelim/1").

    Columns path (in the public layout), bytes, sha256, part ("train", "prelim", "final", "labels"), label
    ("ALL", "HEM" or missing), fold (Int64), subject and original (file name with subject and class).
    """
    return _read_manifest().copy()  # so that a caller may change its own


@functools.cache
def _read_manifest() -> pd.DataFrame:
    manifest = pd.read_csv(_MANIFEST, dtype={"subject": str, "fold": "Int64"})
    stem = manifest["path"].str.extract(r"([^/]+)\.\w+$")[0].str.lower()
    manifest["label"] = manifest["label"].map(_LABEL_OF)
    return manifest.set_index((manifest["part"] + "/" + stem).rename("key"))


def _scan_cnmc(root: Path, images: list[Path], tables: list[Path]) -> Scan:
    places = [_cnmc_place(image) for image in images]
    found = [(image, *place) for image, place in zip(images, places, strict=True) if place]
    source = "synthetic" if _is_synthetic(root, [image for image, _, _ in found]) else "cnmc"
    problems = _two_copies(found)
    label_files = [table for table in tables if re.search("prelim.*label", table.name.lower())]
    if not label_files and any(part == "prelim" for _, part, _ in found):
        label_files = _label_files_above(root)
    originals = _prelim_originals(label_files, source, problems)
    rows = [{**_cnmc_row(*place, originals), "source": source} for place in found]
    for row in rows:
        above = _LABEL_OF.get(Path(row["path"]).parent.name.lower())
        if row["part"] == "train" and above and above != row["label"]:
            what = f"{row['path']} has the class {row['label']} in its name and lies under {above}"
            problems.append(("label", what))
    extras = [image for image, place in zip(images, places, strict=True) if not place]
    return Scan(root, source, _frame(rows), extras, label_files, problems)


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


def _two_copies(found: list[tuple[Path, str, str]]) -> list[tuple[str, str]]:
    first: dict[str, Path] = {}
    problems = []
    for image, _, key in found:
        if key in first:
            problems.append(("two copies", f"{key} is there twice, as {first[key]} and {image}"))
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
    table = _read_csv(tables[0], required=("Patient_ID", "new_names", "labels"))
    originals = {}
    for row in table.itertuples():
        key = f"prelim/{Path(row.new_names).stem}"
        originals[key] = row.Patient_ID
        parsed = _UID.fullmatch(Path(row.Patient_ID).stem)
        if not parsed or {"1": "all", "0": "hem"}.get(row.labels) != parsed[4].lower():
            what = f"{tables[0].name} gives {row.new_names} the label {row.labels} and the name {row.Patient_ID}"
            problems.append(("label", what))
    return originals


def _cnmc_row(image: Path, part: str, key: str, originals: dict[str, str]) -> dict:
    name = originals.get(key, image.name) if part == "prelim" else image.name
    parsed = _UID.fullmatch(Path(name).stem) if part != "final" else None
    return {
        "path": str(image),
        "label": _label(parsed[4]) if parsed else None,
        "subject": parsed[1].upper() if parsed else None,
        "fold": official_fold(image) if part == "train" else None,
        "part": part,
        "name": name,
        "key": key,
    }


def official_fold(image: str | Path) -> int | None:
    """Return the fold of C-NMC that an image lies in, by its folders' names (`fold_0`), or None."""
    folds = [match for folder in Path(image).parts[:-1] if (match := _FOLD.fullmatch(folder))]
    return int(folds[-1][1]) if folds else None


# any other source


def _scan_folders(root: Path, images: list[Path]) -> Scan:
    """Scan one folder per class; a lone folder around them, as archives unpack, is stepped into."""
    base = root
    while len({image.relative_to(base).parts[0] for image in images}) == 1 and base / images[0].name != images[0]:
        inner = base / images[0].relative_to(base).parts[0]
        if all(image.parent == inner for image in images):
            break
        base = inner
    placed = [(image, image.relative_to(base).parts) for image in images]
    classes = {parts[0] for _, parts in placed if len(parts) > 1}
    if not classes:
        raise AllkitError(
            f"The images lie directly in {base}: it takes one folder per class, or a CSV with path and label."
        )
    if classes <= {"train", "training", "test", "testing", "val", "valid", "validation"}:
        raise AllkitError(
            f"The folders of {base} ({', '.join(sorted(classes))}) look like parts, not classes. "
            "Point at one of them, or list all images in a CSV with path, label and part."
        )
    rows = [
        {
            "path": str(image),
            "label": _label(parts[0]),
            "part": "train",
            "name": image.name,
            "source": "folders",
        }
        for image, parts in placed
        if len(parts) > 1
    ]
    return Scan(root, "folders", _frame(rows), [image for image, parts in placed if len(parts) == 1])


def _scan_csv(path: Path) -> Scan:
    table = _read_csv(path, required=("path", "label"), optional=("subject", "part", "fold"))
    if table.empty:
        raise AllkitError(f"{path} lists no image: write one line per image below the header.")
    wrong = sorted(set(table.get("part", [])) - {*PARTS, ""})
    if wrong:
        raise AllkitError(
            f"{path}: part {', '.join(map(repr, wrong))} is not known. Use train (to be split), prelim (a "
            "separate test set) or final (unlabelled), or leave the column out."
        )
    rows, problems = [], []
    for row in table.to_dict("records"):
        image = Path(os.path.abspath(path.parent / Path(row["path"]).expanduser()))
        if image.is_file():
            rows.append(_csv_row(row, image, path))
        else:
            problems.append(("missing", f"{row['path']} is listed in {path.name} but does not exist"))
    frame = _frame(rows)
    for row in frame[frame["label"].isna() & (frame["part"] != "final")].itertuples():
        problems.append(("label", f"{row.path} has no label; only images of the part final may lack it"))
    for twice in frame.loc[frame["path"].duplicated(), "path"]:
        problems.append(("two copies", f"{twice} is listed twice"))
    return Scan(path, "csv", frame, problems=problems)


def _csv_row(row: dict[str, str], image: Path, path: Path) -> dict:
    return {
        "path": str(image),
        "label": _label(row["label"]),
        "subject": row.get("subject") or None,
        "fold": _whole_number(row.get("fold"), path),
        "part": row.get("part") or "train",
        "name": image.name,
        "source": "csv",
    }


def _label(name: str) -> str | None:
    return _LABEL_OF.get(name.lower(), name) or None


def _whole_number(text: str | None, path: Path) -> int | None:
    if not text:
        return None
    if not text.isdigit():
        raise AllkitError(f"{path}: the fold {text!r} is not a whole number. Use 0, 1, 2 … or leave it empty.")
    return int(text)


_MEANT = {
    "path": ("file", "filename", "file_name", "image", "img", "image_path", "filepath", "name", "new_names"),
    "label": ("labels", "class", "target", "diagnosis", "category", "y"),
    "subject": ("patient", "patient_id", "subject_id", "case", "donor"),
}


def _read_csv(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Return a CSV as text, columns named as in `required` and `optional` whatever their case, empty fields as ""."""
    try:
        header = path.read_text(encoding="utf-8-sig").partition("\n")[0]
        separator = max(",;\t", key=header.count)
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise AllkitError(f"{path} cannot be read as a CSV: {error}. Save it as UTF-8 with commas.") from error
    wanted = {name.lower(): name for name in (*required, *optional)}
    table = table.rename(columns=lambda column: wanted.get(str(column).strip().lower(), str(column).strip()))
    missing = [name for name in required if name not in table]
    if missing:
        near = [
            f"{column!r} looks like {name!r}: rename it"
            for name in missing
            for column in table.columns
            if column.lower() in _MEANT.get(name, ()) or difflib.get_close_matches(name, [column.lower()])
        ]
        raise AllkitError(
            f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(table.columns)}. "
            + ("; ".join(near) if near else f"Its first line must name {', '.join(required)}")
            + "."
        )
    return table.map(str.strip)


def _frame(rows: list[dict]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "group"] + ["key"], dtype=object)
    frame["fold"] = frame["fold"].astype("Int64")
    text = frame.columns.drop("fold")
    frame[text] = frame[text].where(frame[text].notna(), None)
    return frame.sort_values("path", ignore_index=True)


# groups


def with_groups(scan: Scan, content: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the index with `group`: subjects, or images without one, linked wherever content is the same."""
    rows = scan.rows
    names = relative_paths(rows["path"])
    units = [subject or name for subject, name in zip(rows["subject"], names, strict=True)]
    contents = list(content) if content is not None else _contents(scan)
    links = list(zip(units, contents, strict=True))
    if scan.source == "cnmc":
        known = load_manifest().dropna(subset=["subject"])
        known = known[known["sha256"].duplicated(keep=False)]
        links += list(zip(known["subject"], known["sha256"], strict=True))
    subjects = {subject for subject in rows["subject"] if subject}
    subjects |= {unit for unit, _ in links[len(units) :]}
    group_of = _linked(links, subjects)
    index = rows.drop(columns="key")
    index.insert(3, "group", [group_of[unit] for unit in units])
    return index.astype({"group": object})


def _linked(links: list[tuple[str, str]], subjects: set[str]) -> dict[str, str]:
    """Return the group of each unit: units that share a content, also through others, are one group."""
    unit, units = pd.factorize(np.array([unit for unit, _ in links], dtype=object))
    content, contents = pd.factorize(np.array([content for _, content in links], dtype=object))
    size = len(units) + len(contents)
    graph = coo_array((np.ones(len(links), np.int8), (unit, content + len(units))), shape=(size, size))
    component = connected_components(graph, directed=False)[1][: len(units)]
    members: dict[int, list[str]] = {}
    for name, number in zip(units, component, strict=True):
        members.setdefault(number, []).append(name)
    named = {number: _group_name(names, subjects) for number, names in members.items()}
    return {name: named[number] for name, number in zip(units, component, strict=True)}


def _group_name(members: list[str], subjects: set[str]) -> str:
    known = sorted((name for name in members if name in subjects), key=natural_key)
    if not known:
        return min(members)
    return "+".join(known) if len(known) <= 6 else f"{known[0]}+{len(known) - 1} more"


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts "H2" before "H10"."""
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in re.findall(r"\d+|\D+", text)]


def _contents(scan: Scan) -> list[str]:
    """Return for each row a text that is equal for byte-identical images and different for others.

    Genuine C-NMC takes it from the manifest, by name: nothing is read, and a converted copy counts as the
    image it was. Elsewhere only files that agree in size and in a block from their middle are read and
    hashed.
    """
    published = load_manifest()["sha256"] if scan.source == "cnmc" else {}
    contents = scan.rows["key"].map(published).astype(object)
    alike = scan.rows["path"][contents.isna()]
    for look in (_file_size, _middle_block, file_sum):
        found = pd.Series(list(in_threads(look, alike)), index=alike.index, dtype=object)
        alike = alike[found.duplicated(keep=False)]
    contents[alike.index] = found[alike.index]
    return [f"alone {row}" if pd.isna(content) else content for row, content in contents.items()]


def _file_size(path: str) -> int:
    return os.stat(path).st_size


def _middle_block(path: str) -> tuple[int, bytes]:
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        file.seek(size // 2)
        return size, hashlib.blake2b(file.read(1 << 14), digest_size=16).digest()


def file_sum(path: str) -> str:
    """Return the SHA-256 sum of a file, hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def source_images(names: pd.Series) -> pd.Series:
    """Return which microscope image each cell was cut from, by C-NMC's names: "H3 image 12", missing for others."""
    parts = names.str.extract(rf"^{_UID.pattern}", flags=_UID.flags)
    return parts[0].str.upper() + " image " + parts[1]


def subjects_in_two(index: pd.DataFrame, column: str) -> list[str]:
    """Return a sentence for each subject that occurs under two values of `column` ("part" or "fold")."""
    known = index.dropna(subset=["subject", column])
    places = known.groupby("subject")[column].unique()
    return [
        f"subject {subject} is in the {column}s {' and '.join(str(place) for place in sorted(found))}"
        for subject, found in places.items()
        if len(found) > 1
    ]


def relative_paths(paths: Iterable[str]) -> list[str]:
    """Return the paths below the deepest folder that holds them all, with forward slashes."""
    paths = list(paths)
    base = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    start = len(os.path.join(base, ""))
    return [path[start:].replace(os.sep, "/") for path in paths]


def index_hash(index: pd.DataFrame) -> str:
    """Return 16 hexadecimal digits that stand for what is in the index, wherever its folder lies.

    Covers relative path, name, label, subject, group, fold, part and file size of every image.
    """
    table = index[["name", "label", "subject", "group", "fold", "part"]].astype("string").fillna("")
    sizes = map(str, in_threads(_file_size, index["path"]))
    lines = zip(relative_paths(index["path"]), *(table[column] for column in table), sizes, strict=True)
    return hashlib.sha256("\n".join(sorted(map("\t".join, lines))).encode()).hexdigest()[:16]
