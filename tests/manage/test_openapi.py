"""The description and the reference page say what the routes do, and come without a key."""

from __future__ import annotations

import re
from typing import Any

import pytest
from api_kit import Api, call_app
from jsonschema_rs import validator_for

from lava_adapters.provider import METHODS
from lava_proxy.core.errors import CODES
from lava_proxy.manage import openapi
from lava_proxy.manage.app import ROUTES, Management
from lava_proxy.manage.parameters import PARAMETERS
from lava_proxy.proxy.forward import passes_on
from lava_proxy.wire.token import CREDENTIAL_HEADERS


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


FORMS = [
    ("POST", "/v1/forward?u=https%3A%2F%2Fapi.openai.com%2Fv1%2Fresponses", "/forward"),
    ("GET", "/v1/forward?u=https://api.openai.com/v1/files?limit=1&after=x", "/forward"),
    ("DELETE", "/forward?u=https://api.openai.com/v1/responses/resp_1", "/forward"),
    ("POST", "/v1/forward/https://api.openai.com/v1/responses?x=1", "/forward/{url}"),
    ("DELETE", "/forward/https://api.openai.com/v1/responses/resp_1", "/forward/{url}"),
    ("POST", "/v1/forward/openai?u=https://api.openai.com/v1/responses", "/forward/{url}"),
    ("POST", "/v1/forward/openai/chat/completions", "/forward/{provider}/{path}"),
    ("GET", "/forward/openai/responses/resp_1", "/forward/{provider}/{path}"),
    ("POST", "/openai/v1/chat/completions", "/{provider}/{path}"),
    ("GET", "/openai/v1/files", "/{provider}/{path}"),
    ("DELETE", "/openai/v1/responses/resp_1", "/{provider}/{path}"),
    ("POST", "/v1/rewrite/anthropic/api.openai.com/v1/x/v1/messages", "/rewrite/{format}/{url}"),
    ("POST", "/v1/rewrite/google/https://api.openai.com/v1/x", "/rewrite/{format}/{url}"),
    ("POST", "/v1/chat/completions", "/chat/completions"),
    ("POST", "/v1/messages", "/messages"),
    ("POST", "/v1/messages/count_tokens", "/messages/count_tokens"),
]
"""A URL of each form that the gateway takes, and where it is described."""


def _servers(document: Any, operation: Any) -> list[str]:
    return [server["url"].rstrip("/") for server in operation.get("servers", document["servers"])]


@pytest.mark.parametrize(("method", "url", "path"), FORMS)
def test_every_url_form_is_described(method: str, url: str, path: str) -> None:
    document = openapi.describe(ROUTES)
    operation = document["paths"][path][method.lower()]
    real, _, query = url.partition("?")
    assert passes_on(real) or real.startswith("/openai/")
    shape = re.sub(r"\\{(?:url|path)\\}", ".+", re.escape(path))
    shape = re.sub(r"\\{\w+\\}", "[a-z]+", shape)
    fits = [s for s in _servers(document, operation) if re.fullmatch(re.escape(s) + shape, real)]
    assert len(fits) == 1
    told = {p["name"]: p for p in operation["parameters"]}
    assert set(re.findall(r"{(\w+)}", path)) <= set(told)
    assert not query.startswith("u=") or told["u"]["in"] == "query"


def test_what_is_described_is_a_form() -> None:
    described = openapi.describe(ROUTES)["paths"].items()
    ours = {
        (method.upper(), path)
        for path, operations in described
        for method, operation in operations.items()
        if operation["tags"] == ["gateway"]
    }
    assert ours == {(method, path) for method, _, path in FORMS} | {
        (method, path)
        for path in ("/forward", "/forward/{url}", "/forward/{provider}/{path}")
        for method in METHODS
    }


def test_a_gateway_call_takes_a_key_in_every_place() -> None:
    document = openapi.describe(ROUTES)
    schemes = document["components"]["securitySchemes"]
    [names] = {
        tuple(name for one in operation["security"] for name in one)
        for operations in document["paths"].values()
        for operation in operations.values()
        if operation["tags"] == ["gateway"]
    }
    places = {schemes[name].get("name", "authorization") for name in names}
    assert places == {name.decode() for name in CREDENTIAL_HEADERS} | {"key"}


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
    for shown in ("POST /v1/forward/{url}", "DELETE /{provider}/{path}", "POST /v1/messages"):
        assert f"<h2><code>{shown}</code></h2>" in text
