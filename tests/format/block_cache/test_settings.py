"""Where blocks are kept, as the environment says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_builder.format import ConfigError
from cache_builder.format.block_cache.settings import DEFAULT_BYTES, block_cache_settings


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KDCACHE_BLOCK_CACHE", "KDCACHE_BLOCK_CACHE_BYTES", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_in_the_folder_of_caches_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = block_cache_settings()
    assert found is not None
    assert (found.folder, found.most_bytes) == (tmp_path / ".cache/kdcache/blocks", DEFAULT_BYTES)
    assert (found.is_chosen, found.spares_disk) == (False, True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    found = block_cache_settings()
    assert found is not None
    assert found.folder == tmp_path / "x/kdcache/blocks"


def test_what_a_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KDCACHE_BLOCK_CACHE", "~/blocks")
    monkeypatch.setenv("KDCACHE_BLOCK_CACHE_BYTES", "2GiB")
    found = block_cache_settings()
    assert found is not None
    assert (found.folder, found.most_bytes) == (tmp_path / "blocks", 2 * 2**30)
    assert (found.is_chosen, found.spares_disk) == (True, False)


@pytest.mark.parametrize(("name", "value"), [("", "off"), ("", "OFF"), ("_BYTES", "0")])
def test_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"KDCACHE_BLOCK_CACHE{name}", value)
    assert block_cache_settings() is None


@pytest.mark.parametrize(
    ("name", "value", "said"), [("", "s3://b/blocks", "a folder"), ("_BYTES", "much", "20GiB")]
)
def test_what_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(f"KDCACHE_BLOCK_CACHE{name}", value)
    with pytest.raises(ConfigError, match=f"KDCACHE_BLOCK_CACHE{name} is '{value}'.*{said}"):
        block_cache_settings()
