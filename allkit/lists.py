"""A list of images: a CSV with the columns path and label, and perhaps subject, part and fold."""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from allkit import AllkitError
from allkit.images import first_of
from allkit.source import LABEL_OF, PARTS, Scan, Source, frame_of, given_part, is_unknown, own_division, uid_of

_FORMULA = re.compile(r"'*[=+\-@\t\r]")

MEANT = {
    "path": ("file", "filename", "file_name", "image", "img", "image_path", "filepath", "name", "new_names", "id"),
    "label": ("labels", "class", "target", "diagnosis", "category", "y"),
    "subject": (
        "patient",
        "patient_id",
        "patientid",
        "subject_id",
        "subjectid",
        "case",
        "case_id",
        "donor",
        "person",
        "pid",
    ),
    "part": ("split", "set", "subset", "partition", "dataset", "phase"),
    "fold": ("cv", "cv_fold", "folds", "kfold"),
    "group": ("groups", "group_id"),
}
"""Other words for a column."""


def scan_list(source: Source) -> Scan:
    """Scan a CSV with the columns path and label, and perhaps subject, part and fold."""
    path = source.path
    table = read_table(path, required=("path", "label"), optional=("subject", "part", "fold"))
    if table.empty:
        raise AllkitError(f"{path} lists no image: write one line per image below the header.")
    notes: list[str] = []
    others = [str(name) for name in table.columns if name not in ("path", "label", "subject", "part", "fold")]
    if others:
        notes.append(f"Columns that are not used: {', '.join(others)}.")
    given = _parts_of_list(table, path)
    rows, missing = [], []
    for row, own in zip(table.to_dict("records"), given, strict=True):
        image = listed_image(row["path"], path)
        if image:
            rows.append(_list_row(row, own, image, path))
        else:
            missing.append(row["path"])
    frame = frame_of(rows)
    problems = _problems_of_list(frame, missing, path, source, notes)
    reading = f"a list with the columns {', '.join(name for name in table.columns if name not in others)}"
    return Scan(path, "csv", frame, reading, problems=problems, notes=notes)


def _parts_of_list(table: pd.DataFrame, path: Path) -> list[str | None]:
    """Return the user's own division; the words of C-NMC's parts (prelim, final) stay as they are."""
    if "part" not in table:
        return [None] * len(table)
    words = table["part"].str.strip()
    found = [None if is_unknown(word) or word.lower() in PARTS[1:] else given_part(word) for word in words]
    wrong = sorted({word for word, part in zip(words, found, strict=True)
                    if part is None and not is_unknown(word) and word.lower() not in PARTS[1:]})  # fmt: skip
    if wrong:
        raise AllkitError(
            f"{path}: part {first_of(list(map(repr, wrong)))} is not known. Use train, validation and test (your own "
            "division), prelim (a separate test set) or final (unlabelled), or leave the column out."
        )
    own = [word.lower() not in PARTS[1:] for word in words]  # those of C-NMC are no part of a division
    divided = iter(own_division([part for part, is_own in zip(found, own, strict=True) if is_own], path))
    return [next(divided) if is_own else None for is_own in own]


def listed_image(text: str, path: Path) -> Path | None:
    """Return the file that a list at `path` names, relative to it; backslashes are read as separators."""
    for form in dict.fromkeys((text, text.replace("\\", "/"))):
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # too long, no such user, a zero in it
            image = Path(os.path.abspath(path.parent / Path(form).expanduser()))
            if image.is_file():
                return image
    return None


def _list_row(row: dict[str, str], own: str | None, image: Path, path: Path) -> dict:
    part = row.get("part", "").lower()
    return {
        "path": str(image),
        "label": row["label"],
        "subject": row.get("subject"),
        "fold": _whole_number(row.get("fold"), path),
        "part": part if part in PARTS[1:] else "train",
        "given": own,
        "name": image.name,
        "source": "csv",
    }


def _problems_of_list(
    frame: pd.DataFrame, missing: list[str], path: Path, source: Source, notes: list[str]
) -> list[tuple[str, str]]:
    problems = []
    if missing:
        of_all = f"{len(missing)} of {len(missing) + len(frame)} files listed in {path.name} do not exist"
        where = "paths are relative to the list"
        with contextlib.suppress(OSError, ValueError):  # no path at all
            where = _where_they_may_be(missing[0], path) or where
        what = f"{of_all} ({first_of([text[:200] for text in missing], 3)}): {where}"
        problems.append(("missing", what))
    without = [row.path for row in frame.itertuples() if row.part != "final" and is_unknown(row.label)]
    if without:
        which = f"{len(without)} images have no label ({first_of(without, 3)})"
        problems.append(("label", f"{which}; only those of the part final may lack it"))
    for twice in frame.loc[frame["path"].duplicated(), "path"]:
        problems.append(("two copies", f"{twice} is listed twice"))
    named = frame["name"].map(uid_of)
    known = frame[named.notna()]
    for row, found in zip(known.itertuples(), named.dropna(), strict=True):
        said = source.labels.get(row.label, row.label) or ""
        if said.upper() in LABEL_OF.values() and said.upper() != LABEL_OF[found[4].lower()]:
            problems.append(("label", f"{row.path} is listed as {said} and has the class {found[4]} in its name"))
    if len(known) == len(frame) and len(frame) and frame["subject"].map(is_unknown).all():
        frame["subject"] = named.map(lambda found: found[1].upper())
        notes.append("The subjects are read from the files' names, which are C-NMC's.")
    return problems


def _where_they_may_be(text: str, path: Path) -> str:
    """Return a sentence on what is wrong with a path that leads nowhere, if something like it is there."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    for start in range(len(parts)):
        ending = Path(path.parent, *parts[start:])
        if ending.is_file():
            return f"{'/'.join(parts[start:])} is there, so write paths relative to the list"
        similar = sorted(ending.parent.glob(f"{ending.name}.*")) if ending.name and ending.parent.is_dir() else []
        if similar:
            return f"{similar[0].name} is there, so write the ending too"
    inside = sorted(path.parent.glob(f"*/{parts[-1]}")) if parts else []
    if inside:
        return f"{inside[0].relative_to(path.parent).as_posix()} is there, so write the folder too"
    return ""


def _whole_number(text: str | None, path: Path) -> int | None:
    if is_unknown(text):
        return None
    number = re.fullmatch(r"(\d+)(?:\.0*)?", text)
    if not number:
        raise AllkitError(f"{path}: the fold {text!r} is not a whole number. Use 0, 1, 2 … or leave it empty.")
    return int(number[1])


# Tables


def read_table(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), *, any_name: bool = False
) -> pd.DataFrame:
    """Return a CSV as text, columns named as in `required` and `optional` whatever their case.

    `any_name` takes the usual other names of these columns too, such as filename for path and split for part. Raises
    AllkitError for a file that is no CSV, rows that do not fit the header, and columns that are missing, that are there
    twice, or that look like one of those wanted.
    """
    (_, header), *lines = _read_lines(path)
    wanted = {name.lower(): name for name in (*required, *optional)}
    if any_name:
        wanted = _other_names(wanted, [name.strip().lower() for name in header]) | wanted
    names = [wanted.get(name.strip().lower(), name.strip()) for name in header]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        both = " and ".join(repr(given) for given, name in zip(header, names, strict=True) if name == twice[0])
        raise AllkitError(f"{path}: the columns {both} would both be {twice[0]!r}. Rename one of them.")
    for number, line in lines:
        if len(line) != len(names):
            raise AllkitError(
                f"{path}, row {number}: {len(line)} fields, but the header has {len(names)} ({', '.join(names)}). "
                "Correct it; text with commas stands in quotes."
            )
    _check_columns(path, names, required, optional)
    return pd.DataFrame([line for _, line in lines], columns=names, dtype=object).map(str.strip)


def _other_names(wanted: Mapping[str, str], header: Sequence[str]) -> dict[str, str]:
    """Return which column of a header stands for each wanted one that is not there by its own name."""
    found = {name: next((word for word in MEANT.get(name, ()) if word in header), "") for name in wanted.values()}
    return {word: name for name, word in found.items() if word and name.lower() not in header}


def as_text_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which no text is a formula to a spreadsheet: an apostrophe goes before it."""
    return table.map(lambda value: f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value)


def without_apostrophes(table: pd.DataFrame) -> pd.DataFrame:
    """Undo `as_text_cells`."""
    return table.map(
        lambda value: value[1:] if isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value) else value
    )


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return number and cells of each line of a CSV in which anything stands.

    Separated by comma, semicolon or tab; UTF-8, or UTF-16 where the file says so.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        said = re.match(r"sep=(.)\r?\n", text)  # a note to spreadsheets
        text = text[said.end() :] if said else text
        separator = said[1] if said else max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        lines = [(reader.line_num, line) for line in reader if any(map(str.strip, line))]
    except (OSError, UnicodeError, csv.Error) as error:
        raise AllkitError(f"{path} cannot be read as a CSV: {error}. Save it as UTF-8 with commas.") from error
    if not lines:
        raise AllkitError(f"{path} is empty. Its first line names the columns.")
    return lines


def _check_columns(path: Path, names: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> None:
    missing = [name for name in required if name not in names]
    near = [
        f"{column!r} looks like {name!r}: rename it"
        for name in [*missing, *(name for name in optional if name not in names)]
        for column in names
        if column not in (*required, *optional)
        and (column.lower() in MEANT.get(name, ()) or difflib.get_close_matches(name, [column.lower()], cutoff=0.8))
    ]
    if missing:
        raise AllkitError(
            f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(names)}. "
            + ("; ".join(near) if near else f"Its first line must name {', '.join(required)}")
            + "."
        )
    if near:
        raise AllkitError(f"{path}: {'; '.join(near)}, or delete the column.")
