"""Answers as bytes, and what they mean: framings, endings, and what is not HTTP."""

from __future__ import annotations

from upstream_kit import CHUNKED, OK, Outcome

TWO = b"content-length: 2\r\n\r\nhi"
LENGTH = (b"content-length", b"2")
TE = (b"transfer-encoding", b"chunked")
BAD = Outcome(end="upstream_protocol_error")

Case = tuple[bytes, str, Outcome]

CASES: dict[str, Case] = {
    "length": (OK + TWO, "", Outcome(200, [LENGTH], b"hi", "end", reusable=True)),
    "length, then the end": (OK + TWO, "eof", Outcome(200, [LENGTH], b"hi", "end", reusable=False)),
    "length 0": (
        OK + b"Content-Length: 0\r\n\r\n",
        "",
        Outcome(200, [(b"content-length", b"0")], b"", "end", reusable=True),
    ),
    "no reason": (
        b"HTTP/1.1 200\r\n" + TWO,
        "",
        Outcome(200, [LENGTH], b"hi", "end", reusable=True),
    ),
    "spaces around values": (
        OK + b"A: \t b c \t\r\nContent-Length:2  \r\n\r\nhi",
        "",
        Outcome(200, [(b"a", b"b c"), LENGTH], b"hi", "end", reusable=True),
    ),
    "names in any case, repeated, empty, high bytes": (
        OK + b"X-A: 1\r\nx-a:\r\nX-B: caf\xe9\r\n" + TWO,
        "",
        Outcome(
            200,
            [(b"x-a", b"1"), (b"x-a", b""), (b"x-b", b"caf\xe9"), LENGTH],
            b"hi",
            "end",
            reusable=True,
        ),
    ),
    "chunked": (
        CHUNKED + b"2\r\nhi\r\n3;x=y\r\n\r\n!\r\n0\r\n\r\n",
        "",
        Outcome(200, [TE], b"hi\r\n!", "end", reusable=True),
    ),
    "chunk sizes with leading zeros, spaces behind, any case": (
        OK + b"Transfer-Encoding: Chunked\r\n\r\n0002  \r\nhi\r\nA\r\n0123456789\r\n000\r\n\r\n",
        "",
        Outcome(200, [(TE[0], b"Chunked")], b"hi0123456789", "end", reusable=True),
    ),
    "trailers are dropped": (
        CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nConnection: close\r\n\r\n",
        "",
        Outcome(200, [TE], b"hi", "end", reusable=True),
    ),
    "the connection's end is the body's": (
        OK + b"a: b\r\n\r\nhi",
        "eof",
        Outcome(200, [(b"a", b"b")], b"hi", "end", delimited=False),
    ),
    "and its reset is not": (
        OK + b"a: b\r\n\r\nhi",
        "reset",
        Outcome(200, [(b"a", b"b")], b"hi", "truncated", delimited=False),
    ),
    "neither, yet": (OK + b"\r\nhi", "", Outcome(200, [], b"hi", "open", delimited=False)),
    "connection: close": (
        OK + b"Connection: close\r\n" + TWO,
        "",
        Outcome(200, [(b"connection", b"close"), LENGTH], b"hi", "end", reusable=False),
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + TWO, "", Outcome(200, [LENGTH], b"hi", "end")),
    "HTTP/1.0 with keep-alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + TWO,
        "",
        Outcome(200, [(b"connection", b"keep-alive"), LENGTH], b"hi", "end", reusable=True),
    ),
    "HTTP/1.0 with chunks": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "",
        Outcome(200, [(b"connection", b"keep-alive"), TE], b"", "end", reusable=False),
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "", Outcome(204, [], b"", "end", reusable=True)),
    "304 with a length": (
        b"HTTP/1.1 304 Not Modified\r\n" + TWO[:-2],
        "",
        Outcome(304, [LENGTH], b"", "end", reusable=True),
    ),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nContent-Type: x\r\nLink: y\r\n\r\n"
        + OK
        + TWO,
        "",
        Outcome(200, [LENGTH], b"hi", "end", reusable=True),
    ),
    "an upgrade that was only offered": (
        b"HTTP/1.1 426 Upgrade\r\nUpgrade: h2c\r\nConnection: upgrade\r\n" + TWO,
        "",
        Outcome(
            426,
            [(b"upgrade", b"h2c"), (b"connection", b"upgrade"), LENGTH],
            b"hi",
            "end",
            reusable=True,
        ),
    ),
    "more than the answer": (OK + TWO + b"H", "", Outcome(200, [LENGTH], b"hi", "end")),
    "a second answer": (
        OK + TWO + b"HTTP/1.1 500 No\r\ncontent-length: 1\r\n\r\nx",
        "",
        Outcome(200, [LENGTH], b"hi", "end"),
    ),
    "a body on 204": (
        b"HTTP/1.1 204 No\r\n" + TWO,
        "",
        Outcome(204, [LENGTH], b"", "end"),
    ),
    # Broken off.
    "nothing": (b"", "eof", Outcome(end="upstream_unreachable")),
    "half a head": (OK + b"a: b\r\n", "eof", Outcome(end="upstream_unreachable")),
    "reset in the head": (OK + b"a: b\r\n", "reset", Outcome(end="upstream_unreachable")),
    "only an interim answer": (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        "eof",
        Outcome(end="upstream_unreachable"),
    ),
    "short of its length": (
        OK + b"content-length: 3\r\n\r\nhi",
        "eof",
        Outcome(200, [(b"content-length", b"3")], b"hi", "truncated"),
    ),
    "no last chunk": (
        CHUNKED + b"2\r\nhi\r\n",
        "eof",
        Outcome(200, [TE], b"hi", "truncated"),
    ),
    "half a last chunk": (
        CHUNKED + b"2\r\nhi\r\n0\r\n",
        "eof",
        Outcome(200, [TE], b"hi", "truncated"),
    ),
    "half a chunk, reset": (CHUNKED + b"5\r\nhi", "reset", Outcome(200, [TE], b"hi", "truncated")),
    # Malformed.
    "not HTTP": (b"SSH-2.0-OpenSSH_9\r\n", "", BAD),
    "HTTP/0.9": (b"<html>hello</html>", "", BAD),
    "LF only": (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi", "", BAD),
    "folded": (OK + b"a: b\r\n c\r\n" + TWO, "", BAD),
    "folded coding": (OK + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "", BAD),
    "bare CR": (OK + b"a: b\rc\r\n" + TWO, "", BAD),
    "NUL": (OK + b"a: b\0c\r\n" + TWO, "", BAD),
    "space before the colon": (OK + b"content-length : 2\r\n\r\nhi", "", BAD),
    "no name": (OK + b": x\r\n" + TWO, "", BAD),
    "both framings": (OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n", "", BAD),
    "both, turned": (OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n", "", BAD),
    "two lengths": (OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi", "", BAD),
    "two equal lengths": (OK + b"content-length: 2\r\n" + TWO, "", BAD),
    "a list of lengths": (OK + b"content-length: 2, 2\r\n\r\nhi", "", BAD),
    "negative length": (OK + b"content-length: -2\r\n\r\nhi", "", BAD),
    "length over 64 bits": (OK + b"content-length: 99999999999999999999\r\n\r\n", "", BAD),
    "another coding": (OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "", BAD),
    "another coding, its own line": (
        OK + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "",
        BAD,
    ),
    "chunked twice": (
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "",
        BAD,
    ),
    "identity": (OK + b"transfer-encoding: identity\r\n\r\nhi", "", BAD),
    "switching protocols": (
        b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhi",
        "",
        BAD,
    ),
    "status 99": (b"HTTP/1.1 099 X\r\n" + TWO, "", BAD),
    "status 600": (b"HTTP/1.1 600 X\r\n" + TWO, "", BAD),
    "status of two digits": (b"HTTP/1.1 20 X\r\n" + TWO, "", BAD),
    "bad chunk size": (CHUNKED + b"2\r\nhi\r\nzz\r\n", "", Outcome(200, [TE], b"hi", "protocol")),
    "chunk size 0x": (CHUNKED + b"0x2\r\nhi\r\n", "", Outcome(200, [TE], b"", "protocol")),
    "chunk size over 64 bits": (
        CHUNKED + b"f" * 17 + b"\r\nhi",
        "",
        Outcome(200, [TE], b"", "protocol"),
    ),
    "more than the chunk": (CHUNKED + b"2\r\nhiX\r\n", "", Outcome(200, [TE], b"hi", "protocol")),
    "LF behind a chunk": (CHUNKED + b"2\r\nhi\n", "", Outcome(200, [TE], b"hi", "protocol")),
}
