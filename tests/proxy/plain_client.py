"""A client of one request per connection: every byte is seen, and whether the answer ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Answer:
    """What a client got. `whole`: the answer ended the way its framing says."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n == name), None)

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        found = self.json()
        error: dict[str, Any] = (found[0] if isinstance(found, list) else found)["error"]
        return error


class OpenCall:
    """One request on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: list[tuple[str, str]] = []

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> int:
        """Read the answer's head."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = raw.decode("latin-1").rstrip().split("\r\n")
        self.status = int(status.split(" ")[1])
        pairs = (line.partition(":") for line in lines)
        self.headers = [(name.lower(), value.strip()) for name, _, value in pairs]
        return self.status

    async def piece(self) -> bytes | None:
        """One chunk; b"" is the proper end, None an end without one."""
        try:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def rest(self) -> Answer:
        """Everything up to the end."""
        if not self.status:
            await self.head()
        headers = dict(self.headers)
        if "content-length" in headers:
            wanted = int(headers["content-length"])
            try:
                body, whole = await self.reader.readexactly(wanted), True
            except asyncio.IncompleteReadError as error:
                body, whole = error.partial, False
        elif "transfer-encoding" in headers:
            pieces = []
            while piece := await self.piece():
                pieces.append(piece)
            body, whole = b"".join(pieces), piece == b""
        else:
            body, whole = await self.reader.read(), True
        self.close()
        return Answer(self.status, self.headers, body, whole)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


def text_of(events: bytes) -> str:
    """The text of an OpenAI chat stream."""
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks_of(events)
        for choice in chunk.get("choices", ())
    )


def chunks_of(events: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of an event stream."""
    for line in events.splitlines():
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
            yield json.loads(line[5:])
