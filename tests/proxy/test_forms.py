"""Every way to ask: URL forms, places for the credential, own keys, metadata, the usage chunk."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from gateway_kit import CHAT, MANAGED, Gate, Payer, forward_url
from plain_client import chunks_of

from lava_proxy.net.simulated import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

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
    "/v1/forward/openai/chat/completions",
    "/forward/openai/chat/completions",
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
    ("path", "sent"),
    [
        ("groq/chat/completions", "/openai/v1/chat/completions"),
        ("groq/openai/v1/chat/completions", "/openai/v1/chat/completions"),
        ("google/chat/completions", "/v1beta/openai/chat/completions"),
        ("google/models/m:generateContent", "/v1beta/models/m:generateContent"),
        ("google/v1/models/m:generateContent", "/v1/models/m:generateContent"),
        ("anthropic/messages", "/v1/messages"),
        ("deepseek/chat/completions", "/chat/completions"),
        ("cohere/v2/chat", "/v2/chat"),
    ],
)
async def test_the_old_form_leaves_out_the_api_base(gate: Gate, path: str, sent: str) -> None:
    payer, body = await gate.payer(), ASKED | GEMINI | {"max_tokens": 5}
    gate.sim.script[sent] = Script.json({"id": "x"})
    answer = await gate.call(f"/v1/forward/{path}?a=b", body, payer)
    assert answer.status == 200, answer.body
    assert gate.sim.requests[-1].target == f"{sent}?a=b"
    assert (await gate.row(payer))["provider"] == path.partition("/")[0]


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
        ("/v1/forward/openai/organization/admin_api_keys", 400),
        ("/v1/forward/openai/../chat/completions", 400),
        ("/v1/forward/bedrock/chat/completions", 400),
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
    answer = await gate.call(
        f"/{provider}{path}", asked, None, {"authorization": f"Bearer {token}"}
    )
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
