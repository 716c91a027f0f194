"""The server's connections: answers in one write, and what a client may and may not do."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest
from protocol_kit import REQUEST, Send, body, echo, serving, start, told

from lava_proxy.cli.protocol import BODY_MAX_BYTES, HEAD_MAX_BYTES
from lava_proxy.core.readbuffer import SIZE_BYTES

POST = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


async def test_a_plain_answer_is_one_write() -> None:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        await start(send, (b"content-length", b"2"))
        await body(send, b"{}")

    async with serving(app) as (port, writes):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for times in (1, 2):  # the connection is used again
            writer.write(REQUEST)
            assert await reader.readuntil(b"{}")
            assert len(writes) == times
            assert writes[-1].endswith(b"content-length: 2\r\n\r\n{}")
        writer.close()


async def test_a_stream_is_joined_once() -> None:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        await start(send)
        await body(send, b"one", more=True)
        await body(send, b"two", more=True)
        await body(send, b"")

    async with serving(app) as (port, writes):
        await told(port, REQUEST)
        assert writes[0].endswith(b"\r\n\r\n3\r\none\r\n")
        assert writes[1:] == [b"3\r\ntwo\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("first", [1, 200_000])
async def test_large_pieces_go_out_whole(length: bool, first: int) -> None:
    """They are not joined with anything, and framed all the same."""
    pieces = [b"a" * first, b"b" * 300_000, b"c"]
    size = sum(map(len, pieces))

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await start(send, *([(b"content-length", b"%d" % size)] if length else []))
        for piece in pieces[:-1]:
            await body(send, piece, more=True)
        await body(send, pieces[-1])

    async with serving(app) as (port, _):
        said, _ = await told(port, REQUEST)
    _, _, got = said.partition(b"\r\n\r\n")
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    assert got == (b"".join(pieces) if length else framed + b"0\r\n\r\n")


async def test_a_head_alone_goes_out_in_its_turn() -> None:
    going_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await start(send)
        await going_on.wait()
        await body(send, b"late")

    async with serving(app) as (port, writes):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert len(writes) == 1
        going_on.set()
        await reader.readuntil(b"0\r\n\r\n")
        assert len(writes) == 2
        writer.close()


@pytest.mark.parametrize(
    ("begun", "answer"),
    [(False, b"HTTP/1.1 500 Internal Server Error"), (True, b"HTTP/1.1 200 OK")],
)
@pytest.mark.parametrize("raises", [True, False])
async def test_an_answer_that_breaks_off_is_seen(begun: bool, answer: bytes, raises: bool) -> None:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        if begun:
            await start(send)
        if raises:
            raise RuntimeError("broken off")

    async with serving(app) as (port, _):
        said, closed = await told(port, REQUEST)
    assert said.startswith(answer)
    assert closed
    assert not said.endswith(b"0\r\n\r\n")


async def test_a_request_that_is_cancelled_is_broken_off_and_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a second SIGTERM does with hundreds: a traceback each would hide what matters."""

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await start(send)
        await body(send, b"x", more=True)
        raise asyncio.CancelledError

    with caplog.at_level(logging.INFO, logger="uvicorn.error"):
        async with serving(app) as (port, _):
            said, closed = await told(port, REQUEST)
    assert said.startswith(b"HTTP/1.1 200 OK")
    assert not said.endswith(b"0\r\n\r\n")
    assert closed
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"), (b"x", b"a\nb"), (b"x", b"a\0b"), (b"x", b"\x7f"),
        (b"x\r\n", b"a"), (b"x: a\r\ny", b"b"), (b"x y", b"b"), (b"x:", b"b"),
    ],
)  # fmt: skip
async def test_a_header_cannot_forge_another(header: tuple[bytes, bytes]) -> None:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        await start(send, header)
        await body(send, b"no")

    async with serving(app) as (port, _):
        said, closed = await told(port, REQUEST)
    assert said.startswith(b"HTTP/1.1 500 ")
    assert closed


@pytest.mark.parametrize("sent", [b"1", b"123"])
async def test_an_answer_is_as_long_as_it_says(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        await start(send, (b"content-length", b"2"))
        await body(send, sent)

    with caplog.at_level(logging.ERROR, logger="uvicorn.error"):  # hosts of other tests silence it
        async with serving(app) as (port, _):
            said, closed = await told(port, REQUEST)
    assert closed
    assert b"123" not in said
    assert "than Content-Length" in caplog.text


async def test_pipelined_answers_keep_their_order() -> None:
    answers = iter((b"first", b"second"))

    async def app(scope: Any, receive: Any, send: Send) -> None:
        text = next(answers)
        await start(send, (b"content-length", b"%d" % len(text)))
        await asyncio.sleep(0.01)
        await body(send, text)

    async with serving(app) as (port, _):
        said, closed = await told(port, REQUEST * 2)
    assert said.index(b"first") < said.index(b"second")
    assert not closed


async def test_who_does_not_wait_for_answers_is_not_read() -> None:
    """Whether or not the application listens for the client's going."""
    answering = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await receive()
        listening = asyncio.create_task(receive())
        await answering.wait()
        listening.cancel()
        await start(send, (b"content-length", b"0"))
        await body(send, b"")

    async with serving(app) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.set_write_buffer_limits(0)
        many = REQUEST * (32 * 2**20 // len(REQUEST))
        writer.write(many)
        await asyncio.sleep(0.3)
        assert writer.transport.get_write_buffer_size() > 16 * 2**20  # the sockets have the rest
        answering.set()
        assert (await reader.readexactly(2**16)).count(b"HTTP/1.1 200 OK") > 1000
        writer.transport.abort()


async def test_what_is_no_http_does_not_break_into_an_answer() -> None:
    going_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await receive()
        await start(send)
        await body(send, b"one", more=True)
        await going_on.wait()
        await body(send, b"two")

    async with serving(app) as (port, _):
        asking = asyncio.create_task(told(port, REQUEST, b"\0\0no HTTP\r\n\r\n", within_s=1))
        await asyncio.sleep(0.1)
        going_on.set()
        said, closed = await asking
    assert said.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert said.count(b"HTTP/1.1") == 1
    assert closed


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 2**20,
        b"GET / HTTP/1.1\r\nx: " + b"x" * 2**20,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 2**18,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2**20,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 2**18,
    ],
    ids=["target", "value", "lines", "extension", "trailers"],
)
async def test_what_does_not_end_is_refused_while_it_comes(sent: bytes) -> None:
    async with serving(echo) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent[: HEAD_MAX_BYTES + 2 * SIZE_BYTES])
        async with asyncio.timeout(5):
            assert (await reader.readline()) == b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
        writer.close()


async def test_trailers_are_no_headers() -> None:
    async with serving(echo) as (port, _):
        said, _ = await told(
            port,
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\nx\r\n0\r\nAuthorization: b\r\n\r\n",
        )
    assert b"HTTP/1.1 200" in said
    assert b"authorization" not in said.lower()


async def test_a_body_is_read_as_it_is_taken() -> None:
    size, sizes = 4 * 2**20, []

    async def app(scope: Any, receive: Any, send: Send) -> None:
        more = True
        while more:
            await asyncio.sleep(0.001)
            message = await receive()
            sizes.append(len(message["body"]))
            more = message["more_body"]
        await start(send, (b"content-length", b"0"))
        await body(send, b"")

    async with serving(app) as (port, _):
        said, _ = await told(port, POST % size, b"x" * size, within_s=5)
    assert said.startswith(b"HTTP/1.1 200")
    assert sum(sizes) == size
    assert max(sizes) <= BODY_MAX_BYTES + SIZE_BYTES


async def test_a_client_that_takes_nothing_is_waited_for() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Send) -> None:
        nonlocal sent
        await start(send)
        for _ in range(1000):
            await body(send, b"x" * 2**16, more=True)
            sent += 1
        await body(send, b"")

    async with serving(app) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(REQUEST)
        await asyncio.sleep(0.3)
        waiting = sent
        assert 0 < waiting < 500
        async with asyncio.timeout(10):
            while not (await reader.read(2**20)).endswith(b"0\r\n\r\n"):
                pass
        assert sent == 1000
        writer.close()


@pytest.mark.parametrize("sent", [b"", REQUEST, REQUEST[:10], REQUEST + REQUEST[:10]])
async def test_who_brings_no_request_in_time_is_closed(sent: bytes) -> None:
    async with serving(echo, timeout_keep_alive=1) as (port, _):
        said, closed = await told(port, sent, within_s=2.5)
    assert closed
    assert said.startswith(b"HTTP/1.1 200") is sent.startswith(REQUEST)


async def test_a_long_answer_is_not_closed_in_its_middle() -> None:
    async def app(scope: Any, receive: Any, send: Send) -> None:
        await start(send)
        await asyncio.sleep(1.3)
        await body(send, b"late")

    async with serving(app, timeout_keep_alive=1) as (port, _):
        said, _ = await told(port, REQUEST, within_s=2)
    assert said.endswith(b"late\r\n0\r\n\r\n")


async def test_both_who_wait_for_a_client_hear_that_it_left() -> None:
    """The call's task and the one that watches its client."""
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Send) -> None:
        await receive()
        for each in await asyncio.gather(receive(), receive()):
            heard.append(each["type"])
        await start(send)  # nobody listens: no error

    async with serving(app) as (port, writes):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)
    assert heard == ["http.disconnect"] * 2
    assert writes == []


async def test_a_client_that_leaves_leaves_no_garbage() -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    def count() -> int:
        return sum(type(each).__name__ in ("Cycle", "Recording") for each in gc.get_objects())

    async def app(scope: Any, receive: Any, send: Send) -> None:
        asked.set()
        await left.wait()
        await start(send)
        await body(send, b"nobody listens")

    async with serving(app) as (port, _):
        gc.collect()
        gc.disable()
        before = count()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            await asked.wait()
            assert count() == before + 2
            writer.close()
            await asyncio.sleep(0.05)
            left.set()
            await asyncio.sleep(0.05)
            assert count() == before
        finally:
            gc.enable()


async def test_a_piece_is_passed_on_without_a_task_where_it_can_be() -> None:
    said: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass_on = send.__self__.pass_on
        said.append(pass_on(b"before the head"))
        await start(send)
        said.append(pass_on(b"before the head is out"))
        await body(send, b"one", more=True)
        said.extend((pass_on(b"two"), pass_on(b""), pass_on(b"three")))
        while pass_on(b"x" * 2**20):  # until the client is slow
            pass
        await body(send, b"y")
        said.append(pass_on(b"behind the end"))

    async with serving(app) as (port, _):
        got, closed = await told(port, REQUEST)
    assert said == [False, False, True, True, True, False]
    assert b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n100000\r\nxxx" in got
    assert got.endswith(b"x\r\n1\r\ny\r\n0\r\n\r\n")
    assert not closed


async def test_an_answer_that_says_how_long_it_is_has_no_chunks() -> None:
    said: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, (b"content-length", b"2"))
        await body(send, b"a", more=True)
        said.append(send.__self__.pass_on(b"b"))
        await body(send, b"b")

    async with serving(app) as (port, _):
        got, _ = await told(port, REQUEST)
    assert said == [False]
    assert got.endswith(b"\r\n\r\nab")
