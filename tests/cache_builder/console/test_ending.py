from __future__ import annotations

import errno
import signal
import threading

import pytest
import typer

from cache_builder.console.ending import describe_os_error, reported
from cache_builder.format.errors import ConfigError, CorruptCacheError, KDCacheError


def ended(error: BaseException) -> int:
    with pytest.raises(typer.Exit) as caught, reported():
        raise error
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("--x is wrong"), 2, "error: --x is wrong"),
        (CorruptCacheError("shard 3"), 1, "error: shard 3"),
        (KDCacheError("anything"), 1, "error: anything"),
        (KeyboardInterrupt(), 130, "error: interrupted; what was committed is kept"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, "error: the disk is full (/x)"),
    ],
)
def test_exit_codes_and_a_sentence(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(error) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(said)
    assert "Traceback" not in output.err


def test_sigterm_ends_with_143(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as caught, reported():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 143
    assert "the same command continues" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), reported():
        raise ZeroDivisionError


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with reported():
        pass
    assert capsys.readouterr() == ("", "")


def test_in_another_thread_signals_are_left_alone() -> None:
    codes: list[int] = []

    def run() -> None:
        try:
            with reported():
                raise ConfigError("x")
        except typer.Exit as error:
            codes.append(error.exit_code)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert codes == [2]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/d/x"),
            "the disk is full (/d/x): free space and run",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full: free space"),
        (PermissionError(errno.EACCES, "Permission denied", "/d/x"), "Permission denied (/d/x)"),
        (OSError("odd"), "odd"),
    ],
)
def test_os_errors(error: OSError, said: str) -> None:
    assert describe_os_error(error).startswith(said)
