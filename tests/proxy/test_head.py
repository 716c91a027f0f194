"""Heads that repeat are read once; nothing that differs is taken for the same."""

from __future__ import annotations

import pytest

from lava_proxy.core.errors import LavaError
from lava_proxy.proxy import head as heads_module
from lava_proxy.proxy.head import KEPT_MAX_BYTES, Heads

HOST = (b"host", b"gateway")
KEY = (b"authorization", b"Bearer aks_live_abc")
JSON = (b"content-type", b"application/json")
IDENTITY = (b"accept-encoding", b"identity")


def scope(*headers: tuple[bytes, bytes], method: str = "POST") -> dict[str, object]:
    return {"type": "http", "method": method, "headers": [HOST, KEY, *headers]}


def test_the_same_head_is_read_once_whatever_the_body_s_length() -> None:
    heads = Heads(65536)
    first = heads.read(scope(JSON, (b"content-length", b"10")))
    assert heads.read(scope((b"content-length", b"11"), JSON)) is first
    assert heads.read({**scope(), "headers": [list(pair) for pair in (HOST, KEY, JSON)]}) is first
    assert first.credential(None) is first.credential(None)
    assert (first.credential(None).text, first.content_type) == (
        "aks_live_abc",
        "application/json",
    )
    assert first.signed is None


@pytest.mark.parametrize(
    "other",
    [
        scope((b"content-type", b"text/plain")),
        scope(JSON, (b"x-lava-metadata-a", b"b")),
        scope(JSON, (b"x-b", b"")),
        scope((b"x", b"y"), JSON),
        {**scope(), "headers": [HOST, (b"authorization", b"Bearer aks_live_abd"), JSON]},
        {**scope(), "headers": [KEY, HOST, JSON]},
    ],
)
def test_what_differs_is_read_anew(other: dict[str, object]) -> None:
    heads = Heads(65536)
    first, second = heads.read(scope(JSON)), heads.read(other)
    assert second is not first
    assert heads.read(other) is second
    assert heads.read(scope(JSON)) is first


@pytest.mark.parametrize(
    "wrong", [scope(HOST), scope((b"expect", b"more")), scope(JSON, method="TRACE")]
)
def test_what_is_refused_is_refused_again(wrong: dict[str, object]) -> None:
    heads = Heads(65536)
    heads.read(scope(JSON))
    for _ in range(2):
        with pytest.raises(LavaError):
            heads.read(wrong)


def test_what_is_wrong_with_a_head_is_said_each_time() -> None:
    head = Heads(65536).read(scope(JSON, JSON, (b"x-lava-metadata", b"no JSON")))
    for _ in range(2):
        with pytest.raises(LavaError, match="given twice"):
            _ = head.content_type
        with pytest.raises(LavaError, match="metadata"):
            head.metadata(None)


def test_the_url_s_key_and_metadata_are_its_own() -> None:
    head = Heads(65536).read({**scope(), "headers": [HOST, JSON, (b"x-lava-metadata-a", b"1")]})
    assert (head.credential("one").text, head.credential("two").text) == ("one", "two")
    assert head.metadata(None) == {"a": "1"}
    assert head.metadata('{"b": "2"}') == {"a": "1", "b": "2"}
    assert head.metadata(None) == {"a": "1"}


def test_what_goes_on_hides_the_secrets_of_this_call() -> None:
    """Who reads the list may add to it; the next call has it as it was."""
    head = Heads(65536).read(scope(JSON, (b"x-a", b"see secret-1"), (b"x-b", b"see secret-2")))
    for secret, other in (("secret-1", (b"x-b", b"see secret-2")),
                          ("secret-2", (b"x-a", b"see secret-1"))):  # fmt: skip
        for _ in range(2):
            passing = head.passing(secret)
            assert passing == [JSON, other, IDENTITY]
            passing.append((b"authorization", b"Bearer ours"))


def test_few_heads_are_kept_and_no_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads_module, "KEPT", 2)
    heads = Heads(65536)
    first = heads.read(scope(JSON))
    last = [heads.read(scope((b"x", b"%d" % number))) for number in range(3)][-1]
    assert heads.read(scope((b"x", b"2"))) is last
    assert heads.read(scope(JSON)) is not first
    long = scope((b"x", b"y" * KEPT_MAX_BYTES))
    assert heads.read(long) is not heads.read(long)
