"""Page files: what was taken was there all along, or nothing is given."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cache_builder.format.layout import Blocks
from logit_server import page as pages
from logit_server.page import Page, PageFile, create, punch_hole

BLOCKS = Blocks(samples=10_000, height=3_000)
RECORD_BYTES = 77
RECORDS = np.random.default_rng(0).integers(1, 256, (10_000, RECORD_BYTES), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / "x.page", BLOCKS, RECORD_BYTES)
    return tmp_path / "x.page"


def records_of(block: int) -> NDArray[np.uint8]:
    rows = BLOCKS.rows(block)
    return RECORDS[rows.start : rows.stop]


def filled(path: Path, *blocks: int) -> Page:
    page = Page(path)
    for block in blocks:
        page.put(block, records_of(block))
    return page


def test_rows_of_blocks_that_are_there_are_taken_and_no_others(path: Path) -> None:
    page = filled(path, 1, 3)
    rows = np.array([9_999, 3_000, 5_999, 3_000], np.uint32)
    np.testing.assert_array_equal(page.take(rows), RECORDS[rows])
    assert page.take(np.array([3_000, 2_999], np.uint32)) is None
    np.testing.assert_array_equal(page.take_range(range(3_500, 6_000)), RECORDS[3_500:6_000])
    assert page.take_range(range(5_999, 6_001)) is None
    assert page.take_range(range(4, 4)) is not None


@pytest.mark.parametrize("row", [10_000, 11_999, 12_000, 2**32 - 1])
@pytest.mark.parametrize("there", [(3,), (0, 1, 2, 3)], ids=["some", "all"])
def test_rows_beyond_the_view_are_refused(path: Path, row: int, there: tuple[int, ...]) -> None:
    page = filled(path, *there)
    page.take(np.array([9_999], np.uint32))
    with pytest.raises(IndexError):
        page.take(np.array([9_999, row], np.uint32))


def test_another_process_sees_what_is_there_and_what_is_gone(path: Path) -> None:
    ours, theirs = filled(path), Page(path)
    rows = np.arange(10_000, dtype=np.uint32)
    for block in range(4):
        assert theirs.take(rows) is None
        ours.put(block, records_of(block))
    np.testing.assert_array_equal(theirs.take(rows), RECORDS)
    PageFile(path).evict(2)
    assert ours.take(rows) is theirs.take(rows) is None
    np.testing.assert_array_equal(theirs.take(rows[:6_000]), RECORDS[:6_000])
    ours.put(2, records_of(2))
    np.testing.assert_array_equal(theirs.take(rows), RECORDS)


def test_a_block_that_goes_while_rows_are_taken_gives_none_of_them(path: Path) -> None:
    """The records' own `take` evicts: the moment between the look at the marks and the copy."""

    class Evicting:
        def __init__(self, page: Page) -> None:
            self.page, self.records = page, page.records

        def take(self, rows: NDArray[np.uint32], axis: int) -> NDArray[np.uint8]:
            PageFile(path).evict(1)
            return self.records.take(rows, axis)

    for blocks in ((1,), (0, 1, 2, 3)):  # some, and the whole view
        page = filled(path, *blocks)
        rows = np.array([3_000, 4_000], np.uint32)
        assert page.take(rows) is not None
        page.records = Evicting(page)  # type: ignore[assignment]
        assert page.take(rows) is None


def test_an_evicted_block_gives_its_memory_back_and_touches_no_other(path: Path) -> None:
    page = filled(path, 0, 1, 2, 3)
    os.sync()
    before = path.stat().st_blocks * 512
    assert page.evict(1) == 3_000 * RECORD_BYTES
    assert path.stat().st_blocks * 512 <= before - 3_000 * RECORD_BYTES + 2 * 4096
    assert page.evict(1) == 0, "it is gone already"
    assert page.resident() == [0, 2, 3]
    for block in page.resident():
        np.testing.assert_array_equal(page.take_range(page.blocks.rows(block)), records_of(block))


def test_where_no_hole_can_be_made_the_whole_file_goes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = filled(path, 0, 2)
    monkeypatch.setattr(pages, "punch_hole", lambda *_: False)
    assert page.evict(0) == 6_000 * RECORD_BYTES
    assert page.take(np.array([6_000])) is None
    assert not path.exists()
    assert not page.is_current()


def test_a_hole_reads_as_zeros_and_a_closed_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 20_000)
    with (tmp_path / "f").open("r+b") as file:
        assert punch_hole(file.fileno(), 5, 10_000)
        descriptor = file.fileno()
    assert (tmp_path / "f").read_bytes() == b"x" * 5 + bytes(10_000) + b"x" * 9_995
    assert not punch_hole(descriptor, 0, 1)


def test_a_full_disk_is_an_error_and_the_block_is_not_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = filled(path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="space"):
        page.put(0, records_of(0))
    assert page.resident() == []


def test_use_is_noted_by_block_and_of_a_whole_view_for_all(path: Path) -> None:
    page = filled(path, 0, 1)
    page.used_ns[:] = 1
    page.take(np.array([3_000]))
    page.note_use()
    assert (page.used_ns > 1).tolist() == [False, True, False, False]
    page = filled(path, 2, 3)
    page.take(np.array([0]))
    page.used_ns[:] = 1
    page.take(np.array([0]))  # the view is whole: nobody looks at its blocks
    page.note_use()
    assert (page.used_ns > 1).all()
