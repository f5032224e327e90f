from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thawlab.errors import UsageError
from thawlab.models import catalog
from thawlab.plan import resolve
from thawlab.plan.resolve import plan_of
from thawlab.recipe import Recipe
from thawlab.recipe_text import parse_overrides


@pytest.mark.parametrize(
    "texts", [['model.backbone="bundled"'], ["model.backbone = bundled"], ["backbone=bundled"], ['model={backbone = "bundled"}']]
)
def test_every_way_to_write_a_backbone_gives_the_phases_that_fit_it(texts: list[str]) -> None:
    plan = plan_of("digits", parse_overrides(texts))
    assert plan == plan_of("digits", {"backbone": "bundled"})
    assert [phase.train for phase in plan.recipe.phases] == ["head", "all"]


@pytest.mark.parametrize(
    "texts", [["model.backbone = cnn5"], ['backbone="cnn5"'], ["backbone=bundled", "model.pretrained = false"]]
)
def test_what_has_no_weights_or_shall_not_use_them_is_trained_from_scratch(texts: list[str]) -> None:
    [phase] = plan_of("digits", parse_overrides(texts)).recipe.phases
    assert phase.train == "all"


def test_a_recipe_its_file_and_the_same_settings_are_one_plan(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    written = recipe()
    file = tmp_path / "small.toml"
    file.write_text(written.to_toml())
    overrides = {"size": 24, "phases.1.lr": 5e-5, "seed": 3}
    plans = [plan_of(source, overrides) for source in (written, file, str(file))]
    assert plans[1] == plans[2] and plans[0].spec == plans[1].spec
    assert plans[1].recipe.system.base_dirs == (str(tmp_path.resolve()),)  # where the recipe's relative paths are looked for, too
    here = plans[1].recipe.system.model_copy(update={"base_dirs": ()})
    assert plans[1].recipe.model_copy(update={"system": here}) == plans[0].recipe
    assert plans[1].recipe.digest == plans[0].recipe.digest
    closed = plans[0].recipe
    assert (closed.data.image_size, closed.phases[1].lr, closed.seed) == (24, 5e-5, 3)
    assert plan_of(written, {}) == resolve.resolve(written)


def test_overrides_do_not_forget_who_asked_for_pretrained_weights(recipe: Callable[..., Recipe]) -> None:
    scratch = recipe("model.backbone=cnn5", "phases.0.train=all")
    assert plan_of(scratch, {"seed": 1}).recipe.model.pretrained is False
    with pytest.raises(UsageError, match="no pretrained weights of 'cnn5'"):
        plan_of(scratch, {"model.pretrained": True})


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("backbon", "'backbon' is not a setting (did you mean 'backbone'?)"),
        ("trainsize", "(did you mean 'train_size'?)"),
        ("sead", "(did you mean 'seed'?)"),
        ("xyzzy", "(known: backbone, size, train_size, device, data_dir, cache_dir, name, seed,"),
        ("phases.0.epoch", "phases.0.epoch is not a key (did you mean 'epochs'?)"),
        ("phases.7.lr", "phases has 2 entries, numbered from 0; '7' is none of them"),
    ],
)
def test_a_wrong_key_gets_the_nearest_spelling(key: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of("digits", {"backbone": "bundled", key: 1})
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_backbone_is_resolved_once(monkeypatch: pytest.MonkeyPatch, recipe: Callable[..., Recipe]) -> None:
    asked: list[str] = []

    def counted(name: str) -> Any:
        asked.append(name)
        return catalog.resolve_backbone(name)

    monkeypatch.setattr(resolve, "resolve_backbone", counted)
    for source in ("digits", recipe()):
        plan = plan_of(source, {"backbone": "bundled"})
        assert resolve.resolve(plan) is plan
        assert asked == ["bundled"]
        asked.clear()


def test_a_path_stays_one_where_a_data_set_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for path in (Path("digits"), "./digits", "digits/"):
        assert plan_of(path, {"backbone": "cnn5"}).recipe.data.source == "./digits"
    assert plan_of("digits:", {"backbone": "cnn5"}).recipe.data.source == "digits:"
    with pytest.raises(UsageError, match="both a built-in data set and a folder"):
        plan_of("digits", {"backbone": "cnn5"})


def test_a_recipe_below_the_home_folder_is_found(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "small.toml").write_text(recipe().to_toml())
    assert plan_of("~/small.toml", {}).recipe.name == "small"
