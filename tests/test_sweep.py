"""Sweeps: many runs at once, on processes of this machine and on a Dask cluster."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from dask.system import CPU_COUNT
from test_run_notebooks import _notebook

from allkit import AllkitError, cli, synthetic
from allkit.course import notebooks as running
from allkit.course.ledger import find_runs
from allkit.course.notebooks import run_sweep

FIRST = """
import os, signal, time
from pathlib import Path
told = Path(run_folder) / "told.txt"
with told.open("a") as file:
    print(x, rate, os.getppid(), os.environ["TF_NUM_INTRAOP_THREADS"], file=file)
assert (x, rate) != (2, 0.5), "two and a half is refused"
attempts = len(told.read_text().splitlines())
if deadly and x >= 3 and (x > 3 or attempts == 1):  # 3 kills its worker once, 4 whenever it is tried
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    _notebook(folder / "01_first.ipynb", FIRST, parameters="x = 1\nrate = None\ndeadly = False")
    _notebook(folder / "02_second.ipynb", "y = epochs", parameters="epochs = 1")
    return folder


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as made:
        yield made


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Stand in for drawing the twin; holds how often it was asked for."""
    asked = []
    monkeypatch.setattr(synthetic, "ensure_twin", lambda: asked.append(1) or tmp_path)
    return asked


@pytest.fixture(scope="module")
def swept(notebooks, cluster, tmp_path_factory):
    """A sweep on a cluster of two workers, in which one of four combinations fails."""
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "ensure_twin", lambda: notebooks)
        result = run_sweep(
            {"x": ["1", "2"], "rate": ["1e-3", "0.5"]},
            notebooks=notebooks,
            parameters={"epochs": "7"},
            out=tmp_path_factory.mktemp("runs") / "sweep",
            scheduler=cluster.scheduler_address,
            reporter=told.append,
        )
    return result, told


def _status(result):
    return {run.path.name: run.status for run in result.runs}


def test_every_combination_is_a_run_and_one_failure_leaves_the_others(swept):
    result, told = swept
    assert _status(result) == {
        "x-1,rate-0.001": "done",
        "x-1,rate-0.5": "done",
        "x-2,rate-0.001": "done",
        "x-2,rate-0.5": "failed",
    }
    assert not result.ok
    assert {run.path for run in told} == {run.path for run in result.runs} == set(find_runs(result.path))
    assert "two and a half is refused" in result.runs[-1].error
    lines = [(run.path / "told.txt").read_text().split() for run in result.runs]
    assert [line[:2] for line in lines] == [["1", "0.001"], ["1", "0.5"], ["2", "0.001"], ["2", "0.5"]]
    assert len({line[2] for line in lines}) == 2  # both workers had some
    assert {line[3] for line in lines} == {str(max(1, CPU_COUNT // 2))}
    for run in result.runs:
        assert (run.path / "report" / "index.html").exists()
        assert json.loads((run.path / "notebooks.json").read_text())["notebooks"]["02_second"]["status"] == "done"


def test_record_says_what_became_of_each(swept):
    record = json.loads((swept[0].path / "sweep.json").read_text())
    assert record["grid"] == {"x": ["1", "2"], "rate": ["1e-3", "0.5"]}
    assert record["status"] == "ended"
    assert {name: run["status"] for name, run in record["runs"].items()} == _status(swept[0])
    assert record["runs"]["x-2,rate-0.001"]["values"] == {"x": 2, "rate": 0.001}


def test_sweeps_are_found_among_the_runs(swept, monkeypatch, capsys):
    monkeypatch.setenv("ALLKIT_RUNS", str(swept[0].path.parent))
    for words, expected in (["sweep"], "x-2,rate-0.5: no model is trained yet"), ([], "a sweep: sweep"):
        monkeypatch.setattr(sys, "argv", ["allkit", "runs", *words])
        with pytest.raises(SystemExit):
            cli.main()
        assert expected in "".join(capsys.readouterr())
    (swept[0].path.parent / "single").mkdir()
    (swept[0].path.parent / "single" / "notebooks.json").write_text("{}")
    with pytest.raises(SystemExit):
        cli.main()
    assert "`allkit runs sweep` lists its runs" in capsys.readouterr().out


def test_resume_skips_what_is_done_and_takes_new_values(swept, notebooks, cluster, drawn):
    result, _ = swept
    before = (result.path / "x-1,rate-0.001" / "told.txt").read_text()
    again = run_sweep(
        {"x": ["1", "0"], "rate": ["0.001"]},
        notebooks=notebooks,
        parameters={"epochs": "7"},
        out=result.path,
        scheduler=cluster.scheduler_address,
        resume=True,
    )
    assert _status(again) == {"x-1,rate-0.001": "skipped", "x-0,rate-0.001": "done"}
    assert again.ok
    assert (result.path / "x-1,rate-0.001" / "told.txt").read_text() == before
    record = json.loads((result.path / "sweep.json").read_text())
    assert record["runs"]["x-2,rate-0.5"]["status"] == "failed"  # of the first pass
    assert drawn == [1]  # the twin, once, before the fan-out


def test_dead_worker_is_replaced_and_its_run_taken_up_again(notebooks, drawn, tmp_path):
    result = run_sweep(
        {"x": [1, 3, 4]},
        notebooks=notebooks,
        only="01",
        parameters={"deadly": True},
        out=tmp_path / "sweep",
        workers=2,
    )
    assert _status(result) == {"x-1": "done", "x-3": "done", "x-4": "failed"}
    assert "died each time" in result.runs[-1].error
    assert len((tmp_path / "sweep" / "x-3" / "told.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ({"epoch": ["3"]}, {}, "did you mean epochs"),
        ({"02.x": ["3"]}, {}, "notebook 02 has no parameter 'x'"),
        ({"epochs": ["3", "many"]}, {}, "another kind"),
        ({"rate": ["3", "many"]}, {}, "mixes values of different kinds"),
        ({"rate": ["1e-3", "0.001"]}, {}, "each once"),
        ({"x": ["1"]}, {"parameters": {"x": "2"}}, "give it once"),
        ({"x": ["1"]}, {"parameters": {"epoch": "2"}}, "did you mean epochs"),
        ({"data": ["a", "b"]}, {}, "--data"),
        ({"x": ["1"]}, {"data": "no/such/folder"}, "no such file or folder"),
        ({"x": ["1"]}, {"workers": 0}, "at least 1"),
    ],
)
def test_bad_request_is_refused_before_anything_starts(notebooks, tmp_path, grid, options, message):
    with pytest.raises(AllkitError, match=message):
        run_sweep(grid, notebooks=notebooks, out=tmp_path / "sweep", **options)
    assert not (tmp_path / "sweep").exists()


def test_cluster_that_does_not_see_the_files_is_refused(notebooks, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "ensure_twin", lambda: tmp_path / "on another disk")
    with pytest.raises(AllkitError, match=r"does not see .*on another disk.*same paths"):
        run_sweep({"x": [1]}, notebooks=notebooks, out=tmp_path / "s", scheduler=cluster.scheduler_address)
    with pytest.raises(AllkitError, match="no Dask scheduler answers"):
        run_sweep({"x": [1]}, notebooks=notebooks, out=tmp_path / "s", scheduler="tcp://127.0.0.1:1")


def test_a_single_run_is_no_sweep(notebooks, cluster, drawn, tmp_path):
    (tmp_path / "notebooks.json").write_text("{}")
    with pytest.raises(AllkitError, match="single run"):
        run_sweep({"x": [1]}, notebooks=notebooks, out=tmp_path, scheduler=cluster.scheduler_address)
    assert [p.name for p in tmp_path.iterdir()] == ["notebooks.json"]


def test_value_for_one_notebook_takes_precedence(notebooks, cluster, drawn, tmp_path):
    result = run_sweep(
        {"01.x": ["8"], "x": ["9"]},
        notebooks=notebooks,
        only="01",
        out=tmp_path / "sweep",
        scheduler=cluster.scheduler_address,
    )
    assert (tmp_path / "sweep" / "01.x-8,x-9" / "told.txt").read_text().startswith("8 ")
    assert result.ok


def test_names_of_folders_are_safe_and_distinct():
    values = ["a/b", "a_b", "../x", "y" * 300]
    names = [running._Combination({}, {"split": value}).folder for value in values]
    assert len(set(names)) == 4
    assert not any("/" in name or len(name) > 120 for name in names)


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
    while process.poll() is None and time.monotonic() < deadline:
        told = (out / "sweep.json").exists() and '"done"' in (out / "sweep.json").read_text()
        if told and (out / "nap-600" / "notebooks.json").exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "--resume" in stderr
    assert len(stderr.splitlines()) == 1  # no chatter, no traceback
    assert "nap-0" in stdout
    record = json.loads((out / "sweep.json").read_text())
    assert [run["status"] for run in record["runs"].values()] == ["done", "stopped", "stopped"]
    assert nbformat.read(out / "nap-0" / "notebooks" / "01_slow.ipynb", as_version=4)
