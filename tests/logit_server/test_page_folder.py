import contextlib
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import StorageError
from logit_server.page_folder import PageFolder, joined_run, run_folder, sweep
from logit_server.served_caches import ServedCache, open_catalog
from logit_server.settings import Settings
from tests.logit_server.processes import ROOT

PLENTY = 2**30


@pytest.fixture
def served(cache_path: Path) -> ServedCache:
    (opened,) = open_catalog(Settings(caches=(str(cache_path),)))
    return opened


@pytest.fixture
def own_served(own_cache: Path) -> ServedCache:
    (opened,) = open_catalog(Settings(caches=(str(own_cache),)))
    return opened


def names(folder: Path, suffix: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"*{suffix}"))


@contextlib.contextmanager
def without(path: Path) -> Iterator[None]:
    """The folder is elsewhere inside the block: whoever reads it fails."""
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(path)


def test_a_page_is_read_once_and_then_mapped(
    own_served: ServedCache, own_cache: Path, tmp_path: Path
) -> None:
    folder = PageFolder(tmp_path / "pages", PLENTY)
    first = folder.open(own_served, 1)
    np.testing.assert_array_equal(first.records, own_served.cache.read_page(1))
    with without(own_cache):
        again = PageFolder(tmp_path / "pages", PLENTY).open(own_served, 1)
    np.testing.assert_array_equal(again.records, first.records)
    assert again.inode == first.inode


def test_a_page_cannot_be_written_to(served: ServedCache, tmp_path: Path) -> None:
    page = PageFolder(tmp_path / "pages", PLENTY).open(served, 0)
    assert not page.records.flags.writeable


def test_many_threads_load_a_page_once(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "pages", PLENTY)
    inodes: list[int] = []
    threads = [threading.Thread(target=lambda: inodes.append(folder.open(served, 0).inode)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inodes) == 8
    assert len(set(inodes)) == 1


def _open_page(cache: str, folder: str, budget: int, view: int) -> tuple[int, bytes]:
    (served,) = open_catalog(Settings(caches=(cache,)))
    page = PageFolder(Path(folder), budget).open(served, view)
    return page.inode, page.records.tobytes()


def test_many_processes_load_a_page_once(cache_path: Path, served: ServedCache, tmp_path: Path) -> None:
    arguments = (str(cache_path), str(tmp_path / "pages"), PLENTY, 2)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        opened = pool.starmap(_open_page, [arguments] * 3)
    assert len({inode for inode, _ in opened}) == 1
    assert {data for _, data in opened} == {served.cache.read_page(2).tobytes()}


def test_a_failed_load_leaves_nothing_and_the_next_one_succeeds(
    own_served: ServedCache, own_cache: Path, tmp_path: Path
) -> None:
    folder = PageFolder(tmp_path / "pages", PLENTY)
    with without(own_cache), pytest.raises(Exception, match="synthetic"):
        folder.open(own_served, 0)
    assert names(folder.folder, ".page") == names(folder.folder, ".partial") == []
    folder.open(own_served, 0)


def test_the_page_unused_for_longest_makes_room(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "pages", 2 * served.page_bytes)
    pages = {view: folder.open(served, view) for view in (0, 1)}
    # View 0 was loaded first, but is in use.
    os.utime(folder.path(served.cache_id, 1), (1, 1))
    folder.touch({folder.path(served.cache_id, 0)}, {})
    pages[2] = folder.open(served, 2)
    assert names(folder.folder, ".page") == [folder.path(served.cache_id, view).name for view in (0, 2)]
    # Whoever has the evicted page mapped can still read it.
    np.testing.assert_array_equal(pages[1].records, served.cache.read_page(1))


def test_the_budget_holds_when_processes_load_at_once(
    cache_path: Path, served: ServedCache, tmp_path: Path
) -> None:
    budget = served.page_bytes
    arguments = [(str(cache_path), str(tmp_path / "pages"), budget, view) for view in (0, 1, 2, 0, 1, 2)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        opened = pool.starmap(_open_page, arguments)
    for (_, _, _, view), (_, data) in zip(arguments, opened, strict=True):
        assert data == served.cache.read_page(view).tobytes()
    assert len(names(tmp_path / "pages", ".page")) == 1


def test_evicted_pages_are_found_out(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "pages", PLENTY)
    mapped = {folder.path(served.cache_id, view): folder.open(served, view) for view in (0, 1, 2)}
    gone, renewed, _ = mapped
    gone.unlink()
    renewed.unlink()
    folder.open(served, 1)
    assert folder.touch(set(mapped), mapped) == {gone, renewed}


def test_what_a_killed_writer_left_behind_is_removed(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "pages", PLENTY)
    folder.folder.mkdir()
    (folder.folder / "x.partial").write_bytes(bytes(100))
    folder.open(served, 0)
    assert names(folder.folder, ".partial") == []


def test_a_folder_that_was_tidied_away_is_made_again(served: ServedCache, tmp_path: Path) -> None:
    page = PageFolder(tmp_path / "gone", PLENTY).open(served, 0)
    np.testing.assert_array_equal(page.records, served.cache.read_page(0))


def test_a_page_that_cannot_be_kept_says_where_and_what_to_do(served: ServedCache, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"view 0.*page folder.*another page_dir"):
        PageFolder(tmp_path / "file" / "pages", PLENTY).open(served, 0)


def test_the_folder_of_a_run_is_private_and_removed(tmp_path: Path) -> None:
    with run_folder(tmp_path / "made") as folder:
        assert folder.parent == tmp_path / "made"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "x.page").touch()
    assert list((tmp_path / "made").iterdir()) == []


def test_the_folder_of_a_failed_run_is_removed_too(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_folder(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_page_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="KDCACHE_PAGE_DIR"), run_folder(tmp_path / "file"):
        pass


def test_runs_that_are_alive_are_not_swept(tmp_path: Path) -> None:
    with run_folder(tmp_path) as first, run_folder(tmp_path) as second:
        sweep(tmp_path)
        assert first.exists()
        assert second.exists()


def test_a_run_is_alive_while_one_of_its_processes_is(tmp_path: Path) -> None:
    with run_folder(tmp_path) as folder:
        pass
    folder.mkdir()  # as if the process that made it had been killed
    with joined_run(folder):
        sweep(tmp_path)
        assert folder.exists()
    sweep(tmp_path)
    assert not folder.exists()


def test_what_a_killed_run_left_is_swept_by_the_next(tmp_path: Path) -> None:
    hold = "import sys, time; from pathlib import Path; from logit_server.page_folder import run_folder\n"
    hold += "with run_folder(Path(sys.argv[1])) as f: print(f, flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
    assert left.exists()
    with run_folder(tmp_path):
        assert not left.exists()


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    for name in ("other", "kdcache-pages-without-lock"):
        (tmp_path / name).mkdir()
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
