"""One index for every image source, and which subjects share images.

An *index* is a DataFrame with one row per image (see `load_index`). C-NMC 2019 in any of its public layouts, the
synthetic data set, a folder per class and a CSV all become the same index, so that no other module has to know where
an image came from. How a folder is read stands in `allkit.layout`.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from allkit import AllkitError
from allkit.cnmc import load_manifest
from allkit.duplicates import contents_of, copies_by_name, find_near_duplicates
from allkit.images import first_of
from allkit.layout import scan_source
from allkit.source import Scan, guess_positive, people_in_names, read_source, uid_of


def class_order(rows: pd.DataFrame | Iterable[object]) -> tuple[str, ...]:
    """Return the distinct labels: the positive class first, the others sorted, missing ones left out.

    Of an index, which knows its positive class, or of labels alone: then it is guessed from words such as ALL,
    malignant or normal, and otherwise the first of the sorted names.
    """
    labels, positive = rows, ""
    if isinstance(rows, pd.DataFrame):
        labels = rows["label"]
        positive = next((name for name in rows.get("positive", ()) if isinstance(name, str)), "")
    found = sorted({label for label in labels if isinstance(label, str)})
    positive = positive or guess_positive(found)
    return tuple(sorted(found, key=lambda label: (label != positive, label)))


def load_index(path: str | Path, *, layout: str = "", positive: str = "") -> pd.DataFrame:
    """Return the index of all images at `path`: one row per image, sorted by path.

    `path` is C-NMC 2019 (its root, the folder above or any folder below it), a synthetic data set, a folder that
    holds one folder per class, a CSV with the columns path and label and optionally subject, part and fold (paths
    relative to the CSV), or a TOML file that describes one of them. `layout` says what the levels of folders mean
    ("part/class/subject"), `positive` which class is to be found; without them names decide, see
    `allkit.layout`. Columns of the result:

    - `path` absolute path; `name` original file name; `source` "cnmc", "synthetic", "folders" or "csv"
    - `label` "ALL"/"HEM", the folder's name, or None (the final test part of C-NMC was never labelled)
    - `subject` "11", "H3" or None where subjects are unknown
    - `group` never missing: subjects that share images count as one ("H3+H10"), be these identical, copies by their
      names or near-duplicates. Where subjects are unknown, the relative path of the first of such images
    - `fold` official fold of C-NMC (Int64) or <NA>; `part` "train" (to be split), "prelim" or "final"
    - `given` "train", "validation" or "test" where the data come with a division of their own, else None
    - `positive` the class to be found, the same in all rows, or None where it is not known

    Raises `AllkitError` for a missing path, an empty folder, one class only, a CSV without its columns, what fits two
    readings, labels that contradict each other and a subject in two parts.
    """
    scan = scan_source(read_source(path, layout, positive))
    index = with_groups(scan)
    problems = [sentence for _, sentence in scan.problems] or [what for _, what in find_problems(index)]
    if problems:
        raise AllkitError(f"{scan.root}: {first_of(problems, 3)}. `allkit data check` lists everything.")
    classes = class_order(index)
    if len(classes) == 1:
        raise AllkitError(
            f"{scan.root} holds images of one class only ({classes[0]}): a classifier needs two. "
            "Point at the folder that holds all classes."
        )
    if scan.left_out:
        warnings.warn(f"{left_out_in_words(scan)} `allkit data check` lists all.", stacklevel=2)
    return index


def find_problems(index: pd.DataFrame, content: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """Return kind and sentence of what must not be trained on: contradictions between images, labels and parts.

    `content` is equal for identical images; by default, files of the same bytes are.
    """
    same = pd.Series(contents_of(index["path"]) if content is None else list(content), index.index)
    found = []
    for column, word in (("label", "label"), ("part", "part")):
        known = index.dropna(subset=[column])
        values = known.groupby(same[known.index])[column].agg(lambda each: tuple(sorted(set(each))))
        for key in values.index[values.map(len) > 1]:
            paths = known.loc[same[known.index] == key, "path"]
            sentence = f"identical images have the {word}s {' and '.join(values[key])}: {', '.join(paths)}"
            found.append((f"duplicate across {word}s", sentence))
    whole = "a subject belongs to one part: correct the CSV or move the files"
    found += [("subject in two parts", f"{sentence}; {whole}") for sentence in subjects_in_two(index, "part")]
    return found


def left_out_in_words(scan: Scan) -> str:
    """Return one sentence on what was left out, and why; "Nothing was left out." without any."""
    if not scan.left_out:
        return "Nothing was left out."
    each = [
        f"{len(files)} {why} ({files[0].name}{' …' if len(files) > 1 else ''})" for why, files in scan.left_out.items()
    ]
    return f"Left out below {scan.root}: {'; '.join(each)}."


def describe_reading(scan: Scan, index: pd.DataFrame) -> str:
    """Return in two lines how a data set was read: classes, subjects, parts, positive class; and what was left out."""
    counts = index["label"].value_counts()
    labels = ", ".join(f"{label} {counts[label]:,}" for label in class_order(index))
    subjects = index["subject"].nunique()
    unknown = int(index["subject"].isna().sum())
    whose = f"{subjects} subjects" + (f", unknown for {unknown:,} images" if unknown and subjects else "")
    given = index["given"].value_counts()
    parts = (
        "your own parts " + ", ".join(f"{part} {n:,}" for part, n in given.items()) if len(given) else "no parts given"
    )
    positive = next((name for name in index["positive"] if name), None)
    found = f"positive class {positive}" if positive else "positive class not known"
    if len(counts) > 2:
        found = "no class is the positive one"
    if not subjects:
        people = people_in_names(index["name"])
        lost = f" (names such as {people[0]} … are not read: give a list with the column subject)" if people else ""
        whose = f"subjects unknown{lost}"
    return f"Read as: {scan.reading}. {labels}; {whose}; {parts}; {found}.\n{left_out_in_words(scan)}"


def require_positive(index: pd.DataFrame) -> None:
    """Raise an AllkitError where one of two classes must be the one to be found, and nobody has said which."""
    labels = class_order(index)
    if len(labels) == 2 and index["positive"].isna().all():
        raise AllkitError(
            f"Which of {labels[0]} and {labels[1]} is the class to be found, the positive one? Say it: --positive "
            f'{labels[0]} on the command line, or positive = "{labels[0]}" in a TOML file that describes the data.'
        )


# groups


def with_groups(scan: Scan, content: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the index with `group`: subjects, or images without one, linked wherever content is the same."""
    rows = scan.rows
    names = relative_paths(rows["path"])
    units = [subject or name for subject, name in zip(rows["subject"], names, strict=True)]
    contents = list(content) if content is not None else _contents(scan)
    links = list(zip(units, contents, strict=True))
    links += _links_of_copies(rows, names, units, scan.source)
    if scan.source == "cnmc":
        links += links_of_cnmc()
    subjects = {subject for subject in rows["subject"] if subject}
    subjects |= {unit for unit, _ in links[len(units) :]}
    group_of = link_groups(links, subjects)
    index = rows.drop(columns="key")
    index.insert(3, "group", [group_of[unit] for unit in units])
    return index.astype({"group": object})


def links_of_cnmc() -> list[tuple[str, str]]:
    """Return (subject, content) for every image of C-NMC that is there more than once."""
    known = load_manifest().dropna(subset=["subject"])
    known = known[known["sha256"].duplicated(keep=False)]
    return list(zip(known["subject"], known["sha256"], strict=True))


def _links_of_copies(
    rows: pd.DataFrame, names: Sequence[str], units: Sequence[str], source: str
) -> list[tuple[str, str]]:
    """Return (unit, key) twice for each image that is a copy of another: by name, and by what is seen.

    Of C-NMC and its twin all that show the same are known by name or subject; nothing is compared.
    """
    unit_of = dict(zip(names, units, strict=True))
    pairs = [(unit_of[copy], unit_of[original]) for copy, original in copies_by_name(names)]
    pairs += [(units[one], units[other]) for one, other in near_duplicates_of(rows, source)]
    return [(unit, f"pair {number}") for number, pair in enumerate(pairs) for unit in pair]


def near_duplicates_of(rows: pd.DataFrame, source: str) -> list[tuple[int, int]]:
    """Return the pairs of rows that show nearly the same, where nothing but the pixels can tell."""
    return find_near_duplicates(list(rows["path"])) if source in ("csv", "folders") else []


def link_groups(links: list[tuple[str, str]], subjects: set[str]) -> dict[str, str]:
    """Return the group of each unit, from pairs (unit, content): units that share a content are one group.

    So are those that do through others. `subjects` are the units that a group may be named after.
    """
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
    image it was.
    """
    published = load_manifest()["sha256"] if scan.source == "cnmc" else {}
    known = scan.rows["key"].map(published).astype(object)
    rest = known.isna()
    known[rest] = contents_of(scan.rows["path"][rest])
    return list(known)


def source_images(names: pd.Series) -> pd.Series:
    """Return which microscope image each cell was cut from, by C-NMC's names: "H3 image 12", missing for others."""
    found = names.map(lambda name: uid_of(str(name)))
    return found.map(lambda parts: f"{parts[1].upper()} image {parts[2]}" if parts else np.nan).astype(object)


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
    # those of a Windows machine too, whose run may be read elsewhere; on others a backslash may belong to a name
    paths = [path.replace("\\", "/") if re.match(r"[A-Za-z]:|\\\\", path) else path for path in paths]
    try:
        base = posixpath.commonpath([posixpath.dirname(path) for path in paths]) if paths else ""
    except ValueError:  # some absolute, some not
        return paths
    return [path[len(posixpath.join(base, "")) :] for path in paths]


def index_hash(index: pd.DataFrame) -> str:
    """Return 16 hexadecimal digits that stand for what is in the index, wherever its folder lies.

    Covers relative path, name, label, subject, group, fold, part, division, positive class and content of every image.
    """
    columns = ["name", "label", "subject", "group", "fold", "part", "given", "positive"]
    table = index.reindex(columns=columns).astype("string").fillna("")
    lines = zip(
        relative_paths(index["path"]), *(table[column] for column in table), contents_of(index["path"]), strict=True
    )
    return hashlib.sha256("\n".join(sorted(map("\t".join, lines))).encode()).hexdigest()[:16]
