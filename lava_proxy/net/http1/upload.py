"""A request whose body passes through: as much of it is here as the sockets have not taken yet.

The caller hands over a piece and waits until there is room for the next; whoever sends to us is not
read meanwhile. The end is the caller's to give: until `finish` the provider has no whole request.
"""

from __future__ import annotations

import asyncio

from lava_proxy.net.http1.answer import Answer
from lava_proxy.net.http1.connection import Connection


class Upload:
    """One request under way."""

    __slots__ = ("_chunked", "_connection", "_waiter")

    def __init__(
        self, connection: Connection, waiter: asyncio.Future[Answer], *, chunked: bool
    ) -> None:
        self._connection = connection
        self._waiter = waiter
        self._chunked = chunked

    @property
    def answered(self) -> bool:
        """The provider has answered already, or the connection is gone: `finish` says which."""
        return self._waiter.done()

    async def write(self, piece: bytes) -> bool:
        """Hand over a piece of the body and wait for room; False when nothing more is wanted. The
        exchange must not be given up meanwhile (`close`) but by whoever waits here."""
        if not self._waiter.done() and piece:
            self._connection.more(self._framed(piece), last=False)
            await self._connection.room()
        return not self._waiter.done()

    async def finish(self, rest: bytes) -> Answer:
        """Hand over the rest of the body, if it is still wanted, and wait for the answer's head.
        Raises `LavaError`."""
        if not self._waiter.done():
            self._connection.more(self._framed(rest, last=True), last=True)
        try:
            return await self._waiter
        except asyncio.CancelledError:
            self.close()
            raise

    def _framed(self, piece: bytes, *, last: bool = False) -> list[bytes]:
        """What goes out for it; the piece itself is not copied, it may be large."""
        if not self._chunked:
            return [piece]
        end = b"0\r\n\r\n" if last else b""
        return [b"%x\r\n" % len(piece), piece, b"\r\n" + end] if piece else [end]

    def close(self) -> None:
        """Give it up. An answer that somebody has taken is theirs to close."""
        self._connection.abandon(self._waiter)
