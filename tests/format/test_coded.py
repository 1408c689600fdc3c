"""Fields that views share and blocks that the codec codes itself, through layout, writer and reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from cache_builder.format import CorruptCacheError, StorageError, open_cache
from cache_builder.format.codecs.joint_sketch import SAMPLE, VIEW
from cache_builder.format.coded import coded_blocks, uncoded_block
from cache_builder.format.layout import ArraySpec, output_arrays, tile_arrays, tiles
from cache_builder.format.logits_writer import LogitsWriter
from cache_builder.format.manifest import GridPositions, RaggedPositions
from cache_builder.format.reader import Cache
from cache_builder.format.writer import SampleTable
from tests.caches import synthetic_logits, synthetic_manifest, synthetic_names
from tests.format.damage import changed, flipped
from tests.format.joint import fitted, joint_settings, tile_records, write_joint_cache
from tests.format.position_caches import COUNTS_OF_ROWS, GRID, RAGGED
from tests.format.test_damage import flip_campaign

# Three view groups, of which the last has one view; blocks of 16, 16 and 8 rows.
LOGITS = synthetic_logits(5, 40, 40, seed=2)
CODEC = fitted(LOGITS)
SIZES = {"tile_views": 2, "tile_rows": 16}
INVALID = (3, 16, 39)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("joint") / "c.zarr"
    write_joint_cache(made, LOGITS, codec=CODEC, invalid=INVALID, **SIZES)
    return made


@pytest.fixture
def cache(path: Path) -> Cache:
    return open_cache(path)


@pytest.fixture(scope="module")
def expected(path: Path) -> list[np.ndarray]:
    """The records of each view, from the codec alone."""
    found: list[list[np.ndarray]] = [[] for _ in range(5)]
    for tile in open_cache(path).tiles:
        for view, records in zip(tile.views, tile_records(CODEC, LOGITS, tile, INVALID), strict=True):
            found[view].append(records)
    return [np.concatenate(parts) for parts in found]


def specs_of(cache: Cache) -> dict[str, ArraySpec]:
    return {spec.path.rsplit("/", 1)[1]: spec for spec in output_arrays(cache.manifest, "logits")}


class TestLayout:
    def test_a_shared_field_has_a_row_of_shards_for_each_view_group(self, cache: Cache) -> None:
        shared, own = specs_of(cache)[SAMPLE], specs_of(cache)[VIEW]
        count = {field.name: field.count for field in cache.layout.fields}
        assert (shared.shape, shared.chunks, shared.shards) == (
            (3, 40, count[SAMPLE] + 1),
            (1, 16, count[SAMPLE] + 1),
            (1, 16, count[SAMPLE] + 1),
        )
        assert (own.shape, own.chunks, own.shards) == (
            (5, 40, count[VIEW] + 1),
            (1, 16, count[VIEW] + 1),
            (2, 16, count[VIEW] + 1),
        )
        assert shared.dimension_names == ("group", "row", "item")
        assert own.dimension_names == ("view", "row", "item")
        assert shared.order is own.order is None

    def test_shard_keys_are_the_ones_zarr_writes(self, path: Path, cache: Cache) -> None:
        for spec in specs_of(cache).values():
            stored = {file.relative_to(path).as_posix() for file in (path / spec.path / "c").rglob("0")}
            files = {key for key in stored if (path / key).is_file()}
            assert files == {spec.shard_key(tile) for tile in cache.tiles}

    def test_a_tile_covers_its_group_once(self, cache: Cache) -> None:
        shared = specs_of(cache)[SAMPLE]
        covered = np.zeros(shared.shape[:2], int)
        for tile in cache.tiles:
            covered[shared.selection(tile)] += 1
        assert (covered == 1).all()

    def test_commits_say_how_large_the_objects_are(self, path: Path, cache: Cache) -> None:
        for tile in cache.tiles:
            for spec in tile_arrays(cache.manifest, tile):
                size = (path / spec.shard_key(tile)).stat().st_size
                assert cache.commits[tile.key].shards[spec.path].bytes == size


class TestReading:
    @pytest.mark.parametrize("view", range(5))
    def test_pages(self, cache: Cache, expected: list[np.ndarray], view: int) -> None:
        np.testing.assert_array_equal(cache.read_page(view), expected[view])
        assert np.flatnonzero(np.isnan(cache.decode(expected[view])).all(axis=1)).tolist() == list(INVALID)

    @pytest.mark.parametrize(
        "rows",
        [range(16), range(15, 17), range(5, 40), range(16, 32), range(33, 40), range(39, 40), range(0, 0)],
        ids=str,
    )
    def test_rows_within_and_across_blocks(
        self, cache: Cache, expected: list[np.ndarray], rows: range
    ) -> None:
        for view in (0, 3, 4):
            found = cache.read_rows(view, rows)
            np.testing.assert_array_equal(found, expected[view][rows.start : rows.stop])

    def test_single_rows(self, cache: Cache, expected: list[np.ndarray]) -> None:
        for row in range(40):
            np.testing.assert_array_equal(cache.read_rows(1, range(row, row + 1))[0], expected[1][row])

    def test_rows_in_any_order(self, cache: Cache, expected: list[np.ndarray]) -> None:
        rows = [39, 0, 17, 17, 3, 31]
        np.testing.assert_array_equal(cache.gather(2, rows), expected[2][rows])

    def test_views_of_a_tile_share_the_field(self, cache: Cache) -> None:
        first, second, other = (cache.codec.unpack(cache.read_page(view))[SAMPLE] for view in (0, 1, 2))
        np.testing.assert_array_equal(first, second)
        assert (first != other).any()

    def test_reading_a_row_takes_one_block_of_each_field(self, path: Path) -> None:
        """Other blocks may be damaged."""
        cache = open_cache(path)
        for spec in specs_of(cache).values():
            key = path / spec.shard_key(cache.tiles[2])
            with changed(key, b"x" * key.stat().st_size):
                assert len(open_cache(path).read_rows(0, range(31, 32))) == 1


class TestDamage:
    @pytest.mark.parametrize("field", [SAMPLE, VIEW])
    def test_a_flipped_byte_is_named_with_its_tile(self, path: Path, field: str) -> None:
        cache = open_cache(path)
        spec, tile = specs_of(cache)[field], cache.tiles[4]  # group 1, block 1
        file = path / spec.shard_key(tile)
        with changed(file, flipped(file.read_bytes(), 8 * 40)):
            with pytest.raises(CorruptCacheError, match=r"views 2-3, rows 16-31\) fails its checksum"):
                open_cache(path).read_rows(2, range(20, 21))
            assert len(open_cache(path).read_rows(2, range(16))) == 16
            assert len(open_cache(path).read_rows(0, range(40))) == 40

    def test_flipped_bits_never_change_a_number(self, path: Path) -> None:
        assert flip_campaign(path, per_file=1, seed=0) == []

    def test_a_block_that_cannot_be_is_named_though_its_checksum_is_right(self, path: Path) -> None:
        """Some other writer's bytes: the shard is another one than the commit says."""
        cache = open_cache(path)
        spec, tile = specs_of(cache)[VIEW], cache.tiles[0]
        file = path / spec.shard_key(tile)
        before = file.read_bytes()
        array = zarr.open_array(path / spec.path, mode="r+")
        kept = array[0, :16]
        try:
            array[0, :16] = np.full_like(kept, 2)
            file.write_bytes(file.read_bytes()[: len(before)].ljust(len(before), b"\0"))
            with pytest.raises(CorruptCacheError, match="views 0-1, rows 0-15"):
                open_cache(path).read_rows(0, range(4))
        finally:
            file.write_bytes(before)
        assert list(open_cache(path).damaged_shards()) == []

    def test_bytes_that_only_the_reading_damaged_are_said_to_be_so(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = open_cache(path)
        codec = cache.codec
        monkeypatch.setattr(type(codec), "uncoded", lambda *_: codec.coders[VIEW].decode(b"", 16))
        with pytest.raises(StorageError, match="though what is stored is whole"):
            cache.read_rows(0, range(4))


class TestBlocks:
    def test_the_worst_block_fits_its_chunk(self, cache: Cache) -> None:
        spec = specs_of(cache)[VIEW]
        digits = CODEC.digits[VIEW]
        rng = np.random.default_rng(0)
        for rows in (1, 7, 16):
            integers = rng.integers(-digits.limit, digits.limit + 1, (2 * rows, len(digits.limit)))
            column = digits.pack(integers).reshape(2, rows, -1)
            stored = coded_blocks(CODEC, spec, column)
            assert stored.shape == (2, rows, column.shape[2] + 1)
            for view in range(2):
                np.testing.assert_array_equal(uncoded_block(CODEC, spec, stored[view]), column[view])


# The codec of these tests is meant to cut some numbers off.
@pytest.mark.filterwarnings("ignore:.*reach the end of what the codec holds")
@pytest.mark.parametrize("kind", ["grid", "ragged"])
@pytest.mark.parametrize("at_once", [3, 1000])
def test_samples_of_several_positions(tmp_path: Path, kind: str, at_once: int) -> None:
    """Blocks are of positions, not of rows; views in groups of two share a field."""
    positions: GridPositions | RaggedPositions = GRID if kind == "grid" else RAGGED
    counts = (6,) * 5 if kind == "grid" else COUNTS_OF_ROWS
    logits = synthetic_logits(3, sum(counts), 40, seed=6)
    codec = fitted(logits)
    manifest = synthetic_manifest(views=3, rows=5, tile_rows=2).with_codec(codec.settings)
    table = SampleTable.from_ids([f"{row}.txt" for row in range(5)], None, synthetic_names(manifest))
    writer = LogitsWriter(
        tmp_path / "c.zarr",
        manifest.model_copy(update={"positions": positions}),
        codec,
        table,
        np.arange(5, dtype=np.uint64),
        counts=counts if kind == "ragged" else None,
        pixels=np.zeros((1, 3, 8, 8), np.uint8),
    )
    for start in range(0, logits.shape[1], at_once):
        writer.add(logits[:, start : start + at_once])
    writer.finish()
    cache = open_cache(tmp_path / "c.zarr")
    ends = np.cumsum(counts)
    for view in range(3):
        group = logits[view // 2 * 2 : view // 2 * 2 + 2]
        fields = codec.encode(group.swapaxes(0, 1).reshape(-1, 40), len(group))
        wanted = codec.pack(fields)[view % 2 :: len(group)]
        np.testing.assert_array_equal(cache.read_page(view), wanted)
        for row in range(5):
            found = cache.read_rows(view, range(row, row + 1))
            np.testing.assert_array_equal(found, wanted[ends[row] - counts[row] : ends[row]])


def test_a_cache_in_one_tile_and_one_view(tmp_path: Path) -> None:
    logits = LOGITS[:1, :5]
    write_joint_cache(tmp_path / "c.zarr", logits, codec=CODEC, tile_views=8, tile_rows=4096)
    cache = open_cache(tmp_path / "c.zarr")
    np.testing.assert_array_equal(cache.read_page(0), CODEC.pack(CODEC.encode(logits[0])))
    assert [tile.count for tile in tiles(cache.manifest)] == [5]
    assert cache.manifest.codec == joint_settings()
