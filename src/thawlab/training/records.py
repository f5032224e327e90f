"""What a run records besides its weights: its inputs, whether they are still the same, and what can be restored."""

import contextlib
from typing import Any

from thawlab import progress
from thawlab.data.content import fingerprint, hash_files
from thawlab.data.selection import open_data
from thawlab.environment import environment
from thawlab.errors import OtherVersionError, ThawlabError
from thawlab.evaluation.predictions import load_predictions
from thawlab.files import sha256_of, write_json, write_text
from thawlab.models.catalog import BackboneSpec
from thawlab.models.saved import load_model
from thawlab.recipe import Recipe
from thawlab.results import DataSummary, read_results, read_rows, read_value
from thawlab.run import RunFolder
from thawlab.training.context import Context
from thawlab.training.state import TrainingState, load_checkpoint


def damaged(folder: RunFolder) -> str:
    """Return what is missing or damaged in a finished run, in words; empty if nothing is.

    Raises:
        OtherVersionError: if another version wrote it.
    """
    try:
        epochs = sum(phase.epochs_run for phase in read_results(folder.results).phases)
        if (rows := len(read_rows(folder.metrics))) != epochs:
            return f"{folder.metrics}: holds {rows} of {epochs} epochs"
        read_value(folder.path / "data.json", DataSummary)
        load_predictions(folder.predictions("test"))
        load_predictions(folder.predictions("val"))
        load_model(folder.model)
    except OtherVersionError:
        raise
    except ThawlabError as error:
        return str(error)
    return "" if folder.images.is_file() else f"{folder.images}: is missing"


def restore_state(context: Context, finished: bool) -> tuple[TrainingState, dict[str, Any] | None]:
    """Return where training stands: from the checkpoint, or of a finished run without one from its model and its records."""
    folder = context.folder
    if not finished:
        if not folder.checkpoint.is_file():
            return TrainingState(), None
        state, resumed = load_checkpoint(folder.checkpoint, context.classifier)
        context.report(f"resuming in phase {state.phase + 1} after epoch {state.epoch}, step {state.step}")
        return state, resumed
    with contextlib.suppress(ThawlabError):
        return load_checkpoint(folder.checkpoint, context.classifier)
    context.classifier.load_state_dict(load_model(folder.model).classifier.state_dict())
    phases = read_results(folder.results).phases
    return TrainingState(phase=len(context.recipe.phases), rows=read_rows(folder.metrics), phases=list(phases)), None


def restore_together(context: Context, finished: bool) -> tuple[TrainingState, dict[str, Any] | None]:
    """Return where training stands, as all processes that train the run find it.

    Raises:
        ThawlabError: if one of them does not see the run folder that the others see.
    """
    state, resumed = restore_state(context, finished)
    place = state.phase, state.epoch, state.step
    if context.world.total([float(place != context.world.agreed(place))])[0]:
        raise ThawlabError(
            f"{context.folder.path}: the processes do not see the same run folder; --runs must lie where all of them see it"
        )
    processes = context.world.size
    if state.processes != processes and state.rows:
        now = "1 process" if processes == 1 else f"{processes} processes"
        context.report(f"trained by {now} from here on, by {state.processes} before; sums in another order round differently")
    state.processes = processes
    return state, resumed


def check_inputs(folder: RunFolder, now: dict[str, str]) -> None:
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


def write_description(context: Context) -> None:
    """Write recipe, data and environment, after checking that an earlier start saw the same data and weights."""
    folder, dataset = context.folder, context.dataset
    digests = {"fingerprint": dataset.fingerprint, **_weights_digest(context.spec)}
    check_inputs(folder, digests)
    write_text(folder.recipe_file, context.recipe.to_toml())
    write_json(folder.path / "data.json", {**dataset.summary(), **digests})
    system = context.recipe.system.model_dump(exclude={"data_dir", "cache_dir", "base_dirs"})
    write_json(folder.path / "environment.json", {**environment(system, context.device), "processes": context.world.size})


def _weights_digest(spec: BackboneSpec) -> dict[str, str]:
    """Return the SHA-256 of a backbone's weights where they are a file here, under the key "weights"."""
    if spec.weights is None:
        return {}
    return {"weights": sha256_of(spec.weights)}


def input_digests(recipe: Recipe, spec: BackboneSpec) -> dict[str, str]:
    """Return the digests of a recipe's images and weights as they are now, decoding nothing.

    Images that are gone have no digest: a finished run can be shown without them.
    """
    digests = _weights_digest(spec)
    try:
        listing = open_data(recipe.data, recipe.system)
        digests["fingerprint"] = fingerprint(listing, hash_files(listing, recipe.system.workers).digests)
    except ThawlabError as error:
        progress.say(f"note: the run's images cannot be checked: {error}")
    return digests
