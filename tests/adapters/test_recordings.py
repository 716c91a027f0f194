"""Every recording of these families: whole, byte by byte and split at random, the same usage."""

from __future__ import annotations

import random

from provider_recordings import Recording, check, each_recording

from lava_adapters.contract import Framing
from lava_proxy.wire.tap import Tap


def _pieces(body: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    pieces, at = [], 0
    while at < len(body):
        size = chance.choice((1, 2, 3, 17, 300, 5_000))
        pieces.append(body[at : at + size])
        at += size
    return pieces


def _run(recording: Recording, pieces: list[bytes]) -> Tap:
    ask = recording.ask()
    tap = Tap(recording.framing(ask), recording.adapter().reader(ask))
    tap.reader.headers(recording.row["status"], {})
    out = [event.raw for piece in pieces for event in tap.feed(piece)]
    out += [event.raw for event in tap.finish()]
    assert b"".join(out) == b"".join(pieces)
    assert not tap.faulty
    return tap


@each_recording()
def test_usage_whole_and_split(recording: Recording) -> None:
    body = recording.wire()
    taps = [_run(recording, [body]), _run(recording, _pieces(body, 1))]
    if len(body) < 60_000:
        taps.append(_run(recording, [body[i : i + 1] for i in range(len(body))]))
    for tap in taps:
        check(tap.reader.usage(), recording.expected)
        whole = taps[0].reader
        assert (tap.reader.deltas, tap.reader.delta_bytes) == (whole.deltas, whole.delta_bytes)
        if recording.expected is not None:
            assert tap.reader.final
            assert tap.reader.ended
        if recording.row["info"].get("error"):
            assert tap.reader.failed


STATE = (
    "deltas", "delta_bytes", "tool_calls", "ended", "failed", "final", "model", "response_id",
    "service_tier",
)  # fmt: skip


@each_recording(stream=True)
def test_event_by_event_most_are_not_parsed(recording: Recording) -> None:
    """A piece that is one event like the last one but for its text takes a short way; whatever it
    changes is what parsing it would have changed."""
    ask = recording.ask()
    whole = Tap(recording.framing(ask), recording.adapter().reader(ask))
    body = recording.wire()
    events = [event.raw for event in whole.feed(body)] + [event.raw for event in whole.finish()]
    tap = _run(recording, events)
    check(tap.reader.usage(), recording.expected)
    for name in STATE:
        assert getattr(tap.reader, name) == getattr(whole.reader, name), name
    assert tap.events == whole.events


@each_recording(stream=True)
def test_crlf_gives_the_same(recording: Recording) -> None:
    body = recording.wire().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    check(_run(recording, _pieces(body, 2)).reader.usage(), recording.expected)


@each_recording(stream=True)
def test_a_cut_bills_what_was_reported(recording: Recording) -> None:
    """After every event the usage is at least what it was before, until it is final."""
    ask = recording.ask()
    framing = recording.framing(ask)
    assert framing is Framing.SSE
    tap = Tap(framing, recording.adapter().reader(ask))
    body, least = recording.wire(), 0
    for piece in _pieces(body, 3):
        tap.feed(piece)
        if tap.reader.final:
            break
        output = tap.reader.usage().output_tokens or 0
        assert output >= least
        least = output


@each_recording(stream=True)
def test_deltas_match_the_index(recording: Recording) -> None:
    """The index counted visible text its own way; the two must not be far apart."""
    reader = _run(recording, [recording.wire()]).reader
    text_bytes = recording.row["info"]["text_bytes"]
    if text_bytes > 50:
        assert 0.8 * text_bytes <= reader.delta_bytes
