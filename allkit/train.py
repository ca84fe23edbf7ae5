"""Training: profiles, the paper's learning-rate rule, input pipeline, and `train_model`."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import display

from allkit import AllkitError, __version__, saving
from allkit.augment import Augmentation, augment_batch, load_part
from allkit.backend import TqdmCallback, keras, tf
from allkit.data import class_order, index_hash
from allkit.images import CELL_SIDE, fitting_crop
from allkit.models import (
    DRAWN_WEIGHTS,
    FusedNetwork,
    TrainedModel,
    build_model,
    head_of,
    load_features,
    standardise_head,
    title_of,
)
from allkit.parameters import as_kind
from allkit.plots import figure_png, plot_history
from allkit.splits import Split, assert_disjoint, sample_weights


class LearningRateRule:
    """The rule behind Tables I and II, without Keras: feed it epochs, it says what to do next.

    While training accuracy is below `threshold` the rule monitors accuracy, from then on validation loss.
    Without improvement on the best so far for `patience` epochs the learning rate is multiplied by `factor`;
    after `stop_patience` such steps in a row, training stops. While accuracy is monitored, the lowest
    validation loss is noted only at epochs where both improve: that is why Table I reads -90.80 % at epoch 4.
    """

    threshold = 0.9
    factor = 0.5
    stop_patience = 3

    def __init__(self, patience: int = 1) -> None:
        self.patience = patience
        self.best_accuracy, self.lowest_loss = -math.inf, math.inf
        self.waited = self.steps = 0

    @property
    def stopped(self) -> bool:
        """Whether the rule has given up."""
        return self.steps >= self.stop_patience

    def update(self, accuracy: float, val_loss: float, lr: float) -> dict[str, Any]:
        """Take one epoch (accuracy 0–1) and return monitor, improvement in percent, next_lr and improved."""
        on_accuracy = accuracy < self.threshold
        value, best = (accuracy, self.best_accuracy) if on_accuracy else (-val_loss, -self.lowest_loss)
        improved = value > best
        improvement = 100 * (value - best) / abs(best) if math.isfinite(best) and best else 0.0
        if improved or not on_accuracy:
            self.lowest_loss = min(self.lowest_loss, val_loss)
        self.best_accuracy = max(self.best_accuracy, accuracy)
        self.waited = 0 if improved else self.waited + 1
        self.steps = 0 if improved else self.steps
        if self.waited >= self.patience:
            lr, self.waited, self.steps = lr * self.factor, 0, self.steps + 1
        monitor = "accuracy" if on_accuracy else "val_loss"
        return {"monitor": monitor, "improvement": improvement, "next_lr": lr, "improved": improved}


@dataclass(frozen=True)
class Profile:
    """Everything that a training run decides, in one place.

    Attributes:
        split: "subject", "image" (as in the paper), "given", "folds" or "hold-out"; see `allkit.splits.split_data`.
        allow_leak: consent to a split that shares subjects.
        image_size: side of the network's input, px.
        crop: side of the centre square cut out of a 450-px C-NMC image first, px; None: the whole image.
        weights, alpha, rescale, depths, pooling, momentum, penalty, stochastic_depth, start_shallow: see
            `allkit.models.build_model`.
        frozen_copies: how many copies of each training image, augmented if there is an augmentation, pass through the
            backbone once and for all; the backbone stays as it is, the head alone learns from these features, and
            every epoch takes another copy. 0: the whole network is trained, on images newly augmented at every step.
        batch_size, learning_rate, epochs: of the training with Adamax.
        augmentation: of training images; None: they stay as they are.
        class_weight: whether all classes count the same.
        weigh: what counts the same within its class, where classes do and wherever something is chosen on the
            validation part: every "subject" or every "image"; see `allkit.splits.sample_weights`.
        patience: epochs without improvement before the learning-rate rule lowers the rate.
        best_by: which epoch's weights are kept: "rule" (the best by the paper's rule), "balanced_accuracy" (the best by
            that of the validation part, weighed) or "last".
    """

    name: str
    split: str = "subject"
    allow_leak: bool = False
    image_size: int = 224
    crop: int | None = None
    weights: str | None = None
    alpha: float = 1.0
    rescale: bool = True
    depths: str = "last"
    pooling: str = "max"
    momentum: float = 0.99
    penalty: float = 1.0
    stochastic_depth: bool = True
    start_shallow: bool = False
    frozen_copies: int = 0
    batch_size: int = 40
    learning_rate: float = 1e-3
    epochs: int = 5
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    class_weight: bool = True
    weigh: str = "subject"
    patience: int = 1
    best_by: str = "rule"


_ALL_SYMMETRIES = Augmentation(horizontal_flip=True, vertical_flip=True, right_angles=True)

PROFILES = {
    # The recipe recovered from the paper's own numbers (III.B.2-3, Tables I and II).
    "paper": Profile(
        "paper", split="image", allow_leak=True, weights="imagenet", rescale=False,
        augmentation=Augmentation(horizontal_flip=True), class_weight=False, weigh="image",
    ),
    # Subject split, right scaling, the cell rather than the black around it, features of several depths from a backbone
    # that stays as it is, subjects weighed alike. Chosen by five-fold grouped cross-validation over the subjects of
    # genuine cells, by the AUC weighted by subject.
    "honest": Profile(
        "honest", image_size=224, crop=CELL_SIDE, weights="imagenet", depths="several", frozen_copies=1,
        augmentation=None, batch_size=64, epochs=30, patience=30, best_by="last",
    ),
    # The same in a minute on a laptop without a network: smaller images, and weights that the kit carries.
    "quick": Profile(
        "quick", image_size=96, crop=CELL_SIDE, weights="drawn", depths="several", frozen_copies=2,
        augmentation=_ALL_SYMMETRIES, batch_size=32, epochs=8, patience=8, best_by="last",
    ),
}  # fmt: skip

_BY_MODEL = {("quick", "efficientnetb3"): {"image_size": 80}}

# A backbone of random weights has nothing to offer: all layers are trained. With under two hundred steps the learning
# rate has to be higher, the batch-norm memory far shorter than 0.99, and the rule too patient to lower the rate by
# chance. EfficientNetB3 leaves out whole branches at random while it trains, too much noise for a hundred steps, and
# is too deep to learn in so few unless it starts shallow.
_FROM_SCRATCH = {"depths": "last", "frozen_copies": 0, "pooling": "avg", "augmentation": _ALL_SYMMETRIES}
_FROM_SCRATCH_BY_MODEL = {
    "mobilenet": {"momentum": 0.8, "batch_size": 16, "epochs": 8, "learning_rate": 8e-3, "patience": 9},
    "efficientnetb3": {
        "momentum": 0.9, "batch_size": 32, "epochs": 6, "learning_rate": 3e-3, "penalty": 0.05,
        "stochastic_depth": False, "start_shallow": True,
    },
}  # fmt: skip


def get_profile(name: str, model: str = "mobilenet", index: pd.DataFrame | None = None, **overrides) -> Profile:
    """Return a profile, adapted to the model and the data, with every override that is not None.

    Overrides are fields of `Profile`; None leaves a field alone, and the word "none" means None. `crop` is meant for
    450-px single cells: it is dropped where `index` holds anything but C-NMC or its synthetic twin, and scaled where
    these come in another size. Raises AllkitError for an unknown profile or field, naming the near misses, and for a
    value of another kind.
    """
    if name not in PROFILES:
        raise AllkitError(f"there is no profile {name!r}; choose one of {', '.join(PROFILES)}.")
    known = [f.name for f in dataclasses.fields(Profile)]
    for key in overrides:
        if key not in known:
            near = get_close_matches(key, known) or known
            raise AllkitError(f"a profile has no field {key!r}; did you mean {', '.join(near)}?")
    kinds = get_type_hints(Profile)
    given = {k: v if k == "augmentation" else as_kind(k, v, kinds[k]) for k, v in overrides.items() if v is not None}
    changed = _BY_MODEL.get((name, model), {}) | given
    if changed.get("weights", PROFILES[name].weights) is None and PROFILES[name].frozen_copies:
        changed = _FROM_SCRATCH | _FROM_SCRATCH_BY_MODEL.get(model, _FROM_SCRATCH_BY_MODEL["mobilenet"]) | changed
    if index is not None and "crop" not in given:
        changed["crop"] = fitting_crop(changed.get("crop", PROFILES[name].crop), index)
    profile = dataclasses.replace(PROFILES[name], **changed)
    if profile.epochs < 1:
        raise AllkitError(f"epochs is {profile.epochs}; train for one epoch at least.")
    return profile


def changed_settings(settings: dict[str, Any], model: str) -> dict[str, Any]:
    """Return the settings in which metadata differs from the profile of the same name; empty for an unknown name."""
    if settings.get("name") not in PROFILES:
        return {}
    usual = dataclasses.asdict(get_profile(settings["name"], model))
    return {key: value for key, value in settings.items() if key in usual and value != usual[key]}


def profile_table(profile: Profile) -> pd.DataFrame:
    """Return the profile as a table of setting and value, for printing."""
    rows = dataclasses.asdict(profile)
    rows["augmentation"] = ", ".join(f"{k}={v}" for k, v in (rows["augmentation"] or {}).items() if v) or "none"
    return pd.DataFrame({"setting": rows.keys(), "value": [str(value) for value in rows.values()]})


class Batches(keras.utils.PyDataset):
    """Batches of (images float32 0–255, one-hot labels, sample weights).

    Order and augmentation depend on (seed, epoch, batch) alone, so that a resumed training sees what an uninterrupted
    one would have seen. `images` may hold several copies of all images, one copy of all after the other; each epoch
    takes another copy of each image.
    """

    def __init__(self, images, labels, weights, batch_size, *, seed=0, shuffle=False, augmentation=None):
        super().__init__()
        self.images, self.labels, self.sample_weights = images, labels, weights
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.augmentation, self.epoch = augmentation, 0

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order = np.arange(len(self.labels))
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(len(order))
        rows = order[number * self.batch_size : (number + 1) * self.batch_size]
        copies = len(self.images) // len(self.labels)
        images = np.asarray(self.images[rows + len(self.labels) * ((rows + self.epoch) % copies)], np.float32)
        if self.augmentation is not None:
            images = augment_batch(images, self.augmentation, seed=(self.seed, self.epoch, number))
        return images, self.labels[rows], self.sample_weights[rows]


def build_batches(
    part: pd.DataFrame,
    classes: tuple[str, ...],
    profile: Profile,
    *,
    training: bool,
    seed: int = 0,
    network: FusedNetwork | None = None,
) -> Batches:
    """Build the input pipeline of one part of a split.

    Prepared images are read from disk through a memory map, so memory does not grow with their number (but for the
    copies of a balanced part). Training batches are shuffled and augmented; others come in order, as they are. Rows
    are weighed as the profile says. With a `network` the batches hold its features of the images, see
    `allkit.models.load_features`.
    """
    size = {"image_size": profile.image_size, "crop": profile.crop}
    augmentation = profile.augmentation if training else None
    if network is None:
        images = load_part(part, **size)
    else:
        copies = {"augmentation": augmentation, "copies": profile.frozen_copies} if training else {}
        images, augmentation = load_features(network, part, **size, **copies, seed=seed), None
    position = {name: k for k, name in enumerate(classes)}
    labels = np.eye(len(classes), dtype=np.float32)[part["label"].map(position).to_numpy()]
    chooses = not training and profile.best_by != "rule"
    weights = sample_weights(part, profile.weigh) if profile.class_weight or chooses else np.ones(len(part))
    return Batches(
        images, labels, weights.astype(np.float32), profile.batch_size,
        seed=seed, shuffle=training, augmentation=augmentation,
    )  # fmt: skip


class MonitorSwitchLR(keras.callbacks.Callback):
    """The paper's learning-rate rule as a Keras callback (Tables I and II).

    It sets the optimiser's learning rate after each epoch, stops training when the rule gives up, and at the end
    restores the weights of the best epoch: by "rule" the last that improved on the monitored quantity, by
    "balanced_accuracy" that with the highest of the validation part, or simply the "last".
    """

    columns = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "next_lr", "monitor", "improvement",
               "seconds")  # fmt: skip

    def __init__(self, patience: int = 1, *, best_by: str = "rule") -> None:
        super().__init__()
        self.rule, self.best_by = LearningRateRule(patience), best_by
        self.rows: list[dict] = []
        self.best_value, self.best_epoch, self.best_weights = -math.inf, None, None
        self._started = time.perf_counter()

    @property
    def table(self) -> pd.DataFrame:
        """One row per epoch, columns as in Tables I and II: accuracies 0–1, improvement in percent, lr as set.

        Besides, `answers` and `val_answers`: the loss without the penalty on the weights, nats.
        """
        more = [] if self.best_by == "rule" else ["val_balanced_accuracy"]
        more += ["answers", "val_answers"] if any("answers" in row for row in self.rows) else []
        return pd.DataFrame(self.rows, columns=[*self.columns, *more])

    def replay(self, rows: list[dict]) -> None:
        """Take up the state after these epochs, as when they had just been trained."""
        for row in rows:
            step = self.rule.update(row["accuracy"], row["val_loss"], row["lr"])
            self._note_best(row, step["improved"])
            self.rows.append(row)

    def on_epoch_begin(self, epoch, logs=None):
        """Note the time."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Apply the rule and keep what it says."""
        seconds = time.perf_counter() - self._started
        values = {k: float(v) for k, v in (logs or {}).items()}
        lr = float(np.asarray(self.model.optimizer.learning_rate))
        step = self.rule.update(values["accuracy"], values["val_loss"], lr)
        row = {**values, "epoch": epoch + 1, "lr": lr, "seconds": seconds, **step}
        improved = row.pop("improved")
        self.model.optimizer.learning_rate = step["next_lr"]
        self.model.stop_training = self.model.stop_training or self.rule.stopped
        if self._note_best(row, improved):
            self.best_weights = self.model.get_weights()
        self.rows.append(row)

    def on_train_end(self, logs=None):
        """Restore the weights of the best epoch."""
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)

    def _note_best(self, row: dict, improved: bool) -> bool:
        if self.best_by == "balanced_accuracy":
            improved = row["val_balanced_accuracy"] > self.best_value
            self.best_value = max(self.best_value, row["val_balanced_accuracy"])
        improved = improved or self.best_by == "last"
        self.best_epoch = row["epoch"] if improved else self.best_epoch
        return improved


class Checkpoints(keras.callbacks.Callback):
    """Keeps after every epoch, in one file, all that a training needs to go on.

    The file of the epoch before stays until the next is whole, and is taken, with a sentence, where that is damaged.
    `folder` holds the checkpoints of one training alone.
    """

    def __init__(self, rule: MonitorSwitchLR, folder: Path) -> None:
        super().__init__()
        self.rule, self.last, self.before = rule, folder / "last.npz", folder / "before.npz"
        self.finished = folder / "finished.npz"

    def on_epoch_end(self, epoch, logs=None):
        """Keep the state after this epoch."""
        self._save(self.model)

    def restore(self, model: keras.Model) -> int:
        """Give model and rule the state of the last whole epoch; return how many are done. Begins with epoch 0."""
        kept = _read_checkpoint(self.last)
        if kept is None:
            self.last.unlink(missing_ok=True)  # else it would take the place of the one before
            kept = _read_checkpoint(self.before)
        if kept is None:
            self._save(model)  # an interrupted first epoch begins again with these weights
            return 0
        rows, states = kept
        model.set_weights(states["model"])
        for variable, value in zip(model.optimizer.variables, states["optimiser"], strict=True):
            variable.assign(value)
        self.rule.replay(rows)
        self.rule.best_weights = states["best"] or states["model"]
        return len(rows)

    def restore_finished(self, model: keras.Model) -> bool:
        """Give model and rule the end of a training that is done; return whether it is."""
        kept = _read_checkpoint(self.finished)
        if kept is not None:
            self.rule.replay(kept[0])
            model.set_weights(kept[1]["model"])
        return kept is not None

    def finish(self, model: keras.Model) -> None:
        """Keep the rows and the best weights; drop the far larger state of the optimiser."""
        _write_checkpoint(self.finished, self.rule.rows, {"model": model.get_weights()})
        for file in (self.last, self.before):
            file.unlink(missing_ok=True)

    def _save(self, model: keras.Model) -> None:
        if self.last.is_file():
            os.replace(self.last, self.before)
        optimiser = [np.asarray(variable) for variable in model.optimizer.variables]
        is_best = self.rule.best_epoch == len(self.rule.rows)  # the same weights twice are not worth the space
        best = [] if is_best or not self.rule.best_weights else self.rule.best_weights
        _write_checkpoint(
            self.last, self.rule.rows, {"model": model.get_weights(), "optimiser": optimiser, "best": best}
        )


# what NumPy and zipfile raise on damaged bytes, which may claim encryption or an unknown compression
_DAMAGE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


def _write_checkpoint(file: Path, rows: list[dict], states: dict[str, list[np.ndarray]]) -> None:
    arrays = {f"{name}-{k:04}": values for name, state in states.items() for k, values in enumerate(state)}
    with saving(file) as temporary:
        np.savez(temporary, rows=np.array(json.dumps(rows)), **arrays)


def _read_checkpoint(file: Path) -> tuple[list[dict], dict[str, list[np.ndarray]]] | None:
    """Return the rows and states of a checkpoint, None where there is none or it is damaged."""
    if not file.is_file():
        return None
    states: dict[str, list[np.ndarray]] = {"model": [], "optimiser": [], "best": []}
    try:
        with np.load(file) as stored:
            rows = json.loads(str(stored["rows"]))
            for name in sorted(set(stored.files) - {"rows"}):
                states[name.partition("-")[0]].append(stored[name])
    except _DAMAGE as error:
        print(f"The checkpoint {file} is damaged ({error}) and not used; what is missing is trained again.")
        return None
    return rows, states


class EpochSeed(keras.callbacks.Callback):
    """Ties order, augmentation and dropout of an epoch to (seed, epoch) alone."""

    def __init__(self, batches: Batches, seed: int) -> None:
        super().__init__()
        self.batches, self.seed = batches, seed

    def on_epoch_begin(self, epoch, logs=None):
        """Set the epoch of the batches, and the seed of every layer that draws."""
        self.batches.epoch = epoch
        for number, layer in enumerate(self.model.layers):
            if generator := getattr(layer, "seed_generator", None):
                key = np.random.SeedSequence((self.seed, epoch, number)).generate_state(2)
                generator.state.assign(key)


class GrowingCurve(keras.callbacks.Callback):
    """Accuracy and loss of a `MonitorSwitchLR` as curves that grow, and at the end as a table: one output of a cell."""

    def __init__(self, rule: MonitorSwitchLR, what: str, epochs: int) -> None:
        super().__init__()
        self.rule, self.what, self.epochs, self.shown = rule, what, epochs, 0.0

    def on_train_begin(self, logs=None):
        """Make the output."""
        self.handle = display({"text/plain": f"{self.what}: starting"}, raw=True, display_id=True)

    def on_train_batch_end(self, batch, logs=None):
        """Say where the epoch stands, once a second."""
        if time.monotonic() - self.shown > 1:
            self._update(f"batch {batch + 1} of {self.params['steps']}")

    def on_epoch_end(self, epoch, logs=None):
        """Go on with the curves, once a second."""
        if time.monotonic() - self.shown > 1:
            self._update()

    def on_train_end(self, logs=None):
        """Show all rows."""
        title = f"{self.what}: {len(self.rule.rows)} of {self.epochs} epochs"
        self.handle.update(format_history(self.rule.table, self.epochs).set_index("Epoch").rename_axis(title))

    def _update(self, where: str = "") -> None:
        self.shown = time.monotonic()
        words = f"{self.what}: {len(self.rule.rows)} of {self.epochs} epochs {where}".strip()
        bundle = {"text/plain": words}
        if self.rule.rows:
            bundle |= {"image/png": figure_png(plot_history(self.rule.table))}
        self.handle.update(bundle, raw=True, metadata={"image/png": {"alt": words, "width": 700}})


def format_history(table: pd.DataFrame, epochs: int | None = None) -> pd.DataFrame:
    """Return a history as text, printed as the paper prints Tables I and II; `epochs` is how many are planned."""
    total = epochs or len(table)
    formats = {
        "Epoch": ("epoch", lambda v: f"{int(v)}/{total}"), "Loss": ("loss", "{:.3f}".format),
        "Accuracy %": ("accuracy", lambda v: f"{100 * v:.3f}"), "Val. loss": ("val_loss", "{:.5f}".format),
        "Val. accuracy %": ("val_accuracy", lambda v: f"{100 * v:.3f}"), "LR": ("lr", "{:.5f}".format),
        "Next LR": ("next_lr", "{:.5f}".format), "Monitor": ("monitor", str),
        "Improvement %": ("improvement", "{:.2f}".format), "Seconds": ("seconds", "{:.2f}".format),
    }  # fmt: skip

    return pd.DataFrame({title: table[column].map(form) for title, (column, form) in formats.items()})


@dataclass(frozen=True)
class Training:
    """What a training leaves behind.

    Attributes:
        trained: the network with the best epoch's weights, and its metadata.
        history: one row per epoch as in Tables I and II.
        seconds: time of reading the images, computing features, and of all epochs.
        resumed: epochs that were not trained now because a checkpoint held them.
        best_epoch: the epoch whose weights were kept, counted from 1.
    """

    trained: TrainedModel
    history: pd.DataFrame
    seconds: float
    resumed: int
    best_epoch: int


def build_from_profile(name: str, profile: Profile, classes: int, *, seed: int = 123) -> keras.Model:
    """Build the network `name` as the profile says; see `allkit.models.build_model`."""
    return build_model(
        name, profile.image_size, classes, weights=profile.weights, alpha=profile.alpha,
        depths=profile.depths, pooling=profile.pooling, momentum=profile.momentum, penalty=profile.penalty,
        stochastic_depth=profile.stochastic_depth, start_shallow=profile.start_shallow,
        rescale=profile.rescale, seed=seed,
    )  # fmt: skip


def set_determinism(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and make TensorFlow's operations repeatable, for the whole process.

    Guaranteed: the same seed, data, settings and versions, on the same machine with as many threads, give the same
    weights and the same bytes of predictions-*.csv, also in another process. Training may take longer.

    Not guaranteed: the same figures on another processor (oneDNN chooses its code by instruction set), with another
    number of threads (sums are then split in other places), on a GPU instead of a processor, or with other versions.
    Such differences begin in the last digit and grow with every step. Times are never the same. Without the switch
    the order of images and their augmentation are still the same; nothing else is promised. On a GPU it is not tested.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train_model(
    model: keras.Model,
    split: Split,
    profile: Profile,
    *,
    folder: Path | None = None,
    seed: int = 123,
    deterministic: bool = False,
    show: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Training:
    """Train a model from `build_model` on a split, as the profile says (paper III.B.2-3).

    The training part is learned from, the validation part chooses the best epoch, the test part is not read. The
    training begins with the weights that the model has. One that was interrupted resumes from the checkpoints of its
    recipe in `folder`, after its last whole epoch and whatever weights the model has by then; a finished one is loaded.
    `seed` is that of order, augmentation and dropout; `deterministic`: see `set_determinism`. The `callbacks` take part
    in every phase. Raises LeakError where the split shares images or subjects and the profile does not allow it.
    """
    assert_disjoint(split, allow_leak=profile.allow_leak)
    keras.utils.set_random_seed(seed)
    if deterministic:
        set_determinism(seed)
    start = time.perf_counter()
    if folder is not None:
        folder = Path(folder) / f"{model.name}-{_fingerprint(model.name, split, profile, seed, deterministic)}"
    # made only where features are wanted: it takes a second or two
    network = FusedNetwork(model) if profile.frozen_copies or _standardises(model) else None
    batches = _build_both(split, profile, seed, network if profile.frozen_copies else None)
    if network is not None:
        _standardise(network, split, profile, batches["train"])
    if profile.class_weight and profile.weigh == "subject" and split.train["subject"].isna().any():
        print("Subjects are unknown, so every image counts the same within its class.")
    prepared = time.perf_counter() - start
    learner = head_of(model) if profile.frozen_copies else model
    rule, resumed = _fit(learner, batches, profile, folder, seed, show, callbacks)
    seconds = prepared + float(rule.table["seconds"].sum())
    facts = {"seed": seed, "deterministic": deterministic, "best_epoch": rule.best_epoch or 1}
    metadata = _make_metadata(model, split, profile) | facts | {"training_seconds": round(seconds, 2)}
    trained = TrainedModel(model, metadata, network)
    return Training(trained, rule.table, seconds, resumed, facts["best_epoch"])


def _build_both(split: Split, profile: Profile, seed: int, network: FusedNetwork | None) -> dict[str, Batches]:
    """Return the batches to learn from and those that choose the best epoch."""
    classes = class_order(split.train)
    return {
        name: build_batches(
            split.parts[name], classes, profile, training=name == "train", seed=seed, network=network
        )
        for name in ("train", "validation")
    }  # fmt: skip


def _standardises(model: keras.Model) -> bool:
    return any(layer.name == "head_standardise" for layer in model.layers)


def _standardise(network: FusedNetwork, split: Split, profile: Profile, batches: Batches) -> None:
    """Give a head on several depths the statistics of the training part's features."""
    if not _standardises(network.network):
        return
    features = batches.images
    if not profile.frozen_copies:
        features = load_features(network, split.train, image_size=profile.image_size, crop=profile.crop)
    copies = len(features) // len(split.train)
    standardise_head(network.network, features, np.tile(batches.sample_weights, copies))


def _fit(model, batches, profile, home, seed, show, more=()) -> tuple[MonitorSwitchLR, int]:
    """Train a model, or finish what was interrupted; return its rule and the number of epochs found done."""
    model.compile(
        optimizer=keras.optimizers.Adamax(profile.learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=[
            keras.metrics.CategoricalAccuracy(name="balanced_accuracy"),
            keras.metrics.CategoricalCrossentropy(name="answers"),
        ],
        # a step of a head is over sooner than a return to Python
        steps_per_execution=len(batches["train"]) if profile.frozen_copies else 1,
    )
    rule = MonitorSwitchLR(profile.patience, best_by=profile.best_by)
    checkpoints = None if home is None else Checkpoints(rule, home)
    if checkpoints and checkpoints.restore_finished(model):
        return rule, len(rule.rows)
    _make_variables(model, batches["validation"])
    done = checkpoints.restore(model) if checkpoints else 0
    what = "head" if profile.frozen_copies else "all layers"
    progress = [_progress(rule, what, profile.epochs)] if show else []
    callbacks = [EpochSeed(batches["train"], seed), rule, *progress, *([checkpoints] if checkpoints else []), *more]
    if rule.rule.stopped or done == profile.epochs:  # killed between the last epoch and the end
        rule.set_model(model)
        rule.on_train_end()
    else:
        model.fit(batches["train"], validation_data=batches["validation"], initial_epoch=done, epochs=profile.epochs,
                  callbacks=callbacks, verbose=0, shuffle=False)  # fmt: skip
    if checkpoints:
        checkpoints.finish(model)
    return rule, done


def _progress(rule: MonitorSwitchLR, what: str, epochs: int) -> keras.callbacks.Callback:
    if hasattr(get_ipython(), "kernel"):
        return GrowingCurve(rule, what, epochs)
    return TqdmCallback(desc=what)


def _make_variables(model: keras.Model, batches: Any) -> None:
    """Create the optimiser's and the metrics' variables before the first step.

    Made inside that step, they would have TensorFlow trace it twice, which takes longer than many an epoch.
    """
    model.optimizer.build(model.trainable_variables)
    model.evaluate(batches, steps=1, verbose=0)


def _fingerprint(name: str, split: Split, profile: Profile, seed: int, deterministic: bool) -> str:
    parts = [index_hash(part) for part in (split.train, split.validation)]
    copies = split.train["augmentation"].tolist() if "augmentation" in split.train else []
    recipe = [name, parts, copies, dataclasses.asdict(profile), seed, __version__]
    if profile.weights == "drawn":
        recipe.append(hashlib.sha256((DRAWN_WEIGHTS / f"{name}.npz").read_bytes()).hexdigest())
    # epochs that were trained without the switch are not repeatable, so they are not taken up with it
    recipe = json.dumps([*recipe, "deterministic"] if deterministic else recipe, sort_keys=True)
    return hashlib.sha256(recipe.encode()).hexdigest()[:8]


def _make_metadata(model, split, profile) -> dict:
    parts, classes = split.parts, class_order(split.train)
    return {
        "format": 1,
        "model": model.name,
        "title": title_of(model.name),
        "classes": list(classes),
        "input": {"image_size": profile.image_size, "crop": profile.crop, "values": "RGB, 0-255"},
        "data": {"source": str(split.train["source"].iloc[0]), "images": sum(map(len, parts.values()))},
        "split": {
            "name": split.name,
            "note": split.note,
            "shares_subjects": split.shares_subjects,
            "images": {name: len(part) for name, part in parts.items()},
            "classes": {name: {c: int((part["label"] == c).sum()) for c in classes} for name, part in parts.items()},
            "subjects": {name: _count_subjects(part) for name, part in parts.items()},
            "hash": {name: index_hash(part) for name, part in parts.items()},
        },
        "profile": dataclasses.asdict(profile),
        "parameters": model.count_params(),
        "versions": {name: version(name) for name in ("allkit", "keras", "tensorflow", "numpy")},
        "keras": {
            "backend": keras.config.backend(),
            "floatx": keras.config.floatx(),
            "data_format": keras.config.image_data_format(),
            "policy": keras.config.dtype_policy().name,
        },
        "hardware": _hardware(),
    }


def _count_subjects(part: pd.DataFrame) -> int | None:
    return None if part["subject"].isna().any() else int(part["subject"].nunique())


def _hardware() -> dict[str, Any]:
    """Return what the training ran on: system, processor, number of cores, names of graphics processors."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # Linux, where Python knows no more than "x86_64"
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        name = found[1] if found else name
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    gpus = [str(detail.get("device_name", "GPU")) for detail in details]
    return {"system": platform.system(), "processor": name, "cores": os.cpu_count(), "gpus": gpus}
