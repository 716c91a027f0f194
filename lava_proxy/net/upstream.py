"""Calling providers: one request out, one answer head and its pieces back.

aiohttp does the HTTP; this file decides what it may do: no redirects, no cookies, no proxies from
the environment, no decompression, no retries, connections kept per provider, and never to an
address that is not on the public internet (unless the operator named the host). Its exceptions end
here as three house errors, and `UpstreamEnded` for an answer that breaks off.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp import http_parser
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from multidict import CIMultiDict
from yarl import URL

from lava_proxy.core.errors import LavaError
from lava_proxy.core.settings import ConfigurationError

_LARGE_BODY = 1 << 20
_BODY_STEP = 1 << 16
_SKIP = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})


class UpstreamEnded(Exception):
    """The answer broke off: `reason` is ``truncated``, ``idle`` or ``protocol``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of one call, in seconds."""

    connect_s: float
    first_byte_s: float
    idle_s: float
    pool_s: float


class Answer:
    """A provider's answer: its head at once, its body piece by piece."""

    __slots__ = ("_response", "content_type", "delimited", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, idle_s: float) -> None:
        self._response = response
        self.status = response.status
        self.headers: Sequence[tuple[bytes, bytes]] = [
            (name.lower(), value) for name, value in response.raw_headers
        ]
        self.content_type = response.headers.get("Content-Type", "")
        self.delimited = (
            "Content-Length" in response.headers
            or response.method == "HEAD"
            or ("chunked" in response.headers.get("Transfer-Encoding", "").lower())
        )
        """False: the end of the connection is the end of the body, so a cut looks like an end."""
        connection = response.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = idle_s

    @property
    def at_end(self) -> bool:
        """Whether all of the body has been handed over already."""
        return self._response.content.at_eof()

    async def read(self) -> bytes:
        """The next piece, whatever has arrived; ``b""`` at the end. Raises `UpstreamEnded`."""
        try:
            return await self._response.content.readany()
        except aiohttp.SocketTimeoutError:
            raise UpstreamEnded("idle") from None
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, OSError):
            raise UpstreamEnded("truncated") from None
        except (aiohttp.ClientError, ValueError):
            raise UpstreamEnded("protocol") from None

    def close(self) -> None:
        """Let go: the connection goes back to the pool if the body is read, else it is closed."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class Upstreams:
    """All providers' connections of this process."""

    def __init__(
        self, timeouts: Timeouts, *, connections_per_host: int, named_hosts: frozenset[str]
    ) -> None:
        """`named_hosts`: ``host`` or ``host:port`` that the operator named, so private addresses
        are meant."""
        if http_parser.HttpResponseParser is http_parser.HttpResponseParserPy:
            raise ConfigurationError(
                "aiohttp's C parser is missing: install aiohttp from a wheel for this platform"
            )
        self._timeouts = timeouts
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=timeouts.pool_s + timeouts.connect_s,
            sock_connect=timeouts.connect_s,
            sock_read=timeouts.first_byte_s,
        )
        self._per_host = connections_per_host
        self._named_hosts = named_hosts
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def send(
        self, method: str, url: str, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> Answer:
        """Send a request and wait for the answer's head. Raises `LavaError`."""
        parsed = URL(url, encoded=True)
        session = self._session(parsed)
        fields = CIMultiDict(_text(headers, "utf-8"))
        data: bytes | AsyncIterator[bytes] | None = body or None
        if len(body) > _LARGE_BODY:
            fields["Content-Length"] = str(len(body))
            data = _in_steps(body)
        try:
            response = await session.request(
                method,
                parsed,
                headers=fields,
                data=data,
                allow_redirects=False,
                skip_auto_headers=_SKIP,
            )
        except aiohttp.ConnectionTimeoutError:
            raise self._no_connection(session) from None
        except aiohttp.ServerTimeoutError:
            raise LavaError("upstream_timeout") from None
        except (aiohttp.ClientResponseError, aiohttp.http_exceptions.HttpProcessingError):
            raise LavaError("upstream_protocol_error") from None
        except (aiohttp.ClientError, OSError) as error:
            raise LavaError("upstream_unreachable", _reason(error)) from None
        except ValueError:
            raise LavaError("upstream_protocol_error") from None
        return Answer(response, self._timeouts.idle_s)

    def _no_connection(self, session: aiohttp.ClientSession) -> LavaError:
        connector = session.connector
        if connector is not None and len(connector._acquired) >= self._per_host:
            return LavaError(
                "unavailable",
                "all connections to the provider are in use; try again",
                headers={"retry-after": "1"},
            )
        return LavaError("upstream_unreachable", "no connection to the provider in time")

    async def close(self) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _session(self, url: URL) -> aiohttp.ClientSession:
        """One session, so one pool, per host: a provider that hangs uses up its own only."""
        origin = f"{url.scheme}://{url.raw_authority}"
        session = self._sessions.get(origin)
        if session is None:
            named = url.raw_host in self._named_hosts or url.raw_authority in self._named_hosts
            connector = aiohttp.TCPConnector(
                limit=self._per_host,
                limit_per_host=self._per_host,
                resolver=None if named else PublicResolver(),
                keepalive_timeout=15,
            )
            session = self._sessions[origin] = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                read_bufsize=_BODY_STEP,
            )
            # One execution per request: an idempotent method is not a free one here.
            session._retry_connection = False
        return session


class PublicResolver(AbstractResolver):
    """Resolves names, and drops every address that is not on the public internet, at the moment of
    connecting: a name that changes its answer cannot slip through."""

    def __init__(self, inner: AbstractResolver | None = None) -> None:
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        public = [entry for entry in found if ipaddress.ip_address(entry["host"]).is_global]
        if not public:
            raise OSError(None, f"{host} has no public address")
        return public

    async def close(self) -> None:
        await self._inner.close()


def _text(headers: Sequence[tuple[bytes, bytes]], encoding: str) -> list[tuple[str, str]]:
    """Headers as aiohttp takes them; it writes UTF-8, so those bytes pass as they are. Others can
    only be read as Latin-1."""
    try:
        return [(name.decode("latin-1"), value.decode(encoding)) for name, value in headers]
    except UnicodeDecodeError:
        return _text(headers, "latin-1")


async def _in_steps(body: bytes) -> AsyncIterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(view), _BODY_STEP):
        yield bytes(view[start : start + _BODY_STEP])
        await asyncio.sleep(0)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the provider closed the connection before it answered"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the provider's name has no address that may be called"
    return "no connection to the provider"
