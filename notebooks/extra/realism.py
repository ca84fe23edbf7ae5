"""Beside `twin_report.ipynb`: how close the synthetic twin comes to genuine cells.

Two-sample tests, a classifier that distinguishes both, and transfer. Cells of one subject resemble each other, so
wherever chance is weighed here whole subjects are moved about, never single cells.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import expit
from scipy.stats import ks_2samp, mannwhitneyu
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from allkit import AllkitError, cache_folder, plots, saving
from allkit.evaluate import FEWEST_UNITS
from allkit.features import FEATURES, measure_cells
from allkit.runs import SYNTHETIC, load_data
from allkit.synthetic.cells import VERSION, draw_cell

DESCRIPTORS = tuple(name for name in FEATURES if name != "background_share")
"""The descriptors that are compared; the share of background is the area once more, in other words."""

LEARNERS = ("logistic regression", "random forest", "support vector machine")
"""What tries to distinguish the twin from genuine cells: one that draws a straight line, and two that do not."""

FEWEST_CELLS = 10
"""With fewer cells of a subject than this, no figure is given for that subject alone."""

PERMUTATIONS = 999


def load_genuine(data: str | Path) -> pd.DataFrame:
    """Return the labelled training images of a genuine C-NMC 2019, as `allkit.data.load_index` does."""
    index = None if str(data) in ("", SYNTHETIC) else load_data(data)
    if index is None or index["source"].iat[0] == SYNTHETIC:
        raise AllkitError(
            "the twin is compared with genuine cells: give the folder of C-NMC 2019 as `data`."
        )
    index = index[
        (index["part"] == "train") & index["subject"].notna()
    ].reset_index(drop=True)
    if set(index["label"]) != {"ALL", "HEM"}:
        raise AllkitError(
            f"{data} does not hold ALL and HEM cells of known subjects; give the folder of C-NMC 2019."
        )
    return index


def sample_cells(
    index: pd.DataFrame, per_subject: int, seed: int = 123
) -> pd.DataFrame:
    """Return at most `per_subject` images of each subject, drawn at random, in the order of the index."""
    drawn = (
        index.sample(frac=1, random_state=seed)
        .groupby("subject")
        .head(per_subject)
    )
    return drawn.sort_index().reset_index(drop=True)


def draw_counterparts(cells: pd.DataFrame) -> pd.DataFrame:
    """Draw a synthetic cell for each genuine one: same class, same name of the subject, nothing else.

    Returns `cells` with the paths of the drawn files, kept in the cache from one time to the next.
    """
    folder = cache_folder() / f"twin-{VERSION}-0"
    folder.mkdir(parents=True, exist_ok=True)
    numbers = cells.groupby("subject").cumcount()
    work = [
        (
            label,
            subject,
            number,
            folder / f"{subject}_{number}_{label.lower()}.png",
        )
        for label, subject, number in zip(
            cells["label"], cells["subject"], numbers, strict=True
        )
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda one: _draw_one(*one), work))
    return cells.assign(
        path=[str(path) for *_, path in work], source=SYNTHETIC
    )


def _draw_one(label: str, subject: str, number: int, path: Path) -> None:
    if not path.is_file():
        image = draw_cell(
            label, subject=subject, number=int(number), seed=0
        ).image
        with (
            saving(path) as temporary
        ):  # a file half written would be taken for a cell the next time
            Image.fromarray(image).save(temporary, compress_level=1)


def measure_both(
    genuine: pd.DataFrame, synthetic: pd.DataFrame
) -> pd.DataFrame:
    """Return both samples in one table: their rows, `origin` ("genuine" or "synthetic"), and `FEATURES`."""
    cells = pd.concat(
        [genuine.assign(origin="genuine"), synthetic.assign(origin=SYNTHETIC)],
        ignore_index=True,
    )
    return pd.concat([cells, measure_cells(cells)], axis=1)


def compare_descriptors(
    cells: pd.DataFrame, *, seed: int = 123
) -> pd.DataFrame:
    """Compare synthetic with genuine cells (`measure_both`), one descriptor and one class at a time.

    One row per class and descriptor: means `genuine` and `synthetic`; `difference` in standard deviations of the
    genuine cells; `ks`, the Kolmogorov-Smirnov statistic (largest gap between both cumulative distributions, 0 to 1);
    `auc`, how often a synthetic cell has the larger value (0.5: no difference); `p_cells`, as if cells were
    independent, which they are not; `p_subjects`, by permuting whole subjects, NaN with fewer than `FEWEST_UNITS`
    subjects; `subjects`, the smaller number.
    """
    rng = np.random.default_rng(seed)
    rows = [
        {"label": label, "descriptor": name, **_compare(of_class, name, rng)}
        for label, of_class in cells.groupby("label")
        for name in DESCRIPTORS
    ]
    return pd.DataFrame(rows)


def _compare(
    cells: pd.DataFrame, name: str, rng: np.random.Generator
) -> dict[str, float]:
    drawn = (cells["origin"] == SYNTHETIC).to_numpy()
    values = cells[name].to_numpy(float)
    genuine, synthetic = values[~drawn], values[drawn]
    found = ks_2samp(genuine, synthetic, method="asymp")
    owners = (cells["origin"] + " " + cells["subject"]).to_numpy(str)
    subjects = min(
        len(np.unique(owners[drawn])), len(np.unique(owners[~drawn]))
    )
    p_subjects, spread = np.nan, genuine.std()
    if subjects >= FEWEST_UNITS:
        gaps = permuted_gaps(values, drawn, owners, rng)
        # the one found counts as one of all; rounding must not make equal gaps differ
        p_subjects = float((gaps >= gaps[0] - 1e-6).mean())
    return {
        "genuine": genuine.mean(),
        "synthetic": synthetic.mean(),
        "difference": (synthetic.mean() - genuine.mean()) / spread
        if spread
        else 0.0,
        "ks": found.statistic,
        "auc": mannwhitneyu(synthetic, genuine).statistic
        / (len(synthetic) * len(genuine)),
        "p_cells": found.pvalue,
        "p_subjects": p_subjects,
        "subjects": subjects,
    }


def permuted_gaps(
    values: np.ndarray,
    drawn: np.ndarray,
    owners: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the Kolmogorov-Smirnov statistic found, then those when subjects change their origin at random.

    `drawn`, bool (n,): which values are of the twin; `owners`, str (n,): whose they are. float (1 + PERMUTATIONS,).
    """
    names, owner = np.unique(owners, return_inverse=True)
    order = np.argsort(values)
    # cells of each subject up to each value; only the last of equal values closes a step
    steps = np.cumsum(
        owner[order] == np.arange(len(names))[:, None],
        axis=1,
        dtype=np.float32,
    )
    steps = steps[:, np.append(np.diff(values[order]) > 0, True)]
    is_drawn = np.zeros(len(names), dtype=np.float32)
    is_drawn[owner[drawn]] = 1
    permuted = np.stack(
        [is_drawn, *(rng.permutation(is_drawn) for _ in range(PERMUTATIONS))]
    )
    first, second = permuted @ steps, (1 - permuted) @ steps
    return np.abs(first / first[:, -1:] - second / second[:, -1:]).max(axis=1)


def predict_origin(
    cells: pd.DataFrame, learner: str, *, seed: int = 123
) -> pd.DataFrame:
    """Let a learner distinguish synthetic from genuine cells by their descriptors, on subjects it has not seen.

    Five folds; a subject and its synthetic namesake are in the same one. Returns a predictions table whose classes
    are "synthetic" and "genuine"; its groups keep a subject and its namesake apart, so that both are drawn by
    themselves for an interval.
    """
    labels = cells["origin"].to_numpy(str)
    values = cells[list(DESCRIPTORS)].to_numpy()
    scores = _score_out_of_fold(
        _learner(learner, seed),
        values,
        labels == SYNTHETIC,
        cells["group"],
        seed,
    )
    table = cells[["path", "subject"]].assign(
        label=labels, group=cells["origin"] + " " + cells["group"]
    )
    return table.assign(p_synthetic=scores, p_genuine=1 - scores)


def _learner(name: str, seed: int) -> Any:
    return {
        "logistic regression": make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=2000)
        ),
        "random forest": RandomForestClassifier(
            200, min_samples_leaf=3, random_state=seed
        ),
        "support vector machine": make_pipeline(StandardScaler(), SVC()),
    }[name]


def _score_out_of_fold(
    model: Any,
    values: np.ndarray,
    positive: np.ndarray,
    groups: pd.Series,
    seed: int,
) -> np.ndarray:
    """Return the score of the positive class, 0 to 1, for each row, by a model that never saw its group."""
    subjects = groups.nunique()
    if subjects < FEWEST_UNITS:
        raise AllkitError(
            f"{subjects} subjects are too few to test on subjects not trained on; give at least 5."
        )
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    method = (
        "predict_proba"
        if hasattr(model, "predict_proba")
        else "decision_function"
    )
    found = cross_val_predict(
        model, values, positive, groups=groups, cv=folds, method=method
    )
    return found[:, 1] if found.ndim == 2 else expit(found)


def evaluate_transfer(
    cells: pd.DataFrame,
    values: np.ndarray,
    *,
    strength: float = 1.0,
    seed: int = 123,
) -> dict[str, pd.DataFrame]:
    """Learn ALL and HEM from one kind of cells and test on the other, and on the same kind for comparison.

    Logistic regression, classes weighted equally, on standardised `values`, float (n, d): descriptors or a network's
    features, row by row. `strength` is scikit-learn's C; smaller: simpler. Within one kind, five folds by subject.
    Returns predictions tables by "synthetic → genuine", "genuine → genuine", "synthetic → synthetic".
    """
    regression = LogisticRegression(
        C=strength, max_iter=2000, class_weight="balanced"
    )
    model = make_pipeline(StandardScaler(), regression)
    positive, drawn = (
        (cells["label"] == "ALL").to_numpy(),
        (cells["origin"] == SYNTHETIC).to_numpy(),
    )

    def table(rows: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
        found = cells.loc[
            rows, ["path", "label", "subject", "group"]
        ].reset_index(drop=True)
        return found.assign(p_ALL=scores, p_HEM=1 - scores)

    model.fit(values[drawn], positive[drawn])
    found = {
        "synthetic → genuine": table(
            ~drawn, model.predict_proba(values[~drawn])[:, 1]
        )
    }
    for name, rows in {"genuine": ~drawn, SYNTHETIC: drawn}.items():
        scores = _score_out_of_fold(
            model, values[rows], positive[rows], cells["group"][rows], seed
        )
        found[f"{name} → {name}"] = table(rows, scores)
    return found


def auc_by_subject(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return for each healthy subject how well its cells are distinguished from all ALL cells.

    One row per subject: cells, auc (0 to 1; NaN with fewer than `FEWEST_CELLS` cells).
    """
    others = predictions[predictions["label"] != "HEM"]
    rows = {}
    for subject, own in predictions[predictions["label"] == "HEM"].groupby(
        "subject"
    ):
        both = pd.concat([own, others])
        auc = (
            roc_auc_score(both["label"] == "HEM", both["p_HEM"])
            if len(own) >= FEWEST_CELLS
            else np.nan
        )
        rows[subject] = {"cells": len(own), "auc": auc}
    return (
        pd.DataFrame(rows)
        .T.astype({"cells": int})
        .rename_axis("subject")
        .sort_values("cells", ascending=False)
    )


ORIGINS = {"genuine": plots.BLUE, SYNTHETIC: plots.RED}
"""Colours of genuine and synthetic cells where both are in one figure."""


def plot_origins(
    cells: pd.DataFrame, names: Sequence[str], *, columns: int = 3
) -> np.ndarray:
    """Draw how measurements spread over genuine and over synthetic cells, one panel each; return the array of Axes.

    The lowest and the highest 0.5 percent of the values are not shown.
    """
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.15 * columns, 1.35 * rows + 0.4),
        squeeze=False,
    )
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        bins = np.linspace(*np.quantile(cells[name], [0.005, 0.995]), 25)
        for (origin, colour), style in zip(
            ORIGINS.items(), ("-", "--"), strict=True
        ):
            values = cells.loc[cells["origin"] == origin, name]
            share = np.full(len(values), 100 / len(values))
            ax.hist(
                values,
                bins,
                weights=share,
                histtype="step",
                color=colour,
                linestyle=style,
                label=origin,
            )
        ax.set_title(name, fontsize=9)
        ax.tick_params(labelsize=7)
        ax.set_yticks([])
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=2,
    )
    figure.supylabel("cells (%)", fontsize=9)
    return axes


def plot_gaps(table: pd.DataFrame, value: str, *, xlabel: str) -> plt.Axes:
    """Draw the column `value` of each descriptor and class as marks, the first descriptor at the top."""
    _, ax = plt.subplots(
        figsize=(6.4, 0.8 + 0.26 * table["descriptor"].nunique())
    )
    plots.plot_points(
        table, value, "descriptor", by="label", xlabel=xlabel, ax=ax
    )
    ax.grid(color="0.9")
    return ax
