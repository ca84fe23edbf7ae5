"""Notebook 14: prediction sets that keep a promise (MAPIE), calibrated by cell and by person."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from mapie.classification import SplitConformalClassifier
from matplotlib.axes import Axes
from sklearn.base import BaseEstimator, ClassifierMixin

from allkit import plots
from allkit.evaluate import classes_of, label_indices, probabilities_of, wilson_interval
from allkit.progress import track

WAYS = ("by cell", "by person")
"""How the sets are calibrated: on all cells alike, or on one cell of each person, a hard one."""


class _Answers(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose features are its answers: MAPIE gets probabilities that somebody else computed."""

    def __init__(self, classes: int = 2) -> None:
        self.classes_, self.classes = np.arange(classes), classes

    def fit(self, *_: object) -> _Answers:
        """Do nothing: it is fitted."""
        return self

    def predict(self, answers: np.ndarray) -> np.ndarray:
        """Return the place of the most probable class."""
        return answers.argmax(axis=1)

    def predict_proba(self, answers: np.ndarray) -> np.ndarray:
        """Return what was given."""
        return answers


def hardest_cells(predictions: pd.DataFrame, level: float = 0.9) -> pd.DataFrame:
    """Notebook 14: return one cell of each person: the one that is harder than a share `level` of this person's cells.

    How hard: one minus the probability of the true class.
    """
    truth, proba = label_indices(predictions), probabilities_of(predictions)
    hard = predictions.assign(score=1 - proba[np.arange(len(truth)), truth]).sort_values("score", kind="stable")
    place, size = hard.groupby("group").cumcount() + 1, hard.groupby("group")["score"].transform("size")
    return hard[place == np.ceil(level * size - 1e-9)].drop(columns="score")


def predict_sets(calibration: pd.DataFrame, asked: pd.DataFrame, *, way: str, level: float = 0.9) -> pd.DataFrame:
    """Notebook 14: return the asked rows with the set of classes that each cell gets.

    `way` is one of `WAYS`. Columns `covered` (the true class is in the set) and `labels` (how many classes are). From
    fewer than 1 / (1 - level) cells or people, only a set of all classes keeps the promise, and all get that.
    """
    rows = calibration if way == WAYS[0] else hardest_cells(calibration, level)
    if len(rows) * (1 - level) < 1 - 1e-9:
        return asked.assign(covered=True, labels=len(classes_of(asked)))
    mapie = SplitConformalClassifier(_Answers(len(classes_of(rows))), confidence_level=level, prefit=True)
    mapie.conformalize(probabilities_of(rows), label_indices(rows))
    _, sets = mapie.predict_set(probabilities_of(asked))
    truth, inside = label_indices(asked), sets[:, :, 0]
    return asked.assign(covered=inside[np.arange(len(truth)), truth], labels=inside.sum(axis=1))


def cover_hospitals(answers: pd.DataFrame, *, level: float = 0.9) -> pd.DataFrame:
    """Notebook 14: return the tested cells of all hospitals with their sets, by `hospital` and `way`.

    The sets are calibrated at the first hospital, on the people of the column `role` "calibration" of the same `turn`.
    """
    home, found = answers["hospital"].iloc[0], []
    for _, part in answers.groupby("turn"):
        calibration = part[(part["hospital"] == home) & (part["role"] == "calibration")]
        for way in WAYS:
            asked = part[part["role"] == "test"]
            found.append(predict_sets(calibration, asked, way=way, level=level).assign(way=way))
    return pd.concat(found, ignore_index=True)


def cover_people(covered: pd.DataFrame) -> pd.DataFrame:
    """Notebook 14: return one row per hospital, way and person: share of the cells covered, and how many cells."""
    each = covered.groupby(["hospital", "way", "group"], sort=False)["covered"].agg(["mean", "size"])
    return each.set_axis(["covered", "cells"], axis=1).reset_index()


def tabulate_promises(covered: pd.DataFrame, level: float = 0.9) -> pd.DataFrame:
    """Notebook 14: return by hospital and way what was promised, what was kept, and what the sets are worth.

    `cells covered`; `people kept`: the share of people of whose cells at least `level` are covered; `low` and `high`
    (Wilson); `lowest`: the person worst off; `both classes`: the share of sets that say nothing; `none`: empty ones.
    """
    rows = {}
    for key, part in covered.groupby(["hospital", "way"], sort=False):
        people = part.groupby("group")["covered"].mean()
        kept = int((people >= level - 1e-9).sum())
        low, high = wilson_interval(kept, len(people))
        rows[key] = {
            "cells covered": part["covered"].mean(), "people kept": kept / len(people), "low": low, "high": high,
            "lowest": people.min(), "both classes": (part["labels"] > 1).mean(), "none": (part["labels"] == 0).mean(),
        }  # fmt: skip
    return pd.DataFrame(rows).T.rename_axis(["hospital", "way"])


def describe_table(promises: pd.DataFrame, rows: pd.DataFrame, level: float = 0.9) -> str:
    """Notebook 14: return what both ways promised and kept at home and where it went worst, in sentences."""
    home = promises.index[0][0]
    cells = promises.xs(WAYS[0], level="way")["cells covered"]
    text = (
        f"By cell: {cells[home]:.0%} of the cells are covered at home (promised: {level:.0%}), and {cells.min():.0%} "
        f"at worst ({cells.idxmin()}). "
    )
    if rows["subject"].isna().any():
        return text + "Whose cells these are is unknown, so whether a promise per person is kept is *inconclusive*."
    people, by_cell = promises.xs(WAYS[1], level="way"), promises.loc[(home, WAYS[0])]
    worst = people["people kept"].idxmin()
    for name in dict.fromkeys((home, worst)):
        row, where = people.loc[name], "at home" if name == home else name
        verdict = "broken" if row["high"] < level else "kept" if row["low"] >= level else "inconclusive"
        text += (
            f"By person, {where}: {row['people kept']:.0%} of the people ({row['low']:.0%} to {row['high']:.0%}) have "
            f"{level:.0%} of their cells covered; promised: {level:.0%}; *{verdict}*. "
        )
    if people.at[home, "both classes"] > 0.9:
        return text + (
            f"But by person **{people.at[home, 'both classes']:.0%} of the sets at home hold both classes**: from so "
            f"few people set aside, or from answers so uncertain, {level:.0%} of the people can hardly be promised "
            "otherwise. A promise kept like this is worth nothing here."
        )
    return text + (
        f"Calibrated by cell it is {by_cell['people kept']:.0%} at home, and {by_cell['lowest']:.0%} of the cells "
        f"of the person worst off. The price: {people.at[home, 'both classes']:.0%} of the sets hold both classes, in "
        f"place of {by_cell['both classes']:.0%}."
    )


def as_metrics(alarms: Mapping[str, pd.DataFrame], promises: pd.DataFrame) -> dict[str, dict]:
    """Notebook 14: return what is kept of the alarm and of the promises, for the run's metrics.json."""
    kept = {column: promises[column].unstack("way").to_dict("index") for column in ("people kept", "cells covered")}
    return {"alarm rings": {name: table["value"].to_dict() for name, table in alarms.items()}} | kept


def simulate_promises(
    people: Mapping[str, pd.DataFrame],
    *,
    calibrated_on: int = 40,
    tested_on: int = 100,
    draws: int = 100,
    level: float = 0.9,
    seed: int = 123,
) -> pd.DataFrame:
    """Notebook 14: return what was promised and kept in many hospitals, each with people of its own.

    `people` holds predictions tables of the same thousands of people, at home first. In each draw `calibrated_on` of
    them calibrate at home, and `tested_on` others are asked about in every place. One row per draw, place and way:
    `cells covered`, `people kept`, `both classes` (see `tabulate_promises`).
    """
    rng, home = np.random.default_rng(seed), next(iter(people))
    number, names = pd.factorize(people[home]["group"])
    rows = []
    for draw in track(range(draws), "simulated hospitals", unit="hospital"):
        drawn = rng.permutation(len(names))
        calibrating, asked = (
            np.isin(number, part) for part in np.split(drawn, [calibrated_on, calibrated_on + tested_on])[:2]
        )
        both = pd.concat([table[asked].assign(hospital=place) for place, table in people.items()], ignore_index=True)
        for way in WAYS:
            sets = predict_sets(people[home][calibrating], both, way=way, level=level)
            rows.append(tabulate_promises(sets.assign(way=way), level).reset_index().assign(draw=draw))
    columns = ["draw", "hospital", "way", "cells covered", "people kept", "both classes"]
    return pd.concat(rows, ignore_index=True)[columns]


def summarise_promises(simulated: pd.DataFrame) -> pd.DataFrame:
    """Notebook 14: return the means over the simulated hospitals, with two standard errors of `people kept`."""
    of = simulated.groupby(["hospital", "way"], sort=False)
    return of[["cells covered", "people kept", "both classes"]].mean().assign(error=2 * of["people kept"].sem())


def describe_promises(means: pd.DataFrame, level: float = 0.9) -> str:
    """Notebook 14: return which promise was kept at home and elsewhere, in sentences, from `summarise_promises`."""
    home, *others = dict.fromkeys(means.index.get_level_values("hospital"))
    by_cell, by_person = (means.loc[(home, way)] for way in WAYS)
    lines = [
        f"- **{home}, by cell**: {by_cell['cells covered']:.1%} of the cells are covered (promised: {level:.0%}). "
        f"And of the people? {by_cell['people kept']:.0%} have {level:.0%} of their cells covered.",
        f"- **{home}, by person**: {by_person['people kept']:.1%} ± {by_person['error']:.1%} of the people have "
        f"{level:.0%} of their cells covered: the promise for people is **{_kept(by_person, level)}**. The price: "
        f"{by_person['both classes']:.0%} of the sets hold both classes and say nothing (by cell: "
        f"{by_cell['both classes']:.0%}).",
    ]
    for place in others:
        row = means.loc[(place, WAYS[1])]
        cells = means.at[(place, WAYS[0]), "cells covered"]
        lines.append(
            f"- **{place}**: by person {row['people kept']:.0%} of the people: **{_kept(row, level)}**; by cell "
            f"{cells:.0%} of the cells."
        )
    return "\n".join(lines)


def _kept(row: pd.Series, level: float) -> str:
    return "broken" if row["people kept"] + row["error"] < level else "kept"


def plot_people(people: pd.DataFrame, *, hospital: str, level: float = 0.9) -> Axes:
    """Notebook 14: draw the share of people of whose cells at most so much is covered, for both ways."""
    rows = people[people["hospital"] == hospital]
    tables = {}
    for way, part in rows.groupby("way", sort=False):
        shares = np.sort(part["covered"].to_numpy())
        steps = np.arange(1, len(shares) + 1) / len(shares)
        tables[way] = pd.DataFrame({"covered": [0, *shares, 1], "people": [0, *steps, 1]})
    words = {
        "xlabel": f"share of a person's cells that are covered, {hospital}",
        "ylabel": "people with so much or less",
    }
    ax = plots.plot_lines(tables, "covered", "people", steps=True, percent=True, **words)
    ax.axvline(level, color="0.5", linestyle=":")
    below = "; ".join(
        f"{way} {(part['covered'] < level - 1e-9).mean():.0%}" for way, part in rows.groupby("way", sort=False)
    )
    return plots.describe(ax, f"Share of each person's cells covered, {hospital}: people below {level:.0%}, {below}.")


def plot_promises(means: pd.DataFrame, level: float = 0.9) -> Axes:
    """Notebook 14: draw the share of people to whom the promise was kept, from `summarise_promises`."""
    kept = means["people kept"]
    table = pd.DataFrame({"value": kept, "low": kept - means["error"], "high": kept + means["error"]})
    label = f"people of whose cells at least {level:.0%} are covered (share)"
    return plots.plot_intervals(table, xlabel=label, line=level)
