"""An embedded server that dies under its users is started again: by one of them, never as an empty
one, and with pauses where that does not help."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from lava_proxy.core.settings import ConfigurationError
from lava_proxy.store import keeper as keeping
from lava_proxy.store.embedded import EmbeddedServer, RecentlyFailed, start_embedded
from lava_proxy.store.keeper import Keeper


@pytest.fixture
async def data_dir() -> AsyncIterator[Path]:
    """Not in pytest's folder, which another run may close to the server's user."""
    with tempfile.TemporaryDirectory(prefix="lava-again-") as name:
        yield Path(name)


class Watched:
    """A user of the server, and what its keeper told."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.states: list[str] = []
        self.starts: list[bool] = []
        self.keeper = Keeper(server, self.states.append, self.starts.append)
        self.keeper.start()

    async def becomes(self, state: str) -> None:
        async with asyncio.timeout(20):
            while self.keeper.state != state:
                await asyncio.sleep(0.01)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LOOK_S", 0.02)
    monkeypatch.setattr(keeping, "PAUSE_FIRST_S", 0.05)


def die(server: EmbeddedServer) -> int:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while server.pid is not None:
        pass
    return pid


async def value(server: EmbeddedServer, query: str) -> object:
    conn = await asyncpg.connect(server.url)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


@pytest.mark.usefixtures("quick")
async def test_it_comes_back_or_says_why_not(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users = [Watched(await start_embedded(data_dir)) for _ in range(3)]
    first = users[0].server
    await value(first, "CREATE TABLE kept AS SELECT 42 AS n")

    pid = die(first)
    for user in users:
        await user.becomes("starting")
    for user in users:
        await user.becomes("runs")
    assert first.pid not in (None, pid)
    assert await value(first, "SELECT n FROM kept") == 42
    assert sum(len(user.starts) for user in users) == 1, "one of them starts it"

    control = data_dir / "postgres" / "global" / "pg_control"
    control.rename(data_dir / "aside")
    die(first)
    for user in users:
        await user.becomes("broken")
    assert first.pid is None
    assert "pg_control" in caplog.text
    (data_dir / "aside").rename(control)
    for user in users:
        await user.becomes("runs")
    assert await value(first, "SELECT n FROM kept") == 42
    failed = [worked for user in users for worked in user.starts].count(False)
    assert 1 <= failed <= 6, "several of them try no more often than one"
    for user in users:
        await user.keeper.close()
    assert first.pid is None


async def test_an_empty_one_is_never_made_instead(data_dir: Path) -> None:
    server = await start_embedded(data_dir)
    die(server)
    shutil.move(data_dir / "postgres", data_dir / "away")
    with pytest.raises(ConfigurationError, match="is gone"):
        await server.revive(1.0)
    with pytest.raises(RecentlyFailed):
        await server.revive(60.0)
    with pytest.raises(ConfigurationError, match="gone while other processes use it"):
        await start_embedded(data_dir)
    assert not (data_dir / "postgres").exists()
    shutil.move(data_dir / "away", data_dir / "postgres")
    assert await server.revive(0.0)
    assert not await server.revive(0.0)
    await server.release()
    assert not await server.revive(0.0), "who has let go starts nothing"


@pytest.mark.usefixtures("quick")
async def test_closing_waits_for_a_start_under_way(data_dir: Path) -> None:
    user = Watched(await start_embedded(data_dir))
    die(user.server)
    await user.becomes("starting")
    await asyncio.sleep(0.05)
    await user.keeper.close()
    assert user.server.pid is None
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


async def test_a_folder_that_is_no_cluster(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    with pytest.raises(ConfigurationError, match="no PostgreSQL cluster"):
        await start_embedded(data_dir)
