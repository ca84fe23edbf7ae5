"""The networks: build, count, save, load, predict."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from allkit import ROOT, AllkitError, saving
from allkit.augment import Augmentation, augment_batch, load_part
from allkit.backend import keras, tf
from allkit.duplicates import file_sum
from allkit.folders import find_models
from allkit.images import cached_array, images_key, in_threads, prepare_image, read_image, to_common_size
from allkit.progress import track

DRAWN_WEIGHTS = ROOT / "data" / "weights"
"""Weights that the kit carries, learned from drawn images."""

_HEAD = ("head_", "probabilities")  # what the names of the head's layers begin with

BATCH_SIZE = 64
"""Images that pass through a network at once where it is not trained."""


@dataclass(frozen=True)
class Backbone:
    """What the kit has to know about one network of Keras' applications.

    Attributes:
        title: its name in tables and figures.
        application: its name in `keras.applications`.
        stages: pattern for the start of a layer's name; the group that matches, `stem`, `block` (its number) or
            `top`, is the layer's stage. Layers that match nothing count as input.
        weights_file: name of Keras' file of ImageNet weights, with {width} and {size} where it depends on them.
        scaling: factor and offset that bring 0-255 to what the network expects; None: it scales by itself.
        widths: `alpha` -> how the name of the weights file writes it; empty: the network has one width only.
        depths: layers from simple to complex shapes, whose feature maps the head with `depths="several"` sees;
            empty: the last map only.
    """

    title: str
    application: str
    stages: str
    weights_file: str
    scaling: tuple[float, float] | None = (1 / 127.5, -1.0)
    widths: Mapping[float, str] = field(default_factory=dict)
    depths: tuple[str, ...] = ()


BACKBONES = {
    "mobilenet": Backbone(
        "MobileNet", "MobileNet", r"conv_(?:dw|pw|pad)_(?P<block>\d+)|(?P<stem>conv1)",
        "mobilenet_{width}_{size}_tf_no_top.h5", widths={1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"},
        depths=("conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
    ),
    "efficientnetb3": Backbone(
        "EfficientNetB3", "EfficientNetB3", r"block(?P<block>\d+)|(?P<stem>stem_)|(?P<top>top_)",
        "efficientnetb3_notop.h5", scaling=None, depths=("block3c_add", "block5e_add", "top_activation"),
    ),
}  # fmt: skip
"""Every network that can be built, the paper's two (III.B.2) first; `register_backbone` adds to it."""


def title_of(name: str) -> str:
    """Return the name of a network in tables and figures; an unknown one stands for itself."""
    return BACKBONES[name].title if name in BACKBONES else name


def register_backbone(name: str, backbone: Backbone) -> None:
    """Make another network of Keras' applications known to this Python process, under a name in small letters.

    Raises:
        AllkitError: the name is taken by another network, or Keras has no such application.
    """
    if BACKBONES.get(name, backbone) != backbone:
        raise AllkitError(f"there is a model {name!r} already; choose another name.")
    if not callable(getattr(keras.applications, backbone.application, None)):
        raise AllkitError(f"keras.applications has no {backbone.application!r}; check the spelling in Keras' list.")
    BACKBONES[name] = backbone


def build_model(
    name: str,
    image_size: int,
    classes: int = 2,
    *,
    weights: str | None = None,
    alpha: float = 1.0,
    depths: str = "last",
    pooling: str = "max",
    momentum: float = 0.99,
    penalty: float = 1.0,
    stochastic_depth: bool = True,
    start_shallow: bool = False,
    rescale: bool = True,
    seed: int | None = None,
) -> keras.Model:
    """Build a network of `BACKBONES` with a head: by default that of the paper's recipe (III.B.2).

    The model is flat (no model inside a model) and takes plain RGB, float or uint8, values 0–255, shape
    (batch, image_size, image_size, 3), at least 32 px; it returns class probabilities (batch, classes).

    Args:
        weights: "imagenet", "drawn" (the kit's own, see data/weights/README.md), or None (from scratch).
        alpha: width of MobileNet (1.0: as published); ignored by networks of one width, such as EfficientNetB3.
        depths: "last", the paper's head on the last feature map; or "several", a small head on the averages of the
            maps that the registry names, each standardised by the training part (see `standardise_head`).
        pooling: "max" as in the paper's recipe, or "avg"; of the last map alone.
        momentum: of every batch normalisation; Keras' 0.99 needs hundreds of steps.
        penalty: scales the head's penalties on weights and activities; 1.0 as recovered, 0 for none.
        stochastic_depth: False keeps EfficientNetB3 from leaving out branches at random while it trains.
        start_shallow: True begins with EfficientNetB3's residual branches scaled to zero (Goyal et al., 2017): a
            shallow network at first, which learns faster from few steps.
        rescale: False feeds MobileNet 0–255, as the paper did by mistake; EfficientNetB3 scales by itself.
    """
    _check_build(name, image_size, classes, depths, pooling, weights)
    if seed is not None:
        keras.utils.set_random_seed(seed)
    inputs = keras.Input((image_size, image_size, 3), name="image")
    backbone = _build_backbone(name, inputs, weights, alpha, rescale)
    if depths == "several":
        outputs = _add_head_on_several(backbone, BACKBONES[name].depths, classes, penalty)
    else:
        outputs = _add_head(backbone.output, classes, pooling, penalty)
    model = keras.Model(inputs, outputs, name=name)
    _adjust_layers(model, momentum, stochastic_depth, start_shallow)
    return model


def _adjust_layers(model: keras.Model, momentum: float, stochastic_depth: bool, start_shallow: bool) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
        if isinstance(layer, keras.layers.Dropout) and stage_of(layer.name) != "head" and not stochastic_depth:
            layer.rate = 0.0
        if start_shallow and model.name == "efficientnetb3" and _ends_residual_branch(layer, model):
            layer.gamma.assign(layer.gamma * 0)


def _ends_residual_branch(layer: keras.layers.Layer, model: keras.Model) -> bool:
    block, _, what = layer.name.partition("_")
    return what == "project_bn" and any(other.name == f"{block}_add" for other in model.layers)


def _check_build(name: str, image_size: int, classes: int, depths: str, pooling: str, weights: str | None) -> None:
    if name not in BACKBONES:
        raise AllkitError(f"there is no model {name!r}; choose one of {', '.join(BACKBONES)}.")
    if image_size < 32:
        raise AllkitError(f"image_size is {image_size} px; the networks need at least 32.")
    if classes < 2:
        raise AllkitError(f"a classifier needs two classes or more, not {classes}; check the data's labels.")
    if depths not in ("last", "several"):
        raise AllkitError(f"depths is {depths!r}; choose 'last' (as in the paper) or 'several'.")
    if pooling not in ("max", "avg"):
        raise AllkitError(f"pooling is {pooling!r}; choose 'max' (as in the paper) or 'avg'.")
    if weights not in (None, "imagenet", "drawn"):
        raise AllkitError(f"weights is {weights!r}; choose 'imagenet' or 'drawn', or None to train from scratch.")


def _build_backbone(name: str, inputs: Any, weights: str | None, alpha: float, rescale: bool) -> keras.Model:
    backbone = BACKBONES[name]
    image_size = inputs.shape[1]
    path = str(find_weights(name, alpha, image_size)) if weights == "imagenet" else None
    options = {"include_top": False, "input_shape": tuple(inputs.shape[1:])}
    if backbone.widths:
        options["alpha"] = alpha
    if backbone.scaling is None:
        # for the word itself, and not for a path, Keras adds the scaling these weights were made with
        path = weights if weights == "imagenet" else None
    elif rescale:
        inputs = keras.layers.Rescaling(*backbone.scaling, name="rescale")(inputs)
    try:
        built = getattr(keras.applications, backbone.application)(input_tensor=inputs, weights=path, **options)
    except (OSError, ValueError, KeyError) as error:
        if weights != "imagenet":
            raise
        file = find_weights(name, alpha, image_size)
        what = damage_of(file, name, alpha) or f"does not fit {backbone.title} ({error})"
        raise AllkitError(f"the file of weights {file} {what}; delete it and copy or download it again.") from error
    if weights == "drawn":
        load_drawn_weights(built, name, alpha)
    return built


def _add_head(features: Any, classes: int, pooling: str, penalty: float) -> Any:
    """Add the recovered head of the paper's family of notebooks to a (batch, h, w, c) feature map."""
    layers, regularizers = keras.layers, keras.regularizers
    pool = layers.GlobalMaxPooling2D if pooling == "max" else layers.GlobalAveragePooling2D
    x = pool(name="head_pool")(features)
    x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name="head_norm")(x)
    x = layers.Dense(
        256,
        activation="relu",
        kernel_regularizer=regularizers.L2(0.016 * penalty),
        activity_regularizer=regularizers.L1(0.006 * penalty),
        bias_regularizer=regularizers.L1(0.006 * penalty),
        name="head_dense",
    )(x)
    x = layers.Dropout(0.45, name="head_dropout")(x)
    return layers.Dense(classes, activation="softmax", name="probabilities")(x)


def _add_head_on_several(backbone: keras.Model, depths: tuple[str, ...], classes: int, penalty: float) -> Any:
    """Add two dense layers on the averages of several feature maps, side by side and standardised."""
    layers, regularizer = keras.layers, keras.regularizers.L2(0.01 * penalty)
    maps = [backbone.get_layer(name).output for name in depths] or [backbone.output]
    pooled = [layers.GlobalAveragePooling2D(name=f"head_pool_{k}")(one) for k, one in enumerate(maps, 1)]
    x = layers.Concatenate(name="head_pool")(pooled) if len(pooled) > 1 else layers.Identity(name="head_pool")(*pooled)
    # not trained, and not by batch: `standardise_head` gives it the training part's statistics
    x = layers.BatchNormalization(center=False, scale=False, epsilon=1e-5, trainable=False, name="head_standardise")(x)
    x = layers.Dense(128, activation="relu", kernel_regularizer=regularizer, name="head_dense")(x)
    x = layers.Dropout(0.5, name="head_dropout")(x)
    return layers.Dense(classes, activation="softmax", kernel_regularizer=regularizer, name="probabilities")(x)


def standardise_head(model: keras.Model, features: np.ndarray, weights: np.ndarray) -> None:
    """Give a head on several depths the mean and spread of its features, (n, c), on the training part.

    `weights`, (n,), say how much each image counts.
    """
    mean = np.average(features, axis=0, weights=weights)
    variance = np.average((features - mean) ** 2, axis=0, weights=weights)
    model.get_layer("head_standardise").set_weights([mean, variance])


def load_drawn_weights(backbone: keras.Model, name: str, alpha: float = 1.0) -> None:
    """Set the kit's own weights, learned from drawn images (data/weights), in a backbone of the registry.

    Kernels are stored with 8 bits and a scale per channel, everything else with 16.

    Raises:
        AllkitError: there are none for this network or this `alpha`.
    """
    file = DRAWN_WEIGHTS / f"{name}.npz"
    if not file.is_file():
        raise AllkitError(
            f"the kit carries no drawn weights of {title_of(name)}; take weights imagenet, or none (from scratch)."
        )
    with np.load(file) as stored:
        if BACKBONES[name].widths and alpha != (width := float(stored["alpha"])):
            raise AllkitError(
                f"the kit's drawn weights of {title_of(name)} are for alpha {width:g}, not {alpha:g}; leave alpha "
                "alone, or take weights imagenet, or none to train from scratch."
            )
        for weight in backbone.weights:
            if weight.path in stored:  # not so for the statistics of Keras' own scaling
                values = stored[weight.path].astype(np.float32)
                scale = f"{weight.path}:scale"
                weight.assign(values * stored[scale] if scale in stored else values)


def find_weights(name: str, alpha: float, image_size: int) -> Path:
    """Return the file of ImageNet weights, from Keras' home folder or, failing that, by download.

    MobileNet's convolutions do not depend on the image size: where the file of this size is missing, the one
    of 224 px serves.

    Raises:
        AllkitError: no file and no network; says which file to put where.
    """
    found = local_weights(name, alpha, image_size)
    if found:
        return found
    file = _weights_home() / _weights_file(name, alpha, 224)
    try:
        network = getattr(keras.applications, BACKBONES[name].application)
        options = {"alpha": alpha} if BACKBONES[name].widths else {}
        network(include_top=False, weights="imagenet", input_shape=(224, 224, 3), **options)
        return file
    except Exception as error:
        raise AllkitError(
            f"ImageNet weights for {title_of(name)} are not on this machine and could not be downloaded "
            f"({type(error).__name__}). Put the file {file.name} of Keras' applications into {file.parent}, or set "
            "KERAS_HOME to the folder above a folder models/ that holds it, or train from scratch: "
            "-p weights none, or weights = 'none' in the notebook."
        ) from error


def local_weights(name: str, alpha: float, image_size: int) -> Path | None:
    """Return the file of ImageNet weights that `find_weights` would take from this machine; None: it is not there.

    Raises AllkitError for an `alpha` for which there are none anywhere.
    """
    files = [_weights_home() / _weights_file(name, alpha, size) for size in (image_size, 224)]
    return next((file for file in files if file.is_file()), None)


def damage_of(file: Path, name: str, alpha: float) -> str:
    """Return what is wrong with a file of ImageNet weights, as far as a look at it tells; "" if nothing is."""
    try:
        with h5py.File(file) as stored:
            first = next((item.shape for item in _arrays(stored) if item.ndim == 4), None)
    except OSError as error:
        return f"is damaged, or no file of weights ({error})"
    if first is None:
        return "holds no weights"
    width = round(32 * alpha) if BACKBONES[name].widths else first[-1]
    return "" if first[-1] == width else f"is of another width than alpha {alpha:g}"


def _arrays(group: h5py.Group) -> Iterator[h5py.Dataset]:
    """Yield all arrays of a file of weights, those of the first convolution before the others."""
    names = sorted(group, key=lambda name: (not name.startswith(("conv1", "stem_conv")), name))
    for name in names:
        item = group[name]
        yield from _arrays(item) if isinstance(item, h5py.Group) else [item]


def _weights_home() -> Path:
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"


def _weights_file(name: str, alpha: float, image_size: int) -> str:
    backbone = BACKBONES[name]
    if backbone.widths and alpha not in backbone.widths:
        known = ", ".join(str(width) for width in sorted(backbone.widths))
        raise AllkitError(f"ImageNet weights of {backbone.title} exist for alpha {known}, not {alpha}.")
    return backbone.weights_file.format(width=backbone.widths.get(alpha), size=image_size)


def stage_of(layer: str) -> str:
    """Return the stage of a layer by its name: "input", "stem", "block 1" …, "top" or "head"."""
    if layer.startswith(_HEAD):
        return "head"
    for backbone in BACKBONES.values():
        if match := re.match(backbone.stages, layer):
            return f"block {match['block']}" if match.lastgroup == "block" else str(match.lastgroup)
    return "input"


def head_of(model: keras.Model) -> keras.Model:
    """Return the head of a model from `build_model` by itself: it takes pooled features, and shares the layers."""
    return keras.Model(model.get_layer("head_pool").output, model.output, name=model.name)


def fuse_batch_norm(model: keras.Model) -> keras.Model:
    """Return a copy for prediction whose batch normalisations are fused with the convolutions before them.

    With fixed statistics a batch normalisation multiplies each channel by one number and adds another, and so can the
    convolution's kernel and bias: the same results, up to rounding, in little more than half the time. One that does
    not follow a convolution, or follows one whose output goes elsewhere too, stays.
    """
    fusable = _find_fusable(model)
    fused = {norm.name for norm in fusable.values()}

    def clone(layer: Any) -> Any:
        if layer.name in fused:
            return keras.layers.Identity(name=layer.name)
        return type(layer).from_config(layer.get_config() | ({"use_bias": True} if layer.name in fusable else {}))

    copy = keras.models.clone_model(
        keras.Model(model.inputs[0], model.output),
        clone_function=clone,
        call_function=lambda layer, *inputs, **_: layer(*inputs),  # only what comes in: an identity knows no mask
    )
    _set_fused_weights(copy, model)
    return copy


def _set_fused_weights(copy: keras.Model, model: keras.Model) -> None:
    """Give a copy from `fuse_batch_norm` the weights that its model has now."""
    fusable, layers = _find_fusable(model), {layer.name: layer for layer in model.layers}
    for layer in copy.layers:
        if norm := fusable.get(layer.name):
            layer.set_weights(_fuse(layers[layer.name], norm))
        elif layer.weights:
            layer.set_weights(layers[layer.name].get_weights())


def _find_fusable(model: keras.Model) -> dict[str, Any]:
    """Return the batch normalisations that follow a convolution and nothing else does: its name -> normalisation."""
    taken = [tensor for layer in model.layers for tensor in keras.tree.flatten(layer.input)]
    uses = Counter(tensor._keras_history.operation for tensor in [*taken, *model.outputs])
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [norm.input._keras_history.operation for norm in norms]
    return {
        layer.name: norm
        for layer, norm in zip(before, norms, strict=True)
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
        and layer.activation is keras.activations.linear
        and uses[layer] == 1
    }


def _fuse(convolution: Any, norm: Any) -> list[np.ndarray]:
    """Return kernel and bias of a convolution that does what this one and its batch normalisation do."""
    kernel, *bias = convolution.get_weights()
    mean, variance = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)
    scale = (np.asarray(norm.gamma) if norm.scale else 1) / np.sqrt(variance + norm.epsilon)
    shift = (np.asarray(norm.beta) if norm.center else 0) + ((bias[0] if bias else 0) - mean) * scale
    # a depthwise kernel has its output channels along two axes: of the input, and how many are made of each
    channels = kernel.shape[2:] if "Depthwise" in type(convolution).__name__ else kernel.shape[3:]
    return [kernel * scale.reshape(channels), shift]


class FusedNetwork:
    """A network compiled for prediction, on a copy from `fuse_batch_norm` that follows the network's weights.

    On one image Keras' own `predict` spends most of its time around the network. Features and predictions come from
    one pass: tracing a network of hundreds of layers takes far longer than using it.
    """

    def __init__(self, network: keras.Model) -> None:
        self.network = network
        pooled = [layer.output for layer in network.layers if layer.name == "head_pool"]
        self._both = keras.Model(network.inputs[0], [*(pooled or network.outputs), network.outputs[0]])
        self.copy = fuse_batch_norm(self._both)
        self._sums = self._sum_weights().numpy()
        images = tf.TensorSpec(network.input_shape, tf.float32)
        self._answer = tf.function(
            lambda batch: (self.copy(batch, training=False), self._sum_weights()),
            input_signature=[images],
            autograph=False,
        )

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return what the network, with the weights that it has now, makes of a batch of images, 0-255."""
        return self._run(images)[1]

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the pooled features that the head sees, (n, c); of a network without a head, its output."""
        return self._run(images)[0]

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        images = np.asarray(images, np.float32)
        answers, sums = self._answer(images)
        if not np.array_equal(sums, self._sums):
            _set_fused_weights(self.copy, self._both)
            answers, sums = self._answer(images)
            self._sums = sums.numpy()
        return [answer.numpy() for answer in answers]

    def _sum_weights(self) -> Any:
        """Return what shows whether weights changed: those of one axis, and all others summed along their last axis."""
        found = [tf.zeros(1)]  # a network may have no weights at all
        for weight in self.network.weights:
            if weight.dtype == "float32":
                values = tf.reduce_sum(weight.value, axis=-1) if len(weight.shape) > 1 else weight.value
                found.append(values if values.shape.rank == 1 else tf.reshape(values, [-1]))
        return tf.concat(found, axis=0)


def count_by_stage(model: keras.Model) -> pd.DataFrame:
    """Count parameters and multiply-adds of one image, stage by stage (Figs. 5 and 6 with numbers).

    One row per stage in order of computation: stage, layers, output ("h × w × c"), parameters, multiply_adds. Batch
    normalisation, activations and pooling count no multiply-adds, as is usual.
    """
    rows = [
        {
            "stage": stage_of(layer.name),
            "layers": 1,
            "output": " × ".join(str(side) for side in layer.output.shape[1:]),
            "parameters": layer.count_params(),
            "multiply_adds": _multiply_adds(layer),
        }
        for layer in model.layers
    ]
    how = {"layers": "sum", "output": "last", "parameters": "sum", "multiply_adds": "sum"}
    return pd.DataFrame(rows).groupby("stage", sort=False).agg(how).reset_index()


def _multiply_adds(layer: Any) -> int:
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    positions = int(np.prod(layer.output.shape[1:-1]))  # 1 for a dense layer
    return positions * int(np.prod(kernel.shape))


@dataclass(frozen=True)
class TrainedModel:
    """A network and its metadata: how to feed it and where it comes from.

    Attributes:
        model: takes uint8 or float RGB 0–255, (batch, s, s, 3); predictions follow its weights.
        metadata: classes, input (image_size, crop), data, split, profile, versions.
        network: the model made fast for prediction, where there is one already; see `fused`.
    """

    model: keras.Model
    metadata: dict
    network: FusedNetwork | None = field(default=None, repr=False, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return tuple(self.metadata["classes"])

    @cached_property
    def fused(self) -> FusedNetwork:
        """The network made fast for prediction: that with which it was trained, or one made now."""
        return self.network or FusedNetwork(self.model)


class StoredModel(TrainedModel):
    """A model whose metadata are read now, and whose network is loaded when it is first needed."""

    def __init__(self, path: Path) -> None:
        vars(self).update(metadata=_read_metadata(path), network=None, _path=path)  # the class is frozen
        if problem := _metadata_problem(self.metadata):
            raise AllkitError(f"{path.with_suffix('.json').name} {problem}; train the model again.")

    @cached_property
    def model(self) -> keras.Model:
        """The network; AllkitError as `load_model` raises it."""
        return load_model(self._path).model


def load_models(run_or_file: str | Path, *, lazily: bool = False) -> dict[str, TrainedModel]:
    """Load the models of a run folder, or one .keras file: title -> model, in the paper's order.

    With `lazily` each network is loaded when it is first needed. Raises AllkitError when there is none, or one cannot
    be loaded.
    """
    load, order = StoredModel if lazily else load_model, list(BACKBONES)
    files = sorted(find_models(run_or_file), key=lambda file: (*order, file.stem).index(file.stem))
    loaded = {file.stem: load(file) for file in files}
    return {title_of(trained.metadata.get("model", stem)): trained for stem, trained in loaded.items()}


def save_model(trained: TrainedModel, path: Path) -> None:
    """Write `path` (.keras), and beside it its metadata as JSON, with the SHA-256 sum of the file that they are of."""
    path = Path(path)
    with saving(path.with_suffix(".json")) as metadata, saving(path) as file:
        trained.model.save(file)
        words = trained.metadata | {"model_sha256": file_sum(file)}
        metadata.write_text(json.dumps(words, indent=1, ensure_ascii=False), encoding="utf-8")


def load_model(path: Path) -> TrainedModel:
    """Load a .keras file and the metadata (JSON) beside it, in Keras' safe mode (no code from the file is run).

    Raises AllkitError when a file is missing, damaged, or metadata and network disagree.
    """
    path = Path(path)
    metadata = _read_metadata(path)
    try:
        _check_archive(path)
        model = keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:
        raise _not_loaded(path, error) from error
    if problem := _metadata_problem(metadata) or _mismatch(metadata, model, file_sum(path)):
        raise AllkitError(f"{path.with_suffix('.json').name} {problem}; train the model again.")
    metadata.pop("model_sha256", None)  # of the file, not of the network
    return TrainedModel(model, metadata)


def _read_metadata(path: Path) -> dict:
    if not path.is_file() or not path.with_suffix(".json").is_file():
        raise AllkitError(
            f"{path} needs both the .keras file and the .json beside it; train the model first "
            "(notebooks 04 and 05) or give another path."
        )
    try:
        return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except Exception as error:
        raise _not_loaded(path, error) from error


def _not_loaded(path: Path, error: Exception) -> AllkitError:
    return AllkitError(
        f"{path} cannot be loaded ({type(error).__name__}): it is damaged, carries code, or comes from "
        "another version. Train it again."
    )


_LAYERS = frozenset(
    {"InputLayer", "Rescaling", "Normalization", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "BatchNormalization",
     "LayerNormalization", "Activation", "ReLU", "Softmax", "ZeroPadding2D", "Cropping2D", "GlobalAveragePooling2D",
     "GlobalMaxPooling2D", "AveragePooling2D", "MaxPooling2D", "Concatenate", "Add", "Multiply", "Reshape", "Dropout",
     "Dense", "Identity"}
)  # fmt: skip

_MOST = {"config.json": 8_000_000, "metadata.json": 100_000, "model.weights.h5": 600_000_000}  # bytes, unpacked


def _check_archive(path: Path) -> None:
    """Raise ValueError where a .keras file declares more, or other, than a network of `BACKBONES` needs.

    Nothing is built and no weight is read: a few bytes may declare gigabytes.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > _MOST.get(member.filename, 0):
                raise ValueError(f"its {member.filename} is not one of a network of the kit")
        config = json.loads(archive.read("config.json"))
    layers = config["config"]["layers"]
    padding = 0
    for layer in layers:
        settings = layer["config"]
        padding += 2 * max([0, *_numbers(settings.get("padding"))])
        sizes = [
            settings.get(word) for word in ("filters", "units", "target_shape", "batch_shape", "kernel_size", "axis")
        ]
        if layer["class_name"] not in _LAYERS or max([0, *_numbers(sizes)]) > 8192:
            raise ValueError(f"its layer {str(layer['class_name'])[:40]} is not one of a network of the kit")
    if padding > 1024 or len(layers) > 3000:
        raise ValueError("it is larger than a network of the kit")


def _numbers(value: Any) -> list[float]:
    """Return all numbers in nested lists."""
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


def _metadata_problem(metadata: Any) -> str:
    """Return what is wrong with metadata by themselves, empty where nothing is."""
    try:
        classes, source = metadata["classes"], metadata["data"]["source"]
        _ = metadata["input"]["image_size"], metadata["input"]["crop"]
    except (KeyError, TypeError) as error:
        return f"is not metadata of this version of allkit (looked for {error})"
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in [*classes, source]):
        return f"names the classes {classes}, which are not texts"
    return f"names the classes {classes}, which are not different" if len(set(classes)) < len(classes) else ""


def _mismatch(metadata: dict, model: keras.Model, found: str) -> str:
    """Return how metadata and the network, from a file with the sum `found`, disagree; empty where they agree."""
    classes, size, crop = metadata["classes"], metadata["input"]["image_size"], metadata["input"]["crop"]
    if metadata.get("model_sha256", found) != found:
        return "is of another .keras file: its saving was interrupted, or one of the two was replaced"
    if len(classes) != model.output_shape[-1]:
        return f"names the classes {classes}, and the network has {model.output_shape[-1]} outputs"
    if model.input_shape != (None, size, size, 3) or not (crop is None or isinstance(crop, int)):
        return f"says that images have {size} px (crop {crop}), and the network takes {model.input_shape[1:]}"
    return ""


def predict_images(trained: TrainedModel, images: np.ndarray, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Return class probabilities, float32 (n, classes), of prepared images, uint8 (n, s, s, 3)."""
    if not len(images):
        return np.zeros((0, len(trained.classes)), np.float32)
    starts = track(range(0, len(images), batch_size), "answers of the network", unit="batch")
    return np.concatenate([trained.fused.predict(images[start : start + batch_size]) for start in starts])


def load_features(
    network: FusedNetwork,
    rows: pd.DataFrame,
    *,
    image_size: int,
    crop: int | None = None,
    augmentation: Augmentation | None = None,
    copies: int = 1,
    seed: int = 0,
) -> np.ndarray:
    """Return the features (see `FusedNetwork`) of some images; computed once.

    `augmentation` changes each of the `copies` of an image at random before it enters; None: not at all. Returns
    float32 (copies * n, …), the first copy of all images, then the second …, as `allkit.images.cached_array` keeps it
    on disk for the same files, preparation, augmentation, seed and weights.
    """
    images = load_part(rows, image_size=image_size, crop=crop)

    def compute() -> Iterator[np.ndarray]:
        pieces = [(copy, start) for copy in range(copies) for start in range(0, len(images), BATCH_SIZE)]
        for copy, start in track(pieces, "features of images", unit="batch"):
            batch = images[start : start + BATCH_SIZE]
            if augmentation is not None:
                batch = augment_batch(batch, augmentation, seed=(seed, copy, start))
            yield network.features(batch)

    changed = rows["augmentation"].tolist() if "augmentation" in rows else []
    body = [layer for layer in network.network.layers if not layer.name.startswith(_HEAD) or "_pool" in layer.name]
    layers = [type(layer).__name__ for layer in body]
    weights = hashlib.sha256(b"".join(w.tobytes() for layer in body for w in layer.get_weights())).hexdigest()
    key = [images_key(rows["path"], image_size, crop), changed, augmentation, copies, seed, BATCH_SIZE, layers, weights]
    shape = (copies * len(rows), network.copy.output_shape[0][-1])
    return cached_array("features", "\n".join(map(str, key)), compute, shape, np.float32)


def predict_index(
    trained: TrainedModel, index: pd.DataFrame, *, change: Callable[[np.ndarray, str], np.ndarray] | None = None
) -> pd.DataFrame:
    """Return the predictions table of an index: path, label, subject, group, and `p_<class>` per class.

    A column `augmentation` of the index says how an image is changed after it was prepared. `change` changes a decoded
    image, uint8 (h, w, 3), before it is prepared; it is given its path too.
    """
    size = {key: trained.metadata["input"][key] for key in ("image_size", "crop")}
    images = load_part(index, **size) if change is None else _load_changed(index["path"], change, **size)
    probabilities = predict_images(trained, images)
    table = index[["path", "label", "subject", "group"]].reset_index(drop=True)
    for k, name in enumerate(trained.classes):
        table[f"p_{name}"] = probabilities[:, k]
    return table


def _load_changed(paths: Iterable[str], change: Callable, *, image_size: int, crop: int | None) -> np.ndarray:
    def load(path: str) -> np.ndarray:
        return prepare_image(change(to_common_size(read_image(path)), path), image_size, crop)

    images = list(in_threads(load, paths, what="preparing images"))
    return np.stack(images) if images else np.zeros((0, image_size, image_size, 3), np.uint8)


def measure_inference(trained: TrainedModel) -> dict[str, float]:
    """Return the time of one forward pass in ms: alone (`single_ms`) and per image in a batch of 32 (`batch_ms`)."""
    size = trained.metadata["input"]["image_size"]
    images = np.zeros((32, size, size, 3), np.uint8)
    found = {}
    for name, batch in {"single_ms": images[:1], "batch_ms": images}.items():
        predict_images(trained, batch)  # the first call compiles
        times = []
        for _ in range(5):
            start = time.perf_counter()
            predict_images(trained, batch)
            times.append(time.perf_counter() - start)
        found[name] = 1000 * float(np.median(times)) / len(batch)
    return found
