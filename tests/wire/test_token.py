"""Credentials: every place, every form, every refusal, and nothing of them left in a log."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import PREFIXES, new_id
from lava_proxy.wire.token import (
    TOKEN_MAX_CHARS,
    Token,
    decode_token,
    find_credential,
    invalid_token,
    redact,
)

KEY = "aks_live_" + "k" * 43
FULL = {
    "secret_key": KEY,
    "customer_id": "con_1",
    "meter_slug": "chat",
    "provider_key": "sk-own:key",
    "disable_billing": True,
}


def encode(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def refusal(text: str) -> LavaError:
    with pytest.raises(LavaError) as caught:
        decode_token(text)
    return caught.value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", b"Bearer " + KEY.encode()),
        (b"authorization", b"bearer  " + KEY.encode()),
        (b"authorization", b"Token " + KEY.encode()),
        (b"authorization", b"Key " + KEY.encode()),
        (b"authorization", KEY.encode()),
        (b"x-api-key", KEY.encode()),
        (b"x-goog-api-key", KEY.encode()),
        (b"xi-api-key", KEY.encode()),
        (b"api-key", b" " + KEY.encode() + b" "),
    ],
)
def test_every_place(name: bytes, value: bytes) -> None:
    found = find_credential([(b"accept", b"*/*"), (name, value)], None)
    assert (found.text, found.place) == (KEY, name.decode())
    assert KEY not in repr(found)


def test_the_query_is_a_place() -> None:
    assert find_credential([(b"x-api-key", b"")], KEY).place == "key"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic dXNlcjpwdw==")],
        [(b"cookie", b"x-api-key=" + KEY.encode())],
    ],
)
def test_no_credential_is_401(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(LavaError) as caught:
        find_credential(headers, None)
    assert caught.value.status == 401


def test_equal_credentials_agree_and_different_ones_do_not() -> None:
    both = [(b"authorization", b"Bearer " + KEY.encode()), (b"x-api-key", KEY.encode())]
    assert find_credential(both, KEY).text == KEY
    for headers, key in ((both, "other"), ([*both, (b"api-key", b"other")], None)):
        with pytest.raises(LavaError) as caught:
            find_credential(headers, key)
        assert caught.value.status == 400
        assert KEY not in caught.value.message


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (KEY, "secret_key"),
        (KEY.replace("live", "test"), "secret_key"),
        ("lava_ft_" + "a" * 43, "opaque"),
        ("lava_sk_" + "a-_" * 9, "spend_key"),
    ],
)
def test_plain_kinds(text: str, kind: str) -> None:
    token = decode_token(text)
    assert (token.kind, token.secret) == (kind, text)
    assert text not in repr(token)


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ({"secret_key": KEY}, Token("secret_key", KEY)),
        (FULL, Token("secret_key", KEY, "con_1", "chat", "sk-own:key", True)),
        (
            {"secret_key": KEY, "customer_id": None, "meter_slug": "m", "disable_billing": None},
            Token("secret_key", KEY, None, "m"),
        ),
        (
            {"secret_key": KEY, "customer_id": None, "meter_slug": None, "provider_key": "p"},
            Token("secret_key", KEY, provider_key="p"),
        ),
        (
            {"secret_key": KEY, "connection_id": "c", "meter_slug": "m"},
            Token("secret_key", KEY, "c", "m"),
        ),
        (
            {"secret_key": KEY, "connection_id": "c", "customer_id": "c", "meter_slug": "m"},
            Token("secret_key", KEY, "c", "m"),
        ),
        (
            {"secret_key": KEY, "customer_id": "Ünal:1 ä", "meter_slug": "m:n"},
            Token("secret_key", KEY, "Ünal:1 ä", "m:n"),
        ),
    ],
)
def test_forward_tokens(members: dict[str, object], wanted: Token) -> None:
    assert decode_token(encode(members)) == wanted


@pytest.mark.parametrize("filler", ["", "x", "xx", "üÿ?>~"])
def test_base64_variants_are_one_token(filler: str) -> None:
    """I2: the standard alphabet padded, and url-safe or unpadded beside it."""
    text = encode({**FULL, "customer_id": "c" + filler})
    safe = text.replace("+", "-").replace("/", "_")
    variants = {text, safe, text.rstrip("="), safe.rstrip("=")}
    assert len({decode_token(variant) for variant in variants}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "sk-" + "a" * 40,
        "aks_live_",
        "aks_prod_" + "a" * 40,
        KEY + " ",
        KEY + "ä",
        KEY + "a" * 200,
        "lava_ft_",
        "lava_sk_a b",
        encode(FULL) + "\n",
        " " + encode(FULL),
        encode(FULL)[:20] + " " + encode(FULL)[20:],
        encode({"secret_key": KEY}) + "====",
        encode("not json"),
        encode('{"secret_key":'),
        encode('{"secret_key":"\ud800"}'),
        encode('\ufeff{"secret_key":"x"}'),
        encode({"secret_key": "nope"}),
        encode({"secret_key": "lava_sk_" + "a" * 43}),
        encode('{"a:b":' + "9" * 5000 + "}"),
        encode('{"a":' + "[" * 2000 + "]" * 2000 + "}"),
        encode('{"a":' + "[" * 1000 + "]" * 1000 + ',"a":1}'),
        "A" * (TOKEN_MAX_CHARS + 1),
        "A" * (1 << 20),
        base64.b64encode(b"\xff\xfe{}").decode(),
        base64.b64encode(json.dumps(FULL).encode("utf-16")).decode(),
        "\udcff",
    ],
)
def test_what_is_no_token_is_401_with_one_body(text: str) -> None:
    error = refusal(text)
    if error.status == 400:
        # Readable JSON under a hostile number or depth may be refused by its fields instead.
        assert "unknown fields" in error.message or "twice" in error.message
        return
    assert (error.code, error.message) == ("invalid_token", invalid_token().message)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ([], "object"),
        ("1", "object"),
        ({}, "secret_key"),
        ({"secret_key": None}, "secret_key"),
        ({"secret_key": 1}, "secret_key"),
        ({"secret_key": KEY, "customer_id": "c"}, "meter_slug"),
        ({"secret_key": KEY, "connection_id": "c"}, "meter_slug"),
        ({"secret_key": KEY, "customer_id": "c", "meter_slug": ""}, "meter_slug"),
        ({"secret_key": KEY, "customer_id": 1, "meter_slug": "m"}, "customer_id"),
        ({"secret_key": KEY, "customer_id": {"a": 1}, "meter_slug": "m"}, "customer_id"),
        ({"secret_key": KEY, "customer_id": "c\r\nx: y", "meter_slug": "m"}, "customer_id"),
        ({"secret_key": KEY, "customer_id": "c" * 256, "meter_slug": "m"}, "customer_id"),
        (
            {"secret_key": KEY, "customer_id": "c", "connection_id": "d", "meter_slug": "m"},
            "differ",
        ),
        ({"secret_key": KEY, "provider_key": "a\r\nb: c"}, "provider_key"),
        ({"secret_key": KEY, "provider_key": ""}, "provider_key"),
        ({"secret_key": KEY, "provider_key": ["x"]}, "provider_key"),
        ({"secret_key": KEY, "disable_billing": 1}, "disable_billing"),
        ({"secret_key": KEY, "disable_billing": "true"}, "disable_billing"),
        ({"secret_key": KEY, "admin": True, "zz": 1}, "'admin', 'zz'"),
        ({"connection_secret": "x", "product_secret": "y"}, "connection_secret, product_secret"),
        (f'{{"secret_key":"{KEY}","secret_key":"{KEY}"}}', "twice"),
        (f'{{"secret_key":"{KEY}","meter_slug":"a","meter_slug" :"b:c"}}', "twice"),
        (f'{{"secret_key":"{KEY}","\\u006deter_slug":"a","meter_slug":"b"}}', "twice"),
    ],
)
def test_wrong_members_are_400_and_named(value: object, word: str) -> None:
    error = refusal(encode(value))
    assert (error.status, error.code) == (400, "invalid_request")
    assert word in error.message
    assert KEY not in error.message


def base64_text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@given(st.text(max_size=80) | st.binary(max_size=60).map(base64_text))
def test_no_random_text_is_a_token(text: str) -> None:
    assert refusal(text).status in {400, 401}


SECRETS = [
    "css_live_" + "Q4_x" * 10 + "abc",
    KEY,
    KEY.replace("live", "test"),
    "lava_sk_" + "aB3-" * 10 + "xyz",
    "lava_ft_" + "aB3_" * 10 + "xyz",
    encode(FULL),
    encode(FULL).rstrip("="),
    encode(json.dumps(FULL, indent=1)),
    encode(FULL).replace("+", "-").replace("/", "_"),
    encode(FULL).replace("+", "%2B").replace("=", "%3D"),
    "sk-proj-" + "Ab1_" * 12,
    "sk-ant-api03-" + "Ab1-" * 20,
    "gsk_" + "aB3" * 14,
    "AIzaSy" + "aB3-" * 8,
    "xai-" + "aB3" * 14,
    "sk_" + "0123456789abcdef" * 3,
]
SURROUNDINGS = [
    "{}",
    "GET /v1/forward?u=https://x/y&key={} HTTP/1.1",
    "authorization: Bearer {}",
    "{{'x-api-key': '{}'}}",
    '{{"secret_key":"{}","n":1}}',
    "failed for {}: no",
    "({})",
    "u=https%3A%2F%2Fh%2Fp%3Fkey%3D{}",
    "path%2F{}%22",
    "a={};b",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", SURROUNDINGS)
def test_redact_hides_every_shape(secret: str, around: str) -> None:
    hidden = redact(around.format(secret))
    assert "[redacted]" in hidden
    core = secret.removeprefix("aks_live_").removeprefix("aks_test_").removeprefix("lava_")
    assert core[8:24] not in hidden


def test_redact_hides_any_bearer_and_query_key() -> None:
    text = "Authorization: bearer abc; Token 1234567890abcdef0 ?key=Zz9 api_key=Q, 'api-key': 'W'"
    hidden = redact(text)
    assert [word for word in ("abc", "12345", "Zz9", "Q", "W") if word in hidden] == []


def test_redact_keeps_ids_and_prose() -> None:
    ids = " ".join(new_id(kind) + " " + new_id(kind, test=True) for kind in PREFIXES)
    prose = f"the token expired, key rotation done; task-force-management-of-things {ids}"
    assert redact(prose) == prose


@given(st.text(max_size=40), st.text(max_size=40))
def test_redact_hides_a_secret_in_any_text(before: str, after: str) -> None:
    assert "k" * 43 not in redact(f"{before}{KEY}{after}")
