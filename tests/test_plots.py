"""Figures of the data: what a reader sees is what was given."""

import itertools
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import realism
from skimage.color import rgb2lab

from allkit import plots


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def drawn(ax) -> list:
    """Lines that hold points; those in the legend hold none."""
    return [line for line in ax.lines if len(line.get_xdata())]


def test_a_class_keeps_its_colour_whatever_the_order():
    colours = plots.class_colours(["HEM", "ALL", "HEM"])
    assert colours == plots.class_colours(["ALL", "HEM"])
    assert len(set(colours.values())) == 2
    many = plots.class_colours(["Benign", "Early", "Pre", "Pro"])
    assert len(set(many.values())) == 4
    assert not set(plots.PARTS.values()) & {matplotlib.colors.to_hex(c).upper() for c in many.values()}


def test_dark_images_are_shown_brighter_by_one_factor_which_the_figure_says():
    image = np.full((8, 8, 3), 60, dtype=np.uint8)
    axes = plots.plot_images([image, image // 2, image], ["a", "b", "c"], columns=2)
    assert axes.shape == (2, 2)
    assert axes[1, 0].get_title() == "c"
    shown = [ax.images[0].get_array().max() for ax in axes.flat[:3]]
    assert (shown[0], round(shown[0] / shown[1], 1), shown[2]) == (255, 2.0, 255)
    assert axes[0, 0].figure.get_supxlabel() == "shown 4.2 times as bright"
    plain = plots.plot_images([image], factor=1.0, alt="A grey square.")
    assert np.array_equal(plain[0, 0].images[0].get_array(), image)
    assert plain[0, 0].figure.get_supxlabel() == ""
    assert plots.description_of(plain) == "A grey square."


def test_counts_are_drawn_to_scale_and_written():
    counts = pd.DataFrame({"ALL": [1200, 30], "HEM": [500, 20]}, index=["before", "after"])
    ax = plots.plot_bars(counts, xlabel="images")
    assert sorted(bar.get_width() for bar in ax.patches) == [20, 30, 500, 1200]
    assert "1,200" in {text.get_text() for text in ax.texts}
    assert ax.get_xlabel() == "images"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ALL", "HEM"]
    assert plots.plot_bars(counts[["ALL"]]).get_legend() is None, "one measure needs no legend"


def test_subjects_are_stacked_and_named_while_they_fit():
    counts = pd.DataFrame({"train": [5, 2], "test": [3, 0]}, index=["H1", "7"])
    _, given = plt.subplots()
    ax = plots.plot_bars(counts, stacked=True, ax=given)
    assert ax is given
    assert max(bar.get_y() + bar.get_height() for bar in ax.patches) == 8
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["H1", "7"]
    crowd = plots.plot_bars(pd.DataFrame({"ALL": range(1, 41)}), xlabel="subjects", stacked=True)
    assert crowd.get_xlabel() == "40 subjects, one bar each"


def test_a_distribution_has_one_shape_per_class_and_its_unit():
    table = pd.DataFrame({"label": ["ALL"] * 20 + ["HEM"] * 20, "area": range(40)})
    ax = plots.plot_distribution(table, "area", xlabel="area (pixels)")
    assert len(ax.collections) == 2
    assert ax.get_xlabel() == "area (pixels)"
    assert "%" in ax.get_ylabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ALL", "HEM"]


def test_points_have_a_colour_and_a_shape_for_each_group():
    table = pd.DataFrame({"trial": [1, 2, 3], "score": [0.5, 0.6, 0.7], "state": ["complete", "pruned", "complete"]})
    ax = plots.plot_points(table, "trial", "score", by="state")
    assert ax.collections[0].get_offsets().tolist() == [[1, 0.5], [2, 0.6], [3, 0.7]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["complete", "pruned"]
    assert len({path.vertices.shape for path in ax.collections[0].get_paths()}) == 2
    plots.plot_lines(table, "trial", {"score": "best so far"}, ylabel="score", percent=True, ax=ax)
    assert drawn(ax)[0].get_color() == list(plots.PALETTE.values())[2], "a colour that no group of points has"
    assert ax.get_ylabel() == "score (%)"
    assert ax.yaxis.get_major_formatter()(0.57) == "57"


def test_reliability_diagram_counts_the_images_of_every_step_below():
    table = pd.DataFrame({"predicted": [0.1, 0.9], "observed": [0.2, 0.7], "images": [12, 34]}, ["0.0–0.1", "0.9–1.0"])
    ax, below = plots.plot_calibration({"A": table, "B": table}, xlabel="said", ylabel="seen")
    assert [(round(bar.get_x(), 1), bar.get_height()) for bar in below.patches[:2]] == [(0.0, 12), (0.9, 34)]
    assert "mean gap between predicted and observed: A 0.17; B 0.17" in ax.get_label()
    assert ax.collections[0].get_offsets().tolist() == [[0.1, 0.2], [0.9, 0.7]]
    assert ax.collections[0].get_sizes()[1] > ax.collections[0].get_sizes()[0]


def test_steps_hold_a_value_until_the_next_one_and_a_mark_stands_on_its_line():
    table = pd.DataFrame({"threshold": [1.0, 0.6, 0.2], "cost": [100.0, 40.0, 90.0]})
    ax = plots.plot_lines({"A": table, "B": table}, "threshold", "cost", steps=True, marks={"A": 0.61})
    line, _, mark = drawn(ax)
    assert mark.get_xydata().tolist() == [[0.6, 40.0]]
    assert mark.get_color() == line.get_color()
    assert line.get_drawstyle() == "steps-post"  # just above 0.6 it costs 100, at 0.6 and below 40
    assert line.get_xydata().tolist() == table.to_numpy().tolist(), "in the order given"


def test_subjects_are_named_in_the_column_of_their_class():
    table = pd.DataFrame({"label": ["ALL", "HEM", "ALL"], "images": [4, 9, 1], "right": [0.5, 0.2, 1.0]})
    ax = plots.plot_subject_shares(table.set_index(pd.Index(["7", "H1", "8"])))
    assert {text.get_text() for text in ax.texts} == {"7", "H1", "8"}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["ALL (2)", "HEM (1)"]
    assert ax.collections[1].get_offsets().tolist() == [[1, 20]]


def test_lines_come_from_one_column_several_columns_or_several_tables():
    table = pd.DataFrame(
        {"subjects": [2, 2, 5, 5], "resampled": ["subjects", "cells"] * 2, "covers": [0.7, 0.6, 0.9, 0.6]}
    )
    grouped = plots.plot_lines(table, "subjects", "covers", by="resampled", log=True)
    assert [list(line.get_ydata()) for line in drawn(grouped)] == [[0.7, 0.9], [0.6, 0.6]]
    assert grouped.get_xscale() == "log"
    history = pd.DataFrame({"epoch": [1, 2], "loss": [3.0, 2.0], "val_loss": [4.0, 5.0]})
    columns = plots.plot_lines(history, "epoch", {"loss": "training", "val_loss": "validation"}, ylabel="loss")
    assert [list(line.get_ydata()) for line in drawn(columns)] == [[3, 2], [4, 5]]
    assert [text.get_text() for text in columns.get_legend().get_texts()] == ["training", "validation"]
    assert (columns.get_xlabel(), columns.get_ylabel()) == ("epoch", "loss")
    tables = plots.plot_lines({"one": history, "two": history.head(1)}, "epoch", "loss")
    assert [list(line.get_ydata()) for line in drawn(tables)] == [[3, 2], [3]]


def test_a_unit_has_a_line_of_its_own_in_the_colour_of_its_group():
    curves = pd.DataFrame(
        {"trial": [1, 1, 2, 2], "epoch": [1, 2] * 2, "score": [0.1, 0.2, 0.3, 0.4], "state": "pruned"}
    )
    first, second = drawn(plots.plot_lines(curves, "epoch", "score", by="state", unit="trial"))
    assert first.get_color() == second.get_color()
    assert list(second.get_ydata()) == [0.3, 0.4]


# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(colour: str, blindness: str) -> np.ndarray:
    """CIE Lab of a colour as somebody with this kind of colour blindness sees it."""
    light = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    linear = np.clip(BLINDNESS[blindness] @ linear, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def pairs(colours):
    return itertools.combinations(colours, 2)


def test_contrast_is_that_of_the_guidelines():
    assert plots.contrast("black", "white") == pytest.approx(21)
    assert plots.contrast("#767676") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("colours", [plots.PALETTE, plots.PARTS, realism.ORIGINS], ids=["palette", "parts", "origins"])
def test_colours_stand_out_from_white_and_from_each_other_for_everybody(colours):
    assert min(plots.contrast(colour) for colour in colours.values()) >= 3
    for blindness in BLINDNESS:
        gaps = {pair: np.linalg.norm(seen(pair[0], blindness) - seen(pair[1], blindness))
                for pair in pairs(colours.values())}  # fmt: skip
        assert min(gaps.values()) > 18, (blindness, min(gaps, key=gaps.get))  # 2 is just noticeable


@pytest.mark.parametrize("colours", [list(plots.PALETTE.values())[:4], plots.PARTS.values()], ids=["palette", "parts"])
def test_colours_of_bars_differ_in_grey_print(colours):
    assert min(abs(seen(a, "none")[0] - seen(b, "none")[0]) for a, b in pairs(colours)) > 12


def test_text_in_a_colour_can_be_read():
    for colour in [*plots.PALETTE.values(), *plots.PARTS.values()]:
        assert plots.contrast(plots.ink(colour)) >= 4.5
    assert plots.ink("#0A4FA3") == pytest.approx(matplotlib.colors.to_rgb("#0A4FA3")), "dark enough: left alone"
    axes = plots.plot_images([np.zeros((8, 8, 3), np.uint8)], ["HEM"], colours=[plots.ORANGE])
    assert plots.contrast(axes[0, 0].title.get_color()) >= 4.5


def test_every_line_and_class_takes_its_colour_from_the_palette():
    plots.use_style()
    assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(plots.PALETTE.values())
    assert len(set(plots.class_colours(f"class {k}" for k in range(12)).values())) == 12
    assert min(map(plots.contrast, plots.class_colours(f"class {k}" for k in range(12)).values())) >= 3
    histories = {name: pd.DataFrame({"epoch": [1, 2], "accuracy": [0.5, 0.6]}) for name in "abcdef"}
    lines = drawn(plots.plot_lines(histories, "epoch", "accuracy"))
    assert {line.get_color() for line in lines} == set(plots.PALETTE.values())
    assert len({line.get_marker() for line in lines}) == len(lines), "a second sign beside the colour"
    assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in lines}) == len(lines)
    assert (np.diff([line.get_linewidth() for line in lines]) < 0).all(), "a line shows under those drawn after it"


@pytest.mark.parametrize("share", [1, 30, 50, 59, 75, 99])
def test_numbers_in_a_confusion_matrix_can_be_read_on_every_colour(share):
    ax = plots.plot_confusion(pd.DataFrame([[share, 100 - share], [0, 100]], index=list("ab"), columns=list("ab")))
    grounds = ax.images[0].to_rgba(ax.images[0].get_array())[..., :3].reshape(-1, 3)
    assert min(plots.contrast(t.get_color(), g) for t, g in zip(ax.texts, grounds, strict=True)) >= 4.5


def test_no_figure_brings_a_colour_of_its_own():
    source = Path(plots.__file__).read_text(encoding="utf-8")
    box = "#E8F1F8"  # ground of the boxes of flow charts
    own = {*plots.PALETTE.values(), *plots.PARTS.values(), box}
    assert set(re.findall(r"#[0-9A-Fa-f]{6}\b", source)) <= own
    assert "colorblind" not in source
