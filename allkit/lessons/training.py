"""Notebooks 04 and 05: what a network's start is worth, cells of one size, how many cells and subjects, what counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from allkit import ROOT, AllkitError, plots
from allkit.augment import transform_image
from allkit.baselines import (
    evaluate_baseline,
    frozen_features,
    measure_numbers,
    row_keys,
    single_feature_baseline,
    train_and_test,
)
from allkit.data import class_order
from allkit.evaluate import compare_predictions, evaluate_each, evaluate_predictions, roc_auc
from allkit.features import cell_mask, measure_cells
from allkit.images import in_threads, read_image, to_common_size
from allkit.models import TrainedModel, predict_index
from allkit.progress import track
from allkit.source import COLUMNS
from allkit.splits import Split, sample_weights
from allkit.train import Profile, Training, build_from_profile, get_profile, train_model

LEARNING_CURVE = ROOT / "docs" / "results" / "learning-curve.csv"
"""Learning curves on thousands of synthetic cells, written by `make results`."""

RESAMPLES = 200
"""Of the bootstrap behind each interval of these notebooks."""

_SCRATCH_EPOCHS = 6  # a training of all layers takes a minute

_CANDIDATES = 12
"""Classifiers among which the measure of the validation part has to choose."""

_DIFFICULTY = 2.0
"""How much the classes overlap where the two ways of counting are compared: as easy as the twin, nothing would show."""


def plot_separable(*, channels: int = 3) -> Axes:
    """Notebook 04: draw what an ordinary convolution looks at for one result, and the two halves of a separable one."""
    ax = plt.subplots(figsize=(8.4, 2.9))[1]
    kinds = {
        "ordinary: every channel,\n3 × 3 places": (range(channels), 3),
        "depthwise: one channel,\n3 × 3 places": ((0,), 3),
        "pointwise: every channel,\n1 place": (range(channels), 1),
    }
    for k, (title, (used, side)) in enumerate(kinds.items()):
        for channel in reversed(range(channels)):
            x, y = 4.6 * k + 0.8 * channel, 0.45 * channel
            ax.add_patch(Rectangle((x, y), 2, 2, facecolor="#EEF3F8", edgecolor="0.45"))
            if channel in used:
                edge = 0.35 * side
                place = (x + 0.2, y + 1.8 - edge)
                ax.add_patch(Rectangle(place, edge, edge, facecolor=plots.ORANGE, edgecolor="0.2"))
        ax.text(4.6 * k + 1.8, 3.15, title, ha="center", fontsize=9)
    ax.set(xlim=(-0.2, 13.2), ylim=(-0.1, 4.0), aspect="equal")
    ax.set_axis_off()
    words = (
        "Three stacks of feature maps. An ordinary convolution weighs 3 by 3 places of every channel at once; a "
        "depthwise one 3 by 3 places of one channel; a pointwise one a single place of every channel."
    )
    return plots.describe(ax, words)


def from_scratch(name: str, recipe: Profile, split: Split, *, seed: int = 123) -> Training:
    """Notebook 04: train the same network from random weights, all layers of it, on the same images."""
    changed = {"crop": recipe.crop, "allow_leak": recipe.allow_leak, "image_size": recipe.image_size}
    profile = get_profile("quick", name, weights="none", epochs=_SCRATCH_EPOCHS, **changed)
    model = build_from_profile(name, profile, split.train["label"].nunique(), seed=seed)
    return train_model(model, split, profile, seed=seed)


def compare_starts(split: Split, tables: Mapping[str, pd.DataFrame], *, seed: int = 123) -> pd.DataFrame:
    """Notebooks 04, 05: return the AUC of the ruler and of networks on the test images, with intervals."""
    ruler, by_ruler = single_feature_baseline(split)
    return evaluate_each({f"ruler: {ruler}": by_ruler, **tables}, resamples=RESAMPLES, seed=seed)


def describe_starts(split: Split, tables: Mapping[str, pd.DataFrame], weights: int, *, seed: int = 123) -> str:
    """Notebooks 04, 05: return how each network stands against the ruler, and why, as a list.

    `weights` is how many numbers a training from scratch has to find.
    """
    _, by_ruler = single_feature_baseline(split)
    lines = []
    for name, table in tables.items():
        gain = compare_predictions(table, by_ruler, resamples=RESAMPLES, seed=seed).loc["auc"]
        verdict = {"first": "beats the ruler", "second": "loses to the ruler"}.get(
            gain["verdict"], "against the ruler it is *inconclusive*"
        )
        span = f", interval {gain['low']:+.2f} to {gain['high']:+.2f}" if gain["low"] == gain["low"] else ""
        lines.append(f"- **{name}**: {verdict} (AUC {gain['value']:+.2f}{span})")
    images, subjects = len(split.train), split.train["subject"].nunique() or "an unknown number of"
    why = (
        f"From scratch {weights:,} weights have to be found from {images} images of {subjects} subjects: "
        f"{weights / images:,.0f} weights for each image. With learned layers only the head has to be found."
    )
    return "\n".join([*lines, "", why])


def rescale_cell(image: np.ndarray, area: float) -> np.ndarray:
    """Notebook 04: enlarge or shrink a cell on black about its centre of mass until it covers `area` pixels.

    Bilinearly; uint8 (h, w, 3), black outside the cell. Shape, colour and the order of places stay; the size goes,
    and the grain of the texture grows or shrinks with it. What falls outside the frame is lost. A black image comes
    back as it is.
    """
    if not area > 0:
        raise AllkitError(f"The area is {area} pixels, but it must be above 0.")
    mask = cell_mask(image)
    if not mask.any():
        return image.copy()
    centre = [float(np.mean(places)) for places in np.nonzero(mask)]
    factor = float(np.sqrt(area / mask.sum()))
    return transform_image(image * mask[..., None], factor=factor, centre=centre)


def evaluate_one_size(trained: TrainedModel, title: str, split: Split, *, seed: int = 123) -> pd.DataFrame:
    """Notebook 04: return the AUC of the ruler and of a network on cells as they are, and all scaled to one size.

    One row each, with intervals over subjects; empty for pictures that are not single cells, which have no one size.
    """
    ruler, by_ruler = single_feature_baseline(split)
    if not ruler.startswith("area"):
        return pd.DataFrame(columns=["value", "low", "high"])
    area = float(measure_cells(split.train)["area"].median())

    def scaled_area(path: str) -> float:
        return float(cell_mask(rescale_cell(to_common_size(read_image(path)), area)).sum())

    numbers = measure_numbers(train_and_test(split))[["area"]]
    same = numbers.copy()
    paths = split.test["path"].tolist()
    same.loc[row_keys(split.test), "area"] = list(in_threads(scaled_area, paths, what="cells of one size"))
    tables = {
        (ruler, "as it is"): by_ruler,
        (ruler, "one size"): evaluate_baseline(split.train, split.test, same),
        (title, "as it is"): predict_index(trained, split.test),
        (title, "one size"): predict_index(trained, split.test, change=lambda image, _: rescale_cell(image, area)),
    }
    return evaluate_each(tables, resamples=RESAMPLES, seed=seed)


def plot_one_size(scores: pd.DataFrame) -> Axes:
    """Notebook 04: draw the AUC of ruler and network on cells as they are and of one size."""
    if scores.empty:
        return plots.plot_flow(["no single cells\nto scale"])
    return plots.plot_intervals(scores, xlabel="AUC on the test images", line=0.5)


def describe_one_size(scores: pd.DataFrame) -> str:
    """Notebook 04: return what is left of ruler and network when all cells have one size, in a sentence."""
    if scores.empty:
        return "Whole pictures hold no single cell that could be scaled: there is nothing to take away here."
    value, (ruler, title) = scores["value"], dict.fromkeys(scores.index.get_level_values(0))
    lost = value[title, "as it is"] - value[title, "one size"]
    much = (
        "hardly needs the size"
        if lost < 0.05
        else "loses part of what it knew"
        if value[title, "one size"] > 0.6
        else "lived on the size"
    )
    return (
        f"With all cells at one size the ruler falls from {value[ruler, 'as it is']:.2f} to "
        f"{value[ruler, 'one size']:.2f}; one half "
        f"is guessing. {title} goes from {value[title, 'as it is']:.2f} to {value[title, 'one size']:.2f}: it "
        f"**{much}**."
    )


def evaluate_learning_curve(
    split: Split, recipe: Profile, *, cells: Iterable[int] = (48, 96, 192), draws: int = 3, seed: int = 123
) -> pd.DataFrame:
    """Notebook 04: return how well a reader of frozen layers does that learns from few cells of the training part.

    Logistic regression on the features of a MobileNet that is not trained on these cells, and a threshold on one
    number, several draws of each size. Columns technique, cells, auc (mean of the draws).
    """
    rows = train_and_test(split)
    size = {"image_size": recipe.image_size, "crop": recipe.crop, "weights": recipe.weights, "alpha": recipe.alpha}
    deep = frozen_features(rows, layers=("conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"), **size)
    found = []
    sizes = [n for n in cells if n < len(split.train)]
    for count in [*sizes, len(split.train)]:
        for draw in range(draws if count < len(split.train) else 1):
            share = count / len(split.train)
            few = split.train.groupby("label").sample(frac=share, random_state=seed + draw)
            name, by_number = single_feature_baseline(replace(split, train=few))
            tables = {"pre-trained": evaluate_baseline(few, split.test, deep), name: by_number}
            aucs = {technique: evaluate_predictions(table)["auc"] for technique, table in tables.items()}
            found += [{"technique": technique, "cells": count, "auc": auc} for technique, auc in aucs.items()]
    return pd.DataFrame(found).groupby(["technique", "cells"], sort=False, as_index=False)["auc"].mean()


def load_learning_curve() -> pd.DataFrame:
    """Notebook 04: return the learning curves on thousands of synthetic cells: means over seeds.

    Columns curve ("cells", "subjects"), technique, cells, subjects, auc; where `technique` does not learn, one row.
    """
    table = pd.read_csv(LEARNING_CURVE)
    keys = ["curve", "technique", "cells", "subjects"]
    return table.groupby(keys, sort=False, dropna=False, as_index=False)["auc"].mean()


def plot_learning_curves(kept: pd.DataFrame, live: pd.DataFrame) -> np.ndarray:
    """Notebook 04: draw AUC over the number of cells, and over the number of subjects with the same number of cells.

    Lines: synthetic cells from `load_learning_curve`; marks of their own: `evaluate_learning_curve` on these data.
    """
    _, axes = plt.subplots(1, 2, figsize=(9.4, 3.8), sharey=True)
    ceiling = kept.loc[kept["curve"] == "both", ["technique", "auc"]].iloc[0]
    for ax, x, label in zip(axes, ("cells", "subjects"), ("training cells", "subjects they come from"), strict=True):
        rows = kept[kept["curve"] == x].astype({x: int})
        plots.plot_lines(rows, x, "auc", by="technique", xlabel=label, ylabel="AUC on new subjects", log=True, ax=ax)
        ax.axhline(ceiling["auc"], color="0.5", linestyle=":", label=ceiling["technique"])
        ends = rows.groupby("technique", sort=False)["auc"].agg(["first", "last"])
        listed = "; ".join(f"{name} from {row['first']:.2f} to {row['last']:.2f}" for name, row in ends.iterrows())
        plots.describe(ax, f"AUC over {label}: {listed}.")
    own = live[live["technique"] == "pre-trained"]
    axes[0].plot(own["cells"], own["auc"], "D", color="black", markerfacecolor="none", label="pre-trained, here")
    axes[0].legend(fontsize=8)
    axes[1].set_title(f"{rows['cells'].iloc[0]:.0f} cells in all")
    axes[0].set_title("synthetic cells")
    axes[1].legend(fontsize=8)
    return axes


def describe_learning_curves(kept: pd.DataFrame, scores: pd.DataFrame, *, cells: int) -> str:
    """Notebook 04: return what more cells, and more subjects, are worth, in sentences made from the curves.

    `scores` is what `compare_starts` found on `cells` training cells of these data; the curves are held against it.
    """
    by = kept.set_index(["curve", "technique"]).sort_index()
    scratch, ruler, reader = (
        by.loc[("cells", name)].set_index("cells")["auc"] for name in ("from scratch", "area alone", "pre-trained")
    )
    people = by.loc[("subjects", "pre-trained")].set_index("subjects")["auc"]
    few = min(scratch.index, key=lambda count: abs(np.log(count / cells)))
    ahead = scratch.index[scratch > ruler]
    crossing = f"It takes **{ahead.min():,.0f} cells** to be ahead" if len(ahead) else "It is never ahead here"
    here = scores["value"]
    standing = "ahead" if here["from scratch"] > here.iloc[0] else "behind"
    words = [
        f"From scratch, the curve has {scratch.iloc[0]:.2f} after {scratch.index[0]:.0f} cells, where the ruler has "
        f"{ruler.iloc[0]:.2f}. {crossing}, and with {scratch.index[-1]:,.0f} cells it has {scratch.iloc[-1]:.2f}: the "
        "architecture is not bad, examples are wanting.",
        f"With {few:,.0f} cells, nearest to your {cells:,}, it is {scratch[few]:.2f} against {ruler[few]:.2f}. On your "
        f"own test part, further up, it was {standing}: {here['from scratch']:.2f} against {here.iloc[0]:.2f}. That "
        "was one training and one ruler on few subjects; the curves are measured on many more.",
        f"The reader of learned layers has {reader.iloc[0]:.2f} after {reader.index[0]:.0f} cells and "
        f"{reader.iloc[-1]:.2f} after {reader.index[-1]:,.0f}.",
        f"With **the same number of cells** it has {people.iloc[0]:.2f} where they come from {people.index[0]:.0f} "
        f"subjects, {people.iloc[-1]:.2f} where each comes from another.",
    ]
    return "\n".join(f"- {sentence}" for sentence in words)


def evaluate_weighing(
    draw_numbers: Callable[..., pd.DataFrame], *, subject_effect: float = 1.0, seeds: Iterable[int] = range(16)
) -> pd.DataFrame:
    """Notebook 05: compare weights by image with weights by subject where the truth is known, on simulated numbers.

    As in C-NMC, three subjects of each class have most of the cells: 60 each, and seventeen have five. A logistic
    regression learns with either weights; the truth is its AUC on sixty new subjects with ten cells each. Then a dozen
    classifiers that see five random traits each are measured on a validation part of the same kind, by image and by
    subject: how well does each measure put them into the order of their true AUC?

    `draw_numbers` is that of `allkit.synthetic`. One row per seed: AUC on new subjects trained `by image` and
    `by subject`; `order by image`, `order by subject` (Spearman's correlation with the truth).
    """
    rows = []
    for seed in track(list(seeds), f"subject effect {subject_effect:g}"):
        draw = partial(draw_numbers, subject_effect=subject_effect, difficulty=_DIFFICULTY, seed=seed)
        rows.append({"seed": seed, **_weigh_once(draw, seed)})
    return pd.DataFrame(rows)


def _weigh_once(draw: Callable[..., pd.DataFrame], seed: int) -> dict[str, float]:
    train = pd.concat([draw(3, 60), draw(17, 5, first_subject=500)], ignore_index=True)
    validation = pd.concat([draw(3, 30, first_subject=2000), draw(8, 5, first_subject=2500)], ignore_index=True)
    new = draw(60, 10, first_subject=1000)
    traits = [name for name in train.columns if name not in COLUMNS]
    ways = {f"by {weigh}": sample_weights(train, weigh) for weigh in ("image", "subject")}
    found = {way: _auc(_fit(train, traits, weights), new, traits) for way, weights in ways.items()}
    rng, measured = np.random.default_rng(seed), []
    for _ in range(_CANDIDATES):
        some = list(rng.choice(traits, 5, replace=False))
        classifier = _fit(train, some, ways["by subject"])
        by = [_auc(classifier, validation, some, sample_weights(validation, weigh)) for weigh in ("image", "subject")]
        measured.append([*by, _auc(classifier, new, some)])
    image, subject, truth = np.array(measured).T
    return found | {"order by image": spearmanr(image, truth)[0], "order by subject": spearmanr(subject, truth)[0]}


def _fit(rows: pd.DataFrame, names: list[str], weights: np.ndarray):
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return classifier.fit(rows[names], rows["label"], logisticregression__sample_weight=weights)


def _auc(classifier, rows: pd.DataFrame, names: list[str], weights: np.ndarray | None = None) -> float:
    classes = list(class_order(rows))
    truth = rows["label"].map(classes.index).to_numpy()
    scores = classifier.predict_proba(rows[names])[:, [list(classifier.classes_).index(name) for name in classes]]
    return roc_auc(truth, scores, np.ones(len(rows)) if weights is None else weights)


def summarise_weighing(found: pd.DataFrame) -> pd.DataFrame:
    """Notebook 05: return AUC on new subjects and order, by image and by subject, and the gain."""
    rows = {}
    for name, prefix in {"AUC on new subjects": "by", "order of the candidates": "order by"}.items():
        image, subject = found[f"{prefix} image"], found[f"{prefix} subject"]
        gain = subject - image
        rows[name] = {"by image": image.mean(), "by subject": subject.mean(), "gain": gain.mean(), "error": gain.sem(),
                      "subject is ahead in": (gain > 0).mean()}  # fmt: skip
    return pd.DataFrame(rows).T


def describe_weighing(table: pd.DataFrame) -> str:
    """Notebook 05: return which way of counting is better at what, by two standard errors, as a list."""
    lines = []
    for name, row in table.iterrows():
        sure = abs(row["gain"]) > 2 * row["error"]
        better = ("subjects" if row["gain"] > 0 else "images") if sure else "*inconclusive*"
        share = f"in {row['subject is ahead in']:.0%} of the repetitions subjects are ahead"
        lines.append(f"- {name}: {better} ({row['gain']:+.3f} ± {2 * row['error']:.3f}; {share})")
    return "\n".join(lines)
