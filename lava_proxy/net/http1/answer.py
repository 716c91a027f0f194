"""A provider's answer as its reader sees it: the head at once, the body piece by piece.

The connection puts pieces in, the reader takes all of them at a time. An answer owns its bytes:
once its message is complete, the connection serves the next request, whether or not this one has
been read. Whoever still holds an old answer can never see a byte of a later one.

Back-pressure: above `HIGH_WATER_BYTES` unread the socket is no longer read, until the reader comes.
Time counts against the provider only while the reader waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

HIGH_WATER_BYTES = 64 * 1024

NEVER_S = float("inf")


class UpstreamEnded(Exception):
    """The answer broke off: `reason` is ``truncated``, ``idle`` or ``protocol``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Source(Protocol):
    """What an answer asks of the connection that fills it."""

    loop: asyncio.AbstractEventLoop
    deadline_s: float

    def resume(self) -> None: ...

    def abort(self) -> None: ...


class Answer:
    """A provider's answer: its head at once, its body piece by piece."""

    __slots__ = (
        "_ended",
        "_failure",
        "_idle_s",
        "_paused",
        "_push",
        "_source",
        "_unread_bytes",
        "_waiter",
        "_weighed",
        "content_type",
        "delimited",
        "headers",
        "pieces",
        "status",
    )

    def __init__(
        self,
        source: Source,
        status: int,
        headers: Sequence[tuple[bytes, bytes]],
        *,
        content_type: str,
        delimited: bool,
        idle_s: float,
    ) -> None:
        self.status = status
        self.headers = headers
        """Names in lower case, in the order they came."""
        self.content_type = content_type
        self.delimited = delimited
        """False: the end of the connection is the end of the body, so a cut looks like an end."""
        self._source: Source | None = source
        self._idle_s = idle_s
        self.pieces: list[bytes] = []
        """What has arrived and is unread. The connection adds to it, and says `arrived`."""
        self._unread_bytes = self._weighed = 0
        """Of the first `_weighed` pieces."""
        self._paused = False
        self._ended = False
        self._failure = ""
        self._waiter: asyncio.Future[None] | None = None
        self._push: Callable[[bytes], bool] | None = None

    # The reader's side.

    @property
    def at_end(self) -> bool:
        """Whether all of the body has been handed over already."""
        return self._ended and not self.pieces

    async def read(self) -> bytes:
        """The next piece, whatever has arrived; ``b""`` at the end. Raises `UpstreamEnded`.

        A cancelled read closes the answer: what comes later would be lost.
        """
        if not self.pieces:
            source = self._source
            if source is None:
                if self._ended:
                    return b""
                raise UpstreamEnded(self._failure)
            self._waiter = source.loop.create_future()
            source.deadline_s = source.loop.time() + self._idle_s
            try:
                await self._waiter
            except BaseException:
                self.close()
                raise
            if not self.pieces:
                if self._ended:
                    return b""
                raise UpstreamEnded(self._failure)
        return self._take()

    async def pump(self, push: Callable[[bytes], bool]) -> None:
        """Hand every piece to `push` in the very turn that brings it, until `push` says False (it
        wants no more for now) or something is left to `read`: an end, or what came before us.

        `push` runs in the event loop's own callback, not in the caller's task; it must not raise.
        """
        source = self._source
        if self.pieces or source is None:
            return
        waiter = self._waiter = source.loop.create_future()
        self._push = push
        source.deadline_s = source.loop.time() + self._idle_s
        try:
            await waiter
        except BaseException:
            self.close()
            raise
        finally:
            self._push = None

    def _take(self) -> bytes:
        """All that is unread."""
        pieces = self.pieces
        self.pieces = []
        self._unread_bytes = self._weighed = 0
        if self._paused:
            self._paused = False
            if self._source is not None:
                self._source.resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Let go. A connection that still owes us bytes is closed at once; one that does not has
        gone back to its pool already."""
        self.pieces = []
        source = self._source
        if source is not None:
            self.broke_off("truncated")
            source.abort()

    # The connection's side.

    def arrived(self) -> bool:
        """Tell the reader; True when enough is unread and the socket should rest."""
        waiter = self._waiter
        pieces = self.pieces
        if waiter is None:
            self._unread_bytes += sum(map(len, pieces[self._weighed :]))
            self._weighed = len(pieces)
            if self._unread_bytes > HIGH_WATER_BYTES:
                self._paused = True
        elif pieces:
            push, source = self._push, self._source
            if push is None or source is None:
                self._wake(waiter)
                return self._paused
            self.pieces = []
            if push(pieces[0] if len(pieces) == 1 else b"".join(pieces)):
                source.deadline_s = source.loop.time() + self._idle_s
            else:
                self._wake(waiter)
        return self._paused

    def finished(self) -> None:
        """The body is complete."""
        self._source = None
        self._ended = True
        if self._waiter is not None:
            self._wake(self._waiter)

    def broke_off(self, reason: str) -> None:
        """No more will come, and the body is not complete."""
        self._source = None
        self._failure = reason
        if self._waiter is not None:
            self._wake(self._waiter)

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        self._waiter = None
        if self._source is not None:
            self._source.deadline_s = NEVER_S
        if not waiter.done():
            waiter.set_result(None)
