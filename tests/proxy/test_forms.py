"""Every way to ask: URL forms, places for the credential, metadata, own keys, objects, limits."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from urllib.parse import quote

import pytest
from gateway_kit import CHAT, MANAGED, Gate, Payer, chunks_of, forward_url, fresh_model

from lava_proxy.net.simulated import Piece, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"body_limit_bytes": 64 * 1024, "body_timeout_s": 0.4}

HELLO = [{"role": "user", "content": "hello there"}]
ASKED = {"model": "sim-2-0", "messages": HELLO}
GEMINI = {"contents": [{"parts": [{"text": "hello"}]}]}
OPENAI = "https://api.openai.com/v1/chat/completions"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/models/sim-2-0:streamGenerateContent"

FORMS = [
    forward_url(OPENAI),
    "/v1/forward?u=" + OPENAI,
    "/v1/forward/?u=" + quote(OPENAI, safe=""),
    "/forward?u=" + quote(OPENAI, safe=""),
    "/v1/forward?u=" + quote("https://api.openai.com/v1", safe="") + "/chat/completions",
    "/v1/forward/" + OPENAI,
    "/v1/forward/openai/v1/chat/completions",
    "/v1/forward/openai?u=" + quote(OPENAI, safe=""),
    "/openai/v1/chat/completions",
]


@pytest.mark.parametrize("path", FORMS)
async def test_url_forms(gate: Gate, path: str) -> None:
    payer = await gate.payer()
    answer = await gate.call(path, ASKED, payer)
    assert answer.status == 200, answer.body
    assert gate.sim.requests[-1].target == "/v1/chat/completions"
    row = await gate.row(payer)
    assert row["endpoint"] == f"POST {OPENAI}"
    assert answer.header("x-lava-request-id") == row["request_id"]


@pytest.mark.parametrize(
    "path",
    [
        forward_url(GOOGLE + "?alt=sse&k=1"),
        f"/v1/forward?u={GOOGLE}?alt=sse&k=1",
        f"/v1/forward/{GOOGLE}?alt=sse&k=1",
        "/google" + GOOGLE.partition(".com")[2] + "?alt=sse&k=1",
    ],
)
async def test_the_targets_own_query_stays(gate: Gate, path: str) -> None:
    answer = await gate.call(path, GEMINI, await gate.payer())
    assert answer.status == 200
    assert gate.sim.requests[-1].query == "alt=sse&k=1"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/forward", 400),
        ("/v1/forward?u=", 400),
        ("/v1/forward?u=https://evil.example/v1/chat/completions", 400),
        ("/v1/forward?u=https://api.openai.com@evil.example/v1/chat/completions", 400),
        ("/v1/forward?u=https://127.0.0.1/v1/chat/completions", 400),
        ("/v1/forward?u=http://[::1]/v1/chat/completions", 400),
        ("/v1/forward?u=https://api.openai.com/v1/../admin", 400),
        ("/v1/forward?u=https://api.openai.com/v1/%252e%252e/admin", 400),
        ("/v1/forward?u=https:/api.openai.com/v1/chat/completions", 400),
        ("/openai/v1/organization/admin_api_keys", 400),
        ("/openai/v1/chat/completions/", 400),
        ("/openai//v1/chat/completions", 400),
        ("/v1/forward/nobody/v1/chat/completions", 400),
    ],
)
async def test_other_targets_are_refused(gate: Gate, path: str, status: int) -> None:
    payer = await gate.payer()
    answer = await gate.call(path, ASKED, payer)
    assert answer.status == status, answer.body
    code = answer.error()["code"]
    assert code in ("invalid_request", "forward_endpoint_not_supported")
    assert gate.sim.requests == []
    assert await gate.rows(payer) == []


PLACES = ["authorization", "x-api-key", "x-goog-api-key", "xi-api-key", "api-key", "key"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["forward token", "secret key"])
async def test_credential_places(gate: Gate, place: str, kind: str) -> None:
    payer = await gate.payer()
    token = payer.token() if kind == "forward token" else payer.secret
    headers, path = {}, forward_url(OPENAI)
    if place == "key":
        path += "&key=" + quote(token, safe="")
        headers = {"x-api-key": token}  # the same twice is one credential
    elif place == "authorization":
        headers = {place: f"Bearer {token}"}
    else:
        headers = {place: token}
    answer = await gate.call(path, ASKED, payer if place == "x" else None, headers)
    assert answer.status == 200, answer.body
    (row,) = await gate.rows(payer)
    assert row["customer_id"] == (payer.customer_id if kind == "forward token" else None)
    _no_secret(gate, payer, token)


def _no_secret(gate: Gate, payer: Payer, token: str) -> None:
    """Nothing of ours in what the provider got; its key is there, once."""
    request = gate.sim.requests[-1]
    raw = request.head + request.body
    for secret in (token, payer.secret, quote(token, safe=""), payer.customer_id):
        assert secret.encode() not in raw
    assert b"x-lava" not in raw.lower()
    assert raw.count(MANAGED["openai"].encode()) == 1


async def test_nothing_of_ours_goes_up(gate: Gate) -> None:
    payer = await gate.payer()
    token = payer.token()
    headers = {
        "authorization": f"Bearer {token}",
        "x-lava-metadata": '{"a":"b"}',
        "x-lava-anything": "1",
        "x-copy-of-the-token": token,
        "cookie": "c=1",
        "x-forwarded-for": "10.0.0.1",
        "x-real-ip": "10.0.0.1",
        "via": "1.1 x",
        "connection": "close, x-hop",
        "x-hop": "1",
        "te": "trailers",
        "accept-encoding": "gzip, br",
        "x-stainless-lang": "python",
        "anthropic-beta": "future-1",
    }
    answer = await gate.call(CHAT, ASKED, None, headers)
    assert answer.status == 200
    _no_secret(gate, payer, token)
    sent = gate.sim.requests[-1].headers
    assert sent["authorization"] == "Bearer " + MANAGED["openai"]
    assert sent["accept-encoding"] == "identity"
    assert (sent["x-stainless-lang"], sent["anthropic-beta"]) == ("python", "future-1")
    assert sent["host"] == f"127.0.0.1:{gate.sim.port}"
    gone = {"cookie", "x-forwarded-for", "x-real-ip", "via", "x-hop", "te", "x-copy-of-the-token"}
    assert not gone & set(sent)
    assert "user-agent" not in sent


async def test_bytes_over_127_in_a_header(gate: Gate) -> None:
    payer = await gate.payer()
    call = await gate.open_call(CHAT, ASKED, payer, {"x-name": "h\xc3\xa9"})
    assert (await call.rest()).status == 200
    assert b"x-name: h\xc3\xa9\r\n" in gate.sim.requests[-1].head.lower()
    call = await gate.open_call(CHAT, ASKED, payer, {"x-name": "h\xe9"})
    assert (await call.rest()).status == 200


@pytest.mark.parametrize(
    ("provider", "path", "place"),
    [
        ("openai", "/v1/chat/completions", "authorization"),
        ("anthropic", "/v1/messages", "x-api-key"),
        ("google", "/v1beta/models/sim-2-0:generateContent", "x-goog-api-key"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
async def test_the_key_goes_where_the_provider_expects_it(
    gate: Gate, provider: str, path: str, place: str, own: bool
) -> None:
    payer = await gate.payer()
    token = payer.token(**({"provider_key": "own-key-1234"} if own else {}))
    asked = GEMINI if provider == "google" else ASKED | {"max_tokens": 50}
    answer = await gate.call(f"/{provider}{path}", asked, None, {"authorization": f"Bearer {token}"})
    assert answer.status == 200, answer.body
    key = "own-key-1234" if own else MANAGED[provider]
    prefix = "Bearer " if place == "authorization" else ""
    request = gate.sim.requests[-1]
    assert request.headers[place] == prefix + key
    assert ("authorization" in request.headers) == (place == "authorization")
    assert "anthropic-version" in request.headers or provider != "anthropic" or own
    row = await gate.row(payer)
    assert row["provider_key_type"] == ("unmanaged" if own else "managed")


@pytest.mark.parametrize("own", [True, False])
async def test_routes_that_need_an_own_key(gate: Gate, own: bool) -> None:
    payer = await gate.payer()
    token = payer.token(**({"provider_key": "own-key-1234"} if own else {}))
    gate.sim.script["/v1/files"] = Script.json({"data": []})
    headers = {"authorization": f"Bearer {token}"}
    answer = await gate.call("/openai/v1/files", None, None, headers, method="GET")
    if own:
        assert (answer.status, answer.json()) == (200, {"data": []})
    else:
        assert answer.error()["code"] == "forward_endpoint_not_supported"
        assert gate.sim.requests == []


async def test_metadata_in_three_forms(gate: Gate) -> None:
    payer = await gate.payer()
    path = forward_url(OPENAI) + "&metadata=" + quote('{"a":"query","b":"query","c":"query"}')
    headers = {"x-lava-metadata": '{"b":"header","c":"header"}', "X-Lava-Metadata-C": "single"}
    answer = await gate.call(path, ASKED, payer, headers)
    assert answer.status == 200
    row = await gate.row(payer)
    assert row["metadata"] == {"a": "query", "b": "header", "c": "single"}
    assert gate.sim.requests[-1].query == ""


async def test_wrong_metadata_is_refused_before_anything_is_held(gate: Gate) -> None:
    payer = await gate.payer()
    assert (await gate.call(CHAT, ASKED, payer, {"x-lava-metadata": "{"})).status == 400
    answer = await gate.call(CHAT, ASKED, payer, {"x-lava-metadata": '{"a b":"c"}'})
    assert answer.status == 422
    assert await gate.rows(payer) == []


# The usage chunk.


@pytest.mark.parametrize("asks", [True, False])
async def test_usage_is_asked_for_and_the_extra_chunk_kept_back(gate: Gate, asks: bool) -> None:
    payer = await gate.payer()
    body = b'{"model":"sim-3-0", "stream" : true,"messages":[{"role":"user","content":"h\\u00e9"}]'
    body += b',"stream_options":{"include_usage":true}}' if asks else b"}"
    answer = await gate.call(CHAT, body, payer)
    sent = gate.sim.requests[-1].body
    extra = [c for c in chunks_of(answer.body) if c["choices"] == []]
    if asks:
        assert sent == body
        assert extra[0]["usage"]["completion_tokens"] == 3
    else:
        assert sent == b'{"stream_options":{"include_usage":true},' + body[1:]
        assert extra == []
        assert all(c.get("usage") is None for c in chunks_of(answer.body))
    assert answer.body.endswith(b"data: [DONE]\n\n")
    row = await gate.row(payer)
    assert (row["usage_source"], row["output_tokens"]) == ("provider", 3)


@pytest.mark.parametrize("provider", ["mistral", "groq", "xai", "deepseek"])
async def test_who_sends_usage_unasked_is_not_asked(gate: Gate, provider: str) -> None:
    path = {"groq": "/openai/v1/chat/completions"}.get(provider, "/v1/chat/completions")
    body = json.dumps(ASKED | {"stream": True}).encode()
    answer = await gate.call(f"/{provider}{path}", body, await gate.payer())
    assert answer.status == 200
    assert gate.sim.requests[-1].body == body


# Objects at the provider.


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


# Who may call, and limits.


async def test_credentials_that_are_refused(gate: Gate) -> None:
    payer = await gate.payer()
    stranger = base64.b64encode(json.dumps({"secret_key": "aks_live_" + "x" * 43}).encode()).decode()
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
