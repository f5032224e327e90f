"""Compare thawlab with the programs that users would write instead: `make bench`.

Every variant is a whole process. The variants of one work run in turn, repetition by repetition, so that a drifting machine
meets them all; ratios are taken against the fastest peer of the same repetition, and their median is reported. Long works
screen their peers with fewer epochs first; a peer that is far behind the fastest one there, or in the first repetition, cannot
become the fastest and is not run again. Its time stays in the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
HEAD = {"name": "head", "train": "head", "epochs": 20, "lr": 1e-3}
# A peer that takes so many times as long as the fastest one is out of the race.
HOPELESS = 1.25
STAGE = {"name": "stage", "train": "stages:1", "epochs": 10, "lr": 1e-4}
ALL = {"name": "all", "train": "all", "epochs": 1, "lr": 1e-4, "batch_norm": "train"}


@dataclass(frozen=True)
class Variant:
    """A program and how to start it."""

    name: str
    command: list[str]
    fresh_cache: bool = True


@dataclass
class Work:
    """What is to be done, by thawlab and by its peers."""

    name: str
    target: float
    ours: Variant
    peers: list[Variant]
    part: str = "whole"
    screen: tuple[str, ...] = ()
    screened: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def prepare_data(folder: Path, source: Path) -> None:
    """Write the pictures once, as each program wants them: npz for the peers, Parquet for thawlab."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from thawlab.data.decode import decode
    from thawlab.data.files import open_path
    from thawlab.data.preprocessing import Preprocessing

    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    listing = open_path(source)
    same = Preprocessing(size=32, mean=(0, 0, 0), std=(1, 1, 1))
    for name, n_train, n_test in (("small", 5000, 1000), ("half", 2500, 1000), ("full", 50000, 10000)):
        parts: dict[str, Any] = {}
        for split, count in (("train", n_train), ("test", n_test)):
            chosen = np.flatnonzero(listing.splits == split)[:count]
            parts[f"x_{split}"] = np.stack([decode(listing.pictures.read(i), same) for i in chosen.tolist()])
            parts[f"y_{split}"] = listing.labels[chosen]
            contents = [{"bytes": listing.pictures.read(i), "path": listing.ids[i]} for i in chosen.tolist()]
            (folder / name).mkdir(exist_ok=True)
            table = pa.table({"img": contents, "label": listing.labels[chosen]})
            pq.write_table(table, folder / name / f"{split}-00000-of-00001.parquet")
        np.savez(folder / f"{name}.npz", **parts)
    (folder / "done").touch()


def prepare_backbones(folder: Path) -> None:
    """Save random weights as `local-dir:` folders: times do not depend on the values, and nothing must be fetched."""
    import timm
    import torch
    from safetensors.torch import save_file

    for name in ("mobilenetv2_100", "resnet50", "tf_efficientnetv2_b0"):
        target = folder / name
        if (target / "config.json").exists():
            continue
        target.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, num_classes=0)
        config = {"input_size": [3, 224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
        save_file(model.state_dict(), str(target / "model.safetensors"))
        (target / "config.json").write_text(
            json.dumps({"architecture": name, "pretrained_cfg": {**config, "interpolation": "bilinear", "crop_pct": 0.875}})
        )


def recipe(folder: Path, name: str, data: str, backbone: str, size: int, phase: dict[str, Any], **top: Any) -> Path:
    """Write a recipe of one phase and return its path."""
    import tomli_w

    table = {
        "name": name,
        **top,
        "data": {"source": str(folder / data), "image_size": size, "val": 0.0},
        "model": {"backbone": backbone, "pretrained": backbone.startswith("local-dir:")},
        "phases": [phase],
    }
    dropout = phase.pop("dropout", None)
    if dropout is not None:
        table["model"]["dropout"] = [dropout]
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def works(folder: Path, keras_python: str) -> list[Work]:
    """Return all comparisons."""
    thawlab = [str(Path(sys.executable).with_name("thawlab")), "train"]
    keras = [keras_python, str(HERE / "peers" / "keras_tutorial.py")]
    torch_loop = [sys.executable, str(HERE / "peers" / "torch_loop.py")]
    small, full = str(folder / "small.npz"), str(folder / "full.npz")

    def ours(name: str, *parts: Any, fresh: bool = True, **top: Any) -> Variant:
        return Variant("thawlab", [*thawlab, str(recipe(folder, name, *parts, **top))], fresh)

    def peers(data: str, keras_model: str, torch_model: str, *options: str, torch_options: tuple[str, ...] = ()) -> list[Variant]:
        return [
            Variant("keras float32", [*keras, data, "--model", keras_model, *options]),
            Variant("keras bfloat16", [*keras, data, "--model", keras_model, *options, "--precision", "mixed_bfloat16"]),
            Variant("torch loop", [*torch_loop, data, "--model", torch_model, *options, *torch_options]),
        ]

    local = {name: f"local-dir:{folder / name}" for name in ("mobilenetv2_100", "resnet50", "tf_efficientnetv2_b0")}
    mobile = local["mobilenetv2_100"]
    head = peers(small, "MobileNetV2", "mobilenetv2_100", "--head-epochs", "20")
    stage = peers(small, "MobileNetV2", "mobilenetv2_100", "--stage-epochs", "10")
    result = [
        Work("head", 15, ours("head", "small", mobile, 96, {**HEAD, "dropout": 0.2}), head, screen=("20", "2")),
        Work(
            "head-again",
            40,
            ours("head-again", "small", mobile, 96, {**HEAD, "dropout": 0.3}, fresh=False),
            head,
            screen=("20", "2"),
        ),
        Work(
            "head-again-training",
            150,
            ours("head-again2", "small", mobile, 96, {**HEAD, "dropout": 0.4}, fresh=False),
            head,
            "head",
            ("20", "2"),
        ),
        Work("stage", 3, ours("stage", "small", mobile, 96, dict(STAGE), precision="auto"), stage, screen=("10", "1")),
    ]
    for name, size, keras_name, data in (
        ("mobilenetv2_100", 96, "MobileNetV2", "small"),
        ("resnet50", 32, "ResNet50", "small"),
        ("resnet50", 96, "ResNet50", "half"),
        ("tf_efficientnetv2_b0", 96, "EfficientNetV2B0", "half"),
    ):
        mine = ours(f"all-{name}-{size}", data, local[name], size, dict(ALL), precision="auto")
        options = ("--all-epochs", "1", "--size", str(size))
        pictures = str(folder / f"{data}.npz")
        result.append(Work(f"all-{name}-{size}", 1.3, mine, peers(pictures, keras_name, name, *options), "all"))
    scratch = {"name": "all", "train": "all", "epochs": 1, "optimizer": "adam", "batch_size": 64, "augment": ["flip", "crop:4"]}
    mine = ours("resnet20", "full", "resnet20", 32, scratch, precision="auto")
    options = ("--all-epochs", "1", "--size", "32")
    result.append(
        Work("resnet20-epoch", 2, mine, peers(full, "resnet20", "resnet20", *options, torch_options=("--augment",)), "all")
    )
    return result


def run_once(variant: Variant, work: Work, caches: Path) -> dict[str, Any]:
    """Start a variant and return its seconds, whole and of its parts, and its peak memory."""
    runs = Path(tempfile.mkdtemp(prefix="bench-runs-"))
    cache = Path(tempfile.mkdtemp(prefix="bench-cache-")) if variant.fresh_cache else caches
    command = list(variant.command)
    if variant.name == "thawlab":
        command += ["--runs", str(runs), "--cache-dir", str(cache), "--json"]
    started = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr[-2000:]}")
    document = json.loads(process.stdout[process.stdout.index("{") :])
    if variant.name == "thawlab":
        parts = {phase["name"]: phase["seconds"] for phase in document["phases"]}
        document = {"seconds": parts, "accuracy": document["test"]["accuracy"], "peak_mib": None}
    shutil.rmtree(runs)
    if variant.fresh_cache:
        shutil.rmtree(cache)
    return {"variant": variant.name, "work": work.name, "whole": seconds, **document}


def run_known(
    variant: Variant, work: Work, caches: Path, known: dict[tuple[str, ...], dict[str, Any]], repetition: int
) -> dict[str, Any]:
    """Run a variant once per repetition: works may share their peers."""
    key = (str(repetition), *variant.command)
    if key not in known:
        known[key] = run_once(variant, work, caches)
    return known[key]


def screened_peers(work: Work, caches: Path, known: dict[tuple[str, ...], dict[str, Any]]) -> list[Variant]:
    """Return the peers of a long work that are worth running in full, after a short run of each."""
    if not work.screen:
        return work.peers
    full, short = work.screen
    for peer in work.peers:
        quick = Variant(peer.name, [short if part == full else part for part in peer.command])
        row = run_known(quick, work, caches, known, -1)
        work.screened.append(row)
        print(f"{work.name} screening {peer.name}: {row['whole']:.1f} s", flush=True)
    return in_the_race(work.peers, work.screened, "whole")


def in_the_race(peers: list[Variant], rows: list[dict[str, Any]], part: str) -> list[Variant]:
    """Return the peers that are not far behind the fastest one."""
    seconds = {row["variant"]: value_of(row, part) for row in rows if row["variant"] != "thawlab"}
    return [peer for peer in peers if seconds[peer.name] <= HOPELESS * min(seconds.values())]


def value_of(row: dict[str, Any], part: str) -> float:
    """Return the seconds that a work compares."""
    return float(row["whole"] if part == "whole" else row["seconds"][part])


def summarize(work: Work) -> dict[str, Any]:
    """Return medians, and the median of the ratios to the fastest peer of the same repetition."""
    repetitions = sorted({row["repetition"] for row in work.rows})
    ratios = []
    for repetition in repetitions:
        rows = [row for row in work.rows if row["repetition"] == repetition]
        mine = next(value_of(row, work.part) for row in rows if row["variant"] == "thawlab")
        ratios.append(min(value_of(row, work.part) for row in rows if row["variant"] != "thawlab") / mine)
    names = list(dict.fromkeys(row["variant"] for row in work.rows))
    medians = {n: statistics.median(value_of(r, work.part) for r in work.rows if r["variant"] == n) for n in names}
    return {
        "work": work.name,
        "compares": work.part,
        "target": work.target,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "median_seconds": medians,
        "screened": work.screened,
        "rows": work.rows,
    }


def save(path: Path, summaries: list[dict[str, Any]], machine: dict[str, float]) -> None:
    """Write what has been measured so far."""
    from thawlab.training.environment import processor_name

    content = {"date": str(date.today()), "processor": processor_name(), "platform": platform.platform(), "cores": os.cpu_count()}
    path.write_text(json.dumps({**content, "machine": machine, "works": summaries}, indent=1) + "\n")


def main() -> None:
    """Run the comparisons that were asked for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", type=Path, required=True, help="CIFAR-10: a folder of Parquet files or of pictures")
    parser.add_argument("--keras-python", required=True, help="the Python of a virtual environment with TensorFlow")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", default="", help="names of works, separated by commas")
    parser.add_argument("--work-dir", type=Path, default=Path(tempfile.gettempdir()) / "thawlab-bench")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    import machine

    prepare_data(arguments.work_dir, arguments.cifar10)
    prepare_backbones(arguments.work_dir)
    ceiling = machine.measure()
    print(ceiling, flush=True)
    wanted = [name for name in arguments.only.split(",") if name]
    chosen = [work for work in works(arguments.work_dir, arguments.keras_python) if not wanted or work.name in wanted]
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    summaries = []
    for work in chosen:
        caches = Path(tempfile.mkdtemp(prefix="bench-kept-"))
        if not work.ours.fresh_cache:
            run_once(work.ours, work, caches)  # fills the cache that this work finds
        peers = screened_peers(work, caches, known)
        for repetition in range(arguments.repetitions):
            for variant in [*peers, work.ours]:
                row = run_known(variant, work, caches, known, repetition)
                work.rows.append({**row, "repetition": repetition})
                print(f"{work.name} {repetition} {variant.name}: {value_of(row, work.part):.1f} s", flush=True)
            peers = in_the_race(peers, [row for row in work.rows if row["repetition"] == repetition], work.part)
        shutil.rmtree(caches)
        summaries.append(summarize(work))
        save(arguments.out, summaries, ceiling)
        print(f"{work.name}: {summaries[-1]['ratio']:.1f}× (target {work.target}×)", flush=True)


if __name__ == "__main__":
    main()
