"""Where a person's decisions on labels go: into a table beside the data, whose place the server alone decides."""

from __future__ import annotations

import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from thawlab.data.corrections import Correction, Decision, append_correction, read_corrections
from thawlab.data.sources import datasets
from thawlab.errors import ThawlabError, UsageError, listed, nearest
from thawlab.files import found_path
from thawlab.plan.resolve import beside
from thawlab.serving.suspects import suspects_of
from thawlab.values import Value

if TYPE_CHECKING:
    from thawlab.run import RunFolder

_UNSAFE = re.compile(r"[^\w.-]+", re.ASCII)


class Decided(BaseModel):
    """What a person decided on an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(min_length=1, max_length=4096)]
    decision: Decision
    label: Annotated[str, Field(max_length=1024, description="The right class; for `relabel` alone.")] = ""


class Row(Value):
    """A decision that the table holds."""

    id: str
    decision: Decision
    label: str
    time: str


class Corrections(Value):
    """What was decided so far, where it is written, and what to do with it."""

    file: Annotated[str, Field(description="The table of corrections.")]
    command: Annotated[str, Field(description="Trains the same recipe with them.")]
    decided: Annotated[list[Row], Field(description="The last decision on each image.")]


def table_of(folder: RunFolder, runs: Path) -> Path:
    """Return where the corrections of a run's data are written: the table that it was trained with, or one beside its data.

    Raises:
        ThawlabError: if the run has no recipe, or its data are gone.
    """
    recipe = beside(folder.recipe, folder.path)
    if recipe.data.corrections is not None:
        used = found_path(recipe.data.corrections, recipe.system.base_dirs)
        if used.is_file():
            return used
    source = found_path(recipe.data.source, recipe.system.base_dirs)
    if recipe.data.source.partition(":")[0] in datasets:
        return runs / f"{_UNSAFE.sub('-', recipe.data.source)}-corrections.csv"
    if not source.exists():
        raise ThawlabError(
            f"{folder.name}: its data, {recipe.data.source}, are not here any more; corrections belong beside them"
        )
    place = source.resolve()
    return source.parent / f"{place.name if place.is_dir() else place.stem}-corrections.csv"


def corrections_of(folder: RunFolder, runs: Path) -> Corrections:
    """Return what was decided on the images of a run's data so far.

    Raises:
        ThawlabError: if the run has no recipe, or the table is damaged.
    """
    file = table_of(folder, runs)
    rows = read_corrections(file) if file.is_file() else ()
    last = {row.id: Row(id=row.id, decision=row.decision, label=row.label, time=row.time) for row in rows}
    command = shlex.join(["thawlab", "train", str(folder.recipe_file), "--runs", str(runs), f"data.corrections={file}"])
    return Corrections(file=str(file), command=command, decided=list(last.values()))


def correct(folder: RunFolder, runs: Path, decided: Decided) -> None:
    """Write a decision into the table.

    Raises:
        ThawlabError: if the image or the class is unknown, or the table cannot be written.
    """
    classes, suspects = suspects_of(folder)
    suspect = next((one for one in suspects if one.id == decided.id), None)
    if suspect is None:
        raise UsageError(f"{folder.name}: '{decided.id[:200]}' is none of its suspects or mistakes")
    if decided.decision == "relabel" and decided.label not in classes:
        hint = nearest(decided.label, classes) or f" (classes: {listed(classes)})"
        raise UsageError(f"{folder.name}: has no class '{decided.label[:200]}'{hint}")
    if decided.decision != "relabel" and decided.label:
        raise UsageError(f"label: goes with relabel and not with {decided.decision}; leave it out")
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    append_correction(
        table_of(folder, runs), Correction(decided.id, decided.decision, decided.label, suspect.split, suspect.given, now)
    )
