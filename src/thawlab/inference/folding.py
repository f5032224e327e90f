"""BatchNorm folded into the convolution before it: the same function of the image with fewer passes over memory.

In eval mode BatchNorm is a fixed scale and shift per channel, which the convolution's own weights can carry (Jacob et al.
2018, section 3.2). Depthwise networks, which are bound by memory, gain most.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from thawlab.inference.tracing import trace
from thawlab.models.hooks import eval_mode
from thawlab.models.quicker import agree, rest_of, sharing, swapped


@torch.no_grad()
def folded(network: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """Return a network that computes what another one does in eval mode, with BatchNorm folded into the convolutions.

    The weights are those of now; the network that was given stays as it is.

    Args:
        network: in eval mode.
        input_shape: of one input without the batch, to check the result with: tracing can miss what depends on the input.

    Returns:
        The folded network; the network itself where nothing can be folded, or the two would differ by more than rounding.
    """
    if not any(isinstance(part, nn.BatchNorm2d) for part in network.modules()):
        return network
    result = _graph(network)
    if result is None:
        return network
    pairs = _pairs(result)
    for convolution, norm in pairs:
        before, after = result.get_submodule(convolution), result.get_submodule(norm)
        merged = fuse_conv_bn_eval(before, after)  # type: ignore[type-var,arg-type]
        result.set_submodule(convolution, merged.to(memory_format=torch.channels_last))
        result.set_submodule(norm, rest_of(after))
    result.eval()
    if not pairs or not agree(network, result, input_shape):
        return network
    return _mirrored(network, result, input_shape)


def foldable(network: nn.Module) -> list[tuple[str, str]]:
    """Return the names of each convolution, and of the BatchNorm that could be folded into it; none where most could not."""
    with eval_mode(network):
        result = _graph(network)
    pairs = [] if result is None else _pairs(result)
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    return pairs if 2 * len(pairs) > norms else []


def _graph(network: nn.Module) -> fx.GraphModule | None:
    graph = trace(network)
    return None if graph is None else fx.GraphModule(network, graph)


def _mirrored(network: nn.Module, result: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """Return the folded network without the copies that "same" padding takes; as it is where it has none."""
    from timm.layers import Conv2dSame

    if any(isinstance(part, Conv2dSame) for part in result.modules()):
        for back in ((2, 3), (1, 2)):  # outputs that are maps have their channels before height and width, or behind
            quick = swapped(sharing(result), back)
            if quick is not None and agree(network, quick.eval(), input_shape):
                return quick
    return result


def _pairs(module: fx.GraphModule) -> list[tuple[str, str]]:
    """Return the names of each convolution and the BatchNorm that alone takes its output."""
    from timm.layers import BatchNormAct2d, Conv2dSame

    convolutions, norms = {nn.Conv2d, Conv2dSame}, {nn.BatchNorm2d, BatchNormAct2d}
    parts = dict(module.named_modules())
    calls = Counter(node.target for node in module.graph.nodes if node.op == "call_module")
    pairs = []
    for node in module.graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution, norm = parts[str(before.target)], parts[str(node.target)]
        # A layer that is called in several places, or a kind of norm that does more than BatchNorm, is left alone.
        once = calls[before.target] == calls[node.target] == 1
        if once and type(convolution) in convolutions and type(norm) in norms and norm.running_mean is not None:
            pairs.append((str(before.target), str(node.target)))
    return pairs
