"""Notebook 11 and `allkit tune`: the search for batch size, learning rate and epochs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
import re
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.exceptions import StorageInternalError, TrialPruned, UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage, journal
from optuna.trial import TrialState
from sqlalchemy import event, exc
from sqlalchemy.exc import SQLAlchemyError

from allkit import AllkitError, __version__
from allkit.backend import keras
from allkit.data import index_hash
from allkit.evaluate import evaluate_predictions
from allkit.models import TrainedModel, predict_index
from allkit.runs import load_data, open_run
from allkit.splits import Split, assert_disjoint, split_data
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

BEAT_SECONDS, LOST_SECONDS = 20, 300
"""How often a running trial says that it lives, and after how long without a word it is given up. On its own machine
it is given up as soon as its process is gone. The clocks of all machines must agree within minutes."""


TRIES = 3
"""Settings that ended their process this often (for want of memory, say) are not tried again."""


@dataclass(frozen=True)
class Range:
    """The values of a setting, from `low` to `high`; `log`: each doubling is as likely, not each step."""

    low: float
    high: float
    log: bool = False
    whole: bool = True


Report = Callable[[int, float], None]


Score = Callable[[Mapping[str, float], Report], Mapping[str, float]]
"""Runs one trial: takes its settings and `report(epoch, score)`, returns `score` and any facts worth keeping."""


def quiet_optuna() -> Any:
    """Return Optuna, which then says nothing but warnings."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


# ------------------------------------------------------------------------------------------------ storage


def open_search(
    name: str,
    storage: str | Path,
    recipe: Mapping[str, Any],
    space: Mapping[str, Range],
    first: Mapping[str, float] | None = None,
) -> optuna.Study:
    """Create the study `name`, or open it again, in a journal file or a database.

    Args:
        name: of the study; a storage may hold several.
        storage: path of a journal file, on a disk that all processes see; or a database URL, with "://".
        recipe: what all trials have in common, in JSON's types; `seed` among it seeds the drawing of settings.
        space: what is searched.
        first: settings to begin with.

    Raises:
        AllkitError: the storage cannot be used, or its study has another recipe or space.
    """
    optuna = quiet_optuna()
    # what is worse than three quarters of the complete trials were at the same epoch, is given up
    pruner = optuna.pruners.PercentilePruner(75, n_startup_trials=5, n_warmup_steps=2)
    given = {"recipe": dict(recipe), "space": {key: dataclasses.asdict(r) for key, r in space.items()}}
    with _storage_trouble(storage):
        backend = _database(str(storage)) if "://" in str(storage) else _journal(Path(storage))
        study = optuna.create_study(
            study_name=name, storage=backend, direction="maximize", load_if_exists=True, pruner=pruner
        )
        for key in given.keys() - study.user_attrs.keys():
            study.set_user_attr("first", dict(first or {}))
            study.set_user_attr(key, given[key])
        kept = study.user_attrs
    for part, values in given.items():
        other = [key for key in {**values, **kept[part]} if values.get(key) != kept[part].get(key)]
        if other:
            raise AllkitError(
                f"the study {name!r} in {storage} has other {', '.join(other)} ({other[0]} there: "
                f"{kept[part].get(other[0])}, here: {values.get(other[0])}); give a new study another name."
            )
    return study


def _journal(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    # the usual lock is a link, and making one needs a privilege on Windows
    lock = journal.JournalFileOpenLock(str(path)) if os.name == "nt" else None
    return JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))


def _database(url: str) -> Any:
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    for patience in (1, 2, 3, 0):
        try:
            storage = RDBStorage(url, engine_kwargs=options)
            break
        except (exc.OperationalError, exc.IntegrityError):
            if not patience:
                raise
            time.sleep(patience)  # another process may be making the tables at this moment
    if not options:
        return storage

    # Left alone, SQLite looks first and locks later: two processes could take the same trial out of the queue.
    @event.listens_for(storage.engine, "connect")
    def connect(connection, _record):
        connection.isolation_level = None

    @event.listens_for(storage.engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # connections that were made before
    return storage


@contextlib.contextmanager
def _storage_trouble(storage: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ImportError, ValueError, KeyError, SQLAlchemyError, StorageInternalError) as error:
        reason = str(error).strip().split("\n")[0]
        raise AllkitError(
            f"the study's storage {storage} cannot be used ({reason}); give a journal file or the URL of a database "
            "that this machine can reach."
        ) from error


# ----------------------------------------------------------------------------------------- sharing the work


def run_trials(
    study: optuna.Study, score: Score, trials: int, *, notify: Callable[[dict[str, Any]], None] | None = None
) -> int:
    """Run trials until each of the study's `trials` places is finished, or being worked on elsewhere.

    Start it in as many processes as you like, and again when one was stopped. Settings are drawn by Optuna's
    tree-structured Parzen estimator, the first ones as the study says. Each place has its own seed, so no two
    processes draw alike, and one process alone draws the same again.

    Args:
        study: from `open_search`.
        score: see `Score`. What it raises goes on, after its trial is marked failed; the settings are not tried
            again then.
        trials: how many finished trials the study shall have, over all processes.
        notify: is called after each trial of this process with its row of `trials_table`.

    Returns:
        How many trials this process finished.
    """
    done = 0
    try:
        while _mend(study, trials):
            trial = _take(study)
            row = None if trial is None else _run(study, trial, score)
            done += row is not None
            if row is not None and notify is not None:
                notify(row)
    except StorageInternalError as error:
        raise AllkitError(f"the study's storage does not answer ({error}); start again when it does.") from error
    return done


def count_trials(study: optuna.Study, trials: int) -> dict[str, int]:
    """Return how many of the study's places are finished, running and open; of all processes together."""
    states = [trial.state.name for trial in _holders(study).values()]
    finished, running = states.count("COMPLETE") + states.count("PRUNED"), states.count("RUNNING")
    return {"finished": finished, "running": running, "open": max(trials, len(states)) - finished - running}


def _holders(study: optuna.Study) -> dict[int, Any]:
    """Return place -> the trial that holds it: of those that did not fail, the one with the lowest number."""
    held: dict[int, Any] = {}
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name != "FAIL" and "place" in trial.user_attrs:
            held.setdefault(trial.user_attrs["place"], trial)
    return held


def _mend(study: optuna.Study, trials: int) -> bool:
    """Give up lost trials and see that something is in the queue; return False when nothing is left to start."""
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "RUNNING" and _is_lost(trial):
            _fail(study, trial.number)
    held = _holders(study)
    queued = any(trial.state.name == "WAITING" for trial in held.values())
    missing = [place for place in range(trials) if place not in held]
    if missing and not queued:
        settings, tried = _next_try(study, missing[0])
        study.enqueue_trial(settings, user_attrs={"place": missing[0], "asked": settings, "tried": tried})
    return queued or bool(missing)


def _is_lost(trial: Any) -> bool:
    host, process = trial.user_attrs.get("owner", (None, None))
    beat = trial.user_attrs.get("beat") or trial.datetime_start.timestamp()
    return time.time() - beat > LOST_SECONDS or (host == _host() and not _is_alive(process))


def _host() -> str:
    return f"{socket.gethostname()}-{uuid.getnode():x}"  # machines of a class may all be called localhost


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere, asking may end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _fail(study: optuna.Study, number: int) -> None:
    """Mark a trial failed, unless it was finished meanwhile."""
    with contextlib.suppress(UpdateFinishedTrialError):
        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


def _next_try(study: optuna.Study, place: int) -> tuple[dict[str, float], int]:
    """Return settings for a place (those left out are drawn), and how often they were tried."""
    past = [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("place") == place]
    past = [trial for trial in past if trial.user_attrs.get("ended") != "surplus"]
    if not past:
        return (study.user_attrs["first"] if place == 0 else {}), 0
    last = past[-1]
    tried = last.user_attrs["tried"] + 1
    if last.user_attrs.get("ended") == "error" or tried >= TRIES:
        return {}, 0
    return last.user_attrs["asked"] | last.params, tried


def _take(study: optuna.Study) -> optuna.Trial | None:
    """Take a trial out of the queue; None when others were faster, or it is one too many."""
    trial = study.ask()
    trial.set_user_attr("owner", [_host(), os.getpid()])
    trial.set_user_attr("beat", time.time())
    place = trial.user_attrs.get("place")
    if place is not None and _holders(study)[place].number == trial.number:
        return trial
    trial.set_user_attr("ended", "surplus")
    _fail(study, trial.number)
    return None


def _run(study: optuna.Study, trial: optuna.Trial, score: Score) -> dict[str, Any] | None:
    """Run one trial to its end; return its row, or None when it had been given up for lost."""
    started, facts, state = time.perf_counter(), {}, TrialState.COMPLETE
    try:
        settings = _draw(study, trial)
        try:
            with _beating(trial):
                facts = dict(score(settings, lambda epoch, value: _report(trial, settings, epoch, value)))
        except TrialPruned:
            state = TrialState.PRUNED
        value = facts.pop("score", None)
        for name, fact in (facts | {"seconds": time.perf_counter() - started}).items():
            trial.set_user_attr(name, fact)
        study.tell(trial, value, state=state)
    except UpdateFinishedTrialError:
        return None
    except BaseException as error:
        with contextlib.suppress(UpdateFinishedTrialError):
            if isinstance(error, Exception):  # not so Ctrl-C, after which the settings are tried again
                trial.set_user_attr("ended", "error")
        _fail(study, trial.number)
        raise
    return trials_table(study).set_index("number", drop=False).loc[trial.number].to_dict()


def _draw(study: optuna.Study, trial: optuna.Trial) -> dict[str, float]:
    """Draw the settings of a trial, with a seed that depends on the study's and the place alone."""
    key = np.random.SeedSequence((study.user_attrs["recipe"].get("seed", 0), trial.user_attrs["place"]))
    samplers, seed = quiet_optuna().samplers, int(key.generate_state(1)[0])
    study.sampler = samplers.TPESampler(n_startup_trials=8, constant_liar=True, seed=seed)
    drawn = {}
    for name, values in study.user_attrs["space"].items():
        r = Range(**values)
        suggest = trial.suggest_int if r.whole else trial.suggest_float
        drawn[name] = suggest(name, r.low, r.high, log=r.log)
    return drawn


def _report(trial: optuna.Trial, settings: Mapping[str, float], epoch: int, value: float) -> None:
    """Note the score of an epoch, and end a hopeless trial, unless it has no epoch left to save."""
    trial.report(value, epoch)
    if epoch < settings.get("epochs", math.inf) and trial.should_prune():
        raise quiet_optuna().TrialPruned


@contextlib.contextmanager
def _beating(trial: optuna.Trial) -> Iterator[None]:
    """Say every BEAT_SECONDS, from a thread of its own, that the trial lives: an epoch may take an hour."""
    ended = threading.Event()

    def beat() -> None:
        with contextlib.suppress(Exception):  # the trial itself meets the same trouble, and says so
            while not ended.wait(BEAT_SECONDS):
                trial.set_user_attr("beat", time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# --------------------------------------------------------------------------------------------- reading it


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Return one row per trial, and one more for each attempt at it that failed.

    Returns:
        trial (from 1), number (Optuna's), state ("complete", "pruned", "running", "waiting", "failed"), the
        settings, score (of a pruned trial: that of its last epoch), best (highest score of complete trials so
        far), epochs (reported), seconds, and what else the score function gave; missing where there is none.
    """
    held, rows = {trial.number for trial in _holders(study).values()}, []
    hidden = {"place", "asked", "tried", "owner", "beat", "ended", "seconds"}
    for trial in study.get_trials(deepcopy=False):
        facts, state = trial.user_attrs, trial.state.name.lower()
        if trial.number not in held and (state != "fail" or facts.get("ended", "place") == "surplus"):
            continue
        row = {"trial": facts["place"] + 1, "number": trial.number, "state": {"fail": "failed"}.get(state, state)}
        row |= {name: trial.params.get(name) for name in study.user_attrs["space"]}
        row |= {"score": trial.value, "best": None, "reports": len(trial.intermediate_values)}
        rows.append(row | {"seconds": facts.get("seconds")} | {k: v for k, v in facts.items() if k not in hidden})
    columns = ["trial", "number", "state", *study.user_attrs["space"], "score", "best", "reports", "seconds"]
    table = pd.DataFrame(rows, columns=list(dict.fromkeys([*columns, *(key for row in rows for key in row)])))
    whole = [name for name, values in study.user_attrs["space"].items() if values["whole"]]
    table = table.astype(dict.fromkeys(whole, "Int64") | {"score": float, "seconds": float})
    return table.assign(best=table["score"].where(table["state"] == "complete").cummax().ffill())


def curves_table(study: optuna.Study) -> pd.DataFrame:
    """Return the learning curves of finished trials: trial, state, epoch (from 1) and score, one row per epoch."""
    rows = [(place + 1, trial.state.name.lower(), epoch, value) for place, trial in sorted(_holders(study).items())
            if trial.state.is_finished() for epoch, value in sorted(trial.intermediate_values.items())]  # fmt: skip
    return pd.DataFrame(rows, columns=["trial", "state", "epoch", "score"])


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
    classes = tuple(trained.metadata["classes"])
    pool = "head_pool"
    frozen_backbone = keras.Model(trained.model.input, trained.model.get_layer(pool).output)
    parts = {}
    for name, part in split.parts.items():
        weights = class_weights(part["label"]) if profile.class_weight or name != "train" else None
        batches = build_batches(part, classes, profile, training=False, weights=weights)
        parts[name] = frozen_backbone.predict(batches, verbose=0), batches.labels, batches.sample_weights
    fresh = build_from_profile(trained.metadata["model"], profile, len(classes), seed=seed)
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


def name_search(prefix: str, recipe: Mapping[str, Any]) -> str:
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
            and not searched. With `augmented_copies` the head alone is trained (give it weights="imagenet").
        storage: a journal file or a database URL; empty: tune/<name>.journal in the run folder.

    Raises:
        AllkitError: see `load_data`, `get_profile`, `split_data`, `open_run` and `open_search`.
    """
    given = dict(parameters or {})
    space = {key: r for key, r in SPACE.items() if key not in given}
    if given.get("augmented_copies") and "epochs" in space:  # the head alone is trained, on features computed once
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
    study = open_search(name, place, recipe, space, paper_settings(space))
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
        luck in 95 % of the resamples, else "inconclusive".
    """
    rows = table[table["state"] == "complete"]
    names = [*space, "luck"]
    if len(rows) < FEWEST_TRIALS or rows["score"].nunique() == 1:
        return pd.DataFrame({"value": math.nan, "low": math.nan, "high": math.nan, "verdict": "inconclusive"}, names)
    rng = np.random.default_rng(seed)
    shares = np.array([_importance(rows, space, rng) for _ in range(resamples)])
    low, high = np.quantile(shares, (0.025, 0.975), axis=0)
    beats = (shares > shares[:, -1:]).mean(axis=0)
    verdict = ["matters" if share >= 0.95 else "inconclusive" for share in beats]
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
