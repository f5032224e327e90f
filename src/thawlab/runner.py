"""From a recipe to a finished run: closed, locked, trained, judged; resumed where it stopped, repaired where it was damaged."""

from contextlib import nullcontext
from pathlib import Path

import torch

from thawlab import progress
from thawlab.data.overview import described, warnings_before_training
from thawlab.environment import choose_device, deterministic, is_out_of_memory, release_memory
from thawlab.errors import ThawlabError, first_line
from thawlab.judging.judge import judge
from thawlab.judging.kept_images import keep_images
from thawlab.models.catalog import resolve_backbone
from thawlab.plan.resolve import Plan, beside, resolve
from thawlab.recipe import Recipe
from thawlab.report.drawn import artist
from thawlab.report.page import write_report
from thawlab.results import write_results, write_rows
from thawlab.run import RunFolder, run_folder
from thawlab.training.context import Context, diagnose_start, prepare
from thawlab.training.fit import Timing, fit
from thawlab.training.interruption import watch_signals
from thawlab.training.lr_finder import LrFinding, find_lr
from thawlab.training.memory_need import AUTO_BATCH_SIZE, in_parts, parts_that_fit
from thawlab.training.phase_data import phase_data
from thawlab.training.records import check_inputs, damaged, input_digests, restore_together, write_description
from thawlab.training.world import device_of, joined, noticing, world_of


def train(recipe: Recipe | Plan, runs: Path, report: bool = False) -> RunFolder:
    """Train, judge and save what a recipe describes, in a folder below `runs`.

    The same recipe is the same folder: finished, it is returned as it is; unfinished, it is resumed where it stopped; finished
    and damaged, it is repaired. A recipe may leave open what depends on the backbone; a plan is closed already. With `report`, a
    run that is finished here gets its report as well.

    Returns:
        The finished run.

    Raises:
        UsageError: if the recipe or the data are wrong; raised before training starts.
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
            check_inputs(folder, input_digests(closed, spec))
            progress.say(f"{folder.path}: already finished; showing its results")
            return folder
        progress.say(f"{folder.path}: {damage}; judging the trained classifier again")
    return _run(plan, folder, report)


def repair(folder: RunFolder) -> RunFolder:
    """Write again what is missing or damaged in a finished run, from its checkpoint or its model; nothing is trained.

    Raises:
        ThawlabError: if neither can be read, the data have changed, or another version of thawlab wrote the run.
    """
    recipe = beside(folder.recipe, folder.path)
    if folder.status != "finished":
        raise ThawlabError(f"{folder.path}: is not finished ({folder.status}); train its recipe again to resume it")
    if not folder.checkpoint.is_file() and not (folder.model / "model.safetensors").is_file():
        raise ThawlabError(f"{folder.path}: holds neither a checkpoint nor a model to restore it from; train its recipe again")
    damaged(folder)  # refuses what another version wrote
    return _run(Plan(recipe, resolve_backbone(recipe.model.backbone)), folder)


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
        data = phase_data(context, closed.phases[0])
        if data.phase.batch_size == "auto":
            data = in_parts(data, parts_that_fit(context, data)[0])
        return find_lr(context, data)


def _run(plan: Plan, folder: RunFolder, report: bool = False) -> RunFolder:
    """Finish the run of a closed recipe, from whatever state it is in."""
    recipe, spec = plan
    world, timing = world_of(), Timing()
    device = device_of(world, choose_device(recipe.system.device))
    if not world.writes:
        progress.silence()
    with deterministic(recipe.system.threads), watch_signals() as interruption, joined(world, device):
        if folder.path.is_dir() and world.writes:
            with folder.locked():
                pass  # fails before the data are read if another process trains this run
        with timing.measure("data"):
            context = prepare(recipe, spec, device, folder, interruption, world)
            release_memory()
        if not world.writes:
            with noticing(interruption):
                _keep_company(context, timing)
            return folder
        with folder.locked():
            try:
                with noticing(interruption):
                    _fit_and_judge(context, timing, report)
            except BaseException as error:
                stopped = isinstance(error, KeyboardInterrupt)
                folder.log(f"{'interrupted' if stopped else 'failed'}: {type(error).__name__}: {error}")
                if folder.status != "finished":  # a repair that fails leaves the run as it was
                    folder.set_status("interrupted" if stopped else "failed", reason=str(error)[:500])
                if is_out_of_memory(error):
                    raise ThawlabError(_needs_less_memory(context, error)) from error
                raise
    return folder


def _needs_less_memory(context: Context, error: BaseException) -> str:
    """Return what to write where a phase needs more memory than there is."""
    phases = context.recipe.phases
    sizes = [AUTO_BATCH_SIZE if phase.batch_size == "auto" else phase.batch_size for phase in phases]
    index = max(range(len(phases)), key=lambda k: (phases[k].train != "head", sizes[k]))
    key, is_open = f"phases.{index}", phases[index].batch_size == "auto"
    parts = sizes[index] if is_open else min(2 * phases[index].accumulate, sizes[index])
    ways = [
        f"{key}.batch_size={sizes[index]} {key}.accumulate={parts} takes the same steps in parts of {sizes[index] // parts}",
        *([] if is_open else [f"{key}.batch_size=auto finds parts that fit"]),
        f"a data.image_size below {context.preprocessing.size} takes less, too",
    ]
    reason = f"not enough memory ({first_line(error)[:200]})"
    return f"{context.folder.path}: {reason}; {'; '.join(ways)}; nothing that was trained is lost"


def _keep_company(context: Context, timing: Timing) -> None:
    """Train as one of several processes of which another one writes the run, and wait until that has judged it."""
    state, resumed = restore_together(context, context.world.agreed(False))
    fit(context, state, resumed, timing)
    context.world.wait()


def _fit_and_judge(context: Context, timing: Timing, report: bool) -> None:
    folder = context.folder
    finished = folder.status == "finished"
    write_description(context)
    for line in described(context.dataset):
        folder.log(line)
        progress.say(line)
    diagnoses = diagnose_start(context)
    for line in [*warnings_before_training(context.dataset), *(f"{d.id}: {d.evidence}; {d.advice}" for d in diagnoses)]:
        folder.log(line)
        progress.say(f"note: {line}")
    state, resumed = restore_together(context, context.world.agreed(finished))
    if not finished:
        folder.set_status("running")
    for line in _said_of_processes(context):
        context.report(line)
    data = fit(context, state, resumed, timing)
    if context.device.type == "cpu":  # the others only wait from here on
        torch.set_num_threads(torch.get_num_threads() * context.world.local_size)
    with artist() if report else nullcontext() as drawing:
        with timing.measure("evaluate"):
            judgement = judge(context, data, state, diagnoses)
        write_rows(folder.metrics, state.rows)
        seconds = timing.summary(sum(phase.seconds for phase in state.phases))
        write_results(folder.results, judgement.results.model_copy(update={"seconds": seconds}))
        if drawing:
            drawing.begin(folder)  # beside what follows
        keep_images(context, judgement)
        folder.set_status("finished")
        context.world.wait()
        if report:
            write_report(folder, drawing)


def _said_of_processes(context: Context) -> list[str]:
    """Return what the log says of the processes that train together; nothing of a single one."""
    if context.world.size == 1:
        return []
    modes = {phase.batch_norm for phase in context.recipe.phases}
    norm = {
        "train": "each takes BatchNorm's statistics over its own images, and those of process 0 are kept",
        "sync": "BatchNorm's statistics are taken over the images of all",
    }
    said = "; ".join(norm[mode] for mode in sorted(modes & norm.keys(), key=str) if mode)
    return [f"{context.world.size} processes train together and share every batch{said and '; '}{said}"]
