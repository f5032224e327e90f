from __future__ import annotations

import pytest

from thawlab.errors import UsageError, nearest, plain


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


def test_a_message_is_one_line_that_no_terminal_obeys() -> None:
    assert str(UsageError("cat\x1b[31m\n\x07: Käse 🧀")) == "cat\\x1b[31m\\n\\x07: Käse 🧀"
    assert plain("a\u2028b\x85") == "a\\u2028b\\x85" and plain("Ünïcode") == "Ünïcode"
