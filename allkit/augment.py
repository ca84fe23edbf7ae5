"""Augmentation: rotation by the paper's equations, balancing a class, augmenting training batches.

In the order of the lesson (paper, section III.B.1): single images changed one way at a time; single images
changed to find out what a network uses; single images as another laboratory would show them (stain, light, focus,
scale); an index filled up with copies until its classes are equal in number; batches changed at random while a
network trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage
from skimage.color import hed_from_rgb, rgb2gray, rgb_from_hed
from skimage.filters import sobel

from allkit import AllkitError
from allkit.images import is_foreground, load_images


def rotate_by_equations(
    image: np.ndarray,
    angle: float,
    *,
    centre: tuple[float, float] | None = None,
    interpolation: str = "nearest",
    fill: float | Sequence[float] = 0,
) -> np.ndarray:
    """Rotate an image by the equations of the paper (section III.B.1), by inverse mapping.

    The paper sends the pixel (i, j) = (row, column) to ::

        i' = (i - ci) cos(a) - (j - cj) sin(a) + ci
        j' = (i - ci) sin(a) + (j - cj) cos(a) + cj

    Rows count downwards, so a positive angle (degrees) turns counter-clockwise on the screen, and -90, the paper's
    Fig. 4, clockwise. Forward mapping (colour every (i', j') that the equations reach, see `rotate_forward`) leaves
    holes. Inverse mapping solves the equations for (i, j): every pixel of the *result* learns where it comes from.

    Takes and returns uint8 (h, w) or (h, w, 3). `centre` is (ci, cj), the middle if None. "nearest" copies a pixel,
    "bilinear" weighs the four around a point; `fill` (0-255) is painted where there is no original.
    """
    height, width = image.shape[:2]
    ci, cj = ((height - 1) / 2, (width - 1) / 2) if centre is None else centre
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    i_new, j_new = np.mgrid[0:height, 0:width]
    # The paper's equations, solved for (i, j). Rounding removes cos(90 degrees) = 6e-17, which would push
    # pixels of the border outside.
    i = np.round((i_new - ci) * cos + (j_new - cj) * sin + ci, 9)
    j = np.round(-(i_new - ci) * sin + (j_new - cj) * cos + cj, 9)
    if interpolation == "nearest":
        value = _pixel(image, np.floor(i + 0.5), np.floor(j + 0.5))
    elif interpolation == "bilinear":
        value = _between_pixels(image, i, j)
    else:
        raise AllkitError(f"Unknown interpolation {interpolation!r}: use 'nearest' or 'bilinear'.")
    inside = (i >= 0) & (i <= height - 1) & (j >= 0) & (j <= width - 1)
    inside = inside.reshape(inside.shape + (1,) * (image.ndim - 2))
    return np.where(inside, np.rint(value), fill).astype(np.uint8)


def _pixel(image: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Values at whole rows and columns; points outside take the nearest pixel of the border."""
    height, width = image.shape[:2]
    return image[np.clip(i, 0, height - 1).astype(int), np.clip(j, 0, width - 1).astype(int)]


def _between_pixels(image: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Bilinear interpolation: the four pixels around (i, j), each weighted by its nearness."""
    top, left = np.floor(i), np.floor(j)
    shape = i.shape + (1,) * (image.ndim - 2)
    down, right = (i - top).reshape(shape), (j - left).reshape(shape)
    above = (1 - right) * _pixel(image, top, left) + right * _pixel(image, top, left + 1)
    below = (1 - right) * _pixel(image, top + 1, left) + right * _pixel(image, top + 1, left + 1)
    return (1 - down) * above + down * below


def rotate_forward(image: np.ndarray, angle: float) -> np.ndarray:
    """Rotate by forward mapping, to show the black holes it leaves (see `rotate_by_equations`, the right way)."""
    height, width = image.shape[:2]
    ci, cj = (height - 1) / 2, (width - 1) / 2
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    i, j = np.mgrid[0:height, 0:width]
    i_new = np.rint((i - ci) * cos - (j - cj) * sin + ci).astype(int)
    j_new = np.rint((i - ci) * sin + (j - cj) * cos + cj).astype(int)
    inside = (i_new >= 0) & (i_new < height) & (j_new >= 0) & (j_new < width)
    result = np.zeros_like(image)
    result[i_new[inside], j_new[inside]] = image[inside]
    return result


def flip(image: np.ndarray, direction: str = "horizontal") -> np.ndarray:
    """Mirror an image (h, w, …) without resampling: "horizontal" swaps left and right, "vertical" top and bottom."""
    if direction not in ("horizontal", "vertical"):
        raise AllkitError(f"Unknown direction {direction!r}: use 'horizontal' or 'vertical'.")
    return np.ascontiguousarray(image[:, ::-1] if direction == "horizontal" else image[::-1])


def zoom(image: np.ndarray, factor: float = 1.3) -> np.ndarray:
    """Scale an image, uint8 (h, w, 3), about its middle, bilinearly; below 1 it gets a black rim, above 1 it is cut."""
    return transform_image(image, factor=factor)


def crop(image: np.ndarray, share: float = 0.7) -> np.ndarray:
    """Cut out the middle, `share` (0-1) of height and width, and enlarge it to the size of the original.

    Takes and returns uint8 (h, w, 3).
    """
    if not 0 < share <= 1:
        raise AllkitError(f"share is {share}, but a window is more than 0 and at most 1 of the image.")
    height, width = image.shape[:2]
    window_h, window_w = max(1, round(height * share)), max(1, round(width * share))
    top, left = round((height - window_h) * 0.5), round((width - window_w) * 0.5)
    window = Image.fromarray(image[top : top + window_h, left : left + window_w])
    return np.asarray(window.resize((width, height), Image.Resampling.BILINEAR))


def add_noise(image: np.ndarray, spread: float = 15.0, *, seed: int = 0) -> np.ndarray:
    """Add Gaussian noise to every pixel and channel; `spread` is its standard deviation in grey levels (0-255)."""
    noise = np.random.default_rng(seed).normal(0.0, spread, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def extract_edges(image: np.ndarray) -> np.ndarray:
    """Show how steeply brightness changes (Sobel), scaled to 0-255: the edges that the paper names beside rotation.

    Takes and returns uint8 (h, w, 3); colour is lost.
    """
    strength = sobel(rgb2gray(image))
    strength = strength / max(strength.max(), 1e-9)  # a plain image has no edges, and no division by 0
    return np.repeat(np.rint(255 * strength).astype(np.uint8)[:, :, None], 3, axis=2)


AUGMENTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rotation": lambda image: rotate_by_equations(image, -90),
    "horizontal flip": lambda image: flip(image, "horizontal"),
    "vertical flip": lambda image: flip(image, "vertical"),
    "zoom": zoom,
    "crop": crop,
    "noise": add_noise,
    "edges": extract_edges,
}
"""The changes that the paper names (section III.B.1); each takes uint8 (h, w, 3) and returns the same."""


def background_colour(image: np.ndarray) -> np.ndarray:
    """Median colour of the outermost pixels: what to fill with, so that a turned image shows no corners.

    Takes (h, w, 3), or (n, h, w, 3) for one colour per image; returns float32 (3,) or (n, 3), 0-255. It is black for
    the cells of C-NMC.
    """
    rim = [image[..., 0, :, :], image[..., -1, :, :], image[..., :, 0, :], image[..., :, -1, :]]
    return np.median(np.concatenate(rim, axis=-2), axis=-2).astype(np.float32)


def transform_image(
    image: np.ndarray,
    *,
    angle: float = 0.0,
    factor: float = 1.0,
    shift: Sequence[float] = (0.0, 0.0),
    centre: Sequence[float] | None = None,
    fill: float | Sequence[float] = 0,
) -> np.ndarray:
    """Rotate and zoom an image, uint8 (h, w, 3), about a point and shift it, in one bilinear interpolation.

    `angle` in degrees, counter-clockwise; a `factor` above 1 enlarges; `shift` in pixels down and to the right;
    `centre` row and column of the point, the middle if None; `fill` a grey level or a colour, 0-255.
    """
    if factor <= 0:
        raise AllkitError(f"The zoom factor is {factor}, but it must be above 0.")
    height, width = image.shape[:2]
    cos, sin = np.cos(np.radians(angle)) / factor, np.sin(np.radians(angle)) / factor
    # Pillow asks, like `rotate_by_equations`, where a pixel of the result comes from, but with x (column)
    # before y (row) and pixels centred on half numbers, so that the middle is at half the width.
    y, x = (height / 2, width / 2) if centre is None else (centre[0] + 0.5, centre[1] + 0.5)
    y_new, x_new = y + shift[0], x + shift[1]
    to_x = (cos, -sin, x - cos * x_new + sin * y_new)
    to_y = (sin, cos, y - sin * x_new - cos * y_new)
    colour = tuple(round(float(level)) for level in np.broadcast_to(fill, 3))
    bilinear = Image.Resampling.BILINEAR
    moved = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, (*to_x, *to_y), bilinear, fillcolor=colour
    )
    return np.array(moved)


CORNERS = ("top left", "top right", "bottom left", "bottom right")


def corner_box(image: np.ndarray, corner: str, height: float, width: float) -> tuple[slice, slice]:
    """Return rows and columns of a corner of an image or map, `height` and `width` as shares of its sides, 0-1."""
    if corner not in CORNERS:
        raise AllkitError(f"Unknown corner {corner!r}: use {', '.join(map(repr, CORNERS))}.")
    rows, columns = max(1, round(image.shape[0] * height)), max(1, round(image.shape[1] * width))
    return (
        slice(0, rows) if corner.startswith("top") else slice(image.shape[0] - rows, None),
        slice(0, columns) if corner.endswith("left") else slice(image.shape[1] - columns, None),
    )


def stamp_mark(image: np.ndarray, corner: str = "top left", *, share: float = 0.2) -> np.ndarray:
    """Put a green square, which no stain has, into a corner of a copy: a shortcut for a network to find.

    The image is uint8 (h, w, 3), `corner` one of `CORNERS`, `share` (0-1) the side of the square as a share of the
    image's.
    """
    marked = image.copy()
    marked[corner_box(image, corner, share, share)] = (40, 200, 40)
    return marked


def plant_shortcut(part: pd.DataFrame, labels: Sequence[str], *, share: float = 0.9, seed: int = 0) -> pd.DataFrame:
    """Have this share of the images of some classes stamped top left when loaded (`stamp_mark`): a shortcut.

    Returns the rows, which must not be balanced, with the column `augmentation`, "mark:top left" or "".
    """
    if "augmentation" in part and (part["augmentation"] != "").any():
        raise AllkitError("These images are changed already (column 'augmentation'): mark the originals.")
    chosen = part["label"].isin(labels).to_numpy() & (np.random.default_rng(seed).random(len(part)) < share)
    return part.assign(augmentation=np.where(chosen, "mark:top left", ""))


def change_stain(image: np.ndarray, haematoxylin: float = 1.0, eosin: float = 1.0) -> np.ndarray:
    """Stain a cell more (above 1) or less strongly: factors on the optical density of both dyes, uint8 (h, w, 3).

    The dyes are those of scikit-image, which blood films have similar, not equal, ones of.
    """
    return _inside_cell(image, _undyed(_dyes(image) * (haematoxylin, eosin, 1.0)))


def change_light(image: np.ndarray, gain: float = 1.0, warmth: float = 0.0) -> np.ndarray:
    """Multiply an image by a `gain`, and red by 1 + `warmth`, blue by 1 - `warmth`: another lamp, uint8 (h, w, 3)."""
    return _inside_cell(image, image * (gain * np.array([1 + warmth, 1.0, 1 - warmth])))


def blur(image: np.ndarray, share: float) -> np.ndarray:
    """Put a cell out of focus: a Gaussian blur whose sigma is a `share` of the image's width, uint8 (h, w, 3).

    Black does not flow into the cell: it was cut out after the picture was taken.
    """
    sigma = share * image.shape[1]
    weight = is_foreground(image).astype(np.float32)
    smooth = ndimage.gaussian_filter(image * weight[..., None], (sigma, sigma, 0))
    return _inside_cell(image, smooth / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-6)[..., None])


def measure_colours(images: Iterable[np.ndarray]) -> np.ndarray:
    """Return mean and spread of the density of three dyes inside the cells, averaged over images: float (6,)."""
    found = [_dyes(image)[is_foreground(image)] for image in images if is_foreground(image).any()]
    return np.mean([[*pixels.mean(axis=0), *pixels.std(axis=0)] for pixels in found], axis=0)


def match_colours(image: np.ndarray, colours: Sequence[float]) -> np.ndarray:
    """Give a cell the mean and spread that `measure_colours` found elsewhere, uint8 (h, w, 3) (as Reinhard et al.)."""
    inside = is_foreground(image)
    if not inside.any():
        return image
    dyes, (mean, spread) = _dyes(image), np.reshape(colours, (2, 3))
    found = dyes[inside]
    return _inside_cell(image, _undyed((dyes - found.mean(axis=0)) / (found.std(axis=0) + 1e-6) * spread + mean))


def _dyes(image: np.ndarray) -> np.ndarray:
    """Return the optical density of haematoxylin, eosin and what is left, float (h, w, 3)."""
    return -np.log((image + 1.0) / 256) @ hed_from_rgb


def _undyed(dyes: np.ndarray) -> np.ndarray:
    return 256 * np.exp(-dyes @ rgb_from_hed) - 1


def _inside_cell(image: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Return the changed levels where the image shows something, and its black background as it was."""
    rounded = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
    return np.where(is_foreground(image)[..., None], rounded, image)


_SETTINGS: dict[str, Callable[..., np.ndarray]] = {
    "stain": change_stain,
    "light": change_light,
    "blur": blur,
    "colours": lambda image, *colours: match_colours(image, colours),
}
"""What a laboratory or a remedy changes, by the verb of `apply_augmentation`."""


def balance(index_part: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Fill every class up to the largest with rotated, flipped and zoomed copies (paper, section III.B.1).

    No image is made here: a copy is a further row for the same file, after all originals, and the column
    `augmentation` says how to make it ("" for an original, else for instance "rotate:-90", "flip:horizontal" or
    "rotate:37|zoom:1.1", see `apply_augmentation`). The images of a class are copied in turn, so no two differ by more
    than one copy, and no two copies of an image are the same.

    Balance the training part only. Copies in the validation or test part would count some cells twice, and
    copies made before the split land on both sides of it (`allkit.splits.augment_then_split`).
    """
    _check_balanceable(index_part)
    rng = np.random.default_rng(seed)
    originals = index_part.assign(augmentation="")
    counts = originals["label"].value_counts()
    parts = [originals]
    for label in sorted(counts.index):
        rows = originals[originals["label"] == label]
        missing = int(counts.max() - len(rows))
        # Whole shuffled rounds through the class: every image is copied before one is copied again.
        rounds = [rng.permutation(len(rows)) for _ in range(-(-missing // len(rows)))]
        copies = rows.iloc[np.concatenate(rounds)[:missing]] if missing else rows.iloc[:0]
        used: dict[str, set[str]] = {}
        specs = [_new_copy(rng, used.setdefault(path, set())) for path in copies["path"]]
        parts.append(copies.assign(augmentation=specs))
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _check_balanceable(index_part: pd.DataFrame) -> None:
    if index_part.empty:
        raise AllkitError("There is nothing to balance: the training part has no rows.")
    if index_part["label"].isna().any():
        raise AllkitError("Some rows have no label. Balance the labelled training part only.")
    if "part" in index_part and (index_part["part"] != "train").any():
        raise AllkitError("Only training images may be balanced: keep the rows with part 'train'.")
    if "given" in index_part and index_part["given"].isin(["validation", "test"]).any():
        raise AllkitError(
            "Some rows belong to a validation or test part that the data come with: balance the training part."
        )
    if "augmentation" in index_part and (index_part["augmentation"] != "").any():
        raise AllkitError("This index is balanced already: balance the originals once.")


def _new_copy(rng: np.random.Generator, used: set[str]) -> str:
    """Draw how to make a copy that `used`, the copies of the same image so far, does not hold."""
    exact = ("rotate:-90", "rotate:90", "rotate:180", "flip:horizontal", "flip:vertical")
    while True:
        free = f"rotate:{rng.integers(1, 360)}|zoom:{rng.integers(90, 111) / 100:g}"
        spec = str(rng.choice([*exact, free, free, free]))
        if spec not in used:
            used.add(spec)
            return spec


def apply_augmentation(image: np.ndarray, spec: str) -> np.ndarray:
    """Make the copy that a row of a balanced index names, from uint8 (h, w, 3).

    `spec` is "" or steps joined by "|": "flip:horizontal", "flip:vertical", "rotate:<degrees, counter-clockwise>",
    "zoom:<factor>", "stain:<haematoxylin>,<eosin>", "light:<gain>,<warmth>", "blur:<share>" (see `change_stain`,
    `change_light`, `blur`), "colours:<six numbers>" (see `match_colours`), "mark:<corner>" (see `stamp_mark`). Flips
    come first, then rotation and zoom together in one interpolation, then what concerns colour and focus, in the order
    given, then marks. Flips, and right angles of square images, move pixels without resampling. Corners are filled
    with the colour of the background (`background_colour`).
    """
    angle, factor, settings, corners = 0.0, 1.0, [], []
    for step in filter(None, spec.split("|")):
        verb, _, value = step.partition(":")
        try:
            if verb == "flip":
                image = flip(image, value)
            elif verb == "rotate":
                angle += float(value)
            elif verb == "zoom":
                factor *= float(value)
            elif verb in _SETTINGS:
                settings.append((_SETTINGS[verb], [float(number) for number in value.split(",")]))
            elif verb == "mark":
                corners.append(value)
            else:
                raise ValueError(verb)
        except ValueError:
            words = ", ".join(f"{word}:" for word in ("flip", "rotate", "zoom", *_SETTINGS))
            raise AllkitError(f"Cannot read {step!r} of {spec!r}: use {words} or mark:.") from None
    if factor == 1.0 and angle % 90 == 0 and (angle % 180 == 0 or image.shape[0] == image.shape[1]):
        image = np.ascontiguousarray(np.rot90(image, int(angle // 90) % 4))
    else:
        image = transform_image(image, angle=angle, factor=factor, fill=background_colour(image))
    for change, numbers in settings:
        image = change(image, *numbers)
    for corner in corners:
        image = stamp_mark(image, corner)
    return image


def load_part(rows: pd.DataFrame, *, image_size: int, crop: int | None = None) -> np.ndarray:
    """Load the images of some rows, each file once, and make the copies that a balanced part names.

    Returns uint8 (rows, image_size, image_size, 3); see `allkit.images.load_images`.
    """
    if "augmentation" not in rows:
        return load_images(rows, image_size=image_size, crop=crop)
    originals = rows.drop_duplicates("path").reset_index(drop=True)
    images = load_images(originals, image_size=image_size, crop=crop)
    row = dict(zip(originals["path"], range(len(originals)), strict=True))
    pairs = zip(rows["path"], rows["augmentation"], strict=True)
    return np.stack([apply_augmentation(images[row[path]], spec) for path, spec in pairs])


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random, anew in every epoch.

    Flips and right angles move pixels without resampling. Rotation, shift and zoom share one bilinear
    interpolation. The recovered recipe of the paper flips horizontally and nothing else.
    """

    horizontal_flip: bool = True
    """Mirror left and right, half of the images."""
    vertical_flip: bool = False
    """Mirror top and bottom, half of the images."""
    right_angles: bool = False
    """Turn by 0, 90, 180 or 270 degrees, each for a quarter of the images; images must be square."""
    rotation: float = 0.0
    """Turn by up to this many degrees either way."""
    shift: float = 0.0
    """Move by up to this share of height and width either way."""
    zoom: float = 0.0
    """Scale by a factor from 1 - zoom to 1 + zoom; below 1."""
    fill: float | str = 0
    """What comes in from outside: a grey level (0-255), or "background": each image's own rim colour."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if min(self.rotation, self.shift, self.zoom) < 0 or self.zoom >= 1 or self.shift >= 1:
            raise AllkitError("rotation, shift and zoom must be 0 or more; shift and zoom below 1.")
        if isinstance(self.fill, str) and self.fill != "background":
            raise AllkitError(f"Unknown fill {self.fill!r}: use a grey level or 'background'.")

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated, rather than only moved."""
        return max(self.rotation, self.shift, self.zoom) > 0


def augment_batch(images: np.ndarray, augmentation: Augmentation, *, seed: int | Sequence[int]) -> np.ndarray:
    """Change every image of a batch at random: (n, h, w, 3), 0-255, to a float32 copy.

    Holds no state: the same images, settings and seed, a number or several such as (seed, epoch, batch), give the same
    result. Switching one kind of change on or off does not alter what is drawn for the others.
    """
    n, height, width = images.shape[:3]
    if augmentation.right_angles and height != width:
        raise AllkitError(f"Images of {height} x {width} pixels cannot be turned by 90 degrees: make them square.")
    rng = np.random.default_rng(seed)
    # All numbers are drawn, used or not, so that the settings stay independent of each other.
    mirror, topple = rng.random((2, n)) < 0.5
    quarter_turns = rng.integers(0, 4, n)
    angle, down, right, scale = rng.uniform(-1, 1, (4, n))
    result = np.array(images)  # a copy of the same type: bytes are lighter to move than floats
    if augmentation.horizontal_flip:
        result[mirror] = result[mirror][:, :, ::-1]
    if augmentation.vertical_flip:
        result[topple] = result[topple][:, ::-1]
    if augmentation.right_angles:
        for turns in (1, 2, 3):
            chosen = quarter_turns == turns
            result[chosen] = np.rot90(result[chosen], turns, axes=(1, 2))
    if not augmentation.resamples:
        return result.astype(np.float32)
    return transform_images(
        result,
        angle=angle * augmentation.rotation,
        shift=np.stack([down * height, right * width], axis=1) * augmentation.shift,
        factor=1 + scale * augmentation.zoom,
        fill=augmentation.fill,
    )


def transform_images(
    images: np.ndarray, *, angle: np.ndarray, shift: np.ndarray, factor: np.ndarray, fill: float | str = 0
) -> np.ndarray:
    """Rotate, zoom and shift each image of a batch about its middle; see `transform_image`.

    Takes (n, h, w, 3), 0-255, rounded to whole grey levels, and returns them as float32. `angle` and `factor` (n,) and
    `shift` (n, 2) are by image; `fill` is a grey level, or "background" for each image's own rim colour.
    """
    if images.dtype != np.uint8:
        images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    fills = background_colour(images) if fill == "background" else np.full(len(images), fill)
    result = np.empty(images.shape, dtype=np.float32)

    def transform(k: int) -> None:
        result[k] = transform_image(images[k], angle=angle[k], factor=factor[k], shift=shift[k], fill=fills[k])

    # Pillow lets other threads work meanwhile; on two cores this takes a quarter of the time of
    # `keras.ops.image.affine_transform`.
    with ThreadPoolExecutor() as pool:
        list(pool.map(transform, range(len(images))))
    return result
