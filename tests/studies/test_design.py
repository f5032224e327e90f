from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thawlab.errors import UsageError
from thawlab.plan.resolve import plan_of
from thawlab.run import run_folder
from thawlab.studies.design import Design, read_design, slug

Write = Callable[..., Path]


def changes_of(design: Design) -> list[dict[str, Any]]:
    return [variant.changes for variant in design.variants]


def test_a_grid_is_all_combinations_with_a_cell_for_every_seed(study_file: Write) -> None:
    design = read_design(
        study_file(vary={"phases": {"0": {"lr": [0.01, 0.03]}}, "model": {"dropout": [[], [0.3]]}}, seeds=[4, 1])
    )
    assert changes_of(design) == [{"phases.0.lr": lr, "model.dropout": rate} for lr in (0.01, 0.03) for rate in ([], [0.3])]
    cells = design.cells()
    assert [(cell.variant, cell.seed) for cell in cells][:3] == [
        ("lr 0.01, dropout []", 4),
        ("lr 0.01, dropout []", 1),
        ("lr 0.01, dropout [0.3]", 4),
    ]
    assert len({cell.run for cell in cells}) == 8
    assert {(c.recipe.phases[0].lr, c.recipe.model.dropout, c.recipe.seed) for c in cells} == {
        (lr, rate, seed) for lr in (0.01, 0.03) for rate in ((), (0.3,)) for seed in (4, 1)
    }


def test_a_cell_is_the_recipe_that_train_would_close(study_file: Write, tmp_path: Path) -> None:
    [*_, last] = read_design(study_file()).cells()
    file = tmp_path / "cell.toml"
    file.write_text(last.recipe.to_toml())
    assert run_folder(plan_of(file, {}).recipe, tmp_path).name == last.run


def test_named_variants_change_what_they_say(study_file: Write) -> None:
    variants = [{"name": "plain"}, {"name": "slow", "phases.0.lr": 0.001}, {"data": {"val": 0.2}, "backbone": "cnn5"}]
    design = read_design(study_file(vary=None, variants=variants))
    assert [variant.name for variant in design.variants][:2] == ["plain", "slow"]
    assert changes_of(design)[2] == {"data.val": 0.2, "model.backbone": "cnn5"}
    assert changes_of(design)[:2] == [{}, {"phases.0.lr": 0.001}]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("data.train_size=100,200", [100, 200]),
        ("train_size=100,none", [100, None]),
        ("model.head=[],[128],[64, 32]", [[], [128], [64, 32]]),
        ("model.backbone=cnn5,vgg10", ["cnn5", "vgg10"]),
        ('phases.0.augment=["flip"],["flip", "shift:0.1"]', [["flip"], ["flip", "shift:0.1"]]),
        ("phases.0.lr=1e-3", [0.001]),
    ],
)
def test_one_line_varies_as_a_file_does(text: str, values: list[Any], study_file: Write) -> None:
    design = read_design(study_file(), vary=[text])
    [key] = design.variants[0].changes
    assert "." in key and [change[key] for change in changes_of(design)] == values


def test_a_recipe_and_images_are_studied_too(tmp_path: Path, base: dict[str, Any]) -> None:
    import tomli_w

    recipe = tmp_path / "mine.toml"
    recipe.write_text(tomli_w.dumps(base))
    design = read_design(recipe, vary={"phases.0.lr": [0.1, 0.2]}, seeds=3, overrides={"size": 8})
    assert design.name == "mine-study" and design.seeds == (0, 1, 2)
    assert {cell.recipe.data.image_size for cell in design.cells()} == {8}
    images = read_design("shapes:200x16", vary=["size=16,32"], seeds="0,5", overrides={"backbone": "cnn5"})
    assert images.name == "shapes-200x16-study" and images.seeds == (0, 5)
    assert [cell.recipe.data.image_size for cell in images.cells()] == [16, 16, 32, 32]


def test_a_base_is_a_file_beside_the_study(study_file: Write, tmp_path: Path, base: dict[str, Any]) -> None:
    import tomli_w

    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(base))
    assert [c.run for c in read_design(study_file(base="recipe.toml")).cells()] == [
        c.run for c in read_design(study_file()).cells()
    ]


def test_seeds_are_many_where_cells_are_cheap_and_few_where_everything_is_trained(
    study_file: Write, base: dict[str, Any]
) -> None:
    def usual(**phase: Any) -> int:
        return len(read_design(study_file(seeds=None, base={**base, "phases": [{**base["phases"][0], **phase}]})).seeds)

    assert usual() == 6
    assert usual(augment=["flip", "shift:0.1"], views=2) == 6
    assert usual(augment=["shift:0.1"]) == 5
    assert usual(train="all") == 3
    assert usual(train="last:1") == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"vary": {"data.trainsize": [10, 20]}},
            r"variant 'trainsize 10'.*data.trainsize is not a key \(did you mean 'train_size'\?\)",
        ),
        ({"vary": {"model.dropout": [[0.1], [1.5]]}}, r"variant 'dropout \[1.5\]'.*every rate must be in \[0, 1\)"),
        ({"vary": {"phases.3.lr": [0.1]}}, "phases.3.lr: phases has 1 entries"),
        ({"vary": {"phases.0.lr": [0.1, 0.1]}}, "phases.0.lr has 0.1 twice"),
        ({"vary": {"phases.0.lr": 0.1}}, "vary.phases.0.lr = 0.1 must be a list"),
        ({"vary": {"phases.0.lr": []}}, "must be a list of at least one value"),
        ({"vary": {"seed": [1, 2]}}, "seed is not varied"),
        ({"vary": {"phases.0.lr": [0.01, 0.02], "evaluation.ece_bins": [15]}, "seeds": [1, 1]}, "different numbers"),
        ({"seeds": 1}, "with one seed a difference cannot be told from luck"),
        ({"seeds": [0.5, 1]}, "seeds = .* must be a number of seeds"),
        ({"seeds": "many"}, "give a number of seeds"),
        ({"vary": None}, "has none of them"),
        ({"variants": [{"name": "a"}]}, r"has vary and variants"),
        ({"vary": None, "variants": [{"name": "a"}, {"name": "b"}]}, "variants 'a' and 'b' are the same recipe"),
        ({"vary": None, "variants": [{"name": "a"}, {"name": "a", "phases.0.lr": 0.5}]}, "two variants are called 'a'"),
        ({"vary": None, "variants": [{"name": "a"}, {"name": "b", "phases.0.lr": 0.01}]}, "are the same recipe"),
        ({"vary": None, "variants": 3}, "variants must be tables"),
        ({"qestion": "?"}, r"qestion is not a key of a study \(did you mean 'question'\?\)"),
        ({"base": None}, "base is missing"),
        ({"base": 3}, "must be a recipe file, images, or a table"),
        ({"base": "absent.toml"}, "absent.toml: there is no such recipe"),
        ({"name": "a/b"}, "must be made of letters"),
        ({"name": ".."}, "must be made of letters"),
        ({"vary": None, "search": {"runs": 3}}, "search needs a range"),
        ({"vary": None, "search": {"phases.0.lr": {"low": 2, "high": 1}}}, "low = 2 must be a number below high = 1"),
        (
            {"vary": None, "search": {"phases.0.lr": {"lo": 2, "high": 1}}},
            r"lo is not a key of a range \(did you mean 'log'\?\)|lo is not",
        ),
        ({"vary": None, "search": {"phases.0.lr": {"low": 0, "high": 1, "log": True}}}, "begins above 0"),
        ({"vary": None, "search": {"phases.0.lr": [1]}}, "at least two values"),
        ({"vary": None, "search": {"phases.0.lr": [1, 2], "runs": 0}}, "search.runs = 0"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(changes: dict[str, Any], says: str, study_file: Write) -> None:
    with pytest.raises(UsageError) as caught:
        read_design(study_file(**changes)).cells()
    assert re.search(says, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("vary", ["phases.0.lr", "=3", "phases.0.lr="])
def test_a_vary_without_values_is_said(vary: str, study_file: Write) -> None:
    with pytest.raises(UsageError, match="write key=value,value"):
        read_design(study_file(), vary=[vary])


def test_slugs_are_names_of_folders() -> None:
    assert slug("lr 0.1, dropout [0.3]") == "lr-0.1-dropout-0.3"
    assert slug("…") == "base" and slug("../x") == "x"


def test_the_studies_that_come_with_the_project_are_designs() -> None:
    files = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))
    assert {file.stem: len(read_design(file).cells()) for file in files} == {
        "a-learning-curve": 21,
        "a-what-made-26-percent": 48,
        "b-fruits-one-factor": 144,
        "c-augmentations": 36,
        "c-patience": 18,
        "c-resolution-and-dropout": 54,
        "d-phases-and-scalings": 60,
        "e-ladder": 50,
        "head-width-dropout": 40,
    }
