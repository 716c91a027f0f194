"""Housekeeping forgets what nobody asks for any more, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from books_kit import NOW, fetch, make_books, open_shop

from lava_proxy.core.clock import ManualClock
from lava_proxy.store import credit, reaping
from lava_proxy.store.database import Database
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.auditor import Auditor
from lava_proxy.workers.upkeep import Upkeep


async def test_old_changes_and_keys_go_young_ones_stay(database: Database, tmp_path: Path) -> None:
    async with database.transaction() as conn:
        await conn.execute(
            "INSERT INTO changes (kind, object_id, changed_at) VALUES "
            "('meters', 'old', now() - interval '25 hours'), ('meters', 'young', now())"
        )
        await conn.execute(
            "INSERT INTO idempotency_keys (merchant_id, key, body_hash, status, answer, created_at)"
            " SELECT 'm', k, '', 200, '', $1::timestamptz - make_interval(days => d)"
            " FROM (VALUES ('old', 31), ('young', 29)) AS t(k, d)",
            NOW,
        )
        await conn.execute(
            "INSERT INTO payment_events (provider, event_id, received_at)"
            " SELECT 'stripe', k, $1::timestamptz - make_interval(days => d)"
            " FROM (VALUES ('old', 91), ('young', 89)) AS t(k, d)",
            NOW,
        )
    books = make_books(database, ManualClock(start=NOW), tmp_path)
    await books.open()
    await Upkeep(books, Metrics(["openai"]), lambda: None).keep_house()
    await books.close()
    kept = await fetch(database, "SELECT object_id FROM changes WHERE kind = 'meters'")
    assert kept == [("young",)]
    assert await fetch(database, "SELECT key FROM idempotency_keys") == [("young",)]
    assert await fetch(database, "SELECT event_id FROM payment_events") == [("young",)]


async def test_limits_that_are_long_over_and_leases_go(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease whose account somebody is at waits for the next round, the others do not."""
    monkeypatch.setattr(reaping.Judge, "may", lambda self, database_s, boot_s: True)
    shop = await open_shop(database)
    busy, quiet = sorted([await shop.customer(100), await shop.customer(100)])
    old = "spk_1:money:2026-01-31"
    await fetch(database, "INSERT INTO accounts VALUES ($1, $2)", old, shop.merchant_id)
    for owner_id in (busy, quiet):
        await shop.lease(owner_id, 60)
    await fetch(database, "UPDATE leases SET expires_at = now() - interval '1 day'")
    books = make_books(database, ManualClock(start=NOW), tmp_path)
    await books.open()
    upkeep = Upkeep(books, Metrics(["openai"]), lambda: None)
    await upkeep.keep_house()
    async with database.transaction() as conn:
        await conn.execute("SELECT 1 FROM accounts WHERE owner_id = $1 FOR UPDATE", busy)
        await upkeep.reap()
    assert [await shop.left_of(busy), await shop.left_of(quiet)] == [60, 0]
    await upkeep.reap()
    await books.close()
    assert await shop.left_of(busy) == 0
    assert await fetch(database, "SELECT 1 FROM accounts WHERE owner_id = $1", old) == []


async def test_an_audit_runs_when_the_last_one_is_old_and_all_show_it(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    shop = await open_shop(database)
    owner = await shop.customer(1000)
    first, second = Metrics(["openai"]), Metrics(["openai"])
    await Auditor(database, first, 3600.0).run_once()
    assert shown(first, "lava_audit_differences") == 0
    assert shown(first, "lava_audit_sound_age_seconds") < 60
    await fetch(database, f"UPDATE accounts SET debt_e10 = 1 WHERE owner_id = '{owner}'")
    await Auditor(database, second, 3600.0).run_once()
    assert shown(second, "lava_audit_differences") == 0  # it is not old yet: shown as it was
    await Auditor(database, second, 0.0).run_once()
    assert shown(second, "lava_audit_differences") == 1
    assert "accounts_unbalanced" in caplog.text
    await Auditor(database, first, 3600.0).run_once()
    assert shown(first, "lava_audit_differences") == 1


CLOCK_TO_SET = """
CREATE SCHEMA other;
CREATE TABLE other.ahead (by interval NOT NULL);
INSERT INTO other.ahead VALUES ('0');
CREATE FUNCTION other.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT pg_catalog.now() + by FROM other.ahead $$;
CREATE FUNCTION other.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS $$ SELECT pg_catalog.clock_timestamp() + by FROM other.ahead $$;
"""


async def test_a_clock_that_was_set_takes_no_lease_from_the_living(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The database's clock goes an hour ahead, as after a failover to another machine."""
    shop = await open_shop(database)
    owner = await shop.customer(1000)
    await _give_a_clock_to_set(database)
    clock = ManualClock(start=NOW)

    async def pass_(seconds: float) -> None:
        clock.advance(seconds)
        await _set_clock(database, seconds)

    books = make_books(database, clock, tmp_path)
    upkeep = Upkeep(books, Metrics(["openai"]), lambda: None)
    lasting_s = 300 + 60 + 30

    await upkeep.reap()  # a first look
    await shop.lease(owner, 100, holder_id="hld_gone")
    await pass_(lasting_s + 1)
    await upkeep.reap()
    assert await shop.left_of(owner, "hld_gone") == 0, "with a steady clock it is taken back"

    for holder_id in ("hld_gone", "hld_alive"):
        await shop.lease(owner, 100, holder_id=holder_id)
    await _set_clock(database, 3600)
    await upkeep.reap()
    assert re.search(r"clock went by \+360\d s", caplog.text)
    await pass_(lasting_s - 1)
    await upkeep.reap()
    assert await shop.left_of(owner, "hld_alive") == 100
    async with database.transaction() as conn:
        await credit.renew(conn, owner, "hld_alive", 300.0)
    await pass_(2)
    await upkeep.reap()
    assert await shop.left_of(owner, "hld_alive") == 100
    assert await shop.left_of(owner, "hld_gone") == 0, "whoever has not renewed by then is gone"
    books.journal.close()


async def _give_a_clock_to_set(database: Database) -> None:
    ((name,),) = await fetch(database, "SELECT current_database()")
    async with database.connection() as conn:
        await conn.execute(CLOCK_TO_SET)
        await conn.execute(f'ALTER DATABASE "{name}" SET search_path = other, pg_catalog, public')
    await database.close()
    await database.open()


async def _set_clock(database: Database, seconds: float) -> None:
    await fetch(
        database, "UPDATE other.ahead SET by = by + make_interval(secs => $1::float8)", seconds
    )


def shown(metrics: Metrics, name: str) -> float:
    value = metrics.registry.get_sample_value(name)
    assert value is not None
    return value
