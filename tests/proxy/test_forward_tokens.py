"""Opaque forward tokens at the gateway: whom they stand for, and when they end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest
from gateway_kit import CHAT, Gate, Payer
from plain_client import Answer

from lava_proxy.core.ids import hash_secret, new_id, new_secret

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKED = {"model": "sim-2-0", "messages": [{"role": "user", "content": "hello there"}]}


async def token_of(
    gate: Gate,
    payer: Payer,
    *,
    lives_s: float = 60,
    free: bool = False,
    limit_e10: int | None = None,
) -> str:
    token = new_secret("lava_ft_")
    async with gate.database.transaction() as conn:
        await conn.execute(
            "INSERT INTO forward_tokens (forward_token_id, merchant_id, token_hash, hint, "
            "customer_id, meter_id, disable_billing, expires_at, spend_limit_e10, spend_cycle) "
            "SELECT $1, $2, $3, 'h', $4, meter_id, $5, $6, $7, $8 FROM meters "
            "WHERE merchant_id = $2",
            new_id("forward_token"),
            payer.merchant_id,
            hash_secret(token),
            payer.customer_id,
            free,
            datetime.now(UTC) + timedelta(seconds=lives_s),
            limit_e10,
            None if limit_e10 is None else "total",
        )
    return token


async def status(gate: Gate, payer: Payer, token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    return (await gate.call(CHAT, ASKED, payer, headers=headers)).status


async def change(gate: Gate, sql: str, payer: Payer) -> None:
    async with gate.database.transaction() as conn:
        await conn.execute(sql, payer.merchant_id)
    await gate.gateway.books.directory.poll()


async def test_it_stands_for_a_customer_and_a_meter(gate: Gate) -> None:
    payer = await gate.payer()
    assert await status(gate, payer, await token_of(gate, payer)) == 200
    row = await gate.row(payer)
    assert row["customer_id"] == payer.customer_id
    assert row["charge_e10"] > 0


async def test_it_may_be_free(gate: Gate) -> None:
    payer = await gate.payer("0.0000000001")
    assert await status(gate, payer, await token_of(gate, payer, free=True)) == 200
    assert (await gate.row(payer))["charge_e10"] == 0


async def test_its_time_runs_out_while_it_is_known(gate: Gate) -> None:
    payer = await gate.payer()
    token = await token_of(gate, payer)
    assert await status(gate, payer, token) == 200
    callers = gate.gateway.callers
    clock, callers._clock = callers._clock, _Ahead()
    try:
        assert await status(gate, payer, token) == 401
    finally:
        callers._clock = clock
    assert await status(gate, payer, token) == 200


class _Ahead:
    """A clock an hour ahead."""

    def boot_s(self) -> float:
        return monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("UPDATE forward_tokens SET revoked_at = now() WHERE merchant_id = $1", 401),
        ("UPDATE customers SET deleted_at = now() WHERE merchant_id = $1", 403),
        ("UPDATE meters SET deleted_at = now() WHERE merchant_id = $1", 403),
    ],
)
async def test_it_ends_with_what_it_stands_for(gate: Gate, sql: str, answer: int) -> None:
    payer = await gate.payer()
    token = await token_of(gate, payer)
    assert await status(gate, payer, token) == 200
    await change(gate, sql, payer)
    assert await status(gate, payer, token) == answer


async def test_nobody_holds_it(gate: Gate) -> None:
    payer = await gate.payer()
    assert await status(gate, payer, new_secret("lava_ft_")) == 401
    assert await status(gate, payer, new_secret("lava_sk_")) == 401


async def test_a_spend_key_calls_nobody_by_url(gate: Gate) -> None:
    payer = await gate.payer()
    key = new_secret("lava_sk_")
    async with gate.database.transaction() as conn:
        await conn.execute(
            "INSERT INTO spend_keys (spend_key_id, merchant_id, wallet_id, name, key_hash, "
            "key_preview, status, request_shape) "
            "VALUES ($1, $2, 'wal_1', 'n', $3, 'p', 'active', 'openai')",
            new_id("spend_key"),
            payer.merchant_id,
            hash_secret(key),
        )
    assert await status(gate, payer, key) == 403


# Limits of their own: provider cost, as of spend keys.


def priced(*, made: int, stream: bool = False) -> dict[str, object]:
    """gpt-4o-mini: 0.15 USD per million tokens in, 0.60 out."""
    hello = [{"role": "user", "content": f"sim-{made}-0-in100"}]
    return {"model": "gpt-4o-mini", "messages": hello, "max_tokens": made, "stream": stream}


async def costing(
    gate: Gate, payer: Payer, token: str, *, made: int, stream: bool = False
) -> Answer:
    headers = {"authorization": f"Bearer {token}"}
    return await gate.call(CHAT, priced(made=made, stream=stream), payer, headers=headers)


async def test_its_limit_refuses_and_leaves_the_customers_credit_alone(gate: Gate) -> None:
    payer = await gate.payer()
    token = await token_of(gate, payer, limit_e10=10_000_000)  # 0.001 USD
    assert (await costing(gate, payer, token, made=1000)).status == 200  # 0.000615
    capped = await costing(gate, payer, token, made=1000)
    assert capped.status == 200  # with a lower cap: what is left pays for some of it
    last = await costing(gate, payer, token, made=1000)
    assert last.status == 402
    assert last.json()["error"]["code"] == "spend_limit_exceeded"
    assert "this token" in last.json()["error"]["message"]
    rows = await gate.rows(payer)
    assert sum(row["cost_e10"] for row in rows) <= 10_000_000
    other = await token_of(gate, payer, limit_e10=10_000_000)
    assert (await costing(gate, payer, other, made=10)).status == 200


async def test_a_stream_is_cut_at_its_limit(gate: Gate) -> None:
    payer = await gate.payer()
    token = await token_of(gate, payer, limit_e10=10_000_000)
    answer = await costing(gate, payer, token, made=9000, stream=True)
    assert b"budget_exhausted" in answer.body
    row = await gate.row(payer)
    assert row["outcome"] == "cut_off"
    assert 9_000_000 < row["cost_e10"] <= 10_000_000


async def test_many_at_once_stay_within_it(gate: Gate) -> None:
    payer = await gate.payer()
    token = await token_of(gate, payer, limit_e10=10_000_000)
    calls = [costing(gate, payer, token, made=500) for _ in range(12)]
    statuses = {answer.status for answer in await asyncio.gather(*calls)}
    assert statuses == {200, 402}
    assert sum(row["cost_e10"] for row in await gate.rows(payer)) <= 10_000_000
