"""``kdcache serve`` as it is typed: settings from everywhere, printed settings, new tokens."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cache_builder.cli.serve import commands
from cache_builder.console.environment import VARIABLES
from logit_server.settings import Settings
from logit_server.tokens import TokenBook


def run(*words: object, **environment: str) -> Result:
    return CliRunner().invoke(commands, [str(word) for word in words], env=environment)


def printed(*words: object, **environment: str) -> dict[str, object]:
    ran = run("--print-config", *words, **environment)
    assert ran.exit_code == 0, ran.output
    return tomllib.loads(ran.stdout)


def test_a_default_that_is_typed_wins_over_a_variable() -> None:
    assert printed(KDCACHE_PORT="9000")["port"] == 9000
    assert printed("--port", 8000, KDCACHE_PORT="9000")["port"] == 8000
    assert printed(KDCACHE_ACCESS_LOG="true")["access_log"] is True


def test_caches_and_lists_may_come_from_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('caches = ["a.zarr"]\nallowed_hosts = ["a.example", "b.example"]\n')
    assert printed("--config", file)["caches"] == ["a.zarr"]
    assert printed("--config", file)["allowed_hosts"] == ["a.example", "b.example"]
    typed = printed("b.zarr", "c.zarr", "--allowed-host", "c.example", "--config", file)
    assert (typed["caches"], typed["allowed_hosts"]) == (["b.zarr", "c.zarr"], ["c.example"])
    given = printed(KDCACHE_CACHES="d.zarr,e.zarr", KDCACHE_CONFIG=str(file))
    assert given["caches"] == ["d.zarr", "e.zarr"]


def test_every_setting_but_the_secrets_is_a_flag() -> None:
    shown = " ".join(run("--help").output.split())
    flags = {name.replace("_", "-") for name in Settings.model_fields} - {
        "caches",
        "token",
        "tls-key-password",
    }
    flags = flags - {"allowed-hosts", "cors-origins"} | {"allowed-host", "cors-origin", "config"}
    assert all(f"--{flag} " in shown for flag in flags)
    assert set(VARIABLES) >= {f"KDCACHE_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (["--prot", "1"], {}, "--port"),
        (["--port", "http"], {}, "--port http"),
        ([], {"KDCACHE_PROT": "1"}, "did you mean KDCACHE_PORT?"),
        (["--tls-cert", "c.pem", "a.zarr"], {}, "--tls-key"),
        ([], {}, "there is no cache to serve"),
        (["--host", "0.0.0.0", "--allowed-host", "http://a"], {}, "no host name"),
    ],
)
def test_what_is_wrong_is_told(words: list[str], environment: dict[str, str], told: str) -> None:
    ran = run(*words, **environment)
    assert ran.exit_code == 2
    assert told in " ".join(ran.output.replace("│", " ").split())


def test_a_new_token_goes_to_the_terminal_and_its_line_to_the_file(tmp_path: Path) -> None:
    ran = run("--new-token", "ann")
    assert ran.exit_code == 0
    (tmp_path / "tokens.toml").write_text(ran.stdout)
    token = ran.stderr.split()[-1]
    assert token not in ran.stdout
    assert TokenBook(None, tmp_path / "tokens.toml").find(token.encode()) is not None
    assert run("--new-token", "two words").exit_code == 2
