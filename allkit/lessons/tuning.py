"""Notebook 12 and `allkit tune`: the search for batch size, learning rate and epochs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.exceptions import ExperimentalWarning, OptunaError, StorageInternalError, TrialPruned
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from allkit import AllkitError, __version__, plots
from allkit.backend import keras
from allkit.data import index_hash
from allkit.evaluate import evaluate_predictions
from allkit.models import TrainedModel, head_of, predict_index
from allkit.parameters import as_kind
from allkit.progress import track
from allkit.runs import Run, load_data, open_run
from allkit.splits import Split, assert_disjoint, fitting_split, split_data
from allkit.train import (
    PROFILES,
    MonitorSwitchLR,
    Profile,
    build_batches,
    build_from_profile,
    get_profile,
    train_model,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)  # an error or Ctrl-C is passed on, so it needs no log as well

SPACE = {
    "batch_size": IntDistribution(8, 128, log=True),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "epochs": IntDistribution(1, 10),
}
"""The paper's three hyperparameters (III.B.3), and where to look for better values."""

HEARTBEAT_SECONDS, GRACE_SECONDS = 15, 60
"""How often a running trial shows that it is alive, and after how long without a sign it is started again."""

RETRIES = 2
"""How often a trial whose process died is started again: its settings may be the cause (too little memory)."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

FEWEST_TRIALS = 10
"""With fewer complete trials than this, importance is inconclusive."""

RESAMPLES, DRAWS = 100, 2000
"""Bootstrap resamples for the importance, and random sets of trials for the optimism."""

Report = Callable[[int, float], None]

Score = Callable[[Mapping[str, float], Report], Mapping[str, float]]
"""Runs one trial: takes its settings and `report(epoch, score)`, returns `score` and other results to keep."""


def paper_settings(space: Mapping[str, BaseDistribution] = SPACE) -> dict[str, float]:
    """Return the paper's own values of the settings in `space`."""
    return {name: getattr(PROFILES["paper"], name) for name in space}


def search_table() -> pd.DataFrame:
    """Return the search space as a table of text: from, to, scale, and the paper's value of every setting."""
    rows = {
        name: {
            "from": f"{values.low:g}",
            "to": f"{values.high:g}",
            "scale": "logarithmic" if values.log else "linear",
            "paper": f"{paper_settings()[name]:g}",
        }
        for name, values in SPACE.items()
    }
    return pd.DataFrame(rows).T.rename_axis("setting")


def open_search(
    name: str, storage: str | Path, recipe: Mapping[str, Any], space: Mapping[str, BaseDistribution] = SPACE
) -> optuna.Study:
    """Create the search `name`, or open it again, in an SQLite file or at the URL of a database.

    `recipe` is what all trials have in common, in JSON's types; its `seed` is that of the sampler. A new search
    begins with the paper's settings. A search with another recipe or space is refused with an AllkitError.
    """
    url = str(storage) if "://" in str(storage) else f"sqlite:///{Path(storage).resolve().as_posix()}"
    # a trial is pruned where it is worse than three quarters of the complete ones at the same epoch
    pruner = optuna.pruners.PercentilePruner(75, n_startup_trials=5, n_warmup_steps=2)
    given = {"recipe": dict(recipe), "space": {key: distribution_to_json(d) for key, d in space.items()}}
    try:
        if url != str(storage):
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
        study = _create_study(name, _connect(url), pruner, paper_settings(space))
        for part in given.keys() - study.user_attrs.keys():
            study.set_user_attr(part, given[part])
        stored = study.user_attrs
    except (OSError, ImportError, RuntimeError, SQLAlchemyError, OptunaError) as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0]
        raise AllkitError(
            f"the storage {storage} of the search cannot be used ({reason}); give an SQLite file or the URL of a "
            "database that this machine can reach."
        ) from error
    for part, values in given.items():
        _check_same(name, storage, stored[part], values)
    return study


def _connect(url: str, patience: int = 3) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            return RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
            )
        except (OperationalError, IntegrityError):
            if not patience:
                raise
    time.sleep(1)  # another process may be making the tables at this moment
    return _connect(url, patience - 1)


def _create_study(
    name: str, storage: RDBStorage, pruner: optuna.pruners.BasePruner, first: Mapping[str, float]
) -> optuna.Study:
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize", pruner=pruner)
    except optuna.exceptions.DuplicatedStudyError:
        return optuna.load_study(study_name=name, storage=storage, pruner=pruner)
    study.enqueue_trial(dict(first))  # by the one process that created it
    return study


def _check_same(name: str, storage: str | Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    other = [key for key in {**given, **stored} if given.get(key) != stored.get(key)]
    if other:
        raise AllkitError(
            f"the search {name!r} in {storage} has other {', '.join(other)} ({other[0]} there: "
            f"{stored.get(other[0])}, here: {given.get(other[0])}); give a new search another name."
        )


def count_finished(study: optuna.Study) -> int:
    """Return how many trials are complete or pruned, over all processes."""
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def run_trials(
    study: optuna.Study,
    score: Score,
    trials: int,
    *,
    callbacks: list[Callable[[optuna.Study, FrozenTrial], None]] | None = None,
) -> None:
    """Run trials until at least `trials` are finished, over all processes that work on this search.

    Start it in as many processes as you like, and again when one was stopped. What `score` raises is passed on,
    after its trial is marked as failed.
    """
    enough = MaxTrialsCallback(trials, states=FINISHED)
    try:
        while count_finished(study) < trials:
            try:
                study.optimize(lambda trial: _run_trial(trial, score), callbacks=[*(callbacks or []), enough])
            except ValueError as error:
                if "Cannot tell a" not in str(error):
                    raise
                # Optuna's message where this machine slept for so long that its trial was started again elsewhere
    except StorageInternalError as error:
        raise AllkitError(f"the storage of the search does not answer ({error}); start again when it does.") from error


def _run_trial(trial: optuna.Trial, score: Score) -> float:
    settings = _draw_settings(trial)

    def report(epoch: int, value: float) -> None:
        trial.report(value, epoch)
        if epoch < settings.get("epochs", math.inf) and trial.should_prune():  # else there is no epoch left to save
            raise TrialPruned

    try:
        results = dict(score(settings, report))
    except KeyboardInterrupt:
        trial.study.enqueue_trial(settings)  # for whoever goes on
        raise
    value = results.pop("score")
    for name, result in results.items():
        trial.set_user_attr(name, result)
    return value


def _draw_settings(trial: optuna.Trial) -> dict[str, float]:
    """Draw the settings of a trial, with a seed from that of the recipe and its number.

    So one process alone draws the same settings again, even when it was stopped in between, and no two processes
    begin alike.
    """
    stored = trial.study.user_attrs
    key = np.random.SeedSequence((stored["recipe"].get("seed", 0), trial.number))
    seed = int(key.generate_state(1)[0])
    trial.study.sampler = optuna.samplers.TPESampler(n_startup_trials=8, constant_liar=True, seed=seed)
    drawn = {}
    for name, text in stored["space"].items():
        values = json_to_distribution(text)
        suggest = trial.suggest_int if isinstance(values, IntDistribution) else trial.suggest_float
        drawn[name] = suggest(name, values.low, values.high, log=values.log)
    return drawn


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Return one row per trial, those that failed and were tried again included.

    Columns: trial (from 1), state ("complete", "pruned", "running", "waiting", "fail"), the settings, score (of a
    pruned trial: that of its last epoch), best (highest score of complete trials so far), reports (epochs
    reported), seconds, test; missing where there is none.
    """
    rows = [
        {
            "trial": trial.number + 1,
            "state": trial.state.name.lower(),
            **trial.params,
            "score": trial.value,
            "reports": len(trial.intermediate_values),
            "seconds": trial.duration and trial.duration.total_seconds(),
            **trial.user_attrs,
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    table = pd.DataFrame(rows, columns=["trial", "state", *SPACE, "score", "best", "reports", "seconds", "test"])
    table = table.astype({"batch_size": "Int64", "epochs": "Int64", "score": float, "seconds": float, "test": float})
    return table.assign(best=table["score"].where(table["state"] == "complete").cummax().ffill())


def curves_table(study: optuna.Study) -> pd.DataFrame:
    """Return the learning curves of finished trials: trial, state, epoch (from 1) and score, one row per epoch."""
    rows = [
        (trial.number + 1, trial.state.name.lower(), epoch, value)
        for trial in study.get_trials(deepcopy=False, states=FINISHED)
        for epoch, value in sorted(trial.intermediate_values.items())
    ]
    return pd.DataFrame(rows, columns=["trial", "state", "epoch", "score"])


def describe_recipe(
    split: Split, profile: Profile, model: str, *, seed: int = 123, space: Mapping[str, BaseDistribution] = SPACE
) -> dict[str, Any]:
    """Return what all trials have in common: images of each part, network, seed, settings that are not searched."""
    parts = {f"{name} images": index_hash(part) for name, part in split.parts.items()}
    fields = dataclasses.asdict(dataclasses.replace(profile, best_by="balanced_accuracy"))
    fixed = {name: value for name, value in fields.items() if name not in space}
    recipe = {**parts, "model": model, "seed": seed, **fixed, "allkit": __version__}
    return json.loads(json.dumps(recipe))  # as a storage gives it back


def build_score(split: Split, profile: Profile, model: str, *, seed: int = 123) -> Score:
    """Return the function that trains a network with given settings, for `run_trials`.

    The score is the balanced accuracy (0-1) on the validation part after the best epoch, whatever the profile
    chooses epochs by. That of the same weights on the test part is kept beside it as `test`, to show afterwards
    what choosing does. Nothing is chosen by it.
    """

    def score(settings: Mapping[str, float], report: Report) -> dict[str, float]:
        keras.utils.clear_session()  # or what earlier trials built stays in memory
        own = dataclasses.replace(profile, best_by="balanced_accuracy", **settings)
        network = build_from_profile(model, own, split.train["label"].nunique(), seed=seed)
        watch = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: report(epoch + 1, float(logs["val_balanced_accuracy"]))
        )
        training = train_model(network, split, own, seed=seed, show=False, callbacks=[watch])
        tested = evaluate_predictions(predict_index(training.trained, split.test))
        best = training.history["val_balanced_accuracy"].max()
        return {"score": float(best), "test": float(tested["balanced_accuracy"])}

    return score


def build_head_score(split: Split, profile: Profile, trained: TrainedModel, *, seed: int = 123) -> Score:
    """Return a function that trains a new head on the frozen layers of a trained network, a second or so a trial.

    The output of these layers is computed here, once and without augmentation. The rest is as in `build_score`.
    Where the network's own epoch was chosen on the same validation part, all scores on it are a little too high
    from the start.
    """
    assert_disjoint(split, allow_leak=profile.allow_leak)
    parts = _frozen_features(split, profile, trained)
    head = _build_head(profile, trained, seed)
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


def _frozen_features(split: Split, profile: Profile, trained: TrainedModel) -> dict[str, tuple[np.ndarray, ...]]:
    """Return features, labels (one-hot) and sample weights of each part."""
    choosing = dataclasses.replace(profile, best_by="balanced_accuracy")
    parts = {}
    for name, part in split.parts.items():
        of_part = profile if name == "train" else choosing
        batches = build_batches(part, trained.classes, of_part, training=False, network=trained.fused)
        parts[name] = np.asarray(batches.images), batches.labels, batches.sample_weights
    return parts


def _build_head(profile: Profile, trained: TrainedModel, seed: int) -> keras.Model:
    """Return the head of a trained network as it was before training: only what it standardises by is kept."""
    keras.utils.set_random_seed(seed)
    head = keras.models.clone_model(head_of(trained.model))
    for layer in trained.model.layers:
        if layer.name == "head_standardise":
            head.get_layer(layer.name).set_weights(layer.get_weights())
    head.compile(
        keras.optimizers.Adamax(profile.learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="balanced_accuracy")],
    )
    head.optimizer.build(head.trainable_variables)
    return head


def open_head_search(
    run: Run, split: Split, profile: Profile, trained: TrainedModel, *, seed: int = 123
) -> optuna.Study:
    """Open the search with `build_head_score` in the run folder; other data, settings or weights have another."""
    weights = hashlib.sha256(b"".join(values.tobytes() for values in trained.model.get_weights())).hexdigest()[:8]
    recipe = describe_recipe(split, profile, f"head on {trained.metadata['model']}", seed=seed)
    recipe |= {"frozen_backbone": weights}
    name = f"heads-{hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]}"
    return open_search(name, run.path / "tune" / f"{name}.db", recipe)


def start_tuning(
    name: str, *, data: str = "synthetic", profile: str = "quick", model: str = "mobilenet",
    parameters: Mapping[str, Any] | None = None, storage: str = "", out: str = "latest",
) -> tuple[optuna.Study, Score]:  # fmt: skip
    """Open the search `name` for these data and this network, and return it with its score function.

    `data`, `profile` and `out` are those of `allkit run`. `parameters`: fields of the profile, `seed`, `hold_out` and
    `fold`; a hyperparameter among them is held fixed and not searched. An empty `storage` is tune/<name>.db in the run
    folder.
    """
    given = dict(parameters or {})
    space = {key: values for key, values in SPACE.items() if key not in given}
    seed, fold = as_kind("seed", given.pop("seed", 123), int), as_kind("fold", given.pop("fold", None), int | None)
    hold_out = as_kind("hold_out", given.pop("hold_out", ""), str)
    index = load_data(data)
    wanted = get_profile(profile, model, index, **given)
    wanted = dataclasses.replace(wanted, split=fitting_split(given.get("split"), wanted.split, index))
    split = split_data(index, wanted.split, seed=seed, hold_out=hold_out, fold=fold)
    assert_disjoint(split, allow_leak=wanted.allow_leak)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise AllkitError(f"a search cannot be called {name!r}; use letters, digits, '.', '_' and '-'.")
    if not space:
        raise AllkitError(f"{', '.join(SPACE)} are all given, so there is nothing to search; leave one out.")
    run = open_run(out, index=index, profile=profile)
    recipe = describe_recipe(split, wanted, model, seed=seed, space=space)
    study = open_search(name, storage or run.path / "tune" / f"{name}.db", recipe, space)
    return study, build_score(split, wanted, model, seed=seed)


def describe_trial(trial: FrozenTrial) -> str:
    """Return a finished trial as one line."""
    settings = ", ".join(f"{name} {trial.params[name]:.3g}" for name in SPACE if name in trial.params)
    pruned = trial.state == TrialState.PRUNED
    ended = f"pruned after epoch {trial.last_step}" if pruned else f"{trial.value:.3f}"
    return f"trial {trial.number + 1}: {ended} ({settings}; {trial.duration.total_seconds():.0f} s)"


def describe_best(study: optuna.Study) -> str:
    """Return the best trial in one sentence, and a warning of its optimism in another."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    complete, pruned = (states.count(state) for state in FINISHED)
    if not complete:
        return "No trial is complete yet."
    return (
        f"Best of {complete} complete trials ({pruned} were pruned): {describe_trial(study.best_trial)}. The score "
        "is the balanced accuracy on validation images. The best of many is too good; notebook 12 shows by how much."
    )


def measure_importance(table: pd.DataFrame, *, seed: int = 123) -> pd.DataFrame:
    """Measure which share of the differences in score goes with each setting (fANOVA), beside pure luck.

    Such shares add up to 1 even where nothing matters. So a setting called "luck" is added, a random number for
    each trial, new in each resample, and a setting has to beat it. Only complete trials of `trials_table` count;
    where bad ones were pruned, that is a choice of good ones.

    Index: the settings and "luck". Columns: mean `value`, `low` and `high` (0-1; the interval of 95 % of the
    bootstrap resamples of complete trials; NaN with fewer than FEWEST_TRIALS) and `verdict`: "matters" where a
    setting beats luck in 95 % of the resamples, else "inconclusive".
    """
    rows = table[table["state"] == "complete"]
    names = [*SPACE, "luck"]
    if len(rows) < FEWEST_TRIALS or rows["score"].nunique() == 1:
        return pd.DataFrame({"value": math.nan, "low": math.nan, "high": math.nan, "verdict": "inconclusive"}, names)
    rng = np.random.default_rng(seed)
    shares = np.array([_importance(rows, rng) for _ in range(RESAMPLES)])
    low, high = np.quantile(shares, (0.025, 0.975), axis=0)
    beats = (shares > shares[:, -1:]).mean(axis=0)
    verdict = ["matters" if share >= 0.95 else "inconclusive" for share in beats]
    return pd.DataFrame({"value": shares.mean(axis=0), "low": low, "high": high, "verdict": verdict}, names)


def _importance(rows: pd.DataFrame, rng: np.random.Generator) -> list[float]:
    """Return the shares of the settings and of luck in one resample of the trials."""
    axes = {name: FloatDistribution(values.low, values.high, log=values.log) for name, values in SPACE.items()}
    axes["luck"] = FloatDistribution(0, 1)
    rows = rows.assign(luck=rng.random(len(rows)))
    drawn = rows.sample(len(rows), replace=True, random_state=rng)
    while drawn["score"].nunique() == 1:  # no differences to share
        drawn = rows.sample(len(rows), replace=True, random_state=rng)
    study = optuna.create_study(direction="maximize")
    for row in drawn.to_dict("records"):
        params = {name: row[name] for name in axes}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=axes, value=row["score"]))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=16, max_depth=8, seed=int(rng.integers(2**31)))
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return [found[name] for name in axes]


def measure_optimism(table: pd.DataFrame, *, seed: int = 123) -> pd.DataFrame:
    """Measure how far the best validation score of k trials overstates the same trial's test score.

    For every k, DRAWS sets of k trials are sampled without replacement. In each set the trial with the best
    validation score is chosen, as one would, and its test score is looked up. Only trials are resampled: the spread
    says nothing about other subjects in either part.

    `table` has the columns score (validation) and test; rows that lack one are left out. One row per k from 1 to the
    number of trials: trials (k), score and test (means over the sets), gap (score minus test), low and high (90 % of
    the sets' gaps lie between; NaN for more than half of all trials, where the sets are nearly the same), growth
    (gap minus that of k = 1: the part that comes from choosing).
    """
    scores = table[["score", "test"]].dropna().to_numpy(float)
    count = len(scores)
    if count < 2:
        raise AllkitError(f"{count} trials have both scores; run two at least to see what choosing does.")
    order = np.random.default_rng(seed).random((DRAWS, count)).argsort(axis=1)
    score, test = scores[order, 0], scores[order, 1]
    best = np.maximum.accumulate(score, axis=1)
    # a trial takes the lead where it beats all before it, and keeps it until the next one does
    leads = np.hstack([np.ones((DRAWS, 1), bool), score[:, 1:] > best[:, :-1]])
    leader = np.maximum.accumulate(np.where(leads, np.arange(count), 0), axis=1)
    tested = np.take_along_axis(test, leader, axis=1)
    low, high = np.quantile(best - tested, (0.05, 0.95), axis=0)
    trials = np.arange(1, count + 1)
    distinct = trials <= count / 2
    found = pd.DataFrame({"trials": trials, "score": best.mean(axis=0), "test": tested.mean(axis=0)})
    found = found.assign(gap=found["score"] - found["test"])
    found = found.assign(low=np.where(distinct, low, np.nan), high=np.where(distinct, high, np.nan))
    return found.assign(growth=found["gap"] - (scores[:, 0].mean() - scores[:, 1].mean()))


def run_search(study: optuna.Study, score: Score, trials: int) -> pd.DataFrame:
    """Notebook 12: run trials until so many are finished, with a line of progress; return `trials_table`."""
    with track(what="trials", total=trials, initial=min(count_finished(study), trials), unit="trial") as bar:
        run_trials(study, score, trials, callbacks=[lambda *_: bar.update()])
    return trials_table(study)


def plot_search(table: pd.DataFrame) -> Axes:
    """Notebook 12: draw the validation score of every trial in their order, and the best so far."""
    scored = table.dropna(subset="score").sort_values("trial")
    ax = plots.plot_points(scored, "trial", "score", by="state")
    words = {"ylabel": "balanced accuracy, validation", "percent": True, "steps": True}
    plots.plot_lines(scored, "trial", {"best": "best so far"}, ax=ax, **words)
    return plots.describe(ax, f"Validation score of {len(table)} trials; the best is {table['best'].max():.3f}.")


def describe_best_trial(table: pd.DataFrame) -> str:
    """Notebook 12: return the best complete trial with its settings, and its gain over the paper's, in sentences."""
    complete = table[table["state"] == "complete"]
    paper, best = complete.iloc[0], complete.loc[complete["score"].idxmax()]
    values = ", ".join(f"{name.replace('_', ' ')} {best[name]:.2g}" for name in SPACE)
    gain = f"That is {best['score'] - paper['score']:.3f} above that of trial {paper['trial']}, the first"
    after = "No trial beats the paper's own values" if best["trial"] == paper["trial"] else gain
    return (
        f"The best of {len(complete)} complete trials is trial {best['trial']}: {values}. Its validation score is "
        f"{best['score']:.3f}. {after}."
    )


def plot_trial_curves(curves: pd.DataFrame, table: pd.DataFrame) -> Axes:
    """Notebook 12: draw the score of each trial over its epochs, coloured by learning rate; crosses were given up."""
    ax = plt.subplots(figsize=(6.8, 3.8))[1]
    rates = table.set_index("trial")["learning_rate"].astype(float)
    norm = LogNorm(rates.min(), rates.max())
    colours = matplotlib.colormaps["cividis"]
    for trial, rows in curves.groupby("trial"):
        colour = colours(norm(rates[trial]))
        ax.plot(rows["epoch"], 100 * rows["score"], color=colour, linewidth=1.2)
        mark = "X" if rows["state"].iat[0] == "pruned" else "o"
        ax.plot(rows["epoch"].iat[-1], 100 * rows["score"].iat[-1], mark, color=colour, markersize=7)
    bar = ax.figure.colorbar(ScalarMappable(norm, colours), ax=ax, label="learning rate")
    bar.ax.yaxis.set_major_formatter("{x:g}")
    ax.plot([], [], "o", color="0.3", label="finished")
    ax.plot([], [], "X", color="0.3", label="given up (pruned)")
    ax.legend(loc="lower right")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="balanced accuracy, validation (%)")
    pruned = curves.loc[curves["state"] == "pruned", "trial"].nunique()
    return plots.describe(ax, f"Score of each trial over its epochs; {pruned} of {len(table)} trials were given up.")


def describe_pruning(table: pd.DataFrame) -> str:
    """Notebook 12: return how many trials were pruned and what that saved, in a sentence."""
    pruned = table[table["state"] == "pruned"]
    saved, planned = int((pruned["epochs"] - pruned["reports"]).sum()), int(table["epochs"].sum())
    return (
        f"**{len(pruned)}** of {len(table)} trials were pruned, which saved {saved} of {planned} planned epochs "
        f"({saved / planned:.0%})."
    )


def plot_importance(importance: pd.DataFrame) -> Axes:
    """Notebook 12: draw the importance of each setting and of luck with intervals."""
    return plots.plot_intervals(importance, xlabel="share of the differences in score")


def describe_importance(importance: pd.DataFrame, trials: int) -> str:
    """Notebook 12: return which settings matter more than luck, and which cannot be told from it, as a list."""
    matters = [name for name in SPACE if importance.loc[name, "verdict"] == "matters"]
    unknown = [name for name in SPACE if name not in matters]
    lines = [f"- matters: **{', '.join(matters)}**"] if matters else []
    lines += [f"- inconclusive: {', '.join(unknown)}"] if unknown else []
    return f"From {trials} complete trials (95 % bootstrap, trials resampled):\n\n" + "\n".join(lines)


def plot_optimism(optimism: pd.DataFrame, measure: str = "balanced accuracy") -> Axes:
    """Notebook 12: draw the best validation score, and the test score of the same trial, over the number of trials."""
    names = {"score": "validation, the best", "test": "test, the same trial"}
    words = {"xlabel": "trials to choose from", "ylabel": measure, "percent": True, "log": True}
    return plots.plot_lines(optimism, "trials", names, **words)


def describe_optimism(optimism: pd.DataFrame) -> str:
    """Notebook 12: return how wide the gap between validation and test is, and how much of it comes from choosing."""
    half = optimism.iloc[max(len(optimism) // 2 - 1, 0)]
    side = "above" if half["gap"] > 0 else "below"
    what = "adds" if half["growth"] > 0 else "takes away"
    return (
        f"The best validation score of {half['trials']:.0f} trials lies **{abs(half['gap']):.3f} {side}** the test "
        f"score of the same trial (90 % of the samples: {half['low']:+.3f} to {half['high']:+.3f}; trials resampled). "
        f"With a single trial the difference is {optimism['gap'].iloc[0]:+.3f} already; choosing {what} "
        f"{abs(half['growth']):.3f}."
    )


def describe_contest(contest: pd.DataFrame, images: int) -> str:
    """Notebook 12: return how good the winner of equally good networks looks, and how good it is, in sentences."""
    winner = contest.iloc[-1]
    return (
        f"The winner has **{winner['score']:.1%}** on {images} validation images, and {winner['test']:.1%} on the "
        f"test images. All had 75 %. Among {contest['trials'].iloc[9]} networks the best looks "
        f"{contest['growth'].iloc[9]:.1%} too good, among 100 already {contest['growth'].iloc[99]:.1%}."
    )


def describe_states(table: pd.DataFrame) -> str:
    """Notebook 12: return how many trials finished, run elsewhere, or failed, in a sentence."""
    states = table["state"].value_counts()
    done = states.get("complete", 0) + states.get("pruned", 0)
    running, failed = states.get("running", 0), states.get("fail", 0)
    return f"This search: {done} trials finished, {running} running elsewhere, {failed} failed."


def report_chosen(table: pd.DataFrame) -> dict[str, float]:
    """Notebook 12: return the one figure that may be reported: the trial that validation chose, with its test score."""
    complete = table[table["state"] == "complete"]
    best = complete.loc[complete["score"].idxmax()]
    facts = {name: best[name] for name in SPACE} | {"validation": best["score"], "test": best["test"]}
    return facts | {"trials": len(table), "complete": len(complete), "pruned": int((table["state"] == "pruned").sum())}
