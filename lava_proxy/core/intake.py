"""Taking a call's body in, up to a limit and within a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from lava_proxy.core.errors import LavaError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientGone(Exception):
    """The client left before its call was complete: there is nobody to answer."""


async def receive_body(
    headers: Sequence[tuple[bytes, bytes]],
    receive: Receive,
    *,
    timeout_s: float,
    bytes_max: int,
) -> bytes:
    """The whole body: 413 as soon as it is too large, 408 when it takes too long, 415 when it is
    compressed. The content type is not looked at: clients label JSON in every way."""
    if (stated_bytes(headers) or 0) > bytes_max:
        raise too_large(bytes_max)
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise LavaError("unsupported_media_type", "send the body without a content encoding")
    try:
        async with asyncio.timeout(timeout_s):
            return await _receive_all(receive, bytes_max)
    except TimeoutError:
        raise LavaError(
            "request_timeout", f"the body did not arrive within {timeout_s:g} s"
        ) from None


async def _receive_all(receive: Receive, bytes_max: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > bytes_max:
            raise too_large(bytes_max)
        more = message.get("more_body", False)
    return b"".join(pieces)


def stated_bytes(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """How long the body is, where its head says so."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def too_large(bytes_max: int) -> LavaError:
    """The body is longer than it may be."""
    return LavaError(
        "body_too_large",
        f"the body is over {bytes_max} bytes",
        headers={"connection": "close"},
    )
