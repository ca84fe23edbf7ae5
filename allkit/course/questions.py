"""The exercises of the notebooks, as data: what is right, which mistakes get which hint.

How to add one: see `allkit.course.exercises`. The questions in words stand in the notebooks. Nothing here may hold for
the synthetic twin alone: what depends on the data is computed from the notebook's own objects.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from allkit.augment import plant_shortcut
from allkit.course.grading import Between, Exercise, OneOf
from allkit.data import class_order
from allkit.evaluate import classes_of, evaluate_predictions, probabilities_of
from allkit.splits import augment_then_split, count_leaked_copies


def _subjects_of_smallest(train: pd.DataFrame) -> int:
    return _of_smallest(train)["subject"].nunique()


def _of_smallest(train: pd.DataFrame) -> pd.DataFrame:
    return train[train["label"] == train["label"].value_counts().idxmin()]


def _subjects_unknown(train: pd.DataFrame) -> str:
    if train["subject"].notna().any() and train["subject"].isna().any():
        return "some of these images have no subject. Hand over the training part: `train=train`."
    return "whose images these are is unknown." if train["subject"].isna().any() else ""


def _column_aucs(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the AUC of each measured number, one row per class; below 0.5, smaller numbers speak for the class."""
    classes = class_order(measured)
    classes = classes[:1] if len(classes) == 2 else classes
    numbers = measured.drop(columns="label").dropna(axis=1)
    return pd.DataFrame(
        {name: [roc_auc_score(measured["label"] == label, numbers[name]) for label in classes] for name in numbers}
    )


def _best_columns(measured: pd.DataFrame, either_way: bool = True) -> OneOf:
    aucs = _column_aucs(measured)
    reached = (aucs.where(aucs >= 0.5, 1 - aucs) if either_way else aucs).mean()
    return OneOf(tuple(reached.index[reached >= reached.max() - 0.005]))


def _largest_step(measured: pd.DataFrame) -> str:
    means = measured.groupby("label").mean(numeric_only=True)
    return (means.max() - means.min()).idxmax()


def _leaked(index: pd.DataFrame, seed: int, step: int = 1, column: str = "share") -> float:
    return count_leaked_copies(augment_then_split(index, seed=seed + step))[column].iloc[-1]


def _stage(stages: pd.DataFrame, column: str) -> OneOf:
    return OneOf(tuple(stages.loc[stages[column] == stages[column].max(), "stage"]))


def _mean_precision(predictions: pd.DataFrame) -> float:
    measures = evaluate_predictions(predictions)
    return float(np.mean([measures[f"precision_{name}"] for name in classes_of(predictions)]))


def _worth_of_subjects(
    kept: pd.DataFrame, technique: str = "pre-trained", curve: str = "subjects", to: int = 1
) -> float:
    """Return the AUC with the second fewest subjects (cells, or those at place `to`) minus that with the fewest."""
    rows = kept[(kept["curve"] == curve) & (kept["technique"] == technique)].sort_values(curve)
    return float(rows["auc"].iloc[to] - rows["auc"].iloc[0])


def _share_of_largest(rows: pd.DataFrame) -> float:
    return rows["label"].value_counts(normalize=True).max()


def _called(predictions: dict[str, pd.DataFrame], threshold: float, positive: bool = True) -> float:
    """Return sensitivity, or else specificity, of the first network with this threshold."""
    table = next(iter(predictions.values()))
    first = table["label"] == classes_of(table)[0]
    called = probabilities_of(table)[:, 0] >= threshold
    return float(called[first].mean() if positive else (~called[~first]).mean())


def _count_called(predictions: dict[str, pd.DataFrame]) -> int:
    table = next(iter(predictions.values()))
    first = table["label"] == classes_of(table)[0]
    return int((probabilities_of(table)[:, 0] >= 0.9)[first].sum())


def _sure(predictions: pd.DataFrame) -> np.ndarray:
    return probabilities_of(predictions).max(axis=1) >= 0.9


def _right_where_sure(predictions: pd.DataFrame) -> float:
    return evaluate_predictions(predictions[_sure(predictions)])["accuracy"]


def _moved(predictions: pd.DataFrame, low: float, high: float) -> int:
    first = probabilities_of(predictions)[:, 0]
    return int(((first >= low) & (first < high)).sum())


def _slips_through(rejections: pd.DataFrame, most: bool = False) -> OneOf:
    others = rejections["rejected"].iloc[1:]
    return OneOf(tuple(others.index[others == (others.max() if most else others.min())]))


def _ppv(best: np.ndarray, prevalence: float) -> float:
    sensitivity, specificity = best.diagonal() / best.sum(axis=1)
    hits, alarms = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    return hits / (hits + alarms)


def _by_split_kind(found: pd.DataFrame, baseline: str = "nearest neighbours") -> pd.Series:
    return found[found["baseline"] == baseline].groupby("split_kind", sort=False)["auc"].mean()


_PAPER, _IMAGE, _SUBJECT = "augment, then split", "by image", "by subject, duplicates merged"
_NAMED = "by subject, as named"


def _step(first: str, second: str, baseline: str = "nearest neighbours") -> Callable[..., float]:
    return lambda found: _by_split_kind(found, baseline)[first] - _by_split_kind(found, baseline)[second]


def _leaks_seen(strong: pd.DataFrame, baseline: str = "nearest neighbours", column: str = "measured") -> float:
    """Return in how many of thirty runs the difference would be above 0.05, on average."""
    return float(30 * (strong.loc[strong["baseline"] == baseline, column] > 0.05).mean())


def _splits_missing(found: pd.DataFrame) -> str:
    possible = {_PAPER, _IMAGE, _SUBJECT} <= set(found["split_kind"])
    return "" if possible else "these data do not allow all the splits it needs."


def _shares_files(found: pd.DataFrame) -> OneOf:
    shared = found.groupby("split_kind", sort=False)["file"].mean()
    return OneOf(tuple(shared.index[shared == shared.max()]))


def _coverage(simulated: pd.DataFrame, unit: str, column: str = "covers") -> float:
    return simulated[(simulated["resampled"] == unit) & (simulated["subjects"] == 10)][column].iat[0]


def _threshold_at(predictions: dict[str, pd.DataFrame], wanted: float, of: str = "specificity") -> Between:
    """Return all thresholds that do the same as the lowest (highest) with so much specificity (sensitivity)."""
    table = next(iter(predictions.values()))
    first = (table["label"] == classes_of(table)[0]).to_numpy()
    scores = probabilities_of(table)[:, 0]
    cuts = np.append(np.unique(scores), np.nextafter(1, 2))
    right = [(scores[~first] < cut).mean() if of == "specificity" else (scores[first] >= cut).mean() for cut in cuts]
    good = np.flatnonzero(np.array(right) >= wanted - 1e-9)
    place = good.min() if of == "specificity" else good.max()
    below = cuts[place - 1] if place else 0.0
    return Between(float(np.nextafter(below, 1)), float(cuts[place]))


def _map_score(scores: pd.DataFrame, method: str, column: str = "pointing", mask: str = "cell") -> float:
    return scores[(scores["mask"] == mask) & (scores["method"] == method)][column].mean()


def _no_outlines(scores: pd.DataFrame) -> str:
    return "" if "method" in scores else "the outlines of the cells are not known, so no map can be scored."


def _marked(train: pd.DataFrame, target: str, share: float, *, of_class: bool = False) -> float:
    """Return the share of training images, or of those of the class, that are marked."""
    marked = plant_shortcut(train, [target], share=share, seed=1)
    rows = marked[marked["label"] == target] if of_class else marked
    return float((rows["augmentation"] != "").mean())


def _fall(name: str, to: str) -> Callable[..., float]:
    return lambda reached: reached[name]["mark as in training"] - reached[name][to]


def _explain(number: str, truth: str, why: str, *, misconception: str, **hints: str) -> Exercise:
    """Return a question whose answer is a letter; `hints` maps each wrong letter to what is wrong about it."""
    letters = sorted([truth, *hints])
    hint = f"The answer is one of the letters {letters[0]} to {letters[-1]}."
    mistakes = tuple(hints.items())
    return Exercise(number, "explain", "choice", truth, why, hint, mistakes, misconception=misconception)


_START = (
    Exercise(
        id="00.1",
        level="look",
        kind="number",
        given=("index",),
        truth=lambda index: len(index),
        mistakes=(
            (
                lambda index: int(index["label"].notna().sum()),
                "These are the images with a label. Some have none; `len(index)` counts all rows.",
            ),
            (lambda index: index.shape[1], "That is the number of columns. One row is one image: `len(index)`."),
        ),
        why="One row is one image. Any form of the number would have done: an integer, a float, a text, an array.",
        hint="One row of the table `index` is one image.",
        more="Let Python count: `answer = len(index)`.",
    ),
    Exercise(
        id="00.2",
        level="compute",
        kind="number",
        given=("index",),
        unless=lambda index: "" if index["subject"].notna().any() else "whose images these are is unknown.",
        truth=lambda index: index["subject"].nunique(),
        mistakes=(
            (lambda index: int(index["subject"].count()), "These are images whose subject is known, not subjects."),
            (lambda index: index["label"].nunique(), "That is the number of classes."),
            (
                lambda index: index["subject"].nunique(dropna=False),
                "One too many: *unknown* is listed among the different values, and is nobody.",
            ),
            (
                lambda index: index.loc[index["subject"].notna(), "group"].nunique(),
                "These are groups: names that share an image may be one person. Here the names are counted.",
            ),
        ),
        why="Images come in plenty, subjects are few. Keep this number in mind: most of the course is about it.",
        hint="The subjects are the different values of one column. What about rows that have none?",
        more='The subjects are the different values of one column: `index["subject"].nunique()`.',
    ),
    Exercise(
        id="00.3",
        level="compute",
        kind="share",
        tolerance=0.001,
        truth=0.8,
        mistakes=(
            (0.2, "That is the share that is wrong. How many are right?"),
            (16, "That is how many are right. Give their share of the twenty."),
            (4, "These are the wrong ones, as a number. Give the share of the right ones."),
        ),
        why="And with twenty cells that may stand for anything between about six and nine in ten.",
        hint="How many of the twenty are right?",
        more="Sixteen of twenty are right; divide.",
    ),
    _explain(
        "00.4",
        "b",
        "The kit teaches and compares methods. Nothing it prints is about a person's health.",
        misconception="a network's answer is a diagnosis",
        a="A network's probability is about its own scores, on images like those it learned from.",
        c="A rejected image is no finding either: the kit rejects blurred pictures and pictures of cats.",
    ),
)

_EXPLORE = (
    Exercise(
        id="01.1",
        level="look",
        kind="number",
        given=("train",),
        unless=_subjects_unknown,
        truth=_subjects_of_smallest,
        mistakes=(
            (lambda train: len(_of_smallest(train)), "These are its images. How many different names of `subject`?"),
            (lambda train: train["subject"].nunique(), "These are the subjects of all classes together."),
            (
                lambda train: _of_smallest(train)["group"].nunique(),
                "These are groups: names that share an image may be one person. Here the names are counted.",
            ),
        ),
        why="However many cells there are, what is known about this class is known from these few subjects.",
        hint="Which class has the fewest images, and how many different people gave them?",
        more="Take the rows of the class with the fewest images and count the different values of `subject`.",
    ),
    Exercise(
        id="01.2",
        level="compute",
        kind="share",
        given=("train",),
        tolerance=0.006,
        truth=lambda train: 1 / train["label"].nunique(),
        mistakes=(
            (_share_of_largest, "That is the plain accuracy. Take the recall of each class first, then their mean."),
            (0, "One class is always right: its recall is 1. The other classes have 0. Now the mean of all."),
            (1, "Only the largest class is always right. What about the others?"),
        ),
        why="Recall 1 for one class and 0 for all others: the mean gives the lazy answer away, whatever the imbalance.",
        hint="What is the recall of the class that is always answered, and what is that of the others?",
        more="Balanced accuracy is the mean over the classes of the share of images that are recognised.",
        misconception="accuracy under imbalance",
    ),
    Exercise(
        id="01.3",
        level="change",
        kind="name",
        given=("measured",),
        names=lambda measured: measured.columns.drop("label"),
        truth=_best_columns,
        mistakes=(
            (
                lambda measured: _best_columns(measured, either_way=False),
                "The highest AUC, but 0.2 is farther from guessing than 0.7: smaller may be as good a rule as larger.",
            ),
            (
                _largest_step,
                "Its means lie farthest apart, but in units of its own. The AUC compares numbers of any unit.",
            ),
        ),
        why="Farthest from guessing, in either direction. Whether it is best on other images, nobody has tried yet.",
        hint="Go through all columns but `label`. Which AUC is farthest from one half, in either direction?",
        more="For every column compute `roc_auc_score`, turn values below 0.5 round (1 - AUC), and take the largest.",
    ),
    _explain(
        "01.4",
        "c",
        "The next patient is not in the training part, so only the split by subject is about her.",
        misconception="leakage",
        a="More subjects in training would help on new subjects. But this test is about the same subjects.",
        b="Both are tested on as many images. What differs is whose they are.",
        d="The mean of the answers to two different questions answers neither.",
    ),
)


def _turned(i: float, j: float) -> tuple[float, float]:
    return 4 - j, i


_ROTATE = (
    Exercise(
        id="02.1",
        level="look",
        kind="set",
        truth=OneOf(((90, 180, 270), (np.pi / 2, np.pi, 3 * np.pi / 2))),
        mistakes=(
            ((90, 270), "Half a turn is exact as well: sine 0, cosine -1."),
            ((180,), "At quarter turns sine and cosine are whole numbers, too."),
            ((90, 180), "Turn by 90 degrees once more. Is anything lost?"),
            ((45, 90, 135, 180, 270), "At 45 degrees the next pixel lands 0.7 rows and 0.7 columns away."),
        ),
        why="Only where sine and cosine are -1, 0 or 1 do whole rows and columns land on whole ones.",
        hint="After which of these turns is every whole row and column whole again?",
        more="Look at sine and cosine of each angle: all pixels land on pixels only if both are whole numbers.",
    ),
    Exercise(
        id="02.2",
        level="compute",
        kind="function",
        truth=_turned,
        inputs=((0, 0), (0, 4), (1, 3), (2, 2), (3, 0)),
        mistakes=(
            (lambda i, j: (j, 4 - i), "That is -90 degrees, clockwise on the screen. Mind the sign of the sine."),
            (lambda i, j: (i, 4 - j), "That is a mirror image: a flip. In a quarter turn rows become columns."),
            (lambda i, j: (j, i), "That mirrors the image at its diagonal. Where does the top left pixel (0, 0) go?"),
            (lambda i, j: (-j, i), "Turned about the top left corner. Subtract the centre (2, 2) and add it again."),
        ),
        tolerance=0.01,
        why="Rows count downwards, so plus 90 degrees turns counter-clockwise: top left goes to bottom left.",
        hint="Where must the top left pixel (0, 0) go? Try your function on it.",
        more="Put the cosine of 90 degrees (0), its sine (1) and the centre (2, 2) into both equations.",
    ),
    Exercise(
        id="02.3",
        level="change",
        kind="share",
        given=("index", "seed"),
        tolerance=0.006,
        truth=_leaked,
        mistakes=(
            (lambda index, seed: _leaked(index, seed, step=0), "That is the share with the old seed. Pass `seed + 1`."),
            (lambda index, seed: _leaked(index, seed, column="leaked"), "That is how many. Give the share."),
        ),
        why="Another seed, other cells, another share, and all else is the same: one split is one draw.",
        hint="Everything but the seed stays as above. Which of the parts is asked about?",
        more="Split with `splits.augment_then_split(index, seed=seed + 1)` and count; the last row is the test part.",
    ),
    _explain(
        "02.4",
        "d",
        "It has learned this very cell's label. A rotated copy is a new image and not a new cell.",
        misconception="leakage",
        a="The pixels differ; the cell and its label do not, and a network learns to see past a turn.",
        b="The guard looks at subjects and contents. Numbers of images are no leak.",
        c="More test images make the score steadier. They do not make it too high.",
    ),
)


def _convolved() -> tuple[float, ...]:
    row = (10, 10, 40, 40)
    return tuple(float(right - left) for left, right in zip(row, row[2:], strict=False))


def _steps(images: int, batch_size: int = 50, epochs: int = 8) -> int:
    return -(-images // batch_size) * epochs


_LEARN = (
    Exercise(
        id="03.1",
        level="look",
        kind="number",
        given=("tiny",),
        truth=lambda tiny: tiny.count_params(),
        mistakes=(
            (lambda tiny: len(tiny.layers), "These are its layers. Each holds many weights."),
            (lambda tiny: tiny.layers[-1].count_params(), "These are the weights of the last layer alone."),
            (lambda tiny: len(tiny.get_weights()), "These are its arrays of weights. How many numbers are in them?"),
        ),
        why="Training changes these numbers and nothing else. MobileNet has millions of them.",
        hint="The cell that makes the network prints it.",
        more="`tiny.count_params()`",
    ),
    Exercise(
        id="03.2",
        level="compute",
        kind="number",
        tolerance=0.006,
        truth=float(-np.log(0.25)),
        mistakes=(
            (0.75, "That is what was missing. The loss is minus the logarithm of the probability."),
            (float(np.log(0.25)), "The right size. A loss is *minus* the logarithm, and never below zero."),
            (float(-np.log10(0.25)), "That is the logarithm to base 10. The loss takes the natural one, `np.log`."),
            (2.0, "That is the logarithm to base 2. The loss takes the natural one, `np.log`."),
            (float(-np.log(0.75)), "That is the loss had the other class been true."),
        ),
        why="Twice as much as for one half: a loss counts how often the probability of the truth was halved.",
        hint="What does the loss of one image depend on, besides the probability of its true class? Nothing.",
        more="Minus the natural logarithm of 0.25.",
    ),
    Exercise(
        id="03.3",
        level="compute",
        kind="list",
        tolerance=0.01,
        truth=_convolved,
        mistakes=(
            ((-30, -30), "The signs are turned round: the weight of the right pixel is plus 1."),
            (
                (0, 30, 0),
                "These are differences of neighbours. The filter skips the pixel in the middle: its weight is 0.",
            ),
            ((20, 50), "Right minus left, not plus: the first weight is minus 1."),
            ((10, 30, 30, -40), "At the ends the window would stick out; `convolve` leaves these places away."),
        ),
        why="High where it gets lighter to the right: it finds the edge, and is as high on both sides of it.",
        hint="How many windows of three pixels fit into four?",
        more="Each result is the third pixel of the window minus the first.",
    ),
    Exercise(
        id="03.4",
        level="change",
        kind="number",
        given=("labels",),
        truth=lambda labels: _steps(len(labels)),
        mistakes=(
            (lambda labels: _steps(len(labels), epochs=1), "That is for one epoch."),
            (lambda labels: _steps(len(labels), batch_size=32), "That is with batches of 32. Here they hold 50."),
            (lambda labels: 8 * len(labels), "One step per *batch*, not per image."),
            (lambda labels: 8 * (len(labels) // 50), "The last batch is smaller, and is a step as well: round up."),
            (lambda labels: 8 * len(labels) / 50, "There is no part of a step: the last, smaller batch is one, too."),
            (8, "These are the epochs. How many batches are in each?"),
        ),
        why="Larger batches mean fewer steps per epoch, each in a direction that is less left to chance.",
        hint="How many batches of 50 does it take to go through all images once?",
        more="Divide the number of labels by 50, round up, and take it eight times.",
    ),
    _explain(
        "03.5",
        "b",
        "Training and validation have parted: that is overfitting. New people, random changes and stopping early help.",
        misconception="training accuracy as the result",
        a="More of the same makes it worse: the network has nothing left to learn from images that it knows by heart.",
        c="On images that were learned from, memory counts as skill.",
        d="Choosing other images until the number pleases measures the choosing.",
    ),
)

_MOBILENET = (
    Exercise(
        id="04.1",
        level="look",
        kind="name",
        given=("stages",),
        names=lambda stages: stages["stage"],
        truth=lambda stages: _stage(stages, "parameters"),
        mistakes=(
            (
                lambda stages: _stage(stages, "multiply_adds"),
                "That stage does the most work. Parameters are what is stored.",
            ),
            (lambda stages: stages["stage"].iloc[-1], "It is large, and not the largest: read the column of numbers."),
        ),
        why="Late stages have many channels, and a pointwise convolution stores channels times channels.",
        hint="Which column counts what is stored?",
        more="Find the largest number in the column `parameters` of `stages`, and give the name of its `stage`.",
    ),
    Exercise(
        id="04.2",
        level="compute",
        kind="share",
        given=("predictions",),
        tolerance=0.006,
        truth=lambda predictions: evaluate_predictions(predictions)["balanced_accuracy"],
        mistakes=(
            (
                lambda predictions: evaluate_predictions(predictions)["accuracy"],
                "That is the plain accuracy: the diagonal over all images, so the larger class counts for more.",
            ),
            (_mean_precision, "You divided by the columns: that is precision. Recall divides by the rows, the truth."),
        ),
        why="Every class counts the same, however many images it has.",
        hint="Begin with the rows of `counts`: what share of each lies on the diagonal?",
        more="Divide each number on the diagonal of `counts` by the sum of its row; then take the mean.",
        misconception="accuracy under imbalance",
    ),
    Exercise(
        id="04.3",
        level="compute",
        kind="number",
        given=("kept",),
        tolerance=0.002,
        truth=_worth_of_subjects,
        mistakes=(
            (
                lambda kept: round(_worth_of_subjects(kept), 2),
                "That is the difference of two rounded numbers. Compute it from `kept`, to three decimals.",
            ),
            (lambda kept: -_worth_of_subjects(kept), "The right size. More subjects minus fewer."),
            (
                lambda kept: _worth_of_subjects(kept, "area alone"),
                "That is the ruler. Take the technique `pre-trained`.",
            ),
            (
                lambda kept: _worth_of_subjects(kept, curve="cells"),
                "That is the other curve, over the number of cells.",
            ),
            (
                lambda kept: _worth_of_subjects(kept, to=-1),
                "That is from the fewest subjects to the most. Go one step only.",
            ),
        ),
        why="Not one cell more, only more people. That is the cheapest improvement there is, and the rarest.",
        hint="Four things choose a row of `kept`: curve, technique, cells, subjects. Which two rows are compared?",
        more="Choose the curve `subjects` and the technique `pre-trained`, then take the second `auc` minus the first.",
        misconception="many cells are many witnesses",
    ),
    Exercise(
        id="04.4",
        level="change",
        kind="number",
        tolerance=0.06,
        truth=25 * 512 / (25 + 512),
        mistakes=(
            (9 * 512 / (9 + 512), "That is for a window of 3 × 3. A window of 5 × 5 has 25 places."),
            (25.0, "The pointwise convolution is not free: add its M · N."),
            (512.0, "Mixing channels and filtering add up: 25 · M + M · N."),
            ((25 + 512) / (25 * 512), "Upside down: how many times as *much* work is the ordinary convolution?"),
            (24.0, "Right to the whole number. Give one decimal."),
        ),
        why="The larger the window, the more is saved. The limit is the number of its places.",
        hint="Write down both counts for one position, as in the cell above, with another window.",
        more="25 · M · N over 25 · M + M · N, with M = N = 512.",
    ),
    _explain(
        "04.5",
        "c",
        "Choose on the validation part, open the test once. What was used to choose cannot judge the choice.",
        misconception="the test set used for choosing",
        a="The best of five is partly luck, and the luck lies in just these test images.",
        b="All five were tested on the same images; the mean is fair, but of networks that you would not use.",
        d="A tenth run, or a hundredth, makes the best of them look better still, without being better.",
    ),
)

_EFFICIENTNET = (
    Exercise(
        id="05.1",
        level="look",
        kind="number",
        given=("stages", "small"),
        tolerance=0.06,
        truth=lambda stages, small: stages["parameters"].sum() / small["parameters"].sum(),
        mistakes=(
            (
                lambda stages, small: stages["multiply_adds"].sum() / small["multiply_adds"].sum(),
                "That is the ratio of the work. Parameters are the numbers that are stored.",
            ),
            (
                lambda stages, small: small["parameters"].sum() / stages["parameters"].sum(),
                "Upside down: how many times as *many*?",
            ),
            (
                lambda stages, small: stages["layers"].sum() / small["layers"].sum(),
                "That is the ratio of the layers. Take the column `parameters`.",
            ),
        ),
        why="More parameters allow more rules, and for learning more cells by heart.",
        hint="The question is about what is stored, in all stages together.",
        more="Divide the sums of the column `parameters` of `stages` and `small`.",
    ),
    Exercise(
        id="05.2",
        level="compute",
        kind="list",
        tolerance=0.01,
        truth=(4, 10),
        mistakes=(
            ((10, 4), "Right numbers, other order: the average comes first."),
            ((16, 10), "The first is the sum. The average divides it by the number of places."),
        ),
        why="The maximum keeps the one strongest place; the average says how much of the image speaks for the feature.",
        hint="How many numbers does the map hold, and what does each pooling make of them?",
        more="Average and maximum over all four places of the map.",
    ),
    Exercise(
        id="05.3",
        level="compute",
        kind="number",
        tolerance=0.01,
        truth=15.0,
        mistakes=(
            (1 / 15, "Upside down: each cell of the second has to count *more*."),
            (280.0, "That is how many cells more the first has. How many times as many?"),
            (1.0, "That counts every cell alike: then the first subject decides."),
        ),
        why="300 cells that count one each weigh as much as 20 that count 15 each.",
        hint="How much do all cells of a subject weigh together?",
        more="300 · 1 = 20 · ?",
    ),
    Exercise(
        id="05.4",
        level="change",
        kind="number",
        tolerance=0.0002,
        truth=1 / 255,
        mistakes=(
            (1.0, "That is what you feed in. The network divides by 255 once more."),
            (255.0, "That is a pixel of the file. It is divided twice on its way."),
            (0.5, "Divide twice: 255 / 255 / 255."),
        ),
        why="All images turn almost black, nothing fails, and no message appears. Such mistakes are found by looking.",
        hint="How often is the pixel divided on its way?",
        more="Divide 255 by 255, as the careless colleague does, and then once more, as the network does.",
    ),
    _explain(
        "05.5",
        "b",
        "The loss is answers plus penalty, and the penalty can shrink without one better answer.",
        misconception="a falling loss as proof of better answers",
        a="A network may grow surer of the same answers, but hardly by so much without one more being right.",
        c="Learning by heart looks otherwise: the training loss falls, and the validation loss does not.",
        d="A learning rate changes how fast a loss falls, not what it is made of.",
    ),
)

_COMPARE = (
    Exercise(
        id="06.1",
        level="look",
        kind="number",
        given=("difference",),
        truth=lambda difference: int((difference["verdict"] != "inconclusive").sum()),
        mistakes=(
            (lambda difference: int((difference["verdict"] == "inconclusive").sum()), "These are the others."),
            (lambda difference: len(difference), "These are all rows. Read the column `verdict`."),
            (
                lambda difference: int((difference["value"] != 0).sum()),
                "Some difference there nearly always is. Read the column `verdict`.",
            ),
        ),
        why="A difference counts only where its interval excludes zero.",
        hint="Which column says whether a difference is decided?",
        more="Count the rows of `difference` whose `verdict` names a network.",
    ),
    Exercise(
        id="06.2",
        level="compute",
        kind="share",
        given=("parts",),
        tolerance=0.006,
        truth=lambda parts: _share_of_largest(parts.test),
        mistakes=(
            (lambda parts: 1 / parts.test["label"].nunique(), "That is the lazy answer's *balanced* accuracy."),
            (lambda parts: _share_of_largest(parts.train), "That is the largest class's share of the training part."),
        ),
        why="An accuracy below this is worse than no network at all.",
        hint="What is the lazy answer on these images, and how often is it true?",
        more="Which share of the test part's labels is the most frequent one?",
        misconception="accuracy under imbalance",
    ),
    Exercise(
        id="06.3",
        level="change",
        kind="share",
        given=("predictions",),
        tolerance=0.006,
        truth=lambda predictions: _called(predictions, 0.9),
        mistakes=(
            (_count_called, "That is how many images. Give their share of all images of the first class."),
            (lambda predictions: _called(predictions, 0.5), "That is for the threshold 0.5."),
            (lambda predictions: _called(predictions, 0.9, positive=False), "That is specificity: the other class."),
            (
                lambda predictions: evaluate_predictions(next(iter(predictions.values())))["auc"],
                "That is the AUC. It tries all thresholds, so moving one does not change it.",
            ),
        ),
        why="Not one image is ranked differently, the AUC stays as it is, and yet the decisions are others.",
        hint="Sensitivity is about one of the classes only. Which rows count?",
        more="Of the test images whose label is the first class: which share has a probability of 0.9 or more?",
    ),
    _explain(
        "06.4",
        "a",
        "Ranked well, cut in the wrong place. A threshold chosen on validation images mends it without training.",
        misconception="a high AUC with a bad threshold",
        b="An AUC needs no threshold, and is not wrong because a threshold is.",
        c="Balanced accuracy does not see imbalance: every class counts the same.",
        d="The same images give both numbers. Luck with the images would show in both.",
    ),
)

_CLASSIFY = (
    Exercise(
        id="07.1",
        level="look",
        kind="name",
        given=("rejections",),
        names=lambda rejections: rejections.index,
        truth=_slips_through,
        mistakes=(
            (lambda rejections: rejections.index[0], "It should answer these images. Look at the rows below."),
            (lambda rejections: _slips_through(rejections, most=True), "Rejected most often. The least often counts."),
        ),
        why="These get an answer although none is deserved, and the answer looks like any other.",
        hint="The first row is what should be answered. Compare the others.",
        more="Below the first row, which name has the smallest number in the column `rejected`?",
    ),
    Exercise(
        id="07.2",
        level="compute",
        kind="share",
        given=("predictions",),
        tolerance=0.006,
        unless=lambda predictions: "" if _sure(predictions).any() else "the network is never that sure of itself.",
        truth=_right_where_sure,
        mistakes=(
            (lambda predictions: np.mean(_sure(predictions)), "That is how often it is so sure. How often right then?"),
            (
                lambda predictions: evaluate_predictions(predictions)["accuracy"],
                "That is its accuracy on all test images. Take those with a probability of 0.9 or more.",
            ),
            (
                lambda predictions: np.mean(probabilities_of(predictions)[_sure(predictions)].max(axis=1)),
                "That is how sure it says it is. Compare what it says with the truth.",
            ),
        ),
        why="If this is well below 0.9, the network claims more than it can. Notebook 10 mends that.",
        hint="First find the rows where it is so sure; then compare label and most probable class there.",
        more="Keep the rows whose largest probability is at least 0.9; in how many of them is that class the label?",
        misconception="a confident answer is a correct one",
    ),
    Exercise(
        id="07.3",
        level="change",
        kind="number",
        given=("predictions",),
        unless=lambda predictions: "" if len(classes_of(predictions)) == 2 else "thresholds belong to two classes.",
        truth=lambda predictions: _moved(predictions, 0.5, 0.9),
        mistakes=(
            (lambda predictions: _moved(predictions, 0.9, 1.1), "These keep their label. Which ones lose it?"),
            (
                lambda predictions: _moved(predictions, 0.0, 0.9),
                "Many of these were called negative with 0.5 as well. Only those in between change.",
            ),
        ),
        why="The network is the same. Moving a threshold trades one kind of mistake for the other.",
        hint="Which images lie between the old threshold and the new one?",
        more="Count the rows whose probability of the first class is at least 0.5 and below 0.9.",
    ),
    _explain(
        "07.4",
        "c",
        "A plausible place is no sound reason. Notebook 11 tests maps against a known truth.",
        misconception="saliency as proof",
        a="The map says where features spoke, not whether they are features of leukemia.",
        b="A nucleus lies in the middle of nearly every picture here, and so does a map that knows nothing.",
        d="The map is computed from the network's own features, so it says something. It proves little.",
    ),
)

_PAPER_READ = (
    Exercise(
        id="08.1",
        level="look",
        kind="number",
        given=("audit",),
        truth=lambda audit: int((audit["verdict"] == "contradicted").sum()),
        mistakes=(
            (lambda audit: int((audit["verdict"] == "confirmed").sum()), "These are the confirmed ones."),
            (
                lambda audit: int((audit["verdict"] != "confirmed").sum()),
                "What is inconclusive is not contradicted: the paper may well be right there.",
            ),
            (lambda audit: len(audit), "These are all claims. Read the column `verdict`."),
        ),
        why="Each of them by numbers that the authors, or the publishers of the data, printed themselves.",
        hint="The verdicts stand in one column of `audit`.",
        more="Count the rows of `audit` whose `verdict` is contradicted.",
    ),
    Exercise(
        id="08.2",
        level="compute",
        kind="set",
        truth=(3, 6, 9),
        mistakes=(
            ((3,), "Two of three, yes. Which larger numbers give the same fraction?"),
            ((3, 6), "One more: the fraction two thirds can be written with a larger denominator below ten."),
            ((2, 4, 6), "These are right answers. How many images is each out of?"),
            ((2, 3, 4, 6, 9), "Mind the first decimal: 66.7, not 50.0 or 75.0."),
        ),
        why="A printed percentage is a fraction in disguise. A few more of them would leave one size.",
        hint="Which fractions with a small denominator print as 66.7 %?",
        more="For each n from 1 to 9, look whether some whole k gives 100 · k / n that rounds to 66.7.",
    ),
    Exercise(
        id="08.3",
        level="compute",
        kind="share",
        tolerance=0.006,
        truth=0.99**45,
        mistakes=(
            (1 - 0.99**45, "That is how much has been replaced. How much is left?"),
            (0.55, "45 times one hundredth less, yes, but each time one hundredth of what is *left*: multiply."),
            (0.99, "That is after one step. There are 45."),
        ),
        why="More than half of the average that judges the validation images is still from before the training.",
        hint="What is left after two steps? 99 % of 99 %.",
        more="`0.99 ** 45`",
    ),
    Exercise(
        id="08.4",
        level="change",
        kind="share",
        given=("best",),
        tolerance=0.006,
        truth=lambda best: _ppv(best, 0.05),
        mistakes=(
            (
                lambda best: best[0, 0] / best[:, 0].sum(),
                "That is the precision among the paper's test images, two thirds of which are leukemic.",
            ),
            (
                lambda best: best[0, 0] / best[0].sum(),
                "That is the sensitivity: of the leukemic, how many are called so. Turn the question round.",
            ),
            (
                lambda best: 0.05 * best[0, 0] / best[0].sum(),
                "These are the true alarms among all people. Divide by all alarms, the false ones included.",
            ),
            (0.05, "That is how many of all people are ill. Of those for whom it sounds an alarm, how many are?"),
        ),
        why="Where the disease is rare, most alarms are false, although the printed precision looked good.",
        hint="Imagine 1,000 people instead of shares.",
        more="Out of 1,000 people 50 are ill. How many of the 50, and how many of the 950, are called ill?",
        misconception="accuracy under imbalance",
    ),
    _explain(
        "08.5",
        "b",
        "On images that were learned from, memory counts as skill. The paper's own test figure is the lower one.",
        misconception="training accuracy as the result",
        a="Three decimals say how it was printed, not what it was measured on.",
        c="A split by image makes a *test* accuracy too good. This one is not from a test part at all.",
        d="Later epochs usually have a higher one. The trouble is with the images, not with the epoch.",
    ),
)

_LEAKAGE = (
    Exercise(
        id="09.1",
        level="look",
        kind="name",
        given=("found",),
        unless=_splits_missing,
        names=lambda found: found["split_kind"].unique(),
        truth=_shares_files,
        mistakes=(
            (_IMAGE, "That split shares subjects and microscope images. Read the column `file`."),
            (_NAMED, "That one shares bytes, because some names share images. Read the column `file`."),
        ),
        why="The very cells of the test were trained on, merely turned or mirrored.",
        hint="To share a subject is not to share a file. Which column is asked about?",
        more="In the table of what training and test share, find the largest number of the column `file`.",
    ),
    Exercise(
        id="09.2",
        level="compute",
        kind="number",
        given=("found",),
        unless=_splits_missing,
        tolerance=0.0016,
        truth=_step(_PAPER, _SUBJECT),
        mistakes=(
            (_step(_PAPER, _IMAGE), "That is what the copies add. Add what knowing the subjects adds."),
            (_step(_IMAGE, _SUBJECT), "That is what knowing the subjects adds. Add what the copies add."),
            (_step(_PAPER, _SUBJECT, "logistic regression"), "That is for logistic regression, which cannot remember."),
            (_step(_PAPER, _NAMED), "The other row of subjects: take the one in which duplicates are merged."),
            (_step(_SUBJECT, _PAPER), "The right size with the wrong sign: first minus second."),
        ),
        why="The classifier is the same. All of this comes from how the data were split.",
        hint="Both steps of the table of gaps, taken together.",
        more="In the table of the gaps, add both rows of the column `nearest neighbours`.",
    ),
    Exercise(
        id="09.3",
        level="compute",
        kind="number",
        given=("gap",),
        tolerance=0.06,
        truth=lambda gap: gap["measured"].loc[1.0] / gap["error"].loc[1.0],
        mistakes=(
            (lambda gap: gap["measured"].loc[1.0], "That is the difference itself. Divide it by its standard error."),
            (lambda gap: gap["error"].loc[1.0] / gap["measured"].loc[1.0], "Upside down: how many errors fit into it?"),
            (lambda gap: gap["true"].loc[1.0] / gap["error"].loc[1.0], "That is the true difference. Take `measured`."),
            (
                lambda gap: gap["measured"].loc[2.0] / gap["error"].loc[2.0],
                "That is the setting 2. Take the row of the setting 1.",
            ),
        ),
        why="Below about two, it is inconclusive, from so many runs, whether there is a difference.",
        hint="Which row, and which two columns, of `gap` does the question name?",
        more="Divide `measured` by `error` in the row 1.0 of `gap`.",
    ),
    Exercise(
        id="09.4",
        level="change",
        kind="number",
        given=("strong",),
        tolerance=0.6,
        truth=_leaks_seen,
        mistakes=(
            (lambda strong: _leaks_seen(strong) / 30, "That is their share. How many of thirty?"),
            (lambda strong: _leaks_seen(strong, baseline="logistic regression"), "That is logistic regression."),
            (
                lambda strong: _leaks_seen(strong, column="true"),
                "That counts the true differences. A class sees `measured`.",
            ),
            (30, "Not everybody: count the runs in which `measured` is above 0.05."),
        ),
        why="The same leak, and not everybody sees it. Whoever makes one split reports what luck shows.",
        hint="`strong` has one row for each run and baseline. In which share of the runs is the difference so large?",
        more="Of the rows of nearest neighbours, the share with `measured` above 0.05, times 30.",
    ),
    _explain(
        "09.5",
        "d",
        "More cells of the same subjects show each one more thoroughly. New subjects are what is missing.",
        misconception="leakage",
        a="A leak does not thin out: every test cell still has cells of the same subject in training.",
        b="Seeds move the result up and down. A leak moves the middle of it up, and more seeds do not take that away.",
        c="The intervals would shrink, around a value that is still too high.",
    ),
)

_BETTER = (
    Exercise(
        id="10.1",
        level="look",
        kind="share",
        given=("simulated",),
        tolerance=0.006,
        truth=lambda simulated: _coverage(simulated, "cells"),
        mistakes=(
            (lambda simulated: _coverage(simulated, "subjects"), "These are the intervals over subjects."),
            (lambda simulated: _coverage(simulated, "cells", "sees"), "That is `sees`. Read the column `covers`."),
            (0.95, "That is what they promise. How often do they hold the truth in the simulation?"),
        ),
        why="They promise 95 %. Cells of one subject are no independent witnesses.",
        hint="Mind both the number of subjects and what was resampled.",
        more="In `simulated`: 10 subjects, resampled are the cells, column `covers`.",
        misconception="many cells are many witnesses",
    ),
    Exercise(
        id="10.2",
        level="compute",
        kind="share",
        tolerance=0.004,
        truth=0.009 / (0.009 + 0.099),
        mistakes=(
            (0.9, "That is the sensitivity: of the sick, how many are called positive. Turn the question round."),
            (0.009, "These are the true alarms among all people. Divide by all alarms."),
            (0.01, "That is the prevalence. Of those for whom it sounds an alarm, how many are sick?"),
            (0.5, "That would be so if half of the people were sick. Here it is one in a hundred."),
        ),
        why="Eleven of twelve alarms are false, although the test is right nine times out of ten.",
        hint="Imagine 1,000 people: how many are sick, and how many of the others get an alarm?",
        more="9 true alarms and 99 false ones.",
        misconception="accuracy under imbalance",
    ),
    Exercise(
        id="10.3",
        level="change",
        kind="number",
        given=("validation", "predictions"),
        truth=lambda validation, predictions: _threshold_at(validation, 0.8),
        mistakes=(
            (
                lambda validation, predictions: _threshold_at(predictions, 0.8),
                "That was found on the test images. Whoever chooses there has nothing left to judge the choice by.",
            ),
            (
                lambda validation, predictions: _threshold_at(validation, 0.8, of="sensitivity"),
                "With this one the *sensitivity* is 0.8. Specificity is about the other class.",
            ),
            (0.8, "0.8 is the specificity that is wanted. Which threshold brings it about?"),
        ),
        tolerance=1e-4,
        why="Chosen on validation images. What specificity comes out on the test part is another question.",
        hint="Which images may choose? And about which class does specificity speak?",
        more="In `curves[first]`, take the lowest `threshold` among the rows with a `specificity` of 0.8 or more.",
        misconception="the test set used for choosing",
    ),
    _explain(
        "10.4",
        "c",
        "Absence of evidence. The interval says which differences are still possible.",
        misconception="no difference found means no difference",
        a="That is no evidence of equality: so few subjects may not show a difference that is there.",
        b="p is no probability that a network is better. It says how often chance alone would do as much.",
        d="Testing until p is small makes sure that it once is, by luck.",
    ),
)

_LOOKS = (
    Exercise(
        id="11.1",
        level="look",
        kind="share",
        given=("scores",),
        unless=_no_outlines,
        tolerance=0.006,
        truth=lambda scores: _map_score(scores, "centre blob", "overlap"),
        mistakes=(
            (lambda scores: _map_score(scores, "random map", "overlap"), "That is the random map."),
            (lambda scores: _map_score(scores, "centre blob"), "That is how often it points inside. Read `overlap`."),
            (
                lambda scores: _map_score(scores, "centre blob", "overlap", mask="nucleus"),
                "That is its overlap with the nucleus. Take the rows whose mask is the cell.",
            ),
            (
                lambda scores: scores.loc[scores["method"] == "centre blob", "overlap"].mean(),
                "The rows of two masks, cell and nucleus, are mixed in this mean.",
            ),
        ),
        why="And it knows nothing of the image. This is the number that a network's map has to beat.",
        hint="Which mask, which method, which column?",
        more="In `scores`: the rows with mask cell and method centre blob, mean of the column `overlap`.",
        misconception="saliency as proof",
    ),
    Exercise(
        id="11.2",
        level="compute",
        kind="number",
        given=("reached",),
        tolerance=0.006,
        truth=_fall("trained with the mark", "mark on the others"),
        mistakes=(
            (_fall("trained with the mark", "no mark"), "That is the fall when the mark is taken away. Move it."),
            (_fall("trained without", "mark on the others"), "That is the network that never saw a mark."),
            (
                lambda reached: -_fall("trained with the mark", "mark on the others")(reached),
                "The right size. Give how much is *lost*: before minus after.",
            ),
        ),
        why="No cell was changed, only a corner. That part of the answers came from the mark.",
        hint="The cells stay the same. What changes from the first row to the last?",
        more="Take the column of the network trained with the mark: first row minus last row.",
    ),
    Exercise(
        id="11.3",
        level="change",
        kind="share",
        given=("parts", "target"),
        tolerance=0.004,
        truth=lambda parts, target: _marked(parts.train, target, 0.5),
        mistakes=(
            (lambda parts, target: _marked(parts.train, target, 0.9), "That is with the share 0.9. Pass `share=0.5`."),
            (
                lambda parts, target: _marked(parts.train, target, 0.5, of_class=True),
                "That is the share of the class. Count all training images.",
            ),
            (0.5, "Half of the *class*, about. What share of all training images is that?"),
        ),
        why="A mark on a fraction of the images is enough for a network to lean on it; set it and train again.",
        hint="`plant_shortcut` says in the column `augmentation` which images it marks.",
        more="`saliency.plant_shortcut(parts.train, [target], share=0.5, seed=1)`, then the share of rows with a mark.",
    ),
    _explain(
        "11.4",
        "d",
        "Change what you suspect, and see whether the answer changes. That is an experiment; a map is a picture.",
        misconception="saliency as proof",
        a="A blob in the centre lies on the nucleus, too, and has never seen a cell.",
        b="Places of a coarse map overlap: what was found in a corner may be shown elsewhere.",
        c="Agreement of two maps says how alike the methods are. Both may miss the same thing.",
    ),
)


def _chosen_on_validation(validation: list[float], test: list[float]) -> float:
    return test[int(np.argmax(validation))]


_TUNING = (
    Exercise(
        id="12.1",
        level="compute",
        kind="number",
        tolerance=0.006,
        truth=0.80 + 0.02 * 1.8675,  # expected largest of 20 standard normal numbers
        mistakes=(
            (0.80, "That is what each is worth. The *best* of twenty is expected to look better than it is."),
            (0.82, "One deviation above, as a single trial may easily be. The best of twenty is luckier."),
            (0.86, "Three standard deviations are rare even for the best of twenty: simulate it."),
        ),
        why="Nothing was gained by choosing, and the best looks much better. This is the optimism of the best of many.",
        hint="One trial shows 0.80 on average. What happens to the largest of twenty?",
        more="Draw 20 normal numbers (mean 0.80, deviation 0.02), note the largest; do so 10,000 times; take the mean.",
        misconception="the test set used for choosing",
    ),
    Exercise(
        id="12.2",
        level="compute",
        kind="number",
        tolerance=0.6,
        truth=1875.0,
        mistakes=(
            (18.75, "The deviation is the root of the variance: square the 0.01."),
            (7500.0, "That is 0.75 / 0.01². The variance is p (1 − p) / n."),
            (43.3, "That is the root of it. Solve p (1 − p) / n = 0.01² for n."),
        ),
        why="And cells of one subject are alike, so it takes more of them still.",
        hint="Set the root of the variance equal to 0.01, and solve for n.",
        more="0.75 · 0.25 / n = 0.0001",
    ),
    Exercise(
        id="12.3",
        level="change",
        kind="function",
        truth=_chosen_on_validation,
        inputs=(
            ([0.81, 0.90, 0.85], [0.80, 0.82, 0.86]),
            ([0.70, 0.60], [0.65, 0.75]),
            ([0.5, 0.7, 0.6], [0.9, 0.6, 0.8]),
        ),
        tolerance=1e-6,
        mistakes=(
            (lambda validation, test: max(test), "That is the best on the *test* part: the test has chosen."),
            (
                lambda validation, test: max(validation),
                "That is the validation score of the best, lifted by having been chosen. Report its test score.",
            ),
            (lambda validation, test: sum(test) / len(test), "That is the mean of all. Which one would you use?"),
        ),
        why="Validation chooses, the test judges the one that was chosen, once.",
        hint="Which list chooses, and which one is reported?",
        more="Find the place of the largest validation score, and return the test score at the same place.",
        misconception="the test set used for choosing",
    ),
    _explain(
        "12.4",
        "b",
        "The best of many is good and lucky. On fresh images the luck is gone and what is good remains.",
        misconception="the test set used for choosing",
        a="Overfitting by training may add to it, but choosing alone makes such a gap, even without training.",
        c="Then the gap would go either way. The best of many is nearly always too high where it was chosen.",
        d="More trials make the best validation score higher still, and the gap wider.",
    ),
)

EXERCISES: dict[str, Exercise] = {
    exercise.id: exercise
    for of_notebook in (
        _START, _EXPLORE, _ROTATE, _LEARN, _MOBILENET, _EFFICIENTNET, _COMPARE, _CLASSIFY, _PAPER_READ, _LEAKAGE,
        _BETTER, _LOOKS, _TUNING,
    )
    for exercise in of_notebook
}  # fmt: skip
"""All exercises by number, in the order of the notebooks."""
