"""Check a data set: what it is, what is wrong with it, and which subjects share images."""

from __future__ import annotations

import hashlib
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from allkit import AllkitError
from allkit.cnmc import load_manifest
from allkit.data import (
    class_order,
    describe_reading,
    find_problems,
    natural_key,
    near_duplicates_of,
    require_positive,
    subjects_in_two,
    with_groups,
)
from allkit.duplicates import file_sum
from allkit.images import (
    CELL_SIDE,
    COMMON_SIDE,
    ImageError,
    common_side,
    decode_image,
    first_of,
    fitting_crop,
    in_threads,
    side_that_holds,
    to_common_size,
)
from allkit.layout import scan_source
from allkit.source import PARTS, Scan, read_source


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What `check_data` found.

    - `images`: the index with bytes, width, height, format, sha256 (of the file), pixels (hash of the decoded
      pixels), error ("" if readable) and state (against the published list of C-NMC: "agrees", "converted",
      "corrupt" or "unlisted"; "" for any other source), one row per image
    - `counts`: images and subjects by part, fold and label; `subjects`: images by subject; `sizes`: images by
      width and height
    - `duplicates`: one row per set of identical images: kind ("bytes", or "pixels" where files differ),
      images, subjects, labels, parts, folds, paths; `linked`: pairs of subjects that share images
    - `manifest`: number of images by state, and "absent"; None for any other source
    - `reading`: how the data were understood, in two lines
    - `left_out`: files that are not used, by reason
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
    reading: str
    left_out: dict[str, list[str]]
    problems: pd.DataFrame
    notes: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong: see `problems`."""
        return self.problems.empty

    def to_text(self) -> str:
        """Return the findings as plain text for a terminal."""
        return "\n".join(_report_lines(self))


_SOURCES = {
    "cnmc": "C-NMC 2019",
    "synthetic": "a synthetic twin of C-NMC 2019 (no genuine cell)",
    "folders": "a folder per class",
    "csv": "a list of images (CSV)",
}


def check_data(path: str | Path, *, layout: str = "", positive: str = "") -> DataCheck:
    """Read every image at `path` once, and return what is there and what is wrong with it.

    The options are those of `allkit.data.load_index`, and so is what counts as wrong, with pixels read besides.
    Wrong (`.ok` is False): unreadable or truncated files, files that differ from the published C-NMC,
    labels that contradict each other, identical images in two classes or two parts, a subject in two folds
    or parts. A subset and converted file types are fine. Raises `AllkitError` where there is nothing to
    check (see `load_index`).
    """
    scan = scan_source(read_source(path, layout, positive))
    images = _inspect_all(scan)
    duplicates = _duplicates(images)
    unlisted = list(images.loc[images["state"] == "unlisted", "path"])
    left_out = {why: [str(file) for file in files] for why, files in scan.left_out.items()}
    return DataCheck(
        path=scan.root,
        source=scan.source,
        images=images,
        counts=_counts(images),
        subjects=_count(images.dropna(subset=["subject"]), ["subject", "label", "part", "fold"]),
        sizes=_count(images[images["error"] == ""], ["width", "height"]),
        duplicates=duplicates,
        linked=_linked_subjects(duplicates),
        manifest=_count_states(scan, images) if scan.source == "cnmc" else None,
        reading=describe_reading(scan, images),
        left_out=left_out | ({"not in C-NMC's published list (used all the same)": unlisted} if unlisted else {}),
        problems=pd.DataFrame(scan.problems + _problems(scan, images, duplicates), columns=["kind", "what"]),
        notes=_notes(scan, images, duplicates),
    )


def _inspect_all(scan: Scan) -> pd.DataFrame:
    found = list(in_threads(_inspect, scan.rows["path"], what="checking images"))
    details = pd.DataFrame(found, columns=["bytes", "width", "height", "format", "sha256", "pixels", "reach", "error"])
    published = scan.rows["key"].map(load_manifest()["sha256"] if scan.source == "cnmc" else {}).astype(object)
    details["state"] = _states(details, published) if scan.source == "cnmc" else ""
    return pd.concat([with_groups(scan, published.fillna(details["sha256"])), details], axis=1)


def _inspect(path: str) -> tuple:
    """Return size, width, height, format, hashes of file and pixels, side of the cell and error of one image."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return 0, 0, 0, "", f"unread {path}", f"unread {path}", 0, f"cannot be opened: {error.strerror or error}"
    digest = hashlib.sha256(data).hexdigest()
    try:
        pixels, kind = decode_image(data, path)
    except ImageError as error:
        return len(data), 0, 0, "", digest, f"unread {path}", 0, str(error).removeprefix(f"{path} ")
    height, width = pixels.shape[:2]
    seen = f"{width}×{height} {hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()}"
    return len(data), width, height, kind, digest, seen, side_that_holds(to_common_size(pixels), 1), ""


def _states(details: pd.DataFrame, published: pd.Series) -> np.ndarray:
    """Return how each image compares with the published file of its name, by their SHA-256 sums."""
    is_state = {
        "unlisted": published.isna(),
        "agrees": published == details["sha256"],
        "converted": ~details["format"].isin(["", "BMP"]),
    }
    return np.select(list(is_state.values()), list(is_state), "corrupt")


def _count_states(scan: Scan, images: pd.DataFrame) -> pd.Series:
    counts = images["state"].value_counts().reindex(["agrees", "converted", "corrupt", "unlisted"], fill_value=0)
    published = load_manifest().query("part != 'labels'").index
    counts["absent"] = len(published.difference(scan.rows["key"]))
    return counts.rename("images")


def _duplicates(images: pd.DataFrame) -> pd.DataFrame:
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
    pairs = [pair for subjects in duplicates["subjects"] for pair in combinations(subjects, 2)]
    counts = pd.Series(pairs, dtype=object).value_counts()
    rows = [(one, other, int(count)) for (one, other), count in counts.items()]
    return pd.DataFrame(rows, columns=["subject", "other", "sets"])


def _problems(scan: Scan, images: pd.DataFrame, duplicates: pd.DataFrame) -> list[tuple[str, str]]:
    broken = images["error"] != ""
    found = [("unreadable", f"{row.path} {row.error}") for row in images[broken].itertuples()]
    for path in images.loc[(images["state"] == "corrupt") & ~broken, "path"]:
        found.append(("corrupt", f"{path} differs from the published file. Download it again."))
    if scan.source == "cnmc" and scan.label_files:
        published = load_manifest().query("part == 'labels'")["sha256"].iloc[0]
        if file_sum(scan.label_files[0]) != published:
            found.append(("corrupt", f"{scan.label_files[0]} differs from the published file."))
    found += find_problems(images, images["pixels"])
    found += [("subject in two folds", what) for what in subjects_in_two(images, "fold")]
    return found


def _notes(scan: Scan, images: pd.DataFrame, duplicates: pd.DataFrame) -> list[str]:
    notes = list(scan.notes)
    labelled = images.dropna(subset=["label"])
    labels = class_order(labelled)
    if len(labels) == 1:
        notes.append(f"One class only ({labels[0]}): fine for looking, but nothing can be trained.")
    if len(labelled) and labelled["subject"].isna().any():
        notes.append("SUBJECTS ARE UNKNOWN for some or all images: training and test may share subjects.")
    try:
        require_positive(labelled)
    except AllkitError as error:
        notes.append(str(error))
    notes += [*_notes_on_pixels(images), *_notes_on_near_duplicates(scan, images)]
    apart = duplicates[duplicates["kind"] == "pixels"]
    if len(apart):
        what = "sets of images have equal pixels in different files: groups do not link these."
        notes.append(f"{len(apart)} {what} Keep one of each.")
    if (images["part"] == "prelim").any() and not scan.label_files and scan.source == "cnmc":
        notes.append("The labels of the preliminary part are taken from the carried list: its CSV is not there.")
    unlabelled = int(((images["part"] != "final") & images["label"].isna()).sum())
    if unlabelled:
        notes.append(f"{unlabelled} images outside the final part have no label.")
    return notes


def _notes_on_pixels(images: pd.DataFrame) -> list[str]:
    """Say how images are cut out where that is not what their size suggests."""
    if not images["source"].isin(["cnmc", "synthetic"]).all():
        return []
    side, crop = common_side(images["path"]), fitting_crop(CELL_SIDE, images)
    notes = []
    if side not in (None, COMMON_SIDE):
        what = f"The images are {side} px wide, as copies of C-NMC's {COMMON_SIDE} px"
        notes.append(f"{what}: a crop of {CELL_SIDE} px becomes one of {crop} px.")
    wide = int((images["reach"] > crop).sum())
    if wide:
        notes.append(f"{wide:,} cells are wider than a crop of {crop} px: theirs is made larger, so no rim is lost.")
    return notes


def _notes_on_near_duplicates(scan: Scan, images: pd.DataFrame) -> list[str]:
    """Say which images show nearly the same, where nothing but the pixels can tell."""
    pairs = near_duplicates_of(images, scan.source)
    pairs = [pair for pair in pairs if images["sha256"].iloc[list(pair)].nunique() == 2]
    if not pairs:
        return []
    shown = first_of([" and ".join(Path(images["path"].iloc[k]).name for k in pair) for pair in pairs], 3)
    notes = [f"{len(pairs)} pairs of images are near-duplicates ({shown}): a split by subject keeps them together."]
    apart = sum(images["label"].iloc[list(pair)].nunique() == 2 for pair in pairs)
    if apart:
        notes.append(f"{apart} of these pairs have two labels: look at them.")
    return notes


def _counts(images: pd.DataFrame) -> pd.DataFrame:
    keys = ["part", "fold", "label"]
    grouped = images.groupby(keys, dropna=False, sort=False)
    table = grouped.agg(images=("path", "size"), subjects=("subject", "nunique")).reset_index()
    return table.sort_values(
        keys, key=lambda column: column.map(PARTS.index) if column.name == "part" else column, ignore_index=True
    )


def _count(images: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    table = images.groupby(keys, dropna=False).size().rename("images").reset_index()
    if "subject" in keys:
        return table.sort_values("subject", key=lambda column: column.map(natural_key), ignore_index=True)
    return table.sort_values("images", ascending=False, ignore_index=True)


def _report_lines(check: DataCheck) -> list[str]:
    size = check.images["bytes"].sum() / 1e9
    lines = [f"{check.path}", f"{_SOURCES[check.source]}: {len(check.images):,} images, {size:.2f} GB"]
    lines += [*check.reading.splitlines(), ""]
    lines += _indented(check.counts.astype(object).where(check.counts.notna(), "–").to_string(index=False))
    sizes = [f"{row.width}×{row.height}: {row.images:,}" for row in check.sizes.itertuples()]
    lines += ["", *_wrapped("Sizes (px): ", sizes)]
    for label in class_order(check.images):
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
    for why, files in check.left_out.items():
        shown = [os.path.relpath(file, check.path) for file in files[:20]]
        lines += _wrapped(f"{len(files)} {why}: ", shown)
    lines += [f"Note: {note}" for note in check.notes]
    lines += [f"WRONG, {row.kind}: {row.what}" for row in check.problems.head(50).itertuples()]
    lines += [f"… and {len(check.problems) - 50} more"] if len(check.problems) > 50 else []
    return [*lines, "", "Nothing is wrong." if check.ok else f"{len(check.problems)} things are wrong."]


def _indented(text: str) -> list[str]:
    return ["  " + line for line in text.splitlines()]


def _wrapped(title: str, items: Sequence[str]) -> list[str]:
    return textwrap.wrap(title + ", ".join(items), width=110, subsequent_indent="  ", break_on_hyphens=False)
