"""What a step minimises, as pure functions: cross-entropy or focal loss, also for classes of unequal sizes, and L2."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from thawlab.data.types import Labels, indicator
from thawlab.models.classifier import Classifier
from thawlab.recipe import Phase

# The power of the focal loss has no finite slope at 0 where gamma is below 1.
_LEAST_DOUBT = 1e-12


class ClassTerms(NamedTuple):
    """What a loss knows of the classes, one float32 per class; None where the phase asks for none.

    Attributes:
        weights: that the losses are multiplied by.
        offsets: that are added to the logits.
    """

    weights: torch.Tensor | None = None
    offsets: torch.Tensor | None = None


def class_terms(phase: Phase, labels: Labels, classes: int, device: torch.device) -> ClassTerms:
    """Return a phase's weights and offsets by class.

    Balanced weights are n / (K · n_c), as scikit-learn's: their mean over the training images is 1. The offsets of logit
    adjustment are τ · log(n_c / n) (Menon et al. 2021, eq. 10).

    Args:
        phase: says which are wanted.
        labels: of the training images, at least one of each class.
        classes: their number.
        device: where the loss is computed.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = offsets = None
    if phase.class_weights == "balanced":
        weights = len(labels) / (classes * counts)
    elif phase.class_weights is not None:
        weights = np.array(phase.class_weights)
    if phase.logit_adjustment:
        offsets = phase.logit_adjustment * np.log(counts / len(labels))
    return ClassTerms(
        *(None if values is None else torch.tensor(values, dtype=torch.float32, device=device) for values in (weights, offsets))
    )


def training_loss(logits: torch.Tensor, targets: torch.Tensor, phase: Phase, terms: ClassTerms) -> torch.Tensor:
    """Return the mean loss of a batch.

    An image whose target gives class c the share q_c (one class; or several, of mixed images or with label smoothing) has the
    loss −Σ_c w_c · q_c · (1 − p_c)^γ · log p_c. Cross-entropy has γ = 0; the focal loss has γ > 0 (Lin et al. 2017). p is the
    softmax of the logits plus offsets. The mean is over the images, as in Keras, not over their weights, so that a batch can be
    computed in parts; torch's `cross_entropy` does the same for targets that are probabilities.

    Args:
        logits: n × classes.
        targets: int64 class numbers, n; or probabilities, n × classes.
        phase: says which loss.
        terms: weights and offsets by class.
    """
    logits = logits.float()
    if terms.offsets is not None:
        logits = logits + terms.offsets
    if phase.loss == "cross-entropy" and terms.weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=phase.label_smoothing)
    classes = logits.shape[1]
    shares = targets if targets.is_floating_point() else indicator(targets, classes)
    shares = (1 - phase.label_smoothing) * shares + phase.label_smoothing / classes
    if terms.weights is not None:
        shares = shares * terms.weights
    log_p = F.log_softmax(logits, dim=1)
    if phase.loss == "focal":
        shares = shares * (-torch.expm1(log_p)).clamp_min(_LEAST_DOUBT) ** phase.focal_gamma
    return -(shares * log_p).sum(dim=1).mean()


def l2_penalty(classifier: Classifier, phase: Phase) -> torch.Tensor | None:
    """Return λ · Σ w² over the kernels that are trained, as Keras' `kernel_regularizer=l2(λ)` adds it; None where λ is 0.

    Kernels are parameters of at least two dimensions; head and backbone have a λ of their own. Unlike decoupled weight decay
    it is part of the gradient that every optimiser sees.
    """
    terms = [
        strength * kernel.square().sum()
        for part, strength in ((classifier.head, phase.l2_head), (classifier.backbone, phase.l2_backbone))
        if strength
        for kernel in part.parameters()
        if kernel.requires_grad and kernel.ndim >= 2
    ]
    return torch.stack(terms).sum() if terms else None
