"""One settlement as a row of `requests`; its ledger entries are copied from that in SQL."""

from __future__ import annotations

from dataclasses import dataclass, field

from lava_proxy.rules.charge import Charge
from lava_proxy.rules.settlement import Settlement


@dataclass(slots=True)
class Line:
    """A settlement with what was computed for it."""

    settlement: Settlement
    units: int
    charge: Charge
    leased_e10: int = 0
    owed_e10: int = 0
    kept_e10: int = 0
    drawn: list[int] = field(default_factory=list)
    """What the holder's leases paid on each of the call's budgets, and gave to wait."""

    def gave(self, owner_id: str, amount: int) -> None:
        """So much of the holder's leases waits for the row's response now."""
        call = self.settlement.call
        if owner_id == call.owner_id:
            self.kept_e10 += amount
        for place, (_, budget) in enumerate(call.budgets):
            self.drawn[place] += amount if budget == owner_id else 0


def columns(line: Line) -> dict[str, object]:
    """One row of `requests`, by column."""
    row, call, counts = line.settlement, line.settlement.call, line.settlement.counts
    tariff, cost = (call.meter.tariff if call.meter else None), row.cost
    return {
        "merchant_id": call.merchant_id,
        "request_id": call.request_id,
        "created_at": call.created_at,
        "customer_id": call.customer_id,
        "meter_id": call.meter.meter_id if call.meter else None,
        "cycle": call.cycle,
        "provider": call.provider,
        "provider_key_type": call.provider_key_type,
        "model": row.model,
        "endpoint": call.endpoint,
        "response_id": row.response_id,
        "status": row.status,
        "outcome": row.outcome,
        "usage_source": row.usage_source,
        "stream": call.stream,
        "input_tokens": counts.input_tokens,
        "output_tokens": counts.output_tokens,
        "cache_read_tokens": row.cache_read_tokens,
        "cache_write_tokens": row.cache_write_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "input_characters": counts.input_characters,
        "output_characters": counts.output_characters,
        "input_ms": counts.input_ms,
        "output_ms": counts.output_ms,
        "units": line.units,
        "input_cost_e10": cost.input_e10 if cost else 0,
        "output_cost_e10": cost.output_e10 if cost else 0,
        "cost_e10": cost.total_e10 if cost else 0,
        "charge_e10": line.charge.amount_e10,
        "rate_type": tariff.rate_type if tariff else None,
        "breakdown": [
            (li.tier.start, li.tier.rate_e12, li.units, li.amount_e10) for li in line.charge.lines
        ],
        "tier_type": tariff.unit if tariff else None,
        "metadata": call.metadata,
        "price_version": row.price_version,
        "flags": row.flags if call.billable else (*row.flags, "unbilled"),
        "duration_ms": row.duration_ms,
        "first_byte_ms": row.first_byte_ms,
        "completed_at": row.completed_at,
    }
