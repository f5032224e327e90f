"""Modules that torch and timm import and that most runs never use: they wait until something asks for what is in them.

They are torch's compiler and its way to export, what tells the shapes of tensors without values, torchvision as a whole and
timm's hundred families of networks. Each is there from the beginning, but empty; asked for a name that it does not hold yet, it
is imported as ever, in place.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from types import MappingProxyType, ModuleType
from typing import Any, cast, final


@final
@dataclass(frozen=True)
class _Wait:
    """How a module waits.

    Args:
        ready: what it holds without being imported.
        first: what is done in its place.
        calls: functions of it that import it when they are called.
        names: other names, each with the module below it that is enough for it.
        after: modules that must be whole before this one is.
        apart: whether modules below it can do without it.
        torch: what torch's version begins with where it waits; others may want more of it than is known here.
    """

    ready: Mapping[str, object] = field(default_factory=dict)
    first: Callable[[], None] | None = None
    calls: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    after: Sequence[str] = ()
    apart: bool = False
    torch: str = ""


def _as_it_is(function: Callable[..., Any] | None = None, *_args: Any, **_kwargs: Any) -> Callable[..., Any]:
    """Return a function that is not compiled anyhow, or what decorates one."""
    return function if function is not None else _as_it_is


def _nothing() -> None:
    """Break no graph: there is none."""


def _set_generators() -> None:
    """Let torch's random generators be made, which torch allows only once their metaclass is known."""
    import torch
    from torch._custom_class_base import CustomClassBaseMeta

    torch._C._set_generator_metaclass(CustomClassBaseMeta)


_TESTED = "2.14."
_SHAPES = "torch._meta_registrations"
_CONSTANTS = "timm.data.constants"
_WAITING: Mapping[str, _Wait] = MappingProxyType(
    {
        # torchvision, timm and torch's optimisers keep single functions from being compiled; the two do here what the real ones
        # do outside of a function that is being compiled.
        "torch._dynamo": _Wait(ready={"disable": _as_it_is, "graph_break": _nothing}, after=(_SHAPES,)),
        # torchvision calls it for one operator, in deterministic training on an accelerator.
        "torch._dynamo.utils": _Wait(calls=("is_compile_supported",)),
        "torch.export": _Wait(after=(_SHAPES,), torch=_TESTED),
        # No name leads to it: whoever computes on the device "meta" says so (`need_shapes`).
        _SHAPES: _Wait(first=_set_generators, torch=_TESTED),
        # timm takes a normalisation and two functions of it.
        "torchvision": _Wait(apart=True),
        "torchvision.ops": _Wait(apart=True),
        "torchvision.models": _Wait(apart=True),
        "torchvision.models.feature_extraction": _Wait(calls=("create_feature_extractor", "get_graph_node_names")),
        # What finds networks by name is not here: without all families, it finds fewer (`models.families`).
        "timm": _Wait(names={"__version__": "timm.version"}, apart=True),
        "timm.models": _Wait(
            names={"group_parameters": "timm.models._manipulate", "load_model_config_from_hf": "timm.models._hub"}, apart=True
        ),
        # The families of networks take these from it.
        "timm.data": _Wait(
            names={
                name: _CONSTANTS
                for name in (
                    "DEFAULT_CROP_PCT",
                    *(
                        f"{kind}_{part}"
                        for kind in ("IMAGENET_DEFAULT", "IMAGENET_DPN", "OPENAI_CLIP")
                        for part in ("MEAN", "STD")
                    ),
                    "IMAGENET_INCEPTION_MEAN",
                    "IMAGENET_INCEPTION_STD",
                )
            },
            apart=True,
        ),
    }
)
_LOCK = threading.RLock()
_LOADING: set[str] = set()


def put_off() -> None:
    """Let these modules wait; to be called before torch is imported, and without effect after that."""
    if "torch" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, cast("Any", _Finder()))


def waits(name: str) -> bool:
    """Return whether a module, or what imports it, is still to be imported as a whole."""
    return isinstance(importlib.import_module(name), _Late)


def need_shapes() -> None:
    """Import what tells the shapes of tensors without values, on the device "meta"."""
    load(_SHAPES)


def load(name: str) -> ModuleType:
    """Import a module as a whole, in place if it waits."""
    module = importlib.import_module(name)
    with _LOCK:
        if _is_empty(module):
            for other in (*_WAITING[name].after, name.rpartition(".")[0]):
                if other in _WAITING:
                    load(other)
        if _is_empty(module):  # those may have loaded it
            _execute(module)
    return module


def _is_empty(module: ModuleType) -> bool:
    return isinstance(module, _Late) and module.__name__ not in _LOADING


def _execute(module: ModuleType) -> None:
    name, spec = module.__name__, cast("Any", module.__spec__)
    loader = spec.loader.real
    kept = dict(vars(module))
    for given in (*_WAITING[name].ready, *_WAITING[name].calls):
        del vars(module)[given]
    _LOADING.add(name)
    try:
        loader.exec_module(module)
    except BaseException:
        vars(module).update(kept)
        raise
    finally:
        _LOADING.discard(name)
    spec.loader = module.__loader__ = loader
    module.__class__ = ModuleType


@final
class _Late(ModuleType):
    """A module that is imported when it is asked for a name that it does not hold."""

    def __getattr__(self, name: str) -> Any:
        holder = _WAITING[self.__name__].names.get(name)
        if holder is None and name.startswith("__"):  # what looks through all modules does not ask for them
            raise AttributeError(name)
        with _LOCK:
            if self.__name__ in _LOADING:  # by this thread
                raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
            return getattr(importlib.import_module(holder) if holder else load(self.__name__), name)


@final
class _Finder:
    """Finds the modules that wait; Python asks no more of a finder and of a loader than these methods.

    The classes of `importlib.abc` that say so take longer to import than the rest of this program's start.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where a module is found; None leaves it to others."""
        if fullname in _WAITING and getattr(sys.modules.get("torch"), "__version__", "").startswith(_WAITING[fullname].torch):
            spec = PathFinder.find_spec(fullname, path)
            if spec is not None and spec.loader is not None:
                spec.loader = cast("Any", _Loader(spec.loader))
            return spec
        parent = fullname.rpartition(".")[0]
        if not isinstance(sys.modules.get(parent), _Late) or _WAITING[parent].apart:
            return None
        with _LOCK:
            if parent in _LOADING:  # by this thread, which imports its parts
                return None
            load(parent)
        module = sys.modules.get(fullname)
        return None if module is None else ModuleSpec(fullname, cast("Any", _Found(module)))


@final
class _Loader:
    """Makes a module that waits."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, empty."""
        return _Late(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Put into it what it holds from the beginning."""
        wait = _WAITING[module.__name__]
        vars(module).update(wait.ready)
        vars(module).update({name: _calling(module.__name__, name) for name in wait.calls})
        if wait.first is not None:
            wait.first()


@final
class _Found:
    """Gives a module that was imported while what is above it was."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        """Return the module."""
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        """Leave it as it was."""
        module.__spec__ = self.spec


def _calling(module: str, name: str) -> Callable[..., Any]:
    """Return what calls a function of a module, which is imported for it."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(load(module), name)(*args, **kwargs)

    return call
