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
    """Time several ways of doing a thing, in turn; return median and quartiles in milliseconds."""
    for way in ways.values():
        way()
    rows = []
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            rows.append((name, 1000 * (time.perf_counter() - start)))
    spread = pd.DataFrame(rows, columns=["way", "ms"]).groupby("way", sort=False)["ms"]
    return spread.quantile([0.25, 0.5, 0.75]).unstack().set_axis(["lower quartile", "median", "upper quartile"], axis=1)


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
