"""No charge within what was quoted is above the hold, and a lowered cap fits the hold it got."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_adapters.contract import Ask, ToolFee, Usage
from lava_adapters.model_limits import NO_LIMITS, ModelLimits
from lava_proxy.core.errors import LavaError
from lava_proxy.rules.charge import Counts, charge, units_of
from lava_proxy.rules.gauge import FREE, UNBOUNDED, Gauge, gauge
from lava_proxy.rules.holding import check_bounded
from lava_proxy.rules.price import cost
from lava_proxy.rules.quote import (
    CHARACTERS_PER_TOKEN_MOST,
    OutputLimits,
    Quote,
    gauge_of,
    quote,
)
from lava_proxy.rules.rates import RELATIVES, Rates, make_rates
from lava_proxy.rules.settlement import Enforcement
from lava_proxy.rules.tiers import RATE_MAX_E12, Tariff, Tier, check_tiers

E12 = 10**12
LIMITS = OutputLimits(slice_tokens=256, floor_tokens=16, default_tokens=4096)

rate = st.integers(0, 10**8) | st.integers(0, RATE_MAX_E12)
starts = st.lists(st.integers(1, 5000), max_size=4, unique=True).map(sorted)


@st.composite
def tariffs(draw: st.DrawFn, *units: str, kind: str = "fixed") -> Tariff:
    """Rising and falling tiers."""
    rows = [Tier(start, draw(rate)) for start in (0, *draw(starts))]
    unit = draw(st.sampled_from(units))
    return Tariff(kind, unit, check_tiers(rows))  # type: ignore[arg-type]


TOKEN_KINDS = [kind for kind in RELATIVES if kind == "request" or RELATIVES[kind]]
weights = st.fixed_dictionaries(
    {"input": st.integers(0, 9 * 10**20), "output": st.integers(0, 9 * 10**20)},
    optional={kind: st.integers(0, 9 * 10**20) for kind in TOKEN_KINDS},
)
text_weights = st.fixed_dictionaries(
    {"input": st.integers(0, 9 * 10**20), "output": st.integers(0, 9 * 10**20)},
    optional={
        "reasoning": st.integers(0, 9 * 10**20),
        "request": st.integers(0, 9 * 10**22),
    },
)


def prices(kinds: st.SearchStrategy[dict[str, int]]) -> st.SearchStrategy[Rates]:
    return st.builds(
        lambda base, cliffs: make_rates("v", "m", base, cliffs),
        kinds,
        st.dictionaries(st.integers(1, 4000), kinds, max_size=2),
    )


def the(made: Gauge | None) -> Gauge:
    assert made is not None
    return made


count = st.integers(0, 10_000)


@given(tariffs("tokens_1m", "characters_1m"), count, count, st.integers(0, 20_000))
def test_no_fixed_charge_is_above_its_bound(
    tariff: Tariff, inputs: int, outputs: int, before: int
) -> None:
    bound = the(gauge(tariff, None, text_only=True)).bound_e10(inputs, outputs)
    counts = Counts(inputs, outputs, inputs, outputs)
    assert charge(tariff, before, units_of(tariff.unit, counts)).amount_e10 <= bound


@given(tariffs("requests"), st.integers(0, 10**6))
def test_no_charge_per_request_is_above_its_bound(tariff: Tariff, before: int) -> None:
    bound = the(gauge(tariff, None, text_only=True)).bound_e10(0, 0)
    assert charge(tariff, before, 1).amount_e10 <= bound


percentages = tariffs("tokens_1m", "characters_1m", "requests", kind="percentage")


@given(percentages, prices(weights), st.data(), st.integers(0, 20_000))
def test_no_percentage_is_above_its_bound(
    tariff: Tariff, rates: Rates, data: st.DataObject, before: int
) -> None:
    """Whatever the tokens were: cached, written, heard, seen or thought."""
    inputs, outputs = data.draw(count), data.draw(count)
    usage = Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        cache_read_tokens=data.draw(st.integers(0, inputs)),
        cache_write_tokens=data.draw(st.integers(0, inputs)),
        cache_write_1h_tokens=data.draw(st.integers(0, inputs)),
        input_audio_tokens=data.draw(st.integers(0, inputs)),
        input_image_tokens=data.draw(st.integers(0, inputs)),
        reasoning_tokens=data.draw(st.integers(0, outputs)),
        output_audio_tokens=data.draw(st.integers(0, outputs)),
        output_image_tokens=data.draw(st.integers(0, outputs)),
    )
    bound = the(gauge(tariff, rates, text_only=False)).bound_e10(inputs, outputs)
    units = units_of(tariff.unit, Counts(inputs, outputs, inputs, outputs))
    price_e10 = cost(rates, usage).total_e10
    assert charge(tariff, before, units, price_e10).amount_e10 <= bound


@given(percentages, prices(text_weights), count, count, st.data())
def test_no_percentage_of_plain_text_is_above_its_bound(
    tariff: Tariff, rates: Rates, inputs: int, outputs: int, data: st.DataObject
) -> None:
    """Reasoning is text too, and a fee per request may depend on the length."""
    thought = data.draw(st.integers(0, outputs))
    usage = Usage(input_tokens=inputs, output_tokens=outputs, reasoning_tokens=thought)
    bound = the(gauge(tariff, rates, text_only=True)).bound_e10(inputs, outputs)
    price_e10 = cost(rates, usage).total_e10
    assert charge(tariff, 0, inputs + outputs, price_e10).amount_e10 <= bound


def test_a_fee_per_request_that_depends_on_the_length_is_covered() -> None:
    percent = Tariff("percentage", "tokens_1m", (Tier(0, 100 * E12),))
    cheap, dear = {"input": 0, "output": 0, "request": 1}, {"input": 0, "output": 0}
    rates = make_rates("v", "m", cheap, {10: {**dear, "request": 9 * 10**20}})
    price_e10 = cost(rates, Usage(input_tokens=11, output_tokens=0)).total_e10
    assert price_e10 == 10**6
    for text_only in (True, False):
        assert the(gauge(percent, rates, text_only=text_only)).bound_e10(11, 0) >= price_e10


BESIDE = ("input_ms", "input_characters", "image", "page")
beside_weights = st.dictionaries(st.sampled_from(BESIDE), st.integers(0, 9 * 10**20))


@given(
    percentages,
    prices(beside_weights),
    st.integers(0, 20_000),
    count,
    count,
    count,
    count,
    st.data(),
)
def test_what_is_known_beside_tokens_is_covered(
    tariff: Tariff,
    rates: Rates,
    min_ms: int,
    ms: int,
    spoken: int,
    images: int,
    pages: int,
    data: st.DataObject,
) -> None:
    rates = replace(rates, min_ms=min_ms)
    usage = Usage(
        input_ms=data.draw(st.integers(0, ms)),
        input_characters=spoken,
        images=images,
        pages=pages,
    )
    ask = Ask(input_ms=0, input_ms_most=ms, input_characters=spoken, images=images, pages=pages)
    bound = gauge_of(ask, the(gauge(tariff, rates, text_only=True)), "strict", LIMITS).bound_e10(
        0, 0
    )
    assert charge(tariff, 0, spoken, cost(rates, usage).total_e10).amount_e10 <= bound


@given(tariffs("minutes"), st.integers(0, 10**8), st.integers(0, 10**8), st.data())
def test_no_charge_by_time_is_above_its_bound(
    tariff: Tariff, before: int, ms: int, data: st.DataObject
) -> None:
    made = the(gauge(tariff, None, text_only=True))
    found = gauge_of(Ask(input_ms_most=ms), made, "strict", LIMITS)
    taken = charge(tariff, before, data.draw(st.integers(0, ms))).amount_e10
    assert taken <= found.bound_e10(0, 0)


def test_a_percentage_needs_a_price() -> None:
    percent = Tariff("percentage", "tokens_1m", (Tier(0, 120 * E12),))
    assert gauge(percent, None, text_only=True) is None


gauges = st.builds(
    Gauge,
    st.sampled_from(["tokens", "characters"]),
    st.integers(0, 10**14),
    st.integers(0, 10**14),
    st.integers(0, 10**14),
)


@given(gauges, count, count)
def test_what_is_affordable_is_exactly_what_fits(made: Gauge, inputs: int, outputs: int) -> None:
    held = made.bound_e10(inputs, outputs)
    affordable = made.affordable_outputs(held, inputs)
    assert affordable >= outputs
    if affordable < UNBOUNDED:
        assert made.bound_e10(inputs, affordable) <= held < made.bound_e10(inputs, affordable + 1)
    assert made.affordable_outputs(made.bound_e10(inputs, 0) - 1, inputs) == 0


# Quotes ----------------------------------------------------------------------------------------

fees: st.SearchStrategy[tuple[tuple[ToolFee, int | None], ...]] = st.lists(
    st.tuples(st.sampled_from(get_args(ToolFee)), st.none() | st.integers(0, 20)),
    max_size=3,
    unique_by=lambda fee: fee[0],
).map(tuple)
asks = st.builds(
    Ask,
    model=st.just("m"),
    stream=st.booleans(),
    output_cap=st.none() | st.integers(1, 10_000),
    choices=st.integers(1, 5),
    input_bytes=st.integers(0, 5000),
    text_bytes=st.integers(0, 5000),
    media_tokens=st.integers(0, 500),
    hidden_input=st.booleans(),
    capable_of_cap=st.booleans(),
    background=st.booleans(),
    makes_output=st.booleans(),
    input_characters=st.none() | st.integers(0, 500),
    tool_fees=fees,
    rounds=st.none() | st.integers(1, 9),
)
tokens = st.none() | st.integers(1, 2_000_000)
models = st.builds(ModelLimits, output=tokens, window=tokens)
modes = st.sampled_from(["sliced", "strict", "soft"])


def made(ask: Ask, using: Gauge, mode: Enforcement) -> Quote:
    return quote(ask, using, mode, LIMITS, body_bytes=2 * ask.input_bytes)


@given(asks, gauges | st.just(FREE), modes)
def test_the_least_is_never_more_than_what_is_wanted(
    ask: Ask, using: Gauge, mode: Enforcement
) -> None:
    found = made(ask, using, mode)
    assert 0 <= found.least_e10 <= found.want_e10
    assert found.ceiling == (mode == "strict" or not ask.stream or ask.background)
    assert found.adjustable <= (found.ceiling and ask.capable_of_cap)
    assert found.cap_for(found.want_e10) in (None, found.cap_tokens)


@given(asks, gauges, modes, st.data())
def test_a_lowered_cap_fits_the_hold_and_is_not_below_the_floor(
    ask: Ask, using: Gauge, mode: Enforcement, data: st.DataObject
) -> None:
    found = made(ask, using, mode)
    held = data.draw(st.integers(found.least_e10, found.want_e10))
    cap = found.cap_for(held)
    if cap is None:
        if found.adjustable:  # the caller's own cap fits
            assert using.bound_e10(found.inputs, found.cap_tokens * ask.choices) <= held
        return
    assert found.adjustable
    assert min(LIMITS.floor_tokens, found.cap_tokens) <= cap <= found.cap_tokens
    assert using.bound_e10(found.inputs, cap * ask.choices) <= held


@given(asks, gauges)
def test_a_strict_call_without_a_cap_gets_one(ask: Ask, using: Gauge) -> None:
    found = made(ask, using, "strict")
    if found.adjustable and ask.output_cap is None:
        assert found.cap_for(found.want_e10) == LIMITS.default_tokens


@given(asks, tariffs("tokens_1m"), st.data(), st.integers(0, 10_000))
def test_a_call_within_its_ceiling_is_covered(
    ask: Ask, tariff: Tariff, data: st.DataObject, before: int
) -> None:
    """strict: with the cap that is set, no charge is above the hold."""
    found = made(ask, the(gauge(tariff, None, text_only=True)), "strict")
    held = data.draw(st.integers(found.least_e10, found.want_e10))
    cap = found.cap_for(held) or found.cap_tokens
    outputs = data.draw(st.integers(0, cap * ask.choices)) if ask.makes_output else 0
    inputs = data.draw(st.integers(0, ask.input_bytes + ask.media_tokens))
    assert charge(tariff, before, inputs + outputs).amount_e10 <= held


TOOLS = {"web_search": "web_searches", "file_search": "file_searches"}
TOOLS |= {"container": "containers", "search_unit": "search_units"}
dear = st.integers(10**18, 9 * 10**20)
every_weight = st.fixed_dictionaries(
    dict.fromkeys(("input", "output"), dear) | dict.fromkeys(TOOLS, st.integers(10**21, 10**22)),
    optional=dict.fromkeys(TOKEN_KINDS, dear),
)
PLAIN = Ask(input_bytes=100, text_bytes=100, output_cap=10)
BY_TOKEN = Tariff("fixed", "tokens_1m", (Tier(0, 10 * E12),))
BY_CHARACTER = Tariff("fixed", "characters_1m", (Tier(0, 10 * E12),))
BY_COST = Tariff("percentage", "tokens_1m", (Tier(0, 100 * E12),))


@pytest.mark.parametrize("tariff", [BY_TOKEN, BY_CHARACTER, BY_COST])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"hidden_input": True},
        {"hidden_input": True, "rounds": 3},
        {"output_cap": None, "capable_of_cap": True},
        {"output_cap": None, "capable_of_cap": True, "choices": 3},
        *({"tool_fees": ((kind, 4),)} for kind in get_args(ToolFee) if kind != "picture"),
    ],
)
@pytest.mark.parametrize("model", [NO_LIMITS, ModelLimits(500, 1_000_000)])
def test_the_worst_of_each_kind_is_covered(
    tariff: Tariff, changed: dict[str, Any], model: ModelLimits
) -> None:
    ask = replace(PLAIN, **changed)
    usd = dict.fromkeys(("input", "output"), 9 * 10**18) | dict.fromkeys(TOOLS, 9 * 10**22)
    rates = make_rates("v", "m", usd)
    using = gauge_of(ask, the(gauge(tariff, rates, text_only=False)), "strict", LIMITS)
    plan = quote(ask, using, "strict", LIMITS, body_bytes=200, model=model)
    assert plan.unbounded is None
    for held in (plan.least_e10, plan.want_e10):
        assert 0 < worst_e10(ask, tariff, rates, model, plan.cap_for(held)) <= held


percent = st.builds(
    lambda rate_e12: Tariff("percentage", "tokens_1m", (Tier(0, rate_e12),)),
    st.integers(E12, 200 * E12),
)
every_tariff = tariffs("tokens_1m", "characters_1m") | percent
bold_asks = st.builds(
    replace,
    asks,
    output_cap=st.none() | st.integers(1, 1000),
    hidden_input=st.booleans(),
    capable_of_cap=st.sampled_from((True, True, False)),
    makes_output=st.just(True),
    tool_fees=fees,
    rounds=st.sampled_from((1, 1, 3, None)),
)


def worst_e10(ask: Ask, tariff: Tariff, rates: Rates, model: ModelLimits, cap: int | None) -> int:
    """The charge when everything happens that may: the provider obeys the cap that it gets, or the
    caller's, or its own; it reads what its window holds, once a round; it uses its tools as often
    as it may; and every token of it is a long run of blanks."""
    longest = cap or ask.output_cap or model.output or ENDLESS
    made = longest * ask.choices if ask.makes_output else 0
    read = ask.input_bytes + ask.media_tokens
    if ask.hidden_input:
        read = max(read, model.window or 1_048_576)
    read *= ask.rounds or ENDLESS
    used = {TOOLS[kind]: ENDLESS if n is None else n for kind, n in ask.tool_fees if kind in TOOLS}
    spoken = ask.input_characters
    usage = Usage(input_tokens=read, output_tokens=made, input_characters=spoken, **used)
    given = ask.text_bytes if spoken is None else spoken
    counts = Counts(read, made, given, made * CHARACTERS_PER_TOKEN_MOST)
    return charge(tariff, 0, units_of(tariff.unit, counts), cost(rates, usage).total_e10).amount_e10


@given(bold_asks, every_tariff, prices(every_weight), models, st.data())
def test_strict_is_a_bound_of_all_that_a_provider_may_do(
    ask: Ask, tariff: Tariff, rates: Rates, model: ModelLimits, data: st.DataObject
) -> None:
    using = gauge_of(ask, the(gauge(tariff, rates, text_only=False)), "strict", LIMITS)
    plan = quote(ask, using, "strict", LIMITS, body_bytes=2 * ask.input_bytes, model=model)
    if plan.unbounded is not None:
        return
    held = data.draw(st.sampled_from((plan.least_e10, plan.want_e10)))
    cap = plan.cap_for(held)
    assert cap is None or ask.capable_of_cap
    assert worst_e10(ask, tariff, rates, model, cap) <= held


ENDLESS = 10**6
"""What nobody bounds."""


@pytest.mark.parametrize(
    ("ask", "model", "bounded"),
    [
        (Ask(input_bytes=10, capable_of_cap=True), NO_LIMITS, True),
        (Ask(input_bytes=10, output_cap=5), NO_LIMITS, True),
        (Ask(input_bytes=10), ModelLimits(output=5), True),
        (Ask(input_bytes=10), NO_LIMITS, False),
        (Ask(input_bytes=10, makes_output=False), NO_LIMITS, True),
        (Ask(output_cap=5, rounds=None), NO_LIMITS, False),
        (Ask(output_cap=5, rounds=4), NO_LIMITS, True),
        (Ask(output_cap=5, tool_fees=(("web_search", None),)), NO_LIMITS, False),
        (Ask(output_cap=5, tool_fees=(("web_search", 3),)), NO_LIMITS, True),
        (Ask(output_cap=5, tool_fees=(("picture", 3),)), NO_LIMITS, False),
        (Ask(output_cap=5, tool_fees=(("picture", 0),)), NO_LIMITS, True),
    ],
)
def test_what_strict_can_bound(ask: Ask, model: ModelLimits, bounded: bool) -> None:
    rates = make_rates("v", "m", {"input": 1, "output": 1, "web_search": 9 * 10**22})
    percent = Tariff("percentage", "tokens_1m", (Tier(0, 100 * E12),))
    using = gauge_of(ask, the(gauge(percent, rates, text_only=False)), "strict", LIMITS)
    plan = quote(ask, using, "strict", LIMITS, body_bytes=10, model=model)
    assert (plan.unbounded is None) == bounded
    if not bounded:
        with pytest.raises(LavaError, match="strict meter cannot bound"):
            check_bounded(plan)
    assert quote(ask, using, "sliced", LIMITS, body_bytes=10, model=model).unbounded is None


def test_a_fee_that_a_meter_does_not_charge_needs_no_bound() -> None:
    ask = Ask(output_cap=5, tool_fees=(("web_search", None), ("picture", None)))
    by_token = the(gauge(Tariff("fixed", "tokens_1m", (Tier(0, E12),)), None, text_only=False))
    assert quote(ask, by_token, "strict", LIMITS, body_bytes=10).unbounded is None


@given(asks)
def test_what_costs_nothing_holds_nothing(ask: Ask) -> None:
    found = made(ask, FREE, "strict")
    assert (found.least_e10, found.want_e10, found.cap_for(0)) == (0, 0, None)
