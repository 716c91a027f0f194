"""The table of a forwarded call: every path from NEW books exactly once, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.proxy.exchange import TABLE, Books, Event, Exchange, State, Step

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
