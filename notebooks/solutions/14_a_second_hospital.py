"""Worked solutions of notebook 14, and for each exercise two plausible wrong answers with words of the hint they get."""

from allkit.lessons import conformal


def exercise_14_1(table):
    # The largest mean probability minus the share that was observed, with its sign.
    return table.xs("predicted - observed", level="measure")["value"].idxmax()


def wrong_14_1(table):
    excess = table.xs("predicted - observed", level="measure")["value"]
    loss = table.xs("log_loss", level="measure")["value"]
    return [(excess.idxmin(), "too rarely"), (loss.idxmax(), "log loss")]


def exercise_14_2(alarms):
    # The share of the draws at home in which it rings, in units of the promised 5 %.
    return alarms["by cell"].loc["home", "value"] / 0.05


def wrong_14_2(alarms):
    return [
        (alarms["by cell"].loc["home", "value"], "the share itself"),
        (
            alarms["by subject"].loc["home", "value"] / 0.05,
            "subjects shuffled",
        ),
    ]


def exercise_14_3(answers):
    # Both functions get the new level: the sets, and then what is counted in them.
    covered = conformal.cover_hospitals(answers, level=0.8)
    promises = conformal.tabulate_promises(covered, level=0.8)
    return promises.loc[("home", "by person"), "both classes"]


def wrong_14_3(answers):
    covered = conformal.cover_hospitals(answers, level=0.8)
    promises = conformal.tabulate_promises(covered, level=0.8)
    usual = conformal.tabulate_promises(conformal.cover_hospitals(answers))
    return [
        (usual.loc[("home", "by person"), "both classes"], "90 %"),
        (promises.loc[("home", "by cell"), "both classes"], "by cell"),
    ]


def exercise_14_4():
    # Without labels, a changed share of ill people looks like a changed microscope.
    return "b"


def wrong_14_4():
    return [("a", "no label was used"), ("c", "knows nothing of the clinic")]
