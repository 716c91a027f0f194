"""The real application under `serve`, with a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import failed, serving

APP = "lava_proxy.app:LavaProxy"


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_serves_and_drains(tmp_path: Path, database_url: str, workers: int) -> None:
    settings = {"database_url": database_url, "workers": workers, "metrics_port": 0}
    async with serving(tmp_path, APP, **settings) as server:
        assert (await server.get("/healthz")).status == 200
        assert (await server.get("/readyz")).body == b'{"status":"normal"}'
        assert (await server.get("/v1/forward?u=https://api.openai.com/v1/models")).status == 401
        for port in (server.port, server.metrics_port):
            text = (await server.get("/metrics", port=port)).body
            assert b'lava_refusals_total{code="invalid_token"} 1.0' in text
            assert b"lava_ledger_failing 0.0" in text
        assert await server.stop() == 0


async def test_a_database_that_is_away_stops_the_start(tmp_path: Path) -> None:
    away = "postgresql://nobody@127.0.0.1:1/none"
    status, errors = await failed(tmp_path, APP, database_url=away)
    assert status == 3
    assert "PostgreSQL: " in errors
