"""Small caches made from synthetic logits, for tests that need a store but no teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import CODECS, writer
from cache_builder.format.class_names import ClassNames
from cache_builder.format.codecs import CodecSettings
from cache_builder.format.codecs.class_sketch import ClassSketchSettings
from cache_builder.format.codecs.sketched import SketchedSettings, index_bits
from cache_builder.format.codecs.topk_tail import TopkTailSettings
from cache_builder.format.layout import tiles
from cache_builder.format.manifest import (
    LOGITS,
    CalibrationSection,
    DataSection,
    ImageInput,
    LogitsOutput,
    Manifest,
    NamedConfiguration,
    OnePosition,
    PixelsProbe,
    RequestSection,
    TeacherSection,
    TilingSection,
    ViewsSection,
)


@dataclass(frozen=True)
class Arrays:
    """The header arrays of a sketch."""

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]
    centres: NDArray[np.int16] | None = None


def bound(settings: CodecSettings, arrays: Arrays) -> Any:
    """The codec of these settings and arrays."""
    named = {name: array for name, array in vars(arrays).items() if array is not None}
    return CODECS[settings.name](settings, len(arrays.mean), named)


def no_tail(classes: int) -> Arrays:
    """The arrays of a cache that stores every class: rank 0."""
    return Arrays(np.zeros(classes, np.float32), np.zeros((0, classes), np.float32))


def synthetic_logits(views: int, rows: int, classes: int, seed: int = 0) -> NDArray[np.float32]:
    """Logits [V, N, C] with a low-rank part, so that a tail sketch has something to find."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(views, rows, 8)) @ rng.normal(size=(8, classes))
    return (factors + 0.1 * rng.normal(size=(views, rows, classes))).astype(np.float32)


def fit_basis(logits: NDArray[np.float32], rank: int) -> Arrays:
    """Principal components of logits [n, C]."""
    mean = logits.mean(axis=0)
    _, _, components = np.linalg.svd(logits - mean, full_matrices=False)
    return Arrays(mean.astype(np.float32), components[:rank].astype(np.float32))


def with_centres(basis: Arrays, logits: NDArray[np.float32], step: float) -> Arrays:
    """The same basis, and as centres the rounded means of the coefficients of logits [n, C]."""
    coef = (logits - basis.mean) @ basis.basis.T / step
    best = logits.argmax(axis=1)
    centres = np.zeros((logits.shape[1], len(basis.basis)), np.int16)
    for c in np.unique(best):
        centres[c] = np.rint(coef[best == c].mean(axis=0)).clip(-32767, 32767)
    return Arrays(basis.mean, basis.basis, centres)


def synthetic_manifest(
    *,
    views: int = 3,
    rows: int = 100,
    classes: int = 40,
    top_k: int = 5,
    rank: int = 8,
    wide: int = 2,
    tile_views: int = 2,
    tile_rows: int = 32,
    name: str = "synthetic",
    sketch: bool = False,
    named: bool = True,
) -> Manifest:
    """A manifest without a basis, for layouts and writers. ``sketch``: codec class-sketch, not topk-tail."""
    return Manifest(
        product_version="test",
        name=name,
        data=DataSection(
            spec="synthetic", samples=rows,
        ),
        teacher=TeacherSection(spec="synthetic", weights="none", weights_digest="0", precision="fp32"),
        input=ImageInput(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear"),
        outputs={
            LOGITS: LogitsOutput(
                width=classes, named=named, codec=synthetic_codec(classes, top_k, rank, wide, sketch)
            )
        },
        positions=OnePosition(),
        views=ViewsSection(count=views, recipe=NamedConfiguration(name="rrc-flip"), seed=0),
        tiling=TilingSection(views=tile_views, rows=tile_rows),
        calibration=CalibrationSection(pairs=0, logit_std=0.0, tail_error=0.0),
        probe=PixelsProbe(pairs=((0, 0),), libraries={}, tolerance=2.0),
        requested=RequestSection(),
        environment={},
        digests={},
    )  # fmt: skip


def synthetic_codec(classes: int, top_k: int, rank: int, wide: int, sketch: bool) -> SketchedSettings:
    """Half of a sketch's coefficients that are not wide are half bytes."""
    bits = index_bits(classes)
    if top_k >= classes:
        return TopkTailSettings(top_k=classes, index_bits=bits, tail_rank=0, tail_wide=0, tail_step=0.0)
    if not sketch:
        return TopkTailSettings(top_k=top_k, index_bits=bits, tail_rank=rank, tail_wide=wide, tail_step=0.2)
    return ClassSketchSettings(
        top_k=top_k, index_bits=bits, index_coding="rank", value_bits=8, value_step=0.05, tail_rank=rank,
        tail_wide=wide, tail_bytes=(rank - wide) // 2, tail_step=2.0,
    )  # fmt: skip


def synthetic_names(manifest: Manifest) -> ClassNames:
    """Names for the classes of a synthetic manifest that says that they have some."""
    names = tuple(f"class {i}" for i in range(manifest.classes))
    return ClassNames(names if manifest.logits.named else None)


def synthetic_fit(settings: Any, logits: NDArray[np.float32]) -> Any:
    """The codec of these settings, its arrays fitted to logits [n, C]."""
    rank = settings.tail_rank
    arrays = fit_basis(logits, rank) if rank else no_tail(logits.shape[1])
    is_sketch = settings.name == "class-sketch"
    return bound(settings, with_centres(arrays, logits, settings.tail_step) if is_sketch else arrays)


def write_synthetic_cache(
    path: str | Path,
    logits: NDArray[np.float32],
    *,
    commit: int | None = None,
    change: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    **settings: object,
) -> Manifest:
    """Write logits [V, N, C] as a cache; ``commit`` limits the tiles written (the cache stays incomplete).

    ``change``: what to change in the manifest before anything is written.
    """
    views, rows, classes = logits.shape
    plain = synthetic_manifest(views=views, rows=rows, classes=classes, **settings)  # type: ignore[arg-type]
    manifest = change(plain)
    codec = synthetic_fit(manifest.codec, logits.reshape(-1, classes))
    labels = (np.arange(rows) % classes).astype(np.int32)
    ids = [f"dir/img_{i:05d}.png" for i in range(rows)]
    table = writer.SampleTable.from_ids(ids, labels, synthetic_names(manifest))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), dtype=np.uint8)
    arrays = writer.header_arrays(codec, table, pixels)
    sealed = manifest.model_copy(update={"digests": writer.header_digests(arrays)})
    writer.create(path, sealed, arrays)
    out = writer.CacheWriter(path, sealed)
    todo = list(tiles(sealed))
    for tile in todo[:commit]:
        block = logits[tile.view_start : tile.view_stop, tile.row_start : tile.row_stop]
        fields = codec.encode(block.reshape(-1, classes))
        shaped = {key: value.reshape(*block.shape[:2], *value.shape[1:]) for key, value in fields.items()}
        out.write_tile(tile, shaped, np.arange(tile.row_start, tile.row_stop, dtype=np.uint64))
    return out.finish() if commit is None else sealed
