"""Where in an image a network's answer comes from: Grad-CAM and occlusion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib import colormaps
from scipy.special import logit
from skimage.transform import resize

from allkit import AllkitError
from allkit.augment import background_colour
from allkit.backend import keras, tf
from allkit.features import cell_mask
from allkit.images import brighten, brightening
from allkit.models import TrainedModel, predict_images

Explainer = Callable[[np.ndarray, str], np.ndarray]
"""Takes an image, uint8 (s, s, 3), as the network sees it, and a class; gives a map, float32 (s, s), 0–1.

The map is all zeros where nothing spoke for the class.
"""

CAVEAT = (
    "The map shows where the network's feature maps spoke for this class. It does not show that the network "
    "is right, nor why, and a plausible map is no proof of a sound reason."
)

PLACES = 7
"""Places a side of a map that can be read, and of the occluding patch: as many as Grad-CAM has on 224 pixels."""


def build_grad_cam(trained: TrainedModel, *, least: int = PLACES) -> Explainer:
    """Return Grad-CAM (Selvaraju et al., 2017) for one network, compiled on the first call.

    Of a head on several depths it shows all of them together: each map as far as the head itself looks at it, so that
    with a linear head the sum is what speaks for the class. Of a head on one it takes the last feature map with at
    least `least` places a side; 1: the last of all, which on small images has two or three. AllkitError: the network
    does not end in one of the kit's heads, or has no map so fine.
    """
    model = trained.model
    backbone, head, last = split_network(model, least)
    size = model.input_shape[1]

    @tf.function(input_signature=[tf.TensorSpec((1, size, size, 3), tf.float32), tf.TensorSpec((), tf.int32)])
    def weigh(image, number):
        maps = keras.tree.flatten(backbone(image, training=False))
        with tf.GradientTape() as tape:
            tape.watch(maps)
            # before the softmax, which is flat where the network is sure
            score = (head(maps, training=False) @ last.kernel + last.bias)[0, number]
        # the sum over the places, so that maps of different sizes are comparable
        weights = [tf.reduce_sum(found, axis=(1, 2), keepdims=True) for found in tape.gradient(score, maps)]
        return [tf.reduce_sum(weight * one, axis=-1)[0] for weight, one in zip(weights, maps, strict=True)]

    def grad_cam(image: np.ndarray, label: str) -> np.ndarray:
        parts = [part.numpy() for part in weigh(np.asarray(image, np.float32)[None], _index_of(label, trained))]
        finest = max(len(part) for part in parts)
        heat = np.maximum(sum(resize_map(part, finest) for part in parts), 0)
        return resize_map(heat / heat.max() if heat.max() > 0 else heat, size)

    return grad_cam


def _index_of(label: str, trained: TrainedModel) -> int:
    if label not in trained.classes:
        raise AllkitError(f"the model knows no class {label!r}; choose one of {', '.join(trained.classes)}.")
    return trained.classes.index(label)


def split_network(model: keras.Model, least: int) -> tuple[keras.Model, keras.Model, keras.Layer]:
    """Return the network in two parts, cut at its feature maps, and its last layer, which belongs to neither.

    The gradient then runs through the second part only. A place that a skip connection bypasses is no place to cut.
    """
    pools = [layer for layer in model.layers if layer.name.startswith("head_pool") and len(layer.output.shape) == 2]
    pooled = [layer.input for layer in pools if len(keras.tree.flatten(layer.input)) == 1]
    pooled = [found for found in pooled if len(found.shape) == 4]
    try:
        last = model.get_layer("probabilities")
    except ValueError:
        pooled = []
    if not pooled:
        raise AllkitError("Grad-CAM needs a network built by allkit.models.build_model.")
    ends = (keras.layers.Activation, keras.layers.ReLU, keras.layers.Add)
    earlier = [layer.output for layer in reversed(model.layers) if isinstance(layer, ends)]
    for maps in [pooled, *([found] for found in earlier)]:
        if max(found.shape[1] for found in maps) >= least and all(len(found.shape) == 4 for found in maps):
            try:
                return keras.Model(model.input, maps), keras.Model(maps, last.input), last
            except ValueError:  # another way leads from the input to the output
                continue
    raise AllkitError(f"no feature map of this network has {least} places a side; ask for fewer.")


def resize_map(heat: np.ndarray, size: int) -> np.ndarray:
    """Return a map bilinearly enlarged to float32 (size, size)."""
    return resize(heat, (size, size), order=1, mode="edge", anti_aliasing=False).astype(np.float32)


def build_occlusion(trained: TrainedModel, *, fill: str = "background") -> Explainer:
    """Return occlusion maps (Zeiler and Fergus, 2014): cover a patch, see how much the network's belief falls.

    The patch is a square that moves by half its side. It needs no gradient and no knowledge of the network, only
    `PLACES` × `PLACES` answers for a map. A pixel's value is the mean fall of the log-odds of the class over the
    patches that cover it, negative ones set to 0, scaled to a maximum of 1.

    What the patch is filled with: "background", the colour of the image's rim, so that covering the background of a
    cell changes nothing, but a covered rim makes the cell smaller; or "mean", inside a cell on black the cell's mean
    colour, which hides texture and leaves the outline, in other pictures the picture's mean colour.
    """
    if fill not in ("background", "mean"):
        raise AllkitError(f"fill is {fill!r}; choose 'background' or 'mean'.")

    def occlude(image: np.ndarray, label: str) -> np.ndarray:
        number, patches = _index_of(label, trained), _patches(image.shape[0])
        covered = np.where(patches[..., None], _cover(image, fill), image).astype(np.uint8)
        changed = (covered != image).any(axis=(1, 2, 3))  # black on black: the answer is known
        share = predict_images(trained, np.concatenate([image[None], covered[changed]]))[:, number].astype(float)
        odds, falls = logit(np.clip(share, 1e-6, 1 - 1e-6)), np.zeros(len(patches))
        falls[changed] = odds[0] - odds[1:]
        fall = np.maximum(np.tensordot(falls, patches, axes=1) / patches.sum(axis=0), 0)
        return (fall / fall.max() if fall.max() > 1e-3 else 0 * fall).astype(np.float32)

    return occlude


def _patches(size: int) -> np.ndarray:
    """Return which pixels each position covers, bool (PLACES², size, size); together they cover all."""
    edges = np.round(np.linspace(0, size, PLACES + 2)).astype(int)  # a patch spans two steps
    bands = [(np.arange(size) >= a) & (np.arange(size) < b) for a, b in zip(edges[:-2], edges[2:], strict=True)]
    return np.stack([np.outer(rows, columns) for rows in bands for columns in bands])


def _cover(image: np.ndarray, fill: str) -> np.ndarray:
    """Return the image that shows through where a patch lies, float (s, s, 3)."""
    ground = np.broadcast_to(background_colour(image), image.shape)
    if fill == "background":
        return ground
    mask = cell_mask(image)
    if not mask.any() or ground.max() > 10:  # a whole picture, not a cell on black
        return np.broadcast_to(image.mean(axis=(0, 1)), image.shape)
    return np.where(mask[..., None], image[mask].mean(axis=0), ground)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map, float (s, s), 0–1, over an image, uint8 (s, s, 3), in the colours of viridis.

    The image is brightened (`allkit.images.brightening`) and grey, so that colour belongs to the map alone. Where the
    map is 0 the image shows as it is, where it is 1 a light yellow covers most of it.
    """
    grey = brighten(image, brightening([image])).mean(axis=2, keepdims=True)
    share = 0.75 * heat[..., None]
    return np.round((1 - share) * grey + share * 255 * colormaps["viridis"](heat)[..., :3]).astype(np.uint8)
