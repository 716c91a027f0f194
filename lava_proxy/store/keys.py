"""Merchants and their secret keys: a key is seen once, when it is made; only its hash is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from lava_proxy.core.ids import hash_secret, hint_of, new_id, new_secret
from lava_proxy.store.database import Connection
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("keys")

DEFAULT_MERCHANT = "default"
"""Stands for whichever merchant came first."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key in force, as it may be shown."""

    secret_key_id: str
    name: str
    hint: str
    test: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key, with its secret for the only time."""

    secret_key: str = field(repr=False)
    secret_key_id: str
    merchant_id: str
    shown: KeyRow


async def create_merchant(conn: Connection, name: str) -> str:
    """Make a merchant and its own account; answers its id."""
    merchant_id = new_id("merchant")
    await Q["create_merchant"].execute(conn, merchant_id=merchant_id, name=name)
    return merchant_id


async def create_key(conn: Connection, *, name: str, test: bool, merchant_name: str) -> CreatedKey:
    """A key for the merchant of that name, who is made if there is none. In a transaction."""
    await Q["lock_merchants"].execute(conn)
    merchant_id = await merchant_named(conn, merchant_name)
    if merchant_id is None:
        merchant_id = await create_merchant(conn, merchant_name)
    return await add_key(conn, merchant_id, name=name, test=test)


async def merchant_named(conn: Connection, name: str) -> str | None:
    """The merchant of an id or a name."""
    found: str | None = await Q["merchant_named"].fetchval(
        conn, name=name, or_first=name == DEFAULT_MERCHANT
    )
    return found


async def add_key(conn: Connection, merchant_id: str, *, name: str, test: bool) -> CreatedKey:
    """A new key for a merchant that is there."""
    secret = new_secret("aks_test_" if test else "aks_live_")
    secret_key_id = new_id("secret_key", test=test)
    row = await Q["create_key"].fetchrow(
        conn,
        secret_key_id=secret_key_id,
        merchant_id=merchant_id,
        name=name,
        key_hash=hash_secret(secret),
        hint=hint_of(secret),
        test=test,
    )
    if row is None:
        raise LookupError("a new key is not there")
    return CreatedKey(secret, secret_key_id, merchant_id, KeyRow(**dict(row)))


async def page(conn: Connection, merchant_id: str, behind: Place, most: int) -> list[KeyRow]:
    """At most `most` keys in force behind a place, newest first."""
    rows = await Q["list_keys"].fetch(
        conn, merchant_id=merchant_id, before_at=behind.at, before_id=behind.id, most=most
    )
    return [KeyRow(**dict(row)) for row in rows]


async def revoke(conn: Connection, merchant_id: str, secret_key_id: str) -> bool:
    """End a key, everywhere at once (the change feed tells the workers); False: not in force."""
    row = await Q["revoke_key"].fetchrow(conn, merchant_id=merchant_id, secret_key_id=secret_key_id)
    return row is not None


async def in_force(conn: Connection, merchant_id: str) -> list[str]:
    """Ids of a merchant's keys in force, kept as they are until the transaction ends."""
    rows = await Q["lock_keys"].fetch(conn, merchant_id=merchant_id)
    return [row["secret_key_id"] for row in rows]
