"""The upstream client's patience, and how it lets go of what nobody wants any more."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from dataclasses import replace

import pytest
from upstream_kit import (
    PATIENT,
    SILENCE,
    connections,
    drain,
    outcome,
    request_of,
    server,
    upstreams,
)

from lava_proxy.core.errors import LavaError
from lava_proxy.net.simulated import Ending, Piece, Script, SimRequest, SimulatedProvider
from lava_proxy.net.upstream import UpstreamEnded, Upstreams

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
