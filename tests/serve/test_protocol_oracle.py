"""Our connections against uvicorn's own: what is asked in these ways is answered the same, byte for
byte, however it is split; where we differ is listed, with what we do."""

from __future__ import annotations

import asyncio

import pytest
from protocol_kit import echo, serving, told
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

H = b" HTTP/1.1\r\nHost: a\r\n"
END = b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

SAME = {
    "plain": b"GET /" + H + END,
    "query": b"GET /a/b?c=d&e?f" + H + END,
    "query only": b"GET /?" + H + END,
    "escapes": b"GET /a%2Fb%20c%C3%A4?%20" + H + END,
    "dots": b"GET /../a//b/./c" + H + END,
    "fragment": b"GET /a?b#c" + H + END,
    "absolute": b"GET http://host:80/a?b" + H + END,
    "absolute, no path": b"GET http://host" + H + END,
    "star": b"OPTIONS *" + H + END,
    "connect": b"CONNECT host:443" + H + END,
    "bytes over 127": b"GET /\xc3\xa4" + H + END,
    "head": b"HEAD /" + H + END,
    "body": b"POST /" + H + b"Content-Length: 5\r\n\r\nhello",
    "empty body": b"POST /" + H + b"Content-Length: 0\r\n\r\n",
    "chunks": b"POST /" + H + CHUNKED + b"3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n",
    "two requests": b"GET /1" + H + END + b"GET /2" + H + END,
    "body and more": b"POST /1" + H + b"Content-Length: 1\r\n\r\nx" + b"GET /2" + H + END,
    "close": b"GET /" + H + b"Connection: close\r\n\r\n",
    "close and more": b"GET /" + H + b"Connection: close\r\n\r\n" + b"GET /2" + H + END,
    "1.0": b"GET / HTTP/1.0\r\n\r\n",
    "1.0, to be kept": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "empty lines first": b"\r\n\r\nGET /" + H + END,
    "wait for our word": b"POST /" + H + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    "another expectation": b"POST /" + H + b"Expect: more\r\nContent-Length: 1\r\n\r\nx",
    "names in any case": b"GET / HTTP/1.1\r\nHOST: a\r\nX-y: B \r\nX-Y:\tc\r\n\r\n",
    "bytes in a value": b"GET /" + H + b"X: \xff\x80\r\n\r\n",
    "both lengths": b"POST /" + H + b"Content-Length: 1\r\n" + CHUNKED + b"0\r\n\r\n",
    "two lengths": b"POST /" + H + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "odd length": b"POST /" + H + b"Content-Length: +1\r\n\r\nx",
    "odd coding": b"POST /" + H + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "folded": b"GET /" + H + b"X: a\r\n b\r\n\r\n",
    "space before colon": b"GET /" + H + b"X : a\r\n\r\n",
    "no colon": b"GET /" + H + b"nonsense\r\n\r\n",
    "lines end early": b"GET / HTTP/1.1\nHost: a\n\n",
    "NUL": b"GET /" + H + b"X: \0\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "no method": b"NONSENSE /" + H + END,
    "2.0": b"GET / HTTP/2.0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bad chunk": b"POST /" + H + CHUNKED + b"x\r\n",
    "bad end of chunk": b"POST /" + H + CHUNKED + b"1\r\nxx\r\n0\r\n\r\n",
    "unfinished": b"POST /" + H + b"Content-Length: 5\r\n\r\nhel",
}

OTHERWISE = {
    # An answer is whole before the connection ends, and what follows a request is none of it.
    "garbage behind": (b"GET /" + H + END + b"hello\r\n\r\n", b"HTTP/1.1 200", True),
    # We speak no other protocol: what follows may have passed a proxy that thinks we do.
    "websocket": (
        b"GET /" + H + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\nxx",
        b"HTTP/1.1 200",
        True,
    ),
}


@pytest.mark.parametrize("split", [False, True], ids=["whole", "bytes"])
async def test_as_uvicorn_answers(split: bool) -> None:
    async def answers(port: int) -> dict[str, tuple[bytes, bool]]:
        asked = [
            told(port, *([sent[i : i + 1] for i in range(len(sent))] if split else [sent]))
            for sent in SAME.values()
        ]
        return dict(zip(SAME, await asyncio.gather(*asked), strict=True))

    async with serving(echo) as (port, _):
        ours = await answers(port)
    async with serving(echo, HttpToolsProtocol) as (port, _):
        theirs = await answers(port)
    assert {n: ours[n] for n in SAME if ours[n] != theirs[n]} == {}, theirs
    assert sum(said.startswith(b"HTTP/1.1 200") for said, _ in ours.values()) > len(SAME) // 3


@pytest.mark.parametrize("name", OTHERWISE)
async def test_where_we_differ(name: str) -> None:
    sent, begins, closes = OTHERWISE[name]
    async with serving(echo) as (port, _):
        said, closed = await told(port, sent)
    assert said.startswith(begins)
    assert said.count(b"HTTP/1.1 ") == 1
    assert closed is closes
