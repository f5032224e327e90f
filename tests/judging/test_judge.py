from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from thawlab.files import read_json
from thawlab.judging.measures import MEASURES
from thawlab.recipe import Recipe
from thawlab.results import Results, read_results
from thawlab.runner import train


def test_every_measure_is_a_part_of_the_results() -> None:
    assert set(MEASURES) <= set(Results.model_fields)


def test_ood_images_are_judged_where_the_recipe_asks_and_change_nothing_else(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    plain = train(recipe(), tmp_path)
    without, document = read_results(plain.results), read_json(plain.results)
    asked = read_results(train(recipe("evaluation.ood=true"), tmp_path).results)
    assert without.novelty is not None and without.novelty.ood == document["novelty"]["foreign"] == {}
    assert asked.novelty is not None and set(asked.novelty.ood) == {"digits"}  # shapes are what it was trained on
    assert asked.novelty.ood["digits"].n == 250
    assert asked.novelty.model_copy(update={"ood": {}}) == without.novelty
    assert asked.test == without.test
