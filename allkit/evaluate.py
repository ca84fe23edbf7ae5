"""Metrics with intervals, comparison of models, and the existing techniques they are held against."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from allkit import AllkitError
from allkit.data import class_order
from allkit.models import TrainedModel, build_model, predict_images

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from allkit.splits import Split

FEWEST_UNITS = 5
"""With fewer subjects (or images) of a class than this, an interval says more than the data can."""


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
    """Return all measures of a predictions table (paper III.B.4), each 0–1.

    Per class c: `precision_c` = a/(a+b), `recall_c` = a/(a+c), `f1_c` = 2·Pr·Rc/(Pr+Rc), the paper's
    equations with a true positives, b false positives, c false negatives; then accuracy, balanced accuracy
    (mean recall), macro and weighted F1 (weighted: the official measure of the C-NMC challenge) and AUC. With
    two classes also sensitivity and specificity: recall of the positive and of the other class. With more,
    AUC is the mean of one class against the rest.
    """
    classes = classes_of(predictions)
    truth = predictions["label"].map({name: k for k, name in enumerate(classes)}).to_numpy()
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
    return {name: float(value) for name, value in found.items()}


def _auc(truth: np.ndarray, proba: np.ndarray, weight: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    used = weight > 0
    truth, proba, weight = truth[used], proba[used], weight[used]
    columns = [0] if proba.shape[1] == 2 else range(proba.shape[1])
    if len(np.unique(truth)) < (2 if proba.shape[1] == 2 else proba.shape[1]):
        return float("nan")  # one class only: no pair to rank
    return float(np.mean([roc_auc_score(truth == c, proba[:, c], sample_weight=weight) for c in columns]))


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
    return _bootstrap([predictions], lambda found: found[0], resamples, level, seed)


def compare_predictions(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 500, level: float = 0.95, seed: int = 123
) -> pd.DataFrame:
    """Return first minus second for every measure, with a paired bootstrap interval and a verdict.

    Both are drawn together, subject by subject, so that easy and hard subjects count for both.

    Returns:
        As `evaluate_with_intervals`, and `verdict`: "first", "second" or "cannot be told" (the interval holds
        zero, or there are too few subjects).

    Raises:
        AllkitError: the tables are not about the same images.
    """
    if list(first["path"]) != list(second["path"]):
        raise AllkitError(
            "the two models were tested on different images, so they cannot be compared; train both with the "
            "same data, split and seed."
        )
    table = _bootstrap([first, second], lambda found: found[0] - found[1], resamples, level, seed)
    table["verdict"] = np.select([table["low"] > 0, table["high"] < 0], ["first", "second"], "cannot be told")
    return table


def as_text(table: pd.DataFrame, decimals: int = 3) -> pd.DataFrame:
    """Return a table for reading: numbers rounded, and "cannot be told" where there is no interval."""
    text = table.round(decimals).astype(object)
    return text.where(table.notna(), "cannot be told")


def _bootstrap(tables: list, combine: Callable, resamples: int, level: float, seed: int) -> pd.DataFrame:
    import pandas as pd
    from scipy.stats import bootstrap

    frame, classes = tables[0], classes_of(tables[0])
    truth = frame["label"].map({name: k for k, name in enumerate(classes)}).to_numpy()
    by_subject = bool(frame["subject"].notna().all())
    units, names = pd.factorize(frame["group"] if by_subject else frame["path"])
    proba = [probabilities_of(table) for table in tables]
    measures = list(_measures(truth, proba[0], classes, np.ones(len(truth))))

    def statistic(*drawn: np.ndarray) -> np.ndarray:
        weight = np.bincount(np.concatenate(drawn), minlength=len(names))[units].astype(float)
        return combine([np.array(list(_measures(truth, p, classes, weight).values())) for p in proba])

    of_class = np.stack([np.bincount(units[truth == k], minlength=len(names)) for k in range(len(classes))])
    main = of_class.argmax(axis=0)  # a unit with images of several classes is drawn with its main class
    strata = [np.flatnonzero(main == k) for k in np.unique(main)]
    fewest = int((of_class > 0).sum(axis=1).min()) if len(strata) == len(classes) else 0
    low = high = np.full(len(measures), np.nan)
    if fewest >= FEWEST_UNITS:
        interval = bootstrap(
            strata, statistic, vectorized=False, n_resamples=resamples, confidence_level=level,
            method="percentile", rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
        low, high = interval.low, interval.high
    return pd.DataFrame(
        {"measure": measures, "value": statistic(*strata), "low": low, "high": high,
         "resampled": "subjects" if by_subject else "images", "units": fewest}
    ).set_index("measure")  # fmt: skip


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


# ------------------------------------------------------------------------- time, and existing techniques


def measure_inference(trained: TrainedModel, *, repeats: int = 5) -> dict[str, float]:
    """Return the time of one forward pass in ms: alone (`single_ms`) and per image in a batch of 32."""
    size = trained.card["input"]["image_size"]
    images = np.zeros((32, size, size, 3), np.uint8)
    found = {}
    for name, batch in {"single_ms": images[:1], "batch_ms": images}.items():
        predict_images(trained, batch)  # the first call compiles
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            predict_images(trained, batch)
            times.append(time.perf_counter() - start)
        found[name] = 1000 * float(np.median(times)) / len(batch)
    return found


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


def evaluate_one_category(split: Split, train: np.ndarray, test: np.ndarray) -> pd.DataFrame:
    """Return test predictions that know nothing of an image but a category it falls into.

    Args:
        split: its training part says how often each class occurs in each category.
        train: category of each training image, (n,) of str, such as the kind of scale bar.
        test: category of each test image, (m,) of str.

    Returns:
        A predictions table; the classes' shares among the training images where a category is new.
    """
    import pandas as pd

    classes = class_order(split.train["label"])
    shares = pd.crosstab(train, split.train["label"].to_numpy(), normalize="index").reindex(test)
    overall = split.train["label"].value_counts(normalize=True)
    table = split.test[["path", "label", "subject", "group"]].reset_index(drop=True)
    for name in classes:
        table[f"p_{name}"] = shares[name].fillna(overall[name]).to_numpy()
    return table


def count_changes(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    """Return how far answers moved when the images were changed, each 0-1.

    `changed`: share of images with another predicted class; `moved`: mean absolute change of the probability of
    the class that was predicted before; `accuracy` and `balanced_accuracy` after the change.

    Raises:
        AllkitError: the tables are not about the same images.
    """
    if list(before["path"]) != list(after["path"]):
        raise AllkitError("the two tables are about different images; predict the same rows twice.")
    first, second = probabilities_of(before), probabilities_of(after)
    rows, said = np.arange(len(before)), first.argmax(axis=1)
    scores = evaluate_predictions(after)
    return {
        "changed": float((said != second.argmax(axis=1)).mean()),
        "moved": float(np.abs(first[rows, said] - second[rows, said]).mean()),
        "accuracy": scores["accuracy"],
        "balanced_accuracy": scores["balanced_accuracy"],
    }


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
