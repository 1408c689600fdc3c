"""``kdcache export``: the records of a cache as a data frame or as dense arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cache_builder.console.progress import BuildProgress, Progress
from cache_builder.format.errors import ConfigError
from cache_builder.format.positions import require_one_position
from cache_builder.format.reader import Cache, open_cache
from cache_builder.interchange.atomic import check_free, file_size, replaced
from cache_builder.interchange.blocks import Block, blocks, chosen_rows, chosen_views
from cache_builder.interchange.settings import ExportSettings

# An .npz is made in memory.
_MOST_NPZ_BYTES = 4 * 2**30


def run_export(settings: ExportSettings) -> None:
    """Export and say what came of it."""
    console = Console()
    with BuildProgress(console) as progress:
        count = export(settings, progress)
    size = file_size(settings.out) or 0
    said = f"{settings.out}: {count:,} records, {size / 1e6:.2f} MB"
    console.print(said, highlight=False, soft_wrap=True, markup=False)


def export(settings: ExportSettings, progress: Progress) -> int:
    """Write the file; gives the number of records. Memory does not grow with the cache, but for ``npz``.

    Raises :class:`ConfigError` for what cannot be written and the reader's errors for a damaged cache.
    """
    check_free(settings.out, settings.force)
    cache = open_cache(settings.cache)
    require_one_position(cache.manifest, settings.cache, "export")
    views, rows = chosen_views(cache, settings.views), chosen_rows(cache, settings.rows)
    _check_top(settings, cache)
    total = len(views) * len(rows)
    progress.start("exporting", total, unit="records")

    def counted() -> Iterator[Block]:
        done = 0
        for block in blocks(cache, views, rows):
            yield block
            done += len(block.rows)
            progress.update(done, last=done == total)

    with replaced(settings.out, settings.force) as partial:
        if settings.form == "npz":
            _write_npz(partial, cache, views, rows, counted(), settings)
        else:
            from cache_builder.interchange.frames import write_frames

            write_frames(partial, cache, counted(), settings)
    return total


def _check_top(settings: ExportSettings, cache: Cache) -> None:
    classes = cache.manifest.classes
    stored = cache.manifest.codec.kept(classes)
    if settings.top is not None and not 1 <= settings.top <= classes:
        raise ConfigError(f"--top {settings.top}: the cache has {classes} classes")
    if settings.top is not None and settings.top > stored and not settings.dense:
        raise ConfigError(
            f"--top {settings.top}: the cache stores {stored} classes one by one; those beyond are a sketch, "
            "so they go with --dense"
        )


def _write_npz(
    partial: Path,
    cache: Cache,
    views: list[int],
    rows: range,
    found: Iterator[Block],
    settings: ExportSettings,
) -> None:
    """Arrays [V, N, ...]: small caches only."""
    classes = cache.manifest.classes
    top = settings.top or cache.manifest.codec.kept(classes)
    kind = np.dtype(np.float16 if settings.half else np.float32)
    shape = (len(views), len(rows))
    needed = shape[0] * shape[1] * (8 * top + 4 + (kind.itemsize * classes if settings.dense else 0))
    # NumPy gives every string the room of the longest, four bytes a letter.
    needed += (
        4 * len(rows) * max((len(sample_id) for sample_id in cache.ids[rows.start : rows.stop]), default=0)
    )
    if needed > _MOST_NPZ_BYTES:
        raise ConfigError(
            f"an .npz of {needed / 1e9:.1f} GB would be made in memory, at most {_MOST_NPZ_BYTES / 1e9:.1f} "
            "are allowed: use --format parquet, or fewer --view and --rows"
        )
    arrays: dict[str, NDArray[np.generic]] = {
        "top_ids": np.full((*shape, top), -1, np.int32),
        "top_logits": np.full((*shape, top), np.nan, np.float32),
        "lse": np.full(shape, np.nan, np.float32),
    }
    if settings.dense:
        arrays["logits"] = np.empty((*shape, classes), kind)
    for block in found:
        place = views.index(block.view), slice(block.rows.start - rows.start, block.rows.stop - rows.start)
        index, values = block.top(settings.top)
        arrays["top_ids"][place] = np.where(block.valid[:, None], index, -1)
        arrays["top_logits"][place] = np.where(block.valid[:, None], values, np.nan)
        arrays["lse"][place] = block.stored.lse
        if settings.dense:
            arrays["logits"][place] = block.dense(half=settings.half)
    named = {
        "sample_id": np.array(list(cache.ids[rows.start : rows.stop])),
        "label": cache.labels[rows.start : rows.stop],
        "view": np.array(views, np.int32),
        "cache_id": np.array(cache.manifest.completed_id),
    }
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **named, **arrays)
