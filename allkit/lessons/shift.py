"""Notebook 14: what a change of stain, light, focus, scale or prevalence does to a classifier, and what helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from allkit import AllkitError, plots
from allkit.augment import apply_augmentation
from allkit.classical import evaluate_baseline
from allkit.data import class_order
from allkit.evaluate import (
    FEWEST_UNITS,
    as_text,
    bootstrap_by_subject,
    classes_of,
    compare_predictions,
    evaluate_with_intervals,
    label_indices,
    probabilities_of,
)
from allkit.images import prepare_image, read_image
from allkit.progress import track
from allkit.splits import grouped_folds

FOLDS, FEWEST = 5, 3
"""Groups of people: three to learn from, one to calibrate on, one to test, in turn; of few people fewer groups."""

MEASURES = ["auc", "sensitivity", "specificity", "log_loss"]
"""What is compared with the home hospital, image by image."""


def choose_rows(index: pd.DataFrame) -> pd.DataFrame:
    """Notebook 14: return the labelled rows, of two classes: the positive one and, where there are more, the rest."""
    rows = index[index["label"].notna()].drop_duplicates("path").reset_index(drop=True)
    first, *others = class_order(rows)
    if len(others) > 1:
        rows["label"] = rows["label"].where(rows["label"] == first, f"not {first}")
        rows["positive"] = first
    units = rows.groupby("label")["group"].nunique()
    if len(units) < 2 or units.min() < FEWEST:
        raise AllkitError(
            f"one learns from some people, calibrates on others and tests on others again, so it takes {FEWEST} "
            "subjects of each class or more; there are "
            f"{', '.join(f'{label}: {count}' for label, count in units.items())}. Take a larger data set."
        )
    return rows


def describe_people(rows: pd.DataFrame) -> str:
    """Notebook 14: return whose cells these are, and what cannot be asked where that is unknown."""
    cells = ", ".join(f"{(rows['label'] == label).sum()} {label}" for label in class_order(rows))
    if rows["subject"].isna().any():
        return (
            f"{len(rows):,} cells: {cells}. **Whose they are is unknown.** Every cell stands for a person of its own "
            "below, so the intervals are too narrow, the alarm may ring for the people rather than the hospital, and "
            "nothing is known about a promise per person: those results are *inconclusive*."
        )
    people = rows.groupby("label")["group"].nunique()
    named = ", ".join(f"{people[label]} {label}" for label in class_order(rows))
    return f"{len(rows):,} cells ({cells}) of {people.sum()} people ({named})."


def show_dials(rows: pd.DataFrame, dials: Mapping[str, str], *, seed: int = 123) -> np.ndarray:
    """Notebook 14: draw one cell of each class at home and under each dial."""
    few = rows.sample(frac=1, random_state=seed).groupby("label").head(1)
    cells = [prepare_image(read_image(path), 128, 300) for path in few.sort_values("label")["path"]]
    images = [apply_augmentation(cell, spec) for cell in cells for spec in dials.values()]
    alt = f"Two cells, one per class, as the home hospital shows them and under each dial: {', '.join(dials)}."
    return plots.plot_images(images, list(dials), columns=len(dials), rows=sorted(few["label"]), alt=alt)


def draw_folds(rows: pd.DataFrame, *, seed: int = 123) -> np.ndarray:
    """Notebook 14: return the number of the group of people that each row belongs to, int (n,), 0 to `FOLDS` - 1.

    Where a class has fewer people, there are as many groups as it has.
    """
    number = np.zeros(len(rows), int)
    people = rows.groupby("group")["label"].first()
    fewest = int(people.value_counts().min())
    if fewest >= FOLDS:
        for k, (_, held) in enumerate(grouped_folds(rows, FOLDS, seed=seed)):
            number[rows.index.get_indexer(held.index)] = k
        return number
    # one of each class in every group, which folds that are as large as each other do not promise
    folds = StratifiedKFold(fewest, shuffle=True, random_state=seed)
    for k, (_, places) in enumerate(folds.split(people, people)):
        number[rows["group"].isin(people.index[places])] = k
    return number


def under(rows: pd.DataFrame, spec: str) -> pd.DataFrame:
    """Notebook 14: return the same cells, photographed under a dial (see `allkit.augment.apply_augmentation`)."""
    return rows.assign(augmentation=spec)


def draw_colour_copies(rows: pd.DataFrame, *, most: float = 0.4, seed: int = 123) -> pd.DataFrame:
    """Notebook 14: return one copy of each cell, with stain and light drawn at random up to `most` either way."""
    drawn = np.random.default_rng(seed).uniform(-most, most, (len(rows), 4)).round(2)
    specs = [f"stain:{1 + h:.2f},{1 + e:.2f}|light:{1 + g:.2f},{w / 2:.2f}" for h, e, g, w in drawn]
    return rows.assign(augmentation=specs)


def gather(hospitals: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Notebook 14: return the rows of all hospitals below each other, with the column `hospital`."""
    return pd.concat([rows.assign(hospital=name) for name, rows in hospitals.items()], ignore_index=True)


def recalibrate(predictions: pd.DataFrame, labelled: pd.DataFrame) -> pd.DataFrame:
    """Notebook 14: return the predictions with their logits stretched and moved to fit some labelled cells (Platt)."""
    first, second = (f"p_{name}" for name in classes_of(predictions))
    scale = LogisticRegression().fit(_logits(labelled), label_indices(labelled) == 0)
    probability = scale.predict_proba(_logits(predictions))[:, 1]
    return predictions.assign(**{first: probability, second: 1 - probability})


def _logits(predictions: pd.DataFrame) -> np.ndarray:
    return logit(np.clip(probabilities_of(predictions)[:, :1], 1e-6, 1 - 1e-6))


def predict_hospitals(
    hospitals: Mapping[str, pd.DataFrame],
    features: pd.DataFrame,
    fold_of: pd.Series,
    *,
    copies: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Notebook 14: return what the home hospital's classifier answers in every hospital, the first of them its own.

    In turn, it learns from most groups of people (and from `copies` of their cells), is calibrated on one more, all of
    them at home, and answers for this one and the last everywhere. `features` are those of `frozen_features`, where
    they are of the hospital as well; `fold_of` is the group of each path. Predictions tables below each other, with
    `hospital`, `turn` and `role` ("test" or "calibration").
    """
    everywhere, numbers = gather(hospitals), features
    if features.index.nlevels > 1:  # the same picture has other features in each hospital
        everywhere["augmentation"] += "@" + everywhere["hospital"]
        numbers = features.set_axis([f"{key}@{hospital}" for hospital, key in features.index])
    home, group, turns = next(iter(hospitals)), everywhere["path"].map(fold_of), fold_of.nunique()
    found = []
    for turn in track(range(turns), "groups of people", unit="group"):
        role = group.map({turn: "test", (turn + 1) % turns: "calibration"})
        train = everywhere[role.isna() & (everywhere["hospital"] == home)]
        if copies is not None:
            train = pd.concat([train, copies[copies["path"].isin(train["path"])]], ignore_index=True)
        asked = everywhere[role.notna()]
        answers = evaluate_baseline(train, asked, numbers, by_subject=True)
        answers = answers.assign(hospital=asked["hospital"].to_numpy(), role=role.dropna().to_numpy(), turn=turn)
        at_home = answers.query("role == 'calibration' and hospital == @home")
        found.append(recalibrate(answers, at_home))
    return pd.concat(found, ignore_index=True)


def thin_out(rows: pd.DataFrame, prevalence: float, *, seed: int = 123) -> pd.DataFrame:
    """Notebook 14: leave out people of one class until the share of the positive class's cells is about `prevalence`.

    At least `FOLDS` people of each class stay.
    """
    positive = rows["label"] == class_order(rows)[0]
    drop_positive = positive.mean() > prevalence
    sizes = rows[positive == drop_positive].groupby("group").size().sample(frac=1, random_state=seed)
    others = (positive != drop_positive).sum()
    wanted = others * prevalence / (1 - prevalence) if drop_positive else others * (1 - prevalence) / prevalence
    stay = sizes.index[: max(FOLDS, int((sizes.cumsum() <= wanted).sum()))]
    return rows[(positive != drop_positive) | rows["group"].isin(stay)]


def tested(answers: pd.DataFrame, hospital: str) -> pd.DataFrame:
    """Notebook 14: return the answers about the tested people of one hospital."""
    return answers.query("role == 'test' and hospital == @hospital").reset_index(drop=True)


def evaluate_hospitals(answers: pd.DataFrame, *, seed: int = 123) -> pd.DataFrame:
    """Notebook 14: return `MEASURES` and how much too often the positive class is expected, with intervals.

    One row per hospital and measure; `change` and `verdict` compare with the first hospital on the same images, by a
    paired bootstrap over subjects (NaN and "" where the images are not the same).
    """
    names, tables = list(dict.fromkeys(answers["hospital"])), {}
    home = tested(answers, names[0])
    for name in track(names, "intervals by subject", unit="hospital"):
        there = tested(answers, name)
        table = evaluate_with_intervals(there, seed=seed).loc[MEASURES]
        table = pd.concat([table, bootstrap_by_subject(there, _excess(there), seed=seed)])
        table = table.assign(change=np.nan, verdict="")
        if name != names[0] and list(there["path"]) == list(home["path"]):
            change = compare_predictions(there, home, seed=seed).loc[MEASURES]
            words = {"first": "better", "second": "worse", "inconclusive": "inconclusive"}
            table["change"] = change["value"]
            table["verdict"] = change["verdict"].map(words).reindex(table.index, fill_value="")
        tables[name] = table
    return pd.concat(tables, names=["hospital", "measure"])


def _excess(predictions: pd.DataFrame) -> Callable[[np.ndarray], dict[str, float]]:
    gap = probabilities_of(predictions)[:, 0] - (label_indices(predictions) == 0)
    return lambda weight: {"predicted - observed": float(np.average(gap, weights=weight))}


def tabulate_hospitals(table: pd.DataFrame) -> pd.DataFrame:
    """Notebook 14: return the table of `evaluate_hospitals` to read; a dash where there is nothing to compare with."""
    change = table["change"].map("{:+.2f}".format).where(table["change"].notna(), "–")
    return as_text(table[["value", "low", "high"]], 2).assign(change=change, verdict=table["verdict"])


def describe_hospitals(table: pd.DataFrame) -> str:
    """Notebook 14: return where the share of the positive class is expected too high or too low, in a sentence."""
    excess = table.xs("predicted - observed", level="measure")
    too_high, too_low = excess.index[excess["low"] > 0], excess.index[excess["high"] < 0]
    if excess["low"].isna().all():
        return f"With fewer than {FEWEST_UNITS} subjects of a class all of this is *inconclusive*."
    parts = [f"too high: {', '.join(too_high) or 'nowhere'}", f"too low: {', '.join(too_low) or 'nowhere'}"]
    return f"The classifier expects the positive class in a share of the cells that is {'; '.join(parts)}."


def describe_blind_spot(table: pd.DataFrame) -> str:
    """Notebook 14: return the largest fall of sensitivity or specificity, and what the AUC shows of it."""
    rates = table[table.index.isin(["sensitivity", "specificity"], level="measure")].dropna(subset="change")
    hospital, measure = rates["change"].idxmin()
    fall, auc = rates.loc[(hospital, measure)], table.loc[(hospital, "auc")]
    text = (
        f"The largest fall: **{measure} under {hospital}, {fall['change']:+.2f}** ({fall['verdict']}). The AUC changes "
        f"there by {auc['change']:+.3f} ({auc['verdict']}). "
    )
    if fall["verdict"] != "worse":
        return text + "Whether any dial moved the answers across the threshold is *inconclusive* here."
    if abs(auc["change"]) > -fall["change"] / 3:
        return text + "Here the AUC shows it too."
    return text + (
        "**Whoever watches the AUC alone misses most of it**: the AUC asks who stands before whom, and a move of all "
        "answers to one side leaves that as it was."
    )


def plot_hospitals(table: pd.DataFrame) -> Axes:
    """Notebook 14: draw AUC, sensitivity and specificity of every hospital with their intervals."""
    shown = table[table.index.isin(MEASURES[:3], level="measure")]
    return plots.plot_intervals(shown, xlabel="share, or area under the curve")


def recalibrate_hospitals(answers: pd.DataFrame, *, cells: int = 30, seed: int = 123) -> pd.DataFrame:
    """Notebook 14: return the answers after `recalibrate` in each hospital, on cells of people who are not tested.

    Where the cells drawn are of one class only, nothing is changed.
    """
    done = []
    for _, part in answers.groupby(["hospital", "turn"], sort=False):
        others = part[part["role"] == "calibration"]
        labelled = others.sample(min(cells, len(others)), random_state=seed)
        done.append(recalibrate(part, labelled) if labelled["label"].nunique() > 1 else part)
    return pd.concat(done).sort_index()


def compare_remedies(remedies: Mapping[str, pd.DataFrame], *, seed: int = 123) -> pd.DataFrame:
    """Notebook 14: return what each remedy gains over the first entry, by hospital, with a paired bootstrap interval.

    Of `log_loss` (what it takes off) and `auc` (what it adds), so that above zero is better. One row per measure,
    hospital and remedy: value, low, high, verdict ("helps", "harms", "inconclusive").
    """
    before, *names = remedies
    hospitals, rows = list(dict.fromkeys(remedies[before]["hospital"])), {}
    for hospital in track(hospitals, "remedies", unit="hospital"):
        for name in names:
            pair = tested(remedies[name], hospital), tested(remedies[before], hospital)
            found = compare_predictions(*pair, resamples=300, seed=seed)
            for measure, sign in (("log_loss", -1), ("auc", 1)):
                row = sign * found.loc[measure, ["value", "low", "high"]].astype(float)
                ends = dict(zip(("low", "high"), sorted(row[["low", "high"]]), strict=True))
                words = {"first": "helps", "second": "harms", "inconclusive": "inconclusive"}
                verdict = words[found.at[measure, "verdict"]]
                rows[measure, hospital, name] = {"value": row["value"], **ends, "verdict": verdict}
    return pd.DataFrame(rows).T.rename_axis(["measure", "hospital", "remedy"]).infer_objects()


def tabulate_verdicts(gains: pd.DataFrame, measure: str = "log_loss") -> pd.DataFrame:
    """Notebook 14: return the gain of each remedy in each hospital with its verdict, as a table to read."""
    rows = gains.loc[measure]
    words = rows["value"].astype(float).map("{:+.2f} ".format) + rows["verdict"]
    return words.unstack("remedy")[list(dict.fromkeys(rows.index.get_level_values("remedy")))].reindex(
        list(dict.fromkeys(rows.index.get_level_values("hospital")))
    )


def plot_remedies(gains: pd.DataFrame, measure: str = "log_loss") -> Axes:
    """Notebook 14: draw what each remedy gains in each hospital."""
    words = {"log_loss": "log loss taken off (nats): right of the line is better", "auc": "AUC added"}
    return plots.plot_intervals(gains.loc[measure], xlabel=words[measure], line=0)


def describe_remedies(gains: pd.DataFrame, measure: str = "log_loss") -> str:
    """Notebook 14: return where each remedy helps, harms, or cannot be judged, as a list."""
    lines = []
    for remedy, rows in gains.loc[measure].groupby("remedy", sort=False):
        where = {verdict: list(part.index.get_level_values("hospital")) for verdict, part in rows.groupby("verdict")}
        said = [
            f"{verdict}: {', '.join(where[verdict])}"
            for verdict in ("helps", "harms", "inconclusive")
            if verdict in where
        ]
        lines.append(f"- **{remedy}**: {'; '.join(said)}.")
    return "\n".join(lines)
