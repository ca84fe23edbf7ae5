"""What the benchmarks share: timing several ways in turn, and writing the results down."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
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
    """Print a result and write it to bench/<name>.json; a small run never replaces the full one."""
    text = json.dumps({"machine": MACHINE, "mode": "small" if SMALL else "full"} | result, indent=1, ensure_ascii=False)
    (HERE / f"{name}{'-small' if SMALL else ''}.json").write_text(text + "\n")
    print(text)
