"""The environment: misspelt variables, and proxies before this machine itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cache_builder.console.environment import (
    VARIABLES,
    check_variables,
    is_loopback,
    proxy_for,
    spare_loopback,
)
from cache_builder.format import ConfigError

LOOPBACK = ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST.", "a.localhost", "::1", "[::1]"]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("host", LOOPBACK)
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "example.org", "localhost.example.org", "", "0.0.0.0"])
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)


def test_which_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for("http://example.org/x") is None
    monkeypatch.setenv("http_proxy", "http://me:pass@proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.org")
    assert proxy_for("http://example.org/x") == "http://proxy:3128"
    assert proxy_for("https://example.org/x") is None
    monkeypatch.setenv("https_proxy", "me:pass@proxy:3129")
    assert proxy_for("https://example.org/x") == "http://proxy:3129"
    assert proxy_for("http://inside.org:8000/x") is None
    assert proxy_for("http://127.0.0.1:8000/x") is None
    assert proxy_for("http://[::1]:8000/x") is None


def test_libraries_leave_this_machine_alone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "inside.org")
    monkeypatch.setenv("NO_PROXY", "inside.org")
    spare_loopback()
    assert os.environ["no_proxy"] == "inside.org"
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    spare_loopback()
    spare_loopback()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "inside.org,localhost,127.0.0.1,::1"


def test_misspelt_variables() -> None:
    check_variables({"KDCACHE_PORT": "1", "PATH": "/bin", "kdcache_token": "x", "KDCACHING": "y"})
    with pytest.raises(ConfigError, match=r"KDCACHE_TOKN \(did you mean KDCACHE_TOKEN\?\)"):
        check_variables({"KDCACHE_TOKN": "x"})
    with pytest.raises(ConfigError, match=r"KDCACHE_ZZZ.*which kdcache does not know"):
        check_variables({"KDCACHE_ZZZ": "x"})


def test_benchmarks_read_no_variable_that_the_commands_refuse() -> None:
    sources = Path(__file__).parents[3].joinpath("benchmarks").rglob("*.py")
    read = {name for file in sources for name in re.findall(r"\bKDCACHE_[A-Z]\w*", file.read_text())}
    assert read <= set(VARIABLES)
    assert "tests" not in VARIABLES.values()
