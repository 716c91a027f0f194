"""Who gets in, and that nobody sees another merchant's objects: every route, every credential."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from api_kit import Api, Reply, call_app, unknown_secret
from books_kit import fetch

from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.ids import new_id, new_secret
from lava_proxy.manage.app import ROUTES, Management, create_management
from lava_proxy.manage.call import Route
from lava_proxy.payments.manual import Manual
from lava_proxy.payments.seam import CheckoutAnswer, CheckoutAsk, StoredMethod
from lava_proxy.store import keys, payers

SAMPLES: Mapping[tuple[str, str], Mapping[str, object]] = {
    ("POST", "customers"): {"reference_id": "new"},
    ("POST", "customers/*/credit"): {"amount": "1"},
    ("POST", "meters"): {
        "name": "n",
        "rate_type": "fixed",
        "tier_type": "requests",
        "tiers": [{"start": "0", "rate": "1"}],
    },
    ("POST", "requests"): {"request_id": "r2", "customer_id": "CUSTOMER", "meter_slug": "METER"},
    ("POST", "quotes"): {"customer_id": "CUSTOMER", "meter_slug": "METER", "amount": "1"},
    ("POST", "prices"): {"provider": "openai", "model": "m", "rates": {"input_1m": "1"}},
    ("POST", "prices/rerate"): {"dry_run": True},
    ("DELETE", "prices/*"): {},
    ("POST", "plans"): {"name": "n", "period_amount": "0", "billing_interval": "month"},
    ("PATCH", "plans/*"): {"name": "n"},
    ("DELETE", "plans/*"): {},
    ("PATCH", "customers/*"): {"name": "n"},
    ("DELETE", "customers/*"): {},
    ("PATCH", "meters/*"): {"name": "n"},
    ("DELETE", "meters/*"): {},
    ("POST", "secret_keys"): {"name": "n"},
    ("DELETE", "secret_keys/*"): {},
    ("POST", "spend_keys"): {"name": "n"},
    ("PUT", "spend_keys/*"): {"name": "m"},
    ("DELETE", "spend_keys/*"): {},
    ("POST", "spend_keys/*/rotate"): {},
    ("POST", "subscriptions"): {"customer_id": "CUSTOMER", "plan_id": "PLAN"},
    ("PATCH", "subscriptions/*"): {},
    ("DELETE", "subscriptions/*"): {},
    ("POST", "payments/*/complete"): {},
    ("POST", "payments/*/confirm"): {"return_url": "https://shop.test/back"},
    ("POST", "payment_methods"): {
        "customer_id": "CUSTOMER",
        "return_url": "https://shop.test/back",
    },
    ("PATCH", "payment_methods/*"): {"is_default": True},
    ("DELETE", "payment_methods/*"): {},
    ("POST", "webhooks"): {"name": "n", "url": "https://example.com/hook"},
    ("PATCH", "webhooks/*"): {"name": "m"},
    ("POST", "webhooks/*/rotate"): {},
    ("DELETE", "webhooks/*"): {},
    ("POST", "forward_tokens"): {"customer_id": "CUSTOMER", "meter_slug": "METER"},
    ("DELETE", "forward_tokens/*"): {},
    ("PATCH", "account/fallback"): {"fallback_chain": None},
    ("POST", "wallet/fund"): {"payment_method_id": "pm_1", "amount": "10"},
    ("POST", "checkout_sessions"): {
        "checkout_mode": "subscription",
        "origin_url": "https://shop.example",
        "plan_id": "PLAN",
        "customer_id": "CUSTOMER",
    },
}
"""A body that works, for every route that takes one. Ids are put in by `Objects`."""

FILTERS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("GET", "requests"): {
        "customer_id": "CUSTOMER",
        "connection_id": "CUSTOMER",
        "meter_id": "METER",
    },
    ("GET", "ledger"): {"customer_id": "CUSTOMER", "connection_id": "CUSTOMER"},
    ("GET", "usage"): {
        "customer_id": "CUSTOMER",
        "connection_id": "CUSTOMER",
        "meter_id": "METER",
    },
    ("GET", "credit_bundles"): {"plan_id": "PLAN"},
    ("GET", "payment_methods"): {"customer_id": "CUSTOMER", "connection_id": "CUSTOMER"},
}
"""Filters that name objects."""

QUERIES: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("GET", "usage"): {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
}
"""What a route needs to be asked at all."""

OWN_LISTS = {("POST", "customers"), ("POST", "meters"), ("GET", "customers"), ("GET", "meters")}
OWN_LISTS |= {
    ("POST", "prices/rerate"),
    ("POST", "prices"),
    ("GET", "prices"),
    ("POST", "plans"),
    ("GET", "plans"),
}
OWN_LISTS |= {("GET", "wallet"), ("POST", "wallet/fund")}
OWN_LISTS |= {("GET", "account/fallback"), ("PATCH", "account/fallback")}
OWN_LISTS |= {("POST", "secret_keys"), ("GET", "secret_keys")}
OWN_LISTS |= {("POST", "spend_keys"), ("GET", "spend_keys")}
OWN_LISTS |= {("POST", "webhooks"), ("GET", "webhooks")}
"""Routes that name no object at all."""

OPEN = {("POST", "auth/callback"), ("GET", "services"), ("GET", "services/providers/*")}
OPEN |= {("GET", "models"), ("POST", "payment_events/*")}
"""Routes that ask for no secret key; a payment provider signs what it says."""

KEYED = [route for route in ROUTES if route.auth == "secret_key"]
GROUPS: dict[str, list[Route]] = {}
"""By resource: its objects are made once. What ends an object comes last, and what changes a
payment has one to itself."""
for route in sorted(KEYED, key=lambda each: each.method == "DELETE"):
    alone = route.path.startswith("payments/*/")
    GROUPS.setdefault(route.path if alone else route.path.split("/")[0], []).append(route)


class Drawer(Manual):
    """Payments by hand, with a card of every payer: ``pm_`` and who it is."""

    async def payer_of(self, payment_method_id: str) -> str | None:
        return payment_method_id.removeprefix("pm_")

    async def methods(self, payer_ref: str) -> Sequence[StoredMethod]:
        return [StoredMethod(f"pm_{payer_ref}", "visa", "4242", "07", "2031", True)]

    async def checkout(self, ask: CheckoutAsk) -> CheckoutAnswer:
        return CheckoutAnswer("https://pay.test/page")


@pytest.fixture
def app(books: Books) -> Management:
    """The application, with means of payment."""
    return create_management(books, Registry.builtin(), Drawer())


async def _card(api: Api, customer: str) -> str:
    """A card of a customer's."""
    async with api.database.transaction() as conn:
        await payers.save_payer(conn, customer, "manual", customer, api.books.now())
    return f"pm_{customer}"


async def _payment(api: Api, customer: str) -> str:
    """A payment that waits for the operator's word."""
    payment_id = new_id("payment")
    await fetch(
        api.database,
        "INSERT INTO payments (payment_id, merchant_id, customer_id, purpose, amount_e10, status, "
        "provider, credit_bundle_id) SELECT $1, $2, $3, 'top_up', 1, 'pending', 'manual', "
        "min(credit_bundle_id) FROM credit_bundles WHERE merchant_id = $2",
        payment_id,
        api.merchant_id,
        customer,
    )
    return payment_id


class Objects:
    """What one merchant has; `ids` by placeholder."""

    def __init__(self, api: Api, ids: Mapping[str, str], by_path: Mapping[str, str]) -> None:
        self.api = api
        self.ids = ids
        self.by_path = by_path
        """The object behind the first segment of a path."""

    @classmethod
    async def made(cls, api: Api, only: str | None = None) -> Objects:
        customer = await api.customer(reference_id="mine")
        meter = str((await api.meter("mine"))["meter_id"])
        await api.made(f"customers/{customer}/credit", {"amount": "5"})
        report = {"request_id": "r1", "customer_id": customer, "meter_slug": meter}
        await api.made("requests", report)
        if only is not None:
            await api.made("requests", report | {"request_id": only})
        by_path = {"customers": customer, "meters": meter, "requests": "r1"}
        ids = {"CUSTOMER": customer, "METER": meter}
        for path, name in (
            ("prices", "price_id"),
            ("secret_keys", "secret_key_id"),
            ("spend_keys", "spend_key_id"),
            ("webhooks", "webhook_id"),
            ("forward_tokens", "forward_token_id"),
        ):
            sample = SAMPLES["POST", path].items()
            wanted = {k: ids.get(str(v), v) for k, v in sample}
            made = await api.made(path, wanted, status=201 if path == "spend_keys" else 200)
            by_path[path] = str(made[name])
        bundles = [{"name": "b", "cost": "1", "credit_amount": "2"}]
        plan = await api.made("plans", {**SAMPLES["POST", "plans"], "credit_bundles": bundles})
        by_path["plans"] = ids["PLAN"] = plan["plan_id"]
        by_path["credit_bundles"] = plan["credit_bundles"][0]["credit_bundle_id"]
        other = await api.customer()
        taken = await api.made("plans", SAMPLES["POST", "plans"])
        fresh = {"customer_id": other, "plan_id": taken["plan_id"]}
        made = (await api.made("subscriptions", fresh))["subscription"]
        by_path["subscriptions"] = made["subscription_id"]
        by_path["payments"] = await _payment(api, customer)
        by_path["payment_methods"] = await _card(api, customer)
        unique = {path: name for path, name in by_path.items() if path != "requests"}
        return cls(api, ids | unique, by_path)

    def path(self, route: Route) -> str:
        return (
            route.path.replace("*", self.by_path[route.path.split("/")[0]])
            if "*" in route.path
            else route.path
        )

    def body(self, route: Route) -> dict[str, object] | None:
        sample = SAMPLES.get((route.method, route.path))
        if sample is None:
            return None
        return {k: self.ids.get(v, v) if isinstance(v, str) else v for k, v in sample.items()}


def test_every_route_with_a_body_has_a_sample() -> None:
    assert {(r.method, r.path) for r in KEYED if r.method != "GET"} == set(SAMPLES)


def test_routes_for_everybody() -> None:
    assert {(r.method, r.path) for r in ROUTES if r not in KEYED} == OPEN


@pytest.mark.parametrize("routes", GROUPS.values(), ids=GROUPS)
async def test_the_matrix(routes: Sequence[Route], api: Api, other: Api) -> None:
    mine = await Objects.made(api, only="mine-only")
    theirs = await Objects.made(other)
    tester = await _in_test_mode(other)
    for route in routes:
        await _nobody_without_a_key(route, mine)
        await _strangers_see_nothing(route, mine, theirs, other)
        await _strangers_see_nothing(route, mine, theirs, tester)
    for route in routes:
        query = QUERIES.get((route.method, route.path), {})
        if (route.method, route.path) not in OWN_LISTS:  # those the tester has just called
            own = await tester.call(route.method, theirs.path(route), theirs.body(route), **query)
            assert own.status == route.status  # a test-mode key is a key of the same merchant
        reply = await api.call(route.method, mine.path(route), mine.body(route), **query)
        assert reply.status == route.status, route
    async with api.database.transaction() as conn:
        assert not await keys.revoke(conn, other.merchant_id, api.secret_key_id)
        assert await keys.revoke(conn, api.merchant_id, api.secret_key_id)
    await api.books.directory.poll()
    for route in routes:
        revoked = await api.call(route.method, mine.path(route), mine.body(route))
        assert (revoked.status, revoked.code) == (401, "invalid_token")


async def _nobody_without_a_key(route: Route, mine: Objects) -> None:
    api = mine.api
    for secret, status, code in (
        (None, 401, "invalid_token"),
        ("", 401, "invalid_token"),
        ("nonsense", 401, "invalid_token"),
        (api.secret + "x", 401, "invalid_token"),
        (api.secret[:-1], 401, "invalid_token"),
        (unknown_secret(), 401, "invalid_token"),
        (new_secret("aks_test_"), 401, "invalid_token"),
        (api.secret.replace("aks_live_", "aks_test_"), 401, "invalid_token"),
        ("lava_sk_" + "a" * 43, 403, "forbidden"),
        ("lava_ft_" + "a" * 43, 403, "forbidden"),
        (_forward_token(api.secret), 403, "forbidden"),
        (_forward_token(unknown_secret()), 401, "invalid_token"),
    ):
        reply = await _as(api, secret, route.method, mine.path(route), mine.body(route))
        assert (reply.status, reply.code) == (status, code), secret
        assert (reply.headers.get("www-authenticate") == "Bearer") == (status == 401)


async def _in_test_mode(api: Api) -> Api:
    async with api.database.transaction() as conn:
        made = await keys.add_key(conn, api.merchant_id, name="t", test=True)
    return replace(api, secret=made.secret_key, secret_key_id=made.secret_key_id)


def _unlike(name: str) -> str:
    """An id of the same length that nobody has."""
    return name[:-1] + ("0" if name[-1] != "0" else "1")


def _told(reply: Reply) -> tuple[object, ...]:
    """All that a caller gets, but how many calls are left."""
    assert (reply.status, reply.code) == (404, "not_found")
    kept = {n: v for n, v in reply.headers.items() if not n.startswith("x-ratelimit-")}
    return reply.status, kept, reply.body


async def _strangers_see_nothing(route: Route, mine: Objects, theirs: Objects, other: Api) -> None:
    """With another merchant's key, an id of mine gets the very bytes that one gets which nobody
    has."""
    name = (route.method, route.path)
    if name in OWN_LISTS:
        reply = await other.call(route.method, route.path, theirs.body(route))
        assert reply.status == route.status
        text = reply.body.decode()
        assert not any(i in text for i in (*mine.ids.values(), mine.api.merchant_id))
        return
    if "*" in route.path:
        kind = route.path.split("/")[0]
        if kind == "requests":  # both merchants have an r1
            shown = (await other.call(route.method, mine.path(route))).json
            assert shown["customer_id"] == theirs.ids["CUSTOMER"]
        ids = [mine.by_path[kind] if kind != "requests" else "mine-only"]
        answers = [
            await other.call(route.method, route.path.replace("*", one), theirs.body(route))
            for one in (*ids, _unlike(ids[0]))
        ]
        assert _told(answers[0]) == _told(answers[1])
    for field, place in _named(SAMPLES.get(name, {})):
        answers = [
            await other.call(route.method, route.path, (theirs.body(route) or {}) | {field: one})
            for one in (mine.ids[place], _unlike(mine.ids[place]))
        ]
        assert _told(answers[0]) == _told(answers[1]), field
    for field, place in FILTERS.get(name, {}).items():
        answers = [
            await other.get(route.path, **{field: one, **QUERIES.get(name, {})})
            for one in (mine.ids[place], _unlike(mine.ids[place]))
        ]
        assert _told(answers[0]) == _told(answers[1]), field
    if route.method == "GET" and "*" not in route.path:
        text = (await other.get(route.path, **QUERIES.get(name, {"limit": "100"}))).body.decode()
        assert not any(i in text for i in (*mine.ids.values(), mine.api.merchant_id))


def _named(sample: Mapping[str, object]) -> list[tuple[str, str]]:
    places = ("CUSTOMER", "METER", "PLAN")
    return [(k, v) for k, v in sample.items() if isinstance(v, str) and v in places]


async def test_where_the_key_may_stand(api: Api) -> None:
    for headers, status in (
        ([("authorization", f"Bearer {api.secret}")], 200),
        ([("authorization", f"bearer  {api.secret} ")], 200),
        ([("x-api-key", api.secret)], 200),
        ([("authorization", f"Bearer {api.secret}"), ("x-api-key", unknown_secret())], 400),
        ([("authorization", "Basic " + base64.b64encode(b"a:b").decode())], 401),
    ):
        reply = await call_app(api.app, "GET", "/v1/customers", headers=headers)
        assert reply.status == status, headers
    by_query = await call_app(api.app, "GET", "/v1/customers", query=f"key={api.secret}")
    assert by_query.status == 401


async def test_refusals_never_repeat_the_secret(api: Api) -> None:
    for secret in (unknown_secret(), _forward_token(unknown_secret()), "lava_sk_" + "a" * 43):
        reply = await _as(api, secret, "GET", "customers", None)
        assert secret.encode() not in reply.body


async def _as(
    api: Api, secret: str | None, method: str, path: str, body: Mapping[str, object] | None
) -> Reply:
    headers = [] if secret is None else [("authorization", f"Bearer {secret}")]
    pieces = [] if body is None else [json.dumps(body).encode()]
    return await call_app(api.app, method, f"/v1/{path}", headers=headers, pieces=pieces)


def _forward_token(secret: str) -> str:
    return base64.b64encode(json.dumps({"secret_key": secret}).encode()).decode()
