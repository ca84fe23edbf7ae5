"""On which images of C-NMC 2019 a printed result can have been measured, and whether its data are as stated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd

from allkit.cnmc import load_manifest
from allkit.data import link_groups
from allkit.evaluate import wilson_interval
from allkit.judging.papers import Paper, Result, printed_measures, supports_of
from allkit.judging.printed import (
    CONFIRMED,
    CONTRADICTED,
    OPEN,
    fitting_matrices,
    search_classes,
    subset_counts,
    verdict_row,
)

SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
"""Usual shares of a test part, tried where a paper prints no size."""

BOTH = "training + preliminary"

SUBJECT_SHARE = 0.12
"""How alike being right is among cells of one subject of a class, 0–1: an assumption, an intraclass correlation.

A test computes it on genuine cells: near this for a frozen MobileNet with logistic regression, tested by subject, and
larger for one that sees a few measured numbers.
"""

_NAMES = {"training": ["train"], "preliminary": ["prelim"], BOTH: ["train", "prelim"]}

_NEAR = 0.1  # sets of subjects within 10 % of a size are what its rarity is judged among


@cache
def known_parts() -> pd.DataFrame:
    """Return images by class, images, and subjects of the labelled parts of the list, and of both together."""
    manifest, rows = load_manifest(), {}
    for name, parts in _NAMES.items():
        part = manifest[manifest["part"].isin(parts)]
        counts = part["label"].value_counts()
        rows[name] = [counts["ALL"], counts["HEM"], len(part), part["subject"].nunique()]
    return pd.DataFrame(rows, ["ALL", "HEM", "images", "subjects"]).T


@cache
def subject_sizes(pool: str) -> dict[str, list[int]]:
    """Return for each class the images of each subject of a known part; subjects who share an image are one."""
    manifest = load_manifest()
    rows = manifest[manifest["part"].isin(_NAMES[pool])]
    group = link_groups([*zip(rows["subject"], rows["sha256"], strict=True)], set(rows["subject"]))
    sizes = rows.groupby(["label", rows["subject"].map(group)]).size()
    return {label: sizes[label].tolist() for label in ("ALL", "HEM")}


def final_images() -> int:
    """Return how many images the final test part has, whose labels were never published."""
    return int((load_manifest()["part"] == "final").sum())


def usual_part(images: int) -> str:
    """Return in words which usual part of the labelled images has exactly so many, "" where none has."""
    for name, total in known_parts()["images"].items():
        for share in SHARES:
            test = held_out(share, total)
            for size, part in ((test, share), (total - test, 1 - share)):
                if size == images:
                    return f"scikit-learn takes exactly that for {part:.0%} of {name} ({total:,})"
    return ""


def held_out(share: float, images: int) -> int:
    """Return how many images scikit-learn holds out for this share: it rounds up."""
    return math.ceil(share * images - 1e-9)


def candidate_parts(paper: Paper, result: Result) -> dict[str, tuple[int, int | None]]:
    """Return name -> (images, positives) of the parts that a result may be about; positives None: not known.

    What is printed decides; where nothing is, the usual parts of the labelled images are tried.
    """
    parts, first = known_parts(), "HEM" if paper.positive == "HEM" else "ALL"
    if supports_of(paper, result):
        p, n = supports_of(paper, result)[0]
        return {"the part as printed": (p + n, p)}
    if result.part == "preliminary" and paper.listed:
        return {"preliminary": (int(parts.at["preliminary", "images"]), int(parts.at["preliminary", first]))}
    if result.part == "final" and paper.listed:
        return {"final": (final_images(), None)}
    stated = getattr(paper.split, result.part, None) if result.part in ("training", "validation", "test") else None
    if stated:
        return {"the size as printed": (stated, None)}
    pools = {"the stated images": paper.data.images} if paper.data.images else {}
    if not pools and paper.listed:
        pools = parts["images"].to_dict()
    return {name: (size, None) for name, size in _usual_sizes(pools, paper.split.fractions, result.part).items()}


def _usual_sizes(pools: dict[str, int], fractions: list[float], part: str) -> dict[str, int]:
    """Return name -> images of the parts that stated shares give, rounded both ways; else of those that are usual."""
    sizes = {}
    for name, total in pools.items():
        if fractions:
            share = fractions[{"training": 0, "validation": 1}.get(part, -1)]
            sizes[f"{share:.0%} of {name}"] = math.floor(share * total + 1e-9)
            sizes[f"{share:.0%} of {name}, rounded up"] = held_out(share, total)
        else:
            for share in SHARES:
                kept = part == "training"
                size = total - held_out(share, total) if kept else held_out(share, total)
                sizes[f"{1 - share if kept else share:.0%} of {name}"] = size
    return sizes if fractions else sizes | {f"all of {name}": total for name, total in pools.items()}


def possible_matrices(paper: Paper, result: Result, *, cut: bool = False) -> pd.DataFrame:
    """Return every confusion matrix that prints as a result, over the parts that it may be about.

    Columns part, p, n (images of each class), tp, tn. Where only the number of images is known, classes are tried as
    a stratified split gives them, then all others if the digits are many enough to tell counts apart.
    """
    measures, rows = printed_measures(paper, result), []
    for name, (total, positives) in candidate_parts(paper, result).items() if measures else ():
        if positives is None and len(measures) < 2:
            continue  # one number on unknown classes leaves nearly all
        tried = stratified_counts(total, paper.positive) if positives is None else [positives]
        found = [
            (p, total - p, *pair)
            for p in tried
            for pair in fitting_matrices(measures, p, total - p, cut=cut).tolist()
        ]  # fmt: skip
        if positives is None and not found and not cut:
            found = search_classes(measures, total)
        rows += [(name, *one) for one in found if result.right in (None, one[2] + one[3])]
    return pd.DataFrame(rows, columns=["part", "p", "n", "tp", "tn"])


def stratified_counts(total: int, positive: str = "ALL") -> list[int]:
    """Return how many of `total` images are positive where a part has the classes of a known one, rounded both ways."""
    parts, first = known_parts(), "HEM" if positive == "HEM" else "ALL"
    exact = (parts[first] / parts["images"]).to_numpy() * total
    return sorted({*np.floor(exact).astype(int).tolist(), *np.ceil(exact).astype(int).tolist()})


def sets_of_subjects(images: dict[str, int], pool: str) -> dict[str, float]:
    """Return for each class which share of the sets of whole subjects near this size has exactly so many images.

    0: no set of whole subjects of the pool has. Near is within 10 %.
    """
    shares = {}
    for label, count in images.items():
        ways = subset_counts(subject_sizes(pool)[label])
        near = ways[max(0, math.floor((1 - _NEAR) * count)) : math.ceil((1 + _NEAR) * count) + 1].sum()
        shares[label] = float(ways[count] / near) if count < len(ways) and near else 0.0
    return shares


def effective_images(images: dict[str, int], pool: str, share: float) -> float:
    """Return how many independent images these are worth if cells of one subject are alike.

    `share` is the intraclass correlation. Every subject of the pool is taken to be in the part with the same share of
    its cells, as in a split by image; whole subjects would be worth less.
    """
    worth = 0.0
    for label, count in images.items():
        sizes = np.array(subject_sizes(pool)[label]) * count / sum(subject_sizes(pool)[label])
        worth += count / (1 + share * max(0.0, (sizes**2).sum() / sizes.sum() - 1))
    return worth


def images_of(paper: Paper, result: Result, matrices: pd.DataFrame) -> dict[str, int]:
    """Return the images of each class of a result, where print and digits leave one answer, else {}.

    `matrices` are those of `possible_matrices`.
    """
    pairs = supports_of(paper, result) or list(dict.fromkeys(zip(matrices["p"], matrices["n"], strict=True)))
    return dict(zip(paper.classes, map(int, pairs[0]), strict=True)) if len(pairs) == 1 else {}


def accuracy_interval(paper: Paper, result: Result, matrices: pd.DataFrame) -> dict[str, float] | None:
    """Return the accuracy of the matrices that fit, with 95 % intervals; None where the images are not known.

    `low` and `high` as if cells were independent; `low_subjects` and `high_subjects` where `SUBJECT_SHARE` of being
    right is common to the cells of a subject, so that `images` are `worth` fewer. `constant`: a constant answer's.
    """
    images = images_of(paper, result, matrices)
    if set(images) != {"ALL", "HEM"} or matrices.empty or not paper.listed:
        return None
    total, pool = sum(images.values()), "preliminary" if result.part == "preliminary" else "training"
    value = float((matrices["tp"] + matrices["tn"]).mean() / total)
    worth = effective_images(images, pool, SUBJECT_SHARE)
    (low, high), wide = (
        wilson_interval(round(value * total), total),
        wilson_interval(round(value * worth), round(worth)),
    )
    found = {"value": value, "low": low, "high": high, "low_subjects": wide[0], "high_subjects": wide[1]}
    return found | {"images": total, "worth": worth, "constant": max(images.values()) / total}


def check_data(paper: Paper) -> Iterator[dict[str, str]]:
    """Yield a row of verdict for the images, classes and subjects that a paper says its data have."""
    yield from _check_subjects(paper)
    parts, classes = known_parts(), paper.data.classes
    images = paper.data.images or sum(classes.values())
    if not images or not paper.listed:
        return
    same = parts[parts["images"] == images]
    same = same[[all(row.get(name) == count for name, count in classes.items()) for _, row in same.iterrows()]]
    listed = "; ".join(f"{name} {row.images:,} ({row.ALL:,} ALL, {row.HEM:,} HEM)" for name, row in parts.iterrows())
    hint = usual_part(images)
    found = f"that is {same.index[0]} in the list of files" if len(same) else f"the list has {listed}"
    if not len(same):
        found += f"; {hint}, so a part may be meant" if hint else "; a selection would have to be described"
    stated = ", ".join([f"{images:,} images", *(f"{count:,} {name}" for name, count in classes.items())])
    yield verdict_row(
        "How many images the data have", paper.data.where, stated, found, CONFIRMED if len(same) else CONTRADICTED
    )


def _check_subjects(paper: Paper) -> Iterator[dict[str, str]]:
    parts = known_parts()["subjects"]
    for claim, count, where in (
        ("How many subjects the data have", paper.data.subjects, paper.data.where),
        ("How many subjects were tested on", paper.split.test_subjects, paper.split.where),
    ):
        if count and paper.listed:
            same = parts.index[parts == count]
            listed = ", ".join(f"{name} {number}" for name, number in parts.items())
            found = f"that is {same[0]} in the list of files" if len(same) else f"the list names {listed}"
            whole = claim.endswith("have") or count > parts.max()
            yield verdict_row(
                claim, where, f"{count} subjects", found, CONFIRMED if len(same) else CONTRADICTED if whole else OPEN
            )


def check_split(paper: Paper) -> Iterator[dict[str, str]]:
    """Yield a row of verdict for the sizes that a paper says its parts have."""
    split, known, total = paper.split, known_parts()["images"], sum(paper.split.sizes)
    if split.sizes and len(split.sizes) == len(split.fractions):
        shares = [size / total for size in split.sizes]
        fits = np.allclose(shares, split.fractions, rtol=0, atol=0.005)  # printed without decimals
        whole = "".join(f", all of {name}" for name in known.index[known == total])
        found = f"{' / '.join(f'{100 * share:.1f}' for share in shares)} % of {total:,}{whole}"
        stated = f"{split.shares} %: {' / '.join(f'{size:,}' for size in split.sizes)}"
        yield verdict_row(
            "The sizes are the stated shares", split.where, stated, found, CONFIRMED if fits else CONTRADICTED
        )
    elif split.test and paper.listed:
        same, most = known.index[known == split.test], paper.data.images or known.max()
        found = (
            f"that is {same[0]} in the list of files" if len(same) else usual_part(split.test) or f"of {most:,} in all"
        )
        verdict = CONFIRMED if len(same) else CONTRADICTED if split.test > most else OPEN
        yield verdict_row("How many images were tested on", split.where, f"{split.test:,} images", found, verdict)
