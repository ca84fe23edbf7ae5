"""The explorers of the notebooks: thin shells of ipywidgets around functions that work without them."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable
from typing import Any

import ipywidgets as w
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from allkit import AllkitError, plots
from allkit.app.upload import picture_html, published_as, to_png
from allkit.augment import rotate_by_equations
from allkit.evaluate import classes_of, evaluate_thresholds, top_losses
from allkit.images import prepare_image, read_image

_PER_PAGE = 8


def rotation_explorer(image: np.ndarray, *, note: str = "") -> w.Widget:
    """Return sliders for the paper's rotation (III.B.1) of a uint8 (h, w, 3) image: angle, interpolation and fill.

    The `note`, such as "synthetic cell", stands below the picture.
    """
    wide = {"style": {"description_width": "7em"}}
    controls = {
        "angle": w.IntSlider(-90, min=-180, max=180, step=5, description="angle (°)", continuous_update=False, **wide),
        "interpolation": w.Dropdown(options=["nearest", "bilinear"], description="interpolation", **wide),
        "fill": w.IntSlider(0, min=0, max=255, description="fill (grey)", continuous_update=False, **wide),
    }

    def draw(angle: int, interpolation: str, fill: int) -> str:
        turned = rotate_by_equations(image, angle, interpolation=interpolation, fill=fill)
        alt = f"The cell turned by {angle} degrees, {interpolation} interpolation, corners filled with grey {fill}."
        return _picture(to_png(turned), alt)

    return _explorer(controls, draw, "sliders that turn the cell", note)


def threshold_explorer(predictions: pd.DataFrame, *, note: str = "") -> w.Widget:
    """Return sliders for threshold, prevalence and costs, beside confusion matrix, ROC point and expected cost.

    The predictions are better those of validation than of test images. Raises AllkitError where there are not two
    classes, both present: a threshold decides between two.
    """
    if len(classes_of(predictions)) != 2:
        raise AllkitError("a threshold decides between two classes; these predictions have another number of them.")
    evaluate_thresholds(predictions, prevalence=0.5, cost_missed=1, cost_false_alarm=1)  # says what is wrong
    slider = {"continuous_update": False, "style": {"description_width": "11em"}, "layout": {"width": "26em"}}
    controls = {
        "threshold": w.FloatSlider(0.5, min=0, max=1, step=0.01, description="threshold", **slider),
        "prevalence": w.FloatLogSlider(0.05, min=-4, max=-0.05, step=0.05, description="prevalence", **slider),
        "cost_missed": w.FloatSlider(10, min=1, max=100, description="cost of a missed case", **slider),
        "cost_false_alarm": w.FloatSlider(1, min=1, max=100, description="cost of a false alarm", **slider),
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


def image_browser(predictions: pd.DataFrame, *, note: str = "") -> w.Widget:
    """Return a browser of images by class, subject and answer, those with the highest loss first."""
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
        return _thumbnails(table[keep], min(page, _pages(table[keep])))

    return _explorer(controls, draw, "menus that choose images by class, answer and subject", note)


def _pages(table: pd.DataFrame) -> int:
    return max(1, math.ceil(len(table) / _PER_PAGE))


def _thumbnails(table: pd.DataFrame, page: int) -> str:
    shown = table.iloc[(page - 1) * _PER_PAGE :][:_PER_PAGE]
    figures = []
    for row in shown.to_dict("records"):
        subject = row["subject"] if isinstance(row["subject"], str) else "subject unknown"
        words = f"{row['label']}, called {row['called']}; loss {row['loss']:.2f}; {subject}"
        image = to_png(prepare_image(read_image(row["path"]), 128, None))
        figures.append(
            f"<figure style='display:inline-block;margin:0.3em;width:9em;vertical-align:top'>{_picture(image, words)}"
            f"<figcaption>{html.escape(words)}</figcaption></figure>"
        )
    return f"<p>{len(table)} images, page {page} of {_pages(table)}.</p>" + "".join(figures)


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


def _explorer(controls: dict[str, w.Widget], draw: Callable[..., str], what: str, note: str = "") -> w.Widget:
    """Return controls above what they draw; on published pages, the first drawing and a sentence stand for both."""
    view = w.HTML()
    below = f"<p>{html.escape(note)}</p>" if note else ""

    def redraw(_change: object = None) -> None:
        view.value = draw(**{name: control.value for name, control in controls.items()}) + below

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return published_as(w.VBox([*controls.values(), view]), what, view.value)


def _picture(png: bytes, alt: str) -> str:
    return picture_html(png, alt, style="max-width:100%")


def _figure_png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=80)
    plt.close(figure)
    return out.getvalue()
