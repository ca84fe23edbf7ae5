"""A bank of questions for Moodle, Canvas and others: the exercises that need no kernel, and the exam questions.

The wording of an exercise is read from its notebook, that of an exam question from the instructor's guide, so that each
stands in one place.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any
from xml.etree import ElementTree as ET

import nbformat

from allkit import ROOT, AllkitError, saving
from allkit.course.grading import Between, Exercise
from allkit.course.offline import render_markdown, title_of
from allkit.course.questions import EXERCISES

EXAM = "Exam questions"


@dataclass(frozen=True)
class Choice:
    """One answer that is foreseen: a text in Markdown, or a number; and what is said about it ("" for nothing)."""

    value: str | float
    right: bool
    feedback: str = ""


@dataclass(frozen=True)
class Question:
    """One question of the bank; texts are Markdown.

    `kind` is "choice" (one of `choices`, in their order), "number" (within `tolerance` of the right one of them) or
    "essay". `why` is what is to be known afterwards; of an essay, the model answer.
    """

    name: str
    category: str
    kind: str
    text: str
    why: str
    choices: tuple[Choice, ...] = ()
    tolerance: float = 0.0


def load_bank(notebooks: Path = ROOT / "notebooks", guide: Path = ROOT / "docs" / "instructor.md") -> list[Question]:
    """Return the questions that can be asked without a kernel, then those of the exam."""
    found = [question for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb")) for question in _questions_of(path)]
    return [*found, *_exam_questions(guide)]


def describe_bank(bank: list[Question]) -> str:
    """Return sentences on how many exercises were taken, and why the others were not."""
    kinds = Counter(question.kind for question in bank)
    taken = kinds["choice"] + kinds["number"]
    why_not = Counter(filter(None, map(reason_against, EXERCISES.values())))
    left_out = "; ".join(f"{count} {reason}" for reason, count in why_not.items())
    return (
        f"{taken} of {len(EXERCISES)} exercises ({kinds['choice']} with letters, {kinds['number']} with a number) and "
        f"{kinds['essay']} exam questions, to be answered in words.\nLeft out: {left_out}."
    )


def reason_against(exercise: Exercise) -> str:
    """Return why an exercise cannot be asked outside its notebook, "" if it can."""
    if exercise.given or callable(exercise.truth):
        return "whose answer depends on what the notebook computed"
    if exercise.kind == "function":
        return "whose answer is a function"
    if exercise.kind in ("list", "set", "name"):
        return "whose answer is a list, which may be written in many ways"
    return ""


def wording_of(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Return the text of each exercise in a notebook, by number, in Markdown and without its number and level."""
    asked = r"^\*\*(\d\d\.\d+)\*\* \(\w+\)\. (.+)\Z"
    cells = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return dict(found.groups() for text in cells if (found := re.search(asked, text, re.MULTILINE | re.DOTALL)))


def _questions_of(path: Path) -> Iterator[Question]:
    """Yield the exercises of a notebook that can be asked outside it."""
    notebook = nbformat.read(path, as_version=4)
    wording = wording_of(notebook)
    for number, exercise in EXERCISES.items():
        if exercise.notebook == path.name[:2] and not reason_against(exercise):
            if number not in wording:
                raise AllkitError(f"{path} does not ask {number}; its text begins with **{number}** (level).")
            yield _question(exercise, wording[number].strip(), f"{path.name[:2]} {title_of(notebook)}")


def _question(exercise: Exercise, text: str, category: str) -> Question:
    facts = {"name": f"{exercise.id} {category[3:]}", "category": category, "why": exercise.why}
    said = dict(exercise.mistakes)
    if exercise.kind == "choice":
        text, *options = re.split(r"^- \*\*([a-z])\*\* ", text, flags=re.MULTILINE)
        letters, words = options[::2], [option.strip() for option in options[1::2]]
        choices = [
            Choice(word, letter == exercise.truth, said.get(letter, ""))
            for letter, word in zip(letters, words, strict=True)
        ]
        return Question(kind="choice", text=text.strip(), choices=tuple(choices), **facts)
    # a platform matches single numbers, so a range of wrong ones stands there with its end
    ends = {value.high if isinstance(value, Between) else value: hint for value, hint in said.items()}
    wrong = [Choice(float(value), False, hint) for value, hint in ends.items()]
    choices = (Choice(float(exercise.truth), True), *wrong)
    unit = " Give a share, a number from 0 to 1." if exercise.kind == "share" else ""
    return Question(kind="number", text=text + unit, choices=choices, tolerance=exercise.tolerance, **facts)


def _exam_questions(guide: Path) -> Iterator[Question]:
    """Yield the exam questions of the instructor's guide, each with its model answer."""
    text = guide.read_text(encoding="utf-8").partition(f"\n## {EXAM}\n")[2].partition("\n## ")[0]
    text = re.sub(r" ?\{cite:p\}`\w+`", "", text)
    asked = r"^\*\*(\d+)\.\*\* (.+?)\n\n<details><summary>[^\n]+</summary>\n\n(.+?)\n\n</details>"
    for number, question, answer in re.findall(asked, text, re.MULTILINE | re.DOTALL):
        yield Question(f"Exam {int(number):02d}", EXAM, "essay", question, answer)


def _html(markdown: str | float) -> str:
    """Return Markdown as HTML on one line, equations as MathML."""
    return " ".join(render_markdown(str(markdown)).split())


# Moodle


def write_moodle(bank: list[Question], path: Path) -> Path:
    """Write a bank as Moodle XML, one category for each notebook and one for the exam; return the path."""
    root, category = ET.Element("quiz"), ""
    for question in bank:
        if question.category != category:
            category = question.category
            element = ET.SubElement(root, "question", type="category")
            _add(element, "category", f"$course$/top/allkit/{category.replace('/', '//')}")
        _add_question(root, question)
    ET.indent(root)
    with saving(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
    return path


def _add(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    """Append an element that holds a text, as Moodle wants it: in an element of its own."""
    element = ET.SubElement(parent, tag, attributes)
    ET.SubElement(element, "text").text = text
    return element


_MOODLE: dict[str, tuple[str, dict[str, Any]]] = {
    "choice": ("multichoice", {"single": "true", "shuffleanswers": "false", "answernumbering": "abc"}),
    "number": ("numerical", {}),
    "essay": ("essay", {"responseformat": "editor", "responserequired": 1, "responsefieldlines": 10, "attachments": 0}),
}


def _add_question(root: ET.Element, question: Question) -> None:
    kind, settings = _MOODLE[question.kind]
    element = ET.SubElement(root, "question", type=kind)
    _add(element, "name", question.name)
    _add(element, "questiontext", _html(question.text), format="html")
    is_essay = question.kind == "essay"
    _add(element, "graderinfo" if is_essay else "generalfeedback", _html(question.why), format="html")
    for tag, value in {"defaultgrade": 1, **settings}.items():
        ET.SubElement(element, tag).text = str(value)
    for choice in question.choices:
        is_number = isinstance(choice.value, float)
        text = f"{choice.value:.10g}" if is_number else _html(choice.value)
        form = "moodle_auto_format" if is_number else "html"
        answer = _add(element, "answer", text, fraction="100" if choice.right else "0", format=form)
        if is_number:
            ET.SubElement(answer, "tolerance").text = f"{question.tolerance:g}"
        _add(answer, "feedback", _html(choice.feedback) if choice.feedback else "", format="html")


# QTI


def write_qti(bank: list[Question], path: Path) -> Path:
    """Write a bank as a QTI 1.2 archive, as Canvas and others import it; return the path.

    Raises AllkitError without text2qti. QTI has no place for what only graders see: the model answer of an essay is
    its general feedback.
    """
    try:
        config, qti, quiz = (importlib.import_module(f"text2qti.{name}") for name in ("config", "qti", "quiz"))
    except ImportError as error:
        raise AllkitError("QTI needs the package text2qti: pip install text2qti (or --format moodle).") from error
    text = "Quiz title: allkit\nShuffle answers: false\n\n" + "\n".join(map(_as_text2qti, bank))
    with saving(path) as temporary:
        qti.QTI(quiz.Quiz(text, config=config.Config())).save(temporary)
    return path


def _as_text2qti(question: Question) -> str:
    """Return a question in the language of text2qti, its texts as HTML, which passes through unchanged."""

    def html(text: str | float) -> str:
        return _html(text).replace("$", "&#36;").replace("\\", "&#92;")  # no formulas: these are MathML by now

    lines = [f"Title: {question.name}", f"1. {html(question.text)}", f"... {html(question.why)}"]
    right = next((choice.value for choice in question.choices if choice.right), None)
    if question.kind == "essay":
        lines.append("____")
    elif question.kind == "number":
        lines.append(f"= {right:.10g} +- {question.tolerance:g}")
    else:
        for letter, choice in zip(ascii_lowercase, question.choices, strict=False):
            lines.append(f"{'*' if choice.right else ''}{letter}) {html(choice.value)}")
            lines += [f"... {html(choice.feedback)}"] * bool(choice.feedback)
    return "\n".join([*lines, ""])
