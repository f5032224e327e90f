"""From a recipe to a finished run: closed, locked, trained, judged; resumed where it stopped, repaired where it was damaged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import final

from thawlab import progress
from thawlab.data.dataset import warnings_before_training
from thawlab.environment import choose_device, deterministic, environment, release_memory
from thawlab.errors import Interrupted, ThawlabError
from thawlab.evaluation.predictions import load_predictions
from thawlab.files import write_json, write_text
from thawlab.judging.judge import judge
from thawlab.judging.outputs import Trained
from thawlab.models.catalog import resolve_backbone
from thawlab.models.saved import load_model
from thawlab.plan.resolve import Plan, resolve
from thawlab.recipe import Recipe
from thawlab.results import DataSummary, read_results, read_rows, read_value, write_results, write_rows
from thawlab.run import RunFolder, run_folder
from thawlab.training.context import Context, diagnose_start, input_digests, prepare, weights_file_digest
from thawlab.training.interruption import watch_signals
from thawlab.training.loop import train_phase
from thawlab.training.lr_finder import LrFinding, find_lr
from thawlab.training.phase_data import PhaseData, on_images, phase_data
from thawlab.training.precision import choose_precision
from thawlab.training.state import TrainingState, load_checkpoint, save_checkpoint


@final
class Timing:
    """Seconds spent per part of a run."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.parts = {"data": 0.0, "cache": 0.0, "train": 0.0, "evaluate": 0.0}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.parts[part] += time.monotonic() - started

    def summary(self, trained: float) -> dict[str, float]:
        """Return all parts and the total, rounded to milliseconds.

        Args:
            trained: seconds of all phases, with those of earlier processes where the run was interrupted.
        """
        rest = time.monotonic() - self._started - self.parts["train"]
        return {key: round(value, 3) for key, value in {**self.parts, "train": trained, "total": rest + trained}.items()}


def train(recipe: Recipe | Plan, runs: Path) -> RunFolder:
    """Train, judge and save what a recipe describes.

    The same recipe is the same folder: finished, it is returned as it is; unfinished, it is resumed where it stopped; finished
    and damaged, it is repaired.

    Args:
        recipe: may leave open what depends on the backbone; a plan is closed already.
        runs: the folder of all runs.

    Returns:
        The finished run.

    Raises:
        UsageError: if the recipe or the data are wrong; said before training starts.
        Interrupted: when a signal asked to stop; the state is saved.
        ThawlabError: if something failed on the way.
    """
    plan = resolve(recipe)
    closed, spec = plan
    choose_device(closed.system.device)
    folder = run_folder(closed, runs)
    if folder.status == "finished":
        damage = damaged(folder)
        if not damage:
            _check_inputs(folder, input_digests(closed, spec))
            progress.say(f"{folder.path}: already finished; showing its results")
            return folder
        progress.say(f"{folder.path}: {damage}; judging the trained classifier again")
    return _run(plan, folder)


def repair(folder: RunFolder) -> RunFolder:
    """Write again what is missing or damaged in a finished run, from its checkpoint or its model; nothing is trained.

    Raises:
        ThawlabError: if neither can be read, or the data have changed.
    """
    recipe = folder.recipe
    if folder.status != "finished":
        raise ThawlabError(f"{folder.path}: is not finished ({folder.status}); train its recipe again to resume it")
    if not folder.checkpoint.is_file() and not (folder.model / "model.safetensors").is_file():
        raise ThawlabError(f"{folder.path}: holds neither a checkpoint nor a model to restore it from; train its recipe again")
    return _run(Plan(recipe, resolve_backbone(recipe.model.backbone)), folder)


def damaged(folder: RunFolder) -> str:
    """Return what is missing or damaged in a finished run, in words; empty if nothing is."""
    try:
        read_results(folder.results)
        read_rows(folder.metrics)
        read_value(folder.path / "data.json", DataSummary)
        load_predictions(folder.predictions("test"))
        load_predictions(folder.predictions("val"))
        load_model(folder.model)
    except ThawlabError as error:
        return str(error)
    return "" if folder.images.is_file() else f"{folder.images}: is missing"


def range_test(recipe: Recipe | Plan) -> LrFinding:
    """Find a learning rate for a recipe's first phase; trains nothing and leaves no run.

    Raises:
        UsageError: if the recipe or the data are wrong.
        ThawlabError: if no rate can be found.
    """
    closed, spec = resolve(recipe)
    device = choose_device(closed.system.device)
    with deterministic(closed.system.threads), watch_signals() as interruption:
        context = prepare(closed, spec, device, RunFolder(Path()), interruption)
        return find_lr(context, phase_data(context, closed.phases[0]))


def _run(plan: Plan, folder: RunFolder) -> RunFolder:
    """Take a closed recipe to its finished run, from wherever that stands."""
    recipe, spec = plan
    device, timing = choose_device(recipe.system.device), Timing()
    with deterministic(recipe.system.threads), watch_signals() as interruption:
        if folder.path.is_dir():
            with folder.locked():
                pass  # whoever trains this run already is named before the data are read
        with timing.measure("data"):
            context = prepare(recipe, spec, device, folder, interruption)
            release_memory()
        with folder.locked():
            try:
                _fit_and_judge(context, timing)
            except BaseException as error:
                stopped = isinstance(error, KeyboardInterrupt)
                folder.log(f"{'interrupted' if stopped else 'failed'}: {type(error).__name__}: {error}")
                if folder.status != "finished":  # a repair that fails leaves the run as it was
                    folder.set_status("interrupted" if stopped else "failed", reason=str(error)[:500])
                raise
    return folder


def _fit_and_judge(context: Context, timing: Timing) -> None:
    folder, recipe = context.folder, context.recipe
    finished = folder.status == "finished"
    _write_description(context)
    diagnoses = diagnose_start(context)
    for line in [*warnings_before_training(context.dataset), *(f"{d.id}: {d.evidence}; {d.advice}" for d in diagnoses)]:
        folder.log(line)
        progress.say(f"note: {line}")
    state, resumed = _state(context, finished)
    if not finished:
        folder.set_status("running")
    data = None
    for index in range(state.phase, len(recipe.phases)):
        data = _fit_phase(context, index, state, resumed, timing)
        resumed = None
        if context.interruption.requested is not None:
            raise Interrupted("saved at the end of a phase; run the same command to resume", context.interruption.requested)
    if data is None:  # training ended in an earlier process
        data = phase_data(context, recipe.phases[-1]) if folder.checkpoint.is_file() else on_images(context, recipe.phases[-1])
    with timing.measure("evaluate"):
        results = judge(Trained(context, data), state.phases, state.rows, diagnoses)
    write_rows(folder.metrics, state.rows)
    seconds = timing.summary(sum(phase.seconds for phase in state.phases))
    write_results(folder.results, results.model_copy(update={"seconds": seconds}))
    folder.set_status("finished")


def _state(context: Context, finished: bool) -> tuple[TrainingState, dict[str, object] | None]:
    """Return where training stands: from the checkpoint, or of a finished run without one from its model and its records."""
    folder = context.folder
    try:
        if folder.checkpoint.is_file():
            state, resumed = load_checkpoint(folder.checkpoint, context.classifier)
            if not finished:
                context.report(f"resuming in phase {state.phase + 1} after epoch {state.epoch}, step {state.step}")
            return state, resumed
    except ThawlabError:
        if not finished:
            raise
    if not finished:
        return TrainingState(), None
    context.classifier.load_state_dict(load_model(folder.model).classifier.state_dict())
    phases = read_results(folder.results).phases
    return TrainingState(phase=len(context.recipe.phases), rows=read_rows(folder.metrics), phases=list(phases)), None


def _fit_phase(
    context: Context, index: int, state: TrainingState, resumed: dict[str, object] | None, timing: Timing
) -> PhaseData:
    """Train a phase to its end and return what it was trained on."""
    with timing.measure("cache"):
        data = phase_data(context, context.recipe.phases[index], state.cached)
        state.cached = data.cached
    if data.note:
        context.report(f"{data.phase.name}: {data.note}")
    with timing.measure("train"):
        data = _with_precision(context, _with_lr(context, data, index, state), index, state)
        with context.interruption.deferring():
            train_phase(context, data, state, resumed)
    return data


def _with_lr(context: Context, data: PhaseData, index: int, state: TrainingState) -> PhaseData:
    """Return a phase's data with a number as its learning rate, found by a range test where the recipe leaves it open."""
    phase = data.phase
    if phase.lr != "auto":
        return data
    if index not in state.found_lr:
        state.found_lr[index] = find_lr(context, data).suggestion
        context.report(f"{phase.name}: lr = {state.found_lr[index]:.3g} was found by a range test")
    return replace(data, phase=phase.model_copy(update={"lr": state.found_lr[index]}))


def _with_precision(context: Context, data: PhaseData, index: int, state: TrainingState) -> PhaseData:
    """Return a phase's data with its arithmetic, timed where the recipe says "auto".

    The choice is kept at once: a phase that began in one arithmetic must be resumed in the same.
    """
    if context.recipe.precision != "auto":
        return data
    if index not in state.found_precision:
        state.found_precision[index], why = choose_precision(context, data)
        release_memory()
        context.report(f"{data.phase.name}: precision = {state.found_precision[index]}, since {why}")
        save_checkpoint(context.folder.checkpoint, state, context.classifier, None)
    return replace(data, bfloat16=state.found_precision[index] == "bfloat16")


def _check_inputs(folder: RunFolder, now: dict[str, str]) -> None:
    """Refuse a run whose images or weights are not those it began with."""
    try:
        before = read_value(folder.path / "data.json", DataSummary)
    except ThawlabError:
        return  # it is written anew
    for then, key, what in ((before.fingerprint, "fingerprint", "data"), (before.weights, "weights", "weights")):
        if then and key in now and then != now[key]:
            raise ThawlabError(
                f"{folder.path}: the {what} changed since this run began (fingerprint {then[:12]} then, "
                f"{now[key][:12]} now); restore what was there, or give the recipe another name"
            )


def _write_description(context: Context) -> None:
    """Write recipe, data and environment, after checking that an earlier start saw the same data and weights."""
    folder, dataset = context.folder, context.dataset
    digests = {"fingerprint": dataset.fingerprint, **weights_file_digest(context.spec)}
    _check_inputs(folder, digests)
    write_text(folder.recipe_file, context.recipe.to_toml())
    write_json(folder.path / "data.json", {**dataset.summary(), **digests})
    system = context.recipe.system.model_dump(exclude={"data_dir", "cache_dir"})
    write_json(folder.path / "environment.json", environment(system, context.device))
