"""Synthetic cells, drawn procedurally, and the data sets that are made of them: a twin of C-NMC 2019, hospitals."""

from allkit.synthetic.cells import SyntheticCell, draw_cell, draw_numbers, draw_numbers_of
from allkit.synthetic.dataset import ensure_twin, evaluate_ceiling, ideal_observer, load_truth, make_twin
from allkit.synthetic.hospital import draw_hospital_numbers, make_hospital, open_hospital

__all__ = [
    "SyntheticCell",
    "draw_cell",
    "draw_hospital_numbers",
    "draw_numbers",
    "draw_numbers_of",
    "ensure_twin",
    "evaluate_ceiling",
    "ideal_observer",
    "load_truth",
    "make_hospital",
    "make_twin",
    "open_hospital",
]
