"""One settlement as a row of `requests`; its ledger entries are copied from that in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from lava_proxy.rules.charge import Charge
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store.faults import StorePoison


@dataclass(slots=True)
class Line:
    """A settlement with what was computed for it."""

    settlement: Settlement
    units: int
    charge: Charge
    leased_e10: int = 0
    owed_e10: int = 0
    kept_e10: int = 0
    drawn: tuple[int, ...] = ()
    """What the holder's leases paid on each of the call's budgets, and gave to wait."""

    def gave(self, owner_id: str, amount: int) -> None:
        """So much of the holder's leases waits for the row's response now."""
        call = self.settlement.call
        if owner_id == call.owner_id:
            self.kept_e10 += amount
        self.drawn = tuple(
            drawn + (amount if budget == owner_id else 0)
            for drawn, (_, budget) in zip(self.drawn, call.budgets, strict=True)
        )


COLUMNS = (
    "merchant_id",
    "request_id",
    "created_at",
    "customer_id",
    "meter_id",
    "cycle",
    "provider",
    "provider_key_type",
    "model",
    "endpoint",
    "response_id",
    "status",
    "outcome",
    "usage_source",
    "stream",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "input_characters",
    "output_characters",
    "input_ms",
    "output_ms",
    "units",
    "input_cost_e10",
    "output_cost_e10",
    "cost_e10",
    "charge_e10",
    "rate_type",
    "tier_type",
    "price_version",
    "duration_ms",
    "first_byte_ms",
    "completed_at",
    "breakdown",
    "metadata",
    "flags",
)
"""Of `requests`, in the order in which `columns` has them and `book` reads them."""


def columns(line: Line) -> tuple[object, ...]:
    """One row of `requests`. By place, not by name: the names would be half of what is sent."""
    row, call, counts = line.settlement, line.settlement.call, line.settlement.counts
    meter, cost, charge = call.meter, row.cost, line.charge
    return (
        call.merchant_id,
        call.request_id,
        call.created_at,
        call.customer_id,
        meter.meter_id if meter else None,
        call.cycle,
        call.provider,
        call.provider_key_type,
        row.model,
        call.endpoint,
        row.response_id,
        row.status,
        row.outcome,
        row.usage_source,
        call.stream,
        counts.input_tokens,
        counts.output_tokens,
        row.cache_read_tokens,
        row.cache_write_tokens,
        row.reasoning_tokens,
        counts.input_characters,
        counts.output_characters,
        counts.input_ms,
        counts.output_ms,
        line.units,
        cost.input_e10 if cost else 0,
        cost.output_e10 if cost else 0,
        cost.total_e10 if cost else 0,
        charge.amount_e10,
        meter.tariff.rate_type if meter else None,
        meter.tariff.unit if meter else None,
        row.price_version,
        row.duration_ms,
        row.first_byte_ms,
        row.completed_at,
        [(li.tier.start, li.tier.rate_e12, li.units, li.amount_e10) for li in charge.lines],
        call.metadata,
        row.flags if call.billable else (*row.flags, "unbilled"),
    )


def document(rows: Sequence[object]) -> str:
    """Rows as one argument of a statement."""
    try:
        return orjson.dumps(rows).decode()
    except orjson.JSONEncodeError as error:  # half a surrogate pair, or a number beyond 64 bits
        raise StorePoison(f"settlement: {error}") from error
