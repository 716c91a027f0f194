"""The upstream client's tests run on both event loops: uvloop serves, asyncio is everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop
from upstream_kit import upstreams

from lava_proxy.net.simulated import Script, SimulatedProvider
from lava_proxy.net.upstream import Upstreams

WITHOUT_SOCKETS = ("test_upstream_bytes.py", "test_upstream_turns.py")


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    name = item.path.name
    if name.startswith("test_upstream") and name not in WITHOUT_SOCKETS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def client() -> AsyncIterator[Upstreams]:
    """A client that may call loopback, and has time."""
    async with upstreams() as ours:
        yield ours


@pytest.fixture
async def sim() -> AsyncIterator[SimulatedProvider]:
    """A provider that says ``hi`` at ``/x``."""
    async with SimulatedProvider({"/x": Script.plain(b"hi")}) as provider:
        yield provider
