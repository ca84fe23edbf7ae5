"""Notebook 13: people judged by their cells, on tables whose answer is known and on drawn people."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from allkit import AllkitError, plots
from allkit.evaluate import evaluate_predictions
from allkit.lessons import person
from allkit.source import COLUMNS
from allkit.synthetic import draw_numbers


def _cells(chances):
    """A predictions table of people, name -> probabilities of ALL of their cells; a name begins with its class."""
    rows = [(f"{name}-{k}", name[:3], name, name, p) for name, of in chances.items() for k, p in enumerate(of)]
    table = pd.DataFrame(rows, columns=["path", "label", "subject", "group", "p_ALL"])
    return table.assign(p_HEM=1 - table["p_ALL"])


def _drawn(people=10, cells=3, effect=1.0, seed=0):
    rows = draw_numbers(people, cells, subject_effect=effect, difficulty=2.3, seed=seed)
    return rows, rows.drop(columns=list(COLUMNS)).set_axis(rows["path"] + "|")


@pytest.fixture(scope="module")
def crowd():
    return person.draw_crowd(draw_numbers, people=120, cells=30, subject_effect=1.0, difficulty=2.3, seed=1)


def test_a_person_is_the_mean_of_the_cells_and_no_cell_is_surer_than_999_to_1():
    people = person.score_people(_cells({"ALL1": [0.9, 0.2, 0.8], "HEM1": [0.0, 1.0], "HEM2": [0.1]}))
    assert people["cells"].to_dict() == {"ALL1": 3, "HEM1": 2, "HEM2": 1}
    assert people["share"].tolist() == pytest.approx([2 / 3, 0.5, 0])
    assert people.at["ALL1", "log_odds"] == pytest.approx(np.log(9 * 0.25 * 4) / 3)
    assert people.at["HEM1", "log_odds"] == pytest.approx(0, abs=1e-9)
    assert people["positive"].tolist() == [True, False, False]


def test_classifier_and_threshold_have_met_nobody_whom_they_judge(monkeypatch):
    rows, numbers = _drawn()
    met = []

    def spy(train, test, *args, **options):
        met.append((set(train["group"]), set(test["group"])))
        return person_evaluate(train, test, *args, **options)

    person_evaluate = person.evaluate_baseline
    monkeypatch.setattr(person, "evaluate_baseline", spy)
    cells = person.predict_cells(rows, numbers)
    assert sorted(cells["path"]) == sorted(rows["path"])
    assert all(not train & test for train, test in met)
    met.clear()
    cuts = person.choose_thresholds(cells, rows, numbers)
    for place, fold in enumerate(cuts.index):
        judged = set(cells.loc[cells["fold"] == fold, "group"])
        behind = met[5 * place : 5 * place + 5]
        assert all(not judged & (train | test) for train, test in behind)
    met.clear()
    person.predict_cells(rows, numbers, by="cells")
    assert all(train & test for train, test in met), "the leaky one must leak"


def test_the_threshold_does_not_look_at_the_labels_of_those_judged():
    rows, numbers = _drawn()
    cells = person.predict_cells(rows, numbers)
    cells = cells[cells["fold"] == 0]
    judged = rows["group"].isin(cells["group"])
    turned = rows.assign(label=rows["label"].where(~judged, rows["label"].map({"ALL": "HEM", "HEM": "ALL"})))
    cuts = person.choose_thresholds(cells, rows, numbers)
    assert cuts.loc[0].equals(person.choose_thresholds(cells, turned, numbers).loc[0])


def test_rates_are_exact_and_over_people():
    people = pd.DataFrame({"positive": [True] * 10 + [False] * 15, "called": [True] * 8 + [False] * 17})
    rates = person.evaluate_calls(people)
    assert rates.loc["sensitivity", ["right", "of"]].tolist() == [8, 10]
    assert rates.loc["sensitivity", ["low", "high"]].tolist() == pytest.approx([0.444, 0.975], abs=1e-3)
    assert rates.loc["specificity", ["low", "high"]].tolist() == pytest.approx([0.025 ** (1 / 15), 1], abs=1e-6)


def test_exact_intervals_over_people_keep_their_promise_and_those_over_cells_do_not(crowd):
    covers = person.simulate_studies(crowd, studies=400)["covers"].unstack()
    assert covers["people"].min() > 0.94
    assert covers["cells, by person"].max() < 0.6
    assert covers["cells, one by one"].max() < covers["people"].min()


def test_more_cells_help_until_what_is_left_is_the_people():
    def ends(effect):
        drawn = person.draw_crowd(draw_numbers, people=80, cells=50, subject_effect=effect, difficulty=2.3, seed=3)
        curve = person.evaluate_cells_needed(drawn, draws=3).set_index("cells")["error"]
        return curve[1], curve[20], curve[50]

    alike, different = ends(0), ends(2)
    assert alike[0] > 0.2 > 0.01 >= alike[2]
    assert different[0] > different[2] > 0.1, "a floor"
    assert different[1] - different[2] < 0.04, "and it is flat"


def test_the_same_people_take_part_at_each_step_and_too_few_are_not_drawn(crowd):
    assert person.evaluate_cells_needed(crowd, draws=2)["people"].unique().tolist() == [240]
    few = _cells({f"{label}{k}": [0.4] * (3 if k < 4 else 1) for label in ("ALL", "HEM") for k in range(6)})
    curve = person.evaluate_cells_needed(few, draws=2)
    assert curve["cells"].tolist() == [1], "only four of a class have two cells"
    assert "inconclusive" in person.describe_own_cells(curve)


def test_a_leak_is_larger_over_people_and_the_truth_is_with_the_honest_one():
    leaks = person.simulate_leak(draw_numbers, (2,), runs=4, difficulty=2.3)
    error = leaks["error"].loc[2].unstack()
    leaky, honest, truth = (error.loc[name] for name in ("cells kept apart", "people kept apart", "truth: new people"))
    assert leaky["people"] < 0.08 < 0.14 < honest["people"]
    assert leaky["people"] / honest["people"] < leaky["cells"] / honest["cells"]
    assert truth["people"] > 0.2, "the leaky one promised a third of it at most"
    assert "It promises" in person.describe_leak(leaks)


def test_people_needed_is_the_exact_binomials():
    assert person.people_needed(1.0, 0.99) == int(np.ceil(np.log(0.025) / np.log(0.99)))
    needed = person.people_needed(0.95, 0.9)
    right = np.random.default_rng(0).binomial(needed, 0.95, 300)
    assert np.mean([person.exact_interval(k, needed)[0] > 0.9 for k in right]) > 0.7
    right = np.random.default_rng(0).binomial(needed // 2, 0.95, 300)
    assert np.mean([person.exact_interval(k, needed // 2)[0] > 0.9 for k in right]) < 0.7
    assert person.people_needed(0.85, 0.9) == person.people_needed(0.15, 0.1), "below is above, turned round"
    assert person.people_needed(0.9001, 0.9) is None


def test_verdicts_are_yes_no_and_inconclusive():
    people = {"positive": [True] * 200 + [False] * 10, "called": [True] * 199 + [False] * 10 + [True]}
    text = person.describe_claim(person.evaluate_calls(pd.DataFrame(people)), 0.9)
    assert "sensitivity of at least 90%: **yes**" in text
    assert "specificity of at least 90%: **inconclusive** (9 of 10 people" in text
    text = person.describe_claim(person.evaluate_calls(pd.DataFrame(people)), 0.999)
    assert "sensitivity of at least 100%: **inconclusive**" in text or "**no**" in text


def test_a_clearly_better_rule_is_named_and_a_tie_asks_for_more_people():
    rng, chances = np.random.default_rng(0), {}
    for k in range(60):
        for label, sign in (("ALL", 1), ("HEM", -1)):
            chances[f"{label}{k}"] = 1 / (1 + np.exp(-np.array([3.0 * sign, *rng.normal(0, 0.5, 4)])))
    text = person.describe_rules(person.score_people(_cells(chances)))
    assert "**mean log-odds** is better here" in text
    tie = {name: rng.choice([0.9, 0.1], 2, p=[0.6, 0.4] if name[0] == "A" else [0.4, 0.6]) for name in chances}
    assert "it would take more than" in person.describe_rules(person.score_people(_cells(tie)))
    few = {name: chances[name] for name in ("ALL1", "ALL2", "ALL3", "HEM1", "HEM2", "HEM3")}
    assert "no interval can be given" in person.describe_rules(person.score_people(_cells(few)))


def test_one_row_per_person_gives_the_auc_over_people():
    people = person.score_people(_cells({"ALL1": [0.9, 0.8], "ALL2": [0.3], "HEM1": [0.4, 0.1], "HEM2": [0.5, 0.4]}))
    tables = person.as_predictions(people)
    assert evaluate_predictions(tables["mean log-odds"])["auc"] == pytest.approx(0.75)
    assert tables["share of cells"]["path"].tolist() == people.index.tolist()


def test_without_subjects_everything_says_so_and_nothing_crashes():
    rows, _ = _drawn(4, 2)
    index = rows.assign(subject=None)
    none = person.choose_rows(index)
    assert none.empty
    assert "whose cells these are is unknown" in person.describe_people(index, none)
    cells = person.predict_cells(none, person.measure_rows(none, "measured"))
    people = person.score_people(cells)
    cuts = person.choose_thresholds(cells, none, pd.DataFrame())
    rates = person.evaluate_calls(people.assign(called=people["log_odds"] >= people["fold"].map(cuts["log_odds"])))
    assert rates["value"].isna().all()
    assert "nobody" in person.describe_claim(rates, 0.9)
    assert "nobody" in person.describe_rules(people)
    assert person.as_predictions(people) == {}
    curve = person.evaluate_cells_needed(cells)
    assert "inconclusive" in person.describe_own_cells(curve)
    assert "too few" in plots.description_of(person.plot_cells_needed({"these": curve}))
    assert person.evaluate_leak(none, pd.DataFrame())["error"].isna().all()


def test_two_people_of_a_class_are_not_judged_and_a_misspelt_feature_is_named():
    rows, _ = _drawn(3, 2)
    assert len(person.choose_rows(rows)) == len(rows)
    fewer = rows[rows["group"] != rows["group"].iloc[-1]]
    assert person.choose_rows(fewer).empty
    assert "three people" in person.describe_people(fewer, fewer.iloc[:0])
    with pytest.raises(AllkitError, match="choose 'measured' or 'frozen'"):
        person.measure_rows(rows, "frosen")
