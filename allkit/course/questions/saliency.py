"""The exercises of notebook 11."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from allkit.augment import plant_shortcut
from allkit.course.grading import Exercise
from allkit.course.questions.common import explain


def _map_score(scores: pd.DataFrame, method: str, column: str = "pointing", mask: str = "cell") -> float:
    return scores[(scores["mask"] == mask) & (scores["method"] == method)][column].mean()


def _no_outlines(scores: pd.DataFrame) -> str:
    return "" if "method" in scores else "the outlines of the cells are not known, so no map can be scored."


def _marked(train: pd.DataFrame, target: str, share: float, *, of_class: bool = False) -> float:
    """Return the share of training images, or of those of the class, that are marked."""
    marked = plant_shortcut(train, [target], share=share, seed=1)
    rows = marked[marked["label"] == target] if of_class else marked
    return float((rows["augmentation"] != "").mean())


def _fall(name: str, to: str) -> Callable[..., float]:
    return lambda reached: reached[name]["mark as in training"] - reached[name][to]


EXERCISES = (
    Exercise(
        id="11.1",
        level="look",
        kind="share",
        given=("scores",),
        unless=_no_outlines,
        tolerance=0.006,
        truth=lambda scores: _map_score(scores, "centre blob", "overlap"),
        mistakes=(
            (lambda scores: _map_score(scores, "random map", "overlap"), "That is the random map."),
            (lambda scores: _map_score(scores, "centre blob"), "That is how often it points inside. Read `overlap`."),
            (
                lambda scores: _map_score(scores, "centre blob", "overlap", mask="nucleus"),
                "That is its overlap with the nucleus. Take the rows whose mask is the cell.",
            ),
            (
                lambda scores: scores.loc[scores["method"] == "centre blob", "overlap"].mean(),
                "The rows of two masks, cell and nucleus, are mixed in this mean.",
            ),
        ),
        why="And it knows nothing of the image. This is the number that a network's map has to beat.",
        hint="Which mask, which method, which column?",
        more="In `scores`: the rows with mask cell and method centre blob, mean of the column `overlap`.",
        misconception="saliency as proof",
    ),
    Exercise(
        id="11.2",
        level="compute",
        kind="number",
        given=("reached",),
        tolerance=0.006,
        truth=_fall("trained with the mark", "mark on the others"),
        mistakes=(
            (_fall("trained with the mark", "no mark"), "That is the fall when the mark is taken away. Move it."),
            (_fall("trained without", "mark on the others"), "That is the network that never saw a mark."),
            (
                lambda reached: -_fall("trained with the mark", "mark on the others")(reached),
                "The right size. Give how much is *lost*: before minus after.",
            ),
        ),
        why="No cell was changed, only a corner. That part of the answers came from the mark.",
        hint="The cells stay the same. What changes from the first row to the last?",
        more="Take the column of the network trained with the mark: first row minus last row.",
    ),
    Exercise(
        id="11.3",
        level="change",
        kind="share",
        given=("parts", "target"),
        tolerance=0.004,
        truth=lambda parts, target: _marked(parts.train, target, 0.5),
        mistakes=(
            (lambda parts, target: _marked(parts.train, target, 0.9), "That is with the share 0.9. Pass `share=0.5`."),
            (
                lambda parts, target: _marked(parts.train, target, 0.5, of_class=True),
                "That is the share of the class. Count all training images.",
            ),
            (0.5, "Half of the *class*, about. What share of all training images is that?"),
        ),
        why="A mark on a fraction of the images is enough for a network to lean on it; set it and train again.",
        hint="`plant_shortcut` says in the column `augmentation` which images it marks.",
        more="`saliency.plant_shortcut(parts.train, [target], share=0.5, seed=1)`, then the share of rows with a mark.",
    ),
    explain(
        "11.4",
        "d",
        "Change what you suspect, and see whether the answer changes. That is an experiment; a map is a picture.",
        misconception="saliency as proof",
        a="A blob in the centre lies on the nucleus, too, and has never seen a cell.",
        b="Places of a coarse map overlap: what was found in a corner may be shown elsewhere.",
        c="Agreement of two maps says how alike the methods are. Both may miss the same thing.",
    ),
)
