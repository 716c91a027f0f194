"""A failed fsync is final for a process, and for nobody else: it drains, ends, and is replaced."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
from serving import serving

from lava_proxy.cli.handover import BROKEN_STATUS

APP = "broken_disk:Proxy"
SETTINGS = {"journal_fsync_ms": 2000}
"""The first fsync comes so long after the start, and has a fresh segment to write."""


async def test_alone_it_ends_with_a_status_of_its_own(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, APP, database_url=database_url, **SETTINGS) as server:
        assert (await server.get("/readyz")).status == 200
        (tmp_path / "break").touch()
        assert await server.ended() == BROKEN_STATUS


async def test_a_supervisor_puts_another_in_its_place(tmp_path: Path, database_url: str) -> None:
    settings = {"database_url": database_url, "workers": 2, **SETTINGS}
    async with serving(tmp_path, APP, **settings) as server:
        before = _journals(tmp_path)
        (tmp_path / "break").touch()
        async with asyncio.timeout(20):
            while len(_journals(tmp_path) - before) != 1:
                assert (await server.get("/healthz")).status == 200
                await asyncio.sleep(0.05)
            supervisor = psutil.Process(server.process.pid)
            while len(_journals(tmp_path)) != 2 or len(supervisor.children()) != 2:
                await asyncio.sleep(0.05)
        for _ in range(10):
            assert (await server.get("/readyz")).status == 200
        assert await server.stop() == 0


def _journals(data_dir: Path) -> set[str]:
    """The processes that write one."""
    return {path.parent.name for path in (data_dir / "journals").glob("*/*.journal")}
