"""The figures of a run's report, drawn here or in a process of their own that gets ready while the run is judged."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast, final

from thawlab.cores import usable_cores
from thawlab.report import figures
from thawlab.report.robustness_figures import shift_figure, slices_figure
from thawlab.report.sources import Sources, read_sources
from thawlab.run import RunFolder

# The figures of a report, by name; None where there is nothing to draw.
FIGURES: dict[str, Callable[[Sources], str | None]] = {
    "distribution": lambda of: figures.class_distribution(of.data.classes, of.data.per_class),
    "curves": lambda of: figures.learning_curves(of.rows, of.results.phases),
    "confusion": lambda of: figures.confusion_matrix(of.results.test.confusion, of.data.classes),
    "reliability": lambda of: figures.reliability_diagram(
        of.test, of.results.test.temperature, of.folder.recipe.evaluation.ece_bins
    ),
    "declining": lambda of: figures.declining_curve(of.test, of.results.test.temperature),
    "shift": lambda of: of.shift and shift_figure(of.shift),
    "slices": lambda of: of.slices and slices_figure(of.slices),
}


def draw_all(sources: Sources) -> dict[str, str]:
    """Return the figures of a report, by name."""
    drawn = {name: draw(sources) for name, draw in FIGURES.items()}
    return {name: svg for name, svg in drawn.items() if svg is not None}


@final
class Artist:
    """A process that draws the figures of one run's report."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def begin(self, folder: RunFolder) -> None:
        """Let the figures of a judged run be drawn, while this process goes on; once."""
        told = cast(TextIO, self._process.stdin)
        if not told.closed:
            with suppress(OSError):  # it has failed
                told.write(json.dumps(str(folder.path.resolve())) + "\n")
                told.close()

    def finish(self) -> dict[str, str] | None:
        """Return the figures, by name; None if the process failed, of which drawing here will tell the reason."""
        text = cast(TextIO, self._process.stdout).read()
        return cast("dict[str, str]", json.loads(text)) if self._process.wait() == 0 else None


@contextmanager
def artist() -> Iterator[Artist | None]:
    """Start a process that gets ready to draw: what draws takes long to load, on one core. None where there is only one."""
    if usable_cores() < 2:
        yield None
        return
    # -P: what lies in the folder that the user works in is not imported.
    command, pipe = [sys.executable, "-P", "-m", "thawlab.report.drawn"], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield Artist(process)
        finally:
            process.kill()


def _main() -> None:
    """Get ready, and draw the figures of the run that is named on the standard input, if one is."""
    figures.class_distribution(["one", "two"], {"train": [1, 1], "val": [1, 1], "test": [1, 1]})  # loads fonts and all else
    if line := sys.stdin.readline():
        json.dump(draw_all(read_sources(RunFolder(Path(json.loads(line))))), sys.stdout)


if __name__ == "__main__":
    _main()
