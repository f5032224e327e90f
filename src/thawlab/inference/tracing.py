"""A network as a graph of operations, where it can be traced."""

from typing import Any

from torch import fx, nn


def trace(network: nn.Module) -> fx.Graph | None:
    """Return the operations of a network on its first input, or None where its control flow cannot be traced."""
    from timm.layers import get_notrace_functions, get_notrace_modules

    leaves = tuple(get_notrace_modules())

    class Tracer(fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return isinstance(module, leaves) or super().is_leaf_module(module, name)

    try:
        graph = Tracer(autowrap_functions=tuple(get_notrace_functions())).trace(network)
    except Exception:  # tracing fails in many ways on control flow; the caller then uses the network as it is
        return None
    # All inputs but the first are replaced by their default values, since networks are called with one input.
    for option in [node for node in graph.nodes if node.op == "placeholder"][1:]:

        def put(node: fx.Node, option: fx.Node = option) -> Any:
            return option.args[0] if node is option else node

        for user in list(option.users):
            user.args, user.kwargs = fx.map_arg(user.args, put), fx.map_arg(user.kwargs, put)
        graph.erase_node(option)
    return graph
