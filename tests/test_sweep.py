"""Sweeps: many runs at once, on processes of this machine and on a Dask cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import dask
import nbformat
import pytest
from dask.system import CPU_COUNT
from distributed import LocalCluster
from PIL import Image
from test_run_notebooks import _notebook

from allkit import AllkitError, cli, synthetic
from allkit.course import notebooks as running
from allkit.course.ledger import find_runs
from allkit.course.notebooks import NotebooksResult, run_sweep
from allkit.course.report import publish_report

FIRST = """
import os, signal, time
from pathlib import Path
attempts = Path(run_folder) / "attempts.txt"
with attempts.open("a") as file:
    print(x, rate, os.getppid(), os.environ["TF_NUM_INTRAOP_THREADS"], file=file)
assert (x, rate) != (1, 0.5), "one and a half is refused"
if dies_once == f"{x} {rate}" and len(attempts.read_text().splitlines()) == 1:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    _notebook(folder / "01_first.ipynb", FIRST, parameters="x = 1\nrate = None\ndies_once = ''")
    _notebook(folder / "02_second.ipynb", "y = epochs", parameters="epochs = 1")
    return folder


def _cluster_in_this_process(threads):
    """Start a cluster that can be connected to by its address, without processes of its own."""
    return LocalCluster(
        n_workers=1,
        threads_per_worker=threads,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=":0",
    )


@pytest.fixture(scope="module")
def address():
    with _cluster_in_this_process(threads=1) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Stand in for drawing the twin; holds one item for each time that it was wanted."""
    calls = []
    monkeypatch.setattr(synthetic, "ensure_twin", lambda: calls.append(1) or tmp_path)
    return calls


PARAMETERS = {"dies_once": "2 0.5"}


@pytest.fixture(scope="module")
def swept(notebooks, tmp_path_factory):
    """A sweep over two processes, in which one of four runs fails, and one process dies."""
    reported = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "ensure_twin", lambda: notebooks)
        results = run_sweep(
            {"x": ["1", "2"], "rate": ["1e-3", "0.5"]},
            notebooks=notebooks,
            only="01",
            parameters=PARAMETERS,
            out=tmp_path_factory.mktemp("runs") / "sweep",
            workers=2,
            publish=publish_report,
            reporter=reported.append,
        )
    return results, reported


def _status(results):
    return {result.path.name: result.status for result in results}


def _attempts(result):
    return [line.split() for line in (result.path / "attempts.txt").read_text().splitlines()]


def test_every_combination_is_a_run_and_one_failure_leaves_the_others(swept):
    results, reported = swept
    assert _status(results) == {
        "x-1,rate-0.001": "done",
        "x-1,rate-0.5": "failed",
        "x-2,rate-0.001": "done",
        "x-2,rate-0.5": "done",
    }
    folder = results[0].path.parent
    assert {run.path for run in reported} == {run.path for run in results} == set(find_runs(folder))
    assert results[1].error.startswith("01_first, cell In [3]: AssertionError: one and a half")
    lines = [_attempts(run)[-1] for run in results]
    assert [line[:2] for line in lines] == [["1", "0.001"], ["1", "0.5"], ["2", "0.001"], ["2", "0.5"]]
    assert len({line[2] for line in lines}) > 1  # processes
    assert {line[3] for line in lines} == {str(max(1, CPU_COUNT // 2))}
    for run in results:
        assert (run.path / "report" / "index.html").exists()
    assert json.loads((folder / "sweep.json").read_text())["grid"] == {"x": ["1", "2"], "rate": ["1e-3", "0.5"]}


def test_run_whose_process_dies_is_taken_up_again(swept):
    assert [len(_attempts(run)) for run in swept[0]] == [1, 1, 1, 2]


def test_run_that_kills_its_process_each_time_fails_alone(notebooks, drawn, tmp_path, monkeypatch):
    def make_run(path, *_):  # without notebooks, so that the processes start quickly
        if path.name == "x-3":
            os.kill(os.getpid(), signal.SIGKILL)
        return SimpleNamespace(path=path, status="done")

    monkeypatch.setattr(running, "_make_run", make_run)
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        results = run_sweep({"x": [3, 1]}, notebooks=notebooks, out=tmp_path / "sweep", workers=1)
    # the second waited for the same process, and was blamed for its death
    assert _status(results) == {"x-3": "failed", "x-1": "done"}
    assert "died each time" in results[0].error


def test_sweeps_are_found_among_the_runs(swept, monkeypatch, capsys):
    folder = swept[0][0].path.parent
    monkeypatch.setenv("ALLKIT_RUNS", str(folder.parent))
    for words, expected in (["sweep"], "x-2,rate-0.5: no model is trained yet"), ([], "a sweep: sweep"):
        monkeypatch.setattr(sys, "argv", ["allkit", "runs", *words])
        with pytest.raises(SystemExit):
            cli.main()
        assert expected in "".join(capsys.readouterr())
    (folder.parent / "single").mkdir()
    (folder.parent / "single" / "notebooks.json").write_text("{}")
    with pytest.raises(SystemExit):
        cli.main()
    assert "`allkit runs sweep` lists its runs" in capsys.readouterr().out


def test_resume_skips_what_is_done_and_takes_new_values(swept, notebooks, address, tmp_path, drawn):
    folder = swept[0][0].path.parent
    results = run_sweep(
        {"x": ["2", "0"], "rate": ["0.001"]},
        notebooks=notebooks,
        only="01",
        parameters=PARAMETERS,
        out=folder,
        scheduler=address,
        resume=True,
    )
    assert _status(results) == {"x-2,rate-0.001": "skipped", "x-0,rate-0.001": "done"}
    assert len(_attempts(results[0])) == 1
    assert drawn == [1]  # the twin, once, before many processes want it
    others = tmp_path / "others"
    for label, colour in {"blast": "red", "normal": "blue"}.items():
        (others / label).mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(others / label / "1.png")
    with pytest.raises(AllkitError, match="choose another --out"):
        run_sweep({"x": [1]}, notebooks=notebooks, out=folder, scheduler=address, resume=True, data=str(others))


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ({"epoch": ["3"]}, {}, "did you mean epochs"),
        ({"02.x": ["3"]}, {}, "notebook 02 has no parameter 'x'"),
        ({"epochs": ["3", "many"]}, {}, "must be a whole number"),
        ({"rate": ["1e-3", "0.001"]}, {}, "each value once"),
        ({"x": ["1"]}, {"parameters": {"x": "2"}}, "give it once"),
        ({"x": ["1"]}, {"parameters": {"epoch": "2"}}, "did you mean epochs"),
        ({"data": ["a", "b"]}, {}, "--data"),
        ({"x": ["1"]}, {"data": "no/such/folder"}, "no such file or folder"),
        ({"x": ["1"]}, {"scheduler": "tcp://127.0.0.1:1"}, "no Dask cluster .* answers"),
        ({"x": ["1"]}, {"scheduler": "nonsense://"}, "no Dask cluster .* answers"),
    ],
)
def test_bad_request_is_refused_before_anything_starts(notebooks, tmp_path, monkeypatch, grid, options, message):
    monkeypatch.setattr(running, "PATIENCE", "0.5s")
    with pytest.raises(AllkitError, match=message):
        run_sweep(grid, notebooks=notebooks, out=tmp_path / "sweep", **options)
    assert not (tmp_path / "sweep").exists()


def test_worker_that_does_not_see_the_files_says_so(notebooks, address, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_prepare_folder", lambda *_: {})  # written on a disk that the worker lacks
    (result,) = run_sweep({"x": [1]}, notebooks=notebooks, out=tmp_path / "sweep", scheduler=address)
    assert result.status == "failed"
    assert "same paths" in result.error


def test_a_single_run_is_no_sweep_and_the_reverse(swept, notebooks, address, tmp_path):
    (tmp_path / "notebooks.json").write_text("{}")
    with pytest.raises(AllkitError, match="single run"):
        run_sweep({"x": [1]}, notebooks=notebooks, out=tmp_path, scheduler=address)
    assert [p.name for p in tmp_path.iterdir()] == ["notebooks.json"]
    with pytest.raises(AllkitError, match="is a sweep"):
        running.run_notebooks(notebooks=notebooks, out=swept[0][0].path.parent, resume=True)


def test_names_of_folders_are_safe_and_distinct(notebooks):
    declared = {notebooks / "01_first.ipynb": {"split": running._Declared("subject", str)}}
    names = [running._folder_name({"split": value}, declared) for value in ("a/b", "a_b", "../x", "y" * 300)]
    assert len(set(names)) == 4
    assert not any("/" in name or len(name) > 120 for name in names)


def test_interrupted_sweep_stops_what_has_begun_on_a_cluster(notebooks, drawn, tmp_path, monkeypatch):
    ended = []

    def run_notebooks(*, out, reporter, **_options):
        try:
            while out.name != "x-1":
                time.sleep(0.05)
                reporter(None)  # as after each notebook
        except AllkitError as error:
            ended.append(str(error))
            raise
        return NotebooksResult(out, ())

    def interrupt(_result):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run_notebooks", run_notebooks)
    with _cluster_in_this_process(threads=2) as cluster:
        options = {"out": tmp_path / "sweep", "scheduler": cluster.scheduler_address, "reporter": interrupt}
        with pytest.raises(KeyboardInterrupt):
            run_sweep({"x": [1, 2]}, notebooks=notebooks, **options)
        deadline = time.monotonic() + 20
        while not ended and time.monotonic() < deadline:
            time.sleep(0.05)
    assert ended == ["the sweep was stopped from the keyboard."]


def test_scheduler_that_goes_away_is_named(notebooks, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_make_run", lambda path, *_: NotebooksResult(path, ()))
    monkeypatch.setattr(running, "PATIENCE", "0.5s")
    with _cluster_in_this_process(threads=1) as cluster, pytest.raises(AllkitError, match="scheduler went away"):
        run_sweep(
            {"x": [1, 2]},
            notebooks=notebooks,
            out=tmp_path / "sweep",
            scheduler=cluster.scheduler_address,
            reporter=lambda _: cluster.close(),
        )


@pytest.mark.skipif(os.name == "nt", reason="sends a Unix signal")
def test_interrupted_sweep_keeps_what_is_done(tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out" / "sweep"
    folder.mkdir()
    _notebook(folder / "01_slow.ipynb", "import time; time.sleep(nap)", parameters="nap = 0")
    code = (
        "import functools, pathlib, signal, sys, allkit.cli, allkit.course.notebooks, allkit.synthetic\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored below a background job
        "if __name__ == '__main__':\n"
        "    folder = pathlib.Path(sys.argv.pop(1))\n"
        "    allkit.synthetic.ensure_twin = lambda: folder\n"
        "    running = allkit.course.notebooks\n"
        "    running.run_sweep = functools.partial(running.run_sweep, notebooks=folder)\n"
        "    allkit.cli.main()\n"
    )
    (tmp_path / "sweep.py").write_text(code)
    words = ["run", "--sweep", "nap=0,600,601", "--workers", "1", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "sweep.py"), str(folder), *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline and not (out / "nap-600/notebooks.json").exists():
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "--resume" in stderr
    assert len(stderr.splitlines()) == 1  # no chatter, no traceback
    assert "nap-0" in stdout
    done = json.loads((out / "nap-0" / "notebooks.json").read_text())["notebooks"]["01_slow"]
    assert done["status"] == "done"
    assert nbformat.read(out / "nap-0" / "notebooks" / "01_slow.ipynb", as_version=4)
    assert not (out / "nap-601").exists()


def test_a_script_without_a_main_guard_ends_in_one_sentence(tmp_path):
    script = tmp_path / "sweep.py"
    script.write_text(
        "from allkit import AllkitError\nfrom allkit.course.notebooks import run_sweep\n"
        f"try:\n    run_sweep({{'seed': [1, 2]}}, only='00', out={str(tmp_path / 'out')!r}, workers=2)\n"
        "except AllkitError as error:\n    print(error)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert "stands below `if __name__" in done.stdout, done.stderr[-2000:]
    assert len((done.stdout + done.stderr).splitlines()) < 10, "not hundreds of lines of tracebacks"
