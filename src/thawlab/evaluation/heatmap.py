"""Maps of what speaks for a class, laid over their images; to show those that a run kept needs no torch."""

import numpy as np
import numpy.typing as npt


def overlay(image: npt.NDArray[np.uint8], shown: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Lay a map over its image: grey where nothing speaks for the class, from red to yellow where something does.

    Args:
        image: uint8, height × width × 3.
        shown: in [0, 1], height × width.
    """
    grey = image.astype(np.float32).mean(axis=2, keepdims=True).repeat(3, axis=2)
    strength = shown[..., None]
    colour = np.concatenate([np.full_like(strength, 255), 255 * strength**1.5, 40 * strength], axis=2)
    alpha = 0.75 * strength**0.75
    laid: npt.NDArray[np.uint8] = np.clip((1 - alpha) * grey + alpha * colour, 0, 255).astype(np.uint8)
    return laid
