"""Targets: every URL form, every refusal of the SSRF table, and no disagreement with yarl."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus

import pytest
import yarl
from hypothesis import example, given
from hypothesis import strategies as st

from lava_proxy.core.errors import LavaError
from lava_proxy.wire.target import (
    TARGET_MAX_BYTES,
    Target,
    check_path,
    parse_prefix,
    parse_target,
    split_named,
    upstream_url,
)

CHAT = "https://api.openai.com/v1/chat/completions"
CHAT_TARGET = Target("api.openai.com", None, "/v1/chat/completions", "")
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/g:streamGenerateContent"


def forward(query: str | bytes, path: str = "/v1/forward", **options: frozenset[str]) -> Target:
    raw = query if isinstance(query, bytes) else query.encode("latin-1")
    return parse_target(path.encode("latin-1"), raw, **options)


def refused(query: str | bytes, path: str = "/v1/forward", **options: frozenset[str]) -> str:
    with pytest.raises(LavaError) as caught:
        forward(query, path, **options)
    assert caught.value.code == "invalid_request"
    assert caught.value.status == 400
    return caught.value.message


def both_forms(url: str) -> list[str]:
    """`url` as a raw and as an encoded ``u``."""
    return [f"u={url}", f"u={quote(url, safe='')}"]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/forward", f"u={quote(CHAT, safe='')}"),
        ("/v1/forward", f"u={quote(CHAT)}"),
        ("/v1/forward", f"u={CHAT}"),
        ("/v1/forward/", f"u={CHAT}"),
        ("/forward", f"u={CHAT}"),
        ("/forward/", f"u={CHAT}"),
        ("/v1/forward/openai", f"u={CHAT}"),
        ("/v1/forward/openai/", f"u={quote(CHAT, safe='')}"),
        (f"/v1/forward/{CHAT}", ""),
        (f"/v1/forward/{quote(CHAT, safe='')}", ""),
        ("/v1/forward", f"u={CHAT.replace('api.openai', 'API.OpenAI')}"),
        ("/v1/forward", f"u={CHAT.replace('.com/', '.com:443/')}"),
        ("/v1/forward", f"u=HTTPS{CHAT[5:]}"),
    ],
)
def test_every_form_means_the_same(path: str, query: str) -> None:
    assert forward(query, path) == CHAT_TARGET


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (f"u={GEMINI}?alt=sse&k=1", "alt=sse&k=1"),
        (f"u={quote(GEMINI + '?alt=sse&k=1', safe='')}", "alt=sse&k=1"),
        (f"u={quote_plus(GEMINI + '?alt=sse')}&k=1", "alt=sse&k=1"),
        (f"k=1&u={GEMINI}?alt=sse&z=", "alt=sse&k=1&z="),
        (f"u={GEMINI}&alt=sse", "alt=sse"),
        (f"u={GEMINI}?a=b%26c%3Dd", "a=b%26c%3Dd"),
        (f"u={quote(GEMINI + '?a=b%26c', safe='')}", "a=b%26c"),
        (f"u={GEMINI}?u=https://other", "u=https://other"),
        (f"u={GEMINI}?filter=%C3%A9+x&b[]=1&c", "filter=%C3%A9+x&b[]=1&c"),
        (str(yarl.URL("/").with_query(u=GEMINI + "?alt=sse&k=1").raw_query_string), "alt=sse&k=1"),
    ],
)
def test_the_targets_own_query_survives(query: str, wanted: str) -> None:
    target = forward(query)
    assert (target.path, target.query) == ("/v1beta/models/g:streamGenerateContent", wanted)


def test_path_form_keeps_its_query_even_a_u() -> None:
    target = forward("u=1&alt=sse&key=K", f"/v1/forward/{GEMINI}")
    assert (target.query, target.key) == ("u=1&alt=sse", "K")


@pytest.mark.parametrize(
    "query",
    [
        f"u={GEMINI}?alt=sse&key=SECRET",
        f"u={GEMINI}?key=SECRET&alt=sse",
        f"u={quote(GEMINI + '?key=SECRET&alt=sse', safe='')}",
        f"key=SECRET&u={GEMINI}?alt=sse",
        f"u={GEMINI}?%6Bey=SECRET&alt=sse",
        f"u={GEMINI}?alt=sse&k%65y=SECRE%54&key=SECRET",
    ],
)
def test_the_key_is_taken_out_wherever_it_stands(query: str) -> None:
    target = forward(query)
    assert target.key == "SECRET"
    assert target.query == "alt=sse"
    assert "SECRET" not in upstream_url("https://h.example", target)
    assert "SECRET" not in repr(target)


def test_key_and_metadata_are_decoded_once() -> None:
    target = forward(f"u={CHAT}&key=a+b%3D%2Bc&metadata=%7B%22a%22%3A%22b+c%2B%20%2525%22%7D")
    assert target.key == "a+b=+c"
    assert target.metadata == '{"a":"b c+ %25"}'
    assert target.query == ""


def test_two_values_for_one_of_ours_are_refused() -> None:
    assert "key" in refused(f"u={CHAT}?key=a&key=b")
    assert "metadata" in refused(f"u={CHAT}&metadata=%7B%7D&metadata=1")
    assert forward(f"u={CHAT}&key=a%3D&key=a=").key == "a="


U1_USER = [
    "https://api.openai.com@evil.com/",
    "https://user:pw@api.openai.com/v1",
    "https://evil.com#@api.openai.com/",
    "https://api.openai.com#@evil.com/",
    "https://api.openai.com?@evil.com/",
    "https://api.openai.com?x=1",
]
U2_BACKSLASH = ["https://api.openai.com\\@evil.com/", "https:\\\\api.openai.com/", CHAT + "\\x"]
U3_SPACE = [
    "https://api.open\nai.com/v1",
    "https://api.openai.com\t/v1",
    " https://api.openai.com/v1",
    "https://api.openai.com/v 1",
    "https://api.openai.com/v1\r",
    CHAT + "?a= b",
]
U4_NOT_ASCII = [
    "https://ⓐpi.openai.com/v1",
    "https://api。openai.com/v1",
    "https://\u0430pi.openai.com/v1",
    "https://xn--pi-7ia.openai.com/v1",
    "https://api.xn--openai.com/v1",
    CHAT + "/ä",
]
U5_HOST = [
    "https://api.openai.com./v1",
    "https://.openai.com/v1",
    "https://api..openai.com/v1",
    "https://api%2eopenai.com/v1",
    "https://api_openai.com/v1",
    "https://-api.openai.com/v1",
    f"https://{'a' * 64}.com/v1",
    f"https://{'a.' * 127}com/v1",
    "https://openai/v1",
    "https://localhost/v1",
]
U6_SCHEME_AND_PORT = [
    "https://api.openai.com:8443/v1",
    "https://api.openai.com:0443/v1",
    "https://api.openai.com:/v1",
    "https://api.openai.com:99999/v1",
    "https://api.openai.com:+443/v1",
    "https://api.openai.com:443:443/v1",
    "http://api.openai.com/v1",
    "http://api.openai.com:443/v1",
    "//api.openai.com/v1",
    "https:api.openai.com/v1",
    "https:///api.openai.com/v1",
    "https:/api.openai.com/v1",
    "file:///etc/passwd",
    "gopher://api.openai.com/",
    "api.openai.com/v1",
    "https://",
    "x",
]
U7_ADDRESS = [
    "https://169.254.169.254/latest",
    "https://127.1/",
    "https://0/",
    "https://2852039166/",
    "https://0xA9FEA9FE/",
    "https://127.0.0.0x1/",
    "https://[::1]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:a9fe:a9fe]/",
]
U8_PATH = [
    "https://api.openai.com/v1/../admin",
    "https://api.openai.com/..",
    "https://api.openai.com/v1/./admin",
    "https://api.openai.com/v1/%2e%2e/admin",
    "https://api.openai.com/v1/.%2E/admin",
    "https://api.openai.com/v1/%5cadmin",
    "https://api.openai.com/v1/%00",
    "https://api.openai.com/v1/..;/admin",
    "https://api.openai.com/v1;..",
    "https://api.openai.com/v1/%3b..",
    "https://api.openai.com//v1",
    "https://api.openai.com/v1//",
    "https://api.openai.com/v1/..%2fadmin",
    "https://api.openai.com/v1%2f/admin",
    "https://api.openai.com/v1/%c0%ae%c0%ae/admin",
    "https://api.openai.com/v1/%EF%BC%8E%EF%BC%8E/admin",
    "https://api.openai.com/v1/..%20/admin",
    "https://api.openai.com/v1%3Fx",
    "https://api.openai.com/v1%23x",
    "https://api.openai.com/v1/{model}",
    "https://api.openai.com/v1/%E2%80%AEx",
]
U9_LINE_BREAK = [
    CHAT + "%0d%0aX: y",
    CHAT + "\r\nX: y",
    CHAT + "?a=%0d%0aX:%20y",
    CHAT + "?a=\r\nX:y",
    CHAT + "?a=%7f",
    CHAT + "/%1f",
]
U12_ODD = [
    "",
    CHAT + "/" + "a" * 10240,
    CHAT + "?" + "a" * TARGET_MAX_BYTES,
    quote(CHAT, safe="").replace("%", "%25"),
    "https://api.openai.com/v1%252fx",
    CHAT + "/%zz",
    CHAT + "?a=%",
]
HAZARDS = {
    "U1": U1_USER,
    "U2": U2_BACKSLASH,
    "U3": U3_SPACE,
    "U4": U4_NOT_ASCII,
    "U5": U5_HOST,
    "U6": U6_SCHEME_AND_PORT,
    "U7": U7_ADDRESS,
    "U8": U8_PATH,
    "U9": U9_LINE_BREAK,
    "U12": U12_ODD,
}


@pytest.mark.parametrize(
    ("row", "url"), [(row, url) for row, urls in HAZARDS.items() for url in urls]
)
def test_hazard_is_refused_in_every_form(row: str, url: str) -> None:
    refused(b"u=" + url.encode())
    refused("u=" + quote(url, safe=""))
    path, question_mark, query = url.partition("?")
    # Where the server cuts the query off, "https://host" without a path is no longer odd.
    if path.startswith("https:") and not (row == "U1" and question_mark):
        refused(query.encode(), f"/v1/forward/{path.encode().decode('latin-1')}")


@pytest.mark.parametrize("path", [*U8_PATH, *U9_LINE_BREAK])
def test_prefix_routes_refuse_the_same_paths(path: str) -> None:
    rest, _, query = path.removeprefix("https://api.openai.com").partition("?")
    with pytest.raises(LavaError) as caught:
        parse_prefix("https://api.openai.com", rest.encode(), query.encode())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("", "missing"),
        ("x=1", "missing"),
        ("u", "empty"),
        ("u=", "empty"),
        (f"u={CHAT}&u={CHAT}", "twice"),
        (f"u={CHAT}?a=1&u=2", "twice"),
        (f"u={CHAT}&%75={CHAT}", "twice"),
        ("u=https%253A%252F%252Fapi.openai.com%252F", "encoded twice"),
        ("u=https:/api.openai.com/v1", "merge_slashes"),
    ],
)
def test_u_itself(query: str, word: str) -> None:
    assert word in refused(query)


def test_merged_slashes_in_the_path_form_are_explained() -> None:
    assert "merge_slashes" in refused("", "/v1/forward/https:/api.openai.com/v1/models")


def test_a_stray_separator_is_the_targets() -> None:
    """Unescaped ``&`` inside a raw u is no error: what follows is the target's."""
    assert forward(f"u={CHAT}?a=1&b=2&&c=3").query == "a=1&b=2&c=3"


@pytest.mark.parametrize("path", ["/v1/forwards", "/v2/forward", "/", "/v1/forward2/x"])
def test_other_routes_are_not_ours(path: str) -> None:
    with pytest.raises(LavaError) as caught:
        forward(f"u={CHAT}", path)
    assert caught.value.code == "not_found"


def test_named_old_form_is_split_for_the_prefix_route() -> None:
    assert split_named(b"/v1/forward/openai/chat/completions") == ("openai", b"/chat/completions")
    assert split_named(b"/v1/forward/openai") is None
    assert split_named(b"/v1/forward/openai/") is None
    assert split_named(f"/v1/forward/{CHAT}".encode()) is None
    assert "u=<URL>" in refused("", "/v1/forward/openai/chat/completions")


PLAIN = frozenset({"127.0.0.1:9001", "simulator", "corp.example:8443"})


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://127.0.0.1:9001/v1", "127.0.0.1", 9001),
        ("https://127.0.0.1:9001/v1", "127.0.0.1", 9001),
        ("http://simulator/v1", "simulator", None),
        ("http://simulator:80/v1", "simulator", None),
        ("http://simulator:7/v1", "simulator", 7),
        ("https://corp.example:8443/v1", "corp.example", 8443),
        ("https://corp.example/v1", "corp.example", None),
    ],
)
def test_hosts_that_the_operator_names(url: str, host: str, port: int | None) -> None:
    for query in both_forms(url):
        target = forward(query, plain_hosts=PLAIN)
        assert (target.host, target.port, target.path) == (host, port, "/v1")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9002/v1",
        "http://127.0.0.1/v1",
        "http://corp.example/v1",
        "http://[::1]:9001/v1",
        "http://127.0.0.1:09001/v1",
        "http://user@127.0.0.1:9001/v1",
    ],
)
def test_operator_named_hosts_open_nothing_else(url: str) -> None:
    for query in both_forms(url):
        refused(query, plain_hosts=PLAIN)


@pytest.mark.parametrize(
    ("base", "rest", "query", "wanted"),
    [
        ("https://h.example", "/v1/models", "", Target("h.example", None, "/v1/models", "")),
        (
            "https://h.example/api/",
            "/v1",
            "a=1&key=K",
            Target("h.example", None, "/api/v1", "a=1", None, "K"),
        ),
        ("http://127.0.0.1:9001", "", "", Target("127.0.0.1", 9001, "/", "")),
        (
            "https://h.example",
            "/v1",
            "u=https://x",
            Target("h.example", None, "/v1", "u=https://x"),
        ),
    ],
)
def test_prefix_routes(base: str, rest: str, query: str, wanted: Target) -> None:
    assert parse_prefix(base, rest.encode(), query.encode()) == wanted


def test_prefix_needs_a_path() -> None:
    with pytest.raises(LavaError):
        parse_prefix("https://api.openai.com", b".evil.com/v1", b"")


ARN = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.amazon/converse"


def test_encoded_slash_only_where_the_provider_allows_it() -> None:
    target = forward(f"u={quote('https://bedrock-runtime.us-east-1.amazonaws.com' + ARN, safe='')}")
    assert target.path == ARN
    check_path(target.path, encoded_slash=True)
    with pytest.raises(LavaError, match="%2F"):
        check_path(target.path, encoded_slash=False)


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/", "/v1/models/a.b:c@1,2", "/v1/a%20b", "/v1/%C3%A9", "/v1/~x/$y'(z)*+!&="],
)
def test_ordinary_paths_pass_either_way(path: str) -> None:
    check_path(path, encoded_slash=False)
    check_path(path, encoded_slash=True)


@pytest.mark.parametrize("path", ["v1", "//", "/...", "/v1/%2E"])
def test_check_path_alone(path: str) -> None:
    with pytest.raises(LavaError):
        check_path(path, encoded_slash=True)


def test_upstream_url_is_built_from_our_origin() -> None:
    target = forward(f"u={CHAT}?a=1")
    assert upstream_url("http://127.0.0.1:9001/base/", target) == (
        "http://127.0.0.1:9001/base/v1/chat/completions?a=1"
    )


HOST = re.compile(r"[a-z0-9.-]+")
PRINTABLE = re.compile(r"[\x21-\x7e]*")
# Characters and fragments at which URL parsers are known to differ.
NASTY = st.sampled_from(
    [
        "https://", "http://", "api.openai.com", "evil.com", "@", ":", "443", "/", "//", "\\", "?",
        "#", "&", "=", "%", "%2f", "%2e", "..", ".", ";", "%25", "%00", "%0a", "\n", "\t", " ", "+",
        "[::1]", "127.0.0.1", "ⓐ", "。", "xn--", "u=", "key=", "metadata=", "v1", "a", "%C3%A9",
        "\x7f", "|", "{", "%3D", "%41", "-", "_", "A",
    ]
)  # fmt: skip
PIECES = st.lists(NASTY, max_size=10).map("".join)
URLS = st.one_of(PIECES, PIECES.map(lambda tail: CHAT + tail), st.text(max_size=40))


def attempt(path: bytes, query: bytes) -> Target | None:
    """The target, or None where it is refused; any other exception is a defect."""
    try:
        return parse_target(path, query)
    except LavaError:
        return None


@given(URLS, st.booleans(), PIECES)
@example("https://h.example/%41?a=%41", False, "")
def test_whatever_is_accepted_means_the_same_to_yarl(url: str, encode: bool, tail: str) -> None:
    value = quote(url, safe="") if encode else url
    target = attempt(b"/v1/forward", f"u={value}&{tail}".encode("utf-8", "replace"))
    if target is None:
        return
    assert HOST.fullmatch(target.host)
    built = upstream_url(f"https://{target.host}", target)
    assert PRINTABLE.fullmatch(built)
    seen = yarl.URL(built, encoded=True)
    assert (seen.scheme, seen.raw_host, seen.port) == ("https", target.host, 443)
    assert (seen.raw_path, seen.raw_query_string) == (target.path, target.query)
    assert seen.user is None
    assert not seen.raw_fragment
    # yarl's own normalising parse goes to the same place, too.
    assert yarl.URL(built).path == seen.path


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_parse_or_are_refused(path: bytes, query: bytes) -> None:
    target = attempt(b"/v1/forward/" + path, b"u=" + query)
    assert target is None or HOST.fullmatch(target.host)
