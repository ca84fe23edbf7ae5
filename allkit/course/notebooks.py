"""Running the notebooks of the series in order, into a run folder.

`run_notebooks` makes one run, `run_sweep` one for each combination of values.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import itertools
import logging
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import nbformat
import pandas as pd
import papermill
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from distributed.system import MEMORY_LIMIT
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from allkit import ROOT, AllkitError, disk_trouble
from allkit.course.report import publish_report, title_of
from allkit.folders import (
    FORMAT,
    SYNTHETIC,
    data_path,
    is_run_folder,
    make_data,
    read_json,
    run_path,
    save_json,
    timestamp,
    to_plain,
)

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
class NotebooksResult:
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


def run_notebooks(
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
) -> NotebooksResult:
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
    declared = {source: _declared(source) for source in _select_notebooks(notebooks, only)}
    plan = _plan_values(declared, parameters or {}, shared)
    record = _prepare_folder(path, profile, data, resume)
    results = []
    with _environment(QUIET):
        for number, (source, values) in enumerate(plan.items(), 1):
            state = _state(source, values, record["notebooks"])
            title = f"[{number}/{len(plan)}] {source.stem}" if progress else ""
            result = _run_or_skip(_Step(source, values, state), path, record, resume, title)
            results.append(result)
            if reporter:
                reporter(result)
            if result.status == "interrupted":
                break
    return NotebooksResult(path, tuple(results))


def list_notebooks(folder: Path = ROOT / "notebooks") -> pd.DataFrame:
    """Return the notebooks of the series: one row each, index `notebook` ("01"), file and title (without number)."""
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
    declared: Mapping[Path, Mapping[str, Any]], parameters: Mapping[str, Any], shared: Mapping[str, Any]
) -> dict[Path, dict[str, Any]]:
    """Return what to inject into each notebook; AllkitError for a name that no notebook declares."""
    plan = {s: {n: v for n, v in shared.items() if n in names} for s, names in declared.items()}
    for given, value in parameters.items():
        name, targets = _targets(given, declared)
        for source in targets:
            plan[source][name] = _parse(given, value, declared[source][name])
    return plan


def _targets(given: str, declared: Mapping[Path, Mapping[str, Any]]) -> tuple[str, list[Path]]:
    """Return the bare name of a parameter, and the notebooks that it is for."""
    match = re.fullmatch(r"(\d+)\.(.+)", given)
    number, name = (match[1].zfill(2), match[2]) if match else ("", given)
    if name in OPTIONS and not (number and name == "profile"):
        raise AllkitError(f"the parameter {name!r} is the same for the whole run; use {OPTIONS[name]}.")
    targets = [s for s in declared if s.name.startswith(number) and name in declared[s]]
    if not targets:
        raise _unknown_parameter(given, name, number, declared)
    return name, targets


def _declared(source: Path) -> dict[str, Any]:
    """Return the parameters that a notebook declares, with their default values."""
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
    """Return notebooks.json of a folder that is ready for this run; move an older run aside unless resuming."""
    record = {"format": FORMAT, "created": timestamp(), "profile": profile, "data": data, "notebooks": {}}
    if is_run_folder(path):
        if not resume:
            _move_aside(path)
        elif (path / "notebooks.json").exists():
            old = read_json(path / "notebooks.json")
            if old.get("format") != FORMAT or not isinstance(old.get("notebooks"), dict):
                raise AllkitError(f"{path} was made by another version of allkit; choose another --out.")
            if old.get("data") != data:
                raise AllkitError(f"{path} is a run on data={old.get('data')!r}; choose another --out.")
            record = old | {"profile": profile}
    save_json(path / "notebooks.json", record)
    return record


def _move_aside(path: Path) -> None:
    """Rename an older run or sweep to <name>-<when it was created>."""
    created = ""
    for file in ("notebooks.json", "params.json", "sweep.json"):
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
    """Run one notebook unless it is done; write what happened to notebooks.json either way."""
    entry = record["notebooks"].get(step.name, {})
    copy = path / "notebooks" / step.source.name
    unchanged = all(entry.get(key) == value for key, value in step.state.items())
    if resume and entry.get("status") == "done" and unchanged and copy.exists():
        return NotebookResult(step.name, "skipped", entry["seconds"], copy=copy)
    record["notebooks"][step.name] = {"status": "running"}
    save_json(path / "notebooks.json", record)
    started = time.perf_counter()
    status, cell, error = _execute(step, copy, title)
    result = NotebookResult(step.name, status, round(time.perf_counter() - started, 1), cell, error, copy)
    outcome = {"status": status, "seconds": result.seconds, "cell": cell, "error": error}
    record["notebooks"][step.name] = outcome | {"ended": timestamp()} | step.state
    save_json(path / "notebooks.json", record)
    return result


def _execute(step: _Step, copy: Path, title: str) -> tuple[str, int | None, str]:
    """Execute one notebook into `copy`; return status, number of the failed cell and its error."""
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
    with contextlib.suppress(OSError, ValueError):
        cells = [c for c in nbformat.read(copy, as_version=4).cells if c.cell_type == "code"]
        return sum(bool(c.metadata.get("papermill", {}).get("start_time")) for c in cells) or None
    return None


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which the kernels inherit, for as long as the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
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


# ------------------------------------------------------------------------------- a sweep: many runs at once

THREADS = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)
"""Environment that says how many threads the kernels compute with."""


MEMORY_EACH = 4 * 2**30
"""Bytes of memory that are allowed for each run when the number of processes is not given."""


@dataclass(frozen=True)
class SweepRun:
    """How one combination of a sweep went."""

    path: Path
    values: dict[str, Any]
    status: str = "waiting"
    """"done", "failed", "stopped" (from the keyboard), "skipped" (done in an earlier pass), or "waiting"."""
    seconds: float = 0.0
    """Sum over the notebooks of the run."""
    error: str = ""


@dataclass(frozen=True)
class SweepResult:
    """How a sweep went; `runs` has every combination, in the order of the grid."""

    path: Path
    runs: tuple[SweepRun, ...]
    interrupted: bool

    @property
    def ok(self) -> bool:
        """Whether every combination is done."""
        return all(run.status in ("done", "skipped") for run in self.runs)


@dataclass(frozen=True)
class _Combination:
    """What distinguishes one run of a sweep: values as given (for `run_notebooks`) and as read (to be shown)."""

    given: dict[str, Any]
    read: dict[str, Any]

    @property
    def folder(self) -> str:
        text = ",".join(f"{name}-{value}" for name, value in self.read.items())
        clean = re.sub(r"[^\w.,+-]", "_", text)[:100]
        return clean if clean == text else f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def run_sweep(
    grid: Mapping[str, Sequence[Any]],
    *,
    profile: str = "quick",
    data: str = SYNTHETIC,
    only: str | Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    notebooks: Path = ROOT / "notebooks",
    workers: int | None = None,
    scheduler: str | None = None,
    reporter: Callable[[SweepRun], None] | None = None,
) -> SweepResult:
    """Run the series once for every combination of values, several at a time, each into a run folder of its own.

    `grid` maps a parameter, or "04.name" for one notebook, to its values. The run folders lie in `out` (by default
    "sweep") beside sweep.json, which says what became of each. A run that fails, or whose process dies, does not stop
    the others; a dead process is replaced and its run taken up again. With `resume` what is done already is skipped.
    The runs share this machine's cores between `workers` processes, or go to the Dask cluster at the address
    `scheduler`, whose workers must see the same files at the same paths. `reporter` is told of every run as it ends.
    The other options are those of `run_notebooks`.

    Raises AllkitError before anything starts for what `run_notebooks` refuses, and for a cluster that is of no use.
    """
    data = str(data_path(data) or SYNTHETIC)
    path = run_path(out or "sweep")
    declared = {source: _declared(source) for source in _select_notebooks(notebooks, only)}
    combinations = _combine(grid, declared, parameters or {})
    runs = {c.folder: SweepRun(path / c.folder, c.read) for c in combinations}
    options = {"profile": profile, "data": data, "only": only, "notebooks": Path(notebooks).resolve()}
    with _client(scheduler, _count_workers(workers, len(runs))) as client:
        record = _prepare_sweep(path, resume, to_plain(options) | {"grid": grid})
        _save_sweep(path, record, runs, "running")
        options |= {"threads": _threads_each(client, [*declared, path / "sweep.json", _shared_data(data)])}
        tasks = {c.folder: options | {"parameters": _own_last({**(parameters or {}), **c.given})} for c in combinations}

        def tell(run: SweepRun) -> None:
            runs[run.path.name] = run
            _save_sweep(path, record, runs, "running")
            if reporter:
                reporter(run)

        interrupted = _run_tasks(client, runs, tasks, tell)
        if interrupted:
            runs |= {name: replace(run, status="stopped") for name, run in runs.items() if run.status == "waiting"}
        _save_sweep(path, record, runs, "stopped" if interrupted else "ended")
    return SweepResult(path, tuple(runs.values()), interrupted)


def _combine(
    grid: Mapping[str, Sequence[Any]], declared: Mapping[Path, Mapping[str, Any]], fixed: Mapping[str, Any]
) -> list[_Combination]:
    """Return every combination of the grid; AllkitError for names and values that `run_notebooks` would refuse."""
    both = sorted(set(grid) & set(fixed))
    if both:
        raise AllkitError(f"{both[0]} has one value for all runs and values to sweep; give it once.")
    _plan_values(declared, fixed, {})
    axes = [list(zip(grid[name], _read_values(name, grid[name], declared), strict=True)) for name in grid]
    made = []
    for point in itertools.product(*axes):
        given, read = ({n: pair[side] for n, pair in zip(grid, point, strict=True)} for side in (0, 1))
        made.append(_Combination(given, read))
    return made


def _own_last(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with those for one notebook last, so that they take precedence over those for all."""
    return dict(sorted(parameters.items(), key=lambda item: bool(re.match(r"\d+\.", item[0]))))


def _read_values(given: str, values: Sequence[Any], declared: Mapping[Path, Mapping[str, Any]]) -> list[Any]:
    """Return the values of one parameter as the first notebook that has it reads them."""
    name, targets = _targets(given, declared)
    read = []
    for value in values:
        first, *_ = [_parse(given, value, declared[source][name]) for source in targets]  # all are checked
        read.append(first)
    if not read or len({repr(value) for value in read}) < len(read):
        raise AllkitError(f"--sweep {given} needs values, each once; it has {', '.join(map(str, values)) or 'none'}.")
    told = [value for value in read if value not in (None, "none")]
    kinds = {"number" if type(value) in (int, float) else type(value).__name__ for value in told}
    if len(kinds) > 1:
        raise AllkitError(f"--sweep {given} mixes values of different kinds: {', '.join(map(str, values))}.")
    return read


# --------------------------------------------------------------------------------- the sweep's own folder


def _prepare_sweep(path: Path, resume: bool, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return sweep.json of a folder that is ready; move an older sweep aside unless resuming."""
    record = {"format": FORMAT, "created": timestamp(), **wanted, "runs": {}}
    if not (path / "sweep.json").exists():
        if is_run_folder(path):
            raise AllkitError(f"{path} is a single run, not a sweep; choose another --out.")
        return record
    old = read_json(path / "sweep.json")
    if not resume:
        _move_aside(path)
        return record
    if old.get("format") != FORMAT or not isinstance(old.get("runs"), dict):
        raise AllkitError(f"{path} was made by another version of allkit; choose another --out.")
    if old.get("data") != wanted["data"]:
        raise AllkitError(f"{path} is a sweep on data={old.get('data')!r}; choose another --out.")
    return old | wanted


def _save_sweep(path: Path, record: dict[str, Any], runs: Mapping[str, SweepRun], status: str) -> None:
    """Write sweep.json; combinations of an earlier pass that are not asked for now stay in it."""
    now = {
        name: {"values": run.values, "status": run.status, "seconds": run.seconds, "error": run.error}
        for name, run in runs.items()
    }
    save_json(path / "sweep.json", record | {"status": status, "runs": record["runs"] | now})


def _shared_data(data: str) -> Path:
    """Return the path of the data; the twin is drawn here, once, before many processes ask for it."""
    if data != SYNTHETIC:
        return Path(data)

    return make_data(SYNTHETIC)


# ---------------------------------------------------------------------------------------- Dask


@contextlib.contextmanager
def _client(scheduler: str | None, workers: int) -> Iterator[Client]:
    """Yield a client of the cluster at an address, or of a cluster of processes on this machine only."""
    with contextlib.ExitStack() as stack:
        logger = logging.getLogger("distributed")
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        if scheduler:
            yield stack.enter_context(_connect(scheduler))
            return
        # a run may lose its process once; and no web pages about the cluster
        settings = {"distributed.scheduler.allowed-failures": 1, "distributed.scheduler.http.routes": []}
        stack.enter_context(dask.config.set(settings))
        with _without_interrupts():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # None would take port 8787, and warn when it is in use
                scheduler_kwargs={"dashboard": False},
                memory_limit=None,  # the memory goes to the kernels, which Dask does not watch
                silence_logs=logging.CRITICAL,
            )
        stack.enter_context(cluster)
        yield stack.enter_context(Client(cluster, set_as_default=False))


def _connect(scheduler: str) -> Client:
    try:
        return Client(scheduler, timeout="5s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise AllkitError(f"no Dask scheduler answers at {scheduler!r} ({error}); start it, or mend this.") from error


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes that are started in the block ignore Ctrl-C, which is for this process to answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _count_workers(asked: int | None, runs: int) -> int:
    """Return how many processes to start: as many as asked, or as the cores and the memory are enough for."""
    if asked is not None and asked < 1:
        raise AllkitError(f"workers is {asked}; give at least 1.")
    return min(runs, asked or max(1, min(CPU_COUNT, MEMORY_LIMIT // MEMORY_EACH)))


def _threads_each(client: Client, needed: Sequence[Path]) -> int:
    """Return how many threads each run may compute with; the same for all, so that their figures compare.

    AllkitError when the cluster has no workers, or they lack allkit or one of the paths in `needed`.
    """
    workers = client.scheduler_info()["workers"]
    slots = Counter()
    for worker in workers.values():
        slots[worker["host"]] += worker["nthreads"]
    if not slots:
        raise AllkitError("the Dask cluster has no workers; start some.")
    try:
        found = client.run(_look_around, [str(path) for path in needed])
    except Exception as error:  # whatever goes wrong when another machine lacks a package
        raise AllkitError(f"the workers cannot use allkit ({error}); install the same version there.") from error
    for address, (_, missing) in found.items():
        if missing:
            raise AllkitError(f"the worker {address} does not see {missing[0]}; workers need the same paths.")
    shares = [cores // slots[workers[address]["host"]] for address, (cores, _) in found.items() if address in workers]
    return max(1, min(shares, default=1))


def _look_around(paths: Sequence[str]) -> tuple[int, list[str]]:
    """Return the number of cores of this machine, and which of the paths it lacks; runs on a worker."""
    return CPU_COUNT, [path for path in paths if not os.path.exists(path)]


def _run_tasks(
    client: Client,
    runs: Mapping[str, SweepRun],
    tasks: Mapping[str, Mapping[str, Any]],
    tell: Callable[[SweepRun], None],
) -> bool:
    """Make all runs, and tell of each as it ends; return whether they were stopped from the keyboard."""
    futures = {}
    for position, (name, task) in enumerate(tasks.items()):
        future = client.submit(_run_combination, runs[name].path, **task, pure=False, priority=-position)
        futures[future] = runs[name]
    try:
        for future in as_completed(futures, loop=client.loop):
            tell(_outcome(future, futures[future]))
    except KeyboardInterrupt:
        client.cancel(list(futures))  # those that wait
        return True
    return False


def _run_combination(path: Path, *, threads: int, **options: Any) -> NotebooksResult:
    """Make one run folder; runs on a worker. What an earlier attempt has done is not done again."""

    def stop_if_asked(_: NotebookResult) -> None:
        if read_json(path.parent / "sweep.json").get("status") == "stopped":
            raise AllkitError("the sweep was stopped from the keyboard")

    # several networks on one GPU: none may take all of its memory at the start
    environment = dict.fromkeys(THREADS, str(threads)) | {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    with _environment(environment):
        result = run_notebooks(out=path, resume=True, reporter=stop_if_asked, **options)
    if any(notebook.status != "skipped" for notebook in result.notebooks):
        publish_report(path)
    return result


def _outcome(future: Future, run: SweepRun) -> SweepRun:
    """Return a run with what became of it."""
    if future.status == "cancelled":
        return replace(run, status="failed", error="the Dask scheduler went away")
    if future.status == "error":
        error = future.exception()
        died = "the process that made it died each time; perhaps the memory was not enough"
        return replace(run, status="failed", error=died if isinstance(error, KilledWorker) else str(error))
    result = future.result()
    seconds = round(sum(notebook.seconds for notebook in result.notebooks), 1)
    failed = [n for n in result.notebooks if n.status not in ("done", "skipped")]
    if failed:
        cell = f", cell In [{failed[0].cell}]" if failed[0].cell else ""
        return replace(run, status="failed", seconds=seconds, error=f"{failed[0].name}{cell}: {failed[0].error}")
    skipped = all(notebook.status == "skipped" for notebook in result.notebooks)
    return replace(run, status="skipped" if skipped else "done", seconds=seconds)
