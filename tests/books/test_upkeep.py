"""Housekeeping forgets what nobody asks for any more, and nothing else."""

from __future__ import annotations

from pathlib import Path

from books_kit import NOW, fetch, make_books

from lava_proxy.core.clock import ManualClock
from lava_proxy.store.database import Database
from lava_proxy.telemetry.metrics import Metrics
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
    books = make_books(database, ManualClock(start=NOW), tmp_path)
    await books.open()
    await Upkeep(books, Metrics(["openai"]), lambda: None).keep_house()
    await books.close()
    kept = await fetch(database, "SELECT object_id FROM changes WHERE kind = 'meters'")
    assert kept == [("young",)]
    assert await fetch(database, "SELECT key FROM idempotency_keys") == [("young",)]
