"""The model folder of a run: weights, and a description from which the classifier is built again without a network."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save
from torch import nn

from thawlab.data.preprocessing import Preprocessing
from thawlab.errors import ThawlabError, first_line
from thawlab.files import write_atomically, write_text
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import Classifier, build_backbone, feature_width, make_head
from thawlab.models.small import other_revision
from thawlab.recipe import Model

SCHEMA = 1


class ModelCard(BaseModel):
    """What `model.json` says.

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
        novelty_limit: images farther than this from `known.safetensors` are unlike those of training; None likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=SCHEMA, alias="schema")
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


@final
@dataclass(frozen=True)
class Reference:
    """Features of training images that new images are compared with, and how far from them images of the same kind lie.

    Attributes:
        features: float16, n × width, of unit length.
        limit: the distance within which 99 % of held-out images lie.
    """

    features: npt.NDArray[np.float16]
    limit: float


@final
@dataclass(frozen=True)
class Judgement:
    """What held-out images say of a classifier: temperature, threshold of prediction sets, and the novelty reference."""

    temperature: float
    set_threshold: float | None
    reference: Reference | None


@final
@dataclass(frozen=True)
class SavedModel:
    """A classifier as it was saved, ready for inference on the CPU."""

    classifier: Classifier
    card: ModelCard
    reference: Reference | None = None


def save_model(
    folder: Path,
    classifier: Classifier,
    spec: BackboneSpec,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    model: Model,
    judgement: Judgement,
) -> None:
    """Write `model.safetensors`, `model.json` and, where images were held out, `known.safetensors`.

    The bytes depend on the values alone.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    content = save(state)
    card = ModelCard(
        schema=SCHEMA,
        architecture=spec.architecture,
        arguments=spec.arguments,
        fixed_input_size=bool(spec.config.get("fixed_input_size", False)),
        backbone=spec.name,
        revision=spec.revision,
        head=model.head,
        dropout=model.dropout,
        classes=classes,
        preprocessing=preprocessing,
        temperature=judgement.temperature,
        set_threshold=judgement.set_threshold,
        novelty_limit=judgement.reference and judgement.reference.limit,
    )
    if judgement.reference is not None:
        features = save_arrays({"features": judgement.reference.features})
        write_atomically(folder / "known.safetensors", lambda file: file.write(features))
    write_atomically(folder / "model.safetensors", lambda file: file.write(content))
    write_text(
        folder / "model.json", json.dumps(card.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"
    )


def load_model(folder: Path) -> SavedModel:
    """Build a saved classifier again, in eval mode on the CPU.

    Raises:
        ThawlabError: if a file is missing or does not fit.
    """
    file = folder / "model.json"
    try:
        text = file.read_text(encoding="utf-8")
        if (schema := _schema(text)) != SCHEMA:
            raise ThawlabError(f"{file}: has schema {schema}, this thawlab reads {SCHEMA}; use the version that wrote it")
        card = ModelCard.model_validate_json(text)
    except FileNotFoundError:
        raise ThawlabError(f"{file}: is missing; finish the training, or let `thawlab repair` restore it") from None
    except OSError as error:
        raise ThawlabError(f"{file}: cannot be read: {first_line(error)}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise ThawlabError(f"{file}: cannot be read: {place}: {problem['msg']}") from None
    size = card.preprocessing.size
    config = {"fixed_input_size": card.fixed_input_size, "input_size": (3, 0, 0)}
    spec = BackboneSpec(card.backbone, card.architecture, "saved", card.arguments, config)
    if conflict := other_revision(card.architecture, card.revision):
        raise ThawlabError(f"{file}: {conflict}; use the version that trained it (environment.json names it)")
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and then overwritten
        backbone: nn.Module = build_backbone(spec, size)
        head = make_head(feature_width(backbone), card.head, card.dropout, len(card.classes))
    classifier = Classifier(backbone, head)
    weights = folder / "model.safetensors"
    try:
        classifier.load_state_dict(load_file(weights))
    except FileNotFoundError:
        raise ThawlabError(f"{weights}: is missing; finish the training, or let `thawlab repair` restore it") from None
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ThawlabError(f"{weights}: does not fit model.json: {first_line(error)}") from None
    classifier.to(memory_format=torch.channels_last)
    return SavedModel(classifier.eval(), card, _load_reference(folder / "known.safetensors", card))


def _schema(text: str) -> Any:
    """Return the schema number of a description; what is no such thing is left to the validation."""
    with contextlib.suppress(ValueError, AttributeError):
        return json.loads(text).get("schema", SCHEMA)
    return SCHEMA


def _load_reference(file: Path, card: ModelCard) -> Reference | None:
    if card.novelty_limit is None:
        return None
    try:
        return Reference(load_arrays(file)["features"], card.novelty_limit)
    except FileNotFoundError:
        raise ThawlabError(f"{file}: is missing; `thawlab repair` restores it") from None
    except (SafetensorError, KeyError, OSError) as error:
        raise ThawlabError(f"{file}: cannot be read: {first_line(error)}") from None
