"""Money and streams: cut exactly, never overspent, caps lowered in the body and nowhere else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from chat_bytes import DONE, delta, usage
from gateway_kit import CHAT, TOKEN_E10, Gate, Payer, fresh_model
from plain_client import chunks_of

from lava_proxy.core.errors import LavaError
from lava_proxy.net.simulated import Piece, Script, SimRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"exact_tokens": False, "database_wait_s": 20.0, "database_timeout_s": 20.0}
"""Events are counted, one token each, so that a test can say what a stream must come to. A database
that is slow for want of a processor is not what is tested."""

HELLO = [{"role": "user", "content": "hello there"}]


def asking(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "messages": HELLO, "stream": True, **more}


def one_by_one(count: int, pace_s: float = 0.0) -> Iterator[Piece]:
    for number in range(count):
        yield Piece(delta(f" {number:03d}"), pace_s, 1)


def shown(body: bytes) -> int:
    """Text deltas that the client got."""
    return body.count(b'"delta": {"content"')


def cut_event(body: bytes) -> dict[str, object]:
    *_, last = chunks_of(body)
    error: dict[str, object] = last["error"]
    return error


async def test_a_stream_is_cut_when_the_money_ends_to_the_last_token(gate: Gate) -> None:
    payer, model = await gate.payer("0.0060"), fresh_model()  # 600 tokens, prompt included
    gate.sim.script[model] = Script(one_by_one(5000, 0.0002))
    answer = await gate.call(CHAT, asking(model), payer)
    assert (answer.status, answer.whole) == (200, False)
    error = cut_event(answer.body)
    assert error["code"] == "budget_exhausted"
    assert str(error["message"]).startswith("budget_exhausted: ")
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("cut_off", "estimate")
    # What was delivered is what is charged: the event that crosses the line is not sent.
    assert row["output_tokens"] == shown(answer.body)
    assert row["charge_e10"] == (row["input_tokens"] + row["output_tokens"]) * TOKEN_E10
    assert row["charge_e10"] <= payer.credit_e10
    assert await gate.left_e10(payer) < TOKEN_E10
    assert error["request_id"] == row["request_id"]
    (request,) = gate.seen(model)
    await gate.sim.until(lambda: request.closed_early_at)
    assert request.tokens_sent < 5000


async def test_after_the_cut_nothing_more_is_sold(gate: Gate) -> None:
    payer, model = await gate.payer("0.0010"), fresh_model()
    gate.sim.script[model] = Script(one_by_one(5000, 0.0002))
    await gate.call(CHAT, asking(model), payer)
    answer = await gate.call(CHAT, asking(model), payer)
    error = answer.error()
    assert (answer.status, error["code"]) == (402, "insufficient_credit")
    assert error["details"]["customer_id"] == payer.customer_id
    assert error["details"]["request_id"] == answer.header("x-lava-request-id")
    assert set(error["details"]) == {"required", "available", "customer_id", "request_id"}
    assert answer.header("x-should-retry") == "false"
    assert len(await gate.rows(payer)) == 1
    assert len(gate.seen(model)) == 1


async def test_a_large_event_is_not_delivered_and_not_charged(gate: Gate) -> None:
    payer, model = await gate.payer("0.0010"), fresh_model()  # 100 tokens
    huge = delta(" word" * 300)
    gate.sim.script[model] = Script((Piece(delta(" one") + huge + delta(" two")),))
    answer = await gate.call(CHAT, asking(model), payer)
    assert answer.body.startswith(delta(" one"))
    assert b" word" not in answer.body
    row = await gate.row(payer)
    assert (row["outcome"], row["output_tokens"]) == ("cut_off", 1)


async def test_an_answer_whose_final_usage_is_here_is_not_cut(gate: Gate) -> None:
    """The provider has charged it already: holding it back would save nothing."""
    payer, model = await gate.payer("0.0010"), fresh_model()
    gate.sim.script[model] = Script((Piece(delta(" one") + usage(10, 500) + DONE),))
    answer = await gate.call(CHAT, asking(model), payer)
    assert answer.whole
    row = await gate.row(payer)
    assert (row["outcome"], row["charge_e10"]) == ("completed", 510 * TOKEN_E10)


async def test_a_stream_waits_for_a_refill_and_goes_on(gate: Gate) -> None:
    payer, model = await gate.payer("0.0010"), fresh_model()
    leases = gate.gateway.books.leases
    gate.sim.script[model] = Script((*one_by_one(400, 0.0002), Piece(usage(4, 400) + DONE)))
    waiting, granted = asyncio.Event(), asyncio.Event()
    trip = leases._trip

    async def slow_trip(ask):  # type: ignore[no-untyped-def]
        if leases.account(payer.customer_id).held_e10:
            waiting.set()
            await granted.wait()
        return await trip(ask)

    leases._trip = slow_trip
    try:
        call = await gate.open_call(CHAT, asking(model), payer)
        await waiting.wait()
        await gate.grant(payer, 10**10)
        granted.set()
        answer = await call.rest()
    finally:
        leases._trip = trip
    assert answer.whole
    assert shown(answer.body) == 400
    assert (await gate.row(payer))["charge_e10"] == 404 * TOKEN_E10


async def test_with_the_database_away_a_stream_is_cut_and_booked(gate: Gate) -> None:
    payer, model = await gate.payer("1.00"), fresh_model()
    leases = gate.gateway.books.leases
    gate.sim.script[model] = Script(one_by_one(5000, 0.0002))
    trip = leases._trip

    async def no_trip(ask):  # type: ignore[no-untyped-def]
        if leases.account(payer.customer_id).held_e10:
            raise LavaError("unavailable")
        return await trip(ask)

    leases._trip = no_trip
    try:
        answer = await gate.call(CHAT, asking(model), payer)
    finally:
        leases._trip = trip
    assert cut_event(answer.body)["code"] == "budget_exhausted"
    assert (await gate.row(payer))["outcome"] == "cut_off"


async def test_a_long_stream_asks_the_database_seldom(gate: Gate) -> None:
    payer, model = await gate.payer("10.00"), fresh_model()
    trips = gate.gateway.books.leases.trips
    gate.sim.script[model] = Script((*one_by_one(2560, 0.0001), Piece(usage(4, 2560) + DONE)))
    answer = await gate.call(CHAT, asking(model), payer)
    assert answer.whole
    # One per slice of 256 tokens, and a few around them.
    assert gate.gateway.books.leases.trips - trips <= 2560 // 256 + 6


@pytest.mark.parametrize("mode", ["sliced", "strict", "soft"])
async def test_many_streams_on_little_credit(gate: Gate, mode: str) -> None:
    payer, model = await gate.payer("0.0500", mode=mode), fresh_model()

    def as_long_as_it_may(request: SimRequest) -> Script:
        """A hold of the last credit lowers the cap, and providers keep to it."""
        tokens = json.loads(request.body)["max_completion_tokens"]
        return Script((*one_by_one(tokens, 0.0005), Piece(usage(4, tokens) + DONE)))

    gate.sim.script[model] = as_long_as_it_may
    asked = asking(model, max_completion_tokens=300)
    answers = await asyncio.gather(*(gate.call(CHAT, asked, payer) for _ in range(50)))
    rows = await gate.rows(payer)
    assert sum(row["charge_e10"] for row in rows) <= payer.credit_e10
    served = [answer for answer in answers if answer.status == 200]
    assert len(served) == len(rows) > 5
    assert {answer.status for answer in answers} == {200, 402}
    for answer in served:
        assert answer.whole or b"budget_exhausted" in answer.body
    if mode == "strict":
        assert {row["outcome"] for row in rows} == {"completed"}
    assert await gate.left_e10(payer) >= 0


async def test_soft_goes_on_to_the_agreed_overdraft_and_no_further(gate: Gate) -> None:
    payer, model = await gate.payer("0.0020", mode="soft", overdraft="0.0030"), fresh_model()
    gate.sim.script[model] = Script(one_by_one(5000, 0.0002))
    answer = await gate.call(CHAT, asking(model), payer)
    assert cut_event(answer.body)["code"] == "budget_exhausted"
    row = await gate.row(payer)
    assert payer.credit_e10 < row["charge_e10"] <= payer.credit_e10 + 3 * 10**7
    assert row["charge_e10"] > payer.credit_e10 + 3 * 10**7 - 2 * TOKEN_E10


# Caps: the body that reaches the provider.


async def _sent_body(gate: Gate, payer: Payer, body: bytes) -> tuple[int, bytes]:
    before = len(gate.sim.requests)
    answer = await gate.call(CHAT, body, payer)
    requests = gate.sim.requests[before:]
    return answer.status, requests[0].body if requests else b""


SPACED = (
    b'{ "model":"sim-3-0",\n\t"messages" : [ {"role":"user","content":"h\\u00e9 \xe2\x82\xac"} ]'
)


async def test_strict_injects_a_cap_and_changes_nothing_else(gate: Gate) -> None:
    payer = await gate.payer("1.00", mode="strict")
    status, sent = await _sent_body(gate, payer, SPACED + b', "x": 1.50 }')
    assert status == 200
    assert sent == b'{"max_completion_tokens":32768,' + SPACED[1:] + b', "x": 1.50 }'


async def test_strict_leaves_an_affordable_cap_alone(gate: Gate) -> None:
    payer = await gate.payer("1.00", mode="strict")
    body = SPACED + b', "max_tokens" : 77 }'
    assert await _sent_body(gate, payer, body) == (200, body)


@pytest.mark.parametrize("mode", ["strict", "sliced"])
async def test_a_cap_is_lowered_to_what_is_left(gate: Gate, mode: str) -> None:
    payer = await gate.payer("0.0050", mode=mode)  # 500 tokens
    status, sent = await _sent_body(gate, payer, SPACED + b', "max_tokens" : 9000, "y":[1] }')
    assert status == 200
    cap = json.loads(sent)["max_tokens"]
    assert 16 <= cap < 500
    assert sent == SPACED + b', "max_tokens" : %d, "y":[1] }' % cap


async def test_below_the_floor_it_is_refused(gate: Gate) -> None:
    payer = await gate.payer("0.0010")
    status, sent = await _sent_body(gate, payer, SPACED + b', "max_tokens" : 9000 }')
    assert (status, sent) == (402, b"")


@pytest.mark.parametrize("stream", [True, False])
async def test_strict_never_overspends_a_provider_that_ignores_the_cap(
    gate: Gate, stream: bool
) -> None:
    """A stream can be stopped. A plain answer cannot, so there the books may go below zero by what
    the provider took; nothing more is sold after that."""
    payer, model = await gate.payer("0.0050", mode="strict"), fresh_model()
    if stream:
        gate.sim.script[model] = Script((*one_by_one(3000, 0.0001), Piece(usage(4, 3000) + DONE)))
    else:
        counts = {"prompt_tokens": 4, "completion_tokens": 450}
        gate.sim.script[model] = Script.json({"id": "x", "choices": [], "usage": counts})
    await gate.call(CHAT, asking(model, stream=stream), payer)
    row = await gate.row(payer)
    assert row["charge_e10"] <= payer.credit_e10
    assert (row["outcome"] == "cut_off") == stream


async def test_disable_billing_touches_no_credit(gate: Gate) -> None:
    payer, model = await gate.payer("0.0001"), fresh_model()
    gate.sim.script[model] = Script((*one_by_one(100), Piece(usage(4, 100) + DONE)))
    token = payer.token(disable_billing=True)
    answer = await gate.call(CHAT, asking(model), headers={"authorization": f"Bearer {token}"})
    assert answer.whole
    row = await gate.row(payer)
    assert (row["charge_e10"], row["output_tokens"]) == (0, 100)
    assert await gate.left_e10(payer) == payer.credit_e10


@pytest.mark.parametrize("known", [True, False])
async def test_a_percentage_meter_needs_a_price(gate: Gate, known: bool) -> None:
    payer = await gate.payer(rate_type="percentage", rate_e12=120 * 10**12)
    model = "gpt-4o-mini" if known else fresh_model()
    answer = await gate.call(CHAT, asking(model), payer)
    if not known:
        assert (answer.status, answer.error()["code"]) == (402, "model_unpriced")
        assert gate.sim.requests == []
        return
    assert answer.whole
    row = await gate.row(payer)
    assert row["cost_e10"] > 0
    assert row["charge_e10"] == (row["cost_e10"] * 120 + 50) // 100
    assert row["price_version"]


async def test_meter_only_traffic_is_charged_to_nobody(gate: Gate) -> None:
    payer = await gate.payer()
    token = payer.token(customer_id=...)
    answer = await gate.call(CHAT, asking("sim-5-0"), headers={"authorization": f"Bearer {token}"})
    assert answer.whole
    row = await gate.row(payer)
    assert (row["customer_id"], row["output_tokens"]) == (None, 5)
    assert row["charge_e10"] == (row["input_tokens"] + 5) * TOKEN_E10
    assert await gate.left_e10(payer) == payer.credit_e10
