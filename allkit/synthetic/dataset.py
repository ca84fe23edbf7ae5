"""The synthetic twin of C-NMC 2019: its folders, names, subjects and traps, filled with drawn cells.

The twin stands in for the genuine images where those are not at hand: same subjects, same imbalance, same traps
(duplicates across subjects, a lower-case `h3`). Which subjects there are, with how many images and how many
duplicates, is read from the list of C-NMC's files (`allkit.cnmc.load_manifest`).
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import expit

from allkit import ROOT, AllkitError, disk_trouble
from allkit.cnmc import load_manifest
from allkit.folders import locked
from allkit.progress import track
from allkit.synthetic.cells import (
    SIDE,
    VERSION,
    SyntheticCell,
    check_parameters,
    count_subjects,
    draw_cell,
    ideal_log_odds,
    random_stream,
)
from allkit.synthetic.shortcuts import SHORTCUTS

FINAL_SIDE = 600
"""Side of a final-test image, pixels."""

FORMATS = ("png", "bmp")

TWIN = "synthetic twin of C-NMC 2019"
"""The kind of data set that `make_twin` writes into `twin.json`."""

_FINAL_SHARE = 0.02
_FEWEST_IMAGES = 40
_PATIENCE = 600  # s, for another process that draws the same twin


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
    """Draw the synthetic twin of C-NMC 2019 into a folder, which must not hold anything else; return its absolute path.

    Layout and names are C-NMC's: `training_data/fold_{0,1,2}/{all,hem}/UID_<subject>_<image>_<cell>_<class>`,
    `validation_data/` with its CSV of labels, `testing_data/` with unlabelled 600×600 images. At the root,
    `twin.json` holds the parameters. The folder appears only once it is complete; the very same twin is not drawn
    twice. `images` counts the training images, at least 40; below about 150 not every subject appears. For
    `subject_effect` and `difficulty` see `draw_cell`. The formats "png" and "bmp" lose nothing.
    """
    parameters = {
        "kind": TWIN,
        "version": VERSION,
        "images": images,
        "seed": seed,
        "subject_effect": subject_effect,
        "difficulty": difficulty,
        "format": format,
    }
    _check(parameters)
    return draw_folder(folder, parameters, lambda made: _write_twin(made, parameters, progress))


def draw_folder(folder: str | Path, parameters: dict, write: Callable[[Path], None]) -> Path:
    """Have `write` fill a folder that appears only once it is complete, with `twin.json`; return its absolute path.

    What has the very same parameters is not drawn twice; AllkitError where the folder holds something else.
    """
    folder = Path(folder).resolve()
    record = read_record(folder)
    if record and all(record.get(name) == value for name, value in parameters.items()):
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AllkitError(f"{folder} is not empty; name a new folder or remove this one")
    with locked(folder, wait=_PATIENCE):
        if read_record(folder) != parameters:  # else another process was faster
            try:
                _write_whole(folder, parameters, write)
            except OSError as error:
                raise disk_trouble(error, folder) from error
    return folder


def _write_whole(folder: Path, parameters: dict, write: Callable[[Path], None]) -> None:
    """Draw a data set beside its place, and move it there when it is complete."""
    prefix = f".{folder.name}.allkit-drawing-"
    for left in folder.parent.iterdir():  # by a process that was killed
        if left.name.startswith(prefix):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as temporary:
        made = Path(temporary) / "twin"
        write(made)
        (made / "twin.json").write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(made, folder)


def ensure_twin(folder: str | Path = ROOT / "data" / "synthetic", *, progress: bool = True) -> Path:
    """Return the absolute path of the embedded synthetic twin, drawing it on the first call.

    A twin that other rules drew is moved aside, with whatever else lies in its folder, and drawn anew.
    """
    folder = Path(folder).resolve()
    record = read_record(folder)
    if record and record.get("version") == VERSION:
        return folder
    if record is not None:
        _move_aside(folder, record)
    return make_twin(folder, progress=progress)


def _move_aside(folder: Path, record: dict) -> None:
    name = f"{folder.name}-version-{record.get('version', 'unknown')}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    aside = next(path for name in names if not (path := folder.with_name(name)).exists())
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another process was faster
        return
    warnings.warn(
        f"the synthetic cells in {folder} were drawn by another version of allkit and are drawn anew; "
        f"the old folder is now {aside}: remove it if you do not need it.",
        stacklevel=3,
    )


def _check(parameters: dict) -> None:
    check_parameters(parameters["subject_effect"], parameters["difficulty"])
    if parameters["format"] not in FORMATS:
        raise AllkitError(f"no image format {parameters['format']!r}; choose one of {', '.join(FORMATS)}")
    if parameters["images"] < _FEWEST_IMAGES:
        raise AllkitError(f"a twin of {parameters['images']} images is too small; choose at least {_FEWEST_IMAGES}")


def read_record(folder: Path) -> dict | None:
    """Return what `twin.json` says, or None where there is no twin."""
    try:
        record = json.loads((folder / "twin.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


@dataclass(frozen=True)
class CellFile:
    """One image of a twin: where it lies, which cell it shows, and which of `SHORTCUTS` was planted in it."""

    path: str
    label: str
    subject: str
    number: int
    side: int = SIDE
    shortcut: str = ""


@dataclass(frozen=True)
class TwinPlan:
    """What a twin consists of: `files` by path, `copies` (path -> path it is copied from), the CSV of labels."""

    files: Mapping[str, CellFile]
    copies: Mapping[str, str]
    labels: str


@functools.lru_cache(maxsize=8)
def plan_twin(images: int, seed: int, format: str) -> TwinPlan:
    """Decide which cells a twin shows, without drawing them."""
    training, copies = _plan_training(images, format)
    preliminary, labels = _plan_preliminary(images, seed, format)
    files = [*training, *preliminary, *_plan_final(images, seed, format)]
    return TwinPlan(MappingProxyType({file.path: file for file in files}), MappingProxyType(copies), labels)


def _plan_training(images: int, extension: str) -> tuple[list[CellFile], dict[str, str]]:
    """List the training images, and which are copies of which (path: path)."""
    subjects = {key: counts for key, counts in count_subjects().items() if key[0] != "prelim"}
    totals = {key: sum(counts.values()) for key, counts in subjects.items()}
    linked = {subject for pair, _ in _count_duplicates() for subject in pair}
    files: dict[str, list[CellFile]] = {}
    for (fold, label), count in _share_out(images, totals).items():
        for subject, share in _share_out(count, subjects[fold, label], linked).items():
            place = f"training_data/{fold}/{label.lower()}"
            paths = [f"{place}/{_name(subject, k, label)}.{extension}" for k in range(share)]
            files[subject] = [CellFile(path, label, subject, k) for k, path in enumerate(paths)]
    copies = _choose_copies(files, images / sum(totals.values()))
    return [file for of_subject in files.values() for file in of_subject], copies


def _choose_copies(files: dict[str, list[CellFile]], scale: float) -> dict[str, str]:
    """Let subjects share images as in C-NMC, a `scale`-th of their number: path -> path it is copied from."""
    copies, used = {}, dict.fromkeys(files, 0)
    for (source, target), count in _count_duplicates():
        if source not in files or target not in files:
            continue
        # at least one of each pair, but small twins leave out the rare pairs of a subject that is copied already
        wanted = max(round(count * scale), int(count > 2 or not used[source]))
        for k in range(min(wanted, len(files[target]), len(files[source]) - used[source])):
            copies[files[target][k].path] = files[source][used[source]].path
            used[source] += 1
    return copies


@functools.cache
def _count_duplicates() -> list[tuple[tuple[str, str], int]]:
    """Pairs of subjects with the same image in C-NMC's training data, and how many images; most first."""
    files = load_manifest().query("part == 'train'")
    twice = files[files.duplicated("sha256", keep=False)]
    pairs = Counter(tuple(sorted(set(subjects))) for _, subjects in twice.groupby("sha256")["subject"])
    return sorted(((pair, n) for pair, n in pairs.items() if len(pair) == 2), key=lambda item: (-item[1], item[0]))


def _plan_preliminary(images: int, seed: int, extension: str) -> tuple[list[CellFile], str]:
    """List the preliminary images, shuffled as in C-NMC, and the text of their CSV."""
    subjects = {key: counts for key, counts in count_subjects().items() if key[0] == "prelim"}
    totals = {key: sum(counts.values()) for key, counts in subjects.items()}
    labelled = sum(sum(counts.values()) for counts in count_subjects().values()) - sum(totals.values())
    total = max(8, round(images * sum(totals.values()) / labelled))
    cells = [
        (label, subject, k)
        for (part, label), count in _share_out(total, totals).items()
        for subject, share in _share_out(count, subjects[part, label]).items()
        for k in range(share)
    ]
    place = "validation_data/C-NMC_test_prelim_phase_data"
    files, lines = [], ["Patient_ID,new_names,labels"]
    for number, cell in enumerate(random_stream(seed, "preliminary").permutation(len(cells)), 1):
        label, subject, k = cells[cell]
        files.append(CellFile(f"{place}/{number}.{extension}", label, subject, k))
        lines.append(f"{_name(subject, k, label)}.{extension},{number}.{extension},{int(label == 'ALL')}")
    return files, "\n".join(lines) + "\n"


def _plan_final(images: int, seed: int, extension: str) -> list[CellFile]:
    """List the final images; their classes and subjects are drawn, and known to nobody but `load_truth`."""
    rng = random_stream(seed, "final")
    place = "testing_data/C-NMC_test_final_phase_data"
    files = []
    for k in range(1, max(3, round(images * _FINAL_SHARE)) + 1):
        label = "ALL" if rng.random() < 2 / 3 else "HEM"
        files.append(CellFile(f"{place}/{k}.{extension}", label, f"F{rng.integers(17)}{label[0]}", k, FINAL_SIDE))
    return files


def _share_out(total: int, counts: dict, first: Collection[str] = ()) -> dict:
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


def _write_twin(folder: Path, parameters: dict, progress: bool) -> None:
    plan = plan_twin(parameters["images"], parameters["seed"], parameters["format"])
    write_cells(folder, [file for path, file in plan.files.items() if path not in plan.copies], parameters, progress)
    for path, source in plan.copies.items():
        shutil.copyfile(folder / source, folder / path)
    labels = folder / "validation_data" / "C-NMC_test_prelim_phase_data_labels.csv"
    labels.write_text(plan.labels, encoding="utf-8")


def write_cells(folder: Path, files: Collection[CellFile], parameters: dict, progress: bool) -> None:
    """Draw these cells into their files below a folder."""
    for file in files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        work = pool.map(lambda file: _write_cell(folder, file, parameters), files)
        for _ in track(work, "drawing cells", total=len(files), disable=not progress):
            pass


def _write_cell(folder: Path, file: CellFile, parameters: dict) -> None:
    options = {"compress_level": 1} if parameters["format"] == "png" else {}
    Image.fromarray(_draw_file(file, parameters).image).save(folder / file.path, **options)


def _draw_file(file: CellFile, parameters: dict) -> SyntheticCell:
    given = {name: parameters[name] for name in ("seed", "subject_effect", "difficulty")}
    cell = draw_cell(file.label, subject=file.subject, number=file.number, **given)
    if file.shortcut:
        return SHORTCUTS[file.shortcut](cell)
    if file.side == SIDE:
        return cell
    edge = ((file.side - SIDE) // 2,) * 2
    image = np.pad(cell.image, (edge, edge, (0, 0)))
    pads = {name: np.pad(getattr(cell, name), edge) for name in ("outline", "nucleus", "nucleoli")}
    return replace(cell, image=image, **pads)


def load_truth(path: str | Path) -> SyntheticCell:
    """Return the truth of an image of the twin: its outline, its nucleus and the cues it was drawn with.

    The cell is drawn again from the parameters in `twin.json`; its image equals the file's. Also for the unlabelled
    final part. For a duplicate, it is the cell it was copied from, with that subject. Raises AllkitError where the
    image does not belong to a twin, or the twin is of another version.
    """
    file, parameters = _find_file(path)
    return _draw_file(file, parameters)


def ideal_observer(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions table of one who knows the numbers behind each cell of a twin, but not its subject.

    `rows` are of the twin's index. See `allkit.synthetic.cells.ideal_log_odds`: the ceiling for every classifier.
    """
    odds = []
    for path in rows["path"]:
        file, parameters = _find_file(path)
        given = {name: parameters[name] for name in ("seed", "subject_effect", "difficulty")}
        odds.append(ideal_log_odds(file.label, file.subject, file.number, **given))
    table = rows[["path", "label", "subject", "group"]].reset_index(drop=True)
    return table.assign(p_ALL=expit(odds), p_HEM=1 - expit(odds))


def evaluate_ceiling(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the predictions of `ideal_observer` by what it is, or nothing where the cells are not synthetic."""
    drawn = rows["source"].eq("synthetic").all()
    return {"ceiling: knows how each cell was drawn": ideal_observer(rows)} if drawn else {}


def _find_file(path: str | Path) -> tuple[CellFile, dict]:
    """Return which cell an image of a twin shows, and the parameters of its twin."""
    path = Path(path).resolve()
    root = next((parent for parent in path.parents if (parent / "twin.json").is_file()), None)
    parameters = read_record(root) if root else None
    if parameters is None:
        raise AllkitError(f"{path} is not part of a synthetic twin; truth is known for synthetic cells only")
    if parameters.get("version") != VERSION:
        raise AllkitError(f"the twin in {root} is of another version; remove the folder and make it anew")
    plan, parameters = PLANS[parameters["kind"]](parameters)
    name = path.relative_to(root).as_posix()
    if name not in plan.files:
        raise AllkitError(f"the twin in {root} has no image {name}; was it renamed?")
    return plan.files[plan.copies.get(name, name)], parameters


PLANS: dict[str, Callable[[dict], tuple[TwinPlan, dict]]] = {
    TWIN: lambda record: (plan_twin(record["images"], record["seed"], record["format"]), record)
}
"""By the kind in `twin.json`: how its record becomes a plan, and the parameters with which its cells are drawn."""
