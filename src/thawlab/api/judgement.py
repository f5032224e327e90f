"""What classifiers, settings and backbones are worth: evaluated, compared, varied, probed, tracked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thawlab.api.arguments import folder_of, outputs, system_of
from thawlab.errors import ThawlabError, UsageError
from thawlab.files import user_path
from thawlab.opened import Run
from thawlab.recipe import Data, System, parse_part
from thawlab.recipe_text import source_text

if TYPE_CHECKING:
    from thawlab.comparison.comparison import Comparison
    from thawlab.judging.evaluate import Evaluated
    from thawlab.probing.result import Probe


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
    folder = folder_of(run, runs)
    images = SHIFTED if shift is True else int(shift)
    if images < 0:
        raise UsageError(f"shift = {images}: is the number of images to corrupt; give 1 or more, or True for {SHIFTED}")
    system = system_of(folder, data_dir=data_dir, cache_dir=cache_dir)
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
    [file] = outputs(force, read, page=page)
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

    folders = {folder.path.resolve(): folder for folder in (folder_of(run, runs) for run in chosen)}
    return write(list(folders.values()), trackers.get(to, "--to"), Target(None if out is None else user_path(out), uri), follow)


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

    [file] = outputs(force, [source, data_dir], page=page)
    pixels = [None] if sizes is None else [whole("sizes", size) for size in distinct("sizes", sizes)]
    images = {"source": canonical(source_text(source)), "train_size": train_size}
    data = [parse_part(Data, {**images, "image_size": size}, "probe") for size in pixels]
    system = parse_part(System, {"data_dir": data_dir, "cache_dir": cache_dir}, "probe")
    inputs = [pretrained_input(name, one) for name in distinct("backbones", backbones) for one in data]
    found = fit(data[0], inputs, system, parse_shots(shots), whole("seeds", seeds))
    if file is not None:
        write_probe(found, file)
    return found
