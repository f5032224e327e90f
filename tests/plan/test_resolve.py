from __future__ import annotations

import tomllib
from collections.abc import Callable

import pytest

from thawlab import progress
from thawlab.errors import UsageError
from thawlab.models.small import REVISIONS
from thawlab.plan.resolve import pretrained_input, resolve
from thawlab.recipe import Data, Recipe, parse_recipe


def test_the_revision_of_a_network_that_was_changed_belongs_to_the_digest(
    recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = recipe("model.backbone=speednet", "model.pretrained=false", "phases.0.train=all")
    before, _ = resolve(written)
    assert before.model.revision == REVISIONS["speednet"]
    assert resolve(before)[0] == before
    monkeypatch.setitem(REVISIONS, "speednet", REVISIONS["speednet"] + 1)
    after, _ = resolve(written)
    assert after.digest != before.digest
    with pytest.raises(UsageError, match=r"model\.revision = \d: this version of thawlab builds revision \d of 'speednet'"):
        resolve(before)


def test_phases_that_share_a_name_are_refused_with_the_place_but_can_be_read(recipe: Callable[..., Recipe]) -> None:
    twice = recipe("phases.1.name=head")
    with pytest.raises(UsageError, match=r"^phases\.1\.name: two phases are called 'head'; give each a name of its own$"):
        resolve(twice)
    assert parse_recipe(tomllib.loads(twice.to_toml())) == twice


def test_a_plan_is_closed_and_stays_as_it_is(recipe: Callable[..., Recipe]) -> None:
    plan = resolve(recipe())
    assert resolve(plan) is plan
    assert resolve(plan.recipe) == plan


@pytest.mark.parametrize("backbone", ["cnn5", "timm/botnet50ts_256"])
def test_pretrained_weights_that_there_are_not_are_refused_where_somebody_asks_for_them(
    backbone: str, recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    written = (f"model.backbone={backbone}", "phases.0.train=all", "data.image_size=32")
    with pytest.raises(UsageError, match=rf"^model\.pretrained = true: there are no pretrained weights of '{backbone}'"):
        resolve(recipe(*written, "model.pretrained=true"))
    progress.silence(False)
    closed, _ = resolve(recipe(*written))
    assert closed.model.pretrained is False
    told = "trained from scratch" in capsys.readouterr().err
    assert told == backbone.startswith("timm/")
    assert resolve(parse_recipe(tomllib.loads(closed.to_toml()))).recipe == closed


def test_features_are_wanted_of_pretrained_backbones_alone() -> None:
    spec, preprocessing = pretrained_input("bundled", Data(source="digits"))
    assert (spec.name, preprocessing.size) == ("bundled", 32)
    assert pretrained_input("bundled", Data(source="digits", image_size=48))[1].size == 48
    with pytest.raises(UsageError, match="'cnn5' has no pretrained weights"):
        pretrained_input("cnn5", Data(source="digits"))


def test_networks_that_never_changed_and_those_of_timm_have_no_revision(recipe: Callable[..., Recipe]) -> None:
    for backbone in ("cnn5", "test_resnet"):
        resolved, _ = resolve(
            recipe(f"model.backbone={backbone}", "model.pretrained=false", "phases.0.train=all", "data.image_size=32")
        )
        assert resolved.model.revision is None


def test_the_first_revision_may_be_named_and_is_the_same_run(recipe: Callable[..., Recipe]) -> None:
    written = ("model.backbone=cnn5", "model.pretrained=false", "phases.0.train=all")
    assert resolve(recipe(*written, "model.revision=1"))[0] == resolve(recipe(*written))[0]
    with pytest.raises(UsageError, match=r"model\.revision = 2: this version of thawlab builds revision 1 of 'cnn5'"):
        resolve(recipe(*written, "model.revision=2"))
