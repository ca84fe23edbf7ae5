"""The exercises of notebook 05."""

from __future__ import annotations

from allkit.course.grading import Exercise
from allkit.course.questions.common import explain

EXERCISES = (
    Exercise(
        id="05.1",
        level="look",
        kind="number",
        given=("stages", "small"),
        tolerance=0.06,
        truth=lambda stages, small: stages["parameters"].sum() / small["parameters"].sum(),
        mistakes=(
            (
                lambda stages, small: stages["multiply_adds"].sum() / small["multiply_adds"].sum(),
                "That is the ratio of the work. Parameters are the numbers that are stored.",
            ),
            (
                lambda stages, small: small["parameters"].sum() / stages["parameters"].sum(),
                "Upside down: how many times as *many*?",
            ),
            (
                lambda stages, small: stages["layers"].sum() / small["layers"].sum(),
                "That is the ratio of the layers. Take the column `parameters`.",
            ),
        ),
        why="More parameters allow more rules, and for learning more cells by heart.",
        hint="The question is about what is stored, in all stages together.",
        more="Divide the sums of the column `parameters` of `stages` and `small`.",
    ),
    Exercise(
        id="05.2",
        level="compute",
        kind="list",
        tolerance=0.01,
        truth=(4, 10),
        mistakes=(
            ((10, 4), "Right numbers, other order: the average comes first."),
            ((16, 10), "The first is the sum. The average divides it by the number of places."),
        ),
        why="The maximum keeps the one strongest place; the average says how much of the image speaks for the feature.",
        hint="How many numbers does the map hold, and what does each pooling make of them?",
        more="Average and maximum over all four places of the map.",
    ),
    Exercise(
        id="05.3",
        level="compute",
        kind="number",
        tolerance=0.01,
        truth=15.0,
        mistakes=(
            (1 / 15, "Upside down: each cell of the second has to count *more*."),
            (280.0, "That is how many cells more the first has. How many times as many?"),
            (1.0, "That counts every cell alike: then the first subject decides."),
        ),
        why="300 cells that count one each weigh as much as 20 that count 15 each.",
        hint="How much do all cells of a subject weigh together?",
        more="300 · 1 = 20 · ?",
    ),
    Exercise(
        id="05.4",
        level="change",
        kind="number",
        tolerance=0.0002,
        truth=1 / 255,
        mistakes=(
            (1.0, "That is what you feed in. The network divides by 255 once more."),
            (255.0, "That is a pixel of the file. It is divided twice on its way."),
            (0.5, "Divide twice: 255 / 255 / 255."),
        ),
        why="All images turn almost black, nothing fails, and no message appears. Such mistakes are found by looking.",
        hint="How often is the pixel divided on its way?",
        more="Divide 255 by 255, as the careless colleague does, and then once more, as the network does.",
    ),
    explain(
        "05.5",
        "b",
        "The loss is answers plus penalty, and the penalty can shrink without one better answer.",
        misconception="a falling loss as proof of better answers",
        a="A network may grow surer of the same answers, but hardly by so much without one more being right.",
        c="Learning by heart looks otherwise: the training loss falls, and the validation loss does not.",
        d="A learning rate changes how fast a loss falls, not what it is made of.",
    ),
)
