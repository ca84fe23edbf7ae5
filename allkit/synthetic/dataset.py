"""The synthetic twin as a folder: C-NMC's layout, names, subjects and traps, filled with drawn cells."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from allkit import ROOT, AllkitError
from allkit.synthetic.cells import (
    _DUPLICATES,
    _SUBJECTS,
    SIDE,
    VERSION,
    SyntheticCell,
    _check_dials,
    _rng,
    _subjects_of,
    draw_cell,
)

FINAL_SIDE = 600
"""Side of a final-test image, pixels."""


FORMATS = ("png", "bmp")


_TRAINING_IMAGES = 10_661


_PRELIMINARY_IMAGES = 1_867


_FINAL_SHARE = 0.02


_FEWEST_IMAGES = 40


# ---------------------------------------------------------------- the twin


def make_twin(
    folder: str | Path,
    *,
    images: int = 600,
    seed: int = 0,
    subject_effect: float = 1.0,
    difficulty: float = 1.0,
    format: str = "png",
    progress: bool = False,
) -> Path:
    """Draw the synthetic twin of C-NMC 2019 into a folder.

    Layout and names are C-NMC's: `training_data/fold_{0,1,2}/{all,hem}/UID_<subject>_<image>_<cell>_<class>`,
    `validation_data/` with its CSV of labels, `testing_data/` with unlabelled 600×600 images. At the root,
    `twin.json` holds the parameters. The folder appears only once it is complete.

    Args:
        folder: where to; must not exist yet, or be empty, or hold the very same twin.
        images: labelled training images, at least 40; below about 150 not every subject appears.
        seed: same seed and parameters, same files.
        subject_effect: see `draw_cell`.
        difficulty: see `draw_cell`.
        format: "png" or "bmp", both lossless.
        progress: show a progress bar.

    Returns:
        The folder, absolute.

    Raises:
        AllkitError: if a parameter is out of range or the folder holds something else.
    """
    _check_dials(subject_effect, difficulty)
    if format not in FORMATS:
        raise AllkitError(f"no image format {format!r}; choose one of {', '.join(FORMATS)}")
    if images < _FEWEST_IMAGES:
        raise AllkitError(f"a twin of {images} images is too small; choose at least {_FEWEST_IMAGES}")
    folder = Path(folder).resolve()
    parameters = {
        "kind": "synthetic twin of C-NMC 2019",
        "version": VERSION,
        "images": images,
        "seed": seed,
        "subject_effect": subject_effect,
        "difficulty": difficulty,
        "format": format,
    }
    if _holds(folder, parameters):
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AllkitError(f"{folder} is not empty; name a new folder or remove this one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        made = Path(temporary) / "twin"
        _write_twin(made, parameters, progress)
        if folder.exists():
            folder.rmdir()
        os.replace(made, folder)
    return folder


def ensure_twin(folder: str | Path = ROOT / "data" / "synthetic", *, progress: bool = False) -> Path:
    """Return the embedded synthetic twin, drawing it on the first call (and anew after a change of rules).

    Args:
        folder: where it lies; default `data/synthetic` in the clone.
        progress: show a progress bar while drawing.

    Returns:
        The folder, absolute.

    Raises:
        AllkitError: if the folder holds something that is not a twin.
    """
    folder = Path(folder).resolve()
    record = _read_record(folder)
    if record is not None and record.get("version") == VERSION:
        return folder
    if record is not None:
        shutil.rmtree(folder)
    try:
        return make_twin(folder, progress=progress)
    except OSError:
        if _read_record(folder) is None:  # else another process was faster
            raise
        return folder


def _read_record(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "twin.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _holds(folder: Path, parameters: dict) -> bool:
    record = _read_record(folder)
    return record is not None and all(record.get(name) == value for name, value in parameters.items())


@dataclass(frozen=True)
class _File:
    """One image to be drawn: where it goes, and which cell it shows."""

    path: str
    label: str
    subject: str
    number: int
    side: int = SIDE


def _share_out(total: int, counts: dict[str, int], first: frozenset[str] = frozenset()) -> dict[str, int]:
    """Share `total` images out in proportion to `counts`, at least one each while they last.

    Where there are fewer images than names, `first` get theirs before the others, then the largest.
    """
    order = sorted(counts, key=lambda name: (name not in first, -counts[name]))
    kept = order[:total]
    whole = sum(counts[name] for name in kept)
    shares = {name: max(1, int(total * counts[name] / whole)) for name in kept}
    while (missing := total - sum(shares.values())) != 0:
        towards = 1 if missing > 0 else -1
        able = [name for name in kept if shares[name] + towards >= 1]
        worst = max(able, key=lambda name: towards * (total * counts[name] / whole - shares[name]))
        shares[worst] += towards
    return shares


def _name(subject: str, number: int, label: str) -> str:
    """C-NMC's name of a subject's cell: every drawn smear shows four cells."""
    subject = "h3" if subject == "H3" else subject
    return f"UID_{subject}_{number // 4 + 1}_{number % 4 + 1}_{label.lower()}"


def _plan_training(images: int, extension: str) -> tuple[list[_File], dict[str, str]]:
    """List the training images, and which are copies of which (path: path)."""
    linked = frozenset(name for pair in _DUPLICATES for name in pair[:2])
    cells = {key: sum(_subjects_of(*key).values()) for key in _SUBJECTS if key[0] != "prelim"}
    files, copies = {}, {}
    for (fold, label), count in _share_out(images, cells).items():
        for subject, share in _share_out(count, _subjects_of(fold, label), linked).items():
            place = f"training_data/{fold}/{label.lower()}"
            for k in range(share):
                path = f"{place}/{_name(subject, k, label)}.{extension}"
                files.setdefault(subject, []).append(_File(path, label, subject, k))
    used = dict.fromkeys(files, 0)
    for source, target, count, always in _DUPLICATES:
        wanted = max(int(always), round(count * images / _TRAINING_IMAGES))
        for k in range(min(wanted, len(files.get(target, ())), len(files.get(source, ())) - used.get(source, 0))):
            copies[files[target][k].path] = files[source][used[source]].path
            used[source] += 1
    return [file for of_subject in files.values() for file in of_subject], copies


def _plan_preliminary(images: int, seed: int, extension: str) -> tuple[list[_File], str]:
    """List the preliminary images, shuffled as in C-NMC, and the text of their CSV."""
    total = max(8, round(images * _PRELIMINARY_IMAGES / _TRAINING_IMAGES))
    cells = {key: sum(_subjects_of(*key).values()) for key in _SUBJECTS if key[0] == "prelim"}
    named = []
    for (part, label), count in _share_out(total, cells).items():
        for subject, share in _share_out(count, _subjects_of(part, label)).items():
            named += [(label, subject, k) for k in range(share)]
    named = [named[k] for k in _rng(seed, "preliminary").permutation(len(named))]
    place = "validation_data/C-NMC_test_prelim_phase_data"
    files, lines = [], ["Patient_ID,new_names,labels"]
    for k, (label, subject, number) in enumerate(named, 1):
        files.append(_File(f"{place}/{k}.{extension}", label, subject, number))
        lines.append(f"{_name(subject, number, label)}.{extension},{k}.{extension},{int(label == 'ALL')}")
    return files, "\n".join(lines) + "\n"


def _plan_final(images: int, seed: int, extension: str) -> list[_File]:
    """List the final images: classes and subjects are drawn, and told to nobody but `load_truth`."""
    rng = _rng(seed, "final")
    place = "testing_data/C-NMC_test_final_phase_data"
    files = []
    for k in range(1, max(3, round(images * _FINAL_SHARE)) + 1):
        label = "ALL" if rng.random() < 2 / 3 else "HEM"
        files.append(_File(f"{place}/{k}.{extension}", label, f"F{rng.integers(17)}{label[0]}", k, FINAL_SIDE))
    return files


@functools.lru_cache(maxsize=8)
def _plan(images: int, seed: int, extension: str) -> tuple[dict[str, _File], dict[str, str], str]:
    """All files of a twin by path, the copies among them, and the preliminary part's CSV."""
    training, copies = _plan_training(images, extension)
    preliminary, table = _plan_preliminary(images, seed, extension)
    files = [*training, *preliminary, *_plan_final(images, seed, extension)]
    return {file.path: file for file in files}, copies, table


def _write_twin(folder: Path, parameters: dict, progress: bool) -> None:
    files, copies, table = _plan(parameters["images"], parameters["seed"], parameters["format"])
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    drawn = [file for path, file in files.items() if path not in copies]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        work = pool.map(lambda file: _write_cell(folder, file, parameters), drawn)
        for _ in tqdm(work, total=len(drawn), desc="drawing cells", disable=not progress, leave=False):
            pass
    for path, source in copies.items():
        shutil.copyfile(folder / source, folder / path)
    labels = folder / "validation_data" / "C-NMC_test_prelim_phase_data_labels.csv"
    labels.write_text(table, encoding="utf-8")
    (folder / "twin.json").write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")


def _write_cell(folder: Path, file: _File, parameters: dict) -> None:
    options = {"compress_level": 1} if parameters["format"] == "png" else {}
    Image.fromarray(_draw_file(file, parameters).image).save(folder / file.path, **options)


def _draw_file(file: _File, parameters: dict) -> SyntheticCell:
    dials = {name: parameters[name] for name in ("seed", "subject_effect", "difficulty")}
    cell = draw_cell(file.label, subject=file.subject, number=file.number, **dials)
    if file.side == SIDE:
        return cell
    edge = ((file.side - SIDE) // 2,) * 2
    masks = (np.pad(mask, (edge, edge)) for mask in (cell.outline, cell.nucleus))
    return SyntheticCell(np.pad(cell.image, (edge, edge, (0, 0))), *masks, cell.label, cell.subject, cell.cues)


def load_truth(path: str | Path) -> SyntheticCell:
    """Return the truth of an image of the twin: its outline, its nucleus and the cues it was drawn with.

    Args:
        path: an image inside a folder made by `make_twin` (also of the unlabelled final part).

    Returns:
        The cell, drawn again from the parameters in `twin.json`; its image equals the file's. For a duplicate,
        the cell it was copied from, with that subject.

    Raises:
        AllkitError: if the image does not belong to a twin, or the twin is of another version.
    """
    path = Path(path).resolve()
    root = next((parent for parent in path.parents if (parent / "twin.json").is_file()), None)
    parameters = _read_record(root) if root else None
    if parameters is None:
        raise AllkitError(f"{path} is not part of a synthetic twin; truth is known for synthetic cells only")
    if parameters.get("version") != VERSION:
        raise AllkitError(f"the twin in {root} is of another version; remove the folder and make it anew")
    files, copies, _ = _plan(parameters["images"], parameters["seed"], parameters["format"])
    name = path.relative_to(root).as_posix()
    if name not in files:
        raise AllkitError(f"the twin in {root} has no image {name}; was it renamed?")
    return _draw_file(files[copies.get(name, name)], parameters)
