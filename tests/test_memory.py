from __future__ import annotations

from thawlab.memory import remember, remembering


def test_a_value_is_made_once_per_key_within_and_every_time_outside() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name

    for _ in range(2):
        remember("a", lambda: make("a"))
    assert made == ["a", "a"]
    with remembering():
        assert [remember("a", lambda: make("a")) for _ in range(3)] == ["a"] * 3
        remember("b", lambda: make("b"))
        with remembering():
            remember("a", lambda: make("a"))
        remember("a", lambda: make("a"))
    assert made == ["a", "a", "a", "b", "a"]
    remember("b", lambda: make("b"))
    assert made[-1] == "b"
