"""A running gateway corrects by itself what had no price, once there is one."""

from __future__ import annotations

import asyncio

import pytest
from gateway_kit import CHAT, Gate, fresh_model
from spend_kit import managed

from lava_proxy.net.simulated import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"rerate_interval_s": 0.1, "rerate_after_s": 0.0}
SAID = (
    b'{"id":"c","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1000,"completion_tokens":100}}'
)


async def test_a_price_that_comes_late_needs_nobody(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script.plain(SAID)
    body = {"model": model, "max_tokens": 200, "messages": [{"role": "user", "content": "hello"}]}
    assert (await gate.call(CHAT, body, payer)).whole
    request_id = (await gate.row(payer))["request_id"]
    rates = {"input_1m": "2", "output_1m": "10"}
    wanted = {"provider": "openai", "model": model, "rates": rates}
    price = await managed(gate, payer, "POST", "/v1/prices", wanted)
    async with asyncio.timeout(20):
        while True:
            shown = await managed(gate, payer, "GET", f"/v1/requests/{request_id}")
            if "rerated" in shown:
                break
            await asyncio.sleep(0.05)
    assert (shown["cost"], shown["rerated"]["booked_cost"]) == ("0.0030000000", "0.0000000000")
    assert shown["price_version"] == f"override/{price['price_id']}"
    used = await managed(gate, payer, "GET", "/v1/usage?start=2026-01-01T00:00:00Z")
    assert used["totals"]["total_cost"] == "0.0030000000"
