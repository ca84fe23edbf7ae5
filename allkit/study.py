"""A study: trials of settings that any number of processes share, through Optuna's storage alone.

A study of N trials has N places. Each is filled by exactly one finished trial (complete or pruned), whoever ran it:

- A place without a trial is put into the queue. Where two processes do so at once, the trial with the lower number
  holds the place, and the other is set aside before it starts.
- Taking a trial out of the queue succeeds in one process only.
- A trial whose process is gone is marked failed, and its settings go back into the queue for the same place.
- What is finished cannot be changed: a process that was given up for lost, and comes back, is told so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allkit import AllkitError

if TYPE_CHECKING:
    import optuna
    import pandas as pd

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
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


# ------------------------------------------------------------------------------------------------ storage


def open_study(
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
    from optuna.storages import JournalStorage, journal

    path.parent.mkdir(parents=True, exist_ok=True)
    # the usual lock is a link, and making one needs a privilege on Windows
    lock = journal.JournalFileOpenLock(str(path)) if os.name == "nt" else None
    return JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))


def _database(url: str) -> Any:
    from optuna.storages import RDBStorage
    from sqlalchemy import event, exc

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
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

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
        study: from `open_study`.
        score: see `Score`. What it raises goes on, after its trial is marked failed; the settings are not tried
            again then.
        trials: how many finished trials the study shall have, over all processes.
        notify: is called after each trial of this process with its row of `trials_table`.

    Returns:
        How many trials this process finished.
    """
    from optuna.exceptions import StorageInternalError

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
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

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
    from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
    from optuna.trial import TrialState

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
    import numpy as np

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
    import pandas as pd

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
    import pandas as pd

    rows = [(place + 1, trial.state.name.lower(), epoch, value) for place, trial in sorted(_holders(study).items())
            if trial.state.is_finished() for epoch, value in sorted(trial.intermediate_values.items())]  # fmt: skip
    return pd.DataFrame(rows, columns=["trial", "state", "epoch", "score"])
