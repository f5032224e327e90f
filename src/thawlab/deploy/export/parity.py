"""The parity gate: an exported file must say of pictures, from their files on, what the predictor says.

What keeps exports from agreeing is seldom the network: it is the preprocessing that stayed behind. So nothing is shared here
between the two sides but the files: one goes through the predictor, the other through the code that ships beside the export.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.comparison.statistics import over_images
from thawlab.data.types import Pixels
from thawlab.deploy.export import standalone
from thawlab.deploy.export.formats import Exporter, Outputs, Session
from thawlab.deploy.export.pictures import HeldOut, write_pictures
from thawlab.deploy.prediction import Prediction
from thawlab.deploy.predictor import Predictor
from thawlab.errors import ThawlabError

# Pictures of the gate. Half precision may miss one in a thousand, which takes a thousand to see.
PICTURES, MANY_PICTURES = 256, 1000
# Sizes of batches that must give what each picture alone gives.
BATCHES = (1, 7, 32)
# A difference of rounding this near a limit of a decision is none of meaning.
_NEAR_LIMIT = 1e-3
_TIMED = 3


class Accuracy(NamedTuple):
    """How an export that rounds did beside the original, on the same held-out images.

    Attributes:
        split: "val" or "test".
        n: images.
        original: accuracy of the run's model.
        exported: accuracy of the export.
        ci95: interval of the difference exported minus original, over images, paired.
    """

    split: str
    n: int
    original: float
    exported: float
    ci95: tuple[float, float]

    @property
    def loss(self) -> float:
        """What the export loses, as a fraction."""
        return self.original - self.exported


class Parity(NamedTuple):
    """What the gate measured.

    Attributes:
        n: pictures, each as a file.
        agreement: the share with the same most probable class.
        largest: the largest difference of a probability.
        decisions: the share that is answered, found unsure and found novel alike; None where the export says nothing of it.
        batches: sizes of batches that were tried.
        accuracy: beside the original's; None for formats that are judged picture by picture.
        images_per_second: of the export on pixels at working size, in batches of 32.
    """

    n: int
    agreement: float
    largest: float
    decisions: float | None
    batches: tuple[int, ...]
    accuracy: Accuracy | None
    images_per_second: float

    def as_json(self) -> dict[str, Any]:
        """Return the values for `parity.json`."""
        accuracy = None if self.accuracy is None else {**self.accuracy._asdict(), "loss": self.accuracy.loss}
        return {**self._asdict(), "accuracy": accuracy}


def check(
    exporter: Exporter,
    session: Session,
    predictor: Predictor,
    card: dict[str, Any],
    source: HeldOut,
    judged: tuple[HeldOut, Pixels] | None,
    most_lost: float,
) -> Parity:
    """Measure how an export agrees with the predictor, and refuse it where it does not.

    Args:
        exporter: its format, with what it must hold.
        session: the export, read again from its file.
        predictor: of the run.
        card: what ships beside the export.
        source: where pictures come from.
        judged: images and their pixels at working size for formats that are judged by accuracy.
        most_lost: the accuracy that these may lose, as a fraction.

    Raises:
        ThawlabError: if it disagrees; the message says by how much, and on which picture.
    """
    count = MANY_PICTURES if exporter.agreement < 1 else PICTURES
    with tempfile.TemporaryDirectory(prefix="thawlab-parity-") as place:
        files = write_pictures(source, count, Path(place))
        expected = predictor.predict_many(files, len(predictor.classes))
        files, expected = _readable(files, expected)
        outputs = _joined([session(standalone.read(file, card)[None]) for file in files])
    wanted = _table(expected, predictor.classes)
    differences = np.abs(outputs["probabilities"] - wanted).max(axis=1)
    agrees = _same_class(outputs["probabilities"], wanted, exporter.tolerance)
    decisions = _same_decisions(outputs, expected, card)
    size = card["preprocessing"]["size"]
    pixels = np.random.default_rng(0).integers(0, 256, (BATCHES[-1], size, size, 3), dtype=np.uint8)
    _refuse_unlike_batches(session, pixels, exporter)
    accuracy = None if judged is None else _accuracy(session, predictor, *judged)
    found = Parity(
        n=len(files),
        agreement=float(agrees.mean()),
        largest=float(differences.max()),
        decisions=None if decisions is None else float(decisions.mean()),
        batches=BATCHES,
        accuracy=accuracy,
        images_per_second=_speed(session, pixels),
    )
    worst = files[int(np.argmax(differences))].name
    if accuracy is not None and accuracy.loss > most_lost:
        low, high = (100 * value for value in accuracy.ci95)
        raise ThawlabError(
            f"rounding costs {100 * accuracy.loss:.2f} points of {accuracy.split} accuracy ({100 * accuracy.exported:.2f} % "
            f"beside {100 * accuracy.original:.2f} %, {accuracy.n:,} images, 95 % interval of the difference {low:.2f} to "
            f"{high:.2f}), more than {100 * most_lost:g}: take another format, or allow more with --max-loss"
        )
    if exporter.by_accuracy:
        return found
    if found.agreement < exporter.agreement or found.largest > exporter.tolerance:
        raise ThawlabError(
            f"the exported file disagrees with the predictor: the same class for {100 * found.agreement:.2f} % of {found.n:,} "
            f"pictures, probabilities differ by up to {found.largest:.2g} ({worst}); nothing was kept"
        )
    if exporter.same_decisions and decisions is not None and not decisions.all():
        other = files[int(np.argmin(decisions))].name
        raise ThawlabError(f"the exported file decides otherwise on whether to answer ({other}); nothing was kept")
    return found


def _readable(files: list[Path], predictions: list[Prediction]) -> tuple[list[Path], list[Prediction]]:
    kept = [(file, prediction) for file, prediction in zip(files, predictions, strict=True) if prediction.error is None]
    if not kept:
        raise ThawlabError("none of the run's held-out images can be read, so that no export can be checked")
    return [file for file, _ in kept], [prediction for _, prediction in kept]


def _joined(parts: list[Outputs]) -> Outputs:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _table(predictions: list[Prediction], classes: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Return n × classes probabilities in the order of the logits."""
    place = {name: number for number, name in enumerate(classes)}
    result = np.zeros((len(predictions), len(classes)))
    for row, prediction in zip(result, predictions, strict=True):
        row[[place[name] for name in prediction.classes]] = prediction.probabilities
    return result


def _same_class(given: npt.NDArray[Any], wanted: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.bool_]:
    """Return for each picture whether the class is the same; a tie within the tolerance counts as the same."""
    rows = np.arange(len(wanted))
    same: npt.NDArray[np.bool_] = wanted.max(axis=1) - wanted[rows, given.argmax(axis=1)] <= min(tolerance, 1e-4)
    return same


def _same_decisions(outputs: Outputs, expected: list[Prediction], card: dict[str, Any]) -> npt.NDArray[np.bool_] | None:
    """Return for each picture whether it is found unsure and novel alike, up to rounding at the limits."""
    result = np.ones(len(expected), dtype=bool)
    if "unsure" in outputs:
        near = np.abs(outputs["probabilities"] - card["set_threshold"]).min(axis=1) < 1e-4
        result &= near | (outputs["unsure"] == [prediction.unsure for prediction in expected])
    if "novel" in outputs:
        near = np.abs(outputs["distance"] - card["novelty_limit"]) < _NEAR_LIMIT
        result &= near | (outputs["novel"] == [prediction.novel for prediction in expected])
    return result if {"unsure", "novel"} & outputs.keys() else None


def _refuse_unlike_batches(session: Session, pixels: Pixels, exporter: Exporter) -> None:
    """Refuse a file that says something else of an image in a batch than alone."""
    alone = np.concatenate([session(pixels[k : k + 1])["probabilities"] for k in range(len(pixels))])
    for size in BATCHES[1:]:
        together = session(pixels[:size])["probabilities"]
        far = float(np.abs(together - alone[:size]).max())
        if far > exporter.tolerance:
            raise ThawlabError(
                f"the exported file says something else of images in batches of {size} than one by one ({far:.2g})"
            )


def _accuracy(session: Session, predictor: Predictor, source: HeldOut, pixels: Pixels) -> Accuracy:
    labels = source.labels[: len(pixels)]
    parts = [
        session(np.ascontiguousarray(pixels[k : k + BATCHES[-1]]))["probabilities"] for k in range(0, len(pixels), BATCHES[-1])
    ]
    exported = np.concatenate(parts).argmax(axis=1) == labels
    original = predictor.logits(pixels).argmax(axis=1) == labels
    spread = over_images((exported.astype(np.float64) - original.astype(np.float64))[None])
    return Accuracy(source.split, len(labels), float(original.mean()), float(exported.mean()), (spread.low, spread.high))


def _speed(session: Session, pixels: Pixels) -> float:
    """Return images a second, the median of several batches."""
    taken = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        session(pixels)
        taken.append(time.perf_counter() - start)
    return len(pixels) / statistics.median(taken)
