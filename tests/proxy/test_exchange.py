"""The table of a forwarded call: every path from NEW books exactly once, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import get_args

import pytest

from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.proxy.exchange import (
    TABLE,
    Books,
    Event,
    Exchange,
    Interruption,
    State,
    Step,
    interrupted,
    passed_on,
)

Path = list[tuple[Event, Step]]


def _paths(state: State = State.NEW) -> Iterator[Path]:
    """Every way through the table: it has no cycles, so this ends."""
    steps = [(event, step) for (at, event), step in TABLE.items() if at is state]
    if not steps:
        yield []
    for event, step in steps:
        for rest in _paths(step.state):
            yield [(event, step), *rest]


PATHS = list(_paths())


def test_every_path_ends_closed_with_one_booking() -> None:
    assert len(PATHS) > 20
    for path in PATHS:
        books = [step.books for _, step in path if step.books is not Books.NOTHING]
        assert path[-1][1].state is State.CLOSED
        if Books.HOLD not in books:
            assert books == []
        else:
            assert books[0] is Books.HOLD
            assert books[1:] in ([Books.VOID], [Books.SETTLE])


def test_the_outcome_stands_exactly_where_the_books_close() -> None:
    for path in PATHS:
        for _, step in path:
            closes = step.books in (Books.VOID, Books.SETTLE)
            assert (step.outcome is not None) == closes
            assert not closes or step.state is State.CLOSED


def test_every_state_but_closed_can_be_reached_and_left() -> None:
    reached = {State.NEW} | {step.state for path in PATHS for _, step in path}
    assert reached == set(State)
    for state in set(State) - {State.CLOSED}:
        left = {event for at, event in TABLE if at is state}
        # Whatever a call waits for, the client may leave and the process may stop.
        assert {Event.CLIENT_GONE, Event.STOPPED} <= left


def test_money_is_kept_only_from_a_provider_that_may_have_worked() -> None:
    for (state, _), step in TABLE.items():
        if step.books is Books.SETTLE:
            assert state in (State.SENT, State.BODY)


OPEN = [state for state in State if state is not State.CLOSED]


@pytest.mark.parametrize(
    ("state", "why", "whole"), list(product(OPEN, get_args(Interruption), (True, False)))
)
def test_every_interruption_is_in_the_table(state: State, why: Interruption, whole: bool) -> None:
    assert (state, interrupted(state, why, whole=whole)) in TABLE


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize(
    "ended", [Event.ENDED, Event.ENDED_SHORT, Event.ENDED_FAILED, Event.BROKE_OFF, Event.CUT]
)
def test_every_end_of_an_answer_is_in_the_table(ended: Event, left: bool) -> None:
    assert (State.BODY, passed_on(State.BODY, ended, left=left)) in TABLE
    if ended in (Event.ENDED, Event.BROKE_OFF, Event.CUT):  # what an error's body comes to
        assert (State.ERROR, passed_on(State.ERROR, ended, left=left)) in TABLE


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_the_machine_follows_the_table_and_nothing_else(state: State, event: Event) -> None:
    exchange = Exchange()
    exchange.state = state
    step = TABLE.get((state, event))
    if step is None:
        with pytest.raises(InvariantBroken, match=state.name):
            exchange.on(event)
        assert exchange.state is state
    else:
        assert exchange.on(event) is step
        assert exchange.state is step.state
