"""A linear upper bound of what a call will be charged, for holds and for the running count.

The exact charge needs the units used before it (tiers) and the provider's final counts; both are
known only when the call is booked. A hold needs less: no charge may be above it. So a gauge takes
the highest rate of any tier, and its weights are integers in 10^-18 USD per token or character,
rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal

from lava_adapters.contract import ToolFee, Usage
from lava_proxy.core.money import divide_up
from lava_proxy.rules.price import COUNT_MAX
from lava_proxy.rules.rates import Rates
from lava_proxy.rules.tiers import MS_PER_MINUTE, Tariff

_E18_TO_E10 = 10**8
_E12_TO_E18 = 10**6
_PERCENT_E12 = 100 * 10**12
_E18_DENOMINATOR = 9 * 10**6
UNBOUNDED = 1 << 62

Kind = Literal["tokens", "characters", "flat"]


@dataclass(frozen=True, slots=True)
class Gauge:
    """`flat` once per call, `per_input` and `per_output` for each unit of `kind`; beside tokens,
    what is known before the call: time, characters to be spoken, pictures, pages."""

    kind: Kind
    flat_e18: int
    per_input_e18: int
    per_output_e18: int
    per_ms_e18: int = 0
    per_character_e18: int = 0
    per_image_e18: int = 0
    per_page_e18: int = 0
    per_web_search_e18: int = 0
    per_file_search_e18: int = 0
    per_container_e18: int = 0
    per_search_unit_e18: int = 0
    of_cost: bool = False
    """Follows the provider's cost, whatever that is made of."""
    tools: tuple[int, int, int] = (0, 0, 0)
    """Web searches, file searches and containers that `flat` pays for."""

    def bound_e10(self, inputs: int, outputs: int) -> int:
        """No call with these counts is charged more."""
        # Runs several times per call, so `divide_up` is written out.
        most_e18 = self.flat_e18 + inputs * self.per_input_e18 + outputs * self.per_output_e18
        return -(-most_e18 // _E18_TO_E10)

    def beside(
        self,
        *,
        ms: int = 0,
        characters: int = 0,
        images: int = 0,
        pages: int = 0,
        web_searches: int = 0,
        file_searches: int = 0,
        containers: int = 0,
        search_units: int = 0,
    ) -> Gauge:
        """The gauge of a call with so much beside its tokens: part of what is paid once."""
        more_e18 = (
            ms * self.per_ms_e18
            + characters * self.per_character_e18
            + images * self.per_image_e18
            + pages * self.per_page_e18
            + web_searches * self.per_web_search_e18
            + file_searches * self.per_file_search_e18
            + containers * self.per_container_e18
            + search_units * self.per_search_unit_e18
        )
        if not more_e18:
            return self
        return replace(
            self,
            flat_e18=self.flat_e18 + more_e18,
            tools=(web_searches, file_searches, containers),
        )

    def used(self, usage: Usage) -> Gauge:
        """The same, where the provider's tools were used more often than `flat` pays for."""
        counts = (usage.web_searches, usage.file_searches, usage.containers)
        most = tuple(max(n or 0, paid) for n, paid in zip(counts, self.tools, strict=True))
        if most == self.tools or max(most) > COUNT_MAX:
            return self
        web, files, containers = (n - paid for n, paid in zip(most, self.tools, strict=True))
        more_e18 = (
            web * self.per_web_search_e18
            + files * self.per_file_search_e18
            + containers * self.per_container_e18
        )
        if not more_e18:
            return self
        return replace(self, flat_e18=self.flat_e18 + more_e18, tools=(most[0], most[1], most[2]))

    def charges(self, kind: ToolFee) -> bool:
        """Whether a use of this tool costs something by this gauge. Pictures that another model
        makes have that model's price, which is not here."""
        if kind == "picture":
            return self.of_cost
        return bool(getattr(self, f"per_{kind}_e18"))

    def affordable_outputs(self, amount_e10: int, inputs: int) -> int:
        """How many output units `amount_e10` covers beside `inputs`; 0 when not even those."""
        left = amount_e10 * _E18_TO_E10 - self.flat_e18 - inputs * self.per_input_e18
        if left < 0:
            return 0
        return left // self.per_output_e18 if self.per_output_e18 else UNBOUNDED


FREE = Gauge("flat", 0, 0, 0)
_RATES = tuple(field.name for field in fields(Gauge) if field.name.endswith("_e18"))


def dearest(gauges: tuple[Gauge, ...]) -> Gauge:
    """A bound of each of these, which are of one kind: any of them may come to hold."""
    return gauges[0] if len(gauges) == 1 else _dearest(gauges)


@lru_cache(maxsize=4096)
def _dearest(gauges: tuple[Gauge, ...]) -> Gauge:
    most = {name: max(getattr(each, name) for each in gauges) for name in _RATES}
    return replace(gauges[0], **most)


def gauge(tariff: Tariff, rates: Rates | None, *, text_only: bool) -> Gauge | None:
    """The gauge of a meter; None for a percentage meter without a price.

    `text_only` takes the price of text; otherwise that of the dearest kind of token (audio, cache
    writes) is assumed for all.
    """
    rate_e12 = tariff.highest_e12
    if tariff.rate_type == "percentage":
        return None if rates is None else _of_cost(rates, rate_e12, text_only)
    if tariff.unit == "tokens_1m":
        return Gauge("tokens", 0, rate_e12, rate_e12)
    if tariff.unit == "characters_1m":
        return Gauge("characters", 0, rate_e12, rate_e12)
    flat_e18 = rate_e12 * _E12_TO_E18
    per_ms_e18 = divide_up(flat_e18, MS_PER_MINUTE) if tariff.unit == "minutes" else 0
    return Gauge("flat", flat_e18, 0, 0, per_ms_e18)


def cost_gauge(rates: Rates, *, text_only: bool) -> Gauge:
    """The gauge of what the provider itself charges."""
    return _of_cost(rates, _PERCENT_E12, text_only)


@lru_cache(maxsize=4096)
def _of_cost(rates: Rates, rate_e12: int, text_only: bool) -> Gauge:
    per_input, per_output = rates.input_max_e18, rates.output_max_e18
    bands = (rates.base, *(band for _, band in rates.cliffs))
    if text_only:
        per_input = divide_up(max(b.input for b in bands), _E18_DENOMINATOR)
        per_output = divide_up(max(max(b.output, b.reasoning) for b in bands), _E18_DENOMINATOR)
    once = max(b.request + rates.min_ms * b.input_ms for b in bands)
    # The cost is rounded before the percentage is taken, and the charge again: half a unit each.
    flat = divide_up(once, _E18_DENOMINATOR) + _E18_TO_E10

    def charged(per_e18: int) -> int:
        return divide_up(per_e18 * rate_e12, _PERCENT_E12)

    def beside(weight: int) -> int:
        return charged(divide_up(weight, _E18_DENOMINATOR))

    return Gauge(
        "tokens",
        charged(flat) + _E18_TO_E10,
        charged(per_input),
        charged(per_output),
        beside(max(b.input_ms for b in bands)),
        beside(max(b.input_characters for b in bands)),
        beside(max(b.image for b in bands)),
        beside(max(b.page for b in bands)),
        beside(max(b.web_search for b in bands)),
        beside(max(b.file_search for b in bands)),
        beside(max(b.container for b in bands)),
        beside(max(b.search_unit for b in bands)),
        of_cost=True,
    )
