"""Notebook 08: what the paper and the literature report, as tables, and what the printed numbers imply.

The tables lie as CSV under `data/paper/`. Accuracies are in percent, as the paper prints them. A model is called
"mobilenet" or "efficientnetb3".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import chi2, norm

from allkit import ROOT, AllkitError, plots
from allkit.cnmc import load_manifest
from allkit.data import source_images
from allkit.images import fitting_crop
from allkit.judging import printed
from allkit.judging.printed import CONFIRMED, CONTRADICTED, OPEN, verdict_row
from allkit.progress import track
from allkit.splits import Split, split_by_image, split_data
from allkit.train import LearningRateRule, build_from_profile, get_profile, train_model

FOLDER = ROOT / "data" / "paper"

AREA_MEAN, AREA_SPREAD = (36_244, 26_544), (7_176, 7_762)
"""Area of the cells of C-NMC 2019 by class, ALL and HEM, px: published means and standard deviations."""

_FILES = {"mobilenet": ("table1", "fig11"), "efficientnetb3": ("table2", "fig16")}

_SEED = 123  # of the paper's split


def _read(name: str) -> pd.DataFrame:
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        raise AllkitError(f"{path} is missing: restore data/paper from the repository.")
    return pd.read_csv(path)


def _files(model: str) -> tuple[str, str]:
    if model not in _FILES:
        raise AllkitError(f"The paper has no model {model!r}: use one of {', '.join(_FILES)}.")
    return _FILES[model]


def load_table(model: str) -> pd.DataFrame:
    """Notebooks 02, 04, 05, 08: load the paper's training table, Table I (MobileNet) or Table II (EfficientNetB3).

    One row per epoch: `epoch`, `loss`, `accuracy` (training, percent), `val_loss`, `val_accuracy` (percent), `lr`,
    `next_lr`, `monitor` ("accuracy" or "val_loss"), `improvement` (percent), `seconds`.
    """
    return _read(_files(model)[0])


def load_report(model: str) -> pd.DataFrame:
    """Notebooks 01, 06, 08: load the paper's classification report, Fig. 11 (MobileNet) or Fig. 16 (EfficientNetB3).

    Index `row` ("ALL", "HEM", "accuracy", "macro avg", "weighted avg"); columns `precision`, `recall`, `f1_score`
    (0-1, two decimals as printed; accuracy stands under `f1_score`) and `support` (images).
    """
    return _read(_files(model)[1]).set_index("row")


def load_reported() -> pd.DataFrame:
    """Notebooks 01, 06, 08: load the single figures that the paper states in its text.

    Columns `model` ("" where a figure concerns both), `measure`, `value`, `where` (in the paper) and `remark`, which
    says among others that the accuracies of the text are training accuracies.
    """
    return _read("reported").fillna({"model": "", "remark": ""})


def load_literature() -> pd.DataFrame:
    """Notebook 06: load what other studies report on C-NMC 2019.

    Columns `method`, `measure`, `value` (0-1), `test` (which images), `split` ("by subject" or "by image or not
    stated"), `reference` (arXiv or DOI), `verified` ("abstract": the figure was read in the study's own abstract;
    "second-hand": it was not, so check it before quoting) and `remark`.
    """
    return _read("literature").fillna({"reference": "", "remark": ""})


def possible_counts(accuracy_percent: float, decimals: int, n: int) -> list[int]:
    """Notebooks 02, 08: list every count of right answers among `n` images that prints as this accuracy.

    A printed accuracy is a fraction k/n in disguise: if no k fits, it was not measured on n images.
    """
    return printed.counts_of(printed.percent(accuracy_percent, decimals), n).tolist()


def reconstruct_confusion(report: pd.DataFrame, *, correct: int | None = None) -> list[np.ndarray]:
    """Notebooks 06, 08: find every confusion matrix that prints as a two-class report (Figs. 11 and 16).

    The report (see `load_report`) gives the images per class, so only two numbers are free: how many of each class were
    recognised. All pairs are tried; `correct` is their sum, where it is known (section IV). The matrices are (2, 2),
    rows true, columns predicted, in the order of the report; there may be none.
    """
    n_first, n_second = (int(n) for n in report["support"].iloc[:2])
    cells = []
    for (row, column), measure in printed.REPORT.items():
        name = report.index[row] if isinstance(row, int) else row
        if name in report.index and not np.isnan(report.loc[name, column]):
            cells.append((measure, printed.percent(100 * report.loc[name, column], 0)))
    pairs = printed.fitting_matrices(cells, n_first, n_second).tolist()
    fits = [(a, d) for a, d in pairs if correct is None or a + d == correct]
    return [np.array([[a, n_first - a], [n_second - d, d]]) for a, d in fits]


def summarise(model: str) -> dict[str, float]:
    """Notebooks 06, 08: return what the paper's test part says of a model, from Figs. 11 and 16 and Tables I and II.

    accuracy, balanced_accuracy and weighted_f1 (0-1) come from the reconstructed confusion matrix (the mean,
    where several round to the printed report), auc from the text, training_seconds is the sum over the epochs.
    """
    measures = np.mean([_measures_of(matrix) for matrix in _matrices_of(model)], axis=0)
    found = dict(zip(("accuracy", "balanced_accuracy", "weighted_f1"), measures.tolist(), strict=True))
    return found | {"auc": _stated("auc", model), "training_seconds": float(load_table(model)["seconds"].sum())}


def _matrices_of(model: str) -> list[np.ndarray]:
    return reconstruct_confusion(load_report(model), correct=int(_stated("correct", model)))


def _stated(measure: str, model: str = "") -> float:
    table = load_reported()
    return float(table.loc[(table["model"] == model) & (table["measure"] == measure), "value"].iloc[0])


def _measures_of(matrix: np.ndarray) -> list[float]:
    """Accuracy, mean recall and weighted F1 of a confusion matrix, rows true."""
    (tp, tn), (p, n) = np.diag(matrix), matrix.sum(axis=1)
    found = printed.matrix_measures(tp, tn, p, n)
    return [float(found[name]) for name in ("accuracy", "balanced_accuracy", "weighted_f1")]


def audit_paper() -> pd.DataFrame:
    """Notebook 08: check the paper against its own tables and the data set's list of files.

    One row per claim: claim, where (in the paper), stated, found (both as text, computed here), verdict ("confirmed",
    "contradicted", "inconclusive").
    """
    checks = (
        _audit_images, _audit_test_part, _audit_split_sizes, _audit_balancing, _audit_accuracy, _audit_rule,
        _audit_matrices, _audit_training_gain, _audit_first_loss, _audit_size, _audit_difference, _audit_unseen,
    )  # fmt: skip
    return pd.DataFrame([check() for check in checks])


def _labelled() -> pd.DataFrame:
    manifest = load_manifest()
    return manifest[manifest["part"] == "train"]


def _audit_images() -> dict[str, str]:
    found, stated = len(_labelled()), int(_stated("images"))
    share = load_report("mobilenet")["support"]
    own, said = share["HEM"] / (share["ALL"] + share["HEM"]), _stated("images_HEM") / stated
    return verdict_row(
        "How many images the data set has", "III.A", f"{stated:,}, of them {said:.1%} HEM",
        f"{found:,} labelled ones in its list of files; the paper's own test part is {own:.1%} HEM",
        CONFIRMED if found == stated else CONTRADICTED,
    )  # fmt: skip


def _audit_test_part() -> dict[str, str]:
    counts = _split_like_the_paper().test["label"].value_counts()
    expected = {label: int(counts[label]) for label in ("ALL", "HEM")}
    support = load_report("mobilenet")["support"]
    fits = all(support[label] == count for label, count in expected.items())
    return verdict_row(
        "The test part is 15 % of all labelled images, stratified by class", "Figs. 11 and 16",
        " / ".join(f"{int(support[label]):,} {label}" for label in expected),
        " / ".join(f"{count:,} {label}" for label, count in expected.items()), CONFIRMED if fits else CONTRADICTED,
    )  # fmt: skip


def sizes_that_fit(accuracies: Sequence[float], sizes: Iterable[int]) -> list[int]:
    """Notebook 08: return the sizes on which every accuracy (percent, 3 decimals) is a whole number of images."""
    return printed.fitting_sizes([printed.percent(accuracy, 3) for accuracy in accuracies], sizes)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers) or "none"


def _accuracies(column: str) -> list[float]:
    return [value for model in _FILES for value in load_table(model)[column]]


def split_sizes(images: int) -> tuple[int, int, int]:
    """Notebook 08: return the sizes of 70 / 15 / 15 % parts, made in scikit-learn's two steps (III.A)."""
    held = images - int(images * 0.7)
    return images - held, held - -(-held // 2), -(-held // 2)


def _audit_split_sizes() -> dict[str, str]:
    train, validation, _ = split_sizes(len(_labelled()))
    fit = sizes_that_fit(_accuracies("val_accuracy"), range(200, 3001))
    also = bool(sizes_that_fit(_accuracies("accuracy"), [train]))
    return verdict_row(
        "The split is 70 / 15 / 15 % of all labelled images", "III.A", "70 / 15 / 15 %",
        f"of all validation parts of 200 to 3,000 images the printed accuracies fit {_listed(fit)} only; "
        f"those of training {'fit' if also else 'do not fit'} {train:,}",
        CONFIRMED if fit == [validation] and also else CONTRADICTED,
    )  # fmt: skip


def _audit_balancing() -> dict[str, str]:
    share = 0.7 * _labelled()["label"].value_counts()
    balanced = 2 * round(share.max())
    train = split_sizes(len(_labelled()))[0]
    fit = sizes_that_fit(_accuracies("accuracy"), [train, *range(balanced - 20, balanced + 21)])
    return verdict_row(
        "The classes were balanced by added images before training", "III.B.1",
        f"a training part of about {balanced:,} images",
        f"of the sizes near that and {train:,} the training accuracies fit {_listed(fit)} only",
        OPEN if len(fit) != 1 else CONTRADICTED if fit == [train] else CONFIRMED,
    )  # fmt: skip


def _audit_accuracy() -> dict[str, str]:
    stated, test, last = [], [], []
    for model in _FILES:
        stated.append(_stated("accuracy_percent", model))
        right, wrong = _stated("correct", model), _stated("wrong", model)
        test.append(100 * right / (right + wrong))
        last.append(load_table(model)["accuracy"].iloc[-1])
    return verdict_row(
        "The accuracy of the two networks", "IV", " / ".join(f"{v:.3f} %" for v in stated),
        f"on the test part {' / '.join(f'{v:.3f} %' for v in test)}; "
        + ("the stated ones are those of training, last epoch" if stated == last else "the stated ones are of no part"),
        CONFIRMED if np.allclose(stated, test, atol=0.01) else CONTRADICTED,
    )  # fmt: skip


def replay_rule(model: str) -> pd.DataFrame:
    """Notebook 08: feed the losses and accuracies of Table I or II to the recovered rule; return what it gives."""
    table, rule, lr, rows = load_table(model), LearningRateRule(), None, []
    for epoch in table.itertuples():
        lr = epoch.lr if lr is None else lr
        step = rule.update(epoch.accuracy / 100, epoch.val_loss, lr)
        rows.append({"lr": lr, **step})
        lr = step["next_lr"]
    return pd.DataFrame(rows).drop(columns="improved")


def _audit_rule() -> dict[str, str]:
    right = total = 0
    for model in _FILES:
        printed, given = load_table(model), replay_rule(model)
        for column, decimals in {"lr": 5, "next_lr": 5, "improvement": 2}.items():
            right += int((given[column].round(decimals) == printed[column]).sum())
        right += int((given["monitor"] == printed["monitor"]).sum())
        total += 4 * len(printed)
    return verdict_row(
        "One rule for the learning rate stands behind both tables", "Tables I and II", f"{total} cells",
        f"{right} of {total} follow from the recovered rule", CONFIRMED if right == total else CONTRADICTED,
    )  # fmt: skip


def _audit_matrices() -> dict[str, str]:
    counts = {model: len(_matrices_of(model)) for model in _FILES}
    return verdict_row(
        "The reports and the counts of right images belong together", "IV, Figs. 10-16",
        " / ".join(f"{int(_stated('correct', model)):,} right" for model in _FILES),
        " / ".join(f"{count} possible matri{'x' if count == 1 else 'ces'}" for count in counts.values()),
        CONFIRMED if all(counts.values()) else CONTRADICTED,
    )  # fmt: skip


def _audit_training_gain() -> dict[str, str]:
    support = load_report("mobilenet")["support"]
    always = 100 * support["ALL"] / (support["ALL"] + support["HEM"])
    below = load_table("mobilenet").query("val_accuracy < @always")["epoch"].tolist()
    return verdict_row(
        "MobileNet learns to separate the classes from the first epoch on", "Fig. 8, Table I",
        "training accuracy rises in every epoch",
        f"answering ALL always gives {always:.1f} %; on validation it is below that in "
        + (f"epochs {', '.join(map(str, below))}" if below else "no epoch"),
        CONTRADICTED if below else CONFIRMED,
    )  # fmt: skip


def initial_penalty(features: int) -> float:
    """Notebook 08: return the expected L2 penalty of the recovered head (256 units) on so many features, untrained.

    Its weights are Glorot-uniform, the strength of the penalty is 0.016.
    """
    units, strength = 256, 0.016
    return strength * features * units * 2 / (features + units)


def _audit_first_loss() -> dict[str, str]:
    firsts = [load_table(model)["loss"].iloc[0] for model in _FILES]
    start = [initial_penalty(features) for features in (1024, 1536)]  # width of the networks' last feature maps
    guess = math.log(2)
    explained = all(guess < first < penalty + guess for first, penalty in zip(firsts, start, strict=True))
    return verdict_row(
        "The loss says how well the classes are separated", "Tables I and II",
        f"first epoch {' / '.join(f'{v:.3f}' for v in firsts)}",
        f"guessing costs {guess:.2f}; the head's L2 penalty alone starts at {' / '.join(f'{v:.1f}' for v in start)}",
        CONTRADICTED if explained else OPEN,
    )  # fmt: skip


def auc_of_normals(mean: tuple[float, float], spread: tuple[float, float]) -> float:
    """Notebook 08: return the AUC of a number that is normal in both classes, from means and standard deviations."""
    return float(norm.cdf(abs(mean[0] - mean[1]) / math.hypot(*spread)))


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """Notebook 08: return the standard error of an AUC on independent images (Hanley and McNeil, 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return math.sqrt(spread / (positives * negatives))


def _audit_size() -> dict[str, str]:
    area, stated = auc_of_normals(AREA_MEAN, AREA_SPREAD), _stated("auc", "mobilenet")
    support = load_report("mobilenet")["support"]
    error = auc_error(stated, int(support["ALL"]), int(support["HEM"]))
    more = (stated - area) > 1.96 * error
    return verdict_row(
        "MobileNet sees more in a cell than its size", "IV, Fig. 12", f"AUC {stated:.2f}",
        f"area alone has AUC {area:.2f}; the difference is {(stated - area) / error:.1f} standard errors",
        CONFIRMED if more else OPEN,
    )  # fmt: skip


def mcnemar_bounds(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Notebook 08: return the smallest and the largest p of McNemar's test that two confusion matrices allow.

    They are (2, 2), rows true, of the same test images. Which images both got right is not printed. Per class the
    images that only one of them got right differ by a fixed number; their sum lies between that difference and what
    the totals allow.
    """
    fewest = most = difference = 0
    for a, b, n in zip(np.diag(first), np.diag(second), first.sum(axis=1), strict=True):
        difference += int(b) - int(a)
        fewest += abs(int(b) - int(a))
        most += int(min(a + b, 2 * n - a - b))
    return tuple(float(chi2.sf(difference**2 / total, 1)) if total else 1.0 for total in (fewest, most))


def _audit_difference() -> dict[str, str]:
    pairs = [
        mcnemar_bounds(first, second)
        for first in _matrices_of("mobilenet")
        for second in _matrices_of("efficientnetb3")
    ]
    low, high = min(p for p, _ in pairs), max(p for _, p in pairs)
    verdict = CONFIRMED if high < 0.05 else OPEN
    return verdict_row(
        "EfficientNetB3 is better than MobileNet on these images", "IV, V",
        f"{int(_stated('correct', 'efficientnetb3')):,} against {int(_stated('correct', 'mobilenet')):,} right",
        f"McNemar's p between {low:.0e} and {high:.0e}, however their errors overlap (images taken as independent, "
        "which cells of one subject are not)", verdict,
    )  # fmt: skip


@cache
def _split_like_the_paper() -> Split:
    """Split the data set's list of files by image, 70 / 15 / 15 %, as the paper did (III.A)."""
    rows = _labelled()
    source = source_images(rows["original"])
    # the list's own column of that name counts them
    rows = rows.drop(columns="bytes").rename(columns={"sha256": "bytes"})
    return split_by_image(rows.assign(**{"source image": source}), seed=_SEED)


def shared_with_training() -> dict[str, float]:
    """Notebook 08: split the data set's list by image as the paper did; what do test images share with training?

    Shares, 0-1, of test images with a cell of the same subject, of the same source image, and with the same bytes in
    training.
    """
    split = _split_like_the_paper()
    return {name: split.share_known(name) for name in ("subject", "source image", "bytes")}


def _audit_unseen() -> dict[str, str]:
    shared = shared_with_training()
    return verdict_row(
        "The test images are new to the networks", "III.A", "split by image",
        ", ".join(f"{share:.1%} share their {name}" for name, share in shared.items()) + " with training",
        CONTRADICTED if shared["subject"] > 0 else CONFIRMED,
    )  # fmt: skip


def split_for_experiment(index: pd.DataFrame, *, seed: int = 123) -> Split:
    """Notebook 08: split by subject, or by image where subjects are unknown: the experiment is about training alone."""
    known = index.loc[index["label"].notna() & (index["part"] == "train"), "subject"].notna().all()
    return split_data(index, "subject" if known else "image", seed=seed)


COLLAPSE = {
    "the recipe": {"rescale": False, "momentum": 0.99},
    "input from -1 to 1": {"rescale": True, "momentum": 0.99},
    "momentum 0.8": {"rescale": False, "momentum": 0.8},
}
"""The paper's recipe, and the recipe with one suspect taken away at a time."""


def evaluate_collapse(
    split: Split,
    index: pd.DataFrame,
    *,
    image_size: int = 96,
    epochs: int = 5,
    all_layers: bool = False,
    seeds: Sequence[int] = (1, 2, 3),
) -> pd.DataFrame:
    """Notebook 08: train MobileNet by the paper's recipe and its variants (`COLLAPSE`), small, with several seeds.

    From the kit's drawn weights, the head alone or all layers. One row per variant, seed and epoch: variant, seed,
    epoch, accuracy (training), val_accuracy and val_balanced_accuracy, 0–1.
    """
    runs = [(name, seed) for name in COLLAPSE for seed in seeds]
    tables = []
    for name, seed in track(runs, "trainings", unit="training"):
        profile = get_profile(
            "paper", "mobilenet", index, weights="drawn", image_size=image_size, epochs=epochs,
            crop=fitting_crop(300, index), frozen_copies=0 if all_layers else 1, augmentation=None,
            best_by="balanced_accuracy", **COLLAPSE[name],
        )  # fmt: skip
        model = build_from_profile("mobilenet", profile, split.train["label"].nunique(), seed=seed)
        history = train_model(model, split, profile, seed=seed, show=False).history
        table = history[["epoch", "accuracy", "val_accuracy", "val_balanced_accuracy"]]
        tables.append(table.assign(variant=name, seed=seed))
    return pd.concat(tables, ignore_index=True)


def plot_collapse(table: pd.DataFrame, validation: pd.DataFrame) -> np.ndarray:
    """Notebook 08: draw training, validation and balanced validation accuracy over the epochs, one line per training.

    The dotted lines are what constant answers get on the `validation` part.
    """
    _, axes = plt.subplots(1, 3, figsize=(11.4, 3.4), sharey=True)
    shares = validation["label"].value_counts(normalize=True)
    constant = {"accuracy": {}, "val_accuracy": shares.to_dict(), "val_balanced_accuracy": {"any": 1 / len(shares)}}
    titles = ("training accuracy", "validation accuracy", "validation, balanced accuracy")
    for ax, title, (column, lines) in zip(axes, titles, constant.items(), strict=True):
        plots.plot_lines(table, "epoch", column, by="variant", unit="seed", ylabel="accuracy", percent=True, ax=ax)
        for name, share in lines.items():
            ax.axhline(share, color="0.4", linestyle=":")
            word = {"fontsize": 8, "color": "0.35", "textcoords": "offset points"}
            place = (table["epoch"].max(), share)
            ax.annotate(f"always {name}" if name != "any" else "constant", place, (0, 3), ha="right", **word)
        last = table[table["epoch"] == table["epoch"].max()]
        ends = last.groupby("variant", sort=False)[column].agg(["min", "max"])
        listed = "; ".join(f"{name} {row['min']:.0%} to {row['max']:.0%}" for name, row in ends.iterrows())
        ax.set_title(title)
        plots.describe(ax, f"{title.capitalize()} in the last epoch: {listed}.")
        ax.get_legend().set_visible(ax is axes[0])
    axes[0].set_ylim(0, 1.03)
    return axes


def describe_collapse(table: pd.DataFrame, classes: int = 2) -> str:
    """Notebook 08: return how far each variant is from a constant answer on validation images, and what cures it."""
    last, guess, lines, found = table[table["epoch"] == table["epoch"].max()], 1 / classes, [], {}
    for name, rows in last.groupby("variant", sort=False):
        held = rows["val_balanced_accuracy"]
        found[name] = "cured" if held.min() > guess + 0.1 else "helped" if held.mean() > guess + 0.03 else "constant"
        word = {
            "cured": "it answers",
            "helped": "little more than a constant answer",
            "constant": "**a constant answer**",
        }
        lines.append(
            f"- {name}: {rows['accuracy'].mean():.0%} on training images; on validation images "
            f"{rows['val_accuracy'].min():.0%} to {rows['val_accuracy'].max():.0%}, balanced {held.min():.0%} to "
            f"{held.max():.0%}: {word[found[name]]}"
        )
    recipe, *others = found
    lowest = table.loc[table["variant"] == recipe, "val_accuracy"].min()
    lines += ["", f"The lowest validation accuracy of {recipe} in any epoch is **{lowest:.1%}**."]
    if found[recipe] != "constant":
        return "\n".join([*lines, "The recipe does not collapse here; what the paper saw is not reproduced."])
    cures = {state: [name for name in others if found[name] == state] for state in ("cured", "helped")}
    end = f"What cures it here: **{', '.join(cures['cured']) or 'neither change'}**."
    end += f" What helps a little: {', '.join(cures['helped'])}." if cures["helped"] else ""
    return "\n".join([*lines, end])


def count_fits(accuracies: Iterable[float], n: int) -> str:
    """Notebook 02: return how many of these accuracies (percent, 3 decimals) fit `n` images, in words."""
    accuracies = list(accuracies)
    return f"{sum(bool(possible_counts(one, 3, n)) for one in accuracies)} of {len(accuracies)}"


def locate_accuracies() -> pd.DataFrame:
    """Notebook 08: return the accuracies of the text beside those of training, validation and test, percent."""
    stated = load_reported().query("measure == 'accuracy_percent'").set_index("model")["value"]
    ends = {model: load_table(model).iloc[-1] for model in _FILES}
    return pd.DataFrame(
        {
            "text": stated,
            "training, last epoch": {model: row["accuracy"] for model, row in ends.items()},
            "validation, last epoch": {model: row["val_accuracy"] for model, row in ends.items()},
            "test": {model: 100 * summarise(model)["accuracy"] for model in _FILES},
        }
    ).round(3)


def mcnemar_of_both() -> tuple[float, float]:
    """Notebook 08: return the smallest and the largest p of McNemar's test over all pairs of matrices that fit."""
    stated = load_reported().query("measure == 'correct'").set_index("model")["value"].astype(int)
    fits = [reconstruct_confusion(load_report(model), correct=stated[model]) for model in _FILES]
    bounds = [mcnemar_bounds(a, b) for a in fits[0] for b in fits[1]]
    return min(low for low, _ in bounds), max(high for _, high in bounds)
