"""Vertex AI through the gateway: Gemini and Claude bodies, opened by a service account's tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import pytest
from gateway_kit import Gate, forward_url
from google_key import key_file

from lava_proxy.core.environment import load_settings
from lava_proxy.core.providers import registry_of
from lava_proxy.core.settings import ConfigurationError
from lava_proxy.net.google_account import TOKEN_PATH
from lava_proxy.net.google_tokens import AccessTokens
from lava_proxy.net.simulated import Script
from lava_proxy.proxy.managed import ManagedKeys

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = "europe-west1-aiplatform.googleapis.com"
PLACE = "/v1/projects/p/locations/europe-west1"
CLAUDE = f"{PLACE}/publishers/anthropic/models/claude-sonnet-4-5@20250929"
GEMINI = f"{PLACE}/publishers/google/models/gemini-2.5-flash"
PASSED_ON = 100 * 10**12
HELLO: Any = [{"role": "user", "content": "hello"}]
CLAUDE_BODY = {"anthropic_version": "vertex-2023-10-16", "max_tokens": 50, "messages": HELLO}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("google") / "account.json"
    path.write_bytes(key_file())
    return path


@pytest.fixture
async def opened(gate: Gate, account: Path) -> Gate:
    """The gateway as if it had been started with the account's file, and no token yet."""
    gateway = gate.gateway
    settings = load_settings({}, provider_keys={"vertex": str(account)})
    gateway.keys = ManagedKeys(settings, gateway.registry)
    gateway.keys.open(gateway.upstreams, gate.sim.url, gateway.books.clock)
    gate.sim.script[TOKEN_PATH] = Script.json({"access_token": "ya29.x", "expires_in": 3599})
    return gate


def asked(gate: Gate, path: str) -> list[Any]:
    return [request for request in gate.sim.requests if request.path == path]


async def test_gemini_is_called_with_a_token(opened: Gate) -> None:
    payer = await opened.payer(rate_e12=PASSED_ON, rate_type="percentage")
    usage = {"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110}
    opened.sim.script[f"{GEMINI}:generateContent"] = Script.json({"usageMetadata": usage})
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    for _ in range(3):
        url = forward_url(f"https://{HOST}{GEMINI}:generateContent")
        assert (await opened.call(url, body, payer)).status == 200
    calls = asked(opened, f"{GEMINI}:generateContent")
    assert {call.headers["authorization"] for call in calls} == {"Bearer ya29.x"}
    assert len(asked(opened, TOKEN_PATH)) == 1
    rows = await opened.rows(payer)
    assert {(row["input_tokens"], row["output_tokens"]) for row in rows} == {(100, 10)}
    assert all(row["cost_e10"] > 0 for row in rows)


async def test_claude_is_read_and_priced_by_the_model_in_the_path(opened: Gate) -> None:
    payer = await opened.payer(rate_e12=PASSED_ON, rate_type="percentage")
    usage = {"input_tokens": 1000, "output_tokens": 100}
    answer = {"type": "message", "model": "claude-sonnet-4-5-20250929", "content": []}
    opened.sim.script[f"{CLAUDE}:rawPredict"] = Script.json(answer | {"usage": usage})
    url = forward_url(f"https://{HOST}{CLAUDE}:rawPredict")
    assert (await opened.call(url, CLAUDE_BODY, payer)).status == 200
    row = await opened.row(payer)
    assert row["cost_e10"] == 45_000_000  # 3 and 15 USD per million
    assert (row["input_tokens"], row["output_tokens"], row["stream"]) == (1000, 100, False)


def events(*bodies: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {body['type']}\ndata: {json.dumps(body)}\n\n".encode() for body in bodies
    )


async def test_a_claude_stream_is_metered_and_counting_is_free(opened: Gate) -> None:
    payer = await opened.payer()
    start = {"model": "claude-sonnet-4-5-20250929", "usage": {"input_tokens": 7}}
    text = {"type": "text_delta", "text": "hi"}
    stream = events(
        {"type": "message_start", "message": start},
        {"type": "content_block_delta", "index": 0, "delta": text},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    )
    head = (("content-type", "text/event-stream"),)
    opened.sim.script[f"{CLAUDE}:streamRawPredict"] = Script.plain(stream, headers=head)
    url = forward_url(f"https://{HOST}{CLAUDE}:streamRawPredict")
    assert (await opened.call(url, CLAUDE_BODY, payer)).body == stream
    row = await opened.row(payer)
    assert (row["input_tokens"], row["output_tokens"], row["stream"]) == (7, 3, True)

    counting = f"{PLACE}/publishers/anthropic/models/count-tokens:rawPredict"
    opened.sim.script[counting] = Script.json({"input_tokens": 7})
    body = {"model": "claude-sonnet-4-5@20250929", "messages": HELLO}
    other = await opened.payer()
    assert (await opened.call(forward_url(f"https://{HOST}{counting}"), body, other)).status == 200
    assert (await opened.row(other))["charge_e10"] == 0


async def test_without_a_token_managed_calls_wait_and_own_keys_do_not(opened: Gate) -> None:
    opened.sim.script[TOKEN_PATH] = Script.json({"error": "invalid_grant"}, status=400)
    opened.sim.script[f"{CLAUDE}:rawPredict"] = Script.json({"usage": {"input_tokens": 1}})
    payer = await opened.payer()
    url = forward_url(f"https://{HOST}{CLAUDE}:rawPredict")
    answer = await opened.call(url, CLAUDE_BODY, payer)
    assert (answer.status, answer.error()["code"]) == (503, "unavailable")
    assert answer.header("retry-after") == "2"
    assert asked(opened, f"{CLAUDE}:rawPredict") == []
    assert await opened.rows(payer) == []
    own = {"authorization": f"Bearer {payer.token(provider_key='ya29.mine')}"}
    assert (await opened.call(url, CLAUDE_BODY, None, own)).status == 200
    sent = asked(opened, f"{CLAUDE}:rawPredict")[0]
    assert sent.headers["authorization"] == "Bearer ya29.mine"


async def test_express_mode_takes_the_callers_key(opened: Gate) -> None:
    payer = await opened.payer()
    token = payer.token(provider_key="AQ.express-key")
    path = "/vertex/v1/publishers/google/models/gemini-2.5-flash:generateContent"
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}
    opened.sim.script[path.removeprefix("/vertex")] = Script.json({"usageMetadata": usage})
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    answer = await opened.call(path, body, None, {"x-goog-api-key": token})
    assert answer.status == 200, answer.body
    sent = opened.sim.requests[-1].headers
    assert sent["x-goog-api-key"] == "AQ.express-key"
    assert "authorization" not in sent
    row = await opened.row(payer)
    assert (row["input_tokens"], row["output_tokens"], row["provider"]) == (7, 5, "vertex")
    assert row["cost_e10"] > 0


async def test_a_token_that_is_refused_stays_hidden(opened: Gate) -> None:
    payer = await opened.payer()
    opened.sim.script[f"{CLAUDE}:rawPredict"] = Script.json({"error": "ya29.x"}, status=401)
    url = forward_url(f"https://{HOST}{CLAUDE}:rawPredict")
    answer = await opened.call(url, CLAUDE_BODY, payer)
    assert (answer.status, answer.error()["code"]) == (502, "upstream_auth_failed")
    assert b"ya29" not in answer.body


async def test_anthropics_own_client_for_vertex(opened: Gate) -> None:
    payer = await opened.payer()
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": "hi"}],
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }
    # The region that the client names stands in the path; the host is the prefix route's.
    opened.sim.script[f"{CLAUDE}:rawPredict"] = Script.json(message)
    async with anthropic.AsyncAnthropicVertex(
        base_url=f"{opened.url}/vertex/v1",
        access_token=payer.token(),
        project_id="p",
        region="europe-west1",
    ) as client:
        made = await client.messages.create(
            model="claude-sonnet-4-5@20250929", max_tokens=50, messages=HELLO
        )
    assert made.content[0].text == "hi"
    row = await opened.row(payer)
    assert (row["input_tokens"], row["output_tokens"]) == (5, 2)


async def test_the_sweep_fetches_the_first_token(opened: Gate) -> None:
    opened.gateway.keys.tend()
    tokens: AccessTokens = opened.gateway.keys._tokens["vertex"]
    await opened.until(lambda: tokens._token == "ya29.x")


@pytest.mark.parametrize("text", [None, b"{}"])
async def test_a_wrong_file_stops_the_start(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "account.json"
    if text is not None:
        path.write_bytes(text)
    settings = load_settings({"LAVA_PROVIDER_KEY_VERTEX": str(path)})
    with pytest.raises(ConfigurationError, match="LAVA_PROVIDER_KEY_VERTEX"):
        ManagedKeys(settings, registry_of(settings))
