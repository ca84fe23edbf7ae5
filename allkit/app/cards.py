"""The answers of the upload cell as HTML: a card for each image, and a table of all of them."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from allkit.app.pictures import picture_html
from allkit.classify import Result, abstain_band, label_of
from allkit.explain import overlay
from allkit.images import brighten, brightening, describe_brightening, to_png
from allkit.lists import as_text_cells
from allkit.models import TrainedModel

SHAPES = "▲●■◆▼★"
"""What stands before the name of a class, in the order of the classes, so that answers can be read without colour."""


@dataclass(frozen=True)
class Answer:
    """What one model says of one image.

    `result` is a sentence where the image could not be read; so is `heat`, the Grad-CAM map, floats 0-1 of the image's
    size, where it could not be computed. It is None where nobody asked for it.
    """

    title: str
    trained: TrainedModel
    result: Result | str
    heat: np.ndarray | str | None = None


def build_card(name: str, answers: Sequence[Answer]) -> str:
    """Return one image, and what each model says of it, as HTML."""
    first = answers[0].result
    if isinstance(first, str):  # the file cannot be read, whichever model looks at it
        body = f"<div class='ak-row'>{_word(None, ())}<p class='ak-why'>{html.escape(first)}</p></div>"
    else:
        pictures = [_picture(first), *(_map(answer) for answer in answers if answer.heat is not None)]
        body = f"<div class='ak-pictures'>{''.join(pictures)}</div>{''.join(map(_row, answers))}"
    return f"<div class='ak-card'><h3>{html.escape(name)}</h3>{body}</div>"


def _picture(result: Result) -> str:
    factor = brightening([result.image])
    caption = ", ".join(filter(None, ["What the network saw", describe_brightening(factor)]))
    picture = picture_html(to_png(brighten(result.image, factor)), f"{result.name}, as the network saw it")
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _map(answer: Answer) -> str:
    if isinstance(answer.heat, str):
        return f"<p>{html.escape(answer.heat)}</p>"
    label = label_of(answer.result.probabilities, answer.result.threshold)
    picture = picture_html(
        to_png(overlay(answer.result.image, answer.heat)), f"Grad-CAM map of {answer.title}, lighter: more for {label}"
    )
    words = f"{answer.title}: lighter spoke more for {label}"
    return f"<figure>{picture}<figcaption>{html.escape(words)}</figcaption></figure>"


def _row(answer: Answer) -> str:
    """Return the row of one model: the word, the bars, one reason, and the rest folded."""
    result, classes = answer.result, answer.trained.classes
    bars = f"<div class='ak-bars'>{''.join(_bars(result, answer.trained))}</div>"
    if result.rejected:
        label = label_of(result.probabilities, result.threshold)
        bars = (
            "<details class='ak-anyway'><summary>Show what it would say anyway</summary>"
            f"<p>It would say {html.escape(label)}.</p>{bars}</details>"
        )
    details = "".join(f"<li>{html.escape(text)}</li>" for text in _details(result, answer.trained))
    return (
        f"<div class='ak-row'><div><span class='ak-title'>{html.escape(answer.title)}</span>"
        f"{_word(result.label, classes)}</div>{bars}<div class='ak-why'><p>{html.escape(_reason(result))}</p>"
        f"<details><summary>Details</summary><ul>{details}</ul></details></div></div>"
    )


def _word(label: str | None, classes: Sequence[str]) -> str:
    if label is None:
        return "<strong class='ak-word ak-none'>◌ no answer</strong>"
    number = classes.index(label) % len(SHAPES)
    return f"<strong class='ak-word ak-{number}'>{SHAPES[number]} {html.escape(label)}</strong>"


def _reason(result: Result) -> str:
    """Return in one sentence why the answer is this one."""
    if result.rejected:
        return f"No answer, because {next(iter(result.reasons.values()))}."
    if result.threshold is None:
        return f"{result.label} is the most probable of {len(result.probabilities)} classes."
    first = next(iter(result.probabilities))
    side = "at or above" if result.label == first else "below"
    probability = f"{result.probabilities[first]:.1%}"
    return f"The probability of {first}, {probability}, is {side} the threshold, {result.threshold:.2f}."


def _details(result: Result, trained: TrainedModel) -> Iterator[str]:
    for reason in list(result.reasons.values())[1:]:
        yield f"Also: {reason}."
    first = next(iter(result.probabilities))
    yield f"The probability of {first} is {result.probabilities[first]:.4f}."
    if result.threshold is not None:
        yield f"From {result.threshold:.2f} on, the answer is {first}."
        if band := _visible_band(result, trained):
            yield f"No answer is given between {band[0]:.2f} and {band[1]:.2f}, too close to the threshold."
    yield f"It took {1000 * sum(result.seconds.values()):.0f} ms."


def _visible_band(result: Result, trained: TrainedModel) -> tuple[float, float] | None:
    low, high = (abstain_band(trained, result.threshold) if result.threshold is not None else None) or (0, 0)
    return (low, high) if high - low > 0.005 else None


def _bars(result: Result, trained: TrainedModel) -> Iterator[str]:
    """Yield one bar for each class; with two classes it also shows the threshold and the band of no answer."""
    for number, (name, probability) in enumerate(result.probabilities.items()):
        words, marks = f"probability of {name} {probability:.1%}", ""
        if result.threshold is not None:
            # the second class is what the first is not
            threshold = 1 - result.threshold if number else result.threshold
            words += f", threshold {threshold:.2f}"
            if band := _visible_band(result, trained):
                low, high = (1 - band[1], 1 - band[0]) if number else band
                words += f", no answer between {low:.2f} and {high:.2f}"
                marks += f"<i class='ak-band' style='left:{low:.2%};width:{high - low:.2%}'></i>"
            marks += f"<i class='ak-threshold' style='left:{threshold:.2%}'></i>"
        yield (
            f"<div class='ak-bar ak-{number % len(SHAPES)}'><span class='ak-class'>{html.escape(name)}</span>"
            f"<div class='ak-track' role='img' aria-label='{html.escape(words)}'>"
            f"<i class='ak-fill' style='left:0;width:{probability:.2%}'></i>{marks}</div>"
            f"<span>{probability:.1%}</span></div>"
        )


def answers_table(names: Sequence[str], answers: Sequence[Sequence[Answer]]) -> pd.DataFrame:
    """Return the answers for some images as a table, one row for each image and model.

    Columns image, model, label (None where there is none), reasons, and a probability per class.
    """
    rows = []
    for name, row in ((name, answer) for name, of_image in zip(names, answers, strict=True) for answer in of_image):
        result = row.result
        cells = {"image": name, "model": row.title, "label": None, "reasons": result}
        if isinstance(result, Result):
            cells |= {"label": result.label, "reasons": "; ".join(result.reasons.values())}
            cells |= {f"p_{key}": p for key, p in result.probabilities.items()}
        rows.append(cells)
    return pd.DataFrame(rows)


def build_table(rows: pd.DataFrame) -> str:
    """Return a table from `answers_table` as HTML, with a button that saves it as CSV; "" for less than two rows."""
    if len(rows) < 2:
        return ""
    shares = [name for name in rows if name.startswith("p_")]
    shown = rows.assign(label=rows["label"].fillna("no answer")).rename(columns={"label": "answer"})
    titles = {name: f"probability of {name[2:]}" for name in shares}
    written = dict.fromkeys(shares, "{:.1%}".format)
    table = shown.style.format(written, na_rep="–", escape="html").format_index(
        lambda name: html.escape(titles.get(name, name)), axis="columns"
    )
    kinds = pd.DataFrame({name: ["ak-number"] * len(rows) for name in shares}, index=rows.index)
    table = table.hide(axis="index").set_td_classes(kinds).set_table_attributes("class='ak-table'")
    csv = base64.b64encode(as_text_cells(rows).to_csv(index=False).encode("utf-8", "replace")).decode()
    return (
        f"<div class='ak-wide'>{table.to_html()}</div>"
        f"<p><a class='ak-button' download='answers.csv' href='data:text/csv;base64,{csv}'>Save as CSV</a></p>"
    )
