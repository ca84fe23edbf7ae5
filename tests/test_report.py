"""The report of a run: what its first page says, and its pages in a browser."""

import base64
import io
import json
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from allkit import ROOT
from allkit.baselines import single_feature_baseline
from allkit.course.offline import shorten_paths
from allkit.course.report import POLICY, publish_report
from allkit.data import index_hash, load_index
from allkit.evaluate import compare_predictions, evaluate_with_intervals
from allkit.folders import FORMAT, save_json
from allkit.runs import Run
from allkit.splits import split_data

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

ELSEWHERE = "C:\\Users\\somebody\\kit"
"""Where another machine has its clone."""

HOSTILE = (
    '<script>document.title = "seen"</script></main></body></div></div><img src="https://example.org/a.png">'
    '<style>@import url("https://example.org/a.css"); p { background: url(https://example.org/b.png) }</style>'
    '<svg><image href="https://example.org/c.png"/></svg><video poster="https://example.org/d.png"></video>'
    '<meta http-equiv="refresh" content="0; url=https://example.org/"><textarea><!--'
)


def picture() -> str:
    out = io.BytesIO()
    Image.fromarray(np.full((300, 900, 3), 255, np.uint8)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def write_notebook(path: Path, title: str, *outputs, clone: str = str(ROOT), run: str = "") -> None:
    """Write an executed notebook with two headings, as papermill leaves it."""
    tags = {"tags": ["injected-parameters"]}
    code = nbformat.v4.new_code_cell(f"run_folder = {run!r}", metadata=tags, outputs=list(outputs), execution_count=1)
    long = nbformat.v4.new_code_cell(f"x = '{'long' * 200}'")
    texts = [nbformat.v4.new_markdown_cell(text) for text in (f"# {title}", "## One\n\n### Part", "## Two")]
    notebook = nbformat.v4.new_notebook(cells=[texts[0], code, texts[1], long, texts[2]])
    slash = "\\" if "\\" in clone else "/"
    notebook.metadata["papermill"] = {"input_path": f"{clone}{slash}notebooks{slash}{path.name}"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def said(text: str):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def shown(html: str):
    return nbformat.v4.new_output("display_data", {"text/html": html})


@pytest.fixture(scope="module")
def split(twin):
    return split_data(load_index(twin), "image", seed=1)


@pytest.fixture(scope="module")
def run(twin, split, tmp_path_factory) -> Path:
    """A run folder with three notebooks and the predictions of two networks, which others made up."""
    path = tmp_path_factory.mktemp("runs") / "one"
    drawn = nbformat.v4.new_output(
        "display_data", {"image/png": picture()}, metadata={"image/png": {"alt": "A wide white figure"}}
    )
    where = f"saved to {path}/models and {twin}/training_data; {ROOT}/allkit; {Path.home()}/x"
    write_notebook(path / "notebooks/01_first.ipynb", "1 · First", said(where), drawn, run=str(path))
    there = f"{ELSEWHERE}\\runs\\one"
    trace = nbformat.v4.new_output(
        "error", ename="E", evalue="no", traceback=["File \x1b[32m/usr/lib/python3.11/json/x.py:3\x1b[39m"]
    )
    write_notebook(path / "notebooks/02_second.ipynb", "2 · Second", said(there), trace, clone=ELSEWHERE, run=there)
    write_notebook(
        path / "notebooks/03_third.ipynb", "3 · A <b onclick=x>Third</b>", shown(HOSTILE), shown("<p>after</p>")
    )
    entries = {
        "01_first": {"status": "done", "seconds": 3.2},
        "02_second": {"status": "failed", "seconds": 1.0, "cell": 4, "error": f"E: <img src=x> in {path}/x"},
        "03_third": {"status": "done", "seconds": 2.0, "parameters": {"epochs": "<i>3</i>"}},
    }
    save_json(path / "notebooks.json", {"format": FORMAT, "data": str(twin), "profile": "quick", "notebooks": entries})
    hashes = {name: index_hash(part) for name, part in split.parts.items()}
    facts = {"seed": 1, "split": {"name": "image", "note": "By image.", "hash": hashes}}
    facts["profile"] = {"split": "image", "crop": 300}
    models, saved = {}, Run(path)
    for number, name in enumerate(("mobilenet", "efficientnetb3")):
        table = split.test[["path", "label", "subject", "group"]].reset_index(drop=True)
        truth = table["label"] == "ALL"
        noise = np.random.default_rng(number).normal(0, 0.2 + 0.3 * number, len(table))
        p = np.clip(0.3 + 0.4 * truth + noise, 0.01, 0.99)
        saved.save_predictions(name, table.assign(p_ALL=p, p_HEM=1 - p))
        saved.save_metrics(name, {"training_seconds": 1.0})
        models[name] = facts
    data = {"source": "synthetic", "images": 60, "hash": "0"}
    save_json(path / "params.json", {"format": FORMAT, "data": data, "profiles": ["quick"], "models": models})
    return path


@pytest.fixture(scope="module")
def pages(run) -> dict[str, BeautifulSoup]:
    folder = publish_report(run).parent
    return {file.name: BeautifulSoup(file.read_text("utf-8"), "html.parser") for file in folder.glob("*.html")}


def words(page: BeautifulSoup) -> str:
    """Return what a reader sees of a page."""
    return "".join(text for text in page.find_all(string=True) if text.parent.name != "style")


def test_the_first_page_has_three_numbers_with_their_intervals(run, pages, split):
    name, by_number = single_feature_baseline(split)
    tables = {"MobileNet": Run(run).load_predictions("mobilenet")}
    tables |= {"EfficientNetB3": Run(run).load_predictions("efficientnetb3"), name: by_number}
    numbers = pages["index.html"].select(".numbers li")
    assert [item.strong.text for item in numbers] == [
        f"{evaluate_with_intervals(table).loc['auc', 'value']:.3f}" for table in tables.values()
    ]
    for item, (title, table) in zip(numbers, tables.items(), strict=True):
        row = evaluate_with_intervals(table).loc["auc"]
        ends = "interval inconclusive" if np.isnan(row["low"]) else f"{row['low']:.3f} to {row['high']:.3f}"
        assert item.text == f"{title}{row['value']:.3f}{ends}"
    verdict = pages["index.html"].select_one(".verdict").text
    for title in ("MobileNet", "EfficientNetB3"):
        row = compare_predictions(tables[title], by_number).loc["auc"]
        decided = {"first": f"{title} beats the {name}", "second": f"{title} loses to the {name}"}
        whether = decided.get(row["verdict"], f"whether {title} beats the {name} is inconclusive")
        assert f"{whether} (difference of the AUC {row['value']:+.3f}".replace("-", "−").lower() in verdict.lower()


def test_the_first_page_shows_curves_cells_and_a_card_for_each_notebook(run, pages):
    page = pages["index.html"]
    assert page.find("img", alt=lambda alt: alt and alt.startswith("ROC curves for ALL") and "MobileNet" in alt)
    cells = page.select(".cells figure")
    assert [figure.strong.text for figure in cells] == ["ALL"] * 3 + ["HEM"] * 3
    assert any("wrong" in figure.text for figure in cells)
    assert all("synthetic cell of class" in figure.img["alt"] for figure in cells)
    assert all("EfficientNetB3 answers" in figure.img["alt"] for figure in cells)
    cards = page.select(".cards li")
    assert [card.a["href"] for card in cards] == ["01_first.html", "02_second.html", "03_third.html"]
    assert (cards[0].img["alt"], cards[0].img["width"]) == ("A wide white figure", "320")
    assert "broken" in cards[1]["class"]
    assert "failed in cell 4: E: <img src=x> in runs/one/x" in cards[1].text
    assert len(page.select("details")) == 3
    assert (run / "report" / "index.html").stat().st_size < 1_000_000


def test_no_page_shows_where_things_lie_on_a_machine(run, twin, pages):
    for name, page in pages.items():
        text = words(page)
        for path in (str(run), str(twin), str(ROOT), str(Path.home()) + "/", "somebody", "/usr/lib"):
            assert path not in text, f"{path} in {name}"
    assert "saved to runs/one/models and …/twin/training_data; …/allkit; ~/x" in words(pages["01_first.html"])
    assert "run_folder = 'runs/one'" in words(pages["02_second.html"]), "in quotes, with its backslashes doubled"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("in /data/kit.", "in …."),
        ("/data/kitten and x/data/kit", "/data/kitten and x/data/kit"),
        ("file:///data/kit/x", "file://…/x"),
        ("/home/ann/a C:\\\\Users\\\\ann\\\\b", "~/a ~\\\\b"),
        ("/opt/env/lib/python3.11/site-packages/x.py", "…/lib/python3.11/site-packages/x.py"),
        ("/tmp/ipykernel_12/34.py:1: Warning", "…/ipykernel_12/34.py:1: Warning"),
        ("either /or, 1/2 and https://example.org/home/ann", "either /or, 1/2 and https://example.org/home/ann"),
    ],
)
def test_paths_are_shortened_and_nothing_else(text, short):
    assert shorten_paths(text, {"/data/kit": "…", "/": "no"}) == short


def test_every_notebook_leads_to_its_neighbours_and_its_parts(pages):
    expected = {"01_first.html": [None, "02_second.html"], "02_second.html": ["01_first.html", "03_third.html"],
                "03_third.html": ["02_second.html", None]}  # fmt: skip
    for name, (before, after) in expected.items():
        page = pages[name]
        bars = page.select("nav.ways")
        assert len(bars) == 2
        for bar in bars:
            found = [bar.find("a", rel=rel) for rel in ("prev", "next")]
            assert [link and link["href"] for link in found] == [before, after]
            assert bar.find("a", href="index.html")
        assert {link["href"] for link in page.select("nav a")} <= {*pages, "#One", "#Part", "#Two"}
        for link in page.select(".contents a"):
            assert page.find(id=link["href"][1:]).name in ("h2", "h3")
        assert [link.text for link in page.select(".side a")] == ["One", "Part", "Two"]


def test_markup_of_a_run_folder_stays_text_and_opens_nothing(pages):
    for page in pages.values():
        assert page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"] == POLICY
        assert len(page.find_all("meta", attrs={"http-equiv": True})) == 1
        assert not page.find_all(["script", "iframe", "form", "object"])
        assert not page.find_all(onclick=True)
    assert "<i>3</i>" in pages["index.html"].text
    assert not pages["index.html"].find("i")
    assert "after" in pages["03_third.html"].main.text, "one output does not swallow the next"


def _spoil(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "one", ignore=shutil.ignore_patterns("report")))


def test_what_a_run_lacks_is_said(run, pages, tmp_path):
    path = _spoil(run, tmp_path)
    (path / "predictions-efficientnetb3.csv").write_text("path,label\nx,<b>y</b>\n")
    page = BeautifulSoup(publish_report(path).read_text("utf-8"), "html.parser")
    assert "The results of EfficientNetB3 are left out" in page.text
    assert len(page.select(".numbers li")) == 2
    assert "EfficientNetB3" not in page.select_one(".verdict").text
    for name in ("mobilenet", "single_feature"):  # the images are on another machine
        file = path / f"predictions-{name}.csv"
        file.write_text(file.read_text().replace("/twin/", "/away/"))
    page = BeautifulSoup(publish_report(path).read_text("utf-8"), "html.parser")
    assert len(page.select(".numbers li")) == 2, "what was computed when the images were there is kept"
    assert "Cells of the test part are not shown" in page.text
    assert not page.select(".cells")
    (path / "predictions-single_feature.csv").unlink()
    save_json(path / "metrics.json", {"mobilenet": {"training_seconds": 1}})
    page = BeautifulSoup(publish_report(path).read_text("utf-8"), "html.parser")
    assert "the images are not on this machine" in page.text
    assert len(page.select(".numbers li")) == 1
    assert not page.select(".verdict")


@pytest.mark.parametrize("content", ["{}", '{"mobilenet": []}', '{"<b>../x</b>": {"training_seconds": 1}}', "{half"])
def test_metrics_that_cannot_be_used_leave_the_rest_of_the_page(run, pages, tmp_path, content):
    path = _spoil(run, tmp_path)
    (path / "metrics.json").write_text(content)
    page = BeautifulSoup(publish_report(path).read_text("utf-8"), "html.parser")
    assert not page.select(".numbers")
    assert len(page.select(".cards li")) == 3
    assert page.select("p.soft")
    assert not page.find("b")


def test_three_classes_of_unknown_subjects_have_numbers(run, pages, tmp_path):
    path = _spoil(run, tmp_path)
    table = Run(path).load_predictions("mobilenet").assign(subject=None)
    table["label"] = [("a", "b", "c")[k % 3] for k in range(len(table))]
    p = np.random.default_rng(0).dirichlet((1, 1, 1), len(table))
    table = table.drop(columns=["p_ALL", "p_HEM"]).assign(p_a=p[:, 0], p_b=p[:, 1], p_c=p[:, 2])
    shutil.rmtree(path / "models", ignore_errors=True)
    Run(path).save_predictions("mobilenet", table)
    metrics = json.loads((path / "metrics.json").read_text())
    save_json(path / "metrics.json", {"mobilenet": metrics["mobilenet"]})
    page = BeautifulSoup(publish_report(path).read_text("utf-8"), "html.parser")
    assert page.select_one(".numbers strong").text == f"{evaluate_with_intervals(table).loc['auc', 'value']:.3f}"
    assert "a bootstrap over images" in page.text
    assert [figure.strong.text for figure in page.select(".cells figure")] == ["a", "a", "b", "b", "c", "c"]


@pytest.mark.skipif(BROWSER is None, reason="no browser: install Debian's with `apt-get install chromium`")
def test_pages_in_a_browser_ask_for_nothing_and_are_dark_and_narrow(run, pages):
    from playwright.sync_api import sync_playwright

    asked = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        for name in pages:
            page = chromium.new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")
            page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(("file:", "data:"))
                       else (asked.append(route.request.url), route.abort()))  # fmt: skip
            page.goto((run / "report" / name).as_uri())
            ground, ink = page.evaluate("['backgroundColor', 'color'].map(key => getComputedStyle(document.body)[key])")
            assert max(map(int, ground[4:-1].split(","))) < 60, f"{name}: {ground}"
            assert min(map(int, ink.partition("(")[2].rstrip(")").split(",")[:3])) > 150, f"{name}: {ink}"
            assert page.evaluate("document.documentElement.scrollWidth") <= 400, name
            assert page.title() != "seen"
            if name != "index.html":
                code = page.locator(".jp-CodeCell .highlight").last
                assert code.evaluate("e => e.scrollWidth <= e.clientWidth"), "code is wrapped, not cut"
                page.get_by_label("Hide the code").focus()
                page.keyboard.press("Space")
                assert not code.is_visible()
            page.close()
        chromium.close()
    assert asked == []
