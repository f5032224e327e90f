from __future__ import annotations

import pytest

from thawlab.serving.passes import has_pass, with_pass

TOKEN = "a-secret-of-some-length"


def holds(address: str, token: str = TOKEN, now: float = 1000.0) -> bool:
    path, _, query = address.partition("?")
    return has_pass(path, query, token, now)


@pytest.mark.parametrize("address", ["/runs/a%20b/report", "/compare?run=a&run=b"])
def test_a_pass_holds_for_its_address_for_a_minute(address: str) -> None:
    passed = with_pass(address, TOKEN, now=990.0)
    assert passed.startswith(address)
    assert holds(passed)
    assert not holds(passed, now=1051.0)
    assert not holds(passed, token="another-secret")
    assert not holds(passed.replace("/r", "/s", 1).replace("run=a", "run=c"))
    assert not holds(passed + "&run=c")
    assert not holds(passed.replace("&run=b", "") if "&" in passed else passed.replace("?", "?x=1&"))
    later = passed.replace("1050.", "9999.")
    assert later != passed
    assert not holds(later)


@pytest.mark.parametrize(
    "query", ["", "pass=", "pass=1050.", "pass=x.y", "pass=²0.a", "pass=1050.é", "pass=" + "9" * 5000 + ".a", "x"]
)
def test_what_is_no_pass_is_none(query: str) -> None:
    assert not has_pass("/runs/a/report", query, TOKEN, 1000.0)
