"""The tap on one answer: cuts it into events, lets the reader see each, passes the bytes on.

`gate`, where it is set, is asked after every event with content: may it go out? When it says no,
the tap stops there: `held` has that event and those behind it, unread, until `resume`.

A fault in counting never breaks a stream: it sets `faulty`, and the bytes flow on. If the cutting
itself fails, the rest of the answer passes through unread.
"""

from __future__ import annotations

from collections.abc import Callable

from lava_adapters.contract import Framing, Reader

from .event import DEFAULT_LIMITS, Event, Framer, Limits
from .eventstream import EventStreamFramer
from .frame import Frame
from .jsonarray import JsonArrayFramer
from .ndjson import NdjsonFramer, OpaqueFramer, WholeFramer
from .sieve import drops
from .sse import SseFramer

# Half the time of calling Event itself: see sse.py.
_new = tuple.__new__

_FRAMERS: dict[Framing, Callable[[Limits], Framer]] = {
    Framing.SSE: SseFramer,
    Framing.JSON_ARRAY: JsonArrayFramer,
    Framing.EVENT_STREAM: EventStreamFramer,
    Framing.NDJSON: NdjsonFramer,
    Framing.JSON: WholeFramer,
    Framing.OPAQUE: OpaqueFramer,
}


class Tap:
    """Framer and reader for one answer. `count` says how much an event's text is: characters, or
    tokens by an exact tokenizer."""

    __slots__ = (
        "_count",
        "_frame",
        "_framer",
        "_sieved",
        "counted",
        "events",
        "faulty",
        "gate",
        "held",
        "on_failed",
        "reader",
    )

    def __init__(
        self,
        framing: Framing,
        reader: Reader,
        *,
        sieved: bool = False,
        count: Callable[[str], int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._framer = _FRAMERS[framing](limits)
        self._frame: Frame | None = None
        """What most events of this stream have around their text; such an event that comes as a
        piece of its own is neither cut nor parsed."""
        self._sieved = sieved
        self._count = count
        self.reader = reader
        self.events = 0
        """Events with content to parse so far."""
        self.counted = 0
        """Sum of what `count` said."""
        self.faulty = False
        self.gate: Callable[[], bool] | None = None
        self.on_failed: Callable[[], None] | None = None
        """Called once, before the first bytes are handed out that tell of an error, or may: those
        of an event that is not read before they go."""
        self.held: list[Event] | None = None
        """The event that the gate stopped, read already, and the unread ones behind it."""

    @property
    def mid_event(self) -> bool:
        """Nothing may be appended to what has been sent; only closing is left."""
        return self._framer.mid_event

    @property
    def part_bytes(self) -> int:
        """Size of an event of which some is out and the end has not come: nothing has read it."""
        return self._framer.part_bytes

    def rest(self) -> tuple[int, bytes]:
        """Such an event when no more of it will come: size and text of what the reader could not
        make out, nothing where the event turns out to be whole."""
        size, part = self.part_bytes, self._framer.part
        if not part:
            return size, b""
        self.finish()
        return (0, b"") if self.reader.ended or self.reader.final else (size, part)

    def feed(self, piece: bytes) -> list[Event]:
        """The events that `piece` completes, read already; send their raw bytes at once. Not while
        something is `held`."""
        if self.plain(piece):
            return [_new(Event, (piece, "", b"", False))] if self.held is None else []
        try:
            events = self._framer.feed(piece)
        except Exception:
            return self._let_go()
        events = self._read(events)
        self._frame = self._framed(piece, events) if self.reader.frame else None
        return events

    def plain(self, piece: bytes) -> bool:
        """Whether `piece` is one more event like the last one, but for its text: then it has been
        read, and goes out as it is unless it is `held`. Else it is still for `feed`."""
        text = None if self._frame is None else self._frame.text_of(piece)
        if text is None:
            return False
        self.events += 1
        try:
            self.reader.more(text)
            if self._count is not None:
                self.counted += self._count(text)
            if self.gate is not None and not self.gate():
                self.held = [_new(Event, (piece, "", b"", False))]
        except Exception:
            self.faulty = True
        return True

    def finish(self) -> list[Event]:
        """The upstream's body is complete: the events that were still waiting."""
        return self.last(b"")

    def last(self, piece: bytes) -> list[Event]:
        """The upstream's body is complete with `piece`: its events, and those that were waiting."""
        events: list[Event] = []
        try:
            if piece:
                events = self._framer.feed(piece)
            events += self._framer.finish()
        except Exception:
            return [*self._read(events), *self._let_go()]
        if self.held is not None:  # the gate is closed: they wait behind it
            self.held += events
            return []
        return self._read(events)

    def resume(self) -> list[Event]:
        """The gate is open again: the event that it stopped, and those behind it."""
        held, self.held = self.held or [], None
        return held[:1] + self._read(held[1:])

    def _read(self, events: list[Event]) -> list[Event]:
        reader, gate = self.reader, self.gate
        dropped: tuple[Event, ...] = ()
        for index, event in enumerate(events):
            if not event.data:
                if event.torn and self.on_failed is not None:
                    self._alarm()
                continue
            self.events += 1
            try:
                reader.event(event.name, event.data)
                if self._count is not None and reader.text:
                    self.counted += self._count(reader.text)
                open_ = gate is None or gate()
            except Exception:
                self.faulty = True
                continue
            if self._sieved and drops(event, reader):
                dropped += (event,)
            elif not open_:
                self.held = events[index:]
                events = events[:index]
                break
        if self.on_failed is not None and reader.failed:
            self._alarm()
        if dropped:
            return [event for event in events if not any(event is gone for gone in dropped)]
        return events

    def _alarm(self) -> None:
        alarm, self.on_failed = self.on_failed, None
        if alarm is not None:
            alarm()

    def _framed(self, piece: bytes, events: list[Event]) -> Frame | None:
        """What stands around the text in a piece that is one whole event. The next piece that has
        the same around another plain text is one whole event too, and parses the same."""
        frame = self.reader.frame
        if frame is None or self.held is not None or self.faulty or len(events) != 1:
            return None
        event = events[0]
        if event.torn or event.raw != piece or piece.count(event.data) != 1:
            return None
        before, _, after = piece.partition(event.data)
        return Frame(before + frame[0], frame[1] + after)

    def _let_go(self) -> list[Event]:
        """Give up cutting; what is held goes out as it is."""
        self.faulty = True
        self._alarm()
        held = self._framer.pending
        self._framer = OpaqueFramer()
        return self._framer.feed(held) if held else []
