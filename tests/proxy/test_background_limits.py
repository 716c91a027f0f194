"""A response in the background goes on holding its ceiling on every budget, not on credit alone: a
token's money limit and the merchant's wallet wait for it too."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_kit import Gate, Payer, fresh_model
from test_background_holds import RESPONSES, USAGE, _stored
from test_forward_tokens import token_of
from test_wallet import api, paid_in

from lava_proxy.core.money import E10
from lava_proxy.net.simulated import Script
from lava_proxy.rules.limits import wallet_account

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"wallet_enforced": True, "refusal_cache_s": 0.0}
COST_E10 = 300 * 10_000 + 20 * 100_000
"""Of `USAGE`, at 1 USD per million tokens in and 10 out."""


class Caller:
    """A customer with plenty of credit, its token, and a wallet."""

    def __init__(self, gate: Gate, payer: Payer, token: str, model: str) -> None:
        self.gate, self.payer, self.model = gate, payer, model
        self._headers = {"authorization": f"Bearer {token}"}
        self._made = 0

    async def queue(self, cap: int = 60_000) -> tuple[int, str, str]:
        """Start one: status, error code, and the response's path."""
        self._made += 1
        response_id = f"resp_{self.model}_{self._made}"
        queued = _stored(self.model, "queued") | {"id": response_id}
        self.gate.sim.script[self.model] = Script.json(queued)
        asked = {"model": self.model, "input": "hello", "background": True}
        asked["max_output_tokens"] = cap
        answer = await self.gate.call(RESPONSES, asked, self.payer, headers=self._headers)
        await self.gate.booked()
        code = answer.json()["error"]["code"] if answer.status != 200 else ""
        return answer.status, code, f"{RESPONSES}/{response_id}"

    async def read(self, path: str, status: str, **more: object) -> None:
        response_id = path.rpartition("/")[2]
        made = _stored(self.model, status, **more) | {"id": response_id}
        self.gate.sim.script[f"/v1/responses/{response_id}"] = Script.json(made)
        answer = await self.gate.call(path, None, self.payer, method="GET", headers=self._headers)
        assert answer.status == 200, answer.body
        await self.gate.booked()

    async def kept(self, like: str) -> int:
        async with self.gate.database.connection() as conn:
            found: int = await conn.fetchval(
                "SELECT coalesce(sum(p.left_e10), 0)::bigint FROM leases JOIN lease_parts p "
                "USING (lease_id) WHERE owner_id LIKE $1 AND holder_id LIKE 'kept:%' "
                "AND closed_at IS NULL",
                like,
            )
        return found


async def _caller(gate: Gate, *, limit_e10: int | None, wallet: str) -> Caller:
    payer, model = await gate.payer("100.00"), fresh_model()
    rates = {"input_1m": "1", "output_1m": "10"}
    await api(gate, payer, "POST", "prices", {"provider": "openai", "model": model, "rates": rates})
    await paid_in(gate, payer, wallet)
    token = await token_of(gate, payer, limit_e10=limit_e10)
    return Caller(gate, payer, token, model)


@pytest.mark.parametrize("budget", ["token", "wallet"])
async def test_a_limit_for_one_makes_one(gate: Gate, budget: str) -> None:
    limited = {"limit_e10": E10, "wallet": "50.00"}  # 1.00 pays for 100,000 tokens
    caller = await _caller(
        gate, **(limited if budget == "token" else {"limit_e10": None, "wallet": "1.00"})
    )
    code = {"token": "spend_limit_exceeded", "wallet": "insufficient_balance"}[budget]
    account = "ftk_%" if budget == "token" else wallet_account(caller.payer.merchant_id)
    async with gate.database.connection() as conn:
        if budget == "token":
            account = f"{await conn.fetchval('SELECT max(forward_token_id) FROM forward_tokens')}%"
    status, _, first = await caller.queue()
    assert status == 200
    assert 6 * E10 // 10 <= await caller.kept(account) < 7 * E10 // 10
    assert (await caller.queue())[0] == 200  # its output cap is lowered to what is left
    for _ in range(3):
        assert (await caller.queue())[:2] == (402, code)
    await caller.read(first, "in_progress")
    assert (await caller.queue())[0] == 402
    for _ in range(2):
        await caller.read(first, "completed", usage=USAGE)
    assert await caller.kept(account) < 41 * E10 // 100
    assert (await caller.queue(50_000))[0] == 200
    rows = await gate.rows(caller.payer)
    assert sum(row["cost_e10"] for row in rows) == COST_E10


async def test_who_reads_it_need_not_be_who_made_it(gate: Gate) -> None:
    """Another token of the customer's finds it over: what the first one's limit kept is free."""
    caller = await _caller(gate, limit_e10=E10, wallet="50.00")
    _, _, path = await caller.queue()
    wallet = wallet_account(caller.payer.merchant_id)
    assert await caller.kept(wallet)
    other = Caller(gate, caller.payer, await token_of(gate, caller.payer), caller.model)
    await other.read(path, "completed", usage=USAGE)
    async with gate.database.connection() as conn:
        kept: list[Any] = await conn.fetch(
            "SELECT l.owner_id FROM leases l JOIN accounts a USING (owner_id) WHERE "
            "a.merchant_id = $1 AND holder_id LIKE 'kept:%' AND closed_at IS NULL",
            caller.payer.merchant_id,
        )
    assert kept == []
