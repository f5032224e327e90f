"""Networks of `keras.applications` whose weights come in files without a description: recognised by the names of their layers.

Layers, their order and strides are those of Keras 3.15; widths and kernels are read from the file, so that every width and depth
of a family is covered. Padding "same" stands for Keras' explicit padding before strided convolutions, which is the same.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, final

from thawlab.errors import UsageError
from thawlab.models.keras.file import KerasFile

Kernels = Mapping[str, tuple[int, ...]]
# Of ImageNet, as Keras' EfficientNets hold them.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Known(NamedTuple):
    """A family of networks: how it is recognised, and the scaling of inputs that its weights were trained with.

    Attributes:
        name: of the family.
        layers: names of layers that it has.
        others: names of layers that it has not.
        scaling: a key of `SCALINGS`.
    """

    name: str
    layers: tuple[str, ...]
    others: tuple[str, ...]
    scaling: str


FAMILIES = (
    Known("ResNet", ("conv1_conv", "conv2_block1_0_conv", "conv5_block3_3_conv"), ("conv2_block1_preact_bn",), "caffe"),
    Known("VGG", ("block1_conv1", "block3_conv3", "block5_conv3"), ("block1_conv1_bn", "block2_sepconv1"), "caffe"),
    Known("MobileNetV2", ("Conv1", "expanded_conv_depthwise", "block_16_project"), (), "symmetric"),
    Known("EfficientNet", ("stem_conv", "block1a_dwconv", "block7a_project_conv"), (), "raw"),
    Known("EfficientNetV2", ("stem_conv", "block4a_dwconv2", "top_conv"), (), "raw"),
)


def family_of(names: Mapping[str, Any] | set[str]) -> Known | None:
    """Return the family that has layers of such names; None where there is none, or not one alone."""
    found = [known for known in FAMILIES if all(n in names for n in known.layers) and not any(n in names for n in known.others)]
    return found[0] if len(found) == 1 else None


def with_description(file: KerasFile) -> KerasFile:
    """Return a file of weights alone together with the description of the network that they are of.

    Raises:
        UsageError: if its network is none that is known.
    """
    family = family_of(file.kernels)
    if family is None:
        raise UsageError(
            f"{file.path}: holds weights without a description, of no network that is known by its layers' names "
            f"({', '.join(known.name for known in FAMILIES)}); save the whole model: model.save('model.keras')"
        )
    graph = _Graph(file)
    {
        "ResNet": _resnet,
        "VGG": _vgg,
        "MobileNetV2": _mobilenet_v2,
        "EfficientNet": _efficientnet,
        "EfficientNetV2": _efficientnet_v2,
    }[family.name](graph)
    return file._replace(config=graph.config())


@final
class _Graph:
    """A description that grows layer by layer, each taking the last one unless it is said what it takes."""

    def __init__(self, file: KerasFile) -> None:
        self.file, self.kernels = file, file.kernels
        self.layers: list[dict[str, Any]] = []
        self.shape: list[int | None] = [None, None, None, 3]
        self.last = "input"

    def add(self, kind: str, name: str, *given: str, **config: Any) -> str:
        """Add a layer, and return its name."""
        node = [[part, 0, 0, {}] for part in given or (self.last,)]
        entry = {"class_name": kind, "name": name, "inbound_nodes": [node]}
        self.layers.append({**entry, "config": {"name": name, "trainable": True, **config}})
        self.last = name
        return name

    def conv(self, name: str, stride: int = 1, padding: str = "same", activation: str = "linear", bias: bool = False) -> str:
        """Add a convolution of the file's width and kernel."""
        height, width, _inputs, outputs = self._kernel(name)
        shared = {"kernel_size": [height, width], "strides": [stride] * 2, "padding": padding, "use_bias": bias}
        if name.endswith(("dwconv", "dwconv2", "depthwise")):
            return self.add("DepthwiseConv2D", name, **shared)
        return self.add("Conv2D", name, filters=outputs, activation=activation, **shared)

    def norm(self, name: str, activation: str = "", epsilon: float = 1e-3, momentum: float = 0.99) -> str:
        """Add a BatchNorm and, where one is named, an activation."""
        self.add("BatchNormalization", name, epsilon=epsilon, momentum=momentum)
        return self.act(name, activation) if activation else self.last

    def act(self, name: str, function: str) -> str:
        """Add an activation."""
        return self.add("Activation", f"{name} {function}", activation=function)

    def top(self) -> None:
        """Add pooling and classifier where the file holds the latter; its softmax is not part of the weights."""
        if "predictions" in self.kernels:
            self.add("GlobalAveragePooling2D", "avg_pool")
            self.dense("predictions")

    def dense(self, name: str, activation: str = "linear") -> str:
        """Add a dense layer of the file's width."""
        return self.add("Dense", name, units=self._kernel(name)[1], activation=activation)

    def joined(self, name: str, shortcut: str) -> str:
        """Add the sum with a shortcut."""
        return self.add("Add", name, self.last, shortcut)

    def config(self) -> dict[str, Any]:
        """Return the description of the whole."""
        first = {"class_name": "InputLayer", "name": "input", "inbound_nodes": []}
        layers = [{**first, "config": {"name": "input", "batch_shape": self.shape}}, *self.layers]
        ends = {"input_layers": [["input", 0, 0]], "output_layers": [[self.last, 0, 0]]}
        return {"class_name": "Functional", "config": {"name": "weights", "layers": layers, **ends}}

    def _kernel(self, name: str) -> tuple[int, ...]:
        shape = self.kernels.get(name, ())
        if len(shape) not in (2, 4):
            raise UsageError(f"{self.file.path}: holds no kernel of the layer '{name}'")
        return shape


def _resnet(graph: _Graph) -> None:
    """He et al. 2016, with the stride in the first convolution of a block."""

    def normed(name: str, activation: str = "relu") -> str:
        return graph.norm(name, activation, epsilon=1.001e-5)

    graph.add("ZeroPadding2D", "conv1_pad", padding=[[3, 3], [3, 3]])
    graph.conv("conv1_conv", 2, "valid", bias=True)
    normed("conv1_bn")
    graph.add("ZeroPadding2D", "pool1_pad", padding=[[1, 1], [1, 1]])
    graph.add("MaxPooling2D", "pool1_pool", pool_size=[3, 3], strides=[2, 2])
    for stage in (2, 3, 4, 5):
        block = 1
        while f"conv{stage}_block{block}_1_conv" in graph.kernels:
            name, start = f"conv{stage}_block{block}", graph.last
            stride, shortcut = 2 if stage > 2 and block == 1 else 1, start
            if block == 1:
                graph.conv(f"{name}_0_conv", stride, bias=True)
                shortcut = normed(f"{name}_0_bn", "")
            graph.last = start
            graph.conv(f"{name}_1_conv", stride, bias=True)
            normed(f"{name}_1_bn")
            graph.conv(f"{name}_2_conv", bias=True)
            normed(f"{name}_2_bn")
            graph.conv(f"{name}_3_conv", bias=True)
            normed(f"{name}_3_bn", "")
            graph.joined(f"{name}_add", shortcut)
            graph.act(f"{name}_out", "relu")
            block += 1
    graph.top()


def _vgg(graph: _Graph) -> None:
    """Simonyan & Zisserman 2015."""
    for stage in range(1, 6):
        layer = 1
        while f"block{stage}_conv{layer}" in graph.kernels:
            graph.conv(f"block{stage}_conv{layer}", activation="relu", bias=True)
            layer += 1
        graph.add("MaxPooling2D", f"block{stage}_pool", pool_size=[2, 2], strides=[2, 2])
    if "fc1" in graph.kernels:
        side = 32 * math.isqrt(graph.kernels["fc1"][0] // graph.kernels["block5_conv3"][-1])
        graph.shape = [None, side, side, 3]
        graph.add("Flatten", "flatten")
        graph.dense("fc1", "relu")
        graph.dense("fc2", "relu")
        graph.dense("predictions")


def _mobilenet_v2(graph: _Graph) -> None:
    """Sandler et al. 2018."""

    def normed(name: str, activation: str = "relu6") -> str:
        return graph.norm(name, activation, momentum=0.999)

    graph.conv("Conv1", 2)
    normed("bn_Conv1")
    for number in range(17):
        name, start = f"block_{number}" if number else "expanded_conv", graph.last
        stride = 2 if number in (1, 3, 6, 13) else 1
        if number:
            graph.conv(f"{name}_expand")
            normed(f"{name}_expand_BN")
        graph.conv(f"{name}_depthwise", stride)
        normed(f"{name}_depthwise_BN")
        graph.conv(f"{name}_project")
        normed(f"{name}_project_BN", "")
        if stride == 1 and number and graph.kernels[f"{name}_expand"][2] == graph.kernels[f"{name}_project"][3]:
            graph.joined(f"{name}_add", start)
    graph.conv("Conv_1")
    normed("Conv_1_bn")
    graph.top()


def _squeeze(graph: _Graph, name: str) -> None:
    """Squeeze and excitation (Hu et al. 2018)."""
    start, width = graph.last, graph.kernels[f"{name}_se_expand"][3]
    graph.add("GlobalAveragePooling2D", f"{name}_se_squeeze")
    graph.add("Reshape", f"{name}_se_reshape", target_shape=[1, 1, width])
    graph.conv(f"{name}_se_reduce", activation="swish", bias=True)
    graph.conv(f"{name}_se_expand", activation="sigmoid", bias=True)
    graph.add("Multiply", f"{name}_se_excite", start, graph.last)


def _blocks(graph: _Graph, probe: tuple[str, ...]) -> list[tuple[str, int, bool]]:
    """Return the blocks of an EfficientNet: name, stride, and whether it may have a shortcut."""
    found = []
    for stage, stride in enumerate((1, 2, 2, 2, 1, 2, 1), start=1):
        for letter in map(chr, range(ord("a"), ord("z") + 1)):
            name = f"block{stage}{letter}"
            if any(f"{name}_{layer}" in graph.kernels for layer in probe):
                first = letter == "a"
                found.append((name, stride if first else 1, not first))
    return found


def _efficientnet(graph: _Graph) -> None:
    """Tan & Le 2019."""
    graph.add("Rescaling", "rescaling", scale=1 / 255)
    norm = next((name for name in graph.kernels if name.startswith("normalization")), "normalization")  # Keras numbers them
    graph.add("Normalization", norm, axis=[-1])
    if abs(float(graph.file.weights((norm,), {"mean": (3,)})[0][0]) - _MEAN[0]) < 1e-3:
        # Keras' ImageNet weights have deviations where Normalization expects variances, and this puts it right.
        graph.add("Rescaling", "rescaling_1", scale=[1 / math.sqrt(deviation) for deviation in _DEVIATION])
    graph.conv("stem_conv", 2)
    graph.norm("stem_bn", "swish")
    for name, stride, has_shortcut in _blocks(graph, ("dwconv",)):
        start = graph.last
        if f"{name}_expand_conv" in graph.kernels:
            graph.conv(f"{name}_expand_conv")
            graph.norm(f"{name}_expand_bn", "swish")
        graph.conv(f"{name}_dwconv", stride)
        graph.norm(f"{name}_bn", "swish")
        _squeeze(graph, name)
        graph.conv(f"{name}_project_conv")
        graph.norm(f"{name}_project_bn")
        if has_shortcut:
            graph.joined(f"{name}_add", start)
    graph.conv("top_conv")
    graph.norm("top_bn", "swish")
    graph.top()


def _efficientnet_v2(graph: _Graph) -> None:
    """Tan & Le 2021."""
    large = graph.kernels["stem_conv"][3] == 24 or "block7a_project_conv" in graph.kernels
    if large:
        graph.add("Rescaling", "rescaling", scale=1 / 128, offset=-1.0)
    else:
        graph.add("Rescaling", "rescaling", scale=1 / 255)
        graph.add("Normalization", "normalization", axis=-1, mean=list(_MEAN), variance=[d**2 for d in _DEVIATION])
    graph.conv("stem_conv", 2)
    graph.norm("stem_bn", "swish", momentum=0.9)
    for name, stride, has_shortcut in _blocks(graph, ("project_conv",)):
        start, left = graph.last, stride
        depthwise = f"{name}_dwconv2" in graph.kernels
        if f"{name}_expand_conv" in graph.kernels:
            graph.conv(f"{name}_expand_conv", 1 if depthwise else left)
            graph.norm(f"{name}_expand_bn", "swish", momentum=0.9)
            left = left if depthwise else 1
        if depthwise:
            graph.conv(f"{name}_dwconv2", left)
            graph.norm(f"{name}_bn", "swish", momentum=0.9)
            left = 1
        if f"{name}_se_reduce" in graph.kernels:
            _squeeze(graph, name)
        graph.conv(f"{name}_project_conv", left)
        graph.norm(f"{name}_project_bn", "" if f"{name}_expand_conv" in graph.kernels else "swish", momentum=0.9)
        if has_shortcut:
            graph.joined(f"{name}_add", start)
    graph.conv("top_conv")
    graph.norm("top_bn", "swish", momentum=0.9)
    graph.top()
