"""No charge within what was quoted is above the hold, and a lowered cap fits the hold it got."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lava_adapters.contract import Ask, Usage
from lava_proxy.rules.charge import Counts, charge, units_of
from lava_proxy.rules.gauge import FREE, UNBOUNDED, Gauge, gauge
from lava_proxy.rules.price import cost
from lava_proxy.rules.quote import OutputLimits, Quote, gauge_of, quote
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
)
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


@given(asks)
def test_what_costs_nothing_holds_nothing(ask: Ask) -> None:
    found = made(ask, FREE, "strict")
    assert (found.least_e10, found.want_e10, found.cap_for(0)) == (0, 0, None)
