"""One model's prices as integers: every rate over one common denominator, so nothing is rounded.

A *weight* is a rate in units of 1 / (9 x 10^24) USD per token, character, millisecond, search,
page, image or request. That denominator holds per-million, per-thousand, per-minute and per-hour
prices exactly, up to 17 decimal places (lists made from floats have such prices).

A *band* is a full set of weights. Long-context prices are cliffs: once the whole input is above a
threshold, every token of the request is priced in the next band.

A kind without a weight of its own takes its nearest relative's (cached input: input's); a kind
without relatives weighs nothing, and its name is in `unpriced`, so that it is never silently free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lava_proxy.core.money import divide_half_up, divide_up

DENOMINATOR = 9 * 10**24
E10_DENOMINATOR = 9 * 10**14
"""Weight sums over this are 10^-10 USD."""
_E18_DENOMINATOR = 9 * 10**6

RELATIVES: Mapping[str, tuple[str, ...]] = {
    "input": (),
    "output": (),
    "cache_read": ("input",),
    "cache_write": ("input",),
    "cache_write_1h": ("cache_write", "input"),
    "input_audio": ("input",),
    "input_image": ("input",),
    "cached_audio": ("cache_read", "input_audio", "input"),
    "cached_image": ("cache_read", "input_image", "input"),
    "reasoning": ("output",),
    "output_audio": ("output",),
    "output_image": ("output",),
    "input_characters": (),
    "output_characters": (),
    "input_ms": (),
    "output_ms": (),
    "request": (),
    "citation": (),
    "web_search": (),
    "file_search": (),
    "container": (),
    "guardrail_filter": (),
    "guardrail_check": (),
    "guardrail_other": (),
    "image": (),
    "page": (),
    "search_unit": (),
}
"""Every kind of unit that has a price, and whose price it takes when it has none of its own."""

_INPUT_KINDS = tuple(k for k, v in RELATIVES.items() if k == "input" or "input" in v)
_OUTPUT_KINDS = tuple(k for k, v in RELATIVES.items() if k == "output" or "output" in v)


class RateError(ValueError):
    """A price that cannot be used; the message says which."""


@dataclass(frozen=True, slots=True)
class Band:
    """All weights that hold while the input is not above the next threshold."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    input_audio: int
    input_image: int
    cached_audio: int
    cached_image: int
    reasoning: int
    output_audio: int
    output_image: int
    input_characters: int
    output_characters: int
    input_ms: int
    output_ms: int
    request: int
    citation: int
    web_search: int
    file_search: int
    container: int
    guardrail_filter: int
    guardrail_check: int
    guardrail_other: int
    image: int
    page: int
    search_unit: int
    flat_input: bool = field(init=False)
    """Every kind of input token costs the same."""
    flat_output: bool = field(init=False)
    input_max: int = field(init=False)
    output_max: int = field(init=False)

    def __post_init__(self) -> None:
        inputs = [int(getattr(self, kind)) for kind in _INPUT_KINDS]
        outputs = [int(getattr(self, kind)) for kind in _OUTPUT_KINDS]
        object.__setattr__(self, "flat_input", len(set(inputs)) == 1)
        object.__setattr__(self, "flat_output", len(set(outputs)) == 1)
        object.__setattr__(self, "input_max", max(inputs))
        object.__setattr__(self, "output_max", max(outputs))


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """One model's compiled prices at one time and service tier. Compared by identity: the catalog
    hands out one object per price, and caches are keyed by it."""

    version: str
    """Where they come from: ``genai-prices/<version>``, ``override/<id>``, ``additions/<day>``."""
    model: str
    base: Band
    cliffs: tuple[tuple[int, Band], ...] = ()
    """(threshold, band), ascending: the band holds when the whole input is above the threshold."""
    unpriced: frozenset[str] = frozenset()
    min_ms: int = 0
    """A recording that is shorter is billed as this long."""
    text_priced: bool = field(init=False)
    """Input and output tokens both have a price."""

    def __post_init__(self) -> None:
        priced = self.unpriced.isdisjoint(("input", "output"))
        object.__setattr__(self, "text_priced", priced)

    def band(self, input_tokens: int) -> Band:
        """The weights for a request with this much input, cached tokens included."""
        for start, band in reversed(self.cliffs):
            if input_tokens > start:
                return band
        return self.base

    @property
    def input_max_e18(self) -> int:
        """No input token costs more than this many 10^-18 USD, in any band, of any kind."""
        most = max(band.input_max for band in (self.base, *(b for _, b in self.cliffs)))
        return divide_up(most, _E18_DENOMINATOR)

    @property
    def output_max_e18(self) -> int:
        """No output token costs more than this many 10^-18 USD."""
        most = max(band.output_max for band in (self.base, *(b for _, b in self.cliffs)))
        return divide_up(most, _E18_DENOMINATOR)


def weight(numerator: int, denominator: int, per: int) -> int:
    """The weight of a price of `numerator / denominator` USD per `per` units."""
    if numerator < 0:
        raise RateError("a price cannot be negative")
    return divide_half_up(numerator * DENOMINATOR, denominator * per)


def make_rates(
    version: str,
    model: str,
    weights: Mapping[str, int],
    cliffs: Mapping[int, Mapping[str, int]] | None = None,
    *,
    min_ms: int = 0,
) -> Rates:
    """Compile weights by kind. `cliffs` maps thresholds to the full weights above them."""
    unknown = weights.keys() - RELATIVES.keys()
    if unknown:
        raise RateError(f"unknown kinds: {', '.join(sorted(unknown))}")
    return Rates(
        version,
        model,
        _band(weights),
        tuple((start, _band(above)) for start, above in sorted((cliffs or {}).items())),
        frozenset(k for k, v in RELATIVES.items() if not {k, *v} & weights.keys()),
        min_ms,
    )


def _band(weights: Mapping[str, int]) -> Band:
    def of(kind: str) -> int:
        return next((weights[k] for k in (kind, *RELATIVES[kind]) if k in weights), 0)

    return Band(**{kind: of(kind) for kind in RELATIVES})
