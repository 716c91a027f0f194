"""Access tokens of a service account: fetched once for all who wait, renewed before they end.

A token lasts about an hour. `tend`, called by the sweep, fetches the first one and renews each when
a quarter of its time is left, so calls find one in memory. One fetch is on its way at a time; who
comes when there is no usable token waits for that one. A token with less than `MARGIN_S` left is
never given out: what is sent with it may wait for credit first. After a failure nobody asks Google
again for `RETRY_S`; calls get 503 meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson

from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import unavailable
from lava_proxy.net.google_account import TOKEN_PATH, ServiceAccount, token_request
from lava_proxy.net.upstream import Upstreams

log = logging.getLogger(__name__)

MARGIN_S = 120.0
RETRY_S = 2.0
REST_S = 20.0
"""So much longer than a call does `tend` wait after a failure."""
FETCH_S = 10.0
TRUSTED_S = 60.0
"""A provider that refuses a token younger than this refuses the account."""

_ANSWER_MAX_BYTES = 64 * 1024
_TOKEN_MAX_CHARS = 8_192
_HEADERS = ((b"content-type", b"application/x-www-form-urlencoded"),)


class TokenError(Exception):
    """No token came; the message says why, without quoting anything secret."""


class AccessTokens:
    """The tokens of one account, for one process."""

    def __init__(
        self, account: ServiceAccount, upstreams: Upstreams, origin: str, clock: Clock
    ) -> None:
        """`origin`: of Google's token endpoint, or what stands in its place."""
        self._account = account
        self._upstreams = upstreams
        self._url = origin.rstrip("/") + TOKEN_PATH
        self._clock = clock
        self._token = ""
        self._fetched_s = 0.0
        self._ends_s = 0.0
        self._lasts_s = 0.0
        self._retry_s = -REST_S
        self._fetch: asyncio.Task[None] | None = None

    async def get(self) -> str:
        """A token that will not end soon. Raises 503 when there is none to be had."""
        if not self._usable():
            fetch = self._started()
            if fetch is not None:
                await asyncio.wait([fetch])
            if not self._usable():
                raise unavailable("the provider's access token could not be renewed", 2)
        return self._token

    def tend(self) -> None:
        """Renew in the background what has had three quarters of its time."""
        now_s = self._clock.boot_s()
        late = not self._token or self._ends_s - now_s < self._lasts_s / 4
        if late and now_s >= self._retry_s + REST_S:
            self._started()

    def refused(self) -> None:
        """The provider refused the token: the next call fetches another, unless it was new."""
        if self._clock.boot_s() - self._fetched_s > TRUSTED_S:
            self._token = ""

    async def close(self) -> None:
        """Stop fetching."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait([self._fetch])

    def _usable(self) -> bool:
        return bool(self._token) and self._ends_s - self._clock.boot_s() > MARGIN_S

    def _started(self) -> asyncio.Task[None] | None:
        """The fetch that is on its way, or a new one; None so shortly after a failure."""
        if self._fetch is None and self._clock.boot_s() >= self._retry_s:
            self._fetch = asyncio.create_task(self._run())
        return self._fetch

    async def _run(self) -> None:
        try:
            await self._renew()
        except Exception as error:  # whatever it is, calls get 503 and Google is asked again
            self._retry_s = self._clock.boot_s() + RETRY_S
            why = str(error) or type(error).__name__
            log.warning("no access token for %s: %s", self._account.email, why)
        finally:
            self._fetch = None

    async def _renew(self) -> None:
        asked_s = self._clock.boot_s()
        body = token_request(self._account, self._clock.now())
        async with asyncio.timeout(FETCH_S):
            answer = await self._upstreams.send("POST", self._url, _HEADERS, body)
            try:
                data = b""
                while len(data) < _ANSWER_MAX_BYTES and (piece := await answer.read()):
                    data += piece
            finally:
                answer.close()
        if answer.status != 200:
            raise TokenError(f"status {answer.status}")
        token, lasts_s = _read(data)
        # Counted from before we asked: it never looks younger than it is.
        self._token, self._lasts_s = token, lasts_s
        self._fetched_s, self._ends_s = self._clock.boot_s(), asked_s + lasts_s


def _read(data: bytes) -> tuple[str, float]:
    try:
        body: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        body = None
    if type(body) is not dict:
        raise TokenError("the answer is not JSON")
    token, lasts = body.get("access_token"), body.get("expires_in")
    if type(token) is not str or not 0 < len(token) <= _TOKEN_MAX_CHARS:
        raise TokenError("the answer has no token")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise TokenError("the token cannot be sent in a header")
    if type(lasts) is not int or lasts <= MARGIN_S:
        raise TokenError("the token ends too soon")
    return token, float(lasts)
