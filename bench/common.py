"""What the benchmarks share: timing several ways in turn, and writing the results down."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
SMALL = "--small" in sys.argv
MACHINE = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def measure(ways: dict[str, Callable[[], object]], repeats: int) -> pd.DataFrame:
    """Time several ways of doing a thing, in turn; return milliseconds, a row for each round, a column for each way."""
    for way in ways.values():
        way()
    rounds = []
    for _ in range(repeats):
        times = {}
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name] = 1000 * (time.perf_counter() - start)
        rounds.append(times)
    return pd.DataFrame(rounds)


def spread(rounds: pd.DataFrame, digits: int = 2) -> dict[str, dict[str, float]]:
    """Return median and quartiles of each way."""
    found = rounds.quantile([0.25, 0.5, 0.75]).set_axis(["lower quartile", "median", "upper quartile"])
    return found.round(digits).to_dict()


def ratios(rounds: pd.DataFrame, to: pd.Series) -> dict[str, float]:
    """Return how long each way took as a multiple of `to`: the median over rounds, so that slow minutes cancel."""
    return rounds.div(to, axis=0).median().round(3).to_dict()


def save(name: str, result: dict) -> None:
    """Print a result as a table and write it to bench/<name>.json; a small run never replaces the full one."""
    result = {"machine": MACHINE, "mode": "small" if SMALL else "full"} | result
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (HERE / f"{name}{'-small' if SMALL else ''}.json").write_text(text + "\n")
    rows = dict(flatten(result))
    width = max(map(len, rows))
    print("\n".join(f"{what:{width}}  {value}" for what, value in rows.items()), flush=True)


def flatten(result: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield (what, value) of nested dictionaries and of lists of them; a list of numbers is one value."""
    if isinstance(result, dict):
        for key, value in result.items():
            yield from flatten(value, f"{path} · {key}" if path else str(key))
    elif isinstance(result, list) and result and isinstance(result[0], dict):
        for number, value in enumerate(result, 1):
            first, *_ = value.values()
            yield from flatten(value, f"{path} · {first}" if isinstance(first, str) else f"{path} · {number}")
    else:
        yield path, result
