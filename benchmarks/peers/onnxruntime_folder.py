"""A folder of images through an ONNX network as its user drives it: Pillow in a pool of threads, one batch ahead of the session.

JPEG files are decoded at a reduced size where Pillow can (`draft`), the fastest that it offers. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path, help="a folder with a sub-folder per class")
parser.add_argument("model", type=Path, help="a network that takes float32, n × 3 × size × size")
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--out", type=Path, required=True)
arguments = parser.parse_args()
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def read(file: Path) -> np.ndarray:
    """Return an image as the network takes it."""
    image = Image.open(file)
    image.draft("RGB", (arguments.size, arguments.size))
    fitted = ImageOps.fit(image.convert("RGB"), (arguments.size, arguments.size), Image.Resampling.BICUBIC)
    return ((np.asarray(fitted, dtype=np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = arguments.threads
session = onnxruntime.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
[name] = [entry.name for entry in session.get_inputs()]
files = sorted(file for file in arguments.folder.rglob("*") if file.is_file())
batches = [files[start : start + arguments.batch] for start in range(0, len(files), arguments.batch)]
session.run(None, {name: np.stack([read(file) for file in batches[0]])})
started, inside = time.perf_counter(), 0.0
with ThreadPoolExecutor(arguments.threads) as pool, arguments.out.open("w", newline="") as table:
    writer = csv.writer(table)
    waiting = [pool.submit(read, file) for file in batches[0]]
    for batch, following in zip(batches, [*batches[1:], []], strict=True):
        pixels = np.stack([future.result() for future in waiting])
        waiting = [pool.submit(read, file) for file in following]
        begun = time.perf_counter()
        [logits] = session.run(None, {name: pixels})
        inside += time.perf_counter() - begun
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        writer.writerows([file, row.argmax(), row.max()] for file, row in zip(batch, probabilities, strict=True))
spent = time.perf_counter() - started
print(json.dumps({"images": len(files), "seconds": {"predict": spent, "session": inside}, "version": onnxruntime.__version__}))
