from __future__ import annotations

import pytest

from thawlab.errors import nearest


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("resnet02", ["resnet20", "resnet56", "vgg10"], "resnet20"),
        ("tets", ["train", "val", "test"], "test"),
        ("Lable", ["label", "path"], "label"),
        ("data.trainsize", ["data.train_size", "data.test"], "data.train_size"),
        ("cifra10", ["cifar10", "cifar100", "digits"], "cifar10"),
    ],
)
def test_the_name_that_was_meant_is_found(name: str, choices: list[str], expected: str) -> None:
    assert nearest(name, choices) == f" (did you mean '{expected}'?)"


def test_nothing_alike_means_no_suggestion() -> None:
    assert nearest("zebra", ["label", "path"]) == "" and nearest("x", []) == ""
