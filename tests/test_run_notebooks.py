"""Run folders, running notebooks, and publishing what they made."""

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args, get_type_hints

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from allkit import AllkitError, runs
from allkit.course import notebooks as running
from allkit.course.notebooks import run_notebooks
from allkit.course.report import publish_report
from allkit.data import class_order
from allkit.duplicates import file_sum
from allkit.folders import save_json
from allkit.parameters import SETTINGS
from allkit.runs import Run, load_data, open_lesson, open_run, run_path
from allkit.train import Profile, get_profile

PARAMETERS = 'data = "synthetic"\nprofile = "quick"\nrun_folder = "latest"\nseed = 0\n'


def _notebook(path: Path, *cells: str, parameters: str = "") -> None:
    """Write a notebook: text that starts with # is Markdown, the rest code."""
    made = [nbformat.v4.new_code_cell(PARAMETERS + parameters, metadata={"tags": ["parameters"]})]
    for cell in cells:
        make = nbformat.v4.new_markdown_cell if cell.startswith("#") else nbformat.v4.new_code_cell
        made.append(make(cell))
    notebook = nbformat.v4.new_notebook(cells=made)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


WIDGET = """
from IPython.display import HTML, display
view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1", "version_major": 2, "version_minor": 0}}
display({**view, "text/plain": "HBox(children=())"}, raw=True)
display({**view, "text/plain": "Label(value='x')", "text/html": "<p>the cell is <b>ALL</b></p>"}, raw=True)
display(HTML('<script src="https://example.org/a.js"></script>'))
display(HTML('<script>alert(2)</script><svg onload="alert(3)"></svg><a href=" JavaScript:alert(4)">a</a>'))
display(HTML('<iframe srcdoc="<script>alert(5)</script>"></iframe><b onclick="alert(6)">seen</b>'))
display({"application/javascript": "alert(1)"}, raw=True)
display(HTML('<img src="https://example.org/a.png" alt="far">'))
"""
MATHS = (
    "# Third: the report\n\nA share $p = \\frac{a}{b}$ costs \\$5, as code `$p$`.\n\n"
    "$$\\begin{aligned} i' &= i\\cos\\theta \\\\ j' &= j < 2 \\end{aligned}$$\n\n"
    "    $x = 1$\n\n![a picture](https://example.org/b.png) and [a link](https://example.org/) "
    "and [the first](01_first.ipynb)"
)


def _plot_cell(folder: Path) -> str:
    """Return a cell with the very output of `Run.show`, without the kernel having to import TensorFlow."""
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "get_ipython", lambda: True)
        patch.setattr(runs, "display", lambda bundle, **options: shown.append((bundle, options)))
        _, axes = plt.subplots(figsize=(2, 1))
        Run(folder, synthetic=True).show(axes, "cells", "Two <round> cells")
    bundle, options = shown[0]
    return f"from IPython.display import display\ndisplay({bundle!r}, **{options!r})"


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    log = "open('log.txt', 'a').write(f'{run_folder} {data} {profile} {epochs!r} {subject!r}\\n')"
    _notebook(folder / "01_first.ipynb", log, parameters='epochs = 1\nsubject = ""')
    _notebook(folder / "02_second.ipynb", "x = 1", "assert mend, 'not mended'", "x = 2", parameters="mend = False")
    _notebook(folder / "03_third.ipynb", MATHS, _plot_cell(folder), WIDGET)
    return folder


GIVEN = {"01.epochs": "3", "epochs": "5", "01.subject": "11"}
"""A value for one notebook takes precedence, wherever it stands."""


@pytest.fixture(scope="module")
def failed_run(notebooks, tmp_path_factory):
    """A run in which notebook 02 failed."""
    reported = []
    result = run_notebooks(
        notebooks=notebooks,
        out=tmp_path_factory.mktemp("runs") / "one",
        parameters=GIVEN,
        reporter=reported.append,
    )
    return result, reported


def test_failed_notebook_is_named_and_kept_and_the_rest_runs(failed_run, notebooks):
    result, reported = failed_run
    assert [n.status for n in result.notebooks] == ["done", "failed", "done"]
    assert list(result.notebooks) == reported
    assert (result.ok, result.status) == (False, "failed")
    failed = result.notebooks[1]
    copy = nbformat.read(failed.copy, as_version=4)
    assert failed.error == "AssertionError: not mended"
    assert [c.source for c in copy.cells if c.get("execution_count") == failed.cell] == ["assert mend, 'not mended'"]


def test_parameters_reach_the_notebooks_that_declare_them(failed_run, notebooks):
    result, _ = failed_run
    log = (notebooks / "log.txt").read_text().splitlines()[0]
    assert log == f"{result.path} synthetic quick 3 '11'"
    source = nbformat.read(result.path / "notebooks" / "02_second.ipynb", as_version=4)
    assert "epochs" not in "".join(c.source for c in source.cells)


def test_resume_skips_what_is_done_and_redoes_what_changed(failed_run, notebooks, tmp_path):
    result, _ = failed_run
    given = GIVEN | {"02.mend": "true"}
    again = run_notebooks(notebooks=notebooks, out=result.path, parameters=given, resume=True)
    # 03 was done, but before the 02 that has now changed
    assert [n.status for n in again.notebooks] == ["skipped", "done", "done"]
    third = run_notebooks(notebooks=notebooks, out=result.path, parameters=given, resume=True)
    assert [n.status for n in third.notebooks] == ["skipped"] * 3
    assert (third.ok, third.status) == (True, "skipped")
    with pytest.raises(AllkitError, match="choose another --out"):
        run_notebooks(notebooks=notebooks, out=result.path, data=str(_cells(tmp_path)), resume=True)


def _cells(folder: Path, *, start: int = 0, labels: tuple[str, str] = ("blast", "normal")) -> Path:
    """Write a few small images, six of each class."""
    for number in range(12):
        file = folder / labels[number % 2] / f"{number}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(start + number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    return folder


def test_data_that_cannot_be_trained_on_are_refused_as_by_data_check(notebooks, tmp_path):
    shutil.copy(_cells(tmp_path / "cells") / "blast/0.bmp", tmp_path / "cells/normal/0.bmp")
    with pytest.raises(AllkitError, match="identical images have the labels blast and normal"):
        run_notebooks(notebooks=notebooks, out=tmp_path / "run", data=str(tmp_path / "cells"))
    unknown = _cells(tmp_path / "b", labels=("left", "right"))
    with pytest.raises(AllkitError, match="Which of left and right is the class to be found"):
        run_notebooks(notebooks=notebooks, out=tmp_path / "run", data=str(unknown))
    assert not (tmp_path / "run").exists()


def test_how_data_are_read_is_said_and_reaches_the_notebooks(notebooks, tmp_path):
    said, data = [], _cells(tmp_path / "cells", labels=("left", "right"))
    options = {"notebooks": notebooks, "only": "01", "data": str(data), "positive": "right", "layout": "class"}
    result = run_notebooks(out=tmp_path / "run", announce=said.append, **options)
    assert result.ok, result.error
    assert "positive class right" in said[0]
    assert "Nothing was left out" in said[0]
    described = (notebooks / "log.txt").read_text().splitlines()[-1].split()[1]
    assert class_order(load_data(described)) == ("right", "left")


def test_images_changed_in_place_are_run_again(notebooks, tmp_path):
    data = _cells(tmp_path / "cells")
    options = {"notebooks": notebooks, "only": "01", "data": str(data), "out": tmp_path / "run", "resume": True}
    assert [n.status for n in run_notebooks(**options).notebooks] == ["done"]
    assert [n.status for n in run_notebooks(**options).notebooks] == ["skipped"]
    _cells(data, start=100)
    for file in data.rglob("*.bmp"):
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))
    assert [n.status for n in run_notebooks(**options).notebooks] == ["done"]


def test_a_notebook_of_another_editor_runs_or_says_what_is_missing(tmp_path):
    parameters = 'data: "str | None" = "synthetic"\nrun_folder = ""'
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("print('data is', data)")]  # fmt: skip
    bare = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})  # no kernel is named
    nbformat.write(bare, tmp_path / "bare.ipynb")
    data = _cells(tmp_path / "cells")
    result = run_notebooks(notebooks=tmp_path / "bare.ipynb", data=str(data), out=tmp_path / "run")
    assert result.ok, result.error
    assert f"data is {data}" in json.dumps(nbformat.read(result.notebooks[0].copy, as_version=4).cells)
    nbformat.write(nbformat.v4.new_notebook(cells=cells[1:]), tmp_path / "none.ipynb")
    with pytest.raises(AllkitError, match=r"none\.ipynb has no parameter data, so --data would have no effect"):
        run_notebooks(notebooks=tmp_path / "none.ipynb", data=str(data), out=tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": {"epoch": 3}}, "did you mean epochs"),
        ({"parameters": {"02.epochs": 3}}, "notebook 02 has no parameter 'epochs'"),
        ({"parameters": {"09.epochs": 3}}, "09 is not among"),
        ({"parameters": {"epochs": "many"}}, "epochs is 'many'; it must be a whole number"),
        ({"parameters": {"run_folder": "x"}}, "--out"),
        ({"only": "07"}, "no notebook 07"),
        ({"data": "no/such/folder"}, "no such file or folder"),
    ],
)
def test_bad_request_is_refused_before_anything_starts(notebooks, tmp_path, options, message):
    with pytest.raises(AllkitError, match=message):
        run_notebooks(notebooks=notebooks, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_single_notebook_is_run_and_published(notebooks, tmp_path):
    page = tmp_path / "page.ipynb"
    _notebook(page, "# A page of its own", "x = 1", parameters="images = 5")
    result = run_notebooks(notebooks=page, out=tmp_path / "run", parameters={"images": "7"})
    assert [(n.name, n.status) for n in result.notebooks] == [("page", "done")]
    index = BeautifulSoup(publish_report(result.path).read_text(), "html.parser")
    assert index.find("a", href="page.html").text == "A page of its own"
    assert "images = 7" in index.text
    with pytest.raises(AllkitError, match="no such notebook"):
        run_notebooks(notebooks=tmp_path / "absent.ipynb", out=tmp_path / "other")
    with pytest.raises(AllkitError, match="leave out the numbers"):
        run_notebooks(notebooks=page, only="01", out=tmp_path / "other")


def test_fresh_run_moves_the_older_one_aside(notebooks, tmp_path, monkeypatch):
    run = tmp_path / "latest"
    run.mkdir()
    (run / "params.json").write_text("{}")
    changed = datetime(2026, 1, 31, 12, 34, 56, tzinfo=UTC).timestamp()
    os.utime(run, (changed, changed))
    monkeypatch.setattr(running, "_execute", lambda *_: ("done", None, ""))
    assert run_notebooks(notebooks=notebooks, out=run).ok
    assert (tmp_path / "latest-20260131-123456" / "params.json").exists()
    assert json.loads((run / "notebooks.json").read_text())["notebooks"]["01_first"]["status"] == "done"


def test_folder_of_other_things_is_refused_and_left_alone(notebooks, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(AllkitError, match="is no run folder"):
        run_notebooks(notebooks=notebooks, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(os.name == "nt", reason="sends a Unix signal")
def test_interrupted_run_keeps_its_state_and_says_how_to_go_on(tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out" / "run"
    folder.mkdir()
    _notebook(folder / "01_slow.ipynb", "open('started', 'w').close()", "import time; time.sleep(60)")
    code = (
        "import sys, allkit.cli, allkit.course.notebooks, functools, pathlib, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored below a background job
        "allkit.course.notebooks.run_notebooks = functools.partial(allkit.course.notebooks.run_notebooks, "
        "notebooks=pathlib.Path(sys.argv.pop(1)))\nallkit.cli.main()"
    )
    command = [sys.executable, "-c", code, str(folder), "run", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(300):
        if (folder / "started").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    entry = json.loads((out / "notebooks.json").read_text())["notebooks"]["01_slow"]
    assert entry["status"] == "interrupted"
    assert (out / "notebooks" / "01_slow.ipynb").exists()


# ------------------------------------------------------------------------------------------- publishing


@pytest.fixture(scope="module")
def pages(failed_run):
    result, _ = failed_run
    index = publish_report(result.path)
    return {p.name: BeautifulSoup(p.read_text("utf-8"), "html.parser") for p in index.parent.glob("*.html")}


def test_pages_load_nothing_from_a_network(pages):
    assert set(pages) == {"index.html", "01_first.html", "02_second.html", "03_third.html"}
    for page in pages.values():
        loads = [e.get("src") or e.get("data") for e in page.find_all(src=True) + page.find_all("object")]
        loads += [e["href"] for e in page.find_all("link", href=True)]
        assert all(address.startswith("data:") for address in loads)
        code = "".join(e.text for e in page.find_all(["script", "style"]))
        assert not re.search(r"(import|url)\s*\(?\s*['\"]?(https?:)?//", code)
    assert pages["03_third.html"].find("a", href="https://example.org/")
    assert pages["03_third.html"].find("a", href="01_first.html")


def test_pages_run_nothing_that_an_output_holds(pages):
    for page in pages.values():
        assert not page.find_all(["script", "iframe", "object", "embed", "form", "base"])
        assert not [name for element in page.find_all(True) for name in element.attrs if name.startswith("on")]
        assert "alert" not in str(page.find_all("a"))
    assert pages["03_third.html"].find("b", string="seen")


def test_equations_are_mathml_and_code_is_not_touched(pages):
    page = pages["03_third.html"]
    inline, block = page.find("math", display="inline"), page.find("math", display="block")
    assert inline.find("mfrac")
    assert len(block.find_all("mtr")) == 2
    assert "<" in block.text
    assert {"$p$", "$x = 1$"} <= {c.text for c in page.find_all("code")}
    assert "$5" in page.text


def test_figures_keep_their_description_and_widgets_their_text(pages, notebooks):
    page = pages["03_third.html"]
    assert [i["alt"] for i in page.find_all("img")] == ["Two <round> cells"]
    assert page.find("b", string="ALL")
    outputs = " ".join(e.text for e in page.find_all(class_="jp-OutputArea-output"))
    assert "HBox" not in outputs
    assert "alert" not in outputs
    assert "open this notebook in JupyterLab" in outputs
    assert (notebooks / "figures" / "cells.png").exists()


def test_index_page_tells_how_the_run_went(pages):
    page = pages["index.html"]
    assert page.html["lang"] == "en"
    assert page.find("meta", attrs={"name": "viewport"})
    assert page.find("a", href="03_third.html").text == "03 Third: the report"
    for text in ("not a diagnosis", "epochs = 3", "Started"):
        assert text in page.text
    seconds = [row.find_all("td")[-1].text for row in page.tbody.find_all("tr")]
    assert len(seconds) == 3
    assert all(text.isdigit() for text in seconds)


def test_publishing_a_folder_without_notebooks_is_refused(tmp_path):
    with pytest.raises(AllkitError, match="no executed notebooks"):
        publish_report(tmp_path)


# ------------------------------------------------------------------------------------------ run folders


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def _index(label: str, source: str = "synthetic") -> pd.DataFrame:
    columns = ("path", "label", "subject", "group", "part", "name", "source")
    row = dict.fromkeys(columns, "x") | {"path": __file__, "label": label, "part": "train", "source": source}
    return pd.DataFrame([row]).assign(fold=pd.array([0], "Int64"))


def test_a_run_folder_from_another_machine_finds_its_images_here(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLKIT_RUNS", str(tmp_path))
    here = []
    for name in ("fold_0/all/a.png", "fold_1/all/a.png"):  # one name in two folders
        (tmp_path / "cells" / name).parent.mkdir(parents=True)
        (tmp_path / "cells" / name).write_bytes(name.encode())
        here.append(str(tmp_path / "cells" / name))
    index = pd.concat([_index("ALL").assign(path=path) for path in here])
    run = open_run("handed-out", index=index, profile="quick")
    there = ["C:\\kit\\cells\\fold_1\\all\\a.png", "/home/teacher/cells/fold_0/all/a.png", "/elsewhere/b.png"]
    run.save_predictions("mobilenet", pd.DataFrame({"path": there, "p_ALL": [0.1, 0.2, 0.3]}))
    assert run.load_predictions("mobilenet")["path"].tolist() == [here[1], here[0], "/elsewhere/b.png"]


def test_a_notebook_opens_with_its_images_split_and_settings(twin, tmp_path):
    wanted = {"split": "image", "alpha": 0.5, "epochs": None}
    run, index, parts, settings = open_lesson(twin, "quick", tmp_path, models="mobilenet", seed=1, **wanted)
    assert run.path == tmp_path.resolve()
    assert "synthetic" in run.kind
    assert sum(len(part) for part in parts.parts.values()) == (index["part"] == "train").sum()
    assert settings == get_profile("quick", "mobilenet", split="image", alpha=0.5)
    _, _, again, both = open_lesson(twin, "quick", tmp_path, models=("mobilenet", "efficientnetb3"), seed=1, **wanted)
    assert again.test.equals(parts.test)
    assert (both["mobilenet"], both["efficientnetb3"].alpha) == (settings, 1.0), "only MobileNet has a width"
    assert open_lesson(twin, "quick", tmp_path)[2:] == (None, None)
    with pytest.raises(AllkitError, match="did you mean epochs"):
        open_lesson(twin, "quick", tmp_path, models="mobilenet", epoch=3)


def test_run_folder_is_bound_to_its_data(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLKIT_RUNS", str(tmp_path))
    run = open_run("mine", index=_index("ALL"), profile="quick")
    assert run.path == tmp_path / "mine"
    assert run.synthetic
    assert open_run("mine", index=_index("ALL"), profile="honest").data_hash == run.data_hash
    params = json.loads((run.path / "params.json").read_text())
    assert params["profiles"] == ["quick", "honest"]
    assert {"allkit", "python", "keras", "tensorflow", "numpy"} <= set(params["versions"])
    with pytest.raises(AllkitError, match="belongs to other data"):
        open_run("mine", index=_index("HEM"), profile="quick")


@pytest.mark.parametrize("content", ['{"format": 99}', "{half", "[]", '{"format": 1}'])
def test_run_folder_of_another_version_is_refused_and_kept(tmp_path, content):
    (tmp_path / "params.json").write_text(content)
    with pytest.raises(AllkitError, match="choose another"):
        open_run(tmp_path, index=_index("ALL"), profile="quick")
    assert (tmp_path / "params.json").read_text() == content


def test_a_name_lies_in_runs_and_a_path_is_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    assert run_path("latest") == tmp_path / "runs" / "latest"
    assert run_path("./latest") == tmp_path / "latest"


def test_tables_come_back_as_they_were_saved(run):
    frame = pd.DataFrame(
        {"path": ["a", "b"], "label": ["NA", "ALL"], "subject": ["007", None], "p_ALL": [0.1 + 0.2, 1 / 3]}
    )
    run.save_predictions("mobilenet", frame)
    back = run.load_predictions("mobilenet")
    assert list(back["label"]) == ["NA", "ALL"]
    assert back["subject"][0] == "007"
    assert pd.isna(back["subject"][1])
    assert list(back["p_ALL"]) == list(frame["p_ALL"])
    with pytest.raises(AllkitError, match=r"there: mobilenet\); run the notebook that trains"):
        run.load_predictions("efficientnetb3")


def test_metrics_of_different_notebooks_are_merged(run):
    run.save_metrics("mobilenet", {"auc": np.float32(0.5), "interval": np.array([0.25, np.nan])})
    run.save_metrics("efficientnetb3", {"auc": 1})
    run.save_metrics("mobilenet", {"f1": 0.75})
    expected = {"mobilenet": {"auc": 0.5, "interval": [0.25, None], "f1": 0.75}, "efficientnetb3": {"auc": 1}}
    assert json.loads((run.path / "metrics.json").read_text()) == expected


def test_predictions_of_another_training_than_the_model_beside_them_are_refused(run):
    frame = pd.DataFrame({"path": ["a", "b"], "p_ALL": [0.1, 0.9]})
    run.save_predictions("mobilenet", frame)
    words = {"predictions_sha256": file_sum(run.path / "predictions-mobilenet.csv")}
    save_json(run.path / "models" / "mobilenet.json", words)
    assert len(run.load_predictions("mobilenet")) == 2
    assert not run.is_whole("mobilenet"), "the network itself is not there"
    run.save_predictions("mobilenet", frame.iloc[:1])
    with pytest.raises(AllkitError, match="not saved to the end"):
        run.load_predictions("mobilenet")


def test_words_on_data_of_ones_own_are_refused_for_the_synthetic_ones(tmp_path):
    with pytest.raises(AllkitError, match="about data of your own"):
        run_notebooks(only="00", out=tmp_path / "run", positive="ALL")
    assert not (tmp_path / "run").exists()


def test_no_text_of_a_saved_table_is_a_formula(run):
    words = ["=1+1", "+x", "-x", "@x", "'=x", "'x", "plain"]
    frame = pd.DataFrame({"path": words, "label": words, "subject": words, "p_ALL": np.linspace(-1, 1, 7)})
    run.save_predictions("mobilenet", frame)
    text = (run.path / "predictions-mobilenet.csv").read_text(encoding="utf-8")
    assert not re.search(r"(^|,)[=+@]|(^|,)-[^0-9]", text, re.MULTILINE)
    pd.testing.assert_frame_equal(run.load_predictions("mobilenet"), frame, check_dtype=False)


def test_full_disk_says_so_and_keeps_the_old_file(run, monkeypatch):
    run.save_metrics("mobilenet", {"auc": 0.5})

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(AllkitError, match=r"metrics\.json was not saved: the disk is full"):
        run.save_metrics("mobilenet", {"auc": 0.9})
    assert run.load_metrics() == {"mobilenet": {"auc": 0.5}}
    assert sorted(p.name for p in run.path.iterdir()) == [".metrics.json.lock", "metrics.json"]


def test_figure_of_synthetic_cells_is_stamped(tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    sizes = {}
    for synthetic in (False, True):
        figure, axes = plt.subplots(1, 2, figsize=(2, 1))
        texts = figure.texts
        Run(tmp_path, synthetic).show(figure if synthetic else axes, "figure", "Empty axes")
        sizes[synthetic] = [t.get_text() for t in texts]
    assert sizes == {False: [], True: ["synthetic cells"]}
    assert not plt.get_fignums()
    with pytest.raises(AllkitError, match="no alternative text"):
        Run(tmp_path).show(plt.figure(), "bare", " ")
    plt.close("all")


def test_missing_data_is_named():
    with pytest.raises(AllkitError, match="no such file or folder"):
        load_data("no/such/folder")


def test_settings_are_given_one_by_one_and_refused_where_a_notebook_has_none(tmp_path):
    cells = [
        nbformat.v4.new_code_cell('data = "synthetic"\nrun_folder = ""\nseed = 1'),
        nbformat.v4.new_code_cell("settings: dict = {}\ncells = 5", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("print(sorted(settings.items()), cells, seed)"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "04_train.ipynb")
    _notebook(tmp_path / "05_other.ipynb", "x = 1", parameters="seed = 1")
    given = {"epochs": "3", "04.weights": "none", "hold_out": "007", "cells": "7", "seed": "9"}
    result = run_notebooks(notebooks=tmp_path, out=tmp_path / "run", parameters=given)
    assert result.ok, result.error
    done = json.dumps(nbformat.read(result.notebooks[0].copy, as_version=4).cells)
    assert "[('epochs', 3), ('hold_out', '007'), ('weights', 'none')] 7 9" in done
    refused = {
        "must be a whole number": {"epochs": "many"},
        "notebook 05 has no": {"05.epochs": 3},
        "has a parameter 'settings'": {"settings": "{}"},
        "did you mean epochs": {"epoch": 3},
    }
    for message, wrong in refused.items():
        with pytest.raises(AllkitError, match=message):
            run_notebooks(notebooks=tmp_path, out=tmp_path / "run2", parameters=wrong)


def test_settings_that_a_run_takes_are_those_of_a_lesson():
    known = {field.name for field in dataclasses.fields(Profile)} | {"hold_out", "fold"}
    assert set(SETTINGS) <= known
    kinds = get_type_hints(Profile)
    for name, kind in SETTINGS.items():
        if name in kinds:
            assert get_args(kind)[0] in (kinds[name], *get_args(kinds[name]))
