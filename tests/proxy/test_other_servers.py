"""The client leaves a server that is not uvicorn: what ASGI allows, message by message."""

from __future__ import annotations

import asyncio
import json

import pytest
from chat_bytes import DONE, asking, delta
from gateway_kit import CHAT, Gate, Payer, fresh_model
from raw_asgi import Raw

from lava_proxy.net.simulated import Piece, Script
from lava_proxy.proxy.run import StreamCut

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _sweep(gate: Gate, later_s: float, *lease_over: str) -> None:
    now_s = gate.gateway.books.clock.boot_s()
    gate.gateway.open_runs.sweep(now_s + later_s, set(lease_over))


def _raw(gate: Gate, payer: Payer, model: str, *, stream: bool = True) -> Raw:
    body = json.dumps(asking(model, stream=stream)).encode()
    return Raw(gate.app, CHAT, body, {"authorization": f"Bearer {payer.token()}"})


async def test_a_server_that_raises_when_the_client_is_gone(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script(
        (Piece(delta(" one")), Piece(delta(" two"), 0.02), Piece(b"", 30))
    )
    raw = _raw(gate, payer, model)
    task = asyncio.create_task(raw.run())
    await raw.changed.wait()
    raw.broken = True
    await task
    row = await gate.row(payer)
    assert row["outcome"] == "client_gone"
    (request,) = gate.seen(model)
    await gate.sim.until(lambda: request.closed_early_at)


async def test_a_server_that_raises_at_the_last_piece(gate: Gate) -> None:
    payer = await gate.payer()
    raw = _raw(gate, payer, "sim-4-0", stream=False)
    raw.open.clear()
    task = asyncio.create_task(raw.run())
    await gate.sim.until(lambda: gate.sim.requests and gate.sim.requests[-1].finished_at)
    raw.broken = True
    raw.open.set()
    await task
    assert (await gate.row(payer))["outcome"] in ("completed", "client_gone")


async def test_a_reader_that_stalls_at_the_last_piece(gate: Gate) -> None:
    """The call is booked before its end is sent, and the connection is not kept for ever."""
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script((Piece(delta(" one")), Piece(DONE, 0.02)))
    raw = _raw(gate, payer, model)
    task = asyncio.create_task(raw.run())
    await gate.until(lambda: len(raw.sent) >= 2)
    raw.open.clear()
    books = gate.gateway.books
    await gate.until(lambda: not books.journal.open_calls)  # booked, while the reader stalls
    assert not task.done()
    _sweep(gate, gate.gateway.settings.client_stall_s + 1)
    with pytest.raises(StreamCut):
        await task
    assert (await gate.row(payer))["outcome"] == "completed"
    assert (gate.seen(model)[0]).closed_early_at is None


async def test_a_stalled_reader_does_not_keep_a_cut_stream_running(gate: Gate) -> None:
    """The provider is let go before the client takes the error event."""
    payer = await gate.payer("0.0010")
    raw = _raw(gate, payer, "sim-4000-1")
    task = asyncio.create_task(raw.run())
    await gate.until(lambda: len(raw.sent) >= 2)
    (run,) = gate.gateway.open_runs.runs
    raw.open.clear()
    run.cancel("lease")
    request = gate.sim.requests[-1]
    await gate.sim.until(lambda: request.closed_early_at)
    assert not task.done()
    raw.open.set()
    with pytest.raises(StreamCut):
        await task
    assert b"budget_exhausted" in raw.body
    assert (await gate.row(payer))["outcome"] == "cut_off"
