"""What one call costs at the provider, by whose price, and what was odd about that."""

from __future__ import annotations

from lava_adapters.contract import Usage
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import Run
from lava_proxy.rules.price import PRICE_ASSUMED, PROVIDER_COST, UNPRICED, Cost, cost_of
from lava_proxy.rules.pricebook import Price, price_of
from lava_proxy.rules.rates import Rates
from lava_proxy.rules.settlement import Call


def cost_of_call(
    gateway: Gateway, run: Run, call: Call, usage: Usage
) -> tuple[Cost | None, str | None]:
    """What the provider charges; the version of the price that was used."""
    if run.ask is not None and run.ask.free:
        return Cost(0, 0, 0), None
    reader = run.tap.reader if run.tap else None
    tier, named = (reader.service_tier, reader.model) if reader else (None, None)
    prices: list[Price] = []
    catalog = gateway.books.prices.of(call.merchant_id)
    policy = call.meter.unpriced if call.meter else "refuse"

    def resolve(model: str | None) -> Rates | None:
        names = (model, named, call.model)
        price = price_of(catalog, policy, call.provider, names, call.created_at, tier)
        if price is None:
            return None
        prices.append(price)
        return price.rates

    cost = cost_of(usage, resolve, own_cost=run.managed)
    if cost is None:
        run.flags.add(UNPRICED)
        return None, None
    if cost.flags:
        run.flags.update(cost.flags)
    by_table = PROVIDER_COST not in cost.flags
    if by_table and policy == "dearest" and any(price.assumed for price in prices):
        run.flags.add(PRICE_ASSUMED)
    return cost, prices[-1].version if prices else "provider"
