"""Credit: which grant is spent first, and that splitting and returning lose nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.rules.credit import Grant, Split, burn, give_back, order

NOW = datetime(2026, 11, 20, tzinfo=UTC)
DAY = timedelta(days=1)

parts = st.lists(st.integers(0, 10**12), max_size=8).map(
    lambda amounts: [(f"crd_{i}", amount) for i, amount in enumerate(amounts)]
)
amounts = st.integers(0, 10**13)


def grant(grant_id, kind, expires=None, created=NOW, available_e10=5):
    return Grant(grant_id, kind, available_e10, expires, created)


def test_cycle_first_then_soonest_expiring_then_oldest():
    grants = [
        grant("never-young", "bundle", created=NOW - DAY),
        grant("never-old", "operator", created=NOW - 9 * DAY),
        grant("late", "bundle", NOW + 9 * DAY),
        grant("soon-young", "operator", NOW + DAY),
        grant("soon-old", "bundle", NOW + DAY, NOW - DAY),
        grant("cycle", "cycle", NOW + 20 * DAY),
    ]
    assert [g.grant_id for g in order(grants, NOW)] == [
        "cycle",
        "soon-old",
        "soon-young",
        "late",
        "never-old",
        "never-young",
    ]


def test_expired_and_empty_grants_are_not_spent():
    grants = [grant("gone", "cycle", NOW), grant("empty", "bundle", available_e10=0)]
    assert order([*grants, grant("last", "bundle", NOW + DAY / 86_400)], NOW) == [
        grant("last", "bundle", NOW + DAY / 86_400)
    ]


@given(st.permutations([grant(f"g{i}", "bundle") for i in range(5)]))
def test_the_order_does_not_depend_on_the_rows_order(grants):
    assert [g.grant_id for g in order(grants, NOW)] == [f"g{i}" for i in range(5)]


def test_burn_takes_in_order_and_says_what_is_missing():
    assert burn([("a", 3), ("b", 0), ("c", 4)], 5) == Split((("a", 3), ("c", 2)), 0)
    assert burn([("a", 3)], 5) == Split((("a", 3),), 2)
    assert burn([("a", -3), ("b", 1)], 1) == Split((("b", 1),), 0)


def test_give_back_returns_the_last_taken_first():
    assert give_back([("a", 3), ("c", 2)], 4) == Split((("c", 2), ("a", 2)), 0)
    assert give_back([("a", 3)], 4) == Split((("a", 3),), 1)


def test_a_negative_amount_is_a_defect_of_ours():
    with pytest.raises(InvariantBroken):
        burn([("a", 1)], -1)


@given(parts, amounts)
def test_burning_conserves(parts, amount):
    split = burn(parts, amount)
    have = dict(parts)
    assert sum(taken for _, taken in split.takes) + split.rest_e10 == amount
    assert all(0 < taken <= have[grant_id] for grant_id, taken in split.takes)
    assert split.rest_e10 == max(0, amount - sum(have.values()))


@given(parts, amounts, st.integers(0, 10**13))
def test_what_comes_back_was_taken_and_the_rest_is_still_in_burn_order(parts, amount, back):
    takes = burn(parts, amount).takes
    taken = sum(amount for _, amount in takes)
    returned = give_back(takes, back)
    left = dict(takes)
    for grant_id, amount_e10 in returned.takes:
        left[grant_id] -= amount_e10
    assert sum(left.values()) == taken - (back - returned.rest_e10)
    kept = tuple((g, a) for g, a in left.items() if a)
    assert kept == burn(parts, taken - min(back, taken)).takes
