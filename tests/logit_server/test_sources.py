from pathlib import Path

import pytest

from cache_builder.format import ConfigError
from logit_server.printed_settings import as_toml
from logit_server.settings import Settings
from logit_server.sources import gather


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kdcache.toml"
    path.write_text('caches = ["a.zarr", "b=b.zarr"]\nport = 1\nworkers = 2\npage_bytes = "2GiB"\n')
    return path


def test_a_flag_wins_over_a_variable_that_over_the_file_that_over_the_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDCACHE_PORT", "2")
    monkeypatch.setenv("KDCACHE_WORKERS", "3")
    gathered = gather(Settings, {"port": 4}, file)
    settings = gathered.settings
    assert (settings.port, settings.workers, settings.page_bytes, settings.max_ids) == (4, 3, 2**31, 65_536)
    assert settings.caches == ("a.zarr", "b=b.zarr")
    assert gathered.origins == {
        "caches": f"file {file}",
        "page_bytes": f"file {file}",
        "port": "flag",
        "workers": "variable KDCACHE_WORKERS",
    }


def test_the_file_may_be_named_by_a_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDCACHE_CONFIG", str(file))
    assert Settings.checked().workers == 2
    assert gather(Settings, {}, None).settings.port == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("max_inflight = 1", r"max_inflight in .*is no setting \(did you mean max_in_flight\?\)"),
        ("page-dir = 'x'", r"page-dir in .*\(did you mean page_dir\?\)"),
        ("zzz = 1", r"zzz in .*is no setting"),
        ("[server]\nport = 1", r"server in .*is no setting"),
        ("port = 'http'", r"port in .*toml is 'http'"),
        ("access_log = 'perhaps'", r"access_log in .* is 'perhaps'"),
        ("token = 'my secret'", r"token in .* is not shown: a token is made of"),
        ("port = ", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_file(line: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(line)
    with pytest.raises(ConfigError, match=told) as caught:
        gather(Settings, {"port": 5}, path)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml, cannot be read: No such file"):
        gather(Settings, {}, tmp_path / "none.toml")


def test_everything_wrong_is_said_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("workers = 0\n")
    monkeypatch.setenv("KDCACHE_MAX_IDS", "many")
    with pytest.raises(ConfigError, match=r"workers in .*KDCACHE_MAX_IDS is 'many'.*prot is no setting"):
        gather(Settings, {"prot": 1}, file)


def test_printed_settings_are_a_file_of_the_same_settings(file: Path, tmp_path: Path) -> None:
    flags = {"allowed_hosts": ('a"b.example'.replace('"', ""),), "access_log": True, "page_dir": Path("/p q")}
    gathered = gather(Settings, flags, file)
    printed = as_toml(gathered)
    assert 'page_dir = "/p q"  # flag\n' in printed
    assert f"port = 1  # file {file}\n" in printed
    assert "max_ids = 65536  # default\n" in printed
    assert "# tokens is not set\n" in printed
    again = tmp_path / "again.toml"
    again.write_text(printed)
    assert gather(Settings, {}, again).settings == gathered.settings


def test_printed_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDCACHE_TOKEN", "hush")
    monkeypatch.setenv("KDCACHE_TLS_KEY_PASSWORD", "hush")
    printed = as_toml(gather(Settings, {"caches": ("https://ann:hush@host/a.zarr",)}))
    assert "hush" not in printed
    assert "# token is set and not shown (variable KDCACHE_TOKEN)\n" in printed
    assert 'caches = ["https://host/a.zarr"]' in printed
