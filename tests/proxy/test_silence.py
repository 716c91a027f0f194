"""A silence that the call ends in costs the reasoning that is assumed for it, by 100 tokens/s."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gateway_kit import CHAT, TOKEN_E10, Gate, Payer, fresh_model
from plain_client import OpenCall

from lava_proxy.books.journal import read_folder
from lava_proxy.books.segment import PROGRESS
from lava_proxy.net.simulated import Ending, Piece, Script
from lava_proxy.proxy import silence

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"idle_timeout_s": 1.3}
SILENT_S = 3.0


def delta(text: str) -> bytes:
    choices = [{"index": 0, "delta": {"content": text}}]
    chunk = {"id": "chatcmpl-1", "model": "m", "choices": choices}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def _silent(
    gate: Gate, payer: Payer, script: Script, *, model: str = "gpt-5-", **more: object
) -> tuple[OpenCall, Any]:
    """A stream that has said its first word; its run."""
    model += fresh_model()
    gate.sim.script[model] = script
    hello = [{"role": "user", "content": "hello there"}]
    asked = {"model": model, "messages": hello, "stream": True, **more}
    call = await gate.open_call(CHAT, asked, payer)
    await call.head()
    await call.piece()
    (run,) = gate.gateway.open_runs.runs
    await gate.until(lambda: run.waiting is not None and run.sending_since_s is None)
    account = run.holds.credit.account
    await gate.until(lambda: account.trip is None)  # more was leased already
    return call, run


def _stalled() -> Script:
    return Script((Piece(delta(" one")),), ends=Ending.STALL)


async def _charged(gate: Gate, payer: Payer) -> Any:
    row = await gate.row(payer)
    assert row["usage_source"] == "estimate"
    assert row["charge_e10"] == (row["input_tokens"] + row["output_tokens"]) * TOKEN_E10
    return row


async def test_the_client_leaves_a_silent_provider(gate: Gate) -> None:
    payer = await gate.payer()
    call, run = await _silent(gate, payer, _stalled())
    run.waiting.since_s -= SILENT_S
    call.close()
    row = await _charged(gate, payer)
    assert row["outcome"] == "client_gone"
    assert 300 <= row["output_tokens"] < 400


async def test_the_provider_stays_silent(gate: Gate) -> None:
    payer = await gate.payer()
    call, _ = await _silent(gate, payer, _stalled())
    assert not (await call.rest()).whole
    row = await _charged(gate, payer)
    assert row["outcome"] == "truncated"
    assert 130 <= row["output_tokens"] < 250


async def test_a_crash_does_not_lose_it(gate: Gate) -> None:
    payer = await gate.payer()
    call, _ = await _silent(gate, payer, _stalled())
    folder = gate.gateway.books.journal.folder
    silence.journal(gate.gateway, gate.gateway.books.clock.boot_s() + SILENT_S)
    made = [r.counts[1] for r in read_folder(folder) if r.kind == PROGRESS]
    assert 300 <= made[-1] < 400
    call.close()
    await _charged(gate, payer)


async def test_only_where_the_model_hides_its_reasoning(gate: Gate) -> None:
    payer = await gate.payer()
    call, run = await _silent(gate, payer, _stalled(), model="")
    run.waiting.since_s -= SILENT_S
    folder = gate.gateway.books.journal.folder
    before = len(list(read_folder(folder)))
    silence.journal(gate.gateway, gate.gateway.books.clock.boot_s())
    assert len(list(read_folder(folder))) == before
    call.close()
    assert (await _charged(gate, payer))["output_tokens"] == 1


async def test_not_more_than_was_asked_for(gate: Gate) -> None:
    payer = await gate.payer()
    call, run = await _silent(gate, payer, _stalled(), max_completion_tokens=50)
    run.waiting.since_s -= SILENT_S
    call.close()
    assert (await _charged(gate, payer))["output_tokens"] == 51


async def test_not_more_than_there_is_credit_for(gate: Gate) -> None:
    payer = await gate.payer("0.001")  # 100 tokens
    call, run = await _silent(gate, payer, _stalled())
    run.waiting.since_s -= SILENT_S
    call.close()
    row = await _charged(gate, payer)
    assert 50 < row["output_tokens"] <= 100 - row["input_tokens"]
    assert await gate.left_e10(payer) >= 0


async def test_a_silence_that_the_client_makes_is_nobodys_reasoning(gate: Gate) -> None:
    payer = await gate.payer()
    call, run = await _silent(gate, payer, _stalled())
    run.waiting.since_s -= SILENT_S
    run.sending_since_s = gate.gateway.books.clock.boot_s()
    call.close()
    assert (await _charged(gate, payer))["output_tokens"] == 1
