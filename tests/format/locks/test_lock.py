from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.format.locks.lock import claimed, clear, lock_path
from tests.cache_builder.command import ROOT
from tests.object_store import BUCKET, objects, s3_server

HOLD = """
import os, sys, time
from cache_builder.format.locks.lock import claimed
with claimed(sys.argv[1]):
    if sys.argv[2] == "fork" and os.fork() == 0:
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(out: Path | str, how: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock, and has forked a worker if ``how`` says so."""
    words = [sys.executable, "-c", HOLD, str(out), how]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_second_builder_is_told_who_the_first_is(tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    with (
        held_elsewhere(out) as holder,
        pytest.raises(ConfigError, match=rf"a\.zarr is being built by process {holder.pid} on "),
        claimed(str(out)),
    ):
        pass


def test_other_outputs_are_free(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "a.zarr"), claimed(str(tmp_path / "b.zarr")):
        assert {path.name for path in tmp_path.iterdir()} == {".a.zarr-lock", ".b.zarr-lock"}


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_the_lock_ends_with_a_holder_that_is_killed(tmp_path: Path, how: str) -> None:
    """Also while a worker that it forked lives on."""
    out = tmp_path / "a.zarr"
    with held_elsewhere(out, how) as holder:
        holder.kill()
        holder.wait()
        with claimed(str(out)):
            assert lock_path(out).read_text().startswith(f"process {os.getpid()} on ")


def test_nothing_is_left_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(str(tmp_path / "deep" / "a.zarr")):
            assert [path.name for path in (tmp_path / "deep").iterdir()] == [".a.zarr-lock"]
        assert list((tmp_path / "deep").iterdir()) == []


def test_an_object_store_has_no_lock_on_this_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with claimed("memory://bucket/a.zarr"):
        assert list(tmp_path.iterdir()) == []


def test_a_link_and_what_it_leads_to_are_one_output(tmp_path: Path) -> None:
    (tmp_path / "real.zarr").mkdir()
    (tmp_path / "link.zarr").symlink_to("real.zarr")
    with (
        held_elsewhere(tmp_path / "real.zarr"),
        pytest.raises(ConfigError, match=r"link\.zarr is being built by"),
        claimed(str(tmp_path / "link.zarr")),
    ):
        pass


@pytest.mark.parametrize("how", ["removed", "another disk"])
def test_a_folder_that_went_away_is_told_and_not_made_again(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "mounted"
    with claimed(folder / "a.zarr") as hold:
        hold.check()
        folder.rename(tmp_path / "elsewhere")
        if how == "another disk":
            folder.mkdir()
        with pytest.raises(KDCacheError, match="mounted removed, renamed or unmounted"):
            hold.check()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"] + ["mounted"] * folder.exists()


@pytest.mark.parametrize("where", ["disk", "object store"])
def test_what_a_dead_holder_left_is_cleared_and_what_a_living_one_has_stays(
    tmp_path: Path, where: str
) -> None:
    """As when a build was killed after it had sealed its cache: nobody takes the lock for that any more."""
    with s3_server() if where != "disk" else nullcontext():
        out: str | Path = f"s3://{BUCKET}/a.zarr" if where != "disk" else tmp_path / "a.zarr"

        def is_there() -> bool:
            return lock_path(Path(out)).exists() if where == "disk" else bool(objects("a.zarr"))

        with held_elsewhere(out) as process:
            clear(out)
            assert is_there()
            process.kill()
            process.wait()
            assert is_there()
            clear(out)
        assert not is_there()
