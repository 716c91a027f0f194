"""Taking an amount from credit in order loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.rules.credit import Split, burn

parts = st.lists(st.integers(0, 10**12), max_size=8).map(
    lambda amounts: [(f"crd_{i}", amount) for i, amount in enumerate(amounts)]
)
amounts = st.integers(0, 10**13)


def test_burn_takes_in_order_and_says_what_is_missing():
    assert burn([("a", 3), ("b", 0), ("c", 4)], 5) == Split((("a", 3), ("c", 2)), 0)
    assert burn([("a", 3)], 5) == Split((("a", 3),), 2)
    assert burn([("a", -3), ("b", 1)], 1) == Split((("b", 1),), 0)


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
