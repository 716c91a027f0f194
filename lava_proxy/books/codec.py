"""Calls and settlements as the journal (and the quarantine table) hold them: small JSON arrays.

Positions are fixed by the journal's version; a change of order needs a new version number there.
What is added at the end may be absent: a journal of the version before is read all the same.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import Cost
from lava_proxy.rules.settlement import Call, Keeps, Meter, Settlement


def encode_call(call: Call) -> bytes:
    """HOLD facts."""
    return orjson.dumps(
        (
            call.request_id,
            call.merchant_id,
            call.owner_id,
            call.customer_id,
            call.meter.meter_id if call.meter else None,
            call.cycle,
            call.billable,
            call.provider,
            call.provider_key_type,
            call.model,
            call.endpoint,
            call.stream,
            call.created_at,
            call.metadata,
            call.input_tokens,
            call.input_characters,
            call.budgets,
            call.input_ms,
            call.object_id,
            call.keeps,
            call.keeps_s,
            call.runs_on,
        )
    )


def meter_id_of(facts: bytes) -> str | None:
    """The meter that HOLD facts name, to be looked up before `decode_call`."""
    meter_id: str | None = orjson.loads(facts)[4]
    return meter_id


def decode_call(facts: bytes, holder_id: str, meter: Meter | None) -> Call:
    """HOLD facts back into a call of the holder that wrote them."""
    v: list[Any] = orjson.loads(facts)
    return Call(
        request_id=v[0],
        merchant_id=v[1],
        holder_id=holder_id,
        owner_id=v[2],
        customer_id=v[3],
        meter=meter,
        cycle=v[5],
        billable=v[6],
        provider=v[7],
        provider_key_type=v[8],
        model=v[9],
        endpoint=v[10],
        stream=v[11],
        created_at=datetime.fromisoformat(v[12]),
        metadata=v[13],
        input_tokens=v[14],
        input_characters=v[15],
        budgets=_pairs(v[16]) if len(v) > 16 else (),
        input_ms=v[17] if len(v) > 17 else 0,
        object_id=v[18] if len(v) > 18 else None,
        keeps=_pairs(v[19]) if len(v) > 20 else (),
        keeps_s=v[20] if len(v) > 20 else 0,
        runs_on=v[21] if len(v) > 21 else len(v) > 18 and v[18] is not None,
    )


def encode_result(row: Settlement) -> bytes:
    """SETTLE facts: all of a settlement but its call."""
    counts = row.counts
    return orjson.dumps(
        (
            row.outcome,
            row.usage_source,
            (
                counts.input_tokens,
                counts.output_tokens,
                counts.input_characters,
                counts.output_characters,
                counts.input_ms,
                counts.output_ms,
            ),
            (row.cost.input_e10, row.cost.output_e10, row.cost.total_e10) if row.cost else None,
            row.model,
            (row.cache_read_tokens, row.cache_write_tokens, row.reasoning_tokens),
            row.price_version,
            row.response_id,
            row.status,
            row.flags,
            row.duration_ms,
            row.first_byte_ms,
            row.completed_at,
            row.object_ids,
            row.metered_object,
            row.reads_object,
            row.metered,
            row.object_over,
            row.keeps,
            row.keeps_s,
        )
    )


def decode_result(facts: bytes, call: Call) -> Settlement:
    """SETTLE facts back into the settlement of `call`."""
    v: list[Any] = orjson.loads(facts)
    return Settlement(
        call=call,
        outcome=v[0],
        usage_source=v[1],
        counts=Counts(*v[2]),
        cost=Cost(*v[3]) if v[3] else None,
        model=v[4],
        cache_read_tokens=v[5][0],
        cache_write_tokens=v[5][1],
        reasoning_tokens=v[5][2],
        price_version=v[6],
        response_id=v[7],
        status=v[8],
        flags=tuple(v[9]),
        duration_ms=v[10],
        first_byte_ms=v[11],
        completed_at=datetime.fromisoformat(v[12]) if v[12] else None,
        object_ids=tuple(v[13]),
        metered_object=v[14],
        reads_object=v[15],
        metered=v[16] if len(v) > 16 else "whole",
        object_over=v[17] if len(v) > 17 else True,
        keeps=_keeps(v[18], call) if len(v) > 19 else (),
        keeps_s=v[19] if len(v) > 19 else 0,
    )


def _pairs(found: list[Any]) -> tuple[Any, ...]:
    return tuple((one, other) for one, other in found)


def _keeps(found: Any, call: Call) -> Keeps:
    """At first it was an amount, of the customer's credit."""
    if isinstance(found, int):
        return ((call.owner_id, found),) if found else ()
    return _pairs(found)


def encode_settlement(row: Settlement, facts: bytes | None = None) -> bytes:
    """Both halves, for the quarantine table; as Python shows them where JSON cannot hold them.
    `facts`: of the call as HOLD has them, where they say more than `row` can."""
    try:
        return b"[" + (facts or encode_call(row.call)) + b"," + encode_result(row) + b"]"
    except orjson.JSONEncodeError:
        return repr(row).encode("utf-8", "backslashreplace")


def meter_id_of_settlement(kept: bytes) -> str | None:
    """The meter that a kept settlement names. ValueError: it is kept as Python shows it."""
    return meter_id_of(orjson.dumps(orjson.loads(kept)[0]))


def decode_settlement(kept: bytes, holder_id: str, meter: Meter | None) -> Settlement:
    """Both halves back into a settlement that this holder's leases pay."""
    call, result = orjson.loads(kept)
    return decode_result(orjson.dumps(result), decode_call(orjson.dumps(call), holder_id, meter))
