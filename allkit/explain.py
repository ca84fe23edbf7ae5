"""Room `explain`: where in the image a network's answer comes from, and how far such a map can be trusted.

Two ways to draw a map (Grad-CAM and occlusion), two ways to score one against a known truth, and the maps that
know nothing of the image, against which the scores must be held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from allkit import AllkitError
from allkit.augment import background_colour
from allkit.models import import_keras, predict_images

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from allkit.models import TrainedModel

Explainer = Callable[[np.ndarray, str], np.ndarray]
"""Takes an image, uint8 (s, s, 3), as the network sees it, and a class; gives a map, float32 (s, s), 0-1."""

CAVEAT = (
    "The map shows where the network's last feature map spoke for this class. It does not show that the network "
    "is right, nor why, and a plausible map is no proof of a sound reason."
)


# ---- two ways to draw a map ----------------------------------------------------------------------------------


def build_grad_cam(trained: TrainedModel, *, least: int = 1) -> Explainer:
    """Return Grad-CAM (Selvaraju et al., 2017) for one network, compiled on the first call.

    Args:
        trained: a network of the kit.
        least: take the last feature map with at least this many places a side. 1: the last of all, which on small
            images has two or three.

    Returns:
        A function of an image, uint8 (s, s, 3) as the network sees it (`Result.image`), and a class name, that
        gives a map, float32 (s, s), 0-1: how much each place spoke for the class. All zeros where nothing did.

    Raises:
        AllkitError: the network does not end in one of the kit's heads, or has no map so fine; the function: an
            unknown class.
    """
    import_keras()  # before TensorFlow, which it keeps quiet
    import tensorflow as tf

    model, classes = trained.model, trained.classes
    backbone, head, last = _cut(model, least)
    size = model.input_shape[1]

    @tf.function(input_signature=[tf.TensorSpec((1, size, size, 3), tf.float32), tf.TensorSpec((), tf.int32)])
    def weigh(image, number):
        maps = backbone(image, training=False)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            # before the softmax, which is flat where the network is sure
            score = (head(maps, training=False) @ last.kernel + last.bias)[0, number]
        weights = tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))[0]

    def grad_cam(image: np.ndarray, label: str) -> np.ndarray:
        if label not in classes:
            raise AllkitError(f"the model knows no class {label!r}; choose one of {', '.join(classes)}.")
        heat = weigh(np.asarray(image, np.float32)[None], classes.index(label)).numpy()
        return _enlarge(heat / heat.max() if heat.max() > 0 else heat, size)

    return grad_cam


def _cut(model: keras.Model, least: int) -> tuple[keras.Model, keras.Model, keras.Layer]:
    """Return the network in two parts, cut at a feature map, and its last layer, which belongs to neither.

    The gradient then runs through the second part only. A place that a skip connection bypasses is no place to cut.
    """
    keras = import_keras()
    try:
        last, features = model.get_layer("probabilities"), model.get_layer("head_pool").input
    except ValueError as error:
        raise AllkitError("Grad-CAM needs a network built by allkit.models.build_model.") from error
    ends = (keras.layers.Activation, keras.layers.ReLU, keras.layers.Add)
    maps = [features, *(layer.output for layer in reversed(model.layers) if isinstance(layer, ends))]
    for features in maps:
        if len(features.shape) == 4 and features.shape[1] >= least:
            try:
                return keras.Model(model.input, features), keras.Model(features, last.input), last
            except ValueError:  # another way leads from the input to the output
                continue
    raise AllkitError(f"no feature map of this network has {least} places a side; ask for fewer.")


def _enlarge(heat: np.ndarray, size: int) -> np.ndarray:
    from skimage.transform import resize

    return resize(heat, (size, size), order=1, mode="edge", anti_aliasing=False).astype(np.float32)


def build_occlusion(trained: TrainedModel, *, places: int = 7, fill: str = "background") -> Explainer:
    """Return occlusion maps (Zeiler and Fergus, 2014): cover a patch, see how much the network's belief falls.

    The patch is a square that moves by half its side. It needs no gradient and no knowledge of the network, only
    `places` × `places` answers for a map.

    Args:
        trained: any network with a card.
        places: positions of the patch a side.
        fill: what the patch is filled with. "background": the colour of the image's rim, so that covering the
            background of a cell changes nothing, but a covered rim makes the cell smaller. "mean": inside a cell on
            black the cell's mean colour, which hides texture and leaves the outline; in other pictures the
            picture's mean colour.

    Returns:
        A function as that of `build_grad_cam`; a pixel's value is the mean fall of the log-odds of the class over
        the patches that cover it, negative ones set to 0, scaled to a maximum of 1.

    Raises:
        AllkitError: unknown fill; the function: an unknown class.
    """
    if fill not in ("background", "mean"):
        raise AllkitError(f"fill is {fill!r}; choose 'background' or 'mean'.")

    def occlude(image: np.ndarray, label: str) -> np.ndarray:
        if label not in trained.classes:
            raise AllkitError(f"the model knows no class {label!r}; choose one of {', '.join(trained.classes)}.")
        patches, cover = _patches(image.shape[0], places), _cover(image, fill)
        covered = np.where(patches[..., None], cover, image).astype(np.uint8)
        told = (covered != image).any(axis=(1, 2, 3))  # black on black: the answer is known
        share = predict_images(trained, np.concatenate([image[None], covered[told]]))
        share = np.clip(share[:, trained.classes.index(label)].astype(float), 1e-6, 1 - 1e-6)
        odds, falls = np.log(share / (1 - share)), np.zeros(len(patches))
        falls[told] = odds[0] - odds[1:]
        fall = np.maximum(np.tensordot(falls, patches, axes=1) / patches.sum(axis=0), 0)
        return (fall / fall.max() if fall.max() > 1e-3 else 0 * fall).astype(np.float32)

    return occlude


def _patches(size: int, places: int) -> np.ndarray:
    """Return which pixels each position covers, bool (places², size, size); together they cover all."""
    edges = np.round(np.linspace(0, size, places + 2)).astype(int)  # a patch spans two steps
    bands = [(np.arange(size) >= a) & (np.arange(size) < b) for a, b in zip(edges[:-2], edges[2:], strict=True)]
    return np.stack([np.outer(rows, columns) for rows in bands for columns in bands])


def _cover(image: np.ndarray, fill: str) -> np.ndarray:
    """Return the image that shows through where a patch lies, float (s, s, 3)."""
    from allkit.features import cell_mask

    ground = np.broadcast_to(background_colour(image), image.shape)
    if fill == "background":
        return ground
    mask = cell_mask(image)
    if not mask.any() or ground.max() > 10:  # a whole picture, not a cell on black
        return np.broadcast_to(image.mean(axis=(0, 1)), image.shape)
    return np.where(mask[..., None], image[mask].mean(axis=0), ground)


def random_map(size: int, places: int, seed: int) -> np.ndarray:
    """Return a map drawn by lot, float32 (size, size), 0-1: uniform numbers on a grid, enlarged like Grad-CAM's."""
    heat = np.random.default_rng(seed).random((places, places))
    return _enlarge(heat / heat.max(), size)


def centre_blob(size: int, width: float = 0.2) -> np.ndarray:
    """Return a map that is the same for every image, float32 (size, size), 0-1: a Gaussian about the middle.

    Args:
        size: pixels.
        width: standard deviation as a share of `size`.
    """
    away = (np.arange(size) - (size - 1) / 2) / (width * size)
    bell = np.exp(-0.5 * away**2)
    return (np.outer(bell, bell) / bell.max() ** 2).astype(np.float32)


def overlay(image: np.ndarray, heat: np.ndarray, strength: float = 0.55) -> np.ndarray:
    """Lay a map over an image in the colours of viridis, which grow lighter evenly.

    Args:
        image: uint8 (s, s, 3).
        heat: float (s, s), 0-1.
        strength: 0-1, how much the map covers the image.

    Returns:
        uint8 (s, s, 3).
    """
    from matplotlib import colormaps

    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)  # colour then belongs to the map alone
    colours = colormaps["viridis"](heat)[..., :3] * 255
    return np.round((1 - strength) * grey + strength * colours).astype(np.uint8)


# ---- a map against a known truth ---------------------------------------------------------------------------


def load_masks(path: str) -> dict[str, np.ndarray]:
    """Return where what is, bool (height, width) each, at the size of `allkit.images.to_common_size`.

    For a cell of the synthetic twin "cell" and "nucleus" as they were drawn; for any other cell on black "cell"
    only, taken from the image itself (`allkit.features.cell_mask`).
    """
    from allkit.features import cell_mask
    from allkit.images import centre_crop, read_image, to_common_size
    from allkit.synthetic import load_truth

    image = to_common_size(read_image(path))
    try:
        truth = load_truth(path)
    except AllkitError:  # no synthetic cell: nobody has drawn its nucleus
        return {"cell": cell_mask(image)}
    side = image.shape[0]
    return {"cell": centre_crop(truth.outline, side), "nucleus": centre_crop(truth.nucleus, side)}


def prepare_mask(mask: np.ndarray, image_size: int, crop: int | None = None) -> np.ndarray:
    """Crop and resize a mask as `allkit.images.prepare_image` does its image; bool (image_size, image_size)."""
    from allkit.images import prepare_image

    return prepare_image(np.repeat(mask[..., None], 3, axis=2) * np.uint8(255), image_size, crop)[..., 0] > 127


def pointing_game(heat: np.ndarray, mask: np.ndarray) -> float:
    """Return 1 if the map's maximum lies inside the mask, else 0 (Zhang et al., 2018, without their tolerance).

    Where several pixels share the maximum it is the share of them that lies inside; an empty map scores 0.

    Args:
        heat: float (s, s), 0 or more.
        mask: bool (s, s).
    """
    _check_pair(heat, mask)
    return float(mask[heat >= heat.max() * (1 - 1e-6)].mean()) if heat.max() > 0 else 0.0


def overlap(heat: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of the map's sum that lies inside the mask, 0-1 (Wang et al., 2020); an empty map scores 0.

    A flat map scores the mask's share of the area, which is the value to beat. Unlike an overlap of two outlines
    it needs no threshold on the map.

    Args:
        heat: float (s, s), 0 or more.
        mask: bool (s, s).
    """
    _check_pair(heat, mask)
    return float(heat[mask].sum() / heat.sum()) if heat.sum() > 0 else 0.0


def _check_pair(heat: np.ndarray, mask: np.ndarray) -> None:
    if heat.shape != mask.shape or mask.dtype != bool:
        raise AllkitError(f"a map of shape {heat.shape} needs a bool mask of the same shape, not {mask.shape}.")


def score_maps(
    cells: pd.DataFrame, maps: Mapping[str, Sequence[np.ndarray]], masks: Sequence[Mapping[str, np.ndarray]]
) -> pd.DataFrame:
    """Score the maps of several methods on the same cells.

    Args:
        cells: rows of an index, one per cell.
        maps: method -> one map per cell, float (s, s).
        masks: per cell, name -> bool (s, s), as from `load_masks` and `prepare_mask`.

    Returns:
        One row per method, cell and mask: method, mask, path, subject, group, pointing and overlap, 0-1.
    """
    import pandas as pd

    rows = []
    for method, of_method in maps.items():
        for k, (heat, truth) in enumerate(zip(of_method, masks, strict=True)):
            who = cells.iloc[k][["path", "subject", "group"]].to_dict()
            rows += [
                {"method": method, "mask": name, **who, "pointing": pointing_game(heat, mask),
                 "overlap": overlap(heat, mask)}
                for name, mask in truth.items()
            ]  # fmt: skip
    return pd.DataFrame(rows)


def compare_maps(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Return how alike two methods' maps are, float (n,): Spearman's correlation over the pixels of each pair.

    NaN where one of the two maps is flat. The maps of a pair must have the same shape.
    """
    from scipy.stats import spearmanr

    pairs = [(one.ravel(), other.ravel()) for one, other in zip(first, second, strict=True)]
    return np.array([spearmanr(*pair)[0] if min(map(np.ptp, pair)) > 0 else np.nan for pair in pairs], dtype=float)


def choose_cells(part: pd.DataFrame, count: int, *, seed: int = 0) -> pd.DataFrame:
    """Return up to `count` rows of a part from as many subjects as possible, drawn at random, subject by subject."""
    order = part.sample(frac=1, random_state=seed)
    turn = order.groupby(order["subject"].fillna(order["path"])).cumcount()
    return order.loc[turn.sort_values(kind="stable").index[:count]].reset_index(drop=True)
