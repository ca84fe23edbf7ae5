"""What a paper prints, typed into a file: YAML, or a CSV of measures. Numbers are text: their digits count."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from allkit import ROOT, AllkitError
from allkit.judging.printed import ANY_OF, MEASURES, REPORT, Number, read_count, read_share
from allkit.lists import read_table

FOLDER = ROOT / "data" / "papers"
"""Papers that come with the kit, one file each."""

NAMES = (*MEASURES, *ANY_OF, "auc")
"""The measures that a file may name."""

PARTS = ("training", "validation", "test", "preliminary", "final", "not stated")
"""What a result may be about; preliminary and final are the parts of that name of C-NMC 2019."""

COLUMNS = {"accuracy": "training", "val_accuracy": "validation"}
"""Columns of a table by epoch that are shares of images, and of which part."""


def _split(value: Any) -> Any:
    return re.sub(r"\s+%", "%", value).split() if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    try:
        return read_count(value) if isinstance(value, str) else value
    except AllkitError as error:
        raise ValueError(str(error)) from error


def _share(value: Any) -> Any:
    try:
        return read_share(value) if isinstance(value, str) else value
    except AllkitError as error:
        raise ValueError(str(error)) from error


Count = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Share = Annotated[Number, BeforeValidator(_share)]
Row = Annotated[list[str], BeforeValidator(_split)]
Shares = Annotated[list[Share], BeforeValidator(_split)]
Counts = Annotated[list[Count], BeforeValidator(_split)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Data(_Keys):
    """Which data a paper says it used, and how many images and subjects they have; `copies`: when images were added."""

    name: str = "C-NMC 2019"
    images: Count | None = None
    classes: dict[str, Count] = {}
    subjects: Count | None = None
    copies: Literal["", "before the split", "training only"] = ""
    where: str = ""


class Parts(_Keys):
    """How a paper says it split: the unit, shares as printed ("70 / 15 / 15"), sizes, subjects of the test part."""

    unit: Literal["image", "subject", "not stated"] = "not stated"
    shares: str = ""
    training: Count | None = None
    validation: Count | None = None
    test: Count | None = None
    test_subjects: Count | None = None
    where: str = ""

    @property
    def sizes(self) -> list[int]:
        """Return the sizes that are printed, training first."""
        return [size for size in (self.training, self.validation, self.test) if size]

    @property
    def fractions(self) -> list[float]:
        """Return the shares as fractions, training first; empty where none are printed or they are no numbers."""
        words = self.shares.replace("/", " ").replace("%", " ").replace("+", " ").split()
        shares = [float(word) for word in words if word.replace(".", "", 1).isdigit()]
        return [share / sum(shares) for share in shares] if len(shares) > 1 else []


class Result(_Keys):
    """What is printed of one model on one part of the images."""

    name: str = "the model"
    part: Literal["training", "validation", "test", "preliminary", "final", "not stated"] = "test"
    where: str = ""
    support: dict[str, Count] = {}
    measures: dict[str, Share] = {}
    report: dict[str, Row] = {}
    matrix: dict[str, Counts] = {}
    right: Count | None = None
    epochs: dict[Literal["accuracy", "val_accuracy"], Shares] = {}


class Paper(_Keys):
    """One paper, or whatever else prints results: its source, and what it prints."""

    title: str
    source: str
    authors: str = ""
    year: str = ""
    read: Literal["full text", "abstract", "part of the text", "web page"] = "full text"
    positive: str = "ALL"
    negative: str = "HEM"
    data: Data = Data()
    split: Parts = Parts()
    results: list[Result] = []
    remark: str = ""

    @property
    def label(self) -> str:
        """Return authors and year, or the title where there are none."""
        return f"{self.authors} {self.year}".strip() if self.authors else self.title

    @property
    def listed(self) -> bool:
        """Return whether the data are C-NMC 2019, whose list of files the kit has."""
        return self.data.name.lower().replace("_", "-").replace(" ", "-").startswith("c-nmc")

    @property
    def classes(self) -> tuple[str, str]:
        """Return the names of both classes, the positive one first."""
        return self.positive, self.negative


def load_paper(path: str | Path) -> Paper:
    """Read a file (.yaml, .yml or .csv), or the kit's own one of that name; AllkitError says what to correct."""
    path = find_paper(path)
    if path.suffix.lower() == ".csv":
        return _checked(_from_csv(path), str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise AllkitError(f"{path} cannot be read: {error}. Save it as UTF-8.") from error
    return parse_paper(text, str(path))


def parse_paper(text: str, name: str = "the text") -> Paper:
    """Return what a text in YAML says; AllkitError, beginning with `name`, says what to correct."""
    try:
        # every scalar stays text: to YAML 95.40 is 95.4, and the digit that is lost is what this is about
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise AllkitError(f"{name} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, Mapping):
        raise AllkitError(f"{name} holds no keys; it begins with title: and source:. See docs/referee.md.")
    return _checked(_without_blanks(content), name)


def _checked(content: dict[str, Any], name: str) -> Paper:
    try:
        paper = Paper.model_validate(content)
        for number, result in enumerate(paper.results, 1):
            _check_names(f"results › number {number}", paper, result)
    except ValidationError as error:
        raise AllkitError(f"{name}: " + "; ".join(dict.fromkeys(map(_sentence, error.errors())))) from error
    except AllkitError as error:
        raise AllkitError(f"{name}: {error}") from error
    return paper


def find_paper(path: str | Path) -> Path:
    """Return the path of a file, or of the kit's own paper of that name."""
    path = Path(path).expanduser()
    known = {file.stem: file for file in shipped_papers()}
    if not path.is_file() and path.name in known:
        return known[path.name]
    if not path.is_file():
        raise AllkitError(f"{path} is no file. Name a YAML or a CSV, or one of the kit's papers: {', '.join(known)}.")
    return path


def shipped_papers() -> list[Path]:
    """Return the files of the papers that come with the kit, in the order of their names."""
    return sorted(FOLDER.glob("*.yaml"))


def _without_blanks(value: Any) -> Any:
    """Return what was typed without the keys that nothing stands behind."""
    if isinstance(value, Mapping):
        return {key: _without_blanks(one) for key, one in value.items() if one not in ("", None)}
    return [_without_blanks(one) for one in value] if isinstance(value, list) else value


def _from_csv(path: Path) -> dict[str, Any]:
    """Return what a small table says: measure, value, and if wanted model, part and where; counts of classes too."""
    table = read_table(path, ["measure", "value"], ["model", "part", "where"])
    results = []
    for column, otherwise in (("model", "the model"), ("part", "test"), ("where", "")):
        table[column] = table[column].where(table[column] != "", otherwise) if column in table else otherwise
    for (model, part), rows in table.groupby(["model", "part"], sort=False):
        twice = rows["measure"][rows["measure"].duplicated()].tolist()
        if twice:
            raise AllkitError(f"{path}: {twice[0]} stands there twice for {model}, {part}. Leave one.")
        found = dict(zip(rows["measure"], rows["value"], strict=True))
        support = {name[8:]: found.pop(name) for name in list(found) if name.startswith("support ")}
        where = ", ".join(dict.fromkeys(one for one in rows["where"] if one))
        results.append({"name": model, "part": part, "where": where, "support": support, "measures": found})
    return {"title": path.stem, "source": f"{path.name}, a table of measures", "results": results}


def _sentence(error: Mapping[str, Any]) -> str:
    """Return in words what pydantic found wrong, and what to write."""
    place = " › ".join(f"number {part + 1}" if isinstance(part, int) else str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *above, key = [part for part in error["loc"] if isinstance(part, str)]
        model = {"data": Data, "split": Parts, "results": Result}.get(above[0] if above else "", Paper)
        near = difflib.get_close_matches(str(key), model.model_fields, 1, 0.6)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(model.model_fields)}."
        return f"{place} is no key: {known}"
    if error["type"] == "missing":
        return f"{place} is missing; add a line {error['loc'][-1]}: …"
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{place}: {message[0].lower() + message[1:] if error['type'] != 'value_error' else message}"


def _check_names(place: str, paper: Paper, result: Result) -> None:
    """Raise AllkitError for a measure, a class or a row that does not exist, or a row of the wrong length."""
    rows = {str(row) if isinstance(row, str) else paper.classes[row] for row, _ in REPORT}
    lengths = {"accuracy": (1, 2), "macro avg": (3, 4), "weighted avg": (3, 4)} | dict.fromkeys(paper.classes, (3, 4))
    for what, given, known in (
        ("measures", result.measures, NAMES), ("support", result.support, paper.classes),
        ("report", result.report, rows), ("matrix", result.matrix, paper.classes),
    ):  # fmt: skip
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1, 0.5)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}."
                raise AllkitError(f"{place} › {what}: {name!r} is not known: {hint}")
    for name, cells in result.report.items():
        if len(cells) not in lengths[name]:
            raise AllkitError(
                f"{place}, report, {name}: {len(cells)} numbers; write precision, recall, f1 and support."
            )
        shares = 1 if name == "accuracy" else 3
        for k, cell in enumerate(cells):
            read_share(cell) if k < shares else read_count(cell)
    if result.matrix and (len(result.matrix) != 2 or any(len(row) != 2 for row in result.matrix.values())):
        raise AllkitError(
            f"{place}, matrix: write two rows of two counts: the truth is the row, {paper.positive} first."
        )


def printed_measures(paper: Paper, result: Result) -> list[tuple[str, Number]]:
    """Return all that a result prints as pairs of measure and Number: single measures, and the cells of its report."""
    found = [(name, number) for name, number in result.measures.items() if name != "auc"]
    for (row, column), measure in REPORT.items():
        name = paper.classes[row] if isinstance(row, int) else row
        cells = result.report.get(name, [])
        place = 0 if name == "accuracy" else ("precision", "recall", "f1_score").index(column)
        if len(cells) > place:
            found.append((measure, read_share(cells[place])))
    return found


def supports_of(paper: Paper, result: Result) -> list[tuple[int, int]]:
    """Return what is printed of how many images each class has, positive first, once for each place that says so."""
    found = []
    if set(paper.classes) <= set(result.support):
        found.append(tuple(result.support[name] for name in paper.classes))
    rows = [result.report.get(name, []) for name in paper.classes]
    if all(len(row) == 4 for row in rows):
        found.append(tuple(read_count(row[3]) for row in rows))
    if result.matrix:
        found.append(tuple(sum(result.matrix[name]) for name in paper.classes))
    return list(dict.fromkeys(found))
