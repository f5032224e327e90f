"""Train pairs of tiny runs that differ in more than one respect, and see that no difference is credited to a setting.

`python tools/confounded.py --out results/confounded-pairs.json`. Twelve confounded pairs must be refused; six pairs that
differ in one setting, whose difference must be credited, show that not everything is. Takes a few minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

import thawlab
from thawlab import progress
from thawlab.comparison.comparison import Comparison
from thawlab.errors import ThawlabError
from thawlab.opened import Run

BUNDLED = Path(thawlab.__file__).parent / "models" / "bundled"
HEAD = {"name": "head", "train": "head", "epochs": 1, "lr": 0.01, "batch_size": 32}
WHOLE = {"name": "all", "train": "all", "epochs": 1, "lr": 1e-3, "batch_size": 32}
LR, DROPOUT = {"phases.0.lr": 0.03}, {"model.dropout": [0.5]}


class Bench:
    """Trains runs in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def run(self, changes: dict[str, Any] | None = None, phases: list[dict[str, Any]] | None = None) -> Run:
        """Train the base recipe with changes; every run has its own folder of runs, so that none is taken for another."""
        self.count += 1
        settings: dict[str, Any] = {"name": "tiny", "backbone": "bundled", "size": 16, "system.threads": 1}
        settings["phases"] = [dict(phase) for phase in phases or [HEAD]]
        changes = {**settings, **(changes or {})}
        return thawlab.train(changes.pop("source", "shapes:300x16"), runs=self.folder / f"runs-{self.count}", **changes)

    def images(self) -> Path:
        """Write two classes of images of noise, red and blue."""
        rng, root = np.random.default_rng(0), self.folder / "photos"
        for name, channel in (("red", 0), ("blue", 2)):
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(60):
                pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(root / name / f"{number:02}.png")
        return root

    def other_images(self) -> tuple[Run, Run]:
        """The folder's content changes between two runs, not its name."""
        root = self.images()
        first = self.run({"source": str(root)})
        for file in sorted((root / "red").iterdir())[:5]:
            Image.fromarray(np.asarray(Image.open(file)) // 2).save(file)
        return first, self.run({"source": str(root), **LR})

    def other_weights(self) -> tuple[Run, Run]:
        """The same with the weights' content."""
        weights = self.folder / "weights"
        shutil.copytree(BUNDLED, weights)
        backbone = {"backbone": f"local-dir:{weights}"}
        first = self.run(backbone)
        file = weights / "model.safetensors"
        save_file(
            {key: np.asarray(value * 0.9, value.dtype).reshape(value.shape) for key, value in load_file(file).items()}, file
        )
        return first, self.run({**backbone, **LR})

    def other_version(self) -> tuple[Run, Run]:
        """The second run says that another version of thawlab made it."""
        first, second = self.run(), self.run(LR)
        file = second.path / "environment.json"
        document = json.loads(file.read_text("utf-8"))
        document["packages"]["thawlab"] = "0.0.1"
        file.write_text(json.dumps(document), encoding="utf-8")
        return first, second


def compared(runs: tuple[Run, Run]) -> tuple[Comparison | None, str]:
    try:
        return thawlab.compare(runs), ""
    except ThawlabError as error:
        return None, str(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    progress.silence()
    with tempfile.TemporaryDirectory(prefix="confounded-") as name:
        os.environ["THAWLAB_CACHE"] = str(Path(name) / "cache")
        document = judge(Bench(Path(name)))
    text = json.dumps(document, indent=1, ensure_ascii=False)
    Path(arguments.out).write_text(text + "\n", encoding="utf-8")
    print(f"refused {document['refused']} of {len(document['confounded'])}, credited {document['credited']} of six")


def judge(bench: Bench) -> dict[str, Any]:
    base = bench.run()
    two = bench.run({}, [HEAD, WHOLE])
    small = {"backbone": "cnn5", "model.pretrained": False}
    confounded = {
        "two keys: lr, dropout": (base, bench.run({**LR, **DROPOUT})),
        "three keys: lr, dropout, momentum": (base, bench.run({**LR, **DROPOUT, "phases.0.momentum": 0.5})),
        "lr and the seed": (base, bench.run({**LR, "seed": 1})),
        "lr and the images": bench.other_images(),
        "lr and the weights": bench.other_weights(),
        "lr and the version of thawlab": bench.other_version(),
        "a phase more, and lr": (base, bench.run({}, [{**HEAD, "lr": 0.03}, WHOLE])),
        "backbone and image size": (bench.run(small, [WHOLE]), bench.run({**small, "backbone": "resnet20", "size": 24}, [WHOLE])),
        "pretrained and batch_norm": (
            bench.run({"model.pretrained": True, "phases.0.batch_norm": "eval"}, [WHOLE]),
            bench.run({"model.pretrained": False, "phases.0.batch_norm": "train"}, [WHOLE]),
        ),
        "augmentation and epochs": (base, bench.run({"phases.0.augment": ["flip"], "phases.0.epochs": 2})),
        "train_size and dropout": (base, bench.run({"train_size": 100, **DROPOUT})),
        "precision and batch size": (base, bench.run({"precision": "bfloat16", "phases.0.batch_size": 16})),
    }
    single = {
        "lr": (base, bench.run(LR)),
        "dropout": (base, bench.run(DROPOUT)),
        "a phase more": (base, two),
        "train_size": (base, bench.run({"train_size": 100})),
        "augmentation": (two, bench.run({"phases.1.augment": ["flip"]}, [HEAD, WHOLE])),
        "backbone": (confounded["backbone and image size"][0], bench.run({**small, "backbone": "resnet20"}, [WHOLE])),
    }
    document: dict[str, Any] = {"confounded": [], "one_setting": [], "refused": 0, "credited": 0}
    for what, runs in confounded.items():
        found, error = compared(runs)
        refused = found is None or (not found.pairs and not found.factorial and len(found.refusals) == 1)
        reason, keys = (found.refusals[0].reason, found.refusals[0].keys) if found and found.refusals else (error, ())
        credited = [effect.name for effect in found.effects] if found else []
        row = {"what": what, "refused": refused, "keys": keys, "reason": reason, "credited": credited}
        document["confounded"].append({**row, "verdict": found.verdict if found else ""})
        document["refused"] += refused
        print(what, "|", reason, credited, flush=True)
    for what, runs in single.items():
        found, error = compared(runs)
        credited = found is not None and len(found.pairs) == 1 and not found.refusals and len(found.pairs[0].keys) == 1
        row = {"what": what, "credited": credited, "keys": found.pairs[0].keys if found and found.pairs else ()}
        reason = error or (found.refusals[0].reason if found and found.refusals else "")
        document["one_setting"].append({**row, "verdict": found.verdict if found else "", "reason": reason})
        document["credited"] += credited
        print(what, "|", row["keys"], reason, flush=True)
    return document


if __name__ == "__main__":
    main()
