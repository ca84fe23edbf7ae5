"""A hospital of one's own: subjects, cells and a planted shortcut that depend on a name, and on nothing else.

Answers that were computed in one hospital are wrong in the next, so that copying them does not work. That is all: the
code is open, and whoever reads it can compute what was planted where.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from allkit import ROOT, AllkitError
from allkit.data import load_index
from allkit.folders import data_path
from allkit.synthetic.cells import VERSION, draw_numbers, random_stream
from allkit.synthetic.dataset import PLANS, CellFile, TwinPlan, draw_folder, read_record, write_cells
from allkit.synthetic.shortcuts import SHORTCUTS

RULES = 1
"""Version of what follows from a name; another one gives everybody another hospital."""

PLANTED_SHARE = 0.9
"""Share of the cells of one class in the first ward that carry the shortcut."""

LONGEST_NAME = 200

_KIND = "synthetic hospital"


@dataclass(frozen=True)
class Hospital:
    """What a student is told: one in `one_in` is ill there, and one who is missed costs `cost_missed` false alarms.

    `key` stands for the name, `data` is where the cells lie; `own` is False where they are other cells than this
    hospital's, of which nobody knows what was planted in them.
    """

    key: str
    one_in: int
    cost_missed: int
    data: Path | None = None
    own: bool = True

    @property
    def prevalence(self) -> float:
        """Share of those who are ill."""
        return 1 / self.one_in


@dataclass(frozen=True)
class _Secrets:
    """What the student is to find out, and how the cells are drawn."""

    seed: int
    subject_effect: float
    difficulty: float
    subjects: tuple[int, int]  # of each class, in the first and the second ward
    cells: tuple[int, int]  # of each subject
    shortcut: str
    target: str
    one_in: int
    cost_missed: int


def key_of(name: str) -> str:
    """Return the 16 hexadecimal digits that stand for a name; spelling with capitals or more spaces changes nothing."""
    plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    plain = unicodedata.normalize("NFKC", plain)
    if not any(sign.isalnum() for sign in plain):
        raise AllkitError("a hospital needs a name with at least one letter or digit, such as your own.")
    if len(plain) > LONGEST_NAME:
        raise AllkitError(f"this name has {len(plain)} characters; give one of at most {LONGEST_NAME}.")
    return hashlib.sha256(f"allkit hospital {RULES}: {plain}".encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=256)
def _secrets(key: str) -> _Secrets:
    seed = int(key, 16)
    rng = random_stream(seed, "hospital")
    one_in = int(rng.integers(5, 41))
    odds = float(np.exp(rng.uniform(np.log(0.3), np.log(3.0))))  # how much a missed one weighs against an alarm
    return _Secrets(
        seed=seed,
        subject_effect=float(rng.uniform(0.7, 2.4)),
        difficulty=float(rng.uniform(0.6, 1.0)),
        subjects=(8, int(rng.integers(7, 10))),
        cells=(5, int(rng.integers(8, 10))),
        shortcut=str(rng.choice(list(SHORTCUTS))),
        target=str(rng.choice(["ALL", "HEM"])),
        one_in=one_in,
        cost_missed=max(2, round(odds * (one_in - 1))),
    )


def planted_in(key: str) -> str:
    """Return which of `SHORTCUTS` was planted in a hospital."""
    return _secrets(key).shortcut


def _record(key: str) -> dict:
    return {"kind": _KIND, "version": VERSION, "rules": RULES, "key": key}


def _plan(record: dict) -> tuple[TwinPlan, dict]:
    """Return which cells a hospital shows, and with which parameters they are drawn."""
    secrets = _secrets(record["key"])
    rng, files = random_stream(secrets.seed, "planted"), []
    for ward, part in enumerate(("train", "test")):
        for label, letter in (("ALL", ""), ("HEM", "H")):
            for subject in range(secrets.subjects[ward]):
                name = f"{letter}{301 + 100 * ward + subject}"  # C-NMC has no such numbers
                for number in range(secrets.cells[ward]):
                    planted = ward == 0 and label == secrets.target and rng.random() < PLANTED_SHARE
                    file = f"UID_{name}_{number // 4 + 1}_{number % 4 + 1}_{label.lower()}.png"
                    place = f"{part}/{label.lower()}/{file}"
                    files.append(CellFile(place, label, name, number, shortcut=secrets.shortcut if planted else ""))
    drawn = {name: getattr(secrets, name) for name in ("seed", "subject_effect", "difficulty")}
    plan = TwinPlan(MappingProxyType({file.path: file for file in files}), MappingProxyType({}), "")
    return plan, record | drawn | {"format": "png"}


PLANS[_KIND] = _plan


def hospital_folder(name: str) -> Path:
    """Return where the hospital of a name lies unless said otherwise: the name itself is not in the path."""
    return ROOT / "data" / f"hospital-{key_of(name)[:8]}"


def make_hospital(name: str, folder: str | Path | None = None, *, progress: bool = False) -> Path:
    """Draw the hospital of a name into a folder, which must not hold anything else; return its absolute path.

    Two wards, read as the parts "train" and "test" of one data set, with names as in C-NMC. In the first ward most
    cells of one class carry a shortcut. The same name gives the same files; `twin.json` holds its key, not the name.
    """
    return draw_hospital(key_of(name), hospital_folder(name) if folder is None else folder, progress=progress)


def draw_hospital(key: str, folder: str | Path, *, progress: bool = False) -> Path:
    """Draw the hospital that a key stands for, as `make_hospital` does."""
    record = _record(key)
    plan, parameters = _plan(record)
    files = list(plan.files.values())
    return draw_folder(folder, record, lambda made: write_cells(made, files, parameters, progress))


def hospital_of(key: str) -> Hospital:
    """Return what is told of the hospital that a key stands for, without its cells."""
    return Hospital(key, _secrets(key).one_in, _secrets(key).cost_missed)


def open_hospital(name: str, data: str | Path = "synthetic") -> tuple[Hospital, pd.DataFrame]:
    """Return the hospital of a name and the index of its cells, which are drawn on the first call.

    `data` other than "synthetic" is the path of the hospital's folder, or of other cells, which are then worked with
    instead. AllkitError where the folder is the hospital of another name.
    """
    told, path = hospital_of(key_of(name)), data_path(data)
    path = make_hospital(name, progress=True) if path is None else path
    record = (read_record(path) or {}) if path.is_dir() else {}
    own = record.get("kind") == _KIND
    if own and record != _record(told.key):
        raise AllkitError(
            f"{path} is the hospital of another name, or of another version; write the name it was made for, or make "
            'yours: allkit data make --for "your name".'
        )
    return Hospital(told.key, told.one_in, told.cost_missed, path, own), load_index(path)


def draw_hospital_numbers(name: str) -> pd.DataFrame:
    """Return the numbers behind as many cells as the second ward of a name's hospital has, drawn alike, in a moment.

    They are other cells of other subjects than those in the pictures; see `draw_numbers`.
    """
    secrets = _secrets(key_of(name))
    how = {"subject_effect": secrets.subject_effect, "difficulty": secrets.difficulty, "seed": secrets.seed}
    return draw_numbers(secrets.subjects[1], secrets.cells[1], **how)
