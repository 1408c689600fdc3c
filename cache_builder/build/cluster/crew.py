"""The actors of a build: how many, on what, and which of them are free; they grow with the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cache_builder.build.cluster.actors import Decoder, Teacher
from cache_builder.build.cluster.runtime import fetched, what_died
from cache_builder.build.settings import BuildSettings
from cache_builder.views.replay import Replay

_MOST_DECODERS = 16
"""Decoders that one GPU is given by default, as loader processes in a single one."""
_DECODER_TRIES = 3
_LOOK_EVERY_S = 5.0
"""Between two looks at what the cluster has."""
_AGAIN_S = 1.0
"""Between two attempts to open an actor that died."""
_ENDING_S = 10.0


@dataclass(frozen=True)
class Sizes:
    """How many actors a cluster has room for."""

    teachers: int
    decoders: int


def wants_gpus(settings: BuildSettings, resources: Mapping[str, float]) -> bool:
    """Whether teachers run on GPUs: where the cluster has any, or the user says so."""
    return settings.device == "cuda" or (settings.device == "auto" and resources.get("GPU", 0) >= 1)


def sizes(settings: BuildSettings, resources: Mapping[str, float], on_gpus: bool) -> Sizes:
    """One teacher per GPU and decoders on the processors; without GPUs one teacher per ``--ray-cpus``
    processors, which then renders itself, as decoding is a small part of its work."""
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    decoders = settings.ray_decoders
    if on_gpus:
        teachers = settings.ray_teachers or max(1, gpus)
        return Sizes(teachers, max(1, min(cpus, _MOST_DECODERS * teachers)) if decoders is None else decoders)
    left = cpus - (decoders or 0)
    return Sizes(settings.ray_teachers or max(1, left // (settings.ray_cpus or 1)), decoders or 0)


def teacher_options(settings: BuildSettings, on_gpus: bool) -> dict[str, Any]:
    """What Ray is asked for a teacher. A call of one that died is repeated by the driver, elsewhere."""
    # On a GPU it needs no processor of its own, so that decoders never keep it from starting.
    processors = settings.ray_cpus if settings.ray_cpus is not None else int(not on_gpus)
    return {
        "num_gpus": int(on_gpus),
        "num_cpus": processors,
        "max_restarts": -1,
        "max_task_retries": 0,
        "concurrency_groups": {"told": 1},
    }


def decoder_options() -> dict[str, Any]:
    """What Ray is asked for a decoder: a batch that was lost with it is rendered again, by Ray."""
    return {"num_cpus": 1, "num_gpus": 0, "max_restarts": -1, "max_task_retries": _DECODER_TRIES}


class Pool:
    """Actors of one kind. Those that are being opened wait for room, for their process, or for a teacher."""

    def __init__(self, ray: Any, make: Callable[[], Any], given: list[Any]) -> None:
        """``given``: references that each is opened with; Ray would warn of arguments of the actors."""
        self._ray, self._make, self.given = ray, make, given
        self.actors: list[Any] = []
        self.opening: dict[Any, Any] = {}
        """Actors by the reference of the call that opens them."""
        self._later: list[tuple[float, Any]] = []
        """Actors that died, and when to try to open them once more."""

    def grow(self, wanted: int) -> None:
        """Have at least so many; those for which there is no room yet start as soon as there is."""
        while len(self.actors) < wanted:
            actor = self._make()
            self.actors.append(actor)
            self._later.append((0.0, actor))
        now = time.monotonic()
        due = [actor for at, actor in self._later if at <= now]
        self._later = [(at, actor) for at, actor in self._later if at > now]
        self.opening |= {actor.open.remote(self.given): actor for actor in due}

    def reopen(self, actor: Any) -> None:
        """Open an actor that died, which Ray starts anew where there is room."""
        self._later.append((time.monotonic() + _AGAIN_S, actor))

    def opened(self, ref: Any) -> Any | None:
        """The actor of a call that has ended, None where it is not there again yet.

        Raises what is wrong on its node.
        """
        actor = self.opening.pop(ref)
        try:
            fetched(self._ray, ref)
        except what_died(self._ray):
            self.reopen(actor)
            return None
        return actor

    @property
    def ready(self) -> list[Any]:
        """Those that have been opened, be they busy or not."""
        waiting = [*self.opening.values(), *(actor for _, actor in self._later)]
        return [actor for actor in self.actors if not any(actor is other for other in waiting)]

    def end(self) -> None:
        """End every actor at once."""
        for actor in self.actors:
            self._ray.kill(actor, no_restart=True)
        self.actors, self.opening, self._later = [], {}, []


class Crew:
    """The teachers and the decoders of a build, as many as the cluster has room for at the moment."""

    def __init__(self, ray: Any, settings: BuildSettings, given: list[Any]) -> None:
        """``given``: references of the assignment and of the data set, which every actor needs."""
        self._ray, self._settings, self._given = ray, settings, given
        self.on_gpus = wants_gpus(settings, ray.cluster_resources())
        """Decided once: a build has one precision."""
        teacher = ray.remote(**teacher_options(settings, self.on_gpus))(Teacher)
        self.teachers = Pool(ray, teacher.remote, given)
        self.decoders: Pool | None = None
        self._next_look = 0.0
        self._wanted = Sizes(1, 0)

    def use_decoders(self, replay: Replay) -> None:
        """From now on views are rendered by decoders, where these are wanted."""
        decoder = self._ray.remote(**decoder_options())(Decoder)
        self.decoders = Pool(self._ray, decoder.remote, [*self._given, self._ray.put(replay)])

    def grow(self, most: int) -> None:
        """Use nodes that came. ``most``: teachers for which there is work."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_EVERY_S
            self._wanted = sizes(self._settings, self._ray.cluster_resources(), self.on_gpus)
        self.teachers.grow(min(self._wanted.teachers, most))
        if self.decoders is not None:
            self.decoders.grow(self._wanted.decoders)

    def end(self, say: Callable[[str], None]) -> None:
        """End all of them; returns when their processes are gone, or after :data:`_ENDING_S`, and says so."""
        # A call waits behind what the teacher does, and fails when its process is gone.
        calls = [actor.told.remote() for actor in self.teachers.actors]
        self.teachers.end()
        if self.decoders is not None:
            self.decoders.end()
        if not calls:
            return
        _, left = self._ray.wait(calls, num_returns=len(calls), timeout=_ENDING_S)
        if left:
            say(
                f"{len(left)} teacher(s) have not ended after {_ENDING_S:g} s, as on a node that cannot be "
                "reached: what one of them still commits are the bytes that another one would"
            )

    def lacking(self) -> str:
        """What the cluster has, and what a teacher needs, for people who wait."""
        there = self._ray.cluster_resources()
        options = teacher_options(self._settings, self.on_gpus)
        needed = f"{options['num_cpus']} CPU and {options['num_gpus']} GPU"
        return (
            f"waiting for a teacher to start: each needs {needed}, "
            f"the cluster has {there.get('CPU', 0):g} and {there.get('GPU', 0):g} in all"
        )
