"""What runs on the nodes: teachers, which own a device and write tiles, and decoders, which render views."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from socket import gethostname
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache_builder.build.begin import begun
from cache_builder.build.cluster.runtime import find_ray
from cache_builder.build.cluster.seen import Witness, held_output
from cache_builder.build.cluster.told import Snapshot, Told
from cache_builder.build.compiling import compile_teacher
from cache_builder.build.finished import BuildResult, finished_by_these_settings, finished_of, resumed
from cache_builder.build.parts import part_tiles
from cache_builder.build.plan import Plan, make_plan
from cache_builder.build.rendering import RenderedBatch, RenderTask, ViewRenderer, collated
from cache_builder.build.repair import repair
from cache_builder.build.running import Renders, rendered
from cache_builder.build.settings import BuildSettings
from cache_builder.build.sharing import SharingWriter
from cache_builder.build.tile_runner import TileRunner
from cache_builder.build.work import Listed, Tally
from cache_builder.console.memory import memory_failures
from cache_builder.console.progress import BuildStats
from cache_builder.datasets import ImageSource
from cache_builder.datasets.orders import OrderTally
from cache_builder.format.commits import read_commit_bytes
from cache_builder.format.errors import ConfigError
from cache_builder.format.layout import Tile
from cache_builder.format.manifest import Manifest
from cache_builder.format.store import open_store
from cache_builder.views.replay import Replay


@dataclass(frozen=True)
class Assignment:
    """What every process of a build is given when it starts."""

    settings: BuildSettings
    launch: str
    """Names this build in the driver's lock."""
    version: str
    """Of the kdcache that the driver has."""
    folder: str
    """The driver's working directory, which relative paths begin at."""
    witness: Witness | None
    """None where the driver itself can read nothing."""

    def enter(self) -> None:
        """Stand where the driver stands; :class:`ConfigError` where another kdcache is installed."""
        here = version("kdcache")
        if here != self.version:
            raise ConfigError(
                f"node {gethostname()} has kdcache {here}, and the build was started by {self.version}: "
                "install the same on all nodes"
            )
        with suppress(OSError):  # absolute paths do without
            os.chdir(self.folder)
        if self.folder not in sys.path:
            sys.path.append(self.folder)  # teachers and data sets of the user's own


class Given:
    """The assignment and the data set, fetched when they are needed."""

    def __init__(self, references: list[Any]) -> None:
        """Ray's references of the two, in a list: alone they would be arguments, which Ray fetches itself."""
        self._references = references

    @cached_property
    def assignment(self) -> Assignment:
        """What is to be done."""
        found: Assignment = find_ray().get(self._references[0])
        found.enter()
        return found

    @property
    def settings(self) -> BuildSettings:
        """Of the build."""
        return self.assignment.settings

    @cached_property
    def source(self) -> ImageSource:
        """The data set; raises where this node does not see it."""
        witness = self.assignment.witness
        found: ImageSource = find_ray().get(self._references[1])
        if witness is not None:
            witness.check(found)
        return found


@dataclass(frozen=True)
class BlockDone:
    """What a teacher tells of a row block that it ran."""

    stats: BuildStats
    order: OrderTally


class Teacher:
    """A teacher on a device. Calls may be repeated, here or in another process: what is committed stays.

    Every call brings the references of the assignment and of the data set: Ray may have started the process
    anew since the last one, and then the teacher is opened by whichever call comes first.
    """

    def __init__(self) -> None:
        self._told = Told()
        self._is_compiled = False
        self._references: list[Any] = []

    def open(self, references: list[Any]) -> None:
        """Open the teacher and look at the data set; raises what is wrong with either."""
        self._references = references
        assert self._plan

    def finished(self, references: list[Any]) -> BuildResult | None:
        """What there is, where that is of these settings and whole."""
        self._references = references
        return finished_by_these_settings(self._plan)

    def begin(self, references: list[Any]) -> BuildResult | None:
        """Calibrate and create, as the first process of any build; what there is where that is whole."""
        self._references = references
        settings = self._given.settings
        hold = held_output(settings.out, self._given.assignment.launch)
        with memory_failures(settings.batch_size):
            if settings.repair:
                repair(self._plan, self._told, hold)
            stored = resumed(self._plan)
            there = finished_of(self._plan, stored)
            if there is None:
                store = begun(self._plan, self._told, hold, stored)
                self._is_compiled = True
                writer = store.writer(settings.out, hold.check)
                writer.unseal()  # teachers only ever add
                writer.sweep()
            return there

    def run(self, block: int, rendering: Renders | None, references: list[Any]) -> BlockDone:
        """Run the tiles of a row block that are not committed.

        ``rendering``: what has views rendered elsewhere; None renders in this process and its loaders.
        """
        self._references = references
        with memory_failures(self._given.settings.batch_size):
            manifest, writer = self._opened
            render = rendered if rendering is None else rendering
            runner = TileRunner(self._plan, manifest, writer, self._told, render)
            part = part_tiles(manifest, self._given.settings.rows)
            of_block = [tile for tile in part if tile.block == block]
            stats = runner.run(_missing(self._given.settings.out, of_block))
            return BlockDone(stats, runner.order)

    def told(self) -> Snapshot:
        """How far it is: called while another call runs."""
        return self._told.take()

    @cached_property
    def _given(self) -> Given:
        return Given(self._references)

    @cached_property
    def _plan(self) -> Plan:
        with memory_failures(self._given.settings.batch_size):
            plan = make_plan(self._given.settings, source=self._given.source)
        part_tiles(plan.manifest, plan.settings.rows)
        return plan

    @cached_property
    def _opened(self) -> tuple[Manifest, SharingWriter]:
        """What is there, and what writes to it.

        That never takes a commit away: a process that the driver takes for dead may still write the tiles of
        a block that another one has meanwhile, and both write the same bytes.
        """
        out = self._given.settings.out
        hold = held_output(out, self._given.assignment.launch)
        manifest = resumed(self._plan)
        if manifest is None:
            raise ConfigError(f"--out {out} is begun, and there is no cache for this node: do all share it?")
        if self._given.settings.compile and not self._is_compiled:
            compile_teacher(self._plan, self._told)
        return manifest, SharingWriter(out, manifest, hold.check)


def _missing(out: str, of_block: list[Tile]) -> Listed:
    """What a row block lacks. Its commits are looked up by name: every block would else list all of them."""
    committed = read_commit_bytes(open_store(out, read_only=True), of_block)
    return Listed(of_block, Tally(out, of_block, is_live=False, committed=committed))


class Decoder:
    """Renders views of samples: what a loader process does, on any node."""

    def __init__(self) -> None:
        self._renderer: ViewRenderer | None = None

    def open(self, references: list[Any]) -> None:
        """Look at the data set; raises where this node does not see it. The third reference is the replay."""
        torch.set_num_threads(1)
        replay: Replay = find_ray().get(references[2])
        self._renderer = ViewRenderer(Given(references).source, replay)

    def render(
        self, tasks: list[RenderTask], references: list[Any]
    ) -> tuple[RenderedBatch, NDArray[np.uint8]]:
        """A batch without its pictures, and these as an array, uint8 [rows, views, 3, S, S]."""
        if self._renderer is None:  # Ray started it anew
            self.open(references)
        assert self._renderer is not None
        batch = collated(self._renderer.__getitems__(tasks))
        return batch._replace(images=torch.empty(0)), batch.images.numpy()
