"""``kdcache import``: a dump of another program as a cache that says what it does not know."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cache_builder.build.classes import BY_NAME
from cache_builder.build.output import check_output
from cache_builder.build.reopen import UNKNOWN_DIGEST
from cache_builder.calibration import calibrate
from cache_builder.calibration.contract import Calibration, Scope
from cache_builder.console.fidelity import fidelity_facts, fidelity_warnings
from cache_builder.console.progress import BuildProgress, Progress, searching
from cache_builder.datasets.pixels import NEWEST
from cache_builder.format.class_names import ClassNames
from cache_builder.format.codecs import CodecSettings, Ranked
from cache_builder.format.codecs.masking import is_masked
from cache_builder.format.codecs.topk_tail import TopkTail
from cache_builder.format.creation import create, header_digests
from cache_builder.format.durable import take_name
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.layout import Tile, tiles
from cache_builder.format.locations import followed, is_remote, local_path
from cache_builder.format.locks.lock import Hold, claimed
from cache_builder.format.manifest import (
    LOGITS,
    CalibrationSection,
    CodecRequest,
    DataSection,
    ImageInput,
    LogitsOutput,
    Manifest,
    NoProbe,
    OnePosition,
    PixelsProbe,
    RequestSection,
    TeacherSection,
    TilingSection,
    ViewsSection,
    is_same_build,
)
from cache_builder.format.owned import creations_beside, removed
from cache_builder.format.reader import open_cache
from cache_builder.format.root import read_manifest
from cache_builder.format.writer import CacheWriter, SampleTable, header_arrays
from cache_builder.interchange.accuracy import Accuracy, AccuracyTally
from cache_builder.interchange.matching import Matched, match
from cache_builder.interchange.replayable import imported_views
from cache_builder.interchange.settings import ImportSettings
from cache_builder.interchange.sources import SOURCES, Dump, check_format, open_dump
from cache_builder.look.inspect import class_facts, record_in_words
from cache_builder.teachers.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from cache_builder.views.configuration import UNKNOWN_VIEWS, recipe_from
from cache_builder.views.probe import render_probe
from cache_builder.views.replay import Replay

_TILE_VIEWS, _MANY_VIEWS = 8, 64
_TILE_ROWS = 4096
# Logits in memory at once, in numbers.
_LOGITS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Imported:
    """A finished import."""

    manifest: Manifest
    rows: str
    """How the samples of the rows were found; empty where nobody looked."""
    accuracy: Accuracy | None
    """None without labels."""


def run_import(settings: ImportSettings) -> None:
    """Import, and say what came of it, how right it is and what it lacks."""
    console = Console()
    with BuildProgress(console) as progress:
        found = import_and_measure(settings, progress)
    manifest = found.manifest
    measured = found.accuracy.lines(found.rows, settings.data or "DATA") if found.accuracy else []
    lines = [
        f"{settings.out}: {manifest.data.samples:,} samples x {manifest.views.count} views, "
        f"{manifest.classes:,} classes; cache_id {manifest.cache_id}",
        *(measured or ([f"rows {found.rows}"] if found.rows else [])),
        f"record {record_in_words(manifest)}",
        *(f"{name}: {said}" for name, said in fidelity_facts(manifest).items()),
        *fidelity_warnings(manifest),
        *(f"{name}: {said}" for name, said in class_facts(manifest, None).items() if settings.data),
        *(f"lacks {lack}" for lack in manifest.environment["imported.lacks"].split("\n") if lack),
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def import_and_measure(settings: ImportSettings, progress: Progress) -> Imported:
    """Write the cache, which appears when it is whole, and compare what it holds with the labels.

    Raises :class:`ConfigError` for settings that would let the cache be misused, :class:`DataError` for a
    dump that is damaged or not of this data set.
    """
    check_output(settings.out)
    _check_free(settings.out)
    check_format(settings.form)
    _check_files(settings)
    dump = open_dump(settings.form, settings)
    decoding = settings.decoding or (1 if settings.order == "torchvision" else NEWEST)
    matched = match(dump, settings.data, settings.source, settings.order, decoding)
    views = imported_views(dump.views, dump.own_views, settings, matched)
    with claimed(settings.out, doing="imported") as hold, _appearing(settings.out, hold) as making:
        manifest = _begin(making, dump, matched, views, settings, progress)
        writer = CacheWriter(making, manifest, hold.check)
        writer.sweep()
        tally = AccuracyTally(matched, manifest, _mixing(views))
        _write_tiles(dump, matched, manifest, writer, progress, tally)
        return Imported(writer.finish(), matched.told, tally.result())


def _mixing(views: ViewsSection) -> Callable[[int], bool]:
    """Whether a view mixes samples; nobody knows of views that another program drew."""
    if views.recipe.name == UNKNOWN_VIEWS:
        return lambda view: False
    return recipe_from(views.recipe).mixes


def _begin(
    making: str,
    dump: Dump,
    matched: Matched,
    views: ViewsSection,
    settings: ImportSettings,
    progress: Progress,
) -> Manifest:
    """Fit the codec, render the probe where views can be replayed, and create the store."""
    request = _codec_request(settings)
    seen = _seen(matched, settings)
    probe: PixelsProbe | NoProbe = NoProbe()
    pixels: NDArray[np.uint8] | None = None
    if matched.source is not None and views.recipe.name != UNKNOWN_VIEWS:
        probe, pixels = render_probe(matched.source, Replay.of_sections(views, seen, len(matched.source)))
    manifest = Manifest(
        product_version=version("kdcache"),
        name=settings.name or Path(settings.out.rstrip("/")).name.removesuffix(".zarr"),
        data=DataSection(
            spec=settings.data or f"imported:{settings.form}",
            samples=len(dump),
            matched="name" if matched.by_name else None,
        ),
        teacher=_teacher(dump, settings),
        input=seen,
        outputs={
            LOGITS: LogitsOutput(
                width=dump.classes, named=bool(matched.class_names), codec=_first_codec(dump, request)
            )
        },
        positions=OnePosition(),
        views=views,
        tiling=_tiling(dump),
        calibration=CalibrationSection(pairs=0, logit_std=0.0, tail_error=0.0),
        probe=probe,
        requested=_requested(settings),
        environment=_account(dump, settings, matched, views),
        digests={},
    )
    calibration = _calibration(dump, manifest, progress)
    manifest = manifest.with_codec(calibration.codec.settings)
    manifest = manifest.model_copy(update={"calibration": calibration.section})
    table = SampleTable.from_ids(matched.ids, matched.labels, ClassNames(matched.class_names))
    arrays = header_arrays(calibration.codec, table, pixels)
    manifest = manifest.model_copy(update={"digests": header_digests(arrays)})
    begun = _begun_before(making, manifest)
    if begun is None:
        create(making, manifest, arrays)
    return begun or manifest


def _begun_before(making: str, manifest: Manifest) -> Manifest | None:
    """What the same import left on an object store, to go on with; :class:`ConfigError` for another's."""
    begun = read_manifest(making)
    if begun is None:
        return None
    if not is_same_build(begun, manifest):
        raise ConfigError(f"{making} holds a cache that another import or build began: choose another --out")
    return open_cache(making, allow_partial=True).manifest


def _account(dump: Dump, settings: ImportSettings, matched: Matched, views: ViewsSection) -> dict[str, str]:
    """Where the cache came from and what nobody knows about it."""
    lacks = [*dump.lacks, "the digest of the teacher's weights"]
    if views.recipe.name == UNKNOWN_VIEWS and not dump.own_views:
        lacks.append("views that can be drawn again: nobody said how they were drawn (--recipe)")
    if matched.source is None:
        lacks.append("digests of the samples: no --data was given to compare with")
    if not settings.teacher:
        lacks.append("the teacher's name (--teacher)")
    left_out = "" if matched.source is None else matched.source.left_out
    return {
        "imported.format": settings.form,
        **({"imported.rows": matched.told} if matched.told else {}),
        **({"left out": left_out} if left_out else {}),
        **({"labels": BY_NAME} if matched.by_name else {}),
        "imported.source": str(settings.source),
        "imported.lacks": "\n".join(dict.fromkeys(lacks)),
        "numpy": version("numpy"),
        "zarr": version("zarr"),
    }


def _teacher(dump: Dump, settings: ImportSettings) -> TeacherSection:
    """What is known: mostly nothing."""
    return TeacherSection(
        spec=settings.teacher or "unknown",
        weights="unknown (imported)",
        weights_digest=UNKNOWN_DIGEST,
        precision=dump.stored_precision,
    )


def _seen(matched: Matched, settings: ImportSettings) -> ImageInput:
    """What the teacher was given, as far as somebody said."""
    return ImageInput(
        size=settings.input_size or 224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        interpolation=settings.interpolation,
        decoding=1 if matched.source is None else matched.source.decoding or 1,
    )


def _requested(settings: ImportSettings) -> RequestSection:
    """What the user typed, as it is kept in the cache."""
    return RequestSection(
        teacher=(settings.teacher,) if settings.teacher else (),
        data=settings.data,
        recipe=settings.recipe,
        input_size=settings.input_size,
        codec=_codec_request(settings),
    )


def _codec_request(settings: ImportSettings) -> CodecRequest:
    return CodecRequest(bytes_per_view=settings.bytes_per_view)


def _tiling(dump: Dump) -> TilingSection:
    """Many views go into one tile where a dump holds all views of a sample in one place."""
    height = min(dump.views, _MANY_VIEWS if dump.views > 2 * _TILE_VIEWS else _TILE_VIEWS)
    rows = max(64, _TILE_ROWS * _TILE_VIEWS // max(height, _TILE_VIEWS))
    return TilingSection(views=height, rows=min(rows, len(dump)))


def _has_tail(dump: Dump) -> bool:
    """Top-K dumps have none: outside the top K every logit is 0."""
    return dump.top_k is None or dump.top_k >= dump.classes


def _first_codec(dump: Dump, request: CodecRequest) -> CodecSettings:
    """What the manifest holds before calibration."""
    if dump.top_k is not None and not _has_tail(dump):
        return TopkTail.without_tail(dump.classes, dump.top_k).settings
    name = calibrate.usual_codec(dump.classes, request)
    return calibrate.calibrator(name).provisional(dump.classes, request)


def _calibration(dump: Dump, manifest: Manifest, progress: Progress) -> Calibration:
    """Dense dumps are fitted as in a build."""
    if dump.top_k is not None and not _has_tail(dump):
        return Calibration(TopkTail.without_tail(dump.classes, dump.top_k), manifest.calibration)
    request, groups = manifest.requested.codec, calibrate.groups(manifest)
    logits = _logits_of(dump, groups, progress)
    plain = None if is_masked(logits).any() else calibrate.unfitted(dump.classes, request)
    views, samples = len(groups[0][1]), len(groups)
    is_whole = samples == len(dump) and views == manifest.views.count
    scope = Scope(views, len(dump) * manifest.views.count, is_whole, searching(progress))
    found = plain or calibrate.fit(logits, request, scope=scope)
    for line in found.told:
        progress.say(line)
    return found


def _logits_of(dump: Dump, groups: list[tuple[int, range]], progress: Progress) -> NDArray[np.float32]:
    """Logits [n, C] of some rows, each in some views, rows outermost."""
    progress.start("calibrating", sum(len(views) for _, views in groups), unit="records")
    height = len(groups[0][1])
    logits = np.empty((len(groups), height, dump.classes), np.float32)
    for first in sorted({views.start for _, views in groups}):
        places = [place for place, (_, views) in enumerate(groups) if views.start == first]
        rows = np.array([groups[place][0] for place in places])
        logits[places] = dump.block(range(first, first + height), rows).swapaxes(0, 1)
    progress.update(len(groups) * height, last=True)
    return logits.reshape(-1, dump.classes)


def _write_tiles(
    dump: Dump,
    matched: Matched,
    manifest: Manifest,
    writer: CacheWriter,
    progress: Progress,
    tally: AccuracyTally,
) -> None:
    total = manifest.views.count * manifest.data.samples
    todo = [tile for tile in tiles(manifest) if not writer.is_committed(tile)]
    done = total - sum(tile.count for tile in todo)
    progress.start("importing", total, done, unit="records")
    for tile in todo:
        digests = matched.digests(tile.rows) if tile.group == 0 else np.zeros(len(tile.rows), np.uint64)
        records = _records(dump, writer.codec, tile)
        best = writer.codec.best(writer.codec.unpack(records.reshape(-1, records.shape[2])))
        tally.add(tile, best.reshape(records.shape[:2]))
        writer.write_records(tile, records, digests)
        done += tile.count
        progress.update(done, last=done == total)


def _records(dump: Dump, codec: Ranked[Any], tile: Tile) -> NDArray[np.uint8]:
    """Packed records [views, rows, record_bytes] of a tile, encoded in blocks that fit into memory."""
    height = len(tile.views)
    step = max(1, _LOGITS_AT_ONCE // (height * dump.classes))
    packed = []
    for start in range(tile.row_start, tile.row_stop, step):
        rows = np.arange(start, min(start + step, tile.row_stop))
        logits = dump.block(tile.views, rows)
        _check_masks(logits.reshape(-1, dump.classes), codec, tile, rows)
        packed.append(codec.packed_views(logits, height))
    return np.concatenate(packed, axis=1)


def _check_masks(
    logits: NDArray[np.float32], codec: Ranked[Any], tile: Tile, rows: NDArray[np.int64]
) -> None:
    """Masks that calibration did not see would take the whole range of a record's numbers."""
    masked = codec.without_place(logits)
    if masked.any():
        view, place = divmod(int(np.argmax(masked)), len(rows))
        raise DataError(
            f"row {rows[place]} of view {tile.view_start + view} masks classes (logits of -5000 or less "
            "beside ordinary ones), and none of the records that the codec was fitted to does: mask in all "
            "rows, or raise these logits to a value just below the others"
        )


_NAMING_ROWS = frozenset(SOURCES) - {"dense"}


def _check_files(settings: ImportSettings) -> None:
    """Only dense dumps leave it to others to name their rows."""
    for flag, path in (("--ids", settings.ids), ("--labels", settings.labels)):
        if path is not None and settings.form in _NAMING_ROWS:
            raise ConfigError(
                f"{flag} {path}: a {settings.form} dump names its rows itself, so it would not be looked at; "
                "leave it out (labels come with --data)"
            )


def _check_free(out: str) -> None:
    """A finished cache is not imported again; one that was begun is on an object store only."""
    manifest = read_manifest(out)
    if manifest is not None and (not is_remote(out) or manifest.cache_id is not None):
        raise ConfigError(f"{out} exists already: choose another --out or remove it")


@contextmanager
def _appearing(out: str, hold: Hold) -> Iterator[str]:
    """A name to make a cache under; a local one becomes ``out`` in one rename at the end."""
    if is_remote(out):
        yield out
        return
    root = followed(local_path(out))
    for dead in creations_beside(root):  # of imports that were killed: we hold the lock
        removed(dead)
    making = root.with_name(f".{root.name}.{uuid.uuid4().hex}.creating")
    try:
        yield str(making)
        hold.check()
        take_name(making, root)
    except BaseException:
        removed(making)
        raise
