"""The Python API: the verbs of the command line, and runs that show themselves in a notebook.

What needs torch is imported where it is used: looking at a finished run takes less than a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thawlab import process
from thawlab.errors import ThawlabError, UsageError, listed, nearest
from thawlab.files import refuse_overwrite, user_path, write_text
from thawlab.opened import Run
from thawlab.opened import percent as percent  # noqa: PLC0414 - for the command line
from thawlab.recipe import Data, Recipe, System, parse_part, source_text
from thawlab.registry import about, optional
from thawlab.run import RunFolder, find_run

if TYPE_CHECKING:
    from thawlab.comparison.comparison import Comparison
    from thawlab.deploy.cluster.predict import Gathered
    from thawlab.deploy.export.export import Export
    from thawlab.deploy.output import Written
    from thawlab.deploy.prediction import Prediction
    from thawlab.deploy.predictor import Predictor
    from thawlab.judging.evaluate import Evaluated
    from thawlab.probing.result import Probe
    from thawlab.quality.data_check import DataCheck
    from thawlab.serving.shelf import Served
    from thawlab.training.lr_finder import LrFinding


def train(
    source: str | Path | Recipe, *, runs: str | Path = "runs", devices: int = 1, report: bool = False, **overrides: Any
) -> Run:
    """Train a classifier, judge it on the test split and save everything in a run folder.

    The same recipe is the same run: unfinished, it resumes where it stopped; finished, it is returned as it is.

    Args:
        source: images (a folder, zip, tar, Parquet folder or CSV, or the name of a data set), the path of a recipe (`.toml`),
            or a recipe.
        runs: the folder of all runs.
        devices: of this machine that train together, each in a process of its own: GPUs, or shares of the cores. Neither the
            batches nor their order depend on it.
        report: whether to write the run's report as well.
        **overrides: settings of the recipe by dotted key, as in `**{"phases.1.lr": 5e-5}`, or by the short names `backbone`,
            `size`, `train_size`, `device`, `data_dir` and `cache_dir`; `name` and `seed` are keys themselves.

    Returns:
        The finished run.

    Raises:
        UsageError: if the images, a key or a value are wrong; said before training starts.
        ThawlabError: if something failed on the way.

    Example:
        >>> import thawlab
        >>> run = thawlab.train("shapes:200x16", backbone="cnn5", size=16, **{"phases.0.epochs": 1})
        >>> run.results.test.n
        40
    """
    from thawlab import runner
    from thawlab.plan.resolve import plan_of

    plan = plan_of(source, overrides)
    if devices != 1:
        from thawlab.launch import train_on

        train_on(devices, plan, user_path(runs))
    run = Run(runner.train(plan, user_path(runs), report))
    if report and not run.folder.report.is_file() and not process.rank():  # found finished, or trained by other processes
        run.report()
    return run


def find_lr(source: str | Path | Recipe, **overrides: Any) -> LrFinding:
    """Find a learning rate for the first phase by a range test; trains nothing and leaves no run. Takes what `train` takes.

    Raises:
        UsageError: if the images, a key or a value are wrong.
        ThawlabError: if no rate can be found.

    Example:
        >>> import thawlab
        >>> found = thawlab.find_lr("shapes:200x16", backbone="cnn5", size=16)
        >>> 1e-6 <= found.suggestion <= 10
        True
    """
    from thawlab import runner
    from thawlab.plan.resolve import plan_of

    return runner.range_test(plan_of(source, overrides))


def open_run(name: str | Path, runs: str | Path = "runs") -> Run:
    """Open a run by its folder's name, a prefix of it, or its path.

    Raises:
        UsageError: if there is no such run; the message gives the nearest name.

    Example:
        >>> import thawlab
        >>> run = thawlab.train("shapes:200x16", name="small", backbone="cnn5", size=16, **{"phases.0.epochs": 1})
        >>> thawlab.open_run("small").path == run.path
        True
    """
    return Run(find_run(str(user_path(name)), user_path(runs)))


def repair(run: Run | str | Path, runs: str | Path = "runs") -> Run:
    """Restore what is missing or damaged in a run, from its checkpoint.

    Raises:
        UsageError: if there is no such run.
        ThawlabError: if the checkpoint is missing or damaged as well.
    """
    from thawlab import runner

    return Run(runner.repair(_folder(run, runs)))


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

    return open_predictor(_folder(run, runs), device, engine)


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

    folder, files = _folder(run, runs), image_files(images)
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

    folder, table = _folder(run, runs), user_path(out)
    files = image_files(images)
    _outputs(force, [*images], out=table)
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
    return predict_all(_folder(run, runs), named, user_path(out), top_k, ray, workers or 1, device, engine)


def watch(
    run: Run | str | Path,
    folder: str | Path,
    out: str | Path,
    top_k: int = 3,
    *,
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

    found = _folder(run, runs)
    predictor = load(Run(found), device=device, engine=engine)
    return watch_folder(predictor, user_path(folder), user_path(out), top_k, model_digest(found, engine), pause)


def serve(
    models: Sequence[Run | str | Path],
    runs: str | Path = "runs",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: str | Path | None = None,
    no_token: bool = False,
    allow_hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    device: str = "auto",
    engine: str | None = None,
    started: Callable[[str], None] = print,
) -> None:
    """Serve classifiers until the process is told to stop: a page to drop pictures on, and a JSON API under `/v1`.

    Args:
        models: runs, by value, name or path; the first is the default.
        runs: the folder of all runs.
        host: to listen to; beyond this machine, it needs a token.
        port: to listen at; 0 for any free one.
        token_file: with the secret that clients must send.
        no_token: let everybody in who reaches it.
        allow_hosts: names that it may be asked by, beside `localhost` and numbers.
        origins: of other sites' pages that may ask (CORS).
        device: where it computes: "cpu", "cuda", or "auto" for a GPU if there is one.
        engine: an export of the runs, which computes in their place.
        started: is called with the page's address.

    Raises:
        UsageError: if there is no such run, or everybody would be let in unsaid.
        ThawlabError: if a model is damaged, or the address cannot be taken.
    """
    optional("fastapi", "serve", "thawlab serve")
    from thawlab.serving.serve import serve as answer
    from thawlab.serving.settings import Limits, read_access
    from thawlab.serving.shelf import served

    access = read_access(host, token_file, no_token, allow_hosts, origins)
    folders = list({folder.path.resolve(): folder for folder in (_folder(model, runs) for model in models)}.values())
    if len({folder.name for folder in folders}) < len(folders):
        raise UsageError("two of these runs have the same name; serve one of them, or rename a folder")
    shown = [served(folder, load(Run(folder), device=device, engine=engine), engine) for folder in folders]
    answer(shown, host, port, access, Limits(), started)


def studio(
    runs: str | Path = "runs",
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    token_file: str | Path | None = None,
    no_token: bool = False,
    allow_hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    device: str = "auto",
    started: Callable[[str], None] = print,
) -> None:
    """Show all runs of a folder on pages until the process is told to stop: curves, reports, comparisons, label corrections.

    It trains and deletes nothing; what people decide on labels is written into a table beside the data.

    Args:
        runs: the folder of all runs.
        host: to listen to; beyond this machine, it needs a token.
        port: to listen at; 0 for any free one.
        token_file: with the secret that clients must send.
        no_token: let everybody in who reaches it.
        allow_hosts: names that it may be asked by, beside `localhost` and numbers.
        origins: of other sites' pages that may ask (CORS).
        device: where models compute: "cpu", "cuda", or "auto" for a GPU if there is one.
        started: is called with the page's address.

    Raises:
        UsageError: if there is no such folder, or everybody would be let in unsaid.
        ThawlabError: if the address cannot be taken.
    """
    optional("fastapi", "serve", "thawlab studio")
    from thawlab.serving.settings import Limits, read_access
    from thawlab.serving.shelf import served
    from thawlab.serving.studio import studio as show

    access = read_access(host, token_file, no_token, allow_hosts, origins)
    if device not in {"auto", "cpu"}:  # said now, and not when somebody first asks for a model
        from thawlab.environment import choose_device

        choose_device(device)

    def opened(folder: RunFolder) -> Served:
        return served(folder, load(Run(folder), device=device), None)

    show(user_path(runs), opened, host, port, access, Limits(), started)


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
    folder = _folder(run, runs)
    system = _system(folder, data_dir=data_dir)
    parent = folder.path / "exports" if out is None else user_path(out)
    places = {name: parent if out is not None and len(formats) == 1 else parent / name for name in formats}
    pictures = None if source is None else source_text(source)
    return [write(folder, name, place, system, max_loss / 100, force, pictures) for name, place in places.items()]


def evaluate(
    run: Run | str | Path,
    split: str = "test",
    source: str | Path | None = None,
    *,
    shift: bool | int = False,
    slices: bool = False,
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Evaluated:
    """Evaluate a run's saved model again, from its files alone, on its own images or on others.

    Of the run's own test images, what `shift` and `slices` measure is also written into its folder and its report.

    Args:
        run: by value, name or path.
        split: "test", "val" or "train" of the run's own images.
        source: other images, by name or path: evaluated on their test split, or on all of them where they have none.
        shift: also on corrupted images: 12 corruptions of 5 strengths of a sample of 500 images, or of as many as are given.
        slices: also by properties of the pictures, such as brightness and size, their folders and the columns of a manifest.
        runs: the folder of all runs.
        data_dir: a local copy of the named data set.
        cache_dir: where decoded images are kept.

    Returns:
        The metrics of `results.test` as `measured`, with the split and the source; `shift` and `slices` if asked for.

    Raises:
        UsageError: if there is no such run or split, or the other images have classes that the model lacks.
        ThawlabError: if the model cannot be loaded, or the run's own images have changed.

    Example:
        >>> import thawlab
        >>> run = thawlab.train("shapes:200x16", backbone="cnn5", size=16, **{"phases.0.epochs": 1})
        >>> thawlab.evaluate(run).measured.accuracy == run.results.test.accuracy
        True
    """
    from thawlab.judging.evaluate import evaluate as judge
    from thawlab.judging.shift import SHIFTED

    if source is not None and split != "test":
        raise UsageError(
            f"split = '{split}' is one of the run's own splits, and {source} are other images; these are judged on their test "
            "split, or on all of them where they have none: leave the split out"
        )
    folder = _folder(run, runs)
    images = SHIFTED if shift is True else int(shift)
    if images < 0:
        raise UsageError(f"shift = {images}: is the number of images to corrupt; give 1 or more, or True for {SHIFTED}")
    system = _system(folder, data_dir=data_dir, cache_dir=cache_dir)
    result = judge(folder, split, None if source is None else source_text(source), system, shift=images, slices=slices)
    if (result.shift or result.slices) and source is None and split == "test" and folder.report.is_file():
        from thawlab import progress
        from thawlab.report.page import write_report

        try:
            write_report(folder)
        except ThawlabError as error:
            progress.say(f"note: what was measured is saved, but the report was not written again: {error}")
    return result


def compare(
    chosen: Sequence[Run | str | Path] | str | Path,
    *,
    page: str | Path | None = None,
    force: bool = False,
    runs: str | Path = "runs",
) -> Comparison:
    """Compare runs: those that differ in nothing but their seed are one variant, and each change of one setting has its effect.

    Args:
        chosen: runs, or their names, paths or patterns of paths; or one study, by name or path.
        page: write a page (.html) too.
        force: whether the page may replace a file.
        runs: the folder of all runs.

    Raises:
        UsageError: if there are fewer than two runs, no two were tested on the same images, or the page exists already.
        ThawlabError: if a file of a run is missing or damaged.

    Example:
        >>> import thawlab
        >>> settings = {"backbone": "cnn5", "size": 16, "phases.0.epochs": 1}
        >>> pairs = [(lr, seed) for lr in (0.1, 0.01) for seed in (0, 1)]
        >>> found = [thawlab.train("shapes:200x16", seed=seed, **settings, **{"phases.0.lr": lr}) for lr, seed in pairs]
        >>> thawlab.compare(found).pairs[0].name
        'lr 0.1 → 0.01'
    """
    from thawlab.comparison.comparison import compare_runs
    from thawlab.report.comparison_page import write_comparison
    from thawlab.studies.folder import find_runs

    found = find_runs([str(chosen)] if isinstance(chosen, str | Path) else [_named(run) for run in chosen], user_path(runs))
    read = [file for folder in found.folders for file in folder.path.rglob("*")]
    [file] = _outputs(force, read, page=page)
    content = replace(compare_runs(found.folders, found.names, found.question), notes=found.notes)
    if file is not None:
        write_comparison(content, file)
    return replace(content, page=file)


def is_study(name: str | Path, runs: str | Path = "runs") -> bool:
    """Return whether a name or path is that of a study."""
    from thawlab.studies.folder import find_study

    return find_study(str(user_path(name)), user_path(runs)) is not None


def _named(run: Run | str | Path) -> str:
    return str(run.path if isinstance(run, Run) else run)


def study(
    source: str | Path,
    *,
    vary: Sequence[str] | Mapping[str, Sequence[Any]] = (),
    seeds: int | Sequence[int] | None = None,
    question: str | None = None,
    name: str | None = None,
    runs: str | Path = "runs",
    parallel: int | None = None,
    extend: bool = False,
    **overrides: Any,
) -> Comparison:
    """Run every variant with several seeds, and return what makes the difference; finished cells are not run again.

    Cells run in processes of their own, several at once, and share what they can: decoded images, features of frozen layers.

    Args:
        source: a study file (.toml), or a recipe or images with `vary`.
        vary: values by dotted key; all combinations are tried.
        seeds: how many, or which.
        question: what the study is to answer.
        name: of the study and of its folder in `runs`.
        runs: the folder of all runs.
        parallel: how many cells to run at once; as many as cores and memory allow if None.
        extend: whether cells may be added to a study that has some.
        **overrides: settings of every cell, as for `train`.

    Returns:
        The comparison; cells that failed are in its notes, and its page is `comparison.html` in the study's folder.

    Raises:
        UsageError: if a key or a value is wrong, two variants are the same, or the folder holds a study with other cells.
        ThawlabError: if fewer than two cells finished.

    Example:
        >>> import thawlab
        >>> settings = {"backbone": "cnn5", "size": 16, "phases.0.epochs": 1}
        >>> found = thawlab.study("shapes:200x16", vary={"phases.0.lr": [0.1, 0.01]}, seeds=2, **settings)
        >>> found.pairs[0].name
        'lr 0.1 → 0.01'
    """
    from thawlab.studies.design import read_design
    from thawlab.studies.study import run_study

    design = read_design(source_text(source), vary=vary, seeds=seeds, question=question, name=name, overrides=overrides)
    return run_study(design, user_path(runs), parallel, extend).comparison


def track(
    chosen: Sequence[Run | str | Path],
    to: str,
    *,
    out: str | Path | None = None,
    uri: str | None = None,
    follow: bool = False,
    runs: str | Path = "runs",
) -> dict[str, str]:
    """Write settings, curves and test metrics of runs to a tracker; what it holds already is left as it is.

    Args:
        chosen: runs, or their names or paths.
        to: "tensorboard", "mlflow", or a plug-in's tracker.
        out: the folder of TensorBoard's event files.
        uri: the address of MLflow's tracking server.
        follow: go on until the runs are finished.
        runs: the folder of all runs.

    Returns:
        Where each run is, by its folder's name.

    Raises:
        UsageError: if there is no such run or tracker, or its package is not installed.
        ThawlabError: if a run is damaged or the tracker cannot be written.
    """
    from thawlab.tracking import Target, trackers
    from thawlab.tracking import track as write

    folders = {folder.path.resolve(): folder for folder in (_folder(run, runs) for run in chosen)}
    return write(list(folders.values()), trackers.get(to, "--to"), Target(None if out is None else user_path(out), uri), follow)


def check_data(
    source: str | Path,
    *,
    backbone: str = "bundled",
    size: int | None = None,
    group: str | None = None,
    effort: str = "normal",
    page: str | Path | None = None,
    write_clean: str | Path | None = None,
    force: bool = False,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **settings: Any,
) -> DataCheck:
    """Find unreadable files, duplicates, leaks between splits, outliers and wrong labels; nothing is ever deleted.

    Args:
        source: images by name or path.
        backbone: a pretrained one whose features find outliers, wrong labels and further duplicates.
        size: of its input in pixels; the weights' own if omitted.
        group: column or pattern of related images, as `data.group`.
        effort: how the labels are judged: "quick" by heads on the backbone's features, "normal" by those of mirrored images,
            too, "thorough" also by networks that are fine-tuned, each without the third of the images that it judges.
        page: write a page with the images (.html).
        write_clean: write which images to keep (.csv), for `data.exclude`.
        force: whether these may replace files.
        data_dir: a local copy of the named data set.
        cache_dir: where decoded images and features are kept.
        **settings: how the source is read, by dotted key, e.g. `**{"data.layout": "split/class"}`.

    Raises:
        UsageError: if there are no such images or backbone, or a file to write exists already.
        ThawlabError: if the weights cannot be loaded, or half of the images cannot be read.

    Example:
        >>> import thawlab
        >>> check = thawlab.check_data("shapes:100x32", write_clean="list.csv")
        >>> len(check.leaks), len(check.listing)
        (0, 100)
    """
    from thawlab.data.selection import open_data
    from thawlab.plan.resolve import pretrained_input
    from thawlab.quality.data_check import EFFORTS, clean_list, write_rows
    from thawlab.quality.data_check import check_data as check
    from thawlab.report.data_page import write_data_page

    page, write_clean = _outputs(force, [source, data_dir], page=page, write_clean=write_clean)
    given = {key: value for key, value in (("image_size", size), ("group", group)) if value is not None}
    data = _data(source, settings, "data check", **given)
    system = parse_part(System, {"data_dir": data_dir, "cache_dir": cache_dir}, "data check")
    if effort not in EFFORTS:
        raise UsageError(f"effort: '{effort}' is none of {listed(EFFORTS)}{nearest(effort, EFFORTS)}")
    spec, preprocessing = pretrained_input(backbone, data)
    tuned = None
    if effort == "thorough":
        from thawlab.judging.cross_validation import cross_validated  # training takes a while to load

        tuned = partial(cross_validated, spec, system)
    found = check(open_data(data, system), spec, preprocessing, system, EFFORTS[EFFORTS.index(effort)], tuned)
    if page is not None:
        write_data_page(found, page)
    if write_clean is not None:
        write_text(write_clean, write_rows(clean_list(found)))
    return found


def probe(
    source: str | Path,
    backbones: Sequence[str],
    *,
    sizes: Sequence[int | str] | None = None,
    seeds: int = 3,
    shots: Sequence[int | str] = (1, 5, 10, "all"),
    train_size: int | None = None,
    page: str | Path | None = None,
    force: bool = False,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Probe:
    """Find out which backbone suits some images before anything is fine-tuned: fit heads to the features of frozen ones.

    Features are computed once and cached. Four kinds of heads choose their hyperparameters on val and are then scored on test.

    Args:
        source: images by name or path.
        backbones: pretrained ones.
        sizes: of their input in pixels, each with each; the weights' own if omitted.
        seeds: how many times a few images of each class are drawn.
        shots: images a class; "all" for every training image.
        train_size: labelled images to use, as `data.train_size`.
        page: write a page (.html) too.
        force: whether the page may replace a file.
        data_dir: a local copy of the named data set.
        cache_dir: where decoded images and features are kept.

    Raises:
        UsageError: if the images, a backbone, a size or the shots are wrong, or the page exists already.
        ThawlabError: if weights cannot be loaded, or half of the images cannot be read.

    Example:
        >>> import thawlab
        >>> found = thawlab.probe("shapes:200x16", ["bundled"], sizes=[16], shots=[5, "all"])
        >>> found.verdict.best.of.label, found.n["test"]
        ('bundled at 16 px', 40)
    """
    from thawlab.data.sources import canonical
    from thawlab.plan.resolve import pretrained_input
    from thawlab.probing.draws import distinct, parse_shots, whole
    from thawlab.probing.probe import probe as fit
    from thawlab.report.probe_page import write_probe

    [file] = _outputs(force, [source, data_dir], page=page)
    pixels = [None] if sizes is None else [whole("sizes", size) for size in distinct("sizes", sizes)]
    images = {"source": canonical(source_text(source)), "train_size": train_size}
    data = [parse_part(Data, {**images, "image_size": size}, "probe") for size in pixels]
    system = parse_part(System, {"data_dir": data_dir, "cache_dir": cache_dir}, "probe")
    inputs = [pretrained_input(name, one) for name in distinct("backbones", backbones) for one in data]
    found = fit(data[0], inputs, system, parse_shots(shots), whole("seeds", seeds))
    if file is not None:
        write_probe(found, file)
    return found


def show_data(
    source: str | Path,
    *,
    sheet: str | Path | None = None,
    force: bool = False,
    data_dir: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Return how a source is understood: classes, splits, groups, counts and what is left out; write a sheet of samples if asked.

    Args:
        source: images by name or path.
        sheet: the file (.png or .jpg) to write samples of every class to.
        force: whether it may replace a file.
        data_dir: a local copy of the named data set.
        **settings: how the source is read, by dotted key, e.g. `**{"data.layout": "split/class"}`.

    Raises:
        UsageError: if there are no such images, or the sheet exists already and `force` is false.
        ThawlabError: if a download fails or the sheet cannot be written.
    """
    from thawlab.data.overview import overview, write_sheet
    from thawlab.data.selection import open_data

    [file] = _outputs(force, [source, data_dir], sheet=sheet)
    system = parse_part(System, {"data_dir": data_dir}, "data show")
    listing = open_data(_data(source, settings, "data show"), system)
    if file is not None:
        write_sheet(listing, file)
    return overview(listing) | ({} if file is None else {"sheet": str(file)})


def write_shards(
    source: str | Path,
    folder: str | Path,
    *,
    shard_mib: float = 128,
    val: float | None = None,
    test: float | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Write the images of a source into shards: tar files with an index, which are read in any order, here or from afar.

    Args:
        source: images by name, path or address.
        folder: to write into; new, empty, or of the same writing that was interrupted.
        shard_mib: after so many MiB a shard ends.
        val: the fraction of the images to train on that goes into shards for validation; if omitted, the source's own split.
        test: the fraction of all images that goes into shards for testing; if omitted, the source's own split.
        data_dir: a local copy of the named data set.
        cache_dir: where copies of remote sources are kept.
        **settings: how the source is read, by dotted key.

    Returns:
        The number of images, shards and bytes, and what was left out.

    Raises:
        UsageError: if there are no such images, or the folder holds something else.
        ThawlabError: if images cannot be read, or the disk does not take the shards.
    """
    from thawlab.data.selection import open_data
    from thawlab.data.shards.splitting import with_fixed_splits
    from thawlab.data.shards.writer import write_shards as write

    if not 0 < shard_mib <= 1 << 20:
        raise UsageError(f"--shard-mib {shard_mib:g}: must be above 0, and at most 1,048,576")
    system = parse_part(System, {"data_dir": data_dir, "cache_dir": cache_dir}, "data shards")
    listing = with_fixed_splits(open_data(_data(source, settings, "data shards"), system), val, test)
    index, unreadable = write(listing, user_path(folder), int(shard_mib * (1 << 20)))
    return {
        "folder": str(folder),
        "n": sum(shard.images for shard in index.shards),
        "shards": len(index.shards),
        "bytes": sum(shard.bytes for shard in index.shards),
        "unreadable": [{"id": name, "reason": reason} for name, reason in unreadable],
    }


def verify_shards(folder: str | Path) -> dict[str, Any]:
    """Read all shards of a folder and compare them with their index.

    Returns:
        The number of shards and images, and a line on each shard that is not what the index says.

    Raises:
        UsageError: if the folder holds no shards with an index, or the index is damaged.
    """
    from thawlab.data.shards.source import read_index
    from thawlab.data.shards.writer import verify_shards as verify

    path = user_path(folder)
    index = read_index(path)
    wrong = verify(path, index)
    return {"folder": str(folder), "shards": len(index.shards), "n": sum(s.images for s in index.shards), "wrong": wrong}


def list_models(pattern: str | None = None) -> list[dict[str, str]]:
    """Return name, kind and description of the backbones; with a wildcard, also of timm's pretrained ones that match it.

    Raises:
        UsageError: if none matches.
    """
    from thawlab.models.overview import backbone_table

    rows = backbone_table(pattern)
    if pattern is not None and not rows:
        raise UsageError(f"no backbone matches '{pattern}'; try a wildcard, for example '{pattern}*'")
    return rows


def list_datasets() -> list[dict[str, str]]:
    """Return name and description of the data sets that can be named."""
    from thawlab.data.sources import datasets

    return [{"name": name, "about": about(datasets.get(name))} for name in datasets]


def _folder(run: Run | str | Path, runs: str | Path) -> RunFolder:
    return run.folder if isinstance(run, Run) else open_run(run, runs).folder


def _system(folder: RunFolder, **places: str | Path | None) -> System:
    """Return where a run's data and caches are: its own settings, but for the places that are given."""
    changes = {key: str(place) for key, place in places.items() if place is not None}
    own = System() if folder.imported.is_file() else folder.recipe.system
    return own.model_copy(update=changes)


def _data(source: str | Path, settings: Mapping[str, Any], verb: str, **more: Any) -> Data:
    """Return the part of a recipe that says which images are meant and how they are read."""
    from thawlab.data.sources import canonical

    for key in settings:
        if not key.startswith("data."):
            raise UsageError(f"{key}: {verb} takes settings of the data only, e.g. data.layout=split/class")
    named = {key.removeprefix("data."): value for key, value in settings.items()}
    return parse_part(Data, {"source": canonical(source_text(source)), **named, **more}, verb)


def _outputs(force: bool, inputs: Sequence[str | Path | None], **outputs: str | Path | None) -> list[Path | None]:
    """Return the paths to write, after checking that no file is lost: none of the inputs, no image or table in their folders."""
    from thawlab.data.formats import has_image_extension

    read = [user_path(path) for path in inputs if path is not None]
    paths = {option: user_path(path) for option, path in outputs.items() if path is not None}
    for option, path in paths.items():
        target = path.resolve()
        is_data = has_image_extension(target.name) or target.suffix.lower() == ".parquet"
        inside = is_data and target.exists() and any(folder.resolve() in target.parents for folder in read)
        refuse_overwrite(path, force, [*read, path] if inside else read)
        if twin := next((name for name, other in paths.items() if name != option and other.resolve() == target), None):
            raise UsageError(f"{path}: is the file of both {option} and {twin}; give each a file of its own")
    return [paths.get(option) for option in outputs]
