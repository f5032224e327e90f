"""thawlab: image classification by transfer learning, from images to a judged and explained classifier.

`import thawlab` is cheap: torch and timm are imported when a name that needs them is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Recipe", "Run", "ThawlabError", "UsageError", "load", "read_recipe", "train"]

if TYPE_CHECKING:
    from thawlab.api import Run, load, train
    from thawlab.errors import ThawlabError, UsageError
    from thawlab.recipe import Recipe, read_recipe

    __version__: str

_HOMES = {
    "Recipe": "thawlab.recipe",
    "read_recipe": "thawlab.recipe",
    "ThawlabError": "thawlab.errors",
    "UsageError": "thawlab.errors",
    "Run": "thawlab.api",
    "load": "thawlab.api",
    "train": "thawlab.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("thawlab")
    raise AttributeError(f"module 'thawlab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), "__version__", *_HOMES])
