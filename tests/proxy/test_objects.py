"""Objects made at a provider belong to the customer who made them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gateway_kit import TOKEN_E10, Gate, fresh_model

from lava_proxy.books.codec import decode_call
from lava_proxy.books.journal import read_folder
from lava_proxy.books.segment import HOLD
from lava_proxy.net.simulated import JSON, Piece, Script
from lava_proxy.rules.settlement import Call

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_objects_belong_to_the_customer_who_made_them(gate: Gate) -> None:
    # What a chained call brings along is not known, so it holds a whole window.
    payer, model = await gate.payer("20.00"), fresh_model()
    other = await gate.sibling(payer, "20.00")
    usage = {"input_tokens": 3, "output_tokens": 2}
    made = {"id": "resp_made_1", "object": "response", "status": "completed", "usage": usage}
    gate.sim.script[model] = Script.json(made)
    gate.sim.script["/v1/responses/resp_made_1"] = Script.json(made)
    asked = {"model": model, "input": "hello"}
    assert (await gate.call("/openai/v1/responses", asked, payer)).status == 200
    follow = asked | {"previous_response_id": "resp_made_1"}
    got = "/openai/v1/responses/resp_made_1"
    assert (await gate.call("/openai/v1/responses", follow, payer)).status == 200
    assert (await gate.call(got, None, payer, method="GET")).status == 200
    before = len(gate.sim.requests)
    for who in (other, await gate.payer("20.00")):
        answers = [
            await gate.call("/openai/v1/responses", follow, who),
            await gate.call(got, None, who, method="GET"),
            await gate.call(got, None, who, method="DELETE"),
        ]
        assert [a.status for a in answers] == [404, 404, 404]
        assert {a.error()["code"] for a in answers} == {"not_found"}
        assert await gate.rows(who) == []
    assert len(gate.sim.requests) == before


async def test_with_an_own_key_objects_are_the_callers_own(gate: Gate) -> None:
    payer = await gate.payer()
    gate.sim.script["/v1/responses/resp_theirs"] = Script.json({"id": "resp_theirs"})
    token = payer.token(provider_key="own-key-1234")
    headers = {"authorization": f"Bearer {token}"}
    path = "/openai/v1/responses/resp_theirs"
    assert (await gate.call(path, None, None, headers, method="GET")).status == 200


async def test_a_conversation_may_be_used_by_its_maker(gate: Gate) -> None:
    payer = await gate.payer()
    gate.sim.script["/v1/conversations"] = Script.json({"id": "conv_1", "object": "conversation"})
    gate.sim.script["/v1/conversations/conv_1"] = Script.json({"id": "conv_1"})
    assert (await gate.call("/openai/v1/conversations", {}, payer)).status == 200
    mine = await gate.call("/openai/v1/conversations/conv_1", None, payer, method="GET")
    assert mine.status == 200
    other = await gate.sibling(payer)
    theirs = await gate.call("/openai/v1/conversations/conv_1", None, other, method="GET")
    assert theirs.status == 404


async def test_a_stored_response_is_charged_once(gate: Gate) -> None:
    payer, model = await gate.payer("20.00"), fresh_model()
    usage = {"input_tokens": 3, "output_tokens": 2}
    made = {"id": f"resp_{model}", "object": "response", "status": "completed", "usage": usage}
    gate.sim.script[model] = Script.json(made)
    gate.sim.script[f"/v1/responses/{made['id']}"] = Script.json(made)
    await gate.call("/openai/v1/responses", {"model": model, "input": "hello"}, payer)
    for _ in range(2):
        await gate.call(f"/openai/v1/responses/{made['id']}", None, payer, method="GET")
    charges = [row["charge_e10"] for row in await gate.rows(payer)]
    assert sum(charges) == charges[0]


async def test_a_background_response_is_charged_once_when_it_is_read(gate: Gate) -> None:
    payer, model = await gate.payer("20.00"), fresh_model()
    response_id = f"resp_{model}"
    queued = {"id": response_id, "object": "response", "status": "queued", "usage": None}
    usage = {"input_tokens": 300, "output_tokens": 20}
    done = queued | {"status": "completed", "usage": usage, "model": model}
    gate.sim.script[model] = Script.json(queued)
    path = f"/openai/v1/responses/{response_id}"
    gate.sim.script[f"/v1/responses/{response_id}"] = [
        Script.json(queued | {"status": "in_progress"}),
        *(Script.json(done) for _ in range(3)),
    ]
    asked = {"model": model, "input": "hello " * 200, "background": True}
    assert (await gate.call("/openai/v1/responses", asked, payer)).status == 200
    made = await gate.row(payer)
    assert made["charge_e10"] == 0
    assert "background" in made["flags"]
    assert "no_usage" not in made["flags"]
    for _ in range(4):
        assert (await gate.call(path, None, payer, method="GET")).status == 200
    charges = [row["charge_e10"] for row in await gate.rows(payer)]
    assert charges == [0, 0, 320 * TOKEN_E10, 0, 0]
    assert (await gate.rows(payer))[2]["model"] == model


async def test_a_percentage_meter_prices_what_is_read_by_the_answers_model(gate: Gate) -> None:
    payer = await gate.payer("20.00", rate_e12=100 * 10**12, rate_type="percentage")
    usage = {"input_tokens": 1000, "output_tokens": 100}
    queued = {"id": "resp_priced", "object": "response", "status": "queued", "model": "gpt-4o"}
    gate.sim.script["/v1/responses"] = Script.json(queued)
    gate.sim.script["/v1/responses/resp_priced"] = Script.json(
        queued | {"status": "completed", "usage": usage}
    )
    asked = {"model": "gpt-4o", "input": "hello", "background": True}
    assert (await gate.call("/openai/v1/responses", asked, payer)).status == 200
    path = "/openai/v1/responses/resp_priced"
    assert (await gate.call(path, None, payer, method="GET")).status == 200
    assert [row["charge_e10"] for row in await gate.rows(payer)] == [0, 35_000_000]


async def test_a_background_stream_that_its_client_leaves_is_charged_once(gate: Gate) -> None:
    payer, model = await gate.payer("20.00"), fresh_model()
    response_id = f"resp_{model}"
    usage = {"input_tokens": 30, "output_tokens": 220}
    created = {"id": response_id, "object": "response", "status": "in_progress", "usage": None}
    events = [
        {"type": "response.created", "response": created},
        {"type": "response.output_text.delta", "delta": "hello " * 100},
    ]
    pieces = [Piece(f"data: {json.dumps(event)}\n\n".encode()) for event in events]
    gate.sim.script[model] = Script([*pieces, Piece(b"", 30.0)])
    gate.sim.script[f"/v1/responses/{response_id}"] = Script.json(
        created | {"status": "completed", "usage": usage}
    )
    asked = {"model": model, "input": "hello", "background": True, "stream": True}
    call = await gate.open_call("/openai/v1/responses", asked, payer)
    await call.head()
    got = b""
    while b"delta" not in got:
        got += await call.piece() or b""
    call.writer.close()
    made = await gate.row(payer)
    assert (made["outcome"], made["usage_source"]) == ("client_gone", "estimate")
    assert made["input_tokens"] > 0
    assert 100 <= made["output_tokens"] < 200
    assert made["charge_e10"] == (made["input_tokens"] + made["output_tokens"]) * TOKEN_E10
    path = f"/openai/v1/responses/{response_id}"
    for _ in range(2):
        assert (await gate.call(path, None, payer, method="GET")).status == 200
    rows = await gate.rows(payer)
    assert rows[1]["charge_e10"] == 250 * TOKEN_E10 - made["charge_e10"]
    assert "metered_before" in rows[1]["flags"]
    assert rows[2]["charge_e10"] == 0


async def test_reading_a_response_that_runs_costs_what_is_there_and_no_more_than_it_is(
    gate: Gate,
) -> None:
    """Whole or as a stream."""
    payer, model = await gate.payer("20.00"), fresh_model()
    response_id = f"resp_{model}"
    text = [{"type": "message", "content": [{"type": "output_text", "text": "hello " * 50}]}]
    created = {"id": response_id, "object": "response", "status": "in_progress", "usage": None}
    gate.sim.script[model] = Script.json(created)
    asked = {"model": model, "input": "hello", "background": True}
    assert (await gate.call("/openai/v1/responses", asked, payer)).status == 200
    events = [
        {"type": "response.created", "response": created},
        {"type": "response.output_text.delta", "delta": "hello " * 50},
    ]
    pieces = [Piece(f"data: {json.dumps(event)}\n\n".encode()) for event in events]
    usage = {"input_tokens": 30, "output_tokens": 120}
    path = f"/openai/v1/responses/{response_id}"
    gate.sim.script[f"/v1/responses/{response_id}"] = [
        Script.json(created | {"output": []}),
        Script.json(created | {"output": text}),
        Script(pieces),
        Script(pieces),
        Script.json(created | {"status": "completed", "usage": usage, "output": text}),
        Script.json(created | {"status": "completed", "usage": usage, "output": text}),
    ]
    queries = ("", "", "?stream=true", "?stream=true&starting_after=1", "", "")
    for query in queries:
        assert (await gate.call(path + query, None, payer, method="GET")).status == 200
    charged = [row["charge_e10"] // TOKEN_E10 for row in await gate.rows(payer)]
    some = charged[2]
    assert 50 <= some < 100
    # A stream that is taken up in the middle was not seen before.
    assert charged == [0, 0, some, 0, some, max(0, 150 - 2 * some), 0]


@pytest.mark.parametrize("how", ["left", "in half"])
async def test_a_read_that_is_not_taken_to_its_end_is_not_free(gate: Gate, how: str) -> None:
    payer, model = await gate.payer("20.00"), fresh_model()
    response_id = f"resp_{model}"
    path = f"/openai/v1/responses/{response_id}"
    text = [{"type": "message", "content": [{"type": "output_text", "text": "hello " * 50}]}]
    created = {"id": response_id, "object": "response", "status": "in_progress", "usage": None}
    usage = {"input_tokens": 30, "output_tokens": 120}
    done = created | {"status": "completed", "output": text, "usage": usage}
    gate.sim.script[model] = Script.json(created)
    asked = {"model": model, "input": "hello", "background": True}
    assert (await gate.call("/openai/v1/responses", asked, payer)).status == 200
    if how == "left":
        delta = {"type": "response.output_text.delta", "delta": "hello " * 50}
        sent, query = f"data: {json.dumps(delta)}\n\n".encode(), "?stream=true"
        script = Script([Piece(sent), Piece(b"", 30.0)])
    else:
        sent, query = json.dumps(done).encode()[:-60], ""
        script = Script([Piece(sent), Piece(b"", 30.0)], headers=JSON)
    gate.sim.script[f"/v1/responses/{response_id}"] = [script, Script.json(done)]
    call = await gate.open_call(path + query, None, payer, method="GET")
    await call.head()
    got = b""
    while len(got) < len(sent):
        got += await call.piece() or b""
    call.close()
    some = (await gate.rows(payer))[1]["charge_e10"] // TOKEN_E10
    assert 50 <= some < 100
    assert (await gate.call(path, None, payer, method="GET")).status == 200
    assert (await gate.rows(payer))[2]["charge_e10"] == (150 - some) * TOKEN_E10


async def test_what_is_cancelled_costs_what_was_made_although_its_usage_is_not_told(
    gate: Gate,
) -> None:
    payer, model = await gate.payer("20.00"), fresh_model()
    response_id = f"resp_{model}"
    text = [{"type": "message", "content": [{"type": "output_text", "text": "hello " * 50}]}]
    created = {"id": response_id, "object": "response", "status": "in_progress", "usage": None}
    gate.sim.script[model] = Script.json(created)
    asked = {"model": model, "input": "hello", "background": True}
    assert (await gate.call("/openai/v1/responses", asked, payer)).status == 200
    cancelled = Script.json(created | {"status": "cancelled", "output": text})
    gate.sim.script[f"/v1/responses/{response_id}/cancel"] = cancelled
    gate.sim.script[f"/v1/responses/{response_id}"] = cancelled
    path = f"/openai/v1/responses/{response_id}"
    assert (await gate.call(path + "/cancel", {}, payer)).status == 200
    assert (await gate.call(path, None, payer, method="GET")).status == 200
    charged = [row["charge_e10"] // TOKEN_E10 for row in await gate.rows(payer)]
    assert (charged[0], charged[2]) == (0, 0)
    assert 50 <= charged[1] < 100


async def test_a_stream_that_is_left_is_not_charged_again_when_it_is_read(gate: Gate) -> None:
    """Not in the background: what was made until then is stored all the same."""
    payer, model = await gate.payer("20.00"), fresh_model()
    response_id = f"resp_{model}"
    created = {"id": response_id, "object": "response", "status": "in_progress", "usage": None}
    events = [
        {"type": "response.created", "response": created},
        {"type": "response.output_text.delta", "delta": "hello " * 50},
    ]
    sent = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)
    gate.sim.script[model] = Script([Piece(sent), Piece(b"", 30.0)])
    usage = {"input_tokens": 30, "output_tokens": 120}
    done = Script.json(created | {"status": "incomplete", "usage": usage})
    gate.sim.script[f"/v1/responses/{response_id}"] = done
    asked = {"model": model, "input": "hello", "stream": True}
    call = await gate.open_call("/openai/v1/responses", asked, payer)
    await call.head()
    got = b""
    while len(got) < len(sent):
        got += await call.piece() or b""
    call.close()
    some = (await gate.row(payer))["charge_e10"]
    assert some > 50 * TOKEN_E10
    path = f"/openai/v1/responses/{response_id}"
    assert (await gate.call(path, None, payer, method="GET")).status == 200
    assert (await gate.rows(payer))[1]["charge_e10"] == 150 * TOKEN_E10 - some


@pytest.mark.parametrize("background", [True, False])
async def test_a_responses_id_is_journaled_before_its_client_has_it(
    gate: Gate, background: bool
) -> None:
    payer, model = await gate.payer("20.00"), fresh_model()
    created = {"id": f"resp_{model}", "status": "in_progress", "usage": None}
    first = {"type": "response.created", "response": created}
    delta = {"type": "response.output_text.delta", "item_id": "i", "delta": "word " * 9}
    pieces = [Piece(f"data: {json.dumps(event)}\n\n".encode()) for event in (first, delta, delta)]
    gate.sim.script[model] = Script([*pieces, Piece(b"", 30.0)])
    asked = {"model": model, "input": "hello", "background": background, "stream": True}
    call = await gate.open_call("/openai/v1/responses", asked, payer)
    await call.head()
    got = await call.piece() or b""
    assert created["id"].encode() in got
    named = _named(gate, created["id"])
    assert named[-1].runs_on is background
    if background:
        ((owner_id, kept_e10),) = named[-1].keeps  # all that it holds waits, should we die now
        assert (owner_id, named[-1].keeps_s) == (payer.customer_id, 3600)
        assert kept_e10 > 1000 * TOKEN_E10
    else:
        assert named[-1].keeps == ()
    while got.count(b"output_text.delta") < 2 and (piece := await call.piece()):
        got += piece
    assert len(_named(gate, created["id"])) == 1  # once, not with every piece
    call.close()
    assert 10 * TOKEN_E10 < (await gate.row(payer))["charge_e10"] < 1000 * TOKEN_E10


def _named(gate: Gate, object_id: str) -> list[Call]:
    records = read_folder(gate.gateway.books.journal.folder)
    holds = [decode_call(r.facts, "hld", None) for r in records if r.kind == HOLD]
    return [call for call in holds if call.object_id == object_id]


async def test_a_background_interaction_is_its_makers_and_charged_once(gate: Gate) -> None:
    payer, model = await gate.payer("20.00"), fresh_model()
    other, made_id = await gate.sibling(payer, "20.00"), f"v1_{model}"
    begun = {"id": made_id, "object": "interaction", "status": "in_progress", "model": model}
    usage = {"total_input_tokens": 300, "total_output_tokens": 5, "total_thought_tokens": 15}
    done = begun | {"status": "completed", "usage": usage}
    gate.sim.script["/v1beta/interactions"] = Script.json(begun)
    gate.sim.script[f"/v1beta/interactions/{made_id}"] = Script.json(done)
    asked = {"model": model, "input": "hello", "background": True}
    assert (await gate.call("/google/v1beta/interactions", asked, payer)).status == 200
    path = f"/google/v1beta/interactions/{made_id}"
    for _ in range(2):
        assert (await gate.call(path, None, payer, method="GET")).status == 200
    charges = [row["charge_e10"] for row in await gate.rows(payer)]
    assert charges == [0, 320 * TOKEN_E10, 0]
    follow = asked | {"previous_interaction_id": made_id}
    assert (await gate.call(path, None, other, method="GET")).status == 404
    assert (await gate.call("/google/v1beta/interactions", follow, other)).status == 404
    assert (await gate.call("/google/v1beta/interactions", follow, payer)).status == 200


async def test_a_prediction_is_charged_once_when_its_time_is_known(gate: Gate) -> None:
    payer = await gate.payer("20.00", unit="minutes", rate_e12=10**10)
    begun = {"id": "pred_1", "model": "stability-ai/sdxl", "status": "starting", "metrics": {}}
    done = begun | {"status": "succeeded", "metrics": {"predict_time": 90.0}}
    gate.sim.script["/v1/predictions"] = Script.json(begun, status=201)
    gate.sim.script["/v1/predictions/pred_1"] = [
        Script.json(begun | {"status": "processing"}),
        *(Script.json(done) for _ in range(2)),
    ]
    headers = {"authorization": f"Bearer {payer.token(provider_key='own-key-1234')}"}
    asked = {"version": "stability-ai/sdxl", "input": {"prompt": "robots"}}
    made = await gate.call("/replicate/v1/predictions", asked, payer, headers)
    assert made.status == 201
    assert "background" in (await gate.row(payer))["flags"]
    path = "/replicate/v1/predictions/pred_1"
    for _ in range(3):
        assert (await gate.call(path, None, payer, headers, method="GET")).status == 200
    charges = [row["charge_e10"] for row in await gate.rows(payer)]
    assert charges == [0, 0, 150_000_000, 0]  # a minute and a half at a cent
    assert (await gate.rows(payer))[2]["model"] == "stability-ai/sdxl"


@pytest.mark.parametrize("shell", [True, False])
async def test_a_container_may_be_used_again_by_whose_answer_opened_it(
    gate: Gate, shell: bool
) -> None:
    payer, model = await gate.payer("20.00"), fresh_model()
    other, container = await gate.sibling(payer, "20.00"), f"cntr_{model}"
    ran: dict[str, object] = {
        "type": "code_interpreter_call",
        "id": "ci_1",
        "container_id": container,
    }
    tool: dict[str, object] = {"type": "code_interpreter", "container": container}
    if shell:
        place = {"type": "container_reference", "container_id": container}
        ran = {"type": "shell_call", "id": "sh_1", "environment": place}
        tool = {"type": "shell", "environment": place}
    usage = {"input_tokens": 3, "output_tokens": 2}
    gate.sim.script[model] = Script.json(
        {"id": f"resp_{model}", "status": "completed", "usage": usage, "output": [ran]}
    )
    asked = {"model": model, "input": "hello"}
    again = asked | {"tools": [tool]}
    path = "/openai/v1/responses"
    assert (await gate.call(path, again, payer)).status == 404
    assert (await gate.call(path, asked, payer)).status == 200
    assert (await gate.call(path, again, payer)).status == 200
    assert (await gate.call(path, again, other)).status == 404


async def test_what_was_answered_may_be_referred_to_by_who_got_it(gate: Gate) -> None:
    """As Vercel's AI SDK does in every turn but the first."""
    payer, model = await gate.payer("20.00"), fresh_model()
    other, said = await gate.sibling(payer, "20.00"), f"msg_{model}"
    item = {"type": "message", "id": said, "role": "assistant", "content": []}
    usage = {"input_tokens": 3, "output_tokens": 2}
    gate.sim.script[model] = Script.json(
        {"id": f"resp_{model}", "status": "completed", "usage": usage, "output": [item]}
    )
    asked: dict[str, Any] = {"model": model, "input": "hello"}
    again = {"model": model, "input": [{"type": "item_reference", "id": said}]}
    path = "/openai/v1/responses"
    assert (await gate.call(path, asked, payer)).status == 200
    assert (await gate.call(path, again, payer)).status == 200
    assert (await gate.call(path, again, other)).status == 404


async def test_a_container_of_anthropics_too(gate: Gate) -> None:
    payer, model = await gate.payer("20.00"), fresh_model()
    other, container = await gate.sibling(payer, "20.00"), f"container_{model}"
    answer = {"type": "message", "id": "msg_1", "model": model, "content": []}
    answer |= {"container": {"id": container}, "usage": {"input_tokens": 3, "output_tokens": 2}}
    gate.sim.script[model] = Script.json(answer)
    asked = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    path = "/anthropic/v1/messages"
    assert (await gate.call(path, asked, payer)).status == 200
    assert (await gate.call(path, asked | {"container": container}, payer)).status == 200
    assert (await gate.call(path, asked | {"container": container}, other)).status == 404
