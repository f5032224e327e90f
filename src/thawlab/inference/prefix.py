"""Split a partly frozen backbone into the frozen prefix, a pure function of the image, and the part that trains."""

from operator import attrgetter
from typing import Any, NamedTuple, final

import torch
from torch import fx, nn

from thawlab.inference.tracing import trace
from thawlab.models.hooks import eval_mode


class Split(NamedTuple):
    """The two parts; both share their layers with the backbone they come from.

    Attributes:
        prefix: from the input to the last value that everything above depends on; gives rows, channels last.
        suffix: from these rows to the backbone's features.
        depth: how many operations of the backbone the prefix holds, for messages and keys.
    """

    prefix: nn.Module
    suffix: nn.Module
    depth: int


@final
class _Rows(nn.Module):
    """A module whose feature maps come out as n × height × width × channels, as caches store them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.inner(x)
        return values.permute(0, 2, 3, 1).contiguous() if values.ndim == 4 else values


def from_rows(rows: torch.Tensor) -> torch.Tensor:
    """Undo what `_Rows` did, without a copy: feature maps come back in channels-last memory."""
    return rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows


def split_backbone(backbone: nn.Module) -> Split | None:
    """Split a backbone above its last frozen operation.

    The backbone must be in the modes of its phase (see `set_modes`). The cut is the latest place where a single tensor
    is alive and everything before it is frozen and deterministic.

    Returns:
        The parts, or None where the network cannot be traced or nothing is frozen before the first trained layer.
    """
    graph = trace(backbone)
    if graph is None:
        return None
    nodes = list(graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    last_use = [max((position[user] for user in node.users), default=position[node]) for node in nodes]
    cut, reach = 0, 0
    for index, node in enumerate(nodes[:-1]):
        if _varies(node, backbone):
            break
        # Alive after this node: only the node itself, when no earlier value is used later.
        if index and reach <= index and node.op.startswith("call"):
            cut = index
        reach = max(reach, last_use[index])
    if cut == 0:
        return None
    prefix, suffix = _part(backbone, nodes[: cut + 1], None), _part(backbone, nodes[cut + 1 :], nodes[cut])
    return Split(_Rows(prefix), suffix, cut)


@torch.no_grad()
def agrees(split: Split, backbone: nn.Module, inputs: torch.Tensor) -> bool:
    """Return whether the two parts give what the backbone gives, in eval mode; tracing can miss what depends on the input."""
    with eval_mode(backbone):
        try:
            parts, whole = split.suffix(from_rows(split.prefix(inputs))), backbone(inputs)
            return bool(torch.allclose(parts, whole, rtol=1e-4, atol=1e-5))
        except RuntimeError:
            return False


def _varies(node: fx.Node, backbone: nn.Module) -> bool:
    """Return whether a node's value can differ between two epochs."""
    if node.op == "get_attr":
        value: Any = attrgetter(str(node.target))(backbone)
        return isinstance(value, torch.Tensor) and value.requires_grad
    if node.op != "call_module":
        return node.op == "call_function" and "drop" in getattr(node.target, "__name__", "")
    module = backbone.get_submodule(str(node.target))
    return any(_drops(part) for part in module.modules()) or any(parameter.requires_grad for parameter in module.parameters())


def _drops(module: nn.Module) -> bool:
    """Return whether a layer drops values at random in its present mode."""
    rate = getattr(module, "p", None) or getattr(module, "drop_prob", None)
    return "Drop" in type(module).__name__ and module.training and bool(rate)


def _part(backbone: nn.Module, nodes: list[fx.Node], entry: fx.Node | None) -> fx.GraphModule:
    """Copy some nodes of a graph into a module of their own, entered through the value of `entry` if given."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if entry is not None:
        copies[entry] = graph.placeholder("rows")
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    if entry is None:
        graph.output(copies[nodes[-1]])
    graph.lint()
    return fx.GraphModule(backbone, graph)
