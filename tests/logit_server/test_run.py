import resource
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest

from cache_builder.format import Cache, ConfigError
from cache_builder.format.wire import ROWS
from logit_server.run import bound, serving
from logit_server.settings import Settings
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format.damage import changed, flipped
from tests.logit_server.processes import Started, refused, started
from tests.logit_server.raw_client import connect

RAW = {"Content-Type": ROWS}
WHOLE = "/v1/caches/synthetic/views/0/records"


def get(url: str) -> httpx2.Response:
    """GET, with the patience that a process on a busy machine needs to start."""
    return httpx2.get(url, timeout=120)


def raw(rows: list[int]) -> bytes:
    return np.array(rows, "<u4").tobytes()


def test_the_urls_are_printed_and_answer(cache_path: Path, odd_path: Path, tmp_path: Path) -> None:
    caches = f"{cache_path},other={odd_path}"
    with started(caches, page_dir=tmp_path, log_level="warning") as server:
        assert server.process.stdout is not None
        assert f"{server.url}/v1/caches/other" in server.process.stdout.readline()
        names = [cache["name"] for cache in get(f"{server.url}/v1/caches").json()["caches"]]
        assert names == ["synthetic", "other"]
        assert get(server.url + WHOLE).status_code == 200
        server.process.terminate()
        assert server.process.wait(120) == 0
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_a_server_cleanly(cache_path: Path, tmp_path: Path) -> None:
    with started(cache_path, page_dir=tmp_path) as server:
        # Before it listens to signals itself, one that a shell had it ignore is lost.
        assert get(f"{server.url}/healthz").status_code == 200
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(120) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_access_log_is_there_when_asked_for(cache_path: Path) -> None:
    with started(cache_path, access_log=True) as server:
        get(f"{server.url}/healthz")
        server.process.terminate()
        stdout, stderr = server.process.communicate(timeout=120)
    assert "GET /healthz" in stdout + stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_running_answer_is_finished_after_sigterm(workers: int, large_path: Path, tmp_path: Path) -> None:
    with started(large_path, workers=workers, page_dir=tmp_path) as server:
        with (
            httpx2.Client(base_url=server.url, timeout=60) as client,
            client.stream("GET", WHOLE) as response,
        ):
            chunks = response.iter_raw(1000)
            received = len(next(chunks))
            server.process.terminate()
            _wait_until_refused(server)
            received += sum(len(chunk) for chunk in chunks)
            assert received == int(response.headers["content-length"])
        assert server.process.wait(120) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_does_not_read_leaves_no_traceback_at_the_end_of_the_drain(
    large_path: Path, tmp_path: Path
) -> None:
    with started(large_path, drain_s=1, page_dir=tmp_path, log_level="warning") as server:
        head = f"GET {WHOLE} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with connect(server.url, head.encode(), receive_buffer=4096) as client:
            assert client.receive(10)
            server.process.terminate()
            _, stderr = server.process.communicate(timeout=120)
        assert server.process.returncode == 0
        assert "Traceback" not in stderr
        assert len(stderr.splitlines()) <= 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("goes", [True, False], ids=["goes away", "is closed"])
def test_a_client_that_does_not_read_is_no_error_of_the_server(large_path: Path, goes: bool) -> None:
    with started(large_path, read_s=0.3, log_level="warning") as server:
        head = f"GET {WHOLE} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for _ in range(5):
            with connect(server.url, head.encode() * 4, receive_buffer=4096) as client:
                assert client.receive(10)
                time.sleep(0.2 if goes else 1.5)
        assert get(f"{server.url}/healthz").status_code == 200
        server.process.terminate()
        _, stderr = server.process.communicate(timeout=120)
    assert stderr == ""


def _wait_until_refused(server: Started) -> None:
    """Until the server takes no further connection: it has noticed the signal."""
    port = int(server.url.rpartition(":")[2])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError("the server still takes connections")


@pytest.fixture(scope="module")
def two_workers(cache_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Started, Path]]:
    """A server of two processes and the folder of its pages."""
    folder = tmp_path_factory.mktemp("pages")
    with started(cache_path, workers=2, page_dir=folder) as server:
        yield server, folder
        server.process.terminate()
        assert server.process.wait(120) == 0
    assert list(folder.iterdir()) == []


def test_two_workers_answer_alike_and_share_their_pages(
    two_workers: tuple[Started, Path], cache: Cache
) -> None:
    server, folder = two_workers
    pages = [cache.read_page(view) for view in range(3)]

    def ask(number: int) -> str:
        view, row = number % 3, number % 100
        # A connection of its own each time: the kernel picks the worker.
        response = httpx2.post(
            f"{server.url}/v1/caches/synthetic/records?view={view}",
            content=raw([row]),
            headers=RAW,
            timeout=120,
        )
        assert response.content == pages[view][row].tobytes()
        return response.headers["x-request-id"].partition("-")[0]

    answered_by: set[str] = set()
    deadline = time.monotonic() + 120
    with ThreadPoolExecutor(8) as pool:
        # The kernel picks the worker, and one may still be starting.
        while len(answered_by) < 2 and time.monotonic() < deadline:
            answered_by |= set(pool.map(ask, range(60)))
    assert len(answered_by) == 2
    assert sorted(page.name for page in folder.rglob("*.page")) == [
        f"{cache.manifest.cache_id}-{view:05d}-whole.page" for view in range(3)
    ]


def test_workers_do_not_outlive_a_killed_server(cache_path: Path, tmp_path: Path) -> None:
    with started(cache_path, workers=2, page_dir=tmp_path) as server:
        assert get(f"{server.url}/healthz").status_code == 200
        server.process.kill()
        server.process.wait(120)
        _wait_until_refused(server)
    # What the killed server left is removed by the next one.
    assert len(list(tmp_path.iterdir())) == 1
    with started(cache_path, page_dir=tmp_path) as server:
        assert len(list(tmp_path.iterdir())) == 1
        server.process.terminate()
        assert server.process.wait(120) == 0
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_cache_is_refused_at_start(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "half.zarr", synthetic_logits(2, 64, 10), commit=1)
    ran = refused(tmp_path / "half.zarr")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "1 of 2 tiles are missing" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_damaged_cache_is_refused_at_start(own_cache: Path) -> None:
    index = own_cache / "commits/index"
    with changed(index, flipped(index.read_bytes(), 321)):
        ran = refused(own_cache)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("caches", ["", "nowhere.zarr"])
def test_without_a_cache_there_is_no_server(caches: str) -> None:
    ran = refused(caches)
    assert ran.returncode in (1, 2)
    assert ran.stderr.startswith("kdcache: ")
    assert "Traceback" not in ran.stderr


def test_settings_that_are_wrong_are_named(cache_path: Path) -> None:
    ran = refused(cache_path, port="http")
    assert ran.returncode == 2
    assert "KDCACHE_PORT" in ran.stderr


def test_a_port_that_is_taken_is_refused_by_name(cache_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = refused(cache_path, port=taken.getsockname()[1])
    assert ran.returncode == 2
    assert "Address already in use" in ran.stderr
    assert "--port" in ran.stderr


def test_a_host_that_does_not_exist_is_refused_by_name() -> None:
    settings = Settings(host="203.0.113.1", port=0, token="secret", allow_root=True)
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1"), bound(settings):
        pass


def test_a_server_listens_on_ipv6_where_it_is_told_to(cache_path: Path) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with serving(Settings(caches=(str(cache_path),), host="::1", port=0)) as base:
        assert base.startswith("http://[::1]:")
        assert get(f"{base}/healthz").status_code == 200


def test_a_wildcard_address_is_printed_as_one_that_answers(cache_path: Path) -> None:
    everywhere = Settings(
        caches=(str(cache_path),), host="0.0.0.0", port=0, allow_anonymous=True, allow_root=True
    )
    with serving(everywhere) as base:
        assert base.startswith("http://127.0.0.1:")
        assert get(f"{base}/healthz").status_code == 200


def test_as_many_files_may_be_open_as_the_system_allows(cache_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        with started(cache_path) as server:
            most = 2**20 if hard == resource.RLIM_INFINITY else min(hard, 2**20)
            assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (most, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_serving_stops_when_its_block_does(cache_path: Path, tmp_path: Path) -> None:
    with serving(Settings(caches=(str(cache_path),), port=0, page_dir=tmp_path)) as base:
        assert get(f"{base}/healthz").status_code == 200
    with pytest.raises(httpx2.ConnectError):
        get(f"{base}/healthz")
    assert list(tmp_path.iterdir()) == []
