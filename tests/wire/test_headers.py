"""Headers: what is refused at the door, what goes up, what comes back (hazards H1 to H10)."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.core.errors import LavaError
from lava_proxy.wire.headers import (
    HEADERS_MAX_BYTES,
    client_headers,
    guard,
    header_value,
    upstream_headers,
)
from lava_proxy.wire.target import parse_target, upstream_url

Pairs = list[tuple[bytes, bytes]]

HOST = (b"host", b"gw.example.com")
JSON = (b"content-type", b"application/json")
IDENTITY = (b"accept-encoding", b"identity")
SECRET = "aks_live_" + "k" * 43
TOKEN = base64.b64encode(json.dumps({"secret_key": SECRET}).encode()).decode()


def scope(
    *headers: tuple[bytes, bytes], method: str = "POST", kind: str = "http"
) -> dict[str, object]:
    return {"type": kind, "method": method, "headers": list(headers)}


def names(pairs: Pairs) -> set[bytes]:
    return {name for name, _ in pairs}


HOP = [
    (b"connection", b"x-foo, Keep-Alive"),
    (b"x-foo", b"1"),
    (b"keep-alive", b"timeout=5"),
    (b"te", b"trailers"),
    (b"trailer", b"x-sum"),
    (b"transfer-encoding", b"chunked"),
    (b"upgrade", b"h2c"),
    (b"proxy-authorization", b"Basic x"),
    (b"proxy-connection", b"keep-alive"),
    (b"proxy-anything", b"x"),
    (b"http2-settings", b"AAMAAABk"),
]


def test_h1_hop_headers_stop_here_in_both_directions() -> None:
    assert upstream_headers([HOST, *HOP, JSON]) == [JSON, IDENTITY]
    answer = [*HOP, (b"x-request-id", b"r"), JSON, (b"connection", b"X-Request-Id")]
    assert client_headers(answer) == [JSON]


def test_h1_plain_connection_values_nominate_nothing() -> None:
    for value in (b"keep-alive", b"close"):
        assert upstream_headers([(b"connection", value), JSON]) == [JSON, IDENTITY]


@pytest.mark.parametrize("text", [TOKEN, SECRET, "lava_ft_" + "t" * 43])
@pytest.mark.parametrize(
    "place",
    [
        b"authorization",
        b"x-api-key",
        b"x-goog-api-key",
        b"xi-api-key",
        b"api-key",
        b"ocp-apim-subscription-key",
        b"key",
    ],
)
def test_h2_the_callers_token_never_goes_up(place: bytes, text: str) -> None:
    value = text.encode()
    sent: Pairs = [HOST, JSON, (b"referer", b"https://gw/v1/forward?key=" + value)]
    query = "u=https://api.openai.com/v1/models?a=1"
    if place == b"key":
        query += f"&key={text}"
    else:
        sent.append((place, b"Bearer " + value if place == b"authorization" else value))
    target = parse_target(b"/v1/forward", query.encode())
    pairs = upstream_headers(sent, secrets=(value, SECRET.encode()))
    raw = upstream_url("https://api.openai.com", target).encode()
    raw += b"".join(name + b": " + content + b"\r\n" for name, content in pairs)
    assert value not in raw
    assert SECRET.encode() not in raw
    assert JSON in pairs


def test_h2_a_secret_is_dropped_under_any_name_but_an_empty_one_drops_nothing() -> None:
    sent = [(b"x-custom", b"v=" + SECRET.encode()), JSON]
    assert upstream_headers(sent, secrets=(b"", SECRET.encode())) == [JSON, IDENTITY]


ANSWER = [
    JSON,
    (b"content-length", b"12"),
    (b"content-encoding", b"identity"),
    (b"x-request-id", b"req_1"),
    (b"request-id", b"req_2"),
    (b"retry-after", b"3"),
    (b"retry-after-ms", b"2500"),
    (b"x-should-retry", b"true"),
    (b"x-ratelimit-limit-requests", b"1"),
    (b"anthropic-ratelimit-tokens-remaining", b"1"),
    (b"ratelimit-policy", b"1"),
    (b"openai-processing-ms", b"12"),
    (b"openai-version", b"2020-10-01"),
    (b"anthropic-version", b"2023-06-01"),
]
WITHHELD = [
    (b"set-cookie", b"a=b"),
    (b"openai-organization", b"org-1"),
    (b"openai-organisation", b"org-1"),
    (b"openai-project", b"proj-1"),
    (b"anthropic-organization-id", b"org-1"),
    (b"alt-svc", b"h3"),
    (b"strict-transport-security", b"max-age=1"),
    (b"access-control-allow-origin", b"*"),
    (b"server", b"cloudflare"),
    (b"date", b"x"),
    (b"via", b"x"),
    (b"www-authenticate", b"Bearer"),
    (b"location", b"http://169.254.169.254/"),
    (b"content-location", b"http://169.254.169.254/"),
    (b"content-security-policy", b"x"),
    (b"refresh", b"0"),
    (b"x-lava-request-id", b"forged"),
    (b"x-accel-redirect", b"/secret"),
    (b"x-accel-buffering", b"yes"),
    (b"x-accel-limit-rate", b"1"),
    (b"x-accel-expires", b"1"),
    (b"x-sendfile", b"/etc/passwd"),
]


def test_h3_h4_u11_only_the_allow_list_comes_back() -> None:
    assert client_headers([*WITHHELD, *ANSWER, *WITHHELD]) == ANSWER


def test_h3_a_providers_row_may_add_names_but_not_the_dangerous_ones() -> None:
    added = (b"x-metadata", b"1")
    assert client_headers([added]) == []
    wide = client_headers([added, *WITHHELD], (b"x-", b"set-"))
    assert wide == [added, (b"x-lava-request-id", b"forged")]


def test_h3_an_echoed_provider_key_is_dropped() -> None:
    echoed = [JSON, (b"x-request-id", b"sk-managed-1"), (b"openai-echo", b"Bearer sk-managed-1")]
    assert client_headers(echoed, secrets=(b"sk-managed-1",)) == [JSON]


def test_client_headers_options() -> None:
    assert client_headers([JSON, (b"content-length", b"1")], keep_length=False) == [JSON]
    assert client_headers([JSON], event_stream=True) == [JSON, (b"x-accel-buffering", b"no")]


def test_h5_h6_the_caller_and_the_hop_are_not_described() -> None:
    ours = [
        HOST,
        (b"cookie", b"a=b"),
        (b"forwarded", b"for=1.2.3.4"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x-forwarded-host", b"h"),
        (b"x-real-ip", b"1.2.3.4"),
        (b"cf-connecting-ip", b"1.2.3.4"),
        (b"via", b"1.1 x"),
        (b"content-length", b"7"),
        (b"expect", b"100-continue"),
        (b"accept-encoding", b"gzip, br"),
        (b"x-lava-metadata", b"{}"),
        (b"x-lava-anything", b"1"),
        (b"x-http-method-override", b"DELETE"),
        (b"x-original-url", b"/admin"),
        (b"x-amz-security-token", b"t"),
    ]
    theirs = [
        JSON,
        (b"accept", b"*/*"),
        (b"user-agent", b"OpenAI/Python"),
        (b"anthropic-version", b"2023-06-01"),
        (b"anthropic-beta", b"a"),
        (b"anthropic-beta", b"b"),
        (b"openai-beta", b"x"),
        (b"x-stainless-lang", b"python"),
        (b"idempotency-key", b"i"),
        (b"http-referer", b"https://app"),
    ]
    assert upstream_headers([*ours, *theirs]) == [*theirs, IDENTITY]


def test_a_providers_row_may_drop_more() -> None:
    sent = [JSON, (b"x-goog-user-project", b"p")]
    assert upstream_headers(sent, drop=frozenset({b"x-goog-user-project"})) == [JSON, IDENTITY]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [HOST, HOST],
        [(b"host", b"")],
        [(b"host", b"u@x")],
        [(b"host", b"x/../admin?")],
        [(b"host", b"x y")],
        [(b"host", b"x:80:80")],
        [(b"host", b"x:123456")],
        [(b"host", b"\xc3\xa4")],
        [(b"host", b"x,y")],
        [(b"host", b"x\n")],
        [HOST, (b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")],
        [HOST, (b"x", b"a\r\nb")],
        [HOST, (b"x", b"a\x00")],
        [HOST, (b"x\n", b"a")],
        [HOST, (b"x", b"a" * HEADERS_MAX_BYTES)],
        [HOST, *[(b"x", b"1")] * 2000],
    ],
)
def test_h7_h9_refused_with_400(headers: Pairs) -> None:
    with pytest.raises(LavaError) as caught:
        guard(scope(*headers))
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")


@pytest.mark.parametrize(
    "host", [b"h", b"localhost:8080", b"a_b.example", b"127.0.0.1:1", b"[::1]:8000", b"[::1]"]
)
def test_ordinary_hosts_pass(host: bytes) -> None:
    assert guard(scope((b"host", host), (b"authorization", b"Bearer x"), method="GET")) is None


@pytest.mark.parametrize(
    ("request_scope", "status"),
    [
        (scope(HOST, method="TRACE"), 405),
        (scope(HOST, method="TRACK"), 405),
        (scope(HOST, method="CONNECT"), 405),
        (scope(HOST, (b"expect", b"200-maybe")), 417),
        (scope(HOST, (b"expect", b"100-continue, x")), 417),
        (scope(HOST, (b"content-encoding", b"gzip")), 415),
        (scope(HOST, (b"content-encoding", b"identity"), (b"content-encoding", b"br")), 415),
        (scope(HOST, kind="websocket"), 426),
        (scope(HOST, (b"connection", b"Upgrade"), (b"upgrade", b"websocket")), 426),
        (scope(HOST, (b"upgrade", b"WebSocket")), 426),
        (scope(HOST, (b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"h2c, foo/1")), 426),
    ],
)
def test_refused_with_their_own_status(request_scope: dict[str, object], status: int) -> None:
    with pytest.raises(LavaError) as caught:
        guard(request_scope)
    assert caught.value.status == status
    assert ("allow" in caught.value.headers) == (status == 405)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"expect", b"100-Continue")],
        [(b"content-encoding", b"identity")],
        [(b"content-encoding", b"")],
        [(b"connection", b"Upgrade, HTTP2-Settings"), (b"upgrade", b"h2c"), HOP[-1]],
        [(b"upgrade", b"TLS/1.0")],
        [(b"connection", b"upgrade")],
    ],
)
def test_harmless_oddities_pass(headers: Pairs) -> None:
    assert guard(scope(HOST, *headers)) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("req_1", b"req_1"),
        ("a b/c:d", b"a b/c:d"),
        ("a\r\nSet-Cookie: x\x00", b"a%0D%0ASet-Cookie: x%00"),
        ("ä%\x7f", b"%C3%A4%25%7F"),
        ("\ud800", b"\\ud800"),
    ],
)
def test_h9_our_own_values_cannot_end_their_line(text: str, wanted: bytes) -> None:
    assert header_value(text) == wanted


def test_h10_high_bytes_pass_as_bytes() -> None:
    odd = (b"x-odd", bytes(range(0x80, 0x100)))
    assert guard(scope(HOST, odd)) is None
    assert upstream_headers([HOST, odd]) == [odd, IDENTITY]
    assert client_headers([(b"x-request-id", odd[1])]) == [(b"x-request-id", odd[1])]


PAIRS = st.lists(
    st.tuples(
        st.sampled_from([b"host", b"connection", b"upgrade", b"expect", b"authorization", b"x-a"])
        | st.binary(max_size=12),
        st.binary(max_size=20),
    ),
    max_size=8,
)


@given(PAIRS)
def test_no_headers_crash_the_three(pairs: Pairs) -> None:
    with contextlib.suppress(LavaError):
        guard(scope(*pairs))
    assert names(upstream_headers(pairs)) <= names(pairs) | {b"accept-encoding"}
    assert names(client_headers(pairs)) <= names(pairs)
