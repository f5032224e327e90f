"""The verbs that use runs: `thawlab evaluate`, `compare`, `report`, `repair`, `predict` and `track`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thawlab.cli import console
from thawlab.errors import ThawlabError, UsageError

if TYPE_CHECKING:
    from thawlab.deploy.cluster.predict import Gathered
    from thawlab.deploy.prediction import Prediction
    from thawlab.robustness import Shift, Slices

judge_app = typer.Typer()
_SLICES_SHOWN = 20  # on the command line; all are in the run's folder and in its report
_DifferenceOption = Annotated[float, typer.Option(min=0.0, help="Say how many seeds or test images would show this, in points.")]
_OutOption = Annotated[Path | None, typer.Option(help="Where the page of several runs goes; comparison.html if omitted.")]


@judge_app.command(epilog="Example: thawlab evaluate runs/demo-two-phase-0123456789ab")
def evaluate(
    run: console.RunArgument,
    split: Annotated[str, typer.Option(help="test, val or train of the run's own images.")] = "test",
    data: Annotated[str | None, typer.Option(help="Evaluate on these images instead: a data set's name or a path.")] = None,
    shift: Annotated[bool, typer.Option("--shift", help="Also on corrupted images: 12 corruptions of 5 strengths.")] = False,
    images: Annotated[int | None, typer.Option(min=1, help="With --shift: how many images to corrupt; 500 if omitted.")] = None,
    slices: Annotated[
        bool, typer.Option("--slices", help="Also by properties of the pictures: brightness, size, folder and more.")
    ] = False,
    data_dir: console.DataDirOption = None,
    cache_dir: console.CacheDirOption = None,
    runs: console.RunsOption = Path("runs"),
    as_json: console.JsonOption = False,
) -> None:
    """Evaluate a run's saved model again, from its files alone, on its own images or on others.

    With --shift and --slices: how it copes with what happens to photos, and which pictures it is bad at.
    """
    from thawlab import api

    if images is not None and not shift:
        raise UsageError("--images says how many images --shift corrupts; add --shift, or leave it out")
    opened = api.open_run(run, runs)
    places: dict[str, Any] = {"data_dir": data_dir, "cache_dir": cache_dir}
    measured = api.evaluate(opened, split, data, shift=images or shift, slices=slices, **places)
    test = measured.measured
    if as_json:
        console.print_json({"run": str(opened.path), **measured.as_json()})
        return
    interval = " to ".join(map(api.percent, test.accuracy_ci95))
    print(
        f"{measured.source}, {measured.split}: accuracy {api.percent(test.accuracy)} "
        f"(95 % interval {interval}, n = {test.n:,}), macro F1 {api.percent(test.macro_f1)}"
    )
    if measured.shift is not None:
        _print_shift(measured.shift)
    if measured.slices is not None:
        _print_slices(measured.slices)
    print(f"run:    {opened.path}")


def _print_shift(shift: "Shift") -> None:
    columns = ["corruption", "clean", *(f"strength {strength}" for strength in shift.strengths), "mean drop (95 %)"]
    clean = f"{100 * shift.clean_accuracy:.1f} %"
    rows = [
        [one.corruption, clean, *(f"{100 * cell.accuracy:.1f} %" for cell in one.strengths), _drop(one.drop, one.drop_ci95)]
        for one in sorted(shift.corruptions, key=lambda one: -one.drop)
    ]
    console.print_table("accuracy on corrupted images, by strength", columns, rows)
    _print_sentences(shift.words)


def _drop(drop: float, interval: tuple[float, float]) -> str:
    return f"{100 * drop:.1f} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def _print_slices(slices: "Slices") -> None:
    parts = sorted(slices.slices, key=lambda part: (part.p_corrected, part.p_value))[:_SLICES_SHOWN]
    columns = ["pictures", "images", "accuracy", "interval", "the rest", "by classes", "p, corrected"]
    rows = [
        [
            part.name,
            f"{part.n:,}",
            f"{100 * part.accuracy:.1f} %",
            " to ".join(f"{100 * bound:.1f}" for bound in part.accuracy_interval),
            f"{100 * part.rest:.1f} %",
            f"{100 * part.expected:.1f} %",
            f"{part.p_corrected:.2g}" + " shown" * part.shown,
        ]
        for part in parts
    ]
    more = "" if len(parts) == slices.looked_at else f", the {len(parts)} most telling"
    console.print_table(f"accuracy by property, {slices.looked_at} slices{more}", columns, rows)
    _print_sentences(slices.words)


def _print_sentences(words: "Sequence[str]") -> None:
    for line in words:
        print(f"{line[:1].upper()}{line[1:]}.")


@judge_app.command(epilog="Example: thawlab compare runs/demo-two-phase-0123456789ab runs/demo-from-scratch-0123456789ab")
def compare(
    run: Annotated[list[str], typer.Argument(help="Runs, by name, path or pattern; or one study. The first is the reference.")],
    out: _OutOption = None,
    difference: _DifferenceOption = 1.0,
    force: console.ForceOption = False,
    runs: console.RunsOption = Path("runs"),
    as_json: console.JsonOption = False,
) -> None:
    """Compare runs or a study: what each change of one setting does, with intervals, as a table and a page."""
    from thawlab import api

    compared = api.compare(run, page=out or "comparison.html", force=force, runs=runs)
    if as_json:
        console.print_json({**compared.as_json(difference / 100), "page": str(compared.page)})
        return
    console.print_table(compared.question, compared.columns, compared.rows())
    for line in [*compared.lines(), compared.plan(difference / 100)]:
        if line:
            print(line)
    print(f"page: {compared.page}")


@judge_app.command(epilog="Example: thawlab report runs/demo-two-phase-0123456789ab")
def report(
    run: Annotated[list[str], typer.Argument(help="A run, by its folder's name or path; several are compared.")],
    out: _OutOption = None,
    difference: _DifferenceOption = 1.0,
    force: console.ForceOption = False,
    runs: console.RunsOption = Path("runs"),
    as_json: console.JsonOption = False,
) -> None:
    """Write a run's report.html and figures again; of several runs or a study, the page of `thawlab compare`."""
    from thawlab import api

    if len(run) > 1 or api.is_study(run[0], runs):
        compare(run, out, difference, force, runs, as_json)
        return
    if out is not None:
        raise UsageError("--out is for comparing several runs; the report of one run lies in its folder")
    path = api.open_run(run[0], runs).report()
    console.print_json({"report": str(path)}) if as_json else print(path)


@judge_app.command(epilog="Example: thawlab repair runs/demo-two-phase-0123456789ab")
def repair(run: console.RunArgument, runs: console.RunsOption = Path("runs"), as_json: console.JsonOption = False) -> None:
    """Restore what is missing or damaged in a run's folder, from its checkpoint."""
    from thawlab import api

    path = api.repair(run, runs).path
    console.print_json({"run": str(path)}) if as_json else print(path)


@judge_app.command(epilog="Example: thawlab predict runs/photos-0123456789ab holiday/ --top-k 3 --out holiday.csv")
def predict(
    run: console.RunArgument,
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Files, and folders of images; with --ray also tar shards, Parquet files, and addresses (s3://…)."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to show per image.")] = 3,
    explain: Annotated[
        Path | None, typer.Option(help="Write each image beside what speaks for its class (Grad-CAM) into this folder.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a table (.csv, .jsonl, .parquet); interrupted, it is resumed.")] = None,
    watch: Annotated[
        Path | None, typer.Option(help="Predict the images of this folder as they come, into --out (.jsonl).")
    ] = None,
    ray: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS|local",
            help="Predict on a Ray cluster (its address, auto, or local) into --out, a folder of Parquet.",
        ),
    ] = "",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that decode images; all cores if omitted. With --ray: cores of each process, or 1."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")] = "auto",
    engine: console.EngineOption = None,
    force: console.ForceOption = False,
    runs: console.RunsOption = Path("runs"),
    as_json: console.JsonOption = False,
) -> None:
    """Predict the classes of images with calibrated probabilities, through the model's own preprocessing."""
    from thawlab import api

    _refuse_unfit(images, watch, out, explain)
    if ray:
        folder = _parts_folder(out, {"--watch": watch, "--explain": explain, "--force": force})
        gathered = api.predict_on_ray(
            run, images or [], folder, ray, top_k, workers=workers, device=device, engine=engine, runs=runs
        )
        _print_gathered(gathered, as_json)
        return
    opened = api.open_run(run, runs)
    if watch is not None and out is not None:
        for result in api.watch(opened, watch, out, top_k, workers=workers, device=device, engine=engine):
            console.print_json(result.as_json()) if as_json else print("  ".join(_row(result)), flush=True)
        return
    if out is not None:
        written = api.predict_into(opened, images or [], out, top_k, workers=workers, device=device, engine=engine, force=force)
        if as_json:
            console.print_json({"run": str(opened.path), "table": str(out), "count": written.total, "failed": written.failed})
        else:
            print(f"{out}: {written.total:,} predictions{f', {written.failed:,} files could not be read' * (written.failed > 0)}")
        _refuse_if_all_failed(written.failed, written.total)
        return
    results = api.predict(opened, images or [], top_k, explain=explain, workers=workers, device=device, engine=engine)
    if as_json:
        console.print_json({"run": str(opened.path), "predictions": [result.as_json() for result in results]})
    else:
        console.print_table("", ["image", "classes", ""], [_row(result) for result in results])
    _refuse_if_all_failed(sum(result.error is not None for result in results), len(results))


def _refuse_unfit(images: list[str] | None, watch: Path | None, out: Path | None, explain: Path | None) -> None:
    if bool(images) == (watch is not None):
        raise UsageError("give images to predict, or --watch FOLDER to predict them as they come")
    if watch is not None and out is None:
        raise UsageError("--watch needs --out FILE.jsonl, to which each prediction is added")
    if out is not None and explain is not None:
        raise UsageError("--explain goes with predictions that are shown; leave out --out, or --explain")


def _parts_folder(out: Path | None, others: Mapping[str, object]) -> Path:
    """Return where a cluster's predictions go."""
    unfit = next((option for option, value in others.items() if value), None)
    if unfit is not None:
        raise UsageError(f"{unfit} does not go with --ray, which goes on with a folder of parts")
    is_address = out is not None and len(out.parts) > 1 and len(out.parts[0]) > 2 and out.parts[0].endswith(":")  # "s3:"
    if out is None or is_address or out.suffix.lower() in {".csv", ".jsonl"}:
        raise UsageError("--ray needs --out FOLDER on this machine, for Parquet files")
    return out


def _print_gathered(done: "Gathered", as_json: bool) -> None:
    if as_json:
        counts = {"count": done.total, "failed": done.failed, "parts": done.parts, "new_parts": done.new}
        console.print_json({"folder": str(done.folder), **counts, "flaws": list(done.flaws)})
    else:
        bad = f", {done.failed:,} pictures could not be read" * (done.failed > 0)
        print(f"{done.folder}: {done.total:,} predictions{bad}, in {done.parts:,} parts, {done.new:,} of them new")
    if done.flaws:
        raise ThawlabError(f"{len(done.flaws):,} shards are not as they should be, the first: {done.flaws[0]}")
    _refuse_if_all_failed(done.failed, done.total)


def _row(result: "Prediction") -> list[str]:
    pairs = zip(result.classes, result.probabilities, strict=True)
    shown = result.error or ", ".join(f"{name} {100 * p:.1f} %" for name, p in pairs)
    return [result.source, shown, "not like anything in training" if result.novel else "unsure" if result.unsure else ""]


def _refuse_if_all_failed(failed: int, count: int) -> None:
    if count and failed == count:
        raise ThawlabError(f"none of the {failed} images could be read")


@judge_app.command(epilog="Example: thawlab track runs/demo-two-phase-0123456789ab --to tensorboard --out events/ --follow")
def track(
    run: Annotated[list[str], typer.Argument(help="Runs, by folder name or path.")],
    to: Annotated[str, typer.Option(help="tensorboard, mlflow, or a plug-in's tracker.")],
    out: Annotated[Path | None, typer.Option(help="The folder of TensorBoard's event files.")] = None,
    uri: Annotated[str | None, typer.Option(help="The address of MLflow's tracking server.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the runs are finished.")] = False,
    runs: console.RunsOption = Path("runs"),
    as_json: console.JsonOption = False,
) -> None:
    """Write settings, curves and test metrics of runs to a tracker, while they train or afterwards; never anything twice."""
    from thawlab import api

    places = api.track(run, to, out=out, uri=uri, follow=follow, runs=runs)
    if as_json:
        console.print_json({"runs": [{"run": name, "tracked": place} for name, place in places.items()]})
        return
    for name, place in places.items():
        print(f"{name}: {place}")
