"""Prices that come late: requests booked without one are corrected once, by ledger rows of their
own, and the books stay sound."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from gateway_kit import CHAT, Gate, Payer, fresh_model
from spend_kit import OPENAI, say, spender

from lava_proxy.books.prices import load_history
from lava_proxy.books.share import Share
from lava_proxy.cli import tools
from lava_proxy.core.ids import new_id
from lava_proxy.net.simulated import Script
from lava_proxy.store import prices as price_store
from lava_proxy.store import requests as request_store
from lava_proxy.store.audit import audit
from lava_proxy.store.corrections import Change
from lava_proxy.store.prices import PriceRow
from lava_proxy.store.reratings import rerate

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID = (
    b'{"id":"c","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1000,"completion_tokens":100}}'
)
PERCENT = 10**12


async def _booked(gate: Gate, payer: Payer, model: str) -> None:
    gate.sim.script[model] = Script.plain(SAID)
    body = {"model": model, "max_tokens": 200, "messages": [{"role": "user", "content": "hello"}]}
    assert (await gate.call(CHAT, body, payer)).whole


async def _priced(gate: Gate, payer: Payer, model: str) -> str:
    """1,000 in and 100 out cost 0.003 USD from now on."""
    now = gate.gateway.books.now()
    row = PriceRow(
        new_id("price"),
        payer.merchant_id,
        "openai",
        "exact",
        model,
        {"input_1m": "2", "output_1m": "10"},
        now - timedelta(seconds=1),
        now,
    )
    async with gate.database.transaction() as conn:
        await price_store.create(conn, row)
    return f"override/{row.price_id}"


async def _rerate(gate: Gate, *, dry: bool = False) -> list[Change]:
    now = gate.gateway.books.now()
    prices = await load_history(gate.database, now)
    return [change async for change in rerate(Share(gate.database, 1), prices, now, dry=dry)]


async def _entries(gate: Gate, payer: Payer) -> list[tuple[str, int]]:
    async with gate.database.connection() as conn:
        rows = await conn.fetch(
            "SELECT account, amount_e10 FROM ledger_entries WHERE merchant_id = $1 "
            "AND request_id IS NOT NULL ORDER BY entry_id",
            payer.merchant_id,
        )
    return [(row["account"].partition(":")[0], row["amount_e10"]) for row in rows]


COST_E10 = 30_000_000
"""0.003 USD."""


async def test_a_fixed_meter_gets_the_cost_and_keeps_its_charge(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    await _booked(gate, payer, model)
    row = await gate.row(payer)
    assert (row["cost_e10"], row["flags"]) == (0, ["unpriced"])
    assert (await audit(gate.database, full=False)).sound  # the request is behind the checkpoint
    assert await _rerate(gate) == []  # nobody knows yet
    version = await _priced(gate, payer, model)
    assert len(await _rerate(gate, dry=True)) == 1
    (told,) = await tools.rerate_requests(gate.gateway.settings, dry=True)  # what the command does
    assert told.request_id == row["request_id"]
    (change,) = await _rerate(gate)
    assert (change.cost_change_e10, change.charge_change_e10) == (COST_E10, 0)
    assert change.version == version
    assert (await audit(gate.database, full=False)).sound
    assert await _rerate(gate) == []
    assert await gate.left_e10(payer) == payer.credit_e10 - row["charge_e10"]
    assert (await _entries(gate, payer))[-2:] == [("merchant", -COST_E10), ("provider", COST_E10)]
    async with gate.database.connection() as conn:
        shown = await request_store.find(conn, payer.merchant_id, row["request_id"])
        rolled = await conn.fetchval(
            "SELECT sum(cost_e10)::bigint FROM usage_rollups WHERE merchant_id = $1",
            payer.merchant_id,
        )
    assert shown is not None
    assert shown.rerated is not None
    assert (shown.cost_e10, shown.rerated.cost_e10) == (0, COST_E10)
    assert (shown.price_version, shown.rerated.version) == (None, version)
    assert rolled == COST_E10


async def test_an_assumed_price_was_too_high_and_the_rest_comes_back(gate: Gate) -> None:
    payer, model = (
        await gate.payer("10", rate_type="percentage", rate_e12=50 * PERCENT, unpriced="dearest"),
        fresh_model(),
    )
    await _booked(gate, payer, model)
    row = await gate.row(payer)
    assert row["cost_e10"] > COST_E10
    await _priced(gate, payer, model)
    (change,) = await _rerate(gate)
    assert change.cost_change_e10 == COST_E10 - row["cost_e10"]
    assert row["charge_e10"] + change.charge_change_e10 == COST_E10 // 2
    assert await gate.left_e10(payer) == payer.credit_e10 - COST_E10 // 2


async def test_what_comes_back_pays_debt_first(gate: Gate) -> None:
    payer, model = (
        await gate.payer("10", rate_type="percentage", rate_e12=50 * PERCENT, unpriced="dearest"),
        fresh_model(),
    )
    await _booked(gate, payer, model)
    row = await gate.row(payer)
    await _priced(gate, payer, model)
    await gate.booked()
    async with gate.database.transaction() as conn:  # as if the charge had not been covered
        await conn.execute(
            "UPDATE accounts SET debt_e10 = 7 WHERE owner_id = $1", payer.customer_id
        )
        await conn.execute(
            "INSERT INTO ledger_entries (transaction_id, merchant_id, account, amount_e10, kind, "
            "customer_id, created_at) VALUES ($1, $2, $3, -7, 'withdrawal', $4, now()), "
            "($1, $2, 'operator:grants', 7, 'withdrawal', $4, now())",
            new_id("transaction"),
            payer.merchant_id,
            f"customer:{payer.customer_id}",
            payer.customer_id,
        )
    (change,) = await _rerate(gate)
    assert change.charge_change_e10 < -7
    left = payer.credit_e10 - row["charge_e10"] - change.charge_change_e10 - 7
    assert await gate.left_e10(payer) == left


async def test_two_that_rerate_at_once_do_it_once(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    for _ in range(3):
        await _booked(gate, payer, model)
    await gate.booked()
    await _priced(gate, payer, model)
    done = await asyncio.gather(_rerate(gate), _rerate(gate), _rerate(gate))
    assert sum(len(changes) for changes in done) == 3
    assert sum(a for account, a in await _entries(gate, payer) if account == "provider") == (
        3 * COST_E10
    )


async def test_where_only_a_part_had_no_price_the_row_stays(gate: Gate) -> None:
    """An embedding model has no price for output; the rest was priced."""
    payer, model = await gate.payer(), "text-embedding-3-small"
    await _booked(gate, payer, model)
    row = await gate.row(payer)
    assert row["flags"] == ["unpriced"]
    assert row["cost_e10"] > 0
    await _priced(gate, payer, model)
    assert await _rerate(gate) == []


async def test_a_price_known_all_along_is_left_alone(gate: Gate) -> None:
    payer = await gate.payer(rate_type="percentage", rate_e12=100 * PERCENT)
    await _booked(gate, payer, "gpt-4.1-nano")
    await gate.row(payer)
    assert await _rerate(gate) == []


async def test_a_spend_key_has_spent_what_its_calls_came_to(gate: Gate) -> None:
    user, model = await spender(gate), fresh_model()
    gate.sim.script[model] = Script.plain(SAID)
    body = {"model": f"openai/{model}", "max_tokens": 200, "messages": say("hello")}
    headers = {"authorization": f"Bearer {user.key}"}
    assert (await gate.call(OPENAI, body, None, headers)).status == 200
    assert (await user.shown())["total_spend"] == "0.0000000000"
    await _priced(gate, user.payer, model)
    assert len(await _rerate(gate)) == 1
    shown = await user.shown()
    assert (shown["current_spend"], shown["total_spend"]) == ("0.0030000000",) * 2
    assert shown["total_requests"] == 1
