"""Keras on TensorFlow, imported without TensorFlow's start-up messages: every module takes them from here."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what C++ code writes to file descriptor 2; TensorFlow's start-up notes heed no log level."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with _silent_stderr():
    import keras
    import tensorflow as tf
    from tqdm.keras import TqdmCallback

__all__ = ["TqdmCallback", "keras", "tf"]
