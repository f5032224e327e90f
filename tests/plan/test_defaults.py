from __future__ import annotations

from pathlib import Path

from thawlab.models.catalog import resolve_backbone
from thawlab.plan.defaults import default_tables
from thawlab.recipe import parse_recipe
from thawlab.recipe_text import read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def test_speednet_on_cifar_is_trained_as_its_measured_recipe_does() -> None:
    measured = read_recipe(RECIPES / "speednet.toml")
    quick = parse_recipe(default_tables("cifar10", resolve_backbone("speednet")))
    assert quick.phases == measured.phases
    assert quick.model.backbone == measured.model.backbone
    assert quick.data.val > 0  # a user's run keeps a split to choose and calibrate with


def test_speednet_on_a_folder_takes_small_batches() -> None:
    [phase] = parse_recipe(default_tables("photos", resolve_backbone("speednet"))).phases
    assert phase.batch_size <= 128 and phase.optimizer == "sgd"


def test_pretrained_backbones_train_in_two_phases_and_fresh_ones_in_one() -> None:
    assert [phase.train for phase in parse_recipe(default_tables("photos", resolve_backbone("bundled"))).phases] == [
        "head",
        "all",
    ]
    assert [
        phase.train for phase in parse_recipe(default_tables("photos", resolve_backbone("bundled"), pretrained=False)).phases
    ] == ["all"]
    assert [phase.train for phase in parse_recipe(default_tables("cifar10", resolve_backbone("resnet20"))).phases] == ["all"]
