"""Recipes as people write them: what a file or an override says, and what is refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from small_recipes import MINIMAL, TEXT, one_line

from thawlab.errors import UsageError
from thawlab.recipe import parse_recipe
from thawlab.recipe_text import parse_overrides, parse_value, read_recipe, read_toml, with_overrides


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10_000", 10_000),
        ("5e-5", 5e-5),
        ("true", True),
        ("none", None),
        ("None", None),
        ("[128, 64]", [128, 64]),
        ('["flip"]', ["flip"]),
        ('"10"', "10"),
        ("adamw", "adamw"),
        ("last:50", "last:50"),
        ("../photos of me", "../photos of me"),
        ("2024-01-01", "2024-01-01"),
        ("07:32:00", "07:32:00"),
        ("[2024-01-01]", "[2024-01-01]"),
    ],
)
def test_an_override_is_read_as_toml_or_else_as_text(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize("text", ["2024", "2024-01-01", "true", "1e5", "[1]", "nan"])
def test_text_where_a_key_takes_text_is_not_read_as_something_else(text: str) -> None:
    recipe = parse_recipe(with_overrides(MINIMAL, [f"data.source={text}", f"data.exclude={text}"]))
    assert recipe.data.source == recipe.data.exclude == text
    assert parse_recipe(with_overrides(MINIMAL, ['data.source="2024"', "data.exclude=none"])).data.source == "2024"


@pytest.mark.parametrize("text", ['model.backbone="cnn5"', "model.backbone = cnn5", " model.backbone ='cnn5' "])
def test_quotes_and_blanks_around_a_value_are_no_part_of_it(text: str) -> None:
    assert parse_overrides([text]) == {"model.backbone": "cnn5"}


def test_overrides_reach_tables_lists_and_absent_tables_and_leave_the_original_alone() -> None:
    before = json.dumps(MINIMAL)
    table = with_overrides(MINIMAL, ["phases.0.lr = 5e-5", "system.device=cpu", "data.source=a=b"])
    assert table["phases"][0] == {"epochs": 1, "lr": 5e-5}
    assert table["system"] == {"device": "cpu"}
    assert table["data"]["source"] == "a=b"
    assert json.dumps(MINIMAL) == before


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "'seed' is not an override; write key=value"),
        ("=3", "'=3' is not an override"),
        ("phases.1.lr=1", "phases has 1 entries, numbered from 0; '1' is none of them"),
        ("phases.head.lr=1", "phases has 1 entries, numbered from 0; 'head' is none of them"),
        ("phases.².lr=1", "'²' is none of them"),
        ("phases.0.epochs.x=1", "phases.0.epochs is a value and has no part 'x'"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(override: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        with_overrides(MINIMAL, [override])
    assert expected in one_line(error)


def test_a_file_is_read_with_overrides(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(TEXT)
    recipe = read_recipe(file, ["data.train_size=50000", "phases.1.lr=5e-5"])
    assert (recipe.data.train_size, recipe.phases[1].lr, recipe.phases[0].lr) == (50_000, 5e-5, 1e-3)


def test_an_absent_file_gets_the_nearest_name_beside_it(tmp_path: Path) -> None:
    (tmp_path / "bundled.toml").write_text(TEXT)
    with pytest.raises(UsageError) as error:
        read_recipe(tmp_path / "bundeld.toml")
    assert "there is no such recipe (did you mean 'bundled.toml'?)" in one_line(error)


@pytest.mark.parametrize("content", [b"name = ", b"name = '\xff'", b"[data]\n[data]\n"])
def test_a_file_that_is_not_toml_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as error:
        read_recipe(file)
    assert one_line(error).startswith(f"{file}: not valid TOML")


def test_a_folder_given_as_a_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read_recipe(tmp_path)
    assert one_line(error).startswith(f"{tmp_path}: cannot be read")


def test_a_date_in_a_file_is_refused_and_not_taken_for_text(tmp_path: Path) -> None:
    file = tmp_path / "dated.toml"
    file.write_text(TEXT.replace('"two-phase"', "2024-05-01"))
    with pytest.raises(UsageError) as error:
        read_recipe(file)
    assert "dates and times have no place in a recipe" in one_line(error)


def test_values_of_overrides_are_not_written_to() -> None:
    phase = {"epochs": 1, "lr": 0.1}
    changed = with_overrides({"data": {"source": "digits"}}, {"phases": [phase], "phases.0.lr": 0.5})
    assert changed["phases"][0]["lr"] == 0.5 and phase["lr"] == 0.1


def test_numbers_and_lists_may_be_written_short() -> None:
    assert parse_overrides(["phases.0.lr=.001", "phases.0.warmup=1.", "phases.0.lr=-.5e-3"]) == {
        "phases.0.lr": -0.0005,
        "phases.0.warmup": 1.0,
    }
    assert parse_overrides(["phases.0.augment=flip"]) == {"phases.0.augment": ["flip"]}
    assert parse_overrides(["phases.0.augment=flip, shift:0.1"]) == {"phases.0.augment": ["flip", "shift:0.1"]}
    assert parse_overrides(["name=.5"]) == {"name": ".5"}


def test_a_byte_order_mark_does_not_hurt_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "bom.toml").write_text('name = "a"\n', encoding="utf-8-sig")
    assert read_toml(tmp_path / "bom.toml") == {"name": "a"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = " + "[" * 5000, "not valid TOML: "),
        (".".join(["a"] * 60) + " = 1", "line 1 names more than 50 tables within each other"),
        ("x = {" + ".".join(["a"] * 60) + " = 1}", "line 1 names more than 50 tables within each other"),
        ("seed = " + "9" * 5000, "not valid TOML: "),
        ("a = " + "[" * 60 + "]" * 60, "it is nested more than 50 deep"),
        ("name = '" + "x" * 1_000_000 + "'", "it has 1.0 MB, where 1 is plenty"),
    ],
)
def test_a_recipe_made_to_exhaust_its_reader_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(reason)):
        read_recipe(tmp_path / "x.toml")


def test_dots_in_values_and_comments_are_no_keys(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("x = [" + "0.1, " * 80 + "] # " + "a." * 80 + "\n")
    assert read_toml(tmp_path / "x.toml")["x"] == [0.1] * 80
