"""A `.keras` file: pixels at working size, from 0 to 255, to calibrated probabilities, in layers that Keras knows.

The network is taken apart by `torch.export`; each operation becomes a layer. In Keras images have their channels last.
"""

import copy
from pathlib import Path

import numpy as np
import torch

from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import Pixels
from thawlab.deploy.export.formats import Exporter, Material, Outputs, Session, exporters, on_fitted
from thawlab.deploy.export.keras_layers import emit
from thawlab.files import write_atomically
from thawlab.models.classifier import Classifier
from thawlab.models.keras.file import read_keras
from thawlab.models.keras.graph import KerasNetwork, state_of
from thawlab.models.keras.translate import translate
from thawlab.models.keras.writing import Description

_FILE = "model.keras"


def _write(material: Material, folder: Path) -> None:
    card = material.model.card
    look = card.preprocessing
    description = Description((look.size, look.size, 3))
    std, mean = np.array(look.std), np.array(look.mean)
    scaling = {"scale": (1 / (255 * std)).tolist(), "offset": (-mean / std).tolist()}
    first = description.add("Rescaling", "normalize", [description.input], scaling)
    program = torch.export.export(
        _calibrated(material.model.classifier, card.temperature), (torch.zeros(2, 3, look.size, look.size),)
    )
    logits = emit(description, program, first)
    output = description.add("Activation", "probabilities", [logits], {"activation": "softmax"})
    content = description.save(output)
    write_atomically(folder / _FILE, lambda file: file.write(content))


@torch.no_grad()
def _calibrated(classifier: Classifier, temperature: float) -> Classifier:
    """Return a copy whose last layer gives logits divided by the temperature."""
    result = copy.deepcopy(classifier).eval().to(memory_format=torch.contiguous_format)
    *_, last = result.head.children()
    for parameter in last.parameters():
        parameter.div_(temperature)
    return result


def _open(folder: Path) -> Session:
    model = translate(read_keras(folder / _FILE))
    network = KerasNetwork(model.nodes, model.shapes[model.nodes[-1].name][1])
    network.load_state_dict(state_of(model.nodes, model.arrays))
    network.eval()

    def answer(_look: Preprocessing, fitted: Pixels) -> Outputs:
        return {"probabilities": network(torch.from_numpy(fitted).permute(0, 3, 1, 2).float()).numpy()}

    return on_fitted(folder, answer)


_USE = """```python
import keras

model = keras.saving.load_model("model.keras", compile=False)
```

It takes pixels from 0 to 255, n × size × size × 3, at the size that `thawlab.json` names, and gives calibrated probabilities. \
`predict` scales images as Pillow does; Keras' own resizing differs a little."""
exporters.register("keras")(Exporter(_write, _open, library="keras", use=_USE, extra="keras", modules=("h5py",)))
