"""Where an output cap stands in the body of a model invoked through Bedrock: each maker's own way.

A cap counts only where the model obeys it, so the member is found by the maker in the model's id.
An id that hides the maker (an ARN of a profile, an imported model) is judged by the body; where
that says nothing either, the largest of the caps in it is taken, and none is added.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .contract import AskError
from .jsonedit import find_member, repeated, set_member, set_nested
from .strict import limit, mapping
from .values import dataclass

Place = tuple[str, str]
"""(outer, inner) member names; no outer: in the body itself."""

MAX_TOKENS: Place = ("", "max_tokens")
_LLAMA: Place = ("", "max_gen_len")
_TITAN: Place = ("textGenerationConfig", "maxTokenCount")
_NOVA: Place = ("inferenceConfig", "maxTokens")
_NOVA_OLD: Place = ("inferenceConfig", "max_new_tokens")
_OPENAI: Place = ("", "max_completion_tokens")
_CLAUDE_OLD: Place = ("", "max_tokens_to_sample")
_JURASSIC: Place = ("", "maxTokens")

_MAKERS: tuple[tuple[str, tuple[Place, ...]], ...] = (
    ("anthropic.", (MAX_TOKENS, _CLAUDE_OLD)),
    ("meta.", (_LLAMA,)),
    ("amazon.titan-text", (_TITAN,)),
    ("amazon.titan-tg1", (_TITAN,)),
    ("amazon.nova", (_NOVA, _NOVA_OLD)),
    ("ai21.j2", (_JURASSIC,)),
    ("openai.", (_OPENAI, MAX_TOKENS)),
    *((maker, (MAX_TOKENS,)) for maker in ("ai21.", "cohere.", "deepseek.", "mistral.")),
    *((maker, (MAX_TOKENS,)) for maker in ("qwen.", "writer.", "google.", "moonshot", "minimax.")),
    *((maker, (MAX_TOKENS,)) for maker in ("nvidia.", "zai.")),
)
"""The first place of each is where a cap is added."""
_SHAPES: tuple[tuple[str, tuple[Place, ...]], ...] = (
    ("anthropic_version", (MAX_TOKENS, _CLAUDE_OLD)),
    ("max_gen_len", (_LLAMA,)),
    ("textGenerationConfig", (_TITAN,)),
    ("inputText", (_TITAN,)),
    ("inferenceConfig", (_NOVA, _NOVA_OLD)),
    ("schemaVersion", (_NOVA, _NOVA_OLD)),
)
_ANY = (MAX_TOKENS, _OPENAI, _JURASSIC, _CLAUDE_OLD)
_WORDLESS = ("embed", "rerank", "titan-image", "nova-canvas", "nova-reel", "stability.")
"""In the ids of models whose answers are no tokens."""

OUTER = frozenset(
    name for _, places in (*_MAKERS, *_SHAPES) for place in places for name in place if name
) | frozenset(inner for _, inner in _ANY)
"""Members that must not occur twice."""
_OUTER = (_NOVA[0], _TITAN[0])


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds an answer's output: the cap that was sent, whether one can be set, and whether
    there is output at all."""

    cap: int | None
    capable: bool
    writes: bool = True


def read(model: str, request: Mapping[str, Any], body: bytes, *, converse: bool) -> Limits:
    """The limits of a request; converse has one way for all models. Raises `AskError`."""
    for outer in _OUTER:
        _once(body, outer)
    if converse:
        config = mapping(request, _NOVA[0])
        return Limits(limit(config, _NOVA[1], ".".join(_NOVA)), capable=True)
    given = caps(model, request)
    talks = writes(model)
    capable = talks and bool(given or places(model, request))
    return Limits(max(given.values(), default=None), capable, talks)


def _once(body: bytes, outer: str) -> None:
    """Refuse a cap that its own object has twice."""
    found = find_member(body, outer)
    if found is None or not body.startswith(b"{", found.start):
        return
    twice = repeated(body[found.start : found.end], OUTER)
    if twice is not None:
        raise AskError(f"the member {twice!r} occurs twice; send it once", f"{outer}.{twice}")


def writes(model: str) -> bool:
    """Whether the model answers in tokens."""
    return not any(word in model for word in _WORDLESS)


def places(model: str, request: Mapping[str, Any]) -> tuple[Place, ...]:
    """Where this model obeys a cap, the usual place first; empty where nobody knows."""
    for maker, found in _MAKERS:
        if model.startswith(maker) or f".{maker}" in model or f"/{maker}" in model:
            return found
    return next((found for member, found in _SHAPES if member in request), ())


def caps(model: str, request: Mapping[str, Any]) -> dict[Place, int]:
    """The caps that count, by their places. Raises `AskError` for one that is no count."""
    found: dict[Place, int] = {}
    for outer, inner in places(model, request) or _ANY:
        source = mapping(request, outer) if outer else request
        value = limit(source, inner, f"{outer}.{inner}" if outer else inner)
        if value is not None:
            found[outer, inner] = value
    return found


def lowered(body: bytes, model: str, request: Mapping[str, Any], output_cap: int) -> bytes:
    """`body` with no cap above `output_cap`, and one where there was none."""
    given = caps(model, request)
    known = places(model, request)
    for place, value in (given or dict.fromkeys(known[:1], output_cap + 1)).items():
        if value > output_cap:
            body = _set(body, place, b"%d" % output_cap)
    return body


def _set(body: bytes, place: Place, value: bytes) -> bytes:
    outer, inner = place
    return set_nested(body, outer, inner, value) if outer else set_member(body, inner, value)
