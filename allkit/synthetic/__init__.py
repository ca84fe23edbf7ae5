"""Synthetic cells, drawn procedurally, and the twin of C-NMC 2019 that is made of them."""

from allkit.synthetic.cells import SyntheticCell, draw_cell, draw_numbers, draw_numbers_of
from allkit.synthetic.dataset import ensure_twin, evaluate_ceiling, ideal_observer, load_truth, make_twin

__all__ = [
    "SyntheticCell",
    "draw_cell",
    "draw_numbers",
    "draw_numbers_of",
    "ensure_twin",
    "evaluate_ceiling",
    "ideal_observer",
    "load_truth",
    "make_twin",
]
