"""Running the notebooks of the series in order, into a run folder.

Everything about a run is reachable from here: `open_run` and `load_data` for the notebooks, `run_series` and
`publish_report` for the command line.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allkit import ROOT, AllkitError
from allkit.report import publish_report, title_of
from allkit.runs import (
    FORMAT,
    SYNTHETIC,
    Run,
    data_path,
    disk_trouble,
    is_run_folder,
    load_data,
    open_run,
    read_json,
    run_path,
    save_json,
    timestamp,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "NotebookResult",
    "Run",
    "SeriesResult",
    "list_notebooks",
    "load_data",
    "open_run",
    "publish_report",
    "run_path",
    "run_series",
]

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "ABSL_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
"""Environment of the kernels that keeps library chatter out of the saved outputs."""

OPTIONS = {"data": "--data", "profile": "--profile", "run_folder": "--out"}
"""Parameters that every notebook shares and that have an option of their own."""


@dataclass(frozen=True)
class NotebookResult:
    """How one notebook went."""

    name: str
    status: str
    """"done", "failed", "interrupted", or "skipped" (done in an earlier run, `--resume`)."""
    seconds: float
    cell: int | None = None
    """Number of the failed cell, as its prompt `In [number]` shows it in the executed copy."""
    error: str = ""
    copy: Path | None = None
    """The executed copy, kept whatever happened."""


@dataclass(frozen=True)
class SeriesResult:
    """How a pass through the series went."""

    path: Path
    notebooks: tuple[NotebookResult, ...]

    @property
    def ok(self) -> bool:
        """Whether every notebook is done."""
        return all(n.status in ("done", "skipped") for n in self.notebooks)

    @property
    def interrupted(self) -> bool:
        """Whether the pass was stopped from the keyboard."""
        return any(n.status == "interrupted" for n in self.notebooks)


@dataclass(frozen=True)
class _Step:
    """One notebook to run, with the values to inject."""

    source: Path
    values: dict[str, Any]
    state: dict[str, Any]

    @property
    def name(self) -> str:
        return self.source.stem


def run_series(
    *,
    profile: str = "quick",
    data: str = SYNTHETIC,
    only: str | Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    notebooks: Path = ROOT / "notebooks",
    reporter: Callable[[NotebookResult], None] | None = None,
    progress: bool = False,
) -> SeriesResult:
    """Execute the notebooks in order; a failed one is kept and named, and the rest still runs.

    `only` holds notebook numbers ("01,03"). `parameters` maps a name, or "04.name" for one notebook, to a
    value; text is read as papermill's -p does, and "none" is None. `out` is a run folder, by default
    "latest": a fresh run moves an older one aside. With `resume` a notebook is skipped when it was done with
    the same source and parameters, after the same run of the notebooks before it. `notebooks` is the folder of the
    series, or a single notebook that is not part of it. `reporter` is told of every
    notebook as it ends; `progress` draws a bar of cells.

    Raises AllkitError before anything starts for unknown names, numbers, data or an unusable folder.
    """
    data = str(data_path(data) or SYNTHETIC)
    path = run_path(out or "latest")
    shared = {"data": data, "profile": profile, "run_folder": str(path)}
    plan = _plan_values(_select_notebooks(notebooks, only), parameters or {}, shared)
    record = _prepare_folder(path, profile, data, resume)
    results = []
    with _quiet_environment():
        for number, (source, values) in enumerate(plan.items(), 1):
            state = _state(source, values, record["notebooks"])
            title = f"[{number}/{len(plan)}] {source.stem}" if progress else ""
            result = _run_or_skip(_Step(source, values, state), path, record, resume, title)
            results.append(result)
            if reporter:
                reporter(result)
            if result.status == "interrupted":
                break
    return SeriesResult(path, tuple(results))


def list_notebooks(folder: Path = ROOT / "notebooks") -> pd.DataFrame:
    """Return the notebooks of the series: one row each, index `notebook` ("01"), file and title (without number)."""
    import nbformat
    import pandas as pd

    paths = _select_notebooks(folder, None)
    rows = [(path.name[:2], path.name, title_of(nbformat.read(path, as_version=4))) for path in paths]
    return pd.DataFrame(rows, columns=["notebook", "file", "title"]).set_index("notebook")


# ------------------------------------------------------------------------------- what to run, with what


def _select_notebooks(folder: Path, only: str | Sequence[str] | None) -> list[Path]:
    if Path(folder).suffix == ".ipynb":
        return [_one_notebook(Path(folder), only)]
    found = {p.name[:2]: p.resolve() for p in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise AllkitError(f"{folder} holds no notebook called NN_name.ipynb; give the folder of the series.")
    if not only:
        return list(found.values())
    only = only.split(",") if isinstance(only, str) else only
    wanted = [number.strip().zfill(2) for number in only]
    unknown = [number for number in wanted if number not in found]
    if unknown:
        raise AllkitError(f"there is no notebook {', '.join(unknown)}; the series has {', '.join(found)}.")
    return [path for number, path in found.items() if number in wanted]


def _one_notebook(path: Path, only: str | Sequence[str] | None) -> Path:
    if only:
        raise AllkitError("one notebook is named already; leave out the numbers of the series.")
    if not path.is_file():
        raise AllkitError(f"{path}: there is no such notebook.")
    return path.resolve()


def _plan_values(
    sources: Iterable[Path], parameters: Mapping[str, Any], shared: Mapping[str, Any]
) -> dict[Path, dict[str, Any]]:
    """Return what to inject into each notebook; AllkitError for a name that no notebook declares."""
    declared = {source: _declared(source) for source in sources}
    plan = {s: {n: v for n, v in shared.items() if n in names} for s, names in declared.items()}
    for given, value in parameters.items():
        match = re.fullmatch(r"(\d+)\.(.+)", given)
        number, name = (match[1].zfill(2), match[2]) if match else ("", given)
        if name in OPTIONS and not (number and name == "profile"):
            raise AllkitError(f"the parameter {name!r} is the same for the whole run; use {OPTIONS[name]}.")
        targets = [s for s in declared if s.name.startswith(number) and name in declared[s]]
        if not targets:
            raise _unknown_parameter(given, name, number, declared)
        for source in targets:
            plan[source][name] = _parse(given, value, declared[source][name])
    return plan


def _declared(source: Path) -> dict[str, Any]:
    """Return the parameters that a notebook declares, with their default values."""
    import papermill

    try:
        with _silent_papermill():
            found = papermill.inspect_notebook(str(source))
    except ValueError as error:
        raise AllkitError(f"{source} cannot be read as a notebook; restore it from the clone.") from error
    defaults = {}
    for name, parameter in found.items():
        try:
            defaults[name] = ast.literal_eval(parameter["default"])
        except (ValueError, SyntaxError):
            defaults[name] = None
    return defaults


def _unknown_parameter(given: str, name: str, number: str, declared: Mapping[Path, Any]) -> AllkitError:
    if number and not any(s.name.startswith(number) for s in declared):
        return AllkitError(f"parameter {given!r}: notebook {number} is not among those to run.")
    names = {n for s, ns in declared.items() if s.name.startswith(number) for n in ns} - set(OPTIONS)
    near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    where = f"notebook {number}" if number else "none of the notebooks to run"
    verb = "has no" if number else "has a"
    return AllkitError(f"{where} {verb} parameter {name!r}; {hint}Known: {', '.join(sorted(names)) or 'none'}.")


def _parse(name: str, value: Any, default: Any) -> Any:
    """Read the text of a -p value as papermill does; text stays text where the notebook's default is text."""
    if not isinstance(value, str):
        return value
    if value in ("None", "none"):
        # where None means "as the profile says", the word itself asks for nothing: no weights, no crop
        return "none" if default is None else None
    if isinstance(default, str):
        return value  # a subject "11" is no number
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    if isinstance(default, bool | int | float):
        raise AllkitError(f"parameter {name} is {default!r} in the notebook; {value!r} is of another kind.")
    return value


# ----------------------------------------------------------------------------------- the folder's record


def _prepare_folder(path: Path, profile: str, data: str, resume: bool) -> dict[str, Any]:
    """Return series.json of a folder that is ready for this run; move an older run aside unless resuming."""
    record = {"format": FORMAT, "created": timestamp(), "profile": profile, "data": data, "notebooks": {}}
    if is_run_folder(path):
        if not resume:
            _move_aside(path)
        elif (path / "series.json").exists():
            old = read_json(path / "series.json")
            if old.get("format") != FORMAT or not isinstance(old.get("notebooks"), dict):
                raise AllkitError(f"{path} was made by another version of allkit; choose another --out.")
            if old.get("data") != data:
                raise AllkitError(f"{path} is a run on data={old.get('data')!r}; choose another --out.")
            record = old | {"profile": profile}
    save_json(path / "series.json", record)
    return record


def _move_aside(path: Path) -> None:
    """Rename an older run to <name>-<when it was created>."""
    created = ""
    for file in ("series.json", "params.json"):
        with contextlib.suppress(AllkitError, OSError):
            created = created or str(read_json(path / file).get("created", ""))
    digits = re.sub(r"\D", "", created[:19])  # 2026-01-31T12:00:00
    if len(digits) != 14:
        digits = time.strftime("%Y%m%d%H%M%S", time.gmtime(path.stat().st_mtime))
    target = path.with_name(f"{path.name}-{digits[:8]}-{digits[8:]}")
    count = 1
    while target.exists():
        count += 1
        target = path.with_name(f"{path.name}-{digits[:8]}-{digits[8:]}-{count}")
    try:
        path.rename(target)
    except OSError as error:
        raise AllkitError(
            f"the older run {path} could not be moved aside ({error.strerror}); choose another --out."
        ) from error


def _state(source: Path, values: Mapping[str, Any], notebooks: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be unchanged for a notebook to count as done already.

    Later notebooks read what earlier ones saved, so a newer run of an earlier one counts as a change.
    """
    before = [(name, entry.get("ended")) for name, entry in sorted(notebooks.items()) if name < source.stem]
    return {
        "source": hashlib.sha256(source.read_bytes()).hexdigest()[:16],
        "parameters": {name: value for name, value in values.items() if name != "run_folder"},
        "after": hashlib.sha256(repr(before).encode()).hexdigest()[:16],
    }


# ---------------------------------------------------------------------------------------------- running


def _run_or_skip(step: _Step, path: Path, record: dict[str, Any], resume: bool, title: str) -> NotebookResult:
    """Run one notebook unless it is done; write what happened to series.json either way."""
    entry = record["notebooks"].get(step.name, {})
    copy = path / "notebooks" / step.source.name
    unchanged = all(entry.get(key) == value for key, value in step.state.items())
    if resume and entry.get("status") == "done" and unchanged and copy.exists():
        return NotebookResult(step.name, "skipped", entry["seconds"], copy=copy)
    record["notebooks"][step.name] = {"status": "running"}
    save_json(path / "series.json", record)
    started = time.perf_counter()
    status, cell, error = _execute(step, copy, title)
    result = NotebookResult(step.name, status, round(time.perf_counter() - started, 1), cell, error, copy)
    outcome = {"status": status, "seconds": result.seconds, "cell": cell, "error": error}
    record["notebooks"][step.name] = outcome | {"ended": timestamp()} | step.state
    save_json(path / "series.json", record)
    return result


def _execute(step: _Step, copy: Path, title: str) -> tuple[str, int | None, str]:
    """Execute one notebook into `copy`; return status, number of the failed cell and its error."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    bar = {"desc": title, "leave": False, "disable": None} if title else False  # None: only on a terminal
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with _silent_papermill():
            papermill.execute_notebook(
                str(step.source),
                str(copy),
                parameters=step.values,
                kernel_name="python3",
                cwd=str(step.source.parent),
                progress_bar=bar,
                # a kernel that is stopped halfway would complain on the terminal
                extra_arguments=["--log-level=CRITICAL"],
            )
    except PapermillExecutionError as error:
        message = str(error.evalue).strip()
        return "failed", error.exec_count, f"{error.ename}: {message}" if message else error.ename
    except DeadKernelError:
        return "failed", _last_started(copy), "the kernel died; perhaps the memory was not enough"
    except RuntimeError as error:  # the kernel did not start
        return "failed", None, str(error)
    except KeyboardInterrupt:
        return "interrupted", _last_started(copy), "stopped from the keyboard"
    except OSError as error:
        raise disk_trouble(error, copy) from error
    return "done", None, ""


def _last_started(copy: Path) -> int | None:
    """Return the number of the code cell that an executed copy had reached."""
    import nbformat

    with contextlib.suppress(OSError, ValueError):
        cells = [c for c in nbformat.read(copy, as_version=4).cells if c.cell_type == "code"]
        return sum(bool(c.metadata.get("papermill", {}).get("start_time")) for c in cells) or None
    return None


@contextlib.contextmanager
def _quiet_environment() -> Iterator[None]:
    """Give the kernels, which inherit it, the environment QUIET for as long as the block runs."""
    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _silent_papermill() -> Iterator[None]:
    """Keep papermill's log off the terminal; what matters is in the executed copy and in the result."""
    logger = logging.getLogger("papermill")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
