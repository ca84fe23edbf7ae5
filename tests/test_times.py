"""How long the notebooks will take here: promised from what they took elsewhere, and from the speed of this machine."""

import pandas as pd
import pytest

from allkit import ROOT, AllkitError
from allkit.course import times
from allkit.folders import save_json


def test_every_notebook_has_a_promise_that_follows_the_machine(monkeypatch):
    numbers = sorted(path.name[:2] for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    known = pd.read_csv(times.FILE, dtype={"notebook": str}).set_index("notebook")["seconds"]
    monkeypatch.setattr(times, "measure_speed", lambda: known["one drawn cell"])
    usual = times.promise_minutes()
    assert sorted(usual.index) == numbers
    assert usual.between(0.05, 5).all()
    monkeypatch.setattr(times, "measure_speed", lambda: 2 * known["one drawn cell"])
    assert (times.promise_minutes() / usual).round(6).eq(2).all()


def test_a_finished_run_is_noted(monkeypatch, tmp_path):
    monkeypatch.setattr(times, "FILE", tmp_path / "times.csv")
    notebooks = {"01_first": {"status": "done", "seconds": 60.0}, "02_second": {"status": "failed", "seconds": 1.0}}
    with pytest.raises(AllkitError, match="allkit run"):
        times.save_times(tmp_path)
    save_json(tmp_path / "notebooks.json", {"notebooks": notebooks})
    times.save_times(tmp_path)
    table = pd.read_csv(tmp_path / "times.csv", dtype={"notebook": str})
    assert table["notebook"].tolist() == ["one drawn cell", "01"]
    assert 0 < table["seconds"].iloc[0] < 1
