"""Grading what was handed in from hospitals (notebook 18): each is drawn again, and its answers are computed again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from allkit import AllkitError, cache_folder
from allkit.classical import row_keys
from allkit.course.grading import is_blank, judge
from allkit.course.hand_in import GRADED, HandIn
from allkit.course.questions import EXERCISES
from allkit.data import load_index
from allkit.features import measure_cell
from allkit.folders import read_json, save_json, to_plain
from allkit.images import in_threads, read_image, to_common_size
from allkit.lessons import own_hospital
from allkit.progress import track
from allkit.synthetic.cells import VERSION
from allkit.synthetic.hospital import RULES, draw_hospital, hospital_of, key_of

_NUMBERS = [number for number in GRADED if EXERCISES[number].kind == "number"]


def compute_again(key: str) -> dict[str, Any]:
    """Return what `check` is handed in the hospital of a key: found, predictions, hospital; kept in the cache."""
    file = cache_folder() / "hospitals" / f"{key}-{RULES}-{VERSION}.json"
    try:
        kept = read_json(file)
    except AllkitError:
        kept = to_plain(_compute(key))
        save_json(file, kept)
    tables = {name: pd.DataFrame(kept[name]) for name in ("found", "predictions")}
    return {**tables, "hospital": hospital_of(key)}


def _compute(key: str) -> dict[str, list]:
    with tempfile.TemporaryDirectory(prefix="allkit-hospital-") as temporary:
        index = load_index(draw_hospital(key, Path(temporary) / "hospital"))
        second = own_hospital.choose_wards(index)[1]
        # not through the cache of measurements: these files are gone in a moment
        measured = list(in_threads(lambda path: measure_cell(to_common_size(read_image(path))), second["path"]))
        numbers = pd.DataFrame(measured, index=row_keys(second))
        found = own_hospital.compare_splits(second, numbers)
        predictions = own_hospital.predict_unseen(second, numbers)
    return {"found": found.to_dict("records"), "predictions": predictions.drop(columns="path").to_dict("records")}


def grade_all(handed_in: Mapping[str, HandIn]) -> pd.DataFrame:
    """Return one row per student: hospital, the verdict on each of `GRADED`, and a remark; by computing it all again.

    "right", "wrong" or "no answer". The remark says who handed in the same hospital, whose hospital both numbers
    fit where they do not fit the student's own, and whether the hospital is that of the student's name.
    """
    keys = list(dict.fromkeys(each.hospital for each in handed_in.values()))
    truths = {key: compute_again(key) for key in track(keys, "computing hospitals again", unit="hospital")}
    owners: dict[str, list[str]] = {}
    for student, each in handed_in.items():
        owners.setdefault(each.hospital, []).append(student)
    rows = []
    for student, each in handed_in.items():
        verdicts = {number: _verdict(number, each, truths[each.hospital]) for number in GRADED}
        remark = " ".join(_remarks(student, each, verdicts, truths, owners))
        rows.append({"student": student, "hospital": each.hospital, **verdicts, "remark": remark})
    return pd.DataFrame(rows, columns=["student", "hospital", *GRADED, "remark"])


def _verdict(number: str, each: HandIn, truth: Mapping[str, Any]) -> str:
    answer = each.answers.get(number, "")
    if is_blank(answer):
        return "no answer"
    state = judge(EXERCISES[number], answer, truth).state
    return "right" if state == "right" else "wrong"


def _remarks(
    student: str, each: HandIn, verdicts: Mapping[str, str], truths: Mapping[str, dict], owners: Mapping[str, list[str]]
) -> Iterator[str]:
    others = [name for name in owners[each.hospital] if name != student]
    if others:
        yield f"The same hospital as {', '.join(others)}."
    if all(verdicts[number] == "wrong" for number in _NUMBERS):
        fits = [
            ", ".join(owners[key])
            for key, truth in truths.items()
            if key != each.hospital and all(_verdict(number, each, truth) == "right" for number in _NUMBERS)
        ]
        if fits:
            yield f"Both numbers are those of the hospital of {'; '.join(fits)}."
    if not _fits_name(each.hospital, student):
        yield "The hospital is that of another name, or of another spelling of this one."


def _fits_name(key: str, student: str) -> bool:
    try:
        return key_of(student) == key
    except AllkitError:
        return False
