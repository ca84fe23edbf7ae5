"""The copy of the notebooks that a student edits: nothing edited is lost, nothing unedited grows old."""

import subprocess
import sys

import pytest

from allkit.course.my_notebooks import copy_notebooks


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "kit"
    folder.mkdir()
    for name in ("00_start", "01_next"):
        (folder / f"{name}.ipynb").write_text(f"first {name}")
    return folder


def test_edited_copies_are_kept_and_others_follow_the_kit(source, tmp_path):
    mine = tmp_path / "mine"
    assert copy_notebooks(mine, source) == {"00_start.ipynb": "copied", "01_next.ipynb": "copied"}
    assert copy_notebooks(mine, source) == {}
    (mine / "00_start.ipynb").write_text("my answers")
    assert copy_notebooks(mine, source) == {}
    for name in ("00_start", "01_next"):
        (source / f"{name}.ipynb").write_text(f"second {name}")
    done = copy_notebooks(mine, source)
    assert (mine / "00_start.ipynb").read_text() == "my answers"
    assert (mine / "00_start-new.ipynb").read_text() == "second 00_start"
    assert (mine / "01_next.ipynb").read_text() == "second 01_next"
    assert "00_start-new.ipynb" in done["00_start.ipynb"]
    assert copy_notebooks(mine, source) == {}


def test_the_command_copies_the_kits_notebooks_without_make(tmp_path):
    command = [sys.executable, "-c", "from allkit.cli import main; main()", "lab", "--no-start", f"--folder={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.count("copied") == len(list(tmp_path.glob("[0-9][0-9]_*.ipynb"))) >= 12
