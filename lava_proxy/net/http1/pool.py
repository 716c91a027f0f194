"""All connections to one origin: a stack of idle ones, a limit, and a queue for those who wait.

The last one used is the first one taken, so that the others grow old and are closed. Between taking
a connection and writing on it nothing is awaited: one that the provider closed before is found out
in time, and a request is written once, on one connection, or not at all.

A place (of `limit`) belongs to a connection from before it connects until it is dropped. Places and
connections that come free go to those who wait, in their order; nobody who comes later is faster.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from dataclasses import dataclass

from lava_proxy.core.errors import LavaError
from lava_proxy.net.http1.address import NO_ADDRESS, Address, resolve
from lava_proxy.net.http1.connection import Connection
from lava_proxy.net.http1.request import Origin

IDLE_MAX_S = 15.0
RESOLVED_MAX_S = 10.0
"""How long the addresses of a name are remembered."""

NO_CONNECTION = "no connection to the provider"
IN_TIME = "no connection to the provider in time"
NOT_TRUSTED = "the provider's TLS certificate or handshake is not right"
IN_USE = "all connections to the provider are in use; try again"
CLOSING = "the gateway is shutting down"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of one call, in seconds."""

    connect_s: float
    first_byte_s: float
    idle_s: float
    pool_s: float


class Pool:
    """One origin's connections."""

    def __init__(
        self,
        origin: Origin,
        timeouts: Timeouts,
        *,
        limit: int,
        named: bool,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.authority = origin.authority.encode("ascii")
        self.connections: set[Connection] = set()
        self._origin = origin
        self._timeouts = timeouts
        self._limit = limit
        self._named = named
        self._tls = tls
        self._places_taken = 0
        self._idle: list[Connection] = []
        self._waiters: deque[tuple[asyncio.Future[Connection | None], float]] = deque()
        self._addresses: tuple[Address, ...] = ()
        self._resolved_s = 0.0
        self._resolving: asyncio.Task[tuple[Address, ...]] | None = None
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """No connection, none on its way, and nobody waiting."""
        return not self._places_taken and not self._waiters

    def take(self) -> Connection | None:
        """An idle connection that is fit for use, to be written on before anything is awaited."""
        idle = self._idle
        oldest_s = self.loop.time() - IDLE_MAX_S
        while idle:
            connection = idle.pop()
            if connection.idle_since_s >= oldest_s and connection.usable:
                return connection
            connection.abort()
        return None

    async def open(self) -> Connection:
        """A connection when `take` has none: a new one, or, with all places taken, one that comes
        free. Raises `LavaError`."""
        if self._closed:
            raise LavaError("unavailable", CLOSING)
        late_s = self.loop.time() + self._timeouts.pool_s
        while self._places_taken >= self._limit:
            connection = await self._wait(late_s)
            if connection is None:
                break
            if connection.usable:
                return connection
            connection.abort()
        else:
            self._places_taken += 1
        connection = None
        try:
            connection = await self._connect()
            return connection
        finally:
            if connection is None:
                self._leave_place()

    def sweep(self, now_s: float) -> None:
        """Everything that time does: late providers, old connections, waits that took too long."""
        for connection in [c for c in self.connections if c.deadline_s <= now_s]:
            connection.expire()
        while self._idle and self._idle[0].idle_since_s < now_s - IDLE_MAX_S:
            self._idle[0].abort()
        while self._waiters and (self._waiters[0][0].done() or self._waiters[0][1] <= now_s):
            waiter, _ = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(LavaError("unavailable", IN_USE, headers={"retry-after": "1"}))

    def close(self) -> list[asyncio.Future[None]]:
        """Close everything; the futures are done when the sockets are."""
        self._closed = True
        if self._resolving is not None:
            self._resolving.cancel()
        for waiter, _ in self._waiters:
            if not waiter.done():
                waiter.set_exception(LavaError("unavailable", CLOSING))
        self._waiters.clear()
        connections = list(self.connections)
        for connection in connections:
            connection.abort()
        return [connection.gone for connection in connections]

    # Connections call these.

    def released(self, connection: Connection) -> None:
        """An exchange has ended well."""
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
            return
        connection.idle_since_s = self.loop.time()
        self._idle.append(connection)

    def dropped(self, connection: Connection) -> None:
        """A connection is no more. May be said twice."""
        if connection in self.connections:
            self.connections.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._leave_place()

    # Inside.

    async def _wait(self, late_s: float) -> Connection | None:
        """A connection that came free, or None: a place to open one."""
        waiter: asyncio.Future[Connection | None] = self.loop.create_future()
        self._waiters.append((waiter, late_s))
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                connection = waiter.result()
                if connection is None:
                    self._leave_place()
                elif connection in self.connections:
                    self.released(connection)
            raise

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter, _ = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _leave_place(self) -> None:
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(None)
        else:
            self._places_taken -= 1

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                return await self._first_that_answers(await self._resolve())
        except TimeoutError:
            raise LavaError("upstream_unreachable", IN_TIME) from None
        except ssl.SSLError:
            raise LavaError("upstream_unreachable", NOT_TRUSTED) from None
        except (OSError, UnicodeError) as error:
            known = NO_ADDRESS if error.args[-1:] == (NO_ADDRESS,) else NO_CONNECTION
            raise LavaError("upstream_unreachable", known) from None

    async def _first_that_answers(self, addresses: tuple[Address, ...]) -> Connection:
        """Each address in turn, each with an even share of the time that is left."""
        late_s = self.loop.time() + self._timeouts.connect_s
        for left in range(len(addresses), 0, -1):
            share_s = (late_s - self.loop.time()) / left
            try:
                async with asyncio.timeout(share_s):
                    return await self._connect_to(addresses[-left])
            except OSError:
                if left == 1:
                    self._addresses = ()
                    raise
        raise OSError(None, NO_ADDRESS)

    async def _connect_to(self, address: Address) -> Connection:
        timeouts = self._timeouts
        _, connection = await self.loop.create_connection(
            lambda: Connection(
                self, self.loop, first_byte_s=timeouts.first_byte_s, idle_s=timeouts.idle_s
            ),
            address.host,
            address.port,
            family=address.family,
            flags=socket.AI_NUMERICHOST,
            ssl=self._tls,
            server_hostname=self._origin.host if self._tls else None,
        )
        if not connection.is_open or self._closed:
            connection.abort()
            raise OSError(None, NO_CONNECTION)
        self.connections.add(connection)
        return connection

    async def _resolve(self) -> tuple[Address, ...]:
        """The origin's addresses, asked for once however many wait for them."""
        if self._addresses and self.loop.time() - self._resolved_s < RESOLVED_MAX_S:
            return self._addresses
        task = self._resolving
        if task is None:
            origin = self._origin
            question = resolve(self.loop, origin.host, origin.port, named=self._named)
            task = self._resolving = self.loop.create_task(question)
            task.add_done_callback(self._resolved)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise LavaError("unavailable", CLOSING) from None
            raise

    def _resolved(self, task: asyncio.Task[tuple[Address, ...]]) -> None:
        self._resolving = None
        if not task.cancelled() and task.exception() is None:
            self._addresses = task.result()
            self._resolved_s = self.loop.time()
