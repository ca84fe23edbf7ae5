"""Notebook 13: from cells to a person: two rules, a threshold chosen on others, how many cells and people it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.special import expit, logit
from scipy.stats import binom, binomtest, norm
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold

from allkit import AllkitError, plots
from allkit.baselines import DEPTHS, frozen_features, measure_numbers
from allkit.classical import evaluate_baseline, row_keys
from allkit.data import class_order
from allkit.evaluate import FEWEST_UNITS, LEVEL, classes_of, compare_predictions
from allkit.progress import track
from allkit.source import COLUMNS

RULES = {"share": "share of cells", "log_odds": "mean log-odds"}
"""The scores of a person, and what they are called in sentences."""

EDGE = 0.001  # no answer about a single cell is taken to be surer than this
STEPS = (1, 2, 3, 5, 8, 12, 20, 50)  # numbers of cells of each person that are tried
POWER, MOST = 0.8, 20_000  # the chance with which a study is to decide; people beyond whom nobody searches


def choose_rows(index: pd.DataFrame) -> pd.DataFrame:
    """Notebook 13: return the labelled cells of known people; none without two classes of three people or more."""
    rows = index[index["label"].notna() & index["subject"].notna()]
    people = rows.groupby("label")["group"].nunique()
    return rows if len(people) == 2 and people.min() >= 3 else rows.iloc[:0]


def describe_people(index: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Notebook 13: return how many people there are, and how few cells some have, or why they cannot be judged."""
    if rows.empty:
        unknown = index.loc[index["label"].notna(), "subject"].isna().any()
        why = "whose cells these are is unknown" if unknown else "two classes of three people or more are needed"
        return (
            f"**These data cannot be used to judge people**: {why}. A list (CSV) with a column `subject` would change "
            "that. What is about these data stays empty below; the simulations and the exact counts need no data."
        )
    sizes = rows.groupby(["label", "group"]).size()
    lines = [
        f"{len(of)} people with {label} ({of.min()} to {of.max()} cells each, half of them {of.median():.0f} or fewer)"
        for label, of in ((label, sizes.loc[label]) for label in class_order(rows))
    ]
    return f"{'; '.join(lines)}. Names that share an image count as one person."


def measure_rows(rows: pd.DataFrame, features: str, **settings: object) -> pd.DataFrame:
    """Notebook 13: return what the classifier sees of each cell: "measured" numbers, or "frozen" ones of three depths.

    `settings` are those of `allkit.baselines.frozen_features`.
    """
    if features not in ("measured", "frozen"):
        raise AllkitError(f"features is {features!r}; choose 'measured' or 'frozen'.")
    if rows.empty:
        return pd.DataFrame()
    return measure_numbers(rows) if features == "measured" else frozen_features(rows, layers=DEPTHS, **settings)


def predict_cells(
    rows: pd.DataFrame, numbers: pd.DataFrame, *, by: str = "people", baseline: str = "logistic regression",
    seed: int = 123,
) -> pd.DataFrame:  # fmt: skip
    """Notebook 13: return a predictions table of every cell, by a classifier that has not seen it; column `fold`.

    `by` is what is dealt into five folds. With "people" the classifier has seen no cell of that person; with "cells"
    it has, and the answer leaks. In logistic regression all people count the same.
    """
    if rows.empty:
        return rows[["path", "label", "subject", "group"]].assign(p_1=0.0, p_2=0.0, fold=0)
    key = "group" if by == "people" else "path"
    dealt = rows.groupby(key)["label"].first()
    dealing = StratifiedKFold(min(5, dealt.value_counts().min()), shuffle=True, random_state=seed)
    tables = []
    for fold, (_, held) in enumerate(dealing.split(dealt, dealt)):
        out, weigh = rows[key].isin(dealt.index[held]), baseline == "logistic regression"
        table = evaluate_baseline(rows[~out], rows[out], numbers, baseline, by_subject=weigh, seed=seed)
        tables.append(table.assign(fold=fold))
    return pd.concat(tables, ignore_index=True)


def score_people(cells: pd.DataFrame) -> pd.DataFrame:
    """Notebook 13: return one row per person (`group`): cells, label, positive (bool), fold, share, log_odds."""
    first = classes_of(cells)[0]
    odds = logit(cells[f"p_{first}"].clip(EDGE, 1 - EDGE))
    of = cells.assign(share=odds > 0, log_odds=odds, fold=cells.get("fold", 0)).groupby("group")
    people = pd.concat(
        [of.size().rename("cells"), of[["label", "fold"]].first(), of[["share", "log_odds"]].mean()], axis=1
    )
    return people.assign(positive=people["label"] == first)


def choose_thresholds(
    cells: pd.DataFrame, rows: pd.DataFrame, numbers: pd.DataFrame, *, seed: int = 123
) -> pd.DataFrame:
    """Notebook 13: return by fold the threshold of each rule, chosen without the people of that fold.

    The others are dealt into folds again, so that no classifier behind a threshold has met the people judged by it.
    A threshold has the highest sensitivity plus specificity among them.
    """
    cuts = {}
    for fold, judged in track(list(cells.groupby("fold")), "thresholds", unit="fold"):
        others = rows[~rows["group"].isin(judged["group"])]
        scored = score_people(predict_cells(others, numbers, seed=seed))
        for rule in RULES:
            fall_out, recall, values = roc_curve(scored["positive"], scored[rule], drop_intermediate=False)
            best = int(np.argmax(recall - fall_out))
            cuts[fold, rule] = float(np.mean(values[best : best + 2]))  # between two people, not on one of them
    return pd.Series(cuts, dtype=float).unstack() if cuts else pd.DataFrame(columns=list(RULES), dtype=float)


def exact_interval(right: int, of: int) -> tuple[float, float]:
    """Notebook 13: return the exact (Clopper-Pearson) 95 % interval of a share; NaN of nobody."""
    return tuple(binomtest(int(right), int(of)).proportion_ci(LEVEL, "exact")) if of else (np.nan, np.nan)


def evaluate_calls(people: pd.DataFrame) -> pd.DataFrame:
    """Notebook 13: return sensitivity and specificity of the column `called`: value, low, high, right, of (counts)."""
    rows = {}
    for name, asked in (("sensitivity", True), ("specificity", False)):
        called = people.loc[people["positive"] == asked, "called"]
        right, of = int((called == asked).sum()), len(called)
        low, high = exact_interval(right, of)
        rows[name] = {"value": right / of if of else np.nan, "low": low, "high": high, "right": right, "of": of}
    return pd.DataFrame(rows).T.astype({"right": int, "of": int})


def draw_crowd(
    draw_numbers: Callable[..., pd.DataFrame], *, people: int = 200, cells: int = 50, **how: float
) -> pd.DataFrame:
    """Notebook 13: return a predictions table of many drawn people of each class, by a classifier that knows others.

    A logistic regression learns from the traits of 100 other people of each class. `how` goes to `draw_numbers`.
    """
    train, test = draw_numbers(100, 12, **how), draw_numbers(people, cells, first_subject=1000, **how)
    return evaluate_baseline(train, test, _traits(train, test))


def _traits(*tables: pd.DataFrame) -> pd.DataFrame:
    rows = pd.concat(tables)
    return rows.drop(columns=list(COLUMNS)).set_axis(row_keys(rows))


def count_errors(cells: pd.DataFrame) -> pd.DataFrame:
    """Notebook 13: return AUC and error (mean of both classes, positive above even odds) over cells and over people."""
    first = classes_of(cells)[0]
    table = pd.DataFrame(
        {"positive": cells["label"] == first, "log_odds": logit(cells[f"p_{first}"].clip(EDGE, 1 - EDGE))}
    )
    rows = {}
    for unit, of in {"cells": table, "people": table.groupby(cells["group"]).mean()}.items():
        positive = of["positive"] > 0
        wrong = ((of["log_odds"] > 0) != positive).groupby(positive).mean().mean()
        rows[unit] = {"auc": roc_auc_score(positive, of["log_odds"]) if len(of) else np.nan, "error": wrong}
    return pd.DataFrame(rows).T.rename_axis("counted")


def evaluate_cells_needed(cells: pd.DataFrame, *, draws: int = 20, seed: int = 123) -> pd.DataFrame:
    """Notebook 13: return the error over people by how many cells of each are drawn: cells, error, low, high, people.

    `low` and `high` hold 95 % of the draws. The same people take part at each step, those who have the largest number
    of cells; it is chosen so that `FEWEST_UNITS` people of each class have it.
    """
    people = score_people(cells)
    fewest = [people.loc[people["cells"] >= k, "label"].value_counts().reindex(classes_of(cells)).min() for k in STEPS]
    steps = [k for k, count in zip(STEPS, fewest, strict=True) if count >= FEWEST_UNITS]
    cells = cells[cells["group"].isin(people.index[people["cells"] >= max(steps, default=np.inf)])]
    rng, rows = np.random.default_rng(seed), []
    for _ in range(draws):
        mixed = cells.iloc[rng.permutation(len(cells))]
        place = mixed.groupby("group").cumcount()
        rows += [(k, count_errors(mixed[place < k]).at["people", "error"]) for k in steps]
    drawn = pd.DataFrame(rows, columns=["cells", "error"]).astype({"error": float}).groupby("cells")["error"]
    table = pd.DataFrame({"error": drawn.mean(), "low": drawn.quantile(0.025), "high": drawn.quantile(0.975)})
    return table.assign(people=cells["group"].nunique()).reset_index()


def plot_cells_needed(curves: Mapping[str, pd.DataFrame]) -> Axes:
    """Notebook 13: draw the error over the number of cells of each person, with the band of the draws."""
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    if not curves:
        return plots.plot_flow(["too few people\nto draw this"])
    words = {"xlabel": "cells of each person", "ylabel": "people judged wrong", "percent": True, "log": True}
    ax = plots.plot_lines(curves, "cells", "error", **words)
    for curve, colour in zip(curves.values(), plots.PALETTE.values(), strict=False):
        ax.fill_between(curve["cells"], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
    ax.set_ylim(bottom=0)
    return ax


def describe_own_cells(curve: pd.DataFrame) -> str:
    """Notebook 13: return how many people of the data have enough cells to try, and what more cells did for them."""
    if len(curve) < 2:
        return f"Fewer than {FEWEST_UNITS} people of each class have more than one cell: **inconclusive**."
    first, last = curve.iloc[0], curve.iloc[-1]
    return (
        f"{last['people']:.0f} people have {last['cells']:.0f} cells or more. Of them {first['error']:.0%} are judged "
        f"wrong from one cell and {last['error']:.0%} from {last['cells']:.0f} (mean of both classes and the draws). "
        "The band says how much depends on which cells are drawn; the people stay the same. What still more cells "
        "would do is **inconclusive** here."
    )


def evaluate_leak(rows: pd.DataFrame, numbers: pd.DataFrame, *, seed: int = 123) -> pd.DataFrame:
    """Notebook 13: return `count_errors` of nearest neighbours where people, or only cells, are kept apart."""
    deal = {"baseline": "nearest neighbours", "seed": seed}
    kinds = ("people", "cells")
    return pd.concat({f"{by} kept apart": count_errors(predict_cells(rows, numbers, by=by, **deal)) for by in kinds})


def simulate_leak(
    draw_numbers: Callable[..., pd.DataFrame], effects: Iterable[float], *, runs: int = 5, **how: float
) -> pd.DataFrame:
    """Notebook 13: return `evaluate_leak` for drawn people, beside the truth about new ones; mean over runs.

    20 people of each class with 12 cells in a run. Index: subject effect, what is kept apart, what is counted.
    """
    found = []
    for effect, run in track([(effect, run) for effect in effects for run in range(runs)], "leaks", unit="run"):
        settings = {"subject_effect": effect, "seed": run, **how}
        rows, new = draw_numbers(20, 12, **settings), draw_numbers(50, 12, first_subject=1000, **settings)
        truth = count_errors(evaluate_baseline(rows, new, _traits(rows, new), "nearest neighbours"))
        both = pd.concat([evaluate_leak(rows, _traits(rows), seed=run), pd.concat({"truth: new people": truth})])
        found.append(pd.concat({effect: both}, names=["subject effect", "", "counted"]))
    return pd.concat(found).groupby(level=[0, 1, 2], sort=False).mean()


def describe_leak(leaks: pd.DataFrame) -> str:
    """Notebook 13: return by subject effect which share of the errors a leak hides, over cells and over people."""
    lines = []
    for effect, rows in leaks["error"].groupby(level=0, sort=False):
        kept = rows.droplevel(0).unstack()
        leaky, honest = kept.loc["cells kept apart"], kept.loc["people kept apart"]
        hidden = (1 - leaky / honest).clip(lower=0)
        lines.append(
            f"- subject effect {effect:g}: the leak hides {hidden['cells']:.0%} of the errors over cells and "
            f"{hidden['people']:.0%} of those over people. It promises {leaky['people']:.1%} of people judged wrong; "
            f"of new people it is {kept.at['truth: new people', 'people']:.1%}"
        )
    return "\n".join(lines)


def simulate_studies(
    crowd: pd.DataFrame, *, people: int = 15, cells: int = 10, studies: int = 1000, seed: int = 123
) -> pd.DataFrame:
    """Notebook 13: return how often 95 % intervals hold the truth in studies of so many people of each class.

    People are drawn with replacement from the crowd, whose own rates are the truth. The rule is fixed: a mean log-odds
    above 0. Counted are people, cells that take over their person's answer, and cells with an answer of their own.
    """
    scored, rng, rows = score_people(crowd[crowd.groupby("group").cumcount() < cells]), np.random.default_rng(seed), {}
    for positive, of in scored.groupby("positive"):
        right = ((of["log_odds"] > 0) == positive).to_numpy()
        single = (of["share"] if positive else 1 - of["share"]).to_numpy()
        drawn = rng.integers(len(of), size=(studies, people))
        ways = {"people": (right, 1), "cells, by person": (right, cells), "cells, one by one": (single, cells)}
        for counted, (share, weight) in ways.items():
            hits = np.rint(weight * share)[drawn].sum(axis=1)
            ends = {k: exact_interval(k, weight * people) for k in np.unique(hits)}
            low, high = np.array([ends[k] for k in hits]).T
            held = np.mean((low <= share.mean()) & (share.mean() <= high))
            facts = {"truth": share.mean(), "covers": held, "width": np.mean(high - low)}
            rows["sensitivity" if positive else "specificity", counted] = facts
    return pd.DataFrame(rows).T.sort_index(level=0, sort_remaining=False)


def as_predictions(people: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Notebook 13: return each rule's predictions table with one row per person, for the kit's measures."""
    names, tables = people.sort_values("positive", ascending=False)["label"].unique(), {}
    table = people.assign(path=people.index, subject=people.index, group=people.index)
    for rule, title in RULES.items() if len(people) else ():
        score = people[rule] if rule == "share" else expit(people[rule])
        scores = {f"p_{names[0]}": score, f"p_{names[1]}": 1 - score}
        tables[title] = table[["path", "label", "subject", "group"]].assign(**scores).reset_index(drop=True)
    return tables


def describe_rules(people: pd.DataFrame, *, seed: int = 123) -> str:
    """Notebook 13: return which rule orders people better, paired over people, and how many people it would take."""
    if people.empty:
        return "There is nobody to judge."
    share, odds = as_predictions(people).values()
    row = compare_predictions(odds, share, seed=seed).loc["auc"]
    text = f"AUC over people, mean log-odds minus share of cells: {row['value']:+.3f}"
    if row["low"] != row["low"]:
        return f"{text}, from {row['units']} people in the smaller class: **inconclusive**, no interval can be given."
    text += f" ({row['low']:+.3f} to {row['high']:+.3f}, people resampled): "
    if row["verdict"] != "inconclusive":
        return f"{text}**{RULES['log_odds' if row['verdict'] == 'first' else 'share']}** is better here."
    ends = norm.isf((1 - LEVEL) / 2)
    errors = (ends + norm.isf(1 - POWER)) * (row["high"] - row["low"]) / (2 * ends)  # the difference that would be seen
    needed = row["units"] * (errors / abs(row["value"])) ** 2 if abs(row["value"]) > 1e-9 else np.inf
    how = f"more than {MOST:,}" if needed > MOST else f"about {np.ceil(needed):,.0f}"
    return (
        f"{text}**inconclusive**. If the true difference is as large, it would take {how} people in the smaller class "
        f"to see it in {POWER:.0%} of studies; here there are {row['units']}."
    )


def people_needed(rate: float, wanted: float) -> int | None:
    """Notebook 13: return how many people it takes to show that a rate lies above (or below) `wanted`; None: `MOST`.

    So that the exact 95 % interval shows it in `POWER` of studies, if `rate` is the truth.
    """
    if rate < wanted:
        rate, wanted = 1 - rate, 1 - wanted
    of = np.arange(1, MOST + 1)
    least = binom.isf((1 - LEVEL) / 2, of, wanted) + 1  # right answers from which on the interval lies above `wanted`
    enough = of[binom.sf(least - 1, of, rate) < POWER].max(initial=0) + 1
    return int(enough) if enough <= MOST else None


def describe_claim(rates: pd.DataFrame, wanted: float) -> str:
    """Notebook 13: return whether sensitivity and specificity are as high as wanted, or how many people would tell."""
    if not rates["of"].min():
        return "There is nobody to judge."
    lines = []
    for name, row in rates.iterrows():
        verdict = "yes" if row["low"] >= wanted else "no" if row["high"] < wanted else "inconclusive"
        found = f"{row['right']:.0f} of {row['of']:.0f} people, {row['low']:.0%} to {row['high']:.0%}"
        lines.append(f"- {name} of at least {wanted:.0%}: **{verdict}** ({found})")
        if verdict == "inconclusive":
            needed = people_needed(row["value"], wanted)
            how = f"{needed:,}" if needed else f"more than {MOST:,}"
            lines[-1] += f"; if the truth is {row['value']:.1%}, it would take {how} people to tell"
    return "\n".join(lines)
