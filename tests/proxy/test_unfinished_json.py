"""Answers that are not streamed cost what they came to, although their end never comes."""

from __future__ import annotations

import gzip
import json

import pytest
from gateway_kit import CHAT, TOKEN_E10, Gate, fresh_model

from lava_proxy.books.journal import read_folder
from lava_proxy.books.segment import PROGRESS
from lava_proxy.net.simulated import EVENT_STREAM, JSON, Ending, Piece, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

USAGE = {"prompt_tokens": 6, "completion_tokens": 3000}


def asking(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hello there"}], **more}


def saying(text: str, usage: dict[str, int] | None = None) -> bytes:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = {"id": "chatcmpl-1", "model": "m", "choices": [choice]}
    return json.dumps(body | ({"usage": usage} if usage else {})).encode()


async def _left_before_the_end(gate: Gate, body: bytes, **more: object):  # type: ignore[no-untyped-def]
    """All of `body` is delivered, and the client leaves before the chunk that ends it."""
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script((Piece(body), Piece(b"", 30.0)), headers=JSON)
    call = await gate.open_call(CHAT, asking(model, **more), payer)
    await call.head()
    got = b""
    while len(got) < len(body):
        got += await call.piece() or b""
    call.close()
    row = await gate.row(payer)
    assert row["charge_e10"] == (row["input_tokens"] + row["output_tokens"]) * TOKEN_E10
    return row


async def test_a_whole_document_is_charged_although_its_client_left_before_the_end(
    gate: Gate,
) -> None:
    row = await _left_before_the_end(gate, saying("word " * 3000, USAGE))
    assert (row["outcome"], row["usage_source"]) == ("completed", "provider")
    assert (row["input_tokens"], row["output_tokens"]) == (6, 3000)


async def test_half_a_document_costs_the_text_in_it(gate: Gate) -> None:
    body = saying("word " * 300, USAGE)
    echo = b'{"instructions":"' + b"do " * 5000 + b'",'
    row = await _left_before_the_end(gate, echo + body[1:-400])
    assert (row["outcome"], row["usage_source"]) == ("client_gone", "estimate")
    assert 200 < row["output_tokens"] < 400


async def test_it_never_costs_more_than_was_asked_for(gate: Gate) -> None:
    row = await _left_before_the_end(gate, saying("word " * 300)[:-50], max_tokens=20)
    assert row["output_tokens"] == 20


@pytest.mark.parametrize("ends", [Ending.TRUNCATED, Ending.RESET, Ending.STALL])
async def test_a_whole_document_whose_end_breaks_off(gate: Gate, ends: Ending) -> None:
    payer, model = await gate.payer(), fresh_model()
    body = saying("word " * 30, {"prompt_tokens": 6, "completion_tokens": 31})
    gate.sim.script[model] = Script((Piece(body),), headers=JSON, ends=ends, end_delay_s=0.05)
    call = await gate.open_call(CHAT, asking(model), payer)
    if ends is Ending.STALL:
        await call.head()
        gate.gateway.open_runs.sweep(gate.gateway.books.clock.boot_s() + 10**6, set())
    answer = await call.rest()
    assert (answer.body, answer.whole) == (body, False)
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("truncated", "provider")
    assert (row["input_tokens"], row["output_tokens"]) == (6, 31)


async def test_what_a_crash_would_cost_is_in_the_journal_while_the_document_comes(
    gate: Gate,
) -> None:
    payer, model = await gate.payer(), fresh_model()
    body = saying("word " * 300, USAGE)
    gate.sim.script[model] = Script((Piece(body), Piece(b"", 30.0)), headers=JSON)
    call = await gate.open_call(CHAT, asking(model), payer)
    await call.head()
    assert await call.piece() == body
    records = read_folder(gate.gateway.books.journal.folder)
    made = [r.counts[1] for r in records if r.kind == PROGRESS and r.counts is not None]
    assert 300 <= made[-1] < 500
    call.close()
    await gate.row(payer)


async def test_an_answer_that_comes_with_its_end_writes_no_progress(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script.plain(saying("word " * 30, USAGE))
    folder = gate.gateway.books.journal.folder
    before = sum(1 for r in read_folder(folder) if r.kind == PROGRESS)
    await gate.call(CHAT, asking(model), payer)
    assert sum(1 for r in read_folder(folder) if r.kind == PROGRESS) == before
    assert (await gate.row(payer))["output_tokens"] == 3000


@pytest.mark.parametrize("stream", [False, True])
async def test_a_compressed_answer_is_not_free(gate: Gate, stream: bool) -> None:
    payer, model = await gate.payer(), fresh_model()
    text = " ".join(f"word{n * 7919 % 1000}" for n in range(300))
    kind = EVENT_STREAM if stream else JSON
    headers = (*kind, ("content-encoding", "gzip"))
    body = gzip.compress(saying(text))
    gate.sim.script[model] = Script((Piece(body),), headers=headers)
    answer = await gate.call(CHAT, asking(model, stream=stream), payer)
    assert answer.body == body
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("completed", "estimate")
    assert {"encoded_answer", "no_usage"} <= set(row["flags"])
    assert 300 < row["output_tokens"] < 1500
    assert row["charge_e10"] == (row["input_tokens"] + row["output_tokens"]) * TOKEN_E10


@pytest.mark.parametrize("kind", [(), (("content-type", "text/plain; charset=utf-8"),)])
async def test_an_answer_under_another_content_type_is_read(
    gate: Gate, kind: tuple[tuple[str, str], ...]
) -> None:
    """What servers in Go say of JSON when nobody tells them what it is."""
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script.plain(saying("word " * 30, USAGE), headers=kind)
    assert (await gate.call(CHAT, asking(model), payer)).status == 200
    row = await gate.row(payer)
    assert (row["usage_source"], row["input_tokens"], row["output_tokens"]) == ("provider", 6, 3000)
