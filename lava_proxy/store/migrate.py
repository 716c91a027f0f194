"""The schema's history: migrations/NNNN_words.sql, applied in order, each once.

Each file is one transaction and is recorded in ``lava_migrations`` with its SHA-256. One advisory
lock lets several processes start at once: the first migrates, the others find nothing to do. It is
held by a transaction on a connection of its own, never by a session: behind a transaction pooler a
session's lock would stay with the server connection, and nobody could migrate again.

A file that was applied never changes: correct it by a new one. A database that has a migration
which this code does not know is newer than the code, and is refused, as are gaps. Why this and no
library: docs/decisions/0002-migrations.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from lava_proxy.store.database import Connection, StoreConflict, StoreError, connect, mapped
from lava_proxy.store.sql import load

DIRECTORY: Traversable = files(__package__) / "migrations"
LOCK_TIMEOUT_S = 60
"""Longest wait for another process that migrates, and for any lock a migration needs."""

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

Q = load("plumbing")


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Status:
    """Where a database stands. `problem` is None, or what `migrate` would refuse."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    problem: str | None


async def migrate(
    url: str, directory: Traversable = DIRECTORY, *, lock_timeout_s: int = LOCK_TIMEOUT_S
) -> list[str]:
    """Apply what is pending and return the names. Raises `MigrationError` and `StoreError`."""
    known = read_migrations(directory)
    async with _locked(url, lock_timeout_s):
        conn = await connect(url, application_name="lava_proxy migrate")
        try:
            with mapped():
                async with conn.transaction():
                    if not await Q["find_migrations"].fetchval(conn):
                        await Q["create_migrations"].execute(conn)
                    pending = _pending(known, await _applied(conn))
            for migration in pending:
                await _apply(conn, migration, lock_timeout_s)
        finally:
            await conn.close(timeout=LOCK_TIMEOUT_S)
    return [migration.name for migration in pending]


async def status(url: str, directory: Traversable = DIRECTORY) -> Status:
    """Where the database at `url` stands; changes nothing."""
    known = read_migrations(directory)
    conn = await connect(url, application_name="lava_proxy status")
    try:
        with mapped():
            async with conn.transaction():
                found = await Q["find_migrations"].fetchval(conn)
                applied = await _applied(conn) if found else {}
    finally:
        await conn.close(timeout=LOCK_TIMEOUT_S)
    try:
        pending = tuple(migration.name for migration in _pending(known, applied))
    except MigrationError as error:
        return Status(tuple(applied), (), str(error))
    return Status(tuple(applied), pending, None)


def read_migrations(directory: Traversable) -> list[Migration]:
    """The files of `directory` in order. Raises `MigrationError` for a name out of line."""
    found: dict[str, Migration] = {}
    for file in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        match = _FILE.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{file.name}: migrations are named NNNN_words.sql")
        if match.group(1) in found:
            raise MigrationError(f"{file.name}: there is another migration {match.group(1)}")
        name = file.name.removesuffix(".sql")
        found[match.group(1)] = Migration(name, file.read_text(encoding="utf-8"))
    return list(found.values())


def _pending(known: list[Migration], applied: Mapping[str, str]) -> list[Migration]:
    by_name = {migration.name: migration for migration in known}
    for name, sha256 in applied.items():
        if name not in by_name:
            raise MigrationError(
                f"the database is newer than this program: it has migration {name}. "
                "Run the release that it belongs to, or a later one"
            )
        if by_name[name].sha256 != sha256:
            raise MigrationError(
                f"migration {name} was changed after it was applied: restore the file, and put "
                "the change into a new migration"
            )
    pending = [migration for migration in known if migration.name not in applied]
    newest = max(applied, default="")
    if pending and pending[0].name < newest:
        raise MigrationError(
            f"migration {pending[0].name} would come after {newest}, which is applied already: "
            "give it the next number"
        )
    return pending


@asynccontextmanager
async def _locked(url: str, lock_timeout_s: int) -> AsyncIterator[None]:
    conn = await connect(url, application_name="lava_proxy migrate")
    try:
        with mapped():
            await conn.execute("BEGIN")
        await _set_lock_timeout(conn, lock_timeout_s)
        try:
            with mapped():
                await Q["lock_migrations"].fetchval(conn)
        except StoreConflict:
            raise MigrationError(
                f"another process has been migrating this database for {lock_timeout_s} s"
            ) from None
        yield
        with mapped():
            await conn.execute("COMMIT")
    finally:
        conn.terminate()  # which ends the transaction in any case, and so the lock


async def _set_lock_timeout(conn: Connection, lock_timeout_s: int) -> None:
    with mapped():
        await Q["set_lock_timeout"].fetchval(conn, lock_timeout=f"{lock_timeout_s}s")


async def _applied(conn: Connection) -> dict[str, str]:
    return {row["name"]: row["sha256"] for row in await Q["applied_migrations"].fetch(conn)}


async def _apply(conn: Connection, migration: Migration, lock_timeout_s: int) -> None:
    try:
        with mapped():
            async with conn.transaction():
                await _set_lock_timeout(conn, lock_timeout_s)
                await conn.execute(migration.sql)
                await Q["record_migration"].execute(
                    conn, name=migration.name, sha256=migration.sha256
                )
    except StoreError as error:
        raise MigrationError(
            f"migration {migration.name} failed and left nothing behind: {error}"
        ) from error
