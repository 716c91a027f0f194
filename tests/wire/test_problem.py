"""Error envelopes and strict JSON: refused is 400 (or 413), never a crash."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.core.errors import CODES, LavaError
from lava_proxy.wire.problem import BODY_MAX_BYTES, DEPTH_MAX, envelope, strict_json


@pytest.mark.parametrize("code", CODES)
def test_envelope_of_every_code(code: str) -> None:
    body = json.loads(envelope(LavaError(code), "req_1"))
    assert body == {
        "error": {
            "message": CODES[code].meaning,
            "code": code,
            "status": CODES[code].status,
            "request_id": "req_1",
        }
    }


def test_envelope_carries_details_and_may_lack_an_id() -> None:
    details: list[object] = [{"path": "metadata.a", "message": "m"}]
    error = json.loads(envelope(LavaError("validation_error", "Wrong.", details=details)))["error"]
    assert error == {
        "message": "Wrong.",
        "code": "validation_error",
        "status": 422,
        "details": details,
    }
    money = {"required": "1.0000000000", "available": "0.0000000000"}
    error = json.loads(envelope(LavaError("insufficient_credit", details=money)))["error"]
    assert error["details"] == money


@pytest.mark.parametrize("odd", ["\ud800", 2**70, Decimal("1.5"), {"a": {1, 2}}])
def test_envelope_survives_any_detail(odd: object) -> None:
    error = json.loads(envelope(LavaError("invalid_request", "x\ud800", details={"odd": odd})))
    assert error["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"a":1,"b":[true,null,"x"]}', {"a": 1, "b": [True, None, "x"]}),
        (b' "\xc3\xa9" ', "é"),
        (b"9007199254740992", 2**53),
        (b"-9007199254740992", -(2**53)),
        (b'{"a":{"a":1},"b":{"a":2}}', {"a": {"a": 1}, "b": {"a": 2}}),
        (b'"\\u00e9\\ud83d\\ude00"', "é😀"),
        ('"\u202e\u200b😀"'.encode(), "\u202e\u200b😀"),
        (b'{"__proto__":"\'; DROP TABLE x"}', {"__proto__": "'; DROP TABLE x"}),
        (b"[" * DEPTH_MAX + b"]" * DEPTH_MAX, None),
    ],
)
def test_accepted(body: bytes, wanted: object) -> None:
    value = strict_json(body)
    assert value == (json.loads(body) if wanted is None else wanted)


def test_fractions_are_decimals() -> None:
    value = strict_json(b"[0.1, 1e2, 0e0]")
    assert value == [Decimal("0.1"), Decimal("1e2"), Decimal(0)]
    assert isinstance(value, list)
    assert all(isinstance(number, Decimal) for number in value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1}x',
        b"{'a':1}",
        b'{"a":1,}',
        b'"a\nb"',
        b'{"a":1,"a":1}',
        b'{"x":[{"a":1,"\\u0061":2}]}',
        b"18446744073709551616",
        b"9007199254740993",
        b"-9007199254740993",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"1e-999",
        b"9" * 5000,
        b"0." + b"1" * 5000,
        b"1e" + b"9" * 60,
        b"1e" + b"9" * 5000,
        b"[" * 2000 + b"]" * 2000,
        b"[" * 200_000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1),
        b'"\\ud800"',
        b'{"\\udc00":1}',
        b'["\\u0000"]',
        b'"\x00"',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-32-le"),
        b'"\xff"',
        b'"\xed\xa0\x80"',
    ],
)
def test_refused_with_400(body: bytes) -> None:
    with pytest.raises(LavaError) as caught:
        strict_json(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    assert len(caught.value.message) < 300


def test_the_size_limit_is_413() -> None:
    with pytest.raises(LavaError) as caught:
        strict_json(b" " * (BODY_MAX_BYTES + 1))
    assert caught.value.status == 413
    assert strict_json(b" " * (BODY_MAX_BYTES - 1) + b"1") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_agrees_with_the_standard_parser_on_plain_json(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    if "\\u0000" in text:
        with pytest.raises(LavaError):
            strict_json(text.encode())
    else:
        assert strict_json(text.encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_parse_or_are_refused(body: bytes) -> None:
    try:
        value = strict_json(body)
    except LavaError:
        return
    assert value == json.loads(body, parse_float=Decimal)
