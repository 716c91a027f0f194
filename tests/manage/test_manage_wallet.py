"""The merchant's wallet: paid in once whatever is repeated or breaks off, in double entry, and by
the operator's word; the test mode has one of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from api_kit import Api
from books_kit import fetch
from typer.testing import CliRunner

from lava_adapters.registry import Registry
from lava_proxy.cli.main import app as cli
from lava_proxy.core.settings import Settings
from lava_proxy.manage.app import create_management
from lava_proxy.payments.manual import Manual
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk, PaymentsDown
from lava_proxy.store import keys
from lava_proxy.store.audit import audit

FUND = {"payment_method_id": "pm_1", "amount": "25.00"}


@dataclass
class Provider(Manual):
    """A payment provider that answers as it is told to."""

    answers: list[ChargeAnswer | Exception]
    asks: list[ChargeAsk] = field(default_factory=list)
    name: str = "stub"

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        self.asks.append(ask)
        told = self.answers.pop(0)
        if isinstance(told, Exception):
            raise told
        return told


def paid_by(api: Api, *answers: ChargeAnswer | Exception) -> tuple[Api, Provider]:
    provider = Provider(list(answers))
    return replace(api, app=create_management(api.books, Registry.builtin(), provider)), provider


async def in_test_mode(api: Api) -> Api:
    async with api.database.transaction() as conn:
        made = await keys.add_key(conn, api.merchant_id, name="t", test=True)
    return replace(api, secret=made.secret_key, secret_key_id=made.secret_key_id)


async def balance(api: Api) -> str:
    shown = (await api.get("wallet")).json
    assert set(shown) == {"wallet_id", "balance"}
    return str(shown["balance"])


async def ledger(api: Api) -> list[tuple[str, str, str]]:
    """(account, amount, kind) of all entries, oldest first."""
    rows = (await api.get("ledger", limit=100)).json["data"]
    return [(row["account"], row["amount"], row["kind"]) for row in reversed(rows)]


async def test_an_empty_wallet_is_there(api: Api, other: Api) -> None:
    mine, theirs = (await api.get("wallet")).json, (await other.get("wallet")).json
    assert mine["balance"] == "0.0000000000"
    assert mine["wallet_id"].startswith("wal_")
    assert mine["wallet_id"] != theirs["wallet_id"]


async def test_by_hand_the_money_waits_for_a_word(api: Api) -> None:
    made = await api.made("wallet/fund", FUND)
    assert made == {"status": "requires_action", "payment_id": made["payment_id"]}
    assert await balance(api) == "0.0000000000"
    payment = (await api.get(f"payments/{made['payment_id']}")).json
    assert (payment["purpose"], payment["status"], payment["customer_id"]) == (
        "wallet",
        "pending",
        None,
    )
    for _ in range(2):
        done = await api.made(f"payments/{made['payment_id']}/complete", {})
        assert done["status"] == "succeeded"
    wallet = (await api.get("wallet")).json
    assert wallet["balance"] == "25.0000000000"
    assert await ledger(api) == [
        ("payments:manual", "-25.0000000000", "funding"),
        (f"wallet:{wallet['wallet_id']}", "25.0000000000", "funding"),
    ]
    assert await api.sound()


async def test_the_test_mode_has_a_wallet_of_its_own(api: Api) -> None:
    test = await in_test_mode(api)
    made = await test.made("wallet/fund", FUND)
    assert made["payment_id"].startswith("pay_test_")
    assert (made["status"], made["balance"]) == ("completed", "25.0000000000")
    assert await balance(test) == "25.0000000000"
    assert await balance(api) == "0.0000000000"
    assert (await test.get("wallet")).json["wallet_id"].startswith("wal_test_")
    assert await api.sound()


async def test_a_repeat_is_paid_once(api: Api, other: Api) -> None:
    test, theirs = await in_test_mode(api), await in_test_mode(other)
    replies = await asyncio.gather(*(test.post("wallet/fund", FUND, key="k") for _ in range(8)))
    assert {r.status for r in replies} == {200}
    assert len({r.json["payment_id"] for r in replies}) == 1
    assert await balance(test) == "25.0000000000"
    changed = await test.post("wallet/fund", FUND | {"amount": "26"}, key="k")
    assert (changed.status, changed.code) == (409, "idempotency_conflict")
    await test.made("wallet/fund", FUND, key="k2")
    assert await balance(test) == "50.0000000000"
    mine = replies[0].json["payment_id"]
    assert (await theirs.made("wallet/fund", FUND, key="k"))["payment_id"] != mine
    assert len(await ledger(test)) == 4
    assert await api.sound()


async def test_a_key_that_is_free_again_is_another_payment(api: Api) -> None:
    test = await in_test_mode(api)
    first = await test.made("wallet/fund", FUND, key="k")
    await fetch(
        api.database, "UPDATE idempotency_keys SET created_at = created_at - interval '31 days'"
    )
    assert await test.made("wallet/fund", FUND, key="k") != first
    assert await balance(test) == "50.0000000000"


async def test_silence_of_the_provider_is_asked_again_for_the_same_payment(api: Api) -> None:
    api, provider = paid_by(api, PaymentsDown("away"), ChargeAnswer("succeeded", "pi_1"))
    away = await api.post("wallet/fund", FUND, key="k")
    assert (away.status, away.code) == (503, "unavailable")
    assert "retry-after" in away.headers
    made = await api.made("wallet/fund", FUND, key="k")
    assert (made["status"], made["balance"]) == ("completed", "25.0000000000")
    first, second = provider.asks
    assert (first.payment_id, first.attempt) == (second.payment_id, second.attempt)
    assert (second.amount_e10, second.payment_method_id) == (25 * 10**10, "pm_1")
    assert await api.made("wallet/fund", FUND, key="k") == made
    assert len(provider.asks) == 2
    assert await api.sound()


async def test_a_crash_before_the_answer_was_kept_pays_nothing_twice(api: Api) -> None:
    """The payment succeeded and is booked, the caller never heard of it, and sends again."""
    api, provider = paid_by(api, ChargeAnswer("succeeded", "pi_1"))
    await api.made("wallet/fund", FUND, key="k")
    await fetch(api.database, "UPDATE idempotency_keys SET status = 0, answer = ''")
    again = await api.made("wallet/fund", FUND, key="k")
    assert (again["status"], again["balance"]) == ("completed", "25.0000000000")
    assert len(provider.asks) == 1


async def test_a_decline_and_a_bank_page(api: Api) -> None:
    asked = ChargeAnswer("requires_action", "pi_2", redirect_url="https://bank.example/3ds")
    declined = ChargeAnswer("declined", "pi_1", code="card_expired", message="The card is old.")
    api, _ = paid_by(api, declined, asked)
    no = await api.post("wallet/fund", FUND, key="k")
    assert (no.status, no.code) == (402, "payment_declined")
    error = no.json["error"]
    facts = error["details"]
    assert (error["message"], facts["reason"]) == ("The card is old.", "card_expired")
    made = await api.made("wallet/fund", FUND, key="k")  # the key is free after a refusal
    assert (made["status"], made["redirect_url"]) == ("requires_action", "https://bank.example/3ds")
    rows = await fetch(api.database, "SELECT status FROM payments ORDER BY created_at")
    assert rows == [("failed",), ("requires_action",)]
    assert await balance(api) == "0.0000000000"


@pytest.mark.parametrize("amount", ["9.9999999999", "10000.01", "-25", "0", 25, "1e2", None])
async def test_amounts_that_are_refused(api: Api, amount: object) -> None:
    reply = await api.post("wallet/fund", FUND | {"amount": amount})
    assert (reply.status, reply.paths) == (422, ["amount"])
    assert await fetch(api.database, "SELECT 1 FROM payments") == []


async def test_managed_calls_come_out_of_it(api: Api) -> None:
    await fetch(
        api.database,
        "INSERT INTO wallet_costs VALUES ($1, 3, 7), ($1, 4, 8)",
        api.merchant_id,
    )
    assert await balance(api) == "-0.0000000015"
    assert await balance(await in_test_mode(api)) == "0.0000000000"


async def test_where_it_is_enforced_only_the_operator_says_that_money_came(api: Api) -> None:
    made = await api.made("wallet/fund", FUND)
    api.books.settings = api.books.settings.model_copy(update={"wallet_enforced": True})
    reply = await api.post(f"payments/{made['payment_id']}/complete", {})
    assert (reply.status, reply.code) == (409, "conflict")
    assert await balance(api) == "0.0000000000"


@pytest.fixture
def command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``lava-proxy wallet ...``: (exit status, output)."""
    monkeypatch.setenv("LAVA_DATABASE_URL", database_url)
    monkeypatch.setenv("LAVA_DATA_DIR", str(tmp_path))
    assert Settings().database_url is not None

    async def call(*words: str) -> tuple[int, str]:
        done = await asyncio.to_thread(CliRunner().invoke, cli, ["wallet", *words])
        return done.exit_code, done.output.strip()

    return call


async def test_the_commands_of_the_operator(api: Api, other: Api, command: Any) -> None:
    wallet = (await api.get("wallet")).json["wallet_id"]
    made = await api.made("wallet/fund", FUND)
    status, text = await command("show")
    assert status == 0
    head, waiting = text.splitlines()
    assert head == f"{wallet}: 0.0000000000 USD = paid in 0.0000000000 - cost 0.0000000000"
    assert waiting.startswith(f"{made['payment_id']} 25.0000000000 since 20")
    for _ in range(2):
        status, text = await command("complete", made["payment_id"])
        assert (status, text.split()[1]) == (0, "25.0000000000")
    for _ in range(2):
        status, text = await command("fund", "100.50", "--reference", "transfer 7")
        assert (status, text.split()[1]) == (0, "125.5000000000")
    assert (await command("fund", "100.51", "--reference", "transfer 7"))[0] == 2
    assert (await command("fund", "-5"))[0] == 2
    assert (await command("fund", "5", "--merchant", "nobody"))[0] == 2
    assert (await command("complete", "pay_none"))[0] == 2
    assert (await command("fund", "1", "--merchant", other.merchant_id))[0] == 0
    assert (await balance(api), await balance(other)) == ("125.5000000000", "1.0000000000")
    found = await audit(api.database)
    assert (found.sound, found.differences) == (True, ())
