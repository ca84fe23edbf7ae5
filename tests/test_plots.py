"""Figures of the data: what a reader sees is what was given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from allkit import plots


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_a_class_keeps_its_colour_whatever_the_order():
    colours = plots.class_colours(["HEM", "ALL", "HEM"])
    assert colours == plots.class_colours(["ALL", "HEM"])
    assert len(set(colours.values())) == 2
    many = plots.class_colours(["Benign", "Early", "Pre", "Pro"])
    assert len(set(many.values())) == 4
    assert not set(plots.PARTS.values()) & {matplotlib.colors.to_hex(c).upper() for c in many.values()}


def test_images_are_shown_unchanged_unless_brightened():
    image = np.full((8, 8, 3), 60, dtype=np.uint8)
    axes = plots.plot_images([image, image, image], ["a", "b", "c"], columns=2)
    assert axes.shape == (2, 2)
    assert axes[1, 0].get_title() == "c"
    assert np.array_equal(axes[0, 0].images[0].get_array(), image)
    brighter = plots.plot_images([image], brighten=10)
    assert brighter[0, 0].images[0].get_array().max() == 255


def test_counts_are_drawn_to_scale_and_written():
    counts = pd.DataFrame({"ALL": [1200, 30], "HEM": [500, 20]}, index=["before", "after"])
    ax = plots.plot_counts(counts, xlabel="images")
    assert sorted(bar.get_width() for bar in ax.patches) == [20, 30, 500, 1200]
    assert "1,200" in {text.get_text() for text in ax.texts}
    assert ax.get_xlabel() == "images"


def test_subjects_are_stacked_and_named_while_they_fit():
    counts = pd.DataFrame({"train": [5, 2], "test": [3, 0]}, index=["H1", "7"])
    _, given = plt.subplots()
    ax = plots.plot_subjects(counts, ax=given)
    assert ax is given
    assert max(bar.get_y() + bar.get_height() for bar in ax.patches) == 8
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["H1", "7"]
    crowd = plots.plot_subjects(pd.DataFrame({"ALL": range(1, 41)}))
    assert "40 subjects" in crowd.get_xlabel()


def test_a_distribution_has_one_shape_per_class_and_its_unit():
    table = pd.DataFrame({"label": ["ALL"] * 20 + ["HEM"] * 20, "area": range(40)})
    ax = plots.plot_distribution(table, "area", xlabel="area (pixels)")
    assert len(ax.collections) == 2
    assert ax.get_xlabel() == "area (pixels)"
    assert "%" in ax.get_ylabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ALL", "HEM"]


def test_point_grid_counts_rows_downwards():
    points = np.argwhere(np.ones((3, 3))).astype(float)
    ax = plots.plot_point_grid(points, points + 0.3)
    top, bottom = ax.get_ylim()[1], ax.get_ylim()[0]
    assert bottom > top


def test_reliability_diagram_writes_the_images_of_every_step():
    table = pd.DataFrame({"predicted": [0.1, 0.9], "observed": [0.2, 0.7], "images": [12, 34]})
    ax = plots.plot_calibration({"A": table, "B": table}, xlabel="said", ylabel="seen")
    assert sorted(text.get_text() for text in ax.texts) == ["12", "12", "34", "34"]
    assert ax.collections[0].get_offsets().tolist() == [[0.1, 0.2], [0.9, 0.7]]
    assert ax.collections[0].get_sizes()[1] > ax.collections[0].get_sizes()[0]


def test_costs_are_drawn_for_all_thresholds_with_the_chosen_one_marked():
    table = pd.DataFrame({"threshold": [1.0, 0.6, 0.2], "cost_per_1000": [100.0, 40.0, 90.0]})
    ax = plots.plot_costs({"A": table}, {"A": 0.6}, ylabel="cost per 1,000 images")
    line, mark = ax.lines
    assert mark.get_xydata().tolist() == [[0.6, 40.0]]
    assert line.get_drawstyle() == "steps-post"  # just above 0.6 it costs 100, at 0.6 and below 40
    assert line.get_xydata()[-1].tolist() == [0, 90]


def test_subjects_are_named_in_the_column_of_their_class():
    table = pd.DataFrame({"label": ["ALL", "HEM", "ALL"], "images": [4, 9, 1], "right": [0.5, 0.2, 1.0]})
    ax = plots.plot_subject_shares(table.set_index(pd.Index(["7", "H1", "8"])))
    assert {text.get_text() for text in ax.texts} == {"7", "H1", "8"}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["ALL (2)", "HEM (1)"]
    assert ax.collections[1].get_offsets().tolist() == [[1, 20]]


def test_simulated_test_sets_have_a_line_per_way_of_resampling():
    table = pd.DataFrame(
        {"subjects": [2, 2, 5, 5], "resampled": ["subjects", "cells"] * 2, "covers": [0.7, 0.6, 0.9, 0.6]}
    )
    ax = plots.plot_test_sets(table, "covers", ylabel="%")
    assert [list(line.get_ydata()) for line in ax.lines] == [[70, 90], [60, 60]]
    assert ax.get_xscale() == "log"
