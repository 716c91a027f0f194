"""Signatures: AWS's published test suite, and botocore as a second opinion on everything else."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest import mock

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.core.errors import LavaError
from lava_proxy.wire.headers import upstream_headers
from lava_proxy.wire.sigv4 import AwsKeys, parse_keys, region_of, sign, signed_headers

AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SESSION = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfI"
    "eoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0"
    "wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDry"
    "pNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
FORM = b"application/x-www-form-urlencoded"
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

PUBLISHED = [
    ("GET", "/", "", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("GET", "/" + UNRESERVED, "", "",
     "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"),
    ("GET", "/ሴ", "", "", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    ("GET", "/", "Param1=value1", "",
     "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"),
    ("GET", "/", "Param2=value2&Param1=value1", "",
     "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ("GET", "/", f"{UNRESERVED}={UNRESERVED}", "",
     "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"),
    ("GET", "/", "%E1%88%B4=bar", "",
     "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
    ("POST", "/", "", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ("POST", "/", "Param1=value1", "",
     "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"),
    ("POST", "/", "", "Param1=value1",
     "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
]  # fmt: skip


def signature(added: list[tuple[bytes, bytes]]) -> str:
    return dict(added)[b"authorization"].decode().rpartition("Signature=")[2]


@pytest.mark.parametrize(("method", "path", "query", "body", "wanted"), PUBLISHED)
def test_the_published_suite(method: str, path: str, query: str, body: str, wanted: str) -> None:
    headers = [(b"content-type", FORM)] if body else []
    added = sign(
        KEYS, method, path, query, headers, body.encode(), host=b"example.amazonaws.com",
        region="us-east-1", service="service", at=AT,
    )  # fmt: skip
    assert signature(added) == wanted
    assert dict(added)[b"x-amz-date"] == b"20150830T123600Z"


def test_the_published_session_token() -> None:
    keys = AwsKeys(KEYS.access_key, KEYS.secret_key, SESSION)
    added = sign(
        keys, "POST", "/", "", [], b"", host=b"example.amazonaws.com", region="us-east-1",
        service="service", at=AT,
    )  # fmt: skip
    assert signature(added) == "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
    assert dict(added)[b"authorization"] == (
        b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        b"SignedHeaders=host;x-amz-date;x-amz-security-token, "
        b"Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
    )


segment = st.text("abcXYZ019-._~:@!$&'()*+,=", min_size=1, max_size=9).filter(
    lambda s: s.strip(".")
)
encoded = st.sampled_from(["%3A", "%2F", "%20", "%E1%88%B4"])
paths = st.lists(st.lists(segment | encoded, min_size=1, max_size=3).map("".join), min_size=1,
                 max_size=4).map(lambda parts: "/" + "/".join(parts))  # fmt: skip
names = st.text("abcAB-_.~", min_size=1, max_size=5)
queries = st.dictionaries(names, st.text("abcZ-_.~"), max_size=4).map(
    lambda query: "&".join(f"{name}={value}" for name, value in query.items())
)
values = st.text("abc  XYZ;=/", max_size=12).map(str.strip)


@given(
    paths,
    queries,
    st.dictionaries(st.sampled_from(["x-amz-target", "x-amz-meta", "content-type"]), values),
    st.binary(max_size=40),
    st.sampled_from([None, SESSION]),
)
def test_botocore_signs_the_same(
    path: str, query: str, headers: dict[str, str], body: bytes, session: str | None
) -> None:
    url = f"https://bedrock-runtime.eu-west-1.amazonaws.com{path}" + (f"?{query}" if query else "")
    theirs = AWSRequest("POST", url, headers, body)
    signer = botocore.auth.SigV4Auth(
        Credentials(KEYS.access_key, KEYS.secret_key, session), "bedrock", "eu-west-1"
    )
    with mock.patch("botocore.auth.get_current_datetime", return_value=AT):
        signer.add_auth(theirs)
    added = sign(
        AwsKeys(KEYS.access_key, KEYS.secret_key, session), "POST", path, query,
        [(name.encode(), value.encode()) for name, value in headers.items()], body,
        host=b"bedrock-runtime.eu-west-1.amazonaws.com", region="eu-west-1", service="bedrock",
        at=AT,
    )  # fmt: skip
    assert dict(added)[b"authorization"].decode() == theirs.headers["Authorization"]


def test_keys_are_read_and_hidden() -> None:
    keys = parse_keys("AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG+bPx:AQoD//w==")
    assert keys == AwsKeys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPx", "AQoD//w==")
    assert "wJalr" not in repr(keys)
    assert "AQoD" not in repr(keys)
    for wrong in ("", "key", "AKIAIOSFODNN7EXAMPLE:", "akia:secret", "AKIAIOSFODNN7EXAMPLE:a b"):
        assert parse_keys(wrong) is None


def test_a_host_names_its_region() -> None:
    assert region_of("bedrock-runtime.us-gov-west-1.amazonaws.com") == "us-gov-west-1"
    assert region_of("vpce-0a.bedrock-runtime.ap-south-1.vpce.amazonaws.com") == "ap-south-1"
    assert region_of("localhost:9000") is None


def test_a_callers_signature_says_what_it_covers() -> None:
    text = b"AWS4-HMAC-SHA256 Credential=A/b/c, SignedHeaders=host;x-amz-date, Signature=0"
    pairs = [(b"authorization", text), (b"x-amz-date", b"1"), (b"cookie", b"c"), (b"host", b"h")]
    signed = signed_headers(pairs)
    assert signed == {b"host", b"x-amz-date"}
    kept = upstream_headers(pairs, signed=signed)
    assert (b"authorization", text) in kept
    assert (b"x-amz-date", b"1") in kept
    assert signed_headers([(b"authorization", b"Bearer x")]) is None
    with pytest.raises(LavaError):
        signed_headers([(b"authorization", b"AWS4-HMAC-SHA256 Credential=A")])
    for lost in (b"cookie", b"x-api-key", b"x-lava-metadata", b"connection", b"x-forwarded-for"):
        with pytest.raises(LavaError):
            upstream_headers(pairs, signed=frozenset({b"host", lost}))
