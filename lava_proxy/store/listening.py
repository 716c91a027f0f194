"""Hearing NOTIFY on a connection for as long as it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import asyncpg

from lava_proxy.store.faults import StoreError, mapped
from lava_proxy.store.sql import load

HEARTBEAT_S = 15.0
"""A listening connection is silent for hours; this often we ask whether it still lives."""

Callback = Callable[[str | None], None]
"""Hears what a channel says; None when something may have been missed."""

Q = load("plumbing")


async def listen_while_alive(
    conn: asyncpg.Connection[asyncpg.Record], callbacks: Mapping[str, Callback]
) -> None:
    """Call back, with None when it listens to all channels, until the connection ends."""

    def heard(_conn: object, _pid: int, channel: str, payload: object) -> None:
        callbacks[channel](str(payload))

    ended = asyncio.Event()
    conn.add_termination_listener(lambda _: ended.set())
    try:
        with mapped():
            for channel in callbacks:
                await conn.add_listener(channel, heard)
            for callback in callbacks.values():
                callback(None)
            while not ended.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await ended.wait()
                if not ended.is_set():
                    await Q["ping"].fetchval(conn)
    except StoreError:
        return
