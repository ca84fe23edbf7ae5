"""The check of the machine: what is there, what is missing, and one plain sentence on it."""

import sys
from collections import namedtuple

import h5py
import numpy as np
import pytest

from allkit.course import check_setup as setup
from allkit.course.check_setup import check_setup, summarise_setup
from allkit.course.notebooks import list_notebooks


@pytest.fixture
def at_home(monkeypatch, tmp_path):
    """A machine with a run folder of its own and no weights."""
    monkeypatch.setenv("ALLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path


def _states(found):
    return found.set_index("what")["state"]


def test_a_machine_that_is_ready(at_home, twin):
    found = check_setup(str(twin))
    assert _states(found)[["Python", "disk", "data"]].eq("fine").all()
    assert _states(found)["ImageNet weights of MobileNet"] == "optional"
    sentence = summarise_setup(found[found["state"] != "missing"])  # a small machine may lack memory
    assert sentence.startswith("Everything is here: ")
    assert "synthetic images" in sentence
    assert "ImageNet weights of MobileNet" in sentence
    assert not (at_home / "runs").exists()


def test_weights_are_found_where_keras_looks(at_home, twin):
    (at_home / "keras" / "models").mkdir(parents=True)
    file = at_home / "keras" / "models" / "efficientnetb3_notop.h5"
    with h5py.File(file, "w") as weights:
        weights["stem_conv/kernel"] = np.zeros((3, 3, 3, 40), np.float32)
    found = check_setup(str(twin))
    assert _states(found)["ImageNet weights of EfficientNetB3"] == "fine"


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>404", b"\x89HDF\r\n\x1a\n" + bytes(40)])
def test_damaged_weights_are_not_called_fine(at_home, twin, content):
    (at_home / "keras" / "models").mkdir(parents=True)
    (at_home / "keras" / "models" / "efficientnetb3_notop.h5").write_bytes(content)
    found = check_setup(str(twin))
    assert _states(found)["ImageNet weights of EfficientNetB3"] == "missing"
    assert "efficientnetb3_notop.h5 is damaged" in " ".join(found["found"])
    assert "and copy it again" in summarise_setup(found)


def test_what_is_missing_is_said_with_what_to_do(at_home, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: usage(10, 10, 0))
    found = check_setup("nowhere/at/all")
    assert set(found.loc[found["state"] == "missing", "what"]) >= {"Python", "disk", "data"}
    sentence = summarise_setup(found)
    assert sentence.startswith("Not ready yet.")
    for words in ("install Python 3.13", "make room", "there is no such file or folder"):
        assert words in sentence
    assert found.loc[found["state"] != "missing", "advice"].eq("").all()


def test_the_map_names_every_notebook_by_its_title():
    listed = list_notebooks()
    assert listed.index[0] == "00"
    assert listed.loc["01", "title"] == "Explore the data"
    assert listed["title"].str.len().min() > 5
