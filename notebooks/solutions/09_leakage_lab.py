"""Worked solutions of notebook 09, and for each exercise two plausible wrong answers with words of the hint they get."""


def exercise_09_1(found):
    # Copies made before the split put the same file on both sides.
    return found.groupby("split_kind")["file"].mean().idxmax()


def wrong_09_1(found):
    return [
        ("by image", "subjects and microscope images"),
        ("by subject, as named", "shares bytes"),
    ]


def exercise_09_2(found):
    # Both rows of the table of gaps together: from the paper's order down to the split by subject.
    auc = (
        found[found["baseline"] == "nearest neighbours"]
        .groupby("split_kind")["auc"]
        .mean()
    )
    return auc["augment, then split"] - auc["by subject, duplicates merged"]


def wrong_09_2(found):
    auc = found.groupby(["baseline", "split_kind"])["auc"].mean()
    weighs, remembers = auc["logistic regression"], auc["nearest neighbours"]
    cannot_remember = (
        weighs["augment, then split"] - weighs["by subject, duplicates merged"]
    )
    return [
        (
            remembers["augment, then split"] - remembers["by image"],
            "what the copies add",
        ),
        (cannot_remember, "cannot remember"),
    ]


def exercise_09_3(gap):
    # As many standard errors as fit into the difference.
    return gap.loc[1.0, "measured"] / gap.loc[1.0, "error"]


def wrong_09_3(gap):
    row, other = gap.loc[1.0], gap.loc[2.0]
    return [
        (row["true"] / row["error"], "the true difference"),
        (other["measured"] / other["error"], "the setting 2"),
    ]


def exercise_09_4(strong):
    # The share of the runs in which the difference is so large, times thirty.
    runs = strong[strong["baseline"] == "nearest neighbours"]
    return 30 * (runs["measured"] > 0.05).mean()


def wrong_09_4(strong):
    runs = strong[strong["baseline"] == "nearest neighbours"]
    weighs = strong[strong["baseline"] == "logistic regression"]
    return [
        ((runs["measured"] > 0.05).mean(), "their share"),
        (30 * (weighs["measured"] > 0.05).mean(), "logistic regression"),
    ]


def exercise_09_5():
    # Ten times as many cells of the same subjects: each test cell still has its subject in training.
    return "d"


def wrong_09_5():
    return [("a", "does not thin out"), ("c", "still too high")]
