"""What a call holds covers what it is charged: calls that cannot be cut, seen from the provider.

The provider here makes as much as it may: its cap, or 60,000 tokens where it is told none.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from gateway_kit import CHAT, TOKEN_E10, Gate, fresh_model
from spend_kit import CHEAP, managed, spender

from lava_proxy.core.money import format_e10
from lava_proxy.net.simulated import Piece, Script, SimRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = [{"role": "user", "content": "hello there"}]
LONGEST = 60_000
GEMINI = "/google/v1beta/models/{}:generateContent"
RESPONSES = "/openai/v1/responses"
CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def cap_in(body: dict[str, Any]) -> int | None:
    return next((body[name] for name in CAPS if name in body), None)


def as_long_as_it_may(request: SimRequest) -> Script:
    made = cap_in(json.loads(request.body)) or LONGEST
    usage = {"prompt_tokens": 4, "completion_tokens": made}
    choice = {"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}
    return Script.json({"id": "x", "model": request.model, "choices": [choice], "usage": usage})


def asking(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "messages": HELLO, **more}


# Without a cap.


@pytest.mark.parametrize("mode", ["sliced", "soft", "strict"])
async def test_a_plain_answer_without_a_cap_is_bounded_by_the_credit(gate: Gate, mode: str) -> None:
    payer, model = await gate.payer("0.05", mode=mode), fresh_model()  # 5,000 tokens
    gate.sim.script[model] = as_long_as_it_may
    answer = await gate.call(CHAT, asking(model), payer)
    assert answer.status == 200
    row = await gate.row(payer)
    assert 4_000 * TOKEN_E10 < row["charge_e10"] <= payer.credit_e10
    assert "output_capped" in row["flags"]
    assert await gate.left_e10(payer) >= 0


async def test_who_can_pay_is_not_cut_short(gate: Gate) -> None:
    """Nobody knows how much this model makes: the operator's default is held, and not set as the
    cap, or a server with a small window would refuse the call."""
    payer, model = await gate.payer("10.00"), fresh_model()
    gate.sim.script[model] = as_long_as_it_may
    await gate.call(CHAT, asking(model), payer)
    (request,) = gate.seen(model)
    assert cap_in(json.loads(request.body)) is None
    assert (await gate.row(payer))["output_tokens"] == LONGEST


async def test_the_longest_answer_is_remembered(gate: Gate) -> None:
    """Once a model has made more than is held for one that nobody knows, that much is held."""
    rich, short, model = await gate.payer("10.00"), await gate.payer("0.50"), fresh_model()
    gate.sim.script[model] = as_long_as_it_may
    await gate.call(CHAT, asking(model), rich)
    assert (await gate.row(rich))["output_tokens"] == LONGEST
    gate.sim.requests.clear()
    await gate.call(CHAT, asking(model), short)  # 50,000 tokens: more than the default
    (request,) = gate.seen(model)
    assert 49_000 < (cap_in(json.loads(request.body)) or 0) < 50_000
    assert await gate.left_e10(short) >= 0


async def test_strict_sets_the_default_as_the_cap(gate: Gate) -> None:
    payer, model = await gate.payer("10.00", mode="strict"), fresh_model()
    gate.sim.script[model] = as_long_as_it_may
    await gate.call(CHAT, asking(model), payer)
    assert (await gate.row(payer))["output_tokens"] == 32_768


@pytest.mark.parametrize(("model", "longest"), [("gpt-4o-mini", 16_384), ("gpt-4.1", 32_768)])
async def test_a_model_that_is_known_bounds_itself(gate: Gate, model: str, longest: int) -> None:
    """Its longest answer is held, and the body stays as it came: a cap beyond what a model makes
    would be refused by its provider."""
    gate.sim.script[model] = as_long_as_it_may
    rich = await gate.payer("10.00")
    await gate.call(CHAT, asking(model), rich)
    (request,) = gate.seen(model)
    assert cap_in(json.loads(request.body)) is None
    gate.sim.requests.clear()
    short = await gate.payer("0.1000")  # 10,000 tokens: less than it may make
    await gate.call(CHAT, asking(model), short)
    (request,) = gate.seen(model)
    assert 9_000 < (cap_in(json.loads(request.body)) or 0) < 10_000 < longest
    assert (await gate.row(short))["charge_e10"] <= short.credit_e10


async def test_many_plain_answers_at_once_do_not_overspend(gate: Gate) -> None:
    payer, model = await gate.payer("0.05"), fresh_model()
    gate.sim.script[model] = as_long_as_it_may
    first = await gate.call(CHAT, asking(model), payer)
    second = await gate.call(CHAT, asking(model), payer)
    assert [first.status, second.status] == [200, 402]
    assert await gate.left_e10(payer) >= 0


async def test_a_response_in_the_background_gets_a_cap_too(gate: Gate) -> None:
    payer, model = await gate.payer("0.05"), fresh_model()
    body = {"model": model, "input": "hello", "background": True, "stream": True}
    await gate.call(RESPONSES, body, payer)
    (request,) = gate.seen(model)
    assert 4_000 < json.loads(request.body)["max_output_tokens"] < 5_000


async def test_a_stream_without_a_cap_still_gets_none(gate: Gate) -> None:
    payer = await gate.payer("0.05")
    await gate.call(CHAT, asking("sim-3-0", stream=True), payer)
    (request,) = gate.seen("sim-3-0")
    assert cap_in(json.loads(request.body)) is None


# Limits beside the credit.


async def test_a_money_limit_bounds_a_plain_answer(gate: Gate) -> None:
    """0.60 USD per million out: 16,384 tokens would cost almost a cent."""
    key = await spender(gate, spend_limit={"amount": "0.002", "cycle": "daily"})
    gate.sim.script[CHEAP] = as_long_as_it_may
    headers = {"authorization": f"Bearer {key.key}"}
    answer = await gate.call("/v1/chat/completions", asking(CHEAP), None, headers)
    assert answer.status == 200, answer.body
    (request,) = gate.seen(CHEAP)
    assert 3_000 < (cap_in(json.loads(request.body)) or 0) < 3_334
    row = await gate.row(key.payer)
    assert row["cost_e10"] <= 20_000_000


# Service tiers.

PERCENT = {"rate_type": "percentage", "rate_e12": 100 * 10**12}
PRIORITY_E10 = 200_000
"""A token of gpt-5 at priority: 20 USD per million, twice its usual price."""


def at_priority(request: SimRequest) -> Script:
    """Served at priority, whoever asked for what."""
    body = json.loads(request.body)
    head = {"id": "x", "model": request.model, "service_tier": "priority"}
    made = cap_in(body) or LONGEST
    usage = {"prompt_tokens": 4, "completion_tokens": made}
    if not body.get("stream"):
        choice = {"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}
        return Script.json({**head, "choices": [choice], "usage": usage})
    delta = head | {"choices": [{"index": 0, "delta": {"content": " one"}}]}
    piece = b"data: " + json.dumps(delta).encode() + b"\n\n"
    return Script(Piece(piece, 0.0001, 1) for _ in range(3000))


@pytest.mark.parametrize(("mode", "tier"), [("sliced", "priority"), ("strict", None)])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_dearer_tier_is_held_and_cut_at_its_price(
    gate: Gate, mode: str, tier: str | None, stream: bool
) -> None:
    """Strict covers what the provider may decide; else the tier that the request names."""
    payer = await gate.payer("0.02", mode=mode, **PERCENT)  # 1,000 tokens at priority
    gate.sim.script["gpt-5"] = at_priority
    more = {} if tier is None else {"service_tier": tier}
    answer = await gate.call(CHAT, asking("gpt-5", stream=stream, **more), payer)
    assert answer.status == 200
    row = await gate.row(payer)
    assert row["charge_e10"] >= 700 * PRIORITY_E10
    assert row["charge_e10"] <= payer.credit_e10
    if stream and mode == "sliced":
        assert row["outcome"] == "cut_off"
    assert await gate.left_e10(payer) >= 0


async def test_the_usual_tier_costs_nobody_more(gate: Gate) -> None:
    payer = await gate.payer("0.02", **PERCENT)
    gate.sim.script["gpt-5"] = as_long_as_it_may
    await gate.call(CHAT, asking("gpt-5", service_tier="default"), payer)
    (request,) = gate.seen("gpt-5")
    assert 1_800 < (cap_in(json.loads(request.body)) or 0) < 2_000


async def test_a_money_limit_knows_the_tier_too(gate: Gate) -> None:
    key = await spender(gate, spend_limit={"amount": "0.02", "cycle": "daily"})
    gate.sim.script["gpt-5"] = at_priority
    headers = {"authorization": f"Bearer {key.key}"}
    body = asking("gpt-5", service_tier="priority")
    await gate.call("/v1/chat/completions", body, None, headers)
    (request,) = gate.seen("gpt-5")
    assert 800 < (cap_in(json.loads(request.body)) or 0) < 1_000


# Fees beside the tokens.

SEARCH_E10 = 100_000_000
"""One search by OpenAI's or Anthropic's tool: a cent."""
MESSAGES = "/anthropic/v1/messages"
CLAUDE = "claude-haiku-4-5"


def searching(**more: object) -> dict[str, object]:
    tool = {"type": "web_search_20250305", "name": "web_search", **more}
    return {"model": CLAUDE, "messages": HELLO, "max_tokens": 100, "tools": [tool]}


def who_searches(times: int) -> Script:
    usage = {"input_tokens": 10, "output_tokens": 10}
    usage |= {"server_tool_use": {"web_search_requests": times}}  # type: ignore[dict-item]
    return Script.json(
        {"type": "message", "id": "x", "model": CLAUDE, "content": [], "usage": usage}
    )


async def test_searches_are_held_before_they_are_made(gate: Gate) -> None:
    """Five may cost five cents; the hidden input of 200,000 tokens some twenty more."""
    gate.sim.script[CLAUDE] = who_searches(5)
    poor, rich = await gate.payer("0.24", **PERCENT), await gate.payer("0.30", **PERCENT)
    assert (await gate.call(MESSAGES, searching(max_uses=5), poor)).status == 402
    assert (await gate.call(MESSAGES, searching(max_uses=2), poor)).status == 200
    assert (await gate.call(MESSAGES, searching(max_uses=5), rich)).status == 200
    row = await gate.row(rich)
    assert 5 * SEARCH_E10 < row["charge_e10"] <= rich.credit_e10


async def test_searches_without_a_bound_are_held_by_the_operators_number(gate: Gate) -> None:
    poor, rich = await gate.payer("0.29", **PERCENT), await gate.payer("0.35", **PERCENT)
    gate.sim.script[CLAUDE] = who_searches(10)
    assert (await gate.call(MESSAGES, searching(), poor)).status == 402
    assert (await gate.call(MESSAGES, searching(), rich)).status == 200
    assert (await gate.row(rich))["charge_e10"] <= rich.credit_e10


async def test_strict_refuses_what_it_cannot_bound(gate: Gate) -> None:
    payer = await gate.payer("9.00", mode="strict", **PERCENT)
    gate.sim.script[CLAUDE] = who_searches(2)
    no = await gate.call(MESSAGES, searching(), payer)
    assert (no.status, no.error()["code"]) == (422, "unbounded_call")
    assert "max_uses" in no.error()["message"]
    assert gate.sim.requests == []
    assert (await gate.call(MESSAGES, searching(max_uses=2), payer)).status == 200


async def test_strict_cannot_bound_a_guardrail(gate: Gate) -> None:
    path = "/bedrock/model/amazon.nova-lite-v1:0/converse"
    payer = await gate.payer("9.00", mode="strict", **PERCENT)
    plain: dict[str, object] = {"messages": [], "inferenceConfig": {"maxTokens": 9}}
    gate.sim.script[path.removeprefix("/bedrock")] = Script.json(
        {"output": {}, "metrics": {}, "usage": {"inputTokens": 1, "outputTokens": 1}}
    )
    guarded = plain | {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}}
    no = await gate.call(path, guarded, payer)
    assert (no.status, b"guardrail" in no.body) == (422, True)
    assert (await gate.call(path, plain, payer)).status == 200


async def test_a_large_container_is_held_as_many(gate: Gate) -> None:
    """4 GB are 0.12 USD, beside a hidden prompt of 0.25."""
    gate.sim.script["gpt-5"] = Script.json({"id": "x", "status": "completed", "usage": None})
    for memory, status in (("1g", 200), ("4g", 402)):
        payer = await gate.payer("0.33", **PERCENT)
        tool = {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": memory}}
        body = {"model": "gpt-5", "input": "x", "max_output_tokens": 16, "tools": [tool]}
        assert (await gate.call("/openai/v1/responses", body, payer)).status == status


async def test_a_meter_by_the_token_asks_no_fee_but_strict_bounds_its_prompts(gate: Gate) -> None:
    """Each use of a tool has the prompt read again."""
    payer = await gate.payer("5.00", mode="strict")
    gate.sim.script[CLAUDE] = who_searches(1)
    assert (await gate.call(MESSAGES, searching(), payer)).status == 422
    assert (await gate.call(MESSAGES, searching(max_uses=2), payer)).status == 402
    assert (await gate.call(MESSAGES, searching(max_uses=1), payer)).status == 200


def item(kind: str, number: int) -> bytes:
    body = {"type": "response.output_item.done"}
    body |= {"item": {"type": kind, "id": f"ws_{number}", "action": {"type": "search"}}}  # type: ignore[dict-item]
    return b"event: x\ndata: " + json.dumps(body).encode() + b"\n\n"


def words(number: int) -> bytes:
    body = {"type": "response.output_text.delta", "delta": f" {number}"}
    return b"event: x\ndata: " + json.dumps(body).encode() + b"\n\n"


async def test_a_stream_is_cut_when_its_searches_have_used_the_money_up(gate: Gate) -> None:
    payer = await gate.payer("0.155", **PERCENT)
    pieces = (Piece(item("web_search_call", n) + words(n), 0.001) for n in range(60))
    gate.sim.script["gpt-5"] = Script(pieces)
    body = {"model": "gpt-5", "input": "x", "stream": True, "tools": [{"type": "web_search"}]}
    answer = await gate.call(RESPONSES, body, payer)
    assert b"budget_exhausted" in answer.body
    row = await gate.row(payer)
    assert row["outcome"] == "cut_off"
    assert 14 * SEARCH_E10 < row["charge_e10"] <= payer.credit_e10
    assert await gate.left_e10(payer) >= 0


# Characters.


@pytest.mark.parametrize(("mode", "each", "cap"), [("strict", 128, 38), ("sliced", 8, 620)])
async def test_a_plain_answer_by_the_character_gets_a_cap(
    gate: Gate, mode: str, each: int, cap: int
) -> None:
    """5,000 characters are paid for. In strict a token may be a run of blanks."""
    payer, model = await gate.payer("0.05", unit="characters_1m", mode=mode), fresh_model()

    def blanks(request: SimRequest) -> Script:
        made = cap_in(json.loads(request.body)) or LONGEST
        choice = {"message": {"content": " " * each * made}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 4, "completion_tokens": made}
        return Script.json({"id": "x", "choices": [choice], "usage": usage})

    gate.sim.script[model] = blanks
    assert (await gate.call(CHAT, asking(model), payer)).status == 200
    (request,) = gate.seen(model)
    assert cap <= (cap_in(json.loads(request.body)) or 0) <= cap + 2
    row = await gate.row(payer)
    assert payer.credit_e10 * 9 // 10 < row["charge_e10"] <= payer.credit_e10


# What cannot be capped.


@pytest.mark.parametrize(("mode", "status"), [("strict", 422), ("sliced", 402)])
async def test_a_body_that_takes_no_cap_is_refused_or_held_for_in_full(
    gate: Gate, mode: str, status: int
) -> None:
    """Compaction has no member for a cap; 32,768 tokens would cost 33 cents."""
    payer, model = await gate.payer("0.30", mode=mode), fresh_model()
    no = await gate.call("/openai/v1/responses/compact", {"model": model, "input": "x"}, payer)
    assert (no.status, gate.sim.requests) == (status, [])


# Quotes.


@pytest.mark.parametrize("mode", ["sliced", "strict", "soft"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "more", [{}, {"max_tokens": 700}, {"service_tier": "priority", "max_tokens": 700}]
)
async def test_a_quote_says_what_the_call_then_holds(
    gate: Gate, mode: str, stream: bool, more: dict[str, Any]
) -> None:
    payer = await gate.payer("20.00", mode=mode, **PERCENT)
    body = asking("gpt-5", stream=stream, **more)
    ask = {"customer_id": payer.customer_id, "meter_slug": "m", "body": body}
    ask["url"] = "https://api.openai.com/v1/chat/completions"
    quote = await managed(gate, payer, "POST", "/v1/quotes", ask)
    gate.sim.script["gpt-5"] = Script((Piece(b"", 30.0),))
    compact = json.dumps(body, separators=(",", ":")).encode()  # the bound counts bytes
    call = await gate.open_call(CHAT, compact, payer)
    await gate.sim.until(lambda: gate.seen("gpt-5"))
    held_e10 = gate.gateway.books.leases.account(payer.customer_id).held_e10
    call.close()
    assert format_e10(held_e10) == quote["hold"]
    assert quote["ceiling"] >= quote["hold"]
    if mode == "strict" or not stream:
        assert quote["ceiling"] == quote["hold"]
    await gate.booked()


async def test_a_quote_is_refused_like_its_call(gate: Gate) -> None:
    payer = await gate.payer("9.00", mode="strict", **PERCENT)
    ask = {"customer_id": payer.customer_id, "meter_slug": "m", "body": searching()}
    ask["url"] = "https://api.anthropic.com/v1/messages"
    headers = {"authorization": f"Bearer {payer.secret}"}
    no = await gate.call("/v1/quotes", ask, None, headers)
    assert (no.status, no.error()["code"]) == (422, "unbounded_call")
