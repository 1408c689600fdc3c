"""Write the golden caches of the current format version into an empty folder, each with its decoded logits.

Run once for each format version, then never again: ``python -m tests.format.make_golden FOLDER``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from cache_builder.format import open_cache, writer
from cache_builder.format.class_names import ClassNames
from cache_builder.format.codecs.class_sketch import ClassSketchSettings
from cache_builder.format.codecs.joint_sketch import JointSketch
from cache_builder.format.codecs.masking import MaskSection
from cache_builder.format.layout import tiles
from cache_builder.format.manifest import Manifest
from tests.caches import (
    Arrays,
    bound,
    fit_basis,
    no_tail,
    synthetic_logits,
    synthetic_manifest,
    synthetic_names,
)
from tests.format.joint import fitted, joint, write_joint_cache
from tests.format.position_caches import COUNTS_OF_ROWS, GRID, RAGGED, write_positions

INVALID_ROW = 1
OWN = ("good", "bäd")
SKETCHES: dict[str, dict[str, object]] = {
    # Every type of coefficient, an odd number of half bytes.
    "sketch": {
        "top_k": 4, "index_coding": "rank", "value_bits": 8, "tail_rank": 7, "tail_wide": 1, "tail_bytes": 3,
    },
    "sketch-16": {
        "top_k": 2, "index_coding": "class", "value_bits": 16, "tail_rank": 2, "tail_wide": 0,
        "tail_bytes": 0,
    },
}  # fmt: skip


def write(
    path: Path,
    manifest: Manifest,
    logits: NDArray[np.float32],
    basis: Arrays,
    own: tuple[str, ...] | None = None,
) -> None:
    """One cache with an invalid row and ids that are not ASCII, and ``logits.npy`` beside it."""
    views, rows, classes = logits.shape
    codec = bound(manifest.codec, basis)
    names = ClassNames(synthetic_names(manifest).teacher, own)
    table = writer.SampleTable.from_ids([f"ø/{row}.png" for row in range(rows)], np.arange(rows) - 1, names)
    pixels = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(1, 3, 8, 8)
    arrays = writer.header_arrays(codec, table, pixels)
    manifest = manifest.model_copy(update={"digests": writer.header_digests(arrays)})
    writer.create(path, manifest, arrays)
    out = writer.CacheWriter(path, manifest)
    for tile in tiles(manifest):
        block = logits[tile.view_start : tile.view_stop, tile.row_start : tile.row_stop]
        flat = codec.encode(block.reshape(-1, classes))
        fields = {name: column.reshape(*block.shape[:2], *column.shape[1:]) for name, column in flat.items()}
        invalid = [row for row in tile.rows if row == INVALID_ROW]
        for row in invalid:
            for name, column in codec.invalid(len(tile.views)).items():
                fields[name][:, row - tile.row_start] = column
        digests = np.array([0 if row in invalid else 2**63 + row for row in tile.rows], np.uint64)
        out.write_tile(tile, fields, digests, invalid)
    out.finish()
    cache = open_cache(path)
    np.save(path.with_suffix(".npy"), np.stack([cache.decode(cache.read_page(v)) for v in range(views)]))


def write_masked(folder: Path) -> None:
    """``masked.zarr``: one class that every record masks and one that some do. Added to v2 later."""
    logits = synthetic_logits(views=1, rows=3, classes=40, seed=5)
    manifest = synthetic_manifest(
        views=1, rows=3, classes=40, top_k=4, rank=2, tile_views=2, tile_rows=2, named=False
    )
    masks = MaskSection(classes=1, lowest=-1e4, floor=-20.0)
    section = ClassSketchSettings(
        top_k=4, index_bits=8, value_bits=8, value_step=0.05, tail_rank=2, tail_wide=0, tail_bytes=1,
        tail_step=0.5, index_coding="rank", masks=masks,
    )  # fmt: skip
    found = fit_basis(logits.reshape(-1, 40), 2)
    found.mean[7], found.basis[:, 7] = -1e4, 0
    logits[..., 7], logits[:, ::2, 11] = -np.inf, -1e9
    basis = Arrays(found.mean, found.basis, np.arange(80, dtype=np.int16).reshape(40, 2) % 11 - 5)
    write(folder / "masked.zarr", manifest.with_codec(section), logits, basis)


def write_example(folder: Path) -> None:
    """``example.zarr``: the cache that FORMAT.md works through, small enough to be written out."""
    section = ClassSketchSettings(
        top_k=2, index_bits=8, value_bits=8, value_step=0.125, tail_rank=2, tail_wide=0, tail_bytes=1,
        tail_step=0.5, index_coding="class",
    )  # fmt: skip
    manifest = synthetic_manifest(
        views=1, rows=2, classes=6, top_k=2, rank=2, tile_views=1, tile_rows=2, name="example"
    ).with_codec(section)
    mean = np.array([0, 1, 0, -1, 0.5, 0], np.float32)
    rows = np.array([[0.5, 0.5, 0.5, 0.5, 0, 0], [0.5, -0.5, 0.5, -0.5, 0, 0]], np.float32)
    centres = np.array([[2, 2], [6, -1], [0, 1], [-1, 0], [1, 0], [0, 0]], np.int16)
    logits = np.array([[[3.0, 5.0, 1.75, 2.25, 0.5, -0.25], [0, 0, 0, 0, 0, 0]]], np.float32)
    write(folder / "example.zarr", manifest, logits, Arrays(mean, rows, centres))


def write_several(folder: Path) -> None:
    """``grid.zarr``, ``ragged.zarr``: samples of several positions."""
    for kind, counts in ((GRID, (6,) * 5), (RAGGED, COUNTS_OF_ROWS)):
        path = folder / f"{kind.kind}.zarr"
        write_positions(path, kind, synthetic_logits(3, sum(counts), 12, seed=6), counts)
        cache = open_cache(path)
        np.save(path.with_suffix(".npy"), np.stack([cache.decode(cache.read_page(v)) for v in range(3)]))


def write_joint(folder: Path) -> None:
    """``joint.zarr``: two view groups, a partial tile. ``joint-example.zarr``: FORMAT.md works through it."""
    logits = synthetic_logits(1, 3, 40, seed=7) + 0.2 * synthetic_logits(3, 3, 40, seed=8)
    written(folder / "joint.zarr", logits, fitted(logits), tile_views=2, tile_rows=2, invalid=(INVALID_ROW,))
    rows = np.array([[0.5, 0.5, 0.5, 0.5, 0, 0], [0.5, -0.5, 0.5, -0.5, 0, 0]])
    codec = joint(
        np.array([0, 1, 0, -1, 0.5, 0], np.float32),
        rows,
        top_k=2, rank=2, step=1.0, finer=1, dead_zone=0.25, sample_values=[(2, 63)],
        view_values=[(1, 3), (1, 15), (2, 15), (2, 255)],
    )  # fmt: skip
    sample = np.array([3.0, 5.0, 1.75, 2.25, 0.5, -0.25], np.float32)
    views = np.stack([np.roll(sample, row) for row in range(4)]) + np.array([[[0]], [[0.5]]])
    written(folder / "joint-example.zarr", views.astype(np.float32), codec, tile_views=2, tile_rows=4)


def written(path: Path, logits: NDArray[np.float32], codec: JointSketch, **sizes: Any) -> None:
    """A cache of this codec with ``.npy`` beside it."""
    write_joint_cache(path, logits, codec=codec, name=path.stem, **sizes)
    cache = open_cache(path)
    np.save(
        path.with_suffix(".npy"), np.stack([cache.decode(cache.read_page(v)) for v in range(len(logits))])
    )


def main(folder: Path) -> None:
    """``tail.zarr``: all widths, partial tiles; two sketches; ``exact.zarr`` and those after it: K = C."""
    zarr.config.set({"json_indent": None})  # small files
    logits = synthetic_logits(views=3, rows=3, classes=257, seed=2) * 3
    logits[:, 0, 256] = logits[:, 0].max(axis=1) + 2  # an id that needs the second byte
    manifest = synthetic_manifest(
        views=3, rows=3, classes=257, top_k=4, rank=2, wide=1, tile_views=2, tile_rows=2, named=False
    )
    basis = fit_basis(logits.reshape(-1, 257), 2)
    write(folder / "tail.zarr", manifest, logits, basis)
    for name, changes in SKETCHES.items():
        section = ClassSketchSettings.model_validate(
            {"index_bits": 16, "tail_step": 0.5, "value_step": 0.05} | changes
        )
        found = fit_basis(logits.reshape(-1, 257), section.tail_rank)
        centres = np.arange(257 * section.tail_rank, dtype=np.int16).reshape(257, -1) % 11 - 5
        sketched = manifest.with_codec(section)
        write(folder / f"{name}.zarr", sketched, logits, Arrays(found.mean, found.basis, centres))
    write_masked(folder)
    write_example(folder)
    write_several(folder)
    write_joint(folder)
    logits = synthetic_logits(views=1, rows=3, classes=5, seed=3)
    manifest = synthetic_manifest(views=1, rows=3, classes=5, top_k=5, tile_views=8, tile_rows=4096)
    write(folder / "exact.zarr", manifest, logits, no_tail(5))
    upright = manifest.input.model_copy(update={"decoding": 2})
    write(folder / "upright.zarr", manifest.model_copy(update={"input": upright}), logits, no_tail(5))
    data = manifest.data.model_copy(update={"own_classes": len(OWN)})
    named = manifest.model_copy(update={"data": data})
    write(folder / "own-names.zarr", named, logits, no_tail(5), OWN)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
