"""Estimates: counts without the provider's word, learning, and whose word wins at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_adapters.contract import NO_USAGE, Usage
from lava_proxy.rules.estimate import (
    LEARNED_MAX_E3,
    LEARNED_MIN_E3,
    LONGEST_FROM_TOKENS,
    LONGEST_MOST_TOKENS,
    Learned,
    Profile,
    estimate_tokens,
    final_counts,
    hidden_tokens,
    input_tokens_bound,
    input_tokens_estimate,
)

counts = st.integers(0, 10**6)


def test_bytes_decide_where_events_are_not_tokens():
    assert estimate_tokens(3, 400, 0, Profile(bytes_per_token_e3=4000)) == 100
    assert estimate_tokens(900, 400, 0, Profile(bytes_per_token_e3=4000)) == 100


def test_events_are_a_floor_where_each_is_a_token():
    profile = Profile(one_token_events=True, bytes_per_token_e3=5000)
    assert estimate_tokens(120, 500, 0, profile) == 120
    assert estimate_tokens(20, 500, 0, profile) == 100


def test_factors_and_tool_calls():
    profile = Profile(bytes_per_token_e3=4000, factor_e3=1150)
    assert estimate_tokens(1, 400, 2, profile) == 115 + 20
    assert estimate_tokens(1, 400, 2, profile, learned_e3=2000) == 230 + 20


@given(counts, counts, st.integers(0, 50), st.integers(1, 1000))
def test_an_estimate_never_falls_as_a_stream_goes_on(deltas, size, tools, more):
    for profile in (Profile(), Profile(one_token_events=True, factor_e3=1150)):
        now = estimate_tokens(deltas, size, tools, profile)
        assert estimate_tokens(deltas + more, size + more, tools, profile) >= now
        assert estimate_tokens(deltas, size, tools + 1, profile) > now


def test_silence_costs_tokens():
    assert hidden_tokens(1500) == 150
    assert hidden_tokens(1, rate_per_s=60) == 1
    assert hidden_tokens(-5) == hidden_tokens(0) == 0


@given(st.text(max_size=300))
def test_input_bound_is_above_the_estimate(text):
    size = len(text.encode("utf-8", "surrogatepass"))
    assert input_tokens_bound(size, 85) >= input_tokens_estimate(size, 85) >= 85


def test_input_estimate_is_bytes_over_three_and_a_half():
    assert input_tokens_estimate(3500, 10) == 1010
    assert input_tokens_bound(100, 10, messages=2) == 142


# --- learning ------------------------------------------------------------------------------------


def test_learning_converges_on_the_truth():
    learned = Learned()
    assert learned.factor_e3("p", "m") == 1000
    for _ in range(60):
        learned.learn("p", "m", 1000, 1250)
    assert 1245 <= learned.factor_e3("p", "m") <= 1250
    assert learned.factor_e3("p", "other") == 1000


@given(st.lists(st.tuples(st.integers(-5, 10**7), st.integers(-5, 10**7)), max_size=40))
def test_learned_factors_stay_within_their_clamp(pairs):
    learned = Learned()
    for estimate, truth in pairs:
        learned.learn("p", "m", estimate, truth)
    assert LEARNED_MIN_E3 <= learned.factor_e3("p", "m") <= LEARNED_MAX_E3


def test_short_answers_teach_nothing():
    learned = Learned()
    learned.learn("p", "m", 3, 500)
    learned.learn("p", "m", 500, 0)
    assert len(learned) == 0


def test_names_that_nobody_can_keep_teach_nothing():
    learned = Learned()
    for name in ("m" * 257, "m\0", "m\ud800"):
        learned.learn("p", name, 1000, 1250)
    assert len(learned) == 0
    assert learned.take_fresh() == {}


def test_the_table_is_bounded_and_forgets_the_stalest():
    learned = Learned(models_max=2)
    for model in ("a", "b", "a", "c"):
        learned.learn("p", model, 100, 200)
    assert len(learned) == 2
    assert learned.factor_e3("p", "b") == 1000
    assert learned.factor_e3("p", "a") > 1000


def test_the_longest_answer_stays():
    learned = Learned(models_max=2)
    assert learned.longest("p", "m") == 0
    for tokens in (9_000, 40_000, 5_000, LONGEST_FROM_TOKENS - 1):
        learned.answered("p", "m", tokens)
    assert learned.longest("p", "m") == 40_000
    learned.answered("p", "m" * 257, 40_000)
    learned.answered("p", "short", LONGEST_FROM_TOKENS - 1)
    learned.answered("p", "absurd", LONGEST_MOST_TOKENS + 1)
    assert [learned.longest("p", name) for name in ("m" * 257, "short", "absurd")] == [0, 0, 0]
    for name in ("a", "m", "b"):
        learned.answered("p", name, 5_000)
    assert [learned.longest("p", name) for name in ("m", "a", "b")] == [40_000, 0, 5_000]


def test_workers_share_what_they_learned():
    one, other = Learned(), Learned()
    for _ in range(40):
        one.learn("p", "m", 1000, 1500)
    fresh = one.take_fresh()
    assert one.take_fresh() == {}
    other.adopt(fresh)
    assert other.factor_e3("p", "m") == one.factor_e3("p", "m") > 1400
    assert other.take_fresh() == {}  # it is no news
    other.learn("p", "m", 1000, 700)
    mine = other.factor_e3("p", "m")
    other.adopt(fresh)
    assert other.factor_e3("p", "m") == mine  # what it learned itself since stands
    other.adopt({("p", "wild"): 10**9, ("p", "tiny"): 1})
    assert other.factor_e3("p", "wild") == LEARNED_MAX_E3
    assert other.factor_e3("p", "tiny") == LEARNED_MIN_E3


# --- whose word wins -----------------------------------------------------------------------------


def test_the_providers_final_word_wins_even_when_it_is_smaller():
    made = final_counts(Usage(10, 20), True, input_tokens=99, output_tokens=99)
    assert (made.usage, made.source) == (Usage(10, 20), "provider")


def test_an_explicit_zero_stays_zero():
    made = final_counts(Usage(0, 0), True, input_tokens=50, output_tokens=60)
    assert (made.usage, made.source) == (Usage(0, 0), "provider")


def test_a_running_figure_is_never_final():
    made = final_counts(Usage(612, 1, cache_read_tokens=9), False, output_tokens=806)
    assert made.usage == Usage(612, 806, cache_read_tokens=9)
    assert made.source == "partial"


def test_the_larger_of_both_per_field():
    made = final_counts(Usage(100, 50), False, input_tokens=120, output_tokens=40)
    assert (made.usage, made.source) == (Usage(120, 50), "partial")


def test_without_a_word_from_the_provider_ours_counts():
    made = final_counts(NO_USAGE, True, input_tokens=7, output_tokens=8)
    assert (made.usage, made.source) == (Usage(7, 8), "estimate")


def test_a_final_word_without_output_is_whole_where_nothing_was_made():
    made = final_counts(Usage(input_tokens=9), True, input_tokens=12)
    assert (made.usage, made.source) == (Usage(9, 0), "provider")


def test_a_final_word_that_leaves_output_out_is_filled_up():
    made = final_counts(Usage(input_tokens=9), True, input_tokens=12, output_tokens=33)
    assert (made.usage, made.source) == (Usage(9, 33), "partial")


@pytest.mark.parametrize("usage", [Usage(input_characters=40), Usage(input_ms=9), Usage(pages=2)])
def test_speech_and_pages_need_no_tokens(usage):
    assert final_counts(usage, True, input_tokens=5) == final_counts(usage, True)
    assert final_counts(usage, True).source == "provider"
    assert final_counts(usage, True).usage.output_tokens is None
