"""Cheap classifiers on a few numbers per cell: baselines that a network must beat, and probes for leaks.

A probe is trained in a moment, so that the same question can be asked under many splits and seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from allkit import AllkitError
from allkit.augment import apply_augmentation, balance
from allkit.data import COLUMNS, class_order, file_sum, source_images
from allkit.evaluate import evaluate_predictions, evaluate_with_intervals
from allkit.features import FEATURES, measure_cell, measure_cells, measure_files
from allkit.images import in_threads, read_image, to_common_size
from allkit.models import build_model, import_keras, load_features
from allkit.splits import (
    SUBJECT_FRACTIONS,
    Split,
    split_by_fold,
    split_by_image,
    split_by_subject,
    split_hold_out,
    split_unseen,
)

if TYPE_CHECKING:
    import pandas as pd

# --------------------------------------------------------------------------------- numbers of each cell

HAND_MADE = ["area", "eccentricity", "solidity", "mean_r", "mean_g", "mean_b", "std_b", "texture", "corr_4"]
"""Descriptors of one cell (see `allkit.features`) that the classical techniques learn from."""

DEPTHS = ("conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu")
"""Layers of MobileNet, from simple to complex shapes, whose features are taken together as "three depths"."""


def row_keys(rows: pd.DataFrame) -> pd.Series:
    """Return what a row's numbers are found by: its path, and for the copies of a balanced part how it is changed."""
    return rows["path"] + "|" + rows["augmentation"] if "augmentation" in rows else rows["path"] + "|"


def measure_numbers(rows: pd.DataFrame, *, progress: bool = False) -> pd.DataFrame:
    """Measure the cells of some rows, and the copies among them (see `allkit.augment.balance`).

    Returns:
        The columns `FEATURES`, float64, one row per different cell or copy, by `row_keys`.
    """
    import pandas as pd

    rows = rows.assign(key=row_keys(rows)).drop_duplicates("key")
    copied = rows["key"].str.rpartition("|")[2] != ""
    found = measure_cells(rows[~copied], progress).set_axis(rows["key"][~copied])
    if copied.any():
        copies = rows[copied]
        made = measure_files(_measure_copy, copies["path"], progress, more=copies["augmentation"])
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
    seed: int = 123,
) -> pd.DataFrame:
    """Return average-pooled features of a MobileNet that is not trained on these cells, computed once for each cell.

    Args:
        rows: of an index or a balanced part.
        image_size, crop: of the network's input, see `allkit.images.load_images`.
        weights: None (random, from `seed`), "imagenet" or a file, see `allkit.models.build_model`.
        alpha: width of the network.
        layers: whose outputs are pooled and put side by side.

    Returns:
        float32, one row per different cell or copy by `row_keys`, columns "<layer>-<channel>".
    """
    import pandas as pd

    keras = import_keras()
    rows = rows.assign(key=row_keys(rows)).drop_duplicates("key")
    model = build_model("mobilenet", image_size, weights=weights, alpha=alpha, pooling="avg", seed=seed)
    pooled = [keras.layers.GlobalAveragePooling2D()(model.get_layer(name).output) for name in layers]
    names = [f"{name}-{k}" for name, part in zip(layers, pooled, strict=True) for k in range(part.shape[-1])]
    joined = keras.layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    values = load_features(keras.Model(model.input, joined), rows, image_size=image_size, crop=crop)
    return pd.DataFrame(values, index=pd.Index(rows["key"]), columns=names)


# -------------------------------------------------------------------------------------------- the probes


def build_probe(name: str, *, wide: bool = False, seed: int = 123) -> Any:
    """Build an untrained probe: a scikit-learn pipeline that standardises first.

    Args:
        name: "logistic regression", which weighs numbers and cannot remember a cell; "nearest neighbours",
            which does nothing but remember (5 neighbours, the closer the louder); "SVM" or "decision tree".
        wide: there are hundreds of numbers: regularise strongly.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    even = {"class_weight": "balanced", "random_state": seed}
    probes = {
        "logistic regression": LogisticRegression(C=0.001 if wide else 1.0, max_iter=2000, **even),
        "nearest neighbours": KNeighborsClassifier(5, weights="distance"),
        "SVM": SVC(**even),
        "decision tree": DecisionTreeClassifier(max_depth=4, min_samples_leaf=5, **even),
    }
    if name not in probes:
        raise AllkitError(f"there is no probe {name!r}; choose one of {', '.join(probes)}.")
    return make_pipeline(StandardScaler(), probes[name])


def evaluate_probe(
    train: pd.DataFrame, test: pd.DataFrame, numbers: pd.DataFrame, probe: str = "logistic regression",
    *, by_subject: bool = False, seed: int = 123,
) -> pd.DataFrame:  # fmt: skip
    """Train a probe on some rows and return its predictions table of others.

    Args:
        train, test: rows of an index or a balanced part.
        numbers: what the probe sees of each cell, by `row_keys`.
        probe: see `build_probe`.
        by_subject: weight every image by one over the square root of how many its subject has, then the classes
            equally, so that three people with many cells do not outvote the rest. For logistic regression only.
    """
    classifier = build_probe(probe, wide=numbers.shape[1] > 100, seed=seed)
    weights = {"logisticregression__sample_weight": subject_weights(train)} if by_subject else {}
    seen, asked = (numbers.loc[row_keys(rows)].to_numpy() for rows in (train, test))
    classifier.fit(seen, train["label"], **weights)
    return _predictions(classifier, asked, test, class_order(train["label"]))


def subject_weights(rows: pd.DataFrame) -> np.ndarray:
    """Return a weight per row, (n,), 1 on average: by subject and class, see `evaluate_probe`."""
    weight = 1 / np.sqrt(rows.groupby("group")["path"].transform("size"))
    weight /= weight.groupby(rows["label"]).transform("sum")
    return (weight / weight.mean()).to_numpy()


def _predictions(classifier: Any, features: np.ndarray, rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    table = rows[["path", "label", "subject", "group"]].reset_index(drop=True)
    probabilities = _probabilities(classifier, features)
    for name in classes:
        table[f"p_{name}"] = probabilities[:, list(classifier.classes_).index(name)]
    return table


def _probabilities(classifier: Any, features: np.ndarray) -> np.ndarray:
    """Return class scores, (n, classes), that sum to 1: probabilities, or squashed distances for an SVM."""
    from scipy.special import softmax

    if hasattr(classifier, "predict_proba"):
        return classifier.predict_proba(features)
    distance = classifier.decision_function(features)
    return softmax(np.column_stack([-distance, distance]) if distance.ndim == 1 else distance, axis=1)


# ------------------------------------------------------------------------------------ existing techniques


def evaluate_one_number(split: Split) -> tuple[str, pd.DataFrame]:
    """Return the simplest baseline that a network must beat, by name, and its test predictions.

    A threshold on one number, fitted to the training part (logistic regression, classes weighted equally):
    the cell's area, or the mean of green where images are not single cells on black, which have no area.
    """
    numbers = measure_numbers(_learned_and_tested(split))
    name = one_number(numbers)
    return f"{name.replace('mean_g', 'mean green')} alone", evaluate_probe(split.train, split.test, numbers[[name]])


def _learned_and_tested(split: Split) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([split.train, split.test]).fillna({"augmentation": ""})


def one_number(cells: pd.DataFrame) -> str:
    """Return the column to use when one number has to do: "area" for cells on black, else "mean_g"."""
    return "area" if cells["background_share"].median() > 0.05 else "mean_g"


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

    parts, rows = (split.train, split.test), _learned_and_tested(split)
    shape = measure_numbers(rows)[HAND_MADE]
    deep = frozen_features(rows, image_size=image_size, crop=crop, weights=weights, alpha=alpha, seed=seed)
    name, by_number = evaluate_one_number(split)
    largest = DummyClassifier().fit(split.train[["path"]], split.train["label"])
    kind = {"imagenet": "ImageNet", None: "random"}.get(weights, "given")
    return {
        "largest class": _predictions(largest, split.test[["path"]], split.test, class_order(split.train["label"])),
        name: by_number,
        "SVM, hand-made features": evaluate_probe(*parts, shape, "SVM", seed=seed),
        "decision tree, hand-made features": evaluate_probe(*parts, shape, "decision tree", seed=seed),
        f"logistic regression, frozen {kind} features": evaluate_probe(*parts, deep, seed=seed),
    }


# ------------------------------------------------------------------------------------------ the leakage lab

ARMS = {
    "augment, then split": "the paper's order: copies are made first, and land on both sides",
    "by image": "cells are drawn whoever they come from",
    "by subject, as named": "nobody is on both sides, but two names may share images",
    "by subject, duplicates merged": "names that share an image count as one subject",
    "official folds": "one published fold is the test part, links between folds kept",
    "unseen subjects": "people of another collection",
}
"""The ways of splitting that the lab compares, from the leakiest to the strictest."""


def balance_pool(index: pd.DataFrame, *, seed: int = 123) -> pd.DataFrame:
    """Return the labelled training rows filled up with copies, as "augment, then split" needs them."""
    return balance(index[index["label"].notna() & (index["part"] == "train")], seed=seed)


def build_arm(arm: str, index: pd.DataFrame, balanced: pd.DataFrame, *, seed: int) -> Split:
    """Split by one of `ARMS`; training and test parts are as large in all of them as the groups allow.

    Args:
        arm: a key of `ARMS`.
        index: all rows.
        balanced: of `balance_pool`.
        seed: who falls where; for the official folds, which fold is tested on.

    Raises:
        AllkitError: the data do not allow it: subjects or folds are unknown, or there are too few.
    """
    if arm != "by image" and not arm.startswith("augment") and index["subject"].isna()[index["part"] == "train"].any():
        raise AllkitError("Subjects are unknown.")
    if arm == "augment, then split":
        return split_by_image(balanced, SUBJECT_FRACTIONS, seed)
    if arm == "by image":
        return split_by_image(index, SUBJECT_FRACTIONS, seed)
    if arm == "by subject, as named":
        return split_by_subject(index.assign(group=index["subject"].fillna(index["group"])), SUBJECT_FRACTIONS, seed)
    if arm == "by subject, duplicates merged":
        return split_by_subject(index, SUBJECT_FRACTIONS, seed)
    if arm == "official folds":
        sizes = index["fold"][index["part"] == "train"].value_counts().sort_index()
        small = sizes[sizes <= sizes.sum() / 2].index  # a fold with most of the images is there to learn from
        if not len(small):
            raise AllkitError("There are no official folds.")
        return split_by_fold(index, int(small[seed % len(small)]), seed, drop_linked=False)
    if arm == "unseen subjects":
        return split_unseen(index, seed)
    raise AllkitError(f"there is no arm {arm!r}; choose one of {', '.join(ARMS)}.")


def count_shared(split: Split, contents: pd.Series) -> dict[str, float]:
    """Return which shares of the test rows, 0-1, training knows in which way.

    Args:
        split: any split.
        contents: of each path, something that is equal for byte-identical files.

    Returns:
        `file` (the same file, as it is or as a copy), `bytes`, `source image` (NaN where names do not tell) and
        `subject` (NaN where unknown).
    """
    known = {}
    for name, values in {
        "file": lambda rows: rows["path"],
        "bytes": lambda rows: rows["path"].map(contents),
        "source image": source_images,
        "subject": lambda rows: rows["subject"],
    }.items():
        train, test = values(split.train), values(split.test)
        known[name] = float(test.isin(set(train.dropna())).mean()) if test.notna().all() else float("nan")
    return known


def file_contents(index: pd.DataFrame) -> pd.Series:
    """Return the SHA-256 of each file, by path."""
    import pandas as pd

    paths = list(index["path"].drop_duplicates())
    return pd.Series(list(in_threads(file_sum, paths)), index=paths)


def evaluate_arms(
    index: pd.DataFrame,
    balanced: pd.DataFrame,
    numbers: pd.DataFrame,
    *,
    probes: Iterable[str] = ("logistic regression", "nearest neighbours"),
    seeds: Iterable[int] = range(5),
    resamples: int = 100,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Ask the same probes under all `ARMS`, each with several seeds.

    Returns:
        One row per arm, seed and probe: `auc` with its bootstrap interval `low`, `high` over `resampled`
        (see `evaluate_with_intervals`), `images` tested on, and the shares of `count_shared`; and the arms that
        the data do not allow, with the reason.
    """
    import pandas as pd

    contents, rows, refused = file_contents(index), [], {}
    for arm in ARMS:
        for seed in seeds:
            try:
                split = build_arm(arm, index, balanced, seed=seed)
            except AllkitError as reason:
                refused[arm] = str(reason)
                break
            facts = {"arm": arm, "seed": seed, "images": len(split.test), **count_shared(split, contents)}
            for probe in probes:
                table = evaluate_probe(split.train, split.test, numbers, probe, seed=seed)
                found = evaluate_with_intervals(table, resamples=resamples, seed=seed).loc["auc"]
                measured = {"auc": found["value"], **found[["low", "high", "resampled"]]}
                rows.append({**facts, "probe": probe, **measured})
    return pd.DataFrame(rows), refused


def summarise_arms(found: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds by arm and probe of `evaluate_arms`: value, low, high, and the spread over seeds.

    `low` and `high` are the means of the intervals of the single seeds, NaN where one of them cannot be told.
    """
    of = found.groupby(["arm", "probe"], sort=False)
    table = of[["auc", "low", "high"]].agg(lambda values: values.mean(skipna=False)).rename(columns={"auc": "value"})
    return table.assign(**{"spread over seeds": of["auc"].std(), "resampled": of["resampled"].first()})


def evaluate_dial(
    subject_effect: float,
    *,
    probes: Sequence[str] = ("logistic regression", "nearest neighbours"),
    subjects: int = 30,
    cells: int = 12,
    splits: int = 2,
    seeds: Iterable[int] = range(10),
) -> pd.DataFrame:
    """Measure on drawn numbers how much a split by image promises too much, beside the truth.

    The split by image asks about new cells of known people, the split by subject about new people. Both are
    also answered by fresh cells without end, which only a generator can give.

    Args:
        subject_effect: the generator's dial, see `allkit.synthetic.draw_cell`; 0: people do not differ.
        probes: see `build_probe`.
        subjects, cells: people of each class, and cells of each.
        splits: of each kind, over which a lab averages.
        seeds: one lab each, with people of its own.

    Returns:
        One row per seed and probe: AUC `by image`, `by subject`, `known people` and `new people` (fresh cells),
        `measured` (by image - by subject) and `true` (known - new).
    """
    import pandas as pd

    from allkit.synthetic import draw_numbers

    found = []
    for seed in seeds:
        dial = {"subject_effect": subject_effect, "seed": seed}
        index = draw_numbers(subjects, cells, **dial)
        known = draw_numbers(subjects, 2 * cells, first_cell=1000, **dial)
        new = draw_numbers(2 * subjects, cells, first_subject=1000, **dial)
        everybody = pd.concat([index, known, new])
        numbers = everybody.drop(columns=list(COLUMNS)).set_axis(row_keys(everybody))
        for number in range(splits):
            by_image = split_by_image(index, SUBJECT_FRACTIONS, seed=number)
            by_subject = split_by_subject(index, SUBJECT_FRACTIONS, seed=number)
            asked = {
                "by image": (by_image.train, by_image.test),
                "by subject": (by_subject.train, by_subject.test),
                "known people": (by_image.train, known),
                "new people": (by_subject.train, new),
            }
            for probe in probes:
                tables = {what: evaluate_probe(*rows, numbers, probe) for what, rows in asked.items()}
                auc = {what: evaluate_predictions(table)["auc"] for what, table in tables.items()}
                found.append({"seed": seed, "probe": probe, **auc})
    table = pd.DataFrame(found).groupby(["seed", "probe"], sort=False, as_index=False).mean()
    gap = {"measured": table["by image"] - table["by subject"], "true": table["known people"] - table["new people"]}
    return table.assign(**gap)


def evaluate_hold_outs(
    index: pd.DataFrame, numbers: dict[str, pd.DataFrame], subjects: Iterable[str], *, draws: int = 5
) -> pd.DataFrame:
    """Hold each of the named subjects out in turn, with drawn subjects of the other class, several times.

    Args:
        index: all rows.
        numbers: name of a probe's input -> the numbers by `row_keys`; a name that ends in ", subjects weighted"
            asks for that (see `evaluate_probe`).
        subjects: who is tested on, one at a time.
        draws: of the subjects of the other class.

    Returns:
        One row per subject, draw and input: `subject`, `draw`, `input`, `auc`, `people` tested on.
    """
    import pandas as pd

    rows = []
    for subject in subjects:
        for draw in range(draws):
            split = split_hold_out(index, [subject], seed=draw)
            train = pd.concat([split.train, split.validation])  # nothing is chosen here
            for name, values in numbers.items():
                table = evaluate_probe(train, split.test, values, by_subject=name.endswith("subjects weighted"))
                auc = evaluate_predictions(table)["auc"]
                people = split.test["group"].nunique()
                rows.append({"subject": subject, "draw": draw, "input": name, "auc": auc, "people": people})
    return pd.DataFrame(rows)


def choose_input(index: pd.DataFrame, numbers: dict[str, pd.DataFrame], *, draws: int = 1) -> str:
    """Return the input that does best on people of these rows, each of the fewer-headed class held out in turn.

    Give it training rows only: what is chosen on the people it is then tested on is chosen by luck.

    Args:
        index: rows that may be looked at.
        numbers, draws: see `evaluate_hold_outs`.

    Raises:
        AllkitError: too few people.
    """
    rows = index[index["label"].notna() & (index["part"] == "train")]
    people = rows.groupby("label")["group"].nunique()
    fewest = rows[rows["label"] == people.idxmin()]
    found = evaluate_hold_outs(rows, numbers, fewest.groupby("group")["subject"].first(), draws=draws)
    return str(found.groupby("input", sort=False)["auc"].mean().idxmax())
