"""Running the notebooks in order, into a run folder: once, or once for each combination of values (a sweep)."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import itertools
import logging
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import dask
import nbformat
import pandas as pd
import papermill
from dask.system import CPU_COUNT, cpu_count
from distributed import Client, Event, Future, KilledWorker, LocalCluster, as_completed
from distributed.system import MEMORY_LIMIT
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from allkit import ROOT, AllkitError, disk_trouble
from allkit.course.offline import title_of
from allkit.data import describe_reading, index_hash, load_index, require_positive
from allkit.folders import (
    FORMAT,
    SYNTHETIC,
    data_path,
    is_run_folder,
    locked,
    make_data,
    read_json,
    run_path,
    save_json,
    timestamp,
)
from allkit.layout import scan_source
from allkit.parameters import SETTINGS, as_any, as_kind, read_parameters
from allkit.source import read_source, write_description

logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what matters is in the executed copy and in the result

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "ABSL_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "JUPYTER_PREFER_ENV_PATH": "1",
    "ALLKIT_HEADLESS": "1",
}
"""Environment of the kernels: no messages of libraries in the saved outputs, and this Python's kernel, no other's."""

OPTIONS = {"data": "--data", "profile": "--profile", "run_folder": "--out"}
"""Parameters that every notebook has and that have an option of their own."""

DEFAULTS = {"data": SYNTHETIC}
"""Values that change nothing where a notebook has no such parameter."""


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
    """How one run of the notebooks went."""

    path: Path
    notebooks: tuple[NotebookResult, ...]
    crash: str = ""
    """Why a run of a sweep has no results at all, for instance because its process died."""

    @property
    def status(self) -> str:
        """ "interrupted", "failed", "skipped" (every notebook was done before), or "done"."""
        found = {notebook.status for notebook in self.notebooks}
        if "interrupted" in found:
            return "interrupted"
        if self.crash or "failed" in found:
            return "failed"
        return "skipped" if found == {"skipped"} else "done"

    @property
    def ok(self) -> bool:
        """Whether every notebook is done."""
        return self.status in ("done", "skipped")

    @property
    def seconds(self) -> float:
        """Sum over the notebooks."""
        return sum(notebook.seconds for notebook in self.notebooks)

    @property
    def error(self) -> str:
        """The first error, with notebook and cell; empty when there is none."""
        for notebook in self.notebooks:
            if notebook.error:
                cell = f", cell In [{notebook.cell}]" if notebook.cell else ""
                return f"{notebook.name}{cell}: {notebook.error}"
        return self.crash


def run_notebooks(
    *,
    profile: str = "quick",
    data: str = SYNTHETIC,
    only: str | Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    notebooks: Path = ROOT / "notebooks",
    layout: str = "",
    positive: str = "",
    reporter: Callable[[NotebookResult], None] | None = None,
    announce: Callable[[str], None] | None = None,
    progress: bool = False,
) -> NotebooksResult:
    """Execute the notebooks in order; a failed one is kept and named, and the others still run.

    `only` holds numbers of notebooks ("01,03"). `parameters` maps a name, or "04.name" for one notebook, which takes
    precedence, to a value; text is read as papermill's -p does, and "none" is None. `out` is a run folder, by default
    "latest": a fresh run moves an older one aside. With `resume` a notebook is skipped when it was done with the same
    source and parameters, after the same run of the notebooks before it. `notebooks` is a folder of notebooks, or a
    single one. `layout` and `positive` say how the data are to be read, see `allkit.data.load_index`. `reporter` gets
    every result at once, `announce` how the data were read; `progress` draws a bar of cells.

    Raises AllkitError before anything starts for unknown names, numbers, data that contradict themselves or an unusable
    folder.
    """
    data = str(data_path(data) or SYNTHETIC)
    path = run_path(out or "latest")
    declared = {source: _declared(source) for source in _select_notebooks(Path(notebooks), only)}
    if data == SYNTHETIC and (layout or positive):
        raise AllkitError("--layout and --positive are about data of your own; the synthetic ones are known.")
    described = path / "data.toml" if layout or positive else data
    shared = {"data": str(described), "profile": profile, "run_folder": str(path)}
    plan = _plan_values(declared, parameters or {}, shared)
    facts = {"profile": profile, "data": data, "layout": layout, "positive": positive}
    facts["data_hash"] = _check_data(data, layout, positive, announce)
    results = []
    with locked(path), mock.patch.dict(os.environ, QUIET):
        record = {"notebooks": {}} | _prepare_folder(path, "notebooks.json", facts, resume)
        if layout or positive:
            write_description(described, read_source(data, layout, positive))
        for number, (source, values) in enumerate(plan.items(), 1):
            title = f"[{number}/{len(plan)}] {source.stem}" if progress else ""
            results.append(_run_or_skip(source, values, path, record, resume, title))
            if reporter:
                reporter(results[-1])
            if results[-1].status == "interrupted":
                break
    return NotebooksResult(path, tuple(results))


def _check_data(data: str, layout: str, positive: str, announce: Callable[[str], None] | None) -> str:
    """Read a data set's names and contents; return its hash, "" for the synthetic one."""
    if data == SYNTHETIC:
        return ""
    index = load_index(data, layout=layout, positive=positive)
    require_positive(index)
    if announce:
        announce(describe_reading(scan_source(read_source(data, layout, positive)), index))
    return index_hash(index)


def list_notebooks(folder: Path = ROOT / "notebooks") -> pd.DataFrame:
    """Return one row for each notebook, index `notebook` ("01"): file and title (without number)."""
    paths = _select_notebooks(folder, None)
    rows = [(path.name[:2], path.name, title_of(nbformat.read(path, as_version=4))) for path in paths]
    return pd.DataFrame(rows, columns=["notebook", "file", "title"]).set_index("notebook")


def _select_notebooks(folder: Path, only: str | Sequence[str] | None) -> list[Path]:
    """Return the paths of the notebooks to run, in order; `folder` may be a single notebook."""
    if folder.suffix == ".ipynb":
        if only:
            raise AllkitError("one notebook is named already; leave out the numbers of --only.")
        if not folder.is_file():
            raise AllkitError(f"{folder}: there is no such notebook.")
        return [folder.resolve()]
    found = {path.name[:2]: path.resolve() for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise AllkitError(f"{folder} holds no notebook called NN_name.ipynb; give the folder of the notebooks.")
    only = only.split(",") if isinstance(only, str) and only else only
    wanted = [number.strip().zfill(2) for number in only or found]
    unknown = [number for number in wanted if number not in found]
    if unknown:
        raise AllkitError(f"there is no notebook {', '.join(unknown)}; there are {', '.join(found)}.")
    return [path for number, path in found.items() if number in wanted]


def _plan_values(
    declared: Mapping[Path, Mapping[str, Any]], parameters: Mapping[str, Any], shared: Mapping[str, Any]
) -> dict[Path, dict[str, Any]]:
    """Return what to inject into each notebook; AllkitError for a name that no notebook declares."""
    for source, names in declared.items():
        lost = [name for name in shared if name not in names and shared[name] != DEFAULTS.get(name)]
        if "data" in lost:
            raise AllkitError(
                f"{source.name} has no parameter data, so --data would have no effect: set data in a cell with the tag "
                "parameters."
            )
    plan = {source: {n: v for n, v in shared.items() if n in names} for source, names in declared.items()}
    # those for one notebook last, so that they take precedence
    for given in sorted(parameters, key=lambda given: re.match(r"\d+\.", given) is not None):
        name, targets = _targets(given, declared)
        for source in targets:
            own = declared[source][name]
            place = plan[source].setdefault("settings", {}) if own.in_settings else plan[source]
            place[name] = _parse(given, parameters[given], own)
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


@dataclass(frozen=True)
class _Declared:
    """A parameter of a notebook: its default, its kind, and whether it stands in the notebook's `settings`."""

    default: Any
    kind: Any
    in_settings: bool = False


def _declared(source: Path) -> dict[str, _Declared]:
    """Return the parameters that a notebook declares, by name.

    They stand in the cell with the tag, and in code cells before it. One that is called `settings` holds what is in
    `allkit.parameters.SETTINGS`.
    """
    try:
        cells = nbformat.read(source, as_version=4).cells
    except (ValueError, AttributeError, KeyError) as error:
        raise AllkitError(f"{source} cannot be read as a notebook; restore it from the clone.") from error
    code = [cell for cell in cells if cell.cell_type == "code"]
    tagged = next((k for k, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])), -1)
    try:
        found = read_parameters("\n".join(cell.source for cell in code[: tagged + 1]))
    except SyntaxError as error:
        raise AllkitError(f"{source}: the cell of its parameters is no Python ({error}); correct it.") from error
    changes = {name: _Declared(None, kind, True) for name, kind in SETTINGS.items()} if "settings" in found else {}
    return changes | {name: _Declared(*known) for name, known in found.items() if name != "settings"}


def _unknown_parameter(given: str, name: str, number: str, declared: Mapping[Path, Any]) -> AllkitError:
    if number and not any(s.name.startswith(number) for s in declared):
        return AllkitError(f"parameter {given!r}: notebook {number} is not among those to run.")
    names = {n for s, ns in declared.items() if s.name.startswith(number) for n in ns} - set(OPTIONS)
    near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    where = f"notebook {number}" if number else "none of the notebooks to run"
    verb = "has no" if number else "has a"
    return AllkitError(f"{where} {verb} parameter {name!r}; {hint}Known: {', '.join(sorted(names)) or 'none'}.")


def _parse(name: str, value: Any, declared: _Declared) -> Any:
    """Read the value of a -p option as the kind that the notebook declares.

    Where None means "as the profile says", the word itself means none at all: no weights, no crop.
    """
    word = isinstance(value, str) and value in ("None", "none")
    read = as_kind(name, value, declared.kind) if declared.kind else None if word else as_any(value)
    return "none" if read is None and declared.default is None else read


def _prepare_folder(path: Path, file: str, facts: dict[str, Any], resume: bool) -> dict[str, Any]:
    """Return the saved record `file` of a run or sweep folder; an older one is moved aside unless resuming."""
    record = {"format": FORMAT, "created": timestamp()}
    is_sweep = (path / "sweep.json").exists()
    if is_sweep or is_run_folder(path):
        if is_sweep != (file == "sweep.json"):
            raise AllkitError(f"{path} is a {'sweep' if is_sweep else 'single run'}; choose another --out.")
        if not resume:
            _move_aside(path)
        elif (path / file).exists():
            record = read_json(path / file)
            if record.get("format") != FORMAT:
                raise AllkitError(f"{path} was made by another version of allkit; choose another --out.")
            if record.get("data") != facts["data"]:
                raise AllkitError(f"{path} was made with data={record.get('data')!r}; choose another --out.")
    save_json(path / file, record | facts)
    return record | facts


def _move_aside(path: Path) -> None:
    """Rename an older run or sweep to <name>-<time of its last change>."""
    changed = time.strftime("%Y%m%d-%H%M%S", time.gmtime(path.stat().st_mtime))
    try:
        path.rename(path.with_name(f"{path.name}-{changed}"))
    except OSError as error:
        raise AllkitError(f"the older {path} could not be moved aside ({error}); choose another --out.") from error


def _state(source: Path, values: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be unchanged for a notebook to count as done already.

    Later notebooks read what earlier ones saved, so a newer run of an earlier one counts as a change.
    """
    others = sorted(record["notebooks"].items())
    before = [(name, entry.get("ended")) for name, entry in others if name < source.stem]
    return {
        "data": record["data_hash"],
        "source": hashlib.sha256(source.read_bytes()).hexdigest()[:16],
        "parameters": {name: value for name, value in values.items() if name != "run_folder"},
        "after": hashlib.sha256(repr(before).encode()).hexdigest()[:16],
    }


def _run_or_skip(
    source: Path, values: Mapping[str, Any], path: Path, record: dict[str, Any], resume: bool, title: str
) -> NotebookResult:
    """Run one notebook unless it is done; write what happened to notebooks.json either way."""
    name, copy = source.stem, path / "notebooks" / source.name
    entry, state = record["notebooks"].get(name, {}), _state(source, values, record)
    if resume and entry.get("status") == "done" and copy.exists() and entry | state == entry:
        return NotebookResult(name, "skipped", entry["seconds"], copy=copy)
    record["notebooks"][name] = {"status": "running"}
    save_json(path / "notebooks.json", record)
    started = time.perf_counter()
    status, cell, error = _execute(source, values, copy, title)
    result = NotebookResult(name, status, round(time.perf_counter() - started, 1), cell, error, copy)
    outcome = {"status": status, "seconds": result.seconds, "cell": cell, "error": error}
    record["notebooks"][name] = outcome | {"ended": timestamp()} | state
    save_json(path / "notebooks.json", record)
    return result


def _execute(source: Path, values: Mapping[str, Any], copy: Path, title: str) -> tuple[str, int | None, str]:
    """Execute one notebook into `copy`; return status, number of the failed cell and its error."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        papermill.execute_notebook(
            str(source),
            str(copy),
            parameters=values,
            kernel_name="python3",
            language="python",
            cwd=str(source.parent),
            progress_bar={"desc": title, "leave": False, "disable": None} if title else False,  # None: not in a file
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


THREADS = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)
"""Environment that says how many threads a kernel computes with."""

MEMORY_EACH = 4 * 2**30
"""Bytes of memory for each run of a sweep, unless the number of workers is given."""

PATIENCE = "5s"
"""How long to wait for a Dask cluster to answer."""


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
    layout: str = "",
    positive: str = "",
    workers: int | None = None,
    scheduler: str | None = None,
    publish: Callable[[Path], Any] | None = None,
    reporter: Callable[[NotebooksResult], None] | None = None,
) -> list[NotebooksResult]:
    """Run the notebooks once for every combination of values, several runs at a time; results in the grid's order.

    `grid` maps a parameter, or "04.name" for one notebook, to its values. The run folders lie in `out`, by default
    "sweep". A run that fails, or whose process dies again and again, does not stop the others. With `resume` what is
    done is skipped. The runs share the cores between `workers` processes of this machine, or go to the Dask cluster at
    the address `scheduler`, whose workers must see the same files at the same paths. `publish` is called by the worker
    with each run folder that has something new, `reporter` gets every result at once; the other options are those of
    `run_notebooks`.

    Raises AllkitError before anything starts for what `run_notebooks` refuses, for values that are given twice, and
    where no cluster answers; KeyboardInterrupt after Ctrl-C, when all that is done is kept. In a script of your own,
    call it below `if __name__ == "__main__":`.
    """
    data, path = str(data_path(data) or SYNTHETIC), run_path(out or "sweep")
    options = {"profile": profile, "data": data, "only": only, "notebooks": Path(notebooks).resolve()}
    options |= {"layout": layout, "positive": positive}
    _check_data(data, layout, positive, None)
    points = _grid_points(grid, parameters or {}, _select_notebooks(Path(notebooks), only))
    with _connect(scheduler, workers, len(points)) as client, locked(path):
        _prepare_folder(path, "sweep.json", options | {"grid": grid}, resume)
        if data == SYNTHETIC:
            make_data(SYNTHETIC)  # once, before many processes want it
        tasks = {path / name: options | {"parameters": values} for name, values in points.items()}
        results = _collect(client, tasks, publish, reporter)
    return [results[folder] for folder in tasks]


def _collect(
    client: Client,
    tasks: Mapping[Path, Mapping[str, Any]],
    publish: Callable[[Path], Any] | None,
    reporter: Callable[[NotebooksResult], None] | None,
) -> dict[Path, NotebooksResult]:
    """Make all runs of a sweep, and hand every result to `reporter` at once; return them by folder."""
    results, stop = {}, Event(client=client)
    try:
        for result in _run_all(client, tasks, stop, publish):
            results[result.path] = result
            if reporter:
                reporter(result)
    except KeyboardInterrupt:
        stop.set()  # what another machine has begun ends after its present notebook
        raise
    return results


def _grid_points(
    grid: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any], sources: Sequence[Path]
) -> dict[str, dict[str, Any]]:
    """Return the parameters of every run of a sweep by the name of its folder, in the grid's order."""
    if both := set(grid) & set(fixed):
        raise AllkitError(f"{min(both)} has one value for all runs and values to sweep; give it once.")
    declared = {source: _declared(source) for source in sources}
    points = {}
    for values in itertools.product(*grid.values()):
        given = dict(zip(grid, values, strict=True))
        _plan_values(declared, {**fixed, **given}, {})  # refuses unknown names and values of another kind
        folder = _folder_name(given, declared)
        if folder in points:
            raise AllkitError(f"--sweep gives the run {folder} twice; give each value once.")
        points[folder] = {**fixed, **given}
    return points


def _folder_name(given: Mapping[str, Any], declared: Mapping[Path, Mapping[str, Any]]) -> str:
    """Return a name like "seed-1,rate-0.001", with values as the first notebook that has them reads them."""
    parts = []
    for key, value in given.items():
        name, targets = _targets(key, declared)
        parts.append(f"{key}-{_parse(key, value, declared[targets[0]][name])}")
    text = ",".join(parts)
    clean = re.sub(r"[^\w.,+-]", "_", text)[:100]
    return clean if clean == text else f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


@contextlib.contextmanager
def _connect(scheduler: str | None, workers: int | None, runs: int) -> Iterator[Client]:
    """Yield a client of the Dask cluster at an address, or of a cluster of processes on this machine only."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)  # a script without a main guard, read again by a process that it started
    with contextlib.ExitStack() as stack:
        cluster = scheduler
        if not scheduler:
            # no web pages about the cluster; no waiting for ever for a process that does not start again
            settings = {
                "distributed.scheduler.http.routes": [],
                "distributed.scheduler.no-workers-timeout": "5 minutes",
            }
            stack.enter_context(dask.config.set(settings))
            cluster = stack.enter_context(_start_processes(min(runs, workers or _fitting_workers())))
        try:
            client = stack.enter_context(Client(cluster, timeout=PATIENCE, set_as_default=False))
            client.wait_for_workers(1, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise AllkitError(f"no Dask cluster with workers answers at {scheduler!r} ({error}); start it.") from error
        yield client


def _fitting_workers() -> int:
    return max(1, min(CPU_COUNT, MEMORY_LIMIT // MEMORY_EACH))


def _start_processes(count: int) -> LocalCluster:
    try:
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            # Ctrl-C is for this process to answer
            preload=["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
        )
    except RuntimeError as error:
        raise AllkitError(
            f"the processes of the sweep did not start ({error}). In a script of your own the call of run_sweep stands "
            'below `if __name__ == "__main__":`, because each process reads the script again.'
        ) from error


def _run_all(
    client: Client, tasks: Mapping[Path, Mapping[str, Any]], stop: Event, publish: Callable[[Path], Any] | None
) -> Iterator[NotebooksResult]:
    """Make the runs, as many at a time as the workers have threads, and yield each when it has ended.

    No run waits on a worker, because Dask blames all that are there when one makes the worker die.
    """
    threads, waiting = _threads_each(client), iter(tasks.items())
    futures, ended = {}, as_completed(loop=client.loop)

    def start(count: int) -> None:
        for path, options in itertools.islice(waiting, count):
            future = client.submit(_make_run, path, stop, threads, publish, options, pure=False)
            futures[future] = path
            ended.add(future)

    start(sum(client.nthreads().values()))
    for future in ended:
        yield _outcome(future, futures.pop(future))
        future.release()  # Dask would make the run again if its result were lost with a worker
        start(1)


def _threads_each(client: Client) -> int:
    """Return how many threads each run computes with: the same number for all, so that their figures compare."""
    cores, runs_at_once = client.run(cpu_count), Counter()
    hosts = {worker: urlsplit(worker).hostname for worker in cores}
    for worker, threads in client.nthreads(list(cores)).items():
        runs_at_once[hosts[worker]] += threads
    return max(1, min(cores[worker] // runs_at_once[hosts[worker]] for worker in cores))


def _make_run(
    path: Path, stop: Event, threads: int, publish: Callable[[Path], Any] | None, options: Mapping[str, Any]
) -> NotebooksResult:
    """Make one run of a sweep, on a worker; what an earlier attempt has done is not done again."""
    if not (path.parent / "sweep.json").exists():
        raise AllkitError(f"a worker does not see {path.parent}; workers need the same files at the same paths.")

    def end_after_stop(_: NotebookResult) -> None:
        if stop.is_set():
            raise AllkitError("the sweep was stopped from the keyboard.")

    # several networks on one GPU: none may take all of its memory at the start
    environment = dict.fromkeys(THREADS, str(threads)) | {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    with mock.patch.dict(os.environ, environment):
        result = run_notebooks(out=path, resume=True, reporter=end_after_stop, **options)
        if publish and result.status != "skipped":
            publish(path)
    return result


def _outcome(future: Future, path: Path) -> NotebooksResult:
    """Return the result of a run that has ended; AllkitError when there is no cluster any more."""
    if future.status == "cancelled":
        raise AllkitError("the Dask scheduler went away; start it, and go on with --resume. What is done is kept.")
    error = future.exception()
    if isinstance(error, KilledWorker):
        return NotebooksResult(path, (), "its process died each time; perhaps the memory was not enough")
    return NotebooksResult(path, (), str(error)) if error else future.result()
