"""Who may call at all, and what is too large, too slow or not HTTP as we speak it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json

import pytest
from gateway_kit import CHAT, Gate

from lava_proxy.net.simulated import Piece, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"body_limit_bytes": 64 * 1024, "body_timeout_s": 0.4}

HELLO = [{"role": "user", "content": "hello there"}]
ASKED = {"model": "sim-2-0", "messages": HELLO}


async def test_credentials_that_are_refused(gate: Gate) -> None:
    payer = await gate.payer()
    stranger = base64.b64encode(
        json.dumps({"secret_key": "aks_live_" + "x" * 43}).encode()
    ).decode()
    for headers, status in [
        ({}, 401),
        ({"authorization": "Basic abc"}, 401),
        ({"authorization": "Bearer nonsense"}, 401),
        ({"authorization": f"Bearer {stranger}"}, 401),
        ({"authorization": "Bearer " + payer.secret[:-1]}, 401),
        ({"authorization": f"Bearer {payer.secret}", "x-api-key": payer.token()}, 400),
        ({"authorization": f"Bearer {payer.token(customer_id='con_x')}"}, 403),
        ({"authorization": f"Bearer {payer.token(meter_slug='none')}"}, 403),
        ({"authorization": f"Bearer {payer.token(meter_slug=...)}"}, 400),
    ]:
        answer = await gate.call(CHAT, ASKED, None, headers)
        assert answer.status == status, (headers, answer.body)
        assert (answer.header("x-lava-request-id") or "").startswith("req_")
    assert gate.sim.requests == []


async def test_a_revoked_key_stops(gate: Gate) -> None:
    payer = await gate.payer()
    assert (await gate.call(CHAT, ASKED, payer)).status == 200
    async with gate.database.connection() as conn:
        await conn.execute(
            "UPDATE secret_keys SET revoked_at = now() WHERE merchant_id = $1", payer.merchant_id
        )
    async with asyncio.timeout(5):
        while (await gate.call(CHAT, ASKED, payer)).status != 401:
            await asyncio.sleep(0.02)


async def test_what_the_guard_refuses(gate: Gate) -> None:
    payer = await gate.payer()
    bearer = ("authorization", f"Bearer {payer.token()}")
    for headers, status in [
        ([bearer, bearer], 400),
        ([bearer, ("host", "a"), ("host", "b")], 400),
        ([bearer, ("host", "u@x")], 400),
        ([bearer, ("content-encoding", "gzip")], 415),
        ([bearer, ("expect", "200-maybe")], 417),
        ([bearer, ("connection", "upgrade"), ("upgrade", "something")], 426),
        ([bearer, ("x-long", "y" * 40_000), ("x-long-2", "y" * 40_000)], 400),
    ]:
        answer = await gate.call(CHAT, ASKED, None, headers)
        assert answer.status == status, (headers[1:], answer.body[:200])
    body = gzip.compress(json.dumps(ASKED).encode())
    answer = await gate.call(CHAT, body, payer, {"content-encoding": "gzip"})
    assert (answer.status, answer.error()["code"]) == (415, "unsupported_media_type")
    assert gate.sim.requests == []
    assert await gate.rows(payer) == []


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT"])
async def test_other_methods_never_reach_a_provider(gate: Gate, method: str) -> None:
    payer = await gate.payer()
    origin = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    call = await gate.open_call(CHAT, None, payer, origin, method=method)
    status = await call.head()
    call.close()
    assert 400 <= status < 500
    assert not [name for name, _ in call.headers if name.startswith("access-control")]
    assert gate.sim.requests == []
    assert await gate.rows(payer) == []


async def test_websockets_are_refused(gate: Gate) -> None:
    headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", base64.b64encode(b"0123456789abcdef").decode()),
    ]
    answer = await gate.call("/openai/v1/realtime", None, None, headers, method="GET")
    assert (answer.status, answer.error()["code"]) == (426, "upgrade_not_supported")


async def test_bodies_that_are_too_large(gate: Gate) -> None:
    payer = await gate.payer()
    announced = await gate.open_call(CHAT, b"{", payer, length=10**9)
    assert (await announced.rest()).status == 413
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    call = await gate.open_call(CHAT, chunk, payer, {"transfer-encoding": "chunked"})
    call.write(chunk * 2)
    answer = await call.rest()
    assert (answer.status, answer.error()["code"]) == (413, "body_too_large")
    assert gate.sim.requests == []


@pytest.mark.parametrize("framing", [("content-length", "20"), ("transfer-encoding", "chunked")])
async def test_a_body_that_never_begins_is_not_waited_for(
    gate: Gate, framing: tuple[str, str]
) -> None:
    payer = await gate.payer()
    call = await gate.open_call(CHAT, b"", payer, [framing])
    async with asyncio.timeout(5):
        answer = await call.rest()
    assert (answer.status, answer.error()["code"]) == (408, "request_timeout")
    assert gate.sim.requests == []


async def test_a_body_in_chunks_goes_up_whole(gate: Gate) -> None:
    payer = await gate.payer()
    data = json.dumps(ASKED).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n"
    answer = await gate.call(CHAT, chunks, payer, {"transfer-encoding": "chunked"})
    assert answer.status == 200
    assert gate.sim.requests[-1].body == data or b"max_completion" in gate.sim.requests[-1].body


async def test_a_body_that_does_not_come(gate: Gate) -> None:
    payer = await gate.payer()
    call = await gate.open_call(CHAT, b'{"model"', payer, length=500)
    answer = await call.rest()
    assert (answer.status, answer.error()["code"]) == (408, "request_timeout")
    assert await gate.rows(payer) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"model":"a","model":"b","messages":[]}',
        b'{"model":"a","max_tokens":-1,"messages":[]}',
        b'{"model":"a","max_tokens":1e99,"messages":[]}',
        b'{"model":"a","stream":"yes","messages":[]}',
        b"[" * 5000,
        b"\xff\xfe{}",
    ],
)
async def test_bodies_that_matter_to_the_bill_must_be_plain(gate: Gate, body: bytes) -> None:
    payer = await gate.payer()
    answer = await gate.call(CHAT, body, payer)
    assert (answer.status, answer.error()["code"]) == (400, "invalid_request")
    assert gate.sim.requests == []


async def test_a_large_body_goes_up_whole(gate: Gate) -> None:
    limit = gate.gateway.settings.body_limit_bytes
    body = json.dumps(ASKED | {"user": "x" * (limit - 200), "stream": True}).encode()
    payer = await gate.payer("100.00")
    body = body[:-1] + b',"stream_options":{"include_usage":true}}'
    assert len(body) < limit
    answer = await gate.call(CHAT, body, payer)
    assert answer.status == 200
    assert gate.sim.requests[-1].body == body


async def test_two_calls_on_one_connection(gate: Gate) -> None:
    """And the provider's connection is used again too."""
    payer = await gate.payer()
    call = await gate.open_call(CHAT, ASKED, payer, {"connection": "keep-alive"})
    for _ in range(2):
        await call.head()
        length = int(dict(call.headers)["content-length"])
        json.loads(await call.reader.readexactly(length))
        data = json.dumps(ASKED).encode()
        lines = [
            f"POST {CHAT} HTTP/1.1",
            "host: gateway",
            f"authorization: Bearer {payer.token()}",
            f"content-length: {len(data)}",
            "",
            "",
        ]
        call.write("\r\n".join(lines).encode() + data)
    await call.head()
    call.close()
    await gate.booked()
    assert len({request.connection for request in gate.sim.requests}) == 1
    assert len(await gate.rows(payer)) == 3


async def test_an_old_client_gets_its_answer_by_the_connections_end(gate: Gate) -> None:
    payer = await gate.payer()
    data = json.dumps(ASKED | {"stream": True}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
    head = (
        f"POST {CHAT} HTTP/1.0\r\nhost: gateway\r\nauthorization: Bearer {payer.token()}\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    raw = await reader.read()
    writer.close()
    assert b"data: [DONE]\n\n" in raw
    assert (await gate.row(payer))["outcome"] == "completed"


async def test_binary_answers_pass_untouched(gate: Gate) -> None:
    payer = await gate.payer()
    sound = bytes(range(256)) * 300
    headers = (("content-type", "audio/mpeg"),)
    gate.sim.script["/v1/audio/speech"] = Script((Piece(sound),), 200, headers)
    asked = {"model": "tts-1", "input": "hello", "voice": "alloy"}
    answer = await gate.call("/openai/v1/audio/speech", asked, payer)
    assert (answer.status, answer.body, answer.whole) == (200, sound, True)
    assert (await gate.row(payer))["outcome"] == "completed"
