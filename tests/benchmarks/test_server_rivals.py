from pathlib import Path

import pytest

from benchmarks import server_rivals
from benchmarks.caches import write_large_cache
from benchmarks.http_load import Requests
from benchmarks.rivals import flight_load, rival, serve_bare, serve_flight, serve_zarr


@pytest.mark.slow
def test_every_server_answers_as_many_requests_as_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_rivals, "ROUNDS", 2)
    monkeypatch.setattr(server_rivals, "CELL_REQUESTS", {16: 20})
    path = tmp_path / "small.zarr"
    name = write_large_cache(path, rows=17_000).name
    requests = Requests(f"/v1/caches/{name}/records?view=0", server_rivals.bodies(17_000, 16))
    with (
        server_rivals.product(path) as ours,
        rival(serve_bare, 16 * server_rivals.RECORD_BYTES) as bare,
        rival(serve_zarr, str(path), 0) as zarr,
        rival(serve_flight, str(path), 0, load=flight_load) as flight,
    ):
        servers = {"kdcache": ours, "bare": bare, "zarr": zarr, "flight": flight}
        measured = server_rivals.compare(servers, requests, 16, 2)
    for found in measured.values():
        assert len(found.cpu_s) == 2
        assert min(*found.cpu_s, *found.taken_s, *found.rates) > 0
        assert len(server_rivals.cells(found, measured["kdcache"])) == len(server_rivals.COLUMNS) - 4
