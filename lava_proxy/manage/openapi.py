"""The OpenAPI description of the REST API, made of what the routes declare, and nothing else.

Bodies are the pydantic models that check them, answers the TypedDicts that the views are, errors
the table of codes; so the description cannot say what the code does not do. It is made once, at
start, and served from memory with an ETag.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NotRequired

import orjson
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from typing_extensions import TypedDict

from lava_proxy import __version__
from lava_proxy.core.errors import CODES
from lava_proxy.manage.call import Answer, Call, Handler, Route
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.gateway_routes import GATEWAY_PATHS, SCHEMES
from lava_proxy.manage.parameters import PARAMETERS

REF = "#/components/schemas/{model}"
Refs = Mapping[tuple[object, JsonSchemaMode], Any]

ANY_ROUTE = ("invalid_request", "method_not_allowed", "rate_limit_exceeded", "internal_error")
ANY_ROUTE_OF_THE_BOOKS = ("unavailable",)
WITH_KEY = ("invalid_token", "forbidden")
WITH_BODY = (
    "body_too_large",
    "request_timeout",
    "unsupported_media_type",
    "expectation_failed",
    "validation_error",
)
IDENTIFIED = {
    "customers": "customer_id",
    "meters": "meter_id",
    "requests": "request_id",
    "prices": "price_id",
    "plans": "plan_id",
    "credit_bundles": "credit_bundle_id",
    "subscriptions": "subscription_id",
    "webhooks": "webhook_id",
    "secret_keys": "secret_key_id",
    "spend_keys": "spend_key_id",
    "forward_tokens": "forward_token_id",
    "payments": "payment_id",
    "payment_events": "provider",
    "payment_methods": "payment_method_id",
    "providers": "provider",
}
"""What the variable segment behind these is called."""


class ErrorFacts(TypedDict):
    """What went wrong, and what to do."""

    message: str
    code: str
    status: int
    details: NotRequired[Any]
    request_id: NotRequired[str]


class Envelope(TypedDict):
    """Every error of the REST API."""

    error: ErrorFacts


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    schemas, refs = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        place = paths.setdefault(path_of(route), {})
        place[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lava_proxy",
            "version": __version__,
            "description": "Metering and billing for AI APIs: the REST API and the gateway.",
        },
        "servers": [{"url": "/v1"}],
        "paths": {**dict(sorted(paths.items())), **GATEWAY_PATHS},
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"secret_key": {"type": "http", "scheme": "bearer"}, **SCHEMES},
        },
    }


def path_of(route: Route) -> str:
    """``customers/*/credit`` -> ``/customers/{customer_id}/credit``."""
    segments = route.path.split("/")
    named = [
        f"{{{IDENTIFIED.get(before, 'id')}}}" if segment == "*" else segment
        for before, segment in zip(["", *segments], segments, strict=False)
    ]
    return "/" + "/".join(named)


def codes_of(route: Route) -> list[str]:
    """Every error code that a route may answer."""
    codes = [*ANY_ROUTE, *ANY_ROUTE_OF_THE_BOOKS, *route.errors]
    codes += WITH_KEY if route.auth == "secret_key" else ()
    codes += WITH_BODY if route.method != "GET" else ()
    codes += ("not_found",) if "*" in route.path else ()
    codes += ("validation_error",) if route.query or route.auth == "secret_key" else ()
    codes += ("idempotency_conflict",) if route.method == "POST" else ()
    return sorted(set(codes), key=lambda code: (CODES[code].status, code))


def served(document: Mapping[str, Any]) -> Handler:
    """The handler of ``GET /v1/openapi.json``."""
    body = orjson.dumps(document)
    tag = f'"{sha256(body).hexdigest()[:32]}"'

    async def openapi(desk: Desk, call: Call) -> Answer:
        """This description."""
        headers = {"etag": tag, "cache-control": "no-cache"}
        if any(n == b"if-none-match" and v.decode("latin-1") == tag for n, v in call.headers):
            return Answer(304, b"", headers)
        return Answer(200, body, headers)

    return openapi


def _schemas(routes: Sequence[Route]) -> tuple[dict[str, Any], Refs]:
    """All schemas by name, and what stands for each model that a route names."""
    wanted: dict[tuple[object, JsonSchemaMode], TypeAdapter[Any]] = {}
    for model, mode in [
        (Envelope, "serialization"),
        *((route.answer, "serialization") for route in routes),
        *((route.body, "validation") for route in routes),
    ]:
        if model is not None:
            wanted[model, mode] = TypeAdapter(model)  # type: ignore[index, arg-type]
    places = {str(number): key for number, key in enumerate(wanted)}
    found, definitions = TypeAdapter.json_schemas(
        [(number, key[1], wanted[key]) for number, key in places.items()], ref_template=REF
    )
    text = json.dumps(
        [definitions["$defs"], {number: schema for (number, _), schema in found.items()}],
        default=float,  # `multipleOf`
    )
    names: dict[str, str] = {}
    for name in definitions["$defs"]:
        names[name] = _short(name, names)
        text = text.replace(f'"{REF.format(model=name)}"', f'"{REF.format(model=names[name])}"')
    schemas, refs = json.loads(text)
    return (
        {names[name]: schema for name, schema in schemas.items()},
        {key: refs[number] for number, key in places.items()},
    )


def _short(name: str, taken: Mapping[str, str]) -> str:
    """Names as people write them: ``PageView_CustomerView_`` -> ``CustomerPage``."""
    page = re.fullmatch(r"PageView_(\w+?)_", name)
    short = f"{page[1].removesuffix('View')}Page" if page else name.removesuffix("View")
    return name if short in taken.values() else short


def _operation(route: Route, refs: Refs) -> dict[str, Any]:
    told = inspect.getdoc(route.handler) or ""
    words = re.sub(r"[^a-z]+", "_", path_of(route)).strip("_")
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{words}",
        "summary": told.partition("\n\n")[0].replace("\n", " "),
        "tags": [route.path.split("/")[0]],
        "parameters": _parameters(route),
        "responses": _responses(route, refs),
    }
    if route.auth == "secret_key":
        operation["security"] = [{"secret_key": []}]
    if route.body is not None:
        schema = refs[route.body, "validation"]
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(name)}
        for name in re.findall(r"\{(\w+)\}", path_of(route))
    ]
    for name in sorted(route.query):
        parameter = PARAMETERS[name]
        found.append(
            {
                "name": name,
                "in": "query",
                "required": parameter.required,
                "description": parameter.meaning,
                "schema": dict(parameter.schema),
            }
        )
    if route.method == "POST":
        found.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The same key with the same body works once, for 30 days.",
                "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
            }
        )
    return found


def _path_schema(name: str) -> dict[str, object]:
    """As the query's parameter of the same name, where there is one."""
    known = PARAMETERS.get(name)
    return {"type": "string"} if known is None else dict(known.schema)


def _responses(route: Route, refs: Refs) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    answer = refs.get((route.answer, "serialization"), {})
    responses[str(route.status)] = {
        "description": "Done.",
        "content": {"application/json": {"schema": answer}},
    }
    by_status: dict[int, list[str]] = {}
    for code in codes_of(route):
        by_status.setdefault(CODES[code].status, []).append(code)
    for status, codes in by_status.items():
        responses[str(status)] = {
            "description": " ".join(f"`{code}`: {CODES[code].meaning}" for code in codes),
            "content": {"application/json": {"schema": refs[Envelope, "serialization"]}},
        }
    return responses
