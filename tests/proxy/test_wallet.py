"""Enforced wallets: managed-key calls are covered by what the merchant paid in, to the last unit;
what was spent before anybody enforced it counts too."""

from __future__ import annotations

import asyncio
import json

import pytest
from gateway_kit import CHAT, Gate, Payer, fresh_model

from lava_proxy.core.clock import SystemClock
from lava_proxy.core.ids import new_id
from lava_proxy.core.money import parse_e10
from lava_proxy.net.simulated import Piece, Script
from lava_proxy.rules.limits import wallet_account
from lava_proxy.store import payments

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"wallet_enforced": True}

ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 20, "completion_tokens": 16, "total_tokens": 36},
}
COST = "0.00034"
"""20 tokens in at 1 USD and 16 out at 20 USD per million; no output cap is lowered below 16."""


async def api(gate: Gate, payer: Payer, method: str, path: str, body: object = None) -> dict:  # type: ignore[type-arg]
    headers = {"authorization": f"Bearer {payer.secret}"}
    reply = await gate.call(f"/v1/{path}", body, None, headers, method=method)
    assert reply.status == 200, reply.body
    found: dict = json.loads(reply.body)  # type: ignore[type-arg]
    return found


async def balance(gate: Gate, payer: Payer) -> str:
    await gate.booked()
    return str((await api(gate, payer, "GET", "wallet"))["balance"])


async def paid_in(gate: Gate, payer: Payer, amount: str) -> None:
    """The operator says that money is there."""
    payment_id, now = new_id("payment"), SystemClock().now()
    async with gate.database.transaction() as conn:
        await payments.open_payment(
            conn,
            payment_id=payment_id,
            merchant_id=payer.merchant_id,
            customer_id=None,
            purpose="wallet",
            amount_e10=parse_e10(amount),
            provider="manual",
            now=now,
        )
        assert await payments.succeeded(conn, payment_id, None, now)
        assert not await payments.succeeded(conn, payment_id, None, now)


async def shop(gate: Gate) -> tuple[Payer, dict[str, object]]:
    """A payer, and a call that costs `COST`."""
    payer, model = await gate.payer("5.00"), fresh_model()
    rates = {"input_1m": "1", "output_1m": "20"}
    await api(gate, payer, "POST", "prices", {"provider": "openai", "model": model, "rates": rates})
    body = json.dumps(ANSWER | {"model": model}).encode()
    kind = (("content-type", "application/json"), ("content-length", str(len(body))))
    gate.sim.script[model] = Script([Piece(body)], headers=kind)
    ask = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
    return payer, ask


async def test_an_empty_wallet_refuses_and_a_funded_one_pays(gate: Gate) -> None:
    payer, ask = await shop(gate)
    no = await gate.call(CHAT, ask, payer)
    assert (no.status, no.error()["code"]) == (402, "insufficient_balance")
    assert gate.sim.requests == []
    await paid_in(gate, payer, "10")
    async with asyncio.timeout(5):  # the notice reaches the worker
        while (yes := await gate.call(CHAT, ask, payer)).status == 402:
            await asyncio.sleep(0.01)
    assert yes.status == 200
    assert await balance(gate, payer) == "9.9996600000"


async def test_calls_with_the_callers_own_key_cost_the_wallet_nothing(gate: Gate) -> None:
    payer, ask = await shop(gate)
    own = {"authorization": f"Bearer {payer.token(provider_key='sk-own')}"}
    assert (await gate.call(CHAT, ask, None, own)).status == 200
    assert await balance(gate, payer) == "0.0000000000"


async def test_what_was_spent_unenforced_counts(gate: Gate) -> None:
    """9.9999 of 10 USD went before the setting was on: there is less than one call left."""
    payer, ask = await shop(gate)
    await paid_in(gate, payer, "10")
    async with gate.database.connection() as conn:
        await conn.execute(
            "INSERT INTO wallet_costs VALUES ($1, 99, $2)", payer.merchant_id, parse_e10("9.9999")
        )
        await conn.execute(
            "INSERT INTO usage_rollups SELECT $1, date_bin('15 minutes', now(), 'epoch'), 'con_x', "
            "'', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0",
            payer.merchant_id,
        )
    try:
        no = await gate.call(CHAT, ask, payer)
        assert (no.status, no.error()["code"]) == (402, "insufficient_balance")
        assert await balance(gate, payer) == "0.0001000000"
    finally:
        async with gate.database.connection() as conn:
            await conn.execute("DELETE FROM wallet_costs WHERE slot = 99")
            await conn.execute("DELETE FROM usage_rollups WHERE customer_id = 'con_x'")


async def test_many_at_once_never_exceed_it(gate: Gate) -> None:
    payer, ask = await shop(gate)
    await paid_in(gate, payer, "0.0060")  # some of them
    answers = await asyncio.gather(*(gate.call(CHAT, ask, payer) for _ in range(20)))
    served = sum(answer.status == 200 for answer in answers)
    assert {answer.status for answer in answers} == {200, 402}
    left = parse_e10(await balance(gate, payer))
    assert left == parse_e10("0.0060") - served * parse_e10(COST)
    assert left >= 0
    owner = wallet_account(payer.merchant_id)
    async with gate.database.connection() as conn:
        spent = await conn.fetchval(
            "SELECT spent_e10 FROM credit_grants WHERE owner_id = $1", owner
        )
    assert spent == served * parse_e10(COST)


async def test_a_plain_answer_without_a_cap_is_bounded_by_the_wallet(gate: Gate) -> None:
    """0.01 USD pays for some 500 tokens at 20 USD per million."""
    payer, ask = await shop(gate)
    await paid_in(gate, payer, "0.01")
    del ask["max_tokens"]
    assert (await gate.call(CHAT, ask, payer)).status == 200
    (request,) = gate.seen(str(ask["model"]))
    assert 400 < json.loads(request.body)["max_completion_tokens"] < 500
