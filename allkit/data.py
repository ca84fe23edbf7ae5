"""Room `data`: one index for every image source, reading images, checking a data set.

An *index* is a DataFrame with one row per image (see `load_index`). C-NMC 2019 in any of its public
layouts, the synthetic twin, a folder per class and a CSV all become the same index, so nothing after this
room asks where an image came from.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import io
import os
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from allkit import ROOT, AllkitError

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

POSITIVE = "ALL"
"""The positive class. `class_order` puts it first, and everything else asks `class_order`."""

SUFFIXES = frozenset({".bmp", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"})
COLUMNS = ("path", "label", "subject", "group", "fold", "part", "name", "source")
PARTS = ("train", "prelim", "final")
MANIFEST = ROOT / "data" / "cnmc-manifest.csv.xz"
MAX_PIXELS = 50_000_000
"""Larger images are refused: a small file can unpack to more than fits in memory (decompression bomb)."""

_LABEL_OF = {"all": "ALL", "hem": "HEM"}
_UID = re.compile(r"uid_(h?\d+)_(\d+)_(\d+)_(all|hem)", re.IGNORECASE)
_FOLD = re.compile(r"fold_?(\d+)", re.IGNORECASE)
_TEST_PART = re.compile(r"test_(prelim|final)_phase", re.IGNORECASE)
_PREPARE_VERSION = 1  # part of the cache key: raise it when prepare_image changes its pixels


class ImageError(AllkitError):
    """An image cannot be read or used; the message names it and says what to do."""


def class_order(labels: Iterable[object]) -> tuple[str, ...]:
    """Return the distinct labels: the positive class first, the others sorted, missing ones left out.

    The only place that knows which class is positive: `POSITIVE` ("ALL") where it occurs. For any other set
    of classes the first of the sorted names takes its place.
    """
    found = sorted({label for label in labels if isinstance(label, str)})
    return tuple(sorted(found, key=lambda label: label != POSITIVE))


# ---------------------------------------------------------------------------------------------- index


@dataclass(frozen=True)
class _Scan:
    """What lies at a path, before anything is judged: rows without groups, and what did not fit."""

    root: Path
    source: str
    rows: pd.DataFrame  # COLUMNS without group, and key (name in the manifest, or None)
    extras: list[Path] = field(default_factory=list)
    label_files: list[Path] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)  # (kind, sentence)


def load_index(path: str | Path) -> pd.DataFrame:
    """Return the index of all images at `path`: one row per image, sorted by path.

    `path` is C-NMC 2019 (its root, the folder above or any folder below it), a synthetic twin, a folder that
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
    scan = _scan(path)
    if scan.problems:
        shown = _some([sentence for _, sentence in scan.problems])
        raise AllkitError(f"{scan.root} contradicts itself: {shown}. `allkit data check` lists everything.")
    index = _with_groups(scan)
    labels = class_order(index["label"])
    if len(labels) == 1:
        raise AllkitError(
            f"{scan.root} holds images of one class only ({labels[0]}): a classifier needs two. "
            "Point at the folder that holds all classes."
        )
    contradictions = _subjects_in_two(index, "part")
    if contradictions:
        raise AllkitError(
            f"{_some(contradictions)}. A subject belongs to one part: correct the CSV or move the files."
        )
    if scan.extras:
        warnings.warn(
            f"{len(scan.extras)} image files below {scan.root} do not fit its layout and were left out "
            f"(first: {scan.extras[0].name}); `allkit data check` lists them.",
            stacklevel=2,
        )
    return index


def _scan(path: str | Path) -> _Scan:
    root = Path(os.path.abspath(Path(path).expanduser()))
    if not root.exists():
        near = difflib.get_close_matches(root.name, _names_in(root.parent), n=3)
        hint = (
            f"Did you mean {' or '.join(near)}?" if near else "Check the spelling, or the folder you are in."
        )
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


@functools.cache
def load_manifest() -> pd.DataFrame:
    """Return the carried list of all files of C-NMC 2019, by `key` ("train/uid_11_10_1_all", "prelim/1").

    Columns path (in the public layout), bytes, sha256, part ("train", "prelim", "final", "labels"), label
    ("ALL", "HEM" or missing), fold (Int64), subject and original (file name with subject and class).
    """
    import pandas as pd

    manifest = pd.read_csv(MANIFEST, dtype={"subject": str, "fold": "Int64"})
    stem = manifest["path"].str.extract(r"([^/]+)\.\w+$")[0].str.lower()
    manifest["label"] = manifest["label"].map(_LABEL_OF)
    return manifest.set_index((manifest["part"] + "/" + stem).rename("key"))


def _scan_cnmc(root: Path, images: list[Path], tables: list[Path]) -> _Scan:
    places = [_cnmc_place(image) for image in images]
    found = [(image, *place) for image, place in zip(images, places, strict=True) if place]
    source = "synthetic" if _is_synthetic(root, [image for image, _, _ in found]) else "cnmc"
    problems = _two_copies(found)
    label_files = [table for table in tables if re.search("prelim.*label", table.name.lower())]
    if not label_files and any(part == "prelim" for _, part, _ in found):
        label_files = _label_files_above(root)
    originals = _prelim_originals(label_files, source, problems)
    rows = []
    for image, part, key in found:
        row, problem = _cnmc_row(image, part, key, originals)
        rows.append({**row, "source": source})
        if problem:
            problems.append(("label", problem))
    extras = [image for image, place in zip(images, places, strict=True) if not place]
    return _Scan(root, source, _frame(rows), extras, label_files, problems)


def _is_synthetic(root: Path, images: list[Path]) -> bool:
    """Tell whether the images belong to a synthetic twin: the folder `twin.json` lies in holds them."""
    twins = [folder for folder in [root, *root.parents[:6]] if (folder / "twin.json").is_file()]
    if twins:
        return True
    homes = {folder for below in {image.parent for image in images} for folder in [below, *below.parents]}
    twins = [folder for folder in homes if root in folder.parents and (folder / "twin.json").is_file()]
    inside = [any(twin in image.parents for twin in twins) for image in images] if twins else []
    if any(inside) and not (all(inside) and len(twins) == 1):
        raise AllkitError(
            f"{root} holds a synthetic twin ({twins[0]}) and other images: point at one of the two."
        )
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
        known = load_manifest() if source == "cnmc" else None
        if known is None:
            return {}
        known = known[known["part"] == "prelim"]
        return dict(zip(known.index, known["original"], strict=True))
    table = _read_csv(tables[0], required=("Patient_ID", "new_names", "labels"))
    originals = {}
    for row in table.itertuples():
        key = f"prelim/{Path(row.new_names).stem}"
        originals[key] = row.Patient_ID
        parsed = _UID.fullmatch(Path(row.Patient_ID).stem)
        if not parsed or {"1": "all", "0": "hem"}.get(row.labels) != parsed[4].lower():
            what = (
                f"{tables[0].name} gives {row.new_names} the label {row.labels} and the name {row.Patient_ID}"
            )
            problems.append(("label", what))
    return originals


def _cnmc_row(image: Path, part: str, key: str, originals: dict[str, str]) -> tuple[dict, str]:
    """Return the row of one image, and a sentence if folder and name give it different classes."""
    name = originals.get(key, image.name) if part == "prelim" else image.name
    parsed = _UID.fullmatch(Path(name).stem) if part != "final" else None
    label = _label(parsed[4]) if parsed else None
    folds = [match for folder in image.parts[:-1] if (match := _FOLD.fullmatch(folder))]
    above = _LABEL_OF.get(image.parent.name.lower())
    row = {
        "path": str(image),
        "label": label,
        "subject": parsed[1].upper() if parsed else None,
        "fold": int(folds[-1][1]) if folds and part == "train" else None,
        "part": part,
        "name": name,
        "key": key,
    }
    return row, f"{image} has the class {label} in its name and lies under {above}" if (
        part == "train" and above and above != label
    ) else ""


# any other source


def _scan_folders(root: Path, images: list[Path]) -> _Scan:
    """Folder per class; a lone folder around it (as archives unpack) is stepped into."""
    base = root
    while (
        len({image.relative_to(base).parts[0] for image in images}) == 1
        and base / images[0].name != images[0]
    ):
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
    return _Scan(root, "folders", _frame(rows), [image for image, parts in placed if len(parts) == 1])


def _scan_csv(path: Path) -> _Scan:
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
        if not image.is_file():
            problems.append(("missing", f"{row['path']} is listed in {path.name} but does not exist"))
            continue
        if not row["label"] and row.get("part") != "final":
            problems.append(
                ("label", f"{row['path']} has no label; only images of the part final may lack it")
            )
        rows.append(
            {
                "path": str(image),
                "label": _label(row["label"]),
                "subject": row.get("subject") or None,
                "fold": _whole_number(row.get("fold"), path),
                "part": row.get("part") or "train",
                "name": image.name,
                "source": "csv",
            }
        )
    frame = _frame(rows)
    for twice in frame.loc[frame["path"].duplicated(), "path"]:
        problems.append(("two copies", f"{twice} is listed twice"))
    return _Scan(path, "csv", frame, problems=problems)


def _label(name: str) -> str | None:
    return _LABEL_OF.get(name.lower(), name) or None


def _whole_number(text: str | None, path: Path) -> int | None:
    if not text:
        return None
    if not text.isdigit():
        raise AllkitError(
            f"{path}: the fold {text!r} is not a whole number. Use 0, 1, 2 … or leave it empty."
        )
    return int(text)


_MEANT = {
    "path": ("file", "filename", "file_name", "image", "img", "image_path", "filepath", "name", "new_names"),
    "label": ("labels", "class", "target", "diagnosis", "category", "y"),
    "subject": ("patient", "patient_id", "subject_id", "case", "donor"),
}


def _read_csv(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Return a CSV as text, its columns named as asked whatever their case; "" stands for an empty field."""
    import pandas as pd

    try:
        header = path.read_text(encoding="utf-8-sig").partition("\n")[0]
        separator = max(",;\t", key=header.count)
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise AllkitError(
            f"{path} cannot be read as a CSV: {error}. Save it as UTF-8 with commas."
        ) from error
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
    import pandas as pd

    frame = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "group"] + ["key"], dtype=object)
    frame["fold"] = frame["fold"].astype("Int64")
    text = frame.columns.drop("fold")
    frame[text] = frame[text].where(frame[text].notna(), None)
    return frame.sort_values("path", ignore_index=True)


# groups


def _with_groups(scan: _Scan, content: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the index with `group`: subjects, or images without one, linked wherever content is the same."""
    rows = scan.rows
    names = _relative(rows["path"])
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
    import pandas as pd
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

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
    return [
        (0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in re.findall(r"\d+|\D+", text)
    ]


def _contents(scan: _Scan) -> list[str]:
    """Return for each row a text that is equal for byte-identical images and different for others.

    Genuine C-NMC takes it from the manifest, by name: nothing is read, and a converted copy counts as the
    image it was. Elsewhere only files that agree in size and in a block from their middle are read and
    hashed.
    """
    rows = scan.rows
    contents = [f"alone {number}" for number in range(len(rows))]
    sums = load_manifest()["sha256"] if scan.source == "cnmc" else {}
    for number, key in enumerate(rows["key"]):
        if key in sums:
            contents[number] = sums[key]
    unknown = [number for number, content in enumerate(contents) if content.startswith("alone")]
    for looks in (_file_size, _middle_block):
        unknown = _still_equal(unknown, _in_threads(looks, [rows["path"][number] for number in unknown]))
    for number, digest in zip(
        unknown, _in_threads(_file_sum, [rows["path"][number] for number in unknown]), strict=True
    ):
        contents[number] = digest
    return contents


def _still_equal(numbers: list[int], values: Iterable[object]) -> list[int]:
    alike: dict[object, list[int]] = {}
    for number, value in zip(numbers, values, strict=True):
        alike.setdefault(value, []).append(number)
    return sorted(number for same in alike.values() if len(same) > 1 for number in same)


def _file_size(path: str) -> int:
    return os.stat(path).st_size


def _middle_block(path: str) -> tuple[int, bytes]:
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        file.seek(size // 2)
        return size, hashlib.blake2b(file.read(1 << 14), digest_size=16).digest()


def _file_sum(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _subjects_in_two(index: pd.DataFrame, column: str) -> list[str]:
    """Return a sentence for each subject that occurs under two values of `column` ("part" or "fold")."""
    known = index.dropna(subset=["subject", column])
    places = known.groupby("subject")[column].unique()
    return [
        f"subject {subject} is in the {column}s {' and '.join(str(place) for place in sorted(found))}"
        for subject, found in places.items()
        if len(found) > 1
    ]


def _some(sentences: Sequence[str], most: int = 10) -> str:
    more = f" and {len(sentences) - most} more" if len(sentences) > most else ""
    return "; ".join(str(sentence) for sentence in sentences[:most]) + more


def _relative(paths: Iterable[str]) -> list[str]:
    """Return the paths below the deepest folder that holds them all, with forward slashes."""
    paths = list(paths)
    base = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    start = len(os.path.join(base, ""))
    return [path[start:].replace(os.sep, "/") for path in paths]


def index_hash(index: pd.DataFrame) -> str:
    """Return 16 hexadecimal digits that stand for what is in the index, wherever its folder lies.

    Covers relative path, name, label, subject, group, fold, part and file size of every image.
    """
    columns = ["name", "label", "subject", "group", "fold", "part"]
    sizes = _in_threads(_file_size, index["path"])
    lines = zip(_relative(index["path"]), *(index[column] for column in columns), sizes, strict=True)
    text = sorted(
        "\t".join("" if value is None or value is _na() else str(value) for value in line) for line in lines
    )
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


def _na() -> object:
    import pandas as pd

    return pd.NA


def _in_threads(work: Callable, items: Iterable, *, progress: bool = False, desc: str = "") -> Iterator:
    """Yield `work(item)` in order, computed in threads; at most a few hundred results wait at a time."""
    from tqdm import tqdm

    items = list(items)
    with (
        ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool,
        tqdm(total=len(items), desc=desc, unit="image", disable=not progress, leave=False) as bar,
    ):
        for start in range(0, len(items), 256):
            for result in pool.map(work, items[start : start + 256]):
                yield result
                bar.update()


# -------------------------------------------------------------------------------------------- reading


def read_image(source: str | Path | bytes, name: str = "") -> np.ndarray:
    """Return an image as RGB, uint8 (height, width, 3), 0–255.

    `source` is a path or the bytes of a file (BMP, PNG, JPEG, TIFF, WebP); `name` is what messages call it.
    EXIF orientation is applied; greyscale and palette become RGB; transparency is laid over black, C-NMC's
    background; 16-bit values are scaled so that 65,535 becomes 255. Of several frames the first is taken.
    Raises `ImageError` for anything that is missing, truncated, too large or not an image.
    """
    name = name or ("the image" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ImageError(
            f"{name} cannot be opened: {error.strerror or error}. Check path and rights."
        ) from error
    return _decode(data, name)[0]


def _decode(data: bytes, name: str) -> tuple[np.ndarray, str]:
    """Return pixels and file format of the bytes of one image."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ImageError(f"{name} is empty (0 bytes). Copy or download it again.")
    try:
        with Image.open(io.BytesIO(data), formats=("BMP", "PNG", "JPEG", "TIFF", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{name} is {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are read. "
                    "Cut the cell out, or scale the image down."
                )
            if image.format == "TIFF" and _is_wide_planar(image):
                return _decode_tiff(data, name), "TIFF"
            image.load()
            return _to_rgb(image, name), image.format or ""
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is refused: {error}. Scale the image down.") from error
    except Exception as error:  # decoders raise almost anything on damaged files
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and isinstance(
            error, UnidentifiedImageError | SyntaxError | KeyError
        ):
            return _decode_tiff(data, name), "TIFF"
        if isinstance(error, UnidentifiedImageError):
            raise ImageError(
                f"{name} is not a BMP, PNG, JPEG, TIFF or WebP image, or its first bytes are damaged. "
                "Save it in one of these formats, or copy it again."
            ) from error
        raise ImageError(f"{name} is damaged or truncated ({error}). Copy or download it again.") from error


def _is_wide_planar(image: Image.Image) -> bool:
    # Pillow reads 16-bit TIFFs with separate colour planes as if they had 8 bits, without an error
    return image.tag_v2.get(284) == 2 and max(image.tag_v2.get(258, (8,))) > 8


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scaled_to_8_bit(np.asarray(image), name)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _scaled_to_8_bit(values: np.ndarray, name: str) -> np.ndarray:
    """Return grey or RGB values of 16 bits as RGB of 8: scaled by the whole range, not by the image's own."""
    if values.dtype != np.uint8:
        if values.dtype.kind not in "ui" or values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"{name} holds {values.dtype} values beyond 16 bits, whose black and white are not known. "
                "Save it with 8 bits per channel."
            )
        values = np.round(values / 257).astype(np.uint8)
    return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values


def _decode_tiff(data: bytes, name: str) -> np.ndarray:
    """Read a TIFF that Pillow cannot read, or reads wrongly, with tifffile."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            if page.imagewidth * page.imagelength > MAX_PIXELS:
                raise ImageError(f"{name} has more than {MAX_PIXELS:,} pixels. Scale it down.")
            values, axes = page.asarray(), page.axes
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{name} is a TIFF that cannot be read ({error}). Save it as PNG.") from error
    if axes.startswith("S"):
        values = np.moveaxis(values, 0, -1)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name} is a TIFF of shape {values.shape}, not greyscale or RGB. Save it as PNG.")
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    return np.ascontiguousarray(_scaled_to_8_bit(values[..., :3] if values.ndim == 3 else values, name))


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Return the centre square of side `size`, (size, size, …); what the image lacks is filled with black."""
    height, width = image.shape[:2]
    top, left = max(0, (height - size) // 2), max(0, (width - size) // 2)
    piece = image[top : top + size, left : left + size]
    if piece.shape[:2] == (size, size):
        return piece
    whole = np.zeros((size, size, *image.shape[2:]), image.dtype)
    top, left = (size - piece.shape[0]) // 2, (size - piece.shape[1]) // 2
    whole[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
    return whole


def prepare_image(image: np.ndarray, image_size: int, crop: int | None = None) -> np.ndarray:
    """Return the image as the networks see it: uint8 (image_size, image_size, 3), 0–255.

    The one rule for training and for an uploaded image. A 600×600 image with a black border (C-NMC's final
    test part) is first centre-cropped to 450×450, the size of all others. Then the centre square of side
    `crop` is taken (None: the whole image, made square with black), and resized with antialiasing.
    """
    from PIL import Image

    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(
            f"Expected RGB uint8 (height, width, 3), got {image.dtype} {image.shape}: use read_image."
        )
    if image.shape[:2] == (600, 600) and _has_black_border(image):
        image = centre_crop(image, 450)
    image = centre_crop(image, crop or max(image.shape[:2]))
    if image.shape[0] == image_size:
        return np.ascontiguousarray(image)
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(
        (image_size, image_size), Image.Resampling.BILINEAR
    )
    return np.array(resized)


def _has_black_border(image: np.ndarray, width: int = 8, darkest: int = 15) -> bool:
    # 15 rather than 0: JPEG copies of black are not quite black
    edges = (image[:width], image[-width:], image[:, :width], image[:, -width:])
    return all(edge.max() <= darkest for edge in edges)


def cache_folder() -> Path:
    """Return the folder of what can be computed again: `$ALLKIT_CACHE`, or data/cache in the clone."""
    return Path(os.environ.get("ALLKIT_CACHE", ROOT / "data" / "cache"))


def load_images(
    index: pd.DataFrame,
    *,
    image_size: int,
    crop: int | None = None,
    cache: str | Path | bool | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Return all images of the index, prepared: uint8 (n, image_size, image_size, 3), 0–255.

    Prepared by `prepare_image`, decoded once in threads and kept as a .npy file in the folder `cache`
    (None: `$ALLKIT_CACHE` or data/cache in the clone; False: in memory only). The result is then a
    read-only memory map, so that memory does not grow with the data set. The file is used again while
    paths, sizes, times of change, `image_size` and `crop` are the same. A cache that cannot be written
    (disk full) is done without, with a warning. Raises `ImageError` naming the images that cannot be read.
    """
    paths = list(index["path"])
    images = _prepared(paths, image_size, crop, progress)
    if cache is False or not paths:
        return _stacked(images, len(paths), image_size)
    folder = cache_folder() if cache in (None, True) else Path(cache)
    file = folder / f"images-{_cache_key(paths, image_size, crop)}.npy"
    try:
        if not file.is_file():
            _write_cache(file, images, (len(paths), image_size, image_size, 3))
        return np.load(file, mmap_mode="r")
    except OSError as error:
        warnings.warn(
            f"The cache {folder} cannot be used ({error.strerror or error}): images are kept in memory. Free "
            "some space, or set ALLKIT_CACHE to another folder.",
            stacklevel=2,
        )
    return _stacked(_prepared(paths, image_size, crop, progress), len(paths), image_size)


def _cache_key(paths: list[str], image_size: int, crop: int | None) -> str:
    key = hashlib.sha256(f"{_PREPARE_VERSION} {image_size} {crop}".encode())
    for path in paths:
        try:
            state = os.stat(path)
        except OSError as error:
            raise ImageError(f"{path} cannot be opened: {error.strerror}. Load the index again.") from error
        key.update(f"\n{path}\t{state.st_size}\t{state.st_mtime_ns}".encode())
    return key.hexdigest()[:24]


def _prepared(paths: list[str], image_size: int, crop: int | None, progress: bool) -> Iterator[np.ndarray]:
    """Yield the prepared images in order; at the end, raise one `ImageError` for all unreadable ones."""

    def prepare(path: str) -> np.ndarray | ImageError:
        try:
            return prepare_image(read_image(path), image_size, crop)
        except ImageError as error:
            return error

    failed = []
    for result in _in_threads(prepare, paths, progress=progress, desc="Reading images"):
        if isinstance(result, ImageError):
            failed.append(str(result))
        elif not failed:
            yield result
    if len(failed) == 1:
        raise ImageError(failed[0])
    if failed:
        raise ImageError(f"{len(failed)} images cannot be read. {_some(failed)}")


def _stacked(images: Iterator[np.ndarray], count: int, image_size: int) -> np.ndarray:
    stack = np.empty((count, image_size, image_size, 3), np.uint8)
    for number, image in enumerate(images):
        stack[number] = image
    return stack


def _write_cache(file: Path, images: Iterator[np.ndarray], shape: tuple[int, ...]) -> None:
    # Written in order rather than through a memory map: on a full disk a map kills the process (SIGBUS), a
    # write raises OSError.
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".part-{os.getpid()}")
    try:
        with open(partial, "wb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            for image in images:
                out.write(image.tobytes())
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------- checking


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What `check_data` found.

    - `images`: the index with bytes, width, height, format, sha256 (of the file), pixels (hash of the decoded
      pixels) and error ("" if readable), one row per image
    - `counts`: images and subjects by part, fold and label; `subjects`: images by subject; `sizes`: images by
      width and height
    - `duplicates`: one row per set of identical images: kind ("bytes", or "pixels" where files differ),
      images, subjects, labels, parts, folds, paths; `linked`: pairs of subjects that share images
    - `manifest`: files by state against the published list of C-NMC ("agrees", "corrupt", "converted",
      "absent", "unlisted"), None for any other source; `extras`: files that belong to nothing
    - `problems`: kind and sentence for everything that is wrong; `notes`: worth knowing, but not wrong
    """

    path: Path
    source: str
    images: pd.DataFrame
    counts: pd.DataFrame
    subjects: pd.DataFrame
    sizes: pd.DataFrame
    duplicates: pd.DataFrame
    linked: pd.DataFrame
    manifest: pd.Series | None
    extras: list[str]
    problems: pd.DataFrame
    notes: list[str]

    @property
    def ok(self) -> bool:
        """False only if something is wrong: see `problems`."""
        return self.problems.empty

    def to_text(self) -> str:
        """Return the findings as plain text for a terminal."""
        return "\n".join(_report_lines(self))


_KINDS = {
    "cnmc": "C-NMC 2019",
    "synthetic": "a synthetic twin of C-NMC 2019 (no genuine cell)",
    "folders": "a folder per class",
    "csv": "a list of images (CSV)",
}


def check_data(path: str | Path, *, progress: bool = False) -> DataCheck:
    """Read every image at `path` once, and return what is there and what is wrong with it.

    Wrong (`.ok` is False): unreadable or truncated files, files that differ from the published C-NMC,
    labels that contradict each other, identical images in two classes or two parts, a subject in two folds
    or parts. A subset and converted file types are fine. Raises `AllkitError` where there is nothing to
    check (see `load_index`).
    """
    import pandas as pd

    scan = _scan(path)
    found = list(_in_threads(_inspect, scan.rows["path"], progress=progress, desc="Checking images"))
    details = pd.DataFrame(found, columns=_INSPECTED)
    state = _manifest_state(scan, details)
    index = _with_groups(scan, _known_contents(scan, details["sha256"]))
    images = pd.concat([index, details], axis=1)
    duplicates = _duplicates(images)
    manifest, unlisted = _manifest_counts(scan, state)
    problems = scan.problems + _problems(scan, images, duplicates, state)
    return DataCheck(
        path=scan.root,
        source=scan.source,
        images=images,
        counts=_counts(images),
        subjects=_count(images.dropna(subset=["subject"]), ["subject", "label", "part", "fold"]),
        sizes=_count(images[images["error"] == ""], ["width", "height"]),
        duplicates=duplicates,
        linked=_linked_subjects(duplicates),
        manifest=manifest,
        extras=sorted([str(extra) for extra in scan.extras] + unlisted),
        problems=pd.DataFrame(problems, columns=["kind", "what"]),
        notes=_notes(scan, images, duplicates),
    )


_INSPECTED = ("bytes", "width", "height", "format", "sha256", "pixels", "error")


def _inspect(path: str) -> tuple:
    """Return size, width, height, format, hashes of file and pixels, and error of one image, read once."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return 0, 0, 0, "", f"unread {path}", f"unread {path}", f"cannot be opened: {error.strerror or error}"
    digest = hashlib.sha256(data).hexdigest()
    try:
        pixels, kind = _decode(data, path)
    except ImageError as error:
        return len(data), 0, 0, "", digest, f"unread {path}", str(error).removeprefix(f"{path} ")
    height, width = pixels.shape[:2]
    seen = f"{width}×{height} {hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()}"
    return len(data), width, height, kind, digest, seen, ""


def _known_contents(scan: _Scan, sums: Sequence[str]) -> list[str]:
    published = load_manifest()["sha256"] if scan.source == "cnmc" else {}
    return [published.get(key, own) for key, own in zip(scan.rows["key"], sums, strict=True)]


def _manifest_state(scan: _Scan, details: pd.DataFrame) -> list[str]:
    """Return for each image how it compares with the published file of its name."""
    if scan.source != "cnmc":
        return [""] * len(details)
    published = load_manifest()["sha256"]
    states = []
    for key, row in zip(scan.rows["key"], details.itertuples(), strict=True):
        if key not in published:
            states.append("unlisted")
        elif published[key] == row.sha256:
            states.append("agrees")
        else:
            states.append("converted" if row.format not in ("", "BMP") else "corrupt")
    return states


def _manifest_counts(scan: _Scan, states: list[str]) -> tuple[pd.Series | None, list[str]]:
    """Return the number of images by state, and the images that the published list does not know."""
    import pandas as pd

    if scan.source != "cnmc":
        return None, []
    counts = {state: states.count(state) for state in ("agrees", "converted", "corrupt", "unlisted")}
    published = load_manifest()
    absent = (published["part"] != "labels").sum() - len(set(scan.rows["key"]) & set(published.index))
    unlisted = [path for path, state in zip(scan.rows["path"], states, strict=True) if state == "unlisted"]
    return pd.Series({**counts, "absent": int(absent)}, name="images"), unlisted


def _duplicates(images: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    columns = ["kind", "images", "subjects", "labels", "parts", "folds", "paths"]
    rows = []
    for _, same in images[images["pixels"].duplicated(keep=False)].groupby("pixels", sort=False):
        kind = "bytes" if same["sha256"].nunique() == 1 else "pixels"
        values = [tuple(same[name].dropna()) for name in ("subject", "label", "part", "fold")]
        distinct = [tuple(sorted(set(found), key=lambda value: natural_key(str(value)))) for found in values]
        rows.append([kind, len(same), *distinct, tuple(same["path"])])
    return pd.DataFrame(rows, columns=columns)


def _linked_subjects(duplicates: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of subjects that share images, with the number of sets of identical images."""
    import pandas as pd

    pairs = [pair for subjects in duplicates["subjects"] for pair in combinations(subjects, 2)]
    counts = pd.Series(pairs, dtype=object).value_counts()
    rows = [(one, other, int(count)) for (one, other), count in counts.items()]
    return pd.DataFrame(rows, columns=["subject", "other", "sets"])


def _problems(
    scan: _Scan, images: pd.DataFrame, duplicates: pd.DataFrame, states: list[str]
) -> list[tuple[str, str]]:
    broken = images[images["error"] != ""]
    found = [("unreadable", f"{row.path} {row.error}") for row in broken.itertuples()]
    for row, state in zip(images.itertuples(), states, strict=True):
        if state == "corrupt" and not row.error:
            found.append(("corrupt", f"{row.path} differs from the published file. Download it again."))
    if scan.source == "cnmc" and scan.label_files:
        published = load_manifest().query("part == 'labels'")["sha256"].iloc[0]
        if _file_sum(str(scan.label_files[0])) != published:
            found.append(("corrupt", f"{scan.label_files[0]} differs from the published file."))
    for row in duplicates.itertuples():
        for values, what in ((row.labels, "label"), (row.parts, "part")):
            if len(values) > 1:
                sentence = f"identical images have the {what}s {' and '.join(values)}: {', '.join(row.paths)}"
                found.append((f"duplicate across {what}s", sentence))
    for column in ("part", "fold"):
        found += [(f"subject in two {column}s", what) for what in _subjects_in_two(images, column)]
    return found


def _notes(scan: _Scan, images: pd.DataFrame, duplicates: pd.DataFrame) -> list[str]:
    notes = []
    labelled = images.dropna(subset=["label"])
    labels = class_order(labelled["label"])
    if len(labels) == 1:
        notes.append(f"One class only ({labels[0]}): fine for looking, but nothing can be trained.")
    if len(labelled) and labelled["subject"].isna().any():
        notes.append("SUBJECTS ARE UNKNOWN for some or all images: training and test may share people.")
    apart = duplicates[duplicates["kind"] == "pixels"]
    if len(apart):
        notes.append(
            f"{len(apart)} sets of images have equal pixels in different files: groups do not link these. "
            "Keep one of each."
        )
    if (images["part"] == "prelim").any() and not scan.label_files and scan.source == "cnmc":
        notes.append(
            "The labels of the preliminary part are taken from the carried list: its CSV is not there."
        )
    unlabelled = int(((images["part"] != "final") & images["label"].isna()).sum())
    if unlabelled:
        notes.append(f"{unlabelled} images outside the final part have no label.")
    return notes


def _counts(images: pd.DataFrame) -> pd.DataFrame:
    keys = ["part", "fold", "label"]
    grouped = images.groupby(keys, dropna=False, sort=False)
    table = grouped.agg(images=("path", "size"), subjects=("subject", "nunique")).reset_index()
    place = table["part"].map({part: number for number, part in enumerate(PARTS)})
    return (
        table.assign(place=place)
        .sort_values(["place", "fold", "label"], ignore_index=True)
        .drop(columns="place")
    )


def _count(images: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    table = images.groupby(keys, dropna=False).size().rename("images").reset_index()
    if "subject" in keys:
        return table.sort_values("subject", key=lambda column: column.map(natural_key), ignore_index=True)
    return table.sort_values("images", ascending=False, ignore_index=True)


def _report_lines(check: DataCheck) -> list[str]:
    size = check.images["bytes"].sum() / 1e9
    lines = [f"{check.path}", f"{_KINDS[check.source]}: {len(check.images):,} images, {size:.2f} GB", ""]
    lines += _indented(check.counts.astype(object).where(check.counts.notna(), "–").to_string(index=False))
    sizes = [f"{row.width}×{row.height}: {row.images:,}" for row in check.sizes.itertuples()]
    lines += ["", *_wrapped("Sizes (px): ", sizes)]
    for label in class_order(check.subjects["label"]):
        rows = check.subjects[check.subjects["label"] == label]
        listed = [f"{row.subject} ({row.images})" for row in rows.itertuples()]
        lines += _wrapped(f"{label}, {rows['subject'].nunique()} subjects (images): ", listed)
    kinds = check.duplicates["kind"].value_counts()
    for kind, what in (("bytes", "byte-identical"), ("pixels", "pixel-identical in different files")):
        lines.append(f"Sets of images that are {what}: {kinds.get(kind, 0)}")
    pairs = [f"{row.subject} = {row.other} ({row.sets})" for row in check.linked.itertuples()]
    lines += _wrapped("Subjects linked by them (sets): ", pairs) if pairs else []
    if check.manifest is not None:
        states = [f"{state} {count:,}" for state, count in check.manifest.items()]
        lines += _wrapped("Against the published list: ", states)
    extras = [os.path.relpath(extra, check.path) for extra in check.extras[:20]]
    lines += _wrapped(f"{len(check.extras)} files that belong to nothing: ", extras) if extras else []
    lines += [f"Note: {note}" for note in check.notes]
    lines += [f"WRONG, {row.kind}: {row.what}" for row in check.problems.head(50).itertuples()]
    lines += [f"… and {len(check.problems) - 50} more"] if len(check.problems) > 50 else []
    return [*lines, "", "Nothing is wrong." if check.ok else f"{len(check.problems)} things are wrong."]


def _indented(text: str) -> list[str]:
    return ["  " + line for line in text.splitlines()]


def _wrapped(title: str, items: Sequence[str]) -> list[str]:
    return textwrap.wrap(title + ", ".join(items), width=110, subsequent_indent="  ", break_on_hyphens=False)
