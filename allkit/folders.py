"""Run folders on disk: where they lie, and the JSON files in them; needs neither pandas nor Keras."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from allkit import ROOT, AllkitError, disk_trouble, runs_root, saving

FORMAT = 1
"""Version of the layout of run folders; another one is refused, never converted."""

SYNTHETIC = "synthetic"
"""The value of `data` that stands for the synthetic twin."""


def run_path(run_folder: str | Path) -> Path:
    """Return the absolute path of a run folder: a bare name lies in `runs_root()`, the rest is a path."""
    text = str(run_folder)
    if not text.strip():
        raise AllkitError("run_folder is empty; name one, for instance 'latest'.")
    is_path = text != os.path.basename(text) or text in (".", "..") or text.startswith("~")
    # in a bare name also what Windows has no names with; a path may hold a drive's colon
    if re.search(r"[`\x00-\x1f]" if is_path else r"[`<>:\"|?*\x00-\x1f]", text):
        raise AllkitError(f"run_folder {text!r} is no name for a folder; use letters, digits, '.', '_' and '-'.")
    return (Path(text).expanduser() if is_path else runs_root() / text).resolve()


def find_models(run_or_file: str | Path) -> list[Path]:
    """Return the .keras files of a run folder, or the one file; AllkitError when there is none."""
    path = Path(run_or_file).expanduser()
    found = [path] if path.suffix == ".keras" else sorted((path / "models").glob("*.keras"))
    present = [file for file in found if file.is_file()]
    if not present:
        raise AllkitError(
            f"there is no trained model at {path}; run notebook 04 or 05 first (allkit run --only 04), or name a "
            "run folder or a .keras file."
        )
    return present


def data_path(data: str | Path) -> Path | None:
    """Return the absolute path that `data` means (tried from here, then from the clone); None: the twin."""
    if str(data) == SYNTHETIC:
        return None
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # a name that is too long, a user that is not there
        path = Path(data).expanduser()
        for candidate in (path, ROOT / path):
            if candidate.exists():
                return candidate.resolve()
    raise AllkitError(
        f"data={str(data)!r}: there is no such file or folder (looked in {Path.cwd()} and {ROOT}); "
        "give the path of a data set, or data='synthetic' for drawn cells."
    )


def make_data(name: str) -> Path:
    """Return the folder of a data set that is made rather than read, by its name among the entry points of allkit."""
    maker, *_ = entry_points(group="allkit.data", name=name)  # so that the core needs no drawing code
    return maker.load()()


def is_run_folder(path: Path) -> bool:
    """Return whether `path` is a run folder (False: empty or absent); AllkitError for anything else."""
    if path.exists() and not path.is_dir():
        raise AllkitError(f"{path} is a file, not a run folder; choose another one.")
    if (path / "params.json").exists() or (path / "notebooks.json").exists():
        return True
    if path.is_dir() and any(not p.name.startswith(".") for p in path.iterdir()):
        raise AllkitError(f"{path} holds files but is no run folder; choose an empty or a new folder.")
    return False


def read_params(path: Path) -> dict[str, Any]:
    """Return params.json of the run folder `path`, empty when there is none.

    Raises AllkitError when it cannot be read or was written by another version of the layout.
    """
    file = path / "params.json"
    if not file.exists():
        return {}
    params = read_json(file)
    if params.get("format") != FORMAT or not {"data", "profiles"} <= set(params):
        raise AllkitError(
            f"the run folder {path} was made by another version of allkit (format {params.get('format')}, "
            f"this one writes {FORMAT}); choose another run_folder, or move it away."
        )
    return params


@contextlib.contextmanager
def locked(path: Path, *, wait: float = 0) -> Iterator[None]:
    """Keep a file or folder for this process while the block runs; the lock ends with the process, however it ends.

    Raises AllkitError where another one has it after `wait` seconds.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise AllkitError(
            f"another process is writing {path}: wait until it is done, or choose another folder."
        ) from error
    except OSError as error:
        raise disk_trouble(error, path) from error
    try:
        yield
    finally:
        lock.release()


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON, atomically; arrays, tables and dataclasses become lists and objects."""
    with saving(path) as temporary:
        text = json.dumps(to_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; AllkitError when it cannot be read or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AllkitError(
            f"{path} cannot be read ({error}); choose another run_folder, or move this one away."
        ) from error
    if not isinstance(content, dict):
        raise AllkitError(f"{path} is not a run's file; choose another run_folder or move this one away.")
    return content


def to_plain(value: Any) -> Any:
    """Return `value` in types that JSON has; NaN and infinities, which JSON lacks, become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif hasattr(value, "to_dict"):  # DataFrame: one record per row; Series: by its index
        value = value.to_dict("records") if hasattr(value, "columns") else value.to_dict()
    elif hasattr(value, "tolist"):  # NumPy arrays and scalars
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [to_plain(item) for item in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None  # False for NaN too
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def timestamp() -> str:
    """Return the present time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
