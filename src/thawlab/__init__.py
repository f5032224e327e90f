"""thawlab: image classification by transfer learning, from images to a judged and explained classifier.

`import thawlab` is cheap: what it offers is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "Comparison",
    "Recipe",
    "Run",
    "ThawlabError",
    "UsageError",
    "check_data",
    "compare",
    "evaluate",
    "export",
    "find_lr",
    "import_model",
    "load",
    "open_run",
    "probe",
    "read_recipe",
    "study",
    "train",
]
_HOMES = {
    "ThawlabError": "errors",
    "UsageError": "errors",
    "Recipe": "recipe",
    "read_recipe": "recipe_text",
    "Run": "opened",
    "Comparison": "comparison.comparison",
}  # the rest: api

if TYPE_CHECKING:
    from thawlab.api import check_data, compare, evaluate, export, find_lr, import_model, load, open_run, probe, study, train
    from thawlab.comparison.comparison import Comparison
    from thawlab.errors import ThawlabError, UsageError
    from thawlab.opened import Run
    from thawlab.recipe import Recipe
    from thawlab.recipe_text import read_recipe

    __version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("thawlab")
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(f"thawlab.{_HOMES.get(name, 'api')}"), name)
    raise AttributeError(f"module 'thawlab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), "__version__", *__all__})
