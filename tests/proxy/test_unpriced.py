"""A model whose price nobody knows, by the meter's policy: refused, or taken at the provider's
dearest price and flagged; in the hold before the call as in the cost after it."""

from __future__ import annotations

import pytest
from gateway_kit import CHAT, Gate, fresh_model

from lava_adapters import Usage
from lava_proxy.net.simulated import Script
from lava_proxy.rules.price import cost

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID = (
    b'{"id":"c","model":"?","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1000,"completion_tokens":100}}'
)


def asking(model: str) -> dict[str, object]:
    return {"model": model, "max_tokens": 200, "messages": [{"role": "user", "content": "hello"}]}


async def _call(gate: Gate, payer: object, model: str):
    gate.sim.script[model] = Script.plain(SAID.replace(b"?", model.encode()))
    return await gate.call(CHAT, asking(model), payer)


async def test_refused_before_anything_is_sent(gate: Gate) -> None:
    payer = await gate.payer(rate_type="percentage", rate_e12=100 * 10**12)
    answer = await _call(gate, payer, fresh_model())
    assert (answer.status, answer.error()["code"]) == (402, "model_unpriced")
    assert gate.sim.requests == []


@pytest.mark.parametrize("rate_type", ["percentage", "fixed"])
async def test_taken_at_the_dearest_price_and_flagged(gate: Gate, rate_type: str) -> None:
    payer = await gate.payer(rate_type=rate_type, rate_e12=50 * 10**12, unpriced="dearest")
    assert (await _call(gate, payer, fresh_model())).whole
    books = gate.gateway.books
    rates = books.prices.of(payer.merchant_id).dearest("openai", books.now())
    assert rates is not None
    row = await gate.row(payer)
    assert "price_assumed" in row["flags"]
    assert "unpriced" not in row["flags"]
    assert row["price_version"] == f"{rates.version} dearest {rates.model}"
    assert row["cost_e10"] == cost(rates, Usage(1000, 100)).total_e10 > 0
    if rate_type == "percentage":
        assert row["charge_e10"] == (row["cost_e10"] + 1) // 2


async def test_the_hold_is_at_that_price_too(gate: Gate) -> None:
    """What the dearest model would cost must be there before the call."""
    payer = await gate.payer(
        "0.0010", rate_type="percentage", rate_e12=100 * 10**12, unpriced="dearest", mode="strict"
    )
    answer = await _call(gate, payer, fresh_model())
    assert (answer.status, answer.error()["code"]) == (402, "insufficient_credit")
    assert gate.sim.requests == []
    known = await _call(gate, payer, "gpt-4.1-nano")
    assert known.whole
    row = await gate.row(payer)
    assert "price_assumed" not in row["flags"]


async def test_a_fixed_meter_that_refuses_nothing_says_that_the_cost_is_unknown(gate: Gate) -> None:
    payer = await gate.payer()
    assert (await _call(gate, payer, fresh_model())).whole
    row = await gate.row(payer)
    assert (row["cost_e10"], row["flags"], row["price_version"]) == (0, ["unpriced"], None)
    assert row["charge_e10"] > 0


async def test_behind_a_router_the_price_is_that_of_who_serves(gate: Gate) -> None:
    payer = await gate.payer(rate_type="percentage", rate_e12=100 * 10**12)
    model = "Qwen/Qwen3-Next-80B-A3B-Instruct"
    gate.sim.script[model] = Script.plain(SAID.replace(b"?", model.encode()))
    charges = []
    for server in ("novita/v3/openai", "together/v1"):
        answer = await gate.call(f"/huggingface/{server}/chat/completions", asking(model), payer)
        assert answer.whole, answer.body
        charges.append((await gate.rows(payer))[-1]["charge_e10"])
    catalog = gate.gateway.books.prices.of(payer.merchant_id)
    for charge, server in zip(charges, ("novita", "together"), strict=True):
        rates = catalog.rates("huggingface", f"{model}:{server}", gate.gateway.books.now())
        assert rates is not None
        assert charge == cost(rates, Usage(1000, 100)).total_e10
    refused = await gate.call("/huggingface/v1/chat/completions", asking(model), payer)
    assert refused.error()["code"] == "model_unpriced"
