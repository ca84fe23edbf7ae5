"""What the paper and the literature report, as tables, and what the printed numbers imply.

The tables lie as CSV under `data/paper/`. Accuracies are in percent, as the paper prints them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allkit import ROOT, AllkitError

if TYPE_CHECKING:
    import pandas as pd

FOLDER = ROOT / "data" / "paper"

_FILES = {"mobilenet": ("table1", "fig11"), "efficientnetb3": ("table2", "fig16")}


def _read(name: str) -> pd.DataFrame:
    import pandas as pd

    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        raise AllkitError(f"{path} is missing: restore data/paper from the repository.")
    return pd.read_csv(path)


def _files(model: str) -> tuple[str, str]:
    if model not in _FILES:
        raise AllkitError(f"The paper has no model {model!r}: use one of {', '.join(_FILES)}.")
    return _FILES[model]


def load_table(model: str) -> pd.DataFrame:
    """Load the paper's training table: Table I ("mobilenet") or Table II ("efficientnetb3").

    Returns:
        One row per epoch: `epoch`, `loss`, `accuracy` (training, percent), `val_loss`, `val_accuracy`
        (percent), `lr`, `next_lr`, `monitor` ("accuracy" or "val_loss"), `improvement` (percent), `seconds`.

    Raises:
        AllkitError: the paper has no such model.
    """
    return _read(_files(model)[0])


def load_report(model: str) -> pd.DataFrame:
    """Load the paper's classification report: Fig. 11 ("mobilenet") or Fig. 16 ("efficientnetb3").

    Returns:
        Index `row` ("ALL", "HEM", "accuracy", "macro avg", "weighted avg"); columns `precision`, `recall`,
        `f1_score` (0-1, two decimals as printed; accuracy stands under `f1_score`) and `support` (images).

    Raises:
        AllkitError: the paper has no such model.
    """
    return _read(_files(model)[1]).set_index("row")


def load_reported() -> pd.DataFrame:
    """Load the single figures that the paper states in its text.

    Returns:
        Columns `model` ("" where a figure concerns both), `measure`, `value`, `where` (in the paper) and
        `remark`, which says among others that the accuracies of the text are training accuracies.
    """
    table = _read("reported")
    return table.fillna({"model": "", "remark": ""})


def load_literature() -> pd.DataFrame:
    """Load what other studies report on C-NMC 2019.

    Returns:
        Columns `method`, `measure`, `value` (0-1), `test` (which images), `split` ("by subject" or "by image
        or not stated"), `reference` (arXiv or DOI), `verified` ("abstract": the figure was read in the
        study's own abstract; "second-hand": it was not, so check it before quoting) and `remark`.
    """
    return _read("literature").fillna({"reference": "", "remark": ""})


def possible_counts(accuracy_percent: float, decimals: int, n: int) -> list[int]:
    """List every count of right answers among `n` that prints as a given accuracy.

    A printed accuracy is a fraction k/n in disguise: if no k fits, it was not measured on n images.

    Args:
        accuracy_percent: as printed, 0-100.
        decimals: how many decimals were printed.
        n: number of images.

    Returns:
        All whole k with 100 k / n equal to the printed figure after rounding; may be empty.
    """
    k = np.arange(n + 1)
    return k[_rounds_to(100 * k / n, accuracy_percent, decimals)].tolist()


def _rounds_to(value: np.ndarray, printed: float, decimals: int) -> np.ndarray:
    # A figure halfway between two prints counts as both: how the authors' software rounds is not known.
    return np.abs(value - printed) <= 0.5 * 10.0**-decimals + 1e-9


def reconstruct_confusion(report: pd.DataFrame, *, correct: int | None = None, decimals: int = 2) -> list[np.ndarray]:
    """Find every confusion matrix that prints as a two-class classification report (Figs. 11 and 16).

    The report gives the images per class, so only two numbers are free: how many of each class were
    recognised. All pairs are tried.

    Args:
        report: as from `load_report`: two class rows first, then any of "accuracy", "macro avg" and
            "weighted avg".
        correct: images classified correctly, if that is known as well (paper, section IV).
        decimals: how many decimals the report prints.

    Returns:
        Integer arrays (2, 2), rows true, columns predicted, in the order of the report; may be empty.
    """
    n_first, n_second = (int(n) for n in report["support"].iloc[:2])
    right_first, right_second = np.mgrid[0 : n_first + 1, 0 : n_second + 1]
    scores = _report_scores(right_first, right_second, n_first, n_second)
    fits = np.ones(right_first.shape, dtype=bool)
    for (row, column), value in scores.items():
        name = report.index[row] if isinstance(row, int) else row
        if name in report.index and not np.isnan(report.loc[name, column]):
            fits &= _rounds_to(value, report.loc[name, column], decimals)
    if correct is not None:
        fits &= right_first + right_second == correct
    pairs = zip(right_first[fits].tolist(), right_second[fits].tolist(), strict=True)
    return [np.array([[a, n_first - a], [n_second - d, d]]) for a, d in pairs]


def _report_scores(a: np.ndarray, d: np.ndarray, n_first: int, n_second: int) -> dict:
    """Every cell of a report from the numbers recognised, `a` of the first class and `d` of the second."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(a / (a + n_second - d)), np.nan_to_num(d / (d + n_first - a))
    recall = a / n_first, d / n_second
    f1 = 2 * a / (2 * a + (n_first - a) + (n_second - d)), 2 * d / (2 * d + (n_first - a) + (n_second - d))
    total = n_first + n_second
    scores: dict[tuple[int | str, str], np.ndarray] = {("accuracy", "f1_score"): (a + d) / total}
    for column, (first, second) in {"precision": precision, "recall": recall, "f1_score": f1}.items():
        scores[0, column], scores[1, column] = first, second
        scores["macro avg", column] = (first + second) / 2
        scores["weighted avg", column] = (n_first * first + n_second * second) / total
    return scores


def summarise(model: str) -> dict[str, float]:
    """Return what the paper's test part says of a model, computed from Figs. 11 and 16 and Tables I and II.

    accuracy, balanced_accuracy and weighted_f1 (0-1) come from the reconstructed confusion matrix (the mean,
    where several round to the printed report), auc from the text, training_seconds is the sum over the epochs.
    """
    reported = load_reported().query("model == @model").set_index("measure")["value"]
    matrices = reconstruct_confusion(load_report(model), correct=int(reported["correct"]))
    measures = np.mean([_measures_of(np.asarray(matrix)) for matrix in matrices], axis=0)
    names = ("accuracy", "balanced_accuracy", "weighted_f1")
    found = dict(zip(names, measures.tolist(), strict=True))
    return found | {"auc": float(reported["auc"]), "training_seconds": float(load_table(model)["seconds"].sum())}


def _measures_of(matrix: np.ndarray) -> list[float]:
    """Accuracy, mean recall and weighted F1 of a confusion matrix, rows true."""
    hits, support, called = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    f1 = 2 * hits / (support + called)
    return [hits.sum() / support.sum(), (hits / support).mean(), (f1 * support).sum() / support.sum()]
