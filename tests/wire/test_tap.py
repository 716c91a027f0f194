"""The tap: reads and passes on, sieves our usage chunk, and survives a fault in counting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lava_adapters import Ask, Framing, Quirks
from lava_adapters.families.openai_chat import OpenAIChat
from lava_adapters.families.openai_chat_reader import ChatReader
from lava_proxy.wire.event import Event
from lava_proxy.wire.sieve import sieves
from lava_proxy.wire.tap import Tap

ASK = Ask(stream=True)
DELTA = b'data: {"choices":[{"delta":{"content":"hey"}}],"usage":null}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
AZURE = b'data: {"choices":[],"model":"","prompt_filter_results":[{"prompt_index":0}]}\n\n'
DONE = b"data: [DONE]\n\n"


def raw(events: list[Event]) -> bytes:
    return b"".join(event.raw for event in events)


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_only_the_surplus_chunk_is_sieved(size: int) -> None:
    body = AZURE + DELTA + STOP + USAGE + DONE
    tap = Tap(Framing.SSE, ChatReader(ASK), sieved=True)
    out = b"".join(raw(tap.feed(body[i : i + size])) for i in range(0, len(body), size))
    assert out + raw(tap.finish()) == AZURE + DELTA + STOP + DONE
    assert tap.reader.usage().input_tokens == 3
    assert (tap.events, tap.reader.final, tap.reader.ended) == (5, True, True)


def test_nothing_is_sieved_for_a_caller_who_asked() -> None:
    assert sieves(ASK, injected=True)
    assert not sieves(ASK, injected=False)
    assert not sieves(replace(ASK, wants_usage=True), injected=True)
    tap = Tap(Framing.SSE, ChatReader(ASK), sieved=False)
    assert raw(tap.feed(DELTA + USAGE)) == DELTA + USAGE


def test_usage_beside_an_answer_is_never_sieved() -> None:
    last = STOP.replace(b"null", b'{"prompt_tokens":3,"completion_tokens":1}')
    tap = Tap(Framing.SSE, ChatReader(ASK), sieved=True)
    assert raw(tap.feed(last)) == last
    assert tap.reader.final


def test_tokens_are_counted_event_by_event() -> None:
    tap = Tap(Framing.SSE, ChatReader(ASK), count=len)
    tap.feed(DELTA + DELTA + STOP)
    assert tap.counted == 6


class Broken(ChatReader):
    """A reader with a defect."""

    def event(self, name: str, data: bytes) -> None:
        if b"hey" in data:
            raise ZeroDivisionError
        super().event(name, data)


def test_a_fault_in_reading_flags_and_goes_on() -> None:
    tap = Tap(Framing.SSE, Broken(ASK))
    assert raw(tap.feed(DELTA + USAGE)) == DELTA + USAGE
    assert tap.faulty
    assert tap.reader.usage().output_tokens == 1


def test_a_fault_in_framing_loses_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    tap = Tap(Framing.SSE, ChatReader(ASK))
    body = DELTA.replace(b"\n", b"\r\n") * 3
    out = raw(tap.feed(body[:-10]))
    calls = iter(range(100))

    def fail(block: bytes) -> tuple[str, bytes]:
        if next(calls) == 1:
            raise ZeroDivisionError
        return "", block

    monkeypatch.setattr("lava_proxy.wire.sse._fields", fail)
    out += raw(tap.feed(body[-10:] + body + body[:5]))
    assert tap.faulty
    assert tap.mid_event
    out += raw(tap.feed(b"rest")) + raw(tap.finish())
    assert out == body + body + body[:5] + b"rest"


def test_json_is_read_at_the_end() -> None:
    tap = Tap(Framing.JSON, ChatReader(Ask()))
    body = b'{"model":"m","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":1}}'
    assert raw(tap.feed(body)) == body
    assert raw(tap.finish()) == b""
    assert tap.reader.usage().input_tokens == 1
    assert tap.reader.model == "m"


def test_usage_of_an_oversize_answer_is_salvaged() -> None:
    big = b'{"id":"r1","model":"m1","choices":[{"message":{"content":"' + b"\\u00e9" * 400_000
    body = big + b'"}}],"usage":{"prompt_tokens":12,"completion_tokens":34}}'
    tap = Tap(Framing.JSON, OpenAIChat(Quirks()).reader(Ask()))
    for i in range(0, len(body), 65_536):
        tap.feed(body[i : i + 65_536])
    tap.finish()
    usage = tap.reader.usage()
    assert (usage.model, usage.input_tokens, usage.output_tokens) == ("m1", 12, 34)
    assert tap.reader.response_id == "r1"
    assert not tap.faulty


JSON = b'{"id":"c","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":3}}'
LAST = [
    (Framing.JSON, JSON),
    (Framing.JSON, JSON[:-1] + b',"error":{"message":"no"}}'),
    (Framing.JSON, JSON[:40]),
    (Framing.SSE, DELTA + STOP + USAGE + DONE),
    (Framing.SSE, DELTA + USAGE + USAGE.strip()),
    (Framing.NDJSON, JSON + b"\n" + JSON),
    (Framing.JSON_ARRAY, b"[" + JSON + b",\n" + JSON + b"]"),
    (Framing.OPAQUE, b"anything"),
]


@pytest.mark.parametrize(("framing", "body"), LAST)
@pytest.mark.parametrize("closes_at", [0, 1, 2, 3])
def test_the_last_piece_says_what_a_piece_and_the_end_say(
    framing: Framing, body: bytes, closes_at: int
) -> None:
    for cut in range(len(body)):
        seen = []
        for at_once in (False, True):
            tap = Tap(framing, ChatReader(ASK), sieved=True)
            asked: list[int] = []
            tap.gate = lambda asked=asked: asked.append(1) or len(asked) != closes_at
            tap.on_failed = lambda asked=asked: asked.append(0)
            events = tap.feed(body[:cut]) if cut else []
            if tap.held is not None:
                events += tap.resume()
            if at_once:
                events += tap.last(body[cut:])
            else:
                events += tap.feed(body[cut:]) + tap.finish()
            held = None if tap.held is None else raw(tap.held)
            seen.append((raw(events), held, asked, tap.events, tap.reader.usage()))
            assert not tap.faulty
        assert seen[0] == seen[1]
