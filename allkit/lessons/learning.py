"""Notebook 03: a neuron and its way downhill; convolutions; a small network; overfitting; learned layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.special import expit
from sklearn.metrics import log_loss

from allkit import plots
from allkit.backend import keras
from allkit.baselines import choose_single_feature
from allkit.data import class_order
from allkit.evaluate import evaluate_each
from allkit.features import measure_cells
from allkit.images import load_images
from allkit.plots import DASHES, PALETTE

SIDE = 64
"""Pixels a side of the images that the small network sees."""


def load_number(rows: pd.DataFrame) -> tuple[str, np.ndarray, np.ndarray]:
    """Notebook 03: return one number of each cell: its name, the values, and which cells are of the first class (1, 0).

    The values, float (n,), have mean 0 and standard deviation 1.
    """
    measured = measure_cells(rows)
    name = choose_single_feature(measured)
    values = measured[name].to_numpy(float)
    labels = (rows["label"] == class_order(rows)[0]).to_numpy(float)
    return name.replace("mean_g", "mean green"), (values - values.mean()) / values.std(), labels


def answer_of_neuron(x: np.ndarray, w: float, b: float) -> np.ndarray:
    """Notebook 03: return what one neuron answers, 0–1: sigmoid of w·x + b."""
    return expit(w * x + b)


def loss_of_neuron(x: np.ndarray, y: np.ndarray, w: float, b: float) -> float:
    """Notebook 03: return the mean cross-entropy of one neuron's answers, nats."""
    return float(log_loss(y, answer_of_neuron(x, w, b), labels=[0, 1]))


def walk_downhill(x: np.ndarray, y: np.ndarray, *, w: float, b: float, rate: float, steps: int) -> list[float]:
    """Notebook 03: return the weights of one neuron on its way downhill, the first one included; `b` stays."""
    path = [w]
    for _ in range(steps):
        w = w - rate * float(np.mean((answer_of_neuron(x, w, b) - y) * x))
        path.append(w)
    return path


def plot_descent(x: np.ndarray, y: np.ndarray, b: float, path: Sequence[float], *, ax: Axes | None = None) -> Axes:
    """Notebook 03: draw the loss of one neuron over its weight, and the steps of a walk downhill on it."""
    ax = plots.new_axes(ax, 6.0, 3.4)
    grid = np.linspace(-3, 3, 121)
    ax.plot(grid, [loss_of_neuron(x, y, w, b) for w in grid], color="0.6", label="loss")
    shown = [w for w in path if -3.2 < w < 3.2]
    ax.plot(shown, [loss_of_neuron(x, y, w, b) for w in shown], "o-", color=plots.BLUE, markersize=4, label="steps")
    ax.plot(path[0], loss_of_neuron(x, y, path[0], b), "s", color=plots.RED, label="start")
    ax.set(xlabel="weight w (per standard deviation)", ylabel="loss (nats)", xlim=(-3.1, 3.1))
    ax.legend()
    words = (
        f"Loss over the weight, a valley; the walk begins at w = {path[0]:.2f} and ends after {len(path) - 1} steps at "
        f"w = {path[-1]:.2f}, where the loss is {loss_of_neuron(x, y, path[-1], b):.3f}."
    )
    return plots.describe(ax, words)


def to_grey(image: np.ndarray) -> np.ndarray:
    """Notebook 03: return an image as float grey levels, (h, w), brightened so that its brightest pixel is 255."""
    grey = image.astype(float).mean(axis=2)
    return grey * (255 / max(grey.max(), 1))


def plot_maps(maps: Mapping[str, np.ndarray], *, columns: int = 4, size: float = 1.7, alt: str = "") -> np.ndarray:
    """Notebook 03: show maps, float (h, w), each from its lowest value (black) to its highest (white)."""
    scaled = [255 * (one - one.min()) / max(np.ptp(one), 1e-9) for one in maps.values()]
    alt = alt or f"{len(maps)} maps, dark where a value is low and light where it is high: {', '.join(maps)}."
    return plots.plot_images(scaled, list(maps), columns=columns, size=size, factor=1.0, alt=alt)


def load_part(rows: pd.DataFrame, classes: Sequence[str], *, crop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Notebook 03: return images, uint8 (n, 64, 64, 3), and the place of each label among the classes, int (n,)."""
    images = np.asarray(load_images(rows, image_size=SIDE, crop=crop))
    return images, rows["label"].map({name: k for k, name in enumerate(classes)}).to_numpy()


class Watch(keras.callbacks.Callback):
    """Notebook 03: notes after each epoch the answer for one image, and how far the weights have moved."""

    def __init__(self, image: np.ndarray) -> None:
        super().__init__()
        self.image, self.rows = image[None], []

    def on_train_begin(self, logs=None):
        """Note the weights that the training begins with."""
        self.start = [weight.copy() for weight in self.model.get_weights()]

    def on_epoch_end(self, epoch, logs=None):
        """Note the state after this epoch."""
        weights = self.model.get_weights()
        moved = np.concatenate([(now - old).ravel() for now, old in zip(weights, self.start, strict=True)])
        answer = np.asarray(self.model(self.image, training=False))[0, 0]
        facts = {"answer for one cell": answer, "weights moved by, on average": np.abs(moved).mean()}
        self.rows.append({"epoch": epoch + 1, **(logs or {}), **facts})

    @property
    def table(self) -> pd.DataFrame:
        """One row per epoch: epoch, loss, accuracy, val_loss, val_accuracy, and what was noted."""
        return pd.DataFrame(self.rows).astype(float).astype({"epoch": int})


def describe_epochs(table: pd.DataFrame, model: Any, images: int, batch_size: int = 32) -> str:
    """Notebook 03: return what changed between the first and the last epoch, in three sentences."""
    first, last = table.iloc[0], table.iloc[-1]
    steps = -(-images // batch_size) * len(table)
    better = "fell" if last["val_loss"] < first["val_loss"] else "rose"
    return (
        f"From epoch {first['epoch']:.0f} to epoch {last['epoch']:.0f} nothing changed but **{model.count_params():,} "
        f"numbers**, the weights, a little at each of {steps} steps. On the training images the loss went from "
        f"{first['loss']:.2f} to {last['loss']:.2f}; on the validation images, which no step has used, it {better} "
        f"from {first['val_loss']:.2f} to {last['val_loss']:.2f}. For one and the same cell the answer went from "
        f"{first['answer for one cell']:.2f} to {last['answer for one cell']:.2f}."
    )


def plot_filters(layer: Any) -> np.ndarray:
    """Notebook 03: show the filters of a first convolution, each as a small picture of its own colours."""
    kernel = np.asarray(layer.get_weights()[0])
    low, high = kernel.min(axis=(0, 1, 2)), kernel.max(axis=(0, 1, 2))
    pictures = [
        (255 * (kernel[..., k] - low[k]) / (high[k] - low[k])).astype(np.uint8) for k in range(kernel.shape[-1])
    ]
    titles = [f"filter {k + 1}" for k in range(len(pictures))]
    alt = f"{len(pictures)} filters of {kernel.shape[0]} by {kernel.shape[1]} pixels, each as a coloured square."
    return plots.plot_images(pictures, titles, columns=8, size=1.0, factor=1.0, alt=alt)


def feature_maps(model: Any, image: np.ndarray, layer: str | int = 0, *, most: int = 8) -> dict[str, np.ndarray]:
    """Notebook 03: return what some filters of a layer make of an image, those that vary most, float (h, w)."""
    found = (
        model.get_layer(layer) if isinstance(layer, str) else [one for one in model.layers if "conv" in one.name][layer]
    )
    maps = np.asarray(keras.Model(model.inputs[0], found.output)(image[None].astype(np.float32), training=False))[0]
    busiest = np.sort(np.argsort(maps.std(axis=(0, 1)))[::-1][:most])
    return {f"filter {k + 1}": maps[..., k] for k in busiest}


def predictions_of(probabilities: np.ndarray, rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Notebook 03: return a predictions table of class probabilities, (n, classes)."""
    table = rows[["path", "label", "subject", "group"]].reset_index(drop=True)
    return table.assign(**{f"p_{name}": np.asarray(probabilities)[:, k] for k, name in enumerate(classes)})


def compare(tables: Mapping[str, pd.DataFrame], *, seed: int = 123) -> pd.DataFrame:
    """Notebook 03: return the AUC of several predictions tables with intervals over subjects, one row each."""
    return evaluate_each(tables, resamples=200, seed=seed)


def describe_comparison(scores: pd.DataFrame) -> str:
    """Notebook 03: return who is best by how much, and whether the second can be told from the first, in a sentence."""
    best, second = scores["value"].nlargest(2).index
    apart = scores.loc[best, "low"] > scores.loc[second, "high"]
    verdict = "their intervals do not even touch" if apart else "their intervals touch, so it is not settled"
    return (
        f"**{best}** reaches an AUC of {scores.loc[best, 'value']:.2f}, next is {second} with "
        f"{scores.loc[second, 'value']:.2f}; {verdict}."
    )


def describe_tiny(scores: pd.DataFrame) -> str:
    """Notebook 03: return how the small network stands beside the ruler, the last and the first row, in a sentence."""
    ruler, tiny = scores.iloc[0], scores.iloc[-1]
    overlap = not (tiny["low"] > ruler["high"] or tiny["high"] < ruler["low"])  # NaN: nobody can say
    verdict = "which of them is better is *inconclusive*" if overlap else "the difference is no luck"
    return f"The ruler's AUC is {ruler['value']:.2f}, the small network's {tiny['value']:.2f}: {verdict}."


def plot_overfitting(histories: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Notebook 03: draw training and validation loss over the epochs of several trainings, one panel each."""
    _, axes = plt.subplots(1, len(histories), figsize=(4.0 * len(histories), 3.2), sharey=True, squeeze=False)
    for ax, (name, table) in zip(axes.flat, histories.items(), strict=True):
        names = {"loss": "training", "val_loss": "validation"}
        plots.plot_lines(table, "epoch", names, ylabel="loss (nats)", ax=ax).set_title(name)
        ax.set_ylim(0, 2)
        end, lowest = table.iloc[-1], table["val_loss"].min()
        words = (
            f"{name}: at the end the loss is {end['loss']:.2f} on training images; on validation images it was "
            f"{lowest:.2f} at its lowest and is {end['val_loss']:.2f} at the end."
        )
        plots.describe(ax, words)
    return axes


def history_table(history: Any) -> pd.DataFrame:
    """Notebook 03: return the history of `fit` as a table, one row per epoch from 1 on."""
    table = pd.DataFrame(history.history)
    return table.assign(epoch=np.arange(1, len(table) + 1))


def describe_overfitting(histories: Mapping[str, pd.DataFrame]) -> str:
    """Notebook 03: return how far training and validation are apart at the end of each training, as a list."""
    ends = {name: table.iloc[-1] for name, table in histories.items()}
    return "\n".join(
        f"- {name}: {end['accuracy']:.0%} of the training images right, {end['val_accuracy']:.0%} of the validation "
        f"images; validation loss {end['val_loss']:.2f}, at its best {histories[name]['val_loss'].min():.2f}"
        for name, end in ends.items()
    )


def plot_steps(table: pd.DataFrame) -> np.ndarray:
    """Notebook 03: draw loss and the answer for one cell over the epochs."""
    _, axes = plt.subplots(1, 2, figsize=(8.4, 3.0))
    plots.plot_lines(table, "epoch", {"loss": "training", "val_loss": "validation"}, ylabel="loss (nats)", ax=axes[0])
    blue = {"color": PALETTE["blue"], "linestyle": (0, DASHES[1])}
    axes[1].plot(table["epoch"], table["answer for one cell"], "o", **blue)
    axes[1].set(xlabel="epoch", ylabel="probability of the first class", ylim=(0, 1))
    axes[1].set_title("one and the same cell")
    ends = table["answer for one cell"].iloc[[0, -1]]
    plots.describe(axes[1], f"The answer for one cell moves from {ends.iloc[0]:.2f} to {ends.iloc[1]:.2f}.")
    return axes


def choose_few(labels: np.ndarray, count: int, *, seed: int = 123) -> np.ndarray:
    """Notebook 03: return the places of `count` images, all classes alike, chosen at random."""
    order = pd.Series(labels).sample(frac=1, random_state=seed)
    return order.groupby(order).head(count // order.nunique()).index.to_numpy()
