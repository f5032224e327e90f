"""The end of a run: the test split is read once, and everything measured goes into the folder."""

from collections.abc import Sequence
from typing import NamedTuple

from thawlab.evaluation.diagnosis import Outcome, diagnose, ordered
from thawlab.evaluation.predictions import Predictions
from thawlab.judging.measures import MEASURES
from thawlab.judging.subject import subject_of
from thawlab.models.saved import model_card, save_model
from thawlab.quality.near_leaks import NearLeaks
from thawlab.results import DatasetResult, Diagnosis, ModelResult, Results
from thawlab.training.context import Context
from thawlab.training.phase_data import PhaseData
from thawlab.training.state import TrainingState


class Judgement(NamedTuple):
    """What was measured of a run, yet without the seconds, and of what its report shows images."""

    results: Results
    test: Predictions
    near: NearLeaks | None


def judge(context: Context, data: PhaseData, state: TrainingState, known_before: Sequence[Diagnosis]) -> Judgement:
    """Evaluate a trained classifier and write its model and predictions into the run's folder.

    `data` is what its last phase was trained on, `known_before` are the diagnoses made before training.
    """
    subject = subject_of(context, data, state.phases)
    measured = {name: measure(subject) for name, measure in MEASURES.items()}
    dataset = context.dataset
    results = Results(
        name=context.recipe.name,
        digest=context.recipe.digest,
        seed=context.recipe.seed,
        dataset=DatasetResult(
            name=dataset.name,
            fingerprint=dataset.fingerprint,
            n_train=len(dataset.splits.train),
            n_val=len(dataset.splits.val),
            n_test=len(dataset.splits.test),
            classes=dataset.classes,
        ),
        model=ModelResult(backbone=context.spec.name, parameters=sum(p.numel() for p in context.classifier.parameters())),
        phases=tuple(state.phases),
        gap=measured["train"].accuracy - measured["test"].accuracy,
        seconds={},
        **measured,
    )
    folder, sets, reference = context.folder, results.abstention and results.abstention.conformal, subject.reference
    card = model_card(
        context.spec,
        context.recipe.model,
        classes=dataset.classes,
        preprocessing=context.preprocessing,
        temperature=subject.temperature,
        set_threshold=sets.threshold if sets else None,
        novelty_limit=reference and reference.limit,
    )
    save_model(folder.model, context.classifier, card, reference)
    for split in ("val", "test"):
        subject.tables[split].save(folder.predictions(split))
    diagnoses = tuple(ordered([*known_before, *diagnose(Outcome(results, state.rows))]))
    return Judgement(results.model_copy(update={"diagnoses": diagnoses}), subject.tables["test"], subject.near)
