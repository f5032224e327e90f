"""Stream two million small pictures from shards: memory, order, resuming, and pictures a second beside two other loaders.

Writes the shards once (drawn shapes as JPEG, 64 px), then measures, each in a process of its own and on the same shards:

- this project's stream: recipes' order with a shuffle buffer, decoded as it is taken, in batches of 256; its peak memory, and the
  same bits when it is begun anew at ten positions drawn at random;
- `webdataset` with its shuffle buffer, decoding with Pillow, in torch's DataLoader with two workers;
- torchvision's way: a map-style data set over the same shards (offsets from our index), Pillow, DataLoader with two workers.

    python benchmarks/streams.py write --out /tmp/shards --images 2000000
    python benchmarks/streams.py measure --shards /tmp/shards --out benchmarks/results/DATE-cpu-streams.json
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
import numpy as np

BATCH, BUFFER, SIZE = 256, 20_000, 64
BASES = 2000


def write(out: Path, images: int) -> None:
    """Write shapes into shards; every picture differs from every other by what is drawn or by its colours."""
    from PIL import Image

    from thawlab.data.images import ReadImages
    from thawlab.data.listing import Listing
    from thawlab.data.shapes import SHAPES, draw_shapes
    from thawlab.data.shards.writer import write_shards

    bases, labels = draw_shapes(BASES, SIZE, 0)

    def read(index: int) -> bytes:
        turn, base = divmod(index, BASES)
        tint = np.array([turn % 10 * 3, turn // 10 % 10 * 3, turn // 100 * 3], dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(bases[base] ^ tint).save(file, "JPEG", quality=85)
        return file.getvalue()

    listing = Listing(
        name="two-million-shapes",
        classes=SHAPES,
        ids=tuple(f"{index:07d}" for index in range(images)),
        labels=labels[np.arange(images) % BASES],
        splits=np.where(np.arange(images) % 100, "train", "val"),
        images=ReadImages(read),
    )
    started = time.monotonic()
    index, _ = write_shards(listing, out, 128 << 20)
    size = sum(shard.bytes for shard in index.shards)
    print(f"{images:,} pictures in {len(index.shards)} shards, {size / 1e9:.2f} GB, {time.monotonic() - started:.0f} s")


def peak_mib() -> float:
    """Return the most memory that this program has held, in MiB; `getrusage` would count that of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def ours(shards: Path, images: int | None) -> dict[str, Any]:
    """Stream an epoch as a phase of training takes it, and again from positions drawn at random."""
    from thawlab.data.batches import batch_spans, buffered_order, prefetched
    from thawlab.data.dataset import listing_of, load_dataset
    from thawlab.data.preprocessing import Preprocessing
    from thawlab.recipe import parse_recipe

    started = time.monotonic()
    data = {"source": str(shards), "cache": "none", "shuffle_buffer": BUFFER}
    recipe = parse_recipe({"data": data, "model": {"backbone": "bundled"}, "phases": [{"epochs": 1}]})
    dataset = load_dataset(recipe, Preprocessing(size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3))
    opened, opened_mib = time.monotonic() - started, peak_mib()
    assert dataset.shards is not None
    train = dataset.splits.train
    order = train[buffered_order(0, 0, 0, dataset.shards[train], BUFFER)][:images]
    spans = batch_spans(len(order), BATCH)
    rows: Any = dataset.images

    def batch(step: int) -> Any:
        return np.take(rows, order[slice(*spans[step])], axis=0), dataset.labels[order[slice(*spans[step])]]

    rows.expect(order)
    digests = []
    started = time.monotonic()
    for _, (pixels, _) in prefetched(range(len(spans)), batch):
        digests.append(hashlib.blake2b(pixels, digest_size=8).hexdigest())
    seconds = time.monotonic() - started
    streamed_mib = peak_mib()
    positions = sorted(np.random.default_rng(1).choice(len(spans), 10, replace=False).tolist())
    same = []
    for position in positions:
        again = buffered_order(0, 0, 0, dataset.shards[train], BUFFER)
        assert np.array_equal(train[again][:images], order)
        steps = range(position, min(position + 5, len(spans)))
        taken = [hashlib.blake2b(pixels, digest_size=8).hexdigest() for _, (pixels, _) in prefetched(steps, batch)]
        same.append(taken == digests[position : position + 5])
    known = listing_of(recipe)
    arrays = [known.labels, known.splits, *(part for part in known.images.rows if isinstance(part, np.ndarray))]  # type: ignore[attr-defined]
    in_memory = sum({id(array): array.nbytes for array in arrays}.values()) + known.images.rows.digests.rows.nbytes  # type: ignore[attr-defined]
    return {
        "index_bytes_on_disk": sum((shards / name).stat().st_size for name in ("index.json", "index.parquet")),
        "index_bytes_in_memory": in_memory + known.ids.texts.nbytes,  # type: ignore[attr-defined]
        "shard_bytes": sum(path.stat().st_size for path in shards.glob("*.tar")),
        "picture_bytes": int(known.images.rows.sizes.sum(dtype=np.int64)),  # type: ignore[attr-defined]
        "images": len(order),
        "images_in_shards": len(dataset.ids),
        "seconds_to_open": round(opened, 2),
        "peak_mib_open": round(opened_mib),
        "peak_mib": round(streamed_mib),
        "seconds": round(seconds, 2),
        "images_per_second": round(len(order) / seconds, 1),
        "positions": positions,
        "same_bits_from_each_position": same,
        "digest_of_the_epoch": hashlib.sha256("".join(digests).encode()).hexdigest(),
    }


def webdataset(shards: Path, images: int | None) -> dict[str, Any]:
    """Stream with the library that the format is named after, as its documentation has it."""
    import torch
    import webdataset as wds
    from torchvision.transforms.functional import pil_to_tensor

    paths = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    pictures = (
        wds.WebDataset(paths, shardshuffle=len(paths), seed=0, empty_check=False)
        .shuffle(BUFFER)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(pil_to_tensor, int)
        .batched(BATCH)
    )
    return _timed(wds.WebLoader(pictures, batch_size=None, num_workers=2, prefetch_factor=4), images, torch)


class Picture:
    """A map-style data set over the shards, as torchvision's `ImageFolder` is one over files."""

    def __init__(self, shards: Path) -> None:
        from thawlab.data.sources import open_source

        listing = open_source(str(shards))
        images: Any = listing.images
        self.rows, self.shards, self.chosen = images.rows, shards, np.flatnonzero(listing.splits == "train")
        self.names = sorted(path.name for path in shards.glob("*.tar"))
        self.files: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        from PIL import Image
        from torchvision.transforms.functional import pil_to_tensor

        index = int(self.chosen[place])
        name = self.names[int(self.rows.shards[index])]
        file = self.files.get(name) or self.files.setdefault(name, (self.shards / name).open("rb"))
        file.seek(int(self.rows.offsets[index]))
        content = file.read(int(self.rows.sizes[index]))
        return pil_to_tensor(Image.open(io.BytesIO(content)).convert("RGB")), int(self.rows.labels[index])


def dataloader(shards: Path, images: int | None) -> dict[str, Any]:
    """Stream with torch's DataLoader, two workers, shuffled over all pictures."""
    import torch

    loader = torch.utils.data.DataLoader(Picture(shards), BATCH, shuffle=True, num_workers=2, prefetch_factor=4)
    return _timed(loader, images, torch)


def _timed(loader: Any, images: int | None, torch: Any) -> dict[str, Any]:
    started, seen, total = time.monotonic(), 0, torch.zeros((), dtype=torch.int64)
    for pixels, _ in _until(loader, images):
        seen += len(pixels)
        total += pixels[0, 0, 0, 0]
    seconds = time.monotonic() - started
    return {"images": seen, "seconds": round(seconds, 2), "images_per_second": round(seen / seconds, 1)}


def _until(loader: Any, images: int | None) -> Iterator[Any]:
    seen = 0
    for batch in loader:
        yield batch
        seen += len(batch[0])
        if images is not None and seen >= images:
            return


def measure(shards: Path, images: int, repetitions: int, out: Path) -> None:
    """Compare the three on the same number of pictures, interleaved; then stream all of them once."""
    result: dict[str, Any] = {**machine.measure("float32"), "batch": BATCH, "shuffle_buffer": BUFFER, "size": SIZE}
    rates: dict[str, list[float]] = {}
    for _ in range(repetitions):
        for name in ("ours", "webdataset", "dataloader"):
            found = _in_a_process(name, shards, images)
            rates.setdefault(name, []).append(found["images_per_second"])
            print(name, found["images_per_second"], flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    result["images_compared"], result["images_per_second"], result["median"] = images, rates, medians
    result["ratio"] = {name: round(medians["ours"] / medians[name], 2) for name in ("webdataset", "dataloader")}
    result["whole"] = _in_a_process("ours", shards, None)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def _in_a_process(name: str, shards: Path, images: int | None) -> dict[str, Any]:
    command = [sys.executable, __file__, name, "--shards", str(shards), *(["--images", str(images)] if images else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "measure", "ours", "webdataset", "dataloader"])
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--images", type=int)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    if wanted.what == "write":
        write(wanted.out, wanted.images or 2_000_000)
    elif wanted.what == "measure":
        measure(wanted.shards, wanted.images or 100_000, wanted.repetitions, wanted.out)
    else:
        one = {"ours": ours, "webdataset": webdataset, "dataloader": dataloader}[wanted.what]
        print(json.dumps(one(wanted.shards, wanted.images)))


if __name__ == "__main__":
    main()
