"""Notebook 11: maps against a known truth and against maps that know nothing, and a planted shortcut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from allkit import AllkitError
from allkit.augment import Augmentation, corner_box, load_part, plant_shortcut
from allkit.baselines import choose_single_feature
from allkit.data import class_order
from allkit.evaluate import bootstrap_by_subject, compare_predictions, evaluate_predictions, predicted_labels
from allkit.explain import PLACES, build_grad_cam, build_occlusion, overlay, resize_map
from allkit.features import cell_mask, measure_cells
from allkit.images import (
    brighten,
    brightening,
    centre_crop,
    in_threads,
    load_images,
    prepare_image,
    read_image,
    to_common_size,
)
from allkit.models import TrainedModel, build_model, predict_index
from allkit.plots import plot_flow, plot_images, plot_intervals
from allkit.progress import track
from allkit.splits import Split
from allkit.train import build_from_profile, get_profile, train_model


def average_scores(scores: pd.DataFrame, measure: str, *, against: str, seed: int = 123) -> pd.DataFrame:
    """Notebook 11: average a score over cells, method by method, with a percentile bootstrap interval over subjects.

    `scores` as from `score_maps`, for one mask; the column `measure` is averaged. The same subjects are resampled for
    every method, so that the methods are compared on the same cells.

    One row per method, columns as `bootstrap_by_subject`, which draws from all subjects alike where classes are not
    given; and verdict, "above" or "below" the method `against` where the interval of the difference excludes zero,
    else "inconclusive".
    """
    wide = scores.pivot(index="path", columns="method", values=measure)[list(dict.fromkeys(scores["method"]))]
    cells = scores.drop_duplicates("path").set_index("path").loc[wide.index, ["subject", "group"]].reset_index()
    values, rival = wide.to_numpy(float), wide.columns.get_loc(against)

    def averages(weight: np.ndarray) -> dict[str, float]:
        return dict(zip(wide.columns, np.average(values, axis=0, weights=weight), strict=True))

    def gains(weight: np.ndarray) -> dict[str, float]:
        means = np.average(values, axis=0, weights=weight)
        return dict(zip(wide.columns, means - means[rival], strict=True))

    table = bootstrap_by_subject(cells, averages, resamples=1000, seed=seed).rename_axis("method")
    gain = bootstrap_by_subject(cells, gains, resamples=1000, seed=seed)  # the same seed draws the same subjects
    table["verdict"] = np.select([gain["low"] > 0, gain["high"] < 0], ["above", "below"], "inconclusive")
    return table


def random_map(size: int, places: int, seed: int) -> np.ndarray:
    """Notebook 11: return uniform random numbers on a grid, enlarged like Grad-CAM's map: float32 (size, size), 0–1."""
    heat = np.random.default_rng(seed).random((places, places))
    return resize_map(heat / heat.max(), size)


def centre_blob(size: int) -> np.ndarray:
    """Notebook 11: return a map that is the same for every image: float32 (size, size), 0–1.

    A Gaussian about the middle, with a standard deviation of a fifth of the side.
    """
    away = (np.arange(size) - (size - 1) / 2) / (0.2 * size)
    bell = np.exp(-0.5 * away**2)
    return (np.outer(bell, bell) / bell.max() ** 2).astype(np.float32)


def load_masks(path: str, load_truth: Callable[[str], Any]) -> dict[str, np.ndarray]:
    """Notebook 11: return where what is, bool (height, width) each, at the size of `allkit.images.to_common_size`.

    For a cell of the synthetic twin "cell" and "nucleus" as they were drawn; for any other cell on black "cell"
    only, taken from the image itself (`allkit.features.cell_mask`). `load_truth` is that of `allkit.synthetic`.
    """
    image = to_common_size(read_image(path))
    try:
        truth = load_truth(path)
    except AllkitError:  # no synthetic cell: nobody has drawn its nucleus
        return {"cell": cell_mask(image)}
    side = image.shape[0]
    return {"cell": centre_crop(truth.outline, side), "nucleus": centre_crop(truth.nucleus, side)}


def prepare_mask(mask: np.ndarray, image_size: int, crop: int | None = None) -> np.ndarray:
    """Notebook 11: crop and resize a mask as `prepare_image` does its image; bool (image_size, image_size)."""
    return prepare_image(np.repeat(mask[..., None], 3, axis=2) * np.uint8(255), image_size, crop)[..., 0] > 127


def pointing_game(heat: np.ndarray, mask: np.ndarray) -> float:
    """Notebook 11: return 1 if the map's maximum lies inside the mask, bool (s, s), else 0 (Zhang et al., 2018).

    Without their tolerance. Where several pixels share the maximum it is the share of them that lies inside; an
    empty map scores 0.
    """
    _check_pair(heat, mask)
    return float(mask[heat >= heat.max() * (1 - 1e-6)].mean()) if heat.max() > 0 else 0.0


def overlap(heat: np.ndarray, mask: np.ndarray) -> float:
    """Notebook 11: return the share of the map's sum inside the mask, bool (s, s), 0–1 (Wang et al., 2020).

    An empty map scores 0, a flat map the mask's share of the area, which is the value to beat. Unlike an overlap of
    two outlines it needs no threshold on the map.
    """
    _check_pair(heat, mask)
    return float(heat[mask].sum() / heat.sum()) if heat.sum() > 0 else 0.0


def _check_pair(heat: np.ndarray, mask: np.ndarray) -> None:
    if heat.shape != mask.shape or mask.dtype != bool:
        raise AllkitError(f"a map of shape {heat.shape} needs a bool mask of the same shape, not {mask.shape}.")


def score_maps(
    cells: pd.DataFrame, maps: Mapping[str, Sequence[np.ndarray]], masks: Sequence[Mapping[str, np.ndarray]]
) -> pd.DataFrame:
    """Notebook 11: score the maps of several methods, method -> one map per cell, on the same cells.

    `masks`: per cell, name -> bool (s, s), as from `load_masks` and `prepare_mask`. One row per method, cell and
    mask: method, mask, path, subject, group, pointing and overlap, 0–1.
    """
    rows = []
    for method, of_method in maps.items():
        for k, (heat, truth) in enumerate(zip(of_method, masks, strict=True)):
            who = cells.iloc[k][["path", "subject", "group"]].to_dict()
            for name, mask in truth.items():
                scores = {"pointing": pointing_game(heat, mask), "overlap": overlap(heat, mask)}
                rows.append({"method": method, "mask": name, **who, **scores})
    return pd.DataFrame(rows)


def compare_maps(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Notebook 11: return how alike two methods' maps are, float (n,): Spearman's correlation over their pixels.

    NaN where one of the two maps is flat. The maps of a pair must have the same shape.
    """
    pairs = [(one.ravel(), other.ravel()) for one, other in zip(first, second, strict=True)]
    return np.array([spearmanr(*pair)[0] if min(map(np.ptp, pair)) > 0 else np.nan for pair in pairs], dtype=float)


def choose_cells(part: pd.DataFrame, count: int, *, seed: int = 0) -> pd.DataFrame:
    """Notebook 11: return up to `count` rows from as many subjects as possible, chosen subject by subject."""
    order = part.sample(frac=1, random_state=seed)
    turn = order.groupby(order["subject"].fillna(order["path"])).cumcount()
    return order.loc[turn.sort_values(kind="stable").index[:count]].reset_index(drop=True)


METHODS = {"Grad-CAM": build_grad_cam, "occlusion": build_occlusion}
"""The two ways to make a map."""

SHORTCUT = {"alpha": 0.25, "weights": "none", "image_size": 64, "epochs": 8}
"""Settings of the small networks of the shortcut; their images are not turned, so that a mark stays in its corner."""

TRICKED = "trained with the mark"

CLEAN = "trained without"


@dataclass(frozen=True)
class Maps:
    """Maps of some cells by several networks and methods.

    `cells`: rows of the index; `images`, `said`, `masks`: title of a network -> what it saw, (n, s, s, 3), what it
    answered, (n,), and where what is, one dict of bool (s, s) per cell, empty where nobody knows; `maps`:
    (title, method) -> one float (s, s) per cell.
    """

    cells: pd.DataFrame
    images: dict[str, np.ndarray]
    said: dict[str, np.ndarray]
    masks: dict[str, list[dict[str, np.ndarray]]]
    maps: dict[tuple[str, str], list[np.ndarray]]


def draw_maps(trained: Mapping[str, TrainedModel], cells: pd.DataFrame, load_truth: Callable[[str], Any]) -> Maps:
    """Notebook 11: draw the maps of both methods for what each network answers, and load where cell and nucleus are."""
    truth = [{}] * len(cells)
    if choose_single_feature(measure_cells(cells)) == "area":
        truth = list(in_threads(partial(load_masks, load_truth=load_truth), cells["path"]))
    images, said, masks, maps = {}, {}, {}, {}
    for title, one in trained.items():
        size = {key: one.metadata["input"][key] for key in ("image_size", "crop")}
        images[title] = np.asarray(load_images(cells, **size))
        said[title] = predicted_labels(predict_index(one, cells))
        masks[title] = [{name: prepare_mask(mask, **size) for name, mask in of.items()} for of in truth]
        for method, build in METHODS.items():
            draw, pairs = build(one), list(zip(images[title], said[title], strict=True))
            maps[title, method] = [draw(*pair) for pair in track(pairs, f"{method} of {title}", unit="map")]
    return Maps(cells, images, said, masks, maps)


def plot_maps(drawn: Maps, *, cells: int = 3) -> np.ndarray:
    """Notebook 11: show the maps of a few cells over the images, with a column for the blob in the centre."""
    first = next(iter(drawn.images))
    titles = ["as seen", *(f"{title}\n{method}" for title, method in drawn.maps), "one blob in\nthe centre"]
    pictures, outlines = [], []
    for k in range(min(cells, len(drawn.cells))):
        image = drawn.images[first][k]
        pictures += [brighten(image, brightening([image]))]
        pictures += [overlay(drawn.images[title][k], of[k]) for (title, _), of in drawn.maps.items()]
        pictures += [overlay(image, centre_blob(image.shape[0]))]
        masks = [drawn.masks[title][k].values() for title in (first, *(title for title, _ in drawn.maps), first)]
        outlines += [list(of) for of in masks]
    rows = [
        f"{drawn.cells['label'][k]}, said:\n" + ", ".join(of[k] for of in drawn.said.values()) for k in range(cells)
    ]
    alt = (
        f"Maps of {cells} test images: {', '.join(' '.join(name) for name in drawn.maps)}, and one blob in the "
        "centre; yellow is where the answer came from, white the outline of the cell, black its nucleus."
    )
    return plot_images(
        pictures, titles, columns=len(titles), rows=rows, outlines=outlines, factor=1.0, size=1.65, alt=alt
    )


def describe_truth(drawn: Maps, synthetic: bool) -> str:
    """Notebook 11: return where the truth comes from and how much of the image it covers, or that there is none."""
    masks = next(iter(drawn.masks.values()))
    if not masks[0]:
        return "These are whole pictures with no known outlines: there is **no truth to score maps against**."
    source = "as drawn by the program" if synthetic else "taken from the image; where its nucleus is, nobody knows"
    shares = {name: np.mean([of[name].mean() for of in masks]) for name in masks[0]}
    covered = " and ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return f"The truth is {source}. Share of the image that it covers, on average: {covered}."


def score_all(drawn: Maps, *, seed: int = 123) -> pd.DataFrame:
    """Notebook 11: score all maps, and those of the two rivals that know nothing; empty where there is no truth."""
    first = next(iter(drawn.images))
    if not drawn.masks[first][0]:
        return pd.DataFrame({"mask": []})
    side, count = drawn.images[first].shape[1], len(drawn.cells)
    tables = [
        score_maps(drawn.cells, {f"{title}, {method}": of}, drawn.masks[title])
        for (title, method), of in drawn.maps.items()
    ]
    blind = {
        "random map": [random_map(side, PLACES, seed + k) for k in range(count)],
        "centre blob": [centre_blob(side)] * count,
    }
    return pd.concat([*tables, score_maps(drawn.cells, blind, drawn.masks[first])], ignore_index=True)


def average_all(scores: pd.DataFrame, *, seed: int = 123) -> pd.DataFrame:
    """Notebook 11: average both scores of every method, with intervals over subjects; empty where there is no truth.

    Rows: measure ("pointing", "overlap"), method, mask; columns as `average_scores`.
    """
    if scores.empty:
        return pd.DataFrame()
    tables = {
        (measure, mask): average_scores(of, measure, against="centre blob", seed=seed)
        for measure in ("pointing", "overlap")
        for mask, of in scores.groupby("mask", sort=False)
    }
    return pd.concat(tables, names=["measure", "mask"]).swaplevel("mask", "method")


def plot_scores(averages: pd.DataFrame) -> np.ndarray:
    """Notebook 11: draw pointing game and overlap of every method from `average_all`, one panel each."""
    if averages.empty:
        return np.array([plot_flow(["no truth,\nno score"])])
    _, axes = plt.subplots(1, 2, figsize=(10.4, 3.9), sharey=True)
    labels = {"pointing": "pointing game (share of cells)", "overlap": "overlap (share of the map's sum)"}
    for ax, (measure, label) in zip(axes, labels.items(), strict=True):
        plot_intervals(averages.loc[measure], xlabel=label, ax=ax)
    return axes


def compare_scores(scores: pd.DataFrame, *, seed: int = 123) -> pd.DataFrame:
    """Notebook 11: return whether each network's maps lie above or below each rival's on the cell, by measure.

    Rows: methods; columns: measure and rival. Empty where there is no truth.
    """
    if scores.empty:
        return pd.DataFrame()
    cell = scores[scores["mask"] == "cell"]
    return pd.DataFrame(
        {
            (measure, rival): average_scores(cell, measure, against=rival, seed=seed)["verdict"].iloc[:-2]
            for rival in ("random map", "centre blob")
            for measure in ("pointing", "overlap")
        }
    )


def describe_scores(verdicts: pd.DataFrame) -> str:
    """Notebook 11: return how often the networks' maps are better and worse than each rival, as a list."""
    if verdicts.empty:
        return "Without a truth no map can be called right or wrong."
    lines = []
    for rival in dict.fromkeys(verdicts.columns.get_level_values(1)):
        found = verdicts.xs(rival, axis=1, level=1).to_numpy().ravel().tolist()
        lines.append(
            f"- against the {rival}: better in {found.count('above')} of {len(found)} comparisons, worse in "
            f"{found.count('below')}; {found.count('inconclusive')} are inconclusive"
        )
    return "\n".join(["The networks' maps,\n", *lines])


def forget(trained: TrainedModel, *, seed: int = 123) -> TrainedModel:
    """Notebook 11: return the same network with random weights."""
    profile = trained.metadata["profile"]
    same = {key: profile[key] for key in ("alpha", "depths", "pooling")} | {"weights": None, "seed": seed}
    name, size = trained.metadata["model"], trained.metadata["input"]["image_size"]
    return TrainedModel(build_model(name, size, len(trained.classes), **same), trained.metadata)


def compare_with_untrained(trained: TrainedModel, title: str, drawn: Maps, *, seed: int = 123) -> np.ndarray:
    """Notebook 11: return how alike the Grad-CAM maps of a network are with those of the same one with random weights.

    Spearman's correlation over the pixels, one per cell; cells with an empty map are left out.
    """
    draw = build_grad_cam(forget(trained, seed=seed))
    blank = [draw(*pair) for pair in zip(drawn.images[title], drawn.said[title], strict=True)]
    alike = compare_maps(drawn.maps[title, "Grad-CAM"], blank)
    return alike[~np.isnan(alike)]


def describe_alike(alike: np.ndarray) -> str:
    """Notebook 11: return what these correlations say about training, in a sentence."""
    if not len(alike):
        return "All maps are empty, so there is nothing to compare."
    typical, (low, high) = np.median(alike), np.quantile(alike, [0.1, 0.9])
    much = "little in the maps" if typical > 0.7 else "the maps in part" if typical > 0.3 else "the maps thoroughly"
    return (
        f"Trained against untrained, {len(alike)} cells: median correlation **{typical:.2f}**, from {low:.2f} to "
        f"{high:.2f} in eight of ten cells. Training changed {much}."
    )


def train_on_shortcut(
    split: Split, index: pd.DataFrame, target: str, *, allow_leak: bool = False, seed: int = 123
) -> dict[str, TrainedModel]:
    """Notebook 11: train a small network on images of which those of one class are marked, and one without marks.

    The marks are in the validation part too, as they would be if nobody had noticed.
    """
    profile = get_profile(
        "quick", "mobilenet", index, augmentation=Augmentation(horizontal_flip=False), allow_leak=allow_leak, **SHORTCUT
    )
    parts = {"train": split.train, "validation": split.validation}
    marked = {name: plant_shortcut(part, [target], seed=k) for k, (name, part) in enumerate(parts.items(), 1)}
    networks = {}
    for name, used in track({TRICKED: marked, CLEAN: parts}.items(), "trainings", total=2, unit="training"):
        model = build_from_profile("mobilenet", profile, index["label"].nunique(), seed=seed)
        networks[name] = train_model(model, replace(split, **used), profile, seed=seed, show=False).trained
    return networks


def evaluate_shortcut(
    networks: Mapping[str, TrainedModel], test: pd.DataFrame, target: str
) -> tuple[pd.DataFrame, dict[str, dict[str, pd.DataFrame]]]:
    """Notebook 11: return the balanced accuracy of each network with the mark as trained, without, on others.

    And the predictions behind it, network -> test -> table.
    """
    others = [name for name in class_order(test) if name != target]
    tests = {
        "mark as in training": plant_shortcut(test, [target], seed=3),
        "no mark": test,
        "mark on the others": plant_shortcut(test, others, seed=3),
    }
    answers = {name: {how: predict_index(one, part) for how, part in tests.items()} for name, one in networks.items()}
    reached = {
        name: {how: evaluate_predictions(table)["balanced_accuracy"] for how, table in of.items()}
        for name, of in answers.items()
    }
    return pd.DataFrame(reached).rename_axis("balanced accuracy on"), answers


def describe_shortcut(
    reached: pd.DataFrame, answers: Mapping[str, Mapping[str, pd.DataFrame]], *, seed: int = 123
) -> str:
    """Notebook 11: return what the mark does to the balanced accuracy, in sentences."""
    first, second = answers[TRICKED]["mark as in training"], answers[CLEAN]["no mark"]
    gain = compare_predictions(first, second, resamples=200, seed=seed).loc["balanced_accuracy"]
    verdict = {"first": "The mark raises", "second": "The mark lowers"}.get(
        gain["verdict"], "It is inconclusive whether the mark raises"
    )
    of = reached[TRICKED]
    return (
        f"{verdict} the balanced accuracy ({gain['value']:+.2f} against the network that never saw one). Take the "
        f"mark away and {of['mark as in training']:.2f} becomes {of['no mark']:.2f}; move it to the others and "
        f"{of['mark on the others']:.2f} is left."
    )


def draw_marked_maps(
    networks: Mapping[str, TrainedModel], test: pd.DataFrame, target: str, *, cells: int = 12, seed: int = 123
) -> tuple[pd.DataFrame, np.ndarray, dict[str, list[np.ndarray]]]:
    """Notebook 11: return marked test images of the class, what the networks saw, and their maps for it by method."""
    suspects = choose_cells(test[test["label"] == target], cells, seed=seed)
    one = next(iter(networks.values()))
    size = {key: one.metadata["input"][key] for key in ("image_size", "crop")}
    seen = load_part(plant_shortcut(suspects, [target], share=1.0), **size)
    maps = {
        f"{method}, {name}": [draw(image, target) for image in seen]
        for name, network in networks.items()
        for method, draw in ((method, build(network)) for method, build in METHODS.items())
    }
    return suspects, seen, maps


def score_corner(suspects: pd.DataFrame, seen: np.ndarray, maps: Mapping[str, Sequence[np.ndarray]]) -> pd.DataFrame:
    """Notebook 11: return how often each method points into the marked corner, and the share of its sum there.

    The corner is a quarter by a quarter of the image; the last column is its share, what chance would give.
    """
    corner = np.zeros(seen.shape[1:3], dtype=bool)
    corner[corner_box(corner, "top left", 0.25, 0.25)] = True
    scores = score_maps(suspects, maps, [{"corner": corner}] * len(suspects))
    return scores.groupby("method", sort=False)[["pointing", "overlap"]].mean().assign(by_chance=corner.mean())


def plot_marked_maps(
    seen: np.ndarray, maps: Mapping[str, Sequence[np.ndarray]], target: str, *, cells: int = 3
) -> np.ndarray:
    """Notebook 11: show the maps of a few marked images."""
    below = seen.shape[1] // 4  # the mark is bright, the cells are not
    bright = [brighten(image, brightening([image[below:]])) for image in seen[:cells]]
    rows = [[image, *(overlay(image, of[k]) for of in maps.values())] for k, image in enumerate(bright)]
    titles = ["as seen", *(name.replace(", trained", "\ntrained\n") for name in maps)]
    alt = f"Maps of {cells} marked images of the class {target}, by method and network; the mark is at the top left."
    flat = [picture for row in rows for picture in row]
    return plot_images(
        flat, titles, columns=len(titles), rows=[f"{target}, marked"] * cells, factor=1.0, size=1.6, alt=alt
    )


def describe_corner(corner: pd.DataFrame, reached: pd.DataFrame) -> str:
    """Notebook 11: return which method gives the shortcut away, by pointing and by overlap, in a sentence."""
    of = reached[TRICKED]
    if of["mark as in training"] - of["mark on the others"] < 0.1:
        return (
            "This network hardly took up the mark: moving it changes little. There is nothing for a map to give away."
        )
    words = []
    for method in METHODS:
        row, clean = corner.loc[f"{method}, {TRICKED}"], corner.loc[f"{method}, {CLEAN}"]
        found = row["pointing"] > 0.5
        word = "gives the shortcut away" if found else "**misses** it in most images"
        words.append(
            f"{method} {word} (it points to the corner in {row['pointing']:.0%} of the images; without marks in "
            f"training {clean['pointing']:.0%})"
        )
    return "; ".join(words) + "."
