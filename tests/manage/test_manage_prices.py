"""Prices: a merchant's own over the operator's over the bundled ones, each from its time on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from api_kit import Api
from books_kit import Shop, meter
from late_kit import PERCENT, unpriced

from lava_proxy.books import bank
from lava_proxy.cli import tools
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.manage import prices
from lava_proxy.rules.pricebook import PriceBook
from lava_proxy.rules.rates import Rates
from lava_proxy.store import prices as store
from lava_proxy.store.database import StoreDown
from lava_proxy.store.prices import PriceRow

NEW = {"provider": "openai", "model": "gpt-4o", "rates": {"input_1m": "7", "output_1m": "9.5"}}


async def of_operator(api: Api, **changes: Any) -> PriceRow:
    """A price that the command line made."""
    now = datetime.now(UTC)
    usual: dict[str, Any] = {
        "price_id": new_id("price"),
        "merchant_id": None,
        "provider": "openai",
        "match": "exact",
        "model": "gpt-4o",
        "rates": {"input_1m": "3"},
        "effective_from": now,
        "created_at": now,
    }
    made = PriceRow(**(usual | changes))
    async with api.database.transaction() as conn:
        await store.create(conn, made)
    await api.books.refresh_prices()
    return made


def rates(api: Api, model: str = "gpt-4o", provider: str = "openai") -> Rates | None:
    return api.books.prices.of(api.merchant_id).rates(provider, model, api.books.now())


def version(api: Api, model: str = "gpt-4o") -> str:
    found = rates(api, model)
    return "" if found is None else found.version


async def test_a_price_of_ones_own(api: Api, other: Api) -> None:
    made = await api.made("prices", NEW)
    assert set(made) == {
        "price_id",
        "scope",
        "provider",
        "match",
        "model",
        "rates",
        "effective_from",
        "created_at",
    }
    assert (made["scope"], made["match"], made["rates"]) == ("merchant", "exact", NEW["rates"])
    assert version(api) == f"override/{made['price_id']}"
    assert version(other).startswith("genai-prices/")  # nobody else's business
    assert (await api.get(f"prices/{made['price_id']}")).json == made
    assert (await other.get(f"prices/{made['price_id']}")).status == 404
    assert (await other.get("prices")).json["data"] == []
    assert (await other.call("DELETE", f"prices/{made['price_id']}")).status == 404
    gone = await api.call("DELETE", f"prices/{made['price_id']}")
    assert gone.json == {"id": made["price_id"], "deleted": True}
    assert version(api).startswith("genai-prices/")
    assert (await api.call("DELETE", f"prices/{made['price_id']}")).status == 404


async def test_the_latest_price_holds_and_the_one_before_comes_back(api: Api) -> None:
    first = await api.made("prices", NEW)
    second = await api.made("prices", NEW | {"rates": {"input_1m": "8"}})
    assert version(api) == f"override/{second['price_id']}"
    await api.call("DELETE", f"prices/{second['price_id']}")
    assert version(api) == f"override/{first['price_id']}"


async def test_the_operators_price_is_shown_and_is_not_ones_own(api: Api, other: Api) -> None:
    row = await of_operator(api)
    assert (version(api), version(other)) == (f"override/{row.price_id}",) * 2
    [shown] = (await api.get("prices")).json["data"]
    assert (shown["price_id"], shown["scope"]) == (row.price_id, "operator")
    refused = await api.call("DELETE", f"prices/{row.price_id}")
    assert (refused.status, refused.code) == (403, "forbidden")
    mine = await api.made("prices", NEW)
    assert (version(api), version(other)) == (
        f"override/{mine['price_id']}",
        f"override/{row.price_id}",
    )


async def test_a_more_specific_match_wins_whoever_made_it(api: Api) -> None:
    row = await of_operator(api)
    await api.made("prices", NEW | {"match": "prefix", "model": "gpt-"})
    assert version(api) == f"override/{row.price_id}"
    assert version(api, "gpt-4o-mini").startswith("override/prc_")
    default = {"provider": "openai", "match": "default", "rates": {"input_1m": "1"}}
    made = await api.made("prices", default)
    assert made["model"] == ""
    assert version(api, "nobody-knows-it") == f"override/{made['price_id']}"


async def test_a_price_to_come_holds_from_its_time_on(api: Api) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    made = await api.made("prices", NEW | {"effective_from": soon.isoformat()})
    assert version(api).startswith("genai-prices/")
    assert not api.books.prices_stale
    assert api.books.prices.outdated(soon)
    assert not api.books.prices.outdated(soon - timedelta(seconds=1))
    async with api.database.transaction() as conn:
        await conn.execute("UPDATE price_overrides SET effective_from = now() - interval '1 s'")
    await api.books.refresh_prices()
    assert version(api) == f"override/{made['price_id']}"


async def test_what_is_wrong_is_named(api: Api) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"provider": "nobody"}, "provider"),
        ({"match": "default"}, "model"),
        ({"model": ""}, "model"),
        ({"rates": {}}, "rates"),
        ({"rates": {"per_smile": "1"}}, "rates"),
        ({"rates": {"input_1m": "-1"}}, "rates"),
        ({"rates": {"input_1m": 1}}, "rates.input_1m"),
        ({"rates": {"input_1m": "1e3"}}, "rates"),
        ({"match": "roughly"}, "match"),
        ({"effective_from": "2020-01-01T00:00:00Z"}, "effective_from"),
        ({"merchant_id": "mer_1"}, "merchant_id"),
    ]
    for change, path in wrong:
        reply = await api.post("prices", NEW | change)
        assert (reply.status, reply.paths) == (422, [path]), change
    assert (await api.get("prices")).json["data"] == []


async def test_there_is_a_limit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "PRICES_MAX", 2)
    first = await api.made("prices", NEW)
    await api.made("prices", NEW)
    reply = await api.post("prices", NEW)
    assert (reply.status, reply.code) == (409, "conflict")
    await api.call("DELETE", f"prices/{first['price_id']}")
    await api.made("prices", NEW)


async def test_a_price_that_is_made_while_the_database_goes_is_used_later(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is the commit's; the change is not forgotten."""

    async def down(*given: object) -> PriceBook:
        raise StoreDown("gone")

    with monkeypatch.context() as patch:
        patch.setattr(bank, "load_prices", down)
        made = await api.made("prices", NEW)
        assert api.books.prices_stale
    await api.books.refresh_prices()
    assert version(api) == f"override/{made['price_id']}"


async def test_an_old_look_at_the_prices_never_comes_last(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, books = asyncio.Event(), [PriceBook(), PriceBook()]

    async def load(*given: object) -> PriceBook:
        mine = books.pop(0)
        if books:
            await slow.wait()
        return mine

    last = books[1]
    monkeypatch.setattr(bank, "load_prices", load)
    first = asyncio.create_task(api.books.refresh_prices())
    await asyncio.sleep(0)
    second = asyncio.create_task(api.books.refresh_prices())
    await asyncio.sleep(0)
    slow.set()
    await asyncio.gather(first, second)
    assert api.books.prices is last


async def test_lists_go_page_by_page(api: Api) -> None:
    made = [await api.made("prices", NEW | {"model": f"m{n}"}) for n in range(3)]
    first = (await api.get("prices", limit=2)).json
    rest = (await api.get("prices", limit=2, cursor=first["next_cursor"])).json
    assert first["data"] + rest["data"] == list(reversed(made))
    assert (await api.get("prices", provider="anthropic")).json["data"] == []
    assert len((await api.get("prices", provider="openai")).json["data"]) == 3


async def test_twice_with_one_key_is_once(api: Api) -> None:
    one = await api.made("prices", NEW, key="k")
    assert await api.made("prices", NEW, key="k") == one
    assert len((await api.get("prices")).json["data"]) == 1


async def test_the_commands_of_the_operator(database_url: str, tmp_path: Any) -> None:
    settings = tools.Settings(database_url=database_url, data_dir=tmp_path)
    now = datetime.now(UTC)
    row = PriceRow("prc_1", None, "openai", "exact", "gpt-4o", {"input_1m": "3"}, now, now)
    await tools.add_price(settings, row)
    assert await tools.all_prices(settings) == [row]
    await tools.remove_price(settings, "prc_1")
    assert await tools.all_prices(settings) == []
    merchant = (await tools.create_key(settings, "k", False, "m"))["merchant_id"]
    await tools.add_price(settings, replace(row, price_id="prc_2", merchant_id=merchant))
    await tools.remove_price(settings, "prc_2")  # the operator's house
    with pytest.raises(LavaError, match="there is no price"):
        await tools.remove_price(settings, "prc_2")


async def test_late_prices_correct_ones_own_requests_when_asked(api: Api, other: Api) -> None:
    facts = {}
    for each in (api, other):
        shop = Shop(each.database, each.merchant_id, now=datetime.now(UTC))
        customer = await each.customer()
        made = await each.meter(
            "p", rate_type="percentage", tiers=[{"start": "0", "rate": "100"}], unpriced="dearest"
        )
        by = meter((0, 100 * PERCENT), rate_type="percentage", meter_id=str(made["meter_id"]))
        rows = [
            unpriced(shop, customer, by=by, assumed_e10=3 * 10**7, request_id=f"r{n}")
            for n in range(3)
        ]
        await shop.settle(*rows)
        facts[each.merchant_id] = customer
    empty = {"dry_run": False, "data": [], "has_more": False}
    assert await api.made("prices/rerate", {}) == empty
    price = await api.made("prices", NEW | {"model": "newest", "rates": {"input_1m": "1"}})
    version = f"override/{price['price_id']}"
    told = await api.made("prices/rerate", {"dry_run": True})
    assert (told["dry_run"], len(told["data"]), told["has_more"]) == (True, 3, False)
    first = await api.made("prices/rerate", {"limit": 2}, key="k")
    assert first["data"] == told["data"][:2]
    assert first["data"][0] == {
        "request_id": "r0",
        "customer_id": facts[api.merchant_id],
        "model": "newest",
        "cost_change": "-0.0020000000",
        "charge_change": "-0.0020000000",
        "price_version": version,
    }
    assert first["has_more"]
    assert await api.made("prices/rerate", {"limit": 2}, key="k") == first  # a repeat is no more
    assert len((await api.made("prices/rerate", {}))["data"]) == 1
    assert await api.made("prices/rerate", {}) == empty
    assert await other.made("prices/rerate", {}) == empty
    shown = (await api.get("requests/r0")).json
    assert (shown["cost"], shown["charge"]["amount"]) == ("0.0010000000",) * 2
    assert shown["charge"]["breakdown"][0]["cost"] == "0.0010000000"
    assert shown["model_usage"]["input_cost"] == shown["model_usage"]["total_cost"] == shown["cost"]
    assert shown["model_usage"]["output_cost"] == "0.0000000000"
    assert shown["price_version"] == version
    assert shown["rerated"] == {
        "booked_cost": "0.0030000000",
        "booked_charge": "0.0030000000",
        "booked_price_version": "genai-prices/0 dearest big",
        "rerated_at": shown["rerated"]["rerated_at"],
    }
    assert (await api.get("requests")).json["data"][-1] == shown
    assert (await api.balance(facts[api.merchant_id]))["total_remaining"] == "-0.0030000000"
    assert await api.sound()


async def test_what_a_rerating_may_be_asked(api: Api) -> None:
    for wrong, path in (
        ({"limit": 0}, "limit"),
        ({"limit": 501}, "limit"),
        ({"limit": True}, "limit"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"merchant_id": "mer_1"}, "merchant_id"),
    ):
        reply = await api.post("prices/rerate", wrong)
        assert (reply.status, reply.paths) == (422, [path]), wrong
    reply = await api.get("prices/rerate")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
