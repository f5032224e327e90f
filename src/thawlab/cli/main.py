"""The command line: one thin function per verb. Heavy imports wait until a verb runs, so that help is immediate."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thawlab.cli.console import CacheDirOption, DataDirOption, JsonOption, RunsOption, percent, print_json, print_table
from thawlab.cli.data import data_app
from thawlab.errors import ThawlabError, UsageError

if TYPE_CHECKING:
    from thawlab.recipe import Recipe
    from thawlab.run import RunFolder

app = typer.Typer(
    name="thawlab",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Image classification by transfer learning: from images to a trained, judged and explained classifier.\n\n"
    "Start with `thawlab demo`, then `thawlab train PHOTOS/` on a folder with a sub-folder per class.",
)
app.add_typer(data_app, name="data")


def _show_version(wanted: bool) -> None:
    if wanted:
        from thawlab import __version__

        print(f"thawlab {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None: ...


def _conclude(folder: RunFolder, as_json: bool) -> None:
    """Print the accuracy with its interval and the run's folder."""
    from thawlab.files import read_json

    results = read_json(folder.results)
    if as_json:
        print_json({"run": str(folder.path), **results})
        return
    test = results["test"]
    low, high = test["accuracy_ci95"]
    for finding in results["diagnoses"]:
        print(f"{finding['severity']}: {finding['evidence']}; {finding['advice']}")
    print(
        f"test accuracy {percent(test['accuracy'])} (95 % interval {percent(low)} to {percent(high)}, n = {test['n']:,}), "
        f"train − test {100 * results['gap']:+.2f} points"
    )
    print(f"report: {folder.report}")
    print(f"run:    {folder.path}")


def _train(recipe: Recipe, runs: Path) -> RunFolder:
    """Train a recipe and write its report."""
    from thawlab.report.page import write_report
    from thawlab.runner import train

    folder = train(recipe, runs)
    if not folder.report.is_file():
        write_report(folder)
    return folder


def _show_range_test(recipe: Recipe, as_json: bool) -> None:
    """Find a learning rate for the first phase and show the test."""
    from thawlab.runner import range_test

    found = range_test(recipe)
    if as_json:
        print_json(found.as_json())
        return
    shown = range(0, len(found.rates), 5)
    print_table("", ["lr", "smoothed loss"], [[f"{found.rates[k]:.2e}", f"{found.losses[k]:.4f}"] for k in shown])
    print(f"suggestion for phase '{recipe.phases[0].name}': lr = {found.suggestion:.2e}")


def _recipe_of(target: str, sugar: dict[str, Any], overrides: list[str]) -> Recipe:
    """Make the recipe of a `train` command from a file or from defaults."""
    from thawlab.recipe import parse_recipe, read_toml, with_overrides

    if "=" in target and not Path(target).exists():
        raise UsageError(f"'{target}' is an override; name the recipe or the images first: thawlab train RECIPE.toml {target}")
    if target.endswith(".toml"):
        table, origin = read_toml(Path(target)), target
    else:
        from thawlab.data.sources import check_source
        from thawlab.plan.defaults import default_recipe

        check_source(target)
        named = dict(override.partition("=")[::2] for override in overrides)
        backbone = sugar["model.backbone"] or named.get("model.backbone")
        table, origin = default_recipe(target, backbone, named.get("model.pretrained") != "false"), "train"
    settings = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sugar.items() if value is not None]
    return parse_recipe(with_overrides(table, [*settings, *overrides]), origin)


@app.command(epilog="Example: thawlab train photos/ --backbone resnet50 --size 224 phases.1.lr=5e-5")
def train(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|IMAGES",
            help="A recipe (.toml), a data set's name, or a path: folder, zip, tar, Parquet folder, CSV.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings by dotted key, e.g. data.train_size=10000."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="model.backbone: timm/NAME.TAG, local-dir:FOLDER, bundled, cnn5, … (see `thawlab models`)."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="data.image_size: side of the input in pixels.")] = None,
    train_size: Annotated[int | None, typer.Option(help="data.train_size: learn from so many images only.")] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of everything random.")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    lr_find: Annotated[bool, typer.Option("--lr-find", help="Only find a learning rate for the first phase.")] = False,
    data_dir: DataDirOption = None,
    cache_dir: CacheDirOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Train a classifier, judge it on the test split and write its report.

    The same recipe is the same run: unfinished, it continues where it stopped; finished, its results are shown.
    """
    sugar = {
        "model.backbone": backbone,
        "data.image_size": size,
        "data.train_size": train_size,
        "seed": seed,
        "name": name,
        "system.device": device,
        "system.data_dir": data_dir,
        "system.cache_dir": cache_dir,
    }
    recipe = _recipe_of(target, sugar, overrides or [])
    if lr_find:
        _show_range_test(recipe, as_json)
    else:
        _conclude(_train(recipe, runs), as_json)


@app.command(epilog="Example: thawlab demo")
def demo(
    seed: Annotated[int, typer.Option(help="The seed of everything random.")] = 0,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Show transfer learning on real handwritten digits, without a download.

    Trains the bundled backbone in two phases (frozen, then fine-tuned), and beside it the same network from scratch.
    """
    from thawlab.evaluation.predictions import load_predictions
    from thawlab.files import read_json
    from thawlab.plan.demo import demo_recipes
    from thawlab.study.paired import compare_predictions

    folders = [_train(recipe, runs) for recipe in demo_recipes(seed)]
    results = [read_json(folder.results) for folder in folders]
    if as_json:
        print_json({"runs": [{"run": str(f.path), **r} for f, r in zip(folders, results, strict=True)]})
        return
    rows = []
    for result in results:
        test, best = result["test"], result["phases"][-1]
        low, high = test["accuracy_ci95"]
        epochs = " + ".join(str(phase["epochs_run"]) for phase in result["phases"])
        rows.append(
            [
                result["name"],
                epochs,
                percent(best["best_val_accuracy"]),
                percent(test["accuracy"]),
                f"{percent(low)} – {percent(high)}",
                f"{100 * result['gap']:+.2f}",
                f"{result['seconds']['total']:.0f} s",
            ]
        )
    print_table(
        f"Handwritten digits, {results[0]['dataset']['n_train']} to train, {results[0]['test']['n']} to test, one seed",
        ["run", "epochs", "val", "test", "95 % interval", "train − test", "time"],
        rows,
    )
    first, second = (load_predictions(folder.predictions("test")) for folder in folders)
    print(f"{compare_predictions(first, second).describe()} One run each: another seed may turn it round.")
    for folder in folders:
        print(f"report: {folder.report}")


@app.command(epilog="Example: thawlab evaluate runs/demo-two-phase-0123456789ab")
def evaluate(
    run: Annotated[str, typer.Argument(help="A run, by its folder's name or path.")],
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    data: Annotated[str | None, typer.Option(help="Judge on these images instead: a data set's name or a path.")] = None,
    data_dir: DataDirOption = None,
    cache_dir: CacheDirOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Judge a run's saved model again, from its files alone, on its own images or on others."""
    from thawlab.judging.evaluate import evaluate as judge
    from thawlab.run import find_run

    if split not in {"val", "test"}:
        raise UsageError(f"--split {split}: must be val or test")
    folder = find_run(run, runs)
    changes = {key: value for key, value in {"data_dir": data_dir, "cache_dir": cache_dir}.items() if value is not None}
    measured = judge(folder, split, data, folder.recipe.system.model_copy(update=changes))
    if as_json:
        print_json({"run": str(folder.path), **measured})
        return
    low, high = measured["accuracy_ci95"]
    print(
        f"{measured['source']}, {measured['split']}: accuracy {percent(measured['accuracy'])} "
        f"(95 % interval {percent(low)} to {percent(high)}, n = {measured['n']:,}), macro F1 {percent(measured['macro_f1'])}"
    )
    print(f"run:    {folder.path}")


@app.command(epilog="Example: thawlab predict runs/photos-0123456789ab holiday/ --top-k 3")
def predict(
    run: Annotated[str, typer.Argument(help="A run, by its folder's name or path.")],
    images: Annotated[list[str], typer.Argument(help="Files, and folders of images.")],
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to show per image.")] = 3,
    explain: Annotated[
        Path | None, typer.Option(help="Write each image beside what speaks for its class (Grad-CAM) into this folder.")
    ] = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Predict the classes of images with calibrated probabilities, through the model's own preprocessing."""
    from thawlab.deploy.predictor import image_files, load_predictor
    from thawlab.environment import keep_memory
    from thawlab.run import find_run

    keep_memory()
    folder = find_run(run, runs)
    files = image_files(images)
    predictor = load_predictor(folder.model)
    results = predictor.predict_many(files, top_k)
    if explain is not None:
        predictor.write_explanations(results, explain)
    if as_json:
        print_json({"run": str(folder.path), "predictions": [result.as_json() for result in results]})
    else:
        rows = []
        for result in results:
            pairs = zip(result.classes, result.probabilities, strict=True)
            shown = result.error or ", ".join(f"{name} {100 * p:.1f} %" for name, p in pairs)
            rows.append(
                [result.source, shown, "not like anything in training" if result.novel else "unsure" if result.unsure else ""]
            )
        print_table("", ["image", "classes", ""], rows)
    failed = sum(result.error is not None for result in results)
    if failed == len(results):
        raise ThawlabError(f"none of the {failed} images could be read")


@app.command(epilog="Example: thawlab report runs/demo-two-phase-0123456789ab runs/demo-from-scratch-0123456789ab")
def report(
    run: Annotated[list[str], typer.Argument(help="A run, by its folder's name or path; several are compared with the first.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the comparison of several runs goes; comparison.html if omitted.")
    ] = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Write a run's report.html and figures again, or a page that compares several runs."""
    from thawlab.run import find_run

    folders = [find_run(name, runs) for name in run]
    if len(folders) > 1:
        _compare(folders, out or Path("comparison.html"), as_json)
        return
    if out is not None:
        raise UsageError("--out is for comparing several runs; the report of one run lies in its folder")
    from thawlab.report.page import write_report

    path = write_report(folders[0])
    if as_json:
        print_json({"report": str(path)})
    else:
        print(path)


def _compare(folders: list[RunFolder], out: Path, as_json: bool) -> None:
    from thawlab.report.comparison_page import write_comparison
    from thawlab.study.comparison import compare_runs

    comparison = compare_runs(folders)
    write_comparison(comparison, [folder.read_metrics() for folder in folders], out)
    if as_json:
        print_json({**comparison, "page": str(out)})
        return
    rows = []
    for row in comparison["runs"]:
        low, high = row["test"]["accuracy_ci95"]
        pair = row["against_first"]
        against = f"{100 * pair['difference']:+.2f} (p = {pair['p_value']:.2g})" if pair else "–"
        rows.append([row["run"], percent(row["test"]["accuracy"]), f"{percent(low)} – {percent(high)}", against])
    print_table("", ["run", "test", "95 % interval", "against the first, points"], rows)
    for line in comparison["warnings"]:
        print(f"note: {line}")
    print(f"page: {out}")


@app.command(epilog="Example: thawlab models 'mobilenet*'")
def models(
    pattern: Annotated[
        str | None, typer.Argument(help="List timm's pretrained networks whose names fit, e.g. 'resnet*'.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the backbones: the bundled one, small networks from scratch, Keras' names, and timm's."""
    from thawlab.models.overview import backbone_table

    rows = backbone_table(pattern)
    if pattern is not None and not rows:
        raise UsageError(f"no backbone fits '{pattern}'; try a wildcard, for example '{pattern}*'")
    if as_json:
        print_json({"models": rows})
        return
    print_table("", ["backbone", "kind", "what it is"], [[row["name"], row["kind"], row["about"]] for row in rows])
    if pattern is None:
        print("Every timm network can be named as timm/NAME.TAG; `thawlab models 'convnext*'` lists those that fit.")


@app.command(epilog="Example: thawlab datasets")
def datasets(as_json: JsonOption = False) -> None:
    """List the data sets that can be named; every folder, zip, tar, Parquet folder and CSV can be given by its path."""
    from thawlab.data.sources import datasets as registry

    rows = [{"name": name, "about": (registry.get(name).__doc__ or "").strip().splitlines()[0]} for name in registry]
    if as_json:
        print_json({"datasets": rows})
        return
    print_table("", ["data set", "what it is"], [[row["name"], row["about"]] for row in rows])


def main() -> None:
    """Run the command line; errors that are meant for people are one line on standard error."""
    try:
        app()
    except ThawlabError as error:
        print(f"thawlab: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has left (`thawlab … | head`); nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
