"""Export many architectures to every format and write what the parity gate measures; what was done before is kept.

    python tools/export_matrix.py fruits360-95.tar --classes 12 --out results/export-parity.json

Each architecture is trained for a few epochs on images of the source's first classes, with random weights unless these are
installed: the gate compares computations, not merits, but a classifier that guesses has many pictures near a tie, where a
half-precision export must say another class. A format that the gate refuses is written with its reason.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import thawlab
from thawlab.data.decode import open_image, to_rgb
from thawlab.data.sources import open_source
from thawlab.environment import choose_device, environment
from thawlab.errors import ThawlabError
from thawlab.files import read_json, write_json

FORMATS = ("onnx", "onnx-float16", "onnx-int8", "torch")
# The backbone of each, and the side of its input.
ARCHITECTURES: dict[str, tuple[str, int]] = {
    "cnn5": ("cnn5", 32),
    "resnet20": ("resnet20", 32),
    "speednet": ("bundled", 32),
    "resnet18": ("timm/resnet18", 64),
    "resnet50": ("timm/resnet50", 64),
    "vgg11_bn": ("timm/vgg11_bn", 64),
    "densenet121": ("timm/densenet121", 64),
    "mobilenetv2_100": ("timm/mobilenetv2_100", 96),
    "efficientnet_lite0": ("efficientnet_lite0", 96),
    "tf_efficientnetv2_b0": ("timm/tf_efficientnetv2_b0", 96),
    "convnext_atto": ("timm/convnext_atto", 64),
    "vit_tiny_patch16_224": ("timm/vit_tiny_patch16_224", 64),
    "mobilevit_xxs": ("timm/mobilevit_xxs", 64),
}
# Fewer epochs for these, which are slow on a CPU.
_HEAVY = {"timm/resnet50", "timm/vgg11_bn", "timm/densenet121"}
_INSTALLED = {"bundled", "efficientnet_lite0"}


def write_images(source: str, data_dir: str | None, classes: int, place: Path, count: int) -> None:
    """Write images of the source's first classes, as many of each as it has and evenly chosen, as a folder per class."""
    listing = open_source(source, data_dir)
    of_these = np.flatnonzero(np.asarray(listing.labels) < classes)
    for index in of_these[np.linspace(0, len(of_these) - 1, count).astype(int)].tolist():
        content = listing.images.read(index)
        image = Image.fromarray(content) if isinstance(content, np.ndarray) else to_rgb(open_image(content))
        folder = place / listing.classes[listing.labels[index]]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{index:06d}.png")


def measure(name: str, images: Path, val: float, work: Path) -> dict[str, object]:
    backbone, side = ARCHITECTURES[name]
    settings: dict[str, object] = {
        "model.pretrained": backbone in _INSTALLED,
        "data.val": val,
        "phases": [
            {
                "train": "head" if backbone in _INSTALLED else "all",
                "epochs": 3 if backbone in _HEAVY else 8,
                "batch_size": 32,
                "lr": 1e-3,
            }
        ],
    }
    run = thawlab.train(str(images), backbone=backbone, size=side, runs=work / "runs", **settings)
    found: dict[str, object] = {"size": side, "images": run.results.dataset.n_train, "test_accuracy": run.results.test.accuracy}
    for form in FORMATS:
        start = time.perf_counter()
        try:
            [done] = thawlab.export(run, [form])
            found[form] = {"bytes": done.size, **done.parity, "seconds": round(time.perf_counter() - start, 1)}
        except ThawlabError as error:
            found[form] = {"refused": str(error)}
        print(name, form, found[form], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--data-dir")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--images", type=int, default=800, help="images in all; a fifth of them are the test split")
    parser.add_argument("--val", type=float, default=0.1, help="the share of the rest on which 8 bits are judged")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="architectures, separated by commas")
    wanted = parser.parse_args()
    result = read_json(wanted.out) if wanted.out.exists() else {}
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        write_images(wanted.source, wanted.data_dir, wanted.classes, images, wanted.images)
        for name in wanted.only.split(",") if wanted.only else ARCHITECTURES:
            if name not in result.get("architectures", {}):
                measured = {**result.get("architectures", {}), name: measure(name, images, wanted.val, Path(place))}
                result = {
                    "source": Path(wanted.source).name,
                    "classes": wanted.classes,
                    "environment": environment({}, choose_device("cpu")),
                    "architectures": measured,
                }
                write_json(wanted.out, result)


if __name__ == "__main__":
    main()
