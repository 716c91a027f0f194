"""Refusals: what SDKs are told to do about them, and the requests that are kept where wanted."""

from __future__ import annotations

import json

import pytest
from gateway_kit import CHAT, Gate
from spend_kit import CHEAP, OPENAI, say, spender

from lava_proxy.core.errors import CODES, LavaError
from lava_proxy.proxy.refuse import _may_be_repeated

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"record_refusals": True, "customer_concurrency": 1}
SIM = "sim-12-0-in7"


@pytest.mark.parametrize(
    ("code", "wait", "repeated"),
    [
        ("request_timeout", None, True),
        ("rate_limit_exceeded", "1", True),
        ("rate_limit_exceeded", "10", True),
        ("rate_limit_exceeded", "11", False),
        ("request_limit_exceeded", "86400", False),
        ("request_limit_exceeded", None, False),
        ("unavailable", None, True),
        ("unavailable", "5", True),
        ("insufficient_credit", None, False),
        ("internal_error", None, False),
        ("upstream_timeout", None, False),
    ],
)
async def test_who_may_repeat_a_call(code: str, wait: str | None, repeated: bool) -> None:
    error = LavaError(code, headers={} if wait is None else {"retry-after": wait})
    assert _may_be_repeated(error) is repeated


async def test_nothing_else_is_repeated() -> None:
    told = {code for code in CODES if _may_be_repeated(LavaError(code))}
    assert {CODES[code].status for code in told} == {408, 503}


async def test_a_busy_customer_is_told_to_come_again(gate: Gate) -> None:
    payer = await gate.payer()
    body = {"model": "sim-900-50", "messages": say("x"), "stream": True}
    running = await gate.open_call(CHAT, body, payer)
    await running.head()
    answer = await gate.call(CHAT, body, payer)
    assert (answer.status, answer.header("retry-after")) == (429, "1")
    assert answer.header("x-should-retry") == "true"
    running.close()
    rows = await gate.rows(payer)
    assert {row["outcome"] for row in rows} == {"refused", "client_gone"}


async def test_what_a_spend_key_may_not_do_is_kept(gate: Gate) -> None:
    key = await spender(gate, request_shape="openai", allowed_models=["gpt-4o"])
    bearer = {"authorization": f"Bearer {key.key}"}
    body = {"model": CHEAP, "messages": say(SIM)}
    answer = await gate.call(OPENAI, body, None, bearer)
    assert (answer.status, answer.error()["code"]) == (403, "model_not_allowed")
    by_url = await gate.call("/openai/v1/chat/completions", body, None, bearer)
    assert by_url.status == 403
    rows = await gate.rows(key.payer)
    assert [(r["outcome"], r["status"], r["charge_e10"]) for r in rows] == [
        ("refused", "error", 0)
    ] * 2
    assert {r["request_id"] for r in rows} == {
        answer.header("x-lava-request-id"),
        by_url.header("x-lava-request-id"),
    }
    assert {r["provider"] for r in rows} == {"unknown"}
    assert gate.sim.requests == []


async def test_a_meter_that_is_not_on_the_plan_is_kept(gate: Gate) -> None:
    payer = await gate.payer()
    async with gate.database.connection() as conn:
        await conn.execute(
            "UPDATE merchants SET require_plan = true WHERE merchant_id = $1", payer.merchant_id
        )
    body = {"model": CHEAP, "messages": say(SIM)}
    answer = await gate.call(CHAT, body, payer)
    assert (answer.status, answer.error()["code"]) == (403, "meter_not_on_plan")
    row = await gate.row(payer)
    assert (row["outcome"], row["provider"], row["model"]) == ("refused", "openai", CHEAP)
    assert row["customer_id"] == payer.customer_id
    shown = await gate.call(
        f"/v1/requests/{row['request_id']}",
        None,
        None,
        {"authorization": f"Bearer {payer.secret}"},
        method="GET",
    )
    assert json.loads(shown.body)["outcome"] == "refused"
    await gate.check()


async def test_who_is_nobodys_leaves_no_row(gate: Gate) -> None:
    payer = await gate.payer()
    for headers in ({}, {"authorization": "Bearer nonsense"}):
        assert (await gate.call(CHAT, {"model": CHEAP}, None, headers)).status == 401
    assert await gate.rows(payer) == []
