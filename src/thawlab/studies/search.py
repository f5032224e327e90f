"""Look for the best settings within ranges, on validation images only, with Optuna: TPE, and Hyperband to end bad trials early.

The journal lies in the study's folder, so that several processes, on several machines that share it, work on one search.
"""

import contextlib
import time
from typing import Any, NamedTuple

from thawlab import progress
from thawlab.errors import ThawlabError, UsageError, first_line
from thawlab.results import read_results, read_rows
from thawlab.run import RunFolder
from thawlab.studies.conduct import Places, next_answer, pool_of
from thawlab.studies.design import Design, Variant
from thawlab.studies.folder import Entry, StudyFolder
from thawlab.studies.ranges import Range, Search
from thawlab.studies.workers import Pool, cells_at_once, threads_each

# A search whose last trials all failed will not find anything.
_FAILURES = 5


class Trial(NamedTuple):
    """One recipe that was tried: its settings, its validation accuracy, and how it ended ("finished", "pruned" or "failed")."""

    changes: dict[str, Any]
    val_accuracy: float | None
    status: str
    run: str


class Found(NamedTuple):
    """What a search found: the best variant on validation, its accuracy there, and all trials."""

    variant: Variant
    val_accuracy: float
    trials: tuple[Trial, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        trials = [trial._asdict() for trial in self.trials]
        return {"best": self.variant._asdict(), "val_accuracy": self.val_accuracy, "trials": trials}


def search(folder: StudyFolder, design: Design, parallel: int | None = None, ray: str = "") -> Found:
    """Try recipes until the budget is spent, and return the best on validation; each trial is a run in the study's folder.

    The base is tried first. Trials use the first seed of the study: the others are for comparing the winner with the base.

    Raises:
        UsageError: if Optuna is not installed, or a range leads to no recipe.
        Interrupted: when a signal asked to stop; what is running is saved, and tried on next time.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise UsageError("[search] needs Optuna: pip install 'thawlab[search]'") from None
    assert design.search is not None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe = design.cell(design.variants[0], design.seeds[0]).recipe
    for key, found in design.search.ranges.items():  # a key or a value that no recipe takes is said at once
        design.cell(Variant("search", {key: found.choices[0] if found.choices else found.low}), design.seeds[0])
    epochs = sum(phase.epochs for phase in recipe.phases)
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            study_name=design.name,
            storage=JournalStorage(JournalFileBackend(str(folder.journal))),
            sampler=optuna.samplers.TPESampler(seed=design.seeds[0], constant_liar=True),
            pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=max(epochs, 2)),
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # a damaged journal can fail in any part of the reader
        raise ThawlabError(
            f"{folder.journal}: cannot be read ({first_line(error)}); move it away and search again: finished trials stay"
        ) from None
    _tried_before(study, folder)
    at_once = parallel or cells_at_once(design.search.runs or 1000, recipe)
    threads = threads_each(at_once)
    with pool_of(Places(at_once, ray, recipe.system.device != "cpu"), threads, folder) as pool:
        _work(_Searching(study, folder, design, pool, threads), _Budget(design.search, study))
    return _best(study, design)


class _Searching(NamedTuple):
    study: Any
    folder: StudyFolder
    design: Design
    pool: Pool
    threads: int


class _Budget:
    """The budget of a search: runs, counted over all processes, or minutes of this one."""

    def __init__(self, wanted: Search, study: Any) -> None:
        self._wanted, self._study, self._began = wanted, study, time.monotonic()

    def is_spent(self) -> bool:
        """Return whether no other trial may begin; nor may one where the last five all failed."""
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        ended = [
            trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "reason" in trial.user_attrs
        ]
        if len(ended) >= _FAILURES and all("reason" in trial.user_attrs for trial in ended[-_FAILURES:]):
            return True
        begun = len(ended) + sum(trial.state == TrialState.RUNNING for trial in trials)
        by_runs = self._wanted.runs is not None and begun >= self._wanted.runs
        return by_runs or (self._wanted.minutes is not None and time.monotonic() - self._began > 60 * self._wanted.minutes)


def _tried_before(study: Any, folder: StudyFolder) -> None:
    """Ask the base first, and again what a process that died was trying: its run goes on where it stopped."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    if not trials:
        study.enqueue_trial({}, user_attrs={"base": True})
    for trial in trials:
        name = trial.user_attrs.get("run")
        if trial.state == TrialState.RUNNING and (name is None or not _is_held(RunFolder(folder.path / name))):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"base": trial.user_attrs.get("base", False)})


def _is_held(run: RunFolder) -> bool:
    """Return whether a process is at work on a run."""
    if not run.path.is_dir():
        return False
    try:
        with run.locked():
            return False
    except ThawlabError:
        return True


def _work(searching: _Searching, budget: _Budget) -> None:
    """Keep all workers at a trial until the budget is spent."""
    asked: dict[str, Any] = {}
    reported: dict[str, int] = {}
    pruned: set[str] = set()
    while True:
        while searching.pool.has_room and not budget.is_spent():
            if not _begin(searching, asked):
                break  # what it asks for is being tried
        if not asked:
            return
        _report(searching, asked, reported, pruned)
        answer = next_answer(searching.pool)
        if answer is not None:
            name, content = answer
            _end(searching, asked.pop(name), content, name in pruned)


def _end(searching: _Searching, trial: Any, content: dict[str, Any], was_pruned: bool) -> None:
    """Tell Optuna how a trial ended, and say it."""
    from optuna.trial import TrialState

    changes = trial.user_attrs["changes"]
    shown = ", ".join(f"{key} = {value}" for key, value in changes.items()) or "the base"
    if content["status"] == "finished":
        value = read_results(searching.folder.path / content["run"] / "results.json").val.accuracy
        searching.study.tell(trial, value)
        progress.say(f"trial {trial.number + 1}: val accuracy {value:.4f} ({shown})")
    elif was_pruned:
        searching.study.tell(trial, state=TrialState.PRUNED)
        progress.say(f"trial {trial.number + 1}: ended early ({shown})")
    else:
        reason = content.get("reason", content["status"])
        trial.set_user_attr("reason", reason)
        searching.study.tell(trial, state=TrialState.FAIL)
        progress.say(f"trial {trial.number + 1}: {reason}")


def _begin(searching: _Searching, asked: dict[str, Any]) -> bool:
    """Ask for a trial and give its cell to a worker; return whether it is one that is not being tried already."""
    from optuna.trial import TrialState

    study, design = searching.study, searching.design
    assert design.search is not None
    trial = study.ask()
    changes = (
        {} if trial.user_attrs.get("base") else {key: _suggest(trial, key, found) for key, found in design.search.ranges.items()}
    )
    # The same settings are the same run: one that was interrupted goes on, one that has finished is not trained again.
    cell = design.cell(Variant("trial" if changes else "base", changes), design.seeds[0])
    trial.set_user_attr("changes", changes)
    trial.set_user_attr("run", cell.run)
    if cell.run in asked:
        study.tell(trial, state=TrialState.FAIL)
        return False
    asked[cell.run] = trial
    entry: Entry = searching.folder.add(cell, searching.threads)
    searching.pool.give(entry.run, searching.folder.recipe(entry), searching.folder.path)
    return True


def _suggest(trial: Any, key: str, found: Range) -> Any:
    if found.choices:
        import json

        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in found.choices]))
    if isinstance(found.low, int) and isinstance(found.high, int) and (found.step is None or isinstance(found.step, int)):
        return trial.suggest_int(key, found.low, found.high, step=found.step or 1, log=found.log)
    return trial.suggest_float(key, found.low, found.high, step=found.step, log=found.log)


def _report(searching: _Searching, asked: dict[str, Any], reported: dict[str, int], pruned: set[str]) -> None:
    """Tell Optuna of the epochs that ended, and end the trials that it gives up."""
    for name, trial in asked.items():
        with contextlib.suppress(ThawlabError):
            rows = read_rows(searching.folder.path / name / "metrics.jsonl")
            for step in range(reported.get(name, 0), len(rows)):
                if rows[step].val_accuracy is not None:
                    trial.report(rows[step].val_accuracy, step + 1)
            if len(rows) > reported.get(name, 0):
                reported[name] = len(rows)
                if name not in pruned and not trial.user_attrs.get("base") and trial.should_prune():
                    pruned.add(name)
                    searching.pool.stop(name)


def _best(study: Any, design: Design) -> Found:
    from optuna.trial import TrialState

    states = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    trials = [t for t in study.get_trials(deepcopy=False) if t.state in states]
    listed = tuple(Trial(t.user_attrs.get("changes", {}), t.value, states[t.state], t.user_attrs.get("run", "")) for t in trials)
    done = [trial for trial in listed if trial.status == "finished" and trial.val_accuracy is not None]
    if not done:
        why = next((t.user_attrs["reason"] for t in trials if "reason" in t.user_attrs), "none was begun")
        raise ThawlabError(f"{design.name}: no trial of the search finished: {why}")
    best = max(done, key=lambda trial: trial.val_accuracy or 0.0)
    name = "best found" if best.changes else "base"
    return Found(Variant(name, best.changes), best.val_accuracy or 0.0, listed)
