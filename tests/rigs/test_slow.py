"""Slow on both sides: readers that do not read, requests that do not come, providers that stand
still. Memory stays bounded, healthy calls go on, and when they are gone nothing is left of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rig_kit import LONG, Payer, Replica, call, make_payer, started, wait_settled
from test_disconnects import gauges

from lava_proxy.net.simulated import Ending, Piece, Script, SimRequest, SimulatedProvider
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database

READERS, LORISES, STALLS = (500, 500, 200) if LONG else (40, 20, 20)
HEALTHY = 40
KIB = 1024
TEXT = "word " * 400
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % TEXT.encode()
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"w"}}]}\n\n'
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":5}}\n\ndata: [DONE]\n\n'


def answer(request: SimRequest) -> Script:
    """By the model asked for: text without end, a few words and silence, or a short answer."""
    model = json.loads(request.body)["model"]
    if model == "endless":
        return Script(_endless())
    if model == "stalls":
        return Script((Piece(DELTA),) * 3, ends=Ending.STALL)
    return Script((*[Piece(DELTA, 0.005, 1)] * 5, Piece(LAST)))


def _endless() -> Iterator[Piece]:
    return itertools.repeat(Piece(EVENT))


class Slow:
    """Connections that are opened, say something, and then do nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[socket.socket] = []

    async def say(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", self._port))
        await loop.sock_sendall(sock, data)
        self._open.append(sock)

    def leave(self) -> None:
        while self._open:
            self._open.pop().close()


def request(payer: Payer, model: str, *, cut: int | None = None) -> bytes:
    """A request's bytes, or the first `cut` of them."""
    asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": "say"}]}
    body = json.dumps({**asked, "max_completion_tokens": 10_000_000}).encode()
    head = (
        "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
        f"Authorization: Bearer {payer.token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return (head.encode() + body)[:cut]


async def _healthy(port: int, payer: Payer) -> list[float]:
    """How long healthy calls took, sorted; all of them must be served."""
    took_s = []
    for n in range(HEALTHY):
        got = await call(port, payer, f"h-{n}", tokens=5, pace_ms=5, stream=True)
        assert (got.status, got.whole) == (200, True), got
        took_s.append(got.took_s)
    return sorted(took_s)


@pytest.mark.timeout(60 if not LONG else 300)
async def test_slow_on_both_sides(database_url: str, database: Database, tmp_path: Path) -> None:
    async with SimulatedProvider({"/v1/chat/completions": answer}) as sim:
        extra = {"LAVA_BODY_TIMEOUT_S": "2", "LAVA_DATABASE_WAIT_S": "20"}
        extra["LAVA_DATABASE_TIMEOUT_S"] = "20"
        replica = Replica(database_url, tmp_path / "a", sim.url, extra=extra)
        await started(replica)
        assert replica.process is not None
        process = psutil.Process(replica.process.pid)
        payer = await make_payer(database, "1000000.00")
        alone = await _healthy(replica.port, payer)
        rss, files = process.memory_info().rss, process.num_fds()
        slow = Slow(replica.port)
        for n in range(max(READERS, LORISES, STALLS)):
            if n < READERS:
                await slow.say(request(payer, "endless"))
            if n < LORISES:
                await slow.say(request(payer, "short", cut=20 if n % 2 else -10))
            if n < STALLS:
                await slow.say(request(payer, "stalls"))
        await _stand_still(sim, READERS + STALLS)
        beside = await _healthy(replica.port, payer)
        grown = process.memory_info().rss - rss
        slow.leave()
        await _back_to(process, files)
        after = await gauges(replica)
        assert after["lava_open_calls"] == after["lava_holds_open"] == after["lava_held_usd"] == 0
        assert replica.stop() == 0
        await wait_settled(database)
        found = await audit(database)
        assert found.sound, found.differences
        assert grown < (READERS + LORISES + STALLS) * 256 * KIB
        print(
            f"\n{READERS} readers, {LORISES} requests, {STALLS} providers: {grown / 2**20:.1f} MiB "
            f"more; healthy calls p50 {alone[HEALTHY // 2] * 1000:.0f} -> "
            f"{beside[HEALTHY // 2] * 1000:.0f} ms, p99 {alone[-1] * 1000:.0f} -> "
            f"{beside[-1] * 1000:.0f} ms"
        )


async def _stand_still(sim: SimulatedProvider, calls: int) -> None:
    """Until all have been asked for and nothing moves any more: every buffer on the way is full."""
    before = -1
    while True:
        slow = [
            r for r in sim.requests if b'"model": "short"' not in r.body and b"sim-" not in r.body
        ]
        now = sum(r.sent_bytes for r in slow)
        if len(slow) == calls and now == before:
            return
        before = now
        await asyncio.sleep(0.5)


async def _back_to(process: psutil.Process, files: int) -> None:
    """Until its descriptors are those that it had: kept connections may be a few more."""
    for _ in range(100):
        if process.num_fds() <= files + 20:
            break
        await asyncio.sleep(0.1)
    assert process.num_fds() <= files + 20
    await asyncio.sleep(1.2)  # the gauges are sampled once a second
