"""What a call must hold, from its price to its quote: one rule for the call and for who only asks.

A hold follows what the call may be charged by. The service tier is part of that: one that the
request names is held at its own price; where the request leaves it to the provider, the usual price
is held, or in a `strict` meter that of the dearest tier.
"""

from __future__ import annotations

from datetime import datetime

from lava_adapters.contract import Ask
from lava_adapters.model_limits import NO_LIMITS
from lava_adapters.values import dataclass
from lava_proxy.core.errors import LavaError
from lava_proxy.rules.catalog import Catalog
from lava_proxy.rules.gauge import FREE, Gauge, cost_gauge, dearest, gauge
from lava_proxy.rules.pricebook import Price, price_of
from lava_proxy.rules.quote import OutputLimits, Quote, gauge_of, is_ceiling, quote
from lava_proxy.rules.rates import Rates
from lava_proxy.rules.settlement import Enforcement, Meter, Unpriced

LEFT_OPEN = (None, "auto")
"""Service tiers of a request that let the provider choose."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that wants to run. `catalog`: its merchant's prices."""

    ask: Ask
    provider: str
    body_bytes: int
    at: datetime
    catalog: Catalog
    limits: OutputLimits
    free: bool = False
    """The provider charges nothing for it, or it reads what was paid for."""
    longest_seen: int = 0
    """Tokens of the longest answer that its model was seen to make without a cap."""


def hold_on_credit(wanted: Wanted, meter: Meter) -> Quote:
    """What it holds of its customer's credit. Raises `model_unpriced`."""
    mode, found = meter.enforcement, meter.gauge
    if wanted.free and (found is None or meter.tariff.unit != "requests"):
        return _quote(wanted, FREE, mode)
    if found is None:
        price = price_for(wanted, meter.unpriced)
        gauges = [
            gauge(meter.tariff, each, text_only=_text_only(wanted, mode))
            for each in _prices(wanted, price, mode)
        ]
        found = dearest(tuple(each for each in gauges if each is not None)) if gauges else None
    if found is None:
        raise LavaError(
            "model_unpriced",
            f"{wanted.provider} has no known price for {wanted.ask.model!r}; add a price override, "
            "use a fixed meter, or let the meter take the provider's dearest (unpriced: dearest)",
        )
    return _quote(wanted, found, mode)


def hold_on_cost(wanted: Wanted, meter: Meter | None) -> Quote:
    """What it holds of a budget that counts the provider's cost. Raises `model_unpriced`."""
    mode: Enforcement = (
        "strict" if meter is not None and meter.enforcement == "strict" else "sliced"
    )
    if wanted.free:
        return _quote(wanted, FREE, mode)
    price = price_for(wanted, meter.unpriced if meter is not None else "refuse")
    if price is None:
        raise LavaError(
            "model_unpriced",
            f"{wanted.provider} has no known price for {wanted.ask.model!r}, so a money limit "
            "cannot be kept; add a price override",
        )
    text_only = _text_only(wanted, mode)
    gauges = (cost_gauge(each, text_only=text_only) for each in _prices(wanted, price, mode))
    return _quote(wanted, dearest(tuple(gauges)), mode)


def check_bounded(plan: Quote) -> None:
    """A strict meter serves only what it can bound."""
    if plan.unbounded is not None:
        raise LavaError(
            "unbounded_call", f"a strict meter cannot bound this call: {plan.unbounded}"
        )


def price_for(wanted: Wanted, policy: Unpriced) -> Price | None:
    """The price of its model at the service tier that it names."""
    tier = wanted.ask.service_tier
    return price_of(
        wanted.catalog,
        policy,
        wanted.provider,
        (wanted.ask.model,),
        wanted.at,
        None if tier in LEFT_OPEN else tier,
    )


def _prices(wanted: Wanted, price: Price | None, mode: Enforcement) -> tuple[Rates, ...]:
    """Those that may come to hold. A named tier may be served as the usual one; where none is
    named, a strict hold covers what the provider may decide on."""
    if price is None:
        return ()
    model, named = wanted.ask.model, wanted.ask.service_tier not in LEFT_OPEN
    if price.assumed or model is None or not (named or mode == "strict"):
        return (price.rates,)
    every = wanted.catalog.every_tier(wanted.provider, model, wanted.at)
    return (price.rates, *every[:1]) if named else every


def _text_only(wanted: Wanted, mode: Enforcement) -> bool:
    """A strict hold is a bound: the dearest kind of token (cache writes, audio) may come."""
    return mode != "strict" and not wanted.ask.media_tokens


def _quote(wanted: Wanted, found: Gauge, mode: Enforcement) -> Quote:
    ask, limits = wanted.ask, wanted.limits
    known = found.kind != "flat" and is_ceiling(ask, mode)
    return quote(
        ask,
        gauge_of(ask, found, mode, limits),
        mode,
        limits,
        body_bytes=wanted.body_bytes,
        model=wanted.catalog.limits(wanted.provider, ask.model) if known else NO_LIMITS,
        longest_seen=wanted.longest_seen,
    )
