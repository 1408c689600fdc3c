from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cache_builder.format.codecs.all_logits import AllLogits
from cache_builder.format.errors import CorruptCacheError, DataError, FormatError, UnknownSampleError
from cache_builder.format.reader import open_cache
from cache_builder.look import inspect
from cache_builder.look.inspect import CacheSize, cache_size, describe, over_budget, show, teacher_quality
from tests.caches import synthetic_logits, synthetic_manifest, write_synthetic_cache

LOGITS = synthetic_logits(3, 100, 40)
LABELS = np.arange(100) % 40
LAST = "dir/img_00099.png"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write_synthetic_cache(tmp_path / "c.zarr", LOGITS)
    return tmp_path / "c.zarr"


def shown(path: Path, sample: str | None = None, view: int = 0) -> str:
    text = io.StringIO()
    show(describe(str(path), sample, view), Console(file=text, width=200))
    return text.getvalue()


class TestQuality:
    def test_exact_cache_gives_the_live_numbers(self, tmp_path: Path) -> None:
        write_synthetic_cache(tmp_path / "c.zarr", LOGITS, top_k=40)
        quality = teacher_quality(open_cache(tmp_path / "c.zarr"))
        flat, labels = LOGITS.reshape(-1, 40), np.tile(LABELS, 3)
        own = flat[np.arange(300), labels]
        lse = np.log(np.exp(flat - flat.max(axis=1, keepdims=True)).sum(axis=1)) + flat.max(axis=1)
        assert quality is not None
        assert quality.views == 300
        assert quality.top1 == pytest.approx((flat.argmax(axis=1) == labels).mean())
        assert quality.top5 == pytest.approx(((flat > own[:, None]).sum(axis=1) < 5).mean(), abs=0.01)
        assert quality.nll == pytest.approx((lse - own).mean(), rel=1e-2)

    def test_top_k_below_five_uses_the_sketch(self, tmp_path: Path) -> None:
        write_synthetic_cache(tmp_path / "c.zarr", LOGITS, top_k=1)
        quality = teacher_quality(open_cache(tmp_path / "c.zarr"))
        own = np.take_along_axis(LOGITS, np.tile(LABELS, (3, 1))[..., None], axis=2)
        assert quality is not None
        assert quality.top1 == pytest.approx((LOGITS.argmax(axis=2) == LABELS).mean())
        assert quality.top5 == pytest.approx(((own < LOGITS).sum(axis=2) < 5).mean(), abs=0.03)

    def test_any_block_size(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = teacher_quality(open_cache(cache))
        monkeypatch.setattr(inspect, "_LOGITS_AT_ONCE", 7 * 40)
        blocks = teacher_quality(open_cache(cache))
        assert whole is not None
        assert blocks is not None
        assert (blocks.top1, blocks.top5, blocks.views) == (whole.top1, whole.top5, whole.views)
        assert blocks.nll == pytest.approx(whole.nll)


class TestDescribe:
    def test_size(self, cache: Path) -> None:
        size = cache_size(cache, open_cache(cache).manifest)
        files = [path for path in cache.rglob("*") if path.is_file()]
        shards = [path for path in files if "/records/" in str(path) and "/c/" in str(path)]
        assert size.total_bytes == sum(path.stat().st_size for path in files)
        assert size.record_bytes == sum(path.stat().st_size for path in shards)
        assert size.bytes_per_view == size.record_bytes / 300

    def test_json(self, cache: Path) -> None:
        body = json.loads(json.dumps(describe(str(cache), LAST, 2).as_json()))
        assert body["complete"] is True
        assert body["manifest"]["cache_id"] == open_cache(cache).manifest.cache_id
        assert (body["tiles"], body["committed"]) == (8, 8)
        assert body["sample"]["sample_id"] == LAST
        assert body["sample"]["label"] == 19
        best = int(LOGITS[2, 99].argmax())
        assert body["sample"]["top"][0]["class_id"] == best
        assert body["sample"]["top"][0]["name"] == f"class {best}"
        assert body["sample"]["top"][0]["logit"] == pytest.approx(float(LOGITS[2, 99].max()), rel=1e-5)
        mass = sum(score["probability"] for score in body["sample"]["top"]) + body["sample"]["tail_mass"]
        assert mass == pytest.approx(1, abs=1e-3)

    def test_incomplete(self, tmp_path: Path) -> None:
        write_synthetic_cache(tmp_path / "c.zarr", LOGITS, commit=5)
        description = describe(str(tmp_path / "c.zarr"), None, 0)
        assert (description.committed, description.tiles) == (5, 8)
        assert description.as_json()["complete"] is False
        assert "INCOMPLETE: 5 of 8 tiles committed" in shown(tmp_path / "c.zarr")
        assert description.quality is not None
        assert description.quality.views == 232, "what is committed"

    def test_nothing_committed_yet(self, tmp_path: Path) -> None:
        write_synthetic_cache(tmp_path / "c.zarr", LOGITS, commit=0)
        assert "no view is complete yet" in shown(tmp_path / "c.zarr")

    @pytest.mark.parametrize("view", [-1, 3])
    def test_view_out_of_range(self, cache: Path, view: int) -> None:
        with pytest.raises(DataError, match=f"view {view} is out of range: the cache has views 0 to 2"):
            describe(str(cache), None, view)

    def test_unknown_sample(self, cache: Path) -> None:
        with pytest.raises(UnknownSampleError, match=r"nope\.png"):
            describe(str(cache), "nope.png", 0)

    def test_no_cache(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="there is no cache here"):
            describe(str(tmp_path), None, 0)

    @pytest.mark.parametrize("array", ["records/logits/lse", "records/logits/tail_coef", "samples/digest"])
    def test_one_flipped_bit_anywhere_is_told(self, cache: Path, array: str) -> None:
        shards = sorted(path for path in (cache / array / "c").rglob("*") if path.is_file())
        data = bytearray(shards[-1].read_bytes())
        data[len(data) // 2] ^= 8
        shards[-1].write_bytes(data)
        with pytest.raises(CorruptCacheError, match=rf"shard {array}/c/.* \(views .*, rows 96-99\)"):
            describe(str(cache), None, 0)

    def test_a_missing_shard_is_told(self, cache: Path) -> None:
        next(path for path in (cache / "records/logits/lse/c").rglob("*") if path.is_file()).unlink()
        with pytest.raises(CorruptCacheError, match="records/logits/lse/c"):
            describe(str(cache), None, 0)


class TestShow:
    def test_facts_and_bars(self, cache: Path) -> None:
        text = shown(cache, LAST, 1)
        for fact in (
            "\nstate     complete",
            "100 samples, 40 classes",
            "top 5 + rank 8 sketch",
            "teacher top-1",
        ):
            assert fact in text
        assert f"{LAST}, view 1, row 99, label 19 class 19" in text
        assert "█" in text
        assert "all other 35 classes:" in text

    def test_names_are_not_markup(self, tmp_path: Path) -> None:
        """Square brackets in a class name or an id are themselves."""
        path = tmp_path / "[red]c.zarr"
        write_synthetic_cache(path, LOGITS)
        assert "[red]c.zarr" in shown(path)

    def test_every_class_stored(self, tmp_path: Path) -> None:
        write_synthetic_cache(tmp_path / "c.zarr", LOGITS, top_k=40)
        text = shown(tmp_path / "c.zarr")
        assert "every class, no tail" in text
        assert "all other" not in text


@pytest.mark.parametrize(
    ("taken", "budget", "is_told"),
    [(64.0, 64.0, False), (65.0, 64.0, False), (66.0, 64.0, True), (9e9, None, False)],
)
def test_records_above_the_budget_are_told(taken: float, budget: float | None, is_told: bool) -> None:
    manifest = synthetic_manifest()
    request = manifest.requested.codec.model_copy(update={"bytes_per_view": budget})
    asked = manifest.requested.model_copy(update={"codec": request})
    said = over_budget(manifest.model_copy(update={"requested": asked}), CacheSize(1, 1, taken))
    assert (said is not None) == is_told
    assert said is None or "--bytes-per-view 64" in said


def test_all_logits_above_the_budget_say_what_keeps_nearer_to_it() -> None:
    settings = AllLogits.of(100, "float16").settings
    manifest = synthetic_manifest(classes=100).with_codec(settings)
    said = over_budget(manifest, CacheSize(1, 1, 192.3), 30.0)
    assert said is not None
    assert "541% above --bytes-per-view 30: the cache has too few records for a basis" in said
    assert "--codec joint-sketch keeps nearer to it" in said


def test_few_classes_above_the_budget_are_told_though_the_manifest_has_none() -> None:
    manifest = synthetic_manifest(classes=10, top_k=10)
    assert manifest.requested.codec.bytes_per_view is None
    said = over_budget(manifest, CacheSize(1, 1, 20.6), 16.0)
    assert said is not None
    assert "29% above --bytes-per-view 16: 10 classes are so few" in said
    assert over_budget(manifest, CacheSize(1, 1, 20.6), 64.0) is None
