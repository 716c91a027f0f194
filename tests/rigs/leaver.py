"""A client that leaves: requests on kept connections, broken off at a random point."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from dataclasses import dataclass, field

from rig_kit import Payer

from lava_proxy.net.simulated import Piece, Script, SimRequest

PIECES = 12
PACE_S = 0.01
MARK = re.compile(rb"v-\d+-\d+-v")
WAYS = ("whole", "half a request", "before the head", "in the stream", "at the end")


@dataclass
class Visit:
    """One request and how it was left."""

    mark: str
    way: str
    stream: bool
    reset: bool
    left_s: float | None = None
    crossed: bool = False
    whole: bool = False
    status: int = 0
    error: str = ""


def answer(request: SimRequest) -> Script:
    """An answer that says whose it is in every piece, and how much it was at its end."""
    asked = json.loads(request.body)
    mark = asked["user"]
    usage = {"prompt_tokens": 4, "completion_tokens": PIECES}
    if not asked.get("stream"):
        choice = {"message": {"content": f"{mark} " * PIECES}, "finish_reason": "stop"}
        whole = {"id": mark, "choices": [choice], "usage": usage}
        return Script.plain(json.dumps(whole).encode(), delay_s=PIECES * PACE_S, tokens=PIECES)
    delta = {"id": mark, "choices": [{"index": 0, "delta": {"content": f"{mark} "}}]}
    last = {"id": mark, "choices": [], "usage": usage}
    return Script(
        (
            *[Piece(b"data: %s\n\n" % json.dumps(delta).encode(), PACE_S, 1)] * PIECES,
            Piece(b"data: %s\n\ndata: [DONE]\n\n" % json.dumps(last).encode()),
        )
    )


@dataclass
class Leaver:
    """One client with one kept connection at a time."""

    port: int
    payer: Payer
    rng: random.Random
    visits: list[Visit] = field(default_factory=list)
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def visit(self, mark: str) -> Visit:
        """One request, left in a random way."""
        rng = self.rng
        visit = Visit(mark, rng.choice(WAYS), rng.random() < 0.7, rng.random() < 0.5)
        self.visits.append(visit)
        try:
            async with asyncio.timeout(20):
                await self._ask(visit)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            visit.error = repr(error)
            self._drop(reset=True)
        return visit

    async def _ask(self, visit: Visit) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        head, body = self._request(visit)
        if visit.way == "half a request":
            writer.write(head + body[: len(body) // 2])
            await asyncio.sleep(self.rng.uniform(0, 0.03))
            self._leave(visit)
            return
        writer.write(head + body)
        if visit.way == "before the head":
            await asyncio.sleep(self.rng.uniform(0, 2 * PACE_S))
            self._leave(visit)
            return
        lines = (await reader.readuntil(b"\r\n\r\n")).lower()
        visit.status = int(lines.split()[1])
        if visit.way == "in the stream":
            text = await reader.read(self.rng.randrange(1, 1500))
            self._judge(visit, text, whole=False)
            await asyncio.sleep(self.rng.uniform(0, PIECES * PACE_S / 2))
            self._leave(visit)
            return
        text = await _body(reader, lines)
        self._judge(visit, text, whole=True)
        if visit.way == "at the end" or b"connection: close" in lines:
            self._leave(visit)

    def _request(self, visit: Visit) -> tuple[bytes, bytes]:
        asked = {
            "model": "m",
            "user": visit.mark,
            "stream": visit.stream,
            "messages": [{"role": "user", "content": "say something"}],
            "max_completion_tokens": 100,
        }
        body = json.dumps(asked).encode()
        head = (
            "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
            f"Authorization: Bearer {self.payer.token}\r\nContent-Type: application/json\r\n"
            f"X-Lava-Metadata-Mark: {visit.mark}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode(), body

    def _judge(self, visit: Visit, text: bytes, *, whole: bool) -> None:
        """Nothing of anybody else's may be in it."""
        if visit.status != 200:
            visit.error = f"{visit.status}: {text[:300]!r}"
        marks = set(MARK.findall(text))
        visit.crossed = not marks <= {visit.mark.encode()}
        visit.whole = whole and text.count(visit.mark.encode()) >= PIECES

    def _leave(self, visit: Visit) -> None:
        visit.left_s = time.monotonic()
        self._drop(reset=visit.reset)

    def _drop(self, *, reset: bool) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            if reset:
                writer.transport.abort()
            writer.close()

    async def bye(self) -> None:
        """Close the kept connection."""
        self._drop(reset=False)
        await asyncio.sleep(0.01)


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """A whole body, by length or by chunks."""
    _, found, length = head.partition(b"content-length:")
    if found:
        return await reader.readexactly(int(length.split()[0]))
    pieces = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return b"".join(pieces)
