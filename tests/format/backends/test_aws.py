"""Where S3 is, and as whom we ask: as every AWS tool finds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cache_builder.format import StorageError
from cache_builder.format.backends.aws import s3_options


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(
        "[profile far]\nregion = eu-west-3\nendpoint_url = https://far.example\n"
        "aws_access_key_id = in-the-profile\naws_secret_access_key = secret\n"
    )
    return tmp_path


def test_a_profile_gives_region_endpoint_and_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "far")
    options = s3_options("s3://b")
    assert (options["region"], options["endpoint"]) == ("eu-west-3", "https://far.example")
    assert options["credential_provider"]()["access_key_id"] == "in-the-profile"


def test_the_environment_goes_before_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "far")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://every.service")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://of.s3")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    options = s3_options("s3://b")
    assert (options["region"], options["endpoint"]) == ("us-west-2", "http://of.s3")


@pytest.mark.parametrize("name", ["AWS_SKIP_SIGNATURE", "FSSPEC_S3_ANON"])
def test_a_public_bucket_needs_no_credentials(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "true")
    assert s3_options("s3://b") == {"region": "us-east-1", "skip_signature": True}


def test_without_credentials_the_ways_to_give_them_are_named() -> None:
    with pytest.raises(StorageError, match=r"s3://b cannot be reached .* AWS_PROFILE") as refused:
        s3_options("s3://b")
    assert not refused.value.waiting_helps


def test_a_profile_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match="nobody"):
        s3_options("s3://b")


def test_an_endpoint_without_a_scheme_is_no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(StorageError, match="expected an endpoint such as https://host, got 'localhost:9000'"):
        s3_options("s3://b")
