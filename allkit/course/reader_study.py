"""A class as readers: how well the students name cells, alone, together and with a network's advice, in one figure."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pydantic import BaseModel, Field, TypeAdapter
from scipy import stats

from allkit import plots
from allkit.evaluate import FEWEST_UNITS, LEVEL
from allkit.images import to_address
from allkit.lessons.readers import LOOKS, evaluate_accuracy, evaluate_advice, evaluate_agreement, sign_test

FEWEST_VOTES = 3
"""Students who must have named a cell before there is a majority."""

LONGEST_NAME = 26
"""Letters of a student's name in the figure."""

VOTE, NETWORK = "majority vote of the class", "the network"

_Label = Annotated[str, Field(min_length=1, max_length=80)]


class _Look(BaseModel):
    """One answer of one student, as `allkit.app.game` writes it."""

    cell: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    look: Literal[1, 2]
    truth: _Label
    network: _Label
    advice: _Label | None
    answer: _Label


LOOKS_IN_FILE = TypeAdapter(dict[Literal["alone", "advised"], Annotated[list[_Look], Field(max_length=400)]])
"""What stands under "looks" in reader-study.json."""


@dataclass(frozen=True)
class ClassStudy:
    """What a class has read.

    `accuracy`: one row per student, best first, columns value, low, high, same and cells. `together`: the same of the
    majority vote and the network. `agreement`: their kappa, like a row. `kappas`: of each student with the network.
    `advice`: share of wrong answers by (kind of advice, how), mean over students. `bias`: with wrong advice less alone.
    """

    accuracy: pd.DataFrame
    together: pd.DataFrame
    agreement: dict[str, Any]
    kappas: pd.Series
    only_vote: int  # cells that the vote has right and the network wrong
    only_network: int
    advice: pd.DataFrame
    bias: pd.Series


def evaluate_class(readers: Mapping[str, Mapping[str, list[_Look]]]) -> ClassStudy:
    """Return what a class has read, from the looks of each student by round, "alone" and "advised"."""
    tables = {
        (student, kind): pd.DataFrame([look.model_dump() for look in looks], columns=LOOKS)
        for student, rounds in readers.items()
        for kind, looks in rounds.items()
    }
    first = {student: _first_looks(table) for (student, kind), table in tables.items() if kind == "alone"}
    first = {student: table for student, table in first.items() if len(table)}
    columns = list(evaluate_accuracy([], []))
    rows = {name: evaluate_accuracy(table["answer"], table["truth"]) for name, table in first.items()}
    accuracy = pd.DataFrame(rows, index=columns).T.infer_objects()
    vote = vote_by_cell(list(first.values()))
    together = pd.DataFrame({
        VOTE: evaluate_accuracy(vote["answer"], vote["truth"]),
        NETWORK: evaluate_accuracy(vote["network"], vote["truth"]),
    }).T  # fmt: skip
    kappas = {name: evaluate_agreement(table["answer"], table["network"])["value"] for name, table in first.items()}
    right, network = vote["answer"] == vote["truth"], vote["network"] == vote["truth"]
    shares = wrong_shares(evaluate_advice({student: t for (student, kind), t in tables.items() if kind == "advised"}))
    means = {name: _mean_of_students(shares[name]) for name in shares}
    return ClassStudy(
        accuracy=accuracy.sort_values("value", ascending=False, kind="stable"),
        together=together.infer_objects(),
        agreement=evaluate_agreement(vote["answer"], vote["network"]),
        kappas=pd.Series(kappas, dtype=float),
        only_vote=int((right & ~network).sum()),
        only_network=int((~right & network).sum()),
        advice=pd.DataFrame(means).T,
        bias=pd.Series(_mean_of_students(shares["wrong advice", "with it"] - shares["wrong advice", "alone"])),
    )


def _first_looks(looks: pd.DataFrame) -> pd.DataFrame:
    return looks[looks["look"] == 1].drop_duplicates("cell")


def vote_by_cell(readings: list[pd.DataFrame]) -> pd.DataFrame:
    """Return truth, network and the most frequent answer by cell; cells with a tie or few votes are left out."""
    everybody = pd.concat(readings) if readings else pd.DataFrame(columns=LOOKS)
    rows = {}
    for cell, looks in everybody.groupby("cell"):
        modes = {name: looks[name].mode() for name in ("truth", "network", "answer")}
        if len(looks) >= FEWEST_VOTES and len(modes["answer"]) == 1:
            rows[cell] = {name: mode.iat[0] for name, mode in modes.items()}
    return pd.DataFrame(rows, index=["truth", "network", "answer"]).T


def wrong_shares(effect: pd.DataFrame) -> pd.DataFrame:
    """Return each student's share of wrong answers by (kind of advice, how), from `evaluate_advice`."""
    shares = {}
    for kind in ("right", "wrong"):
        here = effect[effect.index.get_level_values("advice") == kind].droplevel("advice")
        here = here[here["cells"] > 0].astype(float)
        for column, how in (("wrong_alone", "alone"), ("wrong_advised", "with it")):
            shares[f"{kind} advice", how] = here[column] / here["cells"]
    return pd.DataFrame(shares)


def _mean_of_students(shares: pd.Series) -> dict[str, float]:
    """Return the mean with its t-interval over students; no interval of few, or where all are the same."""
    known = shares.dropna()
    low = high = np.nan
    if len(known) >= FEWEST_UNITS and known.std() > 0:
        low, high = stats.t.interval(LEVEL, len(known) - 1, known.mean(), stats.sem(known))
    return {"value": known.mean(), "low": low, "high": high, "students": len(known)}


def plot_class(study: ClassStudy) -> np.ndarray:
    """Draw accuracies, student by student, and below them wrong answers alone and with advice, as far as there are any.

    Returns the array of Axes, empty where there is nothing to draw.
    """
    everybody = pd.concat([study.accuracy, study.together])
    everybody, advice = everybody[everybody["cells"] > 0], study.advice.dropna(subset="value")
    panels = [(0.8 + 0.22 * len(everybody), _plot_accuracies, everybody), (2.1, _plot_wrong, advice)]
    panels = [panel for panel in panels if len(panel[2])]
    if not panels:
        return np.array([])
    heights = [height for height, _, _ in panels]
    size = (6.4, sum(heights) + 0.4)
    _, axes = plt.subplots(len(panels), 1, figsize=size, height_ratios=heights, squeeze=False)
    for ax, (_, plot, table) in zip(axes.flat, panels, strict=True):
        plot(table, ax)
    return axes


def _plot_accuracies(readers: pd.DataFrame, ax: Axes) -> None:
    names = [name if len(name) <= LONGEST_NAME else f"{name[:22]}…" for name in readers.index]
    numbered = readers.set_axis(pd.RangeIndex(len(readers)))  # two may be called the same once shortened
    plots.plot_intervals(numbered, xlabel="share of cells named right alone", line=0.5, ax=ax)
    ax.set_yticks(range(len(names)), names)
    listed = "; ".join(f"{name} {value:.2f}" for name, value in zip(names, readers["value"], strict=True))
    plots.describe(ax, f"Share of cells named right, with 95 % intervals, student by student: {listed}.")


def _plot_wrong(advice: pd.DataFrame, ax: Axes) -> None:
    plots.plot_intervals(advice, xlabel="share of wrong answers, mean of the students", ax=ax)
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))


def describe_class(study: ClassStudy) -> list[str]:
    """Return sentences on the class against the network, on the agreement, and on the advice."""
    return [text for text in (_describe_vote(study), _describe_kappa(study), _describe_bias(study)) if text]


def _describe_vote(study: ClassStudy) -> str:
    vote, network = study.together.loc[VOTE], study.together.loc[NETWORK]
    if not vote["cells"]:
        return f"No cell has a majority: that takes {FEWEST_VOTES} students who named it."
    p = sign_test(study.only_network, study.only_vote)
    better = "the class" if study.only_vote > study.only_network else "the network"
    verdict = f"{better} is ahead by more than luck" if p < 1 - LEVEL else "which of them is better is inconclusive"
    single = study.accuracy["value"].median()
    return (
        f"Half of the students named {single:.0%} of the cells right or more; the majority vote named {vote['same']} "
        f"of {vote['cells']} right, the network {network['same']}: {verdict} (sign test, p = {p:.2g})."
    )


def _describe_kappa(study: ClassStudy) -> str:
    known, vote = study.kappas.dropna(), study.agreement
    if known.empty:
        return ""
    text = f"Cohen's kappa with the network: {known.median():.2f} for the student in the middle"
    if np.isnan(vote["low"]):
        return f"{text}; for the majority vote it is inconclusive."
    return f"{text}, {vote['value']:.2f} (from {vote['low']:.2f} to {vote['high']:.2f}) for the majority vote."


def _describe_bias(study: ClassStudy) -> str:
    bias, shares = study.bias, study.advice["value"]
    if not bias["students"]:
        return "Nobody handed in answers with the network's advice (notebook 13)."
    text = (
        f"With advice, {bias['students']:.0f} students: where it was wrong, they were wrong about "
        f"{shares['wrong advice', 'alone']:.0%} of the cells alone and {shares['wrong advice', 'with it']:.0%} with it."
    )
    if np.isnan(bias["low"]):
        return f"{text} Whether there is automation bias is inconclusive."
    found = "" if bias["low"] <= 0 <= bias["high"] else "Automation bias: " if bias["value"] > 0 else "No such bias: "
    end = ", so it is inconclusive" if not found else ""
    return (
        f"{text} {found}{100 * bias['value']:+.0f} percentage points, from {100 * bias['low']:+.0f} to "
        f"{100 * bias['high']:+.0f}{end}; other students, the same cells."
    )


def show_class(study: ClassStudy) -> dict[str, Any]:
    """Return the figure as an address that holds it ("": none), its description and the sentences, for the page."""
    with plt.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in letters that the font lacks
        plots.use_style()
        axes = plot_class(study)
        alt = plots.description_of(axes) if axes.size else ""
        picture = to_address(plots.figure_png(axes.flat[0].figure, dpi=130, alt=alt)) if axes.size else ""
    return {"picture": picture, "alt": alt, "sentences": describe_class(study)}
