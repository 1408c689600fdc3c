"""Servers in processes of their own, started the way users start them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "logit_server"]


@dataclass(frozen=True)
class Started:
    """A running server."""

    url: str
    process: subprocess.Popen[str]


def environment(caches: str, **settings: object) -> dict[str, str]:
    """The environment of a server with these settings and no others."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("KDCACHE_")}
    given = {f"KDCACHE_{key.upper()}": str(value) for key, value in settings.items()}
    named = {"KDCACHE_CACHES": caches} if caches else {}
    return inherited | named | {"KDCACHE_PORT": "0", "PYTHONPATH": str(ROOT)} | given


@contextlib.contextmanager
def started(caches: Path | str, **settings: object) -> Iterator[Started]:
    """``python -m logit_server``, killed at the end if it still runs."""
    process = subprocess.Popen(
        COMMAND,
        env=environment(str(caches), **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield Started(process.stdout.readline().partition("/v1/")[0], process)
        finally:
            process.kill()


def refused(caches: Path | str, **settings: object) -> subprocess.CompletedProcess[str]:
    """A server that is expected to end by itself."""
    return subprocess.run(
        COMMAND,
        env=environment(str(caches), **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
