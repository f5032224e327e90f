"""The tutorial Keras program: a frozen base in the model, a head, `fit`; then unfreeze and `fit`.

Written as Keras' transfer-learning guide writes it: images in memory, resized and scaled inside the model, `Dropout` and
`Dense` on pooled features. Weights are random, which changes no time. Prints one JSON line with the seconds of each part.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
from keras import layers

parser = argparse.ArgumentParser()
parser.add_argument("data", help="npz with x_train, y_train, x_test, y_test (uint8 32 px)")
parser.add_argument("--model", default="MobileNetV2")
parser.add_argument("--size", type=int, default=96)
parser.add_argument("--head-epochs", type=int, default=0)
parser.add_argument("--all-epochs", type=int, default=0)
parser.add_argument("--stage-epochs", type=int, default=0)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--dropout", type=float, default=0.2)
parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
arguments = parser.parse_args()

keras.mixed_precision.set_global_policy(arguments.precision)
keras.utils.set_random_seed(0)
with np.load(arguments.data) as table:
    x_train, y_train, x_test, y_test = (table[name] for name in ("x_train", "y_train", "x_test", "y_test"))


def resnet20() -> keras.Model:
    """ResNet-20 as Keras' own CIFAR-10 example builds it, with flip and shift as augmentation layers."""

    def unit(x, filters, stride=1, kernel=3, activation=True):
        x = layers.Conv2D(filters, kernel, stride, padding="same", kernel_initializer="he_normal")(x)
        x = layers.BatchNormalization()(x)
        return layers.Activation("relu")(x) if activation else x

    inputs = layers.Input((32, 32, 3))
    x = layers.RandomFlip("horizontal")(inputs)
    x = layers.RandomTranslation(0.125, 0.125)(x)
    x = unit(layers.Rescaling(1 / 255)(x), 16)
    for stack, filters in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stack and not block else 1
            y = unit(unit(x, filters, stride), filters, activation=False)
            if stack and not block:
                x = unit(x, filters, stride, 1, activation=False)
            x = layers.Activation("relu")(layers.add([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", dtype="float32")(x))


def transfer() -> tuple[keras.Model, keras.Model]:
    """The guide's transfer-learning model."""
    base = getattr(keras.applications, arguments.model)(
        include_top=False, weights=None, input_shape=(arguments.size, arguments.size, 3)
    )
    inputs = keras.Input((32, 32, 3))
    x = layers.Resizing(arguments.size, arguments.size)(inputs)
    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(arguments.dropout)(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax", dtype="float32")(x)), base


def fit(model: keras.Model, epochs: int, rate: float) -> float:
    """Compile and fit; returns the seconds of `fit`."""
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    started = time.perf_counter()
    model.fit(x_train, y_train, batch_size=arguments.batch_size, epochs=epochs, verbose=0)
    return time.perf_counter() - started


seconds = {}
if arguments.model == "resnet20":
    network = resnet20()
    seconds["all"] = fit(network, arguments.all_epochs, 1e-3)
else:
    network, base = transfer()
    base.trainable = False
    if arguments.head_epochs:
        seconds["head"] = fit(network, arguments.head_epochs, 1e-3)
    if arguments.stage_epochs:
        base.trainable = True
        names = [layer.name for layer in base.layers]
        for layer in base.layers[: names.index("block_16_expand")]:
            layer.trainable = False
        seconds["stage"] = fit(network, arguments.stage_epochs, 1e-4)
    if arguments.all_epochs:
        base.trainable = True
        seconds["all"] = fit(network, arguments.all_epochs, 1e-4)
started = time.perf_counter()
accuracy = network.evaluate(x_test, y_test, verbose=0)[1]
seconds["evaluate"] = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mib": peak, "accuracy": float(accuracy), "keras": keras.__version__}))
