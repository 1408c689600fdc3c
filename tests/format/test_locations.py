"""A URL is never a folder's name, and a link stays a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_builder.format import ConfigError
from cache_builder.format.locations import followed, is_remote, local_output, local_path

URLS = ["s3://bucket/x", "gs://b/x.npz", "https://host/x", "memory://x", "simplecache::s3://bucket/x"]


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_no_output_of_a_command_that_writes_files(url: str) -> None:
    assert is_remote(url)
    with pytest.raises(ConfigError, match=r"--weights .*://.* local disks only; give a local path"):
        local_output(url, "--weights")


@pytest.mark.parametrize("url", ["s3:/bucket/x", "S3:/bucket/x", "gs:/b", "file:/tmp/x", "https:/host/x"])
def test_a_url_that_lost_a_slash_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match="lost a slash"):
        local_output(url)


@pytest.mark.parametrize("text", ["", " "])
def test_nothing_is_no_output(text: str) -> None:
    with pytest.raises(ConfigError, match="--out is empty"):
        local_output(text)


@pytest.mark.parametrize("text", ["x", "a/b.zarr", "/tmp/x:y", "./s3:/bucket", "c:x", "../x"])
def test_other_names_are_paths(text: str) -> None:
    assert local_output(text) == Path(text)


@pytest.mark.parametrize("url", ["file:///tmp/x", "FILE:///tmp/x", "file://localhost/tmp/x"])
def test_a_file_url_is_a_path(url: str) -> None:
    assert not is_remote(url)
    assert local_path(url) == local_output(url) == Path("/tmp/x")


def test_a_folder_that_has_such_a_name_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    assert local_path("s3:/x") == Path("s3:/x")


def test_links_are_followed_to_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to(tmp_path / "later" / "x")
    assert followed(tmp_path / "link" / "a.zarr") == tmp_path.resolve() / "real" / "a.zarr"
    assert followed(tmp_path / "dangling") == tmp_path.resolve() / "later" / "x"


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ConfigError, match="in a circle"):
        followed(tmp_path / "a")
