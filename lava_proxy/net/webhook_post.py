"""One POST to an address that a merchant gave us: no redirects, never to a private address, an end
in time, and of the answer only its status.

The rules are those of calls to providers (`upstream.py`): a name is resolved for every connection
and what is not on the public internet is dropped, so a name that means another address the second
time gains nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from lava_proxy.core.errors import LavaError
from lava_proxy.net.upstream import Timeouts, UpstreamEnded, Upstreams

ANSWER_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Posted:
    """What came back: a status, or why there is none."""

    status: int | None
    error: str | None
    ours: bool = False
    """The endpoint is not to blame."""

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookPost:
    """The way out for webhooks, with connections of its own."""

    def __init__(self, *, timeout_s: float, allow_private: bool, per_host: int) -> None:
        self._timeout_s = timeout_s
        self._allow_private = allow_private
        self._out = Upstreams(
            Timeouts(timeout_s, timeout_s, timeout_s, timeout_s),
            connections_per_host=per_host,
            named_hosts=frozenset(),
            private=allow_private,
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Posted:
        """Send; everything that goes wrong is an answer too."""
        if not self._allow_private and not url.lower().startswith("https://"):
            return Posted(None, "the URL is not https")
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._out.send("POST", url, pairs, body)
                try:
                    size = 0
                    while size < ANSWER_MAX_BYTES and (piece := await answer.read()):
                        size += len(piece)
                finally:
                    answer.close()
        except TimeoutError:
            return Posted(None, f"no answer within {self._timeout_s:g} s")
        except UpstreamEnded as error:
            return Posted(None, f"the answer broke off: {error.reason}")
        except LavaError as error:
            return Posted(None, error.message)
        fine = 200 <= answer.status < 300
        return Posted(answer.status, None if fine else f"status {answer.status}")

    async def close(self) -> None:
        await self._out.close()
