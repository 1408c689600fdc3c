import os

import pytest

from cache_builder.format import ConfigError
from logit_server.listening import check_listening
from logit_server.settings import Settings
from tests.logit_server.processes import refused

ROOT, SOMEBODY = 0, 1000


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1"])
def test_on_loopback_nothing_is_asked_for(address: str) -> None:
    check_listening(Settings(), address, ROOT)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.7", "fe80::1%eth0", "2001:db8::1"])
def test_other_machines_are_answered_with_tokens_or_on_demand(address: str) -> None:
    with pytest.raises(ConfigError, match=r"set KDCACHE_TOKEN or --tokens FILE, or say --allow-anonymous"):
        check_listening(Settings(), address, SOMEBODY)
    check_listening(Settings(token="secret"), address, SOMEBODY)
    check_listening(Settings(tokens="tokens.toml"), address, SOMEBODY)
    check_listening(Settings(allow_anonymous=True), address, SOMEBODY)


def test_root_listens_to_other_machines_on_demand() -> None:
    with pytest.raises(ConfigError, match=r"as another user, or say --allow-root"):
        check_listening(Settings(allow_anonymous=True), "0.0.0.0", ROOT)
    check_listening(Settings(allow_anonymous=True, allow_root=True), "0.0.0.0", ROOT)


def test_a_server_for_everybody_is_refused_in_one_sentence(cache_path: object) -> None:
    ran = refused(str(cache_path), host="0.0.0.0", allow_root=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert "--allow-anonymous" in ran.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="the tests do not run as root")
def test_a_server_of_root_for_other_machines_is_refused(cache_path: object) -> None:
    ran = refused(str(cache_path), host="0.0.0.0", token="secret")
    assert ran.returncode == 2
    assert "--allow-root" in ran.stderr
