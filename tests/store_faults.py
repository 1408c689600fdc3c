"""Each fault of an object store before each command, in process: how the command ends."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import httpx2
import numpy as np
import typer
from PIL import Image
from typer.testing import CliRunner

from cache_builder.cli.app import app
from logit_server.run import serving
from logit_server.settings import Settings
from tests.faulty_proxy import FAULTS, FaultyProxy, faulty_proxy
from tests.object_store import BUCKET, free_port, s3_server
from trainer.cli.app import app as kdtrain

SURROUNDINGS = ("no credentials", "wrong endpoint", "DNS")
"""Faults that lie on this side of the network."""
ALL_FAULTS = (*SURROUNDINGS, *FAULTS)
COMMANDS = ("build", "inspect", "verify", "export", "import", "extend", "merge", "kdtrain", "serve")
HARMLESS = ("no ranges",)
"""Faults in spite of which a command does its work."""

_BUILT = (
    *(
        "--teacher",
        "tests.cache_builder.models:small",
        "--views",
        "1",
        "--input-size",
        "16",
        "--workers",
        "0",
    ),
    *("--batch-size", "16", "--tile-rows", "20", "--tail-rank", "12", "--device", "cpu", "--seed", "5"),
)


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int
    said: str
    """Everything that was printed."""
    traceback: str
    """Of an exception that no command should let through; empty without one."""

    @property
    def last_line(self) -> str:
        """The sentence that says what is wrong."""
        return (self.said.strip() or self.traceback).splitlines()[-1]

    @property
    def is_sentence(self) -> bool:
        """Whether a refusal is one that a user can act on."""
        return not self.traceback and self.code not in (0, 500) and f"s3://{BUCKET}" in self.said

    @property
    def blames_data(self) -> bool:
        """Whether it says that something stored is damaged or missing, or how to repair that."""
        return self.code != 0 and any(
            word in self.said for word in ("damaged", "--repair", "checksum", "is missing")
        )


class Bench:
    """A store behind a faulty proxy, with a finished cache and two parts of one in it."""

    def __init__(self, proxy: FaultyProxy, folder: Path) -> None:
        self.proxy, self.folder = proxy, folder
        self.data = f"imagefolder:{_pictures(folder / 'pictures')}"
        np.save(folder / "logits.npy", np.random.default_rng(1).normal(size=(40, 40)).astype(np.float32))
        self._must("build", "--data", self.data, *_BUILT, "--out", self.url("whole"))
        self._must("build", "--data", self.data, *_BUILT, "--rows", "0:20", "--out", self.url("a"))
        self._must(
            *("build", "--data", self.data, *_BUILT, "--rows", "20:", "--like", self.url("a")),
            *("--out", self.url("b")),
        )

    def url(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}.zarr"

    def end_of(self, command: str, fault: str, *, sound_requests: int = 0) -> Ending:
        """Run a command while the store has a fault, which begins after so many requests."""
        with self._having(fault):
            self.proxy.sound_requests = sound_requests
            return self._run(command)

    def _must(self, *arguments: str) -> None:
        ending = _invoked(app, *arguments)
        assert ending.code == 0, ending.said + ending.traceback

    def _run(self, command: str) -> Ending:
        fresh, whole = uuid.uuid4().hex, self.url("whole")
        local = str(self.folder / fresh)
        runs: dict[str, Callable[[], Ending]] = {
            "build": lambda: _invoked(app, "build", "--data", self.data, *_BUILT, "--out", self.url(fresh)),
            "inspect": lambda: _invoked(app, "inspect", whole),
            "verify": lambda: _invoked(app, "verify", whole),
            "export": lambda: _invoked(app, "export", whole, "--format", "npz", "--out", f"{local}.npz"),
            "import": lambda: _invoked(
                *(app, "import", str(self.folder / "logits.npy"), "--format", "dense", "--data", self.data),
                *("--order", "path", "--recipe", "plain", "--input-size", "16", "--out", self.url(fresh)),
            ),
            "extend": lambda: _invoked(
                *(app, "extend", whole, "--views", "2", "--data", self.data, "--workers", "0"),
                *("--device", "cpu", "--out", self.url(fresh)),
            ),
            "merge": lambda: _invoked(app, "merge", self.url("a"), self.url("b"), "--out", f"{local}.zarr"),
            "kdtrain": lambda: _invoked(
                *(
                    kdtrain,
                    "--cache",
                    whole,
                    "--data",
                    self.data,
                    "--student",
                    "tests.cache_builder.models:small",
                ),
                *("--loss", "kd(temperature=4)*1", "--epochs", "1", "--workers", "0", "--no-tensorboard"),
                *("--batch-size", "16", "--device", "cpu", "--patience-s", "1", "--out", f"{local}.run"),
            ),
            "serve": lambda: _served(whole),
        }
        return runs[command]()

    @contextmanager
    def _having(self, fault: str) -> Iterator[None]:
        changes: dict[str, str] = {"KDCACHE_STORE_PATIENCE_S": "0.5", "KDCACHE_STORE_TIMEOUT_S": "0.5"}
        if fault == "no credentials":
            changes |= {"HOME": str(self.folder), "AWS_EC2_METADATA_DISABLED": "true"}
        elif fault == "wrong endpoint":
            changes["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{free_port()}"
        elif fault == "DNS":
            changes["AWS_ENDPOINT_URL"] = "http://store.invalid"
        with mock.patch.dict(os.environ, changes):
            if fault == "no credentials":
                for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                    os.environ.pop(name, None)
            self.proxy.fault = next((known for known in FAULTS if known == fault), None)
            try:
                yield
            finally:
                self.proxy.fault = None


@contextmanager
def bench() -> Iterator[Bench]:
    """moto's S3 server behind a proxy, with caches in it."""
    with tempfile.TemporaryDirectory() as folder, s3_server():
        port = urlsplit(os.environ["AWS_ENDPOINT_URL"]).port
        assert port is not None
        with (
            faulty_proxy(port) as proxy,
            mock.patch.dict(os.environ, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}),
        ):
            yield Bench(proxy, Path(folder))


def _pictures(root: Path) -> Path:
    for row in range(40):
        path = root / f"class{row:02d}" / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(row).integers(0, 255, (16, 16, 3), np.uint8)).save(path)
    return root


def _invoked(command: typer.Typer, *arguments: str) -> Ending:
    result = CliRunner().invoke(command, list(arguments))
    error = result.exception
    return Ending(
        result.exit_code, result.output, "" if error is None or isinstance(error, SystemExit) else repr(error)
    )


def _served(url: str) -> Ending:
    """A server over the store, and one request for records."""
    try:
        with serving(Settings(caches=(f"c={url}",), port=0)) as base:
            answer = httpx2.post(f"{base}/v1/caches/c/records?view=0", json={"rows": [1]}, timeout=60)
    except Exception as error:  # noqa: BLE001 — whatever it is, the table names it
        return _of_error(error)
    return Ending(
        0 if answer.is_success else answer.status_code,
        f"{answer.status_code} {answer.text[:2000]}",
        "",
    )


def _of_error(error: Any) -> Ending:
    from cache_builder.format.errors import KDCacheError

    if isinstance(error, KDCacheError):
        return Ending(error.exit_code, str(error), "")
    return Ending(1, "", repr(error))
