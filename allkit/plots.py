"""Every figure of the series: draws what it is given and computes nothing.

Each `plot_…` takes its data and an optional `ax`, and returns the Axes (an array of them for a grid of
pictures). Nothing is shown or saved here: `Run.show` does both. All colours come from one palette; a class has the
same colour in every figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice, pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch
from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay

from allkit.data import class_order

PALETTE = {
    "blue": "#0A4FA3",
    "orange": "#CF8000",
    "wine": "#520A2B",
    "green": "#0A7E62",
    "red": "#C2352B",
    "violet": "#A174D0",
}
"""The kit's colours, in the order in which they are used.

On white each has a contrast of 3:1 or more. Any two can be told apart with every kind of colour blindness, the first
four also in grey print. `tests/test_plots.py` measures it.
"""


BLUE, ORANGE, RED = PALETTE["blue"], PALETTE["orange"], PALETTE["red"]


PARTS = {"train": "#8E8E8E", "validation": "#0F3B52", "test": "#9B30B0"}
"""Colours of the three parts of a split; no class has one of them."""


# ---- style -------------------------------------------------------------------------------------------------


def use_style() -> None:
    """Set the look of all figures: plain axes, readable sizes, moderate resolution."""
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.grid": False,
            "axes.prop_cycle": plt.cycler(color=list(PALETTE.values())),
            "font.size": 10,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
            "legend.frameon": False,
        }
    )


def class_colours(labels: Iterable[object]) -> dict[str, tuple[float, float, float]]:
    """Give every class its colour, the same whatever the order of the labels.

    Args:
        labels: any number of labels, repeated or not.

    Returns:
        Class -> (red, green, blue), each 0-1; the positive class first.
    """
    classes = class_order(labels)
    if len(classes) > len(PALETTE):  # the darker part of a map that colour blindness does not change
        return dict(zip(classes, sns.color_palette("cividis", 5 * len(classes) // 3), strict=False))
    return dict(zip(classes, map(to_rgb, PALETTE.values()), strict=False))


def line_colours(count: int) -> list[str]:
    """Return so many colours of the palette for lines, from the start again after the last."""
    return list(islice(cycle(PALETTE.values()), count))


def ink(colour: object) -> tuple[float, float, float]:
    """Darken a colour until text of it can be read on white: a contrast of 4.5:1 or more.

    Args:
        colour: anything that Matplotlib takes for a colour.

    Returns:
        (red, green, blue), each 0-1.
    """
    shade = np.array(to_rgb(colour))
    while contrast(shade) < 4.5:
        shade = 0.95 * shade
    return tuple(shade)


def contrast(colour: object, ground: object = "white") -> float:
    """Return the contrast of two colours, 1 to 21, by the Web Content Accessibility Guidelines."""

    def luminance(shade: object) -> float:
        light = np.array(to_rgb(shade))
        linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(colour), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


def _axes(ax: Axes | None, width: float = 6.4, height: float = 3.6) -> Axes:
    """Return `ax`, or the Axes of a new figure of this size in inches."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def _colours(names: Sequence[str]) -> dict:
    """Colours of the parts of a split if that is what is named, else of the classes."""
    return PARTS if set(names) <= set(PARTS) else class_colours(names)


# ---- pictures ----------------------------------------------------------------------------------------------


def plot_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    *,
    columns: int = 5,
    size: float = 1.5,
    colours: Sequence | None = None,
    brighten: float = 1.0,
) -> np.ndarray:
    """Show images in a grid, without axes.

    Args:
        images: uint8 (h, w, 3) or (h, w) each.
        titles: one per image, or none.
        columns: images per row.
        size: height and width of one image in inches.
        colours: of the titles, one per image; darkened where they would be hard to read.
        brighten: factor on every grey level; say so beside the figure when it is not 1.

    Returns:
        Array of Axes, one per place in the grid.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height = size + 0.25 * max((title.count("\n") + 1 for title in titles), default=0)
    _, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * height), squeeze=False)
    for k, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if k < len(images):
            shown = np.clip(brighten * np.asarray(images[k], dtype=float), 0, 255)
            ax.imshow(shown.astype(np.uint8), vmin=0, vmax=255)
        if k < min(len(titles), len(images)):
            ax.set_title(titles[k], fontsize=9, color=ink(colours[k]) if colours is not None else "black")
    return axes


def plot_point_grid(before: np.ndarray, after: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Draw the centres of pixels before and after a rotation, on the grid of whole pixels.

    Args:
        before: float (n, 2), row and column of each point.
        after: the same points, rotated.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; rows count downwards, as in an image.
    """
    ax = _axes(ax, 4.6, 4.6)
    ax.scatter(before[:, 1], before[:, 0], s=60, facecolors="none", edgecolors=[BLUE], label="before: (i, j)")
    ax.scatter(after[:, 1], after[:, 0], s=22, color=ORANGE, marker="x", label="after: (i', j')")
    ax.plot([before[0, 1], after[0, 1]], [before[0, 0], after[0, 0]], color="0.5", linewidth=1)
    ax.set_xticks(np.arange(before[:, 1].min(), before[:, 1].max() + 1))
    ax.set_yticks(np.arange(before[:, 0].min(), before[:, 0].max() + 1))
    ax.grid(color="0.9")
    ax.set(xlabel="column j (pixels)", ylabel="row i (pixels)", aspect="equal")
    ax.invert_yaxis()
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2)
    return ax


# ---- counts ------------------------------------------------------------------------------------------------


def plot_counts(counts: pd.DataFrame, *, xlabel: str = "images", ylabel: str = "", ax: Axes | None = None) -> Axes:
    """Draw counts as grouped horizontal bars with the number at the end of each.

    Args:
        counts: one row per group of bars, one column per class (or per part of a split).
        xlabel: what is counted.
        ylabel: what the rows are.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    ax = _axes(ax, 6.4, 1.0 + 0.32 * counts.size)
    colours = _colours([str(column) for column in counts.columns])
    place = np.arange(len(counts))
    thick = 0.8 / len(counts.columns)
    for k, column in enumerate(counts.columns):
        where = place + (k - (len(counts.columns) - 1) / 2) * thick
        bars = ax.barh(where, counts[column], thick * 0.92, color=colours[str(column)], label=str(column))
        ax.bar_label(bars, [f"{value:,.0f}" for value in counts[column]], padding=3, fontsize=9)
    ax.set_yticks(place, [str(row) for row in counts.index])
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(x=0.12)
    ax.invert_yaxis()
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def plot_subjects(counts: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the images of every subject as one bar, stacked by class or by part of a split.

    Args:
        counts: one row per subject, in the order to draw; one column per class or part.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; subjects are named if there are at most 30.
    """
    ax = _axes(ax, 7.6, 2.8)
    colours = _colours([str(column) for column in counts.columns])
    bottom = np.zeros(len(counts))
    for column in counts.columns:
        height = counts[column].to_numpy(dtype=float)
        ax.bar(range(len(counts)), height, 0.85, bottom=bottom, color=colours[str(column)], label=str(column))
        bottom += height
    if len(counts) <= 30:
        ax.set_xticks(range(len(counts)), [str(row) for row in counts.index], rotation=90, fontsize=8)
        ax.set_xlabel("subject")
    else:
        ax.set_xticks([])
        ax.set_xlabel(f"{len(counts)} subjects, one bar each")
    ax.set_ylabel("images")
    ax.margins(x=0.01)
    ax.legend(loc="upper right")
    return ax


# ---- measurements ------------------------------------------------------------------------------------------


def plot_distribution(
    table: pd.DataFrame, column: str, *, by: str = "label", xlabel: str = "", ax: Axes | None = None
) -> Axes:
    """Draw how a measurement spreads within each class, in percent of its images.

    Args:
        table: one row per image.
        column: the measurement.
        by: the column that holds the class.
        xlabel: name of the measurement with its unit.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    ax = _axes(ax)
    colours = class_colours(table[by])
    sns.histplot(
        data=table,
        x=column,
        hue=by,
        hue_order=list(colours),
        palette=colours,
        stat="percent",
        common_norm=False,
        element="step",
        alpha=0.35,
        ax=ax,
    )
    ax.set(xlabel=xlabel or column, ylabel="images of the class (%)")
    if ax.get_legend():
        ax.get_legend().set_title("")
    return ax


ORIGINS = {"genuine": BLUE, "synthetic": RED}
"""Colours of genuine and synthetic cells where both are in one figure."""


def plot_origins(cells: pd.DataFrame, names: Sequence[str], *, columns: int = 3) -> np.ndarray:
    """Draw how measurements spread over genuine and over synthetic cells, one panel each.

    Args:
        cells: one row per cell; columns `origin` and the measurements.
        names: the measurements.
        columns: panels per row.

    Returns:
        Array of Axes, one per place in the grid. Outermost values (beyond 0.5 and 99.5 percent) are not shown.
    """
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.15 * columns, 1.35 * rows + 0.4), squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        bins = np.linspace(*np.quantile(cells[name], [0.005, 0.995]), 25)
        for (origin, colour), style in zip(ORIGINS.items(), ("-", "--"), strict=True):
            values = cells.loc[cells["origin"] == origin, name]
            weights = np.full(len(values), 100 / len(values))
            ax.hist(values, bins, weights=weights, histtype="step", color=colour, linestyle=style, label=origin)
        ax.set_title(name, fontsize=9)
        ax.tick_params(labelsize=7)
        ax.set_yticks([])
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.supylabel("cells (%)", fontsize=9)
    return axes


def plot_gaps(table: pd.DataFrame, value: str, *, by: str = "label", xlabel: str, ax: Axes | None = None) -> Axes:
    """Draw one number per descriptor and class as dots, classes in their colours.

    Args:
        table: columns `descriptor`, `by` and `value`.
        value: the number.
        by: the column that holds the class.
        xlabel: what the number is.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; the first descriptor at the top.
    """
    names = list(dict.fromkeys(table["descriptor"]))
    ax = _axes(ax, 6.4, 0.8 + 0.26 * len(names))
    for (label, colour), marker in zip(class_colours(table[by]).items(), "osD^v", strict=False):
        rows = table[table[by] == label]
        places = [names.index(name) for name in rows["descriptor"]]
        ax.plot(rows[value], places, marker, color=colour, label=label)
    ax.set_yticks(range(len(names)), names)
    ax.grid(color="0.9")
    ax.set(xlabel=xlabel)
    ax.invert_yaxis()
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return ax


# ---- networks ----------------------------------------------------------------------------------------------


def plot_flow(
    steps: Sequence[str], *, per_row: int = 4, skip: tuple[int, int] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw steps as boxes joined by arrows, row by row, as the paper does in Figs. 3, 5 and 6.

    Args:
        steps: text of each box; may hold line breaks.
        per_row: boxes in a row.
        skip: numbers of two boxes of the first row that a skip connection joins.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    rows, wide, high = -(-len(steps) // per_row), 0.66, 0.46
    ax = _axes(ax, 1.75 * min(per_row, len(steps)), 0.95 * rows + (0.6 if skip else 0))
    places = [(k % per_row, -(k // per_row)) for k in range(len(steps))]
    arrow = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    for (x, y), step in zip(places, steps, strict=True):
        corner = (x - wide / 2, y - high / 2)
        style = {"boxstyle": "round,pad=0.04", "facecolor": "#E8F1F8", "edgecolor": BLUE}
        ax.add_patch(FancyBboxPatch(corner, wide, high, **style))
        ax.text(x, y, step, ha="center", va="center", fontsize=8)
    for (x, y), (u, v) in pairwise(places):
        ends = ((x + 0.37, y), (u - 0.37, v)) if y == v else ((x, y - 0.27), (u, v + 0.27))
        ax.annotate("", ends[1], ends[0], arrowprops=arrow)
    if skip:
        (x, y), (u, v) = places[skip[0]], places[skip[1]]
        curve = arrow | {"connectionstyle": "arc3,rad=-0.18", "color": RED}
        ax.annotate("", (u, v + 0.28), (x, y + 0.28), arrowprops=curve)
        ax.text((x + u) / 2, 0.85, "skip connection", color=ink(RED), ha="center", fontsize=8)
    ax.set(xlim=(-0.5, min(per_row, len(steps)) - 0.5), ylim=(-rows + 0.6, 1.05 if skip else 0.4))
    ax.set_axis_off()
    return ax


def plot_stages(table: pd.DataFrame, column: str, *, xlabel: str, ax: Axes | None = None) -> Axes:
    """Draw one number per stage of a network as horizontal bars, input at the top.

    Args:
        table: from `allkit.models.count_by_stage`.
        column: "parameters" or "multiply_adds".
        xlabel: what is counted, with its unit.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    ax = _axes(ax, 6.4, 0.6 + 0.24 * len(table))
    bars = ax.barh(table["stage"], table[column], color=BLUE)
    ax.bar_label(bars, [f"{value:,.0f}" for value in table[column]], padding=3, fontsize=8)
    ax.set(xlabel=xlabel, ylabel="stage")
    ax.margins(x=0.16, y=0.02)
    ax.invert_yaxis()
    return ax


# ---- training and evaluation -------------------------------------------------------------------------------


def plot_history(history: pd.DataFrame, measure: str, *, ax: Axes | None = None) -> Axes:
    """Draw a measure of the training and validation images over the epochs (Figs. 8, 9, 13, 14).

    Args:
        history: from `allkit.train.train_model`, or the paper's Table I or II with accuracies 0-1.
        measure: "accuracy" or "loss".
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; accuracies are drawn in percent.
    """
    ax = _axes(ax, 4.8, 3.2)
    scale = 100 if measure == "accuracy" else 1
    ax.plot(history["epoch"], scale * history[measure], "o-", color=BLUE, label="training")
    ax.plot(history["epoch"], scale * history[f"val_{measure}"], "s--", color=ORANGE, label="validation")
    ax.set_xticks(history["epoch"])
    ax.set(xlabel="epoch", ylabel="accuracy (%)" if measure == "accuracy" else "loss (nats, penalties included)")
    ax.legend()
    return ax


def plot_arms(histories: dict[str, pd.DataFrame], measure: str, *, ax: Axes | None = None) -> Axes:
    """Compare the arms of an experiment epoch by epoch.

    Args:
        histories: name of the arm -> its history, with the columns `epoch` and `measure` (0-1).
        measure: column to draw.
        ax: where to draw.
    """

    ax = _axes(ax)
    marks = ("o", "s", "^", "D", "v", "P")  # readable without colour
    palette = line_colours(len(histories))
    widths = np.linspace(4.5, 1.5, len(histories))  # a line under another still shows
    for (name, table), mark, colour, width in zip(histories.items(), marks, palette, widths, strict=False):
        ax.plot(table["epoch"], 100 * table[measure], marker=mark, ms=5 + width, lw=width, color=colour, label=name)
    ax.set(xlabel="epoch", ylabel=f"{measure.replace('_', ' ').replace('val', 'validation')} (%)", ylim=(0, 100))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(fontsize="small")
    return ax


def plot_confusion(counts: pd.DataFrame, *, rates: bool = False, ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix (Figs. 10 and 15).

    Args:
        counts: from `allkit.evaluate.confusion`.
        rates: draw each row as percent of its sum.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    ax = _axes(ax, 3.8, 3.4)
    matrix = counts.to_numpy()
    values = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1) if rates else matrix
    display = ConfusionMatrixDisplay(values, display_labels=list(counts.index))
    display.plot(ax=ax, cmap="cividis", values_format=".1f" if rates else "d", colorbar=False)
    for value, text in zip(values.flat, display.text_.flat, strict=True):
        ground = display.im_.to_rgba(value)[:3]
        text.set_color(max(("black", "white"), key=lambda shade: contrast(shade, ground)))
    ax.set(xlabel="predicted class", ylabel="true class", title="% of the true class" if rates else "images")
    return ax


def plot_roc(predictions: dict[str, pd.DataFrame], positive: str, *, ax: Axes | None = None) -> Axes:
    """Draw the ROC curve of one class against the rest, one curve per model (Figs. 12 and 17).

    Args:
        predictions: title -> predictions table.
        positive: the class whose probability ranks the images.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; the legend gives each area under the curve.
    """
    ax = _axes(ax, 4.8, 4.4)
    styles = ["-", "--", "-.", ":"]
    for k, (title, table) in enumerate(predictions.items()):
        RocCurveDisplay.from_predictions(
            table["label"] == positive, table[f"p_{positive}"], name=title, ax=ax,
            plot_chance_level=k == 0, curve_kwargs={"linestyle": styles[k % 4]},
        )  # fmt: skip
    ax.set(
        xlabel="false positive rate (1 − specificity)",
        ylabel=f"true positive rate (sensitivity for {positive})",
    )
    return ax


def plot_intervals(table: pd.DataFrame, *, xlabel: str, ax: Axes | None = None) -> Axes:
    """Draw a value with its interval for each row, the first row at the top.

    Args:
        table: columns value, low, high (NaN: no interval can be given); index: names.
        xlabel: the measure.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; rows without an interval have a hollow mark.
    """
    ax = _axes(ax, 6.4, 0.8 + 0.32 * len(table))
    place = np.arange(len(table))
    known = table["low"].notna().to_numpy()
    ax.hlines(place[known], table["low"][known], table["high"][known], color="0.5", linewidth=2)
    ax.plot(table["value"][known], place[known], "o", color=BLUE, label="value with interval")
    if not known.all():
        ax.plot(
            table["value"][~known],
            place[~known],
            "o",
            mfc="none",
            color=BLUE,
            label="value, no interval",
        )
    ax.set_yticks(place, [str(name) for name in table.index])
    ax.set(xlabel=xlabel)
    ax.grid(axis="x", color="0.9")
    ax.invert_yaxis()
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8)
    return ax


def plot_calibration(curves: dict[str, pd.DataFrame], *, xlabel: str, ylabel: str, ax: Axes | None = None) -> Axes:
    """Draw reliability diagrams: what was predicted against what was seen.

    Args:
        curves: title -> table from `allkit.evaluate.evaluate_calibration`.
        xlabel: which probability was predicted.
        ylabel: the share of which images was seen.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; the area of a mark grows with its images, whose number stands beside it.
    """

    ax = _axes(ax, 4.6, 4.4)
    ax.plot([0, 1], [0, 1], ":", color="0.4", label="said = seen")
    palette = line_colours(len(curves))
    places = [((-5, 6), "right"), ((5, -12), "left")]  # numbers of two curves do not meet
    for k, (title, table) in enumerate(curves.items()):
        colour, line = palette[k], ["-", "--", "-.", ":"][k % 4]
        ax.plot(table["predicted"], table["observed"], line, color=colour, linewidth=1, label=title)
        most = max(table["images"].max(), 1)
        ax.scatter(table["predicted"], table["observed"], 8 + 110 * table["images"] / most, color=colour, alpha=0.75)
        shift, side = places[k % 2]
        for row in table.itertuples():
            style = {"textcoords": "offset points", "ha": side, "fontsize": 7, "color": ink(colour)}
            ax.annotate(f"{row.images}", (row.predicted, row.observed), shift, **style)
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.06, 1.06), ylim=(-0.08, 1.08), aspect="equal")
    ax.legend(fontsize=8)
    return ax


def plot_costs(
    tables: dict[str, pd.DataFrame], chosen: dict[str, float], *, ylabel: str, ax: Axes | None = None
) -> Axes:
    """Draw the expected cost over the threshold, one line per model, with the chosen thresholds.

    Args:
        tables: title -> table from `allkit.evaluate.evaluate_thresholds`.
        chosen: title -> threshold, drawn as a mark on its line.
        ylabel: the cost, with what it is counted per.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """

    ax = _axes(ax)
    palette = line_colours(len(tables))
    for k, (title, table) in enumerate(tables.items()):
        line = ["-", "--", "-.", ":"][k % 4]
        cuts, cost = [*table["threshold"], 0], [*table["cost_per_1000"], table["cost_per_1000"].iloc[-1]]
        ax.step(cuts, cost, line, where="post", color=palette[k], label=title)  # thresholds come highest first
        row = table.iloc[(table["threshold"] - chosen[title]).abs().argmin()]
        ax.plot(row["threshold"], row["cost_per_1000"], "os^D"[k % 4], color=palette[k], markersize=8)
    ax.set(xlabel="threshold on the probability of the positive class", ylabel=ylabel, xlim=(-0.02, 1.02))
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def plot_subject_shares(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the share of right answers of every subject, the area of the mark by its images.

    Args:
        table: from `allkit.evaluate.evaluate_subjects`.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; one column per class, subjects side by side in the order given, named if there are at most 30.
    """
    ax = _axes(ax, 3.4, 3.6)
    colours = class_colours(table["label"])
    for k, (label, colour) in enumerate(colours.items()):
        rows = table[table["label"] == label]
        across = k + np.linspace(-0.36, 0.36, len(rows)) if len(rows) > 1 else np.array([float(k)])
        size = 15 + 200 * rows["images"] / table["images"].max()
        ax.scatter(across, 100 * rows["right"], size, color=colour, alpha=0.6, edgecolor="0.2", linewidth=0.6)
        if len(table) <= 30:
            style = {"textcoords": "offset points", "ha": "center", "va": "top", "rotation": 90, "fontsize": 7}
            for x, name, right, area in zip(across, rows.index, rows["right"], size, strict=True):
                ax.annotate(str(name), (x, 100 * right), (0, -2 - (area / np.pi) ** 0.5), **style)
    ax.set_xticks(range(len(colours)), [f"{name} ({(table['label'] == name).sum()})" for name in colours])
    ax.set(
        xlabel="class (number of subjects)",
        ylabel="right answers (% of the subject's images)",
        xlim=(-0.5, len(colours) - 0.5),
        ylim=(-16, 108),
    )
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    return ax


def plot_test_sets(table: pd.DataFrame, column: str, *, ylabel: str, ax: Axes | None = None) -> Axes:
    """Draw what simulated test sets tell, over their number of subjects, one line per way of resampling.

    Args:
        table: from `allkit.evaluate.simulate_test_sets`.
        column: "covers", "sees" or "wrong", drawn in percent, or "width".
        ylabel: what the column is.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; the number of subjects is on a logarithmic scale.
    """
    ax = _axes(ax, 3.6, 3.2)
    scale = 1 if column == "width" else 100
    styles = {"subjects": ("o-", BLUE), "cells": ("s--", ORANGE)}
    for unit, (line, colour) in styles.items():
        rows = table[table["resampled"] == unit]
        ax.plot(rows["subjects"], scale * rows[column], line, color=colour, label=f"{unit} resampled")
    ax.set_xscale("log")
    sizes = sorted(set(table["subjects"]))
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.set(xlabel="subjects of each class in the test set", ylabel=ylabel)
    ax.set_ylim(0, None if column == "width" else 103)
    ax.legend(fontsize=8)
    return ax


def plot_grouped_intervals(table: pd.DataFrame, *, xlabel: str, ax: Axes | None = None) -> Axes:
    """Draw several values with their intervals for each row, the first row at the top.

    Args:
        table: columns value, low, high (NaN: no interval can be given, the mark is hollow); an index of two
            levels, the row and what is compared in it.
        xlabel: the measure.
        ax: where to draw; a new figure if None.
    """

    rows, kinds = (list(dict.fromkeys(table.index.get_level_values(level))) for level in (0, 1))
    ax = _axes(ax, 6.4, 1.0 + len(rows) * (0.22 + 0.14 * len(kinds)))
    marks = ("o", "s", "^", "D", "v", "P")  # readable without colour
    for k, (kind, mark, colour) in enumerate(zip(kinds, marks, line_colours(len(kinds)), strict=False)):
        part = table.xs(kind, level=1).reindex(rows)
        place = np.arange(len(rows)) + (k - (len(kinds) - 1) / 2) * 0.7 / len(kinds)
        ax.hlines(place, part["low"], part["high"], color=colour, linewidth=2)
        known = part["low"].notna().to_numpy()
        ax.plot(part["value"][known], place[known], mark, color=colour)
        ax.plot(part["value"][~known], place[~known], mark, mfc="none", color=colour)
        ax.plot([], [], mark, color=colour, label=kind)
    ax.set_yticks(range(len(rows)), [str(name) for name in rows])
    ax.set(xlabel=xlabel)
    ax.grid(axis="x", color="0.9")
    ax.invert_yaxis()
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8)
    return ax


def plot_subject_effect(table: pd.DataFrame, *, xlabel: str, ylabel: str, ax: Axes | None = None) -> Axes:
    """Draw what was measured beside what is true, at several settings of a dial.

    Args:
        table: index: the settings; columns `measured`, its standard error `error`, and `true`.
        xlabel, ylabel: what is set, and what is measured.
        ax: where to draw; a new figure if None.
    """
    ax = _axes(ax, 4.8, 3.2)
    ax.axhline(0, color="0.8", linewidth=1)
    ax.plot(table.index, table["true"], "_", color="black", markersize=26, markeredgewidth=2, label="true")
    ax.errorbar(
        table.index, table["measured"], 2 * table["error"], fmt="o", color=BLUE, capsize=4,
        label="measured, ± 2 standard errors",
    )  # fmt: skip
    ax.set(xlabel=xlabel, ylabel=ylabel, xticks=list(table.index))
    ax.margins(x=0.2)
    ax.legend(loc="upper left", fontsize=8)
    return ax


# ---- tuning ------------------------------------------------------------------------------------------------


def plot_trial_curves(curves: pd.DataFrame, *, ylabel: str, ax: Axes | None = None) -> Axes:
    """Draw the score of every trial over its epochs; pruned ones are dashed and end in a cross.

    Args:
        curves: from `allkit.study.curves_table`; score 0-1, drawn in percent.
        ylabel: the score, without its unit.
        ax: where to draw; a new figure if None.
    """
    ax = _axes(ax)
    styles = {"complete": ("-", "o", BLUE), "pruned": ("--", "x", ORANGE)}
    for (state, _), rows in curves.groupby(["state", "trial"]):
        line, mark, colour = styles[state]
        ax.plot(rows["epoch"], 100 * rows["score"], line, color=colour, linewidth=1, alpha=0.7)
        ax.plot(rows["epoch"].iloc[-1], 100 * rows["score"].iloc[-1], mark, color=colour)
    for state, (line, mark, colour) in styles.items():
        ax.plot([], [], line, marker=mark, color=colour, label=state)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="epoch", ylabel=f"{ylabel} (%)")
    ax.legend(fontsize=8)
    return ax


def plot_study_history(table: pd.DataFrame, *, ylabel: str, ax: Axes | None = None) -> Axes:
    """Draw the score of every trial in the order of the trials, and the best so far.

    Args:
        table: from `allkit.study.trials_table`; score and best 0-1, drawn in percent.
        ylabel: the score, without its unit.
        ax: where to draw; a new figure if None.
    """
    ax = _axes(ax)
    for state, mark, colour in (("complete", "o", BLUE), ("pruned", "x", ORANGE)):
        rows = table[table["state"] == state]
        ax.plot(rows["trial"], 100 * rows["score"], mark, color=colour, label=state)
    table = table.sort_values("trial")
    ax.step(table["trial"], 100 * table["best"], where="post", color="0.5", label="best so far")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="trial", ylabel=f"{ylabel} (%)")
    ax.legend(fontsize=8)
    return ax


def plot_optimism(table: pd.DataFrame, *, ylabel: str, ax: Axes | None = None) -> Axes:
    """Draw the best validation score of k trials, and the test score of the same trials, over k.

    Args:
        table: from `allkit.tune.measure_optimism`; scores 0-1, drawn in percent.
        ylabel: the score, without its unit.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; the gap between the lines is shaded, k is on a logarithmic scale.
    """
    ax = _axes(ax)
    ax.fill_between(table["trials"], 100 * table["test"], 100 * table["score"], color="0.9")
    ax.plot(table["trials"], 100 * table["score"], "-", color=PARTS["validation"], linewidth=2)
    ax.plot(table["trials"], 100 * table["test"], "--", color=PARTS["test"], linewidth=2)
    last = table.iloc[-1]
    for column, name in (("score", "validation, the best"), ("test", "test, the same trial")):
        ax.annotate(name, (last["trials"], 100 * last[column]), (6, 0), textcoords="offset points", va="center")
    ax.set_xscale("log")
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if k <= last["trials"]]
    ax.set_xticks(ticks, [str(k) for k in ticks])
    ax.minorticks_off()
    ax.set(xlabel="trials to choose from", ylabel=f"{ylabel} (%)")
    return ax


# ---- explanations ------------------------------------------------------------------------------------------


def plot_map_rows(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    names: Sequence[str],
    *,
    outlines: Sequence[Sequence[Mapping[str, np.ndarray]]] | None = None,
    size: float = 1.3,
) -> np.ndarray:
    """Show one row of pictures per cell, such as the cell and the maps laid over it.

    Args:
        rows: per cell, uint8 (s, s, 3) pictures; their sizes may differ.
        titles: one per column.
        names: one per row, written at its left.
        outlines: per cell and picture, name -> bool (s, s) whose outline is drawn: the first white, others black.
        size: height and width of one picture in inches.

    Returns:
        Array of Axes, (cells, columns).
    """
    shape = (len(rows), len(titles))
    frame = (size * shape[1], size * shape[0] + 0.35)
    figure, axes = plt.subplots(*shape, figsize=frame, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    for k, row in enumerate(rows):
        for j, (ax, picture) in enumerate(zip(axes[k], row, strict=True)):
            ax.imshow(picture)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            for mask, colour in zip(outlines[k][j].values() if outlines else (), ("white", "black"), strict=False):
                ax.contour(mask, [0.5], colors=colour, linewidths=0.9)
        axes[k, 0].set_ylabel(names[k], fontsize=8)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=8)
    return axes
