"""A folder of images as TensorFlow's transfer-learning tutorial learns it: MobileNetV2 frozen, then the layers from the 100th on.

The weights are timm's, whose padding is another one: seen in a mirror, in both directions, Keras' network computes the same. So
the images are mirrored once, and every kernel with them. Prints a JSON line after each epoch, with the accuracy on the validation
images.
"""

from __future__ import annotations

import json
import os
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import tensorflow as tf
from fine_tune_task import parsed
from keras import layers
from safetensors.numpy import load_file

# Where the tutorial begins to fine-tune, and what is there as often as epochs of the head.
FIRST_TRAINED = 100
# The order of the convolutions of a block, each with its BatchNorm: the first block does not expand.
EXPANDING = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
PLAIN = (("conv_dw", "bn1"), ("conv_pw", "bn2"))


def pairs(names):
    """Yield the names of timm's convolutions with those of the BatchNorm after each, from the input to the features."""
    yield "conv_stem", "bn1"
    for block in sorted({tuple(map(int, re.findall(r"\d+", name)[:2])) for name in names if name.startswith("blocks.")}):
        prefix = "blocks.{}.{}.".format(*block)
        for convolution, norm in EXPANDING if f"{prefix}conv_pwl.weight" in names else PLAIN:
            yield prefix + convolution, prefix + norm
    yield "conv_head", "bn2"


def load(base, weights):
    """Put timm's weights into Keras' MobileNetV2, every kernel mirrored."""
    convolutions = [layer for layer in base.layers if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D)]
    norms = [layer for layer in base.layers if isinstance(layer, layers.BatchNormalization)]
    for (convolution, norm), layer, scaling in zip(pairs(weights), convolutions, norms, strict=True):
        kernel = weights[f"{convolution}.weight"][:, :, ::-1, ::-1]
        depthwise = isinstance(layer, layers.DepthwiseConv2D)
        layer.set_weights([kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))])
        scaling.epsilon = 1e-5
        scaling.set_weights([weights[f"{norm}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")])


def backbone(arguments):
    """Return Keras' MobileNetV2 with timm's weights; it takes mirrored images, as timm's network scales them."""
    shape = (arguments.size, arguments.size, 3)
    base = keras.applications.MobileNetV2(input_shape=shape, include_top=False, weights=None)
    load(base, load_file(arguments.weights))
    return base


def scaled(arguments):
    """Return the layers from an image to the network's input."""
    mean, variance = (
        [factor * value**power for value in values]
        for values, factor, power in ((arguments.mean, 255.0, 1), (arguments.std, 255.0**2, 2))
    )
    return keras.Sequential([layers.Normalization(mean=mean, variance=variance), layers.Lambda(lambda x: x[:, ::-1, ::-1, :])])


def main():
    """Learn the folder."""
    arguments = parsed()
    if arguments.model != "mobilenetv2_100":
        raise SystemExit(f"Keras has no {arguments.model}: give mobilenetv2_100")
    keras.utils.set_random_seed(arguments.seed)

    def images(split, shuffle):
        return keras.utils.image_dataset_from_directory(
            arguments.folder / split, shuffle=shuffle, batch_size=32, image_size=(arguments.size, arguments.size), verbose=False
        )

    train, val = images("train", True), images("val", False)
    count = len(train.class_names)
    train, val = train.prefetch(tf.data.AUTOTUNE), val.prefetch(tf.data.AUTOTUNE)
    tell = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda _epoch, logs: print(json.dumps({"accuracy": logs["val_accuracy"]}), flush=True)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    base = backbone(arguments)
    base.trainable = False
    inputs = keras.Input((arguments.size, arguments.size, 3))
    x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])(inputs)
    x = layers.GlobalAveragePooling2D()(base(scaled(arguments)(x), training=False))
    model = keras.Model(inputs, layers.Dense(count)(layers.Dropout(0.2)(x)))
    model.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
    model.fit(train, validation_data=val, epochs=arguments.epochs, callbacks=[tell], verbose=0)
    base.trainable = True
    for layer in base.layers[:FIRST_TRAINED]:
        layer.trainable = False
    model.compile(keras.optimizers.RMSprop(1e-5), loss, metrics=["accuracy"])
    model.fit(train, validation_data=val, epochs=arguments.epochs, callbacks=[tell], verbose=0)


if __name__ == "__main__":
    main()
