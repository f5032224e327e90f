"""What a diagnosis is made of: the evidence it looks at, and the registry of rules that find one."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Literal, NamedTuple

from thawlab.recipe import Recipe
from thawlab.registry import Registry
from thawlab.results import Diagnosis, EpochRow, PhaseResult, Results


class Start(NamedTuple):
    """What is known before training.

    Attributes:
        recipe: closed.
        feature_side: side of the backbone's last feature map in cells, if known.
        leaks: images of val or test that are in train as well, file for file.
        train_counts: training images per class.
        batch_norm: distance of the data from what the backbone's BatchNorm layers stored, in deviations, if known.
        corrected_test: images of test whose labels people corrected, or that they left out.
    """

    recipe: Recipe
    feature_side: int | None = None
    leaks: int = 0
    train_counts: Sequence[int] = ()
    batch_norm: float | None = None
    corrected_test: int = 0


class Outcome(NamedTuple):
    """What is known after training: all results, and a row per epoch."""

    results: Results
    rows: Sequence[EpochRow] = ()

    def rows_by_phase(self) -> list[tuple[PhaseResult, Sequence[EpochRow]]]:
        """Return each phase with its rows; phases of old runs may share a name, so that rows are told apart by their order."""
        phases, rows = self.results.phases, iter(self.rows)
        return [(phase, list(islice(rows, phase.epochs_run))) for phase in phases]

    @property
    def last_rows(self) -> Sequence[EpochRow]:
        """The rows of the last phase."""
        parts = self.rows_by_phase()
        return parts[-1][1] if parts else ()

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.results.dataset.classes)

    def above_chance(self, accuracy: float) -> float:
        """Return how far an accuracy lies on the way from chance (0) to perfection (1)."""
        chance = 1 / self.classes
        return (accuracy - chance) / (1 - chance)


class Finding(NamedTuple):
    """What a rule found: its severity, the numbers that show it, and one action."""

    severity: Literal["error", "warning", "info"]
    evidence: str
    advice: str


Found = Finding | Iterable[Finding] | None


class Rule(NamedTuple):
    """A function that finds one diagnosis.

    Attributes:
        rank: causes have lower ranks than what follows from them; the report shows them in this order.
        find: gives what was found; takes a `Start` (before training) or an `Outcome` (after it).
        before_training: which of the two it takes.
        unless: names of diagnoses that explain this one; where one of them was found, the rule is not asked.
    """

    rank: int
    find: Callable[..., Found]
    before_training: bool
    unless: frozenset[str]


diagnoses: Registry[Rule] = Registry("diagnosis")


def before_training(rank: int, unless: Iterable[str] = ()) -> Callable[[Callable[[Start], Found]], Rule]:
    """Make a rule of a function of what is known before training."""
    return lambda find: Rule(rank, find, True, frozenset(unless))


def after_training(rank: int, unless: Iterable[str] = ()) -> Callable[[Callable[[Outcome], Found]], Rule]:
    """Make a rule of a function of the results."""
    return lambda find: Rule(rank, find, False, frozenset(unless))


def diagnose(known: Start | Outcome) -> list[Diagnosis]:
    """Return what all rules find in what is known, causes before what follows from them.

    Rules are asked in the order in which they were registered.
    """
    found: list[Diagnosis] = []
    for name, rule in diagnoses.items():
        if rule.before_training == isinstance(known, Start) and not rule.unless & {entry.id for entry in found}:
            given = rule.find(known)
            findings = (given,) if isinstance(given, Finding) else given or ()
            found += [Diagnosis(id=name, **finding._asdict()) for finding in findings]
    return ordered(found)


def ordered(entries: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Return diagnoses with causes before what follows from them; those of rules that are gone come last."""
    ranks = {name: rule.rank for name, rule in diagnoses.items()}
    return sorted(entries, key=lambda entry: ranks.get(entry.id, max(ranks.values(), default=0) + 1))
