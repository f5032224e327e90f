from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from thawlab.errors import UsageError
from thawlab.serving.settings import Access, is_local, read_access


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9"])
def test_these_addresses_are_local(host: str) -> None:
    assert is_local(host)
    assert read_access(host, None, False, (), ()).token is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_others_need_a_token_or_the_word_that_none_is_wanted(host: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--token-file FILE"):
        read_access(host, None, False, (), ())
    assert read_access(host, None, True, (), ()).token is None
    (tmp_path / "token").write_text("0123456789abcdef\n")
    assert read_access(host, tmp_path / "token", False, (), ()).token == "0123456789abcdef"


@pytest.mark.parametrize(
    "content", [b"", b"short", b"two words-of-a-secret", "sécret-of-many-letters".encode(), b"\xff\xfe" * 20]
)
def test_a_token_that_cannot_be_used_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(UsageError, match="token"):
        read_access("0.0.0.0", tmp_path / "token", False, (), ())


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        read_access("0.0.0.0", tmp_path / "token", True, (), ())
    with pytest.raises(UsageError, match="cannot be read"):
        read_access("0.0.0.0", tmp_path / "none", False, (), ())
    for origin in ("example.org", "https://example.org/page", "*"):
        with pytest.raises(UsageError, match="origin of pages"):
            read_access("localhost", None, False, (), (origin,))


def test_only_numbers_and_named_hosts_are_known() -> None:
    access = Access(frozenset({"photos.example"}))
    known = ["localhost", "LOCALHOST:80", "127.0.0.1:1", "10.0.0.1", "[::1]:8000", "::1", "photos.example:9", "Photos.Example"]
    assert all(access.knows(host) for host in known)
    others = ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "[::1", "a:b:c"]
    assert not any(access.knows(host) for host in others)


@pytest.mark.parametrize("name", ["", "https://photos.example", "two names", "*"])
def test_what_is_no_name_of_a_host_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"--allow-host '.*': must be a name"):
        read_access("localhost", None, False, (name,), ())


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(Access(token="my-secret-my-secret"))
