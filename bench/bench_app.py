"""What one answer of the upload cell costs: ratios of things measured in turn in one run (`make bench`).

Writes bench/app.json and prints a table. The networks are untrained: their speed does not depend on their weights.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from common import SMALL, measure, ratios, save, spread
from PIL import Image

from allkit.classify import build_limits, classify_bytes, classify_files, prepare_bytes
from allkit.data import load_index
from allkit.explain import build_grad_cam
from allkit.images import in_threads
from allkit.models import TrainedModel, build_model, predict_images, title_of
from allkit.synthetic import draw_cell, make_twin

REPEATS = 10 if SMALL else 40
FILES = 60 if SMALL else 500


def untrained(name: str, size: int, rows: pd.DataFrame) -> TrainedModel:
    """Return a network with limits, as if it had been trained on drawn cells."""
    metadata = {"model": name, "title": title_of(name), "classes": ["ALL", "HEM"], "data": {"source": "synthetic"},
            "input": {"image_size": size, "crop": 300}}  # fmt: skip
    plain = TrainedModel(build_model(name, size, pooling="avg", seed=0), metadata)
    answers = np.array([list(answer.probabilities.values()) for answer in classify_files(rows["path"], plain)])
    return TrainedModel(plain.model, metadata | {"limits": build_limits(plain, rows, answers)})


def bench_one_answer(trained: TrainedModel) -> dict:
    """One image: the parts of an answer, the network alone in three ways, and Grad-CAM."""
    import tensorflow as tf

    out = io.BytesIO()
    Image.fromarray(draw_cell("ALL", subject="1").image).save(out, "PNG")
    data, size = out.getvalue(), trained.metadata["input"]["image_size"]
    seen = classify_bytes(data, trained).image
    batch = seen[None].astype(np.float32)
    compiled = tf.function(lambda x: trained.model(x, training=False))
    explain = build_grad_cam(trained)
    times = measure(
        {
            "bare compiled forward pass": lambda: compiled(batch).numpy(),
            "model part of an answer": lambda: predict_images(trained, seen[None]),
            "Keras' predict": lambda: trained.model.predict(batch, verbose=0),
            "Grad-CAM": lambda: explain(seen, "ALL"),
            "whole answer": lambda: classify_bytes(data, trained),
        },
        REPEATS,
    )
    parts = pd.DataFrame([dict(classify_bytes(data, trained).seconds) for _ in range(REPEATS)]).median() * 1000
    return {
        "network": f"{trained.metadata['title']}, {size} px",
        "milliseconds": spread(times),
        "parts of an answer, ms": parts.round(2).to_dict(),
        "ratio to the bare pass": ratios(times, to=times["bare compiled forward pass"]),
    }


def bench_many_files(trained: TrainedModel, paths: list[str]) -> dict:
    """Many files: everything, beside decoding with its checks alone and the network alone."""

    def decode() -> list:
        return list(in_threads(lambda path: prepare_bytes(Path(path).read_bytes(), trained, name=path), paths))

    ready = np.stack([item.image for item in decode()])
    alone = {
        "decoding and checks alone": decode,
        "network alone": lambda: predict_images(trained, ready, batch_size=32),
    }
    times = measure(alone | {"both, overlapping": lambda: list(classify_files(paths, trained))}, repeats=3)
    slower = times[list(alone)].median().idxmax()
    return {
        "network": f"{trained.metadata['title']}, {trained.metadata['input']['image_size']} px",
        "files": len(paths),
        "milliseconds": spread(times, digits=0),
        "cores kept busy": {name: busy_cores(way) for name, way in alone.items()},
        "ratio to the slower of the two": ratios(times, to=times[slower])["both, overlapping"],
    }


def busy_cores(way: Callable[[], object]) -> float:
    """Return processor time over wall time: where it nears the number of cores, overlapping can gain nothing."""
    wall, processor = time.perf_counter(), time.process_time()
    way()
    return round((time.process_time() - processor) / (time.perf_counter() - wall), 2)


def main() -> None:
    """Run everything, print it, and write it beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        index = load_index(make_twin(Path(folder) / "twin", images=FILES, seed=1))
        rows = index[index["part"] == "train"]
        networks = [untrained("mobilenet", 96, rows[:60]), untrained("efficientnetb3", 64, rows[:60])]
        result = {
            "one answer": [bench_one_answer(trained) for trained in networks],
            "many files": [bench_many_files(trained, list(rows["path"])) for trained in networks],
        }
    save("app", result)


if __name__ == "__main__":
    main()
