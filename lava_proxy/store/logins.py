"""Codes of a login: one stands for a minute for whoever typed a key in, and becomes a key once."""

from __future__ import annotations

from dataclasses import dataclass

from lava_proxy.core.ids import hash_secret
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("logins")


@dataclass(frozen=True, slots=True)
class Login:
    """Who logged in."""

    merchant_id: str
    test: bool


async def keep_code(conn: Connection, code: str, secret_key_id: str, lasts_s: float) -> None:
    """A new code, for the holder of this key."""
    await Q["insert_code"].execute(
        conn, code_hash=hash_secret(code), secret_key_id=secret_key_id, lasts_s=lasts_s
    )


async def use_code(conn: Connection, code: str) -> Login | None:
    """Whose code it was; from now on nobody's. It is looked for by its hash, so how long that takes
    says nothing about the code."""
    row = await Q["use_code"].fetchrow(conn, code_hash=hash_secret(code))
    return None if row is None else Login(**dict(row))


async def prune(conn: Connection) -> None:
    """Forget codes that are over."""
    await Q["prune_codes"].execute(conn)
