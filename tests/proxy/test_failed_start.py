"""A start that fails half-way leaves nothing running: no server, no connection, no lock."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hosting import gate_settings

from lava_proxy import app as module
from lava_proxy.app import LavaProxy
from lava_proxy.books.folder import lock_folder
from lava_proxy.books.journal import JournalError
from lava_proxy.net.simulated import SimulatedProvider


@dataclass
class Server:
    """An embedded server that counts who lets go of it."""

    url: str
    released: int = 0

    async def release(self) -> None:
        self.released += 1


@pytest.mark.parametrize("fails", ["the journal", "the REST API"])
async def test_what_was_started_is_stopped(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    server = Server(database_url)

    async def started(_folder: Path) -> Any:
        return server

    def refuse(*_args: object) -> None:
        raise JournalError("no version of ours")

    monkeypatch.setattr(module, "start_embedded", started)
    if fails == "the journal":
        folder = tmp_path / "journals" / "hld_newer"
        folder.mkdir(parents=True)
        (folder / "00000001.journal").write_bytes(b"LAVAJ999" + bytes(64))
    else:
        monkeypatch.setattr(module, "create_management", refuse)
    async with SimulatedProvider() as sim:
        settings = gate_settings(database_url, tmp_path, sim)
        proxy = LavaProxy(settings.model_copy(update={"database_url": None}))
        with pytest.raises(JournalError, match="version"):
            async with proxy.lifespan():
                pass
    assert server.released == 1
    for folder in (tmp_path / "journals").iterdir():
        os.close(lock_folder(folder))
    conn = await asyncpg.connect(database_url)
    others = await conn.fetchval(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await conn.close()
    assert others == 0
