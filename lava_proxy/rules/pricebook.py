"""Whose price holds: each merchant's own overrides over the operator's, over the bundled data.

The most specific match wins (exact, prefix, provider's default); between two of the same kind, the
merchant's own. Immutable to its readers: changed prices are a new book.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType

from lava_adapters.values import dataclass
from lava_proxy.rules.catalog import Catalog, Override
from lava_proxy.rules.rates import Rates
from lava_proxy.rules.settlement import Unpriced


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs; `assumed`: nobody knows, so it is the provider's dearest."""

    rates: Rates
    assumed: bool = False

    @property
    def version(self) -> str:
        """As it stands on the row."""
        version = self.rates.version
        return f"{version} dearest {self.rates.model}" if self.assumed else version


def price_of(
    catalog: Catalog,
    policy: Unpriced,
    provider: str,
    models: Iterable[str | None],
    at: datetime,
    tier: str | None = None,
) -> Price | None:
    """The price of the first of `models` that has one; where none has, what the policy says."""
    for model in models:
        if model and (rates := catalog.rates(provider, model, at, tier)) is not None:
            return Price(rates)
    if policy == "dearest" and (rates := catalog.dearest(provider, at)) is not None:
        return Price(rates, assumed=True)
    return None


NO_NAMES: Mapping[str, str] = MappingProxyType({})


class PriceBook:
    """A catalog for each merchant that has prices of its own, and one for all others."""

    def __init__(
        self,
        overrides: Iterable[tuple[str | None, Override]] = (),
        until: datetime | None = None,
        bundled: Mapping[str, str] = NO_NAMES,
    ) -> None:
        """`overrides`: (merchant id or None for the operator, override); of two for the same model
        the later one wins. `until`: when the next one comes into force. `bundled`: provider id ->
        its name in the bundled data."""
        common: list[Override] = []
        own: dict[str, list[Override]] = {}
        for merchant_id, override in overrides:
            (common if merchant_id is None else own.setdefault(merchant_id, [])).append(override)
        self._common = Catalog(common, bundled=bundled)
        self._own = {
            merchant: Catalog([*common, *theirs], bundled=bundled)
            for merchant, theirs in own.items()
        }
        self._until = until

    def of(self, merchant_id: str) -> Catalog:
        """The prices that hold for a merchant."""
        return self._own.get(merchant_id, self._common)

    def outdated(self, now: datetime) -> bool:
        """Whether a price came into force since."""
        return self._until is not None and now >= self._until
