"""Changes of a drawn cell that say nothing of leukemia: whoever plants one in one class gives a model a shortcut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from allkit.augment import stamp_mark, zoom
from allkit.synthetic.cells import SyntheticCell

_SMALLER = 0.65
_BLUR = 5  # px


def _with_image(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[SyntheticCell], SyntheticCell]:
    return lambda cell: replace(cell, image=change(cell.image))


def _scaled(image: np.ndarray, factors: tuple[float, float, float]) -> np.ndarray:
    return np.clip(np.rint(image * np.array(factors)), 0, 255).astype(np.uint8)


def _blur(cell: SyntheticCell) -> SyntheticCell:
    """Blur inside the outline only, which stays sharp: cells are cut out after the picture was taken."""
    inside = cell.outline[..., None].astype(np.float32)
    weight = ndimage.gaussian_filter(inside, (_BLUR, _BLUR, 0))
    blurred = ndimage.gaussian_filter(cell.image * inside, (_BLUR, _BLUR, 0)) / np.maximum(weight, 1e-6)
    return replace(cell, image=(np.rint(np.clip(blurred, 0, 255)) * inside).astype(np.uint8))


def _shrink(cell: SyntheticCell) -> SyntheticCell:
    masks = {
        name: zoom(np.repeat(255 * getattr(cell, name)[..., None].astype(np.uint8), 3, axis=2), _SMALLER)[..., 0] > 127
        for name in ("outline", "nucleus", "nucleoli")
    }
    return replace(cell, image=zoom(cell.image, _SMALLER), **masks)


SHORTCUTS: dict[str, Callable[[SyntheticCell], SyntheticCell]] = {
    "mark": _with_image(lambda image: stamp_mark(image, share=0.12)),  # too small to touch a cell
    "brightness": _with_image(lambda image: _scaled(image, (1.35, 1.35, 1.35))),
    "colour": _with_image(lambda image: _scaled(image, (0.8, 1.0, 1.2))),
    "focus": _blur,
    "size": _shrink,
}
"""By name: a mark in a corner, more light, another stain, a lens out of focus, another magnification."""
