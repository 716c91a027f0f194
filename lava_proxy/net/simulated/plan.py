"""What a simulated answer holds: how many tokens, how far apart, counted and capped how.

The control word ``sim-<tokens>-<pace_ms>`` and its flags stand in the model name, in the prompt, in
the path or in an ``x-sim`` header (a gateway may drop the header). The first one found in the order
header, model, path, body counts; without any, an answer is 40 tokens, 20 ms apart.

Flags, each behind a dash: ``stamp`` (every delta carries the clock), ``think<N>`` (N hidden
reasoning tokens come first, in silence), ``cache<N>`` (N input tokens were cached), ``in<N>`` (the
input is N tokens), ``fail<status>`` (an error, not an answer), and for the second half of a stream
``drop`` (FIN without an end), ``reset`` (RST), ``stall`` (silence). The name of a provider makes a
streamed chat look like that provider's (`compatible.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import orjson

from lava_proxy.net.simulated.script import Ending

DEFAULT_TOKENS = 40
DEFAULT_PACE_MS = 20
REMEMBERED_BODY_BYTES = 4096

_CONTROL = re.compile(rb"sim-(\d{1,7})-(\d{1,7})((?:-[a-z]+\d*)*)")
_FLAG = re.compile(rb"([a-z]+)(\d*)")
_ENDINGS = {b"drop": Ending.TRUNCATED, b"reset": Ending.RESET, b"stall": Ending.STALL}
_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens")
_PROMPT = ("messages", "prompt", "input", "instructions", "system", "contents", "systemInstruction")
_NOT_PROMPT = frozenset(("role", "type", "id"))

JsonObject = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Plan:
    """One answer, decided."""

    asked: JsonObject = field(compare=False)
    """The request's body."""
    model: str
    tokens: int
    """Visible tokens per choice, cap applied."""
    think: int
    """Hidden tokens before them, cap applied."""
    capped: bool
    """The caller's cap ended the answer."""
    pace_s: float
    input_tokens: int
    cached: int
    stamp: bool
    fail_status: int
    ends: Ending
    choices: int
    flags: frozenset[bytes] = frozenset()

    @property
    def output_tokens(self) -> int:
        """All that is billed as output, reasoning included."""
        return (self.tokens + self.think) * self.choices

    @property
    def whole_s(self) -> float:
        """How long an answer takes that is not streamed."""
        return (self.tokens + self.think) * self.pace_s

    def shown(self) -> int:
        """Tokens per choice that go out before the planned ending."""
        return self.tokens if self.ends is Ending.CLEAN else self.tokens // 2


def plan_answer(control: str, path: str, body: bytes) -> Plan | None:
    """Read the control word (`control` = the ``x-sim`` header), the caps and the size of the prompt
    from a request; None when the body is not a JSON object. Small bodies are remembered."""
    if len(body) > REMEMBERED_BODY_BYTES:
        return _plan(control, path, body)
    return _plan_remembered(control, path, body)


def _plan(control: str, path: str, body: bytes) -> Plan | None:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(asked, dict):
        return None
    model = _model(asked, path)
    tokens, pace_ms, flags = _control(control, model, path, body)
    think, tokens_shown, capped = _capped(tokens, int(flags.get(b"think") or 0), asked)
    choices = asked.get("n")
    input_tokens = int(flags.get(b"in") or 0) or max(1, -(-_prompt_bytes(asked) // 4))
    return Plan(
        asked=asked,
        model=model,
        tokens=tokens_shown,
        think=think,
        capped=capped,
        pace_s=pace_ms / 1000,
        input_tokens=input_tokens,
        cached=min(int(flags.get(b"cache") or 0), input_tokens),
        stamp=b"stamp" in flags,
        fail_status=int(flags.get(b"fail") or 0),
        ends=next((_ENDINGS[flag] for flag in flags if flag in _ENDINGS), Ending.CLEAN),
        choices=choices if isinstance(choices, int) and 0 < choices <= 128 else 1,
        flags=frozenset(flags),
    )


_plan_remembered = lru_cache(maxsize=256)(_plan)


def _model(asked: JsonObject, path: str) -> str:
    """From the body, or from a path such as ``/v1beta/models/NAME:generateContent``."""
    model = asked.get("model")
    if isinstance(model, str):
        return model
    name, colon, _ = path.rpartition("/")[2].partition(":")
    return name if colon else ""


def _control(
    control: str, model: str, path: str, body: bytes
) -> tuple[int, int, dict[bytes, bytes]]:
    found = (
        _CONTROL.search(control.encode())
        or _CONTROL.search(model.encode())
        or _CONTROL.search(path.encode())
        or _CONTROL.search(body)
    )
    if found is None:
        return DEFAULT_TOKENS, DEFAULT_PACE_MS, {}
    flags: dict[bytes, bytes] = dict(_FLAG.findall(found[3]))
    return int(found[1]), int(found[2]), flags


def _capped(tokens: int, think: int, asked: JsonObject) -> tuple[int, int, bool]:
    """(hidden, visible, cut short): the cap covers hidden tokens first, as providers count."""
    nested = asked.get("generationConfig")
    places = (asked, nested) if isinstance(nested, Mapping) else (asked,)
    caps = [place.get(name) for place in places for name in _CAPS]
    cap = min((cap for cap in caps if isinstance(cap, int)), default=tokens + think)
    hidden = min(think, cap)
    visible = min(tokens, cap - hidden)
    return hidden, visible, hidden + visible < tokens + think


def _prompt_bytes(asked: JsonObject) -> int:
    return sum(_text_bytes(asked[name]) for name in _PROMPT if name in asked)


def _text_bytes(value: object) -> int:
    """UTF-8 bytes of every text below `value`; a number (a token id) counts as one token."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        return sum(map(_text_bytes, value))
    if isinstance(value, Mapping):
        return sum(_text_bytes(item) for name, item in value.items() if name not in _NOT_PROMPT)
    return 4 if isinstance(value, int) else 0
