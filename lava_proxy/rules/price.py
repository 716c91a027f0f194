"""What the provider charges for one answer: counts times compiled rates, rounded once.

Conventions (lava_adapters.contract): totals include their parts, so a sub-count moves tokens from
its total's rate to its own, never adds any. Providers contradict themselves now and then (cached
161 of prompt 7); a sub-count is clamped to what is left of its total, and the answer is flagged.
Where cached and audio counts together exceed the input, the excess must be cached audio; more of
it is where the provider says so.

The sum is rounded once, half up; `output_e10` is what remains after the rounded input part, so the
two always add up to the total. Fees per request and per web search are in the output part.

The provider's own figure, where it sends one, is the total; the table then only splits it.
"""

from __future__ import annotations

from collections.abc import Callable

from lava_adapters.contract import Usage
from lava_adapters.values import dataclass
from lava_proxy.core.money import AMOUNT_MAX_E10, divide_half_up
from lava_proxy.rules.rates import E10_DENOMINATOR, Band, Rates

COUNT_MAX = 10**9
"""A larger count, or a negative one, is absurd: the answer is priced 0 and flagged, to be
quarantined."""

CLAMPED = "clamped"
UNPRICED = "unpriced"
ABSURD = "absurd"
PRICE_ASSUMED = "price_assumed"
PROVIDER_COST = "provider_cost"
PART_UNPRICED = "part_unpriced"

_HALF = E10_DENOMINATOR // 2

Resolve = Callable[[str | None], Rates | None]
"""Rates of a model; of the model that was asked for when given None."""

_NOT_PRICED = ("total_reported", "cost_e10", "model", "parts")
_TOOLS = (
    ("web_searches", "web_search"),
    ("file_searches", "file_search"),
    ("containers", "container"),
    ("guardrail_filters", "guardrail_filter"),
    ("guardrail_checks", "guardrail_check"),
    ("guardrail_others", "guardrail_other"),
)
"""Fees beside the tokens, counted for the answer as a whole."""
_COUNTS = tuple(name for name in Usage.__dataclass_fields__ if name not in _NOT_PRICED)


@dataclass(frozen=True, slots=True)
class Cost:
    """Provider cost of one answer; input + output = total."""

    input_e10: int
    output_e10: int
    total_e10: int
    flags: tuple[str, ...] = ()


def cost(rates: Rates, usage: Usage) -> Cost:
    """What `usage` costs by `rates`, its own cost figure and its parts left aside."""
    return _rounded(*_weigh(rates, usage))


def cost_of(usage: Usage, resolve: Resolve, *, own_cost: bool = True) -> Cost | None:
    """What an answer costs: the provider's own figure where it sent one and `own_cost` allows it,
    else its parts each by its own model, else its counts. None when no price is known."""
    tabled = _tabled(usage, resolve)
    own_e10 = usage.cost_e10
    if not own_cost or own_e10 is None or not 0 <= own_e10 <= AMOUNT_MAX_E10:
        return tabled
    input_e10 = 0
    flags: tuple[str, ...] = (PROVIDER_COST,)
    if tabled is not None and tabled.total_e10 > 0:
        input_e10 = divide_half_up(own_e10 * tabled.input_e10, tabled.total_e10)
        # What the table has no price for is in the provider's figure.
        odd = [flag for flag in tabled.flags if flag not in (UNPRICED, PART_UNPRICED)]
        flags = (*odd, PROVIDER_COST)
    return Cost(input_e10, own_e10 - input_e10, own_e10, flags)


def _tabled(usage: Usage, resolve: Resolve) -> Cost | None:
    rates = resolve(usage.model)
    if not usage.parts:
        return None if rates is None else cost(rates, usage)
    input_weight = output_weight = 0
    flags: set[str] = set()
    for part in usage.parts:
        part_rates = resolve(part.model)
        if part_rates is None:
            flags.add(PART_UNPRICED)
            part_rates = rates
        if part_rates is None:
            return None
        weighed = _weigh(part_rates, part)
        input_weight += weighed[0]
        output_weight += weighed[1]
        flags.update(weighed[2])
    for name, kind in _TOOLS:
        used = getattr(usage, name) or 0
        if not 0 <= used <= COUNT_MAX:
            flags.add(ABSURD)
        elif used and rates is not None and not any(getattr(part, name) for part in usage.parts):
            output_weight += used * getattr(rates.base, kind)
            if kind in rates.unpriced:
                flags.add(UNPRICED)
    return _rounded(input_weight, output_weight, tuple(sorted(flags)))


def _rounded(input_weight: int, output_weight: int, flags: tuple[str, ...]) -> Cost:
    """Half up, as `divide_half_up` does: no weight is negative, and the denominator is even."""
    total_e10 = (input_weight + output_weight + _HALF) // E10_DENOMINATOR
    input_e10 = (input_weight + _HALF) // E10_DENOMINATOR
    return Cost(input_e10, total_e10 - input_e10, total_e10, flags)


def _weigh(rates: Rates, usage: Usage) -> tuple[int, int, tuple[str, ...]]:
    """Unrounded input and output weight, and what was odd. Most answers are text that adds up:
    those take the short way."""
    if not rates.text_priced or not _plain(usage):
        return _weigh_all(rates, usage)
    given, made = usage.input_tokens or 0, usage.output_tokens or 0
    cached, reasoning = usage.cache_read_tokens or 0, usage.reasoning_tokens or 0
    written, hour = usage.cache_write_tokens or 0, usage.cache_write_1h_tokens or 0
    if not (
        cached >= 0
        and 0 <= hour <= written
        and cached + written <= given <= COUNT_MAX
        and 0 <= reasoning <= made <= COUNT_MAX
    ):
        return _weigh_all(rates, usage)
    band = rates.band(given) if rates.cliffs else rates.base
    input_weight = given * band.input
    if (cached or written) and not band.flat_input:
        input_weight += (
            cached * (band.cache_read - band.input)
            + (written - hour) * (band.cache_write - band.input)
            + hour * (band.cache_write_1h - band.input)
        )
    output_weight = made * band.output + band.request
    if reasoning and not band.flat_output:
        output_weight += reasoning * (band.reasoning - band.output)
    return input_weight, output_weight, ()


def _plain(usage: Usage) -> bool:
    """Nothing beside text tokens was counted."""
    return not (
        usage.input_audio_tokens
        or usage.input_image_tokens
        or usage.output_audio_tokens
        or usage.output_image_tokens
        or usage.input_characters
        or usage.output_characters
        or usage.input_ms
        or usage.output_ms
        or usage.citation_tokens
        or usage.web_searches
        or usage.file_searches
        or usage.containers
        or usage.guardrail_filters
        or usage.guardrail_checks
        or usage.guardrail_others
        or usage.images
        or usage.pages
        or usage.search_units
    )


def _weigh_all(rates: Rates, usage: Usage) -> tuple[int, int, tuple[str, ...]]:
    if any(not 0 <= (getattr(usage, name) or 0) <= COUNT_MAX for name in _COUNTS):
        return 0, 0, (ABSURD,)
    flags: set[str] = set()
    given = _input_total(usage)
    band = rates.band(given)
    input_weight = _take(given, _input_kinds(band, usage, given), band.input, flags)
    output_weight = _take(_output_total(usage), _output_kinds(band, usage), band.output, flags)
    in_ms = max(usage.input_ms, rates.min_ms) if usage.input_ms else 0
    input_weight += (
        (usage.input_characters or 0) * band.input_characters
        + in_ms * band.input_ms
        + (usage.pages or 0) * band.page
    )
    output_weight += (
        (usage.output_characters or 0) * band.output_characters
        + (usage.output_ms or 0) * band.output_ms
        + (usage.images or 0) * band.image
        + (usage.citation_tokens or 0) * band.citation
        + sum((getattr(usage, name) or 0) * getattr(band, kind) for name, kind in _TOOLS)
        + (usage.search_units or 0) * band.search_unit
        + band.request
    )
    if _left_free(rates, usage, paid=input_weight + output_weight > 0):
        flags.add(UNPRICED)
    return input_weight, output_weight, tuple(sorted(flags))


def _take(total: int, kinds: list[tuple[int, int]], rest_weight: int, flags: set[str]) -> int:
    """The weight of `total` tokens of which `kinds` are (count, weight) sub-counts, in order."""
    left = total
    sum_weight = 0
    for count, weight in kinds:
        taken = min(count, left)
        if taken < count:
            flags.add(CLAMPED)
        sum_weight += taken * weight
        left -= taken
    return sum_weight + left * rest_weight


def _input_total(usage: Usage) -> int:
    """The whole input; where only its parts were stated, at least those."""
    if usage.input_tokens is not None:
        return usage.input_tokens
    cached = (usage.cache_read_tokens or 0) + max(
        usage.cache_write_tokens or 0, usage.cache_write_1h_tokens or 0
    )
    return max(cached, (usage.input_audio_tokens or 0) + (usage.input_image_tokens or 0))


def _output_total(usage: Usage) -> int:
    if usage.output_tokens is not None:
        return usage.output_tokens
    media = (usage.output_audio_tokens or 0) + (usage.output_image_tokens or 0)
    return max(usage.reasoning_tokens or 0, media)


def _input_kinds(band: Band, usage: Usage, total: int) -> list[tuple[int, int]]:
    """Sub-counts of the input that have a rate of their own."""
    hour = usage.cache_write_1h_tokens or 0
    written = max(usage.cache_write_tokens or 0, hour)
    cached = usage.cache_read_tokens or 0
    kinds = [(hour, band.cache_write_1h), (written - hour, band.cache_write)]
    space = total - written
    media = []
    for count, own, joint, stated in (
        (usage.input_audio_tokens, band.input_audio, band.cached_audio, usage.cached_audio_tokens),
        (usage.input_image_tokens, band.input_image, band.cached_image, usage.cached_image_tokens),
    ):
        if count and own != band.input:
            both = min(max(cached + count - space, stated or 0), cached, count)
            kinds.append((both, joint))
            media.append((count - both, own))
            cached -= both
            space -= count
    return [*kinds, (cached, band.cache_read), *media]


def _output_kinds(band: Band, usage: Usage) -> list[tuple[int, int]]:
    kinds = (
        (usage.output_audio_tokens, band.output_audio),
        (usage.output_image_tokens, band.output_image),
        (usage.reasoning_tokens, band.reasoning),
    )
    return [(count, own) for count, own in kinds if count and own != band.output]


def _left_free(rates: Rates, usage: Usage, *, paid: bool) -> bool:
    """Something was counted that these rates have no price for. Characters, time, images and pages
    are often stated beside tokens that pay for them."""
    spoken = usage.input_characters and "input_characters" not in rates.unpriced
    heard = usage.input_ms and "input_ms" not in rates.unpriced
    tokens = not (spoken or heard)  # characters or time pay for the tokens beside them
    priced_apart = (
        ("input", tokens and _input_total(usage)),
        ("output", tokens and _output_total(usage)),
        ("citation", usage.citation_tokens),
        *((kind, getattr(usage, name)) for name, kind in _TOOLS),
    )
    beside = (
        ("input_characters", usage.input_characters),
        ("output_characters", usage.output_characters),
        ("input_ms", usage.input_ms),
        ("output_ms", usage.output_ms),
        ("image", usage.images),
        ("page", usage.pages),
        ("search_unit", usage.search_units),
    )
    pairs = priced_apart if paid else (*priced_apart, *beside)
    return any(count and kind in rates.unpriced for kind, count in pairs)
