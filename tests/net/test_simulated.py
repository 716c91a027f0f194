"""The simulated provider: control words, scripts, and what it records of every request."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import openai
import pytest
from sim_wire import HI, answered, exchange, post

from lava_proxy.net.simulated import JSON, Ending, Piece, Script, SimRequest, SimulatedProvider


@pytest.fixture
async def sim() -> AsyncIterator[SimulatedProvider]:
    async with SimulatedProvider() as provider:
        yield provider


# Control words.


@pytest.mark.parametrize(
    ("model", "content", "header", "tokens"),
    [
        ("gpt-4o-mini", "please sim-3-0 now", "", 3),
        ("sim-2-0", "sim-3-0", "", 2),
        ("sim-2-0", "sim-3-0", "x-sim: sim-1-0", 1),
    ],
)
async def test_control_word_places(
    sim: SimulatedProvider, model: str, content: str, header: str, tokens: int
) -> None:
    asked = {"model": model, "messages": [{"role": "user", "content": content}]}
    headers = [header] if header else []
    request = post("/v1/chat/completions", asked, "Connection: close", *headers)
    raw = await exchange(sim, request)
    document = json.loads(raw.partition(b"\r\n\r\n")[2])
    assert document["usage"]["completion_tokens"] == tokens


async def test_default_plan_is_forty_tokens_twenty_ms_apart(sim: SimulatedProvider) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    asked = {"model": "gpt-4o-mini", "messages": HI, "stream": True}
    _, content, complete = await answered(sim, "/v1/chat/completions", asked)
    assert complete
    assert content.count(b'"delta":{"content"') == 40
    assert loop.time() - began_s >= 40 * 0.020 - 0.002


async def test_stamps_carry_the_clock(sim: SimulatedProvider) -> None:
    asked = {"model": "sim-3-2-stamp", "messages": HI, "stream": True}
    _, content, _ = await answered(sim, "/v1/chat/completions", asked)
    stamps = [int(stamp) for stamp in re.findall(rb" sim:(\d{19})", content)]
    assert len(stamps) == 3
    assert stamps == sorted(stamps)
    assert stamps[2] / 1e9 - sim.requests[0].received_at >= 0.0055


@pytest.mark.parametrize("flag", ["drop", "reset", "stall"])
async def test_broken_endings_by_model_name(sim: SimulatedProvider, flag: str) -> None:
    asked = {"model": f"sim-4-0-{flag}", "messages": HI, "stream": True}
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(post("/v1/chat/completions", asked))
    await reader.readuntil(b'" two"')
    if flag == "stall":
        writer.close()
        await sim.until(lambda: sim.requests[0].closed_early_at is not None)
        assert sim.requests[0].finished_at is None
        return
    if flag == "reset":
        with pytest.raises(ConnectionResetError):
            await reader.read()
    else:
        assert b"0\r\n\r\n" not in await reader.read()
    assert sim.requests[0].closed_early_at is None
    assert sim.requests[0].tokens_sent == 2
    writer.close()


# Scripts.


async def test_script_pieces_arrive_as_written(sim: SimulatedProvider) -> None:
    sim.script["/v1/chat/completions"] = Script((Piece(b"data: a\n"), Piece(b"\n", 0.02)))
    raw = await exchange(sim, post("/v1/chat/completions", {}, "Connection: close"))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"8\r\ndata: a\n\r\n1\r\n\n\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (Script((Piece(b"abc"),), ends=Ending.TRUNCATED), b"3\r\nabc\r\n"),
        (Script((Piece(b"abc"),), ends=Ending.CLOSED), b"abc"),
        (Script.plain(b"abcdef", ends=Ending.TRUNCATED), b"abcdef"),
        (Script((Piece(b"abc"),), end_delay_s=0.01), b"3\r\nabc\r\n0\r\n\r\n"),
        (Script(status=204, headers=()), b""),
        (Script((Piece(b"abc"),), headers=(*JSON, ("content-length", "9")), ends=Ending.TRUNCATED),
         b"abc"),
    ],
)  # fmt: skip
async def test_script_framing(sim: SimulatedProvider, script: Script, expected: bytes) -> None:
    sim.script["m"] = script
    raw = await exchange(sim, post("/any", {"model": "m"}, "Connection: close"))
    assert raw.partition(b"\r\n\r\n")[2] == expected


async def test_raw_script_is_the_whole_answer(sim: SimulatedProvider) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
    sim.script["m"] = Script((Piece(raw),), raw=True, ends=Ending.CLOSED)
    assert await exchange(sim, post("/any", {"model": "m"})) == raw


async def test_scripts_in_turn_then_the_dialect(sim: SimulatedProvider) -> None:
    busy = Script.json({"error": {"message": "busy"}}, status=503)
    sim.script["/v1/chat/completions"] = [busy, busy]
    base_url = f"{sim.url}/v1"
    async with openai.AsyncOpenAI(api_key="sk-test", base_url=base_url, max_retries=2) as client:
        answer = await client.chat.completions.create(model="sim-1-0", messages=HI)
    assert answer.choices[0].message.content == " one"
    assert [request.status for request in sim.requests] == [503, 503, 200]


async def test_script_may_be_a_function_of_the_request(sim: SimulatedProvider) -> None:
    def choose(request: SimRequest) -> Script | None:
        return Script.plain(request.body[::-1]) if request.query == "back" else None

    sim.script["/v1/embeddings"] = choose
    raw = await exchange(sim, post("/v1/embeddings?back", {"model": "m"}, "Connection: close"))
    assert raw.endswith(b'}"m" :"ledom"{')
    raw = await exchange(sim, post("/v1/embeddings", {"model": "m"}, "Connection: close"))
    assert b'"object":"list"' in raw


# What it records.


async def test_the_request_is_kept_byte_for_byte(sim: SimulatedProvider) -> None:
    head = b"POST /v1/models/x?key=SECRET HTTP/1.1\r\nhost: a\r\nX-Odd:  v \r\nX-odd: w\r\n"
    head += b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    await exchange(sim, head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    request = sim.requests[0]
    assert request.head == head
    assert request.body == b"abcde"
    assert (request.path, request.query) == ("/v1/models/x", "key=SECRET")
    assert request.headers["x-odd"] == "v, w"


async def test_a_head_in_single_bytes_and_a_kept_connection(sim: SimulatedProvider) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    request = post("/v1/embeddings", {"model": "m", "input": "a", "dimensions": 1})
    for _ in range(2):
        for byte in request:
            writer.write(bytes((byte,)))
            await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
    writer.close()
    assert [request.connection for request in sim.requests] == [1, 1]
    assert sim.requests[0].head == sim.requests[1].head == request.partition(b"{")[0]


async def test_expect_continue_is_answered(sim: SimulatedProvider) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    request = post("/v1/embeddings", {"model": "m"}, "Expect: 100-continue", "Connection: close")
    head, body = request[: request.index(b"{")], request[request.index(b"{") :]
    writer.write(head)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_an_early_close_is_seen_and_counted(sim: SimulatedProvider) -> None:
    asked = {"model": "sim-1000-5", "messages": HI, "stream": True}
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(post("/v1/chat/completions", asked))
    await reader.readuntil(b'" three"')
    writer.close()
    await sim.until(lambda: sim.requests[0].ended)
    request = sim.requests[0]
    assert request.closed_early_at is not None
    assert request.closed_early_at > request.received_at
    assert 3 <= request.tokens_sent < 1000
    await sim.until(lambda: sim.connections_open == 0)


async def test_a_slow_reader_holds_the_answer_back(sim: SimulatedProvider) -> None:
    asked = {"model": "sim-200000-0", "messages": HI, "stream": True}
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port, limit=1024)
    writer.write(post("/v1/chat/completions", asked))
    await reader.readuntil(b"\r\n\r\n")
    await sim.until(lambda: sim.requests[0].sent_bytes > 0)
    assert sim.requests[0].tokens_sent < 200_000
    total = 0
    while not sim.requests[0].ended:
        total += len(await reader.read(1 << 20))
    assert sim.requests[0].tokens_sent == 200_000
    writer.close()


async def test_pipelining_resets_the_connection(sim: SimulatedProvider) -> None:
    asked = {"model": "sim-9-600000", "messages": HI, "stream": True}
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(post("/v1/chat/completions", asked))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(post("/v1/chat/completions", asked))
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert len(sim.requests) == 1
    assert sim.requests[0].closed_early_at is not None
    writer.close()


async def test_rubbish_is_refused(sim: SimulatedProvider) -> None:
    raw = await exchange(sim, b"\x16\x03\x01\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert sim.requests == []


async def test_until_gives_up(sim: SimulatedProvider) -> None:
    with pytest.raises(TimeoutError):
        await sim.until(lambda: False, timeout_s=0.01)


async def test_spread_shifts_streams_against_each_other() -> None:
    asked = {"model": "sim-2-40-stamp", "messages": HI, "stream": True}
    async with SimulatedProvider(record=False, spread=True) as sim:
        answers = await asyncio.gather(
            *(answered(sim, "/v1/chat/completions", asked) for _ in range(4))
        )
        assert sim.requests == []
        assert sim.requests_total == 4
    firsts = sorted(int(re.findall(rb" sim:(\d{19})", content)[0]) for _, content, _ in answers)
    assert firsts[-1] - firsts[0] > 10_000_000
