"""Taking a call in: the one rule for bodies (core/intake.py), with the limits of calls."""

from __future__ import annotations

from lava_proxy.core.intake import ClientGone, Message, Receive, Scope, Send, receive_body

__all__ = ["ClientGone", "Message", "Receive", "Scope", "Send", "read_body"]


async def read_body(scope: Scope, receive: Receive, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises 413 as soon as the limit is passed, 408 when it takes too long to
    begin or to end, ClientGone when nobody waits for an answer."""
    headers = scope["headers"]
    return await receive_body(headers, receive, timeout_s=timeout_s, bytes_max=limit_bytes)
