"""Calling providers: one request out, one answer head and its pieces back.

What it may do is decided here: no redirects, no cookies, no proxies from the environment, no
decompression, one execution per request, connections kept per provider, and never to an address
that is not on the public internet (unless the operator named the host). How it is done is in
`http1/`; docs/decisions/0010-upstream-client.md says why it is our own.

A caller sees three errors before the answer's head (`upstream_unreachable`, `upstream_timeout`,
`upstream_protocol_error`), `unavailable` when all connections to the provider are in use, and
`UpstreamEnded` for an answer that breaks off.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import cache

from lava_proxy.net.http1.answer import Answer, UpstreamEnded
from lava_proxy.net.http1.connection import Connection
from lava_proxy.net.http1.pool import Pool, Timeouts
from lava_proxy.net.http1.request import Headers, Origin, parse_origin, request_head, split_url
from lava_proxy.net.http1.upload import Upload

__all__ = ["Answer", "Timeouts", "Upload", "UpstreamEnded", "Upstreams"]

SWEEP_S = 0.25
"""How often deadlines are looked at, so how late a timeout may come."""
CLOSING_MAX_S = 2.0


class Upstreams:
    """All providers' connections of this process."""

    def __init__(
        self,
        timeouts: Timeouts,
        *,
        connections_per_host: int,
        named_hosts: frozenset[str],
        tls: ssl.SSLContext | None = None,
        private: bool = False,
    ) -> None:
        """`named_hosts`: ``host`` or ``host:port`` that the operator named, so private addresses
        are meant; with `private` all hosts are. `tls`: whom to trust, by default the system's
        certificates."""
        self._timeouts = timeouts
        self._per_host = connections_per_host
        self._private = private
        self._named_hosts = frozenset(name.lower() for name in named_hosts)
        self._tls = tls or _system_trust()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._pools: dict[str, Pool] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(self, method: str, url: str, headers: Headers, body: bytes) -> Answer:
        """Send a request and wait for the answer's head. Raises `LavaError`."""
        pool, target = self._place(url)
        head = request_head(method, target, pool.authority, headers, len(body))
        connection = pool.take() or await self._open(pool)
        waiter = connection.begin(head, body, head_only=method == "HEAD")
        try:
            return await waiter
        except asyncio.CancelledError:
            connection.abandon(waiter)
            raise

    async def upload(self, method: str, url: str, headers: Headers, size: int | None) -> Upload:
        """Send the head of a request whose body of `size` bytes follows, in chunks where that is
        None. Raises `LavaError`."""
        pool, target = self._place(url)
        head = request_head(method, target, pool.authority, headers, size)
        connection = pool.take() or await self._open(pool)
        return Upload(connection, connection.begin_upload(head), chunked=size is None)

    async def close(self) -> None:
        """Close every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        closing = [gone for pool in self._pools.values() for gone in pool.close()]
        self._pools.clear()
        if closing:
            await asyncio.wait(closing, timeout=CLOSING_MAX_S)

    def _place(self, url: str) -> tuple[Pool, bytes]:
        """Where a URL leads, and the request's target there."""
        text, target = split_url(url)
        return self._pools.get(text) or self._pool(parse_origin(text)), target

    async def _open(self, pool: Pool) -> Connection:
        self._watch(pool.loop)
        return await pool.open()

    def _pool(self, origin: Origin) -> Pool:
        """One pool per origin: a provider that hangs uses up its own connections only."""
        pool = self._pools.get(origin.text)
        if pool is None:
            pool = self._pools[origin.text] = Pool(
                origin,
                self._timeouts,
                limit=self._per_host,
                named=self._private
                or not self._named_hosts.isdisjoint({origin.host, origin.authority}),
                tls=self._tls if origin.tls else None,
            )
        return pool

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at deadlines as long as there is a connection or a request waiting for one."""
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for text, pool in list(self._pools.items()):
            pool.sweep(now_s)
            if pool.is_empty:
                del self._pools[text]
        self._sweeper = None
        if self._pools:
            self._watch(loop)


@cache
def _system_trust() -> ssl.SSLContext:
    """The certificates that OpenSSL was built to find. Variables such as SSL_CERT_FILE are not
    asked: whom we hand provider keys to is not the environment's to say."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    places = ssl.get_default_verify_paths()
    for file, folder in ((places.openssl_cafile, None), (None, places.openssl_capath)):
        try:
            trust.load_verify_locations(cafile=file, capath=folder)
        except OSError:
            continue  # a system has one of the two, or both
    return trust
