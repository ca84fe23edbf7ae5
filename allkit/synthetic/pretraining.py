"""Weights that the kit carries: networks trained from scratch on drawn cells that belong to no class (`make weights`).

The source task knows neither ALL nor HEM, no subject and no cell of the course: each network learns to say how any cell
was drawn, from the size and the shape of the outline to grain, spots, clefts, colour and light. It is drawn with the
same brush as the course's cells, and that is why the features fit them so well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import typer

from allkit import cache_folder, saving
from allkit.augment import Augmentation, augment_batch
from allkit.backend import TqdmCallback, keras
from allkit.images import cached_array, in_threads, prepare_image
from allkit.models import BACKBONES, DRAWN_WEIGHTS, build_model
from allkit.progress import track
from allkit.synthetic.cells import VERSION, any_cell_traits, draw_any_cell
from allkit.train import EpochSeed

SEED = 1000
"""Of the drawn cells; the course's have seeds of their own, and other words in them."""

CROP = 300
"""Side of the centre square that a network sees of a cell, px, as in the profiles."""

CHECKED = 400
"""Drawn cells that are not learned from, and show what was learned."""

_SYMMETRIES = Augmentation(horizontal_flip=True, vertical_flip=True, right_angles=True)


@dataclass(frozen=True)
class Pretraining:
    """How a network is trained on drawn cells: side of its input in px, cells, passes through them, AdamW's rate."""

    image_size: int
    cells: int = 16_000
    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 2e-3


PRETRAININGS = {
    "mobilenet": Pretraining(96),
    "efficientnetb3": Pretraining(80, epochs=5),
}
"""As much as an hour or two on two cores allow. Judged by freshly drawn twins, not by the course's own cells."""


class DrawnBatches(keras.utils.PyDataset):
    """Batches of drawn cells, turned and mirrored at random, and the numbers they were drawn with."""

    def __init__(self, images: np.ndarray, numbers: np.ndarray, heads: int, batch_size: int) -> None:
        super().__init__()
        self.images, self.numbers, self.heads, self.batch_size, self.epoch = images, numbers, heads, batch_size, 0

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __getitem__(self, number: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        order = np.random.default_rng((SEED, self.epoch)).permutation(len(self.images))
        rows = np.sort(order[number * self.batch_size : (number + 1) * self.batch_size])
        images = augment_batch(self.images[rows], _SYMMETRIES, seed=(SEED, self.epoch, number))
        return images, (self.numbers[rows],) * self.heads


def load_source_images(cells: int, image_size: int) -> np.ndarray:
    """Return drawn cells as a network sees them, uint8 (cells, image_size, image_size, 3); drawn on the first call."""

    def draw(number: int) -> np.ndarray:
        return prepare_image(draw_any_cell(number, seed=SEED).image, image_size, CROP)

    def compute() -> Iterator[np.ndarray]:
        yield from track(in_threads(draw, range(cells)), "drawing cells", total=cells)

    key = f"{VERSION} {SEED} {cells} {image_size} {CROP}"
    return cached_array("source-images", key, compute, (cells, image_size, image_size, 3), np.uint8)


def build_source_model(name: str, how: Pretraining) -> keras.Model:
    """Build a network from scratch that answers with the numbers behind a cell, once from each of its depths."""
    network = build_model(
        name, how.image_size, depths="several", momentum=0.95, stochastic_depth=False, start_shallow=True, seed=SEED
    )
    pooled = [layer.output for layer in network.layers if layer.name.startswith("head_pool_")]
    numbers = len(any_cell_traits(0, seed=SEED))
    answers = [keras.layers.Dense(numbers, name=f"numbers_{k}")(one) for k, one in enumerate(pooled, 1)]
    model = keras.Model(network.input, answers, name=name)
    steps = how.epochs * ((how.cells - CHECKED) // how.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=how.learning_rate, warmup_steps=min(200, steps // 10)
    )
    # the last depth is what most is asked of; the others shall be of use by themselves
    loss_weights = [0.3] * (len(answers) - 1) + [1.0]
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-4, clipnorm=1.0), ["mse"] * len(answers), loss_weights=loss_weights
    )
    return model


def pretrain(name: str, how: Pretraining | None = None, folder: Path = DRAWN_WEIGHTS) -> Path:
    """Train a network of the registry on drawn cells and store its weights; return the file.

    Interrupted, it goes on after the last whole epoch when it is started again.
    """
    how = how or PRETRAININGS[name]
    start = time.perf_counter()
    images = load_source_images(how.cells, how.image_size)
    numbers = np.array([list(any_cell_traits(k, seed=SEED).values()) for k in range(how.cells)], np.float32)
    model = build_source_model(name, how)
    backup = cache_folder() / f"pretraining-{name}-{VERSION}-{'-'.join(map(str, asdict(how).values()))}"
    batches = DrawnBatches(images[CHECKED:], numbers[CHECKED:], len(model.outputs), how.batch_size)
    kept = keras.callbacks.BackupAndRestore(str(backup), delete_checkpoint=False)
    callbacks = [EpochSeed(batches, SEED), kept, TqdmCallback(desc=name)]
    model.fit(batches, epochs=how.epochs, callbacks=callbacks, verbose=0, shuffle=False)
    answers = model.predict(np.asarray(images[:CHECKED], np.float32), verbose=0)[-1]
    explained = 1 - ((answers - numbers[:CHECKED]) ** 2).mean(axis=0) / numbers[:CHECKED].var(axis=0)
    card = {
        "network": BACKBONES[name].title,
        "source task": "say how a drawn cell of no class and no subject was drawn",
        "explained": {name: round(float(share), 3) for name, share in zip(any_cell_traits(0), explained, strict=True)},
        "drawing rules": VERSION,
        "seed": SEED,
        **asdict(how),
        "seconds in the last session": round(time.perf_counter() - start),
        "versions": {package: version(package) for package in ("allkit", "keras", "tensorflow", "numpy")},
        "command": f"python -m allkit.synthetic.pretraining {name}",
    }
    return store_weights(model, name, folder, card)


def store_weights(model: keras.Model, name: str, folder: Path, card: dict) -> Path:
    """Write the weights of a model's backbone so that `allkit.models.load_drawn_weights` can read them, and its card.

    Kernels take 8 bits and a scale per output channel, everything else 16 bits.
    """
    stored = {"alpha": np.float32(1.0)}
    for weight in model.weights:
        values = np.asarray(weight, np.float32)
        if weight.path.startswith(("numbers_", "head_", "normalization")):
            continue
        if values.ndim == 4:
            axes = (0, 1) if values.shape[3] == 1 else (0, 1, 2)  # depthwise: one filter per channel
            scale = np.abs(values).max(axis=axes, keepdims=True) / 127 + 1e-12
            stored[weight.path] = np.rint(values / scale).astype(np.int8)
            stored[f"{weight.path}:scale"] = scale.astype(np.float32)
        else:
            stored[weight.path] = values.astype(np.float32 if weight.path.endswith("variance") else np.float16)
    folder.mkdir(parents=True, exist_ok=True)
    with saving(folder / f"{name}.npz") as file, saving(folder / f"{name}.json") as words:
        with open(file, "wb") as opened:
            np.savez_compressed(opened, **stored)
        words.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return folder / f"{name}.npz"


def main(names: list[str]) -> None:
    """Train networks of the registry on drawn cells, and store their weights in data/weights."""
    for name in names:
        print(pretrain(name))


if __name__ == "__main__":
    typer.run(main)
