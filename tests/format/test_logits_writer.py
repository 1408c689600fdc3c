"""Caches written from logits, batch by batch: the same bytes however they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import kdcache
from cache_builder.format import CODECS, ConfigError, DataError, IncompleteCacheError, open_cache
from cache_builder.format.codecs import Ranked
from cache_builder.format.codecs.all_logits import AllLogits
from cache_builder.format.codecs.class_sketch import ClassSketchSettings
from cache_builder.format.codecs.masking import LOWEST, MaskSection
from cache_builder.format.logits_writer import LogitsWriter
from cache_builder.format.manifest import GridPositions, OnePosition, RaggedPositions
from cache_builder.format.writer import SampleTable
from tests.caches import (
    bound,
    fit_basis,
    synthetic_logits,
    synthetic_manifest,
    synthetic_names,
    with_centres,
)
from tests.format.joint import fitted
from tests.format.position_caches import COUNTS_OF_ROWS, GRID, RAGGED, write_positions
from tests.format.test_golden import GOLDEN

Kind = OnePosition | GridPositions | RaggedPositions
KINDS: dict[str, tuple[Kind, tuple[int, ...]]] = {
    "one": (OnePosition(), (1,) * 5),
    "grid": (GRID, (6,) * 5),
    "ragged": (RAGGED, COUNTS_OF_ROWS),
}


def writer(path: Path, kind: Kind, logits: NDArray[np.float32], **changes: Any) -> LogitsWriter:
    """A writer of five rows in tiles of two views and two rows."""
    manifest = synthetic_manifest(rows=5, classes=12, top_k=3, rank=2, wide=1, tile_rows=2)
    manifest = manifest.model_copy(update={"positions": kind})
    given = {
        "codec": bound(manifest.codec, fit_basis(np.nan_to_num(logits).reshape(-1, 12), 2)),
        "table": SampleTable.from_ids([f"{row}.txt" for row in range(5)], None, synthetic_names(manifest)),
        "digests": np.arange(5, dtype=np.uint64) + 1,
        "counts": COUNTS_OF_ROWS if kind.kind == "ragged" else None,
        "pixels": np.zeros((1, 3, 8, 8), np.uint8),
    }
    return LogitsWriter(path, manifest, **given | changes)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("kind", ["grid", "ragged"])
@pytest.mark.parametrize("at_once", [1, 4, 7, 1000])
def test_the_goldens_are_written_to_the_byte(tmp_path: Path, kind: str, at_once: int) -> None:
    positions, counts = KINDS[kind]
    assert not isinstance(positions, OnePosition)
    logits = synthetic_logits(3, sum(counts), 12, seed=6)
    with zarr.config.set({"json_indent": None}):
        write_positions(tmp_path / "c.zarr", positions, logits, counts, at_once=at_once)
    assert files(tmp_path / "c.zarr") == files(GOLDEN / f"v3/{kind}.zarr")


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_with_nan_is_invalid_in_every_view(tmp_path: Path, kind: str) -> None:
    positions, counts = KINDS[kind]
    logits = synthetic_logits(3, sum(counts), 12, seed=1)
    ends = np.cumsum(counts)
    logits[1, ends[3] - 1, 5] = np.nan  # the last position of row 3, in one view
    with writer(tmp_path / "c.zarr", positions, logits) as out:
        out.add(logits[:, :1])
        out.add(logits[:, 1:])
    cache = open_cache(tmp_path / "c.zarr")
    assert cache.manifest.cache_id == out.manifest.cache_id
    assert cache.manifest.invalid_rows == (3,)
    assert cache.digests.tolist() == [1, 2, 3, 0, 5]
    for view in range(3):
        decoded = cache.decode(cache.read_page(view))
        is_invalid = np.isnan(decoded).all(axis=1)
        assert is_invalid.tolist() == np.repeat(np.arange(5) == 3, counts).tolist()
        best = decoded[~is_invalid].argmax(axis=1)
        assert best.tolist() == logits[view][~is_invalid].argmax(axis=1).tolist()


@pytest.mark.parametrize("counts", [(0,) * 5, (0, 0, 5, 0, 0), (0, 0, 0, 0, 1), (1, 0, 0, 0, 0)])
def test_blocks_without_a_position(tmp_path: Path, counts: tuple[int, ...]) -> None:
    logits = synthetic_logits(3, sum(counts), 12)
    basis = synthetic_logits(1, 9, 12).reshape(-1, 12)
    write_positions(tmp_path / "c.zarr", RAGGED, logits, counts, fitted_to=basis)
    cache = open_cache(tmp_path / "c.zarr")
    assert cache.positions.counts(range(5)).tolist() == list(counts)
    assert cache.decode(cache.read_page(2)).argmax(axis=1).tolist() == logits[2].argmax(axis=1).tolist()


def test_too_few_and_too_many_positions(tmp_path: Path) -> None:
    logits = synthetic_logits(3, 11, 12)
    out = writer(tmp_path / "c.zarr", RAGGED, logits)
    out.add(logits[:, :6])
    with pytest.raises(DataError, match="logits end within rows 2-3: 2 of their 4 positions are missing"):
        out.finish()
    with pytest.raises(DataError, match=r"1 position\(s\) more than the rows of the cache have"):
        out.add(logits[:, 6:])
    with pytest.raises(DataError, match=r"expected logits \[3, n, 12\], got \[3, 1, 11\]"):
        out.add(logits[:, :1, :11])


def test_what_was_broken_off_is_no_cache(tmp_path: Path) -> None:
    def broken_off() -> None:
        logits = synthetic_logits(3, 10, 12)
        with writer(tmp_path / "c.zarr", RAGGED, logits) as out:
            out.add(logits)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    with pytest.raises(IncompleteCacheError):
        open_cache(tmp_path / "c.zarr")


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("ragged", {"counts": None}, "ragged positions need counts"),
        ("ragged", {"counts": (1, 2)}, "for each of the 5 rows"),
        ("ragged", {"counts": (1, 2, -1, 0, 0)}, "of 0 or more"),
        ("ragged", {"counts": (3, 3, 0, 0, 0)}, "rows 0-1 have 6 positions, a block of this cache holds 5"),
        ("grid", {"counts": (6,) * 5}, "counts are for ragged positions, those of the manifest are 'grid'"),
        ("one", {"digests": np.zeros(4, np.uint64)}, "expected 5 digests"),
        ("one", {"pixels": None}, "the header arrays are"),
    ],
)
def test_pieces_that_do_not_fit_together(
    tmp_path: Path, kind: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        writer(tmp_path / "c.zarr", KINDS[kind][0], synthetic_logits(3, 30, 12), **changes)
    assert not (tmp_path / "c.zarr").exists()


def test_a_codec_of_other_settings(tmp_path: Path) -> None:
    logits = synthetic_logits(3, 5, 12)
    codec = bound(synthetic_manifest(classes=12, top_k=4, rank=2, wide=1).codec, fit_basis(logits[0], 2))
    with pytest.raises(ConfigError, match="settings are not those of the manifest"):
        writer(tmp_path / "c.zarr", OnePosition(), logits, codec=codec)


def test_it_is_public() -> None:
    assert kdcache.LogitsWriter is LogitsWriter


def test_logits_beyond_what_the_codec_was_fitted_to_are_noticed(tmp_path: Path) -> None:
    logits = synthetic_logits(3, 5, 12, seed=1)
    loud = logits.copy()
    loud[1, 3] *= 500
    made = writer(tmp_path / "c.zarr", OnePosition(), logits)
    with pytest.warns(UserWarning, match="reach the end of what the codec holds"):
        made.add(loud)
    made.finish()


MASKS = MaskSection(classes=0, lowest=LOWEST, floor=-20.0)


def codec_of(name: str, logits: NDArray[np.float32], masks: MaskSection | None) -> Ranked[Any]:
    """A codec of 12 classes by its name; ``all-logits`` holds masks without a section."""
    if name == "all-logits":
        return AllLogits.of(12, "float16")
    if name == "joint-sketch":
        return fitted(logits, masks=masks)
    settings = synthetic_manifest(classes=12, top_k=3, rank=2, wide=1).codec
    basis = fit_basis(logits, 2)
    if name == "class-sketch":
        settings = ClassSketchSettings(
            top_k=3, index_bits=8, value_bits=8, value_step=0.05, tail_rank=2, tail_wide=1, tail_bytes=1,
            tail_step=0.1,
        )  # fmt: skip
        basis = with_centres(basis, logits, 0.1)
    return bound(settings.model_copy(update={"masks": masks}), basis)


def write_masked(path: Path, codec: Ranked[Any], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Write logits [3, 5, 12] with a codec; gives what view 1 decodes to."""
    manifest = synthetic_manifest(rows=5, classes=12, top_k=3, rank=2, wide=1, tile_rows=2)
    table = SampleTable.from_ids([f"{row}.txt" for row in range(5)], None, synthetic_names(manifest))
    pixels = np.zeros((1, 3, 8, 8), np.uint8)
    manifest = manifest.with_codec(codec.settings)
    with LogitsWriter(path, manifest, codec, table, np.arange(5, dtype=np.uint64), pixels=pixels) as out:
        out.add(logits)
    cache = open_cache(path)
    return cache.decode(cache.read_page(1))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("mask", [-np.inf, -1e9])
def test_masks_are_kept_or_refused_by_every_codec_alike(tmp_path: Path, name: str, mask: float) -> None:
    logits = synthetic_logits(3, 5, 12, seed=2)
    masked = logits.copy()
    masked[:, [2, 4], 7] = mask
    seen = np.maximum(masked, np.float32(MASKS.floor)).reshape(-1, 12)
    decoded = write_masked(tmp_path / "kept.zarr", codec_of(name, seen, MASKS), masked)
    assert np.isfinite(decoded).all()
    assert decoded[[2, 4], 7].max() < decoded[[0, 1, 3]].min() - 5
    if name != "all-logits":
        with pytest.raises(DataError, match=f"6 of 15 answers mask classes .* and codec {name} was fitted"):
            write_masked(tmp_path / "refused.zarr", codec_of(name, logits.reshape(-1, 12), None), masked)


@pytest.mark.parametrize("name", CODECS)
def test_an_answer_that_masks_every_class_is_refused(tmp_path: Path, name: str) -> None:
    logits = synthetic_logits(3, 5, 12, seed=2)
    codec = codec_of(name, logits.reshape(-1, 12), MASKS)
    logits[1, 2] = -np.inf
    with pytest.raises(DataError, match="1 of 15 answers mask every class"):
        write_masked(tmp_path / "c.zarr", codec, logits)
