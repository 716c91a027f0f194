"""uvicorn's protocol, with an answer's head and what follows it in the same turn as one write.

uvicorn hands the head to the socket by itself. A write wakes whoever reads, which costs more than
all that we do with a piece; and most answers have something to send by the time their head is made.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class JoiningProtocol(HttpToolsProtocol):
    """As uvicorn's own; each answer begins in a `_Head`. Where a later uvicorn keeps an answer's
    transport elsewhere, it is as uvicorn's own altogether."""

    def on_headers_complete(self) -> None:
        before = getattr(self, "cycle", None)
        super().on_headers_complete()
        cycle: Any = getattr(self, "cycle", None)
        if cycle is not before and hasattr(cycle, "transport"):
            cycle.transport = _Head(cycle, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        cycle: Any = getattr(self, "cycle", None)
        if isinstance(getattr(cycle, "transport", None), _Head):
            cycle.transport = self.transport  # or the two would keep each other
        super().connection_lost(exc)


class _Head:
    """Stands for an answer's transport until its head is out: the first write waits for the second,
    or for the end of this turn of the event loop; then the transport itself takes its place."""

    __slots__ = ("_cycle", "_flush", "_head", "_loop", "_transport")

    def __init__(self, cycle: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle = cycle
        self._loop = loop
        self._transport = cycle.transport
        self._head = b""
        self._flush: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """Keep it, or send it behind what is kept."""
        if self._flush is None:
            self._head = data
            self._flush = self._loop.call_soon(self._let_go)
        else:
            self._flush.cancel()
            self._head += data
            self._let_go()

    def close(self) -> None:
        """Send what is kept, then close."""
        if self._flush is not None:
            self._flush.cancel()
            self._let_go()
        self._transport.close()

    def _let_go(self) -> None:
        self._cycle.transport = self._transport
        self._transport.write(self._head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
