"""The learning curves of notebook 04, on synthetic cells: `make results` writes docs/results/learning-curve.csv.

How well a network does on new subjects when it learns from few or many cells, and from few or many subjects with the
same number of cells. Thousands of cells are drawn for it; needs no genuine images, and about half an hour.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from allkit import saving
from allkit.augment import augment_batch
from allkit.backend import keras
from allkit.classical import build_baseline
from allkit.evaluate import roc_auc
from allkit.images import CELL_SIDE, prepare_image
from allkit.models import FusedNetwork, build_model
from allkit.progress import track
from allkit.synthetic.cells import draw_cell, ideal_log_odds
from allkit.train import build_from_profile, get_profile

FILE = Path(__file__).parent / "results" / "learning-curve.csv"

CELLS = (48, 96, 192, 480, 960, 1920, 4800)
"""Training cells of the first curve, always five of each subject or more."""

SUBJECTS = (4, 8, 12, 24, 48, 120, 240)
"""Subjects of the second curve."""

CELLS_EACH = 20
"""Cells of each of the many subjects."""

SAME = 240
"""Training cells of the second curve, however many subjects they come from."""

SEEDS = (1, 2, 3)

MOST_SCRATCH = 480
"""With more cells than this, a network is trained from scratch with one seed only: it takes minutes."""


@dataclass(frozen=True)
class Cells:
    """Drawn cells: images uint8 (n, 96, 96, 3), whether they are ALL, area in pixels, ideal log-odds, subject."""

    images: np.ndarray
    positive: np.ndarray
    area: np.ndarray
    ideal: np.ndarray
    subject: np.ndarray

    def take(self, rows: np.ndarray) -> Cells:
        """Return some of the cells."""
        return Cells(*(getattr(self, name)[rows] for name in ("images", "positive", "area", "ideal", "subject")))


def draw(kind: str, subjects: int, cells: int) -> Cells:
    """Draw `cells` of each of `subjects` people in each class."""
    wanted = [
        (label, f"{kind}-{label}-{k}", number)
        for label in ("ALL", "HEM")
        for k in range(subjects)
        for number in range(cells)
    ]

    def one(key: tuple[str, str, int]) -> tuple:
        label, subject, number = key
        cell = draw_cell(label, subject=subject, number=number)
        odds = ideal_log_odds(label, subject, number, 0, 1.0, 1.0)
        return prepare_image(cell.image, 96, CELL_SIDE), label == "ALL", cell.cues["area"], odds, subject

    with ThreadPoolExecutor() as pool:
        found = list(track(pool.map(one, wanted), f"drawing {kind} cells", total=len(wanted)))
    images, *others = zip(*found, strict=True)
    return Cells(np.stack(images), *(np.array(values) for values in others))


def choose(pool: Cells, cells: int, subjects: int, seed: int) -> np.ndarray:
    """Return rows of so many cells from so many subjects, both classes alike."""
    rng, rows = np.random.default_rng(seed), []
    for positive in (True, False):
        names = rng.permutation(np.unique(pool.subject[pool.positive == positive]))[: subjects // 2]
        each = cells // subjects
        rows += [rng.permutation(np.flatnonzero(pool.subject == name))[:each] for name in names]
    return np.concatenate(rows)


def auc(scores: np.ndarray, test: Cells) -> float:
    """Return the area under the ROC curve of some scores for ALL on the test cells."""
    return roc_auc((~test.positive).astype(int), np.column_stack([scores, -scores]), np.ones(len(scores)))


def read_features(network: FusedNetwork, images: np.ndarray) -> np.ndarray:
    """Return what the frozen layers make of the images."""
    return np.concatenate([network.features(images[k : k + 64]) for k in range(0, len(images), 64)])


def from_scratch(train: Cells, test: Cells, seed: int) -> float:
    """Train MobileNet from random weights, as the profile quick does, and return its AUC on the test cells."""
    profile = get_profile("quick", "mobilenet", weights="none", image_size=96)
    model = build_from_profile("mobilenet", profile, 2, seed=seed)
    model.compile(keras.optimizers.Adamax(profile.learning_rate), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(seed)
    for epoch in range(profile.epochs):
        order = rng.permutation(len(train.images))
        for k in range(0, len(order), profile.batch_size):
            rows = order[k : k + profile.batch_size]
            images = augment_batch(train.images[rows], profile.augmentation, seed=(seed, epoch, k))
            model.train_on_batch(np.asarray(images, np.float32), (~train.positive[rows]).astype(int))
    return auc(model.predict(test.images.astype(np.float32), verbose=0, batch_size=64)[:, 0], test)


def measure(many: Cells, few: Cells, test: Cells) -> pd.DataFrame:
    """Return one row for each training: curve, technique, cells, subjects, seed, auc.

    `many` holds few cells each of many subjects, `few` many cells each of few.
    """
    network = FusedNetwork(build_model("mobilenet", 96, weights="drawn", depths="several"))
    features = {id(cells): read_features(network, cells.images) for cells in (many, few, test)}
    rows = [{"curve": "both", "technique": "knows how each cell was drawn", "auc": auc(test.ideal, test)}]
    plan = [("cells", n, min(len(np.unique(many.subject)), n // 5 // 2 * 2)) for n in CELLS]
    plan += [("subjects", SAME, n) for n in SUBJECTS]
    for curve, cells, subjects in track(plan, "learning curves"):
        pool = many if cells // subjects <= CELLS_EACH else few
        for seed in SEEDS:
            chosen = choose(pool, cells, subjects, seed)
            facts = {"curve": curve, "cells": len(chosen), "subjects": subjects, "seed": seed}
            for name, values, of_test in (
                ("pre-trained", features[id(pool)][chosen], features[id(test)]),
                ("area alone", pool.area[chosen, None], test.area[:, None]),
            ):
                classifier = build_baseline("logistic regression", C=0.001 if values.shape[1] > 100 else 1.0)
                classifier.fit(values, pool.positive[chosen])
                score = classifier.decision_function(of_test)
                rows.append(facts | {"technique": name, "auc": auc(score, test)})
            if curve == "cells" and (cells <= MOST_SCRATCH or seed == SEEDS[0]):
                rows.append(facts | {"technique": "from scratch", "auc": from_scratch(pool.take(chosen), test, seed)})
            save(rows)
    return pd.DataFrame(rows)


def save(rows: list[dict]) -> None:
    """Write what there is so far."""
    table = pd.DataFrame(rows).astype({"cells": "Int64", "subjects": "Int64", "seed": "Int64"})
    with saving(FILE) as temporary:
        table[["curve", "technique", "cells", "subjects", "seed", "auc"]].round({"auc": 4}).to_csv(
            temporary, index=False
        )


if __name__ == "__main__":
    measure(draw("learn", 120, CELLS_EACH), draw("few", 12, 60), draw("test", 50, 10))
