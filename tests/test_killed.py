"""Killed at any write, work goes on to the same end; two at once and a full disk spoil nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from allkit import AllkitError
from allkit.course.notebooks import run_notebooks, run_sweep
from allkit.folders import locked

EVERYTHING = os.environ.get("ALLKIT_VERIFY") == "1"

HOOK = """
import hashlib, os, signal, sys
from pathlib import Path

twin, folder, kill_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
events = 0

def watch(event, arguments):
    # every file below the folder that is opened for writing, moved or removed is a moment to be killed at
    global events
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (writes or event in ("os.rename", "os.remove", "sqlite3.connect")) and str(folder) in str(arguments[0]):
        events += 1
        if events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

def hash_of(*paths):
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()

os.environ["ALLKIT_RUNS"], os.environ["ALLKIT_CACHE"] = str(folder / "runs"), str(folder / "cache")
sys.addaudithook(watch)
"""

WORK = {
    "a training": """
from allkit.data import load_index
from allkit.models import predict_index
from allkit.splits import split_by_subject
from allkit.train import build_from_profile, get_profile, train_model

os.environ["ALLKIT_CACHE"] = str(folder.with_name("cache"))  # which is no moment to be killed at here
split = split_by_subject(load_index(twin))
profile = get_profile("quick", weights="none", alpha=0.25, image_size=32, epochs=3, batch_size=16, depths="last")
model = build_from_profile("mobilenet", profile, 2, seed=5)
trained = train_model(model, split, profile, folder=folder, seed=5, deterministic=True, show=False).trained
result = predict_index(trained, split.test).to_csv()
""",
    "data make": """
from allkit.synthetic.dataset import make_twin

result = hash_of(make_twin(folder / "twin", images=40))
assert len(list(folder.iterdir())) == 2, "what a killed process left is gone, but for the lock"
""",
    "measurements": """
from allkit.data import load_index
from allkit.features import measure_cells

result = measure_cells(load_index(twin).head(70)).to_csv(index=False)
""",
    "a run and its card": """
from allkit.course.card import write_card
from allkit.evaluate import evaluate_predictions
from allkit.runs import load_or_train, open_lesson

small = {"weights": "none", "alpha": 0.25, "image_size": 32, "epochs": 1, "batch_size": 32}
run, images, split, settings = open_lesson(twin, "quick", "latest", models="mobilenet", **small)
trained, predictions = load_or_train(run, "mobilenet", split, settings, seed=5)
metrics, page = run.load_metrics()["mobilenet"], write_card("latest")[0]
assert metrics["accuracy"] == trained.metadata["scores"]["accuracy"] == evaluate_predictions(predictions)["accuracy"]
left = sorted(file.name for file in run.path.iterdir() if not file.name.startswith("."))
result = f"{len(predictions)} {page.name} {left}"
""",
}


def do(work: str, twin: Path, folder: Path, kill_at: int = 0) -> subprocess.CompletedProcess:
    end = "print('writes', events)\nprint('result', hashlib.sha256(result.encode()).hexdigest())"
    script = "\n".join([HOOK, WORK[work], end])
    command = [sys.executable, "-c", script, str(twin), str(folder), str(kill_at)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def last_word(done: subprocess.CompletedProcess, name: str) -> str:
    assert done.returncode == 0, done.stderr[-2000:]
    return next(line.split()[1] for line in done.stdout.splitlines() if line.startswith(name))


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("work", WORK)
def test_killed_at_any_write_work_goes_on_to_the_same_end(work, twin, tmp_path):
    whole = do(work, twin, tmp_path / "whole")
    result, writes = last_word(whole, "result"), int(last_word(whole, "writes"))
    assert writes >= 4
    some = {writes // 2, writes - 1} if work == "a training" else {2 * writes // 3}
    moments = range(1, writes + 1) if EVERYTHING else sorted(some)
    for moment in moments:
        folder = tmp_path / f"cut-{moment}"
        assert do(work, twin, folder, kill_at=moment).returncode == -signal.SIGKILL, f"write {moment} of {writes}"
        assert last_word(do(work, twin, folder), "result") == result, f"killed at write {moment} of {writes}"


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    from allkit.backend import keras
    from allkit.train import Checkpoints, MonitorSwitchLR

    def build() -> keras.Model:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
        model.compile("adamax", "categorical_crossentropy", metrics=["accuracy"])
        model.optimizer.build(model.trainable_variables)
        return model

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), np.eye(2)[rng.integers(0, 2, 8)]
    model, rule = build(), MonitorSwitchLR(9, best_by="last")
    kept = Checkpoints(rule, tmp_path)
    assert kept.restore(model) == 0
    model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0, callbacks=[rule, kept])
    after_two = model.get_weights()
    model.fit(x, y, validation_data=(x, y), initial_epoch=2, epochs=3, verbose=0, callbacks=[rule, kept])
    data = kept.last.read_bytes()
    for damaged in (data[: len(data) // 2], b"", data[:-40] + b"0" * 40):
        kept.last.write_bytes(damaged)
        again = Checkpoints(MonitorSwitchLR(9, best_by="last"), tmp_path)
        other = build()
        assert again.restore(other) == 2
        for found, expected in zip(other.get_weights(), after_two, strict=True):
            np.testing.assert_array_equal(found, expected)
        assert "is damaged" in capsys.readouterr().out
        assert not kept.last.exists(), "the next save would put it in place of the whole one"


@pytest.mark.parametrize(("place", "value"), [(8, 99), (6, 1)])  # an unknown compression, a claim of encryption
def test_a_checkpoint_that_claims_what_it_is_not_is_damaged(tmp_path, capsys, place, value):
    from allkit.train import _read_checkpoint, _write_checkpoint

    file = tmp_path / "last.npz"
    _write_checkpoint(file, [], {"model": [np.zeros(3)], "optimiser": [], "best": []})
    data = bytearray(file.read_bytes())
    for start, offset in ((b"PK\3\4", place), (b"PK\1\2", place + 2)):
        at = -1
        while (at := data.find(start, at + 1)) >= 0:
            data[at + offset] = value
    file.write_bytes(data)
    assert _read_checkpoint(file) is None
    assert "is damaged" in capsys.readouterr().out


# two at once


def test_two_processes_that_want_the_same_twin_draw_it_once(tmp_path):
    script = "import sys\nfrom allkit.synthetic.dataset import make_twin\nprint(make_twin(sys.argv[1], images=40))"
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "twin")], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == [str(tmp_path / "twin")] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".twin.lock", "twin"]


def test_a_second_run_into_the_same_folder_is_refused_and_the_first_goes_on(tmp_path):
    with locked(tmp_path / "latest"), pytest.raises(AllkitError, match="another process is writing"):
        run_notebooks(only="00", out=tmp_path / "latest")
    with locked(tmp_path / "sweep"), pytest.raises(AllkitError, match="another process is writing"):
        run_sweep({"seed": [1, 2]}, only="08", out=tmp_path / "sweep", workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".latest.lock", ".sweep.lock"]


# disks


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", place], check=False)


def allkit(*words: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from allkit.cli import main; main()", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | environment
    )


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
def test_a_full_disk_ends_in_one_sentence_and_leaves_nothing_half_done(small_disk, twin, tmp_path):
    done = allkit("data", "make", small_disk / "twin", "--images", 300)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in small_disk.iterdir()] == [".twin.lock"]
    (small_disk / "filled").write_bytes(b"x" * (small_disk.stat().st_blksize * 250))
    checked = allkit("data", "check", twin, ALLKIT_CACHE=str(small_disk / "cache"))
    assert checked.returncode == 0, checked.stderr
    assert "Nothing is wrong." in checked.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
def test_a_folder_that_may_not_be_written_ends_in_one_sentence(small_disk, twin):
    if subprocess.run(["mount", "-o", "remount,ro", small_disk], capture_output=True, check=False).returncode:
        pytest.skip("this system does not remount")
    for words in (("data", "make", small_disk / "twin"), ("run", "--only", "00", "--out", small_disk / "run")):
        done = allkit(*words)
        assert done.returncode == 1
        assert "Read-only file system" in done.stderr
        assert "Traceback" not in done.stderr
    checked = allkit("data", "check", twin, ALLKIT_CACHE=str(small_disk / "cache"))
    assert checked.returncode == 0, checked.stderr
