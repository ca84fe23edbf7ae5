"""Numbers measured on one cell: size, shape, colour, texture.

They describe the data (notebook 01), calibrate the synthetic data set against genuine cells, and are what the
classical baselines learn from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.measure import regionprops

from allkit import AllkitError
from allkit.images import cached_rows, file_state, in_threads, is_foreground, read_image, to_common_size

FEATURES: tuple[str, ...] = (
    "area",
    "bbox_side",
    "eccentricity",
    "solidity",
    "centroid_distance",
    "mean_r",
    "mean_g",
    "mean_b",
    "std_r",
    "std_g",
    "std_b",
    "texture",
    "corr_4",
    "corr_12",
    "background_share",
)
"""Names of the measured numbers, in the order of the columns of `measure_cells`."""

_VERSION = 3  # part of the cache key: raise it when a measurement changes
_RIM = 8  # pixels along the outline that are left out where texture is measured: mixed with background
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's "L"


def cell_mask(image: np.ndarray) -> np.ndarray:
    """Return where the cell is, bool (height, width): the largest part that is not black, holes filled."""
    labels, count = ndimage.label(is_foreground(image))
    if count == 0:
        return np.zeros(image.shape[:2], dtype=bool)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    box = bounding_box(largest)
    largest[box] = ndimage.binary_fill_holes(largest[box])  # of the object's own box: a third of the time
    return largest


def bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the bounding box of a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def measure_cell(image: np.ndarray) -> dict[str, float]:
    """Measure one cell on a black background, uint8 (height, width, 3), and return `FEATURES` by name, all finite.

    - `area`: pixels of the cell; `bbox_side`: larger side of its bounding box, pixels
    - `eccentricity` of the ellipse with the same second moments, 0 (circle) to 1;
      `solidity`: area / area of the convex hull
    - `centroid_distance`: centre of mass from the centre of the image, pixels
    - `mean_r` … `std_b`: mean and standard deviation of each channel inside the cell, grey levels 0–255
    - `texture`: standard deviation of grey after subtracting its Gaussian blur of sigma 8 pixels, grey levels;
      measured farther than 8 pixels from the outline, with the blur taken inside the cell only, so that
      the outline does not count as texture
    - `corr_4`, `corr_12`: correlation of grey with itself 4 and 12 pixels away (right and down), -1 to 1, in
      the same interior
    - `background_share`: share of the image outside the cell, 0 to 1

    A black image has background share 1 and 0 for the rest.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise AllkitError(
            f"cannot measure an image of shape {image.shape} and type {image.dtype}; "
            "pass uint8 (height, width, 3), for example from allkit.images.read_image"
        )
    mask = cell_mask(image)
    if not mask.any():
        return dict.fromkeys(FEATURES, 0.0) | {"background_share": 1.0}
    box = bounding_box(mask)  # everything but the position is measured inside it: three times faster
    inside = image[mask].astype(np.float32)
    values = {"area": int(mask.sum()), "bbox_side": max(mask[box].shape)}
    values |= _measure_shape(mask, mask[box])
    values |= dict(zip(("mean_r", "mean_g", "mean_b"), inside.mean(axis=0), strict=True))
    values |= dict(zip(("std_r", "std_g", "std_b"), inside.std(axis=0), strict=True))
    values |= _measure_texture(image[box].astype(np.float32) @ _GREY, mask[box])
    values["background_share"] = 1 - values["area"] / mask.size
    return {name: float(values[name]) for name in FEATURES}


def _measure_shape(mask: np.ndarray, box: np.ndarray) -> dict[str, float]:
    rows, columns = np.nonzero(mask)
    centre = (np.array(mask.shape) - 1) / 2
    region = regionprops(box.astype(np.uint8))[0]
    return {
        "eccentricity": region.eccentricity,
        "solidity": region.solidity,
        "centroid_distance": np.hypot(rows.mean() - centre[0], columns.mean() - centre[1]),
    }


def _measure_texture(grey: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    weight = ndimage.gaussian_filter(mask.astype(np.float32), 8)
    blurred = ndimage.gaussian_filter(grey * mask, 8) / np.maximum(weight, 1e-6)
    interior = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > _RIM
    interior = interior if interior.any() else mask
    return {
        "texture": (grey - blurred)[interior].std(),
        "corr_4": _correlation_at(grey, interior, 4),
        "corr_12": _correlation_at(grey, interior, 12),
    }


def _correlation_at(grey: np.ndarray, mask: np.ndarray, distance: int) -> float:
    """Correlation over all pairs of cell pixels `distance` apart, to the right and downwards together."""
    pairs = [
        (array[both], other[both])
        for array, other, both in (
            (grey[:-distance], grey[distance:], mask[:-distance] & mask[distance:]),
            (grey[:, :-distance], grey[:, distance:], mask[:, :-distance] & mask[:, distance:]),
        )
    ]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    if first.size < 2 or min(first.std(), second.std()) < 1e-3:  # plain colour: rounding only
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def measure_cells(index: pd.DataFrame) -> pd.DataFrame:
    """Return `measure_cell` of every image of the index: its rows, columns `FEATURES`, float64."""
    if "path" not in index:
        raise AllkitError("the index has no column 'path'; pass what allkit.data.load_index returns")
    rows = measure_files(_measure_file, index["path"])
    return rows.reindex(columns=list(FEATURES)).set_axis(index.index)


def _measure_file(path: str) -> dict[str, float]:
    return measure_cell(to_common_size(read_image(path)))


def measure_files(
    measure: Callable[..., dict], paths: Iterable[str], *, more: Iterable[str] | None = None
) -> pd.DataFrame:
    """Return `measure(path)` of each file as a row, computed in threads and kept on disk until the file changes.

    `measure` is a function at the top of a module. `more` holds one word for each file that it gets as second
    argument, such as how the image is changed.
    """
    tasks = list(zip(paths, strict=True) if more is None else zip(paths, more, strict=True))
    name = [measure.__module__, measure.__qualname__, _VERSION]
    keys = [json.dumps([*name, file_state(path), *words]) for path, *words in tasks]
    task_of = dict(zip(keys, tasks, strict=True))

    def measure_all(missing: list[str]) -> Iterator[dict]:
        return in_threads(lambda key: measure(*task_of[key]), missing, what="measuring cells")

    return pd.DataFrame(cached_rows(keys, measure_all), dtype="float64")
