"""Whichever of the relay's two ways learns that an answer must be masked, both mask it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from lava_adapters.contract import Ask, Framing
from lava_adapters.families.anthropic_reader import MessagesReader
from lava_proxy.net.http1.answer import Answer
from lava_proxy.proxy.exchange import State
from lava_proxy.proxy.relay import _Relay
from lava_proxy.proxy.run import Run
from lava_proxy.wire.tap import Tap

KEY = b"sk-live-0123456789abcdef"
ERROR = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'
LONG = b": " + b"x" * 100_000


def _delta(text: str) -> bytes:
    delta = {"type": "text_delta", "text": text}
    body = {"type": "content_block_delta", "index": 0, "delta": delta}
    return b"event: content_block_delta\ndata: " + orjson.dumps(body) + b"\n\n"


class _Provider:
    """Where an answer comes from."""

    deadline_s = 0.0

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def resume(self) -> None: ...

    def abort(self) -> None: ...


class _Client:
    """Takes pieces at once, or only when told to."""

    def __init__(self) -> None:
        self.got = b""
        self.slow = False
        self._takes = asyncio.Event()

    def pass_on(self, piece: bytes) -> bool:
        if not self.slow:
            self.got += piece
        return not self.slow

    async def send(self, message: dict[str, Any]) -> None:
        if self.slow:
            self._takes.clear()
            await self._takes.wait()
        self.got += message["body"]

    async def take(self) -> None:
        """Take what waits, until the relay has gone on."""
        self._takes.set()
        await _turns()


async def _turns() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def _relay(client: _Client, answer: Answer) -> _Relay:
    run = Run("req_1", 0.0, None)
    run.exchange.state = State.BODY
    run.upstream_secrets = (KEY,)
    run.tap = Tap(Framing.SSE, MessagesReader(Ask()))
    run.tap.on_failed = run.conceal
    counts = {"packed": 0, "outputs": 0, "inputs": 1, "input_characters": 0, "characters": 0}
    run.running = cast(Any, SimpleNamespace(**counts))
    journal = SimpleNamespace(progress=lambda *_: None)
    clock = SimpleNamespace(boot_s=asyncio.get_running_loop().time)
    gateway = SimpleNamespace(books=SimpleNamespace(journal=journal, clock=clock))
    return _Relay(cast(Any, gateway), run, answer, client.send)


@pytest.mark.parametrize(
    ("alarm", "behind"), [(ERROR, _delta("a")), (LONG, b"\n\n")], ids=["error", "torn"]
)
@pytest.mark.parametrize("slow", [True, False], ids=["in the task", "in the callback"])
async def test_a_key_behind_an_alarm_is_hidden(alarm: bytes, behind: bytes, slow: bool) -> None:
    client = _Client()
    answer = Answer(
        _Provider(), 200, [], content_type="text/event-stream", delimited=True, idle_s=10.0
    )
    running = asyncio.create_task(_relay(client, answer).run())

    async def comes(piece: bytes) -> None:
        answer.pieces.append(piece)
        answer.arrived()
        await _turns()

    await _turns()
    await comes(_delta("one"))
    await comes(_delta("two"))  # from here on they are plain
    client.slow = slow
    await comes(_delta("three"))
    await comes(alarm)  # where the client is slow, the task reads this, and what comes behind it
    await client.take()
    await comes(behind)
    await client.take()
    await comes(_delta("four"))
    await client.take()
    client.slow = False
    await client.take()
    await comes(_delta(f"the key is {KEY.decode()}"))
    await comes(_delta("five" * 10))  # a mask holds back what may be the start of a key
    answer.finished()
    await running
    assert b"four" in client.got
    assert KEY not in client.got
    assert b"*" * 8 in client.got
