"""Any stream of any family, framed as it may come: split anywhere it says the same, every byte
passes, and nothing raises but what the tap catches by itself."""

from __future__ import annotations

import json
import random

import pytest
from test_reader_fuzz import SEEDS, mutate

from lava_adapters import Ask, Quirks
from lava_adapters.awsframe import encode
from lava_adapters.contract import Framing
from lava_adapters.families import BUILTIN
from lava_proxy.wire.tap import Tap

FRAMINGS = {
    "bedrock": (Framing.EVENT_STREAM, Framing.JSON),
    "cohere": (Framing.SSE, Framing.NDJSON, Framing.JSON),
    "gemini": (Framing.SSE, Framing.JSON_ARRAY, Framing.JSON),
    "ollama": (Framing.NDJSON, Framing.JSON),
    "opaque": (Framing.OPAQUE,),
}
USUAL = (Framing.SSE, Framing.JSON)
CASES = [(family, framing) for family in BUILTIN for framing in FRAMINGS.get(family, USUAL)]
STREAMS = 12
STATE = ("deltas", "delta_bytes", "tool_calls", "ended", "failed", "final", "model", "response_id")


def framed(framing: Framing, bodies: list[bytes], chance: random.Random) -> bytes:
    if framing is Framing.SSE:
        end = chance.choice((b"\n", b"\r\n", b"\r"))
        name = chance.choice((b"", b"event: x" + end, b"event: error" + end, b": ping" + end))
        return b"".join(name + b"data: " + body + end + end for body in bodies)
    if framing is Framing.JSON_ARRAY:
        return b"[" + b",\r\n".join(bodies) + b"]"
    if framing is Framing.NDJSON:
        return b"\n".join(bodies) + chance.choice((b"", b"\n"))
    if framing is Framing.EVENT_STREAM:
        kinds = ("contentBlockDelta", "metadata", "chunk", "exception")
        return b"".join(
            encode({":message-type": "event", ":event-type": chance.choice(kinds)}, body)
            for body in bodies
        )
    return bodies[0]


def read(family: str, framing: Framing, pieces: list[bytes]) -> tuple[object, ...]:
    ask = Ask(model="m", stream=framing not in (Framing.JSON, Framing.OPAQUE))
    tap = Tap(framing, BUILTIN[family](Quirks(), "").reader(ask))
    out = [event.raw for piece in pieces for event in tap.feed(piece)]
    out += [event.raw for event in tap.finish()]
    assert b"".join(out) == b"".join(pieces)
    reader = tap.reader
    return (tap.faulty, reader.usage(), *(getattr(reader, name) for name in STATE))


@pytest.mark.parametrize(("family", "framing"), CASES)
def test_split_anywhere_it_says_the_same(family: str, framing: Framing) -> None:
    chance = random.Random(f"{family} {framing.value}")
    for _ in range(STREAMS):
        seeds = chance.choices(SEEDS, k=chance.randint(1, 6))
        bodies = [json.dumps(mutate(seed, chance)).encode() for seed in seeds]
        if framing is Framing.JSON_ARRAY:  # its elements are objects
            bodies = [body for body in bodies if body[:1] == b"{"] or [b"{}"]
        body = framed(framing, bodies, chance)
        whole = read(family, framing, [body])
        assert whole[0] is False
        for size in (1, 2, 3, 7, chance.randint(8, 60)):
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            assert read(family, framing, pieces) == whole, body


@pytest.mark.parametrize(("family", "framing"), CASES)
def test_no_bytes_make_the_tap_raise(family: str, framing: Framing) -> None:
    """Broken in the middle: what comes through is every byte, and usage or nothing."""
    chance = random.Random(f"broken {family} {framing.value}")
    for _ in range(STREAMS * 3):
        bodies = [json.dumps(seed).encode() for seed in chance.choices(SEEDS, k=4)]
        body = bytearray(framed(framing, bodies, chance))
        for _ in range(chance.randint(1, 6)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        cut = chance.randrange(len(body))
        read(family, framing, [bytes(body[:cut]), bytes(body[cut:])])
