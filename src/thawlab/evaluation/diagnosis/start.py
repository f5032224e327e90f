"""Diagnoses that can be made before training, from the recipe, the data and a look at a few images."""

from thawlab.evaluation.diagnosis.rule import Finding, Start, before_training, diagnoses

# Stored and measured means of a BatchNorm layer differ by this many deviations only where something is wrong.
_FAR = 1.5
# Classes whose sizes differ by this factor make plain accuracy misleading.
_IMBALANCE = 10


def _too_small(start: Start) -> str:
    """Return the cells of the last feature map in words where they are too few, else an empty string."""
    if start.feature_side is None or start.feature_side > 2:
        return ""
    return f"at {start.recipe.data.image_size} px the last feature map has {start.feature_side}×{start.feature_side} cells"


@diagnoses.register("wrong-normalisation")
@before_training(rank=10)
def wrong_normalisation(start: Start) -> Finding | None:
    """Find inputs that are scaled otherwise than in the weights' pre-training."""
    if start.recipe.data.normalize == "weights" or not start.recipe.model.pretrained:
        return None
    evidence = f"inputs are normalised as '{start.recipe.data.normalize}', not as in the weights' pre-training"
    advice = 'set data.normalize = "weights"'
    if cells := _too_small(start):
        return Finding("error", f"{evidence}, and {cells}", f"{advice} and raise data.image_size")
    return Finding("error", evidence, advice)


@diagnoses.register("input-too-small")
@before_training(rank=20)
def input_too_small(start: Start) -> Finding | None:
    """Find a last feature map of 2×2 cells or fewer."""
    cells = _too_small(start)
    return Finding("error", cells, "raise data.image_size (96 or more for networks of stride 32)") if cells else None


@diagnoses.register("leakage")
@before_training(rank=30)
def leakage(start: Start) -> Finding | None:
    """Find files that are in training and in a held-out split."""
    if not start.leaks:
        return None
    evidence = f"{start.leaks} images of val or test are in the training split as well, file for file; data.json names them"
    advice = "look at `thawlab data check`, write a clean list (--write-clean list.csv) and train with data.exclude"
    return Finding("error", evidence, advice)


@diagnoses.register("corrected-test")
@before_training(rank=190)
def corrected_test(start: Start) -> Finding | None:
    """Find a test split whose labels people corrected: its accuracy is another measure than that of before."""
    if not start.corrected_test:
        return None
    evidence = f"data.corrections changes {start.corrected_test:,} test images: accuracies from before are not comparable"
    return Finding("info", evidence, "compare runs that have the same corrections, trained or evaluated again")


@diagnoses.register("batch-norm-mismatch")
@before_training(rank=50)
def batch_norm_mismatch(start: Start) -> Finding | None:
    """Find data far from what the backbone's BatchNorm layers have stored, unless their scaling explains it."""
    if start.batch_norm is None or start.batch_norm <= _FAR or start.recipe.data.normalize != "weights":
        return None
    evidence = (
        f"the data's means lie {start.batch_norm:.1f} standard deviations from those stored in a BatchNorm layer of the backbone"
    )
    advice = 'check that the weights and their config.json belong together; a phase with batch_norm = "train" adapts them'
    return Finding("warning", evidence, advice)


@diagnoses.register("padded-input")
@before_training(rank=60)
def padded_input(start: Start) -> Finding | None:
    """Find small images that are padded for a pretrained backbone, not enlarged."""
    if start.recipe.data.resize != "pad" or not start.recipe.model.pretrained:
        return None
    evidence = "small images are padded, not enlarged: the backbone sees objects smaller than in its pre-training"
    return Finding("warning", evidence, 'set data.resize = "upsample"')


@diagnoses.register("class-imbalance")
@before_training(rank=110)
def class_imbalance(start: Start) -> Finding | None:
    """Find classes of very different sizes, where the accuracy is that of the large ones."""
    present = [count for count in start.train_counts if count]
    if len(present) < 2 or max(present) < _IMBALANCE * min(present):
        return None
    sizes = (
        f"{max(present) / min(present):.0f} times as many training images as the smallest ({max(present):,} and {min(present):,})"
    )
    evidence = f"the largest class has {sizes}"
    advice = "judge by the macro metrics, and add images of the small classes"
    if not any(phase.logit_adjustment or phase.class_weights or phase.sampling == "balanced" for phase in start.recipe.phases):
        advice += '; phases learn the small classes better with logit_adjustment = 1.0 and monitor = "balanced_accuracy"'
    return Finding("warning", evidence, advice)
