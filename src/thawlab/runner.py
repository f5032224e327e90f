"""From a recipe to a finished run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from thawlab import progress
from thawlab.data.dataset import warnings_before_training
from thawlab.environment import choose_device, environment, make_deterministic, release_memory
from thawlab.errors import Interrupted, ThawlabError
from thawlab.files import read_json, write_json, write_text
from thawlab.judging.judge import Timing, judge
from thawlab.judging.outputs import final_outputs
from thawlab.plan.resolve import Plan, resolve
from thawlab.recipe import Phase, Recipe
from thawlab.run import RunFolder, run_folder
from thawlab.training.freezing import freeze
from thawlab.training.interruption import Interruption, watch_signals
from thawlab.training.loop import Job, train_phase
from thawlab.training.lr_finder import LrFinding, find_lr
from thawlab.training.phase_data import Material, material_of
from thawlab.training.precision import choose_precision
from thawlab.training.setup import Setup, input_digests, known_before, prepare, weights_file_digest
from thawlab.training.state import TrainingState, load_checkpoint, save_checkpoint


def train(recipe: Recipe | Plan, runs: Path) -> RunFolder:
    """Train, judge and save what a recipe describes.

    The same recipe is the same folder: finished, it is returned as it is; unfinished, it continues where it stopped.

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
    recipe, spec = resolve(recipe)
    device = choose_device(recipe.system.device)
    folder = run_folder(recipe, runs)
    if folder.status == "finished" and folder.results.is_file():
        _check_inputs(folder, input_digests(recipe, spec))
        progress.say(f"{folder.path}: finished before; its results are shown")
        return folder
    make_deterministic(recipe.system.threads)
    timing = Timing()
    with watch_signals() as interruption:
        if folder.path.is_dir():
            with folder.locked():
                pass  # whoever trains this run already is named before the data are read
        with timing.measure("data"):
            setup = prepare(recipe, spec, device)
            release_memory()
        with folder.locked():
            try:
                _train_into(folder, setup, timing, interruption)
            except Interrupted:
                folder.set_status("interrupted")
                folder.log("interrupted")
                raise
            except BaseException as error:
                folder.set_status("failed", reason=str(error)[:500])
                folder.log(f"failed: {type(error).__name__}: {error}")
                raise
    return folder


def range_test(recipe: Recipe | Plan) -> LrFinding:
    """Find a learning rate for a recipe's first phase; trains nothing and leaves no run.

    Raises:
        UsageError: if the recipe or the data are wrong.
        ThawlabError: if no rate can be found.
    """
    recipe, spec = resolve(recipe)
    device = choose_device(recipe.system.device)
    make_deterministic(recipe.system.threads)
    with watch_signals() as interruption:
        setup = prepare(recipe, spec, device)
        phase = recipe.phases[0]
        freeze(setup.classifier, phase.train)
        job = Job(RunFolder(Path()), setup.classifier, recipe.seed, device, recipe.precision == "bfloat16", interruption)
        return find_lr(job, phase, material_of(setup, phase))


def _train_into(folder: RunFolder, setup: Setup, timing: Timing, interruption: Interruption) -> None:
    recipe, classifier = setup.recipe, setup.classifier
    _write_description(folder, setup)
    diagnoses = known_before(setup)
    for line in [
        *warnings_before_training(setup.dataset),
        *(f"{d['id']}: {d['evidence']}; {d['advice']}" for d in diagnoses),
    ]:
        folder.log(line)
        progress.say(f"note: {line}")
    state, moving_state = TrainingState(), None
    if folder.checkpoint.is_file():
        state, moving_state = load_checkpoint(folder.checkpoint, classifier)
        message = f"continuing in phase {state.phase + 1} after epoch {state.epoch}, step {state.step}"
        folder.log(message)
        progress.say(message)
    folder.set_status("running")
    job = Job(folder, classifier, recipe.seed, setup.device, recipe.precision == "bfloat16", interruption)
    material = None
    for index in range(state.phase, len(recipe.phases)):
        phase = recipe.phases[index]
        freeze(classifier, phase.train)
        with timing.measure("cache"):
            material = material_of(setup, phase, state.cached)
            state.cached = material.cached
        if material.note:
            folder.log(f"{phase.name}: {material.note}")
            progress.say(f"{phase.name}: {material.note}")
        with timing.measure("train"):
            phase = _with_lr(job, phase, index, material, state)
            phase_job = _with_precision(job, phase, index, material, state)
        with timing.measure("train"), interruption.deferring():
            train_phase(phase_job, phase, material, state, moving_state)
        moving_state = None
        if interruption.requested is not None:
            raise Interrupted("saved at the end of a phase; the same command goes on from here", interruption.requested)
    if material is None:  # training ended in an earlier process
        freeze(classifier, recipe.phases[-1].train)
        material = material_of(setup, recipe.phases[-1])
    judge(folder, setup, state, diagnoses, final_outputs(setup, material), timing)
    folder.set_status("finished")


def _with_lr(job: Job, phase: Phase, index: int, material: Material, state: TrainingState) -> Phase:
    """Return a phase whose learning rate is a number, found by a range test where the recipe leaves it open."""
    if phase.lr != "auto":
        return phase
    if index not in state.found_lr:
        state.found_lr[index] = find_lr(job, phase, material).suggestion
        message = f"{phase.name}: lr = {state.found_lr[index]:.3g} was found by a range test"
        job.folder.log(message)
        progress.say(message)
    return phase.model_copy(update={"lr": state.found_lr[index]})


def _with_precision(job: Job, phase: Phase, index: int, material: Material, state: TrainingState) -> Job:
    """Return the job with the arithmetic of a phase, timed where the recipe says "auto".

    The choice is kept at once: a phase that began in one arithmetic must be continued in the same.
    """
    if job.folder.recipe.precision != "auto":
        return job
    if index not in state.found_precision:
        state.found_precision[index], why = choose_precision(job, phase, material)
        release_memory()
        message = f"{phase.name}: precision = {state.found_precision[index]}, since {why}"
        job.folder.log(message)
        progress.say(message)
        save_checkpoint(job.folder.checkpoint, state, job.classifier, None)
    return replace(job, bfloat16=state.found_precision[index] == "bfloat16")


def _check_inputs(folder: RunFolder, now: dict[str, str]) -> None:
    """Refuse a run whose images or weights are not those it began with."""
    data_file = folder.path / "data.json"
    before = read_json(data_file) if data_file.is_file() else {}
    for key, what in (("fingerprint", "data"), ("weights", "weights")):
        if key in before and key in now and before[key] != now[key]:
            raise ThawlabError(
                f"{folder.path}: the {what} changed since this run began (fingerprint {str(before[key])[:12]} then, "
                f"{now[key][:12]} now); restore what was there, or give the recipe another name"
            )


def _write_description(folder: RunFolder, setup: Setup) -> None:
    """Write recipe, data and environment, after checking that an earlier start saw the same data and weights."""
    digests = {"fingerprint": setup.dataset.fingerprint, **weights_file_digest(setup.spec)}
    _check_inputs(folder, digests)
    write_text(folder.recipe_file, setup.recipe.to_toml())
    write_json(folder.path / "data.json", {**setup.dataset.summary(), **digests})
    system = setup.recipe.system.model_dump(exclude={"data_dir", "cache_dir"})
    write_json(
        folder.path / "environment.json",
        environment(system, setup.device),
    )
