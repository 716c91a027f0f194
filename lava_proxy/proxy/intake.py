"""Taking a request in: its body up to a limit, and the client's leaving while we work on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lava_proxy.core.errors import LavaError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientGone(Exception):
    """The client left before its request was complete."""


async def read_body(scope: Scope, receive: Receive, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises 413 as soon as the limit is passed, 408 when it takes too long."""
    if (stated_bytes(scope) or 0) > limit_bytes:
        raise too_large(limit_bytes)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ClientGone
    if not message.get("more_body", False):
        if len(body) > limit_bytes:
            raise too_large(limit_bytes)
        return body
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_rest(body, receive, limit_bytes)
    except TimeoutError:
        raise LavaError(
            "request_timeout",
            f"the body did not arrive within {timeout_s:g} s",
            headers={"connection": "close"},
        ) from None


async def _read_rest(first: bytes, receive: Receive, limit_bytes: int) -> bytes:
    pieces = [first]
    size = len(first)
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit_bytes:
            raise too_large(limit_bytes)
        pieces.append(piece)
        more = message.get("more_body", False)
    return b"".join(pieces)


def stated_bytes(scope: Scope) -> int | None:
    """How long the body is, where its head says so."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def too_large(limit_bytes: int) -> LavaError:
    return LavaError(
        "body_too_large",
        f"the body is over the limit of {limit_bytes} bytes",
        headers={"connection": "close"},
    )
