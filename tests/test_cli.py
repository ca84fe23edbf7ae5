"""The command line: options, exit codes, and errors in one sentence."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from commands import run_command

import allkit
from allkit import AllkitError
from allkit.course import notebooks, report
from allkit.course.notebooks import NotebookResult, NotebooksResult


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Stand in for running the notebooks: record the options; `result` is what came of it."""
    seen = SimpleNamespace(result=SimpleNamespace(path=tmp_path, ok=True, status="done"), options=None)

    def run_notebooks(**options):
        seen.options = options
        return seen.result

    monkeypatch.setattr(notebooks, "run_notebooks", run_notebooks)
    monkeypatch.setattr(report, "publish_report", lambda path: path / "report" / "index.html")
    return seen


def test_version(monkeypatch, capsys):
    assert run_command(monkeypatch, capsys, "--version") == (0, f"allkit {allkit.__version__}\n", "")


@pytest.mark.parametrize("code", ["import allkit", "from allkit import cli; sys.argv[1:] = ['--help']; cli.main()"])
def test_starting_up_imports_nothing_heavy(code):
    code = (
        f"import sys\ntry: {code}\n"
        "finally: print(set(sys.modules) & {'pandas', 'numpy', 'tensorflow', 'papermill', 'matplotlib', 'distributed'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("set()\n")


def test_run_passes_its_options_on(monkeypatch, capsys, called, tmp_path):
    words = "run --profile paper --data there --only 01,3 -p epochs 2 -p 04.weights none -p rate -0.5 --resume"
    code, out, _ = run_command(monkeypatch, capsys, *words.split(), "--out", "mine")
    assert code == 0
    assert str(tmp_path / "report" / "index.html") in out
    options = called.options
    assert (options["profile"], options["data"], options["only"]) == ("paper", "there", "01,3")
    assert options["parameters"] == {"epochs": "2", "04.weights": "none", "rate": "-0.5"}
    assert (options["out"], options["resume"]) == ("mine", True)


def test_parameter_without_value_is_a_usage_error(monkeypatch, capsys, called):
    code, _, err = run_command(monkeypatch, capsys, "run", "-p", "epochs")
    assert code == 2
    assert "NAME VALUE" in err
    assert called.options is None


@pytest.fixture
def swept(monkeypatch, tmp_path):
    """Stand in for sweeps: record the options; `runs` is what came of them."""
    runs = [NotebooksResult(tmp_path / name, (NotebookResult("01_first", "done", 3),)) for name in ("x-1", "x-2")]
    seen = SimpleNamespace(runs=runs, options=None)

    def run_sweep(grid, *, reporter, **options):
        seen.options = {"grid": grid} | options
        for run in runs:
            run.path.mkdir(parents=True)
            (run.path / "notebooks.json").write_text("{}")
            reporter(run)
        return runs

    monkeypatch.setattr(notebooks, "run_sweep", run_sweep)
    return seen


def test_sweep_passes_its_options_on_and_ends_with_the_table_of_runs(monkeypatch, capsys, swept):
    words = "run --sweep rate=1e-3,3e-4 --sweep 04.size=64,96 -p epochs 2 --only 03 --workers 2 --out mine --resume"
    code, out, _ = run_command(monkeypatch, capsys, *words.split())
    assert code == 0
    assert swept.options["grid"] == {"rate": ["1e-3", "3e-4"], "04.size": ["64", "96"]}
    given = [swept.options[name] for name in ("parameters", "only", "workers", "scheduler", "out", "resume")]
    assert given == [{"epochs": "2"}, "03", 2, None, "mine", True]
    commands, done = [], SimpleNamespace(returncode=0)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command) or done)
    swept.options["publish"]("a run")  # what a worker calls
    assert commands == [[sys.executable, "-m", "allkit", "publish", "a run"]], "each run of a sweep has its report"
    done.returncode, done.stderr = 1, "chatter\nallkit: the disk is full"
    with pytest.raises(AllkitError, match=r"report of a run was not written: allkit: the disk is full"):
        swept.options["publish"]("a run")
    assert "x-1: no model is trained yet" in out  # as `allkit runs` says it


def test_failure_in_a_sweep_is_exit_code_1_and_named(monkeypatch, capsys, swept):
    swept.runs[1] = NotebooksResult(swept.runs[1].path, (NotebookResult("01_first", "failed", 3, 2, "no"),))
    code, out, err = run_command(monkeypatch, capsys, "run", "--sweep", "x=1,2")
    assert code == 1
    assert "x-2" in out
    assert "In [2]: no" in err
    assert str(swept.runs[1].path) in err


@pytest.mark.parametrize(
    "words",
    ["--sweep x", "--sweep x=", "--sweep x=1,,2", "--sweep x=1 --sweep x=2", "--workers 2", "--scheduler tcp://a:1",
     "--sweep x=1 --workers 2 --scheduler tcp://a:1"],
)  # fmt: skip
def test_sweep_that_makes_no_sense_is_a_usage_error(monkeypatch, capsys, swept, words):
    code, _, err = run_command(monkeypatch, capsys, "run", *words.split())
    assert code == 2
    assert "sweep" in err or "scheduler" in err
    assert swept.options is None


def test_unknown_profile_is_a_usage_error(monkeypatch, capsys, called):
    code, _, err = run_command(monkeypatch, capsys, "run", "--profile", "fast")
    assert code == 2
    assert "quick" in err


def test_failure_of_a_notebook_is_exit_code_1(monkeypatch, capsys, called):
    called.result.ok = False
    code, out, _ = run_command(monkeypatch, capsys, "run")
    assert code == 1
    assert "Report" in out


def test_mendable_error_is_one_sentence(monkeypatch, capsys):
    def refuse(**_options):
        raise AllkitError("this is wrong; do that.")

    monkeypatch.setattr(notebooks, "run_notebooks", refuse)
    assert run_command(monkeypatch, capsys, "run") == (1, "", "allkit: this is wrong; do that.\n")


def test_data_make_then_check(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "twin"
    code, out, _ = run_command(monkeypatch, capsys, "data", "make", str(folder), "--images", "60", "--seed", "1")
    assert (code, str(folder) in out) == (0, True)
    code, out, _ = run_command(monkeypatch, capsys, "data", "check", str(folder))
    assert code == 0
    assert "synthetic" in out.lower()


def test_data_check_of_what_is_not_there(monkeypatch, capsys, tmp_path):
    code, _, err = run_command(monkeypatch, capsys, "data", "check", str(tmp_path / "nothing"))
    assert code == 1
    assert err.startswith("allkit: ")
    assert "Traceback" not in err
