"""Records are the same bytes as those of the release before codecs became objects.

Every number below is a small multiple of a power of two, so that float32 sums are exact and the digests do
not depend on the processor; the log-sum-exp, which does, is left out. The constants were recorded on
2026-11-30 from the code before that change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from numpy.typing import NDArray

from cache_builder.format import open_cache, writer
from cache_builder.format.codecs import CODECS
from cache_builder.format.layout import record_arrays, tiles
from cache_builder.format.manifest import Manifest
from cache_builder.tensors.encode import RecordEncoder
from tests.caches import Arrays, bound, synthetic_manifest

CLASSES, VIEWS, ROWS = 40, 3, 50

EXACT = {
    "name": "topk-tail",
    "top_k": CLASSES,
    "index_bits": 8,
    "tail_rank": 0,
    "tail_wide": 0,
    "tail_step": 0,
}
TAIL = {"name": "topk-tail", "top_k": 5, "index_bits": 8, "tail_rank": 8, "tail_wide": 2, "tail_step": 0.25}
SKETCH = {
    "name": "class-sketch", "top_k": 5, "index_bits": 8, "index_coding": "rank", "value_bits": 8,
    "value_step": 0.125, "tail_rank": 8, "tail_wide": 1, "tail_bytes": 4, "tail_step": 1.0,
}  # fmt: skip
SECTIONS: dict[str, dict[str, Any]] = {
    "exact": EXACT,
    "tail": TAIL,
    "sketch": SKETCH,
    "sketch-16": SKETCH | {"index_coding": "class", "value_bits": 16, "tail_wide": 3, "tail_bytes": 5},
    "masked": SKETCH | {"masks": {"classes": 2, "lowest": -1e4, "floor": -24.0}},
}
RECORD_DIGESTS = {
    "exact": "b000d2ac487e3ff9",
    "tail": "416161692413a0e7",
    "sketch": "74889e451769a7c3",
    "sketch-16": "41387295be11c0e2",
    "masked": "01cca57725a1ac55",
}
DECODED_DIGESTS = {
    "exact": "eb3be950e3bbfcb9",
    "tail": "e31bbdd33cf37c63",
    "sketch": "5132417170062731",
    "sketch-16": "83e4b7eb6990f8fb",
    "masked": "c798b89f2046d771",
}


def logits(name: str) -> NDArray[np.float32]:
    """[V, N, C], eighths between -8 and 8."""
    rng = np.random.default_rng(7)
    found = (rng.integers(-64, 65, (VIEWS, ROWS, CLASSES)) / 8).astype(np.float32)
    if name == "masked":
        found[..., [3, 17]] = -1e9
        found[:, ::4, 5] = -np.inf
    return found


def header(section: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """A basis of quarters, a mean of eighths and centres of small integers."""
    rng = np.random.default_rng(8)
    rank = section["tail_rank"]
    arrays: dict[str, NDArray[Any]] = {
        "mean": (rng.integers(-8, 9, CLASSES) / 8).astype(np.float32),
        "basis": (rng.integers(-1, 2, (rank, CLASSES)) / 4).astype(np.float32),
    }
    if not rank:
        arrays["mean"] = np.zeros(CLASSES, np.float32)
    if section["name"] == "class-sketch":
        arrays["centres"] = rng.integers(-5, 6, (CLASSES, rank)).astype(np.int16)
    if "masks" in section:
        arrays["mean"][[3, 17]], arrays["basis"][:, [3, 17]] = -1e4, 0
    return arrays


def written(path: Path, name: str) -> Manifest:
    section = SECTIONS[name]
    plain = synthetic_manifest(views=VIEWS, rows=ROWS, classes=CLASSES, tile_rows=32, named=False)
    manifest = plain.with_codec(CODECS[section["name"]].Settings.model_validate(section))
    codec = bound(manifest.codec, Arrays(**header(section)))
    table = writer.SampleTable.from_ids([f"{i}.png" for i in range(ROWS)], np.arange(ROWS) % CLASSES)
    arrays = writer.header_arrays(codec, table, np.zeros((1, 3, 8, 8), np.uint8))
    manifest = manifest.model_copy(update={"digests": writer.header_digests(arrays)})
    writer.create(path, manifest, arrays)
    out = writer.CacheWriter(path, manifest)
    for tile in tiles(manifest):
        block = logits(name)[tile.view_start : tile.view_stop, tile.row_start : tile.row_stop]
        fields = codec.encode(block.reshape(-1, CLASSES))
        shaped = {key: value.reshape(*block.shape[:2], *value.shape[1:]) for key, value in fields.items()}
        out.write_tile(tile, shaped, np.arange(tile.row_start, tile.row_stop, dtype=np.uint64))
    return out.finish()


def digest(array: NDArray[Any]) -> str:
    return xxhash.xxh64_hexdigest(np.ascontiguousarray(array).tobytes())


def record_digest(records: NDArray[np.uint8], manifest: Manifest) -> str:
    """Of packed records [n, record_bytes], field by field."""
    fields = manifest.codec.layout.unpack(records)
    return digest(np.array([digest(fields[name]) for name in sorted(fields) if not name.startswith("lse")]))


@pytest.mark.parametrize("name", SECTIONS)
def test_a_cache_of_one_seed_has_the_records_it_had_before(name: str, tmp_path: Path) -> None:
    manifest = written(tmp_path / "cache.zarr", name)
    cache = open_cache(tmp_path / "cache.zarr")
    assert manifest.codec.model_dump(mode="json") == SECTIONS[name]
    records = np.concatenate([cache.read_page(view) for view in range(VIEWS)])
    assert record_digest(records, manifest) == RECORD_DIGESTS[name]
    assert digest(cache.decode(records)) == DECODED_DIGESTS[name]
    assert [spec.path for spec in record_arrays(manifest)] == [
        f"records/logits/{f.name}" for f in cache.layout.fields
    ]


@pytest.mark.parametrize("name", ["sketch", "sketch-16", "masked"])
def test_the_torch_encoder_writes_them_too(name: str) -> None:
    settings = CODECS[SECTIONS[name]["name"]].Settings.model_validate(SECTIONS[name])
    manifest = synthetic_manifest(classes=CLASSES).with_codec(settings)
    encoder = RecordEncoder(bound(manifest.codec, Arrays(**header(SECTIONS[name]))))
    records = encoder(torch.from_numpy(logits(name).reshape(-1, CLASSES))).numpy()
    assert record_digest(records, manifest) == RECORD_DIGESTS[name]
