"""A row is sent by place: what is written at a place is what is read there."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

from books_kit import NOW, fetch, meter, open_shop, row, sound

from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import Cost
from lava_proxy.store.database import Database
from lava_proxy.store.lines import COLUMNS
from lava_proxy.store.sql import load


def test_the_statement_names_the_columns_in_their_order() -> None:
    text = load("settle")["book"].text
    listed = re.search(r"INSERT INTO requests\s*\(([^)]*)\)", text)
    assert listed is not None
    assert tuple(re.findall(r"\w+", listed.group(1))) == COLUMNS
    assert [int(n) for n in re.findall(r"\br->>?(\d+)", text)] == list(range(len(COLUMNS)))


async def test_every_value_comes_back_in_its_column(database: Database) -> None:
    shop = await open_shop(database)
    owner = await shop.customer(10**9)
    plain = row(owner, shop=shop, by=meter((0, 1000)), metadata={"a": 'é"\\\n'}, model="model")
    whole = replace(
        plain,
        counts=Counts(1, 2, 3, 4, 5, 6),
        cost=Cost(11, 12, 23),
        cache_read_tokens=7,
        cache_write_tokens=8,
        reasoning_tokens=9,
        price_version="version",
        response_id="response",
        flags=("one", "two"),
        duration_ms=10,
        first_byte_ms=13,
        completed_at=NOW + timedelta(seconds=1.5),
    )
    await shop.settle(whole)
    (found,) = await fetch(database, f"SELECT {', '.join(COLUMNS)} FROM requests")
    call = whole.call
    assert call.meter is not None
    assert dict(zip(COLUMNS, found, strict=True)) == {
        "merchant_id": shop.merchant_id,
        "request_id": call.request_id,
        "created_at": NOW,
        "customer_id": owner,
        "meter_id": call.meter.meter_id,
        "cycle": "2026-11",
        "provider": "openai",
        "provider_key_type": "managed",
        "model": "model",
        "endpoint": call.endpoint,
        "response_id": "response",
        "status": "completed",
        "outcome": "completed",
        "usage_source": "provider",
        "stream": True,
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_tokens": 7,
        "cache_write_tokens": 8,
        "reasoning_tokens": 9,
        "input_characters": 3,
        "output_characters": 4,
        "input_ms": 5,
        "output_ms": 6,
        "units": 3,
        "input_cost_e10": 11,
        "output_cost_e10": 12,
        "cost_e10": 23,
        "charge_e10": 0,
        "rate_type": "fixed",
        "tier_type": "tokens_1m",
        "price_version": "version",
        "duration_ms": 10,
        "first_byte_ms": 13,
        "completed_at": NOW + timedelta(seconds=1.5),
        "breakdown": [[0, 1000, 3, 0]],
        "metadata": {"a": 'é"\\\n'},
        "flags": ["one", "two"],
    }
    await sound(database)


async def test_what_a_row_does_not_have_is_null(database: Database) -> None:
    shop = await open_shop(database)
    bare = row(shop.merchant_id, shop=shop, by=None, customer=False, model=None, cost_e10=None)
    await shop.settle(replace(bare, completed_at=None))
    (found,) = await fetch(database, f"SELECT {', '.join(COLUMNS)} FROM requests")
    empty = {name for name, value in zip(COLUMNS, found, strict=True) if value is None}
    assert empty == {
        "customer_id",
        "meter_id",
        "model",
        "response_id",
        "rate_type",
        "tier_type",
        "price_version",
        "duration_ms",
        "first_byte_ms",
        "completed_at",
        "metadata",
    }
