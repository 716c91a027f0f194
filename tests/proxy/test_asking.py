"""A server that does not know `stream_options` is asked once more without: one hold, one row, and
the client sees the one good answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from gateway_kit import CHAT, TOKEN_E10, Gate, fresh_model

from lava_proxy.net.simulated import Ending, Piece, Script, SimRequest
from lava_proxy.proxy.unasked import UNASKED_FOR_S, UNASKED_MAX, UnaskedServers

pytestmark = pytest.mark.asyncio(loop_scope="module")

REFUSAL: dict[str, Any] = {
    "object": "error",
    "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options')}]",
}
CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"hello there"}}]}\n\n'
END = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.fixture(autouse=True)
def _nothing_known(gate: Gate) -> None:
    gate.gateway.unasked_servers = UnaskedServers()


def _old(refusal: Any = REFUSAL, status: int = 400) -> Callable[[SimRequest], Script]:
    def answer(request: SimRequest) -> Script:
        if b"stream_options" in request.body:
            return Script.json(refusal, status=status)
        return Script([Piece(CHUNK), Piece(END)])

    return answer


def _asking(model: str, **more: object) -> dict[str, object]:
    hello = [{"role": "user", "content": "hello"}]
    return {"model": model, "messages": hello, "stream": True, **more}


@pytest.mark.parametrize("status", [400, 422])
async def test_asked_once_more_and_then_not_again(gate: Gate, status: int) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = _old(status=status)
    answer = await gate.call(CHAT, _asking(model), payer)
    assert (answer.status, answer.body) == (200, CHUNK + END)
    assert answer.whole
    bodies = [json.loads(request.body) for request in gate.seen(model)]
    assert [("stream_options" in body) for body in bodies] == [True, False]
    assert bodies[1] == _asking(model)
    (row,) = await gate.rows(payer)
    assert (row["outcome"], row["usage_source"]) == ("completed", "estimate")
    assert row["flags"] == ["no_usage", "unpriced"]
    assert row["charge_e10"] > 0
    assert (await gate.call(CHAT, _asking(model), payer)).body == CHUNK + END
    assert len(gate.seen(model)) == 3
    assert len(await gate.rows(payer)) == 2


async def test_the_output_cap_stays(gate: Gate) -> None:
    payer, model = await gate.payer("0.0050", mode="strict"), fresh_model()
    gate.sim.script[model] = _old()
    assert (await gate.call(CHAT, _asking(model), payer)).status == 200
    first, second = (json.loads(request.body) for request in gate.seen(model))
    assert second["max_completion_tokens"] == first["max_completion_tokens"] > 0
    assert first.pop("stream_options") == {"include_usage": True}
    assert first == second


@pytest.mark.parametrize(
    "refusal",
    [
        {"error": {"message": "no such model"}},
        {"error": {"message": "stream_options " + "x" * 20_000}},
    ],
)
async def test_any_other_error_passes_as_it_is(gate: Gate, refusal: dict[str, Any]) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = _old(refusal)
    answer = await gate.call(CHAT, _asking(model), payer)
    assert (answer.status, json.loads(answer.body)) == (400, refusal)
    assert len(gate.seen(model)) == 1
    (row,) = await gate.rows(payer)
    assert (row["outcome"], row["charge_e10"]) == ("upstream_error", 0)


async def test_what_the_caller_asks_for_itself_is_the_callers(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = _old()
    asked = _asking(model, stream_options={"include_usage": True})
    answer = await gate.call(CHAT, asked, payer)
    assert (answer.status, json.loads(answer.body)) == (400, REFUSAL)
    assert len(gate.seen(model)) == 1


async def test_a_request_that_fails_either_way_says_nothing_about_the_server(gate: Gate) -> None:
    payer, model, good = await gate.payer(), fresh_model(), fresh_model()
    gate.sim.script[model] = Script.json(REFUSAL, status=400)
    answer = await gate.call(CHAT, _asking(model), payer)
    assert (answer.status, json.loads(answer.body)) == (400, REFUSAL)
    assert len(gate.seen(model)) == 2
    (row,) = await gate.rows(payer)
    assert (row["outcome"], row["charge_e10"]) == ("upstream_error", 0)
    usage = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    gate.sim.script[good] = Script([Piece(CHUNK), Piece(usage), Piece(b"data: [DONE]\n\n")])
    assert (await gate.call(CHAT, _asking(good), payer)).status == 200
    assert b"stream_options" in gate.seen(good)[-1].body
    assert (await gate.rows(payer))[-1]["charge_e10"] == 5 * TOKEN_E10


async def test_a_second_request_that_breaks_off_is_void(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()

    def answer(request: SimRequest) -> Script:
        if b"stream_options" in request.body:
            return Script.json(REFUSAL, status=400)
        return Script(ends=Ending.RESET, raw=True)

    gate.sim.script[model] = answer
    assert (await gate.call(CHAT, _asking(model), payer)).status == 502
    (row,) = await gate.rows(payer)
    assert (row["outcome"], row["charge_e10"]) == ("void", 0)


async def test_servers_are_remembered_for_an_hour_and_boundedly() -> None:
    servers = UnaskedServers()
    server = ("vllm.example", "/v1/chat/completions?")
    assert not servers.knows(server, 5.0)
    servers.note(server, 5.0)
    assert servers.knows(server, 5.0)
    assert not servers.knows(("vllm.example", "/v1/completions?"), 5.0)
    assert not servers.knows(server, 5.0 + UNASKED_FOR_S)
    for number in range(2 * UNASKED_MAX):
        servers.note(("h", str(number)), 6.0)
    assert servers.knows(server, 6.0)
    assert not servers.knows(("h", str(2 * UNASKED_MAX - 1)), 6.0)
    servers.note(("h", "later"), 7.0 + UNASKED_FOR_S)
    assert servers.knows(("h", "later"), 8.0 + UNASKED_FOR_S)
