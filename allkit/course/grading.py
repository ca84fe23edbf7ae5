"""Judging an answer: an exercise is data, and so is every mistake that deserves a hint of its own.

Answers come in many correct forms: 0.83, "83 %", a NumPy scalar, a tensor of one element, a list or a set or a
Series. They are read first, and only then compared. What cannot be read gets a sentence that says what is expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from allkit import AllkitError

LEVELS = ("look", "compute", "change", "explain")
"""From *run and look* to *change and explain*, the order of the exercises in a notebook."""

ANSWER_LENGTH = 80
"""Characters of an answer that are kept where a student wants answers to be kept."""


@dataclass(frozen=True)
class Between:
    """Every number from `low` to `high` is meant, both ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class OneOf:
    """Each of `values` is meant, where several are equally good."""

    values: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Exercise:
    """One question, as data. Its wording is in a markdown cell of the notebook.

    - `id`: notebook and number, "02.3"; `level`: one of LEVELS
    - `kind`: "number", "share", "set", "list", "name", "choice" or "function". A *share* is a number from 0 to 1 that
      may also be written "83 %"; a *set* is given in any order, a *list* in the one that the question states; a
      *choice* is a letter
    - `truth`: the answer, a `Between` or a `OneOf`, or a function of the objects named in `given`, in that order, that
      returns one of these. For a *function*: a function that does it right, called on each of `inputs`
    - `why`: said when the answer is right; `hint`: said of a wrong answer that fits no mistake, it leads and gives no
      line away; `more`: a plainer one, said from the second such answer on
    - `mistakes`: pairs of a wrong answer, written like `truth`, and the hint that fits it
    - `names`: of an answer that is a *name*, all that there are, as a function of the objects in `given`
    - `given`: names of the notebook's objects that `check` is handed
    - `unless`: function of the same objects that returns why the question cannot be posed with them, or ""
    - `tolerance`: how far a number may be from the truth
    - `misconception`: the misbelief that the question is about, if it is about one
    """

    id: str
    level: str
    kind: str
    truth: Any
    why: str
    hint: str
    mistakes: tuple[tuple[Any, str], ...] = ()
    more: str = ""
    names: Callable[..., Iterable[str]] | None = None
    given: tuple[str, ...] = ()
    unless: Callable[..., str] | None = None
    tolerance: float = 0.0
    inputs: tuple[tuple, ...] = ()
    misconception: str = ""

    @property
    def notebook(self) -> str:
        """Number of the notebook, "02"."""
        return self.id.partition(".")[0]


@dataclass(frozen=True)
class Verdict:
    """What became of an answer.

    `state` is "right", "wrong", "blank", "unread" (another kind of answer is expected) or "not posed" (the question
    is not possible, or cannot be checked, with what was handed over), or "solution" where one was asked for; `text`
    says it. `answer` is a wrong answer as a short text, the same for every form of it.
    """

    id: str
    state: str
    text: str = field(compare=False)
    answer: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.id}: {self.text}"

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return f"**{self.id}** {_SIGNS.get(self.state, '·')} {self.text}"


_SIGNS = {
    "right": '<span style="color: #0A7E62">**✓**</span>',
    "wrong": '<span style="color: #C2352B">**✗**</span>',
}


class UnreadableAnswer(AllkitError):
    """The answer is not of the kind that is expected; the message says which kind is."""


def is_blank(answer: Any) -> bool:
    """Return whether nothing was answered: `...`, None or an empty text."""
    return answer is ... or answer is None or (isinstance(answer, str) and answer.strip() in ("", "..."))


def judge(exercise: Exercise, answer: Any, given: Mapping[str, Any], *, tries: int = 0) -> Verdict:
    """Return the verdict on an answer; `given` holds the objects that the exercise names, and may hold more.

    A blank is never judged. Of several mistakes that the answer fits, the nearest counts. `tries` is how many wrong
    answers came before.
    """
    objects = {name: given[name] for name in exercise.given}
    reason = exercise.unless(*objects.values()) if exercise.unless else ""
    if reason:
        return Verdict(exercise.id, "not posed", f"This question is not possible here: {reason}")
    if is_blank(answer):
        return Verdict(exercise.id, "blank", "Not answered yet. Put your answer in place of the three dots.")
    try:
        found = _read(exercise, answer)
    except UnreadableAnswer as error:
        return Verdict(exercise.id, "unread", f"{error} This try does not count.")
    unknown = exercise.names and _unknown_name(found, [str(name) for name in exercise.names(*objects.values())])
    if unknown:
        return Verdict(exercise.id, "unread", f"{unknown} This try does not count.")
    truth = _expected(exercise, exercise.truth, objects)
    mistakes = [(_expected(exercise, value, objects), hint) for value, hint in exercise.mistakes]
    if not _same(exercise, found, truth):
        plain = replace(exercise, hint=exercise.more) if tries and exercise.more else exercise
        return Verdict(exercise.id, "wrong", f"Not yet. {_hint(plain, found, truth, mistakes)}", _as_text(found))
    beside = _nearer(found, truth, mistakes)
    if beside:
        more = "(If you only rounded: give more digits, both are close.)"
        return Verdict(exercise.id, "wrong", f"Not yet. {beside} {more}", _as_text(found))
    return Verdict(exercise.id, "right", f"Right. {exercise.why}")


def _as_text(found: Any) -> str:
    """Return an answer that was read as text, cut at ANSWER_LENGTH; of a function, what it returned."""
    elements = sorted(found, key=str) if isinstance(found, frozenset) else np.ravel(found).tolist()
    text = ", ".join(f"{each:.6g}" if isinstance(each, float) else str(each) for each in elements)
    return text if len(text) <= ANSWER_LENGTH else f"{text[: ANSWER_LENGTH - 1]}…"


def _hint(exercise: Exercise, found: Any, truth: Any, mistakes: list[tuple[Any, str]]) -> str:
    """Return the hint that fits a wrong answer; `mistakes` are pairs of what was answered, as read, and its hint."""
    if hint := _nearest_mistake(exercise, found, mistakes):
        return hint
    if _may_be_percent(exercise, found, truth):
        if _same(exercise, found / 100, truth):
            return "The number is right as a percentage; a share lies between 0 and 1, so divide by 100."
        if hint := _nearest_mistake(exercise, found / 100, mistakes):
            return hint
    if exercise.kind == "list" and len(found) != len(truth):
        return f"{len(truth)} values are expected, and these are {len(found)}. {exercise.hint}"
    return exercise.hint


def _nearest_mistake(exercise: Exercise, found: Any, mistakes: list[tuple[Any, str]]) -> str:
    """Return the hint of the mistake that was made, of several the nearest; "" for none."""
    fitting = [(wrong, hint) for wrong, hint in mistakes if _same(exercise, found, wrong)]
    if fitting and all(isinstance(wrong, float) for wrong, _ in fitting):
        fitting.sort(key=lambda pair: abs(found - pair[0]))
    return fitting[0][1] if fitting else ""


def _may_be_percent(exercise: Exercise, found: Any, truth: Any) -> bool:
    shares = exercise.kind == "share" or (exercise.kind == "number" and isinstance(truth, float) and abs(truth) < 1)
    return shares and abs(found) > 1


def _unknown_name(found: str, names: list[str]) -> str:
    """Return a sentence where an answer is none of the names that there are, "" where it is."""
    if any(_same_name(found, _read_name(name)) for name in names):
        return ""
    if _PLAIN.fullmatch(found):
        return "A name is asked for, and this is a number."
    return f"There is no such name here. There are {', '.join(names)}."


def _same_name(found: str, expected: str) -> bool:
    """Return whether two names are the same but for blanks and signs; "13" is short for "block 13"."""
    found, expected = (re.sub(r"[\W_]+", "", name) for name in (found, expected))
    return found == expected or (found.isdigit() and re.fullmatch(rf"\D*{found}", expected) is not None)


def _nearer(found: Any, truth: Any, mistakes: list[tuple[Any, str]]) -> str:
    """Return the hint of a mistake that is nearer than the truth to a number within the tolerance of it, or ""."""
    # on some data the accuracy, say, all but equals the balanced accuracy, and a tolerance would let it pass
    for wrong, hint in mistakes:
        if isinstance(truth, float) and isinstance(wrong, float) and abs(found - wrong) + 1e-9 < abs(found - truth):
            return hint
    return ""


def _expected(exercise: Exercise, value: Any, objects: Mapping[str, Any]) -> Any:
    """Return a truth or a mistake as it would be read if somebody had answered it."""
    if exercise.kind == "function":
        return _read(exercise, value)
    value = value(*objects.values()) if callable(value) else value
    if isinstance(value, OneOf):
        return OneOf(tuple(_read(exercise, each) for each in value.values))
    return value if isinstance(value, Between) else _read(exercise, value)


def _same(exercise: Exercise, found: Any, expected: Any) -> bool:
    """Return whether an answer is the expected one, within the tolerance."""
    if isinstance(expected, OneOf):
        return any(_same(exercise, found, each) for each in expected.values)
    if isinstance(expected, Between):
        return bool(_near(found, max(expected.low, min(found, expected.high)), exercise.tolerance))
    if exercise.kind == "name":
        return _same_name(found, expected)
    if isinstance(found, str | bool | frozenset):
        return found == expected
    return np.shape(found) == np.shape(expected) and bool(np.all(_near(found, expected, exercise.tolerance)))


def _near(found: Any, expected: Any, tolerance: float) -> Any:
    # a 32-bit number keeps seven digits: more must not be expected of a tensor
    return np.abs(np.subtract(found, expected)) <= tolerance + 1e-6 * np.abs(expected)


def _read(exercise: Exercise, answer: Any) -> Any:
    """Return an answer in the one form in which answers of its kind are compared."""
    if exercise.kind == "function":
        return _read_function(answer, exercise.inputs)
    if callable(answer) and not hasattr(answer, "__array__"):
        raise UnreadableAnswer("This is a function; give what it returns: call it, with round brackets.")
    readers = {"set": _read_set, "list": _read_list, "name": _read_name, "choice": _read_choice}
    return readers.get(exercise.kind, _read_number)(answer)


def _flat(answer: Any) -> list[Any]:
    """Return the elements of whatever holds some (list, set, array, Series, tensor, text with commas), in order."""
    if isinstance(answer, str):
        answer = [part.strip() for part in re.split(r",|;|\band\b", answer.strip("[](){} ")) if part.strip()]
    if hasattr(answer, "__array__"):
        return np.asarray(answer).ravel().tolist()
    if isinstance(answer, Mapping):
        raise UnreadableAnswer("This is a dictionary; give the value that is wanted.")
    if isinstance(answer, Iterable) and not isinstance(answer, bytes):
        return [element for part in answer for element in ([part] if isinstance(part, str) else _flat(part))]
    return [answer]


def _single(answer: Any, expected: str) -> Any:
    elements = [answer] if isinstance(answer, str) else _flat(answer)
    if len(elements) != 1:
        raise UnreadableAnswer(f"{expected} is expected; this holds {len(elements)} values.")
    return elements[0]


_PLAIN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?")

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def _read_number(answer: Any) -> float:
    """Return one number: 0.83, "0.83", "0,83", "83 %", "1,234", "1/3", "3.2x", "six", an array of one element, …"""
    value = _single(answer, "One number")
    if isinstance(value, bool):
        raise UnreadableAnswer("A number is expected, not True or False.")
    if isinstance(value, str):
        return _number_in(value)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UnreadableAnswer(f"A number is expected; this is of type {type(answer).__name__}.") from error
    if not np.isfinite(number):
        raise UnreadableAnswer("This is no number (NaN or infinite); look at how it came about.")
    return number


def _number_in(text: str) -> float:
    if text.strip().lower() in ("none", "no"):
        return 0.0
    if text.strip().lower() in _WORDS:
        return float(_WORDS.index(text.strip().lower()))
    bare = re.sub(r"[\s_'’]", "", text).lower().replace("−", "-").replace("×", "x")
    bare = re.sub(r"(?<=[\d.])(°|[a-df-z][a-z]*)$", "", bare)  # a unit: 3.2x, 717 images, 90°
    above, _, below = bare.partition("/")
    if _PLAIN.fullmatch(above) and _PLAIN.fullmatch(below) and float(below):
        return float(above) / float(below)
    percent, bare = bare.endswith("%"), bare.rstrip("%")
    # "1,234" is a thousand, "0,83" a decimal comma
    bare = bare.replace(",", "") if re.fullmatch(r"[-+]?[1-9]\d{0,2}(,\d{3})+", bare) else bare.replace(",", ".")
    if not _PLAIN.fullmatch(bare):
        raise UnreadableAnswer("A number is expected, and this text holds none, or more than a number.")
    return float(bare) / (100 if percent else 1)


def _read_list(answer: Any) -> np.ndarray:
    """Return numbers in order."""
    if isinstance(answer, set | frozenset):
        raise UnreadableAnswer("The order matters here and a set has none; give a list.")
    return np.array([_read_number(element) for element in _flat(answer)])


def _read_set(answer: Any) -> frozenset:
    """Return names (case does not matter) or numbers, without order or repetition."""
    elements = _flat(answer)
    if elements and all(isinstance(element, bool) for element in elements):
        raise UnreadableAnswer("This says True or False for each; give the values themselves.")
    return frozenset(_element(element) for element in elements)


def _element(value: Any) -> float | str:
    try:
        return round(_read_number(value), 6)
    except UnreadableAnswer:
        return _read_name(value)


def _read_name(answer: Any) -> str:
    value = _single(answer, "One name")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UnreadableAnswer("A name is expected, as text in quotation marks.")
    return " ".join(str(value).strip("\"'“” ").casefold().split())


def _read_choice(answer: Any) -> str:
    value = _single(answer, "One letter")
    found = re.fullmatch(r"\W*([a-z])\W*", value.strip().lower()) if isinstance(value, str) else None
    if not found:
        raise UnreadableAnswer('One letter is expected, in quotation marks: "a".')
    return found[1]


def _read_function(answer: Any, inputs: tuple[tuple, ...]) -> np.ndarray:
    """Return all numbers that a function returns for the inputs, one row per input."""
    if not callable(answer):
        raise UnreadableAnswer("A function is expected: def answer(…), or the name of one, without brackets.")
    rows = []
    for values in inputs:
        call = f"answer({', '.join(map(repr, values))})"
        try:
            result = answer(*deepcopy(values))
        except Exception as error:
            raise UnreadableAnswer(f"{call} ends with {type(error).__name__}: {error}.") from error
        if is_blank(result):
            raise UnreadableAnswer(f"{call} returns nothing; end the function with return.")
        try:
            rows.append([_read_number(element) for element in _flat(result)])
        except UnreadableAnswer as error:
            raise UnreadableAnswer(f"{call} does not return numbers.") from error
    if len({len(row) for row in rows}) != 1:
        raise UnreadableAnswer("The function returns now more, now fewer numbers.")
    return np.array(rows)
