"""Batches come from whichever decoder answers, and one that nobody gives ends the build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cache_builder.build.cluster import rendering as module
from cache_builder.build.cluster.rendering import DecodedElsewhere
from cache_builder.build.plan import Plan, make_plan
from cache_builder.build.rendering import RenderTask, ViewRenderer, collated
from cache_builder.format.errors import KDCacheError
from tests.cache_builder.conftest import settings_for

LIVELY, HUNG = "lively", "hung"


@pytest.fixture
def plan(tmp_path: Path, photos: Path) -> Plan:
    return make_plan(settings_for(tmp_path / "cache.zarr", photos))


@pytest.fixture(autouse=True)
def answered_are_those_of_the_lively(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of Ray as a batch needs: a call of a decoder that hangs never ends."""

    def wait(calls: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
        return [call for call in calls if call[0] == LIVELY][:1], []

    gone = type("GoneError", (Exception,), {})
    ray = SimpleNamespace(wait=wait)
    monkeypatch.setattr(module, "find_ray", lambda: ray)
    monkeypatch.setattr(module, "fetched", lambda _, call: call[1]())
    monkeypatch.setattr(module, "what_died", lambda _: (gone,))


def decoder(plan: Plan, kind: str, given: list[str]) -> Any:
    """An actor's handle, which notes in ``given`` when it is called."""

    def render(tasks: list[RenderTask], _: object) -> tuple[str, Callable[[], Any]]:
        def answer() -> Any:
            batch = collated(ViewRenderer(plan.source, plan.replay).__getitems__(tasks))
            return batch, batch.images.numpy()

        given.append(kind)
        return kind, answer

    return SimpleNamespace(render=SimpleNamespace(remote=render))


def test_a_batch_of_a_decoder_that_hangs_comes_from_another(plan: Plan) -> None:
    given: list[str] = []
    decoders = [decoder(plan, kind, given) for kind in (HUNG, LIVELY)]
    batches = DecodedElsewhere(decoders, [], teachers=1, first=0)(plan, [[RenderTask(3, 0, 2)]])
    assert [batch.rows for batch in batches] == [[3]]
    assert given == [HUNG, LIVELY]


def test_a_batch_that_no_decoder_gives_ends_the_build(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    decoders = [decoder(plan, HUNG, given) for _ in range(3)]
    monkeypatch.setattr(module, "_MOST_PATIENCE_S", 0.05)
    monkeypatch.setenv("KDCACHE_STORE_PATIENCE_S", "0.05")
    batches = DecodedElsewhere(decoders, [], teachers=1, first=1)(plan, [[RenderTask(3, 0, 2)]])
    with pytest.raises(KDCacheError, match=r"3 decoder\(s\) were to render .* none answered within 0\.1 s"):
        next(batches)
    assert len(given) == 3
