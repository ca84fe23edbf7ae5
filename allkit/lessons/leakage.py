"""Notebook 08: the same baselines under six ways to split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from allkit import AllkitError
from allkit.augment import balance
from allkit.baselines import evaluate_baseline, row_keys
from allkit.data import COLUMNS, file_sum, source_images
from allkit.evaluate import evaluate_predictions, evaluate_with_intervals
from allkit.images import in_threads
from allkit.splits import (
    SUBJECT_FRACTIONS,
    Split,
    split_by_fold,
    split_by_image,
    split_by_subject,
    split_hold_out,
    split_unseen,
)

# ------------------------------------------------------------------------------------------ the leakage lab

SPLIT_KINDS = {
    "augment, then split": "the paper's order: copies are made first, and land on both sides",
    "by image": "cells are drawn whoever they come from",
    "by subject, as named": "nobody is on both sides, but two names may share images",
    "by subject, duplicates merged": "names that share an image count as one subject",
    "official folds": "one published fold is the test part, links between folds kept",
    "unseen subjects": "people of another collection",
}
"""The ways of splitting that the lab compares, from the leakiest to the strictest."""


def balance_pool(index: pd.DataFrame, *, seed: int = 123) -> pd.DataFrame:
    """Return the labelled training rows filled up with copies, as "augment, then split" needs them."""
    return balance(index[index["label"].notna() & (index["part"] == "train")], seed=seed)


def split_by_kind(arm: str, index: pd.DataFrame, balanced: pd.DataFrame, *, seed: int) -> Split:
    """Split by one of `SPLIT_KINDS`; training and test parts are as large in all of them as the groups allow.

    Args:
        arm: a key of `SPLIT_KINDS`.
        index: all rows.
        balanced: of `balance_pool`.
        seed: who falls where; for the official folds, which fold is tested on.

    Raises:
        AllkitError: the data do not allow it: subjects or folds are unknown, or there are too few.
    """
    if arm != "by image" and not arm.startswith("augment") and index["subject"].isna()[index["part"] == "train"].any():
        raise AllkitError("Subjects are unknown.")
    if arm == "augment, then split":
        return split_by_image(balanced, SUBJECT_FRACTIONS, seed)
    if arm == "by image":
        return split_by_image(index, SUBJECT_FRACTIONS, seed)
    if arm == "by subject, as named":
        return split_by_subject(index.assign(group=index["subject"].fillna(index["group"])), seed)
    if arm == "by subject, duplicates merged":
        return split_by_subject(index, seed)
    if arm == "official folds":
        sizes = index["fold"][index["part"] == "train"].value_counts().sort_index()
        small = sizes[sizes <= sizes.sum() / 2].index  # a fold with most of the images is there to learn from
        if not len(small):
            raise AllkitError("There are no official folds.")
        return split_by_fold(index, int(small[seed % len(small)]), seed, drop_linked=False)
    if arm == "unseen subjects":
        return split_unseen(index, seed)
    raise AllkitError(f"there is no arm {arm!r}; choose one of {', '.join(SPLIT_KINDS)}.")


def count_shared(split: Split, contents: pd.Series) -> dict[str, float]:
    """Return which shares of the test rows, 0-1, training knows in which way.

    Args:
        split: any split.
        contents: of each path, something that is equal for byte-identical files.

    Returns:
        `file` (the same file, as it is or as a copy), `bytes`, `source image` (NaN where names do not tell) and
        `subject` (NaN where unknown).
    """
    known = {}
    for name, values in {
        "file": lambda rows: rows["path"],
        "bytes": lambda rows: rows["path"].map(contents),
        "source image": source_images,
        "subject": lambda rows: rows["subject"],
    }.items():
        train, test = values(split.train), values(split.test)
        known[name] = float(test.isin(set(train.dropna())).mean()) if test.notna().all() else float("nan")
    return known


def file_contents(index: pd.DataFrame) -> pd.Series:
    """Return the SHA-256 of each file, by path."""
    paths = list(index["path"].drop_duplicates())
    return pd.Series(list(in_threads(file_sum, paths)), index=paths)


def evaluate_split_kinds(
    index: pd.DataFrame,
    balanced: pd.DataFrame,
    numbers: pd.DataFrame,
    *,
    probes: Iterable[str] = ("logistic regression", "nearest neighbours"),
    seeds: Iterable[int] = range(5),
    resamples: int = 100,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Ask the same probes under all `SPLIT_KINDS`, each with several seeds.

    Returns:
        One row per arm, seed and probe: `auc` with its bootstrap interval `low`, `high` over `resampled`
        (see `evaluate_with_intervals`), `images` tested on, and the shares of `count_shared`; and the arms that
        the data do not allow, with the reason.
    """
    contents, rows, refused = file_contents(index), [], {}
    for arm in SPLIT_KINDS:
        for seed in seeds:
            try:
                split = split_by_kind(arm, index, balanced, seed=seed)
            except AllkitError as reason:
                refused[arm] = str(reason)
                break
            facts = {"arm": arm, "seed": seed, "images": len(split.test), **count_shared(split, contents)}
            for probe in probes:
                table = evaluate_baseline(split.train, split.test, numbers, probe, seed=seed)
                found = evaluate_with_intervals(table, resamples=resamples, seed=seed).loc["auc"]
                measured = {"auc": found["value"], **found[["low", "high", "resampled"]]}
                rows.append({**facts, "probe": probe, **measured})
    return pd.DataFrame(rows), refused


def summarise_split_kinds(found: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds by split kind and baseline, and the spread over seeds.

    `low` and `high` are the means of the intervals of the single seeds, NaN where one of them is inconclusive.
    """
    of = found.groupby(["arm", "probe"], sort=False)
    table = of[["auc", "low", "high"]].agg(lambda values: values.mean(skipna=False)).rename(columns={"auc": "value"})
    return table.assign(**{"spread over seeds": of["auc"].std(), "resampled": of["resampled"].first()})


def evaluate_subject_effect(
    subject_effect: float,
    draw_numbers: Callable[..., pd.DataFrame],
    *,
    probes: Sequence[str] = ("logistic regression", "nearest neighbours"),
    subjects: int = 30,
    cells: int = 12,
    splits: int = 2,
    seeds: Iterable[int] = range(10),
) -> pd.DataFrame:
    """Measure on drawn numbers how much a split by image promises too much, beside the truth.

    The split by image asks about new cells of known people, the split by subject about new people. Both are
    also answered by fresh cells without end, which only a generator can give.

    Args:
        subject_effect: how much subjects differ, see `allkit.synthetic.draw_numbers`; 0: not at all.
        draw_numbers: the generator, `allkit.synthetic.draw_numbers`.
        probes: see `build_baseline`.
        subjects, cells: people of each class, and cells of each.
        splits: of each kind, over which a lab averages.
        seeds: one lab each, with people of its own.

    Returns:
        One row per seed and probe: AUC `by image`, `by subject`, `known people` and `new people` (fresh cells),
        `measured` (by image - by subject) and `true` (known - new).
    """
    found = []
    for seed in seeds:
        dial = {"subject_effect": subject_effect, "seed": seed}
        index = draw_numbers(subjects, cells, **dial)
        known = draw_numbers(subjects, 2 * cells, first_cell=1000, **dial)
        new = draw_numbers(2 * subjects, cells, first_subject=1000, **dial)
        everybody = pd.concat([index, known, new])
        numbers = everybody.drop(columns=list(COLUMNS)).set_axis(row_keys(everybody))
        for number in range(splits):
            by_image = split_by_image(index, SUBJECT_FRACTIONS, seed=number)
            by_subject = split_by_subject(index, seed=number)
            asked = {
                "by image": (by_image.train, by_image.test),
                "by subject": (by_subject.train, by_subject.test),
                "known people": (by_image.train, known),
                "new people": (by_subject.train, new),
            }
            for probe in probes:
                tables = {what: evaluate_baseline(*rows, numbers, probe) for what, rows in asked.items()}
                auc = {what: evaluate_predictions(table)["auc"] for what, table in tables.items()}
                found.append({"seed": seed, "probe": probe, **auc})
    table = pd.DataFrame(found).groupby(["seed", "probe"], sort=False, as_index=False).mean()
    gap = {"measured": table["by image"] - table["by subject"], "true": table["known people"] - table["new people"]}
    return table.assign(**gap)


def evaluate_hold_outs(
    index: pd.DataFrame, numbers: dict[str, pd.DataFrame], subjects: Iterable[str], *, draws: int = 5
) -> pd.DataFrame:
    """Hold each of the named subjects out in turn, with drawn subjects of the other class, several times.

    Args:
        index: all rows.
        numbers: name of a probe's input -> the numbers by `row_keys`; a name that ends in ", subjects weighted"
            asks for that (see `evaluate_baseline`).
        subjects: who is tested on, one at a time.
        draws: of the subjects of the other class.

    Returns:
        One row per subject, draw and input: `subject`, `draw`, `input`, `auc`, `people` tested on.
    """
    rows = []
    for subject in subjects:
        for draw in range(draws):
            split = split_hold_out(index, [subject], seed=draw)
            train = pd.concat([split.train, split.validation])  # nothing is chosen here
            for name, values in numbers.items():
                table = evaluate_baseline(train, split.test, values, by_subject=name.endswith("subjects weighted"))
                auc = evaluate_predictions(table)["auc"]
                people = split.test["group"].nunique()
                rows.append({"subject": subject, "draw": draw, "input": name, "auc": auc, "people": people})
    return pd.DataFrame(rows)


def choose_input(index: pd.DataFrame, numbers: dict[str, pd.DataFrame], *, draws: int = 1) -> str:
    """Return the input that does best on people of these rows, each of the fewer-headed class held out in turn.

    Give it training rows only: what is chosen on the people it is then tested on is chosen by luck.

    Args:
        index: rows that may be looked at.
        numbers, draws: see `evaluate_hold_outs`.

    Raises:
        AllkitError: too few people.
    """
    rows = index[index["label"].notna() & (index["part"] == "train")]
    people = rows.groupby("label")["group"].nunique()
    fewest = rows[rows["label"] == people.idxmin()]
    found = evaluate_hold_outs(rows, numbers, fewest.groupby("group")["subject"].first(), draws=draws)
    return str(found.groupby("input", sort=False)["auc"].mean().idxmax())
