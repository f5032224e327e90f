"""Registries: a name leads to a factory, and a wrong name leads to the nearest right one.

The registries are the project's only globals. A plug-in adds to them by naming a module in the entry-point group
`thawlab.plugins`; importing that module runs its `@register` lines.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, final

from thawlab.errors import ThawlabError, UsageError, first_line, listed, nearest

T = TypeVar("T")
_plugins_loaded: list[str] = []


def load_plugins() -> list[str]:
    """Import every plug-in once and return their names.

    Raises:
        ThawlabError: if one cannot be imported; the message names it.
    """
    if not _plugins_loaded:
        _plugins_loaded.append("")  # marks the search as done, also when a plug-in asks for a registry while it loads
        for point in entry_points(group="thawlab.plugins"):
            try:
                point.load()
            except Exception as error:  # whatever a plug-in does wrong, its name is what helps
                reason = first_line(error)
                raise ThawlabError(f"the plug-in '{point.name}' ({point.value}) cannot be loaded: {reason}") from error
            _plugins_loaded.append(point.name)
    return _plugins_loaded[1:]


def optional(module: str, extra: str, place: str) -> Any:
    """Import a module of a package that thawlab does not depend on.

    Args:
        module: its name.
        extra: of ours that brings it.
        place: what asks for it, for the message.

    Raises:
        UsageError: if it is not installed; the message says how to.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(f"{place} needs a package more ({error}); pip install 'thawlab[{extra}]'") from None


def about(entry: object) -> str:
    """Return the first line of an entry's docstring; empty if a plug-in has none."""
    return ((entry.__doc__ or "").strip().splitlines() or [""])[0]


@final
class Registry(Generic[T]):
    """A table of named values of one kind; iterating over it gives the names, sorted.

    Args:
        kind: what the values are, in words, for messages ("data set", "augmentation").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files a value under `name`.

        Raises:
            ValueError: if the name is taken; two meanings of one name would make recipes ambiguous.
        """

        def add(value: T) -> T:
            if name in self._entries:
                raise ValueError(f"the {self.kind} '{name}' is already registered")
            self._entries[name] = value
            return value

        return add

    def get(self, name: str, place: str = "") -> T:
        """Return the value filed under `name`.

        Args:
            name: the name as the user wrote it.
            place: where it was written ("phases.1.augment"), for the message.

        Raises:
            UsageError: if nothing is filed under the name; the message gives the nearest one that exists.
        """
        load_plugins()
        if name not in self._entries:
            where = f"{place}: " if place else ""
            hint = nearest(name, self._entries) or f" (known: {listed(self)})"
            raise UsageError(f"{where}there is no {self.kind} named '{name}'{hint}")
        return self._entries[name]

    def items(self) -> tuple[tuple[str, T], ...]:
        """Return names and values in the order in which they were registered, plug-ins last."""
        load_plugins()
        return tuple(self._entries.items())

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(sorted(self._entries))
