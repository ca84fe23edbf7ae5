"""Notebook 16: audits of a split made by hand and of the usual ones, what they promise too much, and planted copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from allkit import AllkitError, plots, saving
from allkit.duplicates import SAME_HASH, differing_bits, hashes_of
from allkit.images import centre_crop, read_image
from allkit.judging.audits import Audit, audit_split
from allkit.judging.divisions import USUAL, replay
from allkit.progress import track


def describe_inflation(table: pd.DataFrame, evidence: str) -> str:
    """Notebook 16: return how much the split promises too much, by baseline, and on which evidence."""
    each = [
        f"{baseline} {row['value']:+.3f} ("
        + (f"{row['low']:+.3f} to {row['high']:+.3f}" if row["low"] == row["low"] else "no interval: too few people")
        + f"): {row['verdict']}"
        for baseline, row in table.iterrows()
    ]
    return f"AUC of this split above that of a split by subject, {evidence}: {'; '.join(each)}."


def describe_promise(index: pd.DataFrame, numbers: pd.DataFrame, estimate: Callable[..., pd.DataFrame]) -> str:
    """Notebook 16: return how much a split promises too much by `estimate_inflation`, or why nobody knows."""
    try:
        return describe_inflation(estimate(index, numbers), "measured on these images")
    except AllkitError as reason:
        return f"What it promises too much cannot be estimated. {reason}"


def compare_audits(audits: Mapping[str, Audit]) -> pd.DataFrame:
    """Notebook 16: return verdict and percentage of tested images of each check, audits side by side."""
    of = {name: audit.findings.set_index("check") for name, audit in audits.items()}
    tables = {name: pd.DataFrame({"verdict": t["verdict"], "%": (100 * t["share"]).round(1)}) for name, t in of.items()}
    return pd.concat(tables, axis=1)


def audit_replays(names: Sequence[str] = USUAL) -> pd.DataFrame:
    """Notebook 16: audit the usual ways of public notebooks to split C-NMC, by its list of files; no image is read.

    One row per way: verdict, images tested on, and the percentage of these that training has met in each way.
    """
    rows = {}
    for name in track(list(names), "ways to split", unit="way"):
        found = audit_split(replay(name))
        shared = found.findings.set_index("check")["share"]
        wanted = ["files", "bytes", "subjects", "linked subjects", "source images"]
        rows[name] = {"verdict": found.verdict, "images": found.of("files")["of"], **(100 * shared[wanted]).round(1)}
    return pd.DataFrame(rows).T.rename_axis("way to split")


def describe_replays(table: pd.DataFrame) -> str:
    """Notebook 16: return how many of the ways leak, and how, in sentences."""
    leak, people = table[table["verdict"] == "leak"], table["subjects"] > 50
    linked = leak[(leak["subjects"] == 0) & (leak["linked subjects"] > 0)]
    clean = ", ".join(f"`{name}`" for name in table.index[table["verdict"] != "leak"])
    return (
        f"**{len(leak)} of {len(table)}** ways leak. In {people.sum()} of them more than half of the test cells are of "
        f"subjects who were trained on. {len(linked)} keep every named subject on one side, and still leak: some "
        f"names share images. No leak by the list of files: {clean or 'none'}."
    )


def plot_distances(distances: Mapping[str, Sequence[int]], *, ax: Axes | None = None) -> Axes:
    """Notebook 16: draw how far the perceptual hashes of copies and of other cells are apart, and the threshold."""
    ax = plots.new_axes(ax, 6.4, 3.2)
    for (name, values), colour in zip(distances.items(), plots.PALETTE.values(), strict=False):
        bins = np.arange(0, max(max(of) for of in distances.values()) + 3, 2) - 0.5
        ax.hist(values, bins, weights=np.full(len(values), 100 / len(values)), alpha=0.6, color=colour, label=name)
    ax.axvline(SAME_HASH + 0.5, color="0.3", label=f"at most {SAME_HASH}: near-duplicates")
    ax.set(xlabel="bits that differ, at the best of eight orientations", ylabel="pairs (%)")
    ax.legend()
    ends = "; ".join(f"{name} from {min(of)} to {max(of)}" for name, of in distances.items())
    return plots.describe(ax, f"Histogram of differing bits: {ends}; near-duplicates differ in at most {SAME_HASH}.")


def plant_copies(index: pd.DataFrame, folder: Path, *, copies: int = 3, seed: int = 123) -> pd.DataFrame:
    """Notebook 16: put copies of training images into the test part: turned, saved as JPEG, under new names.

    They are given to somebody who is tested on, so that neither name nor subject nor bytes betray them. The column
    `copy of` says the truth.
    """
    rows = index.assign(**{"copy of": None})
    chosen = rows[rows["given"] == "train"].sample(copies, random_state=seed)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, row in enumerate(chosen.to_dict("records")):
        same = rows[(rows["given"] == "test") & (rows["label"] == row["label"])].iloc[0]
        path = folder / f"cell-{number}.jpg"
        image = Image.fromarray(read_image(row["path"])).transpose(Image.Transpose.ROTATE_90)
        image.save(path, quality=85)
        made.append({**same, "path": str(path), "name": path.name, "copy of": row["path"]})
    return pd.concat([rows, pd.DataFrame(made)], ignore_index=True)


def compare_hashes(planted: pd.DataFrame, *, cells: int = 300, seed: int = 123) -> dict[str, list[int]]:
    """Notebook 16: return in how many bits copies differ from their originals, and different cells from each other."""
    copies = planted[planted["copy of"].notna()]
    others = planted[planted["copy of"].isna()].drop_duplicates("group")
    others = others.sample(min(cells, len(others)), random_state=seed)["path"]
    made = [hashes_of(read_image(path)) for path in copies["path"]]
    source = [hashes_of(read_image(path)) for path in copies["copy of"]]
    known = np.stack([each for each in (hashes_of(read_image(path)) for path in others) if each is not None])
    bits = differing_bits(known, known[:, 0])
    return {
        "copies and their originals": np.diagonal(differing_bits(np.stack(source), np.stack(made)[:, 0])).tolist(),
        "different cells": bits[np.triu_indices(len(bits), 1)].tolist(),
    }


def describe_hashes(distances: Mapping[str, Sequence[int]]) -> str:
    """Notebook 16: return how far copies and other cells are from the threshold, in a sentence."""
    copies, others = distances.values()
    below = sum(bits <= SAME_HASH for bits in others)
    return (
        f"Of 256 bits the copies differ in at most {max(copies)} from their originals, and {len(others):,} pairs of "
        f"different cells in {min(others)} or more. At most {SAME_HASH} count as a near-duplicate: {below:,} of these "
        "pairs would be taken for one."
    )


def plot_copies(planted: pd.DataFrame) -> np.ndarray:
    """Notebook 16: show each original above its copy."""
    copies = planted[planted["copy of"].notna()]
    images = [centre_crop(read_image(path), 300) for column in ("copy of", "path") for path in copies[column]]
    alt = f"{len(copies)} cells, and below each the same cell turned by a right angle."
    return plots.plot_images(images, columns=len(copies), rows=["original", "copy"], alt=alt)


def save_split(index: pd.DataFrame, file: Path) -> Path:
    """Notebook 16: write a split as a list, as others would publish it: path and part; return the file."""
    with saving(file) as temporary:
        index[["path", "given"]].rename(columns={"given": "part"}).to_csv(temporary, index=False)
    return file
