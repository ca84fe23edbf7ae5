"""Metrics with intervals, comparison of models, calibration, thresholds, results by person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from allkit import AllkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

FEWEST_UNITS = 5
"""With fewer subjects (or images) of a class than this, an interval says more than the data can."""

LOSSES = ("brier", "log_loss", "calibration_error")
"""The measures of which less is better."""


# -------------------------------------------------------------------------------------------- metrics


def classes_of(predictions: pd.DataFrame) -> tuple[str, ...]:
    """Return the classes of a predictions table, in the order of its `p_<class>` columns."""
    return tuple(name[2:] for name in predictions.columns if name.startswith("p_"))


def probabilities_of(predictions: pd.DataFrame) -> np.ndarray:
    """Return the probabilities of a predictions table, float (n, classes)."""
    return predictions[[f"p_{name}" for name in classes_of(predictions)]].to_numpy(float)


def predicted_labels(predictions: pd.DataFrame) -> np.ndarray:
    """Return the most probable class of each row, (n,) of str."""
    return np.array(classes_of(predictions))[probabilities_of(predictions).argmax(axis=1)]


def evaluate_predictions(predictions: pd.DataFrame) -> dict[str, float]:
    """Return all measures of a predictions table (paper III.B.4), each 0–1 except `log_loss`.

    Per class c: `precision_c` = a/(a+b), `recall_c` = a/(a+c), `f1_c` = 2·Pr·Rc/(Pr+Rc), the paper's
    equations with a true positives, b false positives, c false negatives; then accuracy, balanced accuracy
    (mean recall), macro and weighted F1 (weighted: the official measure of the C-NMC challenge) and AUC. With
    two classes also sensitivity and specificity: recall of the positive and of the other class. With more,
    AUC is the mean of one class against the rest.

    About the probabilities, the less the better: `brier` (see `brier_score`), `log_loss` (mean of −ln of the
    probability of the true class, in nats, 0 and up) and `calibration_error` (see there).
    """
    classes, truth = classes_of(predictions), _truth(predictions)
    return _measures(truth, probabilities_of(predictions), classes, np.ones(len(truth)))


def _measures(truth: np.ndarray, proba: np.ndarray, classes: tuple, weight: np.ndarray) -> dict[str, float]:
    """Compute every measure; a zero denominator gives 0, as in scikit-learn with zero_division=0."""
    k = len(classes)
    counts = np.bincount(truth * k + proba.argmax(axis=1), weight, k * k).reshape(k, k)
    hits, support, called = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    recall = np.divide(hits, support, out=np.zeros(k), where=support > 0)
    precision = np.divide(hits, called, out=np.zeros(k), where=called > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros(k), where=both > 0)
    found = {
        "accuracy": hits.sum() / support.sum(),
        "balanced_accuracy": recall[support > 0].mean(),
        "macro_f1": f1[support > 0].mean(),
        "weighted_f1": f1 @ support / support.sum(),
        "auc": _auc(truth, proba, weight),
    }
    if k == 2:
        found |= {"sensitivity": recall[0], "specificity": recall[1]}
    for name, p, r, f in zip(classes, precision, recall, f1, strict=True):
        found |= {f"precision_{name}": p, f"recall_{name}": r, f"f1_{name}": f}
    found |= {
        "brier": _brier(truth, proba, weight),
        "log_loss": np.average(_losses(truth, proba), weights=weight),
        "calibration_error": _calibration_error(*_binned(*_claims(truth, proba), weight, 10)),
    }
    return {name: float(value) for name, value in found.items()}


def _auc(truth: np.ndarray, proba: np.ndarray, weight: np.ndarray) -> float:
    """Return the area under the ROC curve of the first class, or with more than two the mean over classes."""
    columns = [0] if proba.shape[1] == 2 else range(proba.shape[1])
    return float(np.mean([_area(truth == c, proba[:, c], weight) for c in columns]))


def _area(positive: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float:
    """Return the share of pairs that are ranked right, ties as half; NaN where there is no pair to rank."""
    # as roc_auc_score, which spends nearly all its time on checks: the bootstrap asks a thousand times
    _, place = np.unique(score, return_inverse=True)
    hits, rest = np.bincount(place, weight * positive), np.bincount(place, weight * ~positive)
    pairs = hits.sum() * rest.sum()
    return float(hits @ (np.cumsum(rest) - rest / 2) / pairs) if pairs else float("nan")


def _truth(predictions: pd.DataFrame) -> np.ndarray:
    """Return the number of the true class of each row, int (n,)."""
    return predictions["label"].map({name: k for k, name in enumerate(classes_of(predictions))}).to_numpy()


def _losses(truth: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Return −ln of the probability of the true class, (n,), finite as in scikit-learn."""
    return -np.log(np.clip(proba[np.arange(len(truth)), truth], np.finfo(float).eps, 1))


def confusion(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the confusion matrix in counts: rows true, columns predicted, positive class first."""
    import pandas as pd
    from sklearn.metrics import confusion_matrix

    classes = list(classes_of(predictions))
    counts = confusion_matrix(predictions["label"], predicted_labels(predictions), labels=classes)
    return pd.DataFrame(counts, pd.Index(classes, name="true"), pd.Index(classes, name="predicted"))


def classification_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return scikit-learn's classification report as a table, laid out as in Figs. 11 and 16."""
    import pandas as pd
    from sklearn.metrics import classification_report

    report = classification_report(
        predictions["label"], predicted_labels(predictions), labels=list(classes_of(predictions)),
        output_dict=True, zero_division=0,
    )  # fmt: skip
    if "accuracy" not in report:  # scikit-learn calls it micro avg where a class never occurs
        report["accuracy"] = report.pop("micro avg")["f1-score"]
    total = report["macro avg"]["support"]
    nothing = float("nan")
    report["accuracy"] = {
        "precision": nothing,
        "recall": nothing,
        "f1-score": report["accuracy"],
        "support": total,
    }
    rows = [*classes_of(predictions), "accuracy", "macro avg", "weighted avg"]
    return pd.DataFrame(report).T.loc[rows].astype({"support": int})


# ------------------------------------------------------------------------------------------ intervals


def evaluate_with_intervals(
    predictions: pd.DataFrame, *, resamples: int = 500, level: float = 0.95, seed: int = 123
) -> pd.DataFrame:
    """Return every measure with a percentile bootstrap interval over subjects.

    Whole subjects are drawn with replacement, within each class, because cells of one subject resemble each
    other. Where subjects are unknown, images are drawn instead, and the table says so.

    Returns:
        One row per measure: value, low, high, resampled ("subjects" or "images"), units (their number, the
        smaller class). With fewer than `FEWEST_UNITS` units of a class, low and high are NaN: it cannot be told.
    """
    return _bootstrap([predictions], _measures, resamples, level, seed)


def share_interval(right: int, images: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of the share `right` / `images`, each 0–1, as if images were drawn singly.

    Nothing is resampled. It suits the images of one person, and then says nothing about other people. With fewer
    than `FEWEST_UNITS` images both ends are NaN: it cannot be told.
    """
    from scipy.stats import binomtest

    if images < FEWEST_UNITS:
        return float("nan"), float("nan")
    low, high = binomtest(right, images).proportion_ci(level, "wilson")
    return float(low), float(high)


def compare_predictions(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 500, level: float = 0.95, seed: int = 123
) -> pd.DataFrame:
    """Return first minus second for every measure, with a paired bootstrap interval and a verdict.

    Both are drawn together, subject by subject, so that easy and hard subjects count for both.

    Returns:
        As `evaluate_with_intervals`, and `verdict`: which is better, "first", "second" or "cannot be told"
        (the interval holds zero, or there are too few subjects). Of `LOSSES` the smaller is better.

    Raises:
        AllkitError: the tables are not about the same images.
    """
    _check_same_images(first, second)
    table = _bootstrap([first, second], _measures, resamples, level, seed)
    sign = np.where(table.index.isin(LOSSES), -1, 1)
    ends = np.sort(sign[:, None] * table[["low", "high"]].to_numpy(), axis=1)
    better = [ends[:, 0] > 0, ends[:, 1] < 0]
    table["verdict"] = np.select(better, ["first", "second"], "cannot be told")
    return table


def compare_by_swapping(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 999, level: float = 0.95, seed: int = 123
) -> pd.DataFrame:
    """Test whether two models differ, by swapping their answers subject by subject (paired permutation test).

    If the models were equally good, it would not matter which of them gave which answers for a subject. So
    the names are swapped for a random half of the subjects, again and again; p is how often the difference
    is then at least as large as the one found, in either direction. Where subjects are unknown, images are
    swapped. For the AUC, probabilities are replaced by their ranks within each model before swapping, so
    that a model which is merely more certain is not taken for a different one.

    Returns:
        One row for `auc` and one for `balanced_accuracy`: difference (first minus second), p (0–1, two-sided;
        NaN with fewer than `FEWEST_UNITS` units of a class: it cannot be told), smallest_p (the least that
        this many swaps could give, 2/2ⁿ, but not below 2/(resamples + 1)), swapped ("subjects" or "images"),
        units (n, of all classes), verdict as in `compare_predictions`.

    Raises:
        AllkitError: the tables are not about the same images.
    """
    import pandas as pd
    from scipy.stats import permutation_test, rankdata

    _check_same_images(first, second)
    truth, units = _truth(first), _units(first)
    answers = {"auc": [], "balanced_accuracy": []}
    for proba in map(probabilities_of, (first, second)):
        answers["auc"].append(rankdata(proba, axis=0))
        answers["balanced_accuracy"].append(np.eye(proba.shape[1])[proba.argmax(axis=1)])
    rows = {}
    for measure, pair in answers.items():
        statistic = partial(_swapped_difference, pair=pair, truth=truth, units=units.of_image, measure=measure)
        names = np.zeros(units.count), np.ones(units.count)
        row = {"difference": statistic(*names), "p": float("nan")}
        if units.fewest >= FEWEST_UNITS:
            row["p"] = permutation_test(
                names, statistic, permutation_type="samples", vectorized=False, n_resamples=resamples,
                rng=np.random.default_rng(seed),
            ).pvalue  # fmt: skip
        rows[measure] = row
    table = pd.DataFrame(rows).T.rename_axis("measure")
    table["smallest_p"] = max(2.0 ** (1 - units.count), 2 / (resamples + 1))
    table["swapped"], table["units"] = units.kind, units.count
    told = np.where(table["difference"] > 0, "first", "second")
    table["verdict"] = np.where(table["p"] <= 1 - level, told, "cannot be told")
    return table


def _swapped_difference(names, _others, *, pair, truth, units, measure) -> float:
    """Return first minus second, where `names` says for each unit which model stands first, (units,) of 0/1."""
    swap = names[units].astype(bool)[:, None]
    both = [np.where(swap, pair[1], pair[0]), np.where(swap, pair[0], pair[1])]
    if measure == "auc":
        found = [_auc(truth, answers, np.ones(len(truth))) for answers in both]
    else:
        right = [answers[np.arange(len(truth)), truth] for answers in both]
        found = [np.mean([hit[truth == k].mean() for k in np.unique(truth)]) for hit in right]
    return float(found[0] - found[1])


def _check_same_images(first: pd.DataFrame, second: pd.DataFrame) -> None:
    if list(first["path"]) != list(second["path"]):
        raise AllkitError(
            "the two models were tested on different images, so they cannot be compared; train both with the "
            "same data, split and seed."
        )


def as_text(table: pd.DataFrame, decimals: int = 3) -> pd.DataFrame:
    """Return a table for reading: numbers rounded, and "cannot be told" where there is no interval."""
    text = table.round(decimals).astype(object)
    return text.where(table.notna(), "cannot be told")


@dataclass(frozen=True)
class _Units:
    """What is resampled: subjects where all are known, else images."""

    kind: str
    of_image: np.ndarray  # int (n,), number of the unit of each image
    count: int
    strata: list[np.ndarray]  # the units of each class
    fewest: int  # of any class; 0 where a class is missing


def _units(predictions: pd.DataFrame) -> _Units:
    import pandas as pd

    by_subject = bool(predictions["subject"].notna().all())
    truth, classes = _truth(predictions), len(classes_of(predictions))
    units, names = pd.factorize(predictions["group" if by_subject else "path"])
    of_class = np.stack([np.bincount(units[truth == k], minlength=len(names)) for k in range(classes)])
    main = of_class.argmax(axis=0)  # a unit with images of several classes is drawn with its main class
    strata = [np.flatnonzero(main == k) for k in np.unique(main)]
    fewest = int((of_class > 0).sum(axis=1).min()) if len(strata) == classes else 0
    return _Units("subjects" if by_subject else "images", units, len(names), strata, fewest)


def _bootstrap(tables: list, measure: Callable, resamples: int, level: float, seed: int) -> pd.DataFrame:
    """Return the measures of a table, or of the first minus the second, with intervals.

    `measure` takes truth (n,), probabilities (n, classes), the classes and weights (n,); returns name -> value.
    """
    import pandas as pd
    from scipy.stats import bootstrap

    truth, classes, units = _truth(tables[0]), classes_of(tables[0]), _units(tables[0])
    proba = [probabilities_of(table) for table in tables]
    names = list(measure(truth, proba[0], classes, np.ones(len(truth))))

    def statistic(*drawn: np.ndarray) -> np.ndarray:
        weight = np.bincount(np.concatenate(drawn), minlength=units.count)[units.of_image].astype(float)
        found = [np.array(list(measure(truth, p, classes, weight).values())) for p in proba]
        return found[0] if len(found) == 1 else found[0] - found[1]

    low = high = np.full(len(names), np.nan)
    if units.fewest >= FEWEST_UNITS:
        interval = bootstrap(
            units.strata, statistic, vectorized=False, n_resamples=resamples, confidence_level=level,
            method="percentile", rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
        low, high = interval.low, interval.high
    return pd.DataFrame(
        {"measure": names, "value": statistic(*units.strata), "low": low, "high": high,
         "resampled": units.kind, "units": units.fewest}
    ).set_index("measure")  # fmt: skip


# --------------------------------------------------------------------------------- cells and their maps


def average_scores(
    scores: pd.DataFrame, measure: str, *, against: str, resamples: int = 1000, level: float = 0.95, seed: int = 123
) -> pd.DataFrame:
    """Average a score over cells, method by method, with a percentile bootstrap interval over subjects.

    The same subjects are drawn for every method, so that the methods are compared on the same cells.

    Args:
        scores: one row per method and cell: method, path, subject, group and the measure; as from
            `allkit.explain.score_maps` for one mask.
        measure: column to average.
        against: the method that all are compared with.
        resamples: draws.
        level: of the interval.
        seed: of the draws.

    Returns:
        One row per method: value, low, high; verdict, "above" or "below" the method `against` where the interval
        of the difference excludes zero, else "cannot be told"; resampled ("subjects", or "images" where subjects
        are unknown) and units, their number. With fewer than `FEWEST_UNITS` low and high are NaN.
    """
    import pandas as pd

    wide = scores.pivot(index="path", columns="method", values=measure)[list(dict.fromkeys(scores["method"]))]
    who = scores.drop_duplicates("path").set_index("path").loc[wide.index]
    by_subject = bool(who["subject"].notna().all())
    units, names = pd.factorize(who["group"] if by_subject else wide.index)
    rng, values = np.random.default_rng(seed), wide.to_numpy(float)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)[:, units]
    means = drawn @ values / drawn.sum(axis=1, keepdims=True)
    tails = [(1 - level) / 2, (1 + level) / 2]
    table = pd.DataFrame({"value": values.mean(axis=0)}, index=pd.Index(wide.columns, name="method"))
    table[["low", "high"]] = np.quantile(means, tails, axis=0).T
    low, high = np.quantile(means - means[:, [list(wide.columns).index(against)]], tails, axis=0)
    table["verdict"] = np.select([low > 0, high < 0], ["above", "below"], "cannot be told")
    if len(names) < FEWEST_UNITS:
        table[["low", "high"]], table["verdict"] = np.nan, "cannot be told"
    return table.assign(resampled="subjects" if by_subject else "images", units=len(names))


def count_changes(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    """Return how far answers moved when the images were changed, each 0-1.

    `changed`: share of images with another predicted class; `moved`: mean absolute change of the probability of
    the class that was predicted before; `accuracy` and `balanced_accuracy` after the change.

    Raises:
        AllkitError: the tables are not about the same images.
    """
    _check_same_images(before, after)
    first, second = probabilities_of(before), probabilities_of(after)
    rows, said = np.arange(len(before)), first.argmax(axis=1)
    scores = evaluate_predictions(after)
    return {
        "changed": float((said != second.argmax(axis=1)).mean()),
        "moved": float(np.abs(first[rows, said] - second[rows, said]).mean()),
        "accuracy": scores["accuracy"],
        "balanced_accuracy": scores["balanced_accuracy"],
    }


# ---------------------------------------------------------------------------------------- calibration


def evaluate_calibration(predictions: pd.DataFrame, *, bins: int = 10) -> pd.DataFrame:
    """Return what was predicted and what was seen, for images in equal steps of the probability.

    With two classes the probability is that of the positive class, and what is seen is the share of images
    that belong to it. With more, it is the probability of the most probable class, and what is seen is the
    share of right answers (*top-label confidence*).

    Returns:
        One row per step of width 1/`bins` that holds images, index `bin` ("0.0–0.1"): predicted (mean
        probability, 0–1), observed (share, 0–1), images (count).

    Raises:
        AllkitError: `bins` is below 1.
    """
    import pandas as pd

    if bins < 1:
        raise AllkitError(f"bins={bins}: give 1 or more.")
    claimed, happened = _claims(_truth(predictions), probabilities_of(predictions))
    images, predicted, observed = _binned(claimed, happened, np.ones(len(claimed)), bins)
    used = images > 0
    edges = np.linspace(0, 1, bins + 1)
    decimals = 1 if bins <= 10 and 10 % bins == 0 else 2
    names = [f"{low:.{decimals}f}–{high:.{decimals}f}" for low, high in pairwise(edges)]
    return pd.DataFrame(
        {"predicted": predicted[used], "observed": observed[used], "images": images[used].astype(int)},
        pd.Index(np.array(names)[used], name="bin"),
    )


def calibration_error(predictions: pd.DataFrame, *, bins: int = 10) -> float:
    """Return the expected calibration error, 0 (none) to 1: the mean gap of `evaluate_calibration`.

    The gap between predicted and observed share in each step, weighted by its images.
    """
    table = evaluate_calibration(predictions, bins=bins)
    return _calibration_error(table["images"], table["predicted"], table["observed"])


def brier_score(predictions: pd.DataFrame) -> float:
    """Return the Brier score, the mean squared error of the probabilities: 0 (certain and right) to 1.

    With two classes, always answering 0.5 gives 0.25. With more, the squares are summed over the classes and
    halved, so that 1 remains the worst.
    """
    return _brier(_truth(predictions), probabilities_of(predictions), np.ones(len(predictions)))


def _claims(truth: np.ndarray, proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability that is checked, and whether what it is about came true, both (n,)."""
    if proba.shape[1] == 2:
        return proba[:, 0], truth == 0
    return proba.max(axis=1), proba.argmax(axis=1) == truth


def _binned(claimed: np.ndarray, happened: np.ndarray, weight: np.ndarray, bins: int) -> tuple:
    """Return images, mean claim and share that came true, (bins,) each; NaN where a bin is empty."""
    # calibration_curve of scikit-learn knows no weights, and the bootstrap needs them
    place = np.minimum((claimed * bins).astype(int), bins - 1)
    images = np.bincount(place, weight, bins)
    with np.errstate(invalid="ignore"):
        claims = np.bincount(place, weight * claimed, bins) / images
        return images, claims, np.bincount(place, weight * happened, bins) / images


def _calibration_error(images: np.ndarray, claims: np.ndarray, shares: np.ndarray) -> float:
    return float(np.nansum(images * np.abs(claims - shares)) / np.sum(images))


def _brier(truth: np.ndarray, proba: np.ndarray, weight: np.ndarray) -> float:
    squares = (proba - np.eye(proba.shape[1])[truth]) ** 2
    return float(np.average(squares.sum(axis=1) / 2, weights=weight))


def fit_temperature(validation: pd.DataFrame) -> float:
    """Return the temperature that makes the probabilities of validation images fit best (least log loss).

    Above 1: the model is too sure of itself; below: too modest. NaN where the images do not settle it, for
    instance because the model is right about all of them: it cannot be told.
    """
    # CalibratedClassifierCV(method="temperature") wants a classifier that is fitted on features, and
    # scikit-learn 1.8; all that is kept of a network here are its probabilities
    from scipy.optimize import minimize_scalar
    from scipy.special import softmax

    truth, logs = _truth(validation), _logs(validation)
    ends = np.log([0.05, 20.0])

    def loss(log_temperature: float) -> float:
        return float(_losses(truth, softmax(logs / np.exp(log_temperature), axis=1)).mean())

    best = minimize_scalar(loss, bounds=ends, method="bounded").x
    return float(np.exp(best)) if np.abs(best - ends).min() > 0.01 else float("nan")


def scale_temperature(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """Return the predictions with all logits divided by `temperature` (above 0); the most probable class stays."""
    from scipy.special import softmax

    if not temperature > 0:
        raise AllkitError(f"temperature={temperature}: give a number above 0, from fit_temperature.")
    return _with_probabilities(predictions, softmax(_logs(predictions) / temperature, axis=1))


def _logs(predictions: pd.DataFrame) -> np.ndarray:
    """Return logarithms of the probabilities: logits up to a constant per row, which softmax takes out."""
    return np.log(np.clip(probabilities_of(predictions), np.finfo(float).tiny, 1))


def _with_probabilities(predictions: pd.DataFrame, proba: np.ndarray) -> pd.DataFrame:
    return predictions.assign(**{f"p_{name}": proba[:, k] for k, name in enumerate(classes_of(predictions))})


# ----------------------------------------------------------------------------------------- decisions


def shift_prevalence(predictions: pd.DataFrame, prevalence: float, assumed: float) -> pd.DataFrame:
    """Return the predictions as they would read where the positive class is more or less common (prior shift).

    The odds of the positive class are multiplied by those of `prevalence` and divided by those of `assumed`.

    Args:
        predictions: a predictions table; all classes but the first count as negative.
        prevalence: share of the positive class where the model is to be used, above 0 and below 1.
        assumed: the share that the probabilities are about: that of the training images, or with class
            weights one divided by the number of classes.
    """
    _check_share("prevalence", prevalence)
    _check_share("assumed", assumed)
    factor = np.full(len(classes_of(predictions)), (1 - prevalence) / (1 - assumed))
    factor[0] = prevalence / assumed
    proba = probabilities_of(predictions) * factor
    return _with_probabilities(predictions, proba / proba.sum(axis=1, keepdims=True))


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise AllkitError(f"{name}={value}: give a share above 0 and below 1.")


def _check_costs(prevalence: float, *costs: float) -> None:
    _check_share("prevalence", prevalence)
    if min(costs) <= 0:
        raise AllkitError(f"costs {costs}: give numbers above 0; a mistake that costs nothing needs no threshold.")


def evaluate_thresholds(
    predictions: pd.DataFrame, *, prevalence: float, cost_missed: float, cost_false_alarm: float
) -> pd.DataFrame:
    """Return what every possible threshold on the probability of the positive class would do.

    All classes but the first count as negative. Meant for validation images: a threshold is not chosen on
    test images.

    Args:
        predictions: a predictions table with images of the first and of another class.
        prevalence: share of the positive class where the model is to be used, above 0 and below 1.
        cost_missed: of one positive image called negative, above 0.
        cost_false_alarm: of one negative image called positive, in the same unit, above 0.

    Returns:
        One row per threshold, highest first, from "call none positive" to "call all": threshold (called
        positive from here on, 0–1), sensitivity, specificity, ppv, npv (predictive values at `prevalence`;
        NaN where nothing is called so), cost_per_1000 (expected cost of 1,000 images at `prevalence`).

    Raises:
        AllkitError: a class is missing, `prevalence` is no share, or a cost is not above 0.
    """
    import pandas as pd
    from sklearn.metrics import roc_curve

    _check_costs(prevalence, cost_missed, cost_false_alarm)
    truth = _truth(predictions)
    if not 0 < (truth == 0).sum() < len(truth):
        raise AllkitError("all these images are of one side; a threshold needs positive and negative ones.")
    fall_out, recall, cuts = roc_curve(truth == 0, probabilities_of(predictions)[:, 0], drop_intermediate=False)
    cuts[0] = np.nextafter(1, 2)  # scikit-learn's infinity: no probability reaches it
    numbers = _decisions(recall, 1 - fall_out, prevalence, cost_missed, cost_false_alarm)
    return pd.DataFrame({"threshold": cuts, **numbers})


def evaluate_at_threshold(
    predictions: pd.DataFrame,
    threshold: float,
    *,
    prevalence: float,
    cost_missed: float,
    cost_false_alarm: float,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 123,
) -> pd.DataFrame:
    """Return what one threshold, chosen elsewhere, does: the columns of `evaluate_thresholds` with intervals.

    Returns:
        As `evaluate_with_intervals`: rows sensitivity, specificity, ppv, npv and cost_per_1000.

    Raises:
        AllkitError: `prevalence` is no share, or a cost is not above 0.
    """
    _check_costs(prevalence, cost_missed, cost_false_alarm)

    def measure(truth: np.ndarray, proba: np.ndarray, _classes: tuple, weight: np.ndarray) -> dict[str, float]:
        positive, called = truth == 0, proba[:, 0] >= threshold
        total = weight[positive].sum(), weight[~positive].sum()
        recall = weight[positive & called].sum() / total[0] if total[0] else np.nan
        rest = weight[~positive & ~called].sum() / total[1] if total[1] else np.nan
        return _decisions(recall, rest, prevalence, cost_missed, cost_false_alarm)

    return _bootstrap([predictions], measure, resamples, level, seed)


def _decisions(sensitivity, specificity, prevalence, cost_missed, cost_false_alarm) -> dict:
    """Return predictive values and expected cost; sensitivity and specificity are numbers or arrays."""
    hits, missed = prevalence * sensitivity, prevalence * (1 - sensitivity)
    rest, alarms = (1 - prevalence) * specificity, (1 - prevalence) * (1 - specificity)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": np.divide(hits, hits + alarms),
            "npv": np.divide(rest, rest + missed),
            "cost_per_1000": 1000 * (cost_missed * missed + cost_false_alarm * alarms),
        }


def evaluate_fixed_specificity(
    predictions: pd.DataFrame,
    specificities: Sequence[float] = (0.90, 0.95),
    *,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 123,
) -> pd.DataFrame:
    """Return the sensitivity on the ROC curve where specificity is at least so high, with intervals.

    A property of the ranking, like AUC: the threshold is found anew in every resample and is none to be used.
    All classes but the first count as negative.

    Returns:
        As `evaluate_with_intervals`, one row per specificity ("sensitivity at 0.90").
    """
    from sklearn.metrics import roc_curve

    def measure(truth: np.ndarray, proba: np.ndarray, _classes: tuple, weight: np.ndarray) -> dict[str, float]:
        names = [f"sensitivity at {share:.2f}" for share in specificities]
        if len(np.unique(truth[weight > 0] == 0)) < 2:
            return dict.fromkeys(names, np.nan)
        fall_out, recall, _ = roc_curve(truth == 0, proba[:, 0], sample_weight=weight)
        best = [recall[fall_out <= 1 - share + 1e-9].max() for share in specificities]
        return dict(zip(names, best, strict=True))

    return _bootstrap([predictions], measure, resamples, level, seed)


# ------------------------------------------------------------------------------- people and mistakes


def evaluate_subjects(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per subject and class, worst first; empty where all subjects are unknown.

    Returns:
        Index `subject`; label, images (count), right (share of right answers, 0–1), confidence (mean
        probability of the true class, 0–1).
    """
    truth, proba = _truth(predictions), probabilities_of(predictions)
    facts = predictions[["subject", "label"]].assign(
        right=proba.argmax(axis=1) == truth, confidence=proba[np.arange(len(truth)), truth]
    )
    each = facts.groupby(["subject", "label"]).agg(
        images=("right", "size"), right=("right", "mean"), confidence=("confidence", "mean")
    )
    return each.reset_index("label").sort_values(["right", "confidence"])


def evaluate_losses(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return every answer with its loss, highest first.

    Returns:
        path, label (true), called, subject, probability (of the true class, 0–1), loss (−ln of it in nats, at most 36).
    """
    truth, proba = _truth(predictions), probabilities_of(predictions)
    table = predictions[["path", "label", "subject"]].assign(
        called=predicted_labels(predictions),
        probability=proba[np.arange(len(truth)), truth],
        loss=_losses(truth, proba),
    )
    return table.sort_values("loss", ascending=False, kind="stable").reset_index(drop=True)


def find_mistakes(predictions: pd.DataFrame, count: int = 8) -> pd.DataFrame:
    """Return the `count` wrong answers with the highest loss ("top losses"), worst first, as `evaluate_losses`."""
    table = evaluate_losses(predictions)
    return table[table["called"] != table["label"]].head(count).reset_index(drop=True)


# ----------------------------------------------------------------------------------------- simulation


def measure_spread(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    """Return how alike the answers are for cells of one subject, and those of two models for one cell.

    Returns:
        `subject_share`: the share of the variance of logits within a class that lies between subjects
        (intraclass correlation by analysis of variance, mean of both models), 0–1. `shared`: correlation of
        both models' logits within a class, −1 to 1. Both NaN with fewer than `FEWEST_UNITS` known subjects
        of a class, and the first with one image each: it cannot be told.

    Raises:
        AllkitError: the tables are not about the same images.
    """
    _check_same_images(first, second)
    units = _units(first)
    if units.kind != "subjects" or units.fewest < FEWEST_UNITS:
        return {"subject_share": float("nan"), "shared": float("nan")}
    logits = [_logit(probabilities_of(table)[:, 0]) for table in (first, second)]
    label = first["label"].to_numpy()
    away = [_without_means(values, label) for values in logits]
    shares = [_between_share(values, label, units.of_image) for values in away]
    with np.errstate(invalid="ignore"):  # a model that always says the same has no correlation: NaN
        return {"subject_share": float(np.mean(shares)), "shared": float(np.corrcoef(away)[0, 1])}


def _logit(share: np.ndarray) -> np.ndarray:
    from scipy.special import logit

    return logit(np.clip(share, 1e-6, 1 - 1e-6))


def _without_means(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    import pandas as pd

    return values - pd.Series(values).groupby(by).transform("mean").to_numpy()


def _between_share(values: np.ndarray, label: np.ndarray, units: np.ndarray) -> float:
    """Return the intraclass correlation of values whose class means are zero (one-way analysis of variance)."""
    import pandas as pd

    groups = pd.DataFrame({"value": values, "label": label}).groupby([label, units])["value"]
    sizes, means = groups.size(), groups.mean()
    if len(sizes) == len(values) or not values.any():
        return float("nan")
    free = len(sizes) - sizes.groupby(level=0).ngroups
    between = (sizes * means**2).sum() / free
    within = ((values - groups.transform("mean")) ** 2).sum() / (len(values) - len(sizes))
    typical = sizes.groupby(level=0).agg(lambda n: n.sum() - (n**2).sum() / n.sum()).sum() / free
    variance = max(0.0, (between - within) / typical)
    return float(variance / (variance + within))


def simulate_test_sets(
    *,
    auc: tuple[float, float] = (0.85, 0.80),
    subject_share: float = 0.3,
    shared: float = 0.5,
    cells: int = 10,
    subjects: Sequence[int] = (2, 3, 5, 10, 20, 40),
    sets: int = 200,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 123,
) -> pd.DataFrame:
    """Return what test sets of few subjects tell about two models whose true AUCs are known (a simulation).

    Logits of two classes are drawn as class mean + subject effect + noise of the cell, all normal. For each
    test set, the difference of both AUCs gets a paired percentile bootstrap interval twice: over subjects, and
    over cells as if each came from a person of its own.

    Args:
        auc: true AUC of both models, for a new cell of a new subject, above 0 and below 1. If they are equal,
            `sees` and `wrong` add up to the false alarms.
        subject_share: share of the variance within a class that lies between subjects, 0–1.
        shared: correlation of both models, for subjects and for cells, 0–1.
        cells: of each subject.
        subjects: of each class; one size of test set each.
        sets: test sets drawn per size.
        resamples: per interval.
        level: of the interval.
        seed: of everything random.

    Returns:
        One row per size and unit: subjects, resampled ("subjects" or "cells"), width (mean, in AUC), covers
        (share of intervals that hold the true difference), sees (share that lie wholly on its side of zero),
        wrong (share that lie wholly on the other side).

    Raises:
        AllkitError: an AUC or a share is out of its range.
    """
    import pandas as pd

    _check_share("auc", min(auc))
    _check_share("auc", max(auc))
    if not (0 <= subject_share <= 1 and 0 <= shared <= 1):
        raise AllkitError(f"subject_share={subject_share}, shared={shared}: give shares from 0 to 1.")
    rng = np.random.default_rng(seed)
    true, tail = auc[0] - auc[1], (1 - level) / 2
    rows = []
    for n in subjects:
        draws = {unit: [_multiplicities(rng, resamples, count) for _ in range(2)]
                 for unit, count in (("subjects", n), ("cells", n * cells))}  # fmt: skip
        owner = np.repeat(np.eye(n, dtype="f4"), cells, axis=1) / cells
        found: dict[str, list] = {unit: [] for unit in draws}
        for _ in range(sets):
            gain = _simulated_gain(rng, n, cells, auc, subject_share, shared)
            gains = {"cells": gain, "subjects": owner @ gain @ owner.T}
            for unit, (positive, negative) in draws.items():
                found[unit].append(np.einsum("ij,ij->i", positive @ gains[unit], negative))
        for unit, differences in found.items():
            low, high = np.quantile(differences, [tail, 1 - tail], axis=1)
            rows.append({"subjects": n, "resampled": unit, **_judge_intervals(low, high, true)})
    return pd.DataFrame(rows)


def _multiplicities(rng: np.random.Generator, resamples: int, count: int) -> np.ndarray:
    """Return how often each unit is in each resample, divided by the units: float32 (resamples, count)."""
    drawn = rng.integers(0, count, (resamples, count)) + count * np.arange(resamples)[:, None]
    return (np.bincount(drawn.ravel(), minlength=resamples * count) / count).reshape(resamples, count).astype("f4")


def _simulated_gain(rng, n, cells, auc, subject_share, shared) -> np.ndarray:
    """Return, for each positive and negative cell, by how much model 1 ranks them better: float32 (n·cells, n·cells).

    The mean of it is the difference of both AUCs, and with weights that of any resample.
    """
    from scipy.special import ndtri

    def effects(per_subject: int) -> np.ndarray:
        common, own = rng.normal(size=(1, 2, n, per_subject)), rng.normal(size=(2, 2, n, per_subject))
        return np.sqrt(shared) * common + np.sqrt(1 - shared) * own  # (models, classes, subjects, cells)

    logits = np.sqrt(subject_share) * effects(1) + np.sqrt(1 - subject_share) * effects(cells)
    logits[:, 0] += np.sqrt(2) * ndtri(np.array(auc))[:, None, None]  # two normal classes this far apart have this AUC
    first, second = (model[0].reshape(-1, 1) > model[1].reshape(1, -1) for model in logits.astype("f4"))
    return np.subtract(first, second, dtype="f4")


def _judge_intervals(low: np.ndarray, high: np.ndarray, true: float) -> dict[str, float]:
    """Return mean width, and the shares that hold the true value, see its sign, and see the wrong one."""
    above, below = (low > 0).mean(), (high < 0).mean()
    sees, wrong = (above, below) if true > 0 else (below, above)
    covers = ((low <= true) & (true <= high)).mean()
    return {"width": (high - low).mean(), "covers": covers, "sees": sees, "wrong": wrong}
