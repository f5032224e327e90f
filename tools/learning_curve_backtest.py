"""Do learning curves of real trainings foretell? `python tools/learning_curve_backtest.py measure … --out FILE`, then `judge`.

`measure` trains every backbone on nested subsets of every data set, frozen (a linear head on its features) and fine-tuned (that
head, then all layers), with several seeds, and keeps the test errors; it goes on where it stopped. No epoch is chosen by
validation. `judge` fits the sizes up to N/4 and compares what that foretells for N with what was measured there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from thawlab import process
from thawlab.comparison.foretelling import backtest, foretell
from thawlab.environment import choose_device, deterministic
from thawlab.errors import ThawlabError, UsageError
from thawlab.files import write_json
from thawlab.judging.subject import outputs_of
from thawlab.memory import remembering
from thawlab.plan.resolve import resolve
from thawlab.recipe import parse_recipe
from thawlab.run import RunFolder
from thawlab.training.context import prepare
from thawlab.training.fit import Timing, fit
from thawlab.training.interruption import watch_signals
from thawlab.training.state import TrainingState

SMALLEST, STEP = 35, 2**0.5
LARGEST = {"frozen": 4600, "fine-tuned": 1200}
DIGITS = 1297  # to train on, of the table that `digits` writes
HEAD = {"name": "head", "train": "head", "epochs": 30, "batch_size": 32, "lr": 1e-3, "schedule": "cosine"}
FINE_TUNE = {"name": "fine-tune", "train": "all", "epochs": 4, "batch_size": 32, "optimizer": "adamw", "lr": 5e-4}
FINE_TUNE |= {"weight_decay": 0.02, "schedule": "cosine", "layer_decay": 0.9}
LEVEL, REACH = 0.8, 4
TESTED = 2000  # of the test images, the same for all; all of a smaller test split


def sizes_of(way: str, available: int) -> list[int]:
    """Return sizes that grow by the square root of two."""
    sizes = [round(SMALLEST * STEP**k) for k in range(40)]
    return [size for size in sizes if size <= min(LARGEST[way], available)]


def error_of(dataset: dict[str, Any], backbone: str, way: str, size: int, seed: int, image_size: int) -> tuple[float, int]:
    """Train once; return the error and the number of test images."""
    phases = [HEAD] if way == "frozen" else [HEAD, FINE_TUNE]
    data = {"source": dataset["source"], "train_size": size, "val": 0.0, "image_size": image_size}
    system = {"threads": 1, "workers": 1, "data_dir": dataset.get("data_dir")}
    table = {"seed": seed, "data": data, "model": {"backbone": backbone}, "phases": phases, "system": system}
    closed, spec = resolve(parse_recipe({**table, "evaluation": {"calibrate": False}}))
    with tempfile.TemporaryDirectory() as folder, deterministic(1), watch_signals() as interruption:
        (run := RunFolder(Path(folder) / "run")).path.mkdir()
        context = prepare(closed, spec, choose_device("cpu"), run, interruption)
        trained = fit(context, TrainingState(), None, Timing())
        test = context.dataset.splits.test
        some = np.sort(np.random.default_rng(0).permutation(test)[:TESTED])
        logits = outputs_of(context, trained, context.dataset, some, "", features=False).logits
    return float((logits.argmax(axis=1) != context.dataset.labels[some]).mean()), len(some)


def write_digits(options: argparse.Namespace) -> None:
    """Write scikit-learn's handwritten digits as images with a fixed split, since splits made here go with the seed."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    if options.out.exists():
        raise UsageError(f"--out {options.out}: exists already; name a new folder")
    options.out.mkdir(parents=True)
    rows = ["path,label,split"]
    for number, index in enumerate(order):
        Image.fromarray((digits.images[index] * 15.9375).astype(np.uint8)).save(options.out / f"{index}.png")
        rows.append(f"{index}.png,{digits.target[index]},{'test' if number < 500 else 'train'}")
    (options.out / "digits.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def measure(options: argparse.Namespace) -> None:
    """Fill the table of errors, curve after curve."""
    process.prepare()
    content = {"curves": curves_in(options.out) if options.out.exists() else {}}
    datasets = [dict(zip(("source", "data_dir"), text.split("="), strict=False)) for text in options.datasets]
    with remembering():
        for dataset, backbone, way in itertools.product(datasets, options.backbones, options.ways):
            name = f"{Path(dataset['source']).stem} {Path(backbone).name} {way}"
            curve = content["curves"].setdefault(name, {"errors": {}, "seconds": 0.0})
            sizes = sizes_of(way, DIGITS if dataset["source"].endswith("digits.csv") else LARGEST[way])
            for size, seed in itertools.product(sizes, range(options.seeds)):
                row = curve["errors"].setdefault(str(size), [])
                if seed < len(row):
                    continue
                started = time.monotonic()
                error, curve["n_test"] = error_of(dataset, backbone, way, size, seed, options.image_size)
                row.append(error)
                curve["seconds"] = round(curve["seconds"] + time.monotonic() - started, 1)
                write_json(options.out, content)
            print(name, {size: round(float(np.mean(row)), 4) for size, row in curve["errors"].items()}, flush=True)


def curves_in(file: Path) -> dict[str, Any]:
    """Return the curves that `measure` wrote.

    Raises:
        ThawlabError: if the file holds none.
    """
    try:
        curves: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["curves"]
        if not all(curve["errors"].values() for curve in curves.values()):
            raise KeyError("errors")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ThawlabError(f"{file}: holds no curves that `measure` wrote ({type(error).__name__}: {error})") from None
    return curves


def judge(options: argparse.Namespace) -> None:
    """Hold what the smaller sizes foretell against what was measured, and write both."""
    curves: dict[str, Any] = {}
    for file in options.errors:
        for name, curve in curves_in(file).items():
            if name not in curves or _runs(curve) > _runs(curves[name]):
                curves[name] = curve
    cases = []
    for name, curve in sorted(curves.items()):
        seeds = max(map(len, curve["errors"].values()))
        whole = {int(size): row for size, row in curve["errors"].items() if len(row) == seeds}
        for point in backtest(list(whole), list(whole.values()), curve["n_test"], REACH, LEVEL):
            foretold = {key: round(value, 5) for key, value in point.foretold._asdict().items() if key != "n"}
            case = {"curve": name, "n": point.n, "measured": round(point.measured, 5), **foretold, "covered": point.covered}
            cases.append({**case, "miss, points": round(100 * (point.foretold.error - point.measured), 3)})
    groups = {"all": cases}
    for case in cases:
        dataset, backbone, way = case["curve"].split(" ")
        for group in (dataset, backbone, way):
            groups.setdefault(group, []).append(case)
    summary = {name: _summary(of) for name, of in groups.items()}
    for name, row in summary.items():
        print(name, row)
    seconds = round(sum(curve["seconds"] for curve in curves.values()))
    setting = {"head": HEAD, "fine-tune": FINE_TUNE, "level": LEVEL, "reach": REACH, "seconds of one core": seconds}
    write_json(options.out, {**setting, "summary": summary, "cases": cases, "curves": curves})


def _runs(curve: dict[str, Any]) -> int:
    return sum(map(len, curve["errors"].values()))


def of_study(options: argparse.Namespace) -> None:
    """Foretell the larger sizes of a study's learning curves from those up to `--until`, and show what was measured there."""
    result = {}
    try:
        curves = json.loads(options.comparison.read_text(encoding="utf-8"))["learning_curves"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ThawlabError(f"{options.comparison}: is no comparison.json of a study ({type(error).__name__}: {error})") from None
    for name, curve in curves.items():
        points = {point["n"]: point["errors"] for point in curve["points"]}
        known = {n: errors for n, errors in points.items() if n <= options.until}
        if not known or len(known) == len(points):
            raise UsageError(f"--until {options.until}: must leave sizes on both sides; there are {', '.join(map(str, points))}")
        foretold = foretell(list(known), list(known.values()), curve["n_test"], sorted(points.keys() - known.keys()), LEVEL)
        result[name] = [{**point._asdict(), "measured": float(np.mean(points[point.n]))} for point in foretold]
        print(name, *result[name], sep="\n")
    write_json(
        options.out, {"comparison": options.comparison.parent.name, "until": options.until, "level": LEVEL, "curves": result}
    )


def _summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    misses = np.abs([case["miss, points"] for case in cases])
    return {
        "cases": len(cases),
        "covered": round(float(np.mean([case["covered"] for case in cases])), 3),
        "median miss, points": round(float(np.median(misses)), 2),
        "mean signed miss, points": round(float(np.mean([case["miss, points"] for case in cases])), 2),
        "median width, points": round(float(np.median([100 * (case["high"] - case["low"]) for case in cases])), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("measure")
    command.add_argument("--datasets", nargs="+", required=True, help="NAME or NAME=FOLDER")
    command.add_argument("--backbones", nargs="+", required=True)
    command.add_argument("--ways", nargs="+", default=["frozen", "fine-tuned"])
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--image-size", type=int, default=48)
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=measure)
    command = commands.add_parser("judge")
    command.add_argument("errors", nargs="+", type=Path, help="what `measure` wrote")
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=judge)
    command = commands.add_parser("study", help="foretell a study's own larger sizes")
    command.add_argument("comparison", type=Path, help="its comparison.json")
    command.add_argument("--until", type=int, required=True, help="images that may be known")
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=of_study)
    command = commands.add_parser("digits")
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=write_digits)
    options = parser.parse_args()
    try:
        options.run(options)
    except UsageError as error:
        parser.error(str(error))
    except ThawlabError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
