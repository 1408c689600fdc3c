"""Row blocks are repeated where a teacher dies, and only one that died at work counts against its block."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cache_builder.build.cluster import crew as crew_module
from cache_builder.build.cluster.actors import BlockDone
from cache_builder.build.cluster.crew import Crew
from cache_builder.build.cluster.dispatch import Dispatch
from cache_builder.build.cluster.told import Snapshot
from cache_builder.console.progress import SILENT, BuildStats
from cache_builder.datasets.orders import OrderTally
from cache_builder.format.errors import KDCacheError
from tests.cache_builder.conftest import settings_for

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install 'kdcache[ray]'")

GIVEN = ["assignment", "source"]


class GoneError(Exception):
    """Raised in a process that ends with it."""


class Worker:
    """A teacher that only notes its blocks; ``fails`` says which of them end its process."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._is_open = False

    def open(self, references: list[Any]) -> None:
        assert references == GIVEN
        self._is_open = True

    def run(self, block: int, rendering: object, references: list[Any]) -> BlockDone:
        self.open(references)
        if self._cluster.fails(block):
            raise GoneError
        self._cluster.ran.append(block)
        return BlockDone(BuildStats(done=1), OrderTally(None, 10, views=1))

    def told(self) -> Snapshot:
        return Snapshot(1, "building", 1)


class Actor:
    """As Ray's: a call of a dead one without retries fails, and the next meets a process started anew."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.worker = cluster, Worker(cluster)
        self.is_dead = False

    def __getattr__(self, name: str) -> Any:
        return Method(self, name)


class Method:
    """Of an actor. What it gives is the reference: a value, or what was raised."""

    def __init__(self, actor: Actor, name: str) -> None:
        self._actor, self._name = actor, name

    def options(self, **_: object) -> Method:
        return self

    def remote(self, *given: Any) -> Any:
        actor, errors = self._actor, self._actor.cluster.exceptions
        if actor.is_dead and self._name in ("run", "told"):
            return Reference(errors.ActorUnavailableError("it died while nobody called it", None))
        if actor.is_dead:
            actor.worker, actor.is_dead = Worker(actor.cluster), False
        try:
            return Reference(getattr(actor.worker, self._name)(*given))
        except GoneError:
            # The call that tells has been answered before: it runs beside this one.
            actor.worker = Worker(actor.cluster)
            return Reference(errors.ActorDiedError())


class Reference:
    """Of what a call gave."""

    def __init__(self, value: object) -> None:
        self.value = value


class Cluster:
    """As much of Ray as a dispatch uses, in this process; calls have ended when they are made."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        from ray import exceptions

        self.exceptions, self.fails = exceptions, fails
        self.ran: list[int] = []
        self.actors: list[Actor] = []

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 6.0}

    def remote(self, **_: object) -> Any:
        return lambda _: SimpleNamespace(remote=self._start)

    def _start(self) -> Actor:
        self.actors.append(Actor(self))
        return self.actors[-1]

    def wait(self, pending: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
        return pending[:1], pending[1:]

    def kill(self, actor: Actor, no_restart: bool) -> None:
        assert no_restart
        self.actors.remove(actor)

    def get(self, reference: Reference) -> object:
        if isinstance(reference.value, Exception):
            raise reference.value
        return reference.value


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "_AGAIN_S", 0.0)


def crew_on(cluster: Cluster) -> Crew:
    """One of two teachers, which have been opened."""
    settings = settings_for("cache.zarr", Path("photos"), ray_teachers=2, device="cpu")
    crew = Crew(cluster, settings, GIVEN)
    crew.grow(2)
    for reference in [*crew.teachers.opening]:
        assert crew.teachers.opened(reference) is not None
    return crew


def dispatch_on(cluster: Cluster) -> Dispatch:
    return Dispatch(cluster, crew_on(cluster), lambda block: 1, SILENT)


def test_teachers_that_died_while_idle_do_not_count_against_a_block() -> None:
    cluster = Cluster(fails=lambda block: False)
    dispatch = dispatch_on(cluster)
    for block in range(6):  # more than may die on one block
        for actor in cluster.actors:
            actor.is_dead = True
        dispatch.run([0], before=0, total=1)
        assert len(cluster.ran) == block + 1
    dispatch.run(range(4), before=0, total=4)
    assert sorted(cluster.ran[6:]) == [0, 1, 2, 3]


def test_a_block_is_given_to_another_where_a_teacher_died_at_it() -> None:
    failures = iter([True, True, True, True, False])
    cluster = Cluster(fails=lambda block: block == 1 and next(failures))
    dispatch = dispatch_on(cluster)
    dispatch.run(range(3), before=0, total=3)
    assert sorted(cluster.ran) == [0, 1, 2]
    assert len(dispatch.done) == 3


def test_a_block_that_ends_every_teacher_ends_the_build() -> None:
    cluster = Cluster(fails=lambda block: block == 1)
    dispatch = dispatch_on(cluster)
    with pytest.raises(KDCacheError, match=r"row block 1 \(counted from 0\) ended 5 teachers"):
        dispatch.run(range(3), before=0, total=3)


def test_teachers_that_do_not_end_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(fails=lambda block: False)
    crew, said = crew_on(cluster), list[str]()
    monkeypatch.setattr(cluster, "wait", lambda calls, **_: ([], calls))
    crew.end(said.append)
    assert not cluster.actors
    assert said[0].startswith("2 teacher(s) have not ended after 10 s")
    crew.end(said.append)
    assert len(said) == 1
