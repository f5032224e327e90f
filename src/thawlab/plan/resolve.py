"""From what a user names to a closed recipe: everything left open becomes explicit, and every name is checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from thawlab import progress
from thawlab.data.augmentation import Pipeline
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.sources import canonical, check_source
from thawlab.errors import UsageError, listed, nearest
from thawlab.files import user_path
from thawlab.models.catalog import BackboneSpec, resolve_backbone
from thawlab.models.classifier import make_preprocessing
from thawlab.plan.defaults import DEFAULT_BACKBONE, default_tables
from thawlab.recipe import Data, Model, Phase, Recipe, parse_recipe
from thawlab.recipe_text import SHORT, read_toml, source_text, with_overrides


class Plan(NamedTuple):
    """A recipe in which nothing is open any more, and the backbone that it names."""

    recipe: Recipe
    spec: BackboneSpec


def plan_of(source: str | Path | Recipe, overrides: Mapping[str, Any]) -> Plan:
    """Return the closed recipe of a `train` command.

    Args:
        source: a recipe, the path of one (`.toml`), or images by name or path, which get the defaults that suit the backbone.
        overrides: values by dotted key or short name.

    Raises:
        UsageError: if the source, a key or a value is wrong.
    """
    values = _dotted(overrides)
    if isinstance(source, Recipe):
        # Only what was set: whether somebody asked for pretrained weights must not be forgotten.
        tables = source.model_dump(mode="json", exclude_unset=True)
        return resolve(parse_recipe(with_overrides(tables, values), source.name) if values else source)
    text = source_text(source)
    if text.endswith(".toml"):
        recipe = parse_recipe(with_overrides(read_toml(user_path(text)), values), text)
        return resolve(beside(recipe, user_path(text).parent))
    check_source(text)
    spec = resolve_backbone(str(values.get("model.backbone") or DEFAULT_BACKBONE))
    tables = default_tables(text, spec, values.get("model.pretrained", True) is not False, values.get("data.val") != 0)
    return close(parse_recipe(with_overrides(tables, {**values, "model.backbone": spec.name}), "train"), spec)


def beside(recipe: Recipe, folder: Path) -> Recipe:
    """Return a recipe whose relative paths are also looked for in the folder that it stands in, and above it."""
    places = dict.fromkeys([str(folder.resolve()), *recipe.system.base_dirs])
    return recipe.model_copy(update={"system": recipe.system.model_copy(update={"base_dirs": tuple(places)})})


def _dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides by dotted key; whole tables are taken apart."""
    values: dict[str, Any] = {}
    for key, value in overrides.items():
        if "." not in key and key not in SHORT and key not in Recipe.model_fields:
            known = [*SHORT, *Recipe.model_fields]
            raise UsageError(f"'{key}' is not a setting{nearest(key, known) or f' (known: {listed(known)}; or a dotted key)'}")
        table = value if isinstance(value, Mapping) else {"": value}
        values |= {f"{SHORT.get(key, key)}.{part}".rstrip("."): inner for part, inner in table.items()}
    return values


def resolve(recipe: Recipe | Plan) -> Plan:
    """Close a recipe; one that is closed already is returned as it is.

    Raises:
        UsageError: for a wrong backbone, revision or augmentation, or settings that cannot go together.
    """
    return recipe if isinstance(recipe, Plan) else close(recipe, resolve_backbone(recipe.model.backbone))


def pretrained_input(backbone: str, data: Data) -> tuple[BackboneSpec, Preprocessing]:
    """Find a pretrained backbone whose features are wanted, and how it takes images: as `data` asks for, or as it was trained.

    Raises:
        UsageError: if there is no such backbone, or it has no weights.
    """
    spec = resolve_backbone(backbone)
    if not spec.has_weights:
        raise UsageError(f"backbone '{spec.name}' has no pretrained weights; take bundled, or a pretrained one of timm's")
    return spec, make_preprocessing(data, spec, data.image_size or int(spec.config["input_size"][-1]))


def close(recipe: Recipe, spec: BackboneSpec) -> Plan:
    """Fill in what depends on the backbone and check the names that the recipe's own types cannot check.

    Filled in: the backbone's full name and revision, whether it is pretrained, the image size (the weights' own), and each
    phase's BatchNorm mode ("eval" for pretrained weights, whose statistics are better than a small data set's; else "train").

    Raises:
        UsageError: for a wrong revision or augmentation, or settings that cannot go together.
    """
    if recipe.model.revision not in (None, spec.revision or 1):
        raise UsageError(
            f"model.revision = {recipe.model.revision}: this version of thawlab builds revision {spec.revision or 1} of "
            f"'{spec.architecture}'; leave the key out to train that one"
        )
    pretrained = _has_pretrained(recipe.model, spec)
    size = recipe.data.image_size or int(spec.config["input_size"][-1])
    if size < 8:
        raise UsageError(f"data.image_size = {size}: must be at least 8")
    phases: list[Phase] = []
    for index, phase in enumerate(recipe.phases):
        # Here and not in the recipe, so that older runs whose phases share a name can still be read.
        if any(phase.name == earlier.name for earlier in phases):
            raise UsageError(f"phases.{index}.name: two phases are called '{phase.name}'; give each a name of its own")
        # Augmenting two blank images shows before training what cannot work at this size.
        pipeline = Pipeline(phase.augment, f"phases.{index}.augment")
        targets = torch.eye(2) if pipeline.mixes else torch.arange(2)
        pipeline(torch.zeros(2, 3, size, size, dtype=torch.uint8), targets, torch.Generator().manual_seed(0))
        is_last = index + 1 == len(recipe.phases)
        if phase.sizes and (max(phase.sizes) > size or (is_last and phase.sizes[-1] != size)):
            must = (
                f"must end with data.image_size = {size} and not exceed it"
                if is_last
                else f"must not exceed data.image_size = {size}"
            )
            raise UsageError(
                f"phases.{index}.sizes = {list(phase.sizes)}: {must}, "
                f"since that is what the network is judged at; [] trains at {size} px throughout"
            )
        if phase.train != "all" and not pretrained and index == 0:
            raise UsageError(
                f"phases.{index}.train = '{phase.train}': '{spec.name}' starts from random weights, "
                'which must not stay frozen; train "all" first, or use pretrained weights'
            )
        phases.append(phase.model_copy(update={"batch_norm": phase.batch_norm or ("eval" if pretrained else "train")}))
    resolved = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"image_size": size, "source": canonical(recipe.data.source)}),
            "model": recipe.model.model_copy(update={"backbone": spec.name, "pretrained": pretrained, "revision": spec.revision}),
            "phases": tuple(phases),
        }
    )
    return Plan(resolved, spec)


def _has_pretrained(model: Model, spec: BackboneSpec) -> bool:
    """Return whether training starts from pretrained weights; they may be missing only where nobody asked for them."""
    if model.pretrained and not spec.has_weights:
        if "pretrained" in model.model_fields_set:
            raise UsageError(
                f"model.pretrained = true: there are no pretrained weights of '{spec.name}'; leave the key out to train it "
                "from scratch, or choose another backbone (`thawlab models` lists them)"
            )
        if spec.origin != "small":
            progress.say(f"note: there are no pretrained weights of '{spec.name}'; it is trained from scratch")
    return model.pretrained and spec.has_weights
