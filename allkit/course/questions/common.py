"""What the exercises of several notebooks use."""

from __future__ import annotations

import pandas as pd

from allkit.course.grading import Exercise


def share_of_largest(rows: pd.DataFrame) -> float:
    """Return the share of the most frequent class (0-1)."""
    return rows["label"].value_counts(normalize=True).max()


def explain(number: str, truth: str, why: str, *, misconception: str, **hints: str) -> Exercise:
    """Return a question whose answer is a letter; `hints` maps each wrong letter to what is wrong about it."""
    letters = sorted([truth, *hints])
    hint = f"The answer is one of the letters {letters[0]} to {letters[-1]}."
    mistakes = tuple(hints.items())
    return Exercise(number, "explain", "choice", truth, why, hint, mistakes, misconception=misconception)
