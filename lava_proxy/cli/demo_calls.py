"""The REST calls that the demo makes as the merchant; any answer but 200 is a failed step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lava_proxy.cli.demo_client import Client, Json
from lava_proxy.core.money import parse_e10

BOOKED_WITHIN_S = 5.0
LOOK_S = 0.05
LEDGER_LIMIT = 100


class StepFailed(Exception):
    """Something that the demo was to show is not so."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What a customer has, by the books; amounts in 10^-10 USD."""

    available_e10: int
    leased_e10: int
    total_e10: int


class Merchant:
    """The merchant's side of the gateway."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create_meter(self, name: str, rate: str) -> str:
        """So much per million tokens; the new meter's slug."""
        meter = await self._ok(
            "POST",
            "/v1/meters",
            {
                "name": name,
                "rate_type": "fixed",
                "tier_type": "tokens_1m",
                "tiers": [{"start": "0", "rate": rate}],
            },
        )
        return str(meter["meter_slug"])

    async def create_customer(self, name: str) -> str:
        """The new customer's id."""
        customer = await self._ok("POST", "/v1/customers", {"name": name})
        return str(customer["customer_id"])

    async def grant(self, customer_id: str, amount: str) -> None:
        """Give credit."""
        await self._ok("POST", f"/v1/customers/{customer_id}/credit", {"amount": amount})

    async def balance(self, customer_id: str) -> Balance:
        """What the customer has now."""
        found = await self._ok("GET", f"/v1/customers/{customer_id}/balance")
        return Balance(
            parse_e10(found["available"]),
            parse_e10(found["held"]),
            parse_e10(found["total_remaining"]),
        )

    async def booked(self, request_id: str) -> Json:
        """A request as the books have it; it gets there a moment after the stream's end."""
        deadline_s = time.monotonic() + BOOKED_WITHIN_S
        while time.monotonic() < deadline_s:
            reply = await self._client.call("GET", f"/v1/requests/{request_id}")
            if reply.status == 200 and reply.document["status"] != "pending":
                return reply.document
            await asyncio.sleep(LOOK_S)
        raise StepFailed(f"request {request_id!r} was not booked within {BOOKED_WITHIN_S:.0f} s")

    async def ledger(self, customer_id: str) -> Sequence[Json]:
        """The customer's ledger entries, oldest first."""
        path = f"/v1/ledger?customer_id={customer_id}&limit={LEDGER_LIMIT}"
        rows: list[Json] = (await self._ok("GET", path))["data"]
        return rows[::-1]

    async def _ok(self, method: str, path: str, body: Json | None = None) -> Json:
        reply = await self._client.call(method, path, body)
        if reply.status != 200:
            raise StepFailed(f"{method} {path} answers {reply.status}: {dict(reply.document)}")
        return reply.document
