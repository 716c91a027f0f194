"""Taking a call's body in, up to a limit and within a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from types import CoroutineType
from typing import Any

from lava_proxy.core.begun import rest_of
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
    """The whole body: 413 as soon as it is too large, 408 when it takes too long. That it is not
    compressed has been seen (`wire.headers.guard`). The content type is not looked at: clients
    label JSON in every way."""
    if (stated_bytes(headers) or 0) > bytes_max:
        raise too_large(bytes_max)
    first, begun = _begin(receive())
    if first is not None and first["type"] == "http.request" and not first.get("more_body", False):
        body: bytes = first.get("body", b"")  # the usual: it is here, and no clock need be set
        if len(body) > bytes_max:
            raise too_large(bytes_max)
        return body
    try:
        async with asyncio.timeout(timeout_s):
            return await _receive_all(first or await begun, receive, bytes_max)
    except TimeoutError:
        raise LavaError(
            "request_timeout",
            f"the body did not arrive within {timeout_s:g} s",
            headers={"connection": "close"},
        ) from None


def _begin(coming: Awaitable[Message]) -> tuple[Message | None, Awaitable[Message]]:
    """The message, if it is there; else what to wait for."""
    if not isinstance(coming, CoroutineType):
        return None, coming
    try:
        waiting = coming.send(None)
    except StopIteration as ended:
        return ended.value, coming
    return None, rest_of(coming, waiting)


async def _receive_all(message: Message, receive: Receive, bytes_max: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > bytes_max:
            raise too_large(bytes_max)
        if not message.get("more_body", False):
            return b"".join(pieces)
        message = await receive()


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
