"""What the documentation shows must work as it is written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from thawlab.data.augmentation import augmentations, parse_augmentation
from thawlab.data.openers import openers
from thawlab.data.sources import datasets
from thawlab.models.catalog import KERAS_NAMES
from thawlab.models.small import backbones
from thawlab.recipe import Phase, parse_recipe
from thawlab.recipe_text import read_recipe

ROOT = Path(__file__).resolve().parents[1]
MEASURED = [ROOT / "results" / "README.md", ROOT / "benchmarks" / "README.md"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *MEASURED]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_recipe_on_the_page_is_a_recipe() -> None:
    [block] = re.findall(r"```toml\n(.*?)```", text("docs/recipes.md"), flags=re.DOTALL)
    recipe = parse_recipe(tomllib.loads(block))
    assert [phase.name for phase in recipe.phases] == ["head", "fine-tune"]


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda file: file.stem)
def test_every_recipe_can_be_read_and_is_named_like_its_file(file: Path) -> None:
    assert read_recipe(file).name == file.stem


def test_pages_name_what_there_is() -> None:
    data, models, phases = text("docs/data.md"), text("docs/models.md"), text("docs/phases.md")
    assert [name for name in datasets if f"`{name}`" not in data] == []
    assert [suffix for suffix in openers if f"`{suffix}`" not in data] == []
    assert [name for name in backbones if f"`{name}`" not in models] == []
    assert {"ResNet50", "EfficientNetV2B0", "MobileNetV2"} <= KERAS_NAMES.keys()
    assert [name for name in augmentations if not re.search(rf"`{name}[:`]", phases)] == []
    assert [key for key in Phase.model_fields if f"`{key}`" not in phases and key not in {"name", "momentum", "warmup"}] == []
    for specification in re.findall(r"`(\w+:[\d.:]+)`", phases):
        parse_augmentation(specification)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        link = "".join(target)
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_contributing_is_short() -> None:
    assert len(text("CONTRIBUTING.md").splitlines()) <= 60
