"""What was measured: the values of `results.json`, `data.json` and `metrics.jsonl`, frozen and versioned.

`read_results` is the only way from the file to the value: it checks the schema and brings older runs up to date.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, final

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, ValidationInfo, field_validator

from thawlab.errors import OtherVersionError, ThawlabError
from thawlab.files import read_json, write_json, write_text
from thawlab.robustness import Shift
from thawlab.values import Interval, Value

# The confusion matrix of more classes is written as the cells that are not 0: 3,000 classes have nine million.
_WRITTEN_WHOLE = 200


V = TypeVar("V", bound=Value)


@final
class Diagnosis(Value):
    """A problem that the recipe or the numbers show: its name, the numbers that show it, and one action."""

    id: str
    severity: Literal["error", "warning", "info"]
    evidence: str
    advice: str


@final
class DatasetResult(Value):
    """The data that a run used; `n_train`, `n_val` and `n_test` count images."""

    name: str
    fingerprint: str
    n_train: int
    n_val: int
    n_test: int
    classes: tuple[str, ...]


@final
class ModelResult(Value):
    """The backbone's name, and how many parameters the whole classifier has."""

    backbone: str
    parameters: int


@final
class PhaseResult(Value):
    """How one phase of training ended: the best epoch's measures on the validation split, None where they were not taken.

    `lr` is the schedule's peak; balanced accuracy and macro F1 are measured where the phase monitors them.
    """

    name: str
    trainable_parameters: int
    epochs_run: int
    best_epoch: int
    best_val_accuracy: float | None
    seconds: float
    stopped: str
    precision: str = "float32"
    lr: float | None = None
    best_val_balanced_accuracy: float | None = None
    best_val_macro_f1: float | None = None


class TrainResult(Value):
    """Loss (nats) and accuracy (fraction) in eval mode, on images without augmentation."""

    loss: float
    accuracy: float


class SplitResult(TrainResult):
    """The same of a held-out split of `n` images."""

    n: int


@final
class ClassResult(Value):
    """Precision, recall and F1 of one class, fractions; zeros where the split has none of its images (`n` = 0)."""

    class_name: str = Field(alias="class")
    n: int
    precision: float
    recall: float
    f1: float


@final
class SparseCounts(Value):
    """A large confusion matrix as it is written: its side, and (row, column, count) of each cell that is not 0."""

    n: int
    cells: tuple[tuple[int, int, int], ...]


def _whole_matrix(value: Any, info: ValidationInfo) -> Any:
    """Return the rows of a confusion matrix that was written as its cells; others are left as they are.

    Raises:
        ValueError: if a cell lies outside, or the matrix has not as many rows as there are classes.
    """
    if not isinstance(value, Mapping):
        return value
    sparse = SparseCounts.model_validate(value)
    if sparse.n != len(info.data.get("per_class", ())):
        raise ValueError(f"a matrix of {sparse.n:,} classes beside {len(info.data.get('per_class', ())):,}")
    if any(not (0 <= row < sparse.n and 0 <= column < sparse.n) for row, column, _ in sparse.cells):
        raise ValueError("a cell lies outside the matrix")
    rows = [[0] * sparse.n for _ in range(sparse.n)]
    for row, column, count in sparse.cells:
        rows[row][column] = count
    return rows


def _written_matrix(matrix: Sequence[Sequence[int]]) -> Any:
    """Return a confusion matrix as JSON: its rows or, of many classes, the cells that are not 0."""
    if len(matrix) <= _WRITTEN_WHOLE:
        return [list(row) for row in matrix]
    cells = [(r, c, count) for r, row in enumerate(matrix) for c, count in enumerate(row) if count]
    return {"n": len(matrix), "cells": cells}


Matrix = Annotated[
    tuple[tuple[int, ...], ...],
    BeforeValidator(_whole_matrix, json_schema_input_type=tuple[tuple[int, ...], ...] | SparseCounts),
    PlainSerializer(_written_matrix, when_used="json"),
]


@final
class TestResult(SplitResult):
    """Everything measured on the test split; metrics that plug-ins register are further keys, found by `metric`.

    Attributes:
        accuracy_ci95: Wilson interval of the accuracy.
        intervals: 95 % bootstrap intervals over the images, by metric.
        confusion: images by true class (rows) and predicted class (columns); of more than 200 classes only the cells that are
            not 0 are written.
    """

    __test__ = False  # no test case, whatever pytest makes of the name
    model_config = ConfigDict(extra="allow")

    accuracy_ci95: Interval
    top2: float | None = None
    top3: float | None = None
    top5: float
    balanced_accuracy: float | None = None
    macro_precision: float
    macro_recall: float
    macro_f1: float
    ece: float
    ece_calibrated: float
    ece_adaptive: float | None = None
    log_loss_calibrated: float | None = None
    brier: float | None = None
    roc_auc: float | None = None
    average_precision: float | None = None
    intervals: dict[str, Interval] = Field(default={})
    temperature: float
    per_class: tuple[ClassResult, ...]
    confusion: Matrix

    def metric(self, name: str) -> float | None:
        """Return a metric by its registered name; None where it was not measured."""
        value = getattr(self, name, None)
        return float(value) if isinstance(value, int | float) else None


@final
class Conformal(Value):
    """Prediction sets that hold the true class with a probability of at least 1 − alpha, and how they did on the test split."""

    alpha: float
    threshold: float
    n_calibration: int
    coverage: float
    mean_size: float
    single: float
    empty: float


@final
class Abstention(Value):
    """Accuracy when the least confident share of images is declined, by share, and prediction sets."""

    accuracy_when_declining: dict[str, float]
    conformal: Conformal | None = None


@final
class Separation(Value):
    """How well a score separates in-distribution from OOD images: AUROC, and the false-positive rate at 95 % recall."""

    auroc: float
    fpr95: float


@final
class OodSource(Value):
    """How well OOD images of one source are told apart: by distance, confidence and both; and the share beyond the limit."""

    n: int
    beyond_limit: float
    distance: Separation
    confidence: Separation
    both: Separation


@final
class Novelty(Value):
    """The limit of distance from the training images, and how it did.

    Attributes:
        limit: distance within which 99 % of the validation images lie.
        reference: training images that distances are measured to.
        n_held_out: validation images that set the limit.
        test_beyond_limit: share of test images beyond it.
        ood: by source; empty unless `evaluation.ood` asked for it.
    """

    limit: float
    reference: int = Field(alias="known")
    n_held_out: int
    test_beyond_limit: float
    ood: dict[str, OodSource] = Field(default={}, alias="foreign")


@final
class LabelSuspect(Value):
    """A held-out image whose label the classifier contradicts."""

    id: str
    class_name: str = Field(alias="class")
    suggested: str
    probability: float


@final
class LabelSuspects(Value):
    """Held-out labels that are contradicted: `count` of `n`, `contradicted_when_sure` of the `sure` most confident."""

    n: int = 0
    count: int = 0
    sure: int = 0
    contradicted_when_sure: int = 0
    first: tuple[LabelSuspect, ...] = ()


@final
class NearPair(Value):
    """A test image and the training image that it nearly repeats."""

    train: str
    test: str
    similarity: float


@final
class PartAccuracy(Value):
    """Accuracy on some of the test images."""

    n: int
    accuracy: float
    accuracy_ci95: Interval


@final
class NearDuplicates(Value):
    """Test images that nearly repeat a training image: `count` of `looked_at`, of which `too_smooth` cannot be judged.

    Attributes:
        looked_at: test images that were compared.
        too_smooth: of these, those with too little structure to tell.
        count: of these, those that nearly repeat a training image.
        first: the surest pairs.
        among_all: accuracy on all that were compared; None where nothing was found.
        without: accuracy on those of them that repeat no training image, nearly or exactly.
    """

    looked_at: int
    too_smooth: int
    count: int
    first: tuple[NearPair, ...] = ()
    among_all: PartAccuracy | None = None
    without: PartAccuracy | None = None


@final
class TestTimeAugmentation(SplitResult):
    """The test split judged by the mean of the logits over several views of each image."""

    __test__ = False
    views: str
    accuracy_ci95: Interval


@final
class Results(Value):
    """All that was measured in a run: the content of `results.json`.

    Attributes:
        shift: accuracy on a few corrupted test images; None of runs before it was measured, and of those without test images.
        gap: training minus test accuracy, both in eval mode on images without augmentation.
        seconds: by part of the work, and in total.
    """

    schema_version: int = Field(default=1, alias="schema")
    name: str
    digest: str
    seed: int
    dataset: DatasetResult
    model: ModelResult
    phases: tuple[PhaseResult, ...]
    train: TrainResult
    val: SplitResult
    test: TestResult
    abstention: Abstention | None = None
    novelty: Novelty | None = None
    label_suspects: LabelSuspects = LabelSuspects()
    near_duplicates: NearDuplicates | None = None
    test_time_augmentation: TestTimeAugmentation | None = None
    shift: Shift | None = None
    gap: float
    diagnoses: tuple[Diagnosis, ...] = ()
    seconds: dict[str, float]

    @field_validator("abstention", "novelty", "near_duplicates", mode="before")
    @classmethod
    def _absent(cls, value: Any) -> Any:
        return None if value == {} else value  # runs of 0.1.0 wrote an empty object where nothing was measured

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document, without what was not measured at all."""
        optional = "abstention", "novelty", "near_duplicates", "test_time_augmentation", "shift"
        absent = {key for key in optional if not getattr(self, key)}
        return self.model_dump(mode="json", by_alias=True, exclude=absent)


@final
class EpochRow(Value):
    """One epoch of `metrics.jsonl`; `lr` is the one of the epoch's last step.

    `val_balanced_accuracy` and `val_macro_f1` are measured where the phase monitors them.
    """

    phase: str
    epoch: int
    step: int
    seconds: float
    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    images_per_second: float | None = None
    val_balanced_accuracy: float | None = None
    val_macro_f1: float | None = None


@final
class FileNote(Value):
    """A file and the reason why it is listed."""

    id: str
    reason: str


@final
class FileNotes(Value):
    """The number of files, and the first of them."""

    count: int = 0
    files: tuple[FileNote, ...] = ()


@final
class Leaks(Value):
    """Images of val or test that are in train as well: pairs of ids (train, other), the first thousand."""

    count: int = 0
    pairs: tuple[tuple[str, str], ...] = ()


@final
class DataSummary(Value):
    """The content of `data.json`; `n` and `per_class` count images by split."""

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    n: dict[str, int]
    per_class: dict[str, tuple[int, ...]]
    geometry: str = ""
    quarantined: FileNotes = FileNotes()
    leaks: Leaks = Leaks()
    ignored: FileNotes = FileNotes()
    weights: str | None = None


def read_value(path: Path, kind: type[V]) -> V:
    """Read a JSON file of a run as a value.

    Raises:
        ThawlabError: if the file is missing, damaged or of a newer version; the message names it.
    """
    content = read_json(path)
    own = kind.model_fields.get("schema_version")
    if own and (schema := content.get("schema", own.default)) != own.default:
        raise OtherVersionError(f"{path}: has schema {schema}, this thawlab reads {own.default}; use the version that wrote it")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise ThawlabError(f"{path}: cannot be read: {place}: {problem['msg'].lower()}; `thawlab repair` restores it") from None


def read_results(path: Path) -> Results:
    """Read `results.json`, of this version or an older one.

    Raises:
        ThawlabError: if the file is missing, damaged or of a newer version; the message names it.
    """
    return read_value(path, Results)


def write_results(path: Path, results: Results) -> None:
    """Write `results.json` atomically."""
    write_json(path, results.as_json())


def read_rows(path: Path) -> list[EpochRow]:
    """Read `metrics.jsonl`, a row per epoch, in order.

    Raises:
        ThawlabError: if the file is missing or damaged; the message names it.
    """
    try:
        rows = [EpochRow.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise ThawlabError(f"{path}: is missing from the run; `thawlab repair` restores it") from None
    except (OSError, ValueError) as error:
        reason = "is damaged" if isinstance(error, ValidationError) else f"cannot be read ({error})"
        raise ThawlabError(f"{path}: {reason}; `thawlab repair` restores it") from None
    if not rows:
        raise ThawlabError(f"{path}: is empty; `thawlab repair` restores it")
    return rows


def write_rows(path: Path, rows: Iterable[EpochRow]) -> None:
    """Write `metrics.jsonl` whole, so that a crash never leaves a row twice or cut."""
    write_text(path, "".join(row.model_dump_json() + "\n" for row in rows))
