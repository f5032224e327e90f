"""Does a default augmentation do harm? `python tools/augmentation_harm.py --cifar10 DIR --out FILE`.

cnn5 trains on 5,000 images of CIFAR-10 (half of `train_size`) and is evaluated on 5,000 others, without augmentation and with
those that the default recipes use, together as each default has them and each alone. Runs of the same seed share split,
images, order and initial weights, so that differences are paired by seed. The test split is not read for this.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from thawlab import progress
from thawlab.models.catalog import resolve_backbone
from thawlab.plan.defaults import default_tables
from thawlab.recipe import Recipe, parse_recipe
from thawlab.results import read_results, read_rows
from thawlab.run import RunFolder
from thawlab.runner import train


def default_lists() -> list[tuple[str, ...]]:
    """Return the augmentations of all default recipes: the lists as they are, and each alone."""
    recipes = [
        parse_recipe(default_tables("photos", resolve_backbone("bundled"))),
        parse_recipe(default_tables("photos", resolve_backbone("resnet20"))),
        parse_recipe(default_tables("cifar10", resolve_backbone("speednet"))),
    ]
    lists = [phase.augment for recipe in recipes for phase in recipe.phases if phase.augment]
    singles = [(name,) for names in lists for name in names]
    return list(dict.fromkeys([*lists, *singles]))


def recipe_of(augment: tuple[str, ...], seed: int, folder: Path, threads: int | None) -> Recipe:
    """Return the recipe of one run."""
    return parse_recipe(
        {
            "name": "harm",
            "seed": seed,
            "data": {"source": "cifar10", "train_size": 10_000, "val": 0.5},
            "model": {"backbone": "cnn5"},
            "phases": [
                {
                    "epochs": 12,
                    "batch_size": 64,
                    "optimizer": "sgd",
                    "lr": 0.03,
                    "weight_decay": 5e-4,
                    "schedule": "linear",
                    "augment": list(augment),
                }
            ],
            "system": {"data_dir": str(folder), **({"threads": threads} if threads else {})},
        }
    )


def last_accuracy(folder: RunFolder) -> float:
    """Return the validation accuracy of a run's last epoch."""
    last = read_rows(folder.metrics)[-1].val_accuracy
    assert last is not None, "the recipe holds images out"
    return last


def main() -> None:
    """Train all runs and write the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    progress.silence()
    rows: list[dict[str, Any]] = []
    accuracy: dict[tuple[str, ...], list[float]] = {}
    for augment in [(), *default_lists()]:
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as runs:
                folder = train(recipe_of(augment, seed, arguments.cifar10, arguments.threads), Path(runs))
                # The last epoch, not the best one: choosing by these images would favour every run alike.
                accuracy.setdefault(augment, []).append(last_accuracy(folder))
                n = read_results(folder.results).val.n
        differences = [one - none for one, none in zip(accuracy[augment], accuracy[()], strict=True)]
        rows.append(
            {
                "augment": list(augment),
                "accuracy": accuracy[augment],
                "mean_difference": round(statistics.mean(differences), 4),
                "least_difference": round(min(differences), 4),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        arguments.out.write_text(json.dumps({"n_val": n, "seeds": arguments.seeds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
