from pathlib import Path

import pytest

from benchmarks import pages, server
from benchmarks.caches import write_large_cache
from cache_builder.format import open_cache
from logit_server.settings import Settings
from logit_server.shelf import open_catalog


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmark's cache with few rows: a whole tile and a part of one."""
    path = tmp_path_factory.mktemp("caches") / "small.zarr"
    write_large_cache(path, rows=17_000)
    return path


@pytest.mark.slow
def test_both_servers_are_measured_by_both_clients(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ROUNDS", 2)
    monkeypatch.setattr(server, "SECONDS", 0.05)
    with server.product(small) as ours:
        for client in server.CLIENTS.values():
            line = server.compare(client, ours, "synthetic", server.random_rows(17_000, 16))
            assert len(line) == len(server.COLUMNS) - 3
            assert all(value > 0 for value in line)


@pytest.mark.slow
def test_an_answer_is_as_long_as_the_records(small: Path) -> None:
    with server.product(small) as ours:
        length = server.answer_length(
            f"{ours.base}/v1/caches/synthetic/records?view=0", server.random_rows(17_000, 16)[0]
        )
    assert length == 16 * open_cache(small).record_bytes


@pytest.mark.slow
def test_every_step_of_a_page_is_timed(small: Path, tmp_path: Path) -> None:
    (served,) = open_catalog(Settings(caches=(str(small),)))
    steps = pages.steps(served, tmp_path / "pages")
    assert len(steps) == 5
    assert all(step() > 0 for step in steps.values())
