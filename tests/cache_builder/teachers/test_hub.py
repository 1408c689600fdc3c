"""Without a network the hub is not asked again and again."""

from __future__ import annotations

import socket

import pytest

from cache_builder.teachers.hub import one_try, reachable


def test_a_port_that_listens_is_reachable_and_a_closed_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert reachable(place)
    assert not reachable(place, wait_s=1.0)


def test_the_hub_is_offline_only_while_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with one_try():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
