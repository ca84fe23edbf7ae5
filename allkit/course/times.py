"""How long each notebook takes to read and to run, and how fast this machine is beside the one of the measurement.

`python -m allkit.course.times RUN` writes the seconds of a finished run, and this machine's speed, to times.csv.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd

from allkit import ROOT, AllkitError, saving
from allkit.folders import read_json, run_path
from allkit.synthetic import draw_cell

FILE = ROOT / "notebooks" / "times.csv"

_SPEED = "one drawn cell"
"""Row of times.csv that holds the machine's speed."""


_MINUTES = {"an": 60, "half an": 30, "three quarters of an": 45, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
"""Words for minutes, or for parts of an hour, in the first cell of a notebook."""


def read_minutes() -> pd.Series:
    """Return how many minutes each notebook says it takes to read, by its number ("01")."""
    minutes = {}
    for path in sorted(FILE.parent.glob("[0-9][0-9]_*.ipynb")):
        text = " ".join(nbformat.read(path, as_version=4).cells[0].source.split())
        found = re.search(rf"about (\d+|{'|'.join(_MINUTES)}) (?:minutes|hour)\b", text)
        if not found:
            raise AllkitError(f"{path}: its first cell does not say how long it takes, as in `about forty minutes`.")
        minutes[path.name[:2]] = _MINUTES.get(found[1]) or int(found[1])
    return pd.Series(minutes, name="minutes to read, about").rename_axis("notebook")


def measure_speed(cells: int = 6) -> float:
    """Return the seconds that drawing one synthetic cell takes on this machine: the median of a few."""
    seconds = []
    for number in range(cells):
        start = time.perf_counter()
        draw_cell("ALL", subject="speed", number=number)
        seconds.append(time.perf_counter() - start)
    return float(pd.Series(seconds).median())


def promise_minutes() -> pd.Series:
    """Return how many minutes each notebook will run on this machine, about, by its number ("01")."""
    known = pd.read_csv(FILE, dtype={"notebook": str}).set_index("notebook")["seconds"]
    factor = measure_speed() / known[_SPEED]
    return (known.drop(_SPEED) * factor / 60).rename("minutes to run, about")


def run_seconds(run: Path) -> dict[str, float]:
    """Return the seconds that each finished notebook of a run took, by its name; empty without a complete record."""
    try:
        record = read_json(run / "notebooks.json")["notebooks"]
        return {name: float(entry["seconds"]) for name, entry in record.items() if entry.get("status") == "done"}
    except (OSError, AllkitError, ValueError, KeyError, AttributeError):
        return {}


def save_times(run: Path) -> None:
    """Write the seconds of a finished run of all notebooks, and the speed of this machine."""
    seconds = {name[:2]: value for name, value in run_seconds(run).items()}
    if not seconds:
        raise AllkitError(f"{run} has no finished notebook; `allkit run` makes one.")
    table = pd.Series({_SPEED: round(measure_speed(), 4), **seconds}, name="seconds")
    with saving(FILE) as temporary:
        table.rename_axis("notebook").to_csv(temporary)


if __name__ == "__main__":
    save_times(run_path(sys.argv[1] if len(sys.argv) > 1 else "latest"))
