"""The upstream client's pool: connections used again, places, and waiting for one."""

from __future__ import annotations

import asyncio
import random
import socket
from dataclasses import replace

import pytest
from upstream_kit import (
    PATIENT,
    PLAIN,
    SILENCE,
    connections,
    drain,
    outcome,
    request_of,
    server,
    upstreams,
)

from lava_proxy.core.errors import LavaError
from lava_proxy.net.http1 import pool
from lava_proxy.net.simulated import Ending, Piece, Script, SimulatedProvider
from lava_proxy.net.upstream import Upstreams

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
