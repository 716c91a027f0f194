"""Fallbacks of rewritten calls, path by path: who serves, what the client sees, and that each
attempt is booked once, with a hold of its own that is given back (`Gate.check` after each test)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import openai
import pytest
from gateway_kit import TOKEN_E10, Gate, Payer, fresh_model
from plain_client import Answer
from rewrite_kit import CLAUDE, GPT, HELLO, anthropic_at, choice, gpt_stream, openai_at

from lava_proxy.net.simulated import Ending, Piece, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"first_byte_timeout_s": 0.6, "stream_max_s": 1.5}
GOOD = "sim-5-0-in7"
"""The simulated provider answers this one: 7 tokens in, 5 out."""
AT_GPT = f"/v1/rewrite/openai/{GPT}"
DOWN = {
    "500": Script.json({"error": {"message": "broken"}}, status=500),
    "503": Script.plain(b"<html>busy", status=503),
    "429": Script.json({"error": {"message": "slow down"}}, status=429),
    "529": Script.json({"error": {"message": "overloaded"}}, status=529),
    "reset": Script((), raw=True, ends=Ending.RESET),
    "nonsense": Script([Piece(b"SSH-2.0 hello\r\n\r\n")], raw=True, ends=Ending.TRUNCATED),
    "silence": Script((), raw=True, ends=Ending.STALL),
}


def _down(gate: Gate, how: str = "503") -> str:
    model = fresh_model()
    gate.sim.script[model] = DOWN[how]
    return model


def _chain(*steps: tuple[str, str]) -> dict[str, str]:
    return {"x-lava-fallbacks": json.dumps([{"url": u, "model": m} for u, m in steps])}


def _body(model: str, *, stream: bool = False) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, "max_tokens": 50, "stream": stream}


async def _outcomes(gate: Gate, payer: Payer) -> list[tuple[str, str, int]]:
    rows = await gate.rows(payer)
    assert len({row["request_id"] for row in rows}) == len(rows)
    return [(r["provider"], r["outcome"], r["charge_e10"] // TOKEN_E10) for r in rows]


def _text(answer: Answer) -> str:
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize("how", list(DOWN))
@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_target_serves(gate: Gate, how: str, stream: bool) -> None:
    payer, model = await gate.payer(), _down(gate, how)
    chain = _chain((CLAUDE.removeprefix("https://"), GOOD))
    answer = await gate.call(AT_GPT, _body(model, stream=stream), payer, chain)
    assert (answer.status, answer.whole) == (200, True)
    assert answer.header("x-lava-served-by") == f"anthropic/{GOOD}"
    assert b"five" in answer.body
    failed = "upstream_error" if how.isdigit() else "void"
    assert await _outcomes(gate, payer) == [("openai", failed, 0), ("anthropic", "completed", 12)]
    rows = await gate.rows(payer)
    assert answer.header("x-lava-request-id") == rows[1]["request_id"]
    assert [json.loads(s.body)["model"] for s in gate.sim.requests] == [model, GOOD]
    assert gate.sim.requests[1].headers["x-api-key"].startswith("managed-key-of-anthropic")
    assert "x-lava-fallbacks" not in gate.sim.requests[1].headers


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_is_the_callers_own_fault_is_not_tried_elsewhere(
    gate: Gate, status: int
) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script.json({"error": {"message": "no"}}, status=status)
    answer = await gate.call(AT_GPT, _body(model), payer, _chain((GPT, GOOD)))
    assert answer.status == (502 if status in (401, 403) else status)
    assert await _outcomes(gate, payer) == [("openai", "upstream_error", 0)]


async def test_refusals_are_not_tried_elsewhere(gate: Gate) -> None:
    payer = await gate.payer("0.0000000001")
    answer = await gate.call(AT_GPT, _body(GOOD), payer, _chain((GPT, GOOD)))
    assert answer.status == 402
    assert gate.sim.requests == []
    assert await _outcomes(gate, payer) == []


async def test_a_next_target_that_is_refused_ends_it(gate: Gate) -> None:
    payer = await gate.payer(rate_type="percentage", rate_e12=100 * 10**12)
    gate.sim.script["gpt-4o-mini"] = DOWN["503"]
    steps = _chain((GPT, "no-price"), (GPT, "gpt-4o"))
    answer = await gate.call(AT_GPT, _body("gpt-4o-mini"), payer, steps)
    assert (answer.status, answer.error()["code"]) == (402, "model_unpriced")
    assert len(gate.sim.requests) == 1
    assert await _outcomes(gate, payer) == [("openai", "upstream_error", 0)]


@pytest.mark.parametrize("way", ["header", "account"])
async def test_the_chain_is_tried_in_order_to_its_end(gate: Gate, way: str) -> None:
    payer = await gate.payer()
    models = [_down(gate, how) for how in ("500", "429", "reset", "503")]
    steps = [(CLAUDE, models[1]), (GPT, models[2]), (GPT, models[3])]
    headers = _chain(*steps) if way == "header" else {}
    if way == "account":
        await _account_chain(gate, payer, steps)
    answer = await gate.call(AT_GPT, _body(models[0]), payer, headers)
    assert answer.status == 503  # the last one's own words
    assert answer.body == b"<html>busy"
    assert answer.header("x-lava-served-by") == f"openai/{models[3]}"
    assert [json.loads(s.body)["model"] for s in gate.sim.requests] == models
    found = await _outcomes(gate, payer)
    assert [outcome for _, outcome, _ in found] == [
        "upstream_error",
        "upstream_error",
        "void",
        "upstream_error",
    ]
    assert await gate.left_e10(payer) == payer.credit_e10


async def _account_chain(gate: Gate, payer: Payer, steps: list[tuple[str, str]]) -> None:
    async with gate.database.transaction() as conn:
        await conn.execute(
            "UPDATE merchants SET fallback_chain = $2 WHERE merchant_id = $1",
            payer.merchant_id,
            [list(step) for step in steps],
        )
    gate.gateway.books.directory.changed("merchants", payer.merchant_id)


async def test_the_headers_chain_stands_for_the_accounts(gate: Gate) -> None:
    payer, model = await gate.payer(), _down(gate)
    await _account_chain(gate, payer, [(CLAUDE, GOOD)])
    answer = await gate.call(AT_GPT, _body(model), payer, {"x-lava-fallbacks": "[]"})
    assert answer.status == 503
    served = await gate.call(AT_GPT, _body(model), payer)
    assert served.header("x-lava-served-by") == f"anthropic/{GOOD}"
    plain = await gate.call("/openai/v1/chat/completions", _body(model), payer)
    assert plain.status == 503  # rewritten calls only


async def test_sdks_do_not_notice(gate: Gate) -> None:
    payer, model = await gate.payer(), _down(gate)
    header = _chain((CLAUDE, model), (GPT, model), (GPT, GOOD))
    async with openai_at(gate, GPT, payer.token()) as client:
        stream = await client.chat.completions.create(
            model=model, messages=HELLO, stream=True, extra_headers=header
        )
        text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    assert text.split()[-1] == "five"
    async with anthropic_at(gate, CLAUDE, payer.token()) as other:
        made: Any = await other.messages.create(
            model=model, messages=HELLO, max_tokens=50, extra_headers=header
        )
    assert made.content[0].text.split()[-1] == "five"
    assert len(await gate.rows(payer)) == 8
    async with anthropic_at(gate, GPT, payer.token(), max_retries=0) as last:
        with pytest.raises(anthropic.InternalServerError):
            await last.messages.create(
                model=model,
                messages=HELLO,
                max_tokens=5,
                extra_headers=_chain((CLAUDE, model)),
            )


async def test_in_the_same_dialect_only_the_model_is_another(gate: Gate) -> None:
    payer, model = await gate.payer(), _down(gate)
    body = b'{"model" : "%b",  "messages": [{"role":"user","content":"x"}], "max_tokens":9}'
    answer = await gate.call(AT_GPT, body % model.encode(), payer, _chain((GPT, GOOD)))
    assert answer.status == 200
    assert gate.sim.requests[1].body == body % GOOD.encode()


async def test_nothing_follows_the_first_byte(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    begun = list(gpt_stream([choice({"content": "hi"})], done=False).pieces)
    gate.sim.script[model] = Script(begun, ends=Ending.RESET)
    answer = await gate.call(AT_GPT, _body(model, stream=True), payer, _chain((GPT, GOOD)))
    assert not answer.whole
    assert b"hi" in answer.body
    assert b"five" not in answer.body
    assert [o for _, o, _ in await _outcomes(gate, payer)] == ["truncated"]


@pytest.mark.parametrize(
    "value",
    [
        "no json",
        '{"url":"x"}',
        '["x"]',
        json.dumps([{"url": GPT}]),
        json.dumps([{"url": GPT, "model": 1}]),
        json.dumps([{"url": GPT, "model": "m"}] * 6),
        json.dumps([{"url": "https://evil.example/v1/chat/completions", "model": "m"}]),
        json.dumps([{"url": "http://127.0.0.1/v1/chat/completions", "model": "m"}]),
        json.dumps([{"url": "https://api.openai.com/v1/nowhere", "model": "m"}]),
    ],
)
async def test_a_chain_that_is_wrong_is_refused_at_once(gate: Gate, value: str) -> None:
    payer = await gate.payer()
    answer = await gate.call(AT_GPT, _body(GOOD), payer, {"x-lava-fallbacks": value})
    assert answer.status == 400, answer.body
    assert gate.sim.requests == []
    assert await _outcomes(gate, payer) == []


async def test_a_target_that_cannot_serve_the_call_is_passed_over(gate: Gate) -> None:
    """A request that the first step's format cannot say."""
    payer, model = await gate.payer(), _down(gate)
    body = _body(model) | {"presence_penalty": 0.5}
    answer = await gate.call(AT_GPT, body, payer, _chain((CLAUDE, GOOD), (GPT, GOOD)))
    assert answer.header("x-lava-served-by") == f"openai/{GOOD}"
    alone = await gate.call(AT_GPT, body, payer, _chain((CLAUDE, GOOD)))
    assert (alone.status, alone.body) == (503, b"<html>busy")


async def test_a_callers_own_key_goes_to_its_own_provider_only(gate: Gate) -> None:
    payer, model = await gate.payer(), _down(gate)
    key = {"authorization": f"Bearer {payer.token(provider_key='own-key-0123456789')}"}
    steps = _chain((CLAUDE, GOOD), (GPT, GOOD))
    answer = await gate.call(AT_GPT, _body(model), payer, key | steps)
    assert answer.header("x-lava-served-by") == f"openai/{GOOD}"
    assert {s.headers["authorization"] for s in gate.sim.requests} == {"Bearer own-key-0123456789"}


async def test_the_longest_time_is_for_all_attempts(gate: Gate) -> None:
    payer, models = await gate.payer(), [_down(gate, "silence") for _ in range(6)]
    steps = [(GPT, model) for model in models[1:]]
    started_s = asyncio.get_running_loop().time()
    answer = await gate.call(AT_GPT, _body(models[0]), payer, _chain(*steps))
    took_s = asyncio.get_running_loop().time() - started_s
    assert answer.status in (408, 504)
    assert took_s < 4
    assert 2 <= len(gate.sim.requests) <= 5
    assert {o for _, o, _ in await _outcomes(gate, payer)} == {"void"}


async def test_a_client_that_leaves_ends_it(gate: Gate) -> None:
    payer, models = await gate.payer(), [_down(gate, "503"), _down(gate, "silence")]
    steps = _chain((GPT, models[1]), (GPT, GOOD))
    call = await gate.open_call(AT_GPT, _body(models[0]), payer, steps)
    await gate.until(lambda: len(gate.sim.requests) == 2)
    await asyncio.sleep(0.1)
    call.reset()
    found = await _outcomes(gate, payer)
    assert [outcome for _, outcome, _ in found] == ["upstream_error", "client_gone"]
    assert len(gate.sim.requests) == 2


async def test_a_client_that_leaves_between_two_attempts_ends_it(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer, model = await gate.payer(), _down(gate)
    leases = gate.gateway.books.leases
    hold, asked = leases.hold, [asyncio.Event(), asyncio.Event()]

    async def slow(*args: Any) -> Any:
        if asked[0].is_set():
            asked[1].set()
            await asyncio.sleep(10)
        asked[0].set()
        return await hold(*args)

    monkeypatch.setattr(leases, "hold", slow)
    call = await gate.open_call(AT_GPT, _body(model), payer, _chain((GPT, GOOD)))
    await asked[1].wait()
    call.reset()
    assert await _outcomes(gate, payer) == [("openai", "upstream_error", 0)]
    assert len(gate.sim.requests) == 1


async def test_a_client_that_left_before_is_not_served_elsewhere(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script.plain(b"<html>busy", status=503, delay_s=0.3)
    call = await gate.open_call(AT_GPT, _body(model), payer, _chain((GPT, GOOD)))
    await gate.until(lambda: len(gate.sim.requests) == 1)
    call.reset()
    assert len(await _outcomes(gate, payer)) == 1
    assert len(gate.sim.requests) == 1


async def test_a_cut_of_the_second_attempt_is_in_the_clients_dialect(gate: Gate) -> None:
    payer, model = await gate.payer("0.0060"), _down(gate)
    chain = _chain((CLAUDE, "sim-2000-0"))
    async with openai_at(gate, GPT, payer.token()) as client:
        stream = await client.chat.completions.create(
            model=model, messages=HELLO, stream=True, extra_headers=chain
        )
        with pytest.raises(openai.APIError) as caught:
            [chunk async for chunk in stream]
    assert caught.value.code == "budget_exhausted"
    assert [o for _, o, _ in await _outcomes(gate, payer)] == ["upstream_error", "cut_off"]
