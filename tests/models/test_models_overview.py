from __future__ import annotations

import timm

from thawlab.models.catalog import KERAS_NAMES
from thawlab.models.overview import backbone_table
from thawlab.models.small import backbones
from thawlab.models.wheels import WHEELS


def test_without_a_pattern_the_table_lists_ours_and_keras_names() -> None:
    names = [row["name"] for row in backbone_table()]
    assert names == ["bundled", *WHEELS, *backbones, *KERAS_NAMES]


def test_every_row_says_what_it_is_in_one_line() -> None:
    for row in backbone_table():
        assert set(row) == {"name", "kind", "about"}
        assert all(value and "\n" not in value for value in row.values()), row


def test_a_pattern_searches_timm_too() -> None:
    rows = backbone_table("resnet2*")
    names = [row["name"] for row in rows]
    assert names[0] == "resnet20"
    assert "timm/resnet26.bt_in1k" in names
    assert {name.removeprefix("timm/") for name in names[1:]} == set(timm.list_pretrained("resnet2*"))
    assert all("px" in row["about"] for row in rows[1:])


def test_a_pattern_that_nothing_fits_gives_no_rows() -> None:
    assert backbone_table("zzz*") == []
