"""Whether this machine has what the notebooks need: versions, memory, disk, GPU, data, weights."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version

import pandas as pd
import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from allkit import AllkitError, __version__, runs_root
from allkit.backend import tf
from allkit.models import BACKBONES, local_weights, title_of
from allkit.runs import load_data
from allkit.train import get_profile

PYTHON = ((3, 11), (3, 13))
"""The oldest and the newest Python that the kit is tested with."""


MEMORY, DISK = 4, 1
"""GB: memory of the machine that training with the profile quick asks for, and disk space for one run."""


_SHOWN = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "matplotlib")


@dataclass(frozen=True)
class _Fact:
    """One row of the check; `state` is "fine", "missing" or "optional" (not there, and not needed for a start)."""

    what: str
    found: str
    needed: str
    state: str
    advice: str = ""


def check_setup(data: str = "synthetic") -> pd.DataFrame:
    """Return what this machine has of what the notebooks need; looks only, except that it draws the synthetic twin.

    `data` is the parameter of that name in the notebooks. Columns: what, found, needed (text), state ("fine",
    "missing", or "optional": not there, and not needed for the profile quick) and advice ("" where all is well).
    Nothing is downloaded, and nothing raises: what is wrong is a row.
    """
    rows = [_python(), *_packages(), _memory(), _disk(), _gpu(), _images(data), *_weights()]
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


# ------------------------------------------------------------------------------------------------- one by one


def _python() -> _Fact:
    oldest, newest = (".".join(map(str, number)) for number in PYTHON)
    fine = PYTHON[0] <= sys.version_info[:2] <= PYTHON[1]
    advice = f"install Python {newest} and run `make setup PYTHON=python{newest}`"
    return _fact("Python", platform.python_version(), f"{oldest} to {newest}", fine, advice)


def _packages() -> Iterator[_Fact]:
    """Yield the packages that are shown by name, and one row for all others."""
    yield _Fact("allkit", __version__, "", "fine")
    others, trouble = 0, []
    for name, wanted in _required().items():
        try:
            there = version(name)
        except PackageNotFoundError:
            there = "missing"
        fine = there != "missing" and _satisfies(there, wanted)
        if name in _SHOWN:
            yield _fact(name, there, wanted, fine, "run `make setup`")
        else:
            others += 1
            trouble += [] if fine else [f"{name} {there}"]
    found = ", ".join(trouble) or f"{others} packages"
    yield _fact("other packages", found, "versions as in pyproject.toml", not trouble, "run `make setup`")


def _required() -> dict[str, str]:
    """Return the versions that allkit asks for, by package, without those of its extras."""
    with contextlib.suppress(PackageNotFoundError):
        wanted = [Requirement(text) for text in requires("allkit") or ()]
        return {one.name: str(one.specifier) for one in wanted if not one.marker or one.marker.evaluate({"extra": ""})}
    return dict.fromkeys(_SHOWN, "")


def _satisfies(there: str, wanted: str) -> bool:
    return SpecifierSet(wanted).contains(there, prereleases=True)


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
    try:
        found = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices("GPU")]
    except Exception as error:  # a broken installation fails in many ways; the row of TensorFlow says what to do
        return _Fact("GPU", f"TensorFlow does not start ({type(error).__name__})", "", "missing", "run `make setup`")
    cores = f"none; {os.cpu_count()} processor cores"
    return _Fact("GPU", ", ".join(found) or cores, "none for the profile quick", "fine" if found else "optional")


def _images(data: str) -> _Fact:
    try:
        index = load_data(data)
    except AllkitError as error:
        return _Fact("data", "none", "images", "missing", str(error).rstrip("."))
    kind = "synthetic images" if index["source"].iat[0] == "synthetic" else "images"
    people = index["subject"].nunique()
    of = f"of {people} drawn subjects" if kind != "images" else f"of {people} people" if people else "of unknown people"
    return _Fact("data", f"{len(index):,} {kind} {of}", "images", "fine")


def _weights() -> Iterator[_Fact]:
    for name in BACKBONES:
        profile = get_profile("honest", name)
        file = local_weights(name, profile.alpha, profile.image_size)
        state = "fine" if file else "optional"
        found = file.name if file else "not on this machine"
        yield _Fact(f"ImageNet weights of {title_of(name)}", found, "for the profiles honest and paper", state)


def _fact(what: str, found: str, needed: str, fine: bool, advice: str) -> _Fact:
    return _Fact(what, found, needed, "fine" if fine else "missing", "" if fine else advice)
