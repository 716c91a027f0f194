"""Usage against the requests that the API itself shows: late rows, late prices that make dearer and
cheaper, months that went, any offset, any filter; to the last digit. `RIG_LONG=1`: fifty times."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from api_kit import Api
from books_kit import Shop, fetch, meter, row
from late_kit import PERCENT, priced, rerated, unpriced

from lava_proxy.core.money import format_e10, parse_e10
from lava_proxy.rules.settlement import Meter, Settlement
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database
from lava_proxy.store.retention import retire

OLD = datetime(2020, 1, 30, tzinfo=UTC)
NOW = datetime(2020, 3, 3, tzinfo=UTC)
GONE = datetime(2020, 2, 1, tzinfo=UTC)
QUARTER, DAY = timedelta(minutes=15), timedelta(days=1)
INSTANT = timedelta(microseconds=1)
OFFSETS = [
    timezone(timedelta(hours=hours, minutes=minutes))
    for hours, minutes in ((0, 0), (5, 45), (-4, 30), (14, 0), (-12, 0), (12, 45), (9, 30))
]
"""+05:45, -03:30 and such."""


@dataclass
class Fact:
    """What we know of a request ourselves."""

    at: datetime
    customer: str
    meter: str
    feature: str
    tokens: int
    cost_e10: int = 0
    charge_e10: int = 0
    gone: bool = False


class Truth:
    """A merchant's requests, by what the API showed of them last."""

    def __init__(self, api: Api, chance: random.Random) -> None:
        self.api = api
        self.shop = Shop(api.database, api.merchant_id, now=NOW)
        self.chance = chance
        self.facts: dict[str, Fact] = {}
        self.customers: list[str] = []
        self.meters: list[Meter] = []

    async def open(self) -> None:
        self.customers = [await self.api.customer(reference_id=f"c{n}") for n in range(3)]
        for number, kind in enumerate(("fixed", "percentage")):
            tiers = [{"start": "0", "rate": "2"}, {"start": "5000", "rate": "3"}]
            if kind == "percentage":
                tiers = [{"start": "0", "rate": "100"}]
            made = await self.api.meter(f"m{number}", rate_type=kind, tiers=tiers)
            prices = ((0, 2 * 10**12), (5000, 3 * 10**12))
            if kind == "percentage":
                prices = ((0, 100 * PERCENT),)  # type: ignore[assignment]
            self.meters.append(
                meter(
                    *prices,
                    rate_type=kind,  # type: ignore[arg-type]
                    meter_id=str(made["meter_id"]),
                    merchant_id=self.api.merchant_id,
                )
            )

    async def book(self, start: datetime, days: int, count: int) -> None:
        """Rows on and beside the edges of quarters, days and months."""
        rows = [self._row(start, days) for _ in range(count)]
        await self.shop.settle(*rows)
        await self.look()

    def _row(self, start: datetime, days: int) -> Settlement:
        chance, request_id = self.chance, f"r{len(self.facts)}"
        at = start + QUARTER * chance.randrange(96 * days)
        at += chance.choice((timedelta(), -INSTANT, timedelta(seconds=chance.randrange(900))))
        owner, by = chance.choice(self.customers), chance.choice(self.meters)
        feature, tokens = chance.choice(("chat", "search")), chance.randrange(1, 1000)
        self.facts[request_id] = Fact(at, owner, by.meter_id, feature, tokens)
        what: dict[str, Any] = {
            "by": by,
            "request_id": request_id,
            "metadata": {"feature": feature},
            "cycle": "2020",
        }
        kind = chance.randrange(3)
        if kind == 0:
            made = row(owner, tokens, shop=self.shop, cost_e10=chance.randrange(10**6), **what)
            return replace(made, call=replace(made.call, created_at=at))
        assumed = None if kind == 1 else chance.randrange(10**8)
        model = chance.choice(("dear", "cheap"))
        return unpriced(self.shop, owner, tokens, assumed_e10=assumed, model=model, at=at, **what)

    async def look(self) -> None:
        """Read all requests as a client does; what is not there any more stays as it was."""
        cursor: dict[str, str] = {}
        while True:
            page = (await self.api.get("requests", limit=100, **cursor)).json
            for shown in page["data"]:
                fact = self.facts[shown["request_id"]]
                fact.cost_e10 = parse_e10(shown["cost"])
                fact.charge_e10 = parse_e10(shown["charge"]["amount"])
                parts = shown["charge"]["breakdown"]
                assert sum(parse_e10(part["cost"]) for part in parts) == fact.charge_e10
                used = shown["model_usage"]
                both = parse_e10(used["input_cost"]) + parse_e10(used["output_cost"])
                assert both == parse_e10(used["total_cost"]) == fact.cost_e10
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    async def forget_january(self) -> None:
        """Its rows go, after an audit."""
        assert (await audit(self.api.database)).sound
        assert await retire(self.api.database, 0, GONE) != []
        for fact in self.facts.values():
            fact.gone = fact.at < GONE

    async def ask(self) -> None:
        """Any range, offset and filter."""
        chance, offset = self.chance, self.chance.choice(OFFSETS)
        edges = [fact.at for fact in self.facts.values()]
        ends = [chance.choice(edges) + chance.choice((-1, 0, 1)) * INSTANT for _ in range(2)]
        since, end = sorted(ends)
        written = end.isoformat(timespec="microseconds")  # it counts as wide as it is written
        query = {"start": since.astimezone(offset).isoformat(), "end": written}
        wanted = list(self.facts.values())
        if chance.random() < 0.4:
            query["customer_id"] = chance.choice(self.customers)
            wanted = [fact for fact in wanted if fact.customer == query["customer_id"]]
        if chance.random() < 0.4:
            query["meter_id"] = chance.choice(self.meters).meter_id
            wanted = [fact for fact in wanted if fact.meter == query["meter_id"]]
        if chance.random() < 0.4:
            query["metadata_filters"] = json.dumps([["feature", "chat"]])
            # Only rows have metadata; of a month that went, those are there that came after it.
            wanted = [f for f in wanted if f.feature == "chat" and not f.gone]
            known = [(fact.at, fact) for fact in wanted]
        else:
            known = [(self.place(fact), fact) for fact in wanted]
        inside = [(at, fact) for at, fact in known if since <= at <= end]
        found = (await self.api.get("usage", **query)).json
        assert found["totals"] == totals([fact for _, fact in inside]), query
        for item in found["items"]:
            day = [fact for at, fact in inside if _date(at, offset) == item["date"]]
            assert {name: item[name] for name in totals([])} == totals(day), (query, item)

    def place(self, fact: Fact) -> datetime:
        """Where a request lies; where only quarters are left, at the beginning of its own."""
        january = any(each.gone for each in self.facts.values())
        if not january or fact.at >= GONE:
            return fact.at
        return fact.at - (fact.at - OLD) % QUARTER


def totals(facts: Sequence[Fact]) -> dict[str, object]:
    return {
        "total_requests": len(facts),
        "total_usage_tokens": sum(fact.tokens for fact in facts),
        "total_cost": format_e10(sum(fact.cost_e10 for fact in facts)),
        "total_charge": format_e10(sum(fact.charge_e10 for fact in facts)),
    }


def _date(at: datetime, offset: tzinfo) -> str:
    return at.astimezone(offset).date().isoformat()


async def _months(database: Database) -> None:
    for month, after in (("202001", "202002"), ("202002", "202003"), ("202003", "202004")):
        bounds = f"FROM ('{month}01 00:00+00') TO ('{after}01 00:00+00')"
        for parent in ("requests", "ledger_entries"):
            await fetch(
                database,
                f"CREATE TABLE {parent}_{month} PARTITION OF {parent} FOR VALUES {bounds}",
            )


@pytest.mark.parametrize("seed", range(50 if os.environ.get("RIG_LONG") else 1))
async def test_usage_is_the_sum_of_the_requests_whatever_came_late(api: Api, seed: int) -> None:
    await _months(api.database)
    truth = Truth(api, random.Random(seed))
    await truth.open()
    await truth.book(OLD, 5, 60)  # over the end of a month
    for _ in range(10):
        await truth.ask()
    await priced(truth.shop, "1000", model="dear", since=OLD, known_at=NOW)
    assert await rerated(api.database, NOW)
    await truth.look()
    for _ in range(15):
        await truth.ask()
    await truth.forget_january()
    await truth.look()
    for _ in range(15):
        await truth.ask()
    await priced(truth.shop, "0.1", model="cheap", since=OLD, known_at=NOW)
    assert await rerated(api.database, NOW)  # what went with January stays as it was
    await truth.book(OLD, 5, 30)  # late: some for the month that went
    await rerated(api.database, NOW)
    await truth.look()
    for _ in range(30):
        await truth.ask()
    assert await api.sound()
