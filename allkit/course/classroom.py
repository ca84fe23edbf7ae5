"""A class: the progress files that students hand in become one table and one page; nothing leaves the machine."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from string import ascii_lowercase
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from allkit import AllkitError, printable, saving
from allkit.course.exercises import FORMAT, MOST_ANSWERS
from allkit.course.grading import ANSWER_LENGTH, judge
from allkit.course.hand_in import FORMAT as HOSPITAL_FORMAT
from allkit.course.hand_in import HandIn
from allkit.course.offline import TEMPLATES
from allkit.course.questions import EXERCISES
from allkit.course.quiz import load_bank
from allkit.course.reader_study import LOOKS_IN_FILE, evaluate_class, show_class
from allkit.evaluate import FEWEST_UNITS
from allkit.images import first_of
from allkit.lists import as_text_cells, read_table

MOST_BYTES = 1_000_000
"""Larger files are no progress files; those of one student take some ten thousand."""


class _Entry(BaseModel):
    """What is kept of one exercise that was tried."""

    tries: Annotated[int, Field(ge=1, le=1_000_000)]
    first_try: bool
    begun: datetime | None
    done: datetime | None


_PROGRESS = TypeAdapter(dict[str, _Entry])
_Answer = Annotated[str, Field(max_length=ANSWER_LENGTH)]
_ANSWERS = TypeAdapter(dict[str, Annotated[list[_Answer], Field(max_length=MOST_ANSWERS)]])


@dataclass
class Classroom:
    """What was handed in, by student; `notes` are sentences.

    Progress, the wrong answers of those who kept them, what those answered who saved their game, and what they found in
    their hospital (notebook 18), with the verdicts once it is graded.
    """

    progress: dict[str, dict[str, _Entry]] = field(default_factory=dict)
    answers: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    readers: dict[str, dict[str, list]] = field(default_factory=dict)
    hospitals: dict[str, HandIn] = field(default_factory=dict)
    graded: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)


# Reading


def load_classroom(folder: Path, names: Path | None = None, ignore: Collection[Path] = ()) -> Classroom:
    """Return what the files of a folder, and of the folders in it, say; a file that cannot be used is a note.

    A student is called as the folder inside `folder`, or else the file, is; `names` is a CSV with the columns file and
    name that says otherwise. Raises AllkitError when there is no usable file.
    """
    if not folder.is_dir():
        raise AllkitError(f"{folder} is no folder; name the one with the files that students handed in.")
    chosen = _read_names(names) if names else {}
    ignored = {path.resolve() for path in (*ignore, *filter(None, [names]))}
    room, used, sources = Classroom(), set(), {}
    for path in _files_in(folder):
        if path.resolve() in ignored:
            continue
        shown = _clean(path.relative_to(folder).as_posix())
        try:
            kind, content = _read_file(path)
        except AllkitError as error:
            room.notes.append(f"{shown} was left out: {error}")
            continue
        student = _student_of(path.relative_to(folder), chosen, used)
        if isinstance(content, HandIn):
            _add_hospital(room, student, shown, content)
        else:
            _add(room, sources, student, shown, kind, content)
    unused = [_clean(name) for name in chosen if name not in used]
    if unused:
        room.notes.append(f"The list of names has lines that fit no usable file: {first_of(unused)}.")
    if not (room.progress or room.readers or room.hospitals):
        why = f" {first_of(room.notes, 5)}" if room.notes else " It holds no file."
        raise AllkitError(f"{folder}: there is no file that can be used.{why}")
    for student in (*room.readers, *room.hospitals):
        room.progress.setdefault(student, {})
    return room


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield everything that is no folder, in order; links are not followed."""
    for where, folders, files in os.walk(folder):
        folders.sort()
        linked = [name for name in folders if Path(where, name).is_symlink()]
        yield from (Path(where, name) for name in sorted([*files, *linked]))


def _read_names(path: Path) -> dict[str, str]:
    table = read_table(path, required=("file", "name"))
    return {row["file"].replace("\\", "/"): row["name"] for row in table.to_dict("records") if row["name"]}


def _student_of(relative: Path, chosen: Mapping[str, str], used: set[str]) -> str:
    """Return the name chosen for the path, the folder or the file; else that of the folder or the file."""
    parts = relative.parts
    for key in (relative.as_posix(), parts[0], relative.name):
        if key in chosen:
            used.add(key)
            return _clean(chosen[key])
    bare = re.sub(r"[-_. ]*(progress|answers|reader-study|hospital)$", "", relative.stem, flags=re.IGNORECASE)
    return _clean(parts[0] if len(parts) > 1 else bare or relative.stem)


def _clean(name: str, longest: int = 80) -> str:
    """Return a name on one line, without what would steer a terminal or turn the direction of writing."""
    return printable(" ".join(unicodedata.normalize("NFC", name).split()))[:longest]


def _read_file(path: Path) -> tuple[str, dict[str, Any] | HandIn]:
    """Return the kind of a file, and what it holds; AllkitError with the reason why it cannot be used.

    "progress" and "answers" come by exercise, "readers" by round of the game, "hospital" as it was handed in.
    """
    if path.is_symlink() or not path.is_file():
        raise AllkitError("it is a link or no ordinary file.")
    if path.suffix.lower() not in (".json", ".csv"):
        raise AllkitError("it is neither JSON nor CSV.")
    if path.stat().st_size > MOST_BYTES:
        raise AllkitError(f"it has more than {MOST_BYTES:,} bytes, so it is no file of progress.")
    try:
        content = _read_csv(path) if path.suffix.lower() == ".csv" else _read_json(path)
        if "hospital" in content:
            return "hospital", HandIn.model_validate(content)
        if "answers" in content:
            return "answers", _ANSWERS.validate_python(content["answers"])
        if "looks" in content:
            return "readers", LOOKS_IN_FILE.validate_python(content["looks"])
        return "progress", _PROGRESS.validate_python(content["exercises"])
    except ValidationError as error:
        first = error.errors()[0]
        where = _clean(" ".join(map(str, first["loc"])))
        raise AllkitError(f"its contents are not as allkit writes them ({where}: {first['msg']}).") from error
    except (OSError, ValueError, RecursionError) as error:
        raise AllkitError(f"it cannot be read ({_clean(str(error), 200)}).") from error


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file that students hand in, or in what `allkit progress --json` prints."""
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict) or not {"exercises", "answers", "looks"} & set(content):
        raise AllkitError("it is JSON, but none of the files that students hand in.")
    if isinstance(content.get("exercises"), list):
        return {"exercises": _from_rows(content["exercises"])}
    if content.get("format") != (HOSPITAL_FORMAT if "hospital" in content else FORMAT):
        raise AllkitError("it was written by another version of allkit.")
    return content


def _read_csv(path: Path) -> dict[str, Any]:
    columns = ("exercise", "tries", "first_try", "begun", "solved")
    try:
        return {"exercises": _from_rows(read_table(path, required=columns).to_dict("records"))}
    except AllkitError as error:
        raise AllkitError(
            f"it is not what `allkit progress --csv` writes ({_clean(str(error).removeprefix(str(path)), 200)})."
        ) from error


def _from_rows(rows: list[Any]) -> dict[str, Any]:
    """Return the rows of a table of progress as progress.json has them."""
    if not all(isinstance(row, dict) for row in rows):
        raise AllkitError("its rows are no rows of progress.")
    read = [{key: None if value == "" else value for key, value in row.items()} for row in rows]
    return {
        str(row.get("exercise")): {**row, "done": row.get("solved")} for row in read if row.get("tries") not in ("0", 0)
    }


def _add(room: Classroom, sources: dict, student: str, shown: str, kind: str, content: dict[str, Any]) -> None:
    """Put the contents of a file into the room; say what is doubled, and what is unknown."""
    if kind == "readers":
        return _keep(room.readers, room, sources, student, shown, kind, content)
    unknown = sorted(set(content) - set(EXERCISES))
    if unknown:
        room.notes.append(
            f"{shown}: exercises that this version does not have were left out: {_clean(first_of(unknown))}."
        )
    content = {number: content[number] for number in EXERCISES if number in content}
    kept = room.progress if kind == "progress" else room.answers
    for other, there in kept.items():
        if kind == "progress" and content and there == content:
            room.notes.append(
                f"{shown} and {sources[kind, other]} hold the same progress: handed in twice, or copied; both count."
            )
    return _keep(kept, room, sources, student, shown, kind, content)


def _keep(kept: dict, room: Classroom, sources: dict, student: str, shown: str, kind: str, content: dict) -> None:
    """Keep what a file holds, or the fuller of two files of a student."""
    if student in kept:
        first, second = sources[kind, student], shown
        larger = _size(content) > _size(kept[student])
        used = second if larger else first
        room.notes.append(
            f"Two files of {kind} are called {student}: {first} and {second}. {used} counts, it holds more."
        )
        if not larger:
            return
    kept[student], sources[kind, student] = content, shown


def _add_hospital(room: Classroom, student: str, shown: str, content: HandIn) -> None:
    """Put what was handed in from a hospital into the room; the file with more answers counts."""
    there = room.hospitals.get(student)
    if there:
        room.notes.append(f"Two files of a hospital are called {student}; the one with more answers counts ({shown}).")
    if there is None or len(content.answers) > len(there.answers):
        room.hospitals[student] = content


def _size(content: Mapping[str, Any]) -> tuple[int, int]:
    """Return how much a file holds: exercises, and tries or answers."""
    return len(content), sum(entry.tries if isinstance(entry, _Entry) else len(entry) for entry in content.values())


# Tables


def tabulate_class(room: Classroom) -> pd.DataFrame:
    """Return one row per student and exercise: solved, tries, first_try, begun, solved_at, wrong_answers.

    Times are UTC, ISO 8601; `wrong_answers` is empty where none were handed in.
    """
    rows = []
    for student, entries in sorted(room.progress.items(), key=lambda pair: pair[0].casefold()):
        for number, exercise in EXERCISES.items():
            entry = entries.get(number)
            rows.append(
                {
                    "student": student,
                    "notebook": exercise.notebook,
                    "exercise": number,
                    "level": exercise.level,
                    "solved": bool(entry and entry.done),
                    "tries": entry.tries if entry else 0,
                    "first_try": entry.first_try if entry else None,
                    "begun": entry.begun.isoformat() if entry and entry.begun else "",
                    "solved_at": entry.done.isoformat() if entry and entry.done else "",
                    "wrong_answers": " | ".join(room.answers.get(student, {}).get(number, [])),
                }
            )
    return pd.DataFrame(rows).astype({"first_try": object})


def summarise_exercises(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per exercise, the least solved first: solved, tried, stuck and first (students), tries (mean)."""
    tried = table["tries"] > 0
    marked = table.assign(
        tried=tried,
        stuck=tried & ~table["solved"],
        first=table["first_try"].eq(True),
        tries=table["tries"].where(tried),
    )
    found = marked.groupby("exercise", sort=False).agg(
        level=("level", "first"),
        solved=("solved", "sum"),
        tried=("tried", "sum"),
        stuck=("stuck", "sum"),
        first=("first", "sum"),
        tries=("tries", "mean"),
    )
    return found.sort_values(["solved", "stuck"], ascending=[True, False], kind="stable")


def describe_stop(exercises: pd.DataFrame) -> str:
    """Return a sentence on the exercise that most students tried and did not solve, from `summarise_exercises`."""
    if exercises["tried"].max() < FEWEST_UNITS:
        return f"Which exercise stops the class is inconclusive: none was tried by {FEWEST_UNITS} students or more."
    most = int(exercises["stuck"].max())
    if not most:
        return "No exercise stops the class: whoever tried one has solved it."
    worst = exercises[exercises["stuck"] == most].sort_index()
    if len(worst) > 1:
        return f"Exercises {', '.join(worst.index)} stop the class most: {most} tried each of them without solving it."
    next_one = exercises.drop(worst.index).sort_values("stuck", kind="stable").iloc[-1]
    return (
        f"Exercise {worst.index[0]} stops the class most: {most} of the {worst['tried'].iat[0]} who tried it have not "
        f"solved it. Next comes {next_one.name}, with {next_one['stuck']} of {next_one['tried']}."
    )


def common_answers(room: Classroom) -> pd.DataFrame:
    """Return wrong answers that two students or more gave: exercise, answer, meaning, hint, students (count).

    `meaning` is the text of a letter, `hint` what `check` says where that does not depend on the notebook.
    """
    rows = {(n, text, s) for s, kept in room.answers.items() for n, texts in kept.items() for text in texts}
    given = pd.DataFrame(sorted(rows), columns=["exercise", "answer", "student"])
    counts = given.groupby(["exercise", "answer"], as_index=False).agg(students=("student", "size"))
    counts = counts[counts["students"] > 1].sort_values(["students", "exercise"], ascending=[False, True])
    letters = {
        (question.name.split()[0], letter): choice.value
        for question in load_bank()
        if question.kind == "choice"
        for letter, choice in zip(ascii_lowercase, question.choices, strict=False)
    }
    pairs = list(zip(counts["exercise"], counts["answer"], strict=True))
    return counts.assign(meaning=[letters.get(pair, "") for pair in pairs], hint=[_hint_for(*pair) for pair in pairs])


def _hint_for(number: str, answer: str) -> str:
    exercise = EXERCISES[number]
    verdict = None if exercise.given else judge(exercise, answer, {})
    return verdict.text.removeprefix("Not yet. ") if verdict and verdict.state == "wrong" else ""


# Writing


def write_class(room: Classroom, out: Path) -> tuple[Path, Path]:
    """Write class.csv and class.html into a folder, and hospitals.csv where some are graded; return the first two."""
    table = tabulate_class(room)
    csv, page = out / "class.csv", out / "class.html"
    with saving(csv) as temporary:
        as_text_cells(table).to_csv(temporary, index=False)
    text = TEMPLATES.get_template("class.html.j2").render(**_facts(room, table))
    with saving(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if room.graded is not None:
        with saving(out / "hospitals.csv") as temporary:
            as_text_cells(room.graded).to_csv(temporary, index=False)
    return csv, page


def _facts(room: Classroom, table: pd.DataFrame) -> dict[str, Any]:
    """Return what the page shows."""
    exercises = summarise_exercises(table)
    solved = table.pivot_table(index="student", columns="notebook", values="solved", aggfunc="sum", sort=False)
    tried = table.pivot_table(index="student", columns="notebook", values="tries", aggfunc="sum", sort=False) > 0
    begun = table[table["begun"] != ""].sort_values("begun", kind="stable")
    by_student = table.groupby("student")["solved"].sum()
    return {
        "title": f"A class of {len(solved)}",
        "students": solved,
        "tried": tried,
        "sizes": table.drop_duplicates("exercise")["notebook"].value_counts(sort=False),
        "last": begun.groupby("student")["exercise"].last(),
        "exercises": exercises,
        "stop": describe_stop(exercises),
        "median": f"{by_student.median():g}",
        "idle": int((~tried.any(axis=1)).sum()),
        "answers": common_answers(room) if room.answers else None,
        "answering": len(room.answers),
        "readers": show_class(evaluate_class(room.readers)) if room.readers else None,
        "hospitals": None if room.graded is None else room.graded.drop(columns="hospital"),
        "notes": room.notes,
    }
