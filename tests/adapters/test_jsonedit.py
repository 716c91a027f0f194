"""Textual edits against the standard parser: what should change does, the rest byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_adapters.jsonedit import find_member, members, repeated, set_member, set_nested

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=15,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "max_tokens", 'q"\\', "é", "{", ""]), JSON)
STYLES = st.sampled_from([(None, None), (2, None), (None, (",", ":")), (1, (" ,", " : "))])


def dump(value: object, style: tuple[object, object], escape: bool) -> bytes:
    indent, separators = style
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=escape)
    return text.encode("utf-8", "surrogatepass")


@given(OBJECTS, STYLES, st.booleans())
def test_members_are_what_the_parser_sees(value: dict[str, object], style, escape: bool) -> None:
    text = b" \n" + dump(value, style, escape)
    found = {m.name: json.loads(text[m.start : m.end]) for m in members(text)}
    assert found == value


@given(OBJECTS, STYLES, st.booleans(), st.integers(1, 2**53))
def test_setting_a_member(value: dict[str, object], style, escape: bool, number: int) -> None:
    text = dump(value, style, escape)
    edited = set_member(text, "max_tokens", b"%d" % number)
    assert json.loads(edited) == value | {"max_tokens": number}
    if "max_tokens" not in value:
        comma = b"," if value else b""
        assert edited == b'{"max_tokens":%d' % number + comma + text[1:]
    else:
        member = find_member(text, "max_tokens")
        assert member is not None
        assert edited == text[: member.start] + b"%d" % number + text[member.end :]


@given(OBJECTS, STYLES, st.booleans())
def test_setting_a_nested_member(value: dict[str, object], style, escape: bool) -> None:
    edited = json.loads(set_nested(dump(value, style, escape), "a", "b", b"true"))
    old = value.get("a")
    wanted = (old if isinstance(old, dict) else {}) | {"b": True}
    assert edited == value | {"a": wanted}


@given(OBJECTS, STYLES, st.booleans(), st.sampled_from(["a", "max_tokens"]))
def test_the_shortcut_finds_what_scanning_finds(
    value: dict[str, object], style, escape: bool, name: str
) -> None:
    text = dump(value, style, escape)
    scanned = next((m for m in reversed(members(text)) if m.name == name), None)
    assert find_member(text, name) == scanned


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"x":{"a":1}}', None),
        (b'{"x":"a"}', None),
        (b'["a"]', None),
        (b'{"x":"\\"a\\":1"}', None),
        (b'{"x":"\\"a\\":1","a" :\n{"b":[1]} }', b'{"b":[1]}'),
        (b'{"a":1,"\\u0061":2}', b"2"),
        (b'{"a":1,"a":2}', b"2"),
        (b'{"a":NaN}', b"NaN"),
    ],
)
def test_a_member_is_found_where_it_is_one(text: bytes, value: bytes | None) -> None:
    found = find_member(text, "a")
    assert (found and text[found.start : found.end]) == value


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        (b'{"model":1,"model":2}', "model"),
        (b'{"model":1,"mod\\u0065l":2}', "model"),
        (b'{"model":1,"x":{"model":2}}', None),
        (b'{"model":"model","x":["model"]}', None),
        (b'{"x":["model","model"],"n":1}', None),
        (b'{"x":"\\\\","model":1,"model":2}', "model"),
        (b'{"x":1,"x":2,"model":3}', None),
        (b'{"model":"\\u0065"}', None),
    ],
)
def test_repeated_members(text: bytes, twice: str | None) -> None:
    assert repeated(text, frozenset(("model", "n"))) == twice
