"""Cheap classifiers on a few numbers per cell: baselines that a network must beat, and probes for leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from allkit.data import class_order
from allkit.models import TrainedModel, build_model, predict_images

if TYPE_CHECKING:
    import pandas as pd

    from allkit.splits import Split

HAND_MADE = ["area", "eccentricity", "solidity", "mean_r", "mean_g", "mean_b", "std_b", "texture", "corr_4"]
"""Descriptors of one cell (see `allkit.features`) that the classical techniques learn from."""


def evaluate_one_number(split: Split) -> tuple[str, pd.DataFrame]:
    """Return the simplest baseline that a network must beat, by name, and its test predictions.

    A threshold on one number, fitted to the training part (logistic regression, classes weighted equally):
    the cell's area, or the mean of green where images are not single cells on black, which have no area.
    """
    from allkit.features import measure_cells

    cells = [measure_cells(part) for part in (split.train, split.test)]
    name = one_number(cells[0])
    predictions = _fit_predict(_threshold(), [c[[name]] for c in cells], split)
    return f"{name.replace('mean_g', 'mean green')} alone", predictions


def one_number(cells: pd.DataFrame) -> str:
    """Return the column to use when one number has to do: "area" for cells on black, else "mean_g"."""
    return "area" if cells["background_share"].median() > 0.05 else "mean_g"


def _threshold() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))


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

    Always the largest class; a threshold on one number (see `evaluate_one_number`); a support vector machine
    and a decision tree on a few hand-made descriptors; logistic regression on the features of a frozen
    MobileNet, of ImageNet where `weights` says so, otherwise random ones. All learn from the training part only.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    from allkit.features import measure_cells

    cells = [measure_cells(part) for part in (split.train, split.test)]
    nothing, shape = [c[["area"]] for c in cells], [c[HAND_MADE] for c in cells]
    deep = _frozen_features(split, image_size, crop, weights, alpha, seed)
    name, by_number = evaluate_one_number(split)
    even = {"class_weight": "balanced", "random_state": seed}
    logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=2000, **even))
    machine = make_pipeline(StandardScaler(), SVC(**even))
    kind = {"imagenet": "ImageNet", None: "random"}.get(weights, "given")
    return {
        "largest class": _fit_predict(DummyClassifier(), nothing, split),
        name: by_number,
        "SVM, hand-made features": _fit_predict(machine, shape, split),
        "decision tree, hand-made features": _fit_predict(
            DecisionTreeClassifier(max_depth=4, min_samples_leaf=5, **even), shape, split
        ),
        f"logistic regression, frozen {kind} features": _fit_predict(logistic, deep, split),
    }


def _fit_predict(classifier, features: list, split: Split) -> pd.DataFrame:
    classifier.fit(np.asarray(features[0]), split.train["label"])
    proba = _probabilities(classifier, np.asarray(features[1]))
    table = split.test[["path", "label", "subject", "group"]].reset_index(drop=True)
    for name in class_order(split.train["label"]):
        table[f"p_{name}"] = proba[:, list(classifier.classes_).index(name)]
    return table


def _probabilities(classifier: Any, features: np.ndarray) -> np.ndarray:
    """Return class scores, (n, classes), that sum to 1: probabilities, or squashed distances for an SVM."""
    from scipy.special import softmax

    if hasattr(classifier, "predict_proba"):
        return classifier.predict_proba(features)
    distance = classifier.decision_function(features)
    return softmax(np.column_stack([-distance, distance]) if distance.ndim == 1 else distance, axis=1)


def _frozen_features(split, image_size, crop, weights, alpha, seed) -> list[np.ndarray]:
    """Return average-pooled features, float32 (n, channels), of the training and the test part."""
    from allkit.images import load_images
    from allkit.models import import_keras

    keras = import_keras()
    model = build_model("mobilenet", image_size, weights=weights, alpha=alpha, pooling="avg", seed=seed)
    features = keras.Model(model.input, model.get_layer("head_pool").output)
    wrapped = TrainedModel(features, {"classes": range(features.output_shape[-1])})
    parts = (split.train, split.test)
    return [predict_images(wrapped, load_images(part, image_size=image_size, crop=crop)) for part in parts]
