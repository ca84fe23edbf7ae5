"""Notebook 01: counting images, subjects and copies, and what one number of a cell reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from allkit import AllkitError, plots
from allkit.baselines import is_on_black
from allkit.data import class_order
from allkit.duplicates import contents_of
from allkit.images import prepare_image, read_image
from allkit.splits import FRACTIONS, Split, split_data

_NUMBERS = {"area": "area of the cell (pixels)", "mean_g": "mean of green (grey level, 0-255)"}


def count_labels(train: pd.DataFrame) -> pd.Series:
    """Notebook 01: return the images of each class, the positive class first."""
    return train["label"].value_counts().reindex(class_order(train)).rename("training images")


def describe_imbalance(counts: pd.Series) -> str:
    """Notebook 01: return what always answering with the largest class would get, in two sentences."""
    largest, lazy = counts.idxmax(), counts.max() / counts.sum()
    return (
        f"The largest class, **{largest}**, holds {counts.max() / counts.min():.1f} times as many images as the "
        f"smallest. Somebody who has never seen a cell and always answers “{largest}” is right in **{lazy:.1%}** of "
        "the cases."
    )


def plot_examples(train: pd.DataFrame, *, each: int = 5, seed: int = 0) -> np.ndarray:
    """Notebook 01: show a few images of every class, chosen at random."""
    classes = list(class_order(train))
    chosen = train.groupby("label").sample(n=min(each, count_labels(train).min()), random_state=seed)
    chosen = chosen.sort_values("label", key=lambda labels: labels.map(classes.index))
    titles = [row.label + (f", subject {row.subject}" if row.subject else "") for row in chosen.itertuples()]
    colours = plots.class_colours(classes)
    return plots.plot_images(
        [prepare_image(read_image(path), 220) for path in chosen["path"]],
        titles,
        colours=[colours[label] for label in chosen["label"]],
        alt=f"Grid of images, {len(chosen) // len(classes)} of each class: {', '.join(classes)}.",
    )


def count_subjects(train: pd.DataFrame) -> pd.DataFrame:
    """Notebook 01: return subjects and images of every class, and the largest subject's share of them, 0–1.

    Without subjects, the images alone.
    """
    of = train.groupby("label")["subject"]
    table = pd.DataFrame({"subjects": of.nunique(), "images": train["label"].value_counts()})
    largest = of.agg(lambda names: names.value_counts(normalize=True).iloc[0] if names.notna().all() else np.nan)
    return table.assign(largest_subject=largest).loc[list(class_order(train))]


def count_by_unit(train: pd.DataFrame) -> pd.DataFrame:
    """Notebook 01: return images of each class by subject, the largest first; by class where subjects are unknown."""
    unit = "subject" if train["subject"].notna().all() else "label"
    table = pd.crosstab(train[unit], train["label"])[list(class_order(train))]
    return table.loc[table.sum(axis=1).sort_values(ascending=False).index]


def describe_subjects(train: pd.DataFrame) -> str:
    """Notebook 01: return how many subjects there are, or the warning that nobody knows."""
    if train["subject"].isna().any():
        return (
            "**Subjects are unknown in these data.** Images of one subject may be anywhere, so every result below "
            "and in later notebooks may be too good."
        )
    sizes = train["subject"].value_counts()
    return (
        f"{len(sizes)} subjects, with {sizes.min()} to {sizes.max()} images each. The largest tenth of them holds "
        f"{sizes.head(max(1, len(sizes) // 10)).sum() / sizes.sum():.0%} of the images."
    )


def count_folds(train: pd.DataFrame) -> pd.DataFrame:
    """Notebook 01: return images and subjects of every class in each published fold; empty where there are none."""
    if train["fold"].isna().all():
        return pd.DataFrame(index=pd.Index([], name="these data come without folds"))
    images = pd.crosstab(train["fold"], train["label"])[list(class_order(train))]
    subjects = train.groupby(["fold", "label"])["subject"].nunique().unstack().reindex(columns=images.columns)
    return images.join(subjects.add_suffix(" subjects"))


def find_copies(train: pd.DataFrame) -> pd.DataFrame:
    """Notebook 01: return the images whose content occurs more than once, equal ones together.

    The columns of the index and `content`, the SHA-256 sum of what was decoded.
    """
    paths = train["path"].drop_duplicates()
    rows = train.assign(content=train["path"].map(pd.Series(contents_of(paths), index=paths)))
    return rows[rows["content"].duplicated(keep=False)].sort_values(["content", "path"])


def describe_copies(train: pd.DataFrame, copies: pd.DataFrame) -> str:
    """Notebook 01: return how many contents occur twice, and which names share an image."""
    names = train.groupby("group")["subject"].agg(lambda of: sorted(set(of.dropna())))
    linked = "; ".join(" = ".join(group) for group in names if len(group) > 1) or "none"
    return (
        f"{copies['content'].nunique()} contents occur more than once, in {len(copies)} files. "
        f"Subjects that share an image: {linked}."
    )


def plot_copies(copies: pd.DataFrame, *, pairs: int = 2) -> np.ndarray:
    """Notebook 01: show the first pairs of identical images; where there are none, a blank that says so."""
    shown = copies.groupby("content", sort=False).head(2).head(2 * pairs)
    if shown.empty:
        return np.array([plots.plot_flow(["no image\noccurs twice"])])
    titles = [f"{row.subject or 'unknown'}\n{Path(row.path).stem[:18]}" for row in shown.itertuples()]
    images = [prepare_image(read_image(path), 220) for path in shown["path"]]
    named = ", ".join(str(subject or "unknown") for subject in shown["subject"])
    alt = f"{len(shown)} images, in pairs that are identical; the files name the subjects {named} in turn."
    return plots.plot_images(images, titles, columns=4, alt=alt)


def number_of(images: Sequence[np.ndarray]) -> str:
    """Notebook 01: return the number to begin with: "area" for cells on black, "mean_g" for other pictures."""
    return "area" if all(map(is_on_black, images)) else "mean_g"


def title_of(number: str) -> str:
    """Notebook 01: return the name of a measured number with its unit."""
    return _NUMBERS[number]


def evaluate_number(measured: pd.DataFrame, number: str) -> float:
    """Notebook 01: return the AUC of a number, the mean of each class against the rest where there are more than two.

    Smaller is as good a rule as larger: at least 0.5.
    """
    classes = class_order(measured)
    areas = [roc_auc_score(measured["label"] == label, measured[number]) for label in classes]
    return float(np.mean([max(area, 1 - area) for area in (areas[:1] if len(classes) == 2 else areas)]))


def split_both_ways(index: pd.DataFrame, *, seed: int = 123) -> dict[str, Split]:
    """Notebook 01: return the splits by image and by subject, those of them that the data allow.

    Raises AllkitError where neither is possible.
    """
    splits = {}
    for how in ("image", "subject"):
        try:
            splits[how] = split_data(index, how, seed=seed)
        except AllkitError as error:
            reason = str(error)
    if not splits:
        raise AllkitError(f"these data cannot be split ({reason}); add images until each class has some in every part.")
    return splits


def plot_splits(splits: Mapping[str, Split], by_unit: pd.DataFrame) -> np.ndarray:
    """Notebook 01: draw one bar per subject, coloured by the part that its images are in, for each split."""
    figure, axes = plt.subplots(len(splits), 1, figsize=(7.6, 2.6 * len(splits)), squeeze=False)
    figure.get_layout_engine().set(h_pad=0.12)
    known = "subject" if by_unit.index.name == "subject" else "label"
    for ax, (how, split) in zip(axes.flat, splits.items(), strict=True):
        rows = pd.concat([rows.assign(part=part) for part, rows in split.parts.items()])
        shares = pd.crosstab(rows[known], rows["part"])[list(split.parts)].reindex(by_unit.index, fill_value=0)
        plots.plot_bars(shares, xlabel=f"{known}s", ylabel="images", stacked=True, ax=ax).set_title(f"split by {how}")
        mixed = int(((shares > 0).sum(axis=1) > 1).sum())
        plots.describe(ax, f"Split by {how}: {mixed} of {len(shares)} bars hold more than one part.")
    return axes


def count_leaks(splits: Mapping[str, Split]) -> pd.DataFrame:
    """Notebook 01: return for each split how many test images have their subject, or their content, in training."""
    rows = {}
    for how, split in splits.items():
        both = pd.concat([split.train, split.test])["path"].drop_duplicates()
        content = pd.Series(contents_of(both), index=both)
        test, seen = split.test, split.train
        known = test["subject"].notna().all()
        rows[f"by {how}"] = {
            "test images": len(test),
            "subject is also in training": int(test["subject"].isin(seen["subject"]).sum()) if known else "unknown",
            "same content is in training": int(test["path"].map(content).isin(seen["path"].map(content)).sum()),
        }
    return pd.DataFrame(rows).T.rename_axis("split")


def compare_counts(train: pd.DataFrame, listed: pd.DataFrame, stated: Mapping[str, float]) -> pd.DataFrame:
    """Notebook 01: return the images of each class by the paper's text, by the list of files, and here."""
    published = listed[listed["part"] == "train"].groupby("label").size()
    table = pd.DataFrame({"paper's text": {label: int(stated[f"images_{label}"]) for label in published.index}})
    table["list of files"] = published
    table["here"] = train["label"].value_counts().reindex(table.index, fill_value=0)
    table.loc["all"] = table.sum()
    return table


def expect_test_part(counts: pd.DataFrame, support: pd.Series) -> pd.DataFrame:
    """Notebook 01: return the test part that each count implies, beside the one that the paper's report counts."""
    table = counts.loc[support.index, ["paper's text", "list of files"]] * FRACTIONS[2]
    return table.assign(**{"paper's test part (Fig. 11)": support}).round(1)


def summarise(train: pd.DataFrame, copies: pd.DataFrame, number: str, baseline: float) -> str:
    """Notebook 01: return what was found, as a list."""
    counts = count_labels(train)
    known = train["subject"].notna().all()
    subjects = f"{train['subject'].nunique():,} subjects in {train['group'].nunique():,} groups."
    facts = [
        f"{counts.sum():,} labelled training images of {len(counts)} classes.",
        f"Always answering “{counts.idxmax()}” is right in {counts.max() / counts.sum():.1%} of the cases.",
        subjects if known else "Subjects are unknown: a leak between parts can never be excluded.",
        f"{len(copies)} files have an identical copy.",
        f"The {title_of(number).partition(' (')[0]} alone reaches an AUC of {baseline:.2f}: the baseline to beat.",
    ]
    return "\n".join(f"- {fact}" for fact in facts)
