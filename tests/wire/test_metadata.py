"""Metadata: three forms, their order, and the limits with every wrong pair named."""

from __future__ import annotations

import json

import pytest

from lava_proxy.core.errors import LavaError
from lava_proxy.wire.metadata import DETAILS_MAX, check_metadata, read_metadata


def test_nothing_given() -> None:
    assert read_metadata([(b"host", b"h"), (b"x-lava-fallbacks", b"[]")]) == {}
    assert check_metadata(None) == {}


@pytest.mark.parametrize(
    ("headers", "query", "wanted"),
    [
        ([(b"x-lava-metadata", b'{"a":"1"}')], None, {"a": "1"}),
        ([], '{"a":"1"}', {"a": "1"}),
        ([(b"x-lava-metadata-feature", b"chat")], None, {"feature": "chat"}),
        ([(b"x-lava-metadata-user-id", b"u")], None, {"user_id": "u"}),
        ([(b"x-lava-metadata-USER", b"u")], None, {"user": "u"}),
        ([(b"x-lava-metadata-a", "ü".encode())], None, {"a": "ü"}),
        ([(b"x-lava-metadata-a", b"1"), (b"x-lava-metadata-a", b"1")], None, {"a": "1"}),
        ([(b"x-lava-metadata", b"{}")], "{}", {}),
        ([(b"x-lava-metadata", b'{"A":"1"}')], None, {"A": "1"}),
        ([(b"x-lava-metadatafoo", b"1")], None, {}),
        (
            [(b"x-lava-metadata-c", b"single"), (b"x-lava-metadata", b'{"b":"json","c":"json"}')],
            '{"a":"query","b":"query","c":"query"}',
            {"a": "query", "b": "json", "c": "single"},
        ),
    ],
)
def test_forms_and_their_order(
    headers: list[tuple[bytes, bytes]], query: str | None, wanted: dict[str, str]
) -> None:
    assert read_metadata([(b"accept", b"*/*"), *headers], query) == wanted


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([(b"x-lava-metadata", b"feature=chat")], None),
        ([(b"x-lava-metadata", b"[]")], None),
        ([(b"x-lava-metadata", b'{"a":"1","a":"2"}')], None),
        ([(b"x-lava-metadata", b'{"a":"\\u0000"}')], None),
        ([(b"x-lava-metadata", b'{"a":"\\ud800"}')], None),
        ([(b"x-lava-metadata", b'{"a":"\xe9"}')], None),
        ([(b"x-lava-metadata", b"")], None),
        ([(b"x-lava-metadata", b'{"a":"' + b"x" * 200_000 + b'"}')], None),
        ([(b"x-lava-metadata", b"{}"), (b"x-lava-metadata", b"{}")], None),
        ([(b"x-lava-metadata-a", b"1"), (b"x-lava-metadata-a", b"2")], None),
        ([(b"x-lava-metadata-a-b", b"1"), (b"x-lava-metadata-a_b", b"2")], None),
        ([(b"x-lava-metadata-a", b"\xe9")], None),
        ([], "x"),
        ([], '"\udcff"'),
    ],
)
def test_unreadable_is_400(headers: list[tuple[bytes, bytes]], query: str | None) -> None:
    with pytest.raises(LavaError) as caught:
        read_metadata(headers, query)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": 1}, "metadata.a"),
        ({"a": None}, "metadata.a"),
        ({"a": True}, "metadata.a"),
        ({"a": {"b": "c"}}, "metadata.a"),
        ({"a": ""}, "metadata.a"),
        ({"a": "x" * 256}, "metadata.a"),
        ({"a": "\x00"}, "metadata.a"),
        ({"a": "\ud800"}, "metadata.a"),
        ({"": "x"}, "metadata."),
        ({"a b": "x"}, "metadata.a b"),
        ({"a-b": "x"}, "metadata.a-b"),
        ({"é": "x"}, "metadata.é"),
        ({"a\n": "x"}, "metadata.a\n"),
        ({"a" * 256: "x"}, "metadata." + "a" * 64),
        ({str(number): "x" for number in range(101)}, "metadata"),
        ([], "metadata"),
        ("x", "metadata"),
        (1, "metadata"),
    ],
)
def test_over_a_limit_is_422_with_its_path(value: object, path: str) -> None:
    with pytest.raises(LavaError) as caught:
        check_metadata(value)
    assert (caught.value.status, caught.value.code) == (422, "validation_error")
    assert isinstance(caught.value.details, list)
    (detail,) = caught.value.details
    assert isinstance(detail, dict)
    assert detail["path"] == path
    assert detail["message"]


def test_several_wrong_pairs_are_all_named_up_to_a_limit() -> None:
    with pytest.raises(LavaError) as caught:
        check_metadata({f"k{number}": number for number in range(99)})
    assert caught.value.details is not None
    assert len(caught.value.details) == DETAILS_MAX


def test_limits_themselves_pass_and_values_come_back_equal() -> None:
    value = {f"{number:0>255}": "😀" * 255 for number in range(96)}
    value |= {
        "__proto__": "'; DROP TABLE x; --",
        "rtl": "\u202ea\u200b",
        "sp": " x ",
        "Z_9": "e\u0301",
    }
    assert check_metadata(value) == value
    assert read_metadata([], json.dumps({"rtl": "\u202e"})) == {"rtl": "\u202e"}
    single = [(b"x-lava-metadata-" + b"a" * 256, b"x")]
    with pytest.raises(LavaError) as caught:
        read_metadata(single)
    assert caught.value.status == 422
