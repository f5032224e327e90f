"""The models of a server, by name: opened once, or when somebody first asks for them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from thawlab.errors import ThawlabError, nearest
from thawlab.results import read_results
from thawlab.serving.answers import ModelFacts
from thawlab.serving.batching import Batcher
from thawlab.serving.observing import Observed
from thawlab.serving.refusals import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from thawlab.deploy.predictor import Predictor
    from thawlab.run import RunFolder


@final
@dataclass(frozen=True)
class Served:
    """A model that answers, and what is known of it."""

    name: str
    predictor: Predictor
    facts: ModelFacts


def served(folder: RunFolder, predictor: Predictor, engine: str | None, name: str | None = None) -> Served:
    """Return a model as it is served, made ready for pictures that come one by one; under its run's name, or another one.

    Raises:
        ThawlabError: if the run's results are damaged.
    """
    predictor.hurry()
    facts = ModelFacts(
        name=name or folder.name, classes=list(predictor.classes), size=predictor.preprocessing.size, engine=engine or "torch"
    )
    if not folder.imported.is_file() and folder.results.is_file():
        facts = facts.model_copy(update=_measured(folder))
    return Served(facts.name, predictor, facts)


def _measured(folder: RunFolder) -> dict[str, object]:
    results = read_results(folder.results)
    test, data = results.test, results.dataset
    return {
        "backbone": results.model.backbone,
        "dataset": data.name,
        "n_train": data.n_train,
        "n_test": data.n_test,
        "test_accuracy": test.accuracy if test.n else None,
        "test_accuracy_ci95": test.accuracy_ci95 if test.n else None,
        "calibration_error": test.ece_calibrated if test.n else None,
        "findings": results.diagnoses,
    }


@final
class Shelf:
    """Models by name; of those that are opened when asked for, the ones used last stay.

    Args:
        names: lists what there is.
        opener: opens a model; called in the computing thread, since it may take seconds.
        keep: how many stay open.
        waiting: pictures that may wait for each.
    """

    def __init__(self, names: Callable[[], list[str]], opener: Callable[[str], Served], keep: int, waiting: int) -> None:
        self._names, self._opener, self._keep, self._limit = names, opener, keep, waiting
        self._open: OrderedDict[str, tuple[Served, Batcher]] = OrderedDict()
        self._opening = asyncio.Lock()
        self.compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self.observed = Observed()

    @property
    def names(self) -> list[str]:
        """The names of all models, the default first."""
        return self._names()

    @property
    def waiting(self) -> int:
        """How many pictures wait for a network."""
        return sum(batcher.waiting for _, batcher in self._open.values())

    async def get(self, name: str) -> tuple[Served, Batcher]:
        """Return a model and what collects its pictures.

        Raises:
            RefusedError: 404 if there is no such model, 422 if it cannot be opened.
        """
        async with self._opening:
            if name not in self._open:
                known = self.names
                if name not in known:
                    hint = nearest(name[:100], known)
                    raise RefusedError(404, f"there is no model '{name[:100]}'{hint}; /v1/models lists them")
                try:
                    model = await asyncio.get_running_loop().run_in_executor(self.compute, self._opener, name)
                except ThawlabError as error:
                    raise RefusedError(422, f"'{name}' cannot be opened: {error}") from None
                self._open[name] = model, Batcher(model.predictor, self.compute, self._limit, self.observed.batches.observe)
                while len(self._open) > self._keep:
                    self._open.popitem(last=False)
            self._open.move_to_end(name)
            return self._open[name]
