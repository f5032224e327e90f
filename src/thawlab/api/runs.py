"""Training runs, opening them and mending them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thawlab import process
from thawlab.api.arguments import folder_of
from thawlab.files import user_path
from thawlab.opened import Run
from thawlab.recipe import Recipe

if TYPE_CHECKING:
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
    """Open a run by its folder's name (within a study STUDY/RUN), a prefix of it, or its path.

    Raises:
        UsageError: if there is no such run; the message gives the nearest name.

    Example:
        >>> import thawlab
        >>> run = thawlab.train("shapes:200x16", name="small", backbone="cnn5", size=16, **{"phases.0.epochs": 1})
        >>> thawlab.open_run("small").path == run.path
        True
    """
    return Run(folder_of(name, runs))


def repair(run: Run | str | Path, runs: str | Path = "runs") -> Run:
    """Restore what is missing or damaged in a run, from its checkpoint.

    Raises:
        UsageError: if there is no such run.
        ThawlabError: if the checkpoint is missing or damaged as well.
    """
    from thawlab import runner

    return Run(runner.repair(folder_of(run, runs)))
