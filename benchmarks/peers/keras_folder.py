"""A folder of JPEGs as Keras' guide reads it: `image_dataset_from_directory`, to look at or to predict.

Scaling belongs to the model there, so reading alone does not include it. Weights are random, which changes no time. Prints one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import tensorflow as tf
from keras import layers

parser = argparse.ArgumentParser()
parser.add_argument("folder", help="a folder with a sub-folder per class")
parser.add_argument("--task", choices=["input", "predict"], required=True)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--cache", action="store_true", help="keep the decoded images in memory, as TensorFlow's guide does")
parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
arguments = parser.parse_args()
keras.mixed_precision.set_global_policy(arguments.precision)
images = keras.utils.image_dataset_from_directory(
    arguments.folder,
    image_size=(arguments.size, arguments.size),
    batch_size=64,
    shuffle=arguments.task == "input",
    labels="inferred" if arguments.task == "input" else None,
    verbose=False,
)
if arguments.cache:
    images = images.cache()
images = images.prefetch(tf.data.AUTOTUNE)
seconds = {}
if arguments.task == "input":
    later = []
    for epoch in range(arguments.epochs):
        started = time.perf_counter()
        for batch, _ in images:
            batch[0, 0, 0, 0].numpy()
        spent = time.perf_counter() - started
        if epoch == 0:
            seconds["first"] = spent
        else:
            later.append(spent)
    seconds["later"] = sum(later) / len(later)
else:
    base = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(arguments.size, arguments.size, 3), pooling="avg"
    )
    inputs = keras.Input((arguments.size, arguments.size, 3))
    x = base(layers.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax", dtype="float32")(x))
    started = time.perf_counter()
    model.predict(images, verbose=0)
    seconds["predict"] = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mib": peak, "keras": keras.__version__}))
