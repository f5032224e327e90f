"""Write a graph of Keras' layers and their weights as a `.keras` file, without Keras."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from thawlab.models.keras.file import snake

_VERSION = "3.9.0"  # whose form of the description is written; later versions read it
_LAYERS_GROUP = "layers"


@final
class Description:
    """A functional model of Keras that grows layer by layer, each called once.

    Args:
        shape: of the input: height, width and channels.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._layers: dict[str, dict[str, Any]] = {}
        self._given: dict[str, tuple[str, ...]] = {}
        self._weights: dict[str, Sequence[npt.NDArray[np.float32]]] = {}
        self.input = "image"
        entry = _entry("InputLayer", self.input, {"batch_shape": [None, *shape], "dtype": "float32"})
        self._layers[self.input], self._given[self.input] = {**entry, "inbound_nodes": []}, ()

    def add(
        self,
        kind: str,
        name: str,
        given: Sequence[str],
        settings: Mapping[str, Any],
        weights: Sequence[npt.NDArray[np.float32]] = (),
    ) -> str:
        """Add a layer.

        Args:
            kind: Keras' class.
            name: wanted; a number is added where it is taken.
            given: names of the layers whose outputs it takes.
            settings: of the class.
            weights: in Keras' order and layout.

        Returns:
            The layer's name.
        """
        base, number = name, 1
        while name in self._layers:
            name, number = f"{base}_{number}", number + 1
        tensors = [_tensor(part) for part in given]
        node = {"args": [tensors if len(tensors) > 1 else tensors[0]], "kwargs": {}}
        self._layers[name] = {**_entry(kind, name, {**settings, "trainable": True}), "inbound_nodes": [node]}
        self._given[name], self._weights[name] = tuple(given), weights
        return name

    def save(self, output: str) -> bytes:
        """Return the content of a `.keras` file of the model that ends with a layer."""
        import h5py

        order = self._order(output)
        config = {
            "name": "thawlab",
            "trainable": True,
            "layers": [self._layers[name] for name in order],
            "input_layers": [self.input, 0, 0],
            "output_layers": [output, 0, 0],
        }
        model = {
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "config": config,
            "registered_name": "Functional",
        }
        file, counts = io.BytesIO(), dict[str, int]()
        with h5py.File(file, "w") as weights:
            for name in order:
                kind = snake(self._layers[name]["class_name"])
                group = f"{_LAYERS_GROUP}/{kind}_{counts[kind]}" if kind in counts else f"{_LAYERS_GROUP}/{kind}"
                counts[kind] = counts.get(kind, 0) + 1
                held = weights.create_group(f"{group}/vars")
                held.attrs["name"] = name
                for number, array in enumerate(self._weights.get(name, ())):
                    held.create_dataset(str(number), data=np.ascontiguousarray(array, dtype=np.float32))
            weights.create_group("vars")
        result = io.BytesIO()
        with zipfile.ZipFile(result, "w") as archive:
            for part, content in (
                ("metadata.json", json.dumps({"keras_version": _VERSION, "date_saved": "1980-01-01@00:00:00"})),
                ("config.json", json.dumps(model)),
                ("model.weights.h5", file.getvalue()),
            ):
                archive.writestr(zipfile.ZipInfo(part), content)  # with a fixed date: equal models are equal files
        return result.getvalue()

    def _order(self, output: str) -> list[str]:
        """Return the layers in the order in which Keras numbers their weights: by depth, then as they are met from the output."""
        met: dict[str, int] = {}
        waiting = [output]
        while waiting:
            name = waiting.pop()
            if name not in met:
                met[name] = len(met)
                waiting += reversed(self._given[name])
        depths = dict.fromkeys(met, 0)
        for name in reversed(self._layers):  # each follows what it takes
            for part in self._given[name] if name in met else ():
                depths[part] = max(depths[part], depths[name] + 1)
        return sorted(met, key=lambda name: (-depths[name], met[name]))


def _entry(kind: str, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    config = {"name": name, **settings}
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None, "name": name}


def _tensor(name: str) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"shape": [None], "dtype": "float32", "keras_history": [name, 0, 0]}}
