"""Codecs ``joint-sketch`` made without calibration, and caches of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import writer
from cache_builder.format.codecs.digits import WIDE, Digits
from cache_builder.format.codecs.entropy import ESCAPE, PLACES, REACH, frequencies
from cache_builder.format.codecs.joint_sketch import JointSketch, JointSketchSettings
from cache_builder.format.codecs.masking import LOWEST, MaskSection
from cache_builder.format.layout import Tile, tiles
from cache_builder.format.manifest import Manifest
from tests.caches import fit_basis, synthetic_manifest, synthetic_names

TOP_K = 4


def joint_settings(**changes: object) -> JointSketchSettings:
    """Six coefficients that views share, of which a view has four more; digits of every width."""
    fields: dict[str, object] = {
        "top_k": TOP_K, "value_step": 0.125, "rank": 6, "step": 0.5, "finer": 1, "dead_zone": 0.125,
        "sample_values": [(2, WIDE), (4, 255)],
        "view_values": [(1, 3), (2, 31), (2, 5), (TOP_K, 255), (TOP_K, 255)],
    }  # fmt: skip
    return JointSketchSettings.model_validate(fields | changes)


def tables(digits: Digits) -> dict[str, NDArray[Any]]:
    """Tables that fit integers of these digits roughly: Laplace, an eighth as wide as the digit allows."""
    limits = digits.limit
    low = np.where(limits > 8 * REACH, 4, 0)
    widths = np.maximum(limits / 2.0**low / 8, 0.2)
    weights = np.exp(-np.abs(np.arange(PLACES) - REACH) / widths[:, None])
    weights[:, ESCAPE] = 1e-3
    return {"tables": frequencies(weights), "low": low.astype(np.uint8)}


def joint(mean: NDArray[np.float32], basis: NDArray[np.floating[Any]], **changes: object) -> JointSketch:
    """The codec of a mean [C] and a basis [r, C]."""
    settings = joint_settings(**changes)
    arrays: dict[str, NDArray[Any]] = {"mean": mean, "basis": np.rint(basis * 4096).astype(np.int16)}
    for name, digits in (("sample", settings.sample_digits), ("view", settings.view_digits)):
        arrays |= {f"{name}_{part}": array for part, array in tables(digits).items()}
    return JointSketch(settings, len(mean), arrays)


def fitted(logits: NDArray[np.float32], **changes: object) -> JointSketch:
    """The codec with the principal components of logits [..., C]."""
    found = fit_basis(logits.reshape(-1, logits.shape[-1]), joint_settings(**changes).rank)
    return joint(found.mean, found.basis, **changes)


def dyadic(classes: int = 40, seed: int = 0, **changes: object) -> JointSketch:
    """A codec whose sums are exact in float32, in whatever order, for logits that are few eighths."""
    rng = np.random.default_rng(seed)
    basis = rng.integers(-1, 2, (joint_settings(**changes).rank, classes)) / 4
    return joint((rng.integers(-8, 9, classes) / 8).astype(np.float32), basis, **changes)


def masked_codec(classes: int = 40) -> JointSketch:
    """A codec of whose classes every record masks 3 and 17."""
    plain = dyadic(classes)
    mean, basis = plain.mean.copy(), plain.arrays["basis"] / 4096
    mean[[3, 17]], basis[:, [3, 17]] = LOWEST, 0
    section = MaskSection(classes=2, lowest=LOWEST, floor=-20.0)
    values = [(1, 3), (2, 31), (2, 5), (TOP_K, WIDE), (TOP_K, 255)]
    return joint(mean, basis, masks=section, view_values=values)


def eighths(shape: tuple[int, ...], seed: int = 1) -> NDArray[np.float32]:
    """Logits for :func:`dyadic`, many of them equal."""
    return (np.random.default_rng(seed).integers(-40, 41, shape) / 8).astype(np.float32)


def write_joint_cache(
    path: Path,
    logits: NDArray[np.float32],
    *,
    codec: JointSketch | None = None,
    invalid: tuple[int, ...] = (),
    **sizes: Any,
) -> Manifest:
    """Write logits [V, N, C]; ``sizes``: ``tile_views``, ``tile_rows``, ``name``."""
    views, rows, classes = logits.shape
    chosen = codec or fitted(logits)
    manifest = synthetic_manifest(views=views, rows=rows, classes=classes, top_k=classes, **sizes)
    manifest = manifest.with_codec(chosen.settings)
    ids = [f"ø/{row}.png" for row in range(rows)]
    table = writer.SampleTable.from_ids(ids, np.arange(rows) % classes - 1, synthetic_names(manifest))
    pixels = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(1, 3, 8, 8)
    arrays = writer.header_arrays(chosen, table, pixels)
    manifest = manifest.model_copy(update={"digests": writer.header_digests(arrays)})
    writer.create(path, manifest, arrays)
    out = writer.CacheWriter(path, manifest)
    for tile in tiles(manifest):
        records = tile_records(chosen, logits, tile, invalid)
        digests = np.array([0 if row in invalid else 2**63 + row for row in tile.rows], np.uint64)
        out.write_records(tile, records, digests, [row for row in tile.rows if row in invalid])
    return out.finish()


def tile_records(
    codec: JointSketch, logits: NDArray[np.float32], tile: Tile, invalid: tuple[int, ...] = ()
) -> NDArray[np.uint8]:
    """What the reader must give back for a tile: packed records [views, rows, record_bytes]."""
    block = logits[tile.view_start : tile.view_stop, tile.row_start : tile.row_stop]
    records = codec.packed_views(block, len(block))
    for row in tile.rows:
        if row in invalid:
            records[:, row - tile.row_start] = codec.pack(codec.invalid(len(tile.views)))
    return records
