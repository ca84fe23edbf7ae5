"""The machinery of the course: exercises, running the notebooks, reports, checks of data and set-up."""

from allkit.course.exercises import check, solution

__all__ = ["check", "solution"]
