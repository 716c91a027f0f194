"""The server's side of one connection: requests in, an answer to each, in order.

uvicorn listens, starts and stops; what it has for connections is replaced by this (its setting
`http` takes a class), over the same parser. Why, beside what it costs:

* head and first bytes of an answer are one write (`cli/cycle.py`): a write wakes whoever reads;
* a read is bounded by a small buffer that all connections share, for it is parsed in the turn that
  brings it (uvloop's own gives up to 256 KB at a time, and an upload held that twice);
* a head, a trailer or a chunk's size that does not end is refused while it comes, and must be here
  in time;
* trailers are no headers, and a request that is broken does not break into the answer before it;
* whoever sends requests without waiting for answers is not read meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.server import ServerState

from lava_proxy.cli.cycle import Cycle, plain_answer
from lava_proxy.cli.parser import framing_head, parser_for
from lava_proxy.cli.scope import Headers, addresses, scope_of
from lava_proxy.core.readbuffer import read_buffer

BODY_MAX_BYTES = 64 * 1024
"""With more of a body than this not taken by the application, the client is not read."""
HEAD_MAX_BYTES = 128 * 1024
"""By default; `serve` takes twice what the application does (`LAVA_HEADER_LIMIT_BYTES`), which says
more of what is wrong."""

NO_REQUEST = b"Invalid HTTP request received."


class ServerProtocol(asyncio.BufferedProtocol):
    """One connection; uvicorn makes it and asks it to `shutdown`."""

    __slots__ = (
        "_app",
        "_app_state",
        "_begun_s",
        "_buffer",
        "_cycle",
        "_deaf",
        "_declined",
        "_ends",
        "_head_max_bytes",
        "_headers",
        "_in_head",
        "_keep_alive_s",
        "_parser",
        "_paused",
        "_queue",
        "_reading",
        "_room",
        "_state",
        "_timer",
        "_unread",
        "_url",
        "_wants_continue",
        "loop",
        "transport",
        "write_paused",
    )

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        head_max_bytes: int = HEAD_MAX_BYTES,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        self.write_paused = False
        self._buffer = read_buffer()
        self._head_max_bytes = head_max_bytes
        self._app = config.loaded_app
        self._app_state = app_state
        self._state = server_state
        self._keep_alive_s = config.timeout_keep_alive
        self._cycle: Cycle | None = None
        """The request that is answered now, or was last."""
        self._reading: Cycle | None = None
        """The request whose body comes."""
        self._queue: deque[Cycle] = deque()
        self._paused = False
        self._deaf = False
        """Nothing more is read: what came is no HTTP."""
        self._room: asyncio.Event | None = None
        self._unread = 0
        """Bytes since something that has an end came to it."""
        self._in_head = self._declined = False

    @property
    def unused(self) -> bool:
        """Open, without a request under way."""
        return self._cycle is None or self._cycle.complete

    # uvicorn's and the transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._ends = addresses(transport)
        self._parser = parser_for(self)
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._begun_s = self.loop.time()
        self._timer = self.loop.call_later(self._keep_alive_s, self._look)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._unread += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except httptools.HttpParserUpgrade as offer:
            self._decline(offer, self._buffer[:nbytes])
        except httptools.HttpParserError:
            self._refuse(400, NO_REQUEST)
        else:
            if self._unread > self._head_max_bytes:
                self._refuse(431, b"The head of the request is too long.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._timer.cancel()
        if self._cycle is not None:
            self._cycle.leave()
        self.resume_writing()
        self._cycle = self._reading = None  # they, and the parser, keep us
        self._queue.clear()
        del self._parser

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._room is not None:
            self._room.set()
            self._room = None

    def shutdown(self) -> None:
        """The server ends: after the running answer, or now."""
        if self._cycle is None or self._cycle.complete:
            self.transport.close()
        else:
            self._cycle.keep_alive = False

    # The parser's side.

    def on_message_begin(self) -> None:
        if self._declined:
            return  # the head was read already
        self._url = b""
        self._headers: Headers = []
        self._wants_continue = False
        self._in_head = True
        self._begun_s = self.loop.time()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._wants_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._declined:
            self._declined = False
            return
        self._in_head = False
        self._unread = 0
        version = self._parser.get_http_version()
        keep_alive = version != "1.0" and self._parser.should_keep_alive()
        method, state = self._parser.get_method(), self._app_state
        scope = scope_of(method, self._url, version, self._headers, self._ends, state)
        cycle = Cycle(self, scope, keep_alive, self._wants_continue)
        self._reading = cycle
        if self._cycle is None or self._cycle.complete:
            self._start(cycle)
        else:
            self._queue.append(cycle)
            self._pause()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        if self._reading is not None and self._reading.take(body) > BODY_MAX_BYTES:
            self._pause()

    def on_message_complete(self) -> None:
        self._unread = 0
        if self._reading is not None and not self._parser.should_upgrade():
            self._reading.take_last()

    # The cycle's side.

    def answered(self, cycle: Cycle) -> None:
        """All of its answer is written."""
        self._state.total_requests += 1
        if not cycle.keep_alive:
            self.transport.close()
        elif not self.transport.is_closing():
            self._begun_s = self.loop.time()
            if self._queue:
                self._start(self._queue.popleft())
            self.resume()

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written."""
        if self._room is None:
            self._room = asyncio.Event()
        await self._room.wait()

    def resume(self) -> None:
        """The client may send more."""
        if self._paused and not self._queue and not self._deaf:
            self._paused = False
            self.transport.resume_reading()

    # Inside.

    def _start(self, cycle: Cycle) -> None:
        self._cycle = cycle
        task = self.loop.create_task(cycle.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def _look(self) -> None:
        """Close the connection if it waits too long for a request, or for the rest of a head."""
        left_s: float = self._keep_alive_s
        if self.unused:
            left_s += self._begun_s - self.loop.time()
        if left_s > 0:
            self._timer = self.loop.call_later(left_s, self._look)
        else:
            self.transport.close()

    def _decline(self, offer: httptools.HttpParserUpgrade | None, data: memoryview) -> None:
        """Another protocol was offered, and none is spoken here: what follows the head is HTTP. An
        offer of HTTP/2 is a client's way of asking; with any other, what follows may have passed a
        proxy that takes every answer for consent, so the connection ends with the answer."""
        while offer is not None:
            data = data[offer.args[0] :]
            if self._reading is not None and (b"upgrade", b"h2c") not in self._headers:
                self._reading.keep_alive = False
            offer, self._declined = None, True
            try:
                self._parser = parser_for(self)
                self._parser.feed_data(framing_head(self._headers))
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as another:
                offer = another
            except httptools.HttpParserError:
                self._refuse(400, NO_REQUEST)

    def _refuse(self, status: int, why: bytes) -> None:
        """What came is no request. An answer under way to one before it goes on."""
        cycle = self._cycle
        if cycle is None or cycle.complete or not (cycle.started or cycle.whole):
            self.transport.write(plain_answer(status, why))
            self.transport.close()
        elif cycle.whole:
            self._end_with(cycle)
        else:
            self.transport.close()

    def _end_with(self, cycle: Cycle | None) -> None:
        """Read nothing more, and close the connection with this request's answer."""
        self._deaf = True
        self._pause()
        if cycle is not None:
            cycle.keep_alive = False
