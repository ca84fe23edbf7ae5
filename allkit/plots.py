"""One function per kind of figure; each draws what it is given and computes nothing.

`plot_…` takes its data and an optional `ax`, and returns the Axes (an array of them for a grid of pictures). Nothing
is shown or saved here: `Run.show` does both. Lines, marks and bars take the colours of one palette and, beside them,
a marker or line style, so that figures can be read without colour. Every figure carries its description in words,
for readers who cannot see it: the labels of its Axes (`describe`, `description_of`).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice, pairwise
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, StrMethodFormatter
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay

from allkit.data import class_order
from allkit.images import brighten, brightening, describe_brightening

PALETTE = {
    "blue": "#0A4FA3",
    "orange": "#CF8000",
    "wine": "#520A2B",
    "green": "#0A7E62",
    "red": "#C2352B",
    "violet": "#A174D0",
}
"""The kit's colours, in the order in which they are used.

On white each has a contrast of 3:1 or more. Any two differ with every kind of colour blindness, the first four also in
grey print. `tests/test_plots.py` measures it.
"""

BLUE, ORANGE, RED = PALETTE["blue"], PALETTE["orange"], PALETTE["red"]

PARTS = {"train": "#8E8E8E", "validation": "#0F3B52", "test": "#9B30B0"}
"""Colours of the three parts of a split; no class has one of them."""

MARKERS = ("o", "X", "s", "^", "D", "v")
"""Shapes of marks, in the order of the palette."""

_LARGE = 15_000  # bytes of a figure from which on its colours are counted

DASHES = ("", (5, 2), (1, 1), (5, 2, 1, 2), (2, 1), (8, 3))
"""Dashes and gaps of lines in points, in the order of the palette."""


def use_style() -> None:
    """Set the look of all figures: plain axes, readable sizes, moderate resolution."""
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 100,
            "text.parse_math": False,  # a class or a subject may be called $x
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.formatter.limits": (-5, 12),  # plain numbers
            "axes.grid": False,
            "axes.prop_cycle": plt.cycler(color=list(PALETTE.values())),
            "font.size": 10,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
            "legend.fontsize": 9,
            "legend.frameon": False,
        }
    )


def class_colours(labels: Iterable[object]) -> dict[str, tuple[float, float, float]]:
    """Return class -> (red, green, blue), each 0–1: the positive class first, whatever the order of the labels."""
    classes = class_order(labels)
    if len(classes) > len(PALETTE):  # the darker part of a map that colour blindness does not change
        return dict(zip(classes, sns.color_palette("cividis", 5 * len(classes) // 3), strict=False))
    return dict(zip(classes, map(to_rgb, PALETTE.values()), strict=False))


def describe(ax: Axes, text: str) -> Axes:
    """Give Axes a sentence that describes them; return them."""
    ax.set_label(text)
    return ax


def figure_of(drawn: Any) -> Any:
    """Return the Figure of a Figure, Axes, array of Axes or seaborn grid."""
    return drawn.flat[0].figure if hasattr(drawn, "flat") else drawn.figure


def description_of(drawn: Any) -> str:
    """Return the descriptions of all Axes of a figure, one after the other; "" where there are none."""
    labels = [ax.get_label() for ax in figure_of(drawn).axes]
    return " ".join(label for label in labels if label and not label.startswith("<"))


def figure_png(drawn: Any, *, dpi: int = 200, alt: str = "") -> bytes:
    """Return a figure as a PNG file, twice as fine as it is shown, and close it."""
    figure, out = figure_of(drawn), io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, bbox_inches="tight", metadata={"Description": alt})
    plt.close(figure)
    if out.tell() > _LARGE:  # pictures of cells: 256 colours look the same in a third of the space
        small = Image.open(out).convert("RGB").quantize(256)
        out = io.BytesIO()
        small.save(out, "PNG", optimize=True, dpi=(dpi, dpi))
    return out.getvalue()


def contrast(colour: object, ground: object = "white") -> float:
    """Return the contrast of two colours, 1 to 21, by the Web Content Accessibility Guidelines."""

    def luminance(shade: object) -> float:
        light = np.array(to_rgb(shade))
        linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(colour), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


def ink(colour: object) -> tuple[float, float, float]:
    """Return a colour darkened until text of it can be read on white: a contrast of 4.5:1 or more."""
    shade = np.array(to_rgb(colour))
    while contrast(shade) < 4.5:
        shade = 0.95 * shade
    return tuple(shade)


def plot_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    *,
    columns: int = 5,
    size: float = 1.5,
    colours: Sequence | None = None,
    factor: float | None = None,
    rows: Sequence[str] = (),
    outlines: Sequence[Sequence[np.ndarray]] = (),
    alt: str = "",
) -> np.ndarray:
    """Show images in a grid, each `size` inches wide, without axes; return the array of Axes.

    An image is uint8 (h, w, 3) or (h, w). All are shown brighter by the same `factor`, by default `brightening`; the
    figure says so. `titles` stand above the first images, in `colours` (darkened where they would be hard to read);
    `rows` stand left of the rows. `outlines` holds bool masks (h, w) for each image: the border of the first is drawn
    white, of the second black. `alt` describes the figure.
    """
    columns, factor = min(columns, len(images)), brightening(images) if factor is None else factor
    count = -(-len(images) // columns)
    titled = -(-len(titles) // columns)
    height = count * size + titled * 0.25 * max((title.count("\n") + 1 for title in titles), default=0)
    figure, axes = plt.subplots(count, columns, figsize=(columns * size, height), squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, image in zip(axes.flat, images, strict=False):
        ax.imshow(brighten(image, factor), vmin=0, vmax=255)
    for k, (ax, title) in enumerate(zip(axes.flat, titles, strict=False)):
        ax.set_title(title, fontsize=9, color=ink(colours[k]) if colours is not None else "black")
    for ax, masks in zip(axes.flat, outlines, strict=False):
        for mask, colour in zip(masks, ("white", "black"), strict=False):
            ax.contour(mask, [0.5], colors=colour, linewidths=0.9)
    for ax, name in zip(axes[:, 0], rows, strict=False):
        ax.set_ylabel(name, fontsize=9)
    if bright := describe_brightening(factor):
        note = {"x": 0.005, "ha": "left", "fontsize": 8, "color": "0.35"}
        figure.supxlabel(bright, **note)
    describe(axes.flat[0], alt)
    return axes


def plot_bars(
    counts: pd.DataFrame, *, xlabel: str = "", ylabel: str = "", stacked: bool = False, ax: Axes | None = None
) -> Axes:
    """Draw one group of bars per row of the table, one bar per column: a class, a part of a split, or one measure.

    Bars lie and have their number at the end; stacked ones stand, and their names are left out beyond 30.
    """
    colours = PARTS if set(counts.columns) <= set(PARTS) else class_colours(counts.columns)
    style = {"color": [colours[str(name)] for name in counts.columns], "width": 0.8}
    if stacked:
        ax = counts.plot.bar(stacked=True, ax=new_axes(ax, 7.6, 2.8), **style)
        ax.tick_params(axis="x", labelsize=8)
        if len(counts) > 30:
            ax.set_xticks([])
            xlabel = f"{len(counts)} {xlabel}, one bar each"
        ax.margins(x=0.01)
    else:
        ax = counts.plot.barh(ax=new_axes(ax, 6.4, 1.0 + 0.24 * counts.size), **style)
        for bars in ax.containers:
            ax.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        ax.margins(x=0.14)
        ax.invert_yaxis()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(counts.columns) > 1:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        ax.get_legend().remove()
    if stacked:
        ax.set_ylim(top=1.06 * counts.sum(axis=1).max())
    return describe(ax, f"Bars: {_in_words(counts, xlabel if not stacked else ylabel)}.")


def plot_distribution(table: pd.DataFrame, column: str, *, xlabel: str = "", ax: Axes | None = None) -> Axes:
    """Draw how a measurement spreads within each class (column `label`), in percent of the images of the class."""
    colours = class_colours(table["label"])
    classes = {"hue": "label", "hue_order": list(colours), "palette": colours, "common_norm": False}
    ax = sns.histplot(table, x=column, stat="percent", element="step", alpha=0.35, ax=new_axes(ax), **classes)
    ax.set(xlabel=xlabel or column, ylabel="images of the class (%)")
    ax.get_legend().set_title("")
    means = table.groupby("label")[column].mean()
    listed = ", ".join(f"{label} {means[label]:,.4g}" for label in colours)
    return describe(ax, f"Histogram of the {xlabel or column} by class; means: {listed}.")


def plot_lines(
    data: pd.DataFrame | Mapping[str, pd.DataFrame],
    x: str,
    y: str | Mapping[str, str],
    *,
    by: str = "line",
    unit: str | None = None,
    xlabel: str = "",
    ylabel: str = "",
    percent: bool = False,
    log: bool = False,
    steps: bool = False,
    marks: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the column `y` over `x`, one line per value of the column `by`.

    In place of `by`, several columns may be given, as column -> name of its line; or several tables, as name -> table.
    `unit` names what has a line of its own but no colour of its own, such as a trial; only its end is marked. `percent`
    writes shares (0–1) in percent, `log` makes `x` logarithmic, `steps` holds a value until the next `x`, and `marks`,
    name of a line -> x, puts a large mark on that point of the line. A second call on the same Axes goes on with the
    next colours.
    """
    table, y, by = _long(data, x, y, by)
    styles = _styles(table[by], ax)
    look = {
        "palette": styles["colour"].to_dict(),
        "markers": not steps and styles["marker"].to_dict(),
        "dashes": styles["dashes"].to_dict(),
        "sizes": dict.fromkeys(styles.index, 1) if unit else styles["width"].to_dict(),
        "markevery": [-1] if unit else 0.05 if len(table) > 40 * len(styles) else 1,
        "drawstyle": "steps-post" if steps else "default",
    }
    groups = {"hue": by, "style": by, "size": by, "units": unit}
    ax = sns.lineplot(table, x=x, y=y, **groups, **look, estimator=None, sort=False, ax=new_axes(ax))
    for name, position in (marks or {}).items():
        rows = table[table[by] == name]
        point = rows.iloc[(rows[x] - position).abs().argmin()]
        ax.plot(point[x], point[y], styles["marker"][name], color=styles["colour"][name], markersize=9)
    ax.set(xlabel=xlabel or x, ylabel=f"{ylabel or y} (%)" if percent else ylabel or y)
    ax.legend()
    _set_ticks(ax, log=log, whole=pd.api.types.is_integer_dtype(table[x]), percent=percent)
    ends = table.dropna(subset=y).groupby(by, sort=False)[y].last()
    listed = "; ".join(
        f"{name} {100 * value:.0f} %" if percent else f"{name} {value:.3g}" for name, value in ends.items()
    )
    return describe(ax, f"Lines of {ylabel or y} over {xlabel or x}; at the end: {listed}.")


def plot_history(history: pd.DataFrame) -> np.ndarray:
    """Draw accuracy (0–1) and loss of training and validation images over the epochs (Figs. 8, 9, 13, 14).

    Where the loss without the penalty on the weights is known (columns `answers`, `val_answers`), it is drawn beside
    the whole loss: what lies between is penalty.
    """
    _, axes = plt.subplots(1, 2, figsize=(8.4, 3.2))
    names = {"accuracy": "training", "val_accuracy": "validation"}
    plot_lines(history, "epoch", names, ylabel="accuracy", percent=True, ax=axes[0])
    parts = {"loss": "training", "val_loss": "validation"}
    if "answers" in history:
        parts = {"answers": "training, answers", "val_answers": "validation, answers", "loss": "training, with penalty"}
    plot_lines(history, "epoch", parts, ylabel="loss (nats)", ax=axes[1])
    axes[1].set_ylim(bottom=0)
    return axes


def plot_points(
    table: pd.DataFrame,
    x: str,
    y: str,
    *,
    by: str,
    xlabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a mark for each row of the table, with a colour and a shape per value of the column `by`."""
    styles = _styles(table[by], ax)
    colours, markers = styles["colour"].to_dict(), styles["marker"].to_dict()
    ax = sns.scatterplot(table, x=x, y=y, hue=by, style=by, palette=colours, markers=markers, s=40, ax=new_axes(ax))
    ax.set_axisbelow(True)
    ax.set_xlabel(xlabel or x)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return describe(ax, f"{len(table)} points of {y} over {xlabel or x}, by {by}: {', '.join(map(str, colours))}.")


def plot_intervals(
    table: pd.DataFrame, *, xlabel: str, ylabel: str = "", line: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw each row's value with its interval, the first row at the top.

    Columns `value`, `low`, `high` (NaN: no interval can be given; the mark is hollow). An index of two levels holds
    the row and what is compared in it. `line` is a value to compare with, such as that of guessing.
    """
    if table.index.nlevels == 1:
        table = pd.concat({"value with interval": table}).swaplevel()
    rows, kinds = (list(dict.fromkeys(table.index.get_level_values(level))) for level in (0, 1))
    ax = new_axes(ax, 6.4, 1.0 + len(rows) * (0.2 + 0.15 * len(kinds)))
    shifts = (np.arange(len(kinds)) - (len(kinds) - 1) / 2) * 0.7 / len(kinds)
    for shift, (kind, style) in zip(shifts, _styles(kinds).iterrows(), strict=True):
        part, colour, mark = table.xs(kind, level=1).reindex(rows), style["colour"], style["marker"]
        place, known = np.arange(len(rows)) + shift, part["low"].notna()
        ax.hlines(place, part["low"], part["high"], color=colour, linewidth=2)
        ax.plot(part["value"].where(known), place, mark, color=colour, label=kind)
        ax.plot(part["value"].mask(known), place, mark, color=colour, markerfacecolor="white")
    hollow = table["low"].isna().any()
    if hollow:
        ax.plot([], [], "o", color="0.3", markerfacecolor="white", label="no interval")
    ax.set_yticks(range(len(rows)), [str(name) for name in rows])
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(len(rows) - 0.5, -0.5))
    ax.margins(x=0.08)
    ax.grid(axis="x", color="0.9")
    if hollow or len(kinds) > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    if line is not None:
        ax.axvline(line, color="0.3", linewidth=1)
    names = [name if one == kinds[0] and len(kinds) == 1 else f"{name}, {one}" for name, one in table.index]
    values = ["inconclusive" if value != value else f"{value:.3g}" for value in table["value"]]
    listed = "; ".join(f"{name} {value}" for name, value in zip(names, values, strict=True)) or "none"
    return describe(ax, f"Values with intervals, {xlabel}: {listed}.")


def plot_confusion(counts: pd.DataFrame, *, rates: bool = False, ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix (Figs. 10 and 15), in images or, with `rates`, each row in percent of its sum.

    The colour is the share of the row either way, from 0 to 100 %, so that a large class does not look better.
    """
    ax = new_axes(ax, 3.8, 3.4)
    matrix = counts.to_numpy()
    shares = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    display = ConfusionMatrixDisplay(shares, display_labels=list(counts.index))
    display.plot(ax=ax, cmap="cividis", values_format=".1f", colorbar=False, im_kw={"vmin": 0, "vmax": 100})
    for share, value, text in zip(shares.flat, matrix.flat, display.text_.flat, strict=True):
        ground = display.im_.to_rgba(share)[:3]
        text.set_color(max(("black", "white"), key=lambda shade: contrast(shade, ground)))
        text.set_text(f"{share:.1f}" if rates else f"{value}")
    ax.set(xlabel="predicted class", ylabel="true class", title="% of the true class" if rates else "images")
    right = int(np.trace(matrix))
    return describe(ax, f"Confusion matrix: {right} of {matrix.sum()} test images are classified correctly.")


def plot_confusions(counts: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Draw the confusion matrices of title -> counts side by side, in percent of the true class."""
    _, axes = plt.subplots(1, len(counts), figsize=(3.9 * len(counts), 3.5), squeeze=False)
    for ax, (title, table) in zip(axes.flat, counts.items(), strict=True):
        plot_confusion(table, rates=True, ax=ax).set_title(f"{title} (% of the true class)")
        describe(ax, f"{title}: {ax.get_label()}")
    return axes


def plot_roc(predictions: Mapping[str, pd.DataFrame], positive: str, *, ax: Axes | None = None) -> Axes:
    """Draw the ROC curve of one class against the rest, one curve per title -> predictions (Figs. 12 and 17)."""
    ax, areas = new_axes(ax, 4.8, 4.4), []
    for title, style in _styles(predictions).iterrows():
        table = predictions[title]
        look = {"linestyle": style["linestyle"], "color": style["colour"]}
        drawn = RocCurveDisplay.from_predictions(
            table["label"] == positive, table[f"p_{positive}"], name=title, ax=ax, curve_kwargs=look
        )
        areas.append(f"{title} {drawn.roc_auc:.2f}")
    ax.plot([0, 1], [0, 1], ":", color="0.4", label="guessing (AUC = 0.50)")
    ax.legend(loc="lower right")
    ax.set(xlabel="false positive rate (1 − specificity)", ylabel=f"true positive rate (sensitivity for {positive})")
    return describe(ax, f"ROC curves for {positive}; areas under them: {'; '.join(areas)}.")


def plot_calibration(curves: Mapping[str, pd.DataFrame], *, xlabel: str, ylabel: str) -> np.ndarray:
    """Draw reliability diagrams of title -> table from `allkit.evaluate.evaluate_calibration`, images below.

    The area of a mark grows with its images; the lower panel counts them.
    """
    _, axes = plt.subplots(2, 1, figsize=(4.4, 5.0), sharex=True, height_ratios=(4, 1))
    for title, style in _styles(curves).iterrows():
        table, colour = curves[title], style["colour"]
        axes[0].plot(table["predicted"], table["observed"], linestyle=style["linestyle"], color=colour, linewidth=1)
        area = 8 + 110 * table["images"] / max(table["images"].max(), 1)
        mark = {"marker": style["marker"], "color": colour, "alpha": 0.75, "label": title}
        axes[0].scatter(table["predicted"], table["observed"], area, **mark)
        starts = [float(name.partition("–")[0]) for name in table.index]
        look = {"linestyle": style["linestyle"], "edgecolor": colour, "facecolor": "none"}
        axes[1].bar(starts, table["images"], width=0.1, align="edge", **look)
    axes[0].plot([0, 1], [0, 1], ":", color="0.4", label="predicted = observed")
    axes[0].set(ylabel=ylabel, xlim=(-0.04, 1.04), ylim=(-0.06, 1.06))
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    axes[1].set(xlabel=xlabel, ylabel="images")
    gaps = "; ".join(
        f"{title} {np.average((t['predicted'] - t['observed']).abs(), weights=t['images']):.2f}"
        for title, t in curves.items()
    )
    describe(axes[0], f"Reliability diagram; mean gap between predicted and observed: {gaps}.")
    return axes


def plot_subject_shares(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the share of right answers of every subject, from `allkit.evaluate.evaluate_subjects`.

    One column per class, subjects side by side in the order given; the three with the lowest share are named, and the
    area of a mark grows with the subject's images.
    """
    ax = new_axes(ax, 3.8, 3.6)
    classes = class_colours(table["label"])
    lowest = set(table.nsmallest(3, "right").index)
    for k, (label, colour) in enumerate(classes.items()):
        rows = table[table["label"] == label]
        across = k + (np.linspace(-0.36, 0.36, len(rows)) if len(rows) > 1 else np.zeros(1))
        area = 15 + 200 * rows["images"] / table["images"].max()
        ax.scatter(across, 100 * rows["right"], area, color=colour, alpha=0.6, edgecolor="0.2", linewidth=0.6)
        for place, (x, name, right) in enumerate(zip(across, rows.index, rows["right"], strict=True)):
            if name in lowest:
                text = {"textcoords": "offset points", "ha": "left", "va": "center", "fontsize": 8}
                ax.annotate(str(name), (x, 100 * right), (7, -7 if place % 2 else 7), **text)
    ax.set_xticks(range(len(classes)), [f"{name} ({(table['label'] == name).sum()})" for name in classes])
    ax.set(xlabel="class (number of subjects)", ylabel="right answers (% of the subject's images)")
    low = 100 * table["right"].min()
    ax.set(xlim=(-0.5, len(classes) - 0.5), ylim=(low - 0.1 * (103 - low), 103))
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    span = f"from {low:.0f} % to {100 * table['right'].max():.0f} %"
    return describe(ax, f"Share of right answers of each of {len(table)} subjects: {span}.")


def plot_flow(
    steps: Iterable[str],
    *,
    per_row: int = 4,
    numbers: bool = False,
    skip: tuple[int, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw steps as boxes joined by arrows, row by row, as the paper does in Figs. 3, 5 and 6.

    `numbers` puts one before each, from 0 on; `skip` says which two boxes of the first row a skip connection joins.
    """
    steps = [fill(f"{k} · {step}" if numbers else step, 17) for k, step in enumerate(steps)]
    columns, rows = min(per_row, len(steps)), -(-len(steps) // per_row)
    ax = new_axes(ax, 1.75 * columns, 0.95 * rows + (0.6 if skip else 0))
    places = [(k % per_row, -(k // per_row)) for k in range(len(steps))]
    for (x, y), step in zip(places, steps, strict=True):
        box = FancyBboxPatch((x - 0.33, y - 0.23), 0.66, 0.46, "round,pad=0.04", facecolor="#E8F1F8", edgecolor=BLUE)
        ax.add_patch(box)
        ax.text(x, y, step, ha="center", va="center", fontsize=8)
    arrow = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    for (x, y), (u, v) in pairwise(places):
        start, end = ((x + 0.37, y), (u - 0.37, v)) if y == v else ((x, y - 0.27), (u, v + 0.27))
        ax.annotate("", end, start, arrowprops=arrow)
    if skip:
        (x, _), (u, _) = places[skip[0]], places[skip[1]]
        curve = arrow | {"connectionstyle": "arc3,rad=-0.18", "color": RED}
        ax.annotate("", (u, 0.28), (x, 0.28), arrowprops=curve)
        ax.text((x + u) / 2, 0.85, "skip connection", color=ink(RED), ha="center", fontsize=8)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(-rows + 0.6, 1.05 if skip else 0.4))
    ax.set_axis_off()
    names = ", then ".join(" ".join(step.split()) for step in steps)
    return describe(ax, f"Steps: {names}{'; a skip connection joins two of them' if skip else ''}.")


def _in_words(table: pd.DataFrame, unit: str) -> str:
    """Return the numbers of a small table in words, or of a large one the smallest and the largest row."""
    if table.size > 24:
        sums = table.sum(axis=1)
        return f"{len(table)} rows, from {sums.min():,.4g} to {sums.max():,.4g} {unit}"
    rows = [", ".join(f"{column} {value:,.4g}" for column, value in row.items()) for _, row in table.iterrows()]
    return "; ".join(f"{name}: {row}" for name, row in zip(table.index, rows, strict=True)) + f" ({unit})"


def new_axes(ax: Axes | None, width: float = 6.4, height: float = 3.6) -> Axes:
    """Return `ax`, or the Axes of a new figure of this size in inches."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def _styles(names: Iterable[str], ax: Axes | None = None) -> pd.DataFrame:
    """Return the look of each name, in the order given, after those that are in the legend of `ax` already."""
    names, used = list(dict.fromkeys(names)), len(ax.get_legend_handles_labels()[1]) if ax else 0
    styles = islice(cycle(zip(PALETTE.values(), MARKERS, DASHES, strict=True)), used, used + len(names))
    table = pd.DataFrame(styles, index=names, columns=["colour", "marker", "dashes"])
    table["linestyle"] = [(0, dashes) if dashes else "-" for dashes in table["dashes"]]
    table["width"] = np.linspace(1 + 0.5 * len(names), 1.5, len(names))  # a line under another still shows
    return table


def _long(data: pd.DataFrame | Mapping, x: str, y: str | Mapping, by: str) -> tuple[pd.DataFrame, str, str]:
    """Return one table with a row per point, its column of values, and the column that names the lines."""
    if isinstance(data, Mapping):
        return pd.concat(data, names=["line"]).reset_index("line"), y, "line"
    if isinstance(y, Mapping):
        return data.rename(columns=y).melt(x, list(y.values()), "line", "value"), "value", "line"
    return data, y, by


def _set_ticks(ax: Axes, *, log: bool, whole: bool, percent: bool) -> None:
    """Write plain numbers: 1, 2, 5, 10 on a logarithmic `x`, whole ones where `x` is whole, percent for shares."""
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.minorticks_off()
    elif whole:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if percent:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
