"""A provider of the operator's own is served, priced, counted and examined like a built-in one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from gateway_kit import forward_url, fresh_model
from hosting import database_copy, gate_running

from lava_proxy.cli import tools
from lava_proxy.core.environment import load_settings
from lava_proxy.core.errors import LavaError
from lava_proxy.net.simulated import Script, SimulatedProvider
from lava_proxy.store.embedded import EmbeddedServer
from lava_proxy.store.prices import PriceRow
from lava_proxy.telemetry.exposition import render

ROWS = """
[[provider]]
id = "mine"
hosts = ["llm.example.org"]
base = "https://llm.example.org"
serves = ["chat"]
"""


async def test_a_provider_of_ones_own(
    postgres: EmbeddedServer, template: str, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(ROWS)
    more = {"providers_file": file, "provider_keys": {"mine": "a-key"}}
    async with database_copy(postgres, template) as url:
        settings = load_settings({}, database_url=url, data_dir=tmp_path, **more)
        since = datetime.now(UTC) - timedelta(hours=1)
        rates = {"input_1m": "2", "output_1m": "8"}
        price = PriceRow("prc_1", None, "mine", "default", "", rates, since, since)
        await tools.add_price(settings, price)
        with pytest.raises(LavaError, match="there is no provider 'other'"):
            await tools.add_price(settings, replace(price, provider="other"))
        told = await tools.examine(settings)
        assert (True, "managed key for mine") in told
        odd = {**more, "provider_keys": {"nobody": "a-key"}}
        told = await tools.examine(load_settings({}, database_url=url, data_dir=tmp_path, **odd))
        assert (False, "managed key for nobody") in told
        assert (False, "LAVA_PROVIDER_KEY_NOBODY: there is no provider 'nobody'") in told

        async with gate_running(url, tmp_path / "gate", **more) as gate:
            payer, model = await gate.payer(), fresh_model()
            usage = {"prompt_tokens": 1000, "completion_tokens": 500}
            gate.sim.script[model] = Script.json({"id": "c", "model": model, "usage": usage})
            body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
            assert (await gate.call("/mine/v1/chat/completions", body, payer)).status == 200
            row = await gate.row(payer)
            assert (row["provider"], row["cost_e10"]) == ("mine", 60_000_000)
            assert gate.seen(model)[0].headers["authorization"] == "Bearer a-key"
            metrics = render(gate.app.metrics.registry)[0].decode()
            assert 'provider="mine"' in metrics
            assert gate.app.takes("/mine/v1/chat/completions")


async def test_a_provider_on_this_machine(
    postgres: EmbeddedServer, template: str, tmp_path: Path
) -> None:
    """Plain http, a port and a loopback address: the row names them, so they are meant."""
    async with SimulatedProvider() as local:
        place = f"127.0.0.1:{local.port}"
        file = tmp_path / "providers.toml"
        base = f'base = "http://localhost:{local.port}"'
        hosts = f'hosts = ["localhost:{local.port}"]'
        file.write_text(f'[[provider]]\nid = "vllm"\n{hosts}\n{base}\n')
        async with database_copy(postgres, template) as url:
            own = {"providers_file": file, "provider_keys": {"vllm": "none"}}
            async with gate_running(url, tmp_path / "gate", **own, upstream_overrides={}) as gate:
                payer = await gate.payer()
                body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
                target = f"http://localhost:{local.port}/v1/chat/completions"
                for path in ("/vllm/v1/chat/completions", forward_url(target)):
                    assert (await gate.call(path, body, payer)).status == 200
                assert len(local.requests) == 2
                rows = await gate.rows(payer)
                assert {row["provider"] for row in rows} == {"vllm"}
                for elsewhere in (f"http://{place}/v1/models", "http://localhost:9/v1/models"):
                    answer = await gate.call(forward_url(elsewhere), None, payer, method="GET")
                    assert answer.status == 400


async def test_doctor_says_what_is_wrong_with_the_file(database_url: str, tmp_path: Path) -> None:
    settings = load_settings(
        {}, database_url=database_url, data_dir=tmp_path, providers_file=tmp_path / "none.toml"
    )
    told = await tools.examine(settings)
    assert any(not fine and "LAVA_PROVIDERS_FILE" in line for fine, line in told)
