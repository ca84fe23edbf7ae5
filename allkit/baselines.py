"""Cheap classifiers on a few numbers per cell: baselines that a network must beat, and instruments that find leaks.

A baseline is trained in a moment, so that the same question can be asked under many splits and seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from allkit import AllkitError
from allkit.augment import apply_augmentation, background_colour, load_part
from allkit.backend import keras
from allkit.data import class_order
from allkit.features import FEATURES, measure_cell, measure_cells, measure_files
from allkit.images import BACKGROUND_LEVEL, read_image, to_common_size
from allkit.models import BACKBONES, FusedNetwork, build_model, load_features
from allkit.splits import Split, sample_weights

HAND_MADE = ["area", "eccentricity", "solidity", "mean_r", "mean_g", "mean_b", "std_b", "texture", "corr_4"]
"""Descriptors of one cell (see `allkit.features`) that the classical techniques learn from."""

DEPTHS = BACKBONES["mobilenet"].depths
"""Layers of MobileNet, from simple to complex shapes, whose features are taken together as "three depths"."""


def row_keys(rows: pd.DataFrame) -> pd.Series:
    """Return what a row's numbers are found by: its path, and for the copies of a balanced part how it is changed."""
    return rows["path"] + "|" + rows["augmentation"] if "augmentation" in rows else rows["path"] + "|"


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


def build_baseline(name: str, *, wide: bool = False, seed: int = 123) -> Any:
    """Build an untrained baseline: a scikit-learn pipeline that standardises first.

    "logistic regression" weighs numbers and cannot remember a cell; "nearest neighbours" does nothing but remember
    (5 neighbours, the closer the louder); then "SVM" and "decision tree". `wide`: there are hundreds of numbers, so
    regularise strongly.
    """
    even = {"class_weight": "balanced", "random_state": seed}
    classifiers = {
        "logistic regression": LogisticRegression(C=0.001 if wide else 1.0, max_iter=2000, **even),
        "nearest neighbours": KNeighborsClassifier(5, weights="distance"),
        "SVM": SVC(**even),
        "decision tree": DecisionTreeClassifier(max_depth=4, min_samples_leaf=5, **even),
    }
    if name not in classifiers:
        raise AllkitError(f"there is no baseline {name!r}; choose one of {', '.join(classifiers)}.")
    return make_pipeline(StandardScaler(), classifiers[name])


def evaluate_baseline(
    train: pd.DataFrame,
    test: pd.DataFrame,
    numbers: pd.DataFrame,
    baseline: str = "logistic regression",
    *,
    by_subject: bool = False,
    seed: int = 123,
) -> pd.DataFrame:
    """Train a baseline (see `build_baseline`) on some rows and return its predictions table of others.

    `numbers` holds what it sees of each cell, by `row_keys`. `by_subject` weights the images as `sample_weights` does,
    so that three subjects with many cells do not outvote the rest; for logistic regression only.
    """
    classifier = build_baseline(baseline, wide=numbers.shape[1] > 100, seed=seed)
    weights = {"logisticregression__sample_weight": sample_weights(train)} if by_subject else {}
    learned, tested = (numbers.loc[row_keys(rows)].to_numpy() for rows in (train, test))
    classifier.fit(learned, train["label"], **weights)
    return _predictions(classifier, tested, test, class_order(train))


def _predictions(classifier: Any, features: np.ndarray, rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    table = rows[["path", "label", "subject", "group"]].reset_index(drop=True)
    probabilities = _probabilities(classifier, features)
    for name in classes:
        table[f"p_{name}"] = probabilities[:, list(classifier.classes_).index(name)]
    return table


def _probabilities(classifier: Any, features: np.ndarray) -> np.ndarray:
    """Return class scores, (n, classes), that sum to 1: probabilities, or squashed distances for an SVM."""
    if hasattr(classifier, "predict_proba"):
        return classifier.predict_proba(features)
    distance = classifier.decision_function(features)
    return softmax(np.column_stack([-distance, distance]) if distance.ndim == 1 else distance, axis=1)


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
        "largest class": _predictions(largest, split.test[["path"]], split.test, class_order(split.train)),
        name: by_number,
        "SVM, hand-made features": evaluate_baseline(*parts, shape, "SVM", seed=seed),
        "decision tree, hand-made features": evaluate_baseline(*parts, shape, "decision tree", seed=seed),
        f"logistic regression, frozen {kind} features": evaluate_baseline(*parts, deep, seed=seed),
    }
