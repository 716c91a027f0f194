"""The simulated provider: a server on loopback that answers like the real ones and keeps the truth.

Use it as ``async with SimulatedProvider() as sim``: requests go to `sim.url`, what came is in
`sim.requests`. Scripts come before the dialects, by path (keys with a leading slash) or by model; a
list of scripts is used up in turn, after which the dialect answers again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, MutableSequence
from typing import Self

from lava_proxy.net.simulated.connection import Connection
from lava_proxy.net.simulated.plan import plan_answer
from lava_proxy.net.simulated.routes import answer
from lava_proxy.net.simulated.script import Script, SimRequest

Scripted = Script | MutableSequence[Script] | Callable[[SimRequest], Script | None]

RECORDED_MAX = 100_000
BACKLOG = 4096
_GOLDEN = 0.6180339887498949


class SimulatedProvider:
    """One listening socket and the record of what came in.

    `record` keeps every request with its raw head (off for benchmarks). `spread` shifts the deltas
    of paced streams against each other, so that streams which start together do not tick together.
    """

    def __init__(
        self,
        script: Mapping[str, Scripted] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        record: bool = True,
        spread: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.script: dict[str, Scripted] = dict(script or {})
        self.requests: list[SimRequest] = []
        self.requests_total = 0
        self.connections_total = 0
        self.recording = record
        self._host, self._port, self._tls = host, port, tls
        self._spread = spread
        self._open: set[Connection] = set()
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), self._host, self._port, ssl=self._tls, backlog=BACKLOG
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._server is not None:
            self._server.close()
            for connection in tuple(self._open):
                connection.abort()
            await self._server.wait_closed()

    @property
    def port(self) -> int:
        """The port that was bound."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL, without a path."""
        return f"http{'s' if self._tls else ''}://{self._host}:{self._port}"

    @property
    def connections_open(self) -> int:
        """Client connections that are open now."""
        return len(self._open)

    async def until(self, predicate: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Wait until `predicate` holds; it is asked again after every change of any request."""
        if predicate():
            return
        future = asyncio.get_running_loop().create_future()
        entry = (predicate, future)
        self._waiting.append(entry)
        try:
            await asyncio.wait_for(future, timeout_s)
        finally:
            self._waiting.remove(entry)

    # Connections call these.

    def opened(self, connection: Connection) -> int:
        """Take a connection in and number it."""
        self._open.add(connection)
        self.connections_total += 1
        return self.connections_total

    def lost(self, connection: Connection) -> None:
        """Forget a connection."""
        self._open.discard(connection)

    def accept(self, request: SimRequest) -> Script:
        """Record a request and choose its answer."""
        self.requests_total += 1
        if self.recording and len(self.requests) < RECORDED_MAX:
            self.requests.append(request)
        plan = plan_answer(request.headers.get("x-sim", ""), request.path, request.body)
        request.model = plan.model if plan else ""
        for key in (request.path, request.model) if self.script else ():
            script = self._scripted(key, request)
            if script is not None:
                return script
        return answer(request, plan)

    def changed(self) -> None:
        """Wake those in `until` whose wish has come true."""
        for predicate, future in self._waiting:
            if not future.done() and predicate():
                future.set_result(None)

    def phase_s(self, script: Script) -> float:
        """By how much this stream's deltas come earlier, evenly spread over one pace."""
        if not self._spread or not script.paced_s:
            return 0.0
        return script.paced_s * (self.requests_total * _GOLDEN % 1.0)

    def _scripted(self, key: str, request: SimRequest) -> Script | None:
        found = self.script.get(key)
        if found is None or isinstance(found, Script):
            return found
        if isinstance(found, MutableSequence):
            return found.pop(0) if found else None
        return found(request)
