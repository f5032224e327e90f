"""What the report of a run is made of, read from its folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from thawlab.errors import OtherVersionError, ThawlabError, first_line
from thawlab.evaluation.predictions import Predictions, load_predictions
from thawlab.results import DataSummary, EpochRow, Results, V, read_results, read_rows, read_value
from thawlab.robustness import Shift, Slices
from thawlab.run import RunFolder


class Sources(NamedTuple):
    """What a report is made of, read from the run's folder."""

    folder: RunFolder
    results: Results
    data: DataSummary
    rows: list[EpochRow]
    test: Predictions
    shift: Shift | None
    slices: Slices | None


def read_sources(folder: RunFolder) -> Sources:
    """Read what the report of a finished run is made of.

    Raises:
        ThawlabError: if a file of the run is missing or damaged; the message names it.
    """
    data = read_value(folder.path / "data.json", DataSummary)
    test, results = load_predictions(folder.predictions("test")), read_results(folder.results)
    shift = read_measured(folder.shift, Shift, "--shift") or results.shift
    slices = read_measured(folder.slices, Slices, "--slices")
    return Sources(folder, results, data, read_rows(folder.metrics), test, shift, slices)


def read_measured(path: Path, kind: type[V], option: str) -> V | None:
    """Read what `thawlab evaluate` with an option wrote into a run's folder; None where it was not asked for.

    Raises:
        ThawlabError: if the file is damaged; the message says how it is made again.
    """
    if not path.is_file():
        return None
    try:
        return read_value(path, kind)
    except OtherVersionError:
        raise
    except ThawlabError:
        raise ThawlabError(f"{path}: is damaged; `thawlab evaluate RUN {option}` writes it again, or remove it") from None


@contextmanager
def fitting(folder: RunFolder) -> Iterator[None]:
    """Say so where the files of a run, each of them whole, do not fit each other."""
    try:
        yield
    except (LookupError, ValueError, TypeError, ArithmeticError) as error:
        reason = first_line(error)
        raise ThawlabError(
            f"{folder.path}: its files do not fit each other ({reason}); `thawlab repair` restores them"
        ) from error
