"""Checking answers in the notebooks, and keeping track of what was solved.

`check("02.3", answer)` compares an answer with the exercise of that number in `allkit.course.questions`, says what it
found in a sentence and notes it in `progress.json` beside the run folders. A blank is only called one: notebooks that
run without a reader pass, and leave no trace. Wrong answers themselves are kept only where the student switched that on
(`keep_answers`).

To add an exercise, as an instructor:

1. In `allkit/course/questions.py`, add an `Exercise` to the tuple of its notebook (`allkit.course.grading.Exercise`
   says what each field means). A truth that depends on the data is a function of the notebook's objects, so that it
   also holds for other data.
2. In the notebook, add a markdown cell with the question and a code cell: `answer = ...`, then
   `check("02.5", answer, split=split)`, with the objects that the exercise names in `given`.
3. In `notebooks/solutions/`, add a worked solution and two plausible wrong answers; `tests/test_exercises.py` fails
   until they are there and the hints fit.
"""

from __future__ import annotations

import ast
import contextlib
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from allkit import ROOT, AllkitError, runs_root
from allkit.course.buttons import explain_bare_letters, is_live, show_buttons
from allkit.course.grading import ANSWER_LENGTH, Exercise, Verdict, judge
from allkit.course.questions import EXERCISES
from allkit.folders import read_json, save_json, timestamp

FORMAT = 1
"""Version of the layout of progress.json and answers.json."""

TRIES = 2
"""Wrong answers after which a solution is shown."""

MOST_ANSWERS = 20
"""Wrong answers of one exercise that are kept, the first ones, where answers are kept at all."""

explain_bare_letters()


def check(exercise: str, answer: Any = ..., /, **given: Any) -> Verdict:
    """Return what an answer to an exercise ("02.3") is worth: right, or a hint, or that nothing was answered yet.

    `...` and None are blanks; `given` holds the notebook's objects that the exercise is about, by name. A notebook
    shows the verdict as a sentence. Never raises. Right and wrong answers are noted in progress.json: how many tries,
    whether the first was right, and when; wrong answers themselves only after `keep_answers`.
    """
    number = _full_number(str(exercise))
    if number not in EXERCISES:
        return Verdict(
            number, "not posed", f"There is no such exercise; notebook {number[:2]} has {_siblings(number)}."
        )
    found = EXERCISES[number]
    missing = [name for name in found.given if name not in given or given[name] is ...]
    if missing:
        return Verdict(number, "not posed", f"Hand over what the question is about: {call_of(number)}.")
    try:
        verdict = judge(found, answer, given, tries=_tries(number))
    except Exception as error:  # a student who overwrote `train` has a right to a sentence, too
        what = ", ".join(found.given) or "what was answered"
        text = f"This could not be checked ({type(error).__name__}: {error}). Run the cells that make {what} again."
        return Verdict(number, "not posed", text)
    if found.kind == "choice" and verdict.state == "blank" and is_live():
        show_buttons(_letters(found), lambda letter: check(number, letter, **given))
    return _noted(verdict)


def call_of(number: str) -> str:
    """Return the line of the notebook that has an exercise checked."""
    return f'check("{number}", {", ".join(["answer", *(f"{name}={name}" for name in EXERCISES[number].given)])})'


def _letters(exercise: Exercise) -> list[str]:
    return sorted([exercise.truth, *(wrong for wrong, _ in exercise.mistakes)])


def _tries(number: str) -> int:
    """Return how often an exercise was answered so far; 0 where that cannot be read, which `_noted` says."""
    with contextlib.suppress(AllkitError, OSError, KeyError, TypeError):
        return int(read_json(progress_path())["exercises"][number]["tries"])
    return 0


def solution(exercise: str) -> Verdict:
    """Return one way to solve an exercise, with why it is right; a request for two tries first, where there were none.

    Never raises. Other ways may be as good: `check` takes every correct answer.
    """
    number = _full_number(str(exercise))
    if number not in EXERCISES:
        return Verdict(number, "solution", f"There is no such exercise; notebook {number[:2]} has {_siblings(number)}.")
    tried = load_progress()[0].set_index("exercise").loc[number]
    if tried["tries"] < TRIES and not tried["done"]:
        return Verdict(number, "solution", f"Try it {TRIES} times first, with `check`: its hints are made for you.")
    try:
        return Verdict(number, "solution", f"One way:\n\n```python\n{worked(number)}\n```\n\n{EXERCISES[number].why}")
    except AllkitError as error:
        return Verdict(number, "solution", str(error))


def worked(number: str) -> str:
    """Return the body of a worked solution, as it would stand in the cell; AllkitError without the solutions."""
    file = next((ROOT / "notebooks" / "solutions").glob(f"{number[:2]}_*.py"), None)
    if file is None:
        raise AllkitError("The solutions are not in this copy of the course; ask whoever gave it to you.")
    text = file.read_text(encoding="utf-8")
    name = f"exercise_{number.replace('.', '_')}"
    found = next(node for node in ast.parse(text).body if getattr(node, "name", "") == name)
    lines = textwrap.dedent("\n".join(text.splitlines()[found.lineno : found.end_lineno]))
    return re.sub(r"^return ", "answer = ", lines, flags=re.MULTILINE)


def _full_number(number: str) -> str:
    """Return "02.3" for "2.3" as well."""
    match = re.fullmatch(r"\s*(\d{1,2})\.(\d+)\s*", number)
    return f"{int(match[1]):02d}.{int(match[2])}" if match else number.strip()


def _siblings(number: str) -> str:
    return ", ".join(key for key in EXERCISES if key.partition(".")[0] == number[:2]) or "none"


def progress_path() -> Path:
    """Return where progress is kept: progress.json beside the run folders."""
    return runs_root() / "progress.json"


def _noted(verdict: Verdict) -> Verdict:
    """Note a right or wrong answer; return the verdict, with a sentence more where that went wrong."""
    if verdict.state not in ("right", "wrong"):
        return verdict
    try:
        kept, moved = _read_progress()
        entry = kept.get(verdict.id, {"tries": 0, "first_try": verdict.state == "right", "begun": timestamp()})
        if entry.get("done"):  # solved is solved: running the notebook again changes nothing
            return verdict if verdict.state == "wrong" else _with(verdict, _how_many_done(verdict.id, kept))
        entry["tries"] += 1
        entry["done"] = timestamp() if verdict.state == "right" else None
        kept = dict(sorted((kept | {verdict.id: entry}).items()))
        save_json(progress_path(), {"format": FORMAT, "exercises": kept})
        more = _how_many_done(verdict.id, kept)
        if verdict.state == "wrong":
            shows = f'`from allkit.course import solution`, then `solution("{verdict.id}")` shows one way.'
            more = f"{shows if entry['tries'] >= TRIES else ''} {_keep_answer(verdict)}".strip()
        return _with(verdict, f"{more} ({moved})" if moved else more)
    except (AllkitError, OSError) as error:
        return _with(verdict, f"(Progress was not noted: {error})")


def _with(verdict: Verdict, more: str) -> Verdict:
    return replace(verdict, text=f"{verdict.text} {more}".strip())


def answers_path() -> Path:
    """Return where wrong answers are kept, if they are: the file is there as long as that is switched on."""
    return runs_root() / "answers.json"


def keep_answers(wanted: bool) -> str:
    """Keep wrong answers from now on, or delete those that were kept; return a sentence that says so."""
    path = answers_path()
    if wanted:
        if not path.exists():
            save_json(path, {"format": FORMAT, "answers": {}})
        return (
            f"From now on your wrong answers are kept, as texts of at most {ANSWER_LENGTH} characters, in {path}. They "
            "stay on this machine until you hand them to somebody; `allkit progress --answers off` deletes them."
        )
    there = path.exists()
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise AllkitError(f"{path} could not be deleted ({error.strerror}); delete it yourself.") from error
    return f"Answers are not kept; {f'{path} was deleted' if there else 'there were none'}."


def _keep_answer(verdict: Verdict) -> str:
    """Note a wrong answer where the student switched that on; return a sentence if that went wrong."""
    path = answers_path()
    if not path.exists():
        return ""
    try:
        answers = read_json(path)["answers"]
        of_exercise = [*answers.get(verdict.id, []), verdict.answer][:MOST_ANSWERS]
        save_json(path, {"format": FORMAT, "answers": dict(sorted((answers | {verdict.id: of_exercise}).items()))})
    except (AllkitError, AttributeError, KeyError, TypeError):
        return (
            f"(The answer was not kept: {path} is damaged or cannot be written; see `allkit progress --answers off`.)"
        )
    return ""


def _how_many_done(number: str, kept: dict[str, dict[str, Any]]) -> str:
    siblings = [key for key in EXERCISES if key.partition(".")[0] == number[:2]]
    done = sum(bool(kept.get(key, {}).get("done")) for key in siblings)
    return f"{done} of {len(siblings)} done." if done < len(siblings) else f"All {done} of this notebook are done."


def _read_progress() -> tuple[dict[str, dict[str, Any]], str]:
    """Return the entries of progress.json, and a sentence if it was unreadable and had to be moved aside."""
    path = progress_path()
    if not path.exists():
        return {}, ""
    try:
        content = read_json(path)
        entries = content.get("exercises")
        if content.get("format") == FORMAT and isinstance(entries, dict) and all(map(_is_entry, entries.values())):
            return entries, ""
    except AllkitError:
        pass
    aside = path.with_name(f"progress-unreadable-{re.sub(r'[^0-9]', '', timestamp())}.json")
    path.rename(aside)
    return {}, f"The file of your progress could not be read and was moved to {aside}; counting starts anew."


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("tries"), int) and {"first_try", "begun"} <= set(entry)


def load_progress() -> tuple[pd.DataFrame, str]:
    """Return one row per exercise, and a sentence if what was kept could not be read ("" otherwise).

    Columns: exercise ("02.3"), notebook ("02"), level, tries (count), first_try (whether the first try was right; None
    before one), done (whether it is solved), begun and solved (UTC, ISO 8601, or None).
    """
    kept, moved = _read_progress()
    rows = [
        {
            "exercise": number,
            "notebook": exercise.notebook,
            "level": exercise.level,
            "tries": kept.get(number, {}).get("tries", 0),
            "first_try": kept.get(number, {}).get("first_try"),
            "done": bool(kept.get(number, {}).get("done")),
            "begun": kept.get(number, {}).get("begun"),
            "solved": kept.get(number, {}).get("done"),
        }
        for number, exercise in EXERCISES.items()
    ]
    return pd.DataFrame(rows).astype({"first_try": object}), moved


def summarise_progress(progress: pd.DataFrame) -> pd.DataFrame:
    """Return one row per notebook from `load_progress`: exercises, tried, done, first_try (counts), tries (sum)."""
    marked = progress.assign(tried=progress["tries"] > 0, first_try=progress["first_try"].eq(True))
    return marked.groupby("notebook").agg(
        exercises=("exercise", "size"),
        tried=("tried", "sum"),
        done=("done", "sum"),
        first_try=("first_try", "sum"),
        tries=("tries", "sum"),
    )
