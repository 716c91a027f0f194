"""Provider cost: exact rates, sub-counts, cliffs, parts, own figures, ceilings."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_adapters.contract import NO_USAGE, Usage
from lava_proxy.core.money import divide_up, parse_e10
from lava_proxy.rules.price import COUNT_MAX, Cost, cost, cost_of
from lava_proxy.rules.rates import DENOMINATOR, RELATIVES, RateError, make_rates, weight

PER_M = 1_000_000


def dollars(text, per=PER_M):
    price = Fraction(text)
    return weight(price.numerator, price.denominator, per)


CLAUDE = make_rates(
    "test/1",
    "claude",
    {
        "input": dollars("3"),
        "output": dollars("15"),
        "cache_read": dollars("0.3"),
        "cache_write": dollars("3.75"),
        "cache_write_1h": dollars("6"),
        "web_search": dollars("10", 1000),
    },
    {200_000: {"input": dollars("6"), "output": dollars("22.5"), "cache_read": dollars("0.6")}},
)
OMNI = make_rates(
    "test/1",
    "omni",
    {
        "input": dollars("1"),
        "cache_read": dollars("0.1"),
        "input_audio": dollars("10"),
        "cached_audio": dollars("2"),
        "input_image": dollars("5"),
        "output": dollars("4"),
        "output_audio": dollars("40"),
        "reasoning": dollars("3"),
    },
)
EMBED = make_rates("test/1", "embed", {"input": dollars("0.1")})

counts = st.one_of(st.none(), st.integers(0, 300_000))
text_usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    cache_write_1h_tokens=counts,
    reasoning_tokens=counts,
)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    input_audio_tokens=counts,
    input_image_tokens=counts,
    cached_audio_tokens=counts,
    reasoning_tokens=counts,
    output_audio_tokens=counts,
    web_searches=counts,
)


def test_plain_counts():
    assert cost(CLAUDE, Usage(1000, 200)) == Cost(
        parse_e10("0.003"), parse_e10("0.003"), parse_e10("0.006")
    )


def test_cached_tokens_are_within_the_input():
    usage = Usage(1000, 0, cache_read_tokens=500, cache_write_tokens=300, cache_write_1h_tokens=100)
    want = parse_e10("0.0006") + parse_e10("0.00015") + parse_e10("0.00075") + parse_e10("0.0006")
    assert cost(CLAUDE, usage).total_e10 == want


def test_above_the_threshold_the_whole_request_is_dearer():
    assert cost(CLAUDE, Usage(200_000, 0)).total_e10 == parse_e10("0.6")
    assert cost(CLAUDE, Usage(200_001, 0)).total_e10 == parse_e10("1.200006")
    assert cost(CLAUDE, Usage(200_001, 1000)).output_e10 == parse_e10("0.0225")


def test_a_sub_count_above_its_total_is_clamped_and_flagged():
    made = cost(CLAUDE, Usage(7, 0, cache_read_tokens=161))
    assert (made.total_e10, made.flags) == (7 * 3000, ("clamped",))
    reasoning = cost(OMNI, Usage(0, 10, reasoning_tokens=11))
    assert (reasoning.total_e10, reasoning.flags) == (10 * 30_000, ("clamped",))


def test_audio_beyond_what_is_not_cached_must_be_cached_audio():
    usage = Usage(1000, 0, cache_read_tokens=950, input_audio_tokens=900)
    in_e10 = 850 * 20_000 + 100 * 1_000 + 50 * 100_000
    assert cost(OMNI, usage) == Cost(in_e10, 0, in_e10)


def test_cached_audio_that_is_stated_is_what_is_cached():
    usage = Usage(1000, 0, cache_read_tokens=500, input_audio_tokens=600, cached_audio_tokens=450)
    in_e10 = 450 * 20_000 + 50 * 1_000 + 150 * 100_000 + 350 * 10_000
    assert cost(OMNI, usage) == Cost(in_e10, 0, in_e10)
    # It is part of both, and at least what is beyond the rest.
    for stated in (None, 0, 400):
        usage = Usage(
            1000, 0, cache_read_tokens=500, input_audio_tokens=950, cached_audio_tokens=stated
        )
        both = max(stated or 0, 450)
        in_e10 = both * 20_000 + (500 - both) * 1_000 + (950 - both) * 100_000
        in_e10 += (1000 - 500 - (950 - both)) * 10_000
        assert cost(OMNI, usage) == Cost(in_e10, 0, in_e10)
    usage = Usage(1000, 0, cache_read_tokens=100, input_audio_tokens=50, cached_audio_tokens=900)
    in_e10 = 50 * 20_000 + 50 * 1_000 + 900 * 10_000
    assert cost(OMNI, usage) == Cost(in_e10, 0, in_e10)


def test_media_tokens_have_their_own_rates():
    usage = Usage(100, 100, input_audio_tokens=10, input_image_tokens=20, output_audio_tokens=5)
    made = cost(OMNI, usage)
    assert made.input_e10 == 10 * 100_000 + 20 * 50_000 + 70 * 10_000
    assert made.output_e10 == 5 * 400_000 + 95 * 40_000


def test_absent_totals_are_at_least_their_parts():
    assert cost(CLAUDE, Usage(cache_read_tokens=10)).total_e10 == 10 * 3000
    assert cost(OMNI, Usage(output_audio_tokens=10)).total_e10 == 10 * 400_000


def test_searches_cost_extra():
    made = cost(CLAUDE, Usage(0, 0, web_searches=3))
    assert (made.output_e10, made.total_e10) == (parse_e10("0.03"), parse_e10("0.03"))


def test_counts_without_a_price_are_flagged_never_silently_free():
    assert cost(EMBED, Usage(10, 0)).flags == ()
    assert cost(EMBED, Usage(10, 5)).flags == ("unpriced",)
    assert cost(EMBED, Usage(input_ms=10)).flags == ("unpriced",)
    assert cost(EMBED, Usage(10, web_searches=1)).flags == ("unpriced",)
    assert cost(CLAUDE, Usage(10, 5, images=1)).flags == ()


@pytest.mark.parametrize("bad", [-1, COUNT_MAX + 1])
@pytest.mark.parametrize("name", ["input_tokens", "output_tokens", "cache_read_tokens", "pages"])
def test_absurd_counts_are_flagged_for_quarantine(name, bad):
    made = cost(CLAUDE, replace(Usage(5, 5), **{name: bad}))
    assert made == Cost(0, 0, 0, ("absurd",))


def test_short_recordings_are_billed_at_the_minimum():
    rates = make_rates("test/1", "w", {"input_ms": dollars("0.036", 3_600_000)}, min_ms=10_000)
    assert cost(rates, Usage(input_ms=4)).total_e10 == parse_e10("0.0001")
    assert cost(rates, Usage(input_ms=20_000)).total_e10 == parse_e10("0.0002")
    assert cost(rates, Usage(input_ms=0)).total_e10 == 0


def test_hours_and_thousands_are_exact():
    assert dollars("0.111", 3_600_000) * 3_600_000 == Fraction("0.111") * DENOMINATOR
    assert dollars("0.13999999999999999") * PER_M == Fraction("0.13999999999999999") * DENOMINATOR


def test_negative_prices_and_unknown_kinds_are_refused():
    with pytest.raises(RateError):
        weight(-1, 1, 1)
    with pytest.raises(RateError, match="gold"):
        make_rates("test/1", "m", {"gold": 1})


# --- laws ----------------------------------------------------------------------------------------


@given(st.sampled_from([CLAUDE, OMNI, EMBED]), usages)
def test_parts_add_up_and_nothing_is_negative(rates, usage):
    made = cost(rates, usage)
    assert made.input_e10 + made.output_e10 == made.total_e10
    assert min(made.input_e10, made.output_e10) >= 0


@given(st.sampled_from([CLAUDE, OMNI]), text_usages)
def test_the_short_way_and_the_long_way_agree(rates, usage):
    flagless = cost(rates, usage)
    long_way = cost(rates, replace(usage, pages=1))
    assert flagless.total_e10 == long_way.total_e10
    assert set(flagless.flags) == set(long_way.flags) - {"unpriced"}


@given(st.sampled_from([CLAUDE, OMNI]), usages)
def test_per_token_bounds_cover_every_kind(rates, usage):
    usage = replace(
        usage,
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        web_searches=None,
    )
    most_e18 = usage.input_tokens * rates.input_max_e18 + usage.output_tokens * rates.output_max_e18
    assert cost(rates, usage).total_e10 <= divide_up(most_e18, 10**8)


def test_every_kind_falls_back_to_kinds_that_exist():
    assert all(set(relatives) <= RELATIVES.keys() for relatives in RELATIVES.values())


# --- several models, own figures -----------------------------------------------------------------


def resolve(model):
    return {None: CLAUDE, "claude": CLAUDE, "omni": OMNI}.get(model)


def test_parts_are_priced_each_by_its_own_model():
    parts = (Usage(1000, 100), Usage(1000, 100, model="omni"))
    made = cost_of(Usage(2000, 200, parts=parts, web_searches=1), resolve)
    assert made == Cost(
        parse_e10("0.003") + parse_e10("0.001"),
        parse_e10("0.0015") + parse_e10("0.0004") + parse_e10("0.01"),
        parse_e10("0.0159"),
    )


def test_parts_together_are_rounded_once():
    tiny = make_rates("test/1", "t", {"input": dollars("0.00004"), "output": 0})
    parts = (Usage(1, 0), Usage(1, 0))
    assert cost(tiny, Usage(1, 0)).total_e10 == 0
    assert cost_of(Usage(2, 0, parts=parts), lambda _: tiny).total_e10 == 1


def test_a_part_of_unknown_model_takes_the_asked_models_price_and_a_flag():
    made = cost_of(Usage(10, 0, parts=(Usage(10, 0, model="new"),)), resolve)
    assert (made.total_e10, made.flags) == (10 * 30_000, ("part_unpriced",))
    assert cost_of(Usage(10, 0, parts=(Usage(10, 0, model="new"),)), lambda _: None) is None


def test_the_providers_own_figure_is_the_total():
    usage = Usage(1000, 200, cost_e10=parse_e10("0.009"))
    assert cost_of(usage, resolve) == Cost(
        parse_e10("0.0045"), parse_e10("0.0045"), parse_e10("0.009"), ("provider_cost",)
    )
    assert cost_of(usage, resolve, own_cost=False) == cost(CLAUDE, usage)


def test_the_providers_own_figure_needs_no_price():
    usage = Usage(1000, 200, cost_e10=77, model="nobody's")
    assert cost_of(usage, resolve) == Cost(0, 77, 77, ("provider_cost",))
    assert cost_of(replace(usage, cost_e10=0), resolve).total_e10 == 0


def test_an_absurd_own_figure_is_not_taken():
    usage = Usage(1000, 200, cost_e10=-5)
    assert cost_of(usage, resolve) == cost(CLAUDE, usage)


def test_unknown_model_without_a_figure_has_no_cost():
    assert cost_of(NO_USAGE.with_model("nobody's"), resolve) is None


def test_searches_that_parts_state_are_not_counted_twice():
    parts = (Usage(0, 0, web_searches=1), Usage(0, 0, web_searches=2))
    made = cost_of(Usage(0, 0, parts=parts, web_searches=3), resolve)
    assert made.total_e10 == parse_e10("0.03")


def test_absurd_searches_beside_parts_are_not_priced():
    made = cost_of(Usage(0, 0, parts=(Usage(0, 0),), web_searches=-3), resolve)
    assert (made.total_e10, made.flags) == (0, ("absurd",))


def test_reasoning_with_its_own_rate_is_within_the_output():
    assert cost(OMNI, Usage(0, 10, reasoning_tokens=4)).total_e10 == 4 * 30_000 + 6 * 40_000
