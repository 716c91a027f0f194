"""Calls and settlements survive the journal: whatever goes in comes out."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from books_kit import HOLDER, UNIT_METER, row
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.books.codec import (
    decode_call,
    decode_result,
    encode_call,
    encode_result,
    encode_settlement,
    meter_id_of,
)
from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import Cost
from lava_proxy.rules.settlement import Call, Settlement

text = st.text(st.characters(codec="utf-8"), max_size=20)
count = st.integers(0, 2**63 - 1)
moment = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(
    lambda at: at.replace(tzinfo=UTC)
)
calls = st.builds(
    Call,
    request_id=text,
    merchant_id=text,
    holder_id=st.just(HOLDER),
    owner_id=text,
    customer_id=st.none() | text,
    meter=st.sampled_from([None, UNIT_METER]),
    cycle=text,
    billable=st.booleans(),
    provider=text,
    provider_key_type=st.sampled_from(["managed", "unmanaged"]),
    model=st.none() | text,
    endpoint=text,
    stream=st.booleans(),
    created_at=moment,
    metadata=st.none() | st.dictionaries(text, text, max_size=3),
    input_tokens=count,
    input_characters=count,
)
counts = st.builds(Counts, *[count] * 6)
costs = st.builds(Cost, count, count, count)
settlements = st.builds(
    Settlement,
    call=calls,
    outcome=st.sampled_from(["completed", "cut_off", "void", "client_gone"]),
    usage_source=st.sampled_from(["provider", "partial", "estimate"]),
    counts=counts,
    cost=st.none() | costs,
    model=st.none() | text,
    cache_read_tokens=count,
    cache_write_tokens=count,
    reasoning_tokens=count,
    price_version=st.none() | text,
    response_id=st.none() | text,
    status=st.sampled_from(["completed", "error"]),
    flags=st.lists(text, max_size=3).map(tuple),
    duration_ms=st.none() | count,
    first_byte_ms=st.none() | count,
    completed_at=st.none() | moment,
    object_ids=st.lists(text, max_size=3).map(tuple),
)


@given(settlements)
def test_round_trip(made: Settlement) -> None:
    facts = encode_call(made.call)
    assert meter_id_of(facts) == (made.call.meter.meter_id if made.call.meter else None)
    call = decode_call(facts, HOLDER, made.call.meter)
    assert call == made.call
    assert decode_result(encode_result(made), call) == made
    both = orjson.loads(encode_settlement(made))
    assert decode_call(orjson.dumps(both[0]), HOLDER, made.call.meter) == made.call
    assert decode_result(orjson.dumps(both[1]), call) == made


def test_every_field_of_a_settlement_is_kept() -> None:
    """A new field must be written too, or be named here with its reason."""
    not_journaled = {"call", "content_hash"}  # encoded apart; reports are not journaled
    places = len(orjson.loads(encode_result(row("c", shop="m")))) + 2  # 3 token counts share one
    assert places == len(Settlement.__dataclass_fields__) - len(not_journaled)
    not_in_hold = {"holder_id"}  # the folder's name
    assert len(orjson.loads(encode_call(row("c", shop="m").call))) == (
        len(Call.__dataclass_fields__) - len(not_in_hold)
    )


@pytest.mark.parametrize("model", ["\ud800", "nul\0"])
def test_the_quarantine_takes_what_json_cannot_hold(model: str) -> None:
    kept = encode_settlement(row("con_1", 2**80, shop="mer_1", model=model, request_id="req_odd"))
    assert b"req_odd" in kept
    assert str(2**80).encode() in kept
