"""allkit: teaching and analysing the classification of leukemia cell images.

Each module is one room of the house; imports go one way, from the bottom of this list to the top:

- `images`: reading one image of any kind, preparing it, loading many through a cache
- `data`: one index for every image source
- `check`: what is wrong with a data set, and which people it links
- `features`: numbers measured on one cell: area, shape, colour, texture
- `synthetic`: the synthetic twin of C-NMC 2019, drawn procedurally
- `splits`: who is trained on and who is tested on, and the guard that keeps them apart
- `paper`: what the paper and the literature report, as tables, and the audit of its claims
- `augment`: rotation by the paper's equations, balancing, augmentation of training batches
- `models`: both networks: build, count, save, load, predict
- `classify`: one image file in, a label out, or the reason why there is none
- `explain`: where in the image a network's answer comes from
- `train`: profiles, input pipeline, the paper's learning-rate rule, fit
- `evaluate`: metrics with intervals, comparison of models, calibration, thresholds, results by person
- `probe`: cheap classifiers on a few numbers per cell: baselines to beat, and probes for leaks
- `plots`: every figure; draws what it is given and computes nothing
- `widgets`: the interactive cells, among them the upload cell
- `page`: the upload cell as a page of its own, served by Voilà
- `runs`: run folders, where results are saved and found again, listed and compared
- `study`: trials of settings that any number of processes share, none lost and none counted twice
- `tune`: the search for batch size, learning rate and epochs, and how far its best score is to be believed
- `machine`: whether this machine has what the notebooks need
- `grading`: reading an answer and judging it
- `questions`: the exercises of all notebooks, as data
- `exercises`: checking answers in the notebooks, and what was solved
- `realism`: how close the synthetic twin comes to genuine cells
- `report`: a run's notebooks as HTML that needs no network
- `cards`: the model card of a run
- `series`: running the notebooks with papermill
- `cli`: the command line

Importing allkit imports none of TensorFlow, pandas and matplotlib, and prints nothing.
"""

import os
from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parents[1]
"""The clone that allkit was installed from (editable install): holds `data/`, `notebooks/` and `runs/`."""


def runs_root() -> Path:
    """Return the folder that holds all run folders: `$ALLKIT_RUNS`, or `runs/` in the clone."""
    return Path(os.environ.get("ALLKIT_RUNS", ROOT / "runs"))


class AllkitError(Exception):
    """Something the user can mend; the message says what to do next. The command line prints it bare."""
