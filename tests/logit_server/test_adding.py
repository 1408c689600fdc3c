"""Adding an endpoint takes a router and its name in ``ROUTERS``: it answers behind the usual envelope."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from fastapi import APIRouter, Request

from cache_builder.format import open_cache
from logit_server import app
from logit_server.run import serving
from logit_server.settings import Settings
from logit_server.state import cache_of

router = APIRouter(tags=["toy"])


@router.get("/v1/caches/{name}/count")
async def count(name: str, request: Request) -> dict[str, int]:
    return {"samples": cache_of(request).samples}


def test_an_endpoint_is_a_router_in_one_place(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "ROUTERS", (*app.ROUTERS, router))
    with (
        serving(Settings(caches=(str(cache_path),), port=0, token="secret")) as base,
        httpx2.Client(base_url=base, headers={"Authorization": "Bearer secret"}) as client,
    ):
        assert client.get("/v1/caches/synthetic/count").json() == {"samples": len(open_cache(cache_path).ids)}
        assert "/v1/caches/{name}/count" in client.get("/openapi.json").json()["paths"]
        assert client.get("/v1/caches/synthetic").status_code == 200
        assert httpx2.get(f"{base}/v1/caches/synthetic/count").status_code == 401, "tokens hold for it too"
