"""Tuning the paper's three hyperparameters: what a trial is, and what a study of many tells."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from allkit import AllkitError, __version__
from allkit.evaluate import evaluate_predictions
from allkit.models import TrainedModel, import_keras, predict_index
from allkit.runs import load_data, open_run
from allkit.splits import Split, assert_disjoint, split_data
from allkit.study import Range, Report, Score, open_study, quiet_optuna, trials_table
from allkit.train import (
    PROFILES,
    MonitorSwitchLR,
    Profile,
    build_batches,
    build_from_profile,
    class_weights,
    get_profile,
    train_model,
)

if TYPE_CHECKING:
    import optuna
    import pandas as pd

SPACE = {
    "batch_size": Range(8, 128, log=True),
    "learning_rate": Range(1e-4, 1e-1, log=True, whole=False),
    "epochs": Range(1, 10),
}
"""The paper's three hyperparameters (III.B.3), and where to look for better values."""

FEWEST_TRIALS = 10
"""With fewer complete trials than this, nothing is said about importance."""


def paper_settings(space: Mapping[str, Range] = SPACE) -> dict[str, float]:
    """Return the paper's own values of the settings in `space`: where a search begins."""
    return {name: getattr(PROFILES["paper"], name) for name in space}


def search_table(space: Mapping[str, Range] = SPACE) -> pd.DataFrame:
    """Return the search space as a table of text: from, to, scale, and the paper's value of every setting."""
    import pandas as pd

    rows = {
        name: {
            "from": f"{r.low:g}",
            "to": f"{r.high:g}",
            "drawn so that": f"each {'doubling' if r.log else 'step'} is as likely",
            "paper": f"{paper_settings()[name]:g}",
        }
        for name, r in space.items()
    }
    return pd.DataFrame(rows).T.rename_axis("setting")


# ---------------------------------------------------------------------------------------- what a trial is


def describe_recipe(
    split: Split, profile: Profile, model: str, *, seed: int = 123, space: Mapping[str, Range] = SPACE
) -> dict[str, Any]:
    """Return what all trials of a study have in common: images of each part, network, seed, settings not searched."""
    from allkit.data import index_hash

    parts = {f"{name} images": index_hash(part) for name, part in split.parts.items()}
    fields = dataclasses.asdict(dataclasses.replace(profile, best_by="balanced_accuracy"))
    fixed = {name: value for name, value in fields.items() if name not in {_field(profile, key) for key in space}}
    recipe = {**parts, "model": model, "seed": seed, **fixed, "allkit": __version__}
    return json.loads(json.dumps(recipe))  # as a storage gives it back


def _field(profile: Profile, setting: str) -> str:
    """Return the field of the profile that a setting means: epochs are the head's where it alone is trained."""
    return "head_epochs" if setting == "epochs" and not profile.epochs else setting


def build_score(split: Split, profile: Profile, model: str, *, seed: int = 123) -> Score:
    """Return the function that trains the network `model` with given settings, for `allkit.study.run_trials`.

    The score is the balanced accuracy (0-1) on the validation part after the best epoch, whatever the profile
    chooses epochs by. The balanced accuracy of the same weights on the test part is kept beside it as `test`, to
    show afterwards what choosing does. Nothing is chosen by it.
    """

    def score(settings: Mapping[str, float], report: Report) -> dict[str, float]:
        keras = import_keras()
        keras.utils.clear_session()  # or what earlier trials built stays in memory
        changed = {_field(profile, name): value for name, value in settings.items()}
        own = dataclasses.replace(profile, best_by="balanced_accuracy", **changed)
        network = build_from_profile(model, own, split.train["label"].nunique(), seed=seed)
        epochs = itertools.count(1)  # over both phases, where there are two
        watch = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: report(next(epochs), float(logs["val_balanced_accuracy"]))
        )
        training = train_model(network, split, own, seed=seed, show=False, callbacks=[watch])
        tested = evaluate_predictions(predict_index(training.trained, split.test))
        best = training.history["val_balanced_accuracy"].max()
        return {"score": float(best), "test": float(tested["balanced_accuracy"])}

    return score


def build_head_score(split: Split, profile: Profile, trained: TrainedModel, *, seed: int = 123) -> Score:
    """Return a function that trains a new head on the frozen layers of a trained network, a second or so a trial.

    What these layers make of the images is computed here, once and without augmentation. The rest is as in
    `build_score`. Where the network's own epoch was chosen on the same validation part, all scores on it are a little
    too high from the start.
    """
    assert_disjoint(split, allow_leak=profile.allow_leak)
    keras, classes = import_keras(), tuple(trained.card["classes"])
    pool = "head_pool"
    trunk = keras.Model(trained.model.input, trained.model.get_layer(pool).output)
    parts = {}
    for name, part in split.parts.items():
        weights = class_weights(part["label"]) if profile.class_weight or name != "train" else None
        batches = build_batches(part, classes, profile, training=False, weights=weights)
        parts[name] = trunk.predict(batches, verbose=0), batches.labels, batches.sample_weights
    fresh = build_from_profile(trained.card["model"], profile, len(classes), seed=seed)
    head = keras.Model(fresh.get_layer(pool).output, fresh.output)
    head.compile(
        keras.optimizers.Adamax(profile.learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="balanced_accuracy")],
    )
    head.optimizer.build(head.trainable_variables)
    variables = [*head.variables, *head.optimizer.variables]
    start = [np.array(variable) for variable in variables]

    def score(settings: Mapping[str, float], report: Report) -> dict[str, float]:
        keras.utils.set_random_seed(seed)
        for variable, value in zip(variables, start, strict=True):  # building anew would take longer than training
            variable.assign(value)
        own = dataclasses.replace(profile, **settings)
        head.optimizer.learning_rate, head.stop_training = own.learning_rate, False
        rule = MonitorSwitchLR(patience=own.patience, best_by="balanced_accuracy")
        watch = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: report(epoch + 1, float(logs["val_balanced_accuracy"]))
        )
        features, labels, weights = parts["train"]
        head.fit(features, labels, own.batch_size, own.epochs, sample_weight=weights, verbose=0,
                 validation_data=parts["validation"], callbacks=[rule, watch])  # fmt: skip
        features, labels, weights = parts["test"]
        right = np.asarray(head(features, training=False)).argmax(axis=1) == labels.argmax(axis=1)
        return {"score": rule.best_value, "test": float(np.average(right, weights=weights))}

    return score


def weights_hash(trained: TrainedModel) -> str:
    """Return 8 hexadecimal digits that stand for the weights of a network."""
    return hashlib.sha256(b"".join(values.tobytes() for values in trained.model.get_weights())).hexdigest()[:8]


def name_study(prefix: str, recipe: Mapping[str, Any]) -> str:
    """Return a name that no study of another recipe has."""
    return f"{prefix}-{hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]}"


def start_tuning(
    name: str, *, data: str = "synthetic", profile: str = "quick", model: str = "mobilenet",
    parameters: Mapping[str, Any] | None = None, storage: str = "", out: str = "latest",
) -> tuple[optuna.Study, Score]:  # fmt: skip
    """Open the study `name` for these data and this network, and return it with its score function.

    Args:
        name: letters, digits, ".", "_" and "-".
        data, profile, out: as for `allkit run`.
        model: "mobilenet" or "efficientnetb3".
        parameters: fields of the profile, `seed`, `hold_out` and `fold`; a hyperparameter among them is held fixed
            and not searched. With `views` the head alone is trained (give it weights="imagenet").
        storage: a journal file or a database URL; empty: tune/<name>.journal in the run folder.

    Raises:
        AllkitError: see `load_data`, `get_profile`, `split_data`, `open_run` and `open_study`.
    """
    given = dict(parameters or {})
    space = {key: r for key, r in SPACE.items() if key not in given}
    if given.get("views") and "epochs" in space:  # the head alone is trained, on features that are computed once
        given = {"head_epochs": 1, "last_blocks": 0} | given | {"epochs": 0}
    seed, hold_out, fold = given.pop("seed", 123), given.pop("hold_out", ""), given.pop("fold", None)
    index = load_data(data)
    wanted = get_profile(profile, model, index, **given)
    split = split_data(index, wanted.split, seed=seed, hold_out=str(hold_out), fold=fold)
    assert_disjoint(split, allow_leak=wanted.allow_leak)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise AllkitError(f"a study cannot be called {name!r}; use letters, digits, '.', '_' and '-'.")
    if not space:
        raise AllkitError(f"{', '.join(SPACE)} are all given, so there is nothing to search; leave one out.")
    run = open_run(out, index=index, profile=wanted)
    recipe = describe_recipe(split, wanted, model, seed=seed, space=space)
    place = storage or run.path / "tune" / f"{name}.journal"
    study = open_study(name, place, recipe, space, paper_settings(space))
    return study, build_score(split, wanted, model, seed=seed)


# ------------------------------------------------------------------------------------- what a study tells


def describe_trial(row: Mapping[str, Any], space: Mapping[str, Range] = SPACE) -> str:
    """Return a row of `allkit.study.trials_table` as one line."""
    settings = ", ".join(f"{name} {row[name]:.3g}" for name in space if name in row)
    ended = f"{row['score']:.3f}" if row["state"] == "complete" else f"{row['state']} after epoch {row['reports']}"
    return f"trial {row['trial']}: {ended} ({settings}; {row['seconds']:.0f} s)"


def describe_best(study: optuna.Study) -> str:
    """Return what a study found in one sentence, and what that is not in another."""
    table = trials_table(study)
    complete, pruned = (table[table["state"] == state] for state in ("complete", "pruned"))
    if complete.empty:
        return "No trial is complete yet."
    best = complete.loc[complete["score"].idxmax()].to_dict()
    return (
        f"Best of {len(complete)} complete trials ({len(pruned)} were pruned): {describe_trial(best)}. The score "
        "is the balanced accuracy on validation images. The best of many is too good; notebook 11 shows by how much."
    )


def measure_importance(
    table: pd.DataFrame, space: Mapping[str, Range] = SPACE, *, resamples: int = 100, seed: int = 123
) -> pd.DataFrame:
    """Measure which share of the differences in score goes with each setting (fANOVA), beside pure luck.

    Such shares add up to 1 even where nothing matters. So a setting called "luck" is added, drawn at random for
    each trial and anew in each resample, and a setting has to beat it.

    Args:
        table: from `allkit.study.trials_table`. Only its complete trials count; where bad ones were pruned, that
            is a choice of good ones.

    Returns:
        Index: the settings and "luck". Mean `value`, `low` and `high` (0-1; 95 % of the bootstrap resamples of
        complete trials lie between; NaN with fewer than FEWEST_TRIALS) and `verdict`: "matters" where it beats
        luck in 95 % of the resamples, else "cannot be told".
    """
    import pandas as pd

    rows = table[table["state"] == "complete"]
    names = [*space, "luck"]
    if len(rows) < FEWEST_TRIALS or rows["score"].nunique() == 1:
        return pd.DataFrame({"value": math.nan, "low": math.nan, "high": math.nan, "verdict": "cannot be told"}, names)
    rng = np.random.default_rng(seed)
    shares = np.array([_importance(rows, space, rng) for _ in range(resamples)])
    low, high = np.quantile(shares, (0.025, 0.975), axis=0)
    beats = (shares > shares[:, -1:]).mean(axis=0)
    verdict = ["matters" if share >= 0.95 else "cannot be told" for share in beats]
    return pd.DataFrame({"value": shares.mean(axis=0), "low": low, "high": high, "verdict": verdict}, names)


def _importance(rows: pd.DataFrame, space: Mapping[str, Range], rng: np.random.Generator) -> list[float]:
    """Return the shares of the settings and of luck in one resample of the trials."""
    optuna = quiet_optuna()
    lines = {name: optuna.distributions.FloatDistribution(r.low, r.high, log=r.log) for name, r in space.items()}
    lines["luck"] = optuna.distributions.FloatDistribution(0, 1)
    rows = rows.assign(luck=rng.random(len(rows)))
    drawn = rows.sample(len(rows), replace=True, random_state=rng)
    while drawn["score"].nunique() == 1:  # nothing to share out
        drawn = rows.sample(len(rows), replace=True, random_state=rng)
    study = optuna.create_study(direction="maximize")
    for row in drawn.to_dict("records"):
        params = {name: row[name] for name in lines}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=lines, value=row["score"]))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=16, max_depth=8, seed=int(rng.integers(2**31)))
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return [found[name] for name in lines]


def measure_optimism(table: pd.DataFrame, *, draws: int = 2000, seed: int = 123) -> pd.DataFrame:
    """Measure how far the best validation score of k trials overstates the same trial's test score.

    For every k, sets of k trials are drawn at random without replacement. In each set the trial with the best
    validation score is taken, as one would, and its test score is looked up. Only trials are resampled: the spread
    says nothing about other people in either part.

    Args:
        table: columns score (validation) and test, one row per trial; rows that lack one are left out.
        draws: sets of each size.

    Returns:
        One row per k from 1 to the number of trials: trials (k), score and test (means over the sets), gap (score
        minus test), low and high (90 % of the sets' gaps lie between; NaN for more than half of all trials, where
        the sets are nearly the same), growth (gap minus that of k = 1: what choosing adds).

    Raises:
        AllkitError: fewer than two trials have both scores.
    """
    import pandas as pd

    scores = table[["score", "test"]].dropna().to_numpy(float)
    count = len(scores)
    if count < 2:
        raise AllkitError(f"{count} trials have both scores; run two at least to see what choosing does.")
    order = np.random.default_rng(seed).random((draws, count)).argsort(axis=1)
    score, test = scores[order, 0], scores[order, 1]
    best = np.maximum.accumulate(score, axis=1)
    # a trial takes the lead where it beats all before it, and keeps it until the next one does
    leads = np.hstack([np.ones((draws, 1), bool), score[:, 1:] > best[:, :-1]])
    leader = np.maximum.accumulate(np.where(leads, np.arange(count), 0), axis=1)
    tested = np.take_along_axis(test, leader, axis=1)
    low, high = np.quantile(best - tested, (0.05, 0.95), axis=0)
    trials = np.arange(1, count + 1)
    told = trials <= count / 2
    found = pd.DataFrame({"trials": trials, "score": best.mean(axis=0), "test": tested.mean(axis=0)})
    found = found.assign(gap=found["score"] - found["test"])
    found = found.assign(low=np.where(told, low, np.nan), high=np.where(told, high, np.nan))
    return found.assign(growth=found["gap"] - (scores[:, 0].mean() - scores[:, 1].mean()))
