"""Caches over real images with a made-up teacher: what replaying and training tests need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets import ImageSource
from cache_builder.format import writer
from cache_builder.format.class_names import ClassNames
from cache_builder.format.layout import tiles
from cache_builder.format.manifest import (
    CalibrationSection,
    DataSection,
    Manifest,
    NamedConfiguration,
    ViewsSection,
)
from cache_builder.views.probe import render_probe
from cache_builder.views.replay import Replay
from tests.caches import synthetic_fit, synthetic_manifest

PAD_CROP = NamedConfiguration(name="pad-crop-flip", configuration={"flip": 0.0})


def teacher_logits(labels: NDArray[np.int32], views: int, classes: int, seed: int = 0) -> NDArray[np.float32]:
    """Logits [V, N, C] of a teacher that is right nearly always, and not in the same way in every view."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(views, len(labels), classes))
    logits[:, np.arange(len(labels)), labels] += 5
    return logits.astype(np.float32)


def write_replay_cache(
    path: Path,
    source: ImageSource,
    *,
    views: int = 2,
    image_size: int = 8,
    recipe: NamedConfiguration = PAD_CROP,
    classes: int | None = None,
    unlabelled: bool = False,
    invalid_rows: tuple[int, ...] = (),
    seed: int = 0,
    name: str = "replay",
    top_k: int = 3,
    rank: int = 4,
    views_seed: int = 7,
    interpolation: str = "bilinear",
    sketch: bool = True,
    calibration: CalibrationSection | None = None,
) -> Manifest:
    """A finished cache of a source, its probe rendered and its digests taken from the real images."""
    assert source.labels is not None
    classes = classes or len(source.class_names or ())
    section = ViewsSection(count=views, recipe=recipe, seed=views_seed)
    manifest = _manifest(source, section, classes, name, top_k, rank, sketch)
    seen = manifest.input.model_copy(update={"size": image_size, "interpolation": interpolation})
    manifest = manifest.model_copy(update={"input": seen})
    if calibration is not None:
        manifest = manifest.model_copy(update={"calibration": calibration})
    logits = teacher_logits(source.labels, views, classes, seed)
    codec = synthetic_fit(manifest.codec, logits.reshape(-1, classes))
    probe, pixels = render_probe(source, Replay.of(manifest))
    manifest = manifest.model_copy(update={"probe": probe})
    names = ClassNames(source.class_names if manifest.logits.named else None)
    table = writer.SampleTable.from_ids(source.ids, None if unlabelled else source.labels, names)
    arrays = writer.header_arrays(codec, table, pixels)
    manifest = manifest.model_copy(update={"digests": writer.header_digests(arrays)})
    writer.create(path, manifest, arrays)
    _write_tiles(path, manifest, source, logits, invalid_rows)
    return writer.CacheWriter(path, manifest).finish()


def _manifest(
    source: ImageSource, views: ViewsSection, classes: int, name: str, top_k: int, rank: int, sketch: bool
) -> Manifest:
    manifest = synthetic_manifest(
        views=views.count, rows=len(source), classes=classes, top_k=top_k, rank=rank, name=name,
        sketch=sketch, named=classes == len(source.class_names or ()),
    )  # fmt: skip
    data = DataSection(spec=source.spec, samples=len(source))
    return manifest.model_copy(update={"data": data, "views": views})


def _write_tiles(
    path: Path,
    manifest: Manifest,
    source: ImageSource,
    logits: NDArray[np.float32],
    invalid_rows: tuple[int, ...],
) -> None:
    digests = np.array([source.read(row).digest for row in range(len(source))], np.uint64)
    out = writer.CacheWriter(path, manifest)
    for tile in tiles(manifest):
        rows = slice(tile.row_start, tile.row_stop)
        block = logits[tile.view_start : tile.view_stop, rows]
        flat = out.codec.encode(block.reshape(-1, block.shape[-1]))
        fields = {key: column.reshape(*block.shape[:2], *column.shape[1:]) for key, column in flat.items()}
        invalid = [row for row in invalid_rows if row in tile.rows]
        for name, column in out.codec.invalid(len(tile.views)).items():
            for row in invalid:
                fields[name][:, row - tile.row_start] = column
        out.write_tile(tile, fields, digests[rows], invalid)
