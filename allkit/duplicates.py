"""Which images are the same: the same bytes, copies by their names, and near-duplicates by what is seen."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from allkit.images import ImageError, cached_rows, file_state, in_threads, read_image

SAME_VIEW = 0.999
"""Correlation of two thumbnails above which images are near-duplicates.

Measured on 3,803 genuine cells: of copies that were saved as JPEG, made smaller or brighter, mirrored or turned by a
right angle, 97 of 100 or more lie above; of 7 million pairs none of two subjects does, but for those that C-NMC's list
knows to be the same. Copies that were turned by a few degrees, or cut out anew, are not found.
"""

_SIDE = 32  # px, of a thumbnail

_COPY = re.compile(
    r"(?P<source>.+?)(?: \(\d+\)| - [Cc]opy(?: \(\d+\))?|[ _-]copy\d*|"
    r"(?:[ _-](?:aug(?:mented)?|rot(?:ated?)?|[hv]?flip(?:ped)?|mirror(?:ed)?|bright(?:ness)?|noisy?|blur(?:red)?|zoom|"
    r"shift(?:ed)?|shear|crop(?:ped)?)[ _-]?\w*)+)"
)


def contents_of(paths: Iterable[str]) -> list[str]:
    """Return the SHA-256 sum of each file, hexadecimal; kept in the cache until size or time of a file change."""
    paths = list(paths)
    keys = {f"sha256\t{file_state(path)}": path for path in dict.fromkeys(paths)}

    def compute(missing: list[str]) -> Iterable[dict]:
        files = [keys[key] for key in missing]
        return ({"sha256": found} for found in in_threads(file_sum, files, progress="Reading images"))

    sums = dict(zip(keys.values(), (row["sha256"] for row in cached_rows(list(keys), compute)), strict=True))
    return [sums[path] for path in paths]


def file_sum(path: str) -> str:
    """Return the SHA-256 sum of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copies_by_name(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (copy, source) for each name that says so: x_aug, x_rot90, "x (1)", where x is there too."""
    with_stem = {os.path.splitext(name)[0]: name for name in names}
    pairs = []
    for stem, name in with_stem.items():
        folder, _, last = stem.rpartition("/")
        found = _COPY.fullmatch(last)
        source = f"{folder}/{found['source']}".lstrip("/") if found else ""
        if source in with_stem:
            pairs.append((name, with_stem[source]))
    return pairs


def find_near_duplicates(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Return the pairs of images (positions in `paths`) that show nearly the same, see `SAME_VIEW`.

    Empty, too, where a tenth of all images is near to a single one: then the images are too alike to say. Images that
    cannot be read are near to none. Kept in the cache until a file changes.
    """
    key = hashlib.sha256("\n".join(map(file_state, paths)).encode()).hexdigest()
    row = cached_rows([f"near {SAME_VIEW}\t{key}"], lambda missing: ({"pairs": _compare(paths)} for _ in missing))[0]
    return [(one, other) for one, other in row["pairs"]]


def _compare(paths: Sequence[str]) -> list[tuple[int, int]]:
    views = np.array(list(in_threads(_thumbnail_of_file, paths, progress="Looking for near-duplicates")))
    pairs = []
    for start in range(0, len(views), 1024):
        near = np.argwhere(views[start : start + 1024] @ views.T > SAME_VIEW) + np.array([start, 0])
        pairs += near[near[:, 0] < near[:, 1]].tolist()
    most = np.bincount(np.ravel(pairs).astype(int)).max(initial=0) if pairs else 0
    return pairs if most <= max(20, len(views) / 10) else []


def _thumbnail_of_file(path: str) -> np.ndarray:
    try:
        return thumbnail_of(read_image(path, at_least=4 * _SIDE))
    except ImageError:  # said where it is used
        return np.zeros(_SIDE * _SIDE, np.float32)


def thumbnail_of(image: np.ndarray) -> np.ndarray:
    """Return a small grey view of an image (uint8 RGB), turned so that mirrored and turned copies agree.

    A vector (1024,) float32 of mean 0 and length 1, or of zeros for an image of one colour.
    """
    grey = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    view = np.asarray(grey, np.float32)
    half = _SIDE // 2
    quarters = view.reshape(2, half, 2, half).sum(axis=(1, 3))
    row, column = np.unravel_index(quarters.argmax(), (2, 2))
    view, quarters = (np.flip(each, [axis for axis, k in enumerate((row, column)) if k]) for each in (view, quarters))
    view = view.T if quarters[0, 1] < quarters[1, 0] else view
    view = view.ravel() - view.mean()
    length = float(np.linalg.norm(view))
    return (view / length if length > 1 else np.zeros_like(view)).astype(np.float32)
