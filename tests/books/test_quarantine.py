"""What PostgreSQL refuses is charged all the same, or its charge is kept until somebody decides."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from books_kit import HOLDER, NOW, Shop, fetch, insert_meter, meter, open_shop, row, sound
from typer.testing import CliRunner

from lava_proxy.books.codec import encode_call, encode_result
from lava_proxy.books.journal import Journal
from lava_proxy.books.quarantine import hold_back, release, retry, set_apart
from lava_proxy.books.replay import take_over
from lava_proxy.cli.main import app
from lava_proxy.core.clock import ManualClock
from lava_proxy.core.errors import LavaError
from lava_proxy.rules.pricebook import PriceBook
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store.balance import balance
from lava_proxy.store.database import Database
from lava_proxy.store.quarantine import Kept, newest
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.auditor import Auditor

ERROR = ValueError("refused")
METER = meter((0, 100_000_000), meter_id="prd_late")
"""One unit per token."""


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await open_shop(database)


async def kept(shop: Shop, *, held_only: bool = True) -> list[Kept]:
    async with shop.database.connection() as conn:
        return await newest(conn, held_only=held_only, most=10)


@pytest.mark.parametrize(
    "odd",
    [
        {"metadata": {"half": "\udc00"}},
        {"metadata": {"nul": "\0"}},
        {"model": "nul\0"},
        {"object_ids": ("resp_1", "nul\0")},
    ],
)
async def test_the_money_of_a_poisoned_row_is_booked_and_the_row_kept(
    shop: Shop, odd: dict[str, object]
) -> None:
    owner = await shop.customer(1000)
    await shop.lease(owner, 100)
    poisoned = row(owner, 30, shop=shop, **odd)  # type: ignore[arg-type]
    booked = await set_apart(shop.database, poisoned, ERROR, 50, NOW)
    assert (booked.charge_e10, booked.leased_e10, booked.fresh) == (30, 30, True)
    assert booked.quarantined
    assert await shop.left_of(owner) == 70
    ((metadata, flags),) = await fetch(shop.database, "SELECT metadata, flags FROM requests")
    assert (metadata, flags) == (None, ["quarantined"])
    objects = await fetch(shop.database, "SELECT object_id FROM provider_objects")
    assert objects == ([("resp_1",)] if "object_ids" in odd else [])
    (one,) = await kept(shop, held_only=False)
    assert (one.state, one.charge_e10, one.held_e10) == ("booked", 30, 0)
    assert await kept(shop) == []
    assert (await sound(shop.database)).quarantined == 0


async def held(shop: Shop, owner: str, most_e10: int, **more: object) -> Settlement:
    """A row that cannot be booked in any way, as the writer leaves it."""
    odd = row(owner, 30, shop=shop, status="no such status", **more)  # type: ignore[arg-type]
    booked = await set_apart(shop.database, odd, ERROR, most_e10, NOW)
    assert (booked.fresh, booked.quarantined) == (False, True)
    return odd


async def test_credit_is_held_for_what_cannot_be_booked_and_the_audit_counts_it(
    shop: Shop,
) -> None:
    owner = await shop.customer(1000)
    await shop.lease(owner, 100)
    odd = await held(shop, owner, 60)
    assert await shop.left_of(owner) == 40
    await shop.give_back(owner)  # idle, as any customer is at last
    async with shop.database.connection() as conn:
        now = await balance(conn, owner)
    assert (now.available_e10, now.held_e10) == (940, 60)
    assert (await shop.lease(owner, 941)).amount_e10 == 0
    found = await sound(shop.database)
    assert (found.quarantined, found.quarantined_e10) == (1, 60)
    metrics = Metrics(["openai"])
    await Auditor(shop.database, metrics, 3600.0).run_once()
    assert metrics.registry.get_sample_value("lava_quarantine_rows") == 1
    assert metrics.registry.get_sample_value("lava_quarantine_usd") == 60 / 10**10
    (one,) = await kept(shop)
    assert (one.request_id, one.owner_id) == (odd.call.request_id, owner)
    await hold_back(shop.database, odd, ERROR, 60, NOW)  # its commit was not heard of
    assert len(await kept(shop)) == 1
    assert (await sound(shop.database)).leased_e10 == 60
    refused = await retry(shop.database, one.quarantine_id, NOW)
    assert refused.error
    assert (await kept(shop))[0].held_e10 == 60
    await release(shop.database, one.quarantine_id, NOW)
    assert await shop.grants(owner) == [(1000, 0, 0, 0, 0)]
    assert (await sound(shop.database)).quarantined == 0
    with pytest.raises(LavaError, match="quarantine"):
        await release(shop.database, one.quarantine_id, NOW)


@pytest.mark.parametrize(
    "more",
    [{"billable": False}, {"customer": False}, {"owner_id": "con_nobody"}],
    ids=["not billed", "nobody's", "of an account that is gone"],
)
async def test_nothing_is_held_where_nothing_can_be_charged(
    shop: Shop, more: dict[str, object]
) -> None:
    owner = await shop.customer(1000)
    wanted = {"owner_id": owner, **more}
    await held(shop, str(wanted.pop("owner_id")), 60, **wanted)
    assert [one.held_e10 for one in await kept(shop)] == [0]
    assert (await sound(shop.database)).leased_e10 == 0


async def test_less_credit_than_a_row_may_cost_is_held_as_it_is(shop: Shop) -> None:
    owner = await shop.customer(40)
    await held(shop, owner, 60)
    (one,) = await kept(shop)
    assert (one.charge_e10, one.held_e10) == (60, 40)


async def test_a_row_whose_meter_comes_back_is_booked_from_what_was_held(
    shop: Shop, tmp_path: Path
) -> None:
    """As after a restore: the journal knows more than the database."""
    owner = await shop.customer(1000)
    await shop.lease(owner, 500, holder_id="hld_dead")
    journal = Journal(tmp_path / "journals" / "hld_dead", segment_bytes=65536)
    made = row(owner, 30, shop=shop, by=METER, holder_id="hld_dead", cost_e10=100)
    journal.settle(journal.hold(encode_call(made.call)), encode_result(made))
    journal.close()
    await take_over(tmp_path / "journals", shop.database, ManualClock(start=NOW), PriceBook())
    (one,) = await kept(shop)
    assert (one.charge_e10, one.held_e10) == (100, 100)
    assert "prd_late" in str((await retry(shop.database, one.quarantine_id, NOW)).error)
    await insert_meter(shop.database, shop, METER)
    done = await retry(shop.database, one.quarantine_id, NOW)
    assert (done.charge_e10, done.error) == (30, None)
    assert await shop.grants(owner) == [(970, 0, 30, 0, 0)]
    with pytest.raises(LavaError, match="quarantine"):
        await retry(shop.database, one.quarantine_id, NOW)
    found = await sound(shop.database)
    assert (found.requests, found.quarantined, found.debt_e10) == (1, 0, 0)


async def test_a_retry_of_what_was_booked_elsewhere_charges_nothing(shop: Shop) -> None:
    owner = await shop.customer(1000)
    made = row(owner, 30, shop=shop, by=METER)
    await insert_meter(shop.database, shop, METER)
    await hold_back(shop.database, made, ERROR, 60, NOW)
    await shop.settle(replace(made, call=replace(made.call, holder_id=HOLDER)))
    (one,) = await kept(shop)
    assert (await retry(shop.database, one.quarantine_id, NOW)).error is None
    assert await shop.grants(owner) == [(970, 0, 30, 0, 0)]
    await sound(shop.database)


def test_the_operator_lists_books_and_releases(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill() -> str:
        database = Database(database_url, size=2)
        await database.open()
        shop = await open_shop(database)
        owner = await shop.customer(1000)
        await insert_meter(database, shop, METER)
        await hold_back(database, row(owner, 30, shop=shop, by=METER), ERROR, 60, NOW)
        odd = await held(shop, owner, 50)
        await database.close()
        return odd.call.request_id

    odd_id = asyncio.run(fill())
    monkeypatch.setenv("LAVA_DATABASE_URL", database_url)
    monkeypatch.setenv("LAVA_DATA_DIR", str(tmp_path))
    ask = CliRunner().invoke
    shown = ask(app, ["quarantine", "list"])
    assert shown.output.count("held 0.00000000") == 2
    assert odd_id in shown.output.splitlines()[0]
    audited = ask(app, ["audit"])
    assert audited.exit_code == 0
    assert "2 rows are not booked, 0.0000000110 USD" in audited.output
    done = ask(app, ["quarantine", "retry"])
    assert done.exit_code == 1
    assert "booked, charge 0.0000000030" in done.output
    left = ask(app, ["quarantine", "list"]).output
    assert ask(app, ["quarantine", "release", left.split()[0]]).exit_code == 0
    assert ask(app, ["quarantine", "list"]).output == ""
    assert "released" in ask(app, ["quarantine", "list", "--all", "--whole"]).output
    assert "not booked" not in ask(app, ["audit", "--full"]).output
