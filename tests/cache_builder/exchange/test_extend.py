from __future__ import annotations

import io
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cache_builder.build.pipeline import build
from cache_builder.console.fidelity import measured_views
from cache_builder.console.progress import BuildProgress
from cache_builder.exchange import extend as module
from cache_builder.exchange import replace_folder as exchange
from cache_builder.exchange.extend import extend, run_extend
from cache_builder.exchange.settings import ExtendSettings
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.locks.lock import claimed
from cache_builder.format.manifest import Manifest
from cache_builder.format.reader import open_cache
from cache_builder.format.writer import CacheWriter
from tests.cache_builder.command import run, start, wait_for
from tests.cache_builder.conftest import settings_for
from tests.cache_builder.trees import contents, logits, objects
from tests.cache_builder.verify.test_run import checked, failed

HERE = "tests.cache_builder.models"


def built(out: Path, photos: Path, **changes: object) -> Path:
    with BuildProgress(Console(file=io.StringIO())) as progress:
        build(settings_for(out, photos, **({"name": "c"} | changes)), progress)
    return out


def extended(cache: Path | str, views: int, **reopening: object) -> Manifest:
    settings = ExtendSettings(
        cache=str(cache),
        views=views,
        device="cpu",
        batch_size=16,
        workers=0,
        **reopening,  # type: ignore[arg-type]
    )
    with BuildProgress(Console(file=io.StringIO())) as progress:
        return extend(settings, progress)


@pytest.fixture(scope="module")
def original(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten views: one whole view group, and one that an extension makes larger."""
    return built(tmp_path_factory.mktemp("original") / "c.zarr", photos, views=10)


@pytest.fixture
def own(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "c.zarr"))


@pytest.fixture(scope="module")
def wanted(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What an extension to sixteen views gives that nobody disturbed."""
    path = Path(shutil.copytree(original, tmp_path_factory.mktemp("wanted") / "c.zarr"))
    extended(path, 16)
    return contents(path)


def pages(cache: Path, views: int) -> list[bytes]:
    opened = open_cache(cache)
    return [opened.read_page(view).tobytes() for view in range(views)]


@pytest.mark.parametrize("views", [11, 16, 19])
def test_old_views_stay_and_new_ones_are_those_of_a_larger_build(
    original: Path, own: Path, photos: Path, tmp_path: Path, views: int
) -> None:
    manifest = extended(own, views)
    assert manifest.views.count == open_cache(own).manifest.views.count == views
    assert pages(own, 10) == pages(original, 10)
    before = open_cache(original).manifest
    assert (manifest.codec, manifest.digests) == (before.codec, before.digests)
    assert manifest.cache_id != before.cache_id
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr", "own"] or sorted(
        path.name for path in tmp_path.iterdir()
    ) == ["c.zarr"]
    if views == 16:
        # Another calibration, but the same views and the same teacher.
        large, small = open_cache(built(tmp_path / "large.zarr", photos, views=16)), open_cache(own)
        for view in range(16):
            found, wanted = logits(small, view), logits(large, view)
            np.testing.assert_array_equal(found.argmax(axis=1), wanted.argmax(axis=1))
            assert np.sqrt(np.square(found - wanted).mean()) < 0.1 * wanted.std()
    assert failed(checked(own, data=f"imagefolder:{photos}")) == {}


def test_three_views_become_eight(photos: Path, tmp_path: Path) -> None:
    """Tiles of three views: the third group has two."""
    cache = built(tmp_path / "c.zarr", photos, views=3)
    before = pages(cache, 3)
    extended(cache, 8)
    assert pages(cache, 3) == before
    assert len(set(pages(cache, 8))) == 8
    assert failed(checked(cache, data=f"imagefolder:{photos}")) == {}


def test_nothing_to_do(own: Path) -> None:
    (own.parent / ".c.zarr.extending").mkdir()
    manifest = extended(own, 10)
    assert manifest.cache_id == open_cache(own).manifest.cache_id
    assert not (own.parent / ".c.zarr.extending").exists()


def test_unreadable_samples_stay_unreadable(own_photos: Path, tmp_path: Path) -> None:
    """Though one of them was repaired since; one more is refused."""
    names = sorted(own_photos.rglob("*.jpg"))
    whole = names[5].read_bytes()
    names[5].write_bytes(b"")
    names[70].write_bytes(b"")
    cache = built(tmp_path / "c.zarr", own_photos, views=3, on_error="skip")
    names[5].write_bytes(whole)
    lost = names[40].read_bytes()
    names[40].write_bytes(b"")
    with pytest.raises(
        DataError, match=r"1 samples could be read when the cache was built.*class_20/img_0\.jpg"
    ):
        extended(cache, 5)
    names[40].write_bytes(lost)
    assert extended(cache, 5).invalid_rows == (5, 70)
    for view in range(5):
        missing = np.isnan(logits(open_cache(cache), view)).all(axis=1)
        assert np.flatnonzero(missing).tolist() == [5, 70]


class TestRefusals:
    def test_views(self, own: Path, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"has 10 already, extend adds some"):
            extended(own, 9)
        plain = built(tmp_path / "p.zarr", photos, views=1, recipe="plain")
        with pytest.raises(ConfigError, match="is deterministic: more than 1 would be equal"):
            extended(plain, 2)

    def test_another_teacher(self, own: Path) -> None:
        before = contents(own)
        with pytest.raises(ConfigError, match="another teacher"):
            extended(own, 12, teacher=(f"{HERE}:constant",))
        assert contents(own) == before

    def test_another_data_set(self, own: Path, own_photos: Path) -> None:
        (own_photos / "class_03" / "img_1.jpg").rename(own_photos / "class_03" / "img_2.jpg")
        with pytest.raises(DataError, match=r"other sample ids or labels.*kdcache verify"):
            extended(own, 12, data=f"imagefolder:{own_photos}")

    @pytest.mark.parametrize("views", [12, 18])
    def test_a_changed_sample(self, own: Path, own_photos: Path, views: int) -> None:
        shutil.copy(own_photos / "class_05" / "img_0.jpg", own_photos / "class_03" / "img_1.jpg")
        before = contents(own)
        with pytest.raises(DataError, match=r"changed since|renders other pictures"):
            extended(own, views, data=f"imagefolder:{own_photos}")
        assert contents(own) == before

    def test_a_remote_cache(self) -> None:
        with pytest.raises(ConfigError, match="place of its own with --out"):
            extended("memory://a/b.zarr", 12)

    def test_while_another_process_is_at_it(self, own: Path, tmp_path: Path) -> None:
        import subprocess
        import sys

        with claimed(str(own)):
            command = [
                sys.executable,
                "-c",
                f"from cache_builder.format.locks.lock import claimed\nwith claimed({str(own)!r}): 0",
            ]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "is being built by" in ran.stderr


class TestWhereItLies:
    def test_a_link_stays_one_and_what_it_leads_to_has_the_views(self, own: Path, tmp_path: Path) -> None:
        (tmp_path / "others").mkdir()
        link = tmp_path / "others" / "link.zarr"
        link.symlink_to(own)
        assert extended(link, 11).views.count == open_cache(own).manifest.views.count == 11
        assert link.is_symlink()
        assert [path.name for path in link.parent.iterdir()] == ["link.zarr"]
        assert not list(tmp_path.glob(".c.zarr*"))

    def test_what_somebody_put_into_it_is_named_and_stays(self, own: Path) -> None:
        (own / "README.md").write_text("precious")
        with pytest.raises(ConfigError, match=r"holds README\.md, which no cache has"):
            extended(own, 11)
        assert (own / "README.md").read_text() == "precious"
        assert open_cache(own).manifest.views.count == 10

    def test_somebodys_folder_of_the_temporary_name_stays(self, own: Path) -> None:
        making = own.with_name(".c.zarr.extending")
        making.mkdir()
        (making / "photo.jpg").write_text("precious")
        for views in (10, 11):
            with pytest.raises(ConfigError, match=r"photo\.jpg\): nothing was removed"):
                extended(own, views)
        assert (making / "photo.jpg").read_text() == "precious"


class TestDeath:
    """Wherever it happens: the old cache is whole, and the same command goes on."""

    @pytest.mark.parametrize("writes", [0, 3, 5])
    def test_between_tiles(
        self,
        own: Path,
        original: Path,
        wanted: dict[str, object],
        monkeypatch: pytest.MonkeyPatch,
        writes: int,
    ) -> None:
        left = [writes]

        def dying(real: Callable[..., object]) -> Callable[..., object]:
            def method(*arguments: object) -> object:
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                return real(*arguments)

            return method

        with monkeypatch.context() as patch:
            patch.setattr(CacheWriter, "adopt_tile", dying(CacheWriter.adopt_tile))
            patch.setattr(CacheWriter, "write_tile", dying(CacheWriter.write_tile))
            with pytest.raises(KeyboardInterrupt):
                extended(own, 16)
        assert contents(own) == contents(original)
        extended(own, 16)
        assert contents(own) == wanted

    @pytest.mark.parametrize(
        ("step", "at_once"),
        [
            ("finish", True),
            ("replace", True),
            ("rmtree", True),
            ("rmtree", False),
            ("first rename", False),
            ("second rename", False),
        ],
    )
    def test_while_it_takes_its_place(
        self,
        own: Path,
        original: Path,
        wanted: dict[str, object],
        monkeypatch: pytest.MonkeyPatch,
        step: str,
        at_once: bool,
    ) -> None:
        def die(*_: object) -> None:
            raise KeyboardInterrupt

        renames = [0]
        real = Path.rename

        def counted(self: Path, target: Path) -> Path:
            if "before" in str(target) or "before" in str(self) or self.name == ".c.zarr.extending":
                renames[0] += 1
                if renames[0] == (1 if step == "first rename" else 2):
                    raise KeyboardInterrupt
            return real(self, target)

        with monkeypatch.context() as patch:
            if not at_once:
                patch.setattr(exchange, "_exchanged", lambda *_: False)
            if step == "finish":
                patch.setattr(CacheWriter, "finish", die)
            if step == "replace":
                patch.setattr(module, "replace_folder", die)
            if step == "rmtree":
                patch.setattr(exchange, "removed", die)
            if "rename" in step:  # the second gives the new cache its name, as every durable name is given
                patch.setattr(Path, "rename", counted)
                patch.setattr(Path, "replace", counted)
            with pytest.raises(KeyboardInterrupt):
                extended(own, 16)
        if own.exists():
            assert contents(own) in (contents(original), wanted)
        else:
            assert step == "second rename"
            assert contents(exchange.aside(own)) == contents(original)
        extended(own, 16)
        assert contents(own) == wanted
        assert [path.name for path in own.parent.glob(".c.zarr*")] == []

    def test_other_views_than_what_was_begun(
        self, own: Path, wanted: dict[str, object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(CacheWriter, "finish", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                extended(own, 12)
        extended(own, 16)
        assert contents(own) == wanted


@pytest.mark.slow
def test_the_command_itself_killed(by_command: Path, photos: Path, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(by_command, tmp_path / "cache.zarr"))
    before = contents(cache)
    command = [
        "extend",
        str(cache),
        "--views",
        "6",
        "--device",
        "cpu",
        "--batch-size",
        "24",
        "--workers",
        "2",
    ]
    commits = tmp_path / ".cache.zarr.extending" / "commits"
    with start(*command) as process:
        # Ten tiles are copied, then ten computed.
        wait_for(process, lambda _: len(list(commits.glob("g*.json"))) >= 13)
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert contents(cache) == before
    again = run(*command)
    assert again.returncode == 0, again.stderr
    assert f"{cache}: 6 views; cache_id" in again.stdout
    assert contents(cache)["logits"][:3] == before["logits"]
    assert open_cache(cache).manifest.views.count == 6
    assert failed(checked(cache, data=f"imagefolder:{photos}")) == {}


def test_what_was_measured_is_said_to_be_of_the_views_before(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = built(tmp_path / "c.zarr", photos, views=2)
    for views in (3, 4):
        run_extend(ExtendSettings(cache=str(cache), views=views, device="cpu", workers=0))
        said = capsys.readouterr().out
        assert "calibrated when the cache had 2 views; of those that were added: " in said
        assert " of the variance lost on " in said
    manifest = open_cache(cache).manifest
    assert measured_views(manifest) == "the views that it was fitted to, the first 2 of 4"


def test_what_is_printed(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_extend(ExtendSettings(cache=str(own), views=10, device="cpu", workers=0))
    assert "10 views; cache_id" in capsys.readouterr().out


def test_an_extended_cache_in_a_place_of_its_own(original: Path, own: Path, tmp_path: Path) -> None:
    """It is the one that would have taken the old one's place, and the old one stays as it is."""
    before, out = objects(original), tmp_path / "beside" / "c.zarr"
    extended(own, 12)
    for _ in range(2):
        extended(original, 12, out=str(out))
        assert objects(out) == objects(own)
    assert objects(original) == before
    with pytest.raises(ConfigError, match="holds another cache already"):
        extended(original, 13, out=str(out))
    with pytest.raises(ConfigError, match="with --out"):
        extended("s3://bucket/c.zarr", 12)
