from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cache_builder.build.parts import parse_rows
from cache_builder.console.options import checked
from cache_builder.console.progress import BuildProgress
from cache_builder.format.errors import ConfigError, CorruptCacheError, IncompleteCacheError
from cache_builder.format.reader import open_cache
from cache_builder.interchange import blocks
from cache_builder.interchange.export import export
from cache_builder.interchange.settings import ExportSettings
from tests.cache_builder.conftest import Build
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.object_store import BUCKET, objects, s3_server

# Matrix products of other numbers of rows may differ in their last bits, by processor.
ROUNDING = 4e-6
LOGITS = synthetic_logits(3, 100, 40)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write_synthetic_cache(tmp_path / "c.zarr", LOGITS)
    return tmp_path / "c.zarr"


def exported(cache: Path, form: str, name: str = "out", **changes: object) -> Path:
    out = cache.parent / name
    settings = checked(ExportSettings, {"cache": str(cache), "out": str(out), "form": form} | changes)
    with BuildProgress(Console(file=io.StringIO())) as progress:
        export(settings, progress)
    return out


def decoded(cache: Path) -> np.ndarray:
    opened = open_cache(cache)
    return np.stack([opened.decode(opened.read_page(view)) for view in range(3)])


def test_parquet(cache: Path) -> None:
    table = pq.read_table(exported(cache, "parquet", dense=True))
    assert table.column_names == ["sample_id", "view", "label", "top_ids", "top_logits", "lse", "logits"]
    assert table.column("view").to_pylist() == [0] * 100 + [1] * 100 + [2] * 100
    assert table.column("sample_id").to_pylist()[:100] == list(open_cache(cache).ids)
    assert table.column("label").to_pylist()[100:200] == [row % 40 for row in range(100)]
    dense = np.array(table.column("logits").to_pylist(), np.float32).reshape(3, 100, 40)
    np.testing.assert_allclose(dense, decoded(cache), rtol=0, atol=ROUNDING)
    ids = np.array(table.column("top_ids").to_pylist()).reshape(3, 100, 5)
    np.testing.assert_array_equal(ids, np.argsort(-LOGITS, axis=2)[..., :5])
    values = np.array(table.column("top_logits").to_pylist(), np.float32).reshape(3, 100, 5)
    np.testing.assert_array_equal(values, np.take_along_axis(dense, ids, axis=2))
    lse = np.log(np.exp(LOGITS).sum(axis=2))
    np.testing.assert_allclose(np.array(table.column("lse")).reshape(3, 100), lse, rtol=1e-3, atol=1e-3)
    metadata = table.schema.metadata
    assert metadata[b"kdcache.cache_id"].decode() == open_cache(cache).manifest.cache_id


def test_row_groups_are_the_blocks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_LOGITS_AT_ONCE", 20 * 40)
    with pq.ParquetFile(exported(cache, "parquet")) as file:
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert max(sizes) == 20
    assert sum(sizes) == 300


def test_arrow(cache: Path) -> None:
    out = exported(cache, "arrow", views=(2,), rows="30:70", top=1, half=True, dense=True)
    with pa.memory_map(str(out)) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.num_rows == 40
    assert set(table.column("view").to_pylist()) == {2}
    assert table.column("sample_id").to_pylist() == list(open_cache(cache).ids[30:70])
    assert [len(item) for item in table.column("top_ids").to_pylist()] == [1] * 40
    assert table.schema.field("logits").type == pa.list_(pa.float16(), 40)
    dense = np.stack(table.column("logits").to_numpy(zero_copy_only=False))
    np.testing.assert_array_equal(dense, decoded(cache)[2, 30:70].astype(np.float16))


def test_npz(cache: Path) -> None:
    out = exported(cache, "npz", views=(0, 2), rows="10:", dense=True)
    with np.load(out) as arrays:
        np.testing.assert_allclose(arrays["logits"], decoded(cache)[[0, 2], 10:], rtol=0, atol=ROUNDING)
        assert arrays["top_ids"].shape == (2, 90, 5)
        assert arrays["sample_id"][0] == open_cache(cache).ids[10]
        np.testing.assert_array_equal(arrays["top_ids"][..., 0], LOGITS[[0, 2], 10:].argmax(axis=2))
        assert arrays["view"].tolist() == [0, 2]


def test_more_classes_than_are_stored_are_a_sketch(cache: Path) -> None:
    with pytest.raises(ConfigError, match="those beyond are a sketch, so they go with --dense"):
        exported(cache, "parquet", top=9)
    table = pq.read_table(exported(cache, "parquet", top=9, dense=True))
    ids = np.array(table.column("top_ids").to_pylist())
    values = np.array(table.column("top_logits").to_pylist())
    dense = np.array(table.column("logits").to_pylist(), np.float32)
    np.testing.assert_array_equal(ids[:, :5], np.argsort(-LOGITS.reshape(-1, 40), axis=1)[:, :5])
    np.testing.assert_array_equal(values, np.take_along_axis(dense, ids, axis=1))
    assert (np.diff(values, axis=1) <= 0).all()
    assert all(len(set(row)) == 9 for row in ids.tolist())


def test_rows_that_could_not_be_read_are_null(run_build: Build, own_photos: Path, tmp_path: Path) -> None:
    next(own_photos.rglob("*.jpg")).write_bytes(b"")
    run_build(folder=own_photos, on_error="skip", limit=80)
    path = tmp_path / "cache.zarr"
    (row,) = open_cache(path).manifest.invalid_rows
    table = pq.read_table(exported(path, "parquet", dense=True, views=(0,)))
    for column in ("top_ids", "top_logits", "lse", "logits"):
        nulls = [index for index, item in enumerate(table.column(column).to_pylist()) if item is None]
        assert nulls == [row], column
    with np.load(exported(path, "npz", name="n", views=(0,))) as arrays:
        assert np.isnan(arrays["lse"][0, row])
        assert (arrays["top_ids"][0, row] == -1).all()


def test_to_an_object_store(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    there = {"cache": str(cache), "out": f"s3://{BUCKET}/exports/e.arrow", "form": "arrow"}
    with s3_server(), BuildProgress(Console(file=io.StringIO())) as progress:
        export(checked(ExportSettings, there), progress)
        stored = objects("exports")
        with pytest.raises(ConfigError, match="exists already"):
            export(checked(ExportSettings, there), progress)
        export(checked(ExportSettings, there | {"force": True}), progress)
        assert objects("exports") == stored
    assert stored == {"e.arrow": exported(cache, "arrow").read_bytes()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.zarr", "out"]


@pytest.mark.parametrize("out", ["s3://bucket", "s3://bucket/", "s3://bucket/a/"])
def test_a_url_without_a_name_is_no_file(cache: Path, out: str) -> None:
    settings = checked(ExportSettings, {"cache": str(cache), "out": out, "form": "npz"})
    with BuildProgress(Console(file=io.StringIO())) as progress, pytest.raises(ConfigError, match="no file"):
        export(settings, progress)


def test_what_is_there_is_kept(cache: Path) -> None:
    out = exported(cache, "parquet")
    before = out.read_bytes()
    with pytest.raises(
        ConfigError, match="exists already: choose another --out, or overwrite it with --force"
    ):
        exported(cache, "parquet")
    exported(cache, "parquet", force=True)
    assert out.read_bytes() == before
    with pytest.raises(ConfigError, match="is a folder"):
        exported(cache, "parquet", name="c.zarr", force=True)


def test_a_damaged_cache_leaves_no_file(cache: Path) -> None:
    shard = sorted(path for path in (cache / "records/logits").glob("*/c/**/*") if path.is_file())[-1]
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptCacheError):
        exported(cache, "parquet", dense=True)
    assert [path.name for path in cache.parent.iterdir()] == ["c.zarr"]


def test_refusals(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, said in (
        ({"views": (3,)}, "--view 3: .* has views 0 to 2"),
        ({"rows": "90:101"}, "--rows 90:101: expected START:STOP with 0 <= START < STOP <= 100"),
        ({"rows": "5"}, "expected START:STOP"),
        ({"top": 41}, "the cache has 40 classes"),
    ):
        with pytest.raises(ConfigError, match=said):
            exported(cache, "parquet", **changes)
    with pytest.raises(ConfigError, match="--format csv: Input should be 'parquet', 'arrow' or 'npz'"):
        exported(cache, "csv")
    from cache_builder.interchange import export as module

    monkeypatch.setattr(module, "_MOST_NPZ_BYTES", 1000)
    with pytest.raises(ConfigError, match="use --format parquet"):
        exported(cache, "npz")
    write_synthetic_cache(tmp_path / "half.zarr", LOGITS, commit=3)
    with pytest.raises(IncompleteCacheError):
        exported(tmp_path / "half.zarr", "npz")


@pytest.mark.parametrize(("text", "rows"), [(None, range(9)), (":4", range(4)), ("4:", range(4, 9))])
def test_rows(text: str | None, rows: range) -> None:
    assert parse_rows(text, 9) == rows
