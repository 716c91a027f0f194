"""Talking to the simulated provider byte by byte."""

from __future__ import annotations

import asyncio
import json

from lava_proxy.net.simulated import SimulatedProvider

HI = [{"role": "user", "content": "hello there"}]


def post(path: str, body: object, *headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: sim", f"Content-Length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


async def exchange(sim: SimulatedProvider, request: bytes) -> bytes:
    """All bytes of the answer to one request, up to the server's FIN."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


def dechunk(body: bytes) -> tuple[bytes, bool]:
    """(content, ended with the last chunk)."""
    content = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return content, True
        content += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return content, False


async def answered(sim: SimulatedProvider, path: str, body: object) -> tuple[bytes, bytes, bool]:
    """(head, content, complete) of one chunked answer."""
    raw = await exchange(sim, post(path, body, "Connection: close"))
    head, _, rest = raw.partition(b"\r\n\r\n")
    return head, *dechunk(rest)
