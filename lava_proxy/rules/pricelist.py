"""What the price rules know of a provider's models, to be shown; `catalog.py` is what is charged.

`listed` only names the models for text: reading the list costs a microsecond a model. `priced` has
all prices, compiled as for a charge, which costs some fifty. Rates are spelled as a price of one's
own is given, so that one can be taken for the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from genai_prices.types import ClauseEquals, ClauseOr, ModelInfo

from lava_proxy.core.money import E12, divide_half_up, format_rate_e12
from lava_proxy.rules.additions import models_added
from lava_proxy.rules.bundled import INVALID, compile_model, compile_rates, lists_of, tiers_of
from lava_proxy.rules.catalog import OVERRIDE_UNITS
from lava_proxy.rules.rates import DENOMINATOR, RELATIVES, Band, Rates


@dataclass(frozen=True, slots=True)
class Priced:
    """A model and its prices; `tiers`: those of service tiers where they differ."""

    model: str
    usual: Rates
    tiers: Mapping[str, Rates]


def listed(prices: str, at: datetime) -> Iterator[str]:
    """The models of a provider of the data that have a price for text in and out, and are not given
    up, by their names."""
    for provider, suffix in lists_of(prices):
        for info in provider.models:
            price, name = info.get_prices(at), _name_of(info)
            text = price.input_mtok is not None and price.output_mtok is not None
            if text and name and not info.deprecated:
                yield name + suffix


def priced(name: str, at: datetime) -> Iterator[Priced]:
    """All models of a provider (by its name in the data) that have a price and are not given
    up."""
    known = set()
    for provider, suffix in lists_of(name):
        for info in provider.models:
            known.add(info.id)
            with suppress(*INVALID):
                model = _name_of(info)
                usual = compile_model(provider, info, info.id, at, None)
                if usual is not None and model and not info.deprecated:
                    tiers = {
                        tier: rates
                        for tier in sorted(tiers_of(info))
                        if (rates := compile_model(provider, info, info.id, at, tier)) is not None
                        and (rates.base, rates.cliffs) != (usual.base, usual.cliffs)
                    }
                    yield Priced(model + suffix, usual, tiers)
    for added in models_added(name):
        alone = None if added in known else compile_rates(name, added, at)
        if alone is not None:
            yield Priced(added, alone, {})


def _name_of(info: ModelInfo) -> str | None:
    """A name that the model is called by, where its id in the data is none: the first that the data
    spell out, or that of a region. None: it stands for a family of names (``ft:gpt-4o``)."""
    clauses = info.match.or_ if isinstance(info.match, ClauseOr) else [info.match]
    names = [each.equals for each in clauses if isinstance(each, ClauseEquals)]
    names = [info.id, *names, info.id.replace("regional.", "us.")]
    return next((name for name in names if info.is_match(name)), None)


def spelled(rates: Rates, band: Band) -> dict[str, str]:
    """A band's rates as decimal strings, by the names of `OVERRIDE_UNITS`: complete, but for what
    costs as its nearest relative does. To twelve places, half up."""
    shown: dict[str, str] = {}
    own: set[str] = set()
    for name, (kind, per) in OVERRIDE_UNITS.items():
        weight, relatives = getattr(band, kind), RELATIVES[kind]
        near = next((getattr(band, other) for other in relatives if other in own), 0)
        if kind in rates.unpriced or (relatives and weight == near):
            continue
        own.add(kind)
        shown[name] = format_rate_e12(divide_half_up(weight * per * E12, DENOMINATOR))
    return shown
