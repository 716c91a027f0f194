"""Spend keys made over the API of a running gateway, as their owner would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gateway_kit import Gate, Payer

OPENAI = "/v1/chat/completions"
ANTHROPIC = "/v1/messages"
CHEAP = "gpt-4o-mini"
CLAUDE = "claude-haiku-4-5"


@dataclass(frozen=True)
class Spender:
    """A spend key and whose it is."""

    gate: Gate
    payer: Payer
    key: str
    spend_key_id: str

    async def shown(self) -> dict[str, Any]:
        """The key as the API shows it, with everything booked."""
        await self.gate.booked()
        found = await self.manage("GET")
        assert isinstance(found, dict)
        return found

    async def change(self, **fields: object) -> dict[str, Any]:
        return await self.manage("PUT", fields)

    async def manage(self, method: str, body: object = None, more: str = "") -> dict[str, Any]:
        path = f"/v1/spend_keys/{self.spend_key_id}{more}"
        return await managed(self.gate, self.payer, method, path, body)


async def managed(
    gate: Gate, payer: Payer, method: str, path: str, body: object = None
) -> dict[str, Any]:
    """A call of the REST API with the merchant's secret key, which must succeed."""
    headers = {"authorization": f"Bearer {payer.secret}"}
    answer = await gate.call(path, body, None, headers, method=method)
    assert answer.status in (200, 201), answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def spender(gate: Gate, **fields: object) -> Spender:
    """A merchant with a spend key of these rules."""
    payer = await gate.payer()
    made = await managed(gate, payer, "POST", "/v1/spend_keys", {"name": "k", **fields})
    return Spender(gate, payer, made["key"], made["spend_key_id"])


def say(control: str) -> list[dict[str, str]]:
    """A prompt that tells the simulated provider how to answer."""
    return [{"role": "user", "content": control}]
