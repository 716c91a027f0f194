"""The upstream client on real sockets: large bodies both ways, and what it refuses to call."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest
from upstream_kit import LOOPBACK, OK, connections, outcome, request_of, server, upstreams

from lava_proxy.core.errors import LavaError
from lava_proxy.net.http1 import address, pool
from lava_proxy.net.http1.answer import HIGH_WATER_BYTES
from lava_proxy.net.http1.connection import JOINED_MAX_BYTES, READ_MAX_BYTES
from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.net.upstream import Upstreams

# Large things, both ways.


async def test_an_unread_answer_is_held_back(client: Upstreams, sim: SimulatedProvider) -> None:
    total = 200 * 1024 * 1024
    written = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await request_of(reader)
        writer.write(OK + b"content-length: %d\r\n\r\n" % total)
        while written < total:
            writer.write(b"x" * 65536)
            written += 65536
            await writer.drain()

    async with server(endless) as url:
        answer = await client.send("GET", url, [], b"")
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.05)
        assert written < total
        assert answer._unread_bytes <= HIGH_WATER_BYTES + READ_MAX_BYTES
        got = 0
        while got < 20 * 1024 * 1024:
            got += len(await answer.read())
            assert answer._unread_bytes <= HIGH_WATER_BYTES + READ_MAX_BYTES
        answer.close()


@pytest.mark.parametrize("size", [0, 1, JOINED_MAX_BYTES, JOINED_MAX_BYTES + 1, 20_000_000])
async def test_bodies_of_all_sizes_arrive(
    client: Upstreams, sim: SimulatedProvider, size: int
) -> None:
    body = random.Random(size).randbytes(size)
    for _ in range(2):
        assert (await outcome(client, "POST", f"{sim.url}/x", body)).body == b"hi"
    assert all(request.body == body for request in sim.requests)
    assert {request.connection for request in sim.requests} == {1}


async def test_an_answer_before_all_is_sent(client: Upstreams) -> None:
    """It passes, sending stops, and the connection is not used again."""
    count = 0

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await reader.read()

    async with server(hasty) as url:
        for expected in (1, 2):
            seen = await outcome(client, "POST", url, b"x" * 40_000_000)
            assert (seen.status, seen.body, seen.end) == (413, b"no", "end")
            assert connections(client) == 0
            assert count == expected


# What is refused.


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/x y", []),
        ("GET", "/x\r\nx: y", []),
        ("GET", "/x\0", []),
        ("GET", "/\u00e9", []),
        ("GET", "/x#y", []),
        ("GET", "/x\x7f", []),
        ("GE T", "/x", []),
        ("GET\r\n", "/x", []),
        ("", "/x", []),
        ("G\u0116T", "/x", []),
        ("GET", "/x", [(b"a\r\nb", b"c")]),
        ("GET", "/x", [(b"a: b", b"c")]),
        ("GET", "/x", [(b"", b"c")]),
        ("GET", "/x", [(b"a", b"b\r\nc: d")]),
        ("GET", "/x", [(b"a", b"b\rc")]),
        ("GET", "/x", [(b"a", b"b\nc")]),
        ("GET", "/x", [(b"a", b"b\0c")]),
        ("GET", "/x", [(b"a", b"b\r\n\r\nGET /admin HTTP/1.1")]),
        ("POST", "/x", [(b"Content-Length", b"0")]),
        ("POST", "/x", [(b"transfer-encoding", b"chunked")]),
        ("POST", "/x", [(b"Host", b"elsewhere")]),
        ("POST", "/x", [(b"expect", b"100-continue")]),
        ("POST", "/x", [(b"upgrade", b"h2c")]),
    ],
)
async def test_nothing_is_smuggled_into_a_head(
    client: Upstreams,
    sim: SimulatedProvider,
    method: str,
    target: str,
    headers: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(LavaError) as error:
        await client.send(method, sim.url + target, headers, b"")
    assert error.value.code == "invalid_request"
    assert sim.connections_total == 0


@pytest.mark.parametrize(
    "origin",
    [
        "ftp://127.0.0.1",
        "127.0.0.1",
        "http://user@127.0.0.1",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:",
        "http://",
        "http://a?b",
        "http://a\\b",
    ],
)
async def test_odd_origins(client: Upstreams, origin: str) -> None:
    assert (await outcome(client, "GET", f"{origin}/x")).end == "invalid_request"


async def test_spellings_of_one_origin_share_a_pool(sim: SimulatedProvider) -> None:
    async with upstreams(named_hosts=frozenset({"LocalHost"})) as client:
        for host in ("localhost", "LOCALHOST", "LocalHost"):
            seen = await outcome(client, "GET", f"HTTP://{host}:{sim.port}/x")
            assert seen.body == b"hi"
    assert {request.connection for request in sim.requests} == {1}
    assert sim.requests[0].headers["host"] == f"localhost:{sim.port}"


async def test_private_addresses_are_for_named_hosts_only(sim: SimulatedProvider) -> None:
    for named in (frozenset[str](), frozenset({"127.0.0.2"}), frozenset({"127.0.0.1:1"})):
        async with upstreams(named_hosts=named) as client:
            for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1"):
                seen = await outcome(client, "GET", f"http://{host}:{sim.port}/x")
                assert seen.end == "upstream_unreachable"
    assert sim.connections_total == 0
    for named in (LOOPBACK, frozenset({f"127.0.0.1:{sim.port}"})):
        async with upstreams(named_hosts=named) as client:
            assert (await outcome(client, "GET", f"{sim.url}/x")).body == b"hi"


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.168.0.1", False),
        ("0.0.0.0", False),
        ("224.0.1.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:7f00:1::", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::808:808", True),
    ],
)
def test_public_addresses(text: str, public: bool) -> None:
    assert address.is_public(text) is public


class Names:
    """A resolver that has a private address and the one of the test."""

    async def getaddrinfo(self, host: str, port: int, **more: object) -> list[tuple[object, ...]]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (text, port)) for text in ("10.9.9.9", "127.0.0.9", "127.0.0.1")]


async def test_the_address_that_was_checked_is_the_one_connected_to(
    client: Upstreams, sim: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is asked once, for all who wait; what may not be called is dropped; one address after
    the other is tried (nobody listens on the first)."""
    asked = 0

    async def resolve(
        loop: asyncio.AbstractEventLoop, host: str, port: int, *, named: bool
    ) -> tuple[address.Address, ...]:
        nonlocal asked
        asked += 1
        assert (host, named) == ("name.test", False)
        await asyncio.sleep(0.01)
        names: asyncio.AbstractEventLoop = Names()  # type: ignore[assignment]
        return await real(names, host, port, named=named)

    real = address.resolve
    monkeypatch.setattr(pool, "resolve", resolve)
    monkeypatch.setattr(address, "is_public", lambda text: text.startswith("127."))
    url = f"http://name.test:{sim.port}/x"
    seen = await asyncio.gather(*[outcome(client, "GET", url) for _ in range(5)])
    assert [one.body for one in seen] == [b"hi"] * 5
    await outcome(client, "GET", url)
    assert asked == 1
    assert sim.requests[0].headers["host"] == f"name.test:{sim.port}"


async def test_a_name_without_an_address_that_may_be_called(
    client: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: object, **__: object) -> tuple[address.Address, ...]:
        raise OSError(None, address.NO_ADDRESS)

    monkeypatch.setattr(pool, "resolve", resolve)
    for _ in range(2):
        with pytest.raises(LavaError, match=address.NO_ADDRESS):
            await client.send("GET", "http://name.test/", [], b"")
