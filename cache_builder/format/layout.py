"""Pure geometry of a store: tiles, arrays, shards and chunks. No I/O here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.codecs.record import Shuffle
from cache_builder.format.manifest import Manifest
from cache_builder.format.positions import COUNTS, STARTS, block_positions, position_count

ROOT_ATTRIBUTE = "kdcache"


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of views [view_start, view_stop) and rows [row_start, row_stop)."""

    group: int
    block: int
    view_start: int
    view_stop: int
    row_start: int
    row_stop: int

    @property
    def key(self) -> str:
        """The store key of this tile's commit object."""
        return f"commits/g{self.group:05d}-b{self.block:07d}.json"

    @property
    def views(self) -> range:
        """The views of the tile."""
        return range(self.view_start, self.view_stop)

    @property
    def rows(self) -> range:
        """The rows of the tile."""
        return range(self.row_start, self.row_stop)

    @property
    def count(self) -> int:
        """The number of (view, row) pairs, which are the records where a sample has one position."""
        return len(self.views) * len(self.rows)

    def __str__(self) -> str:
        return f"views {self.view_start}-{self.view_stop - 1}, rows {self.row_start}-{self.row_stop - 1}"


def tiles(manifest: Manifest) -> Iterator[Tile]:
    """All tiles, view groups outermost: the first views of every row exist first."""
    n, v = manifest.data.samples, manifest.views.count
    height, width = manifest.tiling.views, manifest.tiling.rows
    for group, view in enumerate(range(0, v, height)):
        for block, row in enumerate(range(0, n, width)):
            yield Tile(group, block, view, min(view + height, v), row, min(row + width, n))


@dataclass(frozen=True)
class Blocks:
    """How the rows of a view are cut into blocks: a block is one chunk of every field, decoded together.

    Its positions are cut in the same way, so that the same may be asked of them.
    """

    samples: int
    """N, the rows of a view; P, where these are positions."""
    height: int
    """Rows of a block; the last one may have fewer."""

    @classmethod
    def of(cls, manifest: Manifest) -> Blocks:
        """The blocks of a cache."""
        return cls(manifest.data.samples, manifest.tiling.rows)

    @classmethod
    def of_positions(cls, manifest: Manifest) -> Blocks:
        """The same blocks, counted in positions: those at their ends that belong to no row included."""
        return cls(position_count(manifest), block_positions(manifest))

    def __len__(self) -> int:
        return -(-self.samples // self.height)

    def rows(self, block: int) -> range:
        """The rows of a block."""
        return range(block * self.height, min((block + 1) * self.height, self.samples))

    def meeting(self, rows: range) -> range:
        """The blocks that consecutive rows lie in."""
        return range(rows.start // self.height, -(-rows.stop // self.height)) if len(rows) else range(0)

    def spanned(self, blocks: range) -> range:
        """The rows of neighbouring blocks."""
        return range(blocks.start * self.height, min(blocks.stop * self.height, self.samples))

    def runs(self, blocks: NDArray[np.integer[Any]]) -> Iterator[range]:
        """Ascending blocks as ranges of rows, as few as there can be: neighbours are read together."""
        for run in np.split(blocks, np.flatnonzero(np.diff(blocks) != 1) + 1):
            if run.size:
                yield self.spanned(range(int(run[0]), int(run[-1]) + 1))

    def split(self, rows: NDArray[np.integer[Any]]) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Every block that some of ``rows`` [n] lie in, with the places [m] of those among the n."""
        blocks = rows // self.height
        order = np.argsort(blocks, kind="stable")
        met, starts = np.unique(blocks[order], return_index=True)
        yield from zip(met.tolist(), np.split(order, starts[1:]), strict=met.size > 0)


@dataclass(frozen=True)
class ArraySpec:
    """Shape, type and partition of one Zarr array."""

    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    order: tuple[int, ...] | None
    """Permutation of the transpose codec, so that columns compress together."""
    dimension_names: tuple[str, ...] | None
    shuffle: Shuffle = "bitshuffle"
    shared: bool = False
    """Whether the first axis is view groups, whose views share this field."""
    coded: str | None = None
    """The field whose blocks the codec codes itself: the bytes of a chunk are one block, and then zeros."""

    def shard_key(self, tile: Tile) -> str:
        """Store key of the object that holds this array's part of a tile."""
        coordinates = (tile.group, tile.block) if self.shards else (tile.block,)
        padding = (0,) * (len(self.shape) - len(coordinates))
        return "/".join([self.path, "c", *(str(i) for i in coordinates + padding)])

    def chunk_keys(self) -> list[str]:
        """Store keys of an array without shards that is cut along its first axis alone."""
        padding = "/0" * (len(self.shape) - 1)
        count = -(-self.shape[0] // self.chunks[0]) if math.prod(self.shape) else 0
        return [f"{self.path}/c/{number}{padding}" for number in range(count)]

    def selection(self, tile: Tile) -> tuple[slice, ...]:
        """The part of this array that a tile covers."""
        if not self.shards:
            return (slice(tile.row_start, tile.row_stop),)
        start = tile.block * self.shards[1]
        positions = slice(start, min(start + self.shards[1], self.shape[1]))
        first = slice(tile.group, tile.group + 1) if self.shared else slice(tile.view_start, tile.view_stop)
        return first, positions


def record_path(manifest: Manifest, output: str, field: str) -> str:
    """Store path of the array that holds a field of an output's records."""
    return f"records/{output}/{field}" if manifest.format_version >= _OUTPUTS_SINCE else f"records/{field}"


def codec_path(manifest: Manifest, output: str, name: str) -> str:
    """Store path of a header array of an output's codec."""
    return f"codec/{output}/{name}" if manifest.format_version >= _OUTPUTS_SINCE else f"codec/{name}"


_OUTPUTS_SINCE = 3
"""The first format version with more than one output."""


def record_arrays(manifest: Manifest) -> list[ArraySpec]:
    """The arrays under ``records/``: one per output and field, view-major, one shard per tile."""
    return [spec for name in manifest.outputs for spec in output_arrays(manifest, name)]


def output_arrays(manifest: Manifest, output: str) -> list[ArraySpec]:
    """The arrays of one output's records, in the order of the packed record's fields."""
    v, p = manifest.views.count, position_count(manifest)
    height, width = manifest.tiling.views, block_positions(manifest)
    names = ("view", "row" if manifest.positions.kind == "one" else "position")
    specs = []
    for field in manifest.outputs[output].codec.layout.fields:
        count = field.count + CODED_MARGIN if field.coded else field.count
        tail = () if field.scalar else (count,)
        first = -(-v // height) if field.shared else v
        axis = ("group" if field.shared else names[0], names[1])
        specs.append(
            ArraySpec(
                path=record_path(manifest, output, field.name),
                dtype=field.dtype,
                shape=(first, p, *tail),
                chunks=(1, width, *tail),
                shards=(1 if field.shared else height, width, *tail),
                order=None if field.scalar or field.coded else (0, 2, 1),
                dimension_names=axis if field.scalar else (*axis, "item"),
                shuffle=field.shuffle,
                shared=field.shared,
                coded=field.name if field.coded else None,
            )
        )
    return specs


CODED_MARGIN = 1
"""A block of coded rows takes at most so many bytes a row more than the rows themselves."""


def digest_array(manifest: Manifest) -> ArraySpec:
    """``samples/digest``: one chunk per row block, written with the tiles of the first view group."""
    n, width = manifest.data.samples, manifest.tiling.rows
    return ArraySpec("samples/digest", np.dtype("<u8"), (n,), (width,), None, None, ("row",))


HEADER_CHUNK_BYTES = 2**26
"""A header array has one chunk up to this size; longer ones are cut along their first axis."""


def header_specs(manifest: Manifest, text_bytes: Mapping[str, int]) -> list[ArraySpec]:
    """The arrays written once, before the first tile.

    ``text_bytes``: the length of each array of text that there is, which the manifest does not know; an array
    that is not among them has length 0.
    """

    def text(stem: str, count: int) -> list[ArraySpec]:
        size = text_bytes.get(f"{stem}_bytes", 0)
        return [
            _header_spec(f"{stem}_bytes", "<u1", (size,)),
            _header_spec(f"{stem}_offsets", "<i8", (count + 1,)),
        ]

    return [
        *text("samples/id", manifest.data.samples),
        _header_spec("samples/label", "<i4", (manifest.data.samples,)),
        *_position_specs(manifest),
        *(text("samples/class_name", manifest.classes) if has_class_names(manifest) else ()),
        *(text("samples/own_class_name", manifest.data.own_classes) if has_own_names(manifest) else ()),
        *(spec for name in manifest.outputs for spec in _codec_specs(manifest, name)),
        *_probe_specs(manifest),
    ]


def _position_specs(manifest: Manifest) -> list[ArraySpec]:
    if manifest.positions.kind != "ragged":
        return []
    return [_header_spec(path, "<i8", (manifest.data.samples,)) for path in (STARTS, COUNTS)]


def has_class_names(manifest: Manifest) -> bool:
    """Whether the names of the teacher's classes are arrays of the store."""
    return manifest.logits.named and manifest.format_version >= _OUTPUTS_SINCE


def has_own_names(manifest: Manifest) -> bool:
    """Whether the names of the data set's own classes are arrays of the store."""
    return manifest.data.own_classes > 0 and manifest.format_version >= _OUTPUTS_SINCE


def _codec_specs(manifest: Manifest, output: str) -> list[ArraySpec]:
    codec, width = manifest.outputs[output].codec, manifest.outputs[output].width
    return [
        _header_spec(codec_path(manifest, output, header.name), header.dtype, header.shape)
        for header in codec.headers(width)
    ]


def _probe_specs(manifest: Manifest) -> list[ArraySpec]:
    if manifest.probe.kind != "pixels":
        return []
    side = manifest.input.size
    return [_header_spec("probe/pixels", "<u1", (len(manifest.probe.pairs), 3, side, side))]


def _header_spec(path: str, dtype: str, shape: tuple[int, ...]) -> ArraySpec:
    row_bytes = np.dtype(dtype).itemsize * math.prod(shape[1:])
    first = min(max(1, shape[0]), max(1, HEADER_CHUNK_BYTES // row_bytes))
    return ArraySpec(path, np.dtype(dtype), shape, (first, *shape[1:]), None, None, None)


def tile_arrays(manifest: Manifest, tile: Tile) -> list[ArraySpec]:
    """The arrays a tile writes: its records, and with the first view group the sample digests."""
    extra = [digest_array(manifest)] if tile.group == 0 else []
    return record_arrays(manifest) + extra
