"""The command that judges predictions made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allkit.cli.base import Positive, app, echo_json, echo_table, one_line, say

if TYPE_CHECKING:
    import pandas as pd

    from allkit.lessons.predictions import Judged


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="Predictions (.csv, .parquet) or embeddings (.npz, .parquet).")],
    other: Annotated[Path | None, typer.Argument(help="A second file about the same images, to compare.")] = None,
    positive: Positive = "",
    prevalence: Annotated[float | None, typer.Option(help="Share of the positive class where it is used, 0-1.")] = None,
    cost_missed: Annotated[float, typer.Option(help="Cost of a missed case.")] = 1.0,
    cost_false_alarm: Annotated[float, typer.Option(help="Cost of a false alarm.")] = 1.0,
    common: Annotated[bool, typer.Option("--common", help="Compare the images that both files have.")] = False,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="Judge subjects that were trained on too.")] = False,
    card: Annotated[Path | None, typer.Option(metavar="DIR", help="Write card.html and card.md there.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="CSV", help="Write the predictions as they were judged.")] = None,
    seed: Annotated[int, typer.Option(help="Of resamples and folds.")] = 123,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
) -> None:
    """Judge predictions that were made elsewhere: intervals by subject, calibration, threshold by cost, comparison.

    One row per image: path (or id), label, better also subject, perhaps part (train, validation, test), and the
    probability of each class, p_<class>. Embeddings get a linear head, tested on subjects that it did not learn from.
    With --prevalence also a threshold by cost. For teaching, not a diagnosis.
    """
    from allkit.judging.tables import align
    from allkit.lessons.predictions import compare_files, judge_file, load_predictions

    costs = {"prevalence": prevalence, "cost_missed": cost_missed, "cost_false_alarm": cost_false_alarm}
    options = {"positive": positive, "allow_leak": allow_leak, "seed": seed}
    loaded = [load_predictions(name, **options) for name in (file, other) if name]
    aligned = align(*(one.rows for one in loaded), common=common) if other else None
    judged = [judge_file(one, costs if prevalence is not None else None, seed=seed) for one in loaded]
    compared = compare_files(*aligned[:2], seed=seed) if aligned else None
    if as_json:
        _echo_judged_json(judged, compared)
    else:
        for one in judged:
            _echo_judged(one)
        if aligned:
            say(f"First minus second: {one_line(aligned[2])}")
            _echo_difference(compared)
    written = {"Predictions": _save(loaded[0].rows, out)} if out else {}
    if card:
        from allkit.course.predictions_card import write_predictions_card

        written["Card"] = write_predictions_card(judged[0], card)[0]
    for what, path in written.items():
        say(f"{what}: {path}", err=as_json)


def _save(predictions: pd.DataFrame, path: Path) -> Path:
    from allkit import saving
    from allkit.lists import as_text_cells

    with saving(path) as temporary:
        as_text_cells(predictions).to_csv(temporary, index=False)
    return path


def _echo_judged(judged: Judged) -> None:
    from allkit.lessons.predictions import describe_costs, describe_few, describe_file
    from allkit.scores import describe_scores

    predictions, found = judged.loaded.rows, judged.measures
    said = describe_scores(predictions, found)
    say(f"{describe_file(judged.loaded)}\n")
    if judged.loaded.leaks:
        say("LEAK: subjects of the training part are judged; the scores are too good for others.\n")
    for name in ("metrics", "by_class", "errors", "calibration"):
        echo_table(said[name])
        say("")
    say(f"{describe_few(predictions, found).replace('**', '')}\n")
    if said["by_subject"] is not None:
        say("The subjects with the lowest share of right answers (Wilson intervals over their images):")
        echo_table(said["by_subject"].head(5))
        say("")
    if judged.decided is not None:
        say(f"{describe_costs(judged.decided, **judged.costs).replace('**', '')}\n")


def _echo_difference(compared: pd.DataFrame) -> None:
    from allkit.scores import with_interval

    values = [with_interval(**row) for row in compared[["value", "low", "high"]].to_dict("records")]
    table = compared[["verdict"]].assign(difference=values).reset_index()
    echo_table(table[["measure", "difference", "verdict"]])
    say(
        f"\nIn brackets: 95 % paired bootstrap intervals over {compared['resampled'].iat[0]} "
        f"({compared['units'].iat[0]} in the smaller class). Decide beforehand which row counts.\n"
    )


def _echo_judged_json(judged: list[Judged], compared: pd.DataFrame | None) -> None:
    from allkit.evaluate import evaluate_calibration, evaluate_subjects

    files = [
        {
            "file": one.loaded.path,
            "images": len(one.loaded.rows),
            "positive": one.loaded.positive,
            "notes": one.loaded.notes,
            "leaks": one.loaded.leaks,
            "measures": one.measures.to_dict("index"),
            "calibration": evaluate_calibration(one.loaded.rows).reset_index(),
            "subjects": evaluate_subjects(one.loaded.rows).reset_index(),
            "threshold": None if one.decided is None else one.decided.reset_index(),
        }
        for one in judged
    ]
    echo_json({"files": files, "first minus second": None if compared is None else compared.to_dict("index")})
