"""One frame of AWS's binary event stream, made and taken apart.

Total length, header length, CRC of those eight bytes, headers, payload, CRC of all before it. A
header is its name's length, its name, a type byte and a value; only strings (type 7) tell us
anything, the others are stepped over.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from zlib import crc32

OVERHEAD = 16
_STRING = 7
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of each type of value whose length is not written."""


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A frame with these string headers."""
    text = b"".join(
        bytes((len(name),)) + name.encode() + struct.pack(">BH", _STRING, len(value)) + value
        for name, value in ((name, value.encode()) for name, value in headers.items())
    )
    start = struct.pack(">II", OVERHEAD + len(text) + len(payload), len(text))
    frame = start + struct.pack(">I", crc32(start)) + text + payload
    return frame + struct.pack(">I", crc32(frame))


def string_headers(data: bytes) -> dict[str, str]:
    """The string headers in a frame's header block. Raises ValueError where it is malformed."""
    found: dict[str, str] = {}
    at, end = 0, len(data)
    try:
        while at < end:
            size = data[at]
            name = data[at + 1 : at + 1 + size]
            at += 1 + size
            kind = data[at]
            at += 1
            if kind in (6, _STRING):
                length = int.from_bytes(data[at : at + 2], "big")
                at += 2
                if kind == _STRING:
                    found[name.decode("latin-1")] = data[at : at + length].decode("utf-8")
                at += length
            else:
                at += _FIXED[kind]
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError("malformed event stream headers") from error
    if at != end:
        raise ValueError("malformed event stream headers")
    return found
