"""Checks, book and slides, for those who change the kit: without `make` or a shell, from any folder.

Nothing heavy is imported here: every tool runs in a process of its own, with this Python.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from allkit import ROOT, AllkitError

TEST_RUNS = ROOT / "build" / "test-runs"
"""Run folders of the tests, apart from runs/, so that tests never touch a user's results."""

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "ALLKIT_HEADLESS": "1"}
"""Environment that keeps library chatter out of the outputs."""

_IMPORTS = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
_NBVAL = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=1800", "--durations=6")

CHECKS = {
    "lint": (("-m", "ruff", "check", "."), ("-m", "ruff", "format", "--check", "."), ("-c", _IMPORTS, "--no-logo")),
    "notebooks": (("-m", "pytest", *_NBVAL, "--ignore=notebooks/extra", "notebooks"),),
    "units": (("-m", "pytest", "--durations=10"),),
}
"""What is checked, in order, and the words after `python` of each step; the units use the notebooks' models."""


def run_checks(only: str = "") -> int:
    """Run all checks in the clone, or one of them; return 0, or the exit code of the first step that failed."""
    require_packages("dev")
    environment = {
        "lint": {},
        "notebooks": QUIET | {"ALLKIT_RUNS": str(TEST_RUNS)},
        "units": QUIET | {"ALLKIT_TEST_RUN": str(TEST_RUNS / "latest")},
    }
    for name in [only] if only else CHECKS:
        if name == "notebooks":
            shutil.rmtree(TEST_RUNS, ignore_errors=True)
        for words in CHECKS[name]:
            # as on Linux, text is UTF-8 between the processes of a test on Windows as well
            variables = os.environ | {"PYTHONUTF8": "1"} | environment[name]
            if code := subprocess.run([sys.executable, *words], cwd=ROOT, env=variables, check=False).returncode:
                return code
    return 0


def run_script(script: str, *words: str, extra: str = "") -> int:
    """Run a script of docs/ from the present folder; return its exit code."""
    if extra:
        require_packages(extra)
    command = [sys.executable, str(ROOT / "docs" / script), *words]
    return subprocess.run(command, env=os.environ | QUIET, check=False).returncode


def require_packages(extra: str) -> None:
    """Raise an AllkitError that says what to install, where a package of an extra ("dev", "book") is missing."""
    wanted = [re.match(r"[\w.-]+", line)[0] for line in requires("allkit") or [] if f'extra == "{extra}"' in line]
    missing = [name for name in wanted if not _is_installed(name)]
    if missing:
        advice = f'in the folder {ROOT} say `pip install -e ".[dev,book]"`'
        raise AllkitError(f"not installed: {', '.join(missing)}; {advice}, and try again.")


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False
