"""The example of the older client works as it was written: connection_id, meter_slug and counts are
reported to the running server, by every row of its field table, and charged to the last unit."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from serving import serving

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store import keys
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database
from lava_proxy.store.embedded import EmbeddedServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP = "lava_proxy.app:LavaProxy"
DATABASE = "older_client"
GRANTED = Decimal("10")
E10 = Decimal("0.0000000001")

_numbers = count(1)


@dataclass
class Client:
    """The older client: it knows connections, and sends what it has."""

    http: httpx.AsyncClient
    secret: str
    database: Database

    async def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"authorization": f"Bearer {self.secret}", "content-type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        reply = await self.http.request(method, f"/v1/{path}", content=content, headers=headers)
        assert reply.status_code == 200, reply.text
        return json.loads(reply.text, parse_float=Decimal)

    async def connection(self) -> str:
        made = await self.call("POST", "customers", {})
        await self.call("POST", f"customers/{made['customer_id']}/credit", {"amount": str(GRANTED)})
        return str(made["customer_id"])

    async def meter(self, tier_type: str, *tiers: tuple[int, str]) -> str:
        body = {
            "name": f"Meter {next(_numbers)}",
            "rate_type": "fixed",
            "tier_type": tier_type,
            "tiers": [{"start": str(start), "rate": rate} for start, rate in tiers],
        }
        return str((await self.call("POST", "meters", body))["meter_slug"])

    async def left(self, connection: str) -> Decimal:
        shown = await self.call("GET", f"customers/{connection}/balance")
        return Decimal(shown["total_remaining"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(
    postgres: EmbeddedServer, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Client]:
    """One server for all rows."""
    admin = await asyncpg.connect(postgres.url_of("postgres"))
    await admin.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {template}")
    url = postgres.url_of(DATABASE)
    database = Database(url)
    await database.open()
    async with database.transaction() as conn:
        made = await keys.create_key(conn, name="old", test=False, merchant_name="one")
    folder = tmp_path_factory.mktemp("older") / "data"
    async with SimulatedProvider() as sim:
        settings = {
            "database_url": url,
            "upstream_overrides": json.dumps({"api.openai.com": sim.url}),
            "provider_key_openai": "sk-openai",
        }
        async with serving(folder, APP, **settings) as server:
            base = f"http://127.0.0.1:{server.port}"
            async with httpx.AsyncClient(base_url=base, timeout=20) as http:
                yield Client(http, made.secret_key, database)
            assert await server.stop() == 0
    assert (await audit(database)).sound
    await database.close()
    await admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    await admin.close()


async def reported(client: Client, meter_slug: str, counts: Mapping[str, object]) -> Any:
    """What the example sends, twice: it is charged once, and the balance says so."""
    connection = await client.connection()
    body = {
        "request_id": f"req_old_{next(_numbers)}",
        "connection_id": connection,
        "meter_slug": meter_slug,
        "metadata": {"feature": "older"},
        **counts,
    }
    made = await client.call("POST", "requests", body)
    assert await client.call("POST", "requests", body) == made
    assert (made["customer_id"], made["status"]) == (connection, "completed")
    usage = made["model_usage"]
    assert {n: str(usage[n]) for n in counts} == {n: str(v) for n, v in counts.items()}
    spent = GRANTED - await client.left(connection)
    assert spent == Decimal(made["charge"]["amount"])
    found = await client.call("GET", f"requests?connection_id={connection}")
    assert found["data"] == [made]
    return made


def exactly(rate: str, units: object, per: int) -> str:
    """`units` at `rate` USD per `per` units, to ten places, half up."""
    amount = Decimal(rate) * Decimal(str(units)) / per
    return f"{amount.quantize(E10, rounding='ROUND_HALF_UP'):f}"


async def test_tokens(client: Client) -> None:
    meter = await client.meter("tokens_1m", (0, "2.5"))
    made = await reported(client, meter, {"input_tokens": 1234, "output_tokens": 567})
    assert made["charge"]["amount"] == exactly("2.5", 1801, 10**6) == "0.0045025000"
    assert made["model_usage"]["total_tokens"] == 1801


async def test_tokens_over_two_tiers(client: Client) -> None:
    meter = await client.meter("tokens_1m", (0, "3"), (1000, "0.7"))
    made = await reported(client, meter, {"input_tokens": 999, "output_tokens": 12})
    whole = Decimal(exactly("3", 1000, 10**6)) + Decimal(exactly("0.7", 11, 10**6))
    assert Decimal(made["charge"]["amount"]) == whole == Decimal("0.0030077")
    assert [line["tokens"] for line in made["charge"]["breakdown"]] == [1000, 11]


async def test_speech_by_characters(client: Client) -> None:
    meter = await client.meter("characters_1m", (0, "15.000001"))
    counts = {"input_characters": 4321, "output_seconds": 37.5}
    made = await reported(client, meter, counts)
    assert made["charge"]["amount"] == exactly("15.000001", 4321, 10**6) == "0.0648150043"


async def test_speech_by_seconds(client: Client) -> None:
    meter = await client.meter("minutes", (0, "0.07"))
    counts = {"input_characters": 4321, "output_seconds": 37.5}
    made = await reported(client, meter, counts)
    assert made["charge"]["amount"] == exactly("0.07", "37.5", 60) == "0.0437500000"


async def test_transcription_by_seconds(client: Client) -> None:
    meter = await client.meter("minutes", (0, "0.006"))
    counts = {"input_seconds": 90.251, "output_characters": 1500}
    made = await reported(client, meter, counts)
    assert made["charge"]["amount"] == exactly("0.006", "90.251", 60) == "0.0090251000"


async def test_transcription_by_characters(client: Client) -> None:
    meter = await client.meter("characters_1m", (0, "1.1"))
    made = await reported(client, meter, {"input_seconds": 90, "output_characters": 1501})
    assert made["charge"]["amount"] == exactly("1.1", 1501, 10**6) == "0.0016511000"


async def test_video_by_seconds(client: Client) -> None:
    meter = await client.meter("minutes", (0, "0.10"))
    made = await reported(client, meter, {"output_seconds": 7})
    assert made["charge"]["amount"] == exactly("0.10", 7, 60) == "0.0116666667"


async def test_flat(client: Client) -> None:
    meter = await client.meter("requests", (0, "0.0123"))
    made = await reported(client, meter, {})
    assert made["charge"]["amount"] == "0.0123000000"


async def test_counts_of_another_kind_cost_nothing(client: Client) -> None:
    """A client that sends all it has, on a meter that counts one of them."""
    meter = await client.meter("tokens_1m", (0, "1000000"))
    made = await reported(client, meter, {"input_tokens": 2, "input_characters": 9})
    assert made["charge"]["amount"] == "2.0000000000"


async def test_its_forward_token(client: Client) -> None:
    """A call through the gateway as the older client made it, by the older names in its token."""
    connection = await client.connection()
    meter = await client.meter("tokens_1m", (0, "10"))
    members = {"secret_key": client.secret, "connection_id": connection, "meter_slug": meter}
    token = base64.b64encode(json.dumps(members).encode()).decode()
    reply = await client.http.post(
        "/v1/forward?u=https%3A%2F%2Fapi.openai.com%2Fv1%2Fchat%2Fcompletions",
        json={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]},
        headers={"authorization": f"Bearer {token}"},
    )
    assert reply.status_code == 200, reply.text
    usage = reply.json()["usage"]
    found: dict[str, Any] = {"data": []}
    while not found["data"]:
        found = await client.call("GET", f"requests?connection_id={connection}")
    [made] = found["data"]
    units = usage["prompt_tokens"] + usage["completion_tokens"]
    assert made["model_usage"]["total_tokens"] == units
    assert made["charge"]["amount"] == exactly("10", units, 10**6)
    assert GRANTED - await client.left(connection) == Decimal(made["charge"]["amount"])
