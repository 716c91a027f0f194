"""The description and the reference page say what the routes do, and come without a key."""

from __future__ import annotations

import re

from api_kit import Api, call_app
from jsonschema_rs import validator_for

from lava_proxy.core.errors import CODES
from lava_proxy.manage import openapi
from lava_proxy.manage.app import ROUTES, Management
from lava_proxy.manage.parameters import PARAMETERS


def test_every_route_is_described_with_all_its_codes() -> None:
    document = openapi.describe(ROUTES)
    for route in ROUTES:
        operation = document["paths"][openapi.path_of(route)][route.method.lower()]
        told = " ".join(answer["description"] for answer in operation["responses"].values())
        for code in openapi.codes_of(route):
            assert f"`{code}`" in told, (route, code)
            assert str(CODES[code].status) in operation["responses"]
        assert route.answer is not None, route
        acts = route.path in ("payments/*/complete", "spend_keys/*/rotate")  # nothing but the id
        acts |= route.path == "payment_events/*"  # a message of the provider's, whatever is in it
        assert (route.body is None) == (acts or route.method in ("GET", "DELETE")), route
        assert operation["summary"].endswith("."), route
        assert {p["name"] for p in operation["parameters"] if p["in"] == "query"} == route.query
    ids = re.findall(r'"operationId": ?"(\w+)"', str(document).replace("'", '"'))
    assert len(ids) == len(set(ids)) >= len(ROUTES)


def test_every_parameter_is_used() -> None:
    assert {name for route in ROUTES for name in route.query} == set(PARAMETERS)


async def test_it_is_served_to_everybody_and_once(app: Management) -> None:
    first = await call_app(app, "GET", "/v1/openapi.json")
    assert (first.status, first.json["openapi"]) == (200, "3.1.0")
    tag = first.headers["etag"]
    again = await call_app(app, "GET", "/v1/openapi.json", headers=[("if-none-match", tag)])
    assert (again.status, again.body) == (304, b"")


async def test_an_answer_is_as_described(api: Api) -> None:
    document = openapi.describe(ROUTES)
    made = await api.made("customers", {"name": "Jane Smith"})
    schema = {"$ref": "#/components/schemas/Customer", "components": document["components"]}
    validator = validator_for(schema)
    assert validator.is_valid(made)
    assert not validator.is_valid(made | {"created_at": 1})


async def test_the_page_needs_nothing_else(app: Management) -> None:
    page = await call_app(app, "GET", "/v1/docs", html=True)
    text = page.body.decode()
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"<(script|link|img|iframe)|(src|href)=.https?://", text)
    targets = set(re.findall(r'href="#([^"]+)"', text))
    assert targets <= set(re.findall(r'id="([^"]+)"', text))
    for route in ROUTES:
        assert f"{route.method} /v1{openapi.path_of(route)}" in text
