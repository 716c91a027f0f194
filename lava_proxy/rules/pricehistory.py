"""Which price a call has that was booked without one: prices by when they came into force.

The price in force when the call was made counts, if it is known by now; else the first that came
into force after it, and at last whatever holds now (bundled data know a model from some day on).
Prices that were taken away again never were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from lava_proxy.rules.bundled import BUNDLED_VERSION
from lava_proxy.rules.catalog import Catalog, Override, compile_override
from lava_proxy.rules.pricebook import NO_NAMES, PriceBook
from lava_proxy.rules.rates import RateError, Rates

KEPT_MAX = 256
"""Models, and sets of prices, that are kept worked out."""


@dataclass(frozen=True, slots=True)
class Dated:
    """An override, whose it is (None: the operator's), and since when it holds."""

    merchant_id: str | None
    since: datetime
    override: Override


class PriceHistory:
    """All prices that hold, or held until a later one took over, at `now`."""

    def __init__(
        self, prices: Iterable[Dated], now: datetime, bundled: Mapping[str, str] = NO_NAMES
    ) -> None:
        """`prices` in the order in which they take over; one that cannot be used is passed over
        when it is met. `bundled`: provider id -> its name in the bundled data."""
        self._now = now
        self._bundled = bundled
        self._by_provider: dict[str, list[Dated]] = {}
        self._catalogs: dict[tuple[str, str, tuple[str, ...]], Catalog] = {}
        self._matches: dict[tuple[str, str, tuple[str, ...]], list[Dated]] = {}
        for price in prices:
            if price.since <= now:
                self._by_provider.setdefault(price.override.provider, []).append(price)

    def mark(self, merchant_id: str, provider: str, names: Sequence[str]) -> str | None:
        """Stands for all that could price calls for these models; None where nothing can."""
        matching = self._matching(merchant_id, provider, names)
        if not matching and not any(
            self._catalog(merchant_id, provider, ()).rates(provider, name, self._now)
            for name in names
        ):
            return None
        ids = " ".join(price.override.id for price in matching)
        return sha256(f"{BUNDLED_VERSION} {ids}".encode()).hexdigest()[:16]

    def candidates(
        self, merchant_id: str, provider: str, names: Sequence[str], at: datetime
    ) -> Iterator[Rates]:
        """Prices of a call made `at`, the best first. `names`: the model's, in the order in which
        they are looked up."""
        matching = self._matching(merchant_id, provider, names)
        later = sorted({price.since for price in matching if price.since > at})
        for moment in (at, *later, self._now):
            known = tuple(price.override.id for price in matching if price.since <= moment)
            catalog = self._catalog(merchant_id, provider, known)
            for name in names:
                rates = catalog.rates(provider, name, moment)
                if rates is not None:
                    yield rates
                    break

    def _matching(self, merchant_id: str, provider: str, names: Sequence[str]) -> list[Dated]:
        key = (merchant_id, provider, tuple(names))
        found = self._matches.get(key)
        if found is None:
            found = [
                price
                for price in self._by_provider.get(provider, ())
                if price.merchant_id in (None, merchant_id)
                and any(_fits(price.override, name.lower()) for name in names)
                and _usable(price.override)
            ]
            if len(self._matches) >= KEPT_MAX:
                self._matches.clear()
            self._matches[key] = found
        return found

    def _catalog(self, merchant_id: str, provider: str, ids: tuple[str, ...]) -> Catalog:
        key = (merchant_id if ids else "", provider, ids)
        found = self._catalogs.get(key)
        if found is None:
            held = [
                (price.merchant_id, price.override)
                for price in (self._by_provider.get(provider, ()) if ids else ())
                if price.override.id in ids
            ]
            found = PriceBook(held, bundled=self._bundled).of(merchant_id)
            if len(self._catalogs) >= KEPT_MAX:
                self._catalogs.clear()
            self._catalogs[key] = found
        return found


def _fits(override: Override, name: str) -> bool:
    if override.match == "exact":
        return override.model.lower() == name
    return override.match == "default" or name.startswith(override.model.lower())


def _usable(override: Override) -> bool:
    try:
        compile_override(override)
    except RateError:
        return False
    return True
