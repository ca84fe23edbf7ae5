"""The exercises of the notebooks, as data: what is right, which mistakes get which hint.

How to add one: see `allkit.course.exercises`. The questions in words stand in the notebooks. Nothing here may hold for
the synthetic twin alone: what depends on the data is computed from the notebook's own objects.
"""

from __future__ import annotations

from allkit.course.grading import Exercise
from allkit.course.questions import (
    audit,
    classification,
    comparison,
    efficientnet,
    exploration,
    leakage,
    learning,
    mobilenet,
    own_hospital,
    paper,
    person,
    predictions,
    referee,
    rotation,
    saliency,
    shift,
    start,
    tuning,
    uncertainty,
)

_NOTEBOOKS = (
    start,
    exploration,
    rotation,
    learning,
    mobilenet,
    efficientnet,
    comparison,
    classification,
    paper,
    leakage,
    uncertainty,
    saliency,
    tuning,
    person,
    shift,
    referee,
    audit,
    predictions,
    own_hospital,
)

EXERCISES: dict[str, Exercise] = {exercise.id: exercise for notebook in _NOTEBOOKS for exercise in notebook.EXERCISES}
"""All exercises by number, in the order of the notebooks."""
