"""Which images are the same: the same bytes, copies by their names, and near-duplicates by what is seen."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from allkit.images import ImageError, cached_rows, file_state, in_threads, read_image

SAME_HASH = 44
"""Bits of 256 in which the perceptual hashes of near-duplicates differ at most, at the best of eight orientations.

Measured on the genuine cells, and held by a test: nearly all copies that were turned by a right angle, mirrored,
shifted, saved as JPEG, made smaller or brighter differ in fewer, and no two cells of different subjects do, but for
those that C-NMC's list knows to be the same. Of copies turned by five degrees two thirds are found, by twenty none.
"""

_HASH_SIDE = 16  # a hash has 16 x 16 bits; with 8 x 8 those of different cells are often equal

_SIDE = 128  # px, of what is hashed

_DARK = 15  # JPEG copies of black are not quite 0

_FEW = 20  # images, of which half may well be copies

_COPY = re.compile(
    r"(?P<source>.+?)(?: \(\d+\)| - [Cc]opy(?: \(\d+\))?|[ _-]copy\d*|"
    r"(?:[ _-](?:aug(?:mented)?|rot(?:ated?)?|[hv]?flip(?:ped)?|mirror(?:ed)?|bright(?:ness)?|noisy?|blur(?:red)?|zoom|"
    r"shift(?:ed)?|shear|crop(?:ped)?)[ _-]?\w*)+)"
)


def contents_of(paths: Iterable[str]) -> list[str]:
    """Return the SHA-256 sum of each file, hexadecimal; kept in the cache until size or time of a file change."""
    return _cached_sums(list(paths), "sha256", _sum_of_image, "reading images")


def _cached_sums(paths: list[str], kind: str, sum_of: Callable[[str], str | None], what: str) -> list[str | None]:
    keys = {f"{kind}\t{file_state(path)}": path for path in dict.fromkeys(paths)}

    def compute(missing: list[str]) -> Iterable[dict]:
        return ({kind: found} for found in in_threads(sum_of, [keys[key] for key in missing], what=what))

    sums = dict(zip(keys.values(), (row[kind] for row in cached_rows(list(keys), compute)), strict=True))
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


def pixels_of(paths: Iterable[str]) -> list[str | None]:
    """Return a text for each image that is equal where the pixels are, whatever the file; None: it cannot be read."""
    return _cached_sums(list(paths), "pixels", _sum_of_pixels, "comparing pixels")


def _sum_of_pixels(path: str) -> str | None:
    try:
        image = read_image(path)
    except ImageError:
        return None
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def find_near_duplicates(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs (positions in `paths`): each image that shows nearly the same as others, and the first of these.

    See `SAME_HASH`. Images that cannot be read are near to none. Where more than half of all images are near to each
    other, they are too alike to say: a warning, and no pairs. Kept in the cache until a file changes.
    """
    key = hashlib.sha256("\n".join(map(file_state, paths)).encode()).hexdigest()
    firsts = cached_rows([f"near {SAME_HASH}\t{key}"], lambda missing: ({"first": _compare(paths)} for _ in missing))
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
    hashes = list(in_threads(_hashes_of_file, paths, what="looking for near-duplicates"))
    known = np.array([place for place, each in enumerate(hashes) if each is not None], dtype=int)
    first = np.arange(len(paths))
    if not len(known):
        return first.tolist()
    turned = np.stack([hashes[place] for place in known])
    ends = [np.empty((2, 0), dtype=int)]
    for start in range(0, len(known), 512):  # block by block, so that memory stays bounded
        rows, columns = np.nonzero(differing_bits(turned[start : start + 512], turned[:, 0]) <= SAME_HASH)
        later = columns > rows + start
        ends.append(np.stack([rows[later] + start, columns[later]]))
    ends = known[np.concatenate(ends, axis=1)]
    graph = coo_array((np.ones(ends.shape[1], np.int8), tuple(ends)), shape=(len(paths), len(paths)))
    component = connected_components(graph, directed=False)[1]
    return np.unique(component, return_index=True)[1][component].tolist()


def _hashes_of_file(path: str) -> np.ndarray | None:
    try:
        return hashes_of(read_image(path, at_least=4 * _SIDE))
    except ImageError:  # said where it is used
        return None


def hashes_of(image: np.ndarray) -> np.ndarray | None:
    """Return the perceptual hash (dHash) of an image, uint8 RGB, in all eight orientations: uint64 (8, 4).

    Of the square around what is not black; as it is comes first. None where there is nothing to compare.
    """
    lit = image.max(axis=2) > _DARK
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not len(rows):
        return None
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    side = int(max(height, width))
    left, top = int(columns[0] - (side - width) // 2), int(rows[0] - (side - height) // 2)
    square = Image.fromarray(image).crop((left, top, left + side, top + side)).convert("L")
    grey = square.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    if np.ptp(np.asarray(grey)) < 3:
        return None
    turned = [grey, *(grey.transpose(how) for how in Image.Transpose)]
    bits = np.stack([imagehash.dhash(view, _HASH_SIDE).hash.ravel() for view in turned])
    return np.packbits(bits, axis=1).view(np.uint64)


def differing_bits(turned: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Return in how many bits images differ at their best, (n, m): n in all orientations (n, 8, 4), m as they are."""
    best = np.full((len(turned), len(hashes)), 64 * hashes.shape[1], np.uint16)
    for view in np.swapaxes(turned, 0, 1):
        words = zip(view.T, hashes.T, strict=True)
        bits = sum(np.bitwise_count(one[:, None] ^ other).astype(np.uint16) for one, other in words)
        np.minimum(best, bits, out=best)
    return best
