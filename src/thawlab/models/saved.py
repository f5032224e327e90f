"""The model folder of a run: weights, and a description from which the classifier is built again without a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import save

from thawlab.data.preprocessing import Preprocessing
from thawlab.errors import ThawlabError, first_line
from thawlab.files import sha256_of, write_atomically, write_json
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import Classifier, build_backbone, feature_width, make_head, read_tensors
from thawlab.models.small import other_revision
from thawlab.recipe import Model
from thawlab.results import read_value
from thawlab.values import Value


class ModelCard(Value, extra="forbid"):
    """The content of `model.json`.

    Attributes:
        architecture: timm's or our own name of the backbone.
        arguments: of the architecture's factory.
        backbone: the name in the recipe.
        revision: of one of our own networks; None for the first one, and for timm's.
        head: hidden widths.
        dropout: rates of the head.
        classes: class names, in the order of the logits.
        preprocessing: from an image to the input.
        temperature: to divide the logits by for calibrated probabilities.
        set_threshold: the least calibrated probability of a class in a prediction set; None where nothing was held out.
        novelty_limit: images farther than this from `known.safetensors` are OOD; None likewise.
    """

    schema_version: int = Field(default=1, alias="schema")
    architecture: str
    arguments: dict[str, Any]
    fixed_input_size: bool
    backbone: str
    revision: int | None = None
    head: tuple[int, ...]
    dropout: tuple[float, ...]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    set_threshold: float | None = None
    novelty_limit: float | None = None


def spec_of(card: ModelCard) -> BackboneSpec:
    """Return the backbone of a saved classifier, to be built at the size of its preprocessing."""
    config = {"fixed_input_size": card.fixed_input_size, "input_size": (3, 0, 0)}
    return BackboneSpec(card.backbone, card.architecture, "saved", card.arguments, config)


class Reference(NamedTuple):
    """Features of training images that new images are compared with, and how far from them images of the same kind lie.

    Attributes:
        features: float16, n × width, of unit length.
        limit: the distance within which 99 % of held-out images lie.
    """

    features: npt.NDArray[np.float16]
    limit: float


class SavedModel(NamedTuple):
    """A classifier as it was saved, ready for inference on the CPU."""

    classifier: Classifier
    card: ModelCard
    reference: Reference | None


def model_card(spec: BackboneSpec, model: Model, **rest: Any) -> ModelCard:
    """Return the description of a classifier; `rest` is what neither its backbone nor its recipe tells."""
    fixed = bool(spec.config.get("fixed_input_size", False))
    own = {"architecture": spec.architecture, "arguments": spec.arguments, "backbone": spec.name, "revision": spec.revision}
    return ModelCard(fixed_input_size=fixed, head=model.head, dropout=model.dropout, **own, **rest)


def save_model(folder: Path, classifier: Classifier, card: ModelCard, reference: Reference | None) -> None:
    """Write `model.safetensors`, `model.json` and, where images were held out, `known.safetensors`.

    The bytes depend on the values alone.
    """
    if reference is not None:
        features = save_arrays({"features": reference.features})
        write_atomically(folder / "known.safetensors", lambda file: file.write(features))
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()})
    write_atomically(folder / "model.safetensors", lambda file: file.write(content))
    write_json(folder / "model.json", card.model_dump(mode="json", by_alias=True))


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a saved model's weights, in hexadecimal: what says which classifier it is."""
    return sha256_of(folder / "model.safetensors")


def load_model(folder: Path) -> SavedModel:
    """Build a saved classifier again, in eval mode on the CPU.

    Raises:
        ThawlabError: if a file is missing or does not fit.
    """
    file, weights, features = (folder / name for name in ("model.json", "model.safetensors", "known.safetensors"))
    card = read_value(file, ModelCard)
    spec = spec_of(card)
    if conflict := other_revision(card.architecture, card.revision):
        raise ThawlabError(f"{file}: {conflict}; use the version that trained it (environment.json names it)")
    # Fresh weights are drawn, and then overwritten.
    with torch.random.fork_rng(devices=[]), _reading(file, "describes no network that can be built"):
        backbone = build_backbone(spec, card.preprocessing.size)
        head = make_head(feature_width(backbone), card.head, card.dropout, len(card.classes))
    classifier = Classifier(backbone, head)
    with _reading(weights, "does not fit model.json"):
        classifier.load_state_dict(read_tensors(weights, classifier.state_dict()))
    classifier.to(memory_format=torch.channels_last)
    reference = None
    if card.novelty_limit is not None:
        with _reading(features, "cannot be read"):
            reference = Reference(load_arrays(features)["features"], card.novelty_limit)
            if reference.features.shape[1:] != (feature_width(backbone),) or reference.features.dtype != np.float16:
                raise ValueError("it holds no features of this network")
            if not len(reference.features):
                raise ValueError("it holds no features")
    return SavedModel(classifier.eval(), card, reference)


@contextmanager
def _reading(file: Path, problem: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ThawlabError(f"{file}: is missing; finish the training, or let `thawlab repair` restore it") from None
    except (SafetensorError, RuntimeError, LookupError, OSError, ValueError, TypeError, MemoryError) as error:
        raise ThawlabError(f"{file}: {problem}: {first_line(error)}") from None
