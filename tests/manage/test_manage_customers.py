"""Customers: one per reference, strict fields, lists that neither skip nor repeat."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import timedelta

from api_kit import Api, call_app

from lava_proxy.store import customers, keys
from lava_proxy.store.customers import CustomerRow


async def test_an_empty_object_is_a_customer(api: Api) -> None:
    made = await api.made("customers", {})
    assert made == {
        "customer_id": made["customer_id"],
        "reference_id": None,
        "contact": {"phone": "", "email": "", "first_name": "", "last_name": ""},
        "subscription": None,
        "metadata": None,
        "top_up_monthly_max": None,
        "created_at": made["created_at"],
    }
    assert made["customer_id"].startswith("con_")
    assert made["created_at"].endswith("Z")
    assert (await api.get(f"customers/{made['customer_id']}")).json == made
    assert (await api.post("customers", b"")).status == 200  # the SDK may send nothing at all


async def test_everything_comes_back(api: Api) -> None:
    body = {
        "reference_id": "user/1 ?x=ä",
        "name": "Jane van Dam Smith",
        "email": "jane@example.com",
        "phone": "+14155550100",
        "top_up_monthly_max": "12.5",
        "metadata": {"plan": "gold", "n": [1, 2.50, None, True], "deep": {"ä": "ü"}},
    }
    made = await api.made("customers", body)
    assert made["contact"] == {
        "phone": "+14155550100",
        "email": "jane@example.com",
        "first_name": "Jane",
        "last_name": "van Dam Smith",
    }
    assert made["metadata"] == body["metadata"]
    assert made["top_up_monthly_max"] == "12.5000000000"
    assert (await api.get("customers/user%2F1%20%3Fx=%C3%A4")).json == made
    assert (await api.get("customers")).json["data"] == [made]


async def test_numbers_in_metadata_stay_as_they_came(api: Api) -> None:
    made = await api.post("customers", b'{"metadata": {"x": 0.10, "y": 1234567890.123456789012}}')
    assert b'"x": 0.10' in made.body
    assert b'"y": 1234567890.123456789012' in made.body


async def test_names_split_at_the_first_space(api: Api) -> None:
    for name, first, last in (
        ("Jane", "Jane", ""),
        (" Jane  Smith ", "Jane", "Smith"),
        ("", "", ""),
        ("孔 夫 子", "孔", "夫 子"),
    ):
        contact = (await api.made("customers", {"name": name}))["contact"]
        assert (contact["first_name"], contact["last_name"]) == (first, last)


WRONG_FIELDS: list[tuple[str, object]] = [
    ("reference_id", "con_mine"),
    ("reference_id", ""),
    ("reference_id", "x" * 256),
    ("reference_id", "a\nb"),
    ("reference_id", 5),
    ("name", "x" * 256),
    ("name", True),
    ("email", "not an address"),
    ("email", "a@" + "b" * 255),
    ("phone", "0170 1234567"),
    ("phone", "+1" + "0" * 16),
    ("metadata", []),
    ("metadata", "text"),
    ("metadata", {"x": "y" * 16_400}),
    ("top_up_monthly_max", 5),
    ("top_up_monthly_max", "-1"),
    ("top_up_monthly_max", "1000000.01"),
    ("colour", "red"),
]


async def test_a_wrong_field_is_named(api: Api) -> None:
    for field, value in WRONG_FIELDS:
        reply = await api.post("customers", {field: value})
        assert (reply.status, reply.code, reply.paths) == (422, "validation_error", [field])
    assert (await api.get("customers")).json["data"] == []


NOT_JSON = [
    b"{",
    b"[]",
    b'"x"',
    b"null",
    b'{"name":"a","name":"b"}',
    b'{"metadata":{"x":NaN}}',
    b'{"reference_id":"a\\u0000b"}',
    b'{"metadata":{"x":"\\ud800"}}',
    b"\xef\xbb\xbf{}",
    b'{"name":"\xff"}',
]


async def test_what_cannot_be_parsed_is_400(api: Api) -> None:
    for body in NOT_JSON:
        reply = await api.post("customers", body)
        assert (reply.status, reply.code) == (400, "invalid_request"), body


async def test_a_reference_is_one_customer(api: Api) -> None:
    made = await api.made("customers", {"reference_id": "u1", "name": "A B"})
    assert await api.made("customers", {"reference_id": "u1", "name": "C D"}) == made
    replies = await asyncio.gather(
        *(api.made("customers", {"reference_id": "u2"}) for _ in range(20))
    )
    assert len({reply["customer_id"] for reply in replies}) == 1
    assert len((await api.get("customers")).json["data"]) == 2


async def test_a_customer_has_an_account_from_the_start(api: Api) -> None:
    customer = await api.customer(reference_id="u1")
    found = await api.balance("u1")
    assert found.pop("as_of").endswith("Z")
    assert found == {
        "customer_id": customer,
        "available": "0.0000000000",
        "held": "0.0000000000",
        "cycle_remaining": "0.0000000000",
        "bundle_remaining": "0.0000000000",
        "total_remaining": "0.0000000000",
    }


async def test_a_new_customer_is_known_at_once(api: Api) -> None:
    """A miss is remembered for a second; making the customer must end that."""
    assert (await api.get("customers/u9/balance")).status == 404
    await api.customer(reference_id="u9")
    assert (await api.get("customers/u9/balance")).status == 200


async def test_test_keys_make_test_ids(api: Api) -> None:
    async with api.database.transaction() as conn:
        made = await keys.add_key(conn, api.merchant_id, name="t", test=True)
    assert made.secret_key.startswith("aks_test_")
    api.secret = made.secret_key
    assert (await api.customer()).startswith("con_test_")


async def test_a_cap_of_top_ups_is_set_kept_and_taken_away(api: Api) -> None:
    customer = await api.customer(top_up_monthly_max="30")
    path = f"customers/{customer}"
    for change, cap in (
        ({"name": "J"}, "30.0000000000"),
        ({"top_up_monthly_max": "0"}, "0.0000000000"),
        ({"top_up_monthly_max": None}, None),
        ({"top_up_monthly_max": "1000000"}, "1000000.0000000000"),
    ):
        changed = (await api.call("PATCH", path, change)).json
        assert changed["top_up_monthly_max"] == cap
        assert (await api.get(path)).json == changed
        assert (await api.get("customers")).json["data"] == [changed]


async def test_pages_neither_skip_nor_repeat(api: Api) -> None:
    """Also where many were made at the same instant."""
    now = api.books.now()
    async with api.database.transaction() as conn:
        for number in range(25):
            row = CustomerRow(
                customer_id=f"con_{number:03d}",
                reference_id=None,
                phone="",
                email="",
                first_name="",
                last_name="",
                metadata=None,
                created_at=now + timedelta(microseconds=number // 5),
            )
            await customers.create(conn, api.merchant_id, row)
    everything = [c["customer_id"] for c in (await api.get("customers", limit=100)).json["data"]]
    assert len(everything) == 25
    for limit in (1, 7, 24, 25):
        seen: list[str] = []
        query: dict[str, str | int] = {"limit": limit}
        while True:
            page = (await api.get("customers", **query)).json
            assert 0 < len(page["data"]) <= limit
            assert page["has_more"] == (page["next_cursor"] is not None)
            seen += [c["customer_id"] for c in page["data"]]
            if not page["has_more"]:
                break
            query["cursor"] = page["next_cursor"]
        assert seen == everything


async def test_the_default_page_is_ten(api: Api) -> None:
    for _ in range(11):
        await api.customer()
    page = (await api.get("customers")).json
    assert (len(page["data"]), page["has_more"]) == (10, True)
    last = (await api.get("customers", cursor=page["next_cursor"])).json
    assert (len(last["data"]), last["has_more"], last["next_cursor"]) == (1, False, None)
    times = [c["created_at"] for c in page["data"] + last["data"]]
    assert times == sorted(times, reverse=True)


WRONG_QUERIES = [
    ("limit", "0"),
    ("limit", "101"),
    ("limit", "-1"),
    ("limit", "1.0"),
    ("limit", "٣"),
    ("limit", ""),
    ("limit", "9" * 400),
    ("cursor", "x"),
    ("cursor", "e30"),
    ("cursor", "!!!!"),
    ("cursor", "A" * 3000),
    ("colour", "red"),
]


async def test_wrong_queries(api: Api) -> None:
    for name, value in WRONG_QUERIES:
        for path in ("customers", "meters", "requests", "ledger"):
            reply = await api.get(path, **{name: value})
            assert (reply.status, reply.code, reply.paths) == (422, "validation_error", [name])


async def test_a_cursor_is_for_its_own_list(api: Api) -> None:
    await api.customer()
    await api.customer()
    cursor = (await api.get("customers", limit=1)).json["next_cursor"]
    assert (await api.get("meters", cursor=cursor)).status == 422
    for wrong in (
        ["customers", 2**63, "x"],
        ["customers", -1, "x"],
        ["customers", 1, "a\0"],
        ["customers", True, "x"],
        ["customers", 2**62, "x"],
        ["customers", 1],
    ):
        text = base64.urlsafe_b64encode(json.dumps(wrong, separators=(",", ":")).encode()).decode()
        assert (await api.get("customers", cursor=text.rstrip("="))).status == 422
    assert (await api.get("customers", cursor=cursor + "=")).status == 422


async def test_repeated_and_torn_parameters(api: Api) -> None:
    headers = [("authorization", f"Bearer {api.secret}")]
    for query in ("limit=1&limit=2", "limit=%FF", "cursor=%00", "&".join(["limit=1"] * 50)):
        reply = await call_app(api.app, "GET", "/v1/customers", query=query, headers=headers)
        assert (reply.status, reply.code) == (422, "validation_error")
