"""The client leaves, stalls or is slow: the provider is let go at once, the call is booked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import psutil
import pytest
from chat_bytes import DONE, asking, delta
from gateway_kit import CHAT, TOKEN_E10, Gate, Payer, fresh_model
from plain_client import Answer, OpenCall
from raw_asgi import Raw

from lava_proxy.net.simulated import Piece, Script, SimRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

GONE_S = 0.1
"""Between the client's leaving and the provider's noticing."""


def endless() -> Iterator[Piece]:
    piece = Piece(b"".join(delta(" word") for _ in range(100)))
    while True:
        yield piece


async def _until_asked(gate: Gate, model: str) -> SimRequest:
    await gate.sim.until(lambda: gate.seen(model))
    return gate.seen(model)[0]


async def _leaving(
    gate: Gate, call: OpenCall, request: SimRequest, *, reset: bool = False
) -> float:
    """Leave, and say how long the provider took to notice."""
    left_s = time.monotonic()
    if reset:
        call.reset()
    else:
        call.close()
    await gate.sim.until(lambda: request.closed_early_at)
    assert request.closed_early_at is not None
    return request.closed_early_at - left_s


@pytest.mark.parametrize("stream", [True, False])
async def test_before_the_head(gate: Gate, stream: bool) -> None:
    took_s = []
    for _ in range(5):
        payer, model = await gate.payer(), fresh_model()
        gate.sim.script[model] = Script((Piece(b"", 30.0),))
        call = await gate.open_call(CHAT, asking(model, stream=stream), payer)
        request = await _until_asked(gate, model)
        took_s.append(await _leaving(gate, call, request))
        row = await gate.row(payer)
        assert (row["outcome"], row["usage_source"]) == ("client_gone", "estimate")
        assert row["charge_e10"] == row["input_tokens"] * TOKEN_E10 > 0
        assert await gate.left_e10(payer) == payer.credit_e10 - row["charge_e10"]
    assert sorted(took_s)[2] < GONE_S, took_s


@pytest.mark.parametrize("reset", [True, False])
async def test_during_a_stream(gate: Gate, reset: bool) -> None:
    took_s = []
    for _ in range(5):
        payer, model = await gate.payer(), fresh_model()
        gate.sim.script[model] = Script((Piece(delta(" one") + delta(" two")), Piece(b"", 30.0)))
        call = await gate.open_call(CHAT, asking(model), payer)
        await call.head()
        assert await call.piece()
        request = await _until_asked(gate, model)
        took_s.append(await _leaving(gate, call, request, reset=reset))
        row = await gate.row(payer)
        assert (row["outcome"], row["output_tokens"]) == ("client_gone", 2)
        assert row["charge_e10"] == (row["input_tokens"] + 2) * TOKEN_E10
    assert sorted(took_s)[2] < GONE_S, took_s


async def test_a_half_closed_connection_is_a_client_that_left(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script((Piece(delta(" one")), Piece(b"", 30.0)))
    call = await gate.open_call(CHAT, asking(model), payer)
    await call.head()
    call.writer.write_eof()
    request = await _until_asked(gate, model)
    await gate.sim.until(lambda: request.closed_early_at)
    assert (await gate.row(payer))["outcome"] == "client_gone"
    call.close()


async def test_at_done_the_call_is_complete(gate: Gate) -> None:
    """Several SDKs close at [DONE], before the last chunk of the connection."""
    payer, model = await gate.payer(), fresh_model()
    counts = {"prompt_tokens": 9, "completion_tokens": 1}
    usage = {"id": "c", "choices": [], "usage": counts}
    events = delta(" one") + b"data: " + json.dumps(usage).encode() + b"\n\n" + DONE
    gate.sim.script[model] = Script((Piece(events),), end_delay_s=30.0)
    call = await gate.open_call(CHAT, asking(model), payer)
    await call.head()
    got = b""
    while not got.endswith(DONE):
        got += await call.piece() or b""
    call.close()
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("completed", "provider")
    assert (row["input_tokens"], row["output_tokens"]) == (9, 1)


async def test_in_the_middle_of_the_body_nothing_happens(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    body = json.dumps(asking(model)).encode()
    call = await gate.open_call(CHAT, body, payer, length=len(body) + 100)
    await gate.until(lambda: gate.gateway.open_runs.runs)
    call.close()
    assert await gate.rows(payer) == []
    assert gate.sim.requests == []


async def test_a_slow_reader_slows_the_provider_down(gate: Gate) -> None:
    payer, model = await gate.payer(unit="requests", rate_e12=10**9), fresh_model()
    gate.sim.script[model] = Script(endless())
    before = psutil.Process().memory_info().rss
    call = await gate.open_call(CHAT, asking(model), payer, slow=True)
    await call.head()
    request = await _until_asked(gate, model)
    stopped_at = await _stands_still(gate, request)
    # What lies in the kernel's buffers of two connections, and no more.
    assert stopped_at < 32 * 2**20
    assert psutil.Process().memory_info().rss - before < 24 * 2**20
    for _ in range(40):  # the kernel gives news of room in large steps
        for _ in range(200):
            assert await call.piece()
        if request.sent_bytes > stopped_at:
            break
    assert request.sent_bytes > stopped_at
    call.reset()
    row = await gate.row(payer)
    assert row["outcome"] == "client_gone"
    # Some of what was counted lay in buffers, but nothing that the provider never sent.
    assert 0 < row["output_tokens"] <= request.sent_bytes // len(delta(" word"))


async def _stands_still(gate: Gate, request: SimRequest) -> int:
    """How much had been sent when the provider had to wait."""
    (run,) = gate.gateway.open_runs.runs
    since_s = None
    while since_s is None or since_s != run.sending_since_s:
        since_s = run.sending_since_s
        await asyncio.sleep(0.2)
    return request.sent_bytes


def _sweep(gate: Gate, later_s: float, *lease_over: str) -> None:
    now_s = gate.gateway.books.clock.boot_s()
    gate.gateway.open_runs.sweep(now_s + later_s, set(lease_over))


async def test_a_reader_that_stalls_is_treated_as_gone(gate: Gate) -> None:
    payer, model = await gate.payer(unit="requests", rate_e12=10**9), fresh_model()
    gate.sim.script[model] = Script(endless())
    call = await gate.open_call(CHAT, asking(model), payer, slow=True)
    request = await _until_asked(gate, model)
    await _stands_still(gate, request)
    _sweep(gate, 1.0)
    assert gate.gateway.open_runs.runs
    _sweep(gate, gate.gateway.settings.client_stall_s + 1)
    await gate.sim.until(lambda: request.closed_early_at)
    assert (await gate.row(payer))["outcome"] == "client_gone"
    call.reset()


async def _held_open(gate: Gate, payer: Payer, model: str) -> tuple[OpenCall, SimRequest]:
    gate.sim.script[model] = Script((Piece(delta(" one") + delta(" two")), Piece(b"", 30.0)))
    call = await gate.open_call(CHAT, asking(model), payer)
    await call.head()
    return call, await _until_asked(gate, model)


async def _over(gate: Gate, call: OpenCall, request: SimRequest) -> Answer:
    answer = await call.rest()
    await gate.sim.until(lambda: request.closed_early_at)
    return answer


async def test_the_longest_stream_ends_unfinished(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    call, request = await _held_open(gate, payer, model)
    _sweep(gate, gate.gateway.settings.stream_max_s + 1)
    answer = await _over(gate, call, request)
    assert (answer.body, answer.whole) == (delta(" one") + delta(" two"), False)
    row = await gate.row(payer)
    assert (row["outcome"], row["output_tokens"]) == ("truncated", 2)


async def test_the_deadline_before_the_head(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script((Piece(b"", 30.0),))
    call = await gate.open_call(CHAT, asking(model), payer)
    request = await _until_asked(gate, model)
    _sweep(gate, gate.gateway.settings.stream_max_s + 1)
    answer = await _over(gate, call, request)
    assert (answer.status, answer.error()["code"]) == (504, "upstream_timeout")
    assert (await gate.row(payer))["outcome"] == "void"


async def test_the_deadline_before_anything_is_held(gate: Gate) -> None:
    payer = await gate.payer()
    raw = Raw(gate.app, CHAT, b"", {"authorization": f"Bearer {payer.token()}"})
    raw.inbox.get_nowait()
    task = asyncio.create_task(raw.run())
    await gate.until(lambda: gate.gateway.open_runs.runs)
    (run,) = gate.gateway.open_runs.runs
    run.cancel("deadline")
    await task
    assert raw.status == 408
    assert await gate.rows(payer) == []


async def test_a_lease_that_is_over_cuts_the_stream(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    call, request = await _held_open(gate, payer, model)
    _sweep(gate, 0.0, payer.customer_id)
    answer = await _over(gate, call, request)
    assert b"budget_exhausted" in answer.body
    assert not answer.whole
    assert (await gate.row(payer))["outcome"] == "cut_off"
