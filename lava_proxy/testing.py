"""For authors of adapters: the property tests that ours must pass, run on yours.

`check(adapter, recordings)` raises `Broken`, with the property and the recording, at the first that
does not hold:

* usage equals what the recording expects, however the answer is split (whole, byte by byte, at
  random, event by event, with CRLF), and the bytes that go out are the bytes that came in;
* cut off after any piece, what was counted by then is never less than after the piece before;
* whatever stands in an event or a request, a reader never raises, and `ask` only `AskError`;
* a body that needs no edit stays as it is, byte for byte;
* a cut is a whole event with the code ``budget_exhausted`` in it (or nothing), a refusal is JSON
  with its code in it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lava_adapters.contract import NO_USAGE, Adapter, Ask, AskError, Framing, Usage
from lava_proxy.wire.sse import SseFramer
from lava_proxy.wire.tap import Tap

SPLITS = 3
"""Random splits per recording."""
ONE_BYTE_MAX = 60_000
"""Longer answers are not split into single bytes."""
MUTATIONS = 200
ODD: Sequence[object] = (
    None, True, -1, 2.5, "x", [], {}, [None], {"a": None}, 2**70, [[]], [{"text": 1}],
)  # fmt: skip
_STATE = (
    "deltas", "delta_bytes", "tool_calls", "ended", "failed", "final", "model", "response_id",
    "made",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recording:
    """One answer of a provider as it came, and what it says that was used."""

    body: bytes
    expected: Usage = NO_USAGE
    """`Usage` as your reader must state it; `model` in it is not compared."""
    request: bytes = b"{}"
    method: str = "POST"
    path: str = "/"
    query: str = ""
    request_type: str = "application/json"
    content_type: str = "text/event-stream"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


class Broken(AssertionError):
    """A property that does not hold."""


def check(adapter: Adapter, recordings: Iterable[Recording], *, seed: int = 1) -> None:
    """Raise `Broken` unless `adapter` keeps the contract on all of `recordings`."""
    found = list(recordings)
    _hold(bool(found), "there are recordings to check with", None)
    for recording in found:
        chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
        ask = _ask(adapter, recording)
        _check_splits(adapter, ask, recording, chance)
        _check_cuts(adapter, ask, recording, chance)
        _check_readers_survive(adapter, ask, recording, chance)
        _check_asks_survive(adapter, recording, chance)
        _check_edit(adapter, ask, recording)
        _check_ends(adapter, ask, recording)


def _ask(adapter: Adapter, recording: Recording, body: bytes | None = None) -> Ask:
    return adapter.ask(
        recording.method,
        recording.path,
        recording.query,
        recording.request_type,
        recording.request if body is None else body,
    )


def _run(adapter: Adapter, ask: Ask, recording: Recording, pieces: Iterable[bytes]) -> Tap:
    tap = Tap(adapter.framing(ask, recording.content_type), adapter.reader(ask))
    if tap.reader.reads_headers:
        tap.reader.headers(recording.status, recording.headers)
    pieces = list(pieces)
    gone = [event.raw for piece in pieces for event in tap.feed(piece)]
    gone += [event.raw for event in tap.finish()]
    _hold(not tap.faulty, "a reader does not raise", recording)
    _hold(b"".join(gone) == b"".join(pieces), "bytes out are bytes in", recording)
    return tap


def _check_splits(adapter: Adapter, ask: Ask, recording: Recording, chance: random.Random) -> None:
    body = recording.body
    whole = _run(adapter, ask, recording, [body])
    _same_usage(whole.reader.usage(), recording, "in one piece")
    splits = [list(_pieces(body, chance)) for _ in range(SPLITS)]
    if len(body) <= ONE_BYTE_MAX:
        splits.append([body[at : at + 1] for at in range(len(body))])
    splits.append(_events(adapter, ask, recording))
    for pieces in splits:
        tap = _run(adapter, ask, recording, pieces)
        _same_usage(tap.reader.usage(), recording, f"in {len(pieces)} pieces")
        for name in _STATE:
            same = getattr(tap.reader, name) == getattr(whole.reader, name)
            _hold(same, f"`{name}` does not depend on the split", recording)
    if adapter.framing(ask, recording.content_type) is Framing.SSE:
        crlf = body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        tap = _run(adapter, ask, recording, _pieces(crlf, chance))
        _same_usage(tap.reader.usage(), recording, "with CRLF")


def _events(adapter: Adapter, ask: Ask, recording: Recording) -> list[bytes]:
    """Every event a piece of its own: that is where `frame` and `more` are used."""
    tap = Tap(adapter.framing(ask, recording.content_type), adapter.reader(ask))
    events = [*tap.feed(recording.body), *tap.finish()]
    return [event.raw for event in events]


def _check_cuts(adapter: Adapter, ask: Ask, recording: Recording, chance: random.Random) -> None:
    """A stream may end anywhere: what was counted is never taken back before the final word."""
    tap = Tap(adapter.framing(ask, recording.content_type), adapter.reader(ask))
    least = 0
    for piece in _pieces(recording.body, chance):
        tap.feed(piece)
        if tap.reader.final:
            return
        counted = tap.reader.usage().output_tokens or 0
        _hold(counted >= least, "running output never shrinks", recording)
        least = counted


def _check_readers_survive(
    adapter: Adapter, ask: Ask, recording: Recording, chance: random.Random
) -> None:
    tap = Tap(adapter.framing(ask, recording.content_type), adapter.reader(ask))
    seeds = [(event.name, event.data) for event in tap.feed(recording.body) if event.data]
    for _ in range(MUTATIONS if seeds else 0):
        name, data = chance.choice(seeds)
        reader = adapter.reader(ask)
        try:
            reader.event(name, _mutated(data, chance))
            reader.event("", chance.randbytes(40))
            usage = reader.usage()
        except Exception as error:
            raise Broken(_text("a reader does not raise", recording)) from error
        for count in (usage.input_tokens, usage.output_tokens):
            sane = count is None or (type(count) is int and 0 <= count < 2**55)
            _hold(sane, "a count is a whole number below 2**55, or None", recording)


def _check_asks_survive(adapter: Adapter, recording: Recording, chance: random.Random) -> None:
    for _ in range(MUTATIONS):
        try:
            _ask(adapter, recording, _mutated(recording.request, chance))
        except AskError:
            pass
        except Exception as error:
            raise Broken(_text("`ask` raises nothing but AskError", recording)) from error


def _check_edit(adapter: Adapter, ask: Ask, recording: Recording) -> None:
    same = adapter.edit(ask, recording.request, usage=False, output_cap=None)
    _hold(same == recording.request, "a body that needs no edit stays as it is", recording)


def _check_ends(adapter: Adapter, ask: Ask, recording: Recording) -> None:
    framing = adapter.framing(ask, recording.content_type)
    end = adapter.cut(framing, "the money ended", {}, 3)
    if end:
        _hold(b"budget_exhausted" in end, "a cut carries the code budget_exhausted", recording)
    if end and framing is Framing.SSE:
        framer = SseFramer()
        framer.feed(end)
        _hold(not framer.mid_event, "a cut is whole events", recording)
    body = adapter.refusal(ask, 402, "insufficient_credit", "no money", {})
    try:
        json.loads(body)
    except ValueError:
        raise Broken(_text("a refusal is JSON", recording)) from None
    _hold(b"insufficient_credit" in body, "a refusal carries its code", recording)


def _same_usage(usage: Usage, recording: Recording, how: str) -> None:
    said, wanted = usage.with_model(None), recording.expected.with_model(None)
    _hold(said == wanted, f"usage {how} is {wanted}, not {said}", recording)


def _pieces(body: bytes, chance: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        size = chance.choice((1, 2, 3, 17, 300, 5_000))
        yield body[at : at + size]
        at += size


def _mutated(data: bytes, chance: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except ValueError:
        cut = chance.randrange(len(data) + 1)
        return data[:cut] + chance.randbytes(3)
    return json.dumps(_changed(value, chance)).encode()


def _changed(value: Any, chance: random.Random) -> Any:
    if chance.random() < 0.15:
        return chance.choice(ODD)
    if isinstance(value, dict):
        return {key: _changed(inner, chance) for key, inner in value.items()}
    return [_changed(inner, chance) for inner in value] if isinstance(value, list) else value


def _hold(holds: bool, what: str, recording: Recording | None) -> None:
    if not holds:
        raise Broken(_text(what, recording))


def _text(what: str, recording: Recording | None) -> str:
    if recording is None:
        return f"does not hold: {what}"
    return f"does not hold: {what} ({recording.name or recording.body[:60]!r})"
