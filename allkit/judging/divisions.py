"""Divisions into training and test that others made: read from a list or from folders, or done again by name.

A list needs no images where its names are those of C-NMC 2019, whose files are listed in the kit with their sums. On
that list the usual ways in which public notebooks split C-NMC are done again. Each follows the library that it names,
on files in sorted order, gathered in one folder per class where that library wants one. Which file lands in which part
depends on that order: a notebook that took the files as its file system returned them has other members, and the same
kind of leak.
"""

from __future__ import annotations

import ast
import functools
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import (
    GroupShuffleSplit,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)

from allkit import AllkitError
from allkit.cnmc import cnmc_place, load_manifest
from allkit.data import load_index, with_groups
from allkit.duplicates import contents_of
from allkit.images import first_of
from allkit.lists import listed_image, read_table
from allkit.source import COLUMNS, LABEL_OF, Scan, given_part, is_unknown, read_source, uid_of
from allkit.splits import Split, augment_then_split, split_by_image, split_by_subject

_LONGEST = 200  # characters of a replay's name


# Lists and folders


def read_division(path: str | Path, data: str | Path = "", *, layout: str = "") -> pd.DataFrame:
    """Return the index of a split: `given` says in which part each image is, `content` which have the same bytes.

    `path` is a folder with the parts as folders, or a CSV with a path (or file name) and a part on each line, perhaps
    label, subject and group, by these or the usual other names. Images are looked for beside the list, or in `data`.
    Without them `path` of the result is what the list says. What a name of C-NMC's says is taken from the list of its
    files, and so is `content`, which is None where it is not known.
    """
    source = read_source(path, layout)
    if source.path.suffix.lower() not in (".csv", ".tsv"):
        index = load_index(path, layout=layout)
        if index["given"].isna().all():
            raise AllkitError(f"{source.path} is not divided: name folders train and test, or give a list.")
        return index.assign(content=contents_of(index["path"]))
    table = read_table(source.path, ("path", "part"), ("label", "subject", "group"), any_name=True)
    given = _parts_of(table, source.path)
    texts = [text.replace("\\", "/") for text in table["path"]]
    index = load_index(data, layout=layout) if data else None
    files = [listed_image(text, source.path) for text in table["path"]] if index is None else _find(texts, index)
    if index is not None and not any(files):
        raise AllkitError(f"None of the {len(files)} files of {source.path} is in {data}: {first_of(texts, 3)}.")
    known = _known(texts, files, index)
    own = table.reindex(columns=["label", "subject", "group"]).map(lambda text: None if is_unknown(text) else text)
    rows = pd.DataFrame(
        {
            "path": [str(file or text) for file, text in zip(files, texts, strict=True)],
            "label": own["label"].where(own["label"].notna(), known["label"]),
            "subject": known["subject"].where(known["subject"].notna(), own["subject"]),
            "own group": own["group"],
            "given": given,
        }
    ).assign(fold=pd.NA, part="train", positive=None, **known[["name", "source", "key", "content"]])
    rows = rows.astype(object).where(rows.notna(), None)
    places = [content or f"not known {place}" for place, content in enumerate(rows["content"])]
    kind = "cnmc" if rows["source"].eq("cnmc").all() else "list"  # of which nothing is compared by looks here
    return with_groups(Scan(source.path, kind, rows), places)


def _parts_of(table: pd.DataFrame, path: Path) -> list[str]:
    """Return the part of each row; AllkitError for words that are none, rows in no part, and one part alone."""
    if table.empty:
        raise AllkitError(f"{path} lists no image: write one line per image below the header.")
    given = [given_part(word) for word in table["part"]]
    wrong = sorted({repr(word) for word, part in zip(table["part"], given, strict=True) if not part})
    if wrong:
        raise AllkitError(f"{path}: the part {first_of(wrong, 3)} is not known. Write train, validation or test.")
    if len(set(given)) == 1:
        raise AllkitError(f"{path}: every image is in the part {given[0]}, so there is nothing to compare it with.")
    return given


def _find(texts: Sequence[str], index: pd.DataFrame) -> list[str | None]:
    """Return the image that each text means: the one whose path ends most alike; None where there is none, or two."""
    by_name = defaultdict(list)
    for path in index["path"]:
        parts = Path(path).with_suffix("").parts[::-1]
        by_name[parts[0].lower()].append((parts, path))
    found = []
    for text in texts:
        parts = Path(text).with_suffix("").parts[::-1] or ("",)
        alike = [(_common(parts, other), path) for other, path in by_name[parts[0].lower()]]
        best = [path for score, path in alike if score == max(alike)[0]]
        found.append(best[0] if len(best) == 1 else None)
    return found


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many pieces are the same, from the first on."""
    return next((k for k, (a, b) in enumerate(zip(one[1:], other[1:], strict=False)) if a != b), len(one))


def _known(texts: Sequence[str], files: Sequence[str | Path | None], index: pd.DataFrame | None) -> pd.DataFrame:
    """Return what is known of each image: name, label, subject, source, key (in C-NMC's list) and content."""
    first = next((Path(file) for file in files if file), None)
    drawn = first is not None and any((folder / "twin.json").is_file() for folder in first.parents)
    manifest, rows = load_manifest(), []
    places = [cnmc_place(Path(text)) for text in texts]
    genuine = not drawn and 2 * sum(place is not None for place in places) >= len(places)
    for text, place in zip(texts, places, strict=True):
        key = place[1] if place and place[1] in manifest.index else None
        listed = manifest.loc[key] if key else None
        name = listed["original"] if key and isinstance(listed["original"], str) else text.rpartition("/")[2]
        parsed = uid_of(name)
        facts = {"name": name, "key": key, "content": listed["sha256"] if key and genuine else None}
        facts |= {"label": LABEL_OF[parsed[4].lower()], "subject": parsed[1].upper()} if parsed else {}
        rows.append(facts)
    columns = ["name", "label", "subject", "key", "content"]
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    if index is not None:
        of_data = index.set_index("path").reindex(files)
        for column in ("label", "subject"):
            table[column] = table[column].where(table[column].notna(), of_data[column].to_numpy())
    readable = table["content"].isna() & pd.Series([file is not None for file in files])
    table.loc[readable, "content"] = contents_of(str(files[place]) for place in np.flatnonzero(readable))
    return table.assign(source="cnmc" if genuine else "synthetic" if drawn else "csv")


# Replays


@functools.cache
def _read_files() -> pd.DataFrame:
    files = load_manifest()
    files = files[files["part"].isin(["train", "prelim"]) & files["label"].notna()]
    name = files["original"].where(files["original"].notna(), files["path"].str.rpartition("/")[2])
    facts = {"name": name, "given": None, "source": "cnmc", "positive": "ALL", "key": files.index}
    rows = files.assign(**facts).sort_values("path", ignore_index=True)
    scan = Scan(None, "cnmc", rows[[*[column for column in COLUMNS if column != "group"], "key"]])
    return with_groups(scan, rows["sha256"]).assign(content=rows["sha256"])


def list_files() -> pd.DataFrame:
    """Return C-NMC's labelled files as an index (see `allkit.data`), without an image, sorted by path.

    `path` is that of the public layout; `content` the SHA-256 sum of the file.
    """
    return _read_files().copy()


def _divided(rows: pd.DataFrame, test: np.ndarray, validation: np.ndarray | None = None) -> pd.DataFrame:
    """Return rows with their part in the column `given`; `test` and `validation` are positions."""
    given = np.full(len(rows), "train", dtype=object)
    given[test] = "test"
    if validation is not None:
        given[validation] = "validation"
    return rows.assign(given=given)


def _of_split(split: Split) -> pd.DataFrame:
    return pd.concat([part.assign(given=name) for name, part in split.parts.items()], ignore_index=True)


def _by_class(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows as they lie in two folders, all and hem: sorted by class, then by name."""
    return rows.sort_values(["label", "name"], ignore_index=True)


def _share(size: float) -> float:
    if not 0 < size < 1:
        raise AllkitError(f"a share of {size:g} is not between 0 and 1.")
    return size


def _paper(rows: pd.DataFrame, seed: int, train_size: float) -> pd.DataFrame:
    half = round((1 - _share(train_size)) / 2, 10)
    return _of_split(split_by_image(rows, (train_size, half, half), seed))


def _once(rows: pd.DataFrame, test_size: float, random_state: int, stratify: bool) -> pd.DataFrame:
    labels = rows["label"] if stratify else None
    places = np.arange(len(rows))
    return _divided(
        rows, train_test_split(places, test_size=_share(test_size), random_state=random_state, stratify=labels)[1]
    )


def _keras_dataset(rows: pd.DataFrame, validation_split: float, seed: int) -> pd.DataFrame:
    rows = _by_class(rows)
    order = np.arange(len(rows))
    np.random.RandomState(seed).shuffle(order)
    return _divided(rows, order[len(rows) - int(_share(validation_split) * len(rows)) :])


def _keras_generator(rows: pd.DataFrame, validation_split: float) -> pd.DataFrame:
    rows = _by_class(rows)  # of each class the first names are held out, unshuffled
    place = rows.groupby("label").cumcount()
    held = (_share(validation_split) * rows.groupby("label")["path"].transform("size")).astype(int)
    return _divided(rows, np.flatnonzero(place < held))


def _split_folders(rows: pd.DataFrame, seed: int, train: float, val: float) -> pd.DataFrame:
    rows = _by_class(rows)
    if train <= 0 or val < 0 or train + val >= 1:
        raise AllkitError(f"train {train:g} and val {val:g} must leave something for the test.")
    validation, test = [], []
    for places in rows.groupby("label").indices.values():
        places = list(places)
        random.Random(seed).shuffle(places)
        first = int(train * len(places))
        second = first + int(val * len(places))
        validation += places[first:second]
        test += places[second:]
    return _divided(rows, np.array(test), np.array(validation, dtype=int))


def _random(rows: pd.DataFrame, valid_pct: float, seed: int) -> pd.DataFrame:
    order = np.random.default_rng(seed).permutation(len(rows))
    return _divided(rows, order[: int(_share(valid_pct) * len(rows))])


def _one_fold(splitter: Any, rows: pd.DataFrame, fold: int, groups: pd.Series | None = None) -> pd.DataFrame:
    tests = [test for _, test in splitter.split(rows, rows["label"], groups)]
    if not 0 <= fold < len(tests):
        raise AllkitError(f"there is no fold {fold}: they are numbered 0 to {len(tests) - 1}.")
    return _divided(rows, tests[fold])


def _k_fold(rows: pd.DataFrame, n_splits: int, random_state: int, fold: int) -> pd.DataFrame:
    return _one_fold(KFold(n_splits, shuffle=True, random_state=random_state), rows, fold)


def _stratified(rows: pd.DataFrame, n_splits: int, random_state: int, fold: int) -> pd.DataFrame:
    return _one_fold(StratifiedKFold(n_splits, shuffle=True, random_state=random_state), rows, fold)


def _grouped(rows: pd.DataFrame, n_splits: int, random_state: int, fold: int) -> pd.DataFrame:
    splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=random_state)
    return _one_fold(splitter, rows, fold, rows["subject"])


def _group_shuffle(rows: pd.DataFrame, test_size: float, random_state: int) -> pd.DataFrame:
    splitter = GroupShuffleSplit(1, test_size=_share(test_size), random_state=random_state)
    return _one_fold(splitter, rows, 0, rows["subject"])


def _folds(rows: pd.DataFrame, test: int) -> pd.DataFrame:
    if test not in set(rows["fold"]):
        raise AllkitError(f"there is no fold {test}: C-NMC has the folds 0, 1 and 2.")
    return _divided(rows, np.flatnonzero(rows["fold"] == test))


@dataclass(frozen=True)
class Replay:
    """A way to split C-NMC: what it takes with its defaults, what it is, and how it is done."""

    defaults: Mapping[str, Any]
    title: str
    divide: Callable[..., pd.DataFrame]
    everything: bool = False  # the preliminary part too


REPLAYS: tuple[tuple[str, Replay], ...] = (
    ("augment_then_split", Replay(
        {"seed": 123}, "the paper's words: copies first, then 70/15/15 by image",
        lambda rows, seed: _of_split(augment_then_split(rows, seed)))),
    ("train_test_split", Replay(
        {"seed": 123, "train_size": 0.7}, "scikit-learn, twice, stratified: the paper and many notebooks", _paper)),
    ("train_test_split", Replay(
        {"test_size": 0.25, "random_state": 42, "stratify": False}, "scikit-learn, once", _once)),
    ("image_dataset_from_directory", Replay(
        {"validation_split": 0.2, "seed": 123}, "Keras, shuffled", _keras_dataset)),
    ("ImageDataGenerator", Replay(
        {"validation_split": 0.2}, "Keras, the first names of each class", _keras_generator)),
    ("splitfolders.ratio", Replay(
        {"seed": 1337, "train": 0.8, "val": 0.1}, "split-folders, each class shuffled", _split_folders)),
    ("RandomSplitter", Replay(
        {"valid_pct": 0.2, "seed": 42}, "fastai and PyTorch's random_split: a random split of this size", _random)),
    ("KFold", Replay(
        {"n_splits": 5, "random_state": 42, "fold": 0}, "scikit-learn, shuffled, one fold", _k_fold)),
    ("StratifiedKFold", Replay(
        {"n_splits": 5, "random_state": 42, "fold": 0}, "scikit-learn, shuffled, one fold", _stratified)),
    ("GroupShuffleSplit", Replay(
        {"test_size": 0.2, "random_state": 42}, "scikit-learn, subjects as named", _group_shuffle)),
    ("StratifiedGroupKFold", Replay(
        {"n_splits": 5, "random_state": 42, "fold": 0}, "scikit-learn, subjects as named, one fold", _grouped)),
    ("folds", Replay({"test": 2}, "C-NMC's own folds, one is the test", _folds)),
    ("preliminary", Replay(
        {}, "all training data, tested on the preliminary part",
        lambda rows: _divided(rows, np.flatnonzero(rows["part"] == "prelim")), everything=True)),
    ("split_by_subject", Replay(
        {"seed": 123}, "this kit: names that share an image are one subject",
        lambda rows, seed: _of_split(split_by_subject(rows, seed)))),
)  # fmt: skip
"""The ways by the name of the function that makes them, the leakiest first. Torch's random numbers cannot be drawn
without Torch, so the members of its splits are others, and only their shares are the same."""

USUAL = (
    "augment_then_split(seed=123)",
    "train_test_split(seed=123)",
    "train_test_split(seed=123, train_size=0.9)",
    "train_test_split(test_size=0.2, random_state=42)",
    "train_test_split(test_size=0.2, random_state=42, stratify=True)",
    "image_dataset_from_directory(validation_split=0.2, seed=123)",
    "ImageDataGenerator(validation_split=0.2)",
    "splitfolders.ratio(seed=1337)",
    "RandomSplitter(valid_pct=0.2, seed=42)",
    "StratifiedKFold(n_splits=5, random_state=42)",
    "GroupShuffleSplit(test_size=0.2, random_state=42)",
    "StratifiedGroupKFold(n_splits=5, random_state=42)",
    "folds(test=2)",
    "preliminary",
    "split_by_subject(seed=123)",
)
"""What public notebooks and this kit write."""


def list_replays() -> pd.DataFrame:
    """Return the ways to split that can be replayed: how to write each, with its defaults, and what it is."""
    rows = [(_written(name, way.defaults), way.title) for name, way in REPLAYS]
    return pd.DataFrame(rows, columns=["replay", "what it is"])


def _written(name: str, values: Mapping[str, Any]) -> str:
    inside = ", ".join(f"{word}={value}" for word, value in values.items())
    return f"{name}({inside})" if inside else name


def replay(text: str) -> pd.DataFrame:
    """Return C-NMC's files as `text`, such as "train_test_split(seed=123)", divides them: the column `given`.

    Parameters that are not given have the defaults of `list_replays`. AllkitError: no such way, or parameters that it
    does not take.
    """
    name, values = _read_call(text)
    ways = [way for known, way in REPLAYS if known == name]
    if not ways:
        listed = "; ".join(list_replays()["replay"])
        raise AllkitError(f"no way to split is called {name[:60]!r}. There are: {listed}.")
    fitting = [way for way in ways if set(values) <= set(way.defaults)]
    if not fitting:
        takes = " or ".join(_written(name, way.defaults) for way in ways)
        raise AllkitError(f"{text!r} does not fit: write {takes}.")
    way, files = fitting[0], list_files()
    chosen = {word: _fitting(word, values.get(word, default), default) for word, default in way.defaults.items()}
    rows = files if way.everything else files[files["part"] == "train"].reset_index(drop=True)
    try:
        return way.divide(rows, **chosen)
    except (ValueError, MemoryError) as error:
        raise AllkitError(f"{text!r} cannot be done: {error}") from error


def _read_call(text: str) -> tuple[str, dict[str, Any]]:
    """Return name and keywords of a call, read as text and never run."""
    try:
        call = ast.parse(text[: _LONGEST + 1].strip(), mode="eval").body
        values = {}
        if isinstance(call, ast.Call):
            if call.args or any(word.arg is None for word in call.keywords) or len(text) > _LONGEST:
                raise ValueError
            values, call = {word.arg: ast.literal_eval(word.value) for word in call.keywords}, call.func
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name):
            return f"{call.value.id}.{call.attr}", values
        return call.id, values
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        example = "train_test_split(test_size=0.2, random_state=42)"
        raise AllkitError(f"{text[:60]!r} is not understood: write a name with its parameters, {example}.") from error


def _fitting(word: str, value: Any, default: Any) -> Any:
    """Return a value that is of the kind of its default; AllkitError for others."""
    if isinstance(default, bool) and isinstance(value, bool):
        return value
    if isinstance(default, int) and not isinstance(default, bool) and type(value) is int and 0 <= value < 2**32:
        return value
    if isinstance(default, float) and type(value) in (int, float):
        return float(value)
    kind = "True or False" if isinstance(default, bool) else "a number" + (" from 0" if type(default) is int else "")
    raise AllkitError(f"{word}={value!r} does not fit: give {kind}, such as {word}={default}.")
