"""HTTP requests that commands and readings cost an object store, counted by a real S3 server on loopback."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from rich.console import Console

from cache_builder.build.pipeline import build
from cache_builder.build.preflight import check_build
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import SILENT
from cache_builder.format import held
from cache_builder.format.layout import record_arrays
from cache_builder.format.reader import open_cache
from cache_builder.look.inspect import describe, show
from cache_builder.verify.report import Outcome
from cache_builder.verify.run import verify
from cache_builder.verify.settings import VerifySettings
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.object_store import BUCKET, counted_http, s3_server

INSPECT, VERIFY, BUILD = 20, 40, 80
"""The most that a cache of five tiles, of 65 objects, may cost."""
HEARTBEAT = f"PUT /{BUCKET}/five.zarr/.kdcache-builder"


@pytest.fixture(scope="module", autouse=True)
def s3() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture(scope="module")
def built() -> tuple[str, list[str]]:
    """A cache of five tiles, of which each has six objects, and the requests that its build made."""
    location = f"s3://{BUCKET}/five.zarr"
    settings = BuildSettings(
        teacher="tests.cache_builder.models:small", data="digits:train", out=location, views=2,
        workers=0, device="cpu", tile_rows=256, input_size=16,
    )  # fmt: skip
    with counted_http() as seen:
        build(settings, SILENT, source=check_build(settings))  # as the command does
    return location, seen


def test_a_build(built: tuple[str, list[str]]) -> None:
    location, seen = built
    assert len(open_cache(location).tiles) == 5
    counted = [request for request in seen if request != HEARTBEAT]
    assert len(counted) + 1 <= BUILD, "\n".join(counted)  # the first of them is no beat, but the lease
    # No object that it wrote is written twice, but for the root, which is replaced when the cache is sealed.
    written = [request for request in counted if request.startswith("PUT ")]
    assert len(written) == len(set(written)) + 1


def test_inspect(built: tuple[str, list[str]]) -> None:
    with counted_http() as seen:
        show(describe(built[0], None, 0), Console(file=io.StringIO()))
    assert len(seen) <= INSPECT, "\n".join(seen)
    assert len(set(seen)) == len(seen)


def test_another_view_is_fetched_once_by_inspect(
    built: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "WHOLE_BYTES", 0)  # so that a chunk holds one view
    with counted_http() as seen:
        found = describe(built[0], None, 1)
    assert found.sample is not None
    data = [request for request in seen if "/records/" in request]
    # Of the first view an index and a chunk of each array of two blocks; of the other one a chunk of one.
    assert len(data) <= 5 * len(record_arrays(found.manifest)), "\n".join(data)


def test_verify(built: tuple[str, list[str]]) -> None:
    with counted_http() as seen:
        report = verify(VerifySettings(cache=built[0]), SILENT)
    assert not any(check.outcome is Outcome.DAMAGED for check in report.checks)
    assert len(seen) <= VERIFY, "\n".join(seen)
    assert len(set(seen)) == len(seen), "an object was read twice"


@pytest.mark.parametrize("tiles", [5, 20])
def test_opening_a_row_and_a_block_cost_the_same_whatever_the_tiles(tiles: int) -> None:
    location, rows = f"s3://{BUCKET}/synthetic-{tiles}.zarr", 8
    write_synthetic_cache(location, synthetic_logits(2, tiles * rows, 12), tile_rows=rows)
    with counted_http() as seen:
        cache = open_cache(location)
        assert len(seen) == 2
        arrays = len(record_arrays(cache.manifest))
        for read in (
            lambda: cache.read_rows(0, range(5, 6)),
            lambda: cache.read_rows(1, cache.blocks.rows(2)),
            lambda: cache.gather(0, np.array([17, 16])),
        ):
            seen.clear()
            read()
            assert len(seen) == arrays
