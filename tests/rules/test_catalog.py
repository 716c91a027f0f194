"""The catalogue: which price holds, when, and that it agrees with genai-prices to the last digit.

The oracle is genai_prices.calc_price: exact Decimal sums, rounded half up to 10 places. Left out
are the documented differences: counts it refuses (sub-counts above totals), and models without any
price, which it calls free and we call unknown.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext

import pytest
from genai_prices import calc_price, data_snapshot
from genai_prices.types import (
    ConditionalPrice,
    ModelPrice,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.types import Usage as OracleUsage
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lava_adapters.contract import Usage
from lava_adapters.registry import Registry
from lava_proxy.core.money import parse_e10
from lava_proxy.rules import bundled
from lava_proxy.rules import catalog as catalog_module
from lava_proxy.rules.additions import BESIDE
from lava_proxy.rules.bundled import (
    BUNDLED_VERSION,
    MODEL_NAME_MAX,
    bucket,
    compile_rates,
    dearest,
    lists_of,
)
from lava_proxy.rules.catalog import Catalog, Override, compile_override
from lava_proxy.rules.price import cost
from lava_proxy.rules.pricelist import listed
from lava_proxy.rules.rates import DENOMINATOR, RateError

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PROVIDERS = data_snapshot.get_snapshot().providers
MODELS = [(provider, model) for provider in PROVIDERS for model in provider.models]
TIERS = (None, "priority", "flex", "batch", "fast", "default", "nonsense")


def price_sets(model):
    """Every ModelPrice that the data hold for a model."""
    standard = (
        [model.prices]
        if isinstance(model.prices, ModelPrice)
        else [conditional.prices for conditional in model.prices]
    )
    return [*standard, *(variant.prices for variant in model.price_variants or ())]


def decimals(prices):
    for key, price in prices.__dict__.items():
        if isinstance(price, TieredPrices):
            yield from ((key, p) for p in (price.base, *(t.price for t in price.tiers)))
        elif price is not None:
            yield key, price


def oracle_e10(provider_id, model, usage, at, tier):
    """genai-prices' total in 10^-10 USD; LookupError where it knows no such model."""
    minutes = ((usage.input_ms or 0) + (usage.output_ms or 0)) or None
    joint = max(
        (usage.cache_read_tokens or 0)
        + (usage.input_audio_tokens or 0)
        - (usage.input_tokens or 0),
        0,
    )
    counts = OracleUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        input_audio_tokens=usage.input_audio_tokens,
        input_image_tokens=usage.input_image_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        output_image_tokens=usage.output_image_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        cache_audio_read_tokens=joint,
        cache_image_read_tokens=0,
        input_characters=usage.input_characters,
        input_document_pages=usage.pages,
        web_searches=usage.web_searches,
        audio_seconds=None if minutes is None else Decimal(minutes) / 1000,
        input_audio_seconds=None if usage.input_ms is None else Decimal(usage.input_ms) / 1000,
    )
    context = {"service_tier": tier, "speed": tier, "processing": tier} if tier else None
    with localcontext() as decimal_context:
        decimal_context.prec = 60
        total = calc_price(
            counts,
            model,
            provider_id=provider_id,
            genai_request_timestamp=at,
            price_context=context,
        ).total_price
        return int((total * 10**10).to_integral_value(ROUND_HALF_UP))


SWEEP = (
    Usage(1, 1),
    Usage(123_457, 8_191),
    Usage(300_001, 7, cache_read_tokens=299_000, cache_write_tokens=900, cache_write_1h_tokens=13),
    Usage(5_003, 2_001, input_audio_tokens=701, output_audio_tokens=33, output_image_tokens=1_290),
    Usage(5_003, 2_001, cache_read_tokens=4_500, input_audio_tokens=701, reasoning_tokens=1_999),
    Usage(600_000, 99, input_image_tokens=258, web_searches=3),
    Usage(input_characters=4_321, input_ms=61_337, pages=7),
)


def added_to(provider, model):
    """Whether we price something beside what the data say of this model itself."""
    return any(n and model.id.startswith(n) for theirs, n in BESIDE if theirs == provider.id)


def test_every_bundled_model_agrees_with_the_oracle():
    agreed, unpriced, wrong = 0, 0, []
    for provider, model in MODELS:
        if added_to(provider, model):
            continue  # which the oracle does not have: tests/rules/test_bills.py
        rates = compile_rates(provider.id, model.id, NOW)
        if rates is None:
            unpriced += 1
            assert provider.find_model(model.id) is None or all(
                oracle_e10(provider.id, model.id, usage, NOW, None) == 0 for usage in SWEEP[:2]
            ), model.id
            continue
        pairs = [
            (cost(rates, usage).total_e10, oracle_e10(provider.id, model.id, usage, NOW, None))
            for usage in SWEEP
        ]
        if all(ours == theirs for ours, theirs in pairs):
            agreed += 1
        else:
            wrong.append((provider.id, model.id, pairs))
    assert wrong == []
    assert agreed > 2000
    assert unpriced < 150


def test_every_provider_finds_its_prices_under_the_name_its_row_gives():
    known = {p.id: p.prices for p in Registry.builtin().providers if p.prices}
    named = Catalog(bundled=known)
    assert named.rates("azure-foundry", "gpt-4o", NOW) is not None
    assert Catalog().rates("azure-foundry", "gpt-4o", NOW) is None
    for theirs in known.values():
        assert lists_of(theirs), theirs


def test_every_service_tier_agrees_with_the_oracle():
    checked = 0
    for provider, model in MODELS:
        if not model.price_variants:
            continue
        for tier in TIERS[1:]:
            rates = compile_rates(provider.id, model.id, NOW, tier)
            for usage in SWEEP[:4] if rates else ():
                theirs = oracle_e10(provider.id, model.id, usage, NOW, tier)
                assert cost(rates, usage).total_e10 == theirs, (model.id, tier, usage)
                checked += 1
    assert checked > 500


counts = st.integers(0, 1_000_000)


@st.composite
def coherent_usages(draw):
    """Counts whose sub-counts fit in their totals."""
    read, write, audio, image, rest = (draw(counts) for _ in range(5))
    hour = draw(st.integers(0, write))
    reasoning, out_audio, out_image, text = (draw(counts) for _ in range(4))
    joint = draw(st.integers(0, min(read, audio)))
    media = draw(st.booleans())
    return Usage(
        input_tokens=read
        + write
        + (audio + image - joint if media else 0)
        + (0 if joint else rest),
        output_tokens=reasoning + out_audio + out_image + text,
        cache_read_tokens=read,
        cache_write_tokens=write if not media else 0,
        cache_write_1h_tokens=hour if not media else 0,
        input_audio_tokens=audio if media else 0,
        reasoning_tokens=reasoning,
        output_audio_tokens=out_audio,
        output_image_tokens=out_image,
        web_searches=draw(st.integers(0, 9)),
        pages=draw(st.integers(0, 99)),
        input_characters=draw(counts),
        input_ms=draw(st.integers(0, 10**7)),
    )


@settings(max_examples=400)
@given(
    st.sampled_from(MODELS),
    coherent_usages(),
    st.sampled_from(TIERS),
    st.integers(0, 60 * 24 * 500),
)
def test_any_model_any_usage_any_time_agrees(entry, usage, tier, minutes):
    provider, model = entry
    at = NOW - timedelta(days=200) + timedelta(minutes=minutes)
    rates = compile_rates(provider.id, model.id, at, tier)
    assume(rates is not None and not added_to(provider, model))
    try:
        theirs = oracle_e10(provider.id, model.id, usage, at, tier)
    except ValueError:
        assume(False)
    assert cost(rates, usage).total_e10 == theirs


def test_every_listed_price_is_held_exactly():
    for _, model in MODELS:
        for prices in price_sets(model):
            for key, price in decimals(prices):
                if key in bundled._BUNDLED_UNITS:
                    numerator, denominator = price.as_integer_ratio()
                    per = bundled._BUNDLED_UNITS[key][1]
                    assert numerator * DENOMINATOR % (denominator * per) == 0, (model.id, price)


def test_every_time_boundary_in_the_data_is_a_whole_minute():
    times = [
        edge
        for _, model in MODELS
        if isinstance(model.prices, list)
        for conditional in model.prices
        if isinstance(conditional, ConditionalPrice)
        and isinstance(conditional.constraint, TimeOfDateConstraint)
        for edge in (conditional.constraint.start_time, conditional.constraint.end_time)
    ]
    assert times
    assert all(edge.second == 0 and edge.microsecond == 0 for edge in times)


# --- which price ---------------------------------------------------------------------------------


def test_known_models_of_the_big_providers():
    made = {
        (provider, model): cost(compile_rates(provider, model, NOW), Usage(1_000_000, 0)).total_e10
        for provider, model in (("openai", "gpt-4o-mini"), ("anthropic", "claude-haiku-4-5"))
    }
    assert made == {
        ("openai", "gpt-4o-mini"): parse_e10("0.15"),
        ("anthropic", "claude-haiku-4-5"): parse_e10("1"),
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "model"),
    [
        ("bedrock", "aws", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("xai", "x-ai", "grok-3"),
        ("azure", "openai", "gpt-4o-mini"),
    ],
)
def test_other_names_and_borrowed_models(ours, theirs, model):
    ours_rates, their_rates = compile_rates(ours, model, NOW), compile_rates(theirs, model, NOW)
    assert ours_rates
    assert their_rates
    fee = {"container": their_rates.base.container}  # of the host, not of the model
    assert replace(ours_rates.base, **fee) == their_rates.base
    assert ours_rates.cliffs == their_rates.cliffs
    assert compile_rates(ours, model, NOW) is not None


@pytest.mark.parametrize(
    ("provider", "model", "usage", "usd"),
    [
        ("voyage", "rerank-2", Usage(1_000_000, 0), "0.05"),
        ("voyage", "rerank-2.5-lite", Usage(1_000_000, 0), "0.02"),
        ("elevenlabs", "eleven_multilingual_v2", Usage(input_characters=1000), "0.08"),
        ("elevenlabs", "eleven_v4", Usage(input_characters=1000), "0.08"),
        # A thousand characters are stated as 500 credits.
        ("elevenlabs", "eleven_turbo_v2_5", Usage(input_characters=500), "0.04"),
        ("elevenlabs", "scribe_v1", Usage(input_ms=3_600_000), "0.22"),
        ("deepgram", "nova-3", Usage(input_ms=90_000), "0.01155"),
        ("deepgram", "nova-2", Usage(input_ms=60_000), "0.0043"),
        ("deepgram", "nova-2-phonecall", Usage(input_ms=60_000), "0.0043"),
        ("deepgram", "aura-asteria-en", Usage(input_characters=1000), "0.015"),
        ("deepgram", "aura-2-thalia-en", Usage(input_characters=1000), "0.03"),
        ("deepgram", "aura-2", Usage(input_characters=1000), "0.03"),
        ("cohere", "rerank-v4.0-pro", Usage(search_units=2), "0.005"),
        ("vertex", "claude-sonnet-4-5", Usage(0, 0, web_searches=3), "0.03"),
        ("azure", "gpt-4o", Usage(0, 0, containers=4), "0.132"),
        ("openai", "gpt-4o", Usage(0, 0, containers=4), "0.12"),
        ("fireworks", "whisper-v3-turbo", Usage(input_ms=60_000), "0.0009"),
    ],
)
def test_prices_that_the_data_lack(provider, model, usage, usd):
    known = {p.id: p.prices for p in Registry.builtin().providers if p.prices}
    rates = Catalog(bundled=known).rates(provider, model, NOW)
    assert rates is not None
    assert cost(rates, usage).total_e10 == parse_e10(usd)
    assert cost(rates, usage).flags == ()


def test_a_beginning_is_no_price_for_others():
    """A model that nobody knows is not free because something beside it has a price."""
    known = {p.id: p.prices for p in Registry.builtin().providers if p.prices}
    priced = Catalog(bundled=known)
    for provider, model in (
        ("vertex", "claude-of-tomorrow"), ("deepgram", "nova-4"), ("deepgram", "nova-20"),
        ("deepgram", "auras"), ("openai", "dall-e-3"), ("voyage", "rerank-2-of-tomorrow"),
    ):  # fmt: skip
        assert priced.rates(provider, model, NOW) is None, model


ROUTER = "huggingface_{suffix}"
"""The router's row: each server behind it has a list of its own."""


@pytest.mark.parametrize("server", ["together", "novita", "nebius", "fireworks-ai", "groq"])
def test_a_routers_model_is_priced_by_who_serves_it(server):
    priced = Catalog(bundled={"huggingface": ROUTER})
    ((theirs, _),) = lists_of(f"huggingface_{server}")
    for info in theirs.models:
        rates = priced.rates("huggingface", f"{info.id}:{server}", NOW)
        wanted = compile_rates(f"huggingface_{server}", info.id, NOW)
        assert (rates and rates.model) == (wanted and wanted.model)
        assert str(rates and rates.base) == str(wanted and wanted.base)
    assert rates is not None
    assert priced.rates("huggingface", theirs.models[0].id, NOW) is None
    assert priced.rates("huggingface", f"{theirs.models[0].id}:fastest", NOW) is None
    shown = set(listed(ROUTER, NOW))
    assert f"{theirs.models[0].id}:{server}" in shown
    assert priced.dearest("huggingface", NOW).base.input >= rates.base.input


def test_bedrock_takes_names_without_their_version():
    for name in ("openai.gpt-oss-20b", "openai.gpt-oss-120b"):
        assert compile_rates("aws", name, NOW).base == compile_rates("aws", name + "-1:0", NOW).base
    assert compile_rates("openai", "gpt-oss-20b-1:0", NOW) is None
    # Its price is in no list: unknown stays unknown.
    assert compile_rates("aws", "openai.gpt-oss-safeguard-20b", NOW) is None


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "no-such-model"),
        ("no-such-provider", "gpt-4o"),
        ("", "gpt-4o"),
        ("openai", ""),
        ("openai", "gpt-4o" + "x" * MODEL_NAME_MAX),
        ("litellm", "openai/gpt-4o"),
        ("openai", "\x00\ud800"),
    ],
)
def test_unknown_is_none_and_never_raises(provider, model):
    assert compile_rates(provider, model, NOW) is None


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=9))
@settings(max_examples=50)
def test_no_name_raises(provider, model, tier):
    compile_rates(provider, model, NOW, tier)
    assert compile_rates("openai", "zz" + model, NOW, tier) is None


def test_a_library_fault_is_an_unknown_price(monkeypatch):
    def fault(*_):
        raise ValueError("broken data")

    monkeypatch.setattr(bundled, "_prices", fault)
    assert compile_rates("openai", "gpt-4o", NOW) is None


def test_models_listed_without_a_price_are_unknown_unless_free_by_name():
    bare = [(p.id, m.id) for p, m in MODELS if all(not list(decimals(x)) for x in price_sets(m))]
    free = [entry for entry in bare if entry[1].endswith(":free")]
    assert free
    rates = compile_rates(*free[0], NOW)
    assert cost(rates, Usage(10, 10)).total_e10 == 0
    assert compile_rates("openai", "omni-moderation-latest", NOW) is None


def test_dated_prices_change_at_their_date():
    dated = [
        (p.id, m.id, c.constraint.start_date)
        for p, m in MODELS
        if isinstance(m.prices, list)
        for c in m.prices[1:]
        if hasattr(c.constraint, "start_date")
    ]
    changed = 0
    for provider, model, day in dated:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        before = compile_rates(provider, model, start - timedelta(microseconds=1))
        changed += before != compile_rates(provider, model, start)
    assert changed > 50


def test_a_bucket_is_a_utc_minute():
    at = datetime.fromisoformat("2026-11-20T12:34:56.789+05:30")
    assert bucket(at) == datetime(2026, 11, 20, 7, 4, tzinfo=UTC)


def test_prices_say_where_they_come_from():
    assert compile_rates("openai", "gpt-4o", NOW).version == BUNDLED_VERSION
    assert BUNDLED_VERSION.startswith("genai-prices/0.")


# --- overrides -----------------------------------------------------------------------------------


def override(id, match, model, provider="openai", **rates):
    return Override(id, provider, match, model, tuple(rates.items()))


TABLE = [
    override("short", "prefix", "gpt-", input_1m="1"),
    override("long", "prefix", "gpt-4o", input_1m="2"),
    override("exact", "exact", "GPT-4o-mini", input_1m="3", output_1m="4"),
    override("default", "default", "", input_1m="5"),
    override("speech", "default", "", provider="deepgram", input_minute="0.0043"),
]


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("gpt-4o-mini", "override/exact"),
        ("gpt-4o-2024", "override/long"),
        ("GPT-9", "override/short"),
        ("text-embedding-3-small", BUNDLED_VERSION),
        ("private-model", "override/default"),
    ],
)
def test_the_operators_table_wins(model, version):
    assert Catalog(TABLE).rates("openai", model, NOW).version == version


def test_overrides_of_another_provider_do_not_apply():
    assert Catalog(TABLE).rates("groq", "gpt-9", NOW) is None


def test_override_rates_are_per_named_unit():
    minute = Catalog(TABLE).rates("deepgram", "nova-3", NOW)
    assert cost(minute, Usage(input_ms=90_000)).total_e10 == parse_e10("0.00645")
    rates = compile_override(
        override("x", "exact", "m", input_1m="2", request="0.5", web_search="0.01", image="0.04")
    )
    usage = Usage(1_000_000, 0, web_searches=2, images=3)
    assert cost(rates, usage).total_e10 == parse_e10("2.64")


@pytest.mark.parametrize(
    ("rates", "name"),
    [
        ({"input": "1"}, "input:"),
        ({"input_1m": "-1"}, "input_1m:"),
        ({"input_1m": "1e3"}, "input_1m:"),
        ({}, "rates:"),
    ],
)
def test_bad_overrides_name_the_member(rates, name):
    with pytest.raises(RateError, match=name):
        compile_override(override("x", "exact", "m", **rates))


# --- the table of compiled prices ----------------------------------------------------------------


def test_a_compiled_price_is_kept_for_its_minute(monkeypatch):
    seen = []

    def compiled(provider, model, at, tier):
        seen.append((model, at, tier))

    monkeypatch.setattr(catalog_module, "compile_rates", compiled)
    prices = Catalog()
    for seconds in (0, 30, 59, 60):
        prices.rates("openai", "m", NOW + timedelta(seconds=seconds))
    prices.rates("openai", "m", NOW + timedelta(seconds=61), "flex")
    assert [(model, tier) for model, _, tier in seen] == [("m", None), ("m", None), ("m", "flex")]


def test_the_table_is_bounded():
    prices = Catalog(cache_max=3)
    for index in range(10):
        prices.rates("openai", f"invented-{index}", NOW)
    assert len(prices._cache) == 3


def test_the_dearest_model_is_dearer_than_all_that_make_text():
    for provider in ("openai", "anthropic", "google", "bedrock", "xai"):
        most = dearest(provider, NOW)
        assert most is not None, provider
        sums = [
            (top.input + top.output)
            for owner, model in MODELS
            if owner.id == bundled._provider(provider).id
            and (rates := compile_rates(owner.id, model.id, NOW)) is not None
            and rates.text_priced
            for top in (rates.base, *(band for _, band in rates.cliffs))
        ]
        best = max(band.input + band.output for band in (most.base, *(b for _, b in most.cliffs)))
        assert best >= max(sums), provider
    assert dearest("nobody", NOW) is None
    assert dearest("voyage", NOW) is None  # embeddings only


def test_a_price_of_ones_own_can_be_the_dearest():
    table = [
        override("a", "exact", "tiny", input_1m="1", output_1m="1"),
        override("b", "prefix", "huge", input_1m="9000", output_1m="9000"),
        override("c", "exact", "embed", input_1m="99999"),
    ]
    found = Catalog(table).dearest("openai", NOW)
    assert found is not None
    assert found.version == "override/b"
    assert Catalog(table).dearest("nobody", NOW) is None
    plain = Catalog()
    assert plain.dearest("openai", NOW) is plain.dearest("openai", NOW)


def test_every_tier_of_a_model_is_known_together() -> None:
    catalog = Catalog()
    every = catalog.every_tier("openai", "gpt-5", NOW)
    assert every[0] is catalog.rates("openai", "gpt-5", NOW)
    assert max(each.output_max_e18 for each in every) == 2 * every[0].output_max_e18
    assert catalog.every_tier("openai", "gpt-5", NOW) is every
    assert catalog.every_tier("openai", "nobody's", NOW) == ()
    own = Override("1", "openai", "exact", "gpt-5", (("output_1m", "7"),))
    assert len(Catalog([own]).every_tier("openai", "gpt-5", NOW)) == 1


def test_a_window_is_a_little_more_than_stated_and_bounded_tables_forget() -> None:
    catalog = Catalog(cache_max=2)
    assert catalog.limits("anthropic", "claude-3-haiku").window == 210_000
    assert catalog.limits("anthropic", "claude-sonnet-4-5").window == 1_000_000  # switched on
    assert catalog.limits("openai", None).window is None
    assert catalog.limits("openai", "x" * 1000).window is None
    assert len(catalog._limits) == 2
