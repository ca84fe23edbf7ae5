"""Which images are the same: the same bytes, copies by their names, and near-duplicates by what is seen."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from allkit.images import ImageError, cached_rows, file_state, in_threads, read_image

SAME_VIEW = 0.999
"""Correlation of two thumbnails above which images are near-duplicates.

Measured on the genuine cells, and held by a test: nearly all copies that were made smaller or brighter, mirrored or
turned by a right angle lie above, and no pair of two subjects does, but for those that C-NMC's list knows to be the
same. Copies that were turned by a few degrees, or cut out anew, are not found.
"""

_SIDE = 32  # px, of a thumbnail

_FEW = 20  # images, of which half may well be copies

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
        return ({"sha256": found} for found in in_threads(_sum_of_image, files, what="reading images"))

    sums = dict(zip(keys.values(), (row["sha256"] for row in cached_rows(list(keys), compute)), strict=True))
    return [sums[path] for path in paths]


def _sum_of_image(path: str) -> str:
    try:
        return file_sum(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be opened: {error.strerror or error}. Check path and rights.") from error


def file_sum(path: str | Path) -> str:
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
    """Return pairs (positions in `paths`): each image that shows nearly the same as others, and the first of these.

    See `SAME_VIEW`. Images that cannot be read are near to none. Where more than half of all images are near to each
    other, they are too alike to say: a warning, and no pairs. Kept in the cache until a file changes.
    """
    key = hashlib.sha256("\n".join(map(file_state, paths)).encode()).hexdigest()
    firsts = cached_rows([f"near {SAME_VIEW}\t{key}"], lambda missing: ({"first": _compare(paths)} for _ in missing))
    first = firsts[0]["first"]
    if len(first) > _FEW and np.unique(first, return_counts=True)[1].max() > len(first) / 2:
        warnings.warn(
            "More than half of the images are too alike to tell near-duplicates from others: check yourself that no "
            "copy of a test image is in training.",
            stacklevel=2,
        )
        return []
    return [(place, other) for place, other in enumerate(first) if other != place]


def _compare(paths: Sequence[str]) -> list[int]:
    """Return for each image the position of the first that it is near to, also through others."""
    views = np.array(list(in_threads(_thumbnail_of_file, paths, what="looking for near-duplicates")))
    first = np.arange(len(paths))
    for start in range(0, len(views), 1024):  # block by block, so that memory stays bounded
        rows, columns = np.nonzero(views[start : start + 1024] @ views.T > SAME_VIEW)
        ends = np.concatenate([rows + start, np.arange(len(first))]), np.concatenate([columns, first])
        graph = coo_array((np.ones(len(ends[0]), np.int8), ends), shape=(len(first), len(first)))
        component = connected_components(graph, directed=False)[1]
        first = np.unique(component, return_index=True)[1][component]
    return first.tolist()


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
