"""``kdcache merge``: the parts of a cache that were built apart, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from cache_builder.build.output import check_output
from cache_builder.build.parts import called, copy_begun
from cache_builder.console.progress import BuildProgress, Progress
from cache_builder.exchange.settings import MergeSettings
from cache_builder.exchange.tiles import copy_tile, reencode_tile
from cache_builder.format.commits import Shard
from cache_builder.format.errors import ConfigError
from cache_builder.format.layout import Tile, tile_arrays, tiles
from cache_builder.format.locks.lock import Hold, claimed, clear
from cache_builder.format.manifest import Manifest, differing_names, differing_settings, is_same_build
from cache_builder.format.manifest.compare import version_3_path
from cache_builder.format.positions import require_one_position
from cache_builder.format.reader import Cache, open_cache
from cache_builder.format.root import read_manifest
from cache_builder.format.same_samples import same_ids, same_labels
from cache_builder.format.writer import NO_RESULTS, CacheWriter

_NAMED = 3


def run_merge(settings: MergeSettings) -> None:
    """Merge and say what came of it."""
    console = Console()
    with BuildProgress(console) as progress:
        manifest = merge(settings, progress)
    said = (
        f"{settings.out}: {manifest.data.samples:,} samples x {manifest.views.count} views; cache_id "
        f"{manifest.cache_id}"
    )
    console.print(said, highlight=False, soft_wrap=True, markup=False)


def merge(settings: MergeSettings, progress: Progress) -> Manifest:
    """Put the tiles of all parts into one store; the same call continues after any death.

    The first part gives what no record depends on: environment and product version. Raises
    :class:`ConfigError` naming what differs, what two parts both hold, or what none does.
    """
    check_output(settings.out)
    parts = [open_cache(location, allow_partial=True) for location in settings.parts]
    for part in parts:
        require_one_position(part.manifest, part.location, "merge")
    if len(parts) < 2:
        raise ConfigError("merge joins two parts or more")
    first = parts[0]
    for other in parts[1:]:
        check_fits(first, other, settings.reencode)
    owners = _owners(parts)
    name = settings.name or Path(settings.out.rstrip("/")).name.removesuffix(".zarr")
    manifest = first.manifest.model_copy(update={**NO_RESULTS, "name": name})
    merged = _finished(settings.out, manifest)
    if merged is not None:
        clear(settings.out)
        return merged  # without the lock: it may lie on a disk that cannot be written to
    with claimed(settings.out, doing="merged") as hold:
        writer = _begun(first, settings.out, manifest, hold)
        _copy(first, owners, writer, progress)
        return writer.finish()


def check_fits(first: Cache, other: Cache, reencode: bool) -> None:
    """Raise :class:`ConfigError` unless two caches are parts of one, naming what differs."""
    where = f"{other.location} cannot be joined with {first.location}"
    one, two = first.manifest, called(other.manifest, first.manifest)
    if not same_ids(one, two):
        raise ConfigError(
            f"{where}: it is of other sample ids. Views are drawn by row number, so that rows must keep "
            "theirs: only parts of one data set, built with `kdcache build --rows`, can be joined"
        )
    if not same_labels(one, two):
        raise ConfigError(f"{where}: it has other labels")
    differing = differing_settings(one, two) + differing_names(first.class_names, other.class_names)
    if differing:
        raise ConfigError(f"{where}, their settings differ (first -> other):\n  " + "\n  ".join(differing))
    if _pictures_differ(first, other):
        raise ConfigError(f"{where}: its machine rendered other pictures (the render probes differ)")
    if not _same_codec(first, other) and not reencode:
        raise ConfigError(
            f"{where}: its codec or its basis is another one, fitted to other logits. Build parts with "
            "--like, or let --reencode decode its records and encode them again, which loses a little more"
        )


def _same_codec(first: Cache, other: Cache) -> bool:
    one, two = first.manifest, other.manifest
    return one.codec == two.codec and _codec_digests(one) == _codec_digests(two)


def _codec_digests(manifest: Manifest) -> dict[str, str]:
    digests = {version_3_path(path): digest for path, digest in manifest.digests.items()}
    return {path: digest for path, digest in digests.items() if path.startswith("codec/")}


def _pictures_differ(first: Cache, other: Cache) -> bool:
    one, two = first.manifest, other.manifest
    if one.digests.get("probe/pixels") == two.digests.get("probe/pixels"):
        return False
    if one.probe.pairs != two.probe.pairs:
        return True
    difference = np.abs(first.probe_pixels.astype(np.int16) - other.probe_pixels)
    return bool((difference.mean(axis=(1, 2, 3)) > one.probe.tolerance).any())


def _owners(parts: Sequence[Cache]) -> dict[Tile, Cache]:
    """Which part each tile is taken from."""
    owners: dict[Tile, Cache] = {}
    missing = []
    for tile in parts[0].tiles:
        holding = [part for part in parts if tile.key in part.commits]
        if not holding:
            missing.append(tile)
            continue
        for other in holding[1:]:
            if _shards(other, tile) != _shards(holding[0], tile):
                raise ConfigError(
                    f"{holding[0].location} and {other.location} both hold {tile}, and not the same records: "
                    "which are right? leave one of them out"
                )
        owners[tile] = holding[0]
    if missing:
        rows = sorted({(tile.row_start, tile.row_stop) for tile in missing})
        named = ", ".join(f"--rows {start}:{stop}" for start, stop in rows[:_NAMED])
        raise ConfigError(
            f"no part holds {len(missing)} of {len(parts[0].tiles)} tiles: build {named}"
            + (f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")
        )
    return owners


def _shards(part: Cache, tile: Tile) -> list[Shard]:
    """What a tile's objects are, in the order of its arrays: their paths depend on the format version."""
    shards = part.commits[tile.key].shards
    return [shards[spec.path] for spec in tile_arrays(part.manifest, tile)]


def _finished(out: str, manifest: Manifest) -> Manifest | None:
    """The manifest of a merge that is whole already."""
    begun = read_manifest(out)
    if begun is None or not is_same_build(begun, manifest):
        return None
    cache = open_cache(out, allow_partial=True)
    whole = cache.manifest.cache_id is not None and len(cache.commits) == len(cache.tiles)
    return cache.manifest if whole else None


def _begun(first: Cache, out: str, manifest: Manifest, hold: Hold) -> CacheWriter:
    """A writer of the output, which is created, or was begun by the same merge before."""
    begun = read_manifest(out)
    if begun is None:
        hold.check()
        begun = copy_begun(first, out, manifest)
    elif not is_same_build(begun, manifest):
        raise ConfigError(f"{out} holds another cache already: choose another --out or remove it")
    writer = CacheWriter(out, begun, hold.check)
    writer.sweep()
    return writer


def _copy(first: Cache, owners: dict[Tile, Cache], writer: CacheWriter, progress: Progress) -> None:
    todo = [tile for tile in tiles(writer.manifest) if not writer.is_committed(tile)]
    progress.start("merging", len(owners), len(owners) - len(todo), unit="tiles")
    moves: dict[str, Callable[[Cache, CacheWriter, Tile], None]] = {
        part.location: copy_tile if _same_codec(first, part) else reencode_tile for part in owners.values()
    }
    for done, tile in enumerate(todo, start=len(owners) - len(todo) + 1):
        moves[owners[tile].location](owners[tile], writer, tile)
        progress.update(done, last=done == len(owners))
