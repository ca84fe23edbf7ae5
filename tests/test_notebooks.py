"""The committed notebooks: executed, quiet, described, and of the agreed shape."""

import ast
import re
from itertools import pairwise

import nbformat
import numpy as np
import pytest

from allkit import ROOT
from allkit.parameters import read_parameters

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_the_series_is_complete():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in [*range(13), 14]]


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
    tagged = [k for k, cell in enumerate(code) if cell.metadata.get("tags") == ["parameters"]]
    assert tagged in ([0], [1])  # papermill injects after the settings, where there are any
    imports = [cell for cell in code if any(line.startswith(("import ", "from ")) for line in cell.source.splitlines())]
    assert imports == [code[tagged[0] + 1]]


def test_parameters_are_the_quick_run_on_synthetic_data(notebook):
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    declared = {name: default for name, (default, _) in read_parameters(first.source).items()}
    assert declared == {"data": "synthetic", "profile": "quick", "run_folder": "latest", "seed": 123}


def test_length(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert 25 <= len(notebook.cells) <= 65
    assert 0.35 <= 1 - len(code) / len(notebook.cells) <= 0.65


def test_a_cell_shows_one_idea_and_can_be_read(notebook):
    code = [cell.source.splitlines() for cell in notebook.cells if cell.cell_type == "code"]
    lengths = [len(lines) for lines in code]
    assert np.median(lengths) <= 4
    assert np.quantile(lengths, 0.9) <= 9
    assert max(lengths) <= 20
    assert [line for lines in code for line in lines if len(line) > 79] == []
    assert sum(lengths) <= 170


def test_no_cell_asks_what_the_data_are(notebook):
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert not [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.If | ast.IfExp)]


def test_sentences_that_depend_on_data_are_not_written_in_cells(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.JoinedStr):
                    words = "".join(part.value for part in node.values if isinstance(part, ast.Constant))
                    assert len(words) <= 60, words


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
