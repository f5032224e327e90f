"""The tasks on which thawlab and its peers are compared."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LITE = "tf_efficientnet_lite0"
BACKBONES = ("mobilenetv2_100", LITE, "resnet50", "tf_efficientnetv2_b0")
HEAD = {"name": "head", "train": "head", "epochs": 20, "lr": 1e-3}
STAGE = {"name": "stage", "train": "stages:1", "epochs": 10, "lr": 1e-4}
ALL = {"name": "all", "train": "all", "epochs": 1, "lr": 1e-4, "batch_norm": "train"}
# As thawlab, and Keras' guide, have it where weights are pretrained.
FIXED = {**ALL, "batch_norm": "eval"}


@dataclass(frozen=True)
class Variant:
    """A program and how to start it.

    Attributes:
        name: in the table.
        command: a whole process.
        fresh_cache: whether it begins with an empty cache.
        kind: "train" is thawlab's own, with runs, cache and results; "program" prints its seconds; "whole" reports nothing.
    """

    name: str
    command: list[str]
    fresh_cache: bool = True
    kind: str = "program"


@dataclass
class Work:
    """A task for thawlab and its peers.

    Attributes:
        part: what is compared: seconds of the "whole" command or of a part of it, or "memory" at its peak.
        screen: in the commands of the peers, the number of epochs and a smaller one for screening.
        lasts: seconds after which a comparison of memory ends the program.
    """

    name: str
    target: float
    ours: Variant
    peers: list[Variant]
    part: str = "whole"
    screen: tuple[str, ...] = ()
    lasts: float = 0.0
    screened: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


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


def works(folder: Path, keras_python: str | None) -> list[Work]:
    """Return all comparisons; without those with Keras where there is none."""
    thawlab = [str(Path(sys.executable).with_name("thawlab")), "train"]
    keras = [keras_python or "", str(HERE / "peers" / "keras_tutorial.py")]
    torch_loop = [sys.executable, str(HERE / "peers" / "torch_loop.py")]
    small, full = str(folder / "small.npz"), str(folder / "full.npz")

    def ours(name: str, *parts: Any, fresh: bool = True, **top: Any) -> Variant:
        return Variant("thawlab", [*thawlab, str(recipe(folder, name, *parts, **top))], fresh, "train")

    def peers(data: str, keras_model: str, torch_model: str, *options: str, torch_options: tuple[str, ...] = ()) -> list[Variant]:
        return [
            Variant("keras float32", [*keras, data, "--model", keras_model, *options]),
            Variant("keras bfloat16", [*keras, data, "--model", keras_model, *options, "--precision", "mixed_bfloat16"]),
            Variant("torch loop", [*torch_loop, data, "--model", torch_model, *options, *torch_options]),
        ]

    local = {name: f"local-dir:{folder / name}" for name in BACKBONES}
    mobile = local["mobilenetv2_100"]
    # Keras has no EfficientNet-Lite.
    lite = [Variant("torch loop", [*torch_loop, small, "--model", LITE, "--all-epochs", "1", "--size", "96"])]
    fixed_lite = [Variant("torch loop", [*lite[0].command, "--fixed"])]
    head = peers(small, "MobileNetV2", "mobilenetv2_100", "--head-epochs", "20")
    stage = peers(small, "MobileNetV2", "mobilenetv2_100", "--stage-epochs", "10")
    result = [
        Work("head", 20, ours("head", "small", mobile, 96, {**HEAD, "dropout": 0.2}), head, screen=("20", "2")),
        Work(
            "head-again",
            50,
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
    mine = ours(f"all-{LITE}-96", "small", local[LITE], 96, dict(ALL), precision="auto")
    result.append(Work(f"all-{LITE}-96", 2.5, mine, lite, "all"))
    mine = ours(f"fixed-{LITE}-96", "small", local[LITE], 96, dict(FIXED), precision="auto")
    result.append(Work(f"fixed-{LITE}-96", 2.5, mine, fixed_lite, "all"))
    mine = ours("fixed-mobilenetv2_100-96", "small", mobile, 96, dict(FIXED), precision="auto")
    one_epoch = ("--all-epochs", "1", "--size", "96")
    others = peers(small, "MobileNetV2", "mobilenetv2_100", *one_epoch, torch_options=("--fixed",))
    result.append(Work("fixed-mobilenetv2_100-96", 2.5, mine, others, "all"))
    for name, size, keras_name, data, target in (
        ("mobilenetv2_100", 96, "MobileNetV2", "small", 2.5),
        ("resnet50", 32, "ResNet50", "small", 1.3),
        ("resnet50", 96, "ResNet50", "half", 1.3),
        ("tf_efficientnetv2_b0", 96, "EfficientNetV2B0", "half", 1.3),
    ):
        mine = ours(f"all-{name}-{size}", data, local[name], size, dict(ALL), precision="auto")
        options = ("--all-epochs", "1", "--size", str(size))
        images = str(folder / f"{data}.npz")
        result.append(Work(f"all-{name}-{size}", target, mine, peers(images, keras_name, name, *options), "all"))
    scratch = {"name": "all", "train": "all", "epochs": 1, "optimizer": "adam", "batch_size": 64, "augment": ["flip", "crop:4"]}
    mine = ours("resnet20", "full", "resnet20", 32, scratch, precision="auto")
    options = ("--all-epochs", "1", "--size", "32")
    result.append(
        Work("resnet20-epoch", 2, mine, peers(full, "resnet20", "resnet20", *options, torch_options=("--augment",)), "all")
    )
    jpegs, run = str(folder / "jpegs"), str(folder / "predict")
    keras_folder = [keras_python or "", str(HERE / "peers" / "keras_folder.py"), jpegs, "--task"]
    torch_folder = [sys.executable, str(HERE / "peers" / "torch_folder.py"), jpegs, "--task"]
    reading = [
        Variant("keras", [*keras_folder, "input"]),
        Variant("keras cache()", [*keras_folder, "input", "--cache"]),
        Variant("torch loader", [*torch_folder, "input"]),
    ]
    mine = Variant("thawlab", [sys.executable, str(HERE / "thawlab_input.py"), jpegs])
    result += [Work("input-first", 1.2, mine, reading, "first"), Work("input-later", 15, mine, reading, "later")]
    predicting = [
        Variant("keras float32", [*keras_folder, "predict"]),
        Variant("keras bfloat16", [*keras_folder, "predict", "--precision", "mixed_bfloat16"]),
        Variant("torch loop", [*torch_folder, "predict"]),
    ]
    predict = Variant("thawlab", [thawlab[0], "predict", run, jpegs, "--json"], kind="whole")
    rounded = replace(predict, command=[*predict.command, "--engine", "bfloat16"])
    result += [Work("predict", 2, predict, predicting), Work("predict-bfloat16", 2, rounded, predicting)]
    everything = ours("memory", "full", mobile, 96, dict(ALL), precision="auto")
    options = ("--all-epochs", "1", "--size", "96")
    others = peers(full, "MobileNetV2", "mobilenetv2_100", *options)
    result.append(Work("memory", 1.25, everything, others, "memory", lasts=90.0))
    exact = ours("memory-float32", "full", mobile, 96, dict(ALL))
    result.append(Work("memory-float32", 1.25, exact, others, "memory", lasts=90.0))
    for work in result:
        work.peers = [peer for peer in work.peers if peer.command[0]]
    return result


def prepare_run(folder: Path) -> None:
    """Train the classifier for the `predict` task."""
    target = folder / "predict"
    if (target / "results.json").exists():
        return
    made = recipe(folder, "predict", "half", f"local-dir:{folder / 'mobilenetv2_100'}", 224, {**HEAD, "epochs": 1})
    thawlab = str(Path(sys.executable).with_name("thawlab"))
    runs = folder / "runs"
    command = [thawlab, "train", str(made), "data.train_size=200", "--runs", str(runs), "--cache-dir", str(folder / "cache")]
    subprocess.run(command, check=True, capture_output=True)
    next(runs.glob("predict-*")).rename(target)


def prepare_rounded(folder: Path) -> None:
    """Export that classifier for the `predict-bfloat16` task."""
    thawlab = str(Path(sys.executable).with_name("thawlab"))
    subprocess.run([thawlab, "export", str(folder / "predict"), "--format", "bfloat16"], check=True, capture_output=True)
