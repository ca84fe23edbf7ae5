"""What training and test of a split share, the verdict on it, and a badge that says it."""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from allkit import AllkitError, plots
from allkit.data import class_order, natural_key, source_images
from allkit.duplicates import contents_of, copies_by_name, find_near_duplicates, pixels_of
from allkit.evaluate import FEWEST_UNITS
from allkit.images import first_of
from allkit.source import uid_of

CHECKS = {
    "files": "are files that were learned from, or copies of these by their names",
    "bytes": "have the same bytes as images that were learned from",
    "pixels": "show the same pixels as images that were learned from, in other files",
    "near-duplicates": "look the same as images that were learned from, perhaps turned or mirrored",
    "subjects": "are of subjects who were learned from",
    "linked subjects": "are of subjects who share images with others, by another name, who were learned from",
    "groups": "are of groups of the list that were learned from",
    "source images": "were cut from microscope images that were learned from",
}
"""What may be wrong with images that are tested on."""

_NEED_IMAGES = ("pixels", "near-duplicates")

_PLAINER = {"pixels": ["bytes"], "near-duplicates": ["bytes", "pixels"], "linked subjects": ["subjects"]}

_COLOURS = {"leak": plots.PALETTE["red"], "no leak": plots.PALETTE["green"], "unknown": "#5A5A5A"}


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found: one row of `findings` per check, and images and subjects by part and class (`counts`).

    Of each finding: check, verdict ("ok", "leak", "warning" or "unknown"), images of the part `tested` that are
    concerned, share of them (0–1, NaN: unknown), between which parts, says (a sentence), examples.
    """

    findings: pd.DataFrame
    counts: pd.DataFrame
    tested: str

    @property
    def verdict(self) -> str:
        """Return "leak", "no leak", or "unknown" where nobody knows whose cells these are."""
        verdicts = self.findings.set_index("check")["verdict"]
        if (verdicts == "leak").any():
            return "leak"
        return "unknown" if verdicts["subjects"] == "unknown" else "no leak"

    @property
    def share(self) -> float:
        """The largest share of tested images, 0–1, that any leak concerns."""
        return float(self.findings.loc[self.findings["verdict"] == "leak", "share"].max())

    def of(self, check: str) -> pd.Series:
        """Return the finding of one check."""
        return self.findings.set_index("check").loc[check]

    def _repr_markdown_(self) -> str:
        return describe_audit(self)


def audit_split(index: pd.DataFrame, *, look: bool | None = None, allow: Sequence[str] = ()) -> Audit:
    """Compare the parts of an index in its column `given`; each check is a line of the result.

    `look` at the pictures; left out: where all files are there. `allow` names checks whose leak counts as a warning.
    A subject in training and validation only is a warning too: what is reported then is still about others.
    """
    wrong = sorted(set(allow) - set(CHECKS))
    if wrong:
        raise AllkitError(f"there is no check {wrong[0]!r}; there are {', '.join(CHECKS)}.")
    parts = set(index["given"].dropna())
    tested = next((part for part in ("test", "validation") if part in parts), "")
    if not tested or "train" not in parts:
        raise AllkitError("a split needs training and test images: put train and test into the column given.")
    rows = index[index["given"].notna()].reset_index(drop=True)
    rows = rows.assign(**_shareable(rows, rows["path"].map(os.path.isfile).all() if look is None else look))
    found = [_shared(rows, check, tested) for check in CHECKS if check != "groups" or rows["groups"].notna().any()]
    found += [_label_conflicts(rows, tested), *_enough(rows, tested)]
    for row in found:
        if row["check"] in allow and row["verdict"] == "leak":
            row["verdict"], row["says"] = "warning", f"{row['says']} Allowed."
    return Audit(pd.DataFrame(found), _count(rows), tested)


def _shareable(rows: pd.DataFrame, look: bool) -> dict[str, pd.Series]:
    """Return for each check what two rows must not have in common across parts; NaN where it is not known."""
    names = rows["path"].str.replace("\\", "/").str.rpartition("/")[2]
    known = names.map(uid_of)
    original = names.map(dict(copies_by_name(names[known.isna()]))).fillna(names)  # x_aug.png: x.png
    firsts = rows.groupby(names)["path"].first()
    files = original.map(firsts).where(original != names, rows["path"])
    own = rows.get("own group", pd.Series(np.nan, rows.index, dtype=object))
    shared = {
        "files": files.where(known.isna(), known.map(lambda found: found and found[0].lower())),
        "bytes": rows["content"] if "content" in rows else pd.Series(np.nan, rows.index, dtype=object),
        "subjects": rows["subject"],
        "linked subjects": rows["group"].where(rows["subject"].notna()),
        "groups": own,
        "source images": source_images(rows["name"]),
    }
    shared |= dict.fromkeys(_NEED_IMAGES, pd.Series(np.nan, rows.index, dtype=object))
    if look:
        pixels = pd.Series(pixels_of(rows["path"]), rows.index, dtype=object)
        shared |= {"pixels": pixels, "near-duplicates": _near(rows["path"]).where(pixels.notna())}
        shared["bytes"] = pd.Series(contents_of(rows["path"]), rows.index)
    return {check: values.astype(object) for check, values in shared.items()}


def _near(paths: pd.Series) -> pd.Series:
    """Return a number for each image that is the same for near-duplicates; NaN where all are too alike to say."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pairs = find_near_duplicates(list(paths))
    near = np.arange(len(paths), dtype=float)
    for place, first in pairs:
        near[place] = first
    return pd.Series(np.nan if said else near, paths.index)


def _also_in(rows: pd.DataFrame, check: str, part: str, others: Sequence[str]) -> pd.Series:
    """Return which rows of a part share what is checked with others, and nothing that is plainer than that."""
    among = rows["given"].isin(others)
    found = (rows["given"] == part) & rows[check].isin(set(rows.loc[among, check].dropna()))
    for plainer in _PLAINER.get(check, ()):
        found &= ~rows[plainer].isin(set(rows.loc[among, plainer].dropna()))
    return found


def _shared(rows: pd.DataFrame, check: str, tested: str) -> dict:
    """Return the finding of one check: which tested images have something in common with images learned from."""
    parts = [part for part in ("train", "validation") if part != tested and (rows["given"] == part).any()]
    hits = {f"{part}/{tested}": _also_in(rows, check, tested, [part]) for part in parts}
    concerned, unknown = pd.concat(hits, axis=1).any(axis=1), int(rows[check].isna().sum())
    within = "validation" in parts and _also_in(rows, check, "validation", ["train"]).any()
    verdict = "leak" if concerned.any() else "unknown" if unknown else "warning" if within else "ok"
    of = int((rows["given"] == tested).sum())
    says = f"{concerned.sum():,} of {of:,} images of {tested} {CHECKS[check]}."
    if verdict == "unknown":
        why = "add the images with --data" if check in (*_NEED_IMAGES, "bytes") else f"not known for {unknown:,} images"
        says = f"Cannot be checked: {why}."
    elif verdict == "warning":
        says = "Only between training and validation: what is chosen there may not hold."
    between = ", ".join(pair for pair, found in hits.items() if (found & concerned).any())
    return {
        "check": check, "verdict": verdict, "images": int(concerned.sum()), "of": of,
        "share": float("nan") if verdict == "unknown" else concerned.sum() / of, "between": between, "says": says,
        "examples": _examples(rows, check, concerned),
    }  # fmt: skip


def _examples(rows: pd.DataFrame, check: str, concerned: pd.Series) -> str:
    """Return up to ten of the subjects, groups or pairs of names that are concerned, those with most images first."""
    if check in ("subjects", "linked subjects", "groups", "source images"):
        counts = rows.loc[concerned, check].value_counts()
        order = sorted(counts.index, key=lambda name: (-counts[name], natural_key(str(name))))
        return first_of([f"{name} ({counts[name]:,})" for name in order])
    partner = rows[rows["given"] != "test"].dropna(subset=[check]).drop_duplicates(check).set_index(check)["path"]
    pairs = [(Path(path).name, Path(str(partner.get(value, ""))).name)
             for path, value in rows.loc[concerned, ["path", check]].head(11).to_numpy()]  # fmt: skip
    more = f" and {concerned.sum() - 10:,} more" if concerned.sum() > 10 else ""
    return "; ".join(f"{one} = {other}" for one, other in pairs[:10]) + more


def _label_conflicts(rows: pd.DataFrame, tested: str) -> dict:
    """Return whether images that are the same have two labels, or a label that is not the class in their name."""
    wrong = pd.Series(False, rows.index)
    for check in ("files", "bytes", "pixels"):
        labels = rows.groupby(check)["label"].transform("nunique")
        wrong |= (labels > 1).reindex(rows.index, fill_value=False)
    classes = rows["name"].map(lambda name: (found := uid_of(name)) and found[4].lower())
    usual = classes.groupby(rows["label"]).agg(lambda of: of.mode().get(0))  # whatever the labels are called
    wrong |= classes.notna() & rows["label"].notna() & (classes != rows["label"].map(usual))
    missing = int(rows["label"].isna().sum())
    says = f"{wrong.sum():,} images are the same as one of another class, or have the other class in their name."
    verdict = "warning" if wrong.any() else "unknown" if missing else "ok"
    examples = first_of([Path(path).name for path in rows.loc[wrong, "path"]])
    return _note("label conflicts", verdict, says + f" {missing:,} have no label." * bool(missing), rows, wrong,
                 tested, examples)  # fmt: skip


def _note(check: str, verdict: str, says: str, rows: pd.DataFrame, wrong: pd.Series, tested: str, examples="") -> dict:
    part = rows["given"] == tested
    return {"check": check, "verdict": verdict, "images": int((wrong & part).sum()), "of": int(part.sum()),
            "share": (wrong & part).sum() / part.sum(), "between": "", "says": says, "examples": examples}  # fmt: skip


def _enough(rows: pd.DataFrame, tested: str) -> list[dict]:
    """Return whether every class is in training and test, and whether enough subjects are tested on."""
    none, labels = pd.Series(False, rows.index), class_order(rows)
    missing = [f"{part} has no {label}" for part in ("train", tested) for label in labels
               if not ((rows["given"] == part) & (rows["label"] == label)).any()]  # fmt: skip
    test = rows[rows["given"] == tested]
    people = {label: test.loc[test["label"] == label, "group"].nunique() for label in labels}
    few = [f"{count} of {label}" for label, count in people.items() if count < FEWEST_UNITS]
    known = test["subject"].notna().all()
    says = (f"Subjects tested on, linked ones as one: {', '.join(f'{n} of {label}' for label, n in people.items())}"
            if known else "Not known whose cells are tested on")  # fmt: skip
    says += f"; from fewer than {FEWEST_UNITS} of a class nothing follows about others." if known and few else "."
    return [
        _note("classes", "warning" if missing or len(labels) < 2 else "ok",
              f"{first_of(missing) or f'{len(labels)} classes in training and test'}.", rows, none, tested),
        _note("subjects tested on", "unknown" if not known else "warning" if few else "ok", says, rows, none, tested),
    ]  # fmt: skip


def _count(rows: pd.DataFrame) -> pd.DataFrame:
    """Return images and subjects (NaN: not known) of each part and class."""
    of = rows.fillna({"label": "no label"}).groupby(["given", "label"])
    people = of["subject"].agg(lambda names: names.nunique() if names.notna().all() else float("nan"))
    return pd.DataFrame({"images": of.size(), "subjects": people.astype("Int64")}).rename_axis(["part", "class"])


def describe_audit(audit: Audit) -> str:
    """Return the verdict and what led to it, as text with one line per finding that is not "ok"."""
    lines = [f"**{badge_text(audit)}**", ""]
    for row in audit.findings.to_dict("records"):
        if row["verdict"] != "ok":
            named = f" {row['examples']}." if row["examples"] and row["verdict"] != "unknown" else ""
            lines.append(f"- {row['verdict']}, {row['check']}: {row['says']}{named}")
    fine = audit.findings.loc[audit.findings["verdict"] == "ok", "check"]
    return "\n".join([*lines, f"- ok: {', '.join(fine) or 'nothing'}"])


def badge_text(audit: Audit) -> str:
    """Return the verdict in a few words; what could not be checked is said too."""
    unchecked = int((audit.findings["verdict"] == "unknown").sum())
    words = {"leak": f"leak: {100 * audit.share:.3g} % of {audit.tested} images" if audit.share >= 0.001 else "leak",
             "no leak": "no leak found", "unknown": "subjects unknown"}[audit.verdict]  # fmt: skip
    return words + (f", {unchecked} checks open" if unchecked and audit.verdict != "leak" else "")


def draw_badge(audit: Audit) -> str:
    """Return a badge as SVG: a sign, the verdict in words and a colour, nothing loaded."""
    words, sign = badge_text(audit), {"leak": "✗", "no leak": "✓", "unknown": "?"}[audit.verdict]
    left, right = 78, 26 + 7 * len(words)
    title, shown = html.escape(f"split audit: {words}"), html.escape(f"{sign} {words}")
    text = 'fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{title}">'
        f'<title>{title}</title><rect width="{left}" height="20" fill="#444"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{_COLOURS[audit.verdict]}"/><g {text}>'
        f'<text x="{left / 2}" y="14">split audit</text><text x="{left + right / 2}" y="14">{shown}</text></g></svg>\n'
    )
