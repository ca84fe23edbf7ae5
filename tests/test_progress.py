"""How far something has come is said in one line, which is gone when it is done."""

from allkit import progress
from allkit.progress import track


class _Handle:
    def __init__(self):
        self.shown = []

    def update(self, bundle, raw):
        self.shown.append(bundle["text/plain"])


class _Kernel:
    kernel = object()


def test_in_a_notebook_one_output_is_updated_and_emptied(monkeypatch):
    handle = _Handle()
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(progress, "get_ipython", _Kernel)
    monkeypatch.setattr(progress, "display", lambda bundle, **_: handle.update(bundle, True) or handle)
    assert list(track(range(3), "counting", mininterval=0)) == [0, 1, 2]
    assert any("counting" in text and "3/3" in text for text in handle.shown)
    assert handle.shown[-1] == ""


def test_what_is_over_soon_says_nothing(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(progress, "get_ipython", _Kernel)
    monkeypatch.setattr(progress, "display", lambda *_, **__: shown.append(1))
    assert sum(track(range(5), "counting")) == 10
    assert not shown
    assert capsys.readouterr() == ("", "")
