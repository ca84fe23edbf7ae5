"""How soon a training gets good, whether it waits for data, and whether memory grows (`make bench`).

Writes bench/training.json. Time to quality takes hours; interrupted, it goes on after the last training that was done
when it is started again. It needs the genuine images and weights that ALLKIT_TEST_CNMC,
ALLKIT_TEST_SMEARS and ALLKIT_TEST_WEIGHTS name, and is left out, with a word, where they are missing.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from common import HERE, SMALL, measure, ratios, save

from allkit.augment import Augmentation, load_part
from allkit.backend import keras
from allkit.data import load_index
from allkit.evaluate import evaluate_predictions
from allkit.models import BACKBONES, BATCH_SIZE, FusedNetwork, load_features, predict_index, stage_of
from allkit.splits import Split, split_data
from allkit.synthetic import make_twin
from allkit.train import build_batches, build_from_profile, get_profile, train_model

SEEDS = (123, 124, 125)[: int(os.environ.get("ALLKIT_BENCH_SEEDS", 1 if SMALL else 3))]
"""The full mode takes hours with three seeds, nearly all of them for the paper's recipe."""

ROWS = (300, 3_000) if SMALL else (2_000, 20_000)
NETWORKS = [("mobilenet", 64, 16, 16)] if SMALL else [("mobilenet", 224, 40, 8), ("efficientnetb3", 128, 16, 8)]
"""Name, image side in px, batch size and number of batches of what is timed waiting for data."""

RUNS = HERE / f"training-runs{'-small' if SMALL else ''}.jsonl"
SESSION = time.strftime("%Y-%m-%d %H:%M:%S")

RECIPES = {
    "the paper's recipe": {"name": "paper"},
    "the same, input scaled": {"name": "paper", "rescale": True},
    "the kit's honest recipe": {"name": "honest"},
}
if SMALL:
    del RECIPES["the same, input scaled"]


# ------------------------------------------------------------------------------------ time to quality


def find_tasks() -> dict[str, tuple[pd.DataFrame, Split]]:
    """Return what is trained on: name -> all rows and the split of the first seed."""
    tasks = {}
    if cnmc := os.environ.get("ALLKIT_TEST_CNMC"):
        index = load_index(cnmc)
        index = index[index["fold"] == 1].reset_index(drop=True)
        tasks["genuine cells, by image"] = (index, {"how": "image"})
        tasks["genuine cells, H10 held out"] = (index, {"how": "hold-out", "hold_out": "H10"})
    if smears := os.environ.get("ALLKIT_TEST_SMEARS"):
        tasks["genuine smears, by image"] = (load_index(smears), {"how": "image"})
    return dict(list(tasks.items())[:1]) if SMALL else tasks


def bench_recipes(task: str, index: pd.DataFrame, how: dict) -> list[dict]:
    """Train MobileNet by every recipe on the same images; everything counted, from the files on."""
    rows = []
    for seed in SEEDS:
        split = smaller(split_data(index, how["how"], seed=seed, hold_out=how.get("hold_out", "")))
        for recipe, settings in RECIPES.items():
            profile = get_profile(
                settings["name"], "mobilenet", index, alpha=0.75, allow_leak=True, rescale=settings.get("rescale")
            )
            what = {"task": task, "recipe": recipe, "seed": seed, "profile": repr(profile)}
            rows.append(find_run(what) or keep_run(what | train_once("mobilenet", profile, split, seed)))
            print({key: value for key, value in rows[-1].items() if key != "profile"}, flush=True)
    return summarise(rows)


def find_run(what: dict) -> dict | None:
    """Return the last training of this kind that was kept."""
    kept = [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.is_file() else []
    return next((run for run in reversed(kept) if run | what == run), None)


def keep_run(run: dict) -> dict:
    """Write down a training, and in which session it ran: only times of one session are compared."""
    run = run | {"session": SESSION}
    with RUNS.open("a") as file:
        file.write(json.dumps(run) + "\n")
    return run


def smaller(split: Split) -> Split:
    """Return a split whose parts are cut down for the small mode."""
    if not SMALL:
        return split
    parts = {"train": 40, "validation": 30, "test": 60}  # for the times only: nothing is learned from so few
    cut = {
        k: part.sample(min(len(part), parts[k]), random_state=0).reset_index(drop=True)
        for k, part in split.parts.items()
    }
    return dataclasses.replace(split, **cut)


def train_once(name: str, profile, split: Split, seed: int) -> dict:
    """Train with an empty cache; return wall time and processor time in seconds, and test figures."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALLKIT_CACHE"] = folder
        wall, cpu = time.perf_counter(), time.process_time()
        model = build_from_profile(name, profile, split.train["label"].nunique(), seed=seed)
        training = train_model(model, split, profile, seed=seed, show=False)
        spent = {"seconds": time.perf_counter() - wall, "processor seconds": time.process_time() - cpu}
        found = evaluate_predictions(predict_index(training.trained, split.test))
    return spent | {key: found[key] for key in ("balanced_accuracy", "auc")}


def summarise(rows: list[dict]) -> list[dict]:
    """Return median and range over the seeds by recipe, and times as a share of the first recipe's in its session."""
    table = pd.DataFrame(rows).set_index(["seed", "session"])
    first = table[table["recipe"] == table["recipe"].iloc[0]]
    result = []
    for recipe, group in table.groupby("recipe", sort=False):
        entry = {"recipe": recipe, "seeds": len(group)}
        for key in ("seconds", "processor seconds", "balanced_accuracy", "auc"):
            values = group[key]
            entry[key] = {
                "median": round(float(values.median()), 3),
                "range": [round(float(values.min()), 3), round(float(values.max()), 3)],
            }
        for key in ("seconds", "processor seconds"):
            share = (group[key] / first[key]).dropna()
            entry[f"{key}, share of the paper's recipe"] = round(float(share.median()), 3) if len(share) else None
        result.append(entry)
    return result


def bench_from_scratch(index: pd.DataFrame) -> list[dict]:
    """Train EfficientNetB3 from scratch on synthetic cells: the paper's sizes, and the kit's quick recipe."""
    split = split_data(index, "subject", seed=123)
    recipes = {
        "the paper's recipe, from scratch": get_profile("paper", "efficientnetb3", index, weights="none", epochs=2),
        "the kit's quick recipe, from scratch": get_profile("quick", "efficientnetb3", index, weights="none"),
    }
    rows = [{"recipe": r, "seed": 123, **train_once("efficientnetb3", p, split, 123)} for r, p in recipes.items()]
    return summarise([row | {"session": SESSION} for row in rows])


# ------------------------------------------------------------------------------------- the default run


def bench_default(index: pd.DataFrame) -> dict:
    """Both trainings of the default run, from the files on: seconds, and the figures on its test part."""
    split = split_data(index, "subject", seed=123)
    return {name: train_once(name, get_profile("quick", name, index), split, 123) for name in BACKBONES}


def bench_features(index: pd.DataFrame, name: str) -> dict:
    """Images per second of the features of decoded images, beside the bare forward pass of the same network."""
    profile = get_profile("quick", name, index)
    network = FusedNetwork(build_from_profile(name, profile, 2, seed=0))
    size = {"image_size": profile.image_size, "crop": profile.crop}
    images = np.asarray(load_part(index, **size)[:BATCH_SIZE], np.float32)
    seeds = itertools.count()  # another seed is another entry of the cache
    flipped = Augmentation(horizontal_flip=True)
    batches = -(-len(index) // BATCH_SIZE)
    ways = {
        "bare forward pass": lambda: [network.features(images) for _ in range(batches)],
        "features": lambda: load_features(network, index, **size, augmentation=flipped, seed=next(seeds)),
    }
    rounds = measure(ways, repeats=2 if SMALL else 5)
    rounds["bare forward pass"] *= len(index) / (batches * BATCH_SIZE)
    return {
        "images per second": (1000 * len(index) / rounds.median()).round(1).to_dict(),
        "share of the bare pass": ratios(1 / rounds, to=1 / rounds["bare forward pass"])["features"],
    }


_STEP = """
import resource, sys, time
import numpy as np
from allkit.backend import keras
from allkit.data import load_index
from allkit.splits import split_data
from allkit.train import build_batches, build_from_profile, get_profile, train_model
index = load_index(sys.argv[1])
split = split_data(index, "subject")
profile = get_profile("quick", "mobilenet", index, weights="none", epochs=2)
model = build_from_profile("mobilenet", profile, 2, seed=0)
steps = []
class Watch(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        self.before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        steps.append([now[k] - self.before[k] for k in (0, 1)])
if sys.argv[2] == "inside":
    train_model(model, split, profile, show=False, callbacks=[Watch()])
else:
    model.compile(keras.optimizers.Adamax(1e-3), "categorical_crossentropy")
    batch = build_batches(split.train, ("ALL", "HEM"), profile, training=True)[0]
    watch = Watch()
    for _ in range(40):
        watch.on_train_batch_begin(0)
        model.train_on_batch(*batch)
        watch.on_train_batch_end(0)
print(*np.median(steps[5:], axis=0))
"""


def bench_step(twin: Path) -> dict:
    """One step inside a training beside the same step alone in a fresh process: time, and page faults of memory."""
    found = {}
    for where in ("inside", "fresh"):
        command = [sys.executable, "-c", _STEP, str(twin), where]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[where] = [float(word) for word in done.stdout.split()[-2:]]
    return {
        "step, ms": {where: round(1000 * found[where][0], 1) for where in found},
        "page faults a step": {where: round(found[where][1]) for where in found},
        "ratio": round(found["inside"][0] / found["fresh"][0], 3),
    }


# --------------------------------------------------------------------------------- waiting for data


def bench_waiting(index: pd.DataFrame, name: str, image_size: int, batch_size: int, steps: int) -> dict:
    """Images per second of `fit` with augmentation and a warm cache, beside a batch that is always at hand.

    The same network in turn, all its layers trained, then the head on the frozen rest. Keras' old ImageDataGenerator
    with rotation and zoom is the way of the paper's family of notebooks.
    """
    profile = dataclasses.replace(
        get_profile("quick", name, index, weights="none", image_size=image_size, batch_size=batch_size),
        augmentation=Augmentation(horizontal_flip=True, vertical_flip=True, right_angles=True),
    )
    batches = build_batches(index.iloc[: steps * batch_size], ("ALL", "HEM"), profile, training=True)
    model = build_from_profile(name, profile, 2, seed=0)
    result = {"network": f"{name}, {image_size} px, batches of {batch_size}"}
    for trained in ("all layers", "head alone"):
        for layer in model.layers:
            layer.trainable = trained == "all layers" or stage_of(layer.name) == "head"
        ways = feed(model, batches, batch_size)
        start = time.perf_counter()
        ways["fit of the kit"]()
        first = time.perf_counter() - start
        found = measure(ways, repeats=2 if SMALL else 5)
        rates = (1000 * len(batches) * batch_size / found).round(1)
        share = ratios(1 / found, to=1 / found["bare train_on_batch"])
        result[trained] = {
            "images per second, slow to fast": {way: sorted(of) for way, of in rates.to_dict("list").items()},
            "share of bare train_on_batch": share,
            "first epoch, s": round(first, 1),
        }
    return result


def feed(model, batches, batch_size: int) -> dict[str, Callable[[], object]]:
    """Compile the model and return the ways of training it for one epoch."""
    model.compile(keras.optimizers.Adamax(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    images, labels = (np.concatenate([np.asarray(batches[k][part]) for k in range(len(batches))]) for part in (0, 1))
    generator = keras.src.legacy.preprocessing.image.ImageDataGenerator(
        rotation_range=180, zoom_range=0.2, horizontal_flip=True
    )
    resident = batches[0][:2]

    def bare() -> None:
        for _ in range(len(batches)):
            model.train_on_batch(*resident)

    return {
        "bare train_on_batch": bare,
        "fit of the kit": lambda: model.fit(batches, verbose=0, shuffle=False),
        "fit with ImageDataGenerator": lambda: model.fit(
            generator.flow(images, labels, batch_size=batch_size), steps_per_epoch=len(batches), verbose=0
        ),
    }


# -------------------------------------------------------------------------------------------- memory

_PEAK = """
import sys, threading, time
from pathlib import Path
import pandas as pd
from allkit.data import load_index
from allkit.train import build_batches, build_from_profile, get_profile
from allkit.backend import keras
peak, done = [0], False
def watch():
    while not done:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                peak[0] = max(peak[0], int(line.split()[1]))
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
index = load_index(sys.argv[1])
index = index[index["label"].notna()]
rows = pd.concat([index] * (int(sys.argv[2]) // len(index) + 1)).iloc[: int(sys.argv[2])]
profile = get_profile("quick", "mobilenet", index, weights="none", image_size=64, alpha=0.25)
batches = build_batches(rows, ("ALL", "HEM"), profile, training=True)
model = build_from_profile("mobilenet", profile, 2, seed=0)
model.compile(keras.optimizers.Adamax(1e-3), "categorical_crossentropy")
model.fit(batches, verbose=0, shuffle=False)
done = True
print(peak[0] / 1024)
"""


def bench_memory(twin: Path) -> dict:
    """Peak of the memory that a process has for itself while it reads, caches and trains an epoch, in MB.

    Pages of the cache file are not counted: the system drops them when memory is short.
    """
    peaks = {}
    for rows in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"ALLKIT_CACHE": folder}
            command = [sys.executable, "-c", _PEAK, str(twin), str(rows)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks[rows] = float(done.stdout.split()[-1])
    return {
        "peak, MB, by rows": {k: round(v) for k, v in peaks.items()},
        "ratio": round(peaks[ROWS[1]] / peaks[ROWS[0]], 3),
    }


def main() -> None:
    """Run everything, print it, and write it beside this file."""
    if weights := os.environ.get("ALLKIT_TEST_WEIGHTS"):
        os.environ["KERAS_HOME"] = weights
    with tempfile.TemporaryDirectory() as folder:
        twin = make_twin(Path(folder) / "twin", images=600, seed=1)
        index = load_index(twin)
        index = index[index["label"].notna() & (index["part"] == "train")].reset_index(drop=True)
        os.environ["ALLKIT_CACHE"] = folder
        result = {
            "default run": bench_default(index),
            "features": {name: bench_features(index, name) for name in BACKBONES},
            "a step inside a training": bench_step(twin),
            "waiting for data": [bench_waiting(index, *network) for network in NETWORKS],
            "memory": bench_memory(twin),
        }
        if not SMALL:
            result["EfficientNetB3 from scratch, synthetic cells"] = bench_from_scratch(index)
    tasks = find_tasks() if weights else {}
    result["time to quality"] = (
        {} if tasks else ("left out: set ALLKIT_TEST_CNMC, ALLKIT_TEST_SMEARS and ALLKIT_TEST_WEIGHTS")
    )
    save("training", result)
    for name, task in tasks.items():
        result["time to quality"][name] = bench_recipes(name, *task)
        save("training", result)  # the next task may take an hour
    RUNS.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
