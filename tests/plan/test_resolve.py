from __future__ import annotations

from collections.abc import Callable

import pytest

from thawlab.errors import UsageError
from thawlab.models.small import REVISIONS
from thawlab.plan.resolve import resolve
from thawlab.recipe import Recipe


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
