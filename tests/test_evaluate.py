"""Metrics against scikit-learn and against the paper's own matrices; intervals that know their limits."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from allkit import AllkitError
from allkit.evaluate import (
    LOSSES,
    as_text,
    classification_table,
    compare_predictions,
    confusion,
    evaluate_calibration,
    evaluate_predictions,
    evaluate_subjects,
    evaluate_thresholds,
    evaluate_with_intervals,
    predicted_labels,
    roc_auc,
    top_losses,
)
from allkit.lessons.uncertainty import (
    evaluate_at_threshold,
    evaluate_fixed_specificity,
    fit_temperature,
    intraclass_correlation,
    permutation_test,
    scale_temperature,
    simulate_logits,
    simulate_test_sets,
)


def make_predictions(labels, proba, subjects=None) -> pd.DataFrame:
    table = pd.DataFrame({"path": [f"{k}.png" for k in range(len(labels))], "label": labels})
    table["subject"] = subjects if subjects is not None else None
    table["group"] = table["subject"].fillna(table["path"])
    for k, name in enumerate(["ALL", "HEM", "OTHER"][: proba.shape[1]]):
        table[f"p_{name}"] = proba[:, k]
    return table


def from_matrix(matrix) -> pd.DataFrame:
    """Predictions with certainty that give this confusion matrix."""
    labels, proba = [], []
    for true, name in enumerate(["ALL", "HEM"]):
        for called in (0, 1):
            labels += [name] * matrix[true][called]
            proba += [np.eye(2)[called]] * matrix[true][called]
    return make_predictions(labels, np.array(proba))


def random_predictions(classes: int, subjects: int = 0, skill: float = 1.0, seed: int = 0, n: int = 300):
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, subjects, n) if subjects else np.arange(n)
    truth = owner % classes
    luck = rng.normal(size=(max(subjects, n), classes))[owner]
    score = skill * np.eye(classes)[truth] + 0.5 * luck + 0.5 * rng.normal(size=(n, classes))
    proba = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    labels = np.array(["ALL", "HEM", "OTHER"])[truth]
    return make_predictions(labels, proba, [f"S{k}" for k in owner] if subjects else None)


def test_the_papers_matrices_give_the_papers_figures():
    found = evaluate_predictions(from_matrix([[1032, 59], [257, 252]]))
    assert found["weighted_f1"] == pytest.approx(0.787, abs=0.0005)
    assert found["balanced_accuracy"] == pytest.approx(0.7205, abs=0.00005)
    assert found["accuracy"] == 1284 / 1600
    assert found["sensitivity"] == found["recall_ALL"] == 1032 / 1091
    assert found["specificity"] == 252 / 509


@pytest.mark.parametrize("classes", [2, 3])
def test_measures_agree_with_scikit_learn(classes):
    table = random_predictions(classes)
    found, called = evaluate_predictions(table), predicted_labels(table)
    proba = table.filter(like="p_").to_numpy()
    truth = table["label"]
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, called))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, called))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, called, average="macro"))
    assert found["weighted_f1"] == pytest.approx(metrics.f1_score(truth, called, average="weighted"))
    assert found["precision_HEM"] == pytest.approx(
        metrics.precision_score(truth, called, labels=["HEM"], average="macro")
    )
    auc = (
        metrics.roc_auc_score(truth == "ALL", proba[:, 0])
        if classes == 2
        else metrics.roc_auc_score(truth, proba, multi_class="ovr", labels=["ALL", "HEM", "OTHER"])
    )
    assert found["auc"] == pytest.approx(auc)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truth, proba))
    assert ("sensitivity" in found) == (classes == 2)


def test_report_and_matrix_put_the_positive_class_first():
    table = from_matrix([[1032, 59], [257, 252]])
    assert confusion(table).to_numpy().tolist() == [[1032, 59], [257, 252]]
    report = classification_table(table).round(2)
    assert report.loc["ALL"].tolist() == [0.80, 0.95, 0.87, 1091]
    assert report.loc["HEM"].tolist() == [0.81, 0.50, 0.61, 509]
    assert report.loc["weighted avg", "f1-score"] == 0.79


def test_intervals_resample_subjects_and_are_wider_for_it():
    by_subject = random_predictions(2, subjects=20, n=400)
    by_image = by_subject.assign(subject=None, group=by_subject["path"])
    subjects, images = (evaluate_with_intervals(t, resamples=200).loc["auc"] for t in (by_subject, by_image))
    assert subjects["resampled"] == "subjects"
    assert images["resampled"] == "images"
    assert subjects["units"] == 10
    assert subjects["low"] < subjects["value"] < subjects["high"]
    assert subjects["high"] - subjects["low"] > 1.5 * (images["high"] - images["low"])


def test_too_few_subjects_are_inconclusive():
    few = random_predictions(2, subjects=6)
    table = evaluate_with_intervals(few, resamples=50)
    assert table["low"].isna().all()
    assert as_text(table).loc["auc", "low"] == "inconclusive"
    assert (compare_predictions(few, few, resamples=50)["verdict"] == "inconclusive").all()


def test_comparison_is_paired_and_names_the_better():
    good = random_predictions(2, subjects=20, skill=6, seed=1)
    bad = good.assign(p_ALL=0.5 + 0.01 * np.sin(np.arange(len(good))))
    bad["p_HEM"] = 1 - bad["p_ALL"]
    assert compare_predictions(good, bad, resamples=100).loc["auc", "verdict"] == "first"
    assert compare_predictions(bad, good, resamples=100).loc["auc", "verdict"] == "second"
    assert (compare_predictions(good, bad, resamples=100).loc[list(LOSSES), "verdict"] == "first").all()
    assert compare_predictions(good, good, resamples=100).loc["auc", "verdict"] == "inconclusive"
    with pytest.raises(AllkitError, match="different images"):
        compare_predictions(good, bad.assign(path="other.png"))


def test_one_class_only_has_no_auc():
    table = from_matrix([[5, 3], [0, 0]])
    assert np.isnan(evaluate_predictions(table)["auc"])


def honest_predictions(n: int = 20000, seed: int = 0) -> pd.DataFrame:
    """Images whose labels are drawn with just the probability that is predicted."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=n)
    return make_predictions(np.where(rng.uniform(size=n) < p, "ALL", "HEM"), np.column_stack([p, 1 - p]))


def sharpened(table: pd.DataFrame, power: float) -> pd.DataFrame:
    """The same predictions, more certain (power above 1) or less."""
    proba = table.filter(like="p_") ** power
    return table.assign(**proba.div(proba.sum(axis=1), axis=0))


def test_calibration_error_is_none_for_honest_probabilities_and_large_for_boasting_ones():
    honest = honest_predictions()
    assert evaluate_predictions(honest)["calibration_error"] < 0.015
    assert evaluate_predictions(sharpened(honest, 4))["calibration_error"] > 0.1
    found = evaluate_calibration(honest)
    assert found["images"].sum() == len(honest)
    assert list(found.index[[0, -1]]) == ["0.0–0.1", "0.9–1.0"]
    np.testing.assert_allclose(found["predicted"], found["observed"], atol=0.03)


def test_calibration_agrees_with_scikit_learn():
    table = random_predictions(2)
    observed, predicted = calibration_curve(table["label"] == "ALL", table["p_ALL"], n_bins=10)
    found = evaluate_calibration(table)
    np.testing.assert_allclose(found[["predicted", "observed"]], np.column_stack([predicted, observed]))
    gaps = (found["predicted"] - found["observed"]).abs()
    measures = evaluate_predictions(table)
    assert measures["calibration_error"] == pytest.approx(np.average(gaps, weights=found["images"]))
    assert measures["brier"] == pytest.approx(metrics.brier_score_loss(table["label"] == "ALL", table["p_ALL"]))
    three = random_predictions(3)
    expected = metrics.brier_score_loss(three["label"], three.filter(like="p_"), scale_by_half=True)
    assert evaluate_predictions(three)["brier"] == pytest.approx(expected)


def test_with_three_classes_the_confidence_of_the_answer_is_checked():
    table = random_predictions(3)
    found = evaluate_calibration(table)
    predicted, observed = (np.average(found[name], weights=found["images"]) for name in ("predicted", "observed"))
    assert predicted == pytest.approx(table.filter(like="p_").max(axis=1).mean())
    assert observed == pytest.approx(evaluate_predictions(table)["accuracy"])


def test_certain_probabilities_have_a_place_too():
    found = evaluate_calibration(from_matrix([[8, 2], [1, 9]]))
    assert found["observed"].tolist() == [2 / 11, 8 / 9]


def test_temperature_brings_honest_probabilities_back():
    honest = honest_predictions(4000)
    boasting = sharpened(honest, 2.5)
    temperature = fit_temperature(boasting)
    assert temperature == pytest.approx(2.5, rel=0.1)
    cooled = scale_temperature(boasting, temperature)
    assert evaluate_predictions(cooled)["log_loss"] < evaluate_predictions(boasting)["log_loss"]
    assert evaluate_predictions(cooled)["auc"] == pytest.approx(evaluate_predictions(boasting)["auc"])
    assert list(predicted_labels(cooled)) == list(predicted_labels(boasting))
    three = random_predictions(3, n=3000)
    wilder = fit_temperature(sharpened(three, 3)) / fit_temperature(three)
    assert wilder == pytest.approx(3, rel=0.01)


def test_temperature_is_inconclusive_where_images_are_all_right():
    sure = make_predictions(["ALL", "HEM"] * 5, np.tile([[0.9, 0.1], [0.2, 0.8]], (5, 1)))
    assert np.isnan(fit_temperature(sure))
    with pytest.raises(AllkitError, match="temperature"):
        scale_temperature(sure, fit_temperature(sure))


def test_swapping_sees_a_large_difference_and_no_more_than_chance_in_none():
    good = random_predictions(2, subjects=20, skill=6, seed=1)
    chance = good.assign(p_ALL=np.random.default_rng(0).uniform(size=len(good)))
    chance["p_HEM"] = 1 - chance["p_ALL"]
    table = permutation_test(good, chance, resamples=199)
    assert (table["p"] <= 0.02).all()
    assert (table["verdict"] == "first").all()
    assert (permutation_test(chance, good, resamples=199)["verdict"] == "second").all()
    assert table["swapped"].unique() == ["subjects"]
    assert table["units"].unique() == [20]


def test_p_of_swapping_is_evenly_spread_when_nothing_differs():
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        first = random_predictions(2, subjects=12, skill=1, seed=seed, n=120)
        second = random_predictions(2, subjects=12, skill=1, seed=seed, n=120)
        for table in (first, second):  # the same subjects, each model with its own luck
            luck = rng.normal(size=12)[table["subject"].str[1:].astype(int)] + rng.normal(size=120)
            score = (table["label"] == "ALL") + luck
            table["p_ALL"] = 1 / (1 + np.exp(-score))
            table["p_HEM"] = 1 - table["p_ALL"]
        found.append(permutation_test(first, second, resamples=99).loc["auc", "p"])
    assert 0.3 < np.mean(found) < 0.7
    assert np.mean(np.array(found) <= 0.2) < 0.4


def test_a_model_that_is_only_more_certain_ranks_alike():
    table = random_predictions(2, subjects=20, seed=3)
    found = permutation_test(table, sharpened(table, 5), resamples=99)
    assert found["difference"].tolist() == [0, 0]
    assert (found["p"] == 1).all()


def test_swapping_tells_how_little_few_subjects_could_show():
    few = random_predictions(2, subjects=4)
    table = permutation_test(few, few, resamples=999)
    assert table["p"].isna().all()
    assert table["smallest_p"].unique() == [2 / 2**4]
    assert as_text(table).loc["auc", "p"] == "inconclusive"
    three = random_predictions(3)
    assert permutation_test(three, sharpened(three, 2), resamples=19)["swapped"].unique() == ["images"]


COSTS = {"prevalence": 0.05, "cost_missed": 20, "cost_false_alarm": 1}


def test_a_dear_miss_lowers_the_threshold_and_a_rare_disease_raises_it():
    table = random_predictions(2, skill=1.5, n=600)

    def best(**changes):
        found = evaluate_thresholds(table, **COSTS | changes)
        return found.loc[found["cost_per_1000"].idxmin(), "threshold"]

    assert best(cost_missed=200) < best(cost_missed=20) < best(cost_missed=2)
    assert best(prevalence=0.001) > best() > best(prevalence=0.5)


def test_thresholds_run_from_none_to_all():
    found = evaluate_thresholds(random_predictions(2), **COSTS)
    none, everyone = found.iloc[0], found.iloc[-1]
    assert (none["sensitivity"], none["specificity"]) == (0, 1)
    assert none["cost_per_1000"] == pytest.approx(1000 * 0.05 * 20)
    assert np.isnan(none["ppv"])
    assert (everyone["sensitivity"], everyone["specificity"]) == (1, 0)
    assert everyone["cost_per_1000"] == pytest.approx(950)
    assert everyone["ppv"] == pytest.approx(0.05)
    with pytest.raises(AllkitError, match="positive and negative"):
        evaluate_thresholds(from_matrix([[5, 3], [0, 0]]), **COSTS)
    with pytest.raises(AllkitError, match="prevalence"):
        evaluate_thresholds(random_predictions(2), **COSTS | {"prevalence": 5})
    with pytest.raises(AllkitError, match="above 0"):
        evaluate_at_threshold(random_predictions(2), 0.5, **COSTS | {"cost_missed": 0})


def test_one_threshold_agrees_with_the_table_and_has_intervals():
    table = random_predictions(2, subjects=20)
    row = evaluate_thresholds(table, **COSTS).iloc[100]
    found = evaluate_at_threshold(table, row["threshold"], **COSTS)
    assert found["value"].to_dict() == pytest.approx(row.drop("threshold").to_dict())
    assert (found["low"] < found["value"]).all()
    assert found["resampled"].unique() == ["subjects"]
    few = evaluate_at_threshold(random_predictions(2, subjects=6), 0.5, **COSTS)
    assert few["low"].isna().all()


def test_predictive_values_by_hand():
    found = evaluate_at_threshold(from_matrix([[90, 10], [20, 80]]), 0.5, **COSTS)["value"]
    assert found["ppv"] == pytest.approx(0.05 * 0.9 / (0.05 * 0.9 + 0.95 * 0.2))
    assert found["npv"] == pytest.approx(0.95 * 0.8 / (0.95 * 0.8 + 0.05 * 0.1))
    assert found["cost_per_1000"] == pytest.approx(1000 * (0.05 * 0.1 * 20 + 0.95 * 0.2))


def test_sensitivity_where_specificity_is_fixed():
    table = random_predictions(2, subjects=20)
    found = evaluate_fixed_specificity(table, (0.9,))
    fall_out, recall, _ = metrics.roc_curve(table["label"] == "ALL", table["p_ALL"])
    assert found.index.tolist() == ["sensitivity at 0.90"]
    assert found["value"].iloc[0] == pytest.approx(recall[fall_out <= 0.1 + 1e-9].max())
    assert found["low"].iloc[0] <= found["value"].iloc[0] <= found["high"].iloc[0]
    assert evaluate_fixed_specificity(from_matrix([[5, 3], [0, 0]]))["value"].isna().all()


def test_subjects_come_worst_first_and_the_unknown_not_at_all():
    table = random_predictions(2, subjects=8)
    found = evaluate_subjects(table)
    assert found["images"].sum() == len(table)
    assert found["right"].is_monotonic_increasing
    worst = table[table["subject"] == found.index[0]]
    assert found["right"].iloc[0] == pytest.approx(evaluate_predictions(worst)["accuracy"])
    assert evaluate_subjects(random_predictions(2)).empty


def test_answers_come_in_order_of_their_loss():
    table = random_predictions(3, subjects=9)
    found = top_losses(table)
    assert sorted(found["path"]) == sorted(table["path"])
    assert found["loss"].is_monotonic_decreasing
    assert found["label"].iloc[0] != found["called"].iloc[0]
    by_path = table.set_index("path").loc[found["path"].iloc[0]]
    assert found["probability"].iloc[0] == by_path[f"p_{by_path['label']}"]
    assert found["loss"].mean() == pytest.approx(evaluate_predictions(table)["log_loss"])


def test_spread_between_subjects_is_found():
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(60), 15)
    labels = np.where(owner % 2, "ALL", "HEM")
    subject, cell = rng.normal(size=60)[owner], rng.normal(size=(2, 900))
    tables = []
    for noise in cell:
        p = 1 / (1 + np.exp(-(2 * (labels == "ALL") + np.sqrt(0.4) * subject + np.sqrt(0.6) * noise)))
        tables.append(make_predictions(labels, np.column_stack([p, 1 - p]), [f"S{k}" for k in owner]))
    found = intraclass_correlation(*tables)
    assert found["subject_share"] == pytest.approx(0.4, abs=0.12)
    assert found["shared"] == pytest.approx(0.4, abs=0.12)
    few = random_predictions(2, subjects=6)
    assert np.isnan(list(intraclass_correlation(few, few).values())).all()
    one_each = tables[0].groupby("subject").head(1)
    assert np.isnan(intraclass_correlation(one_each, one_each)["subject_share"])


def test_simulated_intervals_hold_the_truth_if_subjects_are_resampled_and_miss_it_if_cells_are():
    table = simulate_test_sets(subjects=(3, 20), sets=100, seed=1).set_index(["subjects", "resampled"])
    assert 0.85 <= table.loc[(20, "subjects"), "covers"] <= 1
    assert table.loc[(20, "cells"), "covers"] < table.loc[(20, "subjects"), "covers"] - 0.1
    assert table.loc[(20, "cells"), "width"] < 0.8 * table.loc[(20, "subjects"), "width"]
    assert table.loc[(3, "subjects"), "width"] > table.loc[(20, "subjects"), "width"]
    with pytest.raises(AllkitError, match="shares"):
        simulate_test_sets(subject_share=2)
    alike = simulate_test_sets(subject_share=0, subjects=(20,), sets=100).set_index("resampled")
    assert alike.loc["cells", "covers"] >= 0.85  # cells that are not alike may be counted one by one


def test_simulated_models_have_the_areas_they_are_said_to_have():
    rng = np.random.default_rng(0)
    logits = np.concatenate([simulate_logits(rng, 40, 5, (0.9, 0.8), 0.3, 0.5) for _ in range(20)], axis=2)
    positive = np.repeat([True, False], logits[0, 0].size)
    areas = [metrics.roc_auc_score(positive, model.reshape(2, -1).ravel()) for model in logits]
    assert areas == pytest.approx([0.9, 0.8], abs=0.015)
    between = logits.mean(axis=3).var(axis=2)
    assert np.mean(between / logits.var(axis=(2, 3))) == pytest.approx(0.3 + 0.7 / 5, abs=0.03)
    assert np.corrcoef(logits[0, 1].ravel(), logits[1, 1].ravel())[0, 1] == pytest.approx(0.5, abs=0.05)


def test_area_under_the_curve_counts_ties_and_weights_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    truth, score, weight = rng.uniform(size=200) > 0.4, rng.integers(0, 9, 200), rng.integers(0, 4, 200)
    expected = metrics.roc_auc_score(~truth, score, sample_weight=weight)
    scores = np.column_stack([score, -score])
    assert roc_auc(truth.astype(int), scores, weight.astype(float)) == pytest.approx(expected)
