"""The book: it builds without warnings, needs no network, and everybody can read it."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

import allkit
from allkit import ROOT
from allkit.course.questions import EXERCISES
from allkit.course.times import read_minutes

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

for needed in ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx_copybutton", "sphinxcontrib.bibtex"):
    pytest.importorskip(needed, reason=f"{needed} is missing: install allkit[book] to test the book")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
NUMBERED = {"01_explore_the_data": 90.0, "04_train_mobilenet": 150.0}  # s, of a run that never was


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(folder: Path, runs: Path, *options: str) -> subprocess.CompletedProcess:
    """Build the book as `make book` does, with a proxy that leads nowhere in place of a network."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, str(ROOT / "docs" / "book.py"), str(folder), *options]
    environment = os.environ | nowhere | {"ALLKIT_RUNS": str(runs), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "warning" not in done.stderr.lower()
    return done


@pytest.fixture(scope="session")
def book(tmp_path_factory) -> Path:
    """The book of the committed notebooks; the last run left times only."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "runs" / "latest").mkdir(parents=True)
    notebooks = {name: {"status": "done", "seconds": seconds} for name, seconds in NUMBERED.items()}
    (folder / "runs" / "latest" / "notebooks.json").write_text(json.dumps({"notebooks": notebooks}))
    build(folder / "site", folder / "runs")
    return folder / "site"


ELSEWHERE = "http://127.0.0.1:9"
HOSTILE_HTML = f"""</div></article><script>window.ran = 1</script><img src="{ELSEWHERE}/a.png" onerror="window.ran = 2">
<style>@import url({ELSEWHERE}/b.css); p {{ background: url({ELSEWHERE}/c.png) }}</style><p>an output</p>"""
HOSTILE_TEXT = f"""---
html_meta:
  "http-equiv=refresh": "0; url={ELSEWHERE}"
---

<script>window.ran = 3</script> ![a picture]({ELSEWHERE}/d.png) {{download}}`conf.py` `x = {{"a": 1}}`

```{{raw}} html
<script>window.ran = 4</script>
```

:::{{include}} /glossary.md
:::
"""


@pytest.fixture(scope="session")
def book_of_run(tmp_path_factory) -> tuple[Path, str]:
    """The book of a run of two notebooks on genuine images, made by somebody who is not to be trusted; what it said."""
    folder = tmp_path_factory.mktemp("book-of-run")
    run, here = folder / "runs" / "evening", "/home/some one/allkit"
    (run / "notebooks").mkdir(parents=True)
    record = {
        "format": 1,
        "created": "2026-03-01T10:00:00+00:00",
        "profile": "honest",
        "data": f"{here}/cells/C-NMC_2019",
    }
    (run / "notebooks.json").write_text(json.dumps(record | {"notebooks": {}}), encoding="utf-8")
    injected = f'data = "{record["data"]}"\nrun_folder = "{here}/runs/evening"'
    for name in ("00_start_here", "03_how_a_network_learns"):
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
        notebook.metadata["mystnb"] = {"execution_mode": "force"}
        picture = nbformat.from_dict({"image/png": "iVBORw0KGgo="})
        data = [{"text/html": HOSTILE_HTML}, {"text/markdown": HOSTILE_HTML}, picture]
        outputs = [nbformat.v4.new_output("display_data", data=each) for each in data]
        outputs.append(nbformat.v4.new_output("stream", text=f"saved {here}/runs/evening/figures/a.png in {here}/data"))
        code = nbformat.v4.new_code_cell(injected, metadata={"tags": ["injected-parameters"]}, outputs=outputs)
        raw = nbformat.v4.new_raw_cell("<script>window.ran = 5</script>", metadata={"format": "text/html"})
        notebook.cells[1:1] = [nbformat.v4.new_markdown_cell(HOSTILE_TEXT), raw]
        tagged = max(k for k, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        notebook.cells.insert(tagged + 1, code)
        nbformat.write(notebook, run / "notebooks" / f"{name}.ipynb")
    return folder / "site", build(folder / "site", folder / "runs", "--run", "evening").stdout


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no browser: install Debian's with `apt-get install chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as kit:
        chromium = kit.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Open pages as files, with nothing to be had from a network; whatever asks for it or breaks fails the test."""
    seen = []

    def new_page(width: int = 1280, scheme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.route(re.compile("^https?:"), lambda route: (seen.append(route.request.url), route.abort()))
        page = context.new_page()
        page.on("pageerror", lambda error: seen.append(str(error)))
        return page

    yield new_page
    assert seen == []


@cache
def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def pages(book: Path) -> dict[str, BeautifulSoup]:
    found = {str(path.relative_to(book)): path for path in sorted(book.rglob("*.html"))}
    return {name: read(path) for name, path in found.items() if not name.startswith("_static")}


def notebook_pages(book: Path) -> dict[str, BeautifulSoup]:
    return {name: page for name, page in pages(book).items() if name.startswith("notebooks/")}


# ---- complete ----------------------------------------------------------------------------------------------


def modules() -> set[str]:
    """Modules and packages of allkit, from the folders: "splits", "lessons", "lessons.paper", …"""
    files = (path.relative_to(ROOT / "allkit") for path in (ROOT / "allkit").rglob("*.py"))
    names = (file.parent if file.name == "__init__.py" else file.with_suffix("") for file in files)
    return {".".join(name.parts) for name in names} - {"", "__main__"}


def test_every_notebook_guide_and_module_has_a_page_that_the_contents_lead_to(book):
    guides = {path.stem for path in (ROOT / "docs").glob("*.md")}
    expected = {f"notebooks/{path.stem}" for path in NOTEBOOKS} | {f"api/{name}" for name in modules()} | guides
    linked = {urlsplit(a["href"]).path for a in read(book / "index.html").select("nav a.internal, .toctree-wrapper a")}
    for name in expected:
        assert f"{name}.html" in pages(book)
        assert name == "index" or f"{name}.html" in linked


def test_modules_stand_in_the_order_of_their_list_each_with_its_sentence_and_functions(book):
    listed = load_script("book").list_modules()
    links = read(book / "api.html").select("article li > p > a")
    assert [a["href"] for a in links] == [f"api/{name}.html" for name in listed]
    texts = [a.get_text().replace("’", "'") for a in links]
    assert texts == [f"{name}: {sentence}".replace("`", "") for name, sentence in listed.items()]
    page = read(book / "api" / "splits.html")
    assert listed["splits"] in page.h1.get_text()
    signature = page.find(id="allkit.splits.split_by_subject").get_text()
    assert "seed: int = 123" in signature and "Split" in signature  # noqa: PT018
    assert read(book / "api" / "course.report.html").find(id="allkit.course.report.publish_report")


def descriptions(output: nbformat.NotebookNode) -> list[str]:
    """The alternative texts of the pictures in one output, which are figures or stand in a widget's HTML."""
    data = output.get("data", {})
    if "image/png" in data:
        return [output.metadata["image/png"]["alt"]]
    return [img["alt"] for img in BeautifulSoup(data.get("text/html", ""), "html.parser").select("img")]


def test_every_figure_of_a_notebook_is_there_with_its_description(book):
    for path in NOTEBOOKS:
        outputs = [o for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", [])]
        told = [alt for output in outputs for alt in descriptions(output)]
        page = read(book / "notebooks" / f"{path.stem}.html")
        assert [img["alt"] for img in page.select("article img")] == told


def test_times_are_those_of_the_notebooks_and_of_the_last_run(book):
    tables = read(book / "instructor.html").select("table")
    (table,) = [table for table in tables if "last run" in table.get_text()]
    rows = {Path(tr.a["href"]).stem: [td.get_text() for td in tr.select("td")] for tr in table.select("tbody tr")}
    assert list(rows) == [path.stem for path in NOTEBOOKS]
    assert {name[:2]: int(row[1]) for name, row in rows.items()} == read_minutes().to_dict()
    assert rows["01_explore_the_data"][2] == "1.5 min"
    assert rows["05_train_efficientnetb3"][2] == "–"
    assert "4 minutes of machine time" in read(book / "instructor.html").get_text()


def test_without_a_run_the_table_says_how_to_get_times(tmp_path):
    script = load_script("book")
    assert "No run was found" in script.times_table(tmp_path)
    (tmp_path / "notebooks.json").write_text("{half")
    assert "No run was found" in script.times_table(tmp_path)


def test_every_exam_question_has_an_answer(book):
    page = read(book / "instructor.html")
    numbers = [int(b.get_text().strip(".")) for b in page.select("#exam-questions > p > strong:first-child")]
    answers = page.select("#exam-questions details")
    assert numbers == list(range(1, len(answers) + 1))
    assert len(answers) >= 12
    assert min(len(answer.get_text()) for answer in answers) > 60
    assert not page.select("details[open]"), "folded until somebody asks"


def test_the_worked_example_is_printed_as_it_is_tested(book):
    code = (ROOT / "docs" / "examples" / "one_more.py").read_text(encoding="utf-8")
    assert code.strip() in read(book / "instructor.html").get_text()


# ---- glossary ----------------------------------------------------------------------------------------------


def test_the_glossary_explains_the_words_of_the_notebooks(book):
    entries = read(book / "glossary.html").select("dl.glossary dt")
    assert len(entries) >= 40
    assert {"term-bootstrap", "term-by-subject", "term-balanced-accuracy"} <= {entry["id"] for entry in entries}


# ---- readable ----------------------------------------------------------------------------------------------


def test_every_image_is_described_in_words(book):
    for name, page in pages(book).items():
        for image in page.select("main img"):
            alt = image.get("alt", "")
            if "py-modindex" not in name:  # a minus sign of Sphinx
                assert len(alt) > 20, f"{name}: {image}"
                assert not re.search(r"\.(png|jpe?g|svg)$", alt), f"{name}: a file name says nothing"


def test_a_figure_that_nobody_described_stops_the_build(tmp_path, monkeypatch):
    script = load_script("book")
    picture = {"output_type": "display_data", "data": {"image/png": "AAAA"}, "metadata": {}}
    cell = nbformat.v4.new_code_cell("plt.show()", outputs=[nbformat.from_dict(picture)])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "01_bare.ipynb")
    monkeypatch.setattr(script, "NOTEBOOKS", tmp_path)
    with pytest.raises(allkit.AllkitError, match="no alternative text"):
        script.collect_pages(tmp_path / "pages")


def test_headings_are_in_order_and_every_page_has_one_title(book):
    for name, page in pages(book).items():
        levels = [int(heading.name[1]) for heading in page.select("h1, h2, h3, h4, h5, h6")]
        assert levels.count(1) == 1, name
        assert levels[0] == 1, name
        assert all(after - before <= 1 for before, after in pairwise(levels)), name
        assert page.html["lang"] == "en"
        assert page.title.get_text().strip()


def test_links_have_words_and_lead_somewhere(book):
    ids = {name: {tag["id"] for tag in page.find_all(id=True)} for name, page in pages(book).items()}
    for name, page in pages(book).items():
        for link in page.select("main a[href]"):
            # empty in text: it must at least be named
            assert link.get_text(strip=True) or link.get("aria-label") or link.get("title"), f"{name}: {link}"
            parts = urlsplit(link["href"])
            if parts.scheme or link["href"] == "#":
                continue
            target = os.path.normpath(Path(name).parent / unquote(parts.path)) if parts.path else name
            assert (book / target).exists(), f"{name} links to {target}"
            if parts.fragment and target in ids:
                assert unquote(parts.fragment) in ids[target], f"{name} links to {link['href']}"


def test_equations_are_mathml(book):
    page = read(book / "notebooks" / "02_augment_by_rotation.html")
    assert len(page.select('math[display="block"]')) >= 2
    for name, page in notebook_pages(book).items():
        text = " ".join(p.get_text() for p in page.select("article p"))
        assert not re.search(r"\\(frac|text|cdot|alpha)|\$\$", text), name


# ---- offline -----------------------------------------------------------------------------------------------


def test_nothing_is_loaded_from_elsewhere(book):
    for name, page in pages(book).items():
        for element in page.select("[src], link[href], object[data], [srcset]"):
            keys = ("src", "data", "srcset", *(["href"] if element.name == "link" else []))
            for address in filter(None, map(element.get, keys)):
                embedded = address.startswith("data:image/png;base64,")  # two slashes can be part of a picture
                assert embedded or "//" not in address, f"{name}: {address}"
        assert "http" not in " ".join(script.get_text() for script in page.select("script:not([src])"))
    for sheet in book.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_opened_as_a_file_the_search_shows_excerpts_and_asks_no_network(book, visit):
    page = visit(400)
    for asked, found, excerpt in (("leak", "The leakage lab", "A test is worth what it keeps apart"),
                                  ("bootstrap", "Glossary", "with replacement")):  # fmt: skip
        page.goto((book / "search.html").as_uri() + f"?q={asked}")
        page.get_by_text("Search finished").wait_for()
        results = page.locator("#search-results li").filter(has_text=found)
        assert excerpt in " ".join(results.all_inner_texts())
        assert page.locator("#search-results .context .highlighted").count() > 0


def test_every_page_fits_a_phone_and_asks_no_network(book, visit):
    page = visit(400)
    for name in pages(book):
        page.goto((book / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, f"{name} is wider than a phone"
        cut = """[...document.querySelectorAll("article pre, article table")].filter(each => {
            for (let box = each; box.tagName !== "ARTICLE"; box = box.parentElement)
                if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
            return each.getBoundingClientRect().right > innerWidth })"""
        assert page.evaluate(f"{cut}.map(each => each.textContent.slice(0, 80))") == [], name


@pytest.mark.parametrize("name", ["index", "notebooks/03_how_a_network_learns", "results"])
def test_pages_are_dark_where_the_reader_wants_that(book, visit, name):
    for width in (400, 1400):
        page = visit(width, "dark")
        page.goto((book / f"{name}.html").as_uri())
        page.wait_for_selector("html[data-theme=dark]")
        light = """name => getComputedStyle(document.body)[name].match(/\\d+/g).slice(0, 3).reduce((a, b) => +a + +b)"""
        assert page.evaluate(light, "backgroundColor") < 150 < 450 < page.evaluate(light, "color")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_code_is_folded_by_mouse_and_keyboard_and_copied(book, visit):
    page = visit()
    page.goto((book / "notebooks" / "03_how_a_network_learns.html").as_uri())
    assert page.locator("div.cell_input").count() == page.locator("details[open] > div.cell_input").count() > 10
    fold, code = page.locator("div.cell summary").first, page.locator("div.cell_input").first
    fold.click()
    assert not code.is_visible()
    fold.press("Enter")
    code.hover()
    code.locator("button.copybtn").click()
    page.locator("button.copybtn.success").wait_for()
    page.evaluate("document.querySelector('article').prepend(document.createElement('textarea'))")
    page.locator("article textarea").press("Control+v")
    assert page.locator("article textarea").input_value().strip() == code.locator("pre").inner_text().strip()
    assert page.locator(".output button.copybtn").count() == 0, "what code printed is no code"


# ---- the cover, and the run that is shown --------------------------------------------------------------------


def test_the_cover_leads_each_reader_to_a_place_and_students_to_notebook_0(book):
    page = read(book / "index.html")
    picture = page.select_one("article img")
    assert picture["alt"].startswith("Synthetic cells")
    assert "Synthetic" in page.select_one("article figcaption").get_text()
    ways = {way.strong.get_text(): way.a["href"] for way in page.select("article .ways > ul > li")}
    first, teachers, programmers = "notebooks/00_start_here.html", "instructor.html", "api.html"
    assert ways == {"Students": first, "Teachers": teachers, "Programmers": programmers}
    captions = [caption.get_text() for caption in page.select("nav.bd-links p.caption")]
    contents = dict(zip(captions, page.select("nav.bd-links p.caption + ul"), strict=True))
    assert contents["Notebooks"].a["href"] == first
    assert [a.get_text(strip=True) for a in contents["Results"].select("a")] == ["Results on genuine cells"]
    assert "allkit lab" in page.get_text()


def test_without_a_run_the_cover_says_that_the_committed_notebooks_are_shown(book):
    said = read(book / "index.html").select_one("#which-run-this-book-shows").get_text()
    assert "This book shows the notebooks as committed, executed on synthetic cells." in said
    assert "as committed" in read(book / "notebooks" / "12_tune_hyperparameters.html").article.get_text()


def test_the_book_of_a_run_says_which_notebooks_come_from_where(book_of_run):
    site, printed = book_of_run
    origin = "as in the run “evening” of 1 March 2026, executed on genuine images (C-NMC_2019), profile honest"
    said = read(site / "index.html").select_one("#which-run-this-book-shows").get_text()
    assert f"notebooks 00, 03 {origin};" in said
    others = {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")} - {"00", "03"}
    assert f"notebooks {', '.join(sorted(others))} as committed, executed on synthetic cells" in said
    assert origin in read(site / "notebooks" / "03_how_a_network_learns.html").article.get_text()
    assert "as committed" in read(site / "notebooks" / "01_explore_the_data.html").article.get_text()
    assert "note: 03_how_a_network_learns.ipynb: a figure has no alternative text" in printed


def test_the_book_of_a_run_names_no_folder_of_the_machine(book_of_run):
    site, _ = book_of_run
    for path in [path for kind in ("*.html", "*.ipynb", "*.js", "*.txt") for path in site.rglob(kind)]:
        text = path.read_text(encoding="utf-8")
        assert not [folder for folder in ("/home/some one", f"{ROOT}/", str(site.parent)) if folder in text], path
    text = read(site / "notebooks" / "00_start_here.html").article.get_text()
    assert 'data = "…/C-NMC_2019"' in text
    assert 'run_folder = "runs/evening"' in text
    assert "saved runs/evening/figures/a.png in …/data" in text


def test_the_book_of_a_run_runs_and_includes_nothing_of_it(book_of_run, visit):
    site, _ = book_of_run
    assert not list(site.rglob("conf.py"))
    for name in ("00_start_here", "03_how_a_network_learns"):
        article = read(site / "notebooks" / f"{name}.html").article
        assert "an output" in article.get_text()
        assert 'x = {"a": 1}' in article.get_text()
        assert not article.select("script, [onerror]")
        assert not article.select("dl.glossary")
        page = visit()
        page.goto((site / "notebooks" / f"{name}.html").as_uri())
        page.wait_for_timeout(500)
        assert page.evaluate("window.ran") is None
        assert page.url.startswith("file:")


def test_a_run_without_notebooks_is_named_with_what_to_do(tmp_path):
    script = load_script("book")
    with pytest.raises(allkit.AllkitError, match="allkit run"):
        script.find_copies(tmp_path / "nowhere")
    (tmp_path / "params.json").write_text("{}", encoding="utf-8")
    with pytest.raises(allkit.AllkitError, match="allkit run"):
        script.find_copies(tmp_path)


def test_the_list_of_modules_is_complete():
    assert set(load_script("book").list_modules()) == modules(), allkit.__doc__


def test_every_promise_names_a_test_that_is_there():
    page = (ROOT / "docs" / "what-it-promises.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    rows = [line.strip("| \n").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if row[0] != "promise"]
    assert len(promises) > 10
    for promise, named in promises:
        names = re.findall(r"`(\w+(?:\.py)?)`", named)
        assert names, promise
        for name in names:
            found = (ROOT / "tests" / name).is_file() if name.endswith(".py") else f"def {name}(" in tests
            assert found, f"{promise}: {name}"


# ---- solutions, what is shown, slides ------------------------------------------------------------------------


def test_every_exercise_has_its_solution_folded_below_it(book):
    for path in NOTEBOOKS:
        page = read(book / "notebooks" / f"{path.stem}.html")
        folded = [details.summary.get_text() for details in page.select("article details")]
        asked = [number for number in EXERCISES if number.startswith(path.stem[:2])]
        assert [text for text in folded if text.startswith("One way")] == [
            f"One way to solve {number}" for number in asked
        ]
    page = read(book / "notebooks" / "03_how_a_network_learns.html")
    (solution,) = [d for d in page.select("article details") if "03.2" in d.summary.get_text()]
    assert "math.log(0.25)" in solution.get_text()


def test_the_guide_says_what_the_notebooks_show(book):
    text, count = read(book / "instructor.html").get_text(), 0
    for path in NOTEBOOKS:
        said = [output["data"]["text/markdown"] for cell in nbformat.read(path, 4).cells
                for output in cell.get("outputs", []) if "text/markdown" in output.get("data", {})]  # fmt: skip
        sentences = [one for one in said if not re.match(r"\*\*\d\d\.\d", one) and "**" not in one and "\n" not in one]
        for sentence in sentences:
            assert re.sub(r"\W+", "", sentence)[:60] in re.sub(r"\W+", "", text), sentence
        count += len(sentences)
    assert count > len(NOTEBOOKS)


def test_what_can_be_stepped_through_works_in_the_book(book):
    for name in ("03_how_a_network_learns", "09_leakage_lab"):
        page = read(book / "notebooks" / f"{name}.html")
        steps = page.select("article div.step")
        assert len(steps) >= 2
        assert len(page.select("article input[type=radio]")) == len(steps)


def test_slides_are_one_page_each_that_needs_nothing(tmp_path):
    slides = load_script("slides")
    for number, code in slides.WANTED.items():
        notebook = next(path for path in NOTEBOOKS if path.stem.startswith(number))
        page = read(slides.make_slides(notebook, tmp_path, code=code))
        assert len(page.select("section")) >= 12
        assert not page.select("script, link[rel=stylesheet]")
        assert all(img["src"].startswith("data:") and len(img["alt"]) > 10 for img in page.select("img"))
        assert bool(page.select(".jp-InputArea-editor")) == code
        assert "check(" not in page.get_text()
