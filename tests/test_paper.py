"""The paper's tables, and what their printed digits imply."""

import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.metrics import classification_report, confusion_matrix, roc_auc_score

from allkit import AllkitError
from allkit.lessons import paper


@pytest.mark.parametrize("model", ["mobilenet", "efficientnetb3"])
def test_tables_hold_five_epochs_and_accuracies_are_fractions_of_one_split(model):
    table = paper.load_table(model)
    assert table["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert set(table["monitor"]) == {"accuracy", "val_loss"}
    # 7,462 training and 1,599 validation images: 70 % and 15 % of the 10,661 labelled images.
    assert all(paper.possible_counts(value, 3, 7462) for value in table["accuracy"])
    assert all(paper.possible_counts(value, 3, 1599) for value in table["val_accuracy"])


def test_no_other_validation_size_explains_the_tables():
    printed = [
        *paper.load_table("mobilenet")["val_accuracy"],
        *paper.load_table("efficientnetb3")["val_accuracy"],
    ]
    fitting = [n for n in range(200, 2001) if all(paper.possible_counts(value, 3, n) for value in printed)]
    assert fitting == [1599]


def test_possible_counts_lists_all_and_only_what_rounds():
    assert paper.possible_counts(50.0, 0, 4) == [2]
    assert paper.possible_counts(33.3, 1, 3) == [1]
    assert paper.possible_counts(12.3, 1, 3) == []
    assert paper.possible_counts(100.0, 1, 7) == [7]


def test_figure_11_has_one_confusion_matrix():
    matrices = paper.reconstruct_confusion(paper.load_report("mobilenet"))
    assert [m.tolist() for m in matrices] == [[[1032, 59], [257, 252]]]


def test_figure_16_has_four_confusion_matrices_with_the_reported_number_right():
    reported = paper.load_reported().set_index(["model", "measure"])["value"]
    right = int(reported["efficientnetb3", "correct"])
    matrices = paper.reconstruct_confusion(paper.load_report("efficientnetb3"), correct=right)
    expected = [[[988 + i, 103 - i], [75 + i, 434 - i]] for i in range(4)]
    assert sorted(m.tolist() for m in matrices) == expected
    assert len(paper.reconstruct_confusion(paper.load_report("efficientnetb3"))) > 4


def test_a_reconstructed_matrix_prints_the_report_again():
    report = paper.load_report("mobilenet")
    (matrix,) = paper.reconstruct_confusion(report)
    truth = np.repeat(["ALL", "HEM"], matrix.sum(axis=1))
    answer = np.concatenate([np.repeat(["ALL", "HEM"], row) for row in matrix])
    printed = classification_report(truth, answer, output_dict=True)
    for row in ("ALL", "HEM", "macro avg", "weighted avg"):
        assert round(printed[row]["precision"], 2) == report.loc[row, "precision"]
        assert round(printed[row]["f1-score"], 2) == report.loc[row, "f1_score"]


def test_reported_accuracies_are_those_of_training():
    reported = paper.load_reported().set_index(["model", "measure"])
    for model in ("mobilenet", "efficientnetb3"):
        row = reported.loc[(model, "accuracy_percent")]
        assert row["value"] == paper.load_table(model)["accuracy"].iloc[-1]
        assert "training" in row["remark"]
        right, wrong = reported.loc[(model, "correct"), "value"], reported.loc[(model, "wrong"), "value"]
        assert right + wrong == paper.load_report(model)["support"].iloc[:2].sum()


def test_literature_says_how_it_was_split_and_whether_it_was_read():
    table = paper.load_literature()
    assert set(table["split"]) == {"by subject", "by image or not stated"}
    assert set(table["verified"]) == {"abstract", "second-hand"}
    assert table["value"].between(0, 1).all()
    assert (table.loc[table["verified"] == "abstract", "reference"] != "").all()


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(AllkitError, match="resnet"):
        paper.load_table("resnet")


def test_summary_gives_the_test_figures_that_the_text_does_not():
    found = paper.summarise("mobilenet")
    assert found["accuracy"] == pytest.approx(0.8025)
    assert found["balanced_accuracy"] == pytest.approx(0.7205, abs=1e-4)
    assert found["weighted_f1"] == pytest.approx(0.787, abs=5e-4)
    assert paper.summarise("efficientnetb3")["accuracy"] == pytest.approx(0.88875)
    assert paper.summarise("efficientnetb3")["training_seconds"] > 10 * found["training_seconds"] / 2


def test_the_audit_finds_what_the_tables_prove():
    audit = paper.audit_paper().set_index("claim")["verdict"]
    found = {verdict: sum(audit == verdict) for verdict in set(audit)}
    assert set(found) == {"confirmed", "contradicted", "inconclusive"}
    expected = {
        "How many images": "contradicted", "The test part": "confirmed", "The split": "confirmed",
        "The classes were balanced": "contradicted", "The accuracy": "contradicted", "One rule": "confirmed",
        "The reports": "confirmed", "MobileNet learns": "contradicted", "MobileNet sees more": "inconclusive",
        "EfficientNetB3 is better": "confirmed", "The test images are new": "contradicted",
    }  # fmt: skip
    for start, verdict in expected.items():
        (claim,) = [claim for claim in audit.index if claim.startswith(start)]
        assert audit[claim] == verdict, claim


def test_the_audit_follows_the_tables(monkeypatch):
    """Other numbers, other verdicts: nothing in it is written by hand."""
    table = paper.load_table("mobilenet").assign(val_accuracy=[70.0, 75.0, 80.0, 80.0, 85.0], next_lr=0.002)
    monkeypatch.setattr(paper, "load_table", lambda model: table)
    audit = paper.audit_paper().set_index("claim")["verdict"]
    assert audit[[claim for claim in audit.index if claim.startswith("MobileNet learns")]].tolist() == ["confirmed"]
    assert audit[[claim for claim in audit.index if claim.startswith("The split")]].tolist() == ["contradicted"]
    assert audit[[claim for claim in audit.index if claim.startswith("One rule")]].tolist() == ["contradicted"]


def test_printed_accuracies_fit_one_size_only():
    accuracies = [
        value for model in ("mobilenet", "efficientnetb3") for value in paper.load_table(model)["val_accuracy"]
    ]
    assert paper.sizes_that_fit(accuracies, range(200, 3001)) == [1599]
    assert paper.split_sizes(10_661) == (7462, 1599, 1600)


def test_mcnemar_bounds_hold_for_every_pairing():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [60, 40])
    for _ in range(50):
        answers = [np.where(rng.random(100) < skill, truth, 1 - truth) for skill in (0.7, 0.85)]
        first, second = (confusion_matrix(truth, answer) for answer in answers)
        low, high = paper.mcnemar_bounds(first, second)
        right = [answer == truth for answer in answers]
        only_first, only_second = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
        total = only_first + only_second
        p = chi2.sf((only_second - only_first) ** 2 / total, 1) if total else 1.0
        assert low - 1e-12 <= p <= high + 1e-12


def test_area_alone_is_as_good_as_the_formula_says():
    rng = np.random.default_rng(0)
    ill, healthy = rng.normal(36_244, 7_176, 20_000), rng.normal(26_544, 7_762, 20_000)
    measured = roc_auc_score(np.repeat([1, 0], 20_000), np.concatenate([ill, healthy]))
    assert paper.auc_of_normals(paper.AREA_MEAN, paper.AREA_SPREAD) == pytest.approx(measured, abs=0.01)
    spread = [
        roc_auc_score(np.repeat([1, 0], [300, 150]), np.concatenate([rng.choice(ill, 300), rng.choice(healthy, 150)]))
        for _ in range(200)
    ]
    assert paper.auc_error(measured, 300, 150) == pytest.approx(np.std(spread), rel=0.25)


def test_cells_that_training_knows_are_counted_in_the_list_of_files():
    shared = paper.shared_with_training()
    assert shared["subject"] == 1
    assert 0.88 < shared["source image"] < 0.96
    assert 0.005 < shared["bytes"] < 0.025
