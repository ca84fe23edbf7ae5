"""Cheap classifiers on a few numbers per cell: baselines that a network must beat, and instruments that find leaks.

A baseline is trained in a moment, so that the same question can be asked under many splits and seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import t as student_t
from sklearn.dummy import DummyClassifier

from allkit import AllkitError
from allkit.augment import apply_augmentation, background_colour, load_part
from allkit.backend import keras
from allkit.classical import evaluate_baseline, predict_with, row_keys
from allkit.data import class_order
from allkit.evaluate import evaluate_predictions
from allkit.features import FEATURES, measure_cell, measure_cells, measure_files
from allkit.images import BACKGROUND_LEVEL, read_image, to_common_size
from allkit.models import BACKBONES, FusedNetwork, build_model, load_features
from allkit.splits import Split, fewest_groups, grouped_folds

HAND_MADE = ["area", "eccentricity", "solidity", "mean_r", "mean_g", "mean_b", "std_b", "texture", "corr_4"]
"""Descriptors of one cell (see `allkit.features`) that the classical techniques learn from."""

DEPTHS = BACKBONES["mobilenet"].depths
"""Layers of MobileNet, from simple to complex shapes, whose features are taken together as "three depths"."""


def measure_numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """Measure the cells of some rows, and the copies among them (see `allkit.augment.balance`).

    The columns `FEATURES`, float64, one row per different cell or copy, by `row_keys`.
    """
    rows = rows.assign(key=row_keys(rows)).drop_duplicates("key")
    copied = rows["key"].str.rpartition("|")[2] != ""
    found = measure_cells(rows[~copied]).set_axis(rows["key"][~copied])
    if copied.any():
        copies = rows[copied]
        made = measure_files(_measure_copy, copies["path"], more=copies["augmentation"])
        found = pd.concat([found, made.set_axis(copies["key"])])
    return found[list(FEATURES)]


def _measure_copy(path: str, spec: str) -> dict[str, float]:
    return measure_cell(apply_augmentation(to_common_size(read_image(path)), spec))


def frozen_features(
    rows: pd.DataFrame,
    *,
    image_size: int = 96,
    crop: int | None = 300,
    weights: str | None = None,
    alpha: float = 0.75,
    layers: Sequence[str] = DEPTHS[-1:],
    adapt_by: str | None = None,
    seed: int = 123,
) -> pd.DataFrame:
    """Return average-pooled features of a MobileNet that is not trained on these cells, computed once for each cell.

    `weights`: None (random, from `seed`), "imagenet" or "drawn"; the pooled outputs of `layers` are put side by side.
    float32, one row per different cell or copy by `row_keys`, columns "<layer>-<channel>". `adapt_by` names a column,
    such as that of the hospital: for each of its values batch normalisation takes its statistics anew, from at most
    256 of its images, and the value stands before the keys, as the first level of the index.
    """
    rows = rows.assign(key=row_keys(rows)).drop_duplicates(["key", adapt_by] if adapt_by else "key")
    # with momentum 0, one pass in training mode replaces the statistics of batch normalisation by the batch's
    model = build_model("mobilenet", image_size, weights=weights, alpha=alpha, pooling="avg", momentum=0.0, seed=seed)
    pooled = [keras.layers.GlobalAveragePooling2D()(model.get_layer(name).output) for name in layers]
    names = [f"{name}-{k}" for name, part in zip(layers, pooled, strict=True) for k in range(part.shape[-1])]
    joined = keras.layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    network, size = FusedNetwork(keras.Model(model.input, joined)), {"image_size": image_size, "crop": crop}
    if adapt_by is None:
        return pd.DataFrame(load_features(network, rows, **size), pd.Index(rows["key"]), names)
    tables = {}
    for value, part in rows.groupby(adapt_by, sort=False):
        some = part.sample(min(256, len(part)), random_state=seed)
        network.network(load_part(some, **size).astype(np.float32), training=True)
        tables[value] = pd.DataFrame(load_features(network, part, **size), pd.Index(part["key"]), names)
    return pd.concat(tables)


def single_feature_baseline(split: Split) -> tuple[str, pd.DataFrame]:
    """Return the simplest baseline that a network must beat, by name, and its test predictions.

    A threshold on one number, fitted to the training part (logistic regression, classes weighted equally):
    the cell's area, or the mean of green where images are not single cells on black, which have no area.
    """
    numbers = measure_numbers(train_and_test(split))
    name = choose_single_feature(numbers)
    return f"{name.replace('mean_g', 'mean green')} alone", evaluate_baseline(split.train, split.test, numbers[[name]])


def is_on_black(image: np.ndarray) -> bool:
    """Return whether an image, uint8 (h, w, 3), shows something on a black background."""
    return bool(background_colour(image).max() <= BACKGROUND_LEVEL)


def train_and_test(split: Split) -> pd.DataFrame:
    """Return the rows of the training and the test part, with the column `augmentation`."""
    return pd.concat([split.train, split.test]).fillna({"augmentation": ""})


def choose_single_feature(cells: pd.DataFrame) -> str:
    """Return the column to use when one number has to do: "area" for cells on black, else "mean_g"."""
    return "area" if cells["background_share"].median() > 0.05 else "mean_g"


def evaluate_baselines(
    split: Split,
    *,
    image_size: int = 96,
    crop: int | None = 300,
    weights: str | None = None,
    alpha: float = 0.75,
    seed: int = 123,
) -> dict[str, pd.DataFrame]:
    """Train the existing techniques (paper, objective 2) and return their predictions on the test images.

    Always the largest class; a threshold on one number (see `single_feature_baseline`); a support vector machine
    and a decision tree on a few hand-made descriptors; logistic regression on the features of a frozen
    MobileNet, of ImageNet where `weights` says so, otherwise random ones. All learn from the training part only.
    """
    parts, rows = (split.train, split.test), train_and_test(split)
    shape = measure_numbers(rows)[HAND_MADE]
    deep = frozen_features(rows, image_size=image_size, crop=crop, weights=weights, alpha=alpha, seed=seed)
    name, by_number = single_feature_baseline(split)
    largest = DummyClassifier().fit(split.train[["path"]], split.train["label"])
    kind = {"imagenet": "ImageNet", None: "random"}.get(weights, weights)
    return {
        "largest class": predict_with(largest, split.test[["path"]], split.test, class_order(split.train)),
        name: by_number,
        "SVM, hand-made features": evaluate_baseline(*parts, shape, "SVM", seed=seed),
        "decision tree, hand-made features": evaluate_baseline(*parts, shape, "decision tree", seed=seed),
        f"logistic regression, frozen {kind} features": evaluate_baseline(*parts, deep, seed=seed),
    }


def estimate_inflation(
    index: pd.DataFrame, numbers: pd.DataFrame, *, seeds: Sequence[int] = range(2), folds: int = 5
) -> pd.DataFrame:
    """Return how much a split promises too much: the AUC of baselines that learned as `given` says, and by subject.

    Of the images tested on, a fold of people at a time: once by what learned from the given training part, once by
    what learned from as many images of other people only (groups are kept together). `numbers` as in
    `evaluate_baseline`. Columns as given, by subject, value (their difference), low, high (95 %, each fold of people
    counting once), verdict; one row per baseline. AllkitError: subjects unknown, or too few.
    """
    rows = index[index["label"].notna() & index["given"].notna()].reset_index(drop=True)
    if rows["subject"].isna().any():
        raise AllkitError("Subjects are unknown, so it cannot be said what a split by subject would give.")
    train, part = rows["given"] == "train", "test" if "test" in set(rows["given"]) else "validation"
    tested = rows["given"] == part
    if fewest_groups(rows) < 2 or rows["label"].nunique() != 2 or rows.loc[train, "label"].nunique() != 2:
        raise AllkitError("It takes two classes, each with two subjects or more, to compare with a split by subject.")
    found = []
    for baseline in ("logistic regression", "nearest neighbours"):
        given = evaluate_baseline(rows[train], rows[tested], numbers, baseline).set_axis(rows.index[tested])
        for seed in seeds:
            for fold, (others, held) in enumerate(grouped_folds(rows, folds, seed=seed)):
                own = held.index.intersection(given.index)
                if rows.loc[own, "label"].nunique() == 2:
                    others = others.sample(min(len(others), int(train.sum())), random_state=seed)
                    aucs = [evaluate_predictions(table)["auc"] for table in
                            (given.loc[own], evaluate_baseline(others, rows.loc[own], numbers, baseline))]  # fmt: skip
                    found.append((baseline, seed, fold, *aucs))
    table = pd.DataFrame(found, columns=["baseline", "seed", "fold", "as given", "by subject"])
    if table.empty:
        raise AllkitError("Too few images are tested on to compare with a split by subject.")
    return _summarise_inflation(table)


def _summarise_inflation(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean difference, and its interval as if each fold of people counted once, whatever the seeds."""
    table = table.assign(value=table["as given"] - table["by subject"])
    of = table.groupby("baseline", sort=False)
    means, people = of[["as given", "by subject", "value"]].mean(), of["fold"].nunique()
    error = student_t.ppf(0.975, people - 1) * of["value"].std() / np.sqrt(people)
    means["low"], means["high"] = means["value"] - error, means["value"] + error
    sides = [means["low"] > 0, means["high"] < 0]
    return means.assign(verdict=np.select(sides, ["promises too much", "promises too little"], "inconclusive"))
