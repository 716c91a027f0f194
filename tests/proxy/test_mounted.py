"""Inside a host app: mounted in Starlette and FastAPI, and as middleware around one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastapi
import pytest
import pytest_asyncio
from gateway_kit import Gate
from hosting import database_copy, gate_settings, serving
from plain_client import text_of
from raw_asgi import Raw
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from lava_proxy.app import LavaProxy
from lava_proxy.middleware import LavaMiddleware
from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.embedded import EmbeddedServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = [{"role": "user", "content": "hello there"}]
ASKED = {"model": "sim-9-0", "messages": HELLO, "stream": True}


async def _page(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("the host's own")


async def _pass_through(request: Request, call_next: Any) -> Any:
    return await call_next(request)


def _starlette(proxy: LavaProxy, *middleware: Middleware) -> Any:
    routes = [Route("/page", _page), Route("/v2/page", _page), Mount("/ai", proxy)]
    return Starlette(routes=routes, lifespan=proxy.lifespan, middleware=list(middleware))


def _fastapi(proxy: LavaProxy) -> Any:
    app = fastapi.FastAPI(lifespan=proxy.lifespan)
    app.add_api_route("/page", lambda: fastapi.responses.PlainTextResponse("the host's own"))
    app.mount("/ai", proxy)
    return app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(
    postgres: EmbeddedServer, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[SimulatedProvider, str, Path]]:
    async with database_copy(postgres, template) as url, SimulatedProvider() as sim:
        yield sim, url, tmp_path_factory.mktemp("mounted")


Place = tuple[SimulatedProvider, str, Path]


@asynccontextmanager
async def _hosted(place: Place, make: Callable[[LavaProxy], Any]) -> AsyncIterator[Gate]:
    sim, url, folder = place
    proxy = LavaProxy(gate_settings(url, folder, sim))
    async with serving(make(proxy)) as port:
        opened = proxy._open
        assert opened is not None
        yield Gate(proxy, sim, opened._database, port)
    assert proxy._open is None


@pytest.mark.parametrize("make", [_starlette, _fastapi])
async def test_mounted(place: Place, make: Callable[[LavaProxy], Any]) -> None:
    async with _hosted(place, make) as gate:
        payer = await gate.payer()
        target = "https://api.openai.com/v1/chat/completions"
        for path in ("/ai/openai/v1/chat/completions", f"/ai/v1/forward?u={target}"):
            answer = await gate.call(path, ASKED, payer)
            assert answer.whole
            assert len(text_of(answer.body).split()) == 9
        assert [row["outcome"] for row in await gate.rows(payer)] == ["completed"] * 2
        assert (await gate.call("/ai/readyz", method="GET")).status == 200
        page = await gate.call("/page", method="GET")
        assert (page.status, page.body) == (200, b"the host's own")
        assert (await gate.call("/openai/v1/chat/completions", ASKED, payer)).status == 404
        await gate.check()


async def test_pieces_come_one_by_one_through_a_mount(place: Place) -> None:
    async with _hosted(place, _starlette) as gate:
        payer = await gate.payer()
        asked = ASKED | {"model": "sim-30-20"}
        call = await gate.open_call("/ai/openai/v1/chat/completions", asked, payer)
        await call.head()
        assert await call.piece()
        request = gate.sim.requests[-1]
        assert request.finished_at is None  # the provider is not half done
        call.close()
        await gate.sim.until(lambda: request.closed_early_at)
        assert (await gate.row(payer))["outcome"] == "client_gone"


@pytest.mark.parametrize("make", [_starlette, _fastapi])
async def test_a_cut_in_a_mount_ends_unfinished(
    place: Place, make: Callable[[LavaProxy], Any]
) -> None:
    async with _hosted(place, make) as gate:
        payer = await gate.payer("0.0010")
        asked = ASKED | {"model": "sim-900-0"}
        answer = await gate.call("/ai/openai/v1/chat/completions", asked, payer)
        assert b"budget_exhausted" in answer.body
        assert not answer.whole


async def test_as_middleware(place: Place) -> None:
    sim, url, folder = place
    host = Starlette(routes=[Route("/page", _page), Route("/v2/page", _page)])
    middleware = LavaMiddleware(host, gate_settings(url, folder, sim))
    proxy = middleware.proxy
    async with serving(middleware) as port:
        opened = proxy._open
        assert opened is not None
        gate = Gate(proxy, sim, opened._database, port)
        payer = await gate.payer("0.0300")
        answer = await gate.call("/openai/v1/chat/completions", ASKED, payer)
        assert answer.whole
        for path in ("/page", "/v2/page"):
            page = await gate.call(path, method="GET")
            assert (page.status, page.body) == (200, b"the host's own")
        assert (await gate.call("/nothing", method="GET")).body == b"Not Found"
        cut = await gate.call("/openai/v1/chat/completions", ASKED | {"model": "sim-9000-0"}, payer)
        assert b"budget_exhausted" in cut.body
        assert not cut.whole
        await gate.check()
    assert proxy._open is None


@pytest.mark.parametrize("kind", ["mounted", "middleware"])
async def test_an_unknown_setting_is_warned_of_once(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    sim, url, folder = place
    monkeypatch.setenv("LAVA_PROT", "9000")
    settings = gate_settings(url, folder, sim)
    app: Any = LavaMiddleware(Starlette(), settings)
    with caplog.at_level(logging.WARNING, "lava_proxy"):
        async with serving(_starlette(LavaProxy(settings)) if kind == "mounted" else app):
            pass
    told = [r.getMessage() for r in caplog.records if "LAVA_PROT" in r.getMessage()]
    assert told == ["LAVA_PROT is not a setting, did you mean LAVA_PORT?"]


async def test_a_forgotten_lifespan_says_what_to_do(place: Place) -> None:
    sim, url, folder = place
    proxy = LavaProxy(gate_settings(url, folder, sim))
    for app, path in (
        (Starlette(routes=[Mount("/ai", proxy)]), "/ai/openai/v1/models"),
        (LavaMiddleware(Starlette(), gate_settings(url, folder, sim)), "/openai/v1/models"),
    ):
        raw = Raw(app, path, b"{}", {})
        with pytest.raises(RuntimeError, match="lifespan"):
            await raw.run()


async def test_a_start_that_fails_fails_the_host(place: Place) -> None:
    sim, _, folder = place
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    proxy = LavaProxy(gate_settings(nowhere, folder, sim))
    said: list[str] = []

    async def send(message: Any) -> None:
        said.append(message["type"])

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    app = _starlette(proxy)
    with pytest.raises(Exception, match=r".+"):
        await app({"type": "lifespan", "app": app, "state": {}}, receive, send)
    assert said == ["lifespan.startup.failed"]


async def test_wrapped_in_base_http_middleware_it_warns_once(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    wrapped = Middleware(BaseHTTPMiddleware, dispatch=_pass_through)
    with caplog.at_level(logging.WARNING, "lava_proxy.app"):
        async with _hosted(place, lambda proxy: _starlette(proxy, wrapped)) as gate:
            payer = await gate.payer()
            for _ in range(2):
                answer = await gate.call("/ai/openai/v1/chat/completions", ASKED, payer)
                assert len(text_of(answer.body).split()) == 9
            assert len(await gate.rows(payer)) == 2
    warnings = [r for r in caplog.records if "BaseHTTPMiddleware" in r.getMessage()]
    assert len(warnings) == 1


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_a_websocket_is_refused_in_words_the_server_knows(
    place: Place, extensions: dict[str, Any]
) -> None:
    async with _hosted(place, _starlette) as gate:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        inbox: asyncio.Queue[Any] = asyncio.Queue()
        inbox.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "path": "/openai/v1/realtime",
            "raw_path": b"/openai/v1/realtime",
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "extensions": extensions,
        }
        await gate.app(scope, inbox.get, send)
        if extensions:
            assert said[0]["status"] == 426
            assert json.loads(said[1]["body"])["error"]["code"] == "upgrade_not_supported"
        else:
            assert [message["type"] for message in said] == ["websocket.close"]
