"""Models of Keras against Keras itself: version 3 as the oracle here, files and outputs of version 2.15 beside the tests."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_oracle import logits, noisy, outputs, pixels, softmax

from thawlab.errors import ThawlabError, UsageError
from thawlab.models.keras.imported import read_backbone, read_classifier

pytest.importorskip("h5py")
OLD = Path(__file__).parents[2] / "fixtures" / "keras2"
SIDE = 16


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


def twice(model: Any, x: Any) -> Any:
    return model(model(x))


Part = Callable[[Any, Any], Any]
PARTS: dict[str, Part] = {
    "same strided": lambda k, x: k.layers.Conv2D(5, (5, 2), strides=(2, 3), padding="same", activation="swish")(x),
    "even kernel": lambda k, x: k.layers.Conv2D(4, 4, padding="same", use_bias=False)(x),
    "dilated": lambda k, x: k.layers.Conv2D(4, 3, dilation_rate=2, padding="same", activation="gelu")(x),
    "grouped": lambda k, x: k.layers.Conv2D(6, 3, groups=3, activation="hard_sigmoid")(x),
    "depthwise": lambda k, x: k.layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same", activation="elu")(x),
    "separable": lambda k, x: k.layers.SeparableConv2D(5, 3, padding="same", depth_multiplier=2, activation="relu")(x),
    "maximum same": lambda k, x: k.layers.MaxPooling2D((2, 3), 2, padding="same")(x / 255 - 0.9),
    "maximum": lambda k, x: k.layers.MaxPooling2D(3)(x),
    "margins": lambda k, x: k.layers.Cropping2D(((1, 0), (2, 1)))(k.layers.ZeroPadding2D(((2, 0), (1, 3)))(x)),
    "norm bare": lambda k, x: k.layers.BatchNormalization(scale=False, center=False, epsilon=1e-5)(x),
    "relu": lambda k, x: k.layers.ReLU(max_value=3.0, negative_slope=0.1, threshold=0.5)(x / 50 - 2),
    "leaky": lambda k, x: k.layers.LeakyReLU(negative_slope=0.2)(x - 100),
    "flatten": lambda k, x: k.layers.Dense(4)(k.layers.Flatten()(k.layers.Conv2D(3, 5)(x))),
    "permuted": lambda k, x: k.layers.Permute((3, 1, 2))(k.layers.Conv2D(4, (3, 5))(x)),
    "enlarged": lambda k, x: k.layers.UpSampling2D((3, 2))(x),
    "enlarged smoothly": lambda k, x: k.layers.UpSampling2D(3, interpolation="bilinear")(x),
    "resized": lambda k, x: k.layers.Resizing(9, 21)(x),
    "layer norm": lambda k, x: k.layers.LayerNormalization(epsilon=1e-6)(x),
    "layer norm of rows": lambda k, x: k.layers.LayerNormalization(center=False)(k.layers.GlobalAveragePooling2D()(x)),
    "learnt slopes": lambda k, x: k.layers.PReLU(alpha_initializer="normal")(x - 99),
    "shared slopes": lambda k, x: k.layers.PReLU(alpha_initializer="normal", shared_axes=[1, 2])(x - 99),
    "reshape": lambda k, x: k.layers.Conv2D(2, 1)(k.layers.Reshape((8, 8, 12))(x)),
    "dense on maps": lambda k, x: k.layers.Dense(7, activation="tanh")(x),
    "rescaled": lambda k, x: k.layers.Rescaling(scale=[0.1, 0.2, 0.3], offset=-1.0)(x),
    "rescaled by arrays": lambda k, x: k.layers.Rescaling(scale=np.array([0.1, 0.2, 0.3]), offset=np.array([1.0, 2.0, 3.0]))(x),
    "a model twice": lambda k, x: twice(k.Sequential([k.layers.Conv2D(3, 3, padding="same"), k.layers.ReLU()]), x / 9),
    "normalized": lambda k, x: k.layers.Normalization(axis=-1, mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 0.0])(x),
    "expressions": lambda _, x: 2.0 * (1.5 - x / 127.5) + x,
    "caffe": lambda k, x: k.applications.resnet50.preprocess_input(x),
    "torch": lambda k, x: k.applications.imagenet_utils.preprocess_input(x, mode="torch"),
    "products": lambda k, x: k.layers.Multiply()([x, k.layers.Conv2D(3, 1, activation="sigmoid")(x)]),
    "extremes": lambda k, x: k.layers.Concatenate()([k.layers.Maximum()([x, x * 0.5 + 9]), k.layers.Average()([x, x, x * 2.0])]),
    "augmented": lambda k, x: k.layers.RandomFlip()(k.layers.RandomRotation(0.1)(k.layers.GaussianNoise(0.1)(x))),
    "dropped": lambda k, x: k.layers.SpatialDropout2D(0.2)(k.layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(x)),
    "largest": lambda k, x: k.layers.GlobalMaxPooling2D(keepdims=True)(x),
    "softmax": lambda k, x: k.layers.Softmax()(k.layers.GlobalAveragePooling2D()(x) / 30),
}


@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize("part", PARTS)
def test_a_layer_computes_what_keras_computes(part: str, form: str, keras: Any, tmp_path: Path) -> None:
    start = keras.Input((SIDE, SIDE, 3))
    model = noisy(keras.Model(start, PARTS[part](keras, start)))
    model.save(tmp_path / f"model.{form}")
    wanted = np.asarray(model(pixels(), training=False).detach())
    np.testing.assert_allclose(outputs(tmp_path / f"model.{form}", pixels()), wanted, atol=1e-5 * np.abs(wanted).max())


def shared(keras: Any) -> Any:
    """A model with a model inside, a layer that is called twice, and a chain within."""
    layers = keras.layers
    start = keras.Input((SIDE, SIDE, 3))
    twice = layers.Conv2D(3, 3, padding="same", activation="relu")
    inner = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()], name="inner")
    x = inner(twice(twice(start / 255.0)))
    x = layers.BatchNormalization()(layers.Dense(6, activation="relu")(layers.GlobalAveragePooling2D()(x)))
    return noisy(keras.Model(start, layers.Dense(4, activation="softmax")(layers.Dropout(0.3)(x))))


@pytest.mark.parametrize("form", ["keras", "h5"])
def test_a_classifier_is_cut_before_its_softmax(form: str, keras: Any, tmp_path: Path) -> None:
    model, path = shared(keras), tmp_path / f"model.{form}"
    model.save(path)
    network, head = read_classifier(path)
    assert (network.scaling, network.size) == ("raw", SIDE)
    wanted = np.asarray(model(pixels(), training=False).detach())
    np.testing.assert_allclose(softmax(logits(network, head, pixels())), wanted, atol=1e-6)


def test_one_file_twice_is_the_same_network(keras: Any, tmp_path: Path) -> None:
    shared(keras).save(tmp_path / "model.keras")
    first, second = (read_classifier(tmp_path / "model.keras")[0] for _ in range(2))
    assert json.dumps(first.arguments) == json.dumps(second.arguments)
    assert all(torch.equal(first.state[key], second.state[key]) for key in first.state)


@pytest.mark.parametrize(("name", "binary"), [("nested", False), ("chain", True)])
def test_files_of_keras_2_say_what_keras_2_said(name: str, binary: bool) -> None:
    with np.load(OLD / "expected.npz") as expected:
        images, wanted = expected["images"], expected[name]
    network, head = read_classifier(OLD / f"{name}.h5")
    assert network.scaling == "raw"
    found = softmax(logits(network, head, images))
    np.testing.assert_allclose(found[:, 1:] if binary else found, wanted, atol=1e-6)


def test_the_backbone_of_a_classifier_is_what_lies_before_its_head() -> None:
    with np.load(OLD / "expected.npz") as expected:
        images = expected["images"]
    network = read_backbone(OLD / "nested.h5")
    assert network.arguments["width"] == 8
    assert logits(network, None, images).shape == (4, 8)


def test_layers_that_would_run_code_are_refused_by_name(keras: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'lambda' is of the class Lambda"):
        read_classifier(OLD / "lambda.h5", scaling="unit")

    @keras.saving.register_keras_serializable("mine")
    class Doubled(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return 2 * x

    model = keras.Sequential([keras.Input((8, 8, 3)), Doubled(name="twice"), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.save(tmp_path / "own.keras")
    with pytest.raises(UsageError, match=r"'twice' is of the class mine>Doubled"):
        read_classifier(tmp_path / "own.keras", scaling="unit")


def test_a_scaling_that_no_one_says_is_asked_for(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(2)])
    model.save(tmp_path / "plain.keras")
    with pytest.raises(UsageError, match=r"does not say how its inputs are scaled"):
        read_classifier(tmp_path / "plain.keras")
    network, head = read_classifier(tmp_path / "plain.keras", scaling="symmetric")
    wanted = np.asarray(model(pixels(2, 8) / 127.5 - 1, training=False).detach())
    np.testing.assert_allclose(logits(network, head, pixels(2, 8)), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda k: k.Sequential([k.Input((8, 8, 1)), k.layers.Flatten(), k.layers.Dense(2)]), "RGB"),
        (lambda k: k.Sequential([k.Input((8, 6, 3)), k.layers.Flatten(), k.layers.Dense(2)]), "square"),
        (lambda k: k.Sequential([k.Input((8, 8, 3)), k.layers.Flatten(), k.layers.Dense(3, "sigmoid")]), "3 sigmoid outputs"),
        (lambda k: k.Sequential([k.Input((8, 8, 3)), k.layers.Flatten(), k.layers.Dense(3, "relu")]), "last activation is relu"),
        (lambda k: k.Sequential([k.Input((8, 8, 3)), k.layers.Conv2D(2, 3)]), "not that of a dense layer"),
        (lambda k: k.Sequential([k.Input((8, 8, 3)), k.layers.Conv2DTranspose(2, 3)]), "Conv2DTr"),
        (lambda k: k.Sequential([k.Input((5000, 5000, 3)), k.layers.GlobalMaxPooling2D(), k.layers.Dense(2)]), "up to 4,096"),
        (lambda k: k.Sequential([k.Input((None, None, 3)), k.layers.GlobalMaxPooling2D(), k.layers.Dense(2)]), "--size"),
    ],
)
def test_what_is_not_read_is_said(make: Callable[[Any], Any], said: str, keras: Any, tmp_path: Path) -> None:
    make(keras).save(tmp_path / "other.keras")
    with pytest.raises(UsageError, match=said):
        read_classifier(tmp_path / "other.keras", scaling="unit")


def test_damage_is_said(tmp_path: Path) -> None:
    content = (OLD / "nested.h5").read_bytes()
    for name, bytes_, kind, said in (
        ("cut.h5", content[:9000], ThawlabError, "is damaged"),
        ("none.h5", b"", UsageError, "is no file of Keras"),
        ("text.keras", b"PK\x03\x04 and no more", ThawlabError, "is damaged"),
    ):
        (tmp_path / name).write_bytes(bytes_)
        with pytest.raises(kind, match=said):
            read_classifier(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UsageError, match="no model of Keras"):
        read_classifier(tmp_path / "other.keras")
    with pytest.raises(UsageError, match="no such file"):
        read_classifier(tmp_path / "absent.keras")


@pytest.mark.parametrize("changed", ["width", "missing", "config"])
def test_weights_that_do_not_fit_are_said(changed: str, keras: Any, tmp_path: Path) -> None:
    import h5py

    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(2)])
    path = tmp_path / "model.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        group = file["model_weights"][model.layers[0].name]
        if changed == "width":
            name = group.attrs["weight_names"][0]
            del group[name]
            group.create_dataset(name, data=np.zeros((3, 3, 3, 9), np.float32))
        elif changed == "missing":
            del file["model_weights"][model.layers[0].name]
        else:
            file.attrs["model_config"] = file.attrs["model_config"].replace('"filters"', '"filtres"')
    said = {"width": "has the shape", "missing": "is damaged|holds no weights", "config": "description of the model is damaged"}
    with pytest.raises(ThawlabError, match=said[changed]):
        read_classifier(path, scaling="unit")


def test_a_file_cannot_claim_more_than_memory_holds(keras: Any, tmp_path: Path) -> None:
    import h5py

    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2, use_bias=False)])
    path = tmp_path / "model.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        group = file["model_weights"][model.layers[-1].name]
        name = group.attrs["weight_names"][0]
        del group[name]
        group.create_dataset(name, shape=(192, 10**9), dtype=np.float32, chunks=(1, 1024))  # takes no room in the file
        file.attrs["model_config"] = file.attrs["model_config"].replace('"units": 2', '"units": 1000000000')
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ThawlabError, match="would take"):
        read_classifier(path, scaling="unit")


@pytest.mark.parametrize("linked", ["array", "layer", "all"])
def test_what_lies_in_another_file_is_refused(linked: str, keras: Any, tmp_path: Path) -> None:
    import h5py

    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2)])
    path, other = tmp_path / "model.h5", tmp_path / "other.h5"
    model.save(path)
    with h5py.File(other, "w") as file:
        file.create_dataset("kernel", data=np.zeros((192, 2), np.float32))
    with h5py.File(path, "r+") as file:
        layer = model.layers[-1].name
        group = file["model_weights"][layer]
        name = group.attrs["weight_names"][0]
        place, key = {"array": (group, name), "layer": (file["model_weights"], layer), "all": (file, "model_weights")}[linked]
        del place[key]
        place[key] = h5py.ExternalLink(str(other), "kernel")
    with pytest.raises(ThawlabError, match="lies in another file"):
        read_classifier(path, scaling="unit")
