"""What refunds and disputes undo: the same in every order, and never more than there was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.rules.reversal import Gone, credit_gone, money_gone

REVERSALS = st.lists(
    st.tuples(st.sampled_from(["refund", "dispute", "total"]), st.integers(0, 10**6), st.booleans())
)


@given(st.data(), REVERSALS, st.integers(0, 10**6))
def test_order_does_not_matter(data: st.DataObject, known: list[tuple], paid: int) -> None:  # type: ignore[type-arg]
    gone = money_gone(known)
    assert money_gone(data.draw(st.permutations(known))) == gone
    assert 0 <= gone.of(paid) <= paid


@given(st.integers(0, 10**15), st.integers(1, 10**15), st.integers(0, 10**15))
def test_all_of_the_money_is_all_of_the_credit(granted: int, paid: int, gone: int) -> None:
    gone = min(gone, paid)
    assert credit_gone(granted, paid, 0) == 0
    assert credit_gone(granted, paid, paid) == granted
    assert abs(2 * (credit_gone(granted, paid, gone) * paid - granted * gone)) <= paid


def test_totals_are_a_net_below_single_refunds() -> None:
    assert money_gone([("total", 500, False)]) == Gone(500, 0)
    assert money_gone([("total", 300, False), ("total", 500, False)]) == Gone(500, 0)
    one = ("refund", 300, False)
    assert money_gone([one, ("total", 300, False)]) == Gone(300, 0)
    assert money_gone([one, ("total", 500, False)]) == Gone(500, 0)
    failed = ("refund", 200, True)
    assert money_gone([one, failed, ("total", 500, False)]) == Gone(300, 0)
    assert money_gone([("dispute", 500, False), ("dispute", 200, True)]) == Gone(0, 500)


def test_what_cost_nothing_gives_nothing_back() -> None:
    assert credit_gone(100, 0, 0) == 0
