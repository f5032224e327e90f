from __future__ import annotations

from collections.abc import Callable

from thawlab.evaluation.diagnosis import Outcome, Start, diagnose, diagnoses, ordered
from thawlab.recipe import Recipe
from thawlab.results import Diagnosis, Results

# Causes, and after them what follows from them.
ORDER = [
    "wrong-normalisation",
    "input-too-small",
    "leakage",
    "near-leakage",
    "batch-norm-mismatch",
    "padded-input",
    "learning-rate-too-high",
    "class-collapse",
    "learning-rate-too-low",
    "chance-level",
    "class-imbalance",
    "label-noise",
    "stopped-early",
    "validation-too-small",
    "overfitting",
    "underfitting",
    "over-confidence",
    "under-confidence",
    "corrected-test",
]


def _named(*names: str) -> list[Diagnosis]:
    return [Diagnosis(id=name, severity="info", evidence="", advice="") for name in names]


def test_causes_come_before_consequences_and_every_name_has_its_place() -> None:
    mixed = _named("overfitting", "leakage", "over-confidence", "label-noise")
    assert [entry.id for entry in ordered(mixed)] == ["leakage", "label-noise", "overfitting", "over-confidence"]
    rules = dict(diagnoses.items())
    assert sorted(rules, key=lambda name: rules[name].rank) == ORDER
    assert len({rule.rank for rule in rules.values()}) == len(rules)


def test_diagnoses_of_rules_that_are_gone_come_last() -> None:
    assert [entry.id for entry in ordered(_named("gone", "overfitting"))] == ["overfitting", "gone"]


def test_a_rule_is_told_apart_from_those_that_explain_it_by_names_that_exist() -> None:
    rules = dict(diagnoses.items())
    names = list(rules)
    for place, (name, rule) in enumerate(rules.items()):
        assert rule.unless <= set(names[:place]), f"{name} is asked before what explains it"


def test_every_diagnosis_has_its_evidence_in_numbers_and_one_action(
    recipe: Callable[..., Recipe], make_results: Callable[..., Results]
) -> None:
    nothing = {"n": 0, "accuracy": 0.0, "loss": 0.0}
    at_chance = {"accuracy": 0.5, "accuracy_ci95": [0.2, 0.6], "ece": 0.3}
    found = [
        *diagnose(Start(recipe("data.normalize=unit", "data.resize=pad"), 1)),
        *diagnose(Outcome(make_results(val=nothing, test=at_chance))),
        *diagnose(Outcome(make_results(val=nothing, gap=0.3))),
    ]
    assert len(found) == 6
    for entry in found:
        assert set(entry.model_dump()) == {"id", "severity", "evidence", "advice"}
        assert entry.severity in {"error", "warning", "info"}
        assert entry.evidence
        assert entry.advice
