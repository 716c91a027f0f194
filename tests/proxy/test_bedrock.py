"""Bedrock through the gateway: signed by us, by the caller, or opened with an API key."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import boto3
import botocore.auth
import pytest
from botocore import UNSIGNED
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import EventStreamError
from gateway_kit import Gate, forward_url

from lava_adapters.awsframe import encode
from lava_proxy.core.environment import load_settings
from lava_proxy.core.providers import registry_of
from lava_proxy.core.settings import ConfigurationError
from lava_proxy.net.simulated import Script, SimRequest
from lava_proxy.proxy.managed import ManagedKeys

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACCESS, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SESSION = "ses/=="
MANTLE = "an-api-key"
KEYS = f"{ACCESS}:{SECRET}:{SESSION}"
SETTINGS = {"provider_keys": {"bedrock": KEYS, "bedrock-mantle": MANTLE}}
HOST = "bedrock-runtime.eu-west-1.amazonaws.com"
MODEL = "us.amazon.nova-lite-v1%3A0"
HELLO = {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}
FRAMES = (("content-type", "application/vnd.amazon.eventstream"),)


def expected(request: SimRequest, host: str, service: str, session: str | None = SESSION) -> str:
    """What botocore would have signed of what arrived."""
    names = request.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    given = {name: request.headers[name] for name in names if name not in ("host", "x-amz-date")}
    signed = AWSRequest(request.method, f"https://{host}{request.target}", given, request.body)
    at = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    signer = botocore.auth.SigV4Auth(Credentials(ACCESS, SECRET, session), service, "eu-west-1")
    with mock.patch("botocore.auth.get_current_datetime", return_value=at):
        signer.add_auth(signed)
    return str(signed.headers["Authorization"])


def frame(kind: str, body: object) -> bytes:
    headers = {":message-type": "event", ":event-type": kind, ":content-type": "application/json"}
    return encode(headers, json.dumps(body).encode())


@pytest.mark.parametrize("verb", ["converse", "converse-stream", "invoke",
                                  "invoke-with-response-stream"])  # fmt: skip
async def test_managed_calls_are_signed(gate: Gate, verb: str) -> None:
    path = f"/model/{MODEL}/{verb}"
    usage = {"inputTokens": 10, "outputTokens": 4, "totalTokens": 14}
    inner = {"usage": {"input_tokens": 10, "output_tokens": 4}}
    metrics = {"inputTokenCount": 10, "outputTokenCount": 4}
    chunk = json.dumps({"type": "x", "amazon-bedrock-invocationMetrics": metrics}).encode()
    gate.sim.script[path] = {
        "converse": Script.json({"output": {}, "usage": usage}),
        "converse-stream": Script.plain(
            frame("contentBlockDelta", {"delta": {"text": "hi"}, "contentBlockIndex": 0})
            + frame("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
            headers=FRAMES,
        ),
        "invoke": Script.json(inner),
        "invoke-with-response-stream": Script.plain(
            frame("chunk", {"bytes": base64.b64encode(chunk).decode()}), headers=FRAMES
        ),
    }[verb]
    payer = await gate.payer("20.00")
    answer = await gate.call(forward_url(f"https://{HOST}{path}"), HELLO, payer)
    assert answer.status == 200
    sent = gate.sim.requests[-1]
    assert sent.target == path
    assert sent.headers["authorization"] == expected(sent, f"127.0.0.1:{gate.sim.port}", "bedrock")
    assert "/eu-west-1/bedrock/aws4_request" in sent.headers["authorization"]
    assert sent.headers["x-amz-security-token"] == SESSION
    row = await gate.row(payer)
    assert (row["model"], row["input_tokens"], row["output_tokens"]) == (
        MODEL.replace("%3A", ":"), 10, 4
    )  # fmt: skip
    assert row["usage_source"] == "provider"


async def test_what_is_signed_is_the_body_as_it_was_changed(gate: Gate) -> None:
    payer = await gate.payer("0.0200", mode="strict")
    path = f"/model/{MODEL}/converse"
    gate.sim.script[path] = Script.json({"usage": {"inputTokens": 1, "outputTokens": 1}})
    assert (await gate.call(forward_url(f"https://{HOST}{path}"), HELLO, payer)).status == 200
    sent = gate.sim.requests[-1]
    assert json.loads(sent.body)["inferenceConfig"]["maxTokens"] > 0
    assert sent.headers["authorization"] == expected(sent, f"127.0.0.1:{gate.sim.port}", "bedrock")


async def test_an_invoked_claude_has_its_cap_lowered_too(gate: Gate) -> None:
    payer = await gate.payer("0.0200", mode="strict")
    path = "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke"
    gate.sim.script[path] = Script.json({"usage": {"input_tokens": 1, "output_tokens": 1}})
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100_000,
            "messages": [{"role": "user", "content": "hello"}]}  # fmt: skip
    assert (await gate.call(forward_url(f"https://{HOST}{path}"), body, payer)).status == 200
    sent = gate.sim.requests[-1]
    lowered = json.loads(sent.body)
    assert 0 < lowered.pop("max_tokens") < 2_000
    assert lowered == {name: body[name] for name in lowered}
    assert sent.headers["authorization"] == expected(sent, f"127.0.0.1:{gate.sim.port}", "bedrock")


async def test_a_translated_request_is_signed_as_it_is_sent(gate: Gate) -> None:
    payer = await gate.payer("20.00")
    path = f"/model/{MODEL}/converse"
    message = {"role": "assistant", "content": [{"text": "hi"}]}
    usage = {"inputTokens": 10, "outputTokens": 4, "totalTokens": 14}
    gate.sim.script[path] = Script.json(
        {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}
    )
    body = {"model": MODEL.replace("%3A", ":"), "messages": [{"role": "user", "content": "hello"}]}
    answer = await gate.call(f"/v1/rewrite/openai/https://{HOST}{path}", body, payer)
    assert answer.json()["choices"][0]["message"]["content"] == "hi"
    sent = gate.sim.requests[-1]
    assert json.loads(sent.body)["messages"] == HELLO["messages"]
    assert sent.headers["authorization"] == expected(sent, f"127.0.0.1:{gate.sim.port}", "bedrock")
    assert (await gate.row(payer))["output_tokens"] == 4


async def test_a_refused_signature_stays_between_us_and_aws(gate: Gate) -> None:
    payer = await gate.payer()
    path = f"/model/{MODEL}/converse"
    gate.sim.script[path] = Script.json({"message": f"{ACCESS} {SECRET}"}, status=403)
    answer = await gate.call(forward_url(f"https://{HOST}{path}"), HELLO, payer)
    assert answer.status == 502
    gate.sim.script[path] = Script.json({"message": f"{ACCESS} {SECRET}"}, status=400)
    answer = await gate.call(forward_url(f"https://{HOST}{path}"), HELLO, payer)
    assert answer.status == 400
    assert ACCESS.encode() not in answer.body
    assert SECRET.encode() not in answer.body


async def test_an_access_key_of_ones_own_signs_too(gate: Gate) -> None:
    payer = await gate.payer()
    path = f"/model/{MODEL}/converse"
    gate.sim.script[path] = Script.json({"usage": {"inputTokens": 1, "outputTokens": 1}})
    token = payer.token(provider_key=f"{ACCESS}:{SECRET}")
    headers = {"authorization": f"Bearer {token}"}
    url = forward_url(f"https://{HOST}{path}")
    assert (await gate.call(url, HELLO, None, headers)).status == 200
    sent = gate.sim.requests[-1]
    host = f"127.0.0.1:{gate.sim.port}"
    assert sent.headers["authorization"] == expected(sent, host, "bedrock", None)
    assert "x-amz-security-token" not in sent.headers
    assert (await gate.row(payer))["provider_key_type"] == "unmanaged"


async def test_an_api_key_is_a_bearer(gate: Gate) -> None:
    payer = await gate.payer()
    url = forward_url("https://bedrock-mantle.eu-west-1.api.aws/openai/v1/chat/completions")
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert (await gate.call(url, body, payer)).status == 200
    assert gate.sim.requests[-1].headers["authorization"] == f"Bearer {MANTLE}"


def signed_by_caller(path: str, body: bytes, *, session: str | None = None) -> dict[str, str]:
    theirs = {"content-type": "application/json", "amz-sdk-invocation-id": "1", "x-own": "a  b"}
    request = AWSRequest("POST", f"https://{HOST}{path}", theirs, body)
    signer = botocore.auth.SigV4Auth(Credentials(ACCESS, SECRET, session), "bedrock", "eu-west-1")
    signer.add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


async def test_a_callers_own_signature_goes_through_with_all_that_it_covers(gate: Gate) -> None:
    # Not affordable by far: a managed call would have its cap lowered in the body.
    payer = await gate.payer("20.00", mode="strict")
    path = f"/model/{MODEL}/converse?a=%41&b"
    gate.sim.script[f"/model/{MODEL}/converse"] = Script.json({"usage": {"inputTokens": 1}})
    body = b'{"messages" :[ {"role":"user","content":[{"text":"hello"}]} ] }'
    headers = signed_by_caller(path, body, session=SESSION)
    theirs = headers | {"x-api-key": payer.token()}
    for url in (forward_url(f"https://{HOST}{path}"), f"/v1/forward/https://{HOST}{path}"):
        assert (await gate.call(url, body, None, theirs)).status == 200
        sent = gate.sim.requests[-1]
        assert (sent.body, sent.target) == (body, path)
        covered = headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
        assert {"x-amz-date", "x-amz-security-token", "x-own"} < set(covered)
        for name in {*covered, "authorization"} - {"host"}:
            assert sent.headers[name] == headers[name], name
        assert payer.token() not in sent.head.decode()
    assert {row["provider_key_type"] for row in await gate.rows(payer)} == {"unmanaged"}


async def test_where_a_signature_does_not_belong(gate: Gate) -> None:
    payer = await gate.payer()
    path = f"/model/{MODEL}/converse"
    signature = signed_by_caller(path, b"{}")
    before = len(gate.sim.requests)
    bedrock = forward_url(f"https://{HOST}{path}")
    with_key = payer.token(provider_key="own-key")
    for url, credential, status in (
        (bedrock, {}, 401),
        (bedrock, {"x-api-key": with_key}, 400),
        ("/openai/v1/chat/completions", {"x-api-key": payer.token()}, 400),
    ):
        answer = await gate.call(url, b"{}", None, signature | credential)
        assert answer.status == status
    assert len(gate.sim.requests) == before


async def test_a_signed_request_is_neither_translated_nor_asked_elsewhere(gate: Gate) -> None:
    payer = await gate.payer("20.00")
    path = f"/model/{MODEL}/converse"
    gate.sim.script[path] = Script.json({"message": "busy"}, status=503)
    body = b'{"messages":[{"role":"user","content":[{"text":"hello"}]}]}'
    headers = signed_by_caller(path, body) | {
        "x-api-key": payer.token(),
        "x-lava-fallbacks": '[{"url": "api.openai.com/v1/chat/completions", "model": "sim-3-0"}]',
    }
    before = len(gate.sim.requests)
    answer = await gate.call(f"/v1/rewrite/bedrock/https://{HOST}{path}", body, None, headers)
    assert (answer.status, answer.json()) == (503, {"message": "busy"})
    assert [s.body for s in gate.sim.requests[before:]] == [body]
    assert gate.sim.requests[-1].headers["authorization"] == headers["authorization"]
    chat = b'{"model":"any","messages":[{"role":"user","content":"hello"}]}'
    refused = await gate.call(f"/v1/rewrite/openai/https://{HOST}{path}", chat, None, headers)
    assert (refused.status, refused.error()["code"]) == (400, "invalid_request")
    assert len(gate.sim.requests) == before + 1


async def test_a_translated_request_is_signed_as_it_goes_out(gate: Gate) -> None:
    payer = await gate.payer("20.00")
    path = f"/model/{MODEL}/converse"
    gate.sim.script[path] = Script.json(
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 3, "outputTokens": 1},
        }
    )
    body = {"model": "any", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}
    url = f"/v1/rewrite/openai/https://{HOST}/model/{MODEL.replace('%3A', ':')}/converse"
    answer = await gate.call(url, body, payer)
    assert answer.json()["choices"][0]["message"]["content"] == "hi"
    sent = gate.sim.requests[-1]
    assert json.loads(sent.body) == HELLO | {"inferenceConfig": {"maxTokens": 9}}
    assert sent.headers["authorization"] == expected(sent, f"127.0.0.1:{gate.sim.port}", "bedrock")


@pytest.mark.parametrize("key", ["AKIAIOSFODNN7EXAMPLE:", "a:b", "AKIAIOSFODNN7EXAMPLE:se cret"])
async def test_a_wrong_key_stops_the_start(key: str) -> None:
    settings = load_settings({"LAVA_PROVIDER_KEY_BEDROCK": key})
    with pytest.raises(ConfigurationError, match="LAVA_PROVIDER_KEY_BEDROCK") as raised:
        ManagedKeys(settings, registry_of(settings))
    assert key not in str(raised.value)


def boto3_at(gate: Gate, token: str) -> Any:
    """AWS's own client at another endpoint. Its users set AWS_BEARER_TOKEN_BEDROCK; without TLS it
    does not send that, so the header is put in here."""
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=f"{gate.url}/bedrock",
        config=Config(signature_version=UNSIGNED, retries={"max_attempts": 1}),
    )

    def bearer(request: Any, **_: object) -> None:
        request.headers["Authorization"] = f"Bearer {token}"

    client.meta.events.register("before-send.bedrock-runtime.*", bearer)
    return client


def stream_of(deltas: int) -> bytes:
    usage = {"inputTokens": 10, "outputTokens": deltas, "totalTokens": 10 + deltas}
    return (
        frame("messageStart", {"role": "assistant"})
        + b"".join(
            frame("contentBlockDelta", {"delta": {"text": "word "}, "contentBlockIndex": 0})
            for _ in range(deltas)
        )
        + frame("messageStop", {"stopReason": "end_turn"})
        + frame("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})
    )


async def test_awss_own_client(gate: Gate) -> None:
    path = f"/model/{MODEL}/converse"
    message = {"role": "assistant", "content": [{"text": "hi"}]}
    usage = {"inputTokens": 10, "outputTokens": 4, "totalTokens": 14}
    answer = {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}
    gate.sim.script[path] = Script.json(answer)
    gate.sim.script[f"{path}-stream"] = Script.plain(stream_of(5), headers=FRAMES)
    payer = await gate.payer("20.00")
    client = boto3_at(gate, payer.token())
    model = MODEL.replace("%3A", ":")

    def calls() -> tuple[Any, list[Any]]:
        with closing(client):
            whole = client.converse(modelId=model, messages=HELLO["messages"])
            answer = client.converse_stream(modelId=model, messages=HELLO["messages"])
            with closing(answer["stream"]) as stream:
                return whole, list(stream)

    whole, events = await asyncio.to_thread(calls)
    assert whole["output"]["message"]["content"] == [{"text": "hi"}]
    assert events[-1]["metadata"]["usage"]["outputTokens"] == 5
    rows = await gate.rows(payer)
    assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [(10, 4), (10, 5)]
    assert {row["model"] for row in rows} == {model}
    assert all("AWS4-HMAC-SHA256" in r.headers["authorization"] for r in gate.sim.requests[-2:])


async def test_awss_own_client_raises_when_the_money_ends(gate: Gate) -> None:
    path = f"/model/{MODEL}/converse-stream"
    gate.sim.script[path] = Script.plain(stream_of(2_000), headers=FRAMES)
    payer = await gate.payer("0.0050")
    client = boto3_at(gate, payer.token())

    def call() -> tuple[int, Exception | None]:
        seen, model = 0, MODEL.replace("%3A", ":")
        with closing(client):
            answer = client.converse_stream(modelId=model, messages=HELLO["messages"])
            with closing(answer["stream"]) as stream:
                try:
                    for _ in stream:
                        seen += 1
                except EventStreamError as error:
                    return seen, error
        return seen, None

    seen, error = await asyncio.to_thread(call)
    assert seen > 10
    assert isinstance(error, EventStreamError)
    assert "budget_exhausted" in str(error)
    row = await gate.row(payer)
    assert row["outcome"] == "cut_off"
    assert row["charge_e10"] <= payer.credit_e10


async def test_strict_refuses_a_signed_call_that_nothing_bounds(gate: Gate) -> None:
    """The body is signed by its caller, so no cap can be set; nobody knows what the model makes."""
    payer = await gate.payer("20.00", mode="strict")
    path = "/model/qwen.qwen3-32b-v1%3A0/invoke"
    gate.sim.script[path] = Script.json({"usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    for body, status in ((b'{"messages":[]}', 422), (b'{"messages":[],"max_tokens":9}', 200)):
        theirs = signed_by_caller(path, body, session=SESSION) | {"x-api-key": payer.token()}
        answer = await gate.call(forward_url(f"https://{HOST}{path}"), body, None, theirs)
        assert answer.status == status, answer.body


async def test_an_invoked_llama_is_bounded_too(gate: Gate) -> None:
    payer = await gate.payer("0.0200")
    path = "/model/us.meta.llama3-3-70b-instruct-v1%3A0/invoke"
    answer = {"generation": "x", "prompt_token_count": 1, "generation_token_count": 1}
    gate.sim.script[path] = Script.json(answer)
    body = {"prompt": "hello", "max_gen_len": 8000}
    assert (await gate.call(forward_url(f"https://{HOST}{path}"), body, payer)).status == 200
    assert 0 < json.loads(gate.sim.requests[-1].body)["max_gen_len"] < 2_000
