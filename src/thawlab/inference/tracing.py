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
        return _without_options(Tracer(autowrap_functions=tuple(get_notrace_functions())).trace(network))
    except Exception:  # tracing fails in many ways on control flow; whoever asked then works on the network as it is
        return None


def _without_options(graph: fx.Graph) -> fx.Graph:
    """Put the default values in place of all inputs but the first, which networks are never given."""
    for option in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        default = option.args[0]

        def put(node: fx.Node, option: fx.Node = option, default: Any = default) -> Any:
            return default if node is option else node

        for user in list(option.users):
            user.args, user.kwargs = fx.map_arg(user.args, put), fx.map_arg(user.kwargs, put)
        graph.erase_node(option)
    return graph
