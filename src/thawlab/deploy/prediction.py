"""What a classifier says of one image."""

import base64
import io
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image, ImageOps

from thawlab.data.decode import UNREADABLE, to_rgb, upright
from thawlab.data.types import Pixels

ImageLike = str | Path | Image.Image | Pixels


@final
@dataclass(frozen=True)
class Prediction:
    """The classifier's prediction for one image.

    Attributes:
        source: the file, or a number for an image that was given as pixels.
        classes: the most probable classes, the most confident first.
        probabilities: of these classes, calibrated, in [0, 1].
        unsure: whether more than one class is in the 90 % prediction set; None where nothing was held out to tell.
        novel: whether the image is OOD: farther from the training images than 99 % of held-out images; None likewise.
        error: why the image could not be read; the other fields are then empty.
        prediction_set: the classes that hold the true one in at least 90 % of images like the held-out ones, the most probable
            first; empty if none is probable enough, None likewise.
        image: as it was given, for `show`.
    """

    source: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    unsure: bool | None = None
    novel: bool | None = None
    error: str | None = None
    prediction_set: tuple[str, ...] | None = None
    image: ImageLike | None = field(default=None, repr=False, compare=False)

    def show(self) -> None:
        """Show the image beside a bar for each class in a notebook; print the bars elsewhere."""
        ipython = sys.modules.get("IPython")
        if ipython is not None and ipython.get_ipython() is not None:
            ipython.display.display(self)
        else:
            print(self)

    def __str__(self) -> str:
        pairs = zip(self.classes, self.probabilities, strict=True)
        wide = max(map(len, self.classes), default=0)
        bars = [f"{name:{wide}} {'█' * round(20 * p):20} {100 * p:5.1f} %" for name, p in pairs]
        return "\n".join([self.source, *bars] if self.error is None else [f"{self.source}: {self.error}"])

    def _repr_html_(self) -> str:
        if self.error is not None:
            return f"<p>{escape(str(self))}</p>"
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td><div style='width:{100 * p:.0f}px;height:1em;background:#1f6feb'></div></td>"
            f"<td>{100 * p:.1f} %</td></tr>"
            for name, p in zip(self.classes, self.probabilities, strict=True)
        )
        return f"<div style='display:flex;gap:1em'>{self._thumbnail()}<table>{rows}</table></div>"

    def _thumbnail(self) -> str:
        """Return the image as HTML; empty if it can no longer be read."""
        try:
            image: Any = Image.open(self.image) if isinstance(self.image, str | Path) else self.image
            image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
            small = ImageOps.contain(to_rgb(upright(image)), (160, 160))
        except (*UNREADABLE, TypeError):
            return ""
        buffer = io.BytesIO()
        small.save(buffer, "PNG")
        text = base64.b64encode(buffer.getvalue()).decode()
        return f"<img alt='{escape(self.source)}' src='data:image/png;base64,{text}'>"

    def as_json(self) -> dict[str, Any]:
        """Return the prediction as JSON values."""
        if self.error is not None:
            return {"source": self.source, "error": self.error}
        pairs = [{"class": name, "probability": p} for name, p in zip(self.classes, self.probabilities, strict=True)]
        held = {} if self.prediction_set is None else {"prediction_set": list(self.prediction_set)}
        return {"source": self.source, "predictions": pairs, **held, "unsure": self.unsure, "novel": self.novel}
