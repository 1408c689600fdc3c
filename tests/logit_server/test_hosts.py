import http.client
import socket
import urllib.parse
from pathlib import Path

import httpx2
import pytest

from cache_builder.format import ConfigError
from logit_server.errors import HostError
from logit_server.hosts import Hosts
from logit_server.run import serving
from logit_server.settings import Settings


def is_taken(asked: str, /, *, has_tokens: bool = False, **settings: object) -> bool:
    """Whether a request with this header is let in."""
    scope = {"headers": [(b"host", asked.encode())], "http_version": "1.1"}
    try:
        Hosts(Settings.checked(**settings), has_tokens=has_tokens).check(scope)
    except HostError:
        return False
    return True


OWN = ["127.0.0.1", "127.0.0.1:8000", "127.9.9.9", "localhost:1", "LOCALHOST.", "[::1]:80", "a.localhost"]
FOREIGN = [
    "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "x", "", ":80",
    "[::1", "::1", "localhost:80:80", "localhost/", "evil.example#localhost", "a@localhost",
]  # fmt: skip


@pytest.mark.parametrize("host", [*OWN, socket.gethostname()])
def test_this_machine_answers_to_its_own_names(host: str) -> None:
    assert is_taken(host)
    assert is_taken(host, host="0.0.0.0", allow_anonymous=True)


@pytest.mark.parametrize("host", FOREIGN)
def test_a_server_without_tokens_answers_to_no_other_name(host: str) -> None:
    assert not is_taken(host)
    assert not is_taken(host, host="0.0.0.0", allow_anonymous=True)


@pytest.mark.parametrize("host", ["10.0.0.7:8000", "[2001:db8::1]"])
def test_numeric_addresses_are_those_of_a_server_that_others_reach(host: str) -> None:
    assert not is_taken(host)
    assert is_taken(host, host="0.0.0.0", allow_anonymous=True)


def test_the_address_that_is_listened_on_is_taken() -> None:
    assert is_taken("logits.example.org:80", host="Logits.example.org")
    assert not is_taken("logits.example.com", host="logits.example.org")


def test_other_names_are_taken_where_they_are_allowed() -> None:
    allowed = ("Lab.example.org", "*.cluster.local")
    for host in ("lab.example.org:8000", "a.cluster.local", "a.b.cluster.local", "localhost"):
        assert is_taken(host, allowed_hosts=allowed)
    for host in ("cluster.local", "xcluster.local", "www.lab.example.org", "evil.example"):
        assert not is_taken(host, allowed_hosts=allowed)
        assert not is_taken(host, allowed_hosts=allowed, has_tokens=True, host="0.0.0.0")
    assert is_taken("evil.example", allowed_hosts=("*",))


def test_with_tokens_a_server_for_others_takes_every_name_unless_it_has_a_list() -> None:
    assert is_taken("anything.example", has_tokens=True, host="0.0.0.0")
    assert not is_taken("anything.example", has_tokens=True)


@pytest.mark.parametrize("name", ["http://a", "a:80", "a/b", "", "*.", "a b"])
def test_what_is_no_name_is_refused_as_a_setting(name: str) -> None:
    with pytest.raises(ConfigError, match="allowed_hosts"):
        Settings.checked(allowed_hosts=(name,))


def test_a_page_cannot_ask_under_its_own_name(url: str) -> None:
    for path in ("/v1/caches", "/healthz", "/docs", "/nothing"):
        answer = httpx2.get(url + path, headers={"Host": "evil.example:8000"})
        assert (answer.status_code, answer.json()["error"]) == (421, "HostError")
        assert "--allowed-host" in answer.json()["detail"]
        assert answer.headers["x-request-id"]


def test_requests_with_two_hosts_or_none_are_refused(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    for hosts, version, statuses in [
        (["localhost", "evil.example"], "1.1", {400, 421}),
        ([], "1.1", {400, 421}),
        ([], "1.0", {200}),
    ]:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30) as connection:
            head = "".join(f"Host: {host}\r\n" for host in hosts)
            connection.sendall(f"GET /healthz HTTP/{version}\r\n{head}Connection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status in statuses


def test_an_allowed_name_is_answered(cache_path: Path) -> None:
    settings = Settings(caches=(str(cache_path),), port=0, allowed_hosts=("lab.example.org",))
    with serving(settings) as base:
        ask = lambda host: httpx2.get(f"{base}/v1/caches", headers={"Host": host}).status_code  # noqa: E731
        assert (ask("lab.example.org:9"), ask("evil.example")) == (200, 421)
