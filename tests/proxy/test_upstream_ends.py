"""Every way a provider can fail or end: one row, the right outcome, the hold back, nothing more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from chat_bytes import DONE, asking, delta, usage
from gateway_kit import CHAT, TOKEN_E10, Gate, fresh_model

from lava_proxy.net.simulated import EVENT_STREAM, JSON, Ending, Piece, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {
    "connect_timeout_s": 0.5,
    "first_byte_timeout_s": 0.6,
    "idle_timeout_s": 0.5,
    "stream_max_s": 60,
}


@asynccontextmanager
async def routed(gate: Gate, origin: str) -> AsyncIterator[None]:
    """OpenAI is somewhere else for a while, where the operator allows it to be."""
    origins, upstreams = gate.gateway.origins, gate.gateway.upstreams
    upstreams._named_hosts |= {"127.0.0.1"}
    before, origins["api.openai.com"] = origins["api.openai.com"], origin
    try:
        yield
    finally:
        origins["api.openai.com"] = before


@asynccontextmanager
async def tcp_server(on_request: bytes, *, wait: bool = True) -> AsyncIterator[str]:
    """Answers the first bytes of every connection with `on_request`, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if wait:
            await reader.readuntil(b"\r\n\r\n")
        writer.write(on_request)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_connection_refused(gate: Gate) -> None:
    payer = await gate.payer()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with routed(gate, f"http://127.0.0.1:{unused.getsockname()[1]}"):
            answer = await gate.call(CHAT, asking("m"), payer)
    assert (answer.status, answer.error()["code"]) == (502, "upstream_unreachable")
    assert answer.header("x-should-retry") == "false"
    row = await gate.row(payer)
    assert (row["outcome"], row["charge_e10"], row["status"]) == ("void", 0, "error")
    assert await gate.left_e10(payer) == payer.credit_e10


@pytest.mark.parametrize("status", [400, 404, 409, 422, 429, 500, 503, 529])
@pytest.mark.parametrize("stream", [True, False])
async def test_errors_pass_unchanged_and_cost_nothing(
    gate: Gate, status: int, stream: bool
) -> None:
    payer, model = await gate.payer(), fresh_model()
    body = b'{ "error" : {"message":"no", "odd":  1.50 } }\n'
    headers = (*JSON, ("retry-after", "7"), ("x-request-id", "r-1"), ("x-secret", "no"))
    gate.sim.script[model] = Script.plain(body, status=status, headers=headers)
    answer = await gate.call(CHAT, asking(model, stream=stream), payer)
    assert (answer.status, answer.body, answer.whole) == (status, body, True)
    assert (answer.header("retry-after"), answer.header("x-request-id")) == ("7", "r-1")
    assert answer.header("x-secret") is None
    row = await gate.row(payer)
    assert (row["outcome"], row["charge_e10"]) == ("upstream_error", 0)
    assert (row["input_tokens"], row["output_tokens"]) == (0, 0)
    assert len(gate.seen(model)) == 1
    assert await gate.left_e10(payer) == payer.credit_e10


async def test_an_error_whose_end_is_the_connection_passes_unchanged(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    body = b"<html>bad gateway</html>"
    html = (("content-type", "text/html"),)
    gate.sim.script[model] = Script((Piece(body),), 502, html, Ending.CLOSED)
    answer = await gate.call(CHAT, asking(model), payer)
    assert (answer.status, answer.body, answer.whole) == (502, body, True)
    assert (await gate.row(payer))["outcome"] == "upstream_error"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_managed_key_is_ours_to_mend(gate: Gate, status: int) -> None:
    payer, model = await gate.payer(), fresh_model()
    body = {"error": {"message": "Incorrect API key provided: managed-key-of-openai-0123456789"}}
    gate.sim.script[model] = Script.json(body, status=status)
    answer = await gate.call(CHAT, asking(model), payer)
    assert (answer.status, answer.error()["code"]) == (502, "upstream_auth_failed")
    assert b"managed-key" not in answer.body
    assert (await gate.row(payer))["outcome"] == "upstream_error"
    assert await gate.left_e10(payer) == payer.credit_e10


async def test_a_refused_key_of_the_callers_own_passes(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script.json({"error": {"message": "Incorrect key"}}, status=401)
    token = payer.token(provider_key="sk-own")
    answer = await gate.call(CHAT, asking(model), headers={"authorization": f"Bearer {token}"})
    assert (answer.status, answer.error()["message"]) == (401, "Incorrect key")
    row = await gate.row(payer)
    assert (row["outcome"], row["provider_key_type"]) == ("upstream_error", "unmanaged")


async def test_a_managed_key_in_an_error_body_is_hidden(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    key = "managed-key-of-openai-0123456789"
    gate.sim.script[model] = Script.json({"error": {"message": f"bad key {key}"}}, status=400)
    answer = await gate.call(CHAT, asking(model), payer)
    assert answer.status == 400
    assert key.encode() not in answer.body
    assert answer.error()["message"] == "bad key " + "*" * len(key)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "upstream_unreachable"),
        (b"HTTP/1.1 200 O", "upstream_unreachable"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "upstream_protocol_error"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nhello",
            "upstream_protocol_error",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "upstream_protocol_error",
        ),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", "upstream_protocol_error"),
    ],
    ids=[
        "drop",
        "half a status line",
        "not HTTP",
        "two lengths",
        "length and chunks",
        "64 KB header",
    ],
)
async def test_no_valid_head(gate: Gate, raw: bytes, code: str) -> None:
    payer = await gate.payer()
    async with tcp_server(raw) as origin, routed(gate, origin):
        answer = await gate.call(CHAT, asking("m"), payer)
    assert answer.status == 502
    assert answer.error()["code"] == code
    row = await gate.row(payer)
    assert (row["outcome"], row["charge_e10"]) == ("void", 0)
    assert await gate.left_e10(payer) == payer.credit_e10


async def test_a_stale_connection_is_not_tried_twice(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = [Script(ends=Ending.TRUNCATED, raw=True)]
    answer = await gate.call(CHAT, asking(model), payer)
    assert answer.error()["code"] == "upstream_unreachable"
    assert len(gate.seen(model)) == 1
    assert (await gate.row(payer))["outcome"] == "void"


async def test_no_first_byte_in_time(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script((Piece(b"late", 30.0),))
    answer = await gate.call(CHAT, asking(model), payer)
    assert (answer.status, answer.error()["code"]) == (504, "upstream_timeout")
    (request,) = gate.seen(model)
    await gate.sim.until(lambda: request.closed_early_at)
    row = await gate.row(payer)
    assert (row["outcome"], row["charge_e10"]) == ("void", 0)
    assert await gate.left_e10(payer) == payer.credit_e10


async def test_a_stall_between_pieces_ends_the_stream_unfinished(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    sent = delta(" one") + delta(" two") + delta(" three")
    gate.sim.script[model] = Script((Piece(sent),), ends=Ending.STALL)
    answer = await gate.call(CHAT, asking(model), payer)
    assert (answer.status, answer.body, answer.whole) == (200, sent, False)
    (request,) = gate.seen(model)
    await gate.sim.until(lambda: request.closed_early_at)
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("truncated", "estimate")
    assert "upstream_idle" in row["flags"]
    assert row["output_tokens"] == 3
    assert row["charge_e10"] == (row["input_tokens"] + 3) * TOKEN_E10


@pytest.mark.parametrize("ends", [Ending.TRUNCATED, Ending.RESET])
async def test_a_broken_stream_ends_unfinished_and_costs_what_came(
    gate: Gate, ends: Ending
) -> None:
    payer, model = await gate.payer(), fresh_model()
    sent = delta(" one") + delta(" two")
    gate.sim.script[model] = Script((Piece(sent),), ends=ends, end_delay_s=0.05)
    answer = await gate.call(CHAT, asking(model), payer)
    assert (answer.body, answer.whole) == (sent, False)
    row = await gate.row(payer)
    assert (row["outcome"], row["output_tokens"]) == ("truncated", 2)
    assert "upstream_truncated" in row["flags"]


async def test_half_an_event_is_never_followed_by_an_end(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    whole, torn = delta(" one"), delta(" two")[:-9]
    script = Script((Piece(whole + torn),), ends=Ending.TRUNCATED, end_delay_s=0.02)
    gate.sim.script[model] = script
    answer = await gate.call(CHAT, asking(model), payer)
    assert answer.body.startswith(whole)
    assert not answer.whole
    assert (await gate.row(payer))["outcome"] == "truncated"


async def test_a_body_shorter_than_it_was_announced(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    headers = (*JSON, ("content-length", "500"))
    said = b'{"id":"x","choices":[{"message":{"role":"assistant","content":"one two three'
    gate.sim.script[model] = Script((Piece(said),), 200, headers, Ending.TRUNCATED)
    answer = await gate.call(CHAT, asking(model, stream=False), payer)
    assert answer.status == 200
    assert not answer.whole
    row = await gate.row(payer)
    assert row["outcome"] == "truncated"
    assert row["usage_source"] == "estimate"
    assert row["output_tokens"] == 3
    assert row["charge_e10"] == (row["input_tokens"] + 3) * TOKEN_E10


@pytest.mark.parametrize("at_once", [True, False])
async def test_end_by_connection_with_the_formats_own_end(gate: Gate, at_once: bool) -> None:
    payer, model = await gate.payer(), fresh_model()
    sent = delta(" one") + usage(9, 1) + DONE
    later = 0.0 if at_once else 0.02
    gate.sim.script[model] = Script(
        (Piece(sent),), 200, EVENT_STREAM, Ending.CLOSED, end_delay_s=later
    )
    answer = await gate.call(CHAT, asking(model), payer)
    assert answer.whole
    assert answer.body == delta(" one") + DONE
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("completed", "provider")
    assert (row["input_tokens"], row["output_tokens"]) == (9, 1)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("tail", [b"", delta(" lost")[:30]])
async def test_end_by_connection_without_the_formats_own_end(
    gate: Gate, at_once: bool, tail: bytes
) -> None:
    """aiohttp takes it for a whole answer; the client must not."""
    payer, model = await gate.payer(), fresh_model()
    sent = delta(" one") + delta(" two") + tail
    later = 0.0 if at_once else 0.02
    gate.sim.script[model] = Script(
        (Piece(sent),), 200, EVENT_STREAM, Ending.CLOSED, end_delay_s=later
    )
    answer = await gate.call(CHAT, asking(model), payer)
    assert (answer.body, answer.whole) == (sent, False)
    row = await gate.row(payer)
    assert (row["outcome"], row["output_tokens"]) == ("truncated", 2)


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (b'{"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}', True),
        (b'{"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion', False),
    ],
)
async def test_plain_json_that_ends_by_connection(gate: Gate, body: bytes, whole: bool) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script((Piece(body),), 200, JSON, Ending.CLOSED)
    answer = await gate.call(CHAT, asking(model, stream=False), payer)
    assert (answer.body, answer.whole) == (body, whole)
    assert (await gate.row(payer))["outcome"] == ("completed" if whole else "truncated")
