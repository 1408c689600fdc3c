import contextlib
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cache_builder.format import StorageError
from cache_builder.format.codecs import Part
from logit_server.page import PageFile
from logit_server.page_folder import PageFolder, joined_run, run_folder, sweep
from logit_server.served_caches import ServedCache
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from logit_server.storage import read_block
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


def load(folder: PageFolder, served: ServedCache, view: int, block: int = 0) -> NDArray[np.uint8]:
    return folder.load(served, view, folder.open(served, view), block)


def expected(served: ServedCache, view: int, block: int = 0) -> NDArray[np.uint8]:
    return served.cache.read_rows(view, served.blocks.rows(block))


def resident(folder: PageFolder, served: ServedCache) -> list[tuple[int, int]]:
    """(view, block) of everything that is kept."""
    paths = ((view, folder.path(served.cache_id, view)) for view in range(served.views))
    return [(view, block) for view, path in paths if path.exists() for block in PageFile(path).resident()]


def test_a_block_is_read_once_and_then_mapped(
    own_served: ServedCache, own_cache: Path, tmp_path: Path
) -> None:
    folder = PageFolder(tmp_path / "pages", PLENTY)
    first = folder.open(own_served, 1)
    np.testing.assert_array_equal(folder.load(own_served, 1, first, 2), expected(own_served, 1, 2))
    wanted = expected(own_served, 1, 2)
    with without(own_cache):
        again = PageFolder(tmp_path / "pages", PLENTY).open(own_served, 1)
        np.testing.assert_array_equal(again.take_range(own_served.blocks.rows(2)), wanted)
        np.testing.assert_array_equal(load(folder, own_served, 1, 2), wanted)
    assert again.inode == first.inode
    assert resident(folder, own_served) == [(1, 2)], "no other block was read"


def test_a_page_cannot_be_written_to(served: ServedCache, tmp_path: Path) -> None:
    page = PageFolder(tmp_path / "pages", PLENTY).open(served, 0)
    assert not page.records.flags.writeable


def test_many_threads_load_a_block_once(
    served: ServedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def counting(served: ServedCache, view: int, block: int, part: Part) -> NDArray[np.uint8]:
        read.append(block)
        return read_block(served, view, block, part)

    monkeypatch.setattr("logit_server.page_folder.read_block", counting)
    folder = PageFolder(tmp_path / "pages", PLENTY)
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda _: load(folder, served, 0, 1).tobytes(), range(8)))
    assert set(loaded) == {expected(served, 0, 1).tobytes()}
    assert read == [1]


def _load(cache: str, folder: str, budget: int, view: int, block: int) -> bytes:
    (served,) = open_catalog(Settings(caches=(cache,)))
    return load(PageFolder(Path(folder), budget), served, view, block).tobytes()


def test_many_processes_fill_one_page(cache_path: Path, served: ServedCache, tmp_path: Path) -> None:
    arguments = [(str(cache_path), str(tmp_path / "pages"), PLENTY, 2, block % 2) for block in range(6)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        loaded = pool.starmap(_load, arguments)
    assert loaded == [expected(served, 2, block % 2).tobytes() for block in range(6)]
    folder = PageFolder(tmp_path / "pages", PLENTY)
    assert resident(folder, served) == [(2, 0), (2, 1)]


def test_a_failed_load_leaves_nothing_and_the_next_one_succeeds(
    own_served: ServedCache, own_cache: Path, tmp_path: Path
) -> None:
    folder = PageFolder(tmp_path / "pages", PLENTY)
    with without(own_cache), pytest.raises(Exception, match="synthetic"):
        load(folder, own_served, 0)
    assert resident(folder, own_served) == []
    load(folder, own_served, 0)


def test_the_block_unused_for_longest_makes_room(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "pages", 2 * served.block_bytes)
    pages = {view: folder.open(served, view) for view in (0, 1, 2)}
    for view in (0, 1):
        folder.load(served, view, pages[view], 0)
    # View 0 was loaded first, but is in use.
    pages[0].take(np.array([5]))
    pages[0].note_use()
    folder.load(served, 2, pages[2], 0)
    assert resident(folder, served) == [(0, 0), (2, 0)]
    assert pages[1].take(np.array([5])) is None


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86_400, 10 * 365 * 86_400])
def test_a_wall_clock_that_jumps_changes_nothing(
    served: ServedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    folder = PageFolder(tmp_path, 2 * served.block_bytes)
    load(folder, served, 0)
    now_s, now_ns = time.time(), time.time_ns()
    monkeypatch.setattr(time, "time", lambda: now_s + jump_s)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + jump_s * 10**9)
    for view in (1, 2):
        load(folder, served, view)
    assert resident(folder, served) == [(1, 0), (2, 0)]


def test_a_stamp_of_the_future_is_old(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path, 2 * served.block_bytes)
    for view in (0, 1):
        load(folder, served, view)
    PageFile(folder.path(served.cache_id, 1)).used_ns[0] = 2**63
    load(folder, served, 2)
    assert resident(folder, served) == [(0, 0), (2, 0)]


def test_room_is_looked_for_before_a_block_comes(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "pages", PLENTY)
    folder.check_room(served.block_bytes)
    assert list((tmp_path / "pages").iterdir()) == []
    with pytest.raises(StorageError, match=r"its disk has .* bytes left.*page_dir"):
        PageFolder(tmp_path / "pages", 2**63).check_room(2**62)
    # What does not fit into the budget takes the place of other blocks.
    PageFolder(tmp_path / "pages", 1).check_room(2**62)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="nothing can be written there"):
        PageFolder(tmp_path / "file", PLENTY).check_room(1)


def test_a_view_larger_than_the_budget_comes_and_goes_block_by_block(
    served: ServedCache, tmp_path: Path
) -> None:
    folder = PageFolder(tmp_path / "pages", 2 * served.block_bytes)
    for block in (0, 1, 2, 3, 0, 1):
        np.testing.assert_array_equal(load(folder, served, 1, block), expected(served, 1, block))
        kept = [served.blocks.rows(block) for _, block in resident(folder, served)]
        assert sum(map(len, kept)) * served.record_bytes <= 2 * served.block_bytes
    assert resident(folder, served) == [(1, 0), (1, 1)]


def test_where_no_hole_can_be_made_the_budget_holds_too(
    served: ServedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logit_server.page.punch_hole", lambda *_: False)
    folder = PageFolder(tmp_path / "pages", 2 * served.block_bytes)
    for view, block in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0)):
        np.testing.assert_array_equal(load(folder, served, view, block), expected(served, view, block))
        assert len(resident(folder, served)) <= 2


def test_the_budget_holds_when_processes_load_at_once(
    cache_path: Path, served: ServedCache, tmp_path: Path
) -> None:
    budget = served.block_bytes
    asked = [(view, block) for block in (0, 2) for view in (0, 1, 2)]
    arguments = [(str(cache_path), str(tmp_path / "pages"), budget, *pair) for pair in asked]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        loaded = pool.starmap(_load, arguments)
    assert loaded == [expected(served, *pair).tobytes() for pair in asked]
    assert len(resident(PageFolder(tmp_path / "pages", budget), served)) == 1


def test_a_count_that_a_killed_worker_left_too_high_is_put_right(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "pages", 2 * served.block_bytes)
    load(folder, served, 0, 0)
    (folder.folder / "budget.lock").write_bytes((2**40).to_bytes(8, sys.byteorder))
    load(folder, served, 0, 1)
    assert resident(folder, served) == [(0, 0), (0, 1)], "nothing had to go"


def test_a_page_that_is_gone_is_found_out(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "pages", PLENTY)
    gone, renewed, kept = (folder.open(served, view) for view in (0, 1, 2))
    gone.path.unlink()
    renewed.path.unlink()
    folder.open(served, 1)
    assert [page.is_current() for page in (gone, renewed, kept)] == [False, False, True]
    # What has it mapped goes on with it.
    np.testing.assert_array_equal(folder.load(served, 1, renewed, 0), expected(served, 1))
    assert renewed.take(np.array([3])) is not None


@pytest.mark.parametrize("left_bytes", [0, 5, 2**14 - 1, 2**14 + 1])
def test_a_page_that_was_cut_off_is_made_anew(left_bytes: int, served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "pages", 2 * served.block_bytes)
    cut = folder.open(served, 0)
    os.truncate(cut.path, left_bytes)
    assert not cut.is_current()
    whole = folder.open(served, 0)
    np.testing.assert_array_equal(folder.load(served, 0, whole, 0), expected(served, 0))
    os.truncate(folder.open(served, 1).path, left_bytes)
    for block in (1, 2):  # room has to be made, among files that cannot be mapped
        np.testing.assert_array_equal(folder.load(served, 0, whole, block), expected(served, 0, block))


def test_room_is_not_made_in_a_page_that_was_cut_off_behind_its_index(
    served: ServedCache, tmp_path: Path
) -> None:
    folder = PageFolder(tmp_path / "pages", 2 * served.block_bytes)
    load(folder, served, 1)
    cut = folder.open(served, 1)
    os.truncate(cut.path, cut.path.stat().st_size - 1)
    for block in range(3):
        np.testing.assert_array_equal(load(folder, served, 0, block), expected(served, 0, block))
    assert not cut.path.exists()


def test_what_a_killed_worker_left_behind_is_removed(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "pages", served.block_bytes)
    load(folder, served, 0)
    (folder.folder / "x.partial").write_bytes(bytes(100))
    load(folder, served, 1)
    assert names(folder.folder, ".partial") == []


def test_a_folder_whose_name_somebody_took_when_it_was_tidied_away_is_not_used(
    served: ServedCache, tmp_path: Path
) -> None:
    folder = PageFolder(tmp_path / "pages", PLENTY)
    page = folder.open(served, 0)
    shutil.rmtree(folder.folder)
    folder.folder.mkdir()
    folder.folder.chmod(0o777)
    for use in (
        lambda: folder.open(served, 0), lambda: folder.load(served, 0, page, 0), lambda: folder.check_room(1)
    ):  # fmt: skip
        with pytest.raises(StorageError, match="others could change"):
            use()
    assert list(folder.folder.iterdir()) == []


def test_a_folder_that_was_tidied_away_is_made_again(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path / "gone", PLENTY)
    page = folder.open(served, 0)
    shutil.rmtree(folder.folder)
    np.testing.assert_array_equal(folder.load(served, 0, page, 1), expected(served, 0, 1))
    assert not page.is_current()


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
    folder.mkdir(mode=0o700)  # as if the process that made it had been killed
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


def test_a_check_of_the_folder_is_not_disturbed_by_who_makes_room(tmp_path: Path) -> None:
    folder, is_over = PageFolder(tmp_path, PLENTY), threading.Event()

    def make_room() -> None:
        while not is_over.is_set():
            for left_behind in tmp_path.glob("*.partial"):
                left_behind.unlink(missing_ok=True)

    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(make_room)
        try:
            for _ in range(2000):
                folder.check_room(1)
        finally:
            is_over.set()
        making.result()


def test_a_page_that_nobody_needs_gives_its_bytes_back(served: ServedCache, tmp_path: Path) -> None:
    folder = PageFolder(tmp_path, PLENTY)
    kept = load(folder, served, 0)
    load(folder, served, 1)
    page = folder.open(served, 1)
    held = page.records[: len(expected(served, 1))].copy()
    folder.remove(page)
    folder.remove(page)
    assert folder.used_bytes() == kept.nbytes
    assert [path for path in tmp_path.iterdir() if path.name.startswith(page.path.stem)] == []
    np.testing.assert_array_equal(held, expected(served, 1))
    np.testing.assert_array_equal(load(folder, served, 1), expected(served, 1))
