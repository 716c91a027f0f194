"""A real PostgreSQL in the data directory, shared by the processes that use it.

Who is there is known by locks, not by a list of process ids, on which a killed process would stay:

* ``postgres.users``: every attached process holds a shared flock on it. The kernel drops it when
  the process ends, however it ends.
* ``postgres.gate``: held exclusively while arriving and while leaving, so the two never overlap.
* Who leaves tries to turn the shared lock into an exclusive one. That works only for the last,
  who then stops the server.

A server that dies under its users is started again by one of them (store/keeper.py), through the
same gate. If every process was killed, the server stays up with nobody attached; the next one
attaches to it and stops it when it leaves. A forked child shares its parent's lock: the server
stays until both have ended. Those who share must see each other's processes: one machine, or one
container. Not for Windows (no flock).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from lava_proxy.core.settings import ConfigurationError
from lava_proxy.store.cluster import ADMIN, Cluster
from lava_proxy.store.sql import load

DATABASE = "lava"
START_TIMEOUT_S = 60.0
"""Longest start, a crash recovery included."""

FAILED = "postgres.failed"
"""When the last try to start it again failed, on the clock that all processes share."""

_POLL_S = 0.05

_log = logging.getLogger(__name__)

Q = load("plumbing")


async def start_embedded(
    data_dir: Path,
    *,
    settings: Mapping[str, str] | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> EmbeddedServer:
    """Attach to the server of `data_dir`, starting it (and making the cluster) when needed.

    `settings` are further server settings; they count only for the one who starts it. Raises
    `ConfigurationError` where it cannot run, with what to do about it.
    """
    server = EmbeddedServer(_absolute(data_dir), settings or {}, timeout_s)
    await server.attach()
    return server


class RecentlyFailed(Exception):
    """Another process could not start the server a moment ago."""


class EmbeddedServer:
    """One process's hold on the server. `url` is the database ``lava``; `release` lets go."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str], timeout_s: float) -> None:
        self._cluster = Cluster(data_dir, settings, timeout_s)
        self._data_dir = data_dir
        self._timeout_s = timeout_s
        self._users_fd: int | None = None

    @property
    def url(self) -> str:
        return self._cluster.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The address of any database of this server."""
        return self._cluster.url_of(database)

    @property
    def pid(self) -> int | None:
        """The server's first process; None when it does not run."""
        process = self._cluster.postmaster()
        return None if process is None else process.pid

    async def attach(self) -> None:
        """Take the shared lock and see that the server runs and has our database."""
        await asyncio.to_thread(_make_folder, self._data_dir)
        async with _gate(self._data_dir, self._timeout_s):
            self._users_fd = _lock_file(self._data_dir / "postgres.users")
            try:
                self._share(self._users_fd)
                await asyncio.to_thread(self._cluster.prepare)
                connection = await self._connect_or_start()
                try:
                    await _ensure_database(connection)
                finally:
                    await connection.close()
            except BaseException:
                await asyncio.to_thread(self._let_go)
                raise

    def _share(self, users_fd: int) -> None:
        """Become a user. A cluster that vanished under its users is not made anew: they would go on
        as if the empty one held their books."""
        if not self._cluster.made and not _locked(users_fd):
            raise ConfigurationError(
                f"the PostgreSQL cluster in {self._data_dir} is gone while other processes use it: "
                "stop them, and restore it"
            )
        fcntl.flock(users_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    async def revive(self, quiet_s: float) -> bool:
        """Start the server if it ended; whether this call did. Of several processes one does.

        Raises `ConfigurationError` when it does not start, and `RecentlyFailed` when that was so
        less than `quiet_s` ago.
        """
        async with _gate(self._data_dir, self._timeout_s):
            if self._users_fd is None or self.pid is not None:
                return False
            self._refuse_within(quiet_s)
            try:
                await asyncio.to_thread(self._cluster.revive)
            except (ConfigurationError, OSError):
                self._note_failure()
                raise
            return True

    def _refuse_within(self, quiet_s: float) -> None:
        try:
            ago_s = time.monotonic() - float((self._data_dir / FAILED).read_text())
        except (OSError, ValueError):
            return
        if 0 <= ago_s < quiet_s:  # In the future: before a restart of the machine.
            raise RecentlyFailed

    def _note_failure(self) -> None:
        with suppress(OSError):
            (self._data_dir / FAILED).write_text(str(time.monotonic()))

    async def release(self) -> None:
        """Let go; the last one out stops the server. A second call does nothing."""
        if self._users_fd is None:
            return
        async with _gate(self._data_dir, self._timeout_s):
            await asyncio.to_thread(self._let_go)

    def _let_go(self) -> None:
        users_fd, self._users_fd = self._users_fd, None
        if users_fd is None:
            return
        try:
            # Not atomic (flock lets go before it takes), but the gate keeps everybody else out.
            fcntl.flock(users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._cluster.stop()
        except BlockingIOError:
            _log.debug("others still use the embedded PostgreSQL")
        finally:
            os.close(users_fd)

    async def _connect_or_start(self) -> asyncpg.Connection[asyncpg.Record]:
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            try:
                return await asyncpg.connect(self.url_of(ADMIN), timeout=self._timeout_s)
            except (OSError, asyncpg.OperatorInterventionError, asyncpg.PostgresConnectionError):
                # Not there, or starting up or shutting down because somebody was killed doing so.
                if time.monotonic() > deadline_s:
                    raise self._cluster.failure("does not answer") from None
            if await asyncio.to_thread(self._cluster.postmaster) is None:
                await asyncio.to_thread(self._cluster.start)
            else:
                await asyncio.sleep(_POLL_S)


async def _ensure_database(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    if not await Q["find_database"].fetchval(connection, name=DATABASE):
        await Q["create_database"].execute(connection)


@asynccontextmanager
async def _gate(data_dir: Path, timeout_s: float) -> AsyncIterator[None]:
    """One arrives or leaves at a time. Polls, so that a cancelled wait leaves no thread behind."""
    deadline_s = time.monotonic() + timeout_s
    descriptor = _lock_file(data_dir / "postgres.gate")
    try:
        while not _locked(descriptor):
            if time.monotonic() > deadline_s:
                raise ConfigurationError(
                    f"another process has been starting or stopping the PostgreSQL of {data_dir} "
                    f"for {timeout_s:.0f} s"
                )
            await asyncio.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


def _make_folder(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"LAVA_DATA_DIR {data_dir}: {error.strerror}") from None


def _lock_file(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"LAVA_DATA_DIR: {path}: {error.strerror}") from None
