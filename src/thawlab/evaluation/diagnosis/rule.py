"""What a diagnosis is made of: the evidence it looks at, and the registry of rules that find one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, final

from thawlab.recipe import Recipe
from thawlab.registry import Registry
from thawlab.results import Diagnosis, EpochRow, PhaseResult, Results

Severity = Literal["error", "warning", "info"]


@final
@dataclass(frozen=True)
class Start:
    """What is known before training.

    Attributes:
        recipe: closed.
        feature_side: side of the backbone's last feature map in cells, if known.
        leaks: images of val or test that are in train as well, file for file.
        train_counts: training images per class.
        batch_norm: distance of the data from what the backbone's BatchNorm layers stored, in deviations, if known.
    """

    recipe: Recipe
    feature_side: int | None = None
    leaks: int = 0
    train_counts: Sequence[int] = ()
    batch_norm: float | None = None


@final
@dataclass(frozen=True)
class Outcome:
    """What is known after training: all results, and a row per epoch."""

    results: Results
    rows: Sequence[EpochRow] = ()

    def rows_by_phase(self) -> list[tuple[PhaseResult, Sequence[EpochRow]]]:
        """Return each phase with its rows; phases of old runs may share a name, so that rows are told apart by their order."""
        parts, start = [], 0
        for phase in self.results.phases:
            parts.append((phase, self.rows[start : start + phase.epochs_run]))
            start += phase.epochs_run
        return parts

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


@final
@dataclass(frozen=True)
class Finding:
    """What a rule found: how grave it is, the numbers that show it, and one action."""

    severity: Severity
    evidence: str
    advice: str


Found = Finding | Iterable[Finding] | None


@final
@dataclass(frozen=True)
class Rule:
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
    found: list[tuple[int, Diagnosis]] = []
    for name, rule in diagnoses.items():
        if rule.before_training != isinstance(known, Start) or rule.unless & {entry.id for _, entry in found}:
            continue
        given = rule.find(known)
        for finding in (given,) if isinstance(given, Finding) else given or ():
            entry = Diagnosis(id=name, severity=finding.severity, evidence=finding.evidence, advice=finding.advice)
            found.append((rule.rank, entry))
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]


def ordered(entries: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Return diagnoses with causes before what follows from them; those of rules that are gone come last."""
    ranks = {name: rule.rank for name, rule in diagnoses.items()}
    return sorted(entries, key=lambda entry: ranks.get(entry.id, max(ranks.values(), default=0) + 1))
