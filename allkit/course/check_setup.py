"""Whether this machine has what the notebooks need: Python, memory, disk, GPU, data, weights.

Whether the installed packages fit together says `pip check`.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pandas as pd
import psutil

from allkit import AllkitError, runs_root
from allkit.backend import tf
from allkit.models import BACKBONES, damage_of, local_weights, title_of
from allkit.runs import load_data
from allkit.train import get_profile

PYTHON = ((3, 11), (3, 13))
"""The oldest and the newest Python that the kit is tested with."""

MEMORY, DISK = 4, 1
"""GB: memory of the machine that training with the profile quick needs, and disk space for one run."""


@dataclass(frozen=True)
class _Fact:
    """One row of the check; `state` is "fine", "missing" or "optional" (not there, and not needed for a start)."""

    what: str
    found: str
    needed: str
    state: str
    advice: str = ""


def check_setup(data: str = "synthetic") -> pd.DataFrame:
    """Return what this machine has of what the notebooks need, one row each: what, found, needed, state and advice.

    state is "fine", "missing" or "optional" (not there, and not needed for the profile quick); advice is "" where all
    is well. Nothing is downloaded, and nothing raises; the synthetic cells are drawn if they are not there yet.
    """
    rows = [_python(), _memory(), _disk(), _gpu(), _images(data), *_weights()]
    return pd.DataFrame([asdict(row) for row in rows])


def summarise_setup(found: pd.DataFrame) -> str:
    """Return one plain sentence on a table of `check_setup`: everything is there, or what to do first."""
    missing = found[found["state"] == "missing"]
    if len(missing):
        todo = "; ".join(f"{row.what}: {row.advice}" for row in missing.itertuples())
        return f"Not ready yet. {todo}."
    have = found.set_index("what")["found"]
    without = found.loc[found["state"] == "optional", "what"]
    rest = f" Not there, and not needed for a start: {', '.join(without)}." if len(without) else ""
    return f"Everything is here: {have['data']}, {have['memory']}, {have['disk']}.{rest}"


def _python() -> _Fact:
    oldest, newest = (".".join(map(str, number)) for number in PYTHON)
    fine = PYTHON[0] <= sys.version_info[:2] <= PYTHON[1]
    advice = f"install Python {newest} and make the virtual environment anew with it"
    return _fact("Python", platform.python_version(), f"{oldest} to {newest}", fine, advice)


def _memory() -> _Fact:
    memory = psutil.virtual_memory()
    found = f"{memory.total / 1e9:.1f} GB of memory ({memory.available / 1e9:.1f} GB free)"
    advice = "close other programs, or use a machine with more memory"
    return _fact("memory", found, f"{MEMORY} GB", memory.total >= MEMORY * 1e9, advice)


def _disk() -> _Fact:
    folder = runs_root().absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if not os.access(folder, os.W_OK):
        advice = f"make {folder} writable, or set ALLKIT_RUNS to a folder that is"
        return _Fact("disk", f"{folder} cannot be written", "a folder for results", "missing", advice)
    advice = "make room, or set ALLKIT_RUNS to a folder on another disk"
    return _fact("disk", f"{free:,.0f} GB of free disk", f"{DISK} GB", free >= DISK, advice)


def _gpu() -> _Fact:
    found = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices("GPU")]
    cores = f"none; {os.cpu_count()} processor cores"
    return _Fact("GPU", ", ".join(found) or cores, "none for the profile quick", "fine" if found else "optional")


def _images(data: str) -> _Fact:
    try:
        index = load_data(data)
    except AllkitError as error:
        return _Fact("data", "none", "images", "missing", str(error).rstrip("."))
    kind = "synthetic images" if index["source"].iat[0] == "synthetic" else "images"
    subjects = index["subject"].nunique() or "unknown"
    return _Fact("data", f"{len(index):,} {kind} of {subjects} subjects", "images", "fine")


def _weights() -> Iterator[_Fact]:
    for name in BACKBONES:
        profile = get_profile("honest", name)
        what, needed = f"ImageNet weights of {title_of(name)}", "for the profiles honest and paper"
        file = local_weights(name, profile.alpha, profile.image_size)
        if file and (damage := damage_of(file, name, profile.alpha)):
            yield _Fact(what, f"{file.name} {damage}", needed, "missing", f"delete {file} and copy it again")
        else:
            yield _Fact(what, file.name if file else "not on this machine", needed, "fine" if file else "optional")


def _fact(what: str, found: str, needed: str, fine: bool, advice: str) -> _Fact:
    return _Fact(what, found, needed, "fine" if fine else "missing", "" if fine else advice)
