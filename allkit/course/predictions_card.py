"""The card of predictions that were made elsewhere, and how a card becomes a page; needs no network."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from bs4 import BeautifulSoup
from markupsafe import Markup

from allkit import saving
from allkit.course.offline import TEMPLATES, escape_markdown, render_markdown
from allkit.evaluate import FEWEST_UNITS
from allkit.lessons.predictions import Judged, describe_costs
from allkit.scores import describe_scores


def write_predictions_card(judged: Judged, folder: Path) -> tuple[Path, Path]:
    """Write card.html and card.md about predictions that were made elsewhere; return both paths."""
    loaded, title = judged.loaded, f"Card of the predictions in “{judged.loaded.path.name}”"
    said = describe_costs(judged.decided, **judged.costs).replace("**", "") if judged.costs else ""
    facts = {"notes": loaded.notes, "leaks": loaded.leaks, "costs": said, "fewest": FEWEST_UNITS}
    model = describe_scores(loaded.rows, judged.measures)
    return write_pages(
        title, TEMPLATES.get_template("predictions.md.j2").render(title=title, model=model, **facts), folder
    )


def write_pages(title: str, text: str, folder: Path) -> tuple[Path, Path]:
    """Write a card, Markdown with a YAML head, as card.md and card.html; return both paths, the page first."""
    body = Markup(as_html(text.split("\n---\n", 1)[1]))
    pages = {"card.html": TEMPLATES.get_template("page.html.j2").render(title=title, body=body), "card.md": text}
    for name, content in pages.items():
        with saving(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return folder / "card.html", folder / "card.md"


def markdown_table(table: pd.DataFrame, caption: str) -> str:
    """Return a table of text as Markdown, its caption in bold before it."""
    lines = [table.columns, *table.itertuples(index=False)]
    rows = [f"| {' | '.join(map(escape_markdown, line))} |" for line in lines]
    return "\n".join([f"**{escape_markdown(caption)}**", "", rows[0], "|" + " --- |" * len(table.columns), *rows[1:]])


TEMPLATES.filters |= {"table": markdown_table, "markdown": escape_markdown}


def as_html(markdown: str) -> str:
    """Return the card's Markdown as HTML whose tables say what is a caption and what is a heading."""
    page = BeautifulSoup(render_markdown(markdown, exclude_anchor_links=True), "html.parser")
    for table in page.find_all("table"):
        caption = table.find_previous_sibling("p")
        label = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": caption.text}
        table.wrap(page.new_tag("div", attrs=label))
        caption.name = "caption"
        table.insert(0, caption)
        for cell in table.thead.find_all("th"):
            cell["scope"] = "col"
        for row in table.tbody.find_all("tr"):
            row.td["scope"] = "row"
            row.td.name = "th"
    return str(page)
