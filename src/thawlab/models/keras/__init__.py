"""Networks as Keras saves them: read without Keras, and computed here."""

# The architecture of such a network; its graph is among the arguments.
KERAS = "keras"
# How programs bring pixels to a network's inputs: mean and standard deviation of `Preprocessing`, and whether blue comes first.
# "symmetric", "caffe" and "torch" are the modes of Keras' `preprocess_input` ("tf", "caffe", "torch").
SCALINGS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], bool]] = {
    "raw": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), False),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), False),
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255), True),
    "torch": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
}


def named_scaling(name: str) -> tuple[str, str | None]:
    """Split what follows "keras:" in a backbone's name into the path of a file and, where it ends with one, a scaling."""
    path, _, last = name.rpartition(":")
    return (path, last) if path and last in SCALINGS else (name, None)
