"""A provider's error that echoes the managed key: the client never sees the key, forwarded or
translated, whole or in pieces, in the body, in a stream or in a header."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from gateway_kit import CHAT, MANAGED, Gate, fresh_model

from lava_adapters import Ask, Framing
from lava_adapters.families.openai_chat_reader import ChatReader
from lava_proxy.net.simulated import Piece, Script
from lava_proxy.net.simulated.script import JSON, Ending
from lava_proxy.proxy.run import Run
from lava_proxy.proxy.sending import body_of
from lava_proxy.wire.event import Limits
from lava_proxy.wire.tap import Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO: Any = [{"role": "user", "content": "hello there"}]
KEY = MANAGED["openai"]
ESCAPED = KEY.replace("-", "\\u002d").replace("k", "\\u006B")
OWN = "own-key-of-the-caller-0123456789"
OPENAI = "/v1/rewrite/openai/https://api.openai.com/v1/chat/completions"
ANTHROPIC = "/v1/rewrite/anthropic/https://api.openai.com/v1/chat/completions"
PATHS = [CHAT, OPENAI, ANTHROPIC]


def _body(model: str, *, stream: bool) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, "max_tokens": 9, "stream": stream}


def _split(body: bytes, mark: bytes = b"such key: ", chars: int = 22) -> list[Piece]:
    """In two chunks that part in the middle of the key."""
    middle = body.index(mark) + chars
    return [Piece(body[:middle]), Piece(body[middle:], delay_s=0.02)]


def _hidden(answer: Any) -> None:
    shown = json.dumps([answer.headers, answer.body.decode("latin-1")])
    for way in (KEY, ESCAPED, KEY[:20], KEY[-12:]):
        assert way not in shown
        assert json.dumps(way)[1:-1] not in shown
    if answer.status >= 400:
        assert "***" in answer.body.decode()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("written", [KEY, ESCAPED, json.dumps(ESCAPED)[1:-1]])
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_in_an_errors_body(gate: Gate, path: str, written: str, kind: str) -> None:
    payer, model = await gate.payer(), fresh_model()
    body = b'{"error":{"message":"no such key: %b"}}' % written.encode()
    if kind == "text/plain":
        body = b"no such key: %b, sorry" % written.encode()
    gate.sim.script[model] = Script(_split(body), 400, (("content-type", kind),))
    answer = await gate.call(path, _body(model, stream=False), payer)
    assert (answer.status, answer.whole) == (400, True)
    assert b"no such key: ***" in answer.body
    _hidden(answer)
    assert (await gate.row(payer))["outcome"] == "upstream_error"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("written", [KEY, ESCAPED])
async def test_in_an_error_within_a_stream(gate: Gate, path: str, written: str) -> None:
    payer, model = await gate.payer(), fresh_model()
    chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "hi"}}]}
    events = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    wrong = b'data: {"error":{"message":"no such key: %b","code":"bad"}}\n\n' % written.encode()
    gate.sim.script[model] = Script([Piece(events), *_split(wrong)])
    answer = await gate.call(path, _body(model, stream=True), payer)
    assert b"hi" in answer.body
    assert b"no such key: ***" in answer.body
    _hidden(answer)


@pytest.mark.parametrize("path", PATHS)
async def test_in_an_answer_that_is_no_answer(gate: Gate, path: str) -> None:
    """Status 200, and the body is an error."""
    payer, model = await gate.payer(), fresh_model()
    body = b'{"error":{"message":"no such key: %b"}}' % KEY.encode()
    gate.sim.script[model] = Script(_split(body), 200, JSON)
    _hidden(await gate.call(path, _body(model, stream=False), payer))


@pytest.mark.parametrize("path", PATHS)
async def test_in_an_answer_whose_error_is_split_over_two_pieces(gate: Gate, path: str) -> None:
    payer, model = await gate.payer(), fresh_model()
    body = b'{"key":"%b","error":{"message":"no such key: %b"}}' % (KEY.encode(), KEY.encode())
    gate.sim.script[model] = Script(_split(body, b'"error"', 4), 200, JSON)
    _hidden(await gate.call(path, _body(model, stream=False), payer))


_ERROR_BODIES = [
    (Framing.JSON, b'{"key":"%b", "error" : {"message":"%b"}}'),
    (Framing.SSE, b'data: {"error":{"message":"%b and %b"}}\n\n'),
    (Framing.SSE, b'data: {"long":"%b","error":{"message":"%%b and %%b"}}\n\n' % (b"x" * 200)),
    (Framing.OPAQUE, b"error %b, %b"),
]


@pytest.mark.parametrize(("framing", "body"), _ERROR_BODIES)
async def test_every_split_of_an_answer_that_is_no_answer(framing: Framing, body: bytes) -> None:
    """As a call's pieces go, without its sockets; the long event is let go before it is read."""
    text = body % (KEY.encode(), ESCAPED.encode())
    hidden = body % (b"*" * len(KEY), b"*" * len(ESCAPED))
    for cut in range(len(text)):
        run = Run("req_1", 0.0, None, upstream_secrets=(KEY.encode(),))
        tap = Tap(framing, ChatReader(Ask()), limits=Limits(hold_bytes=150))
        tap.on_failed = run.conceal
        sent: list[Any] = []
        for pieces in (tap.feed(text[:cut]), tap.feed(text[cut:]), tap.finish()):
            sent.append(body_of(run, pieces))
        assert b"".join(sent) + (run.mask.finish() if run.mask else b"") == hidden


@pytest.mark.parametrize("path", PATHS)
async def test_in_a_body_that_breaks_off(gate: Gate, path: str) -> None:
    payer, model = await gate.payer(), fresh_model()
    body = b'{"error":{"message":"no such key: %b' % KEY[:28].encode()
    gate.sim.script[model] = Script([Piece(body)], 500, JSON, Ending.TRUNCATED)
    answer = await gate.call(path, _body(model, stream=False), payer)
    assert not answer.whole
    assert KEY[:12].encode() not in answer.body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("own", [False, True])
async def test_in_a_header(gate: Gate, path: str, own: bool) -> None:
    """Also the caller's own key."""
    payer, model = await gate.payer(), fresh_model()
    key = OWN if own else KEY
    headers = [
        *JSON,
        ("openai-plain", f"key {key}"),
        ("openai-escaped", '{"k":"' + key.replace("-", "\\u002d") + '"}'),
        ("openai-fine", "yes"),
    ]
    gate.sim.script[model] = Script(
        [Piece(b'{"error":{"message":"no ***"}}')], status=400, headers=headers
    )
    token = payer.token(provider_key=OWN) if own else payer.token()
    answer = await gate.call(
        path, _body(model, stream=False), payer, {"authorization": f"Bearer {token}"}
    )
    assert answer.header("openai-fine") == "yes"
    assert answer.header("openai-plain") is None
    assert answer.header("openai-escaped") is None
    _hidden(answer)


@pytest.mark.parametrize("path", PATHS)
async def test_a_compressed_error_is_withheld(gate: Gate, path: str) -> None:
    payer, model = await gate.payer(), fresh_model()
    body = gzip.compress(b'{"error":{"message":"no such key: %b"}}' % KEY.encode())
    headers = [*JSON, ("content-encoding", "gzip")]
    gate.sim.script[model] = Script([Piece(body)], status=429, headers=headers)
    answer = await gate.call(path, _body(model, stream=False), payer)
    assert answer.status == 502
    assert "compressed" in answer.error()["message"]
    assert (await gate.row(payer))["outcome"] == "upstream_error"
