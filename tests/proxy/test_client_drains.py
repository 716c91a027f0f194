"""The other way when a client leaves: the answer is read to its end, within limits, and billed by
what the provider says of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from chat_bytes import DONE, asking
from gateway_kit import CHAT, TOKEN_E10, Gate, Payer, fresh_model
from plain_client import OpenCall
from raw_asgi import Raw

from lava_adapters.registry import Registry
from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.net.simulated import Ending, Piece, Script, SimRequest
from lava_proxy.proxy.assemble import egress_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS: dict[str, Any] = {
    "client_drain_providers": ("openai",),
    "client_drain_max_s": 30.0,
    "client_drain_tokens": 50,
    "client_drains_max": 2,
}


def delta(text: str) -> bytes:
    chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def usage(inputs: int, outputs: int) -> bytes:
    counts = {"prompt_tokens": inputs, "completion_tokens": outputs}
    return b"data: " + json.dumps({"id": "c", "choices": [], "usage": counts}).encode() + b"\n\n"


async def _asked(gate: Gate, model: str) -> SimRequest:
    await gate.sim.until(lambda: gate.seen(model))
    return gate.seen(model)[0]


async def _begun(gate: Gate, payer: Payer, *pieces: Piece) -> tuple[OpenCall, SimRequest]:
    """A stream whose client has seen its first event."""
    model = fresh_model()
    gate.sim.script[model] = Script((Piece(delta(" one")), *pieces))
    call = await gate.open_call(CHAT, asking(model), payer)
    await call.head()
    assert await call.piece()
    return call, await _asked(gate, model)


async def _without_its_client(gate: Gate, call: OpenCall, many: int = 1) -> None:
    call.close()
    await gate.until(lambda: gate.gateway.open_runs.drains == many)


async def test_a_stream_is_billed_by_the_providers_own_usage(gate: Gate) -> None:
    payer = await gate.payer()
    rest = Piece(delta(" two") + usage(9, 7) + DONE, 0.5)
    call, request = await _begun(gate, payer, rest)
    await _without_its_client(gate, call)
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("client_gone", "provider")
    assert (row["input_tokens"], row["output_tokens"]) == (9, 7)
    assert row["charge_e10"] == 16 * TOKEN_E10
    assert request.closed_early_at is None
    assert gate.gateway.open_runs.drains == 0


async def test_a_provider_that_goes_on_charging_is_read_without_being_named(gate: Gate) -> None:
    """Groq's row says that a hang-up does not stop the charge; Fireworks' says that it does."""
    for provider, outcome, source, made in (
        ("groq/openai", "client_gone", "provider", 5),
        ("fireworks/inference", "client_gone", "estimate", 1),
    ):
        payer, model = await gate.payer(), fresh_model()
        rest = Piece(delta(" two") + usage(7, 5) + DONE, 0.3)
        gate.sim.script[model] = Script((Piece(delta(" one")), rest))
        path = f"/{provider}/v1/chat/completions"
        call = await gate.open_call(path, asking(model), payer)
        await call.head()
        assert await call.piece()
        call.writer.close()
        row = await gate.row(payer)
        assert (row["outcome"], row["usage_source"]) == (outcome, source)
        assert row["output_tokens"] == made


async def test_a_plain_answer_too(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    answer = {
        "id": "c",
        "choices": [{"message": {"content": "word " * 100}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 100},
    }
    gate.sim.script[model] = Script.plain(json.dumps(answer).encode(), delay_s=0.5)
    call = await gate.open_call(CHAT, asking(model, stream=False), payer)
    request = await _asked(gate, model)
    await _without_its_client(gate, call)
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("client_gone", "provider")
    assert row["output_tokens"] == 100  # what is made cannot be unmade: no limit of output here
    assert request.closed_early_at is None


async def test_output_is_limited(gate: Gate) -> None:
    """1 token before, at most 50 after; then it is what it would have been without."""
    payer = await gate.payer()
    more = [Piece(delta(" more"), 0.2), *[Piece(delta(" more"), 0.001) for _ in range(200)]]
    call, request = await _begun(gate, payer, *more, Piece(b"", 30.0))
    await _without_its_client(gate, call)
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("client_gone", "estimate")
    assert row["output_tokens"] == 51
    await gate.sim.until(lambda: request.closed_early_at)


async def test_time_is_limited(gate: Gate) -> None:
    payer = await gate.payer()
    call, request = await _begun(gate, payer, Piece(b"", 30.0))
    await _without_its_client(gate, call)
    now_s = gate.gateway.books.clock.boot_s()
    gate.gateway.open_runs.sweep(now_s + 29.0, set())
    await asyncio.sleep(0.05)
    assert gate.gateway.open_runs.drains == 1
    gate.gateway.open_runs.sweep(now_s + 31.0, set())
    row = await gate.row(payer)
    assert (row["outcome"], row["output_tokens"]) == ("client_gone", 1)
    await gate.sim.until(lambda: request.closed_early_at)
    assert gate.gateway.open_runs.drains == 0


async def test_money_is_limited_by_the_customers_credit(gate: Gate) -> None:
    """A drain extends its hold like any stream, and ends where no extension can be had."""
    payer = await gate.payer("0.00045")  # 45 tokens, the prompt included
    more = [Piece(delta(" more"), 0.2), *[Piece(delta(" more"), 0.001) for _ in range(200)]]
    call, request = await _begun(gate, payer, *more, Piece(b"", 30.0))
    await _without_its_client(gate, call)
    row = await gate.row(payer)
    assert row["outcome"] == "client_gone"
    assert row["charge_e10"] <= payer.credit_e10
    await gate.sim.until(lambda: request.closed_early_at)


async def test_their_number_is_limited(gate: Gate) -> None:
    payers = [await gate.payer() for _ in range(3)]
    calls = [await _begun(gate, payer, Piece(b"", 30.0)) for payer in payers]
    for number, (call, _) in enumerate(calls[:2]):
        await _without_its_client(gate, call, number + 1)
    third, request = calls[2]
    third.close()
    await gate.sim.until(lambda: request.closed_early_at)  # this one is let go at once
    assert gate.gateway.open_runs.drains == 2
    gate.gateway.open_runs.sweep(gate.gateway.books.clock.boot_s() + 31.0, set())
    for payer in payers:
        assert (await gate.row(payer))["outcome"] == "client_gone"


async def test_an_error_of_the_providers_stays_one(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script((Piece(b'{"error": {}}', 0.5),), status=500)
    call = await gate.open_call(CHAT, asking(model), payer)
    await _asked(gate, model)
    await _without_its_client(gate, call)
    row = await gate.row(payer)
    assert (row["outcome"], row["charge_e10"]) == ("upstream_error", 0)


async def test_a_broken_answer_is_billed_as_counted(gate: Gate) -> None:
    payer = await gate.payer()
    model = fresh_model()
    pieces = (Piece(delta(" one")), Piece(delta(" two"), 0.5))
    gate.sim.script[model] = Script(pieces, ends=Ending.RESET)
    call = await gate.open_call(CHAT, asking(model), payer)
    await call.head()
    assert await call.piece()
    await _without_its_client(gate, call)
    row = await gate.row(payer)
    assert (row["outcome"], row["output_tokens"]) == ("client_gone", 2)


async def test_a_server_that_raises_when_nobody_listens(gate: Gate) -> None:
    """Some servers say it by an OSError out of `send`."""
    payer, model = await gate.payer(), fresh_model()
    rest = Piece(usage(9, 7) + DONE, 0.05)
    gate.sim.script[model] = Script((Piece(delta(" one")), Piece(delta(" two"), 0.1), rest))
    body = json.dumps(asking(model)).encode()
    raw = Raw(gate.app, CHAT, body, {"authorization": f"Bearer {payer.token()}"})
    task = asyncio.create_task(raw.run())
    await gate.until(lambda: raw.body)
    raw.broken = True
    await task
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"], row["output_tokens"]) == (
        "client_gone",
        "provider",
        7,
    )


async def test_an_unknown_provider_is_an_error() -> None:
    settings = Settings(client_drain_providers=("opnai",))
    with pytest.raises(ConfigurationError, match="opnai"):
        egress_of(settings, Registry.builtin())
