"""Compare networks of keras.applications, in each form that Keras saves, with what is read of them here.

    KERAS_BACKEND=torch python tools/keras_parity.py --out results/keras-parity.json

Random weights, with BatchNorm statistics that matter; Keras computes the logits that ours must equal. Then a classifier that a
real Keras program trained in two phases, on pictures that it did not see, and an export of our own that Keras loads.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch

import thawlab
from thawlab.deploy.imports import import_keras
from thawlab.models.saved import load_model

NETWORKS = {
    "ResNet50": keras.applications.resnet50,
    "EfficientNetV2B0": keras.applications.efficientnet_v2,
    "EfficientNetB0": keras.applications.efficientnet,
    "MobileNetV2": keras.applications.mobilenet_v2,
    "VGG16": keras.applications.vgg16,
}
SIDE, CLASSES, IMAGES, TOLERANCE = 64, 10, 16, 1e-4
layers = keras.layers


def main() -> None:
    """Compare all, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for row in [*_applications(Path(place)), *_trained(Path(place))]:
            print(json.dumps(row), flush=True)
            rows.append(row)
    versions = {"keras": keras.__version__, "torch": torch.__version__, "python": platform.python_version()}
    content = {"versions": versions, "tolerance": TOLERANCE, "passed": all(row["passed"] for row in rows), "rows": rows}
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _applications(place: Path) -> Iterator[dict[str, Any]]:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    for name, module in NETWORKS.items():
        shape = {"input_shape": (SIDE, SIDE, 3), "weights": None}
        whole = _noisy(getattr(keras.applications, name)(classes=CLASSES, classifier_activation=None, **shape))
        wanted = _outputs(whole, module.preprocess_input(images.astype(np.float32)))
        for form in ("weights.h5", "keras", "h5"):
            file = place / f"{name}.{form}"
            whole.save_weights(file) if form == "weights.h5" else whole.save(file)
            yield _row(f"{name}, its own classifier", form, _logits(file, place, images), wanted)
        base = _noisy(getattr(keras.applications, name)(include_top=False, **shape))
        start = keras.Input((SIDE, SIDE, 3))
        x = layers.GlobalAveragePooling2D()(base(module.preprocess_input(start), training=False))
        x = layers.Dropout(0.3)(layers.BatchNormalization()(layers.Dense(64, activation="relu")(x)))
        headed = keras.Model(start, layers.Dense(CLASSES)(x))
        wanted = _outputs(headed, images.astype(np.float32))
        for form in ("keras", "h5"):
            file = place / f"{name}-headed.{form}"
            headed.save(file)
            yield _row(
                f"{name} within a model, preprocess_input inside, a head of its own", form, _logits(file, place, images), wanted
            )


def _trained(place: Path) -> Iterator[dict[str, Any]]:
    """Train on digits in two phases with Keras, import, compare on 256 pictures; export, and compare with Keras again."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.kron(digits.images / 16 * 255, np.ones((1, 4, 4)))[..., None].repeat(3, axis=-1).astype(np.uint8)
    train, test = images[256:], images[:256]
    base = keras.Sequential([keras.Input((32, 32, 3))], name="base")
    for width in (16, 32, 64):
        for _ in range(2):
            base.add(layers.Conv2D(width, 3, padding="same", use_bias=False))
            base.add(layers.BatchNormalization(momentum=0.9))
            base.add(layers.ReLU())
        base.add(layers.MaxPooling2D(3, 2, padding="same"))
    start = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(base(layers.Rescaling(1 / 127.5, offset=-1)(start)))
    model = keras.Model(start, layers.Dense(10, activation="softmax")(layers.Dropout(0.2)(x)))
    for trainable, epochs in ((False, 2), (True, 8)):
        base.trainable = trainable
        model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
        model.fit(train.astype(np.float32), digits.target[256:], batch_size=64, epochs=epochs, verbose=0)
    wanted = _outputs(model, test.astype(np.float32))
    for form in ("keras", "h5"):
        model.save(place / f"digits.{form}")
        run = import_keras(place / f"digits.{form}", place / "runs")
        found = _softmax(_logits(place / f"digits.{form}", place, test))
        accuracy = float((wanted.argmax(axis=1) == digits.target[:256]).mean())
        said = "six convolutions, trained by Keras in two phases, probabilities of 256 test pictures"
        yield _row(said, form, found, wanted) | {"accuracy": accuracy}
    [exported] = thawlab.export(run.path, ["keras"], source="digits")
    again = keras.saving.load_model(exported.folder / "model.keras", compile=False)
    yield _row("the same, imported, exported, loaded by Keras", "keras", _outputs(again, test.astype(np.float32)), wanted)


def _noisy(model: Any) -> Any:
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.path.endswith("moving_mean"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


def _outputs(model: Any, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(images, training=False).cpu())


def _logits(file: Path, place: Path, images: np.ndarray) -> np.ndarray:
    saved = load_model(import_keras(file, place / "runs", size=images.shape[1]).model)
    with torch.inference_mode():
        return saved.classifier(saved.card.preprocessing.inputs(torch.from_numpy(images))).numpy()


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(dim=1).numpy()


def _row(model: str, form: str, found: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    largest, scale = float(np.abs(found - wanted).max()), float(np.abs(wanted).max())
    same = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
    passed = largest <= TOLERANCE * max(scale, 1.0) and same == 1.0
    return {
        "model": model,
        "form": form,
        "n": len(wanted),
        "largest": largest,
        "scale": scale,
        "same_class": same,
        "passed": passed,
    }


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s")
