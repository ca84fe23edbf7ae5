"""The explorers of the notebooks: thin shells of ipywidgets around functions that work without them.

Each has a still picture on published pages. Those of notebooks 03 and 09 have several there, and the reader steps
through them without a kernel, a network or a script (`_stepper`).
"""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as w
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from scipy import ndimage

from allkit import plots
from allkit.app.pictures import picture_html, published_as
from allkit.augment import rotate_by_equations
from allkit.evaluate import classes_of, evaluate_thresholds, top_losses
from allkit.images import describe_brightening, prepare_image, read_image, to_png
from allkit.lessons import leakage, learning
from allkit.splits import Split

_PER_PAGE = 8

_WIDE = {"style": {"description_width": "11em"}, "layout": {"width": "26em"}, "continuous_update": False}

KERNELS = {
    "upright edges": np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4,
    "level edges": np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]) / 4,
    "blur": np.ones((3, 3)) / 9,
    "spots": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]) / 8,
}
"""Filters of 3 by 3 pixels for the explorer of convolutions."""


def rotation_explorer(image: np.ndarray, *, note: str = "") -> w.Widget:
    """Return sliders for the paper's rotation (III.B.1) of a uint8 (h, w, 3) image: angle, interpolation and fill.

    A grid turns with the cell, and beside it stand the equations with the numbers of one marked pixel. The `note`, such
    as "synthetic cell", stands below the picture.
    """
    controls = {
        "angle": w.IntSlider(-90, min=-180, max=180, step=5, description="angle (°)", **_WIDE),
        "interpolation": w.Dropdown(
            options=["nearest", "bilinear"], description="interpolation", style=_WIDE["style"], layout=_WIDE["layout"]
        ),
        "fill": w.IntSlider(0, min=0, max=255, description="fill (grey)", **_WIDE),
    }

    def draw(angle: int, interpolation: str, fill: int) -> str:
        return _rotation_picture(image, angle, interpolation, fill)

    return _explorer(controls, draw, "sliders that turn the cell", note)


def _rotation_picture(image: np.ndarray, angle: int, interpolation: str, fill: int) -> str:
    height, width = image.shape[:2]
    (ci, cj), (i, j) = ((height - 1) / 2, (width - 1) / 2), (round(height * 0.3), round(width * 0.4))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    i2, j2 = (i - ci) * cos - (j - cj) * sin + ci, (i - ci) * sin + (j - cj) * cos + cj
    turned = rotate_by_equations(image, angle, interpolation=interpolation, fill=fill)
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), layout="constrained")
    factor = plots.brightening([image])
    for ax, picture, (y, x), name, turn in (
        (axes[0], image, (i, j), "before", 0.0),
        (axes[1], turned, (i2, j2), "after", math.radians(angle)),
    ):
        ax.imshow(plots.brighten(picture, factor))
        for line in np.linspace(-0.5, 0.5, 5) * height:
            for across in (
                np.array([[line, line], [-0.5 * width, 0.5 * width]]),
                np.array([[-0.5 * height, 0.5 * height], [line, line]]),
            ):
                rows = across[0] * math.cos(turn) - across[1] * math.sin(turn) + ci
                columns = across[0] * math.sin(turn) + across[1] * math.cos(turn) + cj
                ax.plot(columns, rows, color="white", linewidth=0.6, alpha=0.6)
        ax.plot(x, y, "X", color=plots.ORANGE, markersize=10, markeredgecolor="white")
        ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), title=name, xlabel="column j", ylabel="row i")
    alt = (
        f"The cell turned by {angle} degrees, {interpolation} interpolation, corners filled with grey {fill}; the "
        f"marked pixel goes from row {i}, column {j} to row {i2:.1f}, column {j2:.1f}."
    )
    equations = (
        f"i′ = ({i} − {ci:g})·cos({angle}°) − ({j} − {cj:g})·sin({angle}°) + {ci:g}\n"
        f"   = {i - ci:g}·{cos:.3f} − ({j - cj:g})·{sin:.3f} + {ci:g} = {i2:.1f}\n"
        f"j′ = ({i} − {ci:g})·sin({angle}°) + ({j} − {cj:g})·cos({angle}°) + {cj:g}\n"
        f"   = {i - ci:g}·{sin:.3f} + ({j - cj:g})·{cos:.3f} + {cj:g} = {j2:.1f}"
    )
    return _picture(_figure_png(figure), alt) + f"<pre>{html.escape(equations)}</pre>"


def threshold_explorer(
    predictions: pd.DataFrame,
    *,
    prevalence: float = 0.05,
    cost_missed: float = 10,
    cost_false_alarm: float = 1,
    note: str = "",
) -> w.Widget:
    """Return sliders for threshold, prevalence and costs, beside confusion matrix, ROC point and expected cost.

    It opens with the threshold that is cheapest at the costs given. The predictions are better those of validation
    than of test images. Where there are not two classes, a sentence: a threshold decides between two. Raises
    AllkitError where a class is missing.
    """
    if len(classes_of(predictions)) != 2:
        return published_as(w.HTML("A threshold decides between two classes; there are more here."), "no sliders here")
    costs = {"prevalence": prevalence, "cost_missed": cost_missed, "cost_false_alarm": cost_false_alarm}
    table = evaluate_thresholds(predictions, **costs)  # says what is wrong
    cheapest = float(np.clip(table.loc[table["cost_per_1000"].idxmin(), "threshold"], 0, 1))
    controls = {
        "threshold": w.FloatSlider(cheapest, min=0, max=1, step=0.01, description="threshold", **_WIDE),
        "prevalence": w.FloatLogSlider(prevalence, min=-4, max=-0.05, step=0.05, description="prevalence", **_WIDE),
        "cost_missed": w.FloatSlider(cost_missed, min=1, max=100, description="cost of a missed case", **_WIDE),
        "cost_false_alarm": w.FloatSlider(
            cost_false_alarm, min=1, max=100, description="cost of a false alarm", **_WIDE
        ),
    }

    def draw(threshold: float, **costs: float) -> str:
        return _threshold_picture(predictions, threshold, costs)

    return _explorer(controls, draw, "sliders for threshold, prevalence and costs", note)


def _threshold_picture(predictions: pd.DataFrame, threshold: float, costs: dict[str, float]) -> str:
    positive, negative = classes_of(predictions)
    table = evaluate_thresholds(predictions, **costs)
    row = table[table["threshold"] >= threshold].iloc[-1]  # what this threshold does: the next higher probability
    called = np.where(predictions[f"p_{positive}"] >= threshold, positive, negative)
    counts = pd.crosstab(predictions["label"], called).reindex(
        index=[positive, negative], columns=[positive, negative], fill_value=0
    )
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    plots.plot_confusion(counts, ax=axes[0])
    plots.plot_roc({"all thresholds": predictions}, positive, ax=axes[1])
    axes[1].plot(1 - row["specificity"], row["sensitivity"], "o", color="black", markersize=9)
    name = "expected cost"
    words = {"xlabel": f"threshold on the probability of {positive}", "ylabel": "cost per 1,000 images"}
    marks = {name: threshold}
    plots.plot_lines({name: table}, "threshold", "cost_per_1000", steps=True, marks=marks, ax=axes[2], **words)
    axes[2].set_ylim(bottom=0)
    alt = (
        f"Threshold {threshold:.2f}: sensitivity {row['sensitivity']:.0%}, specificity {row['specificity']:.0%}. "
        f"Where {costs['prevalence']:.1%} are {positive}, {_percent(row['ppv'])} of those called {positive} are, "
        f"and 1,000 images cost {row['cost_per_1000']:,.0f}; the cheapest threshold is "
        f"{table.loc[table['cost_per_1000'].idxmin(), 'threshold']:.2f}."
    )
    return _picture(_figure_png(figure), alt) + f"<p>{html.escape(alt)}</p>"


def _percent(share: float) -> str:
    return "none" if np.isnan(share) else f"{share:.0%}"


def image_browser(predictions: pd.DataFrame, *, crop: int | None = None, note: str = "") -> w.Widget:
    """Return a browser of images by class, subject and answer, those with the highest loss first.

    A click on a picture, or the key Enter, enlarges it.
    """
    table = top_losses(predictions)
    subjects = sorted(table["subject"].dropna().unique())
    controls = {
        "label": w.Dropdown(options=["all", *classes_of(predictions)], description="class"),
        "called": w.Dropdown(options=["all", *classes_of(predictions)], description="answer"),
        "subject": w.Dropdown(options=["all", *subjects], description="subject"),
        "page": w.BoundedIntText(1, min=1, max=_pages(table), description="page"),
    }

    def draw(page: int, **wanted: str) -> str:
        keep = np.logical_and.reduce([table[name].eq(value) | (value == "all") for name, value in wanted.items()])
        return _thumbnails(table[keep], min(page, _pages(table[keep])), crop)

    return _explorer(controls, draw, "menus that choose images by class, answer and subject", note)


def _pages(table: pd.DataFrame) -> int:
    return max(1, math.ceil(len(table) / _PER_PAGE))


def _thumbnails(table: pd.DataFrame, page: int, crop: int | None) -> str:
    shown = table.iloc[(page - 1) * _PER_PAGE :][:_PER_PAGE]
    images = [prepare_image(read_image(path), 200, crop) for path in shown["path"]]
    factor, figures = plots.brightening(images), []
    for row, image in zip(shown.to_dict("records"), images, strict=True):
        subject = row["subject"] if isinstance(row["subject"], str) else "subject unknown"
        words = f"{row['label']}, called {row['called']}; loss {row['loss']:.2f}; {subject}"
        picture = picture_html(to_png(plots.brighten(image, factor), colours=128), words, "width:100%")
        figures.append(
            "<figure style='display:inline-block;margin:0.3em;vertical-align:top;max-width:100%'>"
            f"<details class='enlarge'><summary style='list-style:none;cursor:zoom-in'>{picture}</summary></details>"
            f"<figcaption style='width:9em'>{html.escape(words)}</figcaption></figure>"
        )
    said = [f"{len(table)} images, page {page} of {_pages(table)}", describe_brightening(factor).capitalize()]
    words = ". ".join(filter(None, [*said, "Press a picture to enlarge it."]))
    style = "<style>.enlarge {width: 8em} .enlarge[open] {width: 24em}</style>"
    return f"{style}<p>{words}</p>" + "".join(figures)


def stage_explorer(stages: dict[str, pd.DataFrame]) -> w.Widget:
    """Return a menu that shows where parameters and multiply-adds sit in networks, beside each other.

    `stages` holds the table of `allkit.models.count_by_stage` by the title of the network.
    """
    columns = {"parameters": "parameters", "multiply-adds for one image": "multiply_adds"}
    controls = {
        "what": w.Dropdown(options=list(columns), description="what"),
        "share": w.Checkbox(False, description="in percent of the network"),
    }

    def draw(what: str, share: bool) -> str:
        figure, axes = plt.subplots(1, len(stages), figsize=(6 * len(stages), 4.4), layout="constrained", squeeze=False)
        words = []
        for ax, (title, table) in zip(axes[0], stages.items(), strict=True):
            values = table[columns[what]]
            shown = pd.DataFrame({what: 100 * values / values.sum() if share else values}).set_index(table["stage"])
            plots.plot_bars(shown, xlabel=f"{what}, %" if share else what, ylabel="stage", ax=ax)
            ax.set_title(title)
            most = values.idxmax()
            words.append(f"{title}: most in {table.loc[most, 'stage']}, {values[most] / values.sum():.0%} of {what}")
        return _picture(_figure_png(figure), "; ".join(words) + ".")

    return _explorer(controls, draw, "a menu of what is counted")


def descent_explorer(x: np.ndarray, y: np.ndarray, b: float) -> w.Widget:
    """Return sliders for the walk downhill of one neuron: where it begins, how long its steps are, and how many."""
    controls = {
        "start": w.FloatSlider(-2.0, min=-3, max=3, step=0.1, description="first weight", **_WIDE),
        "rate": w.FloatLogSlider(1.0, min=-1, max=2, step=0.1, description="learning rate", **_WIDE),
        "steps": w.IntSlider(10, min=0, max=40, description="steps", **_WIDE),
    }

    def draw(start: float, rate: float, steps: int) -> str:
        path = learning.walk_downhill(x, y, w=start, b=b, rate=rate, steps=steps)
        ax = learning.plot_descent(x, y, b, path)
        return _picture(_figure_png(ax.figure), ax.get_label()) + f"<p>{html.escape(ax.get_label())}</p>"

    return _explorer(controls, draw, "sliders for the walk downhill")


def convolution_explorer(grey: np.ndarray, *, note: str = "") -> w.Widget:
    """Return a menu of filters and a slider that moves one over an image, float (h, w): see the sum at every place.

    On published pages the reader steps through the places of the first filter.
    """
    places = (grey.shape[0] - 2) * (grey.shape[1] - 2)
    controls = {
        "kernel": w.Dropdown(options=list(KERNELS), description="filter"),
        "place": w.IntSlider(places // 2, min=1, max=places, description="place", **_WIDE),
    }

    def draw(kernel: str, place: int) -> str:
        return _convolution_picture(grey, kernel, place)

    first = next(iter(KERNELS))
    steps = {f"{share:.0%}": draw(first, max(1, round(share * places))) for share in np.linspace(0, 1, 8)}
    what = "a menu of filters, and a slider that moves one over the image"
    return _explorer(controls, draw, what, note, steps=steps)


def _convolution_picture(grey: np.ndarray, name: str, place: int) -> str:
    kernel, columns = KERNELS[name], grey.shape[1] - 2
    row, column = divmod(place - 1, columns)
    window = grey[row : row + 3, column : column + 3]
    whole = ndimage.correlate(grey, kernel)[1:-1, 1:-1]
    done = np.where(np.arange(whole.size).reshape(whole.shape) < place, whole, np.nan)
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), layout="constrained")
    axes[0].imshow(grey, vmin=0, vmax=255)
    axes[0].add_patch(Rectangle((column - 0.5, row - 0.5), 3, 3, fill=False, edgecolor=plots.ORANGE, linewidth=2))
    axes[1].imshow(window, vmin=0, vmax=255)
    for (a, b), value in np.ndenumerate(window):
        ink = "white" if value < 128 else "black"
        axes[1].text(b, a, f"{value:.0f}\n× {kernel[a, b]:.2g}", ha="center", va="center", color=ink, fontsize=9)
    axes[2].imshow(done, vmin=np.nanmin(whole), vmax=np.nanmax(whole))
    axes[2].set_facecolor("#DDE6EE")
    titles = ("the image and the window", f"sum of the products: {whole[row, column]:.0f}", "the map so far")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(title=title, xticks=[], yticks=[])
    alt = (
        f"The filter {name} at row {row}, column {column}: nine grey levels times nine weights sum to "
        f"{whole[row, column]:.0f}; {place} of {whole.size} places of the map are filled."
    )
    return _picture(_figure_png(figure), alt)


def split_explorer(splits: Mapping[str, Split], *, note: str = "") -> w.Widget:
    """Return a menu of splits that shows who is on which side; on published pages the reader steps through them."""
    controls = {"split": w.Dropdown(options=list(splits), description="split")}

    def draw(split: str) -> str:
        ax = leakage.plot_sides(splits[split])
        return _picture(_figure_png(ax.figure), ax.get_label()) + f"<p>{html.escape(ax.get_label())}</p>"

    steps = {name: draw(name) for name in splits}
    return _explorer(controls, draw, "a menu of splits that shows who is on which side", note, steps=steps)


def _explorer(
    controls: dict[str, w.Widget],
    draw: Callable[..., str],
    what: str,
    note: str = "",
    *,
    steps: Mapping[str, str] | None = None,
) -> w.Widget:
    """Return controls above what they draw; on published pages, the first drawing and a sentence stand for both.

    Or `steps`, name -> drawing, through which the reader can step there.
    """
    view = w.HTML()
    below = f"<p>{html.escape(note)}</p>" if note else ""

    def redraw(_change: object = None) -> None:
        view.value = draw(**{name: control.value for name, control in controls.items()}) + below

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return published_as(w.VBox([*controls.values(), view]), what, _stepper(steps) + below if steps else view.value)


def _stepper(steps: Mapping[str, str]) -> str:
    """Return drawings of which one is shown at a time, chosen by a row of radio buttons: styles alone, no script.

    The arrow keys move from one to the next.
    """
    name = "s" + hashlib.sha256("".join(steps.values()).encode()).hexdigest()[:8]
    rules, buttons, pictures = [f".{name} > .step {{display: none}}"], [], []
    for k, (title, drawing) in enumerate(steps.items()):
        rules.append(f"#{name}-{k}:checked ~ .step-{k} {{display: block}}")
        checked = " checked" if k == 0 else ""
        buttons.append(
            f"<input type='radio' name='{name}' id='{name}-{k}'{checked}><label "
            f"for='{name}-{k}'>{html.escape(title)} </label>"
        )
        pictures.append(f"<div class='step step-{k}'>{drawing}</div>")
    style = f"<style>{' '.join(rules)}</style>"
    return f"<div class='{name}'>{style}{''.join(buttons)}{''.join(pictures)}</div>"


def _picture(png: bytes, alt: str) -> str:
    return picture_html(png, alt, style="max-width:100%")


def _figure_png(figure: Any) -> bytes:
    return plots.figure_png(figure, dpi=100)
