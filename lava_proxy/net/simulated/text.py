"""The words a simulated model says: each is one token in the usual vocabularies."""

from __future__ import annotations

import os
from itertools import cycle, islice

import orjson

from lava_proxy.net.simulated.script import STAMP

WORDS = (" one", " two", " three", " four", " five", " six", " seven", " eight")
WORDS_JSON = tuple(orjson.dumps(word) for word in WORDS)


def words(count: int) -> str:
    """`count` tokens of text."""
    return "".join(islice(cycle(WORDS), count))


def word_json(index: int, *, stamp: bool = False) -> bytes:
    """Token number `index` as a JSON string; with `stamp` the clock is part of the text, so that
    events differ where real ones do."""
    word = WORDS_JSON[index % len(WORDS_JSON)]
    return word[:-1] + b" sim:" + STAMP + b'"' if stamp else word


def fresh_id(prefix: str) -> str:
    """An id that no other answer has."""
    return prefix + os.urandom(14).hex()
