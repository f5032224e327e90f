"""Put a run's backbone into the package as the bundled weights: `python tools/bundle.py RUN`.

Writes src/thawlab/models/bundled/: model.safetensors (half precision), config.json and the model card.
"""

from __future__ import annotations

import sys
from pathlib import Path

from thawlab.files import read_json, write_text
from thawlab.models.catalog import BUNDLED, resolve_backbone
from thawlab.models.classifier import save_backbone
from thawlab.models.saved import load_model
from thawlab.results import read_results
from thawlab.run import find_run

CARD = """# The bundled backbone

`{architecture}`, {parameters:,} parameters in half precision, trained from scratch on CIFAR-10 by this project
with `recipes/{name}.toml`, seed {seed}: test accuracy {accuracy:.4f} on 10,000 images (95 % interval {low:.4f} to
{high:.4f}, this seed){views}; {seconds:.0f} s on {cores} cores of {processor}.
The command, other seeds and the complete results.json are in `results/{name}/` and `benchmarks/results/`.

Inputs: RGB, 32 px or more, mean 0.5, std 0.5. Output: {features} pooled features. Data: CIFAR-10 (Krizhevsky 2009).
It was trained on ten kinds of animals and vehicles at 32 px: enough for demonstrations and small images, no match for
weights trained on ImageNet. Licence: Apache-2.0, like the project.
"""


def main() -> None:
    """Bundle the run named on the command line."""
    folder = find_run(sys.argv[1], Path("runs"))
    results, environment = read_results(folder.results), read_json(folder.path / "environment.json")
    saved = load_model(folder.model)
    spec = resolve_backbone(saved.card.architecture)
    config = {**spec.config, "mean": list(spec.config["mean"]), "std": list(spec.config["std"]), "license": "apache-2.0"}
    save_backbone(saved.classifier.backbone, spec.architecture, config, BUNDLED)
    low, high = results.test.accuracy_ci95
    averaged = results.test_time_augmentation
    card = CARD.format(
        architecture=spec.architecture,
        parameters=sum(p.numel() for p in saved.classifier.backbone.parameters()),
        name=results.name,
        seed=results.seed,
        accuracy=results.test.accuracy,
        low=low,
        high=high,
        views=f", {averaged.accuracy:.4f} as the mean over views ({averaged.views})" if averaged else "",
        seconds=results.seconds["train"],
        cores=environment["cores"],
        processor=environment["processor"],
        features=int(saved.classifier.backbone.num_features),  # type: ignore[arg-type]
    )
    write_text(BUNDLED / "README.md", card)
    print(f"{BUNDLED}: {sum(file.stat().st_size for file in BUNDLED.iterdir()):,} bytes")


if __name__ == "__main__":
    main()
