"""The proxy most people would write first: Starlette, StreamingResponse, a default aiohttp session.

``python -m benchmarks.naive PORT UPSTREAM_URL``. It meters nothing and governs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te"}


def build(upstream_url: str) -> Starlette:
    """The application."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session:
            app.state.session = session
            yield

    async def forward(request: Request) -> StreamingResponse:
        session: aiohttp.ClientSession = request.app.state.session
        headers = {k: v for k, v in request.headers.items() if k not in HOP_BY_HOP}
        answer = await session.request(
            request.method,
            upstream_url + request.url.path,
            data=await request.body(),
            headers=headers,
        )
        passed = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
        return StreamingResponse(
            answer.content.iter_any(),
            status_code=answer.status,
            headers=passed,
            background=BackgroundTask(answer.release),
        )

    routes = [Route("/{path:path}", forward, methods=["GET", "POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


def main() -> None:
    """Serve with the same server and flags as ours."""
    port, upstream_url = int(sys.argv[1]), sys.argv[2]
    uvicorn.run(
        build(upstream_url),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        server_header=False,
        date_header=False,
        log_level="warning",
        backlog=4096,
    )


if __name__ == "__main__":
    main()
