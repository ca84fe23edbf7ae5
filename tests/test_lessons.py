"""What the lessons of the notebooks compute, draw and say, on small tables whose answer is known."""

from itertools import pairwise

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from allkit import AllkitError, plots
from allkit.app.explorers import KERNELS, _convolution_picture
from allkit.augment import rotate_by_equations
from allkit.data import load_index
from allkit.lessons import (
    classification,
    comparison,
    exploration,
    leakage,
    learning,
    paper,
    rotation,
    saliency,
    start,
    training,
    tuning,
    uncertainty,
)
from allkit.splits import split_by_image, split_by_subject
from allkit.synthetic import draw_cell, draw_numbers


@pytest.fixture(scope="module")
def index(twin):
    return load_index(twin)


def _table(p, labels=("ALL", "HEM"), subjects=12, cells=10):
    """A predictions table in which the network gives the truth a probability of about p."""
    rng = np.random.default_rng(0)
    rows = [(label, f"{label}{k}") for label in labels for k in range(subjects) for _ in range(cells)]
    table = pd.DataFrame(rows, columns=["label", "subject"])
    sure = np.clip(p + 0.15 * rng.standard_normal(len(table)), 0.02, 0.98)
    first = np.where(table["label"] == labels[0], sure, 1 - sure)
    table = table.assign(path=[f"{k}.png" for k in range(len(table))], group=table["subject"])
    return table.assign(**{f"p_{labels[0]}": first, f"p_{labels[1]}": 1 - first})


# ---- 00, 01, 02 --------------------------------------------------------------------------------------------


def test_the_parts_of_a_drawn_cell_are_where_the_arrows_point():
    cell = draw_cell("ALL", subject="example", number=3)
    ax = start.plot_cell_parts(cell)
    rows, columns = np.nonzero(cell.outline)
    corner = np.array([rows.min() - 8, columns.min() - 8])
    masks = {"nucleus": cell.nucleus, "nucleolus": cell.nucleoli, "cytoplasm": cell.outline & ~cell.nucleus}
    for text in ax.texts:
        x, y = text.xy
        assert masks[text.get_text()][tuple(np.rint(corner + np.array([y, x])).astype(int))], text.get_text()
    assert "nucleus fills" in ax.get_label()


def test_leaks_are_counted_by_subject_and_by_content(index):
    splits = exploration.split_both_ways(index, seed=1)
    leaks = exploration.count_leaks(splits)
    assert leaks.loc["by subject", "subject is also in training"] == 0
    assert leaks.loc["by image", "subject is also in training"] > 0
    unknown = exploration.split_both_ways(index.assign(subject=None, group=index["path"]), seed=1)
    assert exploration.count_leaks(unknown).loc["by image", "subject is also in training"] == "unknown"


def test_a_number_is_as_good_upside_down():
    table = pd.DataFrame({"label": ["ALL"] * 5 + ["HEM"] * 5, "area": range(10)})
    assert exploration.evaluate_number(table, "area") == 1.0
    assert exploration.evaluate_number(table.assign(area=-table["area"]), "area") == 1.0


def test_closeups_show_the_same_place_before_and_after():
    image = np.zeros((60, 60, 3), np.uint8)
    image[20:40, 15:50] = 200
    axes = rotation.plot_closeups(image, {"nearest": rotate_by_equations(image, 30)})
    before, after = (ax.images[0].get_array().mean() for ax in axes.flat[:2])
    assert 40 < before < 220 and 40 < after < 220  # noqa: PT018  an edge runs through both
    assert abs(before - after) < 60


# ---- 03, 04, 05 --------------------------------------------------------------------------------------------


def test_the_walk_goes_downhill_and_too_long_steps_do_not():
    rng = np.random.default_rng(0)
    y = (rng.random(400) < 0.6).astype(float)
    x = rng.normal(y, 1)
    path = learning.walk_downhill(x, y, w=-2, b=0.0, rate=1.0, steps=30)
    losses = [learning.loss_of_neuron(x, y, w, 0.0) for w in path]
    assert all(after < before for before, after in pairwise(losses))
    assert learning.loss_of_neuron(x, y, 0.0, 0.0) == pytest.approx(np.log(2))
    wild = learning.walk_downhill(x, y, w=-2, b=0.0, rate=60.0, steps=5)
    assert max(learning.loss_of_neuron(x, y, w, 0.0) for w in wild[1:]) > losses[0]
    assert "30 steps" in learning.plot_descent(x, y, 0.0, path).get_label()


def test_few_images_are_of_all_classes_alike():
    labels = np.array([0] * 50 + [1] * 10)
    chosen = learning.choose_few(labels, 12, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [6, 6]
    assert len(set(chosen)) == 12


def test_what_changed_between_the_epochs_is_said():
    class Model:
        def count_params(self):
            return 1234

    rows = {"epoch": [1, 8], "loss": [0.7, 0.4], "val_loss": [0.6, 0.65], "answer for one cell": [0.5, 0.8]}
    text = learning.describe_epochs(pd.DataFrame(rows), Model(), images=64)
    assert "1,234 numbers" in text
    assert "4 steps" in text
    assert "it rose from 0.60 to 0.65" in text


def test_a_network_that_wins_is_said_to_win_and_a_tie_is_left_open():
    scores = pd.DataFrame(
        {"value": [0.6, 0.7, 0.97], "low": [0.4, 0.5, 0.94], "high": [0.8, 0.85, 0.99]}, ["ruler", "small", "learned"]
    )
    assert "**learned** reaches an AUC of 0.97" in learning.describe_comparison(scores)
    assert "*inconclusive*" in learning.describe_tiny(scores.iloc[:2])
    assert "no luck" in learning.describe_tiny(scores.iloc[[0, 2]])


def test_learning_curves_are_read_and_described_from_what_make_results_wrote():
    kept = training.load_learning_curve()
    cells = kept[kept["curve"] == "cells"]
    by = {name: rows.set_index("cells")["auc"] for name, rows in cells.groupby("technique")}
    assert by["pre-trained"].iloc[0] > by["from scratch"].iloc[0] + 0.1
    assert by["from scratch"].iloc[-1] > by["area alone"].iloc[-1] + 0.05
    own = pd.DataFrame({"value": [0.63, 0.70]}, ["ruler: area alone", "from scratch"])
    text = training.describe_learning_curves(kept, own, cells=360)
    assert "it was ahead: 0.70 against 0.63" in text
    assert f"With 480 cells, nearest to your 360, it is {by['from scratch'][480]:.2f}" in text
    assert "it was behind" in training.describe_learning_curves(kept, own.iloc[::-1].set_axis(own.index), cells=50)
    crossing = by["from scratch"].index[by["from scratch"] > by["area alone"]].min()
    assert f"**{crossing:,.0f} cells**" in text
    people = kept[(kept["curve"] == "subjects") & (kept["technique"] == "pre-trained")].set_index("subjects")["auc"]
    assert people.iloc[-1] > people.iloc[0]


def test_weights_by_subject_help_new_subjects_and_order_better():
    found = training.evaluate_weighing(draw_numbers, subject_effect=2.0, seeds=range(10))
    assert found["by subject"].mean() > found["by image"].mean() + 0.005
    assert found["order by subject"].mean() > found["order by image"].mean()
    table = training.summarise_weighing(found)
    text = training.describe_weighing(table)
    assert text.count("\n") == 1
    even = table.assign(gain=0.001, error=0.01)
    assert training.describe_weighing(even).count("*inconclusive*") == 2


def test_one_size_is_said_to_take_the_ruler_away():
    values = {("area alone", "as it is"): 0.8, ("area alone", "one size"): 0.5, ("Net", "as it is"): 0.97}
    rows = values | {("Net", "one size"): 0.96}
    text = training.describe_one_size(pd.DataFrame({"value": rows}))
    assert "falls from 0.80 to 0.50" in text
    assert "hardly needs the size" in text
    rows[("Net", "one size")] = 0.55
    assert "lived on the size" in training.describe_one_size(pd.DataFrame({"value": rows}))
    assert "nothing to take away" in training.describe_one_size(pd.DataFrame(columns=["value"]))


# ---- 06, 07, 08 --------------------------------------------------------------------------------------------


def test_a_winner_is_named_with_a_warning_and_a_tie_is_not():
    good, poor = _table(0.85), _table(0.55)
    difference = comparison.compare_by_measure({"A": good, "B": poor})
    assert set(difference["verdict"]) == {"A"}
    assert "decided by luck alone" in comparison.describe_winners(difference)
    same = comparison.compare_by_measure({"A": good, "B": good})
    assert "inconclusive: accuracy" in comparison.describe_winners(same)
    assert "12 subjects" in comparison.describe_winners(same)


class _Answer:
    def __init__(self, p):
        self.probabilities, self.threshold = {"ALL": p, "HEM": 1 - p}, 0.5
        self.image = np.full((8, 8, 3), 40, np.uint8)


def test_examples_are_shown_from_the_least_to_the_most_sure():
    answers = [_Answer(p) for p in (0.51, 0.9, 0.7, 0.99, 0.6, 0.8, 0.95)]
    labels = ["ALL", "ALL", "ALL", "HEM", "ALL", "HEM", "ALL"]
    chosen = classification.choose_typical(answers, labels, each=3)
    assert chosen == {"right": [0, 2, 6], "wrong": [5, 3]}
    axes = classification.plot_typical(answers, labels, chosen)
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["right", "wrong"]
    assert axes[1, 0].get_title() == "says ALL, 80% sure\ntruth: HEM"
    assert "no less sure" in classification.describe_sureness(answers, labels)


def test_the_collapse_is_blamed_on_what_cures_it():
    rows = []
    for name, held in {"the recipe": 0.5, "input from -1 to 1": 0.9, "momentum 0.8": 0.56}.items():
        facts = {"variant": name, "epoch": 5, "accuracy": 0.9, "val_accuracy": held, "val_balanced_accuracy": held}
        rows += [facts | {"seed": seed} for seed in (1, 2)]
    table = pd.DataFrame(rows)
    text = paper.describe_collapse(table)
    assert "What cures it here: **input from -1 to 1**. What helps a little: momentum 0.8." in text
    assert "the recipe: 90% on training images; on validation images 50% to 50%" in text
    assert "does not collapse here" in paper.describe_collapse(table.assign(val_balanced_accuracy=0.8))
    validation = pd.DataFrame({"label": ["ALL"] * 7 + ["HEM"] * 3})
    middle = paper.plot_collapse(pd.concat([table.assign(epoch=4), table]), validation)[1]
    assert {text.get_text() for text in middle.texts} == {"always ALL", "always HEM"}


def test_the_papers_accuracies_are_found_in_the_training_column():
    table = paper.locate_accuracies()
    assert (table["text"] == table["training, last epoch"]).all()
    low, high = paper.mcnemar_of_both()
    assert low < high < 1e-6


# ---- 09, 10, 11, 12 ----------------------------------------------------------------------------------------


def test_people_are_drawn_on_the_side_where_they_are(index):
    rows = index[index["label"].notna() & (index["part"] == "train")]
    by_subject = leakage.plot_sides(split_by_subject(rows, 1)).get_label()
    assert ", 0 on both sides" in by_subject
    split = split_by_image(rows, (0.6, 0.1, 0.3), 1)
    both = len(set(split.train["subject"]) & set(split.test["subject"]))
    assert f"{both} on both sides" in leakage.plot_sides(split).get_label()


def test_a_leak_is_seen_where_it_is_and_not_where_it_is_not():
    runs = {2.0: [0.05, 0.07, 0.06, 0.08], 0.0: [-0.01, 0.01, -0.02, 0.02]}
    tables = {
        effect: pd.DataFrame({"baseline": "nearest neighbours", "measured": values, "true": np.mean(values)})
        for effect, values in runs.items()
    }
    effects = leakage.combine_effects(tables)
    assert "clearly above zero" in leakage.describe_effect(effects, 2.0)
    text = leakage.describe_effect(effects, 0.0)
    assert "not to be told from zero" in text
    assert "In **50%** of the single runs the difference came out below zero, as it should" in text
    assert "In none of the single runs" in leakage.describe_effect(effects, 2.0)


def test_luck_is_said_beside_the_gap():
    rows = [
        {"split_kind": kind, "seed": seed, "baseline": "nearest neighbours", "auc": auc + luck}
        for kind, auc in {"by image": 0.75, "by subject, duplicates merged": 0.70, "unseen subjects": 0.9}.items()
        for seed, luck in enumerate((-0.1, 0.0, 0.1) if kind == "by image" else (0.0, 0.0, 0.0))
    ]
    text = leakage.describe_luck(pd.DataFrame(rows))
    assert "is no paradox" in text
    assert "+0.050 on average" in text
    assert "more than half of the time" in text


def test_worse_than_guessing_is_not_passed_over():
    tested = pd.DataFrame(
        {"subject": ["H1", "H1", "H2", "H2"], "input": ["numbers", "area alone"] * 2, "auc": [0.7, 0.43, 0.6, 0.8]}
    )
    text = leakage.describe_hold_outs(tested, "HEM")
    assert "**Worse than guessing**: area alone with H1 held out (0.43)" in text
    assert "nobody can be held out" in leakage.describe_hold_outs(tested.iloc[:0], "HEM")


def test_three_rules_for_the_threshold_are_compared_at_their_cost():
    table, costs = _table(0.75), {"prevalence": 0.05, "cost_missed": 5, "cost_false_alarm": 1}
    assert uncertainty.threshold_by_formula(**costs) == pytest.approx(19 / 5 / (1 + 19 / 5))
    assert uncertainty.threshold_by_formula(0.5, 1, 1) == pytest.approx(0.5)
    rules = uncertainty.compare_rules({"A": table}, {"A": 0.9}, {"A": 0.5}, costs)
    assert rules["threshold"].round(2).tolist() == [0.9, 0.79, 0.5]
    positive, called = table["label"] == "ALL", table["p_ALL"] >= 0.9
    missed, alarms = 1 - called[positive].mean(), called[~positive].mean()
    assert rules["value"].iloc[0] == pytest.approx(1000 * (0.05 * 5 * missed + 0.95 * alarms))
    assert "costs least here" in uncertainty.describe_rules(rules)


def test_temperatures_say_who_is_too_sure():
    split = type("Parts", (), {"validation_by_image": False, "shares_subjects": False})
    text = uncertainty.describe_temperatures({"A": 1.8, "B": 0.7, "C": float("nan")}, split)
    assert [line.split(": ")[1].split(",")[0] for line in text.splitlines()] == ["1.80", "0.70", "*inconclusive*"]
    assert "too sure" in text.splitlines()[0]
    assert "too modest" in text.splitlines()[1]


def test_maps_are_compared_with_rivals_that_know_nothing():
    verdicts = pd.DataFrame(
        {("pointing", "centre blob"): ["below", "inconclusive"], ("pointing", "random map"): ["above"] * 2}
    )
    text = saliency.describe_scores(verdicts)
    assert "against the centre blob: better in 0 of 2 comparisons, worse in 1; 1 are inconclusive" in text
    assert "against the random map: better in 2 of 2" in text
    assert "no map can be called right" in saliency.describe_scores(pd.DataFrame())


def test_a_shortcut_that_was_not_taken_up_is_given_away_by_nobody():
    reached = pd.DataFrame(
        {saliency.TRICKED: [0.6, 0.6, 0.58]}, ["mark as in training", "no mark", "mark on the others"]
    )
    rows = [f"{method}, {name}" for method in saliency.METHODS for name in (saliency.TRICKED, saliency.CLEAN)]
    corner = pd.DataFrame({"pointing": [0.2, 0.0, 1.0, 0.0]}, rows)
    assert "nothing for a map to give away" in saliency.describe_corner(corner, reached)
    reached[saliency.TRICKED] = [0.98, 0.5, 0.06]
    text = saliency.describe_corner(corner, reached)
    assert "Grad-CAM **misses** it" in text
    assert "occlusion gives the shortcut away (it points to the corner in 100%" in text


def test_trials_are_coloured_by_learning_rate_and_the_pruned_are_crossed():
    curves = pd.DataFrame({"trial": [1, 1, 2], "state": ["complete", "complete", "pruned"], "epoch": [1, 2, 1],
                           "score": [0.7, 0.8, 0.6]})  # fmt: skip
    table = pd.DataFrame({"trial": [1, 2], "learning_rate": [0.001, 0.1]})
    ax = tuning.plot_trial_curves(curves, table)
    ends = [line for line in ax.lines if line.get_marker() in ("o", "X") and len(line.get_xdata())]
    assert [line.get_marker() for line in ends] == ["o", "X"]
    assert ends[0].get_color() != ends[1].get_color()
    assert "1 of 2 trials were given up" in ax.get_label()


def test_every_figure_of_a_lesson_describes_itself():
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "val_loss": [2.1, 1.2], "accuracy": [0.5, 0.8],
                            "val_accuracy": [0.5, 0.7], "answers": [0.9, 0.5], "val_answers": [1.0, 0.7]})  # fmt: skip
    text = plots.description_of(plots.plot_history(history))
    assert "training 80 %; validation 70 %" in text
    assert "training, answers 0.5; validation, answers 0.7; training, with penalty 1" in text


def test_a_place_of_the_map_is_the_sum_of_nine_products():
    grey = np.random.default_rng(0).uniform(0, 255, (9, 9))
    kernel = KERNELS["upright edges"]
    expected = sum(grey[3 + a, 4 + b] * kernel[a, b] for a in range(3) for b in range(3))
    assert f"sum to {expected:.0f};" in _convolution_picture(grey, "upright edges", 3 * 7 + 4 + 1)


def test_data_that_cannot_be_split_say_so(index):
    with pytest.raises(AllkitError, match="cannot be split"):
        exploration.split_both_ways(index.iloc[:2], seed=1)
