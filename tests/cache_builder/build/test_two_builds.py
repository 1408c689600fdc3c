"""Two builds of one output: the lock, seen from the command line."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.cache_builder.command import arguments, run, start, wait_for


def test_two_builds_of_one_output(tmp_path: Path, photos: Path) -> None:
    """The second is refused while the first works, and has nothing to do once it is done."""
    command = arguments(tmp_path / "a.zarr", photos, workers=0)
    with start(*command) as first:
        wait_for(first, lambda _: len(list((tmp_path / "a.zarr").glob("commits/g*"))) > 0)
        first.send_signal(signal.SIGSTOP)  # it would be done before the second one has imported torch
        second = run(*command)
        first.send_signal(signal.SIGCONT)
        assert second.returncode == 2
        assert f"is being built by process {first.pid}" in second.stderr
        assert first.wait(timeout=120) == 0
    again = run(*command)
    assert again.returncode == 0, again.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
