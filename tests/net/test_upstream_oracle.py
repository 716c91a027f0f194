"""The upstream client against aiohttp's, on real sockets: the same answers, byte for byte.

Where ours is stricter, or says more exactly what went wrong, it stands in `STRICTER`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import aiohttp
import pytest
from upstream_cases import CASES
from upstream_kit import Outcome, outcome
from yarl import URL

from lava_proxy.net.simulated import Ending, Piece, Script, SimulatedProvider
from lava_proxy.net.upstream import Upstreams

GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\xc8\x04\x00\xac*\x93\xd8\x02\x00\x00\x00"

BODY = b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\n' * 40 + b"data: [DONE]\n\n"


class Oracle:
    """aiohttp, set up to meddle as little as it can."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def outcome(self, method: str, url: str, body: bytes = b"") -> Outcome:
        """The same words for the same ends as ours."""
        try:
            answer = await self._session.request(
                method, URL(url, encoded=True), data=body or None, allow_redirects=False
            )
        except aiohttp.ClientResponseError:
            return Outcome(end="upstream_protocol_error")
        except aiohttp.ClientError:
            return Outcome(end="upstream_unreachable")
        seen = Outcome(answer.status, [(n.lower(), v) for n, v in answer.raw_headers])
        try:
            while piece := await answer.content.readany():
                seen.body += piece
            seen.end = "end"
        except aiohttp.ClientError:
            seen.end = "truncated"
        answer.close()
        return seen


@pytest.fixture
async def oracle() -> AsyncIterator[Oracle]:
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
    ) as session:
        yield Oracle(session)


def pieces(data: bytes, size: int, delay_s: float = 0.0) -> Iterator[Piece]:
    """`data` in writes of `size`."""
    for start in range(0, len(data), size):
        yield Piece(data[start : start + size], delay_s if start else 0.0)


def same(ours: Outcome, theirs: Outcome) -> None:
    ours.delimited = theirs.delimited
    assert ours == theirs


FRAMINGS = {
    "length": ((("content-length", str(len(BODY))),), Ending.CLEAN),
    "chunked": ((), Ending.CLEAN),
    "closed": ((), Ending.CLOSED),
    "length, close": ((("content-length", str(len(BODY))), ("connection", "close")), Ending.CLEAN),
    "length, cut": ((("content-length", str(len(BODY) + 1)),), Ending.TRUNCATED),
    "chunked, cut": ((), Ending.TRUNCATED),
    "length, reset": ((("content-length", str(len(BODY) + 1)),), Ending.RESET),
    "chunked, reset": ((), Ending.RESET),
}


@pytest.mark.parametrize(("size", "delay_s"), [(1, 0.0), (7, 0.0), (500, 0.001), (1 << 20, 0.0)])
@pytest.mark.parametrize("name", FRAMINGS)
async def test_framings_and_endings(
    client: Upstreams, oracle: Oracle, sim: SimulatedProvider, name: str, size: int, delay_s: float
) -> None:
    headers, ends = FRAMINGS[name]
    fields = (("content-type", "text/event-stream"), ("X-Odd", "a  b"), *headers)

    def script(_: object) -> Script:
        # A reset throws away what was not read yet: let the last piece arrive.
        late_s = 0.05 if ends is Ending.RESET else 0.0
        return Script(pieces(BODY, size, delay_s), 200, fields, ends, end_delay_s=late_s)

    sim.script["/x"] = script
    ours = await outcome(client, "POST", f"{sim.url}/x", b"{}")
    theirs = await oracle.outcome("POST", f"{sim.url}/x", b"{}")
    same(ours, theirs)
    assert ours.body == BODY
    assert ours.end == ("truncated" if ends in (Ending.TRUNCATED, Ending.RESET) else "end")


STRICTER: dict[str, tuple[int, bytes, str]] = {
    # aiohttp reads answers leniently ...
    "LF only": (200, b"hi", "end"),
    "folded": (200, b"hi", "end"),
    "folded coding": (200, b"", "end"),
    "space before the colon": (200, b"hi", "end"),
    "another coding": (200, b"", "end"),
    "another coding, its own line": (200, b"", "end"),
    "chunked twice": (200, b"", "end"),
    "identity": (200, b"hi", "end"),
    "switching protocols": (101, b"", "end"),
    "status 99": (99, b"hi", "end"),
    "status 600": (600, b"hi", "end"),
    # ... takes a reset for the end ...
    "and its reset is not": (200, b"hi", "end"),
    # ... and gives up what was good when what follows is not, if both come in one piece.
    "a body on 204": (0, b"", "upstream_protocol_error"),
    "bad chunk size": (0, b"", "upstream_protocol_error"),
    "chunk size 0x": (0, b"", "upstream_protocol_error"),
    "chunk size over 64 bits": (0, b"", "upstream_protocol_error"),
    "more than the chunk": (0, b"", "upstream_protocol_error"),
    "LF behind a chunk": (200, b"hi", "truncated"),
}


@pytest.mark.parametrize("name", CASES)
async def test_odd_answers(
    client: Upstreams, oracle: Oracle, sim: SimulatedProvider, name: str
) -> None:
    data, ending, meant = CASES[name]
    ends = Ending.RESET if ending == "reset" else Ending.CLOSED
    late_s = 0.05 if ending == "reset" else 0.0
    sim.script["/x"] = Script((Piece(data),), raw=True, ends=ends, end_delay_s=late_s)
    ours = await outcome(client, "GET", f"{sim.url}/x")
    if meant.end == "open":
        meant = replace(meant, end="end")  # here every connection ends at last
    assert ours == replace(meant, reusable=False)
    theirs = await oracle.outcome("GET", f"{sim.url}/x")
    if name in STRICTER:
        assert (theirs.status, theirs.body, theirs.end) == STRICTER[name]
    else:
        same(ours, theirs)


@pytest.mark.parametrize("seed", range(12))
async def test_random_streams(
    client: Upstreams, oracle: Oracle, sim: SimulatedProvider, seed: int
) -> None:
    """Bodies of any bytes, in writes of any size, whole or cut anywhere."""
    chance = random.Random(seed)
    body = chance.randbytes(chance.choice([1, 300, 20_000, 300_000]))
    cut = chance.random() < 0.4
    shown = body[: chance.randrange(len(body))] if cut else body
    size = (
        chance.choice([1, 13, 1460, 70_000]) if len(shown) < 1000 else chance.choice([900, 70_000])
    )
    length = (("content-length", str(len(body))),) if chance.random() < 0.5 else ()
    ends = Ending.TRUNCATED if cut else Ending.CLEAN
    sim.script["/x"] = lambda _: Script(pieces(shown, size), 200, length, ends)
    ours = await outcome(client, "POST", f"{sim.url}/x", b"x" * chance.randrange(100_000))
    same(ours, await oracle.outcome("POST", f"{sim.url}/x", b"{}"))
    assert (ours.body, ours.end) == (shown, "truncated" if cut else "end")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_what_reaches_the_provider(
    client: Upstreams, oracle: Oracle, sim: SimulatedProvider, method: str, body: bytes
) -> None:
    """The same request line, Host and length; nothing that was not asked for."""
    sim.script["/x"] = Script.json({})
    url = f"{sim.url}/x?a=%2F&b=1"
    ours = await outcome(client, method, url, body)
    theirs = await oracle.outcome(method, url, body)
    same(ours, theirs)
    mine, other = sim.requests
    assert (mine.method, mine.target, mine.body) == (other.method, other.target, other.body)
    assert mine.headers["host"] == other.headers["host"]
    assert mine.headers.get("content-length", "0") == other.headers.get("content-length", "0")
    assert set(mine.headers) <= {"host", "content-length"}


async def test_nothing_is_followed_kept_or_unpacked(
    client: Upstreams, sim: SimulatedProvider
) -> None:
    away = (("location", f"{sim.url}/y"), ("set-cookie", "a=b"), ("content-encoding", "gzip"))
    sim.script["/x"] = Script((Piece(GZIP),), 307, away)
    seen = await outcome(client, "POST", f"{sim.url}/x", b"{}")
    assert (seen.status, seen.body, seen.end) == (307, GZIP, "end")
    await outcome(client, "POST", f"{sim.url}/x", b"{}")
    assert [request.target for request in sim.requests] == ["/x", "/x"]
    assert "cookie" not in sim.requests[1].headers
