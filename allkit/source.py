"""What a user says about data, and words as users write them: labels, subjects, parts, the class to be found."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from allkit import AllkitError, saving
from allkit.images import first_of

LEVELS = ("class", "subject", "part", "fold", "*")
"""What a level of folders may mean, in a `layout` such as "part/class/subject"; "*" means nothing."""

GIVEN = ("train", "validation", "test")
"""The parts that a user's own division may have."""

PARTS = ("train", "prelim", "final")

COLUMNS = ("path", "label", "subject", "group", "fold", "part", "given", "name", "source", "positive")

LABEL_OF = {"all": "ALL", "hem": "HEM"}

FOLD = re.compile(r"(?:cv|fold|split)[ _-]?(\d+)", re.IGNORECASE)

UID = re.compile(r"uid_(h?\d+)_(\d+)_(\d+)_(all|hem)", re.IGNORECASE)

_UID_INSIDE = re.compile(rf"(?<![a-z0-9]){UID.pattern}(?![a-z0-9])", re.IGNORECASE)

_GIVEN_PART = re.compile(
    r"(?:(train(?:ing)?)|(val(?:id(?:ation)?)?|dev)|(test(?:ing)?|eval(?:uation)?|hold[ _-]?out))"
    r"(?:[ _-]?(?:set|data|images?|split|part|samples?|[a-d]|\d{1,2}))*",
    re.IGNORECASE,
)

PERSON = r"(?:pat(?:ient)?|pt|p|subj(?:ect)?|s|donor|case|person|id|h)[ _-]?\d+\w?"
"""What a folder or a piece of a file's name looks like that stands for a person."""

_PERSON_INSIDE = re.compile(rf"(?:^|[_\-. ])({PERSON})(?![a-z0-9])", re.IGNORECASE)

_LONGEST = 80  # characters of a label or a subject

_MARKUP = re.compile(r"<[a-z/!?]|\]\(|[*`$]", re.IGNORECASE)

_UNKNOWN = frozenset({"", "nan", "na", "n/a", "none", "null", "?", "-", "unknown", "missing", "<na>", "nat"})

_ILL = re.compile(
    r"all|aml|apl|cll|cml|pml|mm|leuka?emi(?:a|c)|malignant|(?:lympho)?blasts?|cancer(?:ous)?|tumou?rs?|positive|abnormal|"
    r"diseased?|sick|ill|infected|parasitized"
)

_WELL = re.compile(r"hem|healthy|normal|benign|negative|controls?|well|non?|not|uninfected")

_NUMBER = re.compile(r"0*(\d+)(?:\.0*)?")


@dataclass(frozen=True)
class Source:
    """Where images lie, and what their user says about them; empty: read it from the names."""

    path: Path
    layout: tuple[str, ...] = ()
    positive: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scan:
    """What lies at a path, before pixels are read: rows without groups, how they were read, and what did not fit."""

    root: Path
    source: str
    rows: pd.DataFrame  # COLUMNS without group, and key (name in the manifest, or None)
    reading: str = ""  # what the levels of folders, or the columns, were taken for
    left_out: Mapping[str, list[Path]] = field(default_factory=dict)  # reason -> files or folders
    label_files: list[Path] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)  # (kind, sentence)
    notes: list[str] = field(default_factory=list)


def read_source(path: str | Path, layout: str = "", positive: str = "") -> Source:
    """Return a path with what is said about it, here or in a description: a TOML file with the same words and labels.

    Raises AllkitError for a path that does not exist, and for a description that cannot be understood.
    """
    root = _absolute(path)
    if not _is_there(root):
        near = difflib.get_close_matches(root.name, _names_in(root.parent), n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "Check the spelling, or the folder you are in."
        raise AllkitError(f"{root} does not exist. {hint}")
    said: dict[str, Any] = {"layout": layout, "positive": positive, "labels": {}}
    if root.suffix.lower() == ".toml":
        inside = _read_description(root)
        root = _absolute(inside["path"], root.parent)
        if not _is_there(root):
            raise AllkitError(f"{path} describes {root}, which does not exist. Correct its path.")
        said = {word: said[word] or inside.get(word, said[word]) for word in said}
    levels = tuple(said["layout"].lower().split("/")) if said["layout"] else ()
    if levels and (set(levels) - set(LEVELS) or levels.count("class") != 1):
        raise AllkitError(
            f"the layout {said['layout']!r} is not understood; write what folders mean from {root} down, separated by "
            f"/, each level one of {', '.join(LEVELS)}, with class once: for instance part/class or class/subject."
        )
    return Source(root, levels, said["positive"], {str(k): str(v) for k, v in said["labels"].items()})


def _absolute(path: str | Path, base: Path | None = None) -> Path:
    try:
        full = Path(path).expanduser()
        return Path(os.path.abspath(base / full if base else full))
    except (RuntimeError, ValueError) as error:
        raise AllkitError(f"{str(path)[:200]!r} is no path ({error}). Check its spelling.") from error


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long
        return False


def _read_description(file: Path) -> dict[str, Any]:
    kinds = {"path": str, "layout": str, "positive": str, "labels": dict}
    try:
        inside = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise AllkitError(
            f"{file} cannot be read as a description of data ({error}). data/README.md shows one."
        ) from error
    wrong = [word for word, value in inside.items() if not isinstance(value, kinds.get(word, ()))]
    if wrong or "path" not in inside:
        what = f"{wrong[0]!r} is not understood" if wrong else "there is no path"
        raise AllkitError(
            f"{file}: {what}. A description holds path, and if need be layout, positive (text) and a table labels."
        )
    return inside


def write_description(file: Path, source: Source) -> None:
    """Write what is said about data as TOML, which `read_source` reads."""
    words = {"path": str(source.path), "layout": "/".join(source.layout), "positive": source.positive}
    lines = [f"{word} = {json.dumps(text, ensure_ascii=False)}" for word, text in words.items() if text]
    if source.labels:
        lines += ["", "[labels]"]
        lines += [
            f"{json.dumps(k, ensure_ascii=False)} = {json.dumps(v, ensure_ascii=False)}"
            for k, v in source.labels.items()
        ]
    with saving(file) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


# Words


def is_unknown(text: str | None) -> bool:
    """Return whether a cell of a table says that nothing is known."""
    return not isinstance(text, str) or text.strip().lower() in _UNKNOWN


def given_part(name: str) -> str | None:
    """Return which part a folder's or a column's word means, in any spelling: "TestA" is "test"; None for others."""
    found = _GIVEN_PART.fullmatch(name.strip())
    return next(part for part, word in zip(GIVEN, found.groups(), strict=True) if word) if found else None


def own_division(given: Sequence[str | None], root: Path) -> list[str | None]:
    """Return the parts of a user's own division, or None for all images where there is none.

    One part alone is no division, and "train" beside images in no part neither. Raises AllkitError where some images
    are in another part and others in none.
    """
    found = set(given)
    if None in found and found - {None, "train"}:
        missing, named = sum(part is None for part in given), " and ".join(sorted(found - {None}))
        raise AllkitError(
            f"{root}: {missing} images are in no part, and others in {named}. Put every image into train, validation "
            "or test, or take the parts away."
        )
    return list(given) if len(found - {None}) > 1 else [None] * len(given)


def uid_of(name: str) -> re.Match | None:
    """Return what C-NMC's names say (subject, image, cell, class), wherever they stand in a file name, or None."""
    return _UID_INSIDE.search(name)


def people_in_names(names: Iterable[str]) -> list[str]:
    """Return what looks like subjects in file names, "patient07" in patient07_cell3.png; empty where nothing does."""
    found = [_PERSON_INSIDE.search(os.path.splitext(name)[0]) for name in names]
    people = sorted({match[1] for match in found if match})
    return people if sum(map(bool, found)) > 0.8 * len(found) and 1 < len(people) <= len(found) / 2 else []


def guess_positive(labels: Iterable[str]) -> str:
    """Return which of two classes is the one to be found, by words such as ALL, malignant or normal; "" if unknown."""
    labels = list(labels)
    if len(labels) != 2:
        return "ALL" if "ALL" in labels else ""
    words = [re.split(r"[^a-z]+", label.lower()) for label in labels]
    well = [any(map(_WELL.fullmatch, found)) or found[0].startswith("non") for found in words]
    ill = [any(map(_ILL.fullmatch, found)) and not healthy for found, healthy in zip(words, well, strict=True)]
    for sign, of in ((True, ill), (False, well)):
        if of[0] != of[1]:
            return labels[of.index(sign)]
    return ""


# Labels and subjects


def finish_scan(scan: Scan, source: Source) -> Scan:
    """Clean labels and subjects of the rows, name the positive class, and note what was changed."""
    rows, notes, problems = scan.rows, list(scan.notes), list(scan.problems)
    rows["label"] = pd.Series(_clean_labels(rows, source, notes), rows.index, dtype=object)
    rows["subject"] = pd.Series(_clean_subjects(rows, source, notes, problems), rows.index, dtype=object)
    labels = sorted({label for label in rows["label"] if label})
    if source.positive and source.positive not in labels:
        raise AllkitError(
            f"the positive class {source.positive!r} is none of the labels at {scan.root} ({', '.join(labels)})."
        )
    positive = source.positive or guess_positive(labels)
    rows["positive"] = pd.Series([positive or None] * len(rows), rows.index, dtype=object)
    return Scan(scan.root, scan.source, rows, scan.reading, scan.left_out, scan.label_files, problems, notes)


def _clean_labels(rows: pd.DataFrame, source: Source, notes: list[str]) -> list[str | None]:
    """Return labels without blanks around them, in one spelling each; AllkitError for bare numbers."""
    of_list = rows["source"].isin(["csv"])  # a folder called "none" is a class, a cell of a table says nothing
    known = [
        None if not text or (in_list and is_unknown(text)) else " ".join(text.split())
        for text, in_list in zip(rows["label"], of_list, strict=True)
    ]
    unused = sorted(set(source.labels) - set(known))
    if unused:
        raise AllkitError(f"labels names {unused[0]!r}, which is no label at {source.path}. Correct the description.")
    known = [source.labels.get(label, label) for label in known]
    check_words("label", known, source.path)
    found = Counter(label for label in known if label)
    if found and all(_NUMBER.fullmatch(label) for label in found):
        shown = ", ".join(f'"{name}" = "…"' for name in sorted(found))
        raise AllkitError(
            f"The labels at {source.path} are numbers ({', '.join(sorted(found))}): what do they mean? Write names of "
            f"classes into the list, or describe the data in a TOML file with path and a table [labels] ({shown})."
        )
    spelling: dict[str, str] = {}
    for label, _ in found.most_common():
        spelling.setdefault(label.casefold(), LABEL_OF.get(label.lower(), label))
    _note_spellings("labels", found, spelling, str.casefold, notes)
    return [spelling[label.casefold()] if label else None for label in known]


def check_words(what: str, words: Iterable[str | None], path: Path) -> None:
    """Raise AllkitError for a word that figures and sentences cannot show as it is."""
    for word in words:
        if word and (len(word) > _LONGEST or not word.isprintable() or _MARKUP.search(word)):
            raise AllkitError(
                f"{path}: the {what} {word[:40]!r} cannot be shown as it is in tables, figures and sentences. "
                f"Write at most {_LONGEST} letters, digits and signs, but no markup (<tag>, [..](..), *, `, $)."
            )


def _clean_subjects(
    rows: pd.DataFrame, source: Source, notes: list[str], problems: list[tuple[str, str]]
) -> list[str | None]:
    """Return one spelling for each subject, and None where a cell says that nothing is known."""
    texts = [None if is_unknown(text) else text.strip() for text in rows["subject"]]
    spelling: dict[str, str] = {}
    check_words("subject", texts, source.path)
    for text in texts:
        if text:
            spelling.setdefault(person_key(text), person_key(text) if _NUMBER.fullmatch(text) else text)
    _note_spellings("subjects", set(texts) - {None}, spelling, person_key, notes)
    clean = [spelling[person_key(text)] if text else None for text in texts]
    problems += doubtful_subjects(rows.assign(subject=pd.Series(clean, rows.index, dtype=object)))
    return clean


def person_key(text: str) -> str:
    """Return what is the same for all spellings of one subject: "1", "01" and "1.0" are "1"; "P1" and "p1" are "p1"."""
    number = _NUMBER.fullmatch(text)
    return number[1] if number else " ".join(text.split()).casefold()


def _note_spellings(
    what: str, texts: Iterable[str], spelling: Mapping[str, str], same: Callable[[str], str], notes: list[str]
) -> None:
    """Note which texts were read as one."""
    forms = defaultdict(set)
    for text in texts:
        forms[same(text)].add(text)
    merged = {spelling[key]: sorted(texts) for key, texts in forms.items() if len(texts) > 1}
    if merged:
        shown = first_of([f"{', '.join(map(repr, texts))} as {name!r}" for name, texts in merged.items()], 3)
        notes.append(f"Spellings of {what} that are read as one: {shown}.")


def doubtful_subjects(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what speaks against the subjects' being people: one for each image, or numbered anew in each class."""
    known = rows.dropna(subset=["subject", "label"])
    own = known["source"].isin(["csv", "folders"]).all()
    if own and len(known) >= 10 and known["subject"].nunique() == len(known):
        why = (
            "every image has a subject of its own, so that does not say whose image it is: give the column that does, "
        )
        return [("subjects", f"{why}or leave it out")]
    numbers = [set(part["subject"]) for _, part in known.groupby("label")]
    if len(numbers) > 1 and all(_counts_up(subjects) for subjects in numbers):
        counts = " and ".join(str(len(subjects)) for subjects in numbers)
        why = f"the subjects are numbered anew in each class ({counts}), so one number stands for several people: "
        return [
            ("subjects", f"{why}put the class before it (blast-1, normal-1), or a letter if they are the same people")
        ]
    return []


def _counts_up(subjects: set[str]) -> bool:
    """Return whether subjects are the numbers from 0 or 1 on, without a gap."""
    if len(subjects) < 3 or not all(subject.isdigit() for subject in subjects):
        return False
    numbers = sorted(map(int, subjects))
    return numbers[0] <= 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def frame_of(rows: list[dict]) -> pd.DataFrame:
    """Return rows as a table sorted by path; what is missing is None, or <NA> as a fold."""
    columns = [name for name in COLUMNS if name != "group"]
    frame = pd.DataFrame(rows, columns=[*columns, "key"], dtype=object)
    frame["fold"] = frame["fold"].astype("Int64")
    text = frame.columns.drop("fold")
    frame[text] = frame[text].where(frame[text].notna(), None)
    return frame.sort_values("path", ignore_index=True)
