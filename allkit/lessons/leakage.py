"""Notebook 08: the same baselines under six ways to split, and how much each way promises too much."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import pandas as pd

from allkit import AllkitError
from allkit.baselines import evaluate_baseline, row_keys
from allkit.data import source_images
from allkit.duplicates import contents_of
from allkit.evaluate import evaluate_predictions, evaluate_with_intervals
from allkit.source import COLUMNS
from allkit.splits import (
    SUBJECT_FRACTIONS,
    Split,
    split_by_fold,
    split_by_image,
    split_by_subject,
    split_hold_out,
    split_unseen,
)

SPLIT_KINDS = {
    "augment, then split": "the paper's order: copies are made first, and land on both sides",
    "by image": "cells are split at random, whichever subject they come from",
    "by subject, as named": "no subject is on both sides, but two names may share images",
    "by subject, duplicates merged": "names that share an image count as one subject",
    "official folds": "one published fold is the test part, links between folds kept",
    "unseen subjects": "subjects of another collection",
}
"""The ways of splitting that are compared, from the leakiest to the strictest."""

BASELINES = ("logistic regression", "nearest neighbours")
"""The two baselines that are compared: one cannot remember a cell, the other does nothing else."""

CELLS_EACH = 12
"""Cells of each subject in a simulated data set."""


def split_by_kind(split_kind: str, index: pd.DataFrame, balanced: pd.DataFrame, *, seed: int) -> Split:
    """Notebook 08: split by one of `SPLIT_KINDS`; all parts are as large in all of them as the groups allow.

    `balanced` are the training rows of `index` with copies (`allkit.augment.balance`). For the official folds, `seed`
    says which fold is tested on. AllkitError: the data do not allow it, because subjects or folds are unknown, or
    there are too few.
    """
    ignores_subjects = split_kind in ("augment, then split", "by image")
    if not ignores_subjects and index["subject"].isna()[index["part"] == "train"].any():
        raise AllkitError("Subjects are unknown.")
    if split_kind == "augment, then split":
        return split_by_image(balanced, SUBJECT_FRACTIONS, seed)
    if split_kind == "by image":
        return split_by_image(index, SUBJECT_FRACTIONS, seed)
    if split_kind == "by subject, as named":
        return split_by_subject(index.assign(group=index["subject"].fillna(index["group"])), seed)
    if split_kind == "by subject, duplicates merged":
        return split_by_subject(index, seed)
    if split_kind == "official folds":
        return split_by_fold(index, _choose_fold(index, seed), seed, drop_linked=False)
    if split_kind == "unseen subjects":
        return split_unseen(index, seed)
    raise AllkitError(f"there is no split kind {split_kind!r}; choose one of {', '.join(SPLIT_KINDS)}.")


def _choose_fold(index: pd.DataFrame, seed: int) -> int:
    sizes = index["fold"][index["part"] == "train"].value_counts().sort_index()
    small = sizes[sizes <= sizes.sum() / 2].index  # a fold with most of the images is there to learn from
    if not len(small):
        raise AllkitError("There are no official folds.")
    return int(small[seed % len(small)])


def evaluate_split_kinds(
    index: pd.DataFrame, balanced: pd.DataFrame, numbers: pd.DataFrame, *, seeds: Iterable[int] = range(5)
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Notebook 08: evaluate both `BASELINES` under all `SPLIT_KINDS`, each with several seeds.

    `balanced` as in `split_by_kind`, `numbers` by `row_keys`. Returns one row per split kind, seed and baseline:
    `auc` with its bootstrap interval `low`, `high` over `resampled` (see `evaluate_with_intervals`), `images` tested
    on, and which shares of them, 0–1, occur in training: the same `file` (as it is or as a copy), the same `bytes`,
    `source image` and `subject` (NaN where unknown); and the split kinds that the data do not allow, with the reason.
    """
    paths = index["path"].drop_duplicates()
    sums = pd.Series(contents_of(paths), index=paths)
    index, balanced = (_with_origins(rows, sums) for rows in (index, balanced))
    rows, refused = [], {}
    for split_kind in SPLIT_KINDS:
        for seed in seeds:
            try:
                split = split_by_kind(split_kind, index, balanced, seed=seed)
            except AllkitError as reason:
                refused[split_kind] = str(reason)
                break
            shared = {name: split.share_known(name) for name in ("file", "bytes", "source image", "subject")}
            facts = {"split_kind": split_kind, "seed": seed, "images": len(split.test), **shared}
            for baseline in BASELINES:
                table = evaluate_baseline(split.train, split.test, numbers, baseline, seed=seed)
                auc = evaluate_with_intervals(table, resamples=100, seed=seed).loc["auc"]
                rows.append({**facts, "baseline": baseline, "auc": auc["value"], **auc[["low", "high", "resampled"]]})
    return pd.DataFrame(rows), refused


def _with_origins(rows: pd.DataFrame, sums: pd.Series) -> pd.DataFrame:
    """Return rows with what could be shared between training and test, each in a column of its own."""
    origins = {"file": rows["path"], "bytes": rows["path"].map(sums), "source image": source_images(rows["name"])}
    return rows.assign(**origins)


def summarise_split_kinds(found: pd.DataFrame) -> pd.DataFrame:
    """Notebook 08: return the mean over seeds by split kind and baseline, and the spread over seeds.

    `low` and `high` are the means of the intervals of the single seeds, NaN where one of them is inconclusive.
    """
    of = found.groupby(["split_kind", "baseline"], sort=False)
    table = of[["auc", "low", "high"]].agg(lambda values: values.mean(skipna=False)).rename(columns={"auc": "value"})
    return table.assign(**{"spread over seeds": of["auc"].std(), "resampled": of["resampled"].first()})


def evaluate_subject_effect(
    subject_effect: float,
    draw_numbers: Callable[..., pd.DataFrame],
    *,
    subjects: int = 30,
    seeds: Iterable[int] = range(10),
) -> pd.DataFrame:
    """Notebook 08: measure on simulated numbers how much a split by image promises too much, beside the truth.

    The split by image is about new cells of known subjects, the split by subject about new subjects. Both can also
    be tested on any number of fresh cells, which only a generator can give: `allkit.synthetic.draw_numbers`.
    `subject_effect` says how much subjects differ, 0: not at all; `subjects` is their number in each class; each
    seed has subjects of its own.

    One row per seed and baseline: AUC `by image`, `by subject`, of `known subjects` and `new subjects` (fresh cells),
    `measured` (by image - by subject) and `true` (known - new).
    """
    rows = []
    for seed in seeds:
        draw = partial(draw_numbers, subject_effect=subject_effect, seed=seed)
        rows += [{"seed": seed, **row} for row in _compare_with_fresh_cells(draw, subjects)]
    table = pd.DataFrame(rows).groupby(["seed", "baseline"], sort=False, as_index=False).mean()
    return table.assign(
        measured=table["by image"] - table["by subject"], true=table["known subjects"] - table["new subjects"]
    )


def _compare_with_fresh_cells(draw: Callable[..., pd.DataFrame], subjects: int) -> list[dict]:
    """Return the AUCs of each baseline on one simulated data set, for two splits of each kind."""
    index = draw(subjects, CELLS_EACH)
    known = draw(subjects, 2 * CELLS_EACH, first_cell=1000)
    new = draw(2 * subjects, CELLS_EACH, first_subject=1000)
    everybody = pd.concat([index, known, new])
    numbers = everybody.drop(columns=list(COLUMNS)).set_axis(row_keys(everybody))
    rows = []
    for seed in range(2):
        by_image = split_by_image(index, SUBJECT_FRACTIONS, seed)
        by_subject = split_by_subject(index, seed)
        tests = {
            "by image": (by_image.train, by_image.test),
            "by subject": (by_subject.train, by_subject.test),
            "known subjects": (by_image.train, known),
            "new subjects": (by_subject.train, new),
        }
        for baseline in BASELINES:
            tables = {name: evaluate_baseline(*parts, numbers, baseline) for name, parts in tests.items()}
            aucs = {name: evaluate_predictions(table)["auc"] for name, table in tables.items()}
            rows.append({"baseline": baseline, **aucs})
    return rows


def evaluate_hold_outs(
    index: pd.DataFrame, inputs: dict[str, pd.DataFrame], subjects: Iterable[str], *, draws: int = 5
) -> pd.DataFrame:
    """Notebook 08: hold each of these subjects out in turn, with random subjects of the other class, several times.

    `inputs`: name -> what logistic regression sees of each cell, by `row_keys`; a name that ends in ", subjects
    weighted" does that (see `evaluate_baseline`). One row per subject, draw and input: `subject`, `draw`,
    `input`, `auc`, `subjects` tested on.
    """
    rows = []
    for subject in subjects:
        for draw in range(draws):
            split = split_hold_out(index, [subject], seed=draw)
            train = pd.concat([split.train, split.validation])  # nothing is chosen here
            facts = {"subject": subject, "draw": draw}
            for name, numbers in inputs.items():
                table = evaluate_baseline(train, split.test, numbers, by_subject=name.endswith("subjects weighted"))
                auc = evaluate_predictions(table)["auc"]
                rows.append({**facts, "input": name, "auc": auc, "subjects": split.test["group"].nunique()})
    return pd.DataFrame(rows)


def choose_input(index: pd.DataFrame, inputs: dict[str, pd.DataFrame]) -> str:
    """Notebook 08: return the input that does best when each subject of the rarer class is held out in turn.

    The class with fewer subjects. Give it training rows only: what is chosen on the subjects it is then tested on is
    chosen by luck.
    """
    rows = index[index["label"].notna() & (index["part"] == "train")]
    subjects = rows.groupby("label")["group"].nunique()
    fewest = rows[rows["label"] == subjects.idxmin()]
    found = evaluate_hold_outs(rows, inputs, fewest.groupby("group")["subject"].first(), draws=1)
    return str(found.groupby("input", sort=False)["auc"].mean().idxmax())
