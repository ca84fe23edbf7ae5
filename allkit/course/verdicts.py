"""The verdicts on printed results as one page that loads nothing, in the style of the other pages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from allkit import saving
from allkit.course.offline import TEMPLATES
from allkit.judging.papers import Paper
from allkit.judging.printed import CONFIRMED, CONTRADICTED, OPEN
from allkit.lessons.referee import referee_paper

SIGNS = {CONFIRMED: "✓", CONTRADICTED: "✗", OPEN: "?"}
"""A sign for each verdict, beside its word: no verdict is told by colour alone."""


def write_verdicts(papers: Iterable[Paper], out: Path) -> Path:
    """Write a page with the verdicts on some papers; return its path."""
    judged = [(paper, referee_paper(paper)) for paper in papers]
    title = f"Referee: {judged[0][0].label}" if len(judged) == 1 else f"Referee: {len(judged)} papers"
    page = TEMPLATES.get_template("verdicts.html.j2").render(title=title, judged=judged, signs=SIGNS)
    with saving(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out
