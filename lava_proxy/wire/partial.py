"""How much text there is in JSON that broke off, where no reader can make anything of it.

The members that hold what a model says have the same few names in every dialect; what an answer
repeats of its request (instructions, tools) has others. Quotes are escaped inside strings, so no
text can look like a member. The last string may lack its end.
"""

from __future__ import annotations

import re

_SAID = re.compile(
    rb'"(?:text|content|arguments|reasoning_content|reasoning|thinking|refusal|partial_json|input'
    rb"|code|transcript|response|message|output|generated_text|generation|completion|outputText)"
    rb'"\s*:\s*"([^"\\]*+(?:\\.[^"\\]*+)*+)',
    re.DOTALL,
)

_ESCAPE = re.compile(rb"\\(?:u.{4}|.)", re.DOTALL)


def text_bytes(part: bytes) -> int:
    """Bytes of text in `part`, escapes undone."""
    return sum(_unescaped(said) for said in _SAID.findall(part))


def _unescaped(said: bytes) -> int:
    """An escape stands for one byte; ``\\uXXXX`` for at most three."""
    size = len(said)
    if b"\\" in said:
        for escape in _ESCAPE.findall(said):
            size -= len(escape) - (3 if escape[1:2] == b"u" else 1)
    return size
