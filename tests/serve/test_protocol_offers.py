"""Requests that offer another protocol: the offer is not taken, the request is answered whole."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import orjson
import pytest
from protocol_kit import echo, serving, told

H = b" HTTP/1.1\r\nHost: a\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
PLAIN = b"GET /next" + H + b"\r\n"

OFFERS = {
    "no body": (b"GET /" + H + H2C + b"\r\n", ""),
    "length": (b"POST /" + H + H2C + b"Content-Length: 5\r\n\r\nhello", "hello"),
    "no length": (b"POST /" + H + H2C + b"Content-Length: 0\r\n\r\n", ""),
    "chunks": (b"POST /" + H + H2C + CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "hello"),
    "one byte": (b"POST /" + H + H2C + b"Content-Length: 1\r\n\r\nx", "x"),
}


def _bodies(said: bytes) -> list[tuple[str, str]]:
    """Path and body of each request, as the application saw them."""
    answers = [
        orjson.loads(part.partition(b"\r\n\r\n")[2]) for part in said.split(b"HTTP/1.1 200 OK")[1:]
    ]
    return [(answer["path"], answer["body"]) for answer in answers]


@pytest.mark.parametrize("name", OFFERS)
async def test_a_request_that_offers_another_protocol_keeps_its_body(name: str) -> None:
    sent, body = OFFERS[name]
    async with serving(echo) as (port, _):
        whole = await told(port, sent + PLAIN)
        by_byte = await told(port, *[bytes([byte]) for byte in sent + PLAIN])
        behind_each_other = await told(port, sent + sent + PLAIN)
    assert _bodies(whole[0]) == [("/", body), ("/next", "")]
    assert by_byte == whole
    assert not whole[1]  # more may be asked here
    assert _bodies(behind_each_other[0]) == [("/", body), ("/", body), ("/next", "")]


async def test_hundreds_of_offers_in_one_piece_are_read_one_after_the_other() -> None:
    sent, _ = OFFERS["one byte"]
    async with serving(echo) as (port, _):
        said, _ = await told(port, sent * 400)
    assert _bodies(said) == [("/", "x")] * 400


@pytest.mark.parametrize(
    "offer",
    [
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    ],
)
async def test_nothing_is_served_behind_an_offer_of_anything_else(offer: bytes) -> None:
    """A proxy in front may take any answer for consent, and pass on what its client likes."""
    sent = b"POST /" + H + offer + b"Content-Length: 1\r\n\r\nx"
    async with serving(echo) as (port, _):
        at_once, closed = await told(port, sent + PLAIN)
    assert _bodies(at_once) == [("/", "x")]
    assert b"connection: close\r\n" in at_once
    assert closed


async def test_no_form_of_connect_opens_anything() -> None:
    targets = (b"a:443", b"/", b"*", b"http://a/", b"[::1]:80", b"a")
    async with serving(echo) as (port, _):
        for target in targets:
            said, closed = await told(port, b"CONNECT " + target + H + b"\r\n" + PLAIN)
            assert said.count(b"HTTP/1.1 ") == 1, said
            assert b"/next" not in said
            assert closed


@pytest.mark.parametrize(
    "rest",
    [
        b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"Content-Length: 1\r\n\r\nxnonsense\r\n\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_wrong_behind_an_offer_is_no_request(rest: bytes) -> None:
    async with serving(echo) as (port, _):
        said, closed = await told(port, b"POST /" + H + H2C + rest)
    assert closed
    assert said.count(b"HTTP/1.1 ") <= 1
    assert b"nonsense" not in said


async def test_a_body_behind_an_offer_that_stops_is_waited_for() -> None:
    async with serving(echo) as (port, _):
        said, closed = await told(port, b"POST /" + H + H2C + b"Content-Length: 5\r\n\r\nhel")
    assert (said, closed) == (b"", False)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_with_http2_is_answered(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 100_000)
    async with serving(echo) as (port, _):
        curl = await asyncio.create_subprocess_exec(
            *("curl", "--http2", "--silent", "--show-error", "--max-time", "20"),
            *("--data-binary", f"@{body}", f"http://127.0.0.1:{port}/a"),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await curl.communicate()
    assert curl.returncode == 0
    answer = orjson.loads(said)
    assert "h2c" in answer["headers"]
    assert answer["body"] == "x" * 100_000
