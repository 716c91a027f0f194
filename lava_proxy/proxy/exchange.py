"""The one table of a forwarded call: (state, event) -> what the books do and how it is recorded.

    NEW      nothing is held; a refusal leaves no trace in the books
    HELD     a hold is open and HOLD is journaled; the provider knows nothing
    SENT     the request may have reached the provider; no answer yet
    ERROR    the provider answered 4xx or 5xx; its body is on the way
    BODY     the provider's answer is on its way to the client
    CLOSED   booked; nothing may follow

Every path from HELD on ends in CLOSED by exactly one SETTLE or VOID. A pair that is not in the
table is a defect, and `Exchange.on` says so instead of guessing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.rules.settlement import Outcome


class State(enum.IntEnum):
    """Where a call stands. Integers, because the table is looked up several times per call."""

    NEW = enum.auto()
    HELD = enum.auto()
    SENT = enum.auto()
    ERROR = enum.auto()
    BODY = enum.auto()
    CLOSED = enum.auto()


class Event(enum.IntEnum):
    """What can happen to a call."""

    REFUSED = enum.auto()
    ADMITTED = enum.auto()
    SENDING = enum.auto()
    UNREACHABLE = enum.auto()
    """No connection, no valid answer head, or none in time."""
    ANSWERED = enum.auto()
    ANSWERED_ERROR = enum.auto()
    ENDED = enum.auto()
    """The body is complete as far as HTTP can tell."""
    ENDED_SHORT = enum.auto()
    """Close-delimited, and the format's own end marker did not come."""
    ENDED_FAILED = enum.auto()
    """Complete, but the provider reported an error inside the stream."""
    BROKE_OFF = enum.auto()
    """Truncated or stalled upstream, or the longest answer time is over."""
    CUT = enum.auto()
    """The money ended."""
    CLIENT_GONE = enum.auto()
    CLIENT_GONE_DONE = enum.auto()
    """The client left after usage and end marker had both been seen."""
    DRAINED = enum.auto()
    """Complete, read to its end although the client had left."""
    STOPPED = enum.auto()
    """The process is told to stop while the call runs."""


class Books(enum.Enum):
    """What the books do at a step."""

    NOTHING = "nothing"
    HOLD = "hold"
    VOID = "void"
    """Released, charge 0, a row that says so."""
    SETTLE = "settle"
    """Charged by what was counted or reported."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a pair leads. `outcome` is set exactly where the books close."""

    state: State
    books: Books
    outcome: Outcome | None = None


def _void(outcome: Outcome = "void") -> Step:
    return Step(State.CLOSED, Books.VOID, outcome)


def _settle(outcome: Outcome) -> Step:
    return Step(State.CLOSED, Books.SETTLE, outcome)


TABLE: Mapping[tuple[State, Event], Step] = {
    (State.NEW, Event.REFUSED): Step(State.CLOSED, Books.NOTHING),
    (State.NEW, Event.CLIENT_GONE): Step(State.CLOSED, Books.NOTHING),
    (State.NEW, Event.STOPPED): Step(State.CLOSED, Books.NOTHING),
    (State.NEW, Event.ADMITTED): Step(State.HELD, Books.HOLD),
    (State.HELD, Event.SENDING): Step(State.SENT, Books.NOTHING),
    (State.HELD, Event.CLIENT_GONE): _void(),
    (State.HELD, Event.STOPPED): _void(),
    (State.HELD, Event.UNREACHABLE): _void(),
    (State.SENT, Event.UNREACHABLE): _void(),
    (State.SENT, Event.ANSWERED): Step(State.BODY, Books.NOTHING),
    (State.SENT, Event.ANSWERED_ERROR): Step(State.ERROR, Books.NOTHING),
    (State.SENT, Event.CLIENT_GONE): _settle("client_gone"),
    (State.SENT, Event.STOPPED): _settle("truncated"),
    (State.ERROR, Event.ENDED): _void("upstream_error"),
    (State.ERROR, Event.BROKE_OFF): _void("upstream_error"),
    (State.ERROR, Event.CLIENT_GONE): _void("upstream_error"),
    (State.ERROR, Event.STOPPED): _void("upstream_error"),
    (State.BODY, Event.ENDED): _settle("completed"),
    (State.BODY, Event.ENDED_SHORT): _settle("truncated"),
    (State.BODY, Event.ENDED_FAILED): _settle("upstream_error"),
    (State.BODY, Event.BROKE_OFF): _settle("truncated"),
    (State.BODY, Event.CUT): _settle("cut_off"),
    (State.BODY, Event.CLIENT_GONE): _settle("client_gone"),
    (State.BODY, Event.CLIENT_GONE_DONE): _settle("completed"),
    (State.BODY, Event.DRAINED): _settle("client_gone"),
    (State.BODY, Event.STOPPED): _settle("truncated"),
}


Interruption = Literal["fault", "gone", "deadline", "lease", "stopped"]
"""Why a call is not waited for any more: an error of the house's or the provider's, the client
left, it lasted too long, its lease is over, the process stops."""

_INTERRUPTED: Mapping[Interruption, Mapping[State, Event]] = {
    "fault": {
        State.HELD: Event.UNREACHABLE,
        State.SENT: Event.UNREACHABLE,
        State.ERROR: Event.ENDED,
    },
    "gone": dict.fromkeys(State, Event.CLIENT_GONE),
    "deadline": {State.HELD: Event.UNREACHABLE, State.SENT: Event.UNREACHABLE},
    "lease": {State.HELD: Event.UNREACHABLE, State.SENT: Event.UNREACHABLE, State.BODY: Event.CUT},
    "stopped": dict.fromkeys(State, Event.STOPPED),
}

_WITHOUT_CLIENT = {
    Event.ENDED: Event.DRAINED,
    Event.ENDED_SHORT: Event.CLIENT_GONE,
    Event.BROKE_OFF: Event.CLIENT_GONE,
    Event.CUT: Event.CLIENT_GONE,
}
"""How an answer ended that was read on without its client: the customer left first."""


def interrupted(state: State, why: Interruption, *, whole: bool) -> Event:
    """The event that an interruption is. `whole`: usage and end marker have both been seen."""
    if why == "gone" and whole and state is State.BODY:
        return Event.CLIENT_GONE_DONE
    return _INTERRUPTED[why].get(state, Event.REFUSED if state is State.NEW else Event.BROKE_OFF)


def passed_on(state: State, ended: Event, *, left: bool) -> Event:
    """The event that an answer's end is. `left`: it was read on without its client."""
    if state is State.ERROR:
        return Event.BROKE_OFF if ended is Event.CUT else ended
    return _WITHOUT_CLIENT.get(ended, ended) if left else ended


class Exchange:
    """Where one call stands."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.NEW

    def on(self, event: Event) -> Step:
        """Take a step; an impossible one raises `InvariantBroken`."""
        step = TABLE.get((self.state, event))
        if step is None:
            raise InvariantBroken(f"a call in state {self.state.name} cannot meet {event.name}")
        self.state = step.state
        return step
