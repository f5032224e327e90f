"""From what a verb is given to what it works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thawlab.errors import UsageError
from thawlab.files import refuse_overwrite, user_path
from thawlab.opened import Run
from thawlab.recipe import Data, System, parse_part
from thawlab.recipe_text import source_text
from thawlab.run import RunFolder, find_run


def folder_of(run: Run | str | Path, runs: str | Path) -> RunFolder:
    """Return the folder of a run that is given by value, name or path.

    Raises:
        UsageError: if there is no such run.
    """
    return run.folder if isinstance(run, Run) else find_run(str(user_path(run)), user_path(runs))


def system_of(folder: RunFolder, **places: str | Path | None) -> System:
    """Return where a run's data and caches are: its own settings, but for the places that are given."""
    changes = {key: str(place) for key, place in places.items() if place is not None}
    own = System() if folder.imported.is_file() else folder.recipe.system
    return own.model_copy(update=changes)


def data_of(source: str | Path, settings: Mapping[str, Any], verb: str, **more: Any) -> Data:
    """Return the part of a recipe that says which images are meant and how they are read.

    Raises:
        UsageError: if a setting is not one of the data, or is wrong.
    """
    from thawlab.data.sources import canonical

    for key in settings:
        if not key.startswith("data."):
            raise UsageError(f"{key}: {verb} takes settings of the data only, e.g. data.layout=split/class")
    named = {key.removeprefix("data."): value for key, value in settings.items()}
    return parse_part(Data, {"source": canonical(source_text(source)), **named, **more}, verb)


def outputs(force: bool, inputs: Sequence[str | Path | None], **places: str | Path | None) -> list[Path | None]:
    """Return the paths to write, after checking that no file is lost: none of the inputs, no image or table in their folders.

    Args:
        force: whether files may be replaced.
        inputs: files and folders that are read.
        **places: the path of each file to write by the option that names it; None for none.

    Raises:
        UsageError: if a file exists and may not be replaced, or two are the same.
    """
    from thawlab.data.formats import has_image_extension

    read = [user_path(path) for path in inputs if path is not None]
    paths = {option: user_path(path) for option, path in places.items() if path is not None}
    for option, path in paths.items():
        target = path.resolve()
        is_data = has_image_extension(target.name) or target.suffix.lower() == ".parquet"
        inside = is_data and target.exists() and any(folder.resolve() in target.parents for folder in read)
        refuse_overwrite(path, force, [*read, path] if inside else read)
        if twin := next((name for name, other in paths.items() if name != option and other.resolve() == target), None):
            raise UsageError(f"{path}: is the file of both {option} and {twin}; give each a file of its own")
    return [paths.get(option) for option in places]
