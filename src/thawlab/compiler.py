"""torch's compiler, which nothing here uses, imported only when something asks for more than to be left alone by it.

torchvision, timm and torch's optimisers import it only to keep single functions from being compiled, and it brings hundreds of
modules. What stands in for it until then keeps functions as they are.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, cast, final

_NAME, _TOOLS = "torch._dynamo", "torch._dynamo.utils"


def put_off() -> None:
    """Let imports of torch's compiler wait; to be called before torch is imported, and without effect after the compiler is."""
    if _NAME not in sys.modules:
        sys.meta_path.insert(0, _Finder())


@final
class _Finder:
    """Gives stand-ins for the compiler and for its tools; whoever wants another part of it gets the real one.

    Python asks of finders and loaders only these methods; `importlib.abc`, whose classes say so, takes longer to import than
    the rest of this program's start.
    """

    def find_spec(self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where a module is found; None leaves it to others."""
        if fullname in {_NAME, _TOOLS}:
            return ModuleSpec(fullname, cast("Any", self), is_package=fullname == _NAME)
        if fullname.startswith(f"{_NAME}."):
            _real(_NAME)
            return find_spec(fullname)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the stand-in."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: stand-ins are ready."""


@final
class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what looks through all modules does not ask for the compiler
            raise AttributeError(name)
        if (self.__name__, name) in _READY:
            return _READY[self.__name__, name]
        return getattr(_real(self.__name__), name)


def _as_it_is(function: Callable[..., Any] | None = None, *_args: Any, **_kwargs: Any) -> Callable[..., Any]:
    """Return a function that is not compiled anyhow, or what decorates one."""
    return function if function is not None else _as_it_is


def _nothing() -> None:
    """Break no graph: there is none."""


def _is_compile_supported(*args: Any) -> Any:
    """Ask the real one: torchvision imports it for one operator, to call it in deterministic training on an accelerator."""
    return _real(_TOOLS).is_compile_supported(*args)


# What the stand-ins have; the first two do what the real ones do outside a function that is being compiled.
_READY: dict[tuple[str, str], Callable[..., Any]] = {
    (_NAME, "disable"): _as_it_is,
    (_NAME, "graph_break"): _nothing,
    (_TOOLS, "is_compile_supported"): _is_compile_supported,
}


def _real(name: str) -> ModuleType:
    """Return the real module in the place of its stand-in."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    for stand_in in (_TOOLS, _NAME):
        if isinstance(sys.modules.get(stand_in), _StandIn):
            del sys.modules[stand_in]
    if isinstance(vars(sys.modules["torch"]).get("_dynamo"), _StandIn):
        del sys.modules["torch"]._dynamo  # torch imports what it is asked for and has not
    return importlib.import_module(name)
