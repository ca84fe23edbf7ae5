"""The exercises of notebook 02."""

from __future__ import annotations

import numpy as np
import pandas as pd

from allkit.course.grading import Exercise, OneOf
from allkit.course.questions.common import explain
from allkit.splits import augment_then_split, count_leaked_copies


def _leaked(index: pd.DataFrame, seed: int, step: int = 1, column: str = "share") -> float:
    return count_leaked_copies(augment_then_split(index, seed=seed + step))[column].iloc[-1]


def _turned(i: float, j: float) -> tuple[float, float]:
    return 4 - j, i


EXERCISES = (
    Exercise(
        id="02.1",
        level="look",
        kind="set",
        truth=OneOf(((90, 180, 270), (np.pi / 2, np.pi, 3 * np.pi / 2))),
        mistakes=(
            ((90, 270), "Half a turn is exact as well: sine 0, cosine -1."),
            ((180,), "At quarter turns sine and cosine are whole numbers, too."),
            ((90, 180), "Turn by 90 degrees once more. Is anything lost?"),
            ((45, 90, 135, 180, 270), "At 45 degrees the next pixel lands 0.7 rows and 0.7 columns away."),
        ),
        why="Only where sine and cosine are -1, 0 or 1 do whole rows and columns land on whole ones.",
        hint="After which of these turns is every whole row and column whole again?",
        more="Look at sine and cosine of each angle: all pixels land on pixels only if both are whole numbers.",
    ),
    Exercise(
        id="02.2",
        level="compute",
        kind="function",
        truth=_turned,
        inputs=((0, 0), (0, 4), (1, 3), (2, 2), (3, 0)),
        mistakes=(
            (lambda i, j: (j, 4 - i), "That is -90 degrees, clockwise on the screen. Mind the sign of the sine."),
            (lambda i, j: (i, 4 - j), "That is a mirror image: a flip. In a quarter turn rows become columns."),
            (lambda i, j: (j, i), "That mirrors the image at its diagonal. Where does the top left pixel (0, 0) go?"),
            (lambda i, j: (-j, i), "Turned about the top left corner. Subtract the centre (2, 2) and add it again."),
        ),
        tolerance=0.01,
        why="Rows count downwards, so plus 90 degrees turns counter-clockwise: top left goes to bottom left.",
        hint="Where must the top left pixel (0, 0) go? Try your function on it.",
        more="Put the cosine of 90 degrees (0), its sine (1) and the centre (2, 2) into both equations.",
    ),
    Exercise(
        id="02.3",
        level="change",
        kind="share",
        given=("index", "seed"),
        tolerance=0.006,
        truth=_leaked,
        mistakes=(
            (lambda index, seed: _leaked(index, seed, step=0), "That is the share with the old seed. Pass `seed + 1`."),
            (lambda index, seed: _leaked(index, seed, column="leaked"), "That is how many. Give the share."),
        ),
        why="Another seed, other cells, another share, and all else is the same: one split is one draw.",
        hint="Everything but the seed stays as above. Which of the parts is asked about?",
        more="Split with `splits.augment_then_split(index, seed=seed + 1)` and count; the last row is the test part.",
    ),
    explain(
        "02.4",
        "d",
        "It has learned this very cell's label. A rotated copy is a new image and not a new cell.",
        misconception="leakage",
        a="The pixels differ; the cell and its label do not, and a network learns to see past a turn.",
        b="The guard looks at subjects and contents. Numbers of images are no leak.",
        c="More test images make the score steadier. They do not make it too high.",
    ),
)
