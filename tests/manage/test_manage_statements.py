"""What management calls ask of the database: few statements, as many for a page of fifty as for one
row, and in tables of 100,000 rows no more rows than the page shows."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import pytest
from api_kit import Api
from test_manage_access import KEYED, QUERIES, Drawer, Objects

from lava_adapters.registry import Registry
from lava_proxy.manage.app import ROUTES, create_management
from lava_proxy.store.requests import USUAL
from lava_proxy.store.sql import Statement

MOST = {
    "POST customers/*/credit": 5,
    "DELETE customers/*": 7,
    "POST requests": 4,
    "POST plans": 5,
    "POST subscriptions": 13,
    "DELETE subscriptions/*": 7,
    "POST payments/*/complete": 17,
    "POST spend_keys/*/rotate": 4,
    "PUT spend_keys/*": 6,
    "POST wallet/fund": 4,
}
"""Routes that move money under locks, or write several tables. All others: two to read, three to
write (lock, look, change)."""

ROWS = 100_000
FEWER = 10_000
FEW = {"meters", "plans", "plan_meters", "credit_bundles", "price_overrides", "secret_keys"}
FEW |= {"forward_tokens", "spend_keys", "request_ids", "usage_rollups"}
"""What a merchant makes by hand has fewer rows, for the test's time."""


@dataclass(frozen=True)
class Asked:
    """A statement that was executed, and with what."""

    statement: Statement
    values: list[object]


@contextmanager
def watched() -> Iterator[list[Asked]]:
    """What is executed meanwhile, in order."""
    asked: list[Asked] = []

    def noting(plain: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(self: Statement, conn: Any, /, **values: object) -> Any:
            asked.append(Asked(self, self.bind(values)))
            return await plain(self, conn, **values)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for way in ("fetch", "fetchrow", "fetchval", "execute"):
            patch.setattr(Statement, way, noting(getattr(Statement, way)))
        yield asked


async def test_every_call_is_a_few_statements(api: Api) -> None:
    api = replace(api, app=create_management(api.books, Registry.builtin(), Drawer()))
    mine = await Objects.made(api)
    order = ("GET", "POST", "PUT", "PATCH", "DELETE")
    for route in sorted(KEYED, key=lambda route: order.index(route.method)):
        name = f"{route.method} {route.path}"
        query = QUERIES.get((route.method, route.path), {})
        await api.call("GET", "customers")  # the key is in memory
        with watched() as asked:
            reply = await api.call(route.method, mine.path(route), mine.body(route), **query)
        # 409: what one before it has done.
        assert reply.status in (route.status, 409), (name, reply.body)
        most = MOST.get(name, 2 if route.method == "GET" else 3)
        assert len(asked) <= most, (name, [one.statement.name for one in asked])


LOAD = {
    "customers": "(customer_id, merchant_id, created_at) SELECT 'con_' || i, m, at",
    "accounts": "(owner_id, merchant_id) SELECT 'con_' || i, m",
    "meters": "(meter_id, merchant_id, slug, name, rate_type, tier_type, tiers, created_at) "
    "SELECT 'prd_' || i, m, 's' || i, 'n', 'fixed', 'requests', '[[0, 1]]', at",
    "plans": "(plan_id, merchant_id, name, period_amount_e10, included_credit_e10, "
    "billing_interval, rollover_type, bundle_rollover_type, created_at) "
    "SELECT 'sc_' || i, m, 'n', 0, 0, 'month', 'none', 'none', at",
    "plan_meters": "(plan_id, meter_id) SELECT 'sc_' || i, 'prd_' || i",
    "credit_bundles": "(credit_bundle_id, plan_id, merchant_id, name, cost_e10, credit_e10, "
    "created_at) SELECT 'cb_' || i, 'sc_' || i, m, 'n', 0, 1, at",
    "subscriptions": "(subscription_id, merchant_id, customer_id, plan_id, status, started_at, "
    "anchor_at, cycle_seq, cycle_start_at, cycle_end_at) SELECT 'sub_' || i, m, 'con_' || i, "
    "'sc_' || i % 10000 + 1, CASE WHEN i % 2 = 0 THEN 'active' ELSE 'cancelled' END, at, at, 1, "
    "at, at",
    "payments": "(payment_id, merchant_id, customer_id, purpose, amount_e10, status, provider, "
    "created_at) SELECT 'pay_' || i, m, 'con_' || (i / 100), 'bundle', 1, 'pending', 'manual', at",
    "price_overrides": "(override_id, merchant_id, provider, match, model, rates, created_at) "
    "SELECT 'prc_' || i, nullif(m, CASE WHEN i % 2 = 0 THEN m END), 'openai', 'exact', 'm' || i, "
    "'{}', at",
    "secret_keys": "(secret_key_id, merchant_id, name, key_hash, hint, created_at) "
    "SELECT 'sk_' || i, m, 'n', sha256(i::text::bytea), 'h', at",
    "forward_tokens": "(forward_token_id, merchant_id, token_hash, hint, meter_id, created_at) "
    "SELECT 'ft_' || i, m, sha256(i::text::bytea), 'h', 'prd_' || i, at",
    "spend_keys": "(spend_key_id, merchant_id, wallet_id, name, key_hash, key_preview, status, "
    "request_shape, created_at) SELECT 'spk_' || i, m, 'wal', 'n', sha256(i::text::bytea), 'p', "
    "'active', 'openai', at",
    "request_ids": "(merchant_id, request_id, created_at) SELECT m, 'req_' || i, at",
    "requests": "(merchant_id, request_id, created_at, customer_id, meter_id, cycle, provider, "
    "provider_key_type, endpoint, status, outcome, usage_source, stream, input_tokens, "
    "output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, input_characters, "
    "output_characters, input_ms, output_ms, units, input_cost_e10, output_cost_e10, cost_e10, "
    "charge_e10, breakdown, metadata, flags) SELECT m, 'req_' || i, at, 'con_' || (i / 100), "
    "CASE WHEN i % 10000 = 0 THEN 'prd_1' ELSE 'prd_2' END, '', 'openai', 'managed', 'e', "
    "'completed', 'completed', 'provider', false, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, '[]', "
    'CASE WHEN i % 10000 = 0 THEN \'{"k": "rare"}\' ELSE \'{"k": "v"}\' END::jsonb, \'{}\'',
    "ledger_entries": "(transaction_id, merchant_id, account, amount_e10, kind, request_id, "
    "customer_id, created_at) SELECT 'txn_' || i, m, 'expired', 0, 'cost', 'req_' || i, "
    "'con_' || (i / 100), at",
    "usage_rollups": "SELECT m, date_bin('15 minutes', now(), 'epoch') - i / 20 * "
    "interval '15 minutes', 'con_' || (i % 20), '', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0",
}
"""Rows for each list; a merchant has three webhooks at most. A customer has a hundred of what there
is more of, all together."""

LISTS = {
    "customers": ({},),
    "meters": ({},),
    "plans": ({},),
    "credit_bundles": ({}, {"plan_id": "sc_9000"}),
    "subscriptions": ({}, {"status": "all"}, {"customer_id": "con_90000", "status": "all"}),
    "payments": ({}, {"customer_id": "con_900"}),
    "prices": ({}, {"provider": "openai"}),
    "secret_keys": ({},),
    "forward_tokens": ({},),
    "spend_keys": ({},),
    "webhooks": ({},),
    "requests": (
        {},
        {"customer_id": "con_900"},
        {"meter_id": "prd_1"},
        {"meter_id": "prd_2"},
        {"metadata_filters": '[["k","v"]]'},
        {"metadata_filters": '[["k","rare"]]'},
        {"metadata_filters": '[["k","rare"]]', "meter_id": "prd_1"},
    ),
    "ledger": ({}, {"customer_id": "con_900"}, {"request_id": "req_90000"}),
}
"""Every list, with the filters that an index must serve."""
PER_ROW = 8
"""Rows read for each one shown, at most: joins."""


async def _load(url: str, merchant_id: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        await conn.execute("SET session_replication_role = replica")  # no triggers, no foreign keys
        for table, columns in LOAD.items():
            rows = FEWER if table in FEW else ROWS
            await conn.execute(
                f"INSERT INTO {table} {columns} FROM generate_series(1, {rows}) AS i, LATERAL "
                f"(SELECT '{merchant_id}' AS m, now() - i * interval '1 second' AS at) AS row"
            )
        await conn.execute("ANALYZE " + ", ".join(LOAD))
    finally:
        await conn.close()


def _read(plan: dict[str, Any]) -> int:
    """Rows that the leaves of a plan looked at; a whole table of more than a few is no list."""
    if "Plans" in plan:
        return sum(_read(part) for part in plan["Plans"])
    seen = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    assert plan["Node Type"] != "Seq Scan" or seen <= 1, plan["Relation Name"]
    return int(seen * plan["Actual Loops"])


def test_every_list_is_here() -> None:
    paged = {route.path for route in ROUTES if "cursor" in route.query}
    assert paged == set(LISTS)


async def _rows_read(conn: asyncpg.Connection[asyncpg.Record], one: Asked) -> int:
    text = f"EXPLAIN (ANALYZE, FORMAT JSON) {one.statement.text.rstrip(';')}"
    [explained] = json.loads(await conn.fetchval(text, *one.values))
    return _read(explained["Plan"])


async def test_lists_cost_what_they_show(api: Api, database_url: str) -> None:
    """The first page and a later one, of one row and of fifty, with each filter."""
    await _load(database_url, api.merchant_id)
    conn = await asyncpg.connect(database_url)
    await conn.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    # Of a joined table of this size all may be read because that is cheap: what counts is that
    # nothing has to be.
    await conn.execute("SET enable_seqscan = off; SET enable_hashjoin = off")
    for path, filters in LISTS.items():
        for query in filters:
            cursor: dict[str, str] = {}
            counts = set()
            for limit in (1, 50, 1, 50):
                await api.get(path, **query)  # what the filter names is in memory
                with watched() as asked:
                    reply = await api.get(path, limit=limit, **cursor, **query)
                where = (path, query, limit)
                assert reply.status == 200, (where, reply.body)
                counts.add(len(asked))
                for one in asked:
                    looked = USUAL if "metadata_filters" in query else 0
                    read = await _rows_read(conn, one)
                    assert read <= PER_ROW * (limit + 1) + looked, (where, one, read)
                if reply.json["next_cursor"]:
                    cursor = {"cursor": reply.json["next_cursor"]}
            assert len(counts) == 1, (path, query, counts)
            assert counts <= {1, 2}, (path, query, counts)
    await conn.close()
