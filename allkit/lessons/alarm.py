"""Notebook 14: an alarm that compares unlabelled cells of two hospitals, and how often it rings without a cause."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from allkit import plots
from allkit.classical import row_keys
from allkit.evaluate import wilson_interval
from allkit.progress import track

ALPHA = 0.05
"""The alarm rings at a p-value of at most this: so often it may ring where nothing has changed."""

MOST = 20
"""Cells of one subject that the alarm looks at, at most: nobody is to drown out the others."""


def find_components(hospitals: Mapping[str, pd.DataFrame], features: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """Notebook 14: return the first principal components of the cells' features, found at the first hospital.

    One row per cell and hospital, with `hospital`, `group`, `path`; the components are the columns that are numbers.
    """
    home = next(iter(hospitals.values()))
    reduce = make_pipeline(StandardScaler(), PCA(min(count, len(home) - 1), random_state=0))
    reduce.fit(features.loc[row_keys(home)])
    tables = []
    for name, rows in hospitals.items():
        few = rows.groupby("group").head(MOST)
        values = pd.DataFrame(reduce.transform(features.loc[row_keys(few)]), few.index)
        tables.append(pd.concat([few[["path", "group"]].assign(hospital=name), values], axis=1))
    return pd.concat(tables, ignore_index=True)


def energy_test(distances: np.ndarray, there: np.ndarray, *, shuffles: int = 99, seed: int = 0) -> float:
    """Notebook 14: return the p-value of the energy distance of two samples, by permutation.

    `distances` between all points, (n, n); `there` says which points are of the second sample, bool (n,).
    """
    # the distances are computed once and all shuffles at once: scipy.stats.permutation_test would take minutes
    rng = np.random.default_rng(seed)
    sides = np.vstack([there, rng.permuted(np.tile(there, (shuffles, 1)), axis=1)]).astype(np.float32)
    weight = sides / there.sum() - (1 - sides) / (~there).sum()
    energy = -((weight @ distances) * weight).sum(axis=1)  # 2 between - within - within
    return float(np.mean(energy >= energy[0] * (1 - 1e-6)))


def simulate_alarms(
    components: pd.DataFrame, *, unit: str = "subject", people: int = 20, draws: int = 200, seed: int = 123
) -> pd.DataFrame:
    """Notebook 14: return how often the alarm rings when it compares some people of a hospital with others at home.

    In each draw `people` new ones come from the hospital and all others are at home, so that nobody is on both sides.
    `unit`: "subject" shuffles people (each is the mean of its cells), "cell" shuffles cells as if each came from
    somebody of their own. One row per hospital: rings, draws, value (share that rang), low, high (Wilson interval).
    """
    points = components
    if unit == "subject":
        points = components.drop(columns="path").groupby(["hospital", "group"], sort=False).mean().reset_index()
    home = points["hospital"].iloc[0]
    values, at_home = points.filter(items=range(1000)).to_numpy(), (points["hospital"] == home).to_numpy()
    groups_of, _ = pd.factorize(points["group"])
    rng, rows = np.random.default_rng(seed), {}
    hospitals = list(dict.fromkeys(points["hospital"]))
    for hospital in track(hospitals, f"alarms by {unit}", unit="hospital"):
        both = np.flatnonzero(at_home | (points["hospital"] == hospital).to_numpy())
        distances = cdist(values[both], values[both]).astype(np.float32)
        groups, is_home = groups_of[both], at_home[both]
        there = np.unique(groups if hospital == home else groups[~is_home])
        rings = 0
        for draw in range(draws):
            new = np.isin(groups, rng.choice(there, min(people, len(there) // 2), replace=False))
            use = np.flatnonzero(np.where(new, ~is_home | (hospital == home), is_home))
            rings += energy_test(distances[np.ix_(use, use)], new[use], seed=draw) <= ALPHA
        low, high = wilson_interval(int(rings), draws)
        rows[hospital] = {"rings": int(rings), "draws": draws, "value": rings / draws, "low": low, "high": high}
    return pd.DataFrame(rows).T.rename_axis("hospital").astype({"rings": int, "draws": int})


def describe_alarm(table: pd.DataFrame, unit: str) -> str:
    """Notebook 14: return how often the alarm rings at home, and whether that is what it promises, in a sentence."""
    row = table.iloc[0]
    if row["low"] <= ALPHA <= row["high"]:
        verdict = f"the {ALPHA:.0%} that it promises lie within the interval"
    elif row["low"] > ALPHA:
        verdict = (
            f"**far more than the {ALPHA:.0%} that it promises**" if row["value"] > 2 * ALPHA else "more than promised"
        )
    else:
        verdict = f"less than the {ALPHA:.0%} that it may"
    return (
        f"Shuffled by {unit}, the alarm rings without a cause in **{row['value']:.1%}** of {row['draws']:.0f} draws "
        f"({row['low']:.1%} to {row['high']:.1%}): {verdict}."
    )


def describe_power(table: pd.DataFrame, people: int) -> str:
    """Notebook 14: return which changes the alarm hears from so many people, in a sentence."""
    loud = [f"{name} ({row.value:.0%})" for name, row in table.iloc[1:].iterrows() if row["low"] > 0.8]
    deaf = [f"{name} ({row.value:.0%})" for name, row in table.iloc[1:].iterrows() if row["high"] < 0.5]
    rest = [
        f"{name} ({row.value:.0%})"
        for name, row in table.iloc[1:].iterrows()
        if row["low"] <= 0.8 and row["high"] >= 0.5
    ]
    parts = [("hears nearly always", loud), ("hears sometimes", rest), ("mostly misses", deaf)]
    return f"From {people} people it " + "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names) + "."


def plot_alarms(tables: Mapping[str, pd.DataFrame]) -> Axes:
    """Notebook 14: draw how often each kind of alarm rings in each hospital."""
    table = pd.concat(tables).swaplevel()[["value", "low", "high"]]
    return plots.plot_intervals(table, xlabel="share of the draws in which the alarm rings", line=ALPHA)
