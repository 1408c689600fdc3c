"""The very commands of each image, run in a folder that stands for its root: no engine is needed."""

from __future__ import annotations

import os
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.caches import synthetic_logits, write_synthetic_cache
from tests.docker.dockerfile import Stage, healthcheck
from tests.docker.images import Image
from tests.docker.test_docker import TORCHLESS, default_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1700)]
MEBIBYTES = 250
"""More than this, and something is in the server's image that it does not need."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Everything as an engine would do it: the wheel, a clean environment, the packages of the registry."""
    return Image(tmp_path_factory.mktemp("server"))


@contextmanager
def running(image: Image, stage: Stage, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The entry point of an image with arguments."""
    command = [*stage.words("ENTRYPOINT"), *words]
    environment = image.environment(stage) | {"KDCACHE_ALLOW_ROOT": "true", "KDCACHE_ALLOW_ANONYMOUS": "true"}
    with subprocess.Popen(command, env=environment, cwd=image.root, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_the_server_is_installed_alone_serves_and_is_healthy(server: Image, tmp_path: Path) -> None:
    stage = server.build("server")
    environment = server.environment(stage)
    packages = Path(server.here("/opt/kdcache"), "lib", Path(sysconfig.get_path("purelib")).parts[-2])
    installed = {path.name.lower() for path in (packages / "site-packages").iterdir()}
    # The trainer's package is part of the wheel; nothing that it needs is there.
    assert not installed & (TORCHLESS - {"trainer"})
    assert "pip" not in installed
    write_synthetic_cache(tmp_path / "served.zarr", synthetic_logits(1, 40, 10))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    served = [str(tmp_path / "served.zarr"), "--port", port, "--host", "127.0.0.1"]
    check = [word.replace(str(default_port()), port) for word in healthcheck(stage)]
    assert subprocess.run(check, env=environment, capture_output=True, check=False).returncode == 1
    with running(server, stage, *served) as process:
        deadline = time.monotonic() + 300
        while subprocess.run(check, env=environment, capture_output=True, check=False).returncode:
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.terminate()
        assert process.wait(120) == 0


def test_the_server_is_small(server: Image) -> None:
    server.build("server")
    folder = Path(server.here("/opt/kdcache"))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < MEBIBYTES * 2**20


@pytest.mark.parametrize("target", ["builder", "trainer"])
def test_the_wheel_of_builder_and_trainer_runs_its_command(tmp_path: Path, target: str) -> None:
    """Torch and its CUDA are gigabytes: they are taken from where the tests run, all else is done."""
    Image(tmp_path).build("wheel")
    image = Image(tmp_path, {"PIP_NO_DEPS": "1"}, done={"wheel"})
    stage = image.build(target)
    words = [*stage.words("ENTRYPOINT"), *stage.words("CMD")]
    packages = {"PYTHONPATH": sysconfig.get_path("purelib")}
    environment = image.environment(stage) | packages | {"COLUMNS": "120", "NO_COLOR": "1"}
    assert Path(environment["HOME"]) == tmp_path / "work"
    shown = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert {"builder": "--teacher", "trainer": "--student"}[target] in shown.stdout
    program = subprocess.run(
        ["bash", "-c", f"command -v {words[0]}"], env=environment, capture_output=True, text=True, check=True
    )
    assert program.stdout.startswith(os.fspath(tmp_path))
