from pathlib import Path

import pytest

from cache_builder.console.environment import VARIABLES
from cache_builder.format import ConfigError
from logit_server.settings import Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDCACHE_CACHES", raising=False)
    monkeypatch.delenv("KDCACHE_PORT", raising=False)


def test_a_server_listens_on_the_loopback_address_unless_told_otherwise() -> None:
    assert Settings().host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "caches"),
    [
        ("/data/a.zarr", ("/data/a.zarr",)),
        ("/data/a.zarr, b=/data/b.zarr,", ("/data/a.zarr", "b=/data/b.zarr")),
        ('["/data/with,comma.zarr"]', ("/data/with,comma.zarr",)),
        ("", ()),
    ],
)
def test_caches_in_the_environment(
    text: str, caches: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDCACHE_CACHES", text)
    assert Settings.checked().caches == caches
    assert Settings().caches == ()  # what a program makes is not changed by the environment


def test_the_environment_fills_in_what_arguments_leave_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDCACHE_PORT", "9000")
    monkeypatch.setenv("KDCACHE_PAGE_BYTES", "2GiB")
    monkeypatch.setenv("KDCACHE_PAGE_DIR", "/pages")
    settings = Settings.checked(port=9001)
    assert (settings.port, settings.page_bytes, settings.page_dir) == (9001, 2 * 2**30, Path("/pages"))


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "99999"), ("WORKERS", "0"), ("PAGE_BYTES", "lots"), ("CACHES", "[1,")]
)
def test_what_is_wrong_is_a_sentence_that_names_the_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"KDCACHE_{name}", value)
    with pytest.raises(ConfigError, match=f"KDCACHE_{name}"):
        Settings.checked()


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="prot"):
        Settings.checked(prot=80)


@pytest.mark.parametrize("token", ["", "two words", "ü", "tab\t", "line\n"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="visible ASCII"):
        Settings.checked(token=token)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Settings.checked(token="secret"))
    with pytest.raises(ConfigError) as caught:
        Settings.checked(token="my secret")
    assert "secret" not in str(caught.value)


def test_every_setting_is_a_known_variable_and_the_other_way_round() -> None:
    of_server = {f"KDCACHE_{name.upper()}" for name in Settings.model_fields}
    assert of_server == {name for name, reader in VARIABLES.items() if "server" in reader}


def test_a_variable_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDCACHE_MAX_INFLIGHT", "1")
    with pytest.raises(ConfigError, match=r"KDCACHE_MAX_INFLIGHT \(did you mean KDCACHE_MAX_IN_FLIGHT\?\)"):
        Settings.checked()
