"""Makes slides of notebooks 01, 03 and 09: `python docs/slides.py [FOLDER]` writes one page each, in build/slides.

nbconvert renders the notebooks as they were last executed; every heading begins a slide, and so does a figure where the
slide is full. The pages load nothing from a network and run no script: Page Down goes on, and a printer makes one sheet
of each slide.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bs4 import BeautifulSoup, Tag

import allkit
from allkit.course.offline import TEMPLATES, read_offline, render_page, title_of

WANTED = {"01": False, "03": True, "09": False}
"""Notebooks to make slides of, and whether their code is shown."""

_FULL = 350
"""Letters of text that leave no room for a figure on the same slide."""

_LAST = "Exercises"  # the heading at which the slides end


def make_slides(notebook: Path, folder: Path, *, code: bool) -> Path:
    """Write the slides of one notebook into a folder; return the page."""
    content = read_offline(notebook)
    page = BeautifulSoup(render_page(content, notebook), "html.parser")
    slides = [str(slide) for slide in _slides(page, code)]
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{notebook.stem}.html"
    styles = "".join(str(style) for style in page.find_all("style"))
    text = TEMPLATES.get_template("slides.html.j2").render(title=title_of(content), styles=styles, slides=slides)
    with allkit.saving(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def _slides(page: BeautifulSoup, code: bool) -> Iterator[Tag]:
    """Yield the slides: cells from one heading or figure to the next, without prompts, and code only where wanted."""
    slide = page.new_tag("section")
    for cell in page.select(".jp-Cell"):
        if any(heading.get_text().startswith(_LAST) for heading in cell.select("h2")):
            break
        for gone in cell.select(".jp-InputPrompt, .jp-OutputPrompt"):
            gone.decompose()
        if "jp-CodeCell" in cell["class"] and not code:
            for gone in cell.select(".jp-Cell-inputWrapper"):
                gone.decompose()
        full = slide.select("img") or len(slide.get_text(" ", strip=True)) > _FULL
        if slide.contents and (cell.select("h1, h2, h3") or (cell.select("img") and full)):
            yield slide
            slide = page.new_tag("section")
        if cell.get_text(strip=True) or cell.select("img"):
            slide.append(cell.extract())
    if slide.contents:
        yield slide


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else allkit.ROOT / "build" / "slides").resolve()
    for number, shown in WANTED.items():
        source = next((allkit.ROOT / "notebooks").glob(f"{number}_*.ipynb"))
        print(make_slides(source, target, code=shown))
