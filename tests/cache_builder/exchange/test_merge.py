from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cache_builder.build.pipeline import build
from cache_builder.calibration import calibrate
from cache_builder.console.progress import BuildProgress
from cache_builder.exchange import merge as module
from cache_builder.exchange.merge import merge, run_merge
from cache_builder.exchange.settings import MergeSettings
from cache_builder.format.errors import ConfigError, CorruptCacheError, KDCacheError
from cache_builder.format.manifest import Manifest
from cache_builder.format.reader import open_cache
from cache_builder.format.root import read_manifest
from tests.cache_builder.conftest import Build, settings_for
from tests.cache_builder.trees import contents, logits, objects
from tests.cache_builder.verify.test_run import checked, failed

NAME = "joined"
# Nine views are two view groups; mixing needs partners from anywhere in the data set.
COMMON: dict[str, object] = {"views": 9, "tile_rows": 16, "recipe": "mixup:base=rrc-flip"}
PARTS = ["0:32", "32:64", "64:"]


def built(out: Path, photos: Path, **changes: object) -> Path:
    with BuildProgress(Console(file=io.StringIO())) as progress:
        build(settings_for(out, photos, **(COMMON | changes)), progress)
    return out


@pytest.fixture(scope="module")
def single(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("single") / f"{NAME}.zarr", photos)


@pytest.fixture(scope="module")
def parts(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The second takes over the basis of the first; the third finds the same one by itself."""
    folder = tmp_path_factory.mktemp("parts")
    paths = [folder / f"part{index}.zarr" for index in range(3)]
    built(paths[0], photos, rows=PARTS[0])
    built(paths[1], photos, rows=PARTS[1], like=str(paths[0]))
    built(paths[2], photos, rows=PARTS[2])
    return paths


def merged(parts: list[Path], out: Path, **changes: object) -> Manifest:
    with BuildProgress(Console(file=io.StringIO())) as progress:
        settings = MergeSettings(parts=tuple(map(str, parts)), out=str(out), **changes)  # type: ignore[arg-type]
        return merge(settings, progress)


def test_parts_are_as_large_as_asked_for(parts: list[Path]) -> None:
    for path, stop in zip(parts, (32, 64, 80), strict=True):
        cache = open_cache(path, allow_partial=True)
        assert cache.manifest.cache_id is None
        assert {commit.rows[1] for commit in cache.commits.values()} <= {stop, stop - 16}
        assert len(cache.commits) == (4 if stop < 80 else 2)


def test_the_same_as_one_build(single: Path, parts: list[Path], tmp_path: Path) -> None:
    """In every view, every row, down to the cache_id; whatever the order of the parts."""
    out = tmp_path / f"{NAME}.zarr"
    merged([parts[2], parts[0], parts[1]], out)
    assert contents(out) == contents(single)
    assert objects(out) == objects(single)


def test_the_teacher_says_the_same(parts: list[Path], photos: Path, tmp_path: Path) -> None:
    merged(parts, tmp_path / "out.zarr")
    assert failed(checked(tmp_path / "out.zarr", data=f"imagefolder:{photos}")) == {}


def test_a_trainer_replays_it(parts: list[Path], photos: Path, tmp_path: Path) -> None:
    """What the student is shown gives, through the teacher, what the merged cache stores."""
    import torch

    from cache_builder.build.forward import TeacherForward
    from tests.cache_builder.models import small
    from trainer import ReplayDataset, TeacherCache

    merged(parts, tmp_path / "out.zarr")
    opened, cache = TeacherCache.open(str(tmp_path / "out.zarr")), open_cache(tmp_path / "out.zarr")
    seen = cache.manifest.input
    dataset = ReplayDataset(opened, f"imagefolder:{photos}")
    forward = TeacherForward(small().eval(), seen.mean, seen.std, torch.device("cpu"), "fp32")
    for view in (0, 1, 8):
        dataset.set_epoch(view)
        items = [dataset[position] for position in range(len(dataset))]
        assert [item.row for item in items] == list(range(80))
        live = forward.logits(torch.stack([item.image for item in items])).numpy()
        stored = logits(cache, view)
        np.testing.assert_array_equal(stored.argmax(axis=1), live.argmax(axis=1))
        assert np.sqrt(np.square(stored - live).mean()) < 0.2 * live.std()


def test_the_data_set_may_lie_elsewhere(
    parts: list[Path], photos: Path, own_photos: Path, single: Path, tmp_path: Path
) -> None:
    """As on another machine: ids and digests say that it is the same."""
    for _ in range(2):  # the second continues what the first began
        built(tmp_path / "b.zarr", own_photos, rows="64:80", like=str(parts[0]))
    merged([*parts[:2], tmp_path / "b.zarr"], tmp_path / f"{NAME}.zarr")
    assert contents(tmp_path / f"{NAME}.zarr") == contents(single)


def test_continues_after_any_death(
    parts: list[Path], single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / f"{NAME}.zarr", module.copy_tile
    copied: list[str] = []

    def failing(source: object, writer: object, tile: object) -> None:
        if len(copied) in (3, 7):
            copied.append("death")
            raise KeyboardInterrupt
        copied.append(str(tile))
        real(source, writer, tile)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "copy_tile", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            merged(parts, out)
        assert read_manifest(out).cache_id is None  # type: ignore[union-attr]
    merged(parts, out)
    assert contents(out) == contents(single)
    assert len(copied) == 10 + 2, "no tile is copied twice"


class TestRefusals:
    def test_rows_that_no_part_holds(self, parts: list[Path], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no part holds 2 of 10 tiles: build --rows 64:80"):
            merged(parts[:2], tmp_path / "out.zarr")
        assert not (tmp_path / "out.zarr").exists()

    def test_rows_within_a_tile(self, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"tiles hold 16 rows .* use --rows 0:48"):
            built(tmp_path / "a.zarr", photos, rows="5:40")
        assert not (tmp_path / "a.zarr").exists(), "it is told before anything is computed"

    def test_a_partner_that_is_not_here(self, parts: list[Path], own_photos: Path, tmp_path: Path) -> None:
        """Its picture is mixed into those of this part; unmixed they would be wrong for their students."""
        for path in sorted(own_photos.rglob("*.jpg"))[:64]:
            path.write_bytes(b"")
        with pytest.raises(KDCacheError, match="of another part is needed here"):
            built(tmp_path / "b.zarr", own_photos, rows="64:80", like=str(parts[0]))

    def test_another_data_set(self, parts: list[Path], own_photos: Path, tmp_path: Path) -> None:
        (own_photos / "class_00" / "img_0.jpg").rename(own_photos / "class_00" / "img_00.jpg")
        built(tmp_path / "b.zarr", own_photos)
        with pytest.raises(ConfigError, match=r"of other sample ids\. Views are drawn by row number"):
            merged([*parts, tmp_path / "b.zarr"], tmp_path / "out.zarr")
        with pytest.raises(ConfigError, match="every part needs the same data set"):
            built(tmp_path / "c.zarr", own_photos, like=str(parts[0]), rows="0:16")

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"seed": 6}, "views.seed: 5 -> 6"),
            ({"recipe": "rrc-flip"}, "views.recipe.name"),
            ({"precision": "bf16"}, "teacher.precision"),
            (
                {"teacher": "tests.cache_builder.models:slow", "input_size": 18},
                "input.size: 16 -> 18",
            ),
            ({"tile_rows": 32}, "tiling.rows: 16 -> 32"),
            ({"views": 8}, "views.count: 9 -> 8"),
        ],
        ids=str,
    )
    def test_other_settings(
        self, parts: list[Path], photos: Path, tmp_path: Path, changes: dict[str, object], said: str
    ) -> None:
        built(tmp_path / "b.zarr", photos, rows="64:80", **changes)
        with pytest.raises(ConfigError, match="their settings differ") as caught:
            merged([*parts[:2], tmp_path / "b.zarr"], tmp_path / "out.zarr")
        assert said in str(caught.value)
        if "seed" in changes:
            with pytest.raises(ConfigError, match=r"--like .* part of a cache of other settings"):
                built(tmp_path / "c.zarr", photos, like=str(parts[0]), **changes)

    def test_two_that_hold_the_same_rows(self, parts: list[Path], tmp_path: Path) -> None:
        again = Path(shutil.copytree(parts[1], tmp_path / "again.zarr"))
        merged([*parts, again], tmp_path / "out.zarr")
        commit = again / "commits" / "g00000-b0000002.json"
        body = json.loads(commit.read_text())
        body["shards"][next(iter(body["shards"]))]["crc32"] ^= 1
        commit.write_text(json.dumps(body))
        with pytest.raises(ConfigError, match="both hold views 0-7, rows 32-47, and not the same records"):
            merged([*parts, again], tmp_path / "other.zarr")

    def test_a_damaged_part(self, parts: list[Path], tmp_path: Path) -> None:
        damaged = Path(shutil.copytree(parts[1], tmp_path / "damaged.zarr"))
        shard = next(path for path in (damaged / "records/logits").glob("*/c/**/*") if path.is_file())
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
        with pytest.raises(
            CorruptCacheError, match=r"damaged\.zarr: shard records/.* is not what its commit says"
        ):
            merged([parts[0], damaged, parts[2]], tmp_path / "out.zarr")

    def test_where_something_is_already(self, parts: list[Path], single: Path, tmp_path: Path) -> None:
        shutil.copytree(single, tmp_path / "out.zarr")
        with pytest.raises(ConfigError, match="holds another cache already"):
            merged(parts, tmp_path / "out.zarr")
        with pytest.raises(ConfigError, match="two parts or more"):
            merged(parts[:1], tmp_path / "b.zarr")


class TestAnotherBasis:
    @pytest.fixture
    def other(self, parts: list[Path], photos: Path, tmp_path: Path) -> Path:
        """A part whose basis was fitted to other logits."""
        real = calibrate.groups

        def others(*arguments: Any) -> list[tuple[int, range]]:
            return real(*arguments)[:30]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(calibrate, "groups", others)
            return built(tmp_path / "b.zarr", photos, rows="64:80")

    def test_is_refused_or_encoded_again(
        self, parts: list[Path], other: Path, single: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match=r"its codec or its basis is another one.*--like.*--reencode"):
            merged([*parts[:2], other], tmp_path / "out.zarr")
        merged([*parts[:2], other], tmp_path / "out.zarr", reencode=True)
        cache, wanted = open_cache(tmp_path / "out.zarr"), open_cache(single)
        for view in range(9):
            found, right = logits(cache, view), logits(wanted, view)
            np.testing.assert_array_equal(found[:64], right[:64])
            assert np.sqrt(np.square(found[64:] - right[64:]).mean()) < 0.2 * right.std()
            np.testing.assert_array_equal(found.argmax(axis=1), right.argmax(axis=1))
        np.testing.assert_array_equal(cache.digests, wanted.digests)


def test_unreadable_samples(photos: Path, own_photos: Path, tmp_path: Path, run_build: Build) -> None:
    for index in (3, 70):
        sorted(own_photos.rglob("*.jpg"))[index].write_bytes(b"")
    changes: dict[str, object] = {"on_error": "skip", "name": NAME}
    paths = [
        built(tmp_path / f"{at}.zarr", own_photos, rows=rows, **changes) for at, rows in enumerate(PARTS)
    ]
    built(tmp_path / "single.zarr", own_photos, **changes)
    merged(paths, tmp_path / f"{NAME}.zarr")
    assert open_cache(tmp_path / f"{NAME}.zarr").manifest.invalid_rows == (3, 70)
    assert contents(tmp_path / f"{NAME}.zarr") == contents(tmp_path / "single.zarr")


def test_what_is_printed(parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_merge(MergeSettings(parts=tuple(map(str, parts)), out=str(tmp_path / "o.zarr")))
    assert "80 samples x 9 views; cache_id" in capsys.readouterr().out


def test_a_part_is_continued_and_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[None] | None:
    from cache_builder.cli.build import run_build

    settings = settings_for(tmp_path / "a.zarr", photos, **(COMMON | {"rows": "16:48"}))
    for _ in range(2):
        run_build(settings)
    printed = capsys.readouterr().out
    assert printed.count("this part of the cache is there") == 2
    assert "288 views" in printed
    assert "0 views in" in printed
    return None
