"""Activations computed inside the convolutions before them, for inference on a CPU: one pass over memory less each."""

from collections import Counter
from collections.abc import Sequence
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
    return fused(folded(network, input_shape), input_shape)


@torch.no_grad()
def fused(network: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """Return a folded network whose convolutions compute the activations after them; itself where they cannot, or not alike.

    Args:
        network: as `folded` returns it.
        input_shape: of one input without the batch, to compare the two with.
    """
    if not _on_onednn(network) or not any(isinstance(part, fx.GraphModule) for part in network.modules()):
        return network
    result = sharing(network)
    graph = next(part for part in result.modules() if isinstance(part, fx.GraphModule))
    pairs = _pairs(graph)
    for convolution, activation in pairs:
        before, after = graph.get_submodule(convolution), graph.get_submodule(activation)
        graph.set_submodule(convolution, FusedConv2d(cast("nn.Conv2d", before), _activation(after) or _NONE))
        graph.set_submodule(activation, nn.Identity())
    return result.eval() if pairs and agree(network, result, input_shape) else network


@final
class FusedConv2d(nn.Module):
    """A convolution, and what bounds its output, in one operation of oneDNN (Intel 2016 ff., "post-ops").

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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the bounded convolution of n × channels × height × width."""
        name, numbers = self.activation
        whole = torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self._places, name, list(numbers), "")
        return cast("torch.Tensor", whole)


def _on_onednn(network: nn.Module) -> bool:
    here = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in network.parameters())
    return here and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def _activation(module: nn.Module) -> _Activation | None:
    """Return how oneDNN calls what a module does; None where it has no name for it."""
    if isinstance(module, nn.Sequential) and all(_activation(part) == _NONE for part in list(module)[:-1]):
        return _activation(module[-1])  # what timm's BatchNorm does besides: nothing, then its activation
    if type(module) in {nn.ReLU6, nn.Hardtanh}:
        bounds = cast("nn.Hardtanh", module)
        return "hardtanh", (bounds.min_val, bounds.max_val)
    names: dict[type[nn.Module], _Activation] = {nn.ReLU: ("relu", ()), nn.SiLU: ("swish", ()), nn.Identity: _NONE}
    return names.get(type(module))


def _pairs(module: fx.GraphModule) -> list[tuple[str, str]]:
    """Return the names of each convolution and the activation that alone takes its output, or takes it through identities."""
    parts = dict(module.named_modules(remove_duplicate=False))
    calls = Counter(node.target for node in module.graph.nodes if node.op == "call_module")
    pairs = []
    for node in module.graph.nodes:
        before = parts[str(node.target)] if node.op == "call_module" else None
        if type(before) not in {nn.Conv2d, QuickConv2d} or calls[node.target] > 1 or not _is_plain(cast("nn.Conv2d", before)):
            continue
        after, what = node, _NONE
        while what == _NONE and len(after.users) == 1:
            after = next(iter(after.users))
            what = (_activation(parts[str(after.target)]) if after.op == "call_module" else None) or ("", ())
        if what[0] not in {"", "none"} and calls[after.target] == 1:
            pairs.append((str(node.target), str(after.target)))
    return pairs


def _is_plain(layer: nn.Conv2d) -> bool:
    carries = isinstance(layer, QuickConv2d) and layer.norm is not None
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and not carries
