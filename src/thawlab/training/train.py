"""From a recipe to a finished run folder."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from thawlab import progress
from thawlab.data.dataset import Dataset, load_dataset, warnings_before_training
from thawlab.data.listing import Indices
from thawlab.data.preprocessing import Preprocessing, to_tensor
from thawlab.data.sources import cache_root
from thawlab.errors import Interrupted, ThawlabError, UsageError, nearest
from thawlab.evaluation.diagnosis import before_training
from thawlab.evaluation.predictions import infer
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import Classifier, build_classifier, feature_map_side, make_preprocessing
from thawlab.recipe import Recipe
from thawlab.run import RunFolder, read_json, run_folder, write_json, write_text
from thawlab.training.feature_cache import FrozenNetwork, cached_rows
from thawlab.training.freezing import freeze, trained_names
from thawlab.training.interruption import Interruption, watch_signals
from thawlab.training.judge import Timing, judge
from thawlab.training.loop import Job, train_phase
from thawlab.training.material import material_of
from thawlab.training.resolve import resolve
from thawlab.training.state import TrainingState, load_checkpoint


def train(recipe: Recipe, runs: Path) -> RunFolder:
    """Train, judge and save what a recipe describes.

    The same recipe is the same folder: finished, it is returned as it is; unfinished, it continues where it stopped.

    Args:
        recipe: may leave open what depends on the backbone.
        runs: the folder of all runs.

    Returns:
        The finished run.

    Raises:
        UsageError: if the recipe or the data are wrong; said before training starts.
        Interrupted: when a signal asked to stop; the state is saved.
        ThawlabError: if something failed on the way.
    """
    device = choose_device(recipe.system.device)
    recipe, spec = resolve(recipe)
    folder = run_folder(recipe, runs)
    if folder.status == "finished" and folder.results.is_file():
        progress.say(f"{folder.path}: finished before; its results are shown")
        return folder
    with watch_signals() as interruption, folder.locked():
        try:
            _train_into(folder, recipe, spec, device, interruption)
        except Interrupted:
            folder.set_status("interrupted")
            folder.log("interrupted")
            raise
        except BaseException as error:
            folder.set_status("failed", reason=str(error)[:500])
            folder.log(f"failed: {type(error).__name__}: {error}")
            raise
    return folder


def choose_device(name: str) -> torch.device:
    """Return the device of a name: "auto" takes a GPU where there is one.

    Raises:
        UsageError: if the name is no device of this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kinds = ["auto", "cpu", "cuda", "mps"]
    kind = name.split(":", maxsplit=1)[0]
    if kind not in kinds:
        raise UsageError(f"system.device: there is no device '{name}'{nearest(kind, kinds) or ' (known: auto, cpu, cuda, mps)'}")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto" or not available[kind]:
        raise UsageError(f"system.device: '{name}' is not available on this machine; use auto or cpu")
    return torch.device(name)


def make_deterministic(threads: int | None) -> None:
    """Let equal inputs give equal bits on this machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # nothing here reads such memory
    torch.set_num_threads(threads or os.cpu_count() or 1)


def _train_into(folder: RunFolder, recipe: Recipe, spec: BackboneSpec, device: torch.device, interruption: Interruption) -> None:
    make_deterministic(recipe.system.threads)
    timing = Timing()
    preprocessing = make_preprocessing(recipe, spec, recipe.data.image_size or 0)
    with timing.measure("data"):
        dataset = load_dataset(recipe, preprocessing)
    classifier = build_classifier(recipe, spec, preprocessing.size, len(dataset.classes))
    classifier.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for index, phase in enumerate(recipe.phases):
        trained_names(classifier.backbone, phase.train, f"phases.{index}.train")  # refuses what the backbone does not have
    _write_description(folder, recipe, dataset, device)
    diagnoses = before_training(recipe, feature_map_side(classifier.backbone, preprocessing.size))
    for line in [
        *warnings_before_training(dataset),
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
    job = Job(folder, classifier, recipe.seed, device, recipe.precision == "bfloat16", interruption)
    caches = Path(recipe.system.cache_dir) if recipe.system.cache_dir else cache_root()
    for index in range(state.phase, len(recipe.phases)):
        phase = recipe.phases[index]
        freeze(classifier, phase.train)
        with timing.measure("cache"):
            material = material_of(
                dataset, classifier, spec.architecture, preprocessing, phase, recipe.seed, caches / "features", device
            )
        if material.note:
            folder.log(f"{phase.name}: {material.note}")
            progress.say(f"{phase.name}: {material.note}")
        with timing.measure("train"), interruption.deferring():
            train_phase(job, phase, material, state, moving_state)
        moving_state = None
        if interruption.requested is not None:
            raise Interrupted("saved at the end of a phase; the same command goes on from here", interruption.requested)
    logits_of = _final_logits(recipe, spec, dataset, classifier, preprocessing, caches, device)
    judge(folder, recipe, spec, dataset, classifier, preprocessing, state, diagnoses, logits_of, timing)
    folder.set_status("finished")


def _unchanged(rows: torch.Tensor) -> torch.Tensor:
    return rows


def _final_logits(
    recipe: Recipe,
    spec: BackboneSpec,
    dataset: Dataset,
    classifier: Classifier,
    preprocessing: Preprocessing,
    caches: Path,
    device: torch.device,
) -> Any:
    """Return the function that gives the final logits of some samples, from cached features where nothing else changed."""

    def on_pictures(indices: Indices, label: str) -> Any:
        prepare = lambda rows: preprocessing.normalize(to_tensor(rows))  # noqa: E731
        return infer(classifier, dataset.images, indices, prepare, device, label)

    def on_features(indices: Indices, label: str) -> Any:  # noqa: ARG001 - takes no time worth showing
        network = FrozenNetwork(classifier.backbone, spec.architecture, preprocessing, device)
        rows = cached_rows(network, dataset, indices, caches / "features")
        return infer(classifier.head, rows, indices, _unchanged, device)

    return on_features if all(phase.train == "head" for phase in recipe.phases) else on_pictures


def _write_description(folder: RunFolder, recipe: Recipe, dataset: Dataset, device: torch.device) -> None:
    """Write recipe, data and environment, after checking that an earlier start saw the same data."""
    data_file = folder.path / "data.json"
    if data_file.is_file():
        before = read_json(data_file).get("fingerprint")
        if before != dataset.fingerprint:
            raise ThawlabError(
                f"{folder.path}: the data has changed since this run began (fingerprint {str(before)[:12]} then, "
                f"{dataset.fingerprint[:12]} now); restore it, or give the recipe another name"
            )
    write_text(folder.recipe_file, recipe.to_toml())
    write_json(data_file, dataset.summary())
    write_json(folder.path / "environment.json", environment(recipe, device))


def environment(recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """Return what a result may depend on beside its recipe: versions, machine, device and threads."""
    from importlib.metadata import version

    packages = ["thawlab", "torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "safetensors"]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "packages": {name: version(name) for name in packages},
        "system": json.loads(recipe.system.model_dump_json(exclude={"data_dir", "cache_dir"})),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
