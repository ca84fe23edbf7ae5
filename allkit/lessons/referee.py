"""Notebook 15: what a paper's printed numbers prove, contradict or leave open, by C-NMC's list of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from allkit.judging.papers import (
    COLUMNS,
    Data,
    Paper,
    Result,
    load_paper,
    printed_measures,
    shipped_papers,
    supports_of,
)
from allkit.judging.printed import (
    CONFIRMED,
    CONTRADICTED,
    OPEN,
    fitting_sizes,
    implied_prevalence,
    implied_ranges,
    verdict_row,
)
from allkit.judging.provenance import (
    BOTH,
    accuracy_interval,
    candidate_parts,
    check_data,
    check_split,
    images_of,
    known_parts,
    possible_matrices,
    sets_of_subjects,
    stratified_counts,
)

_SLIP = "belongs to no one matrix: bests of several epochs, averages over classes, or a typing error"


def referee_paper(paper: Paper) -> pd.DataFrame:
    """Notebook 15: check what a paper prints against itself and against C-NMC's list of files.

    One row per check that its numbers allow: claim, where, stated, found (text, computed here), verdict ("confirmed",
    "contradicted", "inconclusive").
    """
    rows = [row for check in (check_data, check_split, _check_training) for row in check(paper)]
    for result in paper.results:
        rows += [row for check in (_check_relations, _check_sums, _check_epochs) for row in check(paper, result)]
        if printed_measures(paper, result):
            matrices = possible_matrices(paper, result)
            checks = (_check_size, _check_matrices, _check_classes, _check_whole_subjects, _check_interval)
            rows += [row for check in checks for row in check(paper, result, matrices)]
    return pd.DataFrame(rows, columns=["claim", "where", "stated", "found", "verdict"])


def _of(result: Result, claim: str) -> str:
    part = {"training": "in training", "not stated": "part not stated"}.get(result.part, f"{result.part} part")
    return f"{claim} ({result.name}, {part})"


def _check_training(paper: Paper) -> Iterator[dict[str, str]]:
    """Is an accuracy that is given as a result one of training? Were images added before the training counted them?"""
    trained = [number for result in paper.results for number in result.epochs.get("accuracy", ())]
    for result in paper.results:
        number = result.measures.get("accuracy")
        if result.part != "training" and number and number.unit < 1e-3:
            same = any(abs(number.value - one.value) < 1e-9 and one.unit == number.unit for one in trained)
            if same:
                claim = _of(result, "The accuracy is that of images not learned from")
                yield verdict_row(
                    claim, result.where, number.text, "the table by epoch has it as training accuracy", CONTRADICTED
                )
    if trained and paper.listed and paper.data.copies == "before the split" and paper.split.fractions:
        parts, share = known_parts(), paper.split.fractions[0]
        plain = sorted({int(share * total) for total in parts["images"]})
        balanced = 2 * round(share * parts.at["training", "ALL"])
        fit = fitting_sizes(trained, [*plain, *range(balanced - 20, balanced + 21)])
        found = f"of {', '.join(f'{n:,}' for n in plain)} and what is near {balanced:,} its accuracies fit "
        found += ", ".join(f"{n:,}" for n in fit) or "none"
        verdict = OPEN if len(fit) != 1 else CONTRADICTED if fit[0] in plain else CONFIRMED
        yield verdict_row(
            "Images were added before training", paper.data.where, f"about {balanced:,} of them", found, verdict
        )


def _check_relations(paper: Paper, result: Result) -> Iterator[dict[str, str]]:
    reason = {"accuracy": "it lies between sensitivity and specificity, whatever the images",
              "balanced_accuracy": "it is the middle of sensitivity and specificity",
              "f1": "it is the harmonic mean of precision and sensitivity"}  # fmt: skip
    for name, (low, high) in implied_ranges(result.measures).items():
        number = result.measures[name]
        fits = number.range[0] <= high + 1e-9 and number.range[1] >= low - 1e-9
        found = f"the others leave {low:.2%} to {high:.2%}: {reason[name]}" + ("" if fits else f". It {_SLIP}")
        claim = _of(result, f"The {_title(name)} belongs to the other measures")
        yield verdict_row(claim, result.where, number.text, found, CONFIRMED if fits else CONTRADICTED)


def _check_sums(paper: Paper, result: Result) -> Iterator[dict[str, str]]:
    supports = supports_of(paper, result)
    if len(supports) > 1:
        stated = "; ".join(f"{p:,} {paper.positive}, {n:,} {paper.negative}" for p, n in supports)
        yield verdict_row(
            _of(result, "The images of each class are counted once"), result.where, stated, "they differ", CONTRADICTED
        )


def _check_epochs(paper: Paper, result: Result) -> Iterator[dict[str, str]]:
    held = result.epochs.get("val_accuracy", [])
    training = known_parts().loc["training"]
    share = training["ALL"] / training["images"] if paper.listed else 0.5
    below = [str(epoch) for epoch, number in enumerate(held, 1) if number.range[1] < share]
    if held:
        found = f"a constant answer gets {share:.1%}; validation is below that in "
        found += f"epoch {', '.join(below)}" if below else "no epoch"
        claim = _of(result, "Validation is better than a constant answer")
        yield verdict_row(claim, result.where, f"{len(held)} epochs", found, CONTRADICTED if below else CONFIRMED)
    for column, numbers in result.epochs.items():
        part, bare = result.model_copy(update={"part": COLUMNS[column]}), paper.model_copy(update={"data": Data()})
        usual = {size: name for name, (size, _) in candidate_parts(bare if paper.listed else paper, part).items()}
        fit = fitting_sizes(numbers, usual)
        if usual:
            found = f"all are whole numbers of images on {_sized(fit, usual)}"
            claim, stated = _of(part, "Images behind the accuracies by epoch"), ", ".join(one.text for one in numbers)
            yield verdict_row(claim, result.where, stated, found, CONFIRMED if fit else OPEN)


def _title(name: str) -> str:
    return name.replace("_", " ").replace("f1", "F1").replace(" unspecified", "")


def _sized(sizes: Sequence[int], names: Mapping[int, str]) -> str:
    shown = [f"{size:,} ({names[size]})" for size in sizes[:5]] + ([f"{len(sizes) - 5} more"] if len(sizes) > 5 else [])
    return ", ".join(shown) or "none of the usual sizes"


def _check_size(paper: Paper, result: Result, matrices: pd.DataFrame) -> Iterator[dict[str, str]]:
    number, parts = dict(printed_measures(paper, result)).get("accuracy"), candidate_parts(paper, result)
    # above one over the last digit any size fits
    names = {size: name for name, (size, _) in parts.items() if number and number.unit * size < 1}
    if names and not supports_of(paper, result):
        fit, cut = (fitting_sizes([number], names, cut=cut) for cut in (False, True))
        found = f"a whole number of images on {_sized(fit, names)}"
        if not fit:
            found = f"no whole number of images on {_sized([*names], names)}"
            found += f"; but with digits cut off on {_sized(cut, names)}" if cut else ""
        stated = "the size as printed" in parts or bool(paper.split.fractions and paper.data.images)
        known = result.part == "preliminary" or stated
        verdict = CONFIRMED if fit and known else CONTRADICTED if known and not fit and not cut else OPEN
        yield verdict_row(_of(result, "Images behind the accuracy"), result.where, number.text, found, verdict)


def _check_matrices(paper: Paper, result: Result, matrices: pd.DataFrame) -> Iterator[dict[str, str]]:
    measures, parts = printed_measures(paper, result), candidate_parts(paper, result)
    known = all(positives is not None for _, positives in parts.values())
    if len(measures) < 2 and not known:
        return
    names = dict.fromkeys(_title(name) for name, _ in measures)
    stated = ", ".join(names) + (f"; {result.right:,} right" if result.right else "")
    if len(matrices):
        one = matrices.iloc[0]
        shown = f": {one.tp:,} of {one.p:,} and {one.tn:,} of {one.n:,} right" if len(matrices) == 1 else ""
        found = f"{len(matrices):,} possible matri{'x' if len(matrices) == 1 else 'ces'}{shown}"
        found += "" if known else f", on {', '.join(dict.fromkeys(matrices['part']))}"
        verdict = CONFIRMED if known or len(matrices) == 1 else OPEN
    elif len(possible_matrices(paper, result, cut=True)):
        found, verdict = "none if the digits are rounded; some if they were cut off", OPEN
    else:
        found = "no matrix prints so" + ("" if known else " on any usual part of the data")
        verdict = CONTRADICTED if known else OPEN
    yield verdict_row(
        _of(result, "One confusion matrix stands behind all measures"), result.where, stated, found, verdict
    )


def _check_classes(paper: Paper, result: Result, matrices: pd.DataFrame) -> Iterator[dict[str, str]]:
    shares, images = implied_prevalence(result.measures), images_of(paper, result, matrices)
    if not shares or shares[1] - shares[0] > 0.1 or supports_of(paper, result) or not paper.listed:
        return
    known = (known_parts()["ALL"] / known_parts()["images"]).to_dict()
    listed = ", ".join(f"{name} {share:.1%}" for name, share in known.items())
    found = f"accuracy, sensitivity and specificity leave {shares[0]:.1%} to {shares[1]:.1%} positive; ALL are {listed}"
    inside = any(shares[0] <= share <= shares[1] for share in known.values())
    if images:
        total = sum(images.values())
        spread = (known["training"] * (1 - known["training"]) / total) ** 0.5
        off = abs(images[paper.positive] / total - known["training"]) / spread
        inside = off < 2
        found += f"; of {total:,} images drawn at random it is {off:.1f} standard deviations off"
    found += "" if inside else "; no stratified part"
    claim = _of(result, "The tested images have the classes of the data")
    yield verdict_row(claim, result.where, "images of each class are not printed", found, CONFIRMED if inside else OPEN)


def _check_whole_subjects(paper: Paper, result: Result, matrices: pd.DataFrame) -> Iterator[dict[str, str]]:
    images, claim = images_of(paper, result, matrices), _of(result, "The split can have been by subject")
    unit = paper.split.unit
    stated = "by what was split is not stated" if unit == "not stated" else f"split by {unit}"
    if result.part == "preliminary" and paper.listed:
        subjects = known_parts()["subjects"]
        apart = subjects["training"] + subjects["preliminary"] == subjects[BOTH]
        found = f"{'none' if apart else 'some'} of its subjects have images in the training part, by the list of files"
        yield verdict_row(claim, paper.split.where, stated, found, CONFIRMED if apart else CONTRADICTED)
    elif result.part in ("test", "validation") and set(images) == {"ALL", "HEM"} and paper.listed:
        pool = BOTH if paper.data.images == known_parts().at[BOTH, "images"] else "training"
        odds = np.prod(list(sets_of_subjects(images, pool).values()))
        said = " and ".join(f"{count:,} {label}" for label, count in images.items())
        found = f"no set of whole subjects has {said}"
        if odds:
            found = f"sets of whole subjects can have {said}: of those within 10 % of that, one in {1 / odds:,.0f} has"
            exact = images["ALL"] in stratified_counts(sum(images.values()))
            found += "; a stratified split by image always has" if exact else ""
        yield verdict_row(claim, paper.split.where or result.where, stated, found, OPEN if odds else CONTRADICTED)


def _check_interval(paper: Paper, result: Result, matrices: pd.DataFrame) -> Iterator[dict[str, str]]:
    found = accuracy_interval(paper, result, matrices)
    if found:
        text = "95 %: {low:.1%} to {high:.1%} if {images:,} cells were independent; {low_subjects:.1%} to "
        text += "{high_subjects:.1%} if cells of a subject are alike and worth {worth:,.0f}"
        claim = _of(result, f"The accuracy is above that of a constant answer, {found['constant']:.1%}")
        verdict = CONFIRMED if found["low_subjects"] > found["constant"] else OPEN
        yield verdict_row(claim, result.where, f"{found['value']:.1%}", text.format(**found), verdict)


def referee_shipped() -> pd.DataFrame:
    """Notebooks 08, 15: return for each paper of the kit how much was read, its verdicts, and what is contradicted."""
    rows = {}
    for paper in map(load_paper, shipped_papers()):
        table = referee_paper(paper)
        counts = {word: int((table["verdict"] == word).sum()) for word in (CONFIRMED, CONTRADICTED, OPEN)}
        against = "; ".join(table.loc[table["verdict"] == CONTRADICTED, "claim"]) or "nothing"
        rows[paper.label] = {"read": paper.read, **counts, "what is contradicted": against}
    return pd.DataFrame(rows).T.rename_axis("paper")


def shipped_intervals() -> pd.DataFrame:
    """Notebook 15: return the accuracy of each shipped result whose images are known, with intervals of two kinds."""
    rows = {}
    for paper in map(load_paper, shipped_papers()):
        for result in paper.results:
            found = accuracy_interval(paper, result, possible_matrices(paper, result))
            if found and result.part in ("test", "preliminary"):
                name = f"{paper.label}, {result.name}"
                for kind, end in (("cells independent", ""), ("cells of a subject alike", "_subjects")):
                    rows[name, kind] = [found["value"], found[f"low{end}"], found[f"high{end}"]]
    return pd.DataFrame(rows, ["value", "low", "high"]).T.rename_axis(["result", "interval"])
