from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from logit_server.errors import BusyPeerError
from logit_server.peers import Peers, peer_of
from tests.logit_server.raw_client import ROWS_HEAD, answer, connect, served


def test_each_address_has_places_of_its_own() -> None:
    peers = Peers(2)
    one, other = {"client": ("203.0.113.1", 1000)}, {"client": ("203.0.113.2", 1000)}
    for scope in (one, one, other):
        peers.enter(scope)
        peers.check_room(scope)
    peers.enter({"client": ("203.0.113.1", 2000)})
    with pytest.raises(BusyPeerError, match="3 requests"):
        peers.check_room(one)
    peers.check_room(other)
    peers.leave(one)
    peers.check_room(one)


def test_who_has_left_takes_no_memory() -> None:
    peers = Peers(1)
    for number in range(100):
        scope = {"client": (f"203.0.113.{number}", 1)}
        peers.enter(scope)
        peers.leave(scope)
    assert not peers._in_work


def test_a_connection_without_an_address_is_one_peer() -> None:
    assert peer_of({"client": None}) == peer_of({})


def test_a_busy_client_gets_429_and_health_is_answered(cache_path: Path) -> None:
    head = ROWS_HEAD + b"Content-Length: 4\r\n\r\n"
    with served(cache_path, requests_per_peer=1) as base, connect(base, head) as client:
        refused = httpx2.get(f"{base}/v1/caches")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        for path in ("/livez", "/readyz", "/healthz", "/metrics"):
            assert httpx2.get(base + path).status_code == 200
        client.sendall(bytes(4))
        assert answer(client)[0].status == 200
        assert httpx2.get(f"{base}/v1/caches").status_code == 200
        assert 'refused_total{reason="peer"} 1.0' in httpx2.get(f"{base}/metrics").text
