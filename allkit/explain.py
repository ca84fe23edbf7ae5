"""Room `explain`: where in the image a network's answer comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from allkit import AllkitError
from allkit.models import import_keras

if TYPE_CHECKING:
    from allkit.models import TrainedModel

CAVEAT = (
    "The map shows where the network's last feature map spoke for this class. It does not show that the network "
    "is right, nor why, and a plausible map is no proof of a sound reason."
)


def build_grad_cam(trained: TrainedModel) -> Callable[[np.ndarray, str], np.ndarray]:
    """Return Grad-CAM (Selvaraju et al., 2017) for one network, compiled on the first call.

    Returns:
        A function of an image, uint8 (s, s, 3) as the network sees it (`Result.image`), and a class name, that
        gives a map, float32 (s, s), 0-1: how much each place spoke for the class. All zeros where nothing did.

    Raises:
        AllkitError: the network does not end in one of the kit's heads; the function: an unknown class.
    """
    keras = import_keras()
    import tensorflow as tf

    model, classes = trained.model, trained.classes
    try:
        features, last = model.get_layer("head_pool").input, model.get_layer("probabilities")
    except ValueError as error:
        raise AllkitError("Grad-CAM needs a network built by allkit.models.build_model.") from error
    # cut in two, so that the gradient runs through the head only
    backbone, head = keras.Model(model.input, features), keras.Model(features, last.input)
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


def _enlarge(heat: np.ndarray, size: int) -> np.ndarray:
    from skimage.transform import resize

    return resize(heat, (size, size), order=1, mode="edge", anti_aliasing=False).astype(np.float32)


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
