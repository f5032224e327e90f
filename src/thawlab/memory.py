"""What one process keeps from one run to the next, while it is told to: a study's runs share their data.

Outside of `remembering` nothing is kept, since files may change between two calls.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

V = TypeVar("V")
_kept: ContextVar[dict[Hashable, Any] | None] = ContextVar("kept", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Keep within what `remember` makes; what it stands for must not change meanwhile."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def remember(key: Hashable, make: Callable[[], V]) -> V:
    """Return what `make` returns; within `remembering` it is called once per key."""
    kept = _kept.get()
    if kept is None:
        return make()
    if key not in kept:
        kept[key] = make()
    value: V = kept[key]
    return value
