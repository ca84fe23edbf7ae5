"""The committed notebooks: executed, quiet, described, and of the agreed shape."""

import re
from itertools import pairwise

import nbformat
import papermill
import pytest

from allkit import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_the_series_is_complete():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(12)]


def test_the_page_on_genuine_cells_is_saved_without_them():
    """Genuine pictures and what is computed from them stay out of the repository."""
    pages = list((ROOT / "notebooks" / "extra").glob("*.ipynb"))
    assert pages
    for page in pages:
        code = [cell for cell in nbformat.read(page, as_version=4).cells if cell.cell_type == "code"]
        assert not any(cell.outputs or cell.execution_count for cell in code)


def test_opens_with_what_you_will_learn_then_parameters_then_imports(notebook):
    cells = notebook.cells
    assert cells[0].cell_type == "markdown"
    assert "you will" in cells[0].source
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert code[0].metadata.tags == ["parameters"]
    imports = [cell for cell in code if any(line.startswith(("import ", "from ")) for line in cell.source.splitlines())]
    assert imports == [code[1]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_are_the_quick_run_on_synthetic_data(path):
    declared = {name: entry["default"] for name, entry in papermill.inspect_notebook(str(path)).items()}
    assert declared["data"] == '"synthetic"'
    assert declared["profile"] == '"quick"'
    assert {"run_folder", "seed"} <= set(declared)


def test_length(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    least = 15 if "Start here" in notebook.cells[0].source else 25  # the first page has nothing to compute
    assert least <= len(notebook.cells) <= 45
    assert 0.35 <= 1 - len(code) / len(notebook.cells) <= 0.65
    assert max(len(cell.source.splitlines()) for cell in code) <= 25


def test_saved_as_executed_from_1_without_errors_or_chatter(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.get("text")
            assert " object at 0x" not in output.get("text", "")


def test_every_figure_has_alternative_text(notebook):
    found = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                found += 1
                assert len(output.metadata["image/png"]["alt"]) > 20
    assert found


def test_saved_notebooks_are_small():
    assert max(path.stat().st_size for path in NOTEBOOKS) <= 600_000


def test_headings_are_in_order(notebook):
    levels = [
        len(line) - len(line.lstrip("#"))
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("#")
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_pictures_in_text_are_described_and_links_have_words(notebook):
    for cell in notebook.cells:
        text = cell.source if cell.cell_type == "markdown" else ""
        for output in cell.get("outputs", []):
            text += str(output.get("data", {}).get("text/html", ""))
        assert not re.search(r"!\[\s*\]\(|(?<!!)\[\s*\]\(", text), cell.source
        for image in re.findall(r"<img\b[^>]*>", text):
            assert re.search(r"alt=['\"][^'\"]{10,}", image), image


def test_alternative_texts_are_sentences_of_their_own(notebook):
    told = [
        output.metadata["image/png"]["alt"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(set(told)) == len(told), "two figures are described alike"
    for alt in told:
        assert " " in alt and alt[0].upper() == alt[0], alt  # noqa: PT018
        assert not re.search(r"\.(png|jpe?g|svg)$|_", alt.split()[-1]), f"a name, not a description: {alt}"
