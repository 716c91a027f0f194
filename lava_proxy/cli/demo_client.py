"""The demo's own end of the wire: a real HTTP client on a real socket, for REST calls and streams.

It borrows the gateway's way of calling providers (`net/upstream.py`), because that one tells a
whole answer from one that breaks off.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from lava_proxy.net.upstream import Answer, Timeouts, UpstreamEnded, Upstreams
from lava_proxy.wire.sse import SseFramer

Json = Mapping[str, Any]

TIMEOUTS = Timeouts(connect_s=5.0, first_byte_s=15.0, idle_s=15.0, pool_s=5.0)
CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole JSON answer."""

    status: int
    document: Json


class Stream:
    """An answer as it comes. `whole`, once it has ended: by the rules of its framing, or not."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.status = answer.status
        self.request_id = next(
            (value.decode() for name, value in answer.headers if name == b"x-lava-request-id"), ""
        )
        self.whole = False

    async def events(self) -> AsyncIterator[Json]:
        """The JSON of every server-sent event."""
        framer = SseFramer()
        async for piece in self._pieces():
            for event in framer.feed(piece):
                if event.data[:1] == b"{":
                    yield orjson.loads(event.data)

    async def document(self) -> Json:
        """The whole answer, where it is one JSON object."""
        document: Json = orjson.loads(b"".join([piece async for piece in self._pieces()]))
        return document

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            while piece := await self._answer.read():
                yield piece
            self.whole = True
        except UpstreamEnded:
            return
        finally:
            self._answer.close()


class Client:
    """Talks to one gateway as the merchant (`call`) and as whoever holds a token (`stream`)."""

    def __init__(self, base_url: str, secret_key: str) -> None:
        self.base_url = base_url
        self._secret_key = secret_key
        self._connections = Upstreams(
            TIMEOUTS,
            connections_per_host=CONNECTIONS,
            named_hosts=frozenset({base_url.partition("://")[2]}),
        )

    def forward_token(self, customer_id: str, meter_slug: str) -> str:
        """The public forward token: who is calling, who pays, and by which meter."""
        members = {
            "secret_key": self._secret_key,
            "customer_id": customer_id,
            "meter_slug": meter_slug,
        }
        return base64.b64encode(orjson.dumps(members)).decode()

    async def call(self, method: str, path: str, body: Json | None = None) -> Reply:
        """A call of the REST API."""
        stream = await self._send(method, path, self._secret_key, {}, body)
        return Reply(stream.status, await stream.document())

    async def stream(self, url: str, token: str, headers: Mapping[str, str], body: Json) -> Stream:
        """POST to a provider through the gateway."""
        return await self._send("POST", f"/v1/forward?u={url}", token, headers, body)

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()

    async def _send(
        self, method: str, path: str, token: str, headers: Mapping[str, str], body: Json | None
    ) -> Stream:
        fields = {"authorization": f"Bearer {token}", **headers}
        data = b""
        if body is not None:
            fields["content-type"] = "application/json"
            data = orjson.dumps(body)
        lines = [(name.encode(), value.encode()) for name, value in fields.items()]
        return Stream(await self._connections.send(method, self.base_url + path, lines, data))
