"""The stand-alone client against real servers on loopback, and against what is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache_builder.client import Client, ServerError
from cache_builder.format import ConfigError, DataError, open_cache
from logit_server.run import serving
from logit_server.settings import Settings
from tests.cache_builder.client.test_remote_cache import canned
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format.test_golden import GOLDEN

ROOT = Path(__file__).parents[3]
VIEWS, ROWS, CLASSES = 3, 100, 40


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caches") / "a.zarr"
    write_synthetic_cache(path, synthetic_logits(VIEWS, ROWS, CLASSES), sketch=True)
    return path


@pytest.fixture(scope="module")
def base(store: Path) -> Iterator[str]:
    """A server of two caches, with a token."""
    ragged = GOLDEN / "v3/ragged.zarr"
    settings = Settings(caches=(f"a={store}", f"ragged={ragged}"), port=0, token="secret")
    with serving(settings) as url:
        yield url


@pytest.fixture
def client(base: str) -> Iterator[Client]:
    with Client(base, token="secret") as opened:
        yield opened


def test_the_caches_of_a_server_are_listed(client: Client, store: Path) -> None:
    entries = client.caches()
    assert [entry.name for entry in entries] == ["a", "ragged"]
    assert entries[0].cache_id == open_cache(store).manifest.cache_id
    assert (entries[0].samples, entries[0].views, entries[0].classes) == (ROWS, VIEWS, CLASSES)


def test_the_manifest_is_that_of_the_store(client: Client, store: Path) -> None:
    assert client.manifest("a").cache_id == open_cache(store).manifest.cache_id


def test_records_are_decoded_as_the_local_reader_decodes_them(client: Client, store: Path) -> None:
    local, rows = open_cache(store), [7, 99, 0, 7]
    answer = client.records(rows, views=[2, 0], cache="a")
    assert answer["logits"].shape == (2, 4, CLASSES)
    assert answer["logits"].dtype == np.float32
    for place, view in enumerate([2, 0]):
        np.testing.assert_array_equal(answer["logits"][place], local.decode(local.read_page(view)[rows]))
    np.testing.assert_array_equal(answer["counts"], [1, 1, 1, 1])


@pytest.mark.parametrize("name", ["a", "ragged"])
def test_ids_and_rows_give_the_same_bytes(name: str, client: Client) -> None:
    ids = [client.sample(sample_id, cache=name) for sample_id in _ids(client, name)[:3]]
    assert ids
    known = _ids(client, name)[:3]
    by_row = client.records([2, 0, 1], cache=name, raw=True)
    by_id = client.records(ids=[known[2], known[0], known[1]], cache=name, raw=True)
    np.testing.assert_array_equal(by_row["records"], by_id["records"])
    np.testing.assert_array_equal(by_row["counts"], by_id["counts"])
    assert by_row["records"].dtype == np.uint8
    assert by_row["counts"].sum() == by_row["records"].shape[1]


def _ids(client: Client, name: str) -> list[str]:
    from cache_builder.format.ids import SampleIds

    cache = client.cache(name)
    return list(SampleIds(cache.array("samples/id_bytes"), cache.array("samples/id_offsets")))


def test_nothing_asked_is_nothing_answered(client: Client) -> None:
    assert client.records([], cache="a")["logits"].shape == (1, 0, CLASSES)
    assert client.records(ids=[], cache="a", raw=True)["records"].shape[:2] == (1, 0)


def test_a_sample_is_told_in_words(client: Client, store: Path) -> None:
    sample_id = open_cache(store).ids[5]
    told = client.sample(sample_id, view=1, top=2, cache="a")
    assert (told["row"], told["sample_id"], told["view"], len(told["top"])) == (5, sample_id, 1, 2)


def test_what_a_cache_does_not_have_is_refused_by_name(client: Client) -> None:
    with pytest.raises(DataError, match="0 to 99, got 0 to 100"):
        client.records([0, 100], cache="a")
    with pytest.raises(DataError, match="views 0 to 2"):
        client.records([0], views=[3], cache="a")
    with pytest.raises(ServerError, match=r"HTTP 404 1 sample id\(s\) are not in the cache: 'nope'"):
        client.records(ids=["nope"], cache="a")
    with pytest.raises(ServerError, match=r"HTTP 404 .*no cache 'nope'"):
        client.manifest("nope")
    for wrong in ({}, {"rows": [0], "ids": ["a"]}, {"rows": [0], "views": []}):
        with pytest.raises(ConfigError, match="give"):
            client.records(**wrong, cache="a")  # type: ignore[arg-type]


def test_of_several_caches_one_is_named(client: Client, base: str) -> None:
    with pytest.raises(ConfigError, match=r"serves 2 caches \(a, ragged\)"):
        client.manifest()
    with Client(f"{base}/v1/caches/a", token="secret") as one:
        assert one.manifest().name == client.manifest("a").name
        assert one.records([3])["logits"].shape == (1, 1, CLASSES)


def test_the_token_of_the_environment_is_sent(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDCACHE_TOKEN", raising=False)
    with Client(base) as nobody, pytest.raises(ServerError, match=r"HTTP 401 .*set KDCACHE_TOKEN"):
        nobody.caches()
    monkeypatch.setenv("KDCACHE_TOKEN", "secret")
    with Client(base) as somebody:
        assert somebody.caches()


def test_readiness_is_one_look(client: Client) -> None:
    assert client.ready() == (True, "")
    with Client("http://127.0.0.1:9") as away:
        is_ready, reason = away.ready()
    assert not is_ready
    assert "127.0.0.1:9" in reason


@pytest.mark.parametrize("url", ["host:8000", "ftp://host", "http://", "http://h/v1/caches/a/ids", "/tmp/a"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="it should look like http://host:8000"):
        Client(url)


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (200, {}, b"<html>hello</html>", "no list of caches of a kdcache server"),
        (403, {"Server": "squid/6"}, b"<html>", r"no answer of a kdcache server \(.*squid/6 answered\)"),
        (502, {"Via": "1.1 gate"}, b"", r"no answer of a kdcache server \(1.1 gate answered\)"),
        (302, {"Location": "http://login"}, b"", "HTTP 302 .*no answer of a kdcache server"),
    ],
)
def test_an_answer_of_another_program_is_named_as_such(
    status: int, headers: dict[str, str], body: bytes, said: str
) -> None:
    with canned(lambda *_: (status, headers, body)) as url:
        base = url.partition("/v1/")[0]
        with Client(base, patience_s=0) as client, pytest.raises(ServerError, match=said):
            client.caches()


def test_errors_of_earlier_releases_are_read_too() -> None:
    body = b'{"error": "RequestError", "detail": "view 9 is out of range"}'
    with (
        canned(lambda *_: (422, {}, body)) as url,
        Client(url) as client,
        pytest.raises(ServerError, match=r"HTTP 422 view 9 is out of range$"),
    ):
        client.manifest()


def test_it_stands_alone() -> None:
    """What a program with nothing but this client loads: no torch, no Zarr, none of our other rooms."""
    probe = (
        "import sys; from kdcache.client import Client; import kdcache; assert kdcache.Client is Client; "
        "heavy = {'torch', 'torchvision', 'zarr', 'fastapi', 'uvicorn', 'fsspec', 'trainer'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_it_stands_alone_when_it_decodes(base: str) -> None:
    probe = (
        "import sys; from kdcache.client import Client\n"
        f"with Client({base!r}, token='secret') as client:\n"
        "    assert client.records([0, 1], cache='a')['logits'].shape == (1, 2, 40)\n"
        "print(sorted({'torch', 'zarr', 'fsspec'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
