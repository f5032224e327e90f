"""Classes of new images, by a run's classifier: of some, of many into a table, of those that come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thawlab.api.arguments import folder_of, outputs
from thawlab.errors import UsageError
from thawlab.files import user_path
from thawlab.opened import Run

if TYPE_CHECKING:
    from thawlab.deploy.cluster.predict import Gathered
    from thawlab.deploy.output import Written
    from thawlab.deploy.prediction import Prediction
    from thawlab.deploy.predictor import Predictor


def load(run: Run | str | Path, runs: str | Path = "runs", device: str = "auto", engine: str | None = None) -> Predictor:
    """Load the classifier of a run, by value, name or path, ready to predict; on a GPU if there is one.

    With an `engine`, an export of the run computes: "onnx", "onnx-float16", "onnx-int8" or "bfloat16", on the CPU.

    Raises:
        UsageError: if there is no such run, or no such export of it.
        ThawlabError: if its model is missing or damaged.

    Example:
        >>> import thawlab
        >>> run = thawlab.train("digits", backbone="cnn5", size=16, seed=1, **{"phases.0.epochs": 1})
        >>> thawlab.load(run).classes
        ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    from thawlab.deploy.opening import open_predictor

    return open_predictor(folder_of(run, runs), device, engine)


def predict(
    run: Run | str | Path,
    images: Sequence[str | Path],
    top_k: int = 3,
    *,
    explain: str | Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    engine: str | None = None,
    runs: str | Path = "runs",
) -> list[Prediction]:
    """Predict the classes of files, and of all images in folders; `explain` is a folder for their Grad-CAM images.

    `workers` threads decode, as many as there are cores if None; `device` and `engine` are as `load` takes them.

    Raises:
        UsageError: if there is no such run, file, folder or export.
        ThawlabError: if the model is missing or damaged.
    """
    from thawlab.deploy.predictor import image_files

    folder, files = folder_of(run, runs), image_files(images)
    if explain is not None and user_path(explain).exists() and not user_path(explain).is_dir():
        raise UsageError(f"{explain}: is a file; explanations need a folder")
    predictor = load(Run(folder), device=device, engine=engine)
    results = predictor.predict_many(files, top_k, workers)
    if explain is not None:
        predictor.write_explanations(results, user_path(explain))
    return results


def predict_into(
    run: Run | str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    top_k: int = 3,
    *,
    workers: int | None = None,
    device: str = "auto",
    engine: str | None = None,
    force: bool = False,
    runs: str | Path = "runs",
) -> Written:
    """Predict files, and all images in folders, however many, into a table; what was interrupted goes on where it stopped.

    Args:
        run: by value, name or path.
        images: files and folders.
        out: the table: .csv, .jsonl (a prediction per line) or .parquet.
        top_k: how many classes each prediction names.
        workers: threads that decode; None for as many as there are cores.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        engine: an export of the run that computes: "onnx", "onnx-float16", "onnx-int8" or "bfloat16".
        force: whether the table may replace a file.
        runs: the folder of all runs.

    Raises:
        UsageError: if there is no such run, file or folder, or the table exists.
        ThawlabError: if the model is missing or damaged, or the table cannot be written.
    """
    from thawlab.deploy.opening import model_digest
    from thawlab.deploy.output import write_predictions
    from thawlab.deploy.predictor import image_files

    folder, table = folder_of(run, runs), user_path(out)
    files = image_files(images)
    outputs(force, [*images], out=table)
    predictor = load(Run(folder), device=device, engine=engine)
    return write_predictions(predictor, files, table, top_k, model_digest(folder, engine), workers)


def predict_on_ray(
    run: Run | str | Path,
    sources: Sequence[str | Path],
    out: str | Path,
    ray: str,
    top_k: int = 3,
    *,
    workers: int | None = None,
    device: str = "auto",
    engine: str | None = None,
    runs: str | Path = "runs",
) -> Gathered:
    """Predict pictures in folders, tar shards and Parquet files, here or at addresses, on a Ray cluster into a folder of parts.

    Every picture has one row. The same call goes on with the parts that are missing.

    Args:
        run: by value, name or path.
        sources: paths, and addresses that fsspec reads (s3://, gs://, https://), of pictures, tar shards and Parquet files, and
            of folders of them.
        out: the folder of Parquet files.
        ray: the address of a cluster, or "local" for one on this machine.
        top_k: how many classes each prediction names.
        workers: cores of each process on a CPU; one if None.
        device: "cpu", "cuda", or "auto" for the cluster's GPUs if it has some.
        engine: an export of the run that computes: "onnx", "onnx-float16", "onnx-int8" or "bfloat16".
        runs: the folder of all runs.

    Raises:
        UsageError: if there is no such run or source, or the folder holds other predictions.
        ThawlabError: if there is no such cluster, or some sources could not be read: what was predicted stays.
    """
    from thawlab.deploy.cluster.predict import predict_on_ray as predict_all

    named = [str(source) for source in sources]
    return predict_all(folder_of(run, runs), named, user_path(out), top_k, ray, workers or 1, device, engine)


def watch(
    run: Run | str | Path,
    folder: str | Path,
    out: str | Path,
    top_k: int = 3,
    *,
    workers: int | None = None,
    device: str = "auto",
    engine: str | None = None,
    runs: str | Path = "runs",
    pause: float = 1.0,
) -> Iterator[Prediction]:
    """Predict the images of a folder as they come, and add each to a file of JSON lines; those that it holds are not repeated.

    Args:
        run: by value, name or path.
        folder: that is looked into again and again, with all below it.
        out: the file of JSON lines.
        top_k: how many classes each prediction names.
        workers: threads that decode; None for as many as there are cores.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        engine: an export of the run that computes: "onnx", "onnx-float16", "onnx-int8" or "bfloat16".
        runs: the folder of all runs.
        pause: seconds between two looks; a file is read once it stays the same for one.

    Raises:
        UsageError: if there is no such run or folder, or the file holds something else.
        ThawlabError: if the model is missing or damaged, or the file cannot be written.
    """
    from thawlab.deploy.opening import model_digest
    from thawlab.deploy.output import watch_folder

    found = folder_of(run, runs)
    predictor = load(Run(found), device=device, engine=engine)
    return watch_folder(predictor, user_path(folder), user_path(out), top_k, model_digest(found, engine), pause, workers)
