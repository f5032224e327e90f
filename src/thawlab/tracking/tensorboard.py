"""TensorBoard: event files in a folder per run, which `tensorboard --logdir DIR` shows beside each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thawlab.errors import ThawlabError, UsageError
from thawlab.registry import optional
from thawlab.tracking.rows import Snapshot, Target, TrackedRun, Write, trackers

# What TensorBoard's table of hyperparameters shows beside them.
_COLUMNS = ("val_accuracy", "test_accuracy", "test_loss")


@trackers.register("tensorboard")
@contextmanager
def tensorboard(run: TrackedRun, target: Target) -> Iterator[Write]:
    """Event files of TensorBoard, in a sub-folder of --out per run."""
    if target.out is None or target.uri is not None:
        raise UsageError("tensorboard writes files: name their folder with --out DIR, and no --uri")
    optional("tensorboard", "tensorboard", "--to tensorboard")
    api, folder = optional("torch.utils.tensorboard", "tensorboard", "--to tensorboard"), target.out / run.name
    written, opened, writer = _written(folder), _seen(folder), None

    def write(now: Snapshot) -> str:
        nonlocal opened, writer
        new = now.lacking(written)
        if new or not opened:
            writer = writer or _open(api, folder)
            begin, end = _hyperparameters(api, run)
            # A folder that has been written before holds the hyperparameters already.
            for summary in [] if opened else begin:
                writer.add_summary(summary)
            for tag, value, step in new:
                writer.add_summary(api.summary.scalar(tag, value), step)
                written.add((tag, step))
            if now.final:
                writer.add_summary(end)
            writer.flush()
            opened = True
        return str(folder)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _open(api: Any, folder: Path) -> Any:
    try:
        return api.FileWriter(str(folder))
    except OSError as error:
        raise ThawlabError(f"{folder}: cannot be written: {error.strerror}") from None


def _hyperparameters(api: Any, run: TrackedRun) -> tuple[list[Any], Any]:
    """Return the summaries that open a run in the table of hyperparameters, and the one that closes it."""
    plain = {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in run.settings.items()}
    experiment, start, end = api.summary.hparams(plain, dict.fromkeys(_COLUMNS))
    return [experiment, start], end


def _seen(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("events.out.tfevents.*"))


def _written(folder: Path) -> set[tuple[str, int]]:
    """Return the tags and steps that a run's folder holds already."""
    if not _seen(folder):
        return set()
    events = optional("tensorboard.backend.event_processing.event_accumulator", "tensorboard", "--to tensorboard")
    reader = events.EventAccumulator(str(folder), size_guidance={"scalars": 0})  # 0 keeps all
    reader.Reload()
    return {(tag, event.step) for tag in reader.Tags()["scalars"] for event in reader.Scalars(tag)}
