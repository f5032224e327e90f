"""Activations computed inside the convolutions before them, for inference on a CPU: one pass over memory less each.

And such networks in bfloat16, which recent processors multiply several times as fast.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import cast, final

import torch
from torch import fx, nn

from thawlab.inference.folding import folded
from thawlab.models.quicker import QuickConv2d, agree, sharing

# What oneDNN calls an activation, and its numbers.
_Activation = tuple[str, tuple[float, ...]]
_NONE: _Activation = ("none", ())


def compacted(network: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """Return a network that computes what another one does in eval mode, with as few passes over memory as can be had.

    BatchNorm is folded into the convolutions, and on a CPU activations are computed by them. The network that was given stays
    as it is.

    Args:
        network: in eval mode.
        input_shape: of one input without the batch.
    """
    if isinstance(network, Rounded):
        return network
    return fused(folded(network, input_shape), input_shape)


@torch.no_grad()
def fused(network: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """Return a folded network whose convolutions compute the activations after them; itself where they cannot, or not alike.

    Args:
        network: as `folded` returns it.
        input_shape: of one input without the batch, to compare the two with.
    """
    graph = next((part for part in network.modules() if isinstance(part, fx.GraphModule)), None)
    if graph is None or not _on_onednn(network) or not (pairs := _pairs(graph)):
        return network  # what was fused before, too: nothing is copied for it
    result = sharing(network)
    graph = next(part for part in result.modules() if isinstance(part, fx.GraphModule))
    for convolution, after, activation in pairs:
        graph.set_submodule(convolution, FusedConv2d(cast("nn.Conv2d", graph.get_submodule(convolution)), activation))
        if after is not None:
            graph.set_submodule(after, nn.Identity())
    if not agree(network, result, input_shape):
        return network
    for layer in result.modules():
        if isinstance(layer, FusedConv2d):
            layer.forget()  # the shapes of the trial
    return result.eval()


@torch.no_grad()
def rounded(network: nn.Module) -> nn.Module:
    """Return a network that computes in bfloat16 up to its features, and in float32 from there to the logits.

    Args:
        network: a classifier in eval mode, as `compacted` returns it; it stays as it is.
    """
    for layer in network.modules():
        if isinstance(layer, FusedConv2d):
            layer.forget()  # what is ordered for shapes is not copied
    result = copy.deepcopy(network)
    for name, layer in list(result.named_modules()):
        if isinstance(layer, nn.Linear) and "head" in name.split("."):
            result.set_submodule(name, _Exact(layer))
        elif type(layer) in {FusedConv2d, nn.Conv2d, nn.Linear}:  # of others autocast casts what it takes
            layer.to(torch.bfloat16)
    return Rounded(result).eval()


@final
class Rounded(nn.Module):
    """A network whose operations round to bfloat16 where PyTorch's autocast lets them; gives float32.

    Args:
        inner: with weights of bfloat16 where these are rounded anyway.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return what the network gives, a tensor or several."""
        with torch.autocast(x.device.type, torch.bfloat16):
            outputs = self.inner(x)
        return tuple(part.float() for part in outputs) if isinstance(outputs, tuple) else outputs.float()


@final
class _Exact(nn.Module):
    """A layer that computes in float32 whatever is around it: probabilities follow from differences of logits."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            exact: torch.Tensor = self.layer(x.float())
        return exact


@final
class FusedConv2d(nn.Module):
    """A convolution, and what bounds its output, in one operation of oneDNN (Intel 2016 ff., "post-ops").

    Its weights are kept in the order in which oneDNN reads them for inputs of a shape; else it would order them with every batch.

    Args:
        layer: whose weights it has.
        activation: its name and numbers.
    """

    def __init__(self, layer: nn.Conv2d, activation: _Activation) -> None:
        super().__init__()
        mirrored = isinstance(layer, QuickConv2d) and layer.mirrored and max(layer.kernel_size) > 1
        weight = layer.weight.detach().flip(2, 3) if mirrored else layer.weight.detach()
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = layer.bias
        self.activation = activation
        self._places = (list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups)
        self._ordered: dict[tuple[int, ...], torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the bounded convolution of n × channels × height × width."""
        name, numbers = self.activation
        x = x.to(self.weight.dtype)
        shape = tuple(x.shape)
        if (weight := self._ordered.get(shape)) is None:
            reorder = cast("Callable[..., torch.Tensor]", torch._C._nn.mkldnn_reorder_conv2d_weight)
            weight = reorder(self.weight.to_mkldnn(), *self._places, shape)
            self._ordered[shape] = weight
        whole = torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *self._places, name, list(numbers), "")
        return cast("torch.Tensor", whole)

    def forget(self) -> None:
        """Let the weights go that are kept for the shapes of earlier inputs."""
        self._ordered.clear()


def _on_onednn(network: nn.Module) -> bool:
    here = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in network.parameters())
    can = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return here and can and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")


def _activation(module: nn.Module) -> _Activation | None:
    """Return how oneDNN calls what a module does; None where it has no name for it."""
    if isinstance(module, nn.Sequential) and all(_activation(part) == _NONE for part in list(module)[:-1]):
        return _activation(module[-1])  # what timm's BatchNorm does besides: nothing, then its activation
    if type(module) in {nn.ReLU6, nn.Hardtanh}:
        bounds = cast("nn.Hardtanh", module)
        return "hardtanh", (bounds.min_val, bounds.max_val)
    names: dict[type[nn.Module], _Activation] = {nn.ReLU: ("relu", ()), nn.SiLU: ("swish", ()), nn.Identity: _NONE}
    return names.get(type(module))


def _pairs(module: fx.GraphModule) -> list[tuple[str, str | None, _Activation]]:
    """Return the name of each convolution, that of the activation that alone takes its output, and how oneDNN calls that."""
    parts = dict(module.named_modules(remove_duplicate=False))
    calls = Counter(node.target for node in module.graph.nodes if node.op == "call_module")
    pairs: list[tuple[str, str | None, _Activation]] = []
    for node in module.graph.nodes:
        if calls[node.target] == 1 and _is_plain(parts[str(node.target)]):
            after, activation = _taker(node, parts)
            if activation is not None and calls[after.target] == 1:
                pairs.append((str(node.target), str(after.target), activation))
            else:
                pairs.append((str(node.target), None, _NONE))
    return pairs


def _taker(node: fx.Node, parts: Mapping[str, nn.Module]) -> tuple[fx.Node, _Activation | None]:
    """Return what alone takes a node's output, perhaps through identities, and how oneDNN calls it, if it can."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        activation = _activation(parts[str(node.target)]) if node.op == "call_module" else None
        if activation != _NONE:
            return node, activation
    return node, None


def _is_plain(layer: nn.Module) -> bool:
    """Return whether a layer is a convolution that oneDNN computes as it is."""
    if type(layer) not in {nn.Conv2d, QuickConv2d}:
        return False
    convolution = cast("nn.Conv2d", layer)
    carries = isinstance(layer, QuickConv2d) and layer.norm is not None
    return convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str) and not carries
