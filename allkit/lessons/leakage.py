"""Notebook 09: the same baselines under six ways to split, and how much each way promises too much."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from allkit import AllkitError, plots
from allkit.baselines import (
    DEPTHS,
    choose_single_feature,
    evaluate_baseline,
    frozen_features,
    measure_numbers,
    row_keys,
)
from allkit.data import class_order, source_images
from allkit.duplicates import contents_of
from allkit.evaluate import FEWEST_UNITS, evaluate_predictions, evaluate_with_intervals
from allkit.progress import track
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
    """Notebook 09: split by one of `SPLIT_KINDS`; all parts are as large in all of them as the groups allow.

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
    """Notebook 09: evaluate both `BASELINES` under all `SPLIT_KINDS`, each with several seeds.

    `balanced` as in `split_by_kind`, `numbers` by `row_keys`. Returns one row per split kind, seed and baseline:
    `auc` with its bootstrap interval `low`, `high` over `resampled` (see `evaluate_with_intervals`), `images` tested
    on, and which shares of them, 0–1, occur in training: the same `file` (as it is or as a copy), the same `bytes`,
    `source image` and `subject` (NaN where unknown); and the split kinds that the data do not allow, with the reason.
    """
    paths = index["path"].drop_duplicates()
    sums = pd.Series(contents_of(paths), index=paths)
    index, balanced = (_with_origins(rows, sums) for rows in (index, balanced))
    rows, refused, plan = [], {}, [(kind, seed) for kind in SPLIT_KINDS for seed in seeds]
    for split_kind, seed in track(plan, "ways to split", unit="split"):
        if split_kind in refused:
            continue
        try:
            split = split_by_kind(split_kind, index, balanced, seed=seed)
        except AllkitError as reason:
            refused[split_kind] = str(reason)
            continue
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
    """Notebook 09: return the mean over seeds by split kind and baseline, and the spread over seeds.

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
    """Notebook 09: measure on simulated numbers how much a split by image promises too much, beside the truth.

    The split by image is about new cells of known subjects, the split by subject about new subjects. Both can also
    be tested on any number of fresh cells, which only a generator can give: `allkit.synthetic.draw_numbers`.
    `subject_effect` says how much subjects differ, 0: not at all; `subjects` is their number in each class; each
    seed has subjects of its own.

    One row per seed and baseline: AUC `by image`, `by subject`, of `known subjects` and `new subjects` (fresh cells),
    `measured` (by image - by subject) and `true` (known - new).
    """
    rows = []
    for seed in track(list(seeds), f"subject effect {subject_effect:g}", unit="run"):
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
    """Notebook 09: hold each of these subjects out in turn, with random subjects of the other class, several times.

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
    """Notebook 09: return the input that does best when each subject of the rarer class is held out in turn.

    The class with fewer subjects. Give it training rows only: what is chosen on the subjects it is then tested on is
    chosen by luck.
    """
    rows = index[index["label"].notna() & (index["part"] == "train")]
    subjects = rows.groupby("label")["group"].nunique()
    fewest = rows[rows["label"] == subjects.idxmin()]
    found = evaluate_hold_outs(rows, inputs, fewest.groupby("group")["subject"].first(), draws=1)
    return str(found.groupby("input", sort=False)["auc"].mean().idxmax())


def plot_sides(split: Split, *, ax: Axes | None = None) -> Axes:
    """Notebook 09: draw every subject of a split as a mark: only trained on, on both sides, or only tested on.

    The area of a mark grows with the subject's images.
    """
    ax = plots.new_axes(ax, 7.6, 3.0)
    rows = pd.concat([split.train.assign(side="train"), split.test.assign(side="test")])
    rows = rows.assign(subject=rows["subject"].fillna(rows["path"]))
    table = rows.groupby("subject").agg(
        sides=("side", lambda of: frozenset(of)), label=("label", "first"), images=("side", "size")
    )
    kinds = {
        frozenset(["train"]): "only trained on",
        frozenset(["train", "test"]): "on both sides",
        frozenset(["test"]): "only tested on",
    }
    colours, markers = plots.class_colours(rows["label"]), dict(zip(class_order(rows), plots.MARKERS, strict=False))
    counts = []
    for place, (sides, name) in enumerate(kinds.items()):
        here = table[table["sides"] == sides].sort_values(["label", "images"], ascending=[True, False])
        columns = max(1, int(np.ceil(np.sqrt(2 * len(here)))))
        x = place * 1.0 + (np.arange(len(here)) % columns + 0.5) / columns * 0.8
        y = -(np.arange(len(here)) // columns) / columns * 0.8 * 2
        for label, colour in colours.items():
            of = (here["label"] == label).to_numpy()
            area = 12 + 90 * here["images"][of] / table["images"].max()
            ax.scatter(x[of], y[of], area, color=colour, marker=markers[label], label=label if place == 0 else None)
        edge = plots.ink(plots.RED) if place == 1 and len(here) else "0.3"
        ax.text(place + 0.4, 0.12, f"{name}: {len(here)}", ha="center", color=edge)
        counts.append(f"{len(here)} {name}")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.set(xlim=(-0.1, 2.95), ylim=(min(ax.get_ylim()[0], -1), 0.3))
    ax.set_axis_off()
    ax.set_title("one mark per subject")
    return plots.describe(ax, f"Subjects of the split {split.name}: {', '.join(counts)}.")


def choose_rows(index: pd.DataFrame, fold: int | None = None) -> pd.DataFrame:
    """Notebook 09: return the rows to work with: all, or of the training part one published fold."""
    return index if fold is None else index[(index["fold"] == fold) | (index["part"] != "train")]


def describe_links(train: pd.DataFrame) -> str:
    """Notebook 09: return how many names there are, and which are linked by a shared image."""
    if train["subject"].isna().any():
        return "Whose cells these are is **unknown**. Only the splits that ignore subjects can be tried below."
    names = train.groupby("group")["subject"].agg(lambda of: ", ".join(sorted(of.unique())))
    linked = names[names.str.contains(",")]
    return (
        f"{train['subject'].nunique()} names in the training part, {len(names)} groups once names that share an image "
        f"are merged: {'; '.join(linked) or 'none are linked'}."
    )


def measure_rows(
    balanced: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    features: str = "measured",
    image_size: int = 96,
    crop: int | None = 300,
    weights: str | None = None,
    alpha: float = 0.75,
    seed: int = 123,
) -> dict[str, pd.DataFrame]:
    """Notebook 09: return what the baselines may see of each cell and copy, by name; "numbers" is what they see first.

    `features`: "measured" (numbers of `allkit.features`), or "frozen" (average-pooled features of a MobileNet that is
    not trained on these cells: the last depth as "numbers", all of them as "three depths").
    """
    if features not in ("measured", "frozen"):
        raise AllkitError(f"features is {features!r}; choose 'measured' or 'frozen'.")
    wanted = pd.concat([balanced, rows]).fillna({"augmentation": ""})
    measured = measure_numbers(wanted)
    simple = choose_single_feature(measured)
    inputs = {"numbers": measured, f"{simple} alone": measured[[simple]]}
    if features == "frozen":
        size = {"image_size": image_size, "crop": crop, "weights": weights, "alpha": alpha, "seed": seed}
        deep = frozen_features(wanted, layers=DEPTHS, **size)
        inputs |= {"numbers": deep.filter(like=DEPTHS[-1]), "three depths": deep}
    return inputs


def describe_refused(refused: Mapping[str, str]) -> str:
    """Notebook 09: return which ways of splitting the data do not allow, and why, as a list."""
    lines = [f"- **{kind}**: not possible here. {why}" for kind, why in refused.items()]
    return "\n".join(lines) or f"All {len(SPLIT_KINDS)} are possible."


def summarise_shared(found: pd.DataFrame) -> pd.DataFrame:
    """Notebook 09: return the shares of test cells, percent, that occur in training, and the test images."""
    of = found.groupby("split_kind", sort=False)
    shared = (100 * of[["file", "bytes", "source image", "subject"]].mean()).round(1)
    return shared.assign(images=of["images"].mean().round().astype(int))


def summarise_gaps(found: pd.DataFrame) -> pd.DataFrame:
    """Notebook 09: return what the copies and what knowing the subjects add, by baseline, over the seeds.

    One row per step and baseline: gap (AUC), spread (standard deviation over seeds), seeds.
    """
    wide = found.pivot_table(index=["baseline", "seed"], columns="split_kind", values="auc")
    steps = [("augment, then split", "by image"), ("by image", "by subject, duplicates merged")]
    rows = []
    for first, second in steps:
        if {first, second} <= set(wide.columns):
            gap = (wide[first] - wide[second]).groupby("baseline")
            table = pd.DataFrame({"gap": gap.mean(), "spread": gap.std(), "seeds": gap.size()})
            rows.append(table.assign(step=f"{first} - {second}").reset_index().set_index(["step", "baseline"]))
    columns = ["gap", "spread", "seeds"]
    return pd.concat(rows) if rows else pd.DataFrame(columns=columns)


def describe_luck(found: pd.DataFrame) -> str:
    """Notebook 09: return how the splits rank here, and how much of the differences is luck, in sentences."""
    means = found[found["baseline"] == BASELINES[1]].groupby("split_kind", sort=False)["auc"].mean()
    gaps = summarise_gaps(found)
    text = (
        f"Here nearest neighbours does worst **{means.idxmin()}** ({means.min():.2f}), best **{means.idxmax()}** "
        f"({means.max():.2f}). "
    )
    if ("by image - by subject, duplicates merged", BASELINES[1]) not in gaps.index:
        return text + "Whose cells these are is unknown, so what knowing them adds cannot be asked."
    row = gaps.loc[("by image - by subject, duplicates merged", BASELINES[1])]
    if "unseen subjects" in means and means["unseen subjects"] > means.get("by subject, duplicates merged", np.nan):
        text += (
            "That the subjects of another collection come out *above* those of this one is no paradox: other people, "
            "easier or harder. A row tells as much of who is in its test as of the way of splitting. "
        )
    single = "more than half of the time" if row["gap"] < row["spread"] else "now and then"
    return text + (
        f"What knowing the subjects adds is {row['gap']:+.3f} on average, and from one seed to the next it varies by "
        f"{row['spread']:.3f}: **{single} one split alone would mislead**. And all seeds share the same people."
    )


def combine_effects(tables: Mapping[float, pd.DataFrame]) -> pd.DataFrame:
    """Notebook 09: return what was measured and what is true for several subject effects and both baselines.

    One row per baseline and subject effect: measured, error (standard error over the runs), true, runs, and the share
    of runs in which the measured difference is below zero.
    """
    table = pd.concat(tables, names=["subject_effect"])
    of = table.groupby(["baseline", "subject_effect"], sort=False)
    return pd.DataFrame(
        {
            "measured": of["measured"].mean(),
            "error": of["measured"].sem(),
            "true": of["true"].mean(),
            "runs": of.size(),
            "below zero": of["measured"].agg(lambda values: (values < 0).mean()),
        }
    )


def describe_effect(effects: pd.DataFrame, subject_effect: float) -> str:
    """Notebook 09: return what one subject effect showed for nearest neighbours, in all runs and in one."""
    row = effects.loc[(BASELINES[1], subject_effect)]
    seen = abs(row["measured"]) > 2 * row["error"]
    verdict = "clearly above zero" if seen and row["measured"] > 0 else "not to be told from zero"
    near = abs(row["measured"] - row["true"]) <= 2 * row["error"]
    below = row["below zero"]
    single = (
        "In none of the single runs did the difference come out below zero."
        if not below
        else f"In **{below:.0%}** of the single runs the difference came out below zero"
        + (
            ": whoever makes one split may miss the leak."
            if row["true"] > 0.002
            else ", as it should where nothing leaks."
        )
    )
    return (
        f"At a subject effect of {subject_effect:g} a split by image promises **{row['measured']:+.3f}** too much "
        f"(± {2 * row['error']:.3f}, {row['runs']:.0f} runs): {verdict}. The truth is {row['true']:+.3f}, "
        f"{'within' if near else 'outside'} that. {single}"
    )


def plot_effects(effects: pd.DataFrame) -> Axes:
    """Notebook 09: draw measured and true differences of nearest neighbours, with two standard errors."""
    rows = effects.loc[BASELINES[1]]
    kinds = {
        "measured, ± 2 standard errors": pd.DataFrame(
            {
                "value": rows["measured"],
                "low": rows["measured"] - 2 * rows["error"],
                "high": rows["measured"] + 2 * rows["error"],
            }
        ),
        "true": pd.DataFrame(dict.fromkeys(["value", "low", "high"], rows["true"])),
    }
    words = {"xlabel": "AUC promised too much", "ylabel": "how much subjects differ\n(1: as measured)"}
    return plots.plot_intervals(pd.concat(kinds).swaplevel(), line=0, **words)


def choose_held_out(train: pd.DataFrame, names: str = "") -> list[str]:
    """Notebook 09: return the subjects to hold out: those named, or the three of the last class with most cells."""
    if named := [name.strip() for name in names.split(",") if name.strip()]:
        return named
    last = train[train["label"] == class_order(train)[-1]].dropna(subset="subject")
    return sorted(last["subject"].value_counts().head(3).index)


def with_weights(inputs: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Notebook 09: return the inputs, those of many numbers also with subjects weighted alike."""
    both = {name: table for name, table in inputs.items() if table.shape[1] == 1}
    for name, table in inputs.items():
        if table.shape[1] > 1:
            both |= {name: table, f"{name}, subjects weighted": table}
    return both


def plot_hold_outs(tested: pd.DataFrame) -> Axes:
    """Notebook 09: draw the AUC by subject held out and input, from the lowest to the highest draw."""
    if tested.empty:
        return plots.plot_flow(["subjects are\nunknown"])
    spread = tested.groupby(["subject", "input"], sort=False)["auc"].agg(value="mean", low="min", high="max")
    return plots.plot_intervals(spread, xlabel="AUC (bar: from the lowest to the highest draw)", line=0.5)


def describe_hold_outs(tested: pd.DataFrame, label: str) -> str:
    """Notebook 09: return how differently one classifier does by the subject held out, and what is below guessing."""
    if tested.empty:
        return "Subjects are unknown, so nobody can be held out."
    means = tested.groupby(["input", "subject"], sort=False)["auc"].mean()
    numbers = means["numbers"]
    low, high = numbers.idxmin(), numbers.idxmax()
    text = (
        f"The same classifier reaches {numbers[high]:.2f} when {high} is held out and {numbers[low]:.2f} with {low}. "
        f"Whether it works on other people of the class {label} is *inconclusive* with {len(numbers)} of them."
    )
    worse = means[means < 0.5]
    if len(worse):
        named = "; ".join(f"{name} with {subject} held out ({value:.2f})" for (name, subject), value in worse.items())
        text += f" **Worse than guessing**: {named}. A rule that is right about most people can be wrong about one."
    return text


def choose_honestly(
    train: pd.DataFrame, inputs: Mapping[str, pd.DataFrame], tested: pd.DataFrame, subjects: Sequence[str]
) -> pd.DataFrame:
    """Notebook 09: return for each subject held out the input that the others choose, and what it reaches.

    Columns held out, chosen on the others, AUC, best, known too late.
    """
    rows = []
    for subject in track(list(subjects), "choosing on the others", unit="subject"):
        group = train.loc[train["subject"] == subject, "group"].iat[0]
        try:
            chosen = choose_input(train[train["group"] != group], inputs)
        except AllkitError as reason:
            chosen = f"cannot be chosen: {reason}"
        of = tested[tested["subject"] == subject].groupby("input")["auc"].mean()
        rows.append(
            {
                "held out": subject,
                "chosen on the others": chosen,
                "AUC": of.get(chosen),
                "best, known too late": of.max(),
            }
        )
    return pd.DataFrame(rows)


def describe_unseen(table: pd.DataFrame, refused: Mapping[str, str]) -> str:
    """Notebook 09: return what was reached on subjects of another collection, in a sentence."""
    if "unseen subjects" not in table.index:
        return refused["unseen subjects"]
    sentences = [
        f"{baseline}: AUC {row.value:.2f}, "
        + (f"{row.low:.2f} to {row.high:.2f}" if row.low == row.low else "interval: inconclusive")
        for baseline, row in table.loc["unseen subjects"].iterrows()
    ]
    return f"{'; '.join(sentences)}. No interval is given with fewer than {FEWEST_UNITS} subjects of a class."


def draw_splits(index: pd.DataFrame, *, seed: int = 123) -> dict[str, Split]:
    """Notebook 09: return the splits by image and by subject that the data allow, by name, to look at."""
    splits = {}
    for kind in ("by image", "by subject, duplicates merged", "official folds"):
        try:
            splits[kind] = split_by_kind(kind, index, index, seed=seed)
        except AllkitError as reason:
            why = str(reason)
    if not splits:
        raise AllkitError(f"these data cannot be split: {why}")
    return splits
