"""What travels beside an export: a description for programs, and a model card for people (Mitchell et al. 2019)."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from thawlab.deploy.export.parity import Parity
from thawlab.models.saved import ModelCard
from thawlab.results import DataSummary, Results
from thawlab.values import Interval

_SHOWN = 12


def description(card: ModelCard, outputs: tuple[str, ...], run: str, digest: str, version: str) -> dict[str, Any]:
    """Return what is stored inside or beside a graph.

    Args:
        card: of the saved model.
        outputs: names of the graph's outputs.
        run: the run's name.
        digest: SHA-256 of the run's weights.
        version: of this program.
    """
    return {
        "classes": list(card.classes),
        "outputs": list(outputs),
        "preprocessing": card.preprocessing.model_dump(mode="json"),
        "temperature": card.temperature,
        "set_threshold": card.set_threshold,
        "novelty_limit": card.novelty_limit,
        "run": run,
        "weights_sha256": digest,
        "thawlab": version,
    }


class Trained(NamedTuple):
    """What is known of a classifier that was trained here."""

    results: Results
    data: DataSummary


class Imported(NamedTuple):
    """What is known of one that was not: the run's name, the file that it came from, and its SHA-256."""

    name: str
    file: str
    sha256: str


def model_card(
    history: Trained | Imported, card: ModelCard, parity: Mapping[str, Any], licence: str | None, library: str, use: str
) -> str:
    """Return a model card in the Hugging Face hub's format: a YAML head, and what people should know.

    Args:
        history: how the classifier came about.
        card: of the saved model.
        parity: what the gate measured, as in `parity.json`.
        licence: of the backbone's weights; None where it is not known.
        library: the hub's name of what loads the model.
        use: how it is used, as Markdown.
    """
    head = _head(history.results if isinstance(history, Trained) else None, licence, library)
    classes = f"Classifies images into {len(card.classes):,} classes: {_classes(card)}."
    if isinstance(history, Trained):
        results = history.results
        body = [
            f"# {results.name}",
            f"{classes} A {card.backbone} with {results.model.parameters:,} parameters, trained and judged with thawlab.",
            f"## Use\n\n{use}",
            f"## Training data\n\n{_data(results, history.data)}",
            f"## Accuracy\n\n{_accuracy(results)}",
            f"## Limits\n\n{_limits(results, card)}",
        ]
    else:
        unknown = "Not known: the classifier was trained elsewhere."
        body = [
            f"# {history.name}",
            f"{classes} Imported from {_plain(history.file)} (SHA-256 {history.sha256[:16]}).",
            f"## Use\n\n{use}",
            f"## Training data\n\n{unknown}",
            "## Accuracy\n\nNot measured here. Its probabilities are not calibrated.",
        ]
    rest = [f"## Export\n\n{_parity(parity)}", f"## Licence\n\n{_licence(licence, card)}"]
    return "\n\n".join([head, *body, *rest]) + "\n"


def _head(results: Results | None, licence: str | None, library: str) -> str:
    lines = ["---", f"library_name: {library}", "pipeline_tag: image-classification"]
    lines += [f"license: {licence}"] if licence else []
    lines += ["tags:", "- image-classification", "- transfer-learning", "- thawlab"]
    if results is not None and (test := results.test).n:
        lines += [
            "model-index:",
            f"- name: {json.dumps(results.name)}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {json.dumps(results.dataset.name)}",
            "      type: images",
            "      split: test",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {test.accuracy:.4f}",
            "    - type: f1",
            "      name: macro F1",
            f"      value: {test.macro_f1:.4f}",
        ]
    return "\n".join([*lines, "---"])


def _classes(card: ModelCard) -> str:
    more = len(card.classes) - _SHOWN
    return ", ".join(_plain(name) for name in card.classes[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _plain(text: str) -> str:
    """Return a text that Markdown takes for nothing else, on one line."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|" else letter for letter in " ".join(text.split()))


def _data(results: Results, data: DataSummary) -> str:
    used = results.dataset
    lines = [
        f"{_plain(used.name)}: {used.n_train:,} images to train on, {used.n_val:,} to choose settings by, {used.n_test:,} to "
        f"test on (fingerprint {used.fingerprint[:16]})."
    ]
    if data.leaks.count:
        lines.append(f"{data.leaks.count:,} held-out images are exact copies of training images.")
    if data.quarantined.count:
        lines.append(f"{data.quarantined.count:,} files could not be read and were left out.")
    if results.near_duplicates is not None and results.near_duplicates.count:
        lines.append(f"{results.near_duplicates.count:,} test images nearly repeat a training image.")
    return " ".join(lines)


def _accuracy(results: Results) -> str:
    test = results.test
    if not test.n:
        return "Not tested: the run held no test images out."
    rows: list[tuple[str, float, Interval | None]] = [("accuracy", test.accuracy, test.accuracy_ci95)]
    for name in ("balanced_accuracy", "macro_f1", "ece_calibrated"):
        value = test.metric(name)
        rows += [] if value is None else [(name.replace("_", " "), value, test.intervals.get(name))]
    table = ["| measure | value | 95 % interval |", "| --- | --- | --- |"]
    table += [f"| {name} | {value:.4f} | {_interval(interval)} |" for name, value, interval in rows]
    worst = sorted((row for row in test.per_class if row.n), key=lambda row: row.recall)[:3]
    said = ", ".join(f"{_plain(row.class_name)} {row.recall:.2f} (n = {row.n:,})" for row in worst)
    return "\n".join([f"On {test.n:,} test images:", "", *table, "", f"Lowest recall: {said}."])


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _limits(results: Results, card: ModelCard) -> str:
    lines = []
    if card.set_threshold is not None:
        lines.append(
            f"`unsure` says that more than one class has a probability of at least {card.set_threshold:.4f}: the classes above "
            "it hold the true one for 90 % of images of this kind."
        )
    if card.novelty_limit is not None:
        lines.append("`novel` says that an image lies farther from the training images than 99 % of held-out ones did.")
    lines += [f"{found.id} ({found.severity}): {_plain(found.evidence)} {_plain(found.advice)}" for found in results.diagnoses]
    if not lines:
        lines = ["Nothing was held out to tell what it does not know."]
    return "\n".join(f"- {line}" for line in lines)


def _parity(parity: Mapping[str, Any]) -> str:
    said = (
        f"Checked on {parity['n']:,} pictures, from their files to probabilities, against the classifier that was trained: the "
        f"same class for {100 * parity['agreement']:.2f} %, probabilities within {parity['largest']:.1g}."
    )
    if parity.get("decisions") is not None:
        said += f" The same decision on whether to answer for {100 * parity['decisions']:.2f} %."
    if (accuracy := parity.get("accuracy")) is not None:
        low, high = (100 * value for value in accuracy["ci95"])
        said += (
            f" Accuracy on {accuracy['n']:,} {accuracy['split']} images: {100 * accuracy['exported']:.2f} % beside "
            f"{100 * accuracy['original']:.2f} % (difference {-100 * accuracy['loss']:.2f} points, 95 % interval {low:.2f} to "
            f"{high:.2f})."
        )
    return said


def _licence(licence: str | None, card: ModelCard) -> str:
    if card.backbone == card.architecture and licence is None:
        return "Trained from scratch: no one else's weights are in it. That of the images is theirs to say."
    known = f"{licence}" if licence else "not recorded; see where they came from"
    return f"Weights that training began from ({_plain(card.backbone)}): {known}. That of the images is theirs to say."


def parity_of(parity: Parity, exporter: str, digest: str) -> dict[str, Any]:
    """Return the content of `parity.json`."""
    return {"format": exporter, "weights_sha256": digest, **parity.as_json()}
