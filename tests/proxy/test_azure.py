"""Azure OpenAI through the gateway: deployments, priced by the model behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from gateway_kit import Gate, forward_url
from hosting import database_copy, gate_running

from lava_proxy.net.simulated import Script
from lava_proxy.store.embedded import EmbeddedServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = """
[[provider]]
id = "azure"
hosts = ["us.openai.azure.com"]
base = "https://us.openai.azure.com"
models = { ours = "gpt-4o" }

[[provider]]
id = "azure-eu"
like = "azure"
hosts = ["eu.openai.azure.com"]
base = "https://eu.openai.azure.com"
models = { ours = "gpt-4o-mini" }

[[provider]]
id = "azure-foundry"
hosts = ["us.services.ai.azure.com"]
base = "https://us.services.ai.azure.com"
"""
KEYS = {"azure": "us-key", "azure-eu": "eu-key", "azure-foundry": "foundry-key"}
VERSION = "api-version=2024-10-21"
PASSED_ON = 100 * 10**12
HELLO: Any = [{"role": "user", "content": "hello"}]
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_gate(
    postgres: EmbeddedServer, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gate]:
    folder = tmp_path_factory.mktemp("azure")
    file = folder / "providers.toml"
    file.write_text(ROWS)
    async with database_copy(postgres, template) as url:
        async with gate_running(
            url, folder / "gate", providers_file=file, provider_keys=KEYS
        ) as gate:
            yield gate


def deployment(name: str, host: str = "us.openai.azure.com", version: str = VERSION) -> str:
    return f"https://{host}/openai/deployments/{name}/chat/completions?{version}"


async def test_a_mapped_deployment_is_priced_before_and_after(gate: Gate) -> None:
    for host, key, cost_e10 in (
        ("us.openai.azure.com", "us-key", 35_000_000),
        ("eu.openai.azure.com", "eu-key", 2_100_000),
    ):
        payer = await gate.payer(rate_e12=PASSED_ON, rate_type="percentage")
        gate.sim.script["/openai/deployments/ours/chat/completions"] = Script.json(
            {"id": "c", "object": "chat.completion", "usage": USAGE}
        )
        url = forward_url(deployment("ours", host))
        assert (await gate.call(url, {"messages": HELLO}, payer)).status == 200
        sent = gate.sim.requests[-1]
        assert sent.target == f"/openai/deployments/ours/chat/completions?{VERSION}"
        assert (sent.headers["api-key"], sent.headers.get("authorization")) == (key, None)
        row = await gate.row(payer)
        assert row["cost_e10"] == row["charge_e10"] == cost_e10


async def test_an_unknown_deployment_is_priced_by_the_answer(gate: Gate) -> None:
    gate.sim.script["/openai/deployments/theirs/chat/completions"] = Script.json(
        {"id": "c", "model": "gpt-4o-2024-08-06", "usage": USAGE}
    )
    body = {"messages": HELLO, "model": "gpt-4o-mini"}
    url = forward_url(deployment("theirs"))
    payer = await gate.payer()
    assert (await gate.call(url, body, payer)).status == 200
    row = await gate.row(payer)
    assert (row["model"], row["cost_e10"]) == ("gpt-4o-2024-08-06", 35_000_000)
    passed_on = await gate.payer(rate_e12=PASSED_ON, rate_type="percentage")
    answer = await gate.call(url, body, passed_on)
    assert (answer.status, answer.error()["code"]) == (402, "model_unpriced")


async def test_a_stream_is_asked_for_usage_where_the_version_knows_it(gate: Gate) -> None:
    head = (("content-type", "text/event-stream"),)
    path = "/openai/deployments/ours/chat/completions"
    gate.sim.script[path] = Script.plain(b"data: [DONE]\n\n", headers=head)
    for version, asked in (("api-version=2024-02-01", False), (VERSION, True)):
        payer = await gate.payer()
        url = forward_url(deployment("ours", version=version))
        await gate.call(url, {"messages": HELLO, "stream": True}, payer)
        assert (b"include_usage" in gate.sim.requests[-1].body) == asked


async def test_openais_own_client_for_azure(gate: Gate) -> None:
    payer = await gate.payer()
    message = {"role": "assistant", "content": "hi"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    gate.sim.script["/openai/deployments/ours/chat/completions"] = Script.json(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o",
         "choices": [choice], "usage": USAGE}
    )  # fmt: skip
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=f"{gate.url}/azure", api_key=payer.token(), api_version="2024-10-21"
    ) as client:
        made = await client.chat.completions.create(model="ours", messages=HELLO)
    assert made.choices[0].message.content == "hi"
    row = await gate.row(payer)
    assert (row["provider"], row["input_tokens"]) == ("azure", 1000)


async def test_a_token_of_entra_is_a_bearer(gate: Gate) -> None:
    payer = await gate.payer()
    gate.sim.script["/openai/deployments/ours/chat/completions"] = Script.json({"usage": USAGE})
    own = {"authorization": f"Bearer {payer.token(provider_key='eyJhbGciOi.x.y')}"}
    url = forward_url(deployment("ours"))
    assert (await gate.call(url, {"messages": HELLO}, None, own)).status == 200
    sent = gate.sim.requests[-1]
    assert sent.headers["authorization"] == "Bearer eyJhbGciOi.x.y"
    assert "api-key" not in sent.headers


@pytest.mark.parametrize(
    ("path", "header", "model", "cost_e10"),
    [
        ("/models/chat/completions?api-version=2024-05-01-preview", "api-key", "gpt-4o",
         35_000_000),
        ("/openai/v1/chat/completions", "api-key", "gpt-4o", 35_000_000),
        ("/anthropic/v1/messages", "x-api-key", "claude-sonnet-4-5", 45_000_000),
    ],
)  # fmt: skip
async def test_ai_foundry(gate: Gate, path: str, header: str, model: str, cost_e10: int) -> None:
    payer = await gate.payer(rate_e12=PASSED_ON, rate_type="percentage")
    usage = USAGE | {"input_tokens": 1000, "output_tokens": 100}
    gate.sim.script[path.partition("?")[0]] = Script.json(
        {"type": "message", "model": model, "usage": usage}
    )
    body = {"model": model, "messages": HELLO, "max_tokens": 200}
    url = forward_url(f"https://us.services.ai.azure.com{path}")
    assert (await gate.call(url, body, payer)).status == 200
    assert gate.sim.requests[-1].headers[header] == "foundry-key"
    assert (await gate.row(payer))["cost_e10"] == cost_e10
