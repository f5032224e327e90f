"""Predict the classes of images with a saved model and its own preprocessing."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from torch import nn

from thawlab import progress
from thawlab.cores import usable_cores
from thawlab.data.decode import UNREADABLE, decode, to_rgb, upright, why_unreadable
from thawlab.data.folders import image_files_below
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import Pixels
from thawlab.deploy.export.formats import Outputs, Session
from thawlab.deploy.prediction import ImageLike, Prediction
from thawlab.environment import choose_device
from thawlab.errors import ThawlabError, UsageError, listed, nearest
from thawlab.evaluation.gradcam import explain
from thawlab.evaluation.heatmap import overlay
from thawlab.evaluation.novelty import distances
from thawlab.evaluation.predictions import calibrated
from thawlab.files import mark_ours, user_path
from thawlab.inference.folding import folded
from thawlab.inference.fusing import fused, rounded
from thawlab.inference.infer import INFERENCE_BATCH, Floats, equal_batches, infer_parts
from thawlab.models.classifier import WithFeatures
from thawlab.models.saved import SavedModel

# At most this many images are decoded and held at once; a folder of any size then fits in memory.
_PORTION = 8 * INFERENCE_BATCH


@final
class Predictor:
    """A saved classifier that takes files or images.

    Args:
        model: as `load_model` reads it from a run's `model` folder.
        device: where it computes: "cpu", "cuda", or "auto" for a GPU if there is one.
        engine: an export of the same model, which answers for images at working size in its place.
        rounds: whether the network computes in bfloat16 up to its features.
    """

    def __init__(self, model: SavedModel, device: str = "cpu", engine: Session | None = None, rounds: bool = False) -> None:
        self._model, self._device, self._engine = model, choose_device(device), engine
        self._batches: dict[int, float] | None = None
        self._rounds = rounds
        if engine is None:
            _ = self._network  # ready before the first image comes; an engine does without

    @cached_property
    def _network(self) -> nn.Module:
        """The network, folded where it was saved, and moved then: the same weights are folded on every device."""
        model, side = self._model, self._model.card.preprocessing.size
        module = model.classifier if model.reference is None else WithFeatures(model.classifier)
        network = fused(folded(module.eval(), (3, side, side)).to(self._device), (3, side, side))
        model.classifier.to(self._device)
        return rounded(network) if self._rounds else network

    @cached_property
    def _bank(self) -> Floats:
        """The features that new images are compared with, brought to single precision once; without rows where there are none."""
        reference = self._model.reference
        return np.zeros((0, 0), dtype=np.float32) if reference is None else reference.features.astype(np.float32)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the logits."""
        return self._model.card.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """What brings an image to working size."""
        return self._model.card.preprocessing

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Return the logits of images at working size.

        Args:
            pixels: uint8, n × size × size × 3, as the model's preprocessing fits them.

        Returns:
            float32, n × classes, uncalibrated.

        Raises:
            UsageError: for another shape or type.
        """
        side = self._model.card.preprocessing.size
        if getattr(pixels, "dtype", None) != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise UsageError(f"logits takes uint8 pixels, n × {side} × {side} × 3, not {_described(pixels)}")
        return self._outputs(pixels)[0]

    def _outputs(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return logits, and features where a novelty reference was saved."""
        inputs = self._model.card.preprocessing.inputs
        return infer_parts(self._network, pixels, np.arange(len(pixels)), inputs, self._device, seconds=self._batches)

    def hurry(self) -> tuple[int, ...]:
        """Compute few images in smaller batches from now on, where a trial shows that every bit stays; return their sizes.

        The trial takes a few batches; it pays where images come one by one.
        """
        if self._engine is None:
            side, inputs = self._model.card.preprocessing.size, self._model.card.preprocessing.inputs
            self._batches = equal_batches(self._network, (side, side, 3), inputs, self._device)
        return tuple(self._batches or ())

    def predict(self, image: ImageLike, top_k: int = 5) -> Prediction:
        """Predict one image: a file, a Pillow image, or uint8 pixels (height × width × 3).

        Raises:
            UsageError: if no class is asked for.
            ThawlabError: if it is none of these, or cannot be read.
        """
        [prediction] = self.predict_many([image], top_k)
        if prediction.error is not None:
            raise ThawlabError(f"{prediction.source}: {prediction.error}")
        return prediction

    def predict_many(self, images: Iterable[ImageLike], top_k: int = 5, workers: int | None = None) -> list[Prediction]:
        """Predict many images; one that cannot be read gets an `error` and stops nothing.

        Raises:
            UsageError: if a single image is given, or no class is asked for.
        """
        if isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 4) != 4:
            raise UsageError("predict_many takes a list of images; predict takes a single one")
        images = list(images)
        shown = len(images) if len(images) > _PORTION else 0
        with progress.task("predicting", shown) as advance:
            results = []
            for prediction in self.stream(images, top_k, workers if len(images) > 1 else 1):  # to count cores takes time
                results.append(prediction)
                advance(1)
        return results

    def stream(self, images: Iterable[ImageLike], top_k: int = 5, workers: int | None = None) -> Iterator[Prediction]:
        """Predict images as they come, a portion at a time: any number of them fits in memory.

        Args:
            images: as `predict` takes them.
            top_k: how many classes each prediction names.
            workers: threads that decode; None for as many as there are cores.

        Raises:
            UsageError: if no class is asked for.
        """
        _check_top_k(top_k)
        left, start = iter(images), 0
        with ThreadPoolExecutor(workers or usable_cores()) as pool:

            def submit() -> list[tuple[ImageLike, Future[Pixels | str]]]:
                return [(image, pool.submit(self._fit, image)) for image in itertools.islice(left, _PORTION)]

            waiting = submit()
            while waiting:
                portion = [(image, future.result()) for image, future in waiting]
                waiting = submit()  # the next portion is decoded while the network computes this one
                given, decoded = [image for image, _ in portion], [pixels for _, pixels in portion]
                yield from self._portion(given, decoded, start, top_k)
                start += len(portion)

    def predict_fitted(self, pixels: Pixels, top_k: int = 5) -> list[Prediction]:
        """Predict images that are already at working size, and named by their numbers.

        Args:
            pixels: uint8, n × size × size × 3, as the model's preprocessing fits them.
            top_k: how many classes each prediction names.

        Raises:
            UsageError: if no class is asked for.
        """
        _check_top_k(top_k)
        return self._portion(list(pixels), list(pixels), 0, top_k)

    def explain(self, image: ImageLike, name: str | None = None) -> Pixels:
        """Return an image at working size beside its Grad-CAM overlay for a class.

        Args:
            image: as `predict` takes it.
            name: of the class; the predicted one if omitted.

        Returns:
            uint8, size × 2 · size × 3.

        Raises:
            UsageError: if there is no such class.
            ThawlabError: if the image cannot be read, or the network has no feature map to show.
        """
        fitted = self._fit(image)
        if isinstance(fitted, str):
            raise ThawlabError(f"{image}: {fitted}")
        return self.explain_fitted(fitted, name)

    def explain_fitted(self, fitted: Pixels, name: str | None = None) -> Pixels:
        """Return `explain` of an image that is already at working size: uint8, size × size × 3.

        Raises:
            UsageError: if there is no such class.
            ThawlabError: if the network has no feature map to show.
        """
        inputs = self._model.card.preprocessing.inputs(torch.from_numpy(np.array(fitted)[None]).to(self._device))
        if name is not None and name not in self.classes:
            raise UsageError(f"there is no class '{name}'{nearest(name, self.classes) or f' (known: {listed(self.classes)})'}")
        number = int(self.logits(fitted[None])[0].argmax()) if name is None else self.classes.index(name)
        try:
            [shown] = explain(self._model.classifier, inputs, np.array([number]))
        except ValueError as error:
            raise ThawlabError(f"no Grad-CAM can be computed: {error}") from None
        return np.concatenate([fitted, overlay(fitted, shown)], axis=1)

    def write_explanations(self, predictions: Sequence[Prediction], folder: Path) -> list[Path]:
        """Write Grad-CAM images for the predicted classes of files as PNG into a folder; no existing file is overwritten.

        Args:
            predictions: of files; those that could not be read are left out.
            folder: made if needed.

        Raises:
            ThawlabError: if a file cannot be read or written.
        """
        try:
            mark_ours(folder)
        except OSError as error:
            raise ThawlabError(f"{folder}: cannot be written: {error.strerror or error}") from None
        written, readable = [], [prediction for prediction in predictions if prediction.error is None]
        with progress.task("explaining", len(readable)) as advance:
            for prediction in readable:
                file = Path(prediction.source)
                shown = Image.fromarray(self.explain(file, prediction.classes[0]))
                path = _unused(folder / f"{file.stem}.png")
                try:
                    shown.save(path)
                except OSError as error:
                    raise ThawlabError(f"{path}: cannot be written: {error.strerror or error}") from None
                written.append(path)
                advance(1)
        return written

    def _portion(self, images: Sequence[ImageLike], decoded: Sequence[Pixels | str], start: int, top_k: int) -> list[Prediction]:
        """Return the predictions of decoded images, or of the reasons why they could not be read."""
        good = [k for k, pixels in enumerate(decoded) if not isinstance(pixels, str)]
        found: list[dict[str, Any]] = [{"error": reason} for reason in decoded]
        if good:
            outputs = self.answer(np.stack([decoded[k] for k in good]))
            probabilities = outputs["probabilities"]
            unsure, novel = (outputs[key].tolist() if key in outputs else [None] * len(good) for key in ("unsure", "novel"))
            for k, row, several, far in zip(good, probabilities, unsure, novel, strict=True):
                found[k] = {**self._ranked(row, top_k), "unsure": several, "novel": far}
        names = [image if isinstance(image, str | Path) else start + k for k, image in enumerate(images)]
        return [Prediction(str(name), image=image, **what) for name, image, what in zip(names, images, found, strict=True)]

    def _ranked(self, probabilities: np.ndarray, top_k: int) -> dict[str, Any]:
        """Return the most probable classes of one image, and its prediction set where a threshold is known."""
        order, threshold = np.argsort(-probabilities, kind="stable"), self._model.card.set_threshold
        best = order[:top_k]
        several = None if threshold is None else tuple(self.classes[b] for b in order[probabilities[order] >= threshold])
        classes = tuple(self.classes[b] for b in best)
        return {"classes": classes, "probabilities": tuple(probabilities[best].tolist()), "prediction_set": several}

    def answer(self, pixels: Pixels) -> Outputs:
        """Return what is said of images at working size, by the names of an export's outputs.

        Args:
            pixels: uint8, n × size × size × 3, as the model's preprocessing fits them.
        """
        if self._engine is not None:
            parts = [self._engine(pixels[start : start + INFERENCE_BATCH]) for start in range(0, len(pixels), INFERENCE_BATCH)]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        card, reference = self._model.card, self._model.reference
        logits, *features = self._outputs(pixels)
        probabilities = calibrated(logits, card.temperature)
        outputs: dict[str, np.ndarray] = {"probabilities": probabilities}
        if card.set_threshold is not None:
            outputs["unsure"] = (probabilities >= card.set_threshold).sum(axis=1) > 1
        if reference is not None:
            outputs["distance"] = distances(features[0], self._bank)
            outputs["novel"] = outputs["distance"] > reference.limit
        return outputs

    def _fit(self, image: object) -> Pixels | str:
        """Return the image at working size, or the reason why it cannot be read."""
        preprocessing = self._model.card.preprocessing
        try:
            if isinstance(image, Image.Image):
                return preprocessing.fit(to_rgb(upright(image), preprocessing.grey_range))
            if isinstance(image, str | Path):
                path = Path(image)
                return decode((path if path.exists() else user_path(path)).read_bytes(), preprocessing)
            if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size > 0:
                return decode(image, preprocessing)
            return f"must be a file, a Pillow image or uint8 pixels (height × width × 3), not {_described(image)}"
        except UNREADABLE as error:
            return why_unreadable(error)


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise UsageError(f"top_k = {top_k}: must be at least 1")


def _described(value: object) -> str:
    return f"{value.dtype}, {' × '.join(map(str, value.shape))}" if isinstance(value, np.ndarray) else type(value).__name__


def _unused(path: Path) -> Path:
    """Return a path that does not exist yet, numbered where needed."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(chosen for chosen in itertools.chain([path], numbered) if not chosen.exists())


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """Return the files that some paths name: files as they are, folders with all images in them, sorted.

    Raises:
        UsageError: if a path does not exist, or a folder holds no images.
    """
    files: list[Path] = []
    if (address := next((str(path) for path in paths if "://" in str(path)), None)) is not None:
        raise UsageError(f"{address}: addresses are read with --ray ADDRESS|local and --out FOLDER")
    for path in map(user_path, paths):
        if not path.exists():
            hint = nearest(path.name, (entry.name for entry in path.parent.glob("*")))
            raise UsageError(f"{path}: there is no such file or folder{hint}")
        found = image_files_below(path) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path}: this folder holds no images")
        files.extend(found)
    return files
