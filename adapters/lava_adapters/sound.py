"""How long a recording may be, from its bytes alone, before anybody has listened to it.

`longest_ms` is a bound to hold money by: no recording of speech is thinner than 8 kbit/s, and plain
PCM says exactly how long it is. `likely_ms` is what a call is charged by when the provider never
says how long the recording was (a transcript as plain text).
"""

from __future__ import annotations

LEAST_BYTES_PER_S = 1_000
"""8 kbit/s: the thinnest speech that codecs are used with."""
UNSEEN_MS = 3_600_000
"""Assumed for a recording that the request only points to: one hour."""
TOKENS_PER_S = 32
"""The most tokens that a provider makes of a second of audio (Gemini 32, OpenAI 17, Mistral 13)."""
SPOKEN_TOKENS_PER_S = 8
"""More than anybody says in a second."""
SPEECH_CHARACTERS_PER_S = 15
SPEECH_TOKENS_PER_S = 21
"""OpenAI's own estimate for its speech: 0.015 USD a minute at 12 USD per million."""

_TYPICAL_BYTES_PER_S = 4_000
"""32 kbit/s: voice in Opus or AAC."""
_FLAC_BYTES_PER_S = 32_000
_MP3_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
)
"""Layer III: MPEG 1, then MPEG 2 and 2.5."""
_PCM = (1, 3)
_WAV_HEADER = 44
HEAD_BYTES = 8_192
"""No more of a recording is looked at."""


def likely_ms(head: bytes, size: int) -> int:
    """How long a recording of `size` bytes that begins with `head` probably is."""
    return size * 1000 // _bytes_per_s(head[:HEAD_BYTES])


def longest_ms(head: bytes, size: int) -> int:
    """The recording is not longer than this."""
    return -(-size * 1000 // (_pcm_bytes_per_s(head[:_WAV_HEADER]) or LEAST_BYTES_PER_S))


def spoken_tokens(characters: int) -> int:
    """Tokens of speech that so much text probably makes."""
    return -(-characters * SPEECH_TOKENS_PER_S // SPEECH_CHARACTERS_PER_S)


def tokens(ms: int, per_s: int = TOKENS_PER_S) -> int:
    """Tokens that are made of so much sound."""
    return -(-ms * per_s // 1000)


def _bytes_per_s(head: bytes) -> int:
    if (pcm := _pcm_bytes_per_s(head)) is not None:
        return pcm
    if head.startswith(b"fLaC"):
        return _FLAC_BYTES_PER_S
    return _mp3_bytes_per_s(head) or _TYPICAL_BYTES_PER_S


def _pcm_bytes_per_s(head: bytes) -> int | None:
    """The rate in the header of a WAV file of plain samples, if its figures agree."""
    if head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt " or len(head) < _WAV_HEADER - 8:
        return None
    kind, channels, samples, rate, block, bits = (
        int.from_bytes(head[at : at + size], "little")
        for at, size in ((20, 2), (22, 2), (24, 4), (28, 4), (32, 2), (34, 2))
    )
    sound = kind in _PCM and block * 8 == channels * bits and rate == samples * block
    return rate if sound and rate >= LEAST_BYTES_PER_S else None


def _mp3_bytes_per_s(head: bytes) -> int | None:
    """The rate of the first frame, behind an ID3 tag if there is one (and it is short)."""
    at = 0
    if head.startswith(b"ID3") and len(head) > 10:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        at = 10 + size
    frame = head[at : at + 4]
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return None
    kbits = _MP3_KBITS[0 if frame[1] & 0x18 == 0x18 else 1][frame[2] >> 4]
    return kbits * 125 or None
