"""Files that Keras wrote, read without Keras: what the model is, as JSON, and its weights by the names of its layers.

Three forms exist: `.keras` (a zip of `config.json` and `model.weights.h5`, Keras 3), `.h5` of a whole model (Keras 2 and 3) and
`.h5` of weights alone. Nothing in them is executed.
"""

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.errors import ThawlabError, UsageError, first_line
from thawlab.registry import optional

Array = npt.NDArray[np.float32]
# Gives a layer's weights: its path of names from the outermost model on, and the expected shapes by the variables' names.
Weights = Callable[[Sequence[str], Mapping[str, tuple[int, ...]]], list[Array]]
# No model here has more; a file that says so wants to fill the memory.
_LARGEST = 4 << 30


class KerasFile(NamedTuple):
    """What a file holds.

    Attributes:
        path: of the file.
        config: the model as `get_config` gives it; None in a file of weights alone.
        version: of Keras, "" where it is not said.
        kernels: the shape of the first variable of each layer that has any, by the layer's name; of a model's own layers, not
            of the models within it.
        weights: gives the weights of a layer.
    """

    path: Path
    config: Mapping[str, Any] | None
    version: str
    kernels: Mapping[str, tuple[int, ...]]
    weights: Weights


def read_keras(path: Path) -> KerasFile:
    """Open a file of Keras.

    Raises:
        UsageError: if there is no such file, it is of another kind, or the package that reads it is missing.
        ThawlabError: if it is damaged.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if start.startswith(b"PK"):
        return _from_zip(path)
    if start == b"\x89HDF\r\n\x1a\n":
        return _from_hdf5(path)
    raise UsageError(f"{path}: is no file of Keras (.keras, .h5)")


def _from_zip(path: Path) -> KerasFile:
    try:
        with zipfile.ZipFile(path) as archive:
            if (total := sum(info.file_size for info in archive.infolist())) > _LARGEST:
                raise ThawlabError(f"{path}: unpacks to {total:,} bytes; refused")
            config = json.loads(archive.read("config.json"))
            version = json.loads(archive.read("metadata.json")).get("keras_version", "")
            weights = archive.read("model.weights.h5")
    except KeyError as error:
        raise UsageError(f"{path}: is a zip archive, and no model of Keras: {first_line(error)}") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        OSError,
        EOFError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise ThawlabError(f"{path}: is damaged: {first_line(error)}") from None
    file = _opened(path, io.BytesIO(weights))
    return KerasFile(path, _described(path, config), str(version), _listed(path, file), _by_class_names(path, file, config))


def _from_hdf5(path: Path) -> KerasFile:
    file = _opened(path, path)
    version = _text(file.attrs.get("keras_version", ""))
    if _inner_group(path, file) is not None:  # weights alone, as Keras 3 writes them
        return KerasFile(path, None, version or "3", _listed(path, file), _by_class_names(path, file, None))
    try:
        config = json.loads(_text(file.attrs["model_config"])) if "model_config" in file.attrs else None
    except (ValueError, OSError, RecursionError) as error:
        raise ThawlabError(f"{path}: the description of the model is damaged: {first_line(error)}") from None
    group = _child(path, file, "model_weights") if "model_weights" in file else file
    version = version or _text(group.attrs.get("keras_version", ""))
    layers = _names(group, "layer_names")
    if not layers:
        raise UsageError(f"{path}: is an HDF5 file, and no model of Keras")
    kernels = {}
    for layer in layers:
        held = _child(path, group, layer) if layer in group else None
        names = [] if held is None else _names(held, "weight_names")
        if names:
            kernels[layer] = tuple(_child(path, held, names[0]).shape)
    return KerasFile(path, None if config is None else _described(path, config), version, kernels, _by_layer_names(path, group))


def _described(path: Path, config: Any) -> Mapping[str, Any]:
    if not (isinstance(config, dict) and isinstance(config.get("class_name"), str) and "config" in config):
        raise UsageError(f"{path}: describes no model of Keras")
    return config


def _opened(path: Path, content: Any) -> Any:
    h5py = optional("h5py", "keras", f"{path}: to read it")
    try:
        return h5py.File(content, "r")
    except OSError as error:
        raise ThawlabError(f"{path}: is damaged: {first_line(error)}") from None


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _names(group: Any, key: str) -> list[str]:
    """Return a list of names among a group's attributes; long ones are cut into several, which are numbered."""
    parts = [group.attrs[key]] if key in group.attrs else []
    while f"{key}{len(parts)}" in group.attrs and key not in group.attrs:
        parts.append(group.attrs[f"{key}{len(parts)}"])
    return [_text(name) for part in parts for name in part]


def _child(path: Path, group: Any, name: str) -> Any:
    """Return a member of a group.

    Raises:
        ThawlabError: if there is none, or it lies in another file.
    """
    import h5py

    try:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            raise ThawlabError(f"{path}: {name} lies in another file; refused")
        return group[name]
    except (KeyError, OSError, RuntimeError) as error:
        raise ThawlabError(f"{path}: is damaged: {first_line(error)}") from None


def _read(path: Path, group: Any, name: str, shape: tuple[int, ...], place: str) -> Array:
    """Read an array, after checking that it is as large as the model's description says, and lies in the file itself."""
    dataset = _child(path, group, name)
    held = tuple(getattr(dataset, "shape", ()))
    if held != shape:
        raise ThawlabError(f"{path}: {place} has the shape {list(held)}, and the model needs {list(shape)}")
    if math.prod(shape) * 4 > _LARGEST:
        raise ThawlabError(f"{path}: {place} would take {math.prod(shape) * 4:,} bytes; refused")
    if dataset.external or dataset.is_virtual:
        raise ThawlabError(f"{path}: {place} lies in another file; refused")
    try:
        return np.asarray(dataset[()], dtype=np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise ThawlabError(f"{path}: {place} is damaged: {first_line(error)}") from None


def _by_layer_names(path: Path, group: Any) -> Weights:
    """Return the weights of an older `.h5`: a group per layer of the outermost model, with arrays named `layer/variable:0`."""

    def weights(layer: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> list[Array]:
        place = "/".join(layer)
        if layer[0] not in group:
            raise ThawlabError(f"{path}: holds no weights of the layer '{place}'")
        outer = _child(path, group, layer[0])
        found = {}
        for name in _names(outer, "weight_names"):
            *above, variable = name.split("/")
            # A layer of the outermost model has its group to itself, whatever its arrays are called.
            if len(layer) == 1 or (above and above[-1] == layer[-1]):
                found[variable.partition(":")[0]] = name
        result = []
        for variable, shape in shapes.items():
            called = [found[known] for known in (variable, *_OLDER.get(variable, ())) if known in found]
            if not called:
                raise ThawlabError(f"{path}: the layer '{place}' lacks its {variable}")
            result.append(_read(path, outer, called[0], shape, f"{place}: {variable}"))
        return result

    return weights


# What Keras 2 called variables that have another name since.
_OLDER = {"kernel": ("depthwise_kernel",)}


def _by_class_names(path: Path, file: Any, config: Mapping[str, Any] | None) -> Weights:
    """Return the weights of Keras 3: groups named by the layers' classes, numbered; the layer's own name is an attribute."""

    def weights(layer: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> list[Array]:
        place, model = file, config
        for name in layer:
            place, model = _inner(path, place, model, name)
        held = _child(path, place, "vars") if "vars" in place else None
        if held is None or len(held) < len(shapes):
            raise ThawlabError(f"{path}: the layer '{'/'.join(layer)}' lacks some of its weights")
        return [_read(path, held, str(k), shape, f"{'/'.join(layer)}: {name}") for k, (name, shape) in enumerate(shapes.items())]

    return weights


def _inner_group(path: Path, place: Any) -> Any:
    """Return the group of a model's layers in a file of Keras 3; None where there is none."""
    return next((_child(path, place, key) for key in ("layers", "_layer_checkpoint_dependencies") if key in place), None)


def _inner(path: Path, place: Any, model: Mapping[str, Any] | None, name: str) -> tuple[Any, Mapping[str, Any] | None]:
    """Return the group of a layer within that of a model, and what the layer is."""
    groups = _inner_group(path, place)
    layers = model["config"]["layers"] if model is not None else ()
    own = next((layer for layer in layers if layer["config"].get("name") == name), None)
    for key, said in _named(path, groups) if groups is not None else ():
        if said == name:
            return _child(path, groups, key), own
    counts: dict[str, int] = {}
    for layer in layers:  # files without that attribute: the classes are counted in the model's order
        kind = snake(layer["class_name"])
        key = f"{kind}_{counts[kind]}" if counts.get(kind) else kind
        counts[kind] = counts.get(kind, 0) + 1
        if layer["config"].get("name") == name and groups is not None and key in groups:
            return _child(path, groups, key), own
    raise ThawlabError(f"{path}: holds no weights of the layer '{name}'")


def _named(path: Path, groups: Any) -> Iterator[tuple[str, str]]:
    for key in groups:
        group = _child(path, groups, key)
        said = group.get("vars") if hasattr(group, "get") else None
        if said is not None and "name" in said.attrs:
            yield key, _text(said.attrs["name"])


def _listed(path: Path, file: Any) -> dict[str, tuple[int, ...]]:
    groups = _inner_group(path, file)
    named = [(key, name) for key, name in _named(path, groups) if "0" in groups[key]["vars"]] if groups is not None else []
    return {name: tuple(_child(path, groups[key]["vars"], "0").shape) for key, name in named}


def snake(name: str) -> str:
    """Return a class's name as Keras writes it into paths: "Conv2D" is conv2d, "BatchNormalization" batch_normalization."""
    text = re.sub(r"\W+", "", name)
    text = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", text)
    return re.sub("([a-z])([A-Z])", r"\1_\2", text).lower()
