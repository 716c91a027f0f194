"""The pool: deadlines, faults by class, jsonb, LISTEN, and a server that goes and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest

from lava_proxy.core.settings import ConfigurationError
from lava_proxy.store import database as module
from lava_proxy.store import listening, session
from lava_proxy.store.database import (
    Database,
    StoreBroken,
    StoreConflict,
    StoreDown,
    connect,
)
from lava_proxy.store.embedded import EmbeddedServer, start_embedded


class Heard:
    """What a listener was called with, to be waited for."""

    def __init__(self) -> None:
        self.payloads: asyncio.Queue[str | None] = asyncio.Queue()

    def __call__(self, payload: str | None) -> None:
        self.payloads.put_nowait(payload)

    async def next(self) -> str | None:
        return await asyncio.wait_for(self.payloads.get(), 10)


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server of this test's own, to be killed."""
    server = await start_embedded(tmp_path / "data")
    yield server
    await server.release()


async def test_session_settings(database: Database) -> None:
    async with database.connection() as conn:
        for name, value in {
            "statement_timeout": "2s",
            "lock_timeout": "500ms",
            "idle_in_transaction_session_timeout": "5s",
            "TimeZone": "UTC",
            "application_name": "lava_proxy",
        }.items():
            assert await conn.fetchval("SELECT current_setting($1)", name) == value


async def test_behind_a_pooler_the_deadlines_are_in_the_transaction(database_url: str) -> None:
    database = Database(database_url, statement_cache_size=0)
    await database.open()
    try:
        async with database.connection() as conn:
            assert await conn.fetchval("SHOW statement_timeout") == "0"
            assert await conn.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
        async with database.transaction() as conn:
            assert await conn.fetchval("SHOW statement_timeout") == "2s"
            assert await conn.fetchval("SHOW lock_timeout") == "500ms"
            assert await conn.fetchval("SHOW idle_in_transaction_session_timeout") == "5s"
        async with database.connection() as conn:
            assert await conn.fetchval("SHOW lock_timeout") == "0"
        assert not database.can_listen
        with pytest.raises(ConfigurationError, match="LAVA_DATABASE_DIRECT_URL"):
            await database.listen({"channel": lambda _: None})
    finally:
        await database.close()


async def test_jsonb_is_python(database: Database) -> None:
    value = {"a": [1, "é", None, {"b": True}]}
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT $1::jsonb", value) == value
        assert await conn.fetchval("SELECT ($1::jsonb)->'a'", value) == value["a"]
        assert await conn.fetchval("SELECT $1::jsonb[]", [value, {}]) == [value, {}]
        assert await conn.fetchval("SELECT ($1::jsonb) IS NULL", None) is True
        assert await conn.fetchval("SELECT jsonb_typeof($1)", "text") == "string"


async def test_transaction_commits_and_rolls_back(database: Database) -> None:
    async with database.connection() as conn:
        await conn.execute("CREATE TABLE t (n int)")
    async with database.transaction() as conn:
        await conn.execute("INSERT INTO t VALUES (1)")

    async def fail() -> None:
        async with database.transaction() as conn:
            await conn.execute("INSERT INTO t VALUES (2)")
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await fail()
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT array_agg(n) FROM t") == [1]


async def test_statement_deadline(database_url: str) -> None:
    database = Database(database_url, statement_timeout_s=0.1)
    await database.open()
    with pytest.raises(StoreDown) as caught:
        async with database.connection() as conn:
            await conn.fetchval("SELECT pg_sleep(20)")
    assert caught.value.sqlstate == "57014"
    await database.close()


async def test_lock_deadline(database: Database) -> None:
    async with database.transaction() as holder:
        await holder.execute("CREATE TABLE t ()")
        await holder.execute("SELECT pg_advisory_xact_lock(1)")
        with pytest.raises(StoreConflict) as caught:
            async with database.transaction() as conn:
                await conn.execute("SELECT pg_advisory_xact_lock(1)")
    assert caught.value.sqlstate == "55P03"


async def test_acquire_deadline(database_url: str) -> None:
    database = Database(database_url, size=1, acquire_timeout_s=0.01)
    await database.open()
    async with database.connection():
        with pytest.raises(StoreDown, match="TimeoutError"):
            async with database.connection():
                pytest.fail("there is only one")
    await database.close()


async def test_not_open_and_closed(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    await database.close()
    await database.close()
    for never_or_no_longer in (database, Database(database_url)):
        with pytest.raises(StoreDown, match="not open"):
            async with never_or_no_longer.connection():
                pytest.fail("not open")


async def test_close_does_not_wait_for_ever(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.05)
    database = Database(database_url)
    await database.open()

    async def close_while_in_use() -> None:
        async with database.connection() as conn:
            await database.close()
            await conn.fetchval("SELECT 1")

    with pytest.raises(StoreDown):
        await close_while_in_use()


async def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(StoreDown):
        await Database(f"postgresql://postgres@/lava?host={tmp_path}").open()
    with pytest.raises(StoreDown):
        await connect("postgresql://postgres@127.0.0.1:1/lava?sslmode=disable")


async def test_no_such_database(postgres: EmbeddedServer) -> None:
    with pytest.raises(StoreBroken, match="does not exist"):
        await Database(postgres.url_of("no_such")).open()


async def test_an_old_postgres_is_refused() -> None:
    old = SimpleNamespace(get_server_version=lambda: SimpleNamespace(major=14, minor=9))
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 14\.9; 15 or later"):
        await session.prepare(old)  # type: ignore[arg-type]


async def test_server_goes_and_comes_back(mortal: EmbeddedServer, tmp_path: Path) -> None:
    database = Database(mortal.url, size=2)
    await database.open()
    heard = Heard()
    listener = asyncio.create_task(database.listen({"changes": heard}))
    assert await heard.next() is None

    async def until_it_fails() -> None:
        while True:
            async with database.connection() as conn:
                await conn.fetchval("SELECT 1")

    os.kill(mortal.pid or 0, signal.SIGKILL)
    for _ in range(5):
        with pytest.raises(StoreDown):
            await until_it_fails()

    other = await start_embedded(tmp_path / "data")
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT 1") == 1
    assert await heard.next() is None
    async with database.connection() as conn:
        await conn.execute("NOTIFY changes, 'again'")
    assert await heard.next() == "again"

    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
    await database.close()
    await other.release()


async def test_a_listener_ends_when_cancelled(mortal: EmbeddedServer) -> None:
    database = Database(mortal.url)
    for turn in range(30):
        listener = asyncio.create_task(database.listen({"changes": Heard()}))
        if turn == 15:
            os.kill(mortal.pid or 0, signal.SIGKILL)
        for _ in range(turn % 15 * 2):
            await asyncio.sleep(0)
        listener.cancel()
        done, _ = await asyncio.wait([listener], timeout=5)
        assert done == {listener}, f"turn {turn}"
        assert listener.cancelled()


async def test_listen(database: Database) -> None:
    heard, other = Heard(), Heard()
    listener = asyncio.create_task(database.listen({"changes": heard, "other": other}))
    assert await heard.next() is None
    assert await other.next() is None
    async with database.connection() as conn:
        await conn.execute("NOTIFY changes, 'customers c_1'")
        await conn.execute("NOTIFY other, 'o_1'")
        await conn.execute("NOTIFY third, 'nothing'")
        await conn.execute("NOTIFY changes")
    assert await heard.next() == "customers c_1"
    assert await heard.next() == ""
    assert await other.next() == "o_1"
    async with database.connection() as conn:
        await conn.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'lava_proxy listen' AND datname = current_database()"
        )
    assert await heard.next() is None
    assert await other.next() is None
    assert heard.payloads.empty()
    assert other.payloads.empty()
    listener.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener


async def test_a_silent_listener_is_asked_whether_it_lives(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "HEARTBEAT_S", 0.01)
    database = Database(database_url)
    heard = Heard()
    listener = asyncio.create_task(database.listen({"changes": heard}))
    assert await heard.next() is None
    conn = await asyncpg.connect(database_url)
    pinged = "SELECT query LIKE 'SELECT 1%' FROM pg_stat_activity WHERE application_name = $1"
    while not await conn.fetchval(pinged, "lava_proxy listen"):
        await asyncio.sleep(0)
    await conn.close()
    assert heard.payloads.empty()
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
