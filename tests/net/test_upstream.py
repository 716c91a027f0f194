"""The upstream client on real sockets: its pool, its patience, what it refuses, and letting go."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest
from upstream_kit import (
    LOOPBACK,
    OK,
    PATIENT,
    drain,
    outcome,
    request_of,
    server,
    upstreams,
)

from lava_proxy.core.errors import LavaError
from lava_proxy.net.http1 import address, pool
from lava_proxy.net.http1.answer import HIGH_WATER_BYTES
from lava_proxy.net.http1.connection import JOINED_MAX_BYTES, READ_MAX_BYTES
from lava_proxy.net.simulated import Ending, Piece, Script, SimRequest, SimulatedProvider
from lava_proxy.net.upstream import UpstreamEnded, Upstreams

SILENCE = Script((Piece(b"", 60.0),))
"""Not even a head."""
PLAIN = OK + b"content-length: 2\r\n\r\nhi"


@pytest.fixture
async def client() -> AsyncIterator[Upstreams]:
    async with upstreams() as ours:
        yield ours


@pytest.fixture
async def sim() -> AsyncIterator[SimulatedProvider]:
    async with SimulatedProvider() as provider:
        provider.script["/x"] = Script.plain(b"hi")
        yield provider


def connections(client: Upstreams) -> int:
    return sum(len(p.connections) for p in client._pools.values())


# The pool.


async def test_a_connection_is_used_again(client: Upstreams, sim: SimulatedProvider) -> None:
    for _ in range(5):
        assert (await outcome(client, "POST", f"{sim.url}/x", b"{}")).body == b"hi"
    assert {request.connection for request in sim.requests} == {1}


async def test_the_last_one_used_is_the_first_one_taken(
    client: Upstreams, sim: SimulatedProvider
) -> None:
    url = f"{sim.url}/x"
    await asyncio.gather(*[outcome(client, "GET", url) for _ in range(3)])
    last = sim.requests[-1].connection
    for _ in range(4):
        await outcome(client, "GET", url)
    assert {request.connection for request in sim.requests[3:]} == {last}


async def test_a_connection_serves_the_next_one_before_its_answer_is_read(
    client: Upstreams, sim: SimulatedProvider
) -> None:
    first = await client.send("GET", f"{sim.url}/x", [], b"")
    while connections(client) != 1 or not first._ended:
        await asyncio.sleep(0)
    sim.script["/x"] = Script.plain(b"other")
    assert (await outcome(client, "GET", f"{sim.url}/x")).body == b"other"
    assert await first.read() == b"hi"
    assert sim.connections_total == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_closed_by_the_provider_between_requests(client: Upstreams, method: str) -> None:
    """The end comes in one segment with the answer, so the kernel knows before the loop does:
    nothing was written, and a fresh connection is right."""
    loop = asyncio.get_running_loop()
    served = 0

    async def serve(listening: socket.socket) -> None:
        nonlocal served
        while True:
            sock, _ = await loop.sock_accept(listening)
            sock.setblocking(False)
            with sock:
                await loop.sock_recv(sock, 65536)
                served += 1
                sock.send(PLAIN, socket.MSG_MORE)
                sock.shutdown(socket.SHUT_WR)
                await loop.sock_recv(sock, 65536)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        serving = asyncio.create_task(serve(listening))
        for _ in range(20):
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            seen = await outcome(client, method, url)
            assert (seen.status, seen.end) == (200, "end")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert served == 20


async def test_a_request_is_written_once(client: Upstreams) -> None:
    """The provider reads it and hangs up: it may have acted on it."""
    heads: list[bytes] = []

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await request_of(reader))[0])
        writer.write(PLAIN)
        heads.append((await request_of(reader))[0])

    async with server(rude) as url:
        assert (await outcome(client, "GET", url)).end == "end"
        assert (await outcome(client, "GET", url)).end == "upstream_unreachable"
    assert len(heads) == 2


async def test_old_connections_are_closed(
    client: Upstreams, sim: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outcome(client, "GET", f"{sim.url}/x")
    monkeypatch.setattr(pool, "IDLE_MAX_S", 0.1)
    await sim.until(lambda: not sim.connections_open)
    while client._pools:
        await asyncio.sleep(0.01)  # nothing is left behind, the timer included
    assert client._sweeper is None
    assert (await outcome(client, "GET", f"{sim.url}/x")).body == b"hi"


async def test_an_old_connection_is_not_taken_either(
    client: Upstreams, sim: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outcome(client, "GET", f"{sim.url}/x")
    monkeypatch.setattr(pool, "IDLE_MAX_S", -1.0)
    await outcome(client, "GET", f"{sim.url}/x")
    assert [request.connection for request in sim.requests] == [1, 2]


async def test_the_limit_makes_others_wait_in_their_order(sim: SimulatedProvider) -> None:
    sim.script["/x"] = lambda r: Script.plain(r.body, delay_s=0.01)
    async with upstreams(limit=2) as client:
        seen = await asyncio.gather(
            *[outcome(client, "POST", f"{sim.url}/x", b"%d" % n) for n in range(20)]
        )
    assert [one.body for one in seen] == [b"%d" % n for n in range(20)]
    assert [request.body for request in sim.requests] == [b"%d" % n for n in range(20)]
    assert sim.connections_total == 2


async def test_waiting_for_a_connection_ends(sim: SimulatedProvider) -> None:
    sim.script["/x"] = Script((Piece(b"a"),), ends=Ending.STALL)
    async with upstreams(replace(PATIENT, pool_s=0.1), limit=1) as client:
        held = await client.send("GET", f"{sim.url}/x", [], b"")
        with pytest.raises(LavaError) as error:
            await client.send("GET", f"{sim.url}/x", [], b"")
        assert (error.value.code, error.value.headers) == ("unavailable", {"retry-after": "1"})
        held.close()
        sim.script["/x"] = Script.plain(b"hi")
        assert (await outcome(client, "GET", f"{sim.url}/x")).body == b"hi"
    assert len(sim.requests) == 2


async def test_places_survive_those_who_give_up(sim: SimulatedProvider) -> None:
    """Waiting, connecting, asking, reading: whoever is cancelled, the place is free again."""
    sim.script["/x"] = lambda r: Script((Piece(b"a", 0.005), Piece(b"b", 0.005)))
    chance = random.Random(1)
    async with upstreams(limit=3) as client:
        for _ in range(10):
            tasks = [asyncio.create_task(outcome(client, "GET", f"{sim.url}/x")) for _ in range(12)]
            for task in tasks:
                await asyncio.sleep(0.001 * chance.random())
                if chance.random() < 0.6:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        seen = await asyncio.gather(*[outcome(client, "GET", f"{sim.url}/x") for _ in range(6)])
        assert [one.body for one in seen] == [b"ab"] * 6
        (only,) = client._pools.values()
        assert only._places_taken == len(only.connections) <= 3


@pytest.mark.parametrize("whole", [True, False])
async def test_cancelled_in_the_turn_in_which_a_place_comes_free(
    sim: SimulatedProvider, whole: bool
) -> None:
    """What was given, a connection or a place, goes to the next one."""
    sim.script["/x"] = Script((Piece(b"a"), Piece(b"b", 0.02)))
    async with upstreams(limit=1) as client:
        held = await client.send("GET", f"{sim.url}/x", [], b"")
        first = asyncio.create_task(outcome(client, "GET", f"{sim.url}/x"))
        second = asyncio.create_task(outcome(client, "GET", f"{sim.url}/x"))
        if whole:
            assert await drain(held) == (b"ab", "end")
        else:
            await asyncio.sleep(0)
            held.close()
        first.cancel()
        assert (await second).body == b"ab"
        with pytest.raises(asyncio.CancelledError):
            await first
        (only,) = client._pools.values()
        assert only._places_taken == len(only.connections) == 1
    assert len(sim.requests) == 2
    assert sim.connections_total == (1 if whole else 2)


async def test_one_provider_that_hangs_holds_up_no_other(sim: SimulatedProvider) -> None:
    sim.script["/x"] = SILENCE
    async with (
        SimulatedProvider({"/x": Script.plain(b"hi")}) as other,
        upstreams(limit=1) as client,
    ):
        hanging = asyncio.create_task(outcome(client, "GET", f"{sim.url}/x"))
        await sim.until(lambda: sim.requests)
        assert (await outcome(client, "GET", f"{other.url}/x")).body == b"hi"
        hanging.cancel()


@pytest.mark.parametrize("later", [b"H", PLAIN])
async def test_a_connection_that_says_more_is_not_used_again(
    client: Upstreams, later: bytes
) -> None:
    """What it says could only be taken for the answer to somebody else's request."""
    said = asyncio.Event()
    count = 0

    async def talker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await request_of(reader)
        writer.write(PLAIN)
        await said.wait()
        writer.write(later)
        await reader.read()

    async with server(talker) as url:
        assert (await outcome(client, "GET", url)).body == b"hi"
        said.set()
        while connections(client):
            await asyncio.sleep(0.001)
        assert (await outcome(client, "GET", url)).body == b"hi"
        assert count == 2


async def test_close_leaves_nothing_open(sim: SimulatedProvider) -> None:
    sim.script["/slow"] = SILENCE
    async with upstreams() as client:
        answer = await client.send("GET", f"{sim.url}/x", [], b"")
        waiting = asyncio.create_task(outcome(client, "GET", f"{sim.url}/slow"))
        await sim.until(lambda: len(sim.requests) == 2)
        await client.close()
        waiting.cancel()
        await sim.until(lambda: not sim.connections_open)
        assert await drain(answer) in {(b"hi", "end"), (b"", "truncated")}


# Time.


async def test_a_provider_that_never_answers(sim: SimulatedProvider) -> None:
    sim.script["/x"] = SILENCE
    async with upstreams(replace(PATIENT, first_byte_s=0.1)) as client:
        assert (await outcome(client, "POST", f"{sim.url}/x", b"{}")).end == "upstream_timeout"
        await sim.until(lambda: not sim.connections_open)


async def test_a_head_that_trickles_is_late(sim: SimulatedProvider) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0.02)

    async with server(trickle) as url, upstreams(replace(PATIENT, first_byte_s=0.1)) as client:
        assert (await outcome(client, "GET", url)).end == "upstream_timeout"


async def test_a_body_that_stalls(sim: SimulatedProvider) -> None:
    sim.script["/x"] = Script((Piece(b"a"), Piece(b"b", 0.2)), ends=Ending.STALL)
    async with upstreams(replace(PATIENT, idle_s=0.4)) as client:
        answer = await client.send("GET", f"{sim.url}/x", [], b"")
        assert await drain(answer) == (b"ab", "idle")
        await sim.until(lambda: not sim.connections_open)
        with pytest.raises(UpstreamEnded, match="idle"):
            await answer.read()


async def test_a_slow_reader_is_not_the_providers_silence(sim: SimulatedProvider) -> None:
    sim.script["/x"] = Script((Piece(b"a"), Piece(b"b", 0.4)))
    async with upstreams(replace(PATIENT, first_byte_s=0.05, idle_s=0.2)) as client:
        answer = await client.send("GET", f"{sim.url}/x", [], b"")
        assert await answer.read() == b"a"
        await sim.until(lambda: sim.requests[0].finished_at)
        assert await drain(answer) == (b"b", "end")


async def test_nobody_listens(client: Upstreams) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert (await outcome(client, "GET", f"http://127.0.0.1:{port}/")).end == "upstream_unreachable"


async def test_connecting_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        async with upstreams(replace(PATIENT, connect_s=0.2), limit=20) as client:
            with pytest.raises(LavaError, match="in time"):
                await asyncio.gather(*[client.send("GET", url, [], b"") for _ in range(10)])


# Letting go.


@pytest.mark.parametrize("ends", [Ending.STALL, Ending.CLEAN])
async def test_a_closed_answer_closes_its_connection(
    client: Upstreams, sim: SimulatedProvider, ends: Ending
) -> None:
    sim.script["/x"] = Script((Piece(b"a"), Piece(b"b", 5.0)), ends=ends)
    answer = await client.send("GET", f"{sim.url}/x", [], b"")
    assert await answer.read() == b"a"
    answer.close()
    assert connections(client) == 0
    await sim.until(lambda: sim.requests[0].closed_early_at is not None, 0.5)
    with pytest.raises(UpstreamEnded, match="truncated"):
        await answer.read()


async def test_a_cancelled_read_closes_its_connection(
    client: Upstreams, sim: SimulatedProvider
) -> None:
    sim.script["/x"] = Script((Piece(b"a"),), ends=Ending.STALL)
    answer = await client.send("GET", f"{sim.url}/x", [], b"")
    assert await answer.read() == b"a"
    reading = asyncio.create_task(answer.read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert connections(client) == 0
    await sim.until(lambda: sim.requests[0].closed_early_at is not None, 0.5)


async def test_cancelled_while_waiting_for_the_head(
    client: Upstreams, sim: SimulatedProvider
) -> None:
    sim.script["/x"] = SILENCE
    waiting = asyncio.create_task(outcome(client, "POST", f"{sim.url}/x", b"{}"))
    await sim.until(lambda: sim.requests)
    waiting.cancel()
    await sim.until(lambda: sim.requests[0].closed_early_at is not None, 0.5)
    assert connections(client) == 0


async def test_cancelled_in_the_middle_of_a_body(client: Upstreams) -> None:
    got = asyncio.Event()
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        got.set()
        try:
            await reader.readexactly(50_000_000)
        except (asyncio.IncompleteReadError, ConnectionError):
            ended.set_result(b"cut")

    async with server(slow) as url:
        sending = asyncio.create_task(outcome(client, "POST", url, b"x" * 50_000_000))
        await got.wait()
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        assert connections(client) == 0
        assert await ended == b"cut"


async def test_answers_never_cross(sim: SimulatedProvider) -> None:
    """Requests cancelled anywhere, over connections that are used again."""
    chance = random.Random(7)

    def echo(request: SimRequest) -> Script:
        tag = request.headers["x-tag"].encode()
        if chance.random() < 0.5:
            return Script.plain(tag * 3, delay_s=chance.choice([0, 0.001, 0.003]))
        later = chance.choice([0, 0, 0.001, 0.002])
        return Script([Piece(tag), Piece(tag, later), Piece(tag, later)])

    async def one(client: Upstreams, number: int) -> str:
        tag = b"<%04d>" % number
        answer = await client.send("POST", f"{sim.url}/x", [(b"x-tag", tag)], tag * 50)
        try:
            body, end = await drain(answer)
        finally:
            answer.close()
        assert (body, end) == (tag * 3, "end")
        return "whole"

    sim.script["/x"] = echo
    async with upstreams(limit=25) as client:
        tasks = []
        for number in range(400):
            task = asyncio.create_task(one(client, number))
            tasks.append(task)
            if number % 2:
                delay_s = chance.choice([0, 0, 0.001, 0.002, 0.005]) * chance.random()
                asyncio.get_running_loop().call_later(delay_s, task.cancel)
            if number % 10 == 0:
                await asyncio.sleep(0.001)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        wrong = [e for e in ended if e != "whole" and not isinstance(e, asyncio.CancelledError)]
        assert wrong == []
        assert ended.count("whole") >= 200
        assert 0 < ended.count("whole") < 400
        (only,) = client._pools.values()
        assert only._places_taken == len(only.connections) == len(only._idle) <= 25
    assert sim.connections_total < 400


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
