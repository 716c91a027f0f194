"""Requests that two readers could take for different ones, on a real socket: none is served, and
nothing behind them is taken for a request of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rig_kit import Replica, started

from lava_proxy.store.database import Database

CANARY = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/requests HTTP/1.1\r\nHost: x\r\n"
CHUNKS = b"0\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(CANARY)

REFUSED: dict[str, bytes] = {
    "length and chunks": POST + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + CHUNKS,
    "folded encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n" + LENGTH + b"\r\n" + CHUNKS,
    "space before the colon": POST + b"Transfer-Encoding : chunked\r\n" + LENGTH + b"\r\n",
    "two lengths": POST + b"Content-Length: 0\r\n" + LENGTH + b"\r\n",
    "two equal lengths": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": POST + b"Content-Length: 0, 0\r\n\r\n",
    "a signed length": POST + b"Content-Length: +0\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a hexadecimal length": POST + b"Content-Length: 0x0\r\n\r\n",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "a huge length": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS,
    "an encoding nobody knows": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "a chunk size with a sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
    "a chunk size with 0x": POST + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "a chunk size too large": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
    "a chunk longer than it says": POST
    + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "a chunk ended by LF": POST + b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
    "a control byte in a value": POST + b"X: a\x01b\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": POST + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "NUL in the path": b"GET /healthz\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bare CR": POST + b"X: a\rY: b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/3.0": b"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n",
    "a method in two words": b"GE T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    "a header without a name": b"GET /v1/requests HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n",
    "a header without a colon": b"GET /v1/requests HTTP/1.1\r\nHost: x\r\nrubbish\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

SERVED: dict[str, tuple[bytes, list[int]]] = {
    "HTTP/0.9: the parser takes it, nginx does not": (b"GET /healthz\r\n\r\n", [200]),
    "TRACE is no method of ours; what follows is whole": (
        b"TRACE /v1/requests HTTP/1.1\r\nHost: x\r\n\r\n",
        [405, 200],
    ),
}


async def answers(port: int, sent: bytes) -> list[int]:
    """The status of every answer to these bytes and a request behind them, until it is quiet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        writer.write(sent + CANARY)
        async with asyncio.timeout(0.4):
            while data := await reader.read(65536):
                got += data
    except (TimeoutError, OSError):
        pass
    finally:
        writer.close()
    return [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.timeout(60)
async def test_none_is_served(database_url: str, database: Database, tmp_path: Path) -> None:
    replica = Replica(database_url, tmp_path / "a", "http://127.0.0.1:9")
    await started(replica)
    served = {}
    for name, sent in REFUSED.items():
        statuses = await answers(replica.port, sent)
        if any(status < 400 for status in statuses):
            served[name] = statuses
    for name, (sent, expected) in SERVED.items():
        assert await answers(replica.port, sent) == expected, name
    assert await replica.state() == "normal", "the process lives"
    assert replica.stop() == 0
    print(f"{len(REFUSED)} raw requests, served or followed by what stood behind: {served}")
    assert served == {}
