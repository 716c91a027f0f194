"""The application's edges: routing, methods, bodies, faults, and that every answer is our JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
import uvicorn
from api_kit import Api, call_app
from test_manage_access import KEYED, QUERIES, Objects

from lava_proxy.manage import app as module
from lava_proxy.manage import customers
from lava_proxy.manage.app import ROUTES
from lava_proxy.manage.call import Route
from lava_proxy.store.database import StoreBroken, StoreConflict, StoreDown, StorePoison


async def test_unknown_routes_are_404_whoever_asks(api: Api) -> None:
    for path in (
        "/",
        "/v1",
        "/v1/",
        "/v2/customers",
        "/customers",
        "/v1/nothing",
        "/v1//customers",
        "/v1/customers//credit",
        "/v1/customers/a/b/c",
        "/v1/customers/%00",
        "/v1/customers/%FF",
        "/v1/CUSTOMERS",
        "/v1/customers%2Fx",
    ):
        reply = await call_app(api.app, "GET", path)
        assert (reply.status, reply.code) == (404, "not_found"), path


async def test_a_slash_at_the_end_does_no_harm(api: Api) -> None:
    headers = [("authorization", f"Bearer {api.secret}")]
    assert (await call_app(api.app, "GET", "/v1/customers/", headers=headers)).status == 200


async def test_wrong_methods_are_405_with_the_right_ones(api: Api) -> None:
    methods: dict[str, set[str]] = {}
    for route in ROUTES:
        methods.setdefault(route.path.replace("*", "x"), set()).add(route.method)
    for path, allowed in methods.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"} - allowed:
            reply = await call_app(api.app, method, f"/v1/{path}")
            assert (reply.status, reply.code) == (405, "method_not_allowed")
            assert set(reply.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("route", KEYED, ids=lambda route: f"{route.method} {route.path}")
async def test_what_no_route_reads_is_refused_by_its_name(api: Api, route: Route) -> None:
    """A limit that is silently ignored costs money, wherever it was written."""
    mine = await Objects.made(api)
    query = QUERIES.get((route.method, route.path), {})
    asked = query | {"nothing": "1"}
    reply = await api.call(route.method, mine.path(route), mine.body(route), **asked)
    assert (reply.status, reply.paths) == (422, ["nothing"])
    if route.method == "GET":
        return
    body = (mine.body(route) or {}) | {"nothing": 1}
    reply = await api.call(route.method, mine.path(route), body, **query)
    assert (reply.status, reply.paths) == (422, ["nothing"])


async def test_a_base_url_without_its_version_is_told_apart(api: Api) -> None:
    """What a client makes of a base URL whose last slash is missing."""
    for path in ("/meters", "/v1forward", "/"):
        message = (await call_app(api.app, "GET", path)).json["error"]["message"]
        assert "/v1/" in message, path
    message = (await call_app(api.app, "GET", "/v1/nothing")).json["error"]["message"]
    assert "/v1/" not in message


async def test_under_a_mount(api: Api) -> None:
    """The path still carries the prefix; ids with slashes stay whole."""
    headers = [("authorization", f"Bearer {api.secret}")]
    await api.customer(reference_id="a/b")
    for path, root, status in (
        ("/ai/gate/v1/customers/a%2Fb", "/ai/gate", 200),
        ("/v1/customers/a%2Fb", "", 200),
        ("/v1/customers/a/b", "", 404),
        ("/ai/v1/customers", "/other", 404),
        ("/ai/v1/customers", "", 404),
    ):
        reply = await call_app(api.app, "GET", path, headers=headers, root_path=root)
        assert reply.status == status, path


async def test_without_a_raw_path(api: Api) -> None:
    headers = [("authorization", f"Bearer {api.secret}")]
    await api.customer(reference_id="50%25")
    for raw_path in (b"", b"/something/else"):
        reply = await call_app(
            api.app, "GET", "/v1/customers/50%2525", headers=headers, raw_path=raw_path
        )
        assert reply.status == 200


async def test_bodies(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ("authorization", f"Bearer {api.secret}")

    async def post(*pieces: bytes, headers: list[tuple[str, str]] | None = None) -> tuple[int, str]:
        reply = await call_app(
            api.app, "POST", "/v1/customers", headers=[key, *(headers or [])], pieces=list(pieces)
        )
        return reply.status, "" if reply.status == 200 else reply.code

    assert await post(b'{"na', b'me":', b'"x"}') == (200, "")
    assert await post(b"{}", headers=[("content-type", "image/png")]) == (200, "")
    assert await post(b"{}", headers=[("content-encoding", "identity")]) == (200, "")
    assert await post(b"{}", headers=[("content-encoding", "gzip")]) == (
        415,
        "unsupported_media_type",
    )
    deep = b'{"metadata":' + b'{"a":' * 70 + b"1" + b"}" * 71
    assert await post(deep) == (400, "invalid_request")
    monkeypatch.setattr(module, "BODY_MAX_BYTES", 100)
    assert await post(b" " * 60, b"{" + b" " * 60) == (413, "body_too_large")
    assert await post(b"{}", headers=[("content-length", "101")]) == (413, "body_too_large")


async def test_a_client_that_leaves_gets_no_answer(api: Api) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    headers = [(b"authorization", f"Bearer {api.secret}".encode()), (b"host", b"gateway.test")]
    scope = {"type": "http", "method": "POST", "path": "/v1/customers", "headers": headers}
    await api.app(scope, receive, send)
    assert (await api.get("customers")).json["data"] == []


async def test_a_body_that_never_comes_is_408(api: Api) -> None:
    headers = [(b"authorization", f"Bearer {api.secret}".encode()), (b"host", b"gateway.test")]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    api.books.settings = api.books.settings.model_copy(update={"body_timeout_s": 0.05})
    scope = {"type": "http", "method": "POST", "path": "/v1/customers", "headers": headers}
    await api.app(scope, receive, send)
    assert sent[0]["status"] == 408


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreDown("x"), 503, "unavailable"),
        (StoreConflict("x"), 503, "unavailable"),
        (StorePoison("x"), 422, "validation_error"),
        (StoreBroken("the secret reason"), 500, "internal_error"),
        (ZeroDivisionError("the secret reason"), 500, "internal_error"),
    ],
)
async def test_faults(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    async def page(*_: object) -> None:
        raise error

    monkeypatch.setattr(customers.store, "page", page)
    reply = await api.get("customers")
    assert (reply.status, reply.code) == (status, code)
    assert b"secret" not in reply.body
    assert ("retry-after" in reply.headers) == (status == 503)


async def test_a_burst_leaves_connections_for_the_books(api: Api) -> None:
    """Forty calls at once never have more than half of the pool."""
    database, most, now = api.books.database, 0, 0
    connection = database.connection

    class Counted:
        def __init__(self, *given: Any) -> None:
            self.inner = connection(*given)

        async def __aenter__(self) -> Any:
            nonlocal now, most
            now += 1
            most = max(most, now)
            return await self.inner.__aenter__()

        async def __aexit__(self, *given: Any) -> Any:
            nonlocal now
            now -= 1
            return await self.inner.__aexit__(*given)

    await api.get("customers")  # the key is known from here on
    database.connection = Counted  # type: ignore[method-assign, assignment]
    replies = await asyncio.gather(*(api.get("customers") for _ in range(40)))
    assert {r.status for r in replies} == {200}
    assert 1 <= most <= api.books.settings.database_pool_size // 2


async def test_on_a_real_server(api: Api) -> None:
    """As the SDK calls: a JSON content type on everything, also without a body."""
    config = uvicorn.Config(api.app, port=0, log_level="warning", lifespan="off")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    headers = {"authorization": f"Bearer {api.secret}", "content-type": "application/json"}
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}/v1/", headers=headers, trust_env=False
        ) as client:
            made = await client.post("customers", content=json.dumps({"reference_id": "a/ b"}))
            assert made.status_code == 200
            found = await client.get("customers/a%2F%20b")
            assert found.json() == made.json()
            assert (await client.get("customers")).json()["data"] == [made.json()]
            wrong = await client.delete("customers")
            assert (wrong.status_code, wrong.reason_phrase) == (405, "Method Not Allowed")
            assert wrong.headers["allow"] == "GET, POST"
            assert wrong.json()["error"]["code"] == "method_not_allowed"
    finally:
        server.should_exit = True
        await serving


def test_routes_are_there_once() -> None:
    names = [(route.method, route.path) for route in ROUTES]
    assert len(set(names)) == len(names)
