"""`/v1/chat/completions` and `/v1/messages`: placed by the model's name, paid by whoever calls, and
what a spend key may not do is said in the SDK's own errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import openai
import pytest
from gateway_kit import TOKEN_E10, Gate
from spend_kit import ANTHROPIC, CHEAP, CLAUDE, OPENAI, managed, say, spender

from lava_proxy.core.money import parse_e10

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"extension_wait_s": 20.0, "database_wait_s": 20.0, "database_timeout_s": 20.0}
"""What ends a stream here is its money, however busy the machine is."""
SIM = "sim-12-0-in7"


async def _chat(gate: Gate, key: str, *, stream: bool = False, **more: Any) -> str:
    """What the OpenAI SDK gets."""
    asked = {"model": CHEAP, "messages": say(SIM), **more}
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=key) as client:
        if not stream:
            made = await client.chat.completions.create(**asked)
            return made.choices[0].message.content or ""
        chunks = await client.chat.completions.create(**asked, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])


async def _message(gate: Gate, key: str, *, stream: bool = False, **more: Any) -> str:
    """What the Anthropic SDK gets."""
    asked = {"model": CLAUDE, "messages": say(SIM), "max_tokens": 900, **more}
    async with anthropic.AsyncAnthropic(base_url=gate.url, api_key=key) as client:
        if not stream:
            made = await client.messages.create(**asked)
            return "".join(block.text for block in made.content if block.type == "text")
        async with client.messages.stream(**asked) as stream_:
            return "".join([text async for text in stream_.text_stream])


def _code(error: Any) -> str:
    """Our code in an SDK's error: OpenAI's hands out the error object, Anthropic's the body."""
    body = error.body
    return str((body.get("error") or body)["code"])


SDKS = [(_chat, "openai", openai, OPENAI), (_message, "anthropic", anthropic, ANTHROPIC)]


@pytest.mark.parametrize(("ask", "shape", "sdk", "path"), SDKS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_spend_key_works_in_the_sdk(
    gate: Gate, ask: Any, shape: str, sdk: Any, path: str, stream: bool
) -> None:
    key = await spender(gate, request_shape=shape)
    assert len((await ask(gate, key.key, stream=stream)).split()) == 12
    row = await gate.row(key.payer)
    assert (row["customer_id"], row["meter_id"], row["charge_e10"]) == (None, None, 0)
    assert (row["outcome"], row["provider"], row["stream"]) == ("completed", shape, stream)
    assert (row["input_tokens"], row["output_tokens"]) == (7, 12)
    shown = await key.shown()
    assert parse_e10(shown["total_spend"]) == row["cost_e10"] > 0
    assert (shown["current_requests"], shown["total_requests"]) == (1, 1)
    await gate.gateway.books.key_uses.flush()
    used = (await key.shown())["last_used_at"]
    assert used == row["created_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    (asked,) = gate.sim.requests
    assert asked.path == path
    assert key.key.encode() not in str(asked.headers).encode()


@pytest.mark.parametrize(("ask", "shape", "sdk", "path"), SDKS)
async def test_what_it_may_not_is_a_typed_error(
    gate: Gate, ask: Any, shape: str, sdk: Any, path: str
) -> None:
    model = CHEAP if shape == "openai" else CLAUDE
    other = "anthropic" if shape == "openai" else "openai"
    key = await spender(gate, request_shape=shape)
    for change, raised, code in (
        ({"status": "paused"}, sdk.PermissionDeniedError, "key_paused"),
        (
            {"status": "active", "request_shape": other},
            sdk.PermissionDeniedError,
            "request_shape_mismatch",
        ),
        (
            {"request_shape": shape, "allowed_models": ["x"]},
            sdk.PermissionDeniedError,
            "model_not_allowed",
        ),
        ({"allowed_providers": [other]}, sdk.PermissionDeniedError, "provider_not_allowed"),
        (
            {
                "allowed_models": [f"{shape}/{model}"],
                "allowed_providers": [shape],
                "spend_limit": {"amount": "0.0000000001", "cycle": "total"},
            },
            sdk.APIStatusError,
            "spend_limit_exceeded",
        ),
        (
            {"spend_limit": None, "request_limit": {"count": 1, "cycle": "monthly"}},
            None,
            "",
        ),
        ({}, sdk.RateLimitError, "request_limit_exceeded"),
        ({"request_limit": None, "rate_limit": {"rpm": 1}}, None, ""),
        ({}, sdk.RateLimitError, "rate_limit_exceeded"),
    ):
        await key.change(**change)
        if raised is None:
            assert await ask(gate, key.key)
            continue
        with pytest.raises(raised) as caught:
            await ask(gate, key.key, stream=True)
        error: Any = caught.value
        assert _code(error) == code, change
        assert error.status_code == {"spend_limit_exceeded": 402}.get(
            code, 429 if raised is sdk.RateLimitError else 403
        )
        if raised is sdk.RateLimitError:
            most = 31 * 86_400 if code == "request_limit_exceeded" else 60
            assert 1 <= int(error.response.headers["retry-after"]) <= most
    assert len(gate.sim.requests) == 2
    await key.manage("DELETE")
    with pytest.raises(sdk.AuthenticationError):
        await ask(gate, key.key)


@pytest.mark.parametrize(("ask", "shape", "sdk", "path"), SDKS)
async def test_a_stream_ends_with_the_money(
    gate: Gate, ask: Any, shape: str, sdk: Any, path: str
) -> None:
    limit = {"amount": "0.0020000000", "cycle": "monthly"}
    key = await spender(gate, request_shape=shape, spend_limit=limit)
    with pytest.raises(sdk.APIError, match="budget_exhausted"):  # in the stream's last event
        await ask(gate, key.key, stream=True, messages=say("sim-9000-0"), max_tokens=9000)
    shown = await key.shown()
    assert (await gate.row(key.payer))["outcome"] == "cut_off"
    assert 0 < parse_e10(shown["current_spend"]) <= parse_e10(limit["amount"])
    with pytest.raises(sdk.APIStatusError) as caught:
        await ask(gate, key.key, messages=say("sim-9000-0"))
    assert _code(caught.value) == "spend_limit_exceeded"


@pytest.mark.parametrize(
    ("limit", "code", "most"),
    [
        ({"request_limit": {"count": 10, "cycle": "total"}}, "request_limit_exceeded", 10),
        ({"spend_limit": {"amount": "0.000083", "cycle": "total"}}, "spend_limit_exceeded", 10),
        ({"rate_limit": {"rpm": 1, "burst": 10}}, "rate_limit_exceeded", 10),
    ],
)
async def test_many_at_once_stay_within_the_limit(
    gate: Gate, limit: dict[str, Any], code: str, most: int
) -> None:
    """12 tokens out and 7 in cost 0.00000825 USD; a call holds more than that before it starts."""
    key = await spender(gate, **limit)
    headers = {"authorization": f"Bearer {key.key}"}
    asked = {"model": CHEAP, "messages": say(SIM), "max_tokens": 12}

    async def one() -> str:
        answer = await gate.call(OPENAI, asked, None, headers)
        return "" if answer.status == 200 else str(answer.error()["code"])

    found = await asyncio.gather(*(one() for _ in range(25)))
    assert set(found) == {"", code}
    served = found.count("")
    while code == "spend_limit_exceeded" and await one() == "":
        served += 1
        await gate.booked()
    shown = await key.shown()
    assert shown["total_requests"] == served <= most
    assert parse_e10(shown["total_spend"]) == served * parse_e10("0.00000825")
    if code != "spend_limit_exceeded":
        assert served == most


async def test_an_expired_key(gate: Gate) -> None:
    key = await spender(gate, expires_at="2100-01-01T00:00:00Z")
    assert await _chat(gate, key.key)
    async with gate.database.transaction() as conn:
        await conn.execute(
            "UPDATE spend_keys SET expires_at = now() WHERE spend_key_id = $1", key.spend_key_id
        )
    headers, asked = {"authorization": f"Bearer {key.key}"}, {"model": CHEAP, "messages": say(SIM)}
    async with asyncio.timeout(5):  # the change feed tells the workers
        while (await gate.call(OPENAI, asked, None, headers)).status == 200:
            await asyncio.sleep(0.01)
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await _chat(gate, key.key)
    assert _code(caught.value) == "key_expired"


async def test_a_rotated_key(gate: Gate) -> None:
    key = await spender(gate)
    assert await _chat(gate, key.key)
    rotated = await key.manage("POST", {}, "/rotate")
    with pytest.raises(openai.AuthenticationError):
        await _chat(gate, key.key)
    assert await _chat(gate, rotated["key"])
    assert (await key.shown())["total_requests"] == 2


@pytest.mark.parametrize(("ask", "shape", "sdk", "path"), SDKS)
async def test_other_credentials_pay_as_they_do_elsewhere(
    gate: Gate, ask: Any, shape: str, sdk: Any, path: str
) -> None:
    payer = await gate.payer()
    assert await ask(gate, payer.token(), stream=True)
    row = await gate.row(payer)
    assert (row["customer_id"], row["charge_e10"]) == (payer.customer_id, 19 * TOKEN_E10)
    assert await ask(gate, payer.secret)
    rows = await gate.rows(payer)
    assert [row["customer_id"] for row in rows] == [payer.customer_id, None]
    own = payer.token(provider_key="sk-of-the-caller")
    assert await ask(gate, own)
    assert "sk-of-the-caller" in str(gate.sim.requests[-1].headers)
    poor = await gate.payer("0.0000000001")
    with pytest.raises(sdk.APIStatusError) as caught:
        await ask(gate, poor.token())
    assert _code(caught.value) == "insufficient_credit"
    made = {"customer_id": payer.customer_id, "meter_slug": "m"}
    token = (await managed(gate, payer, "POST", "/v1/forward_tokens", made))["token"]
    assert await ask(gate, token)
    assert (await gate.rows(payer))[-1]["customer_id"] == payer.customer_id


async def test_a_provider_may_be_named(gate: Gate) -> None:
    """The provider gets its own name for the model, and nothing else is changed."""
    payer = await gate.payer()
    name = "groq/openai/sim-3-0"
    body = b'{ "messages": %b,  "model" : "%b", "n":1}' % (
        json.dumps(say("x")).encode(),
        name.encode(),
    )
    headers = {"authorization": f"Bearer {payer.secret}"}
    answer = await gate.call(OPENAI + "?trace=1", body, None, headers)
    assert answer.status == 200, answer.body
    (asked,) = gate.sim.requests
    assert (asked.target, asked.body) == (
        "/openai/v1/chat/completions?trace=1",
        body.replace(name.encode(), b"openai/sim-3-0"),
    )
    row = await gate.row(payer)
    assert (row["provider"], row["model"]) == ("groq", "openai/sim-3-0")
    assert row["endpoint"] == "POST https://api.groq.com/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("ask", "shape", "sdk", "model"),
    [
        (_chat, "openai", openai, CLAUDE),
        (_message, "anthropic", anthropic, CHEAP),
        (_message, "anthropic", anthropic, "gemini-2.5-flash"),
    ],
)
async def test_models_of_the_other_dialect_are_translated(
    gate: Gate, ask: Any, shape: str, sdk: Any, model: str
) -> None:
    limit = {"amount": "0.0010000000", "cycle": "total"}
    key = await spender(gate, request_shape=shape, allowed_models=[model], spend_limit=limit)
    for stream in (False, True):
        assert (
            len((await ask(gate, key.key, model=model, stream=stream, max_tokens=40)).split()) == 12
        )
    rows = await gate.rows(key.payer)
    assert {(row["model"], row["outcome"]) for row in rows} == {(model, "completed")}
    assert parse_e10((await key.shown())["total_spend"]) == sum(row["cost_e10"] for row in rows) > 0
    assert all("?" not in request.target for request in gate.sim.requests)
    long = {"messages": say("sim-90000-0"), "max_tokens": 90_000}
    with pytest.raises(sdk.APIError, match="budget_exhausted"):
        await ask(gate, key.key, model=model, stream=True, **long)
    await key.change(allowed_models=["x"])
    with pytest.raises(sdk.PermissionDeniedError) as caught:
        await ask(gate, key.key, model=model)
    assert _code(caught.value) == "model_not_allowed"
    shown = await key.shown()
    assert parse_e10(shown["total_spend"]) <= parse_e10(limit["amount"])


async def test_tokens_are_counted_for_nothing(gate: Gate) -> None:
    key = await spender(gate, request_shape="anthropic", allowed_models=[CLAUDE])
    async with anthropic.AsyncAnthropic(base_url=gate.url, api_key=key.key) as client:
        counted = await client.messages.count_tokens(model=CLAUDE, messages=say("hello"))  # type: ignore[arg-type]
        assert counted.input_tokens > 0
        with pytest.raises(anthropic.PermissionDeniedError):
            await client.messages.count_tokens(model="claude-opus-4-5", messages=say("hello"))  # type: ignore[arg-type]
    assert [request.target for request in gate.sim.requests] == [ANTHROPIC + "/count_tokens"]
    assert (await key.shown())["total_spend"] == "0.0000000000"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (ANTHROPIC + "/count_tokens", {"model": CHEAP}, 400, "forward_model_not_supported"),
        (
            ANTHROPIC + "/count_tokens",
            {"model": "deepseek-chat", "messages": []},
            400,
            "forward_endpoint_not_supported",
        ),
        (OPENAI, {"model": "nobody-knows", "messages": []}, 400, "forward_model_not_supported"),
        (ANTHROPIC, {"model": "nobody-knows", "messages": []}, 400, "forward_model_not_supported"),
        (OPENAI, {"model": CLAUDE, "messages": 7}, 422, "validation_error"),
        (OPENAI, {"messages": []}, 400, "invalid_request"),
        (OPENAI, {"model": 7}, 400, "invalid_request"),
        (OPENAI, b'{"model":"gpt-4o","model":"gpt-4"}', 400, "invalid_request"),
        (OPENAI, b"no json", 400, "invalid_request"),
        (OPENAI, b"", 400, "invalid_request"),
        ("/v1/chat/completion%73", {"model": CHEAP, "messages": []}, 404, "not_found"),
    ],
)
async def test_what_cannot_be_placed(
    gate: Gate, path: str, body: object, status: int, code: str
) -> None:
    key = await spender(gate, request_shape="anthropic" if path.startswith(ANTHROPIC) else "openai")
    answer = await gate.call(path, body, None, {"authorization": f"Bearer {key.key}"})
    assert (answer.status, answer.error()["code"]) == (status, code), answer.body
    assert gate.sim.requests == []


async def test_who_nobody_knows_and_other_methods(gate: Gate) -> None:
    for path in (OPENAI, ANTHROPIC):
        for headers in ({}, {"authorization": "Bearer lava_sk_" + "a" * 43}):
            answer = await gate.call(path, {"model": CHEAP}, None, headers)
            assert (answer.status, answer.error()["code"]) == (401, "invalid_token")
        answer = await gate.call(path, None, None, method="GET")
        assert (answer.status, answer.header("allow")) == (405, "POST")
        assert (answer.header("x-lava-request-id") or "").startswith("req_")
    assert gate.sim.requests == []
