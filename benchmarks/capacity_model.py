"""What a cache of any size takes: bytes, objects, requests, hours, money, servers. Arithmetic.

Three kinds of numbers go in and are kept apart: what the other benchmarks measured (:class:`Measured`, read
from their results), what the code fixes (tiles, arrays), and what is assumed (:class:`Assumed`: machines and
prices, with the day on which they were written down).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from benchmarks.fleet import Job
from benchmarks.report import RESULTS
from benchmarks.summary import figure
from cache_builder.build.plan import MAX_TILE_ROWS, TILE_VIEWS

HOUR_S = 3600.0
LOST = (0.2, 0.05, 0.02)
"""Shares of the variance that a record may lose, for which bytes were measured; the last is the default."""
USUAL_LOSS = LOST[-1]


@dataclass(frozen=True)
class Assumed:
    """What nobody measured here: put your own in."""

    day: str = "2026-12-01"
    gpu_tflops: float = 400.0
    """Useful bf16 TFLOP/s of a GPU in a teacher's forward pass: some 40 % of the peak of an H100."""
    gpu_usd_h: float = 2.5
    core_usd_h: float = 0.04
    gb_month_usd: float = 0.023
    put_usd: float = 5e-6
    """A PUT, LIST or conditional write."""
    get_usd: float = 4e-7
    """A GET or HEAD."""
    cores_per_server: int = 16
    server_gbit_s: float = 25.0
    share_used: float = 0.7
    """Of a server's cores and network, so that one of several may be away."""
    request_rows: int = 256
    """Rows a trainer's process asks for at once."""


@dataclass(frozen=True)
class Measured:
    """What the results of other benchmarks say."""

    record_bytes: Mapping[float, float]
    """Stored bytes a view of an ImageNet teacher (EfficientNet-Lite0), by share lost."""
    packed_ratio: Mapping[float, float]
    """Bytes of a page or an answer, shared parts once for eight views, over stored bytes; by share lost."""
    build_ratio: float
    """A build's time over the bare forward loop's: the worst teacher."""
    decode_s: float
    """Processor seconds to decode a photograph of 500 pixels."""
    render_s: float
    """Processor seconds to render a view of it."""
    request_us: float
    """Processor time of a server for a request of no rows."""
    row_us: float
    """Processor time of a server for a row of a request."""
    unpack_us: Mapping[float, float]
    """Processor time of a server to take a record from the store's entropy coder to a page; by share lost."""
    builder_bytes: float
    """Memory of a builder without rows."""
    builder_row_bytes: float
    """What it grows by, a row, beside what the data set holds of its own."""

    @classmethod
    def read(cls) -> Self:
        """From ``benchmarks/results``."""
        found = {
            name: json.loads((RESULTS / f"{name}.json").read_text())
            for name in (
                "real_teachers",
                "shared_parts",
                "build",
                "decode",
                "server_rivals",
                "million",
                "rows_memory",
            )
        }
        photograph = {"photographs": "500 px", "decoder": "Pillow, full (as now)"}
        decode_s = 1 / number(figure(found["decode"], photograph, "images/s"))
        request_us, row_us = _request_costs(found["server_rivals"])
        few = min(row[3] for row in found["million"]["rows"])
        return cls(
            record_bytes={lost: _stored_bytes(found["real_teachers"], lost) for lost in LOST},
            packed_ratio={lost: _of_shared_parts(found["shared_parts"], lost)[0] for lost in LOST},
            unpack_us={lost: _of_shared_parts(found["shared_parts"], lost)[1] for lost in LOST},
            build_ratio=max(row[4] for row in found["build"]["rows"]),
            decode_s=decode_s,
            render_s=1 / number(figure(found["decode"], photograph, "with a view")) - decode_s,
            request_us=request_us,
            row_us=row_us,
            builder_bytes=few * 2**20,
            builder_row_bytes=number(figure(found["rows_memory"], {"what": TILES_PEAK}, "bytes a row")),
        )

    def builder_memory(self, rows: int) -> float:
        """Memory of a builder of a cache of so many rows."""
        return self.builder_bytes + rows * self.builder_row_bytes


def number(value: object) -> float:
    """A figure of a result, which must be a number."""
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number, found {value!r}")
    return float(value)


def _stored_bytes(result: dict[str, object], lost: float) -> float:
    rows = result["rows"]
    assert isinstance(rows, list)
    name = f"kdcache, {lost:g} lost"
    return next(number(row[2]) for row in rows if row[0] == "lite0" and row[1].startswith(name))


def _of_shared_parts(result: dict[str, object], lost: float) -> tuple[float, float]:
    """Packed over stored bytes, and microseconds a record: the table has two columns "in parts"."""
    rows = result["rows"]
    assert isinstance(rows, list)
    row = next(row for row in rows if row[0] == lost)
    return number(row[3]) / number(row[1]), number(row[6])


def _request_costs(result: dict[str, object]) -> tuple[float, float]:
    """Microseconds of a request and of a row, from requests of 256 and of 4,096 rows by 64 connections."""
    of = {"rows in the cache": 1_281_167, "connections": 64, "server": "kdcache"}
    few, many = (
        number(figure(result, of | {"rows per request": rows}, "CPU µs"))  # type: ignore[arg-type]
        for rows in (256, 4096)
    )
    row_us = (many - few) / (4096 - 256)
    return few - 256 * row_us, row_us


@dataclass(frozen=True)
class Work:
    """Something to make a cache of."""

    name: str
    samples: int
    views: int
    gflop: float
    """Of the teacher's forward pass, a record."""
    record_bytes: float
    """Stored, a record."""
    packed_bytes: float
    """In a page and on the wire, a record."""
    sample_bytes: float
    """Read from the data set, a sample."""
    unpack_us: float = 0.0
    """Processor time that a record takes on its way from the store to a page."""
    id_bytes: float = 28
    positions: int = 1
    """Records of a sample in a view."""
    tile_rows: int = MAX_TILE_ROWS
    arrays: int = 2
    """Objects of a tile beside its commit: ``joint-sketch`` has the part that views share, and the other."""
    is_pictures: bool = True

    @property
    def list_bytes(self) -> float:
        """What a data set of files holds of a sample: its id, where it begins, and two kinds of label."""
        return self.id_bytes + 8 + 2 * 4

    @property
    def records(self) -> int:
        """All of them."""
        return self.samples * self.views * self.positions

    @property
    def page_bytes(self) -> float:
        """Memory for the page of a view."""
        return self.samples * self.positions * self.packed_bytes

    @property
    def id_table_bytes(self) -> float:
        """Memory of a process that compares ids, for each: its bytes, its offset, and a hash meanwhile."""
        return self.id_bytes + 8 + 8

    @property
    def id_index_bytes(self) -> float:
        """Memory of a process that looks ids up, for each: its bytes, its offset, a hash and a row."""
        return self.id_bytes + 8 + 16

    @property
    def groups(self) -> int:
        """View groups."""
        return -(-self.views // TILE_VIEWS)

    @property
    def blocks(self) -> int:
        """Row blocks."""
        return -(-self.samples // self.tile_rows)

    @property
    def tiles(self) -> int:
        """View groups of row blocks."""
        return self.groups * self.blocks

    def job(self, measured: Measured, assumed: Assumed) -> Job:
        """The build as builders with a GPU each see it."""
        forward_s = self.gflop / (assumed.gpu_tflops * 1e3)
        records = min(self.tile_rows, self.samples) * self.views * self.positions
        return Job(self.blocks, self.groups, records * forward_s * measured.build_ratio)


FIXED_OBJECTS = 32
"""Objects beside those of tiles: manifest, groups, metadata, codec, ids and labels, index."""
COMMIT_BYTES = 870.0
"""Of a tile's commit with the teacher's statistics (``capacity_points`` compares)."""
TILE_OPEN_S = 4e-4
"""Processor time that a tile adds to opening a cache (likewise)."""
TILE_OPEN_BYTES = 1_800.0
"""Memory that a tile takes in an open cache (likewise)."""


@dataclass(frozen=True)
class Store:
    """What a cache takes on an object store."""

    work: Work

    @property
    def objects(self) -> int:
        """A commit and the arrays of each tile, the digests of each row block, and what there is once."""
        once = FIXED_OBJECTS
        return self.work.tiles * (self.work.arrays + 1) + self.work.blocks + once

    @property
    def index_bytes(self) -> float:
        """Of the object that holds all commits of a sealed cache."""
        return self.work.tiles * COMMIT_BYTES

    @property
    def row_bytes(self) -> float:
        """Of what each sample has once: id, its offset, label, digest."""
        return self.work.id_bytes + 8 + 4 + 8

    @property
    def bytes(self) -> float:
        """All of it; ids are counted as they are, the store compresses them."""
        records = self.work.records * self.work.record_bytes
        return records + self.work.samples * self.row_bytes + 2 * self.index_bytes


@dataclass(frozen=True)
class Build:
    """What a build takes."""

    work: Work
    measured: Measured
    assumed: Assumed

    @cached_property
    def gpu_h(self) -> float:
        """Hours of one GPU."""
        forward_s = self.work.records * self.work.gflop / (self.assumed.gpu_tflops * 1e3)
        return forward_s * self.measured.build_ratio / HOUR_S

    @cached_property
    def core_h(self) -> float:
        """Hours of one core that decodes, once for the views of a group, and renders."""
        if not self.work.is_pictures:
            return 0.0
        decoded = self.work.samples * self.work.groups * self.measured.decode_s
        return (decoded + self.work.samples * self.work.views * self.measured.render_s) / HOUR_S

    @property
    def cores_per_gpu(self) -> float:
        """Below these, the teacher waits for pictures."""
        return self.core_h / self.gpu_h

    @property
    def read_bytes(self) -> float:
        """From the data set: once for the views of a group."""
        return self.work.samples * self.work.groups * self.work.sample_bytes

    @property
    def puts(self) -> int:
        """An object each, and those for leases."""
        return Store(self.work).objects + self.lease_puts

    @property
    def lease_puts(self) -> int:
        """A lease is taken and given back for each row block."""
        return 2 * self.work.blocks

    @property
    def usd(self) -> float:
        """GPUs, cores and requests; reading the data set and egress are not in it."""
        machines = self.gpu_h * self.assumed.gpu_usd_h + self.core_h * self.assumed.core_usd_h
        return machines + self.puts * self.assumed.put_usd

    @property
    def month_usd(self) -> float:
        """Of storing it."""
        return Store(self.work).bytes / 1e9 * self.assumed.gb_month_usd


@dataclass(frozen=True)
class Serving:
    """Trainers that ask servers for rows."""

    work: Work
    trainers: int
    """Processes that train, one a GPU."""
    images_s: float
    """Each of them takes so many a second."""
    measured: Measured
    assumed: Assumed

    @property
    def rows_s(self) -> float:
        """All of them."""
        return self.trainers * self.images_s

    @property
    def cores(self) -> float:
        """Cores of servers that this keeps busy."""
        us = self.measured.row_us + self.measured.request_us / self.assumed.request_rows
        return self.rows_s * us * 1e-6

    @property
    def gbit_s(self) -> float:
        """On the wire."""
        return self.rows_s * self.work.packed_bytes * 8e-9

    @property
    def unpacking_cores(self) -> float:
        """Cores of each server that bring blocks into pages, where a view is used once and pages are new.

        Every server needs every block, since trainers ask for rows in a random order.
        """
        return self.rows_s * self.work.unpack_us * 1e-6

    @property
    def servers(self) -> int:
        """As many as cores or network ask for, whichever is more, once pages are in memory."""
        of_cores = self.cores / (self.assumed.cores_per_server * self.assumed.share_used)
        of_network = self.gbit_s / (self.assumed.server_gbit_s * self.assumed.share_used)
        return max(1, math.ceil(max(of_cores, of_network)))

    @property
    def page_bytes(self) -> float:
        """Memory of each server for pages, where all trainers are in one view; an epoch ends in two."""
        return self.work.page_bytes


def works(measured: Measured, lost: float = USUAL_LOSS) -> tuple[Work, ...]:
    """The four of the plan, at a share of the variance lost."""
    stored = measured.record_bytes[lost]
    packed = stored * measured.packed_ratio[lost]
    unpack_us = measured.unpack_us[lost]

    def pictures(name: str, samples: int, views: int, sample_bytes: float) -> Work:
        return Work(name, samples, views, VIT_L_GFLOP, stored, packed, sample_bytes, unpack_us)

    return (
        pictures("ImageNet-1k x 300 views", 1_281_167, 300, 110e3),
        pictures("ImageNet-21k x 90 views", 14_197_122, 90, 90e3),
        pictures("1 billion images x 4 views", 1_000_000_000, 4, 100e3),
        TOKENS,
    )


TILES_PEAK = "tiles, peak MB"
"""The line of ``rows_memory`` that says what a builder takes while it builds tiles."""
VIT_L_GFLOP = 123.0
"""ViT-L/16 at 224 pixels: 61.6 billion multiplications with their additions."""
TOKENS = Work(
    "1 trillion tokens",
    samples=10**12 // 4096,
    views=1,
    gflop=16.0,  # two operations a parameter of a teacher of 8 billion
    record_bytes=64.0,
    packed_bytes=64.0,
    sample_bytes=2 * 4096,
    id_bytes=10,
    positions=4096,
    tile_rows=64,
    arrays=1,
    is_pictures=False,
)
"""As the design of token caches has it: 64 bytes a token, tiles of 2**18 tokens. No builder makes them."""
