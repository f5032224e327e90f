"""What it takes to decode the JPEG of a photograph of about 500 × 375 px and to bring its middle to 224 px.

Several libraries, one thread each.

`python peers/decoding.py FOLDER --out FILE`, with the peers' Python and `pip install pillow simplejpeg opencv-python-headless`;
the ways take turns. It needs nothing of thawlab.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import tensorflow as tf
from PIL import Image

SIZE = 224
# Of the photographs, the shorter side and the longer one: from so many pixels to so many.
SIDES = ((320, 400), (450, 520))


def _middle(width: int, height: int) -> tuple[float, float, float, float]:
    side = min(width, height)
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


def _pillow(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def _fitted(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=_middle(*image.size)))


def _eighths(content: bytes) -> np.ndarray:
    """Decode at the least number of eighths that leaves the wanted size."""
    return simplejpeg.decode_jpeg(content, min_height=SIZE, min_width=SIZE, min_factor=1)


def _area(pixels: np.ndarray) -> np.ndarray:
    left, top, right, bottom = map(int, _middle(pixels.shape[1], pixels.shape[0]))
    return cv2.resize(pixels[top:bottom, left:right], (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def _tensorflow(content: bytes) -> np.ndarray:
    """Do what Keras' `image_dataset_from_directory` does by default: the whole image, bilinear, not anti-aliased."""
    return tf.image.resize(tf.io.decode_jpeg(content, channels=3), (SIZE, SIZE)).numpy()


def _smooth(content: bytes) -> np.ndarray:
    """Scale down with anti-aliasing, as Pillow does by default."""
    return tf.image.resize(tf.io.decode_jpeg(content, channels=3), (SIZE, SIZE), antialias=True).numpy()


WAYS: dict[str, Callable[[bytes], object]] = {
    "Pillow, decode": _pillow,
    "Pillow, decode and resize": lambda content: _fitted(_pillow(content)),
    "simplejpeg, decode": simplejpeg.decode_jpeg,
    "simplejpeg, decode in eighths": _eighths,
    "simplejpeg, Pillow's resize": lambda content: _fitted(Image.fromarray(simplejpeg.decode_jpeg(content))),
    "simplejpeg in eighths, Pillow's resize": lambda content: _fitted(Image.fromarray(_eighths(content))),
    "simplejpeg in eighths, OpenCV's area": lambda content: _area(_eighths(content)),
    "TensorFlow, decode": lambda content: tf.io.decode_jpeg(content, channels=3),
    "TensorFlow, decode and resize": _tensorflow,
    "TensorFlow, decode and resize with anti-aliasing": _smooth,
}


def main() -> None:
    """Time every way, in turn, and write milliseconds per image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if min(arguments.images, arguments.repetitions) < 1:
        parser.error("--images and --repetitions are at least 1")
    cv2.setNumThreads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    contents = []
    for path in sorted(arguments.folder.rglob("*.jpg")):
        try:
            size = _pillow(content := path.read_bytes()).size
        except OSError as error:
            parser.error(f"{path}: {error}")
        if all(least <= side <= most for side, (least, most) in zip(sorted(size), SIDES, strict=True)):
            contents.append(content)
    if not (contents := contents[: arguments.images]):
        parser.error(f"{arguments.folder} holds no .jpg file of about 500 × 375 px")
    spent: dict[str, list[float]] = {name: [] for name in WAYS}
    for repetition in range(arguments.repetitions + 1):
        for name, way in WAYS.items():
            started = time.perf_counter()
            for content in contents:
                way(content)
            if repetition:  # the first one warms up
                spent[name].append(1000 * (time.perf_counter() - started) / len(contents))
    result = {
        "images": len(contents),
        "bytes": round(statistics.mean(map(len, contents))),
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("pillow", "simplejpeg", "opencv-python-headless", "tensorflow-cpu")},
        "milliseconds": {
            name: {"median": round(statistics.median(times), 3), "range": [round(min(times), 3), round(max(times), 3)]}
            for name, times in spent.items()
        },
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, times in spent.items():
        print(f"{name:50} {statistics.median(times):.2f} ms")


if __name__ == "__main__":
    main()
