"""Keras on TensorFlow, with Keras' usual settings and without start-up messages: every module takes them from here."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from allkit import AllkitError

if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the user's keras.json or environment says
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


_M_TOP_PAD, _KEPT = -2, 128 << 20  # bytes, more than one of glibc's heaps


def _keep_memory() -> None:
    """Have glibc keep the memory that a training step frees: the next step needs it again.

    By default a thread's last heap is given back as soon as it is empty: in a training with many threads at every step,
    which costs thousands of page faults each (`make bench` counts them).
    """
    if platform.libc_ver()[0] == "glibc":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_TOP_PAD, _KEPT)


_keep_memory()


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

if keras.backend.backend() != "tensorflow":
    raise AllkitError(
        f"Keras runs on {keras.backend.backend()} in this process, and allkit needs TensorFlow: start a new kernel and "
        "import allkit first."
    )

# as the networks and their weights were made, whatever the user's keras.json says
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
keras.config.set_dtype_policy("float32")
keras.config.set_epsilon(1e-7)

__all__ = ["TqdmCallback", "keras", "tf"]
