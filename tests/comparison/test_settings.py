from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thawlab.comparison.settings import differing, settings, short_keys, shown, value_of
from thawlab.recipe import Recipe

Make = Callable[..., Recipe]


def test_settings_are_everything_but_the_name_and_the_system(recipe: Make) -> None:
    table = settings(recipe("name=other", "system.threads=2"))
    assert table == settings(recipe())
    assert table["data.source"] == "shapes:300x16" and table["phases.1.lr"] == 1e-3 and table["seed"] == 0
    assert "name" not in table and not any(key.startswith("system") for key in table)
    assert table["phases.1.augment"] == ["flip", "shift:0.1"] and table["model.dropout"] == []


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("phases.0.lr=0.5", "phases.0.lr"),
        ("data.val=0.2", "data.val"),
        ("model.head=[8]", "model.head"),
        ("evaluation.ood=true", "evaluation.ood"),
        ('phases.1.augment=["flip"]', "phases.1.augment"),
    ],
)
def test_a_changed_key_is_found_both_ways(recipe: Make, override: str, key: str) -> None:
    one, other = settings(recipe()), settings(recipe(override))
    assert differing(one, other) == differing(other, one) == [key]


def test_the_seed_is_no_difference(recipe: Make) -> None:
    assert differing(settings(recipe()), settings(recipe("seed=7"))) == []


def test_a_phase_that_one_lacks_is_one_key_with_its_name_as_value(recipe: Make) -> None:
    base = recipe()
    more = base.model_copy(update={"phases": (*base.phases, base.phases[0].model_copy(update={"name": "more"}))})
    one, other = settings(base), settings(more)
    assert differing(one, other) == differing(other, one) == ["phases.2"]
    assert (value_of(one, "phases.2"), value_of(other, "phases.2")) == (None, "more")


def test_a_phase_that_both_have_is_told_key_by_key(recipe: Make) -> None:
    keys = differing(settings(recipe()), settings(recipe("phases.0.lr=1.0", "phases.0.epochs=9", "phases.1.lr=1.0")))
    assert set(keys) == {"phases.0.lr", "phases.0.epochs", "phases.1.lr"}


@pytest.mark.parametrize(
    ("follows", "cause"),
    [
        ("data.fingerprint", "data.source"),
        ("data.fingerprint", "data.exclude"),
        ("data.fingerprint", "data.corrections"),
        ("data.fingerprint", "data.group"),
        ("model.weights", "model.backbone"),
        ("model.weights", "model.pretrained"),
        ("model.revision", "model.backbone"),
    ],
)
def test_what_follows_from_a_key_is_a_difference_only_without_it(follows: str, cause: str) -> None:
    one, other = {follows: 1, cause: "a", "phases.0.lr": 0.1}, {follows: 2, cause: "b", "phases.0.lr": 0.1}
    assert differing(one, other) == [cause]
    assert differing(one, {**other, cause: "a"}) == [follows]
    assert differing(one, {**other, "phases.0.lr": 0.2}) == [cause, "phases.0.lr"]


def test_weights_do_not_follow_from_the_data_nor_images_from_the_backbone() -> None:
    one = {"data.fingerprint": 1, "model.weights": 1, "data.source": "a", "model.backbone": "a"}
    assert differing(one, {**one, "model.weights": 2, "data.source": "b"}) == ["model.weights", "data.source"]
    assert differing(one, {**one, "data.fingerprint": 2, "model.backbone": "b"}) == ["data.fingerprint", "model.backbone"]


def test_short_keys_are_the_shortest_that_tell_them_apart() -> None:
    assert short_keys(["phases.0.lr", "data.val"]) == {"phases.0.lr": "lr", "data.val": "val"}
    assert short_keys(["phases.0.lr", "phases.1.lr"]) == {"phases.0.lr": "0.lr", "phases.1.lr": "1.lr"}
    assert short_keys(["thawlab", "phases.0"]) == {"thawlab": "thawlab", "phases.0": "0"}


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join), unique=True, max_size=8))
def test_no_two_keys_are_shortened_alike(keys: list[str]) -> None:
    short = short_keys(keys)
    assert len(set(short.values())) == len(keys) and all(key.endswith(ending) for key, ending in short.items())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (0.01, "0.01"),
        (True, "true"),
        (["flip", "shift:0.1"], '["flip", "shift:0.1"]'),
        ("cnn5", "cnn5"),
        ("local-dir:/a/b/weights", "weights"),
        ("/a/photos", "photos"),
        ("0123456789abcdef" * 4, "0123456789ab"),
    ],
)
def test_values_are_shown_as_a_person_writes_them(value: object, text: str) -> None:
    assert shown(value) == text
