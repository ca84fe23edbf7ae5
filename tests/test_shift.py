"""Another hospital: the dials, what they do to a classifier, remedies, the alarm, promises per person."""

import numpy as np
import pandas as pd
import pytest

from allkit import AllkitError
from allkit.augment import apply_augmentation, measure_colours
from allkit.baselines import frozen_features, row_keys
from allkit.data import load_index
from allkit.evaluate import evaluate_predictions, probabilities_of
from allkit.features import cell_mask, measure_cell
from allkit.lessons import alarm, conformal, shift
from allkit.synthetic import draw_cell, draw_numbers


@pytest.fixture(scope="module")
def cell():
    return draw_cell("ALL", subject="11", number=3).image


# ---- dials ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["stain:1.3,0.7", "light:1.3,0.1", "blur:0.02", "colours:0.3,0.1,0.3,0.05,0.05,0.05"])
def test_a_dial_changes_the_cell_and_leaves_the_background_black(cell, spec):
    changed = apply_augmentation(cell, spec)
    inside = cell_mask(cell)
    assert not changed[cell.max(axis=2) == 0].any()
    assert np.abs(changed[inside].astype(float) - cell[inside]).mean() > 2
    assert changed.dtype == np.uint8


@pytest.mark.parametrize("spec", ["stain:1,1", "light:1,0", "blur:0"])
def test_a_dial_that_is_not_turned_changes_nothing(cell, spec):
    assert np.abs(apply_augmentation(cell, spec).astype(int) - cell).max() <= 1


def test_dials_do_what_their_names_say(cell):
    before = measure_cell(cell)

    def after(spec):
        return measure_cell(apply_augmentation(cell, spec))

    assert after("stain:1.3,1")["mean_r"] < before["mean_r"] - 5, "more dye, less light"
    assert after("light:1.3,0")["mean_g"] == pytest.approx(1.3 * before["mean_g"], rel=0.05)
    warm = after("light:1,0.2")
    assert (warm["mean_r"] > before["mean_r"]) & (warm["mean_b"] < before["mean_b"])
    blurred = after("blur:0.02")
    assert blurred["texture"] < 0.8 * before["texture"]
    assert blurred["mean_b"] == pytest.approx(before["mean_b"], rel=0.05), "no black flows in"
    assert after("zoom:0.8")["area"] == pytest.approx(0.64 * before["area"], rel=0.05)


def test_normalised_colours_are_those_of_home(cell):
    colours = measure_colours([cell])
    dark = apply_augmentation(cell, "light:0.7,0.1")
    assert np.abs(measure_colours([dark])[:3] - colours[:3]).max() > 0.02
    back = apply_augmentation(dark, "colours:" + ",".join(map(str, colours)))
    assert measure_colours([back])[:3] == pytest.approx(colours[:3], abs=0.01)
    black = np.zeros((8, 8, 3), np.uint8)
    assert not apply_augmentation(black, "colours:1,1,1,1,1,1").any()


def test_a_dial_that_nobody_knows_gets_a_sentence(cell):
    with pytest.raises(AllkitError, match="stain:, light:, blur:"):
        apply_augmentation(cell, "weather:3")
    with pytest.raises(AllkitError, match="blur:x"):
        apply_augmentation(cell, "blur:x")


# ---- hospitals and remedies, on numbers in place of pictures ---------------------------------------------------

_CUES = ["nucleus_share", "clumping", "nucleoli", "indentation"]


@pytest.fixture(scope="module")
def rows():
    return draw_numbers(25, 6, seed=4)


@pytest.fixture(scope="module")
def hospitals(rows):
    places = {"home": "", "moved": "moved", "noise": "noise"}
    made = {name: shift.under(rows, spec) for name, spec in places.items()}
    return made | {"prevalence": shift.thin_out(made["home"], 0.2)}


@pytest.fixture(scope="module")
def features(rows, hospitals):
    rng = np.random.default_rng(0)
    moved = rows[_CUES] + [0, -1.2, 0, 0]
    tables = {"home": rows[_CUES], "moved": moved, "noise": rows[_CUES] * 0 + rng.normal(size=(len(rows), 4))}
    return pd.concat([table.set_axis(row_keys(hospitals[name])) for name, table in tables.items()])


@pytest.fixture(scope="module")
def fold_of(rows):
    return pd.Series(shift.draw_folds(rows), rows["path"])


@pytest.fixture(scope="module")
def answers(hospitals, features, fold_of):
    return shift.predict_hospitals(hospitals, features, fold_of)


def test_everybody_is_tested_once_by_a_classifier_that_never_met_them(rows, answers, fold_of):
    assert rows.assign(fold=fold_of.to_numpy()).groupby("group")["fold"].nunique().max() == 1
    for name in ("home", "moved"):
        assert sorted(shift.tested(answers, name)["path"]) == sorted(rows["path"])
    roles = answers.groupby(["turn", "group"])["role"].nunique()
    assert roles.max() == 1, "nobody calibrates and is tested in the same turn"


def test_a_move_is_seen_in_threshold_and_calibration_not_in_the_ranking(answers):
    table = shift.evaluate_hospitals(answers)
    assert abs(table.at[("moved", "auc"), "change"]) < 0.02
    assert table.at[("moved", "specificity"), "verdict"] == "worse"
    assert table.at[("moved", "predicted - observed"), "low"] > 0
    assert table.at[("noise", "auc"), "value"] == pytest.approx(0.5, abs=0.1)
    assert table.at[("prevalence", "predicted - observed"), "value"] > 0.05
    assert (table.loc["prevalence", "verdict"] == "").all()
    said = shift.describe_blind_spot(table[~table.index.isin(["noise"], level="hospital")])
    assert "specificity under moved" in said
    assert "misses most" in said
    assert "moved" in shift.describe_hospitals(table).partition("too low")[0]
    assert shift.tabulate_hospitals(table).at[("home", "auc"), "change"] == "–"


def test_a_few_labelled_cells_repair_a_move_and_are_of_others(answers):
    repaired = shift.recalibrate_hospitals(answers, cells=60)
    gains = shift.compare_remedies({"nothing": answers, "labelled": repaired, "the same": answers})
    assert gains.at[("log_loss", "moved", "labelled"), "verdict"] == "helps"
    same = gains.xs("the same", level="remedy")
    assert (same["value"].abs().max(), set(same["verdict"])) == (0, {"inconclusive"})
    harm = shift.compare_remedies({"nothing": repaired, "undone": answers})
    assert harm.at[("log_loss", "moved", "undone"), "verdict"] == "harms"
    assert "moved" in shift.describe_remedies(gains).partition("inconclusive")[0]
    assert shift.tabulate_verdicts(gains).at["moved", "labelled"].endswith("helps")


def test_recalibration_leaves_the_order_and_fits_the_level(answers):
    moved = shift.tested(answers, "moved").query("turn == 0")
    fitted = shift.recalibrate(moved, moved)
    before, after = evaluate_predictions(moved), evaluate_predictions(fitted)
    assert after["auc"] == pytest.approx(before["auc"])
    assert probabilities_of(fitted)[:, 0].mean() == pytest.approx((moved["label"] == "ALL").mean(), abs=0.03)


def test_copies_and_features_by_hospital_are_used(hospitals, features, fold_of, rows, answers):
    copies = shift.under(rows, "moved")
    learned = shift.predict_hospitals(hospitals, features, fold_of, copies=copies)
    loss = [evaluate_predictions(shift.tested(table, "moved"))["log_loss"] for table in (answers, learned)]
    assert loss[1] < loss[0] - 0.03
    own = pd.concat(
        {"home": features.iloc[: len(rows)], "moved": features.iloc[: len(rows)].set_axis(row_keys(copies))}
    )
    two = {name: hospitals[name] for name in ("home", "moved")}
    alike = shift.predict_hospitals(two, own, fold_of)
    pair = [probabilities_of(shift.tested(alike, name)) for name in two]
    assert pair[0] == pytest.approx(pair[1])


def test_people_are_left_out_whole_until_the_prevalence_is_reached(rows):
    few = shift.thin_out(rows.assign(augmentation=""), 0.25)
    assert (few["label"] == "ALL").mean() == pytest.approx(0.25, abs=0.05)
    assert set(few.groupby("group").size()) == {6}
    many = shift.thin_out(rows, 0.8)
    assert (many["label"] == "ALL").mean() == pytest.approx(0.8, abs=0.05)
    assert shift.thin_out(rows, 0.001).query("label == 'ALL'")["group"].nunique() == 5


def test_of_three_people_of_a_class_each_group_has_one(rows):
    people = rows.drop_duplicates("group").groupby("label")["group"]
    few = [*people.get_group("ALL").head(7), *people.get_group("HEM").head(3)]
    chosen = shift.choose_rows(rows[rows["group"].isin(few)])
    folds = chosen.assign(fold=shift.draw_folds(chosen))
    assert folds.groupby("fold")["label"].nunique().to_dict() == {0: 2, 1: 2, 2: 2}
    assert folds.groupby("group")["fold"].nunique().max() == 1


def test_batch_norm_takes_its_statistics_from_the_hospital(twin):
    index = load_index(twin)
    rows = shift.choose_rows(index).head(24)
    places = shift.gather({"home": shift.under(rows, ""), "light": shift.under(rows, "light:1.5,0.2")})
    how = {"image_size": 32, "alpha": 0.25, "layers": ["conv_pw_3_bn"]}
    plain = frozen_features(places, **how)
    own = frozen_features(places, adapt_by="hospital", **how)
    assert own.std().mean() > 5 * plain.std().mean(), "layer by layer, random weights let everything fade"
    for hospital in ("home", "light"):  # what batch normalisation gives has mean zero in each
        assert own.loc[hospital].mean().abs().max() < 0.01
    assert list(own.loc["light"].index) == list(row_keys(places[places["hospital"] == "light"]))


def test_data_that_cannot_serve_get_a_sentence(rows):
    people = rows.drop_duplicates("group").groupby("label")["group"]
    with pytest.raises(AllkitError, match="3 subjects of each class"):
        shift.choose_rows(rows[rows["group"].isin(people.head(2))])
    three = rows.assign(label=np.where(rows["group"].str.endswith("1"), "third", rows["label"]))
    assert shift.choose_rows(three)["label"].nunique() == 2
    assert "inconclusive" in shift.describe_people(rows.assign(subject=None))


# ---- the alarm -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def components():
    """People who differ, in two hospitals: home, and one where everything is moved."""
    rng = np.random.default_rng(1)
    people = np.repeat(rng.normal(size=(40, 3)), 10, axis=0)
    home = pd.DataFrame(people + 0.7 * rng.normal(size=people.shape))
    home = home.assign(group=np.repeat(np.arange(40).astype(str), 10), path=np.arange(400).astype(str), hospital="home")
    moved = home.assign(hospital="moved")
    moved[[0, 1, 2]] += 2.0
    return pd.concat([home, moved], ignore_index=True)


def test_the_energy_test_knows_samples_alike_and_apart():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(60, 2))
    there = np.arange(60) < 20
    apart = points + 3 * there[:, None]
    distances = [np.linalg.norm(p[:, None] - p[None], axis=2) for p in (points, apart)]
    assert alarm.energy_test(distances[1], there) == pytest.approx(0.01)
    shuffled = [alarm.energy_test(distances[0], rng.permutation(there), seed=k) for k in range(200)]
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.08), "p-values of samples alike are spread evenly"


def test_the_alarm_by_subject_keeps_its_rate_and_the_one_by_cell_does_not(components):
    by_subject = alarm.simulate_alarms(components, people=12, draws=150)
    by_cell = alarm.simulate_alarms(components[components["hospital"] == "home"], unit="cell", people=12, draws=60)
    assert by_subject.at["home", "low"] <= 0.05
    assert by_subject.at["home", "value"] < 0.12
    assert by_subject.at["moved", "value"] > 0.95
    assert by_cell.at["home", "low"] > 0.2
    assert "far more" in alarm.describe_alarm(by_cell, "cell")
    assert "far more" not in alarm.describe_alarm(by_subject, "subject")
    assert "moved (100%)" in alarm.describe_power(by_subject, 12)


# ---- promises ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd():
    """People of whom each has cells that are hard alike: probabilities around a level of their own."""
    rng = np.random.default_rng(5)
    people, cells = 600, 10
    truth = np.repeat(rng.random(people) < 0.5, cells)
    logit = np.repeat(2.0 + 2 * rng.normal(size=people), cells) + rng.normal(size=people * cells)
    p = 1 / (1 + np.exp(-np.where(truth, logit, -logit)))
    group = np.repeat([f"{k}" for k in range(people)], cells)
    names = [f"{k}.png" for k in range(people * cells)]
    label = np.where(truth, "ALL", "HEM")
    return pd.DataFrame({"path": names, "label": label, "subject": group, "group": group, "p_ALL": p, "p_HEM": 1 - p})


def test_sets_are_those_of_a_quantile_by_hand(crowd):
    aside, asked = crowd.iloc[:400], crowd.iloc[400:1000]
    sets = conformal.predict_sets(aside, asked, way="by cell")
    score = 1 - np.where(aside["label"] == "ALL", aside["p_ALL"], aside["p_HEM"])
    limit = np.sort(score)[int(np.ceil(0.9 * 401)) - 1]
    assert (sets["labels"] == (1 - probabilities_of(asked) <= limit + 1e-9).sum(axis=1)).mean() > 0.995


def test_one_cell_stands_for_each_person(crowd):
    chosen = conformal.hardest_cells(crowd)
    assert len(chosen) == crowd["group"].nunique()
    of_true = np.where(crowd["label"] == "ALL", crowd["p_ALL"], crowd["p_HEM"])
    person = crowd.assign(true=of_true)[crowd["group"] == "7"].sort_values("true", ascending=False)
    assert chosen[chosen["group"] == "7"]["path"].item() == person["path"].iloc[8], "ninth of ten, from easy to hard"


def test_from_too_few_people_every_set_holds_all(crowd, rows):
    few = crowd[crowd["group"].isin([str(k) for k in range(9)])]
    sets = conformal.predict_sets(few, crowd.iloc[400:500], way="by person")
    assert (sets["labels"] == 2).all()
    assert (conformal.predict_sets(few, crowd.iloc[400:500], way="by person", level=0.8)["labels"] < 2).any()
    table = conformal.tabulate_promises(pd.concat([sets.assign(hospital="home", way=way) for way in conformal.WAYS]))
    assert "worth nothing here" in conformal.describe_table(table, rows)


def test_each_way_keeps_its_own_promise_and_a_move_breaks_it(crowd):
    odds = np.log(crowd["p_ALL"] / crowd["p_HEM"]) - 2.5
    moved = crowd.assign(p_ALL=1 / (1 + np.exp(-odds)), p_HEM=1 / (1 + np.exp(odds)))
    means = conformal.summarise_promises(conformal.simulate_promises({"home": crowd, "moved": moved}, draws=40))
    assert means.at[("home", "by cell"), "cells covered"] == pytest.approx(0.9, abs=0.02)
    assert means.at[("home", "by cell"), "people kept"] < 0.85
    assert means.at[("home", "by person"), "people kept"] == pytest.approx(0.9, abs=0.03)
    assert means.at[("home", "by person"), "both classes"] > means.at[("home", "by cell"), "both classes"]
    assert means.at[("moved", "by person"), "people kept"] < 0.85
    home, elsewhere = conformal.describe_promises(means).splitlines()[1:]
    assert "kept" in home
    assert "broken" in elsewhere


def test_sets_of_all_hospitals_are_calibrated_at_home(answers, rows):
    covered = conformal.cover_hospitals(answers)
    table = conformal.tabulate_promises(covered)
    assert table.at[("home", "by cell"), "cells covered"] == pytest.approx(0.9, abs=0.04)
    assert table.at[("moved", "by cell"), "cells covered"] < table.at[("home", "by cell"), "cells covered"] - 0.02
    assert conformal.cover_people(covered).groupby(["hospital", "way"]).size().at[("home", "by cell")] == 50
    assert "inconclusive" in conformal.describe_table(table, rows.assign(subject=None))
    assert "moved" in conformal.describe_table(table, rows) or "noise" in conformal.describe_table(table, rows)
