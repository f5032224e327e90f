"""List what a data check finds in a data set as published, with sheets of images to inspect a sample by eye.

`python tools/real_faults.py cifar10 --data-dir FOLDER --backbone local-dir:FOLDER --size 96 --out results/cifar10-check`
writes OUT.json with the pairs between splits and the suspected labels of the test split, as file names, and two sheets of 50
drawn at random: OUT-pairs.png and OUT-labels.png, each entry numbered as in OUT.json's "sample".
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from thawlab.data.decode import decode
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.sources import open_source
from thawlab.plan.resolve import pretrained_input
from thawlab.process import keep_memory
from thawlab.quality.data_check import check_data
from thawlab.recipe import Data, System

SAMPLE, SIDE, COLUMNS = 50, 96, 5


def sheet(listing: Listing, entries: list[tuple[list[int], str]], path: Path) -> None:
    """Draw numbered entries of one or two images with a line of text."""
    wide, high = 2 * SIDE + 24, SIDE + 30
    canvas = Image.new("RGB", (COLUMNS * wide, -(-len(entries) // COLUMNS) * high), "white")
    pen = ImageDraw.Draw(canvas)
    look = Preprocessing(size=SIDE, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    for number, (images, text) in enumerate(entries):
        left, top = number % COLUMNS * wide, number // COLUMNS * high
        for place, index in enumerate(images):
            canvas.paste(Image.fromarray(decode(listing.images.read(index), look)), (left + place * (SIDE + 4), top))
        pen.text((left, top + SIDE + 2), f"{number}: {text}", fill="black", font_size=13)
    canvas.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--data-dir")
    parser.add_argument("--backbone", default="bundled")
    parser.add_argument("--size", type=int)
    parser.add_argument("--cache-dir")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    keep_memory()
    listing = open_source(arguments.source, arguments.data_dir)
    system = System(data_dir=arguments.data_dir, cache_dir=arguments.cache_dir)
    look = pretrained_input(arguments.backbone, Data(source=arguments.source, image_size=arguments.size))
    started = time.monotonic()
    check = check_data(listing, *look, system)
    seconds = time.monotonic() - started
    assert check.labels is not None
    leaks = check.leaks
    suspects = [place for place in check.labels.suspects.tolist() if listing.splits[check.labelled[place]] == "test"]
    named = [listing.classes[label] for label in listing.labels.tolist()]
    pairs = [
        {"first": listing.ids[a], "second": listing.ids[b], "classes": [named[a], named[b]], "similarity": round(s, 4)}
        for a, b, s in leaks
    ]
    rows: list[dict[str, Any]] = []
    for place in suspects:
        index = int(check.labelled[place])
        rather = listing.classes[check.labels.suggested[place]]
        quality = round(float(check.labels.quality[place]), 4)
        rows.append({"id": listing.ids[index], "label": named[index], "suggested": rather, "quality": quality})
    rng = np.random.default_rng(0)
    sampled_pairs = sorted(rng.permutation(len(leaks))[:SAMPLE].tolist())
    sampled_labels = sorted(rng.permutation(len(suspects))[:SAMPLE].tolist())
    out = Path(arguments.out)
    sheet(
        listing,
        [([leaks[k][0], leaks[k][1]], f"{named[leaks[k][0]]}/{named[leaks[k][1]]} {leaks[k][2]:.3f}") for k in sampled_pairs],
        out.with_name(f"{out.name}-pairs.png"),
    )
    sheet(
        listing,
        [([int(check.labelled[suspects[k]])], f"{rows[k]['label']} / {rows[k]['suggested']}") for k in sampled_labels],
        out.with_name(f"{out.name}-labels.png"),
    )
    document = {
        "source": arguments.source,
        "backbone": Path(arguments.backbone).name,
        "images": len(listing),
        "seconds": round(seconds, 1),
        "pairs between splits": len(pairs),
        "test images in them": len({index for pair in leaks for index in pair[:2] if listing.splits[index] == "test"}),
        "pairs with different labels": len(check.conflicts()),
        "suspected labels in all": len(check.labels.suspects),
        "suspected labels in the test split": len(rows),
        "sample": {"pairs": sampled_pairs, "labels": sampled_labels},
        "pairs": pairs,
        "labels": rows,
    }
    out.with_suffix(".json").write_text(json.dumps(document, indent=0, ensure_ascii=False) + "\n")
    print({key: value for key, value in document.items() if not isinstance(value, list | dict)})


if __name__ == "__main__":
    main()
