from __future__ import annotations

import socket

import pytest

pytest.importorskip("fastapi")

from thawlab.errors import ThawlabError
from thawlab.serving.server import address_of, listen


def test_answers_do_not_wait_for_the_client_to_confirm_what_came_before() -> None:
    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP  # else asyncio does not set TCP_NODELAY
        assert address_of(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ThawlabError, match="cannot be listened to: Address already in use"):
            listen("127.0.0.1", listening.getsockname()[1])
