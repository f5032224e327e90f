"""A folder of JPEGs as `thawlab train` reads it, without the network: decoded once, then batches of uint8 rows.

The first epoch includes hashing and decoding the files into an empty cache. Scaling belongs to the training step here as it
does in the Keras program; one more epoch that includes it is reported separately. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time

from thawlab import process


def main() -> None:
    """Read the folder and print how long each epoch took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="a folder with a sub-folder per class")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    process.prepare()  # as the program does, before torch is imported
    import numpy as np
    import torch

    from thawlab.cores import usable_cores
    from thawlab.data.batches import batch_spans, epoch_order, prefetched
    from thawlab.data.dataset import load_dataset
    from thawlab.data.preprocessing import Preprocessing
    from thawlab.recipe import parse_recipe

    torch.set_num_threads(usable_cores())
    recipe = {
        "data": {"source": arguments.folder, "image_size": arguments.size, "val": 0.0, "test": 0.0001},
        "model": {"backbone": "cnn5"},
        "phases": [{"epochs": 1}],
    }
    preprocessing = Preprocessing(size=arguments.size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    seconds: dict[str, float] = {}
    later = []
    with tempfile.TemporaryDirectory() as cache:
        recipe["system"] = {"cache_dir": cache}
        for epoch in range(arguments.epochs + 1):
            started = time.perf_counter()
            if epoch == 0:
                dataset = load_dataset(parse_recipe(recipe), preprocessing)
            order = dataset.splits.train[epoch_order(0, 0, epoch, len(dataset.splits.train)).numpy()]

            def gather(span: tuple[int, int], order=order, images=dataset.images) -> torch.Tensor:
                return torch.from_numpy(np.take(images, order[span[0] : span[1]], axis=0))

            for _, rows in prefetched(batch_spans(len(order), 64), gather):
                (preprocessing.inputs(rows) if epoch == arguments.epochs else rows)[0, 0, 0, 0].item()
            spent = time.perf_counter() - started
            if epoch == 0:
                seconds["first"] = spent
            elif epoch < arguments.epochs:
                later.append(spent)
            else:
                seconds["later_scaled"] = spent
    seconds["later"] = sum(later) / len(later)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


if __name__ == "__main__":
    main()
