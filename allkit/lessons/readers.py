"""Notebooks 00 and 13: a reader study: how well you name cells, how steadily, and what a network's advice does to you.

What a reader answered is a table with one row per look, `LOOKS`: cell (a name), look (1, or 2: the same cell turned
over), truth, network (its answer), advice (what was shown as its answer, None where nothing was) and answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import binomtest

from allkit import plots
from allkit.data import class_order
from allkit.duplicates import contents_of
from allkit.evaluate import FEWEST_UNITS, LEVEL, predicted_labels, wilson_interval
from allkit.splits import Split, split_data

LOOKS = ["cell", "look", "truth", "network", "advice", "answer"]
"""Columns of a table of looks."""

YOU, NETWORK = "you", "a network"

FIXED = "a fixed answer"
"""What stands in the table of scores for a game that nobody has played."""


# Cells


def split_cells(index: pd.DataFrame, *, seed: int = 123) -> Split:
    """Notebook 00: split for the game: by subject, or by image where subjects are unknown, since nothing is claimed.

    Of images that are there twice, one is taken: a cell that comes again by chance is no second cell.
    """
    index = index[~pd.Series(contents_of(index["path"]), index.index).duplicated()]
    known = index.loc[index["label"].notna() & (index["part"] == "train"), "subject"].notna().all()
    return split_data(index, "subject" if known else "image", seed=seed)


def _shuffled(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return rows in random order, but one cell of each subject and class before the second of any."""
    order = rows.sample(frac=1, random_state=seed)
    turn = order.groupby(["label", order["subject"].fillna(order["path"])]).cumcount()
    return order.loc[turn.sort_values(kind="stable").index]


def choose_cells(rows: pd.DataFrame, cells: int = 20, *, seed: int = 0) -> pd.DataFrame:
    """Notebook 00: return cells of all classes alike, from as many subjects as possible, in random order."""
    order = _shuffled(rows, seed)
    sizes = order["label"].value_counts()
    each = min(cells // len(sizes), sizes.min())
    return order.groupby("label").head(each).sample(frac=1, random_state=seed).reset_index(drop=True)


def choose_advised(predictions: pd.DataFrame, cells: int = 20, wrong: int = 6, *, seed: int = 0) -> pd.DataFrame:
    """Notebook 13: return other cells than `choose_cells`, with the column `advice`, wrong about `wrong` of them.

    Of a network's predictions. Where its own errors are too few, answers of it are turned round; the column `turned`
    says which.
    """
    order = _shuffled(predictions.assign(advice=predicted_labels(predictions), turned=False), seed)
    shown = order["path"].isin(choose_cells(predictions, cells, seed=seed)["path"])
    order = pd.concat([order[~shown], order[shown]])  # of few cells, some come again
    classes, erred = class_order(order), order["advice"] != order["label"]
    misled = pd.concat([order[erred], order[~erred]]).groupby("label").head(wrong // len(classes))
    misled = misled.assign(turned=misled["advice"] == misled["label"])
    following = dict(zip(classes, [*classes[1:], classes[0]], strict=True))
    misled["advice"] = misled["advice"].where(~misled["turned"], misled["label"].map(following))
    rest = order[~erred & ~order["path"].isin(misled["path"])].groupby("label").head((cells - wrong) // len(classes))
    return pd.concat([misled, rest]).sample(frac=1, random_state=seed).reset_index(drop=True)


def look_order(cells: int, *, seed: int = 0) -> list[tuple[int, int]]:
    """Return the cell and the look (1 or 2) of every picture of a game: all cells, then all again in another order.

    Between the two looks at a cell lie at least half as many pictures as there are cells, less one.
    """
    rng, half = np.random.default_rng(seed), cells // 2
    again = [*rng.permutation(half), *(half + rng.permutation(cells - half))]
    return [*((k, 1) for k in range(cells)), *((int(k), 2) for k in again)]


def simulate_reader(
    cells: pd.DataFrame, accuracy: float = 0.8, *, steady: float = 0.6, follows: float = 0.0, seed: int = 0
) -> pd.DataFrame:
    """Notebook 13: return the looks of a simulated reader at the cells of `choose_cells` or `choose_advised`.

    `accuracy`: share of right answers; `steady`: share of second looks that repeat the first answer without looking;
    `follows`: share of second looks that take over the advice, where there is any.
    """
    rng, rows, first = np.random.default_rng(seed), [], {}
    truths, classes = cells["label"].tolist(), class_order(cells)
    networks = predicted_labels(cells)
    advices = cells["advice"].tolist() if "advice" in cells else [None] * len(cells)
    for k, look in look_order(len(cells), seed=seed):
        wrong = [name for name in classes if name != truths[k]]
        answer = truths[k] if rng.random() < accuracy else str(rng.choice(wrong))
        advice = advices[k] if look == 2 else None
        if look == 2 and rng.random() < steady:
            answer = first[k]
        if advice is not None and rng.random() < follows:
            answer = advice
        first.setdefault(k, answer)
        rows.append((str(k), look, truths[k], networks[k], advice, answer))
    return pd.DataFrame(rows, columns=LOOKS)


# Accuracy and agreement


def evaluate_reading(looks: pd.DataFrame, cells: pd.DataFrame, rivals: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Notebook 00: return how often you and the rivals are right, and how far you agree with yourself and the network.

    `rivals` holds predictions tables by title; the cells are among their rows. Nobody has looked: a fixed answer to all
    cells stands for you. Only first looks count for the accuracy: two looks at a cell are no two cells.

    Columns measure (accuracy, 0-1, or kappa), same (cells named like the truth, or like the other), cells (counts),
    value, low, high (95 % interval).
    """
    you = YOU
    if looks.empty:
        fixed = class_order(cells)[0]
        you = f"{FIXED}: always {fixed}"
        looks = simulate_reader(cells, 1.0).assign(answer=fixed)
    first, second = _both_looks(looks)
    rows = {you: evaluate_accuracy(first["answer"], first["truth"])}
    for title, predictions in rivals.items():
        called = pd.Series(predicted_labels(predictions), predictions["path"])
        rows[title] = evaluate_accuracy(called[cells["path"]], cells["label"])
    who = you.partition(":")[0]
    rows[f"{who}, twice"] = evaluate_agreement(first["answer"].reindex(second.index), second["answer"])
    rows[f"{who} and {NETWORK}"] = evaluate_agreement(first["answer"], first["network"])
    return pd.DataFrame(rows).T.infer_objects()


def _both_looks(looks: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the first looks, and second looks at cells that have a first one, by cell; pictures alike count once."""
    looks = looks.drop_duplicates(["cell", "look"]).set_index("cell")
    first, second = looks[looks["look"] == 1], looks[looks["look"] == 2]
    return first, second[second.index.isin(first.index)]


def evaluate_accuracy(answers: Sequence[str], truths: Sequence[str]) -> dict[str, object]:
    """Return the share of right answers with Wilson's interval, cell by cell; see `evaluate_reading`."""
    right, cells = int((np.asarray(answers) == np.asarray(truths)).sum()), len(answers)
    low, high = wilson_interval(right, cells)
    share = right / cells if cells else np.nan
    return {"measure": "accuracy", "same": right, "cells": cells, "value": share, "low": low, "high": high}


def evaluate_agreement(first: Sequence[str], second: Sequence[str]) -> dict[str, object]:
    """Return Cohen's kappa of two readings of the same cells with an interval; see `evaluate_reading`.

    The interval is Wilson's of the share that is named alike, less what chance makes alike. A bootstrap over so few
    cells promises too much: readings that are all alike give it no width at all. NaN where both always say the same.
    """
    found = evaluate_accuracy(first, second) | {"measure": "kappa"}
    one, other = np.asarray(first), np.asarray(second)
    chance = sum((one == name).mean() * (other == name).mean() for name in np.unique(one)) if len(one) else 1.0
    for name in ("value", "low", "high"):
        found[name] = float(np.maximum(-1, (found[name] - chance) / (1 - chance))) if chance < 1 else np.nan
    return found


def describe_reading(scores: pd.DataFrame) -> str:
    """Notebook 00: return in a few sentences how the first player did, who is better, and how steady he is."""
    you, network, twice, both = (scores.iloc[k] for k in (0, -3, -2, -1))
    played = scores.index[0] == YOU
    who = "You have" if played else f"Nobody has played yet; {scores.index[0]} has"
    text = f"{who} {you['same']} of {you['cells']} right, the network {network['same']} of {network['cells']}."
    if you["cells"] < FEWEST_UNITS:
        return f"{text} With so few cells no interval can be given: play on."
    apart = you["high"] < network["low"] or you["low"] > network["high"]
    ahead = "the network is" if network["value"] > you["value"] else "you are"
    verdict = f"{ahead} ahead by more than luck" if apart else "the intervals overlap: who is better is *inconclusive*"
    text += (
        f" With {you['cells']} cells, {you['value']:.0%} may stand for anything from {you['low']:.0%} to "
        f"{you['high']:.0%}; {verdict}."
    )
    if not played:
        return f"{text} One who always says the same agrees with anybody no better than by chance."
    if twice["cells"] < FEWEST_UNITS:
        return f"{text} How steady you are, the second looks say: play on."
    return (
        f"{text} Of {twice['cells']} cells that you saw twice, you named {twice['same']} alike ({_kappa(twice)}); you "
        f"and the network named {both['same']} of {both['cells']} alike ({_kappa(both)})."
    )


def _kappa(row: pd.Series) -> str:
    if np.isnan(row["value"]):
        return "kappa cannot be given where all answers are the same"
    return f"kappa {row['value']:.2f}, from {row['low']:.2f} to {row['high']:.2f}"


# Advice


def evaluate_advice(readers: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Notebook 13: return what advice does to readers, from their looks: alone (look 1) and with it (look 2).

    One row per reader and kind of advice ("right", "wrong"), of the cells with both looks: cells, wrong_alone,
    wrong_advised, followed (answers like the advice), to_wrong and to_right (answers changed), counts. Readers without
    such cells are left out.
    """
    rows = []
    for name, looks in readers.items():
        first, second = _both_looks(looks)
        second = second[second["advice"].notna()]
        alone = first["answer"].reindex(second.index) != second["truth"]
        advised = second["answer"] != second["truth"]
        good = second["advice"] == second["truth"]
        for kind, here in {"right": good, "wrong": ~good}.items():
            rows.append({
                "reader": name,
                "advice": kind,
                "cells": here.sum(),
                "wrong_alone": (alone & here).sum(),
                "wrong_advised": (advised & here).sum(),
                "followed": ((second["answer"] == second["advice"]) & here).sum(),
                "to_wrong": (~alone & advised & here).sum(),
                "to_right": (alone & ~advised & here).sum(),
            })  # fmt: skip
    columns = ["reader", "advice", "cells", "wrong_alone", "wrong_advised", "followed", "to_wrong", "to_right"]
    table = pd.DataFrame(rows, columns=columns).set_index(["reader", "advice"])
    return table[table.groupby("reader")["cells"].transform("sum") > 0]


def summarise_advice(effect: pd.DataFrame) -> pd.DataFrame:
    """Notebook 13: return the shares of wrong answers alone and with advice, from `evaluate_advice`, with intervals."""
    rows = {}
    for (reader, kind), row in effect.iterrows():
        for column, how in (("wrong_alone", "alone"), ("wrong_advised", "with advice")):
            low, high = wilson_interval(row[column], row["cells"])
            share = row[column] / row["cells"] if row["cells"] else np.nan
            rows[f"{reader}, {kind} advice", how] = {"value": share, "low": low, "high": high}
    return pd.DataFrame(rows).T


def plot_advice(shares: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Notebook 13: draw what `summarise_advice` returns."""
    return plots.plot_intervals(shares, xlabel="share of wrong answers", ax=ax)


def describe_advice(effect: pd.DataFrame, cells: pd.DataFrame) -> str:
    """Notebook 13: return what wrong advice did to the first reader, and what was wrong on purpose."""
    reader = effect.index[0][0]
    bad = effect.loc[(reader, "wrong")]
    who = "You were" if reader == YOU else f"Nobody has played yet; {reader} was"
    p = sign_test(bad["to_wrong"], bad["to_right"])
    verdict = "more than luck" if p < 1 - LEVEL else "*inconclusive* with so few cells"
    text = (
        f"{who} wrong about {bad['wrong_alone']} of {bad['cells']} cells alone, and about {bad['wrong_advised']} of "
        f"them after wrong advice. {bad['to_wrong']} answers went from right to wrong, {bad['to_right']} from wrong to "
        f"right: {verdict} (sign test, p = {p:.2g})."
    )
    if reader != YOU:
        return f"{text} How often the advice is wrong, and how that came about, you learn when you have played."
    turned, wrong = int(cells["turned"].sum()), int((cells["advice"] != cells["label"]).sum())
    made = f", and {turned} are answers of it that were turned round, because it errs too rarely" if turned else ""
    return (
        f"{text} The truth about the advice: it was chosen to be wrong about {wrong} of {len(cells)} "
        f"cells; {wrong - turned} of these are the network's own errors{made}."
    )


def sign_test(one: int, other: int) -> float:
    """Return how probable it is that so many changes go one way and so many the other, or more unevenly, by luck."""
    return float(binomtest(int(one), int(one + other)).pvalue) if one + other else 1.0
