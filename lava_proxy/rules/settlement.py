"""The values that the books speak: who is billed, by which meter, and what one call came to.

A `Settlement` holds every fact about one finished call except its charge: that is computed when the
row is booked, under the customer's lock, because it depends on the units used before (tiers).
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from functools import lru_cache
from typing import Literal

from lava_adapters.values import dataclass
from lava_proxy.rules.charge import Charge, Counts
from lava_proxy.rules.gauge import Gauge, gauge
from lava_proxy.rules.price import Cost
from lava_proxy.rules.tiers import Tariff

Unpriced = Literal["refuse", "dearest"]
"""What a meter does with a model whose price nobody knows."""
Enforcement = Literal["sliced", "strict", "soft"]
Outcome = Literal[
    "completed",
    "cut_off",
    "client_gone",
    "upstream_error",
    "truncated",
    "recovered",
    "refused",
    "void",
]

Metered = Literal["whole", "part", "stretch"]
"""How much of a stored object a row counts: all, by the provider's last word; from the start until
somewhere; from somewhere on."""

Keeps = tuple[tuple[str, int], ...]
"""(account, amount): of the customer's credit, and of budgets that count money."""

BACKGROUND = "background"
"""Flag: the response runs on at the provider; the rest is charged when it is read by its id."""


@dataclass(frozen=True, slots=True)
class Merchant:
    """Who sells: owns keys, customers and meters."""

    merchant_id: str
    name: str
    upgrade_url: str | None
    require_plan: bool
    fallbacks: tuple[tuple[str, str], ...] = ()
    """(url, model) pairs to try in turn when a rewritten call's target fails."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """What a call needs to know of its customer's active subscription."""

    cycle: str
    """Tier scope: ``<subscription id>:<cycle number>``."""
    ends_at: datetime
    """When the cycle is over: what is kept in memory is read again."""
    meter_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Customer:
    """Who pays the merchant: the owner of a credit account."""

    customer_id: str
    merchant_id: str
    reference_id: str | None
    subscription: Subscribed | None = None


@dataclass(frozen=True, slots=True)
class Meter:
    """How a call is charged, and how strictly credit is enforced."""

    meter_id: str
    merchant_id: str
    slug: str
    tariff: Tariff
    enforcement: Enforcement = "sliced"
    overdraft_e10: int = 0
    unpriced: Unpriced = "refuse"
    gauge: Gauge | None = field(init=False, repr=False, compare=False)
    """Of a fixed price, which asks for no model's: made once, as every call needs it."""
    debt_e10: int = field(init=False, repr=False, compare=False)
    """How far below zero its calls may take a customer."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "gauge", gauge(self.tariff, None, text_only=True))
        debt_e10 = self.overdraft_e10 if self.enforcement == "soft" else 0
        object.__setattr__(self, "debt_e10", debt_e10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is fixed about a call when it is admitted; journaled in HOLD, never re-derived."""

    request_id: str
    merchant_id: str
    holder_id: str
    """The process whose leases pay for it."""
    owner_id: str
    """The credit account that is charged and whose tiers advance: the customer's, or the merchant's
    own for meter-only traffic."""
    customer_id: str | None
    meter: Meter | None
    cycle: str
    """Tier scope."""
    billable: bool
    """False with disable_billing: charge 0, no tier advances."""
    provider: str
    provider_key_type: Literal["managed", "unmanaged"]
    model: str | None
    endpoint: str
    stream: bool
    created_at: datetime
    metadata: dict[str, str] | None = None
    input_tokens: int = 0
    """Estimate before the call: what a crash after SENT costs."""
    input_characters: int = 0
    input_ms: int = 0
    budgets: tuple[tuple[str, str], ...] = ()
    """(kind, account) of each budget beside the customer's credit that the call's use is booked on;
    kinds as in `rules.limits`."""
    object_id: str | None = None
    """The stored response that it makes or reads, once its name is known: what else that comes to
    is charged when it is read by that name."""
    runs_on: bool = False
    """That response goes on at the provider without us: it is in the background, or read."""
    keeps: Keeps = ()
    """What goes on waiting for it, for `keeps_s`, should this process die: all that is held."""
    keeps_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """One call, ready to be booked. Exactly one of these exists per request id."""

    call: Call
    outcome: Outcome
    usage_source: Literal["provider", "partial", "estimate", "reported"]
    counts: Counts
    cost: Cost | None
    """Provider cost; None where the model has no price."""
    model: str | None
    """As the provider named it, else as asked for."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    price_version: str | None = None
    response_id: str | None = None
    status: Literal["completed", "error"] = "completed"
    flags: tuple[str, ...] = ()
    duration_ms: int | None = None
    first_byte_ms: int | None = None
    completed_at: datetime | None = None
    content_hash: bytes | None = None
    """What was reported, for `POST /v1/requests`; None for calls through the gateway."""
    metered_object: str | None = None
    """The stored object at the provider whose usage this is: paid once, see `store/claims.py`."""
    metered: Metered = "whole"
    reads_object: bool = False
    """The call read the object rather than made it."""
    object_over: bool = False
    """Nothing more will be made of it."""
    keeps: Keeps = ()
    """What goes on waiting for it, for `keeps_s`: see `store/kept.py`."""
    keeps_s: int = 0
    object_ids: tuple[str, ...] = ()
    """Objects that this call made at the provider with a managed key."""


@dataclass(frozen=True, slots=True)
class Booked:
    """What became of a settlement: its exact charge, or that its id was booked before."""

    request_id: str
    owner_id: str
    charge_e10: int
    fresh: bool
    quarantined: bool = False
    owed_e10: int = 0
    """The part that no credit covered."""
    leased_e10: int = 0
    """The part of the charge that the holder's own leases paid."""
    kept_e10: int = 0
    """What went from the holder's leases to wait for a response that runs on."""
    drawn: tuple[int, ...] = ()
    """The same for each of the call's budgets, in their order."""
    charge: Charge | None = None
    """How the charge came about, where this call of `settle` computed it."""


def calendar_cycle(at: datetime) -> str:
    """The tier scope where no subscription sets one: the UTC calendar month, ``"2026-11"``."""
    return _month(at.year, at.month)


@lru_cache(maxsize=64)
def _month(year: int, month: int) -> str:
    return f"{year:04d}-{month:02d}"
