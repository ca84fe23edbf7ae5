"""Handing in what was found in a hospital of one's own (notebook 18): three answers, and a key in place of the name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from allkit import runs_root
from allkit.course.grading import ANSWER_LENGTH, is_blank
from allkit.folders import save_json
from allkit.synthetic.hospital import Hospital

FORMAT = 1
"""Version of the layout of hospital.json."""

GRADED = ("18.1", "18.2", "18.3")
"""Exercises whose answers depend on the hospital."""


class HandIn(BaseModel):
    """What hospital.json holds: the key of the hospital, and the answers as texts."""

    hospital: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    answers: dict[str, Annotated[str, Field(max_length=ANSWER_LENGTH)]]


def hand_in_path() -> Path:
    """Return where the answers lie that are to be handed in: hospital.json beside the run folders."""
    return runs_root() / "hospital.json"


def write_hand_in(hospital: Hospital, answers: Mapping[str, Any]) -> str:
    """Write the answers to `GRADED` into the file that is to be handed in; return a sentence about it."""
    given = {number: str(answers[number]).strip() for number in GRADED if not is_blank(answers.get(number, ...))}
    if not hospital.own:
        return "These cells are not a hospital's that was drawn for a name, so there is nothing to hand in."
    if not given:
        return "Nothing is answered yet, so no file was written. Answer the exercises, then run this cell again."
    long = [number for number, text in given.items() if len(text) > ANSWER_LENGTH]
    if long:
        return f"The answer to {long[0]} has more than {ANSWER_LENGTH} characters; no file was written."
    content = {"format": FORMAT, "hospital": hospital.key, "answers": given}
    save_json(hand_in_path(), content)
    missing = [number for number in GRADED if number not in given]
    more = f" Not answered yet: {', '.join(missing)}." if missing else ""
    return f"Hand in `{hand_in_path().name}`, which lies beside `progress.json`; your name is not in it.{more}"
