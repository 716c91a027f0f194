"""One session with PostgreSQL: how it is opened, what its values look like, how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import orjson

from lava_proxy.core.settings import ConfigurationError
from lava_proxy.store.faults import mapped

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

POSTGRES_MIN = 15
CONNECT_TIMEOUT_S = 5.0

_JSONB_VERSION = b"\x01"


async def connect(
    url: str,
    *,
    application_name: str = "lava_proxy",
    command_timeout_s: float | None = None,
) -> asyncpg.Connection[asyncpg.Record]:
    """A connection of its own, for LISTEN, migrations and tools. Raises like `Database.open`. A
    pooler may be in between, so it is asked for no setting that poolers refuse."""
    with mapped():
        conn = await asyncpg.connect(
            url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=command_timeout_s,
            statement_cache_size=0,
            server_settings={"application_name": application_name, "timezone": "UTC"},
        )
        try:
            await prepare(conn)
        except BaseException:
            conn.terminate()
            raise
        return conn


async def prepare(conn: asyncpg.Connection[asyncpg.Record]) -> None:
    """Make a fresh connection ours. In one transaction: behind a transaction pooler the driver's
    look-up of a type would else meet two servers."""
    version = conn.get_server_version()
    if version.major < POSTGRES_MIN:
        raise ConfigurationError(
            f"the database is PostgreSQL {version.major}.{version.minor}; "
            f"{POSTGRES_MIN} or later is needed"
        )
    async with conn.transaction():
        await conn.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=_to_jsonb, decoder=_from_jsonb, format="binary"
        )


@asynccontextmanager
async def transaction(conn: Connection) -> AsyncIterator[None]:
    """As the driver's, but who got no answer in time does not ask for a rollback: that would wait
    for as long again. The connection is ended instead."""
    under_way = conn.transaction()
    await under_way.start()
    try:
        yield
    except TimeoutError:
        conn.terminate()
        raise
    except BaseException:
        try:
            await under_way.rollback()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            conn.terminate()  # what went wrong first is what the caller must hear
        raise
    else:
        await under_way.commit()


async def leave_as_is(_: asyncpg.Connection[asyncpg.Record]) -> None:
    return


def _to_jsonb(value: object) -> bytes:
    return _JSONB_VERSION + orjson.dumps(value)


def _from_jsonb(data: bytes) -> object:
    return orjson.loads(memoryview(data)[len(_JSONB_VERSION) :])
