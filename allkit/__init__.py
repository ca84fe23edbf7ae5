"""allkit: teaching and analysing the classification of leukemia cell images.

The core, which a student reads; a module imports only those that stand before it:

- `folders`: where run folders lie, and their JSON files
- `parameters`: values as users write them, read as what they are meant to be
- `progress`: one line that says how far something has come
- `images`: reading one image of any kind, preparing it, loading many through a cache
- `source`: what a user says about data, and labels, subjects and parts as users spell them
- `lists`: a list of images (CSV), and reading tables without losing anything
- `cnmc`: C-NMC 2019 and its synthetic twin, recognised by the names of files
- `layout`: what lies at a path, and what its folders mean
- `duplicates`: which images are the same, or nearly
- `data`: one index for every image source, and which subjects share images
- `features`: numbers measured on one cell: area, shape, colour, texture
- `augment`: rotation by the paper's equations, balancing, augmentation of training batches
- `evaluate`: metrics with intervals over subjects, comparison of models, calibration, thresholds
- `scores`: the same as tables of text
- `plots`: every figure; draws what it is given and computes nothing
- `splits`: which subjects are trained on and which are tested on, and the guard that keeps them apart
- `classical`: logistic regression and others on a table of numbers, which need no network
- `backend`: Keras on TensorFlow, without start-up messages
- `models`: both networks: build, count, save, load, predict
- `train`: profiles, input pipeline, the paper's learning-rate rule, fit
- `baselines`: classifiers on a few numbers of each cell, which a network must beat
- `classify`: one image file in, a label out, or the reason why there is none
- `explain`: where in the image a network's answer comes from
- `runs`: one run folder, where results are saved and found again

Around it:

- `judging`: what others print, split and predict: papers, splits, files of predictions; imports the core only
- `lessons`: the code of one notebook each; imports the core, and what judges others' work
- `course`: exercises, running the notebooks, report, model card, checks of data and set-up,
  and a class: its progress, a quiz, notebooks to hand out
- `app`: explorers, the upload cell, and the page that serves it
- `synthetic`: synthetic cells with a known truth, and the data set that is made of them
- `cli`: the command line

Importing allkit imports nothing else, and prints nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parents[1]
"""The clone that allkit was installed from (editable install): holds `data/`, `notebooks/` and `runs/`."""


class AllkitError(Exception):
    """Something the user can mend; the message says what to do next. The command line prints it bare."""


class DiskError(AllkitError):
    """A file could not be saved: the disk is full, or may not be written."""


def runs_root() -> Path:
    """Return the folder that holds all run folders: `$ALLKIT_RUNS`, or `runs/` in the clone."""
    return Path(os.environ.get("ALLKIT_RUNS", ROOT / "runs"))


def cache_folder() -> Path:
    """Return the folder of what can be computed again: `$ALLKIT_CACHE`, or data/cache in the clone."""
    return Path(os.environ.get("ALLKIT_CACHE", ROOT / "data" / "cache"))


@contextlib.contextmanager
def saving(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, it takes the place of `path`.

    Raises DiskError when the disk is full or cannot be written; what was at `path` before is intact.
    """
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise disk_trouble(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def printable(text: str) -> str:
    """Return a text in which what would steer a terminal, or turn the direction of writing, is escaped."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode("ascii") for sign in text
    )


def is_disk_full(error: OSError) -> bool:
    """Return whether an OSError says that there is no space; h5py puts the number into words."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1)) or "No space left" in str(error)


def disk_trouble(error: OSError, path: Path) -> DiskError:
    """Return the DiskError that says what an OSError while writing `path` means for the user."""
    full = is_disk_full(error)
    reason = "the disk is full" if full else error.strerror or str(error)
    advice = "make room and run this step again" if full else "mend this and run this step again"
    return DiskError(f"{path} was not saved: {reason}. What was there before is intact; {advice}.")
