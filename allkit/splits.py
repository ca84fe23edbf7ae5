"""Which subjects are trained on and which are tested on, and the guard that keeps them apart.

The paper (III.A) splits by image: cells of one subject land in training and in test. A split by subject asks
the question that matters in a clinic: does it work on subjects that the network has never seen?
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from allkit import AllkitError
from allkit.augment import balance
from allkit.data import class_order, natural_key
from allkit.images import first_of
from allkit.source import GIVEN

SPLITS = ("image", "subject", "folds", "hold-out", "given")

FRACTIONS = (0.70, 0.15, 0.15)
"""Training, validation and test in the paper's split (III.A), by image."""

SUBJECT_FRACTIONS = (0.60, 0.15, 0.25)
"""By subject the test part is larger: an interval needs subjects, and a sixth of C-NMC's healthy ones is four."""

_VALIDATION_SHARE = FRACTIONS[1] / (FRACTIONS[0] + FRACTIONS[1])  # of what is not tested on

_MIN_GROUPS = 3  # of every class, before a group is spent on validation: training must keep two


class LeakError(AllkitError):
    """The same image, content or subject is in two parts of a split; the message names the offenders."""


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of an index for training, validation and test.

    `shares_subjects`: by construction, subjects (or, where they are unknown, perhaps subjects) are both in
    training and in test. `validation_by_image`: subjects are shared by training and validation only; the test
    part is clean. `note`: one or two sentences on what the split allows to conclude.
    """

    name: str
    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    shares_subjects: bool
    note: str
    validation_by_image: bool = False

    @property
    def by_image(self) -> bool:
        """Whether images were drawn without regard to their subjects, as in the paper."""
        return self.name in ("image", "augment-then-split")

    @property
    def parts(self) -> dict[str, pd.DataFrame]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def share_known(self, column: str) -> float:
        """Return which share of test rows, 0–1, has a value of training in this column; NaN where one is unknown."""
        train, test = self.train[column], self.test[column]
        return float(test.isin(set(train.dropna())).mean()) if test.notna().all() else float("nan")

    def counts(self) -> pd.DataFrame:
        """Return images per part and class, and subjects per part (<NA> where unknown)."""
        rows = []
        for name, part in self.parts.items():
            images = {label: int((part["label"] == label).sum()) for label in class_order(part)}
            subjects = pd.NA if part["subject"].isna().any() else part["subject"].nunique()
            rows.append({"part": name, "images": len(part), **images, "subjects": subjects})
        return pd.DataFrame(rows).set_index("part").astype("Int64")


def split_data(
    index: pd.DataFrame,
    how: str,
    *,
    seed: int = 123,
    hold_out: str = "",
    fold: int | None = None,
) -> Split:
    """Return the split called `how`: "image", "subject", "folds", "hold-out" or "given" (the data's own division).

    `hold_out` says what is tested on: for "hold-out" one subject or several, separated by commas; for "folds"
    the number of an official fold (empty: 0). `fold` leaves out the images of all other official folds before
    anything is split.
    """
    if fold is not None:
        index = index[index["fold"] == fold]
        if index.empty:
            raise AllkitError(f"There is no image of fold {fold}. Leave fold empty to use all of them.")
    if how == "image":
        return split_by_image(index, seed=seed)
    if how == "subject":
        return split_by_subject(index, seed=seed)
    if how == "folds":
        if not (hold_out.strip() or "0").isdecimal():
            raise AllkitError(f"hold_out is {hold_out!r}; with the split 'folds' give the number of one fold.")
        return split_by_fold(index, test_fold=int(hold_out or 0), seed=seed)
    if how == "given":
        return split_as_given(index, seed=seed)
    if how == "hold-out":
        subjects = [subject.strip() for subject in hold_out.split(",") if subject.strip()]
        return split_hold_out(index, subjects, seed=seed)
    near = difflib.get_close_matches(how, SPLITS, n=2, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise AllkitError(f"No split is called {how!r}. {hint}There are {', '.join(SPLITS)}.")


def split_by_image(index: pd.DataFrame, fractions: Sequence[float] = FRACTIONS, seed: int = 123) -> Split:
    """Return the paper's split (III.A): images drawn at random, stratified by class, whatever their subject.

    scikit-learn's `train_test_split` twice, 70 % and then half of the rest: the two steps give exactly the
    part sizes that the paper's accuracies prove. Subjects land in several parts: pass it to training with
    `allow_leak=True`.
    """
    rows = _labelled(index)
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise AllkitError(f"The fractions {tuple(fractions)} must be three positive numbers that add up to 1.")
    held = round(fractions[1] + fractions[2], 10)
    try:
        train, rest = train_test_split(rows, test_size=held, stratify=rows["label"], random_state=seed)
        validation, test = train_test_split(
            rest, test_size=round(fractions[2] / held, 10), stratify=rest["label"], random_state=seed
        )
    except ValueError as error:
        raise AllkitError(_too_few(rows, "images")) from error
    _check_classes(rows, (train, validation, test), "images")
    if rows["subject"].isna().any():
        note = (
            "SUBJECTS ARE UNKNOWN: images of one subject may be in training and in test, so the scores may be "
            "too high, and say nothing about new subjects."
        )
    else:
        shared = set(train["subject"]) & set(test["subject"])
        note = (
            f"Split by image, as in the paper: {len(shared)} of {test['subject'].nunique()} test subjects "
            "are also in training. The scores are about new images of known subjects, not about new subjects."
        )
    return Split("image", *map(_sorted, (train, validation, test)), shares_subjects=True, note=note)


def sample_weights(rows: pd.DataFrame, weigh: str = "subject") -> np.ndarray:
    """Return how much each row counts, (n,), 1 on average; all classes count the same.

    Within its class every subject counts the same with `weigh` "subject", every image with "image". A few subjects
    with hundreds of images would otherwise outvote all others. Where a subject is unknown, images count.
    """
    if weigh not in ("subject", "image"):
        raise AllkitError(f"weigh is {weigh!r}; choose 'subject', or 'image' (as in the paper).")
    weight = pd.Series(1.0, rows.index)
    if weigh == "subject" and rows["subject"].notna().all():
        weight /= rows.groupby(["label", "subject"])["path"].transform("size")
    weight /= weight.groupby(rows["label"]).transform("sum")
    return (weight / weight.mean()).to_numpy()


def balance_split(split: Split, *, seed: int) -> Split:
    """Balance the training part of a split and leave validation and test as they are."""
    train = balance(split.train, seed=seed)
    copies = int((train["augmentation"] != "").sum())
    note = f"{split.note} Training is balanced with {copies:,} copies of training images."
    return dataclasses.replace(split, train=train, note=note.strip())


def augment_then_split(index: pd.DataFrame, seed: int = 123) -> Split:
    """Balance the whole pool, then split it by image: the order that the paper describes (abstract, III.B.1).

    Never judge a model by this split: a cell and its rotated copies land on both sides of it. It exists to
    count that leak (`count_leaked_copies`). The seed, of copies and split, is the one recovered from the paper.
    """
    pool = index[index["label"].notna() & (index["part"] == "train")]
    split = split_by_image(balance(pool, seed=seed), seed=seed)
    note = (
        "Balanced before the split, as the paper describes: copies of one cell lie on both sides, so results "
        "on the test part say nothing about new cells."
    )
    return dataclasses.replace(split, name="augment-then-split", shares_subjects=True, note=note)


def count_leaked_copies(split: Split) -> pd.DataFrame:
    """Count the rows of validation and test whose original image also has a row in training; 0 in a sound split.

    One row per part with columns `part`, `images`, `leaked` and `share` (leaked / images, 0-1).
    """
    trained_on = set(split.train["path"])
    rows = []
    for part in ("validation", "test"):
        paths = getattr(split, part)["path"]
        leaked = int(paths.isin(trained_on).sum())
        rows.append((part, len(paths), leaked, leaked / len(paths) if len(paths) else 0.0))
    return pd.DataFrame(rows, columns=["part", "images", "leaked", "share"])


def split_by_subject(index: pd.DataFrame, seed: int = 123) -> Split:
    """Return a split in which no subject, and no image content, is in two parts.

    The test part is a fold of scikit-learn's StratifiedGroupKFold, validation a fold of what is left; both are as
    large as in `SUBJECT_FRACTIONS`, as far as groups allow. Every part has every class. Needs three groups of each
    class, else `AllkitError`.
    """
    rows, rng = _labelled(index), np.random.default_rng(seed)
    rest, test = _take_fold(rows, SUBJECT_FRACTIONS[2], rng, keep=2)
    train, validation = _take_fold(rest, SUBJECT_FRACTIONS[1] / (1 - SUBJECT_FRACTIONS[2]), rng, keep=1)
    unknown = bool(rows["subject"].isna().any())
    if unknown:
        note = (
            "SUBJECTS ARE UNKNOWN: only identical copies are kept together. Images of one subject may be in "
            "training and in test, so leakage cannot be excluded."
        )
    else:
        note = "Split by subject: no test subject was seen in training. The scores are about new subjects."
    return Split("subject", *map(_sorted, (train, validation, test)), shares_subjects=unknown, note=note)


def split_by_fold(index: pd.DataFrame, test_fold: int = 0, seed: int = 123, *, drop_linked: bool = True) -> Split:
    """Return a split whose test part is one official fold of C-NMC; validation comes from the other folds.

    Subjects of different folds share byte-identical images. `drop_linked` leaves subjects that are linked to the
    test fold out of training and validation; False keeps the folds as published, with the leak.
    """
    rows = _labelled(index)
    folds = sorted(int(fold) for fold in rows["fold"].dropna().unique())
    if len(folds) < 2 or test_fold not in folds:
        raise AllkitError(
            f"Fold {test_fold} cannot be tested on: the data hold the folds {folds or 'none'}, and training "
            "needs another one. Use split='subject'."
        )
    test = rows[rows["fold"] == test_fold]
    rest = rows[rows["fold"].notna() & (rows["fold"] != test_fold)]
    linked = rest["group"].isin(test["group"])
    if drop_linked:
        rest = rest[~linked]
    train, validation, by_image = _split_rest(rest, seed)
    _check_classes(rows, (train, validation, test), "subjects")
    done = "left out" if drop_linked else "KEPT: the test fold leaks into training"
    note = (
        f"Official fold {test_fold} is the test part. Subjects of other folds that share images with it "
        f"({int(linked.sum())} images) were {done}." + _validation_note(by_image)
    )
    leaks = bool(linked.any()) and not drop_linked
    return Split(f"fold {test_fold}", train, validation, _sorted(test), leaks, note, by_image)


def fitting_split(wanted: str | None, otherwise: str, index: pd.DataFrame) -> str:
    """Return how to split: as is wanted, or else as the data come divided, or else as a profile says."""
    if wanted is not None:
        return wanted
    return "given" if index["given"].notna().any() else otherwise


def split_as_given(index: pd.DataFrame, seed: int = 123) -> Split:
    """Return the division that the data come with: folders or a column named train, validation and test.

    Where there is no validation part it is taken from the training part, by subject if there are enough of them.
    """
    rows = _labelled(index)
    parts = {name: rows[rows["given"] == name] for name in GIVEN}
    missing = [name for name in ("train", "test") if parts[name].empty]
    if missing:
        raise AllkitError(
            f"The data come with no part {' and no part '.join(missing)} of their own: name folders, or words in the "
            "column part, so, or use split='subject'."
        )
    train, validation, by_image = parts["train"], parts["validation"], False
    if validation.empty:
        train, validation, by_image = _split_rest(train, seed)
    _check_classes(rows, (train, validation, parts["test"]), "images")
    shared = sorted(set(parts["test"]["group"]) & set(train["group"]), key=natural_key)
    note = "Divided as the data's own folders or column say."
    if rows["subject"].isna().any():
        note += " SUBJECTS ARE UNKNOWN: images of one subject may be in training and in test."
    elif not shared:
        note += " No test subject was seen in training."
    leaks = bool(shared) or bool(rows["subject"].isna().any())
    return Split(
        "given", *map(_sorted, (train, validation, parts["test"])), leaks, note + _validation_note(by_image), by_image
    )


def split_unseen(index: pd.DataFrame, seed: int = 123) -> Split:
    """Return a split that trains on one collection and tests on the subjects of another.

    The test part is the labelled preliminary test of C-NMC where the index has one; otherwise all official
    folds but the largest, without subjects that share images with it. AllkitError where there is neither.
    """
    rows, test = _labelled(index), index[(index["part"] == "prelim") & index["label"].notna()]
    if test["label"].nunique() > 1:
        rest, where = rows[~rows["group"].isin(test["group"])], "the preliminary test"
    else:
        largest = rows["fold"].value_counts().idxmax() if rows["fold"].notna().any() else None
        rest = rows[rows["fold"] == largest]
        test = rows[(rows["fold"] != largest).fillna(True) & ~rows["group"].isin(rest["group"])]
        where = f"the other folds than {largest}"
    if rest["label"].nunique() < 2 or test["label"].nunique() < 2:
        raise AllkitError("The data hold no second collection with both classes to test on. Use split='subject'.")
    train, validation, by_image = _split_rest(rest, seed)
    note = f"The test part is {where}: subjects of another collection." + _validation_note(by_image)
    return Split("unseen subjects", train, validation, _sorted(test), False, note, by_image)


def split_hold_out(index: pd.DataFrame, subjects: Sequence[str], seed: int = 123) -> Split:
    """Return a split that tests on the named subjects and those grouped with them.

    For classes that the named subjects lack, whole groups are drawn at random until the test part has about the
    class ratio of the data. Validation is by subject where at least three groups of each class remain, else
    by image within the training subjects (`validation_by_image`); the test part is disjoint either way.
    """
    rows = _labelled(index)
    wanted = _known_subjects(rows, subjects)
    groups = set(rows.loc[rows["subject"].isin(wanted), "group"])
    named = rows[rows["group"].isin(groups)]
    rng = np.random.default_rng(seed)
    for label in class_order(rows):
        if label not in set(named["label"]):
            groups |= _draw_groups(rows, named, label, rng)
    inside = rows["group"].isin(groups)
    train, validation, by_image = _split_rest(rows[~inside], seed)
    test = _sorted(rows[inside])
    _check_classes(rows, (train, validation, test), "subjects")
    drawn = sorted(set(test["subject"].dropna()) - set(named["subject"]), key=natural_key)
    held = " and ".join(sorted(set(named["subject"].dropna()), key=natural_key))
    note = f"Held out: {held}" + (f", with {', '.join(drawn)} drawn for the other class" if drawn else "") + "."
    note += " No test subject was seen in training; there are few of them, so expect wide intervals."
    name = f"hold-out {','.join(wanted)}"
    return Split(name, train, validation, test, False, note + _validation_note(by_image), by_image)


def fewest_groups(rows: pd.DataFrame) -> int:
    """Return how many groups the class with the fewest has."""
    return int(rows.groupby("label")["group"].nunique().min())


def grouped_folds(rows: pd.DataFrame, most: int, *, seed: int = 123) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Return (rest, held out) for folds of whole groups: at most so many, as many as the rarest class has groups.

    Every rest has all classes, else `AllkitError`.
    """
    fewest = fewest_groups(rows)
    if fewest < 2:
        raise AllkitError(f"a class has images of {fewest} subject only; learning and judging apart needs two of each.")
    folds = StratifiedGroupKFold(min(most, fewest), shuffle=True, random_state=seed)
    pairs = [
        (rows.iloc[rest], rows.iloc[held])
        for rest, held in folds.split(rows, rows["label"], rows["group"])
        if len(held)
    ]
    if any(rest["label"].nunique() < rows["label"].nunique() for rest, _ in pairs):
        raise AllkitError("one group holds nearly all subjects of a class, so they cannot be divided into folds.")
    return pairs


def assert_disjoint(split: Split, *, allow_leak: bool = False) -> None:
    """Raise `LeakError` if two parts of the split share an image, a content or a subject; name up to ten.

    `allow_leak=True` lets shared contents and subjects pass, as the paper's split needs; the same file in two
    parts never passes. Training and validation may share subjects where the split says `validation_by_image`.
    """
    for (first, one), (second, other) in combinations(split.parts.items(), 2):
        paths = sorted(set(one["path"]) & set(other["path"]))
        if paths:
            raise LeakError(
                f"{len(paths)} images are both in {first} and in {second}: {first_of(paths)}. Split the index "
                "again; nothing allows this."
            )
        if allow_leak:
            continue
        if split.by_image and one["subject"].isna().any():
            raise LeakError(
                "the split is by image and the subjects are unknown, so one subject may be in several parts. Use "
                "split='subject', or pass allow_leak=True if you accept that."
            )
        if split.validation_by_image and (first, second) == ("train", "validation"):
            continue
        for column, what in (("subject", "subjects"), ("group", "groups linked by identical images")):
            shared = sorted(set(one[column].dropna()) & set(other[column].dropna()), key=natural_key)
            if shared:
                raise LeakError(
                    f"{len(shared)} {what} are both in {first} and in {second}: {first_of(shared)}. Use "
                    "split='subject', or pass allow_leak=True if this leak is what you want to show."
                )


def _sorted(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values("path", ignore_index=True)


def _labelled(index: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that may be split: labelled, and not of a separate test part."""
    rows = index[(index["part"] == "train") & index["label"].notna()]
    labels = class_order(rows)
    if len(labels) < 2:
        raise AllkitError(
            f"{len(rows)} labelled training images of {len(labels)} class(es): a split needs two classes. "
            "Load the folder that holds all classes."
        )
    return rows


def _check_classes(rows: pd.DataFrame, parts: Sequence[pd.DataFrame], unit: str) -> None:
    labels = set(rows["label"])
    if any(set(part["label"]) != labels for part in parts):
        raise AllkitError(_too_few(rows, unit))


def _too_few(rows: pd.DataFrame, unit: str) -> str:
    counts = rows.groupby("label").size() if unit == "images" else rows.groupby("label")["group"].nunique()
    found = ", ".join(f"{label}: {counts[label]}" for label in class_order(rows))
    way_out = "or use split='image'" if unit == "subjects" else "or leave the smallest class out"
    return f"Too few {unit} for training, validation and test with every class ({found}). Add some, {way_out}."


def _validation_note(by_image: bool) -> str:
    return " Validation is by image within the training subjects: too few subjects remain." if by_image else ""


def _split_rest(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, bool]:
    """Return training and validation rows, and whether validation had to be by image."""
    if rows.groupby("label")["group"].nunique().min() >= _MIN_GROUPS and rows["label"].nunique() > 1:
        train, validation = _take_fold(rows, _VALIDATION_SHARE, np.random.default_rng(seed), keep=2)
        return _sorted(train), _sorted(validation), False
    try:
        train, validation = train_test_split(
            rows, test_size=_VALIDATION_SHARE, stratify=rows["label"], random_state=seed
        )
    except ValueError as error:
        raise AllkitError(_too_few(rows, "images")) from error
    return _sorted(train), _sorted(validation), True


def _take_fold(
    rows: pd.DataFrame, share: float, rng: np.random.Generator, *, keep: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows without one fold of whole groups, and that fold: about `share` of each class.

    The fold has every class, and at least `keep` groups of each class are left. It is drawn from the best there are:
    folds with three quarters of what is wanted of each class, of its images and of its groups (one that gets its
    images from two subjects says little about others); else folds with half of the images; else any. Where no fold
    will do, as with few groups, folds are made larger.
    """
    images, groups = rows["label"].value_counts(), rows.groupby("label")["group"].nunique()
    # Shuffling changes the order of equal groups only. A random quarter of the images counts twice, so that the sizes
    # of groups differ a little, and every seed gives other folds.
    seen = pd.concat([rows, rows.sample(frac=0.25, random_state=rng)])
    most = min(round(1 / share), rows["group"].nunique(), images.min())
    for count in range(most, 1, -1):
        folds = StratifiedGroupKFold(count, shuffle=True, random_state=int(rng.integers(2**31)))
        graded = []
        for _, places in folds.split(seen, seen["label"], seen["group"]):
            inside = rows["group"].isin(seen["group"].iloc[places])
            fold = rows[inside].groupby("label")["group"].agg(["size", "nunique"]).reindex(groups.index, fill_value=0)
            of_images, of_groups = (fold["size"] / images).min() / share, (fold["nunique"] / groups).min() / share
            if of_groups > 0 and (groups - fold["nunique"]).min() >= keep:
                graded.append((int(of_images >= 0.5) + int(min(of_images, of_groups) >= 0.75), inside))
        if graded:
            best = [inside for grade, inside in graded if grade == max(grade for grade, _ in graded)]
            inside = best[rng.integers(len(best))]
            return rows[~inside], rows[inside]
    raise AllkitError(_too_few(rows, "subjects"))


def _known_subjects(rows: pd.DataFrame, subjects: Sequence[str]) -> list[str]:
    known = sorted(set(rows["subject"].dropna()), key=natural_key)
    if not known:
        raise AllkitError("Subjects are unknown: none can be held out. Give a CSV with the column subject.")
    if not subjects:
        raise AllkitError(f"No subject named to hold out. The data hold {first_of(known, 30)}.")
    upper = {name.upper(): name for name in known}
    unknown = [name for name in subjects if name.upper() not in upper]
    if unknown:
        near = difflib.get_close_matches(unknown[0].upper(), list(upper), n=3) or known[:30]
        raise AllkitError(f"Subject {unknown[0]!r} is not in the training data. There are {', '.join(near)}.")
    return [upper[name.upper()] for name in subjects]


def _draw_groups(rows: pd.DataFrame, named: pd.DataFrame, label: str, rng: np.random.Generator) -> set[str]:
    """Return groups of `label`, drawn at random until the test part has about the class ratio of the data."""
    free = rows[~rows["group"].isin(named["group"]) & (rows["label"] == label) & rows["subject"].notna()]
    sizes = free.groupby("group").size()
    if len(sizes) < 2:
        raise AllkitError(_too_few(rows, "subjects"))
    present = rows["label"].isin(named["label"].unique()).sum()
    wanted = len(named) * (rows["label"] == label).sum() / present
    order = rng.permutation(sizes.index.to_numpy())
    running = sizes[order].cumsum().to_numpy()[:-1]  # at least one group stays for training
    return set(order[: np.abs(running - wanted).argmin() + 1])
