"""A call that is over is freed at once: nothing of it is left to the garbage collector, whose pass
over some thousand calls would stop every stream for a tenth of a second."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from gateway_kit import CHAT, Gate, Payer, fresh_model
from rewrite_kit import CLAUDE

from lava_proxy.net.simulated import Piece, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = 3
GOOD = "sim-5-0-in7"
PACED = "sim-60-5-in7"
"""60 tokens, 5 ms apart: long enough for its client to be watched."""
HELLO = [{"role": "user", "content": "hello"}]


def _body(model: str, *, stream: bool = False) -> dict[str, object]:
    return {"model": model, "messages": HELLO, "max_tokens": 500, "stream": stream}


async def whole(gate: Gate, payer: Payer) -> None:
    assert (await gate.call(CHAT, _body(GOOD), payer)).status == 200


async def streamed(gate: Gate, payer: Payer) -> None:
    answer = await gate.call(CHAT, _body(PACED, stream=True), payer)
    assert (answer.status, answer.whole) == (200, True)


async def rewritten(gate: Gate, payer: Payer) -> None:
    path = f"/v1/rewrite/openai/{CLAUDE}"
    answer = await gate.call(path, _body(GOOD, stream=True), payer)
    assert (answer.status, answer.whole) == (200, True)


async def cut_off(gate: Gate, _: Payer) -> None:
    poor = await gate.payer("0.0004")
    assert (await gate.call(CHAT, _body(PACED, stream=True), poor)).status == 200
    assert (await gate.row(poor))["outcome"] == "cut_off"


async def refused(gate: Gate, _: Payer) -> None:
    assert (await gate.call(CHAT, _body(GOOD), await gate.payer("0"))).status == 402


async def provider_fails(gate: Gate, payer: Payer) -> None:
    model = fresh_model()
    gate.sim.script[model] = Script.json({"error": {"message": "broken"}}, status=500)
    assert (await gate.call(CHAT, _body(model), payer)).status == 500


async def client_leaves(gate: Gate, payer: Payer) -> None:
    model = fresh_model()
    gate.sim.script[model] = Script((Piece(b"", 30.0),))
    call = await gate.open_call(CHAT, _body(model, stream=True), payer)
    await gate.sim.until(lambda: gate.seen(model))
    call.close()
    request = gate.seen(model)[0]
    await gate.sim.until(lambda: request.closed_early_at)


@contextmanager
def collecting_by_hand() -> Iterator[None]:
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    "call", [whole, streamed, rewritten, cut_off, refused, provider_fails, client_leaves]
)
async def test_nothing_is_left(gate: Gate, call: Callable[[Gate, Payer], Awaitable[None]]) -> None:
    payer = await gate.payer()
    await call(gate, payer)  # what is made once
    await gate.booked()
    with collecting_by_hand():
        for _ in range(CALLS):
            await call(gate, payer)
        await gate.booked()
        await asyncio.sleep(0.1)  # the watchers' lists turn
        gc.collect()
        left = Counter(
            kind.__qualname__
            for kind in map(type, gc.garbage)
            if kind.__module__.startswith("lava_") and "simulated" not in kind.__module__
        )
        assert not left
