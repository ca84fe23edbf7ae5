"""Predictions and embeddings that were made elsewhere, read from a file with all that may be wrong with them.

A file holds one row per image: path (or id), label, better also subject, perhaps part; and either a probability per
class (CSV or Parquet) or the numbers that a network makes of the image (`.npz` or Parquet).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from allkit import AllkitError
from allkit.cnmc import cnmc_place, load_manifest
from allkit.data import link_groups, links_of_cnmc, relative_paths
from allkit.evaluate import classes_of
from allkit.images import first_of
from allkit.lists import MEANT, read_table, without_apostrophes
from allkit.source import (
    LABEL_OF,
    check_words,
    doubtful_subjects,
    given_part,
    guess_positive,
    is_unknown,
    people_in_names,
    person_key,
    uid_of,
)
from allkit.splits import LeakError, Split, assert_disjoint

MOST_BYTES = 2**30
"""The largest file that is read, and the most that it may unpack to."""

_ROUNDED = 0.02  # how far the probabilities of a row may be from adding up to 1, by rounding

_ONE_COLUMN = ("p", "prob", "probability", "score")

_VECTORS = ("x", "embeddings", "embedding", "features", "vectors")

_COLUMNS = ("path", "label", "subject", "group", "part")


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a file holds: `rows` are a predictions table (see `allkit.evaluate`), or lack the probabilities.

    `numbers` of embeddings, float32, by path, else None; `train` are the rows of the parts train and validation, where
    the file has any; `notes` are sentences on how it was read; `leaks`: a leak was let pass.
    """

    path: Path
    rows: pd.DataFrame
    positive: str
    notes: list[str] = field(default_factory=list)
    train: pd.DataFrame | None = None
    numbers: pd.DataFrame | None = None
    leaks: bool = False


def load_file(path: str | Path, *, positive: str = "", allow_leak: bool = False) -> Loaded:
    """Return the predictions or embeddings in a file: `.csv` (`.tsv`, `.txt`), `.parquet` or `.npz`.

    Only rows of the part test are for judging, where there is a column part (or split); those of other parts must not
    share an image or a subject with them, else LeakError, unless `allow_leak`. `positive` is the class to be found,
    where the labels' words do not say. Names of C-NMC's files give subjects, labels and which subjects are one.
    """
    path, notes = Path(path).expanduser(), []
    table, vectors = _read(path)
    rows = _name_columns(table, path, notes)
    named = _cnmc_names(rows["path"])
    rows["label"] = _labels(rows, named, path, notes)
    rows["subject"] = _subjects(rows, named, path, notes)
    if vectors is None:
        rows, positive = _with_probabilities(rows, path, positive, notes)
    else:
        vectors, positive = _checked(vectors, rows, path), _positive(sorted(set(rows["label"])), positive, path)
    rows["group"] = _groups(rows, named is not None, vectors)
    parts, leaks = _parts(rows, path, allow_leak, predicted=vectors is None)
    notes += [f"Read, but not judged: {len(parts[0]):,} rows of training and validation."] if len(parts[0]) else []
    kept = [*_COLUMNS[:4], *(name for name in rows if vectors is None and name.startswith("p_"))]
    train, test = (part[kept].reset_index(drop=True) for part in parts)
    numbers = None if vectors is None else pd.DataFrame(vectors, index=pd.Index(rows["path"]))
    if test["label"].nunique() < 2:
        raise AllkitError(f"{path}: all images are of one class ({test['label'].iat[0]}); judging needs two.")
    return Loaded(path, test, positive, notes, train if len(train) else None, numbers, leaks)


# files


def _read(path: Path) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Return the columns of a file, and its vectors where it holds embeddings."""
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".txt": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    if path.suffix.lower() not in readers:
        raise AllkitError(f"{path}: give a .csv or .parquet with predictions, or a .npz or .parquet with embeddings.")
    if not path.is_file():
        raise AllkitError(f"{path} does not exist. Check its spelling, or the folder you are in.")
    _check_size(path.stat().st_size, path)
    try:
        table, vectors = readers[path.suffix.lower()](path)
    except (OSError, ValueError, EOFError, MemoryError, UnicodeError, pa.ArrowException, zipfile.BadZipFile) as error:
        what = " ".join(str(error).split())[:200]
        raise AllkitError(f"{path} cannot be read ({what}). Write it again, a CSV as UTF-8 with commas.") from error
    table.columns = [str(name).strip() for name in table.columns]
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise AllkitError(f"{path}: there are two columns {twice[0]!r}. Rename or delete one.")
    if table.empty:
        raise AllkitError(f"{path} holds no row: write one per image below the names of the columns.")
    return table, vectors


def _check_size(size: int, path: Path) -> None:
    if size > MOST_BYTES:
        raise AllkitError(
            f"{path} holds {size / 2**30:,.1f} GiB; at most {MOST_BYTES / 2**30:.0f} are read. Divide it."
        )


def _read_csv(path: Path) -> tuple[pd.DataFrame, None]:
    return read_table(path, ()), None


def _read_parquet(path: Path) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Read predictions, or embeddings: one column of lists, or a numeric column for each number."""
    about = parquet.ParquetFile(path).metadata
    groups = [about.row_group(k) for k in range(about.num_row_groups)]
    values = sum(group.column(k).num_values for group in groups for k in range(group.num_columns))
    _check_size(max(8 * values, sum(group.total_byte_size for group in groups)), path)
    table = parquet.read_table(path)
    lists = [f.name for f in table.schema if pa.types.is_list(f.type) or pa.types.is_fixed_size_list(f.type)]
    others = table.drop_columns([*lists, *(name for name in table.column_names if name.startswith("__index"))])
    frame = others.to_pandas(ignore_metadata=True)
    if lists:
        if len(lists) > 1:
            raise AllkitError(f"{path}: the columns {' and '.join(lists)} both hold lists. Keep the one to judge.")
        column = table[lists[0]].combine_chunks()
        values = np.asarray(column.flatten())
        if column.null_count or len(values) % max(len(frame), 1) or len(set(map(len, column))) > 1:
            raise AllkitError(f"{path}: the lists in {lists[0]} are not all of one length.")
        return frame, values.reshape(len(frame), -1)
    text = {
        name for name in frame if name.lower() in {*_COLUMNS, *(word for words in MEANT.values() for word in words)}
    }
    numeric = [name for name in frame.select_dtypes("number") if name not in text]
    if any(re.match(r"p(rob)?_", name) for name in frame) or len(numeric) <= 20:
        return frame, None
    return frame.drop(columns=numeric), frame[numeric].to_numpy(np.float32)


def _read_npz(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Read embeddings; nothing in the file is run, and nothing is unpacked that is larger than it may be."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                major = np.lib.format.read_magic(file)[0]
                header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                shape, _, kind = header(file)
            _check_size(max(entry.file_size, int(np.prod(shape, dtype=float)) * kind.itemsize), path)
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    name = next((name for name in found if name.lower() in _VECTORS), None)
    if name is None or found[name].ndim != 2:
        raise AllkitError(f"{path} has the arrays {', '.join(found)}; x (images, numbers) must be one of them.")
    flat = {key: values for key, values in found.items() if values.ndim == 1 and len(values) == len(found[name])}
    text = {key: np.char.decode(v, "utf-8") if v.dtype.kind == "S" else v for key, v in flat.items()}
    return pd.DataFrame(text), found[name]


# columns


def _name_columns(table: pd.DataFrame, path: Path, notes: list[str]) -> pd.DataFrame:
    """Return the table with path, label, subject, group and part called so, whatever their words; all of them text."""
    lower, renamed = {name.lower(): name for name in reversed(table.columns)}, {}
    for name in ("label", "path", "subject", "group", "part"):
        found = [lower[word] for word in (name, *MEANT.get(name, ())) if word in lower]
        if found and found[0].lower() != name and len(found) > 1 and name != "path":
            raise AllkitError(f"{path}: {' and '.join(found)} may both be {name}. Call the right one {name}.")
        renamed |= {found[0]: name} if found else {}
        if name == "label" and found:  # a class may be called "case", and then that column holds its probability
            classes = {text.lower() for text in _as_text(table[found[0]]).unique()}
            lower = {key: column for key, column in lower.items() if key not in classes}
    said = [f"{old} as {new}" for old, new in renamed.items() if old.lower() != new]
    notes += [f"Columns read: {', '.join(said)}."] if said else []
    if "path" not in renamed.values():
        raise AllkitError(
            f"{path} has the columns {first_of(list(table.columns))}; it needs path (or id), label and p_<class>."
        )
    rows = table.rename(columns=renamed)
    for name in renamed.values():
        rows[name] = _as_text(rows[name])
    empty = rows["path"].map(is_unknown)
    if empty.any():
        raise AllkitError(f"{path}: {empty.sum()} rows have no path (row {int(empty.argmax()) + 1} below the header).")
    twice = rows["path"][rows["path"].duplicated()]
    if len(twice):
        raise AllkitError(
            f"{path}: {len(twice)} rows are there again ({first_of(list(twice[:9]), 3)}). Keep one of each."
        )
    return rows


def _as_text(column: pd.Series) -> pd.Series:
    """Return a column as text without blanks around it; whole numbers without ".0"."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    return without_apostrophes(text.to_frame())[text.name] if text.str.startswith("'").any() else text


def _cnmc_names(paths: pd.Series) -> pd.Series | None:
    """Return for each image its original name in C-NMC, "uid_11_10_1_all"; None unless all have one."""
    if not paths.head(5).map(lambda text: cnmc_place(Path(text.replace("\\", "/")))).notna().all():
        return None
    originals = load_manifest()["original"]
    places = [cnmc_place(Path(text.replace("\\", "/"))) for text in paths]
    names = [originals.get(place[1], text) if place else None for place, text in zip(places, paths, strict=True)]
    found = pd.Series([uid_of(name) if isinstance(name, str) else None for name in names], paths.index, dtype=object)
    return found if found.notna().all() else None


def _labels(rows: pd.DataFrame, named: pd.Series | None, path: Path, notes: list[str]) -> pd.Series:
    """Return the labels, read from C-NMC's names where there is no column."""
    of_names = None if named is None else named.map(lambda found: LABEL_OF[found[4].lower()])
    if "label" not in rows:
        if of_names is None:
            raise AllkitError(f"{path} has no column label, and the true classes must come from somewhere. Add it.")
        notes.append("The labels are read from the files' names, which are C-NMC's.")
        return of_names
    missing = rows["path"][rows["label"].map(is_unknown)]
    if len(missing):
        raise AllkitError(
            f"{path}: {len(missing)} images have no label ({first_of(list(missing[:9]), 3)}). Leave them out."
        )
    labels = rows["label"].replace(LABEL_OF)
    check_words("label", labels.unique(), path)
    if of_names is not None and set(labels) <= set(LABEL_OF.values()) and (labels != of_names).any():
        wrong = list(rows["path"][labels != of_names])
        raise AllkitError(f"{path}: {len(wrong)} labels contradict the files' names ({first_of(wrong, 3)}).")
    return labels


def _subjects(rows: pd.DataFrame, named: pd.Series | None, path: Path, notes: list[str]) -> pd.Series:
    """Return one spelling of each subject, None where unknown; say what follows from unknown ones."""
    if "subject" not in rows and named is not None:
        notes.append("The subjects are read from the files' names, which are C-NMC's.")
        return named.map(lambda found: found[1].upper())
    given = rows["subject"] if "subject" in rows else pd.Series("", rows.index)
    spelling: dict[str, str] = {}
    keys = {text: person_key(text) for text in given.unique() if not is_unknown(text)}
    clean = {text: key if key.isdigit() else spelling.setdefault(key, text) for text, key in keys.items()}
    check_words("subject", clean.values(), path)
    subjects = given.map(clean).astype(object)
    unknown = int(subjects.isna().sum())
    if unknown:
        people = people_in_names([re.split(r"[/\\]", text)[-1] for text in rows["path"].head(10_000)])
        hint = f" Names such as {people[0]} … are not read: give them in a column subject." if people else ""
        whose = "SUBJECTS ARE UNKNOWN" if unknown == len(rows) else f"{unknown:,} IMAGES ARE OF UNKNOWN SUBJECTS"
        notes.append(
            f"{whose}: all intervals are over images, as if each were of another person. Where they are not, the "
            f"intervals are too narrow, and nobody can say by how much.{hint}"
        )
        return subjects.where(subjects.notna(), None)
    facts = pd.DataFrame({"subject": subjects, "label": rows["label"], "source": "csv"})
    if subjects.nunique() == len(rows):
        notes.append("Every image has a subject of its own: intervals by subject and by image are the same.")
        return subjects
    for _, problem in doubtful_subjects(facts):
        raise AllkitError(f"{path}: {problem}.")
    mixed = facts.groupby("subject")["label"].nunique()
    if (mixed > 1).any():
        names = first_of(list(mixed.index[mixed > 1]), 3)
        notes.append(f"{(mixed > 1).sum()} subjects have images of several classes ({names}): is that so?")
    return subjects


def _with_probabilities(rows: pd.DataFrame, path: Path, positive: str, notes: list[str]) -> tuple[pd.DataFrame, str]:
    """Return the rows with one column p_<class> per class, the positive one first, and the positive class."""
    labels = {label.casefold(): label for label in rows["label"].unique()}
    columns = {re.sub("^p(rob)?_", "", name): name for name in rows if re.match("p(rob)?_.", name)}
    columns = columns or {labels[name.casefold()]: name for name in rows if name.casefold() in labels}
    columns = {labels.get(name.casefold(), name): column for name, column in columns.items()}
    single = [name for name in rows if name.lower() in _ONE_COLUMN]
    classes = sorted(columns) if len(columns) > 1 else sorted({*labels.values(), *columns})
    positive = _positive(classes, positive, path)
    if not columns and single and len(labels) == 2:
        columns = {positive: single[0]}
        notes.append(f"Column read: {single[0]} as the probability of {positive}.")
    lost = sorted(set(labels.values()) - set(columns))
    if not columns or (lost and not (len(columns) == 1 and len(classes) == 2)):
        there = f"there are probabilities of {', '.join(columns)}" if columns else "there are none"
        raise AllkitError(
            f"{path}: the label {(lost or classes)[0]!r} needs a column p_{(lost or classes)[0]}; {there}."
        )
    check_words("class", classes, path)
    found = pd.DataFrame({name: _numbers(rows[column], column, rows["path"], path) for name, column in columns.items()})
    found = _checked_probabilities(found, columns, path)
    if len(columns) == 1:
        found[next(name for name in classes if name not in columns)] = 1 - found[next(iter(columns))]
    sums = found.sum(axis=1)
    if (sums - 1).abs().max() > _ROUNDED:
        raise AllkitError(
            f"{path}: the probabilities of an image add up to {sums.min():.3g} to {sums.max():.3g}, not to 1. Use "
            "softmax over the classes, not one sigmoid for each, and give all classes."
        )
    if (sums - 1).abs().max() > 1e-5:
        notes.append(f"Rounded probabilities, adding up to {sums.min():.4g} to {sums.max():.4g}, were scaled to 1.")
        found = found.div(sums, axis=0)
    used = {*_COLUMNS, *columns.values()}
    idle = [name for name in rows if name not in used]
    notes += [f"Columns not used: {first_of(idle)}."] if idle else []
    order = [positive, *(name for name in classes if name != positive)] if positive else classes
    return pd.concat(
        [rows[[name for name in _COLUMNS if name in rows]], found[order].add_prefix("p_")], axis=1
    ), positive


def _positive(classes: Sequence[str], said: str, path: Path) -> str:
    """Return the class to be found; "" with more than two classes, where nobody has to know."""
    if said and said not in classes:
        raise AllkitError(f"{path}: the positive class {said!r} is none of {', '.join(classes)}.")
    found = said or guess_positive(classes)
    if not found and len(classes) == 2:
        raise AllkitError(
            f"{path}: which of {classes[0]} and {classes[1]} is to be found? Say it: --positive {classes[1]}"
        )
    return found


def _numbers(column: pd.Series, name: str, paths: pd.Series, path: Path) -> pd.Series:
    """Return a column as numbers, decimal commas too."""
    if not pd.api.types.is_numeric_dtype(column):
        column = pd.to_numeric(column.str.strip().str.replace(",", ".", regex=False), errors="coerce")
    bad = ~np.isfinite(column.astype(float))
    if bad.any():
        where = first_of(list(paths[bad]), 3)
        raise AllkitError(f"{path}: {name} is missing, or no number, for {bad.sum():,} images ({where}).")
    return column.astype(float)


def _checked_probabilities(found: pd.DataFrame, columns: dict[str, str], path: Path) -> pd.DataFrame:
    """Return the probabilities; AllkitError for percentages, logits and whatever else is not between 0 and 1."""
    low, high = found.min(), found.max()
    if low.min() >= -1e-6 and high.max() <= 1 + 1e-6:
        return found.clip(0, 1)
    name = high.idxmax() if high.max() > 1 else low.idxmin()
    what = f"{path}: {columns[name]} goes from {low[name]:.3g} to {high[name]:.3g}"
    if low.min() >= 0 and len(columns) > 1 and (found.sum(axis=1) - 100).abs().max() < 100 * _ROUNDED:
        raise AllkitError(f"{what}: these are percentages. Divide them by 100.")
    raise AllkitError(
        f"{what}, and a probability lies between 0 and 1. These look like logits, what a network returns before its "
        "last step: apply softmax over the classes (of a single output: the sigmoid) before you write the file."
    )


def _checked(vectors: np.ndarray, rows: pd.DataFrame, path: Path) -> np.ndarray:
    """Return embeddings as float32 (n, width); AllkitError for what is no number."""
    if len(vectors) != len(rows) or vectors.dtype.kind not in "fiu" or not vectors.shape[1]:
        raise AllkitError(f"{path}: the embeddings are {vectors.dtype} {vectors.shape}, for {len(rows)} images.")
    vectors = np.asarray(vectors, np.float32)
    bad = ~np.isfinite(vectors).all(axis=1) | (np.ptp(vectors, axis=1) == 0) & (vectors.shape[1] > 1)
    if bad.any():
        where = first_of(list(rows["path"][bad]), 3)
        raise AllkitError(f"{path}: {bad.sum():,} embeddings hold NaN, infinity or one number only ({where}).")
    return vectors


# groups and parts


def _groups(rows: pd.DataFrame, is_cnmc: bool, vectors: np.ndarray | None) -> pd.Series:
    """Return which subjects (or images, of unknown subjects) are one: said so, by C-NMC's list, or the same numbers."""
    units = rows["subject"].fillna(rows["path"]).astype(object)
    links: list[tuple[str, str]] = []
    if "group" in rows:
        links += _pairs(units, "group " + rows["group"].where(~rows["group"].map(is_unknown), units))
    if vectors is not None:
        same = pd.util.hash_pandas_object(pd.DataFrame(vectors), index=False).astype(str)
        links += _pairs(units, "vector " + same.set_axis(rows.index))
    if not links and not is_cnmc:
        return units
    subjects = set(rows["subject"].dropna())
    if is_cnmc:
        links += [*_pairs(units, "unit " + units), *links_of_cnmc()]
        subjects |= {subject for subject, _ in links_of_cnmc()}
    return units.map(link_groups(links, subjects)).astype(object)


def _pairs(units: pd.Series, contents: pd.Series) -> Iterable[tuple[str, str]]:
    pairs = pd.DataFrame({"unit": units, "content": contents}).drop_duplicates()
    return zip(pairs["unit"], pairs["content"], strict=True)


def _parts(
    rows: pd.DataFrame, path: Path, allow_leak: bool, *, predicted: bool
) -> tuple[tuple[pd.DataFrame, pd.DataFrame], bool]:
    """Return the rows that are not judged and those that are, and whether a leak between them was let pass."""
    nobody = rows.iloc[:0]
    if "part" not in rows:
        return (nobody, rows), False
    words = {word: "test" if word.lower() == "prelim" else given_part(word) for word in rows["part"].unique()}
    unknown = [repr(word) for word, part in words.items() if part is None]
    if unknown:
        raise AllkitError(
            f"{path}: part {first_of(unknown)} is not known. Use train, validation and test, or leave it out."
        )
    part = rows["part"].map(words)
    if not (part == "test").any():
        if not predicted and set(part) == {"train"}:
            return (nobody, rows), False  # to be divided here
        raise AllkitError(f"{path} has no row of the part test, and what was trained on tells nothing about others.")
    parts = [rows[part == name] for name in ("train", "validation", "test")]
    split = Split("given", *parts, shares_subjects=allow_leak, note="", validation_by_image=True)
    try:
        assert_disjoint(split)
    except LeakError as error:
        if not allow_leak:
            what = str(error).partition(" Use split=")[0]  # there is no split to choose here
            raise LeakError(
                f"{path}: {what} Take them out of the test rows; --allow-leak judges them all the same."
            ) from error
        assert_disjoint(split, allow_leak=True)
        return (rows[part != "test"], parts[2]), True
    return (rows[part != "test"], parts[2]), False


# two files


def align(first: pd.DataFrame, second: pd.DataFrame, *, common: bool = False) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return two predictions tables about the same images in the same order, and a sentence on how.

    Images are found by path, or where folders differ by the path below the common folder, or by the file's name.
    Those in one file only are an AllkitError, or left out with `common`.
    """
    if set(classes_of(first)) != set(classes_of(second)):
        names = " and ".join("/".join(classes_of(table)) for table in (first, second))
        raise AllkitError(f"the files are about different classes ({names}), so they cannot be compared.")
    (one, other), how = _shared_keys(first, second)
    first, second = first.set_axis(one), second.set_axis(other)
    lost = [*first["path"][~one.isin(other)], *second["path"][~other.isin(one)]]
    both = one[one.isin(other)]
    what = f"{len(lost)} images are in one file only ({first_of(lost, 3)})"
    if not len(both) or (lost and not common):
        raise AllkitError(f"{what}. Predict the same images with both, or compare the {len(both)} others: --common.")
    first, second = first.loc[both], second.loc[both]
    for column in ("label", "subject"):
        differ = (first[column] != second[column]) & first[column].notna() & second[column].notna()
        if differ.any():
            where = first_of(list(first["path"][differ]), 3)
            raise AllkitError(f"{differ.sum()} images have another {column} in the other file ({where}). Correct one.")
    facts = (second if first["subject"].isna().any() else first)[["subject", "group"]]
    order = [f"p_{name}" for name in classes_of(first)]
    first, second = (pd.concat([first[["path", "label"]], facts, table[order]], axis=1) for table in (first, second))
    note = f"{len(both):,} images compared, found by {how}." + (f" {what}, and left out." if lost else "")
    return first.reset_index(drop=True), second.reset_index(drop=True), note


def _shared_keys(first: pd.DataFrame, second: pd.DataFrame) -> tuple[tuple[pd.Index, pd.Index], str]:
    """Return what images of both are found by: of the ways in which nobody is there twice, that which finds most."""
    ways = {
        "path": lambda paths: list(paths),
        "path below the common folder": relative_paths,
        "the file's name": lambda paths: [path.replace("\\", "/").rsplit("/", 1)[-1] for path in paths],
    }
    keys = {how: tuple(pd.Index(make(table["path"])) for table in (first, second)) for how, make in ways.items()}
    unique = {how: pair for how, pair in keys.items() if all(index.is_unique for index in pair)}
    how = max(unique, key=lambda name: unique[name][0].isin(unique[name][1]).sum())
    return unique[how], how
