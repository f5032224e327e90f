"""Which parameters a phase trains, and in which mode each layer runs."""

from torch import nn

from thawlab.errors import UsageError
from thawlab.models.classifier import Classifier


def layer_groups(backbone: nn.Module, coarse: bool) -> dict[str, int]:
    """Return the layer group of every backbone parameter, numbered from 0 at the input.

    Groups are stages if `coarse`, else the finest that the network's `group_matcher` (timm's) names.
    """
    from timm.models import group_parameters

    groups: dict[str, int] = group_parameters(backbone, backbone.group_matcher(coarse=coarse), reverse=True)  # type: ignore[operator]
    if coarse:
        # Some networks name their last normalisation a group of its own; it belongs to the stage that it closes.
        shapes = {name: parameter.ndim for name, parameter in backbone.named_parameters()}
        last = max(groups.values())
        if all(shapes[name] < 2 for name, group in groups.items() if group == last):
            groups = {name: min(group, last - 1) for name, group in groups.items()}
    return groups


def trained_names(backbone: nn.Module, train: str, place: str = "train") -> set[str]:
    """Return the names of the backbone parameters that `train` selects; `place` is where it stands in the recipe, for messages.

    It is "head", "all", "last:N" (the last N layers that have parameters) or "stages:N" (the last N stages).

    Raises:
        UsageError: if the backbone has fewer layers or stages than asked for.
    """
    if train == "head":
        return set()
    layer_of = {name: name.rpartition(".")[0] for name, _ in backbone.named_parameters()}
    if train == "all":
        return set(layer_of)
    kind, _, count = train.partition(":")
    if kind == "stages":
        groups = layer_groups(backbone, coarse=True)
    else:
        numbers = {layer: number for number, layer in enumerate(dict.fromkeys(layer_of.values()))}
        groups = {name: numbers[layer] for name, layer in layer_of.items()}
    total = max(groups.values()) + 1
    if int(count) > total:
        what = "stages" if kind == "stages" else "layers"
        raise UsageError(f"{place} = '{train}': the backbone has {total} {what}; use \"all\" for every one")
    return {name for name, group in groups.items() if group >= total - int(count)}


def freeze(classifier: Classifier, train: str) -> None:
    """Let the head and the selected backbone parameters receive gradients, and no others."""
    chosen = trained_names(classifier.backbone, train)
    for name, parameter in classifier.backbone.named_parameters():
        parameter.requires_grad_(name in chosen)
    classifier.head.requires_grad_(True)


def set_modes(module: nn.Module, batch_norm: str) -> None:
    """Put a module into training mode, except what must not change.

    A part whose parameters are all frozen runs in eval mode, with its dropout: it is then a pure function. BatchNorm layers
    that train run with their stored statistics where the phase says "eval".
    """
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    module.training = True
    for child in module.children():
        set_modes(child, batch_norm)
    if batch_norm == "eval" and isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.eval()


def is_frozen(module: nn.Module) -> bool:
    """Return whether no parameter of a module receives gradients."""
    return not any(parameter.requires_grad for parameter in module.parameters())


def trainable_count(module: nn.Module) -> int:
    """Return how many numbers receive gradients."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
