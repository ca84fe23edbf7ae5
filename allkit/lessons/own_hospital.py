"""Notebook 18: a hospital that only one student has: its leak, its threshold, and what was planted in one class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from allkit import plots
from allkit.classical import evaluate_baseline, row_keys
from allkit.data import class_order
from allkit.evaluate import evaluate_predictions
from allkit.images import in_threads, read_image, to_common_size
from allkit.progress import track
from allkit.splits import SUBJECT_FRACTIONS, grouped_folds, split_by_image, split_by_subject

SEEDS = range(20)
"""Of the splits whose mean is compared. Fixed, whatever the notebook's seed, so that it can be computed again."""

FOLDS = 5

WARDS = {"train": "first ward", "test": "second ward"}
"""The two wards of a hospital, by the parts that its cells come divided into."""


def choose_wards(index: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Notebook 18: return the labelled rows of the first and of the second ward.

    Data that come with no division into training and test are all of the second ward, and the first is empty.
    """
    rows = index[index["label"].notna() & (index["part"] == "train")].reset_index(drop=True)
    divided = {"train", "test"} <= set(rows["given"].dropna())
    first = rows["given"].isin(["train", "validation"]) if divided else pd.Series(False, rows.index)
    return rows[first], rows[~first]


def count_wards(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Notebook 18: return how many subjects ("unknown" where nobody says) and cells each ward has of each class."""
    rows = pd.concat(dict(zip(WARDS.values(), (first, second), strict=True)), names=["ward"])
    counts = rows.groupby(["ward", "label"]).agg(subjects=("subject", "nunique"), cells=("path", "size"))
    return counts.astype(object).replace({"subjects": {0: "unknown"}})


def describe_needs(hospital: object, rows: pd.DataFrame) -> str:
    """Notebook 18: return what the hospital says of itself: how common the disease is, and what a miss costs."""
    positive = class_order(rows)[0]
    text = (
        f"In this hospital **one in {hospital.one_in}** of those examined has {positive}. To miss one costs as much as "
        f"**{hospital.cost_missed} false alarms**."
    )
    if not hospital.own:
        text += " (That follows from the name. The cells are not this hospital's: other ones were given as `data`.)"
    return text


def plot_cells(first: pd.DataFrame, second: pd.DataFrame, *, each: int = 5, seed: int = 123) -> np.ndarray:
    """Notebook 18: draw a few cells of each ward and class, chosen at random; one row per ward and class."""
    images, rows = [], []
    for ward, part in zip(WARDS.values(), (first, second), strict=True):
        for label, of_class in part.groupby("label"):
            chosen = of_class.sample(min(each, len(of_class)), random_state=seed)
            images += [to_common_size(read_image(path)) for path in chosen["path"]]
            rows.append(f"{ward}\n{label}")
    alt = f"Cells chosen at random, a row each: {'; '.join(rows)}.".replace("\n", ", ")
    return plots.plot_images(images, columns=each, rows=rows, alt=alt)


def compare_splits(rows: pd.DataFrame, numbers: pd.DataFrame, seeds: Iterable[int] = SEEDS) -> pd.DataFrame:
    """Notebook 18: test nearest neighbours on splits by image and by subject, one row each per seed.

    `numbers` by `row_keys`. Columns split_kind, seed, auc. Without known subjects there is no split by subject.
    """
    makers = {"by image": lambda seed: split_by_image(rows, SUBJECT_FRACTIONS, seed)}
    if rows["subject"].notna().all():
        makers["by subject"] = lambda seed: split_by_subject(rows, seed)
    found = []
    for seed in track(list(seeds), "splits", unit="seed"):
        for split_kind, split in makers.items():
            parts = split(seed)
            table = evaluate_baseline(parts.train, parts.test, numbers, "nearest neighbours")
            found.append({"split_kind": split_kind, "seed": seed, "auc": evaluate_predictions(table)["auc"]})
    return pd.DataFrame(found)


def plot_leak(found: pd.DataFrame) -> Axes:
    """Notebook 18: draw the AUC of both ways of splitting, seed by seed."""
    shown = found.rename(columns={"auc": "AUC", "split_kind": "split"})
    ax = plots.plot_points(shown, "seed", "AUC", by="split")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    span = found.groupby("split_kind")["auc"].agg(["min", "max"])
    told = "; ".join(f"{kind} from {low:.2f} to {high:.2f}" for kind, low, high in span.itertuples())
    return plots.describe(ax, f"AUC of nearest neighbours over {found['seed'].nunique()} seeds, {told}.")


def describe_leak(found: pd.DataFrame) -> str:
    """Notebook 18: return in how many of the seeds the split by image promises more, in a sentence."""
    wide = found.pivot_table(index="seed", columns="split_kind", values="auc")
    if "by subject" not in wide:
        return "Whose cells these are is **unknown**: how much a split by image promises too much cannot be asked."
    more = int((wide["by image"] > wide["by subject"]).sum())
    return (
        f"With {more} of {len(wide)} seeds the split by image promises more than the split by subject. "
        "Who looks at one seed reports luck; the mean is asked for below."
    )


def compare_hospitals(tables: Mapping[str, pd.DataFrame], seeds: Iterable[int] = range(8)) -> pd.DataFrame:
    """Notebook 18: return how much a split by image promises too much in several hospitals, by name.

    `tables` are numbers behind cells (`allkit.synthetic.draw_hospital_numbers`). `value` is the mean over the seeds,
    `low` and `high` are two standard errors away; all seeds share the same subjects.
    """
    rows = {}
    for name, table in tables.items():
        numbers = table.select_dtypes("float").set_axis(row_keys(table))
        wide = compare_splits(table, numbers, seeds).pivot_table(index="seed", columns="split_kind", values="auc")
        gap = wide["by image"] - wide["by subject"]
        rows[name] = {"value": gap.mean(), "low": gap.mean() - 2 * gap.sem(), "high": gap.mean() + 2 * gap.sem()}
    return pd.DataFrame(rows).T


def describe_hospitals(compared: pd.DataFrame) -> str:
    """Notebook 18: return how far apart hospitals are, from `compare_hospitals`, in a sentence."""
    lowest, highest = compared["value"].idxmin(), compared["value"].idxmax()
    return (
        f"One classifier, {len(compared)} hospitals: from {compared['value'].min():+.3f} ({lowest}) to "
        f"{compared['value'].max():+.3f} ({highest}). Whoever takes the one for the other is wrong by "
        f"**{np.ptp(compared['value']):.3f}**."
    )


def predict_unseen(rows: pd.DataFrame, numbers: pd.DataFrame) -> pd.DataFrame:
    """Notebook 18: return a predictions table in which every cell was answered by a model that never met its subject.

    Logistic regression; the subjects are dealt into five parts, each is predicted from the other four.
    """
    tables = [evaluate_baseline(*pair, numbers) for pair in grouped_folds(rows, FOLDS, seed=0)]
    return pd.concat(tables, ignore_index=True)


def plot_costs(curves: Mapping[str, pd.DataFrame], positive: str) -> Axes:
    """Notebook 18: draw what every threshold would cost, one line per table of `evaluate_thresholds`, each from 0 to 1.

    Each line is divided by its own maximum, so that its lowest place can be compared with that of the others.
    """
    scaled = {name: table.assign(cost=table["cost_per_1000"] / table["cost_per_1000"].max())
              for name, table in curves.items()}  # fmt: skip
    best = {name: table.loc[table["cost"].idxmin(), "threshold"] for name, table in scaled.items()}
    words = {"xlabel": f"threshold on the probability of {positive}", "ylabel": "cost / highest cost"}
    ax = plots.plot_lines(scaled, "threshold", "cost", steps=True, marks=best, **words)
    ax.set(xlim=(0, 1), ylim=(0, 1.05))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    where = "; ".join(f"{name} at {cut:.2f}" for name, cut in best.items())
    return plots.describe(ax, f"Expected cost over the threshold, on cells not learned from; cheapest for {where}.")


# What was planted


def measure_elsewhere(first: pd.DataFrame, second: pd.DataFrame, numbers: pd.DataFrame) -> pd.Series:
    """Notebook 18: return the AUC of a model of the first ward, on its own unseen subjects and in the second ward.

    Empty where there is no first ward.
    """
    if first.empty:
        return pd.Series(dtype=float, name="AUC")
    tables = {
        "first ward, unseen subjects": predict_unseen(first, numbers),
        "second ward": evaluate_baseline(first, second, numbers),
    }
    return pd.Series({name: evaluate_predictions(table)["auc"] for name, table in tables.items()}, name="AUC")


def describe_elsewhere(aucs: pd.Series) -> str:
    """Notebook 18: return what becomes of the first ward's result in the second, in a sentence."""
    if aucs.empty:
        return "There is one ward only, so nobody can say what a model of another one does here."
    inside, outside = aucs
    text = f"Subjects apart, and yet {inside:.3f} at home becomes {outside:.3f} in the next ward: "
    if inside - outside > 0.1:
        return text + "**the test at home shared more than subjects with training.**"
    return text + (
        "no fall that so few subjects could show. A logistic regression on measured numbers is blind to what these "
        "numbers do not hold; that is no all-clear for a network, which sees the whole picture."
    )


def average_images(first: pd.DataFrame, second: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Notebook 18: return the mean image of each ward and class, uint8 (450, 450, 3)."""
    means = {}
    for ward, rows in zip(WARDS.values(), (first, second), strict=True):
        for label in class_order(rows) if len(rows) else ():
            paths = rows.loc[rows["label"] == label, "path"]
            total = sum(to_common_size(image).astype(float) for image in in_threads(read_image, paths))
            means[ward, label] = np.rint(total / len(paths)).astype(np.uint8)
    return means


def plot_averages(means: Mapping[tuple[str, str], np.ndarray]) -> np.ndarray:
    """Notebook 18: draw the mean images side by side."""
    corners = {f"{ward}, {label}": int(image[:40, :40].max()) for (ward, label), image in means.items()}
    told = "; ".join(f"{name} {level}" for name, level in corners.items())
    titles = [name.replace(", ", "\n") for name in corners]
    alt = f"Mean images of each ward and class; the brightest grey level in the top left corner of each: {told}."
    return plots.plot_images(list(means.values()), titles, columns=4, size=1.8, alt=alt)


def compare_wards(first: pd.DataFrame, second: pd.DataFrame, numbers: pd.DataFrame) -> pd.DataFrame:
    """Notebook 18: return how far each number moves from the second to the first ward, by class, where both are known.

    In standard deviations within a class of the second ward. `red / blue` is the ratio of both channels' means.
    """
    shown = numbers.assign(**{"red / blue": numbers["mean_r"] / numbers["mean_b"].clip(lower=1)})
    here, there = (shown.loc[row_keys(rows)].groupby(rows["label"].to_numpy()) for rows in (first, second))
    within = np.sqrt(there.var().mean())
    return ((here.mean() - there.mean()) / within).dropna(how="all").T


def describe_moved(moved: pd.DataFrame) -> str:
    """Notebook 18: return how to read the table, or why there is none."""
    if moved.empty:
        return "These cells do not come divided into two wards, so nothing can be compared."
    return (
        f"{len(moved)} numbers in {len(moved.columns)} classes: by chance alone some move by half a standard deviation "
        "and more, because the subjects of the wards are others. What was planted moves **one** class, and further, "
        "if these numbers see it at all: a mark beside the cell they do not."
    )
