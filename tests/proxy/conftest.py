"""One gateway per module, with its `SETTINGS`; after every test its books must be sound."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import certifi
import pytest
import pytest_asyncio
from gateway_kit import Gate
from hosting import database_copy, gate_running

from lava_proxy.store.embedded import EmbeddedServer


@pytest.fixture(scope="session", autouse=True)
def one_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing here speaks TLS, and every client of an SDK takes 40 ms to read all the certificates
    that are trusted."""
    first, end, _ = certifi.contents().partition("-----END CERTIFICATE-----\n")
    path = tmp_path_factory.mktemp("roots") / "one.pem"
    path.write_text(first + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_gate(
    request: pytest.FixtureRequest,
    postgres: EmbeddedServer,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Gate]:
    settings = getattr(request.module, "SETTINGS", {})
    async with database_copy(postgres, template) as url:
        async with gate_running(url, tmp_path_factory.mktemp("gate"), **settings) as gate:
            yield gate


@pytest_asyncio.fixture(loop_scope="module")
async def gate(shared_gate: Gate) -> AsyncIterator[Gate]:
    yield shared_gate
    shared_gate.sim.script.clear()
    await shared_gate.check()
    shared_gate.sim.requests.clear()
