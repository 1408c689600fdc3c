"""Whole builds with a small real teacher over real photographs."""

from __future__ import annotations

import functools
import io
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from rich.console import Console

from cache_builder.build.forward import CompilerError, TeacherForward
from cache_builder.build.pipeline import build
from cache_builder.calibration import pairs
from cache_builder.console.progress import BuildProgress
from cache_builder.datasets import DATASETS, ImageFolder, ImageSample, open_source
from cache_builder.format.codecs.joint_sketch import JointSketchSettings
from cache_builder.format.errors import (
    ConfigError,
    DataError,
    FormatError,
    IncompleteCacheError,
    KDCacheError,
)
from cache_builder.format.reader import open_cache
from cache_builder.views import recipe_from
from cache_builder.views.apply import render
from tests.cache_builder.conftest import Build, settings_for
from tests.cache_builder.models import Failing, small
from tests.cache_builder.trees import contents, logits, objects

HERE = "tests.cache_builder.models"
NAME = "same"


class Interrupting(ImageFolder):
    """A folder whose reader presses Ctrl-C at the image of row 70, in the third tile."""

    def read(self, index: int) -> ImageSample:
        if index == 70:
            raise KeyboardInterrupt
        return super().read(index)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted build, to compare with."""
    out = tmp_path_factory.mktemp("whole") / "cache.zarr"
    with BuildProgress(Console(file=io.StringIO())) as progress:
        build(settings_for(out, photos, name=NAME), progress)
    return out


class TestContents:
    def test_decoded_logits_are_the_live_teachers(self, whole: Path, photos: Path) -> None:
        cache = open_cache(whole)
        manifest, source = cache.manifest, open_source(f"imagefolder:{photos}")
        forward = TeacherForward(
            small().eval(), manifest.input.mean, manifest.input.std, torch.device("cpu"), "fp32"
        )
        recipe, seed = recipe_from(manifest.views.recipe), manifest.views.seed
        images = [source.read(row).value for row in range(len(source))]
        errors = []
        for view in range(manifest.views.count):
            seen = [
                render(image, recipe, seed, view, row, 16, "bilinear") for row, image in enumerate(images)
            ]
            live, stored = forward.logits(torch.stack(seen)).numpy(), logits(cache, view)
            np.testing.assert_array_equal(stored.argmax(axis=1), live.argmax(axis=1))
            top = np.argsort(-live, axis=1)[:, :5]
            off = np.abs(np.take_along_axis(stored - live, top, axis=1))
            assert isinstance(manifest.codec, JointSketchSettings)
            # Half a step, and another one where two were put in order.
            assert off.max() <= 1.6 * manifest.codec.value_step
            assert np.median(off) <= 0.5 * manifest.codec.value_step
            # Every pair of so small a data set was used for calibration.
            errors.append(np.square(stored - live).mean())
        error = float(np.sqrt(np.mean(errors)))
        assert error == pytest.approx(manifest.calibration.tail_error, rel=1e-3)
        assert error < 0.15 * manifest.calibration.logit_std

    def test_ids_labels_and_digests(self, whole: Path, photos: Path) -> None:
        cache, source = open_cache(whole), open_source(f"imagefolder:{photos}")
        assert list(cache.ids) == list(source.ids)
        np.testing.assert_array_equal(cache.labels, source.labels)
        wanted = [xxhash.xxh64_intdigest((photos / sample_id).read_bytes()) for sample_id in source.ids]
        assert cache.digests.tolist() == wanted

    def test_what_is_assumed_is_said_before_the_long_work(self, run_build: Build) -> None:
        log = io.StringIO()
        run_build(log=log, limit=8)
        said = " ".join(log.getvalue().split())
        assert "pictures: 16 px, bilinear, mean" in said
        assert said.index("assumed, for the model says nothing") < said.index("calibrating")

    def test_few_samples_with_many_views_are_calibrated_on_several_tiles(self, run_build: Build) -> None:
        log = io.StringIO()
        found = run_build(log=log, views=80, limit=10, tail_rank=None).manifest.calibration
        assert found.pairs == 560
        assert "make it reliable" not in log.getvalue()

    def test_a_second_look_where_most_pictures_cannot_be_read(
        self, run_build: Build, own_photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of 40 of the 80 rows that calibration looks at, four can be read; of the other 40 all."""
        monkeypatch.setattr(pairs, "MAX_PAIRS", 120)
        looked_at = pairs.group_rows(80, 3, 40, seed=5)
        ids = open_source(f"imagefolder:{own_photos}").ids
        for row in looked_at[4:]:
            (own_photos / ids[row]).write_bytes(b"")
        log = io.StringIO()
        found = run_build(folder=own_photos, log=log, on_error="skip", codec="joint-sketch").manifest
        assert len(found.invalid_rows) == 36
        assert found.calibration.pairs == 3 * 44
        said = " ".join(log.getvalue().split())
        assert "36 of the 40 samples that calibration looked at cannot be read: it looks at 40 others" in said

    def test_that_nothing_is_lost_is_said_where_a_loss_was_allowed(self, run_build: Build) -> None:
        log = io.StringIO()
        run_build(log=log, data="digits:test", limit=8, lose=0.1, tail_rank=None)
        said = " ".join(log.getvalue().split())
        assert "--lose 0.1 has no effect: each of the 10 classes is stored by itself" in said

    def test_statistics(self, run_build: Build, photos: Path, tmp_path: Path) -> None:
        result = run_build()
        cache = open_cache(tmp_path / "cache.zarr")
        best = np.stack([logits(cache, view).argmax(axis=1) for view in range(3)])
        assert result.stats.done == result.stats.records_committed == result.stats.labelled == 240
        assert result.stats.top1_hits == (best == cache.labels).sum()
        assert result.stats.bytes_written == sum(
            shard.bytes for commit in cache.commits.values() for shard in commit.shards.values()
        )
        assert result.stats.invalid == result.stats.clipped == 0
        assert not result.was_finished

    def test_rows_that_fill_no_tile_and_views_beyond_one(self, run_build: Build, tmp_path: Path) -> None:
        manifest = run_build(views=10, tile_rows=37, limit=75).manifest
        cache = open_cache(tmp_path / "cache.zarr")
        assert (manifest.tiling.views, len(cache.tiles), len(cache.commits)) == (8, 6, 6)
        assert not list(cache.damaged_shards())
        pages = np.stack([cache.read_page(view) for view in range(10)])
        assert np.isfinite(cache.decode(pages.reshape(-1, cache.record_bytes))).all()
        assert len({page.tobytes() for page in pages}) == 10

    def test_a_view_is_the_same_however_many_there_are(self, run_build: Build, tmp_path: Path) -> None:
        """Up to the calibration, which sees other pairs: what is exact must agree."""
        for views in (3, 10):
            run_build(out=tmp_path / f"{views}.zarr", views=views, limit=20, top_k=40)
        few, many = (open_cache(tmp_path / f"{views}.zarr") for views in (3, 10))
        for view in range(3):
            top = [cache.read_page(view)[:, :8].copy().view("<f4") for cache in (few, many)]
            np.testing.assert_allclose(top[0], top[1], rtol=1e-5)

    def test_limit(self, run_build: Build, photos: Path, tmp_path: Path) -> None:
        result = run_build(limit=33)
        cache = open_cache(tmp_path / "cache.zarr")
        assert result.manifest.data.samples == 33
        assert list(cache.ids) == list(open_source(f"imagefolder:{photos}").ids[:33])
        assert result.manifest.classes == 40

    def test_every_class_stored(self, run_build: Build, tmp_path: Path) -> None:
        manifest = run_build(top_k=40, log=io.StringIO()).manifest
        assert manifest.codec.tail_rank == 0
        assert manifest.calibration.pairs == 0
        page = logits(open_cache(tmp_path / "cache.zarr"), 0)
        assert np.isfinite(page).all()

    def test_batches_of_any_size_say_the_same(self, run_build: Build, tmp_path: Path) -> None:
        run_build(batch_size=1, views=2, top_k=40)
        run_build(out=tmp_path / "whole.zarr", views=2, top_k=40)
        for view in range(2):
            found, wanted = (logits(open_cache(tmp_path / n), view) for n in ("cache.zarr", "whole.zarr"))
            # The largest logit is exact but for the order of sums in the model.
            np.testing.assert_allclose(found.max(axis=1), wanted.max(axis=1), rtol=1e-4)


class TestWorkers:
    @pytest.mark.parametrize("workers", [1, 4])
    def test_never_change_a_byte(self, run_build: Build, whole: Path, tmp_path: Path, workers: int) -> None:
        run_build(workers=workers, name=NAME)
        stored = objects(tmp_path / "cache.zarr", "records", "samples", "codec", "probe", "commits")
        assert stored == objects(whole, "records", "samples", "codec", "probe", "commits")
        assert len(stored) > 30


class TestResume:
    def interrupted(self, run_build: Build, monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
        """A build that ends by Ctrl-C in its third tile. All classes stored: calibration reads no images."""
        with monkeypatch.context() as patch:
            patch.setitem(DATASETS, "imagefolder", Interrupting)
            with pytest.raises(KeyboardInterrupt):
                run_build(top_k=40, name=NAME, **changes)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_gives_what_an_uninterrupted_build_gives(
        self, run_build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
    ) -> None:
        run_build(out=tmp_path / "other.zarr", top_k=40, name=NAME)
        self.interrupted(run_build, monkeypatch)
        cache = open_cache(tmp_path / "cache.zarr", allow_partial=True)
        assert len(cache.commits) == 2
        with pytest.raises(IncompleteCacheError):
            open_cache(tmp_path / "cache.zarr")
        kept = objects(tmp_path / "cache.zarr", "records")
        log = io.StringIO()
        result = run_build(top_k=40, name=NAME, workers=workers, log=log)
        assert "building: 192 of 240" in log.getvalue()
        assert "calibrating" not in log.getvalue()
        assert result.stats.done == 48
        assert contents(tmp_path / "cache.zarr") == contents(tmp_path / "other.zarr")
        assert kept.items() <= objects(tmp_path / "cache.zarr").items()

    def test_finished(self, run_build: Build, whole: Path, tmp_path: Path) -> None:
        shutil.copytree(whole, tmp_path / "cache.zarr")
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache.zarr").rglob("*")}
        result = run_build(name=NAME)
        assert result.was_finished
        assert result.manifest.cache_id == open_cache(whole).manifest.cache_id
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache.zarr").rglob("*")} == before

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"views": 4}, ["views.count: 3 -> 4", "tiling.views: 3 -> 4"]),
            ({"seed": 6}, ["views.seed: 5 -> 6"]),
            ({"recipe": "rrc-flip"}, ['views.recipe.name: "pad-crop-flip" -> "rrc-flip"']),
            ({"recipe": "pad-crop-flip:flip=0"}, ["views.recipe.configuration.flip: 0.5 -> 0.0"]),
            ({"tile_rows": 16}, ["tiling.rows: 32 -> 16"]),
            ({"top_k": 6}, ["requested.codec.top_k: null -> 6"]),
            ({"tail_rank": 11}, ["requested.codec.tail_rank: 12 -> 11"]),
            ({"bytes_per_view": 48}, ["requested.codec.bytes_per_view: null -> 48.0"]),
            ({"lose": 0.1}, ["requested.codec.lose: null -> 0.1"]),
            ({"input_size": 18}, ["input.size: 16 -> 18"]),
            ({"mean": (0.5, 0.5, 0.5)}, ["input.mean: [0.485"]),
            ({"precision": "bf16"}, ['teacher.precision: "fp32" -> "bf16"']),
            ({"teacher": f"{HERE}:poisoned"}, ["teacher.spec"]),
            ({"limit": 70}, ["data.samples: 80 -> 70"]),
            ({"ignore_labels": True}, ["class names: ["]),
            ({"name": "x"}, [f'name: "{NAME}" -> "x"']),
        ],
        ids=str,
    )
    def test_other_settings_are_refused_by_name(
        self, run_build: Build, whole: Path, changes: dict[str, object], named: list[str]
    ) -> None:
        before = objects(whole)
        with pytest.raises(ConfigError, match="holds a cache of other settings") as caught:
            run_build(out=whole, **({"name": NAME} | changes))
        for line in named:
            assert line in str(caught.value)
        assert objects(whole) == before

    def test_what_changes_no_number_may_change(self, run_build: Build, whole: Path) -> None:
        assert run_build(out=whole, name=NAME, batch_size=7, workers=1, on_error="skip").was_finished

    def test_a_changed_folder_is_refused(
        self, run_build: Build, monkeypatch: pytest.MonkeyPatch, own_photos: Path
    ) -> None:
        self.interrupted(run_build, monkeypatch, folder=own_photos)
        first, last = (own_photos / f"class_{label:02d}" / "img_0.jpg" for label in (0, 39))
        last.rename(last.with_name("img_9.jpg"))
        with pytest.raises(ConfigError, match="begun over other sample ids or labels"):
            run_build(folder=own_photos, top_k=40, name=NAME)
        last.with_name("img_9.jpg").rename(last)
        first.rename(own_photos / "class_01" / "img_9.jpg")
        with pytest.raises(ConfigError, match="begun over other sample ids or labels"):
            run_build(folder=own_photos, top_k=40, name=NAME)
        (own_photos / "class_01" / "img_9.jpg").unlink()
        with pytest.raises(ConfigError, match=r"data\.samples: 80 -> 79"):
            run_build(folder=own_photos, top_k=40, name=NAME)

    def test_a_sample_that_changes_between_view_groups(
        self, run_build: Build, monkeypatch: pytest.MonkeyPatch, own_photos: Path, tmp_path: Path
    ) -> None:
        self.interrupted(run_build, monkeypatch, folder=own_photos, views=10)
        changed = own_photos / "class_03" / "img_1.jpg"
        shutil.copy(own_photos / "class_02" / "img_1.jpg", changed)
        with pytest.raises(DataError, match=r"1 sample.* changed since .*class_03/img_1\.jpg"):
            run_build(folder=own_photos, top_k=40, name=NAME, views=10)
        shutil.copy(own_photos / "class_02" / "img_0.jpg", changed)

    def test_leftovers_of_a_killed_build_are_swept(
        self, run_build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        self.interrupted(run_build, monkeypatch)
        unique = uuid.uuid4().hex
        leftovers = [
            tmp_path / "cache.zarr" / "commits" / f"g00000-b0000002.json.{unique}.partial",
            tmp_path / "cache.zarr" / "records/logits/lse/c" / "0" / f"2.{unique}.partial",
        ]
        foreign = tmp_path / "cache.zarr" / "my.partial"
        foreign.write_text("precious")
        for path in leftovers:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half")
        (tmp_path / f".cache.zarr.{unique}.creating").mkdir()
        run_build(top_k=40, name=NAME)
        assert foreign.read_text() == "precious"
        assert not any(path.exists() for path in leftovers)
        assert sorted(path.name for path in tmp_path.iterdir() if "cache" in path.name) == ["cache.zarr"]

    def test_something_else_is_there(self, run_build: Build, tmp_path: Path) -> None:
        import zarr

        zarr.create_group(tmp_path / "cache.zarr")
        with pytest.raises(FormatError, match="not a kdcache"):
            run_build()


class TestUnreadable:
    @pytest.fixture
    def bad(self, own_photos: Path) -> list[Path]:
        """Rows 9, 40 and 41, in two tiles."""
        paths = [own_photos / open_source(f"imagefolder:{own_photos}").ids[row] for row in (9, 40, 41)]
        paths[0].write_bytes(b"")
        paths[1].write_bytes(paths[1].read_bytes()[:300])
        paths[2].write_text("this is no image")
        return paths

    @pytest.mark.parametrize("top_k", [5, 40], ids=["while calibrating", "while building"])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_fail_names_the_path(
        self, run_build: Build, own_photos: Path, bad: list[Path], top_k: int, workers: int
    ) -> None:
        with pytest.raises(DataError, match="--on-error skip") as caught:
            run_build(folder=own_photos, top_k=top_k, workers=workers, seed=2)
        assert any(str(path) in str(caught.value) for path in bad)

    @pytest.mark.parametrize("changes", [{}, {"views": 9, "batch_size": 7}], ids=str)
    def test_skip_marks_the_rows(
        self, run_build: Build, own_photos: Path, bad: list[Path], tmp_path: Path, changes: dict[str, object]
    ) -> None:
        result = run_build(folder=own_photos, on_error="skip", **changes)
        cache = open_cache(tmp_path / "cache.zarr")
        assert cache.manifest.invalid_rows == (9, 40, 41)
        assert result.stats.invalid == 3
        for view in range(cache.manifest.views.count):
            missing = np.isnan(logits(cache, view)).all(axis=1)
            assert np.flatnonzero(missing).tolist() == [9, 40, 41]
            assert np.isfinite(logits(cache, view)[~missing]).all()
        assert np.flatnonzero(cache.digests == 0).tolist() == [9, 40, 41]
        assert result.stats.labelled == 77 * cache.manifest.views.count
        assert "3 unreadable" in result.stats.describe()

    def test_a_whole_batch_of_them(self, run_build: Build, own_photos: Path, tmp_path: Path) -> None:
        ids = open_source(f"imagefolder:{own_photos}").ids
        for sample_id in ids[:32]:
            (own_photos / sample_id).write_bytes(b"")
        run_build(folder=own_photos, on_error="skip")
        assert open_cache(tmp_path / "cache.zarr").manifest.invalid_rows == tuple(range(32))

    def test_nothing_readable(self, run_build: Build, own_photos: Path, tmp_path: Path) -> None:
        for path in own_photos.rglob("*.jpg"):
            path.write_bytes(b"")
        with pytest.raises(DataError, match="fewer than two readable views"):
            run_build(folder=own_photos, on_error="skip")
        assert not (tmp_path / "cache.zarr").exists()


class TestLogits:
    @pytest.fixture
    def dark(self, own_photos: Path) -> str:
        from PIL import Image

        path = own_photos / "class_07" / "img_1.jpg"
        Image.new("RGB", (48, 40)).save(path)
        return path.relative_to(own_photos).as_posix()

    @pytest.mark.parametrize("top_k", [5, 40], ids=["while calibrating", "while building"])
    def test_non_finite_names_the_sample(
        self, run_build: Build, own_photos: Path, dark: str, tmp_path: Path, top_k: int
    ) -> None:
        with pytest.raises(DataError, match=rf"non-finite logits .*1 sample.*{dark}.*--precision fp32"):
            run_build(folder=own_photos, teacher=f"{HERE}:poisoned", top_k=top_k)
        if top_k == 40:
            # Row 15 lies in the first tile: nothing was committed.
            assert not open_cache(tmp_path / "cache.zarr", allow_partial=True).commits

    def test_an_unreadable_image_is_not_blamed_on_the_teacher(
        self, run_build: Build, own_photos: Path, dark: str, tmp_path: Path
    ) -> None:
        """Its place in the batch is black, for which this teacher gives NaN."""
        (own_photos / dark).write_bytes(b"")
        run_build(folder=own_photos, teacher=f"{HERE}:poisoned", on_error="skip")
        assert open_cache(tmp_path / "cache.zarr").manifest.invalid_rows == (15,)

    def test_a_span_beyond_float16(self, run_build: Build, tmp_path: Path) -> None:
        manifest = run_build(out=tmp_path / "sketch.zarr", teacher=f"{HERE}:enlarged").manifest
        assert manifest.calibration.tail_error < 0.2 * manifest.calibration.logit_std
        with pytest.raises(DataError, match="span beyond float16"):
            run_build(teacher=f"{HERE}:enlarged", top_k=40)

    def test_a_constant_teacher(self, run_build: Build, tmp_path: Path) -> None:
        run_build(teacher=f"{HERE}:constant")
        np.testing.assert_allclose(logits(open_cache(tmp_path / "cache.zarr"), 0), 0, atol=1e-5)


BEFORE = 6
"""Forward passes before the first batch: one of the plan, five that look at the teacher."""


class TestFailingTeacher:
    @pytest.fixture
    def fail_at(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Which forward passes of the next build raise; the first is the one that counts the classes."""

        def choose(*passes: int) -> None:
            monkeypatch.setattr(Failing, "at", set(passes))
            monkeypatch.setattr(Failing, "passes", 0)

        return choose

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_names_the_samples_keeps_tiles_and_is_continued(
        self, run_build: Build, fail_at: Callable[..., None], tmp_path: Path, seed: int
    ) -> None:
        settings = {"teacher": f"{HERE}:failing", "top_k": 40, "name": NAME}
        fail_at()
        run_build(out=tmp_path / "whole.zarr", **settings)
        # 5 rows a batch; tiles of 32, 32 and 16 rows take 7, 7 and 4 batches.
        batch = int(np.random.default_rng(seed).integers(18))
        tile, within = (batch // 7, batch % 7) if batch < 14 else (2, batch - 14)
        first = 32 * tile + 5 * within
        rows = range(first, min(first + 5, 32 * (tile + 1)))
        ids = ", ".join(open_cache(tmp_path / "whole.zarr").ids[row] for row in rows)
        # One pass more: where all classes are stored, a look at whether some are masked.
        fail_at(BEFORE + 1 + batch + 1)
        with pytest.raises(KDCacheError) as caught:
            run_build(**settings)
        assert str(caught.value) == (
            f"teacher {HERE}:failing failed on a batch of {len(rows)} sample(s), {ids}: RuntimeError: the "
            "kernel does not like this batch; committed tiles are kept and the same command continues"
        )
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert len(open_cache(tmp_path / "cache.zarr", allow_partial=True).commits) == tile
        fail_at()
        result = run_build(**settings)
        assert result.stats.done == 3 * (80 - 32 * tile)
        assert contents(tmp_path / "cache.zarr") == contents(tmp_path / "whole.zarr")
        assert result.statistics == open_cache(tmp_path / "whole.zarr").statistics()

    def test_while_calibrating(self, run_build: Build, fail_at: Callable[..., None], tmp_path: Path) -> None:
        fail_at(BEFORE + 2)
        with pytest.raises(KDCacheError, match=r"failed on a batch of 5 sample\(s\), class_.*does not like"):
            run_build(teacher=f"{HERE}:failing")
        assert not (tmp_path / "cache.zarr").exists()

    def test_memory_that_runs_out_is_told_as_such(
        self, run_build: Build, fail_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def exhausted(model: Failing, pixels: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        make = TeacherForward.classes
        monkeypatch.setattr(TeacherForward, "classes", lambda forward, size: (
            make(forward, size), monkeypatch.setattr(Failing, "forward", exhausted))[0])  # fmt: skip
        with pytest.raises(KDCacheError, match="use a smaller --batch-size than 16"):
            run_build(teacher=f"{HERE}:failing", top_k=40)


class TestCompile:
    def test_without_a_compiler_it_says_so_and_goes_on(
        self, run_build: Build, whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def no_compiler(forward: TeacherForward, batch_size: int, input_size: int) -> None:
            raise CompilerError("InvalidCxxCompiler: No working C++ compiler found")

        monkeypatch.setattr(TeacherForward, "compile", no_compiler)
        log = io.StringIO()
        run_build(compile=True, name=NAME, log=log)
        assert log.getvalue().count("compiling: 0 of 1 teacher") == 1
        assert "--compile: the teacher could not be compiled (InvalidCxxCompiler: No" in log.getvalue()
        assert contents(tmp_path / "cache.zarr") == contents(whole)

    def test_is_no_setting_of_the_cache(
        self, run_build: Build, whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """dynamo's own backend: what it traced runs without a C++ compiler."""
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
        log = io.StringIO()
        run_build(compile=True, name=NAME, log=log)
        assert log.getvalue().index("compiling: 1 of 1") < log.getvalue().index("calibrating: 0 of 240")
        # Batches that are filled up to one size may differ in a last bit.
        compiled, plain = (logits(open_cache(path), 1) for path in (tmp_path / "cache.zarr", whole))
        assert np.abs(compiled - plain).mean() < 0.01 * plain.std()
        assert run_build(name=NAME).was_finished
        assert run_build(out=whole, name=NAME, compile=True).was_finished


@pytest.mark.parametrize("data", ["digits:test", "digits"])
def test_digits(run_build: Build, tmp_path: Path, data: str) -> None:
    result = run_build(
        data=data, teacher="tests.cache_builder.models:small", input_size=None, limit=100, tail_rank=None
    )
    assert result.manifest.input.size == 8
    assert result.names.teacher == tuple("0123456789")
    assert result.manifest.codec.top_k == 10
    assert open_cache(tmp_path / "cache.zarr").ids[0] == ("1197" if data == "digits:test" else "0")
