"""The end of a run: the test split is read once, and everything measured goes into the folder."""

from collections.abc import Sequence

from thawlab.evaluation.diagnosis import Outcome, diagnose, ordered
from thawlab.judging.kept_images import keep_images
from thawlab.judging.measures import MEASURES
from thawlab.judging.outputs import Trained
from thawlab.judging.subject import Subject, subject_of
from thawlab.models.saved import save_model
from thawlab.results import DatasetResult, Diagnosis, EpochRow, ModelResult, PhaseResult, Results
from thawlab.training.context import Context
from thawlab.training.phase_data import PhaseData


def judge(
    context: Context, data: PhaseData, phases: Sequence[PhaseResult], rows: Sequence[EpochRow], known_before: Sequence[Diagnosis]
) -> Results:
    """Evaluate a trained classifier and write its model, predictions and some images into the run's folder.

    Args:
        context: of the run, with the trained classifier.
        data: what its last phase was trained on.
        phases: how they ended.
        rows: of all epochs.
        known_before: diagnoses made before training.

    Returns:
        All that was measured, yet without the seconds.
    """
    subject = subject_of(Trained(context, data))
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
        phases=tuple(phases),
        gap=measured["train"].accuracy - measured["test"].accuracy,
        seconds={},
        **measured,
    )
    _save(subject, results)
    return results.model_copy(update={"diagnoses": tuple(ordered([*known_before, *diagnose(Outcome(results, rows))]))})


def _save(subject: Subject, results: Results) -> None:
    """Write the model, the predictions and the images that the report shows."""
    context = subject.trained.context
    sets = results.abstention and results.abstention.conformal
    save_model(
        context.folder.model,
        context.classifier,
        context.spec,
        context.dataset.classes,
        context.preprocessing,
        context.recipe.model,
        subject.temperature,
        sets.threshold if sets else None,
        subject.reference,
    )
    for split in ("val", "test"):
        subject.tables[split].save(context.folder.predictions(split))
    keep_images(context, subject.tables["test"], [entry.id for entry in results.label_suspects.first], subject.near)
