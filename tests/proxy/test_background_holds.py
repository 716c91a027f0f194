"""A response in the background holds its ceiling until it is over, whichever process lives."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_kit import TOKEN_E10, Gate, Payer, fresh_model

from lava_proxy.net.simulated import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESPONSES = "/openai/v1/responses"


def _stored(model: str, status: str, **more: object) -> dict[str, Any]:
    base = {"id": f"resp_{model}", "object": "response", "model": model, "usage": None}
    return base | {"status": status} | more


async def _queue(gate: Gate, payer: Payer, *, cap: int = 60_000) -> tuple[int, str]:
    """Start one in the background: what the gateway said, and the response's path."""
    model = fresh_model()
    gate.sim.script[model] = Script.json(_stored(model, "queued"))
    asked = {"model": model, "input": "hello", "background": True, "max_output_tokens": cap}
    answer = await gate.call(RESPONSES, asked, payer)
    await gate.booked()
    return answer.status, f"{RESPONSES}/resp_{model}"


async def _read(gate: Gate, payer: Payer, path: str, status: str, **more: object) -> None:
    response_id = path.rpartition("/")[2]
    made = _stored(response_id.removeprefix("resp_"), status, **more)
    gate.sim.script[f"/v1/responses/{response_id}"] = Script.json(made)
    assert (await gate.call(path, None, payer, method="GET")).status == 200
    await gate.booked()


async def _kept_e10(gate: Gate, payer: Payer) -> int:
    async with gate.database.connection() as conn:
        kept: int = await conn.fetchval(
            "SELECT coalesce(sum(p.left_e10), 0)::bigint FROM leases JOIN lease_parts p "
            "USING (lease_id) WHERE owner_id = $1 AND holder_id LIKE 'kept:%' "
            "AND closed_at IS NULL",
            payer.customer_id,
        )
    return kept


async def _charged(gate: Gate, payer: Payer) -> int:
    return sum(row["charge_e10"] for row in await gate.rows(payer)) // TOKEN_E10


USAGE = {"input_tokens": 300, "output_tokens": 20}


async def test_credit_for_one_makes_one(gate: Gate) -> None:
    payer = await gate.payer("1.00")  # 100,000 tokens
    status, first = await _queue(gate, payer)
    assert status == 200
    assert 60_000 <= await _kept_e10(gate, payer) // TOKEN_E10 < 70_000
    status, second = await _queue(gate, payer)  # its output cap is lowered to what is left
    assert status == 200
    for _ in range(3):
        assert (await _queue(gate, payer))[0] == 402
    assert await _charged(gate, payer) == 0
    assert await gate.left_e10(payer) == payer.credit_e10
    # Reading needs no credit beside what is kept.
    await _read(gate, payer, first, "in_progress")
    assert (await _queue(gate, payer))[0] == 402
    for _ in range(2):
        await _read(gate, payer, first, "completed", usage=USAGE)
    assert await _charged(gate, payer) == 320
    assert await _kept_e10(gate, payer) // TOKEN_E10 < 41_000
    gate.gateway.books.leases.credit_changed(payer.customer_id)  # a refusal is remembered for 1 s
    status, third = await _queue(gate, payer, cap=50_000)
    assert status == 200
    for path in (second, third):
        await _read(gate, payer, path, "completed", usage=USAGE)
    assert await _kept_e10(gate, payer) == 0
    assert await _charged(gate, payer) == 3 * 320
    assert await gate.left_e10(payer) == payer.credit_e10 - 3 * 320 * TOKEN_E10


async def test_at_the_deadline_it_is_free_again_and_a_late_read_is_charged_once(
    gate: Gate,
) -> None:
    payer = await gate.payer("1.00")
    _, path = await _queue(gate, payer)
    assert await _kept_e10(gate, payer)
    async with gate.database.connection() as conn:
        left_s = await conn.fetchval(
            "SELECT extract(epoch FROM expires_at - now())::int FROM leases "
            "WHERE owner_id = $1 AND holder_id LIKE 'kept:%'",
            payer.customer_id,
        )
        assert 3500 < left_s <= 3600
        await conn.execute(
            "UPDATE leases SET expires_at = now() - interval '5 minutes' "
            "WHERE owner_id = $1 AND holder_id LIKE 'kept:%'",
            payer.customer_id,
        )
    opened = gate.app._open
    assert opened is not None
    await opened._upkeep.reap()  # a first look: leases are judged by a clock that is known
    opened._upkeep._judge._steady_since_s -= 10**6
    await opened._upkeep.reap()
    assert await _kept_e10(gate, payer) == 0
    assert (await _queue(gate, payer))[0] == 200
    for _ in range(2):
        await _read(gate, payer, path, "completed", usage=USAGE)
    assert await _charged(gate, payer) == 320


@pytest.mark.parametrize("status", ["cancelled", "failed", "incomplete"])
async def test_one_that_ends_without_usage_is_not_waited_for(gate: Gate, status: str) -> None:
    payer = await gate.payer("1.00")
    _, path = await _queue(gate, payer)
    await _read(gate, payer, path, status)
    assert await _kept_e10(gate, payer) == 0
    assert await _charged(gate, payer) == 0


async def test_one_that_is_made_at_once_keeps_nothing(gate: Gate) -> None:
    payer, model = await gate.payer("1.00"), fresh_model()
    gate.sim.script[model] = Script.json(_stored(model, "completed", usage=USAGE))
    asked = {"model": model, "input": "hello", "background": True}
    assert (await gate.call(RESPONSES, asked, payer)).status == 200
    await gate.booked()
    assert await _kept_e10(gate, payer) == 0
    assert await _charged(gate, payer) == 320
