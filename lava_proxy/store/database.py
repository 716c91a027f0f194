"""One process's few connections to PostgreSQL, each wait with a deadline.

* A free connection: a quarter of what a caller waits. When the server went away, the pool
  reconnects in the background, so a slow connect does not make that deadline impossible.
* A statement: `statement_timeout` at the server, and a little later the client's own.
* A lock: 0.5 s. A transaction that does nothing: 5 s.
* While the server is away (store/outage.py, where `watch` runs): nothing waits, all fail at once.

Behind a transaction pooler (statement cache 0) session settings are refused or would leak to other
clients: there the server's deadlines are set inside each transaction, and LISTEN needs the direct
address.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import asyncpg
import stamina

from lava_proxy.core.settings import ConfigurationError
from lava_proxy.store.faults import (
    StoreBroken,
    StoreConflict,
    StoreDown,
    StoreError,
    StorePoison,
    mapped,
)
from lava_proxy.store.listening import Callback, listen_while_alive
from lava_proxy.store.outage import LATE_S, Outage
from lava_proxy.store.session import (
    CONNECT_TIMEOUT_S,
    Connection,
    connect,
    leave_as_is,
    prepare,
    transaction,
)
from lava_proxy.store.sql import load

__all__ = [
    "Connection",
    "Database",
    "StoreBroken",
    "StoreConflict",
    "StoreDown",
    "StoreError",
    "StorePoison",
    "connect",
    "mapped",
]

ACQUIRE_TIMEOUT_S = 0.25
STATEMENT_TIMEOUT_S = 2.0
LOCK_TIMEOUT = "500ms"
IDLE_TIMEOUT = "5s"
CLOSE_TIMEOUT_S = 5.0

_CLIENT_MARGIN_S = 0.5  # The server's deadline comes first: its error says more.

Q = load("plumbing")


class Database:
    """A fixed pool. `open` it once, `close` it once."""

    def __init__(
        self,
        url: str,
        *,
        direct_url: str | None = None,
        size: int = 4,
        statement_cache_size: int = 200,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
        acquire_timeout_s: float = ACQUIRE_TIMEOUT_S,
        application_name: str = "lava_proxy",
    ) -> None:
        self._url = url
        self._direct_url = direct_url
        self._size = size
        self._statement_cache_size = statement_cache_size
        self._statement_timeout_s = statement_timeout_s
        self._acquire_timeout_s = acquire_timeout_s
        self._application_name = application_name
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self.outage = Outage()

    @property
    def behind_pooler(self) -> bool:
        return self._statement_cache_size == 0

    @property
    def can_listen(self) -> bool:
        """False where only polling is left."""
        return self._direct_url is not None or not self.behind_pooler

    async def open(self) -> None:
        """Connect. Raises `StoreError`, and `ConfigurationError` for a PostgreSQL too old."""
        with mapped():
            pool = await asyncpg.create_pool(
                self._url,
                min_size=self._size,
                max_size=self._size,
                max_inactive_connection_lifetime=0,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=self._statement_timeout_s + _CLIENT_MARGIN_S,
                statement_cache_size=self._statement_cache_size,
                server_settings=self._session_settings(),
                init=prepare,
                # A round trip per release, to undo what we never do to a session.
                reset=leave_as_is,
            )
        self._pool = pool

    async def close(self) -> None:
        """Wait for statements under way, at most `CLOSE_TIMEOUT_S`, then cut them off."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool; whatever it raises inside comes out as a `StoreError`. Behind a
        transaction pooler it is one transaction: preparing a statement and executing it must not
        meet two servers."""
        async with self._judged() as conn:
            if not self.behind_pooler:
                yield conn
                return
            async with transaction(conn):
                yield conn

    @asynccontextmanager
    async def _judged(self) -> AsyncIterator[Connection]:
        """A connection whose fate says whether the server is away."""
        pool = self._pool
        if pool is None:
            raise StoreDown("the database is not open")
        if self.outage.away:
            raise StoreDown("PostgreSQL is away")
        asked_s = time.monotonic()
        late = asyncio.get_running_loop().call_later(LATE_S, self.outage.suspect, asked_s, "late")
        try:
            async with self._acquired(pool) as conn:
                yield conn
        except StoreDown as error:
            self.outage.suspect(asked_s, error)
            raise
        else:
            self.outage.worked()
        finally:
            late.cancel()

    @asynccontextmanager
    async def _acquired(self, pool: asyncpg.Pool[asyncpg.Record]) -> AsyncIterator[Connection]:
        with mapped():
            conn = await pool.acquire(timeout=self._acquire_timeout_s)
        try:
            with mapped():
                yield conn
        except StoreDown as error:
            if error.sqlstate is None:  # The driver said so, not the server: start afresh.
                with suppress(StoreError), mapped():
                    conn.terminate()
            raise
        finally:
            # A connection that was lost meanwhile cannot be given back. What was done with it is
            # decided already, so this is nobody's error (and the pool drops it by itself).
            with suppress(StoreError), mapped():
                await pool.release(conn)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction: committed at the end, rolled back on an exception."""
        async with self._judged() as conn, transaction(conn):
            if self.behind_pooler:
                await Q["set_local_deadlines"].fetchrow(
                    conn,
                    statement_timeout=self._statement_timeout(),
                    lock_timeout=LOCK_TIMEOUT,
                    idle_timeout=IDLE_TIMEOUT,
                )
            yield conn

    @asynccontextmanager
    async def apart(self, timeout_s: float) -> AsyncIterator[Connection]:
        """A connection beside the pool, for work that takes long; statements have `timeout_s`."""
        conn = await connect(
            self._direct_url or self._url,
            application_name=f"{self._application_name} apart",
            command_timeout_s=timeout_s,
        )
        try:
            with mapped():
                yield conn
        finally:
            conn.terminate()

    async def watch(self) -> None:
        """Find out when the server goes and when it is back, until cancelled. One per process."""
        await self.outage.watch(self._probe)

    async def _probe(self, deadline_s: float) -> None:
        """Ask on a fresh connection: the pool's may be busy, or dead without knowing it."""
        with mapped():
            async with asyncio.timeout(deadline_s):
                conn = await asyncpg.connect(
                    self._url,
                    timeout=deadline_s,
                    command_timeout=deadline_s,
                    statement_cache_size=0,
                    server_settings={"application_name": f"{self._application_name} probe"},
                )
                try:
                    async with conn.transaction():
                        if not await Q["can_write"].fetchval(conn):
                            raise StoreDown("PostgreSQL: this server can only be read")
                finally:
                    conn.terminate()
        if self.outage.away and self._pool is not None:
            # Connections from before may be dead without knowing it: each would cost a caller.
            await self._pool.expire_connections()

    async def listen(self, callbacks: Mapping[str, Callback]) -> None:
        """Call back with each payload of a channel, until cancelled; one connection for all.

        After every (re)connect each is called with None: anything may have changed meanwhile.
        """
        if not self.can_listen:
            raise ConfigurationError(
                "LISTEN does not work behind a transaction pooler: set LAVA_DATABASE_DIRECT_URL"
            )
        while True:
            await self.outage.answering()
            retries = stamina.retry_context(
                on=StoreError, attempts=None, timeout=None, wait_initial=0.05, wait_max=5.0
            )
            async for attempt in retries:
                with attempt:
                    _stop_if_cancelled()
                    conn = await connect(
                        self._direct_url or self._url,
                        application_name=f"{self._application_name} listen",
                        command_timeout_s=self._statement_timeout_s,
                    )
            try:
                await listen_while_alive(conn, callbacks)
            finally:
                conn.terminate()

    def _session_settings(self) -> dict[str, str]:
        settings = {"application_name": self._application_name, "timezone": "UTC"}
        if not self.behind_pooler:
            settings["statement_timeout"] = self._statement_timeout()
            settings["lock_timeout"] = LOCK_TIMEOUT
            settings["idle_in_transaction_session_timeout"] = IDLE_TIMEOUT
        return settings

    def _statement_timeout(self) -> str:
        return f"{int(self._statement_timeout_s * 1000)}ms"


def _stop_if_cancelled() -> None:
    """Raise a cancellation that a race below us lost (it can, before Python 3.12)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
