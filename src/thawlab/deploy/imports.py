"""Classifiers that others trained, as run folders: they predict, are evaluated and exported as our own."""

import contextlib
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from thawlab.data.preprocessing import Preprocessing
from thawlab.errors import ThawlabError, UsageError
from thawlab.files import mark_ours, sha256_of, write_json
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import Classifier, make_head
from thawlab.models.keras import KERAS, SCALINGS
from thawlab.models.keras.imported import Backbone, Head, build_network, read_classifier
from thawlab.models.saved import model_card, save_model
from thawlab.recipe import Model
from thawlab.run import RunFolder

_NAME = r"[\w.-]{1,120}"  # as a recipe's


def import_keras(
    file: Path,
    runs: Path,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    scaling: str | None = None,
) -> RunFolder:
    """Turn a classifier that Keras saved into a run folder; the same file with the same settings is the same folder.

    Args:
        file: `.keras` or `.h5`.
        runs: the folder of all runs.
        name: of the run; the file's if omitted.
        classes: names in the order of the outputs; "0", "1" and so on if omitted.
        size: side of its input, where the file leaves it open.
        scaling: of its inputs, where the file does not say it: a key of `SCALINGS`.

    Raises:
        UsageError: if it is no such file, or holds what is not supported, or the names do not fit.
        ThawlabError: if it is damaged, or the folder cannot be written.
    """
    if name is not None and not re.fullmatch(_NAME, name):
        raise UsageError(f"--name {name}: takes letters, digits, '_', '.' and '-'")
    network, head = read_classifier(file, size, scaling)
    wanted = len(head.bias)
    names = tuple(classes) if classes is not None else tuple(map(str, range(wanted)))
    if len(names) != wanted or len(set(names)) != wanted:
        raise UsageError(f"{file}: has {wanted:,} classes, and {len(set(names)):,} names were given")
    source = {"file": file.name, "sha256": sha256_of(file), "scaling": network.scaling, "size": network.size}
    spec = BackboneSpec(f"keras:{file.name}", KERAS, "keras", network.arguments)
    card = model_card(spec, Model(backbone=spec.name), classes=names, preprocessing=_preprocessing(network), temperature=1.0)
    key = hashlib.sha256(f"{source['sha256']} {card.model_dump_json()}".encode()).hexdigest()[:12]
    folder = RunFolder(runs / f"{name or _plain(file.name)}-{key}")
    with contextlib.suppress(ThawlabError):
        if folder.origin == source and (folder.model / "model.safetensors").is_file():
            return folder
    classifier = _classifier(network, head)
    try:
        mark_ours(folder.path)
        with folder.locked():
            save_model(folder.model, classifier, card, None)
            write_json(folder.imported, source)
            folder.set_status("finished")
    except OSError as error:
        raise ThawlabError(f"{folder.path}: cannot be written: {error.strerror or error}") from None
    return folder


def _plain(name: str) -> str:
    """Return the first part of a file's name as the name of a run."""
    return re.sub(r"[^\w-]+", "-", name.partition(".")[0]).strip("-")[:120] or "imported"


def _classifier(network: Backbone, head: Head) -> Classifier:
    backbone, last = build_network(network.arguments), make_head(head.weight.shape[1], (), (), len(head.bias))
    backbone.load_state_dict(network.state)
    last[-1].load_state_dict(head._asdict())
    return Classifier(backbone, last).eval()


def _preprocessing(network: Backbone) -> Preprocessing:
    mean, std, _ = SCALINGS[network.scaling]
    return Preprocessing(size=network.size, interpolation="bilinear", mean=mean, std=std)
