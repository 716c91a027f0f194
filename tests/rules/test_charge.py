"""Charges: worked examples, telescoping, lines that add up, and bounds for holds."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_adapters.contract import Usage
from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.core.money import MoneyError, divide_up, format_e10, parse_e10, parse_rate_e12
from lava_proxy.rules.charge import (
    Counts,
    charge,
    counts_of,
    highest_rate,
    recharged,
    units_of,
)
from lava_proxy.rules.tiers import (
    RATE_MAX_E12,
    START_MAX,
    TIERS_MAX,
    Tariff,
    Tier,
    TierError,
    check_tiers,
    parse_tiers,
)


def tariff(rate_type, unit, *rows):
    return Tariff(rate_type, unit, parse_tiers(rows))


GRADUATED = tariff("fixed", "tokens_1m", ("0", "5"), ("1000000", "3"), ("10000000", "1"))

rates = st.one_of(st.integers(0, 20 * 10**12), st.integers(0, 5000))


@st.composite
def tariffs(draw, rate_type="fixed"):
    unit = draw(st.sampled_from(["tokens_1m", "characters_1m", "minutes", "requests"]))
    high = 40 if unit == "minutes" else 3000
    starts = sorted(draw(st.sets(st.integers(1, high), max_size=4)))
    return Tariff(rate_type, unit, tuple(Tier(s, draw(rates)) for s in [0, *starts]))


def exact_price(tariff, n):
    """F(n) by its definition: every tier's share at its own rate."""
    starts = [t.start * tariff.scale for t in tariff.tiers]
    total = Fraction(0)
    for tier, start, stop in zip(tariff.tiers, starts, [*starts[1:], None], strict=True):
        share = max(0, (n if stop is None else min(n, stop)) - start)
        total += Fraction(share * tier.rate_e12, tariff.per)
    return total / 100


def half_up(x):
    return (x + Fraction(1, 2)).__floor__()


# --- worked examples of the public documentation -------------------------------------------------


def test_two_dollars_per_million_times_seven_hundred_tokens():
    made = charge(tariff("fixed", "tokens_1m", ("0", "2")), 0, 700)
    assert format_e10(made.amount_e10) == "0.0014000000"


def test_five_million_tokens_over_two_tiers():
    made = charge(GRADUATED, 0, 5_000_000)
    assert made.amount_e10 == parse_e10("17")
    assert [(line.tier.start, line.units, line.amount_e10) for line in made.lines] == [
        (0, 1_000_000, parse_e10("5")),
        (1_000_000, 4_000_000, parse_e10("12")),
    ]


def test_requests_get_cheaper_after_ten_thousand():
    requests = tariff("fixed", "requests", ("0", "0.01"), ("10000", "0.005"))
    assert charge(requests, 9_999, 1).amount_e10 == parse_e10("0.01")
    assert charge(requests, 10_000, 1).amount_e10 == parse_e10("0.005")
    assert charge(requests, 0, 10_001).amount_e10 == parse_e10("100.005")


def test_a_request_across_a_boundary_is_split():
    made = charge(GRADUATED, 999_900, 300)
    assert [(line.tier.start, line.units) for line in made.lines] == [(0, 100), (1_000_000, 200)]
    assert made.amount_e10 == parse_e10("0.0011")


def test_minutes_are_counted_in_milliseconds_and_start_in_minutes():
    minutes = tariff("fixed", "minutes", ("0", "0.06"), ("2", "0.03"))
    assert charge(minutes, 0, 1_500).amount_e10 == parse_e10("0.0015")
    made = charge(minutes, 119_000, 2_000)
    assert [line.units for line in made.lines] == [1_000, 1_000]
    assert made.amount_e10 == parse_e10("0.0015")


@pytest.mark.parametrize(
    ("rate", "charged"), [("120", "0.06972"), ("20", "0.01162"), ("10", "0.00581"), ("0", "0")]
)
def test_percentage_is_a_percentage_of_cost(rate, charged):
    made = charge(tariff("percentage", "tokens_1m", ("0", rate)), 0, 900, parse_e10("0.0581"))
    assert made.amount_e10 == parse_e10(charged)


def test_percentage_is_blended_over_the_tiers_the_units_fall_in():
    meter = tariff("percentage", "tokens_1m", ("0", "120"), ("1000", "110"))
    made = charge(meter, 900, 400, parse_e10("1"))
    assert [line.units for line in made.lines] == [100, 300]
    assert made.amount_e10 == parse_e10("1.125")


def test_percentage_without_units_uses_the_tier_that_is_reached():
    meter = tariff("percentage", "tokens_1m", ("0", "120"), ("1000", "110"))
    assert charge(meter, 999, 0, 1000).amount_e10 == 1200
    assert charge(meter, 1000, 0, 1000).amount_e10 == 1100


def test_percentage_without_cost_is_a_defect_of_ours():
    with pytest.raises(InvariantBroken):
        charge(tariff("percentage", "requests", ("0", "120")), 0, 1)


@pytest.mark.parametrize(("before", "units"), [(-1, 1), (0, -1)])
def test_negative_usage_never_credits(before, units):
    with pytest.raises(InvariantBroken):
        charge(GRADUATED, before, units)


def test_an_amount_that_no_column_holds_is_refused():
    with pytest.raises(MoneyError):
        charge(tariff("fixed", "requests", ("0", "1000000")), 0, 1000)


# --- laws ----------------------------------------------------------------------------------------


@given(tariffs(), st.lists(st.integers(0, 200_000), max_size=12), st.randoms())
def test_charges_telescope_whatever_the_split_and_the_order(tariff, parts, random):
    random.shuffle(parts)
    used = total_e10 = 0
    for units in parts:
        total_e10 += charge(tariff, used, units).amount_e10
        used += units
    assert total_e10 == half_up(exact_price(tariff, used))
    assert total_e10 == charge(tariff, 0, used).amount_e10


@given(tariffs(), st.integers(0, 10**9), st.integers(0, 10**6))
def test_amount_is_the_difference_of_two_rounded_totals(tariff, before, units):
    made = charge(tariff, before, units)
    want = half_up(exact_price(tariff, before + units)) - half_up(exact_price(tariff, before))
    assert made.amount_e10 == want


@given(
    st.sampled_from(["fixed", "percentage"]).flatmap(tariffs),
    st.integers(0, 5_000_000),
    st.integers(0, 5_000_000),
    st.integers(0, 10**12),
)
def test_lines_add_up_and_are_never_negative(tariff, before, units, cost_e10):
    made = charge(tariff, before, units, cost_e10)
    assert sum(line.amount_e10 for line in made.lines) == made.amount_e10
    assert sum(line.units for line in made.lines) == units
    assert all(line.amount_e10 >= 0 for line in made.lines)
    assert [line.tier.start for line in made.lines] == sorted(
        {line.tier.start for line in made.lines}
    )


@given(tariffs(), st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_units_never_cost_less(tariff, before, units, more):
    less = charge(tariff, before, units).amount_e10
    assert charge(tariff, before, units + more).amount_e10 >= less


costs = st.integers(0, 10**12)


@given(tariffs("percentage"), st.integers(0, 10**6), st.integers(0, 10**6), costs, costs)
def test_another_cost_is_spread_over_the_tiers_as_the_first_was(
    tariff, before, units, booked_e10, late_e10
):
    booked = charge(tariff, before, units, booked_e10)
    assert recharged(booked.lines, units, late_e10) == charge(tariff, before, units, late_e10)


@given(tariffs("percentage"), st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 10**12))
def test_percentage_is_rounded_once(tariff, before, units, cost_e10):
    weighted = (exact_price(tariff, before + units) - exact_price(tariff, before)) * tariff.per
    blended = weighted * 100 / units
    want = half_up(cost_e10 * blended / 10**14)
    assert charge(tariff, before, units, cost_e10).amount_e10 == want


@given(
    st.sampled_from(["fixed", "percentage"]).flatmap(tariffs),
    st.integers(0, 10**7),
    st.integers(0, 10**6),
    st.integers(0, 10**12),
)
def test_a_hold_at_the_highest_rate_covers_the_charge(tariff, before, units, cost_e10):
    rate_e12 = highest_rate(tariff, before, units)
    base, per = (units, tariff.per * 100)
    if tariff.rate_type == "percentage":
        base, per = cost_e10, 10**14
    most_e10 = divide_up(base * rate_e12, per)
    assert charge(tariff, before, units, cost_e10).amount_e10 <= most_e10
    assert rate_e12 <= highest_rate(tariff, before)


def test_highest_rate_sees_only_tiers_that_can_be_reached():
    meter = tariff("fixed", "requests", ("0", "3"), ("10", "9"), ("20", "1"))
    dollars = [parse_rate_e12(text) for text in ("3", "9", "9", "1")]
    reached = [(0, 10), (0, 11), (0, None), (20, None)]
    assert [highest_rate(meter, before, units) for before, units in reached] == dollars
    assert highest_rate(meter, 9, 0) == parse_rate_e12("3")


# --- units ---------------------------------------------------------------------------------------


def test_units_of_each_kind_of_meter():
    counts = Counts(500, 200, 30, 4, 60_000, 1_500)
    units = {u: units_of(u, counts) for u in ("tokens_1m", "characters_1m", "minutes", "requests")}
    assert units == {"tokens_1m": 700, "characters_1m": 34, "minutes": 61_500, "requests": 1}


def test_counts_of_usage_take_absent_as_nothing_to_charge():
    usage = Usage(input_tokens=5, output_ms=7, parts=(Usage(input_tokens=5),))
    assert counts_of(usage) == Counts(input_tokens=5, output_ms=7)


# --- price lists ---------------------------------------------------------------------------------


def test_starts_and_rates_are_read_from_text():
    assert parse_tiers([("0", "0.000000000001"), ("1000000.0", "2")]) == (
        Tier(0, 1),
        Tier(1_000_000, 2 * 10**12),
    )


@pytest.mark.parametrize(
    ("rows", "path"),
    [
        ([], "tiers"),
        ([(str(i), "1") for i in range(TIERS_MAX + 1)], "tiers"),
        ([("1", "1")], "tiers[0].start"),
        ([("0", "1"), ("5", "1"), ("5", "1")], "tiers[2].start"),
        ([("0", "1"), ("-1", "1")], "tiers[1].start"),
        ([("0", "1"), ("1.5", "1")], "tiers[1].start"),
        ([("0", "1"), ("1e3", "1")], "tiers[1].start"),
        ([("0", "1"), ("\u0661", "1")], "tiers[1].start"),
        ([("0", "1"), (str(START_MAX + 1), "1")], "tiers[1].start"),
        ([("0", "-1")], "tiers[0].rate"),
        ([("0", "1e3")], "tiers[0].rate"),
        ([("0", "0.0000000000001")], "tiers[0].rate"),
        ([("0", "1000001")], "tiers[0].rate"),
    ],
)
def test_bad_price_lists_name_the_member(rows, path):
    with pytest.raises(TierError) as caught:
        parse_tiers(rows)
    assert caught.value.path == path


def test_a_good_price_list_comes_back_as_a_tuple():
    tiers = [Tier(0, RATE_MAX_E12), Tier(START_MAX, 0)]
    assert check_tiers(tiers) == tuple(tiers)
