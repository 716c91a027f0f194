"""A secret is hidden however it is written and split, and nothing else is touched."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.wire.mask import Mask, Masks, shows

KEY = b"sk-ant/key_0123456789+=.Z"
ESCAPED = KEY.replace(b"-", b"\\u002d").replace(b"+", b"\\u002B").replace(b"/", b"\\/")
WAYS = [
    KEY,
    ESCAPED,
    KEY.replace(b"-", b"%2D").replace(b"/", b"%2f"),
    json.dumps(ESCAPED.decode())[1:-1].encode(),
    json.dumps(json.dumps(ESCAPED.decode()))[3:-3].encode(),
    b"".join(b"\\u%04x" % char for char in KEY),
]


SHORT = b"k/ey"


def _masked(pieces: list[bytes], key: bytes = KEY) -> bytes:
    mask = Mask(key)
    return b"".join(mask.feed(piece) for piece in pieces) + mask.finish()


def _anyhow(char: int) -> bytes:
    """One character, in all the ways that it may be written."""
    slashes = rb"\\{0,8}+" if char in b'"\\/' else b""
    return rb"(?:\\{1,8}+(?i:u%04x)|\\{0,8}+(?i:%%%02x)|%b%b)" % (
        char,
        char,
        slashes,
        re.escape(bytes([char])),
    )


def _oracle(text: bytes, key: bytes) -> bytes:
    """The same by one search over all of it."""
    every = re.compile(b"".join(map(_anyhow, key)))
    return every.sub(lambda found: b"*" * len(found[0]), text)


@pytest.mark.parametrize("written", WAYS)
def test_every_way_to_write_it_at_every_split(written: bytes) -> None:
    text = b'{"m":"key \\"%b\\" sk-ant \\\\ %%"}' % written
    expected = text.replace(written, b"*" * len(written))
    assert shows(KEY, text)
    assert not shows(KEY, expected)
    for at in range(len(text)):
        assert _masked([text[:at], text[at:]]) == expected
    assert _masked([text[at : at + 1] for at in range(len(text))]) == expected
    assert _masked([text + text]) == expected * 2


def test_a_body_that_ends_within_it_does_not_show_the_part() -> None:
    assert _masked([b"x " + KEY[:20]]) == b"x " + b"*" * 20
    assert _masked([b"ask sk-"]) == b"ask sk-"


@pytest.mark.parametrize("written", WAYS)
@pytest.mark.parametrize("keys", [[KEY], [b"k/ey", KEY], [b"", KEY], []])
def test_a_whole_answer_is_hidden_as_its_pieces_are(written: bytes, keys: list[bytes]) -> None:
    text = b'{"m":"a\\nb k%%2Fe sk-ant %b k/ey' % written
    for end in range(len(text) + 1):
        whole, pieces = Masks(keys), Masks(keys)
        expected = pieces.feed(text[:end]) + pieces.finish()
        assert whole.last(text[:end]) == expected
        assert (KEY in text[:end] and KEY in keys) <= (expected != text[:end])
        begun = Masks(keys)
        assert begun.feed(text[: end // 2]) + begun.last(text[end // 2 : end]) == expected


_PARTS = st.sampled_from(
    [
        *WAYS,
        *(way[:9] for way in WAYS),
        *(way[9:] for way in WAYS),
        b"\\\\",
        b"\\",
        b"%",
        b"s",
        b"u00",
    ]
)
_SHORT = st.sampled_from(
    [SHORT, b"\\u006B\\/ey", b"%6b/e", b"y", b"k", b"\\/", b"\\\\/", b"ey", b"%", b"\\u00"]
)


@pytest.mark.parametrize(("key", "parts"), [(KEY, _PARTS), (SHORT, _SHORT)])
@given(data=st.data())
def test_it_hides_what_one_search_would_find(
    key: bytes, parts: st.SearchStrategy[bytes], data: st.DataObject
) -> None:
    text = b"".join(data.draw(st.lists(parts, max_size=12))) + b"."
    expected = _oracle(text, key)
    assert _masked([text], key) == expected
    assert Masks([key]).last(text) == expected
    cut = data.draw(st.integers(0, len(text)))
    assert _masked([text[:cut], text[cut:]], key) == expected
    assert _masked([text[i : i + 1] for i in range(len(text))], key) == expected


@given(st.lists(st.text("sk-ant/\\u02d%*", max_size=9).map(str.encode), max_size=9))
def test_nothing_else_is_touched_or_kept(pieces: list[bytes]) -> None:
    assert _masked(pieces) == b"".join(pieces)


def test_without_a_secret_everything_passes() -> None:
    mask = Mask(b"")
    assert mask.feed(b"\\ab") + mask.finish() == b"\\ab"
    assert not shows(b"", b"ab")


def test_long_runs_of_backslashes_take_linear_time() -> None:
    text = b"\\" * 200_000
    assert _masked([text]) == text
