"""Classifiers from other programs, and for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thawlab.api.arguments import folder_of, system_of
from thawlab.errors import UsageError
from thawlab.files import user_path
from thawlab.opened import Run
from thawlab.recipe_text import source_text

if TYPE_CHECKING:
    from thawlab.deploy.export.export import Export


def import_model(
    file: str | Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    scaling: str | None = None,
    runs: str | Path = "runs",
) -> Run:
    """Turn a classifier that Keras saved (`.keras`, or `.h5` of Keras 2 or 3) into a run to predict with, evaluate and export.

    Keras itself is not needed, and nothing in the file is executed: layers that are not known are refused by name.

    Args:
        file: of a whole model, or the weights of a network of keras.applications with its classifier.
        name: of the run; the file's if omitted.
        classes: names in the order of the outputs; "0", "1" and so on if omitted. Keras sorts folders by name.
        size: side of its input in pixels, where the file leaves it open.
        scaling: of its inputs, where neither the file nor the network's family says it: "unit" (0 to 1), "symmetric" (−1 to 1),
            "raw" (0 to 255), or "caffe" or "torch" as in `preprocess_input`.
        runs: the folder of all runs.

    Raises:
        UsageError: if it is no such file, or holds what is not supported.
        ThawlabError: if it is damaged, or the run cannot be written.
    """
    from thawlab.deploy.imports import import_keras

    return Run(import_keras(user_path(file), user_path(runs), name, classes, size, scaling))


def export(
    run: Run | str | Path,
    formats: Sequence[str] = ("onnx",),
    *,
    out: str | Path | None = None,
    max_loss: float = 1.0,
    force: bool = False,
    source: str | Path | None = None,
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
) -> list[Export]:
    """Export a run's classifier with its preprocessing, calibration and thresholds; a file that disagrees does not stay.

    Args:
        run: by value, name or path.
        formats: "onnx", "onnx-float16", "onnx-int8", "bfloat16", "torch", "timm", "keras", or a plug-in's.
        out: a folder for one format, or for a folder of each of several; `exports` in the run's folder if omitted.
        max_loss: how many points of accuracy "onnx-int8" and "bfloat16" may cost.
        force: whether an export of other weights is replaced.
        source: images to check it on, by name or path, instead of those that the run held out.
        runs: the folder of all runs.
        data_dir: a local copy of the named data set, whose images the export is checked on.

    Raises:
        UsageError: if there is no such run or format, or it cannot hold this classifier.
        ThawlabError: if an export disagrees with the predictor, or cannot be written.

    Example:
        >>> import thawlab
        >>> run = thawlab.train("shapes:200x16", backbone="cnn5", size=16, **{"phases.0.epochs": 1})
        >>> [exported] = thawlab.export(run, ["torch"])
        >>> exported.parity["agreement"]
        1.0
    """
    from thawlab.deploy.export.export import export as write
    from thawlab.deploy.export.formats import exporters

    if not 0 <= max_loss <= 100:
        raise UsageError(f"max_loss = {max_loss:g}: points of accuracy, from 0 to 100")
    if not formats:
        raise UsageError("name a format to export to, such as onnx")
    for name in formats:
        exporters.get(name, "--format")  # a wrong one is said before the first takes its minute
    folder = folder_of(run, runs)
    system = system_of(folder, data_dir=data_dir)
    parent = folder.path / "exports" if out is None else user_path(out)
    places = {name: parent if out is not None and len(formats) == 1 else parent / name for name in formats}
    pictures = None if source is None else source_text(source)
    return [write(folder, name, place, system, max_loss / 100, force, pictures) for name, place in places.items()]
