"""JSON arrays, lines and whole documents: any split, the same events, the same bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.wire.event import Event, Framer, Limits
from lava_proxy.wire.jsonarray import JsonArrayFramer
from lava_proxy.wire.ndjson import NdjsonFramer, OpaqueFramer, WholeFramer

SMALL = Limits(hold_bytes=40, parse_bytes=200, head_bytes=20, tail_bytes=30)


def feed(framer: Framer, pieces: list[bytes]) -> list[Event]:
    events = [event for piece in pieces for event in framer.feed(piece)] + framer.finish()
    assert b"".join(event.raw for event in events) == b"".join(pieces)
    assert framer.finish() == []
    return events


def data(events: list[Event]) -> list[bytes]:
    return [event.data for event in events if event.data]


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[i : i + size] for i in range(0, len(body), size)]


ARRAY = b'[{"a": "}]\\"{", "b": [1, {"c": "\\\\"}]}\r\n,\r\n{"d": {}}, {"e":"\xc3\xa9"}\n]\n'


def test_an_array_is_cut_into_its_objects() -> None:
    wanted = [{"a": '}]"{', "b": [1, {"c": "\\"}]}, {"d": {}}, {"e": "é"}]
    for size in range(1, len(ARRAY) + 1):
        events = feed(JsonArrayFramer(), cut(ARRAY, size))
        assert [json.loads(each) for each in data(events)] == wanted
        assert not any(event.torn for event in events)


def test_an_element_goes_out_with_its_last_brace() -> None:
    framer = JsonArrayFramer()
    assert framer.feed(b'[{"a":1') == []
    assert framer.feed(b"}") == [Event(b'[{"a":1}', "", b'{"a":1}')]
    assert framer.feed(b',\r\n{"b":') == []
    assert not framer.mid_event
    assert framer.feed(b"2}\r\n]")[0].data == b'{"b":2}'
    assert framer.pending == b""


def test_a_lone_object_is_one_event() -> None:
    body = b' {"error": {"code": 429}} '
    for size in range(1, len(body) + 1):
        assert data(feed(JsonArrayFramer(), cut(body, size))) == [b'{"error": {"code": 429}}']


def test_a_huge_element_keeps_head_and_tail() -> None:
    body = b'[{"head":1,"x":"' + b"y" * 900 + b'","tail":2},{"z":3}]'
    ways = [data(feed(JsonArrayFramer(SMALL), cut(body, size))) for size in (1, 3, 50, 5_000)]
    assert ways[0][1] == b'{"z":3}'
    assert ways[0][0].startswith(b'{"head"')
    assert ways[0][0].endswith(b'"tail":2}')
    assert all(way == ways[0] for way in ways)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.text(), JSON), max_size=5), st.integers(1, 40), st.booleans())
def test_random_arrays(elements: list[object], size: int, escape: bool) -> None:
    body = json.dumps(elements, indent=1, ensure_ascii=escape).encode("utf-8", "surrogatepass")
    assert [json.loads(d) for d in data(feed(JsonArrayFramer(), cut(body, size)))] == elements


@given(st.binary(max_size=200), st.integers(1, 9))
@pytest.mark.parametrize("kind", [JsonArrayFramer, NdjsonFramer, WholeFramer, OpaqueFramer])
def test_any_bytes_pass_through(kind: type[JsonArrayFramer], body: bytes, size: int) -> None:
    feed(kind(SMALL), cut(body, size))


def test_lines() -> None:
    body = b'{"a":1}\r\n\n{"b":2}\n{"c":3}'
    for size in range(1, len(body) + 1):
        events = feed(NdjsonFramer(), cut(body, size))
        assert data(events) == [b'{"a":1}', b'{"b":2}', b'{"c":3}']


def test_a_whole_document_passes_at_once_and_is_read_at_the_end() -> None:
    framer = WholeFramer()
    assert framer.feed(b'{"a"')[0].raw == b'{"a"'
    assert framer.feed(b":1}")[0].raw == b":1}"
    assert framer.finish() == [Event(b"", "", b'{"a":1}', True)]


def test_a_whole_document_beyond_the_cap() -> None:
    body = b'{"model":"m",' + b"x" * 1000 + b'"usage":{"a":1}}'
    ways = [data(feed(WholeFramer(SMALL), cut(body, size))) for size in (1, 7, 5_000)]
    assert ways[0] == [body[:20] + body[-30:]]
    assert all(way == ways[0] for way in ways)
